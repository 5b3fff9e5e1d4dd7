/* SPDX-License-Identifier: MIT */
/* The CPUID leaves by which a guest finds Hyper-V (TLFS 2.4). */
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "arch/x86/hyperv/internal.h"
#include "vmm/vm.h"

#define LEAVES_FIRST 0x40000000u
#define LEAVES_LAST  0x4000ffffu
#define KVM_LEAVES   32 /* more than any KVM has */

/* Windows Server 2016, whose interface this is about: 10.0, build 14393. Linux prints it. */
#define VERSION_BUILD 14393
#define VERSION_MAJOR 10

struct kvm_cpuid2 *hv_kvm_leaves(const struct vm *vm)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + KVM_LEAVES * sizeof(cpuid->entries[0]));
	int error;

	if (!cpuid)
		return NULL;
	cpuid->nent = KVM_LEAVES;
	if (ioctl(vm->kvm_fd, KVM_GET_SUPPORTED_HV_CPUID, cpuid) == 0)
		return cpuid;
	error = errno;
	free(cpuid);
	errno = error;
	return NULL;
}

static void add(struct kvm_cpuid2 *cpuid, unsigned int max, const struct kvm_cpuid_entry2 *entry)
{
	if (cpuid->nent < max)
		cpuid->entries[cpuid->nent++] = *entry;
}

/*
 * KVM's own leaves go: a guest that finds both takes KVM (Linux arch/x86/kernel/cpu/hypervisor.c chooses the highest
 * base) and then does without VMBus.
 */
static void remove_hypervisor_leaves(struct kvm_cpuid2 *cpuid)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function < LEAVES_FIRST || cpuid->entries[i].function > LEAVES_LAST)
			cpuid->entries[kept++] = cpuid->entries[i];
	cpuid->nent = kept;
}

void hv_set_cpuid(const struct hv_partition *partition, struct kvm_cpuid2 *cpuid, unsigned int max)
{
	const struct hv_features *f = &partition->features;
	const struct kvm_cpuid_entry2 leaves[] = {
		{ .function = HV_CPUID_VENDOR,
		  .eax = HV_CPUID_MAX,
		  .ebx = HV_VENDOR_EBX,
		  .ecx = HV_VENDOR_ECX,
		  .edx = HV_VENDOR_EDX },
		{ .function = HV_CPUID_ID, .eax = HV_INTERFACE_ID },
		{ .function = HV_CPUID_VERSION, .eax = VERSION_BUILD, .ebx = VERSION_MAJOR << 16 },
		{ .function = HV_CPUID_FEATURES, .eax = f->msrs, .ebx = f->hypercalls, .edx = f->features },
		{ .function = HV_CPUID_HINTS, .eax = f->hints, .ebx = HV_SPIN_NEVER_NOTIFY },
		{ .function = HV_CPUID_LIMITS, .eax = partition->nr_vps, .ebx = partition->nr_vps },
		{ .function = HV_CPUID_HARDWARE },
	};

	remove_hypervisor_leaves(cpuid);
	for (unsigned int i = 0; i < sizeof(leaves) / sizeof(leaves[0]); i++)
		add(cpuid, max, &leaves[i]);
}
