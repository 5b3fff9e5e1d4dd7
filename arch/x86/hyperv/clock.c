/* SPDX-License-Identifier: MIT */
#include "arch/x86/hyperv/clock.h"

#include <time.h>
#include <x86intrin.h>

__extension__ typedef unsigned __int128 u128;

static uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

uint64_t hv_tsc_scale(uint64_t tsc_hz)
{
	return tsc_hz <= HV_TIME_HZ ? 0 : (uint64_t)(((u128)HV_TIME_HZ << 64) / tsc_hz);
}

uint64_t hv_tsc_to_time(uint64_t tsc, uint64_t scale, int64_t offset)
{
	return (uint64_t)((u128)tsc * scale >> 64) + (uint64_t)offset;
}

void hv_clock_init(struct hv_clock *clock)
{
	*clock = (struct hv_clock){ .start_ns = monotonic_ns() };
	pthread_mutex_init(&clock->lock, NULL);
}

void hv_clock_destroy(struct hv_clock *clock)
{
	pthread_mutex_destroy(&clock->lock);
}

static uint64_t by_host(const struct hv_clock *clock)
{
	return (monotonic_ns() - clock->start_ns) / (1000000000ULL / HV_TIME_HZ);
}

uint64_t hv_clock_read(struct hv_clock *clock)
{
	uint64_t now;

	pthread_mutex_lock(&clock->lock);
	now = clock->by_tsc ? hv_tsc_to_time(__rdtsc() + clock->tsc_offset, clock->scale, clock->offset)
			    : by_host(clock);
	pthread_mutex_unlock(&clock->lock);
	return now;
}

bool hv_clock_follows_tsc(struct hv_clock *clock)
{
	bool yes;

	pthread_mutex_lock(&clock->lock);
	yes = clock->by_tsc;
	pthread_mutex_unlock(&clock->lock);
	return yes;
}

uint64_t hv_clock_read_at(struct hv_clock *clock, uint64_t guest_tsc)
{
	uint64_t now;

	pthread_mutex_lock(&clock->lock);
	now = clock->by_tsc ? hv_tsc_to_time(guest_tsc, clock->scale, clock->offset) : by_host(clock);
	pthread_mutex_unlock(&clock->lock);
	return now;
}

void hv_clock_follow_tsc(struct hv_clock *clock, uint64_t tsc_hz, uint64_t guest_tsc, uint64_t host_tsc)
{
	uint64_t scale = hv_tsc_scale(tsc_hz);

	pthread_mutex_lock(&clock->lock);
	if (scale && !clock->by_tsc) {
		clock->scale = scale;
		clock->offset = (int64_t)(by_host(clock) - hv_tsc_to_time(guest_tsc, scale, 0));
		clock->tsc_offset = guest_tsc - host_tsc;
		clock->by_tsc = true;
	}
	pthread_mutex_unlock(&clock->lock);
}

void hv_clock_fill_page(struct hv_clock *clock, struct hv_reference_tsc *page)
{
	pthread_mutex_lock(&clock->lock);
	/* TLFS 12.7.3: a reader takes the sequence before and after; 0 sends it to the counter MSR. */
	__atomic_store_n(&page->sequence, 0, __ATOMIC_SEQ_CST);
	page->reserved = 0;
	if (clock->by_tsc) {
		__atomic_store_n(&page->scale, clock->scale, __ATOMIC_RELAXED);
		__atomic_store_n(&page->offset, clock->offset, __ATOMIC_RELAXED);
		/* Neither 0 nor all ones, which old versions of the interface took for "not valid". */
		clock->sequence = clock->sequence >= UINT32_MAX - 1 ? 1 : clock->sequence + 1;
		__atomic_store_n(&page->sequence, clock->sequence, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&clock->lock);
}
