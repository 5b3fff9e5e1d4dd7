/* SPDX-License-Identifier: MIT */
/* The serial port at its two faces: interrupts, input and output, ticks, and the page that shows its registers. */
#include "uart_faces.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
