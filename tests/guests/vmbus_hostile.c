/* SPDX-License-Identifier: MIT */
/*
 * VMBus as nobody should use it. After each attack a well-behaved client, which opens a channel and has packets
 * echoed, must still work. Arguments: test=NAME, cpus=N, seed=N, rounds=N. Wants --vmbus and the vmbus-test device.
 */
#include "rt/hyperv.h"
#include "rt/io.h"
#include "rt/rt.h"
#include "rt/vmbus.h"
#include "rt/vmbus_test.h"

#define SCRATCH 0xe00 /* first PFN of 256 that anybody may write to: 14 MiB on */
#define NOWHERE 0xfffffffffff00ULL
#define QUIET	1500   /* microseconds without a message: the host is done */
#define DOOR	0x7f00 /* a GPADL handle */

static unsigned int cpus;
static uint64_t state;
static uint32_t relid;

static uint32_t pick(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 11) % below;
}

/* Stray answers gone, and the connection as it is must do. */
static void still_good(void)
{
	vb_drain(QUIET);
	vt_good(0);
}

/* The same with a new contact, which ends whatever was. */
static void anew(void)
{
	vt_anew();
	relid = vt_offer(0)->relid;
}

static void post(const void *message, uint32_t size)
{
	vb_post(message, size);
}

/* Kinds that exist and do not, at all lengths around those that they should have. */
static void test_short(void)
{
	static const uint32_t sizes[] = { 0,  1,  4,  7,  8,  9,  11, 12,  15,	16,  17,  19,  20, 27,
					  28, 36, 39, 40, 41, 55, 56, 147, 148, 149, 156, 239, 240 };
	uint32_t w[60] = { 0 };

	for (unsigned int words = 0; words < 2; words++) {
		for (uint32_t kind = 0; kind < 40; kind++) {
			for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
				w[0] = kind;
				w[2] = words ? relid : 0;
				w[3] = words ? DOOR : 0;
				post(w, sizes[i]);
				vb_poll();
			}
			if (kind % 8 == 7)
				anew();
		}
		w[0] = 0x80000000 + words;
		post(w, 240);
	}
	anew();
}

/* What HvPostMessage itself refuses, and connection ids that are not there. */
static void test_post(void)
{
	static const uint32_t connections[] = { 0, 5, 100, 0x800074, 0xffffff, 0x1000004, 0xffffffff };
	static const uint32_t types[] = { 0, 2, 0x80000010, 0xffffffff };
	uint32_t w[60] = { VB_REQUEST_OFFERS };
	uint32_t *input = (uint32_t *)hv_input_page(0);

	for (unsigned int i = 0; i < sizeof(connections) / sizeof(connections[0]); i++)
		CHECK(vb_post_once(connections[i], w, 8) != 0);
	for (uint32_t size = 241; size < 0x10000; size += size / 2) {
		CHECK(vb_post_once(4, w, size) != 0);
	}
	CHECK(vb_post_once(4, w, 0xffffffff) != 0);
	for (unsigned int i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		vb_post_once(4, w, 8);
		input[2] = types[i];
		hv_call(HV_CALL_POST_MESSAGE, (uint64_t)input, 0); /* as it likes */
	}
	CHECK((uint16_t)hv_call(HV_CALL_POST_MESSAGE, (uint64_t)input + 4, 0) != 0);
	CHECK((uint16_t)hv_call(HV_CALL_POST_MESSAGE, NOWHERE * VB_PAGE, 0) != 0);
	for (uint32_t id = 0; id < 0x20000; id += 0x1ff)
		hv_signal(id, 0);
	for (uint16_t flag = 1; flag; flag = (uint16_t)(flag << 1))
		CHECK(hv_signal(vt_offer(0)->connection, flag) != 0);
	still_good();
	anew();
}

/* All that needs a contact, without one. */
static void test_no_contact(void)
{
	uint32_t w[60] = { 0, 0, relid, relid, 1 << 16 | 16, VB_PAGE, 0, SCRATCH };

	for (unsigned int round = 0; round < 2; round++) {
		vb_unload();
		for (uint32_t kind = 1; kind < 32; kind++) {
			if (kind == VB_CONTACT)
				continue;
			w[0] = kind;
			post(w, 240);
			vb_poll();
		}
		anew();
	}
}

static void test_repeated(void)
{
	uint32_t offers[2] = { VB_REQUEST_OFFERS }, contact[10] = { VB_CONTACT, 0, VB_5_3, 0, VB_SINT };
	uint32_t released[3] = { VB_RELID_RELEASED, 0, relid };

	vb.lenient = true;
	for (unsigned int i = 0; i < 20; i++)
		post(offers, 8);
	still_good();
	for (unsigned int i = 0; i < 20; i++)
		post(contact, 40);
	vb_drain(QUIET);
	anew();
	for (unsigned int i = 0; i < 20; i++) {
		post(contact, 40);
		if (i % 3)
			post(offers, 8);
	}
	vb_drain(QUIET);
	anew();
	post(released, 12); /* it was not rescinded */
	vb_drain(QUIET);
	vb_connect(VB_5_3);
	vt_good(0);
	for (released[2] = 0; released[2] < 70; released[2]++)
		post(released, 12);
	released[2] = 0xffffffff;
	post(released, 12);
	anew();
}

/* OPEN, CLOSE, MODIFY and TEARDOWN at the wrong time, with wrong numbers. */
static void test_channel(void)
{
	static const uint32_t numbers[] = { 0, 2047, 2048, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff };
	uint32_t modify[4] = { VB_MODIFY };
	struct vb_channel ch, other;
	struct vb_message m;

	vb_send_close(relid); /* not open */
	for (unsigned int i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		uint32_t n = numbers[i];

		vb_send_close(n);
		modify[2] = n;
		modify[3] = 0;
		post(modify, 16);
		modify[2] = relid; /* closed */
		modify[3] = n;
		post(modify, 16);
		post((uint32_t[]){ VB_GPADL_TEARDOWN, 0, n, n }, 16);
		post((uint32_t[]){ VB_GPADL_TEARDOWN, 0, relid, n }, 16);
		post((uint32_t[60]){ VB_OPEN, 0, n, 1, n, 0, 1 }, 148);
		post((uint32_t[60]){ VB_OPEN, 0, relid, 1, n, 0, 1 }, 148);
		vb_poll();
	}
	still_good();

	CHECK_EQ(vt_open(&ch, 1, 1, 0), 0);
	other = ch;
	CHECK(vb_send_open(&other, 5, 0, 2) != 0); /* a second time */
	vt_echo(&ch, 8);
	modify[2] = relid;
	modify[3] = 77; /* no such VP */
	post(modify, 16);
	vb_drain(QUIET);
	vt_echo(&ch, 16);
	/* Its memory is in use: the answer may come now, with an error of its own kind, or when it is closed. */
	post((uint32_t[]){ VB_GPADL_TEARDOWN, 0, relid, ch.gpadl }, 16);
	vb_drain(QUIET);
	for (unsigned int i = 0; i < 10; i++)
		vb_signal(&ch);
	vb_send_close(relid);
	vb_send_close(relid);
	vb_drain(QUIET);
	post((uint32_t[]){ VB_GPADL_TEARDOWN, 0, relid, ch.gpadl }, 16);
	still_good();

	/* The GPADL of one channel is not another's. */
	CHECK_EQ(vb_gpadl(relid, DOOR, vb_pages(4), 4 * VB_PAGE), 0);
	for (unsigned int i = 0; i < vb.offers; i++) {
		if (vb.offer[i].relid != relid) {
			other.relid = vb.offer[i].relid;
			other.gpadl = DOOR;
			CHECK(vb_send_open(&other, 1, 0, 2) != 0);
			break;
		}
	}
	/* Where the second ring begins: at the first, in its first page only, and past the end. */
	for (uint32_t at = 0; at < 7; at++) {
		uint32_t status;

		ch.gpadl = DOOR;
		status = vb_send_open(&ch, 1, 0, at == 6 ? 0xffffffff : at);
		CHECK_EQ(!status, at == 2); /* else one of them has no data */
		if (!status) {
			vb_send_close(relid);
			vb_drain(QUIET);
		}
	}
	vb_gpadl_teardown(relid, DOOR);
	CHECK(!vb_next(&m, QUIET));
	still_good();
	anew();
}

static bool make_gpadl(const uint32_t *w, uint32_t size)
{
	struct vb_message m;

	post(w, size);
	while (vb_next(&m, QUIET))
		if (m.w[0] == VB_GPADL_CREATED && !m.w[4])
			return true;
	return false;
}

static void drop_gpadl(uint32_t handle)
{
	post((uint32_t[]){ VB_GPADL_TEARDOWN, 0, relid, handle }, 16);
	vb_drain(QUIET);
}

/* Opens over whatever GPADL the host took, and lets it find what is there. */
static void try_rings(uint32_t handle, uint32_t downstream)
{
	struct vb_channel ch = {
		.relid = relid, .gpadl = handle, .connection = vt_offer(0)->connection, .dedicated = 1
	};

	if (!vb_send_open(&ch, 1, 0, downstream)) {
		for (unsigned int i = 0; i < 3; i++)
			vb_signal(&ch);
		vb_send_close(relid);
	}
	vb_drain(QUIET);
}

static void test_gpadl(void)
{
	static const struct {
		uint16_t length, count;
		uint32_t bytes, offset, words;
	} bad[] = {
		{ 0, 1, VB_PAGE, 0, 2 },
		{ 7, 1, VB_PAGE, 0, 2 },
		{ 8, 1, VB_PAGE, 0, 0 },
		{ 8, 1, 0, 0, 0 },
		{ 16, 0, VB_PAGE, 0, 2 },
		{ 16, 2, VB_PAGE, 0, 2 },
		{ 16, 0xffff, VB_PAGE, 0, 2 },
		{ 16, 1, 0, 0, 2 },
		{ 16, 1, 2 * VB_PAGE, 0, 2 },
		{ 16, 1, 0xffffffff, 0, 2 },
		{ 16, 1, 0xfffff001, 0xfff, 2 },
		{ 16, 1, VB_PAGE, 0xffffffff, 2 },
		{ 16, 1, VB_PAGE, 1, 2 },
		{ 16, 1, 0x80000000, 0x80000000, 2 },
		{ 15, 1, VB_PAGE, 0, 2 },
		{ 0xffff, 1, VB_PAGE, 0, 2 },
		{ 0xffff, 0xffff, VB_PAGE, 0, 52 },
		{ 216, 1, 25 * VB_PAGE, 0, 52 },
		{ 216, 1, 27 * VB_PAGE, 0, 52 },
		{ 0xfff8, 1, 0xfffffff, 0, 52 },
		{ 8, 1, 0xffffffff, 0xffffffff, 0 },
		{ 16, 1, VB_PAGE, 0, 0 },
		{ 24, 1, 2 * VB_PAGE, 0, 3 },
		{ 0xfff8, 0x1fff, 0, 0, 52 },
	};
	uint32_t w[60];

	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		memset(w, 0, sizeof(w));
		w[0] = VB_GPADL_HEADER;
		w[2] = relid;
		w[3] = DOOR + i;
		w[4] = bad[i].length | (uint32_t)bad[i].count << 16;
		w[5] = bad[i].bytes;
		w[6] = bad[i].offset;
		for (unsigned int j = 7; j < 60; j += 2)
			w[j] = SCRATCH + j;
		if (make_gpadl(w, 28 + 4 * bad[i].words))
			try_rings(DOOR + i, 1);
		/* Bodies, as if they had been missing. */
		for (unsigned int j = 0; j < 3; j++) {
			uint32_t body[60] = { VB_GPADL_BODY, 0, j, DOOR + i, SCRATCH, 0 };

			post(body, j == 1 ? 16 : 240 - j);
		}
		drop_gpadl(DOOR + i);
		if (i % 6 == 5)
			still_good();
	}
	/* The same handle twice, on one channel and on two. */
	CHECK_EQ(vb_gpadl(relid, DOOR, vb_pages(1), VB_PAGE), 0);
	CHECK(vb_gpadl(relid, DOOR, vb_pages(1), VB_PAGE) != 0);
	w[0] = VB_GPADL_TEARDOWN; /* of the wrong channel */
	w[2] = relid + 1;
	w[3] = DOOR;
	post(w, 16);
	vb_drain(QUIET);
	drop_gpadl(DOOR);
	drop_gpadl(DOOR);
	anew();
}

/* Rings of pages that are no RAM, and of the same page again and again. */
static void test_gpadl_pages(void)
{
	static const uint64_t pages[] = { NOWHERE,
					  0xfee00,
					  0xe0000,
					  0xfffff,
					  0x7ffff,
					  1ULL << 51,
					  1ULL << 52,
					  0x8000000000000000,
					  0xffffffffffffffff,
					  SCRATCH };

	for (unsigned int i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		for (unsigned int where = 0; where < 5; where++) {
			uint32_t w[60] = { VB_GPADL_HEADER, 0, relid, DOOR, 1 << 16 | 40, 4 * VB_PAGE };

			for (unsigned int j = 0; j < 4; j++) {
				uint64_t pfn = j == where || where == 4 ? pages[i] : SCRATCH + 16 + j;

				w[7 + 2 * j] = (uint32_t)pfn;
				w[8 + 2 * j] = (uint32_t)(pfn >> 32);
			}
			memset((void *)((uint64_t)SCRATCH * VB_PAGE), 0, 64);
			if (make_gpadl(w, 60))
				try_rings(DOOR, 2);
			drop_gpadl(DOOR);
		}
	}
	anew();
}

/* The message in the input page changes under HvPostMessage, and the slot under the host's hand. */
static void test_flip_message(void)
{
	static const uint32_t words[] = { 3, 4, 6, 8, 9, 10 };
	uint32_t w[9] = { VB_GPADL_HEADER, 0, relid, DOOR, 1 << 16 | 16, VB_PAGE, 0, SCRATCH };
	uint32_t *input = (uint32_t *)hv_input_page(0);

	for (unsigned int i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		vt_flip(&input[words[i]], input[words[i]], 0xffffffff);
		for (unsigned int n = 0; n < 60; n++) {
			vb_post_once(4, w, sizeof(w));
			w[3]++;
			vb_poll();
		}
		vt_flipped();
		vb_drain(QUIET);
		anew();
	}
	vt_flip((volatile uint32_t *)hv_slot(0, VB_SINT), 0, 1);
	for (unsigned int n = 0; n < 60; n++) {
		vb_post_once(4, w, sizeof(w));
		w[3]++;
	}
	vt_flipped();
	hv_slot(0, VB_SINT)->type = 0;
	wrmsr(HV_EOM, 0);
	for (unsigned int n = 0; n < 100; n++) { /* what was overwritten is lost, and that is our own fault */
		rt_delay(100);
		hv_slot(0, VB_SINT)->type = 0;
		wrmsr(HV_EOM, 0);
	}
	anew();
}

/* Messages at random: of kinds, numbers and lengths that are mostly plausible. What the host may write to is scratch.
 */
static uint32_t number(void)
{
	switch (pick(8)) {
	case 0:
		return 0;
	case 1:
		return 0xffffffff;
	case 2:
	case 3:
		return relid;
	case 4:
		return pick(20);
	case 5:
		return DOOR + pick(8);
	default:
		return pick(0xffffffff);
	}
}

static uint64_t page(void)
{
	return pick(16) ? SCRATCH + pick(64) : NOWHERE + pick(256);
}

static uint32_t size_for(uint32_t kind)
{
	static const uint8_t sizes[] = { 0,  196, 12, 8,  8,  148, 20, 12, 60, 72, 20, 16, 12, 12, 40,
					 16, 8,	  8,  28, 20, 12,  40, 16, 44, 16, 24, 9,  8,  8,  8 };

	return kind < sizeof(sizes) && pick(8) ? sizes[kind] : pick(241);
}

static void random_message(uint32_t *w)
{
	uint32_t kind = pick(3) ? pick(30) : (uint32_t[]){ 5, 7, 8, 9, 11, 22, 14, 3 }[pick(8)];

	w[0] = kind;
	w[1] = pick(50) ? 0 : 0xffffffff;
	for (unsigned int i = 2; i < 7; i++)
		w[i] = number();
	if (kind == VB_GPADL_HEADER && pick(8)) {
		uint32_t pages = 1 + pick(5);

		w[2] = relid;
		w[3] = DOOR + pick(8);
		w[4] = 1 << 16 | (8 + 8 * pages);
		w[5] = pages * VB_PAGE;
		w[6] = 0;
	} else if (kind == VB_OPEN && pick(4)) {
		w[2] = relid;
		w[4] = DOOR + pick(8);
		w[5] = 0;
		w[6] = pick(4);
	} else if (kind == VB_CONTACT) {
		w[2] = (uint32_t[]){ VB_WIN7, VB_WIN10, VB_5_0, VB_5_3, VB_6_0, 77, VB_WS2008, VB_5_3 }[pick(8)];
		w[3] = pick(4) ? 0 : pick(10);
		w[4] = w[2] >= VB_5_0 && pick(2) ? VB_SINT : (SCRATCH + 8) * VB_PAGE; /* a page, or a SINT that is 0 */
		w[5] = pick(2) ? 0 : pick(64);
	}
	for (unsigned int i = 7; i + 1 < 24; i += 2)
		*(uint64_t *)(void *)&w[i + 1] = 0, w[i] = (uint32_t)page(), w[i + 1] = (uint32_t)(page() >> 32);
	if (kind == VB_CONTACT)
		for (unsigned int i = 6; i < 10; i++)
			w[i] = i % 2 ? 0 : SCRATCH * VB_PAGE;
}

static void random_rounds(uint64_t rounds)
{
	uint32_t w[60] = { 0 };

	for (uint64_t i = 0; i < rounds; i++) {
		random_message(w);
		vb_post_once(pick(16) ? 4 : 1, w, size_for(w[0]));
		vb_poll();
		if (pick(64) == 0) {
			struct vb_message m;

			hv_signal(pick(2) ? vt_offer(0)->connection : pick(0x20000), 0);
			while (vb_next(&m, 0))
				;
		}
	}
}

static volatile uint32_t others_done;
static volatile bool begun;

static void random_others(unsigned int n)
{
	uint32_t w[60] = { 0 };

	(void)n;
	while (!begun)
		__asm__ volatile("pause");
	for (unsigned int i = 0; i < 500; i++) {
		w[0] = i % 30;
		w[2] = relid;
		w[3] = DOOR + i % 8;
		if (w[0] != VB_CONTACT)
			vb_post_once(4, w, i * 7 % 241);
	}
	__atomic_fetch_add(&others_done, 1, __ATOMIC_SEQ_CST);
	/* And then takes messages: a contact may have named this VP. */
}

/* Answers go to a VP that never looks; a new contact, of another VP, must not have to wait for it. */
static void test_deaf(void)
{
	uint32_t header[9] = { VB_GPADL_HEADER, 0, relid, 0, 1 << 16 | 16, VB_PAGE, 0, SCRATCH };
	uint32_t contact[10] = { VB_CONTACT, 0, VB_5_3, 1, VB_SINT };

	post(contact, 40);
	post((uint32_t[]){ VB_REQUEST_OFFERS, 0 }, 8);
	for (unsigned int i = 0; i < 40; i++) {
		header[3] = i;
		vb_post_once(4, header, sizeof(header));
	}
	anew();
}

static void deaf(unsigned int n)
{
	(void)n;
	for (;;)
		__asm__ volatile("cli; hlt");
}

static void test_random(void)
{
	uint64_t rounds = rt_arg_number("rounds", 1000);
	struct vb_offer *offer = vb_pages(1);

	state = rt_arg_number("seed", 1) * 0x9e3779b97f4a7c15 | 1;
	vb.lenient = true;
	*offer = *vt_offer(0);
	begun = true; /* the others begin */
	for (uint64_t done = 0; done < rounds; done += 500) {
		random_rounds(rounds - done < 500 ? rounds - done : 500);
		vb_drain(QUIET);
		anew();
	}
	CHECK(vb_reaches(&others_done, cpus - 1, VB_WAIT));
	anew();
}

static const struct {
	const char *name;
	void (*run)(void);
	void (*others)(unsigned int n);
} tests[] = {
	{ "short", test_short, NULL },
	{ "post", test_post, NULL },
	{ "no-contact", test_no_contact, NULL },
	{ "repeated", test_repeated, NULL },
	{ "channel", test_channel, NULL },
	{ "gpadl", test_gpadl, NULL },
	{ "gpadl-pages", test_gpadl_pages, NULL },
	{ "flip-message", test_flip_message, vt_flipper },
	{ "deaf", test_deaf, deaf },
	{ "random", test_random, random_others },
};

void guest_main(void)
{
	cpus = (unsigned int)rt_arg_number("cpus", 1);
	for (unsigned int i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		if (rt_arg_is("test", tests[i].name)) {
			vb_start(cpus, tests[i].others);
			vb.lenient = true;
			anew();
			tests[i].run();
			rt_print("survived\n");
			return;
		}
	}
	CHECK(!"a test of this name");
}
