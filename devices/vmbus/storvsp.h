/* SPDX-License-Identifier: MIT */
/* The synthetic SCSI controller of VMBus: one device, target 0 on path 0, a logical unit for each disk. */
#ifndef DEVICES_VMBUS_STORVSP_H
#define DEVICES_VMBUS_STORVSP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "devices/block/block.h"
#include "devices/block/claim.h"
#include "devices/scsi/scsi.h"

struct vm;
struct vmbus;
struct loop;

#define STORVSP_LUNS_MAX     255	/* Linux looks for no more */
#define STORVSP_TRANSFER_MAX (2u << 20) /* bytes, what guests are told */
#define STORVSP_CHANNELS_MAX 64
#define STORVSP_IN_FLIGHT    256 /* requests of a channel; the guest waits with more */

struct storvsp_disk {
	struct block *block;
	struct block_claim *claim; /* NULL, or another device has it until the guest opens the controller */
	struct scsi_lu lu;
};

/*
 * Puts the controller on the bus, with disks[0..count), whose array is the device's from here on, whatever is returned;
 * the images stay the caller's and must outlive it. give_up(opaque), if not NULL, ends the wait of a reset for what is
 * under way. 0 or -errno.
 */
int storvsp_add(struct vmbus *bus, struct loop *loop, struct storvsp_disk *disks, unsigned int count,
		bool (*give_up)(void *opaque), void *opaque);

/* The controller with the disks of --disk. Prints the cause of a failure. */
int storvsp_create(struct vm *vm);

#endif
