/* SPDX-License-Identifier: MIT */
/* What guests that take times have in common. Times are in ticks of the TSC. */
#ifndef RT_BENCH_H
#define RT_BENCH_H

#include <stdint.h>

#define BENCH_STAY_MS 50

/* Sorts the samples and prints the line that tests/bench/measure waits for. */
void bench_print(uint32_t *samples, uint32_t count, uint64_t tsc_khz);

/*
 * tests/bench/measure looks at the process when the figures have arrived: it must not have ended by then. bench_stay()
 * makes no exit; bench_calibrate() uses the clock of the board, and returns how fast the TSC runs.
 */
void bench_stay(uint64_t tsc_khz);
uint64_t bench_calibrate(void);

#endif
