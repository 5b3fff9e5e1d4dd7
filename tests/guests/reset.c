/* SPDX-License-Identifier: MIT */
/*
 * A reset gives the machine as it was at power-on: nothing that the last boot left in RAM, registers, interrupt
 * controllers or devices is there. CMOS memory is, which counts the boots. Arguments: how=cf9|i8042|port92: the way
 * to reset; boots=N: after so many, ends by S5.
 */
#include "rt/apic.h"
#include "rt/io.h"
#include "rt/pci.h"
#include "rt/rt.h"

#define CMOS_COUNT     0x50
#define DIRTY	       0x3000000ULL
#define KERNEL_GS_BASE 0xc0000102
#define APIC_BASE      0x1b
#define SETUP_RNG_SEED 9

static uint32_t initialised = 0x12345678;
static volatile uint32_t arrived;

static uint8_t cmos(uint8_t index)
{
	outb(0x70, index);
	return inb(0x71);
}

static void set_cmos(uint8_t index, uint8_t value)
{
	outb(0x70, index);
	outb(0x71, value);
}

static uint64_t read_dr0(void)
{
	uint64_t value;

	__asm__ volatile("mov %%dr0, %0" : "=r"(value));
	return value;
}

static void check_cpu(void)
{
	CHECK_EQ(rdmsr(APIC_BASE) & 0xd00, 0x900); /* on, not x2APIC, boot processor */
	CHECK_EQ(rdmsr(KERNEL_GS_BASE), 0);
	CHECK_EQ(read_dr0(), 0);
	wrmsr(KERNEL_GS_BASE, 0x1234567);
	__asm__ volatile("mov %0, %%dr0" : : "r"(0x7654321UL));
	CHECK_EQ(rdmsr(KERNEL_GS_BASE), 0x1234567);
}

static void check_interrupts(void)
{
	CHECK_EQ(lapic_read(LAPIC_SVR), 0xff);
	CHECK_EQ(lapic_read(LAPIC_TPR), 0);
	CHECK_EQ(lapic_read(LAPIC_TIMER_INITIAL), 0);
	CHECK(lapic_read(LAPIC_LVT_TIMER) & LVT_MASKED);
	CHECK(!lapic_pending(0x55));
	for (uint8_t pin = 0; pin < 16; pin++)
		CHECK_EQ(ioapic_read((uint8_t)(0x10 + 2 * pin)), IOAPIC_MASKED);
	CHECK_EQ(inb(0x21), 0xff); /* there is no PIC */
}

/* Leaves an interrupt requested, an APIC in x2APIC mode and pins routed. */
static void spoil_interrupts(void)
{
	lapic_enable(true);
	lapic_write(LAPIC_TPR, 0x20);
	lapic_send(lapic_id(), ICR_FIXED | ICR_ASSERT | 0x55);
	CHECK(lapic_pending(0x55));
	lapic_write(LAPIC_TIMER_DIVIDE, 0xb);
	lapic_write(LAPIC_LVT_TIMER, 0x56);
	lapic_write(LAPIC_TIMER_INITIAL, 1000000000);
	ioapic_route(4, 0x57, IOAPIC_EDGE, 0);
	ioapic_route(9, 0x58, IOAPIC_LEVEL, 0);
	outb(0x21, 0xff);
}

static void check_devices(void)
{
	CHECK_EQ(inl(PCI_ADDRESS), 0);
	CHECK_EQ(inw(0x602), 0);
	CHECK_EQ(inb(0x3f8 + 7), 0);
	CHECK_EQ(inb(0x3f8 + 1), 0);
	CHECK_EQ(inb(0x3f8 + 4), 0);
	CHECK_EQ(inb(0x80), 0);
	CHECK_EQ(cmos(11) & 0x70, 0);
}

static void spoil_devices(void)
{
	unsigned int device = pci_find(0x1b36, 5);
	uint64_t bar;

	CHECK(device != PCI_NONE);
	bar = pci_bar(device, 0);
	CHECK_EQ(read32(bar), 0x74696370);
	CHECK_EQ(read32(bar + 0x0c), 0);
	CHECK_EQ(pci_read(device, 0x3c, 1), 12 + device / 8 % 4);
	write32(bar + 0x0c, 0x55555555);
	write32(bar + 0x08, 1); /* INTx */
	pci_write(device, 0x3c, 1, 0x99);
	pci_write(device, 0x10, 4, 0x90000000);
	outw(0x602, 0x521);
	outb(0x3f8 + 7, 0x77);
	outb(0x3f8 + 1, 0x0f);
	outb(0x3f8 + 4, 0x0b);
	outb(0x80, 0x5c);
	set_cmos(11, 0x72);
}

static void check_memory(void)
{
	CHECK_EQ(initialised, 0x12345678);
	for (uint64_t at = DIRTY; at < DIRTY + 0x1000000; at += 0x200000) {
		CHECK_EQ(read64(at), 0);
		write64(at, at);
	}
	CHECK_EQ(rt_ap_count, 0);
	initialised = 0;
}

static void ap_main(unsigned int n)
{
	(void)n;
	CHECK_EQ(rdmsr(KERNEL_GS_BASE), 0);
	wrmsr(KERNEL_GS_BASE, 0xabcdef);
	__atomic_store_n(&arrived, 1, __ATOMIC_SEQ_CST);
	for (;;)
		__asm__ volatile("pause"); /* a processor that runs, for the reset to stop */
}

static void start_other(void)
{
	uint64_t end = rt_ticks() + 20000 * RT_TICKS_PER_MS;

	/* Waits for INIT again: nobody starts it but this. */
	CHECK_EQ(arrived, 0);
	lapic_enable(false);
	ap_start(1, ap_main);
	while (!arrived && rt_ticks() < end)
		__asm__ volatile("pause");
	CHECK_EQ(arrived, 1);
}

static _Noreturn void reset(void)
{
	if (rt_arg_is("how", "cf9")) {
		outb(0xcf9, 0x02);
		outb(0xcf9, 0x06);
	} else if (rt_arg_is("how", "i8042")) {
		while (inb(0x64) & 2)
			;
		outb(0x64, 0xfe);
	} else if (rt_arg_is("how", "port92")) {
		outb(0x92, inb(0x92) | 1);
	}
	rt_delay(1000000);
	rt_fail(__FILE_NAME__, __LINE__, "still running after the reset");
}

void guest_main(void)
{
	uint8_t boot = (uint8_t)(cmos(CMOS_COUNT) + 1);
	uint32_t length;
	const uint64_t *seed = rt_setup_data(SETUP_RNG_SEED, &length);

	CHECK(seed && length == 32);
	check_cpu();
	check_interrupts();
	check_devices();
	check_memory();
	rt_print("boot %u seed %lx\n", boot, seed[0]);
	start_other();
	spoil_interrupts();
	spoil_devices();
	set_cmos(CMOS_COUNT, boot);
	if (boot < rt_arg_number("boots", 4))
		reset();
	outw(0x604, 0x2000);
	rt_delay(1000000);
	CHECK(!"S5 does nothing");
}
