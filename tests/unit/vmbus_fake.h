/* SPDX-License-Identifier: MIT */
/* A carrier for the bus with a guest's memory, and the guest's side of messages and rings, for tests and fuzzing. */
#ifndef TESTS_UNIT_VMBUS_FAKE_H
#define TESTS_UNIT_VMBUS_FAKE_H

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devices/vmbus/protocol.h"
#include "devices/vmbus/transport.h"
#include "tests/unit/trace_fake.h"
#include "vmm/log.h"

enum {
	FAKE_RAM = 64 << 20,
	FAKE_PAGES = FAKE_RAM / VMBUS_PAGE,
	FAKE_VPS = 4,
	FAKE_MESSAGES = 8192,
	FAKE_CONNECTIONS = 2100,
};

struct fake_message {
	unsigned int vp, sint;
	size_t size;
	uint8_t bytes[VMBUS_MESSAGE_MAX];
};

struct fake {
	int memfd;
	uint8_t *ram;
	bool map_twice; /* else map_pages() fails */
	unsigned int maps;

	struct fake_message *messages; /* sent by the bus, not yet taken by the guest */
	unsigned int first, count;
	int room; /* messages that may be sent, -1: any number */

	uint32_t connections[FAKE_CONNECTIONS];	 /* 0: free */
	unsigned int connected, connections_end; /* none is in use from there on */
	bool refuse_connect;
	unsigned int again;
	uint32_t again_connection;
	uint64_t monitor_ns; /* as the bus wants it */

	unsigned int signals, vp, sint, flag; /* number, and the last one's target */
	unsigned int lines;
	char line[256];
	struct vmbus *bus;
};

static struct fake fake;

void log_line(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(fake.line, sizeof(fake.line), fmt, ap);
	va_end(ap);
	fake.lines++;
}

static int fake_send(void *opaque, unsigned int vp, unsigned int sint, const void *message, size_t size)
{
	struct fake_message *m = &fake.messages[(fake.first + fake.count) % FAKE_MESSAGES];

	(void)opaque;
	if (vp >= FAKE_VPS || sint >= 16 || size > VMBUS_MESSAGE_MAX || size < sizeof(struct vmbus_header))
		abort();
	if (!fake.room || fake.count == FAKE_MESSAGES)
		return -EAGAIN;
	if (fake.room > 0)
		fake.room--;
	m->vp = vp;
	m->sint = sint;
	m->size = size;
	memcpy(m->bytes, message, size);
	fake.count++;
	return 0;
}

static void fake_signal(void *opaque, unsigned int vp, unsigned int sint, unsigned int flag)
{
	(void)opaque;
	if (vp >= FAKE_VPS || sint >= 16 || flag >= VMBUS_CHANNELS)
		abort();
	fake.signals++;
	fake.vp = vp;
	fake.sint = sint;
	fake.flag = flag;
}

static uint32_t *fake_connection(uint32_t connection)
{
	for (unsigned int i = 0; i < fake.connections_end; i++)
		if (fake.connections[i] == connection)
			return &fake.connections[i];
	return connection || fake.connections_end == FAKE_CONNECTIONS ? NULL
								      : &fake.connections[fake.connections_end++];
}

static int fake_connect(void *opaque, uint32_t connection)
{
	uint32_t *free_one;

	(void)opaque;
	if (!connection || connection > VMBUS_CONNECTION_MAX)
		abort();
	if (fake_connection(connection))
		return -EEXIST;
	free_one = fake.refuse_connect ? NULL : fake_connection(0);
	if (!free_one)
		return -ENOMEM;
	*free_one = connection;
	fake.connected++;
	return 0;
}

static void fake_disconnect(void *opaque, uint32_t connection)
{
	uint32_t *one = fake_connection(connection);

	(void)opaque;
	if (!one)
		abort(); /* it is not connected */
	*one = 0;
	fake.connected--;
}

static void fake_again(void *opaque, uint32_t connection)
{
	(void)opaque;
	fake.again++;
	fake.again_connection = connection;
}

static void fake_monitor(void *opaque, uint64_t ns)
{
	(void)opaque;
	if (ns == fake.monitor_ns)
		abort(); /* the bus knows that it is so */
	fake.monitor_ns = ns;
}

static void *fake_map(void *opaque, uint64_t gpa, size_t size)
{
	(void)opaque;
	return gpa < FAKE_RAM && size <= FAKE_RAM - gpa ? fake.ram + gpa : NULL;
}

static void *fake_map_pages(void *opaque, const uint64_t *pfns, size_t count, bool twice)
{
	size_t length = count * VMBUS_PAGE;
	uint8_t *at;

	(void)opaque;
	if (!fake.map_twice)
		return NULL;
	at = mmap(NULL, length << twice, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return NULL;
	for (size_t i = 0; i < count << twice; i++)
		if (mmap(at + i * VMBUS_PAGE, VMBUS_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fake.memfd,
			 (off_t)(pfns[i % count] * VMBUS_PAGE)) == MAP_FAILED)
			abort();
	fake.maps++;
	return at;
}

static void fake_unmap_pages(void *opaque, void *address, size_t count, bool twice)
{
	(void)opaque;
	if (munmap(address, (count * VMBUS_PAGE) << twice))
		abort();
	fake.maps--;
}

static unsigned int fake_vps(void *opaque)
{
	(void)opaque;
	return FAKE_VPS;
}

static const struct vmbus_transport fake_transport = {
	.send = fake_send,
	.signal = fake_signal,
	.connect = fake_connect,
	.disconnect = fake_disconnect,
	.again = fake_again,
	.monitor = fake_monitor,
	.map = fake_map,
	.map_pages = fake_map_pages,
	.unmap_pages = fake_unmap_pages,
	.vps = fake_vps,
};

/* Memory once for the process, everything else anew. */
static void fake_setup(void)
{
	uint8_t *ram = fake.ram;
	struct fake_message *messages = fake.messages;
	int memfd = fake.memfd;

	if (!ram) {
		memfd = memfd_create("guest", MFD_CLOEXEC);
		if (memfd < 0 || ftruncate(memfd, FAKE_RAM))
			abort();
		ram = mmap(NULL, FAKE_RAM, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
		messages = calloc(FAKE_MESSAGES, sizeof(*messages));
		if (ram == MAP_FAILED || !messages)
			abort();
	}
	fake = (struct fake){ .memfd = memfd, .ram = ram, .messages = messages, .room = -1 };
	fake.bus = vmbus_create(&fake_transport, &fake);
	if (!fake.bus)
		abort();
}

/* Frees the bus; what it took must all be given back. */
static void fake_teardown(void)
{
	vmbus_destroy(fake.bus);
	fake.bus = NULL;
	if (fake.connected || fake.maps || fake.monitor_ns)
		abort();
}

static void fake_end(void)
{
	munmap(fake.ram, FAKE_RAM);
	free(fake.messages);
	close(fake.memfd);
	fake.ram = NULL;
}

/* The guest's end of a channel: both rings in its pages [first, first + count), split at page split. */
struct fake_ring {
	uint8_t *control, *data;
	uint32_t size;
};

struct fake_rings {
	struct fake_ring to_host, to_guest;
};

static uint32_t *fake_word(const struct fake_ring *ring, unsigned int word)
{
	return (uint32_t *)ring->control + word;
}
enum { RING_WRITE, RING_READ, RING_MASK, RING_PENDING, RING_FEATURES = 16 };

static struct fake_rings fake_rings(uint32_t first, uint32_t count, uint32_t split)
{
	struct fake_rings rings = {
		.to_host = { fake.ram + (size_t)first * VMBUS_PAGE, fake.ram + (first + 1ul) * VMBUS_PAGE,
			     (split - 1) * VMBUS_PAGE },
		.to_guest = { fake.ram + ((size_t)first + split) * VMBUS_PAGE,
			      fake.ram + (first + split + 1ul) * VMBUS_PAGE, (count - split - 1) * VMBUS_PAGE },
	};

	memset(rings.to_host.control, 0, VMBUS_PAGE);
	memset(rings.to_guest.control, 0, VMBUS_PAGE);
	return rings;
}

static void fake_copy(const struct fake_ring *ring, uint32_t index, void *bytes, size_t size, bool in)
{
	for (size_t i = 0; i < size; i++) {
		uint8_t *at = ring->data + (index + i) % ring->size;

		if (in)
			*at = ((uint8_t *)bytes)[i];
		else
			((uint8_t *)bytes)[i] = *at;
	}
}

/* False: no room. size a multiple of 8. */
static inline bool fake_put(const struct fake_ring *ring, uint16_t type, uint16_t flags, uint64_t transaction,
			    const void *payload, size_t size)
{
	uint32_t write = *fake_word(ring, RING_WRITE), read = *fake_word(ring, RING_READ);
	uint32_t room = ring->size - (write - read + ring->size) % ring->size;
	uint64_t trailer = (uint64_t)write << 32;
	uint8_t descriptor[16] = { 0 };
	uint16_t words[4] = { type, 2, (uint16_t)((16 + size) / 8), flags };

	if (room <= size + 24)
		return false;
	memcpy(descriptor, words, sizeof(words));
	memcpy(descriptor + 8, &transaction, 8);
	fake_copy(ring, write, descriptor, 16, true);
	fake_copy(ring, write + 16, (void *)payload, size, true);
	fake_copy(ring, write + 16 + (uint32_t)size, &trailer, 8, true);
	*fake_word(ring, RING_WRITE) = (write + 24 + (uint32_t)size) % ring->size;
	return true;
}

/* Payload size, or -1 if there is no packet. */
static inline int fake_get(const struct fake_ring *ring, uint16_t *type, uint64_t *transaction, void *payload,
			   size_t max)
{
	uint32_t write = *fake_word(ring, RING_WRITE), read = *fake_word(ring, RING_READ);
	uint16_t words[4];
	size_t size;

	if (read == write)
		return -1;
	fake_copy(ring, read, words, sizeof(words), false);
	fake_copy(ring, read + 8, transaction, 8, false);
	*type = words[0];
	size = words[2] * 8u - words[1] * 8u;
	if (size > max)
		abort();
	fake_copy(ring, read + words[1] * 8u, payload, size, false);
	*fake_word(ring, RING_READ) = (read + words[2] * 8u + 8) % ring->size;
	return (int)size;
}

#endif
