// SPDX-License-Identifier: MIT
/*
 * Base address registers.
 *
 * A BAR is one region of a bus while the command register enables it, so that whatever a guest programs,
 * overlaps are found by bus_add(): the later one stays unmapped, and is tried again whenever PCI frees a
 * range. Inside the region segments share the work; one of host memory also is a memslot, and guest accesses
 * to it never get here (except writes to a read-only one, which are dropped). Memslots hide everything below
 * them, therefore a BAR must not touch RAM even where the bus would let it.
 *
 * An address of 0 or of all ones (what the sizing protocol leaves behind) maps nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "devices/pci/internal.h"
#include "devices/pci/msi.h"
#include "devices/pci/msix.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

#define PAGE 4096u

#define MEM_MASK 0xfffffff0u
#define IO_MASK	 0xfffffffcu

static struct bus *bar_bus(const struct pci_bar *bar)
{
	struct vm *vm = bar->fn->bus->vm;

	return bar->flags & PCI_BAR_IO ? &vm->pio : &vm->mmio;
}

static struct pci_bar_segment *find_segment(struct pci_bar *bar, uint64_t offset, unsigned int size)
{
	for (unsigned int i = 0; i < bar->nr_segments; i++) {
		struct pci_bar_segment *s = &bar->segments[i];
		if (offset >= s->offset && offset - s->offset < s->length)
			return size <= s->length - (offset - s->offset) ? s : NULL;
	}
	return NULL;
}

static uint64_t bar_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct pci_bar_segment *s = find_segment(opaque, offset, size);
	uint64_t value = 0;

	if (atomic_load_explicit(&((struct pci_bar *)opaque)->fn->gone, memory_order_relaxed))
		return UINT64_MAX;
	if (s && s->host && !s->ops) {
		memcpy(&value, s->host + (offset - s->offset), size);
		return value;
	}
	return s && s->ops->read ? s->ops->read(s->opaque, offset - s->offset, size) : UINT64_MAX;
}

static void bar_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct pci_bar_segment *s = find_segment(opaque, offset, size);

	if (!s || atomic_load_explicit(&((struct pci_bar *)opaque)->fn->gone, memory_order_relaxed))
		return;
	if (s->host && !s->ops && !s->readonly)
		memcpy(s->host + (offset - s->offset), &value, size);
	else if (s->ops && s->ops->write)
		s->ops->write(s->opaque, offset - s->offset, size, value);
}

static const struct io_ops bar_ops = { bar_read, bar_write };

uint64_t pci_bar_address(const struct pci_bar *bar)
{
	unsigned int reg = PCI_BAR0 + 4 * bar->index;
	uint64_t low = pci_config_get(bar->fn, reg, 4);

	if (bar->flags & PCI_BAR_IO)
		return low & IO_MASK;
	low &= MEM_MASK;
	if (bar->flags & PCI_BAR_MEM64)
		low |= (uint64_t)pci_config_get(bar->fn, reg + 4, 4) << 32;
	return low;
}

void pci_bar_set_address(struct pci_bar *bar, uint64_t address)
{
	unsigned int reg = PCI_BAR0 + 4 * bar->index;

	pci_config_set(bar->fn, reg, 4, (uint32_t)address | bar->flags);
	if (bar->flags & PCI_BAR_MEM64)
		pci_config_set(bar->fn, reg + 4, 4, address >> 32);
}

static uint64_t wanted_address(const struct pci_bar *bar)
{
	uint32_t enable = bar->flags & PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
	uint64_t all_ones = bar->flags & PCI_BAR_MEM64 ? UINT64_MAX : UINT32_MAX;

	if (!bar->size || !(pci_config_get(bar->fn, PCI_COMMAND, 2) & enable))
		return PCI_UNMAPPED;
	uint64_t address = pci_bar_address(bar);
	if (address == 0 || address == (all_ones & ~(bar->size - 1)))
		return PCI_UNMAPPED;
	return address;
}

static void drop_memslot(struct pci_bar *bar, struct pci_bar_segment *s)
{
	if (s->slot < 0)
		return;
	memslot_del(&bar->fn->bus->vm->memory, s->slot);
	s->slot = -1;
}

static void drop_memslots(struct pci_bar *bar)
{
	for (unsigned int i = 0; i < bar->nr_segments; i++)
		drop_memslot(bar, &bar->segments[i]);
}

void pci_bar_lose(struct pci_function *fn, unsigned int index)
{
	struct pci_bar *bar = &fn->bars[index];

	for (unsigned int i = 0; i < bar->nr_segments; i++) {
		struct pci_bar_segment *s = &bar->segments[i];
		if (!s->host || !s->ops)
			continue;
		drop_memslot(bar, s);
		s->lost = true;
	}
}

static bool wants_memslot(const struct pci_bar *bar, const struct pci_bar_segment *s)
{
	return s->host && !s->lost && !(s->ops && atomic_load(&bar->fn->gone));
}

static void tell_moved(const struct pci_bar *bar, uint64_t address)
{
	struct pci_function *fn = bar->fn;

	if (fn->ops && fn->ops->bar_moved)
		fn->ops->bar_moved(fn, bar->index, address);
}

static int map(struct pci_bar *bar, uint64_t address)
{
	struct pci_bus *bus = bar->fn->bus;

	if (!(bar->flags & PCI_BAR_IO) && pci_overlaps_ram(bus, address, bar->size))
		return -EEXIST;
	bar->region.base = address;
	int r = bus_add(bar_bus(bar), &bar->region);
	if (r)
		return r;
	for (unsigned int i = 0; i < bar->nr_segments; i++) {
		struct pci_bar_segment *s = &bar->segments[i];
		if (!wants_memslot(bar, s))
			continue;
		s->slot = memslot_add(&bus->vm->memory, address + s->offset, s->host, s->length, s->readonly);
		if (s->slot >= 0)
			continue;
		r = s->slot;
		drop_memslots(bar);
		bus_remove(bar_bus(bar), &bar->region);
		return r;
	}
	return 0;
}

static void try_map(struct pci_bar *bar, uint64_t address)
{
	int r = map(bar, address);

	if (r == 0) {
		bar->mapped = address;
		bar->refused = PCI_UNMAPPED;
		tell_moved(bar, address);
		TRACE(pci_bar_map, "%s at 0x%llx size 0x%llx", bar->name, (unsigned long long)address,
		      (unsigned long long)bar->size);
	} else if (bar->refused != address) {
		bar->refused = address;
		TRACE(pci_bar_map, "%s at 0x%llx size 0x%llx refused: error %d", bar->name, (unsigned long long)address,
		      (unsigned long long)bar->size, -r);
	}
}

static void unmap(struct pci_bar *bar)
{
	tell_moved(bar, PCI_UNMAPPED);
	drop_memslots(bar);
	bus_remove(bar_bus(bar), &bar->region);
	TRACE(pci_bar_unmap, "%s from 0x%llx", bar->name, (unsigned long long)bar->mapped);
	bar->mapped = PCI_UNMAPPED;
}

void pci_bars_unmap(struct pci_function *fn)
{
	for (unsigned int i = 0; i < PCI_BARS; i++) {
		if (fn->bars[i].mapped != PCI_UNMAPPED)
			unmap(&fn->bars[i]);
		fn->bars[i].refused = PCI_UNMAPPED;
	}
}

static void map_wanted(struct pci_function *fn)
{
	for (unsigned int i = 0; i < PCI_BARS; i++) {
		struct pci_bar *bar = &fn->bars[i];
		uint64_t wanted = wanted_address(bar);

		if (wanted == PCI_UNMAPPED)
			bar->refused = PCI_UNMAPPED;
		else if (bar->mapped == PCI_UNMAPPED)
			try_map(bar, wanted);
	}
}

void pci_bars_retry(struct pci_bus *bus)
{
	for (unsigned int i = 0; i < PCI_FUNCTIONS; i++) {
		if (bus->functions[i])
			map_wanted(bus->functions[i]);
	}
	pci_ecam_update(bus);
}

/* All of a function's stale mappings go first: its BARs may trade places. */
void pci_bars_update(struct pci_function *fn)
{
	bool freed = false;

	for (unsigned int i = 0; i < PCI_BARS; i++) {
		struct pci_bar *bar = &fn->bars[i];
		if (bar->mapped != PCI_UNMAPPED && bar->mapped != wanted_address(bar)) {
			unmap(bar);
			freed = true;
		}
	}
	map_wanted(fn);
	if (freed)
		pci_bars_retry(fn->bus);
}

static bool valid_size(uint64_t size, unsigned int flags)
{
	if (!size || (size & (size - 1)))
		return false;
	if (flags == PCI_BAR_IO)
		return size >= 4 && size <= 1 << 16;
	if (flags & ~(unsigned int)(PCI_BAR_MEM64 | PCI_BAR_PREFETCH))
		return false;
	return size >= 16 && size <= (flags & PCI_BAR_MEM64 ? 1ULL << 46 : 1ULL << 31);
}

int pci_add_bar(struct pci_function *fn, unsigned int index, uint64_t size, unsigned int flags)
{
	bool wide = flags & PCI_BAR_MEM64;

	if (!valid_size(size, flags) || index + wide >= PCI_BARS)
		return -EINVAL;
	bool below = index && fn->bars[index - 1].size && (fn->bars[index - 1].flags & PCI_BAR_MEM64);
	if (fn->bars[index].size || below || (wide && fn->bars[index + 1].size))
		return -EEXIST;

	struct pci_bar *bar = &fn->bars[index];
	unsigned int reg = PCI_BAR0 + 4 * index;
	uint64_t writable = ~(size - 1);
	bar->size = size;
	bar->flags = flags;
	snprintf(bar->name, sizeof(bar->name), "%s.bar%u", fn->name, index);
	bar->region = (struct region){ .name = bar->name, .length = size, .ops = &bar_ops, .opaque = bar };
	pci_config_define(fn, reg, 4, flags, (uint32_t)writable & (flags & PCI_BAR_IO ? IO_MASK : MEM_MASK), 0);
	if (wide)
		pci_config_define(fn, reg + 4, 4, 0, writable >> 32, 0);
	return 0;
}

static int add_segment(struct pci_function *fn, unsigned int index, const struct pci_bar_segment *segment)
{
	if (index >= PCI_BARS || !fn->bars[index].size)
		return -EINVAL;
	struct pci_bar *bar = &fn->bars[index];
	if (!segment->length || segment->offset > bar->size || segment->length > bar->size - segment->offset)
		return -EINVAL;
	for (unsigned int i = 0; i < bar->nr_segments; i++) {
		const struct pci_bar_segment *s = &bar->segments[i];
		if (segment->offset < s->offset + s->length && s->offset < segment->offset + segment->length)
			return -EINVAL;
	}
	if (bar->nr_segments == PCI_BAR_SEGMENTS)
		return -ENOSPC;
	bar->segments[bar->nr_segments++] = *segment;
	return 0;
}

int pci_bar_add_registers(struct pci_function *fn, unsigned int index, uint64_t offset, uint64_t length,
			  const struct io_ops *ops, void *opaque)
{
	return add_segment(fn, index,
			   &(struct pci_bar_segment){ offset, length, .ops = ops, .opaque = opaque, .slot = -1 });
}

int pci_bar_add_foreign(struct pci_function *fn, unsigned int index, uint64_t offset, uint64_t length, void *host,
			bool readonly, const struct io_ops *ops, void *opaque)
{
	if (!host || (uintptr_t)host % PAGE || offset % PAGE || length % PAGE)
		return -EINVAL;
	if (index >= PCI_BARS || (fn->bars[index].flags & PCI_BAR_IO))
		return -EINVAL;
	return add_segment(fn, index,
			   &(struct pci_bar_segment){ offset, length, ops, opaque, host, readonly, .slot = -1 });
}

int pci_bar_add_memory(struct pci_function *fn, unsigned int index, uint64_t offset, uint64_t length, void *host,
		       bool readonly)
{
	return pci_bar_add_foreign(fn, index, offset, length, host, readonly, NULL, NULL);
}

/* A memslot that cannot be had again is no loss: accesses go to ops. */
static void set_foreign(struct pci_bar *bar, bool gone)
{
	for (unsigned int i = 0; i < bar->nr_segments; i++) {
		struct pci_bar_segment *s = &bar->segments[i];
		if (!s->host || !s->ops)
			continue;
		if (gone)
			drop_memslot(bar, s);
		else
			s->lost = false;
		if (s->slot < 0 && bar->mapped != PCI_UNMAPPED && wants_memslot(bar, s))
			s->slot = memslot_add(&bar->fn->bus->vm->memory, bar->mapped + s->offset, s->host, s->length,
					      s->readonly);
	}
}

void pci_bar_regain(struct pci_function *fn, unsigned int index)
{
	set_foreign(&fn->bars[index], atomic_load(&fn->gone));
}

void pci_set_gone(struct pci_function *fn, bool gone)
{
	if (gone)
		pci_set_intx(fn, false);
	pthread_mutex_lock(&fn->bus->lock);
	atomic_store(&fn->gone, gone);
	for (unsigned int i = 0; i < PCI_BARS; i++)
		set_foreign(&fn->bars[i], gone);
	msix_refresh(fn);
	pci_msi_refresh(fn);
	pthread_mutex_unlock(&fn->bus->lock);
}
