/* SPDX-License-Identifier: MIT */
/*
 * When the service comes up the guest is told to set its clock (flag "sync"); from then on it gets samples, which it
 * may use as it likes: Linux feeds its PTP clock with them, and takes one older than ten minutes for stale.
 */
#include "devices/vmbus/ic_timesync.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "arch/x86/hyperv/hyperv.h"
#include "devices/vmbus/ic.h"
#include "vmm/vm.h"

#define PERIOD_NS (5 * 1000000000ULL) /* of samples, as on Hyper-V */

/* From 1601 to 1970, in 100 ns; Linux: WLTIMEDELTA. */
#define UNIX_EPOCH 116444736000000000ULL

#define FLAG_SYNC   1
#define FLAG_SAMPLE 2

/* Linux: struct ictimesync_data, of versions 1 and 3 (25 bytes). */
struct message_v1 {
	uint64_t host_time; /* UTC since 1601 in 100 ns */
	uint64_t guest_time;
	uint64_t round_trip;
	uint8_t flags;
} __attribute__((packed));

/* Linux: struct ictimesync_ref_data, of version 4; Hyper-V pads it to 24 bytes. */
struct message_v4 {
	uint64_t host_time;
	uint64_t reference_time; /* the partition's at that moment */
	uint8_t flags;
	uint8_t leap;
	uint8_t stratum;
	uint8_t reserved[5];
};

struct timesync {
	struct ic ic;
	struct ic_timer next; /* sample; set while the service is up and no answer is awaited */
	bool sync_wanted;
	bool syncing; /* the message under way is a sync */
};

static void send_time(struct ic *ic);

static void time_done(struct ic *ic, int error, uint32_t status, const void *body, size_t size)
{
	struct timesync *ts = (struct timesync *)ic;

	(void)status;
	(void)body;
	(void)size;
	if (error == -ECONNRESET)
		return;
	/* A guest that reads an old message late has a wrong time: tell it anew when it is back. */
	if (error && ts->syncing)
		ts->sync_wanted = true;
	if (!error && ts->sync_wanted)
		send_time(ic);
	else
		ic_timer_set(&ts->next, PERIOD_NS);
}

/* The host's time of day and the partition's reference time, of the same moment. */
static uint64_t read_clocks(const struct vm *vm, uint64_t *reference)
{
	uint64_t before = hv_reference_time(vm->hyperv);
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	*reference = before + (hv_reference_time(vm->hyperv) - before) / 2;
	return UNIX_EPOCH + (uint64_t)now.tv_sec * 10000000 + (uint64_t)now.tv_nsec / 100;
}

static void send_time(struct ic *ic)
{
	struct timesync *ts = (struct timesync *)ic;
	uint8_t flags = ts->sync_wanted ? FLAG_SYNC : FLAG_SAMPLE;
	uint64_t reference, host = read_clocks(ic->vm, &reference);
	const struct message_v1 v1 = { .host_time = host, .flags = flags };
	const struct message_v4 v4 = { .host_time = host, .reference_time = reference, .flags = flags };
	int ret = ic_at_least(ic, 4, 0) ? ic_request(ic, &v4, sizeof(v4), PERIOD_NS, time_done)
					: ic_request(ic, &v1, sizeof(v1), PERIOD_NS, time_done);

	if (ret == -EBUSY) {
		ic_timer_set(&ts->next, PERIOD_NS);
		return;
	}
	ic_timer_stop(&ts->next);
	ts->syncing = ts->sync_wanted;
	ts->sync_wanted = false;
}

static void timesync_up(struct ic *ic)
{
	((struct timesync *)ic)->sync_wanted = true;
	send_time(ic);
}

static void timesync_down(struct ic *ic)
{
	struct timesync *ts = (struct timesync *)ic;

	ic_timer_stop(&ts->next);
	ts->sync_wanted = false;
	ts->syncing = false;
}

static const struct ic_version versions[] = { { 1, 0 }, { 3, 0 }, { 4, 0 } };

static const struct ic_class timesync_class = {
	.device = IC_DEVICE("timesync",
			    VMBUS_GUID(0x9527e630, 0xd0ae, 0x497b, 0xad, 0xce, 0xe8, 0x0a, 0xb0, 0x17, 0x5c, 0xaf),
			    VMBUS_GUID(0x2dd1ce17, 0x079e, 0x403c, 0xb3, 0x52, 0xa1, 0x92, 0x1e, 0xe2, 0x07, 0xee)),
	.type = IC_TYPE_TIMESYNC,
	.versions = versions,
	.nr_versions = sizeof(versions) / sizeof(versions[0]),
	.up = timesync_up,
	.down = timesync_down,
	.idle = send_time,
};

void ic_timesync_sync(struct vm *vm)
{
	struct ic *ic = ic_find(vm, timesync_class.device.name);

	if (!ic || ic->state != IC_UP)
		return;
	((struct timesync *)ic)->sync_wanted = true;
	if (!ic->waiting)
		send_time(ic);
}

int ic_timesync_create(struct vm *vm)
{
	struct timesync *ts = calloc(1, sizeof(*ts));

	if (ts)
		ic_timer_init(&ts->next, &ts->ic, send_time);
	return ic_add(vm, (struct ic *)ts, &timesync_class);
}
