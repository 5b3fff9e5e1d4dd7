/* SPDX-License-Identifier: MIT */
/*
 * The serial port's two faces on the machine; the registers are uart_core.c's.
 *
 * Theory of operation
 *
 * Writes to THR are coalesced: KVM keeps them in a ring and they arrive here when a vCPU exits for another
 * reason, or by the machine's tick. All other registers' writes exit, so the order among writes is the
 * guest's.
 *
 * In memory, registers are also read without an exit: the page is a read-only memslot that holds what each
 * register reads as, renewed after each change, before the interrupt line moves (a handler that runs because
 * of the line must not find yesterday's IIR). That holds only while reading has no effect. When received
 * bytes wait the memslot goes and reads exit, until the FIFO is empty; so it also does when loopback produced
 * any, then until loopback ends. Removing a memslot makes KVM drop every mapping of the guest, so it is done
 * for nothing less: DLAB shows the divisor in the page, and loopback without data shows the looped modem
 * lines. The transmit interrupt is a level there and MSR shows no changes (uart_core.c, "fast"). Two
 * differences to hardware remain: DLL and looped-back bytes are seen only after an exit or a tick (their
 * write was coalesced), both things that no driver does.
 *
 * Ownership: everything in struct uart after the lock is under the lock, taken by register functions on vCPU
 * threads and by the console's callbacks and the tick on the loop thread. console_write(), console_room(),
 * irq_set_level() and memslot_add() are called with it held (none of them calls back); console_rx_ready() and
 * vm_want_tick() after it.
 */
#include "devices/legacy/uart.h"

#include <errno.h>
#include <libfdt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/legacy/isa_fdt.h"
#include "devices/legacy/uart_core.h"
#include "firmware/acpi/aml.h"
#include "vmm/bus.h"
#include "vmm/coalesce.h"
#include "vmm/console.h"
#include "vmm/device.h"
#include "vmm/irq.h"
#include "vmm/log.h"
#include "vmm/memory.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

#define CLOCK_HZ 1843200

struct uart {
	struct device dev;
	struct region region;
	unsigned int gsi;
	bool attached;
	bool coalesced;
	struct console_callbacks callbacks;

	pthread_mutex_t lock;
	struct uart_core core;
	bool refused;		/* the console holds input that did not fit and waits for console_rx_ready() */
	bool more_input;	/* the same until input comes again or a tick passes: the memslot stays away
				   meanwhile */
	bool writes_unasked;	/* the driver has written THR with interrupts on, but not the transmitter's */
	_Atomic uint64_t *page; /* registers 0..7 as the guest reads them; NULL: at ports */
	bool touched;		/* the guest has been here: only then is the memslot worth its price */
	int slot;		/* -1: reads exit */
	bool slot_works;
};

/* Makes the page and its memslot agree with the registers. Called with the lock held. */
static void renew_page(struct uart *u)
{
	struct memory *memory = &u->dev.vm->memory;
	uint64_t image = 0;
	bool want;

	if (!u->page)
		return;
	want = u->touched && u->slot_works && uart_core_quiet(&u->core) && !u->more_input &&
	       (u->slot >= 0 || !(u->core.mcr & MCR_LOOP));
	if (u->slot >= 0 && !want && memslot_del(memory, u->slot) == 0)
		u->slot = -1;
	for (unsigned int reg = 0; reg < UART_REGS; reg++)
		image |= (uint64_t)uart_core_peek(&u->core, reg) << (8 * reg);
	atomic_store_explicit(u->page, image, memory_order_release);
	if (u->slot >= 0 || !want)
		return;
	u->slot = memslot_add(memory, u->region.base, (void *)u->page, UART_PAGE_SIZE, true);
	if (u->slot < 0) /* right, only slower */
		u->slot_works = false;
}

static void set_irq(void *opaque, bool level)
{
	struct uart *u = opaque;

	renew_page(u);
	irq_set_level(&u->dev.vm->irqs, u->gsi, level);
}

static bool transmit(void *opaque, uint8_t byte)
{
	struct uart *u = opaque;

	if (!u->attached)
		return true;
	if (u->core.ier && !(u->core.ier & IER_THRI))
		u->writes_unasked = true;
	console_write(u->dev.vm->console, &byte, 1);
	return console_room(u->dev.vm->console);
}

static const struct uart_core_ops core_ops = { .set_irq = set_irq, .transmit = transmit };

static bool tick_wanted(const struct uart *u)
{
	bool ring_may_fill = u->coalesced && (!u->core.ier || (u->core.ier & IER_THRI) || u->writes_unasked ||
					      (u->core.mcr & MCR_LOOP));

	return ring_may_fill || u->core.unsettled || !u->core.room || u->more_input;
}

/* Ends every entry into the device: publishes the new state and tells whom it concerns. */
static void leave(struct uart *u)
{
	bool ready = u->refused && !u->core.rx_count && !(u->core.mcr & MCR_LOOP);
	bool tick = tick_wanted(u);

	if (ready)
		u->refused = false;
	renew_page(u);
	pthread_mutex_unlock(&u->lock);
	if (ready)
		console_rx_ready(u->dev.vm->console);
	if (tick)
		vm_want_tick(u->dev.vm);
}

bool uart_wants_tick(struct uart *u)
{
	bool tick;

	pthread_mutex_lock(&u->lock);
	u->more_input = false;
	if (!u->core.room)
		uart_core_set_room(&u->core, console_room(u->dev.vm->console));
	uart_core_settle(&u->core);
	renew_page(u);
	tick = tick_wanted(u);
	pthread_mutex_unlock(&u->lock);
	return tick;
}

/* The first access makes the ones that follow cheap. A guest that never comes costs the start nothing. */
static void enter(struct uart *u)
{
	pthread_mutex_lock(&u->lock);
	if (u->touched)
		return;
	u->touched = true;
	if (u->page && u->attached)
		u->coalesced = coalesce_zone(&u->dev.vm->coalesce, false, u->region.base + UART_DATA, 1);
}

/* Wide accesses are their bytes in ascending order, as an 8-bit device on a wider bus sees them. */
static uint64_t reg_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct uart *u = opaque;
	uint64_t value = 0;

	enter(u);
	for (unsigned int i = 0; i < size; i++) {
		unsigned int reg = (unsigned int)offset + i;
		uint8_t byte = uart_core_read(&u->core, reg);

		TRACE(uart_read, "%s reg %u value 0x%02x", u->region.name, reg, (unsigned int)byte);
		value |= (uint64_t)byte << (8 * i);
	}
	leave(u);
	return value;
}

static void reg_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct uart *u = opaque;

	enter(u);
	for (unsigned int i = 0; i < size; i++) {
		unsigned int reg = (unsigned int)offset + i;
		uint8_t byte = (uint8_t)(value >> (8 * i));

		TRACE(uart_write, "%s reg %u value 0x%02x", u->region.name, reg, (unsigned int)byte);
		uart_core_write(&u->core, reg, byte);
	}
	leave(u);
}

static const struct io_ops reg_ops = { .read = reg_read, .write = reg_write };

static size_t input(void *opaque, const uint8_t *data, size_t length)
{
	struct uart *u = opaque;
	size_t taken;

	pthread_mutex_lock(&u->lock);
	taken = uart_core_receive(&u->core, data, length);
	u->refused = u->more_input = taken < length;
	leave(u);
	return taken;
}

static void writable(void *opaque)
{
	struct uart *u = opaque;

	pthread_mutex_lock(&u->lock);
	uart_core_set_room(&u->core, true);
	leave(u);
}

void uart_start(struct uart *u)
{
	console_start(u->dev.vm->console, &u->callbacks);
}

static void uart_reset(struct device *dev)
{
	struct uart *u = (struct uart *)dev;

	pthread_mutex_lock(&u->lock);
	u->writes_unasked = false;
	uart_core_reset(&u->core, !u->attached || console_room(dev->vm->console));
	leave(u);
}

static void uart_free(struct uart *u)
{
	if (u->slot >= 0)
		memslot_del(&u->dev.vm->memory, u->slot);
	free((void *)u->page);
	pthread_mutex_destroy(&u->lock);
	free(u);
}

static void uart_destroy(struct device *dev)
{
	uart_free((struct uart *)dev);
}

static void build_aml(struct aml *aml, void *device)
{
	const struct uart *u = device;

	aml_name(aml, "_HID");
	aml_eisa_id(aml, "PNP0501");
	aml_name_integer(aml, "_UID", u->page ? 2 : 1);
	aml_name(aml, "_CRS");
	aml_begin_resources(aml);
	if (u->page)
		aml_res_memory32_fixed(aml, (uint32_t)u->region.base, UART_PAGE_SIZE);
	else
		aml_res_io(aml, (uint16_t)u->region.base, UART_REGS);
	aml_res_irq_no_flags(aml, u->gsi);
	aml_end(aml);
}

static int build_fdt_pio(const struct device *dev, void *fdt)
{
	const struct uart *u = (const struct uart *)dev;
	int err = isa_fdt_begin(fdt, "serial", "ns16550a", (uint16_t)u->region.base, UART_REGS);

	if (!err)
		err = isa_fdt_interrupt(fdt, u->gsi, ISA_IRQ_EDGE_RISING);
	if (!err)
		err = fdt_property_u32(fdt, "clock-frequency", CLOCK_HZ);
	return err ? err : isa_fdt_end(fdt);
}

/* The parent counts addresses and sizes in two cells each. */
static int build_fdt_mmio(const struct device *dev, void *fdt)
{
	const struct uart *u = (const struct uart *)dev;
	const fdt64_t reg[] = { cpu_to_fdt64(u->region.base), cpu_to_fdt64(UART_PAGE_SIZE) };
	char node[32];
	int err;

	snprintf(node, sizeof(node), "serial@%llx", (unsigned long long)u->region.base);
	err = fdt_begin_node(fdt, node);
	if (!err)
		err = fdt_property_string(fdt, "compatible", "ns16550a");
	if (!err)
		err = fdt_property(fdt, "reg", reg, sizeof(reg));
	if (!err)
		err = isa_fdt_interrupt(fdt, u->gsi, ISA_IRQ_EDGE_RISING);
	if (!err)
		err = fdt_property_u32(fdt, "clock-frequency", CLOCK_HZ);
	return err ? err : fdt_end_node(fdt);
}

static const struct device_class pio_class = {
	.name = "uart",
	.reset = uart_reset,
	.destroy = uart_destroy,
	.aml_name = "COM1",
	.build_aml = build_aml,
	.build_fdt = build_fdt_pio,
};

static const struct device_class mmio_class = {
	.name = "uart-mmio",
	.reset = uart_reset,
	.destroy = uart_destroy,
	.aml_name = "COM2",
	.build_aml = build_aml,
	.build_fdt = build_fdt_mmio,
};

static const struct device_class hidden_class = {
	.name = "uart-hidden",
	.reset = uart_reset,
	.destroy = uart_destroy,
};

/* Everything but the buses. NULL: out of memory. */
static struct uart *uart_new(struct vm *vm, unsigned int gsi, unsigned int flags)
{
	struct uart *u = calloc(1, sizeof(*u));

	if (!u)
		return NULL;
	u->dev.vm = vm;
	u->gsi = gsi;
	u->attached = flags & UART_ATTACHED;
	u->callbacks = (struct console_callbacks){ .opaque = u, .input = input, .writable = writable };
	u->slot = -1;
	pthread_mutex_init(&u->lock, NULL);
	return u;
}

/* Puts the port on its bus; u is freed on failure. */
static int uart_install(struct uart *u, struct bus *bus, const struct device_class *class, unsigned int flags)
{
	struct vm *vm = u->dev.vm;
	bool pio = bus == &vm->pio;
	int ret;

	u->coalesced = pio && u->attached && coalesce_zone(&vm->coalesce, true, u->region.base + UART_DATA, 1);
	uart_core_init(&u->core, &core_ops, u, !pio, u->coalesced || !pio, true);
	u->region.length = pio ? UART_REGS : UART_PAGE_SIZE;
	u->region.ops = &reg_ops;
	u->region.opaque = u;
	ret = bus_add(bus, &u->region);
	if (ret) {
		log_line("serial port at 0x%llx: %s", (unsigned long long)u->region.base, strerror(-ret));
		uart_free(u);
		return ret;
	}
	renew_page(u);
	device_register(vm, &u->dev, flags & UART_DESCRIBED ? class : &hidden_class);
	if (u->attached)
		vm->uart = u;
	return 0;
}

int uart_pio_create(struct vm *vm, uint16_t port, unsigned int gsi, unsigned int flags)
{
	struct uart *u = uart_new(vm, gsi, flags);

	if (!u) {
		log_line("serial port at 0x%x: %s", (unsigned int)port, strerror(ENOMEM));
		return -ENOMEM;
	}
	u->region.name = "uart";
	u->region.base = port;
	return uart_install(u, &vm->pio, &pio_class, flags);
}

int uart_mmio_create(struct vm *vm, uint64_t gpa, unsigned int gsi, unsigned int flags)
{
	struct uart *u = uart_new(vm, gsi, flags);
	void *page = u ? aligned_alloc(UART_PAGE_SIZE, UART_PAGE_SIZE) : NULL;

	if (!page) {
		log_line("serial port at 0x%llx: %s", (unsigned long long)gpa, strerror(ENOMEM));
		if (u)
			uart_free(u);
		return -ENOMEM;
	}
	memset(page, 0xff, UART_PAGE_SIZE); /* what the rest of the page reads as on the bus */
	u->page = page;
	u->slot_works = true;
	u->region.name = "uart-mmio";
	u->region.base = gpa;
	return uart_install(u, &vm->mmio, &mmio_class, flags);
}
