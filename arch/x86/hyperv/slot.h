/* SPDX-License-Identifier: MIT */
/*
 * Message slots, message queues and event flags: the SynIC's pages in guest memory. Nothing here knows of KVM.
 *
 * Theory of operation (TLFS 11.8): a slot holds one message, and its type is 0 when it is free. The guest frees it by
 * storing 0 there, then looks at the message's "pending" flag, and if that is set writes the EOM register: that is how
 * we learn that the next message can go in. So whoever finds the slot busy sets the flag first and looks at the type
 * again afterwards; in the other order the guest could free the slot in between and nobody would ever look.
 */
#ifndef ARCH_X86_HYPERV_SLOT_H
#define ARCH_X86_HYPERV_SLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arch/x86/hyperv/hyperv.h"
#include "arch/x86/hyperv/tlfs.h"

/* Messages that wait for a slot: HV_QUEUE_MAX, and one of each timer besides. Zero-initialise; the owner locks. */
struct hv_queue {
	unsigned int head, count;
	struct hv_message messages[HV_QUEUE_MAX + HV_STIMERS];
};

/* Appends a copy; false if it is full. size <= HV_MESSAGE_PAYLOAD. */
bool hv_queue_put(struct hv_queue *queue, uint32_t type, const void *payload, size_t size);

/* The message of a timer of that number; false if one waits already. And takes it back, if it still waits. */
bool hv_queue_put_timer(struct hv_queue *queue, uint32_t timer, const void *payload, size_t size);
void hv_queue_drop_timer(struct hv_queue *queue, uint32_t timer);

void hv_queue_clear(struct hv_queue *queue);

/*
 * Moves the first message to the slot, if there is one and the slot is free: true, and the SINT's interrupt is due. If
 * the slot is busy, the guest has been told to write EOM.
 */
bool hv_queue_deliver(struct hv_queue *queue, struct hv_message *slot);

/* Sets an event flag; returns whether it was clear, and the interrupt is due. sint and flag are in range. */
bool hv_event_set(uint8_t *event_page, unsigned int sint, unsigned int flag);

#endif
