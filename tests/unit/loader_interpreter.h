/* SPDX-License-Identifier: MIT */
/*
 * What a firmware does with the script of tables ("etc/table-loader"), for the test and the fuzz target: an interpreter
 * that believes nothing. Memory is two blocks at addresses of its own.
 */
#ifndef TESTS_UNIT_LOADER_INTERPRETER_H
#define TESTS_UNIT_LOADER_INTERPRETER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "firmware/table_loader.h"

struct loader_file {
	const char *name;
	const struct acpi_buf *blob;
	uint8_t *memory; /* malloc'd when allocated */
	uint64_t address;
	uint32_t align;
	uint8_t zone;
};

static uint64_t loader_load(const uint8_t *from, unsigned int size)
{
	uint64_t value = 0;

	while (size--)
		value = value << 8 | from[size];
	return value;
}

static struct loader_file *loader_find(struct loader_file *files, unsigned int count, const uint8_t *name)
{
	if (!memchr(name, 0, 56))
		return NULL;
	for (unsigned int i = 0; i < count; i++)
		if (!strcmp(files[i].name, (const char *)name))
			return &files[i];
	return NULL;
}

static bool loader_pointer(struct loader_file *files, unsigned int count, const uint8_t *r)
{
	struct loader_file *from = loader_find(files, count, r), *to = loader_find(files, count, r + 56);
	uint32_t offset = (uint32_t)loader_load(r + 112, 4);
	unsigned int size = r[116];
	uint64_t value;

	if (!from || !to || !from->memory || !to->memory || (size != 4 && size != 8) || offset > from->blob->len ||
	    size > from->blob->len - offset)
		return false;
	value = loader_load(from->memory + offset, size);
	if (value >= to->blob->len || (size == 4 && to->address + value > UINT32_MAX))
		return false;
	value += to->address;
	memcpy(from->memory + offset, &value, size);
	return true;
}

static bool loader_checksum(struct loader_file *files, unsigned int count, const uint8_t *r)
{
	struct loader_file *f = loader_find(files, count, r);
	uint32_t at = (uint32_t)loader_load(r + 56, 4), start = (uint32_t)loader_load(r + 60, 4);
	uint32_t length = (uint32_t)loader_load(r + 64, 4);
	uint8_t sum = 0;

	if (!f || !f->memory || start > f->blob->len || length > f->blob->len - start || at < start ||
	    at - start >= length)
		return false;
	f->memory[at] = 0;
	for (uint32_t i = 0; i < length; i++)
		sum = (uint8_t)(sum + f->memory[start + i]);
	f->memory[at] = (uint8_t)-sum;
	return true;
}

static bool loader_allocate(struct loader_file *files, unsigned int count, const uint8_t *r)
{
	struct loader_file *f = loader_find(files, count, r);

	if (!f || f->memory)
		return false;
	f->align = (uint32_t)loader_load(r + 56, 4);
	f->zone = r[60];
	if (!f->align || f->align & (f->align - 1) || f->align > 4096 || f->address % f->align || f->zone < 1 ||
	    f->zone > 2)
		return false;
	f->memory = malloc(f->blob->len);
	if (f->memory)
		memcpy(f->memory, f->blob->bytes, f->blob->len);
	return f->memory;
}

/* Runs all of it; false at the first record that a firmware would refuse. Memory is the caller's to free. */
static bool loader_run(const struct acpi_buf *script, struct loader_file *files, unsigned int count)
{
	if (script->error || script->len % TABLE_LOADER_RECORD)
		return false;
	for (size_t at = 0; at < script->len; at += TABLE_LOADER_RECORD) {
		const uint8_t *r = script->bytes + at + 4;
		uint32_t what = (uint32_t)loader_load(r - 4, 4);

		if (!(what == 1	  ? loader_allocate(files, count, r)
		      : what == 2 ? loader_pointer(files, count, r)
		      : what == 3 ? loader_checksum(files, count, r)
				  : false))
			return false;
	}
	return true;
}

#endif
