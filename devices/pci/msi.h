/* SPDX-License-Identifier: MIT */
/* MSI (PCI 3.0, 6.8.1) with 64-bit addresses and per-vector masking. Events as with MSI-X (msix.h). */
#ifndef DEVICES_PCI_MSI_H
#define DEVICES_PCI_MSI_H

#include "devices/pci/pci.h"

#define PCI_MSI_MAX_VECTORS 32

/* Adds the capability; vectors: a power of two up to 32. -EINVAL, -ENOSPC, -ENOMEM or the error of eventfd().
 */
int pci_msi_init(struct pci_function *fn, unsigned int vectors);

/* By pci_function_fini(); harmless without the capability. */
void pci_msi_destroy(struct pci_function *fn);

/* The function is gone, and what is pending with it; or it is back. Under bus->lock. */
void pci_msi_refresh(struct pci_function *fn);

/* Any thread. The guest may enable fewer vectors than there are: an event beyond them uses none and is lost.
 */
bool pci_msi_enabled(const struct pci_function *fn);
void pci_msi_notify(struct pci_function *fn, unsigned int vector);
int pci_msi_fd(const struct pci_function *fn, unsigned int vector);

#endif
