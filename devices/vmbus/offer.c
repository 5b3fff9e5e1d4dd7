/* SPDX-License-Identifier: MIT */
/*
 * Channels as the guest gets to know them. A device's primary channel gets the lowest free relid when the device
 * arrives and keeps it, so that the same guest finds the same relids after each boot; offers go out in their order.
 * Subchannels exist from the device's wish until its primary channel closes, which rescinds them.
 *
 * A relid that the guest has been told of is its own until RELID_RELEASED, or until it makes contact anew.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/vmbus/internal.h"
#include "vmm/trace.h"

static struct vmbus_channel *create(struct vmbus_device *device, unsigned int index)
{
	struct vmbus *bus = device->bus;
	struct vmbus_channel *channel;
	uint32_t relid = 1;

	while (relid < VMBUS_CHANNELS && bus->channels[relid])
		relid++;
	if (relid == VMBUS_CHANNELS)
		return NULL;
	channel = calloc(1, sizeof(*channel));
	if (!channel)
		return NULL;
	channel->bus = bus;
	channel->device = device;
	channel->index = index;
	channel->relid = relid;
	bus->channels[relid] = channel;
	if (relid >= bus->relid_end)
		bus->relid_end = relid + 1;
	if (relid < bus->next_offer)
		bus->next_offer = relid;
	return channel;
}

static bool has_free_relids(const struct vmbus *bus, unsigned int count)
{
	for (uint32_t relid = 1; relid < VMBUS_CHANNELS && count; relid++)
		if (!bus->channels[relid])
			count--;
	return !count;
}

static void discard(struct vmbus_channel *channel)
{
	channel->next = channel->bus->dead_channels;
	channel->bus->dead_channels = channel;
}

/* The guest has let go of the channel, which was rescinded or never offered; with its last one a device goes. */
static void release(struct vmbus_channel *channel)
{
	struct vmbus_device *device = channel->device;
	struct vmbus_channel *primary = device->channel;
	struct vmbus *bus = channel->bus;

	gpadl_forget(bus, channel->relid);
	monitor_release(channel);
	bus->channels[channel->relid] = NULL;
	if (channel == primary) {
		primary->gone = true;
	} else {
		struct vmbus_channel *before = primary;

		while (before->next != channel)
			before = before->next;
		before->next = channel->next;
		discard(channel);
	}
	if (primary->gone && !primary->next) {
		discard(primary);
		device->next = bus->dead_devices;
		bus->dead_devices = device;
	}
}

static void rescind(struct vmbus_channel *channel)
{
	struct vmbus *bus = channel->bus;

	channel_stop(channel, CHANNEL_CLOSED);
	if (channel->offer == OFFER_RESCINDED)
		return;
	if (channel->offer != OFFER_SENT) {
		release(channel);
		return;
	}
	channel->offer = OFFER_RESCINDED;
	channel->next_rescind = NULL;
	if (bus->rescind_last)
		bus->rescind_last->next_rescind = channel;
	else
		bus->rescind_first = channel;
	bus->rescind_last = channel;
}

void offer_rescind_subchannels(struct vmbus_device *device)
{
	struct vmbus_channel *next;

	for (struct vmbus_channel *sub = device->channel->next; sub; sub = next) {
		next = sub->next;
		rescind(sub);
	}
}

static void take_rescind_back(struct vmbus_channel *channel)
{
	struct vmbus_channel *before = NULL;

	for (struct vmbus_channel *c = channel->bus->rescind_first; c; before = c, c = c->next_rescind) {
		if (c != channel)
			continue;
		if (before)
			before->next_rescind = c->next_rescind;
		else
			channel->bus->rescind_first = c->next_rescind;
		if (channel->bus->rescind_last == c)
			channel->bus->rescind_last = before;
		return;
	}
}

int vmbus_add_device(struct vmbus *bus, struct vmbus_device *device, const struct vmbus_device_class *class,
		     const struct vmbus_guid *instance)
{
	struct vmbus_device **end = &bus->devices;

	device->class = class;
	device->bus = bus;
	device->instance = instance ? *instance : class->instance;
	device->next = NULL;
	for (; *end; end = &(*end)->next)
		if (!memcmp(&(*end)->class->type, &class->type, sizeof(class->type)) &&
		    !memcmp(&(*end)->instance, &device->instance, sizeof(device->instance)))
			return -EEXIST;
	if (!has_free_relids(bus, 1))
		return -ENOSPC;
	bus_enter(bus);
	device->channel = create(device, 0);
	if (device->channel)
		*end = device;
	bus_leave(bus);
	return device->channel ? 0 : -ENOMEM;
}

void vmbus_remove_device(struct vmbus_device *device)
{
	struct vmbus *bus = device->bus;
	struct vmbus_device **link = &bus->devices;

	while (*link && *link != device)
		link = &(*link)->next;
	if (!*link)
		return; /* removed already */
	bus_enter(bus);
	*link = device->next;
	offer_rescind_subchannels(device);
	rescind(device->channel);
	bus_leave(bus);
}

struct vmbus_device *vmbus_find_device(struct vmbus *bus, const char *name)
{
	struct vmbus_device *device = bus->devices;

	while (device && strcmp(device->class->name, name) != 0)
		device = device->next;
	return device;
}

int vmbus_offer_subchannels(struct vmbus_device *device, unsigned int count)
{
	struct vmbus_channel *last = device->channel, *added = NULL;
	unsigned int index = 0;

	if (device->channel->state != CHANNEL_OPEN)
		return -ENOTCONN;
	if (!has_free_relids(device->bus, count))
		return -ENOSPC;
	bus_enter(device->bus);
	for (; last->next; last = last->next)
		if (last->next->offer != OFFER_RESCINDED)
			index = last->next->index;
	for (unsigned int i = 0; i < count; i++) {
		added = create(device, ++index);
		if (!added)
			break;
		last->next = added;
		last = added;
	}
	bus_leave(device->bus);
	return !count || added ? 0 : -ENOMEM;
}

void offer_request(struct vmbus *bus)
{
	if (bus->offers_requested) {
		bus_log(bus, "offers requested twice");
		return;
	}
	bus->offers_requested = true;
	bus->all_offers_due = true;
	bus->next_offer = 1;
}

bool offer_next(struct vmbus *bus, struct vmbus_offer *offer)
{
	struct vmbus_channel *channel = NULL;
	const struct vmbus_device *device;

	while (bus->offers_requested && bus->next_offer < bus->relid_end) {
		channel = bus->channels[bus->next_offer];
		if (channel && channel->offer == OFFER_DUE)
			break;
		channel = NULL;
		bus->next_offer++;
	}
	if (!channel)
		return false;
	device = channel->device;
	monitor_assign(channel);
	*offer = (struct vmbus_offer){
		.header.type = VMBUS_OFFER,
		.type = device->class->type,
		.instance = device->instance,
		.flags = device->class->offer_flags,
		.mmio_megabytes = device->class->mmio_megabytes,
		.subchannel = (uint16_t)channel->index,
		.relid = channel->relid,
		.monitor_id = channel->monitored ? channel->monitor_id : 0xff,
		.monitor_allocated = channel->monitored,
		.dedicated = 1,
		.connection = VMBUS_CONNECTION_CHANNEL | channel->relid,
	};
	memcpy(offer->user_defined, device->class->user_defined, sizeof(offer->user_defined));
	return true;
}

void offer_sent(struct vmbus *bus, uint32_t relid)
{
	struct vmbus_channel *channel = bus->channels[relid];

	channel->offer = OFFER_SENT;
	bus->next_offer = relid + 1;
	TRACE(vmbus_send_offer, "channel #%u dev %s", relid, channel->device->class->name);
}

bool rescind_next(const struct vmbus *bus, struct vmbus_relid_message *message)
{
	if (!bus->rescind_first)
		return false;
	*message = (struct vmbus_relid_message){
		.header.type = VMBUS_RESCIND,
		.relid = bus->rescind_first->relid,
	};
	return true;
}

void rescind_sent(struct vmbus *bus)
{
	take_rescind_back(bus->rescind_first);
}

void offer_relid_released(struct vmbus *bus, uint32_t relid)
{
	struct vmbus_channel *channel = offer_find(bus, relid);

	if (!channel) {
		bus_log(bus, "release of relid %u, which was not offered", relid);
	} else if (channel->offer == OFFER_RESCINDED) {
		take_rescind_back(channel);
		release(channel);
	} else if (channel->state != CHANNEL_CLOSED) {
		bus_log(bus, "release of relid %u, which is open", relid);
	} else {
		gpadl_forget(bus, relid);
		monitor_release(channel);
		channel->offer = OFFER_RELEASED;
	}
}

void offer_reset(struct vmbus *bus)
{
	bus->offers_requested = false;
	bus->all_offers_due = false;
	bus->rescind_first = NULL;
	bus->rescind_last = NULL;
	for (uint32_t relid = 1; relid < bus->relid_end; relid++) {
		struct vmbus_channel *channel = bus->channels[relid];

		if (!channel)
			continue;
		monitor_release(channel);
		if (channel->index || channel->offer == OFFER_RESCINDED)
			release(channel);
		else
			channel->offer = OFFER_DUE;
	}
}

struct vmbus_channel *offer_find(struct vmbus *bus, uint32_t relid)
{
	struct vmbus_channel *channel = relid < VMBUS_CHANNELS ? bus->channels[relid] : NULL;

	return channel && (channel->offer == OFFER_SENT || channel->offer == OFFER_RESCINDED) ? channel : NULL;
}
