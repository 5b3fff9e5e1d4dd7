/* SPDX-License-Identifier: MIT */
/* The I/O APIC as a device: it takes the machine's interrupt pins (vmm/irq.h) and its registers' place. */
#ifndef DEVICES_LEGACY_IOAPIC_H
#define DEVICES_LEGACY_IOAPIC_H

#include <stdint.h>

struct vm;

/*
 * To be the first device, so that the others' pins lead somewhere; being on the list of devices it is then
 * reset and destroyed after them. base is guest-physical. 0 or -errno after printing the cause.
 */
int ioapic_create(struct vm *vm, uint64_t base);

#endif
