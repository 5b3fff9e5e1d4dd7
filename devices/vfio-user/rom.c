/* SPDX-License-Identifier: MIT */
/* The option ROM: read from the server once, and shown to the guest as a read-only memslot where it wants to have it.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "devices/vfio-user/internal.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

#define ROM_REGISTER 0x30
#define ROM_ENABLE   1u
#define ROM_MASK     0xfffff800u

static uint64_t rom_read(void *opaque, uint64_t offset, unsigned int size)
{
	const struct vfu_device *d = opaque;
	uint64_t value = 0;

	memcpy(&value, d->rom + offset, size);
	return value;
}

static const struct io_ops rom_ops = { rom_read, NULL };

static void rom_unmap(struct vfu_device *d)
{
	if (d->rom_mapped == PCI_UNMAPPED)
		return;
	if (d->rom_slot >= 0)
		memslot_del(&d->vm->memory, d->rom_slot);
	bus_remove(&d->vm->mmio, &d->rom_region);
	d->rom_mapped = PCI_UNMAPPED;
	d->rom_slot = -1;
}

/* Under bus->lock, after the register or the command register has changed. */
static void rom_written(struct pci_function *fn, void *opaque)
{
	struct vfu_device *d = opaque;
	uint32_t value = pci_config_get(fn, ROM_REGISTER, 4);
	uint64_t base = value & ROM_MASK;
	bool on = (value & ROM_ENABLE) && (pci_config_get(fn, PCI_COMMAND, 2) & PCI_COMMAND_MEMORY);

	if (!on || !base || base >= RAM_HIGH_BASE || base < d->vm->memory.low_size ||
	    base == (ROM_MASK & ~(d->rom_size - 1)))
		base = PCI_UNMAPPED;
	if (base == d->rom_mapped)
		return;
	rom_unmap(d);
	if (base == PCI_UNMAPPED || base + d->rom_size > RAM_HIGH_BASE)
		return;
	d->rom_region.base = base;
	if (bus_add(&d->vm->mmio, &d->rom_region))
		return;
	d->rom_mapped = base;
	if (d->rom_size % VFU_PAGE == 0 && base % VFU_PAGE == 0)
		d->rom_slot = memslot_add(&d->vm->memory, base, d->rom, d->rom_size, true);
	TRACE(pci_bar_map, "%s.rom at 0x%llx size 0x%llx", d->name, (unsigned long long)base,
	      (unsigned long long)d->rom_size);
}

int vfu_rom_create(struct vfu_device *d)
{
	uint64_t size = d->info->regions[VFU_REGION_ROM].size;
	int ret;

	d->rom_mapped = PCI_UNMAPPED;
	d->rom_slot = -1;
	if (!d->info->rom)
		return 0;
	d->rom_size = 2048; /* the smallest that the register can express */
	while (d->rom_size < size)
		d->rom_size <<= 1;
	d->rom = mmap(NULL, d->rom_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (d->rom == MAP_FAILED) {
		d->rom = NULL;
		return -ENOMEM;
	}
	memset(d->rom + size, 0xff, d->rom_size - size);
	memcpy(d->rom, d->info->rom, size);
	d->rom_region = (struct region){ .name = d->name, .length = d->rom_size, .ops = &rom_ops, .opaque = d };
	pci_config_define(&d->fn, ROM_REGISTER, 4, 0, (ROM_MASK & ~(uint32_t)(d->rom_size - 1)) | ROM_ENABLE, 0);
	ret = pci_config_hook(&d->fn,
			      &(struct pci_config_hook){ ROM_REGISTER, 4, .written = rom_written, .opaque = d });
	return ret ? ret
		   : pci_config_hook(&d->fn,
				     &(struct pci_config_hook){ PCI_COMMAND, 2, .written = rom_written, .opaque = d });
}

void vfu_rom_destroy(struct vfu_device *d)
{
	if (!d->rom)
		return;
	rom_unmap(d);
	munmap(d->rom, d->rom_size);
}
