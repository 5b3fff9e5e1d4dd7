/* SPDX-License-Identifier: MIT */
/*
 * A guest that treats its partition badly. The machine must go on, and a good use of it must still work afterwards.
 * Arguments: test=NAME; seed=N, rounds=N for the storm; cpus=N. Wants --device hv-test.
 */
#include "rt/apic.h"
#include "rt/hyperv.h"
#include "rt/io.h"
#include "rt/rt.h"

#define MESSAGES 0x10001
#define EVENTS	 0x10002
#define BURST	 0x1000
#define CONFIG	 0x1001
#define FLAGS	 0x1002
#define ECHO	 7
#define SINT	 2
#define VECTOR	 0xf3

#define VECTOR_UD 6
#define VECTOR_GP 13
#define USER_DATA 0x23
#define USER_CODE 0x2b
#define TSS	  0x30
#define IOPL3	  0x3000
#define PTE_USER  4

/* What the storm gives to registers that hold an address: never more of RAM than this. */
static uint8_t pages[8][4096] __attribute__((aligned(4096)));
static uint64_t state;
static volatile uint32_t arrived, stop;

static uint32_t pick(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 11) % below;
}

static uint64_t any_address(void)
{
	static const uint64_t outside[] = { 0x90000000, 0xfe900000,	    0xfee00000,	   0xfffff000,
					    1ULL << 40, 1ULL << 51,	    ~0xfffULL,	   1ULL << 63,
					    0x80000000, 0x7ffffffffffff000, 0x100000000000 };

	return pick(2) ? (uint64_t)pages[pick(8)] : outside[pick(sizeof(outside) / sizeof(outside[0]))];
}

static uint64_t any_value(uint32_t msr)
{
	uint64_t random = (uint64_t)pick(UINT32_MAX) << 32 | pick(UINT32_MAX);

	switch (msr) {
	case HV_HYPERCALL: /* bit 1 would lock it until a reset */
		return any_address() | pick(2);
	case HV_REFERENCE_TSC:
	case HV_VP_ASSIST:
	case HV_SIMP:
	case HV_SIEFP:
		return any_address() | pick(4);
	case HV_RESET:
		return random & ~1ULL;
	case HV_CRASH_CTL:
		return random & ~(1ULL << 63);
	}
	switch (pick(4)) {
	case 0:
		return 0;
	case 1:
		return ~0ULL;
	case 2:
		return pick(0x40000);
	default:
		return random;
	}
}

/* After a proper start: a message comes back. */
static void still_works(unsigned int vp)
{
	const uint32_t payload[] = { vp, SINT, 0x600d };
	struct hv_message m;
	bool ours;

	for (unsigned int i = 0; i < 8; i++)
		hv_try_wrmsr(HV_STIMER0_CONFIG + i, 0);
	hv_synic_disable();
	hv_try_wrmsr(HV_REFERENCE_TSC, 0);
	hv_exit();
	hv_init();
	hv_synic_enable(vp);
	hv_sint_enable(SINT, VECTOR, 0);
	/* What was asked for before comes first, and may fill the queue. */
	while (hv_post(vp, MESSAGES, ECHO, payload, sizeof(payload)) != HV_SUCCESS)
		hv_await(vp, SINT, &m);
	do {
		hv_await(vp, SINT, &m);
		ours = m.type == ECHO && m.size == sizeof(payload) && m.word[2] == 0x600d;
	} while (!ours);
	rt_print("survived\n");
}

/* Not the interrupt command: it would start or stop processors. */
static void storm_msr(void)
{
	uint32_t msr = pick(4) ? 0x40000000 + pick(0x200) : HV_SCONTROL + pick(0x20);
	uint64_t value;

	if (msr == HV_ICR)
		return;
	if (pick(3))
		hv_try_wrmsr(msr, any_value(msr));
	else
		hv_try_rdmsr(msr, &value);
}

/* The page may be off or elsewhere: calls go through a proper one. */
static void storm_call(void)
{
	static const uint32_t types[] = { BURST, CONFIG, FLAGS, ECHO, 0, 0x80000010 };
	uint32_t payload[] = { pick(3), pick(18), pick(100), pick(3000) };
	uint64_t control = pick(2) ? 0x50 + pick(0x20) : pick(0x10000);

	hv_try_wrmsr(HV_GUEST_OS_ID, 0);
	hv_init();
	switch (pick(4)) {
	case 0:
		hv_post(0, MESSAGES + pick(2), types[pick(6)], payload, pick(8) ? 16 : pick(UINT32_MAX));
		break;
	case 1:
		hv_signal(EVENTS + pick(2), (uint16_t)pick(2));
		break;
	case 2:
		control |= (uint64_t)pick(UINT32_MAX) << 32 | (uint64_t)pick(0x800) << 16;
		hv_call(control, any_address() + pick(2) * 8, any_address());
		break;
	default:
		hv_call(control, any_address() + pick(4096), any_address());
	}
}

static void test_storm(void)
{
	uint64_t rounds = rt_arg_number("rounds", 1000);

	state = rt_arg_number("seed", 1) * 0x9e3779b97f4a7c15 | 1;
	for (uint64_t i = 0; i < rounds; i++) {
		if (pick(8))
			storm_msr();
		else
			storm_call();
	}
	still_works(0);
}

/* Every page is the same page, the hypercall's input too. */
static void test_overlap(void)
{
	const uint32_t burst[] = { 0, SINT, 50 }, flags[] = { 0, SINT, 0, HV_EVENT_FLAGS };

	hv_init();
	for (int round = 0; round < 20; round++) {
		uint64_t page = (uint64_t)hv_input_page(0) | 1;

		hv_try_wrmsr(HV_SIMP, page);
		hv_try_wrmsr(HV_SIEFP, page);
		hv_try_wrmsr(HV_REFERENCE_TSC, page);
		hv_try_wrmsr(HV_VP_ASSIST, page);
		wrmsr(HV_SCONTROL, 1);
		hv_sint_enable(SINT, VECTOR, 0);
		hv_post(0, MESSAGES, BURST, burst, sizeof(burst));
		hv_post(0, MESSAGES, FLAGS, flags, sizeof(flags));
		hv_signal_slow(0, EVENTS, 0);
		wrmsr(HV_EOM, 0);
		rt_delay(1000);
	}
	/* The hypercall page written over by messages: not to be called any more. */
	hv_try_wrmsr(HV_HYPERCALL, (uint64_t)pages[0] | 1);
	hv_try_wrmsr(HV_SIMP, (uint64_t)pages[0] | 1);
	hv_try_wrmsr(HV_SIEFP, (uint64_t)pages[0] | 1);
	still_works(0);
}

/* Pages where there is no RAM: refused, or what they are for waits. */
static void test_outside(void)
{
	static const uint64_t addresses[] = { 0x90000000, 0xfe900000, 0xfee00000, 1ULL << 45, 0xfffffffffffff000 };
	const uint32_t echo[] = { 0, SINT, 1 };
	struct hv_message m;

	hv_init();
	wrmsr(HV_SCONTROL, 1);
	hv_sint_enable(SINT, VECTOR, 0);
	for (unsigned int i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
		hv_try_wrmsr(HV_SIMP, addresses[i] | 1);
		hv_try_wrmsr(HV_SIEFP, addresses[i] | 1);
		hv_try_wrmsr(HV_REFERENCE_TSC, addresses[i] | 1);
		hv_try_wrmsr(HV_VP_ASSIST, addresses[i] | 1);
		CHECK_EQ(hv_post(0, MESSAGES, ECHO, echo, sizeof(echo)), HV_SUCCESS);
		CHECK_EQ(hv_signal(EVENTS, 0), HV_SUCCESS);
		rt_delay(2000);
	}
	hv_synic_enable(0);
	for (unsigned int i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
		hv_await(0, SINT, &m);
		CHECK_EQ(m.type, ECHO);
	}
	still_works(0);
}

/* Beside a VP that takes messages: one that scribbles over its slots, turns its pages off and on, and moves them. */
static void scribbler(unsigned int n)
{
	(void)n;
	arrived = 1;
	hv_synic_enable(1);
	while (!stop) {
		const uint32_t burst[] = { 1, SINT, 20 }, flags[] = { 1, SINT, 0, 100 };
		volatile uint32_t *slot = (volatile uint32_t *)hv_slot(1, SINT);

		hv_post(1, MESSAGES, BURST, burst, sizeof(burst));
		hv_post(1, MESSAGES, FLAGS, flags, sizeof(flags));
		for (uint32_t i = 0; i < 64; i++)
			slot[i % 4] = i * 0x01010101;
		hv_sint_enable(SINT, 0x40, 0);
		hv_try_wrmsr(HV_SIMP, (uint64_t)pages[2] | 1);
		hv_try_wrmsr(HV_SIMP, 0);
		hv_try_wrmsr(HV_SIEFP, 0);
		hv_sint_mask(SINT);
		hv_synic_enable(1);
		wrmsr(HV_EOM, 0);
	}
	hv_synic_disable();
	arrived = 2;
	for (;;)
		__asm__ volatile("cli; hlt");
}

static void test_scribble(void)
{
	const uint32_t burst[] = { 0, SINT, 400 };
	struct hv_message m;

	hv_init();
	hv_synic_enable(0);
	hv_sint_enable(SINT, VECTOR, 0);
	lapic_enable(false);
	ap_start(1, scribbler);
	hv_await_word(&arrived, 1);
	CHECK_EQ(hv_post_patiently(0, MESSAGES, BURST, burst, sizeof(burst)), HV_SUCCESS);
	for (uint32_t i = 0; i < 400; i++) {
		hv_await(0, SINT, &m);
		CHECK_EQ(m.type, BURST);
		CHECK_EQ(m.word[3], i);
	}
	stop = 1;
	hv_await_word(&arrived, 2);
	still_works(0);
}

/* Ring 3: code that calls the hypercall page, with whatever is in rdx, and comes back by an exception. */
void user_begin(void);
void user_back(void);
void user_enter(uint64_t flags);
extern uint64_t user_rsp, user_target, user_control, user_input, user_result;
uint64_t user_rsp, user_target, user_control, user_input, user_result;
uint8_t user_stack[4096] __attribute__((aligned(16)));

__asm__(".globl user_enter, user_begin, user_back\n"
	"user_enter:\n"
	"	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n"
	"	mov %rsp, user_rsp(%rip)\n"
	"	push $0x23\n"
	"	lea user_stack+4096(%rip), %rax\n	push %rax\n"
	"	push %rdi\n"
	"	push $0x2b\n"
	"	lea user_begin(%rip), %rax\n	push %rax\n"
	"	iretq\n"
	"user_begin:\n"
	"	mov user_control(%rip), %rcx\n	mov user_input(%rip), %rdx\n	xor %r8d, %r8d\n"
	"	mov $-1, %rax\n"
	"	call *user_target(%rip)\n"
	"	mov %rax, user_result(%rip)\n"
	"	ud2\n"
	"user_back:\n"
	"	mov user_rsp(%rip), %rsp\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	pop %rbx\n"
	"	ret\n");

static rt_handler kernel_gp;
static uint64_t user_vector;

static void user_fault(struct rt_frame *frame)
{
	if (!(frame->cs & 3) && frame->vector == VECTOR_GP) {
		kernel_gp(frame);
		return;
	}
	CHECK(frame->cs & 3);
	user_vector = frame->vector;
	frame->rip = (uint64_t)user_back;
	frame->cs = GDT_CODE64;
	frame->ss = GDT_DATA;
	frame->rsp = user_rsp;
	frame->rflags = 2;
}

/* Everything is ring 3's too, and there are segments and a stack to come back to. */
static void make_user(void)
{
	static uint64_t gdt[8], tss[16];
	static uint8_t stack[4096] __attribute__((aligned(16)));
	uint64_t base = (uint64_t)tss;
	uint64_t *pml4 = (uint64_t *)(read_cr3() & ~0xfffULL);
	uint64_t *pdpt = (uint64_t *)(pml4[0] & 0xffffffffff000), *pd = (uint64_t *)(pdpt[0] & 0xffffffffff000);
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) pointer = { sizeof(gdt) - 1, (uint64_t)gdt };

	pml4[0] |= PTE_USER;
	pdpt[0] |= PTE_USER;
	for (unsigned int i = 0; i < 512; i++)
		pd[i] |= PTE_USER;
	write_cr3(read_cr3());
	*(uint64_t *)((uint8_t *)tss + 4) = (uint64_t)(stack + sizeof(stack)); /* rsp0 */
	gdt[GDT_CODE32 / 8] = 0x00cf9b000000ffff;
	gdt[GDT_CODE64 / 8] = 0x00af9b000000ffff;
	gdt[GDT_DATA / 8] = 0x00cf93000000ffff;
	gdt[USER_DATA / 8] = 0x00cff3000000ffff;
	gdt[USER_CODE / 8] = 0x00affb000000ffff;
	gdt[TSS / 8] = 0x0000890000000000 | (sizeof(tss) - 1) | (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56;
	gdt[TSS / 8 + 1] = base >> 32;
	__asm__ volatile("lgdt %0; ltr %w1" : : "m"(pointer), "r"(TSS) : "memory");
	kernel_gp = rt_handlers[VECTOR_GP];
	rt_handlers[VECTOR_GP] = user_fault;
	rt_handlers[VECTOR_UD] = user_fault;
}

static void call_from_user(uint64_t flags)
{
	const uint32_t payload[] = { 0, SINT, 3 }, header[] = { MESSAGES, 0, ECHO, sizeof(payload) };

	memcpy(hv_input_page(0), header, sizeof(header));
	memcpy(hv_input_page(0) + sizeof(header), payload, sizeof(payload));
	user_target = rdmsr(HV_HYPERCALL) & ~0xfffULL;
	user_control = 0x5c;
	user_input = (uint64_t)hv_input_page(0);
	user_result = ~0ULL;
	user_vector = 0;
	user_enter(flags);
	CHECK(user_vector == VECTOR_UD || user_vector == VECTOR_GP);
	CHECK((uint16_t)user_result != HV_SUCCESS);
	rt_delay(5000);
	CHECK_EQ(hv_slot(0, SINT)->type, 0);
}

static void test_ring3(void)
{
	hv_init();
	hv_synic_enable(0);
	hv_sint_enable(SINT, VECTOR, 0);
	make_user();
	call_from_user(2);
	call_from_user(2 | IOPL3);
	still_works(0);
}

void guest_main(void)
{
	static const struct rt_test tests[] = {
		{ "storm", test_storm },       { "overlap", test_overlap }, { "outside", test_outside },
		{ "scribble", test_scribble }, { "ring3", test_ring3 },
	};

	hv_catch_gp();
	rt_run_test(tests, sizeof(tests) / sizeof(tests[0]));
}
