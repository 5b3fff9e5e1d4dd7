/* SPDX-License-Identifier: MIT */
/*
 * The machine as the integration services see it: a bus with one channel a device, the loop's timers, and clocks that
 * only move when told to. For unit tests and fuzzers; one program includes it once.
 */
#ifndef TESTS_UNIT_IC_FAKE_H
#define TESTS_UNIT_IC_FAKE_H

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arch/x86/hyperv/hyperv.h"
#include "devices/vmbus/ic.h"
#include "vmm/log.h"
#include "vmm/vm.h"

#define FAKE_TIMERS 32
#define FAKE_FILES  4
#define SECOND	    1000000000ULL
#define HEADERS	    (sizeof(struct ic_pipe_header) + sizeof(struct ic_header))

struct fake_packet {
	size_t size;
	uint8_t payload[HEADERS + IC_BODY_MAX];
};

struct vmbus {
	struct vmbus_device *devices;
};

struct vmbus_channel {
	struct vmbus_device *device;
	bool open;
	struct fake_packet last; /* sent on it */
};

static struct fake {
	struct vm vm;
	struct vmbus bus;
	uint64_t now;
	struct {
		struct loop_op *op;
		uint64_t at;
		bool cancelled;
	} timers[FAKE_TIMERS];
	struct {
		struct loop_op *op;
		struct io_uring_sqe sqe;
		bool cancelled;
	} files[FAKE_FILES];	 /* what the loop is to do with them */
	struct fake_packet last; /* that was sent to the guest */
	unsigned int sent, flushed;
	bool full;	/* the guest's ring */
	int send_error; /* of the next vmbus_send(); -EPROTO: the guest has broken the ring, which closes the channel */
	int add_error;	/* of the next vmbus_add_device() */
	unsigned int logs;
	char log[256];
	uint64_t reference;
} fake;

uint64_t clock_ns(void)
{
	return fake.now;
}

uint64_t hv_reference_time(struct hv_partition *partition)
{
	(void)partition;
	return fake.reference++;
}

void log_line(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(fake.log, sizeof(fake.log), fmt, ap);
	va_end(ap);
	fake.logs++;
}

/* ---- Loop ---- */

void loop_timer(struct loop *loop, struct loop_op *op, struct __kernel_timespec *ts, uint64_t ns)
{
	assert(loop == &fake.vm.loop && ts && op->fn);
	for (size_t i = 0; i < FAKE_TIMERS; i++)
		assert(fake.timers[i].op != op);
	for (size_t i = 0; i < FAKE_TIMERS; i++) {
		if (!fake.timers[i].op) {
			fake.timers[i].op = op;
			fake.timers[i].at = fake.now + ns;
			fake.timers[i].cancelled = false;
			return;
		}
	}
	assert(!"too many timers");
}

void loop_cancel(struct loop *loop, struct loop_op *op)
{
	assert(loop == &fake.vm.loop);
	for (size_t i = 0; i < FAKE_TIMERS; i++)
		if (fake.timers[i].op == op)
			fake.timers[i].cancelled = true;
	for (size_t i = 0; i < FAKE_FILES; i++)
		if (fake.files[i].op == op)
			fake.files[i].cancelled = true;
}

struct io_uring_sqe *loop_sqe(struct loop *loop, struct loop_op *op)
{
	assert(loop == &fake.vm.loop);
	for (size_t i = 0; i < FAKE_FILES; i++) {
		if (!fake.files[i].op) {
			memset(&fake.files[i], 0, sizeof(fake.files[i]));
			fake.files[i].op = op;
			return &fake.files[i].sqe;
		}
	}
	assert(!"too many requests");
	return NULL;
}

/* Opens and reads what loop_sqe() was asked to, until nothing new comes of it. */
static inline void fake_run_files(void)
{
	for (size_t i = 0; i < FAKE_FILES; i++) {
		struct loop_op *op = fake.files[i].op;
		const struct io_uring_sqe *sqe = &fake.files[i].sqe;
		long ret = -ECANCELED;

		if (!op)
			continue;
		if (!fake.files[i].cancelled && sqe->opcode == IORING_OP_OPENAT)
			ret = open((const char *)(uintptr_t)sqe->addr, (int)sqe->open_flags);
		else if (!fake.files[i].cancelled && sqe->opcode == IORING_OP_READ)
			ret = pread(sqe->fd, (void *)(uintptr_t)sqe->addr, sqe->len, (off_t)sqe->off);
		else
			assert(fake.files[i].cancelled);
		fake.files[i].op = NULL;
		op->fn(op, ret == -1 ? -errno : (int)ret, 0);
		i = (size_t)-1;
	}
}

/* Timers in the loop's ring that nobody has cancelled. */
static inline unsigned int fake_timers(void)
{
	unsigned int n = 0;

	for (size_t i = 0; i < FAKE_TIMERS; i++)
		n += fake.timers[i].op && !fake.timers[i].cancelled;
	return n;
}

/* Lets ns nanoseconds pass. */
static inline void fake_run(uint64_t ns)
{
	uint64_t end = fake.now + ns;

	fake_run_files();
	for (;;) {
		struct loop_op *op;
		size_t next = FAKE_TIMERS;
		bool cancelled;

		for (size_t i = 0; i < FAKE_TIMERS; i++) {
			if (!fake.timers[i].op)
				continue;
			if (fake.timers[i].cancelled)
				fake.timers[i].at = fake.now;
			if (next == FAKE_TIMERS || fake.timers[i].at < fake.timers[next].at)
				next = i;
		}
		if (next == FAKE_TIMERS || fake.timers[next].at > end)
			break;
		op = fake.timers[next].op;
		cancelled = fake.timers[next].cancelled;
		if (fake.timers[next].at > fake.now)
			fake.now = fake.timers[next].at;
		fake.timers[next].op = NULL;
		op->fn(op, cancelled ? -ECANCELED : -ETIME, 0);
		fake_run_files();
	}
	fake.now = end;
}

/* ---- Bus ---- */

int vmbus_add_device(struct vmbus *bus, struct vmbus_device *device, const struct vmbus_device_class *class,
		     const struct vmbus_guid *instance)
{
	int ret = fake.add_error;

	assert(bus == &fake.bus && !instance);
	fake.add_error = 0;
	if (ret)
		return ret;
	device->class = class;
	device->bus = bus;
	device->instance = class->instance;
	device->channel = calloc(1, sizeof(*device->channel));
	assert(device->channel);
	device->channel->device = device;
	device->next = bus->devices;
	bus->devices = device;
	return 0;
}

struct vmbus_device *vmbus_find_device(struct vmbus *bus, const char *name)
{
	struct vmbus_device *device = bus->devices;

	while (device && strcmp(device->class->name, name) != 0)
		device = device->next;
	return device;
}

struct vmbus_device *vmbus_channel_device(const struct vmbus_channel *channel)
{
	return channel->device;
}

bool vmbus_channel_is_open(const struct vmbus_channel *channel)
{
	return channel->open;
}

int vmbus_send(struct vmbus_channel *channel, uint16_t type, uint16_t flags, uint64_t transaction, const void *payload,
	       size_t size)
{
	int ret = fake.send_error;

	assert(type == VMBUS_PACKET_INBAND && !flags && size <= sizeof(fake.last.payload));
	if (!channel->open)
		return -ENOTCONN;
	fake.send_error = 0;
	if (ret == -EPROTO) {
		channel->open = false;
		channel->device->class->close(channel);
		return -ENOTCONN;
	}
	if (ret)
		return ret;
	if (fake.full)
		return -EAGAIN;
	(void)transaction;
	channel->last.size = size;
	memcpy(channel->last.payload, payload, size);
	fake.last = channel->last;
	fake.sent++;
	return 0;
}

void vmbus_flush(struct vmbus_channel *channel)
{
	assert(channel->open);
	fake.flushed = fake.sent;
}

/* ---- What guest and machine do ---- */

static inline int fake_open(struct ic *ic)
{
	struct vmbus_channel *channel = ic->device.channel;
	int ret;

	channel->open = true;
	ret = ic->device.class->open(channel);
	channel->open = !ret;
	return ret;
}

static inline void fake_close(struct ic *ic)
{
	ic->device.channel->open = false;
	ic->device.class->close(ic->device.channel);
}

/* A packet of the guest's: size bytes, padded as on a ring. */
static inline int fake_packet(struct ic *ic, uint16_t type, const void *payload, size_t size)
{
	size_t padded = (size + 7) & ~(size_t)7;
	uint8_t *copy = calloc(1, padded ? padded : 1); /* its own piece, so that ASan sees a read past its end */
	const struct vmbus_packet packet = { .type = type, .payload = copy, .size = padded };
	int ret;

	assert(copy);
	if (size)
		memcpy(copy, payload, size);
	ret = ic->device.class->packet(ic->device.channel, &packet);
	free(copy);
	return ret;
}

/* There is room in the guest's ring again. */
static inline void fake_room(struct ic *ic)
{
	fake.full = false;
	ic->device.class->room(ic->device.channel);
}

static inline void fake_reset(struct ic *ic)
{
	if (ic->device.channel->open)
		fake_close(ic);
	ic->device.class->reset(&ic->device);
}

static inline void fake_setup(void)
{
	memset(&fake, 0, sizeof(fake));
	fake.vm.vmbus = &fake.bus;
	fake.now = 1000 * SECOND;
	fake.reference = 5000;
}

/* Takes a device off the bus, as vmbus_remove_device() does. */
static inline void fake_remove(struct vmbus_device *device)
{
	struct vmbus_device **link = &fake.bus.devices;

	while (*link != device)
		link = &(*link)->next;
	*link = device->next;
	free(device->channel);
	device->class->destroy(device);
}

/* The end of the machine: the loop has stopped, with timers in its ring. */
static inline void fake_teardown(void)
{
	fake.vm.loop.stopping = true;
	while (fake.bus.devices)
		fake_remove(fake.bus.devices);
	fake_run_files(); /* a buffer that the kernel may write to outlives its device */
}

/* ---- The guest's driver ---- */

static inline struct ic_header last_header(void)
{
	struct ic_header header;

	memcpy(&header, fake.last.payload + sizeof(struct ic_pipe_header), sizeof(header));
	return header;
}

static inline const void *last_body(void)
{
	return fake.last.payload + HEADERS;
}

static inline int say(struct ic *ic, uint16_t type, uint8_t transaction, uint8_t flags, uint32_t status,
		      const void *body, size_t size)
{
	uint8_t packet[HEADERS + 4096];
	const struct ic_header header = {
		.type = type, .size = (uint16_t)size, .status = status, .transaction = transaction, .flags = flags
	};
	const struct ic_pipe_header pipe = { IC_PIPE_DATA, (uint32_t)(sizeof(header) + size) };

	memcpy(packet, &pipe, sizeof(pipe));
	memcpy(packet + sizeof(pipe), &header, sizeof(header));
	if (size)
		memcpy(packet + HEADERS, body, size);
	return fake_packet(ic, VMBUS_PACKET_INBAND, packet, HEADERS + size);
}

/* Answers the last message. */
static inline int answer(struct ic *ic, uint32_t status, const void *body, size_t size)
{
	struct ic_header header = last_header();

	return say(ic, header.type, header.transaction, IC_FLAG_TRANSACTION | IC_FLAG_RESPONSE, status, body, size);
}

static inline int choose(struct ic *ic, uint16_t fw, uint16_t major, uint16_t minor)
{
	const uint16_t body[] = { 1, 1, 0, 0, fw, 0, major, minor };

	return answer(ic, IC_S_OK, body, sizeof(body));
}

/* As Linux does: the message comes back as it is, marked as a response. */
static inline int echo(struct ic *ic)
{
	return answer(ic, IC_S_OK, last_body(), fake.last.size - HEADERS);
}

#endif
