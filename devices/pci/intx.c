// SPDX-License-Identifier: MIT
/*
 * INTA..INTD. A slot's pins are swizzled over eight IOAPIC pins; functions that share one are wired or, so a
 * line is up while any of them drives it. intx_lock is a leaf: a device may hold its own lock here.
 */
#include "devices/pci/internal.h"
#include "vmm/vm.h"

/* Under bus->intx_lock. KVM is told inside it, so that levels arrive in the order they were set. */
static void drive(struct pci_function *fn)
{
	struct pci_bus *bus = fn->bus;
	unsigned int pin = fn->initial[PCI_INTERRUPT_PIN];
	bool driving = fn->intx_level && !fn->intx_disabled;

	if (!pin || driving == fn->intx_driving)
		return;
	fn->intx_driving = driving;
	unsigned int gsi = pci_intx_gsi(fn->devfn / 8, pin - 1);
	unsigned int *count = &bus->intx_count[gsi - PCI_INTX_GSI_BASE];
	*count += driving ? 1 : -1;
	if (*count == (driving ? 1 : 0))
		irq_set_level(&bus->vm->irqs, gsi, driving);
}

void pci_set_pin(struct pci_function *fn, unsigned int pin)
{
	pci_config_define(fn, PCI_INTERRUPT_PIN, 1, pin, 0, 0);
	pci_config_define(fn, PCI_INTERRUPT_LINE, 1, pci_intx_gsi(fn->devfn / 8, pin - 1), 0xff, 0);
}

void pci_set_intx(struct pci_function *fn, bool level)
{
	pthread_mutex_lock(&fn->bus->intx_lock);
	fn->intx_level = level && fn->initial[PCI_INTERRUPT_PIN];
	drive(fn);
	pthread_mutex_unlock(&fn->bus->intx_lock);
}

void pci_intx_command(struct pci_function *fn)
{
	pthread_mutex_lock(&fn->bus->intx_lock);
	fn->intx_disabled = pci_config_get(fn, PCI_COMMAND, 2) & PCI_COMMAND_INTX_DISABLE;
	drive(fn);
	pthread_mutex_unlock(&fn->bus->intx_lock);
}

/* PCI 3.0, 6.2.3: the bit shows the function's request, whether or not the disable bit lets it out. */
void pci_intx_status(struct pci_function *fn)
{
	pthread_mutex_lock(&fn->bus->intx_lock);
	bool level = fn->intx_level;
	pthread_mutex_unlock(&fn->bus->intx_lock);
	uint8_t status = fn->config[PCI_STATUS] & ~PCI_STATUS_INTX;
	fn->config[PCI_STATUS] = status | (level ? PCI_STATUS_INTX : 0);
}
