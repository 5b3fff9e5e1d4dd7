/* SPDX-License-Identifier: MIT */
/*
 * A virtual CPU and its thread. Only its own thread enters the guest and uses the caches; statistics are counted
 * by that thread alone and may be read by any.
 */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/bus.h"

#define EXIT_REASONS 64

/*
 * The mapping of a vCPU's descriptor on x86: kvm_run, the data of port I/O, the ring of coalesced writes
 * (KVM_COALESCED_MMIO_PAGE_OFFSET). KVM_GET_VCPU_MMAP_SIZE would say the same, for one system call more.
 */
#define VCPU_PAGE  4096
#define VCPU_PAGES 3

struct vm;

struct vcpu {
	struct vm *vm;
	unsigned int index;
	uint32_t apic_id;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	_Atomic bool started; /* thread is valid; set after it, read before it */
	struct bus_cache pio_cache, mmio_cache;
	_Atomic bool hv_work; /* hv_vcpu_work() is due before the guest runs on; vcpu_kick() after setting it */
	_Atomic uint64_t exits[EXIT_REASONS];	/* by KVM_EXIT_* */
	_Atomic uint64_t interrupted;		/* KVM_RUN left by a signal */
	_Atomic uint64_t *pio_hits, *mmio_hits; /* by region id; BUS_MAX_REGIONS each */
	_Atomic uint64_t unclaimed;		/* accesses no region owned */
};

/* Creates the vCPU in KVM with the given APIC id and maps its kvm_run. 0 or -errno after printing the cause. */
int vcpu_create(struct vcpu *vcpu, struct vm *vm, unsigned int index);
void vcpu_destroy(struct vcpu *vcpu);

/* Enters the guest on the calling thread (which must be vcpu->thread) until the machine ends. */
void vcpu_run(struct vcpu *vcpu);

/* Starts a thread that does so. 0, or -errno after printing the cause. */
int vcpu_start(struct vcpu *vcpu);

/* Gets the thread out of KVM_RUN to look at vm->stop and vm->end. Any thread. */
void vcpu_kick(struct vcpu *vcpu);

/* The same for whatever thread there is: the system call that it sleeps in ends with EINTR. */
void vcpu_kick_thread(pthread_t thread);

/* Once a process, before the first vcpu_start(): the signal that vcpu_kick() sends. */
int vcpu_install_kick(void);

/* "io", "mmio", ...; NULL for an unknown number. */
const char *vcpu_exit_name(unsigned int reason);

#endif
