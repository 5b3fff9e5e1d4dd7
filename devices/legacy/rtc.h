/* SPDX-License-Identifier: MIT */
/* The PC's real-time clock and CMOS memory: ports 0x70 and 0x71, IRQ 8. */
#ifndef DEVICES_LEGACY_RTC_H
#define DEVICES_LEGACY_RTC_H

struct vm;

enum rtc_base {
	RTC_UTC,
	RTC_LOCAL, /* the host's local time; the offset to UTC is that of the moment of creation */
};

/* Returns 0 or -errno, told in one line. The machine owns the device. */
int rtc_create(struct vm *vm, enum rtc_base base);

#endif
