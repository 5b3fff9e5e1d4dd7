/* SPDX-License-Identifier: MIT */
/* Packets on a channel's rings, both ways. */
#include "rt/hyperv.h"
#include "rt/io.h"
#include "rt/vmbus.h"

uint32_t vb_room(const struct vb_ring *ring)
{
	uint32_t write = ring->control[VB_WRITE], read = ring->control[VB_READ];

	return write >= read ? ring->size - (write - read) : read - write;
}

static uint32_t put_at(struct vb_ring *ring, uint32_t at, const void *bytes, uint32_t size)
{
	uint32_t first = ring->size - at < size ? ring->size - at : size;

	vb_copy8(ring->data + at, bytes, first);
	vb_copy8(ring->data, (const uint8_t *)bytes + first, size - first);
	at += size;
	return at >= ring->size ? at - ring->size : at;
}

void vb_put_raw(struct vb_ring *ring, const void *bytes, uint32_t size)
{
	uint32_t next = put_at(ring, ring->control[VB_WRITE], bytes, size);

	__atomic_store_n(&ring->control[VB_WRITE], next, __ATOMIC_SEQ_CST);
}

void vb_signal(struct vb_channel *ch)
{
	ch->signals++;
	if (ch->monitored) {
		/* Linux drivers/hv/channel.c: two words a group of 32 behind the first two words of the page. */
		volatile uint32_t *page = (volatile uint32_t *)(vb.monitor_pages + VB_PAGE);

		__atomic_fetch_or(&page[2 + ch->monitor / 32 * 2], 1u << ch->monitor % 32, __ATOMIC_SEQ_CST);
		return;
	}
	if (!ch->dedicated && vb.interrupt_page) {
		/* The second half of the page is what we tell the host. */
		volatile uint32_t *bits = (volatile uint32_t *)(vb.interrupt_page + VB_PAGE / 2);

		__atomic_fetch_or(&bits[ch->relid / 32], 1u << ch->relid % 32, __ATOMIC_SEQ_CST);
	}
	/* A channel that failed has no connection; a guest would not look at the status at all. */
	if (hv_signal(ch->connection, 0))
		CHECK(vb.lenient);
}

bool vb_send2(struct vb_channel *ch, uint16_t type, uint16_t flags, uint64_t transaction, const void *extra,
	      uint32_t extra_size, const void *payload, uint32_t size)
{
	struct vb_ring *ring = &ch->out;
	uint32_t padded = (size + 7) & ~7u, begin = ring->control[VB_WRITE], at;
	struct vb_packet packet = { type, (uint16_t)(2 + extra_size / 8), (uint16_t)(2 + (extra_size + padded) / 8),
				    flags, transaction };
	uint64_t last[2] = { 0, (uint64_t)begin << 32 };

	if (vb_room(ring) <= 16 + extra_size + padded + 8)
		return false;
	at = put_at(ring, begin, &packet, 16);
	at = put_at(ring, at, extra, extra_size);
	at = put_at(ring, at, payload, size & ~7u);
	if (size % 8) {
		memcpy(last, (const uint8_t *)payload + (size & ~7u), size % 8);
		at = put_at(ring, at, last, 8);
	}
	at = put_at(ring, at, &last[1], 8);
	__atomic_store_n(&ring->control[VB_WRITE], at, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!ring->control[VB_MASK] && ring->control[VB_READ] == begin)
		vb_signal(ch);
	return true;
}

bool vb_send(struct vb_channel *ch, uint16_t type, uint16_t flags, uint64_t transaction, const void *payload,
	     uint32_t size)
{
	return vb_send2(ch, type, flags, transaction, NULL, 0, payload, size);
}

static uint32_t get_at(const struct vb_ring *ring, uint32_t at, void *bytes, uint32_t size)
{
	uint32_t first = ring->size - at < size ? ring->size - at : size;

	vb_copy8(bytes, ring->data + at, first);
	vb_copy8((uint8_t *)bytes + first, ring->data, size - first);
	at += size;
	return at >= ring->size ? at - ring->size : at;
}

/* The host waits for room, and this is the read that makes it. */
static bool host_waits(const struct vb_ring *ring, uint32_t freed)
{
	uint32_t pending = ring->control[VB_PENDING], room;

	if (!pending)
		return false;
	room = vb_room(ring);
	return room > pending && room - freed <= pending;
}

int vb_recv(struct vb_channel *ch, struct vb_packet *packet, void *buffer, uint32_t max)
{
	struct vb_ring *ring = &ch->in;
	uint32_t begin = ring->control[VB_READ], write = __atomic_load_n(&ring->control[VB_WRITE], __ATOMIC_SEQ_CST),
		 there, whole, at;
	uint64_t trailer;

	if (write == begin)
		return -1;
	CHECK(write < ring->size && write % 8 == 0);
	there = write > begin ? write - begin : ring->size - begin + write;
	CHECK(there >= 24);
	at = get_at(ring, begin, packet, 16);
	CHECK(packet->offset8 >= 2 && packet->offset8 <= packet->length8);
	whole = packet->length8 * 8u + 8;
	CHECK(whole <= there);
	CHECK(packet->length8 * 8u - 16 <= max);
	at = get_at(ring, at, buffer, packet->length8 * 8u - 16);
	at = get_at(ring, at, &trailer, 8);
	CHECK_EQ(trailer, (uint64_t)begin << 32);
	__atomic_store_n(&ring->control[VB_READ], at, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (host_waits(ring, whole))
		vb_signal(ch);
	return (int)(packet->length8 * 8u - 16);
}

uint32_t vb_await(struct vb_channel *ch, struct vb_packet *packet, void *buffer, uint32_t max)
{
	uint64_t end = vb_deadline(VB_WAIT);
	int size;

	for (unsigned int looks = 0; (size = vb_recv(ch, packet, buffer, max)) < 0; looks++) {
		CHECK(vb_in_time(end));
		vb_poll();
		vb_rest(looks);
	}
	return (uint32_t)size;
}
