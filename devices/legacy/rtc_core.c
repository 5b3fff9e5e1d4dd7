/* SPDX-License-Identifier: MIT */
/*
 * MC146818A registers, after the Motorola data sheet (ADI1053R2) and the PC's use of them.
 *
 * Theory of operation
 *
 * Nothing ticks. A read of a time byte computes it; a read of C computes which of the three events have
 * happened since the last look, interrupts enabled or not. While B.SET or a divider in reset stops the clock,
 * the time bytes are memory; when it goes on, the date in them is turned into a new offset. After a divider
 * reset the first update comes half a second later (data sheet, "Divider control"), which drivers use to set
 * the phase.
 *
 * UIP is set in the last 8 ticks (244 us) of a second and never otherwise: a driver that reads behind it sees
 * it in one of 4,096 cases, and then for no longer than that.
 */
#include "devices/legacy/rtc_core.h"

#include <string.h>

#define UIP_TICKS	  8
#define DAY_SECONDS	  86400
#define EPOCH_DAYS	  719528 /* from 0000-01-01 to 1970-01-01, Gregorian */
#define ALARM_ANY	  0xc0	 /* this and above match every value */
#define FIRST_UPDATE_TICK (RTC_HZ / 2)

struct date {
	int64_t year; /* 0..9999 */
	int month, day, hour, minute, second;
	int weekday; /* 0: Sunday */
};

static int64_t floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

static int64_t floor_mod(int64_t a, int64_t b)
{
	return a - floor_div(a, b) * b;
}

static bool is_leap(int64_t year)
{
	return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static int month_length(int64_t year, int month)
{
	static const uint8_t length[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

	return length[month - 1] + (month == 2 && is_leap(year));
}

/* From 0000-01-01 to the first day of year; year 0 is a leap year. */
static int64_t days_before(int64_t year)
{
	return 365 * year + (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
}

/* Outside the years a clock of two and two digits can show, the nearest of them. */
static struct date to_date(int64_t seconds)
{
	int64_t days = floor_div(seconds, DAY_SECONDS) + EPOCH_DAYS, last = days_before(10000) - 1;
	int64_t of_day = floor_mod(seconds, DAY_SECONDS);
	struct date d = { .month = 1 };

	days = days < 0 ? 0 : days > last ? last : days;
	d.year = days * 400 / 146097; /* off by one at most */
	if (days_before(d.year) > days)
		d.year--;
	else if (days_before(d.year + 1) <= days)
		d.year++;
	d.weekday = (int)((days + 6) % 7); /* 0000-01-01 was a Saturday */
	days -= days_before(d.year);
	while (days >= month_length(d.year, d.month))
		days -= month_length(d.year, d.month++);
	d.day = (int)days + 1;
	d.hour = (int)(of_day / 3600);
	d.minute = (int)(of_day / 60 % 60);
	d.second = (int)(of_day % 60);
	return d;
}

static int64_t from_date(const struct date *d)
{
	int64_t days = days_before(d->year) - EPOCH_DAYS + d->day - 1;

	for (int month = 1; month < d->month; month++)
		days += month_length(d->year, month);
	return days * DAY_SECONDS + d->hour * 3600 + d->minute * 60 + d->second;
}

static uint8_t encode(const struct rtc_core *core, int value)
{
	return (uint8_t)(core->cmos[RTC_B] & RTC_B_BINARY ? value : value / 10 * 16 + value % 10);
}

/* Guests write what they like: anything beyond the range becomes its nearest end. */
static int decode(const struct rtc_core *core, unsigned int reg, uint8_t mask, int low, int high)
{
	int raw = core->cmos[reg] & mask;
	int value = core->cmos[RTC_B] & RTC_B_BINARY ? raw : (raw >> 4) * 10 + (raw & 15);

	return value < low ? low : value > high ? high : value;
}

static uint8_t encode_hour(const struct rtc_core *core, int hour)
{
	if (core->cmos[RTC_B] & RTC_B_24H)
		return encode(core, hour);
	return encode(core, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0);
}

static int decode_hour(const struct rtc_core *core)
{
	if (core->cmos[RTC_B] & RTC_B_24H)
		return decode(core, RTC_HOURS, 0xff, 0, 23);
	return decode(core, RTC_HOURS, 0x7f, 1, 12) % 12 + (core->cmos[RTC_HOURS] & 0x80 ? 12 : 0);
}

static void date_to_cmos(struct rtc_core *core, int64_t guest)
{
	struct date d = to_date(floor_div(guest, RTC_HZ));

	core->cmos[RTC_SECONDS] = encode(core, d.second);
	core->cmos[RTC_MINUTES] = encode(core, d.minute);
	core->cmos[RTC_HOURS] = encode_hour(core, d.hour);
	core->cmos[RTC_WEEKDAY] = encode(core, d.weekday + 1);
	core->cmos[RTC_DAY] = encode(core, d.day);
	core->cmos[RTC_MONTH] = encode(core, d.month);
	core->cmos[RTC_YEAR] = encode(core, (int)(d.year % 100));
	core->cmos[RTC_CENTURY] = encode(core, (int)(d.year / 100));
}

static int64_t seconds_from_cmos(const struct rtc_core *core)
{
	struct date d = {
		.year = decode(core, RTC_CENTURY, 0xff, 0, 99) * 100 + decode(core, RTC_YEAR, 0xff, 0, 99),
		.month = decode(core, RTC_MONTH, 0xff, 1, 12),
		.day = decode(core, RTC_DAY, 0xff, 1, 31),
		.hour = decode_hour(core),
		.minute = decode(core, RTC_MINUTES, 0xff, 0, 59),
		.second = decode(core, RTC_SECONDS, 0xff, 0, 59),
	};

	return from_date(&d);
}

static bool divider_in_reset(const struct rtc_core *core)
{
	return (core->cmos[RTC_A] & RTC_A_DIVIDER_RESET) == RTC_A_DIVIDER_RESET;
}

static bool stopped(const struct rtc_core *core)
{
	return (core->cmos[RTC_B] & RTC_B_SET) || divider_in_reset(core);
}

static bool is_time(unsigned int reg)
{
	return reg == RTC_SECONDS || reg == RTC_MINUTES || reg == RTC_HOURS ||
	       (reg >= RTC_WEEKDAY && reg <= RTC_YEAR) || reg == RTC_CENTURY;
}

/* Makes the date in the time bytes the guest's time, tick ticks into its second. */
static void set_time(struct rtc_core *core, int64_t tick, int64_t now)
{
	core->offset = seconds_from_cmos(core) * RTC_HZ + tick - now;
	core->seen = now + core->offset;
}

/* Period of the periodic interrupt in ticks, 0 for none (data sheet, table 5, time base 32.768 kHz). */
static int64_t period(const struct rtc_core *core)
{
	unsigned int rate = core->cmos[RTC_A] & RTC_A_RATE;

	if (!rate || divider_in_reset(core))
		return 0;
	return rate < 3 ? 64 << rate : 1 << (rate - 1);
}

static bool matches(const struct rtc_core *core, unsigned int reg, uint8_t value)
{
	return core->cmos[reg] >= ALARM_ANY || core->cmos[reg] == value;
}

static bool alarm_can_match(const struct rtc_core *core)
{
	bool hour = false, minute = false, second = false;

	for (int i = 0; i < 60; i++) {
		hour |= i < 24 && matches(core, RTC_HOURS_ALARM, encode_hour(core, i % 24));
		minute |= matches(core, RTC_MINUTES_ALARM, encode(core, i));
		second |= matches(core, RTC_SECONDS_ALARM, encode(core, i));
	}
	return hour && minute && second;
}

/* Guest's time of the first alarm after guest, in ticks. Skips hours and minutes that don't match as a whole.
 */
static int64_t next_alarm(const struct rtc_core *core, int64_t guest)
{
	int64_t s = floor_div(guest, RTC_HZ) + 1;

	if (!alarm_can_match(core))
		return RTC_NEVER;
	for (;;) {
		int of_day = (int)floor_mod(s, DAY_SECONDS);

		if (!matches(core, RTC_HOURS_ALARM, encode_hour(core, of_day / 3600)))
			s += 3600 - of_day % 3600;
		else if (!matches(core, RTC_MINUTES_ALARM, encode(core, of_day / 60 % 60)))
			s += 60 - of_day % 60;
		else if (!matches(core, RTC_SECONDS_ALARM, encode(core, of_day % 60)))
			s++;
		else
			return s * RTC_HZ;
	}
}

static bool irq_level(const struct rtc_core *core)
{
	return core->cmos[RTC_B] & core->cmos[RTC_C] & RTC_C_FLAGS;
}

bool rtc_core_advance(struct rtc_core *core, int64_t now)
{
	int64_t guest = now + core->offset, step = period(core);

	if (guest < core->seen) /* the host's clock was set back */
		core->seen = guest;
	if (step && floor_div(guest, step) != floor_div(core->seen, step))
		core->cmos[RTC_C] |= RTC_C_PF;
	if (!stopped(core) && floor_div(guest, RTC_HZ) != floor_div(core->seen, RTC_HZ)) {
		core->cmos[RTC_C] |= RTC_C_UF;
		if (!(core->cmos[RTC_C] & RTC_C_AF) && next_alarm(core, core->seen) <= guest)
			core->cmos[RTC_C] |= RTC_C_AF;
	}
	core->seen = guest;
	return irq_level(core);
}

int64_t rtc_core_next(const struct rtc_core *core, int64_t now)
{
	int64_t guest = now + core->offset, step = period(core), next = RTC_NEVER, at;
	unsigned int wanted = core->cmos[RTC_B] & ~core->cmos[RTC_C] & RTC_C_FLAGS;

	if ((wanted & RTC_C_PF) && step)
		next = (floor_div(guest, step) + 1) * step;
	if ((wanted & RTC_C_UF) && !stopped(core)) {
		at = (floor_div(guest, RTC_HZ) + 1) * RTC_HZ;
		next = at < next ? at : next;
	}
	if ((wanted & RTC_C_AF) && !stopped(core)) {
		at = next_alarm(core, guest);
		next = at < next ? at : next;
	}
	return next == RTC_NEVER ? next : next - guest;
}

void rtc_core_init(struct rtc_core *core, int64_t offset, int64_t now)
{
	memset(core, 0, sizeof(*core));
	core->offset = offset;
	core->seen = now + offset;
	core->cmos[RTC_A] = RTC_A_RUN | 6; /* 32.768 kHz, 1024 Hz: what a PC's firmware leaves behind */
	core->cmos[RTC_B] = RTC_B_24H;
}

void rtc_core_reset(struct rtc_core *core, int64_t now)
{
	rtc_core_advance(core, now);
	core->cmos[RTC_B] &= (uint8_t)~RTC_C_FLAGS;
	core->cmos[RTC_C] = 0;
}

uint8_t rtc_core_read(struct rtc_core *core, unsigned int reg, int64_t now)
{
	int64_t guest = now + core->offset;
	uint8_t value;

	reg %= RTC_CMOS_LEN;
	switch (reg) {
	case RTC_A:
		value = core->cmos[RTC_A];
		if (!stopped(core) && floor_mod(guest, RTC_HZ) >= RTC_HZ - UIP_TICKS)
			value |= RTC_A_UIP;
		return value;
	case RTC_C:
		value = rtc_core_advance(core, now) ? RTC_C_IRQF : 0;
		value |= core->cmos[RTC_C];
		core->cmos[RTC_C] = 0;
		return value;
	case RTC_D:
		return RTC_D_VALID;
	default:
		if (is_time(reg) && !stopped(core))
			date_to_cmos(core, guest);
		return core->cmos[reg];
	}
}

/* A and B: what stops the clock and what lets it go on. */
static void write_control(struct rtc_core *core, unsigned int reg, uint8_t value, int64_t now)
{
	bool was_stopped = stopped(core);
	int64_t guest = now + core->offset;

	if (!was_stopped)
		date_to_cmos(core, guest);
	if (reg == RTC_A)
		value &= (uint8_t)~RTC_A_UIP;
	else if (value & ~core->cmos[RTC_B] & RTC_B_SET)
		value &= (uint8_t)~RTC_B_UIE; /* data sheet, register B, UIE */
	core->cmos[reg] = value;
	if (divider_in_reset(core))
		core->divider_was_reset = true;
	if (!was_stopped || stopped(core))
		return;
	set_time(core, core->divider_was_reset ? FIRST_UPDATE_TICK : floor_mod(guest, RTC_HZ), now);
	core->divider_was_reset = false;
}

void rtc_core_write(struct rtc_core *core, unsigned int reg, uint8_t value, int64_t now)
{
	int64_t guest = now + core->offset;

	reg %= RTC_CMOS_LEN;
	rtc_core_advance(core, now);
	if (reg == RTC_A || reg == RTC_B) {
		write_control(core, reg, value, now);
	} else if (is_time(reg) && !stopped(core)) {
		date_to_cmos(core, guest);
		core->cmos[reg] = value;
		set_time(core, floor_mod(guest, RTC_HZ), now);
	} else if (reg != RTC_C && reg != RTC_D) {
		core->cmos[reg] = value;
	}
}
