/* SPDX-License-Identifier: MIT */
/*
 * What the machine passes by the Linux boot protocol: memory map, command line, setup_data, device tree.
 * Arguments: memory=MIB that the map must add up to; initrd=BYTES of an initrd of ascending bytes.
 */
#include "rt/acpi.h"
#include "rt/fdt.h"
#include "rt/io.h"
#include "rt/rt.h"

#define MIB		 (1ULL << 20)
#define GIB		 (1ULL << 30)
#define BP_E820_ENTRIES	 0x1e8
#define BP_HEADER_MAGIC	 0x202
#define BP_LOADER	 0x210
#define BP_RAMDISK_IMAGE 0x218
#define BP_RAMDISK_SIZE	 0x21c
#define BP_E820		 0x2d0
#define E820_RAM	 1
#define E820_RESERVED	 2
#define SETUP_DTB	 2
#define SETUP_RNG_SEED	 9
#define BIOS_HOLE	 (0x100000 - 0x9fc00) /* RAM below 1 MiB that the map does not offer */

struct range {
	uint64_t base, size;
	uint32_t type;
} __attribute__((packed));

static const struct range *map;
static unsigned int entries;

static void check_map(void)
{
	for (unsigned int i = 0; i < entries; i++) {
		CHECK(map[i].size);
		CHECK(map[i].base + map[i].size > map[i].base);
		CHECK(map[i].type == E820_RAM || map[i].type == E820_RESERVED);
		for (unsigned int j = 0; j < i; j++)
			CHECK(map[j].base + map[j].size <= map[i].base || map[i].base + map[i].size <= map[j].base);
	}
}

/* The type of what the map says about an address, 0: nothing. */
static uint32_t type_of(uint64_t address)
{
	for (unsigned int i = 0; i < entries; i++)
		if (address - map[i].base < map[i].size)
			return map[i].type;
	return 0;
}

static void check_size(uint64_t size)
{
	uint64_t low = 0, high = 0, want_low = size < 2 * GIB ? size : 2 * GIB;

	for (unsigned int i = 0; i < entries; i++) {
		if (map[i].type != E820_RAM)
			continue;
		if (map[i].base < 4 * GIB) {
			CHECK(map[i].base + map[i].size <= 2 * GIB);
			low += map[i].size;
		} else {
			high += map[i].size;
		}
	}
	CHECK_EQ(low + BIOS_HOLE, want_low);
	CHECK_EQ(high, size - want_low);
	CHECK_EQ(type_of(size < 2 * GIB ? size - 1 : 2 * GIB - 1), E820_RAM);
}

/* RAM reads as zero and keeps what is written; two ranges are not the same memory. */
static void check_word(uint64_t address)
{
	CHECK_EQ(read64(address), 0);
	write64(address, address ^ 0x5aa55aa55aa55aa5);
}

static void visit(void (*fn)(uint64_t address))
{
	for (unsigned int i = 0; i < entries; i++) {
		const struct range *r = &map[i];
		uint64_t end = r->base + r->size;

		if (r->type != E820_RAM || r->base < 1 * MIB)
			continue;
		if (r->base >= 4 * GIB) {
			rt_map_gib((unsigned int)(r->base / GIB));
			rt_map_gib((unsigned int)((end - 1) / GIB));
			fn(r->base);
		}
		fn(end - 8);
		fn(end - 4096);
	}
}

static void check_again(uint64_t address)
{
	CHECK_EQ(read64(address), address ^ 0x5aa55aa55aa55aa5);
}

static void check_seed(void)
{
	uint32_t length, set = 0;
	const uint8_t *seed = rt_setup_data(SETUP_RNG_SEED, &length);

	CHECK(seed);
	CHECK_EQ(length, 32);
	rt_print("seed ");
	for (uint32_t i = 0; i < length; i++) {
		rt_print("%c%c", "0123456789abcdef"[seed[i] >> 4], "0123456789abcdef"[seed[i] & 15]);
		set |= seed[i];
	}
	rt_print("\n");
	CHECK(set);
}

static void check_tree(uint64_t size)
{
	const void *fdt = fdt_machine();
	uint64_t low = size < 2 * GIB ? size : 2 * GIB;
	uint32_t length;
	const char *bootargs;
	const void *reg;

	CHECK(fdt);
	CHECK(fdt_has_string(fdt, fdt_root(fdt), "compatible", "vmm,pc"));
	reg = fdt_property(fdt, fdt_find(fdt, 0, "device_type", "memory"), "reg", &length);
	CHECK(reg);
	CHECK_EQ(length, size > low ? 32 : 16);
	CHECK_EQ(fdt_cell(reg, 0) | fdt_cell(reg, 1), 0);
	CHECK_EQ((uint64_t)fdt_cell(reg, 2) << 32 | fdt_cell(reg, 3), low);
	if (size > low) {
		CHECK_EQ((uint64_t)fdt_cell(reg, 4) << 32 | fdt_cell(reg, 5), 4 * GIB);
		CHECK_EQ((uint64_t)fdt_cell(reg, 6) << 32 | fdt_cell(reg, 7), size - low);
	}
	CHECK(fdt_find(fdt, 0, "compatible", "ns16550a"));
	CHECK(fdt_find(fdt, 0, "compatible", "pci-host-ecam-generic"));
	bootargs = NULL;
	for (fdt_node n = fdt_root(fdt); n && !bootargs; n = fdt_next(fdt, n))
		bootargs = rt_streq(fdt_name(fdt, n), "chosen") ? fdt_property(fdt, n, "bootargs", &length) : NULL;
	CHECK(bootargs);
	CHECK(rt_streq(bootargs, rt_cmdline()));
}

static void check_initrd(uint32_t size)
{
	const uint8_t *data = (const uint8_t *)(uint64_t) * (uint32_t *)(rt_boot_params + BP_RAMDISK_IMAGE);

	CHECK_EQ(*(uint32_t *)(rt_boot_params + BP_RAMDISK_SIZE), size);
	CHECK((uint64_t)data % 4096 == 0);
	CHECK_EQ(type_of((uint64_t)data), E820_RAM);
	CHECK_EQ(type_of((uint64_t)data + size - 1), E820_RAM);
	for (uint32_t i = 0; i < size; i += i < 64 || i + 64 > size ? 1 : 61)
		CHECK_EQ(data[i], (uint8_t)i);
}

void guest_main(void)
{
	uint64_t size = rt_arg_number("memory", 256) * MIB;
	uint32_t initrd = (uint32_t)rt_arg_number("initrd", 0);

	map = (const struct range *)(rt_boot_params + BP_E820);
	entries = rt_boot_params[BP_E820_ENTRIES];
	CHECK(entries >= 4 && entries <= 128);
	CHECK(!memcmp(rt_boot_params + BP_HEADER_MAGIC, "HdrS", 4));
	CHECK_EQ(rt_boot_params[BP_LOADER], 0xff);
	check_map();
	check_size(size);
	if (initrd) {
		check_initrd(initrd);
	} else {
		visit(check_word);
		visit(check_again);
	}
	CHECK_EQ(type_of(acpi_rsdp()), E820_RESERVED);
	CHECK(acpi_find("FACP"));
	check_seed();
	check_tree(size);
	rt_print("cmdline '%s'\n", rt_cmdline());
}
