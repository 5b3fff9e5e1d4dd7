/* SPDX-License-Identifier: MIT */
/*
 * A guest against the storage controller: packets with their range lists, channels that open and close, rings that are
 * full or broken, and requests that end in any order. Nothing may be lost: each request that its channel outlives is
 * answered once.
 */
#define FAKE_SMALL
#include "tests/fuzz/input.h"
#include "tests/unit/storvsp_fake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A range list that is mostly possible. */
static size_t ranges(struct input *in, uint64_t *words)
{
	unsigned int count = byte(in) % 3, n = 1;
	uint8_t how = byte(in);

	words[0] = (uint64_t)(count + (how & 1)) << 32;
	for (unsigned int i = 0; i < count; i++) {
		uint32_t offset = how & 2 ? byte(in) * 17u : 0, length = byte(in) * 64u;
		unsigned int pages = (offset + length + 4095) / 4096;

		words[n++] = (uint64_t)offset << 32 | length;
		for (unsigned int p = 0; p < pages; p++)
			words[n++] = byte(in) * (how & 4 ? 3u : 1u);
	}
	return (n - (how >> 7)) * 8;
}

static void send_packet(struct input *in)
{
	uint64_t words[64];
	struct vstor_packet p = { .operation = VSTOR_EXECUTE_SRB };
	uint8_t how = byte(in);
	unsigned int channel = how & 1;
	size_t extra = 0;

	if (!fake.channels[channel].open || fake.channels[channel].paused)
		return;
	if (how & 2) {
		p.operation = byte(in) % 16;
		p.version = (uint16_t)(byte(in) << 8 | byte(in));
	} else {
		p.srb.lun = byte(in) % 5;
		p.srb.path = how & 4 ? byte(in) : 0;
		p.srb.cdb_length = how & 8 ? byte(in) : 16;
		p.srb.sense_length = how & 16 ? byte(in) : 20;
		p.srb.transfer_length = byte(in) * 64u;
		bytes(in, p.srb.cdb_or_sense, 16);
	}
	if (how & 32)
		extra = ranges(in, words);
	if (fake_packet(channel, how & 32 ? VMBUS_PACKET_GPA_DIRECT : VMBUS_PACKET_INBAND, how, words, extra, &p,
			how & 64 ? VSTOR_PACKET_OLD : sizeof(p)) < 0)
		fake_close(channel); /* as the bus does */
}

static void ready(void)
{
	static const struct vstor_packet packets[] = { { .operation = VSTOR_BEGIN_INIT },
						       { .operation = VSTOR_QUERY_VERSION, .version = VSTOR_V6_2 },
						       { .operation = VSTOR_END_INIT } };

	for (unsigned int i = 0; i < 3 && fake.channels[0].open; i++)
		fake_packet(0, VMBUS_PACKET_INBAND, 0, NULL, 0, &packets[i], sizeof(packets[i]));
}

static void step(struct input *in)
{
	uint8_t what = byte(in);

	switch (what % 16) {
	case 0:
		if (!fake.channels[what >> 7].open)
			fake_open(what >> 7);
		break;
	case 1:
		fake_close(what >> 7);
		break;
	case 2:
		ready();
		break;
	case 3:
		fake.full = !fake.full;
		break;
	case 4:
		for (unsigned int i = 0; i < 2; i++)
			if (fake.channels[i].open)
				fake_make_room(i);
		break;
	case 5:
		fake.broken = true;
		break;
	case 6:
		fake_io.error = what & 16 ? 0 : what & 32 ? -ENOSPC : what & 64 ? -EIO : -EOPNOTSUPP;
		break;
	case 7:
		fake_end_all();
		break;
	case 8:
	case 9:
		if (fake_io.queued)
			fake_end_one(byte(in) % fake_io.queued);
		break;
	case 10:
		fake_end_turn();
		break;
	case 11:
		fake_close(0);
		fake.device->class->reset(fake.device);
		break;
	default:
		send_packet(in);
	}
	fake.broken = fake.broken && what % 16 == 5;
	if (fake.nr_sent > FAKE_SENT / 2)
		fake.nr_sent = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	fake_setup();
	fake_open(0);
	ready();
	fake_open(1);
	while (in.left)
		step(&in);
	fake_teardown();
	return 0;
}
