/* SPDX-License-Identifier: MIT */
/*
 * The common configuration (virtio 1.2, 4.1.4.3) and the device's (4.1.4.6).
 *
 * A field is accessed as a whole, 64-bit ones also by halves; any other access reads all ones and is dropped. What a
 * driver must not do is ignored, or, where the specification gives the device a way to say no, refused.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "devices/pci/msix.h"
#include "devices/virtio/internal.h"
#include "vmm/memory.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

enum {
	DEVICE_FEATURE_SELECT = 0,
	DEVICE_FEATURE = 4,
	DRIVER_FEATURE_SELECT = 8,
	DRIVER_FEATURE = 12,
	CONFIG_MSIX_VECTOR = 16,
	NUM_QUEUES = 18,
	DEVICE_STATUS = 20,
	CONFIG_GENERATION = 21,
	QUEUE_SELECT = 22,
	QUEUE_SIZE = 24,
	QUEUE_MSIX_VECTOR = 26,
	QUEUE_ENABLE = 28,
	QUEUE_NOTIFY_OFF = 30,
	QUEUE_DESC = 32,
	QUEUE_DRIVER = 40,
	QUEUE_DEVICE = 48,
	QUEUE_NOTIFY_CONFIG_DATA = 56,
	QUEUE_RESET = 58,
};

/* What a driver may set by writing the status. */
#define DRIVER_STATUS (VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK | VIRTIO_FEATURES_OK | VIRTIO_FAILED)

static struct virtio_queue *selected(struct virtio *v)
{
	return v->queue_select < v->nr_queues ? &v->queues[v->queue_select] : NULL;
}

static bool is_address(uint64_t offset)
{
	return offset >= QUEUE_DESC && offset < QUEUE_DEVICE + 8;
}

/* The width of the field at offset, 0: none begins there. */
static unsigned int field_width(uint64_t offset)
{
	if (offset < CONFIG_MSIX_VECTOR)
		return offset % 4 ? 0 : 4;
	if (offset == DEVICE_STATUS || offset == CONFIG_GENERATION)
		return 1;
	if (is_address(offset))
		return offset % 4 ? 0 : 4;
	return offset % 2 || offset > QUEUE_RESET ? 0 : 2;
}

static uint64_t *address_of(struct virtio_queue *q, uint64_t offset)
{
	switch (offset & ~7ULL) {
	case QUEUE_DESC:
		return &q->setup.desc;
	case QUEUE_DRIVER:
		return &q->setup.driver;
	default:
		return &q->setup.device;
	}
}

static uint32_t half(uint64_t value, uint32_t select)
{
	return select > 1 ? 0 : (uint32_t)(value >> (32 * select));
}

static uint64_t get_queue_field(struct virtio_queue *q, uint64_t offset)
{
	if (is_address(offset))
		return q ? *address_of(q, offset) >> (offset & 4 ? 32 : 0) : 0;
	switch (offset) {
	case QUEUE_SIZE:
		return q ? q->setup.size : 0; /* 0: there is no such queue */
	case QUEUE_MSIX_VECTOR:
		return q ? q->vector : VIRTIO_NO_VECTOR;
	case QUEUE_ENABLE:
		return q ? q->enabled : 0;
	case QUEUE_NOTIFY_OFF:
		return q ? q->index : 0;
	case QUEUE_RESET:
		return q ? q->resetting : 0;
	default:
		return 0;
	}
}

static uint64_t get_field(struct virtio *v, uint64_t offset)
{
	switch (offset) {
	case DEVICE_FEATURE_SELECT:
		return v->device_select;
	case DEVICE_FEATURE:
		return half(v->features, v->device_select);
	case DRIVER_FEATURE_SELECT:
		return v->driver_select;
	case DRIVER_FEATURE:
		return half(v->accepted, v->driver_select);
	case CONFIG_MSIX_VECTOR:
		return v->config_vector;
	case NUM_QUEUES:
		return v->nr_queues;
	case DEVICE_STATUS:
		return v->status;
	case CONFIG_GENERATION:
		return v->generation;
	case QUEUE_SELECT:
		return v->queue_select;
	default:
		return get_queue_field(selected(v), offset);
	}
}

static uint64_t common_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct virtio *v = opaque;
	uint64_t value = UINT64_MAX;

	pthread_mutex_lock(&v->lock);
	if (size == 8 && is_address(offset) && offset % 8 == 0)
		value = get_field(v, offset) | get_field(v, offset + 4) << 32;
	else if (field_width(offset) == size)
		value = get_field(v, offset);
	pthread_mutex_unlock(&v->lock);
	return value;
}

static bool features_good(const struct virtio *v)
{
	return !(v->accepted & ~v->features) && (v->accepted & VIRTIO_BIT(VIRTIO_F_VERSION_1));
}

/* What a write asks the device to do, once the lock is free. */
enum action { NOTHING, START, RESET, QUEUE_START, QUEUE_STOP, VECTOR };

/* 2.6.1: what the queue was set to is gone; the driver sets it up anew, or leaves it. */
static void clear_queue(const struct virtio *v, struct virtio_queue *q)
{
	memset(&q->setup, 0, sizeof(q->setup));
	q->setup.size = (uint16_t)v->queue_max;
	q->vector = VIRTIO_NO_VECTOR;
	q->enabled = q->resetting = false;
}

static void clear(struct virtio *v)
{
	v->accepted = 0;
	v->device_select = v->driver_select = 0;
	v->queue_select = 0;
	v->config_vector = VIRTIO_NO_VECTOR;
	for (unsigned int i = 0; i < v->nr_queues; i++)
		clear_queue(v, &v->queues[i]);
	virtio_interrupts_clear(v);
	v->msix_on = msix_enabled(&v->fn);
	v->config_told = false;
	atomic_store(&v->config_wanted, false);
	v->status = 0;
	v->resetting = false;
}

static enum action set_status(struct virtio *v, uint8_t value)
{
	uint8_t added = value & DRIVER_STATUS & ~v->status;

	TRACE(virtio_status, "%s status 0x%x to 0x%x", v->fn.name, (unsigned int)v->status, (unsigned int)value);
	if (v->resetting)
		return NOTHING;
	if (!value) {
		v->resetting = v->status != 0;
		if (!v->resetting)
			clear(v); /* the registers can have been written without a status */
		return v->resetting ? RESET : NOTHING;
	}
	if ((added & VIRTIO_FEATURES_OK) && !features_good(v))
		added &= (uint8_t)~VIRTIO_FEATURES_OK;
	if ((added & VIRTIO_DRIVER_OK) && !((v->status | added) & VIRTIO_FEATURES_OK))
		added &= (uint8_t)~VIRTIO_DRIVER_OK;
	v->status |= added;
	return added & VIRTIO_DRIVER_OK ? START : NOTHING;
}

static void set_feature(struct virtio *v, uint32_t value)
{
	unsigned int shift = 32 * v->driver_select;

	if (v->driver_select > 1 || (v->status & VIRTIO_FEATURES_OK))
		return;
	v->accepted = (v->accepted & ~(0xffffffffULL << shift)) | (uint64_t)value << shift;
}

static uint16_t valid_vector(const struct virtio *v, uint64_t value)
{
	return value <= v->nr_queues ? (uint16_t)value : VIRTIO_NO_VECTOR;
}

static void set_size(struct virtio *v, struct virtio_queue *q, uint64_t size)
{
	bool packed = v->accepted & VIRTIO_BIT(VIRTIO_F_RING_PACKED);

	if (size && size <= v->queue_max && (packed || !(size & (size - 1))))
		q->setup.size = (uint16_t)size;
}

static enum action reset_queue(struct virtio *v, struct virtio_queue *q, uint64_t value)
{
	if (value != 1 || q->resetting || !(v->accepted & VIRTIO_BIT(VIRTIO_F_RING_RESET)) ||
	    !(v->status & VIRTIO_DRIVER_OK))
		return NOTHING;
	if (!q->enabled) {
		clear_queue(v, q);
		return NOTHING;
	}
	q->resetting = true;
	return QUEUE_STOP;
}

static enum action set_queue_field(struct virtio *v, struct virtio_queue *q, uint64_t offset, uint64_t value)
{
	uint64_t *address;

	if (offset == QUEUE_MSIX_VECTOR) {
		q->vector = valid_vector(v, value);
		return q->enabled ? VECTOR : NOTHING;
	}
	if (offset == QUEUE_RESET)
		return reset_queue(v, q, value);
	if (q->enabled || q->resetting)
		return NOTHING;
	if (is_address(offset)) {
		unsigned int shift = offset & 4 ? 32 : 0;

		address = address_of(q, offset);
		*address = (*address & ~(0xffffffffULL << shift)) | (value & 0xffffffff) << shift;
	} else if (offset == QUEUE_SIZE) {
		set_size(v, q, value);
	} else if (offset == QUEUE_ENABLE && value == 1) {
		q->enabled = true;
		return v->status & VIRTIO_DRIVER_OK ? QUEUE_START : NOTHING;
	}
	return NOTHING;
}

static enum action set_field(struct virtio *v, uint64_t offset, uint64_t value)
{
	struct virtio_queue *q = selected(v);

	switch (offset) {
	case DEVICE_FEATURE_SELECT:
		v->device_select = (uint32_t)value;
		return NOTHING;
	case DRIVER_FEATURE_SELECT:
		v->driver_select = (uint32_t)value;
		return NOTHING;
	case DRIVER_FEATURE:
		set_feature(v, (uint32_t)value);
		return NOTHING;
	case CONFIG_MSIX_VECTOR:
		v->config_vector = valid_vector(v, value);
		return NOTHING;
	case DEVICE_STATUS:
		return set_status(v, (uint8_t)value);
	case QUEUE_SELECT:
		v->queue_select = (uint16_t)value;
		return NOTHING;
	default:
		return q && !v->resetting && offset >= QUEUE_SIZE ? set_queue_field(v, q, offset, value) : NOTHING;
	}
}

static void act(struct virtio *v, enum action action, unsigned int queue)
{
	switch (action) {
	case NOTHING:
		break;
	case START:
		v->class->start(v);
		break;
	case RESET:
		v->class->reset(v);
		break;
	case QUEUE_START:
		v->class->queue_start(v, queue);
		break;
	case QUEUE_STOP:
		v->class->queue_reset(v, queue);
		break;
	case VECTOR:
		if (v->class->vector_changed)
			v->class->vector_changed(v, queue);
		break;
	}
}

static void common_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct virtio *v = opaque;
	enum action action = NOTHING;
	unsigned int queue;

	pthread_mutex_lock(&v->lock);
	queue = v->queue_select;
	if (size == 8 && is_address(offset) && offset % 8 == 0) {
		set_field(v, offset, value);
		set_field(v, offset + 4, value >> 32);
	} else if (field_width(offset) == size) {
		action = set_field(v, offset, value);
	}
	pthread_mutex_unlock(&v->lock);
	act(v, action, queue);
}

const struct io_ops virtio_common_ops = { common_read, common_write };

static uint64_t device_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct virtio *v = opaque;
	uint64_t value = UINT64_MAX;

	if (v->class->config_reading)
		v->class->config_reading(v);
	pthread_mutex_lock(&v->lock);
	if (offset < v->config_size && size <= v->config_size - offset) {
		value = 0;
		memcpy(&value, v->config + offset, size);
	}
	pthread_mutex_unlock(&v->lock);
	return value;
}

static void device_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct virtio *v = opaque;

	if (v->class->config_written && offset < v->config_size && size <= v->config_size - offset)
		v->class->config_written(v, (unsigned int)offset, size, value);
}

const struct io_ops virtio_device_ops = { device_read, device_write };

void virtio_registers_clear(struct virtio *v)
{
	pthread_mutex_lock(&v->lock);
	clear(v);
	pthread_mutex_unlock(&v->lock);
}

void virtio_reset_done(struct virtio *v)
{
	virtio_registers_clear(v);
}

void virtio_queue_reset_done(struct virtio *v, unsigned int queue)
{
	pthread_mutex_lock(&v->lock);
	if (v->queues[queue].resetting)
		clear_queue(v, &v->queues[queue]);
	pthread_mutex_unlock(&v->lock);
}

void virtio_needs_reset(struct virtio *v)
{
	bool tell;

	pthread_mutex_lock(&v->lock);
	tell = (v->status & VIRTIO_DRIVER_OK) && !(v->status & VIRTIO_NEEDS_RESET);
	if (v->status && !v->resetting)
		v->status |= VIRTIO_NEEDS_RESET;
	pthread_mutex_unlock(&v->lock);
	if (tell)
		virtio_interrupt_config(v);
}

uint8_t virtio_status(struct virtio *v)
{
	uint8_t status;

	pthread_mutex_lock(&v->lock);
	status = v->resetting ? 0 : v->status;
	pthread_mutex_unlock(&v->lock);
	return status;
}

uint64_t virtio_accepted(struct virtio *v)
{
	uint64_t accepted;

	pthread_mutex_lock(&v->lock);
	accepted = v->accepted;
	pthread_mutex_unlock(&v->lock);
	return accepted;
}

bool virtio_queue_enabled(struct virtio *v, unsigned int queue, struct virtio_queue_setup *setup)
{
	bool enabled;

	pthread_mutex_lock(&v->lock);
	*setup = v->queues[queue].setup;
	enabled = v->queues[queue].enabled && !v->queues[queue].resetting;
	pthread_mutex_unlock(&v->lock);
	return enabled;
}

bool virtio_config_set(struct virtio *v, const void *data, unsigned int size)
{
	bool changed;

	pthread_mutex_lock(&v->lock);
	if (size > v->config_size)
		size = v->config_size;
	changed = memcmp(v->config, data, size) != 0;
	if (changed) {
		memcpy(v->config, data, size);
		v->generation++;
	}
	pthread_mutex_unlock(&v->lock);
	return changed;
}

int virtio_check_ring(const struct memory *memory, const struct virtio_queue_setup *s, bool packed)
{
	uint64_t size = s->size, driver = packed ? 4 : 6 + 2 * size, device = packed ? 4 : 6 + 8 * size;

	if (s->desc % 16 || s->driver % (packed ? 4 : 2) || s->device % 4 || !ram_ptr(memory, s->desc, 16 * size) ||
	    !ram_ptr(memory, s->driver, driver) || !ram_ptr(memory, s->device, device))
		return -EFAULT;
	return 0;
}
