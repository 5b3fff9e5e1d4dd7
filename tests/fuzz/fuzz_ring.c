/* SPDX-License-Identifier: MIT */
/* The rings of a channel under a guest that writes what the input says, into indices and data, between all calls. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "devices/vmbus/ring.h"
#include "tests/fuzz/input.h"

#define PAGES 3
#define WORDS 17 /* of the control page */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_one(struct vmbus_ring *ring, size_t max)
{
	uint64_t *buffer = malloc(max + 1); /* to the byte, for the sanitizer */
	struct vmbus_packet p;

	assert(buffer);
	if (ring_read(ring, buffer, max, &p) == 1) {
		assert(p.extra == buffer + 2 && (const uint8_t *)p.extra + p.extra_size == p.payload);
		assert((const uint8_t *)p.payload + p.size <= (uint8_t *)buffer + max);
		assert(!(p.size % 8) && !(p.extra_size % 8));
	}
	free(buffer);
}

static void step(struct vmbus_ring *ring, void *const *pages, struct input *in)
{
	static const uint8_t payload[2 * PAGES * RING_PAGE];
	uint32_t *control = pages[0];
	uint64_t op = next(in, 1), where;
	size_t length;

	switch (op % 8) {
	case 0:
		control[next(in, 1) % WORDS] = (uint32_t)next(in, 4);
		break;
	case 1:
		where = next(in, 2) % (RING_PAGE - 8) / 8 * 8;
		*(uint64_t *)((uint8_t *)pages[1 + op / 8 % (PAGES - 1)] + where) = next(in, 8);
		break;
	case 2:
		read_one(ring, next(in, 2));
		break;
	case 3:
		ring_read_done(ring);
		break;
	case 4:
		length = next(in, 1) * 8;
		ring_write(ring, (uint16_t)(op / 8), 0, 1, payload, length, payload, next(in, 2) % sizeof(payload));
		break;
	case 5:
		ring_publish(ring);
		break;
	case 6:
		ring_room(ring);
		break;
	case 7:
		ring_mask(ring, op / 8 % 2);
		break;
	}
	assert(ring->index < ring->size && ring->published < ring->size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint64_t how = next(&in, 1);
	struct vmbus_ring ring;
	void *pages[PAGES];

	/* Pages of their own, with forbidden ground between them, or the data in one piece. */
	uint8_t *memory = aligned_alloc(8, (size_t)PAGES * RING_PAGE);

	assert(memory);
	memset(memory, 0, (size_t)PAGES * RING_PAGE);
	for (size_t i = 0; i < PAGES; i++) {
		pages[i] = how & 1 ? memory + i * RING_PAGE : calloc(1, RING_PAGE);
		assert(pages[i]);
	}
	((uint32_t *)pages[0])[0] = (uint32_t)next(&in, 2);
	((uint32_t *)pages[0])[1] = (uint32_t)next(&in, 2);
	if (ring_attach(&ring, pages, PAGES, NULL, how & 2) == 0)
		while (in.left)
			step(&ring, pages, &in);
	for (size_t i = 0; i < PAGES && !(how & 1); i++)
		free(pages[i]);
	free(memory);
	return 0;
}
