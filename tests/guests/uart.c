/* SPDX-License-Identifier: MIT */
/*
 * The 16550A of COM1 (PC16550D data sheet), by ports. Argument: rx=N: N bytes of input are due, the i-th being
 * 'a' + i % 26; they are taken by interrupt. early: they may be there already, so the FIFOs, whose enabling would clear
 * them, stay off.
 */
#include "rt/apic.h"
#include "rt/io.h"
#include "rt/rt.h"

#define COM1   0x3f8
#define VECTOR 0x40
#define BURSTS 8
#define LIMIT  2000000 /* microseconds */

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };

static volatile unsigned int bursts, received;
static volatile uint8_t last_iir;

static void set(unsigned int reg, uint8_t value)
{
	outb((uint16_t)(COM1 + reg), value);
}

static uint8_t get(unsigned int reg)
{
	return inb((uint16_t)(COM1 + reg));
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
	set(LCR, 0x83);
	set(DATA, 0x34);
	set(IER, 0x12);
	CHECK_EQ(get(DATA), 0x34);
	CHECK_EQ(get(IER), 0x12);
	set(LCR, 0x03);
	CHECK_EQ(get(LCR), 0x03);
	CHECK_EQ(get(IER), 0);
	set(IIR, 0); /* FCR */
	CHECK_EQ(get(IIR) & 0xc0, 0);
	set(IIR, 0x01);
	CHECK_EQ(get(IIR), 0xc1);
	CHECK_EQ(get(LSR) & 0x60, 0x60);
	/* Wide accesses are their bytes: IER and IIR, then all of DATA..LCR. */
	CHECK_EQ(inw(COM1 + IER), 0xc100);
	CHECK_EQ(inl(COM1 + LCR) & 0xff, 0x03);
}

static void loopback(void)
{
	static const struct {
		uint8_t mcr, msr;
	} lines[] = { { 0x11, 0x20 }, { 0x12, 0x10 }, { 0x14, 0x40 }, { 0x18, 0x80 }, { 0x10, 0 } };

	for (unsigned int i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		set(MCR, lines[i].mcr);
		CHECK_EQ(get(MSR) & 0xf0, lines[i].msr);
		CHECK_EQ(get(MSR) & 0x0f, 0); /* reading cleared the changes */
	}
	for (unsigned int i = 0; i < 17; i++)
		set(DATA, (uint8_t)(0x80 + i));
	CHECK_EQ(get(LSR) & 3, 3); /* data, and an overrun: the FIFO has 16 */
	CHECK_EQ(get(LSR) & 3, 1);
	for (unsigned int i = 0; i < 16; i++) {
		CHECK_EQ(get(LSR) & 1, 1);
		CHECK_EQ(get(DATA), 0x80 + i);
	}
	CHECK_EQ(get(LSR) & 1, 0);
	set(DATA, 0x77);
	CHECK_EQ(get(LSR) & 1, 1);
	set(IIR, 0x03); /* FCR: clear the receiver */
	CHECK_EQ(get(LSR) & 1, 0);
	set(MCR, 0);
	CHECK_EQ(get(MSR) & 0xf0, 0xb0); /* the console is there and ready */
	get(MSR);
}

static void transmit_irq(struct rt_frame *frame)
{
	(void)frame;
	last_iir = get(IIR);
	if ((last_iir & 0x0f) == 0x02) {
		for (unsigned int i = 0; i < 16 && bursts < BURSTS; i++)
			set(DATA, (uint8_t)(i == 15 ? '\n' : 'A' + bursts));
		if (bursts == BURSTS)
			set(IER, 0);
		bursts++;
	}
	lapic_eoi();
}

static void receive_irq(struct rt_frame *frame)
{
	uint8_t iir;

	(void)frame;
	while (!((iir = get(IIR)) & 1)) {
		CHECK((iir & 0x0e) == 0x04 || (iir & 0x0e) == 0x0c);
		while (get(LSR) & 1) {
			CHECK_EQ(get(DATA), 'a' + received % 26);
			received++;
		}
	}
	lapic_eoi();
}

static void transmit(void)
{
	uint64_t end = rt_ticks() + 20000 * RT_TICKS_PER_MS;

	rt_handlers[VECTOR] = transmit_irq;
	ioapic_route(4, VECTOR, IOAPIC_EDGE, lapic_id());
	set(MCR, 0x0b);
	set(IER, 0x02); /* the transmitter is empty: an interrupt at once */
	while (bursts <= BURSTS && rt_ticks() < end)
		irq_window();
	CHECK_EQ(bursts, BURSTS + 1);
	CHECK_EQ(last_iir, 0xc2);
	/* Told once: with nothing sent since, the interrupt does not come again. */
	set(IER, 0x02);
	CHECK_EQ(get(IIR), 0xc2);
	CHECK_EQ(get(IIR), 0xc1);
	set(IER, 0);
}

static void receive(unsigned int count)
{
	uint64_t end;

	rt_handlers[VECTOR] = receive_irq;
	if (!rt_arg("early"))
		set(IIR, 0x81); /* FIFO on, interrupt at 8 bytes */
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

	pic_off();
	lapic_enable(false);
	if (!rt_arg("early")) {
		registers();
		loopback();
	}
	if (rx) {
		ioapic_route(4, VECTOR, IOAPIC_EDGE, lapic_id());
		set(MCR, 0x0b);
		receive(rx);
	} else {
		transmit();
	}
}
