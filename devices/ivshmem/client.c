/* SPDX-License-Identifier: MIT */
#include "devices/ivshmem/client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vmm/log.h"
#include "vmm/unix_socket.h"

#define DEADLINE_MS 5000 /* for what is needed: a server answers at once */
#define VECTORS_MS                                                                                                     \
	500 /* nothing for so long: it has sent all vectors that it gives us; one that is busy takes a while */

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void prepare(struct ivshmem_client *c)
{
	c->iov = (struct iovec){ c->bytes, ivshmem_protocol_room(&c->protocol) };
	c->msg = (struct msghdr){
		.msg_iov = &c->iov, .msg_iovlen = 1, .msg_control = &c->control, .msg_controllen = sizeof(c->control)
	};
}

/* What recvmsg() has brought: 0 or -EPROTO. */
static int take(struct ivshmem_client *c, size_t size)
{
	int fds[IVSHMEM_CLIENT_FDS];
	unsigned int count = 0;

	for (struct cmsghdr *h = CMSG_FIRSTHDR(&c->msg); h; h = CMSG_NXTHDR(&c->msg, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		count = (unsigned int)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		if (count > IVSHMEM_CLIENT_FDS)
			count = IVSHMEM_CLIENT_FDS;
		memcpy(fds, CMSG_DATA(h), count * sizeof(int));
	}
	return ivshmem_protocol_feed(&c->protocol, c->bytes, size, fds, count, c->msg.msg_flags & MSG_CTRUNC);
}

/* One message, or a part of one, within ms milliseconds. -ETIMEDOUT, -ECONNRESET when the server hangs up. */
static int receive(struct ivshmem_client *c, uint64_t ms)
{
	struct pollfd p = { .fd = c->fd, .events = POLLIN };
	ssize_t n;

	if (poll(&p, 1, (int)ms) <= 0)
		return -ETIMEDOUT;
	prepare(c);
	n = recvmsg(c->fd, &c->msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	return n ? take(c, (size_t)n) : -ECONNRESET;
}

static int shake_hands(struct ivshmem_client *c, const unsigned int *vectors, unsigned int wanted)
{
	const struct ivshmem_protocol *p = &c->protocol;
	uint64_t end = now_ms() + DEADLINE_MS;
	int ret = 0;

	while (!ret && (p->id < 0 || !p->has_memory)) {
		uint64_t now = now_ms();

		ret = now < end ? receive(c, end - now) : -ETIMEDOUT;
	}
	while (!ret && *vectors < wanted && now_ms() < end)
		ret = receive(c, VECTORS_MS);
	/* It need not give us all, and what it has to say from here on is no condition for a start. */
	return p->has_memory && p->id >= 0 && ret != -EPROTO ? 0 : ret;
}

int ivshmem_client_connect(struct ivshmem_client *c, const char *path, struct loop *loop,
			   const struct ivshmem_protocol_ops *ops, void *opaque, const unsigned int *vectors,
			   unsigned int wanted, char *err, size_t errlen)
{
	int ret;

	c->loop = loop;
	c->path = path;
	ivshmem_protocol_init(&c->protocol, ops, opaque);
	c->fd = unix_socket_connect_within(path, DEADLINE_MS);
	if (c->fd < 0) {
		ret = c->fd;
		c->fd = -1;
		snprintf(err, errlen, "connect: %s", ret == -EAGAIN ? "the server is busy" : strerror(-ret));
		return ret;
	}
	ret = shake_hands(c, vectors, wanted);
	if (ret == -EPROTO)
		snprintf(err, errlen, "the server makes no sense: %s", c->protocol.error);
	else if (ret == -ETIMEDOUT)
		snprintf(err, errlen, "the server does not send its version, our id and the memory within %d s",
			 DEADLINE_MS / 1000);
	else if (ret == -ECONNRESET)
		snprintf(err, errlen, "the server hung up before it had sent its version, our id and the memory");
	else if (ret)
		snprintf(err, errlen, "recvmsg: %s", strerror(-ret));
	return ret;
}

static void arm(struct ivshmem_client *c)
{
	prepare(c);
	c->receiving = true;
	io_uring_prep_recvmsg(loop_sqe(c->loop, &c->recv_op), c->fd, &c->msg, MSG_CMSG_CLOEXEC);
}

static void hang_up(struct ivshmem_client *c)
{
	close(c->fd);
	c->fd = -1;
	ivshmem_protocol_fini(&c->protocol);
}

static void received(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct ivshmem_client *c = (struct ivshmem_client *)((char *)op - offsetof(struct ivshmem_client, recv_op));
	int ret = 0;

	(void)cqe_flags;
	c->receiving = false;
	if (res > 0)
		ret = take(c, (size_t)res);
	if (c->loop->stopping)
		return;
	if (c->closing) {
		hang_up(c);
		return;
	}
	if ((res > 0 && !ret) || res == -EINTR || res == -EAGAIN) {
		arm(c);
		return;
	}
	if (ret)
		log_line("--ivshmem socket=%s: hung up on a server that makes no sense: %s", c->path,
			 c->protocol.error);
	else
		log_line("--ivshmem socket=%s: the server is gone%s%s; no peer will join or leave any more", c->path,
			 res		    ? ": "
			 : c->protocol.have ? " in the middle of a message"
					    : "",
			 res ? strerror(-res) : "");
	hang_up(c);
}

void ivshmem_client_start(struct ivshmem_client *c)
{
	c->recv_op.fn = received;
	if (c->fd >= 0)
		arm(c);
}

void ivshmem_client_stop(struct ivshmem_client *c)
{
	c->closing = true;
	if (c->receiving)
		loop_cancel(c->loop, &c->recv_op);
	else if (c->fd >= 0)
		hang_up(c);
}

void ivshmem_client_fini(struct ivshmem_client *c)
{
	if (c->fd >= 0)
		hang_up(c);
}
