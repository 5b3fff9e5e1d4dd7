/* SPDX-License-Identifier: MIT */
/* The machine: everything one guest consists of, and what its devices may ask of it. */
#ifndef VMM_VM_H
#define VMM_VM_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/bus.h"
#include "vmm/coalesce.h"
#include "vmm/irq.h"
#include "vmm/loop.h"
#include "vmm/memory.h"
#include "vmm/stats.h"

struct config;
struct control;
struct hv_partition;
struct kvm_cpuid2;
struct pm;
struct signalfd_siginfo;
struct console;
struct device;
struct drives;
struct firmware;
struct pci_bus;
struct uart;
struct unknown_msrs;
struct vcpu;
struct vmbus;
struct x86_boot;

/* Exit status of the program (vmm.1, EXIT STATUS). */
enum {
	STATUS_OK = 0,
	STATUS_HOST_FAILURE = 1,
	STATUS_PANICKED = 3,
	STATUS_CRASHED = 4, /* triple fault, KVM internal error, an exit nobody handles */
	STATUS_TIMEOUT = 124,
};

#define POST_MARKS 64

struct post_mark {
	_Atomic uint64_t ns; /* since start of the process; 0 until code is valid */
	uint8_t code;
};

enum vm_request { VM_RUN, VM_RESET, VM_END };

struct vm {
	const struct config *config;
	int kvm_fd, fd;
	struct memory memory;
	struct bus pio, mmio;
	struct irqs irqs;
	struct coalesce coalesce;
	struct loop loop;
	struct vcpu *vcpus;
	unsigned int nr_vcpus;
	struct kvm_cpuid2 *cpuid;  /* what KVM supports */
	struct x86_boot *boot;	   /* until the guest runs */
	struct firmware *firmware; /* NULL: the kernel is entered directly */
	struct device *devices;
	struct console *console;
	struct control *control; /* NULL: none */
	struct uart *uart;	 /* the one attached to the console */
	struct pm *pm;
	struct drives *drives; /* NULL: none */
	struct pci_bus *pci;
	struct hv_partition *hyperv;	   /* NULL: none */
	struct vmbus *vmbus;		   /* NULL: the machine has none */
	struct unknown_msrs *unknown_msrs; /* NULL: KVM's own policy for them */

	/* vCPU threads park while stop is set; the rest is under lock. */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	_Atomic bool stop;
	bool end; /* vCPU threads are to leave */
	unsigned int parked;

	struct stats_source stats[STATS_SOURCES]; /* what devices add to the figures */
	unsigned int nr_stats;

	/* The first request wins until the loop has carried it out. */
	_Atomic int request;
	_Atomic int status;
	struct loop_work request_work;

	/* Loop thread only. */
	struct loop_op signal_op, timeout_op, tick_op;
	struct __kernel_timespec timeout_ts, tick_ts;
	struct signalfd_siginfo *signal_info;
	sigset_t signals; /* that the loop reads */
	int signal_fd;
	int end_signal; /* the run ended by this signal, to be raised again */
	unsigned int terminations;
	bool paused; /* by vm_pause(); vCPUs are parked */
	struct loop_work tick_work;
	_Atomic bool ticking;

	uint64_t start_ns; /* CLOCK_MONOTONIC when the process began to work */
	_Atomic uint64_t first_run_ns;
	uint64_t end_ns;
	uint64_t resets;
	_Atomic unsigned int post_count;
	struct post_mark post[POST_MARKS];
};

/*
 * Builds the machine up to, but not including, the first guest instruction. 0, or -errno after printing one line;
 * vm_destroy() is due either way.
 */
int vm_create(struct vm *vm, const struct config *config, uint64_t start_ns);

/* Runs it on this thread's loop until it ends. Returns the exit status. */
int vm_run(struct vm *vm);
void vm_destroy(struct vm *vm);

/* What devices ask of the machine. Any thread; return at once, the loop thread carries it out. */
void vm_poweroff(struct vm *vm);		/* status 0 */
void vm_reset(struct vm *vm);			/* or the end with status 0 under --no-reboot */
void vm_exit(struct vm *vm, int status);	/* the guest, or vmm itself, ends the run with this status */
void vm_power_button(struct vm *vm);		/* ask the guest to shut down; loop thread */
void vm_post_code(struct vm *vm, uint8_t code); /* stamped; the first POST_MARKS are kept */

/*
 * Holds all vCPUs until vm_resume(); devices and the guest's clocks go on. A reset leaves the machine paused. 0 when
 * the guest does not run any more, or did not before; -ETIMEDOUT if a vCPU does not stop. Loop thread.
 */
int vm_pause(struct vm *vm);
void vm_resume(struct vm *vm); /* does nothing if the machine is not paused */

/* Asks for coalesced writes to be drained by timer while uart_wants_tick(). Any thread. */
void vm_want_tick(struct vm *vm);

/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t clock_ns(void);

#endif
