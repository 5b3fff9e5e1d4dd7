/* SPDX-License-Identifier: MIT */
/* SMBIOS, taken apart again as an operating system does (DSP0134 3.4, 6.1.2 and 6.1.3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "firmware/smbios.h"

#define GIB (1ULL << 30)

struct found {
	unsigned int count;
	const uint8_t *by_type[128];
	const uint8_t *last_mapped;
};

static uint64_t load(const uint8_t *from, unsigned int size)
{
	uint64_t value = 0;

	while (size--)
		value = value << 8 | from[size];
	return value;
}

/* A structure's string by its number, or "". */
static const char *string(const uint8_t *s, unsigned int number)
{
	const char *at = (const char *)s + s[1];

	for (; number > 1; number--)
		at += strlen(at) + 1;
	return number ? at : "";
}

/* Each ends in two zeroes, handles differ, and the last one ends the table exactly. */
static struct found walk(const struct acpi_buf *tables)
{
	struct found f = { 0 };
	size_t at = 0;
	uint16_t handles[32];

	while (at < tables->len) {
		const uint8_t *s = tables->bytes + at;

		assert_true(at + 6 <= tables->len && s[1] >= 4 && at + s[1] + 2u <= tables->len);
		assert_true(s[0] < 128 && f.count < 32);
		handles[f.count] = (uint16_t)load(s + 2, 2);
		for (unsigned int i = 0; i < f.count; i++)
			assert_int_not_equal(handles[i], handles[f.count]);
		f.count++;
		if (s[0] == 19)
			f.last_mapped = s;
		if (!f.by_type[s[0]])
			f.by_type[s[0]] = s;
		for (at += s[1]; tables->bytes[at] || tables->bytes[at + 1]; at++)
			assert_true(at + 2 < tables->len);
		at += 2;
		if (s[0] == 127)
			break;
	}
	assert_int_equal(at, tables->len);
	assert_non_null(f.by_type[127]);
	return f;
}

static void check_anchor(const struct acpi_buf *anchor, size_t length, uint64_t address)
{
	uint8_t sum = 0;

	assert_int_equal(anchor->len, 24);
	assert_memory_equal(anchor->bytes, "_SM3_", 5);
	for (unsigned int i = 0; i < 24; i++)
		sum = (uint8_t)(sum + anchor->bytes[i]);
	assert_int_equal(sum, 0);
	assert_int_equal(anchor->bytes[6], 24);
	assert_int_equal(load(anchor->bytes + 12, 4), length);
	assert_int_equal(load(anchor->bytes + 16, 8), address);
}

static void check(unsigned int cpus, uint64_t low, uint64_t high, uint64_t address)
{
	const struct smbios_config config = { cpus, low, high, address, "1.2.3" };
	struct acpi_buf anchor = { 0 }, tables = { 0 };
	const uint64_t mib = (low + high) >> 20;
	struct found f;

	smbios_build(&anchor, &tables, &config);
	assert_int_equal(anchor.error | tables.error, 0);
	check_anchor(&anchor, tables.len, address);
	f = walk(&tables);
	assert_int_equal(f.count, high ? 9 : 8);
	/* annex A: 1, 3, 4, 16, 17, 19, 32, 127 */
	assert_string_equal(string(f.by_type[1], f.by_type[1][6]), "1.2.3");
	assert_string_equal(string(f.by_type[1], f.by_type[1][4]), "vmm");
	assert_non_null(f.by_type[3]);
	assert_int_equal(f.by_type[4][1], 0x30);
	assert_int_equal(f.by_type[4][0x23], cpus);
	assert_int_equal(load(f.by_type[4] + 0x2a, 2), cpus);
	assert_int_equal(load(f.by_type[16] + 0x0f, 8), low + high);
	assert_int_equal(load(f.by_type[17] + 0x0c, 2), mib < 0x7fff ? mib : 0x7fff);
	assert_int_equal(load(f.by_type[17] + 0x1c, 4), mib);
	assert_int_equal(load(f.by_type[19] + 0x17, 8), low - 1);
	if (high) {
		assert_int_equal(load(f.last_mapped + 0x0f, 8), 4 * GIB);
		assert_int_equal(load(f.last_mapped + 0x17, 8), 4 * GIB + high - 1);
	}
	assert_non_null(f.by_type[32]);
	acpi_buf_free(&anchor);
	acpi_buf_free(&tables);
}

static void test_machines(void **state)
{
	(void)state;
	check(1, 64ULL << 20, 0, 0);
	check(2, 2 * GIB, 0, 0xf0020);
	check(254, 2 * GIB, 3 * GIB, 0);
	check(8, 2 * GIB, 126 * GIB, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_machines) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
