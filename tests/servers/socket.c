/* SPDX-License-Identifier: MIT */
#include "tests/servers/socket.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

_Noreturn void die(const char *what)
{
	perror(what);
	exit(1);
}

int socket_listen(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 4) < 0)
		die(path);
	puts("ready");
	fflush(stdout);
	return fd;
}

bool socket_send(int fd, const void *data, size_t size, const int *fds, unsigned int nr_fds, size_t piece)
{
	char control[CMSG_SPACE(SOCKET_FDS_MAX * sizeof(int))] = { 0 };

	while (size) {
		struct iovec iov = { (void *)data, piece && piece < size ? piece : size };
		struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
		ssize_t n;

		if (nr_fds) {
			struct cmsghdr *c = (struct cmsghdr *)control;

			msg.msg_control = control;
			msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
			c->cmsg_level = SOL_SOCKET;
			c->cmsg_type = SCM_RIGHTS;
			c->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
			memcpy(CMSG_DATA(c), fds, nr_fds * sizeof(int));
		}
		n = sendmsg(fd, &msg, MSG_NOSIGNAL);
		if (n < 0)
			return false;
		nr_fds = 0;
		data = (const uint8_t *)data + n;
		size -= (size_t)n;
	}
	return true;
}

bool socket_receive(int fd, void *to, size_t size, int *fds, unsigned int max, unsigned int *nr_fds)
{
	char control[CMSG_SPACE(SOCKET_FDS_MAX * sizeof(int))];

	while (size) {
		struct iovec iov = { to, size };
		struct msghdr msg = { .msg_iov = &iov,
				      .msg_iovlen = 1,
				      .msg_control = control,
				      .msg_controllen = CMSG_SPACE(max * sizeof(int)) };
		ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);

		if (n <= 0)
			return false;
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
			unsigned int count = (unsigned int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));

			memcpy(fds, CMSG_DATA(c), count * sizeof(int));
			*nr_fds = count;
		}
		to = (uint8_t *)to + n;
		size -= (size_t)n;
	}
	return true;
}
