/* SPDX-License-Identifier: MIT */
/*
 * The bus: its life, and who handles what the guest sends. contact.c is about connections, offer.c about channels and
 * devices coming and going, gpadl.c about lists of guest pages, channel.c about open channels, monitor.c about signals
 * that are looked for, outbox.c about what is to be sent. docs/vmbus.md describes the protocol.
 *
 * A guest may send anything at any time. What cannot be is answered with a failure where the protocol has an answer,
 * and otherwise told once in the log and ignored.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/vmbus/internal.h"
#include "vmm/log.h"
#include "vmm/trace.h"

#define HV_MESSAGE_CHANNEL 1u /* SynIC message type of all that arrives here, for the trace */

struct vmbus *vmbus_create(const struct vmbus_transport *transport, void *opaque)
{
	struct vmbus *bus = calloc(1, sizeof(*bus));

	if (!bus)
		return NULL;
	bus->transport = transport;
	bus->opaque = opaque;
	bus->sint = VMBUS_SINT;
	return bus;
}

void bus_enter(struct vmbus *bus)
{
	bus->depth++;
}

static void destroy_device(struct vmbus_device *device)
{
	if (device->class->destroy)
		device->class->destroy(device);
}

static void bury(struct vmbus *bus)
{
	struct vmbus_device *device;
	struct vmbus_channel *channel;

	while ((device = bus->dead_devices)) {
		bus->dead_devices = device->next;
		destroy_device(device);
	}
	while ((channel = bus->dead_channels)) {
		bus->dead_channels = channel->next;
		free(channel);
	}
}

void bus_leave(struct vmbus *bus)
{
	if (bus->depth == 1) {
		outbox_pump(bus);
		bury(bus);
	}
	bus->depth--;
}

void vmbus_destroy(struct vmbus *bus)
{
	struct vmbus_device *device;

	if (!bus)
		return;
	bus_enter(bus);
	bus_disconnect(bus);
	while ((device = bus->devices)) {
		bus->devices = device->next;
		bus->channels[device->channel->relid] = NULL;
		device->channel->next = bus->dead_channels;
		bus->dead_channels = device->channel;
		device->next = bus->dead_devices;
		bus->dead_devices = device;
	}
	bury(bus);
	free(bus);
}

void vmbus_reset(struct vmbus *bus)
{
	bus_enter(bus);
	bus_disconnect(bus);
	bus->contacted = false;
	bus->vp = 0;
	bus->sint = VMBUS_SINT;
	for (struct vmbus_device *device = bus->devices; device; device = device->next)
		if (device->class->reset)
			device->class->reset(device);
	bus_leave(bus);
}

void bus_log(struct vmbus *bus, const char *fmt, ...)
{
	char line[160];
	va_list ap;

	if (bus->log_connection >= BUS_LOG_CONNECTION || bus->log_total >= BUS_LOG_TOTAL)
		return;
	bus->log_connection++;
	bus->log_total++;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	log_line("vmbus: %s", line);
	if (bus->log_connection == BUS_LOG_CONNECTION || bus->log_total == BUS_LOG_TOTAL)
		log_line("vmbus: no more is said about this guest's mistakes%s",
			 bus->log_total == BUS_LOG_TOTAL ? "" : " until it makes contact anew");
}

static uint32_t relid_of(const void *message)
{
	struct vmbus_relid_message m;

	memcpy(&m, message, sizeof(m));
	return m.relid;
}

static void do_request_offers(struct vmbus *bus, const void *message, size_t size)
{
	(void)message;
	(void)size;
	offer_request(bus);
}

static void do_close(struct vmbus *bus, const void *message, size_t size)
{
	(void)size;
	channel_close(bus, relid_of(message));
}

static void do_relid_released(struct vmbus *bus, const void *message, size_t size)
{
	(void)size;
	offer_relid_released(bus, relid_of(message));
}

static void do_gpadl_teardown(struct vmbus *bus, const void *message, size_t size)
{
	struct vmbus_gpadl_teardown m;

	(void)size;
	memcpy(&m, message, sizeof(m));
	gpadl_teardown(bus, m.relid, m.gpadl);
}

static void do_modify(struct vmbus *bus, const void *message, size_t size)
{
	struct vmbus_modify m;

	(void)size;
	memcpy(&m, message, sizeof(m));
	channel_modify(bus, m.relid, m.target_vp);
}

/* Nothing on the host listens for socket connections yet. Before 4.1 a guest finds out by waiting. */
static void do_tl_connect(struct vmbus *bus, const void *message, size_t size)
{
	struct vmbus_tl_connect_result answer = { .header.type = VMBUS_TL_CONNECT_RESULT };
	struct vmbus_tl_connect m;

	(void)size;
	if (bus->version < VMBUS_V4_1)
		return;
	memcpy(&m, message, sizeof(m));
	answer.endpoint = m.endpoint;
	answer.service = m.service;
	answer.status = VMBUS_STATUS_REFUSED;
	outbox_answer(bus, &answer, sizeof(answer));
}

/* The guest wants silence from here on until it says RESUME (or ends the connection). */
static void do_pause(struct vmbus *bus, const void *message, size_t size)
{
	struct vmbus_header answer = { .type = VMBUS_PAUSE_RESPONSE };

	(void)message;
	(void)size;
	bus->pausing = true;
	outbox_answer(bus, &answer, sizeof(answer));
}

static void do_resume(struct vmbus *bus, const void *message, size_t size)
{
	(void)message;
	(void)size;
	bus->pausing = false;
	bus->paused = false;
}

/* What a connected guest may send. Shorter messages than min are ignored; open and gpadl_header answer them. */
static const struct handler {
	void (*handle)(struct vmbus *bus, const void *message, size_t size);
	size_t min;
	uint32_t version, feature;
} handlers[] = {
	[VMBUS_REQUEST_OFFERS] = { do_request_offers, sizeof(struct vmbus_header), VMBUS_V0_13, 0 },
	[VMBUS_OPEN] = { channel_open, sizeof(struct vmbus_header), VMBUS_V0_13, 0 },
	[VMBUS_CLOSE] = { do_close, sizeof(struct vmbus_relid_message), VMBUS_V0_13, 0 },
	[VMBUS_GPADL_HEADER] = { gpadl_header, sizeof(struct vmbus_header), VMBUS_V0_13, 0 },
	[VMBUS_GPADL_BODY] = { gpadl_body, sizeof(struct vmbus_gpadl_body), VMBUS_V0_13, 0 },
	[VMBUS_GPADL_TEARDOWN] = { do_gpadl_teardown, sizeof(struct vmbus_gpadl_teardown), VMBUS_V0_13, 0 },
	[VMBUS_RELID_RELEASED] = { do_relid_released, sizeof(struct vmbus_relid_message), VMBUS_V0_13, 0 },
	[VMBUS_TL_CONNECT] = { do_tl_connect, sizeof(struct vmbus_tl_connect), VMBUS_V4_0, 0 },
	[VMBUS_MODIFY] = { do_modify, sizeof(struct vmbus_modify), VMBUS_V4_1, 0 },
	[VMBUS_PAUSE] = { do_pause, sizeof(struct vmbus_header), VMBUS_V6_0, VMBUS_FEATURE_PAUSE },
	[VMBUS_RESUME] = { do_resume, sizeof(struct vmbus_header), VMBUS_V6_0, VMBUS_FEATURE_PAUSE },
};

static void dispatch(struct vmbus *bus, uint32_t type, const void *message, size_t size)
{
	const struct handler *handler = type < sizeof(handlers) / sizeof(handlers[0]) ? &handlers[type] : NULL;

	if (!bus->version) {
		/* Linux lets go of its channels after the UNLOAD. */
		if (type != VMBUS_RELID_RELEASED)
			bus_log(bus, "message %u without a connection", type);
	} else if (bus->paused && type != VMBUS_RESUME) {
		bus_log(bus, "message %u while paused", type);
	} else if (!handler || !handler->handle || bus->version < handler->version ||
		   (handler->feature & ~bus->features)) {
		if (!bus->unknown_logged)
			bus_log(bus, "message %u is unknown in version %u.%u", type, bus->version >> 16,
				bus->version & 0xffff);
		bus->unknown_logged = true;
	} else if (size < handler->min) {
		bus_log(bus, "message %u of %zu bytes is too short", type, size);
	} else {
		handler->handle(bus, message, size);
	}
}

bool vmbus_receive(struct vmbus *bus, uint32_t connection, const void *message, size_t size)
{
	struct vmbus_header header;
	bool anew;

	TRACE(vmbus_recv_message, "type %u size %zu connection %u", HV_MESSAGE_CHANNEL, size, connection);
	if (size < sizeof(header) || size > VMBUS_MESSAGE_MAX) {
		bus_log(bus, "message of %zu bytes", size);
		return true;
	}
	memcpy(&header, message, sizeof(header));
	/* These two empty the queue. */
	anew = header.type == VMBUS_INITIATE_CONTACT || header.type == VMBUS_UNLOAD;
	if (!anew && outbox_is_full(bus))
		return false;
	TRACE(vmbus_process_incoming_message, "type %u", header.type);
	bus_enter(bus);
	if (header.type == VMBUS_INITIATE_CONTACT)
		bus_contact(bus, connection, message, size);
	else if (header.type == VMBUS_UNLOAD)
		bus_unload(bus);
	else
		dispatch(bus, header.type, message, size);
	bus_leave(bus);
	return true;
}

/* The second half of an old version's page has the relids that the guest has signalled. */
static void scan_interrupt_page(struct vmbus *bus)
{
	uint64_t *words = (uint64_t *)(bus->interrupt_page + VMBUS_PAGE / 2);

	for (uint32_t base = 0; base < VMBUS_CHANNELS; base += 64) {
		uint64_t bits = __atomic_exchange_n(&words[base / 64], 0, __ATOMIC_SEQ_CST);

		for (; bits; bits &= bits - 1) {
			struct vmbus_channel *channel = bus->channels[base + (unsigned int)__builtin_ctzll(bits)];

			if (channel)
				channel_run(channel);
		}
	}
}

static struct vmbus_channel *channel_of(const struct vmbus *bus, uint32_t connection)
{
	struct vmbus_channel *channel = NULL;
	uint32_t relid = connection - VMBUS_CONNECTION_CHANNEL;

	if (relid < VMBUS_CHANNELS)
		channel = bus->channels[relid];
	if (channel && channel->state == CHANNEL_OPEN && channel->connection == connection)
		return channel;
	/* Only the guest's own numbers have to be looked for. */
	for (relid = bus->features & VMBUS_FEATURE_GUEST_SIGNAL ? 1 : VMBUS_CHANNELS; relid < bus->relid_end; relid++) {
		channel = bus->channels[relid];
		if (channel && channel->state == CHANNEL_OPEN && channel->connection == connection)
			return channel;
	}
	return NULL;
}

void vmbus_signalled(struct vmbus *bus, uint32_t connection)
{
	struct vmbus_channel *channel;

	TRACE(vmbus_signal_event, "connection 0x%x", connection);
	bus_enter(bus);
	if (connection == VMBUS_CONNECTION_EVENT && bus->interrupt_page) {
		scan_interrupt_page(bus);
	} else {
		channel = channel_of(bus, connection);
		if (channel)
			channel_run(channel);
	}
	bus_leave(bus);
}

void vmbus_room(struct vmbus *bus)
{
	bus_enter(bus);
	bus_leave(bus);
}
