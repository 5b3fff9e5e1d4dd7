/* SPDX-License-Identifier: MIT */
#include "rt/bench.h"

#include "rt/io.h"
#include "rt/rt.h"

/* Shell's, with gaps of 1, 4, 13, 40, ... */
static void sort(uint32_t *values, uint32_t count)
{
	uint32_t gap = 1;

	while (gap < count / 3)
		gap = 3 * gap + 1;
	for (; gap; gap /= 3) {
		for (uint32_t i = gap; i < count; i++) {
			uint32_t value = values[i], at = i;

			for (; at >= gap && values[at - gap] > value; at -= gap)
				values[at] = values[at - gap];
			values[at] = value;
		}
	}
}

void bench_print(uint32_t *samples, uint32_t count, uint64_t tsc_khz)
{
	sort(samples, count);
	rt_print("round trips: count %u min %u median %u p99 %u max %u", count, samples[0], samples[count / 2],
		 samples[count - 1 - count / 100], samples[count - 1]);
	rt_print(" tsc_khz %lu\n", tsc_khz);
}

void bench_stay(uint64_t tsc_khz)
{
	uint64_t begin = rdtsc();

	while (rdtsc() - begin < BENCH_STAY_MS * tsc_khz)
		;
}

uint64_t bench_calibrate(void)
{
	uint64_t begin = rt_ticks(), tsc = rdtsc(), now;

	do
		now = rt_ticks();
	while (now - begin < (uint64_t)BENCH_STAY_MS * RT_TICKS_PER_MS);
	return (rdtsc() - tsc) * RT_TICKS_PER_MS / (now - begin);
}
