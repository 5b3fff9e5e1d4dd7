/* SPDX-License-Identifier: MIT */
/*
 * How long a signal to the host and the answer take: the guest's half of the benchmark "signal" (docs/performance.md).
 *
 * Arguments: how=hyperv|port; wait=halt|spin; count=N rounds; warm=N rounds before them; tsc_khz=N. With "hyperv" the
 * signal is HvSignalEvent and the answer an event flag with its interrupt, by vmm's --device hv-test
 * (arch/x86/hyperv/testport.h); with "port" a bare port write and a bare interrupt, by tests/bench/floor.c. All else is
 * the same: x2APIC, one EOI, a handler that tells the waiting code. "halt" waits by HLT; "spin" with interrupts on.
 */
#include "rt/apic.h"
#include "rt/bench.h"
#include "rt/hyperv.h"
#include "rt/io.h"
#include "rt/rt.h"

/* arch/x86/hyperv/testport.h */
#define MESSAGES 0x10001
#define EVENTS	 0x10002
#define CONFIG	 0x1001
#define SINT	 2
#define FLAG	 1

/* tests/bench/floor.c */
#define FLOOR_PORT 0x510

#define VECTOR	  0xf3
#define COUNT_MAX 20000

static uint32_t samples[COUNT_MAX];
static volatile bool answered;
static uint64_t *flags; /* the SINT's, of which there is one */

static void event_came(struct rt_frame *frame)
{
	(void)frame;
	if (__atomic_exchange_n(flags, 0, __ATOMIC_SEQ_CST))
		answered = true;
	lapic_eoi();
}

static void interrupt_came(struct rt_frame *frame)
{
	(void)frame;
	answered = true;
	lapic_eoi();
}

static uint32_t round_trip(bool hyperv, bool halt)
{
	uint64_t begin = rdtsc();

	answered = false;
	if (hyperv)
		CHECK(!hv_call(HV_CALL_SIGNAL_EVENT | HV_CALL_FAST, EVENTS, 0));
	else
		outl(FLOOR_PORT, EVENTS);
	while (!answered)
		if (halt)
			halt_until_irq();
	return (uint32_t)(rdtsc() - begin);
}

static void prepare(bool hyperv)
{
	const uint32_t config[] = { 0, SINT, FLAG };

	lapic_enable(true);
	rt_handlers[VECTOR] = hyperv ? event_came : interrupt_came;
	if (!hyperv)
		return;
	hv_init();
	hv_synic_enable(0);
	hv_sint_enable(SINT, VECTOR, 0);
	flags = (uint64_t *)hv_event_flags(0, SINT);
	CHECK_EQ(hv_post(0, MESSAGES, CONFIG, config, sizeof(config)), HV_SUCCESS);
}

void guest_main(void)
{
	bool hyperv = rt_arg_is("how", "hyperv"), halt = rt_arg_is("wait", "halt");
	uint32_t count = (uint32_t)rt_arg_number("count", 1000), warm = (uint32_t)rt_arg_number("warm", 100);
	uint64_t khz;

	CHECK(count && count <= COUNT_MAX);
	prepare(hyperv);
	khz = hyperv ? rdmsr(HV_TSC_FREQUENCY) / 1000 : rt_arg_number("tsc_khz", 0);
	if (!halt)
		irq_on();
	while (warm--)
		round_trip(hyperv, halt);
	for (uint32_t i = 0; i < count; i++)
		samples[i] = round_trip(hyperv, halt);
	irq_off();
	bench_print(samples, count, khz);
	bench_stay(khz);
	if (hyperv) {
		hv_synic_disable();
		hv_exit();
	}
}
