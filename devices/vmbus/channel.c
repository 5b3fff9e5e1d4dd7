/* SPDX-License-Identifier: MIT */
/*
 * A channel from open to close, and its packets. A signal from the guest makes channel_run() read until the ring is
 * empty, with the guest's signals masked, then finish the batch, interrupt the guest once for everything that was
 * sent, and take the mask back. What has come meanwhile starts another batch; a channel that has used up a ring's
 * worth of packets in one turn lets the others go first.
 *
 * A device's functions may do anything to the channel they are called for, including its end. While one runs (busy),
 * the end is only noted and what the function may still be using stays.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/vmbus/internal.h"
#include "vmm/trace.h"

#define DESCRIPTOR_AND_TRAILER 24

static void unmap_rings(struct vmbus_channel *channel)
{
	const struct vmbus *bus = channel->bus;

	if (channel->twice_in)
		bus->transport->unmap_pages(bus->opaque, channel->twice_in, channel->downstream - 1, true);
	if (channel->twice_out)
		bus->transport->unmap_pages(bus->opaque, channel->twice_out,
					    channel->page_count - channel->downstream - 1, true);
	channel->twice_in = NULL;
	channel->twice_out = NULL;
	free(channel->pages);
	channel->pages = NULL;
	free(channel->buffer);
	channel->buffer = NULL;
	if (channel->gpadl)
		vmbus_gpadl_put(channel->gpadl);
	channel->gpadl = NULL;
}

static void channel_finish(struct vmbus_channel *channel)
{
	const struct vmbus_device_class *class = channel->device->class;

	channel->finish_due = false;
	if (!channel->index)
		offer_rescind_subchannels(channel->device);
	if (channel->opened && class->close)
		class->close(channel);
	channel->opened = false;
	channel->bus->transport->disconnect(channel->bus->opaque, channel->connection);
	unmap_rings(channel);
}

void channel_stop(struct vmbus_channel *channel, enum channel_state state)
{
	enum channel_state before = channel->state;

	if (before == CHANNEL_CLOSED)
		return;
	channel->state = state;
	if (before != CHANNEL_OPEN)
		return;
	if (channel->monitored)
		monitor_update(channel->bus);
	if (channel->busy)
		channel->finish_due = true;
	else
		channel_finish(channel);
}

/* After a call of the device's, which was announced by busy++. */
static void call_done(struct vmbus_channel *channel)
{
	if (!--channel->busy && channel->finish_due)
		channel_finish(channel);
}

/* Maps the rings; -EINVAL and -ENOMEM leave things for unmap_rings(). */
static int map_rings(struct vmbus_channel *channel)
{
	const struct vmbus_transport *transport = channel->bus->transport;
	void *opaque = channel->bus->opaque;
	uint32_t split = channel->downstream;
	const uint64_t *pfns = gpadl_whole_pages(channel->gpadl, &channel->page_count);
	size_t packet_max = channel->device->class->packet_max;
	size_t count = channel->page_count;
	int ret;

	if (!pfns || split < 2 || count < 4 || split > count - 2)
		return -EINVAL;
	channel->pages = calloc(count, sizeof(channel->pages[0]));
	channel->buffer = malloc(packet_max < DESCRIPTOR_AND_TRAILER ? DESCRIPTOR_AND_TRAILER : packet_max);
	if (!channel->pages || !channel->buffer)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		channel->pages[i] = transport->map(opaque, pfns[i] * VMBUS_PAGE, VMBUS_PAGE);
		if (!channel->pages[i])
			return -EINVAL;
	}
	channel->twice_in = transport->map_pages(opaque, pfns + 1, split - 1, true);
	channel->twice_out = transport->map_pages(opaque, pfns + split + 1, count - split - 1, true);
	ret = ring_attach(&channel->in, channel->pages, split, channel->twice_in, true);
	return ret ? ret : ring_attach(&channel->out, channel->pages + split, count - split, channel->twice_out, false);
}

/* Where the channel's signals go, either way. */
static const char *set_signals(struct vmbus_channel *channel, const struct vmbus_open2 *open, size_t size)
{
	const struct vmbus *bus = channel->bus;

	channel->connection = VMBUS_CONNECTION_CHANNEL | channel->relid;
	channel->event_flag = channel->relid;
	channel->vp = bus->version >= VMBUS_V2_4 ? open->open.target_vp : 0;
	if (channel->vp != VMBUS_VP_NONE && channel->vp >= bus->transport->vps(bus->opaque))
		return "names no VP";
	if (!(bus->features & VMBUS_FEATURE_GUEST_SIGNAL))
		return NULL;
	if (size < sizeof(*open))
		return "is too short";
	if (open->connection <= VMBUS_CONNECTION_MULTI_CLIENT || open->connection > VMBUS_CONNECTION_MAX ||
	    open->event_flag >= VMBUS_CHANNELS)
		return "names an impossible connection or event flag";
	channel->connection = open->connection;
	channel->event_flag = open->event_flag;
	return NULL;
}

/* The device's part. -errno leaves the channel closed. */
static int start(struct vmbus_channel *channel)
{
	const struct vmbus_device_class *class = channel->device->class;
	int ret;

	channel->opaque = NULL;
	channel->held = false;
	channel->state = CHANNEL_OPEN;
	channel->busy++;
	ret = class->open(channel);
	channel->opened = ret == 0;
	if (ret)
		channel_stop(channel, CHANNEL_CLOSED);
	else if (channel->state == CHANNEL_FAILED)
		channel->state = CHANNEL_CLOSED;
	if (channel->monitored)
		monitor_update(channel->bus);
	call_done(channel);
	return channel->state == CHANNEL_OPEN ? 0 : -EIO;
}

static const char *try_open(struct vmbus_channel *channel, const struct vmbus_open2 *open, size_t size)
{
	const struct vmbus *bus = channel->bus;
	const char *wrong;

	if (channel->offer == OFFER_RESCINDED)
		return "comes after its rescind";
	if (channel->state != CHANNEL_CLOSED)
		return "is open already";
	wrong = set_signals(channel, open, size);
	if (wrong)
		return wrong;
	channel->gpadl = vmbus_gpadl_get(channel, open->open.gpadl);
	if (!channel->gpadl)
		return "has no such GPADL";
	channel->downstream = open->open.downstream;
	memcpy(channel->user_data, open->open.user_data, sizeof(channel->user_data));
	if (map_rings(channel)) {
		unmap_rings(channel);
		return "has impossible rings";
	}
	if (bus->transport->connect(bus->opaque, channel->connection)) {
		unmap_rings(channel);
		return "gets no connection id";
	}
	return start(channel) ? "is refused by the device" : NULL;
}

void channel_open(struct vmbus *bus, const void *message, size_t size)
{
	struct vmbus_open_result answer = { .header.type = VMBUS_OPEN_RESULT };
	struct vmbus_open2 open = { .connection = 0 };
	struct vmbus_channel *channel;
	const char *wrong;

	memcpy(&open, message, size < sizeof(open) ? size : sizeof(open));
	TRACE(vmbus_open_channel, "channel #%u gpadl #%u target vp %u", open.open.relid, open.open.gpadl,
	      open.open.target_vp);
	channel = offer_find(bus, open.open.relid);
	if (size < sizeof(open.open))
		wrong = "is too short";
	else
		wrong = channel ? try_open(channel, &open, size) : "was not offered";
	if (wrong)
		bus_log(bus, "open of channel %u %s", open.open.relid, wrong);
	answer.relid = open.open.relid;
	answer.open_id = open.open.open_id;
	answer.status = wrong ? VMBUS_STATUS_FAILED : VMBUS_STATUS_SUCCESS;
	TRACE(vmbus_channel_open, "channel #%u status %u", answer.relid, answer.status);
	outbox_answer(bus, &answer, sizeof(answer));
	if (wrong)
		return;
	/* The answer before the first interrupt. Packets may be in the ring from before. */
	outbox_pump(bus);
	channel_run(channel);
}

void channel_close(struct vmbus *bus, uint32_t relid)
{
	struct vmbus_channel *channel = offer_find(bus, relid);

	TRACE(vmbus_close_channel, "channel #%u", relid);
	if (channel && (channel->state != CHANNEL_CLOSED || channel->offer == OFFER_RESCINDED))
		channel_stop(channel, CHANNEL_CLOSED);
	else
		bus_log(bus, "close of channel %u, which is not open", relid);
}

void channel_modify(struct vmbus *bus, uint32_t relid, uint32_t vp)
{
	struct vmbus_modify_response answer = { .header.type = VMBUS_MODIFY_RESPONSE, .relid = relid };
	struct vmbus_channel *channel = offer_find(bus, relid);

	if (channel && channel->state != CHANNEL_CLOSED && channel->vp != VMBUS_VP_NONE &&
	    vp < bus->transport->vps(bus->opaque)) {
		/* A signal is complete when signal() returns, so the old VP sees none after this. */
		channel->vp = vp;
	} else {
		bus_log(bus, "channel %u cannot interrupt VP %u", relid, vp);
		answer.status = VMBUS_STATUS_FAILED;
	}
	if (bus->version >= VMBUS_V5_3)
		outbox_answer(bus, &answer, sizeof(answer));
}

static void interrupt_guest(const struct vmbus_channel *channel)
{
	const struct vmbus *bus = channel->bus;
	unsigned int flag = channel->event_flag;

	if (channel->vp == VMBUS_VP_NONE)
		return;
	TRACE(vmbus_channel_notify_guest, "channel #%u", channel->relid);
	if (bus->interrupt_page) {
		/* Its first half is for this direction, Linux drivers/hv/connection.c. */
		__atomic_fetch_or(&bus->interrupt_page[channel->relid / 8], (uint8_t)(1 << channel->relid % 8),
				  __ATOMIC_SEQ_CST);
		flag = 0;
	}
	bus->transport->signal(bus->opaque, channel->vp, bus->sint, flag);
}

void vmbus_flush(struct vmbus_channel *channel)
{
	if (channel->state == CHANNEL_OPEN && ring_publish(&channel->out))
		interrupt_guest(channel);
}

static void fail_by(struct vmbus_channel *channel, int error)
{
	switch (error) {
	case -EPROTO:
		vmbus_fail(channel, "impossible ring indices or packet lengths");
		break;
	case -EMSGSIZE:
		vmbus_fail(channel, "a packet larger than the device takes");
		break;
	default:
		vmbus_fail(channel, "a packet against the device's protocol");
	}
}

/* Hands over the packets that are there, as long as *budget lasts: 1, 0 when there are no more, or -errno. */
static int read_batch(struct vmbus_channel *channel, int64_t *budget)
{
	const struct vmbus_device_class *class = channel->device->class;
	struct vmbus_packet packet;
	int ret = 1;

	while (ret > 0 && *budget > 0 && channel->state == CHANNEL_OPEN && !channel->held) {
		ret = ring_read(&channel->in, channel->buffer, class->packet_max, &packet);
		if (ret > 0) {
			int error = class->packet(channel, &packet);

			*budget -= (int64_t)(packet.size + packet.extra_size + DESCRIPTOR_AND_TRAILER);
			if (error)
				ret = error < 0 ? -EBADMSG : ret;
		}
	}
	return ret;
}

/* One interrupt tells the guest of new packets and of the room it was waiting for. */
static void end_batch(struct vmbus_channel *channel)
{
	const struct vmbus_device_class *class = channel->device->class;
	bool interrupt;

	if (class->batch_end)
		class->batch_end(channel);
	if (channel->state != CHANNEL_OPEN)
		return;
	interrupt = ring_read_done(&channel->in);
	if (ring_publish(&channel->out) || interrupt)
		interrupt_guest(channel);
}

static void run(struct vmbus_channel *channel)
{
	const struct vmbus *bus = channel->bus;
	int64_t budget = channel->in.size;
	int ret;

	do {
		ring_mask(&channel->in, true);
		ret = read_batch(channel, &budget);
		if (channel->state == CHANNEL_OPEN && ret >= 0)
			end_batch(channel);
		if (channel->state != CHANNEL_OPEN)
			return;
		if (ret < 0) {
			fail_by(channel, ret);
			return;
		}
		if (channel->held) /* the mask stays until vmbus_pause() takes us on */
			return;
		if (budget <= 0) { /* the mask stays until the next turn */
			bus->transport->again(bus->opaque, channel->connection);
			return;
		}
	} while (ring_mask(&channel->in, false));
}

void channel_run(struct vmbus_channel *channel)
{
	const struct vmbus_device_class *class = channel->device->class;

	if (channel->state != CHANNEL_OPEN || channel->busy)
		return;
	channel->busy++;
	if (ring_room(&channel->out) && class->room)
		class->room(channel);
	if (channel->state == CHANNEL_OPEN)
		run(channel);
	call_done(channel);
}

int vmbus_send2(struct vmbus_channel *channel, uint16_t type, uint16_t flags, uint64_t transaction, const void *head,
		size_t head_size, const void *payload, size_t size)
{
	int ret;

	if (channel->state != CHANNEL_OPEN)
		return -ENOTCONN;
	ret = ring_write(&channel->out, type, flags, transaction, head, head_size, payload, size);
	if (ret != -EPROTO)
		return ret;
	bus_enter(channel->bus);
	fail_by(channel, ret);
	bus_leave(channel->bus);
	return -ENOTCONN;
}

int vmbus_send(struct vmbus_channel *channel, uint16_t type, uint16_t flags, uint64_t transaction, const void *payload,
	       size_t size)
{
	return vmbus_send2(channel, type, flags, transaction, NULL, 0, payload, size);
}

void vmbus_fail(struct vmbus_channel *channel, const char *why)
{
	if (channel->state != CHANNEL_OPEN)
		return;
	bus_enter(channel->bus);
	bus_log(channel->bus, "%s: %s", channel->device->class->name, why);
	channel_stop(channel, CHANNEL_FAILED);
	bus_leave(channel->bus);
}

void vmbus_pause(struct vmbus_channel *channel, bool on)
{
	bool before = channel->held;

	channel->held = on;
	if (before && !on && channel->state == CHANNEL_OPEN)
		channel->bus->transport->again(channel->bus->opaque, channel->connection);
}

unsigned int vmbus_vps(const struct vmbus *bus)
{
	return bus->transport->vps(bus->opaque);
}

struct vmbus_device *vmbus_channel_device(const struct vmbus_channel *channel)
{
	return channel->device;
}

unsigned int vmbus_channel_index(const struct vmbus_channel *channel)
{
	return channel->index;
}

bool vmbus_channel_is_open(const struct vmbus_channel *channel)
{
	return channel->state == CHANNEL_OPEN;
}

const void *vmbus_channel_user_data(const struct vmbus_channel *channel)
{
	return channel->user_data;
}

void vmbus_channel_set_opaque(struct vmbus_channel *channel, void *opaque)
{
	channel->opaque = opaque;
}

void *vmbus_channel_opaque(const struct vmbus_channel *channel)
{
	return channel->opaque;
}

void *vmbus_guest_memory(const struct vmbus_channel *channel, uint64_t gpa, size_t size)
{
	return channel->bus->transport->map(channel->bus->opaque, gpa, size);
}
