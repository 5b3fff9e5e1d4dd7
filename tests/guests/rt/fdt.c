/* SPDX-License-Identifier: MIT */
#include "rt/fdt.h"

#include "rt/rt.h"

#define MAGIC	  0xd00dfeed
#define SETUP_DTB 2

enum { HEADER_MAGIC, HEADER_SIZE, HEADER_STRUCTURE, HEADER_STRINGS };
enum { TOKEN_BEGIN = 1, TOKEN_END = 2, TOKEN_PROPERTY = 3, TOKEN_NOP = 4 };

const void *fdt_machine(void)
{
	uint32_t length;
	const void *fdt = rt_setup_data(SETUP_DTB, &length);

	if (!fdt || length < 40 || fdt_cell(fdt, HEADER_MAGIC) != MAGIC || fdt_size(fdt) > length)
		return NULL;
	return fdt;
}

uint32_t fdt_size(const void *fdt)
{
	return fdt_cell(fdt, HEADER_SIZE);
}

static uint32_t token(const void *fdt, uint32_t at)
{
	return fdt_cell((const uint8_t *)fdt + at, 0);
}

/* The token after the one at `at`. */
static uint32_t skip(const void *fdt, uint32_t at)
{
	switch (token(fdt, at)) {
	case TOKEN_BEGIN:
		return (at + 4 + (uint32_t)strlen((const char *)fdt + at + 4) + 4) & ~3u;
	case TOKEN_PROPERTY:
		return (at + 12 + token(fdt, at + 4) + 3) & ~3u;
	default:
		return at + 4;
	}
}

fdt_node fdt_root(const void *fdt)
{
	return fdt_cell(fdt, HEADER_STRUCTURE);
}

fdt_node fdt_next(const void *fdt, fdt_node node)
{
	uint32_t at = node;

	do {
		at = skip(fdt, at);
		if (token(fdt, at) == TOKEN_BEGIN)
			return at;
	} while (token(fdt, at) >= TOKEN_BEGIN && token(fdt, at) <= TOKEN_NOP);
	return 0;
}

const char *fdt_name(const void *fdt, fdt_node node)
{
	return (const char *)fdt + node + 4;
}

const void *fdt_property(const void *fdt, fdt_node node, const char *name, uint32_t *length)
{
	const char *strings = (const char *)fdt + fdt_cell(fdt, HEADER_STRINGS);

	for (uint32_t at = skip(fdt, node); token(fdt, at) == TOKEN_PROPERTY; at = skip(fdt, at)) {
		if (!rt_streq(strings + token(fdt, at + 8), name))
			continue;
		*length = token(fdt, at + 4);
		return (const uint8_t *)fdt + at + 12;
	}
	return NULL;
}

bool fdt_has_string(const void *fdt, fdt_node node, const char *property, const char *value)
{
	uint32_t length, at = 0;
	const char *list = fdt_property(fdt, node, property, &length);

	while (list && at < length) {
		if (rt_streq(list + at, value))
			return true;
		at += (uint32_t)strlen(list + at) + 1;
	}
	return false;
}

fdt_node fdt_find(const void *fdt, fdt_node after, const char *property, const char *value)
{
	fdt_node node = after ? fdt_next(fdt, after) : fdt_root(fdt);

	while (node && !fdt_has_string(fdt, node, property, value))
		node = fdt_next(fdt, node);
	return node;
}
