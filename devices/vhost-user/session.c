/* SPDX-License-Identifier: MIT */
/*
 * What a driver does to the device, as messages. Each thing is one step of the link's queue, which puts its messages
 * before the rest when its turn has come: so what was wanted in some order is done in that order, whatever the
 * back-end's answers take, and each step sees what the one before has left.
 *
 * Notifications that come before the back-end has its descriptors wait in the eventfds.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/vhost-user/internal.h"
#include "vmm/log.h"
#include "vmm/memory.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

/*
 * The addresses by which messages name guest memory are "the user's", which nothing needs to be: the guest's own, moved
 * so that none is 0. No address of this process gets out.
 */
#define USER_BASE (1ULL << 44)

#define PACKED_START 0x80008000u /* positions 0, both wrap counters 1 (SET_VRING_BASE) */

static struct vhu_call *send_u64(struct vhu_device *d, uint32_t request, uint64_t value)
{
	return vhu_link_call(&d->link, request, &value, sizeof(value));
}

static void send_state(struct vhu_device *d, uint32_t request, unsigned int queue, uint32_t num)
{
	const struct vhu_vring_state s = { queue, num };

	vhu_link_call(&d->link, request, &s, sizeof(s));
}

static void send_fd(struct vhu_device *d, uint32_t request, unsigned int queue, int fd)
{
	struct vhu_call *call = send_u64(d, request, queue | (fd < 0 ? VHU_VRING_NO_FD : 0));

	if (!call || fd < 0)
		return;
	call->fds[0] = fd;
	call->nr_fds = 1;
}

static void step(struct vhu_device *d, unsigned int index, vhu_done done)
{
	struct vhu_call *call = vhu_link_call(&d->link, 0, NULL, 0);

	if (!call)
		return;
	call->index = index;
	call->done = done;
}

static void set_status(struct vhu_device *d, uint8_t status)
{
	if (vhu_has(&d->info, VHU_PF_STATUS))
		send_u64(d, VHU_SET_STATUS, status);
}

/* Guest memory: one piece or two. */
static unsigned int regions(const struct vhu_device *d, struct vhu_region *r)
{
	const struct memory *m = &d->vm->memory;

	r[0] = (struct vhu_region){ 0, m->low_size, USER_BASE, 0 };
	r[1] = (struct vhu_region){ RAM_HIGH_BASE, m->size - m->low_size, USER_BASE + RAM_HIGH_BASE, m->low_size };
	return r[1].size ? 2 : 1;
}

static void give_memory(struct vhu_device *d)
{
	struct vhu_mem_table table = { 0 };
	struct vhu_call *call;

	table.count = regions(d, table.regions);
	d->regions_added = d->info.slots >= table.count;
	for (unsigned int i = 0; i < table.count && d->regions_added; i++) {
		const struct vhu_mem_reg reg = { .region = table.regions[i] };

		call = vhu_link_call(&d->link, VHU_ADD_MEM_REG, &reg, sizeof(reg));
		if (!call)
			return;
		call->fds[call->nr_fds++] = d->vm->memory.fd;
	}
	if (d->regions_added)
		return;
	call = vhu_link_call(
		&d->link, VHU_SET_MEM_TABLE, &table,
		(uint32_t)(offsetof(struct vhu_mem_table, regions) + table.count * sizeof(table.regions[0])));
	for (unsigned int i = 0; i < table.count && call; i++)
		call->fds[call->nr_fds++] = d->vm->memory.fd;
}

static void take_memory(struct vhu_device *d)
{
	struct vhu_region r[2];
	unsigned int count = regions(d, r);

	for (unsigned int i = 0; i < count && d->regions_added; i++) {
		const struct vhu_mem_reg reg = { .region = r[i] };

		vhu_link_call(&d->link, VHU_REM_MEM_REG, &reg, sizeof(reg));
	}
	d->regions_added = false;
}

static void set_inflight(struct vhu_device *d)
{
	struct vhu_call *call = vhu_link_call(&d->link, VHU_SET_INFLIGHT_FD, &d->inflight, sizeof(d->inflight));

	if (!call)
		return;
	call->fds[0] = d->inflight_fd;
	call->nr_fds = 1;
}

static void drop_inflight(struct vhu_device *d)
{
	if (d->inflight_fd >= 0)
		close(d->inflight_fd);
	d->inflight_fd = -1;
}

/* Never mapped here: what is in it is the back-ends' affair. */
static void got_inflight(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_device *d = opaque;
	struct vhu_inflight *f = &d->inflight;
	struct stat st;

	(void)call;
	if (status)
		return;
	memset(f, 0, sizeof(*f));
	memcpy(f, reply->payload, reply->header.size);
	f->padding = 0;
	/* Without memory: the back-end has nothing to keep. */
	if (!f->mmap_size && !reply->nr_fds)
		return;
	if (reply->nr_fds != 1 || fstat(reply->fds[0], &st) < 0 || st.st_size < 0 ||
	    f->mmap_offset > (uint64_t)st.st_size || f->mmap_size > (uint64_t)st.st_size - f->mmap_offset) {
		vhu_link_stop(&d->link, "GET_INFLIGHT_FD: its memory is not in the file");
		return;
	}
	d->inflight_fd = reply->fds[0];
	reply->fds[0] = -1;
	set_inflight(d);
}

static void give_inflight(struct vhu_device *d)
{
	const struct vhu_inflight f = { .queues = (uint16_t)d->v.nr_queues, .queue_size = (uint16_t)d->v.queue_max };
	struct vhu_call *call;

	if (!vhu_has(&d->info, VHU_PF_INFLIGHT_SHMFD))
		return;
	if (d->inflight_fd >= 0) {
		set_inflight(d);
		return;
	}
	call = vhu_link_call(&d->link, VHU_GET_INFLIGHT_FD, &f, sizeof(f));
	if (!call)
		return;
	call->reply_min = VHU_INFLIGHT_MIN;
	call->reply_max = sizeof(f);
	call->done = got_inflight;
}

/*
 * Where the back-end goes on. What a back-end that died had not given back begins, if it kept the order, at the used
 * index; if it did not, it has the inflight memory to go by. A packed ring does not show where that is.
 */
static bool base_of(struct vhu_device *d, const struct virtio_queue_setup *setup, uint32_t *base)
{
	bool packed = virtio_accepted(&d->v) & VIRTIO_BIT(VIRTIO_F_RING_PACKED);
	_Atomic uint16_t *index;

	*base = packed ? PACKED_START : 0;
	if (!d->resume)
		return true;
	if (packed)
		return d->inflight_fd >= 0;
	index = ram_ptr(&d->vm->memory, setup->device + 2, sizeof(*index));
	*base = index ? atomic_load(index) : 0;
	return true;
}

static void refuse_queue(struct vhu_device *d, unsigned int queue, const char *why)
{
	if (vhu_worth_telling(++d->nr_bad_queues))
		log_line("--vhost-user %s: queue %u: %s: the driver is told to reset the device", d->options.socket,
			 queue, why);
	virtio_needs_reset(&d->v);
}

static void send_call_fd(struct vhu_device *d, unsigned int queue)
{
	bool inband = vhu_has(&d->info, VHU_PF_INBAND_NOTIFICATIONS);

	send_fd(d, VHU_SET_VRING_CALL, queue, inband ? -1 : virtio_call_fd(&d->v, queue));
}

/*
 * Notifications by messages. A driver may make any number of them while the back-end is slow: one step for each queue
 * is under way at most. One that comes while the queue does not run is kept.
 */
enum { KICK_STEP = 1, KICK_DUE = 2 };

static void pass_kick(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_device *d = opaque;

	(void)reply;
	d->kicks[call->index] = KICK_DUE;
	if (status || !d->started[call->index])
		return;
	d->kicks[call->index] = 0;
	send_state(d, VHU_VRING_KICK, call->index, 0);
}

void vhu_queue_kick(struct vhu_device *d, unsigned int queue)
{
	if (!vhu_has(&d->info, VHU_PF_INBAND_NOTIFICATIONS) || (d->kicks[queue] & KICK_STEP))
		return;
	d->kicks[queue] |= KICK_STEP;
	step(d, queue, pass_kick);
}

static void start_queue(struct vhu_device *d, unsigned int queue)
{
	bool packed = virtio_accepted(&d->v) & VIRTIO_BIT(VIRTIO_F_RING_PACKED);
	bool inband = vhu_has(&d->info, VHU_PF_INBAND_NOTIFICATIONS);
	struct virtio_queue_setup s;
	struct vhu_vring_addr addr;
	uint32_t base;

	if (d->started[queue] || !virtio_queue_enabled(&d->v, queue, &s))
		return;
	if (virtio_check_ring(&d->vm->memory, &s, packed)) {
		refuse_queue(d, queue, "its rings are not in the guest's memory");
		return;
	}
	if (!base_of(d, &s, &base)) {
		refuse_queue(d, queue, "nothing says where a back-end of a packed ring has to go on");
		return;
	}
	addr = (struct vhu_vring_addr){
		.index = queue, .desc = USER_BASE + s.desc, .avail = USER_BASE + s.driver, .used = USER_BASE + s.device
	};
	d->started[queue] = true;
	send_state(d, VHU_SET_VRING_NUM, queue, s.size);
	send_state(d, VHU_SET_VRING_BASE, queue, base);
	vhu_link_call(&d->link, VHU_SET_VRING_ADDR, &addr, sizeof(addr));
	send_call_fd(d, queue);
	send_fd(d, VHU_SET_VRING_KICK, queue, inband ? -1 : d->v.queues[queue].kick_fd);
	if (d->info.features & VIRTIO_BIT(VHU_F_PROTOCOL_FEATURES))
		send_state(d, VHU_SET_VRING_ENABLE, queue, 1);
	if (inband)
		virtio_watch_kicks(&d->v, queue);
	if (d->kicks[queue] & KICK_DUE)
		vhu_queue_kick(d, queue);
}

/* Whoever was there before may have taken a notification and not acted on it, or not told of what it did. */
static void wake_queue(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_device *d = opaque;

	(void)reply;
	if (status || !d->started[call->index])
		return;
	virtio_kick(&d->v, call->index);
	virtio_interrupt(&d->v, call->index);
}

static void start_queues(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_device *d = opaque;

	(void)call;
	(void)reply;
	if (status)
		return;
	for (unsigned int i = 0; i < d->v.nr_queues; i++) {
		start_queue(d, i);
		if (d->resume && d->started[i])
			step(d, i, wake_queue);
	}
	d->resume = false;
	set_status(d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK);
}

static void check_status(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_device *d = opaque;
	uint64_t value;

	(void)call;
	if (status)
		return;
	memcpy(&value, reply->payload, sizeof(value));
	if (!(value & VIRTIO_FEATURES_OK))
		vhu_link_stop(&d->link, "GET_STATUS: the back-end does not take the driver's features");
}

static void give_features(struct vhu_device *d)
{
	uint64_t features = virtio_accepted(&d->v) & d->info.features;
	struct vhu_call *call;

	features |= d->info.features & VIRTIO_BIT(VHU_F_PROTOCOL_FEATURES);
	set_status(d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
	send_u64(d, VHU_SET_FEATURES, features);
	if (!vhu_has(&d->info, VHU_PF_STATUS))
		return;
	set_status(d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
	call = vhu_link_call(&d->link, VHU_GET_STATUS, NULL, 0);
	if (!call)
		return;
	call->reply_min = call->reply_max = 8;
	call->done = check_status;
}

static void start(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_device *d = opaque;

	(void)call;
	(void)reply;
	/* The driver may have reset it meanwhile. */
	if (status || d->running || !(virtio_status(&d->v) & VIRTIO_DRIVER_OK))
		return;
	TRACE(vhost_user_event, "%s: start", d->name);
	d->running = true;
	give_features(d);
	give_memory(d);
	give_inflight(d);
	step(d, 0, start_queues);
}

void vhu_start(struct vhu_device *d)
{
	step(d, 0, start);
}

static void stop_queue(struct vhu_device *d, unsigned int queue, vhu_done done)
{
	const struct vhu_vring_state s = { queue, 0 };
	struct vhu_call *call;

	if (!d->started[queue]) {
		if (done)
			step(d, queue, done);
		return;
	}
	d->started[queue] = false;
	call = vhu_link_call(&d->link, VHU_GET_VRING_BASE, &s, sizeof(s));
	if (!call)
		return;
	/* Where it stopped does not matter: the driver begins anew. */
	call->reply_min = call->reply_max = sizeof(s);
	call->index = queue;
	call->done = done;
}

/* What the back-end asked for before its last answer is there by now, and must not come after the end. */
static void stopped(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_device *d = opaque;
	const char *why;

	(void)reply;
	TRACE(vhost_user_event, "%s: stopped, status %d", d->name, status);
	if (d->backend.channel.fd >= 0)
		vhu_backend_serve(&d->backend, VHU_MAPS_MAX, &why);
	vhu_shmem_unmap_all(&d->shmem);
	drop_inflight(d);
	d->running = d->resume = false;
	atomic_store(&d->idle, true);
	if (call->index)
		virtio_reset_done(&d->v);
}

static void stop(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_device *d = opaque;

	(void)reply;
	if (d->running && !status) {
		for (unsigned int i = 0; i < d->v.nr_queues; i++)
			stop_queue(d, i, NULL);
		if (vhu_has(&d->info, VHU_PF_RESET_DEVICE))
			vhu_link_call(&d->link, VHU_RESET_DEVICE, NULL, 0);
		set_status(d, 0);
		take_memory(d);
	}
	step(d, call->index, stopped);
}

void vhu_stop(struct vhu_device *d, bool reset_done)
{
	step(d, reset_done, stop);
}

static void queue_started(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_device *d = opaque;

	(void)reply;
	if (!status && d->running)
		start_queue(d, call->index);
}

void vhu_queue_start(struct vhu_device *d, unsigned int queue)
{
	step(d, queue, queue_started);
}

static void queue_stopped(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_device *d = opaque;

	(void)reply;
	(void)status;
	virtio_queue_reset_done(&d->v, call->index);
}

static void queue_stop(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_device *d = opaque;

	(void)reply;
	(void)status;
	stop_queue(d, call->index, queue_stopped);
}

void vhu_queue_stop(struct vhu_device *d, unsigned int queue)
{
	step(d, queue, queue_stop);
}

static void queue_vector(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_device *d = opaque;

	(void)reply;
	d->vector_steps[call->index] = false;
	if (status || !d->started[call->index])
		return;
	send_call_fd(d, call->index);
	/* Without acknowledgements the answer to another request tells that the back-end has it. */
	if (!vhu_has(&d->info, VHU_PF_REPLY_ACK)) {
		struct vhu_call *sync = vhu_link_call(&d->link, VHU_GET_FEATURES, NULL, 0);

		if (sync)
			sync->reply_min = sync->reply_max = 8;
	}
	/* What the old one was told since the driver gave it up is lost: one interrupt more makes up for it. */
	step(d, call->index, wake_queue);
}

void vhu_queue_vector(struct vhu_device *d, unsigned int queue)
{
	/* One that is still to come will see what the vector is then. */
	if (d->vector_steps[queue])
		return;
	d->vector_steps[queue] = true;
	step(d, queue, queue_vector);
}

void vhu_session_lost(struct vhu_device *d)
{
	memset(d->started, 0, sizeof(d->started));
	d->running = false;
	d->regions_added = false;
	vhu_shmem_unmap_all(&d->shmem);
}
