/* SPDX-License-Identifier: MIT */
/*
 * The SynIC: messages and events. Arguments: test=NAME; cpus=N; count=N messages or rounds. Wants --device hv-test,
 * whose ports (arch/x86/hyperv/testport.h) answer.
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
#define WIRE	 0x1003
#define ECHO	 7

#define DOORBELL     0x5f0
#define SINT	     2
#define OTHER	     5
#define VECTOR	     0xf3
#define OTHER_VECTOR 0xf2
#define WAIT_US	     3000000
#define QUIET_US     5000

#define TIMER_MESSAGE	   0x80000010
#define HAS_STIMER	   (1 << 3)  /* leaf 0x40000003, eax */
#define HAS_DIRECT_STIMER  (1 << 19) /* edx */
#define STIMER_ENABLE	   (1 << 0)
#define STIMER_PERIODIC	   (1 << 1)
#define STIMER_AUTO_ENABLE (1 << 3)
#define STIMER_DIRECT	   (1 << 12)

static volatile uint32_t arrived, finished, go;

static uint32_t number_of_cpus(void)
{
	return (uint32_t)rt_arg_number("cpus", 1);
}

static void echo_to(unsigned int vp, unsigned int sint, uint32_t value)
{
	const uint32_t payload[] = { vp, sint, value };

	CHECK_EQ(hv_post(0, MESSAGES, ECHO, payload, sizeof(payload)), HV_SUCCESS);
}

static void expect_echo(unsigned int vp, unsigned int sint, uint32_t value)
{
	struct hv_message m;

	hv_await(vp, sint, &m);
	CHECK_EQ(m.type, ECHO);
	CHECK_EQ(m.size, 12);
	CHECK_EQ(m.word[0], vp);
	CHECK_EQ(m.word[1], sint);
	CHECK_EQ(m.word[2], value);
}

static void expect_none(unsigned int sint)
{
	rt_delay(QUIET_US);
	irq_window();
	CHECK_EQ(hv_slot(0, sint)->type, 0);
}

static void expect_interrupts(uint8_t vector, uint32_t count)
{
	CHECK(rt_wait(vector, count, WAIT_US));
	rt_delay(QUIET_US);
	irq_window();
	CHECK_EQ(rt_interrupts[vector], count);
}

/* A message waits as long as one of the three is off that it needs, and is not lost. */
static void test_gates(void)
{
	uint32_t seen = 0;

	wrmsr(HV_SCONTROL, 0);
	hv_sint_enable(SINT, VECTOR, 0);
	echo_to(0, SINT, 1);
	expect_none(SINT);
	wrmsr(HV_SCONTROL, 1);
	expect_interrupts(VECTOR, ++seen);
	expect_echo(0, SINT, 1);

	hv_sint_mask(SINT);
	echo_to(0, SINT, 2);
	expect_none(SINT);
	hv_sint_enable(SINT, VECTOR, 0);
	expect_interrupts(VECTOR, ++seen);
	expect_echo(0, SINT, 2);

	wrmsr(HV_SIMP, rdmsr(HV_SIMP) & ~1ULL);
	echo_to(0, SINT, 3);
	expect_none(SINT);
	wrmsr(HV_SIMP, rdmsr(HV_SIMP) | 1);
	expect_interrupts(VECTOR, ++seen);
	expect_echo(0, SINT, 3);

	/* Every SINT, and the vector that it has now. */
	for (unsigned int sint = 0; sint < HV_SINTS; sint++) {
		hv_sint_enable(sint, OTHER_VECTOR, 0);
		echo_to(0, sint, 100 + sint);
		expect_interrupts(OTHER_VECTOR, sint + 1);
		expect_echo(0, sint, 100 + sint);
	}
	CHECK_EQ(rt_interrupts[VECTOR], seen);
}

static void test_payloads(void)
{
	uint8_t payload[HV_PAYLOAD];
	struct hv_message m;
	const uint32_t nobody[] = { 99, SINT }, no_sint[] = { 0, HV_SINTS };

	hv_sint_enable(SINT, VECTOR, 0);
	for (uint32_t size = 8; size <= HV_PAYLOAD; size += 29) {
		const uint32_t to[] = { 0, SINT };

		for (uint32_t i = 0; i < size; i++)
			payload[i] = (uint8_t)(i * 7 + size);
		memcpy(payload, to, sizeof(to));
		CHECK_EQ(hv_post(0, MESSAGES, 0x40000000 + size, payload, size), HV_SUCCESS);
		hv_await(0, SINT, &m);
		CHECK_EQ(m.type, 0x40000000 + size);
		CHECK_EQ(m.size, size);
		CHECK_EQ(memcmp(m.payload, payload, size), 0);
	}
	CHECK_EQ(hv_post(0, MESSAGES, ECHO, nobody, sizeof(nobody)), HV_INVALID_PARAMETER);
	CHECK_EQ(hv_post(0, MESSAGES, ECHO, no_sint, sizeof(no_sint)), HV_INVALID_PARAMETER);
}

static void ask_burst(unsigned int vp, unsigned int sint, uint32_t count)
{
	const uint32_t payload[] = { vp, sint, count };

	CHECK_EQ(hv_post_patiently(vp, MESSAGES, BURST, payload, sizeof(payload)), HV_SUCCESS);
}

static void check_burst(const struct hv_message *m, unsigned int vp, unsigned int sint, uint32_t count, uint32_t index)
{
	CHECK_EQ(m->type, BURST);
	CHECK_EQ(m->size, 16);
	CHECK_EQ(m->word[0], vp);
	CHECK_EQ(m->word[1], sint);
	CHECK_EQ(m->word[2], count);
	CHECK_EQ(m->word[3], index);
}

/* Each message comes with an interrupt, which ends HLT: one that is missing is a guest that sleeps for ever. */
static void test_burst(void)
{
	uint32_t count = (uint32_t)rt_arg_number("count", 300), pending = 0;
	struct hv_message m;

	hv_sint_enable(SINT, VECTOR, 0);
	ask_burst(0, SINT, count);
	for (uint32_t i = 0; i < count; i++) {
		while (rt_interrupts[VECTOR] <= i)
			halt_until_irq();
		CHECK(hv_take(0, SINT, &m));
		check_burst(&m, 0, SINT, count, i);
		pending += m.flags & HV_MESSAGE_PENDING;
	}
	expect_none(SINT);
	CHECK_EQ(rt_interrupts[VECTOR], count);
	rt_print("%u messages, %u with more to come\n", count, pending);
}

/* Two SINTs at once: one whose slot stays busy does not hold up the other. */
static void test_two_sints(void)
{
	struct hv_message m;

	hv_sint_enable(SINT, VECTOR, 0);
	hv_sint_enable(OTHER, OTHER_VECTOR, 0);
	ask_burst(0, SINT, 10);
	ask_burst(0, OTHER, 200);
	for (uint32_t i = 0; i < 200; i++) {
		hv_await(0, OTHER, &m);
		check_burst(&m, 0, OTHER, 200, i);
	}
	CHECK_EQ(hv_slot(0, SINT)->type, BURST);
	for (uint32_t i = 0; i < 10; i++) {
		hv_await(0, SINT, &m);
		check_burst(&m, 0, SINT, 10, i);
	}
}

/* Interrupts stay off: the page alone must do. */
static void test_polled(void)
{
	uint32_t count = (uint32_t)rt_arg_number("count", 300);
	uint32_t flags = rt_arg("auto-eoi") ? HV_SINT_AUTO_EOI : 0;
	struct hv_message m;

	if (rt_arg("no-apic"))
		lapic_write(LAPIC_SVR, APIC_SPURIOUS);
	CHECK(hv_try_wrmsr(HV_SINT0 + SINT, VECTOR | flags));
	CHECK_EQ(rdmsr(HV_SINT0 + SINT), VECTOR | flags);
	ask_burst(0, SINT, count);
	for (uint32_t i = 0; i < count; i++) {
		hv_await(0, SINT, &m);
		check_burst(&m, 0, SINT, count, i);
	}
	CHECK_EQ(rt_interrupts[VECTOR], 0);
}

/* A guest that is slow to free its slot gets everything all the same, and one that never writes EOM stays alive. */
static void test_slow(void)
{
	struct hv_message m;

	hv_sint_enable(SINT, VECTOR, 0);
	ask_burst(0, SINT, 30);
	for (uint32_t i = 0; i < 30; i++) {
		rt_delay(1000);
		hv_await(0, SINT, &m);
		check_burst(&m, 0, SINT, 30, i);
	}
	ask_burst(0, SINT, 2);
	hv_await_word(&hv_slot(0, SINT)->type, BURST);
	rt_delay(QUIET_US); /* the second message waits, and the flag says so */
	CHECK_EQ(hv_slot(0, SINT)->flags & HV_MESSAGE_PENDING, HV_MESSAGE_PENDING);
	hv_slot(0, SINT)->type = 0;
	wrmsr(HV_EOM, 0);
	hv_await(0, SINT, &m);
	check_burst(&m, 0, SINT, 2, 1);
	/* EOMs that nobody waits for */
	for (int i = 0; i < 50; i++)
		wrmsr(HV_EOM, 0);
	expect_none(SINT);
}

/* A page that the guest turns off and on again is empty, and what waits comes to where it is now. */
static void test_move_page(void)
{
	static struct hv_message other_page[HV_SINTS] __attribute__((aligned(4096)));
	struct hv_message *m = &other_page[SINT];
	uint64_t begin = rdtsc();

	hv_sint_enable(SINT, VECTOR, 0);
	ask_burst(0, SINT, 3);
	hv_await_word(&hv_slot(0, SINT)->type, BURST);
	m->type = 0x77777777; /* stale bytes must not look like a message */
	wrmsr(HV_SIMP, 0);
	wrmsr(HV_SIMP, (uint64_t)other_page | 1);
	while (__atomic_load_n(&m->type, __ATOMIC_ACQUIRE) != BURST)
		CHECK(rdtsc() - begin < 40000000000ULL);
	check_burst(m, 0, SINT, 3, 1);
}

static void vp_main(unsigned int n, bool interrupts)
{
	unsigned int vp = n + 1;

	lapic_enable(false);
	CHECK_EQ(rdmsr(HV_VP_INDEX), vp);
	hv_synic_enable(vp);
	hv_sint_enable(SINT, VECTOR, 0);
	__atomic_fetch_add(&arrived, 1, __ATOMIC_SEQ_CST);
	if (interrupts)
		irq_on();
}

static void start_vps(void (*entry)(unsigned int n))
{
	for (uint32_t i = 1; i < number_of_cpus(); i++) {
		ap_start(i, entry);
		hv_await_word(&arrived, i);
	}
}

/* Everybody posts to the next and takes what the one before posts. */
static void exchange(unsigned int vp)
{
	uint32_t cpus = number_of_cpus(), count = (uint32_t)rt_arg_number("count", 200), sent = 0, taken = 0;
	uint64_t begin = rdtsc();
	struct hv_message m;

	hv_await_word(&go, 1);
	while (sent < count || taken < count) {
		const uint32_t payload[] = { (vp + 1) % cpus, SINT, vp, sent };
		uint16_t status =
			sent < count ? hv_post(vp, MESSAGES, ECHO, payload, sizeof(payload)) : HV_INSUFFICIENT_BUFFERS;

		CHECK(status == HV_SUCCESS || status == HV_INSUFFICIENT_BUFFERS);
		sent += status == HV_SUCCESS;
		if (hv_take(vp, SINT, &m)) {
			CHECK_EQ(m.word[2], (vp + cpus - 1) % cpus);
			CHECK_EQ(m.word[3], taken);
			taken++;
		}
		CHECK(rdtsc() - begin < 60000000000ULL);
	}
	__atomic_fetch_add(&finished, 1, __ATOMIC_SEQ_CST);
}

static void exchange_main(unsigned int n)
{
	vp_main(n, false);
	exchange(n + 1);
}

static void test_vps(void)
{
	hv_sint_enable(SINT, VECTOR, 0);
	start_vps(exchange_main);
	go = 1;
	exchange(0);
	hv_await_word(&finished, number_of_cpus());
}

/* All post to VP 0 at once; each one's messages keep their order. */
static void flood(unsigned int vp)
{
	uint32_t count = (uint32_t)rt_arg_number("count", 200);

	hv_await_word(&go, 1);
	for (uint32_t i = 0; i < count; i++) {
		const uint32_t payload[] = { 0, SINT, vp, i };

		CHECK_EQ(hv_post_patiently(vp, MESSAGES, ECHO, payload, sizeof(payload)), HV_SUCCESS);
	}
	__atomic_fetch_add(&finished, 1, __ATOMIC_SEQ_CST);
}

static void flood_main(unsigned int n)
{
	vp_main(n, false);
	flood(n + 1);
}

static void test_flood(void)
{
	uint32_t cpus = number_of_cpus(), count = (uint32_t)rt_arg_number("count", 200), next[HV_VPS] = { 0 };
	struct hv_message m;

	hv_sint_enable(SINT, VECTOR, 0);
	start_vps(flood_main);
	go = 1;
	for (uint32_t i = 0; i < count * (cpus - 1); i++) {
		hv_await(0, SINT, &m);
		CHECK(m.word[2] < cpus);
		CHECK_EQ(m.word[3], next[m.word[2]]);
		next[m.word[2]]++;
	}
	hv_await_word(&finished, cpus - 1);
	expect_none(SINT);
}

/* A halted VP is woken by its message. */
static void sleeper_main(unsigned int n)
{
	struct hv_message m;

	vp_main(n, false);
	for (uint32_t i = 0; i < (uint32_t)rt_arg_number("count", 20); i++) {
		while (!hv_take(n + 1, SINT, &m))
			halt_until_irq();
		CHECK_EQ(m.word[2], i);
		__atomic_fetch_add(&finished, 1, __ATOMIC_SEQ_CST);
	}
	for (;;)
		__asm__ volatile("cli; hlt");
}

static void test_sleeper(void)
{
	uint32_t count = (uint32_t)rt_arg_number("count", 20);

	start_vps(sleeper_main);
	for (uint32_t i = 0; i < count; i++) {
		rt_delay(i % 4 * 500);
		echo_to(1, SINT, i);
		hv_await_word(&finished, i + 1);
	}
}

/* Sets flags by way of the host; returns how many of them it could set. */
static uint32_t set_flags(unsigned int vp, unsigned int sint, uint32_t first, uint32_t count)
{
	const uint32_t payload[] = { vp, sint, first, count };
	struct hv_message m;

	CHECK_EQ(hv_post(0, MESSAGES, FLAGS, payload, sizeof(payload)), HV_SUCCESS);
	hv_await(0, sint, &m);
	CHECK_EQ(m.type, FLAGS);
	CHECK_EQ(m.word[2], first);
	return m.word[3];
}

static void test_flags(void)
{
	volatile uint64_t *flags = hv_event_flags(0, SINT);

	hv_sint_enable(SINT, VECTOR, 0);
	CHECK_EQ(set_flags(0, SINT, 0, HV_EVENT_FLAGS), HV_EVENT_FLAGS);
	for (unsigned int i = 0; i < HV_EVENT_FLAGS / 64; i++) {
		CHECK_EQ(flags[i], ~0ULL);
		flags[i] = 0;
	}
	for (unsigned int flag = 0; flag < HV_EVENT_FLAGS; flag += flag % 64 == 63 ? 1 : 9) {
		CHECK_EQ(set_flags(0, SINT, flag, 1), 1);
		CHECK_EQ(flags[flag / 64], 1ULL << flag % 64);
		CHECK(hv_take_flag(0, SINT, flag));
	}
	for (unsigned int i = 0; i < HV_EVENT_FLAGS / 64; i++)
		CHECK_EQ(flags[i], 0);
	for (unsigned int i = 0; i < HV_EVENT_FLAGS / 64; i++)
		CHECK_EQ(hv_event_flags(0, SINT + 1)[i], 0);
}

/* A flag that is set already interrupts nobody. */
static void test_edges(void)
{
	uint32_t seen;

	hv_sint_enable(SINT, VECTOR, 0);
	/* Each answer is an interrupt; so is the flag, once. Both may be one if they come together. */
	CHECK_EQ(set_flags(0, SINT, 77, 1), 1);
	rt_delay(QUIET_US);
	irq_window();
	irq_window();
	seen = rt_interrupts[VECTOR];
	CHECK(seen == 1 || seen == 2);
	CHECK_EQ(set_flags(0, SINT, 77, 1), 1);
	expect_interrupts(VECTOR, seen + 1); /* the answer's alone */
	CHECK(hv_take_flag(0, SINT, 77));

	/* The same by HvSignalEvent. */
	const uint32_t config[] = { 0, OTHER, 1234 };

	hv_sint_enable(OTHER, OTHER_VECTOR, 0);
	CHECK_EQ(hv_post(0, MESSAGES, CONFIG, config, sizeof(config)), HV_SUCCESS);
	for (uint32_t i = 1; i <= 20; i++) {
		CHECK_EQ(i % 2 ? hv_signal(EVENTS, 0) : hv_signal_slow(0, EVENTS, 0), HV_SUCCESS);
		CHECK(rt_wait(OTHER_VECTOR, i, WAIT_US));
		CHECK(hv_take_flag(0, OTHER, 1234));
		CHECK_EQ(rt_interrupts[OTHER_VECTOR], i);
	}
	/* Not taken: no further interrupt. */
	CHECK_EQ(hv_signal(EVENTS, 0), HV_SUCCESS);
	expect_interrupts(OTHER_VECTOR, 21);
	for (int i = 0; i < 5; i++)
		CHECK_EQ(hv_signal(EVENTS, 0), HV_SUCCESS);
	expect_interrupts(OTHER_VECTOR, 21);
	CHECK(hv_take_flag(0, OTHER, 1234));
}

/* Whether a signal sets a flag of OTHER. */
static bool host_can_flag(uint32_t flag)
{
	const uint32_t config[] = { 0, OTHER, flag };
	uint64_t bit = 1ULL << flag % 64;

	CHECK_EQ(hv_post(0, MESSAGES, CONFIG, config, sizeof(config)), HV_SUCCESS);
	CHECK_EQ(hv_signal(EVENTS, 0), HV_SUCCESS);
	rt_delay(QUIET_US * 4);
	return hv_event_flags(0, OTHER)[flag / 64] & bit;
}

static void test_event_gates(void)
{
	CHECK(!host_can_flag(1)); /* masked */
	hv_sint_enable(OTHER, OTHER_VECTOR, 0);
	CHECK(host_can_flag(2));
	wrmsr(HV_SCONTROL, 0);
	CHECK(!host_can_flag(3));
	wrmsr(HV_SCONTROL, 1);
	CHECK(host_can_flag(4));
	wrmsr(HV_SIEFP, 0);
	CHECK(!host_can_flag(5));
	CHECK_EQ(rt_interrupts[OTHER_VECTOR], 0);
	irq_window();
	CHECK(rt_interrupts[OTHER_VECTOR]);
}

/* Events and messages to all VPs from one, many times. */
static void receiver_main(unsigned int n)
{
	unsigned int vp = n + 1;
	uint32_t count = (uint32_t)rt_arg_number("count", 50);

	vp_main(n, false);
	for (uint32_t i = 0; i < count; i++) {
		while (!hv_take_flag(vp, SINT, 100 + vp))
			halt_until_irq();
		__atomic_fetch_add(&finished, 1, __ATOMIC_SEQ_CST);
	}
	for (;;)
		__asm__ volatile("cli; hlt");
}

static void test_events_to_vps(void)
{
	uint32_t cpus = number_of_cpus(), count = (uint32_t)rt_arg_number("count", 50), total = 0;

	start_vps(receiver_main);
	for (uint32_t i = 0; i < count; i++) {
		for (uint32_t vp = 1; vp < cpus; vp++) {
			const uint32_t config[] = { vp, SINT, 100 + vp };

			CHECK_EQ(hv_post(0, MESSAGES, CONFIG, config, sizeof(config)), HV_SUCCESS);
			CHECK_EQ(hv_signal(EVENTS, 0), HV_SUCCESS);
			hv_await_word(&finished, ++total);
		}
	}
}

/* Timer messages and the host's share a slot: none of the host's is lost, and the timer goes on. */
static void test_stimer(void)
{
	uint32_t next = 0, timer = 0, count = (uint32_t)rt_arg_number("count", 300);
	struct hv_message m;

	if (!(cpuid(0x40000003, 0).eax & HAS_STIMER)) {
		rt_print("no synthetic timers\n");
		return;
	}
	hv_sint_enable(SINT, VECTOR, 0);
	wrmsr(HV_STIMER0_COUNT, 5000); /* 0.5 ms */
	wrmsr(HV_STIMER0_CONFIG, SINT << 16 | STIMER_PERIODIC | STIMER_ENABLE);
	ask_burst(0, SINT, count);
	while (next < count || timer < 20) {
		hv_await(0, SINT, &m);
		if (m.type == TIMER_MESSAGE) {
			timer++;
			continue;
		}
		check_burst(&m, 0, SINT, count, next);
		next++;
	}
	wrmsr(HV_STIMER0_CONFIG, 0);
	if (cpuid(0x40000003, 0).edx & HAS_DIRECT_STIMER) {
		irq_window();
		wrmsr(HV_STIMER0_CONFIG, STIMER_DIRECT | STIMER_AUTO_ENABLE | 0xed << 4);
		wrmsr(HV_STIMER0_COUNT, hv_reference_time() + 10000);
		CHECK(rt_wait(0xed, 1, WAIT_US));
	}
	rt_print("%u timer messages\n", timer);
}

/* The message of a timer that runs once: what it says, and that the timer is off after it. */
static void one_message(unsigned int index, uint64_t due)
{
	struct hv_message m;

	wrmsr(HV_STIMER0_COUNT + 2 * index, due);
	CHECK_EQ(rdmsr(HV_STIMER0_COUNT + 2 * index), due);
	wrmsr(HV_STIMER0_CONFIG + 2 * index, SINT << 16 | STIMER_ENABLE);
	hv_await(0, SINT, &m);
	CHECK(hv_reference_time() >= due);
	CHECK_EQ(m.type, TIMER_MESSAGE);
	CHECK_EQ(m.size, 24);
	CHECK_EQ(m.word[0], index);
	CHECK_EQ((uint64_t)m.word[3] << 32 | m.word[2], due);
	CHECK(((uint64_t)m.word[5] << 32 | m.word[4]) >= due);
	CHECK_EQ(rdmsr(HV_STIMER0_CONFIG + 2 * index), SINT << 16);
}

/* Messages: in time and in the past, from each timer; a tick that nobody takes is lost, one that is not wanted too. */
static void test_stimer_messages(void)
{
	struct hv_message m;

	CHECK(cpuid(0x40000003, 0).eax & HAS_STIMER);
	hv_sint_enable(SINT, VECTOR, 0);
	for (unsigned int i = 0; i < 4; i++)
		one_message(i, hv_reference_time() + 10000 * i);
	one_message(2, 1);
	/* To SINT 0 there are none, and without a count no timer runs. */
	wrmsr(HV_STIMER0_COUNT, 0);
	wrmsr(HV_STIMER0_CONFIG, SINT << 16 | STIMER_ENABLE | STIMER_AUTO_ENABLE);
	wrmsr(HV_STIMER0_COUNT, 0);
	CHECK_EQ(rdmsr(HV_STIMER0_CONFIG) & STIMER_ENABLE, 0);
	wrmsr(HV_STIMER0_CONFIG, 0);
	/* Ticks do not pile up: the slot holds one and at most one waits. */
	wrmsr(HV_STIMER0_COUNT, 5000);
	wrmsr(HV_STIMER0_CONFIG, SINT << 16 | STIMER_PERIODIC | STIMER_ENABLE);
	rt_delay(20000);
	wrmsr(HV_STIMER0_CONFIG, 0);
	CHECK(hv_take(0, SINT, &m));
	CHECK(!hv_take(0, SINT, &m));
	/* One that was stopped in time never comes. */
	wrmsr(HV_STIMER0_COUNT, hv_reference_time() + 50000);
	wrmsr(HV_STIMER0_CONFIG, SINT << 16 | STIMER_ENABLE);
	wrmsr(HV_STIMER0_CONFIG, 0);
	rt_delay(10000);
	CHECK(!hv_take(0, SINT, &m));
}

static uint32_t next_random(uint32_t *state)
{
	return *state = *state * 1664525 + 1013904223;
}

/* Interrupts: each of many short waits ends, none early; a period goes on until it is stopped. */
static void test_stimer_direct(void)
{
	const uint32_t count = (uint32_t)rt_arg_number("count", 300);
	const uint8_t vector = 0xed;
	uint32_t seed = 1, seen;
	uint64_t start;

	CHECK(cpuid(0x40000003, 0).edx & HAS_DIRECT_STIMER);
	wrmsr(HV_STIMER0_CONFIG + 2, STIMER_DIRECT | STIMER_AUTO_ENABLE | (uint32_t)vector << 4);
	for (uint32_t i = 1; i <= count; i++) {
		uint64_t due = hv_reference_time() + (next_random(&seed) >> 16) % 3000;

		wrmsr(HV_STIMER0_COUNT + 2, due);
		CHECK(rt_wait(vector, i, WAIT_US));
		CHECK(hv_reference_time() >= due);
		CHECK_EQ(rt_interrupts[vector], i);
	}
	/* Set anew again and again while it runs: the last time counts, once. */
	start = hv_reference_time();
	for (uint32_t i = 0; i < 100; i++)
		wrmsr(HV_STIMER0_COUNT + 2, start + 200000 + i);
	seen = rt_interrupts[vector];
	CHECK(rt_wait(vector, seen + 1, WAIT_US));
	CHECK(hv_reference_time() >= start + 200000 + 99);
	rt_delay(5000);
	irq_window();
	CHECK_EQ(rt_interrupts[vector], seen + 1);
	wrmsr(HV_STIMER0_CONFIG + 2, STIMER_DIRECT | STIMER_PERIODIC | (uint32_t)vector << 4);
	start = hv_reference_time();
	wrmsr(HV_STIMER0_COUNT + 2, 10000);
	wrmsr(HV_STIMER0_CONFIG + 2, rdmsr(HV_STIMER0_CONFIG + 2) | STIMER_ENABLE);
	CHECK(rt_wait(vector, seen + 11, 20 * WAIT_US));
	CHECK(hv_reference_time() >= start + 10 * 10000);
	CHECK(rdmsr(HV_STIMER0_CONFIG + 2) & STIMER_ENABLE);
	wrmsr(HV_STIMER0_COUNT + 2, 0);
	irq_window();
	seen = rt_interrupts[vector];
	rt_delay(5000);
	irq_window();
	CHECK_EQ(rt_interrupts[vector], seen);
	rt_print("%u waits\n", count);
}

static bool ring_bell(void)
{
	uint32_t before = rt_interrupts[OTHER_VECTOR];

	outl(DOORBELL, 0);
	while (rt_interrupts[OTHER_VECTOR] == before)
		halt_until_irq();
	return true;
}

/* By its interrupt, as the doorbell. */
static bool signal_and_halt(void)
{
	uint32_t before = rt_interrupts[VECTOR];

	if (hv_signal(EVENTS, 0) != HV_SUCCESS)
		return false;
	while (rt_interrupts[VECTOR] == before)
		halt_until_irq();
	return hv_take_flag(0, SINT, 1);
}

static bool signal_and_poll(void)
{
	if (hv_signal(EVENTS, 0) != HV_SUCCESS)
		return false;
	while (!hv_take_flag(0, SINT, 1))
		;
	return true;
}

static void measure(const char *name, bool (*trip)(void))
{
	uint32_t count = (uint32_t)rt_arg_number("count", 1000);
	uint64_t best = ~0ULL, all = rdtsc(), hz = rdmsr(HV_TSC_FREQUENCY);

	for (uint32_t i = 0; i < count; i++) {
		uint64_t one = rdtsc();

		CHECK(trip());
		one = rdtsc() - one;
		if (one < best)
			best = one;
	}
	all = rdtsc() - all;
	rt_print("%s: average %lu ns, best %lu ns\n", name, all * 1000 / (hz / 1000000) / count,
		 best * 1000 / (hz / 1000000));
}

/* HvSignalEvent to the host and an event back, and beside it an ioeventfd and an irqfd, which is the least it takes. */
static void test_round_trip(void)
{
	const uint32_t config[] = { 0, SINT, 1 }, wire[] = { 0, SINT, OTHER_VECTOR };
	struct hv_message m;

	hv_sint_enable(SINT, VECTOR, 0);
	CHECK_EQ(hv_post(0, MESSAGES, CONFIG, config, sizeof(config)), HV_SUCCESS);
	CHECK_EQ(hv_post(0, MESSAGES, WIRE, wire, sizeof(wire)), HV_SUCCESS);
	hv_await(0, SINT, &m);
	CHECK_EQ(m.type, WIRE);
	irq_window();
	for (int i = 0; i < 2; i++) {
		measure("doorbell", ring_bell);
		measure("signal", signal_and_halt);
		measure("signal, polled", signal_and_poll);
		irq_window(); /* the last one's interrupts */
	}
}

void guest_main(void)
{
	static const struct rt_test tests[] = {
		{ "gates", test_gates },
		{ "payloads", test_payloads },
		{ "burst", test_burst },
		{ "two-sints", test_two_sints },
		{ "polled", test_polled },
		{ "slow", test_slow },
		{ "move-page", test_move_page },
		{ "vps", test_vps },
		{ "flood", test_flood },
		{ "sleeper", test_sleeper },
		{ "flags", test_flags },
		{ "edges", test_edges },
		{ "event-gates", test_event_gates },
		{ "events-to-vps", test_events_to_vps },
		{ "stimer", test_stimer },
		{ "stimer-messages", test_stimer_messages },
		{ "stimer-direct", test_stimer_direct },
		{ "round-trip", test_round_trip },
	};

	hv_catch_gp();
	hv_init();
	lapic_enable(false);
	hv_synic_enable(0);
	rt_run_test(tests, sizeof(tests) / sizeof(tests[0]));
	hv_synic_disable();
	hv_exit();
}
