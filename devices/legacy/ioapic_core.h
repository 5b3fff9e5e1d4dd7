/* SPDX-License-Identifier: MIT */
/*
 * The I/O APIC itself: registers, redirection table and what a change of a line makes of it. No system calls:
 * messages leave by callbacks.
 */
#ifndef DEVICES_LEGACY_IOAPIC_CORE_H
#define DEVICES_LEGACY_IOAPIC_CORE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/irq.h"

/* Registers in memory. All are 32 bits wide; the rest of IOAPIC_LENGTH reads 0. */
#define IOAPIC_REGSEL 0x00
#define IOAPIC_WIN    0x10
#define IOAPIC_EOI    0x40
#define IOAPIC_LENGTH 0x100

/* Indirect registers. Pin n has its low half at IOAPIC_REDIR + 2 * n and its high half after it. */
#define IOAPIC_ID    0x00
#define IOAPIC_VER   0x01
#define IOAPIC_ARB   0x02
#define IOAPIC_REDIR 0x10

#define IOAPIC_VERSION 0x20u /* the first with an EOI register */

/* A redirection entry, low half. */
#define IOAPIC_VECTOR	  0x000000ffu
#define IOAPIC_MODE	  0x00000700u
#define IOAPIC_LOGICAL	  0x00000800u
#define IOAPIC_STATUS	  0x00001000u /* read-only */
#define IOAPIC_POLARITY	  0x00002000u
#define IOAPIC_REMOTE_IRR 0x00004000u /* read-only */
#define IOAPIC_LEVEL	  0x00008000u
#define IOAPIC_MASKED	  0x00010000u

enum {
	IOAPIC_FIXED = 0 << 8,
	IOAPIC_LOWEST = 1 << 8,
	IOAPIC_SMI = 2 << 8,
	IOAPIC_NMI = 4 << 8,
	IOAPIC_INIT = 5 << 8,
	IOAPIC_EXTINT = 7 << 8,
};

/* Called under the model's lock, on the thread that caused it; may not call the model. */
struct ioapic_ops {
	/* Returns whether a local APIC took it. */
	bool (*deliver)(void *opaque, const struct irq_message *message);
	/* The level-triggered messages whose EOI is to be told. Called before the first of them is delivered.
	 */
	void (*routes_changed)(void *opaque, const struct irq_message routes[IRQ_PINS]);
};

struct ioapic_core {
	const struct ioapic_ops *ops;
	void *opaque;
	pthread_mutex_t lock; /* of all below */
	uint32_t id;
	uint8_t select;
	uint32_t lines; /* the level of each pin, as its device drives it */
	uint32_t low[IRQ_PINS];
	uint32_t high[IRQ_PINS];
	struct irq_message routes[IRQ_PINS]; /* as last told */
};

/* ops and opaque stay the caller's. All pins are masked and low. */
void ioapic_core_init(struct ioapic_core *core, const struct ioapic_ops *ops, void *opaque);
void ioapic_core_destroy(struct ioapic_core *core);

/* State after power-on, but for the lines: those are what the devices drive. */
void ioapic_core_reset(struct ioapic_core *core);

/* struct io_ops: offset is below IOAPIC_LENGTH, size 1, 2, 4 or 8. Any thread. */
uint64_t ioapic_core_read(struct ioapic_core *core, uint64_t offset, unsigned int size);
void ioapic_core_write(struct ioapic_core *core, uint64_t offset, unsigned int size, uint64_t value);

/* Drives a pin; one that does not exist is ignored. Any thread. */
void ioapic_core_set_level(struct ioapic_core *core, unsigned int pin, bool level);

/* A local APIC has ended the service of this vector. Any thread. */
void ioapic_core_eoi(struct ioapic_core *core, uint8_t vector);

#endif
