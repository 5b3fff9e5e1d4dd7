/* SPDX-License-Identifier: MIT */
/* The disks of --disk, opened: what the devices that show them to the guest begin with. */
#ifndef DEVICES_BLOCK_DRIVE_H
#define DEVICES_BLOCK_DRIVE_H

#include "devices/block/block.h"
#include "devices/block/claim.h"
#include "devices/block/disk.h"
#include "vmm/device.h"

struct drive {
	struct block *block;
	char *path; /* for messages */
	char serial[DISK_SERIAL_MAX + 1];
	bool dvd, boot;
	struct block_claim claim; /* where it is shown by virtio-blk first, and by the SCSI controller then */
};

struct drives {
	struct device device;
	unsigned int count;
	size_t serial_seen; /* characters of a serial number that the guest sees */
	struct drive drive[];
};

/*
 * Opens all of them and sets vm->drives, or leaves it NULL if there are none. They are the machine's, and outlive all
 * devices created later. 0, or -errno after printing one line.
 */
int drives_open(struct vm *vm);

/* Of a serial number: a number that is the disk's own as well as that is. */
uint64_t drive_hash(const char *text);

#endif
