/* SPDX-License-Identifier: MIT */
/* The device of tests/servers/vfio-user.c, from the guest's side. test=NAME on the command line picks what is done. */
#include "../servers/vfio_user_test.h"
#include "rt/apic.h"
#include "rt/io.h"
#include "rt/pci.h"
#include "rt/rt.h"

#define MSI_BASE   0xfee00000u
#define INTX	   0x60
#define MSI	   0x68
#define MSIX	   0x70
#define LONG	   60000000u /* microseconds: what comes, comes earlier, however slow the machine is */
#define QUIET	   2000
#define GIB	   (1ULL << 30)
#define BUFFER	   0x1000000u /* RAM that nobody uses */
#define CAP_MSI	   0x05
#define CAP_MSIX   0x11
#define CAP_VENDOR 9

enum { COMMAND = 4, COMMAND_MASTER = 4, COMMAND_INTX_OFF = 0x400, STATUS_INTX = 8 };

static unsigned int devfn;
static uint64_t regs, memory, bells;
static uint16_t ports;

static uint32_t get(unsigned int at)
{
	return read32(regs + at);
}

static void put(unsigned int at, uint32_t value)
{
	write32(regs + at, value);
}

static void find(void)
{
	devfn = pci_find(VFUT_VENDOR, VFUT_DEVICE);
	CHECK(devfn != PCI_NONE);
	regs = pci_bar(devfn, 0);
	ports = (uint16_t)pci_bar(devfn, 1);
	memory = pci_bar(devfn, 2);
	bells = pci_bar(devfn, 4);
	if (memory >= 4 * GIB)
		rt_map_gib((unsigned int)(memory / GIB));
	pci_write(devfn, COMMAND, 2, pci_read(devfn, COMMAND, 2) | COMMAND_MASTER);
}

static uint32_t size_of(unsigned int index)
{
	unsigned int reg = 0x10 + 4 * index;
	uint32_t before = pci_read(devfn, reg, 4), mask;

	pci_write(devfn, reg, 4, UINT32_MAX);
	mask = pci_read(devfn, reg, 4);
	pci_write(devfn, reg, 4, before);
	return ~(mask & (before & 1 ? 0xfffc : 0xfffffff0)) + 1;
}

static void config(void)
{
	uint32_t reads = get(VFUT_READS);

	/* What a driver does before it touches a register costs the server one read: those of our own so far. */
	CHECK(reads < 10);
	CHECK_EQ(pci_read(devfn, 8, 4), 0xff000001);
	CHECK_EQ(pci_read(devfn, 0x2c, 4), VFUT_DEVICE << 16 | VFUT_VENDOR);
	CHECK_EQ(pci_read(devfn, 0x3d, 1), 1);
	CHECK_EQ(size_of(0), 0x4000);
	CHECK_EQ(size_of(1) & 0xffff, 0x40);
	CHECK_EQ(size_of(2), 0x10000);
	CHECK_EQ(size_of(4), 0x1000);
	CHECK_EQ(size_of(5), 0);
	CHECK(pci_capability(devfn, 1));
	CHECK(pci_capability(devfn, CAP_MSI));
	CHECK(pci_capability(devfn, CAP_MSIX));
	CHECK_EQ(ecam_read(devfn, 0x100, 4), 0x14010003);
	CHECK_EQ(ecam_read(devfn, 0x104, 4), 0x55667788);
	CHECK_EQ(get(VFUT_READS), reads + 1);
	/* What may change is the server's. */
	CHECK_EQ(pci_capability(devfn, CAP_VENDOR), VFUT_CAP_VENDOR);
	pci_write(devfn, VFUT_CAP_VENDOR + 4, 4, 0x12345678);
	CHECK_EQ(pci_read(devfn, VFUT_CAP_VENDOR + 4, 4), 0x12345678);
	CHECK_EQ(pci_read(devfn, VFUT_CAP_VENDOR + 5, 1), 0x56);
	CHECK_EQ(ecam_read(devfn, 0x148, 4), 0xcafe);
	ecam_write(devfn, 0x148, 2, 0xbeef);
	CHECK_EQ(ecam_read(devfn, 0x148, 4), 0xbeef);
	CHECK_EQ(get(VFUT_COMMAND) & 7, 7);
	CHECK_EQ(get(VFUT_BAR0), (uint32_t)regs);
	CHECK_EQ(get(VFUT_RESETS), 1);
}

static void rom(void)
{
	const uint32_t at = 0x90000000;

	pci_write(devfn, 0x30, 4, UINT32_MAX);
	CHECK_EQ(pci_read(devfn, 0x30, 4), 0xfffff001);
	pci_write(devfn, 0x30, 4, at);
	CHECK_EQ(read32(at), UINT32_MAX);
	pci_write(devfn, 0x30, 4, at | 1);
	CHECK_EQ(read16(at), 0xaa55);
	CHECK_EQ(read8(at + 100), (uint8_t)(100 * 7));
	CHECK_EQ(read8(at + VFUT_ROM_SIZE), 0xff);
	write32(at, 0);
	CHECK_EQ(read16(at), 0xaa55);
	pci_write(devfn, 0x30, 4, 0);
	CHECK_EQ(read32(at), UINT32_MAX);
}

static void widths(uint64_t base, uint32_t from, uint32_t to)
{
	for (uint32_t at = from; at < to; at += 8) {
		write64(base + at, 0x8877665544332211 + at);
		CHECK_EQ(read64(base + at), 0x8877665544332211 + at);
	}
	for (uint32_t at = from; at + 8 <= to; at++) {
		uint64_t value = 0;

		for (unsigned int i = 0; i < 8; i++)
			value |= (uint64_t)read8(base + at + i) << 8 * i;
		CHECK_EQ(read64(base + at), value);
		CHECK_EQ(read32(base + at), (uint32_t)value);
		CHECK_EQ(read16(base + at), (uint16_t)value);
		write8(base + at, (uint8_t)at);
		CHECK_EQ(read8(base + at), (uint8_t)at);
		write16(base + at, 0xa55a);
		CHECK_EQ(read16(base + at), 0xa55a);
		write32(base + at, 0x1badcafe);
		CHECK_EQ(read32(base + at), 0x1badcafe);
	}
}

static void registers(void)
{
	CHECK_EQ(get(VFUT_ID), VFUT_MAGIC);
	put(VFUT_SCRATCH, 0x600df00d);
	CHECK_EQ(get(VFUT_SCRATCH), 0x600df00d);
	CHECK_EQ(inl(ports + VFUT_SCRATCH), 0x600df00d);
	outl(ports + VFUT_SCRATCH, 0xc0ffee);
	CHECK_EQ(get(VFUT_SCRATCH), 0xc0ffee);
	CHECK_EQ(inl(ports + 0x30), UINT32_MAX); /* beyond the region, inside the BAR */
	/* The server refuses these. */
	CHECK_EQ(read8(regs + VFUT_ID), 0xff);
	CHECK_EQ(read32(regs + VFUT_ID + 1), UINT32_MAX);
	widths(regs, VFUT_REGS, VFUT_REGS + 24);
	widths(regs, 0xff0, 0x1010);
	widths(regs, VFUT_BAR0_SIZE - 24, VFUT_BAR0_SIZE);
	write32(regs + VFUT_BAR0_SIZE - 4, 0x11223344);
	CHECK_EQ(read32(regs + VFUT_BAR0_SIZE), UINT32_MAX);
	CHECK_EQ(read32(regs + 0x3ffc), UINT32_MAX);
	CHECK_EQ(read32(regs + VFUT_BAR0_SIZE - 2) >> 16, 0xffff); /* across the end */
	CHECK_EQ(get(VFUT_POSTED) != 0, rt_arg_number("posted", 1) != 0);
}

static void poke(uint32_t offset, uint32_t value)
{
	put(VFUT_OFFSET, offset);
	put(VFUT_POKE, value);
	get(VFUT_ID); /* posted writes have arrived */
}

static uint32_t peek(uint32_t offset)
{
	put(VFUT_OFFSET, offset);
	return get(VFUT_PEEK);
}

/* Offsets in BAR2 at the edges of what is mapped, of the pages of MSI-X, and in between. */
static void mapped(void)
{
	static const uint32_t offsets[] = { 0,	    0xffc,  0x1000, 0x2ffc, 0x3000, 0x7ffc, 0x8000, 0x8ffc,
					    0x9080, 0x9ffc, 0xa000, 0xa7fc, 0xa808, 0xaffc, 0xb000, 0xfff8 };

	for (unsigned int i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		uint32_t at = offsets[i];

		write32(memory + at, 0xabcd0000 + at);
		CHECK_EQ(peek(at), 0xabcd0000 + at);
		poke(at, 0x12340000 + at);
		CHECK_EQ(read32(memory + at), 0x12340000 + at);
	}
	/* Across an edge. */
	widths(memory, 0xff8, 0x1008);
	widths(memory, 0x2ff8, 0x3008);
	/* Not at all by messages. */
	uint32_t reads = get(VFUT_READS);

	for (unsigned int i = 0; i < 100; i++)
		read32(memory + VFUT_AREA1 + 4 * i);
	CHECK_EQ(get(VFUT_READS), reads + 1 + (rt_arg_number("mapped", 1) ? 0 : 100));
}

static void quiet(void)
{
	rt_delay(QUIET);
	irq_window();
}

static void raise(unsigned int index, unsigned int vector)
{
	put(VFUT_IRQ, index << 16 | vector);
	get(VFUT_ID); /* it has been done */
}

static bool status_becomes(bool pending)
{
	for (uint32_t us = 0; us < LONG; us += QUIET) {
		if (!(pci_read(devfn, 6, 2) & STATUS_INTX) == !pending)
			return true;
		quiet();
	}
	return false;
}

static void intx_irq(struct rt_frame *frame)
{
	(void)frame;
	lapic_eoi();
}

static void intx(void)
{
	unsigned int pin = 12 + devfn / 8 % 4;
	uint32_t before;

	rt_handlers[INTX] = intx_irq;
	ioapic_route(pin, INTX, IOAPIC_LEVEL, lapic_id());
	for (uint32_t i = 1; i <= 3; i++) {
		before = rt_interrupts[INTX];
		raise(0, 0);
		CHECK(rt_wait(INTX, before + 1, LONG));
		CHECK(status_becomes(false));
	}
	pci_write(devfn, COMMAND, 2, pci_read(devfn, COMMAND, 2) | COMMAND_INTX_OFF);
	quiet();
	before = rt_interrupts[INTX];
	raise(0, 0);
	quiet();
	CHECK_EQ(rt_interrupts[INTX], before);
	CHECK(status_becomes(true));
	pci_write(devfn, COMMAND, 2, pci_read(devfn, COMMAND, 2) & ~COMMAND_INTX_OFF);
	CHECK(rt_wait(INTX, before + 1, LONG));
	ioapic_route(pin, INTX, IOAPIC_MASKED, lapic_id());
}

static void msi(void)
{
	unsigned int cap = pci_capability(devfn, CAP_MSI);

	pci_write(devfn, cap + 4, 4, MSI_BASE | lapic_id() << 12);
	pci_write(devfn, cap + 8, 4, 0);
	pci_write(devfn, cap + 12, 2, MSI);
	pci_write(devfn, cap + 2, 2, 0x21);
	for (uint32_t i = 0; i < 4; i++) {
		raise(1, i);
		CHECK(rt_wait((uint8_t)(MSI + i), 1, LONG));
	}
	raise(0, 0); /* no INTx beside it */
	pci_write(devfn, cap + 16, 4, 1 << 2);
	raise(1, 2);
	quiet();
	CHECK_EQ(rt_interrupts[MSI + 2], 1);
	CHECK_EQ(pci_read(devfn, cap + 20, 4), 1 << 2);
	pci_write(devfn, cap + 16, 4, 0);
	CHECK(rt_wait(MSI + 2, 2, LONG));
	pci_write(devfn, cap + 2, 2, 0);
}

static void set_vector(uint32_t i, uint8_t vector, bool mask)
{
	uint64_t entry = memory + VFUT_TABLE + 16 * i;

	write32(entry, MSI_BASE | lapic_id() << 12);
	write32(entry + 4, 0);
	write32(entry + 8, vector);
	write32(entry + 12, mask);
}

static void enable_msix(void)
{
	for (uint32_t i = 0; i < VFUT_VECTORS; i++)
		set_vector(i, (uint8_t)(MSIX + i), false);
	pci_write(devfn, pci_capability(devfn, CAP_MSIX) + 2, 2, 0x8000);
}

static void msix(void)
{
	unsigned int cap = pci_capability(devfn, CAP_MSIX);

	CHECK_EQ(pci_read(devfn, cap + 2, 2) & 0x7ff, VFUT_VECTORS - 1);
	enable_msix();
	for (uint32_t i = 0; i < VFUT_VECTORS; i++) {
		raise(2, i);
		CHECK(rt_wait((uint8_t)(MSIX + i), 1, LONG));
	}
	write32(memory + VFUT_TABLE + 16 * 3 + 12, 1);
	raise(2, 3);
	raise(2, 3);
	quiet();
	CHECK_EQ(rt_interrupts[MSIX + 3], 1);
	CHECK_EQ(read64(memory + VFUT_PBA), 1 << 3);
	write32(memory + VFUT_TABLE + 16 * 3 + 12, 0);
	CHECK(rt_wait(MSIX + 3, 2, LONG));
	pci_write(devfn, cap + 2, 2, 0xc000);
	raise(2, 5);
	quiet();
	CHECK_EQ(rt_interrupts[MSIX + 5], 1);
	pci_write(devfn, cap + 2, 2, 0x8000);
	CHECK(rt_wait(MSIX + 5, 2, LONG));
	pci_write(devfn, cap + 2, 2, 0);
}

static void irqs(void)
{
	pic_off();
	lapic_enable(false);
	intx();
	if (pci_capability(devfn, CAP_MSI))
		msi();
	msix();
	/* And back. */
	intx();
	put(VFUT_IRQ, 3 << 16); /* the error interrupt: a line of vmm's */
	CHECK_EQ(get(VFUT_ID), VFUT_MAGIC);
}

static uint32_t dma(uint64_t address, uint32_t count, uint32_t how)
{
	write32(regs + VFUT_DMA_ADDRESS, (uint32_t)address);
	write32(regs + VFUT_DMA_ADDRESS + 4, (uint32_t)(address >> 32));
	put(VFUT_DMA_COUNT, count);
	put(VFUT_DMA_GO, how);
	return get(VFUT_DMA_STATUS);
}

static void dma_test(void)
{
	static const uint32_t counts[] = { 1, 7, 4096, 65537, 3 << 20 };
	volatile uint8_t *buffer = (volatile uint8_t *)(uintptr_t)BUFFER;
	uint32_t ram = (uint32_t)rt_arg_number("ram", 64) << 20;

	for (unsigned int i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		uint32_t n = counts[i], sum = 0;

		put(VFUT_FILL, i + 1);
		CHECK_EQ(dma(BUFFER, n, 2), 0);
		for (uint32_t k = 0; k<n; k += n> 100 ? n / 50 : 1)
			CHECK_EQ(buffer[k], (uint8_t)(i + 1 + k));
		CHECK_EQ(buffer[n - 1], (uint8_t)(i + n));
		CHECK_EQ(buffer[n], 0);
		if (n > 4096)
			continue;
		for (uint32_t k = 0; k < n; k++) {
			buffer[k] = (uint8_t)(k * 5 + i);
			sum = sum * 31 + (uint8_t)(k * 5 + i);
		}
		CHECK_EQ(dma(BUFFER, n, 1), 0);
		CHECK_EQ(get(VFUT_SUM), sum);
	}
	/* What is no RAM, or not only. */
	CHECK_EQ(dma(ram, 4, 1), 14);
	CHECK_EQ(dma(ram - 2, 4, 1), 14);
	CHECK_EQ(dma(UINT64_MAX - 1, 4, 1), 14);
	CHECK_EQ(dma(UINT64_MAX - 1, 4, 2), 14);
	CHECK_EQ(dma(regs, 4, 1), 14);
	CHECK_EQ(dma(memory + VFUT_AREA1, 4, 2), 14);
	pic_off();
	lapic_enable(false);
	enable_msix();
	CHECK_EQ(dma(BUFFER, 4096, 2 | 3 << 16), 0);
	CHECK(rt_wait(MSIX + 2, 1, LONG));
}

static void doorbells(void)
{
	uint32_t fds = (uint32_t)rt_arg_number("iofds", 48), message = fds ? 0 : 0x10000, i;

	for (i = 1; i <= 3; i++) {
		write32(bells, i);
		CHECK_EQ(get(VFUT_RINGS), i * (fds ? 1 : message));
	}
	write32(bells + 4, VFUT_MATCH);
	CHECK_EQ(get(VFUT_RINGS + 4), fds ? 1 : message);
	write32(bells + 4, VFUT_MATCH + 1);
	CHECK_EQ(get(VFUT_RINGS + 4), fds ? 0x10001 : 2 * message);
	write16(bells, 1); /* another size */
	CHECK_EQ(get(VFUT_RINGS), 3 * (fds ? 1 : message) + 0x10000);
	write32(bells + 8, 0xfeedbeef);
	CHECK_EQ(get(VFUT_RINGS + 8), fds == 48 ? 1 : 0x10000);
	CHECK_EQ(get(VFUT_SHADOW), fds == 48 ? 0xfeedbeef : 0);
	/* The BAR moves, and they with it. */
	pci_write(devfn, 0x20, 4, 0x90000000);
	write32(0x90000000, 1);
	CHECK_EQ(get(VFUT_RINGS), 4 * (fds ? 1 : message) + 0x10000);
	write32(bells, 1);
	CHECK_EQ(get(VFUT_RINGS), 4 * (fds ? 1 : message) + 0x10000);
}

static void hot(void)
{
	uint32_t count = (uint32_t)rt_arg_number("count", 1000), i;
	uint64_t end = rt_ticks() + rt_arg_number("ms", UINT32_MAX) * RT_TICKS_PER_MS;

	for (i = 0; i < count && (i % 64 || rt_ticks() < end); i++) {
		put(VFUT_SCRATCH, i);
		if (rt_arg("writes"))
			continue;
		CHECK_EQ(get(VFUT_SCRATCH), i);
	}
	get(VFUT_ID);
	rt_print("round trips: %u\n", i);
	rt_print("multis %u\n", get(VFUT_MULTIS));
}

/* A server that does not answer costs one access, for the timeout; when it answers after all, it is as before. */
static void slow(void)
{
	put(VFUT_STALL, 1);
	CHECK_EQ(get(VFUT_ID), UINT32_MAX);
	write32(bells, 1);
	CHECK_EQ(get(VFUT_ID), VFUT_MAGIC);
	put(VFUT_SCRATCH, 17);
	CHECK_EQ(get(VFUT_SCRATCH), 17);
}

static void check_gone(void)
{
	CHECK_EQ(get(VFUT_ID), UINT32_MAX);
	CHECK_EQ(read64(regs + VFUT_REGS), UINT64_MAX);
	CHECK_EQ(inl(ports), UINT32_MAX);
	for (unsigned int i = 0; i < LONG / 1000 && pci_read(devfn, 0, 4) != UINT32_MAX; i++)
		rt_delay(1000);
	CHECK_EQ(pci_read(devfn, 0, 4), UINT32_MAX);
	CHECK_EQ(ecam_read(devfn, 0x100, 4), UINT32_MAX);
	CHECK_EQ(read32(memory), UINT32_MAX);
	CHECK_EQ(read32(memory + VFUT_AREA1), UINT32_MAX);
	CHECK_EQ(read32(memory + VFUT_TABLE), UINT32_MAX);
	write32(memory + VFUT_AREA1, 1);
	write32(bells, 1);
	put(VFUT_SCRATCH, 1);
	pci_write(devfn, COMMAND, 2, 0);
	CHECK_EQ(pci_read(devfn, COMMAND, 2), 0xffff);
}

/* Somebody kills it while we are at work. */
static void death(void)
{
	uint32_t i = 0;

	pic_off();
	lapic_enable(false);
	enable_msix();
	rt_print("alive\n");
	do {
		put(VFUT_SCRATCH, ++i);
		write32(bells, i);
		write32(memory + VFUT_AREA1, i);
	} while (get(VFUT_SCRATCH) == i && get(VFUT_ID) == VFUT_MAGIC);
	check_gone();
	rt_print("gone\n");
	if (!rt_arg("back"))
		return;
	for (i = 0; i < LONG / 1000 && get(VFUT_ID) != VFUT_MAGIC; i++)
		rt_delay(1000);
	CHECK_EQ(get(VFUT_ID), VFUT_MAGIC);
	/* The server is a new one, and the device was reset; what the guest has programmed is as it was. */
	CHECK_EQ(get(VFUT_RESETS), 1);
	CHECK_EQ(get(VFUT_COMMAND) & 7, 7);
	CHECK_EQ(get(VFUT_BAR0), (uint32_t)regs);
	raise(2, 6);
	CHECK(rt_wait(MSIX + 6, 1, LONG));
	if (rt_arg_number("mapped", 1))
		mapped();
	write32(bells, 1);
	CHECK_EQ(get(VFUT_RINGS), 1);
	put(VFUT_FILL, 9);
	CHECK_EQ(dma(BUFFER, 100, 2), 0);
	CHECK_EQ(*(volatile uint8_t *)(uintptr_t)(BUFFER + 99), 9 + 99);
	rt_print("back\n");
}

/* It goes and comes, as often as somebody likes. */
static void returns(void)
{
	for (;;) {
		while (get(VFUT_ID) != VFUT_MAGIC)
			rt_delay(1000);
		rt_print("there\n");
		while (get(VFUT_ID) == VFUT_MAGIC)
			rt_delay(1000);
		rt_print("away\n");
	}
}

/* It ends by itself, or misbehaves, at some access; whatever it is, it ends with the device gone. */
static void until_gone(void)
{
	for (uint32_t i = 0; i < 100000 && get(VFUT_ID) == VFUT_MAGIC; i++)
		put(VFUT_SCRATCH, i);
	for (unsigned int i = 0; i < 100 && pci_read(devfn, 0, 4) != UINT32_MAX; i++)
		get(VFUT_ID);
	check_gone();
}

/* It misbehaves in a way that costs an access at most. */
static void tolerant(void)
{
	unsigned int bad = 0;

	for (uint32_t i = 0; i < 50; i++)
		bad += get(VFUT_ID) != VFUT_MAGIC;
	CHECK_EQ(bad, rt_arg_number("bad", 0));
	CHECK_EQ(get(VFUT_ID), VFUT_MAGIC);
	put(VFUT_SCRATCH, 5);
	CHECK_EQ(get(VFUT_SCRATCH), 5);
}

static void shrunk(void)
{
	uint64_t at = memory + VFUT_AREA1;

	poke(VFUT_AREA1 + 0x1000, 0x11112222);
	CHECK_EQ(read32(at + 0x1000), 0x11112222);
	put(VFUT_SCRATCH, 1);
	pci_write(devfn, VFUT_CAP_VENDOR + 4, 4, 1); /* waits for the server, which truncates its file first */
	get(VFUT_ID);
	/* Now by messages, or lost; but we live. */
	write32(at, 0x5555);
	read32(at);
	write32(at, 0x600d);
	CHECK_EQ(read32(at), 0x600d);
	CHECK_EQ(peek(VFUT_AREA1), 0x600d);
	CHECK_EQ(get(VFUT_ID), VFUT_MAGIC);
}

static void reset(void)
{
	if (get(VFUT_RESETS) == 1) {
		put(VFUT_SCRATCH, 1);
		pic_off();
		lapic_enable(false);
		enable_msix();
		outb(0xcf9, 6);
		for (;;)
			;
	}
	CHECK_EQ(get(VFUT_RESETS), 2);
	CHECK_EQ(pci_read(devfn, pci_capability(devfn, CAP_MSIX) + 2, 2) & 0x8000, 0);
	irqs();
	CHECK_EQ(dma(BUFFER, 100, 2), 0);
}

/* Without a reset of its own, the device at least gets its memory anew. */
static void reset_without(void)
{
	if (get(VFUT_SCRATCH) != 0x1234) {
		put(VFUT_SCRATCH, 0x1234);
		CHECK_EQ(get(VFUT_SCRATCH), 0x1234);
		outb(0xcf9, 6);
		for (;;)
			;
	}
	CHECK_EQ(get(VFUT_RESETS), 0);
	put(VFUT_FILL, 3);
	CHECK_EQ(dma(BUFFER, 100, 2), 0);
	CHECK_EQ(*(volatile uint8_t *)(uintptr_t)BUFFER, 3);
}

/* While this vCPU waits for a server that does not answer, the other one uses the bus, and then has it answer. */
static void work(unsigned int n)
{
	(void)n;
	while (!read32(memory + VFUT_STALLED))
		__asm__ volatile("pause");
	for (unsigned int i = 0; i < 50; i++)
		CHECK(pci_read(0, 0, 4) != UINT32_MAX);
	rt_print("other vCPU: done\n");
	write32(bells, 1);
}

static void mute(void)
{
	pic_off();
	lapic_enable(false);
	ap_start(1, work);
	put(VFUT_STALL, 1);
	CHECK_EQ(ecam_read(devfn, 0x148, 4), 0xcafe);
}

/* Two devices, for each of which two vCPUs wait in vain, while this one does not wait for anything. */
static uint64_t registers_of[2], bells_of[2];
static volatile uint32_t waited;

static void wait_in_vain(unsigned int n)
{
	CHECK_EQ(read32(registers_of[n % 2] + VFUT_ID), UINT32_MAX);
	__atomic_fetch_add(&waited, 1, __ATOMIC_SEQ_CST);
	for (;;)
		__asm__ volatile("pause");
}

static void find_two(void)
{
	registers_of[0] = regs;
	bells_of[0] = bells;
	for (unsigned int other = devfn + 8; other < 256; other += 8) {
		if (pci_read(other, 0, 4) != (VFUT_DEVICE << 16 | VFUT_VENDOR))
			continue;
		registers_of[1] = pci_bar(other, 0);
		bells_of[1] = pci_bar(other, 4);
		return;
	}
	CHECK(!"a second device");
}

static void timeouts(void)
{
	pic_off();
	lapic_enable(false);
	find_two();
	for (unsigned int i = 0; i < 2; i++) {
		write32(registers_of[i] + VFUT_SCRATCH, 17 + i);
		write32(registers_of[i] + VFUT_STALL, 1);
	}
	for (unsigned int i = 1; i <= 4; i++)
		ap_start(i, wait_in_vain);
	while (waited < 4)
		CHECK(pci_read(0, 0, 4) != UINT32_MAX);
	/* The late replies are nobody's. */
	for (unsigned int i = 0; i < 2; i++) {
		write32(bells_of[i], 1);
		CHECK_EQ(read32(registers_of[i] + VFUT_SCRATCH), 17 + i);
		CHECK_EQ(read32(registers_of[i] + VFUT_ID), VFUT_MAGIC);
	}
}

/* Never ends by itself. */
static void hang(void)
{
	rt_print("waiting\n");
	put(VFUT_STALL, 1);
	for (;;)
		get(VFUT_ID);
}

/* Without an end, for somebody who stops the machine now and then. */
static void dma_loop(void)
{
	uint32_t count = (uint32_t)rt_arg_number("count", 100);

	rt_print("ready\n");
	for (uint32_t i = 0; i < count; i++) {
		put(VFUT_FILL, i);
		CHECK_EQ(dma(BUFFER, 1 << 20, 2), 0);
		CHECK_EQ(*(volatile uint8_t *)(uintptr_t)(BUFFER + 77), (uint8_t)(i + 77));
	}
}

static void idle(void)
{
	rt_print("idle\n");
	for (;;)
		rt_delay(1000);
}

static void all(void)
{
	config();
	rom();
	registers();
	mapped();
}

static const struct rt_test tests[] = {
	{ "all", all },
	{ "irqs", irqs },
	{ "dma", dma_test },
	{ "doorbells", doorbells },
	{ "hot", hot },
	{ "slow", slow },
	{ "death", death },
	{ "returns", returns },
	{ "gone", until_gone },
	{ "tolerant", tolerant },
	{ "shrunk", shrunk },
	{ "reset", reset },
	{ "reset-without", reset_without },
	{ "dma-loop", dma_loop },
	{ "mute", mute },
	{ "timeouts", timeouts },
	{ "hang", hang },
	{ "idle", idle },
	{ "registers", registers },
};

void guest_main(void)
{
	find();
	rt_run_test(tests, sizeof(tests) / sizeof(tests[0]));
	rt_print("passed\n");
}
