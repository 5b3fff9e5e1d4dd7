// SPDX-License-Identifier: MIT
#include "devices/pci/msi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/pci/vector.h"
#include "vmm/log.h"
#include "vmm/vm.h"

/* Offsets in the capability, 64-bit form with masks. */
enum {
	MSI_CONTROL = 2,
	MSI_ADDRESS = 4,
	MSI_ADDRESS_HIGH = 8,
	MSI_DATA = 12,
	MSI_MASK = 16,
	MSI_PENDING = 20,
	MSI_SIZE = 24
};

#define CONTROL_ENABLE	0x0001
#define CONTROL_ENABLED 0x0070 /* log2 of the vectors in use */
#define CONTROL_64BIT	0x0080
#define CONTROL_MASKS	0x0100

struct pci_msi {
	struct pci_function *fn;
	pthread_mutex_t lock; /* vectors, told; inside bus->lock */
	unsigned int capability;
	unsigned int log2_count;
	_Atomic unsigned int enabled; /* vectors in use; 0: MSI is off */
	bool told;
	struct pci_vector vectors[PCI_MSI_MAX_VECTORS];
};

static struct irqs *irqs_of(struct pci_msi *m)
{
	return &m->fn->bus->vm->irqs;
}

/* How many vectors the control register puts to use. Values above what is offered are a guest's mistake. */
static unsigned int vectors_in_use(const struct pci_msi *m)
{
	uint32_t control = pci_config_get(m->fn, m->capability + MSI_CONTROL, 2);
	unsigned int log2 = (control & CONTROL_ENABLED) >> 4;

	if (!(control & CONTROL_ENABLE))
		return 0;
	return 1u << (log2 < m->log2_count ? log2 : m->log2_count);
}

static void connect_vector(struct pci_msi *m, unsigned int i, unsigned int in_use)
{
	struct pci_function *fn = m->fn;
	uint64_t address = pci_config_get(fn, m->capability + MSI_ADDRESS, 4) |
			   (uint64_t)pci_config_get(fn, m->capability + MSI_ADDRESS_HIGH, 4) << 32;
	uint32_t data = pci_config_get(fn, m->capability + MSI_DATA, 2);
	int r = pci_vector_connect(irqs_of(m), &m->vectors[i], address, (data & ~(in_use - 1)) | i);

	if (r && !m->told) {
		m->told = true;
		log_line("PCI: %s: MSI vector %u: %s", fn->name, i, strerror(-r));
	}
}

static void written(struct pci_function *fn, void *opaque)
{
	struct pci_msi *m = opaque;
	uint32_t mask = pci_config_get(fn, m->capability + MSI_MASK, 4);
	unsigned int in_use = vectors_in_use(m);

	pthread_mutex_lock(&m->lock);
	unsigned int before = m->enabled;
	m->enabled = in_use;
	for (unsigned int i = 0; i < 1u << m->log2_count; i++) {
		if (i >= before)
			pci_vector_discard(&m->vectors[i]);
		if (i < in_use && !(mask >> i & 1) && !atomic_load(&fn->gone))
			connect_vector(m, i, in_use);
		else if (m->vectors[i].live)
			pci_vector_mask(irqs_of(m), &m->vectors[i]);
	}
	pthread_mutex_unlock(&m->lock);
}

void pci_msi_refresh(struct pci_function *fn)
{
	struct pci_msi *m = fn->msi;

	if (!m)
		return;
	written(fn, m);
	pthread_mutex_lock(&m->lock);
	for (unsigned int i = 0; i < 1u << m->log2_count && atomic_load(&fn->gone); i++)
		pci_vector_discard(&m->vectors[i]);
	pthread_mutex_unlock(&m->lock);
}

static void reading_pending(struct pci_function *fn, void *opaque)
{
	struct pci_msi *m = opaque;
	uint32_t pending = 0;

	pthread_mutex_lock(&m->lock);
	for (unsigned int i = 0; i < m->enabled; i++)
		pending |= (uint32_t)pci_vector_pending(&m->vectors[i]) << i;
	pthread_mutex_unlock(&m->lock);
	pci_config_set(fn, m->capability + MSI_PENDING, 4, pending);
}

static int add_capability(struct pci_msi *m)
{
	struct pci_function *fn = m->fn;
	uint32_t masks = UINT32_MAX >> (32 - (1u << m->log2_count));
	int offset = pci_add_capability(fn, PCI_CAP_MSI, MSI_SIZE);

	if (offset < 0)
		return offset;
	m->capability = offset;
	pci_config_define(fn, offset + MSI_CONTROL, 2, CONTROL_MASKS | CONTROL_64BIT | m->log2_count << 1,
			  CONTROL_ENABLE | CONTROL_ENABLED, 0);
	pci_config_define(fn, offset + MSI_ADDRESS, 4, 0, 0xfffffffc, 0);
	pci_config_define(fn, offset + MSI_ADDRESS_HIGH, 4, 0, UINT32_MAX, 0);
	pci_config_define(fn, offset + MSI_DATA, 2, 0, 0xffff, 0);
	pci_config_define(fn, offset + MSI_MASK, 4, 0, masks, 0);
	int r = pci_config_hook(
		fn, &(struct pci_config_hook){ offset + 2, MSI_PENDING - 2, .written = written, .opaque = m });
	return r ? r
		 : pci_config_hook(fn, &(struct pci_config_hook){ offset + MSI_PENDING, 4, .reading = reading_pending,
								  .opaque = m });
}

int pci_msi_init(struct pci_function *fn, unsigned int vectors)
{
	if (!vectors || vectors > PCI_MSI_MAX_VECTORS || (vectors & (vectors - 1)) || fn->msi)
		return -EINVAL;
	struct pci_msi *m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->fn = fn;
	m->log2_count = (unsigned int)__builtin_ctz(vectors);
	int r = pci_vectors_alloc(irqs_of(m), m->vectors, vectors);
	if (r) {
		free(m);
		return r;
	}
	pthread_mutex_init(&m->lock, NULL);
	fn->msi = m;
	return add_capability(m);
}

void pci_msi_destroy(struct pci_function *fn)
{
	struct pci_msi *m = fn->msi;

	if (!m)
		return;
	fn->msi = NULL;
	pci_vectors_free(irqs_of(m), m->vectors, 1u << m->log2_count);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

bool pci_msi_enabled(const struct pci_function *fn)
{
	return fn->msi && atomic_load(&fn->msi->enabled);
}

void pci_msi_notify(struct pci_function *fn, unsigned int vector)
{
	if (fn->msi && vector < atomic_load(&fn->msi->enabled))
		pci_vector_signal(&fn->msi->vectors[vector]);
}

int pci_msi_fd(const struct pci_function *fn, unsigned int vector)
{
	return fn->msi && vector < 1u << fn->msi->log2_count ? fn->msi->vectors[vector].msi.fd : -1;
}
