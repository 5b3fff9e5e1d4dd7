/* SPDX-License-Identifier: MIT */
/*
 * Two pairs of words decide who tells whom: each side writes its own, then looks at the other's. Neither may be seen
 * the other way round, or both sides wait; hence the sequentially consistent accesses below.
 */
#include "devices/virtio/ring.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "vmm/memory.h"

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };
enum { AVAIL_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };

/* 2.7.5 */
struct descriptor {
	uint64_t address;
	uint32_t length;
	uint16_t flags, next;
};
_Static_assert(sizeof(struct descriptor) == 16, "as in memory");

/* 2.7.8 */
struct used_element {
	uint32_t id, length;
};

/* A table of descriptors: the ring's own, or an indirect one. */
struct table {
	const uint8_t *host;
	uint32_t count;
};

/* A 16-bit word of a ring; virtio_check_ring() has seen that all of it is RAM, and aligned. */
static _Atomic uint16_t *word(const struct virtio_ring *r, uint64_t ring, uint64_t offset)
{
	return ram_ptr(r->memory, ring + offset, sizeof(uint16_t));
}

static _Atomic uint16_t *avail_index(const struct virtio_ring *r)
{
	return word(r, r->setup.driver, 2);
}

static _Atomic uint16_t *avail_entry(const struct virtio_ring *r)
{
	return word(r, r->setup.driver, 4 + 2 * (uint64_t)(r->next_avail % r->setup.size));
}

static _Atomic uint16_t *used_event(const struct virtio_ring *r)
{
	return word(r, r->setup.driver, 4 + 2 * (uint64_t)r->setup.size);
}

static _Atomic uint16_t *avail_event(const struct virtio_ring *r)
{
	return word(r, r->setup.device, 4 + 8 * (uint64_t)r->setup.size);
}

int virtio_ring_init(struct virtio_ring *r, const struct memory *memory, const struct virtio_queue_setup *setup,
		     uint64_t features)
{
	memset(r, 0, sizeof(*r));
	r->memory = memory;
	r->setup = *setup;
	r->indirect = features & VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC);
	r->event_idx = features & VIRTIO_BIT(VIRTIO_F_EVENT_IDX);
	if (!setup->size || (setup->size & (setup->size - 1)))
		return -EFAULT;
	return virtio_check_ring(memory, setup, false);
}

static int read_descriptor(const struct table *t, uint32_t index, struct descriptor *d)
{
	if (index >= t->count)
		return -EPROTO;
	memcpy(d, t->host + (uint64_t)index * sizeof(*d), sizeof(*d));
	/* What was copied is what is checked and used: the compiler must not look again. */
	atomic_signal_fence(memory_order_seq_cst);
	return 0;
}

static int add_part(const struct virtio_ring *r, struct virtio_chain *c, const struct descriptor *d)
{
	bool write = d->flags & DESC_WRITE;
	struct virtio_part *p = &c->parts[c->nr_read + c->nr_write];

	/* 2.7.4.2: all that the device writes comes after all that it reads. */
	if (c->nr_read + c->nr_write == VIRTIO_CHAIN_MAX || (!write && c->nr_write))
		return -EPROTO;
	p->host = ram_ptr(r->memory, d->address, d->length);
	p->length = d->length;
	if (!p->host)
		return -EPROTO;
	if (write) {
		c->nr_write++;
		c->write_bytes += d->length;
	} else {
		c->nr_read++;
		c->read_bytes += d->length;
	}
	return 0;
}

/* 2.7.5.3: an indirect descriptor is the last of its chain, and its table has no other. */
static int enter_indirect(const struct virtio_ring *r, const struct descriptor *d, struct table *t)
{
	if (!r->indirect || (d->flags & DESC_NEXT) || d->length % sizeof(*d))
		return -EPROTO;
	t->host = ram_ptr(r->memory, d->address, d->length);
	t->count = d->length / sizeof(*d);
	return t->host ? 0 : -EPROTO;
}

/* A loop of descriptors ends when there is no room for another part. */
static int walk(const struct virtio_ring *r, struct virtio_chain *c)
{
	struct table t = { ram_ptr(r->memory, r->setup.desc, 16 * (uint64_t)r->setup.size), r->setup.size };
	bool inside = false;
	uint32_t index = c->head;
	struct descriptor d;
	int ret;

	for (;;) {
		ret = read_descriptor(&t, index, &d);
		if (ret)
			return ret;
		if (d.flags & DESC_INDIRECT) {
			if (inside)
				return -EPROTO;
			ret = enter_indirect(r, &d, &t);
			inside = true;
			index = 0;
		} else {
			ret = add_part(r, c, &d);
			if (!ret && !(d.flags & DESC_NEXT))
				return 0;
			index = d.next;
		}
		if (ret)
			return ret;
	}
}

int virtio_ring_pop(struct virtio_ring *r, struct virtio_chain *c)
{
	uint16_t count;

	if (r->broken)
		return -EPROTO;
	/* The entries were written before the index was. */
	count = (uint16_t)(atomic_load(avail_index(r)) - r->next_avail);
	if (!count)
		return 0;
	c->nr_read = c->nr_write = 0;
	c->read_bytes = c->write_bytes = 0;
	c->head = atomic_load_explicit(avail_entry(r), memory_order_relaxed);
	if (count > r->setup.size || walk(r, c)) {
		r->broken = true;
		return -EPROTO;
	}
	r->next_avail++;
	return 1;
}

void virtio_ring_push(struct virtio_ring *r, uint16_t head, uint32_t written)
{
	const struct used_element e = { head, written };
	uint64_t at = 4 + sizeof(e) * (uint64_t)(r->next_used % r->setup.size);

	memcpy(ram_ptr(r->memory, r->setup.device + at, sizeof(e)), &e, sizeof(e));
	r->next_used++;
}

/* 2.7.7.2 */
bool virtio_ring_show(struct virtio_ring *r)
{
	uint16_t since = (uint16_t)(r->next_used - r->shown), event;

	if (!since)
		return false;
	r->shown = r->next_used;
	atomic_store(word(r, r->setup.device, 2), r->next_used);
	if (!r->event_idx)
		return !(atomic_load(word(r, r->setup.driver, 0)) & AVAIL_NO_INTERRUPT);
	event = atomic_load(used_event(r));
	return (uint16_t)(r->next_used - event - 1) < since;
}

/* 2.7.10: with the index of an event, what it is not moved to is not wanted. */
void virtio_ring_notifications(struct virtio_ring *r, bool wanted)
{
	if (!r->event_idx)
		atomic_store(word(r, r->setup.device, 0), wanted ? 0 : USED_NO_NOTIFY);
	else if (wanted)
		atomic_store(avail_event(r), r->next_avail);
}
