/* SPDX-License-Identifier: MIT */
/*
 * port - a byte of I/O space: port ADDRESS reads it, port ADDRESS VALUE writes it. For the guests of tests/linux:
 * Debian's cloud kernel has no /dev/port.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>

int main(int argc, char **argv)
{
	unsigned long at;

	if (argc < 2 || argc > 3) {
		fputs("usage: port ADDRESS [VALUE]\n", stderr);
		return 1;
	}
	at = strtoul(argv[1], NULL, 0);
	if (at > 0xffff || iopl(3)) {
		perror("port");
		return 1;
	}
	if (argc > 2)
		outb((unsigned char)strtoul(argv[2], NULL, 0), (unsigned short)at);
	else
		printf("%u\n", inb((unsigned short)at));
	return 0;
}
