/* SPDX-License-Identifier: MIT */
#include "devices/legacy/isa_fdt.h"

#include <libfdt.h>
#include <stdio.h>

#define ISA_SPACE_IO 1

int isa_fdt_begin(void *fdt, const char *name, const char *compatible, uint16_t port, uint16_t length)
{
	const fdt32_t reg[] = { cpu_to_fdt32(ISA_SPACE_IO), cpu_to_fdt32(port), cpu_to_fdt32(length) };
	char bus[32], node[32];
	int err;

	snprintf(bus, sizeof(bus), "isa-%s", name);
	snprintf(node, sizeof(node), "%s@i%x", name, (unsigned int)port);
	err = fdt_begin_node(fdt, bus);
	if (!err)
		err = fdt_property_string(fdt, "device_type", "isa");
	if (!err)
		err = fdt_property_string(fdt, "compatible", "isa");
	if (!err)
		err = fdt_property_u32(fdt, "#address-cells", 2);
	if (!err)
		err = fdt_property_u32(fdt, "#size-cells", 1);
	if (!err)
		err = fdt_begin_node(fdt, node);
	if (!err)
		err = fdt_property_string(fdt, "compatible", compatible);
	return err ? err : fdt_property(fdt, "reg", reg, sizeof(reg));
}

int isa_fdt_interrupt(void *fdt, unsigned int gsi, enum isa_irq_type type)
{
	const fdt32_t cells[] = { cpu_to_fdt32(gsi), cpu_to_fdt32(type) };

	return fdt_property(fdt, "interrupts", cells, sizeof(cells));
}

int isa_fdt_end(void *fdt)
{
	int err = fdt_end_node(fdt);

	return err ? err : fdt_end_node(fdt);
}
