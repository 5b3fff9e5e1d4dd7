/* SPDX-License-Identifier: MIT */
/*
 * The synthetic mouse: a HID device whose descriptors and reports go through a pipe of messages. The guest asks for a
 * version, gets the descriptors, acknowledges them, and from then on gets reports. Linux: drivers/hid/hid-hyperv.c;
 * openvmm: uidevices, mouse; the descriptors: USB HID 1.11, 6.2.
 */
#include "devices/vmbus/mouse.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "devices/vmbus/vmbus.h"
#include "vmm/log.h"
#include "vmm/vm.h"

#define PACKET_MAX   256
#define PIPE_DATA    1
#define MESSAGE_MODE 4
#define VERSION	     0x20000u /* 2.0, the only one */

enum { REQUEST, RESPONSE, DEVICE_INFO, DEVICE_INFO_ACK, INPUT_REPORT };

/* Of the pipe, and of the message in it. */
struct header {
	uint32_t pipe, pipe_size;
	uint32_t type, size;
};

struct response {
	struct header header;
	uint32_t version;
	uint8_t accepted;
} __attribute__((packed));

struct report {
	uint8_t buttons;
	uint16_t x, y;
} __attribute__((packed));

struct input_report {
	struct header header;
	struct report report;
} __attribute__((packed));

/* Three buttons, and two axes from 0 to 32767. */
static const uint8_t report_descriptor[] = {
	0x05, 0x01, 0x09, 0x02, 0xa1, 0x01,		/* generic desktop, mouse: application */
	0x09, 0x01, 0xa1, 0x00,				/* pointer: physical */
	0x05, 0x09, 0x19, 0x01, 0x29, 0x03,		/* buttons 1 to 3, */
	0x15, 0x00, 0x25, 0x01, 0x75, 0x01, 0x95, 0x03, /* 0 to 1, 1 bit, three times: */
	0x81, 0x02,					/* input, variable, absolute */
	0x75, 0x05, 0x95, 0x01, 0x81, 0x03,		/* 5 bits: constant */
	0x05, 0x01, 0x09, 0x30, 0x09, 0x31,		/* generic desktop, x and y, */
	0x26, 0xff, 0x7f, 0x75, 0x10, 0x95, 0x02,	/* (0) to 32767, 16 bits, twice: */
	0x81, 0x02,					/* input, variable, absolute */
	0xc0, 0xc0,					/* end of both collections */
};

/* Linux: struct hv_input_dev_info, struct hid_descriptor. The ids are those that guests know Hyper-V's mouse by. */
struct device_info {
	struct header header;
	uint32_t size;
	uint16_t vendor, product, version, reserved[11];
	uint8_t length, type;
	uint16_t hid;
	uint8_t country, count, report_type;
	uint16_t report_size;
	uint8_t report[sizeof(report_descriptor)];
} __attribute__((packed));
#define ATTRIBUTES_SIZE 32
#define DESCRIPTOR_SIZE 9

struct mouse {
	struct vmbus_device device;
	bool up;
};

static const struct vmbus_device_class class;

static struct mouse *mouse_of(const struct vmbus_channel *channel)
{
	return (struct mouse *)vmbus_channel_device(channel);
}

static struct header make_header(uint32_t type, size_t size)
{
	return (struct header){ PIPE_DATA, (uint32_t)(size - offsetof(struct header, type)), type,
				(uint32_t)(size - sizeof(struct header)) };
}

static int send_message(struct mouse *mouse, const void *message, size_t size)
{
	return vmbus_send(mouse->device.channel, VMBUS_PACKET_INBAND, 0, 0, message, size);
}

int mouse_report(struct vm *vm, uint16_t x, uint16_t y, uint8_t buttons)
{
	struct mouse *mouse = vm->vmbus ? (struct mouse *)vmbus_find_device(vm->vmbus, class.name) : NULL;
	const struct input_report message = {
		.header = make_header(INPUT_REPORT, sizeof(message)),
		.report = { buttons, x, y },
	};
	int ret;

	if (!mouse || !mouse->up)
		return -ENOTCONN;
	ret = send_message(mouse, &message, sizeof(message));
	if (!ret)
		vmbus_flush(mouse->device.channel);
	return ret;
}

/* ---- From the guest ---- */

static int send_device_info(struct mouse *mouse)
{
	struct device_info info = {
		.header = make_header(DEVICE_INFO, sizeof(info)),
		.size = ATTRIBUTES_SIZE,
		.vendor = 0x045e,
		.product = 0x0621,
		.version = 1,
		.length = DESCRIPTOR_SIZE,
		.type = 0x21,
		.hid = 0x0101,
		.count = 1,
		.report_type = 0x22,
		.report_size = sizeof(report_descriptor),
	};

	memcpy(info.report, report_descriptor, sizeof(report_descriptor));
	return send_message(mouse, &info, sizeof(info));
}

static int take_request(struct mouse *mouse, uint32_t version)
{
	const struct response response = {
		.header = make_header(RESPONSE, sizeof(response)),
		.version = version,
		.accepted = version == VERSION,
	};
	int ret = send_message(mouse, &response, sizeof(response));

	mouse->up = false;
	return ret || !response.accepted ? ret : send_device_info(mouse);
}

/* A guest whose ring has no room for an answer has asked a hundred times and reads nothing: it fails. */
static int take_packet(struct vmbus_channel *channel, const struct vmbus_packet *packet)
{
	struct mouse *mouse = mouse_of(channel);
	const uint32_t *words = packet->payload;
	struct header header;
	int ret = 0;

	if (packet->type != VMBUS_PACKET_INBAND || packet->size < sizeof(header) + sizeof(uint32_t))
		return -EINVAL;
	memcpy(&header, words, sizeof(header));
	if (header.pipe != PIPE_DATA || header.pipe_size > packet->size - offsetof(struct header, type))
		return -EINVAL;
	if (packet->flags & VMBUS_PACKET_COMPLETION_REQUESTED)
		ret = vmbus_send(channel, VMBUS_PACKET_COMPLETION, 0, packet->transaction, NULL, 0);
	if (!ret && header.type == REQUEST)
		ret = take_request(mouse, words[sizeof(header) / sizeof(uint32_t)]);
	else if (!ret && header.type == DEVICE_INFO_ACK)
		mouse->up = true;
	else if (!ret)
		ret = -EINVAL;
	return ret == -ENOTCONN ? 0 : ret;
}

static int open_channel(struct vmbus_channel *channel)
{
	mouse_of(channel)->up = false;
	return 0;
}

static void close_channel(struct vmbus_channel *channel)
{
	mouse_of(channel)->up = false;
}

static void destroy(struct vmbus_device *device)
{
	free(device);
}

static const struct vmbus_device_class class = {
	.name = "mouse",
	.type = VMBUS_GUID(0xcfa8b69e, 0x5b4a, 0x4cc0, 0xb9, 0x8b, 0x8b, 0xa1, 0xa1, 0xf3, 0xf9, 0x5a),
	.instance = VMBUS_GUID(0x58f75a6d, 0xd949, 0x4320, 0x99, 0xe1, 0xa2, 0xa2, 0x57, 0x6d, 0x58, 0x1c),
	.offer_flags = VMBUS_OFFER_PIPE,
	.user_defined = { MESSAGE_MODE },
	.packet_max = PACKET_MAX,
	.open = open_channel,
	.close = close_channel,
	.packet = take_packet,
	.destroy = destroy,
};

int mouse_create(struct vm *vm)
{
	struct mouse *mouse = calloc(1, sizeof(*mouse));
	int ret = mouse ? vmbus_add_device(vm->vmbus, &mouse->device, &class, NULL) : -ENOMEM;

	if (ret) {
		log_line("vmbus: mouse: %s", strerror(-ret));
		free(mouse);
	}
	return ret;
}
