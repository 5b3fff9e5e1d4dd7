/* SPDX-License-Identifier: MIT */
/*
 * Where vmm's own data lies in the first MiB of a directly booted guest. All of it is inside what the memory map
 * calls RAM (the kernel copies or reserves what it needs) but the ACPI and SMBIOS tables, which are in the BIOS area.
 */
#ifndef ARCH_X86_LAYOUT_H
#define ARCH_X86_LAYOUT_H

#define GDT_GPA		0x1000u
#define BOOT_PARAMS_GPA 0x2000u
#define PVH_INFO_GPA	0x3000u
#define PAGE_TABLES_GPA 0x4000u /* PML4, PDPT and a page directory a GiB, 4 GiB mapped */
#define SETUP_SEED_GPA	0xa000u
#define CMDLINE_GPA	0x20000u /* up to 64 KiB */
#define FDT_GPA		0x40000u
#define FDT_MAX		0x20000u
#define LOW_RAM_END	0x9fc00u
#define ACPI_GPA	0xe0000u
#define SMBIOS_GPA	0xf0000u /* for a firmware only; ACPI ends there then */
#define BIOS_END	0x100000u

#endif
