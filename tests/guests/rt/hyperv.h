/* SPDX-License-Identifier: MIT */
/*
 * Hyper-V from the guest's side (Hypervisor Top Level Functional Specification 6.0b, "TLFS"). A VP is named by its
 * index, which is what the machine's vCPU number and, here, the APIC id is too. Functions that take no VP concern the
 * processor they run on.
 */
#ifndef RT_HYPERV_H
#define RT_HYPERV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HV_VPS	       8 /* that the pages below are there for */
#define HV_SINTS       16
#define HV_EVENT_FLAGS 2048
#define HV_PAYLOAD     240

enum hv_msr {
	HV_GUEST_OS_ID = 0x40000000,
	HV_HYPERCALL = 0x40000001,
	HV_VP_INDEX = 0x40000002,
	HV_RESET = 0x40000003,
	HV_VP_RUNTIME = 0x40000010,
	HV_TIME_REF_COUNT = 0x40000020,
	HV_REFERENCE_TSC = 0x40000021,
	HV_TSC_FREQUENCY = 0x40000022,
	HV_APIC_FREQUENCY = 0x40000023,
	HV_EOI = 0x40000070,
	HV_ICR = 0x40000071,
	HV_TPR = 0x40000072,
	HV_VP_ASSIST = 0x40000073,
	HV_SCONTROL = 0x40000080,
	HV_SVERSION = 0x40000081,
	HV_SIEFP = 0x40000082,
	HV_SIMP = 0x40000083,
	HV_EOM = 0x40000084,
	HV_SINT0 = 0x40000090,
	HV_STIMER0_CONFIG = 0x400000b0,
	HV_STIMER0_COUNT = 0x400000b1,
	HV_GUEST_IDLE = 0x400000f0,
	HV_CRASH_P0 = 0x40000100,
	HV_CRASH_CTL = 0x40000105,
	HV_REENLIGHTENMENT = 0x40000106,
	HV_TSC_INVARIANT = 0x40000118,
};

#define HV_SINT_MASKED	 (1u << 16)
#define HV_SINT_AUTO_EOI (1u << 17)
#define HV_SINT_POLLING	 (1u << 18)

/* TLFS 2.2. */
enum {
	HV_SUCCESS = 0,
	HV_INVALID_CODE = 2,
	HV_INVALID_INPUT = 3,
	HV_INVALID_ALIGNMENT = 4,
	HV_INVALID_PARAMETER = 5,
	HV_INSUFFICIENT_MEMORY = 0xb,
	HV_INVALID_PORT_ID = 0x11,
	HV_INVALID_CONNECTION_ID = 0x12,
	HV_INSUFFICIENT_BUFFERS = 0x13,
};

#define HV_CALL_POST_MESSAGE 0x5c
#define HV_CALL_SIGNAL_EVENT 0x5d
#define HV_CALL_FAST	     (1ULL << 16)

/* TLFS 11.7: HV_MESSAGE */
struct hv_message {
	uint32_t type;
	uint8_t size;
	uint8_t flags; /* bit 0: more messages wait for the slot */
	uint16_t reserved;
	uint64_t sender;
	union {
		uint8_t payload[HV_PAYLOAD];
		uint32_t word[HV_PAYLOAD / 4];
	};
};
#define HV_MESSAGE_PENDING 1

/* TLFS 12.6: HV_REFERENCE_TSC_PAGE */
struct hv_tsc_page {
	uint32_t sequence, reserved;
	uint64_t scale;
	int64_t offset;
};

/* MSRs that may raise #GP: false if they did. Takes over the handler of vector 13. */
void hv_catch_gp(void);
bool hv_try_rdmsr(uint32_t msr, uint64_t *value);
bool hv_try_wrmsr(uint32_t msr, uint64_t value);

/* CPUID says "Microsoft Hv" with interface "Hv#1". */
bool hv_detect(void);

/* Identifies the guest and enables the hypercall page; once, on any processor. CHECKs what it does. */
void hv_init(void);
/* Disables both. */
void hv_exit(void);

/* The result value, status in its low 16 bits. */
uint64_t hv_call(uint64_t control, uint64_t input, uint64_t output);
uint16_t hv_post(unsigned int vp, uint32_t connection, uint32_t type, const void *payload, uint32_t size);
/* The same, again and again while the host is short of buffers. */
uint16_t hv_post_patiently(unsigned int vp, uint32_t connection, uint32_t type, const void *payload, uint32_t size);
uint16_t hv_signal(uint32_t connection, uint16_t flag); /* fast */
uint16_t hv_signal_slow(unsigned int vp, uint32_t connection, uint16_t flag);
uint8_t *hv_input_page(unsigned int vp);

/* This processor's message and event pages, and SCONTROL. */
void hv_synic_enable(unsigned int vp);
void hv_synic_disable(void);
void hv_sint_enable(unsigned int sint, uint8_t vector, uint32_t flags);
void hv_sint_mask(unsigned int sint);

volatile struct hv_message *hv_slot(unsigned int vp, unsigned int sint);
volatile uint64_t *hv_event_flags(unsigned int vp, unsigned int sint); /* HV_EVENT_FLAGS / 64 words */
/* Tests and clears one, as an interrupt handler does. */
bool hv_take_flag(unsigned int vp, unsigned int sint, unsigned int flag);

/* Copies the message in the slot, if any, frees the slot and tells the host if it wants to know. */
bool hv_take(unsigned int vp, unsigned int sint, struct hv_message *message);
/* The same, polling. CHECKs that one comes within a time that is long for any host. */
void hv_await(unsigned int vp, unsigned int sint, struct hv_message *message);
/* Polls until *word is value; CHECKs that it becomes so. */
void hv_await_word(const volatile uint32_t *word, uint32_t value);

/* 100 ns units: by the MSR, and by the page (false while its sequence says that it is not valid). */
uint64_t hv_reference_time(void);
bool hv_tsc_page_time(const volatile struct hv_tsc_page *page, uint64_t *time);

#endif
