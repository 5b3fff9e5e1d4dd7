/* SPDX-License-Identifier: MIT */
#include "rt/vut.h"

#include "rt/apic.h"
#include "rt/io.h"
#include "rt/rt.h"

#define COMMANDS 0x2800000u /* RAM that nobody uses: a page for each request of a queue */
#define SLOTS	 VQ_SIZE_MAX
#define ANSWER	 0x100 /* in that page */
#define ECHO_IN	 0x3200000u
#define ECHO_OUT 0x3300000u

uint64_t vut_features(void)
{
	return VF(VERSION_1) | VF(RING_RESET) | (rt_arg_number("packed", 0) ? VF(PACKED) : 0) |
	       (rt_arg_number("event", 0) ? VF(EVENT_IDX) : 0);
}

void vut_start(struct virtio *v, struct vq *queues, unsigned int count, uint16_t size)
{
	if (!v->common) {
		pic_off();
		lapic_enable(false);
		virtio_find(v, VUT_ID);
	}
	CHECK(virtio_negotiate(v, vut_features()));
	write16(v->common + VC_MSIX, 0);
	CHECK_EQ(read16(v->common + VC_MSIX), 0);
	for (unsigned int i = 0; i <= count; i++)
		virtio_msix(v, i, (uint8_t)(VUT_VECTOR + i), false);
	for (unsigned int i = 0; i < count; i++)
		virtio_queue(v, &queues[i], (uint16_t)i, size, (uint16_t)(i + 1));
	virtio_msix_enable(v, true);
	virtio_status(v, VS_DRIVER_OK);
}

static uint64_t page_of(const struct vq *q, uint16_t id)
{
	return COMMANDS + 4096ULL * (q->index * SLOTS + id);
}

struct vut_answer *vut_answer(struct vq *q, uint16_t id)
{
	return (struct vut_answer *)(uintptr_t)(page_of(q, id) + ANSWER);
}

void vut_put(struct vq *q, uint16_t id, const struct vut_command *c, uint64_t data, uint32_t data_length, uint64_t room,
	     uint32_t room_length)
{
	struct vq_part parts[4] = { { page_of(q, id), sizeof(*c), false } };
	unsigned int count = 1;

	memcpy((void *)(uintptr_t)page_of(q, id), c, sizeof(*c));
	memset(vut_answer(q, id), 0xee, sizeof(struct vut_answer));
	if (data)
		parts[count++] = (struct vq_part){ data, data_length, false };
	parts[count++] = (struct vq_part){ page_of(q, id) + ANSWER, sizeof(struct vut_answer), true };
	if (room)
		parts[count++] = (struct vq_part){ room, room_length, true };
	vq_add(q, id, parts, count);
}

static struct vut_answer finish(struct vq *q, uint32_t more)
{
	uint32_t length;
	uint16_t id;

	vq_kick(q);
	CHECK(vq_wait(q, &id, &length, VUT_LONG));
	CHECK_EQ(id, 0);
	CHECK_EQ(length, sizeof(struct vut_answer) + more);
	return *(volatile struct vut_answer *)vut_answer(q, 0);
}

struct vut_answer vut_do(struct vq *q, uint32_t op, uint32_t file, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	const struct vut_command command = { op, file, { a, b, c, d } };

	vut_put(q, 0, &command, 0, 0, 0, 0);
	return finish(q, 0);
}

uint64_t vut_info(struct vq *q, enum vut_info what, uint64_t queue)
{
	return vut_do(q, VUT_INFO, 0, what, queue, 0, 0).value;
}

void vut_await(struct vq *q, enum vut_info what, uint64_t queue, uint64_t wanted)
{
	uint64_t end = rt_ticks() + (uint64_t)VUT_LONG / 1000 * RT_TICKS_PER_MS;

	while (vut_info(q, what, queue) != wanted)
		CHECK(rt_ticks() < end);
}

void vut_echo(struct vq *q, uint32_t length, uint32_t seed)
{
	const struct vut_command command = { .op = VUT_ECHO };
	volatile uint32_t *in = (volatile uint32_t *)(uintptr_t)(ECHO_IN + 0x8000 * q->index),
			  *out = (volatile uint32_t *)(uintptr_t)(ECHO_OUT + 0x8000 * q->index);

	CHECK(length <= 0x8000);
	/* Some words, not each: this code may be interpreted. */
	for (uint32_t i = 0; i<length / 4; i += length> 256 ? 31 : 1) {
		in[i] = seed + i;
		out[i] = 0;
	}
	vut_put(q, 0, &command, (uintptr_t)in, length, (uintptr_t)out, length);
	CHECK_EQ(finish(q, length).value, length);
	for (uint32_t i = 0; i<length / 4; i += length> 256 ? 31 : 1)
		CHECK_EQ(out[i], seed + i);
}
