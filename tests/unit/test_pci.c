/* SPDX-License-Identifier: MIT */
/*
 * The PCI bus with the real address-space dispatch (vmm/bus.c) and fakes below it: interrupts, memslots, the
 * machine. PCI_TEST_WRITES and PCI_TEST_SEED in the environment change the length and start of the random
 * runs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/pci/msi.h"
#include "devices/pci/msix.h"
#include "devices/pci/testdev.h"
#include "tests/unit/trace_fake.h"
#include "vmm/log.h"
#include "vmm/vm.h"

#define FAKE_SLOTS 64
#define FAKE_GSIS  128

#define ECAM   0xe0000000ULL
#define MMIO32 0xc0000000ULL
#define MMIO64 0x800000000ULL
#define IO     0xc000ULL
#define RAM    (3ULL << 30)

struct fake_slot {
	bool used;
	uint64_t gpa, size;
	void *host;
};

struct fake_route {
	bool connected;
	uint64_t address;
	uint32_t data;
	uint64_t delivered;
	struct msi *msi;
};

struct fakes {
	struct vm vm;
	struct bus_cache pio, mmio;
	struct fake_slot slots[FAKE_SLOTS];
	int slot_error; /* what memslot_add() answers, if not 0 */
	int set_error;	/* what msi_set() answers, if not 0 */
	struct fake_route routes[FAKE_GSIS];
	int next_gsi, routes_in_use;
	bool level[IRQ_PINS];
	struct irq_message sent; /* by irq_send() */
	unsigned int level_changes;
	unsigned int vm_resets, lines;
	uint64_t coalesced;
	char line[256];
};

static struct fakes *fake;

void log_line(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(fake->line, sizeof(fake->line), fmt, ap);
	va_end(ap);
	fake->lines++;
}

void vm_reset(struct vm *vm)
{
	(void)vm;
	fake->vm_resets++;
}

void device_register(struct vm *vm, struct device *dev, const struct device_class *class)
{
	dev->class = class;
	dev->vm = vm;
	dev->next = vm->devices;
	vm->devices = dev;
}

bool coalesce_zone(struct coalesce *c, bool pio, uint64_t addr, uint32_t len)
{
	(void)c;
	fake->coalesced = pio ? addr << 8 | len : 0;
	return true;
}

void irq_set_level(struct irqs *irqs, unsigned int gsi, bool level)
{
	(void)irqs;
	assert_true(gsi < IRQ_PINS);
	assert_true(fake->level[gsi] != level);
	fake->level[gsi] = level;
	fake->level_changes++;
}

bool irq_send(struct irqs *irqs, const struct irq_message *message)
{
	(void)irqs;
	fake->sent = *message;
	return true;
}

int memslot_add(struct memory *mem, uint64_t gpa, void *host, uint64_t size, bool readonly)
{
	(void)mem;
	(void)readonly;
	if (fake->slot_error)
		return fake->slot_error;
	for (int i = 0; i < FAKE_SLOTS; i++) {
		const struct fake_slot *s = &fake->slots[i];
		assert_false(s->used && gpa < s->gpa + s->size && s->gpa < gpa + size);
	}
	for (int i = 0; i < FAKE_SLOTS; i++) {
		if (fake->slots[i].used)
			continue;
		fake->slots[i] = (struct fake_slot){ true, gpa, size, host };
		return i;
	}
	return -ENOSPC;
}

int memslot_del(struct memory *mem, int slot)
{
	(void)mem;
	assert_true(slot >= 0 && slot < FAKE_SLOTS && fake->slots[slot].used);
	fake->slots[slot].used = false;
	return 0;
}

int msi_alloc(struct irqs *irqs, struct msi *msi)
{
	(void)irqs;
	if (fake->next_gsi == FAKE_GSIS)
		return -ENOSPC;
	msi->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	msi->gsi = fake->next_gsi++;
	fake->routes[msi->gsi].msi = msi;
	fake->routes_in_use++;
	return 0;
}

/* What KVM does with a connected eventfd: takes the count and interrupts. */
static void deliver(struct msi *msi)
{
	uint64_t count;

	if (fake->routes[msi->gsi].connected && read(msi->fd, &count, sizeof(count)) == sizeof(count))
		fake->routes[msi->gsi].delivered++;
}

int msi_set(struct irqs *irqs, struct msi *msi, uint64_t address, uint32_t data)
{
	struct fake_route *r = &fake->routes[msi->gsi];

	(void)irqs;
	if (fake->set_error)
		return fake->set_error;
	deliver(msi);
	r->connected = true;
	r->address = address;
	r->data = data;
	return 0;
}

int msi_mask(struct irqs *irqs, struct msi *msi)
{
	(void)irqs;
	deliver(msi);
	fake->routes[msi->gsi].connected = false;
	return 0;
}

void msi_free(struct irqs *irqs, struct msi *msi)
{
	msi_mask(irqs, msi);
	close(msi->fd);
	fake->routes[msi->gsi].msi = NULL;
	fake->routes_in_use--;
}

bool msi_take_pending(struct msi *msi)
{
	uint64_t count;

	assert_false(fake->routes[msi->gsi].connected);
	return read(msi->fd, &count, sizeof(count)) == sizeof(count);
}

static uint64_t delivered(int gsi)
{
	if (fake->routes[gsi].msi)
		deliver(fake->routes[gsi].msi);
	return fake->routes[gsi].delivered;
}

static struct pci_windows default_windows(void)
{
	return (struct pci_windows){ .ecam = ECAM,
				     .mmio32 = { MMIO32, 0x20000000 },
				     .mmio64 = { MMIO64, 0x800000000ULL },
				     .io = { IO, 0x1000 },
				     .coalesce_address = true };
}

static void start(const struct pci_windows *windows)
{
	fake = calloc(1, sizeof(*fake));
	assert_non_null(fake);
	assert_int_equal(bus_init(&fake->vm.pio, "pio", 0x10000), 0);
	assert_int_equal(bus_init(&fake->vm.mmio, "mmio", 1ULL << 46), 0);
	fake->vm.memory.size = RAM;
	fake->vm.memory.low_size = RAM_LOW_MAX;
	if (windows)
		assert_int_equal(pci_bus_create(&fake->vm, windows), 0);
}

static int setup(void **state)
{
	struct pci_windows windows = default_windows();

	(void)state;
	start(&windows);
	return 0;
}

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

static int teardown(void **state)
{
	(void)state;
	while (fake->vm.devices) {
		struct device *dev = fake->vm.devices;
		fake->vm.devices = dev->next;
		dev->class->destroy(dev);
	}
	assert_int_equal(fake->vm.pio.count, 0);
	assert_int_equal(fake->vm.mmio.count, 0);
	assert_int_equal(fake->routes_in_use, 0);
	for (int i = 0; i < FAKE_SLOTS; i++)
		assert_false(fake->slots[i].used);
	for (int i = 0; i < IRQ_PINS; i++)
		assert_false(fake->level[i]);
	bus_destroy(&fake->vm.pio);
	bus_destroy(&fake->vm.mmio);
	free(fake);
	fake = NULL;
	return 0;
}

static void reset_machine(void)
{
	for (struct device *dev = fake->vm.devices; dev; dev = dev->next)
		dev->class->reset(dev);
}

/* The guest. */

static uint64_t in(uint16_t port, unsigned int size)
{
	uint64_t value = 0;

	bus_read(&fake->vm.pio, &fake->pio, port, &value, size);
	return value;
}

static void out(uint16_t port, unsigned int size, uint32_t value)
{
	bus_write(&fake->vm.pio, &fake->pio, port, &value, size);
}

static uint64_t load(uint64_t gpa, unsigned int size)
{
	uint64_t value = 0;

	bus_read(&fake->vm.mmio, &fake->mmio, gpa, &value, size);
	return value;
}

static void store(uint64_t gpa, unsigned int size, uint64_t value)
{
	bus_write(&fake->vm.mmio, &fake->mmio, gpa, &value, size);
}

static uint32_t rd(unsigned int devfn, unsigned int reg, unsigned int size)
{
	return pci_config_read(fake->vm.pci, devfn, reg, size);
}

static void wr(unsigned int devfn, unsigned int reg, unsigned int size, uint32_t value)
{
	pci_config_write(fake->vm.pci, devfn, reg, size, value);
}

static uint32_t port_read(unsigned int devfn, unsigned int reg, unsigned int size)
{
	out(0xcf8, 4, 0x80000000u | devfn << 8 | (reg & 0xfc));
	return (uint32_t)in(0xcfc + (reg & 3), size);
}

static void port_write(unsigned int devfn, unsigned int reg, unsigned int size, uint32_t value)
{
	out(0xcf8, 4, 0x80000000u | devfn << 8 | (reg & 0xfc));
	out(0xcfc + (reg & 3), size, value);
}

static unsigned int find_capability(unsigned int devfn, uint8_t id)
{
	unsigned int offset = rd(devfn, PCI_CAPABILITIES, 1);

	for (int i = 0; offset && i < 48; i++) {
		if (rd(devfn, offset, 1) == id)
			return offset;
		offset = rd(devfn, offset + 1, 1);
	}
	return 0;
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

/* Devices made of nothing but a function on the heap. */

static void plain_destroy(struct pci_function *fn)
{
	free(fn);
}

static const struct pci_function_ops plain_ops = { .destroy = plain_destroy };
static const struct pci_ids plain_ids = { 0x1234, 0x5678, 0x9abc, 0xdef0, 0x020003, 0x42 };

static struct pci_function *plain(int devfn, const char *name)
{
	struct pci_function *fn = calloc(1, sizeof(*fn));

	assert_non_null(fn);
	assert_int_equal(pci_function_init(fn, fake->vm.pci, devfn, name, &plain_ids, &plain_ops), 0);
	return fn;
}

static uint64_t echo_read(void *opaque, uint64_t offset, unsigned int size)
{
	(void)size;
	return (uintptr_t)opaque << 16 | offset;
}

static const struct io_ops echo_ops = { .read = echo_read };

/* A function with one register BAR at index 0 that answers with its tag. */
static struct pci_function *echo(int devfn, const char *name, uint64_t size, unsigned int flags, uintptr_t tag)
{
	struct pci_function *fn = plain(devfn, name);

	assert_int_equal(pci_add_bar(fn, 0, size, flags), 0);
	assert_int_equal(pci_bar_add_registers(fn, 0, 0, size, &echo_ops, (void *)tag), 0);
	return fn;
}

static struct pci_function *testdev(uint64_t memory, unsigned int vectors)
{
	assert_int_equal(pci_testdev_create(fake->vm.pci, memory, vectors), 0);
	struct pci_function *fn = fake->vm.pci->functions[PCI_DEVFN(1, 0)];
	assert_non_null(fn);
	return fn;
}

static uint64_t bar_base(unsigned int devfn, unsigned int index)
{
	uint32_t low = rd(devfn, PCI_BAR0 + 4 * index, 4);

	if (low & PCI_BAR_IO)
		return low & ~3u;
	if (low & PCI_BAR_MEM64)
		return (low & ~15u) | (uint64_t)rd(devfn, PCI_BAR0 + 4 * index + 4, 4) << 32;
	return low & ~15u;
}

/* Tests. */

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

static void intx(void **state)
{
	struct pci_function *a = plain(PCI_DEVFN(1, 0), "a"), *b = plain(PCI_DEVFN(9, 0), "b");
	struct pci_function *c = plain(PCI_DEVFN(2, 0), "c"), *none = plain(PCI_DEVFN(1, 1), "none");

	(void)state;
	pci_set_pin(a, 1);
	pci_set_pin(b, 1);
	pci_set_pin(c, 3);
	assert_int_equal(pci_intx_gsi(1, 0), 13);
	assert_int_equal(rd(a->devfn, PCI_INTERRUPT_LINE, 2), 0x010d);
	assert_int_equal(rd(b->devfn, PCI_INTERRUPT_LINE, 2), 0x010d);
	assert_int_equal(rd(c->devfn, PCI_INTERRUPT_LINE, 2), 0x030c);
	pci_set_intx(a, true);
	pci_set_intx(a, true);
	assert_true(fake->level[13]);
	pci_set_intx(b, true);
	pci_set_intx(a, false);
	assert_true(fake->level[13]);
	assert_int_equal(rd(a->devfn, PCI_STATUS, 2), 0);
	assert_int_equal(rd(b->devfn, PCI_STATUS, 2), PCI_STATUS_INTX);
	assert_int_equal(rd(b->devfn, PCI_COMMAND, 4), PCI_STATUS_INTX << 16);
	wr(b->devfn, PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
	assert_false(fake->level[13]);
	assert_int_equal(rd(b->devfn, PCI_STATUS, 2), PCI_STATUS_INTX);
	wr(b->devfn, PCI_COMMAND + 1, 1, 0);
	assert_true(fake->level[13]);
	pci_set_intx(b, false);
	assert_false(fake->level[13]);
	pci_set_intx(c, true);
	assert_true(fake->level[12]);
	pci_set_intx(none, true);
	assert_int_equal(rd(none->devfn, PCI_STATUS, 2), 0);
	assert_int_equal(fake->level_changes, 5);
	reset_machine();
	assert_false(fake->level[12]);
	pci_set_intx(c, true); /* teardown expects the line down */
}

struct msix_guest {
	struct pci_function *fn;
	unsigned int control; /* register */
	uint64_t table, pba;
};

static struct msix_guest msix_guest(unsigned int vectors)
{
	struct msix_guest g = { .fn = testdev(0x1000, vectors) };

	assert_int_equal(pci_assign_resources(fake->vm.pci), 0);
	g.control = find_capability(g.fn->devfn, PCI_CAP_MSIX) + 2;
	assert_true(g.control > 2);
	g.table = bar_base(g.fn->devfn, 4);
	g.pba = g.table + TESTDEV_PBA;
	return g;
}

static void msix_control(const struct msix_guest *g, uint32_t value)
{
	wr(g->fn->devfn, g->control, 2, value);
}

static void msix_entry(const struct msix_guest *g, unsigned int vector, uint32_t address, uint32_t data, uint32_t mask)
{
	store(g->table + 16 * vector, 4, address);
	store(g->table + 16 * vector + 4, 4, 0);
	store(g->table + 16 * vector + 8, 4, data);
	store(g->table + 16 * vector + 12, 4, mask);
}

#define GSI(vector) (4 + (vector)) /* the test device has 4 MSI vectors first */

/* Every way to be masked, then every way out of it. */
static void msix_matrix(void **state)
{
	struct msix_guest g = msix_guest(70);

	(void)state;
	assert_int_equal(rd(g.fn->devfn, g.control, 2), 69);
	for (unsigned int i = 0; i < 70; i++)
		assert_int_equal(load(g.table + 16 * i + 12, 4), 1);
	for (unsigned int v = 0; v < 70; v += 23) {
		for (unsigned int how = 0; how < 8; how++) {
			bool vector_mask = how & 1, function_mask = how & 2, by_peer = how & 4;
			uint64_t before = delivered(GSI(v)), bit = 1ULL << v % 64;

			msix_entry(&g, v, 0xfee00000 + (v << 12), 0x40 + v, vector_mask);
			msix_control(&g, 0x8000 | (function_mask ? 0x4000 : 0));
			if (by_peer)
				assert_int_equal(eventfd_write(msix_fd(g.fn, v), 1), 0);
			else
				msix_notify(g.fn, v);
			bool masked = vector_mask || function_mask;
			assert_int_equal(delivered(GSI(v)) - before, !masked);
			assert_int_equal(load(g.pba + v / 64 * 8, 8), masked ? bit : 0);
			assert_int_equal(load(g.pba + v / 32 * 4, 4), masked ? 1u << v % 32 : 0);
			/* Again: pending is a bit. */
			if (masked)
				msix_notify(g.fn, v);
			store(g.table + 16 * v + 12, 4, 0);
			assert_int_equal(delivered(GSI(v)) - before, !function_mask);
			msix_control(&g, 0x8000);
			assert_int_equal(delivered(GSI(v)) - before, 1);
			assert_int_equal(load(g.pba + v / 64 * 8, 8), 0);
			assert_true(fake->routes[GSI(v)].address == 0xfee00000 + (v << 12));
			assert_int_equal(fake->routes[GSI(v)].data, 0x40 + v);
			store(g.table + 16 * v + 12, 4, 1);
			msix_control(&g, 0);
		}
	}
}

static void msix_disabled_events_are_lost(void **state)
{
	struct msix_guest g = msix_guest(2);

	(void)state;
	msix_entry(&g, 0, 0xfee00000, 0x41, 0);
	msix_notify(g.fn, 0);
	eventfd_write(msix_fd(g.fn, 0), 1);
	assert_int_equal(load(g.pba, 8), 0);
	msix_control(&g, 0x8000);
	assert_int_equal(delivered(GSI(0)), 0);
	assert_true(msix_enabled(g.fn));
	/* Pending when it is switched off: gone as well. */
	msix_control(&g, 0xc000);
	msix_notify(g.fn, 0);
	assert_int_equal(load(g.pba, 8), 1);
	msix_control(&g, 0);
	assert_int_equal(load(g.pba, 8), 0);
	msix_control(&g, 0x8000);
	assert_int_equal(delivered(GSI(0)), 0);
	msix_notify(g.fn, 0);
	assert_int_equal(delivered(GSI(0)), 1);
}

static void msix_entry_changes_while_enabled(void **state)
{
	struct msix_guest g = msix_guest(2);

	(void)state;
	msix_control(&g, 0x8000);
	msix_entry(&g, 1, 0xfee00000, 0x41, 0);
	assert_int_equal(fake->routes[GSI(1)].data, 0x41);
	store(g.table + 16 + 8, 4, 0x42);
	assert_int_equal(fake->routes[GSI(1)].data, 0x42);
	store(g.table + 16, 8, 0x1fee01003);
	assert_true(fake->routes[GSI(1)].address == 0x1fee01000);
	store(g.table + 16 + 8, 8, 0x100000043); /* data and mask in one */
	assert_false(fake->routes[GSI(1)].connected);
	msix_notify(g.fn, 1);
	store(g.table + 16 + 8, 8, 0x000000044);
	assert_int_equal(fake->routes[GSI(1)].data, 0x44);
	assert_int_equal(delivered(GSI(1)), 1);
	assert_true(load(g.table + 16, 8) == 0x1fee01000);
	assert_true(load(g.table + 16 + 8, 8) == 0x44);
	assert_false(fake->routes[GSI(0)].connected);
}

static void msix_refused_message(void **state)
{
	struct msix_guest g = msix_guest(2);

	(void)state;
	fake->set_error = -EINVAL;
	msix_control(&g, 0x8000);
	msix_entry(&g, 0, 0xfee00000, 0x41, 0);
	msix_entry(&g, 1, 0xfee00000, 0x42, 0);
	assert_int_equal(fake->lines, 1);
	assert_non_null(strstr(fake->line, "pci-test"));
	msix_notify(g.fn, 0);
	assert_int_equal(load(g.pba, 4), 1);
	fake->set_error = 0;
	store(g.table + 4, 4, 0);
	assert_int_equal(delivered(GSI(0)), 1);
	/* A live vector whose new message is refused must not go on with the old one. */
	fake->set_error = -EINVAL;
	store(g.table + 8, 4, 0x43);
	assert_false(fake->routes[GSI(0)].connected);
	assert_int_equal(fake->lines, 1);
}

static void msix_odd_accesses(void **state)
{
	struct msix_guest g = msix_guest(2);

	(void)state;
	assert_int_equal(load(g.table, 1), 0xff);
	assert_int_equal(load(g.table + 2, 4), UINT32_MAX);
	assert_true(load(g.table + 4, 8) == UINT64_MAX);
	store(g.table + 2, 4, 0);
	store(g.table + 4, 8, 5);
	store(g.table, 2, 5);
	assert_true(load(g.table, 8) == 0);
	assert_int_equal(load(g.table + 32, 4), UINT32_MAX); /* behind the table */
	assert_int_equal(load(g.pba + 8, 4), UINT32_MAX);
	store(g.pba, 8, UINT64_MAX);
	assert_true(load(g.pba, 8) == 0);
	msix_notify(g.fn, 2);
	msix_notify(g.fn, UINT32_MAX);
	assert_int_equal(msix_fd(g.fn, 2), -1);
	assert_int_equal(msix_init(g.fn, 1, 4, 0, 4, 8), -EINVAL);
	struct pci_function *fn = plain(PCI_DEVFN(8, 0), "plain");
	msix_notify(fn, 0);
	assert_int_equal(msix_fd(fn, 0), -1);
	assert_false(msix_enabled(fn));
	assert_int_equal(msix_init(fn, 2049, 0, 0, 0, 0), -EINVAL);
	assert_int_equal(msix_init(fn, 1, 0, 0, 0, 0x800), -EINVAL); /* no such BAR */
}

static void msix_reset_masks(void **state)
{
	struct msix_guest g = msix_guest(2);

	(void)state;
	msix_control(&g, 0x8000);
	msix_entry(&g, 0, 0xfee00000, 0x41, 0);
	msix_notify(g.fn, 1);
	reset_machine();
	assert_false(fake->routes[GSI(0)].connected);
	assert_int_equal(rd(g.fn->devfn, g.control, 2), 1);
	assert_int_equal(load(g.table + 12, 4), 1);
	assert_int_equal(load(g.table, 4), 0);
	msix_control(&g, 0x8000);
	assert_int_equal(load(g.pba, 4), 0);
}

static void plain_msi(void **state)
{
	struct pci_function *fn = testdev(0x1000, 1);
	const unsigned int devfn = fn->devfn, cap = find_capability(devfn, PCI_CAP_MSI);

	(void)state;
	assert_true(cap != 0);
	assert_int_equal(rd(devfn, cap + 2, 2), 0x0184);
	wr(devfn, cap + 4, 4, 0xfee01003);
	wr(devfn, cap + 8, 4, 1);
	wr(devfn, cap + 12, 4, 0xffff0053);
	assert_int_equal(rd(devfn, cap + 4, 4), 0xfee01000);
	assert_int_equal(rd(devfn, cap + 12, 4), 0x53);
	pci_msi_notify(fn, 0);
	eventfd_write(pci_msi_fd(fn, 0), 1);
	wr(devfn, cap + 2, 2, 0x0011); /* on, 2 vectors */
	assert_true(pci_msi_enabled(fn));
	assert_true(fake->routes[0].address == 0x1fee01000);
	assert_int_equal(fake->routes[0].data, 0x52);
	assert_int_equal(fake->routes[1].data, 0x53);
	assert_false(fake->routes[2].connected);
	assert_int_equal(delivered(0), 0);
	pci_msi_notify(fn, 1);
	assert_int_equal(delivered(1), 1);
	pci_msi_notify(fn, 2);
	pci_msi_notify(fn, UINT32_MAX);
	wr(devfn, cap + 16, 4, 0xffffffff);
	assert_int_equal(rd(devfn, cap + 16, 4), 0xf);
	pci_msi_notify(fn, 1);
	eventfd_write(pci_msi_fd(fn, 0), 1);
	assert_int_equal(delivered(1), 1);
	assert_int_equal(rd(devfn, cap + 20, 4), 3);
	wr(devfn, cap + 20, 4, 0);
	assert_int_equal(rd(devfn, cap + 20, 1), 3);
	wr(devfn, cap + 16, 1, 0x1);
	assert_int_equal(delivered(1), 2);
	assert_int_equal(rd(devfn, cap + 20, 4), 1);
	wr(devfn, cap + 2, 2, 0x0071); /* more than there are: all 4 */
	wr(devfn, cap + 16, 4, 0);
	assert_int_equal(delivered(0), 1);
	assert_int_equal(delivered(2), 0);
	assert_int_equal(fake->routes[3].data, 0x53);
	reset_machine();
	assert_false(pci_msi_enabled(fn));
	for (int i = 0; i < 4; i++)
		assert_false(fake->routes[i].connected);
	assert_int_equal(pci_msi_fd(fn, 4), -1);
	assert_int_equal(pci_msi_init(plain(PCI_DEVFN(9, 0), "p"), 3), -EINVAL);
}

static void one_msi_vector(void **state)
{
	struct pci_function *fn = plain(PCI_DEVFN(9, 0), "one"), *all = plain(PCI_DEVFN(10, 0), "all");

	(void)state;
	assert_int_equal(pci_msi_init(fn, 1), 0);
	assert_int_equal(pci_msi_init(all, 32), 0);
	wr(fn->devfn, 0x50, 4, UINT32_MAX);
	wr(all->devfn, 0x50, 4, UINT32_MAX);
	assert_int_equal(rd(fn->devfn, 0x50, 4), 1);
	assert_int_equal(rd(all->devfn, 0x50, 4), UINT32_MAX);
	wr(all->devfn, 0x42, 2, 0x0051);
	assert_int_equal(rd(all->devfn, 0x54, 4), 0);
	for (unsigned int i = 0; i < 32; i++)
		pci_msi_notify(all, i);
	assert_int_equal(rd(all->devfn, 0x54, 4), UINT32_MAX);
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

static void test_device(void **state)
{
	struct pci_function *fn = testdev(0x200000, 4);

	(void)state;
	assert_int_equal(pci_assign_resources(fake->vm.pci), 0);
	uint64_t regs = bar_base(fn->devfn, 0);
	uint16_t io = (uint16_t)bar_base(fn->devfn, 1);
	assert_int_equal(load(regs, 4), TESTDEV_ID);
	assert_int_equal(in(io, 4), TESTDEV_ID);
	store(regs + TESTDEV_REG_SCRATCH, 4, 0xcafe);
	assert_int_equal(in(io + TESTDEV_REG_SCRATCH, 4), 0xcafe);
	out(io + TESTDEV_REG_COUNTER, 4, 41);
	assert_int_equal(load(regs + TESTDEV_REG_COUNTER, 4), 41);
	assert_int_equal(load(regs + TESTDEV_REG_COUNTER, 4), 42);
	assert_int_equal(load(regs + TESTDEV_REG_COUNTER, 2), 0xffff);
	assert_int_equal(load(regs + TESTDEV_REG_VECTORS, 4), 4);
	assert_int_equal(load(regs + TESTDEV_REG_SIZE, 4), 0x200000);
	assert_int_equal(load(regs + TESTDEV_REG_SIZE_HIGH, 4), 0);
	assert_int_equal(load(regs + TESTDEV_REG_NOTIFY, 4), UINT32_MAX);
	assert_int_equal(load(regs + TESTDEV_REGS, 4), UINT32_MAX);
	store(regs + TESTDEV_REG_INTX, 4, 1);
	assert_true(fake->level[13]);
	assert_int_equal(load(regs + TESTDEV_REG_INTX, 4), 1);
	store(regs + TESTDEV_REG_INTX, 4, 0);
	assert_false(fake->level[13]);
	unsigned int msix = find_capability(fn->devfn, PCI_CAP_MSIX);
	uint64_t table = bar_base(fn->devfn, 4);
	wr(fn->devfn, msix + 2, 2, 0x8000);
	store(table + 16 * 3 + 12, 4, 0);
	store(regs + TESTDEV_REG_NOTIFY, 4, 3);
	store(regs + TESTDEV_REG_NOTIFY, 4, 4);
	assert_int_equal(delivered(GSI(3)), 1);
	wr(fn->devfn, msix + 2, 2, 0);
	wr(fn->devfn, find_capability(fn->devfn, PCI_CAP_MSI) + 2, 2, 1);
	store(regs + TESTDEV_REG_NOTIFY, 4, 0);
	assert_int_equal(delivered(0), 1);
	store(regs + TESTDEV_REG_INTX, 4, 1);
	reset_machine();
	assert_false(fake->level[13]);
	assert_int_equal(load(regs + TESTDEV_REG_SCRATCH, 4), 0);
	assert_int_equal(load(regs + TESTDEV_REG_COUNTER, 4), 0);
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

/* For the thread sanitizer: what peers and devices do while a vCPU writes configuration space and the table.
 */

struct noise {
	struct pci_function *fn;
	_Atomic bool stop;
};

static void *noise(void *opaque)
{
	struct noise *n = opaque;

	for (unsigned int i = 0; !atomic_load(&n->stop); i++) {
		msix_notify(n->fn, i % 5);
		pci_msi_notify(n->fn, i % 5);
		pci_set_intx(n->fn, i & 1);
	}
	pci_set_intx(n->fn, false);
	return NULL;
}

static void threads(void **state)
{
	struct msix_guest g = msix_guest(4);
	struct noise n = { .fn = g.fn };
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, noise, &n), 0);
	for (unsigned int i = 0; i < 5000; i++) {
		msix_control(&g, (i & 3) << 14);
		msix_entry(&g, i % 4, 0xfee00000, i, i & 1);
		load(g.pba, 8);
		wr(g.fn->devfn, PCI_COMMAND, 2, i & 16 ? 3 : 0x403);
		rd(g.fn->devfn, PCI_STATUS, 2);
		wr(g.fn->devfn, find_capability(g.fn->devfn, PCI_CAP_MSI) + 2, 2, i & 0x31);
	}
	atomic_store(&n.stop, true);
	pthread_join(thread, NULL);
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

/* A peer's eventfd in place of a vector's own. */
static void msix_foreign_vector(void **state)
{
	struct msix_guest g = msix_guest(2);
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), more;

	(void)state;
	assert_int_equal(msix_replace_fd(g.fn, 2, fd), -EINVAL);
	eventfd_write(fd, 1); /* before anybody uses MSI-X: no event */
	assert_int_equal(msix_replace_fd(g.fn, 1, fd), 0);
	msix_control(&g, 0x8000);
	msix_entry(&g, 1, 0xfee00000, 0x41, 1);
	assert_int_equal(load(g.pba, 8), 0);
	eventfd_write(fd, 1);
	assert_int_equal(load(g.pba, 8), 2);
	/* Unmasked: sent by us, since writing the eventfd could wait. */
	store(g.table + 28, 4, 0);
	assert_int_equal(fake->sent.address, 0xfee00000);
	assert_int_equal(fake->sent.data, 0x41);
	assert_int_equal(delivered(GSI(1)), 0);
	assert_int_equal(load(g.pba, 8), 0);
	eventfd_write(fd, 1);
	assert_int_equal(delivered(GSI(1)), 1);
	/* Replaced while it is live: the new one is connected. */
	more = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	assert_int_equal(msix_replace_fd(g.fn, 1, more), 0);
	assert_true(fake->routes[GSI(1)].connected);
	eventfd_write(more, 1);
	assert_int_equal(delivered(GSI(1)), 2);
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(header),
		T(absent_reads_ones),
		T(multifunction),
		T(address_port),
		T(reset_control),
		T(sizing),
		T(bad_bars),
		T(enable_move_disable),
		T(segments),
		T(overlaps),
		T(overlaps_wide),
		T(bars_trade_places),
		T(io_bar),
		T(memory_bar),
		T(ports_and_ecam_agree),
		T(ecam_edges),
		T(ecam_moves),
		cmocka_unit_test_setup_teardown(firmware_bridges, setup_firmware, teardown),
		cmocka_unit_test_setup_teardown(creation_fails_clean, setup_bare, teardown),
		T(capabilities),
		T(intx),
		T(msix_matrix),
		T(msix_disabled_events_are_lost),
		T(msix_entry_changes_while_enabled),
		T(msix_refused_message),
		T(msix_odd_accesses),
		T(msix_reset_masks),
		T(plain_msi),
		T(foreign_memory),
		T(msix_foreign_vector),
		T(one_msi_vector),
		T(resources),
		T(resources_run_out),
		T(resources_spill),
		T(resources_taken),
		T(test_device),
		T(hostile_guest),
		T(describe),
		T(threads),
	};

	return cmocka_run_group_tests_name("pci", tests, NULL, NULL);
}
