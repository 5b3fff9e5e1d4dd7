/* SPDX-License-Identifier: MIT */
/* AML encodings against bytes worked out by hand from ACPI 6.4 chapters 6.4 and 20. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "firmware/acpi/aml.h"
#include "tests/unit/alloc_fail.h"

/* One writer and its buffer. */
struct writer {
	struct acpi_buf buf;
	struct aml aml;
};

static struct aml *start(struct writer *w)
{
	w->buf = (struct acpi_buf){ 0 };
	aml_init(&w->aml, &w->buf);
	return &w->aml;
}

static void check(struct writer *w, const void *bytes, size_t len)
{
	assert_int_equal(aml_finish(&w->aml), 0);
	assert_int_equal(w->buf.len, len);
	assert_memory_equal(w->buf.bytes, bytes, len);
	acpi_buf_free(&w->buf);
}

static void check_misuse(struct writer *w)
{
	assert_int_equal(aml_finish(&w->aml), -EINVAL);
	acpi_buf_free(&w->buf);
}

#define CHECK(w, ...) check(w, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

static void test_integers(void **state)
{
	static const struct {
		uint64_t value;
		uint8_t bytes[9];
		size_t len;
	} cases[] = {
		{ 0, { 0x00 }, 1 },
		{ 1, { 0x01 }, 1 },
		{ 2, { 0x0A, 0x02 }, 2 },
		{ 0xFF, { 0x0A, 0xFF }, 2 },
		{ 0x100, { 0x0B, 0x00, 0x01 }, 3 },
		{ 0xFFFF, { 0x0B, 0xFF, 0xFF }, 3 },
		{ 0x10000, { 0x0C, 0x00, 0x00, 0x01, 0x00 }, 5 },
		{ 0xFFFFFFFF, { 0x0C, 0xFF, 0xFF, 0xFF, 0xFF }, 5 },
		{ 0x100000000, { 0x0E, 0, 0, 0, 0, 1, 0, 0, 0 }, 9 },
		{ UINT64_MAX - 1, { 0x0E, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF }, 9 },
		{ UINT64_MAX, { 0xFF }, 1 },
	};
	struct writer w;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		aml_integer(start(&w), cases[i].value);
		check(&w, cases[i].bytes, cases[i].len);
	}
}

/* A Scope whose whole PkgLength is total: 4 bytes of name, the rest in one byte terms. */
static void check_length(uint32_t total, const uint8_t *head, size_t head_len)
{
	struct writer w;
	struct aml *a = start(&w);

	aml_begin_scope(a, "ABCD");
	for (size_t i = 0; i < total - head_len - 4; i++)
		aml_integer(a, 1);
	aml_end(a);
	assert_int_equal(aml_finish(a), 0);
	assert_int_equal(w.buf.len, 1 + total);
	assert_int_equal(w.buf.bytes[0], 0x10);
	assert_memory_equal(w.buf.bytes + 1, head, head_len);
	assert_memory_equal(w.buf.bytes + 1 + head_len, "ABCD", 4);
	acpi_buf_free(&w.buf);
}

/*
 * 20.2.4: at each boundary one more byte of content makes the length itself a
 * byte longer, so the total goes from 63 to 65, 4095 to 4097, 0xFFFFF to 0x100001.
 */
static void test_package_lengths(void **state)
{
	(void)state;
	check_length(5, (const uint8_t[]){ 0x05 }, 1);
	check_length(63, (const uint8_t[]){ 0x3F }, 1);
	check_length(65, (const uint8_t[]){ 0x41, 0x04 }, 2);
	check_length(4094, (const uint8_t[]){ 0x4E, 0xFF }, 2);
	check_length(4095, (const uint8_t[]){ 0x4F, 0xFF }, 2);
	check_length(4097, (const uint8_t[]){ 0x81, 0x00, 0x01 }, 3);
	check_length(1048575, (const uint8_t[]){ 0x8F, 0xFF, 0xFF }, 3);
	check_length(1048577, (const uint8_t[]){ 0xC1, 0x00, 0x00, 0x01 }, 4);
}

/* A field unit's length does not count itself: 63, 64, 4095, 4096 are the boundaries. */
static void test_field_lengths(void **state)
{
	struct writer w;
	struct aml *a = start(&w);

	(void)state;
	aml_operation_region(a, "REG0", AML_SYSTEM_MEMORY, 0x12345678, 0x400);
	aml_begin_field(a, "REG0", AML_ACCESS_DWORD);
	aml_field_unit(a, "AAAA", 63);
	aml_field_unit(a, NULL, 64);
	aml_field_unit(a, "BB", 4095);
	aml_field_unit(a, "CC", 4096);
	aml_end(a);
	CHECK(&w, 0x5B, 0x80, 'R', 'E', 'G', '0', 0x00, 0x0C, 0x78, 0x56, 0x34, 0x12, 0x0B, 0x00, 0x04,
	      /* Field (27): length 1, name 4, flags 1, units 5 + 3 + 6 + 7 */
	      0x5B, 0x81, 0x1B, 'R', 'E', 'G', '0', 0x03, 'A', 'A', 'A', 'A', 0x3F, 0x00, 0x40, 0x04, 'B', 'B', '_',
	      '_', 0x4F, 0xFF, 'C', 'C', '_', '_', 0x80, 0x00, 0x01);
}

/* The insertion of an inner length must not disturb the outer ones. */
static void test_nesting(void **state)
{
	struct writer w;
	struct aml *a = start(&w);
	uint8_t *b;

	(void)state;
	aml_begin_scope(a, "_SB");
	aml_begin_device(a, "DEV0");
	aml_begin_method(a, "MTH0", 2);
	for (int i = 0; i < 60; i++)
		aml_integer(a, 0);
	aml_end(a);
	aml_end(a);
	aml_end(a);
	assert_int_equal(aml_finish(a), 0);
	b = w.buf.bytes;
	/* Method: 2 + 4 + 1 + 60 = 67; Device: 2 + 4 + 1 + 67 = 74; Scope: 2 + 4 + 2 + 74 = 82 */
	assert_memory_equal(b, "\x10\x42\x05_SB_", 7);
	assert_memory_equal(b + 7,
			    "\x5B\x82\x4A\x04"
			    "DEV0",
			    8);
	assert_memory_equal(b + 15,
			    "\x14\x43\x04MTH0"
			    "\x0A",
			    8);
	assert_int_equal(w.buf.len, 83);
	acpi_buf_free(&w.buf);
}

static void test_names(void **state)
{
	struct writer w;

	(void)state;
	aml_path(start(&w), "A");
	CHECK(&w, 'A', '_', '_', '_');
	aml_path(start(&w), "\\_SB.PCI0");
	CHECK(&w, '\\', 0x2E, '_', 'S', 'B', '_', 'P', 'C', 'I', '0');
	aml_path(start(&w), "^^A.B1.C");
	CHECK(&w, '^', '^', 0x2F, 3, 'A', '_', '_', '_', 'B', '1', '_', '_', 'C', '_', '_', '_');
}

static void test_bad_names(void **state)
{
	static const char *const bad[] = { "", "1ABC", "ABCDE", "abcd", "A.", ".A", "A..B", "A B", "\\^A" };
	struct writer w;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		aml_path(start(&w), bad[i]);
		check_misuse(&w);
	}
}

static void test_ids_and_strings(void **state)
{
	static const char *const bad[] = { "PNP0A0", "PNP0A088", "pNP0A08", "PNP0a08", "P1P0A08", "PNPG000" };
	struct writer w;

	(void)state;
	aml_eisa_id(start(&w), "PNP0A08");
	CHECK(&w, 0x0C, 0x41, 0xD0, 0x0A, 0x08);
	aml_eisa_id(start(&w), "PNP0501");
	CHECK(&w, 0x0C, 0x41, 0xD0, 0x05, 0x01);
	/* A = 1, Z = 26, F = 6: 00001 11010 00110 and BEEF */
	aml_eisa_id(start(&w), "AZFBEEF");
	CHECK(&w, 0x0C, 0x07, 0x46, 0xBE, 0xEF);
	aml_string(start(&w), "QEMU0001");
	CHECK(&w, 0x0D, 'Q', 'E', 'M', 'U', '0', '0', '0', '1', 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		aml_eisa_id(start(&w), bad[i]);
		check_misuse(&w);
	}
	aml_string(start(&w), "\xC3\xA9");
	check_misuse(&w);
}

static void test_packages_and_buffers(void **state)
{
	struct writer w;
	struct aml *a = start(&w);
	uint8_t large[300] = { 0xAA };

	(void)state;
	aml_name(a, "PKG");
	aml_begin_package(a);
	aml_integer(a, 0xFFFF);
	aml_begin_package(a);
	aml_string(a, "X");
	aml_end(a);
	aml_path(a, "OBJ0");
	aml_buffer(a, "\x55", 1);
	aml_end(a);
	CHECK(&w, 0x08, 'P', 'K', 'G', '_', 0x12, 0x13, 4, 0x0B, 0xFF, 0xFF, 0x12, 0x05, 1, 0x0D, 'X', 0, 'O', 'B', 'J',
	      '0', 0x11, 0x03, 0x01, 0x55);

	aml_buffer(start(&w), large, sizeof(large));
	assert_int_equal(w.buf.len, 1 + 2 + 3 + 300);
	/* 305 = 0x131: 0x41, 0x13 */
	assert_memory_equal(w.buf.bytes, "\x11\x41\x13\x0B\x2C\x01\xAA", 7);
	acpi_buf_free(&w.buf);
}

static void test_code(void **state)
{
	struct writer w;
	struct aml *a = start(&w);

	(void)state;
	aml_begin_if(a);
	aml_op(a, AML_LEQUAL);
	aml_arg(a, 0);
	aml_integer(a, 2);
	aml_op(a, AML_STORE);
	aml_arg(a, 6);
	aml_local(a, 7);
	aml_end(a);
	aml_begin_else(a);
	aml_op(a, AML_CREATE_DWORD_FIELD);
	aml_arg(a, 3);
	aml_integer(a, 8);
	aml_path(a, "CDW3");
	aml_op(a, AML_RETURN);
	aml_path(a, "MTH0");
	aml_end(a);
	CHECK(&w, 0xA0, 0x08, 0x93, 0x68, 0x0A, 0x02, 0x70, 0x6E, 0x67, 0xA1, 0x0E, 0x8A, 0x6B, 0x0A, 0x08, 'C', 'D',
	      'W', '3', 0xA4, 'M', 'T', 'H', '0');
}

static void test_small_resources(void **state)
{
	struct writer w;
	struct aml *a = start(&w);

	(void)state;
	aml_begin_resources(a);
	aml_res_io(a, 0x3F8, 8);
	aml_res_irq_no_flags(a, 4);
	aml_res_irq(a, 5, AML_IRQ_EDGE);
	aml_res_irq(a, 15, AML_IRQ_LOW | AML_IRQ_SHARED);
	aml_res_interrupt(a, 24, AML_IRQ_LOW | AML_IRQ_SHARED);
	aml_res_memory32_fixed(a, 0xE0000000, 0x10000000);
	aml_end(a);
	CHECK(&w, 0x11, 0x2D, 0x0A, 0x2A,			    /* Buffer (42) */
	      0x47, 0x01, 0xF8, 0x03, 0xF8, 0x03, 0x01, 0x08,	    /* IO */
	      0x22, 0x10, 0x00,					    /* IRQNoFlags */
	      0x23, 0x20, 0x00, 0x01,				    /* IRQ, edge, high */
	      0x23, 0x00, 0x80, 0x18,				    /* IRQ, level, low, shared */
	      0x89, 0x06, 0x00, 0x0D, 0x01, 0x18, 0x00, 0x00, 0x00, /* Interrupt */
	      0x86, 0x09, 0x00, 0x01, 0, 0, 0, 0xE0, 0, 0, 0, 0x10, /* Memory32Fixed */
	      0x79, 0x00);
}

static void test_windows(void **state)
{
	struct writer w;
	struct aml *a = start(&w);

	(void)state;
	aml_begin_resources(a);
	aml_res_word_bus(a, 0, 255);
	aml_res_word_io(a, 0xD00, 0xFFFF);
	aml_res_dword_memory(a, 0xC0000000, 0x40000000);
	aml_res_qword_memory(a, 0x8000000000, 0x1000000000);
	aml_end(a);
	CHECK(&w, 0x11, 0x4E, 0x06, 0x0A, 0x6A, /* Buffer (106) */
	      0x88, 0x0D, 0, 2, 0x0C, 0, 0, 0, 0, 0, 0xFF, 0, 0, 0, 0, 1, 0x88, 0x0D, 0, 1, 0x0C, 3, 0, 0, 0, 0x0D,
	      0xFF, 0xFF, 0, 0, 0, 0xF3, 0x87, 0x17, 0, 0, 0x0C, 1, 0, 0, 0, 0, 0, 0, 0, 0xC0, 0xFF, 0xFF, 0xFF, 0xFF,
	      0, 0, 0, 0, 0, 0, 0, 0x40, 0x8A, 0x2B, 0, 0, 0x0C, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0,
	      0xFF, 0xFF, 0xFF, 0xFF, 0x8F, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0x79, 0x00);
}

static void io_past_end(struct aml *a)
{
	aml_res_io(a, 0xFFF9, 8);
}

static void io_empty(struct aml *a)
{
	aml_res_io(a, 0x10, 0);
}

static void irq_16(struct aml *a)
{
	aml_res_irq(a, 16, 0);
}

static void irq_no_flags_16(struct aml *a)
{
	aml_res_irq_no_flags(a, 16);
}

static void memory_empty(struct aml *a)
{
	aml_res_memory32_fixed(a, 0, 0);
}

static void memory_past_4g(struct aml *a)
{
	aml_res_memory32_fixed(a, 0xFFFFF000, 0x1001);
}

static void window_past_4g(struct aml *a)
{
	aml_res_dword_memory(a, 0xFFFFF000, 0x1001);
}

static void window_wraps(struct aml *a)
{
	aml_res_qword_memory(a, UINT64_MAX - 1, 3);
}

static void ports_backwards(struct aml *a)
{
	aml_res_word_io(a, 2, 1);
}

static void ports_all(struct aml *a)
{
	aml_res_word_io(a, 0, 0xFFFF);
}

static void code_in_resources(struct aml *a)
{
	aml_op(a, AML_RETURN);
}

static void integer_in_resources(struct aml *a)
{
	aml_integer(a, 1);
}

static void test_bad_resources(void **state)
{
	static void (*const bad[])(struct aml *) = {
		io_past_end,	io_empty,     irq_16,	       irq_no_flags_16, memory_empty,	   memory_past_4g,
		window_past_4g, window_wraps, ports_backwards, ports_all,	code_in_resources, integer_in_resources,
	};
	struct writer w;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		aml_begin_resources(start(&w));
		bad[i](&w.aml);
		aml_end(&w.aml);
		check_misuse(&w);
	}
	aml_res_io(start(&w), 0x10, 1);
	check_misuse(&w);
}

static void test_misuse(void **state)
{
	struct writer w;
	struct aml *a;

	(void)state;
	aml_end(start(&w));
	check_misuse(&w);
	aml_begin_scope(start(&w), "_SB");
	check_misuse(&w);
	a = start(&w);
	for (unsigned int i = 0; i <= AML_MAX_DEPTH; i++)
		aml_begin_else(a);
	for (unsigned int i = 0; i <= AML_MAX_DEPTH; i++)
		aml_end(a);
	check_misuse(&w);
	a = start(&w);
	aml_begin_package(a);
	for (unsigned int i = 0; i < 256; i++)
		aml_integer(a, 0);
	aml_end(a);
	check_misuse(&w);
	a = start(&w);
	aml_begin_package(a);
	aml_begin_device(a, "DEV0");
	aml_end(a);
	aml_end(a);
	check_misuse(&w);
	aml_begin_method(start(&w), "MTH0", 8);
	aml_end(&w.aml);
	check_misuse(&w);
	aml_arg(start(&w), 7);
	check_misuse(&w);
	aml_local(start(&w), 8);
	check_misuse(&w);
	aml_field_unit(start(&w), "AAAA", 1);
	check_misuse(&w);
	a = start(&w);
	aml_begin_field(a, "REG0", AML_ACCESS_BYTE);
	aml_field_unit(a, NULL, 0);
	aml_end(a);
	check_misuse(&w);
}

static void test_buffer_bounds(void **state)
{
	struct acpi_buf b = { 0 };

	(void)state;
	acpi_buf_put32(&b, 0x01020304);
	acpi_buf_set(&b, 2, 0xABCD, 2);
	assert_memory_equal(b.bytes, "\x04\x03\xCD\xAB", 4);
	acpi_buf_align(&b, 8);
	acpi_buf_align(&b, 8);
	assert_int_equal(b.len, 8);
	acpi_buf_insert(&b, 8, "z", 1);
	acpi_buf_insert(&b, 0, "a", 1);
	assert_memory_equal(b.bytes, "a\x04\x03\xCD\xAB\0\0\0\0z", 10);
	assert_int_equal(b.error, 0);
	acpi_buf_set(&b, 9, 0, 2);
	assert_int_equal(b.error, -EINVAL);
	b.error = 0;
	acpi_buf_insert(&b, 11, "x", 1);
	assert_int_equal(b.error, -EINVAL);
	b.error = 0;
	acpi_buf_zero(&b, ACPI_BUF_MAX - b.len + 1);
	assert_int_equal(b.error, -EFBIG);
	assert_int_equal(b.len, 10);
	acpi_buf_free(&b);
}

/* After a failed allocation nothing is written, and the reason is kept. */
static void test_allocation_latch(void **state)
{
	struct writer w;
	struct aml *a = start(&w);

	(void)state;
	alloc_fail_after(1);
	aml_begin_scope(a, "_SB");
	for (int i = 0; i < 5000; i++)
		aml_integer(a, 0);
	alloc_fail_after(-1);
	assert_int_equal(w.buf.len, 4096);
	aml_string(a, "more");
	aml_end(a);
	aml_end(a);
	assert_int_equal(w.buf.len, 4096);
	assert_int_equal(aml_finish(a), -ENOMEM);
	acpi_buf_free(&w.buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_integers),
		cmocka_unit_test(test_package_lengths),
		cmocka_unit_test(test_field_lengths),
		cmocka_unit_test(test_nesting),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_bad_names),
		cmocka_unit_test(test_ids_and_strings),
		cmocka_unit_test(test_packages_and_buffers),
		cmocka_unit_test(test_code),
		cmocka_unit_test(test_small_resources),
		cmocka_unit_test(test_windows),
		cmocka_unit_test(test_bad_resources),
		cmocka_unit_test(test_misuse),
		cmocka_unit_test(test_buffer_bounds),
		cmocka_unit_test(test_allocation_latch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
