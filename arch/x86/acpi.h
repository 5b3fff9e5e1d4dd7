/* SPDX-License-Identifier: MIT */
#ifndef ARCH_X86_ACPI_H
#define ARCH_X86_ACPI_H

#include <stdint.h>

struct vm;

/* Builds the machine's ACPI tables and writes them into the BIOS area. *rsdp is their root. 0 or -errno, told. */
int x86_write_acpi(struct vm *vm, uint64_t *rsdp);

#endif
