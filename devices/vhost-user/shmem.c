/* SPDX-License-Identifier: MIT */
#include "devices/vhost-user/shmem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define RESERVED (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

int vhu_shmem_check(const struct vhu_shmem_config *config, struct vhu_shmem *s, const char **why)
{
	unsigned int count = 0;

	s->nr_regions = 0;
	s->size = 0;
	for (unsigned int i = 0; i < VHU_REGIONS_MAX; i++) {
		uint64_t size = config->sizes[i];

		if (!size)
			continue;
		if (size % VHU_PAGE) {
			*why = "the size of a region is not a number of pages";
			return -EPROTO;
		}
		if (size > VHU_SHMEM_MAX - s->size) {
			*why = "the regions are too large";
			return -EPROTO;
		}
		if (count++ == VIRTIO_SHM_MAX) {
			*why = "there are more than 3 regions, and no room for a 4th one's capability";
			return -EPROTO;
		}
		s->regions[s->nr_regions++] = (struct virtio_shm){ (uint8_t)i, s->size, size };
		s->size += size;
	}
	if (count != config->count) {
		*why = "the number of regions is not that of the sizes";
		return -EPROTO;
	}
	return 0;
}

int vhu_shmem_reserve(struct vhu_shmem *s)
{
	void *host;

	if (!s->size)
		return 0;
	host = mmap(NULL, s->size, PROT_NONE, RESERVED, -1, 0);
	if (host == MAP_FAILED)
		return -ENOMEM;
	s->host = host;
	return 0;
}

void vhu_shmem_destroy(struct vhu_shmem *s)
{
	if (s->host && !atomic_load(&s->lost))
		munmap(s->host, s->size);
	free(s->maps);
	s->host = NULL;
	s->maps = NULL;
	s->nr_maps = 0;
}

static const struct virtio_shm *find_region(const struct vhu_shmem *s, uint8_t id)
{
	for (unsigned int i = 0; i < s->nr_regions; i++)
		if (s->regions[i].id == id)
			return &s->regions[i];
	return NULL;
}

/* The first map that ends behind offset. */
static unsigned int find_map(const struct vhu_shmem *s, uint64_t offset)
{
	unsigned int low = 0, high = s->nr_maps;

	while (low < high) {
		unsigned int middle = (low + high) / 2;

		if (s->maps[middle].offset + s->maps[middle].length > offset)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* Where in the window the request is. */
static int locate(const struct vhu_shmem *s, const struct vhu_mmap *m, uint64_t *offset, const char **why)
{
	const struct virtio_shm *r = find_region(s, m->shmid);

	if (atomic_load(&s->lost) || !r) {
		*why = "there is no such region";
		return -EINVAL;
	}
	if (!m->length || m->length % VHU_PAGE || m->shm_offset % VHU_PAGE) {
		*why = "its place is not a number of pages";
		return -EINVAL;
	}
	if (m->shm_offset > r->length || m->length > r->length - m->shm_offset) {
		*why = "it goes beyond the region";
		return -EINVAL;
	}
	*offset = r->offset + m->shm_offset;
	return 0;
}

/* Ordinary files, and what dma-bufs are: their size is known. */
static int check_file(const struct vhu_mmap *m, int fd, const char **why)
{
	struct stat st;
	off_t end;

	*why = "the descriptor is not one of a file";
	if (fstat(fd, &st) < 0 || (!S_ISREG(st.st_mode) && (st.st_mode & S_IFMT)))
		return -EINVAL;
	end = S_ISREG(st.st_mode) ? st.st_size : lseek(fd, 0, SEEK_END);
	if (end <= 0)
		return -EINVAL;
	*why = "it goes beyond the file";
	if (m->fd_offset % VHU_PAGE)
		*why = "the offset in the file is not a number of pages";
	else if (m->fd_offset <= (uint64_t)end && m->length <= (uint64_t)end - m->fd_offset)
		return 0;
	return -EINVAL;
}

/* Takes the access away: one step for those who look on. */
static int reserve_again(struct vhu_shmem *s, uint64_t offset, uint64_t length)
{
	return mmap(s->host + offset, length, PROT_NONE, RESERVED | MAP_FIXED, -1, 0) == MAP_FAILED ? -ENOMEM : 0;
}

/*
 * Mapped elsewhere first and then moved: whether a file lets itself be mapped is known before anything changes, and
 * moving does not depend on it. If moving should fail half-way, no other thread's memory may get into the hole.
 */
static int place(struct vhu_shmem *s, uint64_t offset, uint64_t length, int prot, int fd, uint64_t fd_offset)
{
	void *at = s->host + offset, *p = mmap(NULL, length, prot, MAP_SHARED, fd, (off_t)fd_offset);

	if (p == MAP_FAILED)
		return -errno;
	if (mremap(p, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, at) != MAP_FAILED)
		return 0;
	munmap(p, length);
	if (mmap(at, length, PROT_NONE, RESERVED | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED && errno != EEXIST)
		atomic_store(&s->lost, true);
	return -ENOMEM;
}

static int make_room(struct vhu_shmem *s)
{
	struct vhu_map *maps;

	if (s->nr_maps == VHU_MAPS_MAX)
		return -ENOSPC;
	if (s->nr_maps & (s->nr_maps + 1))
		return 0;
	maps = realloc(s->maps, (2 * (size_t)s->nr_maps + 1) * sizeof(*maps));
	if (!maps)
		return -ENOMEM;
	s->maps = maps;
	return 0;
}

int vhu_shmem_map(struct vhu_shmem *s, const struct vhu_mmap *m, int fd, const char **why)
{
	int prot = PROT_READ | (m->flags & VHU_MMAP_WRITABLE ? PROT_WRITE : 0), ret;
	unsigned int at;
	uint64_t offset;

	ret = locate(s, m, &offset, why);
	if (ret)
		return ret;
	if (m->flags & ~(uint64_t)VHU_MMAP_WRITABLE) {
		*why = "its flags are unknown";
		return -EINVAL;
	}
	at = find_map(s, offset);
	if (at < s->nr_maps && s->maps[at].offset < offset + m->length) {
		*why = "something is mapped there";
		return -EEXIST;
	}
	ret = check_file(m, fd, why);
	if (ret)
		return ret;
	*why = "there are too many";
	ret = make_room(s);
	if (ret)
		return ret;
	*why = "the file cannot be mapped";
	ret = place(s, offset, m->length, prot, fd, m->fd_offset);
	if (ret)
		return ret;
	memmove(&s->maps[at + 1], &s->maps[at], (s->nr_maps - at) * sizeof(s->maps[0]));
	s->maps[at] = (struct vhu_map){ offset, m->length };
	s->nr_maps++;
	return 0;
}

int vhu_shmem_unmap(struct vhu_shmem *s, const struct vhu_mmap *m, const char **why)
{
	uint64_t offset;
	unsigned int at;
	int ret = locate(s, m, &offset, why);

	if (ret)
		return ret;
	at = find_map(s, offset);
	if (at == s->nr_maps || s->maps[at].offset != offset || s->maps[at].length != m->length) {
		*why = "this is not what was mapped";
		return -EINVAL;
	}
	*why = "out of memory";
	ret = reserve_again(s, offset, m->length);
	if (ret)
		return ret;
	s->nr_maps--;
	memmove(&s->maps[at], &s->maps[at + 1], (s->nr_maps - at) * sizeof(s->maps[0]));
	return 0;
}

void vhu_shmem_unmap_all(struct vhu_shmem *s)
{
	if (s->nr_maps && !atomic_load(&s->lost))
		reserve_again(s, 0, s->size);
	s->nr_maps = 0;
}

/* By system calls that find out by themselves whether there is memory. */
static bool copy(const struct vhu_shmem *s, uint64_t offset, void *data, unsigned int size, bool write)
{
	struct iovec ours = { data, size }, theirs = { s->host + offset, size };

	if (atomic_load(&s->lost) || offset >= s->size || size > s->size - offset)
		return false;
	return (write ? process_vm_writev(getpid(), &ours, 1, &theirs, 1, 0)
		      : process_vm_readv(getpid(), &ours, 1, &theirs, 1, 0)) == (ssize_t)size;
}

uint64_t vhu_shmem_read(const struct vhu_shmem *s, uint64_t offset, unsigned int size)
{
	uint64_t value = 0;

	return copy(s, offset, &value, size, false) ? value : UINT64_MAX;
}

void vhu_shmem_write(const struct vhu_shmem *s, uint64_t offset, unsigned int size, uint64_t value)
{
	copy(s, offset, &value, size, true);
}
