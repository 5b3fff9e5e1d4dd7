/* SPDX-License-Identifier: MIT */
/* Local APIC, IOAPIC and the other processors (Intel SDM volume 3, chapter 11; 82093AA data sheet). */
#ifndef RT_APIC_H
#define RT_APIC_H

#include <stdbool.h>
#include <stdint.h>

#define APIC_SPURIOUS 0xff /* the spurious interrupt's vector */

enum lapic_reg {
	LAPIC_ID = 0x20,
	LAPIC_VERSION = 0x30,
	LAPIC_TPR = 0x80,
	LAPIC_EOI = 0xb0,
	LAPIC_SVR = 0xf0,
	LAPIC_ISR = 0x100,
	LAPIC_IRR = 0x200,
	LAPIC_ESR = 0x280,
	LAPIC_ICR = 0x300,
	LAPIC_ICR_HIGH = 0x310,
	LAPIC_LVT_TIMER = 0x320,
	LAPIC_LVT_LINT0 = 0x350,
	LAPIC_TIMER_INITIAL = 0x380,
	LAPIC_TIMER_CURRENT = 0x390,
	LAPIC_TIMER_DIVIDE = 0x3e0,
};

enum {
	LVT_MASKED = 1 << 16,
	LVT_PERIODIC = 1 << 17,
	LVT_DEADLINE = 2 << 17,
};

/* Switches this processor's APIC on. x2: in x2APIC mode, the same for all that are used together. */
void lapic_enable(bool x2);
uint32_t lapic_read(enum lapic_reg reg);
void lapic_write(enum lapic_reg reg, uint32_t value);
void lapic_eoi(void);
uint32_t lapic_id(void);
bool lapic_pending(uint8_t vector); /* requested and not yet accepted */
/*
 * Accepted and before its EOI, which a handler should find true. A KVM where it is not (kvm_pvm, which interprets
 * ring 0) takes the EOI for nothing and delivers level-triggered interrupts a second time: exact counts of those
 * mean nothing there.
 */
bool lapic_in_service(uint8_t vector);

enum { ICR_FIXED = 0 << 8, ICR_INIT = 5 << 8, ICR_STARTUP = 6 << 8, ICR_ASSERT = 1 << 14, ICR_ALL_BUT_SELF = 3 << 18 };
void lapic_send(uint32_t apic_id, uint32_t command);

enum { IOAPIC_EDGE = 0, IOAPIC_LEVEL = 1 << 15, IOAPIC_ACTIVE_LOW = 1 << 13, IOAPIC_MASKED = 1 << 16 };
uint32_t ioapic_read(uint8_t reg);
void ioapic_write(uint8_t reg, uint32_t value);
/* Pin to vector on the processor with this (8-bit) APIC id. */
void ioapic_route(unsigned int pin, uint8_t vector, uint32_t flags, uint32_t apic_id);
/* Masks the 8259s, which the IOAPIC replaces. */
void pic_off(void);

/* Wakes the processor (INIT, start-up); it runs entry(n) on its own stack, n counting starts from 0. At most AP_MAX. */
void ap_start(uint32_t apic_id, void (*entry)(unsigned int n));
extern volatile uint32_t rt_ap_count; /* processors that have arrived */

#endif
