/* SPDX-License-Identifier: MIT */
#include "tests/unit/acpi_sample.h"

#include <string.h>

#include "devices/vmbus/describe.h"

struct uart {
	uint16_t port;
	uint8_t irq;
};

static const struct uart com1 = { 0x3F8, 4 };

static void build_uart(struct aml *a, void *opaque)
{
	const struct uart *uart = opaque;

	aml_name(a, "_HID");
	aml_eisa_id(a, "PNP0501");
	aml_name_integer(a, "_UID", 0);
	aml_name(a, "_CRS");
	aml_begin_resources(a);
	aml_res_io(a, uart->port, 8);
	aml_res_irq_no_flags(a, uart->irq);
	aml_end(a);
}

static void build_rtc(struct aml *a, void *opaque)
{
	(void)opaque;
	aml_name(a, "_HID");
	aml_eisa_id(a, "PNP0B00");
	aml_name(a, "_CRS");
	aml_begin_resources(a);
	aml_res_io(a, 0x70, 2);
	aml_res_irq_no_flags(a, 8);
	aml_end(a);
}

/* pvpanic: one event register, which methods read and write. */
static void build_pvpanic(struct aml *a, void *opaque)
{
	(void)opaque;
	aml_name(a, "_HID");
	aml_string(a, "QEMU0001");
	aml_name_integer(a, "_STA", 0xF);
	aml_name(a, "_CRS");
	aml_begin_resources(a);
	aml_res_io(a, 0x505, 1);
	aml_end(a);
	aml_operation_region(a, "PEOR", AML_SYSTEM_IO, 0x505, 1);
	aml_begin_field(a, "PEOR", AML_ACCESS_BYTE);
	aml_field_unit(a, "PEPT", 8);
	aml_end(a);
	aml_begin_method(a, "RDPT", 0);
	aml_op(a, AML_STORE);
	aml_path(a, "PEPT");
	aml_local(a, 0);
	aml_op(a, AML_RETURN);
	aml_local(a, 0);
	aml_end(a);
	aml_begin_method(a, "WRPT", 1);
	aml_op(a, AML_STORE);
	aml_arg(a, 0);
	aml_path(a, "PEPT");
	aml_end(a);
	/* Writes the larger event of two, and says whether the register took it. */
	aml_begin_method(a, "TEST", 2);
	aml_begin_if(a);
	aml_op(a, AML_LGREATER);
	aml_arg(a, 0);
	aml_arg(a, 1);
	aml_path(a, "WRPT");
	aml_arg(a, 0);
	aml_end(a);
	aml_begin_else(a);
	aml_path(a, "WRPT");
	aml_arg(a, 1);
	aml_end(a);
	aml_op(a, AML_RETURN);
	aml_op(a, AML_LNOT);
	aml_op(a, AML_LLESS);
	aml_path(a, "RDPT");
	aml_op(a, AML_AND);
	aml_arg(a, 0);
	aml_arg(a, 1);
	aml_integer(a, 0); /* no target */
	aml_end(a);
	aml_begin_method(a, "_DIS", 0);
	aml_begin_if(a);
	aml_path(a, "TEST");
	aml_integer(a, 2);
	aml_integer(a, 1);
	aml_op(a, AML_NOTIFY);
	aml_path(a, "\\_SB.PCI0.PEVT");
	aml_integer(a, 1);
	aml_end(a);
	aml_end(a);
}

/* A module device that owns memory for the children of a bus inside it, which has interrupts and can be disabled. */
static void build_module(struct aml *a, void *opaque)
{
	(void)opaque;
	aml_name(a, "_HID");
	aml_string(a, "ACPI0004");
	aml_name_integer(a, "_UID", 1);
	aml_name(a, "_CRS");
	aml_begin_resources(a);
	aml_res_dword_memory(a, 0xF8000000, 0x04000000);
	aml_end(a);
	aml_begin_device(a, "CHLD");
	aml_name_integer(a, "STAT", 0xF);
	aml_name(a, "_HID");
	aml_string(a, "TEST0001");
	aml_name_integer(a, "_UID", 0);
	aml_name(a, "_CRS");
	aml_begin_resources(a);
	aml_res_irq(a, 5, AML_IRQ_EDGE);
	aml_res_interrupt(a, 24, AML_IRQ_EDGE | AML_IRQ_SHARED);
	aml_end(a);
	aml_begin_method(a, "_STA", 0);
	aml_op(a, AML_RETURN);
	aml_path(a, "STAT");
	aml_end(a);
	aml_begin_method(a, "_DIS", 0);
	aml_op(a, AML_AND);
	aml_path(a, "STAT");
	aml_integer(a, 0xD);
	aml_path(a, "STAT");
	aml_op(a, AML_NOTIFY);
	aml_path(a, "^^CHLD");
	aml_integer(a, 1);
	aml_end(a);
	aml_end(a);
}

static int intx_gsi(unsigned int device, unsigned int pin)
{
	return (int)(16 + (device + pin) % 8);
}

void acpi_sample_init(struct acpi_sample *s, unsigned int cpus)
{
	memset(s, 0, sizeof(*s));
	/* Ids as a topology of 6-core packages makes them: with gaps. */
	for (unsigned int i = 0; i < cpus; i++)
		s->apic_ids[i] = i / 6 * 8 + i % 6;
	s->nodes[0] = (struct acpi_node){ "COM1", ACPI_SCOPE_PCI, build_uart, (void *)&com1 };
	s->nodes[1] = (struct acpi_node){ "RTC", ACPI_SCOPE_PCI, build_rtc, NULL };
	s->nodes[2] = (struct acpi_node){ "PEVT", ACPI_SCOPE_PCI, build_pvpanic, NULL };
	s->nodes[3] = (struct acpi_node){ "MODU", ACPI_SCOPE_SB, build_module, NULL };
	s->nodes[4] = (struct acpi_node){ "VMOD", ACPI_SCOPE_SB, vmbus_build_aml, NULL };
	s->config = (struct acpi_config){
		.apic_ids = s->apic_ids,
		.cpu_count = cpus,
		.ioapic_id = 0,
		.ioapic_addr = 0xFEC00000,
		.pm_base = 0x600,
		.sci_irq = 9,
		.reset_port = 0xCF9,
		.reset_value = 6,
		.ecam_base = 0xE0000000,
		.last_bus = 255,
		.mmio32 = { 0x80000000, 0x60000000 },
		.mmio64 = { 0x4000000000, 0x4000000000 },
		.intx_gsi = intx_gsi,
		.serial_port = 0x3F8,
		.serial_gsi = 4,
		.has_rtc = true,
		.has_legacy_devices = true,
		.nodes = s->nodes,
		.node_count = SAMPLE_NODES,
	};
}
