/* SPDX-License-Identifier: MIT */
/*
 * The storage controller, driven well and badly. Arguments: test=NAME, cpus=N, rounds=N, luns=N, blocks=N (of disk 0,
 * 512 bytes each). Wants --vmbus and --disk; what a test wants of the disks, tests/guests/cases_disk.py gives it.
 */
#include "rt/io.h"
#include "rt/rt.h"
#include "rt/storvsc.h"

#define RING  32
#define BLOCK 512u

static struct vb_channel ch;
static uint8_t *memory; /* 2 MiB and a page */

static void fill(uint8_t *at, uint32_t size, uint64_t seed)
{
	uint64_t *words = (uint64_t *)at;

	for (uint32_t i = 0; i < size / 8; i += 16) /* this CPU may be a slow one */
		words[i] = seed + i;
	words[size / 8 - 1] = ~seed;
}

static void compare(const uint8_t *at, uint32_t size, uint64_t seed)
{
	const uint64_t *words = (const uint64_t *)at;

	CHECK_EQ(words[size / 8 - 1], ~seed);
	for (uint32_t i = 0; i < size / 8 - 1; i += 16)
		if (words[i] != seed + i)
			CHECK_EQ(words[i], seed + i);
}

static void expect_sense(struct sv_packet answer, uint32_t key, uint32_t asc, uint32_t ascq)
{
	CHECK_EQ(answer.srb_status, SV_SENSE);
	CHECK_EQ(answer.scsi_status, 2);
	CHECK_EQ(answer.cdb[2] << 16 | answer.cdb[12] << 8 | answer.cdb[13], key << 16 | asc << 8 | ascq);
}

static void open(void)
{
	struct sv_packet properties = sv_open(&ch, RING, 0x602);

	CHECK(properties.max_transfer >= 1 << 20);
	CHECK_EQ(properties.max_subchannels, rt_arg_number("cpus", 1) - 1);
}

/* What a good guest does; leaves the channel open. */
static void good(uint64_t seed)
{
	sv_good(&ch, SV_CDB(0, 0, 0, 0, 0, 0, 0), NULL, 0);
	fill(memory, 8192, seed);
	sv_good(&ch, sv_transfer(0, true, 64, 16), memory, 8192);
	memset(memory, 0, 64);
	sv_good(&ch, SV_CDB(0, 0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 0);
	sv_good(&ch, sv_transfer(0, false, 64, 16), memory, 8192);
	compare(memory, 8192, seed);
}

static void test_versions(void)
{
	static const uint16_t refused[] = { 0, 0x100, 0x403, 0x603, 0x700, 0xffff };
	static const uint16_t taken[] = { 0x200, 0x402, 0x501, 0x600, 0x602 };

	for (unsigned int i = 0; i < 5; i++) {
		CHECK_EQ(vb_open(&ch, sv_offer(0), RING, RING, 0), 0);
		CHECK_EQ(sv_control(&ch, SV_BEGIN, 0).status, 0);
		for (unsigned int r = 0; r < 6; r++)
			CHECK_EQ(sv_control(&ch, SV_VERSION, refused[r]).status, 0xc0000059);
		CHECK_EQ(sv_control(&ch, SV_VERSION, taken[i]).status, 0);
		CHECK_EQ(sv_control(&ch, SV_PROPERTIES, 0).status, 0);
		CHECK_EQ(sv_control(&ch, SV_END, 0).status, 0);
		good(i);
		vb_close(&ch);
	}
}

/* luns of them, and the disk's size and number. */
static void test_units(void)
{
	uint64_t luns = rt_arg_number("luns", 1), blocks = rt_arg_number("blocks", 0);

	open();
	sv_good(&ch, SV_CDB(0, 0xa0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0), memory, 4096);
	CHECK_EQ(sv_be(memory, 4), luns * 8);
	for (unsigned int i = 0; i < luns; i++) {
		CHECK_EQ(sv_be(memory + 8 + 8 * i, 8), (uint64_t)i << 48);
		sv_good(&ch, SV_CDB(i, 0x12, 0, 0, 0, 36, 0), memory + 4096, 36);
		CHECK_EQ(memory[4096], 0);
		sv_good(&ch, SV_CDB(i, 0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0), memory + 4096, 32);
		CHECK_EQ(sv_be(memory + 4096, 8), blocks - 1 + i);
		fill(memory + 4096, BLOCK, 1000 + i);
		sv_good(&ch, sv_transfer(i, true, i, 1), memory + 4096, BLOCK);
	}
	for (unsigned int i = 0; i < luns; i++) {
		sv_good(&ch, sv_transfer(i, false, i, 1), memory + 4096, BLOCK);
		compare(memory + 4096, BLOCK, 1000 + i);
	}
	sv_good(&ch, SV_CDB((unsigned int)luns, 0x12, 0, 0, 0, 36, 0), memory, 36);
	CHECK_EQ(memory[0], 0x7f);
	CHECK_EQ(sv_run(&ch, SV_CDB((unsigned int)luns, 0, 0, 0, 0, 0, 0), NULL, 0).srb_status, SV_INVALID_LUN);
}

/* Sizes from a block to 2 MiB, at all kinds of addresses. */
static void test_sizes(void)
{
	static const uint32_t sizes[] = { 1, 2, 7, 8, 9, 64, 255, 256, 257, 2048, 4096 };
	static const uint32_t shifts[] = { 0, 512, 4, 8, 4088 };

	open();
	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		for (unsigned int s = 0; s < sizeof(shifts) / sizeof(shifts[0]); s++) {
			uint32_t size = sizes[i] * BLOCK;
			uint8_t *at = memory + shifts[s];

			fill(at, size, i * 1000 + s);
			CHECK_EQ(sv_good(&ch, sv_transfer(0, true, s + 1, sizes[i]), at, size).transfer, size);
			memset(at, 0xee, 64);
			memset(at + size - 64, 0xee, 64 + 8);
			CHECK_EQ(sv_good(&ch, sv_transfer(0, false, s + 1, sizes[i]), at, size).transfer, size);
			compare(at, size, i * 1000 + s);
			CHECK_EQ(at[size], 0xee);
		}
	}
}

/* As many at once as the ring takes, and more than the host takes. */
static void test_many(void)
{
	uint64_t rounds = rt_arg_number("rounds", 600), sent = 0, received = 0;

	open();
	for (uint64_t i = 0; i < 64; i++)
		fill(memory + i * 4096, 4096, i);
	for (unsigned int write = 1; write < 2; write--) {
		sent = received = 0;
		while (received < rounds) {
			uint64_t transaction, i = sent % 64;

			if (sent < rounds &&
			    sv_send(&ch, sent, sv_transfer(0, write, i * 8, 8), memory + i * 4096, 4096)) {
				sent++;
				continue;
			}
			CHECK_EQ(sv_await(&ch, &transaction).srb_status, SV_OK);
			CHECK(transaction < sent);
			received++;
		}
		if (write)
			memset(memory, 0, 64 * 4096);
	}
	for (uint64_t i = 0; i < 64; i++)
		compare(memory + i * 4096, 4096, i);
}

/* The answers' ring is one page, and nobody reads it until no more can be sent. */
static void test_full(void)
{
	uint64_t sent = 0, transaction, seen[64] = { 0 };

	CHECK_EQ(vb_open(&ch, sv_offer(0), RING, 1, 0), 0);
	CHECK_EQ(sv_control(&ch, SV_BEGIN, 0).status, 0);
	CHECK_EQ(sv_control(&ch, SV_VERSION, 0x602).status, 0);
	CHECK_EQ(sv_control(&ch, SV_END, 0).status, 0);
	for (unsigned int idle = 0; idle < 20; idle++) {
		while (sv_send(&ch, sent, sv_transfer(0, false, sent % 64, 1), memory + sent % 64 * BLOCK, BLOCK)) {
			sent++;
			idle = 0;
		}
		rt_delay(5000);
	}
	CHECK(sent > 300 && sent < 4096);
	for (uint64_t i = 0; i < sent; i++) {
		CHECK_EQ(sv_await(&ch, &transaction).srb_status, SV_OK);
		CHECK(transaction < sent && !(seen[transaction / 64] & 1ULL << transaction % 64));
		seen[transaction / 64] |= 1ULL << transaction % 64;
	}
	good(1);
}

static void test_subchannels(void)
{
	unsigned int cpus = (unsigned int)rt_arg_number("cpus", 2);
	struct vb_channel subs[8];

	for (unsigned int round = 0; round < 3; round++) {
		uint32_t offers = vb.offers;

		open();
		CHECK(sv_control(&ch, SV_SUBCHANNELS, (uint16_t)cpus).status != 0);
		CHECK_EQ(sv_control(&ch, SV_SUBCHANNELS, (uint16_t)(cpus - 1)).status, 0);
		CHECK(vb_reaches(&vb.offers, offers + cpus - 1, VB_WAIT));
		for (unsigned int i = 1; i < cpus; i++) {
			CHECK_EQ(vb_open(&subs[i], sv_offer(i), RING, RING, i), 0);
			fill(memory, 4096, i);
			sv_good(&subs[i], sv_transfer(0, true, i * 8, 8), memory, 4096);
			sv_good(&ch, sv_transfer(0, false, i * 8, 8), memory + 4096, 4096);
			compare(memory + 4096, 4096, i);
		}
		for (unsigned int i = 1; i < cpus; i++)
			CHECK(sv_send(&subs[i], i, sv_transfer(0, false, 0, 8), memory + i * 4096, 4096));
		for (unsigned int i = 1; i < cpus; i++) {
			uint64_t transaction;

			CHECK_EQ(sv_await(&subs[i], &transaction).srb_status, SV_OK);
			CHECK_EQ(transaction, i);
		}
		vb_unload();
		vb_connect(VB_5_3);
	}
}

/* UNMAP, WRITE SAME: what was there is zero, and the pattern is there. */
static void test_unmap(void)
{
	uint8_t *list = memory + (1 << 20);

	open();
	fill(memory, 1 << 20, 5);
	sv_good(&ch, sv_transfer(0, true, 0, 2048), memory, 1 << 20);
	memset(list, 0, 24);
	list[1] = 22;
	list[3] = 16;
	list[14] = 1; /* block 256 */
	list[18] = 4; /* 1024 blocks */
	sv_good(&ch, SV_CDB(0, 0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), list, 24);
	sv_good(&ch, sv_transfer(0, false, 0, 2048), memory, 1 << 20);
	CHECK_EQ(*(uint64_t *)memory, 5);
	for (uint32_t i = 0; i < 1024 * BLOCK; i += 128)
		if (*(uint64_t *)(memory + 256 * BLOCK + i))
			CHECK_EQ(i, UINT32_MAX);
	memset(list, 0x5a, BLOCK);
	sv_good(&ch, SV_CDB(0, 0x93, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0), list, BLOCK);
	sv_good(&ch, sv_transfer(0, false, 255, 514), memory, 514 * BLOCK);
	CHECK_EQ(memory[BLOCK], 0x5a);
	CHECK_EQ(memory[513 * BLOCK - 1], 0x5a);
	CHECK(memory[513 * BLOCK] != 0x5a);
	sv_good(&ch, SV_CDB(0, 0x93, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0), memory + 512 * BLOCK, 0);
}

static void test_readonly(void)
{
	open();
	sv_good(&ch, sv_transfer(0, false, 0, 8), memory, 4096);
	expect_sense(sv_run(&ch, sv_transfer(0, true, 0, 8), memory, 4096), 7, 0x27, 0);
	sv_good(&ch, SV_CDB(0, 0x1a, 0, 0x3f, 0, 192, 0), memory, 192);
	CHECK_EQ(memory[2] & 0x80, 0x80);
}

static void test_dvd(void)
{
	open();
	sv_good(&ch, SV_CDB(0, 0x12, 0, 0, 0, 36, 0), memory, 36);
	CHECK_EQ(memory[0], 5);
	sv_good(&ch, SV_CDB(0, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), memory, 8);
	CHECK_EQ(sv_be(memory + 4, 4), 2048);
	sv_good(&ch, SV_CDB(0, 0x43, 0, 0, 0, 0, 0, 0, 0, 20, 0), memory, 20);
	sv_good(&ch, SV_CDB(0, 0x28, 0, 0, 0, 0, 16, 0, 0, 1, 0), memory, 2048);
	CHECK(!memcmp(memory + 1, "CD001", 5));
}

/* Blocks are written until the host has no more room; what was acknowledged is there, and other things still work. */
static void test_no_space(void)
{
	uint64_t blocks = rt_arg_number("blocks", 0), at = 0;
	struct sv_packet answer;

	open();
	for (; at + 2048 <= blocks; at += 2048) {
		fill(memory, 1 << 20, at);
		answer = sv_run(&ch, sv_transfer(0, true, at, 2048), memory, 1 << 20);
		if (answer.srb_status != SV_OK)
			break;
	}
	CHECK(at && at + 2048 <= blocks);
	expect_sense(answer, 7, 0x27, 7);
	sv_good(&ch, SV_CDB(0, 0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 0);
	while (at) {
		at -= 2048;
		sv_good(&ch, sv_transfer(0, false, at, 2048), memory, 1 << 20);
		compare(memory, 1 << 20, at);
	}
	good(1);
}

static void test_reopen(void)
{
	uint64_t rounds = rt_arg_number("rounds", 50);
	uint8_t *mark = vb_mark();

	for (uint64_t i = 0; i < rounds; i++) {
		open();
		/* Closed with requests under way. */
		for (unsigned int n = 0; n < 10; n++)
			CHECK(sv_send(&ch, n, sv_transfer(0, i % 2, n * 8, 8), memory + n * 4096, 4096));
		vb_close(&ch);
		vb_release(mark);
		open();
		good(i);
		vb_close(&ch);
		vb_release(mark);
	}
}

/* Resets with reads under way; afterwards memory must stay zero. */
static void test_reboot(void)
{
	uint64_t boots = rt_arg_number("boots", 4);
	uint8_t *page = (uint8_t *)(14ULL << 20);
	uint32_t boot;

	outb(0x70, 64);
	boot = inb(0x71);
	rt_print("boot %u\n", boot);
	for (unsigned int n = 0; n < 100; n++) {
		for (unsigned int i = 0; i < 512; i += 64)
			CHECK_EQ(*(uint64_t *)(page + i), 0);
		rt_delay(200);
	}
	open();
	memset(memory, 0x77, 64 * 4096);
	for (unsigned int n = 0; n < 8; n++)
		sv_good(&ch, sv_transfer(0, true, n * 512, 512), memory, 64 * 4096);
	if (boot + 1 == boots)
		return;
	outb(0x70, 64);
	outb(0x71, (uint8_t)(boot + 1));
	for (unsigned int n = 0; n < 100; n++)
		CHECK(sv_send(&ch, n, sv_transfer(0, false, 0, 512), page, 64 * 4096));
	outb(0x64, 0xfe);
	for (;;)
		__asm__ volatile("hlt");
}

static void test_reset_bus(void)
{
	uint64_t transaction;

	open();
	for (unsigned int op = SV_RESET_LUN; op <= SV_RESET_BUS; op++) {
		for (unsigned int n = 0; n < 50; n++)
			CHECK(sv_send(&ch, n, sv_transfer(0, false, n * 8, 8), memory + n * 4096, 4096));
		CHECK(sv_send(&ch, 1000, (struct sv_packet){ .op = op, .flags = 1 }, NULL, 0));
		for (unsigned int n = 0; n < 50; n++) {
			CHECK_EQ(sv_await(&ch, &transaction).srb_status, SV_OK);
			CHECK(transaction < 50);
		}
		CHECK_EQ(sv_await(&ch, &transaction).status, 0);
		CHECK_EQ(transaction, 1000);
		good(op);
	}
}

/* ---- Badly ---- */

static struct sv_packet raw(struct sv_packet packet, const uint64_t *list, uint32_t size)
{
	uint64_t transaction;

	CHECK(vb_send2(&ch, VB_GPA_DIRECT, 1, 5, list, size, &packet, sizeof(packet)));
	return sv_await(&ch, &transaction);
}

static void test_bad_requests(void)
{
	uint64_t blocks = rt_arg_number("blocks", 0), page = (uint64_t)memory / VB_PAGE;
	struct sv_packet packet = sv_transfer(0, false, 0, 8);
	static const uint64_t nowhere[] = { 0xfee00, 0xfffff, 0x80000, 1ULL << 40, 1ULL << 52, UINT64_MAX };

	open();
	/* CDBs cut short, too long, of length 0. */
	for (unsigned int length = 0; length < 16; length++) {
		packet.cdb_length = (uint8_t)length;
		expect_sense(sv_run(&ch, packet, memory, 4096), 5, 0x24, 0);
	}
	packet.cdb_length = 17;
	CHECK_EQ(sv_run(&ch, packet, memory, 4096).srb_status, SV_INVALID_REQUEST);
	packet.cdb_length = 255;
	CHECK_EQ(sv_run(&ch, packet, memory, 4096).srb_status, SV_INVALID_REQUEST);
	/* Blocks that are not there, and sums that overflow. */
	expect_sense(sv_run(&ch, sv_transfer(0, false, blocks, 1), memory, 4096), 5, 0x21, 0);
	expect_sense(sv_run(&ch, sv_transfer(0, true, blocks - 1, 2), memory, 4096), 5, 0x21, 0);
	expect_sense(sv_run(&ch, sv_transfer(0, true, UINT64_MAX, 2), memory, 4096), 5, 0x21, 0);
	expect_sense(sv_run(&ch, sv_transfer(0, false, 1, UINT32_MAX), memory, 4096), 5, 0x21, 0);
	expect_sense(sv_run(&ch, sv_transfer(0, false, 1ULL << 55, 8), memory, 4096), 5, 0x21, 0);
	/* More than the buffer holds, and a length that is not the list's. */
	expect_sense(sv_run(&ch, sv_transfer(0, false, 0, 9), memory, 4096), 5, 0x24, 0);
	packet = sv_transfer(0, false, 0, 8);
	packet.transfer = 4097;
	CHECK_EQ(sv_run(&ch, packet, memory, 4096).srb_status, SV_INVALID_REQUEST);
	packet.transfer = 0x80000000;
	CHECK_EQ(sv_run(&ch, packet, memory, 4096).srb_status, SV_INVALID_REQUEST);
	packet.transfer = 4096;
	CHECK_EQ(sv_run(&ch, packet, NULL, 0).srb_status, SV_INVALID_REQUEST);
	/* Pages that are no RAM. */
	for (unsigned int i = 0; i < sizeof(nowhere) / sizeof(nowhere[0]); i++) {
		uint64_t list[] = { 1ULL << 32, 8192, page, nowhere[i] };

		CHECK_EQ(raw(packet, list, sizeof(list)).srb_status, SV_INVALID_REQUEST);
	}
	/* Unknown operations and units. */
	for (uint32_t op = 14; op < 100; op += 17)
		CHECK(sv_control(&ch, op, 0).status != 0);
	CHECK_EQ(sv_run(&ch, SV_CDB(77, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), memory, 512).srb_status, SV_INVALID_LUN);
	for (unsigned int code = 0; code < 256; code++)
		if (code != 0x0a && code != 0x2a && code != 0xaa && code != 0x8a && code != 0x41 && code != 0x93)
			sv_run(&ch,
			       SV_CDB(0, (uint8_t)code, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
				      0xff, 0xff, 0xff, 0xff, 0xff),
			       memory, 4096);
	good(3);
}

static void again(void)
{
	vb_unload();
	vb_connect(VB_5_3);
	open();
	good(9);
}

/* Packets against the protocol: the channel fails, and the next one works. */
static void test_bad_packets(void)
{
	static const uint64_t lists[][4] = {
		{ 0x100000000, 4096, 0, 0 },			/* a range without its page */
		{ 0x100000000, 4096ULL << 32 | 512, 0x700, 0 }, /* an offset that is none */
		{ 0x100000000, 0xffffffff, 0x700, 0 },
		{ 0xffffffff00000000, 512, 0x700, 0 },
		{ 0x500000000, 512, 0x700, 512 },
	};
	static const uint32_t sizes[] = { 16, 24, 24, 24, 32 };
	struct sv_packet packet = sv_transfer(0, false, 0, 8);

	packet.transfer = 512;
	for (unsigned int i = 0; i < 9; i++) {
		open();
		if (i < 5)
			CHECK(vb_send2(&ch, VB_GPA_DIRECT, 1, 5, lists[i], sizes[i], &packet, sizeof(packet)));
		else if (i == 5)
			CHECK(vb_send(&ch, VB_INBAND, 1, 5, &packet, 40));
		else if (i == 6)
			CHECK(vb_send(&ch, VB_COMPLETION, 0, 5, &packet, sizeof(packet)));
		else if (i == 7)
			CHECK(vb_send(&ch, VB_INBAND, 1, 5, memory, 9000));
		else
			CHECK(vb_send2(&ch, VB_GPA_DIRECT, 1, 5, NULL, 0, &packet, sizeof(packet)));
		rt_delay(2000);
		again();
		vb_close(&ch);
	}
}

/* Rings that break while requests are under way. */
static void test_bad_ring(void)
{
	for (unsigned int i = 0; i < 20; i++) {
		open();
		for (unsigned int n = 0; n < 50; n++)
			CHECK(sv_send(&ch, n, sv_transfer(0, i % 2, n * 8, 8), memory + n * 4096, 4096));
		ch.in.control[VB_READ] = i % 4 < 2 ? 3 : 0xffffff00;
		rt_delay(i * 100);
		again();
		vb_close(&ch);
	}
}

/* Nothing of what is sent asks for an answer, and it is asked out of order. */
static void test_order(void)
{
	struct sv_packet packet = sv_transfer(0, false, 0, 8);

	packet.transfer = 4096;
	CHECK_EQ(vb_open(&ch, sv_offer(0), RING, RING, 0), 0);
	CHECK_EQ(sv_run(&ch, packet, memory, 4096).srb_status, SV_INVALID_REQUEST);
	CHECK(sv_control(&ch, SV_END, 0).status != 0);
	CHECK(sv_control(&ch, SV_PROPERTIES, 0).status != 0);
	CHECK(sv_control(&ch, SV_VERSION, 0x602).status != 0);
	CHECK(sv_control(&ch, SV_SUBCHANNELS, 1).status != 0);
	vb_close(&ch);
	open();
	for (unsigned int i = 0; i < 2000; i++) {
		uint64_t list[] = { 1ULL << 32, 4096, (uint64_t)memory / VB_PAGE };

		while (!vb_send2(&ch, VB_GPA_DIRECT, 0, i, list, sizeof(list), &packet, sizeof(packet)))
			rt_delay(100);
	}
	good(4);
}

/* Until it is killed. */
static void test_hold(void)
{
	rt_print("holding\n");
	for (;;)
		__asm__ volatile("hlt");
}

static const struct rt_test tests[] = {
	{ "hold", test_hold },
	{ "versions", test_versions },
	{ "units", test_units },
	{ "sizes", test_sizes },
	{ "many", test_many },
	{ "full", test_full },
	{ "subchannels", test_subchannels },
	{ "unmap", test_unmap },
	{ "readonly", test_readonly },
	{ "dvd", test_dvd },
	{ "no-space", test_no_space },
	{ "reopen", test_reopen },
	{ "reboot", test_reboot },
	{ "reset-bus", test_reset_bus },
	{ "bad-requests", test_bad_requests },
	{ "bad-packets", test_bad_packets },
	{ "bad-ring", test_bad_ring },
	{ "order", test_order },
};

void guest_main(void)
{
	vb_start((unsigned int)rt_arg_number("cpus", 1), NULL);
	vb_connect(VB_5_3);
	memory = vb_pages(514);
	rt_run_test(tests, sizeof(tests) / sizeof(tests[0]));
	rt_print("passed\n");
}
