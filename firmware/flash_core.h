/* SPDX-License-Identifier: MIT */
/*
 * A NOR flash chip with Intel's command set on an 8-bit bus, as far as stock firmware uses it: read array, read and
 * clear status, program, erase a block. Source: Intel 28F008SA data sheet, "Bus operations and commands".
 *
 * It knows no bus, file or host. The owner serialises calls.
 */
#ifndef FIRMWARE_FLASH_CORE_H
#define FIRMWARE_FLASH_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FLASH_BLOCK 4096u

enum flash_mode {
	FLASH_ARRAY,  /* reads show the contents */
	FLASH_STATUS, /* reads show the status register, the next write is a command */
	FLASH_PROGRAM,
	FLASH_ERASE, /* these two: the command's second write is due */
};

/* Status register. READY is clear only after CLEAR STATUS: firmware recognises the chip by a status of 0 then. */
enum {
	FLASH_READY = 0x80,
	FLASH_ERASE_FAILED = 0x20,
	FLASH_PROGRAM_FAILED = 0x10,
};

struct flash_core {
	uint8_t *data; /* the owner's */
	size_t size;   /* a multiple of FLASH_BLOCK */
	enum flash_mode mode;
	uint8_t status;
	/*
	 * Makes bytes[0..length) the lasting contents at offset; negative errno: then the chip reports a failure and
	 * data stays as it is. NULL: nothing lasts.
	 */
	int (*store)(void *opaque, size_t offset, const uint8_t *bytes, size_t length);
	void *opaque;
};

void flash_core_reset(struct flash_core *f);

/* size 1, 2, 4 or 8; what lies beyond the chip reads all ones and cannot be written. */
uint64_t flash_core_read(const struct flash_core *f, size_t offset, unsigned int size);
void flash_core_write(struct flash_core *f, size_t offset, unsigned int size, uint64_t value);

#endif
