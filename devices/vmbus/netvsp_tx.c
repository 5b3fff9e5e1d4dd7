/* SPDX-License-Identifier: MIT */
/*
 * From the guest to the network. A packet of the guest's is memory in pieces: a section of the send buffer, pages that
 * it names, or both, one after the other. It holds RNDIS messages, one behind the other; of a frame only the headers
 * are looked at, in a copy, and the rest goes out from where it is. Frames gather until the bus has no more packets, or
 * there is no place for more, and then go to the back-end in one call.
 *
 * The guest learns that a packet is done with a completion, which therefore waits for its last frame.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/vmbus/netvsp_internal.h"

/* The memory of one packet. */
struct pieces {
	struct iovec iov[NETVSP_PIECES];
	unsigned int count;
	size_t size;
};

/* What the guest wants done to a frame. */
struct wishes {
	bool checksum, large, vlan;
	uint32_t checksum_info, large_info, vlan_info;
};

/* ---- Completions ---- */

static int keep_done(struct netvsp_channel *nc, uint64_t transaction, uint32_t status)
{
	if (nc->done_count == nc->done_size) {
		size_t size = nc->done_size ? 2 * nc->done_size : 64;
		struct netvsp_done *done =
			size > NETVSP_DONE_MAX ? NULL : realloc(nc->done, size * sizeof(nc->done[0]));

		if (!done)
			return -ENOBUFS;
		nc->done = done;
		nc->done_size = size;
	}
	nc->done[nc->done_count++] = (struct netvsp_done){ transaction, status };
	return 0;
}

static int send_completion(struct netvsp_channel *nc, uint64_t transaction, uint32_t status)
{
	struct nvsp_message answer = { .type = NVSP_RNDIS_COMPLETE, .rndis_complete.status = status };

	return vmbus_send(nc->channel, VMBUS_PACKET_COMPLETION, 0, transaction, &answer, netvsp_message_size(nc->dev));
}

int netvsp_complete(struct netvsp_channel *nc, uint64_t transaction, uint32_t status)
{
	int ret = nc->done_count ? -EAGAIN : send_completion(nc, transaction, status);

	if (ret == -EAGAIN)
		ret = keep_done(nc, transaction, status);
	/* A guest that sends without end and reads nothing. */
	if (ret == -ENOBUFS)
		vmbus_fail(nc->channel, "too many completions that the guest does not read");
	return ret;
}

void netvsp_send_done(struct netvsp_channel *nc)
{
	size_t sent = 0;

	while (sent < nc->done_count) {
		int ret = send_completion(nc, nc->done[sent].transaction, nc->done[sent].status);

		if (ret == -EAGAIN)
			break;
		if (!nc->open)
			return;
		sent++;
	}
	nc->done_count -= sent;
	if (nc->done_count && sent)
		memmove(nc->done, nc->done + sent, nc->done_count * sizeof(nc->done[0]));
}

/* ---- To the back-end ---- */

void netvsp_tx_forget(struct netvsp_channel *nc)
{
	nc->tx_first = nc->tx_count = nc->pool_used = 0;
	nc->tx_blocked = false;
}

/* The first n frames are done with. Those that a full back-end has refused stay where they are. */
static void frames_done(struct netvsp_channel *nc, const struct net_frame *sent, unsigned int n)
{
	struct netvsp_stats *stats = &nc->dev->stats;

	for (unsigned int i = 0; i < n; i++) {
		const struct netvsp_tx_frame *frame = &nc->frames[nc->tx_first];

		nc->tx_first++;
		nc->tx_count--;
		if (sent && sent[i].result >= 0) {
			stats->tx_frames++;
			stats->tx_bytes += frame->bytes;
			stats->tx_segments += frame->header.gso != NET_GSO_NONE;
		} else {
			stats->tx_dropped++;
		}
		if (frame->completes)
			netvsp_complete(nc, frame->transaction, frame->status);
		if (!nc->open)
			return;
	}
	if (!nc->tx_count)
		nc->tx_first = nc->pool_used = 0;
}

void netvsp_tx_flush(struct netvsp_channel *nc)
{
	struct netvsp *dev = nc->dev;
	struct net_backend *net = dev->net;
	struct net_frame frames[NET_BATCH];
	unsigned int sent, count = nc->tx_count, queue = nc->index % net->queues;

	if (!count || nc->tx_blocked)
		return;
	if (!netvsp_link(dev)) {
		frames_done(nc, NULL, count);
		return;
	}
	for (unsigned int i = 0; i < count; i++) {
		const struct netvsp_tx_frame *frame = &nc->frames[nc->tx_first + i];

		frames[i] = (struct net_frame){ .iov = frame->iov, .count = frame->count };
	}
	sent = net->ops->send(net, queue, frames, count);
	dev->stats.tx_calls++;
	nc->tx_blocked = sent < count && net->ops->want_room && !dev->gone;
	if (nc->tx_blocked)
		net->ops->want_room(net, queue);
	for (unsigned int i = sent; i < count; i++)
		frames[i].result = -EAGAIN;
	frames_done(nc, frames, nc->tx_blocked ? sent : count);
	netvsp_update_link(dev);
}

/* ---- Frames ---- */

/* Adds bytes [offset, offset + size) of from to the frame. */
static bool add_pieces(struct netvsp_channel *nc, struct netvsp_tx_frame *frame, const struct pieces *from,
		       size_t offset, size_t size)
{
	for (unsigned int i = 0; i < from->count && size; i++) {
		size_t here = from->iov[i].iov_len;

		if (offset >= here) {
			offset -= here;
			continue;
		}
		here -= offset;
		if (here > size)
			here = size;
		if (nc->pool_used == NETVSP_POOL)
			return false;
		frame->iov[frame->count++] = (struct iovec){ (uint8_t *)from->iov[i].iov_base + offset, here };
		nc->pool_used++;
		size -= here;
		offset = 0;
	}
	return !size;
}

static void add_own(struct netvsp_channel *nc, struct netvsp_tx_frame *frame, void *at, size_t size)
{
	frame->iov[frame->count++] = (struct iovec){ at, size };
	nc->pool_used++;
}

/* False: the guest's information does not fit the frame. */
static bool prepare_large(struct netvsp_tx_frame *frame, const struct wishes *wishes, size_t copied, size_t size,
			  size_t *head)
{
	size_t l4 = RNDIS_LSO_TCP_OFFSET(wishes->large_info);
	bool ipv6 = wishes->large_info & RNDIS_LSO_IPV6;
	size_t headers;

	if (!(wishes->large_info & RNDIS_LSO_V2) || !RNDIS_LSO_MSS(wishes->large_info) ||
	    RNDIS_LSO_MSS(wishes->large_info) > UINT16_MAX)
		return false;
	headers = packet_prepare_segments(frame->head, copied, size, l4, ipv6);
	if (!headers)
		return false;
	frame->header = (struct net_header){
		.flags = NET_NEEDS_CSUM,
		.gso = ipv6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4,
		.header_length = (uint16_t)headers,
		.gso_size = (uint16_t)RNDIS_LSO_MSS(wishes->large_info),
		.csum_start = (uint16_t)l4,
		.csum_offset = 16,
	};
	*head = headers;
	return true;
}

static bool prepare_checksum(struct netvsp_tx_frame *frame, const struct wishes *wishes, size_t copied, size_t size,
			     size_t *head)
{
	uint32_t info = wishes->checksum_info;
	size_t l4 = RNDIS_TX_TCP_OFFSET(info);

	if (info & (RNDIS_TX_TCP | RNDIS_TX_UDP)) {
		size_t field = info & RNDIS_TX_TCP ? 16 : 6;

		if (l4 < PACKET_ETH + 20 || l4 + field + 2 > size)
			return false;
		frame->header.flags = NET_NEEDS_CSUM;
		frame->header.csum_start = (uint16_t)l4;
		frame->header.csum_offset = (uint16_t)field;
	}
	if ((info & RNDIS_TX_IP_HEADER) && (info & RNDIS_TX_IPV4)) {
		if (!packet_ipv4_checksum(frame->head, copied))
			return false;
		*head = PACKET_ETH + (frame->head[PACKET_ETH] & 15) * 4u;
	}
	return true;
}

/* The tag goes behind the addresses: the copied headers must be there to be moved. */
static size_t insert_vlan(struct netvsp_tx_frame *frame, uint32_t info, size_t head)
{
	uint32_t tci = (info & 7) << 13 | (info >> 3 & 1) << 12 | (info >> 4 & 0xfff);

	memmove(frame->head + 16, frame->head + 12, head - 12);
	frame->head[12] = 0x81;
	frame->head[13] = 0;
	frame->head[14] = (uint8_t)(tci >> 8);
	frame->head[15] = (uint8_t)tci;
	if (frame->header.flags & NET_NEEDS_CSUM)
		frame->header.csum_start = (uint16_t)(frame->header.csum_start + 4);
	if (frame->header.gso)
		frame->header.header_length = (uint16_t)(frame->header.header_length + 4);
	return head + 4;
}

/* One frame: bytes [offset, offset + size) of pieces. False: it is malformed, or there is no place for it. */
static bool add_frame(struct netvsp_channel *nc, const struct pieces *pieces, size_t offset, size_t size,
		      const struct wishes *wishes)
{
	struct netvsp_tx_frame *frame = &nc->frames[nc->tx_first + nc->tx_count];
	bool headers = nc->dev->net->headers;
	unsigned int pool_before = nc->pool_used;
	size_t head = 0, copied;

	frame->header = (struct net_header){ .gso = NET_GSO_NONE };
	frame->iov = nc->pool + nc->pool_used;
	frame->count = 0;
	frame->completes = false;
	frame->bytes = size;
	if (wishes->large || wishes->vlan || wishes->checksum) {
		copied = packet_iov_copy(pieces->iov, pieces->count, offset, frame->head,
					 size < PACKET_HEAD ? size : PACKET_HEAD, false);
		if (wishes->large && (!headers || !prepare_large(frame, wishes, copied, size, &head)))
			return false;
		if (!wishes->large && wishes->checksum &&
		    (!headers || !prepare_checksum(frame, wishes, copied, size, &head)))
			return false;
	}
	if (headers)
		add_own(nc, frame, &frame->header, sizeof(frame->header));
	if (wishes->vlan && head < PACKET_ETH)
		head = PACKET_ETH;
	if (head)
		add_own(nc, frame, frame->head, wishes->vlan ? insert_vlan(frame, wishes->vlan_info, head) : head);
	if (!add_pieces(nc, frame, pieces, offset + head, size - head)) {
		nc->pool_used = pool_before;
		return false;
	}
	nc->tx_count++;
	return true;
}

/* ---- RNDIS ---- */

static bool read_information(const uint8_t *info, size_t size, struct wishes *wishes)
{
	while (size >= sizeof(struct rndis_info)) {
		struct rndis_info head;
		uint32_t value;

		memcpy(&head, info, sizeof(head));
		if (head.size < sizeof(head) || head.size > size)
			return false;
		if (head.type == RNDIS_INFO_CHECKSUM || head.type == RNDIS_INFO_LARGE_SEND ||
		    head.type == RNDIS_INFO_VLAN) {
			if (head.offset < sizeof(head) || head.offset > head.size ||
			    head.size - head.offset < sizeof(value))
				return false;
			memcpy(&value, info + head.offset, sizeof(value));
			if (head.type == RNDIS_INFO_CHECKSUM) {
				wishes->checksum = value != 0;
				wishes->checksum_info = value;
			} else if (head.type == RNDIS_INFO_LARGE_SEND) {
				wishes->large = RNDIS_LSO_MSS(value) != 0;
				wishes->large_info = value;
			} else {
				wishes->vlan = true;
				wishes->vlan_info = value;
			}
		}
		info += head.size;
		size -= head.size;
	}
	return true;
}

/* An RNDIS_PACKET of length bytes at offset. */
static bool add_message(struct netvsp_channel *nc, const struct pieces *pieces, size_t offset, size_t length)
{
	uint8_t info[NETVSP_INFO_MAX];
	struct wishes wishes = { .checksum = false };
	struct rndis_packet packet;
	size_t inside = length - sizeof(struct rndis_header), base = offset + sizeof(struct rndis_header);

	if (length < RNDIS_PACKET_HEAD)
		return false;
	packet_iov_copy(pieces->iov, pieces->count, base, &packet, sizeof(packet), false);
	if (packet.data_offset > inside || packet.data_length > inside - packet.data_offset ||
	    packet.data_length < PACKET_ETH || packet.data_length > NET_SEGMENTS_MAX + PACKET_ETH)
		return false;
	if (packet.info_length) {
		if (packet.info_offset > inside || packet.info_length > inside - packet.info_offset ||
		    packet.info_length > sizeof(info))
			return false;
		packet_iov_copy(pieces->iov, pieces->count, base + packet.info_offset, info, packet.info_length, false);
		if (!read_information(info, packet.info_length, &wishes))
			return false;
	}
	return add_frame(nc, pieces, base + packet.data_offset, packet.data_length, &wishes);
}

/* ---- Memory ---- */

static bool add_memory(struct pieces *pieces, void *at, size_t size)
{
	struct iovec *last = pieces->count ? &pieces->iov[pieces->count - 1] : NULL;

	if (last && (uint8_t *)last->iov_base + last->iov_len == at) {
		last->iov_len += size;
	} else {
		if (pieces->count == NETVSP_PIECES)
			return false;
		pieces->iov[pieces->count++] = (struct iovec){ at, size };
	}
	pieces->size += size;
	return true;
}

static bool add_section(const struct netvsp *dev, struct pieces *pieces, uint32_t section, uint32_t size)
{
	size_t at = (size_t)section * NETVSP_SECTION_SIZE, end;

	if (!dev->send.pages || section >= dev->send.size / NETVSP_SECTION_SIZE || size > NETVSP_SECTION_SIZE)
		return false;
	for (end = at + size; at < end;) {
		size_t inside = at % NETVSP_PAGE, here = NETVSP_PAGE - inside;

		if (here > end - at)
			here = end - at;
		if (!add_memory(pieces, (uint8_t *)dev->send.pages[at / NETVSP_PAGE] + inside, here))
			return false;
		at += here;
	}
	return true;
}

/*
 * Linux include/linux/hyperv.h, struct vmdata_gpa_direct: 4 reserved bytes, the number of ranges, and for each its
 * length, its offset in the first page, and the pages it touches.
 */
static bool add_ranges(const struct netvsp_channel *nc, struct pieces *pieces, const struct vmbus_packet *packet)
{
	const uint64_t *word = packet->extra;
	size_t left = packet->extra_size / 8;
	uint32_t ranges;

	if (!left)
		return false;
	ranges = (uint32_t)(*word++ >> 32);
	left--;
	while (ranges--) {
		uint32_t size, offset;

		if (!left)
			return false;
		size = (uint32_t)*word;
		offset = (uint32_t)(*word++ >> 32);
		left--;
		if (offset >= NETVSP_PAGE)
			return false;
		for (uint32_t here; size; size -= here, offset = 0, left--, word++) {
			uint8_t *at;

			here = size < NETVSP_PAGE - offset ? size : NETVSP_PAGE - offset;
			if (!left || *word >= UINT64_MAX / NETVSP_PAGE)
				return false;
			at = vmbus_guest_memory(nc->channel, *word * NETVSP_PAGE + offset, here);
			if (!at || !add_memory(pieces, at, here))
				return false;
		}
	}
	return true;
}

/* ---- A packet ---- */

static int control(struct netvsp_channel *nc, const struct vmbus_packet *packet, const struct pieces *pieces)
{
	uint8_t message[NETVSP_CONTROL_MAX];
	bool asked = packet->flags & VMBUS_PACKET_COMPLETION_REQUESTED;
	int ret;

	if (nc->index || pieces->size < sizeof(struct rndis_header) || pieces->size > sizeof(message))
		return -EPROTO;
	packet_iov_copy(pieces->iov, pieces->count, 0, message, pieces->size, false);
	/* The memory is the guest's again before it gets the answer. */
	ret = asked ? netvsp_complete(nc, packet->transaction, NVSP_STATUS_SUCCESS) : 0;
	if (ret || !nc->open)
		return ret == -ENOTCONN ? 0 : ret;
	return netvsp_control(nc->dev, message, pieces->size);
}

static bool has_place(const struct netvsp_channel *nc, const struct pieces *pieces)
{
	return nc->tx_first + nc->tx_count < NET_BATCH && nc->pool_used + pieces->count + 2 <= NETVSP_POOL;
}

/* Frames of one packet; false: something in it is malformed, and what comes behind that is not looked at. */
static bool add_messages(struct netvsp_channel *nc, const struct pieces *pieces)
{
	size_t at = 0;

	while (pieces->size - at >= sizeof(struct rndis_header)) {
		struct rndis_header header;

		packet_iov_copy(pieces->iov, pieces->count, at, &header, sizeof(header), false);
		if (header.type != RNDIS_PACKET || header.length < RNDIS_PACKET_HEAD ||
		    header.length > pieces->size - at)
			return false;
		if (!has_place(nc, pieces))
			netvsp_tx_flush(nc);
		if (!nc->open)
			return true;
		if (!has_place(nc, pieces))
			nc->dev->stats.tx_dropped++; /* the back-end is full, and so are we */
		else if (!add_message(nc, pieces, at, header.length))
			return false;
		at += header.length;
	}
	return at != 0;
}

int netvsp_tx(struct netvsp_channel *nc, const struct vmbus_packet *packet, const struct nvsp_message *message)
{
	static const uint32_t status[] = { NVSP_STATUS_INVALID_RNDIS, NVSP_STATUS_SUCCESS };
	bool good = true, asked = packet->flags & VMBUS_PACKET_COMPLETION_REQUESTED;
	struct netvsp_tx_frame *last;
	struct pieces pieces;

	pieces.count = 0;
	pieces.size = 0;
	if (message->rndis.section != NVSP_NO_SECTION)
		good = add_section(nc->dev, &pieces, message->rndis.section, message->rndis.section_size);
	if (good && packet->type == VMBUS_PACKET_GPA_DIRECT)
		good = add_ranges(nc, &pieces, packet);
	if (message->rndis.channel_type == NVSP_CHANNEL_CONTROL)
		return good ? control(nc, packet, &pieces) : -EPROTO;
	good = good && nc->dev->initialized && add_messages(nc, &pieces);
	if (!nc->open)
		return 0;
	nc->dev->stats.tx_errors += !good;
	if (!asked)
		return 0;
	last = nc->tx_count ? &nc->frames[nc->tx_first + nc->tx_count - 1] : NULL;
	if (!last || last->completes) { /* it left no frame here: what it had is gone out or lost */
		netvsp_complete(nc, packet->transaction, status[good]);
		return 0;
	}
	last->completes = true;
	last->transaction = packet->transaction;
	last->status = status[good];
	return 0;
}
