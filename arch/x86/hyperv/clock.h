/* SPDX-License-Identifier: MIT */
/*
 * The partition's reference time (TLFS 12.7): 100 ns units since the partition was created. It follows CLOCK_MONOTONIC
 * until the guest asks for the reference TSC page, and from then on the guest's TSC, so that the page and the counter
 * MSR agree for ever. The user backend's; KVM keeps its own.
 */
#ifndef ARCH_X86_HYPERV_CLOCK_H
#define ARCH_X86_HYPERV_CLOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "arch/x86/hyperv/tlfs.h"

#define HV_TIME_HZ 10000000ull

struct hv_clock {
	uint64_t start_ns; /* CLOCK_MONOTONIC */
	pthread_mutex_t lock;
	bool by_tsc; /* lock guards this and what follows */
	uint64_t scale;
	int64_t offset;
	uint64_t tsc_offset; /* guest's TSC less the host's */
	uint32_t sequence;
};

/* 2^64 * HV_TIME_HZ / tsc_hz; 0 if tsc_hz is too low for that to be less than 2^64. */
uint64_t hv_tsc_scale(uint64_t tsc_hz);
uint64_t hv_tsc_to_time(uint64_t tsc, uint64_t scale, int64_t offset);

void hv_clock_init(struct hv_clock *clock);
void hv_clock_destroy(struct hv_clock *clock);

/* Now. Any thread. */
uint64_t hv_clock_read(struct hv_clock *clock);

/* Whether it follows the TSC by now. Any thread. */
bool hv_clock_follows_tsc(struct hv_clock *clock);

/* The time for a vCPU thread that knows its guest's TSC exactly. */
uint64_t hv_clock_read_at(struct hv_clock *clock, uint64_t guest_tsc);

/* From now on time follows a TSC of tsc_hz, which the guest reads as guest_tsc when the host reads host_tsc. */
void hv_clock_follow_tsc(struct hv_clock *clock, uint64_t tsc_hz, uint64_t guest_tsc, uint64_t host_tsc);

/* Writes the reference TSC page: invalid unless time follows the TSC. */
void hv_clock_fill_page(struct hv_clock *clock, struct hv_reference_tsc *page);

#endif
