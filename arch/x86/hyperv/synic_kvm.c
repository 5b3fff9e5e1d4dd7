/* SPDX-License-Identifier: MIT */
/*
 * The SynIC inside KVM (Documentation/virt/kvm/api.rst: KVM_CAP_HYPERV_SYNIC, KVM_EXIT_HYPERV, KVM_HYPERV_EVENTFD).
 *
 * Theory of operation
 *
 * KVM keeps the MSRs, clears a message or event page when the guest enables it, runs the synthetic timers and knows
 * which connections are eventfds. What is left to us are the messages, the event flags, and their interrupts, which are
 * messages to the VP's local APIC with the SINT's vector: KVM looks at the vector to see whether it ends by itself
 * (auto-EOI), not at where it came from, so that no route of the kind KVM_IRQ_ROUTING_HV_SINT is needed.
 *
 * KVM tells of EOM only by resampling irqfds, which it refuses beside a split irqchip, and of a SINT's value not at
 * all. So the filter takes writes of these MSRs away from it. An EOM, which a guest writes only when we or KVM have set
 * a message's pending flag, gets the next message delivered, and is then passed on to KVM, for timer messages that
 * wait. A SINT is looked at and passed on as well. The crash MSRs are ours because KVM drops the bit that says that the
 * parameters name a text.
 *
 * Timer messages go to the same slots as ours, and KVM writes them in the context of the VP's vCPU without a lock. So
 * we write messages from the vCPU's own thread only, between two runs of the guest. Event flags are ours alone, and
 * atomic.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "arch/x86/hyperv/internal.h"
#include "arch/x86/msr.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define OFFERED_MSRS                                                                                                   \
	(HV_ACCESS_VP_RUNTIME | HV_ACCESS_TIME_REF_COUNT | HV_ACCESS_SYNIC | HV_ACCESS_STIMER | HV_ACCESS_APIC |       \
	 HV_ACCESS_HYPERCALL | HV_ACCESS_VP_INDEX | HV_ACCESS_RESET | HV_ACCESS_REFERENCE_TSC | HV_ACCESS_FREQUENCIES)
#define OFFERED_HYPERCALLS (HV_POST_MESSAGES | HV_SIGNAL_EVENTS)
#define OFFERED_FEATURES   (HV_FEATURE_FREQUENCIES | HV_FEATURE_CRASH_MSRS | HV_FEATURE_DIRECT_STIMER)
#define OFFERED_HINTS                                                                                                  \
	(HV_HINT_REMOTE_TLB_FLUSH | HV_HINT_APIC_MSRS | HV_HINT_RELAXED_TIMING | HV_HINT_CLUSTER_IPI |                 \
	 HV_HINT_EX_PROCESSOR_MASKS)

static const char *missing(const struct vm *vm)
{
	static const struct {
		int cap;
		const char *name;
	} needed[] = {
		{ KVM_CAP_HYPERV_SYNIC, "KVM_CAP_HYPERV_SYNIC" },
		{ KVM_CAP_HYPERV_VP_INDEX, "KVM_CAP_HYPERV_VP_INDEX" },
		{ KVM_CAP_HYPERV_EVENTFD, "KVM_CAP_HYPERV_EVENTFD" },
		{ KVM_CAP_SYS_HYPERV_CPUID, "KVM_CAP_SYS_HYPERV_CPUID" },
		{ KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR" },
		{ KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER" },
	};

	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		if (ioctl(vm->fd, KVM_CHECK_EXTENSION, (long)needed[i].cap) <= 0)
			return needed[i].name;
	return NULL;
}

static int fail(const char *what)
{
	int ret = -errno;

	log_line("--hyperv synic=kvm: %s: %s", what, strerror(-ret));
	return ret;
}

/* What KVM can do and a guest may know of. */
static int read_features(struct hv_partition *partition)
{
	struct kvm_cpuid2 *cpuid = hv_kvm_leaves(partition->vm);
	struct hv_features *f = &partition->features;

	if (!cpuid)
		return fail("KVM_GET_SUPPORTED_HV_CPUID");
	for (uint32_t i = 0; i < cpuid->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		if (e->function == HV_CPUID_FEATURES) {
			f->msrs = e->eax & OFFERED_MSRS;
			f->hypercalls = e->ebx & OFFERED_HYPERCALLS;
			f->features = e->edx & OFFERED_FEATURES;
		} else if (e->function == HV_CPUID_HINTS) {
			/* Auto-EOI costs KVM its hardware support of APICs. */
			f->hints = (e->eax & OFFERED_HINTS) | HV_HINT_DEPRECATE_AUTO_EOI;
		}
	}
	if (partition->vm->config->hv_timers == HV_TIMERS_OFF) {
		f->msrs &= ~HV_ACCESS_STIMER;
		f->features &= ~HV_FEATURE_DIRECT_STIMER;
	}
	free(cpuid);
	return 0;
}

/* A bit for each MSR of a range, set if KVM keeps it. */
static void deny(uint8_t *bitmap, uint32_t base, uint32_t first, uint32_t count)
{
	for (uint32_t i = first - base; count--; i++)
		bitmap[i / 8] &= (uint8_t) ~(1u << i % 8);
}

static int set_filter(struct hv_partition *partition)
{
	enum { SYNIC_BASE = 0x40000080, SYNIC_COUNT = 0x20, CRASH_COUNT = 8 };
	uint8_t synic[SYNIC_COUNT / 8], crash[CRASH_COUNT / 8];
	int ret;
	struct kvm_msr_filter filter = {
		.flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
		.ranges = {
			{ KVM_MSR_FILTER_WRITE, SYNIC_COUNT, SYNIC_BASE, synic },
			{ KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE, CRASH_COUNT, HV_MSR_CRASH_P0, crash },
		},
	};

	memset(synic, 0xff, sizeof(synic));
	memset(crash, 0xff, sizeof(crash));
	deny(synic, SYNIC_BASE, HV_MSR_EOM, 1);
	deny(synic, SYNIC_BASE, HV_MSR_SINT0, HV_SINTS);
	deny(crash, HV_MSR_CRASH_P0, HV_MSR_CRASH_P0, HV_CRASH_PARAMETERS + 1);
	ret = msr_enable_exits(partition->vm);
	if (ret) {
		errno = -ret;
		return fail("KVM_CAP_X86_USER_SPACE_MSR");
	}
	if (ioctl(partition->vm->fd, KVM_X86_SET_MSR_FILTER, &filter) < 0)
		return fail("KVM_X86_SET_MSR_FILTER");
	return 0;
}

static int init(struct hv_partition *partition)
{
	int ret = read_features(partition);

	return ret ? ret : set_filter(partition);
}

static void destroy(struct hv_partition *partition)
{
	(void)partition;
}

static int enable(struct vcpu *vcpu, uint32_t capability, const char *name, uint64_t argument)
{
	struct kvm_enable_cap cap = { .cap = capability, .args = { argument } };

	return ioctl(vcpu->fd, KVM_ENABLE_CAP, &cap) < 0 ? fail(name) : 0;
}

/* A host's write: KVM does not tell us of it. On the vCPU's thread, or while it is parked. */
static bool set_msr(const struct hv_vp *vp, uint32_t msr, uint64_t value)
{
	char buffer[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)] __attribute__((aligned(8))) = { 0 };
	struct kvm_msrs *one = (struct kvm_msrs *)buffer;

	one->nmsrs = 1;
	one->entries[0].index = msr;
	one->entries[0].data = value;
	return ioctl(vp->vcpu->fd, KVM_SET_MSRS, one) == 1;
}

static uint64_t guest_os_id(struct hv_vp *vp)
{
	char buffer[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)] __attribute__((aligned(8))) = { 0 };
	struct kvm_msrs *one = (struct kvm_msrs *)buffer;

	one->nmsrs = 1;
	one->entries[0].index = HV_MSR_GUEST_OS_ID;
	return ioctl(vp->vcpu->fd, KVM_GET_MSRS, one) == 1 ? one->entries[0].data : 0;
}

static int add_vcpu(struct hv_vp *vp)
{
	struct vm *vm = vp->partition->vm;
	int ret;

	for (unsigned int sint = 0; sint < HV_SINTS; sint++)
		vp->sint[sint] = HV_SINT_MASKED;
	ret = enable(vp->vcpu, KVM_CAP_HYPERV_SYNIC, "KVM_CAP_HYPERV_SYNIC", 0);

	/* KVM starts with it enabled, TLFS 11.8.1 does not. */
	if (!ret && !set_msr(vp, HV_MSR_SCONTROL, 0))
		ret = fail("SCONTROL");
	/* MSRs and hypercalls that the guest was not told of are not there; older kernels are more generous. */
	if (!ret && ioctl(vm->fd, KVM_CHECK_EXTENSION, (long)KVM_CAP_HYPERV_ENFORCE_CPUID) > 0)
		ret = enable(vp->vcpu, KVM_CAP_HYPERV_ENFORCE_CPUID, "KVM_CAP_HYPERV_ENFORCE_CPUID", 1);
	return ret;
}

/* On the vCPU's thread, under vp->lock. Returns whether hv_room() is due. */
static bool deliver_now(struct hv_vp *vp, unsigned int sint)
{
	bool room = false;

	vp->ready &= ~(1u << sint);
	if (hv_vp_deliver(vp, sint, &room))
		hv_vp_interrupt(vp, sint);
	return room;
}

static void deliver_those(struct hv_vp *vp, uint32_t sints)
{
	bool room = false;

	pthread_mutex_lock(&vp->lock);
	for (unsigned int sint = 0; sint < HV_SINTS; sint++)
		if (sints & 1u << sint)
			room |= deliver_now(vp, sint);
	pthread_mutex_unlock(&vp->lock);
	if (room)
		hv_room(vp->partition);
}

static bool deliver(struct hv_vp *vp, unsigned int sint)
{
	if (vp->vcpu->started && pthread_equal(vp->vcpu->thread, pthread_self()))
		return deliver_now(vp, sint);
	vp->ready |= 1u << sint;
	if (!atomic_exchange(&vp->vcpu->hv_work, true))
		vcpu_kick(vp->vcpu);
	return false;
}

static void work(struct hv_vp *vp)
{
	uint32_t sints;

	pthread_mutex_lock(&vp->lock);
	sints = vp->ready;
	pthread_mutex_unlock(&vp->lock);
	deliver_those(vp, sints);
}

static int connection(struct hv_partition *partition, uint32_t id, int eventfd, uint32_t flags)
{
	const struct kvm_hyperv_eventfd arg = { .conn_id = id, .fd = eventfd, .flags = flags };

	return ioctl(partition->vm->fd, KVM_HYPERV_EVENTFD, &arg) < 0 ? -errno : 0;
}

static int connect_eventfd(struct hv_partition *partition, uint32_t id, int eventfd)
{
	return connection(partition, id, eventfd, 0);
}

static void disconnect_eventfd(struct hv_partition *partition, uint32_t id, int eventfd)
{
	connection(partition, id, eventfd, KVM_HYPERV_EVENTFD_DEASSIGN);
}

/* A vector below 16 is an exception's; KVM refuses it to guests, but would take it from us. */
static bool write_sint(struct hv_vp *vp, unsigned int sint, uint64_t value)
{
	if ((value & HV_SINT_VECTOR) < HV_SINT_VECTOR_LOWEST && !(value & HV_SINT_MASKED))
		return false;
	if (!set_msr(vp, HV_MSR_SINT0 + sint, value))
		return false;
	pthread_mutex_lock(&vp->lock);
	vp->sint[sint] = value;
	pthread_mutex_unlock(&vp->lock);
	deliver_those(vp, 1u << sint);
	return true;
}

static bool write_crash(struct hv_vp *vp, uint32_t msr, uint64_t value)
{
	struct hv_partition *partition = vp->partition;
	uint64_t parameters[HV_CRASH_PARAMETERS];

	if (msr == HV_MSR_CRASH_CTL && !(value & HV_CRASH_NOTIFY))
		return true;
	pthread_mutex_lock(&partition->lock);
	if (msr != HV_MSR_CRASH_CTL)
		partition->crash[msr - HV_MSR_CRASH_P0] = value;
	memcpy(parameters, partition->crash, sizeof(parameters));
	pthread_mutex_unlock(&partition->lock);
	if (msr == HV_MSR_CRASH_CTL)
		hv_crashed(vp, parameters, value & HV_CRASH_MESSAGE);
	return true;
}

static bool write_msr(struct hv_vp *vp, uint32_t msr, uint64_t value)
{
	switch (msr) {
	case HV_MSR_EOM:
		deliver_those(vp, (1u << HV_SINTS) - 1);
		return set_msr(vp, HV_MSR_EOM, 0);
	case HV_MSR_SINT0 ... HV_MSR_SINT0 + HV_SINTS - 1:
		return write_sint(vp, msr - HV_MSR_SINT0, value);
	case HV_MSR_CRASH_P0 ... HV_MSR_CRASH_CTL:
		return write_crash(vp, msr, value);
	default:
		return false;
	}
}

static void exit_wrmsr(struct hv_vp *vp)
{
	struct kvm_run *run = vp->vcpu->run;

	run->msr.error = !write_msr(vp, run->msr.index, run->msr.data);
}

static void exit_rdmsr(struct hv_vp *vp)
{
	struct hv_partition *partition = vp->partition;
	struct kvm_run *run = vp->vcpu->run;
	uint32_t msr = run->msr.index;

	run->msr.error = msr < HV_MSR_CRASH_P0 || msr > HV_MSR_CRASH_CTL;
	if (run->msr.error)
		return;
	run->msr.data = HV_CRASH_NOTIFY | HV_CRASH_MESSAGE; /* what can be told */
	if (msr == HV_MSR_CRASH_CTL)
		return;
	pthread_mutex_lock(&partition->lock);
	run->msr.data = partition->crash[msr - HV_MSR_CRASH_P0];
	pthread_mutex_unlock(&partition->lock);
}

/* SCONTROL, SIMP or SIEFP was written; KVM has cleared the page. */
static void exit_synic(struct hv_vp *vp, const struct kvm_hyperv_exit *hv)
{
	pthread_mutex_lock(&vp->lock);
	vp->scontrol = hv->u.synic.control;
	vp->simp = hv->u.synic.msg_page;
	vp->siefp = hv->u.synic.evt_page;
	vp->message_page = vp->simp & HV_MSR_ENABLE ? hv_page(vp->partition, vp->simp) : NULL;
	vp->event_page = vp->siefp & HV_MSR_ENABLE ? hv_page(vp->partition, vp->siefp) : NULL;
	pthread_mutex_unlock(&vp->lock);
	deliver_those(vp, (1u << HV_SINTS) - 1);
}

/* HvSignalEvent comes here for connections that KVM does not know, in either form with the input's value. */
static uint64_t hypercall(struct hv_partition *partition, const struct kvm_hyperv_exit *hv)
{
	if ((hv->u.hcall.input & HV_CALL_CODE) == HV_CALL_SIGNAL_EVENT)
		return hv_call_signal(partition, hv->u.hcall.params[0]);
	return hv_hypercall(partition, hv->u.hcall.input, hv->u.hcall.params[0]);
}

static void exit_hyperv(struct hv_vp *vp)
{
	struct kvm_hyperv_exit *hv = &vp->vcpu->run->hyperv;

	if (hv->type == KVM_EXIT_HYPERV_SYNIC)
		exit_synic(vp, hv);
	else if (hv->type == KVM_EXIT_HYPERV_HCALL)
		hv->u.hcall.result = hypercall(vp->partition, hv);
}

/* Timers first: they could still write a message. The first VP's writes are the partition's, too. */
static int reset_vp(struct hv_vp *vp)
{
	bool ok = true;

	for (uint32_t i = 0; i < 2 * HV_STIMERS; i++)
		if (vp->partition->features.msrs & HV_ACCESS_STIMER)
			ok &= set_msr(vp, HV_MSR_STIMER0_CONFIG + i, 0);
	ok &= set_msr(vp, HV_MSR_SCONTROL, 0) && set_msr(vp, HV_MSR_SIMP, 0) && set_msr(vp, HV_MSR_SIEFP, 0);
	for (uint32_t i = 0; i < HV_SINTS; i++)
		ok &= set_msr(vp, HV_MSR_SINT0 + i, HV_SINT_MASKED);
	ok &= set_msr(vp, HV_MSR_VP_ASSIST_PAGE, 0);
	ok &= set_msr(vp, HV_MSR_GUEST_OS_ID, 0) && set_msr(vp, HV_MSR_HYPERCALL, 0) &&
	      set_msr(vp, HV_MSR_REFERENCE_TSC, 0);
	if (!ok)
		log_line("reset: KVM refuses the SynIC's state after power-on");
	return ok ? 0 : -EIO;
}

static int reset(struct hv_partition *partition)
{
	int ret = 0;

	memset(partition->crash, 0, sizeof(partition->crash));
	for (unsigned int i = 0; i < partition->nr_vps && !ret; i++) {
		struct hv_vp *vp = &partition->vps[i];

		pthread_mutex_lock(&vp->lock);
		vp->scontrol = vp->simp = vp->siefp = 0;
		vp->message_page = NULL;
		vp->event_page = NULL;
		vp->ready = 0;
		for (unsigned int sint = 0; sint < HV_SINTS; sint++)
			vp->sint[sint] = HV_SINT_MASKED;
		pthread_mutex_unlock(&vp->lock);
		if (vp->vcpu)
			ret = reset_vp(vp);
	}
	return ret;
}

/* KVM counts from its own clock (get_time_ref_counter() of arch/x86/kvm/hyperv.c). */
static uint64_t reference_time(struct hv_partition *partition)
{
	struct kvm_clock_data clock = { 0 };

	ioctl(partition->vm->fd, KVM_GET_CLOCK, &clock);
	return clock.clock / 100;
}

const struct hv_backend hv_backend_kvm = {
	.name = "kvm",
	.missing = missing,
	.init = init,
	.destroy = destroy,
	.add_vcpu = add_vcpu,
	.reset = reset,
	.deliver = deliver,
	.connect = connect_eventfd,
	.disconnect = disconnect_eventfd,
	.rdmsr = exit_rdmsr,
	.wrmsr = exit_wrmsr,
	.hyperv = exit_hyperv,
	.work = work,
	.reference_time = reference_time,
	.guest_os_id = guest_os_id,
};
