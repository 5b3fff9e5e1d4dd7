/* SPDX-License-Identifier: MIT */
/*
 * clock - reads the time many times, on all CPUs in turn, and says whether it ever went back, whether it goes on while
 * the program sleeps, and how the clocks agree with each other. For the guests of tests/linux.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define READS  4000
#define NAP_NS 200000000LL

static long long now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(void)
{
	const struct timespec nap = { .tv_nsec = NAP_NS };
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	long long last = now(CLOCK_MONOTONIC), begin = last, back = 0, slept;

	for (int i = 0; i < READS; i++) {
		long long t;

		if (i % 100 == 0) {
			cpu_set_t set;

			CPU_ZERO(&set);
			CPU_SET(i / 100 % cpus, &set);
			sched_setaffinity(0, sizeof(set), &set);
		}
		t = now(CLOCK_MONOTONIC);
		back += t < last;
		last = t;
	}
	printf("monotonic %s: %d reads on %ld CPUs in %lld us, %lld went back\n", back ? "no" : "yes", READS, cpus,
	       (last - begin) / 1000, back);
	begin = now(CLOCK_MONOTONIC);
	nanosleep(&nap, NULL);
	slept = now(CLOCK_MONOTONIC) - begin;
	printf("sleep %s: %lld us for %lld\n", slept >= NAP_NS && slept < 50 * NAP_NS ? "good" : "bad", slept / 1000,
	       NAP_NS / 1000);
	return back != 0;
}
