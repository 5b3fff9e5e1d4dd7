/* SPDX-License-Identifier: MIT */
#ifndef FIRMWARE_ACPI_TABLES_INTERNAL_H
#define FIRMWARE_ACPI_TABLES_INTERNAL_H

#include "firmware/acpi/tables.h"

/* System description table header: ACPI 6.4, 5.2.6. */
#define ACPI_HEADER_LEN 36

/* Appends a header, aligned to 8 bytes, and returns its offset. */
uint32_t acpi_begin_table(struct acpi_file *f, const char signature[4], uint8_t revision);

/* Fills in the length of the table at start, up to the end of f, and notes its checksum. */
void acpi_end_table(struct acpi_file *f, uint32_t start);

/* Writes the offset value at offset and notes it as a pointer to target. */
void acpi_point(struct acpi_file *f, uint32_t offset, uint8_t size, enum acpi_file_id target, uint32_t value);

/* Returns -EEXIST if two devices of one scope would have one name, else 0. */
int acpi_check_nodes(const struct acpi_config *config);

/* Generic Address Structure (5.2.3.2) of an I/O port; width in bytes, access 1, 2 or 4. */
void acpi_set_gas(struct acpi_buf *b, uint32_t at, uint16_t port, uint8_t width, uint8_t access);

/* Each appends one table and returns its offset. */
uint32_t acpi_add_fadt(struct acpi_file *f, const struct acpi_config *config, uint32_t facs, uint32_t dsdt);
uint32_t acpi_add_madt(struct acpi_file *f, const struct acpi_config *config);
uint32_t acpi_add_dsdt(struct acpi_file *f, const struct acpi_config *config);

#endif
