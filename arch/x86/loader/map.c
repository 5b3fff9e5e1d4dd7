/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: a kernel file is mapped, not read. Reading 14 or 50 MB costs a copy and fresh pages
 * for it; mapping what is in the page cache costs a page fault for each 64 KiB (the kernel maps around a
 * fault).
 *
 * The price of a mapping is SIGBUS when the file shrinks, or a page cannot be read from its disk, after the
 * size has been checked. From loader_open() to loader_close() a SIGBUS handler is in place that puts zero
 * pages over the rest of the mapping and marks the file as lost. The decoder under way then sees zeroes,
 * which is bad input like any other; nothing is jumped over, so nothing leaks; and the loader looks at the
 * mark before it reports success.
 *
 * A signal handler gets no argument, hence the one variable outside a struct: the mapping that this thread
 * reads.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

static _Thread_local struct file_map *volatile mapping_being_read;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	struct file_map *map = mapping_being_read;
	uintptr_t at = (uintptr_t)info->si_addr & ~(uintptr_t)4095;
	int saved = errno;
	size_t off;

	(void)context;
	if (!map || at < (uintptr_t)map->data || at - (uintptr_t)map->data >= map->size)
		goto not_ours;
	off = at - (uintptr_t)map->data;
	if (mmap(map->data + off, map->size - off, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
	    MAP_FAILED)
		goto not_ours;
	map->lost = 1;
	errno = saved;
	return;
not_ours:
	/* Returning faults again, and then takes the action that was there before. */
	if (map)
		sigaction(sig, &map->old_action, NULL);
	else
		signal(sig, SIG_DFL);
	errno = saved;
}

/* For file systems without mmap: an anonymous copy. */
static int read_all(struct file_map *map, int fd, char *err, size_t errlen)
{
	size_t done = 0;

	map->data = mmap(NULL, map->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map->data == MAP_FAILED)
		return loader_fail(err, errlen, -errno, "no memory to read it: %s", strerror(errno));
	while (done < map->size) {
		ssize_t n = pread(fd, map->data + done, map->size - done, (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			int rc = n ? -errno : -EIO;

			munmap(map->data, map->size);
			return loader_fail(err, errlen, rc, "read: %s",
					   n ? strerror(-rc) : "the file shrank while it was being read");
		}
		done += (size_t)n;
	}
	return 0;
}

static int check_type(const struct stat *st, char *err, size_t errlen)
{
	if (S_ISDIR(st->st_mode))
		return loader_fail(err, errlen, -EISDIR, "is a directory: give the kernel file in it");
	if (!S_ISREG(st->st_mode))
		return loader_fail(err, errlen, -EINVAL, "is not a regular file: copy the kernel to one first");
	if (st->st_size == 0)
		return loader_fail(err, errlen, -ENOEXEC, "is an empty file");
	if (st->st_size > (off_t)(4 * LOADER_GIB))
		return loader_fail(err, errlen, -EFBIG, "is larger than 4 GiB: not a kernel, perhaps a disk image");
	return 0;
}

int file_map_open(struct file_map *map, const char *path, char *err, size_t errlen)
{
	/* O_NONBLOCK: opening a FIFO must not wait for a writer before it can be refused. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };
	struct stat st;
	int rc;

	*map = (struct file_map){ 0 };
	if (fd < 0)
		return loader_fail(err, errlen, -errno, "open: %s", strerror(errno));
	if (fstat(fd, &st) < 0)
		rc = loader_fail(err, errlen, -errno, "fstat: %s", strerror(errno));
	else
		rc = check_type(&st, err, errlen);
	if (rc)
		goto out;
	map->size = (size_t)st.st_size;
	map->data = mmap(NULL, map->size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map->data == MAP_FAILED)
		rc = read_all(map, fd, err, errlen);
	if (rc)
		goto out;
	/* Left open until file_map_close(), which is not on the way to the first guest instruction. */
	map->fd = fd;
	mapping_being_read = map;
	sigaction(SIGBUS, &action, &map->old_action);
	return 0;
out:
	close(fd);
	return rc;
}

void file_map_close(struct file_map *map)
{
	sigaction(SIGBUS, &map->old_action, NULL);
	mapping_being_read = NULL;
	munmap(map->data, map->size);
	map->data = NULL;
	close(map->fd);
}
