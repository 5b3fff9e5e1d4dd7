/* SPDX-License-Identifier: MIT */
/*
 * acpi_dump DIRECTORY [CPUS]: builds the sample machine's tables, places them,
 * and writes each one to DIRECTORY/<signature>.dat. It finds them as an OS
 * does, from the RSDP by way of the pointers.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/acpi_sample.h"

#define GPA	 0x7FF00000u
#define RSDP_GPA 0x7FFF0000u
#define MEMORY	 (64u << 10)

struct memory {
	uint8_t tables[MEMORY];
	uint8_t rsdp[64];
};

static uint64_t load(const uint8_t *p, size_t size)
{
	uint64_t value = 0;

	while (size--)
		value = value << 8 | p[size];
	return value;
}

static int dump(const char *dir, const char *name, const uint8_t *bytes, size_t len)
{
	char path[4096];
	FILE *f;
	size_t done;

	snprintf(path, sizeof(path), "%s/%s.dat", dir, name);
	f = fopen(path, "wb");
	if (!f) {
		perror(path);
		return 1;
	}
	done = fwrite(bytes, 1, len, f);
	if (fclose(f) || done != len) {
		fprintf(stderr, "%s: short write\n", path);
		return 1;
	}
	return 0;
}

/* Dumps the table at gpa under its signature; NULL if it is not all in memory. */
static const uint8_t *dump_table(const struct memory *m, uint64_t gpa, const char *dir)
{
	const uint8_t *table = m->tables + (gpa - GPA);
	char name[5] = { 0 };
	uint64_t len;

	if (gpa < GPA || gpa - GPA > MEMORY - 8)
		return NULL;
	len = load(table + 4, 4);
	if (len > MEMORY - (gpa - GPA))
		return NULL;
	memcpy(name, table, 4);
	return dump(dir, name, table, len) ? NULL : table;
}

static int dump_all(const struct memory *m, const char *dir)
{
	const uint8_t *xsdt;

	if (dump(dir, "RSDP", m->rsdp, 36))
		return 1;
	xsdt = dump_table(m, load(m->rsdp + 24, 8), dir);
	if (!xsdt)
		return 1;
	for (uint64_t at = 36; at < load(xsdt + 4, 4); at += 8) {
		const uint8_t *table = dump_table(m, load(xsdt + at, 8), dir);

		if (!table)
			return 1;
		if (!memcmp(table, "FACP", 4) &&
		    (!dump_table(m, load(table + 36, 4), dir) || !dump_table(m, load(table + 140, 8), dir)))
			return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static struct acpi_sample sample;
	static struct memory memory;
	const struct acpi_place where[ACPI_FILE_COUNT] = {
		[ACPI_FILE_RSDP] = { RSDP_GPA, memory.rsdp, sizeof(memory.rsdp) },
		[ACPI_FILE_TABLES] = { GPA, memory.tables, sizeof(memory.tables) },
	};
	struct acpi_tables tables;
	int cpus = argc > 2 ? atoi(argv[2]) : 2;
	int ret;

	if (argc < 2 || cpus < 1 || cpus > SAMPLE_MAX_CPUS) {
		fprintf(stderr, "usage: %s DIRECTORY [CPUS]\n", argv[0]);
		return 1;
	}
	acpi_sample_init(&sample, (unsigned int)cpus);
	ret = acpi_build(&tables, &sample.config);
	if (!ret)
		ret = acpi_place(&tables, where);
	if (ret) {
		fprintf(stderr, "acpi_dump: tables: %s\n", strerror(-ret));
		return 1;
	}
	ret = dump_all(&memory, argv[1]);
	if (ret)
		fprintf(stderr, "acpi_dump: a pointer leads nowhere\n");
	acpi_free(&tables);
	return ret;
}
