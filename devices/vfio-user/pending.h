/* SPDX-License-Identifier: MIT */
/*
 * What a server has been asked and has not answered, and what a reply that comes is the answer to. A reply that nobody
 * waits for is not a lie yet: it may be late, a second one, or one to a command that asked for none; so the last
 * commands are remembered. No locks: see link.h.
 */
#ifndef DEVICES_VFIO_USER_PENDING_H
#define DEVICES_VFIO_USER_PENDING_H

#include <stdbool.h>
#include <stdint.h>

#include "devices/vfio-user/wire.h"

#define VFU_ASYNC_MAX  32
#define VFU_LATE_MAX   16
#define VFU_RECENT_MAX 64

struct vfu_call {
	struct vfu_call *next;
	const struct vfu_region_access *access; /* NULL: no access to a region */
	void *data;				/* of a read */
	uint16_t id, command;
	bool listed, done;
	int result;
};

struct vfu_trail {
	uint16_t id, command; /* id 0: none */
	bool posted;
};

struct vfu_pending {
	uint16_t next_id;
	struct vfu_call *calls;
	struct vfu_call async[VFU_ASYNC_MAX]; /* those that nobody waits for */
	struct vfu_trail late[VFU_LATE_MAX];  /* given up */
	unsigned int nr_late;
	struct vfu_trail recent[VFU_RECENT_MAX];
	unsigned int next_recent;
};

enum vfu_answers {
	VFU_ANSWERS_CALL,   /* *call, which is no longer listed */
	VFU_ANSWERS_LATE,   /* a command that has been given up */
	VFU_ANSWERS_AGAIN,  /* a command that has been answered */
	VFU_ANSWERS_POSTED, /* a command that asked for no answer */
	VFU_ANSWERS_OTHER,  /* a call, but its command is another one */
	VFU_ANSWERS_NOTHING,
};

/* An id that no call has, nor one that was given up. */
uint16_t vfu_pending_id(struct vfu_pending *p);

/* Lists a call under a new id. It stays where it is until it is answered, forgotten or taken back. */
void vfu_pending_add(struct vfu_pending *p, struct vfu_call *call, uint16_t command);

/* A call that was not sent. Does nothing if it is not listed. */
void vfu_pending_take_back(struct vfu_pending *p, struct vfu_call *call);

/* Gives up a call, if it is listed: its answer may still come. False: too many are like that. */
bool vfu_pending_give_up(struct vfu_pending *p, struct vfu_call *call);

/* A command that was sent and asked for no answer. */
void vfu_pending_posted(struct vfu_pending *p, uint16_t id, uint16_t command);

/* A call of the pool, for a command that nobody waits for; NULL: none is free. */
struct vfu_call *vfu_pending_async(struct vfu_pending *p);
bool vfu_pending_is_async(const struct vfu_pending *p, const struct vfu_call *call);

enum vfu_answers vfu_pending_reply(struct vfu_pending *p, const struct vfu_header *reply, struct vfu_call **call);

/* All calls end with this result. */
void vfu_pending_fail(struct vfu_pending *p, int result);

#endif
