/* SPDX-License-Identifier: MIT */
/*
 * Address-space dispatch: which device answers a guest's port or MMIO access.
 *
 * A bus is a sorted array of non-overlapping regions. Readers (vCPU threads on the exit path) take no lock:
 * the array is guarded by a sequence counter, and each reader keeps its last hit. Writers (a device created, a
 * BAR moved) serialise on a mutex. A region's owner must keep the struct region alive until bus_remove()
 * returned and no vCPU can be inside its ops (devices live as long as the VM, so this is the rule, not work).
 */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Register functions of a device. Called on vCPU threads, concurrently; they must be short, must not block and
 * take the device's own lock. offset is relative to the region's base; size is 1, 2, 4 or 8 bytes and the access
 * lies wholly inside the region. read returns the value zero-extended (bits above size are ignored).
 * A NULL read reads all ones; a NULL write drops the value.
 */
struct io_ops {
	uint64_t (*read)(void *opaque, uint64_t offset, unsigned int size);
	void (*write)(void *opaque, uint64_t offset, unsigned int size, uint64_t value);
};

struct region {
	const char *name; /* shown in logs, traces and statistics; static storage or owned by the device */
	uint64_t base;
	uint64_t length; /* bytes, not 0 */
	const struct io_ops *ops;
	void *opaque;
	unsigned int id; /* index for per-vCPU statistics, set by bus_add() */
};

#define BUS_MAX_REGIONS 512

struct bus_slot {
	_Atomic uint64_t base;
	_Atomic uint64_t end; /* exclusive */
	struct region *_Atomic region;
};

struct bus {
	const char *name; /* "pio" or "mmio" */
	uint64_t limit;	  /* one past the last address */
	_Atomic uint32_t sequence;
	_Atomic uint32_t count;
	unsigned int next_id;
	pthread_mutex_t lock;
	struct bus_slot *slots;
	struct region *by_id[BUS_MAX_REGIONS]; /* every region ever added, for statistics; under lock */
};

/* A reader's last hit. Zero-initialise it. One per vCPU and bus; not shared between threads. */
struct bus_cache {
	uint32_t sequence;
	uint64_t base, end;
	struct region *region;
};

/* Returns 0 or -ENOMEM. */
int bus_init(struct bus *bus, const char *name, uint64_t limit);
void bus_destroy(struct bus *bus);

/*
 * Adds a region. -EEXIST if it overlaps another one, -EINVAL if it is empty or beyond the bus, -ENOSPC if the bus
 * is full. The caller keeps ownership of *region and must not change it while it is on the bus.
 */
int bus_add(struct bus *bus, struct region *region);

/* Takes a region off the bus; -ENOENT if it is not there. An access already inside its ops may still finish. */
int bus_remove(struct bus *bus, struct region *region);

/*
 * One guest access of size 1..8 bytes. An address nobody owns, or an access that leaves its region, reads all
 * ones and drops writes. data is little-endian guest bytes. Returns the region that answered or NULL.
 */
struct region *bus_read(struct bus *bus, struct bus_cache *cache, uint64_t addr, void *data, unsigned int size);
struct region *bus_write(struct bus *bus, struct bus_cache *cache, uint64_t addr, const void *data, unsigned int size);

#endif
