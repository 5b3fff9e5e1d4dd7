/* SPDX-License-Identifier: MIT */
/*
 * One socket of a vhost-user connection: bytes and descriptors in, whole messages out, and whole messages in. Nothing
 * here waits. No locks.
 */
#ifndef DEVICES_VHOST_USER_CHANNEL_H
#define DEVICES_VHOST_USER_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "devices/vhost-user/wire.h"

struct vhu_message {
	struct vhu_header header;
	uint8_t payload[VHU_PAYLOAD_MAX] __attribute__((aligned(8)));
	int fds[VHU_FDS_MAX]; /* -1: taken */
	unsigned int nr_fds;
	bool surplus_fds; /* more came, and were closed */
};

struct vhu_channel {
	int fd;		       /* -1: closed */
	struct vhu_message in; /* being received */
	size_t received;
	uint8_t out[sizeof(struct vhu_header) + VHU_PAYLOAD_MAX];
	size_t out_size, sent;
	int out_fds[VHU_TABLE_MAX];
	unsigned int nr_out_fds;
};

void vhu_channel_init(struct vhu_channel *c, int fd);
void vhu_channel_close(struct vhu_channel *c);

/*
 * Goes on receiving. 1: a message is in c->in, until vhu_channel_done(); 0: not all of it has come; -ECONNRESET at the
 * end of the stream, -EPROTO (*why) for a header that cannot be, or another negative errno.
 */
int vhu_channel_receive(struct vhu_channel *c, const char **why);
void vhu_channel_done(struct vhu_channel *c); /* closes descriptors that nobody took */

/*
 * Sends a message, or what the socket takes of it now; fds stay the caller's and must be open until it is sent. Only
 * while nothing waits. 0, -EAGAIN (go on with vhu_channel_flush()), or another negative errno.
 */
int vhu_channel_send(struct vhu_channel *c, const struct vhu_header *header, const void *payload, const int *fds,
		     unsigned int nr_fds);
int vhu_channel_flush(struct vhu_channel *c);

static inline bool vhu_channel_sending(const struct vhu_channel *c)
{
	return c->sent < c->out_size;
}

#endif
