/* SPDX-License-Identifier: MIT */
/*
 * The device's configuration. Reads are answered from a copy, which is fetched when the back-end says that it has
 * changed, and after the driver has written to it: other bytes may depend on what was written. Until then a reader
 * waits, for as long as the back-end may take for its answers.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "devices/vhost-user/internal.h"
#include "vmm/vm.h"

#define SLICE_NS	 20000000L /* how long one may sleep without looking whether the run ends */
#define ANSWERS		 3	   /* what may be under way already, SET_CONFIG, GET_CONFIG */
#define FROM_BACK_END(d) vhu_has(&(d)->info, VHU_PF_CONFIG)

static void wait_slice(struct vhu_device *d)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += SLICE_NS;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_nsec -= 1000000000L;
		until.tv_sec++;
	}
	pthread_cond_timedwait(&d->config_changed, &d->config_lock, &until);
}

void vhu_config_reading(struct virtio *v)
{
	struct vhu_device *d = (struct vhu_device *)v;
	uint64_t deadline = 0;

	pthread_mutex_lock(&d->config_lock);
	while (d->config_taken != d->config_written && atomic_load(&d->vm->request) == VM_RUN) {
		uint64_t now = clock_ns();

		if (!deadline)
			deadline = now + ANSWERS * d->options.timeout_ms * VHU_MS_NS;
		if (now >= deadline)
			break;
		wait_slice(d);
	}
	pthread_mutex_unlock(&d->config_lock);
}

void vhu_config_written(struct virtio *v, unsigned int offset, unsigned int size, uint64_t value)
{
	struct vhu_device *d = (struct vhu_device *)v;

	if (!FROM_BACK_END(d) || d->info.config_bad)
		return;
	pthread_mutex_lock(&d->config_lock);
	memcpy(d->config_new + offset, &value, size);
	for (unsigned int i = offset; i < offset + size; i++)
		d->config_dirty[i / 8] |= (uint8_t)(1u << i % 8);
	d->config_written++;
	pthread_mutex_unlock(&d->config_lock);
	loop_post(&d->vm->loop, &d->work);
}

static void wake_readers(struct vhu_device *d, unsigned int taken)
{
	pthread_mutex_lock(&d->config_lock);
	d->config_taken = taken;
	pthread_cond_broadcast(&d->config_changed);
	pthread_mutex_unlock(&d->config_lock);
}

void vhu_config_lost(struct vhu_device *d)
{
	pthread_mutex_lock(&d->config_lock);
	memset(d->config_dirty, 0, sizeof(d->config_dirty));
	d->config_taken = d->config_written;
	pthread_cond_broadcast(&d->config_changed);
	pthread_mutex_unlock(&d->config_lock);
}

/* A reply that makes no sense changes nothing. */
static bool use_reply(struct vhu_device *d, const struct vhu_message *reply)
{
	uint8_t config[VHU_CONFIG_MAX];

	if (!vhu_attach_config(reply, d->v.config_size, config))
		return false;
	vhu_patch_config(d, config);
	virtio_config_set(&d->v, config, d->v.config_size);
	return true;
}

static void got_after_write(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_device *d = opaque;

	if (!status)
		use_reply(d, reply);
	wake_readers(d, call->index);
}

static void got_after_change(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_device *d = opaque;

	(void)call;
	d->config_asked = false;
	if (d->config_again && !status)
		vhu_config_refresh(d);
	d->config_again = false;
	if (!status && use_reply(d, reply) && (virtio_status(&d->v) & VIRTIO_DRIVER_OK))
		virtio_interrupt_config(&d->v);
}

static void send_bytes(struct vhu_device *d, const uint8_t *bytes, unsigned int offset, unsigned int size)
{
	struct vhu_config c = { .offset = offset, .size = size };
	struct vhu_call *call;

	memcpy(c.data, bytes + offset, size);
	call = vhu_link_call(&d->link, VHU_SET_CONFIG, &c, (uint32_t)offsetof(struct vhu_config, data) + size);
	if (call)
		call->may_fail = true; /* what cannot be written is not */
}

void vhu_config_flush(struct vhu_device *d)
{
	uint8_t bytes[VHU_CONFIG_MAX], dirty[sizeof(d->config_dirty)];
	unsigned int written, from = 0;
	bool any = false;
	struct vhu_call *call;

	pthread_mutex_lock(&d->config_lock);
	memcpy(bytes, d->config_new, sizeof(bytes));
	memcpy(dirty, d->config_dirty, sizeof(dirty));
	memset(d->config_dirty, 0, sizeof(d->config_dirty));
	written = d->config_written;
	pthread_mutex_unlock(&d->config_lock);
	while (from < d->v.config_size) {
		unsigned int to = from;

		while (to < d->v.config_size && (dirty[to / 8] & 1u << to % 8))
			to++;
		if (to > from) {
			send_bytes(d, bytes, from, to - from);
			any = true;
		}
		from = to + 1;
	}
	call = any ? vhu_attach_get_config(&d->link, d->v.config_size) : NULL;
	if (!call)
		return;
	call->index = written;
	call->done = got_after_write;
}

void vhu_config_refresh(struct vhu_device *d)
{
	struct vhu_call *call;

	/* One that has been asked may be answered with what was before. */
	d->config_again = d->config_asked;
	if (!FROM_BACK_END(d) || !d->v.config_size || d->config_asked)
		return;
	call = vhu_attach_get_config(&d->link, d->v.config_size);
	if (!call)
		return;
	call->done = got_after_change;
	d->config_asked = true;
}
