/* SPDX-License-Identifier: MIT */
/* One interrupt vector as MSI and MSI-X both have it: an event is delivered, or kept pending while masked. */
#ifndef DEVICES_PCI_VECTOR_H
#define DEVICES_PCI_VECTOR_H

#include "vmm/irq.h"

/* Under its owner's lock, but for the eventfd, which never changes unless the owner hands in a peer's. */
struct pci_vector {
	struct msi msi;
	bool foreign; /* the eventfd came from a peer: writing it could wait */
	bool live;    /* events reach the guest */
	bool pending; /* taken from the eventfd while masked */
};

int pci_vectors_alloc(struct irqs *irqs, struct pci_vector *vectors, unsigned int count);
void pci_vectors_free(struct irqs *irqs, struct pci_vector *vectors, unsigned int count);

/* Unmasks, or changes the message; a pending event is delivered now. On failure the vector is left masked. */
int pci_vector_connect(struct irqs *irqs, struct pci_vector *v, uint64_t address, uint32_t data);
void pci_vector_mask(struct irqs *irqs, struct pci_vector *v);

/* Replaces the eventfd of a masked vector; what the old one has counted is kept. Takes fd over. */
void pci_vector_replace(struct pci_vector *v, int fd);

/* Whether a masked vector has an event waiting. */
bool pci_vector_pending(struct pci_vector *v);

/* Forgets what arrived while the capability was off. */
void pci_vector_discard(struct pci_vector *v);

/* An event. Any thread, no lock. */
void pci_vector_signal(const struct pci_vector *v);

#endif
