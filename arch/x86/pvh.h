/* SPDX-License-Identifier: MIT */
/* The x86/HVM direct boot ABI (PVH): Xen's public header xen/arch-x86/hvm/start_info.h, version 1. Little-endian. */
#ifndef ARCH_X86_PVH_H
#define ARCH_X86_PVH_H

#include <stdint.h>

#define PVH_MAGIC 0x336ec578u

struct pvh_start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modules; /* guest-physical, as all addresses here; 0: none */
	uint64_t cmdline;
	uint64_t rsdp;
	uint64_t memmap;
	uint32_t memmap_entries, reserved;
};

struct pvh_module {
	uint64_t address, size, cmdline, reserved;
};

struct pvh_memmap_entry {
	uint64_t address, size;
	uint32_t type; /* as in E820 */
	uint32_t reserved;
};

#endif
