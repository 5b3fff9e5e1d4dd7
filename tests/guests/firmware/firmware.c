/* SPDX-License-Identifier: MIT */
/*
 * A firmware that tests what vmm has for firmware: flash, the firmware configuration device, and a host bridge whose
 * ECAM moves. It runs from the end of the code chip, in 32-bit mode. A check that fails prints its line and ends the
 * run with status 17, all passed with 0. The second boot sees what the first has left in the variables.
 */
#include <stdbool.h>
#include <stdint.h>

#define VARS	  0xfffe0000u
#define VARS_SIZE 0x8000u
#define CODE	  0xfffe8000u
#define BLOCK	  0x1000u
#define COMMAND	  0x20000u /* of DMA */
#define BUFFER	  0x30000u
#define BEYOND	  0x70000000u /* RAM is smaller */

enum { ERROR = 1, READ = 2, SKIP = 4, SELECT = 8, WRITE = 16 };
enum { ARRAY = 0xff, STATUS = 0x70, CLEAR = 0x50, PROGRAM = 0x10, ERASE = 0x20, CONFIRM = 0xd0, READY = 0x80 };

static uint32_t script_key, script_size;

void fw_main(void);

static void out8(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void out16(uint16_t port, uint16_t value)
{
	__asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static void out32(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static uint8_t in8(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static uint16_t in16(uint16_t port)
{
	uint16_t value;

	__asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static uint32_t in32(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static volatile uint8_t *byte_at(uint32_t address)
{
	return (volatile uint8_t *)address;
}

static volatile uint32_t *word_at(uint32_t address)
{
	return (volatile uint32_t *)address;
}

static void print(const char *s)
{
	while (*s)
		out8(0x3f8, (uint8_t)*s++);
}

static void print_number(uint32_t value)
{
	char digits[11];
	int n = 10;

	digits[n] = '\0';
	do
		digits[--n] = (char)('0' + value % 10);
	while (value /= 10);
	print(digits + n);
}

static void end(uint8_t status)
{
	out8(0xf4, status);
	for (;;)
		__asm__ volatile("hlt");
}

static void check(bool good, unsigned int line)
{
	if (good)
		return;
	print("FAIL firmware.c:");
	print_number(line);
	print("\n");
	end(17);
}

#define CHECK(condition) check(condition, __LINE__)

static uint32_t swap(uint32_t v)
{
	return v << 24 | (v & 0xff00) << 8 | (v >> 8 & 0xff00) | v >> 24;
}

/* -- flash */

static void program(uint32_t at, uint8_t value)
{
	*byte_at(at) = PROGRAM;
	*byte_at(at) = value;
}

static void test_flash(void)
{
	volatile uint8_t *p = byte_at(VARS + BLOCK);

	CHECK(p[0] == 0xff && p[BLOCK - 1] == 0xff);
	*p = CLEAR;
	*p = STATUS;
	CHECK(*p == 0 && *byte_at(VARS + VARS_SIZE - 1) == 0);
	*p = ARRAY;
	CHECK(*p == 0xff);
	program(VARS + BLOCK + 3, 0x5a);
	CHECK(p[7] == READY);
	*p = ARRAY;
	CHECK(p[3] == 0x5a && p[2] == 0xff);
	/* Read until the chip is memory again, and as often as it becomes a device again. */
	for (unsigned int round = 0; round < 5; round++) {
		for (unsigned int i = 0; i < 40; i++)
			CHECK(*word_at(VARS + BLOCK) == 0x5affffff);
		*p = STATUS;
		CHECK(*p == READY);
		*p = ARRAY;
	}
	program(VARS + BLOCK + 3, 0xf0);
	*p = ARRAY;
	CHECK(p[3] == 0x50);
	p[BLOCK - 1] = ERASE;
	p[BLOCK - 1] = CONFIRM;
	*p = ARRAY;
	CHECK(p[3] == 0xff);
	p[0] = ERASE;
	p[0] = ARRAY;
	CHECK(p[0] == (READY | 0x30));
	p[0] = CLEAR;
	*p = ARRAY;
	/* Every command that there may be. */
	for (unsigned int command = 0; command < 256; command++) {
		*byte_at(VARS + VARS_SIZE - 1) = (uint8_t)command;
		(void)*byte_at(VARS);
		*byte_at(VARS + VARS_SIZE - 1) = 0xff;
	}
	*p = ARRAY;
	CHECK(p[0] == 0xff);
}

/* The code cannot be written, nor is it a device. */
static void test_code(void)
{
	uint32_t before = *word_at(CODE + 40);

	CHECK(before == 0x4856465f); /* "_FVH" */
	*word_at(CODE + 40) = 0;
	*byte_at(CODE) = STATUS;
	CHECK(*word_at(CODE + 40) == before && *byte_at(CODE) == 0);
}

/* -- firmware configuration */

static void select(uint16_t key)
{
	out16(0x510, key);
}

static uint32_t read_be32(void)
{
	uint32_t value = 0;

	for (unsigned int i = 0; i < 4; i++)
		value = value << 8 | in8(0x511);
	return value;
}

static uint32_t dma_at(uint32_t command, uint32_t control, uint32_t length, uint32_t high, uint32_t address)
{
	volatile uint32_t *c = word_at(command);

	c[0] = swap(control);
	c[1] = swap(length);
	c[2] = swap(high);
	c[3] = swap(address);
	out32(0x514, 0);
	out32(0x518, swap(command));
	return swap(c[0]);
}

static uint32_t dma(uint32_t control, uint32_t length, uint32_t address)
{
	return dma_at(COMMAND, control, length, 0, address);
}

static void test_items(void)
{
	uint32_t count;

	select(0);
	CHECK(read_be32() == 0x51454d55 && in8(0x511) == 0);
	CHECK(in32(0x514) == 0x554d4551 && in32(0x518) == 0x47464320);
	CHECK(in16(0x510) == 0xffff && in8(0x512) == 0xff);
	select(5);
	CHECK(in8(0x511) == 1);
	CHECK(dma(0x19 << 16 | SELECT | READ, 4 + 16 * 64, BUFFER) == 0);
	count = swap(*word_at(BUFFER));
	CHECK(count >= 6 && count <= 16);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t entry = BUFFER + 4 + 64 * i;

		/* "etc/table-loader" */
		if (*word_at(entry + 8) == 0x2f637465 && *word_at(entry + 12) == 0x6c626174) {
			script_key = swap(*word_at(entry + 4)) >> 16;
			script_size = swap(*word_at(entry));
		}
	}
	CHECK(script_key >= 0x20 && script_size >= 128 && script_size % 128 == 0);
}

static void test_hostile_dma(void)
{
	const uint8_t first = *byte_at(CODE + 41);

	CHECK(dma(SELECT | READ, 4, BUFFER) == 0);
	CHECK(*word_at(BUFFER) == 0x554d4551);
	CHECK(dma(SELECT | READ, 4, CODE) == ERROR);
	CHECK(dma(SELECT | READ, 4, VARS) == ERROR);
	CHECK(dma(SELECT | READ, 4, BEYOND) == ERROR);
	CHECK(dma(SELECT | READ, 4, 0xfffffffe) == ERROR);
	CHECK(dma_at(COMMAND, SELECT | READ, 4, 0xffffffff, 0xfffffffe) == ERROR);
	CHECK(dma_at(COMMAND, SELECT | READ, 4, 1, 0) == ERROR);
	CHECK(dma(SELECT | READ, 0xffffffff, BUFFER) == ERROR);
	CHECK(dma(SELECT | WRITE, 4, BUFFER) == ERROR);
	CHECK(dma(SELECT | SKIP, 0xffffffff, BUFFER) == 0 && in8(0x511) == 0);
	CHECK(*byte_at(CODE + 41) == first);
	/* A command where none can be: nothing happens. */
	out32(0x514, 0xffffffff);
	out32(0x518, 0xffffffff);
	out32(0x514, 0);
	out32(0x518, swap(BEYOND));
	out32(0x518, swap(CODE));
	/* Ports at other widths. */
	out8(0x510, 0);
	out32(0x510, 0x19);
	out8(0x518, 0);
	out16(0x51a, 0x1234);
	CHECK(dma(0x3fff << 16 | SELECT | READ, 16, BUFFER) == 0 && *word_at(BUFFER) == 0);
	select(0);
	CHECK(read_be32() == 0x51454d55);
}

/* -- the host bridge, and the tables */

static uint32_t config_read(uint32_t devfn, uint32_t reg)
{
	out32(0xcf8, 0x80000000u | devfn << 8 | reg);
	return in32(0xcfc);
}

static void config_write(uint32_t devfn, uint32_t reg, uint32_t value)
{
	out32(0xcf8, 0x80000000u | devfn << 8 | reg);
	out32(0xcfc, value);
}

static void move_ecam(uint32_t base)
{
	config_write(0, 0x60, 0);
	config_write(0, 0x64, 0);
	config_write(0, 0x60, base);
}

static void test_ecam(void)
{
	CHECK(config_read(0, 0) == 0x29c08086 && config_read(0xf8, 0) == 0x29188086);
	CHECK(config_read(0xf8, 0x40) == 0x601 && (config_read(0xf8, 0x44) & 0x80));
	CHECK(*word_at(0xe0000000) == 0xffffffff);
	move_ecam(0xe0000001);
	CHECK(*word_at(0xe0000000) == 0x29c08086 && *word_at(0xe00f8000) == 0x29188086);
	CHECK(*word_at(0xe0100000) == 0xffffffff); /* bus 1 */
	move_ecam(0xb0000001);
	CHECK(*word_at(0xe0000000) == 0xffffffff && *word_at(0xb0000000) == 0x29c08086);
	/* Where something is already, or nothing can be. */
	*word_at(BUFFER) = 0x12345678;
	move_ecam(0x00000001);
	CHECK(*word_at(BUFFER) == 0x12345678);
	move_ecam(0xf0000001);
	CHECK(*word_at(CODE + 40) == 0x4856465f);
	config_write(0, 0x64, 0xf);
	config_write(0, 0x64, 0);
	move_ecam(0xb0000001);
	CHECK(*word_at(0xb0000000) == 0x29c08086);
}

/* The script is made when it is selected, however often that is. */
static void test_script(void)
{
	uint32_t sum = 0;

	for (unsigned int round = 0; round < 20; round++) {
		uint32_t now = 0;

		CHECK(dma(script_key << 16 | SELECT | READ, script_size, BUFFER) == 0);
		CHECK(*word_at(BUFFER) == 1 && *word_at(BUFFER + 128) == 1);
		for (uint32_t i = 0; i < script_size; i += 4)
			now += *word_at(BUFFER + i);
		CHECK(!round || now == sum);
		sum = now;
		move_ecam(round % 2 ? 0xb0000001 : 0xc0000001);
	}
}

void fw_main(void)
{
	const bool again = *byte_at(VARS + 1) != 0xff;

	if (!again) {
		print("first boot\n");
		test_flash();
		test_code();
		test_items();
		test_hostile_dma();
		test_ecam();
		test_script();
		program(VARS + 1, 0x42);
		*byte_at(VARS) = STATUS; /* the reset must show the contents again */
		print("reset\n");
		out8(0xcf9, 6);
		for (;;)
			__asm__ volatile("hlt");
	}
	CHECK(*byte_at(VARS + 1) == 0x42 && *byte_at(VARS) == 0xff);
	CHECK(*word_at(BUFFER) == 0); /* memory is new, the bridge too */
	CHECK(*word_at(0xb0000000) == 0xffffffff && config_read(0, 0x60) == 0);
	test_items();
	test_hostile_dma();
	print("passed\n");
	end(0);
}
