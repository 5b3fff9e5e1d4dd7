/* SPDX-License-Identifier: MIT */
/*
 * The synthetic keyboard. Messages are packets in band without a pipe's header: a type and what goes with it. The guest
 * asks for a version, and from then on it gets keystrokes. Linux: drivers/input/serio/hyperv-keyboard.c; openvmm:
 * uidevices, keyboard.
 */
#include "devices/vmbus/keyboard.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/vmbus/vmbus.h"
#include "vmm/log.h"
#include "vmm/vm.h"

#define PACKET_MAX 256
#define VERSION	   0x10000u /* 1.0, the only one */
#define PAUSE_NS   10000000ULL

enum { REQUEST = 1, RESPONSE = 2, EVENT = 3, INDICATORS = 4 };
enum { IS_BREAK = 1 << 1, IS_E0 = 1 << 2 };

struct word_message {
	uint32_t type, value;
};

struct event_message {
	uint32_t type;
	uint16_t make, reserved;
	uint32_t flags;
};

struct keyboard {
	struct vmbus_device device;
	struct vm *vm;
	bool up;
	struct keystroke *strokes; /* being typed, NULL: none are */
	size_t count, next;
	void (*done)(void *opaque, int error);
	void *opaque;
	struct loop_op op;
	struct __kernel_timespec ts;
	bool waiting; /* the timer has a request in the loop's ring */
	bool dying;   /* freed when it has not */
};

static const struct vmbus_device_class class;

static struct keyboard *keyboard_of(const struct vmbus_channel *channel)
{
	return (struct keyboard *)vmbus_channel_device(channel);
}

static void end(struct keyboard *kbd, int error)
{
	if (!kbd->strokes)
		return;
	free(kbd->strokes);
	kbd->strokes = NULL;
	kbd->done(kbd->opaque, error);
}

static int send_stroke(struct keyboard *kbd, const struct keystroke *stroke)
{
	const struct event_message event = {
		.type = EVENT,
		.make = stroke->make,
		.flags = (stroke->release ? IS_BREAK : 0) | (stroke->e0 ? IS_E0 : 0),
	};

	return vmbus_send(kbd->device.channel, VMBUS_PACKET_INBAND, 0, 0, &event, sizeof(event));
}

/* Types on to the next pause, or as far as there is room. A guest that breaks the ring closes the channel meanwhile. */
static void type(struct keyboard *kbd)
{
	bool pause = false;

	while (kbd->strokes && kbd->next < kbd->count && !pause) {
		if (send_stroke(kbd, &kbd->strokes[kbd->next]))
			return;
		pause = kbd->strokes[kbd->next++].pause;
	}
	if (kbd->strokes && kbd->next == kbd->count) {
		end(kbd, 0);
	} else if (kbd->strokes) {
		kbd->waiting = true;
		loop_timer(&kbd->vm->loop, &kbd->op, &kbd->ts, PAUSE_NS);
	}
}

static void paused(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct keyboard *kbd = (struct keyboard *)((char *)op - offsetof(struct keyboard, op));

	(void)res;
	(void)cqe_flags;
	kbd->waiting = false;
	if (kbd->dying) {
		free(kbd);
		return;
	}
	if (!kbd->strokes)
		return;
	type(kbd);
	if (kbd->up)
		vmbus_flush(kbd->device.channel);
}

int keyboard_type(struct vm *vm, const struct keystroke *strokes, size_t count, void (*done)(void *opaque, int error),
		  void *opaque)
{
	struct vmbus_device *device = vm->vmbus ? vmbus_find_device(vm->vmbus, class.name) : NULL;
	struct keyboard *kbd = (struct keyboard *)device;

	if (!kbd || !kbd->up)
		return -ENOTCONN;
	if (kbd->strokes)
		return -EBUSY;
	kbd->strokes = malloc(count * sizeof(*strokes));
	if (!kbd->strokes)
		return -ENOMEM;
	memcpy(kbd->strokes, strokes, count * sizeof(*strokes));
	kbd->count = count;
	kbd->next = 0;
	kbd->done = done;
	kbd->opaque = opaque;
	/* By the timer, so that done() comes later. One that still runs for those before will do. */
	if (!kbd->waiting) {
		kbd->waiting = true;
		loop_timer(&vm->loop, &kbd->op, &kbd->ts, 0);
	}
	return 0;
}

/* ---- From the guest ---- */

static int take_request(struct keyboard *kbd, const struct vmbus_packet *packet)
{
	const struct word_message *request = packet->payload;
	const struct word_message response = { RESPONSE, request->value == VERSION };

	kbd->up = request->value == VERSION;
	if (!kbd->up)
		end(kbd, -ECONNRESET);
	return vmbus_send(kbd->device.channel, VMBUS_PACKET_INBAND, 0, 0, &response, sizeof(response));
}

/* A guest whose ring has no room for an answer has asked a hundred times and reads nothing: it fails. */
static int take_packet(struct vmbus_channel *channel, const struct vmbus_packet *packet)
{
	struct keyboard *kbd = keyboard_of(channel);
	const struct word_message *message = packet->payload;
	int ret = 0;

	if (packet->type != VMBUS_PACKET_INBAND || packet->size < sizeof(*message))
		return -EINVAL;
	if (packet->flags & VMBUS_PACKET_COMPLETION_REQUESTED)
		ret = vmbus_send(channel, VMBUS_PACKET_COMPLETION, 0, packet->transaction, NULL, 0);
	if (!ret && message->type == REQUEST)
		ret = take_request(kbd, packet);
	else if (!ret && message->type != INDICATORS)
		ret = -EINVAL;
	return ret == -ENOTCONN ? 0 : ret;
}

static int open_channel(struct vmbus_channel *channel)
{
	keyboard_of(channel)->up = false;
	return 0;
}

static void go_down(struct keyboard *kbd)
{
	kbd->up = false;
	end(kbd, -ECONNRESET);
}

static void close_channel(struct vmbus_channel *channel)
{
	go_down(keyboard_of(channel));
}

static void room(struct vmbus_channel *channel)
{
	struct keyboard *kbd = keyboard_of(channel);

	if (!kbd->waiting)
		type(kbd);
}

static void reset(struct vmbus_device *device)
{
	go_down((struct keyboard *)device);
}

static void destroy(struct vmbus_device *device)
{
	struct keyboard *kbd = (struct keyboard *)device;

	end(kbd, -ECONNRESET);
	/* The ring of a loop that has ended calls nobody; otherwise it still has the timer's address. */
	if (!kbd->waiting || kbd->vm->loop.stopping) {
		free(kbd);
		return;
	}
	kbd->dying = true;
	loop_cancel(&kbd->vm->loop, &kbd->op);
}

static const struct vmbus_device_class class = {
	.name = "keyboard",
	.type = VMBUS_GUID(0xf912ad6d, 0x2b17, 0x48ea, 0xbd, 0x65, 0xf9, 0x27, 0xa6, 0x1c, 0x76, 0x84),
	.instance = VMBUS_GUID(0xd34b2567, 0xb9b6, 0x42b9, 0x87, 0x78, 0x0a, 0x4e, 0xc0, 0xb9, 0x55, 0xbf),
	.packet_max = PACKET_MAX,
	.open = open_channel,
	.close = close_channel,
	.packet = take_packet,
	.room = room,
	.reset = reset,
	.destroy = destroy,
};

int keyboard_create(struct vm *vm)
{
	struct keyboard *kbd = calloc(1, sizeof(*kbd));
	int ret = -ENOMEM;

	if (kbd) {
		kbd->vm = vm;
		kbd->op.fn = paused;
		ret = vmbus_add_device(vm->vmbus, &kbd->device, &class, NULL);
	}
	if (ret) {
		log_line("vmbus: keyboard: %s", strerror(-ret));
		free(kbd);
	}
	return ret;
}
