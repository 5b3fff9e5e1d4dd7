/* SPDX-License-Identifier: MIT */
/* From --disk to images that are open and have a serial number. */
#include "devices/block/drive.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/virtio/blk.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/vm.h"

/* FNV-1a */
uint64_t drive_hash(const char *text)
{
	uint64_t h = 0xcbf29ce484222325;

	for (; *text; text++)
		h = (h ^ (uint8_t)*text) * 0x100000001b3;
	return h;
}

/* As much of it as the guest sees. */
static bool serial_is_taken(const struct drives *drives, const char *serial)
{
	for (unsigned int i = 0; i < drives->count; i++)
		if (!strncmp(drives->drive[i].serial, serial, drives->serial_seen))
			return true;
	return false;
}

/*
 * Without serial= it comes from the path, so that a disk is found again under its name (/dev/disk/by-id) whatever other
 * disks there are. The same image twice gets two.
 */
static void make_serial(const struct drives *drives, struct drive *drive)
{
	char *real = realpath(drive->path, NULL);
	uint64_t h = drive_hash(real ? real : drive->path);

	free(real);
	do
		snprintf(drive->serial, sizeof(drive->serial), "%016" PRIx64, h++);
	while (serial_is_taken(drives, drive->serial));
}

/* The drive behind those that are counted. */
static int open_drive(struct vm *vm, struct drives *drives, const char *text)
{
	struct drive *drive = &drives->drive[drives->count];
	struct disk_options options;
	struct block_options block = { .path = options.path };
	char err[PATH_MAX + 256];
	int ret = disk_parse(text, &options, err, sizeof(err));

	if (ret) {
		log_line("--disk: %s", err);
		return ret;
	}
	if (options.serial[0] && serial_is_taken(drives, options.serial)) {
		log_line("--disk %s: another disk has the serial number %s", options.path, options.serial);
		return -EINVAL;
	}
	block.block_size = options.dvd ? 2048 : 512;
	block.readonly = options.readonly;
	block.direct = options.direct;
	drive->dvd = options.dvd;
	drive->boot = options.boot;
	drive->path = strdup(options.path);
	if (!drive->path) {
		log_line("--disk %s: out of memory", options.path);
		return -ENOMEM;
	}
	ret = block_open(&drive->block, &vm->loop, &block, err, sizeof(err));
	if (ret) {
		log_line("--disk %s: %s", options.path, err);
		free(drive->path);
		return ret;
	}
	if (options.serial[0])
		memcpy(drive->serial, options.serial, sizeof(drive->serial));
	else
		make_serial(drives, drive);
	drives->count++;
	return 0;
}

static void destroy(struct device *device)
{
	struct drives *drives = (struct drives *)device;

	for (unsigned int i = 0; i < drives->count; i++) {
		block_close(drives->drive[i].block);
		free(drives->drive[i].path);
	}
	free(drives);
}

static const struct device_class class = {
	.name = "drives",
	.destroy = destroy,
};

int drives_open(struct vm *vm)
{
	unsigned int count = vm->config->nr_disks;
	struct drives *drives;
	int ret = 0;

	if (!count)
		return 0;
	drives = calloc(1, sizeof(*drives) + count * sizeof(drives->drive[0]));
	if (!drives) {
		log_line("--disk: out of memory");
		return -ENOMEM;
	}
	drives->serial_seen = vm->config->vmbus ? sizeof(drives->drive[0].serial) : VIRTIO_BLK_ID_SIZE;
	device_register(vm, &drives->device, &class);
	vm->drives = drives;
	for (unsigned int i = 0; i < count && !ret; i++)
		ret = open_drive(vm, drives, vm->config->disks[i]);
	return ret;
}
