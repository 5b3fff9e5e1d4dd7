/* SPDX-License-Identifier: MIT */
/*
 * ivshmem_floor - the least that waking another process and being woken by it takes: two processes and two eventfds.
 *
 *	ivshmem_floor COUNT
 *
 * Prints the line that tests/guests/bench_ivshmem.c does, times in nanoseconds, which are instructions where the clock
 * counts them.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define WARM	200
#define STAY_NS 20000000

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

static void ring(int fd)
{
	const uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) != sizeof(one))
		exit(2);
}

static void wait_for(int fd)
{
	uint64_t count;

	if (read(fd, &count, sizeof(count)) != sizeof(count))
		exit(2);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	unsigned int count = argc > 1 ? (unsigned int)atoi(argv[1]) : 1000;
	const struct timespec stay = { .tv_nsec = STAY_NS };
	uint64_t *samples = calloc(count, sizeof(*samples));
	int there = eventfd(0, EFD_CLOEXEC), back = eventfd(0, EFD_CLOEXEC);
	pid_t child = fork();

	if (!count || !samples || there < 0 || back < 0 || child < 0)
		return 2;
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;) {
			wait_for(there);
			ring(back);
		}
	}
	for (unsigned int i = 0; i < WARM + count; i++) {
		uint64_t begin = now();

		ring(there);
		wait_for(back);
		if (i >= WARM)
			samples[i - WARM] = now() - begin;
	}
	qsort(samples, count, sizeof(*samples), compare);
	printf("round trips: count %u min %" PRIu64 " median %" PRIu64 " p99 %" PRIu64 " max %" PRIu64
	       " tsc_khz 1000000\n",
	       count, samples[0], samples[count / 2], samples[count - 1 - count / 100], samples[count - 1]);
	fflush(stdout);
	/* tests/bench/measure looks at this process when the line has arrived. */
	nanosleep(&stay, NULL);
	return 0;
}
