/* SPDX-License-Identifier: MIT */
/*
 * Hypercalls with the user backend: writes to the two ports of the hypercall page (page.c). Registers come and go by
 * kvm_run (KVM_CAP_SYNC_REGS). rip is not looked at: whether it is at the OUT or behind it differs from KVM to KVM.
 */
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "arch/x86/hyperv/internal.h"
#include "arch/x86/hyperv/page.h"
#include "arch/x86/hyperv/user.h"
#include "vmm/vcpu.h"

#define CR0_PE	 0x1ull
#define EFER_LMA 0x400ull

bool hv_user_in_long_mode(const struct kvm_sregs *sregs)
{
	return sregs->efer & EFER_LMA && sregs->cs.l;
}

static bool page_is_enabled(struct hv_partition *partition)
{
	bool enabled;

	pthread_mutex_lock(&partition->lock);
	enabled = partition->hypercall & HV_MSR_ENABLE;
	pthread_mutex_unlock(&partition->lock);
	return enabled;
}

static uint64_t pair(uint64_t high, uint64_t low)
{
	return high << 32 | (low & 0xffffffff);
}

/* TLFS 3.7: rcx and rdx in, rax out; in 32-bit mode edx:eax and ebx:ecx in, edx:eax out. */
static void hypercall(struct hv_vp *vp)
{
	struct kvm_run *run = vp->vcpu->run;
	struct kvm_regs *regs = &run->s.regs.regs;
	struct kvm_sregs sregs;
	uint64_t result;

	/* User mode of the guest may reach ports, but no hypercalls (TLFS 3.3); nor may real mode. */
	if (ioctl(vp->vcpu->fd, KVM_GET_SREGS, &sregs) < 0 || sregs.ss.dpl || !(sregs.cr0 & CR0_PE) ||
	    !page_is_enabled(vp->partition))
		return;
	if (hv_user_in_long_mode(&sregs)) {
		regs->rax = hv_hypercall(vp->partition, regs->rcx, regs->rdx);
	} else {
		result = hv_hypercall(vp->partition, pair(regs->rdx, regs->rax), pair(regs->rbx, regs->rcx));
		regs->rax = result & 0xffffffff;
		regs->rdx = result >> 32;
	}
	run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
}

/* No ioeventfd has this connection: the caller turns what is added to rcx into its result. */
static void signal_event(struct hv_vp *vp, uint32_t connection)
{
	struct kvm_run *run = vp->vcpu->run;
	enum hv_status status = hv_call_signal(vp->partition, connection);

	if (!status || run->s.regs.regs.rcx != HV_FAST_SIGNAL)
		return;
	run->s.regs.regs.rcx += status;
	run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
}

struct region *hv_user_io(struct hv_vp *vp)
{
	const struct kvm_run *run = vp->vcpu->run;
	uint32_t connection;

	if (run->io.direction != KVM_EXIT_IO_OUT || run->io.count != 1)
		return NULL;
	if (run->io.port == HV_PORT_HYPERCALL && run->io.size == 1) {
		hypercall(vp);
		return &vp->partition->hypercall_region;
	}
	if (run->io.port == HV_PORT_SIGNAL && run->io.size == sizeof(connection)) {
		memcpy(&connection, (const char *)run + run->io.data_offset, sizeof(connection));
		signal_event(vp, connection);
		return &vp->partition->signal_region;
	}
	return NULL;
}
