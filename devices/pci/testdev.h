/* SPDX-License-Identifier: MIT */
/*
 * A PCI device for the tests: it proves BARs, INTx, MSI and MSI-X from the guest's side and does nothing
 * else. 1b36:0005, class 0xff0000, interrupt pin INTA, a PCI Express endpoint.
 *
 * BAR0  32-bit memory, 4 KiB: registers. BAR1  I/O, 32 bytes: the same registers.
 *   0x00 ID       r   TESTDEV_ID
 *   0x04 NOTIFY   w   vector number: an event on that vector of MSI-X if enabled, else of MSI
 *   0x08 INTX     rw  bit 0: level of INTx
 *   0x0c SCRATCH  rw
 *   0x10 COUNTER  rw  each read returns it and adds 1
 *   0x14 VECTORS  r   number of MSI-X vectors
 *   0x18 SIZE     r   bytes of BAR2, low; 0x1c high
 *   All 4 bytes wide and aligned; every other access reads all ones and is dropped.
 * BAR2  64-bit prefetchable memory of the chosen size; zero after reset.
 * BAR4  32-bit memory, 64 KiB: MSI-X table at 0, PBA at 0x8000.
 *
 * Extended configuration space: a vendor-specific capability of 12 bytes whose third dword is a read-write
 * scratch.
 */
#ifndef DEVICES_PCI_TESTDEV_H
#define DEVICES_PCI_TESTDEV_H

#include <stdint.h>

#define TESTDEV_VENDOR 0x1b36
#define TESTDEV_DEVICE 0x0005
#define TESTDEV_ID     0x74696370u /* "pcit" */

enum {
	TESTDEV_REG_ID = 0x00,
	TESTDEV_REG_NOTIFY = 0x04,
	TESTDEV_REG_INTX = 0x08,
	TESTDEV_REG_SCRATCH = 0x0c,
	TESTDEV_REG_COUNTER = 0x10,
	TESTDEV_REG_VECTORS = 0x14,
	TESTDEV_REG_SIZE = 0x18,
	TESTDEV_REG_SIZE_HIGH = 0x1c,
	TESTDEV_REGS = 0x20,
	TESTDEV_PBA = 0x8000,
};

struct pci_bus;

/*
 * Creates one in the first free slot. memory: bytes of BAR2, a power of two from 4 KiB on; vectors: 1..2048
 * of MSI-X (MSI has 4). The bus destroys it. 0 or -errno; prints nothing.
 */
int pci_testdev_create(struct pci_bus *bus, uint64_t memory, unsigned int vectors);

#endif
