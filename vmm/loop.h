/* SPDX-License-Identifier: MIT */
/*
 * The event loop: one io_uring, run by one thread, which owns every device's state outside the register functions.
 *
 * An operation is a struct loop_op embedded in its owner's state; its callback runs on the loop thread with the
 * completion's result. The owner keeps the op alive until the callback ran (for multishot: until a completion
 * without IORING_CQE_F_MORE). Needs nothing beyond Linux 6.1.
 */
#ifndef VMM_LOOP_H
#define VMM_LOOP_H

#include <liburing.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct loop_op {
	void (*fn)(struct loop_op *op, int res, uint32_t cqe_flags);
};

/* Work posted from another thread. Zero-initialise; posting one that is already queued does nothing. */
struct loop_work {
	void (*fn)(struct loop_work *work);
	struct loop_work *_Atomic next;
	_Atomic bool queued;
};

struct loop {
	struct io_uring ring;
	_Atomic int wake_fd; /* -1 until loop_start() */
	uint64_t wake_count; /* target of the wake-up read */
	struct loop_op wake_op;
	struct loop_work *_Atomic inbox; /* LIFO, reversed before running */
	struct loop_work *deferred;	 /* loop_defer() */
	bool stopping;
	unsigned int gather;  /* loop_gather() */
	uint64_t submissions; /* SQEs handed to the kernel, for statistics */
};

/*
 * loop_init() costs no syscall; work may be posted from then on. loop_start() makes the ring, on the loop's own thread:
 * 0 or -errno. loop_destroy() is due after loop_init() in any case.
 */
void loop_init(struct loop *loop);
int loop_start(struct loop *loop);
void loop_destroy(struct loop *loop);

/* Runs until loop_stop(). Returns 0, or -errno if the ring itself failed. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop); /* loop thread only */

/* One turn: submits, waits up to ns nanoseconds for a completion, runs what completed. False when none came. */
bool loop_turn(struct loop *loop, uint64_t ns);

/*
 * A cleared SQE whose completion calls op->fn. Never NULL: submits what is pending when the queue is full. Fill it
 * with io_uring_prep_*(); the loop submits before it waits. Loop thread only.
 */
struct io_uring_sqe *loop_sqe(struct loop *loop, struct loop_op *op);

/* Asks for op's outstanding request to be cancelled; op->fn then runs with -ECANCELED (or its result). */
void loop_cancel(struct loop *loop, struct loop_op *op);

/* Runs work->fn on the loop thread, soon. Any thread. Costs one eventfd write when the inbox was empty. */
void loop_post(struct loop *loop, struct loop_work *work);

/*
 * Runs work->fn once when the completions at hand have been dealt with, before the loop submits and waits: what many of
 * them want done is done once. Loop thread only; no system call.
 */
void loop_defer(struct loop *loop, struct loop_work *work);

/*
 * The loop's next wait is for count completions, whosever they are, or LOOP_GATHER_NS: what many of them want done is
 * then done once. For those who have several times as many under way. Loop thread only.
 */
#define LOOP_GATHER_NS 100000
void loop_gather(struct loop *loop, unsigned int count);

/* One-shot timer: op->fn runs with -ETIME after ns nanoseconds (or -ECANCELED). ts must stay valid until then. */
void loop_timer(struct loop *loop, struct loop_op *op, struct __kernel_timespec *ts, uint64_t ns);

#endif
