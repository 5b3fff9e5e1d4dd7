/* SPDX-License-Identifier: MIT */
/*
 * What a change of VirtIO shared memory takes: the guest's half of the benchmark "vhost-shm" (docs/performance.md). The
 * back-end is tests/servers/vhost-user.c. A sample is one message's share of a request in which the back-end maps and
 * unmaps a page batch= times. count=N samples, warm=N before them.
 */
#include "rt/apic.h"
#include "rt/bench.h"
#include "rt/io.h"
#include "rt/rt.h"
#include "rt/vut.h"

#define PAGE	  4096u
#define COUNT_MAX 20000

static uint32_t samples[COUNT_MAX];
static struct virtio v;
static struct vq q[1];

static uint32_t sample(uint32_t batch)
{
	const struct vut_command churn = { VUT_CHURN, VUT_FILE_A, { v.shm[0].id, batch, 0, PAGE } };
	uint64_t begin = rdtsc();
	uint32_t length;
	uint16_t id;

	vut_put(&q[0], 0, &churn, 0, 0, 0, 0);
	vq_kick(&q[0]);
	/* Without a clock: the back-end has the CPU, if there is but one. */
	while (!vq_used(&q[0], &id, &length))
		halt_until_irq();
	CHECK_EQ(vut_answer(&q[0], 0)->status, 0);
	CHECK_EQ(vut_answer(&q[0], 0)->value, 0);
	return (uint32_t)((rdtsc() - begin) / (2 * batch));
}

void guest_main(void)
{
	uint32_t count = (uint32_t)rt_arg_number("count", 200), warm = (uint32_t)rt_arg_number("warm", 2);
	uint32_t batch = (uint32_t)rt_arg_number("batch", 32);
	uint64_t khz;

	CHECK(count && count <= COUNT_MAX && batch && batch <= 0x10000);
	pic_off();
	lapic_enable(false);
	virtio_find(&v, VUT_ID);
	CHECK(v.nr_shm);
	vut_start(&v, q, 1, 0);
	khz = bench_calibrate();
	while (warm--)
		sample(batch);
	for (uint32_t i = 0; i < count; i++)
		samples[i] = sample(batch);
	bench_print(samples, count, khz);
	bench_stay(khz);
}
