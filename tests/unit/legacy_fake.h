/* SPDX-License-Identifier: MIT */
/*
 * The machine as the devices of devices/legacy see it, reduced to what a test can look at: buses, interrupt
 * lines, the console, one memslot, the loop's timers and the requests to the machine. One test program
 * includes it once.
 */
#ifndef TESTS_UNIT_LEGACY_FAKE_H
#define TESTS_UNIT_LEGACY_FAKE_H

/* cmocka wants these before itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <libfdt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "firmware/acpi/aml.h"
#include "tests/unit/trace_fake.h"
#include "vmm/bus.h"
#include "vmm/coalesce.h"
#include "vmm/console.h"
#include "vmm/device.h"
#include "vmm/irq.h"
#include "vmm/log.h"
#include "vmm/loop.h"
#include "vmm/memory.h"
#include "vmm/vm.h"

#define FAKE_REGIONS 16

struct fake {
	struct vm vm;
	struct region *regions[FAKE_REGIONS];
	struct bus *region_bus[FAKE_REGIONS];
	unsigned int region_count;

	_Atomic bool level[IRQ_PINS];
	_Atomic unsigned int edges[IRQ_PINS]; /* rising */

	struct console_callbacks console;
	uint8_t out[1 << 17];
	_Atomic size_t out_length;
	_Atomic bool room;
	_Atomic unsigned int rx_ready, want_tick;
	bool can_coalesce;
	uint64_t zone;

	pthread_mutex_t slot_lock; /* a guest's read and the removal of the memslot exclude each other */
	const uint8_t *slot;
	uint64_t slot_gpa;
	unsigned int slot_adds, slot_dels;
	bool slot_fails;

	unsigned int poweroffs, resets, exits, posts, logs;
	int status;
	uint8_t post;
	uint64_t now_ns;

	struct loop_work *posted;
	struct loop_op *timer;
	uint64_t timer_ns;
	unsigned int cancels;
};

static struct fake fake;

void log_line(const char *fmt, ...)
{
	(void)fmt;
	fake.logs++;
}

static inline void fake_setup(void)
{
	memset(&fake, 0, sizeof(fake));
	fake.room = true;
	fake.can_coalesce = true;
	pthread_mutex_init(&fake.slot_lock, NULL);
}

static inline void fake_teardown(void)
{
	for (struct device *d = fake.vm.devices, *next; d; d = next) {
		next = d->next;
		d->class->destroy(d);
	}
	fake.vm.devices = NULL;
}

int bus_add(struct bus *bus, struct region *region)
{
	for (unsigned int i = 0; i < fake.region_count; i++)
		if (fake.region_bus[i] == bus && region->base < fake.regions[i]->base + fake.regions[i]->length &&
		    fake.regions[i]->base < region->base + region->length)
			return -EEXIST;
	assert_true(fake.region_count < FAKE_REGIONS);
	fake.region_bus[fake.region_count] = bus;
	fake.regions[fake.region_count++] = region;
	return 0;
}

int bus_remove(struct bus *bus, struct region *region)
{
	for (unsigned int i = 0; i < fake.region_count; i++) {
		if (fake.region_bus[i] != bus || fake.regions[i] != region)
			continue;
		fake.region_count--;
		fake.regions[i] = fake.regions[fake.region_count];
		fake.region_bus[i] = fake.region_bus[fake.region_count];
		return 0;
	}
	return -ENOENT;
}

static struct region *fake_region(struct bus *bus, uint64_t at, unsigned int size)
{
	for (unsigned int i = 0; i < fake.region_count; i++) {
		struct region *r = fake.regions[i];

		if (fake.region_bus[i] == bus && at >= r->base && at + size <= r->base + r->length)
			return r;
	}
	return NULL;
}

static inline uint64_t fake_read(struct bus *bus, uint64_t at, unsigned int size)
{
	struct region *r = fake_region(bus, at, size);
	uint64_t mask = size == 8 ? UINT64_MAX : (1ULL << 8 * size) - 1;

	return (r && r->ops->read ? r->ops->read(r->opaque, at - r->base, size) : UINT64_MAX) & mask;
}

static inline void fake_write(struct bus *bus, uint64_t at, unsigned int size, uint64_t value)
{
	struct region *r = fake_region(bus, at, size);

	if (r && r->ops->write)
		r->ops->write(r->opaque, at - r->base, size, value);
}

static inline uint8_t inb(uint16_t port)
{
	return (uint8_t)fake_read(&fake.vm.pio, port, 1);
}

static inline void outb(uint16_t port, uint8_t value)
{
	fake_write(&fake.vm.pio, port, 1, value);
}

void device_register(struct vm *vm, struct device *dev, const struct device_class *class)
{
	dev->class = class;
	dev->vm = vm;
	dev->next = vm->devices;
	vm->devices = dev;
}

void irq_set_level(struct irqs *irqs, unsigned int gsi, bool level)
{
	(void)irqs;
	assert_true(gsi < IRQ_PINS);
	/* A handler that runs now must find its reason in the page (register 2, bit 0: none). */
	if (level && fake.slot)
		assert_false(fake.slot[2] & 1);
	if (!atomic_exchange(&fake.level[gsi], level) && level)
		fake.edges[gsi]++;
}

void console_start(struct console *c, const struct console_callbacks *cb)
{
	(void)c;
	fake.console = *cb;
}

void console_write(struct console *c, const uint8_t *data, size_t length)
{
	(void)c;
	for (size_t i = 0; i < length && fake.out_length < sizeof(fake.out); i++)
		fake.out[fake.out_length++] = data[i];
}

bool console_room(struct console *c)
{
	(void)c;
	return fake.room;
}

void console_rx_ready(struct console *c)
{
	(void)c;
	fake.rx_ready++;
}

bool coalesce_zone(struct coalesce *c, bool pio, uint64_t addr, uint32_t len)
{
	(void)c;
	(void)pio;
	assert_int_equal(len, 1);
	fake.zone = addr;
	return fake.can_coalesce;
}

int memslot_add(struct memory *mem, uint64_t gpa, void *host, uint64_t size, bool readonly)
{
	(void)mem;
	assert_null(fake.slot);
	assert_true(readonly);
	assert_int_equal(size, 4096);
	if (fake.slot_fails)
		return -EINVAL;
	pthread_mutex_lock(&fake.slot_lock);
	fake.slot = host;
	fake.slot_gpa = gpa;
	fake.slot_adds++;
	pthread_mutex_unlock(&fake.slot_lock);
	return 7;
}

int memslot_del(struct memory *mem, int slot)
{
	(void)mem;
	assert_int_equal(slot, 7);
	assert_non_null(fake.slot);
	pthread_mutex_lock(&fake.slot_lock);
	fake.slot = NULL;
	fake.slot_dels++;
	pthread_mutex_unlock(&fake.slot_lock);
	return 0;
}

void vm_poweroff(struct vm *vm)
{
	(void)vm;
	fake.poweroffs++;
}

void vm_reset(struct vm *vm)
{
	(void)vm;
	fake.resets++;
}

void vm_exit(struct vm *vm, int status)
{
	(void)vm;
	fake.exits++;
	fake.status = status;
}

void vm_post_code(struct vm *vm, uint8_t code)
{
	(void)vm;
	fake.posts++;
	fake.post = code;
}

void vm_want_tick(struct vm *vm)
{
	(void)vm;
	fake.want_tick++;
}

uint64_t clock_ns(void)
{
	return fake.now_ns;
}

void loop_post(struct loop *loop, struct loop_work *work)
{
	(void)loop;
	fake.posted = work;
}

void loop_timer(struct loop *loop, struct loop_op *op, struct __kernel_timespec *ts, uint64_t ns)
{
	(void)loop;
	(void)ts;
	assert_null(fake.timer);
	fake.timer = op;
	fake.timer_ns = ns;
}

void loop_cancel(struct loop *loop, struct loop_op *op)
{
	(void)loop;
	assert_ptr_equal(op, fake.timer);
	fake.cancels++;
}

/* What the loop would do next: the posted work. Returns whether there was any. */
static inline bool fake_run_posted(void)
{
	struct loop_work *work = fake.posted;

	fake.posted = NULL;
	if (work)
		work->fn(work);
	return work;
}

static inline void fake_fire_timer(int res)
{
	struct loop_op *op = fake.timer;

	assert_non_null(op);
	fake.timer = NULL;
	op->fn(op, res, 0);
}

/* Lets every device describe itself; returns how many nodes the DSDT got. Looks for needle in the device
 * tree. */
static inline unsigned int fake_describe(const char *needle)
{
	static uint8_t fdt[8192];
	struct acpi_buf out = { 0 };
	struct aml aml;
	unsigned int nodes = 0;

	aml_init(&aml, &out);
	assert_int_equal(fdt_create(fdt, sizeof(fdt)), 0);
	assert_int_equal(fdt_finish_reservemap(fdt), 0);
	assert_int_equal(fdt_begin_node(fdt, ""), 0);
	for (struct device *d = fake.vm.devices; d; d = d->next) {
		if (d->class->aml_name) {
			aml_begin_device(&aml, d->class->aml_name);
			d->class->build_aml(&aml, d);
			aml_end(&aml);
			nodes++;
		}
		if (d->class->build_fdt)
			assert_int_equal(d->class->build_fdt(d, fdt), 0);
	}
	assert_int_equal(aml_finish(&aml), 0);
	assert_int_equal(fdt_end_node(fdt), 0);
	assert_int_equal(fdt_finish(fdt), 0);
	if (needle)
		assert_true(fdt_path_offset(fdt, needle) >= 0);
	acpi_buf_free(&out);
	return nodes;
}

#endif
