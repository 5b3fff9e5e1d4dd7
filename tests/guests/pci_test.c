/* SPDX-License-Identifier: MIT */
/* BARs, INTx, MSI and MSI-X from the guest's side, on the device of devices/pci/testdev.h (--device pci-test). */
#include "rt/apic.h"
#include "rt/io.h"
#include "rt/pci.h"
#include "rt/rt.h"

#define TESTDEV_ID 0x74696370u
#define MSI_BASE   0xfee00000u
#define INTX	   0x60
#define MSI	   0x68 /* 4 vectors, aligned */
#define MSIX	   0x70
#define LONG	   20000000u /* microseconds in which what is due has come, on a machine that is busy */
#define QUIET	   2000	     /* microseconds in which something that was sent would have arrived */
#define PBA	   0x8000
#define GIB	   (1ULL << 30)
#define MOVED	   0x90000000u /* free in the 32-bit window */

enum { ID = 0x00, NOTIFY = 0x04, LEVEL = 0x08, SCRATCH = 0x0c, COUNTER = 0x10, VECTORS = 0x14, SIZE = 0x18 };
enum { COMMAND = 4, COMMAND_IO = 1, COMMAND_MEMORY = 2, COMMAND_INTX_OFF = 0x400, STATUS_INTX = 8 };
enum { CAP_MSI = 0x05, CAP_MSIX = 0x11 };

static unsigned int devfn;
static uint64_t regs, memory, table;
static uint16_t ports;

static void quiet(void)
{
	rt_delay(QUIET);
	irq_window();
}

static void registers(void)
{
	CHECK_EQ(read32(regs + ID), TESTDEV_ID);
	CHECK_EQ(inl((uint16_t)(ports + ID)), TESTDEV_ID);
	write32(regs + SCRATCH, 0xcafef00d);
	CHECK_EQ(inl((uint16_t)(ports + SCRATCH)), 0xcafef00d);
	write32(regs + COUNTER, 7);
	CHECK_EQ(read32(regs + COUNTER), 7);
	CHECK_EQ(inl((uint16_t)(ports + COUNTER)), 8);
	CHECK_EQ(read8(regs + ID), 0xff);
	CHECK_EQ(read64(regs + ID), UINT64_MAX);
	CHECK_EQ(read32(regs + 0x20), UINT32_MAX);
	CHECK_EQ(read32(regs + 0x1e), UINT32_MAX); /* across the end */
	CHECK_EQ(read32(regs + 0xffc), UINT32_MAX);
}

static uint32_t size_of(unsigned int index)
{
	unsigned int reg = 0x10 + 4 * index;
	uint32_t before = pci_read(devfn, reg, 4), mask;

	pci_write(devfn, reg, 4, UINT32_MAX);
	mask = pci_read(devfn, reg, 4);
	pci_write(devfn, reg, 4, before);
	CHECK_EQ(mask & (before & 1 ? 3 : 15), before & (before & 1 ? 3 : 15));
	return ~(mask & (before & 1 ? 0xfffffffc : 0xfffffff0)) + 1;
}

static void sizing(void)
{
	uint16_t command = (uint16_t)pci_read(devfn, COMMAND, 2);

	pci_write(devfn, COMMAND, 2, command & ~3u);
	CHECK_EQ(read32(regs + ID), UINT32_MAX);
	CHECK_EQ(inl((uint16_t)(ports + ID)), UINT32_MAX);
	CHECK_EQ(size_of(0), 0x1000);
	CHECK_EQ(size_of(1) & 0xffff, 0x20);
	CHECK_EQ(size_of(4), 0x10000);
	CHECK_EQ(size_of(5), 0); /* not implemented */
	pci_write(devfn, 0x1c, 4, UINT32_MAX);
	CHECK_EQ(pci_read(devfn, 0x1c, 4), UINT32_MAX); /* the upper half of a 1 MiB BAR is all address */
	pci_write(devfn, 0x1c, 4, (uint32_t)(memory >> 32));
	pci_write(devfn, COMMAND, 2, command);
	CHECK_EQ(read32(regs + ID), TESTDEV_ID);
	/* The guest sizes with decoding on, too. */
	CHECK_EQ(size_of(0), 0x1000);
	CHECK_EQ(read32(regs + ID), TESTDEV_ID);
}

static void moving(void)
{
	pci_write(devfn, 0x10, 4, MOVED);
	CHECK_EQ(read32(MOVED + ID), TESTDEV_ID);
	CHECK_EQ(read32(regs + ID), UINT32_MAX);
	/* Onto RAM, onto ECAM: refused, and both stay what they are. */
	pci_write(devfn, 0x10, 4, 0x100000);
	CHECK_EQ(read32(MOVED + ID), UINT32_MAX);
	CHECK(read32(0x100000) != TESTDEV_ID);
	pci_write(devfn, 0x10, 4, (uint32_t)ecam_base());
	CHECK_EQ(ecam_read(devfn, 0, 4), 0x00051b36);
	pci_write(devfn, 0x10, 4, (uint32_t)regs);
	CHECK_EQ(read32(regs + ID), TESTDEV_ID);
	pci_write(devfn, 0x14, 4, 0xd000);
	CHECK_EQ(inl(0xd000 + ID), TESTDEV_ID);
	CHECK_EQ(inl((uint16_t)(ports + ID)), UINT32_MAX);
	pci_write(devfn, 0x14, 4, ports);
	CHECK_EQ(inl((uint16_t)(ports + ID)), TESTDEV_ID);
}

/* Plain memory: no exit, so the statistics must not show these accesses. */
static void memory_bar(void)
{
	uint64_t size = read32(regs + SIZE);

	rt_map_gib((unsigned int)(memory / GIB));
	CHECK_EQ(read64(memory), 0);
	for (uint64_t at = 0; at < size; at += 4096)
		write64(memory + at, at ^ 0x1122334455667788);
	for (uint64_t at = 0; at < size; at += 4096)
		CHECK_EQ(read64(memory + at), at ^ 0x1122334455667788);
	/* It moves with its contents, to below 4 GiB. */
	pci_write(devfn, 0x18, 4, MOVED);
	pci_write(devfn, 0x1c, 4, 0);
	CHECK_EQ(read64(MOVED + 4096), 4096 ^ 0x1122334455667788);
	CHECK_EQ(read64(memory), UINT64_MAX);
	pci_write(devfn, 0x1c, 4, (uint32_t)(memory >> 32));
	pci_write(devfn, 0x18, 4, (uint32_t)memory);
	CHECK_EQ(read64(memory + 4096), 4096 ^ 0x1122334455667788);
	CHECK_EQ(read64(MOVED), UINT64_MAX);
}

static bool exact = true; /* whether the number of level-triggered interrupts means something: see apic.h */

static void intx_irq(struct rt_frame *frame)
{
	(void)frame;
	exact = exact && lapic_in_service(INTX);
	write32(regs + LEVEL, 0);
	lapic_eoi();
}

/* Nothing may come now. */
static void no_intx(void)
{
	uint32_t before;

	irq_window();
	before = rt_interrupts[INTX];
	quiet();
	CHECK(!exact || rt_interrupts[INTX] == before);
}

static void intx(void)
{
	unsigned int pin = 12 + devfn / 8 % 4;

	CHECK_EQ(pci_read(devfn, 0x3d, 1), 1);
	rt_handlers[INTX] = intx_irq;
	ioapic_route(pin, INTX, IOAPIC_LEVEL, lapic_id());
	for (uint32_t i = 1; i <= 3; i++) {
		CHECK(!(pci_read(devfn, 6, 2) & STATUS_INTX));
		write32(regs + LEVEL, 1);
		CHECK(pci_read(devfn, 6, 2) & STATUS_INTX);
		CHECK(rt_wait(INTX, i, LONG));
		CHECK_EQ(read32(regs + LEVEL), 0);
	}
	no_intx();
	CHECK(!exact || rt_interrupts[INTX] == 3);
	/* Disabled in the command register: the status says so, the pin does not move. */
	pci_write(devfn, COMMAND, 2, pci_read(devfn, COMMAND, 2) | COMMAND_INTX_OFF);
	write32(regs + LEVEL, 1);
	quiet();
	CHECK_EQ(read32(regs + LEVEL), 1); /* no handler was here */
	CHECK(pci_read(devfn, 6, 2) & STATUS_INTX);
	pci_write(devfn, COMMAND, 2, pci_read(devfn, COMMAND, 2) & ~COMMAND_INTX_OFF);
	CHECK(rt_wait(INTX, rt_interrupts[INTX] + 1, LONG));
	CHECK_EQ(read32(regs + LEVEL), 0);
	ioapic_route(pin, INTX, IOAPIC_MASKED, lapic_id());
}

static void msi(void)
{
	unsigned int cap = pci_capability(devfn, CAP_MSI);

	CHECK(cap);
	CHECK_EQ(pci_read(devfn, cap + 2, 2) & 0x18e, 0x184); /* 64-bit, maskable, 4 vectors */
	pci_write(devfn, cap + 4, 4, MSI_BASE | lapic_id() << 12);
	pci_write(devfn, cap + 8, 4, 0);
	pci_write(devfn, cap + 12, 2, MSI);
	write32(regs + NOTIFY, 0); /* not enabled: lost */
	quiet();
	CHECK_EQ(rt_interrupts[MSI], 0);
	pci_write(devfn, cap + 2, 2, 0x21); /* enabled, 4 vectors */
	for (uint32_t i = 0; i < 4; i++) {
		write32(regs + NOTIFY, i);
		CHECK(rt_wait((uint8_t)(MSI + i), 1, LONG));
	}
	pci_write(devfn, cap + 16, 4, 1 << 2); /* mask the third */
	write32(regs + NOTIFY, 2);
	quiet();
	CHECK_EQ(rt_interrupts[MSI + 2], 1);
	CHECK_EQ(pci_read(devfn, cap + 20, 4), 1 << 2);
	pci_write(devfn, cap + 16, 4, 0);
	CHECK(rt_wait(MSI + 2, 2, LONG));
	CHECK_EQ(pci_read(devfn, cap + 20, 4), 0);
	pci_write(devfn, cap + 2, 2, 0);
}

static void set_vector(uint32_t i, uint8_t vector, bool mask)
{
	write32(table + 16 * i, MSI_BASE | lapic_id() << 12);
	write32(table + 16 * i + 4, 0);
	write32(table + 16 * i + 8, vector);
	write32(table + 16 * i + 12, mask);
}

static void msix(void)
{
	unsigned int cap = pci_capability(devfn, CAP_MSIX);
	uint32_t count;

	CHECK(cap);
	count = (pci_read(devfn, cap + 2, 2) & 0x7ff) + 1;
	CHECK_EQ(count, read32(regs + VECTORS));
	CHECK_EQ(pci_read(devfn, cap + 4, 4), 4); /* table: BAR4, offset 0 */
	CHECK_EQ(pci_read(devfn, cap + 8, 4), PBA | 4);
	for (uint32_t i = 0; i < count; i++)
		CHECK_EQ(read32(table + 16 * i + 12), 1); /* masked after reset */
	for (uint32_t i = 0; i < count; i++)
		set_vector(i, (uint8_t)(MSIX + i), false);
	CHECK_EQ(read64(table + 24), (uint64_t)(MSIX + 1)); /* a quadword: data and control of vector 1 */
	pci_write(devfn, cap + 2, 2, 0x8000);
	for (uint32_t i = 0; i < count; i++) {
		write32(regs + NOTIFY, i);
		CHECK(rt_wait((uint8_t)(MSIX + i), 1, LONG));
	}
	/* Masked: pending, then delivered once, however often it was sent. */
	write32(table + 16 * 3 + 12, 1);
	write32(regs + NOTIFY, 3);
	write32(regs + NOTIFY, 3);
	quiet();
	CHECK_EQ(rt_interrupts[MSIX + 3], 1);
	CHECK_EQ(read64(table + PBA), 1 << 3);
	write64(table + PBA, 0); /* read-only */
	CHECK_EQ(read32(table + PBA), 1 << 3);
	write32(table + 16 * 3 + 12, 0);
	CHECK(rt_wait(MSIX + 3, 2, LONG));
	quiet();
	CHECK_EQ(rt_interrupts[MSIX + 3], 2);
	CHECK_EQ(read32(table + PBA), 0);
	/* The whole function masked. */
	pci_write(devfn, cap + 2, 2, 0xc000);
	write32(regs + NOTIFY, 5);
	quiet();
	CHECK_EQ(rt_interrupts[MSIX + 5], 1);
	CHECK_EQ(read32(table + PBA), 1 << 5);
	pci_write(devfn, cap + 2, 2, 0x8000);
	CHECK(rt_wait(MSIX + 5, 2, LONG));
	/* A new message takes effect. */
	set_vector(0, MSIX + 9, false);
	write32(regs + NOTIFY, 0);
	CHECK(rt_wait(MSIX + 9, 1, LONG));
	CHECK_EQ(rt_interrupts[MSIX], 1);
	/* Nonsense is ignored. */
	write32(regs + NOTIFY, count);
	write32(regs + NOTIFY, UINT32_MAX);
	pci_write(devfn, cap + 2, 2, 0);
	CHECK_EQ(read32(regs + ID), TESTDEV_ID);
}

void guest_main(void)
{
	devfn = pci_find(0x1b36, 0x0005);
	CHECK(devfn != PCI_NONE);
	CHECK_EQ(pci_read(devfn, COMMAND, 2) & 3, COMMAND_IO | COMMAND_MEMORY);
	regs = pci_bar(devfn, 0);
	ports = (uint16_t)pci_bar(devfn, 1);
	memory = pci_bar(devfn, 2);
	table = pci_bar(devfn, 4);
	pic_off();
	lapic_enable(false);
	registers();
	sizing();
	moving();
	memory_bar();
	intx();
	msi();
	msix();
}
