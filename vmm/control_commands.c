/* SPDX-License-Identifier: MIT */
#include "vmm/control_commands.h"

#include <errno.h>
#include <string.h>

#include "vmm/bus.h"
#include "vmm/control.h"
#include "vmm/device.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/stats.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

static void run_status(struct control_request *request, void *opaque)
{
	struct vm *vm = opaque;
	json_t *status = json_object();

	json_object_set_new(status, "state", json_string(vm->paused ? "paused" : "running"));
	json_object_set_new(status, "version", json_string(VMM_VERSION));
	json_object_set_new(status, "uptime_ms", json_real((double)(clock_ns() - vm->start_ns) / 1e6));
	json_object_set_new(status, "cpus", json_integer(vm->nr_vcpus));
	json_object_set_new(status, "memory", json_integer((json_int_t)vm->memory.size));
	json_object_set_new(status, "kernel", json_string(vm->config->kernel));
	json_object_set_new(status, "resets", json_integer((json_int_t)vm->resets));
	json_object_set_new(status, "user_exits", json_integer((json_int_t)stats_user_exits(vm)));
	control_fill_status(request, status);
	control_answer(request, status);
}

static void run_stats(struct control_request *request, void *opaque)
{
	control_answer(request, stats_object(opaque));
}

static json_t *region_object(const struct region *region)
{
	json_t *object = json_object();

	json_object_set_new(object, "name", json_string(region->name));
	json_object_set_new(object, "base", json_integer((json_int_t)region->base));
	json_object_set_new(object, "length", json_integer((json_int_t)region->length));
	return object;
}

static json_t *region_array(struct bus *bus)
{
	json_t *array = json_array();

	pthread_mutex_lock(&bus->lock);
	for (uint32_t i = 0; i < atomic_load(&bus->count); i++)
		json_array_append_new(array, region_object(atomic_load(&bus->slots[i].region)));
	pthread_mutex_unlock(&bus->lock);
	return array;
}

static void run_devices(struct control_request *request, void *opaque)
{
	struct vm *vm = opaque;
	json_t *object = json_object(), *names = json_array();

	for (const struct device *d = vm->devices; d; d = d->next)
		json_array_insert_new(names, 0, json_string(d->class->name));
	json_object_set_new(object, "devices", names);
	json_object_set_new(object, "ports", region_array(&vm->pio));
	json_object_set_new(object, "memory", region_array(&vm->mmio));
	control_answer(request, object);
}

static void run_powerbutton(struct control_request *request, void *opaque)
{
	struct vm *vm = opaque;

	if (vm->paused) {
		control_fail(request, "the machine is paused");
		return;
	}
	vm_power_button(vm);
	control_answer(request, NULL);
}

static void run_reset(struct control_request *request, void *opaque)
{
	vm_reset(opaque);
	control_answer(request, NULL);
}

static void run_quit(struct control_request *request, void *opaque)
{
	vm_poweroff(opaque);
	control_answer(request, NULL);
}

static void run_pause(struct control_request *request, void *opaque)
{
	int ret = vm_pause(opaque);

	if (ret)
		control_fail(request, "a vCPU does not stop");
	else
		control_answer(request, NULL);
}

static void run_resume(struct control_request *request, void *opaque)
{
	vm_resume(opaque);
	control_answer(request, NULL);
}

static const struct control_command commands[] = {
	{ .name = "status",
	  .help = "state, size and age of the machine, and what its guest has up",
	  .run = run_status },
	{ .name = "stats", .help = "figures of the run so far, as --stats writes them", .run = run_stats },
	{ .name = "devices", .help = "devices, and the ports and addresses they answer at", .run = run_devices },
	{ .name = "powerbutton",
	  .help = "presses the power button: ACPI asks the guest to shut down",
	  .run = run_powerbutton },
	{ .name = "reset", .help = "resets the machine at once (--no-reboot: ends vmm)", .run = run_reset },
	{ .name = "quit", .help = "ends vmm at once, with status 0", .run = run_quit },
	{ .name = "pause", .help = "stops all virtual CPUs; answered when they stand still", .run = run_pause },
	{ .name = "resume", .help = "lets them go on", .run = run_resume },
};

int control_open(struct vm *vm)
{
	int ret;

	vm->control = control_create(&vm->loop, vm->config->control);
	if (!vm->control)
		return -EINVAL;
	ret = control_add(vm->control, commands, sizeof(commands) / sizeof(commands[0]), vm);
	if (ret)
		log_line("--control: %s", strerror(-ret));
	return ret;
}
