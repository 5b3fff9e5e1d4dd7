/* SPDX-License-Identifier: MIT */
/* The serial port at its two faces, ports and memory, over the legacy devices' fakes; one program includes it once. */
#ifndef TESTS_UNIT_UART_FACES_H
#define TESTS_UNIT_UART_FACES_H

#include "legacy_fake.h"

#include "devices/legacy/uart.h"
#include "devices/legacy/uart_core.h"

#define PAGE 0xd0010000ULL
#define GSI  5

static struct bus *face_bus;
static uint64_t face_base;
static unsigned int face_gsi;

static inline uint8_t reg_in(unsigned int reg)
{
	return (uint8_t)fake_read(face_bus, face_base + reg, 1);
}

static inline void reg_out(unsigned int reg, uint8_t value)
{
	fake_write(face_bus, face_base + reg, 1, value);
}

static inline size_t type(const char *bytes)
{
	return fake.console.input(fake.console.opaque, (const uint8_t *)bytes, strlen(bytes));
}

static inline int setup_pio(void **state)
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

static inline int setup_mmio(void **state)
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

static inline int teardown(void **state)
{
	(void)state;
	fake_teardown();
	assert_null(fake.slot);
	return 0;
}

#endif
