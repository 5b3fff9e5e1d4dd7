/* SPDX-License-Identifier: MIT */
/* Listening at a Unix stream socket in the file system. */
#ifndef VMM_UNIX_SOCKET_H
#define VMM_UNIX_SOCKET_H

#include <sys/types.h>

struct unix_socket {
	int fd; /* -1: not listening */
	const char *path;
	dev_t dev; /* of the socket file, so that only ours is removed */
	ino_t ino;
};

/*
 * Listens at path, which must stay valid, with these permissions (less the umask's) and backlog. A socket file that
 * nobody listens at any more, left behind by a process that was killed, is replaced. 0, or -errno: -EADDRINUSE if
 * somebody listens there, -EEXIST if the file is no socket, -ENAMETOOLONG.
 */
int unix_socket_listen(struct unix_socket *s, const char *path, mode_t mode, int backlog);

/* Stops listening and removes the file, unless it is another's by now. */
void unix_socket_close(struct unix_socket *s);

/* Connects to path: the descriptor, or -errno. */
int unix_socket_connect(const char *path);

/* The same, waiting no longer than ms milliseconds for a listener that is busy: -EAGAIN. */
int unix_socket_connect_within(const char *path, unsigned int ms);

#endif
