/* SPDX-License-Identifier: MIT */
/* The bus on the control socket: which channels the guest has, and in what state. */
#include "devices/vmbus/bus_control.h"

#include <stdio.h>
#include <string.h>

#include "devices/vmbus/internal.h"
#include "vmm/control.h"
#include "vmm/vm.h"

#define GUID_TEXT 37

static void print_guid(char text[GUID_TEXT], const struct vmbus_guid *guid)
{
	const uint8_t *b = guid->b;

	snprintf(text, GUID_TEXT, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[3], b[2],
		 b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

static json_t *describe(const struct vmbus_channel *channel)
{
	static const char *const states[] = {
		[CHANNEL_CLOSED] = "closed", [CHANNEL_OPEN] = "open", [CHANNEL_FAILED] = "failed"
	};
	char instance[GUID_TEXT];
	json_t *object;

	print_guid(instance, &channel->device->instance);
	object = json_pack("{s:s, s:s, s:i, s:i, s:s}", "device", channel->device->class->name, "instance", instance,
			   "index", (int)channel->index, "relid", (int)channel->relid, "state", states[channel->state]);
	if (object && channel->state == CHANNEL_OPEN && channel->vp != VMBUS_VP_NONE)
		json_object_set_new(object, "vcpu", json_integer(channel->vp));
	return object;
}

static void run_channels(struct control_request *request, void *opaque)
{
	const struct vmbus *bus = ((struct vm *)opaque)->vmbus;
	json_t *list = json_array();
	char version[16] = "none";

	for (unsigned int relid = 1; relid < bus->relid_end; relid++)
		if (bus->channels[relid])
			json_array_append_new(list, describe(bus->channels[relid]));
	if (bus->version)
		snprintf(version, sizeof(version), "%u.%u", bus->version >> 16, bus->version & 0xffff);
	control_answer(request, json_pack("{s:s, s:o}", "version", version, "channels", list));
}

static const struct control_command commands[] = {
	{ "channels",
	  "the protocol version the guest chose, and every VMBus channel with its state",
	  run_channels,
	  { { 0 } } },
};

int vmbus_control_add(struct vm *vm)
{
	return vm->vmbus ? control_add(vm->control, commands, 1, vm) : 0;
}
