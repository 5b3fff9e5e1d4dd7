/* SPDX-License-Identifier: MIT */
/*
 * What the files of the partition share.
 *
 * A backend is one way to give the guest a SynIC: synic_user.c and synic_kvm.c. Everything that does not depend on it
 * (message queues, connection tables, hypercall decoding, CPUID) is in the other files and calls the backend.
 */
#ifndef ARCH_X86_HYPERV_INTERNAL_H
#define ARCH_X86_HYPERV_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arch/x86/hyperv/clock.h"
#include "arch/x86/hyperv/hyperv.h"
#include "arch/x86/hyperv/slot.h"
#include "arch/x86/hyperv/stimer.h"
#include "arch/x86/hyperv/tlfs.h"
#include "vmm/bus.h"

struct hv_port;

/* What the guest reads in the leaves HV_CPUID_FEATURES and HV_CPUID_HINTS. */
struct hv_features {
	uint32_t msrs;	     /* HV_ACCESS_*, features.eax */
	uint32_t hypercalls; /* HV_POST_MESSAGES | HV_SIGNAL_EVENTS, features.ebx */
	uint32_t features;   /* HV_FEATURE_*, features.edx */
	uint32_t hints;	     /* HV_HINT_*, hints.eax */
};

/*
 * A virtual processor. lock guards all but the first two fields; it is a leaf: nothing else is locked under it, and
 * of others only irq_send() and vcpu_kick() are called, which are a system call each, and hv_clock_read().
 *
 * message_page and event_page are host addresses while SIMP and SIEFP are enabled, else NULL; the registers are as the
 * guest wrote them. The kvm backend keeps them up to date from KVM_EXIT_HYPERV. vp_assist is of no use where that
 * page is KVM's.
 */
struct hv_vp {
	struct hv_partition *partition;
	struct vcpu *vcpu;
	pthread_mutex_t lock;
	uint64_t scontrol, simp, siefp, vp_assist;
	uint64_t sint[HV_SINTS];
	struct hv_message *message_page; /* HV_SINTS slots */
	uint8_t *event_page;
	uint32_t ready;	  /* SINTs with messages that a look at the slot may deliver; kvm backend */
	uint32_t starved; /* SINTs whose queue was found full by hv_post_message(): room() is due */
	struct hv_queue queue[HV_SINTS];
};

/*
 * missing() names what this KVM lacks for the backend ("KVM_CAP_..."), or NULL. init() comes once, before any vCPU;
 * add_vcpu() for each. Both 0, or -errno after printing one line. init() or add_vcpu() of the first vCPU fill
 * partition->features. destroy() is called after init(), also one that failed.
 */
struct hv_backend {
	const char *name;
	const char *(*missing)(const struct vm *vm);
	int (*init)(struct hv_partition *partition);
	void (*destroy)(struct hv_partition *partition);
	int (*add_vcpu)(struct hv_vp *vp);

	/* Registers back to their state after power-on; the queues are empty already. 0 or -errno after printing. */
	int (*reset)(struct hv_partition *partition);

	/*
	 * vp->queue[sint] has messages: get them into the slot, now or, from the vCPU's thread, soon. vp->lock is held
	 * when called, and hv_vp_deliver() does it. Returns whether the caller is to call hv_room() after unlocking.
	 */
	bool (*deliver)(struct hv_vp *vp, unsigned int sint);

	/*
	 * HvSignalEvent on this connection writes the eventfd inside KVM from now on. Negative: it could not be
	 * arranged, and such hypercalls come by exit.
	 */
	int (*connect)(struct hv_partition *partition, uint32_t connection, int eventfd);
	void (*disconnect)(struct hv_partition *partition, uint32_t connection, int eventfd);

	/* Exits on the vCPU's thread; a NULL one never happens. io() as hv_exit_io(). */
	struct region *(*io)(struct hv_vp *vp);
	void (*rdmsr)(struct hv_vp *vp);
	void (*wrmsr)(struct hv_vp *vp);
	void (*hyperv)(struct hv_vp *vp);
	void (*work)(struct hv_vp *vp);				    /* hv_vcpu_work() */
	uint64_t (*reference_time)(struct hv_partition *partition); /* any thread; NULL: partition->clock */
	uint64_t (*guest_os_id)(struct hv_vp *vp); /* what the guest says it is; on the vCPU's thread */
};

extern const struct hv_backend hv_backend_user, hv_backend_kvm;

/*
 * The leaves of what KVM itself has of Hyper-V (Documentation/virt/kvm/api.rst, KVM_GET_SUPPORTED_HV_CPUID; it needs
 * KVM_CAP_SYS_HYPERV_CPUID). The caller frees them; NULL with errno set.
 */
struct kvm_cpuid2 *hv_kvm_leaves(const struct vm *vm);

struct hv_partition {
	struct vm *vm;
	const struct hv_backend *backend;
	void *backend_data; /* the backend's own; freed by destroy() */
	struct hv_features features;
	struct hv_vp *vps;
	unsigned int nr_vps; /* capacity: vm->config->cpus; vps[i].vcpu is NULL until added */
	uint64_t tsc_hz;     /* of the guest; 0: not known. Set by hv_add_vcpu() before the backend's add_vcpu(). */
	struct hv_clock clock;

	pthread_mutex_t lock; /* registers of the partition, user backend */
	uint64_t guest_os_id, hypercall, reference_tsc;
	uint64_t crash[HV_CRASH_PARAMETERS];
	bool told_auto_eoi;
	bool kvm_has_apic; /* user backend: the APIC's registers and the VP assist page are KVM's; set by init() */

	pthread_rwlock_t ports_lock; /* read while a port is being used */
	struct hv_port *ports;	     /* sorted by connection id */
	size_t nr_ports, max_ports;

	void (*room)(void *opaque);
	void *room_opaque;

	struct region hypercall_region, signal_region; /* user backend */
};

/* A hypercall: input value, and input parameter (an address, or the value itself). Returns the result value. */
uint64_t hv_hypercall(struct hv_partition *partition, uint64_t control, uint64_t input);

/* HvSignalEvent, its input as one word; and HvPostMessage, its input copied already. */
enum hv_status hv_call_signal(struct hv_partition *partition, uint64_t input);
enum hv_status hv_call_post(struct hv_partition *partition, const struct hv_post_input *input);

/* Ports by connection id; hold no lock. */
enum hv_status hv_ports_post(struct hv_partition *partition, uint32_t connection, uint32_t type, const void *payload,
			     size_t size);
enum hv_status hv_ports_signal(struct hv_partition *partition, uint32_t connection);
void hv_ports_destroy(struct hv_partition *partition);

/*
 * Moves a message from a queue to its slot if both allow it: true, and the SINT's interrupt is due. Sets *room if
 * hv_room() is to be called after unlocking. vp->lock is held.
 */
bool hv_vp_deliver(struct hv_vp *vp, unsigned int sint, bool *room);

/*
 * The interrupt of a SINT, unless it is a polling one. vp->lock is held, so that none comes any more once the guest has
 * masked the SINT or moved its vector.
 */
void hv_vp_interrupt(const struct hv_vp *vp, unsigned int sint);

/* An interrupt with that vector at the VP's local APIC; one below 16 would be an exception's, and is none. */
void hv_vp_vector(const struct hv_vp *vp, uint8_t vector);

/* Calls the room listener. Hold no lock. */
void hv_room(struct hv_partition *partition);

/*
 * The guest has crashed: prints its five parameters, the first as a bug-check code if Windows gives it, and, if message
 * is set, the text they point to, and ends the run with status 3. On the vCPU's thread.
 */
void hv_crashed(struct hv_vp *vp, const uint64_t parameters[HV_CRASH_PARAMETERS], bool message);

/* The page a register of the kind (address | enable) names: its host address, NULL if that is not all RAM. */
void *hv_page(const struct hv_partition *partition, uint64_t value);

#endif
