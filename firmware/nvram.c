/* SPDX-License-Identifier: MIT */
/*
 * What a guest stores is in the file before the guest goes on, byte by byte in its order: whenever vmm is killed, the
 * file looks as a flash chip does after a power cut at that moment, for which firmware is made. flash.c has the file
 * synced soon after the last change, for a power cut of the host.
 *
 * A new file is written beside its place and linked to it when it is whole and on disk. All its bytes are
 * written, so later writes need no more room on most file systems.
 */
#include "firmware/nvram.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/file.h"
#include "vmm/log.h"

static int write_all(int fd, size_t offset, const uint8_t *bytes, size_t length)
{
	while (length) {
		ssize_t n = pwrite(fd, bytes, length, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		bytes += n;
		offset += (size_t)n;
		length -= (size_t)n;
	}
	return 0;
}

/* The new name must last too. Only a wish: some file systems cannot sync a directory. */
static void sync_directory(const char *path)
{
	char copy[PATH_MAX];
	int fd;

	snprintf(copy, sizeof(copy), "%s", path);
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	(void)fsync(fd);
	close(fd);
}

/* 0 also if another process was faster: its file is as good. */
static int make_file(const char *path, const uint8_t *template, size_t size)
{
	char name[PATH_MAX];
	int fd, ret;

	if (snprintf(name, sizeof(name), "%s.XXXXXX", path) >= (int)sizeof(name))
		return -ENAMETOOLONG;
	fd = mkostemp(name, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = write_all(fd, 0, template, size);
	if (!ret && fsync(fd) < 0)
		ret = -errno;
	close(fd);
	if (!ret && link(name, path) < 0 && errno != EEXIST)
		/* No hard links here (FAT): then the name moves. */
		ret = rename(name, path) < 0 ? -errno : 0;
	unlink(name);
	if (!ret)
		sync_directory(path);
	return ret;
}

static int fail(const char *path, const char *what, int ret)
{
	log_line("--nvram %s: %s: %s", path, what, strerror(-ret));
	return ret;
}

static int open_file(struct nvram *n, const char *path)
{
	n->fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	return n->fd < 0 ? -errno : 0;
}

static int check_file(const struct nvram *n, const char *path, size_t size)
{
	struct stat st;

	if (fstat(n->fd, &st) < 0)
		return fail(path, "fstat", -errno);
	if (!S_ISREG(st.st_mode)) {
		log_line("--nvram %s: is not a regular file", path);
		return -EINVAL;
	}
	if (st.st_size != (off_t)size) {
		log_line("--nvram %s: has %lld bytes, but the variables of this firmware have %zu", path,
			 (long long)st.st_size, size);
		return -EINVAL;
	}
	if (flock(n->fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return fail(path, "flock", -errno);
		log_line("--nvram %s: is in use by another process", path);
		return -EBUSY;
	}
	return 0;
}

int nvram_open(struct nvram *n, const char *path, uint8_t *data, size_t size, const uint8_t *template,
	       const char *no_template)
{
	int ret;

	*n = (struct nvram){ .path = path, .fd = -1, .size = size };
	ret = open_file(n, path);
	if (ret == -ENOENT && !template) {
		log_line("--nvram %s: does not exist, and cannot be made: %s", path, no_template);
		return ret;
	}
	if (ret == -ENOENT) {
		ret = make_file(path, template, size);
		if (ret)
			return fail(path, "making it", ret);
		ret = open_file(n, path);
	}
	if (ret)
		return fail(path, "open", ret);
	ret = check_file(n, path, size);
	if (!ret) {
		ret = file_read(n->fd, data, size);
		if (ret)
			fail(path, "read", ret);
	}
	if (ret)
		nvram_close(n);
	return ret;
}

void nvram_close(struct nvram *n)
{
	if (n->fd < 0)
		return;
	if (fdatasync(n->fd) < 0 && errno != EINVAL)
		log_line("--nvram %s: fdatasync: %s", n->path, strerror(errno));
	close(n->fd);
	n->fd = -1;
}

int nvram_write(struct nvram *n, size_t offset, const uint8_t *bytes, size_t length)
{
	int ret = write_all(n->fd, offset, bytes, length);

	if (ret && !n->failing)
		log_line("--nvram %s: write: %s; the guest's change is refused", n->path, strerror(-ret));
	n->failing = ret;
	return ret;
}
