/* SPDX-License-Identifier: MIT */
/*
 * ACPI 6.4, chapter 4.8.3: PM1 event grouping, PM1 control grouping, power management timer.
 *
 * The machine is in ACPI mode from the start (SCI_EN reads 1) and knows one sleeping state, S5: SLP_EN powers
 * off whatever type is asked for. The reset register is the chipset's at 0xCF9, which the PCI bus owns.
 *
 * The timer is CLOCK_MONOTONIC, scaled. TMR_STS follows from how often its top bit has toggled, looked at
 * when somebody asks; the loop has a timer for it only while its interrupt is enabled.
 */
#include "devices/legacy/pm.h"

#include <errno.h>
#include <libfdt.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "devices/legacy/isa_fdt.h"
#include "firmware/acpi/tables.h"
#include "vmm/bus.h"
#include "vmm/device.h"
#include "vmm/irq.h"
#include "vmm/log.h"
#include "vmm/loop.h"
#include "vmm/options.h"
#include "vmm/vm.h"

#define TIMER_HZ 3579545ULL
#define NSEC	 1000000000ULL
#define TOP_BIT	 31

#define CLOUD_HV_SHUTDOWN 0x34

enum { /* PM1_STS and PM1_EN (4.8.3.1) */
       PM1_TIMER = 1 << 0,
       PM1_GLOBAL = 1 << 5,
       PM1_POWER_BUTTON = 1 << 8,
       PM1_SLEEP_BUTTON = 1 << 9,
       PM1_RTC = 1 << 10,
       PM1_WAKE = 1 << 15, /* status only */
       PM1_EVENTS = PM1_TIMER | PM1_GLOBAL | PM1_POWER_BUTTON | PM1_SLEEP_BUTTON | PM1_RTC,
};

enum { /* PM1_CNT (4.8.3.2); GBL_RLS and SLP_EN read as 0 */
       PM1_SCI_EN = 1 << 0,
       PM1_BM_RLD = 1 << 1,
       PM1_SLP_TYP = 7 << 10,
       PM1_SLP_EN = 1 << 13,
};

struct pm {
	struct device dev;
	struct region region;
	unsigned int gsi;

	pthread_mutex_t lock; /* up to the blank line */
	uint16_t status, enable, control;
	uint64_t toggles; /* of the timer's top bit, accounted for in status */
	bool line;

	/* Loop thread only. */
	struct loop_op timer_op;
	struct __kernel_timespec timer_ts;
	bool armed;
	struct loop_work arm_work;
};

static uint64_t timer_now(void)
{
	return (uint64_t)((unsigned __int128)clock_ns() * TIMER_HZ / NSEC);
}

/* Called with the lock held, after anything that bears on status or enable. */
static void update(struct pm *pm)
{
	uint64_t toggles = timer_now() >> TOP_BIT;
	bool level;

	if (toggles != pm->toggles)
		pm->status |= PM1_TIMER;
	pm->toggles = toggles;
	level = pm->status & pm->enable & PM1_EVENTS;
	if (level == pm->line)
		return;
	pm->line = level;
	irq_set_level(&pm->dev.vm->irqs, pm->gsi, level);
}

void pm_power_button(struct pm *pm)
{
	pthread_mutex_lock(&pm->lock);
	pm->status |= PM1_POWER_BUTTON;
	update(pm);
	pthread_mutex_unlock(&pm->lock);
}

/* Runs the loop's timer to the next toggle of the top bit while TMR_EN is set. */
static void arm(struct pm *pm)
{
	uint64_t left = (1ULL << TOP_BIT) - (timer_now() & ((1ULL << TOP_BIT) - 1));
	bool wanted;

	pthread_mutex_lock(&pm->lock);
	wanted = pm->enable & PM1_TIMER;
	pthread_mutex_unlock(&pm->lock);
	if (!wanted || pm->armed)
		return;
	pm->armed = true;
	loop_timer(&pm->dev.vm->loop, &pm->timer_op, &pm->timer_ts, (left * NSEC + TIMER_HZ - 1) / TIMER_HZ);
}

static void timer_fired(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct pm *pm = (struct pm *)((char *)op - offsetof(struct pm, timer_op));

	(void)res;
	(void)cqe_flags;
	pm->armed = false;
	pthread_mutex_lock(&pm->lock);
	update(pm);
	pthread_mutex_unlock(&pm->lock);
	arm(pm);
}

static void arm_posted(struct loop_work *work)
{
	arm((struct pm *)((char *)work - offsetof(struct pm, arm_work)));
}

static uint8_t read_byte(struct pm *pm, unsigned int at, uint32_t timer)
{
	switch (at & ~1u) {
	case ACPI_PM1_EVENT:
		return (uint8_t)(pm->status >> (at % 2 * 8));
	case ACPI_PM1_EVENT + 2:
		return (uint8_t)(pm->enable >> (at % 2 * 8));
	case ACPI_PM1_CONTROL:
		return (uint8_t)((pm->control | PM1_SCI_EN) >> (at % 2 * 8));
	case ACPI_PM_TIMER:
	case ACPI_PM_TIMER + 2:
		return (uint8_t)(timer >> (at % 4 * 8));
	default:
		return 0;
	}
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct pm *pm = opaque;
	uint32_t timer = (uint32_t)timer_now();
	uint64_t value = 0;

	if (offset == ACPI_PM_TIMER && size == 4)
		return timer;
	pthread_mutex_lock(&pm->lock);
	update(pm);
	for (unsigned int i = 0; i < size; i++)
		value |= (uint64_t)read_byte(pm, (unsigned int)offset + i, timer) << (8 * i);
	pthread_mutex_unlock(&pm->lock);
	return value;
}

/* Replaces the byte of reg that at (odd or even) stands for. */
static uint16_t merge(uint16_t reg, unsigned int at, uint8_t byte)
{
	unsigned int shift = at % 2 * 8;

	return (uint16_t)((reg & ~(0xff << shift)) | byte << shift);
}

static void write_byte(struct pm *pm, unsigned int at, uint8_t byte)
{
	switch (at & ~1u) {
	case ACPI_PM1_EVENT: /* written ones clear */
		pm->status &= (uint16_t) ~(byte << (at % 2 * 8));
		break;
	case ACPI_PM1_EVENT + 2:
		pm->enable = merge(pm->enable, at, byte) & PM1_EVENTS;
		break;
	case ACPI_PM1_CONTROL:
		pm->control = merge(pm->control, at, byte) & (PM1_BM_RLD | PM1_SLP_TYP);
		if (at % 2 && byte & PM1_SLP_EN >> 8)
			vm_poweroff(pm->dev.vm);
		break;
	default: /* the timer can't be written */
		break;
	}
}

/*
 * edk2's CloudHv build, an ELF file, takes PM1_STS for a register of another machine: its byte 0x34 is SLP_EN and S5's
 * type there. No OS writes half of PM1_STS.
 */
static bool is_cloud_hv_shutdown(const struct pm *pm, uint64_t offset, unsigned int size, uint64_t value)
{
	const struct vm *vm = pm->dev.vm;

	return offset == 0 && size == 1 && (uint8_t)value == CLOUD_HV_SHUTDOWN && vm->config->firmware && !vm->firmware;
}

static void port_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct pm *pm = opaque;
	bool timer_wanted;

	if (is_cloud_hv_shutdown(pm, offset, size, value)) {
		vm_poweroff(pm->dev.vm);
		return;
	}

	pthread_mutex_lock(&pm->lock);
	update(pm);
	for (unsigned int i = 0; i < size; i++)
		write_byte(pm, (unsigned int)offset + i, (uint8_t)(value >> (8 * i)));
	update(pm);
	timer_wanted = pm->enable & PM1_TIMER;
	pthread_mutex_unlock(&pm->lock);
	if (timer_wanted)
		loop_post(&pm->dev.vm->loop, &pm->arm_work);
}

static const struct io_ops port_ops = { .read = port_read, .write = port_write };

static void pm_reset(struct device *dev)
{
	struct pm *pm = (struct pm *)dev;

	pthread_mutex_lock(&pm->lock);
	pm->toggles = timer_now() >> TOP_BIT;
	pm->status = pm->enable = pm->control = 0;
	update(pm);
	pthread_mutex_unlock(&pm->lock);
}

static void pm_destroy(struct device *dev)
{
	struct pm *pm = (struct pm *)dev;

	pthread_mutex_destroy(&pm->lock);
	free(pm);
}

static int build_fdt(const struct device *dev, void *fdt)
{
	const struct pm *pm = (const struct pm *)dev;
	int err = isa_fdt_begin(fdt, "acpi-pm", "acpi-pm", (uint16_t)pm->region.base, ACPI_PM_BLOCK_LEN);

	if (!err)
		err = isa_fdt_interrupt(fdt, pm->gsi, ISA_IRQ_LEVEL_HIGH);
	return err ? err : isa_fdt_end(fdt);
}

static bool power_button(struct device *dev)
{
	pm_power_button((struct pm *)dev);
	return true;
}

/* No node in the DSDT: the FADT describes it, and the DSDT's motherboard device claims its ports. */
static const struct device_class pm_class = {
	.name = "acpi-pm",
	.reset = pm_reset,
	.power_button = power_button,
	.destroy = pm_destroy,
	.build_fdt = build_fdt,
};

int pm_create(struct vm *vm, uint16_t base, unsigned int gsi)
{
	struct pm *pm = calloc(1, sizeof(*pm));
	int ret = pm ? 0 : -ENOMEM;

	if (pm) {
		pm->gsi = gsi;
		pm->toggles = timer_now() >> TOP_BIT;
		pm->timer_op.fn = timer_fired;
		pm->arm_work.fn = arm_posted;
		pm->region = (struct region){
			.name = "acpi-pm", .base = base, .length = ACPI_PM_BLOCK_LEN, .ops = &port_ops, .opaque = pm
		};
		ret = bus_add(&vm->pio, &pm->region);
	}
	if (ret) {
		log_line("ACPI power management at port 0x%x: %s", (unsigned int)base, strerror(-ret));
		free(pm);
		return ret;
	}
	pthread_mutex_init(&pm->lock, NULL);
	device_register(vm, &pm->dev, &pm_class);
	vm->pm = pm;
	return 0;
}
