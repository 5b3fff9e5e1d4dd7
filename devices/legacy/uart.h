/* SPDX-License-Identifier: MIT */
/* The machine's serial ports: a 16550A at I/O ports (COM1), or at a page of memory that costs fewer exits. */
#ifndef DEVICES_LEGACY_UART_H
#define DEVICES_LEGACY_UART_H

#include <stdbool.h>
#include <stdint.h>

struct vm;
struct uart;

#define UART_COM1_PORT 0x3f8
#define UART_COM1_GSI  4
#define UART_PAGE_SIZE 4096

enum uart_flags {
	UART_ATTACHED = 1 << 0,	 /* to the machine's console; sets vm->uart. At most one. Else output is dropped. */
	UART_DESCRIBED = 1 << 1, /* has a node in the DSDT and in the device tree */
};

/*
 * The port at 8 I/O ports from port on. gsi: 0..15, edge, active high. Needs vm's buses, and vm->console and
 * vm->coalesce when attached. Returns 0 or -errno, told in one line. The machine owns it.
 */
int uart_pio_create(struct vm *vm, uint16_t port, unsigned int gsi, unsigned int flags);

/*
 * The port at a guest-physical page (UART_PAGE_SIZE, aligned, below 4 GiB, not RAM): registers at bytes 0..7.
 * Reads cost no exit as long as nothing received waits, writes to THR none to user space; see uart.c for what
 * it differs in from a 16550A. Linux: "console=uart8250,mmio,0xADDR".
 */
int uart_mmio_create(struct vm *vm, uint64_t gpa, unsigned int gsi, unsigned int flags);

/* Starts the console with this port behind it. Loop thread, or before it runs. */
void uart_start(struct uart *u);

/*
 * The machine's tick, after coalesce_drain(): carries out what the port put off, and returns whether it wants
 * another tick. It asks for the first one by vm_want_tick(). Any thread, in practice the loop. The caller
 * holds no lock.
 *
 * A tick is wanted while coalesced output may sit in KVM's ring with no exit to bring it along:
 *  - IER is 0: a driver that polls, and in memory not even its polling exits;
 *  - IER.THRI is set: a handler may have filled the FIFO and returned to wait for the next interrupt;
 *  - it was seen that the driver writes without either; or loopback is on, where it waits for its own bytes;
 * and while a transmit interrupt is put off, the host takes no output, or input was refused by a full FIFO.
 * A driver at rest that waits for input by interrupt (IER.RDI) wants none: the write to IER that brought it
 * there was an exit, and everything before it has been drained.
 */
bool uart_wants_tick(struct uart *u);

#endif
