/* SPDX-License-Identifier: MIT */
/* The flash chips below 4 GiB: the firmware's code, which cannot be written, and below it its variables. */
#ifndef FIRMWARE_FLASH_H
#define FIRMWARE_FLASH_H

#include <stddef.h>
#include <stdint.h>

struct vm;

/* Contents of the chips. */
struct flash_contents {
	uint8_t *memory; /* an anonymous mapping: variables, then code */
	size_t vars_size, code_size;
	const char *nvram;	 /* keeps the variables; NULL: nothing does */
	const uint8_t *template; /* vars_size bytes; NULL: there is none */
	const char *no_template; /* and that is why */
};

/*
 * Maps both, with the end of the code at 4 GiB. With neither template nor nvram there is no chip for variables. The
 * memory is the device's from now on, also on failure. 0, or -errno after printing one line.
 */
int flash_create(struct vm *vm, const struct flash_contents *contents);

#endif
