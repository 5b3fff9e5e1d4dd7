/* SPDX-License-Identifier: MIT */
#include "rt/apic.h"

#include "rt/io.h"
#include "rt/rt.h"

#define LAPIC_BASE  0xfee00000ULL
#define IOAPIC_BASE 0xfec00000ULL
#define X2APIC_MSR  0x800
#define APIC_BASE   0x1b
#define BASE_X2	    (1 << 10)
#define BASE_ENABLE (1 << 11)
#define SVR_ENABLE  0x100

extern const uint8_t ap_begin[], ap_end[];

volatile uint32_t rt_ap_count;
uint64_t rt_ap_cr3;
void (*volatile rt_ap_entry)(unsigned int n);
uint8_t rt_ap_stacks[AP_MAX << AP_STACK_SHIFT] __attribute__((aligned(16)));

static bool x2apic;

void lapic_enable(bool x2)
{
	uint64_t base = rdmsr(APIC_BASE);

	x2apic = x2;
	wrmsr(APIC_BASE, base | BASE_ENABLE | (x2 ? BASE_X2 : 0));
	lapic_write(LAPIC_SVR, SVR_ENABLE | APIC_SPURIOUS);
	lapic_write(LAPIC_TPR, 0);
}

uint32_t lapic_read(enum lapic_reg reg)
{
	return x2apic ? (uint32_t)rdmsr(X2APIC_MSR + (reg >> 4)) : read32(LAPIC_BASE + reg);
}

void lapic_write(enum lapic_reg reg, uint32_t value)
{
	if (x2apic)
		wrmsr(X2APIC_MSR + (reg >> 4), value);
	else
		write32(LAPIC_BASE + reg, value);
}

void lapic_eoi(void)
{
	lapic_write(LAPIC_EOI, 0);
}

uint32_t lapic_id(void)
{
	return x2apic ? lapic_read(LAPIC_ID) : lapic_read(LAPIC_ID) >> 24;
}

static bool bit(enum lapic_reg first, uint8_t vector)
{
	return lapic_read((enum lapic_reg)(first + (vector / 32) * 16)) >> (vector % 32) & 1;
}

bool lapic_pending(uint8_t vector)
{
	return bit(LAPIC_IRR, vector);
}

bool lapic_in_service(uint8_t vector)
{
	return bit(LAPIC_ISR, vector);
}

void lapic_send(uint32_t apic_id, uint32_t command)
{
	if (x2apic) {
		wrmsr(X2APIC_MSR + (LAPIC_ICR >> 4), (uint64_t)apic_id << 32 | command);
	} else {
		lapic_write(LAPIC_ICR_HIGH, apic_id << 24);
		lapic_write(LAPIC_ICR, command);
	}
}

uint32_t ioapic_read(uint8_t reg)
{
	write32(IOAPIC_BASE, reg);
	return read32(IOAPIC_BASE + 0x10);
}

void ioapic_write(uint8_t reg, uint32_t value)
{
	write32(IOAPIC_BASE, reg);
	write32(IOAPIC_BASE + 0x10, value);
}

void ioapic_route(unsigned int pin, uint8_t vector, uint32_t flags, uint32_t apic_id)
{
	ioapic_write((uint8_t)(0x11 + 2 * pin), apic_id << 24);
	ioapic_write((uint8_t)(0x10 + 2 * pin), vector | flags);
}

void pic_off(void)
{
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
}

void ap_start(uint32_t apic_id, void (*entry)(unsigned int n))
{
	memcpy((void *)AP_START, ap_begin, (size_t)(ap_end - ap_begin));
	rt_ap_cr3 = read_cr3();
	rt_ap_entry = entry;
	lapic_send(apic_id, ICR_INIT | ICR_ASSERT);
	lapic_send(apic_id, ICR_STARTUP | ICR_ASSERT | AP_START >> 12);
}
