/* SPDX-License-Identifier: MIT */
/* Configuration space, by ports and by ECAM (PCI 3.0, 3.2.2.3.2; PCI Express, 7.2.2). Wants --device pci-test. */
#include "rt/io.h"
#include "rt/pci.h"
#include "rt/rt.h"

#define HOST_BRIDGE 0x29c08086u
#define TEST_DEVICE 0x00051b36u

static unsigned int functions;

static void scan(void)
{
	for (unsigned int devfn = 0; devfn < 256; devfn++) {
		uint32_t ids = pci_read(devfn, 0, 4);

		CHECK_EQ(ecam_read(devfn, 0, 4), ids);
		if (ids == UINT32_MAX)
			continue;
		functions++;
		/* A function of a device needs its function 0. */
		CHECK(devfn % 8 == 0 || pci_read(devfn & 0xf8, 0, 4) != UINT32_MAX);
		for (unsigned int reg = 0; reg < 256; reg += 4)
			CHECK_EQ(ecam_read(devfn, reg, 4), pci_read(devfn, reg, 4));
	}
}

static void widths(unsigned int devfn)
{
	uint32_t dword = pci_read(devfn, 0, 4);

	for (unsigned int i = 0; i < 4; i++) {
		CHECK_EQ(pci_read(devfn, i, 1), dword >> 8 * i & 0xff);
		CHECK_EQ(ecam_read(devfn, i, 1), dword >> 8 * i & 0xff);
	}
	for (unsigned int i = 0; i < 4; i += 2) {
		CHECK_EQ(pci_read(devfn, i, 2), dword >> 8 * i & 0xffff);
		CHECK_EQ(ecam_read(devfn, i, 2), dword >> 8 * i & 0xffff);
	}
	CHECK_EQ(ecam_read(devfn, 1, 2), dword >> 8 & 0xffff); /* not aligned */
	CHECK_EQ(read64(ecam_base() + (devfn << 12)), (uint64_t)ecam_read(devfn, 4, 4) << 32 | dword);
	/* Across a page: KVM makes two of it. */
	CHECK_EQ(ecam_read(devfn, 0xffe, 4), 0xffff0000 | ecam_read(devfn, 0xffe, 2));
}

static void absent(void)
{
	unsigned int devfn = 31 * 8 + 7;

	for (unsigned int size = 1; size <= 4; size *= 2) {
		uint32_t ones = size == 4 ? UINT32_MAX : (1u << 8 * size) - 1;

		for (unsigned int reg = 0; reg < 256; reg += 52) {
			CHECK_EQ(pci_read(devfn, reg, size), ones);
			CHECK_EQ(ecam_read(devfn, reg, size), ones);
		}
		pci_write(devfn, 4, size, 0);
		ecam_write(devfn, 4, size, 0);
		CHECK_EQ(ecam_read(devfn, 0xf00, size), ones);
	}
	/* Another bus. */
	outl(PCI_ADDRESS, 0x80010000);
	CHECK_EQ(inl(PCI_DATA), UINT32_MAX);
	/* Not enabled. */
	outl(PCI_ADDRESS, 0);
	CHECK_EQ(inl(PCI_DATA), UINT32_MAX);
}

static void address_port(void)
{
	outl(PCI_ADDRESS, 0xffffffff);
	CHECK_EQ(inl(PCI_ADDRESS), 0x80fffffc);
	outl(PCI_ADDRESS, 0x80000000);
	/* Only a dword is for PCI. */
	outb(PCI_ADDRESS, 0x55);
	outw(PCI_ADDRESS + 2, 0x5555);
	CHECK_EQ(inl(PCI_ADDRESS), 0x80000000);
	CHECK_EQ(inw(PCI_ADDRESS), 0xffff);
	CHECK_EQ(inl(PCI_DATA), HOST_BRIDGE);
	/* The reset control register keeps its mode bits without resetting. */
	outb(PCI_ADDRESS + 1, 0x02);
	CHECK_EQ(inb(PCI_ADDRESS + 1), 0x02);
	CHECK_EQ(inl(PCI_ADDRESS), 0x80000000);
	outb(PCI_ADDRESS + 1, 0);
}

static void writes(unsigned int devfn)
{
	uint32_t ids = pci_read(devfn, 0, 4);

	pci_write(devfn, 0, 4, 0);
	ecam_write(devfn, 2, 2, 0x1234);
	CHECK_EQ(pci_read(devfn, 0, 4), ids);
	/* Interrupt line: a byte that belongs to the guest; written one way, read the other. */
	pci_write(devfn, 0x3c, 1, 0x5a);
	CHECK_EQ(ecam_read(devfn, 0x3c, 1), 0x5a);
	ecam_write(devfn, 0x3c, 1, 0xa5);
	CHECK_EQ(pci_read(devfn, 0x3c, 1), 0xa5);
}

/* Extended capabilities are in ECAM only. */
static void extended(unsigned int devfn)
{
	uint32_t header = ecam_read(devfn, 0x100, 4);

	CHECK_EQ(header & 0xffff, 0x0b); /* vendor specific */
	ecam_write(devfn, 0x108, 4, 0xdeadbeef);
	CHECK_EQ(ecam_read(devfn, 0x108, 4), 0xdeadbeef);
	CHECK_EQ(ecam_read(devfn, 0x109, 1), 0xbe);
	ecam_write(devfn, 0x109, 1, 0);
	CHECK_EQ(ecam_read(devfn, 0x108, 4), 0xdead00ef);
	CHECK_EQ(ecam_read(devfn, 0xffc, 4), 0);
}

void guest_main(void)
{
	unsigned int device;

	CHECK_EQ(pci_read(0, 0, 4), HOST_BRIDGE);
	CHECK_EQ(pci_read(0, 8, 4) >> 8, 0x060000);
	device = pci_find(TEST_DEVICE & 0xffff, TEST_DEVICE >> 16);
	CHECK(device != PCI_NONE);
	scan();
	CHECK_EQ(functions, 2);
	widths(0);
	widths(device);
	absent();
	address_port();
	writes(device);
	extended(device);
}
