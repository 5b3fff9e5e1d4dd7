/* SPDX-License-Identifier: MIT */
/* The PCI windows: ECAM, the bridges, assignment of resources, the description in the device tree. */
#include "tests/unit/pci_fake.h"

static int setup_firmware(void **state)
{
	struct pci_windows windows = default_windows();

	(void)state;
	windows.ecam = 0;
	windows.lpc = true;
	windows.coalesce_address = false;
	start(&windows);
	return 0;
}

static int setup_bare(void **state)
{
	(void)state;
	start(NULL);
	return 0;
}

static void ecam_edges(void **state)
{
	struct pci_function *fn = testdev(0x10000, 1);
	uint64_t base = ECAM + fn->devfn * 4096;

	(void)state;
	assert_int_equal(load(base + 1, 2), 0x051b);
	assert_int_equal(load(base + 1, 4), 0x00000500 | 0x1b);
	assert_int_equal(load(base + 4095, 2), 0xffff);
	assert_true(load(base + 4092, 8) == UINT64_MAX);
	store(base + 4092, 8, 0);
	assert_int_equal(load(base + 0x100, 4), 0x0001000b);
	store(base + 0x109, 2, 0xbeef);
	assert_int_equal(load(base + 0x108, 4), 0x00beef00);
	store(base + 0x106, 4, 0xffffffff);
	assert_int_equal(load(base + 0x104, 8), 0x00beffff00c00000);
	assert_int_equal(load(ECAM + PCI_ECAM_SIZE - 4, 4), UINT32_MAX);
	assert_int_equal(load(ECAM + PCI_ECAM_SIZE, 4), UINT32_MAX);
}

static void ecam_moves(void **state)
{
	const unsigned int devfn = PCI_DEVFN(1, 0);
	struct pci_function *fn = echo(devfn, "e", 0x1000, PCI_BAR_MEM32, 1);

	(void)state;
	assert_int_equal(rd(0, 0x60, 4), ECAM | 1);
	/* As firmware does it, through the ports. */
	port_write(0, 0x60, 4, 0);
	assert_int_equal(load(ECAM, 4), UINT32_MAX);
	port_write(0, 0x64, 4, 0);
	port_write(0, 0x60, 4, 0xb0000001);
	assert_int_equal(load(0xb0000000, 4), 0x29c08086);
	/* A write through ECAM may move ECAM. */
	store(0xb0000060, 4, 0x90000001);
	assert_int_equal(load(0xb0000000, 4), UINT32_MAX);
	assert_int_equal(load(0x90000000, 4), 0x29c08086);
	/* 64 MiB windows are finer; length 3 does not exist. */
	store(0x90000060, 4, 0x94000005);
	assert_int_equal(load(0x94000000, 4), 0x29c08086);
	port_write(0, 0x60, 4, 0x94000007);
	assert_int_equal(load(0x94000000, 4), UINT32_MAX);
	/* Over a BAR, over RAM: off; and the BAR gives way. */
	wr(devfn, PCI_BAR0, 4, 0xa0080000);
	wr(devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	port_write(0, 0x60, 4, 0xa0000001);
	assert_int_equal(load(0xa0000000, 4), UINT32_MAX);
	assert_int_equal(load(0xa0080000, 4), 0x10000);
	wr(devfn, PCI_COMMAND, 2, 0);
	assert_int_equal(load(0xa0000000, 4), 0x29c08086);
	wr(devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_true(fn->bars[0].mapped == PCI_UNMAPPED);
	port_write(0, 0x60, 4, 0x10000001);
	assert_true(fake->vm.pci->ecam_mapped == PCI_UNMAPPED);
	assert_int_equal(load(0xa0080000, 4), 0x10000);
	/* Above 4 GiB. */
	port_write(0, 0x64, 4, 0xff);
	port_write(0, 0x60, 4, 0xc0000001);
	assert_int_equal(load(0xfc0000000, 4), 0x29c08086);
	reset_machine();
	assert_int_equal(load(ECAM, 4), 0x29c08086);
}

static void firmware_bridges(void **state)
{
	const unsigned int lpc = PCI_DEVFN(31, 0);

	(void)state;
	assert_int_equal(fake->vm.mmio.count, 0);
	assert_int_equal(fake->coalesced, 0);
	assert_int_equal(rd(0, 0x60, 4), 0);
	port_write(0, 0x60, 4, ECAM | 1);
	assert_int_equal(load(ECAM + lpc * 4096, 4), 0x29188086);
	assert_int_equal(rd(lpc, 8, 4), 0x06010002);
	assert_int_equal(rd(lpc, PCI_HEADER_TYPE, 1), 0);
	assert_int_equal(rd(lpc, 0x40, 4), 0x601);
	assert_int_equal(rd(lpc, 0x44, 1), 0x80);
	wr(lpc, 0x40, 4, 0);
	assert_int_equal(rd(lpc, 0x40, 4), 0x601);
	wr(lpc, 0x60, 4, 0x0b0b0a0a);
	wr(lpc, 0x6b, 1, 0x05);
	wr(lpc, 0xf0, 4, 0xfed1c001);
	assert_int_equal(rd(lpc, 0x60, 4), 0x0b0b0a0a);
	assert_int_equal(rd(lpc, 0x68, 4), 0x05808080);
	assert_int_equal(rd(lpc, 0xf0, 4), 0xfed1c001);
	reset_machine();
	assert_int_equal(rd(lpc, 0x60, 4), 0x80808080);
	assert_int_equal(fake->vm.mmio.count, 0);
}

static void creation_fails_clean(void **state)
{
	struct pci_windows windows = default_windows();
	struct region in_the_way = { .name = "x", .base = 0xcfc, .length = 1, .ops = &echo_ops };

	(void)state;
	windows.ecam = 0xe1000000;
	assert_int_equal(pci_bus_create(&fake->vm, &windows), -EINVAL);
	windows.ecam = 0x10000000; /* RAM */
	assert_int_equal(pci_bus_create(&fake->vm, &windows), -EEXIST);
	assert_int_equal(bus_add(&fake->vm.pio, &in_the_way), 0);
	windows.ecam = ECAM;
	assert_int_equal(pci_bus_create(&fake->vm, &windows), -EEXIST);
	assert_int_equal(bus_remove(&fake->vm.pio, &in_the_way), 0);
	assert_int_equal(fake->vm.pio.count, 0);
	assert_int_equal(fake->vm.mmio.count, 0);
	assert_null(fake->vm.pci);
	assert_null(fake->vm.devices);
	assert_int_equal(pci_bus_create(&fake->vm, &windows), 0);
	assert_int_equal(pci_testdev_create(fake->vm.pci, 0x1800, 1), -EINVAL);
	assert_int_equal(pci_testdev_create(fake->vm.pci, 0x1000, 0), -EINVAL);
	assert_int_equal(pci_testdev_create(fake->vm.pci, 0x1000, FAKE_GSIS), -ENOSPC);
	assert_int_equal(fake->routes_in_use, 0);
	assert_int_equal(rd(PCI_DEVFN(1, 0), 0, 4), UINT32_MAX);
}

static void resources(void **state)
{
	struct pci_bus *bus = fake->vm.pci;
	struct pci_function *t = testdev(0x40000000, 4);
	struct pci_function *small = echo(PCI_DEVFN(2, 0), "small", 0x10, PCI_BAR_MEM32, 1);
	struct pci_function *big = echo(PCI_DEVFN(3, 0), "big", 0x1000000, PCI_BAR_MEM64, 2);
	struct pci_function *idle = plain(PCI_DEVFN(4, 0), "idle");
	struct pci_function *next = echo(PCI_DEVFN(5, 0), "next", 0x10, PCI_BAR_MEM32, 3);

	(void)state;
	assert_int_equal(pci_assign_resources(bus), 0);
	assert_true(big->bars[0].mapped == MMIO32);
	assert_true(t->bars[4].mapped == MMIO32 + 0x1000000);
	assert_true(t->bars[0].mapped == MMIO32 + 0x1010000);
	assert_true(small->bars[0].mapped == MMIO32 + 0x1011000);
	assert_true(next->bars[0].mapped == MMIO32 + 0x1012000); /* a page of its own */
	assert_true(t->bars[2].mapped == MMIO64);
	assert_true(t->bars[1].mapped == IO);
	assert_int_equal(rd(t->devfn, PCI_COMMAND, 2), PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
	assert_int_equal(rd(big->devfn, PCI_COMMAND, 2), PCI_COMMAND_MEMORY);
	assert_int_equal(rd(idle->devfn, PCI_COMMAND, 2), 0);
	assert_int_equal(load(MMIO32 + 0x1010000, 4), TESTDEV_ID);
	/* The guest rearranges, even into each other's places; a reset puts all back. */
	wr(big->devfn, PCI_BAR0, 4, 0);
	wr(t->devfn, PCI_BAR0, 4, MMIO32);
	wr(small->devfn, PCI_COMMAND, 2, 0);
	store(MMIO64 + 0x1000, 4, 5);
	reset_machine();
	assert_true(big->bars[0].mapped == MMIO32);
	assert_true(t->bars[0].mapped == MMIO32 + 0x1010000);
	assert_true(small->bars[0].mapped == MMIO32 + 0x1011000);
	assert_int_equal(load(MMIO64 + 0x1000, 4), 0);
	assert_int_equal(fake->lines, 0);
}

static void resources_run_out(void **state)
{
	struct pci_bus *bus = fake->vm.pci;

	(void)state;
	struct pci_function *a = echo(PCI_DEVFN(2, 0), "first", 0x10000000, PCI_BAR_MEM32, 1);
	struct pci_function *b = echo(PCI_DEVFN(3, 0), "second", 0x20000000, PCI_BAR_MEM32, 1);
	assert_int_equal(pci_assign_resources(bus), -ENOSPC);
	assert_int_equal(fake->lines, 1);
	assert_non_null(strstr(fake->line, "first.bar0"));
	assert_true(a->bars[0].mapped == PCI_UNMAPPED && b->bars[0].mapped == PCI_UNMAPPED);
	assert_int_equal(rd(b->devfn, PCI_BAR0, 4), 0);
	assert_int_equal(rd(b->devfn, PCI_COMMAND, 2), 0);
	reset_machine();
	assert_true(b->bars[0].mapped == PCI_UNMAPPED);
}

static void resources_spill(void **state)
{
	struct pci_bus *bus = fake->vm.pci;

	(void)state;
	/* Each kind of 64-bit BAR goes to the other window when its own is too small. */
	bus->windows.mmio64.size = 0x10000000;
	struct pci_function *a = echo(PCI_DEVFN(2, 0), "a", 0x20000000, PCI_BAR_MEM64 | PCI_BAR_PREFETCH, 1);
	struct pci_function *b = echo(PCI_DEVFN(3, 0), "b", 0x10000000, PCI_BAR_MEM64, 1);
	assert_int_equal(pci_assign_resources(bus), 0);
	assert_true(a->bars[0].mapped == MMIO32);
	assert_true(b->bars[0].mapped == MMIO64);
}

static void resources_taken(void **state)
{
	struct region other = { .name = "other", .base = MMIO32 + 0x100, .length = 4, .ops = &echo_ops };
	struct pci_function *a = echo(PCI_DEVFN(2, 0), "a", 0x1000, PCI_BAR_MEM32, 1);

	(void)state;
	assert_int_equal(bus_add(&fake->vm.mmio, &other), 0);
	assert_int_equal(pci_assign_resources(fake->vm.pci), -EBUSY);
	assert_int_equal(fake->lines, 1);
	assert_int_equal(rd(a->devfn, PCI_COMMAND, 2), 0);
	assert_int_equal(bus_remove(&fake->vm.mmio, &other), 0);
	assert_int_equal(pci_assign_resources(fake->vm.pci), 0);
	assert_true(a->bars[0].mapped == MMIO32);
}

static void describe(void **state)
{
	struct device *dev = fake->vm.devices;
	char fdt[4096];
	int length;

	(void)state;
	assert_int_equal(fdt_create(fdt, sizeof(fdt)), 0);
	assert_int_equal(fdt_finish_reservemap(fdt), 0);
	assert_int_equal(fdt_begin_node(fdt, ""), 0);
	assert_int_equal(dev->class->build_fdt(dev, fdt), 0);
	assert_int_equal(fdt_end_node(fdt), 0);
	assert_int_equal(fdt_finish(fdt), 0);
	int node = fdt_path_offset(fdt, "/pci@e0000000");
	assert_true(node > 0);
	const fdt32_t *reg = fdt_getprop(fdt, node, "reg", &length);
	assert_int_equal(length, 16);
	assert_int_equal(fdt32_to_cpu(reg[1]), ECAM);
	assert_int_equal(fdt32_to_cpu(reg[3]), PCI_ECAM_SIZE);
	const fdt32_t *ranges = fdt_getprop(fdt, node, "ranges", &length);
	assert_int_equal(length, 3 * 7 * 4);
	assert_int_equal(fdt32_to_cpu(ranges[0]), 0x01000000);
	assert_int_equal(fdt32_to_cpu(ranges[2]), IO);
	assert_int_equal(fdt32_to_cpu(ranges[7 + 4]), MMIO32);
	assert_int_equal(fdt32_to_cpu(ranges[14 + 1]), MMIO64 >> 32);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(ecam_edges),
		T(ecam_moves),
		cmocka_unit_test_setup_teardown(firmware_bridges, setup_firmware, teardown),
		cmocka_unit_test_setup_teardown(creation_fails_clean, setup_bare, teardown),
		T(resources),
		T(resources_run_out),
		T(resources_spill),
		T(resources_taken),
		T(describe),
	};

	return cmocka_run_group_tests_name("pci_windows", tests, NULL, NULL);
}
