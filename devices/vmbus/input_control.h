/* SPDX-License-Identifier: MIT */
/* Keyboard and mouse, for those who drive a guest from outside. */
#ifndef DEVICES_VMBUS_INPUT_CONTROL_H
#define DEVICES_VMBUS_INPUT_CONTROL_H

struct vm;

/*
 * Puts a keyboard and a mouse on vm->vmbus and the commands that use them on the control socket; nothing if the machine
 * lacks either, for nobody could type. 0, or -errno after printing one line.
 */
int input_create(struct vm *vm);

#endif
