/* SPDX-License-Identifier: MIT */
/* Which disks the firmware is to boot from, and in what order: the fw_cfg file "bootorder". */
#ifndef FIRMWARE_BOOTORDER_H
#define FIRMWARE_BOOTORDER_H

#include <stddef.h>

struct pci_bus;

#define BOOTORDER_MAX 4096

/*
 * A line for each disk on the bus, those with boots first, then by slot; text gets a terminating zero. Without it a
 * firmware that remembers other disks than those that are there tries the shell first. Returns its length: 0 if there
 * is none.
 */
size_t bootorder_build(struct pci_bus *bus, char *text, size_t size);

#endif
