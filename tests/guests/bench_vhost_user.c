/* SPDX-License-Identifier: MIT */
/*
 * What a change of VirtIO shared memory takes: the guest's half of the benchmark "vhost-shm" (docs/performance.md). The
 * back-end is tests/servers/vhost-user.c. A sample is one message's share of a request in which the back-end maps and
 * unmaps a page BATCH times. count=N samples, warm=N before them.
 */
#include "rt/apic.h"
#include "rt/io.h"
#include "rt/rt.h"
#include "rt/vut.h"

#define BATCH	  64u
#define PAGE	  4096u
#define COUNT_MAX 20000
#define STAY_MS	  50

static uint32_t samples[COUNT_MAX];
static struct virtio v;
static struct vq q[1];

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

/* How fast the TSC runs, by the clock of the board; and tests/bench/measure looks at the process meanwhile. */
static uint64_t stay(void)
{
	uint64_t begin = rt_ticks(), tsc = rdtsc(), now;

	do
		now = rt_ticks();
	while (now - begin < (uint64_t)STAY_MS * RT_TICKS_PER_MS);
	return (rdtsc() - tsc) * RT_TICKS_PER_MS / (now - begin);
}

static uint32_t sample(void)
{
	uint64_t begin = rdtsc();
	struct vut_answer a = vut_do(&q[0], VUT_CHURN, VUT_FILE_A, v.shm[0].id, BATCH, 0, PAGE);

	CHECK_EQ(a.status, 0);
	CHECK_EQ(a.value, 0);
	return (uint32_t)((rdtsc() - begin) / (2 * BATCH));
}

void guest_main(void)
{
	uint32_t count = (uint32_t)rt_arg_number("count", 200), warm = (uint32_t)rt_arg_number("warm", 10);
	uint64_t khz;

	CHECK(count && count <= COUNT_MAX);
	pic_off();
	lapic_enable(false);
	virtio_find(&v, VUT_ID);
	CHECK(v.nr_shm);
	vut_start(&v, q, 1, 0);
	khz = stay();
	while (warm--)
		sample();
	for (uint32_t i = 0; i < count; i++)
		samples[i] = sample();
	sort(samples, count);
	rt_print("round trips: count %u min %u median %u p99 %u max %u", count, samples[0], samples[count / 2],
		 samples[count - 1 - count / 100], samples[count - 1]);
	rt_print(" tsc_khz %lu\n", khz);
	stay();
}
