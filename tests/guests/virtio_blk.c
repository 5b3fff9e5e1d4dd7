/* SPDX-License-Identifier: MIT */
/*
 * A virtio-blk disk, driven well and badly. Arguments: test=NAME, blocks=N (of 512 bytes), boots=N. What a test wants
 * of the disk, tests/guests/cases_virtio_blk.py gives it. The test "owners" wants --vmbus too, and the disk on both.
 */
#include "rt/apic.h"
#include "rt/io.h"
#include "rt/pci.h"
#include "rt/rt.h"
#include "rt/storvsc.h"
#include "rt/virtio.h"

#define SECOND	1000000u
#define LONG	(20 * SECOND)
#define SECTOR	512u
#define HEADERS 0x3000000u /* RAM that nobody uses: 64 bytes for each request */
#define TABLES	0x3100000u /* 4 KiB each */
#define DATA	0x4000000u
#define SLOT	0x20000u /* of DATA, for each request that wants it */
#define VECTOR	0x70
#define RING	32

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNSUPP = 2, NONE = 0xee };
enum { F_SEG_MAX = 2, F_RO = 5, F_BLK_SIZE = 6, F_FLUSH = 9, F_TOPOLOGY = 10, F_DISCARD = 13, F_ZEROES = 14 };
enum { CFG_CAPACITY = 0, CFG_SEG_MAX = 12, CFG_BLK_SIZE = 20, CFG_EXP = 24, CFG_DISCARD = 36, CFG_SIZE = 60 };

static struct virtio v;
static struct vq q;
static uint64_t features;

static uint64_t header_of(uint16_t id)
{
	return HEADERS + 64u * id;
}

static uint8_t status_of(uint16_t id)
{
	return read8(header_of(id) + 48);
}

static uint64_t data_of(uint16_t id)
{
	return DATA + (uint64_t)SLOT * id;
}

/* A word in each 128 bytes: this CPU may be a slow one. */
static void fill(uint64_t at, uint32_t bytes, uint64_t seed)
{
	for (uint32_t i = 0; i < bytes; i += 128)
		write64(at + i, seed + i);
}

static void compare(uint64_t at, uint32_t bytes, uint64_t seed)
{
	for (uint32_t i = 0; i < bytes; i += 128)
		if (read64(at + i) != seed + i)
			CHECK_EQ(read64(at + i), seed + i);
}

static void start(void)
{
	if (!v.common) {
		pic_off();
		lapic_enable(false);
		virtio_find(&v, 2);
		features = virtio_offered(&v);
	}
	CHECK(virtio_negotiate(&v, features));
	virtio_msix(&v, 1, VECTOR, false);
	virtio_queue(&v, &q, 0, 0, 1);
	virtio_msix_enable(&v, true);
	virtio_status(&v, VS_DRIVER_OK);
}

static struct vq_part set_header(uint16_t id, uint32_t type, uint64_t sector)
{
	write32(header_of(id), type);
	write32(header_of(id) + 4, 0);
	write64(header_of(id) + 8, sector);
	write8(header_of(id) + 48, NONE);
	return (struct vq_part){ header_of(id), 16, false };
}

/* A request with its data in one piece, available but not told of. */
static void put(uint16_t id, uint32_t type, uint64_t sector, uint64_t data, uint32_t bytes)
{
	struct vq_part parts[3] = { set_header(id, type, sector),
				    { data, bytes, type == IN || type == GET_ID },
				    { header_of(id) + 48, 1, true } };

	if (!bytes)
		parts[1] = parts[2];
	if (features & VF(INDIRECT))
		vq_add_indirect(&q, id, parts, bytes ? 3 : 2, TABLES + 4096u * id);
	else
		vq_add(&q, id, parts, bytes ? 3 : 2);
}

static uint8_t end_of(uint16_t id, uint32_t *length)
{
	uint16_t which;

	CHECK(vq_wait(&q, &which, length, LONG));
	CHECK_EQ(which, id);
	return status_of(id);
}

static uint8_t run(uint32_t type, uint64_t sector, uint64_t data, uint32_t bytes)
{
	uint32_t length;

	put(0, type, sector, data, bytes);
	vq_kick(&q);
	return end_of(0, &length);
}

static uint8_t run_range(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	write64(DATA, sector);
	write32(DATA + 8, sectors);
	write32(DATA + 12, flags);
	return run(type, 0, DATA, 16);
}

static void good(uint64_t seed)
{
	fill(DATA, 8192, seed);
	CHECK_EQ(run(OUT, 64, DATA, 8192), OK);
	CHECK_EQ(run(FLUSH, 0, 0, 0), OK);
	fill(DATA, 8192, ~seed);
	CHECK_EQ(run(IN, 64, DATA, 8192), OK);
	compare(DATA, 8192, seed);
}

/* -- well */

static void test_facts(void)
{
	uint64_t blocks = rt_arg_number("blocks", 0);
	uint32_t length;

	start();
	CHECK_EQ(pci_read(v.devfn, 8, 4) >> 8, 0x010000);
	CHECK(v.config_length >= CFG_SIZE);
	CHECK_EQ(read64(v.config + CFG_CAPACITY), blocks);
	CHECK_EQ(read32(v.config + CFG_SEG_MAX) + 2, q.size);
	CHECK_EQ(read32(v.config + CFG_BLK_SIZE), 512);
	CHECK_EQ(read8(v.config + CFG_EXP), 3);
	CHECK_EQ(read32(v.config + CFG_DISCARD + 4), 1);
	CHECK_EQ(features >> 32, (VF(VERSION_1) | VF(RING_RESET)) >> 32);
	CHECK_EQ((uint32_t)features, 1u << F_SEG_MAX | 1u << F_BLK_SIZE | 1u << F_FLUSH | 1u << F_TOPOLOGY |
					     1u << F_DISCARD | 1u << F_ZEROES | VF(INDIRECT) | VF(EVENT_IDX));
	memset((void *)(uintptr_t)DATA, 0xee, 64);
	put(3, GET_ID, 0, DATA, 20);
	vq_kick(&q);
	CHECK_EQ(end_of(3, &length), OK);
	CHECK_EQ(length, 21);
	CHECK(!memcmp((void *)(uintptr_t)DATA, "serial-number\0\0\0\0\0\0\0", 20));
	CHECK_EQ(read8(DATA + 20), 0xee);
	CHECK_EQ(run(GET_ID, 0, DATA + 32, 3), OK);
	CHECK(!memcmp((void *)(uintptr_t)(DATA + 32), "ser\xee", 4));
	good(1);
}

static void test_sizes(void)
{
	static const uint32_t sizes[] = { 1, 2, 7, 8, 9, 64, 255, 256, 2048 };
	static const uint32_t shifts[] = { 0, 512, 4, 8, 4088, 1 };
	uint32_t length;

	start();
	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		for (unsigned int s = 0; s < sizeof(shifts) / sizeof(shifts[0]); s++) {
			uint32_t bytes = sizes[i] * SECTOR;
			uint64_t at = DATA + shifts[s];

			fill(at, bytes, i * 1000 + s);
			CHECK_EQ(run(OUT, s + 1, at, bytes), OK);
			fill(at, bytes, 0);
			write8(at + bytes, 0xee);
			put(1, IN, s + 1, at, bytes);
			vq_kick(&q);
			CHECK_EQ(end_of(1, &length), OK);
			CHECK_EQ(length, bytes + 1);
			compare(at, bytes, i * 1000 + s);
			CHECK_EQ(read8(at + bytes), 0xee);
		}
	}
}

/* Headers, data and status divided in all kinds of ways. */
static void test_parts(void)
{
	struct vq_part parts[200];
	unsigned int n = 0;
	uint32_t length;

	features &= ~VF(INDIRECT);
	start();
	fill(DATA, 4096, 77);
	set_header(0, OUT, 8);
	for (unsigned int i = 0; i < 16; i++) /* byte by byte */
		parts[n++] = (struct vq_part){ header_of(0) + i, 1, false };
	for (unsigned int i = 0; i < 128; i++)
		parts[n++] = (struct vq_part){ DATA + 32 * i, 32, false };
	parts[n++] = (struct vq_part){ header_of(0) + 48, 1, true };
	vq_add(&q, 0, parts, n);
	vq_kick(&q);
	CHECK_EQ(end_of(0, &length), OK);
	CHECK_EQ(length, 1);
	/* Header and data in one part; data and status too. */
	set_header(0, IN, 8);
	parts[0] = (struct vq_part){ header_of(0), 16, false };
	for (n = 1; n <= 100; n++)
		parts[n] = (struct vq_part){ DATA + 0x10000 + 8192 * n, n == 100 ? 4096 - 99 * 40 + 1 : 40, true };
	vq_add(&q, 0, parts, 101);
	vq_kick(&q);
	CHECK_EQ(end_of(0, &length), NONE);
	CHECK_EQ(length, 4097);
	for (unsigned int i = 0; i < 4096; i += 128)
		CHECK_EQ(read64(DATA + 0x10000 + 8192 * (1 + i / 40) + i % 40), 77 + i);
	CHECK_EQ(read8(DATA + 0x10000 + 8192 * 100 + 4096 - 99 * 40), OK);
	write32(DATA - 16, OUT);
	write64(DATA - 8, 16);
	fill(DATA, 4096, 78);
	parts[0] = (struct vq_part){ DATA - 16, 16 + 4096, false };
	parts[1] = (struct vq_part){ header_of(0) + 48, 1, true };
	vq_add(&q, 0, parts, 2);
	vq_kick(&q);
	CHECK_EQ(end_of(0, &length), OK);
	fill(DATA, 4096, 0);
	CHECK_EQ(run(IN, 16, DATA, 4096), OK);
	compare(DATA, 4096, 78);
}

/* As many at once as the ring takes; ends by interrupt, in any order. */
static void test_many(void)
{
	unsigned int rounds = (unsigned int)rt_arg_number("rounds", 8);
	uint32_t interrupts, length;

	start();
	for (unsigned int round = 0; round < rounds; round++) {
		bool write = round % 2 == 0;

		interrupts = rt_interrupts[VECTOR];
		/* The event is the last one's, so that it comes once. */
		write16(q.driver + 4 + 2ULL * q.size, (uint16_t)(q.seen + q.size - 1));
		for (uint16_t i = 0; i < q.size; i++) {
			uint64_t at = DATA + 4096ULL * i;

			if (write)
				fill(at, 4096, round * 100000u + i);
			put(i, write ? OUT : IN, 8ULL * i, at, 4096);
			if (i % 16 == 15)
				vq_kick(&q);
		}
		for (unsigned int i = 0; i < q.size; i++) {
			uint16_t id;

			CHECK(vq_wait(&q, &id, &length, LONG));
			CHECK(id < q.size);
			CHECK_EQ(status_of(id), OK);
			if (!write) {
				compare(DATA + 4096ULL * id, 4096, (round - 1) * 100000u + id);
				fill(DATA + 4096ULL * id, 4096, 0);
			}
		}
		CHECK(rt_wait(VECTOR, interrupts + 1, LONG));
		CHECK_EQ(rt_interrupts[VECTOR], interrupts + 1);
	}
	good(3);
}

static void test_zeroes(void)
{
	start();
	for (unsigned int how = 0; how < 3; how++) {
		uint8_t status;

		fill(DATA, 0x20000, 5);
		CHECK_EQ(run(OUT, 0, DATA, 0x20000), OK);
		status = run_range(how ? ZEROES : DISCARD, 64, 128, how == 2);
		/* Not every file system makes zeroes without a hole. */
		CHECK(status == OK || (how == 1 && status == UNSUPP));
		fill(DATA, 0x20000, 9);
		CHECK_EQ(run(IN, 0, DATA, 0x20000), OK);
		compare(DATA, 64 * SECTOR, 5);
		for (uint32_t i = 64 * SECTOR; i < 192 * SECTOR && status == OK; i += 128)
			CHECK_EQ(read64(DATA + i), 0);
		compare(DATA + 192 * SECTOR, 64 * SECTOR, 5 + 192 * SECTOR);
	}
	CHECK_EQ(run_range(DISCARD, 0, 8, 1), UNSUPP);
	CHECK_EQ(run_range(DISCARD, 0, 8, 2), UNSUPP);
	CHECK_EQ(run_range(ZEROES, 0, 8, 2), UNSUPP);
	CHECK_EQ(run_range(ZEROES, 0, 0, 0), OK);
	CHECK_EQ(run_range(ZEROES, UINT64_MAX, 8, 0), IOERR);
	CHECK_EQ(run_range(DISCARD, 0, UINT32_MAX, 0), IOERR);
	CHECK_EQ(run_range(DISCARD, rt_arg_number("blocks", 0) - 1, 2, 0), IOERR);
	CHECK_EQ(run(DISCARD, 0, DATA, 15), IOERR);
	CHECK_EQ(run(DISCARD, 0, DATA, 32), IOERR);
	CHECK_EQ(run(DISCARD, 0, 0, 0), IOERR);
	good(9);
}

static void test_readonly(void)
{
	start();
	CHECK(features & 1u << F_RO);
	CHECK(!(features & (1u << F_DISCARD | 1u << F_ZEROES)));
	CHECK_EQ(run(IN, 0, DATA, 4096), OK);
	CHECK_EQ(run(OUT, 0, DATA, 4096), IOERR);
	CHECK_EQ(run(FLUSH, 0, 0, 0), OK);
	CHECK_EQ(run_range(DISCARD, 0, 8, 0), IOERR);
	CHECK_EQ(run_range(ZEROES, 0, 8, 0), IOERR);
}

static void test_dvd(void)
{
	start();
	CHECK(features & 1u << F_RO);
	CHECK_EQ(read32(v.config + CFG_BLK_SIZE), 2048);
	CHECK_EQ(run(IN, 64, DATA, 2048), OK);
	CHECK(!memcmp((void *)(uintptr_t)(DATA + 1), "CD001", 5));
	CHECK_EQ(run(IN, 65, DATA, 2048), IOERR); /* not at a block */
	CHECK_EQ(run(IN, 64, DATA, 512), IOERR);
}

/* -- resets */

/* A whole ring of long reads, and nobody waits for them. */
static void flood(void)
{
	for (uint16_t i = 0; i < 64; i++)
		put(i, IN, 0, data_of(i), SLOT);
	vq_kick(&q);
}

/* What was under way has ended: memory that is ours again stays as it is. */
static void expect_quiet(void)
{
	for (uint16_t i = 0; i < 64; i++)
		fill(data_of(i), 4096, 0x1234567800ULL + i);
	rt_delay(30000);
	for (uint16_t i = 0; i < 64; i++)
		compare(data_of(i), 4096, 0x1234567800ULL + i);
}

static void test_reset(void)
{
	uint64_t end;

	for (unsigned int round = 0; round < 20; round++) {
		start();
		good(round);
		flood();
		if (round % 2) {
			CHECK(virtio_reset(&v));
			if (round % 10 == 1)
				expect_quiet();
			continue;
		}
		virtio_select(&v, 0);
		write16(v.common + VC_QUEUE_RESET, 1);
		end = rt_ticks() + 20000ULL * RT_TICKS_PER_MS;
		while (read16(v.common + VC_QUEUE_RESET))
			CHECK(rt_ticks() < end);
		CHECK_EQ(read16(v.common + VC_QUEUE_ENABLE), 0);
		if (round % 10 == 0)
			expect_quiet();
		virtio_queue(&v, &q, 0, 64, 1);
		good(round);
	}
	/* What becomes available while the queue is not running is found when it starts. */
	CHECK(virtio_negotiate(&v, features));
	virtio_queue(&v, &q, 0, 0, 1);
	put(0, FLUSH, 0, 0, 0);
	vq_kick(&q);
	virtio_status(&v, VS_DRIVER_OK);
	CHECK(vq_wait(&q, &(uint16_t){ 0 }, &(uint32_t){ 0 }, LONG));
	good(100);
}

static _Noreturn void reboot(uint32_t boot)
{
	outb(0x70, 64);
	outb(0x71, (uint8_t)(boot + 1));
	outb(0x64, 0xfe);
	for (;;)
		__asm__ volatile("hlt");
}

static uint32_t boot_number(void)
{
	outb(0x70, 64);
	return inb(0x71);
}

/* Resets of the machine with reads under way; afterwards memory must stay zero. */
static void test_reboot(void)
{
	uint32_t boot = boot_number();

	rt_print("boot %u\n", boot);
	for (unsigned int n = 0; n < 50; n++) {
		for (uint16_t i = 0; i < 64; i += 8)
			CHECK_EQ(read64(data_of(i) + 4096 * (n % 32)), 0);
		rt_delay(200);
	}
	start();
	fill(DATA, SLOT, 0x77);
	CHECK_EQ(run(OUT, 0, DATA, SLOT), OK);
	if (boot + 1 == rt_arg_number("boots", 4))
		return;
	flood();
	reboot(boot);
}

/* -- badly */

static void test_bad_requests(void)
{
	uint64_t blocks = rt_arg_number("blocks", 0);
	static const uint32_t unknown[] = { 2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 255, 0x80000000, UINT32_MAX };
	struct vq_part parts[3];
	uint32_t length;

	start();
	for (unsigned int i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
		CHECK_EQ(run(unknown[i], 0, DATA, 512), UNSUPP);
	CHECK_EQ(run(IN, blocks, DATA, 512), IOERR);
	CHECK_EQ(run(IN, blocks - 1, DATA, 1024), IOERR);
	CHECK_EQ(run(IN, blocks, 0, 0), OK);
	CHECK_EQ(run(IN, blocks + 1, 0, 0), IOERR);
	CHECK_EQ(run(OUT, UINT64_MAX, DATA, 512), IOERR);
	CHECK_EQ(run(OUT, UINT64_MAX / 512, DATA, 512), IOERR);
	CHECK_EQ(run(OUT, UINT64_MAX / 512 + 1, DATA, 512), IOERR); /* would be 0 */
	CHECK_EQ(run(IN, 0, DATA, 511), IOERR);
	CHECK_EQ(run(OUT, 0, DATA, 513), IOERR);
	/* No header, or not all of it. */
	parts[0] = (struct vq_part){ header_of(0) + 48, 1, true };
	write8(header_of(0) + 48, NONE);
	vq_add(&q, 0, parts, 1);
	vq_kick(&q);
	CHECK_EQ(end_of(0, &length), IOERR);
	parts[1] = parts[0];
	parts[0] = (struct vq_part){ header_of(0), 15, false };
	vq_add(&q, 0, parts, 2);
	vq_kick(&q);
	CHECK_EQ(end_of(0, &length), IOERR);
	/* A read into the header of the next request, and of itself. */
	put(1, IN, 0, header_of(2), 512);
	put(2, IN, 0, header_of(2), 512);
	vq_kick(&q);
	for (unsigned int i = 0; i < 2; i++)
		CHECK(vq_wait(&q, &(uint16_t){ 0 }, &length, LONG));
	good(4);
}

/* Each breaks the ring; the device says so, and is as good as new after a reset. */
static void break_ring(unsigned int how)
{
	struct vq_part part = set_header(0, OUT, 0), parts[2] = { part, { header_of(0) + 48, 1, true } };
	uint64_t end = rt_ticks() + 20000ULL * RT_TICKS_PER_MS;

	switch (how) {
	case 0: /* no place for the status */
		vq_add(&q, 0, &part, 1);
		break;
	case 1: /* in a circle */
		vq_add(&q, 0, parts, 2);
		write16(q.desc + 16 + 12, 3);
		write16(q.desc + 16 + 14, 1);
		break;
	case 2: /* beyond the table */
		vq_add(&q, 0, parts, 2);
		write16(q.desc + 14, q.size);
		break;
	case 3:
		vq_add(&q, 0, parts, 2);
		write16(q.driver + 4 + 2ULL * ((q.next - 1) % q.size), 0xffff);
		break;
	case 4: /* read after written */
		vq_add(&q, 0, parts, 2);
		write16(q.desc + 12, 3);
		write16(q.desc + 16 + 12, 0);
		break;
	case 5: /* no RAM */
		part.address = v.common;
		vq_add(&q, 0, &part, 1);
		break;
	case 6:
		part.address = UINT64_MAX - 7;
		vq_add(&q, 0, &part, 1);
		break;
	case 7:
		part.length = 0;
		vq_add(&q, 0, &part, 1);
		break;
	case 8:
		part.length = UINT32_MAX;
		vq_add(&q, 0, &part, 1);
		break;
	case 9: /* more than the ring has */
		vq_add(&q, 0, parts, 2);
		write16(q.driver + 2, (uint16_t)(q.next + q.size));
		break;
	case 10: /* a table in a table */
		vq_add_indirect(&q, 0, parts, 2, TABLES);
		write64(TABLES, TABLES);
		write32(TABLES + 8, 32);
		write16(TABLES + 12, 4);
		break;
	case 11: /* of no whole number */
		vq_add_indirect(&q, 0, parts, 2, TABLES);
		write32(q.desc + 8, 31);
		break;
	case 12: /* with something behind it */
		vq_add_indirect(&q, 0, parts, 2, TABLES);
		write16(q.desc + 12, 5);
		break;
	case 13: /* that points out of itself */
		vq_add_indirect(&q, 0, parts, 2, TABLES);
		write16(TABLES + 14, 2);
		break;
	case 14: /* that is no RAM */
		vq_add_indirect(&q, 0, parts, 2, v.common);
		break;
	}
	vq_kick(&q);
	while (!(read8(v.common + VC_STATUS) & VS_NEEDS_RESET))
		CHECK(rt_ticks() < end);
}

static void test_bad_rings(void)
{
	for (unsigned int how = 0; how < 14; how++) {
		start();
		good(how);
		for (uint16_t i = 8; i < 16; i++)
			put(i, IN, 0, data_of(i), SLOT);
		break_ring(how);
		CHECK(virtio_reset(&v));
	}
	/* Rings that are no RAM. */
	CHECK(virtio_negotiate(&v, features));
	virtio_select(&v, 0);
	write32(v.common + VC_QUEUE_DESC, (uint32_t)v.common);
	write32(v.common + VC_QUEUE_DRIVER, (uint32_t)v.notify);
	write32(v.common + VC_QUEUE_DEVICE, UINT32_MAX);
	write16(v.common + VC_QUEUE_ENABLE, 1);
	virtio_status(&v, VS_DRIVER_OK);
	while (!(read8(v.common + VC_STATUS) & VS_NEEDS_RESET))
		rt_delay(100);
	start();
	good(50);
}

/* A driver that makes requests available for ever, and never looks at what has been used. */
static void test_greedy(void)
{
	start();
	for (unsigned int i = 0; i < 5000; i++) {
		put((uint16_t)(i % 64), i % 3 ? IN : GET_ID, 0, data_of((uint16_t)(i % 64)), 512);
		if (i % 100 == 0)
			vq_kick(&q);
	}
	/* It may have been found out, or not. */
	start();
	good(7);
}

/* -- one disk, two devices */

static struct vb_channel ch;

static bool is_there(void)
{
	return pci_read(v.devfn, 0, 4) != UINT32_MAX;
}

static void vmbus(void)
{
	vb_start(1, NULL);
	vb_connect(VB_5_3);
}

static uint8_t *scsi_memory(void)
{
	return (uint8_t *)(uintptr_t)(DATA + 0x2000000);
}

static void scsi_good(uint64_t seed)
{
	uint64_t at = (uintptr_t)scsi_memory();

	fill(at, 4096, seed);
	sv_good(&ch, sv_transfer(0, true, 512, 8), scsi_memory(), 4096);
	fill(at, 4096, 0);
	sv_good(&ch, sv_transfer(0, false, 512, 8), scsi_memory(), 4096);
	compare(at, 4096, seed);
}

/* The controller is opened under a hundred writes. What they say they wrote, it finds; and then it alone writes. */
static void take_under_writes(void)
{
	uint64_t at = (uintptr_t)scsi_memory();
	unsigned int ended = 0, after = 0;
	uint32_t length;
	uint16_t id;

	for (uint16_t i = 0; i < 100; i++) {
		fill(data_of(i), 4096, 1000 + i);
		put(i, OUT, 8ULL * i, data_of(i), 4096);
	}
	vq_kick(&q);
	sv_open(&ch, RING, 0x602);
	while (vq_used(&q, &id, &length)) {
		ended++;
		CHECK(status_of(id) == OK || status_of(id) == IOERR);
	}
	/* The controller has answered: whatever ends now was not carried out. */
	for (; ended < 100; ended++, after++) {
		CHECK(vq_wait(&q, &id, &length, LONG));
		CHECK_EQ(status_of(id), IOERR);
	}
	rt_print("%u of 100 writes came too late\n", after);
	for (uint16_t i = 0; i < 100; i++) {
		sv_good(&ch, sv_transfer(0, false, 8ULL * i, 8), scsi_memory(), 4096);
		if (status_of(i) == OK)
			compare(at, 4096, 1000 + i);
		fill(at, 4096, 5000 + i);
		sv_good(&ch, sv_transfer(0, true, 8ULL * i, 8), scsi_memory(), 4096);
	}
	for (uint16_t i = 0; i < 100; i++)
		CHECK_EQ(run(i % 2 ? OUT : IN, 8ULL * i, data_of(i), 4096), IOERR);
	CHECK_EQ(run(FLUSH, 0, 0, 0), IOERR);
	CHECK_EQ(run_range(DISCARD, 0, 8, 0), IOERR);
	CHECK_EQ(run_range(ZEROES, 0, 8, 0), IOERR);
	for (uint16_t i = 0; i < 100; i++) {
		sv_good(&ch, sv_transfer(0, false, 8ULL * i, 8), scsi_memory(), 4096);
		compare(at, 4096, 5000 + i);
	}
}

static void test_owners(void)
{
	uint32_t boot = boot_number();

	rt_print("boot %u\n", boot);
	switch (boot) {
	case 0:
		start();
		good(1);
		vmbus();
		take_under_writes();
		/* Closed, unloaded, opened again: it stays as it is. */
		vb_close(&ch);
		CHECK_EQ(run(OUT, 0, DATA, 4096), IOERR);
		vb_unload();
		CHECK_EQ(run(OUT, 0, DATA, 4096), IOERR);
		CHECK(is_there()); /* its driver has it */
		CHECK(virtio_reset(&v));
		CHECK_EQ(read8(v.common + VC_STATUS), 0);
		CHECK(!is_there());
		CHECK_EQ(read8(v.common + VC_STATUS), 0xff);
		CHECK_EQ(pci_read(v.devfn, 0x10, 4), UINT32_MAX);
		pci_write(v.devfn, 4, 2, 0);
		reboot(boot);
	case 1: /* it is back, and writes; its driver lets go of it, as a firmware does */
		start();
		CHECK_EQ(run(IN, 0, DATA, 4096), OK);
		compare(DATA, 4096, 5000);
		good(2);
		CHECK(virtio_reset(&v));
		CHECK(virtio_negotiate(&v, features)); /* nobody has looked for it meanwhile */
		virtio_queue(&v, &q, 0, 0, 1);
		virtio_status(&v, VS_DRIVER_OK);
		good(3);
		CHECK(is_there());
		flood();
		write8(v.common + VC_STATUS, 0); /* and does not wait */
		CHECK(!is_there());
		vmbus();
		sv_open(&ch, RING, 0x602); /* that does */
		expect_quiet();
		scsi_good(4);
		reboot(boot);
	case 2: /* the controller first: the function, which nobody has used, is not found */
		vmbus();
		sv_open(&ch, RING, 0x602);
		scsi_good(5);
		CHECK_EQ(pci_find(VIRTIO_VENDOR, VIRTIO_DEVICE + 2), PCI_NONE);
		for (unsigned int n = 0; n < 50; n++)
			CHECK(sv_send(&ch, n, sv_transfer(0, true, n * 8, 8), scsi_memory(), 4096));
		reboot(boot);
	case 3: /* under writes of the controller's; never looked for while it was taken */
		start();
		good(6);
		for (unsigned int n = 0; n < 64; n++)
			put((uint16_t)n, OUT, 0, data_of((uint16_t)n), SLOT);
		vq_kick(&q);
		reboot(boot);
	default:
		start();
		good(7);
	}
}

/* An interrupt told the old way, and not heard before MSI-X is switched, comes the new way. */
static void test_msix_switched(void)
{
	uint32_t before, length;

	start();
	virtio_msix_enable(&v, false);
	before = rt_interrupts[VECTOR];
	put(0, FLUSH, 0, 0, 0);
	vq_kick(&q);
	while (!(pci_read(v.devfn, 6, 2) & 8))
		;
	virtio_msix_enable(&v, true);
	CHECK(rt_wait(VECTOR, before + 1, 10 * SECOND));
	CHECK(!(pci_read(v.devfn, 6, 2) & 8));
	CHECK_EQ(end_of(0, &length), OK);

	virtio_msix(&v, 1, VECTOR, true);
	put(0, FLUSH, 0, 0, 0);
	vq_kick(&q);
	CHECK_EQ(end_of(0, &length), OK);
	virtio_msix_enable(&v, false);
	while (!(pci_read(v.devfn, 6, 2) & 8))
		;
	CHECK_EQ(read8(v.isr), 1);
}

/* Registers that were written without a status are as new after a reset. */
static void test_early_enable(void)
{
	start();
	CHECK(virtio_reset(&v));
	virtio_select(&v, 0);
	write16(v.common + VC_QUEUE_ENABLE, 1);
	CHECK_EQ(read16(v.common + VC_QUEUE_ENABLE), 1);
	write8(v.common + VC_STATUS, 0);
	CHECK_EQ(read16(v.common + VC_QUEUE_ENABLE), 0);
	start();
	good(1);
}

/* As often as a driver likes: the host is told once. */
static void test_broken_again(void)
{
	start();
	for (unsigned int i = 0; i < 20; i++) {
		CHECK(virtio_reset(&v));
		CHECK(virtio_negotiate(&v, features));
		virtio_select(&v, 0);
		write64(v.common + VC_QUEUE_DESC, v.common);
		write64(v.common + VC_QUEUE_DRIVER, v.common);
		write64(v.common + VC_QUEUE_DEVICE, v.common);
		write16(v.common + VC_QUEUE_ENABLE, 1);
		virtio_status(&v, VS_DRIVER_OK);
		while (!(read8(v.common + VC_STATUS) & VS_NEEDS_RESET))
			;
	}
}

static const struct rt_test tests[] = {
	{ "facts", test_facts },
	{ "sizes", test_sizes },
	{ "parts", test_parts },
	{ "many", test_many },
	{ "zeroes", test_zeroes },
	{ "readonly", test_readonly },
	{ "dvd", test_dvd },
	{ "reset", test_reset },
	{ "reboot", test_reboot },
	{ "bad-requests", test_bad_requests },
	{ "bad-rings", test_bad_rings },
	{ "greedy", test_greedy },
	{ "owners", test_owners },
	{ "msix-switched", test_msix_switched },
	{ "early-enable", test_early_enable },
	{ "broken-again", test_broken_again },
};

void guest_main(void)
{
	rt_run_test(tests, sizeof(tests) / sizeof(tests[0]));
	rt_print("passed\n");
}
