/* SPDX-License-Identifier: MIT */
/* ACPI fixed hardware: the PM1 event and control registers, the PM timer, the power button. */
#ifndef DEVICES_LEGACY_PM_H
#define DEVICES_LEGACY_PM_H

#include <stdint.h>

struct vm;
struct pm;

#define PM_BASE 0x600
#define PM_GSI	9

/*
 * The block at ports base.. (laid out as firmware/acpi/tables.h says, ACPI_PM_BLOCK_LEN bytes), its interrupt
 * on gsi: level, active high. Sets vm->pm. Returns 0 or -errno, told in one line. The machine owns it.
 */
int pm_create(struct vm *vm, uint16_t base, unsigned int gsi);

/* Somebody pressed the power button: the guest is asked to shut down. Any thread. */
void pm_power_button(struct pm *pm);

#endif
