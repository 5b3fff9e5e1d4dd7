/* SPDX-License-Identifier: MIT */
/* The device's end of a split ring, and virtio-blk on it, under drivers good and hostile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/virtio_blk_fake.h"

enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, ZEROES = 13 };
enum { HEADER = 0x8000, STATUS = 0x8100, TABLE = 0xa000, DATA = 0x10000 };
#define EVENTS VIRTIO_BIT(VIRTIO_F_EVENT_IDX)
#define TABLES VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)

static uint16_t avail; /* the driver's index */

static void put16(uint64_t at, uint16_t value)
{
	memcpy(fake.ram + at, &value, 2);
}

static uint16_t get16(uint64_t at)
{
	uint16_t value;

	memcpy(&value, fake.ram + at, 2);
	return value;
}

static uint32_t get32(uint64_t at)
{
	uint32_t value;

	memcpy(&value, fake.ram + at, 4);
	return value;
}

static void describe_at(uint64_t table, unsigned int index, uint64_t address, uint32_t length, uint16_t flags,
			uint16_t next)
{
	memcpy(fake.ram + table + 16 * index, &address, 8);
	memcpy(fake.ram + table + 16 * index + 8, &length, 4);
	put16(table + 16 * index + 12, flags);
	put16(table + 16 * index + 14, next);
}

static void describe(unsigned int index, uint64_t address, uint32_t length, uint16_t flags, uint16_t next)
{
	describe_at(FAKE_DESC, index, address, length, flags, next);
}

static void available(uint16_t head)
{
	put16(FAKE_DRIVER + 4 + 2 * (avail % FAKE_SIZE), head);
	put16(FAKE_DRIVER + 2, ++avail);
}

static uint64_t set_header(uint16_t head, uint32_t type, uint64_t sector)
{
	uint64_t at = HEADER + 16u * head;

	memcpy(fake.ram + at, &type, 4);
	memcpy(fake.ram + at + 8, &sector, 8);
	return at;
}

/* A request of three descriptors from head on. */
static void put(uint16_t head, uint32_t type, uint64_t sector, uint32_t bytes)
{
	bool in = type == IN || type == GET_ID;

	fake.ram[STATUS + head] = 0xee;
	describe(head, set_header(head, type, sector), 16, NEXT, bytes ? head + 1 : head + 2);
	describe(head + 1u, DATA, bytes, in ? NEXT | WRITE : NEXT, head + 2);
	describe(head + 2u, STATUS + head, 1, WRITE, 0);
	available(head);
}

static unsigned int used(void)
{
	return get16(FAKE_DEVICE + 2);
}

/* Carries out one request, which is the n-th that is used. */
static uint8_t run(uint32_t type, uint64_t sector, uint32_t bytes)
{
	unsigned int before = used();

	put(0, type, sector, bytes);
	fake_kick();
	fake_end_all();
	assert_int_equal((uint16_t)(used() - before), 1);
	assert_int_equal(get32(FAKE_DEVICE + 4 + 8 * (before % FAKE_SIZE)), 0);
	return fake.ram[STATUS];
}

static uint32_t written(void)
{
	return get32(FAKE_DEVICE + 4 + 8 * ((used() - 1) % FAKE_SIZE) + 4);
}

static void start(uint64_t features)
{
	avail = 0;
	fake_start(features);
	assert_true(fake.watched);
}

static int setup(void **state)
{
	(void)state;
	fake_setup(false, false, true, 512);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_teardown();
	return 0;
}

/* -- the ring */

struct ring {
	struct virtio_ring r;
	struct virtio_chain c;
};

static struct ring *new_ring(uint64_t features)
{
	const struct virtio_queue_setup where = { FAKE_SIZE, FAKE_DESC, FAKE_DRIVER, FAKE_DEVICE };
	struct ring *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	memset(fake.ram, 0, FAKE_RAM);
	avail = 0;
	assert_int_equal(virtio_ring_init(&r->r, &fake.vm.memory, &where, features), 0);
	return r;
}

static void ring_places(void **state)
{
	static const struct virtio_queue_setup bad[] = {
		{ 0, FAKE_DESC, FAKE_DRIVER, FAKE_DEVICE },	   { 3, FAKE_DESC, FAKE_DRIVER, FAKE_DEVICE },
		{ 16, FAKE_DESC + 8, FAKE_DRIVER, FAKE_DEVICE },   { 16, FAKE_DESC, FAKE_DRIVER + 1, FAKE_DEVICE },
		{ 16, FAKE_DESC, FAKE_DRIVER, FAKE_DEVICE + 2 },   { 16, FAKE_RAM - 240, FAKE_DRIVER, FAKE_DEVICE },
		{ 16, FAKE_DESC, FAKE_RAM - 36, FAKE_DEVICE },	   { 16, FAKE_DESC, FAKE_DRIVER, FAKE_RAM - 132 },
		{ 16, UINT64_MAX - 15, FAKE_DRIVER, FAKE_DEVICE },
	};
	struct virtio_ring r;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(virtio_ring_init(&r, &fake.vm.memory, &bad[i], 0), -EFAULT);
}

static void ring_chains(void **state)
{
	struct ring *r = new_ring(TABLES);

	(void)state;
	for (unsigned int round = 0; round < 3 * FAKE_SIZE; round++) {
		unsigned int first = round % FAKE_SIZE, second = (round + 5) % FAKE_SIZE,
			     third = (round + 9) % FAKE_SIZE;

		assert_int_equal(virtio_ring_pop(&r->r, &r->c), 0);
		describe(first, DATA, 10, NEXT, (uint16_t)second);
		describe(second, DATA + 10, 20, NEXT | WRITE, (uint16_t)third);
		describe(third, TABLE, 32, INDIRECT, 77);
		describe_at(TABLE, 0, DATA + 100, 30, NEXT | WRITE, 1);
		describe_at(TABLE, 1, FAKE_RAM - 1, 1, WRITE, 99);
		available((uint16_t)first);
		assert_int_equal(virtio_ring_pop(&r->r, &r->c), 1);
		assert_int_equal(r->c.head, first);
		assert_int_equal(r->c.nr_read, 1);
		assert_int_equal(r->c.nr_write, 3);
		assert_int_equal(r->c.read_bytes, 10);
		assert_int_equal(r->c.write_bytes, 51);
		assert_ptr_equal(r->c.parts[0].host, fake.ram + DATA);
		assert_ptr_equal(r->c.parts[3].host, fake.ram + FAKE_RAM - 1);
		virtio_ring_push(&r->r, r->c.head, round);
		assert_int_equal(used(), round);
		virtio_ring_show(&r->r);
		assert_int_equal(used(), round + 1);
		assert_int_equal(get32(FAKE_DEVICE + 4 + 8 * (round % FAKE_SIZE)), first);
		assert_int_equal(get32(FAKE_DEVICE + 8 + 8 * (round % FAKE_SIZE)), round);
	}
	free(r);
}

static void bad_chain(unsigned int how)
{
	describe(0, DATA, 16, NEXT, 1);
	describe(1, DATA, 16, WRITE, 0);
	switch (how) {
	case 0: /* in circles */
		describe(1, DATA, 16, NEXT, 0);
		break;
	case 1:
		describe(0, DATA, 16, NEXT, 0);
		break;
	case 2: /* beyond the table */
		describe(0, DATA, 16, NEXT, FAKE_SIZE);
		break;
	case 3:
		describe(0, DATA, 16, NEXT, UINT16_MAX);
		break;
	case 4: /* no RAM */
		describe(0, FAKE_RAM, 16, 0, 0);
		break;
	case 5:
		describe(0, FAKE_RAM - 8, 16, 0, 0);
		break;
	case 6:
		describe(0, UINT64_MAX - 7, 16, 0, 0);
		break;
	case 7:
		describe(0, 16, UINT32_MAX, 0, 0);
		break;
	case 8: /* empty */
		describe(0, DATA, 0, NEXT, 1);
		break;
	case 9: /* read after written */
		describe(0, DATA, 16, NEXT | WRITE, 1);
		describe(1, DATA, 16, 0, 0);
		break;
	case 10: /* a table that is not one */
		describe(0, TABLE, 0, INDIRECT, 0);
		break;
	case 11:
		describe(0, TABLE, 17, INDIRECT, 0);
		break;
	case 12:
		describe(0, FAKE_RAM, 16, INDIRECT, 0);
		break;
	case 13: /* with a successor */
		describe(0, TABLE, 16, INDIRECT | NEXT, 1);
		break;
	case 14: /* in a table */
		describe(0, TABLE, 16, INDIRECT, 0);
		describe_at(TABLE, 0, TABLE, 16, INDIRECT, 0);
		break;
	case 15: /* out of it */
		describe(0, TABLE, 32, INDIRECT, 0);
		describe_at(TABLE, 0, DATA, 16, NEXT, 2);
		break;
	case 16: /* in circles in it */
		describe(0, TABLE, 32, INDIRECT, 0);
		describe_at(TABLE, 0, DATA, 16, NEXT, 1);
		describe_at(TABLE, 1, DATA, 16, NEXT, 0);
		break;
	}
}

static void ring_nonsense(void **state)
{
	(void)state;
	for (unsigned int how = 0; how <= 16; how++) {
		struct ring *r = new_ring(TABLES);

		bad_chain(how);
		available(0);
		assert_int_equal(virtio_ring_pop(&r->r, &r->c), -EPROTO);
		bad_chain(99); /* mended, too late */
		assert_int_equal(virtio_ring_pop(&r->r, &r->c), -EPROTO);
		free(r);
	}
	/* Tables that were not agreed on, heads that there are not, more than there can be. */
	for (unsigned int how = 0; how < 4; how++) {
		struct ring *r = new_ring(how ? TABLES : 0);

		describe(0, TABLE, 16, INDIRECT, 0);
		describe_at(TABLE, 0, DATA, 16, 0, 0);
		available(how == 1 ? FAKE_SIZE : how == 2 ? UINT16_MAX : 0);
		if (how == 3)
			put16(FAKE_DRIVER + 2, FAKE_SIZE + 1);
		assert_int_equal(virtio_ring_pop(&r->r, &r->c), -EPROTO);
		free(r);
	}
}

/* As long as a chain can be; one more is too long. */
static void ring_long(void **state)
{
	(void)state;
	for (unsigned int extra = 0; extra < 2; extra++) {
		struct ring *r = new_ring(TABLES);
		unsigned int n = VIRTIO_CHAIN_MAX + extra;

		describe(3, TABLE, 16 * n, INDIRECT, 0);
		for (unsigned int i = 0; i < n; i++)
			describe_at(TABLE, i, DATA + i, 1, i + 1 < n ? NEXT : 0, (uint16_t)(i + 1));
		available(3);
		assert_int_equal(virtio_ring_pop(&r->r, &r->c), extra ? -EPROTO : 1);
		assert_true(extra || r->c.read_bytes == n);
		free(r);
	}
}

static void ring_telling(void **state)
{
	struct ring *r = new_ring(0);

	(void)state;
	/* By flags. */
	assert_false(virtio_ring_show(&r->r)); /* nothing new */
	virtio_ring_push(&r->r, 1, 0);
	assert_true(virtio_ring_show(&r->r));
	put16(FAKE_DRIVER, 1);
	virtio_ring_push(&r->r, 1, 0);
	assert_false(virtio_ring_show(&r->r));
	assert_int_equal(used(), 2);
	virtio_ring_notifications(&r->r, false);
	assert_int_equal(get16(FAKE_DEVICE), 1);
	virtio_ring_notifications(&r->r, true);
	assert_int_equal(get16(FAKE_DEVICE), 0);
	free(r);
	/* By events, all round the numbers. */
	r = new_ring(EVENTS);
	r->r.next_used = r->r.shown = 65530;
	r->r.next_avail = avail = 65535;
	put16(FAKE_DRIVER + 2, avail);
	for (uint16_t event = 65530; event != 10; event += 4) {
		put16(FAKE_DRIVER + 4 + 2 * FAKE_SIZE, event + 3);
		for (unsigned int i = 0; i < 3; i++)
			virtio_ring_push(&r->r, 1, 0);
		assert_false(virtio_ring_show(&r->r));
		virtio_ring_push(&r->r, 1, 0);
		assert_true(virtio_ring_show(&r->r));
	}
	describe(0, DATA, 16, 0, 0);
	available(0);
	assert_int_equal(virtio_ring_pop(&r->r, &r->c), 1);
	virtio_ring_notifications(&r->r, false);
	virtio_ring_notifications(&r->r, true);
	assert_int_equal(get16(FAKE_DEVICE + 4 + 8 * FAKE_SIZE), 0);
	assert_int_equal(get16(FAKE_DEVICE), 0);
	free(r);
}

/* -- the disk */

static void transfers(void **state)
{
	(void)state;
	start(VIRTIO_BIT(VIRTIO_BLK_F_FLUSH));
	memset(fake.ram + DATA, 0x5a, 4096);
	assert_int_equal(run(OUT, 8, 4096), VBLK_OK);
	assert_int_equal(written(), 1);
	assert_int_equal(fake.block.bytes[8 * 512], 0x5a);
	assert_int_equal(fake.block.bytes[16 * 512], 0x11);
	memset(fake.ram + DATA, 0, 8192);
	assert_int_equal(run(IN, 15, 1024), VBLK_OK);
	assert_int_equal(written(), 1025);
	assert_int_equal(fake.ram[DATA + 511], 0x5a);
	assert_int_equal(fake.ram[DATA + 1023], 0x11);
	assert_int_equal(fake.ram[DATA + 1024], 0);
	assert_int_equal(run(FLUSH, 0, 0), VBLK_OK);
	assert_int_equal(run(GET_ID, 0, 20), VBLK_OK);
	assert_memory_equal(fake.ram + DATA, "a serial number\0\0\0\0\0", 20);
	assert_int_equal(run(OUT, FAKE_IMAGE / 512 - 1, 512), VBLK_OK);
	assert_int_equal(run(OUT, FAKE_IMAGE / 512, 512), VBLK_IOERR);
	assert_int_equal(run(IN, FAKE_IMAGE / 512 - 1, 1024), VBLK_IOERR);
	assert_int_equal(run(IN, UINT64_MAX / 512 + 1, 512), VBLK_IOERR);
	assert_int_equal(run(IN, UINT64_MAX, 512), VBLK_IOERR);
	assert_int_equal(run(OUT, 0, 511), VBLK_IOERR);
	assert_int_equal(run(9, 0, 512), VBLK_UNSUPP);
	fake_io.error = -ENOSPC;
	assert_int_equal(run(OUT, 0, 512), VBLK_IOERR);
	assert_int_equal(fake.needs_resets, 0);
}

static void durability(void **state)
{
	(void)state;
	for (unsigned int flushes = 0; flushes < 2; flushes++) {
		start(flushes ? VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) : 0);
		put(0, OUT, 0, 512);
		fake_kick();
		assert_int_equal(fake_io.queue[0]->fua, !flushes);
		fake_end_all();
		fake.v->class->reset(fake.v);
		fake_end_turn();
	}
}

static void read_only(void **state)
{
	(void)state;
	fake_teardown();
	fake_setup(false, true, false, 2048);
	start(0);
	assert_int_equal(run(IN, 4, 2048), VBLK_OK);
	assert_int_equal(run(IN, 1, 2048), VBLK_IOERR);
	assert_int_equal(run(IN, 0, 512), VBLK_IOERR);
	assert_int_equal(run(OUT, 0, 2048), VBLK_IOERR);
	assert_int_equal(run(FLUSH, 0, 0), VBLK_OK);
	assert_int_equal(run(DISCARD, 0, 16), VBLK_IOERR);
}

static uint8_t run_range(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	memcpy(fake.ram + DATA, &sector, 8);
	memcpy(fake.ram + DATA + 8, &sectors, 4);
	memcpy(fake.ram + DATA + 12, &flags, 4);
	return run(type, 0, 16);
}

static void zeroes(void **state)
{
	(void)state;
	start(0);
	assert_int_equal(run_range(ZEROES, 8, 8, 0), VBLK_OK);
	assert_int_equal(fake.block.bytes[8 * 512 - 1], 0x11);
	assert_int_equal(fake.block.bytes[8 * 512], 0);
	assert_int_equal(fake.block.bytes[16 * 512 - 1], 0);
	assert_int_equal(fake.block.bytes[16 * 512], 0x11);
	assert_int_equal(run_range(ZEROES, 0, 1, 1), VBLK_OK);
	assert_int_equal(run_range(DISCARD, 0, 1, 0), VBLK_OK);
	assert_int_equal(run_range(DISCARD, 0, 1, 1), VBLK_UNSUPP);
	assert_int_equal(run_range(ZEROES, 0, 1, 2), VBLK_UNSUPP);
	assert_int_equal(run_range(ZEROES, FAKE_IMAGE / 512, 1, 0), VBLK_IOERR);
	assert_int_equal(run_range(ZEROES, UINT64_MAX, 1, 0), VBLK_IOERR);
	assert_int_equal(run_range(DISCARD, 0, UINT32_MAX, 0), VBLK_IOERR);
	assert_int_equal(run(DISCARD, 0, 32), VBLK_IOERR);
	assert_int_equal(run(DISCARD, 0, 0), VBLK_IOERR);
	fake_io.error = -EOPNOTSUPP;
	assert_int_equal(run_range(ZEROES, 0, 1, 0), VBLK_UNSUPP);
	fake_teardown();
	fake_setup(false, false, false, 512);
	start(0);
	assert_int_equal(run_range(ZEROES, 0, 1, 0), VBLK_UNSUPP);
}

/* Many requests: taken together, answered with one interrupt, and no more of them than the ring has. */
static void batches(void **state)
{
	(void)state;
	start(0);
	for (uint16_t i = 0; i < 4; i++)
		put(3 * i, IN, i, 512);
	fake_kick();
	assert_int_equal(fake_io.queued, 4);
	assert_int_equal(fake.interrupts, 0);
	fake_end_one(2);
	fake_end_one(0);
	assert_int_equal(used(), 0);
	fake_end_turn();
	assert_int_equal(used(), 2);
	assert_int_equal(fake.interrupts, 1);
	fake_end_all();
	assert_int_equal(fake.interrupts, 2);
	for (unsigned int i = 0; i < 3 * FAKE_SIZE; i++) { /* again and again the same, as no driver may */
		put(0, IN, 0, 512);
		if (i % 8 == 7)
			fake_kick();
	}
	assert_int_equal(fake_io.queued, FAKE_SIZE);
	fake_end_all();
	assert_int_equal(fake.needs_resets, 1); /* found out */
	assert_int_equal(used(), 4 + FAKE_SIZE);
}

/* One that takes its room back for the next is not found out, but goes no faster. */
static void flow(void **state)
{
	(void)state;
	start(0);
	for (unsigned int i = 0; i < FAKE_SIZE + 5; i++) {
		put(0, IN, 0, 512);
		fake_kick();
	}
	assert_int_equal(fake_io.queued, FAKE_SIZE);
	fake_end_one(0);
	fake_end_one(0);
	fake_end_turn();
	assert_int_equal(fake_io.queued, FAKE_SIZE);
	fake_end_all();
	assert_int_equal(used(), FAKE_SIZE + 5);
	assert_int_equal(fake.needs_resets, 0);
}

/* Requests that end at once, in any number, leave the loop its turn. */
static void budget(void **state)
{
	(void)state;
	start(0);
	for (unsigned int i = 0; i < FAKE_SIZE; i++)
		put(0, GET_ID, 0, 20);
	fake_kick();
	assert_int_equal(used(), FAKE_SIZE);
	assert_int_equal(fake.kicks, 1);
	fake_kick();
	assert_int_equal(fake.kicks, 1);
}

static void no_status(void **state)
{
	(void)state;
	start(0);
	describe(0, set_header(0, OUT, 0), 16, 0, 0);
	available(0);
	fake_kick();
	assert_int_equal(fake.needs_resets, 1);
	assert_int_equal(fake_io.lines, 1);
	put(3, GET_ID, 0, 20);
	fake_kick();
	assert_int_equal(used(), 0);
	fake.v->class->reset(fake.v);
	fake_end_turn();
	start(0);
	assert_int_equal(run(GET_ID, 0, 20), VBLK_OK);
}

static void resets(void **state)
{
	(void)state;
	/* Before anything: at once. */
	fake.v->class->reset(fake.v);
	assert_int_equal(fake.reset_dones, 1);
	start(0);
	put(0, IN, 0, 512);
	put(3, IN, 0, 512);
	fake_kick();
	fake.v->class->reset(fake.v);
	fake_end_turn();
	assert_int_equal(fake.reset_dones, 1);
	fake_end_one(0);
	fake_end_turn();
	assert_int_equal(fake.reset_dones, 1);
	memset(fake.ram, 0xcc, 0x9000); /* is the driver's again soon */
	fake_end_one(0);
	assert_int_equal(fake.reset_dones, 2);
	fake_end_turn();
	for (unsigned int i = 0; i < 0x9000; i++)
		assert_int_equal(fake.ram[i], 0xcc);
	/* A queue. */
	start(0);
	put(0, OUT, 0, 512);
	fake_kick();
	fake.v->class->queue_reset(fake.v, 0);
	fake_end_turn();
	assert_int_equal(fake.queue_dones, 0);
	fake_kick();
	fake_end_all();
	assert_int_equal(fake.queue_dones, 1);
	assert_int_equal(used(), 0);
	fake.enabled = true;
	avail = 0;
	memset(fake.ram + FAKE_DRIVER, 0, 0x2000);
	fake.v->class->queue_start(fake.v, 0);
	fake_end_turn();
	assert_int_equal(run(OUT, 0, 512), VBLK_OK);
	/* The machine. */
	put(0, OUT, 0, 512);
	fake_kick();
	fake.device->class->reset(fake.device);
	assert_int_equal(fake_io.queued, 0);
	assert_int_equal(used(), 1);
	fake_kick();
	assert_int_equal(fake.reset_dones, 2);
	fake.v->class->reset(fake.v); /* has nothing to wait for */
	assert_int_equal(fake.reset_dones, 3);
	start(0);
	assert_int_equal(run(OUT, 0, 512), VBLK_OK);
}

static unsigned int released;

static void on_released(void *opaque)
{
	(void)opaque;
	released++;
}

static bool is_there(void)
{
	fake.v->class->looked_for(fake.v);
	return !atomic_load(&fake.v->fn.gone);
}

static void owners(void **state)
{
	(void)state;
	fake_teardown();
	fake_setup(true, false, true, 512);
	assert_true(is_there());
	start(0);
	assert_int_equal(run(OUT, 0, 512), VBLK_OK);
	put(0, OUT, 0, 512);
	put(3, OUT, 0, 512);
	fake_kick();
	released = 0;
	assert_false(block_claim_take(&fake.drive.claim, on_released, NULL));
	fake_end_one(0);
	assert_int_equal(released, 0);
	fake_end_one(0);
	assert_int_equal(released, 1);
	fake_end_turn();
	assert_int_equal(fake.ram[STATUS + 3], VBLK_OK);
	assert_int_equal(run(OUT, 0, 512), VBLK_IOERR);
	assert_int_equal(run(IN, 0, 512), VBLK_IOERR);
	assert_int_equal(run(FLUSH, 0, 0), VBLK_IOERR);
	assert_int_equal(run(GET_ID, 0, 20), VBLK_OK);
	assert_true(is_there());
	fake.v->class->reset(fake.v);
	fake_end_turn();
	assert_false(is_there());
	fake.device->class->reset(fake.device);
	assert_true(is_there());
	start(0);
	assert_int_equal(run(OUT, 0, 512), VBLK_OK);
	/* Its driver lets go, and does not wait. */
	put(0, IN, 0, 512);
	fake_kick();
	fake.v->class->reset(fake.v);
	fake.status = 0;
	assert_false(is_there());
	fake.device->class->reset(fake.device);
	assert_true(is_there());
	/* Taken while nobody uses it. */
	assert_true(block_claim_take(&fake.drive.claim, on_released, NULL));
	assert_false(is_there());
	assert_int_equal(released, 1);
}

static void stays(void **state)
{
	(void)state;
	start(0);
	fake.v->class->reset(fake.v);
	fake_end_turn();
	assert_true(is_there()); /* nobody else has the disk */
}

static void end_with_requests(void **state)
{
	(void)state;
	start(0);
	put(0, OUT, 0, 512);
	put(3, IN, 0, 512);
	fake_kick();
	assert_int_equal(fake_io.queued, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(ring_places, setup, teardown),
		cmocka_unit_test_setup_teardown(ring_chains, setup, teardown),
		cmocka_unit_test_setup_teardown(ring_nonsense, setup, teardown),
		cmocka_unit_test_setup_teardown(ring_long, setup, teardown),
		cmocka_unit_test_setup_teardown(ring_telling, setup, teardown),
		cmocka_unit_test_setup_teardown(transfers, setup, teardown),
		cmocka_unit_test_setup_teardown(durability, setup, teardown),
		cmocka_unit_test_setup_teardown(read_only, setup, teardown),
		cmocka_unit_test_setup_teardown(zeroes, setup, teardown),
		cmocka_unit_test_setup_teardown(batches, setup, teardown),
		cmocka_unit_test_setup_teardown(flow, setup, teardown),
		cmocka_unit_test_setup_teardown(budget, setup, teardown),
		cmocka_unit_test_setup_teardown(no_status, setup, teardown),
		cmocka_unit_test_setup_teardown(resets, setup, teardown),
		cmocka_unit_test_setup_teardown(owners, setup, teardown),
		cmocka_unit_test_setup_teardown(stays, setup, teardown),
		cmocka_unit_test_setup_teardown(end_with_requests, setup, teardown),
	};

	return cmocka_run_group_tests_name("virtio_blk", tests, NULL, NULL);
}
