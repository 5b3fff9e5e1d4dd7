/* SPDX-License-Identifier: MIT */
#include "devices/ivshmem/protocol.h"

#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "devices/ivshmem/ivshmem.h"

#define VERSION 0
#define MEMORY	(-1)

static int fail(struct ivshmem_protocol *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int fail(struct ivshmem_protocol *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p->error, sizeof(p->error), fmt, ap);
	va_end(ap);
	return -EPROTO;
}

void ivshmem_protocol_init(struct ivshmem_protocol *p, const struct ivshmem_protocol_ops *ops, void *opaque)
{
	memset(p, 0, sizeof(*p));
	p->ops = ops;
	p->opaque = opaque;
	p->id = -1;
	p->fd = -1;
}

void ivshmem_protocol_fini(struct ivshmem_protocol *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
}

unsigned int ivshmem_protocol_room(const struct ivshmem_protocol *p)
{
	return IVSHMEM_MESSAGE - p->have;
}

static int take_fd(struct ivshmem_protocol *p)
{
	int fd = p->fd;

	p->fd = -1;
	return fd;
}

static int take_memory(struct ivshmem_protocol *p)
{
	if (p->lost_fd)
		return fail(p, "the shared memory's descriptor was lost: too many open files");
	if (p->fd < 0)
		return fail(p, "the shared memory came without a descriptor");
	if (p->has_memory) {
		p->ignored++;
		return 0;
	}
	p->has_memory = true;
	p->ops->memory(p->opaque, take_fd(p));
	return 0;
}

static int take_peer(struct ivshmem_protocol *p, unsigned int peer)
{
	bool own = peer == (unsigned int)p->id;

	if (own && p->fd < 0 && !p->lost_fd)
		p->ignored++;
	else if (own)
		p->ops->vector(p->opaque, take_fd(p));
	else if (p->fd >= 0 || p->lost_fd)
		p->ops->doorbell(p->opaque, peer, take_fd(p));
	else
		p->ops->gone(p->opaque, peer);
	return 0;
}

static int take_message(struct ivshmem_protocol *p, int64_t value)
{
	bool with_fd = p->fd >= 0 || p->lost_fd;

	if (!p->has_version) {
		if (value != VERSION || with_fd)
			return fail(p, "it speaks version %lld%s, not 0", (long long)value,
				    with_fd ? " with a descriptor" : "");
		p->has_version = true;
		return 0;
	}
	if (p->id < 0) {
		if (value < 0 || value >= IVSHMEM_PEERS || with_fd)
			return fail(p, "%lld%s is no id for this machine", (long long)value,
				    with_fd ? " with a descriptor" : "");
		p->id = (int)value;
		return 0;
	}
	if (value == MEMORY)
		return take_memory(p);
	if (value < 0 || value >= IVSHMEM_PEERS)
		return fail(p, "%lld is no id of a peer", (long long)value);
	return take_peer(p, (unsigned int)value);
}

int ivshmem_protocol_feed(struct ivshmem_protocol *p, const void *bytes, size_t size, const int *fds,
			  unsigned int nr_fds, bool lost)
{
	uint64_t value;
	int ret;

	for (unsigned int i = 0; i < nr_fds; i++) {
		if (p->fd < 0)
			p->fd = fds[i];
		else
			close(fds[i]);
	}
	p->lost_fd |= lost && p->fd < 0;
	if (!size || size > ivshmem_protocol_room(p))
		return fail(p, "%zu bytes where a message lacks %u", size, ivshmem_protocol_room(p));
	memcpy(p->bytes + p->have, bytes, size);
	p->have += (unsigned int)size;
	if (p->have < IVSHMEM_MESSAGE)
		return 0;
	memcpy(&value, p->bytes, sizeof(value));
	ret = take_message(p, (int64_t)le64toh(value));
	ivshmem_protocol_fini(p);
	p->have = 0;
	p->lost_fd = false;
	return ret;
}
