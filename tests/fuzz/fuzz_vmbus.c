/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer target: the input is what a guest does: messages, writes to its memory, signals, and how many messages it
 * takes; and now and then what the host does beside it: devices come, go, send and hold GPADLs. Besides memory errors
 * it finds a device that is called out of order, a contact without an answer, a relid that is offered twice, and
 * anything that is not given back at the end.
 */
#include "tests/fuzz/input.h"
#include "tests/unit/vmbus_fake.h"

enum {
	DEVICES = 4,
	PAGES = 64, /* of the guest's memory that an input plays with */
};

struct fuzz_device {
	struct vmbus_device dev;
	unsigned int slot, open;
	struct vmbus_gpadl *held;
};

static struct fuzz_device *devices[DEVICES];
/* Relids offered since the contact; and known: not released since, as far as the guest is concerned. */
static bool offered[VMBUS_CHANNELS], known[VMBUS_CHANNELS];

static void forget_offers(void)
{
	memset(offered, 0, sizeof(offered));
	memset(known, 0, sizeof(known));
}

static struct fuzz_device *of(const struct vmbus_channel *channel)
{
	return (struct fuzz_device *)vmbus_channel_device(channel);
}

static void check(bool holds)
{
	if (!holds)
		abort();
}

static void put_held(struct fuzz_device *d)
{
	struct vmbus_gpadl *held = d->held;

	d->held = NULL;
	if (held)
		vmbus_gpadl_put(held);
}

static int dev_open(struct vmbus_channel *channel)
{
	check(vmbus_channel_is_open(channel) && !vmbus_channel_opaque(channel));
	if (of(channel)->slot == 3)
		return -EINVAL;
	vmbus_channel_set_opaque(channel, channel);
	of(channel)->open++;
	return 0;
}

static void dev_close(struct vmbus_channel *channel)
{
	check(!vmbus_channel_is_open(channel) && vmbus_channel_opaque(channel) && of(channel)->open);
	vmbus_channel_set_opaque(channel, NULL);
	of(channel)->open--;
	if (of(channel)->slot != 1 && !vmbus_channel_index(channel))
		put_held(of(channel));
}

static int dev_packet(struct vmbus_channel *channel, const struct vmbus_packet *packet)
{
	struct fuzz_device *d = of(channel);
	uint8_t sum = 0, first = packet->size ? *(const uint8_t *)packet->payload : 0;

	check(vmbus_channel_is_open(channel) && vmbus_channel_opaque(channel));
	for (size_t i = 0; i < packet->size; i++)
		sum ^= ((const uint8_t *)packet->payload)[i];
	for (size_t i = 0; i < packet->extra_size; i++)
		sum ^= ((const uint8_t *)packet->extra)[i];
	if (first == 0xf0)
		return -EPROTO;
	if (first == 0xf1)
		vmbus_fail(channel, "as told");
	if (first == 0xf2 && devices[d->slot] == d) {
		devices[d->slot] = NULL;
		vmbus_remove_device(&d->dev);
	}
	if (first == 0xf3)
		vmbus_offer_subchannels(&d->dev, 2);
	vmbus_send(channel, VMBUS_PACKET_COMPLETION, 0, packet->transaction, &sum, 1);
	return 0;
}

static void dev_room(struct vmbus_channel *channel)
{
	check(vmbus_channel_is_open(channel));
}

static void dev_destroy(struct vmbus_device *device)
{
	struct fuzz_device *d = (struct fuzz_device *)device;

	check(!d->open);
	put_held(d);
	free(d);
}

static const struct vmbus_device_class class = {
	.name = "fuzz",
	.packet_max = 512,
	.monitor_ns = 1000,
	.open = dev_open,
	.close = dev_close,
	.packet = dev_packet,
	.room = dev_room,
	.destroy = dev_destroy,
};

static void add(unsigned int slot)
{
	struct vmbus_guid instance = { { (uint8_t)slot } };
	struct fuzz_device *d = calloc(1, sizeof(*d));

	check(d != NULL);
	d->slot = slot;
	if (vmbus_add_device(fake.bus, &d->dev, &class, &instance))
		free(d);
	else
		devices[slot] = d;
}

/* The guest reads what it was sent. */
static void drain(void)
{
	while (fake.count) {
		const struct fake_message *m = &fake.messages[fake.first];
		struct vmbus_relid_message rescind;
		struct vmbus_offer offer;

		memcpy(&rescind, m->bytes, m->size < sizeof(rescind) ? m->size : sizeof(rescind));
		if (rescind.header.type == VMBUS_OFFER) {
			memcpy(&offer, m->bytes, sizeof(offer));
			check(m->size == sizeof(offer) && offer.relid < VMBUS_CHANNELS && !known[offer.relid]);
			known[offer.relid] = offered[offer.relid] = true;
		}
		if (rescind.header.type == VMBUS_RESCIND)
			check(m->size == sizeof(rescind) && offered[rescind.relid]);
		fake.first = (fake.first + 1) % FAKE_MESSAGES;
		fake.count--;
	}
}

static void send(uint32_t connection, const void *message, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1); /* the sanitizer guards its end */
	struct vmbus_relid_message m = { .relid = 0 };

	check(copy != NULL);
	memcpy(copy, message, size);
	memcpy(&m, message, size < sizeof(m) ? size : sizeof(m));
	if (size >= 8 && size <= VMBUS_MESSAGE_MAX &&
	    (m.header.type == VMBUS_INITIATE_CONTACT || m.header.type == VMBUS_UNLOAD))
		forget_offers();
	if (vmbus_receive(fake.bus, connection, copy, size)) {
		if (m.header.type == VMBUS_INITIATE_CONTACT && size >= 8 && size <= VMBUS_MESSAGE_MAX && fake.room)
			check(fake.count && *(uint32_t *)fake.messages[fake.first].bytes == VMBUS_VERSION_RESPONSE);
		if (m.header.type == VMBUS_RELID_RELEASED && m.relid < VMBUS_CHANNELS && size >= 12 && fake.bus)
			known[m.relid] = false;
	} else {
		check(fake.room == 0);
	}
	free(copy);
	drain();
}

/* What a guest does first, so that inputs need not find it. */
static void start(uint8_t which)
{
	static const uint32_t versions[] = { VMBUS_V0_13, VMBUS_V1_1, VMBUS_V2_4, VMBUS_V4_1, VMBUS_V5_3, VMBUS_V6_0 };
	struct vmbus_contact2 c = { .contact = { .header.type = VMBUS_INITIATE_CONTACT } };
	struct vmbus_header request = { .type = VMBUS_REQUEST_OFFERS };
	struct {
		struct vmbus_gpadl_header header;
		uint8_t words[9 * 8];
	} g = { .header = { .header.type = VMBUS_GPADL_HEADER, .relid = 1, .gpadl = 1, .length = 72, .ranges = 1 } };
	struct vmbus_open2 o = { .open = { .header.type = VMBUS_OPEN, .relid = 1, .gpadl = 1, .downstream = 4 },
				 .connection = 0x2345 };
	uint64_t words[9] = { 8 * VMBUS_PAGE, 8, 9, 10, 11, 12, 13, 14, 15 };

	c.contact.version = versions[which % 6];
	if (c.contact.version < VMBUS_V2_4)
		c.contact.interrupt_page = 0x1000;
	else
		c.contact.target.features = 0x29;
	if (which & 8) {
		c.contact.monitor_page1 = 2 * VMBUS_PAGE;
		c.contact.monitor_page2 = 3 * VMBUS_PAGE;
	}
	send(4, &c, sizeof(c));
	send(1, &request, sizeof(request));
	memset(fake.ram + (size_t)8 * VMBUS_PAGE, 0, 8 * VMBUS_PAGE);
	memcpy(g.words, words, sizeof(words));
	send(1, &g, sizeof(g.header) + 72);
	send(1, &o, sizeof(o));
}

static void host(struct input *in)
{
	uint8_t what = byte(in);
	unsigned int slot = what / 8 % DEVICES;
	struct fuzz_device *d = devices[slot];
	uint8_t payload[256] = { 0 };

	if (!d) {
		add(slot);
		return;
	}
	switch (what % 8) {
	case 0:
		devices[slot] = NULL;
		vmbus_remove_device(&d->dev);
		break;
	case 1:
		vmbus_offer_subchannels(&d->dev, byte(in) % 8);
		break;
	case 2:
		for (unsigned int n = byte(in); n && !vmbus_send(d->dev.channel, 6, 0, 0, payload, n); n--)
			;
		vmbus_flush(d->dev.channel);
		break;
	case 3:
		if (!d->held && vmbus_channel_is_open(d->dev.channel))
			d->held = vmbus_gpadl_get(d->dev.channel, byte(in));
		break;
	case 4:
		put_held(d);
		break;
	case 5:
		if (d->held && !vmbus_gpadl_read(d->held, byte(in), payload, sizeof(payload)))
			check(!vmbus_gpadl_write(d->held, 0, payload, sizeof(payload)));
		break;
	case 6:
		vmbus_fail(d->dev.channel, "as told");
		break;
	default:
		forget_offers();
		vmbus_reset(fake.bus);
	}
}

static void step(struct input *in)
{
	static const uint32_t connections[] = { 0x2001, 0x2002, 2, 0x2345, 0x2003, 0x2004, 0, 0xffffff };
	uint8_t op = byte(in), buffer[300];
	uint32_t at;
	size_t n;

	switch (op % 8) {
	case 0:
	case 1:
		n = byte(in);
		memset(buffer, 0, sizeof(buffer));
		buffer[0] = byte(in);
		send(op & 8 ? 4 : 1, buffer, 4 + bytes(in, buffer + 4, n));
		break;
	case 2:
		at = byte(in) % PAGES * VMBUS_PAGE;
		at += (byte(in) | byte(in) << 8) % (VMBUS_PAGE - 256);
		bytes(in, fake.ram + at, byte(in));
		break;
	case 3:
		if (op & 8)
			vmbus_monitor(fake.bus);
		else
			vmbus_signalled(fake.bus, connections[byte(in) % 8]);
		break;
	case 4:
		fake.room = op & 8 ? -1 : op >> 4;
		vmbus_room(fake.bus);
		break;
	case 5:
		host(in);
		break;
	case 6:
		start(op / 8);
		break;
	default: /* a packet, well formed, then what the input makes of it */
		n = byte(in) & 0x78;
		memset(buffer, 0, sizeof(buffer));
		bytes(in, buffer, n);
		{
			struct fake_ring ring = { fake.ram + 0x8000, fake.ram + 0x9000, 3 * VMBUS_PAGE };

			if (*fake_word(&ring, RING_WRITE) < ring.size && *fake_word(&ring, RING_READ) < ring.size)
				fake_put(&ring, VMBUS_PACKET_INBAND, 1, op, buffer, n);
		}
		vmbus_signalled(fake.bus, op & 8 ? 0x2345 : 0x2001);
	}
	drain();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	fake_setup();
	memset(fake.ram, 0, PAGES * VMBUS_PAGE);
	forget_offers();
	memset(devices, 0, sizeof(devices));
	fake.map_twice = !(size % 8);
	add(0);
	add(1);
	while (in.left)
		step(&in);
	check(fake.lines <= 512 + 64);
	fake_teardown();
	return 0;
}
