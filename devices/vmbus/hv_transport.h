/* SPDX-License-Identifier: MIT */
/* VMBus in the machine: the bus carried by the Hyper-V partition, as the device "vmbus". */
#ifndef DEVICES_VMBUS_HV_TRANSPORT_H
#define DEVICES_VMBUS_HV_TRANSPORT_H

struct vm;

/*
 * Creates vm->vmbus, an empty bus, over vm->hyperv, which must outlive the machine's devices. 0, or -errno after
 * printing one line. The machine owns it. Before the guest runs.
 */
int hv_transport_create(struct vm *vm);

#endif
