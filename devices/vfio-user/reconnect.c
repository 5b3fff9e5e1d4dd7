/* SPDX-License-Identifier: MIT */
/*
 * A server that comes back. The loop tries to connect a few times a second, sets the new connection up like the first
 * one, and, if it is the same device, puts the new files in the place of the old ones and lets the guest have it again.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/vfio-user/internal.h"
#include "vmm/log.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

#define MS_NS	 1000000ULL
#define RETRY_NS (100 * MS_NS)

int vfu_connect(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), ret = 0;

	if (fd < 0)
		return -errno;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	/* A full queue of connections is EAGAIN. Afterwards a vCPU is to sleep in recv(). */
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 || fcntl(fd, F_SETFL, O_RDWR) < 0)
		ret = -errno;
	if (ret)
		close(fd);
	return ret ? ret : fd;
}

/* What the guest has found out about the device must still be true. */
static const char *compare(const struct vfu_info *a, const struct vfu_info *b)
{
	if (memcmp(a->config, b->config, 4) != 0 || memcmp(a->config + PCI_REVISION, b->config + PCI_REVISION, 4) != 0)
		return "the server that is back has another device";
	if (a->config_size != b->config_size || a->device.flags != b->device.flags)
		return "the device that is back has another configuration space or cannot do the same";
	if (a->caps.max_fds > b->caps.max_fds)
		return "the server that is back takes fewer descriptors at a time";
	for (unsigned int i = 0; i < VFU_BARS; i++) {
		const struct vfu_region *r = &a->regions[i], *s = &b->regions[i];
		const struct vfu_doorbells *p = &a->doorbells[i], *q = &b->doorbells[i];

		/* A BAR that was too large has been left out. */
		if (r->size && (r->size != s->size || r->flags != s->flags || r->nr_areas > s->nr_areas))
			return "a region of the device that is back is another one";
		for (unsigned int n = 0; n < r->nr_areas && r->size; n++)
			if (memcmp(&r->areas[n], &s->areas[n], sizeof(r->areas[n])) != 0)
				return "the mappable areas of the device that is back are others";
		if (p->count != q->count || p->nr_fds != q->nr_fds ||
		    memcmp(p->entries, q->entries, p->count * sizeof(p->entries[0])) != 0)
			return "the doorbells of the device that is back are others";
	}
	for (unsigned int i = 0; i < VFU_IRQS; i++)
		if (a->irqs[i].count > b->irqs[i].count)
			return "the device that is back has fewer interrupts";
	return NULL;
}

/* A line for each new reason. */
static void failed(struct vfu_device *d, const char *why)
{
	if (strcmp(d->attach_told, why) != 0)
		vfu_tell(d, why);
	snprintf(d->attach_told, sizeof(d->attach_told), "%s", why);
}

static void give_up(struct vfu_device *d)
{
	if (d->attach_main.armed)
		loop_cancel(&d->vm->loop, &d->attach_main.op);
	if (d->attach_twin.armed)
		loop_cancel(&d->vm->loop, &d->attach_twin.op);
	vfu_attach_end(&d->attach);
	vfu_info_free(d->new_info);
	d->new_info = NULL;
	d->attaching = d->restoring = false;
}

/* What the guest has programmed: first the registers, then the interrupts. */
static bool next_request(void *opaque, unsigned int n, struct vfu_request *r)
{
	struct vfu_device *d = opaque;

	if (n == d->restored && vfu_config_request(d, n, r)) {
		d->restored++;
		return true;
	}
	return vfu_irqs_request(d, n - d->restored, r);
}

/* The device is the same: it may have the guest's interrupts, which the guest does not have connected meanwhile. */
static bool begin_restore(struct vfu_device *d)
{
	const char *why = compare(d->info, d->new_info);

	if (!why && (vfu_bars_remap(d, d->new_info) || vfu_bars_reopen(d, d->new_info)))
		why = "the files of the server that is back cannot be mapped";
	if (why) {
		failed(d, why);
		give_up(d);
		return false;
	}
	/* Once more: what the old server has signalled since is not the new one's. */
	pci_set_gone(&d->fn, true);
	d->restoring = true;
	d->restored = 0;
	vfu_attach_more(&d->attach, next_request, d);
	return true;
}

static void finish(struct vfu_device *d)
{
	d->twin = d->attach.twin;
	vfu_stream_init(&d->attach.twin, -1);
	vfu_link_start(&d->link, &d->attach.main, &d->new_info->caps, d->options.posted, d->twin.fd < 0);
	give_up(d);
	/* The machine may have been reset since the server was told. */
	vfu_irqs_update(d, 0);
	/* It may have died again meanwhile; remove_device() comes after us then, and finds what it has to undo. */
	vfu_start_serving(d);
	vfu_doorbells_restore(d);
	pci_set_gone(&d->fn, false);
	vfu_tell(d, "the server is back; the guest has its device again, after a reset");
	d->attach_told[0] = '\0';
	memset(d->told_event, 0, sizeof(d->told_event));
}

static void go_on(struct vfu_device *d)
{
	int ret;

	if (!d->attaching)
		return;
	ret = vfu_attach_run(&d->attach);
	if (ret == 0 && !d->restoring) {
		if (!begin_restore(d))
			return;
		ret = vfu_attach_run(&d->attach);
	}
	if (ret == 0) {
		finish(d);
		return;
	}
	if (ret < 0) {
		failed(d, d->attach.text);
		give_up(d);
		return;
	}
	if (d->attach.progress != d->attach_progress)
		d->attach_deadline = clock_ns() + d->options.timeout_ms * MS_NS;
	d->attach_progress = d->attach.progress;
	vfu_watch_arm(&d->attach_main, d->attach.main.fd, d->attach.main_events);
	vfu_watch_arm(&d->attach_twin, d->attach.twin.fd, d->attach.twin_events);
}

static void attach_ready(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct vfu_watch *w = (struct vfu_watch *)op;

	(void)cqe_flags;
	w->armed = false;
	if (res != -ECANCELED)
		go_on(w->dev);
}

/* Old operations and threads have to be through before descriptors are used again. */
static bool settled(struct vfu_device *d)
{
	if (d->main_watch.armed || d->twin_watch.armed || d->attach_main.armed || d->attach_twin.armed)
		return false;
	if (!vfu_link_close(&d->link))
		return false;
	vfu_stream_close(&d->twin);
	return true;
}

static void begin(struct vfu_device *d)
{
	int fd = vfu_connect(d->options.socket);

	if (fd < 0)
		return;
	d->new_info = vfu_info_new();
	if (!d->new_info) {
		close(fd);
		return;
	}
	TRACE(vfio_user_event, "%s: connected again", d->name);
	vfu_attach_begin(&d->attach, fd, &d->vm->memory, !d->options.secure_dma, d->new_info);
	d->attaching = true;
	d->attach_progress = 0;
	d->attach_deadline = clock_ns() + d->options.timeout_ms * MS_NS;
	go_on(d);
}

static void tick(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct vfu_device *d = (struct vfu_device *)((char *)op - offsetof(struct vfu_device, timer_op));

	(void)cqe_flags;
	if (res == -ECANCELED || !d->removed)
		return;
	if (d->attaching && clock_ns() >= d->attach_deadline) {
		failed(d, "the server that is back does not reply");
		give_up(d);
	} else if (!d->attaching && settled(d)) {
		begin(d);
	}
	if (d->removed)
		loop_timer(&d->vm->loop, &d->timer_op, &d->timer_ts, RETRY_NS);
}

void vfu_reconnect_init(struct vfu_device *d)
{
	d->timer_op.fn = tick;
	vfu_watch_init(&d->attach_main, d, attach_ready);
	vfu_watch_init(&d->attach_twin, d, attach_ready);
	vfu_stream_init(&d->attach.main, -1);
	vfu_stream_init(&d->attach.twin, -1);
}

void vfu_reconnect_start(struct vfu_device *d)
{
	loop_timer(&d->vm->loop, &d->timer_op, &d->timer_ts, RETRY_NS);
}

void vfu_reconnect_again(struct vfu_device *d)
{
	if (d->attaching)
		give_up(d);
}

void vfu_reconnect_destroy(struct vfu_device *d)
{
	vfu_attach_end(&d->attach);
	vfu_info_free(d->new_info);
}
