/* SPDX-License-Identifier: MIT */
/* The serial port: the 16550A's registers one by one. */
#include "legacy_fake.h"

#include "devices/legacy/uart_core.h"

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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
