/* SPDX-License-Identifier: MIT */
/*
 * How long a doorbell to another guest and its answer take, and how fast the shared memory is: the guests of the
 * benchmark "ivshmem" (docs/performance.md). By the PVH entry, which QEMU has too.
 *
 * Arguments: what=bell, role=0 (takes the time) or 1 (answers); or what=bar or what=ram, which reads and writes a piece
 * of 64 KiB, a different one each time, of BAR2 or of the guest's own memory. count=N, warm=N before, tsc_khz=N.
 * Both guests wait by HLT. The device has two vectors: bells, and hellos until both have come.
 */
#include "rt/apic.h"
#include "rt/bench.h"
#include "rt/io.h"
#include "rt/pci.h"
#include "rt/rt.h"

__asm__(".section .note.pvh, \"a\", @note\n"
	"	.balign	4\n"
	"	.long	4, 4, 18\n" /* XEN_ELFNOTE_PHYS32_ENTRY */
	"	.asciz	\"Xen\"\n"
	"	.long	pvh_start\n"
	"	.text\n");

enum { COMMAND = 4, COMMAND_MASTER = 4, CAP_MSIX = 0x11, MSIX_ENABLE = 0x8000 };
enum { POSITION = 8, DOORBELL = 12 }; /* QEMU docs/specs/ivshmem-spec.rst */
enum { BELL, HELLO, VECTORS };
enum { ID = 0, HEARD = 4, PARTY = 8, END = 16 }; /* in the memory */

#define VECTOR	  0x70
#define MSI_BASE  0xfee00000u
#define GIB	  (1ULL << 30)
#define COUNT_MAX 20000
#define PIECE	  65536u
#define PIECES	  128 /* beyond what caches keep */
#define RAM	  (32u << 20)

/* ACPI's PM1 control register, where vmm and QEMU's q35 have it: sleep enable, type 0. */
#define PM1_CONTROL 0x604
#define POWER_OFF   0x2000

static uint32_t samples[COUNT_MAX];
static uint64_t regs, memory;
static volatile bool rung;
static uint32_t peer;

static void bell_came(struct rt_frame *frame)
{
	(void)frame;
	rung = true;
	lapic_eoi();
}

static void find_device(void)
{
	unsigned int devfn = pci_find(0x1af4, 0x1110), cap;
	uint64_t table;

	CHECK(devfn != PCI_NONE);
	regs = pci_bar(devfn, 0);
	table = pci_bar(devfn, 1);
	memory = pci_bar(devfn, 2);
	if (memory >= 4 * GIB)
		rt_map_gib((unsigned int)(memory / GIB));
	cap = pci_capability(devfn, CAP_MSIX);
	CHECK(cap);
	for (uint32_t i = 0; i < VECTORS; i++) {
		write32(table + 16 * i, MSI_BASE | lapic_id() << 12);
		write32(table + 16 * i + 4, 0);
		write32(table + 16 * i + 8, VECTOR + i);
		write32(table + 16 * i + 12, 0);
	}
	pci_write(devfn, COMMAND, 2, pci_read(devfn, COMMAND, 2) | COMMAND_MASTER);
	pci_write(devfn, cap + 2, 2, MSIX_ENABLE);
}

static void ring(uint32_t vector)
{
	write32(regs + DOORBELL, peer << 16 | vector);
}

/* Whoever comes late is not known at once: until both have heard, ring. */
static void meet(uint32_t role)
{
	uint64_t ours = memory + PARTY * role, theirs = memory + PARTY * (1 - role);

	write32(ours + ID, read32(regs + POSITION) + 1);
	while (!read32(theirs + ID))
		rt_delay(1000);
	peer = read32(theirs + ID) - 1;
	while (!read32(ours + HEARD) || !read32(theirs + HEARD)) {
		ring(HELLO);
		rt_delay(10000);
		irq_window();
		if (rt_interrupts[VECTOR + HELLO])
			write32(ours + HEARD, 1);
	}
}

static void wait(void)
{
	while (!rung)
		halt_until_irq();
	rung = false;
}

static uint32_t round_trip(void)
{
	uint64_t begin = rdtsc();

	ring(BELL);
	wait();
	return (uint32_t)(rdtsc() - begin);
}

static void answer(void)
{
	for (wait(); !read32(memory + END); wait())
		ring(BELL);
}

static uint32_t pass(uint64_t base, uint32_t n)
{
	volatile uint64_t *at = (volatile uint64_t *)(base + n % PIECES * PIECE), *end = at + PIECE / 8;
	uint64_t begin = rdtsc();

	for (; at != end; at += 4) {
		at[0]++;
		at[1]++;
		at[2]++;
		at[3]++;
	}
	return (uint32_t)(rdtsc() - begin);
}

static void take_time(bool bell, uint64_t base, uint32_t warm, uint32_t count)
{
	for (uint32_t i = 0; i < warm; i++)
		bell ? round_trip() : pass(base, i);
	for (uint32_t i = 0; i < count; i++)
		samples[i] = bell ? round_trip() : pass(base, i);
}

void guest_main(void)
{
	uint32_t count = (uint32_t)rt_arg_number("count", 1000), warm = (uint32_t)rt_arg_number("warm", 200);
	uint64_t khz = rt_arg_number("tsc_khz", 0);
	bool bell = rt_arg_is("what", "bell");

	CHECK(count && count <= COUNT_MAX);
	pic_off();
	lapic_enable(true);
	rt_handlers[VECTOR + BELL] = bell_came;
	find_device();
	if (bell)
		meet(rt_arg_is("role", "1"));
	if (rt_arg_is("role", "1")) {
		answer();
	} else {
		take_time(bell, rt_arg_is("what", "ram") ? RAM : memory, warm, count);
		bench_print(samples, count, khz);
		bench_stay(khz);
		write32(memory + END, 1);
		if (bell)
			ring(BELL);
	}
	outw(PM1_CONTROL, POWER_OFF);
	rt_delay(1000000);
}
