/* SPDX-License-Identifier: MIT */
/* This machine, as firmware/acpi wants it described. */
#include "arch/x86/acpi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/layout.h"
#include "arch/x86/x86.h"
#include "devices/legacy/pm.h"
#include "devices/pci/pci.h"
#include "firmware/acpi/tables.h"
#include "vmm/device.h"
#include "vmm/log.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define RSDP_SPACE 64 /* the RSDP has 36 bytes; the tables follow aligned */

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
	uint8_t *area = ram_ptr(&vm->memory, ACPI_GPA, BIOS_END - ACPI_GPA);
	const struct acpi_place where[ACPI_FILE_COUNT] = {
		[ACPI_FILE_RSDP] = { ACPI_GPA, area, RSDP_SPACE },
		[ACPI_FILE_TABLES] = { ACPI_GPA + RSDP_SPACE, area + RSDP_SPACE, BIOS_END - ACPI_GPA - RSDP_SPACE },
	};

	return acpi_place(tables, where);
}

int x86_write_acpi(struct vm *vm, uint64_t *rsdp)
{
	const struct pci_windows *w = &vm->pci->windows;
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
		.ecam_base = ECAM_BASE,
		.mmio32 = { w->mmio32.base, w->mmio32.size },
		.mmio64 = { w->mmio64.base, w->mmio64.size },
		.intx_gsi = intx_gsi,
		.has_rtc = true,
		.has_legacy_devices = true,
	};
	struct acpi_tables tables;
	int ret = -ENOMEM;

	config.node_count = collect_nodes(vm, &nodes);
	config.nodes = nodes;
	if (apic_ids && nodes) {
		for (unsigned int i = 0; i < vm->nr_vcpus; i++)
			apic_ids[i] = vm->vcpus[i].apic_id;
		ret = acpi_build(&tables, &config);
	}
	free(nodes);
	free(apic_ids);
	if (!ret) {
		ret = place(vm, &tables);
		acpi_free(&tables);
	}
	if (ret)
		log_line("ACPI tables: %s", strerror(-ret));
	*rsdp = ACPI_GPA;
	return ret;
}
