/* SPDX-License-Identifier: MIT */
/* What the /init of the benchmarks "disk" and "net" have in common. Both are one file each, compiled on the spot. */
#ifndef BENCH_GUEST_H
#define BENCH_GUEST_H

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void rest(long ns)
{
	const struct timespec ts = { .tv_nsec = ns };

	nanosleep(&ts, NULL);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* What is in /modules, in the order of names. One that has no device here says so: all monitors' drivers are there. */
static void insert_modules(void)
{
	struct dirent **names;
	int count = scandir("/modules", &names, NULL, by_name);

	for (int i = 0; i < count; i++) {
		char path[300];
		int fd;

		snprintf(path, sizeof(path), "/modules/%s", names[i]->d_name);
		fd = names[i]->d_name[0] == '.' ? -1 : open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			syscall(SYS_finit_module, fd, "", 0);
			close(fd);
		}
		free(names[i]);
	}
	if (count >= 0)
		free(names);
}

#endif
