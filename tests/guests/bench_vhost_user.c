/* SPDX-License-Identifier: MIT */
/*
 * What a change of VirtIO shared memory takes: the guest's half of the benchmark "vhost-shm" (docs/performance.md). The
 * back-end is tests/servers/vhost-user.c. A sample is one message's share of a request in which the back-end maps and
 * unmaps a page BATCH times. count=N samples, warm=N before them.
 */
#include "rt/apic.h"
#include "rt/bench.h"
#include "rt/io.h"
#include "rt/rt.h"
#include "rt/vut.h"

#define BATCH	  64u
#define PAGE	  4096u
#define COUNT_MAX 20000

static uint32_t samples[COUNT_MAX];
static struct virtio v;
static struct vq q[1];

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
	khz = bench_calibrate();
	while (warm--)
		sample();
	for (uint32_t i = 0; i < count; i++)
		samples[i] = sample();
	bench_print(samples, count, khz);
	bench_stay(khz);
}
