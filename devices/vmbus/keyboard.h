/* SPDX-License-Identifier: MIT */
/* The keyboard on VMBus. Everything runs on the loop thread, except keyboard_create(). */
#ifndef DEVICES_VMBUS_KEYBOARD_H
#define DEVICES_VMBUS_KEYBOARD_H

#include <stddef.h>

#include "devices/vmbus/keymap.h"

struct vm;

/* Puts a keyboard on vm->vmbus. 0, or -errno after printing one line. */
int keyboard_create(struct vm *vm);

/*
 * Types: a copy of the strokes, with time between characters, for a guest's queues of keys are short. 0: done() will be
 * called once, not before this has returned, with 0 when all are on the guest's ring, or with -ECONNRESET when the
 * guest has closed the keyboard before. Otherwise it will not: -ENOTCONN when the guest has no driver for it (or there
 * is no keyboard), -EBUSY while others are typed, -ENOMEM.
 */
int keyboard_type(struct vm *vm, const struct keystroke *strokes, size_t count, void (*done)(void *opaque, int error),
		  void *opaque);

#endif
