/* SPDX-License-Identifier: MIT */
/*
 * VirtIO shared memory: a window of our address space for all regions of a device, and what the back-end has mapped
 * into it.
 *
 * The window is reserved without access, and a mapping is moved into a part of it: the memslot of which it is the
 * memory stays as it is. vmm never touches the window directly, since files may be shorter than they were.
 */
#ifndef DEVICES_VHOST_USER_SHMEM_H
#define DEVICES_VHOST_USER_SHMEM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "devices/vhost-user/wire.h"
#include "devices/virtio/virtio.h"

#define VHU_MAPS_MAX  4096u
#define VHU_SHMEM_MAX (1ULL << 45)

struct vhu_map {
	uint64_t offset, length; /* in the window */
};

struct vhu_shmem {
	uint8_t *host; /* NULL: no regions */
	uint64_t size;
	struct virtio_shm regions[VIRTIO_SHM_MAX];
	unsigned int nr_regions;
	struct vhu_map *maps; /* by offset */
	unsigned int nr_maps;
	_Atomic bool lost; /* somebody else may have memory in the window: it must not be the guest's any more */
};

/* The regions of a reply to GET_SHMEM_CONFIG. 0, or -EPROTO with a text. Reserves nothing. */
int vhu_shmem_check(const struct vhu_shmem_config *config, struct vhu_shmem *s, const char **why);

/* Reserves the window of what was checked. 0 or -ENOMEM. */
int vhu_shmem_reserve(struct vhu_shmem *s);
void vhu_shmem_destroy(struct vhu_shmem *s);

/* Requests of the back-end: 0, or -errno with a text and nothing changed. fd stays the caller's. */
int vhu_shmem_map(struct vhu_shmem *s, const struct vhu_mmap *m, int fd, const char **why);
int vhu_shmem_unmap(struct vhu_shmem *s, const struct vhu_mmap *m, const char **why);
void vhu_shmem_unmap_all(struct vhu_shmem *s);

/* One access by vmm in the guest's name; all ones, or dropped, where there is nothing. Any thread. */
uint64_t vhu_shmem_read(const struct vhu_shmem *s, uint64_t offset, unsigned int size);
void vhu_shmem_write(const struct vhu_shmem *s, uint64_t offset, unsigned int size, uint64_t value);

#endif
