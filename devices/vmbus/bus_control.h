/* SPDX-License-Identifier: MIT */
#ifndef DEVICES_VMBUS_BUS_CONTROL_H
#define DEVICES_VMBUS_BUS_CONTROL_H

struct vm;

/* Offers the bus's commands on the control socket, if the machine has both. 0 or -ENOMEM. */
int vmbus_control_add(struct vm *vm);

#endif
