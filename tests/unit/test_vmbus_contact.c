/* SPDX-License-Identifier: MIT */
/* The bus against a fake carrier: contact, versions, offers, unloading, reset and nonsense. */
#include "vmbus_bus.h"

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
		T(unload_and_contact_again),
		T(socket_connections_are_refused),
		T(nonsense_is_survived),
		T(unknown_types_are_told_once),
		T(reset_in_each_state),
	};

	return cmocka_run_group_tests(tests, NULL, group_teardown);
}
