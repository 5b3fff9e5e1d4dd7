/* SPDX-License-Identifier: MIT */
#include "vmm/loop.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define ENTRIES	 64
#define TURN_MAX 256 /* completions handled before the loop submits again */

static void woken(struct loop_op *op, int res, uint32_t cqe_flags);

static void arm_wake(struct loop *loop)
{
	struct io_uring_sqe *sqe = loop_sqe(loop, &loop->wake_op);

	io_uring_prep_read(sqe, loop->wake_fd, &loop->wake_count, sizeof(loop->wake_count), 0);
}

/* Runs what was posted, oldest first. */
static void empty_inbox(struct loop *loop)
{
	struct loop_work *list = atomic_exchange(&loop->inbox, NULL), *ordered = NULL;

	while (list) {
		struct loop_work *next = atomic_load_explicit(&list->next, memory_order_relaxed);

		atomic_store_explicit(&list->next, ordered, memory_order_relaxed);
		ordered = list;
		list = next;
	}
	while (ordered) {
		struct loop_work *work = ordered;

		ordered = atomic_load_explicit(&work->next, memory_order_relaxed);
		atomic_store_explicit(&work->queued, false, memory_order_release);
		work->fn(work);
	}
}

static void woken(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct loop *loop = (struct loop *)((char *)op - offsetof(struct loop, wake_op));

	(void)res;
	(void)cqe_flags;
	/* Armed before the inbox is emptied: whoever posts after that writes the eventfd again. */
	arm_wake(loop);
	empty_inbox(loop);
}

void loop_init(struct loop *loop)
{
	memset(loop, 0, sizeof(*loop));
	atomic_init(&loop->wake_fd, -1);
	loop->wake_op.fn = woken;
}

int loop_start(struct loop *loop)
{
	struct io_uring_params params = { 0 };
	int fd = eventfd(0, EFD_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	ret = io_uring_queue_init_params(ENTRIES, &loop->ring, &params);
	if (ret < 0) {
		close(fd);
		return ret;
	}
	/* Whoever posts from here on wakes the loop; what was posted before is in the inbox. */
	atomic_store(&loop->wake_fd, fd);
	arm_wake(loop);
	empty_inbox(loop);
	return 0;
}

void loop_destroy(struct loop *loop)
{
	int fd = atomic_load(&loop->wake_fd);

	if (fd < 0)
		return;
	io_uring_queue_exit(&loop->ring);
	close(fd);
	atomic_store(&loop->wake_fd, -1);
}

struct io_uring_sqe *loop_sqe(struct loop *loop, struct loop_op *op)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&loop->ring);

	/* A full queue empties by submitting; the kernel takes all of it unless it is out of memory. */
	while (!sqe) {
		io_uring_submit(&loop->ring);
		sqe = io_uring_get_sqe(&loop->ring);
	}
	memset(sqe, 0, sizeof(*sqe));
	io_uring_sqe_set_data(sqe, op);
	loop->submissions++;
	return sqe;
}

void loop_cancel(struct loop *loop, struct loop_op *op)
{
	struct io_uring_sqe *sqe = loop_sqe(loop, NULL);

	io_uring_prep_cancel(sqe, op, 0);
}

void loop_timer(struct loop *loop, struct loop_op *op, struct __kernel_timespec *ts, uint64_t ns)
{
	struct io_uring_sqe *sqe = loop_sqe(loop, op);

	ts->tv_sec = (int64_t)(ns / 1000000000);
	ts->tv_nsec = (long long)(ns % 1000000000);
	io_uring_prep_timeout(sqe, ts, 0, 0);
}

void loop_post(struct loop *loop, struct loop_work *work)
{
	struct loop_work *head;
	uint64_t one = 1;
	int fd;

	if (atomic_exchange_explicit(&work->queued, true, memory_order_acq_rel))
		return;
	head = atomic_load_explicit(&loop->inbox, memory_order_relaxed);
	do
		atomic_store_explicit(&work->next, head, memory_order_relaxed);
	while (!atomic_compare_exchange_weak(&loop->inbox, &head, work));
	/*
	 * A non-empty inbox means that whoever filled it has written, or is about to write, the eventfd. Without one
	 * the loop has yet to start; it looks into the inbox after it has published the descriptor.
	 */
	fd = atomic_load(&loop->wake_fd);
	if (!head && fd >= 0 && write(fd, &one, sizeof(one)) < 0)
		return; /* only EAGAIN at 2^64 - 2 unread wake-ups: the loop is awake anyway */
}

void loop_defer(struct loop *loop, struct loop_work *work)
{
	if (atomic_exchange_explicit(&work->queued, true, memory_order_acq_rel))
		return;
	atomic_store_explicit(&work->next, loop->deferred, memory_order_relaxed);
	loop->deferred = work;
}

void loop_gather(struct loop *loop, unsigned int count)
{
	if (count > loop->gather)
		loop->gather = count;
}

static void run_deferred(struct loop *loop)
{
	struct loop_work *work;

	while ((work = loop->deferred)) {
		loop->deferred = atomic_load_explicit(&work->next, memory_order_relaxed);
		atomic_store_explicit(&work->queued, false, memory_order_release);
		work->fn(work);
	}
}

static bool dispatch(struct loop *loop)
{
	struct io_uring_cqe *cqe;
	bool any = false;

	/*
	 * One at a time, seen before the callback: a callback may submit and so reuse the slot. Not for ever: a guest
	 * can signal as fast as we handle it, and what callbacks want submitted (timers, the wake-up) must go out too.
	 */
	for (unsigned int budget = TURN_MAX; budget && io_uring_peek_cqe(&loop->ring, &cqe) == 0; budget--) {
		struct loop_op *op = io_uring_cqe_get_data(cqe);
		int res = cqe->res;
		uint32_t flags = cqe->flags;

		io_uring_cqe_seen(&loop->ring, cqe);
		if (op)
			op->fn(op, res, flags);
		any = true;
	}
	run_deferred(loop);
	return any;
}

/* Submits, and waits: when too few completions have come in time, for one more only if there are none. */
static int submit_and_wait(struct loop *loop)
{
	struct __kernel_timespec ts = { .tv_nsec = LOOP_GATHER_NS };
	unsigned int count = loop->gather;
	struct io_uring_cqe *cqe;

	loop->gather = 0;
	if (count > 1) {
		int ret = io_uring_submit_and_wait_timeout(&loop->ring, &cqe, count, &ts, NULL);

		if (ret != -ETIME || io_uring_cq_ready(&loop->ring))
			return ret == -ETIME ? 0 : ret;
	}
	return io_uring_submit_and_wait(&loop->ring, 1);
}

int loop_run(struct loop *loop)
{
	while (!loop->stopping) {
		int ret = submit_and_wait(loop);

		if (ret < 0 && ret != -EINTR && ret != -EAGAIN && ret != -EBUSY)
			return ret;
		dispatch(loop);
	}
	return 0;
}

bool loop_turn(struct loop *loop, uint64_t ns)
{
	struct __kernel_timespec ts = { .tv_sec = (int64_t)(ns / 1000000000), .tv_nsec = (long long)(ns % 1000000000) };
	struct io_uring_cqe *cqe;

	io_uring_submit_and_wait_timeout(&loop->ring, &cqe, 1, &ts, NULL);
	return dispatch(loop);
}

void loop_stop(struct loop *loop)
{
	loop->stopping = true;
}
