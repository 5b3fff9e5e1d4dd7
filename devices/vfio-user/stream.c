/* SPDX-License-Identifier: MIT */
#include "devices/vfio-user/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/trace.h"

#define FIRST_SIZE 4096u
#define MAX_SIZE   (sizeof(struct vfu_header) + VFU_MESSAGE_MAX)
/* Two of the longest messages: what waits to be sent is bounded by refusing to take in more. */
#define MAX_OUT (2 * MAX_SIZE)

void vfu_stream_init(struct vfu_stream *s, int fd)
{
	memset(s, 0, sizeof(*s));
	s->fd = fd;
}

static void close_fds(struct vfu_stream *s)
{
	for (unsigned int i = 0; i < s->nr_fds; i++)
		if (s->fds[i] >= 0)
			close(s->fds[i]);
	s->nr_fds = 0;
}

void vfu_stream_close(struct vfu_stream *s)
{
	close_fds(s);
	if (s->fd >= 0)
		close(s->fd);
	free(s->in);
	free(s->out);
	vfu_stream_init(s, -1);
}

/* How long the message at the head is; a header's length as long as that is not known. */
static size_t wanted(const struct vfu_stream *s)
{
	struct vfu_header header;

	if (s->tail - s->head < sizeof(header))
		return sizeof(header);
	memcpy(&header, s->in + s->head, sizeof(header));
	return header.size < sizeof(header) || header.size > MAX_SIZE ? sizeof(header) : header.size;
}

/* Makes room for `size` bytes from the head on. */
static int make_room(struct vfu_stream *s, size_t size)
{
	size_t grown = s->in_size ? s->in_size : FIRST_SIZE;
	uint8_t *in;

	if (s->head && (s->head == s->tail || s->head + size > s->in_size)) {
		memmove(s->in, s->in + s->head, s->tail - s->head);
		s->tail -= s->head;
		s->head = 0;
	}
	if (s->in && s->head + size <= s->in_size)
		return 0;
	while (grown < size)
		grown *= 2;
	in = realloc(s->in, grown);
	if (!in)
		return -ENOMEM;
	s->in = in;
	s->in_size = grown;
	return 0;
}

static void take_fds(struct vfu_stream *s, struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (s->nr_fds < VFU_FDS_MAX)
				s->fds[s->nr_fds++] = fd;
			else
				close(fd);
		}
	}
}

static ssize_t recv_with_fds(struct vfu_stream *s, size_t length, int flags)
{
	char control[CMSG_SPACE(VFU_FDS_MAX * sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = { s->in + s->tail, length };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};
	ssize_t n = recvmsg(s->fd, &msg, flags | MSG_CMSG_CLOEXEC);

	if (n >= 0)
		take_fds(s, &msg);
	return n;
}

int vfu_stream_recv(struct vfu_stream *s, int flags)
{
	size_t size = wanted(s);
	ssize_t n;
	int ret;

	/* What is here is to be dealt with first. */
	if (s->tail - s->head >= size)
		return -EAGAIN;
	ret = make_room(s, size);
	if (ret)
		return ret;
	if (s->with_fds)
		n = recv_with_fds(s, s->head + size - s->tail, flags);
	else
		n = recv(s->fd, s->in + s->tail, s->in_size - s->tail, flags);
	if (n < 0)
		return -errno;
	s->tail += (size_t)n;
	return (int)n;
}

int vfu_stream_next(struct vfu_stream *s, struct vfu_message *m, const char **why)
{
	int ret;

	if (s->tail - s->head < sizeof(m->header))
		return 0;
	memcpy(&m->header, s->in + s->head, sizeof(m->header));
	ret = vfu_check_header(&m->header, why);
	if (ret)
		return ret;
	if (s->tail - s->head < m->header.size)
		return 0;
	m->payload = s->in + s->head + sizeof(m->header);
	m->size = m->header.size - sizeof(m->header);
	TRACE(vfio_user_recv, "fd %d id %u command %u size %u flags 0x%x error %u", s->fd, (unsigned int)m->header.id,
	      (unsigned int)m->header.command, m->header.size, m->header.flags, m->header.error);
	return 1;
}

void vfu_stream_done(struct vfu_stream *s, const struct vfu_message *m)
{
	close_fds(s);
	s->head += m->header.size;
	if (s->head == s->tail)
		s->head = s->tail = 0;
}

/* Keeps what the socket did not take: all pieces but their first `sent` bytes. */
static int keep(struct vfu_stream *s, const struct iovec *pieces, unsigned int count, size_t sent)
{
	size_t rest = 0;

	for (unsigned int i = 0; i < count; i++)
		rest += pieces[i].iov_len;
	rest -= sent;
	if (rest > MAX_OUT)
		return -EMSGSIZE;
	if (rest > s->out_size) {
		uint8_t *out = realloc(s->out, rest);

		if (!out)
			return -ENOMEM;
		s->out = out;
		s->out_size = rest;
	}
	s->out_head = s->out_tail = 0;
	for (unsigned int i = 0; i < count; i++) {
		size_t skip = sent < pieces[i].iov_len ? sent : pieces[i].iov_len, left = pieces[i].iov_len - skip;

		if (left)
			memcpy(s->out + s->out_tail, (const uint8_t *)pieces[i].iov_base + skip, left);
		s->out_tail += left;
		sent -= skip;
	}
	return 0;
}

static void trace_send(const struct vfu_stream *s, const struct iovec *pieces)
{
	struct vfu_header h;

	memcpy(&h, pieces[0].iov_base, sizeof(h));
	TRACE(vfio_user_send, "fd %d id %u command %u size %u flags 0x%x error %u", s->fd, (unsigned int)h.id,
	      (unsigned int)h.command, h.size, h.flags, h.error);
}

static ssize_t send_pieces(int to, const struct iovec *pieces, unsigned int count, const int *fds, unsigned int nr_fds)
{
	char control[CMSG_SPACE(VFU_FDS_MAX * sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct msghdr msg = { .msg_iov = (struct iovec *)pieces, .msg_iovlen = count };

	if (nr_fds) {
		struct cmsghdr *c = (struct cmsghdr *)control;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nr_fds * sizeof(int));
	}
	return sendmsg(to, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int vfu_stream_send(struct vfu_stream *s, const struct iovec *pieces, unsigned int count, const int *fds,
		    unsigned int nr_fds, bool whole)
{
	int ret = vfu_stream_waiting(s) ? vfu_stream_flush(s) : 0;
	ssize_t n;

	if (ret)
		return ret;
	do
		n = count == 1 && !nr_fds
			    ? send(s->fd, pieces[0].iov_base, pieces[0].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL)
			    : send_pieces(s->fd, pieces, count, fds, nr_fds);
	while (n < 0 && errno == EINTR);
	/* The descriptors go with the first byte, so a message that has them must not wait as a whole. */
	if (n < 0 && (errno != EAGAIN || whole || nr_fds))
		return -errno;
	trace_send(s, pieces);
	if (count == 1 && n == (ssize_t)pieces[0].iov_len)
		return 0;
	return keep(s, pieces, count, n < 0 ? 0 : (size_t)n);
}

int vfu_stream_flush(struct vfu_stream *s)
{
	while (vfu_stream_waiting(s)) {
		ssize_t n = send(s->fd, s->out + s->out_head, s->out_tail - s->out_head, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			s->out_head += (size_t)n;
	}
	return 0;
}
