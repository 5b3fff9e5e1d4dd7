// SPDX-License-Identifier: MIT
/*
 * A function's configuration space: four arrays of 4096 bytes say what each byte holds now, holds after
 * reset, which bits a guest may change and which it clears by writing 1. What has an effect beyond its value
 * (BARs, the command register, capabilities) is brought in line after the bytes changed, whatever the width
 * of the access was.
 */
#include <errno.h>
#include <string.h>

#include "devices/pci/internal.h"
#include "devices/pci/msi.h"
#include "devices/pci/msix.h"

static bool overlaps(unsigned int reg, unsigned int size, unsigned int other, unsigned int length)
{
	return reg < other + length && other < reg + size;
}

static uint32_t get_bytes(const uint8_t *bytes, unsigned int size)
{
	uint32_t value = 0;

	for (unsigned int i = 0; i < size; i++)
		value |= (uint32_t)bytes[i] << (8 * i);
	return value;
}

static void put_bytes(uint8_t *bytes, unsigned int size, uint32_t value)
{
	for (unsigned int i = 0; i < size; i++)
		bytes[i] = value >> (8 * i);
}

uint32_t pci_config_get(const struct pci_function *fn, unsigned int reg, unsigned int size)
{
	return get_bytes(&fn->config[reg], size);
}

void pci_config_set(struct pci_function *fn, unsigned int reg, unsigned int size, uint32_t value)
{
	put_bytes(&fn->config[reg], size, value);
}

void pci_config_define(struct pci_function *fn, unsigned int reg, unsigned int size, uint32_t value, uint32_t writable,
		       uint32_t clear)
{
	put_bytes(&fn->config[reg], size, value);
	put_bytes(&fn->initial[reg], size, value);
	put_bytes(&fn->writable[reg], size, writable);
	put_bytes(&fn->clear[reg], size, clear);
}

int pci_config_hook(struct pci_function *fn, const struct pci_config_hook *hook)
{
	if (fn->nr_hooks == PCI_CONFIG_HOOKS)
		return -ENOSPC;
	fn->hooks[fn->nr_hooks++] = *hook;
	return 0;
}

uint32_t pci_function_read(struct pci_function *fn, unsigned int reg, unsigned int size)
{
	if (overlaps(reg, size, PCI_STATUS, 1))
		pci_intx_status(fn);
	for (unsigned int i = 0; i < fn->nr_hooks; i++) {
		const struct pci_config_hook *hook = &fn->hooks[i];
		if (hook->reading && overlaps(reg, size, hook->offset, hook->length))
			hook->reading(fn, hook->opaque);
	}
	return pci_config_get(fn, reg, size);
}

void pci_function_write(struct pci_function *fn, unsigned int reg, unsigned int size, uint32_t value)
{
	for (unsigned int i = 0; i < size; i++) {
		uint8_t byte = value >> (8 * i), writable = fn->writable[reg + i];
		uint8_t changed = (fn->config[reg + i] & ~writable) | (byte & writable);

		fn->config[reg + i] = changed & ~(byte & fn->clear[reg + i]);
	}
	if (overlaps(reg, size, PCI_COMMAND, 2))
		pci_intx_command(fn);
	if (overlaps(reg, size, PCI_COMMAND, 2) || overlaps(reg, size, PCI_BAR0, 4 * PCI_BARS))
		pci_bars_update(fn);
	for (unsigned int i = 0; i < fn->nr_hooks; i++) {
		const struct pci_config_hook *hook = &fn->hooks[i];
		if (hook->written && overlaps(reg, size, hook->offset, hook->length))
			hook->written(fn, hook->opaque);
	}
}

void pci_function_restore(struct pci_function *fn)
{
	pci_bars_unmap(fn);
	memcpy(fn->config, fn->initial, sizeof(fn->config));
}

void pci_function_reset(struct pci_function *fn)
{
	pci_set_intx(fn, false);
	pci_intx_command(fn);
	for (unsigned int i = 0; i < fn->nr_hooks; i++) {
		if (fn->hooks[i].written)
			fn->hooks[i].written(fn, fn->hooks[i].opaque);
	}
	if (fn->msix)
		msix_reset(fn);
	if (fn->ops && fn->ops->reset)
		fn->ops->reset(fn);
}

int pci_add_capability(struct pci_function *fn, uint8_t id, unsigned int size)
{
	unsigned int offset = fn->next_cap;

	if (size < 2 || size > PCI_EXTENDED_FIRST - offset)
		return -ENOSPC;
	fn->next_cap = (offset + size + 3) & ~3u;
	pci_config_define(fn, offset, 2, id, 0, 0);
	pci_config_define(fn, fn->last_cap ? fn->last_cap + 1 : PCI_CAPABILITIES, 1, offset, 0, 0);
	fn->last_cap = offset;
	uint32_t status = pci_config_get(fn, PCI_STATUS, 2) | PCI_STATUS_CAPABILITIES;
	pci_config_define(fn, PCI_STATUS, 2, status, 0, get_bytes(&fn->clear[PCI_STATUS], 2));
	return offset;
}

int pci_add_ext_capability(struct pci_function *fn, uint16_t id, unsigned int version, unsigned int size)
{
	unsigned int offset = fn->next_ext;

	if (size < 4 || size > PCI_CONFIG_SIZE - offset)
		return -ENOSPC;
	fn->next_ext = (offset + size + 3) & ~3u;
	pci_config_define(fn, offset, 4, id | (version & 0xf) << 16, 0, 0);
	if (fn->last_ext) {
		uint32_t header = pci_config_get(fn, fn->last_ext, 4) & 0xfffff;
		pci_config_define(fn, fn->last_ext, 4, header | offset << 20, 0, 0);
	}
	fn->last_ext = offset;
	return offset;
}

/* PCI Express 4.0, 7.5.3: capability version 2, device/port type 9; role-based error reporting is mandatory.
 */
int pci_add_express(struct pci_function *fn)
{
	int offset = pci_add_capability(fn, PCI_CAP_EXPRESS, 0x3c);

	if (offset < 0)
		return offset;
	pci_config_define(fn, offset + 2, 2, 2 | 9 << 4, 0, 0);
	pci_config_define(fn, offset + 4, 4, 0x8000, 0, 0);
	pci_config_define(fn, offset + 8, 2, 0x2810, 0x7fff, 0);
	pci_config_define(fn, offset + 10, 2, 0, 0, 0x000f);
	return 0;
}

/* PCI 3.0, 6.2.1: bit 7 tells the guest to look beyond function 0. */
static void mark_multifunction(struct pci_bus *bus, unsigned int slot)
{
	unsigned int present = 0;

	for (unsigned int i = 0; i < 8; i++)
		present += bus->functions[slot * 8 + i] != NULL;
	for (unsigned int i = 0; i < 8; i++) {
		struct pci_function *fn = bus->functions[slot * 8 + i];
		if (fn)
			pci_config_define(fn, PCI_HEADER_TYPE, 1, present > 1 ? PCI_HEADER_MULTIFUNCTION : 0, 0, 0);
	}
}

static int find_devfn(const struct pci_bus *bus, int devfn)
{
	if (devfn == PCI_DEVFN_AUTO) {
		for (devfn = PCI_DEVFN(1, 0); devfn < PCI_FUNCTIONS; devfn += 8) {
			if (!bus->functions[devfn])
				return devfn;
		}
		return -ENOSPC;
	}
	if (devfn < 0 || devfn >= PCI_FUNCTIONS)
		return -EINVAL;
	return bus->functions[devfn] ? -EEXIST : devfn;
}

static void define_header(struct pci_function *fn, const struct pci_ids *ids)
{
	const uint32_t command = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE |
				 0x0140; /* parity and SERR# enable: kept, no effect */

	pci_config_define(fn, PCI_VENDOR_ID, 2, ids->vendor, 0, 0);
	pci_config_define(fn, PCI_DEVICE_ID, 2, ids->device, 0, 0);
	pci_config_define(fn, PCI_COMMAND, 2, 0, command, 0);
	pci_config_define(fn, PCI_STATUS, 2, 0, 0, 0xf900);
	pci_config_define(fn, PCI_REVISION, 4, ids->class_code << 8 | ids->revision, 0, 0);
	pci_config_define(fn, PCI_CACHE_LINE, 1, 0, 0xff, 0);
	pci_config_define(fn, PCI_SUBSYSTEM_VENDOR, 2, ids->subsystem_vendor, 0, 0);
	pci_config_define(fn, PCI_SUBSYSTEM, 2, ids->subsystem, 0, 0);
	pci_config_define(fn, PCI_INTERRUPT_LINE, 1, 0, 0xff, 0);
}

int pci_function_init(struct pci_function *fn, struct pci_bus *bus, int devfn, const char *name,
		      const struct pci_ids *ids, const struct pci_function_ops *ops)
{
	devfn = find_devfn(bus, devfn);
	if (devfn < 0)
		return devfn;
	fn->bus = bus;
	fn->name = name;
	fn->ops = ops;
	fn->devfn = devfn;
	fn->next_cap = PCI_CAPABILITY_FIRST;
	fn->next_ext = PCI_EXTENDED_FIRST;
	for (unsigned int i = 0; i < PCI_BARS; i++) {
		fn->bars[i].fn = fn;
		fn->bars[i].index = i;
		fn->bars[i].mapped = PCI_UNMAPPED;
		fn->bars[i].refused = PCI_UNMAPPED;
		fn->bars[i].assigned = PCI_UNMAPPED;
	}
	define_header(fn, ids);
	bus->functions[devfn] = fn;
	mark_multifunction(bus, devfn / 8);
	return 0;
}

void pci_function_fini(struct pci_function *fn)
{
	struct pci_bus *bus = fn->bus;

	pci_set_intx(fn, false);
	pthread_mutex_lock(&bus->lock);
	pci_bars_unmap(fn);
	bus->functions[fn->devfn] = NULL;
	mark_multifunction(bus, fn->devfn / 8);
	pthread_mutex_unlock(&bus->lock);
	msix_destroy(fn);
	pci_msi_destroy(fn);
}
