/* SPDX-License-Identifier: MIT */
/*
 * The backend that needs no Hyper-V in KVM.
 *
 * Theory of operation: a filter makes every access to the MSRs 0x40000000 to 0x400001ff an exit, so KVM's own
 * emulation, if it has one, never hears of them. But where it has one, the four that are about its own local APIC (EOI,
 * ICR, TPR, and the VP assist page, which saves EOIs) are let through, since nobody else can do them; they depend on
 * none of the others. Without one they are not offered, and the VP assist page is only remembered. The hypercall page
 * holds code that writes to two ports (page.c): one is an exit, the other is compared by KVM with the ioeventfds of the
 * event connections. Message and event pages are guest memory that we write; a SINT is an MSI to the local APIC of its
 * VP, sent by whichever thread has the message. So nothing here waits for a vCPU, and one that sleeps is woken by the
 * MSI.
 *
 * The pages are the guest's own RAM, not overlays (TLFS 5.2.1): what was there before is lost, and stays lost when the
 * guest disables the register.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "arch/x86/hyperv/internal.h"
#include "arch/x86/hyperv/page.h"
#include "arch/x86/hyperv/user.h"
#include "arch/x86/msr.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define SINT_AT_RESET HV_SINT_MASKED
#define FILTER_BITMAP (HV_MSR_COUNT / 8)

static const char *missing(const struct vm *vm)
{
	static const struct {
		unsigned long cap;
		const char *name;
	} needed[] = {
		{ KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR" },
		{ KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER" },
		{ KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI" },
		{ KVM_CAP_SYNC_REGS, "KVM_CAP_SYNC_REGS" },
	};

	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		if (ioctl(vm->fd, KVM_CHECK_EXTENSION, needed[i].cap) <= 0)
			return needed[i].name;
	return NULL;
}

/* Whether KVM has Hyper-V's registers of the local APIC, which is its own. */
static bool kvm_has_apic(const struct vm *vm)
{
	struct kvm_cpuid2 *leaves = NULL;
	bool has = false;

	if (ioctl(vm->fd, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_SYS_HYPERV_CPUID) > 0)
		leaves = hv_kvm_leaves(vm);
	for (uint32_t i = 0; leaves && i < leaves->nent; i++)
		if (leaves->entries[i].function == HV_CPUID_FEATURES)
			has = leaves->entries[i].eax & HV_ACCESS_APIC;
	free(leaves);
	return has;
}

/* Documentation/virt/kvm/api.rst, KVM_X86_SET_MSR_FILTER: a clear bit denies, and a denied access is an exit. */
static int filter_msrs(struct vm *vm, bool apic)
{
	uint8_t allowed[FILTER_BITMAP] = { 0 };
	struct kvm_msr_filter filter = {
		.flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
		.ranges[0] = { .flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
			       .nmsrs = HV_MSR_COUNT,
			       .base = HV_MSR_FIRST,
			       .bitmap = allowed },
	};
	int ret = msr_enable_exits(vm);

	for (uint32_t i = HV_MSR_EOI - HV_MSR_FIRST; apic && i <= HV_MSR_VP_ASSIST_PAGE - HV_MSR_FIRST; i++)
		allowed[i / 8] |= (uint8_t)(1u << i % 8);
	if (!ret && ioctl(vm->fd, KVM_X86_SET_MSR_FILTER, &filter) < 0)
		ret = -errno;
	return ret;
}

/* The regions are there to be named and to keep others off; hv_exit_io() comes before the bus. */
static int claim_ports(struct hv_partition *partition)
{
	static const struct io_ops none;
	struct region *hypercall = &partition->hypercall_region, *signal = &partition->signal_region;
	int ret;

	*hypercall = (struct region){ .name = "hypercall", .base = HV_PORT_HYPERCALL, .length = 1, .ops = &none };
	*signal = (struct region){ .name = "signal-event", .base = HV_PORT_SIGNAL, .length = 4, .ops = &none };
	ret = bus_add(&partition->vm->pio, hypercall);
	return ret ? ret : bus_add(&partition->vm->pio, signal);
}

/* A firmware's guest may be Windows, which has no better timer; Linux, entered directly, has one that costs no exit. */
static bool offers_timers(const struct hv_partition *partition)
{
	const struct config *config = partition->vm->config;

	return config->hv_timers == HV_TIMERS_AUTO ? config->firmware != NULL : config->hv_timers == HV_TIMERS_ON;
}

static int init(struct hv_partition *partition)
{
	int ret;

	partition->kvm_has_apic = kvm_has_apic(partition->vm);
	ret = filter_msrs(partition->vm, partition->kvm_has_apic);
	if (!ret)
		ret = claim_ports(partition);
	if (!ret && offers_timers(partition))
		ret = hv_user_create_timers(partition);
	if (ret)
		log_line("--hyperv synic=user: %s", strerror(-ret));
	return ret;
}

static void destroy(struct hv_partition *partition)
{
	hv_user_destroy_timers(partition); /* the regions end with the bus, and all else with the VM */
}

static void reset_vp(struct hv_vp *vp)
{
	vp->scontrol = vp->simp = vp->siefp = vp->vp_assist = 0;
	vp->message_page = NULL;
	vp->event_page = NULL;
	for (unsigned int i = 0; i < HV_SINTS; i++)
		vp->sint[i] = SINT_AT_RESET;
	if (vp->partition->features.msrs & HV_ACCESS_STIMER && vp->vcpu)
		hv_user_reset_timers(vp);
}

/* docs/hyperv.md has the reason for each bit, and for those that are missing. */
static void set_features(struct hv_partition *partition)
{
	struct hv_features *f = &partition->features;

	f->msrs = HV_ACCESS_VP_RUNTIME | HV_ACCESS_TIME_REF_COUNT | HV_ACCESS_SYNIC | HV_ACCESS_HYPERCALL |
		  HV_ACCESS_VP_INDEX | HV_ACCESS_RESET;
	f->hypercalls = HV_POST_MESSAGES | HV_SIGNAL_EVENTS;
	f->features = HV_FEATURE_CRASH_MSRS;
	f->hints = HV_HINT_RELAXED_TIMING | HV_HINT_DEPRECATE_AUTO_EOI;
	if (partition->kvm_has_apic)
		f->msrs |= HV_ACCESS_APIC;
	if (hv_tsc_scale(partition->tsc_hz)) {
		f->msrs |= HV_ACCESS_REFERENCE_TSC | HV_ACCESS_FREQUENCIES;
		f->features |= HV_FEATURE_FREQUENCIES;
	}
	if (offers_timers(partition)) {
		f->msrs |= HV_ACCESS_STIMER;
		f->features |= HV_FEATURE_DIRECT_STIMER;
	}
}

static int add_vcpu(struct hv_vp *vp)
{
	int ret = 0;

	set_features(vp->partition);
	if (offers_timers(vp->partition))
		ret = hv_user_add_timers(vp);
	if (ret)
		return ret;
	pthread_mutex_lock(&vp->lock);
	reset_vp(vp);
	pthread_mutex_unlock(&vp->lock);
	/* Hypercalls find their parameters in kvm_run, without a system call. */
	vp->vcpu->run->kvm_valid_regs |= KVM_SYNC_X86_REGS;
	return 0;
}

/* Of the registers that are KVM's the others are its local APIC's, which x86_reset() sees to. */
static int reset_vp_assist(const struct hv_vp *vp)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msr = { .head.nmsrs = 1, .entry.index = HV_MSR_VP_ASSIST_PAGE };

	if (ioctl(vp->vcpu->fd, KVM_SET_MSRS, &msr) == 1)
		return 0;
	log_line("reset: KVM refuses to disable the VP assist page");
	return -EIO;
}

static int reset(struct hv_partition *partition)
{
	int ret = 0;

	for (unsigned int i = 0; i < partition->nr_vps && !ret; i++) {
		struct hv_vp *vp = &partition->vps[i];

		pthread_mutex_lock(&vp->lock);
		reset_vp(vp);
		pthread_mutex_unlock(&vp->lock);
		if (partition->kvm_has_apic && vp->vcpu)
			ret = reset_vp_assist(vp);
	}
	pthread_mutex_lock(&partition->lock);
	partition->guest_os_id = partition->hypercall = partition->reference_tsc = 0;
	memset(partition->crash, 0, sizeof(partition->crash));
	pthread_mutex_unlock(&partition->lock);
	return ret;
}

static bool deliver(struct hv_vp *vp, unsigned int sint)
{
	bool room = false;

	if (hv_vp_deliver(vp, sint, &room))
		hv_vp_interrupt(vp, sint);
	return room;
}

static bool deliver_all(struct hv_vp *vp)
{
	bool room = false;

	for (unsigned int sint = 0; sint < HV_SINTS; sint++)
		if (vp->queue[sint].count)
			room |= deliver(vp, sint);
	return room;
}

static int ioeventfd(struct hv_partition *partition, uint32_t connection, int eventfd, uint32_t flags)
{
	struct kvm_ioeventfd arg = {
		.datamatch = connection,
		.addr = HV_PORT_SIGNAL,
		.len = 4,
		.fd = eventfd,
		.flags = KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DATAMATCH | flags,
	};

	return ioctl(partition->vm->fd, KVM_IOEVENTFD, &arg) < 0 ? -errno : 0;
}

static int connect_port(struct hv_partition *partition, uint32_t connection, int eventfd)
{
	return ioeventfd(partition, connection, eventfd, 0);
}

static void disconnect_port(struct hv_partition *partition, uint32_t connection, int eventfd)
{
	ioeventfd(partition, connection, eventfd, KVM_IOEVENTFD_FLAG_DEASSIGN);
}

/*
 * Makes value the register of a page: *page is what it names, or NULL when disabled. A page that begins to be used is
 * zeroed, as a fresh overlay would be: a type other than 0 that was left in a slot would keep messages out for ever.
 * False: no such RAM.
 */
static bool enable_page(struct hv_vp *vp, uint64_t value, const void *before, void **page)
{
	*page = value & HV_MSR_ENABLE ? hv_page(vp->partition, value) : NULL;
	if (*page && *page != before)
		memset(*page, 0, HV_PAGE);
	return *page || !(value & HV_MSR_ENABLE);
}

static bool set_simp(struct hv_vp *vp, uint64_t value)
{
	void *page;

	if (!enable_page(vp, value, vp->message_page, &page))
		return false;
	vp->simp = value;
	vp->message_page = page;
	return true;
}

static bool set_siefp(struct hv_vp *vp, uint64_t value)
{
	void *page;

	if (!enable_page(vp, value, vp->event_page, &page))
		return false;
	vp->siefp = value;
	vp->event_page = page;
	return true;
}

/*
 * The in-kernel local APIC cannot end an interrupt by itself. A guest that asks for it against the advice in CPUID
 * gets its messages and interrupts all the same, and nothing is amiss while it only polls, or ends them after all.
 */
static void tell_auto_eoi(struct hv_partition *partition, unsigned int sint)
{
	bool told;

	pthread_mutex_lock(&partition->lock);
	told = partition->told_auto_eoi;
	partition->told_auto_eoi = true;
	pthread_mutex_unlock(&partition->lock);
	if (!told)
		log_line("hyperv: the guest asks for automatic end of interrupt on SINT %u, which synic=user does not "
			 "have: it must end interrupts itself",
			 sint);
}

static bool set_sint(struct hv_vp *vp, unsigned int sint, uint64_t value)
{
	if (!(value & (HV_SINT_MASKED | HV_SINT_POLLING)) && (value & HV_SINT_VECTOR) < HV_SINT_VECTOR_LOWEST)
		return false;
	vp->sint[sint] = value;
	return true;
}

bool hv_user_write_synic(struct hv_vp *vp, uint32_t index, uint64_t value)
{
	bool ok = true, room = false;

	pthread_mutex_lock(&vp->lock);
	if (index >= HV_MSR_SINT0)
		ok = set_sint(vp, index - HV_MSR_SINT0, value);
	else if (index == HV_MSR_SCONTROL)
		vp->scontrol = value;
	else if (index == HV_MSR_SIMP)
		ok = set_simp(vp, value);
	else if (index == HV_MSR_SIEFP)
		ok = set_siefp(vp, value);
	else if (index == HV_MSR_VP_ASSIST_PAGE)
		vp->vp_assist = value; /* Linux writes it whatever CPUID says. Nothing is ever told in that page. */
	/* HV_MSR_EOM: nothing to keep. Each of these may have made way for a message. */
	if (ok)
		room = deliver_all(vp);
	pthread_mutex_unlock(&vp->lock);
	if (room)
		hv_room(vp->partition);
	if (ok && index >= HV_MSR_SINT0 && (value & (HV_SINT_AUTO_EOI | HV_SINT_MASKED)) == HV_SINT_AUTO_EOI)
		tell_auto_eoi(vp->partition, index - HV_MSR_SINT0);
	return ok;
}

void hv_user_read_synic(struct hv_vp *vp, uint32_t index, uint64_t *value)
{
	pthread_mutex_lock(&vp->lock);
	if (index >= HV_MSR_SINT0)
		*value = vp->sint[index - HV_MSR_SINT0];
	else
		*value = index == HV_MSR_SCONTROL	  ? vp->scontrol
			 : index == HV_MSR_SIEFP	  ? vp->siefp
			 : index == HV_MSR_SIMP		  ? vp->simp
			 : index == HV_MSR_VP_ASSIST_PAGE ? vp->vp_assist
							  : 0; /* HV_MSR_EOM */
	pthread_mutex_unlock(&vp->lock);
}

static uint64_t guest_os_id(struct hv_vp *vp)
{
	uint64_t id;

	pthread_mutex_lock(&vp->partition->lock);
	id = vp->partition->guest_os_id;
	pthread_mutex_unlock(&vp->partition->lock);
	return id;
}

const struct hv_backend hv_backend_user = {
	.name = "user",
	.missing = missing,
	.init = init,
	.destroy = destroy,
	.add_vcpu = add_vcpu,
	.reset = reset,
	.deliver = deliver,
	.connect = connect_port,
	.disconnect = disconnect_port,
	.io = hv_user_io,
	.rdmsr = hv_user_rdmsr,
	.wrmsr = hv_user_wrmsr,
	.guest_os_id = guest_os_id,
};
