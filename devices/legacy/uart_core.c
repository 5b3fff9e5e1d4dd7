/* SPDX-License-Identifier: MIT */
/*
 * 16550A registers, after the PC16550D data sheet (National Semiconductor, June 1995).
 *
 * Theory of operation
 *
 * The transmitter is instantaneous: a byte written to THR is passed on at once, so THRE and TEMT stay set for
 * as long as the other side has room. When it has none both clear, and drivers wait; bytes written all the
 * same are passed on too. The receiver is a FIFO of 16 bytes (1 with FIFOs off) that is never overrun from
 * outside: what it does not take stays with the sender. Only loopback can overrun it.
 *
 * Interrupts. The received-data interrupt is at or above the trigger level; below it, the character-timeout
 * interrupt takes over. On hardware that comes after four character times of silence; here at once, since
 * nobody gains from waiting. The transmitter interrupt is an event, "THR became empty": raised by every THR
 * write (which is instantly empty again), by room coming back and by setting IER.THRI while empty; cleared by
 * reading it from IIR and by a THR write. PCs connect the output through MCR.OUT2; loopback disconnects it
 * there, but not here, so that a diagnostic can see its interrupts.
 *
 * The PC's interrupt controllers see edges, so a driver that returns from its handler with an interrupt
 * pending relies on the line having dropped and risen since. A THR write does that. With lazy set (KVM
 * collects THR writes, vmm sees them late and many at once) the edge is put off: a driver that goes on to
 * read IIR is answered without any; one that has returned gets it from uart_core_settle(). Without lazy every
 * THR write settles itself.
 *
 * fast is for a guest that reads the registers in memory (see uart.c), where reads can have no effect. Then
 * the transmitter interrupt is a level, pending while IER.THRI and THRE are set, and MSR reports no changes.
 * Drivers that loop until IIR is clear (all that share ISA lines do) see an infinitely fast transmitter. A
 * handler that gives up on it midway (Linux does after 512 rounds) leaves with the line high and would never
 * be called again: uart_core_settle() repeats the edge after THR writes, and received data makes its own.
 */
#include "devices/legacy/uart_core.h"

#include <string.h>

#define LINES_IDLE (MSR_DCD | MSR_DSR | MSR_CTS) /* of the cable: somebody is there and ready */

static bool fifo_enabled(const struct uart_core *core)
{
	return core->fcr & FCR_ENABLE;
}

static unsigned int rx_capacity(const struct uart_core *core)
{
	return fifo_enabled(core) ? UART_FIFO_SIZE : 1;
}

static unsigned int rx_trigger(const struct uart_core *core)
{
	static const uint8_t level[] = { 1, 4, 8, 14 };

	return fifo_enabled(core) ? level[core->fcr >> FCR_TRIGGER_SHIFT] : 1;
}

static bool tx_empty(const struct uart_core *core)
{
	return core->room || (core->mcr & MCR_LOOP);
}

static uint8_t modem_lines(const struct uart_core *core)
{
	if (!(core->mcr & MCR_LOOP))
		return LINES_IDLE;
	return (core->mcr & MCR_RTS ? MSR_CTS : 0) | (core->mcr & MCR_DTR ? MSR_DSR : 0) |
	       (core->mcr & MCR_OUT1 ? MSR_RI : 0) | (core->mcr & MCR_OUT2 ? MSR_DCD : 0);
}

/* The pending interrupt of the highest priority (data sheet, table 5). */
static uint8_t interrupt_id(const struct uart_core *core)
{
	bool thri = core->fast ? tx_empty(core) : core->thri;

	if ((core->ier & IER_RLSI) && core->overrun)
		return IIR_RLSI;
	if ((core->ier & IER_RDI) && core->rx_count)
		return core->rx_count >= rx_trigger(core) ? IIR_RDI : IIR_TIMEOUT;
	if ((core->ier & IER_THRI) && thri)
		return IIR_THRI;
	if ((core->ier & IER_MSI) && core->deltas)
		return IIR_MSI;
	return IIR_NONE;
}

static void set_line(struct uart_core *core, bool level)
{
	if (core->line == level)
		return;
	core->line = level;
	core->ops->set_irq(core->opaque, level);
}

/* After every change of state. A line that is low, or rises now, needs no further edge. */
static void update(struct uart_core *core)
{
	bool level = interrupt_id(core) != IIR_NONE && (core->mcr & MCR_OUT2);

	if (!level || !core->line)
		core->unsettled = false;
	set_line(core, level);
}

void uart_core_settle(struct uart_core *core)
{
	if (core->unsettled && core->line && interrupt_id(core) == IIR_THRI)
		set_line(core, false);
	core->unsettled = false;
	update(core);
}

void uart_core_init(struct uart_core *core, const struct uart_core_ops *ops, void *opaque, bool fast, bool lazy,
		    bool room)
{
	memset(core, 0, sizeof(*core));
	core->ops = ops;
	core->opaque = opaque;
	core->fast = fast;
	core->lazy = lazy;
	core->room = room;
	core->thri = room;
	core->dll = 1; /* 115200 baud: not defined by the data sheet, but never a division by zero in the guest */
}

void uart_core_reset(struct uart_core *core, bool room)
{
	bool line = core->line;

	uart_core_init(core, core->ops, core->opaque, core->fast, core->lazy, room);
	core->line = line;
	set_line(core, false);
}

bool uart_core_quiet(const struct uart_core *core)
{
	return !core->rx_count && !core->overrun && !core->deltas;
}

uint8_t uart_core_peek(const struct uart_core *core, unsigned int reg)
{
	bool dlab = core->lcr & LCR_DLAB;

	switch (reg) {
	case UART_DATA:
		if (dlab)
			return core->dll;
		return core->rx_count ? core->rx[core->rx_head] : core->rbr;
	case UART_IER:
		return dlab ? core->dlm : core->ier;
	case UART_IIR:
		return interrupt_id(core) | (fifo_enabled(core) ? IIR_FIFO : 0);
	case UART_LCR:
		return core->lcr;
	case UART_MCR:
		return core->mcr;
	case UART_LSR:
		return (core->rx_count ? LSR_DR : 0) | (core->overrun ? LSR_OE : 0) |
		       (tx_empty(core) ? LSR_THRE | LSR_TEMT : 0);
	case UART_MSR:
		return modem_lines(core) | core->deltas;
	case UART_SCR:
		return core->scr;
	default:
		return 0xff;
	}
}

uint8_t uart_core_read(struct uart_core *core, unsigned int reg)
{
	uint8_t value = uart_core_peek(core, reg);

	switch (reg) {
	case UART_DATA:
		if ((core->lcr & LCR_DLAB) || !core->rx_count)
			break;
		core->rbr = value;
		core->rx_head = (core->rx_head + 1) % UART_FIFO_SIZE;
		core->rx_count--;
		break;
	case UART_IIR:
		if ((value & ~IIR_FIFO) == IIR_THRI)
			core->thri = false;
		break;
	case UART_LSR:
		core->overrun = false;
		break;
	case UART_MSR:
		core->deltas = 0;
		break;
	default:
		return value;
	}
	update(core);
	return value;
}

/* A full FIFO keeps what it has and loses the new byte; the single buffer keeps the new one. */
static void loop_back(struct uart_core *core, uint8_t byte)
{
	if (core->rx_count < rx_capacity(core)) {
		core->rx[(core->rx_head + core->rx_count++) % UART_FIFO_SIZE] = byte;
		return;
	}
	core->overrun = true;
	if (!fifo_enabled(core))
		core->rx[core->rx_head] = byte;
}

static void write_thr(struct uart_core *core, uint8_t byte)
{
	if (core->mcr & MCR_LOOP)
		loop_back(core, byte);
	else
		core->room = core->ops->transmit(core->opaque, byte);
	core->thri = tx_empty(core);
	core->unsettled = core->thri && (core->ier & IER_THRI);
	/* Only the transmitter's own rise can wait: received data and a full host can't. */
	if (!core->lazy)
		uart_core_settle(core);
	else if (!core->unsettled || interrupt_id(core) != IIR_THRI)
		update(core);
}

static void write_ier(struct uart_core *core, uint8_t value)
{
	uint8_t set = value & ~core->ier;

	core->ier = value & IER_BITS;
	if (set & IER_THRI)
		core->thri = tx_empty(core);
}

/* The other bits of FCR count only together with the enable bit; changing that one empties the FIFO. */
static void write_fcr(struct uart_core *core, uint8_t value)
{
	bool enable = value & FCR_ENABLE;

	if (enable != fifo_enabled(core) || (enable && (value & FCR_CLEAR_RX))) {
		core->rx_count = 0;
		core->rx_head = 0;
	}
	core->fcr = enable ? value : 0;
}

static void write_mcr(struct uart_core *core, uint8_t value)
{
	uint8_t before = modem_lines(core), changed;
	bool was_empty = tx_empty(core);

	core->mcr = value & MCR_BITS;
	if (!was_empty && tx_empty(core))
		core->thri = true;
	else if (!tx_empty(core))
		core->thri = false;
	if (core->fast)
		return;
	changed = before ^ modem_lines(core);
	core->deltas |= (changed & MSR_CTS ? MSR_DCTS : 0) | (changed & MSR_DSR ? MSR_DDSR : 0) |
			(changed & before & MSR_RI ? MSR_TERI : 0) | (changed & MSR_DCD ? MSR_DDCD : 0);
}

void uart_core_write(struct uart_core *core, unsigned int reg, uint8_t value)
{
	bool dlab = core->lcr & LCR_DLAB;

	switch (reg) {
	case UART_DATA:
		if (dlab)
			core->dll = value;
		else
			write_thr(core, value);
		return;
	case UART_IER:
		if (dlab)
			core->dlm = value;
		else
			write_ier(core, value);
		break;
	case UART_IIR:
		write_fcr(core, value);
		break;
	case UART_LCR:
		core->lcr = value;
		return;
	case UART_MCR:
		write_mcr(core, value);
		break;
	case UART_SCR:
		core->scr = value;
		return;
	default: /* LSR and MSR are for the factory (data sheet, 8.6.3 and 8.6.7) */
		return;
	}
	update(core);
}

size_t uart_core_receive(struct uart_core *core, const uint8_t *data, size_t length)
{
	unsigned int capacity = rx_capacity(core);
	bool first = !core->rx_count;
	size_t taken = 0;

	if (core->mcr & MCR_LOOP) /* the receiver is off the line */
		return 0;
	while (taken < length && core->rx_count < capacity)
		core->rx[(core->rx_head + core->rx_count++) % UART_FIFO_SIZE] = data[taken++];
	/* A fast transmitter may hold the line, and its driver may have left: this is news, so make an edge.
	 */
	if (core->fast && taken && first && (core->ier & IER_RDI))
		set_line(core, false);
	update(core);
	return taken;
}

void uart_core_set_room(struct uart_core *core, bool room)
{
	if (core->room == room)
		return;
	core->room = room;
	core->thri = tx_empty(core);
	update(core);
}
