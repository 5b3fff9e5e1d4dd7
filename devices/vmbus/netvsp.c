/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * A card is a device with one channel and, if the guest asks for them, subchannels: further pairs of rings that share
 * everything else. The guest first agrees on a version (NVSP), then lends two buffers: one into which frames for it are
 * put, which we divide into slots of one size, and one from which it may send small frames. All else is RNDIS, whose
 * control messages (netvsp_rndis.c, netvsp_oid.c) and frames (netvsp_tx.c, netvsp_rx.c) travel the same way.
 *
 * A slot is ours until a packet with it is on the ring, and then the guest's until it completes that packet. The
 * back-end's calls never leave anything under way (devices/net/net.h), so buffers can be let go of at any time: by
 * REVOKE, a close or a reset.
 *
 * The struct of a channel is kept when it closes, since a close may come from within any vmbus_send(): whoever has
 * called that looks at nc->open before it goes on. A close of the primary channel frees the slots.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "devices/vmbus/netvsp_internal.h"

#define MDL_CHAIN_MAX 34 /* what Hyper-V says */

size_t netvsp_message_size(const struct netvsp *dev)
{
	return dev->version >= NVSP_V6_1 ? NVSP_MESSAGE_SIZE_V6_1 : NVSP_MESSAGE_SIZE;
}

struct netvsp_channel *netvsp_channel_at(struct netvsp *dev, unsigned int index)
{
	struct netvsp_channel *nc = index < NET_QUEUES_MAX ? dev->channels[index] : NULL;

	return nc && nc->open ? nc : NULL;
}

static int complete(struct netvsp_channel *nc, const struct vmbus_packet *packet, const struct nvsp_message *message)
{
	int ret;

	if (!(packet->flags & VMBUS_PACKET_COMPLETION_REQUESTED))
		return 0;
	ret = vmbus_send(nc->channel, VMBUS_PACKET_COMPLETION, 0, packet->transaction, message,
			 netvsp_message_size(nc->dev));
	/* A guest waits for the answer to each of these before it sends the next. */
	return ret == -EAGAIN ? -EPROTO : ret == -ENOTCONN ? 0 : ret;
}

/* ---- The guest's buffers ---- */

static void put_buffer(struct netvsp_buffer *buffer)
{
	if (buffer->gpadl)
		vmbus_gpadl_put(buffer->gpadl);
	free(buffer->pages);
	*buffer = (struct netvsp_buffer){ .gpadl = NULL };
}

static int get_buffer(struct netvsp_channel *nc, struct netvsp_buffer *buffer, const struct nvsp_message *message)
{
	size_t size, count;

	if (buffer->gpadl)
		return -EEXIST;
	buffer->gpadl = vmbus_gpadl_get(nc->channel, message->buffer.gpadl);
	if (!buffer->gpadl)
		return -ENOENT;
	size = vmbus_gpadl_size(buffer->gpadl);
	count = size / NETVSP_PAGE;
	if (size % NETVSP_PAGE || !count || count > NETVSP_BUFFER_PAGES)
		goto fail;
	buffer->pages = calloc(count, sizeof(buffer->pages[0]));
	if (!buffer->pages || vmbus_gpadl_map(buffer->gpadl, buffer->pages, count) < 0)
		goto fail;
	buffer->size = size;
	buffer->id = message->buffer.id;
	return 0;
fail:
	put_buffer(buffer);
	return -EINVAL;
}

void netvsp_forget_receive_buffer(struct netvsp *dev)
{
	for (unsigned int i = 0; i < NET_QUEUES_MAX; i++)
		if (dev->channels[i])
			netvsp_rx_forget(dev->channels[i]);
	put_buffer(&dev->receive);
	free(dev->slots);
	dev->slots = NULL;
	dev->slot_count = dev->free_count = 0;
	dev->first_free = NO_SLOT;
}

static int receive_buffer(struct netvsp_channel *nc, const struct vmbus_packet *packet,
			  const struct nvsp_message *message)
{
	struct netvsp *dev = nc->dev;
	struct nvsp_message answer = { .type = NVSP_RECEIVE_BUFFER_COMPLETE };
	int ret = get_buffer(nc, &dev->receive, message);

	if (!ret) {
		ret = netvsp_make_slots(dev);
		if (ret)
			netvsp_forget_receive_buffer(dev);
	}
	answer.receive_buffer_complete.status = ret ? NVSP_STATUS_FAIL : NVSP_STATUS_SUCCESS;
	if (!ret) {
		answer.receive_buffer_complete.sections = 1;
		answer.receive_buffer_complete.size = dev->slot_size;
		answer.receive_buffer_complete.count = dev->slot_count;
		answer.receive_buffer_complete.end = dev->slot_size * dev->slot_count;
	}
	return complete(nc, packet, &answer);
}

static int send_buffer(struct netvsp_channel *nc, const struct vmbus_packet *packet, const struct nvsp_message *message)
{
	struct nvsp_message answer = { .type = NVSP_SEND_BUFFER_COMPLETE };
	int ret = get_buffer(nc, &nc->dev->send, message);

	answer.send_buffer_complete.status = ret ? NVSP_STATUS_FAIL : NVSP_STATUS_SUCCESS;
	answer.send_buffer_complete.section_size = ret ? 0 : NETVSP_SECTION_SIZE;
	return complete(nc, packet, &answer);
}

static int revoke(struct netvsp_channel *nc, const struct vmbus_packet *packet, const struct nvsp_message *message)
{
	struct netvsp *dev = nc->dev;

	if (message->type == NVSP_REVOKE_RECEIVE_BUFFER) {
		netvsp_forget_receive_buffer(dev);
	} else {
		for (unsigned int i = 0; i < NET_QUEUES_MAX; i++)
			if (dev->channels[i])
				netvsp_tx_forget(dev->channels[i]);
		put_buffer(&dev->send);
	}
	return complete(nc, packet, &(struct nvsp_message){ .type = 0 });
}

/* ---- Messages ---- */

static int init(struct netvsp_channel *nc, const struct vmbus_packet *packet, const struct nvsp_message *message)
{
	static const uint32_t versions[] = { NVSP_V6_1, NVSP_V6, NVSP_V5, NVSP_V4, NVSP_V2, NVSP_V1 };
	struct nvsp_message answer = { .type = NVSP_INIT_COMPLETE };
	uint32_t version = 0;

	if (nc->dev->receive.gpadl || nc->dev->send.gpadl)
		return -EPROTO;
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]) && !version; i++)
		if (versions[i] >= message->init.min && versions[i] <= message->init.max)
			version = versions[i];
	answer.init_complete.version = version;
	answer.init_complete.max_mdl_chain = MDL_CHAIN_MAX;
	answer.init_complete.status = version ? NVSP_STATUS_SUCCESS : NVSP_STATUS_FAIL;
	nc->dev->version = version;
	nc->dev->frame_max = PACKET_ETH + 1500;
	return complete(nc, packet, &answer);
}

static int ndis_config(struct netvsp_channel *nc, const struct vmbus_packet *packet, const struct nvsp_message *message)
{
	nc->dev->frame_max = message->ndis_config.mtu;
	return complete(nc, packet, &(struct nvsp_message){ .type = 0 });
}

static int subchannels(struct netvsp_channel *nc, const struct vmbus_packet *packet, const struct nvsp_message *message)
{
	struct netvsp *dev = nc->dev;
	struct nvsp_message answer = { .type = NVSP_SUBCHANNEL };
	unsigned int count = message->subchannel.count;
	int ret;

	if (count > dev->max_channels - 1)
		count = dev->max_channels - 1;
	answer.subchannel_complete.status = NVSP_STATUS_FAIL;
	if (dev->version >= NVSP_V5 && message->subchannel.operation == NVSP_SUBCHANNEL_ALLOC && count &&
	    !dev->subchannels) {
		answer.subchannel_complete.status = NVSP_STATUS_SUCCESS;
		answer.subchannel_complete.count = count;
	}
	ret = complete(nc, packet, &answer);
	if (ret || answer.subchannel_complete.status != NVSP_STATUS_SUCCESS || !nc->open)
		return ret;
	/* Those that cannot be offered a guest waits for without a limit: a failure ends the channel. */
	if (vmbus_offer_subchannels(&dev->device, count))
		return -ENOSPC;
	dev->subchannels = count;
	return 0;
}

/* Which channel the guest shall send a flow on. Sent once all subchannels are open, so none is named that is not. */
static void send_table(struct netvsp *dev)
{
	struct netvsp_channel *primary = netvsp_channel_at(dev, 0);
	struct nvsp_send_table table = {
		.type = NVSP_SEND_TABLE,
		.count = NVSP_SEND_TABLE_SIZE,
		.offset = offsetof(struct nvsp_send_table, channel),
	};

	if (!primary)
		return;
	for (unsigned int i = 0; i < NVSP_SEND_TABLE_SIZE; i++)
		table.channel[i] = i % dev->open_channels;
	/* It is advice: a ring without room does without it. */
	vmbus_send(primary->channel, VMBUS_PACKET_INBAND, 0, 0, &table, sizeof(table));
	vmbus_flush(primary->channel);
}

static int other(struct netvsp_channel *nc, const struct vmbus_packet *packet, const struct nvsp_message *message)
{
	struct nvsp_message answer = { .type = message->type };

	switch (message->type) {
	case NVSP_NDIS_VERSION:
	case NVSP_SWITCH_DATA_PATH: /* there is one path; the guest says it uses it */
		return complete(nc, packet, &answer);
	case NVSP_OID_QUERY_EX:
		answer.type = NVSP_OID_QUERY_EX_COMPLETE;
		answer.words[0] = NVSP_STATUS_UNSUPPORTED;
		return complete(nc, packet, &answer);
	default:
		answer.words[0] = NVSP_STATUS_UNSUPPORTED;
		return complete(nc, packet, &answer);
	}
}

static int in_band(struct netvsp_channel *nc, const struct vmbus_packet *packet, const struct nvsp_message *message)
{
	if (nc->index || (!nc->dev->version && message->type != NVSP_INIT))
		return -EPROTO;
	switch (message->type) {
	case NVSP_INIT:
		return init(nc, packet, message);
	case NVSP_NDIS_CONFIG:
		return ndis_config(nc, packet, message);
	case NVSP_RECEIVE_BUFFER:
		return receive_buffer(nc, packet, message);
	case NVSP_SEND_BUFFER:
		return send_buffer(nc, packet, message);
	case NVSP_REVOKE_RECEIVE_BUFFER:
	case NVSP_REVOKE_SEND_BUFFER:
		return revoke(nc, packet, message);
	case NVSP_SUBCHANNEL:
		return subchannels(nc, packet, message);
	default:
		return other(nc, packet, message);
	}
}

static int packet_arrived(struct vmbus_channel *channel, const struct vmbus_packet *packet)
{
	struct netvsp_channel *nc = vmbus_channel_opaque(channel);
	struct nvsp_message message = { .type = 0 };

	if (packet->type == VMBUS_PACKET_COMPLETION) {
		netvsp_rx_completed(nc, packet->transaction);
		return 0;
	}
	if ((packet->type != VMBUS_PACKET_INBAND && packet->type != VMBUS_PACKET_GPA_DIRECT) || packet->size < 8)
		return -EPROTO;
	memcpy(&message, packet->payload, packet->size < sizeof(message) ? packet->size : sizeof(message));
	if (message.type == NVSP_RNDIS)
		return nc->dev->version ? netvsp_tx(nc, packet, &message) : -EPROTO;
	return packet->type == VMBUS_PACKET_INBAND ? in_band(nc, packet, &message) : -EPROTO;
}

static void batch_end(struct vmbus_channel *channel)
{
	struct netvsp_channel *nc = vmbus_channel_opaque(channel);

	netvsp_tx_flush(nc);
	if (nc->open)
		netvsp_rx_resume(nc->dev);
}

static void room(struct vmbus_channel *channel)
{
	struct netvsp_channel *nc = vmbus_channel_opaque(channel);

	netvsp_send_done(nc);
	if (nc->open && !nc->index)
		netvsp_send_pending_control(nc->dev);
	if (nc->open)
		netvsp_rx_room(nc);
}

/* ---- Channels ---- */

static int open_channel(struct vmbus_channel *channel)
{
	struct netvsp *dev = (struct netvsp *)vmbus_channel_device(channel);
	unsigned int index = vmbus_channel_index(channel);
	struct netvsp_channel *nc;

	if (index >= dev->max_channels)
		return -EINVAL;
	nc = dev->channels[index];
	if (!nc)
		nc = calloc(1, sizeof(*nc));
	if (!nc)
		return -ENOMEM;
	dev->channels[index] = nc;
	nc->dev = dev;
	nc->channel = channel;
	nc->index = index;
	nc->open = true;
	vmbus_channel_set_opaque(channel, nc);
	dev->open_channels++;
	if (dev->net->ops->set_queues)
		dev->net->ops->set_queues(dev->net, dev->open_channels);
	if (index && dev->open_channels == dev->subchannels + 1)
		send_table(dev);
	if (dev->filter)
		netvsp_rx_start(dev);
	return 0;
}

static void start_anew(struct netvsp *dev)
{
	netvsp_forget_receive_buffer(dev);
	put_buffer(&dev->send);
	netvsp_rndis_reset(dev);
	dev->version = 0;
	dev->subchannels = 0;
}

static void close_channel(struct vmbus_channel *channel)
{
	struct netvsp_channel *nc = vmbus_channel_opaque(channel);
	struct netvsp *dev = nc->dev;

	nc->open = false;
	netvsp_tx_forget(nc);
	nc->done_count = 0;
	netvsp_rx_forget(nc);
	/* A guest may drop a channel with packets that it has not completed: their slots are ours again. */
	for (uint32_t i = 0; i < dev->slot_count; i++) {
		if (dev->slots[i].state == SLOT_GUEST && dev->slots[i].channel == nc->index)
			netvsp_rx_completed(nc, i + 1ull);
	}
	dev->open_channels--;
	if (!nc->index)
		start_anew(dev);
	if (dev->net->ops->set_queues && dev->open_channels)
		dev->net->ops->set_queues(dev->net, dev->open_channels);
}

static void destroy(struct vmbus_device *device)
{
	struct netvsp *dev = (struct netvsp *)device;

	for (unsigned int i = 0; i < NET_QUEUES_MAX; i++) {
		if (dev->channels[i])
			free(dev->channels[i]->done);
		free(dev->channels[i]);
	}
	dev->net->ops->destroy(dev->net);
	free(dev);
}

static const struct vmbus_device_class class = {
	.name = "netvsc",
	.type = VMBUS_GUID(0xf8615163, 0xdf3e, 0x46c5, 0x91, 0x3f, 0xf2, 0xd2, 0xf9, 0x65, 0xed, 0x0e),
	.packet_max = NETVSP_PACKET_MAX,
	.open = open_channel,
	.close = close_channel,
	.packet = packet_arrived,
	.batch_end = batch_end,
	.room = room,
	.destroy = destroy,
};

/* ---- The back-end, and the link ---- */

static void readable(void *opaque, unsigned int queue)
{
	netvsp_rx(opaque, queue);
}

static void writable(void *opaque, unsigned int queue)
{
	struct netvsp *dev = opaque;

	(void)queue;
	for (unsigned int i = 0; i < dev->max_channels; i++) {
		struct netvsp_channel *nc = netvsp_channel_at(dev, i);

		if (!nc || !nc->tx_blocked)
			continue;
		nc->tx_blocked = false;
		netvsp_tx_flush(nc);
		if (nc->open)
			vmbus_flush(nc->channel);
	}
}

/* Called from within a call of ours: nothing may be sent to the guest here. */
static void gone(void *opaque)
{
	((struct netvsp *)opaque)->gone = true;
}

bool netvsp_link(const struct netvsp *dev)
{
	return dev->link && !dev->gone;
}

void netvsp_update_link(struct netvsp *dev)
{
	if (!dev->initialized || dev->link_told == netvsp_link(dev) || !netvsp_channel_at(dev, 0))
		return;
	dev->link_told = netvsp_link(dev);
	netvsp_indicate(dev, dev->link_told ? RNDIS_STATUS_MEDIA_CONNECT : RNDIS_STATUS_MEDIA_DISCONNECT);
}

void netvsp_set_link(struct netvsp *dev, bool up)
{
	dev->link = up;
	netvsp_update_link(dev);
}

const struct netvsp_stats *netvsp_get_stats(const struct netvsp *dev)
{
	return &dev->stats;
}

struct netvsp *netvsp_add(struct vmbus *bus, struct net_backend *net, unsigned int number, const uint8_t mac[6],
			  unsigned int channels)
{
	const struct vmbus_guid instance =
		VMBUS_GUID(0x5a1d1e64, 0x2c4b, 0x4f11, 0xb3, 0x0e, 0x4e, 0x65, 0x74, 0x20, 0x23, 0x30 + (number & 15));
	struct netvsp *dev = calloc(1, sizeof(*dev));

	if (!dev)
		return NULL;
	dev->net = net;
	dev->number = number;
	dev->max_channels = channels < 1 ? 1 : channels > NET_QUEUES_MAX ? NET_QUEUES_MAX : channels;
	memcpy(dev->permanent_mac, mac, sizeof(dev->permanent_mac));
	dev->link = true;
	dev->first_free = NO_SLOT;
	netvsp_rndis_reset(dev);
	net->opaque = dev;
	net->readable = readable;
	net->writable = writable;
	net->gone = gone;
	if (vmbus_add_device(bus, &dev->device, &class, &instance)) {
		free(dev);
		return NULL;
	}
	return dev;
}
