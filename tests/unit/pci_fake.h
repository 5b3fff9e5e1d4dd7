/* SPDX-License-Identifier: MIT */
/*
 * The PCI bus with the real address-space dispatch (vmm/bus.c) and fakes below it: interrupts, memslots, the
 * machine. One program includes it once.
 */
#ifndef TESTS_UNIT_PCI_FAKE_H
#define TESTS_UNIT_PCI_FAKE_H

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

static inline uint64_t delivered(int gsi)
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

static inline uint64_t in(uint16_t port, unsigned int size)
{
	uint64_t value = 0;

	bus_read(&fake->vm.pio, &fake->pio, port, &value, size);
	return value;
}

static inline void out(uint16_t port, unsigned int size, uint32_t value)
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

static inline void port_write(unsigned int devfn, unsigned int reg, unsigned int size, uint32_t value)
{
	out(0xcf8, 4, 0x80000000u | devfn << 8 | (reg & 0xfc));
	out(0xcfc + (reg & 3), size, value);
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
static inline struct pci_function *echo(int devfn, const char *name, uint64_t size, unsigned int flags, uintptr_t tag)
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

static inline uint64_t bar_base(unsigned int devfn, unsigned int index)
{
	uint32_t low = rd(devfn, PCI_BAR0 + 4 * index, 4);

	if (low & PCI_BAR_IO)
		return low & ~3u;
	if (low & PCI_BAR_MEM64)
		return (low & ~15u) | (uint64_t)rd(devfn, PCI_BAR0 + 4 * index + 4, 4) << 32;
	return low & ~15u;
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

#endif
