/* SPDX-License-Identifier: MIT */
/*
 * Writes to the variable flash, four bytes each: where, how wide, what. The file behind it, which refuses now and then,
 * must always hold what the chip shows, and nothing changes but by PROGRAM, which only clears bits, and ERASE.
 */
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "firmware/flash_core.h"

#define SIZE (2 * FLASH_BLOCK)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct disk {
	uint8_t *kept;
	unsigned int stores;
};

static int store(void *opaque, size_t offset, const uint8_t *bytes, size_t length)
{
	struct disk *d = opaque;

	assert(offset <= SIZE && length <= SIZE - offset);
	assert(length <= 8 || (length == FLASH_BLOCK && offset % FLASH_BLOCK == 0));
	if (++d->stores % 7 == 0)
		return -ENOSPC;
	for (size_t i = 0; length <= 8 && i < length; i++)
		assert((bytes[i] & ~d->kept[offset + i]) == 0);
	memcpy(d->kept + offset, bytes, length);
	return 0;
}

static void step(struct flash_core *f, const uint8_t *in)
{
	static const uint8_t commands[] = { 0xff, 0x70, 0x50, 0x10, 0x40, 0x20, 0xd0, 0x90 };
	unsigned int width = 1u << (in[0] & 3);
	size_t at = ((size_t)in[1] << 8 | in[2]) % (SIZE + 16);
	uint64_t value = in[0] & 4 ? commands[in[3] % 8] : in[3] * 0x0101010101010101ULL;
	enum flash_mode before = f->mode;

	if (in[0] & 8) {
		uint64_t got = flash_core_read(f, at, width);

		assert(before == f->mode);
		assert(at < SIZE && width <= SIZE - at ? before != FLASH_ARRAY || !memcmp(&got, f->data + at, width)
						       : got == UINT64_MAX);
	} else {
		flash_core_write(f, at, width, value);
	}
	if (in[0] == 0x80)
		flash_core_reset(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct disk disk = { .kept = malloc(SIZE) };
	struct flash_core f = { .data = malloc(SIZE), .size = SIZE, .store = store, .opaque = &disk };

	assert(disk.kept && f.data);
	memset(f.data, 0x5a, SIZE);
	memcpy(disk.kept, f.data, SIZE);
	flash_core_reset(&f);
	for (size_t at = 0; at + 4 <= size; at += 4) {
		step(&f, data + at);
		if (at % 64 == 0)
			assert(!memcmp(disk.kept, f.data, SIZE));
	}
	assert(!memcmp(disk.kept, f.data, SIZE));
	free(f.data);
	free(disk.kept);
	return 0;
}
