/* SPDX-License-Identifier: MIT */
/*
 * The machine as the storage controller sees it: channels whose packets are handed over directly, a guest's memory,
 * and the images of block_fake.h. For unit tests and fuzzing; one program includes it once.
 */
#ifndef TESTS_UNIT_STORVSP_FAKE_H
#define TESTS_UNIT_STORVSP_FAKE_H

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/vmbus/storvsp.h"
#include "devices/vmbus/storvsp_protocol.h"
#include "devices/vmbus/vmbus.h"
#include "tests/unit/block_fake.h"

#ifndef FAKE_SMALL
enum { FAKE_PAGES = 600, FAKE_IMAGE = 4 << 20 };
#else
enum { FAKE_PAGES = 48, FAKE_IMAGE = 64 << 10 };
#endif
enum {
	FAKE_PAGE = 4096,
	FAKE_CHANNELS = 4,
	FAKE_DISKS = 3,
	FAKE_SENT = 1024,
};

struct vmbus_channel {
	struct vmbus_device *device;
	unsigned int index;
	bool open, paused;
	void *opaque;
	unsigned int flushes, resumes;
};

struct fake_answer {
	unsigned int channel;
	uint64_t transaction;
	size_t size;
	struct vstor_packet packet;
};

static struct fake {
	uint8_t *ram;
	struct vmbus_device *device;
	struct vmbus_channel channels[FAKE_CHANNELS];
	unsigned int offered; /* subchannels */
	struct block blocks[FAKE_DISKS];
	struct block_claim claim; /* of the first */
	struct fake_answer sent[FAKE_SENT];
	unsigned int nr_sent;
	bool full;   /* the guest's ring */
	bool broken; /* the guest's ring: a send closes the channel */
	bool busy;   /* the bus has called the device: a close comes after that */
	bool close_due[FAKE_CHANNELS];
} fake;

/* ---- Bus ---- */

int vmbus_add_device(struct vmbus *bus, struct vmbus_device *device, const struct vmbus_device_class *class,
		     const struct vmbus_guid *instance)
{
	(void)instance;
	device->class = class;
	device->bus = bus;
	for (unsigned int i = 0; i < FAKE_CHANNELS; i++)
		fake.channels[i] = (struct vmbus_channel){ .device = device, .index = i };
	device->channel = &fake.channels[0];
	fake.device = device;
	return 0;
}

struct vmbus_device *vmbus_channel_device(const struct vmbus_channel *channel)
{
	return channel->device;
}

unsigned int vmbus_channel_index(const struct vmbus_channel *channel)
{
	return channel->index;
}

void vmbus_channel_set_opaque(struct vmbus_channel *channel, void *opaque)
{
	channel->opaque = opaque;
}

void *vmbus_channel_opaque(const struct vmbus_channel *channel)
{
	return channel->opaque;
}

int vmbus_offer_subchannels(struct vmbus_device *device, unsigned int count)
{
	(void)device;
	if (fake.offered || count >= FAKE_CHANNELS)
		abort();
	fake.offered = count;
	return 0;
}

void vmbus_pause(struct vmbus_channel *channel, bool on)
{
	channel->resumes += channel->paused && !on;
	channel->paused = on;
}

void vmbus_flush(struct vmbus_channel *channel)
{
	channel->flushes++;
}

void *vmbus_guest_memory(const struct vmbus_channel *channel, uint64_t gpa, size_t size)
{
	if (!channel->open || !size)
		abort();
	return gpa < FAKE_PAGES * FAKE_PAGE && size <= FAKE_PAGES * FAKE_PAGE - gpa ? fake.ram + gpa : NULL;
}

unsigned int vmbus_vps(const struct vmbus *bus)
{
	(void)bus;
	return FAKE_CHANNELS;
}

static void fake_close(unsigned int index)
{
	struct vmbus_channel *channel = &fake.channels[index];

	if (!index)
		for (unsigned int i = 1; i < FAKE_CHANNELS; i++)
			fake_close(i);
	if (!channel->open)
		return;
	if (fake.busy) {
		fake.close_due[index] = true;
		return;
	}
	channel->device->class->close(channel);
	channel->open = false;
	fake.close_due[index] = false;
	if (!index)
		fake.offered = 0;
}

static void fake_busy_end(void)
{
	fake.busy = false;
	for (unsigned int i = 0; i < FAKE_CHANNELS; i++)
		if (fake.close_due[i])
			fake_close(i);
}

int vmbus_send(struct vmbus_channel *channel, uint16_t type, uint16_t flags, uint64_t transaction, const void *payload,
	       size_t size)
{
	struct fake_answer *answer;

	if (!channel->open || type != VMBUS_PACKET_COMPLETION || flags || size > sizeof(answer->packet))
		abort();
	if (fake.close_due[channel->index])
		return -ENOTCONN;
	if (fake.broken) {
		fake_close(channel->index);
		return -ENOTCONN;
	}
	if (fake.full || fake.nr_sent == FAKE_SENT)
		return -EAGAIN;
	answer = &fake.sent[fake.nr_sent++];
	answer->channel = channel->index;
	answer->transaction = transaction;
	answer->size = size;
	memset(&answer->packet, 0, sizeof(answer->packet));
	memcpy(&answer->packet, payload, size);
	return 0;
}

/* ---- The guest ---- */

static int fake_open(unsigned int index)
{
	struct vmbus_channel *channel = &fake.channels[index];
	int ret;

	channel->paused = false;
	channel->opaque = NULL;
	channel->open = true;
	fake.busy = true;
	ret = channel->device->class->open(channel);
	channel->open = !ret;
	fake_busy_end();
	return ret;
}

static int fake_packet(unsigned int index, uint16_t type, uint64_t transaction, const void *extra, size_t extra_size,
		       const void *payload, size_t size)
{
	uint64_t copy[1024 + 16]; /* as the bus would have it: aligned, and gone afterwards */
	struct vmbus_packet packet = {
		.type = type,
		.flags = VMBUS_PACKET_COMPLETION_REQUESTED,
		.transaction = transaction,
		.payload = (uint8_t *)copy + extra_size,
		.size = size,
		.extra = copy,
		.extra_size = extra_size,
	};
	int ret;

	if (extra_size + size > sizeof(copy))
		abort();
	if (extra_size)
		memcpy(copy, extra, extra_size);
	memcpy((uint8_t *)copy + extra_size, payload, size);
	fake.busy = true;
	ret = fake.channels[index].device->class->packet(&fake.channels[index], &packet);
	fake_busy_end();
	memset(copy, 0xdd, sizeof(copy));
	return ret;
}

static void fake_make_room(unsigned int index)
{
	fake.full = false;
	fake.busy = true;
	fake.channels[index].device->class->room(&fake.channels[index]);
	fake_busy_end();
}

static void fake_setup(void)
{
	static uint8_t *ram, *images[FAKE_DISKS];
	struct storvsp_disk *disks = calloc(FAKE_DISKS, sizeof(*disks));

	fake = (struct fake){ .nr_sent = 0 };
	fake_io = (struct fake_io){ .queued = 0 };
	if (!ram) {
		ram = aligned_alloc(FAKE_PAGE, FAKE_PAGES * FAKE_PAGE);
		for (unsigned int i = 0; i < FAKE_DISKS; i++)
			images[i] = malloc(FAKE_IMAGE);
	}
	memset(ram, 0, FAKE_PAGES * FAKE_PAGE);
	fake.ram = ram;
	for (unsigned int i = 0; i < FAKE_DISKS; i++) {
		uint32_t block_size = i == 2 ? 2048 : 512;

		fake.blocks[i] = (struct block){
			.info = { .size = FAKE_IMAGE, .block_size = block_size, .readonly = i > 0, .punch = !i },
			.bytes = images[i],
		};
		memset(images[i], (int)(0x10 + i), FAKE_IMAGE);
		disks[i] = (struct storvsp_disk){
			.block = &fake.blocks[i],
			.claim = i ? NULL : &fake.claim,
			.lu = { .type = i == 2 ? SCSI_DVD : SCSI_DISK,
				.blocks = FAKE_IMAGE / block_size,
				.block_size = block_size,
				.best_blocks = 1,
				.transfer_bytes = STORVSP_TRANSFER_MAX,
				.readonly = i > 0,
				.unmap = !i },
		};
		snprintf(disks[i].lu.serial, sizeof(disks[i].lu.serial), "serial-%u", i);
	}
	if (storvsp_add(NULL, NULL, disks, FAKE_DISKS, NULL, NULL))
		abort();
}

/* What the machine does at its end; requests may be under way. */
static void fake_teardown(void)
{
	fake_close(0);
	fake.device->class->destroy(fake.device);
}

#endif
