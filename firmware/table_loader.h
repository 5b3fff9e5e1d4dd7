/* SPDX-License-Identifier: MIT */
/*
 * The script that tells a firmware how to put the ACPI tables into its memory ("etc/table-loader"): what acpi_place()
 * does for a direct boot. Source: the description of BIOS linker/loader commands in QEMU's docs/specs.
 */
#ifndef FIRMWARE_TABLE_LOADER_H
#define FIRMWARE_TABLE_LOADER_H

#include "firmware/acpi/tables.h"

#define TABLE_LOADER_RSDP   "etc/acpi/rsdp"
#define TABLE_LOADER_TABLES "etc/acpi/tables"
#define TABLE_LOADER_SCRIPT "etc/table-loader"
#define TABLE_LOADER_RECORD 128

/* Appends the script for t. Errors are latched in the buffer. */
void table_loader_build(struct acpi_buf *script, const struct acpi_tables *t);

#endif
