/* SPDX-License-Identifier: MIT */
/*
 * From the network to the guest. Frames are read straight into slots of the guest's receive buffer, behind room for
 * their RNDIS header; the header is written when the frame is there, and a VMBus packet names up to NETVSP_RX_BATCH
 * slots. One interrupt tells of all that was read in one go.
 *
 * The guest may write to a slot while we look at the frame in it: what is decided by its headers is decided by a copy.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/vmbus/netvsp_internal.h"

#define SLOTS_MIN	4u
#define SLOTS_GOOD	64u /* with fewer, frames that were put together have to be done without */
#define VLAN_TAG	4u
#define SLOT_PIECES_MAX 20u /* of NET_SEGMENTS_MAX bytes and the rest of two pages */
#define DISCARD_MAX	4096u
#define RX_FIRST	2u /* frames looked for at first: a lone one is the usual thing, and slots cost */

/* ---- Slots ---- */

static uint32_t slot_size_for(uint32_t frame)
{
	/* One byte more than the largest frame: a read that fills it all has lost the end of one. */
	uint32_t size = NETVSP_ROOM + PACKET_ETH + VLAN_TAG + frame + 1;

	return (size + NETVSP_SLOT_ALIGN - 1) / NETVSP_SLOT_ALIGN * NETVSP_SLOT_ALIGN;
}

int netvsp_make_slots(struct netvsp *dev)
{
	uint32_t size = dev->net->headers ? slot_size_for(NET_SEGMENTS_MAX) : 0;

	if (!size || dev->receive.size / size < SLOTS_GOOD)
		size = slot_size_for(dev->net->mtu > 1500 ? dev->net->mtu : 1500);
	if (dev->receive.size / size < SLOTS_MIN)
		return -ENOSPC;
	dev->slot_size = size;
	dev->slot_count = (uint32_t)(dev->receive.size / size);
	dev->slots = calloc(dev->slot_count, sizeof(dev->slots[0]));
	if (!dev->slots) {
		dev->slot_count = 0;
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < dev->slot_count; i++)
		dev->slots[i].next = i + 1 < dev->slot_count ? i + 1 : NO_SLOT;
	dev->first_free = 0;
	dev->free_count = dev->slot_count;
	return 0;
}

/* The last one freed is the next one used: its memory is likely to be in a cache. */
static uint32_t take_slot(struct netvsp *dev)
{
	uint32_t slot = dev->first_free;

	if (slot == NO_SLOT)
		return slot;
	dev->first_free = dev->slots[slot].next;
	dev->free_count--;
	dev->slots[slot].state = SLOT_OURS;
	dev->slots[slot].next = NO_SLOT;
	return slot;
}

static void free_slot(struct netvsp *dev, uint32_t slot)
{
	dev->slots[slot].state = SLOT_FREE;
	dev->slots[slot].next = dev->first_free;
	dev->first_free = slot;
	dev->free_count++;
}

static void free_chain(struct netvsp *dev, uint32_t slot)
{
	while (slot != NO_SLOT) {
		uint32_t next = dev->slots[slot].next;

		free_slot(dev, slot);
		slot = next;
	}
}

static uint8_t *slot_start(const struct netvsp *dev, uint32_t slot)
{
	size_t at = (size_t)slot * dev->slot_size;

	return (uint8_t *)dev->receive.pages[at / NETVSP_PAGE] + at % NETVSP_PAGE;
}

/* The pieces of its bytes [NETVSP_ROOM, NETVSP_ROOM + size). */
static unsigned int slot_pieces(const struct netvsp *dev, uint32_t slot, size_t size, struct iovec *iov)
{
	size_t at = (size_t)slot * dev->slot_size + NETVSP_ROOM;
	unsigned int count = 0;

	while (size) {
		size_t inside = at % NETVSP_PAGE, here = NETVSP_PAGE - inside;
		uint8_t *start = (uint8_t *)dev->receive.pages[at / NETVSP_PAGE] + inside;

		if (here > size)
			here = size;
		if (count && (uint8_t *)iov[count - 1].iov_base + iov[count - 1].iov_len == start)
			iov[count - 1].iov_len += here;
		else
			iov[count++] = (struct iovec){ start, here };
		at += here;
		size -= here;
	}
	return count;
}

/* Bytes that a frame may have now. */
static size_t capacity(const struct netvsp *dev)
{
	size_t all = dev->slot_size - NETVSP_ROOM, plain = PACKET_ETH + VLAN_TAG + dev->net->mtu + 1;

	if (dev->offload & (NET_RX_TSO4 | NET_RX_TSO6))
		return all;
	return plain < all ? plain : all;
}

/* ---- Packets to the guest ---- */

void netvsp_rx_forget(struct netvsp_channel *nc)
{
	if (nc->rx_count && nc->dev->slots)
		free_chain(nc->dev, nc->rx_first);
	nc->rx_count = 0;
	nc->rx_held = false;
	nc->rx_starved = false;
}

/* False: the channel is no more. What finds no room is held. */
static bool send_batch(struct netvsp_channel *nc)
{
	struct netvsp *dev = nc->dev;
	struct {
		struct nvsp_pages_head head;
		struct nvsp_pages_range range[NETVSP_RX_BATCH];
	} pages = { .head = { .set = dev->receive.id, .ranges = nc->rx_count } };
	struct nvsp_message message = {
		.type = NVSP_RNDIS,
		.rndis = { .channel_type = NVSP_CHANNEL_DATA, .section = NVSP_NO_SECTION },
	};
	int ret;

	if (!nc->rx_count)
		return true;
	memcpy(pages.range, nc->range, nc->rx_count * sizeof(pages.range[0]));
	ret = vmbus_send2(nc->channel, VMBUS_PACKET_TRANSFER_PAGES, VMBUS_PACKET_COMPLETION_REQUESTED,
			  nc->rx_first + 1ull, &pages, sizeof(pages.head) + nc->rx_count * sizeof(pages.range[0]),
			  &message, netvsp_message_size(dev));
	if (ret == -ENOTCONN)
		return false;
	nc->rx_held = ret == -EAGAIN;
	if (ret == -EAGAIN)
		return true;
	if (ret) { /* a ring too small for it */
		dev->stats.rx_dropped += nc->rx_count;
		free_chain(dev, nc->rx_first);
	} else {
		dev->slots[nc->rx_first].state = SLOT_GUEST;
		dev->stats.rx_packets++;
	}
	nc->rx_count = 0;
	return true;
}

/* False: the channel is no more. */
static bool add_to_batch(struct netvsp_channel *nc, uint32_t slot, uint32_t size)
{
	struct netvsp *dev = nc->dev;

	if (nc->rx_held) {
		dev->stats.rx_dropped++;
		free_slot(dev, slot);
		return true;
	}
	dev->slots[slot].channel = (uint8_t)nc->index;
	if (nc->rx_count) {
		dev->slots[nc->rx_last].next = slot;
		dev->slots[slot].state = SLOT_CHAIN;
	} else {
		nc->rx_first = slot;
	}
	nc->rx_last = slot;
	nc->range[nc->rx_count++] = (struct nvsp_pages_range){ size, slot * dev->slot_size };
	return nc->rx_count < NETVSP_RX_BATCH || send_batch(nc);
}

/* ---- Frames ---- */

static bool wanted(const struct netvsp *dev, const uint8_t *to)
{
	static const uint8_t broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	uint32_t filter = dev->filter;

	if (filter & NDIS_FILTER_PROMISCUOUS)
		return true;
	if (!(to[0] & 1))
		return (filter & NDIS_FILTER_DIRECTED) && !memcmp(to, dev->mac, sizeof(dev->mac));
	if (!memcmp(to, broadcast, sizeof(broadcast)))
		return filter & NDIS_FILTER_BROADCAST;
	if (filter & NDIS_FILTER_ALL_MULTICAST)
		return true;
	for (unsigned int i = 0; (filter & NDIS_FILTER_MULTICAST) && i < dev->multicasts; i++)
		if (!memcmp(to, dev->multicast[i], sizeof(dev->multicast[i])))
			return true;
	return false;
}

/* Appends per-packet information to an RNDIS header under construction; returns its new length. */
static size_t add_information(uint8_t *rndis, size_t at, uint32_t type, uint32_t value)
{
	const struct rndis_info info = { sizeof(info) + sizeof(value), type, sizeof(info) };

	memcpy(rndis + at, &info, sizeof(info));
	memcpy(rndis + at + sizeof(info), &value, sizeof(value));
	return at + sizeof(info) + sizeof(value);
}

struct arrival {
	uint8_t head[PACKET_HEAD]; /* copy of the frame's first bytes */
	size_t head_size, size;
	struct packet packet;
	struct net_header header;
	bool hashed;
	uint32_t hash;
};

/* A tag goes into the RNDIS header: addresses move up over it. Returns the frame's new offset in the slot. */
static size_t strip_vlan(const struct arrival *a, uint8_t *frame, size_t offset, bool *tagged, uint32_t *info)
{
	uint32_t tci = (uint32_t)a->head[14] << 8 | a->head[15];

	*tagged = a->head_size >= 18 && a->head[12] == 0x81 && a->head[13] == 0;
	if (!*tagged)
		return offset;
	memcpy(frame + VLAN_TAG, a->head, 12);
	*info = tci >> 13 | (tci >> 12 & 1) << 3 | (tci & 0xfff) << 4;
	return offset + VLAN_TAG;
}

static uint32_t checksum_info(const struct arrival *a)
{
	if (!(a->header.flags & (NET_NEEDS_CSUM | NET_DATA_VALID)))
		return 0;
	return a->packet.protocol == PACKET_TCP	  ? RNDIS_RX_TCP_GOOD
	       : a->packet.protocol == PACKET_UDP ? RNDIS_RX_UDP_GOOD
						  : 0;
}

/* Writes the header in front of the frame. Returns the length of the RNDIS message. */
static uint32_t write_header(const struct netvsp *dev, uint32_t slot, const struct arrival *a)
{
	uint8_t rndis[NETVSP_ROOM] = { 0 }, *start = slot_start(dev, slot);
	size_t at = RNDIS_PACKET_HEAD, offset;
	struct rndis_packet packet = { .info_offset = sizeof(packet) };
	struct rndis_header header = { .type = RNDIS_PACKET };
	uint32_t vlan;
	bool tagged;

	/* The slot begins at a multiple of 256 bytes, so all that is touched here is in one page. */
	offset = strip_vlan(a, start + NETVSP_ROOM, NETVSP_ROOM, &tagged, &vlan);
	/* Also when nothing is known of the checksum: Linux complains of a frame without any information. */
	at = add_information(rndis, at, RNDIS_INFO_CHECKSUM, checksum_info(a));
	if (tagged)
		at = add_information(rndis, at, RNDIS_INFO_VLAN, vlan);
	if (a->hashed)
		at = add_information(rndis, at, RNDIS_INFO_HASH, a->hash);
	packet.info_length = (uint32_t)(at - RNDIS_PACKET_HEAD);
	packet.data_offset = (uint32_t)(offset - sizeof(header));
	packet.data_length = (uint32_t)(a->size - (offset - NETVSP_ROOM));
	header.length = NETVSP_ROOM + (uint32_t)a->size;
	memcpy(rndis, &header, sizeof(header));
	memcpy(rndis + sizeof(header), &packet, sizeof(packet));
	memcpy(start, rndis, at);
	return header.length;
}

/* Where the frame goes: to the queue it came on if the back-end has told flows apart, else by its hash. */
static struct netvsp_channel *choose(struct netvsp *dev, unsigned int queue, struct arrival *a)
{
	struct netvsp_channel *nc = NULL;

	a->hashed =
		dev->rss && packet_rss_hash(a->head, a->head_size, &a->packet, dev->rss_key, dev->rss_types, &a->hash);
	if (dev->net->queues > 1)
		nc = netvsp_channel_at(dev, queue);
	else if (a->hashed && dev->rss_entries)
		nc = netvsp_channel_at(dev, dev->rss_table[a->hash % dev->rss_entries]);
	return nc ? nc : netvsp_channel_at(dev, 0);
}

/* A frame of so many bytes has been read into the slot. False: a channel is no more. */
static bool deliver(struct netvsp *dev, unsigned int queue, uint32_t slot, const struct net_header *header,
		    ssize_t size, size_t most)
{
	struct arrival a = { .size = (size_t)size };
	struct iovec iov[SLOT_PIECES_MAX];
	struct netvsp_channel *nc;
	unsigned int count;

	if (size < (ssize_t)PACKET_ETH || a.size >= most) {
		dev->stats.rx_errors++;
		free_slot(dev, slot);
		return true;
	}
	if (dev->net->headers)
		a.header = *header;
	count = slot_pieces(dev, slot, a.size, iov);
	a.head_size = packet_iov_copy(iov, count, 0, a.head, a.size < PACKET_HEAD ? a.size : PACKET_HEAD, false);
	if (!wanted(dev, a.head)) {
		dev->stats.rx_filtered++;
		free_slot(dev, slot);
		return true;
	}
	packet_parse(a.head, a.head_size, &a.packet);
	if ((a.header.flags & NET_NEEDS_CSUM) &&
	    !packet_complete_checksum(iov, count, a.size, a.header.csum_start, a.header.csum_offset))
		a.header.flags = 0;
	nc = choose(dev, queue, &a);
	dev->stats.rx_frames++;
	dev->stats.rx_bytes += a.size;
	return add_to_batch(nc, slot, write_header(dev, slot, &a));
}

/* ---- Reading ---- */

static bool receiving(struct netvsp *dev)
{
	return dev->slots && dev->initialized && dev->filter && netvsp_link(dev) && netvsp_channel_at(dev, 0);
}

/* Nobody wants them: they must not be there when somebody does. */
static void discard(struct netvsp *dev, unsigned int queue)
{
	uint8_t bytes[PACKET_HEAD];
	struct iovec iov = { bytes, sizeof(bytes) };
	struct net_frame frame = { .iov = &iov, .count = 1 };
	unsigned int n = 0;

	while (n < DISCARD_MAX && dev->net->ops->receive(dev->net, queue, &frame, 1))
		n++;
	if (n == DISCARD_MAX)
		dev->net->ops->again(dev->net, queue);
}

struct reading {
	struct net_frame frame[NETVSP_RX_BATCH];
	struct net_header header[NETVSP_RX_BATCH];
	uint32_t slot[NETVSP_RX_BATCH];
	struct iovec iov[NETVSP_RX_BATCH * (SLOT_PIECES_MAX + 1)];
};

/* Slots for up to count frames; how many there are. */
static unsigned int prepare(struct netvsp *dev, struct reading *r, unsigned int count, size_t most)
{
	/* cppcheck-suppress ctuuninitvar ; an address within it */
	struct iovec *iov = r->iov;
	unsigned int n = 0;

	for (; n < count; n++) {
		r->slot[n] = take_slot(dev);
		if (r->slot[n] == NO_SLOT)
			break;
		r->frame[n] = (struct net_frame){ .iov = iov };
		if (dev->net->headers)
			*iov++ = (struct iovec){ &r->header[n], sizeof(r->header[n]) };
		iov += slot_pieces(dev, r->slot[n], most, iov);
		r->frame[n].count = (unsigned int)(iov - r->frame[n].iov);
	}
	return n;
}

/* Sends what was gathered on all channels; interrupts those that need it. */
static void finish(struct netvsp *dev)
{
	for (unsigned int i = 0; i < dev->max_channels; i++) {
		struct netvsp_channel *nc = netvsp_channel_at(dev, i);

		if (nc && (nc->rx_held || send_batch(nc)))
			vmbus_flush(nc->channel);
	}
}

/* One call to the back-end. More: there may be more frames. */
static bool read_some(struct netvsp *dev, unsigned int queue, unsigned int count, struct netvsp_channel *nc)
{
	size_t most = capacity(dev), header = dev->net->headers ? sizeof(struct net_header) : 0;
	struct reading r;
	unsigned int n = prepare(dev, &r, count, most), got;

	if (!n) {
		nc->rx_starved = true;
		dev->stats.rx_stalls++;
		return false;
	}
	got = dev->net->ops->receive(dev->net, queue, r.frame, n);
	dev->stats.rx_calls++;
	for (unsigned int i = got; i < n; i++)
		free_slot(dev, r.slot[i]);
	for (unsigned int i = 0; i < got; i++) {
		ssize_t size = r.frame[i].result < 0 ? -1 : r.frame[i].result - (ssize_t)header;

		if (!deliver(dev, queue, r.slot[i], &r.header[i], size, most)) {
			/* A close in between has taken the slots with it, if it was the primary channel's. */
			for (i++; i < got && dev->slots; i++)
				free_slot(dev, r.slot[i]);
			return false;
		}
	}
	return got == n;
}

void netvsp_rx(struct netvsp *dev, unsigned int queue)
{
	struct netvsp_channel *nc = netvsp_channel_at(dev, queue);
	unsigned int count = RX_FIRST, rounds = 0;
	bool more = true;

	if (!receiving(dev) || !nc) {
		discard(dev, queue);
		netvsp_update_link(dev);
		return;
	}
	while (more && rounds < NETVSP_RX_ROUNDS && nc->open && receiving(dev)) {
		if (nc->rx_held) /* room() goes on */
			break;
		more = read_some(dev, queue, count, nc);
		count = count < NETVSP_RX_BATCH ? 2 * count : count;
		rounds++;
	}
	finish(dev);
	if (more && rounds == NETVSP_RX_ROUNDS)
		dev->net->ops->again(dev->net, queue);
	netvsp_update_link(dev);
}

void netvsp_rx_start(struct netvsp *dev)
{
	for (unsigned int i = 0; i < dev->net->queues && netvsp_channel_at(dev, i); i++)
		dev->net->ops->again(dev->net, i);
}

/* ---- The guest's completions, and room ---- */

void netvsp_rx_completed(struct netvsp_channel *nc, uint64_t transaction)
{
	struct netvsp *dev = nc->dev;
	uint32_t slot = (uint32_t)(transaction - 1);

	/* Nothing of ours, or done before: no harm, but no effect either. */
	if (!transaction || transaction > dev->slot_count || dev->slots[slot].state != SLOT_GUEST ||
	    dev->slots[slot].channel != nc->index) {
		dev->stats.strays++;
		return;
	}
	free_chain(dev, slot);
}

void netvsp_rx_resume(struct netvsp *dev)
{
	if (dev->control_first && dev->free_count)
		netvsp_send_pending_control(dev);
	for (unsigned int i = 0; i < dev->net->queues && dev->free_count; i++) {
		struct netvsp_channel *nc = netvsp_channel_at(dev, i);

		if (!nc || !nc->rx_starved)
			continue;
		nc->rx_starved = false;
		netvsp_rx(dev, i);
	}
}

void netvsp_rx_room(struct netvsp_channel *nc)
{
	if (!nc->rx_held || !send_batch(nc) || nc->rx_held)
		return;
	/* Those that were held up, and what has come meanwhile. */
	for (unsigned int i = 0; i < nc->dev->net->queues; i++)
		if (i == nc->index || nc->dev->net->queues == 1)
			nc->dev->net->ops->again(nc->dev->net, i);
}

int netvsp_rx_control(struct netvsp *dev, const void *bytes, size_t size)
{
	struct netvsp_channel *nc = netvsp_channel_at(dev, 0);
	struct nvsp_message message = {
		.type = NVSP_RNDIS,
		.rndis = { .channel_type = NVSP_CHANNEL_CONTROL, .section = NVSP_NO_SECTION },
	};
	struct {
		struct nvsp_pages_head head;
		struct nvsp_pages_range range;
	} pages = { .head = { .set = dev->receive.id, .ranges = 1 } };
	uint32_t slot;
	int ret;

	if (!nc || !dev->slots)
		return -ENOTCONN;
	slot = size <= dev->slot_size ? take_slot(dev) : NO_SLOT;
	if (slot == NO_SLOT)
		return -EAGAIN;
	dev->slots[slot].channel = 0;
	if (vmbus_gpadl_write(dev->receive.gpadl, (size_t)slot * dev->slot_size, bytes, size)) {
		free_slot(dev, slot);
		return -EIO;
	}
	pages.range = (struct nvsp_pages_range){ (uint32_t)size, slot * dev->slot_size };
	ret = vmbus_send2(nc->channel, VMBUS_PACKET_TRANSFER_PAGES, VMBUS_PACKET_COMPLETION_REQUESTED, slot + 1ull,
			  &pages, sizeof(pages), &message, netvsp_message_size(dev));
	if (ret == -ENOTCONN)
		return ret; /* the slot may have gone with the channel */
	if (ret)
		free_slot(dev, slot);
	else
		dev->slots[slot].state = SLOT_GUEST;
	return ret;
}
