/* SPDX-License-Identifier: MIT */
/* Figures of a run, for scripts (vmm.1, STATISTICS). */
#ifndef VMM_STATS_H
#define VMM_STATS_H

#include <stdint.h>

struct vm;

/* Memory of this process in KiB; outside guest RAM, but for `guest`. */
struct memory_use {
	uint64_t resident;
	uint64_t anonymous;
	uint64_t guest; /* guest RAM that is resident */
	uint64_t peak;	/* highest resident set of the whole process less the guest RAM that is resident now */
};

/* Reads /proc/self/smaps and status. 0 or -errno. */
int stats_memory(const struct vm *vm, struct memory_use *use);

/* Writes the run's figures as JSON. 0, or -errno after printing the cause. vCPUs have stopped. */
int stats_write(struct vm *vm, const char *path);

#endif
