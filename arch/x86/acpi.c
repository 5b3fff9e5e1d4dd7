/* SPDX-License-Identifier: MIT */
/* This machine, as firmware/acpi wants it described. */
#include "arch/x86/acpi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/layout.h"
#include "arch/x86/x86.h"
#include "devices/legacy/pm.h"
#include "devices/legacy/uart.h"
#include "devices/pci/pci.h"
#include "firmware/acpi/tables.h"
#include "vmm/device.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define CHIPS_BASE 0xfc000000ULL /* up to 4 GiB: serial port, I/O APIC, local APICs, flash */
#define RSDP_SPACE 64		 /* the RSDP has 36 bytes; the tables follow aligned */

static int intx_gsi(unsigned int device, unsigned int pin)
{
	return (int)pci_intx_gsi(device, pin);
}

static size_t collect_nodes(struct vm *vm, struct acpi_node **nodes)
{
	size_t count = 0;

	for (struct device *d = vm->devices; d; d = d->next)
		count += d->class->aml_name != NULL;
	*nodes = calloc(count + 1, sizeof(**nodes));
	if (!*nodes)
		return 0;
	count = 0;
	for (struct device *d = vm->devices; d; d = d->next) {
		if (!d->class->aml_name)
			continue;
		(*nodes)[count++] = (struct acpi_node){
			.name = d->class->aml_name,
			.scope = ACPI_SCOPE_SB,
			.build = d->class->build_aml,
			.opaque = d,
		};
	}
	return count;
}

static int place(struct vm *vm, const struct acpi_tables *tables)
{
	const uint32_t size = (vm->config->firmware ? SMBIOS_GPA : BIOS_END) - ACPI_GPA;
	uint8_t *area = ram_ptr(&vm->memory, ACPI_GPA, size);
	const struct acpi_place where[ACPI_FILE_COUNT] = {
		[ACPI_FILE_RSDP] = { ACPI_GPA, area, RSDP_SPACE },
		[ACPI_FILE_TABLES] = { ACPI_GPA + RSDP_SPACE, area + RSDP_SPACE, size - RSDP_SPACE },
	};

	return acpi_place(tables, where);
}

/* The room for BARs below 4 GiB ends where VMBus has its own, or the chips of the board begin. */
static void find_windows(struct vm *vm, struct pci_windows *w)
{
	const uint64_t end = vm->vmbus ? VMBUS_MMIO_BASE : CHIPS_BASE;
	const struct pci_window room = { MMIO32_BASE, end - MMIO32_BASE };

	if (vm->firmware)
		pci_find_windows(vm->pci, &room, 1ULL << x86_address_bits(vm->cpuid), ECAM_BASE, w);
	else
		*w = vm->pci->windows;
}

int x86_build_acpi(struct vm *vm, struct acpi_tables *tables)
{
	struct pci_windows w;
	uint32_t *apic_ids = calloc(vm->nr_vcpus, sizeof(*apic_ids));
	struct acpi_node *nodes;
	struct acpi_config config = {
		.apic_ids = apic_ids,
		.cpu_count = vm->nr_vcpus,
		.ioapic_addr = IOAPIC_BASE,
		.pm_base = PM_BASE,
		.sci_irq = PM_GSI,
		.reset_port = 0xcf9,
		.reset_value = 0x06,
		.intx_gsi = intx_gsi,
		.has_rtc = true,
		.has_legacy_devices = true,
	};
	int ret = -ENOMEM;

	/* What a firmware starts may know of no other place to ask; a kernel entered directly has a command line. */
	if (vm->config->firmware) {
		config.serial_port = UART_COM1_PORT;
		config.serial_gsi = UART_COM1_GSI;
	}
	find_windows(vm, &w);
	config.ecam_base = w.ecam;
	config.mmio32 = (struct acpi_range){ w.mmio32.base, w.mmio32.size };
	config.mmio64 = (struct acpi_range){ w.mmio64.base, w.mmio64.size };
	config.node_count = collect_nodes(vm, &nodes);
	config.nodes = nodes;
	if (apic_ids && nodes) {
		for (unsigned int i = 0; i < vm->nr_vcpus; i++)
			apic_ids[i] = vm->vcpus[i].apic_id;
		ret = acpi_build(tables, &config);
	}
	free(nodes);
	free(apic_ids);
	if (ret)
		log_line("ACPI tables: %s", strerror(-ret));
	return ret;
}

int x86_write_acpi(struct vm *vm, uint64_t *rsdp)
{
	struct acpi_tables tables;
	int ret = x86_build_acpi(vm, &tables);

	if (ret)
		return ret;
	ret = place(vm, &tables);
	acpi_free(&tables);
	if (ret)
		log_line("ACPI tables: %s", strerror(-ret));
	*rsdp = ACPI_GPA;
	return ret;
}
