/* SPDX-License-Identifier: MIT */
/*
 * What we ask of a back-end: a queue of requests, one under way at a time, each with a deadline. Nothing here waits;
 * whoever drives it polls the socket. One thread.
 *
 * A step of the queue without a message is a place for a function: it is called when all before it is done. Requests
 * that are made inside of a function are put before the rest of the queue, so that a step can be made of others, which
 * are known only when its turn has come.
 *
 * A link dies of the first thing that is wrong: the end of the stream, silence, nonsense, a request that is refused
 * although nobody said it might be. What is in the queue is called with -EIO then, as is all that comes later.
 */
#ifndef DEVICES_VHOST_USER_LINK_H
#define DEVICES_VHOST_USER_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "devices/vhost-user/channel.h"

#define VHU_REQUEST_MAX 272

struct vhu_call;

/*
 * status: 0; -EREMOTEIO: refused; -EIO: the link is dead. reply: NULL unless the request has one of its own; its
 * descriptors are closed afterwards unless taken.
 */
typedef void (*vhu_done)(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status);

struct vhu_call {
	struct vhu_call *next;
	uint32_t request; /* 0: a step without a message */
	uint32_t size;
	uint32_t reply_min, reply_max; /* of a reply of its own; max 0: it has none */
	unsigned int index;	       /* for done(): of a queue, or whatever it is about */
	bool may_fail;		       /* a refusal is no reason to die */
	bool plain;		       /* no acknowledgement is asked for */
	bool owns_fd;		       /* fds[0] is closed with the call */
	unsigned int nr_fds;
	int fds[VHU_TABLE_MAX];
	vhu_done done; /* NULL: none */
	void *opaque;  /* of done(): the link's, unless changed */
	uint8_t payload[VHU_REQUEST_MAX] __attribute__((aligned(8)));
};

struct vhu_link {
	struct vhu_channel channel;
	void *opaque;
	bool alive, reply_ack;
	uint64_t timeout;	/* ns */
	uint64_t deadline;	/* of the request under way, in ns of CLOCK_MONOTONIC; 0: none is */
	struct vhu_call *first; /* under way, if `sent` */
	struct vhu_call **insert;
	bool sent, awaiting, busy;
	char why[120]; /* it died of this */
};

const char *vhu_request_name(uint32_t request);

void vhu_link_init(struct vhu_link *link, void *opaque, uint64_t timeout_ns);
void vhu_link_start(struct vhu_link *link, int fd); /* a connected socket, which becomes the link's */

/* Closes it, and forgets the queue without a call: what it would act on is going. */
void vhu_link_drop(struct vhu_link *link);

/* Closes it and calls everything in the queue. */
void vhu_link_stop(struct vhu_link *link, const char *why);

/*
 * A new call at the place for it, with its payload copied. NULL: out of memory, and the link is dead. The rest of it
 * may be filled in before the next vhu_link_run().
 */
struct vhu_call *vhu_link_call(struct vhu_link *link, uint32_t request, const void *payload, uint32_t size);

/*
 * Goes on as far as it can at this time. The poll events to wait for (until link->deadline, if there is one), or 0
 * when it is dead.
 */
short vhu_link_run(struct vhu_link *link, uint64_t now);

#endif
