/* SPDX-License-Identifier: MIT */
/* The ivshmem device from the guest's side (QEMU docs/specs/ivshmem-spec.rst); test=NAME says what of it. */
#include "rt/apic.h"
#include "rt/io.h"
#include "rt/pci.h"
#include "rt/rt.h"

/* By the PVH entry, which QEMU has too. */
__asm__(".section .note.pvh, \"a\", @note\n"
	"	.balign	4\n"
	"	.long	4, 4, 18\n" /* XEN_ELFNOTE_PHYS32_ENTRY */
	"	.asciz	\"Xen\"\n"
	"	.long	pvh_start\n"
	"	.text\n");

#define MSI_BASE 0xfee00000u
#define VECTOR	 0x70
#define INTX	 0x60
#define LONG	 20000000u /* microseconds in which what is due has come, on a machine that is busy */
#define QUIET	 2000	   /* microseconds in which something that was sent would have arrived */
#define GIB	 (1ULL << 30)
#define MOVED	 0x90000000u /* free in the 32-bit window */
#define PATTERN	 0x1122334455667788ULL

enum { MASK = 0, STATUS = 4, POSITION = 8, DOORBELL = 12, REGISTERS = 256 };
enum { COMMAND = 4, COMMAND_MEMORY = 2, COMMAND_MASTER = 4 };
enum { CAP_MSIX = 0x11, MSIX_ENABLE = 0x8000, MSIX_MASK = 0x4000 };

static unsigned int devfn, cap;
static uint64_t regs, table, memory, size;
static uint32_t vectors, pba;

static void find_device(void)
{
	devfn = pci_find(0x1af4, 0x1110);
	CHECK(devfn != PCI_NONE);
	CHECK(pci_read(devfn, COMMAND, 2) & COMMAND_MEMORY);
	regs = pci_bar(devfn, 0);
	table = pci_bar(devfn, 1);
	memory = pci_bar(devfn, 2);
	size = rt_arg_number("size", 65536);
	if (memory >= 4 * GIB)
		rt_map_gib((unsigned int)(memory / GIB));
}

static void quiet(void)
{
	rt_delay(QUIET);
	irq_window();
}

static void ids(uint8_t revision, uint8_t pin)
{
	CHECK_EQ(pci_read(devfn, 8, 4), 0x05000000 | revision);
	CHECK_EQ(pci_read(devfn, 0x2c, 4), 0x11001af4);
	CHECK_EQ(pci_read(devfn, 0x3d, 1), pin);
}

static uint64_t size_of(unsigned int index)
{
	unsigned int reg = 0x10 + 4 * index;
	uint32_t low = pci_read(devfn, reg, 4), high = pci_read(devfn, reg + 4, 4);
	uint64_t mask;

	pci_write(devfn, reg, 4, UINT32_MAX);
	mask = pci_read(devfn, reg, 4) & 0xfffffff0;
	if ((low & 6) == 4) {
		pci_write(devfn, reg + 4, 4, UINT32_MAX);
		mask |= (uint64_t)pci_read(devfn, reg + 4, 4) << 32;
		pci_write(devfn, reg + 4, 4, high);
	} else if (mask) {
		mask |= 0xffffffff00000000;
	}
	pci_write(devfn, reg, 4, low);
	return ~mask + 1;
}

static void sizing(bool msix)
{
	uint16_t command = (uint16_t)pci_read(devfn, COMMAND, 2);
	uint64_t bar = rt_arg_number("bar", size);

	for (int decode = 0; decode < 2; decode++) {
		pci_write(devfn, COMMAND, 2, decode ? command : command & ~COMMAND_MEMORY);
		CHECK_EQ(size_of(0), REGISTERS);
		CHECK_EQ(size_of(2), bar);
		CHECK_EQ(size_of(4), 0);
		if (msix)
			CHECK_EQ(size_of(1), vectors > 128 ? 0x2000 : 0x1000); /* as far as vectors are 1, 4 or 300 */
		else
			CHECK_EQ(pci_read(devfn, 0x14, 4), 0);
	}
	CHECK_EQ(pci_read(devfn, 0x18, 4) & 15, 12); /* 64 bits, prefetchable */
}

/* Four bytes, aligned: every other width reads all ones and writes nothing. */
static void widths(uint32_t position)
{
	write32(regs + MASK, 0x12345678);
	CHECK_EQ(read32(regs + MASK), 0x12345678);
	write8(regs + MASK, 0xff);
	write16(regs + MASK, 0xffff);
	write64(regs + MASK, UINT64_MAX);
	write32(regs + MASK + 2, UINT32_MAX);
	CHECK_EQ(read32(regs + MASK), 0x12345678);
	write32(regs + MASK, 0);
	write32(regs + STATUS, 6);
	CHECK_EQ(read32(regs + STATUS), 6);
	CHECK_EQ(read32(regs + STATUS), 0); /* reading clears it */
	CHECK_EQ(read32(regs + POSITION), position);
	write32(regs + POSITION, 77);
	CHECK_EQ(read32(regs + POSITION), position);
	CHECK_EQ(read32(regs + DOORBELL), 0);
	for (uint64_t at = 16; at < REGISTERS; at += 4) {
		write32(regs + at, UINT32_MAX);
		CHECK_EQ(read32(regs + at), 0);
	}
	for (uint64_t at = 0; at < 16; at++) {
		CHECK_EQ(read8(regs + at), 0xff);
		CHECK_EQ(read16(regs + at), 0xffff);
		CHECK_EQ(read64(regs + at), UINT64_MAX);
		if (at % 4)
			CHECK_EQ(read32(regs + at), UINT32_MAX);
	}
	CHECK_EQ(read32(regs + REGISTERS - 2), UINT32_MAX); /* across the end */
}

static void memory_bar(void)
{
	uint16_t command = (uint16_t)pci_read(devfn, COMMAND, 2);

	for (uint64_t at = 0; at < size; at += 4096)
		write64(memory + at, at ^ PATTERN);
	for (uint64_t at = 0; at < size; at += 4096)
		CHECK_EQ(read64(memory + at), at ^ PATTERN);
	if (rt_arg_number("bar", size) > size) /* not a power of two: nothing is behind it */
		CHECK_EQ(read64(memory + size), UINT64_MAX);
	pci_write(devfn, 0x18, 4, MOVED);
	pci_write(devfn, 0x1c, 4, 0);
	CHECK_EQ(read64(MOVED + 4096), 4096 ^ PATTERN);
	CHECK_EQ(read64(memory), UINT64_MAX);
	pci_write(devfn, 0x1c, 4, (uint32_t)(memory >> 32));
	pci_write(devfn, 0x18, 4, (uint32_t)memory);
	CHECK_EQ(read64(memory + 4096), 4096 ^ PATTERN);
	CHECK_EQ(read64(MOVED), UINT64_MAX);
	pci_write(devfn, COMMAND, 2, command & ~COMMAND_MEMORY);
	CHECK_EQ(read64(memory), UINT64_MAX);
	CHECK_EQ(read32(regs + MASK), UINT32_MAX);
	write64(memory, 0);
	pci_write(devfn, COMMAND, 2, command);
	CHECK_EQ(read64(memory), PATTERN);
	CHECK_EQ(read32(regs + MASK), 0);
}

static void test_plain(void)
{
	ids(1, 0);
	CHECK(!(pci_read(devfn, 6, 2) & 0x10)); /* no capability: no MSI-X */
	sizing(false);
	widths(0);
	CHECK_EQ(read64(memory + 8), rt_arg_number("expect", 0));
	memory_bar();
	write32(regs + DOORBELL, 0); /* ignored */
	write64(memory + 8, 0x600d);
}

static void test_readonly(void)
{
	CHECK_EQ(read64(memory + 8), rt_arg_number("expect", 0));
	write64(memory + 8, 1);
	write8(memory, 1);
	CHECK_EQ(read64(memory + 8), rt_arg_number("expect", 0));
}

/* Waits for a word of the memory that somebody else writes. */
static void wait_word(uint64_t at, uint32_t value)
{
	uint64_t end = rt_ticks() + (uint64_t)LONG / 1000 * RT_TICKS_PER_MS;

	while (read32(memory + at) != value)
		CHECK(rt_ticks() < end);
}

/* Two machines with one file; the one with role=1 has it twice, and the second time it cannot write. */
static void test_pair(void)
{
	uint32_t role = (uint32_t)rt_arg_number("role", 0);
	uint64_t first = memory;

	write32(memory + 8 * role, 1);
	wait_word(8 * (1 - role), 1);
	if (role) {
		do
			devfn += 8;
		while (pci_read(devfn, 0, 4) != 0x11101af4 && devfn < PCI_NONE);
		memory = pci_bar(devfn, 2);
		CHECK(memory != first);
		if (memory >= 4 * GIB)
			rt_map_gib((unsigned int)(memory / GIB));
		CHECK_EQ(read32(memory + 8), 1);
		write32(memory + 4, 1);
		CHECK_EQ(read32(memory + 4), 0);
		write32(first + 4, 2);
		CHECK_EQ(read32(memory + 4), 2);
	} else {
		wait_word(4, 2);
	}
	rt_print("pair\n");
}

static void set_vector(uint32_t i, uint8_t vector, bool mask)
{
	write32(table + 16 * i, MSI_BASE | lapic_id() << 12);
	write32(table + 16 * i + 4, 0);
	write32(table + 16 * i + 8, vector);
	write32(table + 16 * i + 12, mask);
}

static void find_msix(void)
{
	cap = pci_capability(devfn, CAP_MSIX);
	CHECK(cap);
	vectors = (pci_read(devfn, cap + 2, 2) & 0x7ff) + 1;
	CHECK_EQ(vectors, rt_arg_number("vectors", 1));
	CHECK_EQ(pci_read(devfn, cap + 4, 4), 1); /* table: BAR1, offset 0 */
	pba = pci_read(devfn, cap + 8, 4);
	CHECK_EQ(pba, (vectors > 128 ? vectors * 16 : 2048) | 1);
	pba &= ~7u;
}

static void start_msix(void)
{
	find_msix();
	for (uint32_t i = 0; i < vectors && i < 8; i++)
		set_vector(i, (uint8_t)(VECTOR + i), false);
	/* QEMU's devices send no message without it. */
	pci_write(devfn, COMMAND, 2, pci_read(devfn, COMMAND, 2) | COMMAND_MASTER);
	pci_write(devfn, cap + 2, 2, MSIX_ENABLE);
}

static void ring_at(uint64_t base, uint32_t peer, uint32_t vector)
{
	write32(base + DOORBELL, peer << 16 | vector);
}

static void ring(uint32_t peer, uint32_t vector)
{
	ring_at(regs, peer, vector);
}

static void wait_pending(uint32_t bits)
{
	uint64_t end = rt_ticks() + 1000 * RT_TICKS_PER_MS;

	while (read32(table + pba) != bits)
		CHECK(rt_ticks() < end);
}

/* By bells rung to oneself. exits: they take a way of no known length, so no more than one may be on it. */
static void masking(uint32_t id)
{
	uint32_t before = rt_interrupts[VECTOR + 1];
	bool exits = rt_arg("exits");

	write32(table + 16 + 12, 1);
	ring(id, 1);
	if (!exits)
		ring(id, 1);
	wait_pending(1 << 1);
	quiet();
	CHECK_EQ(rt_interrupts[VECTOR + 1], before);
	CHECK_EQ(read64(table + pba), 1 << 1);
	write64(table + pba, 0); /* read-only */
	CHECK_EQ(read32(table + pba), 1 << 1);
	write32(table + 16 + 12, 0);
	CHECK(rt_wait(VECTOR + 1, before + 1, LONG));
	quiet();
	CHECK_EQ(rt_interrupts[VECTOR + 1], before + 1);
	CHECK_EQ(read32(table + pba), 0);
	pci_write(devfn, cap + 2, 2, MSIX_ENABLE | MSIX_MASK);
	ring(id, 1);
	wait_pending(1 << 1);
	quiet();
	CHECK_EQ(rt_interrupts[VECTOR + 1], before + 1);
	pci_write(devfn, cap + 2, 2, MSIX_ENABLE);
	CHECK(rt_wait(VECTOR + 1, before + 2, LONG));
	if (exits)
		return;
	/* Off: an event is lost. */
	pci_write(devfn, cap + 2, 2, 0);
	ring(id, 1);
	quiet();
	pci_write(devfn, cap + 2, 2, MSIX_ENABLE);
	quiet();
	CHECK_EQ(rt_interrupts[VECTOR + 1], before + 2);
}

static void nobody(uint32_t id)
{
	uint32_t before = rt_interrupts[VECTOR], other = rt_interrupts[VECTOR + 1];

	ring(id, vectors);
	ring(id, 0x100); /* no vector 0 in disguise */
	ring(id, 0xffff);
	ring(id + 5, 0);
	ring(0xffff, 0);
	write8(regs + DOORBELL, 0);
	write16(regs + DOORBELL, 0);
	write64(regs + DOORBELL, (uint64_t)id << 16);
	write64(regs + POSITION, (uint64_t)id << 48);
	write16(regs + DOORBELL + 2, (uint16_t)id);
	quiet();
	CHECK_EQ(rt_interrupts[VECTOR], before);
	CHECK_EQ(rt_interrupts[VECTOR + 1], other);
}

static void moved_register(uint32_t id)
{
	uint16_t command = (uint16_t)pci_read(devfn, COMMAND, 2);
	uint32_t n = rt_interrupts[VECTOR];

	pci_write(devfn, 0x10, 4, MOVED);
	ring(id, 0);
	quiet();
	CHECK_EQ(rt_interrupts[VECTOR], n);
	ring_at(MOVED, id, 0);
	CHECK(rt_wait(VECTOR, ++n, LONG));
	pci_write(devfn, 0x10, 4, (uint32_t)regs);
	ring_at(MOVED, id, 0);
	quiet();
	CHECK_EQ(rt_interrupts[VECTOR], n);
	ring(id, 0);
	CHECK(rt_wait(VECTOR, ++n, LONG));
	pci_write(devfn, COMMAND, 2, command & ~COMMAND_MEMORY);
	ring(id, 0);
	quiet();
	CHECK_EQ(rt_interrupts[VECTOR], n);
	pci_write(devfn, COMMAND, 2, command);
	ring(id, 0);
	CHECK(rt_wait(VECTOR, ++n, LONG));
}

static void test_self(void)
{
	uint32_t id = (uint32_t)rt_arg_number("id", 0);

	ids(1, 0);
	find_msix();
	sizing(true);
	widths(id);
	memory_bar();
	start_msix();
	for (uint32_t round = 1; round <= 3; round++) {
		for (uint32_t i = 0; i < vectors && i < 8; i++) {
			ring(id, i);
			CHECK(rt_wait((uint8_t)(VECTOR + i), round, LONG));
		}
	}
	if (vectors > 1)
		masking(id);
	nobody(id);
	moved_register(id);
}

/* Rings itself only: for servers that are busy with something else. */
static void test_ring(void)
{
	uint32_t id = read32(regs + POSITION), count = (uint32_t)rt_arg_number("count", 100);

	start_msix();
	for (uint32_t i = 1; i <= count; i++) {
		ring(id, 0);
		CHECK(rt_wait(VECTOR, i, LONG));
	}
}

/*
 * Does what it is told in the memory by somebody outside: word 0 counts orders, word 4 the answers; 8 is what to ring
 * (or UINT32_MAX to end), 12 tells how many interrupts have come on vector 0.
 */
static void test_serve(void)
{
	start_msix();
	write32(memory + 16, read32(regs + POSITION));
	write32(memory + 4, UINT32_MAX);
	for (uint32_t n = 1;; n++) {
		uint32_t order;

		while (read32(memory) != n) {
			irq_window();
			write32(memory + 12, rt_interrupts[VECTOR]);
			write32(memory + 20, rt_interrupts[VECTOR + 1]);
		}
		order = read32(memory + 8);
		if (order == UINT32_MAX)
			break;
		write32(regs + DOORBELL, order);
		write32(memory + 4, n);
	}
	CHECK_EQ(read32(regs + POSITION), read32(memory + 16));
}

/* A ring of numbers from the guest with role=0 to the one with role=1; both sleep until the other rings. */
enum { HELLO = 0, WRITTEN = 64, READ = 128, RING = 4096, SLOTS = 8192, BATCH = 1024 };
#define STEP 2654435761u

static uint32_t seen;

static void sleep_from(uint32_t before)
{
	uint64_t end = rt_ticks() + (uint64_t)LONG / 1000 * RT_TICKS_PER_MS;

	while (rt_interrupts[VECTOR] == before) {
		CHECK(rt_ticks() < end); /* a doorbell was lost */
		irq_window();
	}
}

/* Few instructions each: the processor may be interpreted. */
static void put_numbers(uint64_t at, uint32_t n, uint32_t count)
{
	uint32_t value = n * STEP;

	for (uint64_t end = at + 4ULL * count; at != end; at += 4, value += STEP)
		write32(at, value);
}

static void check_numbers(uint64_t at, uint32_t n, uint32_t count)
{
	uint32_t value = n * STEP;

	for (uint64_t end = at + 4ULL * count; at != end; at += 4, value += STEP)
		if (read32(at) != value)
			rt_fail_eq(__FILE_NAME__, __LINE__, "a message", read32(at), value);
}

static void produce(uint32_t peer, uint32_t count)
{
	uint32_t n = 0;

	while (n < count) {
		uint32_t before = rt_interrupts[VECTOR], room = SLOTS - (n - read32(memory + READ));
		uint32_t batch = room < BATCH ? room : BATCH;

		if (!batch) {
			sleep_from(before);
			continue;
		}
		if (batch > count - n)
			batch = count - n;
		if (batch > SLOTS - n % SLOTS)
			batch = SLOTS - n % SLOTS;
		put_numbers(memory + RING + 4ULL * (n % SLOTS), n, batch);
		n += batch;
		write32(memory + WRITTEN, n);
		ring(peer, 0);
	}
	while (read32(memory + READ) != count) {
		uint32_t before = rt_interrupts[VECTOR];

		if (read32(memory + READ) != count)
			sleep_from(before);
	}
}

static void consume(uint32_t peer, uint32_t count)
{
	uint32_t n = 0, wakes = 0;

	while (n < count) {
		uint32_t before = rt_interrupts[VECTOR], end = read32(memory + WRITTEN);

		if (n == end) {
			sleep_from(before);
			wakes++;
			continue;
		}
		CHECK(end - n <= SLOTS);
		if (end - n > SLOTS - n % SLOTS)
			end = n + SLOTS - n % SLOTS;
		check_numbers(memory + RING + 4ULL * (n % SLOTS), n, end - n);
		n = end;
		write32(memory + READ, n);
		ring(peer, 0);
	}
	rt_print("%u messages in order, woken %u times\n", n, wakes);
}

static void test_messages(void)
{
	uint32_t role = (uint32_t)rt_arg_number("role", 0), count = (uint32_t)rt_arg_number("count", 1000);
	uint32_t peer;

	start_msix();
	write32(memory + HELLO + 8 * role, read32(regs + POSITION) + 1);
	write32(memory + HELLO + 8 * role + 4, 1);
	wait_word(HELLO + 8 * (1 - role) + 4, 1);
	peer = read32(memory + HELLO + 8 * (1 - role)) - 1;
	/* Who has come later may not know of the other yet: until both were rung, ring. */
	while (!seen) {
		ring(peer, 1);
		rt_delay(1000);
		irq_window();
		if (rt_interrupts[VECTOR + 1])
			seen = 1;
	}
	write32(memory + HELLO + 8 * role + 4, 2);
	while (read32(memory + HELLO + 8 * (1 - role) + 4) != 2) {
		ring(peer, 1);
		rt_delay(1000);
		irq_window();
	}
	if (role)
		consume(peer, count);
	else
		produce(peer, count);
}

/* A party of the ring of tests/linux/ivshmem.c, which explains it, with MSI-X; not the first. */
enum { BELL_EVEN, BELL_ODD, BELL_HELLO };
enum { TOKEN = 0, ID = 4, HEARD = 8, PAGE = 4096 };

static uint64_t token_word(uint32_t token, uint32_t i)
{
	return (token * 0x9e3779b97f4a7c15ULL) ^ i;
}

static uint32_t rings(void)
{
	return rt_interrupts[VECTOR + BELL_EVEN] + rt_interrupts[VECTOR + BELL_ODD] +
	       rt_interrupts[VECTOR + BELL_HELLO];
}

static void meet(uint32_t role, uint32_t parties, uint32_t next)
{
	write32(memory + ID + 8 * role, read32(regs + POSITION) + 1);
	for (uint32_t i = 0; i < parties; i++)
		while (!read32(memory + ID + 8 * i))
			rt_delay(1000);
	while (!read32(memory + HEARD + 8 * role) || !read32(memory + HEARD + 8 * next)) {
		ring(read32(memory + ID + 8 * next) - 1, BELL_HELLO);
		rt_delay(10000);
		irq_window();
		if (rings())
			write32(memory + HEARD + 8 * role, 1);
	}
}

static void wait_bell(uint32_t n)
{
	uint8_t vector = VECTOR + (n % 2 ? BELL_ODD : BELL_EVEN);

	while (rt_interrupts[vector] < n / 2 + 1)
		halt_until_irq();
	CHECK_EQ(rt_interrupts[vector], n / 2 + 1);
}

static void test_token(void)
{
	uint32_t role = (uint32_t)rt_arg_number("role", 1), parties = (uint32_t)rt_arg_number("parties", 2);
	uint32_t rounds = (uint32_t)rt_arg_number("rounds", 100), next = (role + 1) % parties;
	uint64_t ours = memory + PAGE * (1 + role), theirs = memory + PAGE * (1 + (role + parties - 1) % parties);

	CHECK(role && role < parties);
	start_msix();
	meet(role, parties, next);
	for (uint32_t n = 0; n < rounds; n++) {
		uint32_t token = n * parties + role;

		/* Of what was rung before, the page and the token are there. */
		wait_bell(n);
		CHECK_EQ(read32(memory + TOKEN), token);
		for (uint32_t i = 0; i < PAGE / 8; i++)
			CHECK_EQ(read64(theirs + 8 * i), token_word(token - 1, i));
		for (uint32_t i = 0; i < PAGE / 8; i++)
			write64(ours + 8 * i, token_word(token, i));
		write32(memory + TOKEN, token + 1);
		ring(read32(memory + ID + 8 * next) - 1, n % 2 ? BELL_ODD : BELL_EVEN);
	}
	rt_print("ivshmem: role %u, id %u: %u rounds of %u parties\n", role, read32(regs + POSITION), rounds, parties);
}

static void intx_irq(struct rt_frame *frame)
{
	(void)frame;
	CHECK_EQ(read32(regs + STATUS) & ~1u, 0); /* reading takes the line down */
	lapic_eoi();
}

/* Revision 0: one line, and two registers. */
static void test_intx(void)
{
	uint32_t id = (uint32_t)rt_arg_number("id", 0), count = 0;

	ids(0, 1);
	CHECK(!(pci_read(devfn, 6, 2) & 0x10));
	sizing(false);
	widths(id);
	/* Not masked in: the status tells, the line rests. */
	ring(id, 0);
	for (uint64_t end = rt_ticks() + 1000 * RT_TICKS_PER_MS; !read32(regs + STATUS);)
		CHECK(rt_ticks() < end);
	CHECK(!(pci_read(devfn, 6, 2) & 8));
	CHECK_EQ(read32(regs + STATUS), 0);
	rt_handlers[INTX] = intx_irq;
	ioapic_route(12 + devfn / 8 % 4, INTX, IOAPIC_LEVEL, lapic_id());
	write32(regs + MASK, 1);
	for (uint32_t i = 0; i < 6; i++) {
		count = rt_interrupts[INTX];
		ring(id, i % 2 ? (uint32_t)rt_arg_number("vectors", 1) - 1 : 0);
		CHECK(rt_wait(INTX, count + 1, LONG));
		quiet();
	}
	CHECK(!(pci_read(devfn, 6, 2) & 8));
	/* What the mask holds back comes when it lets it. */
	write32(regs + MASK, 0);
	irq_window();
	count = rt_interrupts[INTX];
	ring(id, 0);
	quiet();
	CHECK_EQ(rt_interrupts[INTX], count);
	write32(regs + MASK, 1);
	CHECK(rt_wait(INTX, count + 1, LONG));
	ring(id, 7); /* no such vector */
	ring(id + 1, 0);
	quiet();
	CHECK_EQ(read32(regs + STATUS), 0);
}

/* The file is truncated under our feet. */
static void test_truncate(void)
{
	uint64_t at = rt_arg_number("at", 4096);
	uint32_t lost = UINT32_MAX;

	write64(memory + at, 5);
	rt_print("ready\n");
	if (rt_arg("write")) {
		while (read32(regs + MASK) != lost)
			write64(memory + at, 6);
	} else {
		while (read32(memory + at) != lost)
			rt_delay(100);
	}
	CHECK_EQ(read64(memory + at), UINT64_MAX);
	CHECK_EQ(read64(memory), UINT64_MAX); /* all of it */
	CHECK_EQ(read32(regs + MASK), UINT32_MAX);
	CHECK_EQ(read32(regs + POSITION), UINT32_MAX);
	write64(memory + at, 7);
	write32(regs + MASK, 1);
	ring(0, 0);
	quiet();
	CHECK_EQ(rt_interrupts[VECTOR], 0);
	/* Nothing comes back by moving it. */
	pci_write(devfn, 0x18, 4, MOVED);
	pci_write(devfn, 0x1c, 4, 0);
	CHECK_EQ(read64(MOVED), UINT64_MAX);
	CHECK_EQ(pci_read(devfn, 0, 4), 0x11101af4);
	rt_print("alive\n");
}

/* A reset gives the guest the registers of power-on, and leaves the memory alone, which is not its own. */
static void test_reset(void)
{
	uint64_t boot = read64(memory + 8);

	CHECK_EQ(read32(regs + MASK), 0);
	CHECK_EQ(read32(regs + STATUS), 0);
	start_msix();
	CHECK_EQ(read32(table + 12), 0);
	CHECK_EQ(rt_interrupts[VECTOR], 0);
	ring(read32(regs + POSITION), 0);
	CHECK(rt_wait(VECTOR, 1, LONG));
	write32(regs + MASK, 5);
	write64(memory + 8, boot + 1);
	rt_print("boot %u\n", (unsigned int)boot);
	if (boot < 3) {
		pci_write(devfn, 0x10, 4, MOVED);
		outb(0xcf9, 0x06);
		rt_delay(LONG);
	}
}

void guest_main(void)
{
	static const struct rt_test tests[] = {
		{ "plain", test_plain }, { "readonly", test_readonly }, { "self", test_self },
		{ "ring", test_ring },	 { "serve", test_serve },	{ "messages", test_messages },
		{ "intx", test_intx },	 { "truncate", test_truncate }, { "reset", test_reset },
		{ "token", test_token }, { "pair", test_pair },
	};

	find_device();
	pic_off();
	lapic_enable(false);
	rt_run_test(tests, sizeof(tests) / sizeof(tests[0]));
}
