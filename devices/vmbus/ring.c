/* SPDX-License-Identifier: MIT */
/*
 * Each ring has one writer and one reader. The writer owns write_index and pending_send_sz, the reader read_index and
 * interrupt_mask; equal indices mean empty, so one byte always stays free. Packets are multiples of 8 bytes: a
 * descriptor, a range list or nothing, the payload, and a word whose upper half is the packet's own offset.
 *
 * Whoever goes to sleep says so first and then looks again; the other side changes its index first and then looks
 * whether anybody sleeps. Each side therefore stores one word and loads another, and no store may pass the load: those
 * pairs are sequentially consistent here, as they are behind a full barrier in a guest.
 *
 *	the reader sleeps   interrupt_mask = 0, then looks at write_index
 *	the writer          write_index, then looks at interrupt_mask and read_index
 *	the writer sleeps   pending_send_sz = n, then looks at read_index
 *	the reader          read_index, then looks at pending_send_sz
 *
 * A signal is due on a transition only: from empty, or from no room for pending_send_sz to room for it.
 */
#include "devices/vmbus/ring.h"

#include <errno.h>
#include <string.h>

#define DESCRIPTOR_SIZE 16u
#define TRAILER_SIZE	8u

/* Linux include/linux/hyperv.h, struct hv_ring_buffer. */
struct control {
	uint32_t write_index;
	uint32_t read_index;
	uint32_t interrupt_mask;
	uint32_t pending_send_sz;
	uint32_t reserved[12];
	uint32_t feature_bits;
};
#define FEATURE_PENDING_SEND_SZ 1u /* the writer may set pending_send_sz */

/* The same, struct vmpacket_descriptor. */
struct descriptor {
	uint16_t type;
	uint16_t offset8; /* of the payload */
	uint16_t len8;	  /* of all but the trailer */
	uint16_t flags;
	uint64_t transaction;
};
_Static_assert(sizeof(struct descriptor) == DESCRIPTOR_SIZE, "as on the wire");

static uint32_t load(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static void store(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

static struct control *control_of(const struct vmbus_ring *ring)
{
	return ring->control;
}

static bool index_is_good(const struct vmbus_ring *ring, uint32_t index)
{
	return index < ring->size && !(index % 8);
}

/* Bytes from index from to index to. */
static uint32_t distance(const struct vmbus_ring *ring, uint32_t from, uint32_t to)
{
	return to >= from ? to - from : ring->size - from + to;
}

/* at + bytes <= 2 * size, which may pass 32 bits. */
static uint32_t advance(const struct vmbus_ring *ring, uint32_t at, uint32_t bytes)
{
	uint64_t next = (uint64_t)at + bytes;

	return (uint32_t)(next >= ring->size ? next - ring->size : next);
}

/* Host address of the byte at index, and how many of bytes follow it there. */
static uint8_t *piece(const struct vmbus_ring *ring, uint32_t index, size_t bytes, size_t *here)
{
	size_t room;
	uint8_t *at;

	if (!ring->data) {
		at = (uint8_t *)ring->pages[index / RING_PAGE] + index % RING_PAGE;
		room = RING_PAGE - index % RING_PAGE;
	} else {
		at = ring->data + index;
		room = ring->twice ? bytes : ring->size - index;
	}
	*here = bytes < room ? bytes : room;
	return at;
}

/* bytes <= size of the ring */
static void copy_out(const struct vmbus_ring *ring, uint32_t index, void *to, size_t bytes)
{
	uint8_t *out = to;

	while (bytes) {
		size_t here;
		const uint8_t *from = piece(ring, index, bytes, &here);

		memcpy(out, from, here);
		out += here;
		bytes -= here;
		index = advance(ring, index, (uint32_t)here);
	}
}

/* Returns the index behind what was copied. */
static uint32_t copy_in(const struct vmbus_ring *ring, uint32_t index, const void *from, size_t bytes)
{
	const uint8_t *in = from;

	while (bytes) {
		size_t here;
		uint8_t *to = piece(ring, index, bytes, &here);

		memcpy(to, in, here);
		in += here;
		bytes -= here;
		index = advance(ring, index, (uint32_t)here);
	}
	return index;
}

static bool is_contiguous(void *const *pages, size_t count)
{
	for (size_t i = 1; i < count; i++)
		if ((uint8_t *)pages[i] != (uint8_t *)pages[i - 1] + RING_PAGE)
			return false;
	return true;
}

int ring_attach(struct vmbus_ring *ring, void *const *pages, size_t count, void *mapped, bool inbound)
{
	struct control *control;
	uint32_t read_index, write_index;

	if (count < 2 || count - 1 > UINT32_MAX / RING_PAGE)
		return -EINVAL;
	control = pages[0];
	*ring = (struct vmbus_ring){ .control = control, .size = (uint32_t)((count - 1) * RING_PAGE) };
	if (mapped) {
		ring->data = mapped;
		ring->twice = true;
	} else if (is_contiguous(pages + 1, count - 1)) {
		ring->data = pages[1];
	} else {
		ring->pages = pages + 1;
	}
	read_index = load(&control->read_index);
	write_index = load(&control->write_index);
	if (!index_is_good(ring, read_index) || !index_is_good(ring, write_index))
		return -EINVAL;
	ring->index = inbound ? read_index : write_index;
	ring->published = ring->index;
	if (!inbound)
		store(&control->feature_bits, load(&control->feature_bits) | FEATURE_PENDING_SEND_SZ);
	return 0;
}

/* Everything is judged by this one copy of the descriptor; what the guest does to the ring meanwhile changes nothing.
 */
static int check_packet(const struct descriptor *d, uint32_t available, size_t max)
{
	uint32_t length = d->len8 * 8u, offset = d->offset8 * 8u;

	if (length < DESCRIPTOR_SIZE || offset < DESCRIPTOR_SIZE || offset > length ||
	    length + TRAILER_SIZE > available)
		return -EPROTO;
	return length > max ? -EMSGSIZE : 0;
}

int ring_read(struct vmbus_ring *ring, void *buffer, size_t max, struct vmbus_packet *packet)
{
	uint32_t write_index = load(&control_of(ring)->write_index), available, length, offset;
	struct descriptor d;
	uint8_t *bytes = buffer;
	int ret;

	if (!index_is_good(ring, write_index))
		return -EPROTO;
	available = distance(ring, ring->index, write_index);
	if (!available)
		return 0;
	if (available < DESCRIPTOR_SIZE + TRAILER_SIZE)
		return -EPROTO;
	copy_out(ring, ring->index, &d, DESCRIPTOR_SIZE);
	ret = check_packet(&d, available, max);
	if (ret)
		return ret;
	length = d.len8 * 8u;
	offset = d.offset8 * 8u;
	memcpy(bytes, &d, DESCRIPTOR_SIZE);
	copy_out(ring, advance(ring, ring->index, DESCRIPTOR_SIZE), bytes + DESCRIPTOR_SIZE, length - DESCRIPTOR_SIZE);
	*packet = (struct vmbus_packet){
		.type = d.type,
		.flags = d.flags,
		.transaction = d.transaction,
		.payload = bytes + offset,
		.size = length - offset,
		.extra = bytes + DESCRIPTOR_SIZE,
		.extra_size = offset - DESCRIPTOR_SIZE,
	};
	ring->index = advance(ring, ring->index, length + TRAILER_SIZE);
	return 1;
}

bool ring_read_done(struct vmbus_ring *ring)
{
	struct control *control = control_of(ring);
	uint32_t before = ring->published, pending, write_index;

	if (before == ring->index)
		return false;
	ring->published = ring->index;
	store(&control->read_index, ring->index);
	pending = load(&control->pending_send_sz);
	if (!pending || !(load(&control->feature_bits) & FEATURE_PENDING_SEND_SZ))
		return false;
	write_index = load(&control->write_index);
	if (!index_is_good(ring, write_index))
		return false; /* the next ring_read() says so */
	/* Was there too little room for the guest's packet, and is there enough now? */
	return ring->size - distance(ring, before, write_index) <= pending &&
	       ring->size - distance(ring, ring->index, write_index) > pending;
}

bool ring_mask(struct vmbus_ring *ring, bool on)
{
	struct control *control = control_of(ring);

	store(&control->interrupt_mask, on);
	return !on && load(&control->write_index) != ring->index;
}

/* Bytes that can be written, of which one has to stay free; -EPROTO for an impossible index. */
static int64_t room(const struct vmbus_ring *ring)
{
	uint32_t read_index = load(&control_of(ring)->read_index);

	if (!index_is_good(ring, read_index))
		return -EPROTO;
	return (int64_t)ring->size - distance(ring, read_index, ring->index);
}

/*
 * The guest compares its room before and after it has read with pending_send_sz, and takes the room from the index it
 * sees: had it not seen all that fills the ring, it would not notice that we were blocked.
 */
static int wait_for_room(struct vmbus_ring *ring, uint32_t total)
{
	int64_t available;

	ring->signal = ring_publish(ring);
	ring->wanted = total;
	store(&control_of(ring)->pending_send_sz, total);
	available = room(ring);
	if (available < 0)
		return (int)available;
	return available > total ? 0 : -EAGAIN;
}

static void stop_waiting(struct vmbus_ring *ring)
{
	ring->wanted = 0;
	store(&control_of(ring)->pending_send_sz, 0);
}

int ring_write(struct vmbus_ring *ring, uint16_t type, uint16_t flags, uint64_t transaction, const void *head,
	       size_t head_size, const void *payload, size_t size)
{
	static const uint64_t zero;
	bool ranges = type == VMBUS_PACKET_TRANSFER_PAGES || type == VMBUS_PACKET_GPA_DIRECT;
	uint64_t trailer = (uint64_t)ring->index << 32;
	struct descriptor d = { .type = type, .flags = flags, .transaction = transaction };
	size_t padding = -size & 7, limit = UINT16_MAX * 8u;
	int64_t available;
	uint32_t length, total, at;

	if (head_size % 8 || head_size > limit || size > limit ||
	    DESCRIPTOR_SIZE + head_size + size + padding > limit ||
	    DESCRIPTOR_SIZE + head_size + size + padding + TRAILER_SIZE >= ring->size)
		return -EMSGSIZE;
	length = (uint32_t)(DESCRIPTOR_SIZE + head_size + size + padding);
	total = length + TRAILER_SIZE;
	available = room(ring);
	if (available < 0)
		return (int)available;
	if (available <= total) {
		int ret = wait_for_room(ring, total);

		if (ret)
			return ret;
	}
	if (ring->wanted && ring->wanted <= total)
		stop_waiting(ring);
	d.offset8 = (uint16_t)((DESCRIPTOR_SIZE + (ranges ? head_size : 0)) / 8);
	d.len8 = (uint16_t)(length / 8);
	at = copy_in(ring, ring->index, &d, DESCRIPTOR_SIZE);
	at = copy_in(ring, at, head, head_size);
	at = copy_in(ring, at, payload, size);
	at = copy_in(ring, at, &zero, padding);
	ring->index = copy_in(ring, at, &trailer, TRAILER_SIZE);
	return 0;
}

bool ring_publish(struct vmbus_ring *ring)
{
	struct control *control = control_of(ring);
	uint32_t before = ring->published;
	bool signal = ring->signal;

	ring->signal = false;
	if (before == ring->index)
		return signal;
	ring->published = ring->index;
	store(&control->write_index, ring->index);
	/* A guest that had not read all there was before will see this too before it sleeps. */
	return signal || (!load(&control->interrupt_mask) && load(&control->read_index) == before);
}

bool ring_room(struct vmbus_ring *ring)
{
	if (!ring->wanted || room(ring) <= ring->wanted)
		return false;
	stop_waiting(ring);
	return true;
}
