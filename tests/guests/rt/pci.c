/* SPDX-License-Identifier: MIT */
#include "rt/pci.h"

#include "rt/acpi.h"
#include "rt/io.h"
#include "rt/rt.h"

uint32_t pci_read(unsigned int devfn, unsigned int reg, unsigned int size)
{
	uint16_t port = (uint16_t)(PCI_DATA + reg % 4);

	outl(PCI_ADDRESS, 0x80000000 | devfn << 8 | (reg & 0xfc));
	return size == 1 ? inb(port) : size == 2 ? inw(port) : inl(port);
}

void pci_write(unsigned int devfn, unsigned int reg, unsigned int size, uint32_t value)
{
	uint16_t port = (uint16_t)(PCI_DATA + reg % 4);

	outl(PCI_ADDRESS, 0x80000000 | devfn << 8 | (reg & 0xfc));
	if (size == 1)
		outb(port, (uint8_t)value);
	else if (size == 2)
		outw(port, (uint16_t)value);
	else
		outl(port, value);
}

uint64_t ecam_base(void)
{
	static uint64_t base;
	const struct acpi_header *mcfg;

	if (base)
		return base;
	mcfg = acpi_find("MCFG");
	CHECK(mcfg && mcfg->length >= 44 + 16);
	CHECK_EQ(acpi_field(mcfg, 44 + 10, 1), 0); /* first bus */
	base = acpi_field(mcfg, 44, 8);
	return base;
}

uint32_t ecam_read(unsigned int devfn, unsigned int reg, unsigned int size)
{
	uint64_t address = ecam_base() + (devfn << 12 | reg);

	return size == 1 ? read8(address) : size == 2 ? read16(address) : read32(address);
}

void ecam_write(unsigned int devfn, unsigned int reg, unsigned int size, uint32_t value)
{
	uint64_t address = ecam_base() + (devfn << 12 | reg);

	if (size == 1)
		write8(address, (uint8_t)value);
	else if (size == 2)
		write16(address, (uint16_t)value);
	else
		write32(address, value);
}

unsigned int pci_find(uint16_t vendor, uint16_t device)
{
	for (unsigned int devfn = 0; devfn < 256; devfn += 8)
		if (pci_read(devfn, 0, 4) == ((uint32_t)device << 16 | vendor))
			return devfn;
	return PCI_NONE;
}

unsigned int pci_capability(unsigned int devfn, uint8_t id)
{
	unsigned int at = 0x34;

	if (!(pci_read(devfn, 6, 2) & 0x10))
		return 0;
	for (int i = 0; i < 48; i++) {
		at = pci_read(devfn, at, 1) & 0xfc;
		if (!at || pci_read(devfn, at, 1) == id)
			return at;
		at++;
	}
	return 0;
}

uint64_t pci_bar(unsigned int devfn, unsigned int index)
{
	uint32_t low = pci_read(devfn, 0x10 + 4 * index, 4);

	if (low & 1)
		return low & 0xfffc;
	if ((low & 6) == 4)
		return (low & 0xfffffff0) | (uint64_t)pci_read(devfn, 0x14 + 4 * index, 4) << 32;
	return low & 0xfffffff0;
}
