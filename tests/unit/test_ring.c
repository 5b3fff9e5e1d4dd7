/* SPDX-License-Identifier: MIT */
/*
 * The rings of a VMBus channel against a guest written here from the same description: byte by byte, through its own
 * list of pages, in all three forms of mapping.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "devices/vmbus/ring.h"

#define PAGES_MAX 6
#define BIG	  4096

enum { WRITE_INDEX, READ_INDEX, MASK, PENDING, FEATURES = 16 };
enum form { PIECE, PAGES, TWICE, FORMS };

struct guest {
	enum form form;
	uint8_t *memory;
	uint8_t *mapped; /* or NULL */
	void *pages[PAGES_MAX];
	size_t count;
	uint32_t size; /* of the data */
};

static uint32_t *word(struct guest *g, unsigned int index)
{
	return (uint32_t *)g->pages[0] + index;
}

static uint32_t get(struct guest *g, unsigned int index)
{
	return __atomic_load_n(word(g, index), __ATOMIC_SEQ_CST);
}

static void set(struct guest *g, unsigned int index, uint32_t value)
{
	__atomic_store_n(word(g, index), value, __ATOMIC_SEQ_CST);
}

static uint8_t *byte(struct guest *g, uint32_t index)
{
	index %= g->size;
	return (uint8_t *)g->pages[1 + index / RING_PAGE] + index % RING_PAGE;
}

static void guest_init(struct guest *g, enum form form, size_t count)
{
	int fd = memfd_create("ring", MFD_CLOEXEC);
	size_t bytes = count * RING_PAGE;

	*g = (struct guest){ .form = form, .count = count, .size = (uint32_t)(bytes - RING_PAGE) };
	assert_true(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
	g->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(g->memory, MAP_FAILED);
	/* The scattered form has its data pages backwards, so that no two are neighbours. */
	for (size_t i = 0; i < count; i++)
		g->pages[i] = g->memory + (form == PAGES && i ? count - i : i) * RING_PAGE;
	if (form == TWICE) {
		g->mapped = mmap(NULL, 2 * (size_t)g->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		assert_ptr_not_equal(g->mapped, MAP_FAILED);
		for (int i = 0; i < 2; i++)
			assert_ptr_not_equal(mmap(g->mapped + (size_t)i * g->size, g->size, PROT_READ | PROT_WRITE,
						  MAP_SHARED | MAP_FIXED, fd, RING_PAGE),
					     MAP_FAILED);
	}
	close(fd);
}

static void guest_free(struct guest *g)
{
	if (g->mapped)
		munmap(g->mapped, 2 * (size_t)g->size);
	munmap(g->memory, g->count * RING_PAGE);
}

static int attach(struct guest *g, struct vmbus_ring *ring, bool inbound)
{
	return ring_attach(ring, g->pages, g->count, g->mapped, inbound);
}

static uint32_t used(struct guest *g)
{
	return (get(g, WRITE_INDEX) + g->size - get(g, READ_INDEX)) % g->size;
}

/* A packet as the guest sees it. */
struct message {
	uint16_t type, flags;
	uint64_t transaction;
	size_t extra_size, size; /* multiples of 8 */
	uint8_t bytes[BIG];	 /* extra, then payload */
};

static uint32_t total_of(const struct message *m)
{
	return (uint32_t)(16 + m->extra_size + m->size + 8);
}

static void put(struct guest *g, uint32_t at, const void *from, size_t size)
{
	for (size_t i = 0; i < size; i++)
		*byte(g, at + (uint32_t)i) = ((const uint8_t *)from)[i];
}

static void take(struct guest *g, uint32_t at, void *to, size_t size)
{
	for (size_t i = 0; i < size; i++)
		((uint8_t *)to)[i] = *byte(g, at + (uint32_t)i);
}

/* False: no room. *signal: the host wants to be told. */
static bool guest_write(struct guest *g, const struct message *m, bool *signal)
{
	uint32_t at = get(g, WRITE_INDEX), total = total_of(m), before = at;
	uint16_t descriptor[4] = { m->type, (uint16_t)((16 + m->extra_size) / 8), (uint16_t)((total - 8) / 8),
				   m->flags };
	uint64_t trailer = (uint64_t)at << 32;

	if (g->size - used(g) <= total)
		return false;
	put(g, at, descriptor, 8);
	put(g, at + 8, &m->transaction, 8);
	put(g, at + 16, m->bytes, m->extra_size + m->size);
	put(g, at + total - 8, &trailer, 8);
	set(g, WRITE_INDEX, (at + total) % g->size);
	*signal = !get(g, MASK) && get(g, READ_INDEX) == before;
	return true;
}

/* False: empty. *signal: the host waits for room and now has it. */
static bool guest_read(struct guest *g, struct message *m, bool *signal)
{
	uint32_t at = get(g, READ_INDEX), room, total, pending;
	uint16_t descriptor[4];
	uint64_t trailer;

	if (!used(g))
		return false;
	take(g, at, descriptor, 8);
	take(g, at + 8, &m->transaction, 8);
	m->type = descriptor[0];
	m->flags = descriptor[3];
	m->extra_size = descriptor[1] * 8u - 16;
	m->size = descriptor[2] * 8u - descriptor[1] * 8u;
	total = total_of(m);
	assert_true(total <= used(g) && m->size <= BIG);
	take(g, at + 16, m->bytes, m->extra_size + m->size);
	take(g, at + total - 8, &trailer, 8);
	assert_true(trailer == (uint64_t)at << 32);
	set(g, READ_INDEX, (at + total) % g->size);
	pending = get(g, FEATURES) & 1 ? get(g, PENDING) : 0;
	/* Linux computes both from the write index of now; only more can have been written meanwhile. */
	room = g->size - used(g);
	*signal = pending && room > pending && room - total <= pending;
	return true;
}

static void fill(struct message *m, uint64_t number, size_t extra, size_t size)
{
	*m = (struct message){ .type = extra ? VMBUS_PACKET_GPA_DIRECT : VMBUS_PACKET_INBAND,
			       .flags = number & 1,
			       .transaction = number * 0x9e3779b97f4a7c15,
			       .extra_size = extra,
			       .size = size };
	for (size_t i = 0; i < extra + size; i++)
		m->bytes[i] = (uint8_t)(number * 31 + i * 7 + 1);
}

/* The packet number i of a sequence, with a range list of less than max_extra bytes. */
static void number(struct message *m, uint64_t i, size_t max_extra)
{
	uint64_t random = (i + 1) * 0x9e3779b97f4a7c15 >> 20;

	fill(m, i, random % max_extra / 8 * 8, (random >> 12) % 1024 / 8 * 8);
}

static void assert_same(const struct message *a, const struct message *b)
{
	assert_int_equal(a->type, b->type);
	assert_int_equal(a->flags, b->flags);
	assert_true(a->transaction == b->transaction);
	assert_int_equal(a->extra_size, b->extra_size);
	assert_int_equal(a->size, b->size);
	assert_memory_equal(a->bytes, b->bytes, a->extra_size + a->size);
}

/* The host's reader; -1: as ring_read() otherwise, which *ret is. */
static int host_read(struct vmbus_ring *ring, struct message *m)
{
	uint64_t buffer[(BIG + 64) / 8];
	struct vmbus_packet p;
	int ret = ring_read(ring, buffer, sizeof(buffer), &p);

	if (ret != 1)
		return ret;
	*m = (struct message){ .type = p.type,
			       .flags = p.flags,
			       .transaction = p.transaction,
			       .extra_size = p.extra_size,
			       .size = p.size };
	assert_true(p.extra_size + p.size <= BIG);
	memcpy(m->bytes, p.extra, p.extra_size);
	memcpy(m->bytes + p.extra_size, p.payload, p.size);
	return 1;
}

static int host_write(struct vmbus_ring *ring, const struct message *m)
{
	return ring_write(ring, m->type, m->flags, m->transaction, m->bytes, m->extra_size, m->bytes + m->extra_size,
			  m->size);
}

static size_t pick(size_t limit)
{
	return (size_t)rand() % limit / 8 * 8;
}

/* Packets of any size, read in batches of any length: what comes out is what went in, and nobody is left asleep. */
static void random_from_guest(struct guest *g)
{
	struct vmbus_ring ring;
	struct message sent, got;
	uint64_t written = 0, received = 0;
	bool asleep = true;

	assert_int_equal(attach(g, &ring, true), 0);
	set(g, FEATURES, 1);
	for (int round = 0; round < 3000; round++) {
		bool signal = false, wanted = false;

		for (int i = rand() % 8; i > 0; i--) {
			number(&sent, written, 200);
			if (!guest_write(g, &sent, &signal)) {
				set(g, PENDING, total_of(&sent));
				wanted = true;
				break;
			}
			assert_true(!signal || asleep);
			asleep = asleep && !signal;
			written++;
		}
		assert_true(!asleep || written == received);
		ring_mask(&ring, true);
		for (int i = rand() % 12; i > 0 && host_read(&ring, &got) == 1; i--) {
			number(&sent, received, 200);
			assert_same(&got, &sent);
			received++;
		}
		/* What was read is the guest's room only now. */
		bool told = ring_read_done(&ring);
		bool fits = g->size - used(g) > get(g, PENDING);

		assert_true(!wanted || told == fits);
		if (told)
			set(g, PENDING, 0);
		bool more = ring_mask(&ring, false);

		assert_int_equal(more, written != received);
		asleep = !more;
	}
	assert_true(received > 3000);
}

static void random_to_guest(struct guest *g)
{
	struct vmbus_ring ring;
	struct message sent, got;
	uint64_t written = 0, visible = 0, received = 0;
	bool waiting = false;

	assert_int_equal(attach(g, &ring, false), 0);
	assert_int_equal(get(g, FEATURES), 1);
	for (int round = 0; round < 3000; round++) {
		bool signal = false;
		uint32_t pending_before = get(g, PENDING);

		for (int i = rand() % 8; i > 0; i--) {
			int ret;

			number(&sent, written, 1);
			ret = host_write(&ring, &sent);
			if (ret) {
				assert_int_equal(ret, -EAGAIN);
				assert_int_equal(get(g, PENDING), total_of(&sent));
				visible = written;
				waiting = true;
				break;
			}
			assert_true(!waiting || pending_before == 0);
			waiting = false;
			written++;
		}
		assert_int_equal(used(g) != 0, visible != received);
		bool was_empty = visible == received;

		if (waiting)
			ring_publish(&ring);
		else
			assert_int_equal(ring_publish(&ring), was_empty && written != visible);
		visible = written;
		for (int i = rand() % 12; i > 0 && guest_read(g, &got, &signal); i--) {
			number(&sent, received, 1);
			assert_same(&got, &sent);
			received++;
			assert_int_equal(ring_room(&ring), signal);
			if (signal)
				waiting = false;
		}
		/* A packet that waits and would fit has been asked for again. */
		assert_true(!waiting || g->size - used(g) <= get(g, PENDING));
	}
	assert_true(received > 3000);
}

static void random_packets_arrive_as_sent(void **state)
{
	(void)state;
	for (enum form form = PIECE; form < FORMS; form++) {
		for (size_t count = 2; count <= PAGES_MAX; count += 2) {
			struct guest in, out;

			guest_init(&in, form, count);
			guest_init(&out, form, count);
			srand(1);
			random_from_guest(&in);
			srand(1);
			random_to_guest(&out);
			guest_free(&in);
			guest_free(&out);
		}
	}
}

static void wraps_at_every_offset(void **state)
{
	(void)state;
	for (enum form form = PIECE; form < FORMS; form++) {
		struct guest g;
		struct vmbus_ring in, out;
		struct message sent, got;
		bool signal;

		guest_init(&g, form, 3);
		for (uint32_t at = 0; at < g.size; at += 8) {
			set(&g, READ_INDEX, at);
			set(&g, WRITE_INDEX, at);
			assert_int_equal(attach(&g, &in, true), 0);
			fill(&sent, at, at % 64, at % 200 / 8 * 8);
			assert_true(guest_write(&g, &sent, &signal) && signal);
			assert_int_equal(host_read(&in, &got), 1);
			assert_same(&got, &sent);
			assert_false(ring_read_done(&in));
			assert_int_equal(used(&g), 0);

			set(&g, READ_INDEX, at);
			set(&g, WRITE_INDEX, at);
			assert_int_equal(attach(&g, &out, false), 0);
			fill(&sent, at + 1, 0, at % 200 / 8 * 8);
			assert_int_equal(host_write(&out, &sent), 0);
			assert_int_equal(used(&g), 0); /* not visible yet */
			assert_true(ring_publish(&out));
			assert_true(guest_read(&g, &got, &signal) && !signal);
			assert_same(&got, &sent);
		}
		guest_free(&g);
	}
}

static void pads_and_places_the_range_list(void **state)
{
	struct guest g;
	struct vmbus_ring ring;
	struct message got;
	const uint64_t ranges[2] = { 0x1111, 0x2222 };
	bool signal;

	(void)state;
	guest_init(&g, PAGES, 2);
	memset(g.memory + RING_PAGE, 0xff, RING_PAGE);
	assert_int_equal(attach(&g, &ring, false), 0);
	assert_int_equal(ring_write(&ring, VMBUS_PACKET_TRANSFER_PAGES, 1, 7, ranges, 16, "hello", 5), 0);
	assert_int_equal(ring_write(&ring, VMBUS_PACKET_COMPLETION, 0, 8, ranges, 16, "hello", 5), 0);
	assert_int_equal(ring_write(&ring, VMBUS_PACKET_INBAND, 0, 9, ranges, 7, NULL, 0), -EMSGSIZE);
	assert_int_equal(ring_write(&ring, VMBUS_PACKET_INBAND, 0, 9, NULL, 0, NULL, 0), 0);
	assert_true(ring_publish(&ring));
	assert_true(guest_read(&g, &got, &signal));
	assert_int_equal(got.extra_size, 16);
	assert_int_equal(got.size, 8);
	assert_memory_equal(got.bytes, ranges, 16);
	assert_memory_equal(got.bytes + 16, "hello\0\0\0", 8);
	assert_true(guest_read(&g, &got, &signal));
	assert_int_equal(got.extra_size, 0);
	assert_int_equal(got.size, 24);
	assert_memory_equal(got.bytes + 16, "hello\0\0\0", 8);
	assert_true(guest_read(&g, &got, &signal));
	assert_int_equal(got.size, 0);
	guest_free(&g);
}

/* Equal indices mean empty: a packet that would fill the last byte does not fit. */
static void one_byte_stays_free(void **state)
{
	struct guest g;
	struct vmbus_ring ring;
	struct message first, second, got;
	bool signal;

	(void)state;
	guest_init(&g, PIECE, 2);
	assert_int_equal(attach(&g, &ring, false), 0);
	fill(&first, 1, 0, g.size - 24);
	assert_int_equal(host_write(&ring, &first), -EMSGSIZE);
	fill(&first, 1, 0, g.size - 32);
	assert_int_equal(host_write(&ring, &first), 0);
	ring_publish(&ring);
	assert_true(guest_read(&g, &got, &signal));
	assert_same(&got, &first);

	/* Two that fill it to the byte, then two that leave 8. */
	fill(&first, 2, 0, 1000);
	fill(&second, 3, 0, g.size - 1024 - 24);
	assert_int_equal(host_write(&ring, &first), 0);
	assert_int_equal(host_write(&ring, &second), -EAGAIN);
	second.size -= 8;
	assert_int_equal(host_write(&ring, &second), 0);
	ring_publish(&ring);
	assert_int_equal(used(&g), g.size - 8);
	assert_true(guest_read(&g, &got, &signal) && guest_read(&g, &got, &signal));
	assert_same(&got, &second);
	assert_false(guest_read(&g, &got, &signal));
	guest_free(&g);
}

static void larger_than_the_length_field(void **state)
{
	struct vmbus_ring ring;
	uint8_t *memory = aligned_alloc(RING_PAGE, 2 << 20);
	void *pages[256];

	(void)state;
	assert_non_null(memory);
	memset(memory, 0, 2 << 20);
	for (size_t i = 0; i < 256; i++)
		pages[i] = memory + i * RING_PAGE;
	assert_int_equal(ring_attach(&ring, pages, 256, NULL, false), 0);
	assert_int_equal(ring_write(&ring, 6, 0, 0, NULL, 0, memory, 0x7fff8 - 8), -EMSGSIZE);
	assert_int_equal(ring_write(&ring, 6, 0, 0, NULL, 0, memory, SIZE_MAX), -EMSGSIZE);
	assert_int_equal(ring_write(&ring, 6, 0, 0, memory, SIZE_MAX - 7, memory, 16), -EMSGSIZE);
	assert_int_equal(ring_write(&ring, 6, 0, 0, NULL, 0, memory + (1 << 20), 0x7fff8 - 16), 0);
	free(memory);
}

static void asks_the_guest_for_room(void **state)
{
	struct guest g;
	struct vmbus_ring ring;
	struct message small, large, got;
	bool signal;

	(void)state;
	guest_init(&g, TWICE, 2);
	assert_int_equal(attach(&g, &ring, false), 0);
	assert_false(ring_room(&ring));
	fill(&small, 1, 0, 976); /* 1000 on the ring */
	fill(&large, 2, 0, 1976);
	for (int i = 0; i < 3; i++)
		assert_int_equal(host_write(&ring, &small), 0);
	assert_int_equal(used(&g), 0);
	assert_int_equal(host_write(&ring, &large), -EAGAIN);
	assert_int_equal(used(&g), 3000); /* else the guest could not know that we are blocked */
	assert_int_equal(get(&g, PENDING), 2000);
	assert_false(ring_room(&ring));
	assert_true(ring_publish(&ring)); /* the interrupt that the early publication owes */
	assert_false(ring_publish(&ring));

	/* A smaller one that fits does not take the request back. */
	small.size = 8;
	assert_int_equal(host_write(&ring, &small), 0);
	assert_int_equal(get(&g, PENDING), 2000);
	ring_publish(&ring);
	assert_true(guest_read(&g, &got, &signal));
	assert_int_equal(signal, g.size - used(&g) > 2000);
	assert_true(signal);
	assert_true(ring_room(&ring));
	assert_false(ring_room(&ring));
	assert_int_equal(get(&g, PENDING), 0);
	assert_int_equal(host_write(&ring, &large), 0);

	/* One that is sent without asking ring_room() first takes it back too. */
	assert_int_equal(host_write(&ring, &large), -EAGAIN);
	while (guest_read(&g, &got, &signal))
		;
	assert_int_equal(host_write(&ring, &large), 0);
	assert_int_equal(get(&g, PENDING), 0);
	assert_false(ring_room(&ring));
	guest_free(&g);
}

static void tells_a_waiting_guest_of_room(void **state)
{
	struct guest g;
	struct vmbus_ring ring;
	struct message m, got;
	bool signal;

	(void)state;
	for (uint32_t feature = 0; feature < 2; feature++) {
		guest_init(&g, PIECE, 2);
		assert_int_equal(attach(&g, &ring, true), 0);
		set(&g, FEATURES, feature);
		fill(&m, 1, 0, 976);
		for (int i = 0; i < 4; i++)
			assert_true(guest_write(&g, &m, &signal));
		assert_false(guest_write(&g, &m, &signal));
		set(&g, PENDING, 1096); /* fits exactly after one: not yet */
		assert_int_equal(host_read(&ring, &got), 1);
		assert_false(ring_read_done(&ring));
		assert_int_equal(host_read(&ring, &got), 1);
		assert_int_equal(ring_read_done(&ring), feature); /* crossed */
		assert_int_equal(host_read(&ring, &got), 1);
		assert_false(ring_read_done(&ring)); /* was told */
		assert_false(ring_read_done(&ring));
		set(&g, PENDING, UINT32_MAX); /* never */
		assert_int_equal(host_read(&ring, &got), 1);
		assert_false(ring_read_done(&ring));
		guest_free(&g);
	}
}

static void honours_and_sets_masks(void **state)
{
	struct guest g;
	struct vmbus_ring in, out;
	struct message m, got;
	bool signal;

	(void)state;
	fill(&m, 1, 0, 16);
	guest_init(&g, PIECE, 2);
	assert_int_equal(attach(&g, &out, false), 0);
	set(&g, MASK, 1);
	assert_int_equal(host_write(&out, &m), 0);
	assert_false(ring_publish(&out));
	assert_true(guest_read(&g, &got, &signal));
	set(&g, MASK, 0);
	assert_int_equal(host_write(&out, &m), 0);
	assert_true(ring_publish(&out));
	assert_int_equal(host_write(&out, &m), 0);
	assert_false(ring_publish(&out)); /* it has not read the other one yet */
	guest_free(&g);

	guest_init(&g, PIECE, 2);
	assert_int_equal(attach(&g, &in, true), 0);
	assert_false(ring_mask(&in, true));
	assert_int_equal(get(&g, MASK), 1);
	assert_true(guest_write(&g, &m, &signal));
	assert_false(signal);
	assert_true(ring_mask(&in, false));
	assert_int_equal(get(&g, MASK), 0);
	assert_int_equal(host_read(&in, &got), 1);
	assert_false(ring_mask(&in, false)); /* read, though not yet shown */
	guest_free(&g);
}

static void attaches_where_it_was_left(void **state)
{
	struct guest g;
	struct vmbus_ring ring;
	struct message m, got;
	bool signal;
	static const uint32_t bad[] = { 4, 4095, 4096, 8192, UINT32_MAX, UINT32_MAX - 7 };

	(void)state;
	guest_init(&g, PAGES, 2);
	fill(&m, 1, 8, 16);
	assert_true(guest_write(&g, &m, &signal) && guest_write(&g, &m, &signal));
	assert_int_equal(attach(&g, &ring, true), 0);
	assert_int_equal(host_read(&ring, &got), 1);
	ring_read_done(&ring);
	assert_int_equal(attach(&g, &ring, true), 0);
	assert_int_equal(host_read(&ring, &got), 1);
	assert_same(&got, &m);
	assert_int_equal(host_read(&ring, &got), 0);

	assert_int_equal(ring_attach(&ring, g.pages, 0, NULL, true), -EINVAL);
	assert_int_equal(ring_attach(&ring, g.pages, 1, NULL, true), -EINVAL);
	assert_int_equal(ring_attach(&ring, g.pages, (1 << 20) + 1, NULL, true), -EINVAL);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		for (unsigned int index = WRITE_INDEX; index <= READ_INDEX; index++) {
			uint32_t good = get(&g, index);

			set(&g, index, bad[i]);
			assert_int_equal(attach(&g, &ring, false), -EINVAL);
			assert_int_equal(attach(&g, &ring, true), -EINVAL);
			set(&g, index, good);
		}
	}
	guest_free(&g);
}

static void refuses_impossible_indices(void **state)
{
	struct guest g;
	struct vmbus_ring in, out;
	struct message m;
	static const uint32_t bad[] = { 4, 4095, 4096, UINT32_MAX };

	(void)state;
	fill(&m, 1, 0, 16);
	guest_init(&g, PIECE, 2);
	assert_int_equal(attach(&g, &in, true), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		set(&g, WRITE_INDEX, bad[i]);
		assert_int_equal(host_read(&in, &m), -EPROTO);
		assert_true(ring_mask(&in, false)); /* so that somebody looks and finds out */
	}
	set(&g, WRITE_INDEX, 16); /* less than any packet */
	assert_int_equal(host_read(&in, &m), -EPROTO);
	guest_free(&g);

	guest_init(&g, PIECE, 2);
	assert_int_equal(attach(&g, &out, false), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		set(&g, READ_INDEX, bad[i]);
		assert_int_equal(host_write(&out, &m), -EPROTO);
		assert_false(ring_room(&out));
	}
	guest_free(&g);
}

static void refuses_impossible_lengths(void **state)
{
	static const struct {
		uint16_t offset8, len8;
		uint32_t write_index;
		int result;
	} cases[] = {
		{ 2, 2, 24, 1 },
		{ 2, 0, 24, -EPROTO },
		{ 2, 1, 24, -EPROTO },
		{ 0, 2, 24, -EPROTO },
		{ 1, 2, 24, -EPROTO },
		{ 3, 2, 24, -EPROTO },
		{ 2, 3, 24, -EPROTO },
		{ 2, 3, 32, 1 },
		{ 3, 3, 32, 1 },
		{ 2, 0xffff, 32, -EPROTO },
		{ 0xffff, 3, 32, -EPROTO },
		{ 2, 8, 4088, 1 },
		{ 0xffff, 0xffff, 4088, -EPROTO },
		{ 2, 9, 4088, -EMSGSIZE },
		{ 2, 510, 4088, -EMSGSIZE },
		{ 2, 511, 4088, -EPROTO },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint16_t descriptor[4] = { 6, cases[i].offset8, cases[i].len8, 0 };
		uint64_t buffer[8];
		struct vmbus_packet p;
		struct vmbus_ring ring;
		struct guest g;

		guest_init(&g, PIECE, 2);
		assert_int_equal(attach(&g, &ring, true), 0);
		put(&g, 0, descriptor, 8);
		set(&g, WRITE_INDEX, cases[i].write_index);
		assert_int_equal(ring_read(&ring, buffer, sizeof(buffer), &p), cases[i].result);
		/* A refused packet is not passed over. */
		assert_false(ring_read_done(&ring));
		assert_int_equal(get(&g, READ_INDEX), cases[i].result == 1 ? (cases[i].len8 + 1) * 8 : 0);
		guest_free(&g);
	}
}

/* A guest that writes anything anywhere: answers stay inside the buffer, and the ring inside its pages. */
static void survives_a_guest_at_random(void **state)
{
	(void)state;
	srand(3);
	for (enum form form = PIECE; form < FORMS; form++) {
		struct vmbus_ring in, out;
		struct guest g;

		guest_init(&g, form, 3);
		attach(&g, &in, true);
		attach(&g, &out, false);
		for (int round = 0; round < 20000; round++) {
			uint64_t buffer[32];
			struct vmbus_packet p;

			set(&g, (unsigned int)rand() % 5 ? WRITE_INDEX : (unsigned int)rand() % 17,
			    (uint32_t)rand() % (g.size + 8) / (rand() % 8 ? 8 : 1) * 8);
			*byte(&g, (uint32_t)rand()) = (uint8_t)(rand() % 4);
			if (ring_read(&in, buffer, sizeof(buffer), &p) == 1) {
				assert_ptr_equal(p.extra, buffer + 2);
				assert_ptr_equal((const uint8_t *)p.extra + p.extra_size, p.payload);
				assert_true(16 + p.extra_size + p.size <= sizeof(buffer));
			}
			ring_read_done(&in);
			ring_write(&out, 6, 0, 1, buffer, pick(128), buffer, pick(128));
			ring_publish(&out);
			ring_room(&out);
			assert_true(in.index < g.size && out.index < g.size && !(in.index % 8) && !(out.index % 8));
		}
		guest_free(&g);
	}
}

/* Two threads, each asleep whenever the protocol allows it: a lost signal is a timeout. */
#define THREAD_PACKETS 20000

struct party {
	struct guest g;
	struct vmbus_ring ring;
	sem_t host, guest;
};

static bool nap(sem_t *sem)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 20;
	while (sem_timedwait(sem, &until) < 0)
		if (errno != EINTR)
			return false;
	return true;
}

static void *guest_consumer(void *arg)
{
	struct party *p = arg;
	struct message want, got;
	bool signal;

	for (uint64_t i = 0; i < THREAD_PACKETS; i++) {
		set(&p->g, MASK, 1);
		while (!guest_read(&p->g, &got, &signal)) {
			set(&p->g, MASK, 0);
			if (!used(&p->g) && !nap(&p->guest))
				return (void *)"the guest is asleep though there are packets";
			set(&p->g, MASK, 1);
		}
		if (signal)
			sem_post(&p->host);
		number(&want, i, 1);
		if (got.transaction != want.transaction || got.size != want.size ||
		    memcmp(got.bytes, want.bytes, want.size) != 0)
			return (void *)"a packet is not what was sent";
	}
	return NULL;
}

static void host_producer_guest_consumer(void **state)
{
	struct party p;
	struct message m;
	pthread_t thread;
	void *failure = NULL;
	bool slept = true;

	(void)state;
	guest_init(&p.g, PAGES, 2);
	sem_init(&p.host, 0, 0);
	sem_init(&p.guest, 0, 0);
	assert_int_equal(attach(&p.g, &p.ring, false), 0);
	assert_int_equal(pthread_create(&thread, NULL, guest_consumer, &p), 0);
	for (uint64_t i = 0; slept && i < THREAD_PACKETS; i++) {
		number(&m, i, 1);
		while (slept && host_write(&p.ring, &m) == -EAGAIN) {
			if (ring_publish(&p.ring))
				sem_post(&p.guest);
			slept = nap(&p.host);
		}
		if (i % 3 == 0 && ring_publish(&p.ring))
			sem_post(&p.guest);
	}
	if (ring_publish(&p.ring))
		sem_post(&p.guest);
	pthread_join(thread, &failure);
	if (failure)
		fail_msg("%s", (const char *)failure);
	assert_true(slept);
	sem_destroy(&p.host);
	sem_destroy(&p.guest);
	guest_free(&p.g);
}

static void *guest_producer(void *arg)
{
	struct party *p = arg;
	struct message m;
	bool signal;

	for (uint64_t i = 0; i < THREAD_PACKETS; i++) {
		number(&m, i, 1);
		while (!guest_write(&p->g, &m, &signal)) {
			set(&p->g, PENDING, total_of(&m));
			if (p->g.size - used(&p->g) <= total_of(&m) && !nap(&p->guest))
				return (void *)"the guest is asleep though there is room";
			set(&p->g, PENDING, 0);
		}
		if (signal)
			sem_post(&p->host);
	}
	return NULL;
}

static void guest_producer_host_consumer(void **state)
{
	struct party p;
	struct message want, got;
	pthread_t thread;
	void *failure = NULL;
	bool slept = true;

	(void)state;
	guest_init(&p.g, PAGES, 2);
	set(&p.g, FEATURES, 1);
	sem_init(&p.host, 0, 0);
	sem_init(&p.guest, 0, 0);
	assert_int_equal(attach(&p.g, &p.ring, true), 0);
	assert_int_equal(pthread_create(&thread, NULL, guest_producer, &p), 0);
	for (uint64_t i = 0; slept && i < THREAD_PACKETS;) {
		if (host_read(&p.ring, &got) == 1) {
			number(&want, i++, 1);
			assert_same(&got, &want);
			if (i % 3 == 0 && ring_read_done(&p.ring))
				sem_post(&p.guest);
			continue;
		}
		if (ring_read_done(&p.ring))
			sem_post(&p.guest);
		if (!ring_mask(&p.ring, false))
			slept = nap(&p.host);
		ring_mask(&p.ring, true);
	}
	if (ring_read_done(&p.ring))
		sem_post(&p.guest);
	pthread_join(thread, &failure);
	if (failure)
		fail_msg("%s", (const char *)failure);
	assert_true(slept);
	sem_destroy(&p.host);
	sem_destroy(&p.guest);
	guest_free(&p.g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_packets_arrive_as_sent),  cmocka_unit_test(wraps_at_every_offset),
		cmocka_unit_test(pads_and_places_the_range_list), cmocka_unit_test(one_byte_stays_free),
		cmocka_unit_test(larger_than_the_length_field),	  cmocka_unit_test(asks_the_guest_for_room),
		cmocka_unit_test(tells_a_waiting_guest_of_room),  cmocka_unit_test(honours_and_sets_masks),
		cmocka_unit_test(attaches_where_it_was_left),	  cmocka_unit_test(refuses_impossible_indices),
		cmocka_unit_test(refuses_impossible_lengths),	  cmocka_unit_test(survives_a_guest_at_random),
		cmocka_unit_test(host_producer_guest_consumer),	  cmocka_unit_test(guest_producer_host_consumer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
