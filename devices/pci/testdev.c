// SPDX-License-Identifier: MIT
#include "devices/pci/testdev.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "devices/pci/msi.h"
#include "devices/pci/msix.h"

#define MSI_VECTORS 4

struct testdev {
	struct pci_function fn;
	pthread_mutex_t lock;
	uint32_t intx, scratch, counter; /* under lock */
	unsigned int vectors;
	uint64_t size;
	void *memory;
};

static uint32_t get_register(struct testdev *t, uint64_t offset)
{
	switch (offset) {
	case TESTDEV_REG_ID:
		return TESTDEV_ID;
	case TESTDEV_REG_INTX:
		return t->intx;
	case TESTDEV_REG_SCRATCH:
		return t->scratch;
	case TESTDEV_REG_COUNTER:
		return t->counter++;
	case TESTDEV_REG_VECTORS:
		return t->vectors;
	case TESTDEV_REG_SIZE:
		return (uint32_t)t->size;
	case TESTDEV_REG_SIZE_HIGH:
		return t->size >> 32;
	default:
		return UINT32_MAX;
	}
}

static uint64_t registers_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct testdev *t = opaque;

	if (size != 4)
		return UINT64_MAX;
	pthread_mutex_lock(&t->lock);
	uint32_t value = get_register(t, offset);
	pthread_mutex_unlock(&t->lock);
	return value;
}

static void notify(struct testdev *t, uint32_t vector)
{
	if (msix_enabled(&t->fn))
		msix_notify(&t->fn, vector);
	else
		pci_msi_notify(&t->fn, vector);
}

static void registers_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct testdev *t = opaque;

	if (size != 4)
		return;
	pthread_mutex_lock(&t->lock);
	switch (offset) {
	case TESTDEV_REG_NOTIFY:
		notify(t, (uint32_t)value);
		break;
	case TESTDEV_REG_INTX:
		t->intx = value & 1;
		pci_set_intx(&t->fn, t->intx);
		break;
	case TESTDEV_REG_SCRATCH:
		t->scratch = (uint32_t)value;
		break;
	case TESTDEV_REG_COUNTER:
		t->counter = (uint32_t)value;
		break;
	}
	pthread_mutex_unlock(&t->lock);
}

static const struct io_ops register_ops = { registers_read, registers_write };

static void testdev_reset(struct pci_function *fn)
{
	struct testdev *t = (struct testdev *)fn;

	pthread_mutex_lock(&t->lock);
	t->intx = 0;
	t->scratch = 0;
	t->counter = 0;
	pthread_mutex_unlock(&t->lock);
	madvise(t->memory, t->size, MADV_DONTNEED);
}

static void testdev_destroy(struct pci_function *fn)
{
	struct testdev *t = (struct testdev *)fn;

	munmap(t->memory, t->size);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static const struct pci_function_ops testdev_ops = { .reset = testdev_reset, .destroy = testdev_destroy };

static int add_bars(struct testdev *t)
{
	struct pci_function *fn = &t->fn;
	int r = pci_add_bar(fn, 0, 0x1000, PCI_BAR_MEM32);

	r = r ? r : pci_bar_add_registers(fn, 0, 0, TESTDEV_REGS, &register_ops, t);
	r = r ? r : pci_add_bar(fn, 1, TESTDEV_REGS, PCI_BAR_IO);
	r = r ? r : pci_bar_add_registers(fn, 1, 0, TESTDEV_REGS, &register_ops, t);
	r = r ? r : pci_add_bar(fn, 2, t->size, PCI_BAR_MEM64 | PCI_BAR_PREFETCH);
	r = r ? r : pci_bar_add_memory(fn, 2, 0, t->size, t->memory, false);
	return r ? r : pci_add_bar(fn, 4, 0x10000, PCI_BAR_MEM32);
}

static int add_capabilities(struct testdev *t)
{
	struct pci_function *fn = &t->fn;
	int r = pci_add_express(fn);

	r = r ? r : pci_msi_init(fn, MSI_VECTORS);
	r = r ? r : msix_init(fn, t->vectors, 4, 0, 4, TESTDEV_PBA);
	if (r)
		return r;
	int offset = pci_add_ext_capability(fn, PCI_EXT_CAP_VENDOR, 1, 12);
	if (offset < 0)
		return offset;
	pci_config_define(fn, offset + 4, 4, 12u << 20, 0, 0); /* PCI Express 4.0, 7.9.5.2: id, revision, length */
	pci_config_define(fn, offset + 8, 4, 0, UINT32_MAX, 0);
	return 0;
}

int pci_testdev_create(struct pci_bus *bus, uint64_t memory, unsigned int vectors)
{
	static const struct pci_ids ids = { .vendor = TESTDEV_VENDOR,
					    .device = TESTDEV_DEVICE,
					    .class_code = 0xff0000 };

	if (memory < 4096 || (memory & (memory - 1)))
		return -EINVAL;
	struct testdev *t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->size = memory;
	t->vectors = vectors;
	t->memory = mmap(NULL, memory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (t->memory == MAP_FAILED) {
		free(t);
		return -ENOMEM;
	}
	pthread_mutex_init(&t->lock, NULL);
	int r = pci_function_init(&t->fn, bus, PCI_DEVFN_AUTO, "pci-test", &ids, &testdev_ops);
	if (!r) {
		pci_set_pin(&t->fn, 1);
		r = add_bars(t);
		r = r ? r : add_capabilities(t);
		if (r)
			pci_function_fini(&t->fn);
	}
	if (r)
		testdev_destroy(&t->fn);
	return r;
}
