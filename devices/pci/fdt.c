// SPDX-License-Identifier: MIT
/*
 * The bus as a device tree node: pci-host-ecam-generic, with the root node's two address and two size cells.
 * Addresses inside are the PCI bus binding's three cells (IEEE 1275 PCI bus binding, 2.2.1.1).
 */
#include <endian.h>
#include <libfdt.h>
#include <stdio.h>

#include "devices/pci/internal.h"

enum { SPACE_IO = 0x01000000, SPACE_MEM32 = 0x02000000, SPACE_MEM64_PREFETCH = 0x43000000 };

#define RANGE_CELLS 7

static unsigned int put_range(uint32_t *cells, uint32_t space, const struct pci_window *window)
{
	if (!window->size)
		return 0;
	const uint32_t range[RANGE_CELLS] = { space,
					      window->base >> 32,
					      (uint32_t)window->base,
					      window->base >> 32,
					      (uint32_t)window->base,
					      window->size >> 32,
					      (uint32_t)window->size };
	for (unsigned int i = 0; i < RANGE_CELLS; i++)
		cells[i] = htobe32(range[i]);
	return RANGE_CELLS;
}

int pci_bus_build_fdt(const struct device *dev, void *fdt)
{
	const struct pci_bus *bus = (const struct pci_bus *)dev;
	const struct pci_windows *w = &bus->windows;
	const uint32_t reg[4] = { htobe32(w->ecam >> 32), htobe32((uint32_t)w->ecam), 0, htobe32(PCI_ECAM_SIZE) };
	const uint32_t bus_range[2] = { 0, 0 };
	uint32_t ranges[3 * RANGE_CELLS];
	unsigned int n = 0;
	char name[32];

	if (!w->ecam)
		return 0;
	n += put_range(&ranges[n], SPACE_IO, &w->io);
	n += put_range(&ranges[n], SPACE_MEM32, &w->mmio32);
	n += put_range(&ranges[n], SPACE_MEM64_PREFETCH, &w->mmio64);
	snprintf(name, sizeof(name), "pci@%llx", (unsigned long long)w->ecam);
	int r = fdt_begin_node(fdt, name);
	r = r ? r : fdt_property_string(fdt, "compatible", "pci-host-ecam-generic");
	r = r ? r : fdt_property_string(fdt, "device_type", "pci");
	r = r ? r : fdt_property_u32(fdt, "#address-cells", 3);
	r = r ? r : fdt_property_u32(fdt, "#size-cells", 2);
	r = r ? r : fdt_property(fdt, "reg", reg, sizeof(reg));
	r = r ? r : fdt_property(fdt, "bus-range", bus_range, sizeof(bus_range));
	r = r ? r : fdt_property(fdt, "ranges", ranges, (int)(n * sizeof(ranges[0])));
	return r ? r : fdt_end_node(fdt);
}
