/* SPDX-License-Identifier: MIT */
/* A minimal reader of flattened device trees (Devicetree Specification 0.4, chapter 5). */
#ifndef RT_FDT_H
#define RT_FDT_H

#include <stdbool.h>
#include <stdint.h>

/* The machine's tree, checked to be one, or NULL. */
const void *fdt_machine(void);
uint32_t fdt_size(const void *fdt);

/* A node, by the place of its name in the structure block; 0 is none. */
typedef uint32_t fdt_node;

fdt_node fdt_root(const void *fdt);
/* The next node in the order of the file, whatever its depth. */
fdt_node fdt_next(const void *fdt, fdt_node node);
const char *fdt_name(const void *fdt, fdt_node node);
/* Its bytes, or NULL. */
const void *fdt_property(const void *fdt, fdt_node node, const char *name, uint32_t *length);
bool fdt_has_string(const void *fdt, fdt_node node, const char *property, const char *value);
/* First node after `after` (0: from the root on) with this string in the list of that property. */
fdt_node fdt_find(const void *fdt, fdt_node after, const char *property, const char *value);

static inline uint32_t fdt_cell(const void *property, unsigned int index)
{
	return __builtin_bswap32(((const uint32_t *)property)[index]);
}

#endif
