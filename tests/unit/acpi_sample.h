/* SPDX-License-Identifier: MIT */
#ifndef TESTS_UNIT_ACPI_SAMPLE_H
#define TESTS_UNIT_ACPI_SAMPLE_H

#include "firmware/acpi/tables.h"

#define SAMPLE_MAX_CPUS 300
#define SAMPLE_NODES	5

/*
 * A machine as the program describes one, with a UART, an RTC, pvpanic with
 * register access from AML, a module with a device inside, and VMBus: what
 * devices contribute.
 */
struct acpi_sample {
	struct acpi_config config;
	uint32_t apic_ids[SAMPLE_MAX_CPUS];
	struct acpi_node nodes[SAMPLE_NODES];
};

/* Fills s for cpus (1..SAMPLE_MAX_CPUS) CPUs; s->config points into s. */
void acpi_sample_init(struct acpi_sample *s, unsigned int cpus);

#endif
