/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * Each packet of the guest's becomes a request. What needs no block of a disk is answered at once; the rest has
 * operations under way in the loop's ring, which all packets of a batch enter together. Answers of one turn of the loop
 * are gathered and shown to the guest with one interrupt (end_work). When many operations are under way the loop lets a
 * part of them end before it looks (loop_gather()): a fast disk would otherwise have it interrupt the guest, and the
 * guest signal, for each.
 *
 * The guest is held back by its own ring: a channel with STORVSP_IN_FLIGHT requests is not read any further. An answer
 * that finds the ring full waits, still counted, until the guest has made room.
 *
 * A channel may close, by the guest or by a failure, while the kernel still reads into the guest's memory or writes to
 * the disk. Such requests are orphans: nobody is told of their end. Until they have ended no other request begins, so
 * that a write of the former owner cannot come after one of the next. A reset of the machine waits for them, since
 * memory is about to begin anew. A reset of the bus, which the guest asks for when it has lost patience, waits in the
 * same way and is answered when all else is.
 *
 * A disk that virtio-blk has shown to the firmware (boot=on) is taken when the guest opens the primary channel, whose
 * packets are read when the other device's requests have ended.
 */
#include "devices/vmbus/storvsp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/vmbus/storvsp_internal.h"
#include "vmm/log.h"
#include "vmm/loop.h"

#define PACKET_MAX 8192 /* a range list of 1014 pages */
#define TURN_NS	   1000000000ULL

static void update_flow(struct storvsp_channel *channel)
{
	const struct storvsp *dev = channel->dev;

	vmbus_pause(channel->channel,
		    channel->pending >= STORVSP_IN_FLIGHT || dev->resets || dev->orphans || dev->held);
}

static void free_request(struct storvsp_request *request)
{
	struct storvsp *dev = request->dev;

	*request->link = request->next;
	if (request->next)
		request->next->link = request->link;
	if (!request->channel)
		dev->orphans--;
	else
		request->channel->pending--;
	scsi_end(&request->scsi);
	free(request);
}

static int send_answer(const struct storvsp_request *request)
{
	return vmbus_send(request->channel->channel, VMBUS_PACKET_COMPLETION, 0, request->transaction, &request->packet,
			  request->size);
}

static void await_room(struct storvsp_request *request)
{
	*request->channel->waiting_end = request;
	request->channel->waiting_end = &request->next_waiting;
	request->next_waiting = NULL;
}

void storvsp_answer(struct storvsp_request *request, uint32_t status)
{
	struct storvsp_channel *channel = request->channel;

	request->packet.operation = VSTOR_COMPLETE_IO;
	request->packet.flags = 0;
	request->packet.status = status;
	if (channel && request->wanted) {
		int ret;

		/* A ring that the guest has broken closes the channel, and then this is an orphan. */
		request->answering = true;
		ret = channel->waiting ? -EAGAIN : send_answer(request);
		request->answering = false;
		if (ret == -EAGAIN) {
			await_room(request);
			return;
		}
	}
	free_request(request);
}

static void room(struct vmbus_channel *vmbus_channel)
{
	struct storvsp_channel *channel = vmbus_channel_opaque(vmbus_channel);
	struct storvsp_request *request;

	while ((request = channel->waiting)) {
		if (send_answer(request))
			return;
		channel->waiting = request->next_waiting;
		if (!channel->waiting)
			channel->waiting_end = &channel->waiting;
		free_request(request);
	}
	update_flow(channel);
}

static void answer_resets(struct storvsp *dev)
{
	struct storvsp_request *request;

	while (!dev->in_flight && (request = dev->resets)) {
		dev->resets = request->next_waiting;
		storvsp_answer(request, VSTOR_STATUS_SUCCESS);
	}
}

/* After the packets of one turn. */
static void batch_end(struct vmbus_channel *vmbus_channel)
{
	const struct storvsp *dev = (const struct storvsp *)vmbus_channel_device(vmbus_channel);

	block_gather(dev->loop, dev->in_flight);
}

/* After the completions of one turn. */
static void end_turn(struct loop_work *work)
{
	struct storvsp *dev = (struct storvsp *)((char *)work - offsetof(struct storvsp, end_work));

	answer_resets(dev);
	for (struct storvsp_channel *channel = dev->channels; channel; channel = channel->next) {
		update_flow(channel);
		vmbus_flush(channel->channel);
	}
	block_gather(dev->loop, dev->in_flight);
}

/* The guest gives up what it has under way; here that can only be waited for. */
static void do_reset(struct storvsp_request *request)
{
	struct storvsp_request **end = &request->dev->resets;

	while (*end)
		end = &(*end)->next_waiting;
	request->next_waiting = NULL;
	*end = request;
	answer_resets(request->dev);
}

static void do_begin_init(struct storvsp_request *request)
{
	request->dev->state = STORVSP_BEGUN;
	storvsp_answer(request, VSTOR_STATUS_SUCCESS);
}

static void do_query_version(struct storvsp_request *request)
{
	struct storvsp *dev = request->dev;
	uint32_t status = VSTOR_STATUS_SUCCESS;

	switch (request->packet.version) {
	case VSTOR_V2_0:
	case VSTOR_V4_2:
	case VSTOR_V5_1:
	case VSTOR_V6_0:
	case VSTOR_V6_2:
		if (dev->state == STORVSP_BEGUN)
			dev->state = STORVSP_VERSIONED;
		else if (dev->state != STORVSP_VERSIONED)
			status = VSTOR_STATUS_INVALID_STATE;
		break;
	default:
		status = VSTOR_STATUS_REVISION_MISMATCH;
	}
	storvsp_answer(request, status);
}

static unsigned int max_sub_channels(const struct storvsp *dev)
{
	unsigned int vps = vmbus_vps(dev->device.bus);

	return (vps < STORVSP_CHANNELS_MAX ? vps : STORVSP_CHANNELS_MAX) - 1;
}

static void do_query_properties(struct storvsp_request *request)
{
	unsigned int channels = max_sub_channels(request->dev);
	bool good = request->dev->state == STORVSP_VERSIONED;

	if (good)
		request->packet.properties = (struct vstor_properties){
			.max_sub_channels = (uint16_t)channels,
			.flags = channels ? VSTOR_MULTICHANNEL : 0,
			.max_transfer_bytes = STORVSP_TRANSFER_MAX,
		};
	storvsp_answer(request, good ? VSTOR_STATUS_SUCCESS : VSTOR_STATUS_INVALID_STATE);
}

static void do_end_init(struct storvsp_request *request)
{
	bool good = request->dev->state == STORVSP_VERSIONED;

	if (good)
		request->dev->state = STORVSP_READY;
	storvsp_answer(request, good ? VSTOR_STATUS_SUCCESS : VSTOR_STATUS_INVALID_STATE);
}

static void do_create_sub_channels(struct storvsp_request *request)
{
	struct storvsp *dev = request->dev;
	unsigned int count = request->packet.sub_channels;
	uint32_t status = VSTOR_STATUS_SUCCESS;

	if (dev->state != STORVSP_READY || dev->subchannels)
		status = VSTOR_STATUS_INVALID_STATE;
	else if (count > max_sub_channels(dev) || vmbus_offer_subchannels(&dev->device, count))
		status = VSTOR_STATUS_INVALID_PARAMETER;
	else
		dev->subchannels = count > 0;
	storvsp_answer(request, status);
}

static void do_unknown(struct storvsp_request *request)
{
	storvsp_answer(request, VSTOR_STATUS_INVALID_REQUEST);
}

/* What only the primary channel is for. */
static void control(struct storvsp_request *request)
{
	static void (*const operations[])(struct storvsp_request * request) = {
		[VSTOR_BEGIN_INIT] = do_begin_init,
		[VSTOR_END_INIT] = do_end_init,
		[VSTOR_QUERY_VERSION] = do_query_version,
		[VSTOR_QUERY_PROPERTIES] = do_query_properties,
		[VSTOR_CREATE_SUB_CHANNELS] = do_create_sub_channels,
	};
	uint32_t operation = request->packet.operation;

	if (operation >= sizeof(operations) / sizeof(operations[0]) || !operations[operation])
		do_unknown(request); /* fibre channel, and what guests do not send */
	else if (vmbus_channel_index(request->channel->channel))
		storvsp_answer(request, VSTOR_STATUS_INVALID_STATE);
	else
		operations[operation](request);
}

static struct storvsp_request *create_request(struct storvsp_channel *channel, const struct vmbus_packet *packet,
					      unsigned int segments)
{
	struct storvsp *dev = channel->dev;
	struct storvsp_request *request = malloc(sizeof(*request) + segments * sizeof(request->segments[0]));

	if (!request)
		return NULL;
	memset(request, 0, sizeof(*request));
	request->dev = dev;
	request->channel = channel;
	request->transaction = packet->transaction;
	request->wanted = packet->flags & VMBUS_PACKET_COMPLETION_REQUESTED;
	request->size = packet->size < sizeof(request->packet) ? VSTOR_PACKET_OLD : sizeof(request->packet);
	memcpy(&request->packet, packet->payload, request->size);
	request->next = dev->requests;
	request->link = &dev->requests;
	if (request->next)
		request->next->link = &request->next;
	dev->requests = request;
	channel->pending++;
	return request;
}

static int receive(struct vmbus_channel *vmbus_channel, const struct vmbus_packet *packet)
{
	struct storvsp_channel *channel = vmbus_channel_opaque(vmbus_channel);
	struct storvsp_request *request;
	int pages = 0;

	if ((packet->type != VMBUS_PACKET_INBAND && packet->type != VMBUS_PACKET_GPA_DIRECT) ||
	    packet->size < VSTOR_PACKET_OLD)
		return -EPROTO;
	if (packet->type == VMBUS_PACKET_GPA_DIRECT)
		pages = storvsp_count_pages(packet);
	if (pages < 0)
		return pages;
	request = create_request(channel, packet, (unsigned int)pages);
	if (!request)
		return -ENOMEM;
	switch (request->packet.operation) {
	case VSTOR_EXECUTE_SRB:
		storvsp_execute(request, packet);
		break;
	case VSTOR_RESET_LUN:
	case VSTOR_RESET_ADAPTER:
	case VSTOR_RESET_BUS:
		do_reset(request);
		break;
	default:
		control(request);
	}
	/* The answer may have found a broken ring; the channel is still there as long as this function runs. */
	update_flow(channel);
	return 0;
}

static void released(void *opaque)
{
	struct storvsp *dev = opaque;

	dev->held--;
	loop_defer(dev->loop, &dev->end_work);
}

/* What another device has shown to the firmware is ours from here on; what that has under way ends first. */
static void take_disks(struct storvsp *dev)
{
	for (unsigned int i = 0; i < dev->count; i++) {
		struct block_claim *claim = dev->disks[i].claim;

		if (claim && !atomic_load(&claim->taken) && !block_claim_take(claim, released, dev))
			dev->held++;
	}
}

static int open_channel(struct vmbus_channel *vmbus_channel)
{
	struct storvsp *dev = (struct storvsp *)vmbus_channel_device(vmbus_channel);
	struct storvsp_channel *channel = calloc(1, sizeof(*channel));

	if (!channel)
		return -ENOMEM;
	channel->dev = dev;
	channel->channel = vmbus_channel;
	channel->waiting_end = &channel->waiting;
	channel->next = dev->channels;
	dev->channels = channel;
	if (!vmbus_channel_index(vmbus_channel)) {
		dev->state = STORVSP_CLOSED;
		dev->subchannels = false;
		take_disks(dev);
	}
	vmbus_channel_set_opaque(vmbus_channel, channel);
	update_flow(channel);
	return 0;
}

static void take_out_resets(struct storvsp *dev, const struct storvsp_channel *channel)
{
	struct storvsp_request **link = &dev->resets;

	while (*link) {
		if ((*link)->channel == channel)
			*link = (*link)->next_waiting;
		else
			link = &(*link)->next_waiting;
	}
}

/* No operation of it is under way, and nobody above us holds it. */
static bool is_waiting(const struct storvsp_request *request)
{
	return !request->io.done && !request->answering;
}

static void close_channel(struct vmbus_channel *vmbus_channel)
{
	struct storvsp_channel *channel = vmbus_channel_opaque(vmbus_channel), **link;
	struct storvsp *dev = channel->dev;
	struct storvsp_request *next;

	take_out_resets(dev, channel);
	for (struct storvsp_request *request = dev->requests; request; request = next) {
		next = request->next;
		if (request->channel != channel)
			continue;
		if (is_waiting(request)) {
			free_request(request);
		} else {
			request->channel = NULL;
			dev->orphans++;
		}
	}
	for (link = &dev->channels; *link != channel; link = &(*link)->next)
		;
	*link = channel->next;
	free(channel);
	for (channel = dev->channels; channel; channel = channel->next)
		update_flow(channel);
}

/* Memory begins anew after this: nothing may be read into it any more, or written from it. */
static void reset(struct vmbus_device *device)
{
	struct storvsp *dev = (struct storvsp *)device;
	unsigned int turns = 0;

	while (dev->in_flight && !(dev->give_up && dev->give_up(dev->opaque)))
		if (!loop_turn(dev->loop, TURN_NS) && ++turns == 5)
			log_line("--disk: the reset waits for %u requests that the host has not ended yet",
				 dev->in_flight);
}

static void destroy(struct vmbus_device *device)
{
	struct storvsp *dev = (struct storvsp *)device;

	for (struct storvsp_request *request = dev->requests, *next; request; request = next) {
		next = request->next;
		block_abandon(&request->io);
		free_request(request);
	}
	free(dev->disks);
	free(dev);
}

/* The type is that of Linux's HV_SCSI_GUID. */
static const struct vmbus_device_class class = {
	.name = "storage",
	.type = VMBUS_GUID(0xba6163d9, 0x04a1, 0x4d29, 0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1, 0xdc, 0x7f),
	.instance = VMBUS_GUID(0x1c7ec1a4, 0x6f0d, 0x4f09, 0x9b, 0x54, 0x80, 0x2a, 0x4c, 0x25, 0xd6, 0x3e),
	.packet_max = PACKET_MAX,
	.open = open_channel,
	.close = close_channel,
	.packet = receive,
	.batch_end = batch_end,
	.room = room,
	.reset = reset,
	.destroy = destroy,
};

int storvsp_add(struct vmbus *bus, struct loop *loop, struct storvsp_disk *disks, unsigned int count,
		bool (*give_up)(void *opaque), void *opaque)
{
	struct storvsp *dev = calloc(1, sizeof(*dev));
	int ret = -ENOMEM;

	if (dev) {
		*dev = (struct storvsp){ .loop = loop,
					 .disks = disks,
					 .count = count,
					 .give_up = give_up,
					 .opaque = opaque,
					 .end_work.fn = end_turn };
		ret = vmbus_add_device(bus, &dev->device, &class, NULL);
	}
	if (!ret)
		return 0;
	free(disks);
	free(dev);
	return ret;
}
