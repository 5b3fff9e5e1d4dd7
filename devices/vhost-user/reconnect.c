/* SPDX-License-Identifier: MIT */
/*
 * A back-end that comes back. The loop tries to connect a few times a second and sets the new connection up like the
 * first one. If it serves the same device, what the driver has running goes on with it: queues where the old back-end
 * left them, by the memory for requests in flight if both keep one. The driver notices only that it took a while.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "devices/vhost-user/internal.h"
#include "vmm/log.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

#define RETRY_NS (100 * VHU_MS_NS)

/* What a driver or we rely on. Others may come and go. */
#define KEPT                                                                                                           \
	(1ULL << VHU_PF_CONFIG | 1ULL << VHU_PF_INFLIGHT_SHMFD | 1ULL << VHU_PF_INBAND_NOTIFICATIONS |                 \
	 1ULL << VHU_PF_SHMEM)

static bool same_regions(const struct vhu_shmem *a, const struct vhu_shmem *b)
{
	if (a->nr_regions != b->nr_regions)
		return false;
	for (unsigned int i = 0; i < a->nr_regions; i++)
		if (a->regions[i].id != b->regions[i].id || a->regions[i].offset != b->regions[i].offset ||
		    a->regions[i].length != b->regions[i].length)
			return false;
	return true;
}

static const char *compare(struct vhu_device *d)
{
	const struct vhu_info *old = &d->info, *new = &d->new_info;

	if ((d->v.features & old->features) & ~new->features)
		return "the back-end that is back has fewer features";
	if ((old->protocol & KEPT) & ~new->protocol)
		return "the back-end that is back has fewer protocol features";
	if (new->queues && old->queues &&new->queues < d->v.nr_queues)
		return "the back-end that is back has fewer queues";
	if (!same_regions(&old->shmem, &new->shmem))
		return "the back-end that is back has other shared memory";
	return NULL;
}

/* A line for each new reason. */
static void failed(struct vhu_device *d, const char *why)
{
	if (strcmp(d->told, why) != 0)
		vhu_tell(d, why);
	snprintf(d->told, sizeof(d->told), "%s", why);
}

/* The link has gone through all of it: what comes next in its queue is for the new back-end. */
static void attached(void *opaque)
{
	struct vhu_device *d = opaque;
	const char *why = compare(d);
	uint8_t config[VHU_CONFIG_MAX];

	if (why) {
		vhu_link_stop(&d->link, why);
		return;
	}
	d->info = d->new_info;
	d->up = true;
	d->attaching = false;
	d->told[0] = '\0';
	vhu_tell(d, "the back-end is back");
	memcpy(config, d->info.config, sizeof(config));
	vhu_patch_config(d, config);
	if (!d->info.config_bad && virtio_config_set(&d->v, config, sizeof(config)) &&
	    (virtio_status(&d->v) & VIRTIO_DRIVER_OK))
		virtio_interrupt_config(&d->v);
	/* If the driver wants it running. */
	vhu_start(d);
	loop_post(&d->vm->loop, &d->work);
}

static void again(struct vhu_device *d)
{
	if (d->retry_armed)
		return;
	d->retry_armed = true;
	loop_timer(&d->vm->loop, &d->retry_op, &d->retry_ts, RETRY_NS);
}

void vhu_reconnect_step(struct vhu_device *d)
{
	if (d->link.alive)
		return;
	d->attaching = false;
	vhu_channel_close(&d->backend.channel);
	vhu_shmem_unmap_all(&d->shmem);
	failed(d, d->link.why);
	again(d);
}

static void begin(struct vhu_device *d, int fd)
{
	TRACE(vhost_user_event, "%s: connected again", d->name);
	d->attach = (struct vhu_attach){
		.link = &d->link,
		.info = &d->new_info,
		.backend = &d->backend,
		.config_size = d->v.config_size,
		.inband = d->options.inband,
		.finished = attached,
		.opaque = d,
	};
	d->attaching = true;
	vhu_link_start(&d->link, fd);
	vhu_attach_begin(&d->attach);
	vhu_pump(d);
}

static void retry(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct vhu_device *d = (struct vhu_device *)((char *)op - offsetof(struct vhu_device, retry_op));
	int fd;

	(void)cqe_flags;
	d->retry_armed = false;
	if (res == -ECANCELED || d->up || d->attaching)
		return;
	/* Operations on the old sockets are over soon: they have been shut down. */
	fd = d->in_watch.armed || d->out_watch.armed || d->backend_watch.armed ? -EAGAIN
									       : vhu_connect(d->options.socket);
	if (fd >= 0)
		begin(d, fd);
	else
		again(d);
}

void vhu_reconnect_init(struct vhu_device *d)
{
	d->retry_op.fn = retry;
}

void vhu_reconnect_start(struct vhu_device *d)
{
	again(d);
}
