/* SPDX-License-Identifier: MIT */
/*
 * Clocks and timers: PM timer, LAPIC timer in its three modes, RTC. Argument: now=SECONDS since 1970, which the RTC
 * must show.
 */
#include "rt/apic.h"
#include "rt/io.h"
#include "rt/rt.h"

#define TIMER	     0x50
#define RTC	     0x51
#define DIVIDE_BY_1  0xb
#define TSC_DEADLINE 0x6e0
#define LONG	     20000000u /* microseconds in which what is due has come, on a machine that is busy */

enum { RTC_A = 10, RTC_B = 11, RTC_C = 12, RTC_D = 13, RTC_CENTURY = 0x32 };

static uint8_t cmos(uint8_t index)
{
	outb(0x70, index);
	return inb(0x71);
}

static void set_cmos(uint8_t index, uint8_t value)
{
	outb(0x70, index);
	outb(0x71, value);
}

static void pm_timer(void)
{
	uint64_t before = rt_ticks(), start = before, tsc = rdtsc();
	uint32_t low, half;

	for (int i = 0; i < 200; i++) {
		uint64_t now = rt_ticks();

		CHECK(now >= before);
		CHECK(now - before < 1 << 23); /* nor back, which would be more than half of its 24 bits */
		before = now;
	}
	CHECK(before > start);
	CHECK(rdtsc() > tsc);
	/* A part of it, by a narrower access; it changes every 18 ms. */
	low = inl(0x608) >> 16;
	half = inw(0x60a);
	CHECK(((half - low) & 0xffff) < 100);
}

static void one_shot(void)
{
	uint64_t start = rt_ticks();
	uint32_t current;

	lapic_write(LAPIC_TIMER_DIVIDE, DIVIDE_BY_1);
	lapic_write(LAPIC_LVT_TIMER, TIMER);
	lapic_write(LAPIC_TIMER_INITIAL, 10000000);
	current = lapic_read(LAPIC_TIMER_CURRENT);
	CHECK(current && current <= 10000000);
	CHECK(lapic_read(LAPIC_TIMER_CURRENT) < current);
	/* HLT ends by the interrupt: without it the run ends by its timeout. */
	halt_until_irq();
	CHECK_EQ(rt_interrupts[TIMER], 1);
	CHECK_EQ(lapic_read(LAPIC_TIMER_CURRENT), 0);
	/* KVM's bus clock is 1 GHz: 10 ms, and a lot of patience for a busy host. */
	CHECK(rt_ticks() - start >= 9 * RT_TICKS_PER_MS);
	CHECK(rt_ticks() - start < 1000 * RT_TICKS_PER_MS);
}

static void masked(void)
{
	uint32_t before = rt_interrupts[TIMER];

	lapic_write(LAPIC_LVT_TIMER, TIMER | LVT_MASKED);
	lapic_write(LAPIC_TIMER_INITIAL, 1000);
	rt_delay(2000);
	irq_window();
	CHECK_EQ(rt_interrupts[TIMER], before);
}

static void periodic(void)
{
	uint32_t before = rt_interrupts[TIMER];
	uint64_t start = rt_ticks();

	lapic_write(LAPIC_LVT_TIMER, TIMER | LVT_PERIODIC);
	lapic_write(LAPIC_TIMER_INITIAL, 2000000);
	CHECK(rt_wait(TIMER, before + 4, LONG));
	CHECK(rt_ticks() - start >= 7 * RT_TICKS_PER_MS);
	lapic_write(LAPIC_TIMER_INITIAL, 0);
	irq_window();
	before = rt_interrupts[TIMER];
	rt_delay(5000);
	irq_window();
	CHECK_EQ(rt_interrupts[TIMER], before);
}

static void deadline(void)
{
	uint32_t before = rt_interrupts[TIMER];
	uint64_t tsc, until, khz, ticks;

	if (!(cpuid(1, 0).ecx & 1 << 24)) {
		rt_print("no TSC deadline\n");
		return;
	}
	ticks = rt_ticks();
	tsc = rdtsc();
	rt_delay(5000);
	khz = (rdtsc() - tsc) * RT_TICKS_PER_MS / (rt_ticks() - ticks);
	rt_print("TSC %lu kHz\n", khz);
	CHECK(khz > 100000 && khz < 10000000);
	lapic_write(LAPIC_LVT_TIMER, TIMER | LVT_DEADLINE);
	until = rdtsc() + 5 * khz;
	wrmsr(TSC_DEADLINE, until);
	halt_until_irq();
	CHECK(rdtsc() >= until);
	CHECK_EQ(rt_interrupts[TIMER], before + 1);
	CHECK_EQ(rdmsr(TSC_DEADLINE), 0);
	/* One in the past fires at once; 0 disarms. */
	wrmsr(TSC_DEADLINE, 1);
	CHECK(rt_wait(TIMER, before + 2, LONG));
	wrmsr(TSC_DEADLINE, rdtsc() + 5 * khz);
	wrmsr(TSC_DEADLINE, 0);
	rt_delay(8000);
	irq_window();
	CHECK_EQ(rt_interrupts[TIMER], before + 2);
	lapic_write(LAPIC_LVT_TIMER, LVT_MASKED);
}

static unsigned int from_bcd(uint8_t value)
{
	CHECK((value & 15) < 10 && value >> 4 < 10);
	return (value >> 4) * 10 + (value & 15);
}

static uint64_t days_since_1970(unsigned int year, unsigned int month, unsigned int day)
{
	static const uint16_t before[] = { 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334 };
	uint64_t days = day - 1 + before[month - 1];

	for (unsigned int y = 1970; y < year; y++)
		days += y % 4 == 0 && (y % 100 != 0 || y % 400 == 0) ? 366 : 365;
	return days + (month > 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
}

static uint64_t rtc_seconds(void)
{
	unsigned int year, month, day, hour, minute, second;

	do {
		while (cmos(RTC_A) & 0x80)
			;
		second = from_bcd(cmos(0));
		minute = from_bcd(cmos(2));
		hour = from_bcd(cmos(4));
		day = from_bcd(cmos(7));
		month = from_bcd(cmos(8));
		year = from_bcd(cmos(9)) + 100 * from_bcd(cmos(RTC_CENTURY));
	} while (from_bcd(cmos(0)) != second);
	CHECK(second < 60 && minute < 60 && hour < 24 && day && day < 32 && month && month < 13);
	return ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
}

static void rtc_irq(struct rt_frame *frame)
{
	(void)frame;
	CHECK(cmos(RTC_C) & 0x80);
	lapic_eoi();
}

static void check_clock(void)
{
	const uint64_t want = rt_arg_number("now", 0), shown = rtc_seconds();

	CHECK(shown + 2 >= want && shown <= want + 60);
}

static void rtc(void)
{
	uint64_t first, start;

	CHECK_EQ(cmos(RTC_B) & 0x7e, 0x02); /* BCD, 24 hours, no interrupts */
	CHECK_EQ(cmos(RTC_D), 0x80);	    /* the battery is good */
	check_clock();
	/* The periodic interrupt, 1024 Hz. */
	rt_handlers[RTC] = rtc_irq;
	ioapic_route(8, RTC, IOAPIC_EDGE, lapic_id());
	cmos(RTC_C);
	set_cmos(RTC_A, 0x26);
	set_cmos(RTC_B, 0x42);
	CHECK(rt_wait(RTC, 4, LONG));
	set_cmos(RTC_B, 0x02);
	cmos(RTC_C);
	rt_handlers[RTC] = NULL; /* one that was on its way finds nothing in C */
	irq_window();
	/* The end of an update, by its flag; the time is the next second then. */
	start = rt_ticks();
	first = rtc_seconds();
	cmos(RTC_C);
	while (!(cmos(RTC_C) & 0x10))
		CHECK(rt_ticks() - start < 20000 * RT_TICKS_PER_MS);
	CHECK(rtc_seconds() > first);
}

void guest_main(void)
{
	if (rt_arg("clock-only")) {
		check_clock();
		return;
	}
	pic_off();
	lapic_enable(false);
	pm_timer();
	one_shot();
	masked();
	periodic();
	deadline();
	rtc();
}
