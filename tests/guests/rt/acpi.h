/* SPDX-License-Identifier: MIT */
/* Finding ACPI tables (ACPI 6.4, chapter 5.2). Every table that is looked at has its checksum checked. */
#ifndef RT_ACPI_H
#define RT_ACPI_H

#include <stdint.h>

struct acpi_header {
	char signature[4];
	uint32_t length;
	uint8_t revision, checksum;
	char oem_id[6], oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
} __attribute__((packed));

/* Address of the RSDP that the machine passed. */
uint64_t acpi_rsdp(void);
const struct acpi_header *acpi_xsdt(void);
/* The table with this signature, or NULL. The guest fails if one on the way is damaged. */
const struct acpi_header *acpi_find(const char *signature);
void acpi_check(const struct acpi_header *table);
uint8_t acpi_sum(const void *data, uint32_t length);

/* A field of a table at a byte offset that may be unaligned. */
uint64_t acpi_field(const void *table, uint32_t offset, uint32_t size);

#endif
