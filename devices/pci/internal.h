/* SPDX-License-Identifier: MIT */
/* What the files of the PCI bus share with each other and nobody else. All of it under bus->lock, or at
 * creation. */
#ifndef DEVICES_PCI_INTERNAL_H
#define DEVICES_PCI_INTERNAL_H

#include "devices/pci/pci.h"

/* size 1..4, reg + size <= PCI_CONFIG_SIZE. */
uint32_t pci_function_read(struct pci_function *fn, unsigned int reg, unsigned int size);
void pci_function_write(struct pci_function *fn, unsigned int reg, unsigned int size, uint32_t value);

/* The two steps of a reset: initial values and nothing mapped; then hooks, INTx and ops->reset. */
void pci_function_restore(struct pci_function *fn);
void pci_function_reset(struct pci_function *fn);

/* Brings a function's mappings in line with its BARs and command register. */
void pci_bars_update(struct pci_function *fn);

/* Tries again what could not be mapped, after something was unmapped. */
void pci_bars_retry(struct pci_bus *bus);
void pci_bars_unmap(struct pci_function *fn);

/* The base that a BAR's register holds, decoding enabled or not; and the opposite. */
uint64_t pci_bar_address(const struct pci_bar *bar);
void pci_bar_set_address(struct pci_bar *bar, uint64_t address);

/* Writes the addresses of pci_assign_resources() into the BARs and enables decoding. */
void pci_apply_resources(struct pci_bus *bus);

/* ECAM at ecam_wanted if that is possible. */
void pci_ecam_update(struct pci_bus *bus);
bool pci_overlaps_ram(const struct pci_bus *bus, uint64_t base, uint64_t size);

/* INTx follows the command register's disable bit; the status register's bit follows INTx. */
void pci_intx_command(struct pci_function *fn);
void pci_intx_status(struct pci_function *fn);

int pci_bus_build_fdt(const struct device *dev, void *fdt);

int pci_host_bridge_create(struct pci_bus *bus);
int pci_lpc_create(struct pci_bus *bus);

#endif
