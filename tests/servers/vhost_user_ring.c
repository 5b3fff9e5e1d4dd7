/* SPDX-License-Identifier: MIT */
/*
 * Guest memory and virtqueues of the tests' vhost-user back-end: split and packed (virtio 1.2, 2.7 and 2.8), with
 * indirect descriptors and event indexes.
 *
 * With an inflight region, each chain taken is written down there, its buffers too, since a packed ring's descriptors
 * are overwritten by those used out of order. A back-end that dies in between leaves the chain to its successor. (It
 * may die between two chains only, so the order of stores does not matter.)
 */
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

#include "tests/servers/vhost_user.h"

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4, DESC_AVAIL = 1 << 7, DESC_USED = 1 << 15 };
enum { WRAP = 1 << 15, AVAIL_NO_INTERRUPT = 1 };
enum { EVENT_ENABLE, EVENT_DISABLE, EVENT_DESC };

struct split_desc {
	uint64_t address;
	uint32_t length;
	uint16_t flags, next;
};

struct packed_desc {
	uint64_t address;
	uint32_t length;
	uint16_t id, flags;
};

bool acked(const struct server *s, unsigned int feature)
{
	return s->acked >> feature & 1;
}

static uint8_t *translate(struct server *s, uint64_t address, uint64_t length, bool user)
{
	for (unsigned int i = 0; i < s->nr_regions; i++) {
		const struct mapping *m = &s->regions[i];
		uint64_t start = user ? m->r.user : m->r.guest;

		if (address >= start && address - start < m->r.size && length <= m->r.size - (address - start))
			return m->base + m->r.offset + (address - start);
	}
	return NULL;
}

uint8_t *guest_memory(struct server *s, uint64_t address, uint64_t length)
{
	return translate(s, address, length, false);
}

uint8_t *user_memory(struct server *s, uint64_t address, uint64_t length)
{
	return translate(s, address, length, !(s->acked_protocol >> PF_GPA & 1));
}

void locate_ring(struct server *s, struct queue *q)
{
	bool packed = acked(s, F_PACKED);

	q->desc = q->avail_ring = q->used_ring = NULL;
	if (!q->addressed || !q->size)
		return;
	q->desc = user_memory(s, q->where.desc, 16ULL * q->size);
	q->avail_ring = user_memory(s, q->where.avail, packed ? 4 : 6 + 2ULL * q->size);
	q->used_ring = user_memory(s, q->where.used, packed ? 4 : 6 + 8ULL * q->size);
}

static uint16_t load16(const uint8_t *at)
{
	return __atomic_load_n((const uint16_t *)(const void *)at, __ATOMIC_ACQUIRE);
}

static void store16(uint8_t *at, uint16_t value)
{
	__atomic_store_n((uint16_t *)(void *)at, value, __ATOMIC_RELEASE);
}

static bool broken(struct queue *q, const char *why)
{
	fprintf(stderr, "queue %u: %s\n", q->where.index, why);
	q->started = false;
	return false;
}

static bool add_part(struct server *s, struct element *e, uint64_t address, uint32_t length, bool writable)
{
	uint8_t *data = guest_memory(s, address, length);

	if (!data || e->nr_parts == MAX_CHAIN)
		return false;
	e->parts[e->nr_parts++] = (struct part){ data, length, writable };
	return true;
}

/* The place of q's record of this chain, if records are kept. */
static struct record *record_of(struct queue *q, uint16_t id)
{
	return q->survivor && id < MAX_SIZE ? &q->survivor->records[id] : NULL;
}

static void note_part(struct record *r, uint64_t address, uint32_t length, bool writable)
{
	if (!r || r->nr_parts == sizeof(r->parts) / sizeof(r->parts[0]))
		return;
	r->parts[r->nr_parts].address = address;
	r->parts[r->nr_parts].length = length;
	r->parts[r->nr_parts++].writable = writable;
}

static bool walk_split(struct server *s, struct queue *q, struct element *e, struct record *r)
{
	const uint8_t *table = q->desc;
	uint32_t size = q->size, index = e->id;
	bool indirect = false;

	for (uint32_t steps = 0; steps < MAX_CHAIN; steps++) {
		struct split_desc d;

		if (index >= size)
			return broken(q, "descriptor index beyond the table");
		memcpy(&d, table + 16ULL * index, sizeof(d));
		if (d.flags & DESC_INDIRECT) {
			if (indirect || !acked(s, F_INDIRECT) || d.length % 16 || !d.length)
				return broken(q, "bad indirect descriptor");
			table = guest_memory(s, d.address, d.length);
			if (!table)
				return broken(q, "indirect table outside guest memory");
			size = d.length / 16;
			index = 0;
			indirect = true;
			continue;
		}
		if (!add_part(s, e, d.address, d.length, d.flags & DESC_WRITE))
			return broken(q, "buffer outside guest memory");
		note_part(r, d.address, d.length, d.flags & DESC_WRITE);
		if (!(d.flags & DESC_NEXT))
			return true;
		index = d.next;
	}
	return broken(q, "chain without end");
}

static bool pop_split(struct server *s, struct queue *q, struct element *e)
{
	uint16_t available = load16(q->avail_ring + 2);
	struct record *r;

	if (available == q->avail) {
		if (acked(s, F_EVENT_IDX)) {
			store16(q->used_ring + 4 + 8UL * q->size, q->avail);
			__sync_synchronize();
			available = load16(q->avail_ring + 2);
		}
		if (available == q->avail)
			return false;
	}
	if ((uint16_t)(available - q->avail) > q->size)
		return broken(q, "available index runs away");
	e->id = load16(q->avail_ring + 4 + 2UL * (q->avail % q->size));
	e->count = 1;
	r = record_of(q, e->id);
	if (r)
		r->nr_parts = 0;
	if (!walk_split(s, q, e, r))
		return false;
	q->avail++;
	return true;
}

static uint16_t advance(const struct queue *q, uint16_t position, uint16_t by)
{
	uint32_t index = (position & ~WRAP) + by;

	return index >= q->size ? (uint16_t)((index - q->size) | (~position & WRAP))
				: (uint16_t)(index | (position & WRAP));
}

static bool is_available(uint16_t flags, uint16_t position)
{
	bool wrap = position & WRAP;

	return !!(flags & DESC_AVAIL) == wrap && !!(flags & DESC_USED) != wrap;
}

static bool walk_indirect(struct server *s, struct queue *q, struct element *e, const struct packed_desc *d,
			  struct record *r)
{
	const uint8_t *table = guest_memory(s, d->address, d->length);

	if (!acked(s, F_INDIRECT) || d->length % 16 || !d->length || !table || (d->flags & DESC_NEXT))
		return broken(q, "bad indirect descriptor");
	for (uint32_t i = 0; i < d->length / 16; i++) {
		struct packed_desc one;

		memcpy(&one, table + 16ULL * i, sizeof(one));
		if (!add_part(s, e, one.address, one.length, one.flags & DESC_WRITE))
			return broken(q, "buffer outside guest memory");
		note_part(r, one.address, one.length, one.flags & DESC_WRITE);
	}
	return true;
}

/* The buffer id is in the last descriptor of a chain: find it before anything is written down under it. */
static bool measure_packed(struct queue *q, struct element *e)
{
	uint16_t at = q->avail & (uint16_t)~WRAP;

	for (e->count = 1; e->count <= q->size && e->count <= MAX_CHAIN; e->count++) {
		struct packed_desc d;

		memcpy(&d, q->desc + 16UL * at, sizeof(d));
		e->id = d.id;
		if (!(d.flags & DESC_NEXT))
			return true;
		at = (uint16_t)((at + 1) % q->size);
	}
	return broken(q, "chain without end");
}

static bool pop_packed(struct server *s, struct queue *q, struct element *e)
{
	uint16_t at = q->avail & (uint16_t)~WRAP;
	struct record *r;

	if (!is_available(load16(q->desc + 16UL * at + 14), q->avail))
		return false;
	if (!measure_packed(q, e))
		return false;
	r = record_of(q, e->id);
	if (r)
		r->nr_parts = 0;
	for (uint16_t i = 0; i < e->count; i++) {
		struct packed_desc d;

		memcpy(&d, q->desc + 16UL * at, sizeof(d));
		if (d.flags & DESC_INDIRECT) {
			if (!walk_indirect(s, q, e, &d, r))
				return false;
		} else {
			if (!add_part(s, e, d.address, d.length, d.flags & DESC_WRITE))
				return broken(q, "buffer outside guest memory");
			note_part(r, d.address, d.length, d.flags & DESC_WRITE);
		}
		at = (uint16_t)((at + 1) % q->size);
	}
	q->avail = advance(q, q->avail, e->count);
	return true;
}

bool pop(struct server *s, struct queue *q, struct element *e)
{
	struct record *r;

	e->nr_parts = 0;
	if (!q->desc || !q->avail_ring || !q->used_ring)
		return false;
	if (!(acked(s, F_PACKED) ? pop_packed(s, q, e) : pop_split(s, q, e)))
		return false;
	r = record_of(q, e->id);
	if (r) {
		r->order = ++q->survivor->next_order;
		r->count = e->count;
		q->survivor->avail = q->avail;
	}
	return true;
}

bool next_survivor(struct server *s, struct queue *q, uint64_t *order, struct element *e)
{
	struct record *best = NULL;

	for (uint16_t i = 0; q->survivor && i < MAX_SIZE; i++) {
		struct record *r = &q->survivor->records[i];

		if (r->order > *order && (!best || r->order < best->order)) {
			best = r;
			e->id = i;
		}
	}
	if (!best)
		return false;
	*order = best->order;
	e->count = best->count;
	e->nr_parts = 0;
	for (unsigned int i = 0; i < best->nr_parts; i++)
		if (!add_part(s, e, best->parts[i].address, best->parts[i].length, best->parts[i].writable))
			return broken(q, "a buffer is no longer in guest memory");
	return true;
}

void recover_positions(struct server *s, struct queue *q)
{
	bool packed = acked(s, F_PACKED);

	if (!q->survivor)
		return;
	if (!q->survivor->magic) {
		memset(q->survivor, 0, sizeof(*q->survivor));
		q->survivor->magic = VUT_MAGIC;
		q->survivor->avail = q->avail;
		q->survivor->used = packed ? q->used : load16(q->used_ring + 2);
	}
	q->avail = q->survivor->avail;
	q->used = q->survivor->used;
}

static void push_split(struct queue *q, uint16_t id, uint32_t written)
{
	uint8_t *entry = q->used_ring + 4 + 8UL * (q->used % q->size);
	uint32_t whole = id;

	memcpy(entry, &whole, 4);
	memcpy(entry + 4, &written, 4);
	q->used++;
	store16(q->used_ring + 2, q->used);
}

static void push_packed(struct queue *q, uint16_t id, uint16_t count, uint32_t written)
{
	uint8_t *desc = q->desc + 16UL * (q->used & (uint16_t)~WRAP);

	memcpy(desc + 8, &written, 4);
	memcpy(desc + 12, &id, 2);
	store16(desc + 14, (uint16_t)((q->used & WRAP ? DESC_AVAIL | DESC_USED : 0) | (written ? DESC_WRITE : 0)));
	q->used = advance(q, q->used, count);
}

/* Whether the driver wants to hear that the used position has gone on from `old`. */
static bool wanted(struct server *s, struct queue *q, uint16_t old)
{
	uint16_t event, flags, off;

	__sync_synchronize();
	if (acked(s, F_PACKED)) {
		off = load16(q->avail_ring);
		flags = load16(q->avail_ring + 2);
		if (flags == EVENT_DISABLE)
			return false;
		/* Over the end of the ring, once too often does no harm. */
		if (flags != EVENT_DESC || !acked(s, F_EVENT_IDX) || (q->used ^ old) & WRAP)
			return true;
		event = off & (uint16_t)~WRAP;
		if ((off & WRAP) != (q->used & WRAP))
			event = (uint16_t)(event - q->size);
		return (uint16_t)((q->used & ~WRAP) - event - 1) < (uint16_t)((q->used & ~WRAP) - (old & ~WRAP));
	}
	if (!acked(s, F_EVENT_IDX))
		return !(load16(q->avail_ring) & AVAIL_NO_INTERRUPT);
	event = load16(q->avail_ring + 4 + 2UL * q->size);
	return (uint16_t)(q->used - event - 1) < (uint16_t)(q->used - old);
}

static void push_entry(struct server *s, struct queue *q, uint16_t id, uint16_t count, uint32_t written)
{
	uint16_t old = q->used;

	if (acked(s, F_PACKED))
		push_packed(q, id, count, written);
	else
		push_split(q, id, written);
	if (q->survivor)
		q->survivor->used = q->used;
	if (wanted(s, q, old))
		notify(s, q);
}

void push(struct server *s, struct queue *q, const struct element *e, uint32_t written)
{
	struct record *r = record_of(q, e->id);

	if (!q->desc || !q->used_ring)
		return;
	if (r)
		r->order = 0;
	push_entry(s, q, e->id, e->count, written);
}

void push_fake(struct server *s, struct queue *q, uint16_t id, uint32_t written)
{
	if (q->desc && q->used_ring && q->size)
		push_entry(s, q, id, 1, written);
}

void notify(struct server *s, struct queue *q)
{
	uint32_t state[2] = { q->where.index, 0 };

	if (q->call >= 0)
		eventfd_write(q->call, 1);
	else if (s->acked_protocol >> PF_INBAND & 1)
		ask(s, VRING_CALL, state, sizeof(state), NULL, 0, false);
}
