/* SPDX-License-Identifier: MIT */
/*
 * Monitor pages: instead of a hypercall the guest sets a bit, the channel's monitor id, in the page that it has named
 * for its way to the host (Linux drivers/hv/channel.c, vmbus_setevent()). While a channel that has such an id is open
 * the carrier has us look there, as often as the most impatient of the open ones wants.
 *
 * An id goes with the offer, and is free again when the guest lets go of the channel. The guest may set any bit at any
 * time: one that is not an open channel's is taken and means nothing. What came before a channel was open is found when
 * it opens.
 */
#include "devices/vmbus/internal.h"
#include "vmm/trace.h"

static void *ram_page(const struct vmbus *bus, uint64_t gpa)
{
	return gpa && gpa % VMBUS_PAGE == 0 ? bus->transport->map(bus->opaque, gpa, VMBUS_PAGE) : NULL;
}

void monitor_contact(struct vmbus *bus, const struct vmbus_contact *contact)
{
	if (!contact->monitor_page1 && !contact->monitor_page2)
		return;
	/* Nothing is written to the first one, for there is no monitored way from the host to the guest here. */
	if (ram_page(bus, contact->monitor_page1))
		bus->monitor_page = ram_page(bus, contact->monitor_page2);
	if (!bus->monitor_page)
		bus_log(bus, "monitor pages that are not RAM are not used");
}

void monitor_assign(struct vmbus_channel *channel)
{
	struct vmbus *bus = channel->bus;
	unsigned int id = 0;

	if (channel->monitored || !bus->monitor_page || !channel->device->class->monitor_ns)
		return;
	while (id < VMBUS_MONITOR_IDS && bus->monitored[id])
		id++;
	if (id == VMBUS_MONITOR_IDS)
		return;
	bus->monitored[id] = channel;
	channel->monitored = true;
	channel->monitor_id = (uint8_t)id;
}

void monitor_release(struct vmbus_channel *channel)
{
	if (channel->monitored)
		channel->bus->monitored[channel->monitor_id] = NULL;
	channel->monitored = false;
}

void monitor_update(struct vmbus *bus)
{
	uint64_t ns = 0;

	for (unsigned int id = 0; id < VMBUS_MONITOR_IDS; id++) {
		const struct vmbus_channel *channel = bus->monitored[id];

		if (channel && channel->state == CHANNEL_OPEN && (!ns || channel->device->class->monitor_ns < ns))
			ns = channel->device->class->monitor_ns;
	}
	if (ns == bus->monitor_ns)
		return;
	bus->monitor_ns = ns;
	bus->transport->monitor(bus->opaque, ns);
}

void vmbus_monitor(struct vmbus *bus)
{
	bus_enter(bus);
	for (unsigned int group = 0; group < VMBUS_MONITOR_IDS / 32 && bus->monitor_page; group++) {
		uint32_t *pending = &bus->monitor_page->group[group].pending;
		uint32_t bits = 0;

		/* Most often there is nothing, and no reason to take the cache line away from the guest. */
		if (__atomic_load_n(pending, __ATOMIC_RELAXED))
			bits = __atomic_exchange_n(pending, 0, __ATOMIC_SEQ_CST);
		for (; bits; bits &= bits - 1) {
			struct vmbus_channel *channel = bus->monitored[group * 32 + (unsigned int)__builtin_ctz(bits)];

			if (!channel)
				continue;
			TRACE(vmbus_signal_event, "monitor id %u channel #%u", channel->monitor_id, channel->relid);
			channel_run(channel);
		}
	}
	bus_leave(bus);
}
