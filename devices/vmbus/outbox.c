/* SPDX-License-Identifier: MIT */
/*
 * What waits to be sent to the guest. The carrier may have no room, and nobody may make us keep more than so much, so
 * only answers are kept as messages, in a queue of fixed size; while it is full, vmbus_receive() takes nothing that
 * needs an answer. Everything else is made when there is room for it, from the state of channels and GPADLs: torn down
 * GPADLs, rescinds, then offers. So a rescind comes after its offer, since only what has been offered is rescinded, and
 * before the offer of a device that takes the place of a removed one.
 */
#include <errno.h>
#include <string.h>

#include "devices/vmbus/internal.h"
#include "vmm/trace.h"

void outbox_answer(struct vmbus *bus, const void *message, size_t size)
{
	struct answer *answer = &bus->answers[(bus->first_answer + bus->answer_count) % BUS_ANSWERS];

	answer->size = size;
	memcpy(answer->bytes, message, size);
	bus->answer_count++;
}

bool outbox_is_full(const struct vmbus *bus)
{
	return bus->answer_count == BUS_ANSWERS;
}

void outbox_clear(struct vmbus *bus)
{
	bus->first_answer = 0;
	bus->answer_count = 0;
	bus->pausing = false;
	bus->paused = false;
}

/* False: there is no room. A message that cannot be sent at all counts as sent. */
static bool post(struct vmbus *bus, uint32_t type, const void *message, size_t size)
{
	int ret;

	TRACE(vmbus_post_msg, "type %u size %zu", type, size);
	ret = bus->transport->send(bus->opaque, bus->vp, bus->sint, message, size);
	TRACE(vmbus_msg_cb, "message status %d", ret);
	if (ret && ret != -EAGAIN)
		bus_log(bus, "message %u to VP %u: %s", type, bus->vp, strerror(-ret));
	return ret != -EAGAIN;
}

static bool send_answers(struct vmbus *bus)
{
	while (bus->answer_count && !bus->paused) {
		const struct answer *answer = &bus->answers[bus->first_answer];

		if (!post(bus, answer->header.type, answer->bytes, answer->size))
			return false;
		bus->first_answer = (bus->first_answer + 1) % BUS_ANSWERS;
		bus->answer_count--;
		if (answer->header.type == VMBUS_PAUSE_RESPONSE)
			bus->paused = bus->pausing;
	}
	return !bus->paused;
}

static bool send_torn_down(struct vmbus *bus)
{
	struct vmbus_gpadl_torndown message;

	while (gpadl_torn_next(bus, &message)) {
		if (!post(bus, message.header.type, &message, sizeof(message)))
			return false;
		gpadl_torn_sent(bus);
	}
	return true;
}

static bool send_rescinds(struct vmbus *bus)
{
	struct vmbus_relid_message message;

	while (rescind_next(bus, &message)) {
		if (!post(bus, message.header.type, &message, sizeof(message)))
			return false;
		rescind_sent(bus);
	}
	return true;
}

static bool send_offers(struct vmbus *bus)
{
	struct vmbus_header all = { .type = VMBUS_ALL_OFFERS };
	struct vmbus_offer offer;

	while (offer_next(bus, &offer)) {
		if (!post(bus, offer.header.type, &offer, sizeof(offer)))
			return false;
		offer_sent(bus, offer.relid);
	}
	if (bus->all_offers_due) {
		if (!post(bus, all.type, &all, sizeof(all)))
			return false;
		bus->all_offers_due = false;
		TRACE(vmbus_terminate_offers, "relids below %u", bus->next_offer);
	}
	return true;
}

void outbox_pump(struct vmbus *bus)
{
	if (send_answers(bus) && send_torn_down(bus) && send_rescinds(bus))
		send_offers(bus);
}
