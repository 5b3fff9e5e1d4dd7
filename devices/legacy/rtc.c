/* SPDX-License-Identifier: MIT */
/*
 * The real-time clock on the machine's ports; the registers are rtc_core.c's.
 *
 * The loop has a timer running only while an interrupt is enabled and its flag is not set: a guest that does
 * not acknowledge costs nothing. Register functions on vCPU threads post rearm_work when they may have
 * changed when the next one is due; the timer belongs to the loop thread. It counts host's monotonic time,
 * the clock shows CLOCK_REALTIME: long waits are cut so that a change of the host's clock is noticed.
 */
#include "devices/legacy/rtc.h"

#include <errno.h>
#include <libfdt.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "devices/legacy/isa_fdt.h"
#include "devices/legacy/rtc_core.h"
#include "firmware/acpi/aml.h"
#include "vmm/bus.h"
#include "vmm/device.h"
#include "vmm/irq.h"
#include "vmm/log.h"
#include "vmm/loop.h"
#include "vmm/vm.h"

#define RTC_PORT      0x70
#define RTC_PORTS     2 /* index, data */
#define RTC_GSI	      8
#define NSEC	      1000000000LL
#define LONGEST_TICKS (60LL * RTC_HZ)

struct rtc {
	struct device dev;
	struct region region;

	pthread_mutex_t lock; /* up to the blank line */
	struct rtc_core core;
	uint8_t index;
	bool line;

	/* Loop thread only. */
	struct loop_op timer_op;
	struct __kernel_timespec timer_ts;
	bool armed, cancelled;
	uint64_t due_ns; /* of the armed timer, CLOCK_MONOTONIC */
	struct loop_work rearm_work;
};

static int64_t host_ticks(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * RTC_HZ + ts.tv_nsec * RTC_HZ / NSEC;
}

/* Called with the lock held. */
static void drive_irq(struct rtc *rtc, int64_t now)
{
	bool level = rtc_core_advance(&rtc->core, now);

	if (level == rtc->line)
		return;
	rtc->line = level;
	irq_set_level(&rtc->dev.vm->irqs, RTC_GSI, level);
}

static void rearm(struct rtc *rtc)
{
	uint64_t ns, now_ns = clock_ns();
	int64_t ticks;

	pthread_mutex_lock(&rtc->lock);
	ticks = rtc_core_next(&rtc->core, host_ticks());
	pthread_mutex_unlock(&rtc->lock);
	if (ticks == RTC_NEVER || rtc->cancelled)
		return;
	if (ticks > LONGEST_TICKS)
		ticks = LONGEST_TICKS;
	ns = ((uint64_t)ticks * NSEC + RTC_HZ - 1) / RTC_HZ;
	if (!rtc->armed) {
		rtc->armed = true;
		rtc->due_ns = now_ns + ns;
		loop_timer(&rtc->dev.vm->loop, &rtc->timer_op, &rtc->timer_ts, ns);
	} else if (now_ns + ns < rtc->due_ns) {
		rtc->cancelled = true; /* its callback arms it again */
		loop_cancel(&rtc->dev.vm->loop, &rtc->timer_op);
	}
}

static void timer_fired(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct rtc *rtc = (struct rtc *)((char *)op - offsetof(struct rtc, timer_op));

	(void)res;
	(void)cqe_flags;
	rtc->armed = rtc->cancelled = false;
	pthread_mutex_lock(&rtc->lock);
	drive_irq(rtc, host_ticks());
	pthread_mutex_unlock(&rtc->lock);
	rearm(rtc);
}

static void rearm_posted(struct loop_work *work)
{
	rearm((struct rtc *)((char *)work - offsetof(struct rtc, rearm_work)));
}

/* Called with the lock held, after a register access that may have changed when the next interrupt is due. */
static void changed(struct rtc *rtc, int64_t now)
{
	drive_irq(rtc, now);
	if (rtc->core.cmos[RTC_B] & ~rtc->core.cmos[RTC_C] & RTC_C_FLAGS)
		loop_post(&rtc->dev.vm->loop, &rtc->rearm_work);
}

/* The index port can't be read back on a PC. */
static uint64_t port_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct rtc *rtc = opaque;
	int64_t now = host_ticks();
	uint64_t value = 0;

	pthread_mutex_lock(&rtc->lock);
	for (unsigned int i = 0; i < size; i++) {
		uint8_t byte = 0xff;

		if (offset + i == 1) {
			byte = rtc_core_read(&rtc->core, rtc->index, now);
			if (rtc->index == RTC_C)
				changed(rtc, now);
		}
		value |= (uint64_t)byte << (8 * i);
	}
	pthread_mutex_unlock(&rtc->lock);
	return value;
}

static void port_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct rtc *rtc = opaque;
	int64_t now = host_ticks();

	pthread_mutex_lock(&rtc->lock);
	for (unsigned int i = 0; i < size; i++) {
		uint8_t byte = (uint8_t)(value >> (8 * i));

		if (offset + i == 0) {
			rtc->index = byte & (RTC_CMOS_LEN - 1); /* bit 7 masks NMI, which nothing here raises */
		} else if (offset + i == 1) {
			rtc_core_write(&rtc->core, rtc->index, byte, now);
			changed(rtc, now);
		}
	}
	pthread_mutex_unlock(&rtc->lock);
}

static const struct io_ops port_ops = { .read = port_read, .write = port_write };

static void rtc_reset(struct device *dev)
{
	struct rtc *rtc = (struct rtc *)dev;
	int64_t now = host_ticks();

	pthread_mutex_lock(&rtc->lock);
	rtc->index = 0;
	rtc_core_reset(&rtc->core, now);
	drive_irq(rtc, now);
	pthread_mutex_unlock(&rtc->lock);
}

static void rtc_destroy(struct device *dev)
{
	struct rtc *rtc = (struct rtc *)dev;

	pthread_mutex_destroy(&rtc->lock);
	free(rtc);
}

static void build_aml(struct aml *aml, void *device)
{
	(void)device;
	aml_name(aml, "_HID");
	aml_eisa_id(aml, "PNP0B00");
	aml_name(aml, "_CRS");
	aml_begin_resources(aml);
	aml_res_io(aml, RTC_PORT, RTC_PORTS);
	aml_res_irq_no_flags(aml, RTC_GSI);
	aml_end(aml);
}

static int build_fdt(const struct device *dev, void *fdt)
{
	int err = isa_fdt_begin(fdt, "rtc", "motorola,mc146818", RTC_PORT, RTC_PORTS);

	(void)dev;
	if (!err)
		err = isa_fdt_interrupt(fdt, RTC_GSI, ISA_IRQ_EDGE_RISING);
	return err ? err : isa_fdt_end(fdt);
}

static const struct device_class rtc_class = {
	.name = "rtc",
	.reset = rtc_reset,
	.destroy = rtc_destroy,
	.aml_name = "RTC",
	.build_aml = build_aml,
	.build_fdt = build_fdt,
};

static int64_t local_offset(void)
{
	time_t now = time(NULL);
	struct tm tm;

	return localtime_r(&now, &tm) ? (int64_t)tm.tm_gmtoff * RTC_HZ : 0;
}

int rtc_create(struct vm *vm, enum rtc_base base)
{
	struct rtc *rtc = calloc(1, sizeof(*rtc));
	int ret = rtc ? 0 : -ENOMEM;

	if (rtc) {
		rtc_core_init(&rtc->core, base == RTC_LOCAL ? local_offset() : 0, host_ticks());
		rtc->timer_op.fn = timer_fired;
		rtc->rearm_work.fn = rearm_posted;
		rtc->region = (struct region){
			.name = "rtc", .base = RTC_PORT, .length = RTC_PORTS, .ops = &port_ops, .opaque = rtc
		};
		ret = bus_add(&vm->pio, &rtc->region);
	}
	if (ret) {
		log_line("real-time clock at port 0x%x: %s", RTC_PORT, strerror(-ret));
		free(rtc);
		return ret;
	}
	pthread_mutex_init(&rtc->lock, NULL);
	device_register(vm, &rtc->dev, &rtc_class);
	return 0;
}
