/* SPDX-License-Identifier: MIT */
/*
 * An exit for an MSR has a reason (Documentation/virt/kvm/api.rst, KVM_CAP_X86_USER_SPACE_MSR): a filter took the MSR
 * from KVM, which is how Hyper-V's come here, or KVM has none of that number. An MSR that KVM has and whose value it
 * refuses never gets here: no policy makes a wrong value right.
 */
#include "arch/x86/msr.h"

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "arch/x86/hyperv/hyperv.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/trace.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define TOLD_MAX 32 /* MSRs; a guest may walk through all there could be */

struct unknown_msrs {
	enum msr_policy policy;
	pthread_mutex_t lock; /* what is below */
	uint32_t told[TOLD_MAX];
	unsigned int nr_told;
	bool told_end;
};

int msr_enable_exits(struct vm *vm)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_X86_USER_SPACE_MSR };

	if (vm->config->hyperv)
		cap.args[0] |= KVM_MSR_EXIT_REASON_FILTER;
	if (vm->config->msr != MSR_HOST)
		cap.args[0] |= KVM_MSR_EXIT_REASON_UNKNOWN;
	return ioctl(vm->fd, KVM_ENABLE_CAP, &cap) < 0 ? -errno : 0;
}

int unknown_msrs_create(struct vm *vm)
{
	struct unknown_msrs *msrs;
	int ret = msr_enable_exits(vm);

	if (ret) {
		log_line("--msr: KVM_CAP_X86_USER_SPACE_MSR: %s", strerror(-ret));
		return ret;
	}
	msrs = calloc(1, sizeof(*msrs));
	if (!msrs) {
		log_line("--msr: %s", strerror(ENOMEM));
		return -ENOMEM;
	}
	msrs->policy = vm->config->msr;
	pthread_mutex_init(&msrs->lock, NULL);
	vm->unknown_msrs = msrs;
	return 0;
}

void unknown_msrs_free(struct unknown_msrs *msrs)
{
	if (!msrs)
		return;
	pthread_mutex_destroy(&msrs->lock);
	free(msrs);
}

/* Whether this MSR is new; *last if it is the first for which there is no room any more. */
static bool is_new(struct unknown_msrs *msrs, uint32_t index, bool *last)
{
	bool found = false, told_end;

	pthread_mutex_lock(&msrs->lock);
	for (unsigned int i = 0; i < msrs->nr_told && !found; i++)
		found = msrs->told[i] == index;
	told_end = msrs->told_end;
	*last = !found && msrs->nr_told == TOLD_MAX;
	if (*last)
		msrs->told_end = true;
	else if (!found)
		msrs->told[msrs->nr_told++] = index;
	pthread_mutex_unlock(&msrs->lock);
	return !found && !(*last && told_end);
}

static void tell(struct unknown_msrs *msrs, uint32_t index, const uint64_t *written)
{
	const char *name = msrs->policy == MSR_IGNORE ? "ignore" : "fault";
	bool last;

	if (!is_new(msrs, index, &last))
		return;
	if (last)
		log_line("--msr %s: the guest uses more than %d unknown MSRs; no more are told", name, TOLD_MAX);
	else if (written)
		log_line("--msr %s: the guest writes 0x%llx to MSR 0x%x, which is unknown: %s", name,
			 (unsigned long long)*written, index, msrs->policy == MSR_IGNORE ? "dropped" : "#GP");
	else
		log_line("--msr %s: the guest reads MSR 0x%x, which is unknown: %s", name, index,
			 msrs->policy == MSR_IGNORE ? "0" : "#GP");
}

/* Which of Hyper-V's there are CPUID says, and the policy is not about them. Some KVMs do not know them. */
static bool is_unknown(const struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;

	if (vcpu->vm->hyperv && run->msr.index - HV_MSR_FIRST < HV_MSR_COUNT)
		return false;
	return vcpu->vm->unknown_msrs && run->msr.reason & KVM_MSR_EXIT_REASON_UNKNOWN;
}

void msr_exit_read(struct vcpu *vcpu)
{
	struct unknown_msrs *msrs = vcpu->vm->unknown_msrs;
	struct kvm_run *run = vcpu->run;

	if (!is_unknown(vcpu)) {
		hv_exit_rdmsr(vcpu);
		return;
	}
	run->msr.data = 0;
	run->msr.error = msrs->policy == MSR_FAULT;
	tell(msrs, run->msr.index, NULL);
	TRACE(msr_unknown, "vcpu %u reads msr 0x%x", vcpu->index, run->msr.index);
}

void msr_exit_write(struct vcpu *vcpu)
{
	struct unknown_msrs *msrs = vcpu->vm->unknown_msrs;
	struct kvm_run *run = vcpu->run;
	uint64_t value = run->msr.data;

	if (!is_unknown(vcpu)) {
		hv_exit_wrmsr(vcpu);
		return;
	}
	run->msr.error = msrs->policy == MSR_FAULT;
	tell(msrs, run->msr.index, &value);
	TRACE(msr_unknown, "vcpu %u writes msr 0x%x value 0x%llx", vcpu->index, run->msr.index,
	      (unsigned long long)value);
}
