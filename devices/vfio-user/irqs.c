/* SPDX-License-Identifier: MIT */
/*
 * Interrupts. The server gets our eventfds. Those of MSI and MSI-X are irqfds: KVM delivers them, and masking is done
 * here by disconnecting them (devices/pci/vector.c), so that a server is told only when the guest turns a kind on or
 * off. Servers keep one list of eventfds for INTx, MSI and MSI-X together: one kind is set at a time, and the others
 * are taken away first.
 *
 * INTx is an event too, and nobody says when the device's reason for it is gone. The line goes up with an event and
 * down when the guest ends the interrupt. It stays up for one more if there may be something that the guest has not
 * seen: an event since then, or another device that held the line up already. With INTx disabled the guest has seen
 * what was there when it disabled it, and nothing after that.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/pci/msi.h"
#include "devices/pci/msix.h"
#include "devices/vfio-user/internal.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

static int set_irqs(struct vfu_device *d, uint32_t flags, uint32_t index, uint32_t start, uint32_t count,
		    const int *fds, unsigned int nr_fds, enum vfu_how how, uint64_t deadline)
{
	const struct vfu_set_irqs set = {
		.argsz = sizeof(set), .flags = flags, .index = index, .start = start, .count = count
	};

	return vfu_link_command(&d->link, VFU_SET_IRQS, &set, sizeof(set), fds, nr_fds, how, deadline);
}

static int vector_fd(const struct vfu_device *d, uint32_t index, unsigned int i)
{
	return index == VFU_IRQ_MSIX  ? msix_fd(&d->fn, i)
	       : index == VFU_IRQ_MSI ? pci_msi_fd(&d->fn, i)
				      : d->event_fds[index];
}

/* The descriptors of vectors from `at` on, as many as the server takes in a message: how many that is. */
static unsigned int some_fds(const struct vfu_device *d, uint32_t index, unsigned int at, int fds[VFU_FDS_MAX])
{
	unsigned int left = d->vectors[index] - at, most = d->info->caps.max_fds, n = left < most ? left : most;

	for (unsigned int i = 0; i < n; i++)
		fds[i] = vector_fd(d, index, at + i);
	return n;
}

/* Only the last message is waited for, and none if the deadline is 0. */
static int give_fds(struct vfu_device *d, uint32_t index, uint64_t deadline)
{
	unsigned int count = d->vectors[index], n;
	int ret = 0;

	for (unsigned int at = 0; at < count && !ret; at += n) {
		int fds[VFU_FDS_MAX];

		n = some_fds(d, index, at, fds);
		ret = set_irqs(d, VFU_SET_DATA_EVENTFD | VFU_SET_TRIGGER, index, at, n, fds, n,
			       at + n == count && deadline ? VFU_WAIT : VFU_ASYNC, deadline);
	}
	return ret;
}

static void take_fds(struct vfu_device *d, enum vfu_irq_mode mode, uint64_t deadline)
{
	if (mode != VFU_MODE_NONE)
		set_irqs(d, VFU_SET_DATA_NONE | VFU_SET_TRIGGER, mode - VFU_MODE_INTX, 0, 0, NULL, 0, VFU_ASYNC,
			 deadline);
}

static enum vfu_irq_mode wanted_mode(const struct vfu_device *d)
{
	if (msix_enabled(&d->fn))
		return VFU_MODE_MSIX;
	if (pci_msi_enabled(&d->fn))
		return VFU_MODE_MSI;
	return d->vectors[VFU_IRQ_INTX] ? VFU_MODE_INTX : VFU_MODE_NONE;
}

static void note_mode(struct vfu_device *d, enum vfu_irq_mode mode)
{
	d->mode = mode;
	TRACE(vfio_user_event, "%s: interrupts by %s", d->name,
	      mode == VFU_MODE_MSIX   ? "MSI-X"
	      : mode == VFU_MODE_MSI  ? "MSI"
	      : mode == VFU_MODE_INTX ? "INTx"
				      : "none");
}

static int set_mode(struct vfu_device *d, enum vfu_irq_mode mode, uint64_t deadline)
{
	int ret = 0;

	note_mode(d, mode);
	if (mode != VFU_MODE_NONE)
		ret = give_fds(d, mode - VFU_MODE_INTX, deadline);
	if (ret && vfu_link_alive(&d->link))
		vfu_tell(d, "the server does not take the descriptors of interrupts");
	return ret;
}

static void change_mode(struct vfu_device *d, uint64_t deadline)
{
	enum vfu_irq_mode mode;

	pthread_mutex_lock(&d->irq_lock);
	mode = wanted_mode(d);
	if (mode != d->mode) {
		take_fds(d, d->mode, deadline);
		set_mode(d, mode, deadline);
	}
	pthread_mutex_unlock(&d->irq_lock);
}

void vfu_irqs_update(struct vfu_device *d, uint64_t deadline)
{
	change_mode(d, deadline);
}

int vfu_irqs_send(struct vfu_device *d)
{
	uint64_t deadline = vfu_link_deadline(&d->link);
	int ret;

	pthread_mutex_lock(&d->irq_lock);
	ret = set_mode(d, wanted_mode(d), deadline);
	for (unsigned int i = VFU_IRQ_ERR; i <= VFU_IRQ_REQ && !ret; i++)
		if (d->event_fds[i] >= 0)
			ret = set_irqs(d, VFU_SET_DATA_EVENTFD | VFU_SET_TRIGGER, i, 0, 1, &d->event_fds[i], 1,
				       VFU_ASYNC, deadline);
	pthread_mutex_unlock(&d->irq_lock);
	return ret;
}

bool vfu_irqs_request(struct vfu_device *d, unsigned int n, struct vfu_request *r)
{
	struct vfu_set_irqs set = { .argsz = sizeof(set), .flags = VFU_SET_DATA_EVENTFD | VFU_SET_TRIGGER };
	unsigned int most = d->info->caps.max_fds, messages = 0;

	pthread_mutex_lock(&d->irq_lock);
	if (!n)
		note_mode(d, wanted_mode(d));
	if (d->mode != VFU_MODE_NONE) {
		set.index = d->mode - VFU_MODE_INTX;
		messages = (d->vectors[set.index] + most - 1) / most;
	}
	pthread_mutex_unlock(&d->irq_lock);
	if (n < messages) {
		set.start = n * most;
		set.count = some_fds(d, set.index, set.start, r->fds);
	} else {
		n -= messages;
		set.index = VFU_IRQ_ERR;
		while (set.index <= VFU_IRQ_REQ && (d->event_fds[set.index] < 0 || n--))
			set.index++;
		if (set.index > VFU_IRQ_REQ)
			return false;
		set.count = 1;
		r->fds[0] = d->event_fds[set.index];
	}
	r->command = VFU_SET_IRQS;
	r->nr_fds = set.count;
	r->size = sizeof(set);
	memcpy(r->payload, &set, sizeof(set));
	return true;
}

/* Under intx_lock. */
static bool others_hold_line(struct vfu_device *d)
{
	struct pci_bus *bus = d->fn.bus;
	bool held;

	pthread_mutex_lock(&bus->intx_lock);
	held = bus->intx_count[d->ack.gsi - PCI_INTX_GSI_BASE] != 0;
	pthread_mutex_unlock(&bus->intx_lock);
	return held;
}

static void intx_event(struct vfu_device *d)
{
	pthread_mutex_lock(&d->intx_lock);
	if (d->intx_level) {
		d->intx_again = true;
	} else if (vfu_link_alive(&d->link)) {
		d->intx_level = true;
		d->intx_taken = false;
		d->intx_again = others_hold_line(d);
		pci_set_intx(&d->fn, true);
	}
	pthread_mutex_unlock(&d->intx_lock);
}

static void intx_acked(struct irq_ack *ack)
{
	struct vfu_device *d = (struct vfu_device *)((char *)ack - offsetof(struct vfu_device, ack));
	bool down = false;

	pthread_mutex_lock(&d->intx_lock);
	if (d->intx_level && (!d->intx_off || d->intx_taken)) {
		down = !d->intx_again;
		d->intx_again = d->intx_taken = false;
		if (down) {
			d->intx_level = false;
			pci_set_intx(&d->fn, false);
		}
	}
	pthread_mutex_unlock(&d->intx_lock);
	if (down && (d->info->irqs[VFU_IRQ_INTX].flags & VFU_IRQ_AUTOMASKED))
		vfu_link_unmask(&d->link);
}

void vfu_irqs_command(struct vfu_device *d, uint32_t command)
{
	bool off = command & PCI_COMMAND_INTX_DISABLE;

	pthread_mutex_lock(&d->intx_lock);
	if (off && !d->intx_off)
		d->intx_taken = d->intx_level;
	d->intx_off = off;
	pthread_mutex_unlock(&d->intx_lock);
}

static void event(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct vfu_watch *w = (struct vfu_watch *)op;
	struct vfu_device *d = w->dev;
	unsigned int index = (unsigned int)(w - d->event_watches);
	eventfd_t count;

	(void)cqe_flags;
	w->armed = false;
	if (res < 0)
		return;
	if (eventfd_read(d->event_fds[index], &count) == 0 && !d->removed) {
		TRACE(vfio_user_event, "%s: irq index %u", d->name, index);
		if (index == VFU_IRQ_INTX)
			intx_event(d);
		else if (!d->told_event[index])
			vfu_tell(d, index == VFU_IRQ_ERR ? "the server reports an error of the device"
							 : "the server asks for the device to be removed");
		/* Once: a server could fill the log. */
		d->told_event[index] = true;
	}
	vfu_watch_arm(w, d->event_fds[index], POLLIN);
}

int vfu_irqs_create(struct vfu_device *d)
{
	static const unsigned int ours[] = { VFU_IRQ_INTX, VFU_IRQ_ERR, VFU_IRQ_REQ };

	for (unsigned int i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
		unsigned int index = ours[i];
		const struct vfu_irq_info *info = &d->info->irqs[index];

		if (index == VFU_IRQ_INTX ? !d->vectors[VFU_IRQ_INTX]
					  : !info->count || !(info->flags & VFU_IRQ_EVENTFD))
			continue;
		d->event_fds[index] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (d->event_fds[index] < 0)
			return -errno;
		vfu_watch_init(&d->event_watches[index], d, event);
	}
	if (d->vectors[VFU_IRQ_INTX]) {
		d->ack.gsi = pci_intx_gsi(d->fn.devfn / 8, d->fn.initial[PCI_INTERRUPT_PIN] - 1u);
		d->ack.fn = intx_acked;
		irq_add_ack(&d->vm->irqs, &d->ack);
	}
	return 0;
}

void vfu_irqs_start(struct vfu_device *d)
{
	for (unsigned int i = 0; i < VFU_IRQS; i++)
		if (d->event_fds[i] >= 0)
			vfu_watch_arm(&d->event_watches[i], d->event_fds[i], POLLIN);
}

void vfu_irqs_drop(struct vfu_device *d)
{
	eventfd_t count;

	pthread_mutex_lock(&d->intx_lock);
	d->intx_level = d->intx_taken = d->intx_again = false;
	if (d->event_fds[VFU_IRQ_INTX] >= 0)
		(void)eventfd_read(d->event_fds[VFU_IRQ_INTX], &count);
	pci_set_intx(&d->fn, false);
	pthread_mutex_unlock(&d->intx_lock);
}

/* MSI and MSI-X are off already. */
void vfu_irqs_reset(struct vfu_device *d)
{
	vfu_irqs_drop(d);
	vfu_irqs_command(d, 0);
	if (vfu_link_alive(&d->link))
		change_mode(d, 0);
}

void vfu_irqs_destroy(struct vfu_device *d)
{
	for (unsigned int i = 0; i < VFU_IRQS; i++)
		if (d->event_fds[i] >= 0)
			close(d->event_fds[i]);
}
