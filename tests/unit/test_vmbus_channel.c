/* SPDX-License-Identifier: MIT */
/* The bus against a fake carrier: channels opened, closed and broken, their packets and their signals. */
#include "vmbus_bus.h"

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

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
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
	};

	return cmocka_run_group_tests(tests, NULL, group_teardown);
}
