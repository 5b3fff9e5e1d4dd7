/* SPDX-License-Identifier: MIT */
/* What we ask: sending commands, and their deadlines. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "devices/vfio-user/link_internal.h"

uint64_t vfu_link_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * VFU_SECOND_NS + (uint64_t)now.tv_nsec;
}

void vfu_link_init(struct vfu_link *link, const struct vfu_link_ops *ops, void *opaque, const struct memory *memory,
		   uint64_t timeout_ns)
{
	pthread_condattr_t attr;

	memset(link, 0, sizeof(*link));
	link->ops = ops;
	link->opaque = opaque;
	link->memory = memory;
	link->timeout = timeout_ns;
	vfu_stream_init(&link->stream, -1);
	pthread_mutex_init(&link->aside_lock, NULL);
	pthread_mutex_init(&link->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&link->changed, &attr);
	pthread_condattr_destroy(&attr);
}

void vfu_link_destroy(struct vfu_link *link)
{
	vfu_stream_close(&link->stream);
	pthread_cond_destroy(&link->changed);
	pthread_mutex_destroy(&link->lock);
	pthread_mutex_destroy(&link->aside_lock);
}

void vfu_link_start(struct vfu_link *link, struct vfu_stream *stream, const struct vfu_caps *caps, bool can_post,
		    bool one_by_one)
{
	pthread_mutex_lock(&link->lock);
	link->stream = *stream;
	link->stream.with_fds = false;
	vfu_stream_init(stream, -1);
	link->caps = *caps;
	link->can_post = can_post && !one_by_one;
	link->one_by_one = one_by_one;
	link->timeouts = link->lies = link->nr_multi = 0;
	link->blocked = link->unmask = link->told_refusal = false;
	memset(&link->pending, 0, sizeof(link->pending));
	atomic_store_explicit(&link->alive, true, memory_order_release);
	pthread_mutex_unlock(&link->lock);
}

void vfu_link_kill_locked(struct vfu_link *link, const char *why)
{
	if (!vfu_link_alive(link))
		return;
	atomic_store_explicit(&link->alive, false, memory_order_release);
	shutdown(link->stream.fd, SHUT_RDWR);
	vfu_pending_fail(&link->pending, -EIO);
	pthread_cond_broadcast(&link->changed);
	link->ops->died(link->opaque, why);
}

void vfu_link_kill(struct vfu_link *link, const char *why)
{
	pthread_mutex_lock(&link->lock);
	vfu_link_kill_locked(link, why);
	pthread_mutex_unlock(&link->lock);
}

bool vfu_link_close(struct vfu_link *link)
{
	bool closed;

	pthread_mutex_lock(&link->lock);
	closed = !vfu_link_alive(link) && !link->receiving && !link->waiters;
	if (closed)
		vfu_stream_close(&link->stream);
	pthread_mutex_unlock(&link->lock);
	return closed;
}

/* A command, as it is sent: the fixed part in one piece with the header, because that costs the kernel less. */
struct outgoing {
	struct vfu_header header;
	union {
		struct {
			struct vfu_region_access access;
			uint8_t data[8];
		};
		struct vfu_set_irqs set;
		struct vfu_write_multi multi;
	} body;
	unsigned int size; /* of header and body */
	struct iovec more;
	const int *fds;
	unsigned int nr_fds;
};

static int try_send(struct vfu_link *link, struct outgoing *o)
{
	const struct iovec pieces[2] = { { &o->header, o->size }, o->more };

	o->header.size = o->size + (uint32_t)o->more.iov_len;
	return vfu_stream_send(&link->stream, pieces, o->more.iov_len ? 2 : 1, o->fds, o->nr_fds, true);
}

bool vfu_link_may_send(const struct vfu_link *link)
{
	return !link->one_by_one || !link->pending.calls;
}

void vfu_link_send_unmask(struct vfu_link *link)
{
	struct outgoing o = {
		.header = { .command = VFU_SET_IRQS, .flags = VFU_NO_REPLY },
		.body.set = { .argsz = sizeof(o.body.set),
			      .flags = VFU_SET_DATA_NONE | VFU_SET_UNMASK,
			      .index = VFU_IRQ_INTX,
			      .count = 1 },
		.size = sizeof(o.header) + sizeof(o.body.set),
	};
	int ret;

	if (!link->unmask || !vfu_link_alive(link) || !vfu_link_may_send(link))
		return;
	o.header.id = vfu_pending_id(&link->pending);
	ret = try_send(link, &o);
	if (ret == -EAGAIN)
		return;
	link->unmask = false;
	if (ret)
		vfu_link_kill_locked(link, "it went away");
	else
		vfu_pending_posted(&link->pending, o.header.id, o.header.command);
}

int vfu_link_send_multi(struct vfu_link *link)
{
	struct outgoing o = {
		.header = { .command = VFU_REGION_WRITE_MULTI, .flags = VFU_NO_REPLY },
		.body.multi = { .count = link->nr_multi },
		.size = sizeof(o.header) + sizeof(o.body.multi),
		.more = { link->multi, link->nr_multi * sizeof(link->multi[0]) },
	};
	int ret;

	if (!link->nr_multi)
		return 0;
	o.header.id = vfu_pending_id(&link->pending);
	ret = try_send(link, &o);
	if (!ret) {
		vfu_pending_posted(&link->pending, o.header.id, o.header.command);
		link->nr_multi = 0;
	}
	return ret;
}

/* Sends, waiting for room until the deadline (0: not at all). Under lock. */
static int send_message(struct vfu_link *link, struct outgoing *o, uint64_t deadline)
{
	for (;;) {
		int ret = !vfu_link_alive(link) ? -EIO : link->nr_multi ? vfu_link_send_multi(link) : 0;

		if (!ret)
			ret = try_send(link, o);
		if (!ret)
			return 0;
		if (ret != -EAGAIN) {
			vfu_link_kill_locked(link, "it went away");
			return -EIO;
		}
		if (!deadline)
			return -EAGAIN;
		ret = vfu_link_wait_step(link, deadline, true);
		if (ret)
			return ret;
	}
}

/* The server has not answered in time. Under lock. */
static void timed_out(struct vfu_link *link)
{
	link->count_timeouts++;
	/* A line for each power of two: a slow server is no reason to fill a log. */
	if (!link->alone && !(link->count_timeouts & (link->count_timeouts - 1)))
		link->ops->tell(link->opaque, "no reply in time: an access of the guest's has failed");
	if (++link->timeouts >= VFU_TIMEOUTS_MAX)
		vfu_link_kill_locked(link, "it does not reply any more");
}

/* Under lock. */
static int call_and_wait(struct vfu_link *link, struct vfu_call *call, struct outgoing *o, uint64_t deadline)
{
	int ret = 0;

	if (!vfu_link_alive(link))
		return -EIO;
	while (!ret && !vfu_link_may_send(link))
		ret = vfu_link_wait_step(link, deadline, false);
	if (!ret) {
		vfu_pending_add(&link->pending, call, o->header.command);
		o->header.id = call->id;
		ret = send_message(link, o, deadline);
		/* Nothing of it has been sent, so no reply can come. */
		if (ret)
			vfu_pending_take_back(&link->pending, call);
	}
	if (!ret)
		ret = vfu_link_wait_answer(link, call, deadline);
	if (call->done)
		return call->result;
	if (ret == -ETIMEDOUT)
		timed_out(link);
	if (!vfu_pending_give_up(&link->pending, call))
		vfu_link_kill_locked(link, "too many commands have been without a reply");
	if (link->unmask)
		link->ops->look(link->opaque);
	return ret;
}

uint64_t vfu_link_deadline(const struct vfu_link *link)
{
	return vfu_link_now() + link->timeout;
}

int vfu_link_read(struct vfu_link *link, unsigned int region, uint64_t offset, unsigned int size, uint64_t *value)
{
	struct outgoing o = { .header.command = VFU_REGION_READ,
			      .body.access = { .offset = offset, .region = region, .count = size },
			      .size = sizeof(o.header) + sizeof(o.body.access) };
	uint64_t data = 0;
	struct vfu_call call = { .access = &o.body.access, .data = &data };
	int ret;

	pthread_mutex_lock(&link->lock);
	ret = link->ops->ending(link->opaque) ? -EINTR : call_and_wait(link, &call, &o, vfu_link_deadline(link));
	pthread_mutex_unlock(&link->lock);
	*value = ret ? UINT64_MAX : data;
	return ret;
}

/* Under lock. 0 or what call_and_wait() returns. */
static int post(struct vfu_link *link, struct outgoing *o)
{
	const struct vfu_region_access *access = &o->body.access;
	int ret;

	o->header.id = vfu_pending_id(&link->pending);
	o->header.flags = VFU_NO_REPLY;
	ret = send_message(link, o, 0);
	if (ret == -EAGAIN && !(link->caps.write_multiple && link->nr_multi < VFU_WRITE_MULTI_MAX))
		ret = send_message(link, o, vfu_link_deadline(link));
	if (ret == -EAGAIN) {
		struct vfu_write_one *one = &link->multi[link->nr_multi++];

		*one = (struct vfu_write_one){ .offset = access->offset,
					       .region = access->region,
					       .count = access->count };
		memcpy(one->data, o->body.data, sizeof(one->data));
		if (link->nr_multi == 1)
			link->ops->look(link->opaque);
		return 0;
	}
	if (!ret)
		vfu_pending_posted(&link->pending, o->header.id, o->header.command);
	else if (ret == -ETIMEDOUT)
		timed_out(link);
	return ret;
}

int vfu_link_write(struct vfu_link *link, unsigned int region, uint64_t offset, unsigned int size, uint64_t value,
		   bool may_post)
{
	struct outgoing o = { .header.command = VFU_REGION_WRITE,
			      .body.access = { .offset = offset, .region = region, .count = size },
			      .size = (unsigned int)(sizeof(o.header) + sizeof(o.body.access) + size) };
	struct vfu_call call = { .access = &o.body.access };
	int ret;

	memcpy(o.body.data, &value, sizeof(o.body.data));
	pthread_mutex_lock(&link->lock);
	if (link->ops->ending(link->opaque))
		ret = -EINTR;
	else if (may_post && link->can_post)
		ret = post(link, &o);
	else
		ret = call_and_wait(link, &call, &o, vfu_link_deadline(link));
	pthread_mutex_unlock(&link->lock);
	return ret;
}

/* Under lock. */
static int call_async(struct vfu_link *link, struct outgoing *o, uint64_t deadline)
{
	struct vfu_call *call;
	int ret = 0;

	while (!ret && (!(call = vfu_pending_async(&link->pending)) || (deadline && !vfu_link_may_send(link))))
		ret = deadline ? vfu_link_wait_step(link, deadline, false) : -EAGAIN;
	if (ret)
		return ret;
	vfu_pending_add(&link->pending, call, o->header.command);
	o->header.id = call->id;
	ret = send_message(link, o, deadline);
	if (ret)
		vfu_pending_take_back(&link->pending, call);
	return ret;
}

int vfu_link_command(struct vfu_link *link, enum vfu_command command, const void *payload, size_t size, const int *fds,
		     unsigned int nr_fds, enum vfu_how how, uint64_t deadline)
{
	struct vfu_call call = { 0 };
	struct outgoing o = { .header = { .command = (uint16_t)command },
			      .size = sizeof(o.header),
			      .more = { (void *)payload, size },
			      .fds = fds,
			      .nr_fds = nr_fds };
	int ret = -EIO;

	pthread_mutex_lock(&link->lock);
	if (vfu_link_alive(link))
		ret = how == VFU_WAIT ? call_and_wait(link, &call, &o, deadline) : call_async(link, &o, deadline);
	pthread_mutex_unlock(&link->lock);
	return ret;
}

void vfu_link_unmask(struct vfu_link *link)
{
	pthread_mutex_lock(&link->lock);
	link->unmask = true;
	vfu_link_send_unmask(link);
	if (link->unmask)
		link->ops->look(link->opaque);
	pthread_mutex_unlock(&link->lock);
}
