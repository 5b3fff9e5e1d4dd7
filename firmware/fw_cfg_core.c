/* SPDX-License-Identifier: MIT */
#include "firmware/fw_cfg_core.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEY_MASK      0x3fff /* bit 14 asks for an old way to write, bit 15 for items of an architecture */
#define ARCH_LOCAL    0x8000
#define BEYOND_MAX    (1u << 20) /* zeroes that one transfer can have from behind an item's end */
#define DIRECTORY_LEN (4 + FW_CFG_FILES_MAX * sizeof(struct directory_entry))

/* Big-endian, as all in the directory and in a DMA command. */
struct directory_entry {
	uint32_t size;
	uint16_t select, reserved;
	char name[FW_CFG_NAME_LEN];
};

struct dma_command {
	uint32_t control, length;
	uint64_t address;
};

enum {
	DMA_ERROR = 0x01,
	DMA_READ = 0x02,
	DMA_SKIP = 0x04,
	DMA_SELECT = 0x08, /* the key is in the upper half */
	DMA_WRITE = 0x10,
};

void fw_cfg_core_init(struct fw_cfg_core *f, void *(*guest)(void *opaque, uint64_t gpa, uint64_t len), void *opaque)
{
	*f = (struct fw_cfg_core){ .guest = guest, .opaque = opaque };
	for (unsigned int i = 0; i < FW_CFG_ITEMS; i++)
		f->items[i].fd = -1;
}

void fw_cfg_core_free(struct fw_cfg_core *f)
{
	for (unsigned int i = 0; i < FW_CFG_ITEMS; i++)
		free(f->items[i].data);
}

void fw_cfg_core_reset(struct fw_cfg_core *f)
{
	f->key = 0;
	f->offset = 0;
	f->dma_high = 0;
}

int fw_cfg_add(struct fw_cfg_core *f, unsigned int key, const void *data, size_t length)
{
	struct fw_cfg_item *item = key < FW_CFG_ITEMS ? &f->items[key] : NULL;

	if (!item || item->data || item->fd >= 0 || length > UINT32_MAX)
		return -EINVAL;
	item->data = calloc(1, length ? length : 1);
	if (!item->data)
		return -ENOMEM;
	if (data)
		memcpy(item->data, data, length);
	item->size = length;
	return 0;
}

int fw_cfg_add_number(struct fw_cfg_core *f, unsigned int key, uint32_t value, unsigned int size)
{
	uint32_t le = htole32(value);

	return fw_cfg_add(f, key, &le, size);
}

void fw_cfg_add_fd(struct fw_cfg_core *f, unsigned int key, int fd, uint64_t size)
{
	f->items[key].fd = fd;
	f->items[key].size = size;
}

int fw_cfg_add_file(struct fw_cfg_core *f, const char *name, const void *data, size_t length)
{
	unsigned int key = FW_CFG_FIRST_FILE + f->files;
	int ret;

	if (f->files == FW_CFG_FILES_MAX)
		return -ENOSPC;
	if (strlen(name) >= FW_CFG_NAME_LEN)
		return -EINVAL;
	ret = fw_cfg_add(f, key, data, length);
	if (ret)
		return ret;
	memcpy(f->names[f->files++], name, strlen(name) + 1);
	return (int)key;
}

int fw_cfg_add_directory(struct fw_cfg_core *f)
{
	uint8_t bytes[DIRECTORY_LEN] = { 0 };
	uint32_t count = htobe32(f->files);

	memcpy(bytes, &count, 4);
	for (unsigned int i = 0; i < f->files; i++) {
		struct directory_entry entry = {
			.size = htobe32((uint32_t)f->items[FW_CFG_FIRST_FILE + i].size),
			.select = htobe16((uint16_t)(FW_CFG_FIRST_FILE + i)),
		};

		memcpy(entry.name, f->names[i], FW_CFG_NAME_LEN);
		memcpy(bytes + 4 + i * sizeof(entry), &entry, sizeof(entry));
	}
	return fw_cfg_add(f, FW_CFG_DIRECTORY, bytes, 4 + f->files * sizeof(struct directory_entry));
}

/* NULL: an item that is not there, which reads as zeroes. */
static struct fw_cfg_item *current(struct fw_cfg_core *f)
{
	unsigned int index = f->key & KEY_MASK;

	return f->key & ARCH_LOCAL || index >= FW_CFG_ITEMS ? NULL : &f->items[index];
}

void fw_cfg_select(struct fw_cfg_core *f, uint16_t key)
{
	struct fw_cfg_item *item;

	f->key = key;
	f->offset = 0;
	item = current(f);
	if (item && item->selected)
		item->selected(item->opaque);
}

/* A file that became shorter goes on with zeroes. */
static void read_fd(int fd, uint64_t offset, uint8_t *to, uint64_t length)
{
	while (length) {
		ssize_t n = pread(fd, to, length, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			memset(to, 0, length);
			return;
		}
		to += n;
		offset += (uint64_t)n;
		length -= (uint64_t)n;
	}
}

static uint64_t left(struct fw_cfg_core *f)
{
	const struct fw_cfg_item *item = current(f);

	return item && f->offset < item->size ? item->size - f->offset : 0;
}

static void read_bytes(struct fw_cfg_core *f, uint8_t *to, uint64_t length)
{
	const struct fw_cfg_item *item = current(f);
	uint64_t there = left(f);

	if (there > length)
		there = length;
	if (there && item->data)
		memcpy(to, item->data + f->offset, there);
	else if (there)
		read_fd(item->fd, f->offset, to, there);
	memset(to + there, 0, length - there);
	f->offset += length;
}

uint8_t fw_cfg_read_byte(struct fw_cfg_core *f)
{
	uint8_t byte;

	read_bytes(f, &byte, 1);
	return byte;
}

/* Only what was made to be written can be, and only as far as it goes. */
static bool write_bytes(struct fw_cfg_core *f, uint64_t address, uint32_t length)
{
	struct fw_cfg_item *item = current(f);
	const uint8_t *from = length ? f->guest(f->opaque, address, length) : NULL;

	if (!item || !item->written || length > left(f) || !from)
		return false;
	memcpy(item->data + f->offset, from, length);
	f->offset += length;
	item->written(item->opaque);
	return true;
}

static bool carry_out(struct fw_cfg_core *f, uint32_t control, uint32_t length, uint64_t address)
{
	uint8_t *to;

	if (control & DMA_SELECT)
		fw_cfg_select(f, (uint16_t)(control >> 16));
	/* A read wins over the others. */
	if (control & DMA_READ) {
		if (length > left(f) + BEYOND_MAX)
			return false;
		to = length ? f->guest(f->opaque, address, length) : NULL;
		if (length && !to)
			return false;
		if (to)
			read_bytes(f, to, length);
		return true;
	}
	if (control & DMA_WRITE)
		return write_bytes(f, address, length);
	if (control & DMA_SKIP)
		f->offset += length;
	return true;
}

void fw_cfg_dma(struct fw_cfg_core *f, uint64_t gpa)
{
	struct dma_command command;
	uint8_t *at = f->guest(f->opaque, gpa, sizeof(command));
	uint32_t control;

	if (!at)
		return;
	memcpy(&command, at, sizeof(command));
	control = be32toh(command.control);
	control = carry_out(f, control, be32toh(command.length), be64toh(command.address)) ? 0 : htobe32(DMA_ERROR);
	memcpy(at, &control, sizeof(control));
}
