// SPDX-License-Identifier: MIT
/*
 * The two chipset functions that stock firmware knows a machine by: the Q35 host bridge with PCIEXBAR (Intel
 * 3 Series Express Chipset datasheet, 5.1.16), and the ICH9 LPC bridge (ICH9 datasheet, 13.1).
 */
#include <errno.h>
#include <stdlib.h>

#include "devices/pci/internal.h"

#define Q35_HOST_BRIDGE	 0x29c0
#define PCIEXBAR	 0x60
#define PCIEXBAR_ENABLE	 0x1
#define PCIEXBAR_LENGTH	 0x6 /* 0: 256 MiB, 1: 128, 2: 64 */
#define PCIEXBAR_LOW_RW	 0xfc000007u
#define PCIEXBAR_HIGH_RW 0xfu /* 36 address bits */

#define LPC_PMBASE    0x40
#define LPC_ACPI_CNTL 0x44
#define LPC_PIRQA     0x60
#define LPC_PIRQE     0x68
#define LPC_RCBA      0xf0
#define PIRQ_NONE     0x80 /* not routed to an ISA interrupt */

static void function_free(struct pci_function *fn)
{
	free(fn);
}

static const struct pci_function_ops chipset_ops = { .destroy = function_free };

/* Whatever the length of the window, only its first MiB, bus 0, has functions; the rest reads all ones
 * anyway. */
static void pciexbar_written(struct pci_function *fn, void *opaque)
{
	uint32_t low = pci_config_get(fn, PCIEXBAR, 4), high = pci_config_get(fn, PCIEXBAR + 4, 4);
	unsigned int length = (low & PCIEXBAR_LENGTH) >> 1;
	uint64_t base = PCI_UNMAPPED;

	(void)opaque;
	if ((low & PCIEXBAR_ENABLE) && length < 3)
		base = ((uint64_t)high << 32 | low) & ~((PCI_ECAM_ALIGN >> length) - 1);
	pci_bus_move_ecam(fn->bus, base);
}

static struct pci_function *chipset_function(struct pci_bus *bus, int devfn, const char *name,
					     const struct pci_ids *ids)
{
	struct pci_function *fn = calloc(1, sizeof(*fn));

	if (fn && pci_function_init(fn, bus, devfn, name, ids, &chipset_ops)) {
		free(fn);
		fn = NULL;
	}
	return fn;
}

int pci_host_bridge_create(struct pci_bus *bus)
{
	const struct pci_ids ids = { .vendor = 0x8086,
				     .device = bus->windows.host_bridge ? bus->windows.host_bridge : Q35_HOST_BRIDGE,
				     .class_code = 0x060000 };
	struct pci_function *fn = chipset_function(bus, PCI_DEVFN(0, 0), "host-bridge", &ids);

	if (!fn)
		return -ENOMEM;
	uint64_t base = bus->windows.ecam;
	uint32_t low = base ? (uint32_t)base | PCIEXBAR_ENABLE : 0;
	pci_config_define(fn, PCIEXBAR, 4, low, PCIEXBAR_LOW_RW, 0);
	pci_config_define(fn, PCIEXBAR + 4, 4, base >> 32, PCIEXBAR_HIGH_RW, 0);
	int r = pci_config_hook(fn, &(struct pci_config_hook){ PCIEXBAR, 8, .written = pciexbar_written });
	if (!r)
		pciexbar_written(fn, NULL);
	return r;
}

/*
 * The power management block stays where vmm put it: PMBASE shows port 0x600 and ACPI_CNTL that it is on,
 * both read-only. PIRQ routing to ISA interrupts and RCBA keep what they are told and do nothing.
 */
int pci_lpc_create(struct pci_bus *bus)
{
	static const struct pci_ids ids = { .vendor = 0x8086, .device = 0x2918, .class_code = 0x060100, .revision = 2 };
	struct pci_function *fn = chipset_function(bus, PCI_DEVFN(0x1f, 0), "lpc", &ids);

	if (!fn)
		return -ENOMEM;
	pci_config_define(fn, LPC_PMBASE, 4, 0x601, 0, 0);
	pci_config_define(fn, LPC_ACPI_CNTL, 1, 0x80, 0, 0);
	for (unsigned int i = 0; i < 4; i++) {
		pci_config_define(fn, LPC_PIRQA + i, 1, PIRQ_NONE, 0x8f, 0);
		pci_config_define(fn, LPC_PIRQE + i, 1, PIRQ_NONE, 0x8f, 0);
	}
	pci_config_define(fn, LPC_RCBA, 4, 0, 0xffffc001, 0);
	return 0;
}
