/* SPDX-License-Identifier: MIT */
/* What block.c and block_io.c share. */
#ifndef DEVICES_BLOCK_INTERNAL_H
#define DEVICES_BLOCK_INTERNAL_H

#include "devices/block/block.h"

#define BLOCK_BOUNCE (128u << 10)

struct block {
	struct loop *loop;
	int fd;
	struct block_info info;
	bool is_device;
	/* Of O_DIRECT: what addresses in memory, and offsets and lengths, must be multiples of; 1 without it. */
	uint32_t memory_align, offset_align;
};

/* The name of the format if these first bytes (all of the file if that is shorter) are not a raw disk's; else NULL. */
const char *block_foreign_format(const uint8_t *head, size_t size);
#define BLOCK_HEAD 512

#endif
