/* SPDX-License-Identifier: MIT */
/* The framework of the integration services, by a service of the test's own. */
/* cmocka wants these before itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ic_fake.h"

#define PROBE 9 /* message type of the test's service */

/* ---- The test's service ---- */

struct probe {
	struct ic ic;
	struct ic_timer timer;
	unsigned int ups, downs, idles, destroyed, dones, expired;
	int error;
	uint32_t status;
	size_t size;
	uint8_t body[64];
	bool again; /* done() sends the next request */
};

static struct probe counts; /* of a probe that is gone */

static void probe_up(struct ic *ic)
{
	((struct probe *)ic)->ups++;
}

static void probe_down(struct ic *ic)
{
	((struct probe *)ic)->downs++;
}

static void probe_idle(struct ic *ic)
{
	((struct probe *)ic)->idles++;
}

static void probe_destroy(struct ic *ic)
{
	counts.destroyed++;
	counts.dones = ((struct probe *)ic)->dones;
}

static void probe_expired(struct ic *ic)
{
	((struct probe *)ic)->expired++;
}

static void probe_done(struct ic *ic, int error, uint32_t status, const void *body, size_t size)
{
	struct probe *p = (struct probe *)ic;

	p->dones++;
	p->error = error;
	p->status = status;
	p->size = size;
	assert_true(size <= sizeof(p->body));
	if (error)
		assert_null(body);
	else
		memcpy(p->body, body, size);
	if (p->again) {
		p->again = false;
		assert_int_equal(ic_request(ic, "next", 4, SECOND, probe_done), error == -ECONNRESET ? -ENOTCONN : 0);
	}
}

static const struct ic_version probe_versions[] = { { 1, 0 }, { 2, 5 } };
static const struct ic_class probe_class = {
	.device = IC_DEVICE("probe", VMBUS_GUID(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
			    VMBUS_GUID(12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22)),
	.type = PROBE,
	.versions = probe_versions,
	.nr_versions = 2,
	.up = probe_up,
	.down = probe_down,
	.idle = probe_idle,
	.destroy = probe_destroy,
};

static struct probe *probe;

static int setup(void **state)
{
	(void)state;
	fake_setup();
	memset(&counts, 0, sizeof(counts));
	return 0;
}

static int setup_probe(void **state)
{
	setup(state);
	probe = calloc(1, sizeof(*probe));
	assert_non_null(probe);
	ic_timer_init(&probe->timer, &probe->ic, probe_expired);
	return ic_add(&fake.vm, &probe->ic, &probe_class);
}

static int setup_up(void **state)
{
	setup_probe(state);
	assert_int_equal(fake_open(&probe->ic), 0);
	assert_int_equal(choose(&probe->ic, 3, 2, 5), 0);
	assert_int_equal(probe->ic.state, IC_UP);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_teardown();
	return 0;
}

/* ---- Framework: negotiation ---- */

static void a_device_that_cannot_be_added_is_freed_and_told(void **state)
{
	(void)state;
	fake.add_error = -EEXIST;
	assert_int_equal(ic_add(&fake.vm, calloc(1, sizeof(struct ic)), &probe_class), -EEXIST);
	assert_string_equal(fake.log, "vmbus: probe: File exists");
	assert_int_equal(ic_add(&fake.vm, NULL, &probe_class), -ENOMEM);
	assert_string_equal(fake.log, "vmbus: probe: Cannot allocate memory");
	assert_int_equal(fake.logs, 2);
	assert_null(ic_find(&fake.vm, "probe"));
	fake.vm.vmbus = NULL;
	assert_null(ic_find(&fake.vm, "probe"));
}

static void offers_are_pipes_in_message_mode(void **state)
{
	static const struct vmbus_guid type = VMBUS_GUID(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11);
	const struct vmbus_device_class *class = probe->ic.device.class;

	(void)state;
	assert_int_equal(class->offer_flags, VMBUS_OFFER_PIPE);
	assert_int_equal(class->user_defined[0], 4);
	assert_int_equal(class->user_defined[1], 0);
	assert_memory_equal(&class->type, &type, sizeof(type));
	assert_int_equal(class->packet_max, 16 + HEADERS + IC_BODY_MAX + 8 + 4); /* rounded up to 8 */
	assert_ptr_equal(ic_find(&fake.vm, "probe"), probe);
	assert_string_equal(ic_state_name(&probe->ic), "closed");
}

static void opening_offers_frameworks_and_versions(void **state)
{
	static const uint8_t expected[] = {
		1, 0, 0, 0, 44, 0, 0, 0, /* pipe: data, size */
		0, 0, 0, 0, 0,	0, 0, 0, 0, 0, 24, 0, 0, 0, 0, 0,
		1, 3, 0, 0,					  /* negotiate, size 24, transaction, request */
		2, 0, 2, 0, 0,	0, 0, 0,			  /* two frameworks, two versions */
		1, 0, 0, 0, 3,	0, 0, 0, 1, 0, 0,  0, 2, 0, 5, 0, /* 1.0, 3.0; 1.0, 2.5 */
	};

	(void)state;
	assert_int_equal(fake_open(&probe->ic), 0);
	assert_int_equal(fake.last.size, sizeof(expected));
	assert_memory_equal(fake.last.payload, expected, sizeof(expected));
	assert_int_equal(fake.flushed, 1);
	assert_string_equal(ic_state_name(&probe->ic), "negotiating");
	assert_int_equal(fake_timers(), 0);
	assert_int_equal(ic_request(&probe->ic, "x", 1, 0, probe_done), -ENOTCONN);
	assert_false(ic_at_least(&probe->ic, 0, 0));
}

static void the_guest_chooses_among_them(void **state)
{
	(void)state;
	assert_int_equal(fake_open(&probe->ic), 0);
	assert_int_equal(choose(&probe->ic, 3, 2, 5), 0);
	assert_string_equal(ic_state_name(&probe->ic), "up");
	assert_int_equal(probe->ups, 1);
	assert_true(ic_at_least(&probe->ic, 1, 9));
	assert_true(ic_at_least(&probe->ic, 2, 5));
	assert_false(ic_at_least(&probe->ic, 2, 6));
	assert_false(ic_at_least(&probe->ic, 3, 0));
	assert_int_equal(choose(&probe->ic, 3, 1, 0), 0); /* twice */
	assert_true(ic_at_least(&probe->ic, 2, 5));
	assert_int_equal(probe->ups, 1);
	assert_int_equal(probe->ic.strays, 1);
	fake_close(&probe->ic);
	assert_int_equal(fake_open(&probe->ic), 0);
	assert_int_equal(choose(&probe->ic, 1, 1, 0), 0);
	assert_int_equal(probe->ic.framework.major, 1);
	assert_false(ic_at_least(&probe->ic, 2, 0));
}

static void versions_that_do_not_match_are_told_once(void **state)
{
	static const uint16_t bad[][8] = {
		{ 0, 0, 0, 0, 2, 0, 2, 0 }, /* Linux: no match */
		{ 1, 1, 0, 0, 2, 0, 2, 5 }, { 1, 1, 0, 0, 3, 1, 2, 5 }, { 1, 1, 0, 0, 3, 0, 2, 4 },
		{ 1, 1, 0, 0, 3, 0, 3, 5 }, { 2, 1, 0, 0, 3, 0, 2, 5 }, { 1, 0xffff, 0, 0, 3, 0, 2, 5 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(fake_open(&probe->ic), 0);
		assert_int_equal(answer(&probe->ic, IC_S_OK, bad[i], sizeof(bad[i])), 0);
		assert_string_equal(ic_state_name(&probe->ic), "refused");
		assert_int_equal(ic_request(&probe->ic, "x", 1, 0, probe_done), -ENOTCONN);
		assert_int_equal(choose(&probe->ic, 3, 2, 5), 0); /* too late */
		assert_string_equal(ic_state_name(&probe->ic), "refused");
		fake_close(&probe->ic);
	}
	assert_int_equal(fake.logs, 1);
	assert_string_equal(fake.log, "vmbus: probe: the guest knows none of the versions offered");
	assert_int_equal(probe->ups + probe->downs, 0);
	fake_reset(&probe->ic);
	assert_int_equal(fake_open(&probe->ic), 0);
	assert_int_equal(answer(&probe->ic, IC_S_OK, bad[0], sizeof(bad[0])), 0);
	assert_int_equal(fake.logs, 1); /* a guest can reset the machine as often as it likes */
	fake_reset(&probe->ic);
	assert_int_equal(fake_open(&probe->ic), 0);
	assert_int_equal(choose(&probe->ic, 3, 2, 5), 0);
	assert_int_equal(probe->ups, 1);
}

static void short_answers_to_the_offer_fail_the_channel(void **state)
{
	static const uint16_t body[] = { 1, 1, 0, 0, 3, 0, 2, 5 };
	static const size_t sizes[] = { 0, 1, 7, 8, 12, 15 };

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		assert_int_equal(fake_open(&probe->ic), 0);
		assert_int_equal(answer(&probe->ic, IC_S_OK, body, sizes[i]), -EPROTO);
		assert_string_equal(ic_state_name(&probe->ic), "closed");
		fake_close(&probe->ic);
	}
	assert_int_equal(fake_open(&probe->ic), 0);
	assert_int_equal(answer(&probe->ic, IC_S_OK, body, 16), 0);
	assert_string_equal(ic_state_name(&probe->ic), "up");
}

static void an_offer_that_cannot_be_sent_refuses_the_channel(void **state)
{
	(void)state;
	fake.send_error = -EMSGSIZE;
	assert_int_equal(fake_open(&probe->ic), -EMSGSIZE);
	assert_string_equal(ic_state_name(&probe->ic), "closed");
}

static void an_offer_waits_for_room(void **state)
{
	(void)state;
	fake.full = true;
	assert_int_equal(fake_open(&probe->ic), 0);
	assert_int_equal(fake.sent, 0);
	assert_int_equal(choose(&probe->ic, 3, 2, 5), 0); /* to what it has not seen */
	fake_room(&probe->ic);
	assert_int_equal(fake.sent, 1);
	fake_room(&probe->ic);
	assert_int_equal(fake.sent, 1);
	assert_string_equal(ic_state_name(&probe->ic), "negotiating");
	assert_int_equal(choose(&probe->ic, 3, 2, 5), 0);
	assert_string_equal(ic_state_name(&probe->ic), "up");
}

static void negotiation_has_no_time_limit(void **state)
{
	(void)state;
	assert_int_equal(fake_open(&probe->ic), 0);
	fake_run(3600 * SECOND);
	assert_int_equal(choose(&probe->ic, 3, 2, 5), 0);
	assert_int_equal(probe->ups, 1);
}

/* ---- Framework: requests ---- */

static void a_request_is_answered(void **state)
{
	static const uint8_t expected[] = {
		1, 0, 0, 0, 25, 0, 0, 0, 3, 0, 0, 0,   PROBE, 0,   2,	0,   5,
		0, 5, 0, 0, 0,	0, 0, 2, 3, 0, 0, 'h', 'e',   'l', 'l', 'o',
	};

	(void)state;
	assert_int_equal(ic_request(&probe->ic, "hello", 5, SECOND, probe_done), 0);
	assert_int_equal(fake.last.size, sizeof(expected));
	assert_memory_equal(fake.last.payload, expected, sizeof(expected));
	assert_int_equal(fake.flushed, fake.sent);
	assert_int_equal(ic_request(&probe->ic, "x", 1, SECOND, probe_done), -EBUSY);
	assert_int_equal(answer(&probe->ic, IC_E_FAIL, "world", 5), 0);
	assert_int_equal(probe->dones, 1);
	assert_int_equal(probe->error, 0);
	assert_int_equal(probe->status, IC_E_FAIL);
	assert_int_equal(probe->size, 5);
	assert_memory_equal(probe->body, "world", 5);
	assert_int_equal(fake_timers(), 0);
	fake_run(10 * SECOND);
	assert_int_equal(probe->dones, 1);
	assert_int_equal(probe->ic.timeouts, 0);
	assert_int_equal(ic_request(&probe->ic, NULL, 0, 0, probe_done), 0);
	assert_int_equal(last_header().transaction, 3);
	assert_int_equal(last_header().size, 0);
	assert_int_equal(fake_timers(), 0);
	assert_int_equal(answer(&probe->ic, IC_S_OK, NULL, 0), 0);
	assert_int_equal(probe->dones, 2);
	assert_int_equal(probe->ic.requests, 2);
	assert_int_equal(probe->ic.answers, 2);
}

static void done_may_send_the_next(void **state)
{
	(void)state;
	probe->again = true;
	assert_int_equal(ic_request(&probe->ic, "one", 3, SECOND, probe_done), 0);
	assert_int_equal(echo(&probe->ic), 0);
	assert_memory_equal(last_body(), "next", 4);
	fake_run(0);
	assert_int_equal(fake_timers(), 1); /* of the new one */
	fake_run(SECOND);
	assert_int_equal(probe->dones, 2);
	assert_int_equal(probe->error, -ETIMEDOUT);
}

static void what_answers_nothing_is_counted_and_ignored(void **state)
{
	const uint8_t flags = IC_FLAG_TRANSACTION | IC_FLAG_RESPONSE;
	uint8_t transaction;

	(void)state;
	assert_int_equal(ic_request(&probe->ic, "hello", 5, 0, probe_done), 0);
	transaction = last_header().transaction;
	assert_int_equal(say(&probe->ic, PROBE + 1, transaction, flags, 0, "a", 1), 0);
	assert_int_equal(say(&probe->ic, IC_TYPE_NEGOTIATE, transaction, flags, 0, "a", 1), 0);
	assert_int_equal(say(&probe->ic, PROBE, transaction + 1, flags, 0, "a", 1), 0);
	assert_int_equal(say(&probe->ic, PROBE, transaction - 1, flags, 0, "a", 1), 0);
	assert_int_equal(say(&probe->ic, PROBE, transaction, IC_FLAG_REQUEST, 0, "a", 1), 0);
	assert_int_equal(probe->dones, 0);
	assert_int_equal(probe->ic.strays, 5);
	assert_int_equal(say(&probe->ic, PROBE, transaction, flags, 0, "a", 1), 0);
	assert_int_equal(probe->dones, 1);
	assert_int_equal(say(&probe->ic, PROBE, transaction, flags, 0, "a", 1), 0); /* twice */
	assert_int_equal(probe->dones, 1);
	assert_int_equal(probe->ic.strays, 6);
	assert_int_equal(probe->idles, 0);
	assert_int_equal(fake.logs, 0);
}

static void broken_packets_fail_the_channel(void **state)
{
	static const struct {
		uint16_t packet_type;
		uint32_t pipe_type, pipe_size;
		uint16_t size;
		size_t bytes;
	} bad[] = {
		{ VMBUS_PACKET_INBAND, 1, 20, 0, 0 },		{ VMBUS_PACKET_INBAND, 1, 20, 0, 8 },
		{ VMBUS_PACKET_INBAND, 1, 20, 0, 24 },		{ VMBUS_PACKET_INBAND, 1, 19, 0, 40 },
		{ VMBUS_PACKET_INBAND, 1, 0, 0, 40 },		{ VMBUS_PACKET_INBAND, 1, 33, 0, 40 },
		{ VMBUS_PACKET_INBAND, 1, 0xffffffff, 0, 40 },	{ VMBUS_PACKET_INBAND, 1, 0xfffffff8, 8, 40 },
		{ VMBUS_PACKET_INBAND, 0, 32, 12, 40 },		{ VMBUS_PACKET_INBAND, 2, 32, 12, 40 },
		{ VMBUS_PACKET_INBAND, 1, 32, 13, 40 },		{ VMBUS_PACKET_INBAND, 1, 32, 0xffff, 40 },
		{ VMBUS_PACKET_INBAND, 1, 20, 1, 40 },		{ VMBUS_PACKET_GPA_DIRECT, 1, 32, 12, 40 },
		{ VMBUS_PACKET_TRANSFER_PAGES, 1, 32, 12, 40 }, { VMBUS_PACKET_COMPLETION, 1, 32, 12, 40 },
	};
	unsigned int n = sizeof(bad) / sizeof(bad[0]);

	(void)state;
	for (unsigned int i = 0; i < n; i++) {
		uint8_t packet[64] = { 0 };
		struct ic_header header = { .type = PROBE, .flags = 5, .size = bad[i].size };

		assert_int_equal(ic_request(&probe->ic, "hello", 5, SECOND, probe_done), 0);
		header.transaction = last_header().transaction;
		memcpy(packet, &bad[i].pipe_type, 4);
		memcpy(packet + 4, &bad[i].pipe_size, 4);
		memcpy(packet + 8, &header, sizeof(header));
		assert_int_equal(fake_packet(&probe->ic, bad[i].packet_type, packet, bad[i].bytes), -EPROTO);
		assert_int_equal(probe->dones, i + 1);
		assert_int_equal(probe->error, -ECONNRESET);
		assert_int_equal(probe->downs, i + 1);
		assert_int_equal(ic_request(&probe->ic, "x", 1, 0, probe_done), -ENOTCONN);
		fake_close(&probe->ic);
		assert_int_equal(probe->downs, i + 1);
		assert_int_equal(fake_open(&probe->ic), 0);
		assert_int_equal(choose(&probe->ic, 3, 2, 5), 0);
	}
	assert_int_equal(probe->ups, n + 1);
	assert_int_equal(fake.logs, 0); /* the bus tells it */
}

static void a_request_that_times_out_is_not_followed_by_another(void **state)
{
	(void)state;
	assert_int_equal(ic_request(&probe->ic, "one", 3, SECOND, probe_done), 0);
	fake_run(SECOND - 1);
	assert_int_equal(probe->dones, 0);
	fake_run(1);
	assert_int_equal(probe->dones, 1);
	assert_int_equal(probe->error, -ETIMEDOUT);
	assert_int_equal(probe->ic.timeouts, 1);
	assert_int_equal(fake_timers(), 0);
	assert_int_equal(ic_request(&probe->ic, "two", 3, SECOND, probe_done), -EBUSY);
	assert_int_equal(echo(&probe->ic), 0); /* late */
	assert_int_equal(probe->dones, 1);
	assert_int_equal(probe->idles, 1);
	assert_int_equal(probe->ic.strays, 0);
	assert_int_equal(echo(&probe->ic), 0); /* and again */
	assert_int_equal(probe->idles, 1);
	assert_int_equal(probe->ic.strays, 1);
	assert_int_equal(ic_request(&probe->ic, "two", 3, SECOND, probe_done), 0);
	assert_int_equal(echo(&probe->ic), 0);
	assert_int_equal(probe->error, 0);
	assert_int_equal(probe->dones, 2);
}

static void a_request_is_given_up_after_a_minute(void **state)
{
	struct ic_header lost;

	(void)state;
	assert_int_equal(ic_request(&probe->ic, "one", 3, SECOND, probe_done), 0);
	lost = last_header();
	fake_run(60 * SECOND - 1);
	assert_int_equal(ic_request(&probe->ic, "two", 3, SECOND, probe_done), -EBUSY);
	fake_run(1);
	assert_int_equal(ic_request(&probe->ic, "two", 3, SECOND, probe_done), 0);
	assert_int_equal(say(&probe->ic, PROBE, lost.transaction, IC_FLAG_RESPONSE, 0, "one", 3), 0);
	assert_int_equal(probe->dones, 1);
	assert_int_equal(probe->ic.strays, 1);
	assert_int_equal(echo(&probe->ic), 0);
	assert_int_equal(probe->dones, 2);
	assert_int_equal(probe->error, 0);
}

static void a_request_waits_for_room(void **state)
{
	unsigned int sent = fake.sent;
	struct ic_header header = last_header();

	(void)state;
	fake.full = true;
	assert_int_equal(ic_request(&probe->ic, "one", 3, SECOND, probe_done), 0);
	assert_int_equal(fake.sent, sent);
	assert_int_equal(say(&probe->ic, PROBE, header.transaction + 1, IC_FLAG_RESPONSE, 0, "one", 3), 0);
	assert_int_equal(probe->dones, 0); /* it cannot have seen it */
	fake_room(&probe->ic);
	assert_int_equal(fake.sent, sent + 1);
	assert_int_equal(echo(&probe->ic), 0);
	assert_int_equal(probe->dones, 1);
	/* One that has timed out before it was sent never is. */
	fake.full = true;
	assert_int_equal(ic_request(&probe->ic, "two", 3, SECOND, probe_done), 0);
	fake_run(SECOND);
	assert_int_equal(probe->error, -ETIMEDOUT);
	fake_room(&probe->ic);
	assert_int_equal(fake.sent, sent + 1);
	assert_int_equal(ic_request(&probe->ic, "three", 5, SECOND, probe_done), 0);
	assert_int_equal(fake.sent, sent + 2);
	assert_memory_equal(last_body(), "three", 5);
	fake_close(&probe->ic);
}

static void a_ring_that_breaks_while_waiting_ends_the_service(void **state)
{
	(void)state;
	fake.full = true;
	assert_int_equal(ic_request(&probe->ic, "one", 3, SECOND, probe_done), 0);
	fake.send_error = -EPROTO;
	fake_room(&probe->ic);
	assert_int_equal(probe->error, -ECONNRESET);
	assert_int_equal(probe->downs, 1);
	assert_int_equal(fake_timers(), 0);
}

static void a_request_that_cannot_be_sent_is_refused(void **state)
{
	static const uint8_t big[IC_BODY_MAX + 1];

	(void)state;
	assert_int_equal(ic_request(&probe->ic, big, IC_BODY_MAX + 1, SECOND, probe_done), -EMSGSIZE);
	fake.send_error = -EMSGSIZE; /* a small ring */
	assert_int_equal(ic_request(&probe->ic, "one", 3, SECOND, probe_done), -EMSGSIZE);
	assert_int_equal(fake_timers(), 0);
	assert_int_equal(ic_request(&probe->ic, big, IC_BODY_MAX, SECOND, probe_done), 0);
	assert_int_equal(fake.last.size, HEADERS + IC_BODY_MAX);
	assert_int_equal(last_header().size, IC_BODY_MAX);
	assert_int_equal(probe->dones, 0);
}

static void a_ring_that_breaks_when_sending_ends_the_service(void **state)
{
	(void)state;
	for (unsigned int i = 1; i <= 2; i++) {
		fake.send_error = -EPROTO;
		assert_int_equal(ic_request(&probe->ic, "one", 3, 0, probe_done), 0);
		assert_int_equal(probe->dones, i - 1); /* not yet */
		assert_int_equal(ic_request(&probe->ic, "two", 3, 0, probe_done), -EBUSY);
		if (i == 1)
			fake_run(0);
		assert_int_equal(fake_open(&probe->ic), 0); /* at once: it is told before */
		assert_int_equal(probe->dones, i);
		assert_int_equal(probe->error, -ECONNRESET);
		assert_int_equal(probe->downs, i);
		assert_int_equal(choose(&probe->ic, 3, 2, 5), 0);
		fake_run(SECOND);
		assert_int_equal(probe->downs, i);
	}
	assert_int_equal(probe->ic.timeouts, 0);
	assert_int_equal(ic_request(&probe->ic, "one", 3, 0, probe_done), 0);
	assert_int_equal(echo(&probe->ic), 0);
	assert_int_equal(probe->error, 0);
}

static void closing_ends_a_request(void **state)
{
	struct ic_header header;

	(void)state;
	probe->again = true; /* done() tries to send another */
	assert_int_equal(ic_request(&probe->ic, "one", 3, SECOND, probe_done), 0);
	header = last_header();
	fake_close(&probe->ic);
	assert_int_equal(probe->error, -ECONNRESET);
	assert_int_equal(probe->downs, 1);
	assert_int_equal(fake_timers(), 0);
	fake_run(100 * SECOND);
	assert_int_equal(probe->dones, 1);
	/* An answer to the old one says nothing to the next driver's. */
	assert_int_equal(fake_open(&probe->ic), 0);
	assert_int_equal(say(&probe->ic, PROBE, header.transaction, IC_FLAG_RESPONSE, 0, "one", 3), 0);
	assert_int_equal(choose(&probe->ic, 3, 2, 5), 0);
	assert_int_equal(ic_request(&probe->ic, "two", 3, SECOND, probe_done), 0);
	assert_int_equal(say(&probe->ic, PROBE, header.transaction, IC_FLAG_RESPONSE, 0, "one", 3), 0);
	assert_int_equal(probe->dones, 1);
	assert_int_equal(echo(&probe->ic), 0);
	assert_int_equal(probe->dones, 2);
}

static void a_reset_ends_everything(void **state)
{
	(void)state;
	assert_int_equal(ic_request(&probe->ic, "one", 3, SECOND, probe_done), 0);
	fake_run(SECOND); /* abandoned */
	fake_reset(&probe->ic);
	assert_int_equal(probe->dones, 1);
	assert_int_equal(probe->downs, 1);
	fake_reset(&probe->ic); /* of a machine whose guest has no VMBus */
	assert_int_equal(probe->downs, 1);
	assert_int_equal(fake_open(&probe->ic), 0);
	fake_reset(&probe->ic); /* while negotiating */
	assert_int_equal(probe->downs, 1);
	assert_int_equal(fake_open(&probe->ic), 0);
	assert_int_equal(choose(&probe->ic, 3, 2, 5), 0);
	assert_int_equal(ic_request(&probe->ic, "two", 3, SECOND, probe_done), 0);
	assert_int_equal(echo(&probe->ic), 0);
	assert_int_equal(probe->error, 0);
}

static void transactions_wrap(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 600; i++) {
		assert_int_equal(ic_request(&probe->ic, &i, sizeof(i), SECOND, probe_done), 0);
		assert_int_equal(echo(&probe->ic), 0);
		assert_int_equal(probe->dones, i + 1);
		assert_memory_equal(probe->body, &i, sizeof(i));
	}
	assert_int_equal(probe->ic.strays, 0);
	fake_run(SECOND);
	assert_int_equal(probe->ic.timeouts, 0);
}

/* ---- Framework: timers and the end ---- */

static void timers_are_set_anew(void **state)
{
	(void)state;
	ic_timer_set(&probe->timer, 5 * SECOND);
	ic_timer_set(&probe->timer, 10 * SECOND); /* later: when the loop's ends it is set again */
	fake_run(10 * SECOND - 1);
	assert_int_equal(probe->expired, 0);
	fake_run(1);
	assert_int_equal(probe->expired, 1);
	ic_timer_set(&probe->timer, 10 * SECOND);
	ic_timer_set(&probe->timer, 2 * SECOND); /* earlier: the loop's is cancelled */
	ic_timer_set(&probe->timer, SECOND);
	fake_run(SECOND);
	assert_int_equal(probe->expired, 2);
	ic_timer_set(&probe->timer, SECOND);
	ic_timer_stop(&probe->timer);
	ic_timer_stop(&probe->timer);
	assert_int_equal(fake_timers(), 0);
	ic_timer_set(&probe->timer, 3 * SECOND); /* before the loop has told of the cancellation */
	fake_run(3 * SECOND - 1);
	assert_int_equal(probe->expired, 2);
	fake_run(1);
	assert_int_equal(probe->expired, 3);
	fake_run(100 * SECOND);
	assert_int_equal(probe->expired, 3);
	assert_int_equal(fake_timers(), 0);
}

static void a_removed_device_outlives_its_timers(void **state)
{
	(void)state;
	assert_int_equal(ic_request(&probe->ic, "one", 3, SECOND, probe_done), 0);
	ic_timer_set(&probe->timer, 5 * SECOND);
	fake_remove(&probe->ic.device);
	assert_int_equal(counts.destroyed, 1);
	assert_int_equal(counts.dones, 0);
	assert_int_equal(fake_timers(), 0); /* both cancelled */
	fake_run(0);			    /* freed: LeakSanitizer */
}

static void a_device_without_timers_is_freed_at_once(void **state)
{
	(void)state;
	fake_remove(&probe->ic.device);
	assert_int_equal(counts.destroyed, 1);
}

#define PROBE_TEST(f) cmocka_unit_test_setup_teardown(f, setup_probe, teardown)
#define UP_TEST(f)    cmocka_unit_test_setup_teardown(f, setup_up, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_device_that_cannot_be_added_is_freed_and_told, setup, teardown),
		PROBE_TEST(offers_are_pipes_in_message_mode),
		PROBE_TEST(opening_offers_frameworks_and_versions),
		PROBE_TEST(the_guest_chooses_among_them),
		PROBE_TEST(versions_that_do_not_match_are_told_once),
		PROBE_TEST(short_answers_to_the_offer_fail_the_channel),
		PROBE_TEST(an_offer_that_cannot_be_sent_refuses_the_channel),
		PROBE_TEST(an_offer_waits_for_room),
		PROBE_TEST(negotiation_has_no_time_limit),
		UP_TEST(a_request_is_answered),
		UP_TEST(done_may_send_the_next),
		UP_TEST(what_answers_nothing_is_counted_and_ignored),
		UP_TEST(broken_packets_fail_the_channel),
		UP_TEST(a_request_that_times_out_is_not_followed_by_another),
		UP_TEST(a_request_is_given_up_after_a_minute),
		UP_TEST(a_request_waits_for_room),
		UP_TEST(a_ring_that_breaks_while_waiting_ends_the_service),
		UP_TEST(a_request_that_cannot_be_sent_is_refused),
		UP_TEST(a_ring_that_breaks_when_sending_ends_the_service),
		UP_TEST(closing_ends_a_request),
		UP_TEST(a_reset_ends_everything),
		UP_TEST(transactions_wrap),
		UP_TEST(timers_are_set_anew),
		UP_TEST(a_removed_device_outlives_its_timers),
		PROBE_TEST(a_device_without_timers_is_freed_at_once),
	};

	return cmocka_run_group_tests_name("ic", tests, NULL, NULL);
}
