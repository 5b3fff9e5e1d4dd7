/* SPDX-License-Identifier: MIT */
/*
 * fstat() and statfs() of a file in a FUSE file system are questions to the process that serves it, which may be our
 * server, or one that does what it says. So the kernel is asked what it knows by itself: memfds and tmpfs have seals;
 * of any other file the mount is looked up, by its number, among ours.
 */
#include "devices/vfio-user/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* proc(5), /proc/PID/fdinfo */
static bool is_mount_line(const char *line, int *mount)
{
	return sscanf(line, "mnt_id: %d", mount) == 1;
}

/* proc(5), /proc/PID/mountinfo: a number first, a file system's type behind " - ". */
static bool is_kernels_own(const char *line, int *mount)
{
	const char *type = strstr(line, " - ");
	int number;

	return type && sscanf(line, "%d", &number) == 1 && number == *mount && strncmp(type + 3, "fuse", 4) != 0;
}

/* Whether there is such a line. */
static bool any_line(const char *path, bool (*is_it)(const char *line, int *mount), int *mount)
{
	FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;
	bool found = false;

	while (f && !found && getline(&line, &size, f) > 0)
		found = is_it(line, mount);
	free(line);
	if (f)
		fclose(f);
	return found;
}

static bool on_our_mount(int fd)
{
	char path[64];
	int mount;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	return any_line(path, is_mount_line, &mount) && any_line("/proc/self/mountinfo", is_kernels_own, &mount);
}

uint64_t vfu_file_size(int fd)
{
	struct statx st;

	if (fd < 0 || (fcntl(fd, F_GET_SEALS) < 0 && !on_our_mount(fd)))
		return 0;
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_SIZE, &st) < 0 ||
	    !S_ISREG(st.stx_mode))
		return 0;
	return st.stx_size;
}

bool vfu_is_eventfd(int fd)
{
	char path[64], name[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, name, sizeof(name) - 1);
	if (n < 0)
		return false;
	name[n] = '\0';
	return !strcmp(name, "anon_inode:[eventfd]");
}
