/* SPDX-License-Identifier: MIT */
/* The bus against a fake carrier: the guest's messages go in, what comes out is looked at byte by byte. */
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
static void forget(struct test_device *d)
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

static void every_version_and_nothing_else(void **state)
{
	static const uint32_t good[] = { 0xd,	  0x10001, 0x20004, 0x30000, 0x40000, 0x40001,
					 0x50000, 0x50001, 0x50002, 0x50003, 0x60000 };
	static const uint32_t bad[] = { 0,	 1,	  0xc,	   0xe,	    0x10000, 0x20000,	 0x20005,
					0x30001, 0x40002, 0x50004, 0x60001, 0x70000, 0x7fffffff, 0xffffffff };

	(void)state;
	for (unsigned int id = 1; id <= 4; id += 3) {
		for (size_t i = 0; i < sizeof(good) / 4; i++) {
			struct vmbus_contact c = contact_for(good[i]);
			const struct vmbus_version_response *r;

			if (good[i] >= 0x50000 && id == 4)
				c.target.sint = 5;
			c.target_vp = good[i] >= 0x30000 ? 3 : 99;
			assert_true(post_on(id, &c, sizeof(c)));
			r = take(VMBUS_VERSION_RESPONSE, good[i] == 0x60000 ? 20 : 16);
			assert_int_equal(r->supported, 1);
			assert_int_equal(r->state, 0);
			assert_int_equal(r->connection, good[i] >= 0x50000 ? id : good[i]);
			assert_int_equal(fake.messages[fake.first - 1].vp, good[i] >= 0x30000 ? 3 : 0);
			assert_int_equal(fake.messages[fake.first - 1].sint, good[i] >= 0x50000 && id == 4 ? 5 : 2);
		}
		for (size_t i = 0; i < sizeof(bad) / 4; i++) {
			struct vmbus_contact c = contact_for(bad[i]);
			const struct vmbus_version_response *r;

			assert_true(post_on(id, &c, sizeof(c)));
			r = take(VMBUS_VERSION_RESPONSE, 16);
			assert_int_equal(r->supported, 0);
			post_words(VMBUS_REQUEST_OFFERS, 0, 0, 8);
			take_nothing();
		}
	}
}

static void contact_refused(struct vmbus_contact c, size_t size)
{
	const struct vmbus_version_response *r;

	assert_true(post_on(4, &c, size));
	r = take(VMBUS_VERSION_RESPONSE, 16);
	assert_int_equal(r->supported, 0);
	post_words(VMBUS_REQUEST_OFFERS, 0, 0, 8);
	take_nothing();
}

static void impossible_contacts_are_refused(void **state)
{
	struct vmbus_contact c = contact_for(VMBUS_V5_3);

	(void)state;
	c.target_vp = FAKE_VPS;
	contact_refused(c, sizeof(c));
	c = contact_for(VMBUS_V5_3);
	c.target.sint = 16;
	contact_refused(c, sizeof(c));
	c = contact_for(VMBUS_V5_3);
	c.target.vtl = 2;
	contact_refused(c, sizeof(c));
	c = contact_for(VMBUS_V5_3);
	contact_refused(c, sizeof(c) - 1);
	contact_refused(c, 8);
	c = contact_for(VMBUS_V1_1);
	c.interrupt_page = 0x1001;
	contact_refused(c, sizeof(c));
	c.interrupt_page = FAKE_RAM;
	contact_refused(c, sizeof(c));
	c.interrupt_page = 0x1000;
	fake.refuse_connect = true;
	contact_refused(c, sizeof(c));
	fake.refuse_connect = false;
	c = contact_for(VMBUS_V6_0);
	c.target.features = VMBUS_FEATURE_CLIENT_ID;
	contact_refused(c, sizeof(c));
	connect_version(VMBUS_V5_3);
}

static void version_6_grants_what_there_is(void **state)
{
	struct vmbus_contact2 c = { .contact = contact_for(VMBUS_V6_0) };
	const struct vmbus_version_response2 *r;

	(void)state;
	c.contact.target.features = 0xffffffff;
	c.contact.target.sint = 2;
	assert_true(post_on(4, &c, sizeof(c)));
	r = take(VMBUS_VERSION_RESPONSE, 20);
	assert_int_equal(r->response.supported, 1);
	assert_int_equal(r->features, 0x29);
}

static void pause_and_resume(void **state)
{
	struct vmbus_contact2 c = { .contact = contact_for(VMBUS_V6_0) };

	(void)state;
	add(1);
	c.contact.target.features = VMBUS_FEATURE_PAUSE;
	assert_true(post_on(4, &c, sizeof(c)));
	take(VMBUS_VERSION_RESPONSE, 20);
	assert_int_equal(take_offers(), 1);
	post_words(VMBUS_PAUSE, 0, 0, 8);
	take(VMBUS_PAUSE_RESPONSE, 8);
	add(2);
	post_words(VMBUS_GPADL_HEADER, 1, 1, 16);
	take_nothing();
	post_words(VMBUS_RESUME, 0, 0, 8);
	take(VMBUS_OFFER, 196);
	take_nothing();
	post_words(VMBUS_PAUSE, 0, 0, 8);
	take(VMBUS_PAUSE_RESPONSE, 8);
	post_words(VMBUS_UNLOAD, 0, 0, 8);
	take(VMBUS_UNLOAD_RESPONSE, 8);
	/* Not granted, not there. */
	connect_version(VMBUS_V6_0);
	post_words(VMBUS_PAUSE, 0, 0, 8);
	take_nothing();
}

static void guest_chooses_its_signals(void **state)
{
	struct vmbus_contact2 c = { .contact = contact_for(VMBUS_V6_0) };
	struct vmbus_open2 o = { .open = { .header.type = VMBUS_OPEN, .gpadl = 7, .downstream = 4, .relid = 1 } };
	static const uint32_t taken[] = { 0, 1, 2, 3, 4, 0x1000000, 0xffffffff };
	struct test_device *d = add(1);
	struct fake_rings rings;
	uint64_t payload = 1;

	(void)state;
	c.contact.target.features = VMBUS_FEATURE_GUEST_SIGNAL;
	c.contact.target.sint = 2;
	assert_true(post_on(4, &c, sizeof(c)));
	take(VMBUS_VERSION_RESPONSE, 20);
	take_offers();
	rings = fake_rings(100, 8, 4);
	assert_int_equal(create_gpadl(1, 7, 100, 8), 0);
	post(&o, sizeof(o.open));
	assert_int_not_equal(((const struct vmbus_open_result *)take(VMBUS_OPEN_RESULT, 20))->status, 0);
	for (size_t i = 0; i < sizeof(taken) / 4; i++) {
		o.connection = taken[i];
		post(&o, sizeof(o));
		assert_int_not_equal(((const struct vmbus_open_result *)take(VMBUS_OPEN_RESULT, 20))->status, 0);
	}
	o.connection = 0x12345;
	o.event_flag = VMBUS_CHANNELS;
	post(&o, sizeof(o));
	assert_int_not_equal(((const struct vmbus_open_result *)take(VMBUS_OPEN_RESULT, 20))->status, 0);
	o.event_flag = 77;
	post(&o, sizeof(o));
	assert_int_equal(((const struct vmbus_open_result *)take(VMBUS_OPEN_RESULT, 20))->status, 0);
	assert_true(fake_put(&rings.to_host, VMBUS_PACKET_INBAND, 0, 5, &payload, 8));
	vmbus_signalled(fake.bus, 0x2001);
	assert_int_equal(d->packets, 0);
	vmbus_signalled(fake.bus, 0x12345);
	assert_int_equal(d->packets, 1);
	assert_int_equal(fake.flag, 77);
}

static void offers_say_what_the_device_is(void **state)
{
	const struct vmbus_offer *o;

	(void)state;
	add(1);
	add(0x203);
	connect_version(VMBUS_V5_3);
	take_nothing();
	post_words(VMBUS_REQUEST_OFFERS, 0, 0, 8);
	o = take(VMBUS_OFFER, 196);
	assert_memory_equal(&o->type, &test_class.type, 16);
	assert_int_equal(o->instance.b[0], 1);
	assert_int_equal(o->flags, 0x10);
	assert_int_equal(o->mmio_megabytes, 3);
	assert_int_equal(o->user_defined[0], 4);
	assert_int_equal(o->subchannel, 0);
	assert_int_equal(o->relid, 1);
	assert_int_equal(o->monitor_allocated, 0);
	assert_int_equal(o->dedicated, 1);
	assert_int_equal(o->connection, 0x2001);
	o = take(VMBUS_OFFER, 196);
	assert_int_equal(o->instance.b[1], 2);
	assert_int_equal(o->relid, 2);
	take(VMBUS_ALL_OFFERS, 8);
	post_words(VMBUS_REQUEST_OFFERS, 0, 0, 8);
	take_nothing();
}

/* With room for one, two, ... messages at a time everything arrives in the same order. */
static void room_for_few_messages_changes_no_order(void **state)
{
	(void)state;
	for (unsigned int i = 1; i <= 10; i++)
		add(i);
	for (int step = 1; step <= 12; step++) {
		struct vmbus_contact c = contact_for(VMBUS_V4_1);

		fake.room = 0;
		post(&c, sizeof(c));
		post_words(VMBUS_REQUEST_OFFERS, 0, 0, 8);
		take_nothing();
		for (int sent = 0; sent < 12; sent += step) {
			fake.room = step;
			vmbus_room(fake.bus);
			assert_int_equal(fake.count, sent + step < 12 ? sent + step : 12);
		}
		take(VMBUS_VERSION_RESPONSE, 16);
		for (unsigned int relid = 1; relid <= 10; relid++) {
			const struct vmbus_offer *o = take(VMBUS_OFFER, 196);

			assert_int_equal(o->relid, relid);
			assert_int_equal(o->instance.b[0], relid);
		}
		take(VMBUS_ALL_OFFERS, 8);
		take_nothing();
	}
}

static void full_queue_takes_no_more(void **state)
{
	uint32_t header[5] = { VMBUS_GPADL_HEADER, 0, 1, 0, 0 };
	struct vmbus_contact c = contact_for(VMBUS_V4_1);
	unsigned int taken = 0;

	(void)state;
	add(1);
	connect_version(VMBUS_V4_1);
	take_offers();
	fake.room = 0;
	for (header[3] = 1; post_on(1, header, sizeof(header)); header[3]++)
		assert_true(++taken <= 1000);
	assert_true(taken > 0);
	fake.room = 1;
	vmbus_room(fake.bus);
	assert_true(post_on(1, header, sizeof(header)));
	header[3]++;
	assert_false(post_on(1, header, sizeof(header)));
	fake.room = -1;
	vmbus_room(fake.bus);
	for (unsigned int i = 1; i <= taken + 1; i++) {
		const struct vmbus_gpadl_created *r = take(VMBUS_GPADL_CREATED, 20);

		assert_int_equal(r->gpadl, i);
		assert_int_not_equal(r->status, 0);
	}
	take_nothing();
	/* A new contact does not wait for a guest that is gone. */
	fake.room = 0;
	while (post_on(1, header, sizeof(header)))
		;
	assert_true(post_on(1, &c, sizeof(c)));
	fake.room = -1;
	vmbus_room(fake.bus);
	take(VMBUS_VERSION_RESPONSE, 16);
	take_nothing();
}

static void relids_stay_across_resets(void **state)
{
	struct test_device *second;

	(void)state;
	add(1);
	second = add(2);
	add(3);
	vmbus_remove_device(&second->dev);
	assert_int_equal(destroyed, 1);
	for (int i = 0; i < 4; i++) {
		connect_version(VMBUS_V3_0);
		post_words(VMBUS_REQUEST_OFFERS, 0, 0, 8);
		assert_int_equal(((const struct vmbus_offer *)take(VMBUS_OFFER, 196))->relid, 1);
		assert_int_equal(((const struct vmbus_offer *)take(VMBUS_OFFER, 196))->relid, 3);
		take(VMBUS_ALL_OFFERS, 8);
		if (i & 1)
			vmbus_reset(fake.bus);
	}
}

static void hot_add_and_remove(void **state)
{
	struct test_device *a, *b;
	struct vmbus_guid instance = { { 1 } };
	struct test_device twin;

	(void)state;
	a = add(1);
	assert_int_equal(vmbus_add_device(fake.bus, &twin.dev, &test_class, &instance), -EEXIST);
	assert_int_equal(vmbus_add_device(fake.bus, &twin.dev, &test_class, NULL), -EEXIST);
	assert_ptr_equal(vmbus_find_device(fake.bus, "test"), a);
	assert_null(vmbus_find_device(fake.bus, "tes"));
	connect_version(VMBUS_V5_2);
	assert_int_equal(take_offers(), 1);
	b = add(2);
	assert_int_equal(((const struct vmbus_offer *)take(VMBUS_OFFER, 196))->relid, 2);
	take_nothing();

	vmbus_remove_device(&a->dev);
	vmbus_remove_device(&a->dev);
	assert_int_equal(((const struct vmbus_relid_message *)take(VMBUS_RESCIND, 12))->relid, 1);
	take_nothing();
	assert_ptr_equal(vmbus_find_device(fake.bus, "test"), b);
	/* The same again, while the guest still has the old one: another relid. */
	add(1);
	assert_int_equal(((const struct vmbus_offer *)take(VMBUS_OFFER, 196))->relid, 3);
	assert_int_equal(destroyed, 0);
	assert_int_not_equal(open_channel(1, 7, 0, 4), 0);
	post_words(VMBUS_CLOSE, 1, 0, 12);
	post_words(VMBUS_RELID_RELEASED, 1, 0, 12);
	assert_int_equal(destroyed, 1);
	post_words(VMBUS_RELID_RELEASED, 1, 0, 12);
	add(4);
	assert_int_equal(((const struct vmbus_offer *)take(VMBUS_OFFER, 196))->relid, 1);
	take_nothing();
}

static void offer_comes_before_rescind_and_old_before_new(void **state)
{
	struct test_device *a, *b;

	(void)state;
	a = add(1);
	b = add(2);
	connect_version(VMBUS_V5_2);
	fake.room = 1;
	post_words(VMBUS_REQUEST_OFFERS, 0, 0, 8);
	assert_int_equal(((const struct vmbus_offer *)take(VMBUS_OFFER, 196))->relid, 1);
	vmbus_remove_device(&b->dev); /* never offered: nothing to say */
	assert_int_equal(destroyed, 1);
	vmbus_remove_device(&a->dev);
	add(1);
	assert_int_equal(destroyed, 1);
	fake.room = -1;
	vmbus_room(fake.bus);
	assert_int_equal(((const struct vmbus_relid_message *)take(VMBUS_RESCIND, 12))->relid, 1);
	assert_int_equal(((const struct vmbus_offer *)take(VMBUS_OFFER, 196))->relid, 2);
	take(VMBUS_ALL_OFFERS, 8);
	take_nothing();
	/* A guest that is gone will not release it: a new contact does. */
	connect_version(VMBUS_V5_2);
	assert_int_equal(destroyed, 2);
	assert_int_equal(take_offers(), 1);
	/* Released before it has heard of the rescind. */
	b = add(3);
	take(VMBUS_OFFER, 196);
	fake.room = 0;
	vmbus_remove_device(&b->dev);
	post_words(VMBUS_RELID_RELEASED, (uint32_t)1, 0, 12);
	assert_int_equal(destroyed, 3);
	fake.room = -1;
	vmbus_room(fake.bus);
	take_nothing();
}

static void released_unasked_is_offered_at_the_next_contact(void **state)
{
	struct fake_rings rings;

	(void)state;
	open_one(VMBUS_V5_3, &rings);
	post_words(VMBUS_RELID_RELEASED, 1, 0, 12); /* it is open */
	post_words(VMBUS_CLOSE, 1, 0, 12);
	post_words(VMBUS_RELID_RELEASED, 1, 0, 12);
	assert_int_not_equal(open_channel(1, 7, 0, 4), 0);
	take_nothing();
	connect_version(VMBUS_V5_3);
	assert_int_equal(take_offers(), 1);
}

static void channels_run_out(void **state)
{
	struct vmbus_guid instance = { { 1, 1, 1 } };
	struct test_device spare;

	(void)state;
	for (unsigned int i = 1; i < VMBUS_CHANNELS; i++)
		add(i);
	assert_int_equal(vmbus_add_device(fake.bus, &spare.dev, &test_class, &instance), -ENOSPC);
	connect_version(VMBUS_V5_3);
	assert_int_equal(take_offers(), 2047);
}

static void gpadls_of_many_sizes(void **state)
{
	static const unsigned int sizes[] = { 1, 2, 25, 26, 27, 54, 55, 4095, 4096, 4097, 8190 };

	(void)state;
	add(1);
	connect_version(VMBUS_V5_3);
	take_offers();
	for (uint32_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		assert_int_equal(create_gpadl(1, i, 10, sizes[i]), 0);
		assert_int_not_equal(create_gpadl(1, i, 10, 1), 0); /* the number is taken */
		post_words(VMBUS_GPADL_TEARDOWN, 1, i, 16);
		assert_int_equal(((const struct vmbus_gpadl_torndown *)take(VMBUS_GPADL_TORNDOWN, 12))->gpadl, i);
		post_words(VMBUS_GPADL_TEARDOWN, 1, i, 16);
		take_nothing();
		assert_int_equal(create_gpadl(1, i, 10, 1), 0);
	}
}

static void bodies_in_any_order(void **state)
{
	uint64_t data[2][60];
	const struct vmbus_gpadl_created *r;

	(void)state;
	add(1);
	add(2);
	connect_version(VMBUS_V5_3);
	take_offers();
	for (int g = 0; g < 2; g++) {
		data[g][0] = 54 * VMBUS_PAGE;
		for (unsigned int i = 1; i < 60; i++)
			data[g][i] = i;
	}
	send_body(1, data[0] + 27, 28); /* before its header */
	take_nothing();
	/* Two at once; one number may be built only once at a time, for whatever channel. */
	send_header(1, 1, 1, 55, data[0], 27);
	send_header(1, 2, 1, 55, data[1], 27);
	take_nothing();
	for (uint32_t relid = 1; relid <= 2; relid++) {
		send_header(relid, 1, 1, 55, data[0], 27);
		r = take(VMBUS_GPADL_CREATED, 20);
		assert_int_equal(r->relid, relid);
		assert_int_not_equal(r->status, 0);
	}
	send_body(2, data[1] + 27, 10);
	send_body(1, data[0] + 27, 28);
	r = take(VMBUS_GPADL_CREATED, 20);
	assert_int_equal(r->gpadl, 1);
	assert_int_equal(r->status, 0);
	send_body(1, data[0] + 27, 28); /* one too many */
	take_nothing();
	send_body(2, data[1] + 37, 0);	/* empty */
	send_body(2, data[1] + 37, 23); /* more than is missing */
	r = take(VMBUS_GPADL_CREATED, 20);
	assert_int_equal(r->gpadl, 2);
	assert_int_equal(r->status, 0);
	/* Missing bodies: no answer, but it can be torn down. */
	send_header(1, 3, 1, 55, data[0], 27);
	send_body(3, data[0] + 27, 27);
	take_nothing();
	post_words(VMBUS_GPADL_TEARDOWN, 1, 3, 16);
	take(VMBUS_GPADL_TORNDOWN, 12);
	/* Two torn down while there is no room, one of them just before the end of the connection. */
	fake.room = 0;
	post_words(VMBUS_GPADL_TEARDOWN, 1, 2, 16);
	post_words(VMBUS_GPADL_TEARDOWN, 1, 1, 16);
	fake.room = 1;
	vmbus_room(fake.bus);
	assert_int_equal(((const struct vmbus_gpadl_torndown *)take(VMBUS_GPADL_TORNDOWN, 12))->gpadl, 2);
	fake.room = -1;
	connect_version(VMBUS_V5_3);
	take_offers();
	/* Left unfinished for the end of the test. */
	send_header(1, 4, 1, 55, data[0], 27);
	take_nothing();
}

static void gpadl_refused(unsigned int ranges, unsigned int words, uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t data[3] = { a, b, c };
	const struct vmbus_gpadl_created *r;

	send_header(1, 9, ranges, words, data, 3);
	r = take(VMBUS_GPADL_CREATED, 20);
	assert_int_not_equal(r->status, 0);
	assert_int_equal(r->relid, 1);
	assert_int_equal(r->gpadl, 9);
}

static void impossible_gpadls_are_refused(void **state)
{
	(void)state;
	add(1);
	connect_version(VMBUS_V5_3);
	take_offers();
	gpadl_refused(0, 2, VMBUS_PAGE, 1, 0);
	gpadl_refused(1, 1, VMBUS_PAGE, 1, 0);
	gpadl_refused(1, 0, VMBUS_PAGE, 1, 0);
	gpadl_refused(2, 3, VMBUS_PAGE, 1, VMBUS_PAGE);
	gpadl_refused(0xffff, 3, VMBUS_PAGE, 1, 1);
	gpadl_refused(1, 2, 0, 1, 0);
	gpadl_refused(1, 2, VMBUS_PAGE + 1, 1, 0);
	gpadl_refused(1, 3, 2 * VMBUS_PAGE | 1ull << 32, 1, 2);
	gpadl_refused(1, 3, 0xffffffff, 1, 2);
	gpadl_refused(1, 3, VMBUS_PAGE | 0x1000ull << 32, 1, 2);
	gpadl_refused(1, 3, VMBUS_PAGE | 0xffffffffull << 32, 1, 2);
	gpadl_refused(1, 2, VMBUS_PAGE, FAKE_PAGES, 0);
	gpadl_refused(1, 2, VMBUS_PAGE, 1ull << 52, 0);
	gpadl_refused(1, 2, VMBUS_PAGE, UINT64_MAX, 0);
	assert_int_not_equal(create_gpadl(2, 9, 1, 1), 0);
	assert_int_not_equal(create_gpadl(0, 9, 1, 1), 0);
	assert_int_not_equal(create_gpadl(0xffffffff, 9, 1, 1), 0);
	assert_int_equal(create_gpadl(1, 9, 1, 1), 0);
}

static void gpadls_are_limited_in_number_and_pages(void **state)
{
	uint32_t handle = 0, few;

	(void)state;
	add(1);
	connect_version(VMBUS_V5_3);
	take_offers();
	while (!create_gpadl(1, handle, 1, 8190))
		handle++;
	assert_int_equal(handle, (1280 << 20) / VMBUS_PAGE / 8191);
	post_words(VMBUS_GPADL_TEARDOWN, 1, 0, 16);
	take(VMBUS_GPADL_TORNDOWN, 12);
	assert_int_equal(create_gpadl(1, 0, 1, 8190), 0);
	connect_version(VMBUS_V5_3);
	take_offers();
	for (few = 0; !create_gpadl(1, few, 1, 1);)
		few++;
	assert_int_equal(few, 8192);
}

static void gpadl_contents(void **state)
{
	/* 0x20 bytes from 0xff0 of page 5 on, over to page 9; then one page. */
	uint64_t data[] = { 0x20 | 0xff0ull << 32, 5, 9, VMBUS_PAGE, 7 };
	struct fake_rings rings;
	struct test_device *d = open_one(VMBUS_V5_3, &rings);
	struct vmbus_gpadl *g;
	uint8_t bytes[64];

	(void)state;
	send_header(1, 30, 2, 5, data, 5);
	assert_int_equal(((const struct vmbus_gpadl_created *)take(VMBUS_GPADL_CREATED, 20))->status, 0);
	assert_null(vmbus_gpadl_get(d->dev.channel, 31));
	g = vmbus_gpadl_get(d->dev.channel, 30);
	assert_non_null(g);
	assert_int_equal(vmbus_gpadl_size(g), 0x1020);
	memset(fake.ram + 0x5ff0, 'a', 16);
	memset(fake.ram + 0x9000, 'b', 16);
	memset(fake.ram + 0x7000, 'c', 4096);
	assert_int_equal(vmbus_gpadl_read(g, 8, bytes, 40), 0);
	assert_memory_equal(bytes, "aaaaaaaabbbbbbbbbbbbbbbbcccccccccccccccc", 40);
	assert_int_equal(vmbus_gpadl_write(g, 14, "0123456789abcdefghijkl", 22), 0);
	assert_memory_equal(fake.ram + 0x5ffe, "01", 2);
	assert_memory_equal(fake.ram + 0x9000, "23456789abcdefgh", 16);
	assert_memory_equal(fake.ram + 0x7000, "ijklc", 5);
	assert_int_equal(vmbus_gpadl_read(g, 0x21, bytes, 8), 0);
	assert_memory_equal(bytes, "jklccccc", 8);
	assert_int_equal(vmbus_gpadl_read(g, 0x1020, bytes, 0), 0);
	assert_int_equal(vmbus_gpadl_read(g, 0x1020, bytes, 1), -EINVAL);
	assert_int_equal(vmbus_gpadl_read(g, 0x1000, bytes, 0x21), -EINVAL);
	assert_int_equal(vmbus_gpadl_read(g, SIZE_MAX, bytes, 2), -EINVAL);
	/* While it is held, a teardown waits, and nobody else gets it. */
	post_words(VMBUS_GPADL_TEARDOWN, 1, 30, 16);
	post_words(VMBUS_GPADL_TEARDOWN, 1, 30, 16);
	take_nothing();
	assert_null(vmbus_gpadl_get(d->dev.channel, 30));
	vmbus_gpadl_put(g);
	take(VMBUS_GPADL_TORNDOWN, 12);
	take_nothing();
	/* Held beyond the connection's end. */
	assert_int_equal(create_gpadl(1, 31, 1, 1), 0);
	g = vmbus_gpadl_get(d->dev.channel, 31);
	connect_version(VMBUS_V5_3);
	assert_int_equal(vmbus_gpadl_read(g, 0, bytes, 1), 0);
	vmbus_gpadl_put(g);
	take_nothing();
}

static void teardown_of_open_rings_waits_for_close(void **state)
{
	struct fake_rings rings;

	(void)state;
	open_one(VMBUS_V5_3, &rings);
	post_words(VMBUS_GPADL_TEARDOWN, 1, 7, 16);
	take_nothing();
	post_words(VMBUS_CLOSE, 1, 0, 12);
	take(VMBUS_GPADL_TORNDOWN, 12);
	take_nothing();
}

static void packets_go_both_ways(void **state)
{
	struct fake_rings rings;
	struct test_device *d;
	uint64_t payload[4] = { 1, 2, 3, 4 }, back[4], transaction;
	uint16_t type;

	(void)state;
	for (int twice = 0; twice < 2; twice++) {
		fake.map_twice = twice;
		d = open_one(VMBUS_V5_3, &rings);
		assert_int_equal(fake.maps, twice ? 2 : 0);
		assert_int_equal(fake.connected, 1);
		for (unsigned int i = 0; i < 1000; i++) {
			unsigned int signals = fake.signals;

			payload[0] = i;
			for (unsigned int j = 0; j < 3; j++)
				assert_true(fake_put(&rings.to_host, VMBUS_PACKET_INBAND, 1, i * 3 + j, payload, 32));
			vmbus_signalled(fake.bus, 0x2001);
			assert_int_equal(d->packets, 3 * (i + 1));
			assert_int_equal(d->batches, i + 2);
			assert_int_equal(fake.signals, signals + 1);
			for (unsigned int j = 0; j < 3; j++) {
				assert_int_equal(fake_get(&rings.to_guest, &type, &transaction, back, 32), 32);
				assert_int_equal(type, VMBUS_PACKET_COMPLETION);
				assert_int_equal(transaction, i * 3 + j);
				assert_memory_equal(back, payload, 32);
			}
		}
		assert_int_equal(fake.vp, 1);
		assert_int_equal(fake.sint, 2);
		assert_int_equal(fake.flag, 1);
		vmbus_signalled(fake.bus, 0x2002);
		vmbus_signalled(fake.bus, 0x2000);
		vmbus_signalled(fake.bus, 0);
		vmbus_signalled(fake.bus, 0xffffff);
		post_words(VMBUS_CLOSE, 1, 0, 12);
		assert_int_equal(d->closes, 1);
		vmbus_signalled(fake.bus, 0x2001);
		forget(d);
	}
}

static void packets_from_before_the_open(void **state)
{
	struct test_device *d = add(1);
	struct fake_rings rings = fake_rings(100, 8, 4);
	uint64_t payload = 1;

	(void)state;
	connect_version(VMBUS_V5_3);
	take_offers();
	assert_int_equal(create_gpadl(1, 7, 100, 8), 0);
	assert_true(fake_put(&rings.to_host, VMBUS_PACKET_INBAND, 0, 1, &payload, 8));
	assert_int_equal(open_channel(1, 7, 1, 4), 0);
	assert_int_equal(d->packets, 1);
}

/* A device that gets no room is told of it, and a guest that keeps the ring full does not keep the loop. */
static void room_and_turns(void **state)
{
	struct fake_rings rings;
	struct test_device *d = open_one(VMBUS_V5_3, &rings);
	uint64_t payload[128] = { 0 }, transaction;
	unsigned int sent = 0, turns = 0;
	uint16_t type;

	(void)state;
	while (!vmbus_send(d->dev.channel, VMBUS_PACKET_INBAND, 0, sent, payload, sizeof(payload)))
		sent++;
	assert_int_equal(sent, 3 * VMBUS_PAGE / (24 + 1024));
	assert_int_equal(vmbus_send(d->dev.channel, 6, 0, 0, payload, 1 << 20), -EMSGSIZE);
	vmbus_flush(d->dev.channel);
	vmbus_signalled(fake.bus, 0x2001);
	assert_int_equal(d->rooms, 0);
	while (fake_get(&rings.to_guest, &type, &transaction, payload, sizeof(payload)) >= 0)
		;
	vmbus_signalled(fake.bus, 0x2001);
	assert_int_equal(d->rooms, 1);
	vmbus_signalled(fake.bus, 0x2001);
	assert_int_equal(d->rooms, 1);

	d->no_completion = true;
	while (fake_put(&rings.to_host, VMBUS_PACKET_INBAND, 0, 0, payload, 8))
		;
	vmbus_signalled(fake.bus, 0x2001);
	assert_int_equal(d->packets, (3 * VMBUS_PAGE - 1) / 32);
	while (fake.again) {
		assert_int_equal(fake.again_connection, 0x2001);
		assert_int_equal(*fake_word(&rings.to_host, RING_MASK), 1);
		fake.again = 0;
		turns++;
		vmbus_signalled(fake.bus, 0x2001);
	}
	assert_true(turns <= 1);
	assert_int_equal(*fake_word(&rings.to_host, RING_MASK), 0);
}

/* Refills the ring from within, as another VP of the guest may. */
static struct fake_rings endless_rings;

static int endless_packet(struct vmbus_channel *channel, const struct vmbus_packet *packet)
{
	uint64_t payload[8] = { 0 };

	(void)packet;
	of(channel)->packets++;
	/* It does not care what we have not read yet, nor who owns that index. */
	*fake_word(&endless_rings.to_host, RING_READ) = *fake_word(&endless_rings.to_host, RING_WRITE);
	fake_put(&endless_rings.to_host, VMBUS_PACKET_INBAND, 0, 0, payload, sizeof(payload));
	return 0;
}

static void endless_packets_take_turns(void **state)
{
	struct vmbus_device_class class = test_class;
	struct test_device *d = calloc(1, sizeof(*d));
	uint64_t payload[8] = { 0 };

	(void)state;
	class.packet = endless_packet;
	assert_int_equal(vmbus_add_device(fake.bus, &d->dev, &class, NULL), 0);
	connect_version(VMBUS_V5_3);
	take_offers();
	endless_rings = fake_rings(100, 8, 4);
	assert_int_equal(create_gpadl(1, 7, 100, 8), 0);
	assert_int_equal(open_channel(1, 7, 1, 4), 0);
	fake_put(&endless_rings.to_host, VMBUS_PACKET_INBAND, 0, 0, payload, sizeof(payload));
	for (unsigned int i = 1; i < 10; i++) {
		vmbus_signalled(fake.bus, 0x2001);
		assert_int_equal(fake.again, i);
		assert_in_range(d->packets, i * 3 * VMBUS_PAGE / 88, i * (3 * VMBUS_PAGE / 88 + 1));
	}
	vmbus_destroy(fake.bus); /* before the class goes */
	fake.bus = NULL;
}

static void open_close_a_thousand_times(void **state)
{
	struct fake_rings rings;
	struct test_device *d = open_one(VMBUS_V5_3, &rings);

	(void)state;
	for (unsigned int i = 0; i < 1000; i++) {
		uint64_t payload = i;

		assert_true(fake_put(&rings.to_host, VMBUS_PACKET_INBAND, 0, 1, &payload, 8));
		vmbus_signalled(fake.bus, 0x2001);
		post_words(VMBUS_CLOSE, 1, 0, 12);
		assert_int_equal(d->closes, i + 1);
		assert_int_equal(d->packets, i + 1);
		if (i & 1) {
			post_words(VMBUS_GPADL_TEARDOWN, 1, 7, 16);
			take(VMBUS_GPADL_TORNDOWN, 12);
			assert_int_equal(create_gpadl(1, 7, 100, 8), 0);
		}
		rings = fake_rings(100, 8, 4);
		assert_int_equal(open_channel(1, 7, i % FAKE_VPS, 4), 0);
	}
	take_nothing();
	assert_int_equal(fake.lines, 0);
}

static void impossible_opens_are_refused(void **state)
{
	struct fake_rings rings;
	struct test_device *d = open_one(VMBUS_V5_3, &rings);
	uint64_t odd[] = { 8 * VMBUS_PAGE - 1, 100, 101, 102, 103, 104, 105, 106, 107 };
	static const uint32_t splits[] = { 0, 1, 7, 8, 9, 0xffffffff };
	struct vmbus_open o = { .header.type = VMBUS_OPEN, .relid = 1, .open_id = 3 };

	(void)state;
	assert_int_not_equal(open_channel(1, 7, 1, 4), 0); /* open */
	post_words(VMBUS_CLOSE, 1, 0, 12);
	post_words(VMBUS_CLOSE, 1, 0, 12);
	assert_int_not_equal(open_channel(0, 7, 1, 4), 0);
	assert_int_not_equal(open_channel(2, 7, 1, 4), 0);
	assert_int_not_equal(open_channel(0xffffffff, 7, 1, 4), 0);
	assert_int_not_equal(open_channel(1, 8, 1, 4), 0);
	assert_int_not_equal(open_channel(1, 7, FAKE_VPS, 4), 0);
	assert_int_not_equal(open_channel(1, 7, 0xfffffffe, 4), 0);
	for (size_t i = 0; i < sizeof(splits) / 4; i++)
		assert_int_not_equal(open_channel(1, 7, 1, splits[i]), 0);
	send_header(1, 8, 1, 9, odd, 9);
	take(VMBUS_GPADL_CREATED, 20);
	assert_int_not_equal(open_channel(1, 8, 1, 4), 0);
	post(&o, 20);
	assert_int_not_equal(((const struct vmbus_open_result *)take(VMBUS_OPEN_RESULT, 20))->status, 0);
	*fake_word(&rings.to_host, RING_WRITE) = 4;
	assert_int_not_equal(open_channel(1, 7, 1, 4), 0);
	*fake_word(&rings.to_host, RING_WRITE) = 0;
	fake.refuse_connect = true;
	assert_int_not_equal(open_channel(1, 7, 1, 4), 0);
	fake.refuse_connect = false;
	assert_int_equal(d->opens, 1);
	d->refuse = true;
	assert_int_not_equal(open_channel(1, 7, 1, 4), 0);
	d->refuse = false;
	d->fail_in_open = true;
	assert_int_not_equal(open_channel(1, 7, 1, 4), 0);
	d->refuse = true;
	assert_int_not_equal(open_channel(1, 7, 1, 4), 0);
	assert_int_equal(d->closes, 2);
	d->fail_in_open = d->refuse = false;
	post_words(VMBUS_GPADL_TEARDOWN, 1, 8, 16); /* nobody holds it */
	take(VMBUS_GPADL_TORNDOWN, 12);
	/* No interrupts at all are fine. */
	assert_int_equal(open_channel(1, 7, VMBUS_VP_NONE, 4), 0);
	assert_int_equal(vmbus_send(d->dev.channel, 6, 0, 0, "12345678", 8), 0);
	vmbus_flush(d->dev.channel);
	assert_int_equal(fake.signals, 0);
	assert_memory_equal(vmbus_channel_user_data(d->dev.channel), o.user_data, 120);
}

static void broken_rings_fail_the_channel(void **state)
{
	struct fake_rings rings;
	struct test_device *d = open_one(VMBUS_V5_3, &rings);
	static const uint64_t big[300];

	(void)state;
	for (unsigned int how = 0; how < 4; how++) {
		unsigned int lines = fake.lines;

		if (how == 0)
			*fake_word(&rings.to_host, RING_WRITE) = 0xfffffff8;
		else if (how == 1)
			assert_true(fake_put(&rings.to_host, VMBUS_PACKET_INBAND, 0, 0, big, sizeof(big)));
		else
			assert_true(fake_put(&rings.to_host, VMBUS_PACKET_INBAND, 0, 0, big, 8));
		d->packet_result = how == 2 ? -EPROTO : 0;
		if (how == 3)
			*fake_word(&rings.to_guest, RING_READ) = 3;
		vmbus_signalled(fake.bus, 0x2001);
		assert_int_equal(fake.lines, lines + 1);
		assert_int_equal(d->closes, how + 1);
		assert_false(vmbus_channel_is_open(d->dev.channel));
		assert_int_equal(fake.connected, 0);
		vmbus_signalled(fake.bus, 0x2001);
		assert_int_not_equal(open_channel(1, 7, 1, 4), 0);
		post_words(VMBUS_CLOSE, 1, 0, 12);
		assert_int_equal(d->closes, how + 1);
		rings = fake_rings(100, 8, 4);
		assert_int_equal(open_channel(1, 7, 1, 4), 0);
	}
	/* From outside any call of the bus. */
	*fake_word(&rings.to_guest, RING_READ) = 0x10000;
	assert_int_equal(vmbus_send(d->dev.channel, 6, 0, 0, "x", 1), -ENOTCONN);
	assert_int_equal(d->closes, 5);
	take_nothing();
}

static void device_may_leave_in_its_own_call(void **state)
{
	struct fake_rings rings;
	struct test_device *d = open_one(VMBUS_V5_3, &rings);
	uint64_t payload = 1;

	(void)state;
	d->remove_in_packet = true;
	fake_put(&rings.to_host, VMBUS_PACKET_INBAND, 0, 0, &payload, 8);
	fake_put(&rings.to_host, VMBUS_PACKET_INBAND, 0, 0, &payload, 8);
	vmbus_signalled(fake.bus, 0x2001);
	take(VMBUS_RESCIND, 12);
	assert_int_equal(d->packets, 1);
	assert_int_equal(d->closes, 1);
	assert_int_equal(create_gpadl(1, 70, 100, 8), 0); /* the guest may not know yet */
	post_words(VMBUS_CLOSE, 1, 0, 12);
	assert_int_equal(destroyed, 0);
	post_words(VMBUS_RELID_RELEASED, 1, 0, 12);
	assert_int_equal(destroyed, 1);
}

static void modify_moves_the_interrupt(void **state)
{
	struct fake_rings rings;
	struct test_device *d;

	(void)state;
	for (int newest = 0; newest < 2; newest++) {
		d = open_one(newest ? VMBUS_V5_3 : VMBUS_V4_1, &rings);
		post_words(VMBUS_MODIFY, 1, 3, 16);
		if (newest)
			assert_int_equal(
				((const struct vmbus_modify_response *)take(VMBUS_MODIFY_RESPONSE, 16))->status, 0);
		assert_int_equal(vmbus_send(d->dev.channel, 6, 0, 0, "x", 1), 0);
		vmbus_flush(d->dev.channel);
		assert_int_equal(fake.vp, 3);
		for (uint32_t relid = 0; relid < 3; relid++) {
			post_words(VMBUS_MODIFY, relid, relid == 1 ? FAKE_VPS : 0, 16);
			if (newest)
				assert_int_not_equal(
					((const struct vmbus_modify_response *)take(VMBUS_MODIFY_RESPONSE, 16))->status,
					0);
			take_nothing();
		}
		assert_int_equal(vmbus_send(d->dev.channel, 6, 0, 0, "x", 1), 0);
		*fake_word(&rings.to_guest, RING_READ) = *fake_word(&rings.to_guest, RING_WRITE);
		vmbus_flush(d->dev.channel);
		assert_int_equal(fake.vp, 3);
		forget(d);
	}
	d = open_one(VMBUS_V4_0, &rings); /* there is no such message */
	post_words(VMBUS_MODIFY, 1, 3, 16);
	assert_int_equal(vmbus_send(d->dev.channel, 6, 0, 0, "x", 1), 0);
	vmbus_flush(d->dev.channel);
	assert_int_equal(fake.vp, 1);
}

static void subchannels(void **state)
{
	struct fake_rings rings;
	struct test_device *d = open_one(VMBUS_V5_3, &rings);
	const struct vmbus_offer *o;

	(void)state;
	assert_int_equal(vmbus_offer_subchannels(&d->dev, 2047), -ENOSPC);
	assert_int_equal(vmbus_offer_subchannels(&d->dev, 2), 0);
	assert_int_equal(vmbus_offer_subchannels(&d->dev, 1), 0);
	for (uint16_t i = 1; i <= 3; i++) {
		o = take(VMBUS_OFFER, 196);
		assert_int_equal(o->subchannel, i);
		assert_int_equal(o->relid, i + 1);
	}
	assert_int_equal(vmbus_channel_index(d->dev.channel), 0);
	assert_int_equal(create_gpadl(3, 8, 200, 8), 0);
	assert_int_not_equal(open_channel(2, 8, 1, 4), 0); /* another channel's */
	fake_rings(200, 8, 4);
	assert_int_equal(open_channel(3, 8, 2, 4), 0);
	assert_int_equal(d->opens, 2);
	fake.room = 0;
	post_words(VMBUS_CLOSE, 1, 0, 12);
	post_words(VMBUS_RELID_RELEASED, 4, 0, 12);
	take_nothing();
	assert_int_equal(d->closes, 2);
	fake.room = -1;
	vmbus_room(fake.bus);
	for (uint32_t i = 2; i <= 3; i++)
		assert_int_equal(((const struct vmbus_relid_message *)take(VMBUS_RESCIND, 12))->relid, i);
	take_nothing(); /* the last was released before it was rescinded */
	assert_int_equal(vmbus_offer_subchannels(&d->dev, 1), -ENOTCONN);
	post_words(VMBUS_RELID_RELEASED, 3, 0, 12);
	assert_int_equal(open_channel(1, 7, 1, 4), 0);
	assert_int_equal(vmbus_offer_subchannels(&d->dev, 2), 0);
	o = take(VMBUS_OFFER, 196);
	assert_int_equal(o->relid, 3); /* used again */
	assert_int_equal(o->subchannel, 1);
	o = take(VMBUS_OFFER, 196);
	assert_int_equal(o->relid, 4);
	assert_int_equal(o->subchannel, 2);
	vmbus_remove_device(&d->dev);
	assert_int_equal(((const struct vmbus_relid_message *)take(VMBUS_RESCIND, 12))->relid, 3);
	assert_int_equal(((const struct vmbus_relid_message *)take(VMBUS_RESCIND, 12))->relid, 4);
	assert_int_equal(((const struct vmbus_relid_message *)take(VMBUS_RESCIND, 12))->relid, 1);
	take_nothing();
	for (uint32_t i = 1; i <= 4; i++)
		post_words(VMBUS_RELID_RELEASED, i, 0, 12);
	assert_null(vmbus_find_device(fake.bus, "test"));
	add(1);
	assert_int_equal(((const struct vmbus_offer *)take(VMBUS_OFFER, 196))->relid, 1);
}

static void old_versions_use_the_interrupt_page(void **state)
{
	static const uint32_t versions[] = { VMBUS_V0_13, VMBUS_V1_1 };
	uint8_t *page = fake.ram + 0x3000;

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct vmbus_contact c = contact_for(versions[i]);
		struct test_device *d = add(1);
		uint64_t payload = 1;
		struct fake_rings rings;

		c.interrupt_page = 0x3000;
		memset(page, 0, VMBUS_PAGE);
		post(&c, sizeof(c));
		take(VMBUS_VERSION_RESPONSE, 16);
		assert_non_null(fake_connection(2));
		take_offers();
		rings = fake_rings(100, 8, 4);
		assert_int_equal(create_gpadl(1, 7, 100, 8), 0);
		assert_int_equal(open_channel(1, 7, 0x55555, 4), 0); /* no VP in these versions */
		fake_put(&rings.to_host, VMBUS_PACKET_INBAND, 0, 0, &payload, 8);
		vmbus_signalled(fake.bus, 2);
		assert_int_equal(d->packets, 0); /* no bit */
		memset(page + 2048, 0xff, 2048);
		vmbus_signalled(fake.bus, 2);
		assert_int_equal(d->packets, 1);
		assert_int_equal(page[2048], 0);
		assert_int_equal(page[0], 2);
		assert_int_equal(fake.vp, 0);
		assert_int_equal(fake.flag, 0);
		fake_put(&rings.to_host, VMBUS_PACKET_INBAND, 0, 0, &payload, 8);
		vmbus_signalled(fake.bus, 0x2001); /* 1.1 has connections of its own this way */
		assert_int_equal(d->packets, 2);
		post_words(VMBUS_UNLOAD, 0, 0, 8);
		take(VMBUS_UNLOAD_RESPONSE, 8);
		assert_int_equal(fake.connected, 0);
		vmbus_signalled(fake.bus, 2);
		vmbus_remove_device(&d->dev);
	}
}

#define MONITOR 0x5000 /* the guest's two monitor pages */

static uint32_t *pending(unsigned int id)
{
	return (uint32_t *)(fake.ram + MONITOR + VMBUS_PAGE + 8 + id / 32 * 8ul);
}

/* A contact with monitor pages, and the monitor ids of the offers that follow, 0xff for none. */
static unsigned int contact_monitored(uint64_t page1, uint64_t page2, uint8_t *ids)
{
	struct vmbus_contact c = contact_for(VMBUS_V5_3);
	const struct vmbus_version_response *r;
	unsigned int n = 0;

	c.monitor_page1 = page1;
	c.monitor_page2 = page2;
	post(&c, sizeof(c));
	r = take(VMBUS_VERSION_RESPONSE, 16);
	assert_int_equal(r->supported, 1);
	post_words(VMBUS_REQUEST_OFFERS, 0, 0, 8);
	while (fake.count > 1) {
		const struct vmbus_offer *o = take(VMBUS_OFFER, 196);

		assert_int_equal(o->monitor_allocated, o->monitor_id != 0xff);
		ids[n++] = o->monitor_id;
	}
	take(VMBUS_ALL_OFFERS, 8);
	return n;
}

static struct fake_rings open_number(uint32_t relid)
{
	struct fake_rings rings = fake_rings(100 + 8 * relid, 8, 4);

	assert_int_equal(create_gpadl(relid, relid, 100 + 8 * relid, 8), 0);
	assert_int_equal(open_channel(relid, relid, 0, 4), 0);
	return rings;
}

static void signals_by_monitor_page(void **state)
{
	static struct vmbus_device_class slow, fast;
	struct test_device *plain = add(1), *d[2];
	struct fake_rings rings[4];
	uint64_t payload = 1;
	uint8_t ids[4];

	(void)state;
	slow = fast = test_class;
	slow.monitor_ns = 900000;
	fast.monitor_ns = 2000;
	d[0] = add_class(2, &slow);
	d[1] = add_class(3, &fast);
	memset(fake.ram + MONITOR, 0, 2 * VMBUS_PAGE);
	assert_int_equal(contact_monitored(MONITOR, MONITOR + VMBUS_PAGE, ids), 3);
	assert_int_equal(ids[0], 0xff);
	assert_int_equal(ids[1], 0);
	assert_int_equal(ids[2], 1);
	rings[1] = open_number(1);
	assert_int_equal(fake.monitor_ns, 0);
	rings[2] = open_number(2);
	assert_int_equal(fake.monitor_ns, 900000);
	rings[3] = open_number(3);
	assert_int_equal(fake.monitor_ns, 2000);
	for (unsigned int i = 1; i <= 3; i++)
		fake_put(&rings[i].to_host, VMBUS_PACKET_INBAND, 0, 0, &payload, 8);
	vmbus_monitor(fake.bus);
	assert_int_equal(d[0]->packets + d[1]->packets, 0); /* no bit */
	*pending(0) = 2;
	vmbus_monitor(fake.bus);
	assert_int_equal(*pending(0), 0);
	assert_int_equal(d[0]->packets, 0);
	assert_int_equal(d[1]->packets, 1);
	for (unsigned int id = 0; id < 128; id += 32)
		*pending(id) = 0xffffffff; /* those of nobody, too */
	vmbus_monitor(fake.bus);
	for (unsigned int id = 0; id < 128; id += 32)
		assert_int_equal(*pending(id), 0);
	assert_int_equal(d[0]->packets, 1);
	assert_int_equal(plain->packets, 0);
	for (size_t i = 0; i < VMBUS_PAGE; i++)
		assert_int_equal(fake.ram[MONITOR + i], 0);
	/* The hypercall is there as well. */
	fake_put(&rings[2].to_host, VMBUS_PACKET_INBAND, 0, 0, &payload, 8);
	vmbus_signalled(fake.bus, 0x2002);
	assert_int_equal(d[0]->packets, 2);
	/* Closed, failed, and gone. */
	post_words(VMBUS_CLOSE, 3, 0, 12);
	assert_int_equal(fake.monitor_ns, 900000);
	fake_put(&rings[3].to_host, VMBUS_PACKET_INBAND, 0, 0, &payload, 8);
	*pending(0) = 2;
	vmbus_monitor(fake.bus);
	assert_int_equal(d[1]->packets, 1);
	d[0]->remove_in_packet = true;
	fake_put(&rings[2].to_host, VMBUS_PACKET_INBAND, 0, 0, &payload, 8);
	*pending(0) = 1;
	vmbus_monitor(fake.bus);
	assert_int_equal(d[0]->packets, 3);
	assert_int_equal(fake.monitor_ns, 0);
	take(VMBUS_RESCIND, 12);
	*pending(0) = 3;
	vmbus_monitor(fake.bus);
	post_words(VMBUS_RELID_RELEASED, 2, 0, 12);
	assert_int_equal(destroyed, 1);
	*pending(0) = 3;
	vmbus_monitor(fake.bus);
	assert_int_equal(open_channel(3, 3, 0, 4), 0);
	assert_int_equal(fake.monitor_ns, 2000);
	vmbus_fail(d[1]->dev.channel, "as told");
	assert_int_equal(fake.monitor_ns, 0);
	/* Its id is free for the next one. */
	add_class(4, &slow);
	assert_int_equal(((const struct vmbus_offer *)take(VMBUS_OFFER, 196))->monitor_id, 0);
}

static void monitor_pages_come_and_go(void **state)
{
	static const uint64_t bad[][2] = {
		{ MONITOR, 0 },		  { 0, MONITOR },	    { MONITOR, FAKE_RAM }, { FAKE_RAM, MONITOR },
		{ MONITOR, MONITOR + 8 }, { MONITOR, ~0ull << 12 }, { ~0ull, ~0ull },
	};
	static struct vmbus_device_class class;
	struct fake_rings rings;
	struct test_device *d;
	uint64_t payload = 1;
	uint8_t ids[140];

	(void)state;
	class = test_class;
	class.monitor_ns = 1000;
	d = add_class(1, &class);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		unsigned int lines = fake.lines;

		assert_int_equal(contact_monitored(bad[i][0], bad[i][1], ids), 1);
		assert_int_equal(ids[0], 0xff);
		assert_int_equal(fake.lines, lines + 1);
		open_number(1);
		assert_int_equal(fake.monitor_ns, 0);
		vmbus_monitor(fake.bus);
	}
	/* Each end of a connection is the end of its pages. */
	for (int how = 0; how < 3; how++) {
		unsigned int packets = d->packets;

		assert_int_equal(contact_monitored(MONITOR, MONITOR + VMBUS_PAGE, ids), 1);
		assert_int_equal(ids[0], 0);
		rings = open_number(1);
		assert_int_equal(fake.monitor_ns, 1000);
		if (how == 0)
			vmbus_reset(fake.bus);
		else if (how == 1)
			post_words(VMBUS_UNLOAD, 0, 0, 8);
		if (how == 1)
			take(VMBUS_UNLOAD_RESPONSE, 8);
		if (how == 2) {
			contact_monitored(0, 0, ids);
			assert_int_equal(ids[0], 0xff);
			rings = open_number(1);
		}
		assert_int_equal(fake.monitor_ns, 0);
		fake_put(&rings.to_host, VMBUS_PACKET_INBAND, 0, 0, &payload, 8);
		*pending(0) = 1;
		vmbus_monitor(fake.bus);
		assert_int_equal(*pending(0), 1);
		assert_int_equal(d->packets, packets);
	}
	/* More channels than ids; one that was let go of is given to another. */
	for (unsigned int i = 2; i <= 140; i++)
		add_class(i, &class);
	while (fake.count)
		take(VMBUS_OFFER, 196);
	assert_int_equal(contact_monitored(MONITOR, MONITOR + VMBUS_PAGE, ids), 140);
	for (unsigned int i = 0; i < 140; i++)
		assert_int_equal(ids[i], i < 128 ? i : 0xff);
	post_words(VMBUS_RELID_RELEASED, 78, 0, 12);
	add_class(141, &class);
	assert_int_equal(((const struct vmbus_offer *)take(VMBUS_OFFER, 196))->monitor_id, 77);
}

static void unload_and_contact_again(void **state)
{
	struct fake_rings rings;
	struct test_device *d;

	(void)state;
	post_words(VMBUS_UNLOAD, 0, 0, 8); /* nobody is known to listen */
	take_nothing();
	d = open_one(VMBUS_V5_3, &rings);
	for (unsigned int i = 1; i < 5; i++) {
		post_words(VMBUS_UNLOAD, 0, 0, 8);
		take(VMBUS_UNLOAD_RESPONSE, 8);
		assert_int_equal(d->closes, i);
		assert_int_equal(fake.connected, 0);
		post_words(VMBUS_UNLOAD, 0, 0, 8);
		take(VMBUS_UNLOAD_RESPONSE, 8);
		post_words(VMBUS_REQUEST_OFFERS, 0, 0, 8);
		post_words(VMBUS_OPEN, 1, 0, 16);
		take_nothing();
		connect_version(VMBUS_V4_0 + (i & 1));
		assert_int_equal(take_offers(), 1);
		assert_int_equal(create_gpadl(1, 7, 100, 8), 0);
		assert_int_equal(open_channel(1, 7, 1, 4), 0);
	}
	assert_int_equal(d->resets, 0);
}

static void socket_connections_are_refused(void **state)
{
	struct vmbus_tl_connect m = { .header.type = VMBUS_TL_CONNECT, .endpoint = { { 1 } }, .service = { { 2 } } };
	const struct vmbus_tl_connect_result *r;

	(void)state;
	connect_version(VMBUS_V5_3);
	post(&m, sizeof(m));
	r = take(VMBUS_TL_CONNECT_RESULT, 44);
	assert_int_equal(r->status, 0xc0000236);
	assert_int_equal(r->endpoint.b[0], 1);
	assert_int_equal(r->service.b[0], 2);
	connect_version(VMBUS_V4_0); /* without an answer */
	post(&m, sizeof(m));
	take_nothing();
}

/* Messages of every type and length: nothing but answers that say no, and a bounded number of log lines. */
static void nonsense_is_survived(void **state)
{
	uint8_t bytes[VMBUS_MESSAGE_MAX + 8];
	struct fake_rings rings;
	struct test_device *d = open_one(VMBUS_V5_3, &rings);
	unsigned int lines;

	(void)state;
	for (unsigned int fill = 0; fill < 256; fill += 51) {
		memset(bytes, (int)fill, sizeof(bytes));
		for (uint32_t type = 0; type < 40; type++) {
			memcpy(bytes, &type, 4);
			for (size_t size = 0; size <= sizeof(bytes); size += type == VMBUS_GPADL_HEADER ? 1 : 4)
				if (type != VMBUS_UNLOAD && type != VMBUS_INITIATE_CONTACT)
					post(bytes, size);
		}
		fake.count = 0;
	}
	assert_int_equal(d->opens, 1);
	assert_int_equal(d->closes, 0);
	assert_in_range(fake.lines, 2, 20);
	for (unsigned int i = 0; i < 2000; i++) {
		connect_version(VMBUS_V5_3);
		for (unsigned int j = 0; j < 30; j++)
			post_words(VMBUS_CLOSE, j, 0, 12);
	}
	assert_in_range(fake.lines, 20, 600);
	lines = fake.lines;
	post_words(99, 0, 0, 8);
	assert_int_equal(fake.lines, lines);
	assert_int_equal(take_offers(), 1);
}

static void unknown_types_are_told_once(void **state)
{
	(void)state;
	connect_version(VMBUS_V5_3);
	for (uint32_t type = 30; type < 40; type++)
		post_words(type, 0, 0, 8);
	assert_int_equal(fake.lines, 1);
	assert_non_null(strstr(fake.line, "unknown"));
}

/* In every state the machine's reset leaves nothing, and the next guest finds everything. */
static void reset_in_each_state(void **state)
{
	uint64_t data[55] = { 54 * VMBUS_PAGE };
	struct vmbus_gpadl *held = NULL;
	struct test_device *d = add(1);
	struct vmbus_contact c = contact_for(VMBUS_V5_3);

	(void)state;
	for (unsigned int depth = 0; depth < 9; depth++) {
		if (depth >= 1)
			connect_version(VMBUS_V5_3);
		if (depth >= 2)
			take_offers();
		if (depth >= 3)
			send_header(1, 99, 1, 55, data, 27);
		if (depth >= 4)
			assert_int_equal(create_gpadl(1, 7, 100, 8), 0);
		if (depth >= 5) {
			fake_rings(100, 8, 4);
			assert_int_equal(open_channel(1, 7, 1, 4), 0);
		}
		if (depth >= 6) {
			held = vmbus_gpadl_get(d->dev.channel, 7);
			post_words(VMBUS_GPADL_TEARDOWN, 1, 7, 16);
		}
		if (depth >= 7) {
			fake.room = 0;
			assert_int_equal(vmbus_offer_subchannels(&d->dev, 3), 0);
			post_words(VMBUS_TL_CONNECT, 0, 0, 16);
		}
		if (depth == 8)
			post(&c, sizeof(c));
		vmbus_reset(fake.bus);
		if (depth >= 6)
			vmbus_gpadl_put(held);
		assert_int_equal(d->resets, depth + 1);
		assert_int_equal(d->opens, d->closes);
		assert_int_equal(fake.connected, 0);
		fake.room = -1;
		vmbus_room(fake.bus);
		take_nothing();
		connect_version(VMBUS_V2_4);
		assert_int_equal(take_offers(), 1);
		assert_int_equal(create_gpadl(1, 99, 1, 1), 0);
		vmbus_reset(fake.bus);
		d->resets--;
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(every_version_and_nothing_else),
		T(impossible_contacts_are_refused),
		T(version_6_grants_what_there_is),
		T(pause_and_resume),
		T(guest_chooses_its_signals),
		T(offers_say_what_the_device_is),
		T(room_for_few_messages_changes_no_order),
		T(full_queue_takes_no_more),
		T(relids_stay_across_resets),
		T(hot_add_and_remove),
		T(offer_comes_before_rescind_and_old_before_new),
		T(released_unasked_is_offered_at_the_next_contact),
		T(channels_run_out),
		T(gpadls_of_many_sizes),
		T(bodies_in_any_order),
		T(impossible_gpadls_are_refused),
		T(gpadls_are_limited_in_number_and_pages),
		T(gpadl_contents),
		T(teardown_of_open_rings_waits_for_close),
		T(packets_go_both_ways),
		T(packets_from_before_the_open),
		T(room_and_turns),
		T(endless_packets_take_turns),
		T(open_close_a_thousand_times),
		T(impossible_opens_are_refused),
		T(broken_rings_fail_the_channel),
		T(device_may_leave_in_its_own_call),
		T(modify_moves_the_interrupt),
		T(subchannels),
		T(old_versions_use_the_interrupt_page),
		T(signals_by_monitor_page),
		T(monitor_pages_come_and_go),
		T(unload_and_contact_again),
		T(socket_connections_are_refused),
		T(nonsense_is_survived),
		T(unknown_types_are_told_once),
		T(reset_in_each_state),
	};

	return cmocka_run_group_tests(tests, NULL, group_teardown);
}
