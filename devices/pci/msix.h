/* SPDX-License-Identifier: MIT */
/*
 * MSI-X (PCI 3.0, 6.8.2): the capability, its table and its pending bit array.
 *
 * Each vector is an eventfd. A peer process may write it at any time: the event is delivered, waits in the
 * pending bit while vector or function are masked, and is lost while MSI-X is disabled.
 */
#ifndef DEVICES_PCI_MSIX_H
#define DEVICES_PCI_MSIX_H

#include "devices/pci/pci.h"

#define MSIX_MAX_VECTORS 2048
#define MSIX_ENTRY_SIZE	 16

/*
 * Adds the capability with 1..2048 vectors. Table (16 bytes a vector) and PBA (a bit a vector, in units of 8
 * bytes) become register segments of BARs that must exist and have room at these offsets, multiples of 8.
 * -EINVAL, -ENOSPC (no room in configuration space or for the routes), -ENOMEM or the error of eventfd().
 */
int msix_init(struct pci_function *fn, unsigned int vectors, unsigned int table_bar, uint32_t table_offset,
	      unsigned int pba_bar, uint32_t pba_offset);

/* By pci_function_fini() and at reset; harmless without the capability. */
void msix_destroy(struct pci_function *fn);
void msix_reset(struct pci_function *fn);

/* The function is gone, and what is pending with it; or it is back. Under bus->lock. */
void msix_refresh(struct pci_function *fn);

/* Whether the guest uses MSI-X: it then expects no INTx. Any thread. */
bool msix_enabled(const struct pci_function *fn);

/* An event on a vector. Any thread, any locks held. Nonsense vectors and disabled MSI-X are ignored. */
void msix_notify(struct pci_function *fn, unsigned int vector);

/*
 * Gives the vector an eventfd that a peer has made, and takes it over. Its events are delivered as those of the old
 * one; what the old one had counted is kept. Any thread without the bus's lock; msix_notify() and msix_fd() are not for
 * such a vector. -EINVAL: there is no such vector, and fd is the caller's again.
 */
int msix_replace_fd(struct pci_function *fn, unsigned int vector, int fd);

/* The vector's eventfd, to hand to a peer; it stays the function's. -1 if there is no such vector. */
int msix_fd(const struct pci_function *fn, unsigned int vector);

#endif
