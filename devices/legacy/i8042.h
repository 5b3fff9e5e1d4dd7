/* SPDX-License-Identifier: MIT */
/* What is left of the keyboard controller: its reset line, and the system control port's. */
#ifndef DEVICES_LEGACY_I8042_H
#define DEVICES_LEGACY_I8042_H

struct vm;

/* Ports 0x60, 0x64 and 0x92. Returns 0 or -errno, told in one line. The machine owns the device. */
int i8042_create(struct vm *vm);

#endif
