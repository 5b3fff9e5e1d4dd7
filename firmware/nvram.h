/* SPDX-License-Identifier: MIT */
/* The file that keeps the contents of the variable flash (--nvram). */
#ifndef FIRMWARE_NVRAM_H
#define FIRMWARE_NVRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nvram {
	const char *path;
	int fd; /* -1: none */
	size_t size;
	bool failing; /* told, until a write succeeds again */
};

/*
 * Opens path, which must have size bytes, reads it into data, and locks it against other machines. If it does not exist
 * it is made from template (size bytes; NULL: none is there, and why is in no_template) so that it is there whole or
 * not at all. path is kept by reference. 0, or -errno after printing one line.
 */
int nvram_open(struct nvram *n, const char *path, uint8_t *data, size_t size, const uint8_t *template,
	       const char *no_template);
void nvram_close(struct nvram *n);

/* Writes through to the file. 0, or -errno, told once in a row. */
int nvram_write(struct nvram *n, size_t offset, const uint8_t *bytes, size_t length);

#endif
