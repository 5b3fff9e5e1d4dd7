/* SPDX-License-Identifier: MIT */
/* The PVH entry (Xen's docs/misc/pvh.pandoc). Arguments: memory=MIB; initrd=BYTES, ascending. */
#include "rt/acpi.h"
#include "rt/rt.h"

#define MAGIC	 0x336ec578
#define MIB	 (1ULL << 20)
#define GIB	 (1ULL << 30)
#define E820_RAM 1

__asm__(".section .note.pvh, \"a\", @note\n"
	"	.balign	4\n"
	"	.long	4, 4, 18\n" /* XEN_ELFNOTE_PHYS32_ENTRY */
	"	.asciz	\"Xen\"\n"
	"	.long	pvh_start\n"
	"	.text\n");

struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modules, cmdline, rsdp, memmap;
	uint32_t memmap_entries, reserved;
};

struct module {
	uint64_t address, size, cmdline, reserved;
};

struct entry {
	uint64_t address, size;
	uint32_t type, reserved;
};

static void check_memory(const struct start_info *info)
{
	const struct entry *map = (const struct entry *)info->memmap;
	uint64_t size = rt_arg_number("memory", 256) * MIB, low = 0, high = 0;

	CHECK(info->memmap_entries >= 3 && info->memmap_entries < 128);
	for (uint32_t i = 0; i < info->memmap_entries; i++) {
		CHECK(map[i].size);
		CHECK_EQ(map[i].reserved, 0);
		if (map[i].type == E820_RAM && map[i].address < 4 * GIB)
			low += map[i].size;
		else if (map[i].type == E820_RAM)
			high += map[i].size;
	}
	CHECK_EQ(low + 0x60400, size < 2 * GIB ? size : 2 * GIB);
	CHECK_EQ(high, size < 2 * GIB ? 0 : size - 2 * GIB);
}

void guest_main(void)
{
	const struct start_info *info = (const struct start_info *)(uint64_t)rt_pvh_info;
	uint64_t initrd = rt_arg_number("initrd", 0);

	CHECK(!rt_boot_params);
	CHECK(info);
	CHECK_EQ(info->magic, MAGIC);
	CHECK_EQ(info->version, 1);
	CHECK_EQ(info->flags, 0);
	CHECK_EQ(info->nr_modules, initrd ? 1 : 0);
	if (initrd) {
		const struct module *module = (const struct module *)info->modules;
		const uint8_t *data = (const uint8_t *)module->address;

		CHECK_EQ(module->size, initrd);
		for (uint64_t i = 0; i < initrd; i += 61)
			CHECK_EQ(data[i], (uint8_t)i);
	}
	check_memory(info);
	CHECK(acpi_find("FACP"));
	rt_print("cmdline '%s'\n", rt_cmdline());
}
