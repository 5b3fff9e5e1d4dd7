/* SPDX-License-Identifier: MIT */
/* The other end of a vhost-user socket, for the unit tests and the fuzzer; one program includes it once. */
#ifndef TESTS_UNIT_VHOST_USER_PEER_H
#define TESTS_UNIT_VHOST_USER_PEER_H

#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include "devices/vhost-user/channel.h"
#include "tests/unit/trace_fake.h"

/* Sends size bytes with this descriptor nr_fds times (at most 64). What sendmsg() returns. */
static ssize_t peer_send_fds(int to, const void *data, size_t size, int fd, unsigned int nr_fds)
{
	char control[CMSG_SPACE(64 * sizeof(int))] = { 0 };
	struct iovec iov = { (void *)data, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c = (struct cmsghdr *)control;

	if (nr_fds) {
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		for (unsigned int i = 0; i < nr_fds; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(int));
	}
	return sendmsg(to, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

#endif
