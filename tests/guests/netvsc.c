/* SPDX-License-Identifier: MIT */
/*
 * A network card, from the guest's side. Arguments: test=NAME, frames=N. Wants --vmbus and one --net whose other end
 * sends each frame back with its addresses swapped (cases_net.py).
 */
#include "rt/netvsc.h"
#include "rt/hyperv.h"
#include "rt/io.h"
#include "rt/rt.h"

#define SIZE_MAX_FRAME 1514

static struct nv nv;
static uint8_t frame[SIZE_MAX_FRAME + 64];

/* To a neighbour, from us. */
static void make_frame(uint32_t size, uint32_t seed)
{
	static const uint8_t to[6] = { 2, 0, 0, 0, 0, 9 };

	for (uint32_t i = 0; i < size; i++)
		frame[i] = (uint8_t)(i + seed);
	memcpy(frame, to, 6);
	memcpy(frame + 6, nv.mac, 6);
	frame[12] = 0x88;
	frame[13] = 0xb5;
}

static void set_filter(uint32_t filter)
{
	CHECK_EQ(nv_set(&nv, 0x0001010e, &filter, 4), 0);
}

/* The echo of the frame: addresses swapped, the rest the same. */
static void expect_echo(uint32_t size)
{
	struct nv_arrival a;
	const uint8_t *got;
	uint32_t got_size;

	CHECK(nv_arrived(&nv, &a, VB_WAIT));
	CHECK_EQ(a.ranges, 1);
	got = nv_frame(&nv, &a, 0, &got_size);
	CHECK(got);
	CHECK_EQ(got_size, size);
	CHECK(!memcmp(got, nv.mac, 6) && !memcmp(got + 6, frame, 6) && !memcmp(got + 12, frame + 12, size - 12));
	nv_done(&nv, &a);
}

static void exchange(uint32_t size)
{
	static uint8_t *page;

	if (!page)
		page = vb_pages(2);
	make_frame(size, size);
	if (size % 2) {
		CHECK(nv_send_section(&nv, size % 8, nv_wrap(nv.send + size % 8 * nv.section_size, frame, size), size));
	} else {
		uint32_t length = nv_wrap(page + size % 4096, frame, size);

		CHECK(nv_send_pages(&nv, 0, page + size % 4096, length, size));
	}
	CHECK_EQ(nv_completed(&nv, size), 1);
	expect_echo(size);
}

static void test_echo(void)
{
	static const uint32_t versions[] = { NV_V1, NV_V2, NV_V4, NV_V5, NV_V6, NV_V6_1 };

	for (unsigned int i = 0; i < 6; i++) {
		nv_start(&nv, versions[i]);
		set_filter(1);
		for (uint32_t size = 60; size <= SIZE_MAX_FRAME; size += 121)
			exchange(size);
		exchange(SIZE_MAX_FRAME);
		nv_stop(&nv);
	}
}

/* All slots in use at once, given back in another order; each frame comes once. */
static void test_stream(void)
{
	uint64_t frames = rt_arg_number("frames", 700), sent = 0, completed = 0, got = 0;
	static uint64_t buffer[512];

	nv_start(&nv, NV_V6_1);
	set_filter(1);
	while (got < frames) {
		struct vb_packet packet;

		/* A section is ours again when its packet is completed. */
		while (sent < frames && sent - got < 40 && sent - completed < 10) {
			make_frame(60 + (uint32_t)(sent % 500), (uint32_t)sent);
			memcpy(frame + 14, &sent, 8);
			if (!nv_send_section(
				    &nv, (uint32_t)(sent % 10),
				    nv_wrap(nv.send + sent % 10 * nv.section_size, frame, 60 + (uint32_t)(sent % 500)),
				    sent))
				break;
			sent++;
		}
		if (vb_recv(&nv.ch, &packet, buffer, sizeof(buffer)) < 0) {
			vb_poll();
			continue;
		}
		if (packet.type == VB_COMPLETION) {
			CHECK_EQ(packet.transaction, completed);
			completed++;
		} else {
			struct nv_arrival a = { .transaction = packet.transaction,
						.ranges = (uint32_t)(buffer[0] >> 32) };

			CHECK_EQ(packet.type, VB_TRANSFER);
			CHECK(a.ranges && a.ranges <= 64);
			memcpy(a.range, buffer + 1, 8ul * a.ranges);
			for (uint32_t i = 0; i < a.ranges; i++) {
				uint32_t size;
				const uint8_t *f = nv_frame(&nv, &a, i, &size);
				uint64_t number;

				CHECK(f);
				memcpy(&number, f + 14, 8);
				CHECK_EQ(number, got);
				CHECK_EQ(size, 60 + got % 500);
				got++;
			}
			nv_done(&nv, &a);
		}
	}
	nv_stop(&nv);
}

static void test_queries(void)
{
	static const uint32_t words[] = { 0x00010106, 0x00010107, 0x00010114, 0x0001010e, 0x00020101, 0x00020102 };
	uint32_t value, size;
	uint8_t caps[156];

	nv_start(&nv, NV_V6_1);
	for (unsigned int i = 0; i < sizeof(words) / 4; i++) {
		size = 4;
		CHECK_EQ(nv_query(&nv, words[i], &value, &size), 0);
		CHECK_EQ(size, 4);
		if (i == 0)
			CHECK_EQ(value, 1500);
		if (i == 2)
			CHECK_EQ(value, 0);
	}
	size = sizeof(caps);
	CHECK_EQ(nv_query(&nv, 0xfc01020d, caps, &size), 0);
	CHECK_EQ(caps[0], 0xa7);
	CHECK_EQ(caps[2] | caps[3] << 8, size);
	size = 4;
	CHECK_EQ(nv_query(&nv, 0x12345678, &value, &size), 0xc00000bb);
	value = 0;
	CHECK_EQ(nv_set(&nv, 0x12345678, &value, 4), 0xc00000bb);
	/* Bad lengths are refused. */
	CHECK_EQ(nv_set(&nv, 0x0001010e, &value, 3), 0xc0010015);
	CHECK_EQ(nv_set(&nv, 0x01010103, &value, 4), 0xc0010015);
	nv_stop(&nv);
}

static void test_reopen(void)
{
	for (unsigned int i = 0; i < 20; i++) {
		nv_start(&nv, NV_V5);
		set_filter(1);
		exchange(100 + i);
		if (i % 2) {
			nv_stop(&nv);
		} else { /* with a frame under way, and without a word */
			make_frame(100, i);
			nv_send_section(&nv, 0, nv_wrap(nv.send, frame, 100), 1);
			vb_close(&nv.ch);
			vb_gpadl_teardown(nv.ch.relid, nv.receive_handle);
			vb_gpadl_teardown(nv.ch.relid, nv.send_handle);
		}
	}
	/* And a contact that says nothing of it. */
	nv_start(&nv, NV_V6_1);
	set_filter(1);
	exchange(200);
	vb_connect(VB_5_3);
	nv_start(&nv, NV_V6_1);
	set_filter(1);
	exchange(201);
	nv_stop(&nv);
}

/* ---- A guest that means harm ---- */

/* The card works for whoever opens it next. */
static void works(void)
{
	vb_connect(VB_5_3);
	nv_start(&nv, NV_V6_1);
	set_filter(1);
	exchange(300);
	nv_stop(&nv);
}

static void test_bad_sends(void)
{
	static const uint32_t lengths[] = { 0, 7, 8, 43, 44, 0x7fffffff, 0xffffffff, 0xfffffff8 };
	uint32_t words[16], message[10] = { 107, 0, 0, 0 };

	nv_start(&nv, NV_V6_1);
	for (unsigned int word = 0; word < 11; word++) {
		for (unsigned int i = 0; i < 8; i++) {
			make_frame(60, 0);
			nv_wrap(nv.send, frame, 60);
			memcpy(nv.send + 4 * word, &lengths[i], 4);
			CHECK(nv_send_section(&nv, 0, 104, i));
			nv_completed(&nv, i);
		}
	}
	/* Sections and sizes that are not there. */
	for (unsigned int i = 0; i < 8; i++) {
		message[2] = i ? 0x10000u << i : 11;
		message[3] = lengths[7 - i];
		CHECK(vb_send(&nv.ch, VB_INBAND, 1, i, message, sizeof(message)));
		CHECK_EQ(nv_completed(&nv, i), 5);
	}
	/* An endless chain: each message says it is 8 bytes long. */
	for (unsigned int i = 0; i < 6000 / 8; i++) {
		words[0] = 1;
		words[1] = 8;
		memcpy(nv.send + 8 * i, words, 8);
	}
	CHECK(nv_send_section(&nv, 0, 6000, 9));
	CHECK_EQ(nv_completed(&nv, 9), 5);
	nv_stop(&nv);
	works();
}

static void test_bad_completions(void)
{
	struct nv_arrival a = { .ranges = 1 }, real;

	nv_start(&nv, NV_V6_1);
	set_filter(1);
	for (uint64_t i = 0; i < 64; i++) {
		a.transaction = 1ull << i;
		nv_done(&nv, &a);
	}
	make_frame(60, 1);
	CHECK(nv_send_section(&nv, 0, nv_wrap(nv.send, frame, 60), 1));
	CHECK_EQ(nv_completed(&nv, 1), 1);
	CHECK(nv_arrived(&nv, &real, VB_WAIT));
	for (unsigned int i = 0; i < 10; i++)
		nv_done(&nv, &real);
	for (uint32_t i = 0; i < 3 * nv.slots && i < 300; i++)
		exchange(100);
	nv_stop(&nv);
	works();
}

/* Every kind of message with every small word, at each stage. */
static void test_bad_messages(void)
{
	uint32_t message[10] = { 0 };
	uint64_t buffer[16];
	struct vb_packet packet;

	for (uint32_t type = 0; type < 140; type++) {
		for (uint32_t value = 0; value < 3; value++) {
			CHECK_EQ(vb_open(&nv.ch, nv_offer(0), 1, 1, 0), 0);
			if (value)
				nv_init(&nv, NV_V5, NV_V6_1);
			for (unsigned int i = 1; i < 10; i++)
				message[i] = value == 2 ? 0xffffffff : value;
			message[0] = type;
			vb_send(&nv.ch, VB_INBAND, 1, 1, message, sizeof(message));
			vb_send(&nv.ch, VB_INBAND, 1, 1, message, 8);
			vb_poll();
			while (vb_recv(&nv.ch, &packet, buffer, sizeof(buffer)) >= 0)
				;
			vb_close(&nv.ch);
		}
		vb_connect(VB_5_3); /* and all memory of it goes */
		vb_drain(100);
	}
	works();
}

static void test_bad_control(void)
{
	static const uint32_t lengths[] = { 0, 7, 8, 19, 28, 4096, 0x7fffffff, 0xffffffff };

	for (uint32_t type = 0; type < 10; type++) {
		for (unsigned int i = 0; i < 8; i++) {
			uint32_t words[7] = { type, lengths[i], 1, 0x0001010e, lengths[i], lengths[7 - i] };

			nv_start(&nv, NV_V6_1);
			memcpy(nv.control, words, sizeof(words));
			nv_send_pages(&nv, 1, nv.control, 28, 1);
			rt_delay(100);
			vb_close(&nv.ch);
			vb_gpadl_teardown(nv.ch.relid, nv.receive_handle);
			vb_gpadl_teardown(nv.ch.relid, nv.send_handle);
		}
	}
	works();
}

static const struct rt_test tests[] = {
	{ "echo", test_echo },
	{ "stream", test_stream },
	{ "queries", test_queries },
	{ "reopen", test_reopen },
	{ "bad-sends", test_bad_sends },
	{ "bad-completions", test_bad_completions },
	{ "bad-messages", test_bad_messages },
	{ "bad-control", test_bad_control },
};

void guest_main(void)
{
	vb_start(1, NULL);
	vb_connect(VB_5_3);
	rt_run_test(tests, sizeof(tests) / sizeof(tests[0]));
	rt_print("passed\n");
}
