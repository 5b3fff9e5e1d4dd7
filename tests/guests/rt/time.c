/* SPDX-License-Identifier: MIT */
/* Time by the ACPI PM timer: a port that counts at a known rate on any machine. */
#include "rt/io.h"
#include "rt/rt.h"

#define PM_TIMER 0x608
#define PM_BITS	 24 /* vmm's has 32, QEMU's no more than ACPI asks for: it wraps after 4.7 s */

uint64_t rt_ticks(void)
{
	static uint64_t high;
	static uint32_t last;
	uint32_t now = inl(PM_TIMER) & ((1u << PM_BITS) - 1);

	if (now < last)
		high += 1ULL << PM_BITS;
	last = now;
	return high | now;
}

static uint64_t ticks_of(uint32_t us)
{
	return (uint64_t)us * RT_TICKS_PER_MS / 1000;
}

void rt_delay(uint32_t us)
{
	uint64_t end = rt_ticks() + ticks_of(us);

	while (rt_ticks() < end)
		__asm__ volatile("pause");
}

bool rt_wait(uint8_t vector, uint32_t count, uint32_t us)
{
	uint64_t end = rt_ticks() + ticks_of(us);

	/* Not by HLT: nothing would end it if the interrupt never came. */
	while (rt_interrupts[vector] < count) {
		if (rt_ticks() >= end)
			return false;
		irq_window();
	}
	return true;
}
