/* SPDX-License-Identifier: MIT */
/* The real-time clock: its registers against the C library's calendar, and its interrupts on the loop's
 * timers. */
#include "legacy_fake.h"

#include <time.h>

#include "devices/legacy/rtc.h"
#include "devices/legacy/rtc_core.h"

#define HZ RTC_HZ

static int64_t at(int year, int month, int day, int hour, int minute, int second)
{
	struct tm tm = { .tm_year = year - 1900,
			 .tm_mon = month - 1,
			 .tm_mday = day,
			 .tm_hour = hour,
			 .tm_min = minute,
			 .tm_sec = second };

	return (int64_t)timegm(&tm) * HZ;
}

static int bcd(int value)
{
	return value / 10 * 16 + value % 10;
}

static void show_time(struct rtc_core *core, int64_t now, bool binary)
{
	time_t seconds = (time_t)(now / HZ - (now % HZ < 0));
	struct tm tm;
	int year;

	assert_non_null(gmtime_r(&seconds, &tm));
	year = tm.tm_year + 1900;
#define SHOWN(reg, value) assert_int_equal(rtc_core_read(core, reg, now), binary ? (value) : bcd(value))
	SHOWN(RTC_SECONDS, tm.tm_sec);
	SHOWN(RTC_MINUTES, tm.tm_min);
	SHOWN(RTC_HOURS, tm.tm_hour);
	SHOWN(RTC_WEEKDAY, tm.tm_wday + 1);
	SHOWN(RTC_DAY, tm.tm_mday);
	SHOWN(RTC_MONTH, tm.tm_mon + 1);
	SHOWN(RTC_YEAR, year % 100);
	SHOWN(RTC_CENTURY, year / 100);
#undef SHOWN
}

static void shows_the_calendar(void **state)
{
	struct rtc_core core;

	(void)state;
	rtc_core_init(&core, 0, 0);
	for (int binary = 0; binary < 2; binary++) {
		rtc_core_write(&core, RTC_B, RTC_B_24H | (binary ? RTC_B_BINARY : 0), 0);
		/* 400 years in steps of 25 hours and some, then ends of months */
		for (int64_t s = at(1850, 1, 1, 0, 0, 0); s < at(2250, 1, 1, 0, 0, 0); s += 90061LL * HZ)
			show_time(&core, s, binary);
		show_time(&core, at(2000, 2, 29, 23, 59, 59), binary);
		show_time(&core, at(1900, 2, 28, 23, 59, 59) + HZ, binary);
		show_time(&core, at(2100, 3, 1, 0, 0, 0) - 1, binary);
		show_time(&core, at(1999, 12, 31, 23, 59, 59) + HZ, binary);
		show_time(&core, at(0, 1, 1, 0, 0, 0), binary);
		show_time(&core, at(9999, 12, 31, 23, 59, 59), binary);
	}
	/* Beyond what it can show it stays at the end. */
	assert_int_equal(rtc_core_read(&core, RTC_CENTURY, at(12000, 5, 5, 0, 0, 0)), 99);
	assert_int_equal(rtc_core_read(&core, RTC_CENTURY, at(-300, 5, 5, 0, 0, 0)), 0);
}

static void twelve_hours(void **state)
{
	struct rtc_core core;

	(void)state;
	rtc_core_init(&core, 0, 0);
	for (int binary = 0; binary < 2; binary++) {
		rtc_core_write(&core, RTC_B, binary ? RTC_B_BINARY : 0, 0);
		for (int hour = 0; hour < 24; hour++) {
			int shown = hour % 12 == 0 ? 12 : hour % 12;
			int raw = (binary ? shown : bcd(shown)) | (hour >= 12 ? 0x80 : 0);
			int64_t now = at(2024, 2, 29, 15, 30, 0);

			assert_int_equal(rtc_core_read(&core, RTC_HOURS, at(2024, 1, 2, hour, 0, 0)), raw);
			rtc_core_write(&core, RTC_HOURS, (uint8_t)raw, now);
			assert_int_equal(core.offset, (hour - 15) * 3600LL * HZ);
			rtc_core_write(&core, RTC_HOURS, binary ? 0x80 | 3 : 0x83, now);
			assert_int_equal(core.offset, 0);
		}
	}
}

static void set_with(struct rtc_core *core, const uint8_t *date, int64_t now)
{
	static const uint8_t regs[] = {
		RTC_SECONDS, RTC_MINUTES, RTC_HOURS, RTC_DAY, RTC_MONTH, RTC_YEAR, RTC_CENTURY
	};

	for (unsigned int i = 0; i < sizeof(regs); i++)
		rtc_core_write(core, regs[i], date[i], now);
}

/* The way Linux sets it: SET, divider in reset, date, SET off, divider on. */
static void setting_with_divider_reset(void **state)
{
	static const uint8_t leap[] = { 0x58, 0x59, 0x23, 0x28, 0x02, 0x04, 0x24 }; /* 2404 is a leap year */
	int64_t now = at(2026, 11, 21, 5, 0, 0) + 777, day = at(2404, 2, 28, 23, 59, 58);
	struct rtc_core core;

	(void)state;
	rtc_core_init(&core, 0, now);
	rtc_core_write(&core, RTC_B, RTC_B_24H | RTC_B_SET, now);
	rtc_core_write(&core, RTC_A, 0x76, now);
	set_with(&core, leap, now);
	assert_int_equal(rtc_core_read(&core, RTC_SECONDS, now + 100 * HZ), 0x58); /* stands still */
	rtc_core_write(&core, RTC_B, RTC_B_24H, now);
	assert_int_equal(rtc_core_read(&core, RTC_SECONDS, now + 100 * HZ), 0x58); /* divider still in reset */
	rtc_core_write(&core, RTC_A, 0x26, now + 5 * HZ);
	now += 5 * HZ;
	assert_int_equal(now + core.offset, day + HZ / 2);
	assert_int_equal(rtc_core_read(&core, RTC_SECONDS, now + HZ / 2 - 1), 0x58);
	assert_int_equal(rtc_core_read(&core, RTC_SECONDS, now + HZ / 2), 0x59);
	now += HZ / 2 + HZ;
	assert_int_equal(rtc_core_read(&core, RTC_DAY, now), 0x29);
	assert_int_equal(rtc_core_read(&core, RTC_MONTH, now), 0x02);
	assert_int_equal(rtc_core_read(&core, RTC_CENTURY, now), 0x24);
}

static void setting_keeps_the_phase(void **state)
{
	static const uint8_t date[] = { 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x20 };
	int64_t now = at(2026, 11, 21, 5, 0, 0) + 777;
	struct rtc_core core;

	(void)state;
	rtc_core_init(&core, 0, now);
	rtc_core_write(&core, RTC_B, RTC_B_24H | RTC_B_SET | RTC_B_UIE, now);
	assert_int_equal(rtc_core_read(&core, RTC_B, now), RTC_B_24H | RTC_B_SET); /* SET clears UIE */
	set_with(&core, date, now);
	rtc_core_write(&core, RTC_B, RTC_B_24H, now + HZ);
	assert_int_equal(now + HZ + core.offset, at(2006, 5, 4, 3, 2, 1) + 777);
	/* one byte, with the clock running */
	rtc_core_write(&core, RTC_MINUTES, 0x30, now + HZ);
	assert_int_equal(now + HZ + core.offset, at(2006, 5, 4, 3, 30, 1) + 777);
}

static void nonsense_is_bounded(void **state)
{
	static const uint8_t value[] = { 0x00, 0xff, 0x99, 0xa0, 0x7f, 0x80 };
	struct rtc_core core;
	int64_t now = 12345;

	(void)state;
	srand(1);
	rtc_core_init(&core, 0, now);
	for (int i = 0; i < 300000; i++) {
		unsigned int reg = rand() % 4 ? (unsigned int)rand() % 14 : (unsigned int)rand() % 256;

		now += rand() % 3 ? rand() % (2 * HZ) : -(rand() % (40 * HZ));
		if (rand() % 2)
			rtc_core_read(&core, reg, now);
		else
			rtc_core_write(&core, reg, rand() % 2 ? (uint8_t)rand() : value[rand() % 6], now);
		assert_true(rtc_core_next(&core, now) > 0);
		assert_int_equal(rtc_core_read(&core, RTC_D, now), RTC_D_VALID);
		assert_int_equal(core.cmos[RTC_A] & RTC_A_UIP, 0);
		assert_in_range(now + core.offset + 1000000LL * 86400 * HZ, 0, 5000000LL * 86400 * HZ);
	}
}

static void memory_is_memory(void **state)
{
	struct rtc_core core;

	(void)state;
	rtc_core_init(&core, 0, 0);
	for (unsigned int reg = 0x0e; reg < 128; reg++)
		if (reg != RTC_CENTURY)
			rtc_core_write(&core, reg, (uint8_t)(reg * 7), 0);
	rtc_core_write(&core, RTC_C, 0xff, 0);
	rtc_core_write(&core, RTC_D, 0x00, 0);
	rtc_core_reset(&core, 99);
	for (unsigned int reg = 0x0e; reg < 128; reg++)
		if (reg != RTC_CENTURY)
			assert_int_equal(rtc_core_read(&core, reg, 5), (uint8_t)(reg * 7));
	assert_int_equal(rtc_core_read(&core, RTC_C, 0), 0);
	assert_int_equal(rtc_core_read(&core, RTC_D, 0), 0x80);
	assert_int_equal(rtc_core_read(&core, 0x80 | RTC_D, 0), 0x80);
}

static void update_in_progress_is_short(void **state)
{
	struct rtc_core core;
	unsigned int set = 0;

	(void)state;
	rtc_core_init(&core, 0, 0);
	for (int64_t now = 5 * HZ; now < 6 * HZ; now++) {
		bool uip = rtc_core_read(&core, RTC_A, now) & RTC_A_UIP;

		assert_int_equal(uip, now >= 6 * HZ - 8);
		set += uip;
	}
	assert_int_equal(set, 8);
	rtc_core_write(&core, RTC_B, RTC_B_SET, 6 * HZ - 1);
	assert_int_equal(rtc_core_read(&core, RTC_A, 6 * HZ - 1) & RTC_A_UIP, 0);
}

static void update_flag(void **state)
{
	int64_t now = 1000 * HZ + 5;
	struct rtc_core core;

	(void)state;
	rtc_core_init(&core, 0, now);
	assert_int_equal(rtc_core_next(&core, now), RTC_NEVER);
	assert_int_equal(rtc_core_read(&core, RTC_C, now + HZ - 6), RTC_C_PF);
	assert_int_equal(rtc_core_read(&core, RTC_C, now + HZ - 5), RTC_C_UF | RTC_C_PF);
	assert_int_equal(rtc_core_read(&core, RTC_C, now + HZ - 5), 0);
	now += HZ;
	rtc_core_write(&core, RTC_B, RTC_B_24H | RTC_B_UIE, now);
	assert_int_equal(rtc_core_next(&core, now), HZ - 5);
	assert_false(rtc_core_advance(&core, now + HZ - 6));
	assert_true(rtc_core_advance(&core, now + HZ - 5));
	assert_int_equal(rtc_core_next(&core, now + HZ), RTC_NEVER); /* until acknowledged */
	assert_int_equal(rtc_core_read(&core, RTC_C, now + HZ) & ~RTC_C_PF, RTC_C_IRQF | RTC_C_UF);
	assert_false(rtc_core_advance(&core, now + HZ));
	assert_int_equal(rtc_core_next(&core, now + HZ), HZ - 5);
	rtc_core_write(&core, RTC_B, RTC_B_24H | RTC_B_UIE | RTC_B_SET, now);
	assert_int_equal(rtc_core_next(&core, now), RTC_NEVER);
}

static void periodic_rates(void **state)
{
	static const int ticks[] = { 0, 128, 256, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384 };
	struct rtc_core core;

	(void)state;
	for (unsigned int rate = 0; rate < 16; rate++) {
		int64_t now = 32 * HZ;

		rtc_core_init(&core, 0, now);
		rtc_core_write(&core, RTC_A, (uint8_t)(0x20 | rate), now);
		rtc_core_write(&core, RTC_B, RTC_B_24H | RTC_B_PIE, now);
		if (!rate) {
			assert_int_equal(rtc_core_next(&core, now), RTC_NEVER);
			assert_false(rtc_core_advance(&core, now + HZ));
			continue;
		}
		for (int i = 0; i < 5; i++) {
			assert_int_equal(rtc_core_next(&core, now), ticks[rate]);
			assert_false(rtc_core_advance(&core, now + ticks[rate] - 1));
			now += ticks[rate];
			assert_true(rtc_core_advance(&core, now));
			assert_int_equal(rtc_core_read(&core, RTC_C, now) & 0xc0, RTC_C_IRQF | RTC_C_PF);
		}
		rtc_core_write(&core, RTC_A, (uint8_t)(0x60 | rate), now);
		assert_int_equal(rtc_core_next(&core, now), RTC_NEVER);
	}
}

static void set_alarm(struct rtc_core *core, uint8_t hour, uint8_t minute, uint8_t second, int64_t now)
{
	rtc_core_write(core, RTC_HOURS_ALARM, hour, now);
	rtc_core_write(core, RTC_MINUTES_ALARM, minute, now);
	rtc_core_write(core, RTC_SECONDS_ALARM, second, now);
	rtc_core_read(core, RTC_C, now);
}

static void alarms(void **state)
{
	int64_t now = at(2026, 12, 31, 22, 10, 30);
	struct rtc_core core;

	(void)state;
	rtc_core_init(&core, 0, now);
	rtc_core_write(&core, RTC_B, RTC_B_24H | RTC_B_AIE, now);
	set_alarm(&core, 0x22, 0x10, 0x31, now);
	assert_int_equal(rtc_core_next(&core, now), HZ);
	set_alarm(&core, 0x22, 0x10, 0x30, now); /* this very second has begun already */
	assert_int_equal(rtc_core_next(&core, now), 86400LL * HZ);
	set_alarm(&core, 0x01, 0x02, 0x03, now);
	assert_int_equal(rtc_core_next(&core, now), at(2027, 1, 1, 1, 2, 3) - now);
	assert_false(rtc_core_advance(&core, at(2027, 1, 1, 1, 2, 3) - 1));
	assert_true(rtc_core_advance(&core, at(2027, 1, 1, 1, 2, 3)));
	assert_int_equal(rtc_core_read(&core, RTC_C, now) & 0xa0, RTC_C_IRQF | RTC_C_AF);

	set_alarm(&core, 0xff, 0xc0, 0x15, now);
	assert_int_equal(rtc_core_next(&core, now), 45 * HZ);
	set_alarm(&core, 0xff, 0x05, 0xff, now);
	assert_int_equal(rtc_core_next(&core, now), at(2026, 12, 31, 23, 5, 0) - now);
	set_alarm(&core, 0xff, 0xff, 0xff, now);
	assert_int_equal(rtc_core_next(&core, now), HZ);
	set_alarm(&core, 0x24, 0xff, 0xff, now);
	assert_int_equal(rtc_core_next(&core, now), RTC_NEVER);
	set_alarm(&core, 0xff, 0xff, 0x5a, now);
	assert_int_equal(rtc_core_next(&core, now), RTC_NEVER);
	assert_false(rtc_core_advance(&core, now + 100000LL * HZ));

	rtc_core_write(&core, RTC_B, RTC_B_AIE | RTC_B_BINARY, now); /* 12 hours */
	set_alarm(&core, 0x80 | 11, 30, 0, now);
	assert_int_equal(rtc_core_next(&core, now), at(2026, 12, 31, 23, 30, 0) - now);
	set_alarm(&core, 12, 0, 0, now);
	assert_int_equal(rtc_core_next(&core, now), at(2027, 1, 1, 0, 0, 0) - now);
}

static void alarms_against_brute_force(void **state)
{
	struct rtc_core core;

	(void)state;
	srand(7);
	for (int round = 0; round < 200; round++) {
		int64_t now = at(2026, 3, 1, rand() % 24, rand() % 60, rand() % 60), s, next;
		int h = rand() % 26, m = rand() % 62, sec = rand() % 62;
		bool any_h = rand() % 3 == 0, any_m = rand() % 3 == 0, any_s = rand() % 3 == 0;

		rtc_core_init(&core, 0, now);
		rtc_core_write(&core, RTC_B, RTC_B_24H | RTC_B_AIE | RTC_B_BINARY, now);
		set_alarm(&core, any_h ? 0xc0 : (uint8_t)h, any_m ? 0xff : (uint8_t)m, any_s ? 0xd0 : (uint8_t)sec,
			  now);
		next = rtc_core_next(&core, now);
		for (s = 1; s <= 86400; s++) {
			int64_t t = (now / HZ + s) % 86400;

			if ((any_h || t / 3600 == h) && (any_m || t / 60 % 60 == m) && (any_s || t % 60 == sec))
				break;
		}
		assert_int_equal(next, s > 86400 ? RTC_NEVER : s * HZ);
	}
}

static void host_clock_set_back(void **state)
{
	int64_t now = at(2026, 3, 1, 0, 0, 0);
	struct rtc_core core;

	(void)state;
	rtc_core_init(&core, 0, now);
	rtc_core_write(&core, RTC_B, RTC_B_24H | RTC_B_UIE, now);
	assert_false(rtc_core_advance(&core, now - 1000LL * HZ));
	assert_true(rtc_core_advance(&core, now - 999LL * HZ));
}

static uint8_t cmos_in(uint8_t reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static void cmos_out(uint8_t reg, uint8_t value)
{
	outb(0x70, reg);
	outb(0x71, value);
}

static void ports(void **state)
{
	time_t before, after;
	struct tm tm = { 0 };

	(void)state;
	assert_int_equal(inb(0x70), 0xff);
	assert_int_equal(cmos_in(RTC_D), 0x80);
	assert_int_equal(cmos_in(0x80 | RTC_D), 0x80); /* NMI mask */
	fake_write(&fake.vm.pio, 0x70, 2, 0xab40);
	assert_int_equal(cmos_in(0x40), 0xab);
	assert_int_equal(fake_read(&fake.vm.pio, 0x70, 2), 0xabff);
	cmos_out(RTC_B, RTC_B_24H | RTC_B_BINARY);
	before = time(NULL);
	do { /* as guests do: the same second before and after */
		tm.tm_sec = cmos_in(RTC_SECONDS);
		tm.tm_min = cmos_in(RTC_MINUTES);
		tm.tm_hour = cmos_in(RTC_HOURS);
		tm.tm_mday = cmos_in(RTC_DAY);
		tm.tm_mon = cmos_in(RTC_MONTH) - 1;
		tm.tm_year = cmos_in(RTC_CENTURY) * 100 + cmos_in(RTC_YEAR) - 1900;
	} while (cmos_in(RTC_SECONDS) != tm.tm_sec);
	after = time(NULL);
	assert_in_range(timegm(&tm), before, after + 1);
	assert_int_equal(fake_describe("/isa-rtc/rtc@i70"), 1);
	assert_int_equal(rtc_create(&fake.vm, RTC_UTC), -EEXIST);
}

static void timer_runs_only_while_needed(void **state)
{
	(void)state;
	assert_null(fake.posted);
	cmos_in(RTC_C);
	cmos_in(RTC_SECONDS);
	assert_null(fake.posted);
	cmos_out(RTC_A, 0x2f); /* 2 Hz */
	assert_null(fake.posted);
	cmos_out(RTC_B, RTC_B_24H | RTC_B_AIE);
	assert_true(fake_run_posted());
	assert_non_null(fake.timer);
	assert_in_range(fake.timer_ns, 1, 60000000000);

	/* A nearer event cancels the timer, and the cancellation arms the nearer one. */
	cmos_out(RTC_A, 0x23); /* 8192 Hz */
	cmos_out(RTC_HOURS_ALARM, (uint8_t)(cmos_in(RTC_HOURS) == 0 ? 5 : 0));
	fake_run_posted();
	cmos_out(RTC_B, RTC_B_24H | RTC_B_PIE);
	cmos_in(RTC_C);
	assert_true(fake_run_posted());
	if (fake.cancels)
		fake_fire_timer(-ECANCELED);
	assert_in_range(fake.timer_ns, 1, 122071);

	while (!fake.level[8])
		fake_fire_timer(-ETIME);
	assert_null(fake.timer); /* not acknowledged: nothing runs */
	assert_int_equal(cmos_in(RTC_C) & 0xc0, 0xc0);
	assert_false(fake.level[8]);
	assert_true(fake_run_posted());
	assert_non_null(fake.timer);
	cmos_out(RTC_B, RTC_B_24H);
	fake_fire_timer(-ETIME);
	assert_null(fake.timer);
	assert_false(fake.level[8]);
}

static void reset_drops_interrupts(void **state)
{
	(void)state;
	cmos_out(0x50, 0x5a);
	cmos_out(RTC_A, 0x23);
	cmos_out(RTC_B, RTC_B_24H | RTC_B_PIE);
	fake_run_posted();
	while (!fake.level[8])
		fake_fire_timer(-ETIME);
	fake.vm.devices->class->reset(fake.vm.devices);
	assert_false(fake.level[8]);
	assert_int_equal(cmos_in(RTC_B), RTC_B_24H);
	assert_int_equal(cmos_in(0x50), 0x5a);
}

static int setup(void **state)
{
	(void)state;
	fake_setup();
	return rtc_create(&fake.vm, RTC_UTC);
}

static int teardown(void **state)
{
	(void)state;
	fake_teardown();
	return 0;
}

static void local_time(void **state)
{
	(void)state;
	setenv("TZ", "XXX-5:30", 1); /* east of Greenwich */
	tzset();
	fake_setup();
	assert_int_equal(rtc_create(&fake.vm, RTC_LOCAL), 0);
	cmos_out(RTC_B, RTC_B_24H | RTC_B_BINARY);
	time_t utc = time(NULL);
	unsigned int minutes = cmos_in(RTC_HOURS) * 60u + cmos_in(RTC_MINUTES);

	assert_in_range((minutes + 1440 - (unsigned int)(utc / 60 % 1440)) % 1440, 330, 331);
	fake_teardown();
	unsetenv("TZ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shows_the_calendar),
		cmocka_unit_test(twelve_hours),
		cmocka_unit_test(setting_with_divider_reset),
		cmocka_unit_test(setting_keeps_the_phase),
		cmocka_unit_test(nonsense_is_bounded),
		cmocka_unit_test(memory_is_memory),
		cmocka_unit_test(update_in_progress_is_short),
		cmocka_unit_test(update_flag),
		cmocka_unit_test(periodic_rates),
		cmocka_unit_test(alarms),
		cmocka_unit_test(alarms_against_brute_force),
		cmocka_unit_test(host_clock_set_back),
		cmocka_unit_test_setup_teardown(ports, setup, teardown),
		cmocka_unit_test_setup_teardown(timer_runs_only_while_needed, setup, teardown),
		cmocka_unit_test_setup_teardown(reset_drops_interrupts, setup, teardown),
		cmocka_unit_test(local_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
