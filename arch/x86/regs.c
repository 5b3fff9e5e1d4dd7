/* SPDX-License-Identifier: MIT */
/* Registers of a vCPU: at the kernel's entry, and for a person to read when something went wrong. */
#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "arch/x86/x86.h"
#include "vmm/log.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define CR0_PE	 0x1ULL
#define CR0_ET	 0x10ULL
#define CR0_PG	 0x80000000ULL
#define CR4_PAE	 0x20ULL
#define EFER_LME 0x100ULL
#define EFER_LMA 0x400ULL

#define APIC_BASE_DEFAULT 0xfee00000ULL
#define APIC_BASE_BSP	  0x100ULL
#define APIC_BASE_ENABLE  0x800ULL

/* Selectors that Documentation/arch/x86/boot.rst asks for: __BOOT_CS, __BOOT_DS; then a TSS. */
enum { CODE_SELECTOR = 0x10, DATA_SELECTOR = 0x18, TSS_SELECTOR = 0x20 };

static const struct kvm_segment flat_data = {
	.limit = 0xffffffff,
	.selector = DATA_SELECTOR,
	.type = 3,
	.present = 1,
	.s = 1,
	.db = 1,
	.g = 1,
};

static void set_segments(struct kvm_sregs *s, const struct x86_entry *entry)
{
	s->cs = flat_data;
	s->cs.selector = CODE_SELECTOR;
	s->cs.type = 11;
	s->cs.l = !entry->pvh;
	s->cs.db = entry->pvh;
	s->ds = s->es = s->fs = s->gs = s->ss = flat_data;
	/* PVH asks for a busy 32-bit TSS with limit 0x67; in long mode it is a 64-bit one of the same type number. */
	s->tr = (struct kvm_segment){ .limit = 0x67, .selector = TSS_SELECTOR, .type = 11, .present = 1 };
	s->gdt.base = entry->gdt;
	s->gdt.limit = 6 * 8 - 1;
	s->idt.limit = 0;
}

/*
 * 64-bit boot protocol: paging on with an identity map, interrupts off, rsi = boot_params. PVH (Xen's
 * docs/misc/pvh.pandoc): 32-bit protected mode, paging off, ebx = hvm_start_info.
 */
void x86_set_entry(struct vcpu *vcpu, const struct x86_entry *entry)
{
	struct kvm_regs regs = { .rip = entry->rip, .rflags = 2 };
	struct kvm_sregs sregs = {
		.cr0 = CR0_PE | CR0_ET,
		.apic_base = APIC_BASE_DEFAULT | APIC_BASE_ENABLE | (vcpu->index ? 0 : APIC_BASE_BSP),
		.ldt = { .limit = 0xffff, .type = 2, .present = 1, .unusable = 0 },
	};

	set_segments(&sregs, entry);
	if (entry->pvh) {
		regs.rbx = entry->info;
	} else {
		regs.rsi = entry->info;
		sregs.cr0 |= CR0_PG;
		sregs.cr3 = entry->cr3;
		sregs.cr4 = CR4_PAE;
		sregs.efer = EFER_LME | EFER_LMA;
	}
	/* Documentation/virt/kvm/api.rst, KVM_CAP_SYNC_REGS: taken at the next KVM_RUN, which saves three calls. */
	vcpu->run->s.regs.regs = regs;
	vcpu->run->s.regs.sregs = sregs;
	vcpu->run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
}

static void print_code(struct vcpu *vcpu, uint64_t rip)
{
	struct kvm_translation t = { .linear_address = rip };
	const uint8_t *code;
	char text[3 * 16 + 1];

	if (ioctl(vcpu->fd, KVM_TRANSLATE, &t) < 0 || !t.valid ||
	    !(code = ram_ptr(&vcpu->vm->memory, t.physical_address, 16))) {
		log_line("  code: not readable at 0x%llx", (unsigned long long)rip);
		return;
	}
	for (int i = 0; i < 16; i++)
		snprintf(text + 3 * i, 4, "%02x ", code[i]);
	log_line("  code at rip: %s", text);
}

void x86_print_state(struct vcpu *vcpu)
{
	struct kvm_regs r;
	struct kvm_sregs s;

	if (ioctl(vcpu->fd, KVM_GET_REGS, &r) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &s) < 0) {
		log_line("  registers: %s", strerror(errno));
		return;
	}
	if (r.rip == 0xfff0 && s.cs.selector == 0xf000)
		log_line("  (this KVM has already reset the vCPU: these are not the registers it failed with)");
	log_line("  rip %016llx cs %04x rflags %08llx", r.rip, s.cs.selector, r.rflags);
	log_line("  rax %016llx rbx %016llx rcx %016llx rdx %016llx", r.rax, r.rbx, r.rcx, r.rdx);
	log_line("  rsi %016llx rdi %016llx rbp %016llx rsp %016llx", r.rsi, r.rdi, r.rbp, r.rsp);
	log_line("  r8  %016llx r9  %016llx r10 %016llx r11 %016llx", r.r8, r.r9, r.r10, r.r11);
	log_line("  r12 %016llx r13 %016llx r14 %016llx r15 %016llx", r.r12, r.r13, r.r14, r.r15);
	log_line("  cr0 %llx cr2 %llx cr3 %llx cr4 %llx efer %llx", s.cr0, s.cr2, s.cr3, s.cr4, s.efer);
	print_code(vcpu, r.rip);
}
