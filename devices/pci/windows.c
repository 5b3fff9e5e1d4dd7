// SPDX-License-Identifier: MIT
/*
 * Where a firmware has put things. An operating system is told of windows, and each BAR must lie in one; which
 * addresses a firmware takes, and where it moves ECAM, differs from one version to the next.
 *
 * Below 4 GiB, ECAM cuts the room for BARs in two; the window is the part with more BARs in it. Above, it is made of
 * whole steps of 64 GiB around the BARs, or one step for an OS that moves them.
 */
#include "devices/pci/internal.h"

#define STEP (64ULL << 30)
#define GIB4 (4ULL << 30)

struct part {
	uint64_t base, end, used;
};

static uint64_t bar_base(const struct pci_bar *bar)
{
	return bar->size && !(bar->flags & PCI_BAR_IO) ? bar->mapped : PCI_UNMAPPED;
}

static uint64_t used_in(const struct pci_bus *bus, uint64_t base, uint64_t end)
{
	uint64_t used = 0;

	for (unsigned int i = 0; i < PCI_FUNCTIONS * PCI_BARS; i++) {
		const struct pci_function *fn = bus->functions[i / PCI_BARS];
		uint64_t at = fn ? bar_base(&fn->bars[i % PCI_BARS]) : PCI_UNMAPPED;

		if (at >= base && at < end)
			used += fn->bars[i % PCI_BARS].size;
	}
	return used;
}

static struct pci_window below_4g(const struct pci_bus *bus, const struct pci_window *room, uint64_t ecam)
{
	const uint64_t end = room->base + room->size;
	struct part parts[2] = { { room->base, end, 0 }, { end, end, 0 } };
	const struct part *best = &parts[0];

	if (ecam < end && ecam + PCI_ECAM_ALIGN > room->base) {
		parts[0].end = ecam > room->base ? ecam : room->base;
		parts[1].base = ecam + PCI_ECAM_ALIGN < end ? ecam + PCI_ECAM_ALIGN : end;
	}
	for (unsigned int i = 0; i < 2; i++)
		parts[i].used = used_in(bus, parts[i].base, parts[i].end);
	if (parts[1].used > best->used ||
	    (parts[1].used == best->used && parts[1].end - parts[1].base > best->end - best->base))
		best = &parts[1];
	return (struct pci_window){ best->base, best->end - best->base };
}

static struct pci_window above_4g(const struct pci_bus *bus, const struct pci_window *usual, uint64_t limit)
{
	uint64_t lowest = limit, last = 0, first;

	for (unsigned int i = 0; i < PCI_FUNCTIONS * PCI_BARS; i++) {
		const struct pci_function *fn = bus->functions[i / PCI_BARS];
		uint64_t at = fn ? bar_base(&fn->bars[i % PCI_BARS]) : PCI_UNMAPPED;
		uint64_t size = fn ? fn->bars[i % PCI_BARS].size : 0;

		if (at < GIB4 || at >= limit || size > limit - at)
			continue;
		lowest = at < lowest ? at : lowest;
		last = at + size > last ? at + size : last;
	}
	if (!last)
		return *usual;
	first = lowest - lowest % STEP;
	if (first < usual->base) /* below that may be RAM */
		first = lowest < usual->base ? lowest : usual->base;
	last = (last + STEP - 1) / STEP * STEP;
	return (struct pci_window){ first, (last < limit ? last : limit) - first };
}

void pci_find_windows(struct pci_bus *bus, const struct pci_window *room, uint64_t limit, uint64_t ecam,
		      struct pci_windows *w)
{
	pthread_mutex_lock(&bus->lock);
	*w = bus->windows;
	w->ecam = bus->ecam_mapped <= GIB4 - PCI_ECAM_ALIGN ? bus->ecam_mapped : ecam;
	w->mmio32 = below_4g(bus, room, w->ecam);
	w->mmio64 = above_4g(bus, &bus->windows.mmio64, limit);
	pthread_mutex_unlock(&bus->lock);
}
