/* SPDX-License-Identifier: MIT */
/* A device on the bus over the fake carrier, and the guest's control messages to it, for the tests of the bus. */
#ifndef TESTS_UNIT_VMBUS_BUS_H
#define TESTS_UNIT_VMBUS_BUS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "vmbus_fake.h"

#define BODY_WORDS 28
#define HEAD_WORDS 27 /* 26 pages and the range's length */

struct test_device {
	struct vmbus_device dev;
	unsigned int opens, closes, packets, batches, rooms, resets;
	bool refuse, subchannels, remove_in_packet, fail_in_open, no_completion;
	int packet_result;
	struct vmbus_gpadl *held;
	uint8_t last[64];
};

static unsigned int destroyed; /* devices */

static struct test_device *of(const struct vmbus_channel *channel)
{
	return (struct test_device *)vmbus_channel_device(channel);
}

static int dev_open(struct vmbus_channel *channel)
{
	of(channel)->opens++;
	assert_true(vmbus_channel_is_open(channel));
	assert_null(vmbus_channel_opaque(channel));
	vmbus_channel_set_opaque(channel, channel);
	if (of(channel)->fail_in_open)
		vmbus_fail(channel, "not today");
	return of(channel)->refuse ? -EINVAL : 0;
}

static void dev_close(struct vmbus_channel *channel)
{
	of(channel)->closes++;
	assert_false(vmbus_channel_is_open(channel));
	assert_int_equal(vmbus_send(channel, VMBUS_PACKET_INBAND, 0, 0, "x", 1), -ENOTCONN);
}

static int dev_packet(struct vmbus_channel *channel, const struct vmbus_packet *packet)
{
	struct test_device *d = of(channel);

	d->packets++;
	memcpy(d->last, packet->payload, packet->size < sizeof(d->last) ? packet->size : sizeof(d->last));
	if (d->remove_in_packet) {
		vmbus_remove_device(&d->dev);
		assert_false(vmbus_channel_is_open(channel));
		return 0;
	}
	if (d->packet_result || d->no_completion)
		return d->packet_result;
	return vmbus_send(channel, VMBUS_PACKET_COMPLETION, 0, packet->transaction, packet->payload, packet->size);
}

static void dev_batch_end(struct vmbus_channel *channel)
{
	of(channel)->batches++;
}

static void dev_room(struct vmbus_channel *channel)
{
	of(channel)->rooms++;
}

static void dev_reset(struct vmbus_device *device)
{
	((struct test_device *)device)->resets++;
}

static void dev_destroy(struct vmbus_device *device)
{
	struct test_device *d = (struct test_device *)device;

	destroyed++;
	free(d);
}

static const struct vmbus_device_class test_class = {
	.name = "test",
	.type = VMBUS_GUID(0x01020304, 0x0506, 0x0708, 9, 10, 11, 12, 13, 14, 15, 16),
	.instance = VMBUS_GUID(1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
	.offer_flags = VMBUS_OFFER_PIPE,
	.mmio_megabytes = 3,
	.user_defined = { 4 },
	.packet_max = 2048,
	.open = dev_open,
	.close = dev_close,
	.packet = dev_packet,
	.batch_end = dev_batch_end,
	.room = dev_room,
	.reset = dev_reset,
	.destroy = dev_destroy,
};

static struct test_device *add_class(unsigned int number, const struct vmbus_device_class *class)
{
	struct vmbus_guid instance = { { (uint8_t)number, (uint8_t)(number >> 8) } };
	struct test_device *d = calloc(1, sizeof(*d));

	assert_non_null(d);
	assert_int_equal(vmbus_add_device(fake.bus, &d->dev, class, &instance), 0);
	return d;
}

static struct test_device *add(unsigned int number)
{
	return add_class(number, &test_class);
}

/* The guest's side of control messages. */
static bool post_on(uint32_t connection, const void *message, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1); /* the sanitizer guards its end */
	bool taken;

	memcpy(copy, message, size);
	taken = vmbus_receive(fake.bus, connection, copy, size);
	free(copy);
	return taken;
}

static void post(const void *message, size_t size)
{
	assert_true(post_on(1, message, size));
}

static void post_words(uint32_t type, uint32_t a, uint32_t b, size_t size)
{
	uint32_t words[4] = { type, 0, a, b };

	post(words, size);
}

/* The next message, which must be of this type and size. */
static const void *take(uint32_t type, size_t size)
{
	struct fake_message *m = &fake.messages[fake.first];
	struct vmbus_header header;

	assert_true(fake.count > 0);
	fake.first = (fake.first + 1) % FAKE_MESSAGES;
	fake.count--;
	memcpy(&header, m->bytes, sizeof(header));
	assert_int_equal(header.type, type);
	assert_int_equal(header.padding, 0);
	assert_int_equal(m->size, size);
	return m->bytes;
}

static void take_nothing(void)
{
	assert_int_equal(fake.count, 0);
}

static struct vmbus_contact contact_for(uint32_t version)
{
	return (struct vmbus_contact){ .header.type = VMBUS_INITIATE_CONTACT, .version = version };
}

static void connect_version(uint32_t version)
{
	struct vmbus_contact c = contact_for(version);
	const struct vmbus_version_response *r;

	if (version >= VMBUS_V5_0)
		c.target.sint = 2;
	assert_true(post_on(version >= VMBUS_V5_0 ? 4 : 1, &c, sizeof(c)));
	r = take(VMBUS_VERSION_RESPONSE, version >= VMBUS_V6_0 ? 20 : 16);
	assert_int_equal(r->supported, 1);
}

/* Asks for offers and returns how many there were before ALL_OFFERS. */
static unsigned int take_offers(void)
{
	unsigned int n = 0;
	uint32_t type;

	post_words(VMBUS_REQUEST_OFFERS, 0, 0, 8);
	for (;; n++) {
		assert_true(fake.count > 0);
		memcpy(&type, fake.messages[fake.first].bytes, 4);
		if (type == VMBUS_ALL_OFFERS)
			break;
		take(VMBUS_OFFER, 196);
	}
	take(VMBUS_ALL_OFFERS, 8);
	return n;
}

static void send_header(uint32_t relid, uint32_t handle, unsigned int ranges, unsigned int words, const uint64_t *data,
			unsigned int count)
{
	uint8_t message[VMBUS_MESSAGE_MAX] = { 0 };
	struct vmbus_gpadl_header h = {
		.header.type = VMBUS_GPADL_HEADER,
		.relid = relid,
		.gpadl = handle,
		.length = (uint16_t)(words * 8),
		.ranges = (uint16_t)ranges,
	};

	memcpy(message, &h, sizeof(h));
	memcpy(message + sizeof(h), data, count * 8);
	post(message, sizeof(h) + count * 8);
}

static void send_body(uint32_t handle, const uint64_t *data, unsigned int count)
{
	uint8_t message[VMBUS_MESSAGE_MAX] = { 0 };
	struct vmbus_gpadl_body b = { .header.type = VMBUS_GPADL_BODY, .gpadl = handle };

	memcpy(message, &b, sizeof(b));
	memcpy(message + sizeof(b), data, count * 8);
	post(message, sizeof(b) + count * 8);
}

/* A whole GPADL of pages [first, first + pages); its answer's status. */
static uint32_t create_gpadl(uint32_t relid, uint32_t handle, uint64_t first, unsigned int pages)
{
	unsigned int words = pages + 1, at = words < HEAD_WORDS ? words : HEAD_WORDS;
	uint64_t *data = calloc(words, 8);
	const struct vmbus_gpadl_created *r;

	data[0] = (uint64_t)pages * VMBUS_PAGE;
	for (unsigned int i = 0; i < pages; i++)
		data[i + 1] = first + i;
	send_header(relid, handle, 1, words, data, at);
	while (at < words && !fake.count) { /* a header that is refused is answered at once */
		unsigned int n = words - at < BODY_WORDS ? words - at : BODY_WORDS;

		send_body(handle, data + at, n);
		at += n;
	}
	free(data);
	assert_int_equal(fake.count, 1);
	r = take(VMBUS_GPADL_CREATED, 20);
	assert_int_equal(r->relid, relid);
	assert_int_equal(r->gpadl, handle);
	return r->status;
}

static uint32_t open_with(struct vmbus_open open)
{
	const struct vmbus_open_result *r;

	open.header.type = VMBUS_OPEN;
	open.open_id = 0xabc;
	post(&open, sizeof(open));
	r = take(VMBUS_OPEN_RESULT, 20);
	assert_int_equal(r->relid, open.relid);
	assert_int_equal(r->open_id, 0xabc);
	return r->status;
}

static uint32_t open_channel(uint32_t relid, uint32_t handle, uint32_t vp, uint32_t split)
{
	return open_with((struct vmbus_open){ .relid = relid, .gpadl = handle, .target_vp = vp, .downstream = split });
}

/* Connected, one device, its channel 1 open on VP 1 with rings at page 100: 4 + 4 pages. */
static struct test_device *open_one(uint32_t version, struct fake_rings *rings)
{
	struct test_device *d = add(1);

	connect_version(version);
	assert_int_equal(take_offers(), 1);
	*rings = fake_rings(100, 8, 4);
	assert_int_equal(create_gpadl(1, 7, 100, 8), 0);
	assert_int_equal(open_channel(1, 7, version < VMBUS_V2_4 ? 0 : 1, 4), 0);
	assert_int_equal(d->opens, 1);
	return d;
}

/* The guest unloads, and the device goes. */
static inline void forget(struct test_device *d)
{
	unsigned int before = destroyed;

	post_words(VMBUS_UNLOAD, 0, 0, 8);
	take(VMBUS_UNLOAD_RESPONSE, 8);
	vmbus_remove_device(&d->dev);
	assert_int_equal(destroyed, before + 1);
}

static int setup(void **state)
{
	(void)state;
	destroyed = 0;
	fake_setup();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_teardown();
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	fake_end();
	return 0;
}

#endif
