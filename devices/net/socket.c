/* SPDX-License-Identifier: MIT */
/*
 * Frames over a socket, without headers: datagrams, or a stream with a length before each frame. A datagram goes
 * straight between the socket and the memory it is from or for. A stream is read in large pieces and copied from there;
 * what it does not take of a frame that it has begun is kept, for the frame must go on where it stopped.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/net/internal.h"

#define IN_SIZE	  (256u << 10)
#define FRAME_MAX 65535u
#define PREFIX	  4u
#define IOV_SPARE 256u

struct sock {
	struct net_backend net;
	struct net_port port;
	bool stream;
	/* Of a stream: bytes [in_first, in_end) wait to be taken; rest[0..rest_size) to be sent. */
	uint8_t *in;
	size_t in_first, in_end;
	uint8_t *rest;
	size_t rest_first, rest_end;
};

static struct sock *of(struct net_backend *net)
{
	return (struct sock *)net;
}

static size_t iov_bytes(const struct net_frame *frame)
{
	size_t size = 0;

	for (unsigned int i = 0; i < frame->count; i++)
		size += frame->iov[i].iov_len;
	return size;
}

static ssize_t send_iov(struct sock *s, struct iovec *iov, unsigned int count)
{
	struct msghdr message = { .msg_iov = iov, .msg_iovlen = count };
	ssize_t n = sendmsg(s->port.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

	return n < 0 ? -errno : n;
}

static bool is_gone(ssize_t error)
{
	return error == -EPIPE || error == -ECONNRESET || error == -ENOTCONN;
}

/* False: there is still a rest. */
static bool send_rest(struct sock *s)
{
	while (s->rest_first < s->rest_end) {
		struct iovec iov = { s->rest + s->rest_first, s->rest_end - s->rest_first };
		ssize_t n = send_iov(s, &iov, 1);

		if (n == -EINTR)
			continue;
		if (n < 0) {
			if (is_gone(n))
				net_port_gone(&s->port);
			return false;
		}
		s->rest_first += (size_t)n;
	}
	return true;
}

/* What was not sent of a frame, the first skip bytes of prefix and frame. */
static void keep_rest(struct sock *s, const struct iovec *iov, unsigned int count, size_t skip)
{
	s->rest_first = s->rest_end = 0;
	for (unsigned int i = 0; i < count; i++) {
		size_t off = skip < iov[i].iov_len ? skip : iov[i].iov_len;

		memcpy(s->rest + s->rest_end, (const uint8_t *)iov[i].iov_base + off, iov[i].iov_len - off);
		s->rest_end += iov[i].iov_len - off;
		skip -= off;
	}
}

static ssize_t send_framed(struct sock *s, const struct net_frame *frame)
{
	struct iovec iov[IOV_SPARE];
	size_t size = iov_bytes(frame);
	uint32_t prefix = htonl((uint32_t)size);
	ssize_t n;

	if (frame->count >= IOV_SPARE || size > FRAME_MAX)
		return -EMSGSIZE;
	if (!send_rest(s))
		return -EAGAIN;
	iov[0] = (struct iovec){ &prefix, PREFIX };
	memcpy(iov + 1, frame->iov, frame->count * sizeof(iov[0]));
	n = send_iov(s, iov, frame->count + 1);
	if (n >= 0 && (size_t)n < size + PREFIX)
		keep_rest(s, iov, frame->count + 1, (size_t)n);
	return n < 0 ? n : (ssize_t)size;
}

static unsigned int sock_send(struct net_backend *net, unsigned int queue, struct net_frame *frames, unsigned int count)
{
	struct sock *s = of(net);

	(void)queue;
	for (unsigned int i = 0; i < count; i++) {
		ssize_t n;

		do
			n = s->stream ? send_framed(s, &frames[i]) : send_iov(s, frames[i].iov, frames[i].count);
		while (n == -EINTR);
		if ((n == -EAGAIN || n == -ENOBUFS) && !s->port.ended)
			return i;
		if (is_gone(n))
			net_port_gone(&s->port);
		frames[i].result = n;
	}
	return count;
}

/* No bytes are an empty datagram, or the end. */
static bool has_hung_up(const struct sock *s)
{
	struct pollfd pollfd = { .fd = s->port.fd };

	return poll(&pollfd, 1, 0) > 0 && (pollfd.revents & POLLHUP);
}

static bool receive_datagram(struct sock *s, struct net_frame *frame)
{
	struct msghdr message = { .msg_iov = frame->iov, .msg_iovlen = frame->count };
	ssize_t n = recvmsg(s->port.fd, &message, MSG_DONTWAIT);

	frame->result = n < 0 ? -errno : message.msg_flags & MSG_TRUNC ? -EMSGSIZE : n;
	if (frame->result == -ECONNREFUSED) /* of an earlier datagram of ours */
		return true;
	if ((n < 0 && is_gone(frame->result)) || (n == 0 && has_hung_up(s)))
		net_port_gone(&s->port);
	return n > 0 || frame->result == -EMSGSIZE;
}

/* Reads what there is. False: nothing. */
static bool fill(struct sock *s)
{
	ssize_t n;

	if (s->in_first) {
		memmove(s->in, s->in + s->in_first, s->in_end - s->in_first);
		s->in_end -= s->in_first;
		s->in_first = 0;
	}
	n = recv(s->port.fd, s->in + s->in_end, IN_SIZE - s->in_end, MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		net_port_gone(&s->port);
	if (n <= 0)
		return false;
	s->in_end += (size_t)n;
	return true;
}

static ssize_t scatter(const struct net_frame *frame, const uint8_t *bytes, size_t size)
{
	size_t done = 0;

	if (size >= iov_bytes(frame))
		return -EMSGSIZE;
	for (unsigned int i = 0; i < frame->count && done < size; i++) {
		size_t here = frame->iov[i].iov_len < size - done ? frame->iov[i].iov_len : size - done;

		memcpy(frame->iov[i].iov_base, bytes + done, here);
		done += here;
	}
	return (ssize_t)size;
}

static bool receive_framed(struct sock *s, struct net_frame *frame)
{
	uint32_t size;

	for (;;) {
		size_t there = s->in_end - s->in_first;

		if (there >= PREFIX) {
			memcpy(&size, s->in + s->in_first, PREFIX);
			size = ntohl(size);
			if (size > FRAME_MAX) { /* the peer has lost its way, and there is no way back */
				net_port_gone(&s->port);
				return false;
			}
			if (there >= PREFIX + size)
				break;
		}
		if (s->port.ended || !fill(s))
			return false;
	}
	frame->result = scatter(frame, s->in + s->in_first + PREFIX, size);
	s->in_first += PREFIX + size;
	return true;
}

static unsigned int sock_receive(struct net_backend *net, unsigned int queue, struct net_frame *frames,
				 unsigned int count)
{
	struct sock *s = of(net);
	unsigned int n = 0;

	(void)queue;
	if (s->port.ended)
		return 0;
	while (n < count && (s->stream ? receive_framed(s, &frames[n]) : receive_datagram(s, &frames[n])))
		n++;
	return n;
}

static void sock_again(struct net_backend *net, unsigned int queue)
{
	(void)queue;
	net_port_again(&of(net)->port);
}

static void sock_want_room(struct net_backend *net, unsigned int queue)
{
	(void)queue;
	net_port_want_room(&of(net)->port);
}

static void sock_destroy(struct net_backend *net)
{
	struct sock *s = of(net);

	close(s->port.fd);
	free(s->in);
	free(s->rest);
	free(s);
}

static void sock_explain(struct net_backend *net, char *text, size_t size)
{
	(void)net;
	snprintf(text, size, "the other end has closed");
}

static const struct net_ops sock_ops = {
	.send = sock_send,
	.receive = sock_receive,
	.again = sock_again,
	.want_room = sock_want_room,
	.explain = sock_explain,
	.destroy = sock_destroy,
};

struct net_backend *socket_open(struct loop *loop, int fd, bool stream, unsigned int mtu)
{
	struct sock *s = calloc(1, sizeof(*s));

	if (!s) {
		close(fd);
		return NULL;
	}
	s->net = (struct net_backend){ .ops = &sock_ops, .queues = 1, .mtu = mtu ? mtu : 1500 };
	net_port_init(&s->port, &s->net, loop, 0, fd);
	s->stream = stream;
	if (stream) {
		s->in = malloc(IN_SIZE);
		s->rest = malloc(FRAME_MAX + PREFIX);
		if (!s->in || !s->rest) {
			sock_destroy(&s->net);
			return NULL;
		}
	}
	return &s->net;
}
