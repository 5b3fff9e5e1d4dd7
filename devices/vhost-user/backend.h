/* SPDX-License-Identifier: MIT */
/* What a back-end asks of us, on a socket of its own. */
#ifndef DEVICES_VHOST_USER_BACKEND_H
#define DEVICES_VHOST_USER_BACKEND_H

#include "devices/vhost-user/channel.h"

struct vhu_backend_ops {
	void (*config_changed)(void *opaque);
	/* Return 0 or -errno for a queue that does not exist. */
	int (*vring_call)(void *opaque, uint32_t queue);
	int (*vring_error)(void *opaque, uint32_t queue);
	/* 0 or -errno; *why is a reason for the user. The descriptor stays the caller's. */
	int (*map)(void *opaque, const struct vhu_mmap *m, int fd, const char **why);
	int (*unmap)(void *opaque, const struct vhu_mmap *m, const char **why);
	/* A mapping, or its end, has been refused. */
	void (*refused)(void *opaque, bool unmap, const char *why);
};

struct vhu_backend {
	struct vhu_channel channel;
	const struct vhu_backend_ops *ops;
	void *opaque;
	bool reply_ack;
};

/*
 * Receives and serves what it can without waiting, but no more than `most`. The poll events to go on with, or a
 * negative errno after which the channel is of no use: -ECONNRESET at its end, -EPROTO (*why).
 */
int vhu_backend_serve(struct vhu_backend *b, unsigned int most, const char **why);

#endif
