/* SPDX-License-Identifier: MIT */
/* The commands of the variable flash, as firmware gives them, and as it never would. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "firmware/flash_core.h"

#define SIZE (4 * FLASH_BLOCK)

enum { READ_ARRAY = 0xff, READ_STATUS = 0x70, CLEAR = 0x50, PROGRAM = 0x10, ERASE = 0x20, CONFIRM = 0xd0 };

struct chip {
	struct flash_core core;
	uint8_t data[SIZE], kept[SIZE];
	unsigned int stores;
	int refuse;
};

static int store(void *opaque, size_t offset, const uint8_t *bytes, size_t length)
{
	struct chip *c = opaque;

	assert_true(offset <= SIZE && length <= SIZE - offset);
	if (c->refuse)
		return c->refuse;
	memcpy(c->kept + offset, bytes, length);
	c->stores++;
	return 0;
}

static struct chip chip;

static struct flash_core *new_chip(void)
{
	memset(&chip, 0, sizeof(chip));
	for (size_t i = 0; i < SIZE; i++)
		chip.data[i] = (uint8_t)(i * 7 + i / 256);
	memcpy(chip.kept, chip.data, SIZE);
	chip.core = (struct flash_core){ .data = chip.data, .size = SIZE, .store = store, .opaque = &chip };
	flash_core_reset(&chip.core);
	return &chip.core;
}

static void write8(struct flash_core *f, size_t at, uint8_t value)
{
	flash_core_write(f, at, 1, value);
}

static uint8_t read8(struct flash_core *f, size_t at)
{
	return (uint8_t)flash_core_read(f, at, 1);
}

/* What OVMF does to find out whether there is flash: it looks for a status of 0 after clearing it. */
static void test_probe(void **state)
{
	struct flash_core *f = new_chip();
	const uint8_t before = read8(f, 100);

	(void)state;
	write8(f, 100, CLEAR);
	assert_int_equal(read8(f, 100), before); /* not RAM, and not the status either */
	write8(f, 100, CLEAR);
	write8(f, 100, READ_STATUS);
	assert_int_equal(read8(f, 100), 0);
	write8(f, 100, READ_ARRAY);
	assert_int_equal(read8(f, 100), before);
	assert_int_equal(chip.stores, 0);
}

static void test_program(void **state)
{
	struct flash_core *f = new_chip();

	(void)state;
	chip.data[5] = 0xf0;
	write8(f, 5, PROGRAM);
	write8(f, 5, 0x3c);
	assert_int_equal(read8(f, 5), FLASH_READY);
	assert_int_equal(read8(f, SIZE - 1), FLASH_READY); /* wherever it is read */
	write8(f, 5, READ_ARRAY);
	assert_int_equal(read8(f, 5), 0x30); /* bits only go to 0 */
	assert_int_equal(chip.kept[5], 0x30);
	assert_int_equal(chip.stores, 1);
	write8(f, 5, PROGRAM);
	write8(f, 5, 0xff);
	assert_int_equal(chip.stores, 1); /* nothing to keep */
	write8(f, 0, READ_ARRAY);
	assert_int_equal(read8(f, 5), 0x30);
	chip.data[6] = 0xff;
	write8(f, 6, 0x40); /* the other code for it */
	write8(f, 6, READ_ARRAY);
	write8(f, 6, READ_ARRAY);
	assert_int_equal(read8(f, 6), READ_ARRAY); /* the second write is data, whatever it is */
}

static void test_erase(void **state)
{
	struct flash_core *f = new_chip();

	(void)state;
	write8(f, FLASH_BLOCK + 17, ERASE);
	write8(f, FLASH_BLOCK + 17, CONFIRM);
	assert_int_equal(read8(f, 0), FLASH_READY);
	write8(f, 0, READ_ARRAY);
	for (size_t i = 0; i < SIZE; i++)
		assert_int_equal(read8(f, i), i / FLASH_BLOCK == 1 ? 0xff : (uint8_t)(i * 7 + i / 256));
	assert_memory_equal(chip.kept, chip.data, SIZE);
	assert_int_equal(chip.stores, 1);
}

static void test_erase_unconfirmed(void **state)
{
	struct flash_core *f = new_chip();
	uint8_t before[SIZE];

	(void)state;
	memcpy(before, chip.data, SIZE);
	write8(f, 0, ERASE);
	write8(f, 0, READ_ARRAY);
	assert_int_equal(read8(f, 0), FLASH_READY | FLASH_ERASE_FAILED | FLASH_PROGRAM_FAILED);
	write8(f, 0, CLEAR);
	write8(f, 0, READ_STATUS);
	assert_int_equal(read8(f, 0), 0);
	assert_memory_equal(chip.data, before, SIZE);
	assert_int_equal(chip.stores, 0);
}

/* What cannot be kept is not shown either, and the chip says so until it is told to forget it. */
static void test_refused(void **state)
{
	struct flash_core *f = new_chip();
	uint8_t before[SIZE];

	(void)state;
	memcpy(before, chip.data, SIZE);
	chip.refuse = -ENOSPC;
	write8(f, 9, PROGRAM);
	write8(f, 9, 0);
	assert_int_equal(read8(f, 9), FLASH_READY | FLASH_PROGRAM_FAILED);
	write8(f, 9, ERASE);
	write8(f, 9, CONFIRM);
	assert_int_equal(read8(f, 9), FLASH_READY | FLASH_PROGRAM_FAILED | FLASH_ERASE_FAILED);
	assert_memory_equal(chip.data, before, SIZE);
	chip.refuse = 0;
	write8(f, 9, CLEAR);
	write8(f, 9, PROGRAM);
	write8(f, 9, 0);
	assert_int_equal(read8(f, 9), FLASH_READY);
	assert_int_equal(chip.kept[9], 0);
}

static void test_wide(void **state)
{
	struct flash_core *f = new_chip();

	(void)state;
	memset(chip.data + 8, 0xff, 8);
	flash_core_write(f, 8, 4, 0xffffff00u | PROGRAM); /* the low byte is the command */
	flash_core_write(f, 8, 8, 0x1122334455667788);
	assert_int_equal((uint16_t)flash_core_read(f, 8, 2), FLASH_READY << 8 | FLASH_READY);
	write8(f, 0, READ_ARRAY);
	assert_int_equal(flash_core_read(f, 8, 8), 0x1122334455667788);
	assert_int_equal((uint16_t)flash_core_read(f, 10, 2), 0x5566);
}

static void test_edges(void **state)
{
	struct flash_core *f = new_chip();

	(void)state;
	assert_true(flash_core_read(f, SIZE, 1) == UINT64_MAX);
	assert_true(flash_core_read(f, SIZE - 1, 2) == UINT64_MAX);
	assert_true(flash_core_read(f, SIZE_MAX, 8) == UINT64_MAX);
	flash_core_write(f, SIZE, 1, READ_STATUS);
	flash_core_write(f, SIZE_MAX - 3, 4, READ_STATUS);
	assert_int_equal(f->mode, FLASH_ARRAY);
	write8(f, 0, PROGRAM);
	flash_core_write(f, SIZE - 4, 8, 0);
	assert_int_equal(f->mode, FLASH_PROGRAM); /* as if it had not been made */
	assert_int_equal(chip.stores, 0);
	write8(f, SIZE - 1, 0);
	assert_int_equal(chip.kept[SIZE - 1], 0);
	write8(f, SIZE - 1, ERASE);
	write8(f, SIZE - 1, CONFIRM);
	assert_int_equal(chip.kept[SIZE - 1], 0xff);
	assert_int_equal(chip.kept[SIZE - FLASH_BLOCK], 0xff);
	assert_int_equal(chip.kept[SIZE - FLASH_BLOCK - 1],
			 (uint8_t)((SIZE - FLASH_BLOCK - 1) * 7 + (SIZE - FLASH_BLOCK - 1) / 256));
}

/* A reset in the middle of a command: the contents stay, the command is forgotten. */
static void test_reset(void **state)
{
	struct flash_core *f = new_chip();

	(void)state;
	write8(f, 3, PROGRAM);
	flash_core_reset(f);
	write8(f, 3, 0);
	assert_int_equal(read8(f, 3), 21);
	assert_int_equal(chip.stores, 0);
	write8(f, 3, READ_STATUS);
	assert_int_equal(read8(f, 3), FLASH_READY);
}

static void test_nothing_lasts(void **state)
{
	struct flash_core *f = new_chip();

	(void)state;
	f->store = NULL;
	write8(f, 1, PROGRAM);
	write8(f, 1, 0);
	write8(f, 1, READ_ARRAY);
	assert_int_equal(read8(f, 1), 0);
	assert_int_equal(chip.kept[1], 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_probe),	      cmocka_unit_test(test_program),
		cmocka_unit_test(test_erase),	      cmocka_unit_test(test_erase_unconfirmed),
		cmocka_unit_test(test_refused),	      cmocka_unit_test(test_wide),
		cmocka_unit_test(test_edges),	      cmocka_unit_test(test_reset),
		cmocka_unit_test(test_nothing_lasts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
