// SPDX-License-Identifier: MIT
/*
 * The root bus: who answers a configuration access, and where ECAM is.
 *
 * Ports. A dword written to 0xCF8 selects a register; 0xCFC..0xCFF then are its four bytes. Any narrower
 * access to 0xCF8..0xCFB is not for PCI (PCI 3.0, 3.2.2.3.2), and the byte 0xCF9 is the chipset's reset
 * control register (ICH9 datasheet, 13.7.5). Regions of a bus don't overlap, so both live in one region here.
 *
 * With windows->coalesce_address, KVM collects writes to 0xCF8..0xCFB in a ring and the exit of the data
 * access that follows brings them along: one exit an access instead of two. A zone can't leave out the byte
 * at 0xCF9, so a reset request too waits for the next drain: the next exit of any vCPU, or the loop's timer
 * while one runs.
 */
#include <errno.h>
#include <stdlib.h>

#include "devices/pci/internal.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

#define ADDRESS_PORT 0xcf8
#define DATA_PORT    0xcfc

#define ADDRESS_ENABLE 0x80000000u
#define ADDRESS_MASK   0x80fffffcu /* bits that exist */

#define RESET_CPU  0x04 /* rising edge resets */
#define RESET_MODE 0x0a /* bits that read back: hard reset, full reset */

uint32_t pci_config_read(struct pci_bus *bus, unsigned int devfn, unsigned int reg, unsigned int size)
{
	uint32_t value = UINT32_MAX;

	if (devfn >= PCI_FUNCTIONS || size > 4 || reg > PCI_CONFIG_SIZE - size)
		return value;
	pthread_mutex_lock(&bus->lock);
	struct pci_function *fn = bus->functions[devfn];
	bool there = fn && !atomic_load(&fn->gone);
	if (there)
		value = pci_function_read(fn, reg, size);
	TRACE(pci_config_read, "%s %02x.%u reg 0x%03x size %u value 0x%x", fn ? fn->name : "absent", devfn >> 3,
	      devfn & 7, reg, size, value);
	pthread_mutex_unlock(&bus->lock);
	if (there && fn->ops && fn->ops->config_read)
		fn->ops->config_read(fn, reg, size, &value);
	return value;
}

void pci_config_write(struct pci_bus *bus, unsigned int devfn, unsigned int reg, unsigned int size, uint32_t value)
{
	if (devfn >= PCI_FUNCTIONS || size > 4 || reg > PCI_CONFIG_SIZE - size)
		return;
	pthread_mutex_lock(&bus->lock);
	struct pci_function *fn = bus->functions[devfn];
	TRACE(pci_config_write, "%s %02x.%u reg 0x%03x size %u value 0x%x", fn ? fn->name : "absent", devfn >> 3,
	      devfn & 7, reg, size, value);
	bool there = fn && !atomic_load(&fn->gone);
	if (there)
		pci_function_write(fn, reg, size, value);
	pthread_mutex_unlock(&bus->lock);
	if (there && fn->ops && fn->ops->config_written)
		fn->ops->config_written(fn, reg, size, value);
}

static uint64_t address_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct pci_bus *bus = opaque;

	if (offset == 0 && size == 4)
		return atomic_load(&bus->address);
	if (offset == 1 && size == 1)
		return atomic_load(&bus->reset_control);
	return UINT64_MAX;
}

static void address_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct pci_bus *bus = opaque;

	if (offset == 0 && size == 4) {
		atomic_store(&bus->address, value & ADDRESS_MASK);
	} else if (offset == 1 && size == 1) {
		atomic_store(&bus->reset_control, value & RESET_MODE);
		if (value & RESET_CPU)
			vm_reset(bus->vm);
	}
}

static const struct io_ops address_ops = { address_read, address_write };

/* Only bus 0 exists. */
static bool selected(const struct pci_bus *bus, unsigned int *devfn, unsigned int *reg)
{
	uint32_t address = atomic_load(&bus->address);

	*devfn = address >> 8 & 0xff;
	*reg = address & 0xfc;
	return (address & ADDRESS_ENABLE) && !(address >> 16 & 0xff);
}

static uint64_t data_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct pci_bus *bus = opaque;
	unsigned int devfn, reg;

	if (!selected(bus, &devfn, &reg))
		return UINT64_MAX;
	return pci_config_read(bus, devfn, reg + offset, size);
}

static void data_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct pci_bus *bus = opaque;
	unsigned int devfn, reg;

	if (selected(bus, &devfn, &reg))
		pci_config_write(bus, devfn, reg + offset, size, value);
}

static const struct io_ops data_ops = { data_read, data_write };

static uint64_t ecam_read(void *opaque, uint64_t offset, unsigned int size)
{
	unsigned int devfn = offset / PCI_CONFIG_SIZE, reg = offset % PCI_CONFIG_SIZE;

	if (reg + size > PCI_CONFIG_SIZE)
		return UINT64_MAX;
	if (size <= 4)
		return pci_config_read(opaque, devfn, reg, size);
	uint64_t low = pci_config_read(opaque, devfn, reg, 4);
	return low | (uint64_t)pci_config_read(opaque, devfn, reg + 4, 4) << 32;
}

static void ecam_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	unsigned int devfn = offset / PCI_CONFIG_SIZE, reg = offset % PCI_CONFIG_SIZE;

	if (reg + size > PCI_CONFIG_SIZE)
		return;
	pci_config_write(opaque, devfn, reg, size <= 4 ? size : 4, value);
	if (size == 8)
		pci_config_write(opaque, devfn, reg + 4, 4, value >> 32);
}

static const struct io_ops ecam_ops = { ecam_read, ecam_write };

bool pci_overlaps_ram(const struct pci_bus *bus, uint64_t base, uint64_t size)
{
	const struct memory *mem = &bus->vm->memory;
	uint64_t high_end = RAM_HIGH_BASE + (mem->size - mem->low_size);

	if (!size || base + size < base)
		return true;
	return base < mem->low_size || (base < high_end && base + size > RAM_HIGH_BASE);
}

void pci_ecam_update(struct pci_bus *bus)
{
	if (bus->ecam_mapped == bus->ecam_wanted)
		return;
	if (bus->ecam_mapped != PCI_UNMAPPED) {
		bus_remove(&bus->vm->mmio, &bus->ecam_region);
		bus->ecam_mapped = PCI_UNMAPPED;
	}
	if (bus->ecam_wanted == PCI_UNMAPPED || pci_overlaps_ram(bus, bus->ecam_wanted, PCI_ECAM_SIZE))
		return;
	bus->ecam_region.base = bus->ecam_wanted;
	if (bus_add(&bus->vm->mmio, &bus->ecam_region) == 0)
		bus->ecam_mapped = bus->ecam_wanted;
}

void pci_bus_move_ecam(struct pci_bus *bus, uint64_t base)
{
	uint64_t before = bus->ecam_mapped;

	bus->ecam_wanted = base;
	pci_ecam_update(bus);
	if (base != PCI_UNMAPPED && bus->ecam_mapped != base)
		TRACE(pci_bar_map, "ecam at 0x%llx refused: taken", (unsigned long long)base);
	if (before != PCI_UNMAPPED && before != bus->ecam_mapped)
		pci_bars_retry(bus);
}

/* Nothing may be mapped when the first function is reset: addresses of before would stand in the way. */
static void pci_bus_reset(struct device *device)
{
	struct pci_bus *bus = (struct pci_bus *)device;

	atomic_store(&bus->address, 0);
	atomic_store(&bus->reset_control, 0);
	pthread_mutex_lock(&bus->lock);
	for (unsigned int i = 0; i < PCI_FUNCTIONS; i++) {
		if (bus->functions[i])
			pci_function_restore(bus->functions[i]);
	}
	for (unsigned int i = 0; i < PCI_FUNCTIONS; i++) {
		if (bus->functions[i])
			pci_function_reset(bus->functions[i]);
	}
	if (bus->assigned)
		pci_apply_resources(bus);
	pthread_mutex_unlock(&bus->lock);
}

static bool give_up(struct pci_bus *bus, bool sure)
{
	bool any = false;

	for (unsigned int i = 0; i < PCI_FUNCTIONS; i++) {
		struct pci_function *fn = bus->functions[i];
		if (fn && fn->ops && fn->ops->memory_fault)
			any |= fn->ops->memory_fault(fn, sure);
	}
	return any;
}

/* KVM does not say what it could not reach: those who know that they lost memory come first. */
static bool pci_bus_memory_fault(struct device *device)
{
	struct pci_bus *bus = (struct pci_bus *)device;

	pthread_mutex_lock(&bus->lock);
	bool any = give_up(bus, true) || give_up(bus, false);
	pthread_mutex_unlock(&bus->lock);
	return any;
}

static void pci_bus_destroy(struct device *device)
{
	struct pci_bus *bus = (struct pci_bus *)device;

	for (unsigned int i = 0; i < PCI_FUNCTIONS; i++) {
		struct pci_function *fn = bus->functions[i];
		if (!fn)
			continue;
		pci_function_fini(fn);
		if (fn->ops && fn->ops->destroy)
			fn->ops->destroy(fn);
	}
	bus_remove(&bus->vm->pio, &bus->address_region);
	bus_remove(&bus->vm->pio, &bus->data_region);
	if (bus->ecam_mapped != PCI_UNMAPPED)
		bus_remove(&bus->vm->mmio, &bus->ecam_region);
	if (bus->vm->pci == bus)
		bus->vm->pci = NULL;
	pthread_mutex_destroy(&bus->intx_lock);
	pthread_mutex_destroy(&bus->lock);
	free(bus);
}

static const struct device_class pci_bus_class = {
	.name = "pci",
	.reset = pci_bus_reset,
	.destroy = pci_bus_destroy,
	.memory_fault = pci_bus_memory_fault,
	.build_fdt = pci_bus_build_fdt,
};

static int add_regions(struct pci_bus *bus)
{
	struct vm *vm = bus->vm;

	bus->address_region = (struct region){
		.name = "pci-address", .base = ADDRESS_PORT, .length = 4, .ops = &address_ops, .opaque = bus
	};
	bus->data_region =
		(struct region){ .name = "pci-data", .base = DATA_PORT, .length = 4, .ops = &data_ops, .opaque = bus };
	bus->ecam_region =
		(struct region){ .name = "pci-ecam", .length = PCI_ECAM_SIZE, .ops = &ecam_ops, .opaque = bus };
	int r = bus_add(&vm->pio, &bus->address_region);
	if (r)
		return r;
	r = bus_add(&vm->pio, &bus->data_region);
	if (r)
		bus_remove(&vm->pio, &bus->address_region);
	return r;
}

int pci_bus_create(struct vm *vm, const struct pci_windows *windows)
{
	if (windows->ecam % PCI_ECAM_ALIGN)
		return -EINVAL;
	struct pci_bus *bus = calloc(1, sizeof(*bus));
	if (!bus)
		return -ENOMEM;
	bus->vm = vm;
	bus->windows = *windows;
	bus->ecam_wanted = PCI_UNMAPPED;
	bus->ecam_mapped = PCI_UNMAPPED;
	pthread_mutex_init(&bus->lock, NULL);
	pthread_mutex_init(&bus->intx_lock, NULL);
	int r = add_regions(bus);
	if (r) {
		free(bus);
		return r;
	}
	r = pci_host_bridge_create(bus);
	if (!r && windows->lpc)
		r = pci_lpc_create(bus);
	if (!r && windows->ecam && bus->ecam_mapped != windows->ecam)
		r = -EEXIST;
	if (r) {
		pci_bus_destroy(&bus->device);
		return r;
	}
	if (windows->coalesce_address)
		coalesce_zone(&vm->coalesce, true, ADDRESS_PORT, 4);
	vm->pci = bus;
	device_register(vm, &bus->device, &pci_bus_class);
	return 0;
}
