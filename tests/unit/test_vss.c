/* SPDX-License-Identifier: MIT */
/* Freeze and thaw: the requests, the states, and that no guest stays frozen, whatever it answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/ic_guest.h"

#include "devices/vmbus/ic_vss.h"

enum { HOT_BACKUP = 2, FREEZE = 5, THAW = 6 };

#define NOT_SUPPORTED 0x80070032u

static struct ic *ic;

static int setup(void **state)
{
	(void)state;
	fake_setup();
	assert_int_equal(ic_vss_create(&fake.vm), 0);
	ic = ic_find(&fake.vm, "vss");
	assert_non_null(ic);
	assert_int_equal(vss_state(&fake.vm), VSS_DOWN);
	guest_up(ic, 5, 0);
	assert_int_equal(vss_state(&fake.vm), VSS_THAWED);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_teardown();
	return 0;
}

/* The last request is this one and waits for an answer. */
static void expect(uint8_t operation)
{
	const uint8_t *m = guest_body();

	assert_true(ic->waiting);
	assert_int_equal(guest_header().type, IC_TYPE_VSS);
	assert_int_equal(guest_header().size, 12);
	assert_int_equal(m[0], operation);
}

/* Up to the guest's answer to FREEZE. */
static void begin_freeze(struct outcome *o)
{
	memset(o, 0, sizeof(*o));
	vss_freeze(&fake.vm, record, o);
	assert_int_equal(vss_state(&fake.vm), VSS_FREEZING);
	expect(HOT_BACKUP);
	guest_echo(ic, 0);
	expect(FREEZE);
	assert_int_equal(vss_state(&fake.vm), VSS_FREEZING);
	assert_int_equal(o->calls, 0);
}

static void freeze(void)
{
	struct outcome o;

	begin_freeze(&o);
	guest_echo(ic, 0);
	check_outcome(&o, 0);
	assert_int_equal(vss_state(&fake.vm), VSS_FROZEN);
}

static void freeze_and_thaw(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		struct outcome o = { 0 };

		freeze();
		fake_run((VSS_FROZEN_MAX - 1) * SECOND);
		vss_thaw(&fake.vm, record, &o);
		expect(THAW);
		assert_int_equal(vss_state(&fake.vm), VSS_THAWING);
		guest_echo(ic, 0);
		check_outcome(&o, 0);
		assert_int_equal(vss_state(&fake.vm), VSS_THAWED);
		fake_run(1000 * SECOND);
		assert_false(ic->waiting);
	}
	assert_int_equal(fake_timers(), 0);
	assert_int_equal(fake.logs, 0);
}

static void a_guest_that_cannot_freeze(void **state)
{
	struct outcome failed = { 0 }, refused = { 0 };

	(void)state;
	vss_freeze(&fake.vm, record, &failed);
	guest_echo(ic, IC_E_FAIL);
	check_outcome(&failed, -EIO);
	vss_freeze(&fake.vm, record, &refused);
	guest_answer(ic, NOT_SUPPORTED, NULL, 0);
	check_outcome(&refused, -EOPNOTSUPP);
	assert_int_equal(vss_state(&fake.vm), VSS_THAWED);
	assert_false(ic->waiting);
	freeze();
}

static void a_freeze_nobody_thaws(void **state)
{
	(void)state;
	freeze();
	fake_run((VSS_FROZEN_MAX - 1) * SECOND);
	assert_false(ic->waiting);
	fake_run(2 * SECOND);
	expect(THAW);
	assert_int_equal(vss_state(&fake.vm), VSS_THAWING);
	assert_int_equal(fake.logs, 1);
	guest_echo(ic, 0);
	assert_int_equal(vss_state(&fake.vm), VSS_THAWED);
	freeze();
}

static void a_thaw_that_fails_is_tried_again(void **state)
{
	struct outcome o = { 0 };

	(void)state;
	freeze();
	vss_thaw(&fake.vm, record, &o);
	guest_echo(ic, IC_E_FAIL);
	check_outcome(&o, -EIO);
	assert_int_equal(vss_state(&fake.vm), VSS_FROZEN);
	for (int i = 0; i < 3; i++) {
		assert_false(ic->waiting);
		fake_run((VSS_FROZEN_MAX + 1) * SECOND);
		expect(THAW);
		guest_echo(ic, IC_E_FAIL);
		assert_int_equal(vss_state(&fake.vm), VSS_FROZEN);
	}
	/* Told once that it is thawed, and once that this failed. */
	assert_int_equal(fake.logs, 2);
	fake_run((VSS_FROZEN_MAX + 1) * SECOND);
	guest_echo(ic, 0);
	assert_int_equal(vss_state(&fake.vm), VSS_THAWED);
}

static void a_thaw_without_answer(void **state)
{
	struct outcome o = { 0 };

	(void)state;
	freeze();
	vss_thaw(&fake.vm, record, &o);
	fake_run(36 * SECOND);
	check_outcome(&o, -ETIMEDOUT);
	assert_int_equal(vss_state(&fake.vm), VSS_FROZEN);
	/* It comes back an hour later. */
	fake_run(3600 * SECOND);
	assert_true(vss_state(&fake.vm) == VSS_FROZEN || vss_state(&fake.vm) == VSS_THAWING);
	for (int i = 0; i < 200 && vss_state(&fake.vm) != VSS_THAWED; i++) {
		guest_echo(ic, 0);
		fake_run(SECOND);
	}
	assert_int_equal(vss_state(&fake.vm), VSS_THAWED);
	assert_false(ic->waiting);
}

static void a_freeze_that_fails_is_undone(void **state)
{
	struct outcome o;

	(void)state;
	begin_freeze(&o);
	guest_echo(ic, IC_E_FAIL);
	check_outcome(&o, -EIO);
	expect(THAW);
	assert_int_equal(vss_state(&fake.vm), VSS_THAWING);
	/* Whether it likes that or not. */
	guest_echo(ic, IC_E_FAIL);
	assert_int_equal(vss_state(&fake.vm), VSS_THAWED);
	fake_run(1000 * SECOND);
	assert_false(ic->waiting);
	assert_int_equal(fake.logs, 0);
}

static void a_freeze_without_answer_is_undone(void **state)
{
	struct ic_header late;
	struct outcome o;

	(void)state;
	begin_freeze(&o);
	late = guest_header();
	late.flags = IC_FLAG_RESPONSE;
	/* A large file system takes its time. */
	fake_run(15 * 60 * SECOND);
	assert_int_equal(o.calls, 0);
	fake_run(10 * SECOND);
	check_outcome(&o, -ETIMEDOUT);
	assert_int_equal(vss_state(&fake.vm), VSS_THAWING);
	expect(THAW);
	/* Frozen after all. */
	assert_int_equal(guest_send(ic, &late, guest_body()), 0);
	expect(THAW);
	guest_echo(ic, 0);
	assert_int_equal(vss_state(&fake.vm), VSS_THAWED);
	check_outcome(&o, -ETIMEDOUT);
}

static void a_guest_that_never_answers(void **state)
{
	struct outcome o;

	(void)state;
	begin_freeze(&o);
	fake_run(3 * 3600 * SECOND);
	check_outcome(&o, -ETIMEDOUT);
	/* It is still told to thaw, at most once a minute. */
	assert_true(ic->requests > 30 && ic->requests < 200);
	assert_true(fake.logs <= 2);
	fake_reset(ic);
	assert_int_equal(fake_timers(), 0);
	assert_int_equal(vss_state(&fake.vm), VSS_DOWN);
}

static void thaw_while_freezing(void **state)
{
	struct outcome frozen, thawed = { 0 }, third = { 0 };

	(void)state;
	begin_freeze(&frozen);
	vss_thaw(&fake.vm, record, &thawed);
	vss_thaw(&fake.vm, record, &third);
	check_outcome(&third, -EBUSY);
	expect(FREEZE);
	guest_echo(ic, 0);
	check_outcome(&frozen, 0);
	expect(THAW);
	assert_int_equal(thawed.calls, 0);
	guest_echo(ic, 0);
	check_outcome(&thawed, 0);
	assert_int_equal(vss_state(&fake.vm), VSS_THAWED);

	/* The same while it is asked whether it can. */
	memset(&frozen, 0, sizeof(frozen));
	memset(&thawed, 0, sizeof(thawed));
	vss_freeze(&fake.vm, record, &frozen);
	vss_thaw(&fake.vm, record, &thawed);
	guest_answer(ic, NOT_SUPPORTED, NULL, 0);
	check_outcome(&frozen, -EOPNOTSUPP);
	check_outcome(&thawed, 0);
	assert_false(ic->waiting);
}

static void thaw_what_is_not_frozen(void **state)
{
	struct outcome o = { 0 }, refused = { 0 }, silent = { 0 };

	(void)state;
	vss_thaw(&fake.vm, record, &o);
	expect(THAW);
	guest_echo(ic, 0);
	check_outcome(&o, 0);
	vss_thaw(&fake.vm, record, &refused);
	guest_echo(ic, IC_E_FAIL);
	check_outcome(&refused, -EIO);
	assert_int_equal(vss_state(&fake.vm), VSS_THAWED);
	vss_thaw(&fake.vm, record, &silent);
	fake_run(36 * SECOND);
	check_outcome(&silent, -ETIMEDOUT);
	assert_int_equal(vss_state(&fake.vm), VSS_THAWED);
}

static void freeze_twice(void **state)
{
	struct outcome first, o = { 0 };

	(void)state;
	begin_freeze(&first);
	vss_freeze(&fake.vm, record, &o);
	check_outcome(&o, -EBUSY);
	guest_echo(ic, 0);
	check_outcome(&first, 0);
	memset(&o, 0, sizeof(o));
	vss_freeze(&fake.vm, record, &o);
	check_outcome(&o, -EBUSY);
	assert_non_null(strstr(o.text, "frozen"));
}

static void closed_and_reset_meanwhile(void **state)
{
	struct outcome frozen, thawed = { 0 }, late = { 0 };

	(void)state;
	begin_freeze(&frozen);
	vss_thaw(&fake.vm, record, &thawed);
	fake_close(ic);
	check_outcome(&frozen, -ECONNRESET);
	check_outcome(&thawed, -ECONNRESET);
	assert_int_equal(vss_state(&fake.vm), VSS_DOWN);
	vss_freeze(&fake.vm, record, &late);
	check_outcome(&late, -ENOTCONN);

	guest_up(ic, 5, 0);
	freeze();
	fake_reset(ic);
	fake_run(1000 * SECOND);
	assert_int_equal(fake.logs, 0);
	guest_up(ic, 5, 0);
	assert_int_equal(vss_state(&fake.vm), VSS_THAWED);
	freeze();
	assert_true(fake_packet(ic, VMBUS_PACKET_INBAND, "junk", 4) < 0);
	assert_int_equal(vss_state(&fake.vm), VSS_DOWN);
}

static void closed_while_a_thaw_waits_for_a_late_answer(void **state)
{
	struct outcome frozen, thawed = { 0 };

	(void)state;
	begin_freeze(&frozen);
	fake_run(906 * SECOND);
	check_outcome(&frozen, -ETIMEDOUT);
	vss_thaw(&fake.vm, record, &thawed);
	assert_int_equal(thawed.calls, 0);
	fake_close(ic);
	check_outcome(&thawed, -ECONNRESET);
	fake_run(100 * SECOND);
	check_outcome(&thawed, -ECONNRESET);
}

static void destroyed_with_orders(void **state)
{
	struct outcome frozen, thawed = { 0 }, none = { 0 };

	(void)state;
	begin_freeze(&frozen);
	vss_thaw(&fake.vm, record, &thawed);
	fake_teardown();
	check_outcome(&frozen, -ECONNRESET);
	check_outcome(&thawed, -ECONNRESET);
	vss_thaw(&fake.vm, record, &none);
	check_outcome(&none, -ENODEV);
	assert_int_equal(vss_state(&fake.vm), VSS_DOWN);
}

static void answers_twice(void **state)
{
	(void)state;
	freeze();
	guest_echo(ic, 0);
	guest_echo(ic, IC_E_FAIL);
	assert_int_equal(vss_state(&fake.vm), VSS_FROZEN);
	assert_false(ic->waiting);
}

static void thaw_at_once(void *opaque, int error, const char *text)
{
	struct outcome *o = opaque;

	record(&o[0], error, text);
	vss_thaw(&fake.vm, record, &o[1]);
}

static void a_callback_may_give_orders(void **state)
{
	struct outcome o[2] = { 0 };

	(void)state;
	vss_freeze(&fake.vm, thaw_at_once, o);
	guest_echo(ic, 0);
	guest_echo(ic, 0);
	check_outcome(&o[0], 0);
	expect(THAW);
	guest_echo(ic, 0);
	check_outcome(&o[1], 0);
	/* The same when the freeze fails, and a thaw is under way by itself. */
	memset(o, 0, sizeof(o));
	vss_freeze(&fake.vm, thaw_at_once, o);
	guest_echo(ic, 0);
	guest_echo(ic, IC_E_FAIL);
	check_outcome(&o[0], -EIO);
	expect(THAW);
	guest_echo(ic, 0);
	check_outcome(&o[1], 0);
	assert_int_equal(vss_state(&fake.vm), VSS_THAWED);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(freeze_and_thaw),
		CASE(a_guest_that_cannot_freeze),
		CASE(a_freeze_nobody_thaws),
		CASE(a_thaw_that_fails_is_tried_again),
		CASE(a_thaw_without_answer),
		CASE(a_freeze_that_fails_is_undone),
		CASE(a_freeze_without_answer_is_undone),
		CASE(a_guest_that_never_answers),
		CASE(thaw_while_freezing),
		CASE(thaw_what_is_not_frozen),
		CASE(freeze_twice),
		CASE(closed_and_reset_meanwhile),
		CASE(closed_while_a_thaw_waits_for_a_late_answer),
		CASE(destroyed_with_orders),
		CASE(answers_twice),
		CASE(a_callback_may_give_orders),
	};

	return cmocka_run_group_tests_name("vss", tests, NULL, NULL);
}
