/* SPDX-License-Identifier: MIT */
/*
 * Integration services: small request-and-answer protocols between the host and a guest's utility driver (Linux
 * hv_utils, Windows vmic*). Each is a VMBus device with one channel, a pipe in message mode. When the guest opens the
 * channel we send the versions we know, the guest answers with its choice, and the service is up until the channel
 * closes. From then on the host asks and the guest answers.
 *
 * Such drivers read one message an interrupt and keep the buffer until they have answered, so there is never more than
 * one request under way (ic.c says what becomes of one that is not answered). All of this runs on the loop thread.
 *
 * Wire structures: Linux include/linux/hyperv.h (struct vmbuspipe_hdr, icmsg_hdr, icmsg_negotiate). Little-endian.
 */
#ifndef DEVICES_VMBUS_IC_H
#define DEVICES_VMBUS_IC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "devices/vmbus/vmbus.h"
#include "vmm/loop.h"

struct ic;
struct vm;

struct ic_version {
	uint16_t major;
	uint16_t minor;
};

/* In front of each message of a pipe (struct vmbuspipe_hdr). */
struct ic_pipe_header {
	uint32_t type; /* IC_PIPE_DATA */
	uint32_t size; /* bytes that follow */
};
#define IC_PIPE_DATA	     1
#define IC_PIPE_MODE_MESSAGE 4 /* in the offer */

/* struct icmsg_hdr */
struct ic_header {
	struct ic_version framework;
	uint16_t type; /* IC_TYPE_* */
	struct ic_version message;
	uint16_t size;	 /* bytes that follow */
	uint32_t status; /* of an answer: HRESULT */
	uint8_t transaction;
	uint8_t flags; /* IC_FLAG_* */
	uint8_t reserved[2];
};
_Static_assert(sizeof(struct ic_header) == 20, "struct icmsg_hdr is 20 bytes");

enum {
	IC_TYPE_NEGOTIATE = 0,
	IC_TYPE_HEARTBEAT = 1,
	IC_TYPE_KVP = 2,
	IC_TYPE_SHUTDOWN = 3,
	IC_TYPE_TIMESYNC = 4,
	IC_TYPE_VSS = 5,
	IC_TYPE_FCOPY = 7,
};

#define IC_FLAG_TRANSACTION 1
#define IC_FLAG_REQUEST	    2
#define IC_FLAG_RESPONSE    4

/* struct icmsg_negotiate; the versions follow, those of the framework first. */
struct ic_negotiate {
	uint16_t frameworks;
	uint16_t messages;
	uint32_t reserved;
};

/* Values of ic_header.status: uapi/linux/hyperv.h. */
#define IC_S_OK	  0x00000000u
#define IC_E_FAIL 0x80004005u
#define IC_S_CONT 0x80070103u /* KVP enumerate: there are no more items */

/* Largest body of a message of ours or the guest's, in bytes. */
#define IC_BODY_MAX 13272
/* The same with descriptor, headers and trailer: vmbus_device_class.packet_max. */
#define IC_PACKET_MAX 13328

enum ic_state {
	IC_CLOSED,	/* the guest has no such driver, or has not opened the channel yet */
	IC_NEGOTIATING, /* asked for versions; Linux's KVP answers only when its daemon runs, or after 55 s */
	IC_REFUSED,	/* the guest knows none of our versions */
	IC_UP,
};

/*
 * A timer of a service. Set it as often as you like: it costs nothing while it is not set, and at most one request of
 * the ring otherwise. expired() runs once, ns nanoseconds after the last ic_timer_set(), unless stopped before.
 */
struct ic_timer {
	struct loop_op op;
	struct __kernel_timespec ts;
	struct ic *ic;
	void (*expired)(struct ic *ic);
	uint64_t due;	 /* ns of CLOCK_MONOTONIC, 0: not set */
	uint64_t fires;	 /* when the loop's timer ends, 0: it has none */
	bool cancelling; /* it has been asked to end earlier */
	struct ic_timer *next;
};
/* Once, before ic_add(). */
void ic_timer_init(struct ic_timer *timer, struct ic *ic, void (*expired)(struct ic *ic));
void ic_timer_set(struct ic_timer *timer, uint64_t ns);
void ic_timer_stop(struct ic_timer *timer);

/* What a service is: a constant table. Functions may be NULL. */
struct ic_class {
	struct vmbus_device_class device;  /* IC_DEVICE() */
	uint16_t type;			   /* IC_TYPE_* of its messages */
	const struct ic_version *versions; /* of its messages, lowest first; at most IC_VERSIONS_MAX */
	size_t nr_versions;

	/* Versions are agreed (ic_at_least()): requests may be sent, here already. */
	void (*up)(struct ic *ic);
	/* It was up and is no more: the guest closed the channel or broke the protocol, or a reset. After done(). */
	void (*down)(struct ic *ic);
	/* ic_request() returned -EBUSY for a request that had timed out before; now another can be sent. */
	void (*idle)(struct ic *ic);
	/* Frees what the service's struct points to, not the struct. No done() comes for a request under way. */
	void (*destroy)(struct ic *ic);
};
#define IC_VERSIONS_MAX 8

/* First part of a vmbus_device_class: what all services have in common. Name and GUIDs are added. */
/* NOLINTBEGIN(bugprone-macro-parentheses): a GUID is an initializer */
#define IC_DEVICE(name_, type_, instance_)                                                                             \
	{                                                                                                              \
		.name = (name_), .type = type_, .instance = instance_, .offer_flags = VMBUS_OFFER_PIPE,                \
		.user_defined = { IC_PIPE_MODE_MESSAGE }, .packet_max = IC_PACKET_MAX, .open = ic_open,                \
		.close = ic_close, .packet = ic_packet, .room = ic_room, .reset = ic_reset, .destroy = ic_destroy      \
	}
/* NOLINTEND(bugprone-macro-parentheses) */

/*
 * The answer to a request. error 0: status is the guest's HRESULT, body is what it sent (valid during the call; its
 * size is the guest's choice, IC_BODY_MAX at most). -ETIMEDOUT: no answer in time. -ECONNRESET: the service went down.
 * body is NULL in both cases. May send the next request.
 */
typedef void ic_done(struct ic *ic, int error, uint32_t status, const void *body, size_t size);

/* First member of a service's own struct. Fields are the framework's, except where said. */
struct ic {
	struct vmbus_device device;
	const struct ic_class *class;
	struct vm *vm; /* for the service */
	enum ic_state state;
	struct ic_version framework, message; /* while up */
	bool waiting;			      /* for an answer */
	bool abandoned;			      /* nobody waits for the answer any more */
	bool unsent;			      /* the message is in out and waits for room */
	bool sending;			      /* inside vmbus_send() of a request */
	bool broken;			      /* the channel did not take the request; to be told by the timer */
	uint8_t transaction;		      /* of the last request */
	uint64_t sent_ns;		      /* when */
	ic_done *done;
	struct ic_timer timer;
	struct ic_timer *all_timers;
	unsigned int timers; /* how many of them have a request in the loop's ring */
	bool dying;	     /* freed when none has */
	bool told;	     /* that versions do not match; once, for a guest may reset the machine for ever */
	/* Since the machine was created. */
	uint64_t requests, answers, timeouts;
	uint64_t strays; /* messages of the guest that answer nothing */
	size_t out_size;
	uint8_t out[sizeof(struct ic_pipe_header) + sizeof(struct ic_header) + IC_BODY_MAX];
};

/*
 * Puts a service on vm->vmbus, which owns it from here on. ic is the first member of a zeroed struct from calloc(), or
 * NULL for -ENOMEM. 0, or -errno after printing one line; the struct has been freed then.
 */
int ic_add(struct vm *vm, struct ic *ic, const struct ic_class *class);

/*
 * Sends a request: a copy of the size bytes at body. timeout_ns 0: waits for ever. 0: done() will be called once, not
 * before this has returned. Otherwise it will not: -ENOTCONN when the service is not up; -EBUSY while another is under
 * way, even one that has timed out, as the guest may still be at it (after a minute it is given up: -EBUSY never
 * lasts); -EMSGSIZE over IC_BODY_MAX or more than the guest's ring can hold.
 */
int ic_request(struct ic *ic, const void *body, size_t size, uint64_t timeout_ns, ic_done *done);

/* The agreed message version is this one or later. False while the service is not up. */
bool ic_at_least(const struct ic *ic, uint16_t major, uint16_t minor);

/* For status and statistics. ic_find(): the service of this name ("heartbeat"), NULL if the machine has none. */
struct ic *ic_find(const struct vm *vm, const char *name);
const char *ic_state_name(const struct ic *ic); /* "closed", "negotiating", "refused" or "up" */

/* For IC_DEVICE(). */
int ic_open(struct vmbus_channel *channel);
void ic_close(struct vmbus_channel *channel);
int ic_packet(struct vmbus_channel *channel, const struct vmbus_packet *packet);
void ic_room(struct vmbus_channel *channel);
void ic_reset(struct vmbus_device *device);
void ic_destroy(struct vmbus_device *device);

/* All six services, on vm->vmbus. 0, or -errno after printing one line. */
int ic_create_all(struct vm *vm);

#endif
