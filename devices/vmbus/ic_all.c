/* SPDX-License-Identifier: MIT */
#include "devices/vmbus/ic.h"
#include "devices/vmbus/ic_fcopy.h"
#include "devices/vmbus/ic_heartbeat.h"
#include "devices/vmbus/ic_kvp.h"
#include "devices/vmbus/ic_shutdown.h"
#include "devices/vmbus/ic_timesync.h"
#include "devices/vmbus/ic_vss.h"

int ic_create_all(struct vm *vm)
{
	int ret = ic_heartbeat_create(vm);

	if (!ret)
		ret = ic_shutdown_create(vm);
	if (!ret)
		ret = ic_timesync_create(vm);
	if (!ret)
		ret = ic_kvp_create(vm);
	if (!ret)
		ret = ic_vss_create(vm);
	return ret ? ret : ic_fcopy_create(vm);
}
