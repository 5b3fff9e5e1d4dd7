/* SPDX-License-Identifier: MIT */
/*
 * Machine reset. The state after power-on is not written down here: a second, empty VM with one vCPU of the same
 * APIC id and CPUID is created for a moment, its state is read, and that is what our vCPU gets. Whatever KVM adds
 * to a vCPU's state is then reset too.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "arch/x86/hyperv/tlfs.h"
#include "arch/x86/x86.h"
#include "vmm/log.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define MSR_IA32_TSC	    0x10
#define MSR_IA32_TSC_ADJUST 0x3b
#define XSAVE_SIZE_UNKNOWN  4096

static int fail(const char *what)
{
	int ret = -errno;

	log_line("reset: %s: %s", what, strerror(-ret));
	return ret;
}

static int copy_state(int to, int from, unsigned long get, unsigned long set, void *buffer, const char *what)
{
	if (ioctl(from, get, buffer) < 0 || ioctl(to, set, buffer) < 0)
		return fail(what);
	return 0;
}

/* The time-stamp counter goes on: KVM keeps those of all vCPUs together only while nobody writes them. */
static bool is_clock(uint32_t msr)
{
	return msr == MSR_IA32_TSC || msr == MSR_IA32_TSC_ADJUST;
}

/* hv_reset() sees to these; one of them, in a model that has no partition, would even be a wrong example. */
static bool is_hyperv(uint32_t msr)
{
	return msr >= HV_MSR_FIRST && msr < HV_MSR_FIRST + HV_MSR_COUNT;
}

static int copy_msrs(struct vm *vm, int to, int from)
{
	struct kvm_msr_list probe = { 0 }, *list;
	struct kvm_msrs *one = calloc(1, sizeof(*one) + sizeof(one->entries[0]));

	ioctl(vm->kvm_fd, KVM_GET_MSR_INDEX_LIST, &probe); /* fails with E2BIG and tells how many */
	list = calloc(1, sizeof(*list) + probe.nmsrs * sizeof(list->indices[0]));
	if (!list || !one) {
		free(list);
		free(one);
		return -ENOMEM;
	}
	list->nmsrs = probe.nmsrs;
	if (ioctl(vm->kvm_fd, KVM_GET_MSR_INDEX_LIST, list) < 0)
		list->nmsrs = 0;
	/* One by one: the list names MSRs that this vCPU's CPUID does not have, and those refuse. */
	for (uint32_t i = 0; i < list->nmsrs; i++) {
		one->nmsrs = 1;
		one->entries[0].index = list->indices[i];
		if (!is_clock(list->indices[i]) && !is_hyperv(list->indices[i]) && ioctl(from, KVM_GET_MSRS, one) == 1)
			ioctl(to, KVM_SET_MSRS, one);
	}
	free(list);
	free(one);
	return 0;
}

static int copy_xsave(struct vm *vm, int to, int from)
{
	int size = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
	void *area = calloc(1, size > XSAVE_SIZE_UNKNOWN ? (size_t)size : XSAVE_SIZE_UNKNOWN);
	int ret;

	if (!area)
		return -ENOMEM;
	ret = copy_state(to, from, size > 0 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, KVM_SET_XSAVE, area, "FPU state");
	free(area);
	return ret;
}

static int copy_vcpu(struct vm *vm, int to, int from)
{
	struct kvm_mp_state mp;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct kvm_debugregs debug;
	struct kvm_xcrs xcrs;
	int ret;

	/* SREGS first: the LAPIC's base and mode decide how its state is read; MSRs after it for the TSC deadline. */
	ret = copy_state(to, from, KVM_GET_SREGS, KVM_SET_SREGS, &sregs, "system registers");
	if (!ret)
		ret = copy_state(to, from, KVM_GET_REGS, KVM_SET_REGS, &regs, "registers");
	if (!ret)
		ret = copy_state(to, from, KVM_GET_LAPIC, KVM_SET_LAPIC, &lapic, "LAPIC");
	if (!ret)
		ret = copy_msrs(vm, to, from);
	if (!ret)
		ret = copy_xsave(vm, to, from);
	if (!ret)
		ret = copy_state(to, from, KVM_GET_XCRS, KVM_SET_XCRS, &xcrs, "XCRs");
	if (!ret)
		ret = copy_state(to, from, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, &debug, "debug registers");
	if (!ret)
		ret = copy_state(to, from, KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, &events, "pending events");
	if (!ret)
		ret = copy_state(to, from, KVM_GET_MP_STATE, KVM_SET_MP_STATE, &mp, "MP state");
	return ret;
}

/* vCPU 0 is born as the boot processor, the others wait for an INIT: so does the model, created in the same order. */
static int reset_vcpu(struct vcpu *vcpu, int model, const struct kvm_cpuid2 *supported)
{
	struct vcpu fresh = { .vm = vcpu->vm, .index = vcpu->index, .apic_id = vcpu->apic_id };
	int ret;

	fresh.fd = ioctl(model, KVM_CREATE_VCPU, (unsigned long)vcpu->apic_id);
	if (fresh.fd < 0)
		return fail("KVM_CREATE_VCPU");
	ret = x86_set_cpuid(&fresh, supported);
	if (!ret)
		ret = copy_vcpu(vcpu->vm, vcpu->fd, fresh.fd);
	close(fresh.fd);
	return ret;
}

int x86_reset(struct vm *vm, const struct kvm_cpuid2 *supported)
{
	int model, ret;

	/* A completion of the loop's io_uring counts as a signal inside the kernel, and creating a VM gives way to
	 * those. */
	do
		model = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0UL);
	while (model < 0 && errno == EINTR);
	if (model < 0)
		return fail("KVM_CREATE_VM");
	ret = irqs_enable_apics(model);
	if (ret)
		log_line("reset: KVM_CAP_SPLIT_IRQCHIP: %s", strerror(-ret));
	for (unsigned int i = 0; i < vm->nr_vcpus && !ret; i++)
		ret = reset_vcpu(&vm->vcpus[i], model, supported);
	close(model);
	return ret;
}
