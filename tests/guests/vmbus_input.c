/* SPDX-License-Identifier: MIT */
/*
 * The keyboard's and the mouse's guest side. Formats: Linux drivers/input/serio/hyperv-keyboard.c and
 * drivers/hid/hid-hyperv.c. Wants --vmbus and --control.
 *
 * test=serve asks for both and prints what comes, until F10 is let go of. test=close closes the keyboard when the first
 * key comes, and ends. test=bad misbehaves.
 */
#include "rt/io.h"
#include "rt/rt.h"
#include "rt/vmbus.h"

#define F10  0x44
#define RING 9 /* pages, as the drivers have them */

enum { KBD_REQUEST = 1, KBD_RESPONSE, KBD_EVENT, KBD_LEDS };
enum { HID_REQUEST, HID_RESPONSE, HID_INFO, HID_ACK, HID_REPORT };

static const uint8_t keyboard_type[16] =
	VB_GUID(0xf912ad6d, 0x2b17, 0x48ea, 0xbd, 0x65, 0xf9, 0x27, 0xa6, 0x1c, 0x76, 0x84);
static const uint8_t mouse_type[16] =
	VB_GUID(0xcfa8b69e, 0x5b4a, 0x4cc0, 0xb9, 0x8b, 0x8b, 0xa1, 0xa1, 0xf3, 0xf9, 0x5a);

static struct vb_channel keyboard, mouse;
static struct vb_packet packet;
static uint32_t m[64];

static void open(struct vb_channel *channel, const uint8_t *type, uint16_t flags)
{
	const struct vb_offer *offer = vb_find(type, NULL, 0);

	CHECK(offer);
	CHECK_EQ(offer->flags & 0x2010, flags);
	CHECK_EQ(offer->user[0], flags ? 4 : 0);
	CHECK_EQ(vb_open(channel, offer, RING, RING, 0), 0);
}

/* Sends words that want a completion, and takes that. */
static void send(struct vb_channel *channel, const uint32_t *words, uint32_t size, uint64_t transaction)
{
	CHECK(vb_send(channel, VB_INBAND, 1, transaction, words, size));
	vb_await(channel, &packet, m, sizeof(m));
	CHECK_EQ(packet.type, VB_COMPLETION);
	CHECK_EQ(packet.transaction, transaction);
}

static bool ask_keyboard(uint32_t version)
{
	const uint32_t request[] = { KBD_REQUEST, version }, leds[] = { KBD_LEDS, 1 };

	send(&keyboard, request, sizeof(request), version);
	CHECK_EQ(vb_await(&keyboard, &packet, m, sizeof(m)), 8);
	CHECK_EQ(packet.type, VB_INBAND);
	CHECK_EQ(m[0], KBD_RESPONSE);
	if (m[1])
		send(&keyboard, leds, sizeof(leds), 7);
	return m[1];
}

/* What came says is the size of its message. */
static void expect_mouse(uint32_t type, uint32_t size)
{
	CHECK_EQ(vb_await(&mouse, &packet, m, sizeof(m)), (16 + size + 7) / 8 * 8);
	CHECK_EQ(m[0], 1);
	CHECK_EQ(m[1], 8 + size);
	CHECK_EQ(m[2], type);
	CHECK_EQ(m[3], size);
}

static bool ask_mouse(uint32_t version)
{
	const uint32_t request[] = { 1, 12, HID_REQUEST, 4, version, 0 }, ack[] = { 1, 9, HID_ACK, 1, 0, 0 };
	const uint8_t *bytes = (const uint8_t *)&m[4];

	send(&mouse, request, sizeof(request), version);
	expect_mouse(HID_RESPONSE, 5);
	CHECK_EQ(m[4], version);
	if (!bytes[4])
		return false;
	vb_poll();
	CHECK(vb_await(&mouse, &packet, m, sizeof(m)) >= 16 + 32 + 9);
	CHECK_EQ(m[2], HID_INFO);
	CHECK_EQ(m[4], 32);				 /* of the attributes */
	CHECK_EQ(bytes[32], 9);				 /* of the descriptor */
	CHECK_EQ(bytes[39] | bytes[40] << 8, m[3] - 41); /* what is left for the report's descriptor */
	CHECK_EQ(bytes[m[3] - 1], 0xc0);
	send(&mouse, ack, sizeof(ack), 9);
	return true;
}

/* Keys as "+1e" and "-1e", "+e0.53"; true for the one that ends all. */
static bool take_key(void)
{
	if (vb_recv(&keyboard, &packet, m, sizeof(m)) < 0)
		return false;
	CHECK_EQ(packet.type, VB_INBAND);
	CHECK_EQ(m[0], KBD_EVENT);
	CHECK_EQ(m[2] & ~6u, 0);
	rt_print("%c%s%x\n", m[2] & 2 ? '-' : '+', m[2] & 4 ? "e0." : "", m[1]);
	return m[1] == F10 && m[2] & 2;
}

static void take_report(void)
{
	const uint8_t *bytes = (const uint8_t *)&m[4];

	if (vb_recv(&mouse, &packet, m, sizeof(m)) < 0)
		return;
	CHECK_EQ(m[2], HID_REPORT);
	CHECK_EQ(m[3], 5);
	rt_print("at %u %u buttons %u\n", bytes[1] | bytes[2] << 8, bytes[3] | bytes[4] << 8, bytes[0]);
}

static void begin(void)
{
	open(&keyboard, keyboard_type, 0);
	open(&mouse, mouse_type, 0x10);
	rt_print("closed\n");
	CHECK(!ask_keyboard(0x20000));
	CHECK(!ask_mouse(0x10000));
	CHECK(ask_keyboard(0x10000));
	CHECK(ask_mouse(0x20000));
	rt_print("ready\n");
}

static void test_serve(void)
{
	begin();
	do {
		vb_poll();
		take_report();
	} while (!take_key());
}

static void test_close(void)
{
	begin();
	while (vb_recv(&keyboard, &packet, m, sizeof(m)) < 0)
		vb_poll();
	vb_close(&keyboard);
	vb_close(&mouse);
	/* And again, as a driver that is loaded anew. */
	CHECK_EQ(vb_reopen(&keyboard, 0), 0);
	CHECK(ask_keyboard(0x10000));
	rt_print("again\n");
	do
		vb_poll();
	while (!take_key());
}

/* Each breaks the protocol once; after a close and an open all is well again. */
static void test_bad(void)
{
	static const struct {
		uint16_t type;
		uint32_t words[6], size;
	} bad[] = {
		{ VB_INBAND, { 0 }, 0 },
		{ VB_INBAND, { KBD_EVENT, 1, 0 }, 16 },
		{ VB_INBAND, { 99 }, 8 },
		{ VB_COMPLETION, { KBD_REQUEST, 0x10000 }, 8 },
		{ VB_INBAND, { 1, 12, 77, 4 }, 24 },
		{ VB_INBAND, { 1, 0xffffffff, HID_REQUEST, 4, 0x20000 }, 24 },
		{ VB_INBAND, { 2, 12, HID_REQUEST, 4, 0x20000 }, 24 },
		{ VB_INBAND, { 1, 12, HID_REQUEST }, 16 },
	};

	open(&keyboard, keyboard_type, 0);
	open(&mouse, mouse_type, 0x10);
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct vb_channel *channel = i < 4 ? &keyboard : &mouse;

		CHECK(vb_send(channel, bad[i].type, 0, 0, bad[i].words, bad[i].size));
		vb_close(channel);
		CHECK_EQ(vb_reopen(channel, 0), 0);
		CHECK(i < 4 ? ask_keyboard(0x10000) : ask_mouse(0x20000));
	}
	/* Requests without an end, and nobody who reads the answers. */
	for (unsigned int i = 0; i < 4000; i++) {
		const uint32_t request[] = { KBD_REQUEST, 0x10000 };

		if (!vb_send(&keyboard, VB_INBAND, 1, i, request, sizeof(request)))
			vb_poll();
	}
	vb_close(&keyboard);
	CHECK_EQ(vb_reopen(&keyboard, 0), 0);
	CHECK(ask_keyboard(0x10000));
}

static const struct rt_test tests[] = {
	{ "serve", test_serve },
	{ "close", test_close },
	{ "bad", test_bad },
};

void guest_main(void)
{
	vb_start(1, NULL);
	vb_connect(VB_5_3);
	rt_run_test(tests, sizeof(tests) / sizeof(tests[0]));
	rt_print("passed\n");
}
