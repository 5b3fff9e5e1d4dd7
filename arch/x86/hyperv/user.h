/* SPDX-License-Identifier: MIT */
/*
 * What the files of the user backend share: synic_user.c, user_msr.c, user_call.c, user_timer.c. On the vCPU's thread,
 * but for what creates, resets and destroys.
 */
#ifndef ARCH_X86_HYPERV_USER_H
#define ARCH_X86_HYPERV_USER_H

#include <stdbool.h>
#include <stdint.h>

struct hv_partition;
struct hv_vp;
struct kvm_sregs;
struct region;

void hv_user_rdmsr(struct hv_vp *vp);
void hv_user_wrmsr(struct hv_vp *vp);
struct region *hv_user_io(struct hv_vp *vp);

/* The registers of one VP: SCONTROL, SIEFP, SIMP, EOM, SINTs, VP assist page. False: #GP. */
bool hv_user_write_synic(struct hv_vp *vp, uint32_t index, uint64_t value);
void hv_user_read_synic(struct hv_vp *vp, uint32_t index, uint64_t *value);

/*
 * Synthetic timers, HV_MSR_STIMER0_CONFIG to the last; only if features.msrs has HV_ACCESS_STIMER. create() comes
 * before the first VP, add() for each: 0 or -errno, told by add() alone. reset() under vp->lock.
 */
int hv_user_create_timers(struct hv_partition *partition);
int hv_user_add_timers(struct hv_vp *vp);
void hv_user_reset_timers(struct hv_vp *vp);
void hv_user_destroy_timers(struct hv_partition *partition);
bool hv_user_write_timer(struct hv_vp *vp, uint32_t index, uint64_t value);
void hv_user_read_timer(struct hv_vp *vp, uint32_t index, uint64_t *value);

bool hv_user_in_long_mode(const struct kvm_sregs *sregs);

#endif
