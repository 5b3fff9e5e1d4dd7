/* SPDX-License-Identifier: MIT */
#include "devices/vmbus/ic_shutdown.h"

#include <errno.h>
#include <stdlib.h>

#include "devices/vmbus/ic.h"
#include "vmm/log.h"
#include "vmm/vm.h"

/* The driver answers before it starts to shut down. */
#define TIMEOUT_NS (30 * 1000000000ULL)

#define REASON_PLANNED 0x80000000u /* Windows SDK, reason.h: SHTDN_REASON_FLAG_PLANNED */

/* Linux: struct shutdown_msg_data. A guest may insist on all of the text; it is UTF-16 and may be empty. */
struct message {
	uint32_t reason;
	uint32_t timeout; /* seconds that users of the guest are given */
	uint32_t flags;	  /* IC_SHUTDOWN_* */
	uint8_t text[2048];
};

static void shutdown_done(struct ic *ic, int error, uint32_t status, const void *body, size_t size)
{
	(void)ic;
	(void)body;
	(void)size;
	if (error == -ETIMEDOUT)
		log_line("vmbus: shutdown: the guest has not answered for 30 s");
	else if (!error && status != IC_S_OK)
		log_line("vmbus: shutdown: the guest refuses (status 0x%08x)", status);
}

/* Restart and hibernate came with minor versions of 3: hv_util.c, SD_VERSION_3_1 and SD_VERSION_3_2. */
static const struct ic_version versions[] = { { 1, 0 }, { 3, 0 }, { 3, 1 }, { 3, 2 } };

static const struct ic_class shutdown_class = {
	.device = IC_DEVICE("shutdown",
			    VMBUS_GUID(0x0e0b6031, 0x5213, 0x4934, 0x81, 0x8b, 0x38, 0xd9, 0x0c, 0xed, 0x39, 0xdb),
			    VMBUS_GUID(0xb6650ff7, 0x33bc, 0x4840, 0x80, 0x48, 0xe0, 0x67, 0x67, 0x86, 0xf3, 0x93)),
	.type = IC_TYPE_SHUTDOWN,
	.versions = versions,
	.nr_versions = sizeof(versions) / sizeof(versions[0]),
};

int ic_shutdown_request(struct vm *vm, uint32_t flags)
{
	const struct message message = { .reason = REASON_PLANNED, .flags = flags };
	struct ic *ic = ic_find(vm, shutdown_class.device.name);

	if (flags & ~(IC_SHUTDOWN_FORCE | IC_SHUTDOWN_RESTART | IC_SHUTDOWN_HIBERNATE) ||
	    ((flags & IC_SHUTDOWN_RESTART) && (flags & IC_SHUTDOWN_HIBERNATE)))
		return -EINVAL;
	if (!ic || ic->state != IC_UP)
		return -ENOTCONN;
	if (((flags & IC_SHUTDOWN_RESTART) && !ic_at_least(ic, 3, 1)) ||
	    ((flags & IC_SHUTDOWN_HIBERNATE) && !ic_at_least(ic, 3, 2)))
		return -EOPNOTSUPP;
	return ic_request(ic, &message, sizeof(message), TIMEOUT_NS, shutdown_done);
}

bool ic_shutdown_ready(const struct vm *vm)
{
	const struct ic *ic = ic_find(vm, shutdown_class.device.name);

	return ic && ic->state == IC_UP;
}

int ic_shutdown_create(struct vm *vm)
{
	struct ic *ic = calloc(1, sizeof(*ic));

	return ic_add(vm, ic, &shutdown_class);
}
