/* SPDX-License-Identifier: MIT */
/* Time synchronization: tells the guest the host's time of day. Loop thread. */
#ifndef DEVICES_VMBUS_IC_TIMESYNC_H
#define DEVICES_VMBUS_IC_TIMESYNC_H

struct vm;

/*
 * The guest's clock is to be set, not only compared: after a pause or a restore. Done at once, or as soon as the guest
 * has answered the message under way; nothing if it has no such service (it is told when that comes up).
 */
void ic_timesync_sync(struct vm *vm);

/* Puts the device on vm->vmbus. 0, or -errno after printing one line. */
int ic_timesync_create(struct vm *vm);

#endif
