/* SPDX-License-Identifier: MIT */
/*
 * Freeze and thaw. Hyper-V calls the service after Windows' volume shadow copies; Linux's hv_vss_daemon freezes every
 * mounted file system that is on a block device (FIFREEZE) and thaws them again.
 *
 * A freeze is two requests: HOT_BACKUP asks whether the guest can do it, FREEZE does it. What HOT_BACKUP's answer says
 * is its status: its flags should be VSS_HBU_NO_AUTO_RECOVERY, but Linux (6.1) never sets them, as its daemon puts the
 * result where its driver looks for the operation.
 *
 * A frozen guest stops at its next write, and Linux complains of tasks that hang after 120 s; Windows limits its
 * writers to 60 s. So a freeze that nobody ends is ended here after VSS_FROZEN_MAX seconds: whoever asked for it may
 * have died. A thaw that fails is tried again after the same time.
 *
 * A freeze that failed, or was not answered, is followed by a thaw, as part of the file systems may be frozen, or may
 * be later; thawing what is not frozen does no harm. Linux gives its daemon 15 minutes for a freeze (VSS_FREEZE_TIMEOUT
 * of hv_snapshot.c), since a file system must be written out first, and 30 s for all else.
 *
 * Wire structures: Linux include/uapi/linux/hyperv.h, struct hv_vss_msg. Hyper-V's FREEZE is longer and names LUNs,
 * which neither Linux nor FreeBSD reads.
 */
#include "devices/vmbus/ic_vss.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "devices/vmbus/ic.h"
#include "vmm/log.h"

#define NAME	       "vss"
#define SECOND	       1000000000ULL
#define RETRY_NS       SECOND
#define FREEZE_TIMEOUT ((15 * 60 + 5) * SECOND)

/* enum hv_vss_op */
enum { OP_HOT_BACKUP = 2, OP_FREEZE = 5, OP_THAW = 6 };

struct vss_message { /* struct hv_vss_msg */
	uint8_t operation;
	uint8_t reserved[7];
	uint32_t flags;
};
_Static_assert(sizeof(struct vss_message) == 12, "struct hv_vss_msg is 12 bytes");

struct order {
	ic_order_fn *done; /* NULL: there is none */
	void *opaque;
};

struct vss {
	struct ic ic;
	enum vss_state state;
	enum vss_state before; /* the thaw that is under way */
	uint8_t operation;     /* OP_* that is under way or waits to be sent; 0: none */
	bool told;	       /* that a thaw nobody waits for failed */
	struct order freeze, thaw;
	struct ic_timer frozen; /* until it is thawed by itself */
	struct ic_timer retry;	/* an abandoned request keeps the guest busy */
};

static void answered(struct ic *ic, int error, uint32_t status, const void *body, size_t size);

/* Ends an order if there is one. The callback may give new ones: callers do not touch the state after it. */
static void end(struct order *order, int error, const char *text)
{
	struct order ended = *order;

	order->done = NULL;
	if (ended.done)
		ended.done(ended.opaque, error, text);
}

/* All is over: channel closed, reset. */
static void drop(struct vss *vss, const char *text)
{
	vss->state = VSS_DOWN;
	vss->operation = 0;
	ic_timer_stop(&vss->frozen);
	ic_timer_stop(&vss->retry);
	end(&vss->freeze, -ECONNRESET, text);
	end(&vss->thaw, -ECONNRESET, text);
}

static void send_operation(struct vss *vss)
{
	const struct vss_message message = { .operation = vss->operation };
	uint64_t timeout = vss->operation == OP_FREEZE ? FREEZE_TIMEOUT : IC_ORDER_TIMEOUT;
	int ret = ic_request(&vss->ic, &message, sizeof(message), timeout, answered);

	if (ret == -EBUSY)
		ic_timer_set(&vss->retry, RETRY_NS);
	else if (ret)
		answered(&vss->ic, ret, 0, NULL, 0);
}

static void start(struct vss *vss, uint8_t operation)
{
	vss->operation = operation;
	if (operation == OP_THAW) {
		vss->before = vss->state;
		vss->state = VSS_THAWING;
	}
	send_operation(vss);
}

static void probed(struct vss *vss, int error, const char *text)
{
	struct order thaw = vss->thaw;

	if (!error) {
		start(vss, OP_FREEZE);
		return;
	}
	/* A thaw that was to follow has nothing to do. */
	vss->state = VSS_THAWED;
	vss->thaw.done = NULL;
	end(&vss->freeze, error, text);
	end(&thaw, 0, "");
}

static void froze(struct vss *vss, int error, const char *text)
{
	if (!error) {
		vss->state = VSS_FROZEN;
		vss->told = false;
		ic_timer_set(&vss->frozen, VSS_FROZEN_MAX * SECOND);
	}
	if (error || vss->thaw.done)
		start(vss, OP_THAW);
	end(&vss->freeze, error, text);
}

static void thawed(struct vss *vss, int error, const char *text)
{
	/* A guest that refuses to thaw after a freeze that failed is not frozen. */
	bool over = !error || vss->before == VSS_THAWED || (vss->before == VSS_FREEZING && error != -ETIMEDOUT);

	if (over) {
		vss->state = VSS_THAWED;
		ic_timer_stop(&vss->frozen);
	} else {
		vss->state = VSS_FROZEN;
		ic_timer_set(&vss->frozen, VSS_FROZEN_MAX * SECOND);
		if (!vss->thaw.done && !vss->told) {
			log_line("vmbus: " NAME ": the guest is not thawed: %s", text);
			vss->told = true;
		}
	}
	end(&vss->thaw, error, text);
}

static void answered(struct ic *ic, int error, uint32_t status, const void *body, size_t size)
{
	struct vss *vss = (struct vss *)ic;
	uint8_t operation = vss->operation;
	char text[IC_TEXT_MAX];

	(void)body;
	(void)size;
	error = ic_order_result(error, status, text);
	if (ic->state != IC_UP) {
		drop(vss, text);
		return;
	}
	vss->operation = 0;
	if (operation == OP_HOT_BACKUP)
		probed(vss, error, text);
	else if (operation == OP_FREEZE)
		froze(vss, error, text);
	else
		thawed(vss, error, text);
}

static void frozen_too_long(struct ic *ic)
{
	struct vss *vss = (struct vss *)ic;

	if (vss->state != VSS_FROZEN)
		return;
	if (!vss->told)
		log_line("vmbus: " NAME ": the guest has been frozen for %d s; thawing it", VSS_FROZEN_MAX);
	start(vss, OP_THAW);
}

/* Sends what had to wait for an abandoned request. */
static void idle(struct ic *ic)
{
	struct vss *vss = (struct vss *)ic;

	if (vss->operation && !ic->waiting)
		send_operation(vss);
}

static void up(struct ic *ic)
{
	((struct vss *)ic)->state = VSS_THAWED;
}

static void down(struct ic *ic)
{
	drop((struct vss *)ic, "the guest closed the service or was reset");
}

static void destroy(struct ic *ic)
{
	drop((struct vss *)ic, "the machine has ended");
}

void vss_freeze(const struct vm *vm, ic_order_fn *done, void *opaque)
{
	struct vss *vss = (struct vss *)ic_order_target(vm, NAME, done, opaque);

	if (!vss)
		return;
	if (vss->state != VSS_THAWED) {
		ic_order_fail(done, opaque, -EBUSY, "the guest is %s", vss_state_name(vss->state));
		return;
	}
	vss->state = VSS_FREEZING;
	vss->freeze = (struct order){ done, opaque };
	start(vss, OP_HOT_BACKUP);
}

void vss_thaw(const struct vm *vm, ic_order_fn *done, void *opaque)
{
	struct vss *vss = (struct vss *)ic_order_target(vm, NAME, done, opaque);

	if (!vss)
		return;
	if (vss->thaw.done) {
		ic_order_fail(done, opaque, -EBUSY, "another thaw is under way");
		return;
	}
	vss->thaw = (struct order){ done, opaque };
	if (!vss->operation)
		start(vss, OP_THAW);
}

enum vss_state vss_state(const struct vm *vm)
{
	const struct vss *vss = (const struct vss *)ic_find(vm, NAME);

	return vss ? vss->state : VSS_DOWN;
}

const char *vss_state_name(enum vss_state state)
{
	static const char *const names[] = {
		[VSS_DOWN] = "down",	 [VSS_THAWED] = "thawed",   [VSS_FREEZING] = "freezing",
		[VSS_FROZEN] = "frozen", [VSS_THAWING] = "thawing",
	};

	return names[state];
}

int ic_vss_create(struct vm *vm)
{
	static const struct ic_version versions[] = { { 5, 0 } };
	static const struct ic_class class = {
		/* Linux: HV_VSS_GUID; the instance is the one that every Hyper-V machine has. */
		.device = IC_DEVICE(
			NAME, VMBUS_GUID(0x35fa2e29, 0xea23, 0x4236, 0x96, 0xae, 0x3a, 0x6e, 0xba, 0xcb, 0xa4, 0x40),
			VMBUS_GUID(0x2450ee40, 0x33bf, 0x4fbd, 0x89, 0x2e, 0x9f, 0xb0, 0x6e, 0x92, 0x14, 0xcf)),
		.type = IC_TYPE_VSS,
		.versions = versions,
		.nr_versions = sizeof(versions) / sizeof(versions[0]),
		.up = up,
		.down = down,
		.idle = idle,
		.destroy = destroy,
	};
	struct vss *vss = calloc(1, sizeof(*vss));

	if (!vss)
		return -ENOMEM;
	ic_timer_init(&vss->frozen, &vss->ic, frozen_too_long);
	ic_timer_init(&vss->retry, &vss->ic, idle);
	return ic_add(vm, &vss->ic, &class);
}
