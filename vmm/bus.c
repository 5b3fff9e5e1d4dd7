/* SPDX-License-Identifier: MIT */
#include "vmm/bus.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int bus_init(struct bus *bus, const char *name, uint64_t limit)
{
	memset(bus, 0, sizeof(*bus));
	bus->name = name;
	bus->limit = limit;
	bus->slots = calloc(BUS_MAX_REGIONS, sizeof(*bus->slots));
	if (!bus->slots)
		return -ENOMEM;
	pthread_mutex_init(&bus->lock, NULL);
	return 0;
}

void bus_destroy(struct bus *bus)
{
	if (!bus->slots)
		return;
	free(bus->slots);
	bus->slots = NULL;
	pthread_mutex_destroy(&bus->lock);
}

/*
 * The slots change under a sequence counter that is odd meanwhile. Every field is atomic, so that a reader that
 * races sees torn but defined values, notices the counter, and looks again. Writers store fields with release and
 * readers load them with acquire order, which keeps both between the two looks at the counter without fences.
 */
static void write_begin(struct bus *bus)
{
	atomic_fetch_add_explicit(&bus->sequence, 1, memory_order_relaxed);
}

static void write_end(struct bus *bus)
{
	atomic_fetch_add_explicit(&bus->sequence, 1, memory_order_release);
}

static void slot_set(struct bus_slot *slot, uint64_t base, uint64_t end, struct region *region)
{
	atomic_store_explicit(&slot->base, base, memory_order_release);
	atomic_store_explicit(&slot->end, end, memory_order_release);
	atomic_store_explicit(&slot->region, region, memory_order_release);
}

static void slot_copy(struct bus_slot *to, struct bus_slot *from)
{
	slot_set(to, atomic_load_explicit(&from->base, memory_order_relaxed),
		 atomic_load_explicit(&from->end, memory_order_relaxed),
		 atomic_load_explicit(&from->region, memory_order_relaxed));
}

/* Index of the first slot that ends above addr. */
static uint32_t find_slot(struct bus *bus, uint32_t count, uint64_t addr)
{
	uint32_t low = 0, high = count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (atomic_load_explicit(&bus->slots[middle].end, memory_order_acquire) <= addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Statistics are by region id; a region that comes back (a BAR that moves) keeps the one it had. */
static int assign_id(struct bus *bus, struct region *region)
{
	if (region->id < bus->next_id && bus->by_id[region->id] == region)
		return 0;
	for (unsigned int i = 0; i < bus->next_id; i++) {
		if (bus->by_id[i] == region) {
			region->id = i;
			return 0;
		}
	}
	if (bus->next_id == BUS_MAX_REGIONS)
		return -ENOSPC;
	region->id = bus->next_id++;
	bus->by_id[region->id] = region;
	return 0;
}

int bus_add(struct bus *bus, struct region *region)
{
	uint64_t end = region->base + region->length;
	int ret = 0;

	if (!region->length || end < region->base || end > bus->limit)
		return -EINVAL;

	pthread_mutex_lock(&bus->lock);
	uint32_t count = atomic_load_explicit(&bus->count, memory_order_relaxed);
	uint32_t at = find_slot(bus, count, region->base);

	if (at < count && atomic_load_explicit(&bus->slots[at].base, memory_order_relaxed) < end)
		ret = -EEXIST;
	else if (count == BUS_MAX_REGIONS)
		ret = -ENOSPC;
	else
		ret = assign_id(bus, region);
	if (!ret) {
		write_begin(bus);
		for (uint32_t i = count; i > at; i--)
			slot_copy(&bus->slots[i], &bus->slots[i - 1]);
		slot_set(&bus->slots[at], region->base, end, region);
		atomic_store_explicit(&bus->count, count + 1, memory_order_release);
		write_end(bus);
	}
	pthread_mutex_unlock(&bus->lock);
	return ret;
}

int bus_remove(struct bus *bus, struct region *region)
{
	int ret = -ENOENT;

	pthread_mutex_lock(&bus->lock);
	uint32_t count = atomic_load_explicit(&bus->count, memory_order_relaxed);

	for (uint32_t at = 0; at < count; at++) {
		if (atomic_load_explicit(&bus->slots[at].region, memory_order_relaxed) != region)
			continue;
		write_begin(bus);
		for (uint32_t i = at; i + 1 < count; i++)
			slot_copy(&bus->slots[i], &bus->slots[i + 1]);
		atomic_store_explicit(&bus->count, count - 1, memory_order_release);
		write_end(bus);
		ret = 0;
		break;
	}
	pthread_mutex_unlock(&bus->lock);
	return ret;
}

/* Fills cache with the region that owns addr, or with the gap around addr (region NULL). */
static void look_up(struct bus *bus, struct bus_cache *cache, uint64_t addr)
{
	uint32_t before, after;

	do {
		before = atomic_load_explicit(&bus->sequence, memory_order_acquire);
		uint32_t count = atomic_load_explicit(&bus->count, memory_order_acquire);

		if (count > BUS_MAX_REGIONS)
			count = BUS_MAX_REGIONS;
		uint32_t at = find_slot(bus, count, addr);

		cache->region = NULL;
		cache->base = addr;
		cache->end = addr + 1;
		if (at < count) {
			struct bus_slot *slot = &bus->slots[at];
			uint64_t base = atomic_load_explicit(&slot->base, memory_order_acquire);

			if (base <= addr) {
				cache->base = base;
				cache->end = atomic_load_explicit(&slot->end, memory_order_acquire);
				cache->region = atomic_load_explicit(&slot->region, memory_order_acquire);
			}
		}
		after = atomic_load_explicit(&bus->sequence, memory_order_relaxed);
	} while ((before & 1) || before != after);
	cache->sequence = before;
}

static struct region *find(struct bus *bus, struct bus_cache *cache, uint64_t addr, unsigned int size)
{
	uint32_t sequence = atomic_load_explicit(&bus->sequence, memory_order_acquire);

	if (!cache->region || cache->sequence != sequence || addr < cache->base || addr >= cache->end)
		look_up(bus, cache, addr);
	if (!cache->region || cache->end - addr < size)
		return NULL;
	return cache->region;
}

struct region *bus_read(struct bus *bus, struct bus_cache *cache, uint64_t addr, void *data, unsigned int size)
{
	struct region *region = find(bus, cache, addr, size);
	uint64_t value = ~0ULL;

	if (size > 8) {
		memset(data, 0xff, size);
		return NULL;
	}
	if (region && region->ops->read)
		value = region->ops->read(region->opaque, addr - cache->base, size);
	memcpy(data, &value, size);
	return region;
}

struct region *bus_write(struct bus *bus, struct bus_cache *cache, uint64_t addr, const void *data, unsigned int size)
{
	struct region *region = find(bus, cache, addr, size);
	uint64_t value = 0;

	if (size > 8)
		return NULL;
	memcpy(&value, data, size);
	if (region && region->ops->write)
		region->ops->write(region->opaque, addr - cache->base, size, value);
	return region;
}
