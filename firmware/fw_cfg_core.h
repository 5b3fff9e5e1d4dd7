/* SPDX-License-Identifier: MIT */
/*
 * The firmware configuration device: numbered items that a guest selects and reads, some of them with names in a
 * directory. Source: QEMU's docs/specs/fw_cfg.txt.
 *
 * It knows no bus. The owner serialises calls, and adds all items before the guest's first access.
 */
#ifndef FIRMWARE_FW_CFG_CORE_H
#define FIRMWARE_FW_CFG_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fw_cfg_key {
	FW_CFG_SIGNATURE = 0x00,
	FW_CFG_ID = 0x01,
	FW_CFG_CPU_COUNT = 0x05,
	FW_CFG_KERNEL_SIZE = 0x08,
	FW_CFG_INITRD_SIZE = 0x0b,
	FW_CFG_KERNEL_DATA = 0x11,
	FW_CFG_INITRD_DATA = 0x12,
	FW_CFG_CMDLINE_SIZE = 0x14,
	FW_CFG_CMDLINE_DATA = 0x15,
	FW_CFG_SETUP_SIZE = 0x17,
	FW_CFG_SETUP_DATA = 0x18,
	FW_CFG_DIRECTORY = 0x19,
	FW_CFG_FIRST_FILE = 0x20,
};

#define FW_CFG_FILES_MAX 16
#define FW_CFG_ITEMS	 (FW_CFG_FIRST_FILE + FW_CFG_FILES_MAX)
#define FW_CFG_NAME_LEN	 56

struct fw_cfg_item {
	uint8_t *data; /* malloc'd, the item's; NULL: the first size bytes of fd */
	uint64_t size;
	int fd;
	/* Called when the guest selects the item, and may change data but not size. NULL: constant. */
	void (*selected)(void *opaque);
	/* Called when the guest has written to data by DMA. NULL: it may not. */
	void (*written)(void *opaque);
	void *opaque;
};

struct fw_cfg_core {
	struct fw_cfg_item items[FW_CFG_ITEMS];
	unsigned int files;
	char names[FW_CFG_FILES_MAX][FW_CFG_NAME_LEN];
	uint16_t key;
	uint64_t offset;
	uint32_t dma_high;
	/* Host address of guest-physical [gpa, gpa + len), or NULL if not all of it is RAM. */
	void *(*guest)(void *opaque, uint64_t gpa, uint64_t len);
	void *opaque;
};

void fw_cfg_core_init(struct fw_cfg_core *f, void *(*guest)(void *opaque, uint64_t gpa, uint64_t len), void *opaque);
void fw_cfg_core_free(struct fw_cfg_core *f); /* closes no fd */
void fw_cfg_core_reset(struct fw_cfg_core *f);

/* An item of length bytes, copied. 0, -ENOMEM, or -EINVAL if there is none of this number or it is taken. */
int fw_cfg_add(struct fw_cfg_core *f, unsigned int key, const void *data, size_t length);

/* A number of size (2 or 4) bytes. */
int fw_cfg_add_number(struct fw_cfg_core *f, unsigned int key, uint32_t value, unsigned int size);

/* The first size bytes of a file, which the caller keeps open. */
void fw_cfg_add_fd(struct fw_cfg_core *f, unsigned int key, int fd, uint64_t size);

/*
 * A named item of length bytes, copied from data or (NULL) zero. name: at most 55 characters. Returns its number, by
 * which selected and written may be set; -ENOMEM, -ENOSPC if there are too many, -EINVAL.
 */
int fw_cfg_add_file(struct fw_cfg_core *f, const char *name, const void *data, size_t length);

/* The directory, once all files are there. */
int fw_cfg_add_directory(struct fw_cfg_core *f);

/* What the guest does at the ports. */
void fw_cfg_select(struct fw_cfg_core *f, uint16_t key);
uint8_t fw_cfg_read_byte(struct fw_cfg_core *f);
void fw_cfg_dma(struct fw_cfg_core *f, uint64_t gpa);

#endif
