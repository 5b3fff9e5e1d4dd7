/* SPDX-License-Identifier: MIT */
/*
 * What an access to a vfio-user device takes: the guest's half of the benchmark "vfio-user" (docs/performance.md). The
 * device is that of tests/bench/vfio_user.c.
 *
 * Arguments: test=read, a register is read; write, VFUB_BATCH registers are written and then one is read, of which the
 * sample is one access's share; doorbell, it is rung, and seen to have been heard in memory that is mapped; fetch and
 * store, the device copies VFUB_CHUNK bytes; exit, an access leaves the guest and nothing else. count=N samples, warm=N
 * before them.
 */
#include "../bench/vfio_user.h"
#include "rt/bench.h"
#include "rt/io.h"
#include "rt/pci.h"
#include "rt/rt.h"

#define GIB	  (1ULL << 30)
#define MEMORY	  2	    /* bits of the command register: memory and bus master */
#define BUFFER	  0x1000000 /* RAM that nobody uses */
#define COUNT_MAX 20000
#define NOWHERE	  0x1000000 /* from the BARs on */

/* For monitors that take an ELF file by this entry only. */
__asm__(".section .note.pvh, \"a\", @note\n"
	"	.balign	4\n"
	"	.long	4, 4, 18\n" /* XEN_ELFNOTE_PHYS32_ENTRY */
	"	.asciz	\"Xen\"\n"
	"	.long	pvh_start\n"
	"	.text\n");

static uint32_t samples[COUNT_MAX];
static uint64_t regs, memory, bell;

static uint64_t bar(unsigned int devfn, unsigned int index)
{
	uint64_t address = pci_bar(devfn, index);

	CHECK(address);
	if (address >= 4 * GIB)
		rt_map_gib((unsigned int)(address / GIB));
	return address;
}

static void find(void)
{
	unsigned int devfn = pci_find(VFUB_VENDOR, VFUB_DEVICE);

	CHECK(devfn != PCI_NONE);
	pci_write(devfn, 4, 2, MEMORY | 4);
	regs = bar(devfn, 0);
	memory = bar(devfn, 2);
	bell = bar(devfn, 4);
	CHECK_EQ(read32(regs + VFUB_ID), VFUB_MAGIC);
	write32(regs + VFUB_ADDRESS, BUFFER);
}

static void test_read(void)
{
	read32(regs + VFUB_ID);
}

static void test_write(void)
{
	for (uint32_t i = 0; i < VFUB_BATCH; i++)
		write32(regs + VFUB_SCRATCH, i);
	read32(regs + VFUB_ID);
}

static void test_doorbell(void)
{
	uint32_t before = read32(memory);

	write32(bell, 1);
	while (read32(memory) == before)
		;
}

/* An address where nothing is: what an access costs that nobody has to be asked for. */
static void test_exit(void)
{
	read32(regs + NOWHERE);
}

static void test_fetch(void)
{
	CHECK_EQ(read32(regs + VFUB_FETCH), 0);
}

static void test_store(void)
{
	CHECK_EQ(read32(regs + VFUB_STORE), 0);
}

static const struct {
	const char *name;
	void (*run)(void);
	uint32_t share;
} tests[] = {
	{ "read", test_read, 1 },	  { "write", test_write, VFUB_BATCH + 1 },
	{ "doorbell", test_doorbell, 1 }, { "fetch", test_fetch, 1 },
	{ "store", test_store, 1 },	  { "exit", test_exit, 1 },
};

static void measure(void (*run)(void), uint32_t share)
{
	uint32_t count = (uint32_t)rt_arg_number("count", 1000), warm = (uint32_t)rt_arg_number("warm", 100);
	uint64_t khz = bench_calibrate();

	CHECK(count && count <= COUNT_MAX);
	while (warm--)
		run();
	for (uint32_t i = 0; i < count; i++) {
		uint64_t begin = rdtsc();

		run();
		samples[i] = (uint32_t)(rdtsc() - begin) / share;
	}
	bench_print(samples, count, khz);
	bench_stay(khz);
}

void guest_main(void)
{
	find();
	for (unsigned int i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		if (!rt_arg_is("test", tests[i].name))
			continue;
		measure(tests[i].run, tests[i].share);
		return;
	}
	CHECK(false);
}
