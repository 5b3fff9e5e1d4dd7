/* SPDX-License-Identifier: MIT */
/*
 * The machine as virtio-blk sees it: the transport's state as a driver has set it, a guest's memory, and the
 * image of block_fake.h. For unit tests and fuzzing; one program includes it once.
 */
#ifndef TESTS_UNIT_VIRTIO_BLK_FAKE_H
#define TESTS_UNIT_VIRTIO_BLK_FAKE_H

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/block/drive.h"
#include "devices/virtio/blk.h"
#include "devices/virtio/blk_internal.h"
#include "devices/virtio/ring.h"
#include "tests/unit/block_fake.h"
#include "vmm/vm.h"

enum {
	FAKE_RAM = 1 << 20,
	FAKE_IMAGE = 256 << 10,
	FAKE_DESC = 0x1000,
	FAKE_DRIVER = 0x3000,
	FAKE_DEVICE = 0x4000,
	FAKE_SIZE = 16,
};

static struct fake {
	struct vm vm;
	uint8_t *ram;
	struct block block;
	struct drive drive;
	struct virtio *v;
	struct device *device;
	/* What the driver has set. */
	uint8_t status;
	uint64_t accepted;
	struct virtio_queue_setup setup;
	bool enabled;
	/* What it has been told. */
	unsigned int interrupts, reset_dones, queue_dones, needs_resets, kicks;
	bool watched;
} fake;

void device_register(struct vm *vm, struct device *dev, const struct device_class *class)
{
	dev->class = class;
	dev->vm = vm;
	fake.device = dev;
}

void *ram_ptr(const struct memory *mem, uint64_t gpa, uint64_t len)
{
	(void)mem;
	return len && gpa < FAKE_RAM && len <= FAKE_RAM - gpa ? fake.ram + gpa : NULL;
}

void pci_set_gone(struct pci_function *fn, bool gone)
{
	atomic_store(&fn->gone, gone);
}

/* ---- Transport ---- */

int virtio_init(struct virtio *v, struct vm *vm, const struct virtio_class *class, const struct virtio_config *config)
{
	v->vm = vm;
	v->class = class;
	v->nr_queues = config->nr_queues;
	v->features = config->features | VIRTIO_BIT(VIRTIO_F_VERSION_1);
	v->config_size = config->config_size;
	v->fn.name = config->name;
	fake.v = v;
	return 0;
}

void virtio_fini(struct virtio *v)
{
	(void)v;
}

bool virtio_config_set(struct virtio *v, const void *data, unsigned int size)
{
	memcpy(v->config, data, size);
	return true;
}

void virtio_reset_done(struct virtio *v)
{
	(void)v;
	fake.status = 0;
	fake.enabled = false;
	fake.reset_dones++;
}

void virtio_queue_reset_done(struct virtio *v, unsigned int queue)
{
	(void)v;
	(void)queue;
	fake.enabled = false;
	fake.queue_dones++;
}

void virtio_needs_reset(struct virtio *v)
{
	(void)v;
	fake.needs_resets++;
}

uint8_t virtio_status(struct virtio *v)
{
	(void)v;
	return fake.status;
}

uint64_t virtio_accepted(struct virtio *v)
{
	(void)v;
	return fake.accepted;
}

bool virtio_queue_enabled(struct virtio *v, unsigned int queue, struct virtio_queue_setup *setup)
{
	(void)v;
	(void)queue;
	*setup = fake.setup;
	return fake.enabled;
}

/* As registers.c has it. */
int virtio_check_ring(const struct memory *memory, const struct virtio_queue_setup *s, bool packed)
{
	uint64_t size = s->size;

	(void)packed;
	return s->desc % 16 || s->driver % 2 || s->device % 4 || !ram_ptr(memory, s->desc, 16 * size) ||
			       !ram_ptr(memory, s->driver, 6 + 2 * size) || !ram_ptr(memory, s->device, 6 + 8 * size)
		       ? -EFAULT
		       : 0;
}

void virtio_watch_kicks(struct virtio *v, unsigned int queue)
{
	(void)v;
	(void)queue;
	fake.watched = true;
}

void virtio_kick(struct virtio *v, unsigned int queue)
{
	(void)v;
	(void)queue;
	fake.kicks++;
}

void virtio_interrupt(struct virtio *v, unsigned int queue)
{
	(void)v;
	(void)queue;
	fake.interrupts++;
}

/* ---- The driver ---- */

static void fake_start(uint64_t features)
{
	memset(fake.ram + FAKE_DESC, 0, 0x5000);
	fake.accepted = features | VIRTIO_BIT(VIRTIO_F_VERSION_1);
	fake.setup = (struct virtio_queue_setup){ FAKE_SIZE, FAKE_DESC, FAKE_DRIVER, FAKE_DEVICE };
	fake.enabled = true;
	fake.status = VIRTIO_DRIVER_OK;
	fake.v->class->start(fake.v);
	fake_end_turn();
}

static void fake_kick(void)
{
	fake.v->class->notify(fake.v, 0);
	fake_end_turn();
}

static void fake_setup(bool shared, bool readonly, bool punch, uint32_t block_size)
{
	static uint8_t *ram, *image;

	fake = (struct fake){ .status = 0 };
	fake_io = (struct fake_io){ .queued = 0 };
	if (!ram) {
		ram = aligned_alloc(4096, FAKE_RAM);
		image = malloc(FAKE_IMAGE);
	}
	memset(ram, 0, FAKE_RAM);
	memset(image, 0x11, FAKE_IMAGE);
	fake.ram = ram;
	fake.block = (struct block){
		.info = { .size = FAKE_IMAGE,
			  .block_size = block_size,
			  .best_size = 4096,
			  .readonly = readonly,
			  .punch = punch },
		.bytes = image,
	};
	fake.drive = (struct drive){
		.block = &fake.block, .path = (char[]){ "x" }, .serial = "a serial number", .boot = shared
	};
	if (virtio_blk_create(&fake.vm, &fake.drive, shared, 0))
		abort();
}

/* What the machine does at its end; requests may be under way. */
static void fake_teardown(void)
{
	fake.v->class->destroy(fake.v);
}

#endif
