/* SPDX-License-Identifier: MIT */
/* PCI configuration space of bus 0, both ways. */
#ifndef RT_PCI_H
#define RT_PCI_H

#include <stdint.h>

#define PCI_ADDRESS 0xcf8
#define PCI_DATA    0xcfc
#define PCI_NONE    0x100

/* By the ports; reg 0..255, size 1, 2 or 4, inside a dword. */
uint32_t pci_read(unsigned int devfn, unsigned int reg, unsigned int size);
void pci_write(unsigned int devfn, unsigned int reg, unsigned int size, uint32_t value);

/* Base of ECAM, from the MCFG. */
uint64_t ecam_base(void);
uint32_t ecam_read(unsigned int devfn, unsigned int reg, unsigned int size);
void ecam_write(unsigned int devfn, unsigned int reg, unsigned int size, uint32_t value);

/* The first function with these ids, or PCI_NONE. */
unsigned int pci_find(uint16_t vendor, uint16_t device);
/* Offset of a capability, 0 if there is none. */
unsigned int pci_capability(unsigned int devfn, uint8_t id);
/* Address that a BAR holds; 64-bit ones whole. */
uint64_t pci_bar(unsigned int devfn, unsigned int index);

#endif
