/* SPDX-License-Identifier: MIT */
/*
 * The commands we give to a server once it is set up, from any thread, several at once.
 *
 * There is no thread that receives. A vCPU that asks sends its command itself and then waits for the answer in recv():
 * two system calls and no other thread. If several wait, one of them receives for all and hands its place on when its
 * own answer has come. What the server asks on this socket is served by whoever receives. The loop looks at the socket
 * when nobody waits.
 *
 * Nor does recv() have a timer of its own, which it would set and take back each time. Whoever goes into it leaves word
 * until when, and the loop has a watchdog (vfu_link_watch()): a timer that looks now and then, never later than the
 * first deadline that may be up, and ends that recv() by a signal. Since every wait has the same length, one look a
 * timeout is enough, however many accesses there are, and a deadline is met as exactly as with a timer each. A wait
 * that would be over before the next look (the rest of a deadline that several commands share) has a ppoll() before it.
 *
 * Nobody waits longer than the timeout. An answer that comes later is recognised and dropped. A server that fails
 * VFU_TIMEOUTS_MAX times in a row to answer in time, breaks the protocol or goes away is left for good: the link is
 * dead, every call fails at once.
 */
#ifndef DEVICES_VFIO_USER_LINK_H
#define DEVICES_VFIO_USER_LINK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "devices/vfio-user/pending.h"
#include "devices/vfio-user/stream.h"

#define VFU_TIMEOUTS_MAX 4

struct memory;
struct vfu_link;

/* Called under the link's lock. */
struct vfu_link_ops {
	/* The run ends: nobody may wait any more. */
	bool (*ending)(void *opaque);
	/* The loop stands still until those who wait have got their answers. */
	bool (*stopped)(void *opaque);
	/* The link has died; why is a text of static storage. */
	void (*died)(void *opaque, const char *why);
	/* vfu_link_poll() is to be called soon, on the loop thread. */
	void (*look)(void *opaque);
	/* Something for the user to know, at most once a kind. */
	void (*tell)(void *opaque, const char *text);
	/* vfu_link_watch() is to be called soon, on the loop thread. */
	void (*watch)(void *opaque);
	/* Ends the system call that a thread sleeps in. A signal can come too early: it is then called again. */
	void (*wake)(void *opaque, pthread_t thread);
};

enum vfu_how {
	VFU_WAIT,  /* for the answer */
	VFU_ASYNC, /* the answer is checked when it comes */
};

struct vfu_link {
	const struct vfu_link_ops *ops;
	void *opaque;
	const struct memory *memory;
	uint64_t timeout; /* ns */
	struct vfu_caps caps;
	pthread_mutex_t lock; /* all below; but the receiving end of the stream is whose `receiving` is */
	pthread_cond_t changed;
	struct vfu_stream stream;
	_Atomic bool alive;
	bool receiving, loop_wants, can_post;
	bool blocked; /* a command of the server's waits until it takes earlier answers */
	/*
	 * A server with one socket for both directions takes the next message for the answer to its question: commands
	 * are given to it one by one.
	 */
	bool one_by_one;
	bool unmask; /* INTx is to be unmasked as soon as there is room */
	bool told_refusal;
	unsigned int waiters;
	struct vfu_pending pending;
	unsigned int timeouts; /* in a row */
	unsigned int lies;
	unsigned int nr_multi;
	struct vfu_write_one multi[VFU_WRITE_MULTI_MAX]; /* posted writes that the socket had no room for */
	uint64_t count_timeouts;
	bool watched;	   /* the watchdog looks at watch_at, or is about to be called */
	bool used;	   /* somebody has slept since it looked */
	bool sleeping;	   /* somebody does: in recv(), until sleeps_until */
	uint64_t watch_at; /* as vfu_link_now(); so are the next */
	uint64_t sleeps_until;
	pthread_t sleeper;
	/*
	 * The other socket, which is the loop's. While the loop does not run yet (`alone`), or stands still, whoever
	 * waits serves it. While alone, aside_fd ends the wait.
	 */
	struct vfu_stream *aside;
	pthread_mutex_t aside_lock; /* *aside but for its fd; inside of lock: never */
	bool alone, interrupted;
	int aside_fd;
};

void vfu_link_init(struct vfu_link *link, const struct vfu_link_ops *ops, void *opaque, const struct memory *memory,
		   uint64_t timeout_ns);
void vfu_link_destroy(struct vfu_link *link);

/* Takes over a socket on which the server is set up, with what has been received on it. Only while not alive. */
void vfu_link_start(struct vfu_link *link, struct vfu_stream *stream, const struct vfu_caps *caps, bool can_post,
		    bool one_by_one);

/* Declares it dead; does nothing if it is. */
void vfu_link_kill(struct vfu_link *link, const char *why);

/* Closes a dead link's socket: false if a thread is still about to leave it. */
bool vfu_link_close(struct vfu_link *link);

static inline bool vfu_link_alive(const struct vfu_link *link)
{
	return atomic_load_explicit(&link->alive, memory_order_acquire);
}

/* Accesses to a region: size 1 to 8 bytes. 0 or -errno; *value is all ones then. */
int vfu_link_read(struct vfu_link *link, unsigned int region, uint64_t offset, unsigned int size, uint64_t *value);
int vfu_link_write(struct vfu_link *link, unsigned int region, uint64_t offset, unsigned int size, uint64_t value,
		   bool post);

/* When an access that begins now has to be over. What takes several commands has one deadline for all. */
uint64_t vfu_link_deadline(const struct vfu_link *link);

/* Any other command. 0 or -errno. VFU_ASYNC does not wait for the answer, but for room; with deadline 0, not at all:
 * -EAGAIN. */
int vfu_link_command(struct vfu_link *link, enum vfu_command command, const void *payload, size_t size, const int *fds,
		     unsigned int nr_fds, enum vfu_how how, uint64_t deadline);

/* Has the server unmask INTx, as soon as it can be told. Does not wait. */
void vfu_link_unmask(struct vfu_link *link);

/*
 * The watchdog: wakes whoever has slept for too long. Loop thread only. In how many ns it is to be called again, or 0:
 * nobody has slept since it was called last, and ops->watch() will say when somebody does.
 */
uint64_t vfu_link_watch(struct vfu_link *link);

/* Takes in what has come, without waiting. Returns the poll events on which there is more to do, 0 if it is dead. */
short vfu_link_poll(struct vfu_link *link);

#endif
