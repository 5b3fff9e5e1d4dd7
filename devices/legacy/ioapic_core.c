/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * The Intel 82093AA data sheet (May 1996, order 290566) with the EOI register of later I/O APICs (version
 * 0x20; Intel ICH data sheets, "I/O APIC EOI register"). With it a guest can end a level-triggered interrupt
 * by one write, where version 0x11 leaves it only the detour of making the entry edge-triggered and
 * level-triggered again, which works here too.
 *
 * An entry whose pin asks for service becomes a message, in the format of an MSI (Intel SDM volume 3, 11.11).
 *
 * Edge: a rise of the line, while the entry is unmasked, is one message. A rise under the mask is lost, as
 * the data sheet says and KVM's own model does: unmasking is not an edge.
 *
 * Level: a message goes out whenever the line is high, the entry unmasked and Remote IRR clear. Once a local
 * APIC took it, Remote IRR is set and holds back the next until the EOI. Unmasking and EOI look at the line
 * again, so a line that stays high is served again.
 *
 * NMI and INIT are edge-triggered whatever the entry says (data sheet, 3.2.4). SMI and ExtINT have no one to
 * go to (no system-management mode, no 8259) and are dropped, as are reserved modes and vectors 0 to 15,
 * which a local APIC refuses. Polarity is kept and ignored: a line here is asserted or not. A message is
 * delivered at once, so the delivery status is always "idle".
 *
 * The local APICs are in KVM and report the EOI of those vectors only that they are told of, by the
 * level-triggered messages in the routing table of their VM. Telling them is slow (the kernel waits for all
 * readers of the old table), so it is done only when an unmasked level-triggered entry has another message
 * than was last told; an entry that is masked and unmasked again costs nothing. What has become stale is
 * dropped at the next occasion: until then it may cause an EOI to be told that no entry waits for.
 */
#include "devices/legacy/ioapic_core.h"

#include <string.h>

#define MESSAGE_BASE	 0xfee00000u
#define MESSAGE_LOGICAL	 0x4u
#define MESSAGE_LEVEL	 0x8000u
#define MESSAGE_ASSERT	 0x4000u
#define FIRST_VECTOR	 16
#define ID_BITS		 0x0f000000u
#define DESTINATION_BITS 0xff000000u
#define READ_ONLY	 (IOAPIC_STATUS | IOAPIC_REMOTE_IRR)
#define LOW_BITS	 (IOAPIC_VECTOR | IOAPIC_MODE | IOAPIC_LOGICAL | IOAPIC_POLARITY | IOAPIC_LEVEL | IOAPIC_MASKED)

static bool is_level(uint32_t low)
{
	uint32_t mode = low & IOAPIC_MODE;

	return low & IOAPIC_LEVEL && (mode == IOAPIC_FIXED || mode == IOAPIC_LOWEST);
}

static bool can_deliver(uint32_t low)
{
	if (low & IOAPIC_MASKED)
		return false;
	switch (low & IOAPIC_MODE) {
	case IOAPIC_FIXED:
	case IOAPIC_LOWEST:
		return (low & IOAPIC_VECTOR) >= FIRST_VECTOR;
	case IOAPIC_NMI:
	case IOAPIC_INIT:
		return true;
	default:
		return false;
	}
}

/* Vector and delivery mode have the same place in both formats. */
static struct irq_message message(const struct ioapic_core *core, unsigned int pin)
{
	uint32_t low = core->low[pin];
	struct irq_message m = {
		.address = MESSAGE_BASE | (core->high[pin] & DESTINATION_BITS) >> 12,
		.data = low & (IOAPIC_VECTOR | IOAPIC_MODE),
	};

	if (low & IOAPIC_LOGICAL)
		m.address |= MESSAGE_LOGICAL;
	if (is_level(low))
		m.data |= MESSAGE_LEVEL | MESSAGE_ASSERT;
	return m;
}

static bool deliver(struct ioapic_core *core, unsigned int pin)
{
	struct irq_message m = message(core, pin);

	return can_deliver(core->low[pin]) && core->ops->deliver(core->opaque, &m);
}

static void serve_level(struct ioapic_core *core, unsigned int pin)
{
	if (is_level(core->low[pin]) && core->lines & 1u << pin && !(core->low[pin] & IOAPIC_REMOTE_IRR) &&
	    deliver(core, pin))
		core->low[pin] |= IOAPIC_REMOTE_IRR;
}

/* An EOI is due from messages that may still be sent and from those in service. */
static void collect_routes(struct ioapic_core *core)
{
	for (unsigned int pin = 0; pin < IRQ_PINS; pin++) {
		uint32_t low = core->low[pin];

		if (is_level(low) && can_deliver(low))
			core->routes[pin] = message(core, pin);
		else if (!(low & IOAPIC_REMOTE_IRR))
			core->routes[pin] = (struct irq_message){ 0 };
	}
	core->ops->routes_changed(core->opaque, core->routes);
}

static void update_route(struct ioapic_core *core, unsigned int pin)
{
	struct irq_message m = message(core, pin);

	if (is_level(core->low[pin]) && can_deliver(core->low[pin]) &&
	    (m.address != core->routes[pin].address || m.data != core->routes[pin].data))
		collect_routes(core);
}

static uint32_t read_register(const struct ioapic_core *core)
{
	unsigned int index = core->select;

	switch (index) {
	case IOAPIC_ID:
	case IOAPIC_ARB: /* loaded with the id; there is no bus to arbitrate for */
		return core->id;
	case IOAPIC_VER:
		return IOAPIC_VERSION | (IRQ_PINS - 1) << 16;
	}
	if (index < IOAPIC_REDIR || index >= IOAPIC_REDIR + 2 * IRQ_PINS)
		return 0;
	index -= IOAPIC_REDIR;
	return index % 2 ? core->high[index / 2] : core->low[index / 2];
}

static void write_register(struct ioapic_core *core, uint32_t value)
{
	unsigned int index = core->select;
	unsigned int pin = (index - IOAPIC_REDIR) / 2;

	if (index == IOAPIC_ID)
		core->id = value & ID_BITS;
	if (index < IOAPIC_REDIR || pin >= IRQ_PINS)
		return;
	if (index % 2) {
		core->high[pin] = value & DESTINATION_BITS;
	} else {
		core->low[pin] = (core->low[pin] & READ_ONLY) | (value & LOW_BITS);
		/* Guests made for version 0x11 end a level-triggered interrupt this way. */
		if (!is_level(value))
			core->low[pin] &= ~IOAPIC_REMOTE_IRR;
	}
	update_route(core, pin);
	serve_level(core, pin);
}

static void end_of_interrupt(struct ioapic_core *core, uint8_t vector)
{
	for (unsigned int pin = 0; pin < IRQ_PINS; pin++) {
		if (!(core->low[pin] & IOAPIC_REMOTE_IRR) || (core->low[pin] & IOAPIC_VECTOR) != vector)
			continue;
		core->low[pin] &= ~IOAPIC_REMOTE_IRR;
		serve_level(core, pin);
	}
}

void ioapic_core_init(struct ioapic_core *core, const struct ioapic_ops *ops, void *opaque)
{
	memset(core, 0, sizeof(*core));
	core->ops = ops;
	core->opaque = opaque;
	pthread_mutex_init(&core->lock, NULL);
	for (unsigned int pin = 0; pin < IRQ_PINS; pin++)
		core->low[pin] = IOAPIC_MASKED;
}

void ioapic_core_destroy(struct ioapic_core *core)
{
	pthread_mutex_destroy(&core->lock);
}

void ioapic_core_reset(struct ioapic_core *core)
{
	bool told = false;

	pthread_mutex_lock(&core->lock);
	core->id = 0;
	core->select = 0;
	for (unsigned int pin = 0; pin < IRQ_PINS; pin++) {
		core->low[pin] = IOAPIC_MASKED;
		core->high[pin] = 0;
		told |= core->routes[pin].address != 0;
	}
	if (told)
		collect_routes(core);
	pthread_mutex_unlock(&core->lock);
}

/* Registers are meant for 32-bit accesses. A narrower one gets the low part, a wider one a high half of
 * zeros. */
uint64_t ioapic_core_read(struct ioapic_core *core, uint64_t offset, unsigned int size)
{
	uint64_t value = 0;

	pthread_mutex_lock(&core->lock);
	if (offset == IOAPIC_REGSEL)
		value = core->select;
	else if (offset == IOAPIC_WIN)
		value = read_register(core);
	pthread_mutex_unlock(&core->lock);
	return size < 4 ? value & ((1u << 8 * size) - 1) : value;
}

/* A narrow write is extended with zeros, as KVM's model does. */
void ioapic_core_write(struct ioapic_core *core, uint64_t offset, unsigned int size, uint64_t value)
{
	if (size < 4)
		value &= (1u << 8 * size) - 1;
	pthread_mutex_lock(&core->lock);
	if (offset == IOAPIC_REGSEL)
		core->select = (uint8_t)value;
	else if (offset == IOAPIC_WIN)
		write_register(core, (uint32_t)value);
	else if (offset == IOAPIC_EOI)
		end_of_interrupt(core, (uint8_t)value);
	pthread_mutex_unlock(&core->lock);
}

void ioapic_core_set_level(struct ioapic_core *core, unsigned int pin, bool level)
{
	uint32_t bit;
	bool rise;

	if (pin >= IRQ_PINS)
		return;
	bit = 1u << pin;
	pthread_mutex_lock(&core->lock);
	rise = level && !(core->lines & bit);
	if (level)
		core->lines |= bit;
	else
		core->lines &= ~bit;
	if (is_level(core->low[pin]))
		serve_level(core, pin);
	else if (rise)
		deliver(core, pin);
	pthread_mutex_unlock(&core->lock);
}

void ioapic_core_eoi(struct ioapic_core *core, uint8_t vector)
{
	pthread_mutex_lock(&core->lock);
	end_of_interrupt(core, vector);
	pthread_mutex_unlock(&core->lock);
}
