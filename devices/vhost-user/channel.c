/* SPDX-License-Identifier: MIT */
#include "devices/vhost-user/channel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "vmm/trace.h"

/* The kernel's own bound (SCM_MAX_FD), so that none is dropped unseen. */
#define CONTROL_FDS 253

static void reset_in(struct vhu_channel *c)
{
	for (unsigned int i = 0; i < c->in.nr_fds; i++)
		if (c->in.fds[i] >= 0)
			close(c->in.fds[i]);
	c->in.nr_fds = 0;
	c->in.surplus_fds = false;
	c->received = 0;
}

void vhu_channel_init(struct vhu_channel *c, int fd)
{
	c->fd = fd;
	c->in.nr_fds = 0;
	c->in.surplus_fds = false;
	c->received = 0;
	c->out_size = c->sent = 0;
	c->nr_out_fds = 0;
}

void vhu_channel_close(struct vhu_channel *c)
{
	reset_in(c);
	/* Requests of the loop hold it open for a while: the peer is to know at once, and they are. */
	if (c->fd >= 0) {
		shutdown(c->fd, SHUT_RDWR);
		close(c->fd);
	}
	vhu_channel_init(c, -1);
}

static void take_fds(struct vhu_channel *c, struct msghdr *msg)
{
	for (struct cmsghdr *m = CMSG_FIRSTHDR(msg); m; m = CMSG_NXTHDR(msg, m)) {
		size_t n = (m->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (m->cmsg_level != SOL_SOCKET || m->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(m) + i * sizeof(fd), sizeof(fd));
			if (c->in.nr_fds < VHU_FDS_MAX) {
				c->in.fds[c->in.nr_fds++] = fd;
			} else {
				c->in.surplus_fds = true;
				close(fd);
			}
		}
	}
}

static ssize_t receive_into(struct vhu_channel *c, void *to, size_t length)
{
	char control[CMSG_SPACE(CONTROL_FDS * sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = { to, length };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};
	ssize_t n;

	do
		n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	take_fds(c, &msg);
	return n ? n : -ECONNRESET;
}

static int check_header(const struct vhu_header *h, const char **why)
{
	if ((h->flags & VHU_VERSION_MASK) != VHU_VERSION) {
		*why = "a message of another version";
		return -EPROTO;
	}
	if (h->size > VHU_PAYLOAD_MAX) {
		*why = "a message that is too long";
		return -EPROTO;
	}
	return 0;
}

int vhu_channel_receive(struct vhu_channel *c, const char **why)
{
	struct vhu_header *h = &c->in.header;

	for (;;) {
		bool in_header = c->received < sizeof(*h);
		size_t wanted = sizeof(*h) + (in_header ? 0 : h->size);
		uint8_t *to = in_header ? (uint8_t *)h + c->received : c->in.payload + (c->received - sizeof(*h));
		ssize_t n;

		if (c->received == wanted)
			break;
		n = receive_into(c, to, wanted - c->received);
		if (n == -EAGAIN)
			return 0;
		if (n < 0)
			return (int)n;
		c->received += (size_t)n;
		if (c->received == sizeof(*h) && in_header) {
			int ret = check_header(h, why);

			if (ret)
				return ret;
		}
	}
	TRACE(vhost_user_recv, "fd %d request %u flags 0x%x size %u fds %u", c->fd, h->request, h->flags, h->size,
	      c->in.nr_fds);
	return 1;
}

void vhu_channel_done(struct vhu_channel *c)
{
	reset_in(c);
}

static ssize_t send_some(struct vhu_channel *c)
{
	char control[CMSG_SPACE(VHU_TABLE_MAX * sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct iovec iov = { c->out + c->sent, c->out_size - c->sent };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	/* Descriptors go with the first byte. */
	if (c->nr_out_fds && !c->sent) {
		struct cmsghdr *m = (struct cmsghdr *)control;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(c->nr_out_fds * sizeof(int));
		m->cmsg_level = SOL_SOCKET;
		m->cmsg_type = SCM_RIGHTS;
		m->cmsg_len = CMSG_LEN(c->nr_out_fds * sizeof(int));
		memcpy(CMSG_DATA(m), c->out_fds, c->nr_out_fds * sizeof(int));
	}
	do
		n = sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

int vhu_channel_flush(struct vhu_channel *c)
{
	while (vhu_channel_sending(c)) {
		ssize_t n = send_some(c);

		if (n < 0)
			return (int)n;
		c->sent += (size_t)n;
	}
	return 0;
}

int vhu_channel_send(struct vhu_channel *c, const struct vhu_header *header, const void *payload, const int *fds,
		     unsigned int nr_fds)
{
	memcpy(c->out, header, sizeof(*header));
	if (header->size)
		memcpy(c->out + sizeof(*header), payload, header->size);
	c->out_size = sizeof(*header) + header->size;
	c->sent = 0;
	c->nr_out_fds = nr_fds;
	if (nr_fds)
		memcpy(c->out_fds, fds, nr_fds * sizeof(int));
	TRACE(vhost_user_send, "fd %d request %u flags 0x%x size %u fds %u", c->fd, header->request, header->flags,
	      header->size, nr_fds);
	return vhu_channel_flush(c);
}
