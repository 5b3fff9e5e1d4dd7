/* SPDX-License-Identifier: MIT */
/* The partition's registers with the user backend: identity, hypercall page, time, crash. */
#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <x86intrin.h>

#include "arch/x86/hyperv/internal.h"
#include "arch/x86/hyperv/page.h"
#include "arch/x86/hyperv/user.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define APIC_HZ	     1000000000ull /* KVM's local APIC counts nanoseconds */
#define MSR_IA32_TSC 0x10
#define CRASH_CAN    (HV_CRASH_NOTIFY | HV_CRASH_MESSAGE)
#define NS_PER_TICK  (1000000000ull / HV_TIME_HZ)

static bool has(const struct hv_partition *partition, uint32_t access)
{
	return partition->features.msrs & access;
}

static uint64_t guest_tsc(const struct hv_vp *vp)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msr = { .head.nmsrs = 1, .entry.index = MSR_IA32_TSC };

	return ioctl(vp->vcpu->fd, KVM_GET_MSRS, &msr) == 1 ? msr.entry.data : 0;
}

/* KVM says that its TSCs are synchronised and constant when it would base its own clock on them. */
static bool tsc_is_stable(const struct vm *vm)
{
	struct kvm_clock_data clock = { 0 };

	return ioctl(vm->fd, KVM_GET_CLOCK, &clock) == 0 && clock.flags & KVM_CLOCK_TSC_STABLE;
}

static bool write_reference_tsc(struct hv_vp *vp, uint64_t value)
{
	struct hv_partition *partition = vp->partition;
	struct hv_reference_tsc *page = NULL;
	uint64_t before, guest;

	if (value & HV_MSR_ENABLE) {
		page = hv_page(partition, value);
		if (!page)
			return false;
		if (!hv_clock_follows_tsc(&partition->clock) && tsc_is_stable(partition->vm)) {
			before = __rdtsc();
			guest = guest_tsc(vp);
			hv_clock_follow_tsc(&partition->clock, partition->tsc_hz, guest,
					    before + (__rdtsc() - before) / 2);
		}
		hv_clock_fill_page(&partition->clock, page);
	}
	pthread_mutex_lock(&partition->lock);
	partition->reference_tsc = value;
	pthread_mutex_unlock(&partition->lock);
	return true;
}

static bool write_hypercall(struct hv_vp *vp, uint64_t value)
{
	struct hv_partition *partition = vp->partition;
	uint8_t *page = hv_page(partition, value);
	struct kvm_sregs sregs;
	bool ok = true;

	if (ioctl(vp->vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
		return false;
	pthread_mutex_lock(&partition->lock);
	/* TLFS 3.13: not before the guest has told its identity, and not any more once locked. */
	if (partition->hypercall & HV_CALL_LOCKED)
		ok = true;
	else if (!(value & HV_MSR_ENABLE) || !partition->guest_os_id)
		partition->hypercall = value & ~HV_MSR_ENABLE;
	else if (!page)
		ok = false;
	else {
		hv_fill_hypercall_page(page, hv_user_in_long_mode(&sregs));
		partition->hypercall = value;
	}
	pthread_mutex_unlock(&partition->lock);
	return ok;
}

static void write_guest_os_id(struct hv_partition *partition, uint64_t value)
{
	pthread_mutex_lock(&partition->lock);
	partition->guest_os_id = value;
	if (!value)
		partition->hypercall &= ~HV_MSR_ENABLE;
	pthread_mutex_unlock(&partition->lock);
}

static bool write_crash(struct hv_vp *vp, uint32_t index, uint64_t value)
{
	struct hv_partition *partition = vp->partition;
	uint64_t parameters[HV_CRASH_PARAMETERS];

	pthread_mutex_lock(&partition->lock);
	if (index < HV_CRASH_PARAMETERS)
		partition->crash[index] = value;
	memcpy(parameters, partition->crash, sizeof(parameters));
	pthread_mutex_unlock(&partition->lock);
	if (index == HV_CRASH_PARAMETERS && value & HV_CRASH_NOTIFY)
		hv_crashed(vp, parameters, value & HV_CRASH_MESSAGE);
	return true;
}

static bool write_msr(struct hv_vp *vp, uint32_t index, uint64_t value)
{
	struct hv_partition *partition = vp->partition;

	switch (index) {
	case HV_MSR_GUEST_OS_ID:
		write_guest_os_id(partition, value);
		return true;
	case HV_MSR_HYPERCALL:
		return write_hypercall(vp, value);
	case HV_MSR_RESET:
		if (value & 1)
			vm_reset(partition->vm);
		return true;
	case HV_MSR_REFERENCE_TSC:
		return has(partition, HV_ACCESS_REFERENCE_TSC) && write_reference_tsc(vp, value);
	case HV_MSR_VP_ASSIST_PAGE:
	case HV_MSR_SCONTROL:
	case HV_MSR_SIEFP ... HV_MSR_EOM:
	case HV_MSR_SINT0 ... HV_MSR_SINT0 + HV_SINTS - 1:
		return hv_user_write_synic(vp, index, value);
	case HV_MSR_STIMER0_CONFIG ... HV_MSR_STIMER0_CONFIG + 2 * HV_STIMERS - 1:
		return has(partition, HV_ACCESS_STIMER) && hv_user_write_timer(vp, index, value);
	case HV_MSR_CRASH_P0 ... HV_MSR_CRASH_CTL:
		return write_crash(vp, index - HV_MSR_CRASH_P0, value);
	default:
		return false;
	}
}

static uint64_t vp_runtime(void)
{
	struct timespec ran;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ran);
	return (uint64_t)ran.tv_sec * HV_TIME_HZ + (uint64_t)ran.tv_nsec / NS_PER_TICK;
}

static uint64_t time_ref_count(const struct hv_vp *vp)
{
	struct hv_clock *clock = &vp->partition->clock;

	return hv_clock_follows_tsc(clock) ? hv_clock_read_at(clock, guest_tsc(vp)) : hv_clock_read(clock);
}

static bool read_partition(struct hv_partition *partition, const uint64_t *msr, uint64_t *value)
{
	pthread_mutex_lock(&partition->lock);
	*value = *msr;
	pthread_mutex_unlock(&partition->lock);
	return true;
}

/* The registers that hold no state. */
static bool read_fixed(struct hv_vp *vp, uint32_t index, uint64_t *value)
{
	const struct hv_partition *partition = vp->partition;

	switch (index) {
	case HV_MSR_VP_INDEX:
		*value = vp->vcpu->index;
		return true;
	case HV_MSR_RESET:
		*value = 0;
		return true;
	case HV_MSR_VP_RUNTIME:
		*value = vp_runtime();
		return true;
	case HV_MSR_TIME_REF_COUNT:
		*value = time_ref_count(vp);
		return true;
	case HV_MSR_TSC_FREQUENCY:
		*value = partition->tsc_hz;
		return has(partition, HV_ACCESS_FREQUENCIES);
	case HV_MSR_APIC_FREQUENCY:
		*value = APIC_HZ;
		return has(partition, HV_ACCESS_FREQUENCIES);
	case HV_MSR_SVERSION:
		*value = HV_SYNIC_VERSION;
		return true;
	case HV_MSR_CRASH_CTL:
		*value = CRASH_CAN;
		return true;
	default:
		return false;
	}
}

static bool read_msr(struct hv_vp *vp, uint32_t index, uint64_t *value)
{
	struct hv_partition *partition = vp->partition;

	switch (index) {
	case HV_MSR_GUEST_OS_ID:
		return read_partition(partition, &partition->guest_os_id, value);
	case HV_MSR_HYPERCALL:
		return read_partition(partition, &partition->hypercall, value);
	case HV_MSR_REFERENCE_TSC:
		return has(partition, HV_ACCESS_REFERENCE_TSC) &&
		       read_partition(partition, &partition->reference_tsc, value);
	case HV_MSR_CRASH_P0 ... HV_MSR_CRASH_CTL - 1:
		return read_partition(partition, &partition->crash[index - HV_MSR_CRASH_P0], value);
	case HV_MSR_VP_ASSIST_PAGE:
	case HV_MSR_SCONTROL:
	case HV_MSR_SIEFP ... HV_MSR_EOM:
	case HV_MSR_SINT0 ... HV_MSR_SINT0 + HV_SINTS - 1:
		hv_user_read_synic(vp, index, value);
		return true;
	case HV_MSR_STIMER0_CONFIG ... HV_MSR_STIMER0_CONFIG + 2 * HV_STIMERS - 1:
		if (!has(partition, HV_ACCESS_STIMER))
			return false;
		hv_user_read_timer(vp, index, value);
		return true;
	default:
		return read_fixed(vp, index, value);
	}
}

/* Documentation/virt/kvm/api.rst, KVM_EXIT_X86_RDMSR: error 1 is a #GP in the guest. */
void hv_user_rdmsr(struct hv_vp *vp)
{
	struct kvm_run *run = vp->vcpu->run;
	uint64_t value = 0;

	run->msr.error = !read_msr(vp, run->msr.index, &value);
	run->msr.data = value;
}

void hv_user_wrmsr(struct hv_vp *vp)
{
	struct kvm_run *run = vp->vcpu->run;

	run->msr.error = !write_msr(vp, run->msr.index, run->msr.data);
}
