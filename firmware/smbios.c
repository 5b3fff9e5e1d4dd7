/* SPDX-License-Identifier: MIT */
/*
 * What the standard requires of every machine (DSP0134, annex A) but the BIOS information, which the firmware itself
 * has. Section numbers are those of version 3.4.
 */
#include "firmware/smbios.h"

#include <string.h>

#define ANCHOR_LEN	24 /* 5.2.2 */
#define HANDLE(type, n) (uint16_t)((type) << 8 | (n))
#define NO_HANDLE	0xffff
#define OTHER		1
#define UNKNOWN		2
#define SAFE		3
#define MIB		(1ULL << 20)
#define HIGH_BASE	(4ULL << 30)
#define SIZE_EXTENDED	0x7fff

enum {
	SYSTEM = 1,
	CHASSIS = 3,
	PROCESSOR = 4,
	MEMORY_ARRAY = 16,
	MEMORY_DEVICE = 17,
	MEMORY_MAPPED = 19,
	SYSTEM_BOOT = 32,
	END = 127,
};

struct table {
	struct acpi_buf *b;
	size_t start;
};

static void begin(struct table *t, uint8_t type, unsigned int n)
{
	t->start = t->b->len;
	acpi_buf_put8(t->b, type);
	acpi_buf_put8(t->b, 0); /* length */
	acpi_buf_put16(t->b, HANDLE(type, n));
}

/* The formatted part is complete; its strings follow (6.1.3). strings: NULL ends them. */
static void end(struct table *t, const char *const *strings)
{
	acpi_buf_set(t->b, t->start + 1, t->b->len - t->start, 1);
	for (; strings && *strings; strings++)
		acpi_buf_put(t->b, *strings, strlen(*strings) + 1);
	acpi_buf_put8(t->b, 0);
	if (t->b->bytes && !t->b->error && t->b->len - t->start == t->b->bytes[t->start + 1] + 1u)
		acpi_buf_put8(t->b, 0); /* no strings: two zeroes */
}

static void add_system(struct table *t, const char *version) /* 7.2 */
{
	const char *const strings[] = { "vmm", "vmm virtual machine", version, NULL };

	begin(t, SYSTEM, 0);
	acpi_buf_put8(t->b, 1);
	acpi_buf_put8(t->b, 2);
	acpi_buf_put8(t->b, 3);
	acpi_buf_put8(t->b, 0);	   /* serial number */
	acpi_buf_zero(t->b, 16);   /* UUID: not present */
	acpi_buf_put8(t->b, 0x06); /* woken by the power switch */
	acpi_buf_put16(t->b, 0);   /* SKU, family */
	end(t, strings);
}

static void add_chassis(struct table *t) /* 7.4 */
{
	const char *const strings[] = { "vmm", NULL };

	begin(t, CHASSIS, 0);
	acpi_buf_put8(t->b, 1);
	acpi_buf_put8(t->b, OTHER);
	acpi_buf_zero(t->b, 3); /* version, serial number, asset tag */
	acpi_buf_put8(t->b, SAFE);
	acpi_buf_put8(t->b, SAFE);
	acpi_buf_put8(t->b, SAFE);
	acpi_buf_put8(t->b, UNKNOWN); /* security */
	acpi_buf_zero(t->b, 4);
	acpi_buf_zero(t->b, 5); /* height, power cords, contained elements, SKU */
	end(t, strings);
}

static void add_processor(struct table *t, unsigned int cpus) /* 7.5 */
{
	const char *const strings[] = { "CPU 0", NULL };

	begin(t, PROCESSOR, 0);
	acpi_buf_put8(t->b, 1);
	acpi_buf_put8(t->b, 3); /* central processor */
	acpi_buf_put8(t->b, OTHER);
	acpi_buf_put8(t->b, 0);	   /* manufacturer */
	acpi_buf_zero(t->b, 8);	   /* processor id: CPUID has it */
	acpi_buf_put8(t->b, 0);	   /* version */
	acpi_buf_put8(t->b, 0);	   /* voltage */
	acpi_buf_zero(t->b, 6);	   /* clocks: unknown */
	acpi_buf_put8(t->b, 0x41); /* socket populated, enabled */
	acpi_buf_put8(t->b, OTHER);
	for (unsigned int cache = 0; cache < 3; cache++)
		acpi_buf_put16(t->b, NO_HANDLE);
	acpi_buf_zero(t->b, 3);		     /* serial number, asset tag, part number */
	for (unsigned int i = 0; i < 3; i++) /* cores, enabled cores, threads */
		acpi_buf_put8(t->b, (uint8_t)cpus);
	acpi_buf_put16(t->b, 0x04); /* 64-bit */
	acpi_buf_put16(t->b, OTHER);
	for (unsigned int i = 0; i < 3; i++)
		acpi_buf_put16(t->b, (uint16_t)cpus);
	end(t, strings);
}

static void add_memory_device(struct table *t, uint64_t size) /* 7.18 */
{
	const char *const strings[] = { "DIMM 0", NULL };
	uint64_t mib = size / MIB;

	begin(t, MEMORY_DEVICE, 0);
	acpi_buf_put16(t->b, HANDLE(MEMORY_ARRAY, 0));
	acpi_buf_put16(t->b, 0xfffe); /* no error information */
	acpi_buf_put16(t->b, 0xffff); /* widths: unknown */
	acpi_buf_put16(t->b, 0xffff);
	acpi_buf_put16(t->b, (uint16_t)(mib < SIZE_EXTENDED ? mib : SIZE_EXTENDED));
	acpi_buf_put8(t->b, 9); /* DIMM */
	acpi_buf_put8(t->b, 0);
	acpi_buf_put8(t->b, 1);
	acpi_buf_put8(t->b, 0);
	acpi_buf_put8(t->b, 7);	      /* RAM */
	acpi_buf_put16(t->b, 1 << 1); /* other */
	acpi_buf_put16(t->b, 0);
	acpi_buf_zero(t->b, 5); /* manufacturer, serial number, asset tag, part number, rank */
	acpi_buf_put32(t->b, (uint32_t)mib);
	acpi_buf_zero(t->b, 8); /* speed, voltages: unknown */
	end(t, strings);
}

static void add_memory_array(struct table *t, uint64_t size) /* 7.17 */
{
	begin(t, MEMORY_ARRAY, 0);
	acpi_buf_put8(t->b, OTHER);
	acpi_buf_put8(t->b, 3); /* system memory */
	acpi_buf_put8(t->b, 6); /* multi-bit ECC */
	acpi_buf_put32(t->b, 0x80000000);
	acpi_buf_put16(t->b, 0xfffe);
	acpi_buf_put16(t->b, 1);
	acpi_buf_put64(t->b, size);
	end(t, NULL);
}

static void add_mapped(struct table *t, unsigned int n, uint64_t base, uint64_t size) /* 7.20 */
{
	if (!size)
		return;
	begin(t, MEMORY_MAPPED, n);
	acpi_buf_put32(t->b, UINT32_MAX); /* see the 64-bit fields */
	acpi_buf_put32(t->b, UINT32_MAX);
	acpi_buf_put16(t->b, HANDLE(MEMORY_ARRAY, 0));
	acpi_buf_put8(t->b, 1);
	acpi_buf_put64(t->b, base);
	acpi_buf_put64(t->b, base + size - 1);
	end(t, NULL);
}

static void add_anchor(struct acpi_buf *b, size_t length, uint64_t address)
{
	uint8_t sum = 0;

	acpi_buf_put(b, "_SM3_", 5);
	acpi_buf_put8(b, 0); /* checksum */
	acpi_buf_put8(b, ANCHOR_LEN);
	acpi_buf_put8(b, 3); /* 3.4.0 */
	acpi_buf_put8(b, 4);
	acpi_buf_put8(b, 0);
	acpi_buf_put8(b, 1); /* revision of the entry point */
	acpi_buf_put8(b, 0);
	acpi_buf_put32(b, (uint32_t)length);
	acpi_buf_put64(b, address);
	for (size_t i = 0; i < b->len && !b->error; i++)
		sum = (uint8_t)(sum + b->bytes[i]);
	acpi_buf_set(b, 5, (uint8_t)-sum, 1);
}

void smbios_build(struct acpi_buf *anchor, struct acpi_buf *tables, const struct smbios_config *config)
{
	const uint64_t memory = config->low_memory + config->high_memory;
	struct table t = { .b = tables };

	add_system(&t, config->version);
	add_chassis(&t);
	add_processor(&t, config->cpus);
	add_memory_array(&t, memory);
	add_memory_device(&t, memory);
	add_mapped(&t, 0, 0, config->low_memory);
	add_mapped(&t, 1, HIGH_BASE, config->high_memory);
	begin(&t, SYSTEM_BOOT, 0); /* 7.33 */
	acpi_buf_zero(tables, 7);  /* no error */
	end(&t, NULL);
	begin(&t, END, 0);
	end(&t, NULL);
	add_anchor(anchor, tables->len, config->address);
}
