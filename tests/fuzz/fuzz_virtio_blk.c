/* SPDX-License-Identifier: MIT */
/* virtio-blk and the ring below it, under a driver that writes what the input says between all calls. */
#include <assert.h>
#include <stdint.h>

#include "tests/fuzz/input.h"
#include "tests/unit/virtio_blk_fake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A descriptor somewhere near the truth. */
static void describe(struct input *in)
{
	uint64_t how = next(in, 1), address = next(in, 3);
	uint32_t length = (uint32_t)next(in, 2);
	uint8_t *d = fake.ram + (how & 0x80 ? 0x9000 : FAKE_DESC) + 16 * (how % FAKE_SIZE);

	if (how & 0x40)
		address |= next(in, 8);
	if (how & 0x20)
		length *= 512;
	memcpy(d, &address, 8);
	memcpy(d + 8, &length, 4);
	d[12] = (uint8_t)next(in, 1);
	d[13] = 0;
	d[14] = (uint8_t)next(in, 1);
	d[15] = 0;
}

static void make_available(struct input *in)
{
	uint16_t index, head = (uint16_t)next(in, 1);

	memcpy(&index, fake.ram + FAKE_DRIVER + 2, 2);
	memcpy(fake.ram + FAKE_DRIVER + 4 + 2 * (index % FAKE_SIZE), &head, 2);
	index++;
	memcpy(fake.ram + FAKE_DRIVER + 2, &index, 2);
}

static void step(struct input *in)
{
	uint64_t op = next(in, 1), at;

	switch (op % 16) {
	case 0:
	case 1:
	case 2:
		describe(in);
		break;
	case 3:
	case 4:
		make_available(in);
		break;
	case 5:
	case 6:
		if (fake.watched)
			fake_kick();
		break;
	case 7:
		at = next(in, 2) * 8;
		for (uint64_t word = next(in, 8); at <= FAKE_RAM - 8; at += FAKE_RAM)
			memcpy(fake.ram + at, &word, 8);
		break;
	case 8:
	case 9:
		fake_io.error = op & 0x80 ? -EIO : 0;
		if (fake_io.queued)
			fake_end_one((unsigned int)next(in, 1) % fake_io.queued);
		break;
	case 10:
		fake_end_turn();
		break;
	case 11:
		fake.v->class->reset(fake.v);
		break;
	case 12:
		if (op & 0x80)
			fake.v->class->queue_reset(fake.v, 0);
		else
			fake.v->class->queue_start(fake.v, 0);
		break;
	case 13:
		fake.setup.size = 1 << next(in, 1) % 9;
		fake.setup.device = FAKE_DEVICE + next(in, 1) % 16;
		fake.accepted = next(in, 5);
		fake.enabled = true;
		fake.status = VIRTIO_DRIVER_OK;
		fake.v->class->start(fake.v);
		break;
	case 14:
		if (op & 0x80)
			fake.device->class->reset(fake.device);
		break;
	default:
		fake.v->class->looked_for(fake.v);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint64_t how = next(&in, 1);

	fake_setup(how & 1, how & 2, how & 4, how & 8 ? 2048 : 512);
	fake_start(how & 16 ? fake.v->features : next(&in, 5));
	while (in.left)
		step(&in);
	if (how & 32)
		fake_end_all();
	assert(fake_io.queued <= 512);
	fake_teardown();
	return 0;
}
