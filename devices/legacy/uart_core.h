/* SPDX-License-Identifier: MIT */
/*
 * The registers of a 16550A, without a bus, an interrupt controller or a host behind them.
 *
 * Not thread safe: the owner locks. Every function may call the owner's callbacks, which must not call back.
 */
#ifndef DEVICES_LEGACY_UART_CORE_H
#define DEVICES_LEGACY_UART_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* PC16550D data sheet, table 2. */
enum uart_reg {
	UART_DATA = 0, /* RBR, THR; DLL while LCR.DLAB is set */
	UART_IER = 1,  /* DLM while LCR.DLAB is set */
	UART_IIR = 2,  /* FCR when written */
	UART_LCR = 3,
	UART_MCR = 4,
	UART_LSR = 5,
	UART_MSR = 6,
	UART_SCR = 7,
	UART_REGS = 8,
};

enum {
	IER_RDI = 1 << 0,
	IER_THRI = 1 << 1,
	IER_RLSI = 1 << 2,
	IER_MSI = 1 << 3,
	IER_BITS = 0x0f,

	IIR_NONE = 0x01,
	IIR_MSI = 0x00,
	IIR_THRI = 0x02,
	IIR_RDI = 0x04,
	IIR_RLSI = 0x06,
	IIR_TIMEOUT = 0x0c,
	IIR_FIFO = 0xc0,

	FCR_ENABLE = 1 << 0,
	FCR_CLEAR_RX = 1 << 1,
	FCR_TRIGGER_SHIFT = 6,

	LCR_DLAB = 1 << 7,

	MCR_DTR = 1 << 0,
	MCR_RTS = 1 << 1,
	MCR_OUT1 = 1 << 2,
	MCR_OUT2 = 1 << 3,
	MCR_LOOP = 1 << 4,
	MCR_BITS = 0x1f,

	LSR_DR = 1 << 0,
	LSR_OE = 1 << 1,
	LSR_THRE = 1 << 5,
	LSR_TEMT = 1 << 6,

	MSR_DCTS = 1 << 0,
	MSR_DDSR = 1 << 1,
	MSR_TERI = 1 << 2,
	MSR_DDCD = 1 << 3,
	MSR_DELTAS = 0x0f,
	MSR_CTS = 1 << 4,
	MSR_DSR = 1 << 5,
	MSR_RI = 1 << 6,
	MSR_DCD = 1 << 7,
};

#define UART_FIFO_SIZE 16

struct uart_core_ops {
	/* The interrupt output, already gated by MCR.OUT2. Called for changes only. */
	void (*set_irq)(void *opaque, bool level);
	/* A byte leaves the port. Returns whether the other side has room for more. */
	bool (*transmit)(void *opaque, uint8_t byte);
};

struct uart_core {
	const struct uart_core_ops *ops;
	void *opaque;
	bool fast; /* see uart_core.c */
	bool lazy; /* THR writes come late, in batches: they wait for uart_core_settle() with their interrupt
		    */

	uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
	uint8_t rbr;	/* what an empty receiver reads as: the last byte taken */
	uint8_t deltas; /* MSR bits 0..3 */
	bool overrun;
	bool room; /* the other side takes bytes: THRE and TEMT */
	bool thri; /* the transmitter became empty and nobody was told (not used when fast) */
	bool line; /* last level given to set_irq() */
	bool unsettled;
	uint8_t rx[UART_FIFO_SIZE];
	unsigned int rx_head, rx_count;
};

/* The state after power-on. room: whether the other side takes bytes now. Does not call set_irq(). */
void uart_core_init(struct uart_core *core, const struct uart_core_ops *ops, void *opaque, bool fast, bool lazy,
		    bool room);
/* The master reset: as after init, with the interrupt line lowered. */
void uart_core_reset(struct uart_core *core, bool room);

/* reg is 0..7; above, reads give 0xff and writes do nothing. */
uint8_t uart_core_read(struct uart_core *core, unsigned int reg);
void uart_core_write(struct uart_core *core, unsigned int reg, uint8_t value);

/* What uart_core_read() would return, without its side effects. */
uint8_t uart_core_peek(const struct uart_core *core, unsigned int reg);

/* True while no register read has a side effect: nothing received waits, and no error or modem change does.
 */
bool uart_core_quiet(const struct uart_core *core);

/* Bytes from the line. Returns how many were taken: at most what the receiver has room for, none in loopback.
 */
size_t uart_core_receive(struct uart_core *core, const uint8_t *data, size_t length);

/* The other side has room (again), or has none (any more). */
void uart_core_set_room(struct uart_core *core, bool room);

/* Raises the interrupts that lazy THR writes put off: no more of them are on their way. */
void uart_core_settle(struct uart_core *core);

#endif
