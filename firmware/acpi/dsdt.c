/* SPDX-License-Identifier: MIT */
/*
 * Differentiated System Description Table: ACPI 6.4, chapters 5.2.11.1 and 6;
 * PCI Firmware Specification 3.3, chapter 4.
 *
 * The guest interprets all of this while it boots, at a few thousand
 * instructions a term, so there is no more than an OS needs. Static data is
 * cheap as long as it is a buffer (one term, whatever its length); a package
 * costs one term an element, each time its code runs. The table itself runs
 * once; the body of a serialized method is skipped when the table is loaded and
 * runs only when the method is called. Therefore resources are plain named
 * buffers and _PRT, by far the largest package and of use only to a device with
 * an INTx pin, is a method.
 */
#include "firmware/acpi/tables_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define DSDT_REVISION 2 /* 64-bit integers */

#define PCI_DEVICES 32
#define PCI_PINS    4

/* CF8..CFF, the configuration ports, split the port space. */
#define CONFIG_PORT	0x0CF8
#define CONFIG_PORT_LEN 8

/* UUID 33DB4D5B-1FF7-401C-9657-7441C03DD766 (PCI Firmware 4.5.1) as ToUUID lays it out. */
static const uint8_t pci_osc_uuid[16] = {
	0x5B, 0x4D, 0xDB, 0x33, 0xF7, 0x1F, 0x1C, 0x40, 0x96, 0x57, 0x74, 0x41, 0xC0, 0x3D, 0xD7, 0x66,
};

#define OSC_UNRECOGNIZED_UUID 0x04 /* 6.2.11, status bits of the first dword */

/* 7.4.2.6: SLP_TYPa, SLP_TYPb, two reserved. */
static void add_s5(struct aml *a)
{
	aml_name(a, "_S5");
	aml_begin_package(a);
	aml_integer(a, ACPI_SLEEP_TYPE_S5);
	aml_integer(a, 0);
	aml_integer(a, 0);
	aml_integer(a, 0);
	aml_end(a);
}

static void add_pci_windows(struct aml *a, const struct acpi_config *config)
{
	aml_name(a, "_CRS");
	aml_begin_resources(a);
	aml_res_word_bus(a, 0, config->last_bus);
	aml_res_word_io(a, 0, CONFIG_PORT - 1);
	aml_res_io(a, CONFIG_PORT, CONFIG_PORT_LEN);
	aml_res_word_io(a, CONFIG_PORT + CONFIG_PORT_LEN, UINT16_MAX);
	aml_res_dword_memory(a, config->mmio32.base, config->mmio32.size);
	if (config->mmio64.size)
		aml_res_qword_memory(a, config->mmio64.base, config->mmio64.size);
	aml_end(a);
}

/* 6.2.13: every pin that may interrupt, wired straight to a GSI. */
static void add_prt(struct aml *a, const struct acpi_config *config)
{
	aml_begin_method(a, "_PRT", 0);
	aml_op(a, AML_RETURN);
	aml_begin_package(a);
	for (unsigned int device = 0; device < PCI_DEVICES; device++) {
		for (unsigned int pin = 0; pin < PCI_PINS; pin++) {
			int gsi = config->intx_gsi(device, pin);

			if (gsi < 0)
				continue;
			aml_begin_package(a);
			aml_integer(a, device << 16 | 0xFFFF); /* all functions */
			aml_integer(a, pin);
			aml_integer(a, 0); /* no link device */
			aml_integer(a, (uint64_t)gsi);
			aml_end(a);
		}
	}
	aml_end(a);
	aml_end(a);
}

/*
 * 6.2.11: nothing here competes with the OS for a PCI Express feature, so it
 * gets control of all it asks for, which is the answer "unchanged".
 */
static void add_pci_osc(struct aml *a)
{
	aml_begin_method(a, "_OSC", 4);
	aml_begin_if(a);
	aml_op(a, AML_LNOT);
	aml_op(a, AML_LEQUAL);
	aml_arg(a, 0);
	aml_buffer(a, pci_osc_uuid, sizeof(pci_osc_uuid));
	aml_op(a, AML_CREATE_DWORD_FIELD);
	aml_arg(a, 3);
	aml_integer(a, 0);
	aml_path(a, "CDW1");
	aml_op(a, AML_OR);
	aml_path(a, "CDW1");
	aml_integer(a, OSC_UNRECOGNIZED_UUID);
	aml_path(a, "CDW1");
	aml_end(a);
	aml_op(a, AML_RETURN);
	aml_arg(a, 3);
	aml_end(a);
}

/*
 * Ranges no device claims: the power management ports, and the ECAM, which an
 * OS uses only if such a node (or the memory map) reserves it.
 */
static void add_motherboard(struct aml *a, const struct acpi_config *config)
{
	uint8_t ports = config->gpe0_len ? (uint8_t)(ACPI_PM_GPE0 + config->gpe0_len) : ACPI_PM_BLOCK_LEN;

	aml_begin_device(a, "MBRD");
	aml_name(a, "_HID");
	aml_eisa_id(a, "PNP0C02");
	aml_name(a, "_CRS");
	aml_begin_resources(a);
	aml_res_memory32_fixed(a, (uint32_t)config->ecam_base, (uint32_t)(config->last_bus + 1) << 20);
	aml_res_io(a, config->pm_base, ports);
	aml_end(a);
	aml_end(a);
}

static void add_nodes(struct aml *a, const struct acpi_config *config, enum acpi_scope scope)
{
	for (size_t i = 0; i < config->node_count; i++) {
		const struct acpi_node *node = &config->nodes[i];
		unsigned int depth = a->depth;

		if (node->scope != scope)
			continue;
		aml_begin_device(a, node->name);
		node->build(a, node->opaque);
		aml_end(a);
		if (a->depth != depth)
			acpi_buf_fail(a->out, -EINVAL);
	}
}

static void add_pci_root(struct aml *a, const struct acpi_config *config)
{
	aml_begin_device(a, "PCI0");
	aml_name(a, "_HID");
	aml_eisa_id(a, "PNP0A08");
	aml_name(a, "_CID");
	aml_eisa_id(a, "PNP0A03");
	aml_name_integer(a, "_SEG", 0);
	aml_name_integer(a, "_BBN", 0);
	aml_name_integer(a, "_UID", 0);
	add_pci_windows(a, config);
	if (config->intx_gsi)
		add_prt(a, config);
	add_pci_osc(a);
	add_motherboard(a, config);
	add_nodes(a, config, ACPI_SCOPE_PCI);
	aml_end(a);
}

/* A processor's name: C000..CFFF. */
static void cpu_name(char name[5], unsigned int uid)
{
	snprintf(name, 5, "C%03X", uid & 0xFFF);
}

/* 8.4: the UID ties a processor device to its entry in the MADT. */
static void add_cpus(struct aml *a, unsigned int count)
{
	for (unsigned int uid = 0; uid < count; uid++) {
		char name[5];

		cpu_name(name, uid);
		aml_begin_device(a, name);
		aml_name(a, "_HID");
		aml_string(a, "ACPI0007");
		aml_name_integer(a, "_UID", uid);
		aml_end(a);
	}
}

/* Whether a node would meet a device written above. */
static bool name_is_reserved(const struct acpi_config *config, const struct acpi_node *node)
{
	if (node->scope == ACPI_SCOPE_PCI)
		return !strcmp(node->name, "MBRD");
	for (unsigned int uid = 0; uid < config->cpu_count; uid++) {
		char name[5];

		cpu_name(name, uid);
		if (!strcmp(node->name, name))
			return true;
	}
	return !strcmp(node->name, "PCI0");
}

int acpi_check_nodes(const struct acpi_config *config)
{
	const struct acpi_node *node = config->nodes;

	for (size_t i = 0; i < config->node_count; i++) {
		if (name_is_reserved(config, &node[i]))
			return -EEXIST;
		for (size_t j = 0; j < i; j++)
			if (node[i].scope == node[j].scope && !strcmp(node[i].name, node[j].name))
				return -EEXIST;
	}
	return 0;
}

uint32_t acpi_add_dsdt(struct acpi_file *f, const struct acpi_config *config)
{
	uint32_t start = acpi_begin_table(f, "DSDT", DSDT_REVISION);
	struct aml a;

	aml_init(&a, &f->data);
	add_s5(&a);
	aml_begin_scope(&a, "_SB");
	add_pci_root(&a, config);
	add_nodes(&a, config, ACPI_SCOPE_SB);
	add_cpus(&a, config->cpu_count);
	aml_end(&a);
	aml_finish(&a);
	acpi_end_table(f, start);
	return start;
}
