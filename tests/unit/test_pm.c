/* SPDX-License-Identifier: MIT */
/* The small devices of devices/legacy: ACPI power management, reset ports, debug ports, pvpanic. */
#include "legacy_fake.h"

#include "devices/legacy/debug.h"
#include "devices/legacy/i8042.h"
#include "devices/legacy/pm.h"
#include "devices/legacy/pvpanic.h"

#define STS   (PM_BASE + 0)
#define EN    (PM_BASE + 2)
#define CNT   (PM_BASE + 4)
#define TIMER (PM_BASE + 8)

#define PWRBTN 0x100
#define TMR    0x001

static uint64_t in(uint16_t port, unsigned int size)
{
	return fake_read(&fake.vm.pio, port, size);
}

static void out(uint16_t port, unsigned int size, uint64_t value)
{
	fake_write(&fake.vm.pio, port, size, value);
}

static int setup(void **state)
{
	(void)state;
	fake_setup();
	assert_int_equal(pm_create(&fake.vm, PM_BASE, PM_GSI), 0);
	assert_non_null(fake.vm.pm);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_teardown();
	return 0;
}

static void power_button_raises_sci_until_cleared(void **state)
{
	(void)state;
	pm_power_button(fake.vm.pm);
	assert_int_equal(in(STS, 2), PWRBTN);
	assert_false(fake.level[PM_GSI]); /* not enabled */
	out(EN, 2, PWRBTN);
	assert_true(fake.level[PM_GSI]);
	assert_int_equal(in(EN, 2), PWRBTN);
	out(STS, 2, 0);
	assert_int_equal(in(STS, 2), PWRBTN);
	out(STS, 1, 0xff); /* the other byte */
	assert_int_equal(in(STS, 2), PWRBTN);
	assert_true(fake.level[PM_GSI]);
	out(STS, 2, PWRBTN);
	assert_int_equal(in(STS, 2), 0);
	assert_false(fake.level[PM_GSI]);
	pm_power_button(fake.vm.pm);
	assert_true(fake.level[PM_GSI]);
	out(STS + 1, 1, PWRBTN >> 8);
	assert_false(fake.level[PM_GSI]);
}

static void disabling_lowers_sci(void **state)
{
	(void)state;
	out(STS, 4, (uint64_t)PWRBTN << 16); /* status and enable in one access */
	assert_int_equal(in(STS, 4), (uint64_t)PWRBTN << 16);
	pm_power_button(fake.vm.pm);
	assert_true(fake.level[PM_GSI]);
	out(EN + 1, 1, 0);
	assert_false(fake.level[PM_GSI]);
	assert_int_equal(in(STS, 2), PWRBTN);
}

static void unimplemented_enable_bits_stay_clear(void **state)
{
	(void)state;
	out(EN, 2, 0xffff);
	assert_int_equal(in(EN, 2), 0x0721);
}

static void sleep_enable_powers_off_with_any_type(void **state)
{
	(void)state;
	assert_int_equal(in(CNT, 2), 1);
	out(CNT, 2, 0x1c00); /* a type alone */
	assert_int_equal(fake.poweroffs, 0);
	assert_int_equal(in(CNT, 2), 0x1c01);
	for (unsigned int type = 0; type < 8; type++) {
		out(CNT, 2, 0x2000 | type << 10);
		assert_int_equal(fake.poweroffs, type + 1);
		assert_int_equal(in(CNT, 2), type << 10 | 1);
	}
	out(CNT + 1, 1, 0x20);
	assert_int_equal(fake.poweroffs, 9);
	out(CNT, 1, 0x20); /* not that byte */
	assert_int_equal(fake.poweroffs, 9);
	out(CNT, 2, 0x0004); /* GBL_RLS reads as zero, SCI_EN as one */
	assert_int_equal(in(CNT, 2), 1);
}

static void timer_counts_at_its_frequency_in_32_bits(void **state)
{
	(void)state;
	assert_int_equal(in(TIMER, 4), 0);
	fake.now_ns = 1000000000;
	assert_int_equal(in(TIMER, 4), 3579545);
	fake.now_ns = 1000000000ULL * 3600;
	assert_int_equal(in(TIMER, 4), 3579545ULL * 3600 & UINT32_MAX);
	assert_int_equal(in(TIMER, 2) | in(TIMER + 2, 2) << 16, in(TIMER, 4));
	assert_int_equal(in(TIMER + 3, 1), in(TIMER, 4) >> 24);
	fake.now_ns = UINT64_MAX; /* 584 years: no overflow on the way */
	assert_int_equal(in(TIMER, 4), (uint32_t)((unsigned __int128)UINT64_MAX * 3579545 / 1000000000));
	out(TIMER, 4, 1);
	assert_int_not_equal(in(TIMER, 4), 1);
}

static void timer_status_follows_its_top_bit(void **state)
{
	uint64_t half = (1ULL << 31) * 1000000000 / 3579545 + 1;

	(void)state;
	fake.now_ns = half - 1000;
	assert_int_equal(in(STS, 2), 0);
	fake.now_ns = half;
	assert_int_equal(in(STS, 2), TMR);
	out(STS, 2, TMR);
	assert_int_equal(in(STS, 2), 0);

	out(EN, 2, TMR);
	assert_true(fake_run_posted());
	assert_in_range(fake.timer_ns, half - 2000, half);
	fake.now_ns = half + fake.timer_ns;
	fake_fire_timer(-ETIME);
	assert_true(fake.level[PM_GSI]);
	assert_non_null(fake.timer); /* goes on */
	out(EN, 2, 0);
	assert_false(fake.level[PM_GSI]);
	fake_fire_timer(-ETIME);
	assert_null(fake.timer);
}

static void reset_clears_everything(void **state)
{
	(void)state;
	out(EN, 2, PWRBTN);
	pm_power_button(fake.vm.pm);
	assert_true(fake.level[PM_GSI]);
	fake.vm.devices->class->reset(fake.vm.devices);
	assert_false(fake.level[PM_GSI]);
	assert_int_equal(in(STS, 4), 0);
	assert_int_equal(in(CNT, 2), 1);
}

static void any_access_is_harmless(void **state)
{
	static const unsigned int sizes[] = { 1, 2, 4, 8 };

	(void)state;
	for (uint16_t port = PM_BASE - 8; port < PM_BASE + 20; port++)
		for (unsigned int i = 0; i < 4; i++) {
			uint64_t value = in(port, sizes[i]);

			if (port < PM_BASE || port + sizes[i] > PM_BASE + 12)
				assert_int_equal(value, sizes[i] == 8 ? UINT64_MAX : (1ULL << 8 * sizes[i]) - 1);
			out(port, sizes[i], 0xa5a5a5a5a5a5a5a5);
		}
	assert_int_equal(in(PM_BASE + 6, 2), 0);
	assert_int_equal(in(PM_BASE, 8) >> 48, 0);
}

static void ports_taken_is_an_error(void **state)
{
	(void)state;
	assert_int_equal(pm_create(&fake.vm, PM_BASE + 8, PM_GSI), -EEXIST);
	assert_int_equal(fake.logs, 1);
}

static void keyboard_controller_resets(void **state)
{
	(void)state;
	assert_int_equal(i8042_create(&fake.vm), 0);
	assert_int_equal(inb(0x64), 0);
	assert_int_equal(inb(0x60), 0);
	for (unsigned int command = 0; command < 256; command++) {
		outb(0x60, (uint8_t)command);
		if (command != 0xfe)
			outb(0x64, (uint8_t)command);
	}
	assert_int_equal(fake.resets, 0);
	outb(0x64, 0xfe);
	assert_int_equal(fake.resets, 1);
	assert_int_equal(inb(0x92), 2);
	outb(0x92, 2);
	assert_int_equal(fake.resets, 1);
	outb(0x92, 3);
	assert_int_equal(fake.resets, 2);
	assert_int_equal(fake_describe(NULL), 0);
	assert_int_equal(i8042_create(&fake.vm), -EEXIST);
}

static void debug_ports(void **state)
{
	(void)state;
	assert_int_equal(debug_create(&fake.vm), 0);
	outb(0x80, 0x42);
	assert_int_equal(fake.posts, 1);
	assert_int_equal(fake.post, 0x42);
	assert_int_equal(inb(0x80), 0x42);
	out(0x80, 2, 0x1143);
	assert_int_equal(fake.post, 0x43);
	outb(0x81, 0x99);
	assert_int_equal(fake.posts, 2);
	assert_int_equal(inb(0x81), 0);
	out(0xf4, 4, 0xffffff21);
	assert_int_equal(fake.exits, 1);
	assert_int_equal(fake.status, 0x21);
	outb(0xf4, 0);
	assert_int_equal(fake.status, 0);
	outb(0xf5, 9);
	assert_int_equal(fake.exits, 2);
	assert_int_equal(fake_describe("/isa-debug-exit/debug-exit@if4"), 0);
	assert_int_equal(debug_create(&fake.vm), -EEXIST);
}

static void panic_device(void **state)
{
	(void)state;
	assert_int_equal(pvpanic_create(&fake.vm), 0);
	assert_int_equal(inb(0x505), 7);
	outb(0x505, 2);
	outb(0x505, 2);
	assert_int_equal(fake.exits, 0);
	assert_int_equal(fake.logs, 1);
	fake.vm.devices->class->reset(fake.vm.devices);
	outb(0x505, 3);
	assert_int_equal(fake.exits, 1);
	assert_int_equal(fake.status, STATUS_PANICKED);
	assert_int_equal(fake.logs, 2);
	outb(0x505, 4);
	assert_int_equal(fake.poweroffs, 1);
	outb(0x505, 0xf8);
	assert_int_equal(fake.exits, 1);
	assert_int_equal(fake_describe("/isa-pvpanic/pvpanic@i505"), 1);
	assert_int_equal(pvpanic_create(&fake.vm), -EEXIST);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(power_button_raises_sci_until_cleared, setup, teardown),
		cmocka_unit_test_setup_teardown(disabling_lowers_sci, setup, teardown),
		cmocka_unit_test_setup_teardown(unimplemented_enable_bits_stay_clear, setup, teardown),
		cmocka_unit_test_setup_teardown(sleep_enable_powers_off_with_any_type, setup, teardown),
		cmocka_unit_test_setup_teardown(timer_counts_at_its_frequency_in_32_bits, setup, teardown),
		cmocka_unit_test_setup_teardown(timer_status_follows_its_top_bit, setup, teardown),
		cmocka_unit_test_setup_teardown(reset_clears_everything, setup, teardown),
		cmocka_unit_test_setup_teardown(any_access_is_harmless, setup, teardown),
		cmocka_unit_test_setup_teardown(ports_taken_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(keyboard_controller_resets, setup, teardown),
		cmocka_unit_test_setup_teardown(debug_ports, setup, teardown),
		cmocka_unit_test_setup_teardown(panic_device, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
