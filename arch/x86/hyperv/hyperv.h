/* SPDX-License-Identifier: MIT */
/*
 * A Hyper-V partition: what a guest that was told of Hyper-V by CPUID finds behind its MSRs and hypercalls. Microsoft's
 * Hypervisor Top Level Functional Specification (TLFS) 6.0b is the contract; docs/hyperv.md says what of it is offered.
 *
 * The synthetic interrupt controller (SynIC) has two backends. "kvm" leaves it to KVM_CAP_HYPERV_SYNIC2; "user" needs
 * nothing of KVM but the MSR filter, and delivers messages, events and interrupts itself.
 */
#ifndef ARCH_X86_HYPERV_HYPERV_H
#define ARCH_X86_HYPERV_HYPERV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arch/x86/hyperv/tlfs.h"

struct hv_partition;
struct kvm_cpuid2;
struct region;
struct vcpu;
struct vm;

enum hv_synic { HV_SYNIC_AUTO, HV_SYNIC_KVM, HV_SYNIC_USER };
enum hv_timers { HV_TIMERS_AUTO, HV_TIMERS_ON, HV_TIMERS_OFF }; /* synthetic ones; AUTO: KVM's, or with --firmware */

#define HV_QUEUE_MAX 64 /* messages that wait for a SINT's slot */

/*
 * Creates vm->hyperv, after the VM and its memory and before any vCPU. 0, or -errno after printing one line.
 * hv_destroy() is due when vCPUs and loop have ended (NULL is fine).
 */
int hv_create(struct vm *vm, enum hv_synic synic);
void hv_destroy(struct hv_partition *partition);

/* A vCPU has been created in KVM and has not run yet. 0, or -errno after printing one line. */
int hv_add_vcpu(struct hv_partition *partition, struct vcpu *vcpu);

/* Back to the state after power-on; all vCPUs are parked and their registers already reset. */
int hv_reset(struct hv_partition *partition);

/* Replaces the hypervisor leaves (0x4000xxxx) of *cpuid, which has room for max entries, with the partition's. */
void hv_set_cpuid(const struct hv_partition *partition, struct kvm_cpuid2 *cpuid, unsigned int max);

/*
 * A port access by the guest, in vcpu->run, that is a hypercall: handles it and returns the region it belongs to. NULL:
 * it is none. On the vCPU's thread.
 */
struct region *hv_exit_io(struct vcpu *vcpu);

/* Exits, on the vCPU's thread: KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR, KVM_EXIT_HYPERV. */
void hv_exit_rdmsr(struct vcpu *vcpu);
void hv_exit_wrmsr(struct vcpu *vcpu);
void hv_exit_hyperv(struct vcpu *vcpu);

/* Work that another thread left for this vCPU (vcpu->hv_work), on the vCPU's thread between two runs of the guest. */
void hv_vcpu_work(struct vcpu *vcpu);

/* "kvm" or "user", for logs, statistics and --check-host. */
const char *hv_synic_name(const struct hv_partition *partition);

/* The partition's reference time: 100 ns units since it was created. Any thread. */
uint64_t hv_reference_time(struct hv_partition *partition);

/*
 * Ports: what a guest's HvPostMessage and HvSignalEvent reach, by connection id (24 bits). Loop thread, or before the
 * guest runs; each returns 0, -EEXIST if the id is taken, -EINVAL or -ENOMEM.
 *
 * post() runs on a vCPU thread, concurrently, and may not block; payload (size <= HV_MESSAGE_PAYLOAD) is a copy. Its
 * result is the guest's: HV_STATUS_INSUFFICIENT_BUFFERS makes a guest try again later.
 *
 * An event port is an eventfd of the caller's, which must outlive the port; a signal adds 1 to it. Only flag number 0
 * is accepted. hv_event_port_remove() returns when no signal is under way any more.
 */
struct hv_message_ops {
	enum hv_status (*post)(void *opaque, uint32_t connection, uint32_t type, const void *payload, size_t size);
};
int hv_message_port_add(struct hv_partition *partition, uint32_t connection, const struct hv_message_ops *ops,
			void *opaque);
int hv_event_port_add(struct hv_partition *partition, uint32_t connection, int eventfd);
void hv_event_port_remove(struct hv_partition *partition, uint32_t connection);

/*
 * A message to a SINT of a virtual processor (VP index = vCPU index). Any thread. Messages of one SINT arrive in the
 * order they were posted; they wait while the slot is busy, the SynIC or its message page disabled, or the SINT masked.
 * A polling SINT gets them without an interrupt (TLFS 11.8). 0; -EINVAL for a VP or SINT that
 * does not exist or a payload too long; -EAGAIN when HV_QUEUE_MAX messages wait already: room() of the partition's
 * listener is called (on any thread, which may not call back) when that has changed.
 */
int hv_post_message(struct hv_partition *partition, unsigned int vp, unsigned int sint, uint32_t type,
		    const void *payload, size_t size);
void hv_set_room_listener(struct hv_partition *partition, void (*room)(void *opaque), void *opaque);

/*
 * Sets event flag number flag of a SINT and interrupts the VP if it was clear. Any thread; does not block. False if the
 * SINT cannot take it (event page disabled, SINT masked, no such VP): the flag is lost then, as on Hyper-V.
 */
bool hv_signal_event(struct hv_partition *partition, unsigned int vp, unsigned int sint, unsigned int flag);

#endif
