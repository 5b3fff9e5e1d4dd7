/* SPDX-License-Identifier: MIT */
/* SMBIOS tables of the machine, for the firmware to install: DMTF DSP0134 version 3.4. */
#ifndef FIRMWARE_SMBIOS_H
#define FIRMWARE_SMBIOS_H

#include <stdint.h>

#include "firmware/acpi/buf.h"

struct smbios_config {
	unsigned int cpus;
	uint64_t low_memory, high_memory; /* bytes from 0, and from 4 GiB */
	uint64_t address;		  /* of the tables, where vmm places them itself; else 0 */
	const char *version;		  /* of the program */
};

/*
 * Appends the 64-bit entry point, in which a firmware fills in the address if there is none, and the tables. Errors are
 * latched in the buffers, which the caller frees.
 */
void smbios_build(struct acpi_buf *anchor, struct acpi_buf *tables, const struct smbios_config *config);

#endif
