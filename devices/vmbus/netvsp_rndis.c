/* SPDX-License-Identifier: MIT */
/* RNDIS control messages: initialise, query, set, reset, keepalive, halt, and what we tell unasked. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/vmbus/netvsp_internal.h"

#define MAX_PACKETS	8	/* frames in one message, as Hyper-V has it */
#define MAX_TRANSFER	0x4000u /* its size; a larger frame goes alone */
#define ALIGNMENT_SHIFT 3

void netvsp_forget_control(struct netvsp *dev)
{
	struct netvsp_control *next;

	for (struct netvsp_control *c = dev->control_first; c; c = next) {
		next = c->next;
		free(c);
	}
	dev->control_first = NULL;
	dev->control_last = &dev->control_first;
	dev->control_count = 0;
}

void netvsp_rndis_reset(struct netvsp *dev)
{
	netvsp_forget_control(dev);
	dev->initialized = false;
	dev->filter = 0;
	dev->multicasts = 0;
	dev->rss = false;
	dev->rss_entries = 0;
	dev->offload = 0;
	memcpy(dev->mac, dev->permanent_mac, sizeof(dev->mac));
	if (dev->net->ops->set_offload)
		dev->net->ops->set_offload(dev->net, 0);
}

void netvsp_send_pending_control(struct netvsp *dev)
{
	struct netvsp_control *c;

	while ((c = dev->control_first)) {
		int ret = netvsp_rx_control(dev, c->message, c->size);

		/* A close has freed the list; a channel that is about to be closed will. */
		if (ret == -EAGAIN || ret == -ENOTCONN)
			return;
		dev->control_first = c->next;
		if (!c->next)
			dev->control_last = &dev->control_first;
		dev->control_count--;
		free(c);
	}
}

/* Messages keep their order. 0, also when the channel is no more; -errno: the guest reads nothing. */
static int send_control(struct netvsp *dev, const void *message, size_t size)
{
	struct netvsp_control *c;
	int ret = dev->control_first ? -EAGAIN : netvsp_rx_control(dev, message, size);

	if (ret != -EAGAIN)
		return ret == -ENOTCONN && !dev->slots && netvsp_channel_at(dev, 0) ? -EPROTO : 0;
	if (dev->control_count == NETVSP_CONTROL_PENDING)
		return -ENOBUFS;
	c = malloc(sizeof(*c) + size);
	if (!c)
		return -ENOMEM;
	c->next = NULL;
	c->size = size;
	memcpy(c->message, message, size);
	*dev->control_last = c;
	dev->control_last = &c->next;
	dev->control_count++;
	return 0;
}

void netvsp_indicate(struct netvsp *dev, uint32_t status)
{
	struct {
		struct rndis_header header;
		struct rndis_indicate body;
	} message = {
		.header = { RNDIS_INDICATE, sizeof(message) },
		.body = { .status = status },
	};
	struct netvsp_channel *nc = netvsp_channel_at(dev, 0);

	send_control(dev, &message, sizeof(message));
	if (nc && nc->open)
		vmbus_flush(nc->channel);
}

static int answer(struct netvsp *dev, uint32_t type, const void *body, size_t size)
{
	uint8_t message[64];
	const struct rndis_header header = { type | RNDIS_COMPLETE, (uint32_t)(sizeof(header) + size) };

	memcpy(message, &header, sizeof(header));
	memcpy(message + sizeof(header), body, size);
	return send_control(dev, message, sizeof(header) + size);
}

static int initialize(struct netvsp *dev, const uint8_t *body, size_t size)
{
	struct rndis_initialize request;
	struct rndis_initialize_complete done = {
		.status = RNDIS_STATUS_SUCCESS,
		.major = 1,
		.device_flags = 1, /* connectionless */
		.medium = 0,	   /* 802.3 */
		.max_packets = MAX_PACKETS,
		.max_transfer = MAX_TRANSFER,
		.alignment = ALIGNMENT_SHIFT,
	};

	if (size < sizeof(request))
		return -EPROTO;
	memcpy(&request, body, sizeof(request));
	netvsp_rndis_reset(dev);
	dev->initialized = true;
	dev->link_told = netvsp_link(dev);
	done.request = request.request;
	return answer(dev, RNDIS_INITIALIZE, &done, sizeof(done));
}

/* The information buffer of a query or set; false: it is not inside the message. */
static bool find_information(const uint8_t *body, size_t size, const struct rndis_query *request, const uint8_t **info)
{
	*info = body;
	if (!request->length)
		return true;
	if (request->offset > size || request->length > size - request->offset)
		return false;
	*info = body + request->offset;
	return true;
}

static int query(struct netvsp *dev, const uint8_t *body, size_t size)
{
	struct {
		struct rndis_header header;
		struct rndis_query_complete body;
		uint8_t info[1024];
	} message = { .header.type = RNDIS_QUERY | RNDIS_COMPLETE };
	struct rndis_query request;
	const uint8_t *info;
	size_t length = sizeof(message.info);

	if (size < sizeof(request))
		return -EPROTO;
	memcpy(&request, body, sizeof(request));
	message.body.request = request.request;
	message.body.status = RNDIS_STATUS_INVALID_DATA;
	if (find_information(body, size, &request, &info))
		message.body.status = netvsp_query(dev, request.oid, info, request.length, message.info, &length);
	if (message.body.status == RNDIS_STATUS_SUCCESS) {
		message.body.length = (uint32_t)length;
		message.body.offset = sizeof(message.body);
	} else {
		length = 0;
	}
	message.header.length = (uint32_t)(sizeof(message.header) + sizeof(message.body) + length);
	return send_control(dev, &message, message.header.length);
}

static int set(struct netvsp *dev, const uint8_t *body, size_t size)
{
	struct rndis_status_complete done = { .status = RNDIS_STATUS_INVALID_DATA };
	struct rndis_query request;
	const uint8_t *info;

	if (size < sizeof(request))
		return -EPROTO;
	memcpy(&request, body, sizeof(request));
	done.request = request.request;
	if (find_information(body, size, &request, &info))
		done.status = netvsp_set(dev, request.oid, info, request.length);
	return answer(dev, RNDIS_SET, &done, sizeof(done));
}

static int keepalive(struct netvsp *dev, const uint8_t *body, size_t size)
{
	struct rndis_status_complete done = { .status = RNDIS_STATUS_SUCCESS };

	if (size < sizeof(done.request))
		return -EPROTO;
	memcpy(&done.request, body, sizeof(done.request));
	return answer(dev, RNDIS_KEEPALIVE, &done, sizeof(done));
}

/* What was set is gone, and the guest is told so (addressing). */
static int reset(struct netvsp *dev)
{
	const struct rndis_reset_complete done = { .status = RNDIS_STATUS_SUCCESS, .addressing = 1 };

	dev->filter = 0;
	dev->multicasts = 0;
	return answer(dev, RNDIS_RESET, &done, sizeof(done));
}

int netvsp_control(struct netvsp *dev, const uint8_t *message, size_t size)
{
	struct rndis_header header;

	if (size < sizeof(header))
		return -EPROTO;
	memcpy(&header, message, sizeof(header));
	if (header.length < sizeof(header) || header.length > size)
		return -EPROTO;
	message += sizeof(header);
	size = header.length - sizeof(header);
	switch (header.type) {
	case RNDIS_INITIALIZE:
		return initialize(dev, message, size);
	case RNDIS_HALT: /* has no answer */
		netvsp_rndis_reset(dev);
		return 0;
	case RNDIS_QUERY:
		return query(dev, message, size);
	case RNDIS_SET:
		return set(dev, message, size);
	case RNDIS_RESET:
		return reset(dev);
	case RNDIS_KEEPALIVE:
		return keepalive(dev, message, size);
	default: /* answers to what we never ask, and what nobody knows */
		return 0;
	}
}
