/* SPDX-License-Identifier: MIT */
/* The keyboard on VMBus, and what keys make of text. The names of keys are tried by tests/guests. */
/* cmocka wants these before itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "devices/vmbus/keyboard.h"
#include "ic_fake.h"

#define MS 1000000ULL

static unsigned int dones;
static int error;

static void done(void *opaque, int result)
{
	assert_ptr_equal(opaque, &dones);
	dones++;
	error = result;
}

static struct ic *keyboard(void)
{
	return (struct ic *)vmbus_find_device(&fake.bus, "keyboard");
}

static int setup(void **state)
{
	(void)state;
	fake_setup();
	dones = 0;
	assert_int_equal(keyboard_create(&fake.vm), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (keyboard())
		fake_remove(&keyboard()->device);
	fake_run(SECOND);
	assert_int_equal(fake_timers(), 0);
	return 0;
}

static void ask(uint32_t version, uint32_t accepted)
{
	const uint32_t request[] = { 1, version }, response[] = { 2, accepted };

	assert_int_equal(fake_packet(keyboard(), VMBUS_PACKET_INBAND, request, sizeof(request)), 0);
	assert_int_equal(fake.last.size, sizeof(response));
	assert_memory_equal(fake.last.payload, response, sizeof(response));
}

static void come_up(void)
{
	assert_int_equal(fake_open(keyboard()), 0);
	ask(0x10000, 1);
	fake.sent = fake.flushed = 0;
}

/* "ab": four strokes, two pauses. */
static int type_ab(void)
{
	struct keystroke strokes[2 * KEYMAP_STROKES_MAX];
	size_t n = keymap_character('a', strokes);

	n += keymap_character('b', &strokes[n]);
	assert_int_equal(n, 4);
	return keyboard_type(&fake.vm, strokes, n, done, &dones);
}

static void test_characters(void **state)
{
	struct keystroke s[KEYMAP_STROKES_MAX];
	unsigned int keys = 0;

	(void)state;
	for (int c = 0; c < 256; c++) {
		size_t n = keymap_character((char)c, s);

		assert_int_equal(n != 0, (c >= 32 && c < 127) || c == '\n' || c == '\t');
		if (!n)
			continue;
		keys++;
		assert_true(n == 2 || (n == 4 && s[0].make == 0x2a && s[3].make == 0x2a && s[3].release));
		assert_true(s[n - 1].pause && s[n / 2].release && !s[n / 2 - 1].release);
		assert_int_equal(s[n / 2].make, s[n / 2 - 1].make);
	}
	assert_int_equal(keys, 97);
}

static void test_pace(void **state)
{
	(void)state;
	come_up();
	assert_int_equal(type_ab(), 0);
	assert_int_equal(type_ab(), -EBUSY);
	assert_int_equal(fake.sent, 0);
	fake_run(1 * MS);
	assert_int_equal(fake.sent, 2); /* a character, */
	assert_int_equal(fake.flushed, 2);
	fake_run(8 * MS);
	assert_int_equal(fake.sent, 2);
	assert_int_equal(dones, 0);
	fake_run(2 * MS); /* and the other, after a pause */
	assert_int_equal(fake.sent, 4);
	assert_int_equal(fake.flushed, 4);
	assert_int_equal(dones, 1);
	assert_int_equal(error, 0);
	assert_int_equal(type_ab(), 0);
	fake_run(SECOND);
	assert_int_equal(dones, 2);
}

static void test_no_room(void **state)
{
	(void)state;
	come_up();
	fake.full = true;
	assert_int_equal(type_ab(), 0);
	fake_run(SECOND);
	assert_int_equal(fake.sent, 0);
	assert_int_equal(fake_timers(), 0); /* it waits for the guest, not for time */
	fake_room(keyboard());
	assert_int_equal(fake.sent, 2);
	fake_room(keyboard()); /* no reason to go faster */
	assert_int_equal(fake.sent, 2);
	fake_run(SECOND);
	assert_int_equal(fake.sent, 4);
	assert_int_equal(dones, 1);
}

static void test_not_up(void **state)
{
	(void)state;
	assert_int_equal(type_ab(), -ENOTCONN);
	assert_int_equal(fake_open(keyboard()), 0);
	assert_int_equal(type_ab(), -ENOTCONN);
	ask(0x20000, 0);
	assert_int_equal(type_ab(), -ENOTCONN);
	ask(0x10000, 1);
	assert_int_equal(type_ab(), 0);
	ask(0x20000, 0); /* given up while typing */
	assert_int_equal(dones, 1);
	assert_int_equal(error, -ECONNRESET);
	fake.vm.vmbus = NULL;
	assert_int_equal(type_ab(), -ENOTCONN);
	fake.vm.vmbus = &fake.bus;
}

static void test_close(void **state)
{
	(void)state;
	come_up();
	assert_int_equal(type_ab(), 0);
	fake_run(1 * MS);
	fake_close(keyboard());
	assert_int_equal(dones, 1);
	assert_int_equal(error, -ECONNRESET);
	/* The pause of the old text is still on; a new one waits for its end. */
	come_up();
	assert_int_equal(type_ab(), 0);
	fake_run(SECOND);
	assert_int_equal(fake.sent, 4);
	assert_int_equal(dones, 2);
	assert_int_equal(error, 0);
	fake_reset(keyboard());
	assert_int_equal(type_ab(), -ENOTCONN);
}

/* The guest breaks the ring at the very send. */
static void test_broken(void **state)
{
	(void)state;
	come_up();
	assert_int_equal(type_ab(), 0);
	fake.send_error = -EPROTO;
	fake_run(SECOND);
	assert_int_equal(dones, 1);
	assert_int_equal(error, -ECONNRESET);
}

static void test_removed(void **state)
{
	(void)state;
	come_up();
	assert_int_equal(type_ab(), 0);
	fake_run(1 * MS);
	fake_remove(&keyboard()->device);
	assert_int_equal(dones, 1);
	assert_int_equal(error, -ECONNRESET);
}

static void test_bad_packets(void **state)
{
	const uint32_t words[][2] = { { 0, 0 }, { 3, 0 }, { 99, 0 } };

	(void)state;
	come_up();
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		assert_int_equal(fake_packet(keyboard(), VMBUS_PACKET_INBAND, words[i], 8), -EINVAL);
	assert_int_equal(fake_packet(keyboard(), VMBUS_PACKET_INBAND, NULL, 0), -EINVAL);
	assert_int_equal(fake_packet(keyboard(), VMBUS_PACKET_GPA_DIRECT, (uint32_t[]){ 1, 0x10000 }, 8), -EINVAL);
	assert_int_equal(fake_packet(keyboard(), VMBUS_PACKET_INBAND, (uint32_t[]){ 4, 7 }, 8), 0);
	assert_int_equal(fake.sent, 0);
}

static void test_no_place(void **state)
{
	(void)state;
	fake.add_error = -EEXIST;
	assert_int_equal(keyboard_create(&fake.vm), -EEXIST);
	assert_int_equal(fake.logs, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_characters),
		cmocka_unit_test_setup_teardown(test_pace, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_room, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_up, setup, teardown),
		cmocka_unit_test_setup_teardown(test_close, setup, teardown),
		cmocka_unit_test_setup_teardown(test_broken, setup, teardown),
		cmocka_unit_test_setup_teardown(test_removed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_packets, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_place, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
