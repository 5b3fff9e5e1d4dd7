/* SPDX-License-Identifier: MIT */
#include "devices/vhost-user/link.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const names[VHU_REQUESTS] = {
	[VHU_GET_FEATURES] = "GET_FEATURES",
	[VHU_SET_FEATURES] = "SET_FEATURES",
	[VHU_SET_OWNER] = "SET_OWNER",
	[VHU_SET_MEM_TABLE] = "SET_MEM_TABLE",
	[VHU_SET_VRING_NUM] = "SET_VRING_NUM",
	[VHU_SET_VRING_ADDR] = "SET_VRING_ADDR",
	[VHU_SET_VRING_BASE] = "SET_VRING_BASE",
	[VHU_GET_VRING_BASE] = "GET_VRING_BASE",
	[VHU_SET_VRING_KICK] = "SET_VRING_KICK",
	[VHU_SET_VRING_CALL] = "SET_VRING_CALL",
	[VHU_GET_PROTOCOL_FEATURES] = "GET_PROTOCOL_FEATURES",
	[VHU_SET_PROTOCOL_FEATURES] = "SET_PROTOCOL_FEATURES",
	[VHU_GET_QUEUE_NUM] = "GET_QUEUE_NUM",
	[VHU_SET_VRING_ENABLE] = "SET_VRING_ENABLE",
	[VHU_SET_BACKEND_REQ_FD] = "SET_BACKEND_REQ_FD",
	[VHU_GET_CONFIG] = "GET_CONFIG",
	[VHU_SET_CONFIG] = "SET_CONFIG",
	[VHU_GET_INFLIGHT_FD] = "GET_INFLIGHT_FD",
	[VHU_SET_INFLIGHT_FD] = "SET_INFLIGHT_FD",
	[VHU_RESET_DEVICE] = "RESET_DEVICE",
	[VHU_VRING_KICK] = "VRING_KICK",
	[VHU_GET_MAX_MEM_SLOTS] = "GET_MAX_MEM_SLOTS",
	[VHU_ADD_MEM_REG] = "ADD_MEM_REG",
	[VHU_REM_MEM_REG] = "REM_MEM_REG",
	[VHU_SET_STATUS] = "SET_STATUS",
	[VHU_GET_STATUS] = "GET_STATUS",
	[VHU_GET_SHMEM_CONFIG] = "GET_SHMEM_CONFIG",
};

const char *vhu_request_name(uint32_t request)
{
	return request < VHU_REQUESTS && names[request] ? names[request] : "an unknown request";
}

void vhu_link_init(struct vhu_link *link, void *opaque, uint64_t timeout_ns)
{
	memset(link, 0, sizeof(*link));
	vhu_channel_init(&link->channel, -1);
	link->opaque = opaque;
	link->timeout = timeout_ns;
}

void vhu_link_start(struct vhu_link *link, int fd)
{
	vhu_channel_init(&link->channel, fd);
	link->alive = true;
	link->reply_ack = false;
	link->sent = link->awaiting = false;
	link->deadline = 0;
	link->why[0] = '\0';
}

static void free_call(struct vhu_call *call)
{
	if (call->owns_fd)
		close(call->fds[0]);
	free(call);
}

/* Takes the first call off the queue; what its function asks for comes next. */
static void finish(struct vhu_link *link, struct vhu_message *reply, int status)
{
	struct vhu_call *call = link->first;

	link->first = call->next;
	link->sent = link->awaiting = false;
	link->deadline = 0;
	link->insert = &link->first;
	if (call->done)
		call->done(call->opaque, call, reply, status);
	link->insert = NULL;
	free_call(call);
}

static void end_link(struct vhu_link *link, const char *why)
{
	if (!link->alive)
		return;
	link->alive = false;
	snprintf(link->why, sizeof(link->why), "%s", why);
	vhu_channel_close(&link->channel);
}

void vhu_link_drop(struct vhu_link *link)
{
	struct vhu_call *call;

	end_link(link, "the end");
	while ((call = link->first)) {
		link->first = call->next;
		free_call(call);
	}
}

void vhu_link_stop(struct vhu_link *link, const char *why)
{
	end_link(link, why);
	/* A function that stops the link leaves the rest of the queue to those who called it. */
	while (link->first && !link->insert)
		finish(link, NULL, -EIO);
}

static void die(struct vhu_link *link, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void die(struct vhu_link *link, const char *fmt, ...)
{
	char why[sizeof(link->why)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	vhu_link_stop(link, why);
}

struct vhu_call *vhu_link_call(struct vhu_link *link, uint32_t request, const void *payload, uint32_t size)
{
	struct vhu_call *call = calloc(1, sizeof(*call)), **at = link->insert;

	if (!call) {
		die(link, "out of memory");
		return NULL;
	}
	call->request = request;
	call->opaque = link->opaque;
	call->size = size;
	if (size)
		memcpy(call->payload, payload, size);
	if (!at)
		for (at = &link->first; *at;)
			at = &(*at)->next;
	call->next = *at;
	*at = call;
	if (link->insert)
		link->insert = &call->next;
	return call;
}

static void send_next(struct vhu_link *link, uint64_t now)
{
	struct vhu_call *call = link->first;
	struct vhu_header h = { call->request, VHU_VERSION, call->size };
	int ret;

	if (!call->request) {
		finish(link, NULL, 0);
		return;
	}
	link->sent = true;
	link->deadline = now + link->timeout;
	link->awaiting = call->reply_max || (link->reply_ack && !call->plain);
	if (link->awaiting && !call->reply_max)
		h.flags |= VHU_NEED_REPLY;
	ret = vhu_channel_send(&link->channel, &h, call->payload, call->fds, call->nr_fds);
	if (ret && ret != -EAGAIN)
		die(link, "%s: %s", vhu_request_name(call->request),
		    ret == -EPIPE || ret == -ECONNRESET ? "the back-end closed the connection" : strerror(-ret));
	else if (!ret && !link->awaiting)
		finish(link, NULL, 0);
}

static void take_reply(struct vhu_link *link)
{
	struct vhu_message *m = &link->channel.in;
	const struct vhu_call *call = link->first;
	const char *name = vhu_request_name(call->request);
	bool own = call->reply_max, refused;
	uint32_t min = own ? call->reply_min : 8, max = own ? call->reply_max : 8;
	uint64_t value = 0;

	if (m->header.request != call->request || !(m->header.flags & VHU_REPLY)) {
		die(link, "%s: the reply is not one to it", name);
		return;
	}
	if ((m->header.size < min || m->header.size > max) && !(own && call->may_fail && !m->header.size)) {
		die(link, "%s: the reply has %u bytes", name, m->header.size);
		return;
	}
	if (!own)
		memcpy(&value, m->payload, sizeof(value));
	refused = own ? m->header.size < min : value != 0;
	if (refused && !call->may_fail)
		die(link, "%s: the back-end refuses (error %llu)", name, (unsigned long long)value);
	else
		finish(link, own ? m : NULL, refused ? -EREMOTEIO : 0);
}

/* One message, if a whole one has come. */
static bool receive(struct vhu_link *link)
{
	const char *name = link->sent && link->first ? vhu_request_name(link->first->request) : NULL, *why = "";
	int ret = vhu_channel_receive(&link->channel, &why);

	if (ret > 0 && link->awaiting && !vhu_channel_sending(&link->channel)) {
		take_reply(link);
		if (link->channel.fd >= 0)
			vhu_channel_done(&link->channel);
		return true;
	}
	if (!ret)
		return false;
	if (ret == -EPROTO && name && link->channel.in.header.size > VHU_PAYLOAD_MAX) {
		die(link, "%s: the reply has %u bytes", name, link->channel.in.header.size);
		return false;
	}
	if (ret > 0)
		why = "the back-end says what nobody asked for";
	else if (ret == -EPROTO && name)
		why = "the reply is not one to it";
	else if (ret != -EPROTO)
		why = ret == -ECONNRESET ? "the back-end closed the connection" : strerror(-ret);
	die(link, "%s%s%s", name ? name : "", name ? ": " : "", why);
	return false;
}

static bool flush(struct vhu_link *link)
{
	int ret = vhu_channel_flush(&link->channel);

	if (ret == -EAGAIN)
		return false;
	if (ret)
		die(link, "%s: %s", vhu_request_name(link->first->request),
		    ret == -EPIPE || ret == -ECONNRESET ? "the back-end closed the connection" : strerror(-ret));
	else if (!link->awaiting)
		finish(link, NULL, 0);
	return !ret;
}

static bool step(struct vhu_link *link, uint64_t now)
{
	bool any = false;

	if (link->first && !link->sent) {
		send_next(link, now);
		any = true;
	} else if (vhu_channel_sending(&link->channel)) {
		any = flush(link);
	}
	/* Also while nothing is under way: the stream may have ended. */
	if (link->alive && receive(link))
		any = true;
	return any;
}

short vhu_link_run(struct vhu_link *link, uint64_t now)
{
	/* From inside of a function: whoever called it goes on. */
	if (link->busy)
		return POLLIN;
	link->busy = true;
	while (link->alive && step(link, now))
		;
	if (link->alive && link->deadline && now >= link->deadline)
		die(link, "%s: the back-end does not reply", vhu_request_name(link->first->request));
	while (!link->alive && link->first)
		finish(link, NULL, -EIO);
	link->busy = false;
	if (!link->alive)
		return 0;
	return (short)(POLLIN | (vhu_channel_sending(&link->channel) ? POLLOUT : 0));
}
