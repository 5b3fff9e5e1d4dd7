/* SPDX-License-Identifier: MIT */
#include "devices/vmbus/ic_control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "devices/vmbus/ic.h"
#include "devices/vmbus/ic_fcopy.h"
#include "devices/vmbus/ic_heartbeat.h"
#include "devices/vmbus/ic_kvp.h"
#include "devices/vmbus/ic_shutdown.h"
#include "devices/vmbus/ic_vss.h"
#include "vmm/control.h"
#include "vmm/log.h"
#include "vmm/vm.h"

/* A guest that stands still answers nothing: better said at once than by a timeout. */
static bool refuse_paused(struct control_request *request, const struct vm *vm)
{
	if (vm->paused)
		control_fail(request, "the machine is paused");
	return vm->paused;
}

/* The end of an order that has no answer but that it is done. */
static void order_done(void *opaque, int error, const char *text)
{
	struct control_request *request = opaque;

	if (error)
		control_fail(request, "%s", text);
	else
		control_answer(request, NULL);
}

static void run_shutdown(struct control_request *request, void *opaque)
{
	struct vm *vm = opaque;
	const char *mode = control_string(request, "mode", "poweroff");
	uint32_t flags = control_bool(request, "force", false) ? IC_SHUTDOWN_FORCE : 0;
	int ret;

	if (refuse_paused(request, vm))
		return;
	if (!strcmp(mode, "reboot"))
		flags |= IC_SHUTDOWN_RESTART;
	else if (!strcmp(mode, "hibernate"))
		flags |= IC_SHUTDOWN_HIBERNATE;
	else if (!ic_shutdown_ready(vm)) {
		vm_power_button(vm);
		control_answer(request, json_pack("{s:s}", "by", "power button"));
		return;
	}
	ret = ic_shutdown_request(vm, flags);
	if (!ret)
		control_answer(request, json_pack("{s:s}", "by", "shutdown service"));
	else
		control_fail(request, "%s",
			     ret == -ENOTCONN	  ? "the guest does not run the shutdown service"
			     : ret == -EOPNOTSUPP ? "the guest's shutdown service is too old for that mode"
			     : ret == -EBUSY	  ? "the guest has not answered the last request yet"
						  : strerror(-ret));
}

static const char *const pools[KVP_POOLS] = {
	[KVP_POOL_EXTERNAL] = "external",
	[KVP_POOL_GUEST] = "guest",
	[KVP_POOL_AUTO] = "auto",
	[KVP_POOL_AUTO_EXTERNAL] = "auto-external",
};

static unsigned int pool_of(const struct control_request *request, enum kvp_pool fallback)
{
	const char *name = control_string(request, "pool", pools[fallback]);
	unsigned int pool = 0;

	while (pool < KVP_POOLS && strcmp(pools[pool], name) != 0)
		pool++;
	return pool;
}

static void kvp_got(void *opaque, int error, const char *text)
{
	struct control_request *request = opaque;
	json_t *value = error ? NULL : json_string(text);

	if (error)
		control_fail(request, "%s", text);
	else if (!value)
		control_fail(request, "out of memory");
	else
		control_answer(request, value);
}

static void run_kvp_get(struct control_request *request, void *opaque)
{
	struct vm *vm = opaque;

	if (!refuse_paused(request, vm))
		kvp_get(vm, pool_of(request, KVP_POOL_AUTO), control_string(request, "key", ""), kvp_got, request);
}

static void run_kvp_set(struct control_request *request, void *opaque)
{
	struct vm *vm = opaque;

	if (!refuse_paused(request, vm))
		kvp_set(vm, pool_of(request, KVP_POOL_EXTERNAL), control_string(request, "key", ""),
			control_string(request, "value", ""), order_done, request);
}

static void run_kvp_delete(struct control_request *request, void *opaque)
{
	struct vm *vm = opaque;

	if (!refuse_paused(request, vm))
		kvp_delete(vm, pool_of(request, KVP_POOL_EXTERNAL), control_string(request, "key", ""), order_done,
			   request);
}

static void kvp_listed(void *opaque, int error, const char *text, const struct kvp_item *items, size_t count)
{
	struct control_request *request = opaque;
	json_t *object;

	if (error) {
		control_fail(request, "%s", text);
		return;
	}
	object = json_object();
	for (size_t i = 0; i < count; i++)
		json_object_set_new(object, items[i].key, json_string(items[i].value));
	control_answer(request, object);
}

static void run_kvp_list(struct control_request *request, void *opaque)
{
	struct vm *vm = opaque;

	if (!refuse_paused(request, vm))
		kvp_list(vm, pool_of(request, KVP_POOL_AUTO), kvp_listed, request);
}

static void run_vss_freeze(struct control_request *request, void *opaque)
{
	struct vm *vm = opaque;

	if (!refuse_paused(request, vm))
		vss_freeze(vm, order_done, request);
}

static void run_vss_thaw(struct control_request *request, void *opaque)
{
	struct vm *vm = opaque;

	if (!refuse_paused(request, vm))
		vss_thaw(vm, order_done, request);
}

static void run_fcopy(struct control_request *request, void *opaque)
{
	struct vm *vm = opaque;
	unsigned int flags = (control_bool(request, "overwrite", false) ? FCOPY_OVERWRITE : 0) |
			     (control_bool(request, "create-path", false) ? FCOPY_CREATE_PATH : 0);

	if (!refuse_paused(request, vm))
		fcopy_start(vm, control_string(request, "from", ""), control_string(request, "to", ""), flags,
			    order_done, request);
}

static void add_heartbeat(json_t *service, const struct vm *vm)
{
	static const char *const applications[] = {
		[IC_APPLICATION_UNKNOWN] = "unknown",
		[IC_APPLICATION_HEALTHY] = "healthy",
		[IC_APPLICATION_CRITICAL] = "critical",
		[IC_APPLICATION_STOPPED] = "stopped",
	};
	struct ic_heartbeat_status beat;

	ic_heartbeat_get(vm, &beat);
	json_object_set_new(service, "heartbeat", json_string(ic_heartbeat_state_name(beat.state)));
	json_object_set_new(service, "applications", json_string(applications[beat.application]));
	json_object_set_new(service, "beats", json_integer((json_int_t)beat.beats));
	json_object_set_new(service, "missed", json_integer((json_int_t)beat.missed));
	json_object_set_new(service, "age_ms", beat.age_ns ? json_real((double)beat.age_ns / 1e6) : json_null());
}

static json_t *version_string(struct ic_version version)
{
	char text[16];

	snprintf(text, sizeof(text), "%u.%u", version.major, version.minor);
	return json_string(text);
}

static json_t *service_object(const struct ic *ic)
{
	json_t *service = json_object();

	json_object_set_new(service, "state", json_string(ic_state_name(ic)));
	if (ic->state == IC_UP) {
		json_object_set_new(service, "framework", version_string(ic->framework));
		json_object_set_new(service, "version", version_string(ic->message));
	}
	json_object_set_new(service, "requests", json_integer((json_int_t)ic->requests));
	json_object_set_new(service, "answers", json_integer((json_int_t)ic->answers));
	json_object_set_new(service, "timeouts", json_integer((json_int_t)ic->timeouts));
	return service;
}

static void add_fcopy(json_t *service, const struct vm *vm)
{
	uint64_t copied, size;

	if (fcopy_progress(vm, &copied, &size)) {
		json_object_set_new(service, "copied", json_integer((json_int_t)copied));
		json_object_set_new(service, "size", json_integer((json_int_t)size));
	}
}

static void fill_status(json_t *status, void *opaque)
{
	static const char *const names[] = { "heartbeat", "shutdown", "timesync", "kvp", "vss", "fcopy" };
	const struct vm *vm = opaque;
	json_t *services;

	if (!vm->vmbus)
		return;
	services = json_object();
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const struct ic *ic = ic_find(vm, names[i]);

		if (ic)
			json_object_set_new(services, names[i], service_object(ic));
	}
	add_heartbeat(json_object_get(services, "heartbeat"), vm);
	json_object_set_new(json_object_get(services, "vss"), "file_systems",
			    json_string(vss_state_name(vss_state(vm))));
	add_fcopy(json_object_get(services, "fcopy"), vm);
	json_object_set_new(status, "services", services);
}

#define POOLS	 "external|guest|auto|auto-external"
#define POOL_ARG "who keeps the pool: host, guest's users, guest's service, host about itself"

static const struct control_command commands[] = {
	{ .name = "shutdown",
	  .help = "asks the guest's system to shut down; by the power button if it has no such service",
	  .run = run_shutdown,
	  .arguments = { { .name = "mode",
			   .values = "poweroff|reboot|hibernate",
			   .help = "what to do after that (poweroff)" },
			 { .name = "force", .kind = CONTROL_BOOL, .help = "even if applications object (false)" } } },
	{ .name = "kvp-get",
	  .help = "reads a value of the guest's",
	  .run = run_kvp_get,
	  .arguments = { { .name = "key", .required = true, .help = "the name of the item" },
			 { .name = "pool", .values = POOLS, .help = POOL_ARG " (auto)" } } },
	{ .name = "kvp-set",
	  .help = "gives the guest a value, or changes one",
	  .run = run_kvp_set,
	  .arguments = { { .name = "key", .required = true, .help = "the name of the item" },
			 { .name = "value", .required = true, .help = "its value" },
			 { .name = "pool", .values = POOLS, .help = POOL_ARG " (external)" } } },
	{ .name = "kvp-delete",
	  .help = "removes a value from the guest",
	  .run = run_kvp_delete,
	  .arguments = { { .name = "key", .required = true, .help = "the name of the item" },
			 { .name = "pool", .values = POOLS, .help = POOL_ARG " (external)" } } },
	{ .name = "kvp-list",
	  .help = "lists the values of a pool",
	  .run = run_kvp_list,
	  .arguments = { { .name = "pool", .values = POOLS, .help = POOL_ARG " (auto)" } } },
	{ .name = "vss-freeze", .help = "brings the guest's file systems to rest", .run = run_vss_freeze },
	{ .name = "vss-thaw", .help = "lets them go on", .run = run_vss_thaw },
	{ .name = "fcopy",
	  .help = "copies a file into the guest",
	  .run = run_fcopy,
	  .arguments = { { .name = "from", .required = true, .help = "the host's file, as vmm finds it" },
			 { .name = "to", .required = true, .help = "the guest's file, an absolute path" },
			 { .name = "overwrite", .kind = CONTROL_BOOL, .help = "replace a file that is there (false)" },
			 { .name = "create-path", .kind = CONTROL_BOOL, .help = "make missing folders (false)" } } },
};

int ic_control_add(struct vm *vm)
{
	int ret = control_add(vm->control, commands, sizeof(commands) / sizeof(commands[0]), vm);

	if (!ret)
		ret = control_add_status(vm->control, fill_status, vm);
	if (ret)
		log_line("--control: %s", strerror(-ret));
	return ret;
}
