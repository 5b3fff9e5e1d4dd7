/* SPDX-License-Identifier: MIT */
/* Heartbeat, shutdown and time synchronization, with a guest's driver that the tests play. */
/* cmocka wants these before itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <time.h>

#include "ic_fake.h"

#include "devices/vmbus/ic_heartbeat.h"
#include "devices/vmbus/ic_shutdown.h"
#include "devices/vmbus/ic_timesync.h"

static int setup(void **state)
{
	(void)state;
	fake_setup();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_teardown();
	return 0;
}

/* ---- Heartbeat ---- */

static struct ic *hb;

static struct ic_heartbeat_status heart(void)
{
	struct ic_heartbeat_status status;

	ic_heartbeat_get(&fake.vm, &status);
	return status;
}

static int setup_heartbeat(void **state)
{
	setup(state);
	assert_int_equal(ic_heartbeat_create(&fake.vm), 0);
	hb = ic_find(&fake.vm, "heartbeat");
	assert_non_null(hb);
	return 0;
}

static int setup_beating(void **state)
{
	setup_heartbeat(state);
	assert_int_equal(fake_open(hb), 0);
	return choose(hb, 3, 3, 0);
}

static int answer_beat(uint64_t add, uint32_t application)
{
	uint8_t body[40];
	uint64_t sequence;

	memcpy(body, last_body(), sizeof(body));
	memcpy(&sequence, body, 8);
	sequence += add;
	memcpy(body, &sequence, 8);
	memcpy(body + 8, &application, 4);
	return answer(hb, IC_S_OK, body, sizeof(body));
}

static void heartbeat_without_a_guest_costs_nothing(void **state)
{
	(void)state;
	assert_int_equal(heart().state, IC_HEARTBEAT_DOWN);
	assert_int_equal(fake_timers(), 0);
	assert_int_equal(fake_open(hb), 0);
	assert_int_equal(fake_timers(), 0);
	assert_int_equal(choose(hb, 3, 3, 0), 0);
	assert_int_equal(fake_timers(), 1);
	assert_int_equal(heart().state, IC_HEARTBEAT_DOWN); /* not a beat yet */
	fake_close(hb);
	assert_int_equal(fake_timers(), 0);
	fake.vm.vmbus = NULL;
	assert_int_equal(heart().state, IC_HEARTBEAT_DOWN);
	fake.vm.vmbus = &fake.bus;
}

static void heart_beats_every_two_seconds(void **state)
{
	(void)state;
	for (uint64_t i = 1; i <= 5; i++) {
		unsigned int sent = fake.sent;
		uint64_t sequence;

		assert_int_equal(last_header().type, 1);
		assert_int_equal(last_header().size, 40);
		assert_int_equal(last_header().message.major, 3);
		memcpy(&sequence, last_body(), 8);
		assert_int_equal(sequence, i);
		fake_run(SECOND / 2);
		assert_int_equal(answer_beat(1, IC_APPLICATION_HEALTHY), 0);
		assert_int_equal(heart().state, IC_HEARTBEAT_UP);
		assert_int_equal(heart().application, IC_APPLICATION_HEALTHY);
		assert_int_equal(heart().beats, i);
		assert_int_equal(heart().age_ns, 0);
		fake_run(3 * SECOND / 2 - 1);
		assert_int_equal(heart().age_ns, 3 * SECOND / 2 - 1);
		assert_int_equal(fake.sent, sent);
		fake_run(1);
		assert_int_equal(fake.sent, sent + 1);
		assert_int_equal(fake.flushed, fake.sent);
	}
	assert_int_equal(heart().missed, 0);
}

static void a_guest_that_hangs_is_lost_and_found(void **state)
{
	unsigned int sent;

	(void)state;
	assert_int_equal(answer_beat(1, 0), 0);
	fake_run(2 * SECOND);
	sent = fake.sent;
	assert_int_equal(heart().state, IC_HEARTBEAT_UP);
	fake_run(2 * SECOND);
	assert_int_equal(heart().state, IC_HEARTBEAT_LOST);
	assert_string_equal(ic_heartbeat_state_name(heart().state), "lost");
	assert_int_equal(heart().missed, 1);
	fake_run(20 * SECOND);
	assert_int_equal(heart().missed, 11);
	assert_int_equal(heart().age_ns, 24 * SECOND);
	assert_int_equal(fake.sent, sent);	/* only one waits for it */
	assert_int_equal(answer_beat(1, 0), 0); /* late; is asked at once whether it is well */
	assert_int_equal(heart().state, IC_HEARTBEAT_LOST);
	assert_int_equal(fake.sent, sent + 1);
	assert_int_equal(answer_beat(1, 0), 0);
	assert_int_equal(heart().state, IC_HEARTBEAT_UP);
	assert_int_equal(heart().beats, 2);
	fake_run(2 * SECOND);
	assert_int_equal(fake.sent, sent + 2);
	assert_int_equal(fake.logs, 0);
}

static void a_beat_that_got_lost_is_not_the_last(void **state)
{
	unsigned int sent = fake.sent;

	(void)state;
	fake_run(60 * SECOND - 1);
	assert_int_equal(fake.sent, sent);
	fake_run(1);
	assert_int_equal(fake.sent, sent + 1);
	assert_int_equal(answer_beat(1, 0), 0);
	assert_int_equal(heart().state, IC_HEARTBEAT_UP);
}

static void wrong_beats_are_missed_ones(void **state)
{
	(void)state;
	assert_int_equal(answer_beat(0, 0), 0);
	assert_int_equal(heart().state, IC_HEARTBEAT_LOST);
	fake_run(2 * SECOND);
	assert_int_equal(answer_beat(2, 0), 0);
	fake_run(2 * SECOND);
	assert_int_equal(answer(hb, IC_S_OK, "1234567", 7), 0);
	fake_run(2 * SECOND);
	assert_int_equal(answer(hb, IC_E_FAIL, (uint64_t[]){ 5 }, 8), 0);
	assert_int_equal(heart().missed, 4);
	assert_int_equal(heart().beats, 0);
	fake_run(2 * SECOND);
	assert_int_equal(answer(hb, IC_S_OK, (uint64_t[]){ 6 }, 8), 0); /* the number is enough */
	assert_int_equal(heart().state, IC_HEARTBEAT_UP);
	assert_int_equal(heart().application, IC_APPLICATION_UNKNOWN);
	fake_run(2 * SECOND);
	assert_int_equal(answer_beat(1, 77), 0);
	assert_int_equal(heart().application, IC_APPLICATION_UNKNOWN);
	fake_run(2 * SECOND);
	assert_int_equal(answer_beat(1, IC_APPLICATION_CRITICAL), 0);
	assert_int_equal(heart().application, IC_APPLICATION_CRITICAL);
}

static void a_broken_ring_stops_the_beats(void **state)
{
	(void)state;
	assert_int_equal(answer_beat(1, 0), 0);
	fake.send_error = -EPROTO;
	fake_run(2 * SECOND);
	assert_int_equal(heart().state, IC_HEARTBEAT_DOWN);
	assert_int_equal(heart().missed, 0);
	assert_int_equal(fake_timers(), 0);
}

static void a_guest_that_leaves_is_down(void **state)
{
	(void)state;
	assert_int_equal(answer_beat(1, IC_APPLICATION_HEALTHY), 0);
	fake_reset(hb);
	assert_int_equal(heart().state, IC_HEARTBEAT_DOWN);
	assert_int_equal(heart().application, IC_APPLICATION_UNKNOWN);
	assert_int_equal(heart().age_ns, 0);
	assert_int_equal(heart().beats, 1);
	assert_int_equal(fake_timers(), 0);
	fake_run(10 * SECOND);
	assert_int_equal(heart().missed, 0);
	assert_int_equal(fake_open(hb), 0);
	assert_int_equal(choose(hb, 1, 1, 0), 0);
	fake_close(hb); /* with a beat under way */
	assert_int_equal(fake_timers(), 0);
	assert_int_equal(fake_open(hb), 0);
	assert_int_equal(choose(hb, 1, 1, 0), 0);
	assert_int_equal(answer_beat(1, 0), 0);
	assert_int_equal(heart().state, IC_HEARTBEAT_UP);
	assert_int_equal(heart().missed, 0);
}

/* ---- Shutdown ---- */

static struct ic *sd;

static int setup_shutdown(void **state)
{
	setup(state);
	assert_int_equal(ic_shutdown_create(&fake.vm), 0);
	sd = ic_find(&fake.vm, "shutdown");
	assert_non_null(sd);
	return 0;
}

static void shutdown_is_up(uint16_t major, uint16_t minor)
{
	if (sd->device.channel->open)
		fake_close(sd);
	assert_int_equal(fake_open(sd), 0);
	assert_int_equal(choose(sd, 3, major, minor), 0);
}

static void shutdown_needs_the_guest(void **state)
{
	(void)state;
	assert_int_equal(ic_shutdown_request(&fake.vm, 0), -ENOTCONN);
	assert_false(ic_shutdown_ready(&fake.vm));
	assert_int_equal(fake_open(sd), 0);
	assert_int_equal(ic_shutdown_request(&fake.vm, 0), -ENOTCONN);
	assert_false(ic_shutdown_ready(&fake.vm));
	assert_int_equal(choose(sd, 3, 3, 2), 0);
	assert_true(ic_shutdown_ready(&fake.vm));
	assert_int_equal(ic_shutdown_request(&fake.vm, 0), 0);
	assert_int_equal(ic_shutdown_request(&fake.vm, 0), -EBUSY);
	assert_int_equal(echo(sd), 0);
	assert_int_equal(fake.logs, 0);
	fake_close(sd);
	assert_int_equal(ic_shutdown_request(&fake.vm, 0), -ENOTCONN);
	fake.vm.vmbus = NULL;
	assert_int_equal(ic_shutdown_request(&fake.vm, 0), -ENOTCONN);
	assert_false(ic_shutdown_ready(&fake.vm));
	fake.vm.vmbus = &fake.bus;
}

static void shutdown_says_what_the_version_allows(void **state)
{
	static const struct {
		uint16_t major, minor;
		uint32_t flags;
		int ret;
	} cases[] = {
		{ 1, 0, 0, 0 },		  { 1, 0, 1, 0 },	{ 1, 0, 2, -EOPNOTSUPP },
		{ 1, 0, 4, -EOPNOTSUPP }, { 3, 0, 1, 0 },	{ 3, 0, 3, -EOPNOTSUPP },
		{ 3, 1, 2, 0 },		  { 3, 1, 3, 0 },	{ 3, 1, 4, -EOPNOTSUPP },
		{ 3, 2, 3, 0 },		  { 3, 2, 4, 0 },	{ 3, 2, 5, 0 },
		{ 3, 2, 6, -EINVAL },	  { 3, 2, 8, -EINVAL }, { 3, 2, 0x80000000, -EINVAL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const uint32_t *body = last_body();
		unsigned int sent;

		shutdown_is_up(cases[i].major, cases[i].minor);
		sent = fake.sent;
		assert_int_equal(ic_shutdown_request(&fake.vm, cases[i].flags), cases[i].ret);
		assert_int_equal(fake.sent, sent + !cases[i].ret);
		if (cases[i].ret)
			continue;
		assert_int_equal(last_header().type, 3);
		assert_int_equal(last_header().size, 12 + 2048);
		assert_int_equal(fake.last.size, HEADERS + 12 + 2048);
		assert_int_equal(body[0], 0x80000000);
		assert_int_equal(body[1], 0);
		assert_int_equal(body[2], cases[i].flags);
		assert_int_equal(body[3], 0);
		assert_int_equal(echo(sd), 0);
	}
	assert_int_equal(fake.logs, 0);
}

static void a_guest_that_refuses_is_told(void **state)
{
	(void)state;
	shutdown_is_up(3, 2);
	assert_int_equal(ic_shutdown_request(&fake.vm, IC_SHUTDOWN_HIBERNATE), 0);
	assert_int_equal(answer(sd, IC_E_FAIL, last_body(), 2060), 0);
	assert_string_equal(fake.log, "vmbus: shutdown: the guest refuses (status 0x80004005)");
	assert_int_equal(fake.logs, 1);
	assert_int_equal(ic_shutdown_request(&fake.vm, 0), 0);
	fake_run(30 * SECOND);
	assert_string_equal(fake.log, "vmbus: shutdown: the guest has not answered for 30 s");
	assert_int_equal(fake.logs, 2);
	assert_int_equal(ic_shutdown_request(&fake.vm, 0), -EBUSY);
	fake_reset(sd);
	shutdown_is_up(3, 2);
	assert_int_equal(ic_shutdown_request(&fake.vm, 0), 0);
	fake_close(sd); /* it goes down: nothing to tell */
	assert_int_equal(fake.logs, 2);
}

/* ---- Time ---- */

static struct ic *ts;

static int setup_timesync(void **state)
{
	setup(state);
	assert_int_equal(ic_timesync_create(&fake.vm), 0);
	ts = ic_find(&fake.vm, "timesync");
	assert_non_null(ts);
	ic_timesync_sync(&fake.vm); /* without a guest: nothing */
	assert_int_equal(fake.sent, 0);
	return 0;
}

static uint64_t host_time(void)
{
	uint64_t t;

	memcpy(&t, last_body(), 8);
	return t;
}

static uint64_t since_1601(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return ((uint64_t)now.tv_sec + 11644473600ULL) * 10000000 + (uint64_t)now.tv_nsec / 100;
}

/* Flag of the last message of version 4. */
static uint8_t flag_v4(void)
{
	assert_int_equal(last_header().type, 4);
	assert_int_equal(last_header().size, 24);
	return ((const uint8_t *)last_body())[16];
}

static void the_first_message_sets_the_clock(void **state)
{
	uint64_t before = since_1601(), reference = fake.reference, t;

	(void)state;
	assert_int_equal(fake_open(ts), 0);
	assert_int_equal(fake_timers(), 0);
	assert_int_equal(choose(ts, 3, 4, 0), 0);
	assert_int_equal(flag_v4(), 1);
	assert_true(host_time() >= before && host_time() <= since_1601());
	memcpy(&t, (const uint8_t *)last_body() + 8, 8);
	assert_true(t >= reference && t < fake.reference);
	for (unsigned int i = 0; i < 3; i++) {
		unsigned int sent = fake.sent;

		assert_int_equal(echo(ts), 0);
		fake_run(5 * SECOND - 1);
		assert_int_equal(fake.sent, sent);
		fake_run(1);
		assert_int_equal(fake.sent, sent + 1);
		assert_int_equal(flag_v4(), 2);
	}
	fake_close(ts);
	assert_int_equal(fake_timers(), 0);
}

static void old_versions_have_their_own_message(void **state)
{
	(void)state;
	for (uint16_t major = 1; major <= 3; major += 2) {
		uint64_t before = since_1601();

		assert_int_equal(fake_open(ts), 0);
		assert_int_equal(choose(ts, 1, major, 0), 0);
		assert_int_equal(last_header().type, 4);
		assert_int_equal(last_header().size, 25);
		assert_true(host_time() >= before && host_time() <= since_1601());
		assert_int_equal(((const uint8_t *)last_body())[8], 0);
		assert_int_equal(((const uint8_t *)last_body())[24], 1);
		assert_int_equal(echo(ts), 0);
		fake_run(5 * SECOND);
		assert_int_equal(((const uint8_t *)last_body())[24], 2);
		fake_close(ts);
	}
}

static void sync_sets_the_clock_again(void **state)
{
	unsigned int sent;

	(void)state;
	assert_int_equal(fake_open(ts), 0);
	ic_timesync_sync(&fake.vm);
	assert_int_equal(fake.sent, 1); /* not up yet */
	assert_int_equal(choose(ts, 3, 4, 0), 0);
	assert_int_equal(echo(ts), 0);
	sent = fake.sent;
	ic_timesync_sync(&fake.vm);
	assert_int_equal(fake.sent, sent + 1);
	assert_int_equal(flag_v4(), 1);
	assert_int_equal(echo(ts), 0);
	fake_run(5 * SECOND);
	assert_int_equal(flag_v4(), 2);
	ic_timesync_sync(&fake.vm); /* with a sample under way: after it */
	assert_int_equal(fake.sent, sent + 2);
	assert_int_equal(echo(ts), 0);
	assert_int_equal(fake.sent, sent + 3);
	assert_int_equal(flag_v4(), 1);
	assert_int_equal(echo(ts), 0);
	assert_int_equal(fake.sent, sent + 3);
}

static void a_sync_read_late_is_repeated(void **state)
{
	unsigned int sent;

	(void)state;
	assert_int_equal(fake_open(ts), 0);
	assert_int_equal(choose(ts, 3, 4, 0), 0);
	sent = fake.sent;
	fake_run(30 * SECOND);
	assert_int_equal(fake.sent, sent); /* only one waits for it */
	assert_int_equal(echo(ts), 0);
	assert_int_equal(fake.sent, sent + 1);
	assert_int_equal(flag_v4(), 1);
	assert_int_equal(echo(ts), 0);
	fake_run(5 * SECOND);
	assert_int_equal(flag_v4(), 2);
	fake_run(5 * SECOND);
	ic_timesync_sync(&fake.vm); /* while it does not answer */
	assert_int_equal(fake.sent, sent + 2);
	assert_int_equal(echo(ts), 0);
	assert_int_equal(flag_v4(), 1);
	fake_reset(ts);
	assert_int_equal(fake_timers(), 0);
	assert_int_equal(fake_open(ts), 0);
	assert_int_equal(choose(ts, 3, 4, 0), 0);
	assert_int_equal(echo(ts), 0);
	fake.send_error = -EPROTO; /* the ring is broken */
	fake_run(5 * SECOND);
	assert_int_equal(fake_timers(), 0);
}

/* ---- All three ---- */

static void the_guids_are_microsofts(void **state)
{
	static const struct {
		const char *name;
		struct vmbus_guid type, instance;
	} all[] = {
		{ "heartbeat", VMBUS_GUID(0x57164f39, 0x9115, 0x4e78, 0xab, 0x55, 0x38, 0x2f, 0x3b, 0xd5, 0x42, 0x2d),
		  VMBUS_GUID(0xfd149e91, 0x82e0, 0x4a7d, 0xaf, 0xa6, 0x2a, 0x41, 0x66, 0xcb, 0xd7, 0xc0) },
		{ "shutdown", VMBUS_GUID(0x0e0b6031, 0x5213, 0x4934, 0x81, 0x8b, 0x38, 0xd9, 0x0c, 0xed, 0x39, 0xdb),
		  VMBUS_GUID(0xb6650ff7, 0x33bc, 0x4840, 0x80, 0x48, 0xe0, 0x67, 0x67, 0x86, 0xf3, 0x93) },
		{ "timesync", VMBUS_GUID(0x9527e630, 0xd0ae, 0x497b, 0xad, 0xce, 0xe8, 0x0a, 0xb0, 0x17, 0x5c, 0xaf),
		  VMBUS_GUID(0x2dd1ce17, 0x079e, 0x403c, 0xb3, 0x52, 0xa1, 0x92, 0x1e, 0xe2, 0x07, 0xee) },
	};

	(void)state;
	assert_int_equal(ic_heartbeat_create(&fake.vm), 0);
	assert_int_equal(ic_shutdown_create(&fake.vm), 0);
	assert_int_equal(ic_timesync_create(&fake.vm), 0);
	for (size_t i = 0; i < 3; i++) {
		const struct ic *ic = ic_find(&fake.vm, all[i].name);

		assert_non_null(ic);
		assert_memory_equal(&ic->device.class->type, &all[i].type, 16);
		assert_memory_equal(&ic->device.class->instance, &all[i].instance, 16);
		assert_true(ic->class->nr_versions <= IC_VERSIONS_MAX);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(heartbeat_without_a_guest_costs_nothing, setup_heartbeat, teardown),
		cmocka_unit_test_setup_teardown(heart_beats_every_two_seconds, setup_beating, teardown),
		cmocka_unit_test_setup_teardown(a_guest_that_hangs_is_lost_and_found, setup_beating, teardown),
		cmocka_unit_test_setup_teardown(a_beat_that_got_lost_is_not_the_last, setup_beating, teardown),
		cmocka_unit_test_setup_teardown(wrong_beats_are_missed_ones, setup_beating, teardown),
		cmocka_unit_test_setup_teardown(a_broken_ring_stops_the_beats, setup_beating, teardown),
		cmocka_unit_test_setup_teardown(a_guest_that_leaves_is_down, setup_beating, teardown),
		cmocka_unit_test_setup_teardown(shutdown_needs_the_guest, setup_shutdown, teardown),
		cmocka_unit_test_setup_teardown(shutdown_says_what_the_version_allows, setup_shutdown, teardown),
		cmocka_unit_test_setup_teardown(a_guest_that_refuses_is_told, setup_shutdown, teardown),
		cmocka_unit_test_setup_teardown(the_first_message_sets_the_clock, setup_timesync, teardown),
		cmocka_unit_test_setup_teardown(old_versions_have_their_own_message, setup_timesync, teardown),
		cmocka_unit_test_setup_teardown(sync_sets_the_clock_again, setup_timesync, teardown),
		cmocka_unit_test_setup_teardown(a_sync_read_late_is_repeated, setup_timesync, teardown),
		cmocka_unit_test_setup_teardown(the_guids_are_microsofts, setup, teardown),
	};

	return cmocka_run_group_tests_name("ic_services", tests, NULL, NULL);
}
