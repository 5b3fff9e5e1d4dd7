/* SPDX-License-Identifier: MIT */
/*
 * The memory that is shared: a mapping of somebody's file, for KVM alone. vmm never touches it, since whoever else has
 * the file may truncate it at any time, and that would be a SIGBUS.
 */
#ifndef DEVICES_IVSHMEM_MEMORY_H
#define DEVICES_IVSHMEM_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ivshmem_memory {
	int fd; /* -1: none */
	bool readonly;
	bool regular; /* a file whose size tells whether it was truncated */
	uint8_t *host;
	uint64_t length; /* bytes mapped: whole pages of the file */
	uint64_t bar;	 /* the power of two that these fit in */
	void *reservation;
	size_t reserved;
};

/*
 * Opens a file of at least size bytes; one that is empty, or not there yet, is given that size. A device is mapped as
 * it is. 0, or -errno with a part of a sentence in err.
 */
int ivshmem_memory_open(struct ivshmem_memory *m, const char *path, uint64_t size, bool readonly, char *err,
			size_t errlen);

/* Takes over a descriptor from a server: all of it is the memory. The same. */
int ivshmem_memory_adopt(struct ivshmem_memory *m, int fd, char *err, size_t errlen);

void ivshmem_memory_close(struct ivshmem_memory *m);

/* Whether the file still has all that is mapped. Any thread. */
bool ivshmem_memory_intact(const struct ivshmem_memory *m);

#endif
