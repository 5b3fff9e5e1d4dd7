/* SPDX-License-Identifier: MIT */
/*
 * A pair of ports for the tests: they prove messages and events from the guest's side and do nothing else.
 *
 * Messages to connection TESTPORT_MESSAGES begin with {u32 vp, u32 sint}: where the answer goes. By message type:
 *
 * - TESTPORT_BURST {vp, sint, count}: count messages of this type come, {vp, sint, count, index}, index from 0 on. At
 *   most TESTPORT_BURST_MAX; HV_STATUS_INSUFFICIENT_BUFFERS when too many bursts are under way.
 * - TESTPORT_CONFIG {vp, sint, flag}: no answer; from now on a signal on TESTPORT_EVENTS sets this event flag.
 * - TESTPORT_FLAGS {vp, sint, first, count}: sets event flags first to first + count - 1, and answers {vp, sint, first,
 *   number of flags that the SINT could take}.
 * - TESTPORT_WIRE {vp, sint, vector}: from now on a 4-byte write to port TESTPORT_DOORBELL interrupts the VP with this
 *   vector (16..255), and does nothing else; answered by the same when it is so. This is an ioeventfd and an irqfd with
 *   the loop between them: what a round trip costs at least.
 * - Any other type comes back as it is, unless it has less than 8 bytes (HV_STATUS_INVALID_PARAMETER).
 */
#ifndef ARCH_X86_HYPERV_TESTPORT_H
#define ARCH_X86_HYPERV_TESTPORT_H

#define TESTPORT_MESSAGES 0x10001u
#define TESTPORT_EVENTS	  0x10002u

#define TESTPORT_BURST	0x1000u
#define TESTPORT_CONFIG 0x1001u
#define TESTPORT_FLAGS	0x1002u
#define TESTPORT_WIRE	0x1003u

#define TESTPORT_DOORBELL 0x5f0

#define TESTPORT_BURST_MAX 1000000u

struct vm;

/* Adds the ports to vm->hyperv, whose room listener it becomes. 0, or -errno after printing one line. */
int testport_create(struct vm *vm);

#endif
