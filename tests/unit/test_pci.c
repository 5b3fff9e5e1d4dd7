/* SPDX-License-Identifier: MIT */
/*
 * PCI configuration space, BARs and what they map. PCI_TEST_WRITES and PCI_TEST_SEED in the environment change
 * the length and start of the random runs.
 */
#include "tests/unit/pci_fake.h"

static uint32_t port_read(unsigned int devfn, unsigned int reg, unsigned int size)
{
	out(0xcf8, 4, 0x80000000u | devfn << 8 | (reg & 0xfc));
	return (uint32_t)in(0xcfc + (reg & 3), size);
}

static uint32_t xorshift(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state >> 16;
}

static uint64_t env(const char *name, uint64_t value)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : value;
}

static void header(void **state)
{
	const unsigned int devfn = PCI_DEVFN(4, 0);

	(void)state;
	plain(devfn, "plain");
	assert_int_equal(rd(devfn, 0, 4), 0x56781234);
	assert_int_equal(rd(devfn, 8, 4), 0x02000342);
	assert_int_equal(rd(devfn, 0x2c, 4), 0xdef09abc);
	assert_int_equal(rd(devfn, PCI_STATUS, 2), 0);
	wr(devfn, 0, 4, 0);
	wr(devfn, 8, 4, 0);
	wr(devfn, 0x2c, 4, 0);
	assert_int_equal(rd(devfn, 0, 4), 0x56781234);
	assert_int_equal(rd(devfn, 8, 4), 0x02000342);
	assert_int_equal(rd(devfn, 0x2c, 4), 0xdef09abc);
	wr(devfn, PCI_COMMAND, 2, 0xffff);
	assert_int_equal(rd(devfn, PCI_COMMAND, 2), 0x0547);
	assert_int_equal(rd(0, 0, 4), 0x29c08086);
	assert_int_equal(rd(0, 8, 4), 0x06000000);
	assert_int_equal(rd(0, PCI_HEADER_TYPE, 1), 0);
}

static void absent_reads_ones(void **state)
{
	(void)state;
	assert_int_equal(rd(PCI_DEVFN(9, 0), 0, 4), UINT32_MAX);
	assert_int_equal(load(ECAM + PCI_DEVFN(9, 0) * 4096, 4), UINT32_MAX);
	assert_true(load(ECAM + PCI_DEVFN(9, 0) * 4096, 8) == UINT64_MAX);
	assert_int_equal(port_read(PCI_DEVFN(9, 0), 0, 2), 0xffff);
	assert_int_equal(rd(PCI_FUNCTIONS, 0, 4), UINT32_MAX);
	assert_int_equal(rd(0, PCI_CONFIG_SIZE - 1, 2), UINT32_MAX);
	store(ECAM + PCI_DEVFN(9, 0) * 4096, 4, 0);
	wr(PCI_FUNCTIONS, 0, 4, 0);
	wr(0, PCI_CONFIG_SIZE - 1, 2, 0);
}

static void multifunction(void **state)
{
	struct pci_function fn = { 0 };

	(void)state;
	plain(PCI_DEVFN(5, 0), "a");
	assert_int_equal(rd(PCI_DEVFN(5, 0), PCI_HEADER_TYPE, 1), 0);
	plain(PCI_DEVFN(5, 3), "b");
	assert_int_equal(rd(PCI_DEVFN(5, 0), PCI_HEADER_TYPE, 1), 0x80);
	plain(PCI_DEVFN(6, 1), "c");
	plain(PCI_DEVFN(6, 0), "d");
	assert_int_equal(rd(PCI_DEVFN(6, 0), PCI_HEADER_TYPE, 1), 0x80);
	assert_int_equal(pci_function_init(&fn, fake->vm.pci, PCI_DEVFN(6, 0), "e", &plain_ids, NULL), -EEXIST);
	assert_int_equal(pci_function_init(&fn, fake->vm.pci, PCI_FUNCTIONS, "e", &plain_ids, NULL), -EINVAL);
	for (unsigned int slot = 1; slot < PCI_SLOTS; slot++) {
		if (slot == 5 || slot == 6)
			continue;
		assert_int_equal(plain(PCI_DEVFN_AUTO, "auto")->devfn, PCI_DEVFN(slot, 0));
	}
	assert_int_equal(pci_function_init(&fn, fake->vm.pci, PCI_DEVFN_AUTO, "e", &plain_ids, NULL), -ENOSPC);
}

static void address_port(void **state)
{
	(void)state;
	assert_int_equal(fake->coalesced, 0xcf8 << 8 | 4);
	out(0xcf8, 4, UINT32_MAX);
	assert_int_equal(in(0xcf8, 4), 0x80fffffc);
	assert_int_equal(in(0xcfc, 4), UINT32_MAX); /* bus 255 */
	out(0xcf8, 4, 0x80000000);
	assert_int_equal(in(0xcfc, 4), 0x29c08086);
	out(0xcf8, 1, 0x08);
	out(0xcf8, 2, 0x08);
	out(0xcfa, 2, 0);
	out(0xcfb, 1, 0);
	assert_int_equal(in(0xcf8, 4), 0x80000000);
	assert_int_equal(in(0xcf8, 2), 0xffff);
	assert_int_equal(in(0xcfe, 2), 0x29c0);
	assert_int_equal(in(0xcfd, 1), 0x80);
	assert_int_equal(in(0xcfd, 2), 0xc080);
	assert_int_equal(in(0xcfe, 4), UINT32_MAX); /* leaves the port range */
	out(0xcf8, 4, 0);
	assert_int_equal(in(0xcfc, 4), UINT32_MAX);
	out(0xcf8, 4, 0x80010000);
	assert_int_equal(in(0xcfc, 4), UINT32_MAX);
}

static void reset_control(void **state)
{
	(void)state;
	out(0xcf9, 1, 0x02);
	assert_int_equal(fake->vm_resets, 0);
	assert_int_equal(in(0xcf9, 1), 0x02);
	out(0xcf9, 1, 0x06);
	assert_int_equal(fake->vm_resets, 1);
	assert_int_equal(in(0xcf9, 1), 0x02);
	out(0xcf8, 4, 0x80000600);
	assert_int_equal(fake->vm_resets, 1);
	reset_machine();
	assert_int_equal(in(0xcf9, 1), 0);
	assert_int_equal(in(0xcf8, 4), 0);
}

static void sizing(void **state)
{
	const unsigned int devfn = PCI_DEVFN(3, 0);
	struct pci_function *fn = plain(devfn, "bars");

	(void)state;
	assert_int_equal(pci_add_bar(fn, 0, 0x2000, PCI_BAR_MEM32), 0);
	assert_int_equal(pci_add_bar(fn, 1, 0x20, PCI_BAR_IO), 0);
	assert_int_equal(pci_add_bar(fn, 2, 8ULL << 30, PCI_BAR_MEM64 | PCI_BAR_PREFETCH), 0);
	assert_int_equal(pci_add_bar(fn, 4, 0x100000, PCI_BAR_MEM64), 0);
	const uint32_t all[6] = { 0xffffe000, 0xffffffe1, 0x0000000c, 0xfffffffe, 0xfff00004, 0xffffffff };
	const uint32_t none[6] = { 0, 1, 0xc, 0, 4, 0 };
	for (unsigned int i = 0; i < 6; i++) {
		wr(devfn, PCI_BAR0 + 4 * i, 4, UINT32_MAX);
		assert_int_equal(rd(devfn, PCI_BAR0 + 4 * i, 4), all[i]);
		wr(devfn, PCI_BAR0 + 4 * i, 4, 0);
		assert_int_equal(rd(devfn, PCI_BAR0 + 4 * i, 4), none[i]);
	}
	/* With decoding on it must not map anywhere either. */
	wr(devfn, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
	for (unsigned int i = 0; i < 2; i++)
		wr(devfn, PCI_BAR0 + 4 * i, 4, UINT32_MAX);
	assert_true(fn->bars[0].mapped == PCI_UNMAPPED);
	assert_true(fn->bars[1].mapped == PCI_UNMAPPED);
	/* One byte at a time gives the same. */
	for (unsigned int i = 0; i < 4; i++)
		wr(devfn, PCI_BAR0 + 16 + i, 1, 0x5a);
	assert_int_equal(rd(devfn, PCI_BAR0 + 16, 4), 0x5a500004);
	/* ROM BAR and unused registers: read-only zero. */
	wr(devfn, 0x30, 4, UINT32_MAX);
	assert_int_equal(rd(devfn, 0x30, 4), 0);
}

static void bad_bars(void **state)
{
	struct pci_function *fn = plain(PCI_DEVFN(3, 0), "bars");
	static uint8_t page[8192] __attribute__((aligned(4096)));

	(void)state;
	assert_int_equal(pci_add_bar(fn, 0, 0, PCI_BAR_MEM32), -EINVAL);
	assert_int_equal(pci_add_bar(fn, 0, 0x3000, PCI_BAR_MEM32), -EINVAL);
	assert_int_equal(pci_add_bar(fn, 0, 8, PCI_BAR_MEM32), -EINVAL);
	assert_int_equal(pci_add_bar(fn, 0, 1ULL << 32, PCI_BAR_MEM32), -EINVAL);
	assert_int_equal(pci_add_bar(fn, 0, 1ULL << 47, PCI_BAR_MEM64), -EINVAL);
	assert_int_equal(pci_add_bar(fn, 0, 1 << 17, PCI_BAR_IO), -EINVAL);
	assert_int_equal(pci_add_bar(fn, 0, 16, PCI_BAR_IO | PCI_BAR_MEM64), -EINVAL);
	assert_int_equal(pci_add_bar(fn, 0, 16, 2), -EINVAL);
	assert_int_equal(pci_add_bar(fn, 5, 0x1000, PCI_BAR_MEM64), -EINVAL);
	assert_int_equal(pci_add_bar(fn, 6, 0x1000, PCI_BAR_MEM32), -EINVAL);
	assert_int_equal(pci_add_bar(fn, 2, 0x2000, PCI_BAR_MEM64), 0);
	assert_int_equal(pci_add_bar(fn, 2, 0x2000, PCI_BAR_MEM32), -EEXIST);
	assert_int_equal(pci_add_bar(fn, 3, 0x2000, PCI_BAR_MEM32), -EEXIST);
	assert_int_equal(pci_add_bar(fn, 1, 0x2000, PCI_BAR_MEM64), -EEXIST);
	assert_int_equal(pci_bar_add_registers(fn, 0, 0, 4, &echo_ops, NULL), -EINVAL);
	assert_int_equal(pci_bar_add_registers(fn, 2, 0, 0x2001, &echo_ops, NULL), -EINVAL);
	assert_int_equal(pci_bar_add_registers(fn, 2, UINT64_MAX, 2, &echo_ops, NULL), -EINVAL);
	assert_int_equal(pci_bar_add_registers(fn, 2, 0, 0, &echo_ops, NULL), -EINVAL);
	assert_int_equal(pci_bar_add_memory(fn, 2, 0x1000, 0x1000, page + 1, false), -EINVAL);
	assert_int_equal(pci_bar_add_memory(fn, 2, 0x800, 0x1000, page, false), -EINVAL);
	assert_int_equal(pci_bar_add_memory(fn, 2, 0x1000, 0x1000, page, false), 0);
	assert_int_equal(pci_bar_add_registers(fn, 2, 0xfff, 2, &echo_ops, NULL), -EINVAL);
	for (unsigned int i = 1; i < PCI_BAR_SEGMENTS; i++)
		assert_int_equal(pci_bar_add_registers(fn, 2, 16 * i, 16, &echo_ops, NULL), 0);
	assert_int_equal(pci_bar_add_registers(fn, 2, 0, 16, &echo_ops, NULL), -ENOSPC);
}

static void enable_move_disable(void **state)
{
	const unsigned int devfn = PCI_DEVFN(2, 0);
	struct pci_function *fn = echo(devfn, "echo", 0x1000, PCI_BAR_MEM32, 7);

	(void)state;
	wr(devfn, PCI_BAR0, 4, 0xc0001000);
	assert_int_equal(load(0xc0001004, 4), UINT32_MAX);
	wr(devfn, PCI_COMMAND, 2, PCI_COMMAND_IO);
	assert_int_equal(load(0xc0001004, 4), UINT32_MAX);
	wr(devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(load(0xc0001004, 4), 0x70004);
	wr(devfn, PCI_BAR0, 4, 0xc0002000);
	assert_int_equal(load(0xc0001004, 4), UINT32_MAX);
	assert_int_equal(load(0xc0002ffc, 4), 0x70ffc);
	assert_int_equal(load(0xc0002ffe, 4), UINT32_MAX);
	store(0xc0002000, 4, 1); /* no write function: dropped */
	wr(devfn, PCI_COMMAND, 1, 0);
	assert_int_equal(load(0xc0002004, 4), UINT32_MAX);
	assert_true(fn->bars[0].mapped == PCI_UNMAPPED);
	for (unsigned int i = 0; i < 3 * BUS_MAX_REGIONS; i++)
		wr(devfn, PCI_COMMAND, 1, i & 1 ? 0 : PCI_COMMAND_MEMORY);
	wr(devfn, PCI_COMMAND, 1, PCI_COMMAND_MEMORY);
	assert_int_equal(load(0xc0002004, 4), 0x70004);
}

static void segments(void **state)
{
	static uint8_t page[4096] __attribute__((aligned(4096)));
	const unsigned int devfn = PCI_DEVFN(2, 0);
	struct pci_function *fn = plain(devfn, "mixed");

	(void)state;
	memset(page, 0, sizeof(page));
	assert_int_equal(pci_add_bar(fn, 0, 0x4000, PCI_BAR_MEM32), 0);
	assert_int_equal(pci_bar_add_registers(fn, 0, 0x10, 0x10, &echo_ops, (void *)1), 0);
	assert_int_equal(pci_bar_add_memory(fn, 0, 0x1000, 0x1000, page, true), 0);
	assert_int_equal(pci_bar_add_registers(fn, 0, 0x20, 0x10, &echo_ops, (void *)2), 0);
	wr(devfn, PCI_BAR0, 4, 0xc0010000);
	wr(devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(load(0xc0010010, 4), 0x10000);
	assert_int_equal(load(0xc001001c, 4), 0x1000c);
	assert_int_equal(load(0xc0010020, 4), 0x20000);
	assert_int_equal(load(0xc001001e, 4), UINT32_MAX);
	assert_int_equal(load(0xc0010000, 4), UINT32_MAX);
	assert_int_equal(load(0xc0013ffc, 4), UINT32_MAX);
	assert_true(fake->slots[0].used && fake->slots[0].gpa == 0xc0011000 && fake->slots[0].host == page);
	page[8] = 0xab;
	assert_int_equal(load(0xc0011008, 4), 0xab);
	store(0xc0011008, 4, 0);
	assert_int_equal(page[8], 0xab);
}

static void overlaps(void **state)
{
	const unsigned int a = PCI_DEVFN(1, 0), b = PCI_DEVFN(2, 0);
	struct pci_function *fa = echo(a, "a", 0x1000, PCI_BAR_MEM32, 1);
	struct pci_function *fb = echo(b, "b", 0x10000, PCI_BAR_MEM32, 2);

	(void)state;
	wr(a, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	wr(b, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	wr(a, PCI_BAR0, 4, 0xc0008000);
	wr(b, PCI_BAR0, 4, 0xc0000000);
	assert_true(fb->bars[0].mapped == PCI_UNMAPPED);
	assert_int_equal(load(0xc0000000, 4), UINT32_MAX);
	assert_int_equal(load(0xc0008000, 4), 0x10000);
	/* Moved elsewhere it works, moved back it is refused again. */
	wr(b, PCI_BAR0, 4, 0xc0010000);
	assert_int_equal(load(0xc0010000, 4), 0x20000);
	wr(b, PCI_BAR0, 4, 0xc0000000);
	assert_true(fb->bars[0].mapped == PCI_UNMAPPED);
	assert_int_equal(load(0xc0010000, 4), UINT32_MAX);
	/* When the other one goes, it gets its place. */
	wr(a, PCI_BAR0, 4, 0xc0100000);
	assert_int_equal(load(0xc0008000, 4), 0x28000);
	assert_int_equal(load(0xc0100000, 4), 0x10000);
	/* RAM below and above 4 GiB, ECAM, nothing at all. */
	const uint32_t taken[] = { 0x10000, 0x7fff0000, 0xe0000000, 0xe00f0000, 0 };
	for (unsigned int i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
		wr(b, PCI_BAR0, 4, taken[i]);
		assert_true(fb->bars[0].mapped == PCI_UNMAPPED);
		assert_int_equal(rd(b, PCI_BAR0, 4), taken[i]);
	}
	wr(b, PCI_BAR0, 4, 0x80000000);
	assert_int_equal(load(0x80000000, 4), 0x20000);
	assert_true(fa->bars[0].mapped == 0xc0100000);
}

static void overlaps_wide(void **state)
{
	const unsigned int devfn = PCI_DEVFN(1, 0);
	struct pci_function *fn = echo(devfn, "wide", 1ULL << 30, PCI_BAR_MEM64, 1);

	(void)state;
	wr(devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	const uint64_t refused[] = { 4ULL << 30, 0x40000000, 1ULL << 46, 0xffffffff80000000 };
	for (unsigned int i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		wr(devfn, PCI_BAR0, 4, (uint32_t)refused[i]);
		wr(devfn, PCI_BAR0 + 4, 4, refused[i] >> 32);
		assert_true(fn->bars[0].mapped == PCI_UNMAPPED);
	}
	/* RAM ends at 5 GiB here. */
	store(ECAM + devfn * 4096 + PCI_BAR0, 8, 5ULL << 30);
	assert_true(fn->bars[0].mapped == 5ULL << 30);
	assert_int_equal(load((5ULL << 30) + 8, 4), 0x10008);
	store(ECAM + devfn * 4096 + PCI_BAR0, 8, (1ULL << 46) - (1ULL << 30));
	assert_int_equal(load((1ULL << 46) - 8, 4), 0x3ffffff8 | 0x10000);
}

static void bars_trade_places(void **state)
{
	const unsigned int devfn = PCI_DEVFN(1, 0);
	struct pci_function *fn = echo(devfn, "trade", 0x1000, PCI_BAR_MEM32, 1);

	(void)state;
	assert_int_equal(pci_add_bar(fn, 1, 0x1000, PCI_BAR_MEM32), 0);
	assert_int_equal(pci_bar_add_registers(fn, 1, 0, 0x1000, &echo_ops, (void *)2), 0);
	wr(devfn, PCI_BAR0, 4, 0xc0000000);
	wr(devfn, PCI_BAR0 + 4, 4, 0xc0001000);
	wr(devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	wr(devfn, PCI_BAR0, 4, 0xc0001000);
	assert_true(fn->bars[0].mapped == PCI_UNMAPPED);
	wr(devfn, PCI_BAR0 + 4, 4, 0xc0000000);
	assert_int_equal(load(0xc0000000, 4), 0x20000);
	assert_int_equal(load(0xc0001000, 4), 0x10000);
}

static void io_bar(void **state)
{
	const unsigned int devfn = PCI_DEVFN(1, 0);
	struct pci_function *fn = echo(devfn, "io", 0x20, PCI_BAR_IO, 3);

	(void)state;
	wr(devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	wr(devfn, PCI_BAR0, 4, 0xc000);
	assert_int_equal(in(0xc004, 4), UINT32_MAX);
	wr(devfn, PCI_COMMAND, 2, PCI_COMMAND_IO);
	assert_int_equal(in(0xc004, 4), 0x30004);
	assert_int_equal(in(0xc01f, 2), 0xffff);
	wr(devfn, PCI_BAR0, 4, 0xce0); /* over the configuration ports */
	assert_true(fn->bars[0].mapped == PCI_UNMAPPED);
	assert_int_equal(port_read(0, 0, 4), 0x29c08086);
	wr(devfn, PCI_BAR0, 4, 0x12340000);
	assert_true(fn->bars[0].mapped == PCI_UNMAPPED);
	wr(devfn, PCI_BAR0, 4, 0xffc0);
	assert_int_equal(in(0xffc4, 4), 0x30004);
}

static void memory_bar(void **state)
{
	struct pci_function *fn = testdev(0x200000, 4);
	const unsigned int devfn = fn->devfn;

	(void)state;
	store(ECAM + devfn * 4096 + PCI_BAR0 + 8, 8, MMIO64);
	wr(devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_true(fake->slots[0].used && fake->slots[0].gpa == MMIO64 && fake->slots[0].size == 0x200000);
	uint32_t *host = fake->slots[0].host;
	store(MMIO64 + 8, 4, 0x12345678);
	assert_int_equal(host[2], 0x12345678);
	assert_int_equal(load(MMIO64 + 8, 4), 0x12345678);
	/* KVM has no room: unmapped as a whole, and back when there is room. */
	fake->slot_error = -ENOSPC;
	store(ECAM + devfn * 4096 + PCI_BAR0 + 8, 8, MMIO64 + 0x200000);
	assert_false(fake->slots[0].used);
	assert_true(fn->bars[2].mapped == PCI_UNMAPPED);
	assert_int_equal(load(MMIO64 + 0x200008, 4), UINT32_MAX);
	fake->slot_error = 0;
	store(ECAM + devfn * 4096 + PCI_BAR0 + 8, 8, MMIO64 + 0x400000);
	assert_int_equal(load(MMIO64 + 0x400008, 4), 0x12345678);
	reset_machine();
	assert_false(fake->slots[0].used);
	assert_int_equal(host[2], 0);
}

/* Registers whose value changes by being read stay out of it: none does in configuration space. */
static void ports_and_ecam_agree(void **state)
{
	struct pci_function *fn = testdev(0x10000, 8);
	uint64_t random = env("PCI_TEST_SEED", 1) * 2654435761u + 1;
	const unsigned int devfns[] = { 0, fn->devfn, PCI_DEVFN(7, 0), PCI_DEVFN(7, 5), PCI_DEVFN(31, 7) };

	(void)state;
	echo(PCI_DEVFN(7, 0), "e0", 0x1000, PCI_BAR_MEM64, 1);
	echo(PCI_DEVFN(7, 5), "e5", 0x10, PCI_BAR_IO, 2);
	for (unsigned int i = 0; i < 20000; i++) {
		unsigned int devfn = devfns[xorshift(&random) % 5], size = 1u << xorshift(&random) % 3;
		unsigned int reg = xorshift(&random) % 256;
		uint32_t value = xorshift(&random), mask = UINT32_MAX >> (32 - 8 * size);
		bool pciexbar = devfn == 0 && reg + size > 0x60 && reg < 0x68;

		if ((reg & 3) + size > 4 || pciexbar)
			continue;
		uint64_t gpa = ECAM + devfn * 4096 + reg;
		if (value & 1)
			port_write(devfn, reg, size, value >> 1);
		else
			store(gpa, size, value >> 1);
		uint32_t want = rd(devfn, reg, size) & mask;
		assert_int_equal(port_read(devfn, reg, size) & mask, want);
		assert_int_equal(load(gpa, size), want);
		uint64_t wide = load(gpa & ~7ULL, 8);
		assert_int_equal((uint32_t)wide, rd(devfn, reg & ~7u, 4));
		assert_int_equal(wide >> 32, rd(devfn, (reg & ~7u) + 4, 4));
	}
}

static void capabilities(void **state)
{
	const unsigned int devfn = PCI_DEVFN(1, 0);
	struct pci_function *fn = plain(devfn, "caps");

	(void)state;
	assert_int_equal(pci_add_capability(fn, 0x09, 5), 0x40);
	assert_int_equal(pci_add_capability(fn, 0x01, 8), 0x48);
	assert_int_equal(pci_add_capability(fn, 0x11, 0xb1), -ENOSPC);
	assert_int_equal(pci_add_capability(fn, 0x11, 0xb0), 0x50);
	assert_int_equal(pci_add_capability(fn, 0x05, 2), -ENOSPC);
	assert_int_equal(rd(devfn, PCI_STATUS, 2), PCI_STATUS_CAPABILITIES);
	assert_int_equal(rd(devfn, 0x34, 1), 0x40);
	assert_int_equal(rd(devfn, 0x40, 2), 0x4809);
	assert_int_equal(rd(devfn, 0x48, 2), 0x5001);
	assert_int_equal(rd(devfn, 0x50, 2), 0x0011);
	wr(devfn, PCI_STATUS, 2, 0xffff);
	assert_int_equal(rd(devfn, PCI_STATUS, 2), PCI_STATUS_CAPABILITIES);
	assert_int_equal(pci_add_ext_capability(fn, 0x0b, 1, 12), 0x100);
	assert_int_equal(pci_add_ext_capability(fn, 0x19, 2, 4), 0x10c);
	assert_int_equal(pci_add_ext_capability(fn, 0x19, 2, 4096), -ENOSPC);
	assert_int_equal(rd(devfn, 0x100, 4), 0x10c1000b);
	assert_int_equal(rd(devfn, 0x10c, 4), 0x00020019);
	/* Bits that writing 1 clears. */
	pci_config_define(fn, 0x110, 2, 0x00f3, 0x000f, 0x00f0);
	wr(devfn, 0x110, 2, 0x0015);
	assert_int_equal(rd(devfn, 0x110, 2), 0x00e5);
	wr(devfn, 0x110, 1, 0xa0);
	assert_int_equal(rd(devfn, 0x110, 2), 0x0040);
	reset_machine();
	assert_int_equal(rd(devfn, 0x110, 2), 0x00f3);
	assert_int_equal(rd(devfn, 0x40, 2), 0x4809);
}

/* What must hold after any sequence of accesses. */

static uint64_t wanted(const struct pci_function *fn, unsigned int i)
{
	const struct pci_bar *bar = &fn->bars[i];
	bool io = bar->flags & PCI_BAR_IO, wide = bar->flags & PCI_BAR_MEM64;
	uint64_t base = bar_base(fn->devfn, i);
	uint64_t ones = (wide ? UINT64_MAX : UINT32_MAX) & ~(bar->size - 1);

	if (!(rd(fn->devfn, PCI_COMMAND, 2) & (io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
		return PCI_UNMAPPED;
	return base && base != ones ? base : PCI_UNMAPPED;
}

static bool free_for(const struct pci_bar *bar, uint64_t base)
{
	bool io = bar->flags & PCI_BAR_IO;
	struct bus *bus = io ? &fake->vm.pio : &fake->vm.mmio;
	uint64_t end = base + bar->size;

	if (end < base || end > bus->limit)
		return false;
	if (!io && (base < RAM_LOW_MAX || (base < 5ULL << 30 && end > 4ULL << 30)))
		return false;
	for (uint32_t i = 0; i < bus->count; i++) {
		if (base < bus->slots[i].end && bus->slots[i].base < end)
			return false;
	}
	return true;
}

struct tally {
	uint64_t mapped, refused;
};

static void check_bar(const struct pci_function *fn, unsigned int i, unsigned int *regions, unsigned int *slots,
		      struct tally *tally)
{
	const struct pci_bar *bar = &fn->bars[i];
	uint64_t want = wanted(fn, i);

	if (bar->mapped == PCI_UNMAPPED) {
		assert_false(want != PCI_UNMAPPED && free_for(bar, want));
		tally->refused += want != PCI_UNMAPPED;
		return;
	}
	tally->mapped++;
	assert_true(bar->mapped == want);
	struct bus *bus = bar->flags & PCI_BAR_IO ? &fake->vm.pio : &fake->vm.mmio;
	bool found = false;
	for (uint32_t j = 0; j < bus->count; j++)
		found |= bus->slots[j].region == &bar->region && bus->slots[j].base == want &&
			 bus->slots[j].end == want + bar->size;
	assert_true(found);
	++*regions;
	for (unsigned int j = 0; j < bar->nr_segments; j++) {
		const struct pci_bar_segment *s = &bar->segments[j];
		if (!s->host)
			continue;
		assert_true(s->slot >= 0 && fake->slots[s->slot].used);
		assert_true(fake->slots[s->slot].gpa == want + s->offset && fake->slots[s->slot].host == s->host);
		++*slots;
	}
}

static void check_all(struct tally *tally)
{
	struct pci_bus *bus = fake->vm.pci;
	unsigned int regions = 2 + (bus->ecam_mapped != PCI_UNMAPPED), slots = 0, used = 0;

	for (unsigned int i = 0; i < PCI_FUNCTIONS; i++) {
		const struct pci_function *fn = bus->functions[i];
		for (unsigned int j = 0; fn && j < PCI_BARS; j++) {
			if (fn->bars[j].size)
				check_bar(fn, j, &regions, &slots, tally);
			else
				assert_true(fn->bars[j].mapped == PCI_UNMAPPED);
		}
	}
	assert_int_equal(fake->vm.pio.count + fake->vm.mmio.count, regions);
	for (unsigned int i = 0; i < FAKE_SLOTS; i++)
		used += fake->slots[i].used;
	assert_int_equal(used, slots);
	assert_true(bus->ecam_mapped == PCI_UNMAPPED || bus->ecam_mapped == bus->ecam_wanted);
}

/* Values that make addresses meet. */
static uint32_t hostile_value(uint64_t *random)
{
	uint32_t value = xorshift(random);

	switch (xorshift(random) % 12) {
	case 0:
		return UINT32_MAX;
	case 1:
		return 0;
	case 2:
		return MMIO32 + (value % 8) * 0x1000;
	case 3:
		return 0xc000 + (value % 8) * 0x10;
	case 4:
		return value % 16;
	case 5:
		return ECAM + (value % 4) * 0x10000000 + 1;
	case 6:
		return MMIO32 + (value % 8) * 0x10000;
	case 7:
		return value;
	default:
		return MMIO32 + (value % 64) * 0x1000;
	}
}

static unsigned int hostile_register(uint64_t *random)
{
	switch (xorshift(random) % 8) {
	case 0:
		return PCI_COMMAND + xorshift(random) % 2;
	case 1:
	case 2:
	case 3:
		return PCI_BAR0 + 4 * (xorshift(random) % 6);
	case 4:
		return PCI_BAR0 + xorshift(random) % 24;
	case 5:
		return 0x60 + xorshift(random) % 8;
	default:
		return xorshift(random) % (xorshift(random) % 4 ? 256 : 4096);
	}
}

static void hostile_access(uint64_t *random, const unsigned int *devfns, unsigned int count)
{
	unsigned int devfn = devfns[xorshift(random) % count], reg = hostile_register(random);
	unsigned int size = xorshift(random) % 2 ? 4 : 1u << xorshift(random) % 3;
	uint32_t value = hostile_value(random);

	/* Mostly enabled, or there is nothing to collide. */
	if (reg == PCI_COMMAND && xorshift(random) % 4)
		value |= PCI_COMMAND_IO | PCI_COMMAND_MEMORY;
	if (reg == 0x60 && xorshift(random) % 4)
		value |= 1;
	switch (xorshift(random) % 8) {
	case 0:
		port_write(devfn, reg & 0xff, size, value);
		break;
	case 1:
		store(ECAM + devfn * 4096 + reg, 8, (uint64_t)xorshift(random) % 16 << 32 | value);
		break;
	case 2:
		store(MMIO32 + value % 0x40000, 1u << xorshift(random) % 4, xorshift(random));
		break;
	case 3:
		load(MMIO32 + value % 0x40000, 1u << xorshift(random) % 4);
		break;
	case 4:
		out(value % 0x10000, size, value);
		in(value % 0x10000, size);
		break;
	default:
		wr(devfn, reg, size, value);
	}
}

static void hostile_guest(void **state)
{
	uint64_t writes = env("PCI_TEST_WRITES", 1000000), random = env("PCI_TEST_SEED", 1) * 2654435761u + 7;
	struct pci_function *t = testdev(0x10000, 8);
	struct pci_function *mixed = plain(PCI_DEVFN(6, 2), "mixed");
	static uint8_t pages[0x4000] __attribute__((aligned(4096)));

	(void)state;
	assert_int_equal(pci_add_bar(mixed, 0, 0x8000, PCI_BAR_MEM32), 0);
	assert_int_equal(pci_bar_add_memory(mixed, 0, 0, 0x2000, pages, false), 0);
	assert_int_equal(pci_bar_add_memory(mixed, 0, 0x4000, 0x2000, pages + 0x2000, true), 0);
	assert_int_equal(msix_init(mixed, 3, 0, 0x2000, 0, 0x3000), 0);
	assert_int_equal(pci_add_bar(mixed, 4, 0x1000, PCI_BAR_MEM64), 0);
	echo(PCI_DEVFN(7, 0), "e0", 0x1000, PCI_BAR_MEM32, 1);
	echo(PCI_DEVFN(8, 0), "e1", 0x10, PCI_BAR_IO, 2);
	echo(PCI_DEVFN(9, 0), "e2", 0x20000, PCI_BAR_MEM64, 3);
	const unsigned int devfns[] = {
		t->devfn, PCI_DEVFN(6, 2), PCI_DEVFN(7, 0), PCI_DEVFN(8, 0), PCI_DEVFN(9, 0), 0
	};
	assert_int_equal(pci_assign_resources(fake->vm.pci), 0);
	struct tally tally = { 0 };
	for (uint64_t i = 0; i < writes; i++) {
		hostile_access(&random, devfns, 6);
		if (i % 16 == 0)
			check_all(&tally);
		if (i % 50000 == 49999) {
			reset_machine();
			check_all(&tally);
			assert_true(t->bars[2].mapped == t->bars[2].assigned);
		}
	}
	/* Often mapped and often refused, or the run showed nothing. */
	assert_true(tally.mapped > writes / 16);
	assert_true(tally.refused > writes / 16);
}

/* A device with memory that somebody else may take away. */
struct foreign {
	struct pci_function fn;
	uint64_t moved[4];
	unsigned int nr_moved, trapped, asked_sure, asked;
	bool guilty;
};

static void foreign_moved(struct pci_function *fn, unsigned int index, uint64_t address)
{
	struct foreign *f = (struct foreign *)fn;

	assert_int_equal(index, 0);
	f->moved[f->nr_moved++ % 4] = address;
}

static bool foreign_fault(struct pci_function *fn, bool sure)
{
	struct foreign *f = (struct foreign *)fn;

	f->asked_sure += sure;
	f->asked++;
	if (!f->guilty)
		return false;
	pci_bar_lose(fn, 0);
	return true;
}

static uint64_t foreign_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct foreign *f = opaque;

	f->trapped++;
	return offset + size;
}

static const struct io_ops foreign_io = { foreign_read, NULL };

static void foreign_memory(void **state)
{
	static const struct pci_function_ops ops = { .destroy = plain_destroy,
						     .bar_moved = foreign_moved,
						     .memory_fault = foreign_fault };
	unsigned int devfn = PCI_DEVFN(4, 0);
	struct foreign *f = calloc(1, sizeof(*f));
	static _Alignas(4096) uint8_t memory[8192];

	(void)state;
	assert_non_null(f);
	assert_int_equal(pci_function_init(&f->fn, fake->vm.pci, devfn, "foreign", &plain_ids, &ops), 0);
	assert_int_equal(pci_add_bar(&f->fn, 0, 16384, PCI_BAR_MEM32), 0);
	assert_int_equal(pci_bar_add_foreign(&f->fn, 0, 0, 8192, memory, false, &foreign_io, f), 0);
	wr(devfn, PCI_BAR0, 4, MMIO32);
	wr(devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(f->nr_moved, 1);
	assert_int_equal(f->moved[0], MMIO32);
	assert_true(fake->slots[0].used && fake->slots[0].host == memory);
	/* What exits although the memory is mapped does not touch it. */
	memset(memory, 0x55, sizeof(memory));
	assert_int_equal(load(MMIO32 + 16, 4), 20);
	store(MMIO32 + 16, 4, 0);
	assert_int_equal(memory[16], 0x55);
	assert_int_equal(f->trapped, 1);
	assert_int_equal(load(MMIO32 + 8192, 4), UINT32_MAX); /* behind it */
	wr(devfn, PCI_BAR0, 4, MMIO32 + 0x100000);
	assert_int_equal(f->nr_moved, 3);
	assert_int_equal(f->moved[1], PCI_UNMAPPED);
	assert_int_equal(f->moved[2], MMIO32 + 0x100000);
	/* A fault for which nobody answers, and one for which the function does. */
	struct device *bus = &fake->vm.pci->device;
	assert_false(bus->class->memory_fault(bus));
	assert_int_equal(f->asked, 2);
	assert_int_equal(f->asked_sure, 1);
	f->guilty = true;
	assert_true(bus->class->memory_fault(bus));
	assert_int_equal(f->asked, 3);
	assert_false(fake->slots[0].used);
	assert_int_equal(load(MMIO32 + 0x100000, 4), 4);
	/* It does not come back. */
	wr(devfn, PCI_BAR0, 4, MMIO32);
	assert_false(fake->slots[0].used);
	assert_int_equal(load(MMIO32, 4), 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(header),	 T(absent_reads_ones),	 T(multifunction),
		T(address_port), T(reset_control),	 T(sizing),
		T(bad_bars),	 T(enable_move_disable), T(segments),
		T(overlaps),	 T(overlaps_wide),	 T(bars_trade_places),
		T(io_bar),	 T(memory_bar),		 T(ports_and_ecam_agree),
		T(capabilities), T(foreign_memory),	 T(hostile_guest),
	};

	return cmocka_run_group_tests_name("pci", tests, NULL, NULL);
}
