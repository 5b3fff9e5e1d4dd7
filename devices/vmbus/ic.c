/* SPDX-License-Identifier: MIT */
/*
 * The framework of the integration services: negotiation, one request at a time, answers, timeouts.
 *
 * A request that is not answered in time is reported to the service, yet it may lie unread in the guest's ring, or in
 * the only buffer of its driver. Old drivers read one message an interrupt, and we interrupt only when the ring was
 * empty: a second message behind the first might never be seen. So the request stays "abandoned", nothing else is
 * sent until its late answer has come, and then the service may go on. Should a driver have lost it for good, we give
 * it up after a minute and send the next one, so that no guest is cut off for ever and none is flooded.
 *
 * A guest may break the ring so that the very sending of a request closes the channel. The service is told of that by
 * the loop, later, as of any other close: no done() and no down() comes out of ic_request().
 *
 * Negotiation has no time limit: until the answer comes there is nothing to do, and no timer runs.
 */
#include "devices/vmbus/ic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/log.h"
#include "vmm/vm.h"

#define GIVE_UP_NS (60 * 1000000000ULL)
#define IC_HEADERS (sizeof(struct ic_pipe_header) + sizeof(struct ic_header))

/* Of the framework; Linux: UTIL_WS2K8_FW_VERSION and UTIL_FW_VERSION. */
static const struct ic_version frameworks[] = { { 1, 0 }, { 3, 0 } };
#define NR_FRAMEWORKS (sizeof(frameworks) / sizeof(frameworks[0]))

static struct ic *ic_of(const struct vmbus_channel *channel)
{
	return (struct ic *)vmbus_channel_device(channel);
}

/* ---- Timers ---- */

static void arm(struct ic_timer *timer, uint64_t now)
{
	uint64_t ns = timer->due > now ? timer->due - now : 0;

	timer->fires = timer->due;
	timer->ic->timers++;
	loop_timer(&timer->ic->vm->loop, &timer->op, &timer->ts, ns);
}

static void timer_ended(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct ic_timer *timer = (struct ic_timer *)((char *)op - offsetof(struct ic_timer, op));
	struct ic *ic = timer->ic;
	uint64_t now = clock_ns();

	(void)res;
	(void)cqe_flags;
	timer->fires = 0;
	timer->cancelling = false;
	ic->timers--;
	if (ic->dying) {
		if (!ic->timers)
			free(ic);
		return;
	}
	if (!timer->due)
		return;
	if (timer->due > now) {
		arm(timer, now);
		return;
	}
	timer->due = 0;
	timer->expired(ic);
}

void ic_timer_init(struct ic_timer *timer, struct ic *ic, void (*expired)(struct ic *ic))
{
	*timer = (struct ic_timer){ .op.fn = timer_ended, .ic = ic, .expired = expired, .next = ic->all_timers };
	ic->all_timers = timer;
}

/* A request in the loop's ring that ends too early is set again when it ends, one that ends too late is cancelled. */
void ic_timer_set(struct ic_timer *timer, uint64_t ns)
{
	uint64_t now = clock_ns();

	timer->due = now + ns;
	if (!timer->fires) {
		arm(timer, now);
	} else if (timer->due < timer->fires && !timer->cancelling) {
		timer->cancelling = true;
		loop_cancel(&timer->ic->vm->loop, &timer->op);
	}
}

void ic_timer_stop(struct ic_timer *timer)
{
	timer->due = 0;
	if (timer->fires && !timer->cancelling) {
		timer->cancelling = true;
		loop_cancel(&timer->ic->vm->loop, &timer->op);
	}
}

/* ---- To the guest ---- */

/* Sends what is in out, now or when there is room. */
static int send_out(struct ic *ic)
{
	int ret = vmbus_send(ic->device.channel, VMBUS_PACKET_INBAND, 0, ic->transaction, ic->out, ic->out_size);

	ic->unsent = ret == -EAGAIN;
	return ic->unsent ? 0 : ret;
}

static void build(struct ic *ic, uint16_t type, const void *body, size_t size)
{
	const struct ic_header header = {
		.framework = ic->framework,
		.type = type,
		.message = ic->message,
		.size = (uint16_t)size,
		.transaction = ic->transaction,
		.flags = IC_FLAG_TRANSACTION | IC_FLAG_REQUEST,
	};
	const struct ic_pipe_header pipe = { IC_PIPE_DATA, (uint32_t)(sizeof(header) + size) };

	memcpy(ic->out, &pipe, sizeof(pipe));
	memcpy(ic->out + sizeof(pipe), &header, sizeof(header));
	if (size)
		memcpy(ic->out + IC_HEADERS, body, size);
	ic->out_size = IC_HEADERS + size;
}

static int send_negotiate(struct ic *ic)
{
	const struct ic_class *class = ic->class;
	struct {
		struct ic_negotiate counts;
		struct ic_version versions[NR_FRAMEWORKS + IC_VERSIONS_MAX];
	} body = { .counts = { NR_FRAMEWORKS, (uint16_t) class->nr_versions, 0 } };
	size_t size = sizeof(body.counts) + (NR_FRAMEWORKS + class->nr_versions) * sizeof(struct ic_version);

	memcpy(body.versions, frameworks, sizeof(frameworks));
	memcpy(body.versions + NR_FRAMEWORKS, class->versions, class->nr_versions * sizeof(struct ic_version));
	build(ic, IC_TYPE_NEGOTIATE, &body, size);
	return send_out(ic);
}

int ic_request(struct ic *ic, const void *body, size_t size, uint64_t timeout_ns, ic_done *done)
{
	uint64_t now = clock_ns();
	int ret;

	if (ic->state != IC_UP)
		return -ENOTCONN;
	if (size > IC_BODY_MAX)
		return -EMSGSIZE;
	if (ic->waiting || (ic->abandoned && now - ic->sent_ns < GIVE_UP_NS))
		return -EBUSY;
	ic->abandoned = false;
	ic->transaction++;
	build(ic, ic->class->type, body, size);
	ic->sending = true;
	ret = send_out(ic);
	ic->sending = false;
	if (ret == -EMSGSIZE)
		return ret;
	ic->broken = ret != 0;
	if (!ret)
		vmbus_flush(ic->device.channel);
	ic->waiting = true;
	ic->sent_ns = now;
	ic->done = done;
	ic->requests++;
	if (timeout_ns || ic->broken)
		ic_timer_set(&ic->timer, ic->broken ? 0 : timeout_ns);
	return 0;
}

static void end_request(struct ic *ic, int error, uint32_t status, const void *body, size_t size)
{
	ic->waiting = false;
	ic_timer_stop(&ic->timer);
	ic->done(ic, error, status, body, size);
}

static void go_down(struct ic *ic)
{
	bool was_up = ic->state == IC_UP;

	ic->state = IC_CLOSED;
	ic->framework = ic->message = (struct ic_version){ 0, 0 };
	ic->abandoned = false;
	ic->unsent = false;
	ic->broken = false;
	if (ic->waiting)
		end_request(ic, -ECONNRESET, 0, NULL, 0);
	if (was_up && ic->class->down)
		ic->class->down(ic);
}

static void request_timed_out(struct ic *ic)
{
	if (ic->broken) {
		go_down(ic);
		return;
	}
	ic->timeouts++;
	ic->abandoned = !ic->unsent;
	ic->unsent = false;
	end_request(ic, -ETIMEDOUT, 0, NULL, 0);
}

/* ---- From the guest ---- */

static bool known(const struct ic_version *versions, size_t count, const struct ic_version *version)
{
	for (size_t i = 0; i < count; i++)
		if (versions[i].major == version->major && versions[i].minor == version->minor)
			return true;
	return false;
}

static int negotiated(struct ic *ic, const uint8_t *body, size_t size)
{
	struct ic_negotiate counts;
	struct ic_version chosen[2] = { 0 };

	if (size < sizeof(counts))
		return -EPROTO;
	memcpy(&counts, body, sizeof(counts));
	/* No match: a guest answers with counts of zero. */
	if (counts.frameworks == 1 && counts.messages == 1) {
		if (size < sizeof(counts) + sizeof(chosen))
			return -EPROTO;
		memcpy(chosen, body + sizeof(counts), sizeof(chosen));
	}
	if (!known(frameworks, NR_FRAMEWORKS, &chosen[0]) ||
	    !known(ic->class->versions, ic->class->nr_versions, &chosen[1])) {
		ic->state = IC_REFUSED;
		if (!ic->told)
			log_line("vmbus: %s: the guest knows none of the versions offered", ic->class->device.name);
		ic->told = true;
		return 0;
	}
	ic->framework = chosen[0];
	ic->message = chosen[1];
	ic->state = IC_UP;
	if (ic->class->up)
		ic->class->up(ic);
	return 0;
}

static int answered(struct ic *ic, const struct ic_header *header, const uint8_t *body)
{
	bool expected = (header->flags & IC_FLAG_RESPONSE) && header->transaction == ic->transaction && !ic->unsent &&
			!ic->broken;

	if (expected && ic->state == IC_NEGOTIATING && header->type == IC_TYPE_NEGOTIATE)
		return negotiated(ic, body, header->size);
	if (expected && header->type == ic->class->type && ic->waiting) {
		ic->answers++;
		end_request(ic, 0, header->status, body, header->size);
	} else if (expected && header->type == ic->class->type && ic->abandoned) {
		ic->abandoned = false;
		if (ic->class->idle)
			ic->class->idle(ic);
	} else {
		ic->strays++;
	}
	return 0;
}

/* The packet is a copy of the bus's, so it can be looked at in place. */
static int parse(struct ic *ic, const struct vmbus_packet *packet)
{
	const uint8_t *payload = packet->payload;
	struct ic_pipe_header pipe;
	struct ic_header header;

	if (packet->type != VMBUS_PACKET_INBAND || packet->size < IC_HEADERS)
		return -EPROTO;
	memcpy(&pipe, payload, sizeof(pipe));
	memcpy(&header, payload + sizeof(pipe), sizeof(header));
	if (pipe.type != IC_PIPE_DATA || pipe.size < sizeof(header) || pipe.size > packet->size - sizeof(pipe) ||
	    header.size > pipe.size - sizeof(header))
		return -EPROTO;
	return answered(ic, &header, payload + IC_HEADERS);
}

int ic_packet(struct vmbus_channel *channel, const struct vmbus_packet *packet)
{
	struct ic *ic = ic_of(channel);
	int ret = parse(ic, packet);

	if (ret)
		go_down(ic);
	return ret;
}

void ic_room(struct vmbus_channel *channel)
{
	struct ic *ic = ic_of(channel);

	if (ic->unsent && send_out(ic))
		go_down(ic);
}

/* ---- Channel and device ---- */

int ic_open(struct vmbus_channel *channel)
{
	struct ic *ic = ic_of(channel);
	int ret;

	go_down(ic); /* if it is still to be told that the last channel broke */
	ic->transaction++;
	ret = send_negotiate(ic);
	if (ret)
		return ret;
	ic->state = IC_NEGOTIATING;
	vmbus_flush(channel);
	return 0;
}

void ic_close(struct vmbus_channel *channel)
{
	struct ic *ic = ic_of(channel);

	if (!ic->sending)
		go_down(ic);
}

void ic_reset(struct vmbus_device *device)
{
	go_down((struct ic *)device);
}

void ic_destroy(struct vmbus_device *device)
{
	struct ic *ic = (struct ic *)device;

	if (ic->class->destroy)
		ic->class->destroy(ic);
	/* The ring of a loop that has ended calls nobody; otherwise it still has the addresses of our timers. */
	if (!ic->timers || ic->vm->loop.stopping) {
		free(ic);
		return;
	}
	ic->dying = true;
	for (struct ic_timer *timer = ic->all_timers; timer; timer = timer->next)
		ic_timer_stop(timer);
}

int ic_add(struct vm *vm, struct ic *ic, const struct ic_class *class)
{
	int ret = -ENOMEM;

	if (ic) {
		ic->class = class;
		ic->vm = vm;
		ic_timer_init(&ic->timer, ic, request_timed_out);
		ret = vmbus_add_device(vm->vmbus, &ic->device, &class->device, NULL);
	}
	if (ret) {
		log_line("vmbus: %s: %s", class->device.name, strerror(-ret));
		free(ic);
	}
	return ret;
}

bool ic_at_least(const struct ic *ic, uint16_t major, uint16_t minor)
{
	return ic->state == IC_UP &&
	       (ic->message.major > major || (ic->message.major == major && ic->message.minor >= minor));
}

struct ic *ic_find(const struct vm *vm, const char *name)
{
	struct vmbus_device *device = vm->vmbus ? vmbus_find_device(vm->vmbus, name) : NULL;

	return device && device->class->destroy == ic_destroy ? (struct ic *)device : NULL;
}

const char *ic_state_name(const struct ic *ic)
{
	static const char *const names[] = {
		[IC_CLOSED] = "closed",
		[IC_NEGOTIATING] = "negotiating",
		[IC_REFUSED] = "refused",
		[IC_UP] = "up",
	};

	return names[ic->state];
}
