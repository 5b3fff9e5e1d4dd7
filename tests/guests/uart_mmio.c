/* SPDX-License-Identifier: MIT */
/*
 * The serial port in memory, which a Linux kernel gets that is told of no console: its registers are read without
 * an exit. Argument: rx=N as for uart.c.
 */
#include "rt/apic.h"
#include "rt/io.h"
#include "rt/rt.h"

#define UART   0xfe900000ULL
#define VECTOR 0x41
#define POLLS  1000

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };

static volatile unsigned int interrupts, received;

static void set(unsigned int reg, uint8_t value)
{
	write8(UART + reg, value);
}

static uint8_t get(unsigned int reg)
{
	return read8(UART + reg);
}

static void registers(void)
{
	set(SCR, 0x5a);
	CHECK_EQ(get(SCR), 0x5a);
	set(SCR, 0xa5);
	CHECK_EQ(get(SCR), 0xa5);
	set(IER, 0xff);
	CHECK_EQ(get(IER), 0x0f);
	set(IER, 0);
	CHECK_EQ(get(IER), 0);
	set(LCR, 0x80);
	set(IER, 0x12);
	CHECK_EQ(get(IER), 0x12);
	set(LCR, 0x03);
	CHECK_EQ(get(IER), 0);
	set(IIR, 0x01);
	CHECK_EQ(get(IIR), 0xc1);
	CHECK_EQ(get(MSR), 0xb0);
	CHECK_EQ(read32(UART + LCR + 5), UINT32_MAX); /* behind the registers */
	write32(UART + 8, 0);
	CHECK_EQ(read64(UART + 8), UINT64_MAX);
	for (unsigned int i = 0; i < POLLS; i++)
		CHECK_EQ(get(LSR), 0x60);
}

static void loopback(void)
{
	set(MCR, 0x1a);
	CHECK_EQ(get(MSR) & 0xf0, 0x90);
	set(DATA, 'x');
	set(SCR, 0); /* an exit: what was collected is there now */
	CHECK_EQ(get(LSR) & 1, 1);
	CHECK_EQ(get(DATA), 'x');
	CHECK_EQ(get(LSR), 0x60);
	set(MCR, 0);
	CHECK_EQ(get(MSR), 0xb0);
}

static void transmit_irq(struct rt_frame *frame)
{
	(void)frame;
	CHECK_EQ(get(IIR), 0xc2);
	if (++interrupts == 3) {
		set(IER, 0);
		CHECK_EQ(get(IIR), 0xc1);
	} else {
		for (unsigned int i = 0; i < 16; i++)
			set(DATA, (uint8_t)(i == 15 ? '\n' : '0' + i));
	}
	lapic_eoi();
}

static void transmit(void)
{
	uint64_t end = rt_ticks() + 20000 * RT_TICKS_PER_MS;

	rt_handlers[VECTOR] = transmit_irq;
	set(MCR, 0x0b);
	set(IER, 0x02);
	while (interrupts < 3 && rt_ticks() < end)
		irq_window();
	CHECK_EQ(interrupts, 3);
	/* In order, without an exit in between. */
	for (unsigned int i = 0; i < 200; i++)
		set(DATA, (uint8_t)(i % 50 == 49 ? '\n' : 'a' + i % 26));
}

static void receive_irq(struct rt_frame *frame)
{
	(void)frame;
	while (!(get(IIR) & 1)) {
		while (get(LSR) & 1) {
			CHECK_EQ(get(DATA), 'a' + received % 26);
			received++;
		}
	}
	lapic_eoi();
}

static void receive(unsigned int count)
{
	uint64_t end;

	rt_handlers[VECTOR] = receive_irq;
	set(MCR, 0x0b);
	set(IER, 0x01);
	rt_print("ready\n");
	end = rt_ticks() + 5000 * RT_TICKS_PER_MS;
	while (received < count && rt_ticks() < end)
		irq_window();
	CHECK_EQ(received, count);
	set(IER, 0);
	rt_print("received %u\n", count);
}

void guest_main(void)
{
	unsigned int rx = (unsigned int)rt_arg_number("rx", 0);
	uint32_t length;

	rt_uart_mmio = (volatile uint8_t *)UART;
	CHECK(rt_arg_is("console", "uart8250,mmio,0xfe900000"));
	CHECK(!rt_setup_data(2, &length)); /* no device tree for Linux */
	CHECK_EQ(inb(0x3f8 + SCR), 0xff);  /* and no COM1 */
	pic_off();
	lapic_enable(false);
	ioapic_route(4, VECTOR, IOAPIC_EDGE, lapic_id());
	registers();
	loopback();
	if (rx)
		receive(rx);
	else
		transmit();
}
