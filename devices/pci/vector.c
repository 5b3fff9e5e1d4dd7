// SPDX-License-Identifier: MIT
#include "devices/pci/vector.h"

#include <sys/eventfd.h>
#include <unistd.h>

int pci_vectors_alloc(struct irqs *irqs, struct pci_vector *vectors, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		int r = msi_alloc(irqs, &vectors[i].msi);
		if (r) {
			pci_vectors_free(irqs, vectors, i);
			return r;
		}
	}
	return 0;
}

void pci_vectors_free(struct irqs *irqs, struct pci_vector *vectors, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		msi_free(irqs, &vectors[i].msi);
}

/*
 * What was counted before is taken off the eventfd first and written again after: whether a count that is
 * already there when the eventfd is connected raises an interrupt then differs between hosts.
 */
int pci_vector_connect(struct irqs *irqs, struct pci_vector *v, uint64_t address, uint32_t data)
{
	bool pending = pci_vector_pending(v);
	int r = msi_set(irqs, &v->msi, address, data);

	if (r) {
		pci_vector_mask(irqs, v);
		return r;
	}
	v->live = true;
	v->pending = false;
	if (pending && v->foreign)
		irq_send(irqs, &(struct irq_message){ (uint32_t)address, data });
	else if (pending)
		pci_vector_signal(v);
	return 0;
}

void pci_vector_replace(struct pci_vector *v, int fd)
{
	pci_vector_pending(v);
	close(v->msi.fd);
	v->msi.fd = fd;
	v->foreign = true;
}

void pci_vector_mask(struct irqs *irqs, struct pci_vector *v)
{
	msi_mask(irqs, &v->msi);
	v->live = false;
}

bool pci_vector_pending(struct pci_vector *v)
{
	if (!v->live && msi_take_pending(&v->msi))
		v->pending = true;
	return v->pending;
}

void pci_vector_discard(struct pci_vector *v)
{
	pci_vector_pending(v);
	v->pending = false;
}

void pci_vector_signal(const struct pci_vector *v)
{
	/* Fails only if 2^64 - 2 events wait already. */
	(void)eventfd_write(v->msi.fd, 1);
}
