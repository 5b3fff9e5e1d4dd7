/* SPDX-License-Identifier: MIT */
#include "vmm/unix_socket.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PROBES	 20
#define PROBE_MS 200 /* a live listener says nothing for so long */

static int set_path(struct sockaddr_un *addr, const char *path)
{
	memset(addr, 0, sizeof(*addr));
	addr->sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(addr->sun_path))
		return -ENAMETOOLONG;
	memcpy(addr->sun_path, path, strlen(path) + 1);
	return 0;
}

int unix_socket_connect(const char *path)
{
	return unix_socket_connect_within(path, 0);
}

int unix_socket_connect_within(const char *path, unsigned int ms)
{
	const struct timeval limit = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000L }; /* 0: none */
	struct sockaddr_un addr;
	int ret = set_path(&addr, path), fd;

	if (ret)
		return ret;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	return fd;
}

/*
 * Does anybody listen there? A process that has just been killed may still do so for a moment, as io_uring lets go of
 * its files late: a connection is made then, and ends by itself. 0: nobody; or -EADDRINUSE, or why that cannot be said.
 */
static int probe_listener(const char *path)
{
	for (unsigned int i = 0; i < PROBES; i++) {
		struct pollfd p = { .fd = unix_socket_connect(path), .events = POLLIN };
		char byte;
		bool alive;

		if (p.fd < 0)
			return p.fd == -ECONNREFUSED ? 0 : p.fd == -ENOENT || p.fd == -EACCES ? p.fd : -EADDRINUSE;
		alive = poll(&p, 1, PROBE_MS) <= 0 || recv(p.fd, &byte, 1, MSG_DONTWAIT) > 0;
		close(p.fd);
		if (alive)
			break;
	}
	return -EADDRINUSE;
}

/* Removes a socket file that nobody listens at; 0, or why it has to stay. */
static int remove_stale(const char *path)
{
	struct stat st;
	int ret;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	ret = probe_listener(path);
	if (ret)
		return ret == -ENOENT ? 0 : ret;
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

static int bind_socket(int fd, const struct sockaddr_un *addr)
{
	int ret;

	if (bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0)
		return 0;
	if (errno != EADDRINUSE)
		return -errno;
	ret = remove_stale(addr->sun_path);
	if (!ret && bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0)
		ret = -errno;
	return ret;
}

int unix_socket_listen(struct unix_socket *s, const char *path, mode_t mode, int backlog)
{
	struct sockaddr_un addr;
	struct stat st;
	int ret = set_path(&addr, path);

	s->fd = -1;
	s->path = NULL;
	if (ret)
		return ret;
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s->fd < 0)
		return -errno;
	/* bind() gives the file the mode of the socket's own inode: it never has any other. */
	if (fchmod(s->fd, mode) < 0)
		ret = -errno;
	if (!ret)
		ret = bind_socket(s->fd, &addr);
	if (!ret && lstat(path, &st) == 0) {
		s->path = path;
		s->dev = st.st_dev;
		s->ino = st.st_ino;
	}
	if (!ret && listen(s->fd, backlog) < 0)
		ret = -errno;
	if (ret)
		unix_socket_close(s);
	return ret;
}

void unix_socket_close(struct unix_socket *s)
{
	struct stat st;

	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	if (s->path && lstat(s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino)
		unlink(s->path);
	s->path = NULL;
}
