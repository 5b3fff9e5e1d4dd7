/* SPDX-License-Identifier: MIT */
/* The event loop, with a real ring: what is always ready must not keep it from everything else. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/loop.h"

#define MANY  100000
#define POSTS 8

struct bell {
	struct loop loop;
	struct loop_op poll_op, timer_op;
	struct __kernel_timespec ts;
	struct loop_work work;
	int fd;
	unsigned int rung, posted;
	bool timed;
};

#define from_member(ptr, member) ((struct bell *)((char *)(ptr)-offsetof(struct bell, member)))

static void ring(struct bell *bell)
{
	const uint64_t one = 1;

	assert_int_equal(write(bell->fd, &one, sizeof(one)), sizeof(one));
}

/* As a guest's CPUs that signal faster than the loop handles it. */
static void rung(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct bell *bell = from_member(op, poll_op);

	assert_true(res > 0);
	if (!(cqe_flags & IORING_CQE_F_MORE))
		io_uring_prep_poll_multishot(loop_sqe(&bell->loop, op), bell->fd, POLLIN);
	if (++bell->rung == MANY)
		loop_stop(&bell->loop);
	else
		ring(bell);
}

static void timed(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct bell *bell = from_member(op, timer_op);

	(void)cqe_flags;
	assert_int_equal(res, -ETIME);
	bell->timed = true;
	if (bell->posted >= POSTS)
		loop_stop(&bell->loop);
}

static void posted(struct loop_work *work)
{
	struct bell *bell = from_member(work, work);

	/* The second one is seen only if the wake-up that was armed after the first has been submitted. */
	if (++bell->posted < POSTS)
		loop_post(&bell->loop, work);
	else if (bell->timed)
		loop_stop(&bell->loop);
}

static void a_bell_that_always_rings_starves_nobody(void **state)
{
	struct bell bell = {
		.poll_op.fn = rung, .timer_op.fn = timed, .work.fn = posted, .fd = eventfd(0, EFD_CLOEXEC)
	};

	(void)state;
	assert_true(bell.fd >= 0);
	loop_init(&bell.loop);
	assert_int_equal(loop_start(&bell.loop), 0);
	io_uring_prep_poll_multishot(loop_sqe(&bell.loop, &bell.poll_op), bell.fd, POLLIN);
	ring(&bell);
	assert_true(loop_turn(&bell.loop, 1000000000));
	/* These have to be submitted while it rings. */
	loop_timer(&bell.loop, &bell.timer_op, &bell.ts, 1000000);
	loop_post(&bell.loop, &bell.work);
	assert_int_equal(loop_run(&bell.loop), 0);
	assert_true(bell.timed);
	assert_true(bell.posted >= POSTS);
	assert_true(bell.rung < MANY);
	loop_destroy(&bell.loop);
	close(bell.fd);
}

static void hasty(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct bell *bell = from_member(op, poll_op);

	(void)cqe_flags;
	assert_int_equal(res, 0);
	bell->rung++;
	/* The timer, alone, is later than any gathering. */
	loop_gather(&bell->loop, POSTS);
}

/* Neither what has come nor what comes alone is kept waiting for others, nor is their absence an error. */
static void a_wait_for_many_ends_with_few(void **state)
{
	struct bell bell = { .poll_op.fn = hasty, .timer_op.fn = timed, .posted = POSTS };

	(void)state;
	loop_init(&bell.loop);
	assert_int_equal(loop_start(&bell.loop), 0);
	io_uring_prep_nop(loop_sqe(&bell.loop, &bell.poll_op));
	loop_timer(&bell.loop, &bell.timer_op, &bell.ts, 100ul * LOOP_GATHER_NS);
	loop_gather(&bell.loop, POSTS);
	assert_int_equal(loop_run(&bell.loop), 0);
	assert_int_equal(bell.rung, 1);
	assert_true(bell.timed);
	loop_destroy(&bell.loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_bell_that_always_rings_starves_nobody),
		cmocka_unit_test(a_wait_for_many_ends_with_few),
	};

	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
