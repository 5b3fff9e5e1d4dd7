/* SPDX-License-Identifier: MIT */
/*
 * Writes numbered lines to the serial port, as a driver does: up to 16 bytes whenever the transmitter is empty.
 * Argument: lines=N (0: without end).
 */
#include "rt/io.h"
#include "rt/rt.h"

#define COM1 0x3f8
#define LINE 64
#define FIFO 16

static void write_line(uint32_t n)
{
	char line[LINE];

	memset(line, '.', sizeof(line));
	for (int i = 7; i >= 0; i--, n /= 10)
		line[i] = (char)('0' + n % 10);
	line[LINE - 1] = '\n';
	for (unsigned int i = 0; i < LINE; i += FIFO) {
		const char *at = line + i;
		uint64_t count = FIFO;

		while (!(inb(COM1 + 5) & 0x20))
			__asm__ volatile("pause");
		__asm__ volatile("rep outsb" : "+S"(at), "+c"(count) : "d"(COM1) : "memory");
	}
}

void guest_main(void)
{
	uint64_t lines = rt_arg_number("lines", 0);

	for (uint32_t n = 0; !lines || n < lines; n++)
		write_line(n);
}
