/* SPDX-License-Identifier: MIT */
/* The firmware configuration device: items, directory and DMA, and what a hostile guest asks of it. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "firmware/fw_cfg_core.h"

#define RAM_SIZE (4u << 20)
#define COMMAND	 0x1000

enum { ERROR = 1, READ = 2, SKIP = 4, SELECT = 8, WRITE = 16 };

static uint8_t *ram;
static struct fw_cfg_core core;
static unsigned int selections;

static void *guest(void *opaque, uint64_t gpa, uint64_t len)
{
	assert_ptr_equal(opaque, &core);
	return gpa < RAM_SIZE && len <= RAM_SIZE - gpa ? ram + gpa : NULL;
}

static int setup(void **state)
{
	(void)state;
	ram = calloc(1, RAM_SIZE);
	fw_cfg_core_init(&core, guest, &core);
	selections = 0;
	return ram ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	fw_cfg_core_free(&core);
	free(ram);
	return 0;
}

/* The answer of a DMA command: its control word. */
static uint32_t dma(uint32_t control, uint32_t length, uint64_t address)
{
	const uint32_t words[2] = { htobe32(control), htobe32(length) };
	const uint64_t to = htobe64(address);
	uint32_t answer;

	memcpy(ram + COMMAND, words, 8);
	memcpy(ram + COMMAND + 8, &to, 8);
	fw_cfg_dma(&core, COMMAND);
	memcpy(&answer, ram + COMMAND, 4);
	return be32toh(answer);
}

static uint32_t next_be32(void)
{
	uint32_t value = 0;

	for (unsigned int i = 0; i < 4; i++)
		value = value << 8 | fw_cfg_read_byte(&core);
	return value;
}

static void test_bytes(void **state)
{
	(void)state;
	assert_int_equal(fw_cfg_add(&core, FW_CFG_SIGNATURE, "QEMU", 4), 0);
	assert_int_equal(fw_cfg_add_number(&core, FW_CFG_CPU_COUNT, 0x102, 2), 0);
	fw_cfg_select(&core, FW_CFG_SIGNATURE);
	assert_int_equal(next_be32(), 0x51454d55);
	assert_int_equal(fw_cfg_read_byte(&core), 0); /* past the end */
	fw_cfg_select(&core, FW_CFG_SIGNATURE);	      /* begins anew */
	assert_int_equal(fw_cfg_read_byte(&core), 'Q');
	fw_cfg_select(&core, FW_CFG_CPU_COUNT);
	assert_int_equal(next_be32(), 0x02010000);
}

/* Keys that are none: absent, beyond all, of the architecture; bit 14 means the same item. */
static void test_absent(void **state)
{
	static const uint16_t keys[] = { FW_CFG_KERNEL_SIZE, FW_CFG_ITEMS, 0x3fff, 0x8000, 0xffff };

	(void)state;
	fw_cfg_add(&core, FW_CFG_SIGNATURE, "QEMU", 4);
	for (unsigned int i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		fw_cfg_select(&core, keys[i]);
		assert_int_equal(next_be32(), 0);
		memset(ram + 0x2000, 0x55, 16);
		assert_int_equal(dma((uint32_t)keys[i] << 16 | SELECT | READ, 16, 0x2000), 0);
		for (unsigned int j = 0; j < 16; j++)
			assert_int_equal(ram[0x2000 + j], 0);
	}
	fw_cfg_select(&core, 0x4000 | FW_CFG_SIGNATURE);
	assert_int_equal(next_be32(), 0x51454d55);
}

static void test_add(void **state)
{
	char name[64];

	(void)state;
	assert_int_equal(fw_cfg_add(&core, 3, "a", 1), 0);
	assert_int_equal(fw_cfg_add(&core, 3, "b", 1), -EINVAL);
	assert_int_equal(fw_cfg_add(&core, FW_CFG_ITEMS, "b", 1), -EINVAL);
	assert_int_equal(fw_cfg_add(&core, 4, NULL, 0), 0);
	memset(name, 'n', sizeof(name));
	name[FW_CFG_NAME_LEN] = '\0';
	assert_int_equal(fw_cfg_add_file(&core, name, "", 0), -EINVAL);
	name[FW_CFG_NAME_LEN - 1] = '\0';
	assert_int_equal(fw_cfg_add_file(&core, name, "", 0), FW_CFG_FIRST_FILE);
	for (unsigned int i = 1; i < FW_CFG_FILES_MAX; i++)
		assert_int_equal(fw_cfg_add_file(&core, "x", "", 0), FW_CFG_FIRST_FILE + i);
	assert_int_equal(fw_cfg_add_file(&core, "x", "", 0), -ENOSPC);
}

static void test_directory(void **state)
{
	(void)state;
	assert_int_equal(fw_cfg_add_file(&core, "etc/one", "1", 1), FW_CFG_FIRST_FILE);
	assert_int_equal(fw_cfg_add_file(&core, "bootorder", NULL, 300), FW_CFG_FIRST_FILE + 1);
	assert_int_equal(fw_cfg_add_directory(&core), 0);
	assert_int_equal(dma(FW_CFG_DIRECTORY << 16 | SELECT | READ, 4 + 2 * 64 + 1, 0x2000), 0);
	assert_memory_equal(ram + 0x2000,
			    "\0\0\0\2"
			    "\0\0\0\1"
			    "\0\x20"
			    "\0\0"
			    "etc/one",
			    20);
	assert_memory_equal(ram + 0x2044,
			    "\0\0\1\x2c"
			    "\0\x21"
			    "\0\0"
			    "bootorder",
			    18);
}

static void chosen(void *opaque)
{
	struct fw_cfg_item *item = opaque;

	item->data[0] = (uint8_t)++selections;
}

static void test_selected(void **state)
{
	int key = fw_cfg_add_file(&core, "lazy", NULL, 2);

	(void)state;
	core.items[key].selected = chosen;
	core.items[key].opaque = &core.items[key];
	assert_int_equal(selections, 0);
	fw_cfg_select(&core, (uint16_t)key);
	assert_int_equal(fw_cfg_read_byte(&core), 1);
	assert_int_equal(dma((uint32_t)key << 16 | SELECT | READ, 2, 0x2000), 0);
	assert_int_equal(ram[0x2000], 2);
}

static void test_dma(void **state)
{
	(void)state;
	fw_cfg_add(&core, 9, "0123456789", 10);
	assert_int_equal(dma(9 << 16 | SELECT, 0, 0), 0);
	assert_int_equal(dma(SKIP, 3, 0), 0);
	assert_int_equal(dma(READ, 2, 0x2000), 0);
	assert_memory_equal(ram + 0x2000, "34", 2);
	assert_int_equal(dma(READ, 100, RAM_SIZE - 100), 0); /* to the last byte, and past the item's end */
	assert_memory_equal(ram + RAM_SIZE - 100, "56789\0", 6);
	assert_int_equal(dma(9 << 16 | SELECT | READ, 0, UINT64_MAX), 0); /* nothing, to nowhere */
	assert_int_equal(dma(0, 0, 0), 0);
	fw_cfg_core_reset(&core);
	assert_int_equal(core.key, 0);
}

/* A command or its data outside of RAM; more than there can be; nothing here can be written. */
static void test_hostile_dma(void **state)
{
	static const uint64_t nowhere[] = { RAM_SIZE, RAM_SIZE - 9, UINT64_MAX, UINT64_MAX - 4, 1ULL << 63 };
	uint8_t *copy = malloc(RAM_SIZE);

	(void)state;
	fw_cfg_add(&core, 9, "0123456789", 10);
	memset(ram, 0xa5, RAM_SIZE);
	memcpy(copy, ram, RAM_SIZE);
	for (unsigned int i = 0; i < sizeof(nowhere) / sizeof(nowhere[0]); i++) {
		fw_cfg_dma(&core, nowhere[i]);
		assert_memory_equal(ram, copy, RAM_SIZE);
		assert_int_equal(dma(9 << 16 | SELECT | READ, 10, nowhere[i]), ERROR);
		memcpy(ram + COMMAND, copy + COMMAND, 16);
		assert_memory_equal(ram, copy, RAM_SIZE);
	}
	assert_int_equal(dma(9 << 16 | SELECT | READ, UINT32_MAX, 0), ERROR);
	assert_int_equal(dma(9 << 16 | SELECT | WRITE, 4, 0x2000), ERROR);
	assert_int_equal(dma(9 << 16 | SELECT | READ | SKIP | WRITE, 4, 0x2000), 0); /* reading wins */
	assert_memory_equal(ram + 0x2000, "0123\xa5", 5);
	for (unsigned int i = 0; i < 8; i++)
		assert_int_equal(dma(SKIP, UINT32_MAX, 0), 0);
	assert_int_equal(fw_cfg_read_byte(&core), 0);
	/* Onto the command itself: the answer comes last. */
	assert_int_equal(dma(9 << 16 | SELECT | READ, 10, COMMAND), 0);
	free(copy);
}

/* A kernel stays in its file; one that has become shorter meanwhile goes on with zeroes. */
static void test_file(void **state)
{
	char name[] = "/tmp/vmm-fw-cfg.XXXXXX";
	int fd = mkstemp(name);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "abcdef", 6), 6);
	fw_cfg_add_fd(&core, FW_CFG_KERNEL_DATA, fd, 6);
	assert_int_equal(dma(FW_CFG_KERNEL_DATA << 16 | SELECT | READ, 2, 0x2000), 0);
	assert_memory_equal(ram + 0x2000, "ab", 2);
	assert_int_equal(fw_cfg_read_byte(&core), 'c');
	assert_int_equal(ftruncate(fd, 4), 0);
	memset(ram + 0x2000, 0x55, 8);
	assert_int_equal(dma(READ, 8, 0x2000), 0);
	assert_memory_equal(ram + 0x2000, "d\0\0\0\0\0\0\0", 8);
	close(fd);
	unlink(name);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_absent, setup, teardown),
		cmocka_unit_test_setup_teardown(test_add, setup, teardown),
		cmocka_unit_test_setup_teardown(test_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_selected, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dma, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_dma, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
