/* SPDX-License-Identifier: MIT */
/*
 * The Volume Shadow Copy integration service: the guest brings its file systems to rest so that its disks can be
 * copied, and lets them go on. Theory of operation in ic_vss.c. Loop thread only.
 */
#ifndef DEVICES_VMBUS_IC_VSS_H
#define DEVICES_VMBUS_IC_VSS_H

#include "devices/vmbus/ic_order.h"

struct vm;

enum vss_state {
	VSS_DOWN,     /* there is no such device, or no guest has opened its channel and agreed on a version */
	VSS_THAWED,   /* file systems go on */
	VSS_FREEZING, /* asked whether it can freeze, or to do so; may be frozen already */
	VSS_FROZEN,
	VSS_THAWING, /* asked to thaw; may still be frozen */
};

/* A freeze that nobody thaws ends by itself after this time, in seconds. */
#define VSS_FROZEN_MAX 60

/* Puts the device on vm->vmbus. 0, or -errno of vmbus_add_device(). */
int ic_vss_create(struct vm *vm);

/*
 * Asks the guest to freeze its file systems, or to thaw them. A thaw waits for a freeze that is under way, and may be
 * asked for when nothing is frozen. done's error is 0 when the guest has done it; -ENODEV: no such device; -ENOTCONN:
 * the guest does not run the service; -EBUSY: not thawed (for a freeze), or another such order is under way;
 * -EIO and other errors the guest reports; -ETIMEDOUT; -ECONNRESET: channel closed or machine reset meanwhile. After a
 * freeze that failed the guest is thawed in any case.
 */
void vss_freeze(const struct vm *vm, ic_order_fn *done, void *opaque);
void vss_thaw(const struct vm *vm, ic_order_fn *done, void *opaque);

enum vss_state vss_state(const struct vm *vm);
const char *vss_state_name(enum vss_state state); /* "down", "thawed", "freezing", "frozen", "thawing" */

#endif
