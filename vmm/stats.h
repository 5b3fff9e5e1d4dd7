/* SPDX-License-Identifier: MIT */
/* Figures of a run, for scripts (vmm.1, STATISTICS). */
#ifndef VMM_STATS_H
#define VMM_STATS_H

#include <stdint.h>

struct json_t;
struct vm;

/* Memory of this process in KiB; outside guest RAM, but for `guest`. */
struct memory_use {
	uint64_t resident;
	uint64_t anonymous;
	uint64_t guest; /* guest RAM that is resident */
	uint64_t peak;	/* highest resident set of the whole process less the guest RAM that is resident now */
};

/* What a device adds to the figures of the machine: a member of the object, under its name. */
#define STATS_SOURCES 8
struct stats_source {
	const char *name;
	struct json_t *(*value)(void *opaque); /* a new reference; loop thread, or when the loop has ended */
	void *opaque;
};

/* Adds one; name, and what opaque points to, last as long as the machine. 0, or -ENOSPC. */
int stats_add(struct vm *vm, const char *name, struct json_t *(*value)(void *opaque), void *opaque);

/* Reads /proc/self/smaps and status. 0 or -errno. */
int stats_memory(const struct vm *vm, struct memory_use *use);

/* Returns from KVM_RUN that vmm had to handle, all vCPUs together. */
uint64_t stats_user_exits(const struct vm *vm);

/* The run's figures so far, while it runs on the loop thread or after its end. The caller's; NULL when out of memory.
 */
struct json_t *stats_object(struct vm *vm);

/* Writes the run's figures as JSON. 0, or -errno after printing the cause. vCPUs have stopped. */
int stats_write(struct vm *vm, const char *path);

#endif
