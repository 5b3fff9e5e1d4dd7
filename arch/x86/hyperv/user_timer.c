/* SPDX-License-Identifier: MIT */
/*
 * Synthetic timers without KVM's.
 *
 * Theory of operation: each VP has a timerfd, set to when the first of its timers is due, and the loop reads it.
 * Whoever looks at the timers, the loop when the descriptor has expired or the vCPU when it has written a register,
 * does the same under the VP's lock: what is due by the partition's clock is delivered, then the descriptor is set
 * anew. So it does not matter who comes first, or that an expiry is of a time that is not wanted any more: nothing is
 * lost and nothing comes early. The reference time follows the guest's TSC, the descriptor CLOCK_MONOTONIC; the little
 * that they differ makes one more look.
 *
 * A message goes the way of all messages, by the SINT's queue, in which a timer has one at most: a periodic tick is
 * lost if the one before still waits. There is room for these beyond what others may fill. A timer in direct mode is an
 * interrupt at the vCPU's local APIC.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "arch/x86/hyperv/internal.h"
#include "arch/x86/hyperv/user.h"
#include "vmm/log.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define NS_PER_TICK  (1000000000ull / HV_TIME_HZ)
#define WAIT_MAX     (3600 * HV_TIME_HZ)
#define WAIT_MIN     (HV_TIME_HZ / 20000) /* 50 us: no guest keeps the loop busy with a shorter period */
#define NSEC_PER_SEC 1000000000ull

struct hv_user_timers {
	struct hv_vp *vp;
	int fd;
	struct loop_op op;
	struct loop_work start_work;
	uint64_t expirations; /* what a read gives; nobody wants to know */
	struct hv_stimer timers[HV_STIMERS];
};

/* TLFS 12.5.2 */
struct timer_payload {
	uint32_t timer, reserved;
	uint64_t expired, delivered;
};

static struct hv_user_timers *timers_of(const struct hv_vp *vp)
{
	struct hv_user_timers *all = vp->partition->backend_data;

	return &all[vp->vcpu->index];
}

/* The queues have a message of this timer's at most. */
static void drop_message(struct hv_vp *vp, unsigned int index)
{
	for (unsigned int sint = 0; sint < HV_SINTS; sint++)
		hv_queue_drop_timer(&vp->queue[sint], index);
}

static bool deliver(struct hv_vp *vp, unsigned int index, uint64_t expired, uint64_t now)
{
	const struct hv_stimer *timer = &timers_of(vp)->timers[index];
	const struct timer_payload payload = { .timer = index, .expired = expired, .delivered = now };
	const unsigned int sint = hv_stimer_sint(timer);

	if (timer->config & HV_STIMER_DIRECT) {
		hv_vp_vector(vp, hv_stimer_vector(timer));
		return false;
	}
	return hv_queue_put_timer(&vp->queue[sint], index, &payload, sizeof(payload)) &&
	       vp->partition->backend->deliver(vp, sint);
}

static void arm(const struct hv_user_timers *t, uint64_t now)
{
	uint64_t due = HV_STIMER_NEVER, wait;
	struct itimerspec when = { 0 };

	for (unsigned int i = 0; i < HV_STIMERS; i++)
		if (hv_stimer_due(&t->timers[i]) < due)
			due = hv_stimer_due(&t->timers[i]);
	if (due != HV_STIMER_NEVER) {
		wait = due > now ? due - now : 0;
		wait = wait < WAIT_MIN ? WAIT_MIN : wait > WAIT_MAX ? WAIT_MAX : wait;
		when.it_value.tv_sec = (time_t)(wait * NS_PER_TICK / NSEC_PER_SEC);
		when.it_value.tv_nsec = (long)(wait * NS_PER_TICK % NSEC_PER_SEC);
	}
	timerfd_settime(t->fd, 0, &when, NULL);
}

/* Under vp->lock. Returns whether hv_room() is due. */
static bool look(struct hv_vp *vp)
{
	struct hv_user_timers *t = timers_of(vp);
	uint64_t now = hv_clock_read(&vp->partition->clock), expired;
	bool room = false;

	for (unsigned int i = 0; i < HV_STIMERS; i++)
		if (hv_stimer_expire(&t->timers[i], now, &expired))
			room |= deliver(vp, i, expired, now);
	arm(t, now);
	return room;
}

static void wait_for_expiry(struct hv_user_timers *t)
{
	struct io_uring_sqe *sqe = loop_sqe(&t->vp->partition->vm->loop, &t->op);

	io_uring_prep_read(sqe, t->fd, &t->expirations, sizeof(t->expirations), 0);
}

static void timer_expired(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct hv_user_timers *t = (struct hv_user_timers *)((char *)op - offsetof(struct hv_user_timers, op));
	bool room;

	(void)cqe_flags;
	if (res < 0 && res != -EAGAIN && res != -EINTR)
		return; /* cancelled: the loop ends */
	pthread_mutex_lock(&t->vp->lock);
	room = look(t->vp);
	pthread_mutex_unlock(&t->vp->lock);
	if (room)
		hv_room(t->vp->partition);
	wait_for_expiry(t);
}

static void start_waiting(struct loop_work *work)
{
	wait_for_expiry((struct hv_user_timers *)((char *)work - offsetof(struct hv_user_timers, start_work)));
}

bool hv_user_write_timer(struct hv_vp *vp, uint32_t index, uint64_t value)
{
	const unsigned int number = (index - HV_MSR_STIMER0_CONFIG) / 2;
	struct hv_stimer *timer = &timers_of(vp)->timers[number];
	const uint64_t now = hv_clock_read(&vp->partition->clock);
	bool room;

	pthread_mutex_lock(&vp->lock);
	drop_message(vp, number);
	if ((index - HV_MSR_STIMER0_CONFIG) % 2)
		hv_stimer_write_count(timer, value, now);
	else
		hv_stimer_write_config(timer, value, now);
	room = look(vp);
	pthread_mutex_unlock(&vp->lock);
	if (room)
		hv_room(vp->partition);
	return true;
}

void hv_user_read_timer(struct hv_vp *vp, uint32_t index, uint64_t *value)
{
	const struct hv_stimer *timer = &timers_of(vp)->timers[(index - HV_MSR_STIMER0_CONFIG) / 2];

	pthread_mutex_lock(&vp->lock);
	*value = (index - HV_MSR_STIMER0_CONFIG) % 2 ? timer->count : timer->config;
	pthread_mutex_unlock(&vp->lock);
}

int hv_user_create_timers(struct hv_partition *partition)
{
	struct hv_user_timers *all = calloc(partition->nr_vps, sizeof(*all));

	if (!all)
		return -ENOMEM;
	partition->backend_data = all;
	for (unsigned int i = 0; i < partition->nr_vps; i++)
		all[i].fd = -1;
	return 0;
}

int hv_user_add_timers(struct hv_vp *vp)
{
	struct hv_user_timers *t = timers_of(vp);

	t->vp = vp;
	t->op.fn = timer_expired;
	t->start_work.fn = start_waiting;
	t->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	if (t->fd < 0) {
		int ret = -errno;

		log_line("--hyperv timers=on: timerfd: %s", strerror(-ret));
		return ret;
	}
	loop_post(&vp->partition->vm->loop, &t->start_work);
	return 0;
}

void hv_user_reset_timers(struct hv_vp *vp)
{
	struct hv_user_timers *t = timers_of(vp);

	memset(t->timers, 0, sizeof(t->timers));
	arm(t, 0);
}

void hv_user_destroy_timers(struct hv_partition *partition)
{
	struct hv_user_timers *all = partition->backend_data;

	for (unsigned int i = 0; all && i < partition->nr_vps; i++)
		if (all[i].fd >= 0)
			close(all[i].fd);
	free(all);
}
