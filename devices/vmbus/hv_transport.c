/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * The bus lives on the loop thread. What a guest's hypercalls bring arrives on vCPU threads and is handed over:
 *
 * - a message is copied into a queue of bounded length; a guest that fills it is told HV_STATUS_INSUFFICIENT_BUFFERS
 *   and tries again. The loop takes messages in order. One that the bus cannot take yet (its answers wait for room in
 *   the guest's message slot) stays at the head, and everything behind it waits: so a guest cannot make the host queue
 *   more than this. A contact or an unload makes void what came before it: there is always a place for one, which the
 *   loop takes first, or a guest that does not read its answers could never start anew. What comes behind it has to
 *   wait until then, for it would be taken for something older.
 * - a signal adds to the eventfd of its connection, in KVM where that is possible. A multishot poll tells the loop of
 *   each: nothing is read and nothing is submitted again, so one wake-up of a busy channel is one system call. The
 *   counter only ever grows; its 64 bits do not overflow.
 *
 * Taking an event port away from KVM takes milliseconds on some hosts, and channels are opened and closed all the time.
 * So a closed channel's connection is kept, deaf, for the next time it is opened; only a reset, or more than IDLE_MAX
 * of them, ends some. That is at once for guest and bus, but the poll on its eventfd ends only when the kernel says so.
 * Until then the struct is on no list and its events are dropped; the same connection id may be in use again meanwhile.
 */
#include "devices/vmbus/hv_transport.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "arch/x86/hyperv/hyperv.h"
#include "devices/vmbus/describe.h"
#include "devices/vmbus/ic_shutdown.h"
#include "devices/vmbus/ic_timesync.h"
#include "devices/vmbus/protocol.h"
#include "devices/vmbus/transport.h"
#include "vmm/device.h"
#include "vmm/log.h"
#include "vmm/loop.h"
#include "vmm/vm.h"

/* TLFS 11.10 and Linux include/linux/hyperv.h: message connections of VMBus, and the type of its messages. */
#define CONNECTION_MESSAGE 1
#define CONNECTION_MULTI   4
#define MESSAGE_TYPE	   1

#define QUEUE_MAX 64
#define IDLE_MAX  64
#define BUCKETS	  256

struct queued {
	uint32_t connection;
	size_t size;
	uint8_t payload[HV_MESSAGE_PAYLOAD];
};

struct hv_transport;

struct connection {
	struct connection *next; /* in its bucket */
	struct hv_transport *transport;
	uint32_t id;
	int fd;
	bool idle; /* kept for the next connect */
	bool closed;
	unsigned int pending; /* ops that the ring has */
	struct loop_op poll_op, again_op;
	bool again;
};

struct hv_transport {
	struct device dev;
	struct vmbus *bus;

	pthread_mutex_t lock; /* the queue: vCPU threads add, the loop takes */
	unsigned int head, count;
	struct queued queue[QUEUE_MAX];
	struct queued anew; /* a contact or an unload that came when the queue was full; size 0: none */

	struct loop_work messages_work, room_work; /* posted from any thread */

	/* Loop thread, or before and after it. */
	bool ended;	     /* the loop is no more */
	uint64_t monitor_ns; /* 0: the timer, if there is one, is the last */
	bool monitor_armed;
	struct loop_op monitor_op;
	struct __kernel_timespec monitor_ts;
	struct connection *connections[BUCKETS];
	unsigned int idle;
};

#define from_member(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static bool begins_anew(const void *payload, size_t size)
{
	uint32_t type;

	if (size < sizeof(type))
		return false;
	memcpy(&type, payload, sizeof(type));
	return type == VMBUS_INITIATE_CONTACT || type == VMBUS_UNLOAD;
}

static enum hv_status post(void *opaque, uint32_t connection, uint32_t type, const void *payload, size_t size)
{
	struct hv_transport *t = opaque;
	struct queued *q = NULL;

	if (type != MESSAGE_TYPE || size > HV_MESSAGE_PAYLOAD)
		return HV_STATUS_INVALID_PARAMETER;
	pthread_mutex_lock(&t->lock);
	if (t->count < QUEUE_MAX && !t->anew.size)
		q = &t->queue[(t->head + t->count++) % QUEUE_MAX];
	else if (begins_anew(payload, size))
		q = &t->anew;
	if (q) {
		q->connection = connection;
		q->size = size;
		memcpy(q->payload, payload, size);
	}
	pthread_mutex_unlock(&t->lock);
	if (!q)
		return HV_STATUS_INSUFFICIENT_BUFFERS;
	loop_post(&t->dev.vm->loop, &t->messages_work);
	return HV_STATUS_SUCCESS;
}

static const struct hv_message_ops message_ops = { .post = post };

/* The bus takes such a message at any time, and forgets what it had to answer. */
static void deliver_anew(struct hv_transport *t)
{
	struct queued q;

	pthread_mutex_lock(&t->lock);
	q = t->anew;
	t->anew.size = 0;
	if (q.size)
		t->count = 0;
	pthread_mutex_unlock(&t->lock);
	if (q.size)
		vmbus_receive(t->bus, q.connection, q.payload, q.size);
}

/* Only the loop takes messages, so the head stays where it is while the bus looks at it. */
static void deliver_messages(struct loop_work *work)
{
	struct hv_transport *t = from_member(work, struct hv_transport, messages_work);
	bool more = true;

	deliver_anew(t);
	for (unsigned int budget = QUEUE_MAX; more && budget; budget--) {
		struct queued *q;

		pthread_mutex_lock(&t->lock);
		q = t->count ? &t->queue[t->head] : NULL;
		pthread_mutex_unlock(&t->lock);
		if (!q || !vmbus_receive(t->bus, q->connection, q->payload, q->size))
			return; /* vmbus_room() is what comes before the next attempt */
		pthread_mutex_lock(&t->lock);
		t->head = (t->head + 1) % QUEUE_MAX;
		more = --t->count;
		pthread_mutex_unlock(&t->lock);
	}
	if (more)
		loop_post(&t->dev.vm->loop, work);
}

/* Any thread. */
static void room(void *opaque)
{
	struct hv_transport *t = opaque;

	loop_post(&t->dev.vm->loop, &t->room_work);
}

static void handle_room(struct loop_work *work)
{
	struct hv_transport *t = from_member(work, struct hv_transport, room_work);

	vmbus_room(t->bus);
	deliver_messages(&t->messages_work);
}

static int transport_send(void *opaque, unsigned int vp, unsigned int sint, const void *message, size_t size)
{
	struct hv_transport *t = opaque;

	return hv_post_message(t->dev.vm->hyperv, vp, sint, MESSAGE_TYPE, message, size);
}

static void transport_signal(void *opaque, unsigned int vp, unsigned int sint, unsigned int flag)
{
	struct hv_transport *t = opaque;

	/* A guest that does not listen has nothing to be told. */
	hv_signal_event(t->dev.vm->hyperv, vp, sint, flag);
}

static struct connection **find(struct hv_transport *t, uint32_t id)
{
	struct connection **c = &t->connections[id % BUCKETS];

	while (*c && (*c)->id != id)
		c = &(*c)->next;
	return c;
}

/* The last one to let go of a closed connection frees it. */
static void connection_put(struct connection *c)
{
	if (c->closed && !c->pending) {
		close(c->fd);
		free(c);
	}
}

static void arm(struct connection *c)
{
	struct io_uring_sqe *sqe = loop_sqe(&c->transport->dev.vm->loop, &c->poll_op);

	io_uring_prep_poll_multishot(sqe, c->fd, POLLIN);
	c->pending++;
}

static void signalled(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct connection *c = from_member(op, struct connection, poll_op);
	struct vmbus *bus = c->transport->bus;
	uint32_t id = c->id;

	if (!(cqe_flags & IORING_CQE_F_MORE)) {
		c->pending--;
		/* The kernel ends it when the completion queue is full, and may do so at other times. */
		if (!c->closed && res >= 0)
			arm(c);
	}
	if (c->closed)
		connection_put(c);
	else if (c->idle)
		return;
	else if (res < 0)
		log_line("vmbus: connection 0x%x: %s", id, strerror(-res));
	else
		vmbus_signalled(bus, id); /* may close c */
}

static void once_more(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct connection *c = from_member(op, struct connection, again_op);
	struct vmbus *bus = c->transport->bus;
	uint32_t id = c->id;

	(void)res;
	(void)cqe_flags;
	c->pending--;
	c->again = false;
	if (c->closed)
		connection_put(c);
	else if (!c->idle)
		vmbus_signalled(bus, id);
}

/* An operation that completes at once goes behind the completions that are there already. */
static void transport_again(void *opaque, uint32_t id)
{
	struct hv_transport *t = opaque;
	struct connection *c = *find(t, id);

	if (!c || c->idle || c->again)
		return;
	io_uring_prep_nop(loop_sqe(&t->dev.vm->loop, &c->again_op));
	c->again = true;
	c->pending++;
}

static int transport_connect(void *opaque, uint32_t id)
{
	struct hv_transport *t = opaque;
	struct connection **bucket = &t->connections[id % BUCKETS], *c;
	int ret;

	c = *find(t, id);
	if (c && !c->idle)
		return -EEXIST;
	if (c) {
		c->idle = false;
		t->idle--;
		return 0;
	}
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->transport = t;
	c->id = id;
	c->poll_op.fn = signalled;
	c->again_op.fn = once_more;
	c->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ret = c->fd < 0 ? -errno : hv_event_port_add(t->dev.vm->hyperv, id, c->fd);
	if (ret) {
		if (c->fd >= 0)
			close(c->fd);
		free(c);
		return ret;
	}
	c->next = *bucket;
	*bucket = c;
	arm(c);
	return 0;
}

static void end_connection(struct hv_transport *t, struct connection **link)
{
	struct connection *c = *link;

	*link = c->next;
	hv_event_port_remove(t->dev.vm->hyperv, c->id);
	c->closed = true;
	if (t->ended)
		c->pending = 0;
	else if (c->pending)
		loop_cancel(&t->dev.vm->loop, &c->poll_op);
	connection_put(c);
}

static void transport_disconnect(void *opaque, uint32_t id)
{
	struct hv_transport *t = opaque;
	struct connection **link = find(t, id);

	if (!*link || (*link)->idle)
		return;
	if (t->ended || t->idle == IDLE_MAX) {
		end_connection(t, link);
	} else {
		(*link)->idle = true;
		t->idle++;
	}
}

static void end_idle(struct hv_transport *t)
{
	for (size_t i = 0; i < BUCKETS; i++) {
		struct connection **link = &t->connections[i];

		while (*link) {
			if ((*link)->idle)
				end_connection(t, link);
			else
				link = &(*link)->next;
		}
	}
	t->idle = 0;
}

static void arm_monitor(struct hv_transport *t)
{
	loop_timer(&t->dev.vm->loop, &t->monitor_op, &t->monitor_ts, t->monitor_ns);
	t->monitor_armed = true;
}

static void look_at_monitor(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct hv_transport *t = from_member(op, struct hv_transport, monitor_op);

	(void)res;
	(void)cqe_flags;
	t->monitor_armed = false;
	if (t->monitor_ns)
		vmbus_monitor(t->bus); /* may be the end of it, or arm the timer */
	if (t->monitor_ns && !t->monitor_armed)
		arm_monitor(t);
}

/* A timer that is no longer wanted is not cancelled: it comes once more and finds nothing to do. */
static void transport_monitor(void *opaque, uint64_t ns)
{
	struct hv_transport *t = opaque;

	t->monitor_ns = ns;
	if (ns && !t->monitor_armed)
		arm_monitor(t);
}

static void *transport_map(void *opaque, uint64_t gpa, size_t size)
{
	struct hv_transport *t = opaque;

	return ram_ptr(&t->dev.vm->memory, gpa, size);
}

static void *transport_map_pages(void *opaque, const uint64_t *pfns, size_t count, bool twice)
{
	struct hv_transport *t = opaque;

	return ram_map_pages(&t->dev.vm->memory, pfns, count, twice ? 2 : 1);
}

static void transport_unmap_pages(void *opaque, void *address, size_t count, bool twice)
{
	struct hv_transport *t = opaque;

	ram_unmap_pages(&t->dev.vm->memory, address, count, twice ? 2 : 1);
}

static unsigned int transport_vps(void *opaque)
{
	return ((struct hv_transport *)opaque)->dev.vm->nr_vcpus;
}

static const struct vmbus_transport transport = {
	.send = transport_send,
	.signal = transport_signal,
	.connect = transport_connect,
	.disconnect = transport_disconnect,
	.again = transport_again,
	.monitor = transport_monitor,
	.map = transport_map,
	.map_pages = transport_map_pages,
	.unmap_pages = transport_unmap_pages,
	.vps = transport_vps,
};

static void transport_reset(struct device *dev)
{
	struct hv_transport *t = (struct hv_transport *)dev;

	pthread_mutex_lock(&t->lock);
	t->count = 0;
	t->anew.size = 0;
	pthread_mutex_unlock(&t->lock);
	vmbus_reset(t->bus);
	end_idle(t);
}

static void transport_destroy(struct device *dev)
{
	struct hv_transport *t = (struct hv_transport *)dev;

	t->ended = true;
	hv_set_room_listener(dev->vm->hyperv, NULL, NULL);
	vmbus_destroy(t->bus);
	end_idle(t);
	dev->vm->vmbus = NULL;
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static bool power_button(struct device *dev)
{
	return ic_shutdown_request(dev->vm, 0) == 0;
}

static void resumed(struct device *dev)
{
	ic_timesync_sync(dev->vm);
}

static const struct device_class transport_class = {
	.name = "vmbus",
	.reset = transport_reset,
	.power_button = power_button,
	.resumed = resumed,
	.destroy = transport_destroy,
	.aml_name = "VMOD",
	.build_aml = vmbus_build_aml,
	.build_fdt = vmbus_build_fdt,
};

int hv_transport_create(struct vm *vm)
{
	struct hv_transport *t = calloc(1, sizeof(*t));
	int ret = -ENOMEM;

	if (t)
		t->bus = vmbus_create(&transport, t);
	if (!t || !t->bus) {
		free(t);
		goto fail;
	}
	pthread_mutex_init(&t->lock, NULL);
	t->messages_work.fn = deliver_messages;
	t->room_work.fn = handle_room;
	t->monitor_op.fn = look_at_monitor;
	vm->vmbus = t->bus;
	device_register(vm, &t->dev, &transport_class);
	hv_set_room_listener(vm->hyperv, room, t);
	ret = hv_message_port_add(vm->hyperv, CONNECTION_MESSAGE, &message_ops, t);
	if (!ret)
		ret = hv_message_port_add(vm->hyperv, CONNECTION_MULTI, &message_ops, t);
	if (!ret)
		return 0;
fail:
	log_line("--vmbus: %s", strerror(-ret));
	return ret;
}
