/* SPDX-License-Identifier: MIT */
/*
 * One socket of a vfio-user connection: bytes in, whole messages out; and messages out, in one system call each unless
 * the socket is full. Nothing here blocks, but for vfu_stream_recv() when told to. No locks: see link.h.
 */
#ifndef DEVICES_VFIO_USER_STREAM_H
#define DEVICES_VFIO_USER_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "devices/vfio-user/proto.h"

struct vfu_stream {
	int fd; /* -1: closed */
	/*
	 * With descriptors: they are taken in, and no more is read than the message at hand, so that it is known
	 * whose they are. Without, the kernel throws away what the peer sends.
	 */
	bool with_fds;
	uint8_t *in;
	size_t in_size, head, tail; /* [head, tail) has been received */
	uint8_t *out;		    /* the rest of messages that the socket had no room for */
	size_t out_size, out_head, out_tail;
	int fds[VFU_FDS_MAX];
	unsigned int nr_fds;
};

struct vfu_message {
	struct vfu_header header;
	const uint8_t *payload; /* until vfu_stream_done() */
	size_t size;		/* of the payload */
};

void vfu_stream_init(struct vfu_stream *s, int fd);
void vfu_stream_close(struct vfu_stream *s); /* all descriptors and memory */

/*
 * Receives once; flags: MSG_DONTWAIT or 0. The number of bytes, 0 at the end of the stream, or -errno: -EAGAIN,
 * -EINTR, -ENOMEM. Whoever calls it has the receiving end for himself.
 */
int vfu_stream_recv(struct vfu_stream *s, int flags);

/* The next whole message. 1, 0 if it has not come yet, or -EPROTO (*why). Then vfu_stream_done(), which also closes the
 * descriptors that came with it and were not taken (set to -1). */
int vfu_stream_next(struct vfu_stream *s, struct vfu_message *m, const char **why);
void vfu_stream_done(struct vfu_stream *s, const struct vfu_message *m);

/*
 * Sends a message of count pieces, at most 3, behind what waits. 0 if the socket took it or the rest waits
 * (vfu_stream_waiting()); -EAGAIN if nothing of it was taken and earlier messages wait or the socket is full and
 * `whole` is set; or another negative errno: the stream is of no use any more. The bytes are not needed afterwards.
 */
int vfu_stream_send(struct vfu_stream *s, const struct iovec *pieces, unsigned int count, const int *fds,
		    unsigned int nr_fds, bool whole);

/* Sends what waits: 0, -EAGAIN, or another negative errno. */
int vfu_stream_flush(struct vfu_stream *s);

static inline bool vfu_stream_waiting(const struct vfu_stream *s)
{
	return s->out_head != s->out_tail;
}

#endif
