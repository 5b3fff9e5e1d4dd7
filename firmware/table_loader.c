/* SPDX-License-Identifier: MIT */
#include "firmware/table_loader.h"

#include <string.h>

#define NAME_LEN 56

enum { ALLOCATE = 1, ADD_POINTER = 2, ADD_CHECKSUM = 3 };
enum { ZONE_HIGH = 1, ZONE_BIOS = 2 };

static const char *const names[ACPI_FILE_COUNT] = {
	[ACPI_FILE_RSDP] = TABLE_LOADER_RSDP,
	[ACPI_FILE_TABLES] = TABLE_LOADER_TABLES,
};

static void put_name(struct acpi_buf *b, enum acpi_file_id id)
{
	char name[NAME_LEN] = "";

	memcpy(name, names[id], strlen(names[id]));
	acpi_buf_put(b, name, sizeof(name));
}

static void end_record(struct acpi_buf *b, size_t start)
{
	if (!b->error)
		acpi_buf_zero(b, TABLE_LOADER_RECORD - (b->len - start));
}

static void put_allocate(struct acpi_buf *b, enum acpi_file_id id, uint32_t align, uint8_t zone)
{
	size_t start = b->len;

	acpi_buf_put32(b, ALLOCATE);
	put_name(b, id);
	acpi_buf_put32(b, align);
	acpi_buf_put8(b, zone);
	end_record(b, start);
}

static void put_pointer(struct acpi_buf *b, enum acpi_file_id id, const struct acpi_pointer *p)
{
	size_t start = b->len;

	acpi_buf_put32(b, ADD_POINTER);
	put_name(b, id);
	put_name(b, p->target);
	acpi_buf_put32(b, p->offset);
	acpi_buf_put8(b, p->size);
	end_record(b, start);
}

static void put_checksum(struct acpi_buf *b, enum acpi_file_id id, const struct acpi_checksum *c)
{
	size_t start = b->len;

	acpi_buf_put32(b, ADD_CHECKSUM);
	put_name(b, id);
	acpi_buf_put32(b, c->offset);
	acpi_buf_put32(b, c->start);
	acpi_buf_put32(b, c->len);
	end_record(b, start);
}

void table_loader_build(struct acpi_buf *script, const struct acpi_tables *t)
{
	put_allocate(script, ACPI_FILE_RSDP, ACPI_RSDP_ALIGN, ZONE_BIOS);
	put_allocate(script, ACPI_FILE_TABLES, ACPI_TABLES_ALIGN, ZONE_HIGH);
	for (unsigned int id = 0; id < ACPI_FILE_COUNT; id++)
		for (unsigned int i = 0; i < t->files[id].pointer_count; i++)
			put_pointer(script, (enum acpi_file_id)id, &t->files[id].pointers[i]);
	for (unsigned int id = 0; id < ACPI_FILE_COUNT; id++)
		for (unsigned int i = 0; i < t->files[id].checksum_count; i++)
			put_checksum(script, (enum acpi_file_id)id, &t->files[id].checksums[i]);
}
