/* SPDX-License-Identifier: MIT */
#include "devices/ivshmem/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/ivshmem/ivshmem.h"

#define HUGE_PAGE (2ULL << 20)
#define PAGE	  4096ULL

static int failed(int error, const char *what, char *err, size_t errlen)
{
	snprintf(err, errlen, "%s: %s", what, strerror(error));
	return -error;
}

static int refuse(char *err, size_t errlen, const char *what, unsigned long long size)
{
	snprintf(err, errlen, "%s (%llu bytes)", what, size);
	return -EINVAL;
}

static uint64_t round_up_power(uint64_t n)
{
	uint64_t power = PAGE;

	while (power < n)
		power *= 2;
	return power;
}

/*
 * KVM maps huge pages where the guest's and our address agree in their lower bits. BARs are aligned to their size, so
 * the mapping starts on a huge page, of whatever size the file's are.
 */
static int map(struct ivshmem_memory *m, uint64_t align, char *err, size_t errlen)
{
	int prot = m->readonly ? PROT_READ : PROT_READ | PROT_WRITE;
	uint8_t *start;

	m->reserved = m->length + align;
	m->reservation = mmap(NULL, m->reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->reservation == MAP_FAILED) {
		m->reservation = NULL;
		return failed(errno, "no addresses for it", err, errlen);
	}
	start = (uint8_t *)(((uintptr_t)m->reservation + align - 1) & ~(uintptr_t)(align - 1));
	if (mmap(start, m->length, prot, MAP_SHARED | MAP_FIXED, m->fd, 0) == MAP_FAILED)
		return failed(errno, "mmap", err, errlen);
	/* Advice that a host without such pages does not take. */
	madvise(start, m->length, MADV_HUGEPAGE);
	m->host = start;
	return 0;
}

static int map_file(struct ivshmem_memory *m, uint64_t size, uint64_t block, char *err, size_t errlen)
{
	uint64_t align = size >= HUGE_PAGE ? HUGE_PAGE : PAGE;

	if (block > align && !(block & (block - 1)))
		align = block;
	m->length = size;
	m->bar = round_up_power(size);
	return map(m, align, err, errlen);
}

int ivshmem_memory_open(struct ivshmem_memory *m, const char *path, uint64_t size, bool readonly, char *err,
			size_t errlen)
{
	struct stat st;

	memset(m, 0, sizeof(*m));
	m->readonly = readonly;
	/* Not blocking: a FIFO of that name would wait for somebody else. */
	m->fd = open(path, (readonly ? O_RDONLY : O_RDWR | O_CREAT) | O_CLOEXEC | O_NONBLOCK, 0600);
	if (m->fd < 0)
		return failed(errno, "open", err, errlen);
	if (fstat(m->fd, &st) < 0)
		return failed(errno, "fstat", err, errlen);
	m->regular = S_ISREG(st.st_mode);
	/* Of several that start at a time each does this, with the same result. */
	if (m->regular && !st.st_size && !readonly) {
		if (ftruncate(m->fd, (off_t)size) < 0)
			return failed(errno, "ftruncate", err, errlen);
		st.st_size = (off_t)size;
	}
	if (m->regular && (uint64_t)st.st_size < size)
		return refuse(err, errlen, "the file is smaller than size=", (unsigned long long)st.st_size);
	/* st_blksize of a file of hugetlbfs is its page. */
	return map_file(m, size, m->regular ? (uint64_t)st.st_blksize : 0, err, errlen);
}

int ivshmem_memory_adopt(struct ivshmem_memory *m, int fd, char *err, size_t errlen)
{
	struct stat st;
	uint64_t page = PAGE, size;

	memset(m, 0, sizeof(*m));
	m->fd = fd;
	if (fstat(fd, &st) < 0)
		return failed(errno, "fstat of the shared memory", err, errlen);
	m->regular = S_ISREG(st.st_mode);
	if (!m->regular) {
		snprintf(err, errlen, "the shared memory is no file");
		return -EINVAL;
	}
	if ((uint64_t)st.st_blksize > PAGE && st.st_size % st.st_blksize == 0)
		page = (uint64_t)st.st_blksize;
	size = (uint64_t)st.st_size & ~(PAGE - 1);
	if (!size || size > IVSHMEM_SIZE_MAX)
		return refuse(err, errlen, "the shared memory has a size that no BAR can have",
			      (unsigned long long)st.st_size);
	return map_file(m, size, page, err, errlen);
}

void ivshmem_memory_close(struct ivshmem_memory *m)
{
	if (m->reservation)
		munmap(m->reservation, m->reserved);
	if (m->fd >= 0)
		close(m->fd);
	m->reservation = NULL;
	m->host = NULL;
	m->fd = -1;
}

bool ivshmem_memory_intact(const struct ivshmem_memory *m)
{
	struct stat st;

	return !m->regular || (fstat(m->fd, &st) == 0 && (uint64_t)st.st_size >= m->length);
}
