/* SPDX-License-Identifier: MIT */
/*
 * The host's end of a serial line: standard input and output (raw when a terminal), a file, a Unix socket that
 * one client at a time may attach to, or nothing. Output is buffered and written by the loop; a vCPU never waits.
 */
#ifndef VMM_CONSOLE_H
#define VMM_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct console;
struct loop;
struct vm;

struct console_callbacks {
	void *opaque;
	/* Input, on the loop thread; returns how many bytes were taken. The rest waits for console_rx_ready(). */
	size_t (*input)(void *opaque, const uint8_t *data, size_t length);
	/* There is room again after console_room() said there was not; on the loop thread. */
	void (*writable)(void *opaque);
};

/*
 * spec: "stdio", "null", "file:PATH" or "unix:PATH". NULL after printing the cause with the option's name.
 * The terminal (if any) is put into raw mode only by console_start().
 */
struct console *console_open(struct vm *vm, const char *spec);
void console_start(struct console *c, const struct console_callbacks *cb);

/* Appends output. Any thread. Never blocks; what does not fit is dropped and counted. */
void console_write(struct console *c, const uint8_t *data, size_t length);
/* True while a well-behaved device may send: the buffer is not nearly full. Any thread. */
bool console_room(struct console *c);
/* The device has room for input again. Any thread. */
void console_rx_ready(struct console *c);

/* Writes out what is buffered (bounded: gives up after a second without progress), restores the terminal, frees. */
void console_close(struct console *c);

#endif
