/* SPDX-License-Identifier: MIT */
/*
 * The pvpanic ISA device, after QEMU's docs/specs/pvpanic.rst: one port; a read gives the events the machine
 * takes, a write reports one. A panicked guest ends the run; one that goes on to its crash kernel does not.
 * Each boot's first report is told, not every one.
 */
#include "devices/legacy/pvpanic.h"

#include <errno.h>
#include <libfdt.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "devices/legacy/isa_fdt.h"
#include "firmware/acpi/aml.h"
#include "vmm/bus.h"
#include "vmm/device.h"
#include "vmm/log.h"
#include "vmm/vm.h"

enum {
	EVENT_PANICKED = 1 << 0,
	EVENT_CRASH_LOADED = 1 << 1,
	EVENT_SHUTDOWN = 1 << 2,
	EVENTS = EVENT_PANICKED | EVENT_CRASH_LOADED | EVENT_SHUTDOWN,
};

#define STA_PRESENT 0x0f /* present, enabled, shown, working */

struct pvpanic {
	struct device dev;
	struct region region;
	_Atomic bool told; /* any vCPU */
};

static uint64_t port_read(void *opaque, uint64_t offset, unsigned int size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return EVENTS;
}

static void tell(struct pvpanic *pvpanic, const char *what)
{
	if (!atomic_exchange(&pvpanic->told, true))
		log_line("%s", what);
}

static void port_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct pvpanic *pvpanic = opaque;

	(void)offset;
	(void)size;
	if (value & EVENT_PANICKED) {
		tell(pvpanic, "the guest panicked");
		vm_exit(pvpanic->dev.vm, STATUS_PANICKED);
	} else if (value & EVENT_CRASH_LOADED) {
		tell(pvpanic, "the guest panicked and starts its crash kernel");
	} else if (value & EVENT_SHUTDOWN) {
		vm_poweroff(pvpanic->dev.vm);
	}
}

static const struct io_ops port_ops = { .read = port_read, .write = port_write };

static void pvpanic_reset(struct device *dev)
{
	atomic_store(&((struct pvpanic *)dev)->told, false);
}

static void pvpanic_destroy(struct device *dev)
{
	free(dev);
}

static void build_aml(struct aml *aml, void *device)
{
	(void)device;
	aml_name(aml, "_HID");
	aml_string(aml, "QEMU0001");
	aml_name_integer(aml, "_STA", STA_PRESENT);
	aml_name(aml, "_CRS");
	aml_begin_resources(aml);
	aml_res_io(aml, PVPANIC_PORT, 1);
	aml_end(aml);
}

static int build_fdt(const struct device *dev, void *fdt)
{
	int err = isa_fdt_begin(fdt, "pvpanic", "qemu,pvpanic", PVPANIC_PORT, 1);

	(void)dev;
	return err ? err : isa_fdt_end(fdt);
}

static const struct device_class pvpanic_class = {
	.name = "pvpanic",
	.reset = pvpanic_reset,
	.destroy = pvpanic_destroy,
	.aml_name = "PEVT",
	.build_aml = build_aml,
	.build_fdt = build_fdt,
};

int pvpanic_create(struct vm *vm)
{
	struct pvpanic *pvpanic = calloc(1, sizeof(*pvpanic));
	int ret = pvpanic ? 0 : -ENOMEM;

	if (pvpanic) {
		pvpanic->region = (struct region){
			.name = "pvpanic", .base = PVPANIC_PORT, .length = 1, .ops = &port_ops, .opaque = pvpanic
		};
		ret = bus_add(&vm->pio, &pvpanic->region);
	}
	if (ret) {
		log_line("pvpanic at port 0x%x: %s", PVPANIC_PORT, strerror(-ret));
		free(pvpanic);
		return ret;
	}
	device_register(vm, &pvpanic->dev, &pvpanic_class);
	return 0;
}
