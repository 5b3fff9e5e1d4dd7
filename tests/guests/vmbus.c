/* SPDX-License-Identifier: MIT */
/*
 * VMBus as a well-behaved guest uses it: contact, offers, messages, GPADLs and what ends a connection. Arguments:
 * test=NAME, cpus=N, boots=N for test=reboot. Wants --vmbus and the vmbus-test device.
 */
#include "rt/vmbus.h"
#include "rt/hyperv.h"
#include "rt/io.h"
#include "rt/rt.h"
#include "rt/vmbus_test.h"

#define CMOS_COUNT 0x51

static const uint32_t versions[] = { VB_WS2008, VB_WIN7, VB_WIN8, VB_WIN8_1, VB_WIN10, VB_RS3,
				     VB_5_0,	VB_5_1,	 VB_5_2,  VB_5_3,    VB_6_0 };
#define NR_VERSIONS (sizeof(versions) / sizeof(versions[0]))

static unsigned int cpus;
static volatile uint32_t turn, turns_done;

/* Each version, with a channel that works; those before 3.0 know no UNLOAD, and the next contact ends them. */
static void test_versions(void)
{
	for (unsigned int i = 0; i < NR_VERSIONS; i++) {
		vb_connect(versions[i]);
		vt_good(0);
		if (versions[i] >= VB_WIN8_1)
			vb_unload();
	}
	for (unsigned int i = NR_VERSIONS; i-- > 0;) {
		vb_connect(versions[i]);
		vt_good(0);
	}
}

static void test_refused(void)
{
	static const uint32_t others[] = { 0,	    1,	     0xc,	 0xe,	     0x10000,	 0x10002,
					   0x20003, 0x20005, 0x30001,	 0x40002,    0x50004,	 0x4ffff,
					   0x60001, 0x70000, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff };

	for (unsigned int i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		CHECK(!vb_contact(others[i], 0, 0));
	vb_connect(VB_5_3);
	vt_good(0);
	/* A refused contact has ended the connection before it, or it has not; the next one works anyway. */
	CHECK(!vb_contact(0x7fff0000, 0, 0));
	CHECK(!vb_contact(0x50009, 0, 0));
	vb_connect(VB_WIN10);
	vt_good(0);
}

/* A guest of 6.0 asks for features; what it gets, it uses. */
static void test_features(void)
{
	static const uint32_t wishes[] = { 0,
					   VB_CLIENT_ID,
					   VB_GUEST_SIGNAL,
					   VB_PAUSE_RESUME,
					   VB_MODIFY_CONN,
					   VB_CLIENT_ID | VB_GUEST_SIGNAL | VB_MODIFY_CONN,
					   0xffffffff };
	struct vb_message m;

	for (unsigned int i = 0; i < sizeof(wishes) / sizeof(wishes[0]); i++) {
		CHECK(vb_contact(VB_6_0, 0, wishes[i]));
		vb_request_offers();
		vt_good(0);
		if (vb.features & VB_MODIFY_CONN) {
			uint32_t w[6] = { VB_MODIFY_CONNECTION };

			vb_post(w, sizeof(w));
			CHECK(vb_next(&m, VB_WAIT));
			CHECK_EQ(m.w[0], VB_CONNECTION_MODIFIED);
		}
		if (vb.features & VB_PAUSE_RESUME) {
			uint32_t pause[2] = { VB_PAUSE }, resume[2] = { VB_RESUME };

			vb_post(pause, sizeof(pause));
			vb_expect(&m, VB_PAUSED, 8);
			vb_post(resume, sizeof(resume));
		}
		vt_good(0);
		vb_unload();
	}
	/* Its own event flags and connection ids. */
	vb.connection_offset = 0x1234;
	CHECK(vb_contact(VB_6_0, 0, VB_GUEST_SIGNAL));
	CHECK_EQ(vb.features, VB_GUEST_SIGNAL);
	vb_request_offers();
	for (vb.flag_offset = 100; vb.flag_offset < 2000; vb.flag_offset += 600)
		vt_good(0);
	vb.flag_offset = 0;
	vb_connect(VB_5_3);
	vt_good(0);
}

/* Offers: complete, each once, the same ones and in the same order after each contact. */
static void test_offers(void)
{
	static struct vb_offer first[VB_OFFERS];
	unsigned int n;

	vb_connect(VB_5_3);
	n = vb.offers;
	CHECK(n >= 7 && n < VB_OFFERS); /* six services and a test device */
	memcpy(first, vb.offer, n * sizeof(first[0]));
	for (unsigned int i = 0; i < n; i++) {
		CHECK_EQ(first[i].dedicated & 1, 1);
		CHECK_EQ(first[i].monitor_allocated, 0);
		CHECK(first[i].connection != 0 && first[i].connection < 1 << 24);
		for (unsigned int j = 0; j < i; j++) {
			CHECK(first[i].relid != first[j].relid);
			CHECK(first[i].connection != first[j].connection);
			CHECK(memcmp(first[i].type, first[j].type, 32) || first[i].sub != first[j].sub);
		}
	}
	vb_unload();
	vb_connect(VB_RS3);
	CHECK_EQ(vb.offers, n);
	for (unsigned int i = 0; i < n; i++) {
		CHECK(!memcmp(vb.offer[i].type, first[i].type, 32));
		CHECK_EQ(vb.offer[i].relid, first[i].relid);
	}
}

/* On its own turn each VP talks to the host for itself, messages and events included. */
static void take_turns(unsigned int n)
{
	for (;;) {
		vb_poll();
		if (turn == n) {
			CHECK(vb_contact(VB_5_3, n, 0));
			vb_request_offers();
			vt_good(n);
			CHECK(vb.messages[n] && vb.events[n]);
			vb_unload();
			turn = 0;
			__atomic_fetch_add(&turns_done, 1, __ATOMIC_SEQ_CST);
		}
		halt_until_irq();
	}
}

static void test_vps(void)
{
	for (unsigned int round = 0; round < 2; round++) {
		for (unsigned int n = 1; n < cpus; n++) {
			uint32_t before = vb.messages[0];

			turn = n;
			CHECK(vb_reaches(&turns_done, round * (cpus - 1) + n, 2 * VB_WAIT));
			CHECK_EQ(vb.messages[0], before);
		}
		vb_connect(VB_5_3);
		vt_good(0);
	}
	/* Messages here, events elsewhere. */
	for (unsigned int n = 0; n < cpus; n++)
		vt_good(n);
	CHECK(!vb_contact(VB_5_3 + 100, 0, 0));
	vb_connect(VB_5_3);
	vt_good(cpus - 1);
}

/* A VP that does not exist must not bring anything down. */
static void test_bad_vp(void)
{
	uint32_t w[10] = { VB_CONTACT, 0, VB_5_3, 1000, VB_SINT };
	struct vb_message m;
	struct vb_channel ch;

	vb.connection = 4;
	vb_post(w, sizeof(w));
	vb_expect(&m, VB_VERSION, 16); /* a refusal comes to the first one */
	CHECK_EQ(m.w[2], 0);
	vb_connect(VB_5_3);
	CHECK(vt_open(&ch, 1, 1, 1000) != 0);
	vb_gpadl_teardown(ch.relid, ch.gpadl);
	vt_good(0);
}

/* GPADLs of a page each, made and taken down by all VPs at once; each answer comes exactly once, in its order. */
#define POSTS 40

static uint32_t post_relid;
static volatile uint32_t posting;

static void post_pairs(unsigned int n, void (*between)(void))
{
	for (uint32_t i = 0; i < POSTS; i++) {
		uint32_t handle = 0x10000 * (n + 1) + i, pages = vb_cpu() + 0x1000;
		uint32_t header[9] = { VB_GPADL_HEADER, 0, post_relid, handle, 1 << 16 | 16, VB_PAGE, 0, pages };
		uint32_t teardown[4] = { VB_GPADL_TEARDOWN, 0, post_relid, handle };

		vb_post(header, sizeof(header));
		between();
		vb_post(teardown, sizeof(teardown));
		between();
	}
}

static uint32_t created[VB_VPS], torndown[VB_VPS];

static void collect(void)
{
	struct vb_message m;

	while (vb_next(&m, 0)) {
		uint32_t handle = m.w[0] == VB_GPADL_CREATED ? m.w[3] : m.w[2], n = (handle >> 16) - 1;

		CHECK(n < cpus);
		if (m.w[0] == VB_GPADL_CREATED) {
			CHECK_EQ(m.w[4], 0);
			CHECK_EQ(handle & 0xffff, created[n]);
			created[n]++;
		} else {
			CHECK_EQ(m.w[0], VB_GPADL_TORNDOWN);
			CHECK_EQ(handle & 0xffff, torndown[n]);
			torndown[n]++;
			CHECK(torndown[n] <= created[n]);
		}
	}
}

static void nothing(void)
{
}

static void post_with_others(unsigned int n)
{
	while (!posting)
		__asm__ volatile("pause");
	post_pairs(n, nothing);
}

static void test_posts(void)
{
	uint64_t end;

	vb_connect(VB_5_3);
	post_relid = vt_offer(0)->relid;
	posting = 1;
	post_pairs(0, collect);
	end = rt_ticks() + 8000 * RT_TICKS_PER_MS;
	for (unsigned int n = 0; n < cpus; n++) {
		while (torndown[n] < POSTS && rt_ticks() < end)
			collect();
		CHECK_EQ(created[n], POSTS);
		CHECK_EQ(torndown[n], POSTS);
	}
	vt_good(0);
}

static void post_header(uint32_t relid, uint32_t handle)
{
	uint32_t header[9] = { VB_GPADL_HEADER, 0, relid, handle, 1 << 16 | 16, VB_PAGE, 0, 0x2000 };

	vb_post(header, sizeof(header));
}

/* A slot that stays full: nothing overwrites it, bit 0 of its flags tells that more waits, and EOM brings it. */
static void test_slot(void)
{
	volatile struct hv_message *slot = hv_slot(0, VB_SINT);
	uint64_t end = rt_ticks() + 20000 * RT_TICKS_PER_MS;
	uint32_t relid;

	vb_connect(VB_5_3);
	relid = vt_offer(0)->relid;
	for (uint32_t i = 0; i < 3; i++) {
		uint32_t header[9] = { VB_GPADL_HEADER, 0, relid, 100 + i, 1 << 16 | 16, VB_PAGE, 0, 0x2000 };

		CHECK_EQ(vb_post_once(vb.connection, header, sizeof(header)), 0);
	}
	while (!(slot->type && slot->flags & 1) && rt_ticks() < end)
		;
	for (uint32_t i = 0; i < 3; i++) {
		while (!slot->type && rt_ticks() < end)
			;
		CHECK_EQ(slot->type, 1);
		CHECK_EQ(slot->word[0], VB_GPADL_CREATED);
		CHECK_EQ(slot->word[3], 100 + i);
		if (i < 2) {
			CHECK_EQ(slot->flags & 1, 1);
			rt_delay(2000);
			CHECK_EQ(slot->word[3], 100 + i);
		} else {
			CHECK_EQ(slot->flags & 1, 0);
		}
		__atomic_store_n(&slot->type, 0, __ATOMIC_SEQ_CST);
		if (i < 2) {
			rt_delay(2000);
			CHECK_EQ(slot->type, 0); /* nothing before EOM */
		}
		wrmsr(HV_EOM, 0); /* a last one for nothing, too */
	}
	for (uint32_t i = 0; i < 3; i++)
		vb_gpadl_teardown(relid, 100 + i);
	vt_good(0);
}

/* A guest that posts and never looks: the host must hold it back in the end, and lose nothing it has taken. */
static void test_flood(void)
{
	uint32_t taken = 0, relid;
	struct vb_message m;
	uint16_t status = 0;

	vb_connect(VB_5_3);
	relid = vt_offer(0)->relid;
	while (taken < 2000) {
		uint32_t header[9] = { VB_GPADL_HEADER, 0, relid, 1000 + taken, 1 << 16 | 16, VB_PAGE, 0, 0x2000 };

		status = vb_post_once(vb.connection, header, sizeof(header));
		if (status)
			break;
		taken++;
	}
	CHECK_EQ(status, HV_INSUFFICIENT_BUFFERS);
	for (uint32_t i = 0; i < taken; i++) {
		vb_expect(&m, VB_GPADL_CREATED, 20);
		CHECK_EQ(m.w[3], 1000 + i);
	}
	CHECK(!vb_next(&m, 2000));
	for (uint32_t i = 0; i < taken; i++)
		vb_gpadl_teardown(relid, 1000 + i);
	post_header(relid, 1000);
	vb_expect(&m, VB_GPADL_CREATED, 20);
	vb_gpadl_teardown(relid, 1000);
	rt_print("%u answers were waiting\n", taken);
	vt_good(0);
}

/* Everything by interrupt, one for each message and each event; nothing is found by looking. */
static void test_interrupts(void)
{
	vb.by_interrupt = true;
	for (unsigned int i = 0; i < NR_VERSIONS; i += 3) {
		vb_connect(versions[i]);
		for (unsigned int j = 0; j < 5; j++)
			vt_good(0);
	}
	CHECK(rt_interrupts[VB_VECTOR] > 10);
}

/* No interrupt is ever taken, nor is there an end of one. */
static void test_polled(void)
{
	for (unsigned int i = 0; i < NR_VERSIONS; i += 3) {
		vb_connect(versions[i]);
		vt_good(0);
		vt_good(0);
	}
	CHECK_EQ(rt_interrupts[VB_VECTOR], 0);
}

/* Versions of before 2.4 share one flag and look into a page; 1.1 and later may signal that way, too. */
static void test_interrupt_page(void)
{
	struct vb_channel ch;

	for (unsigned int i = 0; i < 2; i++) {
		vb_connect(versions[i]);
		CHECK_EQ(vt_open(&ch, 1, 1, 0), 0);
		CHECK_EQ(ch.dedicated, i > 0);
		vt_echo_heard(&ch, 64);
		ch.dedicated = false;
		ch.connection = 2;
		for (unsigned int j = 0; j < 20; j++)
			vt_echo(&ch, 8 * j);
		vb_close(&ch);
	}
}

static void test_gpadl_sizes(void)
{
	static const uint32_t sizes[] = { 1, 2, 25, 26, 27, 53, 54, 55, 82, 83, 512, 4096, 8190 };
	const uint8_t *memory = (const uint8_t *)0x4000000;
	uint32_t relid;

	vb_connect(VB_5_3);
	relid = vt_offer(0)->relid;
	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint32_t handle = vb_new_handle();

		CHECK_EQ(vb_gpadl(relid, handle, memory, sizes[i] * VB_PAGE), 0);
		vb_gpadl_teardown(relid, handle);
	}
	/* Not whole pages. */
	CHECK_EQ(vb_gpadl(relid, 5, memory + 0x800, VB_PAGE), 0);
	vb_gpadl_teardown(relid, 5);
	CHECK_EQ(vb_gpadl(relid, 5, memory + 8, 100), 0);
	vb_gpadl_teardown(relid, 5);
	vt_good(0);
}

static void header_of(uint32_t relid, uint32_t handle, uint32_t pages)
{
	uint32_t w[60] = { VB_GPADL_HEADER, 0, relid, handle, 1 << 16 | (8 + 8 * pages), pages * VB_PAGE };

	for (uint32_t i = 0; i < 26; i++)
		w[7 + 2 * i] = 0x3000 + i;
	vb_post(w, 28 + 8 * (pages < 26 ? pages : 26));
}

static void body_of(uint32_t handle, uint32_t number, uint32_t pages)
{
	uint32_t w[60] = { VB_GPADL_BODY, 0, number, handle };

	for (uint32_t i = 0; i < pages && i < 28; i++)
		w[4 + 2 * i] = 0x3000 + i;
	vb_post(w, 16 + 8 * pages);
}

static void expect_created(uint32_t relid, uint32_t handle)
{
	struct vb_message m;

	vb_expect(&m, VB_GPADL_CREATED, 20);
	CHECK_EQ(m.w[2], relid);
	CHECK_EQ(m.w[3], handle);
	CHECK_EQ(m.w[4], 0);
}

/* Two at a time, their bodies in turns; a body with no header; a header without all its bodies; ranges. */
static void test_gpadl_order(void)
{
	struct vb_message m;
	uint32_t relid;

	vb_connect(VB_5_3);
	relid = vt_offer(0)->relid;
	header_of(relid, 1, 70);
	header_of(relid, 2, 70);
	body_of(2, 1, 28);
	body_of(1, 1, 28);
	body_of(1, 2, 16);
	body_of(2, 2, 16);
	expect_created(relid, 1);
	expect_created(relid, 2);
	vb_gpadl_teardown(relid, 2);
	vb_gpadl_teardown(relid, 1);

	body_of(3, 1, 14); /* of nothing */
	header_of(relid, 3, 40);
	CHECK(!vb_next(&m, 5000));
	body_of(3, 1, 14);
	expect_created(relid, 3);
	body_of(3, 2, 14); /* it is complete already */
	CHECK(!vb_next(&m, 5000));
	vb_gpadl_teardown(relid, 3);

	header_of(relid, 4, 40); /* its body never comes */
	vt_good(0);
	vb_unload();
	vb_connect(VB_5_3);
	header_of(relid, 4, 26);
	expect_created(relid, 4);
	vb_gpadl_teardown(relid, 4);
	vt_good(0);
}

static void test_gpadl_ranges(void)
{
	/* 2 pages from 0x100 on, 1 page, and 10 bytes. */
	uint32_t w[19] = { VB_GPADL_HEADER, 0, 0, 7, 3 << 16 | (16 + 8 + 16 + 16), VB_PAGE, 0x100 };
	uint64_t gpa = 0x5000;

	vb_connect(VB_5_3);
	w[2] = vt_offer(0)->relid;
	w[7] = (uint32_t)gpa;
	w[9] = (uint32_t)gpa + 5;
	w[11] = VB_PAGE;
	w[13] = (uint32_t)gpa + 9;
	w[15] = 10;
	w[16] = 20;
	w[17] = (uint32_t)gpa + 1;
	vb_post(w, sizeof(w));
	expect_created(w[2], 7);
	vb_gpadl_teardown(w[2], 7);
	vt_good(0);
}

/* What a kexec does: an end with UNLOAD, or with none, in the middle of work; then all of it again. */
static void test_unload(void)
{
	uint8_t *mark;
	struct vb_channel ch;

	for (unsigned int i = 0; i < 6; i++) {
		uint32_t events;

		vb_connect(versions[NR_VERSIONS - 1 - i]);
		mark = vb_mark();
		CHECK_EQ(vt_open(&ch, 1, 1, 0), 0);
		vt_echo(&ch, 104);
		header_of(ch.relid, 0x9999, 60);
		if (i % 2 == 0 && vb.version >= VB_WIN8_1) {
			vb_unload();
			vb_poll();
			events = vb.events[0];
			/* The channel is the host's no more: no signal of ours brings anything. */
			hv_signal(ch.connection, 0);
			rt_delay(2000);
			vb_poll();
			CHECK_EQ(vb.events[0], events);
		}
		vb_release(mark);
	}
	vb_connect(VB_5_3);
	vt_good(0);
	vb_unload();
	vb_unload(); /* answered without a connection, too */
	vb_connect(VB_5_3);
	vt_good(0);
}

static void echo_monitored(bool by_monitor)
{
	uint8_t *mark = vb_mark();
	struct vb_channel ch;

	CHECK_EQ(vt_offer(0)->monitor_allocated, 0);
	CHECK_EQ(vt_monitored()->monitor_allocated, by_monitor);
	CHECK_EQ(vb_open(&ch, vt_monitored(), 1, 1, 0), 0);
	for (unsigned int i = 0; i < 20; i++)
		vt_echo(&ch, 200 * i & ~7u);
	CHECK(ch.signals);
	vb_close(&ch);
	vb_signal(&ch); /* of a channel that is closed */
	CHECK_EQ(vb_reopen(&ch, 0), 0);
	vt_echo(&ch, 4064);
	vt_good(0); /* the other device, by hypercalls */
	vb_close(&ch);
	vb_release(mark);
}

/* Signals by a bit in the page that the contact names, without a hypercall; the usual ones if it names none. */
static void test_monitor(void)
{
	uint8_t *pages = vb_pages(2);
	volatile uint32_t *group = (volatile uint32_t *)(pages + VB_PAGE + 8);
	struct vb_channel ch;

	for (unsigned int i = 0; i < NR_VERSIONS; i++) {
		vb.monitor_pages = pages;
		vb_connect(versions[i]);
		echo_monitored(true);
		vb.monitor_pages = NULL;
		vb_connect(versions[i]);
		/* A closed channel's connection is not there any more, and the host says so. */
		vb.lenient = true;
		echo_monitored(false);
		vb.lenient = false;
	}
	/* All bits: the host takes those that nobody has, too. */
	vb.monitor_pages = pages;
	vb_connect(VB_5_3);
	CHECK_EQ(vb_open(&ch, vt_monitored(), 1, 1, 0), 0);
	for (unsigned int i = 0; i < 8; i += 2)
		__atomic_store_n(&group[i], 0xffffffff, __ATOMIC_SEQ_CST);
	for (uint64_t end = vb_deadline(VB_WAIT); group[0] | group[2] | group[4] | group[6];)
		CHECK(vb_in_time(end));
	vt_echo(&ch, 64);
	vb_unload();
	/* Where no RAM is. */
	vb.monitor_pages = (uint8_t *)0xfffffff00000;
	vb_connect(VB_5_3);
	CHECK_EQ(vt_monitored()->monitor_allocated, 0);
	vt_good(0);
}

static uint8_t cmos(uint8_t index)
{
	outb(0x70, index);
	return inb(0x71);
}

/* A reset at each stage of it. The machine is a new one then, and the last boot finds all as it should be. */
static void test_reboot(void)
{
	unsigned int boot = cmos(CMOS_COUNT);
	struct vb_channel ch;

	outb(0x70, CMOS_COUNT);
	outb(0x71, (uint8_t)(boot + 1));
	rt_print("boot %u\n", boot);
	vb_connect(VB_5_3);
	vt_good(0);
	if (boot + 1 < rt_arg_number("boots", 6)) {
		switch (boot % 5) {
		case 0:
			header_of(vt_offer(0)->relid, 1, 100);
			break;
		case 1:
			CHECK_EQ(vt_open(&ch, 1, 1, 0), 0);
			break;
		case 2: /* the slot full and more waiting, from offers */
			vb_post((uint32_t[]){ VB_UNLOAD, 0 }, 8);
			vb_post((uint32_t[]){ VB_CONTACT, 0, VB_5_3, 0, VB_SINT, 0, 0, 0, 0, 0 }, 40);
			vb_post((uint32_t[]){ VB_REQUEST_OFFERS, 0 }, 8);
			break;
		case 3:
			CHECK_EQ(vt_open(&ch, 2, 1, 0), 0);
			vt_fill(&ch);
			break;
		default:
			vb_unload();
		}
		outb(0xcf9, 0x02);
		outb(0xcf9, 0x06);
		rt_delay(1000000);
		CHECK(!"a reset");
	}
	test_versions();
}

static const struct {
	const char *name;
	void (*run)(void);
	void (*others)(unsigned int n); /* what the other VPs do */
} tests[] = {
	{ "versions", test_versions, NULL },
	{ "refused", test_refused, NULL },
	{ "features", test_features, NULL },
	{ "offers", test_offers, NULL },
	{ "vps", test_vps, take_turns },
	{ "bad-vp", test_bad_vp, NULL },
	{ "posts", test_posts, post_with_others },
	{ "slot", test_slot, NULL },
	{ "flood", test_flood, NULL },
	{ "interrupts", test_interrupts, NULL },
	{ "polled", test_polled, NULL },
	{ "interrupt-page", test_interrupt_page, NULL },
	{ "gpadl-sizes", test_gpadl_sizes, NULL },
	{ "gpadl-order", test_gpadl_order, NULL },
	{ "gpadl-ranges", test_gpadl_ranges, NULL },
	{ "monitor", test_monitor, NULL },
	{ "unload", test_unload, NULL },
	{ "reboot", test_reboot, NULL },
};

void guest_main(void)
{
	cpus = (unsigned int)rt_arg_number("cpus", 1);
	for (unsigned int i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		if (rt_arg_is("test", tests[i].name)) {
			vb.polling = rt_arg_is("test", "polled");
			vb.sint_flags = rt_arg("auto-eoi") ? HV_SINT_AUTO_EOI : 0;
			vb_start(cpus, tests[i].others);
			tests[i].run();
			rt_print("passed\n");
			return;
		}
	}
	CHECK(!"a test of this name");
}
