/* SPDX-License-Identifier: MIT */
/* pvpanic: how a guest kernel tells the machine that it panicked. */
#ifndef DEVICES_LEGACY_PVPANIC_H
#define DEVICES_LEGACY_PVPANIC_H

struct vm;

#define PVPANIC_PORT 0x505

/* ACPI device QEMU0001. Returns 0 or -errno, told in one line. The machine owns the device. */
int pvpanic_create(struct vm *vm);

#endif
