// SPDX-License-Identifier: MIT
/*
 * A vector is connected (vector.c) exactly while MSI-X is enabled, the function unmasked and the vector
 * unmasked; each write that touches one of these, or the message of a connected vector, ends in update().
 * Guests fill in an entry while it is masked, so the costly part, a new routing table for KVM, happens once a
 * vector.
 */
#include "devices/pci/msix.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/pci/vector.h"
#include "vmm/log.h"
#include "vmm/vm.h"

#define CONTROL_ENABLE 0x8000
#define CONTROL_MASK   0x4000
#define VECTOR_MASKED  0x1

enum { ENTRY_ADDRESS_LOW, ENTRY_ADDRESS_HIGH, ENTRY_DATA, ENTRY_CONTROL, ENTRY_DWORDS };

struct msix_vector {
	uint32_t entry[ENTRY_DWORDS];
};

struct msix {
	struct pci_function *fn;
	pthread_mutex_t lock; /* all below but counts and eventfds; inside bus->lock */
	unsigned int capability;
	unsigned int count;
	_Atomic bool enabled;
	bool masked;
	bool told; /* that a message was refused */
	struct msix_vector *table;
	struct pci_vector *vectors;
};

static struct irqs *irqs_of(struct msix *m)
{
	return &m->fn->bus->vm->irqs;
}

static void update(struct msix *m, unsigned int i)
{
	const uint32_t *entry = m->table[i].entry;
	struct pci_vector *v = &m->vectors[i];

	if (!m->enabled || m->masked || atomic_load(&m->fn->gone) || (entry[ENTRY_CONTROL] & VECTOR_MASKED)) {
		if (v->live)
			pci_vector_mask(irqs_of(m), v);
		return;
	}
	uint64_t address = (uint64_t)entry[ENTRY_ADDRESS_HIGH] << 32 | entry[ENTRY_ADDRESS_LOW];
	int r = pci_vector_connect(irqs_of(m), v, address, entry[ENTRY_DATA]);
	if (r && !m->told) {
		m->told = true;
		log_line("PCI: %s: MSI-X vector %u: %s", m->fn->name, i, strerror(-r));
	}
}

static void control_written(struct pci_function *fn, void *opaque)
{
	struct msix *m = opaque;
	uint32_t control = pci_config_get(fn, m->capability + 2, 2);
	bool enable = control & CONTROL_ENABLE, mask = control & CONTROL_MASK;

	pthread_mutex_lock(&m->lock);
	if (enable != m->enabled || mask != m->masked) {
		for (unsigned int i = 0; enable && !m->enabled && i < m->count; i++)
			pci_vector_discard(&m->vectors[i]);
		m->enabled = enable;
		m->masked = mask;
		for (unsigned int i = 0; i < m->count; i++)
			update(m, i);
	}
	pthread_mutex_unlock(&m->lock);
}

static bool aligned(uint64_t offset, unsigned int size)
{
	return (size == 4 || size == 8) && offset % size == 0;
}

static uint64_t table_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct msix *m = opaque;
	uint64_t value = 0;

	if (!aligned(offset, size))
		return UINT64_MAX;
	pthread_mutex_lock(&m->lock);
	for (unsigned int i = 0; i < size / 4; i++) {
		uint64_t dword = offset / 4 + i;
		value |= (uint64_t)m->table[dword / ENTRY_DWORDS].entry[dword % ENTRY_DWORDS] << (32 * i);
	}
	pthread_mutex_unlock(&m->lock);
	return value;
}

static void table_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	static const uint32_t writable[ENTRY_DWORDS] = { 0xfffffffc, UINT32_MAX, UINT32_MAX, VECTOR_MASKED };
	struct msix *m = opaque;
	unsigned int vector = offset / MSIX_ENTRY_SIZE;

	if (!aligned(offset, size))
		return;
	pthread_mutex_lock(&m->lock);
	for (unsigned int i = 0; i < size / 4; i++) {
		unsigned int field = offset / 4 % ENTRY_DWORDS + i;
		m->table[vector].entry[field] = (uint32_t)(value >> (32 * i)) & writable[field];
	}
	update(m, vector);
	pthread_mutex_unlock(&m->lock);
}

static const struct io_ops table_ops = { table_read, table_write };

static uint64_t pba_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct msix *m = opaque;
	uint64_t value = 0;

	if (!aligned(offset, size))
		return UINT64_MAX;
	pthread_mutex_lock(&m->lock);
	for (unsigned int bit = 0; m->enabled && bit < size * 8; bit++) {
		unsigned int i = offset * 8 + bit;
		if (i < m->count && pci_vector_pending(&m->vectors[i]))
			value |= 1ULL << bit;
	}
	pthread_mutex_unlock(&m->lock);
	return value;
}

static const struct io_ops pba_ops = { pba_read, NULL };

/* PCI 3.0, 6.8.2.9: vectors are masked after reset. */
void msix_reset(struct pci_function *fn)
{
	struct msix *m = fn->msix;

	pthread_mutex_lock(&m->lock);
	m->enabled = false;
	m->masked = false;
	for (unsigned int i = 0; i < m->count; i++) {
		m->table[i] = (struct msix_vector){ { [ENTRY_CONTROL] = VECTOR_MASKED } };
		update(m, i);
		pci_vector_discard(&m->vectors[i]);
	}
	pthread_mutex_unlock(&m->lock);
}

void msix_refresh(struct pci_function *fn)
{
	struct msix *m = fn->msix;

	if (!m)
		return;
	pthread_mutex_lock(&m->lock);
	for (unsigned int i = 0; i < m->count; i++) {
		update(m, i);
		if (atomic_load(&fn->gone))
			pci_vector_discard(&m->vectors[i]);
	}
	pthread_mutex_unlock(&m->lock);
}

static void msix_free(struct msix *m)
{
	free(m->table);
	free(m->vectors);
	free(m);
}

static struct msix *msix_new(struct pci_function *fn, unsigned int count)
{
	struct msix *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->fn = fn;
	m->count = count;
	m->table = calloc(count, sizeof(*m->table));
	m->vectors = calloc(count, sizeof(*m->vectors));
	if (!m->table || !m->vectors) {
		msix_free(m);
		return NULL;
	}
	for (unsigned int i = 0; i < count; i++)
		m->table[i].entry[ENTRY_CONTROL] = VECTOR_MASKED;
	return m;
}

static int add_capability(struct msix *m, uint32_t table, uint32_t pba)
{
	struct pci_function *fn = m->fn;
	int offset = pci_add_capability(fn, PCI_CAP_MSIX, 12);

	if (offset < 0)
		return offset;
	m->capability = offset;
	pci_config_define(fn, offset + 2, 2, m->count - 1, CONTROL_ENABLE | CONTROL_MASK, 0);
	pci_config_define(fn, offset + 4, 4, table, 0, 0);
	pci_config_define(fn, offset + 8, 4, pba, 0, 0);
	return pci_config_hook(fn, &(struct pci_config_hook){ offset + 2, 2, .written = control_written, .opaque = m });
}

int msix_init(struct pci_function *fn, unsigned int vectors, unsigned int table_bar, uint32_t table_offset,
	      unsigned int pba_bar, uint32_t pba_offset)
{
	if (!vectors || vectors > MSIX_MAX_VECTORS || fn->msix || table_offset % 8 || pba_offset % 8)
		return -EINVAL;
	struct msix *m = msix_new(fn, vectors);
	if (!m)
		return -ENOMEM;
	int r = pci_vectors_alloc(irqs_of(m), m->vectors, vectors);
	if (r) {
		msix_free(m);
		return r;
	}
	pthread_mutex_init(&m->lock, NULL);
	/* From here on the function owns it, also after an error: its segments refer to it. */
	fn->msix = m;
	r = pci_bar_add_registers(fn, table_bar, table_offset, (uint64_t)vectors * MSIX_ENTRY_SIZE, &table_ops, m);
	if (!r)
		r = pci_bar_add_registers(fn, pba_bar, pba_offset, (vectors + 63) / 64 * 8, &pba_ops, m);
	return r ? r : add_capability(m, table_offset | table_bar, pba_offset | pba_bar);
}

void msix_destroy(struct pci_function *fn)
{
	struct msix *m = fn->msix;

	if (!m)
		return;
	fn->msix = NULL;
	pci_vectors_free(irqs_of(m), m->vectors, m->count);
	pthread_mutex_destroy(&m->lock);
	msix_free(m);
}

bool msix_enabled(const struct pci_function *fn)
{
	return fn->msix && atomic_load(&fn->msix->enabled);
}

void msix_notify(struct pci_function *fn, unsigned int vector)
{
	if (msix_enabled(fn) && vector < fn->msix->count)
		pci_vector_signal(&fn->msix->vectors[vector]);
}

int msix_replace_fd(struct pci_function *fn, unsigned int vector, int fd)
{
	struct msix *m = fn->msix;

	if (!m || vector >= m->count)
		return -EINVAL;
	pthread_mutex_lock(&m->lock);
	if (m->vectors[vector].live)
		pci_vector_mask(irqs_of(m), &m->vectors[vector]);
	pci_vector_replace(&m->vectors[vector], fd);
	/* What came while nobody used MSI-X is no event. */
	if (!m->enabled)
		pci_vector_discard(&m->vectors[vector]);
	update(m, vector);
	pthread_mutex_unlock(&m->lock);
	return 0;
}

int msix_fd(const struct pci_function *fn, unsigned int vector)
{
	return fn->msix && vector < fn->msix->count ? fn->msix->vectors[vector].msi.fd : -1;
}
