/* SPDX-License-Identifier: MIT */
/* What only a PC knows: CPUID, initial registers, loading and describing the guest's kernel. */
#ifndef ARCH_X86_X86_H
#define ARCH_X86_X86_H

#include <stdbool.h>
#include <stdint.h>

struct kvm_cpuid2;
struct vcpu;
struct vm;
struct x86_boot;

/* Fixed addresses of the platform. RAM ends at 2 GiB at most and goes on at 4 GiB (vmm/memory.h). */
#define MMIO32_BASE	0x80000000ULL /* PCI window below 4 GiB, up to ECAM */
#define ECAM_BASE	0xe0000000ULL
#define ECAM_SIZE	0x00100000ULL /* one bus */
#define VMBUS_MMIO_BASE 0xf0000000ULL /* memory for devices on VMBus, behind where an ECAM of 256 buses would end */
#define VMBUS_MMIO_SIZE 0x08000000U
#define UART_MMIO_BASE	0xfe900000ULL
#define IOAPIC_BASE	0xfec00000ULL
#define TSS_BASE	0xfeffd000ULL /* three pages KVM needs on Intel, and one for its identity map */
#define IDENTITY_BASE	0xfeffc000ULL
#define MMIO64_SIZE	(64ULL << 30)

#define UART_MMIO_IRQ 4 /* COM1 is not there when the MMIO UART is */

/* How the boot processor enters the guest. */
struct x86_entry {
	uint64_t rip;
	uint64_t info; /* guest-physical: boot_params (64-bit entry, in rsi) or hvm_start_info (PVH, in ebx) */
	uint64_t cr3;  /* 64-bit entry: identity page tables */
	uint64_t gdt;  /* guest-physical */
	bool pvh;
};

/* KVM's supported CPUID, once a machine. NULL after printing the cause; free() it. */
struct kvm_cpuid2 *x86_read_cpuid(struct vm *vm);

/* Gives a vCPU its CPUID: what KVM supports, with this machine's topology. 0 or -errno after printing the cause. */
int x86_set_cpuid(struct vcpu *vcpu, const struct kvm_cpuid2 *supported);

/* AMD's SVM runs real mode by itself; every other vendor's KVM is VMX, which may need pages of its own for it. */
bool x86_host_is_amd(void);

/* Physical address bits of the guest, from its CPUID. */
unsigned int x86_address_bits(const struct kvm_cpuid2 *supported);

/*
 * Puts a boot processor that is as after power-on at the kernel's entry, with the registers in kvm_run that KVM takes
 * over when it enters the guest.
 */
void x86_set_entry(struct vcpu *vcpu, const struct x86_entry *entry);

/*
 * Direct boot, in two steps. The first reads kernel and initrd into guest RAM (NULL after printing the cause);
 * devices may depend on what the kernel is. The second writes the command line and the description of the machine,
 * devices included, and fills *entry: 0, or -errno after printing the cause. x86_boot_free() unmaps the files, which
 * takes a while: it may run beside the guest. NULL is fine.
 */
struct x86_boot *x86_boot_load(struct vm *vm, bool ram_is_zero);
bool x86_boot_is_linux(const struct x86_boot *boot);
int x86_boot_finish(struct x86_boot *boot, struct x86_entry *entry);
void x86_boot_free(struct x86_boot *boot);

/* Whether the command line (may be NULL) says where the kernel's console is. */
bool x86_names_console(const char *cmdline);

/* Every vCPU with its local APIC back to the state after power-on, as KVM itself creates it. */
int x86_reset(struct vm *vm, const struct kvm_cpuid2 *supported);

/* Registers and the bytes at rip, on standard error. */
void x86_print_state(struct vcpu *vcpu);

#endif
