/* SPDX-License-Identifier: MIT */
/*
 * A network card. The input is a list of things that guest and network do: NVSP messages and RNDIS messages of any
 * content, by section and by pages, completions of anything, channels that close and open, frames that arrive with any
 * header, a network that is full. Nothing outside the guest's memory is touched, no slot is lost or used twice, and
 * after a reset the next guest finds the card working.
 */
#include <assert.h>

#include "tests/fuzz/input.h"
#include "tests/unit/netvsp_fake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HANDLE_RECEIVE 55
#define HANDLE_SEND    66
#define RELIDS	       3

static struct guest {
	struct fake_rings rings[RELIDS + 1];
	bool open[RELIDS + 1];
} guest;

/* As many bytes as the input says, at most max. */
static size_t some(struct input *in, void *to, size_t max)
{
	size_t n = byte(in) | (size_t)(byte(in) & 15) << 8;

	return bytes(in, to, n < max ? n : max);
}

/* Each slot is free, ours, or in one packet of the guest's: no more and no less than there are. */
static void check_slots(void)
{
	const struct netvsp *dev = nic.dev;
	uint32_t free_slots = 0, steps = 0;

	for (uint32_t at = dev->first_free; at != NO_SLOT; at = dev->slots[at].next) {
		assert(at < dev->slot_count && dev->slots[at].state == SLOT_FREE);
		assert(steps++ < dev->slot_count);
	}
	assert(steps == dev->free_count);
	for (uint32_t i = 0; i < dev->slot_count; i++)
		free_slots += dev->slots[i].state == SLOT_FREE;
	assert(free_slots == dev->free_count);
}

/* The guest reads all there is; what it may have written over it itself does not matter then. */
static void drain(void)
{
	for (unsigned int i = 1; i <= RELIDS; i++) {
		if (!guest.open[i])
			continue;
		*fake_word(&guest.rings[i].to_guest, RING_READ) = *fake_word(&guest.rings[i].to_guest, RING_WRITE);
		nic_signal(i);
	}
}

static void bring_up(void)
{
	const struct nvsp_message init = { .type = NVSP_INIT, .init = { NVSP_V1, 0xffffffff } };
	const struct nvsp_message receive = { .type = NVSP_RECEIVE_BUFFER, .buffer = { HANDLE_RECEIVE, 0xcafe, 0 } };
	const struct nvsp_message send = { .type = NVSP_SEND_BUFFER, .buffer = { HANDLE_SEND, 0, 0 } };
	const uint32_t start[] = { RNDIS_INITIALIZE, 24, 3, 1, 0, 0x4000 };
	const uint32_t filter[] = {
		RNDIS_SET, 32, 1, OID_GEN_CURRENT_PACKET_FILTER, 4, 20, 0, NDIS_FILTER_PROMISCUOUS
	};

	guest.rings[1] = nic_open(1);
	guest.open[1] = true;
	nic_gpadl(1, HANDLE_RECEIVE, NIC_RECEIVE, NIC_RECEIVE_PAGES);
	nic_gpadl(1, HANDLE_SEND, NIC_SEND, NIC_SEND_PAGES);
	nic_message(&guest.rings[1], &init, 1);
	nic_message(&guest.rings[1], &receive, 2);
	nic_message(&guest.rings[1], &send, 3);
	nic_rndis_at(&guest.rings[1], 1, NVSP_CHANNEL_CONTROL, 0, start, sizeof(start), 4);
	nic_rndis_at(&guest.rings[1], 1, NVSP_CHANNEL_CONTROL, 0, filter, sizeof(filter), 5);
}

static void packet(struct input *in, unsigned int relid)
{
	uint8_t extra[512], payload[512];
	size_t extra_size = some(in, extra, sizeof(extra)) & ~7ul, size = some(in, payload, sizeof(payload));
	uint16_t type = byte(in) % 13;

	nic_put(&guest.rings[relid].to_host, type, byte(in), byte(in), extra, extra_size, payload, size);
	nic_signal(relid);
}

static void message(struct input *in)
{
	struct nvsp_message m = { .type = byte(in) };

	some(in, m.words, sizeof(m.words));
	nic_message(&guest.rings[1], &m, byte(in));
}

static void rndis(struct input *in, unsigned int relid)
{
	uint8_t what[4096];
	size_t size = some(in, what, sizeof(what));

	/* Lengths that fit get further. */
	if (size >= 8 && (byte(in) & 1))
		memcpy(what + 4, &(uint32_t){ (uint32_t)size }, 4);
	nic_rndis_at(&guest.rings[relid], relid, byte(in) & 1, byte(in), what, size, byte(in));
}

static void section(struct input *in, unsigned int relid)
{
	struct nvsp_message m = { .type = NVSP_RNDIS, .rndis = { byte(in) & 1, byte(in), 0 } };
	uint8_t *to = fake.ram + NIC_SEND * VMBUS_PAGE + (m.rndis.section % 21) * (size_t)NETVSP_SECTION_SIZE;

	m.rndis.section_size = (uint32_t)some(in, to, NETVSP_SECTION_SIZE) + (byte(in) & 7);
	nic_put(&guest.rings[relid].to_host, VMBUS_PACKET_INBAND, 1, byte(in), NULL, 0, &m, sizeof(m));
	nic_signal(relid);
}

static void frame(struct input *in)
{
	struct fake_frame *f = &nic.in[nic.in_count];

	if (nic.in_count == NIC_FRAMES)
		return;
	f->queue = byte(in) % nic.net.queues;
	f->size = some(in, f->bytes, 4096);
	if (byte(in) & 1)
		f->size *= 1 + byte(in) % 16; /* of what was there before */
	nic.in_count++;
	nic.net.readable(nic.dev, f->queue);
}

static void act(struct input *in)
{
	uint8_t what = byte(in);
	unsigned int relid = 1 + what / 16 % RELIDS;

	if (!guest.open[relid])
		relid = 1;
	switch (what % 16) {
	case 0:
	case 1:
		packet(in, relid);
		break;
	case 2:
	case 3:
		message(in);
		break;
	case 4:
	case 5:
	case 6:
		rndis(in, relid);
		break;
	case 7:
		section(in, relid);
		break;
	case 8:
	case 9:
		frame(in);
		break;
	case 10:
		drain();
		break;
	case 11:
		nic.room = byte(in) % 8 - 1;
		nic.net.writable(nic.dev, 0);
		break;
	case 12:
		netvsp_set_link(nic.dev, byte(in) & 1);
		break;
	case 13:
		if (relid > 1 || (byte(in) & 7) == 0) {
			nic_close(relid);
			guest.open[relid] = false;
			if (relid == 1) {
				memset(guest.open, 0, sizeof(guest.open));
				bring_up();
			}
		}
		break;
	case 14:
		relid = 2 + (byte(in) & 1);
		guest.rings[relid] = nic_open(relid);
		guest.open[relid] = true;
		break;
	default:
		fake_copy(&guest.rings[relid].to_guest, byte(in), (void *)in->at, in->left < 8 ? in->left : 8, true);
		nic_signal(relid);
	}
}

static void works(void)
{
	struct vmbus_contact contact = { .header.type = VMBUS_INITIATE_CONTACT, .version = VMBUS_V5_3 };
	struct vmbus_header request = { .type = VMBUS_REQUEST_OFFERS };

	guest = (struct guest){ .open = { false } };
	vmbus_reset(fake.bus);
	vmbus_receive(fake.bus, 4, &contact, sizeof(contact));
	vmbus_receive(fake.bus, 4, &request, sizeof(request));
	netvsp_set_link(nic.dev, true);
	nic.room = -1;
	bring_up();
	drain();
	nic.in_count = 1;
	memset(&nic.in[0], 0, 100);
	nic.in[0].size = 64 + (nic.net.headers ? sizeof(struct net_header) : 0);
	nic.dev->stats.rx_frames = 0;
	nic.net.readable(nic.dev, 0);
	assert(nic.dev->stats.rx_frames == 1);
	check_slots();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint8_t kind = byte(&in);

	guest = (struct guest){ .open = { false } };
	nic_setup(kind & 1, kind & 2 ? 3 : 1, 3);
	bring_up();
	while (in.left) {
		act(&in);
		check_slots();
	}
	works();
	nic_teardown();
	return 0;
}
