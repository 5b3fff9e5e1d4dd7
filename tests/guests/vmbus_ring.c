/* SPDX-License-Identifier: MIT */
/*
 * VMBus channels as a well-behaved guest uses them: rings, interrupts, subchannels, devices that go and come.
 * Arguments: test=NAME, cpus=N, rounds=N. Wants --vmbus and the vmbus-test device.
 */
#include "rt/hyperv.h"
#include "rt/io.h"
#include "rt/rt.h"
#include "rt/vmbus.h"
#include "rt/vmbus_test.h"

static unsigned int cpus;
static struct vb_channel ch;

static void open(unsigned int out, unsigned int in)
{
	CHECK_EQ(vt_open(&ch, out, in, 0), 0);
}

/* What the host has done for us before it answers this shows now: the interrupts of our channel. */
static uint32_t settled(void)
{
	static const void *page;

	page = page ? page : vb_pages(1);
	CHECK_EQ(vb_gpadl(ch.relid, 79, page, VB_PAGE), 0);
	vb_gpadl_teardown(ch.relid, 79);
	vb_poll();
	return vb.flag_events[ch.flag];
}

static void test_reopen(void)
{
	uint64_t rounds = rt_arg_number("rounds", 1000);

	open(1, 1);
	for (uint64_t i = 0; i < rounds; i++) {
		if (i % 100 == 0)
			vt_echo(&ch, 64);
		vb_close(&ch);
		CHECK_EQ(vb_reopen(&ch, 0), 0);
	}
	/* Packets that the host has not read, or we have not: gone with the close. */
	for (unsigned int i = 0; i < 20; i++) {
		vt_send(&ch, VT_SEND, 100, 100);
		vb_close(&ch);
		CHECK_EQ(vb_reopen(&ch, 0), 0);
		vt_echo(&ch, 64);
	}
	CHECK_EQ(vt_order(&ch, VT_COUNT, 0, 0, 0).status, 0);
}

/* One page of data each way. Packets of 56 bytes begin and wrap at every place; those of 4088 wrap somewhere always. */
static void test_wrap(void)
{
	open(1, 1);
	for (unsigned int i = 0; i < 520; i++)
		vt_echo(&ch, 32);
	for (unsigned int i = 0; i < 40; i++)
		vt_echo(&ch, 4064);
	vb_close(&ch);
	open(3, 1); /* of different sizes, where pages meet within a packet */
	for (unsigned int i = 0; i < 40; i++)
		vt_echo(&ch, 2008);
	vb_close(&ch);
	open(8, 8);
	for (unsigned int i = 0; i < 10; i++)
		vt_echo(&ch, 16000);
	vb_close(&ch);
}

/* Fills our ring without telling the host; how many packets went in. */
static unsigned int fill_quietly(uint32_t size)
{
	uint64_t bytes[40] = { 0 };
	struct vb_packet packet = { VB_INBAND, 2, (uint16_t)(2 + size / 8), 1, 7 };
	unsigned int n = 0;

	memcpy(bytes, &packet, 16);
	bytes[2] = VT_ECHO;
	while (vb_room(&ch.out) > size + 24) {
		bytes[2 + size / 8] = (uint64_t)ch.out.control[VB_WRITE] << 32;
		vb_put_raw(&ch.out, bytes, size + 24);
		n++;
	}
	return n;
}

static void take_echoes(unsigned int count)
{
	static uint64_t buffer[64];
	struct vb_packet packet;

	while (count--) {
		CHECK(vb_await(&ch, &packet, buffer, sizeof(buffer)) > 0);
		CHECK_EQ(packet.transaction, 7);
		CHECK_EQ((uint32_t)buffer[0], VT_ECHO);
	}
}

static void test_full_out(void)
{
	struct vb_packet packet;
	uint64_t buffer[4];

	open(1, 1);
	for (uint32_t size = 24; size <= 256; size += 8) {
		unsigned int n = fill_quietly(size);

		CHECK(n >= 4096 / (size + 24) - 1);
		CHECK(!vb_send(&ch, VB_INBAND, 1, 7, buffer, 256));
		vb_signal(&ch);
		take_echoes(n);
		CHECK(vb_recv(&ch, &packet, buffer, sizeof(buffer)) < 0);
	}
}

/*
 * We wait for room: the host reads, and signals once there is more than we asked for. In our ring of packets from the
 * host the mask is set, so that no other event comes.
 */
static void test_pending(void)
{
	open(1, 4);
	CHECK_EQ(ch.in.control[VB_FEATURES] & 1, 1);
	for (unsigned int round = 0; round < 20; round++) {
		uint32_t before = settled();
		unsigned int n = fill_quietly(104);

		ch.in.control[VB_MASK] = 1;
		ch.out.control[VB_PENDING] = round % 2 ? 2000 : 4080;
		vb_signal(&ch);
		CHECK(vb_reaches(&vb.flag_events[ch.flag], before + 1, VB_WAIT));
		CHECK(vb_room(&ch.out) > ch.out.control[VB_PENDING]);
		ch.out.control[VB_PENDING] = 0;
		take_echoes(n);
		ch.in.control[VB_MASK] = 0;
	}
	/* Nobody waits: no event. */
	for (unsigned int round = 0; round < 3; round++) {
		uint32_t before = settled();
		unsigned int n = fill_quietly(104);

		ch.in.control[VB_MASK] = 1;
		vb_signal(&ch);
		take_echoes(n);
		CHECK_EQ(settled(), before);
		ch.in.control[VB_MASK] = 0;
	}
}

/* The host's ring is full: it waits for our signal, and all of it comes in its order. */
static void test_full_in(void)
{
	static const uint32_t sizes[] = { 24, 32, 100, 1000, 2000, 4056 };
	uint64_t end;

	open(1, 1);
	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint32_t count = 20000 / sizes[i], signals;

		CHECK(vt_send(&ch, VT_SEND, count, sizes[i]));
		signals = ch.signals;
		end = rt_ticks() + 20000 * RT_TICKS_PER_MS;
		while (!ch.in.control[VB_PENDING] && rt_ticks() < end)
			;
		CHECK(ch.in.control[VB_PENDING]);
		CHECK(vb_room(&ch.in) <= sizes[i] + 24);
		rt_delay(500);
		{
			struct vb_packet packet;
			struct vt_packet answer;

			CHECK_EQ(vb_await(&ch, &packet, &answer, sizeof(answer)), sizeof(answer));
			CHECK_EQ(packet.type, VB_COMPLETION);
			CHECK_EQ(answer.status, 0);
		}
		for (uint32_t n = 0; n < count; n++)
			vt_sent(&ch, n, sizes[i]);
		CHECK(ch.signals > signals);
		vt_echo(&ch, 64);
	}
}

/* A mask is a wish not to be interrupted, and the data comes all the same. */
static void test_mask(void)
{
	open(1, 1);
	for (unsigned int i = 0; i < 10; i++) {
		uint32_t before;

		vt_echo(&ch, 64);
		before = settled();
		ch.in.control[VB_MASK] = 1;
		for (unsigned int j = 0; j < 5; j++)
			vt_echo(&ch, 64);
		CHECK_EQ(settled(), before);
		ch.in.control[VB_MASK] = 0;
		vt_echo_heard(&ch, 64);
	}
}

/* Many packets, one signal: the host reads them all, and interrupts us for the first. */
static void test_batch(void)
{
	open(1, 1);
	for (unsigned int i = 0; i < 20; i++) {
		uint32_t before, signals;
		unsigned int n;

		before = settled();
		n = fill_quietly(24);
		signals = ch.signals;
		vb_signal(&ch);
		take_echoes(n);
		CHECK(vb.flag_events[ch.flag] - before <= n);
		CHECK(ch.signals - signals <= n);
	}
}

static void sum_ranges(unsigned int ranges, uint32_t length, uint32_t offset, uint8_t *memory)
{
	uint64_t extra[64] = { (uint64_t)ranges << 32 }, sum = 0, total = 0;
	struct vt_packet answer;
	struct vb_packet packet;
	uint32_t words = 1;

	for (unsigned int r = 0; r < ranges; r++) {
		uint8_t *from = memory + 2 * r * VB_PAGE + offset;
		uint32_t pages = (offset + length + VB_PAGE - 1) / VB_PAGE;

		extra[words++] = (uint64_t)offset << 32 | length;
		for (uint32_t i = 0; i < pages; i++)
			extra[words++] = (uint64_t)memory / VB_PAGE + 2 * r + i;
		for (uint32_t i = 0; i < length; i += 97)
			from[i] = (uint8_t)(i * 7 + r);
		sum = vt_sum(sum, from, length);
		total += length;
	}
	CHECK(vb_send2(&ch, VB_GPA_DIRECT, 1, 9, extra, words * 8, "payload", 8));
	CHECK_EQ(vb_await(&ch, &packet, &answer, sizeof(answer)), sizeof(answer));
	CHECK_EQ(packet.transaction, 9);
	CHECK_EQ(answer.op, VT_RANGES);
	CHECK_EQ(answer.status, 0);
	CHECK_EQ(answer.a, total);
	CHECK_EQ(answer.value, sum);
}

static void test_gpa_direct(void)
{
	uint8_t *memory = vb_pages(40);

	open(1, 1);
	sum_ranges(1, 8, 0, memory);
	sum_ranges(1, 1, VB_PAGE - 1, memory);
	sum_ranges(1, 100, VB_PAGE - 50, memory);
	sum_ranges(1, VB_PAGE, 0, memory);
	sum_ranges(1, 3 * VB_PAGE, 0, memory);
	sum_ranges(1, 2 * VB_PAGE + 2, VB_PAGE - 1, memory);
	sum_ranges(16, 60, VB_PAGE - 30, memory);
	vb_close(&ch);
}

/* A GPADL that the device uses: read, written, and torn down only when it has let go. */
static void test_gpadl(void)
{
	uint32_t bytes = 40 * VB_PAGE;
	uint8_t *memory = vb_pages(40);
	struct vt_packet answer;
	struct vb_message m;

	open(1, 1);
	for (uint32_t i = 0; i < bytes; i += 53)
		memory[i] = (uint8_t)i;
	CHECK_EQ(vt_order(&ch, VT_HOLD, 77, 0, 0).status, VT_ENOENT);
	CHECK_EQ(vt_order(&ch, VT_SUM, 0, 1, 0).status, VT_ENOENT);
	CHECK_EQ(vb_gpadl(ch.relid, 77, memory, bytes), 0);
	answer = vt_order(&ch, VT_HOLD, 77, 0, 0);
	CHECK_EQ(answer.status, 0);
	CHECK_EQ(answer.value, bytes);
	CHECK_EQ(vt_order(&ch, VT_HOLD, 77, 0, 0).status, VT_EBUSY);
	CHECK_EQ(vt_order(&ch, VT_SUM, 0, 1000, 0).value, vt_sum(0, memory, 1000));
	CHECK_EQ(vt_order(&ch, VT_SUM, 4090, 5000, 0).value, vt_sum(0, memory + 4090, 5000));
	CHECK_EQ(vt_order(&ch, VT_SUM, bytes - 3, 3, 0).value, vt_sum(0, memory + bytes - 3, 3));
	CHECK_EQ(vt_order(&ch, VT_SUM, bytes - 3, 4, 0).status, VT_EINVAL);
	CHECK_EQ(vt_order(&ch, VT_SUM, 0xffffffff, 2, 0).status, VT_EINVAL);
	CHECK_EQ(vt_order(&ch, VT_FILL, 4095, 4098, 0xa5).status, 0);
	CHECK(memory[4095] == 0xa5 && memory[8192] == 0xa5 && memory[4094] != 0xa5 && memory[8193] != 0xa5);
	vb_post((uint32_t[]){ VB_GPADL_TEARDOWN, 0, ch.relid, 77 }, 16);
	CHECK(!vb_next(&m, 3000));
	CHECK_EQ(vt_order(&ch, VT_RELEASE, 0, 0, 0).status, 0);
	vb_expect(&m, VB_GPADL_TORNDOWN, 12);
	CHECK_EQ(m.w[2], 77);
	CHECK_EQ(vt_order(&ch, VT_HOLD, 77, 0, 0).status, VT_ENOENT);
	/* A close lets go of it, too. */
	CHECK_EQ(vb_gpadl(ch.relid, 78, memory, VB_PAGE), 0);
	CHECK_EQ(vt_order(&ch, VT_HOLD, 78, 0, 0).status, 0);
	vb_close(&ch);
	vb_gpadl_teardown(ch.relid, 78);
}

/* Before 5.3 there is no answer. It has been done, and not been answered, when the answer to what came after it is
 * here. */
static void modify_to(uint32_t vp)
{
	struct vb_message m;

	vb_post((uint32_t[]){ VB_MODIFY, 0, ch.relid, vp }, 16);
	if (vb.version >= VB_5_3) {
		vb_expect(&m, VB_MODIFIED, 16);
		CHECK_EQ(m.w[2], ch.relid);
		CHECK_EQ(m.w[3], 0);
	} else {
		settled();
	}
}

static void test_modify(void)
{
	static const uint32_t versions[] = { VB_5_3, VB_6_0, VB_RS3, VB_5_2 };
	uint32_t before;

	for (unsigned int i = 0; i < 4; i++) {
		vb_connect(versions[i]);
		open(1, 1);
		for (unsigned int n = 0; n < 3 * cpus; n++) {
			uint32_t vp = (n + 1) % cpus;

			modify_to(vp);
			vt_echo_heard(&ch, 64);
			CHECK_EQ(vb.flag_vp[ch.flag], vp);
		}
		vb_close(&ch);
	}
	/* No VP at all: it is to be polled. */
	vb_connect(VB_5_3);
	CHECK_EQ(vt_open(&ch, 1, 1, 0xffffffff), 0);
	before = settled();
	for (unsigned int i = 0; i < 10; i++)
		vt_echo(&ch, 64);
	CHECK_EQ(settled(), before);
	vb_close(&ch);
	vt_good(0);
}

#define SUBS 20

static void test_subchannels(void)
{
	struct vb_channel *sub = vb_pages(1);
	uint32_t rescinds, offers = vb.offers;

	open(1, 1);
	CHECK_EQ(vt_order(&ch, VT_OFFER, SUBS / 2, 0, 0).status, 0);
	CHECK_EQ(vt_order(&ch, VT_OFFER, SUBS / 2, 0, 0).status, 0);
	CHECK_EQ(vt_order(&ch, VT_OFFER, 5000, 0, 0).status, VT_ENOSPC);
	CHECK(vb_reaches(&vb.offers, offers + SUBS, VB_WAIT));
	for (unsigned int i = 0; i < SUBS; i++)
		CHECK_EQ(vb_open(&sub[i], vt_offer(i + 1), 1, 1, i % cpus), 0);
	for (unsigned int round = 0; round < 3; round++)
		for (unsigned int i = 0; i < SUBS; i++) {
			vt_echo_heard(&sub[i], 40 + 8 * i);
			CHECK_EQ(vb.flag_vp[sub[i].flag], i % cpus);
		}
	CHECK_EQ(vt_order(&sub[3], VT_OFFER, 1, 0, 0).status, VT_EPERM);
	CHECK_EQ(vt_order(&sub[3], VT_RESCIND, 0, 0, 0).status, VT_EPERM);
	vb_close(&sub[5]);
	CHECK_EQ(vb_reopen(&sub[5], 0), 0);
	vt_echo(&sub[5], 64);
	/* They go with the primary channel. */
	rescinds = vb.rescinds;
	vb_close(&ch);
	CHECK(vb_reaches(&vb.rescinds, rescinds + SUBS, VB_WAIT));
	for (unsigned int i = 0; i < SUBS; i++)
		vb_relid_released(sub[i].relid);
	vt_good(0);
	open(1, 1);
	CHECK_EQ(vt_order(&ch, VT_OFFER, 1, 0, 0).status, 0);
	CHECK(vb_reaches(&vb.offers, offers + SUBS + 1, VB_WAIT));
	CHECK_EQ(vb_open(&sub[0], vt_offer(1), 1, 1, 0), 0);
	vt_echo(&sub[0], 64);
	vb_unload();
	vb_connect(VB_5_3);
	vt_good(0);
}

/* Until there have been so many. */
static void await_new_device(uint32_t rescinds, uint32_t offers)
{
	CHECK_EQ(vt_order(&ch, VT_RESCIND, 0, 0, 0).status, 0);
	CHECK(vb_reaches(&vb.rescinds, rescinds, VB_WAIT));
	CHECK(vb_reaches(&vb.offers, offers, VB_WAIT));
}

/* The device goes, open or not, and another one comes. */
static void test_rescind(void)
{
	for (unsigned int i = 0; i < 20; i++) {
		uint32_t rescinds = vb.rescinds, old;
		uint32_t offers = vb.offers;
		uint8_t *mark = vb_mark();

		open(1, 1);
		old = ch.relid;
		if (i % 4 == 1) {
			/* Those that were not offered yet would go without a word. */
			CHECK_EQ(vt_order(&ch, VT_OFFER, 2, 0, 0).status, 0);
			CHECK(vb_reaches(&vb.offers, offers + 2, VB_WAIT));
		}
		await_new_device(rescinds + (i % 4 == 1 ? 3 : 1), offers + (i % 4 == 1 ? 3 : 1));
		CHECK_EQ(vb.rescinded, old); /* the primary channel last */
		if (i % 2)
			vb_close(&ch); /* answered, even now */
		for (unsigned int j = 0; j < vb.offers; j++) {
			if (!vb.offer[j].kind && vb.offer[j].relid)
				vb_relid_released(vb.offer[j].relid);
			if (!vb.offer[j].kind)
				vb.offer[j].relid = 0; /* told once */
		}
		vt_good(0);
		vb_release(mark);
		if (i % 5 == 4) /* else the list of offers gets long */
			vb_connect(VB_5_3);
	}
	/* Never released: the next contact does that. */
	open(1, 1);
	await_new_device(vb.rescinds + 1, vb.offers + 1);
	vt_good(0);
	vb_connect(VB_WIN8);
	vt_good(0);
}

/* The device says that we broke its protocol; the channel is dead until it is opened again. */
static void test_fail(void)
{
	struct vb_packet packet;
	uint64_t buffer[8];

	for (unsigned int i = 0; i < 5; i++) {
		open(1, 1);
		vt_echo(&ch, 64);
		vt_send(&ch, i % 2 ? VT_FAIL : 1000 + i, 0, 0);
		vt_send(&ch, VT_PING, 0, 0);
		rt_delay(2000);
		vb_poll();
		CHECK(vb_recv(&ch, &packet, buffer, sizeof(buffer)) < 0);
		vb_close(&ch);
		vt_good(0);
	}
}

static const struct {
	const char *name;
	void (*run)(void);
	void (*others)(unsigned int n);
} tests[] = {
	{ "reopen", test_reopen, NULL },
	{ "wrap", test_wrap, NULL },
	{ "full-out", test_full_out, NULL },
	{ "full-in", test_full_in, NULL },
	{ "pending", test_pending, NULL },
	{ "mask", test_mask, NULL },
	{ "batch", test_batch, NULL },
	{ "gpa-direct", test_gpa_direct, NULL },
	{ "gpadl", test_gpadl, NULL },
	{ "modify", test_modify, NULL },
	{ "subchannels", test_subchannels, NULL },
	{ "rescind", test_rescind, NULL },
	{ "fail", test_fail, NULL },
};

void guest_main(void)
{
	cpus = (unsigned int)rt_arg_number("cpus", 1);
	for (unsigned int i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		if (rt_arg_is("test", tests[i].name)) {
			vb_start(cpus, tests[i].others);
			vb.by_interrupt = rt_arg("by-interrupt");
			vb_connect((uint32_t)rt_arg_number("version", VB_5_3));
			tests[i].run();
			rt_print("passed\n");
			return;
		}
	}
	CHECK(!"a test of this name");
}
