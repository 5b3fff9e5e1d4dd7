/* SPDX-License-Identifier: MIT */
/*
 * Random accesses of every width, single and repeated, to every register there is. The machine must still work
 * afterwards. What would end or reset the run by design is left out. Arguments: seed=N, rounds=N. Wants --device
 * pci-test.
 */
#include "rt/io.h"
#include "rt/pci.h"
#include "rt/rt.h"

#define ECAM 0xe0000000ULL

static const struct {
	uint16_t base, length;
} port_ranges[] = {
	{ 0x20, 2 },  { 0xa0, 2 },  { 0x40, 4 },  { 0x60, 1 },	  { 0x70, 2 },	{ 0x80, 4 },
	{ 0x92, 1 },  { 0x64, 1 },  { 0x3f8, 8 }, { 0x4d0, 2 },	  { 0x505, 1 }, { 0x600, 12 },
	{ 0xcf8, 8 }, { 0xcfc, 4 }, { 0xf5, 3 },  { 0x8000, 64 },
};

static uint64_t state;
static uint8_t buffer[8192] __attribute__((aligned(4096)));

static uint32_t pick(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 11) % below;
}

static uint32_t value(void)
{
	switch (pick(4)) {
	case 0:
		return 0;
	case 1:
		return UINT32_MAX;
	default:
		return pick(UINT32_MAX);
	}
}

/* Whether a byte of the access falls on this port. */
static bool covers(uint16_t port, unsigned int size, uint16_t what)
{
	return port <= what && port + size > what;
}

/* Writes that reset the machine, end the run or say that the guest panicked. */
static bool forbidden(uint16_t port, unsigned int size)
{
	return covers(port, size, 0x64) || covers(port, size, 0x92) || covers(port, size, 0xf4) ||
	       covers(port, size, 0x505) || covers(port, size, 0x605) || (port == 0xcf9 && size == 1);
}

static void single(uint16_t port, unsigned int size, bool out)
{
	uint32_t v = value();

	if (out && size == 1)
		outb(port, (uint8_t)v);
	else if (out && size == 2)
		outw(port, (uint16_t)v);
	else if (out)
		outl(port, v);
	else if (size == 1)
		inb(port);
	else if (size == 2)
		inw(port);
	else
		inl(port);
}

static void repeated(uint16_t port, unsigned int size, bool out)
{
	uint64_t count = pick(200);
	uint8_t *at = buffer + pick(sizeof(buffer) - 800); /* often across a page */

	if (out && size == 1)
		__asm__ volatile("rep outsb" : "+S"(at), "+c"(count) : "d"(port) : "memory");
	else if (out && size == 2)
		__asm__ volatile("rep outsw" : "+S"(at), "+c"(count) : "d"(port) : "memory");
	else if (out)
		__asm__ volatile("rep outsl" : "+S"(at), "+c"(count) : "d"(port) : "memory");
	else if (size == 1)
		__asm__ volatile("rep insb" : "+D"(at), "+c"(count) : "d"(port) : "memory");
	else if (size == 2)
		__asm__ volatile("rep insw" : "+D"(at), "+c"(count) : "d"(port) : "memory");
	else
		__asm__ volatile("rep insl" : "+D"(at), "+c"(count) : "d"(port) : "memory");
}

static void port_round(void)
{
	unsigned int i = pick(sizeof(port_ranges) / sizeof(port_ranges[0])), size = 1u << pick(3);
	uint16_t port = (uint16_t)(port_ranges[i].base + pick(port_ranges[i].length));
	bool out = pick(2);

	if (out && forbidden(port, size))
		return;
	if (pick(16) == 0)
		repeated(port, size, out);
	else
		single(port, size, out);
}

static void memory_round(uint64_t base, uint32_t length)
{
	uint64_t at = base + pick(length);

	switch (pick(8)) {
	case 0:
		read8(at);
		break;
	case 1:
		read16(at);
		break;
	case 2:
		read32(at);
		break;
	case 3:
		read64(at);
		break;
	case 4:
		write8(at, (uint8_t)value());
		break;
	case 5:
		write16(at, (uint16_t)value());
		break;
	case 6:
		write32(at, value());
		break;
	default:
		write64(at, (uint64_t)value() << 32 | value());
	}
}

/* The test device's configuration: BARs that jump about, interrupts that come and go. */
static void config_round(unsigned int devfn)
{
	unsigned int reg = pick(4) ? pick(0x100) : pick(0x1000);
	uint64_t at = ECAM + (devfn << 12) + reg;

	if (pick(2))
		write32(at & ~3ULL, value());
	else
		write8(at, (uint8_t)value());
}

void guest_main(void)
{
	uint64_t rounds = rt_arg_number("rounds", 2000);
	unsigned int device = pci_find(0x1b36, 5);
	uint64_t registers, table;

	CHECK(device != PCI_NONE);
	registers = pci_bar(device, 0);
	table = pci_bar(device, 4);
	state = rt_arg_number("seed", 1) * 0x9e3779b97f4a7c15 | 1;
	for (uint64_t i = 0; i < rounds; i++) {
		switch (pick(8)) {
		case 0:
			config_round(device);
			break;
		case 1:
			memory_round(registers, 0x1000);
			break;
		case 2:
			memory_round(table + (pick(2) ? 0x8000 : 0), 0x90);
			break;
		case 3:
			memory_round(ECAM, 0x100010);
			break;
		default:
			port_round();
		}
		if (pick(200) == 0) { /* back to where the rounds above look for it */
			pci_write(device, 4, 2, 7);
			pci_write(device, 0x10, 4, (uint32_t)registers);
			pci_write(device, 0x20, 4, (uint32_t)table);
		}
	}
	CHECK_EQ(pci_read(0, 0, 4), 0x29c08086);
	CHECK_EQ(pci_read(device, 0, 4), 0x00051b36);
	outb(0x3f8 + 3, 3);
	outb(0x3f8 + 4, 0);
	rt_print("survived\n");
}
