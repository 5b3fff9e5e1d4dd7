/* SPDX-License-Identifier: MIT */
/* A file given as --firmware. Headers of volumes that are nearly right get their checksum, so that more is reached. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "firmware/image.h"

#define GRANULE 4096u
#define HEADER	72u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The first byte of the input says how many pages; each line of 16 bytes goes to the start of one. */
static size_t spread(const uint8_t *data, size_t size, uint8_t *image)
{
	size_t pages = size ? data[0] % 64 + 1u : 1, next = 1;

	for (size_t page = 0; page < pages && next < size; page++) {
		uint8_t *at = image + page * GRANULE;
		size_t part = size - next < 128 ? size - next : 128;
		uint16_t sum = 0;

		memcpy(at, data + next, part);
		next += part;
		if (at[0] & 1)
			continue;
		memcpy(at + 40, "_FVH", 4);
		at[48] = HEADER;
		at[49] = at[50] = at[51] = 0;
		if (at[1] & 1) {
			memset(at + 32, 0, 8);
			at[33] = (uint8_t)(at[2] << 4);
			at[34] = at[2] >> 4;
		}
		for (unsigned int i = 0; i < HEADER; i += 2)
			sum = (uint16_t)(sum + at[i] + (at[i + 1] << 8));
		at[50] = (uint8_t)-sum;
		at[51] = (uint8_t)((uint16_t)-sum >> 8);
	}
	return pages * GRANULE;
}

static void parse(const uint8_t *data, size_t size)
{
	struct firmware_image image;
	char err[64] = "";
	uint8_t *copy = malloc(size ? size : 1);
	int ret;

	assert(copy);
	memcpy(copy, data, size);
	ret = firmware_image_parse(copy, size, &image, err, sizeof(err));
	assert(ret ? err[0] && strlen(err) < sizeof(err)
		   : image.code_offset + image.code_size == size && image.code_size && image.code_size % GRANULE == 0 &&
			       image.vars_size % GRANULE == 0 && image.vars_size + image.code_size <= FIRMWARE_MAX);
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t image[64 * GRANULE];

	parse(data, size);
	memset(image, 0x11, sizeof(image));
	parse(image, spread(data, size, image));
	return 0;
}
