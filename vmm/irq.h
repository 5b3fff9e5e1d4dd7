/* SPDX-License-Identifier: MIT */
/*
 * Interrupts into the guest. The local APICs are KVM's, the I/O APIC is a device of ours (KVM's "split
 * irqchip"), and there is no 8259: KVM would make one with its I/O APIC, and Linux then programs all pins for
 * it. GSI 0..15 are the I/O APIC's pins, higher ones are MSI routes handed out to devices. This module owns
 * KVM's GSI routing table.
 */
#ifndef VMM_IRQ_H
#define VMM_IRQ_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* No more than Linux takes for granted: a guest looks at every pin several times, by exits. */
#define IRQ_PINS       16
#define IRQ_MAX_ROUTES 1024 /* KVM_MAX_IRQ_ROUTES is 4096; the pins come on top */

/* What a local APIC understands: the format of an MSI. */
struct irq_message {
	uint32_t address; /* 0: no message */
	uint32_t data;
};

/* Whoever has the pins, and hears of ended interrupts. Any thread; may not block. */
struct irq_pin_ops {
	void (*set_level)(void *opaque, unsigned int gsi, bool level);
	void (*eoi)(void *opaque, uint8_t vector);
};

/* Who wants to hear that a level-triggered interrupt of a pin has been ended. The owner's until the machine ends. */
struct irq_ack {
	unsigned int gsi;
	void (*fn)(struct irq_ack *ack); /* before the pin is looked at again; any thread, may not block */
	struct irq_ack *next;
};

struct irq_route {
	bool used;
	bool live; /* has a message and is not masked */
	uint64_t address;
	uint32_t data;
};

struct irqs {
	int vm_fd;
	pthread_mutex_t lock;
	struct irq_route *routes; /* index = gsi - IRQ_PINS */
	unsigned int count;	  /* highest used index + 1 */
	struct irq_message watched[IRQ_PINS];
	const struct irq_pin_ops *pin_ops;
	void *pins;
	struct irq_ack *acks;
};

/* Gives a VM local APICs that work with an I/O APIC outside of KVM; before its first vCPU. 0 or -errno. */
int irqs_enable_apics(int vm_fd);

int irqs_init(struct irqs *irqs, int vm_fd);
void irqs_destroy(struct irqs *irqs);

/* Connects the pins, or disconnects them (NULL), while nobody drives them. */
void irqs_attach_pins(struct irqs *irqs, const struct irq_pin_ops *ops, void *opaque);

/* Drives I/O APIC pin gsi (0..15). Any thread. */
void irq_set_level(struct irqs *irqs, unsigned int gsi, bool level);

/* An edge: high, then low. */
void irq_pulse(struct irqs *irqs, unsigned int gsi);

/* Sends a message to the local APICs. Returns whether one took it. Any thread. */
bool irq_send(struct irqs *irqs, const struct irq_message *message);

/*
 * From now on KVM tells (KVM_EXIT_IOAPIC_EOI) when the interrupts of these level-triggered messages, one a
 * pin, are ended, and no others. Slow: it waits for interrupts on their way. 0 or -errno.
 */
int irq_watch_eoi(struct irqs *irqs, const struct irq_message messages[IRQ_PINS]);

/* Before the first vCPU runs. */
void irq_add_ack(struct irqs *irqs, struct irq_ack *ack);

/* A vCPU thread passes on what KVM told it. */
void irq_eoi(struct irqs *irqs, uint8_t vector);

/*
 * An MSI vector of a device: an eventfd that any thread or process may write 8 bytes to.
 * msi_alloc() makes the eventfd and takes a GSI, with no message yet. Returns 0 or -errno.
 * msi_set() gives it the message (address, data) and connects it; msi_mask() disconnects it (writes to the
 * eventfd are then counted by the kernel and can be read back as "pending" with msi_take_pending()).
 */
struct msi {
	int fd;
	int gsi;
	bool connected;
};
int msi_alloc(struct irqs *irqs, struct msi *msi);
void msi_free(struct irqs *irqs, struct msi *msi);
int msi_set(struct irqs *irqs, struct msi *msi, uint64_t address, uint32_t data);
int msi_mask(struct irqs *irqs, struct msi *msi);
bool msi_take_pending(struct msi *msi); /* only while masked; true if the eventfd had been written */

#endif
