/* SPDX-License-Identifier: MIT */
#include "arch/x86/hyperv/stimer.h"

/* TLFS 12.5.1: a message to SINT 0 there is not, and a timer that would send one does not run. */
static bool may_run(const struct hv_stimer *timer)
{
	return timer->count && (timer->config & HV_STIMER_DIRECT || hv_stimer_sint(timer));
}

/* A periodic timer's count is its period, any other's the time at which it is due. */
static void start(struct hv_stimer *timer, uint64_t now)
{
	if (!may_run(timer))
		timer->config &= ~HV_STIMER_ENABLE;
	timer->due = timer->count;
	if (timer->config & HV_STIMER_PERIODIC)
		timer->due = timer->count > UINT64_MAX - now ? UINT64_MAX : now + timer->count;
}

void hv_stimer_write_config(struct hv_stimer *timer, uint64_t value, uint64_t now)
{
	timer->config = value;
	/* With auto-enable, it is the count that starts the timer; it comes later. */
	if (value & HV_STIMER_ENABLE)
		start(timer, now);
}

void hv_stimer_write_count(struct hv_stimer *timer, uint64_t value, uint64_t now)
{
	timer->count = value;
	if (!value)
		timer->config &= ~HV_STIMER_ENABLE;
	else if (timer->config & HV_STIMER_AUTO_ENABLE)
		timer->config |= HV_STIMER_ENABLE;
	if (timer->config & HV_STIMER_ENABLE)
		start(timer, now);
}

uint64_t hv_stimer_due(const struct hv_stimer *timer)
{
	return timer->config & HV_STIMER_ENABLE ? timer->due : HV_STIMER_NEVER;
}

bool hv_stimer_expire(struct hv_stimer *timer, uint64_t now, uint64_t *expired)
{
	if (!(timer->config & HV_STIMER_ENABLE) || timer->due > now)
		return false;
	*expired = timer->due;
	if (timer->config & HV_STIMER_PERIODIC) {
		const uint64_t left = timer->count - (now - timer->due) % timer->count;

		timer->due = left > UINT64_MAX - now ? UINT64_MAX : now + left;
	} else {
		timer->config &= ~HV_STIMER_ENABLE;
	}
	return true;
}
