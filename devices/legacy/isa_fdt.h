/* SPDX-License-Identifier: MIT */
/*
 * Device tree nodes of devices at I/O ports.
 *
 * Ports are an address space of their own only below a node of type "isa" (IEEE 1275, ISA/EISA binding), and
 * each device writes its own node, so each gets a small ISA bus: isa-NAME { NAME@iPORT { ... } }. It fits
 * into any parent. Interrupts have two cells, pin and type, as in the binding intel,ce4100-ioapic.
 */
#ifndef DEVICES_LEGACY_ISA_FDT_H
#define DEVICES_LEGACY_ISA_FDT_H

#include <stdint.h>

enum isa_irq_type { ISA_IRQ_EDGE_RISING = 0, ISA_IRQ_LEVEL_HIGH = 2 };

/* Opens both nodes and writes compatible and reg. Returns 0 or a libfdt error. */
int isa_fdt_begin(void *fdt, const char *name, const char *compatible, uint16_t port, uint16_t length);
int isa_fdt_interrupt(void *fdt, unsigned int gsi, enum isa_irq_type type);
/* Closes both nodes. */
int isa_fdt_end(void *fdt);

#endif
