/* SPDX-License-Identifier: MIT */
#include "devices/vmbus/ic_heartbeat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/vmbus/ic.h"
#include "vmm/vm.h"

/* As on Hyper-V: hv_util.c, "Every two seconds". */
#define PERIOD_NS (2 * 1000000000ULL)

/*
 * Linux: struct heartbeat_msg_data, which calls all but the number reserved. The application's state: openvmm,
 * hyperv_ic_protocol, heartbeat.
 */
struct message {
	uint64_t sequence;
	uint32_t application;
	uint32_t reserved[7];
};

struct heartbeat {
	struct ic ic;
	struct ic_timer next; /* beat; set while the service is up and no answer is awaited */
	uint64_t sequence;    /* of the last beat */
	uint64_t answered_ns; /* CLOCK_MONOTONIC of the last answer, 0: none since the service came up */
	struct ic_heartbeat_status status;
};

static void beat(struct ic *ic);

static void missed(struct heartbeat *hb)
{
	hb->status.state = IC_HEARTBEAT_LOST;
	hb->status.missed++;
}

/* Only the first part of the message must be there: a guest may return less than it got. */
static bool proper(const struct heartbeat *hb, uint32_t status, const struct message *answer, size_t size)
{
	return status == IC_S_OK && size >= sizeof(answer->sequence) && answer->sequence == hb->sequence + 1;
}

static void beat_done(struct ic *ic, int error, uint32_t status, const void *body, size_t size)
{
	struct heartbeat *hb = (struct heartbeat *)ic;
	struct message answer = { 0 };
	uint64_t now = clock_ns(), next = ic->sent_ns + PERIOD_NS;

	if (error == -ECONNRESET)
		return;
	if (!error)
		memcpy(&answer, body, size < sizeof(answer) ? size : sizeof(answer));
	if (!error && proper(hb, status, &answer, size)) {
		hb->answered_ns = now;
		hb->status.state = IC_HEARTBEAT_UP;
		hb->status.application = answer.application <= IC_APPLICATION_STOPPED
						 ? (enum ic_application_state)answer.application
						 : IC_APPLICATION_UNKNOWN;
		hb->status.beats++;
	} else {
		missed(hb);
	}
	ic_timer_set(&hb->next, error ? PERIOD_NS : next > now ? next - now : 0);
}

static void beat(struct ic *ic)
{
	struct heartbeat *hb = (struct heartbeat *)ic;
	const struct message message = { .sequence = ++hb->sequence };

	int ret = ic_request(ic, &message, sizeof(message), PERIOD_NS, beat_done);

	if (ret != -EBUSY) {
		ic_timer_stop(&hb->next);
		return;
	}
	/* It is still at an earlier one. */
	missed(hb);
	ic_timer_set(&hb->next, PERIOD_NS);
}

static void heartbeat_down(struct ic *ic)
{
	struct heartbeat *hb = (struct heartbeat *)ic;

	ic_timer_stop(&hb->next);
	hb->answered_ns = 0;
	hb->status.state = IC_HEARTBEAT_DOWN;
	hb->status.application = IC_APPLICATION_UNKNOWN;
}

static const struct ic_version versions[] = { { 1, 0 }, { 3, 0 } };

static const struct ic_class heartbeat_class = {
	.device = IC_DEVICE("heartbeat",
			    VMBUS_GUID(0x57164f39, 0x9115, 0x4e78, 0xab, 0x55, 0x38, 0x2f, 0x3b, 0xd5, 0x42, 0x2d),
			    VMBUS_GUID(0xfd149e91, 0x82e0, 0x4a7d, 0xaf, 0xa6, 0x2a, 0x41, 0x66, 0xcb, 0xd7, 0xc0)),
	.type = IC_TYPE_HEARTBEAT,
	.versions = versions,
	.nr_versions = sizeof(versions) / sizeof(versions[0]),
	.up = beat,
	.down = heartbeat_down,
	.idle = beat,
};

int ic_heartbeat_create(struct vm *vm)
{
	struct heartbeat *hb = calloc(1, sizeof(*hb));

	if (hb)
		ic_timer_init(&hb->next, &hb->ic, beat);
	return ic_add(vm, (struct ic *)hb, &heartbeat_class);
}

void ic_heartbeat_get(const struct vm *vm, struct ic_heartbeat_status *status)
{
	const struct ic *ic = ic_find(vm, heartbeat_class.device.name);
	const struct heartbeat *hb = (const struct heartbeat *)ic;

	*status = (struct ic_heartbeat_status){ 0 };
	if (!ic)
		return;
	*status = hb->status;
	status->age_ns = hb->answered_ns ? clock_ns() - hb->answered_ns : 0;
}

const char *ic_heartbeat_state_name(enum ic_heartbeat_state state)
{
	static const char *const names[] = {
		[IC_HEARTBEAT_DOWN] = "down",
		[IC_HEARTBEAT_UP] = "up",
		[IC_HEARTBEAT_LOST] = "lost",
	};

	return names[state];
}
