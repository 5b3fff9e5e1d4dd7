/* SPDX-License-Identifier: MIT */
/* From --disk to logical units. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/block/drive.h"
#include "devices/vmbus/storvsp.h"
#include "vmm/log.h"
#include "vmm/vm.h"

static void describe(struct storvsp_disk *disk, struct drive *drive)
{
	const struct block_info *info = block_info(drive->block);
	struct scsi_lu *lu = &disk->lu;

	disk->block = drive->block;
	disk->claim = drive->boot ? &drive->claim : NULL;
	lu->type = drive->dvd ? SCSI_DVD : SCSI_DISK;
	lu->blocks = info->size / info->block_size;
	lu->block_size = info->block_size;
	lu->best_blocks = info->best_size / info->block_size;
	lu->transfer_bytes = STORVSP_TRANSFER_MAX;
	lu->readonly = info->readonly;
	lu->unmap = info->punch;
	snprintf(lu->serial, sizeof(lu->serial), "%s", drive->serial);
	lu->id = drive_hash(lu->serial);
}

/* Nothing is waited for when the machine is to end anyway. */
static bool is_ending(void *opaque)
{
	struct vm *vm = opaque;

	return atomic_load(&vm->request) == VM_END;
}

int storvsp_create(struct vm *vm)
{
	unsigned int count = vm->drives->count;
	struct storvsp_disk *disks = calloc(count, sizeof(*disks));
	int ret = disks ? 0 : -ENOMEM;

	for (unsigned int i = 0; i < count && !ret; i++)
		describe(&disks[i], &vm->drives->drive[i]);
	if (!ret)
		ret = storvsp_add(vm->vmbus, &vm->loop, disks, count, is_ending, vm);
	if (ret)
		log_line("--disk: %s", strerror(-ret));
	return ret;
}
