/* SPDX-License-Identifier: MIT */
#include "vmm/irq.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "vmm/trace.h"

int irqs_init(struct irqs *irqs, int vm_fd)
{
	memset(irqs, 0, sizeof(*irqs));
	irqs->vm_fd = vm_fd;
	irqs->routes = calloc(IRQ_MAX_ROUTES, sizeof(*irqs->routes));
	if (!irqs->routes)
		return -ENOMEM;
	pthread_mutex_init(&irqs->lock, NULL);
	return 0;
}

void irqs_destroy(struct irqs *irqs)
{
	if (!irqs->routes)
		return;
	free(irqs->routes);
	irqs->routes = NULL;
	pthread_mutex_destroy(&irqs->lock);
}

int irqs_enable_apics(int vm_fd)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { IRQ_PINS } };

	return ioctl(vm_fd, KVM_ENABLE_CAP, &cap) < 0 ? -errno : 0;
}

void irqs_attach_pins(struct irqs *irqs, const struct irq_pin_ops *ops, void *opaque)
{
	irqs->pin_ops = ops;
	irqs->pins = opaque;
}

void irq_set_level(struct irqs *irqs, unsigned int gsi, bool level)
{
	TRACE(irq_level, "gsi %u level %d", gsi, (int)level);
	if (irqs->pin_ops)
		irqs->pin_ops->set_level(irqs->pins, gsi, level);
}

void irq_pulse(struct irqs *irqs, unsigned int gsi)
{
	irq_set_level(irqs, gsi, true);
	irq_set_level(irqs, gsi, false);
}

void irq_add_ack(struct irqs *irqs, struct irq_ack *ack)
{
	ack->next = irqs->acks;
	irqs->acks = ack;
}

void irq_eoi(struct irqs *irqs, uint8_t vector)
{
	for (struct irq_ack *ack = irqs->acks; ack; ack = ack->next) {
		const struct irq_message *m = &irqs->watched[ack->gsi];

		pthread_mutex_lock(&irqs->lock);
		bool ended = m->address && (m->data & 0xff) == vector;

		pthread_mutex_unlock(&irqs->lock);
		if (ended)
			ack->fn(ack);
	}
	if (irqs->pin_ops)
		irqs->pin_ops->eoi(irqs->pins, vector);
}

/* KVM fails where no local APIC has the destination, or is off: a guest's matter, not worth a word. */
bool irq_send(struct irqs *irqs, const struct irq_message *message)
{
	struct kvm_msi msi = { .address_lo = message->address, .data = message->data };

	return ioctl(irqs->vm_fd, KVM_SIGNAL_MSI, &msi) > 0;
}

static void add_message(struct kvm_irq_routing *table, unsigned int gsi, uint64_t address, uint32_t data)
{
	struct kvm_irq_routing_entry *e = &table->entries[table->nr++];

	e->gsi = gsi;
	e->type = KVM_IRQ_ROUTING_MSI;
	e->u.msi.address_lo = (uint32_t)address;
	e->u.msi.address_hi = (uint32_t)(address >> 32);
	e->u.msi.data = data;
}

/*
 * KVM takes the whole table each time. A pin's entry carries no interrupt, those are sent by irq_send(): KVM
 * looks there for the vectors whose end it is to tell (Documentation/virt/kvm/api.rst,
 * KVM_CAP_SPLIT_IRQCHIP).
 */
static int commit(struct irqs *irqs)
{
	size_t max = IRQ_PINS + irqs->count;
	struct kvm_irq_routing *table = calloc(1, sizeof(*table) + max * sizeof(table->entries[0]));

	if (!table)
		return -ENOMEM;
	for (unsigned int i = 0; i < IRQ_PINS; i++)
		if (irqs->watched[i].address)
			add_message(table, i, irqs->watched[i].address, irqs->watched[i].data);
	for (unsigned int i = 0; i < irqs->count; i++)
		if (irqs->routes[i].live)
			add_message(table, IRQ_PINS + i, irqs->routes[i].address, irqs->routes[i].data);
	int ret = ioctl(irqs->vm_fd, KVM_SET_GSI_ROUTING, table) < 0 ? -errno : 0;

	free(table);
	return ret;
}

int irq_watch_eoi(struct irqs *irqs, const struct irq_message messages[IRQ_PINS])
{
	pthread_mutex_lock(&irqs->lock);
	memcpy(irqs->watched, messages, sizeof(irqs->watched));
	int ret = commit(irqs);
	pthread_mutex_unlock(&irqs->lock);
	return ret;
}

static int wire(struct irqs *irqs, struct msi *msi, bool connect)
{
	struct kvm_irqfd irqfd = {
		.fd = (uint32_t)msi->fd,
		.gsi = (uint32_t)msi->gsi,
		.flags = connect ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
	};

	if (msi->connected == connect)
		return 0;
	if (ioctl(irqs->vm_fd, KVM_IRQFD, &irqfd) < 0)
		return -errno;
	msi->connected = connect;
	return 0;
}

int msi_alloc(struct irqs *irqs, struct msi *msi)
{
	unsigned int i;

	msi->connected = false;
	msi->gsi = -1;
	msi->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (msi->fd < 0)
		return -errno;
	pthread_mutex_lock(&irqs->lock);
	for (i = 0; i < IRQ_MAX_ROUTES && irqs->routes[i].used; i++)
		;
	if (i < IRQ_MAX_ROUTES) {
		irqs->routes[i] = (struct irq_route){ .used = true };
		msi->gsi = (int)(IRQ_PINS + i);
		if (irqs->count <= i)
			irqs->count = i + 1;
	}
	pthread_mutex_unlock(&irqs->lock);
	if (msi->gsi < 0) {
		close(msi->fd);
		msi->fd = -1;
		return -ENOSPC;
	}
	return 0;
}

void msi_free(struct irqs *irqs, struct msi *msi)
{
	if (msi->fd < 0 || msi->gsi < 0)
		return;
	msi_mask(irqs, msi);
	pthread_mutex_lock(&irqs->lock);
	irqs->routes[msi->gsi - IRQ_PINS].used = false;
	while (irqs->count && !irqs->routes[irqs->count - 1].used)
		irqs->count--;
	pthread_mutex_unlock(&irqs->lock);
	close(msi->fd);
	msi->fd = -1;
	msi->gsi = -1;
}

int msi_set(struct irqs *irqs, struct msi *msi, uint64_t address, uint32_t data)
{
	struct irq_route *route = &irqs->routes[msi->gsi - IRQ_PINS];
	int ret = 0;

	TRACE(msi_route, "gsi %d address 0x%llx data 0x%x", msi->gsi, (unsigned long long)address, data);
	pthread_mutex_lock(&irqs->lock);
	if (!route->live || route->address != address || route->data != data) {
		route->address = address;
		route->data = data;
		route->live = true;
		ret = commit(irqs);
		/* A route that KVM refuses must not stay, or every later commit would be refused with it. */
		route->live = !ret;
	}
	/* Route first, then the eventfd: an event in between would have nowhere to go. */
	if (!ret)
		ret = wire(irqs, msi, true);
	pthread_mutex_unlock(&irqs->lock);
	return ret;
}

int msi_mask(struct irqs *irqs, struct msi *msi)
{
	pthread_mutex_lock(&irqs->lock);
	int ret = wire(irqs, msi, false);

	/* The stale route stays until the next commit: nothing is connected to it. */
	irqs->routes[msi->gsi - IRQ_PINS].live = false;
	pthread_mutex_unlock(&irqs->lock);
	return ret;
}

bool msi_take_pending(struct msi *msi)
{
	uint64_t count;
	struct iovec iov = { &count, sizeof(count) };

	/* The eventfd may have come from a peer, which can make read() wait. */
	return preadv2(msi->fd, &iov, 1, -1, RWF_NOWAIT) == sizeof(count);
}
