/* SPDX-License-Identifier: MIT */
/*
 * CPUID: what KVM supports on this host, with the machine's own topology: one package, one thread a core, APIC ids
 * counted from 0. Leaf numbers and fields: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.
 */
#include <cpuid.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "arch/x86/hyperv/hyperv.h"
#include "arch/x86/x86.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define MAX_ENTRIES 256

enum { CACHE_DATA_OR_UNIFIED_LEVEL3 = 3 };

/*
 * AMD's first-level caches. KVM before Linux 6.2 reports the leaf as zeroes, and a guest on a CPU without leaf
 * 0x8000001d then knows of no cache at all.
 */
static void add_l1_caches(struct kvm_cpuid2 *cpuid)
{
	for (uint32_t i = 0; i < cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		if (e->function == 0x80000005 && !(e->eax | e->ebx | e->ecx | e->edx))
			__get_cpuid(e->function, &e->eax, &e->ebx, &e->ecx, &e->edx);
	}
}

/*
 * OVMF puts 64-bit BARs into the top eighth of the guest's physical addresses, and believes a small number of bits only
 * if it is what CPUs of that vendor have. Windows, it is said, does better with few. RAM needs its half.
 */
static void limit_address_bits(const struct vm *vm, struct kvm_cpuid2 *cpuid)
{
	const unsigned int bits = x86_host_is_amd() ? 40 : 39;

	for (uint32_t i = 0; i < cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		if (e->function == 0x80000008 && (e->eax & 0xff) > bits && vm->config->memory <= 1ULL << (bits - 1))
			e->eax = (e->eax & ~0xffu) | bits;
	}
}

struct kvm_cpuid2 *x86_read_cpuid(struct vm *vm)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + MAX_ENTRIES * sizeof(cpuid->entries[0]));

	if (!cpuid) {
		log_line("CPUID: %s", strerror(ENOMEM));
		return NULL;
	}
	cpuid->nent = MAX_ENTRIES;
	if (ioctl(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0) {
		log_line("/dev/kvm: KVM_GET_SUPPORTED_CPUID: %s", strerror(errno));
		free(cpuid);
		return NULL;
	}
	add_l1_caches(cpuid);
	if (vm->config->firmware)
		limit_address_bits(vm, cpuid);
	return cpuid;
}

bool x86_host_is_amd(void)
{
	unsigned int max, b, c, d;
	char vendor[13] = "";

	if (!__get_cpuid(0, &max, &b, &c, &d))
		return false;
	memcpy(vendor, &b, 4);
	memcpy(vendor + 4, &d, 4);
	memcpy(vendor + 8, &c, 4);
	return !strcmp(vendor, "AuthenticAMD") || !strcmp(vendor, "HygonGenuine");
}

unsigned int x86_address_bits(const struct kvm_cpuid2 *supported)
{
	for (uint32_t i = 0; i < supported->nent; i++)
		if (supported->entries[i].function == 0x80000008 && (supported->entries[i].eax & 0xff) >= 36)
			return supported->entries[i].eax & 0xff;
	return 36;
}

/* Bits of an APIC id that number the cores of a package. */
static unsigned int core_bits(unsigned int cpus)
{
	unsigned int bits = 0;

	while (1u << bits < cpus)
		bits++;
	return bits;
}

/* Leaf 1 numbers the APIC ids of a package in 8 bits. */
static uint32_t logical_count(unsigned int cpus)
{
	uint32_t count = 1u << core_bits(cpus);

	return count > 255 ? 255 : count;
}

static void set_bit(uint32_t *reg, unsigned int bit, bool on)
{
	*reg = (*reg & ~(1u << bit)) | (uint32_t)on << bit;
}

/* Leaves 4 (Intel) and 0x8000001d (AMD): levels 1 and 2 belong to one core, level 3 to all. */
static void fix_cache(struct kvm_cpuid_entry2 *e, unsigned int cpus, bool intel)
{
	unsigned int level = e->eax >> 5 & 7;
	uint32_t sharing = level >= CACHE_DATA_OR_UNIFIED_LEVEL3 ? (1u << core_bits(cpus)) - 1 : 0;

	if (!(e->eax & 0x1f))
		return;
	e->eax = (e->eax & ~(0xfffu << 14)) | sharing << 14;
	if (intel)
		e->eax = (e->eax & 0x03ffffff) | (((1u << core_bits(cpus)) - 1) & 0x3f) << 26;
}

/* Leaves 0xb and 0x1f: level 0 is the thread (one a core), level 1 the core. */
static void fix_extended_topology(struct kvm_cpuid_entry2 *e, unsigned int cpus, uint32_t apic_id)
{
	e->edx = apic_id;
	e->ecx = e->index;
	e->eax = 0;
	e->ebx = 0;
	if (e->index == 0) {
		e->ebx = 1;
		e->ecx |= 1 << 8;
	} else if (e->index == 1) {
		e->eax = core_bits(cpus);
		e->ebx = cpus;
		e->ecx |= 2 << 8;
	}
}

static void fix_entry(struct kvm_cpuid_entry2 *e, unsigned int cpus, uint32_t apic_id)
{
	switch (e->function) {
	case 0x1:
		e->ebx = (e->ebx & 0xffff) | logical_count(cpus) << 16 | apic_id << 24;
		set_bit(&e->ecx, 31, true); /* hypervisor present */
		set_bit(&e->ecx, 24, true); /* TSC deadline timer: KVM's LAPIC has it */
		set_bit(&e->edx, 28, cpus > 1);
		break;
	case 0x4:
		fix_cache(e, cpus, true);
		break;
	case 0xb:
	case 0x1f:
		fix_extended_topology(e, cpus, apic_id);
		break;
	case 0x80000001:
		set_bit(&e->ecx, 1, cpus > 1); /* CmpLegacy: the logical processors of leaf 1 are cores */
		break;
	case 0x80000008:
		e->ecx = (e->ecx & ~0xf0ffu) | core_bits(cpus) << 12 | (cpus - 1);
		break;
	case 0x8000001d:
		fix_cache(e, cpus, false);
		break;
	case 0x8000001e:
		e->eax = apic_id;
		e->ebx = apic_id & 0xff; /* core id; one thread a core */
		e->ecx = 0;		 /* one node */
		break;
	}
}

static struct kvm_cpuid_entry2 *find(struct kvm_cpuid2 *cpuid, uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
			return &cpuid->entries[i];
	return NULL;
}

/*
 * KVM lists leaf 0xb with sub-leaf 0 only; a guest that finds no core level there takes every CPU for a package.
 * The machine always has x2APIC ids, so it always has the leaf.
 */
static void add_extended_topology(struct kvm_cpuid2 *cpuid)
{
	struct kvm_cpuid_entry2 *leaf0 = find(cpuid, 0, 0);

	for (uint32_t index = 0; index < 3; index++) {
		if (find(cpuid, 0xb, index) || cpuid->nent >= MAX_ENTRIES)
			continue;
		cpuid->entries[cpuid->nent++] = (struct kvm_cpuid_entry2){
			.function = 0xb,
			.index = index,
			.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
		};
	}
	if (leaf0 && leaf0->eax < 0xb)
		leaf0->eax = 0xb;
}

int x86_set_cpuid(struct vcpu *vcpu, const struct kvm_cpuid2 *supported)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + MAX_ENTRIES * sizeof(cpuid->entries[0]));
	int ret = 0;

	if (!cpuid)
		return -ENOMEM;
	memcpy(cpuid, supported, sizeof(*supported) + supported->nent * sizeof(supported->entries[0]));
	add_extended_topology(cpuid);
	if (vcpu->vm->hyperv)
		hv_set_cpuid(vcpu->vm->hyperv, cpuid, MAX_ENTRIES);
	for (uint32_t i = 0; i < cpuid->nent; i++)
		fix_entry(&cpuid->entries[i], vcpu->vm->config->cpus, vcpu->apic_id);
	if (ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid) < 0) {
		ret = -errno;
		log_line("vCPU %u: KVM_SET_CPUID2: %s", vcpu->index, strerror(-ret));
	}
	free(cpuid);
	return ret;
}
