/* SPDX-License-Identifier: MIT */
#include "firmware/flash_core.h"

#include <string.h>

enum {
	COMMAND_PROGRAM = 0x10,
	COMMAND_ERASE = 0x20,
	COMMAND_PROGRAM_2 = 0x40,
	COMMAND_CLEAR_STATUS = 0x50,
	COMMAND_READ_STATUS = 0x70,
	COMMAND_CONFIRM = 0xd0,
};

void flash_core_reset(struct flash_core *f)
{
	f->mode = FLASH_ARRAY;
	f->status = FLASH_READY;
}

uint64_t flash_core_read(const struct flash_core *f, size_t offset, unsigned int size)
{
	uint64_t value = UINT64_MAX;

	if (offset >= f->size || size > f->size - offset)
		return value;
	if (f->mode == FLASH_ARRAY)
		memcpy(&value, f->data + offset, size);
	else
		memset(&value, f->status, size);
	return value;
}

static int store(struct flash_core *f, size_t offset, const uint8_t *bytes, size_t length)
{
	int ret = f->store ? f->store(f->opaque, offset, bytes, length) : 0;

	if (!ret)
		memcpy(f->data + offset, bytes, length);
	return ret;
}

/* Programming can only clear bits. */
static void program(struct flash_core *f, size_t offset, unsigned int size, uint64_t value)
{
	uint8_t bytes[8];

	memcpy(bytes, &value, sizeof(bytes));
	for (unsigned int i = 0; i < size; i++)
		bytes[i] &= f->data[offset + i];
	f->status |= FLASH_READY;
	if (memcmp(bytes, f->data + offset, size) != 0 && store(f, offset, bytes, size))
		f->status |= FLASH_PROGRAM_FAILED;
}

static void erase(struct flash_core *f, size_t offset)
{
	uint8_t ones[FLASH_BLOCK];

	memset(ones, 0xff, sizeof(ones));
	f->status |= FLASH_READY;
	offset -= offset % FLASH_BLOCK;
	if (memcmp(ones, f->data + offset, sizeof(ones)) != 0 && store(f, offset, ones, sizeof(ones)))
		f->status |= FLASH_ERASE_FAILED;
}

/* A command that is not known leads back to the array, as on chips that have fewer of them. */
static void command(struct flash_core *f, uint8_t code)
{
	f->mode = FLASH_ARRAY;
	if (code == COMMAND_PROGRAM || code == COMMAND_PROGRAM_2)
		f->mode = FLASH_PROGRAM;
	else if (code == COMMAND_ERASE)
		f->mode = FLASH_ERASE;
	else if (code == COMMAND_READ_STATUS)
		f->mode = FLASH_STATUS;
	else if (code == COMMAND_CLEAR_STATUS)
		f->status = 0;
}

void flash_core_write(struct flash_core *f, size_t offset, unsigned int size, uint64_t value)
{
	if (offset >= f->size || size > f->size - offset)
		return;
	switch (f->mode) {
	case FLASH_PROGRAM:
		program(f, offset, size, value);
		f->mode = FLASH_STATUS;
		break;
	case FLASH_ERASE:
		if ((uint8_t)value == COMMAND_CONFIRM)
			erase(f, offset);
		else
			f->status |= FLASH_READY | FLASH_ERASE_FAILED | FLASH_PROGRAM_FAILED;
		f->mode = FLASH_STATUS;
		break;
	default:
		command(f, (uint8_t)value);
	}
}
