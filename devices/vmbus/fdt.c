/* SPDX-License-Identifier: MIT */
/* Linux Documentation/devicetree/bindings/bus/microsoft,vmbus.yaml */
#include <libfdt.h>
#include <stdio.h>

#include "arch/x86/x86.h"
#include "devices/vmbus/describe.h"

static void cells(fdt32_t out[2], uint64_t value)
{
	out[0] = cpu_to_fdt32((uint32_t)(value >> 32));
	out[1] = cpu_to_fdt32((uint32_t)value);
}

int vmbus_build_fdt(const struct device *dev, void *fdt)
{
	fdt32_t ranges[5]; /* address here and of the parent, two cells each, and the size */
	char name[32];
	int err;

	(void)dev;
	cells(ranges, VMBUS_MMIO_BASE);
	cells(ranges + 2, VMBUS_MMIO_BASE);
	ranges[4] = cpu_to_fdt32(VMBUS_MMIO_SIZE);
	snprintf(name, sizeof(name), "bus@%llx", VMBUS_MMIO_BASE);
	err = fdt_begin_node(fdt, name);
	err = err ? err : fdt_property_string(fdt, "compatible", "microsoft,vmbus");
	err = err ? err : fdt_property_u32(fdt, "#address-cells", 2);
	err = err ? err : fdt_property_u32(fdt, "#size-cells", 1);
	err = err ? err : fdt_property(fdt, "ranges", ranges, sizeof(ranges));
	return err ? err : fdt_end_node(fdt);
}
