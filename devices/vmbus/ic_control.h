/* SPDX-License-Identifier: MIT */
/* What the integration services offer at the control socket. */
#ifndef DEVICES_VMBUS_IC_CONTROL_H
#define DEVICES_VMBUS_IC_CONTROL_H

struct vm;

/*
 * Adds shutdown, kvp-*, vss-* and fcopy to vm->control, and the services to its status. Without VMBus the commands are
 * there and say so. 0, or -errno after printing one line; 0 without a control socket.
 */
int ic_control_add(struct vm *vm);

#endif
