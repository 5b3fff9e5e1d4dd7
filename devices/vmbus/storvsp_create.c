/* SPDX-License-Identifier: MIT */
/* From --disk to logical units. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/block/disk.h"
#include "devices/vmbus/storvsp.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/vm.h"

/* FNV-1a */
static uint64_t hash(const char *text)
{
	uint64_t h = 0xcbf29ce484222325;

	for (; *text; text++)
		h = (h ^ (uint8_t)*text) * 0x100000001b3;
	return h;
}

static bool serial_is_taken(const struct storvsp_disk *disks, unsigned int count, const char *serial)
{
	for (unsigned int i = 0; i < count; i++)
		if (!strcmp(disks[i].lu.serial, serial))
			return true;
	return false;
}

/*
 * Without serial= it comes from the path, so that a disk is found again under its name (/dev/disk/by-id) whatever other
 * disks there are. The same image twice gets two.
 */
static void make_serial(struct scsi_lu *lu, const char *path, const struct storvsp_disk *disks, unsigned int count)
{
	char *real = realpath(path, NULL);
	uint64_t h = hash(real ? real : path);

	free(real);
	do
		snprintf(lu->serial, sizeof(lu->serial), "%016" PRIx64, h++);
	while (serial_is_taken(disks, count, lu->serial));
}

static void describe(struct scsi_lu *lu, const struct block_info *info, bool dvd)
{
	lu->type = dvd ? SCSI_DVD : SCSI_DISK;
	lu->blocks = info->size / info->block_size;
	lu->block_size = info->block_size;
	lu->best_blocks = info->best_size / info->block_size;
	lu->transfer_bytes = STORVSP_TRANSFER_MAX;
	lu->readonly = info->readonly;
	lu->unmap = info->punch;
	lu->id = hash(lu->serial);
}

static int open_disk(struct vm *vm, const char *text, struct storvsp_disk *disks, unsigned int index)
{
	struct storvsp_disk *disk = &disks[index];
	struct disk_options options;
	struct block_options block = { .path = options.path };
	char err[PATH_MAX + 256];
	int ret = disk_parse(text, &options, err, sizeof(err));

	if (ret) {
		log_line("--disk: %s", err);
		return ret;
	}
	if (options.serial[0] && serial_is_taken(disks, index, options.serial)) {
		log_line("--disk %s: another disk has the serial number %s", options.path, options.serial);
		return -EINVAL;
	}
	block.block_size = options.dvd ? 2048 : 512;
	block.readonly = options.readonly;
	block.direct = options.direct;
	ret = block_open(&disk->block, &vm->loop, &block, err, sizeof(err));
	if (ret) {
		log_line("--disk %s: %s", options.path, err);
		return ret;
	}
	if (options.serial[0])
		snprintf(disk->lu.serial, sizeof(disk->lu.serial), "%s", options.serial);
	else
		make_serial(&disk->lu, options.path, disks, index);
	describe(&disk->lu, block_info(disk->block), options.dvd);
	return 0;
}

/* Nothing is waited for when the machine is to end anyway. */
static bool is_ending(void *opaque)
{
	struct vm *vm = opaque;

	return atomic_load(&vm->request) == VM_END;
}

int storvsp_create(struct vm *vm)
{
	unsigned int count = vm->config->nr_disks;
	struct storvsp_disk *disks = calloc(count, sizeof(*disks));
	int ret = disks ? 0 : -ENOMEM;

	for (unsigned int i = 0; i < count && !ret; i++) {
		ret = open_disk(vm, vm->config->disks[i], disks, i);
		if (!ret)
			continue;
		while (i)
			block_close(disks[--i].block);
		free(disks);
		return ret;
	}
	if (!ret)
		ret = storvsp_add(vm->vmbus, &vm->loop, disks, count, is_ending, vm);
	if (ret)
		log_line("--disk: %s", strerror(-ret));
	return ret;
}
