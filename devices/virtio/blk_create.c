/* SPDX-License-Identifier: MIT */
/* From --disk to functions on the PCI bus. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/block/drive.h"
#include "devices/virtio/blk.h"
#include "devices/virtio/blk_internal.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/vm.h"

#define CLASS_MASS_STORAGE 0x010000
#define SEG_MAX		   (VBLK_QUEUE_SIZE - 2) /* a header before them, and a status behind */

/* 5.2.4; what is not named is 0. */
struct blk_config {
	uint64_t capacity; /* sectors */
	uint32_t size_max, seg_max;
	uint32_t geometry, block_size;
	uint8_t physical_block_exp, alignment_offset;
	uint16_t min_io_size; /* blocks */
	uint32_t opt_io_size;
	uint8_t writeback, unused;
	uint16_t queues;
	uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
	uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap, unused2[3];
} __attribute__((packed));
_Static_assert(sizeof(struct blk_config) == 60, "as on the wire");

static uint64_t features(const struct block_info *info)
{
	uint64_t f = VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX) | VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) |
		     VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) | VIRTIO_BIT(VIRTIO_BLK_F_TOPOLOGY) |
		     VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) | VIRTIO_BIT(VIRTIO_F_EVENT_IDX);

	if (info->readonly)
		f |= VIRTIO_BIT(VIRTIO_BLK_F_RO);
	if (info->punch)
		f |= VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES);
	return f;
}

static struct blk_config describe(const struct block_info *info)
{
	uint32_t run = info->best_size / info->block_size;
	struct blk_config c = {
		.capacity = info->size / VBLK_SECTOR,
		.seg_max = SEG_MAX,
		.block_size = info->block_size,
		.min_io_size = (uint16_t)run,
	};

	while (run >> (c.physical_block_exp + 1))
		c.physical_block_exp++;
	if (info->punch) {
		c.max_discard_sectors = c.max_write_zeroes_sectors = VBLK_DISCARD_MAX;
		c.max_discard_seg = c.max_write_zeroes_seg = 1;
		c.discard_sector_alignment = info->best_size / VBLK_SECTOR;
		c.write_zeroes_may_unmap = 1;
	}
	return c;
}

int virtio_blk_create(struct vm *vm, struct drive *drive, bool shared, unsigned int index)
{
	const struct block_info *info = block_info(drive->block);
	const struct blk_config config = describe(info);
	struct vblk *b = calloc(1, sizeof(*b));
	struct virtio_config c = {
		.id = VIRTIO_ID_BLOCK,
		.class_code = CLASS_MASS_STORAGE,
		.features = features(info),
		.nr_queues = 1,
		.queue_size = VBLK_QUEUE_SIZE,
		.config_size = sizeof(config),
	};
	int ret;

	if (!b)
		return -ENOMEM;
	b->block = drive->block;
	b->claim = shared ? &drive->claim : NULL;
	b->path = drive->path;
	snprintf(b->name, sizeof(b->name), "virtio-blk%u", index);
	memcpy(b->id, drive->serial, strnlen(drive->serial, sizeof(b->id)));
	vblk_init(b);
	c.name = b->name;
	ret = virtio_init(&b->v, vm, &vblk_class, &c);
	if (ret) {
		free(b);
		return ret;
	}
	b->v.fn.boots = drive->boot;
	virtio_config_set(&b->v, &config, sizeof(config));
	device_register(vm, &b->device, &vblk_device_class);
	return 0;
}

int virtio_blk_create_all(struct vm *vm)
{
	struct drives *drives = vm->drives;

	for (unsigned int i = 0; drives && i < drives->count; i++) {
		struct drive *drive = &drives->drive[i];
		bool shared = vm->config->vmbus;
		int ret = shared && !drive->boot ? 0 : virtio_blk_create(vm, drive, shared, i);

		if (ret) {
			log_line("--disk %s: %s%s", drive->path,
				 ret == -ENOSPC ? "no room on the PCI bus" : strerror(-ret),
				 ret == -ENOSPC && !shared ? ": with --vmbus there may be 255 disks" : "");
			return ret;
		}
	}
	return 0;
}
