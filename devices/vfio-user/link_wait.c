/* SPDX-License-Identifier: MIT */
/* What comes: replies, to those who wait for them, and what the server asks. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "devices/vfio-user/link_internal.h"
#include "devices/vfio-user/serve.h"
#include "vmm/trace.h"

#define SLICE_NS  50000000ULL /* how long one may sleep where no signal ends it */
#define AGAIN_NS  10000000ULL /* how long the watchdog waits for one that it has woken */
#define POLL_MOST 32	      /* receives of vfu_link_poll(): the loop has other work */
#define LIES_MAX  2

static int reply_result(struct vfu_link *link, struct vfu_call *c, const struct vfu_message *m)
{
	bool read = c->command == VFU_REGION_READ;
	const void *data;

	if (m->header.flags & VFU_ERROR)
		return m->header.error && m->header.error < 4096 ? -(int)m->header.error : -EIO;
	if (!c->access)
		return 0;
	if (vfu_decode_access(m->payload, m->size, read, c->access, &data) == 0) {
		if (read)
			memcpy(c->data, data, c->access->count);
		link->lies = 0;
		return 0;
	}
	if (m->size > sizeof(*c->access) + (read ? c->access->count : 0))
		vfu_link_kill_locked(link, "a reply is longer than what was asked for");
	else if (++link->lies >= LIES_MAX)
		vfu_link_kill_locked(link, "replies do not fit what was asked for");
	return -EPROTO;
}

/* A command that nobody waits for has failed. */
static void refused(struct vfu_link *link, const struct vfu_call *c)
{
	if (c->command == VFU_DMA_MAP) {
		vfu_link_kill_locked(link, "it does not take the guest's memory");
	} else if (c->command == VFU_DEVICE_RESET) {
		vfu_link_kill_locked(link, "it does not reset the device");
	} else if (c->command == VFU_SET_IRQS && !link->told_refusal) {
		link->told_refusal = true;
		link->ops->tell(link->opaque, "the server does not take the descriptors of interrupts");
	}
}

static void got_answer(struct vfu_link *link, struct vfu_call *c, const struct vfu_message *m)
{
	link->timeouts = 0;
	c->result = reply_result(link, c, m);
	c->done = true;
	if (!c->result)
		return;
	TRACE(vfio_user_event, "command %u failed: error %d", (unsigned int)c->command, -c->result);
	if (vfu_pending_is_async(&link->pending, c))
		refused(link, c);
}

static void got_reply(struct vfu_link *link, const struct vfu_message *m)
{
	struct vfu_call *call;

	switch (vfu_pending_reply(&link->pending, &m->header, &call)) {
	case VFU_ANSWERS_CALL:
		got_answer(link, call, m);
		return;
	case VFU_ANSWERS_OTHER:
		vfu_link_kill_locked(link, "it replied to a command with another one");
		return;
	case VFU_ANSWERS_LATE:
		link->timeouts = 0;
		break;
	case VFU_ANSWERS_POSTED:
		if (link->can_post)
			link->ops->tell(link->opaque, "the server replies to posted writes: they will be waited for");
		link->can_post = false;
		break;
	case VFU_ANSWERS_AGAIN:
		break;
	default:
		vfu_link_kill_locked(link, "it replied to what nobody had asked");
		return;
	}
	TRACE(vfio_user_event, "late or stray reply to %u", (unsigned int)m->header.id);
}

/* Deals with every whole message that is here. Under lock, and with the receiving end. */
static void got_data(struct vfu_link *link)
{
	while (link->stream.head != link->stream.tail && vfu_link_alive(link)) {
		struct vfu_message m;
		const char *why = "";
		int ret = vfu_stream_next(&link->stream, &m, &why);

		if (ret == 0)
			return;
		if (ret < 0) {
			vfu_link_kill_locked(link, why);
			return;
		}
		if ((m.header.flags & VFU_TYPE) == VFU_TYPE_REPLY) {
			got_reply(link, &m);
		} else if ((m.header.flags & VFU_TYPE) == VFU_TYPE_COMMAND) {
			ret = vfu_serve(&link->stream, link->memory, &m);
			/* It does not take its answers: it stays here until it does. */
			link->blocked = ret == -EAGAIN;
			if (link->blocked)
				return;
			if (ret)
				vfu_link_kill_locked(link, "it went away");
		} else {
			vfu_link_kill_locked(link, "a message is neither command nor reply");
		}
		if (vfu_link_alive(link))
			vfu_stream_done(&link->stream, &m);
	}
}

static void received(struct vfu_link *link, int n)
{
	if (n == 0)
		vfu_link_kill_locked(link, "it went away");
	else if (n < 0 && n != -EAGAIN && n != -EINTR)
		vfu_link_kill_locked(link, n == -ENOMEM ? "out of memory" : "it went away");
	else
		got_data(link);
}

/* The loop does not run, or not now: its work is done here. */
static int receive_aside(struct vfu_link *link, const struct timespec *left, short events)
{
	struct pollfd p[3] = {
		{ .fd = link->stream.fd, .events = events },
		{ .fd = link->aside->fd, .events = POLLIN },
		{ .fd = link->alone ? link->aside_fd : -1, .events = POLLIN },
	};
	const char *why;
	int ret = 0;

	pthread_mutex_lock(&link->aside_lock);
	if (vfu_stream_waiting(link->aside))
		p[1].events |= POLLOUT;
	pthread_mutex_unlock(&link->aside_lock);
	if (ppoll(p, 3, left, NULL) <= 0)
		return -EAGAIN;
	if (p[1].revents) {
		pthread_mutex_lock(&link->aside_lock);
		ret = vfu_serve_stream(link->aside, link->memory, POLL_MOST, &why);
		pthread_mutex_unlock(&link->aside_lock);
	}
	link->interrupted |= p[2].revents != 0;
	if (ret < 0)
		return 0;
	return p[0].revents & ~POLLOUT ? vfu_stream_recv(&link->stream, MSG_DONTWAIT) : -EAGAIN;
}

/* With a deadline that is this thread's own business. The lock is let go meanwhile, as in the next. */
static int receive_timed(struct vfu_link *link, uint64_t deadline, bool want_out, bool aside)
{
	short events = link->blocked ? POLLOUT : want_out ? POLLIN | POLLOUT : POLLIN;
	uint64_t now = vfu_link_now(), left = now < deadline ? deadline - now : 0;
	struct timespec ts = { .tv_sec = (time_t)(left / VFU_SECOND_NS), .tv_nsec = (long)(left % VFU_SECOND_NS) };
	int n = -EAGAIN;

	pthread_mutex_unlock(&link->lock);
	if (aside) {
		n = receive_aside(link, &ts, events);
	} else {
		struct pollfd p = { .fd = link->stream.fd, .events = events };

		if (ppoll(&p, 1, &ts, NULL) > 0 && (p.revents & ~POLLOUT))
			n = vfu_stream_recv(&link->stream, MSG_DONTWAIT);
	}
	pthread_mutex_lock(&link->lock);
	return n;
}

/* With one that the watchdog sees to. */
static int receive_watched(struct vfu_link *link, uint64_t deadline)
{
	int n;

	link->sleeper = pthread_self();
	link->sleeps_until = deadline;
	link->sleeping = link->used = true;
	pthread_mutex_unlock(&link->lock);
	n = vfu_stream_recv(&link->stream, 0);
	pthread_mutex_lock(&link->lock);
	link->sleeping = false;
	return n;
}

/* Whether the watchdog looks before the deadline. One that has nothing to do is given it. */
static bool will_be_watched(struct vfu_link *link, uint64_t deadline)
{
	if (!link->watched) {
		link->watched = true;
		link->watch_at = deadline;
		link->ops->watch(link->opaque);
	}
	return link->watch_at <= deadline;
}

/* Under lock, which is let go meanwhile: receives for all who wait. */
static void receive(struct vfu_link *link, uint64_t deadline, bool want_out, bool watched)
{
	bool aside = link->aside && (link->alone || link->ops->stopped(link->opaque));
	int n;

	link->receiving = true;
	want_out = want_out || vfu_stream_waiting(&link->stream);
	if (watched && !aside && !want_out && will_be_watched(link, deadline))
		n = receive_watched(link, deadline);
	else
		n = receive_timed(link, deadline, want_out, aside);
	link->receiving = false;
	if (vfu_link_alive(link)) {
		int ret = vfu_stream_waiting(&link->stream) ? vfu_stream_flush(&link->stream) : 0;

		if (ret && ret != -EAGAIN)
			vfu_link_kill_locked(link, "it went away");
		else
			received(link, n);
	}
	if (link->unmask)
		vfu_link_send_unmask(link);
	if (link->waiters)
		pthread_cond_broadcast(&link->changed);
	/* What is left to be sent, here or aside, must not wait for the next who waits. */
	if (link->loop_wants || vfu_stream_waiting(&link->stream) || link->blocked || (aside && !link->alone)) {
		link->loop_wants = false;
		link->ops->look(link->opaque);
	}
}

/* Somebody else receives. */
static void follow(struct vfu_link *link, uint64_t now, uint64_t deadline)
{
	uint64_t until = deadline - now < SLICE_NS ? deadline : now + SLICE_NS;
	struct timespec ts = { .tv_sec = (time_t)(until / VFU_SECOND_NS), .tv_nsec = (long)(until % VFU_SECOND_NS) };

	link->waiters++;
	pthread_cond_timedwait(&link->changed, &link->lock, &ts);
	link->waiters--;
}

int vfu_link_wait_step(struct vfu_link *link, uint64_t deadline, bool want_out)
{
	uint64_t now = vfu_link_now();

	if (!vfu_link_alive(link))
		return -EIO;
	if (link->interrupted || link->ops->ending(link->opaque))
		return -EINTR;
	if (now >= deadline)
		return -ETIMEDOUT;
	if (link->receiving)
		follow(link, now, deadline);
	else
		receive(link, deadline, want_out, false);
	return 0;
}

int vfu_link_wait_answer(struct vfu_link *link, const struct vfu_call *call, uint64_t deadline)
{
	int ret = 0;

	/*
	 * The first time without a look at the clock, which was read for the deadline. Only who accesses a region
	 * leaves that to the watchdog: the others may hold a lock that the loop wants, and the watchdog is the loop's.
	 */
	if (call->access && !call->done && !link->receiving && !link->interrupted)
		receive(link, deadline, false, true);
	while (!ret && !call->done)
		ret = vfu_link_wait_step(link, deadline, false);
	return call->done ? 0 : ret;
}

uint64_t vfu_link_watch(struct vfu_link *link)
{
	uint64_t now = vfu_link_now(), left;

	pthread_mutex_lock(&link->lock);
	link->watched = vfu_link_alive(link) && link->used;
	link->used = link->sleeping;
	/* Whoever goes to sleep from now on has more time than that. */
	link->watch_at = now + link->timeout;
	if (link->watched && link->sleeping && link->sleeps_until > now) {
		link->watch_at = link->sleeps_until;
	} else if (link->watched && link->sleeping) {
		link->ops->wake(link->opaque, link->sleeper);
		link->watch_at = now + AGAIN_NS;
	}
	left = link->watched ? link->watch_at - now : 0;
	pthread_mutex_unlock(&link->lock);
	return left;
}

short vfu_link_poll(struct vfu_link *link)
{
	short events = 0;

	pthread_mutex_lock(&link->lock);
	for (unsigned int i = 0; i < POLL_MOST && vfu_link_alive(link); i++) {
		int ret = vfu_stream_flush(&link->stream);
		int n;

		if (!ret)
			ret = vfu_link_send_multi(link);
		if (ret && ret != -EAGAIN) {
			vfu_link_kill_locked(link, "it went away");
			break;
		}
		/* Who receives does this too, and then has us look again. */
		if (link->receiving) {
			link->loop_wants = true;
			break;
		}
		n = vfu_stream_recv(&link->stream, MSG_DONTWAIT);
		received(link, n);
		if (n == -EAGAIN)
			break;
	}
	vfu_link_send_unmask(link);
	if (vfu_link_alive(link) && !link->loop_wants) {
		events = link->blocked ? 0 : POLLIN;
		if (vfu_stream_waiting(&link->stream) || link->nr_multi || link->blocked ||
		    (link->unmask && vfu_link_may_send(link)))
			events |= POLLOUT;
	}
	if (link->waiters)
		pthread_cond_broadcast(&link->changed);
	pthread_mutex_unlock(&link->lock);
	return events;
}
