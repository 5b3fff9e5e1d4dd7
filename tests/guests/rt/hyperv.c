/* SPDX-License-Identifier: MIT */
#include "rt/hyperv.h"

#include "rt/io.h"
#include "rt/rt.h"

#define VECTOR_GP     13
#define GUEST_OS_ID   0x8100000000000001ULL /* open source, TLFS 3.2 */
#define PAGE_ENABLE   1ULL
#define OPCODE_0F     0x0f
#define OPCODE_RDMSR  0x32
#define OPCODE_WRMSR  0x30
#define PATIENCE      40000000000ULL /* cycles: some 10 to 20 seconds */
#define INTERFACE_HV1 0x31237648u    /* "Hv#1" */

static uint8_t call_page[4096] __attribute__((aligned(4096)));
static uint8_t input_pages[HV_VPS][4096] __attribute__((aligned(4096)));
static struct hv_message message_pages[HV_VPS][HV_SINTS] __attribute__((aligned(4096)));
static uint64_t event_pages[HV_VPS][HV_SINTS][HV_EVENT_FLAGS / 64] __attribute__((aligned(4096)));

/* Skips the instruction and says so in rbx. */
static void general_protection(struct rt_frame *frame)
{
	const uint8_t *code = (const uint8_t *)frame->rip;

	if (code[0] != OPCODE_0F || (code[1] != OPCODE_RDMSR && code[1] != OPCODE_WRMSR)) {
		rt_print("FAIL #GP error 0x%lx rip 0x%lx\n", frame->error, frame->rip);
		rt_exit(RT_FAILED);
	}
	frame->rip += 2;
	frame->rbx = 1;
}

void hv_catch_gp(void)
{
	rt_handlers[VECTOR_GP] = general_protection;
}

bool hv_try_rdmsr(uint32_t msr, uint64_t *value)
{
	uint32_t low, high;
	uint64_t fault = 0;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high), "+b"(fault) : "c"(msr) : "memory");
	*value = (uint64_t)high << 32 | low;
	return !fault;
}

bool hv_try_wrmsr(uint32_t msr, uint64_t value)
{
	uint64_t fault = 0;

	__asm__ volatile("wrmsr"
			 : "+b"(fault)
			 : "a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(msr)
			 : "memory");
	return !fault;
}

bool hv_detect(void)
{
	struct cpuid vendor = cpuid(0x40000000, 0);

	return cpuid(1, 0).ecx >> 31 && vendor.eax >= 0x40000005 && vendor.eax <= 0x4000ffff &&
	       vendor.ebx == 0x7263694d && vendor.ecx == 0x666f736f && vendor.edx == 0x76482074 &&
	       cpuid(0x40000001, 0).eax == INTERFACE_HV1;
}

void hv_init(void)
{
	CHECK(hv_detect());
	wrmsr(HV_GUEST_OS_ID, GUEST_OS_ID);
	CHECK_EQ(rdmsr(HV_GUEST_OS_ID), GUEST_OS_ID);
	wrmsr(HV_HYPERCALL, (uint64_t)call_page | PAGE_ENABLE);
	CHECK_EQ(rdmsr(HV_HYPERCALL), (uint64_t)call_page | PAGE_ENABLE);
}

void hv_exit(void)
{
	wrmsr(HV_HYPERCALL, 0);
	wrmsr(HV_GUEST_OS_ID, 0);
}

/* TLFS 3.7: rcx control, rdx and r8 input and output, rax result. */
uint64_t hv_call(uint64_t control, uint64_t input, uint64_t output)
{
	register uint64_t r8 __asm__("r8") = output;
	uint64_t result;

	__asm__ volatile("call *%[page]"
			 : "=a"(result), "+c"(control), "+d"(input), "+r"(r8)
			 : [page] "r"(call_page)
			 : "memory", "cc", "r9", "r10", "r11");
	return result;
}

uint8_t *hv_input_page(unsigned int vp)
{
	return input_pages[vp];
}

/* TLFS 11.11.2: connection, reserved, type, size, payload. */
uint16_t hv_post(unsigned int vp, uint32_t connection, uint32_t type, const void *payload, uint32_t size)
{
	const uint32_t header[] = { connection, 0, type, size };
	uint8_t *page = input_pages[vp];

	memcpy(page, header, sizeof(header));
	memcpy(page + sizeof(header), payload, size < HV_PAYLOAD ? size : HV_PAYLOAD);
	return (uint16_t)hv_call(HV_CALL_POST_MESSAGE, (uint64_t)page, 0);
}

uint16_t hv_post_patiently(unsigned int vp, uint32_t connection, uint32_t type, const void *payload, uint32_t size)
{
	uint64_t begin = rdtsc();
	uint16_t status;

	do {
		status = hv_post(vp, connection, type, payload, size);
		CHECK(rdtsc() - begin < PATIENCE);
	} while (status == HV_INSUFFICIENT_BUFFERS);
	return status;
}

/* TLFS 11.11.3: connection, flag number. */
uint16_t hv_signal(uint32_t connection, uint16_t flag)
{
	return (uint16_t)hv_call(HV_CALL_SIGNAL_EVENT | HV_CALL_FAST, connection | (uint64_t)flag << 32, 0);
}

uint16_t hv_signal_slow(unsigned int vp, uint32_t connection, uint16_t flag)
{
	const uint32_t input[] = { connection, flag };

	memcpy(input_pages[vp], input, sizeof(input));
	return (uint16_t)hv_call(HV_CALL_SIGNAL_EVENT, (uint64_t)input_pages[vp], 0);
}

void hv_synic_enable(unsigned int vp)
{
	CHECK(vp < HV_VPS);
	wrmsr(HV_SIMP, (uint64_t)message_pages[vp] | PAGE_ENABLE);
	wrmsr(HV_SIEFP, (uint64_t)event_pages[vp] | PAGE_ENABLE);
	wrmsr(HV_SCONTROL, 1);
}

void hv_synic_disable(void)
{
	for (unsigned int sint = 0; sint < HV_SINTS; sint++)
		hv_sint_mask(sint);
	wrmsr(HV_SIMP, 0);
	wrmsr(HV_SIEFP, 0);
	wrmsr(HV_SCONTROL, 0);
}

void hv_sint_enable(unsigned int sint, uint8_t vector, uint32_t flags)
{
	wrmsr(HV_SINT0 + sint, vector | flags);
}

void hv_sint_mask(unsigned int sint)
{
	wrmsr(HV_SINT0 + sint, HV_SINT_MASKED);
}

volatile struct hv_message *hv_slot(unsigned int vp, unsigned int sint)
{
	return &message_pages[vp][sint];
}

volatile uint64_t *hv_event_flags(unsigned int vp, unsigned int sint)
{
	return event_pages[vp][sint];
}

bool hv_take_flag(unsigned int vp, unsigned int sint, unsigned int flag)
{
	uint64_t bit = 1ULL << flag % 64;

	return __atomic_fetch_and(&event_pages[vp][sint][flag / 64], ~bit, __ATOMIC_SEQ_CST) & bit;
}

/* The flag is looked at after the slot was freed: the host sets it before it looks at the slot (TLFS 11.10.2). */
bool hv_take(unsigned int vp, unsigned int sint, struct hv_message *message)
{
	struct hv_message *slot = &message_pages[vp][sint];

	if (!__atomic_load_n(&slot->type, __ATOMIC_ACQUIRE))
		return false;
	memcpy(message, slot, sizeof(*message));
	__atomic_store_n(&slot->type, 0, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&slot->flags, __ATOMIC_SEQ_CST) & HV_MESSAGE_PENDING)
		wrmsr(HV_EOM, 0);
	return true;
}

void hv_await(unsigned int vp, unsigned int sint, struct hv_message *message)
{
	uint64_t begin = rdtsc();

	while (!hv_take(vp, sint, message)) {
		CHECK(rdtsc() - begin < PATIENCE);
		__asm__ volatile("pause");
	}
}

void hv_await_word(const volatile uint32_t *word, uint32_t value)
{
	uint64_t begin = rdtsc();

	while (*word != value) {
		CHECK(rdtsc() - begin < PATIENCE);
		__asm__ volatile("pause");
	}
}

uint64_t hv_reference_time(void)
{
	return rdmsr(HV_TIME_REF_COUNT);
}

/* TLFS 12.6.3: ((tsc * scale) >> 64) + offset. */
bool hv_tsc_page_time(const volatile struct hv_tsc_page *page, uint64_t *time)
{
	uint32_t sequence;

	do {
		uint64_t tsc, scale, high;

		sequence = page->sequence;
		if (!sequence)
			return false;
		__asm__ volatile("lfence" : : : "memory");
		tsc = rdtsc();
		scale = page->scale;
		__asm__("mul %2" : "=d"(high), "+a"(tsc) : "r"(scale) : "cc");
		*time = high + (uint64_t)page->offset;
		__asm__ volatile("" : : : "memory");
	} while (page->sequence != sequence);
	return true;
}
