/* SPDX-License-Identifier: MIT */
/*
 * vhost-user without a machine: the other end of a socket that says and hears whole messages, and the ends of ours that
 * a test may hold. One program includes it once.
 */
#ifndef TESTS_UNIT_VHOST_USER_FAKE_H
#define TESTS_UNIT_VHOST_USER_FAKE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/vhost-user/link.h"
#include "vhost_user_peer.h"

#define TIMEOUT 1000u
#define PAGE	4096u

static inline unsigned int open_fds(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static inline void peer_send(int to, const void *data, size_t size, unsigned int nr_fds)
{
	assert_int_equal(peer_send_fds(to, data, size, STDERR_FILENO, nr_fds), size);
}

static inline void peer_message(int to, uint32_t request, uint32_t flags, const void *payload, uint32_t size,
				unsigned int nr_fds)
{
	uint8_t data[sizeof(struct vhu_header) + VHU_PAYLOAD_MAX];
	const struct vhu_header h = { request, flags, size };

	memcpy(data, &h, sizeof(h));
	if (size)
		memcpy(data + sizeof(h), payload, size);
	peer_send(to, data, sizeof(h) + size, nr_fds);
}

struct heard {
	struct vhu_header header;
	uint8_t payload[VHU_PAYLOAD_MAX];
	unsigned int nr_fds;
};

/* A whole message that must be there; its descriptors are counted and closed. */
static inline void peer_hear(int from, struct heard *m)
{
	char control[CMSG_SPACE(64 * sizeof(int))];
	struct iovec iov = { &m->header, sizeof(m->header) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};

	m->nr_fds = 0;
	assert_int_equal(recvmsg(from, &msg, MSG_DONTWAIT), sizeof(m->header));
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		m->nr_fds = (unsigned int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (unsigned int i = 0; i < m->nr_fds; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			close(fd);
		}
	}
	assert_true(m->header.size <= sizeof(m->payload));
	if (m->header.size)
		assert_int_equal(recv(from, m->payload, m->header.size, MSG_DONTWAIT), m->header.size);
}

static inline bool peer_idle(int from)
{
	char byte;

	return recv(from, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
}

static inline void reply_u64(int to, uint32_t request, uint64_t value)
{
	peer_message(to, request, VHU_VERSION | VHU_REPLY, &value, sizeof(value), 0);
}

static inline int channel_pair(struct vhu_channel *c)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	vhu_channel_init(c, pair[0]);
	return pair[1];
}

struct done {
	unsigned int count, order[32];
	int status[32];
	uint64_t value[32];
	struct vhu_link *link;
};

static inline int link_begin(struct vhu_link *link, struct done *d, bool reply_ack)
{
	int pair[2];

	memset(d, 0, sizeof(*d));
	d->link = link;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	vhu_link_init(link, d, TIMEOUT);
	vhu_link_start(link, pair[0]);
	link->reply_ack = reply_ack;
	return pair[1];
}

#endif
