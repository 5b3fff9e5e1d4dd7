/* SPDX-License-Identifier: MIT */
/* MSRs that KVM does not know: what a guest's access to one does (--msr), and that it is told of. */
#ifndef ARCH_X86_MSR_H
#define ARCH_X86_MSR_H

struct unknown_msrs;
struct vcpu;
struct vm;

enum msr_policy {
	MSR_HOST,   /* KVM decides, by its module parameter ignore_msrs, and vmm does not hear of it */
	MSR_FAULT,  /* #GP */
	MSR_IGNORE, /* reads are 0, writes do nothing */
};

/*
 * Before any vCPU: makes KVM exit for the MSRs that config->msr and config->hyperv are about. 0, -errno if KVM cannot,
 * untold.
 */
int msr_enable_exits(struct vm *vm);

/* For a policy that is not MSR_HOST: vm->unknown_msrs. 0, or -errno after printing one line. unknown_msrs_free(NULL) is
 * fine. */
int unknown_msrs_create(struct vm *vm);
void unknown_msrs_free(struct unknown_msrs *msrs);

/* KVM_EXIT_X86_RDMSR and KVM_EXIT_X86_WRMSR, on the vCPU's thread. */
void msr_exit_read(struct vcpu *vcpu);
void msr_exit_write(struct vcpu *vcpu);

#endif
