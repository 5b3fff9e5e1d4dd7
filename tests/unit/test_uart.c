/* SPDX-License-Identifier: MIT */
/* The serial port: the 16550A's registers one by one, then its two faces, then a driver that runs against
 * them. */
#include "legacy_fake.h"

#include <sched.h>
#include <time.h>

#include "devices/legacy/uart.h"
#include "devices/legacy/uart_core.h"

/* --- registers
 * ------------------------------------------------------------------------------------------------ */

struct wire {
	struct uart_core core;
	bool level, room;
	unsigned int edges, sent;
	uint8_t last;
};

static void wire_irq(void *opaque, bool level)
{
	struct wire *w = opaque;

	assert_int_not_equal(w->level, level); /* told of changes only */
	w->level = level;
	w->edges += level;
}

static bool wire_transmit(void *opaque, uint8_t byte)
{
	struct wire *w = opaque;

	w->last = byte;
	w->sent++;
	return w->room;
}

static const struct uart_core_ops wire_ops = { .set_irq = wire_irq, .transmit = wire_transmit };

static void wire_init(struct wire *w, bool fast, bool lazy)
{
	memset(w, 0, sizeof(*w));
	w->room = true;
	uart_core_init(&w->core, &wire_ops, w, fast, lazy, true);
}

static uint8_t rd(struct wire *w, unsigned int reg)
{
	uint8_t peeked = uart_core_peek(&w->core, reg), value = uart_core_read(&w->core, reg);

	assert_int_equal(peeked, value);
	return value;
}

static void wr(struct wire *w, unsigned int reg, uint8_t value)
{
	uart_core_write(&w->core, reg, value);
}

static size_t rx(struct wire *w, const char *bytes)
{
	return uart_core_receive(&w->core, (const uint8_t *)bytes, strlen(bytes));
}

static void power_on_state(void **state)
{
	static const uint8_t expected[UART_REGS] = { 0, 0, IIR_NONE, 0, 0, LSR_THRE | LSR_TEMT, 0xb0, 0 };
	struct wire w;

	(void)state;
	wire_init(&w, false, false);
	for (unsigned int reg = 0; reg < UART_REGS; reg++)
		assert_int_equal(rd(&w, reg), expected[reg]);
	assert_int_equal(rd(&w, 8), 0xff);
	assert_int_equal(rd(&w, UINT32_MAX), 0xff);
	wr(&w, 8, 1);
	assert_int_equal(w.sent, 0);
}

static void storage_registers(void **state)
{
	struct wire w;

	(void)state;
	wire_init(&w, false, false);
	for (unsigned int v = 0; v < 256; v++) {
		wr(&w, UART_SCR, (uint8_t)v);
		assert_int_equal(rd(&w, UART_SCR), v);
		wr(&w, UART_IER, (uint8_t)v);
		assert_int_equal(rd(&w, UART_IER), v & 0x0f);
		wr(&w, UART_MCR, (uint8_t)v);
		assert_int_equal(rd(&w, UART_MCR), v & 0x1f);
		wr(&w, UART_LCR, (uint8_t)v);
		assert_int_equal(rd(&w, UART_LCR), v);
		wr(&w, UART_LCR, 0);
	}
	wr(&w, UART_LCR, LCR_DLAB);
	wr(&w, UART_IER, 0x12);
	wr(&w, UART_DATA, 0x34);
	assert_int_equal(rd(&w, UART_DATA), 0x34);
	assert_int_equal(rd(&w, UART_IER), 0x12);
	assert_int_equal(w.sent, 0);
	wr(&w, UART_LCR, 0x03);
	assert_int_equal(rd(&w, UART_IER), 0x0f);
	wr(&w, UART_LSR, 0xff);
	wr(&w, UART_MSR, 0xff);
	wr(&w, UART_MCR, 0);
	rd(&w, UART_MSR);
	assert_int_equal(rd(&w, UART_LSR), LSR_THRE | LSR_TEMT);
	assert_int_equal(rd(&w, UART_MSR), 0xb0);
}

static void transmit_interrupt(void **state)
{
	struct wire w;

	(void)state;
	wire_init(&w, false, false);
	wr(&w, UART_MCR, MCR_OUT2);
	wr(&w, UART_IER, IER_THRI); /* set while empty: pending at once */
	assert_true(w.level);
	assert_int_equal(rd(&w, UART_IIR), IIR_THRI);
	assert_int_equal(rd(&w, UART_IIR), IIR_NONE); /* the read cleared it */
	assert_false(w.level);
	wr(&w, UART_IER, IER_THRI); /* no change, no event */
	assert_int_equal(rd(&w, UART_IIR), IIR_NONE);
	wr(&w, UART_IER, 0); /* Linux's THRE test: off and on again reasserts */
	wr(&w, UART_IER, IER_THRI);
	assert_int_equal(rd(&w, UART_IIR), IIR_THRI);
	for (unsigned int i = 0; i < 20; i++) { /* each byte empties THR anew: an edge each */
		wr(&w, UART_DATA, (uint8_t)i);
		assert_true(w.level);
		assert_int_equal(w.edges, 3 + i);
		assert_int_equal(w.last, i);
	}
	assert_int_equal(rd(&w, UART_LSR), LSR_THRE | LSR_TEMT);
	assert_int_equal(rd(&w, UART_IIR), IIR_THRI);
	wr(&w, UART_IER, IER_RDI);
	wr(&w, UART_DATA, 'x');
	assert_false(w.level);
	wr(&w, UART_IER, IER_RDI | IER_THRI);
	assert_true(w.level);
	wr(&w, UART_IER, 0);
	assert_false(w.level);
}

static void lazy_transmit_interrupt(void **state)
{
	struct wire w;

	(void)state;
	wire_init(&w, false, true);
	wr(&w, UART_MCR, MCR_OUT2);
	wr(&w, UART_IER, IER_THRI);
	assert_int_equal(w.edges, 1);
	/* A driver that loops: bytes, then IIR, with no movement of the line. */
	assert_int_equal(rd(&w, UART_IIR), IIR_THRI);
	for (int i = 0; i < 16; i++)
		wr(&w, UART_DATA, 'a');
	assert_false(w.level);
	assert_int_equal(rd(&w, UART_IIR), IIR_THRI);
	assert_int_equal(w.edges, 1);
	/* One that leaves after writing: the edge comes when settled. */
	for (int i = 0; i < 16; i++)
		wr(&w, UART_DATA, 'a');
	assert_false(w.level);
	uart_core_settle(&w.core);
	assert_true(w.level);
	assert_int_equal(w.edges, 2);
	/* One that writes without having read IIR. */
	wr(&w, UART_DATA, 'b');
	assert_int_equal(w.edges, 2);
	uart_core_settle(&w.core);
	assert_int_equal(w.edges, 3);
	uart_core_settle(&w.core);
	assert_int_equal(w.edges, 3);
	assert_int_equal(w.sent, 33);
	/* Any other look at the port shows the line as it should be. */
	assert_int_equal(rd(&w, UART_IIR), IIR_THRI);
	wr(&w, UART_DATA, 'c');
	assert_false(w.level);
	rd(&w, UART_LSR);
	assert_true(w.level);
	/* Received data does not wait. */
	assert_int_equal(rd(&w, UART_IIR), IIR_THRI);
	wr(&w, UART_IER, IER_THRI | IER_RDI);
	wr(&w, UART_DATA, 'd');
	assert_false(w.level);
	assert_int_equal(rx(&w, "x"), 1);
	assert_true(w.level);
}

static void room_gates_the_transmitter(void **state)
{
	for (int fast = 0; fast < 2; fast++) {
		struct wire w;

		(void)state;
		wire_init(&w, fast, false);
		wr(&w, UART_MCR, MCR_OUT2);
		wr(&w, UART_IER, IER_THRI);
		w.room = false;
		wr(&w, UART_DATA, 'a');
		assert_int_equal(rd(&w, UART_LSR), 0);
		assert_false(w.level);
		assert_int_equal(rd(&w, UART_IIR), IIR_NONE);
		wr(&w, UART_DATA, 'b'); /* passed on all the same */
		assert_int_equal(w.sent, 2);
		wr(&w, UART_IER, 0);
		wr(&w, UART_IER, IER_THRI); /* not empty: nothing pending */
		assert_false(w.level);
		w.room = true;
		uart_core_set_room(&w.core, true);
		assert_true(w.level);
		assert_int_equal(rd(&w, UART_LSR), LSR_THRE | LSR_TEMT);
		assert_int_equal(rd(&w, UART_IIR), IIR_THRI);
		uart_core_set_room(&w.core, true); /* no news */
		assert_int_equal(rd(&w, UART_IIR), fast ? IIR_THRI : IIR_NONE);
		uart_core_set_room(&w.core, false);
		assert_false(w.level);
		wr(&w, UART_MCR, MCR_OUT2 | MCR_LOOP); /* in loopback nobody outside is needed */
		assert_int_equal(rd(&w, UART_LSR), LSR_THRE | LSR_TEMT);
		wr(&w, UART_MCR, MCR_OUT2);
		assert_int_equal(rd(&w, UART_LSR), 0);
	}
}

static void fifo_levels(void **state)
{
	static const unsigned int trigger[] = { 1, 4, 8, 14 };

	for (unsigned int i = 0; i < 4; i++) {
		struct wire w;

		(void)state;
		wire_init(&w, false, false);
		wr(&w, UART_MCR, MCR_OUT2);
		wr(&w, UART_IER, IER_RDI);
		wr(&w, UART_IIR, (uint8_t)(FCR_ENABLE | i << 6));
		assert_int_equal(rd(&w, UART_IIR), IIR_FIFO | IIR_NONE);
		for (unsigned int n = 1; n <= 16; n++) {
			assert_int_equal(rx(&w, (char[]){ (char)('a' + n), 0 }), 1);
			assert_true(w.level);
			assert_int_equal(rd(&w, UART_IIR), IIR_FIFO | (n >= trigger[i] ? IIR_RDI : IIR_TIMEOUT));
		}
		assert_int_equal(rx(&w, "z"), 0);
		for (unsigned int n = 1; n <= 16; n++) {
			assert_int_equal(rd(&w, UART_LSR), LSR_DR | LSR_THRE | LSR_TEMT);
			assert_int_equal(rd(&w, UART_DATA), 'a' + n);
			unsigned int left = 16 - n;

			assert_int_equal(rd(&w, UART_IIR), IIR_FIFO | (!left		    ? IIR_NONE
								       : left >= trigger[i] ? IIR_RDI
											    : IIR_TIMEOUT));
		}
		assert_false(w.level);
		assert_int_equal(w.edges, 1);
		assert_int_equal(rd(&w, UART_LSR), LSR_THRE | LSR_TEMT);
		assert_int_equal(rd(&w, UART_DATA), 'a' + 16); /* empty: the last again */
	}
}

static void without_fifo(void **state)
{
	struct wire w;

	(void)state;
	wire_init(&w, false, false);
	wr(&w, UART_IER, IER_RDI);
	wr(&w, UART_IIR, 0xc6); /* without the enable bit the others mean nothing */
	assert_int_equal(rx(&w, "ab"), 1);
	assert_int_equal(rx(&w, "b"), 0);
	assert_int_equal(rd(&w, UART_IIR), IIR_RDI);
	assert_false(w.level); /* OUT2 is off */
	wr(&w, UART_MCR, MCR_OUT2);
	assert_true(w.level);
	assert_int_equal(rd(&w, UART_DATA), 'a');
	assert_false(w.level);
	assert_int_equal(rx(&w, "b"), 1);
	wr(&w, UART_IIR, FCR_ENABLE); /* the change empties it */
	assert_false(w.level);
	assert_int_equal(rx(&w, "0123456789abcdefgh"), 16);
	wr(&w, UART_IIR, FCR_ENABLE | 4); /* clears the transmitter's only */
	assert_int_equal(rd(&w, UART_DATA), '0');
	wr(&w, UART_IIR, FCR_ENABLE | FCR_CLEAR_RX);
	assert_int_equal(rd(&w, UART_LSR) & LSR_DR, 0);
	assert_int_equal(rx(&w, "x"), 1);
	wr(&w, UART_IIR, 0);
	assert_int_equal(rd(&w, UART_LSR) & LSR_DR, 0);
	assert_int_equal(rd(&w, UART_IIR), IIR_NONE);
}

static void priorities(void **state)
{
	struct wire w;

	(void)state;
	wire_init(&w, false, false);
	wr(&w, UART_IIR, FCR_ENABLE);
	wr(&w, UART_MCR, MCR_LOOP | MCR_OUT2);
	wr(&w, UART_IER, IER_BITS);
	for (int i = 0; i < 17; i++)
		wr(&w, UART_DATA, (uint8_t)i);
	/* overrun, data, THRE and modem changes are all pending */
	assert_int_equal(rd(&w, UART_IIR), IIR_FIFO | IIR_RLSI);
	assert_int_equal(rd(&w, UART_LSR), LSR_DR | LSR_OE | LSR_THRE | LSR_TEMT);
	assert_int_equal(rd(&w, UART_LSR), LSR_DR | LSR_THRE | LSR_TEMT);
	for (int i = 0; i < 16; i++) {
		assert_int_equal(rd(&w, UART_IIR), IIR_FIFO | IIR_RDI);
		assert_int_equal(rd(&w, UART_DATA), i);
	}
	assert_int_equal(rd(&w, UART_IIR), IIR_FIFO | IIR_THRI);
	assert_int_equal(rd(&w, UART_IIR), IIR_FIFO | IIR_MSI);
	assert_int_equal(rd(&w, UART_IIR), IIR_FIFO | IIR_MSI);
	assert_int_not_equal(rd(&w, UART_MSR) & MSR_DELTAS, 0);
	assert_int_equal(rd(&w, UART_IIR), IIR_FIFO | IIR_NONE);
	assert_false(w.level);
	assert_int_equal(w.edges, 1); /* the line never dropped in between */
}

static void loopback(void **state)
{
	struct wire w;

	(void)state;
	wire_init(&w, false, false);
	wr(&w, UART_MCR, MCR_LOOP | MCR_OUT2 | MCR_RTS); /* Linux's autoconfig() */
	assert_int_equal(rd(&w, UART_MSR) & 0xf0, MSR_DCD | MSR_CTS);
	for (unsigned int mcr = 0; mcr < 16; mcr++) {
		uint8_t before = rd(&w, UART_MSR), after, expected = 0;

		wr(&w, UART_MCR, (uint8_t)(MCR_LOOP | mcr));
		expected |= mcr & MCR_RTS ? MSR_CTS : 0;
		expected |= mcr & MCR_DTR ? MSR_DSR : 0;
		expected |= mcr & MCR_OUT1 ? MSR_RI : 0;
		expected |= mcr & MCR_OUT2 ? MSR_DCD : 0;
		after = rd(&w, UART_MSR);
		assert_int_equal(after & 0xf0, expected);
		assert_int_equal(!!(after & MSR_DCTS), !!((before ^ after) & MSR_CTS));
		assert_int_equal(!!(after & MSR_DDSR), !!((before ^ after) & MSR_DSR));
		assert_int_equal(!!(after & MSR_DDCD), !!((before ^ after) & MSR_DCD));
		assert_int_equal(!!(after & MSR_TERI), (before & MSR_RI) && !(after & MSR_RI));
		assert_int_equal(rd(&w, UART_MSR), expected);
	}
	assert_int_equal(rx(&w, "x"), 0); /* off the line */
	wr(&w, UART_DATA, 'l');
	assert_int_equal(w.sent, 0);
	assert_int_equal(rd(&w, UART_DATA), 'l');
	wr(&w, UART_DATA, '1'); /* without FIFO the newer byte overwrites */
	wr(&w, UART_DATA, '2');
	assert_int_equal(rd(&w, UART_LSR) & (LSR_OE | LSR_DR), LSR_OE | LSR_DR);
	assert_int_equal(rd(&w, UART_DATA), '2');
	wr(&w, UART_IIR, FCR_ENABLE);
	for (int i = 0; i < 20; i++) /* with FIFO the older ones stay */
		wr(&w, UART_DATA, (uint8_t)i);
	assert_int_equal(rd(&w, UART_LSR) & LSR_OE, LSR_OE);
	for (int i = 0; i < 16; i++)
		assert_int_equal(rd(&w, UART_DATA), i);
	assert_int_equal(rd(&w, UART_LSR) & (LSR_OE | LSR_DR), 0);
	wr(&w, UART_MCR, 0);
	assert_int_equal(rx(&w, "x"), 1);
}

static void fast_transmitter_is_a_level(void **state)
{
	struct wire w;

	(void)state;
	wire_init(&w, true, true);
	wr(&w, UART_MCR, MCR_OUT2);
	wr(&w, UART_IER, IER_THRI | IER_RDI);
	assert_int_equal(w.edges, 1);
	for (int i = 0; i < 3; i++)
		assert_int_equal(rd(&w, UART_IIR), IIR_THRI);
	assert_true(w.level);
	uart_core_settle(&w.core); /* nothing written: no new edge */
	assert_int_equal(w.edges, 1);
	wr(&w, UART_DATA, 'a');
	assert_int_equal(w.edges, 1);
	uart_core_settle(&w.core);
	assert_int_equal(w.edges, 2);
	rx(&w, "x"); /* the line is high already: received data makes an edge of its own */
	assert_int_equal(w.edges, 3);
	assert_int_equal(rd(&w, UART_IIR), IIR_RDI);
	rd(&w, UART_DATA);
	assert_int_equal(rd(&w, UART_IIR), IIR_THRI);
	wr(&w, UART_IER, IER_RDI);
	assert_false(w.level);
	wr(&w, UART_MCR, MCR_LOOP);
	wr(&w, UART_MCR, 0);
	assert_int_equal(rd(&w, UART_MSR), 0xb0); /* no changes shown */
	assert_true(uart_core_quiet(&w.core));
}

static void reset_lowers_the_line(void **state)
{
	struct wire w;

	(void)state;
	wire_init(&w, false, true);
	wr(&w, UART_IIR, FCR_ENABLE);
	wr(&w, UART_MCR, MCR_OUT2);
	wr(&w, UART_IER, IER_BITS);
	rx(&w, "abc");
	assert_true(w.level);
	uart_core_reset(&w.core, false);
	assert_false(w.level);
	assert_int_equal(rd(&w, UART_LSR), 0);
	assert_int_equal(rd(&w, UART_IER), 0);
	uart_core_set_room(&w.core, true);
	assert_int_equal(rd(&w, UART_LSR), LSR_THRE | LSR_TEMT);
}

/* Whatever is done to it, the registers agree with each other and with the line. */
static void random_operations(void **state)
{
	(void)state;
	for (int mode = 0; mode < 4; mode++) {
		bool fast = mode & 1, lazy = mode & 2;
		struct wire w;

		srand((unsigned int)mode + 1);
		wire_init(&w, fast, lazy);
		for (int i = 0; i < 400000; i++) {
			uint8_t data[40] = { 0 }, iir, lsr, ier;
			unsigned int reg = (unsigned int)rand() % 9;

			switch (rand() % 8) {
			case 0:
			case 1:
			case 2:
				rd(&w, reg);
				break;
			case 3:
			case 4:
			case 5:
				if (reg == UART_LCR)
					wr(&w, reg, rand() % 8 ? 3 : 0x83);
				else if (reg == UART_MCR)
					wr(&w, reg, rand() % 8 ? MCR_OUT2 : (uint8_t)rand());
				else
					wr(&w, reg, (uint8_t)rand());
				break;
			case 6:
				assert_true(uart_core_receive(&w.core, data, (unsigned int)rand() % 40) <= 16);
				break;
			default:
				w.room = rand() % 4;
				uart_core_set_room(&w.core, w.room);
				if (rand() % 2)
					uart_core_settle(&w.core);
			}
			iir = uart_core_peek(&w.core, UART_IIR);
			lsr = uart_core_peek(&w.core, UART_LSR);
			ier = w.core.ier;
			assert_true(w.core.rx_count <= (iir & IIR_FIFO ? 16u : 1u));
			assert_int_equal(!!(lsr & LSR_DR), w.core.rx_count != 0);
			assert_int_equal(!!(lsr & LSR_THRE), !!(lsr & LSR_TEMT));
			if ((iir & 0x0f) == IIR_THRI)
				assert_true((lsr & LSR_THRE) && (ier & IER_THRI));
			if (fast && (lsr & LSR_THRE) && (ier & IER_THRI))
				assert_int_not_equal(iir & 0x0f, IIR_NONE);
			if ((lsr & LSR_DR) && (ier & IER_RDI))
				assert_true((iir & 0x0f) >= IIR_RDI);
			if (!(w.core.mcr & MCR_OUT2) || (iir & IIR_NONE))
				assert_false(w.level);
			else if (!w.core.unsettled || (iir & 0x0f) != IIR_THRI)
				assert_true(w.level);
			if (!lazy)
				assert_false(w.core.unsettled);
			assert_int_equal(w.level, w.core.line);
		}
		uart_core_settle(&w.core);
		assert_int_equal(w.level, (w.core.mcr & MCR_OUT2) && !(uart_core_peek(&w.core, UART_IIR) & IIR_NONE));
	}
}

/* --- faces
 * ---------------------------------------------------------------------------------------------------- */

#define PAGE 0xd0010000ULL
#define GSI  5

static struct bus *face_bus;
static uint64_t face_base;
static unsigned int face_gsi;

static uint8_t reg_in(unsigned int reg)
{
	return (uint8_t)fake_read(face_bus, face_base + reg, 1);
}

static void reg_out(unsigned int reg, uint8_t value)
{
	fake_write(face_bus, face_base + reg, 1, value);
}

static size_t type(const char *bytes)
{
	return fake.console.input(fake.console.opaque, (const uint8_t *)bytes, strlen(bytes));
}

static int setup_pio(void **state)
{
	(void)state;
	fake_setup();
	face_bus = &fake.vm.pio;
	face_base = UART_COM1_PORT;
	face_gsi = UART_COM1_GSI;
	assert_int_equal(uart_pio_create(&fake.vm, UART_COM1_PORT, UART_COM1_GSI, UART_ATTACHED | UART_DESCRIBED), 0);
	uart_start(fake.vm.uart);
	return 0;
}

static int setup_mmio(void **state)
{
	(void)state;
	fake_setup();
	face_bus = &fake.vm.mmio;
	face_base = PAGE;
	face_gsi = GSI;
	assert_int_equal(uart_mmio_create(&fake.vm, PAGE, GSI, UART_ATTACHED | UART_DESCRIBED), 0);
	uart_start(fake.vm.uart);
	/* Memslot and zone come with the guest's first access. */
	assert_null(fake.slot);
	assert_int_equal(fake.zone, 0);
	fake_read(&fake.vm.mmio, PAGE + UART_LSR, 1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_teardown();
	assert_null(fake.slot);
	return 0;
}

static void com1(void **state)
{
	(void)state;
	assert_int_equal(fake.zone, UART_COM1_PORT);
	assert_int_equal(fake.slot_adds, 0);
	reg_out(UART_DATA, 'h');
	reg_out(UART_DATA, 'i');
	assert_int_equal(fake.out_length, 2);
	assert_memory_equal(fake.out, "hi", 2);
	fake_write(face_bus, face_base, 8, 0x8877664544332211); /* split into its bytes, in order */
	assert_int_equal(fake.out[2], 0x11);
	assert_int_equal(reg_in(UART_SCR), 0x88);
	assert_int_equal(reg_in(UART_MCR), 0x05);
	assert_int_equal(reg_in(UART_LCR), 0x44);
	assert_int_equal(fake_read(face_bus, face_base + 6, 2), 0x88b0);
	assert_int_equal(fake_read(face_bus, face_base + 6, 4), UINT32_MAX); /* leaves the region */
	assert_int_equal(fake_describe("/isa-serial/serial@i3f8"), 1);
	assert_int_equal(uart_pio_create(&fake.vm, UART_COM1_PORT + 4, 4, 0), -EEXIST);
	assert_int_equal(fake.logs, 1);
}

static void input_waits_for_space(void **state)
{
	(void)state;
	reg_out(UART_IIR, FCR_ENABLE);
	reg_out(UART_MCR, MCR_OUT2);
	reg_out(UART_IER, IER_RDI);
	assert_int_equal(type("0123456789abcdefXY"), 16);
	assert_true(fake.level[face_gsi]);
	for (int i = 0; i < 16; i++) {
		assert_int_equal(fake.rx_ready, 0);
		reg_in(UART_DATA);
	}
	assert_int_equal(fake.rx_ready, 1);
	assert_false(fake.level[face_gsi]);
	assert_int_equal(type("XY"), 2);
	reg_in(UART_DATA);
	reg_in(UART_DATA);
	assert_int_equal(fake.rx_ready, 1); /* nothing was refused */
	reg_out(UART_MCR, MCR_OUT2 | MCR_LOOP);
	assert_int_equal(type("later"), 0);
	reg_in(UART_LSR);
	assert_int_equal(fake.rx_ready, 1);
	reg_out(UART_MCR, MCR_OUT2);
	assert_int_equal(fake.rx_ready, 2);
	assert_int_equal(type("later"), 5);
}

static void host_without_room(void **state)
{
	(void)state;
	reg_out(UART_MCR, MCR_OUT2);
	reg_out(UART_IER, IER_THRI);
	assert_true(fake.level[face_gsi]);
	fake.room = false;
	reg_out(UART_DATA, 'a');
	assert_int_equal(reg_in(UART_LSR), 0);
	assert_false(fake.level[face_gsi]);
	assert_true(uart_wants_tick(fake.vm.uart));
	assert_int_equal(reg_in(UART_LSR), 0);
	fake.room = true;
	fake.console.writable(fake.console.opaque);
	assert_int_equal(reg_in(UART_LSR), LSR_THRE | LSR_TEMT);
	assert_true(fake.level[face_gsi]);
	fake.room = false;
	reg_out(UART_DATA, 'b');
	fake.room = true;
	assert_true(uart_wants_tick(fake.vm.uart)); /* a tick looks for itself */
	assert_int_equal(reg_in(UART_LSR), LSR_THRE | LSR_TEMT);
}

static void ticks(void **state)
{
	unsigned int wanted;

	(void)state;
	assert_true(uart_wants_tick(fake.vm.uart)); /* IER 0: may be polled */
	reg_out(UART_MCR, MCR_OUT2);
	reg_out(UART_IER, IER_RDI);
	assert_false(uart_wants_tick(fake.vm.uart)); /* at rest */
	wanted = fake.want_tick;
	reg_in(UART_LSR);
	assert_int_equal(fake.want_tick, wanted);
	reg_out(UART_IER, IER_RDI | IER_THRI);
	assert_true(fake.want_tick > wanted);
	assert_true(uart_wants_tick(fake.vm.uart));
	reg_in(UART_IIR);
	reg_out(UART_DATA, 'a');
	assert_true(uart_wants_tick(fake.vm.uart));
	assert_true(fake.level[face_gsi]); /* the tick brought the interrupt */
	reg_out(UART_IER, IER_RDI);
	assert_false(uart_wants_tick(fake.vm.uart));
	reg_out(UART_DATA, 'b'); /* a driver that writes just so */
	assert_true(uart_wants_tick(fake.vm.uart));
	fake.vm.devices->class->reset(fake.vm.devices);
	reg_out(UART_IER, IER_RDI);
	assert_false(uart_wants_tick(fake.vm.uart));
	reg_out(UART_MCR, MCR_LOOP);
	assert_true(uart_wants_tick(fake.vm.uart));
}

static void without_coalescing_no_ticks(void **state)
{
	(void)state;
	fake_setup();
	fake.can_coalesce = false;
	assert_int_equal(uart_pio_create(&fake.vm, 0x3f8, 4, UART_ATTACHED), 0);
	outb(0x3f8 + UART_MCR, MCR_OUT2);
	outb(0x3f8 + UART_IER, IER_THRI);
	assert_int_equal(inb(0x3f8 + UART_IIR), IIR_THRI);
	outb(0x3f8, 'a');
	assert_true(fake.level[4]); /* at once */
	outb(0x3f8, 'a');
	assert_int_equal(fake.edges[4], 3);
	assert_false(uart_wants_tick(fake.vm.uart));
	assert_int_equal(fake_describe(NULL), 0); /* not described */
	fake_teardown();
}

static void unattached_port_drops(void **state)
{
	(void)state;
	fake_setup();
	assert_int_equal(uart_mmio_create(&fake.vm, PAGE, GSI, UART_ATTACHED | UART_DESCRIBED), 0);
	assert_int_equal(uart_pio_create(&fake.vm, 0x3f8, 4, 0), 0);
	fake_read(&fake.vm.mmio, PAGE + UART_LSR, 1);
	assert_int_equal(fake.zone, PAGE);
	outb(0x3f8, 'a');
	assert_int_equal(fake.out_length, 0);
	assert_int_equal(inb(0x3f8 + UART_LSR), LSR_THRE | LSR_TEMT);
	fake.room = false;
	for (struct device *d = fake.vm.devices; d; d = d->next)
		d->class->reset(d);
	assert_int_equal(inb(0x3f8 + UART_LSR), LSR_THRE | LSR_TEMT);
	assert_int_equal(fake_read(&fake.vm.mmio, PAGE + UART_LSR, 1), 0);
	assert_int_equal(fake_describe("/serial@d0010000"), 1);
	fake_teardown();
}

/* While the memslot is there it must show what the bus would answer. */
static void page_agrees(bool mapped)
{
	assert_int_equal(fake.slot != NULL, mapped);
	if (!mapped)
		return;
	for (unsigned int reg = 0; reg < UART_REGS; reg++)
		assert_int_equal(fake.slot[reg], reg_in(reg));
	assert_non_null(fake.slot); /* and no read had an effect */
	for (unsigned int at = UART_REGS; at < UART_PAGE_SIZE; at++)
		assert_int_equal(fake.slot[at], 0xff);
}

static void page_follows_the_registers(void **state)
{
	unsigned int dels;

	(void)state;
	assert_int_equal(fake.slot_gpa, PAGE);
	assert_int_equal(fake.zone, PAGE);
	page_agrees(true);
	reg_out(UART_LCR, LCR_DLAB);
	reg_out(UART_DATA, 0x55);
	reg_out(UART_IER, 0x66);
	page_agrees(true);
	assert_int_equal(fake.slot[0], 0x55);
	assert_int_equal(fake.slot[1], 0x66);
	reg_out(UART_LCR, 3);
	page_agrees(true);
	reg_out(UART_IIR, FCR_ENABLE);
	page_agrees(true);
	assert_int_equal(fake.slot[UART_IIR], IIR_FIFO | IIR_NONE);
	reg_out(UART_MCR, MCR_OUT2 | MCR_RTS);
	reg_out(UART_IER, IER_RDI | IER_THRI);
	page_agrees(true);
	assert_int_equal(fake.slot[UART_IIR], IIR_FIFO | IIR_THRI);
	reg_out(UART_DATA, 'x');
	page_agrees(true);
	reg_out(UART_SCR, 0xa5);
	page_agrees(true);
	fake.room = false;
	reg_out(UART_DATA, 'x');
	assert_int_equal(fake.slot[UART_LSR], 0);
	assert_int_equal(fake.slot[UART_IIR], IIR_FIFO | IIR_NONE);
	fake.room = true;
	fake.console.writable(fake.console.opaque);
	assert_int_equal(fake.slot[UART_LSR], LSR_THRE | LSR_TEMT);
	page_agrees(true);
	assert_int_equal(fake.slot_dels, 0);

	assert_int_equal(type("ab"), 2); /* received data takes the memslot away, its last byte brings it back */
	page_agrees(false);
	assert_int_equal(reg_in(UART_DATA), 'a');
	page_agrees(false);
	assert_int_equal(reg_in(UART_DATA), 'b');
	page_agrees(true);
	assert_int_equal(type("ab"), 2);
	reg_out(UART_IIR, FCR_ENABLE | FCR_CLEAR_RX);
	page_agrees(true);
	dels = fake.slot_dels;
	assert_int_equal(dels, 2);

	/* More input than fits: it stays away until the rest has come, or a tick has passed. */
	assert_int_equal(type("0123456789abcdefgh"), 16);
	for (int i = 0; i < 16; i++)
		reg_in(UART_DATA);
	page_agrees(false);
	assert_int_equal(type("gh"), 2);
	reg_in(UART_DATA);
	reg_in(UART_DATA);
	page_agrees(true);
	assert_int_equal(fake.slot_dels, dels + 1);
	assert_int_equal(type("0123456789abcdefgh"), 16);
	for (int i = 0; i < 16; i++)
		reg_in(UART_DATA);
	page_agrees(false);
	uart_wants_tick(fake.vm.uart);
	page_agrees(true);
}

static void page_in_loopback(void **state)
{
	(void)state;
	reg_out(UART_IIR, FCR_ENABLE);
	reg_out(UART_MCR, MCR_LOOP | MCR_OUT2 | MCR_RTS);
	page_agrees(true); /* probing costs no memslot */
	assert_int_equal(fake.slot[UART_MSR], MSR_DCD | MSR_CTS);
	reg_out(UART_DATA, 'l');
	page_agrees(false);
	assert_int_equal(reg_in(UART_DATA), 'l');
	page_agrees(false); /* until loopback ends */
	reg_out(UART_MCR, MCR_OUT2);
	page_agrees(true);
	reg_out(UART_MCR, MCR_LOOP);
	for (int i = 0; i < 17; i++)
		reg_out(UART_DATA, 'l');
	for (int i = 0; i < 16; i++)
		reg_in(UART_DATA);
	reg_out(UART_MCR, 0);
	page_agrees(false); /* the overrun has not been read */
	reg_in(UART_LSR);
	page_agrees(true);
}

static void page_renewed_at_reset(void **state)
{
	(void)state;
	reg_out(UART_IIR, FCR_ENABLE);
	reg_out(UART_MCR, MCR_OUT2);
	reg_out(UART_IER, IER_RDI);
	type("abc");
	assert_true(fake.level[GSI]);
	page_agrees(false);
	fake.vm.devices->class->reset(fake.vm.devices);
	assert_false(fake.level[GSI]);
	page_agrees(true);
	assert_int_equal(fake.slot[UART_IER], 0);
}

static void no_memslot_to_have(void **state)
{
	(void)state;
	fake_setup();
	fake.slot_fails = true;
	face_bus = &fake.vm.mmio;
	face_base = PAGE;
	assert_int_equal(uart_mmio_create(&fake.vm, PAGE, GSI, UART_ATTACHED), 0);
	uart_start(fake.vm.uart);
	reg_out(UART_MCR, MCR_OUT2);
	reg_out(UART_IER, IER_RDI);
	type("a");
	assert_int_equal(reg_in(UART_IIR), IIR_RDI);
	assert_int_equal(reg_in(UART_DATA), 'a');
	assert_int_equal(fake_read(face_bus, PAGE + 100, 4), UINT32_MAX);
	assert_int_equal(fake_read(face_bus, PAGE + 4, 8) >> 32, UINT32_MAX);
	fake_write(face_bus, PAGE + 4088, 8, 0);
	assert_int_equal(fake.slot_adds, 0);
	fake_teardown();
}

static void page_random(void **state)
{
	(void)state;
	srand(3);
	for (int i = 0; i < 100000; i++) {
		unsigned int reg = (unsigned int)rand() % 12, size = 1u << rand() % 4;
		uint64_t at = face_base + (rand() % 16 ? reg : (unsigned int)rand() % UART_PAGE_SIZE);

		switch (rand() % 5) {
		case 0:
			fake_read(face_bus, at, size);
			break;
		case 1:
		case 2:
			fake_write(face_bus, at, size, reg == UART_MCR && rand() % 4 ? 8 : (uint64_t)rand() * 77);
			break;
		case 3:
			type(&"abcdefghijklmnopqrstuvwxyz"[rand() % 26]);
			break;
		default:
			fake.room = rand() % 2;
			uart_wants_tick(fake.vm.uart);
		}
		if (fake.slot)
			page_agrees(true);
	}
}

/* --- a driver
 * ------------------------------------------------------------------------------------------------- */

/*
 * One thread is a guest with a driver like Linux's 8250 (an edge runs its handler, which loops until IIR is
 * clear, and gives up early now and then), THR writes gathering in a ring as KVM gathers them, reads from the
 * page where there is one. The other is the loop: it types, ticks, and at times has no room. Every byte must
 * arrive, in order, both ways.
 */
#define SEND	  20000u
#define TYPE	  3000u
#define RING_SIZE 64u

struct driver {
	pthread_mutex_t ring_lock;
	uint8_t ring[RING_SIZE];
	unsigned int ring_count;
	unsigned int edges_seen, sent, received;
	bool tx_on; /* the driver has IER.THRI set */
	bool give_up;
	_Atomic bool ready, done, failed; /* ready: FIFOs are on, which has emptied them */
};

static void drain(struct driver *d)
{
	pthread_mutex_lock(&d->ring_lock);
	for (unsigned int i = 0; i < d->ring_count; i++)
		reg_out(UART_DATA, d->ring[i]);
	d->ring_count = 0;
	pthread_mutex_unlock(&d->ring_lock);
}

static uint8_t guest_in(struct driver *d, unsigned int reg)
{
	uint8_t value = 0;
	bool mapped;

	pthread_mutex_lock(&fake.slot_lock);
	mapped = fake.slot;
	if (mapped)
		value = (uint8_t)(atomic_load((const _Atomic uint64_t *)fake.slot) >> (8 * reg));
	pthread_mutex_unlock(&fake.slot_lock);
	if (mapped)
		return value;
	drain(d);
	return reg_in(reg);
}

static void guest_out(struct driver *d, unsigned int reg, uint8_t value)
{
	if (reg == UART_DATA) {
		bool collected;

		pthread_mutex_lock(&d->ring_lock);
		collected = d->ring_count < RING_SIZE;
		if (collected)
			d->ring[d->ring_count++] = value;
		pthread_mutex_unlock(&d->ring_lock);
		if (collected)
			return;
	}
	drain(d);
	reg_out(reg, value);
}

static void driver_round(struct driver *d)
{
	uint8_t lsr = guest_in(d, UART_LSR);

	while (lsr & LSR_DR) {
		if (guest_in(d, UART_DATA) != (uint8_t)(d->received % 251))
			d->failed = true;
		d->received++;
		lsr = guest_in(d, UART_LSR);
	}
	if (!(lsr & LSR_THRE) || !d->tx_on)
		return;
	for (int i = 0; i < 16 && d->sent < SEND; i++)
		guest_out(d, UART_DATA, (uint8_t)(d->sent++ % 253));
	if (d->sent % 1000 < 16 || d->sent == SEND) { /* runs dry */
		d->tx_on = false;
		guest_out(d, UART_IER, IER_RDI);
	}
}

static void *guest(void *arg)
{
	struct driver *d = arg;

	guest_out(d, UART_IIR, FCR_ENABLE);
	guest_out(d, UART_MCR, MCR_OUT2);
	guest_out(d, UART_IER, IER_RDI);
	d->ready = true;
	while (!d->done) {
		unsigned int edges = fake.edges[face_gsi];

		if (!d->tx_on && d->sent < SEND) { /* more to say: as start_tx() */
			d->tx_on = true;
			guest_out(d, UART_IER, IER_RDI | IER_THRI);
			continue;
		}
		if (edges == d->edges_seen) {
			sched_yield();
			continue;
		}
		d->edges_seen = edges;
		for (int pass = 0; !(guest_in(d, UART_IIR) & IIR_NONE); pass++) {
			driver_round(d);
			if (d->give_up && pass == 5)
				break;
		}
	}
	return NULL;
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static void run_driver(bool give_up)
{
	struct driver d = { .give_up = give_up };
	unsigned int typed = 0;
	double end = seconds() + 60;
	pthread_t thread;

	pthread_mutex_init(&d.ring_lock, NULL);
	assert_int_equal(pthread_create(&thread, NULL, guest, &d), 0);
	while (!d.ready)
		sched_yield();
	for (unsigned int turn = 0; seconds() < end; turn++) {
		uint8_t data[40];
		size_t n = turn % sizeof(data);

		for (size_t i = 0; i < n; i++)
			data[i] = (uint8_t)((typed + i) % 251);
		if (n > TYPE - typed)
			n = TYPE - typed;
		if (n && turn % 3 == 0)
			typed += (unsigned int)fake.console.input(fake.console.opaque, data, n);
		if (turn % 50 == 7)
			fake.room = false;
		if (turn % 50 == 11) {
			fake.room = true;
			fake.console.writable(fake.console.opaque);
		}
		drain(&d);
		uart_wants_tick(fake.vm.uart);
		if (fake.out_length == SEND && typed == TYPE && !fake.level[face_gsi])
			break;
		sched_yield();
	}
	d.done = true;
	pthread_join(thread, NULL);
	assert_false(d.failed);
	assert_int_equal(fake.out_length, SEND);
	assert_int_equal(d.received, TYPE);
	for (unsigned int i = 0; i < SEND; i++)
		assert_int_equal(fake.out[i], i % 253);
}

static void driver_loses_nothing(void **state)
{
	(void)state;
	run_driver(false);
}

static void driver_that_gives_up_loses_nothing(void **state)
{
	(void)state;
	run_driver(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(power_on_state),
		cmocka_unit_test(storage_registers),
		cmocka_unit_test(transmit_interrupt),
		cmocka_unit_test(lazy_transmit_interrupt),
		cmocka_unit_test(room_gates_the_transmitter),
		cmocka_unit_test(fifo_levels),
		cmocka_unit_test(without_fifo),
		cmocka_unit_test(priorities),
		cmocka_unit_test(loopback),
		cmocka_unit_test(fast_transmitter_is_a_level),
		cmocka_unit_test(reset_lowers_the_line),
		cmocka_unit_test(random_operations),
		cmocka_unit_test_setup_teardown(com1, setup_pio, teardown),
		cmocka_unit_test_setup_teardown(input_waits_for_space, setup_pio, teardown),
		cmocka_unit_test_setup_teardown(input_waits_for_space, setup_mmio, teardown),
		cmocka_unit_test_setup_teardown(host_without_room, setup_pio, teardown),
		cmocka_unit_test_setup_teardown(host_without_room, setup_mmio, teardown),
		cmocka_unit_test_setup_teardown(ticks, setup_pio, teardown),
		cmocka_unit_test_setup_teardown(ticks, setup_mmio, teardown),
		cmocka_unit_test(without_coalescing_no_ticks),
		cmocka_unit_test(unattached_port_drops),
		cmocka_unit_test_setup_teardown(page_follows_the_registers, setup_mmio, teardown),
		cmocka_unit_test_setup_teardown(page_in_loopback, setup_mmio, teardown),
		cmocka_unit_test_setup_teardown(page_renewed_at_reset, setup_mmio, teardown),
		cmocka_unit_test(no_memslot_to_have),
		cmocka_unit_test_setup_teardown(page_random, setup_mmio, teardown),
		cmocka_unit_test_setup_teardown(driver_loses_nothing, setup_pio, teardown),
		cmocka_unit_test_setup_teardown(driver_loses_nothing, setup_mmio, teardown),
		cmocka_unit_test_setup_teardown(driver_that_gives_up_loses_nothing, setup_pio, teardown),
		cmocka_unit_test_setup_teardown(driver_that_gives_up_loses_nothing, setup_mmio, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
