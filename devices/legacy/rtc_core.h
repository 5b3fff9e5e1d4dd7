/* SPDX-License-Identifier: MIT */
/*
 * The registers of an MC146818A real-time clock with a PC's 128 bytes of CMOS memory, without ports or
 * timers.
 *
 * Time is counted in ticks of the clock's own crystal, 1/32768 s, since 1970-01-01. Every function is told
 * the host's time; the guest's differs from it by an offset that setting the clock changes. Not thread safe:
 * the owner locks.
 */
#ifndef DEVICES_LEGACY_RTC_CORE_H
#define DEVICES_LEGACY_RTC_CORE_H

#include <stdbool.h>
#include <stdint.h>

#define RTC_HZ	     32768
#define RTC_CMOS_LEN 128

enum rtc_reg {
	RTC_SECONDS = 0x00,
	RTC_SECONDS_ALARM = 0x01,
	RTC_MINUTES = 0x02,
	RTC_MINUTES_ALARM = 0x03,
	RTC_HOURS = 0x04,
	RTC_HOURS_ALARM = 0x05,
	RTC_WEEKDAY = 0x06, /* 1: Sunday */
	RTC_DAY = 0x07,
	RTC_MONTH = 0x08,
	RTC_YEAR = 0x09,
	RTC_A = 0x0a,
	RTC_B = 0x0b,
	RTC_C = 0x0c,
	RTC_D = 0x0d,
	RTC_CENTURY = 0x32, /* as the FADT says */
};

enum {
	RTC_A_UIP = 1 << 7,
	RTC_A_DIVIDER = 0x70,
	RTC_A_DIVIDER_RESET = 0x60, /* both bits set: 110 and 111 hold the divider in reset */
	RTC_A_RUN = 0x20,
	RTC_A_RATE = 0x0f,

	RTC_B_SET = 1 << 7,
	RTC_B_PIE = 1 << 6,
	RTC_B_AIE = 1 << 5,
	RTC_B_UIE = 1 << 4,
	RTC_B_BINARY = 1 << 2,
	RTC_B_24H = 1 << 1,

	RTC_C_IRQF = 1 << 7,
	RTC_C_PF = 1 << 6,
	RTC_C_AF = 1 << 5,
	RTC_C_UF = 1 << 4,
	RTC_C_FLAGS = 0x70, /* at the positions of their enables in B */

	RTC_D_VALID = 1 << 7,
};

#define RTC_NEVER INT64_MAX

struct rtc_core {
	uint8_t cmos[RTC_CMOS_LEN]; /* the time bytes are current only while the clock stands still */
	int64_t offset;		    /* guest's time less the host's */
	int64_t seen;		    /* guest's time up to which C's flags are right */
	bool divider_was_reset;	    /* since the clock last ran */
};

/* offset: ticks the guest's clock is ahead of the host's (a local time zone). */
void rtc_core_init(struct rtc_core *core, int64_t offset, int64_t now);
/* The RESET pin: interrupts go, time and memory stay. */
void rtc_core_reset(struct rtc_core *core, int64_t now);

uint8_t rtc_core_read(struct rtc_core *core, unsigned int reg, int64_t now); /* reg is taken modulo 128 */
void rtc_core_write(struct rtc_core *core, unsigned int reg, uint8_t value, int64_t now);

/* Sets the flags of what has happened up to now; returns the level of the interrupt output. */
bool rtc_core_advance(struct rtc_core *core, int64_t now);

/* Ticks until the next enabled interrupt whose flag is not set yet: at least 1, or RTC_NEVER. */
int64_t rtc_core_next(const struct rtc_core *core, int64_t now);

#endif
