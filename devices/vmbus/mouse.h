/* SPDX-License-Identifier: MIT */
/* The mouse on VMBus: a pointer with absolute coordinates. Loop thread, except mouse_create(). */
#ifndef DEVICES_VMBUS_MOUSE_H
#define DEVICES_VMBUS_MOUSE_H

#include <stdint.h>

struct vm;

#define MOUSE_MAX 32767 /* right and lower edge of the picture */

enum { MOUSE_LEFT = 1, MOUSE_RIGHT = 2, MOUSE_MIDDLE = 4 };

/* Puts a mouse on vm->vmbus. 0, or -errno after printing one line. */
int mouse_create(struct vm *vm);

/*
 * Where the pointer is from now on, 0 to MOUSE_MAX from the left and from above, and which buttons are held. 0;
 * -ENOTCONN when the guest has no driver for it (or there is no mouse); -EAGAIN when the guest reads too slowly.
 */
int mouse_report(struct vm *vm, uint16_t x, uint16_t y, uint8_t buttons);

#endif
