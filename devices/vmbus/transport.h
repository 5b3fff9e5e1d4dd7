/* SPDX-License-Identifier: MIT */
/*
 * What carries VMBus: the bus calls these functions, and whoever provides them calls the ones below. Loop thread.
 */
#ifndef DEVICES_VMBUS_TRANSPORT_H
#define DEVICES_VMBUS_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "devices/vmbus/vmbus.h"

struct vmbus_transport {
	/*
	 * Sends a channel message (at most 240 bytes) to the message SINT of a VP. 0; -EAGAIN when there is no room
	 * now: vmbus_room() is called when there is; -EINVAL for a VP that does not exist.
	 */
	int (*send)(void *opaque, unsigned int vp, unsigned int sint, const void *message, size_t size);
	/* Sets an event flag of a VP's SINT and interrupts it. */
	void (*signal)(void *opaque, unsigned int vp, unsigned int sint, unsigned int flag);
	/* HvSignalEvent on this connection id is to call vmbus_signalled(bus, connection), until disconnect(). */
	int (*connect)(void *opaque, uint32_t connection);
	void (*disconnect)(void *opaque, uint32_t connection);
	/*
	 * The bus has more to do for this connection id, but others shall have a turn: vmbus_signalled(bus, connection)
	 * is to be called once more, from the loop and not from here. A call that comes after disconnect() does no
	 * harm.
	 */
	void (*again)(void *opaque, uint32_t connection);
	/*
	 * vmbus_monitor(bus) is to be called about every ns nanoseconds from now on, from the loop and not from here;
	 * 0: no more. A call that comes too late does no harm.
	 */
	void (*monitor)(void *opaque, uint64_t ns);
	/* Guest RAM: host address of [gpa, gpa + size), NULL unless all of it is RAM in one piece. */
	void *(*map)(void *opaque, uint64_t gpa, size_t size);
	/*
	 * One mapping of count guest pages of 4 KiB, twice in a row if twice is set, so that a ring never wraps. NULL
	 * where guest RAM cannot be mapped a second time (it is not a memfd). unmap() with the same count and twice.
	 */
	void *(*map_pages)(void *opaque, const uint64_t *pfns, size_t count, bool twice);
	void (*unmap_pages)(void *opaque, void *address, size_t count, bool twice);
	/* Number of VPs; a VP index is less. */
	unsigned int (*vps)(void *opaque);
};

/* offset of guest time and such stay with the devices; the bus has no clock. vmbus_destroy() destroys the devices. */
struct vmbus *vmbus_create(const struct vmbus_transport *transport, void *opaque);
void vmbus_destroy(struct vmbus *bus);

/*
 * A message from the guest, a copy, on connection id 1 or 4. False: the bus cannot take it before vmbus_room() (its
 * answers wait for room); the caller keeps it and offers it again then.
 */
bool vmbus_receive(struct vmbus *bus, uint32_t connection, const void *message, size_t size);
/* The guest has signalled an event connection. */
void vmbus_signalled(struct vmbus *bus, uint32_t connection);
/* Looks whether the guest has signalled by its monitor page. */
void vmbus_monitor(struct vmbus *bus);
/* send() may have room again. */
void vmbus_room(struct vmbus *bus);
/* The machine is reset: closes channels, forgets GPADLs and the connection; devices stay, offers start anew. */
void vmbus_reset(struct vmbus *bus);

#endif
