/* SPDX-License-Identifier: MIT */
/* The I/O APIC between the machine's pins and KVM's local APICs. See ioapic_core.c for how it works. */
#include "devices/legacy/ioapic.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "devices/legacy/ioapic_core.h"
#include "vmm/bus.h"
#include "vmm/coalesce.h"
#include "vmm/device.h"
#include "vmm/irq.h"
#include "vmm/log.h"
#include "vmm/vm.h"

struct ioapic {
	struct device dev;
	struct ioapic_core core;
	struct region region;
	_Atomic bool touched; /* the guest has been here */
};

static bool deliver(void *opaque, const struct irq_message *message)
{
	struct ioapic *ioapic = opaque;

	return irq_send(&ioapic->dev.vm->irqs, message);
}

static void routes_changed(void *opaque, const struct irq_message routes[IRQ_PINS])
{
	struct ioapic *ioapic = opaque;
	int ret = irq_watch_eoi(&ioapic->dev.vm->irqs, routes);

	if (ret)
		log_line("I/O APIC: KVM_SET_GSI_ROUTING: %s", strerror(-ret));
}

static const struct ioapic_ops core_ops = { .deliver = deliver, .routes_changed = routes_changed };

static void set_level(void *opaque, unsigned int gsi, bool level)
{
	ioapic_core_set_level(opaque, gsi, level);
}

static void eoi(void *opaque, uint8_t vector)
{
	ioapic_core_eoi(opaque, vector);
}

static const struct irq_pin_ops pin_ops = { .set_level = set_level, .eoi = eoi };

/*
 * From the first access on KVM collects the writes that choose a register: by itself that has no effect, and what makes
 * use of the choice exits and drains the ring first.
 */
static void touch(struct ioapic *ioapic)
{
	if (!atomic_exchange_explicit(&ioapic->touched, true, memory_order_relaxed))
		coalesce_zone(&ioapic->dev.vm->coalesce, false, ioapic->region.base + IOAPIC_REGSEL, 4);
}

static uint64_t ioapic_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct ioapic *ioapic = opaque;

	touch(ioapic);
	return ioapic_core_read(&ioapic->core, offset, size);
}

static void ioapic_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct ioapic *ioapic = opaque;

	touch(ioapic);
	ioapic_core_write(&ioapic->core, offset, size, value);
}

static const struct io_ops register_ops = { .read = ioapic_read, .write = ioapic_write };

static void ioapic_reset(struct device *dev)
{
	ioapic_core_reset(&((struct ioapic *)dev)->core);
}

static void ioapic_destroy(struct device *dev)
{
	struct ioapic *ioapic = (struct ioapic *)dev;

	irqs_attach_pins(&dev->vm->irqs, NULL, NULL);
	ioapic_core_destroy(&ioapic->core);
	free(ioapic);
}

static const struct device_class ioapic_class = {
	.name = "ioapic",
	.reset = ioapic_reset,
	.destroy = ioapic_destroy,
};

int ioapic_create(struct vm *vm, uint64_t base)
{
	struct ioapic *ioapic = calloc(1, sizeof(*ioapic));
	int ret = ioapic ? 0 : -ENOMEM;

	if (ioapic) {
		ioapic_core_init(&ioapic->core, &core_ops, ioapic);
		ioapic->region = (struct region){
			.name = "ioapic",
			.base = base,
			.length = IOAPIC_LENGTH,
			.ops = &register_ops,
			.opaque = ioapic,
		};
		ret = bus_add(&vm->mmio, &ioapic->region);
	}
	if (ret) {
		log_line("I/O APIC at 0x%llx: %s", (unsigned long long)base, strerror(-ret));
		if (ioapic)
			ioapic_core_destroy(&ioapic->core);
		free(ioapic);
		return ret;
	}
	device_register(vm, &ioapic->dev, &ioapic_class);
	irqs_attach_pins(&vm->irqs, &pin_ops, &ioapic->core);
	return 0;
}
