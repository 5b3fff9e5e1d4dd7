/* SPDX-License-Identifier: MIT */
/*
 * Numbers and structures of the hypervisor interface, as a guest sees them. Freestanding: test guests use it too.
 *
 * Source: Microsoft, Hypervisor Top Level Functional Specification (TLFS) 6.0b, by chapter; the same numbers are in
 * Linux include/asm-generic/hyperv-tlfs.h and arch/x86/include/asm/hyperv-tlfs.h.
 */
#ifndef ARCH_X86_HYPERV_TLFS_H
#define ARCH_X86_HYPERV_TLFS_H

#include <stdint.h>

/* CPUID leaves (TLFS 2.4). */
#define HV_CPUID_VENDOR	  0x40000000u /* eax: highest leaf; ebx, ecx, edx: "Microsoft Hv" */
#define HV_CPUID_ID	  0x40000001u /* eax: HV_INTERFACE_ID */
#define HV_CPUID_VERSION  0x40000002u
#define HV_CPUID_FEATURES 0x40000003u
#define HV_CPUID_HINTS	  0x40000004u
#define HV_CPUID_LIMITS	  0x40000005u
#define HV_CPUID_HARDWARE 0x40000006u
#define HV_CPUID_MAX	  HV_CPUID_HARDWARE

#define HV_VENDOR_EBX	0x7263694du /* "Micr" */
#define HV_VENDOR_ECX	0x666f736fu /* "osof" */
#define HV_VENDOR_EDX	0x76482074u /* "t Hv" */
#define HV_INTERFACE_ID 0x31237648u /* "Hv#1" */

/* HV_CPUID_FEATURES, eax: MSRs the partition may use. */
#define HV_ACCESS_VP_RUNTIME	  (1u << 0)
#define HV_ACCESS_TIME_REF_COUNT  (1u << 1)
#define HV_ACCESS_SYNIC		  (1u << 2)
#define HV_ACCESS_STIMER	  (1u << 3)
#define HV_ACCESS_APIC		  (1u << 4)
#define HV_ACCESS_HYPERCALL	  (1u << 5)
#define HV_ACCESS_VP_INDEX	  (1u << 6)
#define HV_ACCESS_RESET		  (1u << 7)
#define HV_ACCESS_REFERENCE_TSC	  (1u << 9)
#define HV_ACCESS_GUEST_IDLE	  (1u << 10)
#define HV_ACCESS_FREQUENCIES	  (1u << 11)
#define HV_ACCESS_REENLIGHTENMENT (1u << 13)
#define HV_ACCESS_TSC_INVARIANT	  (1u << 15)
/* ebx: hypercalls it may use. */
#define HV_POST_MESSAGES (1u << 4)
#define HV_SIGNAL_EVENTS (1u << 5)
/* edx: what else there is. */
#define HV_FEATURE_FREQUENCIES	 (1u << 8)
#define HV_FEATURE_CRASH_MSRS	 (1u << 10)
#define HV_FEATURE_DIRECT_STIMER (1u << 19)
/* HV_CPUID_HINTS, eax: what the guest is advised to do. */
#define HV_HINT_REMOTE_TLB_FLUSH   (1u << 2)
#define HV_HINT_APIC_MSRS	   (1u << 3)
#define HV_HINT_RELAXED_TIMING	   (1u << 5)
#define HV_HINT_DEPRECATE_AUTO_EOI (1u << 9)
#define HV_HINT_CLUSTER_IPI	   (1u << 10)
#define HV_HINT_EX_PROCESSOR_MASKS (1u << 11)
#define HV_SPIN_NEVER_NOTIFY	   0xffffffffu /* ebx */

/* MSRs (TLFS appendix C). */
#define HV_MSR_FIRST	      0x40000000u
#define HV_MSR_COUNT	      0x200u /* all of those below, and more */
#define HV_MSR_GUEST_OS_ID    0x40000000u
#define HV_MSR_HYPERCALL      0x40000001u
#define HV_MSR_VP_INDEX	      0x40000002u
#define HV_MSR_RESET	      0x40000003u
#define HV_MSR_VP_RUNTIME     0x40000010u
#define HV_MSR_TIME_REF_COUNT 0x40000020u
#define HV_MSR_REFERENCE_TSC  0x40000021u
#define HV_MSR_TSC_FREQUENCY  0x40000022u
#define HV_MSR_APIC_FREQUENCY 0x40000023u
#define HV_MSR_EOI	      0x40000070u
#define HV_MSR_ICR	      0x40000071u
#define HV_MSR_TPR	      0x40000072u
#define HV_MSR_VP_ASSIST_PAGE 0x40000073u
#define HV_MSR_SCONTROL	      0x40000080u
#define HV_MSR_SVERSION	      0x40000081u
#define HV_MSR_SIEFP	      0x40000082u
#define HV_MSR_SIMP	      0x40000083u
#define HV_MSR_EOM	      0x40000084u
#define HV_MSR_SINT0	      0x40000090u
#define HV_MSR_STIMER0_CONFIG 0x400000b0u
#define HV_MSR_STIMER0_COUNT  0x400000b1u
#define HV_MSR_GUEST_IDLE     0x400000f0u
#define HV_MSR_CRASH_P0	      0x40000100u
#define HV_MSR_CRASH_CTL      0x40000105u
#define HV_MSR_TSC_INVARIANT  0x40000118u

#define HV_PAGE	       4096
#define HV_MSR_ENABLE  1ull /* of the MSRs that hold a page's address; SCONTROL */
#define HV_MSR_PFN     (~0xfffull)
#define HV_CALL_LOCKED 2ull /* HV_MSR_HYPERCALL */

#define HV_SYNIC_VERSION      1
#define HV_SINTS	      16
#define HV_SINT_VECTOR	      0xffull
#define HV_SINT_MASKED	      (1ull << 16)
#define HV_SINT_AUTO_EOI      (1ull << 17)
#define HV_SINT_POLLING	      (1ull << 18)
#define HV_SINT_VECTOR_LOWEST 16

/* Synthetic timers (TLFS 12.5.1): the bits of HV_MSR_STIMERn_CONFIG. CONFIG and COUNT of each follow one another. */
#define HV_STIMERS	       4
#define HV_STIMER_ENABLE       (1ull << 0)
#define HV_STIMER_PERIODIC     (1ull << 1)
#define HV_STIMER_AUTO_ENABLE  (1ull << 3)
#define HV_STIMER_VECTOR_SHIFT 4
#define HV_STIMER_DIRECT       (1ull << 12) /* an interrupt instead of a message */
#define HV_STIMER_SINT_SHIFT   16

#define HV_CRASH_PARAMETERS 5
#define HV_CRASH_NOTIFY	    (1ull << 63)
#define HV_CRASH_MESSAGE    (1ull << 62) /* P3 is the address, P4 the length of a text */

/* HV_MSR_GUEST_OS_ID (TLFS 2.6): who made the guest. Open-source systems have bit 63 set and a vendor of their own. */
#define HV_OS_VENDOR(id)     ((id) >> 48)
#define HV_OS_VENDOR_WINDOWS 1u /* Microsoft; the system is in the next byte */

/* Messages (TLFS 11.8): a slot of 256 bytes for each SINT of the message page. */
#define HV_MESSAGE_SIZE		256
#define HV_MESSAGE_PAYLOAD	240 /* bytes */
#define HV_MESSAGE_NONE		0u
#define HV_MESSAGE_HYPERVISOR	0x80000000u /* set in the types that only the hypervisor sends */
#define HV_MESSAGE_TIMER	0x80000010u
#define HV_MESSAGE_FLAG_PENDING 1u /* more messages wait: write HV_MSR_EOM after emptying the slot */

struct hv_message {
	uint32_t type; /* HV_MESSAGE_NONE: the slot is free */
	uint8_t payload_size;
	uint8_t flags;
	uint8_t reserved[2];
	uint64_t sender;
	uint8_t payload[HV_MESSAGE_PAYLOAD];
};

/* Event flags (TLFS 11.9): 256 bytes for each SINT of the event page. */
#define HV_EVENT_FLAGS	    2048 /* of a SINT */
#define HV_EVENT_FLAGS_SIZE 256	 /* bytes */

/* Reference TSC page (TLFS 12.7.2). Time in 100 ns = (tsc * scale >> 64) + offset. */
struct hv_reference_tsc {
	uint32_t sequence; /* 0: not valid, read HV_MSR_TIME_REF_COUNT instead */
	uint32_t reserved;
	uint64_t scale;
	int64_t offset;
};

/* Hypercall input value (TLFS 3.7). */
#define HV_CALL_CODE	      0xffffull
#define HV_CALL_FAST	      (1ull << 16)
#define HV_CALL_HEADER_SIZE   (0x3ffull << 17) /* of the variable header, in 8 bytes */
#define HV_CALL_RESERVED      (0x1full << 27 | 0xfull << 44 | 0xfull << 60)
#define HV_CALL_REP_COUNT     (0xfffull << 32)
#define HV_CALL_REP_START     (0xfffull << 48)
#define HV_CALL_POST_MESSAGE  0x5cu
#define HV_CALL_SIGNAL_EVENT  0x5du
#define HV_CALL_EXT_QUERY_CAP 0x8001u
#define HV_CONNECTION_ID      0xffffffu /* the bits of it that may be set */

/* Input of HvPostMessage (TLFS 11.11). */
struct hv_post_input {
	uint32_t connection;
	uint32_t reserved;
	uint32_t type;
	uint32_t size;
	uint8_t payload[HV_MESSAGE_PAYLOAD];
};

/* Input of HvSignalEvent; in the fast form, the same bytes are the first parameter. */
struct hv_signal_input {
	uint32_t connection;
	uint16_t flag;
	uint16_t reserved;
};

/* TLFS 2.2, HV_STATUS: the values used here. */
enum hv_status {
	HV_STATUS_SUCCESS = 0,
	HV_STATUS_INVALID_HYPERCALL_CODE = 2,
	HV_STATUS_INVALID_HYPERCALL_INPUT = 3,
	HV_STATUS_INVALID_ALIGNMENT = 4,
	HV_STATUS_INVALID_PARAMETER = 5,
	HV_STATUS_INSUFFICIENT_MEMORY = 0xb,
	HV_STATUS_INVALID_PORT_ID = 0x11,
	HV_STATUS_INVALID_CONNECTION_ID = 0x12,
	HV_STATUS_INSUFFICIENT_BUFFERS = 0x13,
};

#endif
