/* SPDX-License-Identifier: MIT */
/*
 * tsc - print how many thousand ticks this machine's TSC makes in a second. The emulator's processor has the same TSC,
 * and a host that is told need not measure it (tests/host/run).
 *
 * A tick count and a time belong together: of some pairs that one is taken whose tick counts before and after the time
 * are closest, so that a busy machine does not matter.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>

struct moment {
	uint64_t ticks, ns;
};

static struct moment now(void)
{
	struct moment best = { 0 };
	uint64_t width = UINT64_MAX;

	for (int i = 0; i < 20; i++) {
		uint64_t before = __builtin_ia32_rdtsc(), after;
		struct timespec ts;

		clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
		after = __builtin_ia32_rdtsc();
		if (after - before >= width)
			continue;
		width = after - before;
		best.ticks = before + width / 2;
		best.ns = (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
	}
	return best;
}

int main(void)
{
	const struct timespec pause = { .tv_nsec = 30000000 };
	struct moment begin = now(), end;

	nanosleep(&pause, NULL);
	end = now();
	if (end.ns <= begin.ns)
		return 1;
	printf("%llu\n", (unsigned long long)((end.ticks - begin.ticks) * 1000000 / (end.ns - begin.ns)));
	return 0;
}
