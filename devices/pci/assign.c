// SPDX-License-Identifier: MIT
/*
 * What firmware would do at a direct boot: an address for each BAR. Largest first, so that alignment costs
 * nothing after the start of a window. Memory BARs get pages of their own. A prefetchable 64-bit BAR goes
 * above 4 GiB, every other one below, and a 64-bit one into the other window if its own is full.
 */
#include <errno.h>
#include <stdlib.h>

#include "devices/pci/internal.h"
#include "vmm/log.h"

#define MIN_MEMORY_ALIGN 4096

struct cursor {
	uint64_t next, end;
};

struct candidate {
	struct pci_bar *bar;
};

struct cursors {
	struct cursor io, mmio32, mmio64;
};

static struct cursor cursor_of(const struct pci_window *window)
{
	return (struct cursor){ window->base, window->base + window->size };
}

static bool take(struct cursor *c, uint64_t size, uint64_t align, uint64_t *address)
{
	uint64_t base = (c->next + align - 1) & ~(align - 1);

	if (base < c->next || base > c->end || c->end - base < size)
		return false;
	*address = base;
	c->next = base + size;
	return true;
}

static bool place(struct cursors *cursors, const struct pci_bar *bar, uint64_t *address)
{
	uint64_t align = bar->size;

	if (bar->flags & PCI_BAR_IO)
		return take(&cursors->io, bar->size, align, address);
	if (align < MIN_MEMORY_ALIGN)
		align = MIN_MEMORY_ALIGN;
	if (!(bar->flags & PCI_BAR_MEM64))
		return take(&cursors->mmio32, bar->size, align, address);
	if (bar->flags & PCI_BAR_PREFETCH)
		return take(&cursors->mmio64, bar->size, align, address) ||
		       take(&cursors->mmio32, bar->size, align, address);
	return take(&cursors->mmio32, bar->size, align, address) || take(&cursors->mmio64, bar->size, align, address);
}

static int by_size(const void *a, const void *b)
{
	const struct candidate *first = a, *second = b;
	const struct pci_bar *x = first->bar, *y = second->bar;

	if (x->size != y->size)
		return x->size > y->size ? -1 : 1;
	if (x->fn->devfn != y->fn->devfn)
		return x->fn->devfn < y->fn->devfn ? -1 : 1;
	return x->index < y->index ? -1 : 1;
}

/* Fills bars, if not NULL, with every BAR of the bus; returns how many there are. */
static size_t collect(struct pci_bus *bus, struct candidate *bars)
{
	size_t count = 0;

	for (unsigned int i = 0; i < PCI_FUNCTIONS * PCI_BARS; i++) {
		struct pci_function *fn = bus->functions[i / PCI_BARS];
		if (!fn || !fn->bars[i % PCI_BARS].size)
			continue;
		if (bars)
			bars[count].bar = &fn->bars[i % PCI_BARS];
		count++;
	}
	return count;
}

static int place_all(struct pci_bus *bus, struct candidate *bars, size_t count)
{
	struct cursors cursors = {
		.io = cursor_of(&bus->windows.io),
		.mmio32 = cursor_of(&bus->windows.mmio32),
		.mmio64 = cursor_of(&bus->windows.mmio64),
	};

	for (size_t i = 0; i < count; i++) {
		if (place(&cursors, bars[i].bar, &bars[i].bar->assigned))
			continue;
		log_line("PCI: %s: no room for its 0x%llx bytes of address space", bars[i].bar->name,
			 (unsigned long long)bars[i].bar->size);
		return -ENOSPC;
	}
	return 0;
}

void pci_apply_resources(struct pci_bus *bus)
{
	for (unsigned int i = 0; i < PCI_FUNCTIONS; i++) {
		struct pci_function *fn = bus->functions[i];
		uint32_t enable = 0;

		for (unsigned int j = 0; fn && j < PCI_BARS; j++) {
			struct pci_bar *bar = &fn->bars[j];
			if (!bar->size || bar->assigned == PCI_UNMAPPED)
				continue;
			pci_bar_set_address(bar, bar->assigned);
			enable |= bar->flags & PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
		}
		if (!enable)
			continue;
		pci_config_set(fn, PCI_COMMAND, 2, pci_config_get(fn, PCI_COMMAND, 2) | enable);
		pci_bars_update(fn);
	}
}

static int check_mapped(struct candidate *bars, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (bars[i].bar->mapped == bars[i].bar->assigned)
			continue;
		log_line("PCI: %s: its address 0x%llx is taken", bars[i].bar->name,
			 (unsigned long long)bars[i].bar->assigned);
		return -EBUSY;
	}
	return 0;
}

static void disable_all(struct pci_bus *bus)
{
	for (unsigned int i = 0; i < PCI_FUNCTIONS; i++) {
		struct pci_function *fn = bus->functions[i];
		if (!fn)
			continue;
		pci_function_restore(fn);
		for (unsigned int j = 0; j < PCI_BARS; j++)
			fn->bars[j].assigned = PCI_UNMAPPED;
	}
}

int pci_assign_resources(struct pci_bus *bus)
{
	size_t count = collect(bus, NULL);
	struct candidate *bars = calloc(count + 1, sizeof(*bars));

	if (!bars)
		return -ENOMEM;
	collect(bus, bars);
	qsort(bars, count, sizeof(*bars), by_size);
	pthread_mutex_lock(&bus->lock);
	int r = place_all(bus, bars, count);
	if (!r) {
		pci_apply_resources(bus);
		r = check_mapped(bars, count);
	}
	if (r)
		disable_all(bus);
	bus->assigned = !r;
	pthread_mutex_unlock(&bus->lock);
	free(bars);
	return r;
}
