/* SPDX-License-Identifier: MIT */
/*
 * A Hyper-V partition apart from its SynIC: CPUID, MSRs, clocks, hypercalls, crash and reset. Arguments: test=NAME;
 * cpus=N; eax, ebx, edx, hints=N: leaf 0x40000003 and leaf 0x40000004's eax as they must be, where the case knows.
 */
#include "rt/hyperv.h"
#include "rt/apic.h"
#include "rt/io.h"
#include "rt/rt.h"

#define OUTSIDE	   0x90000000ULL /* a hole: RAM ends below */
#define CMOS_COUNT 0x50
#define NO_SPIN	   0xffffffffu

/* TLFS 2.4.3: leaf 0x40000003. */
enum {
	EAX_VP_RUNTIME = 1 << 0,
	EAX_REF_COUNT = 1 << 1,
	EAX_SYNIC = 1 << 2,
	EAX_STIMER = 1 << 3,
	EAX_APIC = 1 << 4,
	EAX_HYPERCALL = 1 << 5,
	EAX_VP_INDEX = 1 << 6,
	EAX_RESET = 1 << 7,
	EAX_REF_TSC = 1 << 9,
	EAX_GUEST_IDLE = 1 << 10,
	EAX_FREQUENCY = 1 << 11,
	EAX_REENLIGHTENMENT = 1 << 13,
	EAX_TSC_INVARIANT = 1 << 15,
	EBX_PARTITION_ID = 1 << 1,
	EBX_POST_MESSAGES = 1 << 4,
	EBX_SIGNAL_EVENTS = 1 << 5,
	EBX_CPU_MANAGEMENT = 1 << 12,
	EBX_ISOLATION = 1 << 22,
	EDX_FREQUENCY = 1 << 8,
	EDX_CRASH = 1 << 10,
	HINT_DEPRECATE_AUTO_EOI = 1 << 9,
};

static struct hv_tsc_page tsc_page __attribute__((aligned(4096)));
static uint8_t text_page[4096] __attribute__((aligned(4096)));
static volatile uint32_t arrived;

static uint8_t cmos(uint8_t index)
{
	outb(0x70, index);
	return inb(0x71);
}

static void set_cmos(uint8_t index, uint8_t value)
{
	outb(0x70, index);
	outb(0x71, value);
}

/* CPUID. */

static void check_wanted(const char *name, uint32_t got)
{
	if (rt_arg(name) && rt_arg_number(name, 0) != got)
		rt_fail_eq(__FILE_NAME__, __LINE__, name, got, rt_arg_number(name, 0));
}

static void test_cpuid(void)
{
	const uint32_t eax = EAX_VP_RUNTIME | EAX_REF_COUNT | EAX_SYNIC | EAX_HYPERCALL | EAX_VP_INDEX | EAX_RESET |
			     EAX_REF_TSC | EAX_FREQUENCY;
	struct cpuid features = cpuid(0x40000003, 0), hints = cpuid(0x40000004, 0), limits = cpuid(0x40000005, 0);

	CHECK(hv_detect());
	rt_print("features %x %x %x %x hints %x %x\n", features.eax, features.ebx, features.ecx, features.edx,
		 hints.eax, hints.ebx);
	CHECK_EQ(features.eax & eax, eax);
	CHECK_EQ(features.ebx & (EBX_POST_MESSAGES | EBX_SIGNAL_EVENTS), EBX_POST_MESSAGES | EBX_SIGNAL_EVENTS);
	CHECK_EQ(features.edx & (EDX_FREQUENCY | EDX_CRASH), EDX_FREQUENCY | EDX_CRASH);
	/* These make a guest the root of a hypervisor, or stop it when they are not kept. */
	CHECK_EQ(features.ebx & (EBX_PARTITION_ID | EBX_CPU_MANAGEMENT | EBX_ISOLATION), 0);
	CHECK_EQ(features.eax & (EAX_REENLIGHTENMENT | EAX_TSC_INVARIANT), 0);
	CHECK(hints.eax & HINT_DEPRECATE_AUTO_EOI);
	CHECK_EQ(hints.ebx, NO_SPIN);
	CHECK(limits.eax >= rt_arg_number("cpus", 1));
	check_wanted("eax", features.eax);
	check_wanted("ebx", features.ebx);
	check_wanted("edx", features.edx);
	check_wanted("hints", hints.eax);
	/* Another hypervisor's signature at the next hundreds would win over this one in Linux. */
	for (uint32_t leaf = 0x40000100; leaf < 0x40001000; leaf += 0x100) {
		struct cpuid other = cpuid(leaf, 0);

		CHECK(other.ebx != 0x4b4d564b); /* "KVMK" */
		CHECK(other.eax < leaf || other.eax > leaf + 0xff);
	}
}

/* MSRs. */

struct msr_case {
	uint32_t first, last;
	bool offered;
	bool writable;
};

static void check_msr(uint32_t msr, const struct msr_case *c)
{
	uint64_t value, again;
	bool readable = hv_try_rdmsr(msr, &value);

	if (readable != c->offered)
		rt_fail_eq(__FILE_NAME__, __LINE__, "MSR readable", msr, c->offered);
	if (!c->offered && hv_try_wrmsr(msr, 0))
		rt_fail_eq(__FILE_NAME__, __LINE__, "MSR not offered, but written", msr, 0);
	if (!c->offered)
		return;
	if (hv_try_wrmsr(msr, value) != c->writable)
		rt_fail_eq(__FILE_NAME__, __LINE__, "MSR writable", msr, c->writable);
	if (c->writable && (!hv_try_rdmsr(msr, &again) || again != value))
		rt_fail_eq(__FILE_NAME__, __LINE__, "MSR keeps its value", msr, value);
}

static void test_msrs(void)
{
	struct cpuid f = cpuid(0x40000003, 0);
	const struct msr_case cases[] = {
		{ HV_GUEST_OS_ID, HV_HYPERCALL, true, true },
		{ HV_VP_INDEX, HV_VP_INDEX, true, false },
		{ HV_VP_RUNTIME, HV_VP_RUNTIME, f.eax & EAX_VP_RUNTIME, false },
		{ HV_TIME_REF_COUNT, HV_TIME_REF_COUNT, f.eax & EAX_REF_COUNT, false },
		{ HV_REFERENCE_TSC, HV_REFERENCE_TSC, f.eax & EAX_REF_TSC, true },
		{ HV_TSC_FREQUENCY, HV_APIC_FREQUENCY, f.edx & EDX_FREQUENCY, false },
		{ HV_TPR, HV_TPR, f.eax & EAX_APIC, true },
		{ HV_SCONTROL, HV_SCONTROL, f.eax & EAX_SYNIC, true },
		{ HV_SVERSION, HV_SVERSION, f.eax & EAX_SYNIC, false },
		{ HV_SIEFP, HV_EOM, f.eax & EAX_SYNIC, true },
		{ HV_SINT0, HV_SINT0 + HV_SINTS - 1, f.eax & EAX_SYNIC, true },
		{ HV_STIMER0_CONFIG, HV_STIMER0_CONFIG + 7, f.eax & EAX_STIMER, true },
		{ HV_CRASH_P0, HV_CRASH_P0 + 4, f.edx & EDX_CRASH, true },
		{ HV_REENLIGHTENMENT, HV_REENLIGHTENMENT, f.eax & EAX_REENLIGHTENMENT, true },
		{ HV_TSC_INVARIANT, HV_TSC_INVARIANT, f.eax & EAX_TSC_INVARIANT, true },
		{ 0x400000a0, 0x400000a0, false, false }, /* of no SINT */
		{ 0x40000050, 0x40000050, false, false }, /* of nothing */
	};
	uint64_t value;

	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (uint32_t msr = cases[i].first; msr <= cases[i].last; msr++)
			check_msr(msr, &cases[i]);
	CHECK_EQ(rdmsr(HV_VP_INDEX), 0);
	CHECK_EQ(rdmsr(HV_SVERSION), 1);
	CHECK_EQ(rdmsr(HV_APIC_FREQUENCY), 1000000000);
	CHECK(hv_try_rdmsr(HV_CRASH_CTL, &value));
	CHECK_EQ(value & 1ULL << 63, 1ULL << 63); /* told of a crash */
	CHECK(hv_try_rdmsr(HV_RESET, &value) && !value);
	CHECK(hv_try_wrmsr(HV_RESET, 0)); /* and nothing happens */
	CHECK(hv_try_wrmsr(HV_VP_ASSIST, (uint64_t)text_page | 1));
	CHECK_EQ(rdmsr(HV_VP_ASSIST), (uint64_t)text_page | 1);
	wrmsr(HV_VP_ASSIST, 0);
	/* A vector below 16 is none, unless the SINT is masked (TLFS 11.8.3). */
	CHECK(!hv_try_wrmsr(HV_SINT0 + 3, 5));
	CHECK_EQ(rdmsr(HV_SINT0 + 3), HV_SINT_MASKED);
	CHECK(hv_try_wrmsr(HV_SINT0 + 3, 0x40));
	CHECK_EQ(rdmsr(HV_SINT0 + 3), 0x40);
	CHECK(hv_try_wrmsr(HV_SINT0 + 3, HV_SINT_MASKED));
	/* Without a guest OS id there is no hypercall page. */
	CHECK_EQ(rdmsr(HV_GUEST_OS_ID), 0);
	hv_try_wrmsr(HV_HYPERCALL, (uint64_t)text_page | 1);
	CHECK_EQ(rdmsr(HV_HYPERCALL) & 1, 0);
	CHECK_EQ(text_page[0], 0);
}

/* The local APIC's registers as MSRs, and the VP assist page (TLFS 10.2.3, 10.3.5). */

#define IPI_VECTOR   0x61
#define ICR_TO(id)   ((uint64_t)(id) << 56)
#define NO_EOI	     1u /* of the page's first word: the EOI that is due may be left out */
#define LAZY_ROUNDS  100
#define ASSIST_WORDS (4096 / 4)

static volatile uint32_t assist_page[ASSIST_WORDS] __attribute__((aligned(4096)));
static volatile uint32_t ipis, in_service, saved;

static void on_ipi(struct rt_frame *frame)
{
	(void)frame;
	ipis++;
	in_service += lapic_in_service(IPI_VECTOR);
}

/* As TLFS 10.3.5.1 says: whoever finds the bit set clears it, and that is the end of the interrupt. */
static void on_lazy_ipi(struct rt_frame *frame)
{
	(void)frame;
	ipis++;
	if (__atomic_fetch_and(&assist_page[0], ~NO_EOI, __ATOMIC_SEQ_CST) & NO_EOI)
		saved++;
	else
		wrmsr(HV_EOI, 0);
}

static void send_ipi(uint32_t id)
{
	wrmsr(HV_ICR, ICR_TO(id) | ICR_FIXED | ICR_ASSERT | IPI_VECTOR);
}

/* One is in service until it is ended; the next one waits as long. */
static void check_eoi(void)
{
	rt_handlers[IPI_VECTOR] = on_ipi;
	send_ipi(lapic_id());
	hv_await_word(&ipis, 1);
	send_ipi(lapic_id());
	CHECK(lapic_pending(IPI_VECTOR));
	rt_delay(1000);
	CHECK_EQ(ipis, 1);
	wrmsr(HV_EOI, 0);
	hv_await_word(&ipis, 2);
	CHECK_EQ(in_service, 2);
	wrmsr(HV_EOI, 0);
	CHECK(!lapic_in_service(IPI_VECTOR));
}

static void check_tpr(void)
{
	wrmsr(HV_TPR, IPI_VECTOR & 0xf0);
	CHECK_EQ(rdmsr(HV_TPR), IPI_VECTOR & 0xf0);
	CHECK_EQ(lapic_read(LAPIC_TPR), IPI_VECTOR & 0xf0);
	send_ipi(lapic_id());
	rt_delay(1000);
	CHECK_EQ(ipis, 2);
	wrmsr(HV_TPR, 0);
	hv_await_word(&ipis, 3);
	wrmsr(HV_EOI, 0);
}

static void check_vp_assist(void)
{
	assist_page[0] = ~0u;
	wrmsr(HV_VP_ASSIST, (uint64_t)assist_page | 1);
	CHECK_EQ(assist_page[0], 0);
	rt_handlers[IPI_VECTOR] = on_lazy_ipi;
	ipis = 0;
	for (uint32_t i = 1; i <= LAZY_ROUNDS; i++) {
		send_ipi(lapic_id());
		hv_await_word(&ipis, i);
	}
	wrmsr(HV_VP_ASSIST, 0);
	CHECK(!lapic_in_service(IPI_VECTOR));
	rt_print("%u EOIs saved of %u\n", saved, (unsigned int)LAZY_ROUNDS);
}

static void other_with_apic(unsigned int n)
{
	(void)n;
	lapic_enable(false);
	arrived = 1;
	for (;;)
		halt_until_irq();
}

static void test_apic(void)
{
	uint64_t value;

	hv_init();
	lapic_enable(false);
	if (!(cpuid(0x40000003, 0).eax & EAX_APIC)) {
		for (uint32_t msr = HV_EOI; msr <= HV_TPR; msr++)
			CHECK(!hv_try_rdmsr(msr, &value) && !hv_try_wrmsr(msr, 0));
		rt_print("no APIC registers\n");
		return;
	}
	irq_on();
	check_eoi();
	check_tpr();
	check_vp_assist();
	irq_off();
	ipis = 0;
	ap_start(1, other_with_apic);
	hv_await_word(&arrived, 1);
	send_ipi(1);
	hv_await_word(&ipis, 1);
	hv_exit();
}

/* VPs. */

static void other_vp(unsigned int n)
{
	CHECK_EQ(rdmsr(HV_VP_INDEX), cpuid(1, 0).ebx >> 24);
	CHECK_EQ(rdmsr(HV_SINT0), HV_SINT_MASKED);
	CHECK_EQ(rdmsr(HV_SIMP) & 1, 0);
	(void)n;
	__atomic_fetch_add(&arrived, 1, __ATOMIC_SEQ_CST);
	for (;;)
		__asm__ volatile("cli; hlt");
}

static void test_vps(void)
{
	uint32_t cpus = (uint32_t)rt_arg_number("cpus", 1);

	CHECK_EQ(rdmsr(HV_VP_INDEX), 0);
	hv_init();
	lapic_enable(false);
	for (uint32_t i = 1; i < cpus; i++) {
		ap_start(i, other_vp);
		hv_await_word(&arrived, i);
	}
	hv_exit();
}

/* Time. */

static void check_tsc_page(void)
{
	uint64_t page = 0, before, after;
	uint32_t compared = 0, sequence;

	wrmsr(HV_REFERENCE_TSC, (uint64_t)&tsc_page | 1);
	CHECK_EQ(rdmsr(HV_REFERENCE_TSC), (uint64_t)&tsc_page | 1);
	for (int i = 0; i < 200; i++) {
		sequence = ((volatile struct hv_tsc_page *)&tsc_page)->sequence;
		before = hv_reference_time();
		if (!hv_tsc_page_time(&tsc_page, &page))
			continue;
		after = hv_reference_time();
		/* A host whose own clock has changed meanwhile says so. */
		if (((volatile struct hv_tsc_page *)&tsc_page)->sequence != sequence)
			continue;
		compared++;
		/* The two may be rounded differently: 20 us. */
		CHECK(page + 200 >= before);
		CHECK(page <= after + 200);
	}
	rt_print("page compared %u times of 200\n", compared);
	CHECK(compared > 150 || rt_arg("page-may-be-invalid"));
	wrmsr(HV_REFERENCE_TSC, 0);
}

/* Units of the reference time that passed from one moment to another, each known to lie between two others. */
static void check_elapsed(uint64_t reference, uint64_t least, uint64_t most)
{
	rt_print("%lu passed, of %lu to %lu\n", reference, least, most);
	CHECK(reference >= least - least / 20);
	CHECK(reference <= most + most / 20);
}

static void test_time(void)
{
	uint64_t last = hv_reference_time(), hz = rdmsr(HV_TSC_FREQUENCY), ticks[4], tsc[4], reference;

	for (int i = 0; i < 200; i++) {
		uint64_t now = hv_reference_time();

		CHECK(now >= last);
		last = now;
	}
	/* Against the PM timer, and the TSC whose frequency is told. A host may be busy between any two of these. */
	ticks[0] = rt_ticks();
	tsc[0] = rdtsc();
	reference = hv_reference_time();
	tsc[1] = rdtsc();
	ticks[1] = rt_ticks();
	rt_delay(100000);
	ticks[2] = rt_ticks();
	tsc[2] = rdtsc();
	reference = hv_reference_time() - reference;
	tsc[3] = rdtsc();
	ticks[3] = rt_ticks();
	check_elapsed(reference, (ticks[2] - ticks[1]) * 10000 / RT_TICKS_PER_MS,
		      (ticks[3] - ticks[0]) * 10000 / RT_TICKS_PER_MS);
	check_elapsed(reference, (tsc[2] - tsc[1]) * 10000000 / hz, (tsc[3] - tsc[0]) * 10000000 / hz);
	check_tsc_page();
}

/* Hypercalls. */

static uint16_t status(uint64_t control, uint64_t input)
{
	return (uint16_t)hv_call(control, input, 0);
}

static void test_hypercalls(void)
{
	uint8_t *page = hv_input_page(0);
	const uint32_t echo[] = { 0, 2 };
	uint16_t got;

	hv_init();
	hv_synic_enable(0);
	CHECK_EQ(status(0x1234, 0), HV_INVALID_CODE);
	CHECK_EQ(status(0, 0), HV_INVALID_CODE);
	CHECK_EQ(status(0xffff | HV_CALL_FAST, 0), HV_INVALID_CODE);
	/* HvPostMessage */
	CHECK_EQ(hv_post(0, 0x10001, 1, echo, sizeof(echo)), HV_SUCCESS);
	CHECK_EQ(hv_post(0, 0x4321, 1, echo, sizeof(echo)), HV_INVALID_CONNECTION_ID);
	CHECK_EQ(hv_post(0, 0x10001, 1, echo, HV_PAYLOAD + 1), HV_INVALID_PARAMETER);
	CHECK_EQ(hv_post(0, 0x10001, 1, echo, 0xffffffff), HV_INVALID_PARAMETER);
	hv_post(0, 0x10001, 1, echo, sizeof(echo));
	CHECK_EQ(status(HV_CALL_POST_MESSAGE, (uint64_t)page + 4), HV_INVALID_ALIGNMENT);
	CHECK_EQ(status(HV_CALL_POST_MESSAGE, (uint64_t)page + 4096 - 8), HV_INVALID_ALIGNMENT);
	got = status(HV_CALL_POST_MESSAGE, OUTSIDE);
	CHECK(got == HV_INVALID_PARAMETER || got == HV_INVALID_ALIGNMENT);
	got = status(HV_CALL_POST_MESSAGE, 0xfffffffffffff000);
	CHECK(got == HV_INVALID_PARAMETER || got == HV_INVALID_ALIGNMENT);
	CHECK_EQ(status(HV_CALL_POST_MESSAGE | 1ULL << 32, (uint64_t)page), HV_INVALID_INPUT);
	CHECK_EQ(status(HV_CALL_POST_MESSAGE | 1ULL << 48, (uint64_t)page), HV_INVALID_INPUT);
	CHECK_EQ(status(HV_CALL_POST_MESSAGE | HV_CALL_FAST, (uint64_t)page), HV_INVALID_INPUT);
	/* HvSignalEvent */
	CHECK_EQ(hv_signal(0x10002, 0), HV_SUCCESS);
	CHECK_EQ(hv_signal_slow(0, 0x10002, 0), HV_SUCCESS);
	CHECK_EQ(hv_signal(0x4321, 0), HV_INVALID_CONNECTION_ID);
	CHECK_EQ(hv_signal_slow(0, 0x4321, 0), HV_INVALID_CONNECTION_ID);
	CHECK(hv_signal(0x10002, 1) != HV_SUCCESS);
	CHECK(hv_signal_slow(0, 0x10002, 1) != HV_SUCCESS);
	CHECK(status(HV_CALL_SIGNAL_EVENT | HV_CALL_FAST, 0x10002 | 1ULL << 60) != HV_SUCCESS);
	CHECK_EQ(status(HV_CALL_SIGNAL_EVENT, (uint64_t)page + 4), HV_INVALID_ALIGNMENT);
	got = status(HV_CALL_SIGNAL_EVENT, OUTSIDE);
	CHECK(got == HV_INVALID_PARAMETER || got == HV_INVALID_ALIGNMENT);
	CHECK_EQ(status(HV_CALL_SIGNAL_EVENT | HV_CALL_FAST | 1ULL << 32, 0x10002), HV_INVALID_INPUT);
	hv_synic_disable();
	hv_exit();
}

/* Crash and reset. */

static void crash(bool message)
{
	static const char text[] = "Kernel panic: out of \"coffee\"\n\x1b[31m<6>second line\n";

	memcpy(text_page, text, sizeof(text));
	if (rt_arg("windows"))
		wrmsr(HV_GUEST_OS_ID, 0x0001040a00004563); /* Microsoft, Windows NT, 10.0, build 17763 */
	for (uint32_t i = 0; i < 3; i++)
		wrmsr(HV_CRASH_P0 + i, 0x1000 + i);
	wrmsr(HV_CRASH_P0 + 3, message ? (uint64_t)text_page : 0x1003);
	wrmsr(HV_CRASH_P0 + 4, message ? sizeof(text) - 1 : 0x1004);
	for (uint32_t i = 0; i < 3; i++)
		CHECK_EQ(rdmsr(HV_CRASH_P0 + i), 0x1000 + i);
	if (rt_arg("outside"))
		wrmsr(HV_CRASH_P0 + 3, rt_arg_number("outside", 0) << 30);
	if (rt_arg("length"))
		wrmsr(HV_CRASH_P0 + 4, rt_arg_number("length", 0));
	wrmsr(HV_CRASH_CTL, 1ULL << 63 | (message ? 1ULL << 62 : 0));
	rt_delay(2000000);
	CHECK(!"goes on after a crash was reported");
}

static void check_power_on(void)
{
	CHECK_EQ(rdmsr(HV_GUEST_OS_ID), 0);
	CHECK_EQ(rdmsr(HV_HYPERCALL) & 1, 0);
	CHECK_EQ(rdmsr(HV_REFERENCE_TSC) & 1, 0);
	CHECK_EQ(rdmsr(HV_SCONTROL), 0);
	CHECK_EQ(rdmsr(HV_SIMP) & 1, 0);
	CHECK_EQ(rdmsr(HV_SIEFP) & 1, 0);
	CHECK_EQ(rdmsr(HV_VP_ASSIST) & 1, 0);
	for (unsigned int i = 0; i < HV_SINTS; i++)
		CHECK_EQ(rdmsr(HV_SINT0 + i), HV_SINT_MASKED);
	for (uint32_t i = 0; i < 5; i++)
		CHECK_EQ(rdmsr(HV_CRASH_P0 + i), 0);
	for (uint32_t i = 0; cpuid(0x40000003, 0).eax & EAX_STIMER && i < 8; i++)
		CHECK_EQ(rdmsr(HV_STIMER0_CONFIG + i), 0);
}

static void spoil(unsigned int vp)
{
	hv_synic_enable(vp);
	hv_sint_enable(2, 0x62, 0);
	hv_sint_enable(15, 0x6f, 0);
	wrmsr(HV_VP_ASSIST, (uint64_t)text_page | 1);
	if (cpuid(0x40000003, 0).eax & EAX_STIMER) {
		wrmsr(HV_STIMER0_COUNT, 10000); /* 1 ms, periodic, to SINT 2 */
		wrmsr(HV_STIMER0_CONFIG, 2 << 16 | 3);
	}
}

static void other_to_reset(unsigned int n)
{
	for (unsigned int i = 0; i < HV_SINTS; i++)
		CHECK_EQ(rdmsr(HV_SINT0 + i), HV_SINT_MASKED);
	CHECK_EQ(rdmsr(HV_SCONTROL), 0);
	CHECK_EQ(rdmsr(HV_SIMP) & 1, 0);
	spoil(n + 1);
	arrived = 1;
	for (;;)
		__asm__ volatile("pause");
}

/* Leaves messages waiting and bursts under way: none may show up in the next boot. */
static void test_reset(void)
{
	static const uint32_t burst[] = { 0, 2, 1000 }, other[] = { 1, 2, 1000 }, echo[] = { 0, 5 };
	uint8_t boot = (uint8_t)(cmos(CMOS_COUNT) + 1);

	set_cmos(CMOS_COUNT, boot);
	rt_print("boot %u\n", (unsigned int)boot);
	check_power_on();
	hv_init();
	spoil(0);
	hv_sint_enable(5, 0x65, 0);
	lapic_enable(false);
	rt_delay(20000);
	CHECK_EQ(hv_slot(0, 5)->type, 0);
	CHECK(hv_slot(0, 2)->type == 0 || hv_slot(0, 2)->type == 0x80000010); /* a timer's */
	ap_start(1, other_to_reset);
	hv_await_word(&arrived, 1);
	wrmsr(HV_REFERENCE_TSC, (uint64_t)&tsc_page | 1);
	for (uint32_t i = 0; i < 5; i++)
		wrmsr(HV_CRASH_P0 + i, i + 1);
	CHECK_EQ(hv_post(0, 0x10001, 0x1000, burst, sizeof(burst)), HV_SUCCESS);
	CHECK_EQ(hv_post(0, 0x10001, 0x1000, other, sizeof(other)), HV_SUCCESS);
	for (int i = 0; i < 20; i++)
		CHECK_EQ(hv_post(0, 0x10001, 7, echo, sizeof(echo)), HV_SUCCESS);
	if (boot < rt_arg_number("boots", 4)) {
		wrmsr(HV_RESET, 1);
		rt_delay(2000000);
		CHECK(!"still running after the reset");
	}
}

/*
 * Hypercalls of 32-bit code, here in a 64-bit guest's compatibility mode: the page is asked for and called from there.
 * TLFS 3.7: control in edx:eax, input in ebx:ecx, result in edx:eax.
 */
uint32_t code32_page, code32_in[4], code32_out[2]; /* eax, edx, ecx, ebx in; eax, edx out */
uint64_t code32_rsp;
void code32_call(void);

__asm__(".globl code32_call\n"
	"code32_call:\n"
	"	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n	"
	"pushfq\n"
	"	cli\n"
	"	mov %rsp, code32_rsp\n"
	"	pushq $0x08\n"
	"	pushq $code32_begin\n"
	"	lretq\n"
	"	.code32\n"
	"code32_begin:\n"
	"	mov $0x40000001, %ecx\n	mov code32_page, %eax\n	or $1, %eax\n	xor %edx, %edx\n"
	"	wrmsr\n"
	"	mov code32_in, %eax\n	mov code32_in+4, %edx\n	mov code32_in+8, %ecx\n	mov code32_in+12, %ebx\n"
	"	xor %edi, %edi\n	xor %esi, %esi\n"
	"	call *code32_page\n"
	"	mov %eax, code32_out\n	mov %edx, code32_out+4\n"
	"	ljmp $0x10, $code32_end\n"
	"	.code64\n"
	"code32_end:\n"
	"	mov code32_rsp, %rsp\n"
	"	popfq\n	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	pop %rbx\n"
	"	ret\n");

static uint64_t call32(uint64_t control, uint64_t input)
{
	code32_in[0] = (uint32_t)control;
	code32_in[1] = (uint32_t)(control >> 32);
	code32_in[2] = (uint32_t)input;
	code32_in[3] = (uint32_t)(input >> 32);
	code32_call();
	return (uint64_t)code32_out[1] << 32 | code32_out[0];
}

static void test_code32(void)
{
	const uint32_t echo[] = { 0, 2 };
	struct hv_message m;

	hv_init();
	hv_synic_enable(0);
	hv_sint_enable(2, 0xf3, 0);
	code32_page = (uint32_t)rdmsr(HV_HYPERCALL) & ~0xfffu;
	CHECK_EQ(call32(0x1234, 0), HV_INVALID_CODE);
	CHECK_EQ(call32(HV_CALL_SIGNAL_EVENT | HV_CALL_FAST, 0x10002), HV_SUCCESS);
	CHECK_EQ(call32(HV_CALL_SIGNAL_EVENT | HV_CALL_FAST, 0x4321), HV_INVALID_CONNECTION_ID);
	/* The upper half of the input is a flag number, which no connection of ours has. */
	CHECK(call32(HV_CALL_SIGNAL_EVENT | HV_CALL_FAST, 0x10002 | 1ULL << 32) != HV_SUCCESS);
	CHECK_EQ(call32(HV_CALL_POST_MESSAGE | 1ULL << 48, (uint64_t)hv_input_page(0)), HV_INVALID_INPUT);
	/* The message that is left there by a 64-bit call, once more. */
	hv_init();
	CHECK_EQ(hv_post(0, 0x10001, 7, echo, sizeof(echo)), HV_SUCCESS);
	hv_await(0, 2, &m);
	CHECK_EQ(call32(HV_CALL_POST_MESSAGE, (uint64_t)hv_input_page(0)), HV_SUCCESS);
	hv_await(0, 2, &m);
	CHECK_EQ(m.type, 7);
	/* And 64-bit code again, on the same page. */
	hv_init();
	CHECK_EQ(hv_signal(0x10002, 0), HV_SUCCESS);
}

void guest_main(void)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} tests[] = {
		{ "cpuid", test_cpuid },   { "msrs", test_msrs },   { "apic", test_apic },
		{ "vps", test_vps },	   { "time", test_time },   { "hypercalls", test_hypercalls },
		{ "code32", test_code32 }, { "reset", test_reset },
	};

	hv_catch_gp();
	for (unsigned int i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		if (rt_arg_is("test", tests[i].name)) {
			tests[i].run();
			return;
		}
	}
	if (rt_arg_is("test", "crash"))
		crash(rt_arg("message"));
	else if (rt_arg_is("test", "none"))
		CHECK(!hv_detect());
	else
		CHECK(!"no such test");
}
