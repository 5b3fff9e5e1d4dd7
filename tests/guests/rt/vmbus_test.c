/* SPDX-License-Identifier: MIT */
#include "rt/vmbus_test.h"

#define QUIET 1500 /* microseconds without a message: the host is done */

static const uint8_t class[16] = VB_GUID(0x77fcd982, 0x4f4f, 0x4260, 0x97, 0x54, 0x29, 0xa7, 0x5e, 0x83, 0xd0, 0x72);
static const uint8_t instance[16] = VB_GUID(0xa1b9cb36, 0x8b7f, 0x405c, 0xaa, 0x78, 0x14, 0xd9, 0xa1, 0x2c, 0x65, 0x71);
static const uint8_t monitored[16] =
	VB_GUID(0x5d0f2c1e, 0x93a4, 0x4b67, 0x8e, 0x11, 0xc2, 0x6f, 0x30, 0xd7, 0x49, 0xba);

static uint64_t sent[VT_BUFFER / 8], got[VT_BUFFER / 8];

const struct vb_offer *vt_offer(unsigned int sub)
{
	const struct vb_offer *offer = vb_find(class, instance, sub);

	CHECK(offer);
	return offer;
}

const struct vb_offer *vt_monitored(void)
{
	const struct vb_offer *offer = vb_find(class, monitored, 0);

	CHECK(offer);
	return offer;
}

uint32_t vt_open(struct vb_channel *ch, unsigned int out, unsigned int in, unsigned int vp)
{
	return vb_open(ch, vt_offer(0), out, in, vp);
}

static void echo(struct vb_channel *ch, uint32_t size, bool heard)
{
	uint32_t before = vb.flag_events[ch->flag];
	static uint64_t number;
	struct vb_packet packet;

	size = size < sizeof(struct vt_packet) ? sizeof(struct vt_packet) : size;
	CHECK(size % 8 == 0 && size <= VT_BUFFER);
	number++;
	/* New words in some places, some of them in each page. */
	sent[0] = VT_ECHO;
	for (uint32_t i = 1; i < size / 8; i += i < 32 ? 1 : 15)
		sent[i] = number << 32 | i;
	sent[size / 8 - 1] = ~number;
	CHECK(vb_send(ch, VB_INBAND, 1, number, sent, size));
	if (heard)
		CHECK(vb_reaches(&vb.flag_events[ch->flag], before + 1, VB_WAIT));
	CHECK_EQ(vb_await(ch, &packet, got, sizeof(got)), size);
	CHECK_EQ(packet.type, VB_COMPLETION);
	CHECK_EQ(packet.transaction, number);
	CHECK_EQ(packet.offset8, 2);
	for (uint32_t i = 0; i < size / 8; i += i < 32 ? 1 : 5)
		if (got[i] != sent[i])
			CHECK_EQ(got[i], sent[i]);
	CHECK_EQ(got[size / 8 - 1], ~number);
}

void vt_echo(struct vb_channel *ch, uint32_t size)
{
	echo(ch, size, false);
}

void vt_echo_heard(struct vb_channel *ch, uint32_t size)
{
	echo(ch, size, true);
}

static struct vt_packet wait_answer(struct vb_channel *ch, uint32_t op)
{
	struct vt_packet answer;
	struct vb_packet packet;

	CHECK_EQ(vb_await(ch, &packet, got, sizeof(got)), sizeof(answer));
	CHECK_EQ(packet.type, VB_COMPLETION);
	CHECK_EQ(packet.transaction, 0x1000 + op);
	memcpy(&answer, got, sizeof(answer));
	CHECK_EQ(answer.op, op);
	return answer;
}

struct vt_packet vt_order(struct vb_channel *ch, uint32_t op, uint32_t a, uint32_t b, uint64_t value)
{
	struct vt_packet order = { op, 0, a, b, value };

	CHECK(vb_send(ch, VB_INBAND, 1, 0x1000 + op, &order, sizeof(order)));
	return wait_answer(ch, op);
}

bool vt_send(struct vb_channel *ch, uint32_t op, uint32_t a, uint32_t b)
{
	struct vt_packet order = { op, 0, a, b, 0 };

	return vb_send(ch, VB_INBAND, 1, 0x1000 + op, &order, sizeof(order));
}

void vt_sent(struct vb_channel *ch, uint32_t n, uint32_t size)
{
	const uint8_t *bytes = (const uint8_t *)got;
	struct vb_packet packet;

	CHECK_EQ(vb_await(ch, &packet, got, sizeof(got)), (size + 7) & ~7u);
	CHECK_EQ(packet.type, VB_INBAND);
	CHECK_EQ(packet.transaction, 0);
	CHECK_EQ((uint32_t)got[0], VT_SEND);
	CHECK_EQ((uint32_t)got[1], n);		 /* a, behind op and status */
	for (uint32_t i = 16; i < size; i += 61) /* behind op, status, a and b */
		CHECK_EQ(bytes[i], (uint8_t)(n + i - 16));
}

void vt_good(unsigned int vp)
{
	uint8_t *mark = vb_mark();
	struct vb_channel ch;

	CHECK_EQ(vt_open(&ch, 1, 1, vp), 0);
	vt_echo_heard(&ch, 24);
	CHECK_EQ(vb.flag_vp[ch.flag], vb.version < VB_WIN8 ? 0 : vp);
	vt_echo(&ch, 1024);
	vt_echo(&ch, 4064);
	vb_close(&ch);
	vb_release(mark);
}

void vt_fill(struct vb_channel *ch)
{
	CHECK(vt_send(ch, VT_SEND, 1000, 1000));
	CHECK(vb_reaches(&ch->in.control[VB_PENDING], 1, VB_WAIT)); /* it waits for room */
}

void vt_provoke(struct vb_channel *ch)
{
	uint64_t bytes[6] = { VB_INBAND | 2ull << 16 | 5ull << 32, 1, VT_ECHO };
	uint32_t write = ch->out.control[VB_WRITE];

	if (write >= ch->out.size || write % 8)
		return;
	bytes[5] = (uint64_t)write << 32;
	vb_put_raw(&ch->out, bytes, sizeof(bytes));
	vb_signal(ch);
}

uint64_t vt_sum(uint64_t sum, const void *bytes, size_t size)
{
	const uint8_t *p = bytes;

	while (size--)
		sum = sum * 31 + *p++;
	return sum;
}

/* True if nothing comes that looks like an answer to another contact. */
static bool no_other_contact(void)
{
	struct vb_message m;
	bool none = true;

	while (vb_next(&m, QUIET))
		none &= m.w[0] != VB_VERSION;
	return none;
}

void vt_anew(void)
{
	uint64_t end = rt_ticks() + 20000 * RT_TICKS_PER_MS;

	vb_drain(QUIET);
	/* The first answers may be to earlier ones. */
	while (!(vb_contact(VB_5_3, 0, 0) && no_other_contact()))
		CHECK(rt_ticks() < end);
	vb_request_offers();
	vt_good(0);
}

static volatile uint32_t *volatile flip_at;
static volatile uint32_t *volatile flipping;
static volatile uint32_t flip_a, flip_b;

void vt_flipper(unsigned int n)
{
	(void)n;
	for (;;) {
		volatile uint32_t *at = flip_at;

		flipping = at;
		if (at) {
			*at = flip_a;
			*at = flip_b;
		}
	}
}

void vt_flip(volatile uint32_t *at, uint32_t a, uint32_t b)
{
	flip_a = a;
	flip_b = b;
	__atomic_store_n(&flip_at, at, __ATOMIC_SEQ_CST);
	while (flipping != at)
		__asm__ volatile("pause");
}

void vt_flipped(void)
{
	__atomic_store_n(&flip_at, NULL, __ATOMIC_SEQ_CST);
	while (flipping)
		__asm__ volatile("pause");
}
