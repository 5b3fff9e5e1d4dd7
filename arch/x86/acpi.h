/* SPDX-License-Identifier: MIT */
#ifndef ARCH_X86_ACPI_H
#define ARCH_X86_ACPI_H

#include <stdint.h>

struct acpi_tables;
struct vm;

/*
 * Builds the machine's ACPI tables, with PCI's windows as vmm has set them, or as a firmware has (vm->firmware). 0 or
 * -errno, told; acpi_free() is due after 0.
 */
int x86_build_acpi(struct vm *vm, struct acpi_tables *tables);

/* Builds the machine's ACPI tables and writes them into the BIOS area. *rsdp is their root. 0 or -errno, told. */
int x86_write_acpi(struct vm *vm, uint64_t *rsdp);

#endif
