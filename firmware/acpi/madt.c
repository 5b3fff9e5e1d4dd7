/* SPDX-License-Identifier: MIT */
/* Multiple APIC Description Table: ACPI 6.4, 5.2.12. */
#include "firmware/acpi/tables_internal.h"

#define MADT_REVISION	   5
#define LOCAL_APIC_ADDRESS 0xFEE00000u
#define PCAT_COMPAT	   1u
#define LINT_NMI	   1

/* Structure types and their lengths. */
enum {
	TYPE_LOCAL_APIC = 0,
	TYPE_IOAPIC = 1,
	TYPE_SOURCE_OVERRIDE = 2,
	TYPE_LOCAL_APIC_NMI = 4,
	TYPE_X2APIC = 9,
	TYPE_X2APIC_NMI = 10,
};

#define ENABLED		  1u
#define CONFORMS	  0u		 /* polarity and trigger of the bus */
#define LEVEL_ACTIVE_HIGH (3u << 2 | 1u) /* MPS INTI flags, table 5.51 */
#define LEVEL_ACTIVE_LOW  (3u << 2 | 3u)
#define ISA_IRQS	  16
#define PCI_DEVICES	  32
#define PCI_PINS	  4

static void put_structure(struct acpi_buf *b, uint8_t type, uint8_t len)
{
	acpi_buf_put8(b, type);
	acpi_buf_put8(b, len);
}

/* An id of 255 means "all" in the short form; so does a UID. */
static bool needs_x2apic(unsigned int uid, uint32_t apic_id)
{
	return apic_id >= 255 || uid >= 255;
}

/* Returns whether it took the long form. */
static bool put_cpu(struct acpi_buf *b, unsigned int uid, uint32_t apic_id)
{
	if (needs_x2apic(uid, apic_id)) {
		put_structure(b, TYPE_X2APIC, 16);
		acpi_buf_put16(b, 0);
		acpi_buf_put32(b, apic_id);
		acpi_buf_put32(b, ENABLED);
		acpi_buf_put32(b, uid);
		return true;
	}
	put_structure(b, TYPE_LOCAL_APIC, 8);
	acpi_buf_put8(b, (uint8_t)uid);
	acpi_buf_put8(b, (uint8_t)apic_id);
	acpi_buf_put32(b, ENABLED);
	return false;
}

/* An ISA interrupt that is not what ISA says: another pin, or level-triggered. */
static void put_override(struct acpi_buf *b, uint8_t irq, uint32_t gsi, uint16_t flags)
{
	put_structure(b, TYPE_SOURCE_OVERRIDE, 10);
	acpi_buf_put8(b, 0); /* ISA */
	acpi_buf_put8(b, irq);
	acpi_buf_put32(b, gsi);
	acpi_buf_put16(b, flags);
}

/*
 * INTx on a pin below 16. Linux sets those up as ISA's, edge-triggered, unless it is told otherwise here, and without
 * a PIC never lets PCI have them for its own, level-triggered and active low (PCI 3.0, 2.2.6).
 */
static void put_intx_overrides(struct acpi_buf *b, const struct acpi_config *config)
{
	bool pins[ISA_IRQS] = { [0] = true };

	if (config->sci_irq < ISA_IRQS)
		pins[config->sci_irq] = true;
	for (unsigned int i = 0; config->intx_gsi && i < PCI_DEVICES * PCI_PINS; i++) {
		int gsi = config->intx_gsi(i / PCI_PINS, i % PCI_PINS);

		if (gsi < 0 || gsi >= ISA_IRQS || pins[gsi])
			continue;
		pins[gsi] = true;
		put_override(b, (uint8_t)gsi, (uint32_t)gsi, LEVEL_ACTIVE_LOW);
	}
}

static void put_nmi(struct acpi_buf *b, bool x2apic)
{
	put_structure(b, TYPE_LOCAL_APIC_NMI, 6);
	acpi_buf_put8(b, UINT8_MAX); /* all processors */
	acpi_buf_put16(b, CONFORMS);
	acpi_buf_put8(b, LINT_NMI);
	if (!x2apic)
		return;
	put_structure(b, TYPE_X2APIC_NMI, 12);
	acpi_buf_put16(b, CONFORMS);
	acpi_buf_put32(b, UINT32_MAX);
	acpi_buf_put8(b, LINT_NMI);
	acpi_buf_zero(b, 3);
}

uint32_t acpi_add_madt(struct acpi_file *f, const struct acpi_config *config)
{
	uint32_t start = acpi_begin_table(f, "APIC", MADT_REVISION);
	struct acpi_buf *b = &f->data;
	bool x2apic = false;

	acpi_buf_put32(b, LOCAL_APIC_ADDRESS);
	acpi_buf_put32(b, config->has_pic ? PCAT_COMPAT : 0);
	for (unsigned int uid = 0; uid < config->cpu_count; uid++)
		x2apic |= put_cpu(b, uid, config->apic_ids[uid]);
	put_structure(b, TYPE_IOAPIC, 12);
	acpi_buf_put8(b, config->ioapic_id);
	acpi_buf_put8(b, 0);
	acpi_buf_put32(b, config->ioapic_addr);
	acpi_buf_put32(b, 0); /* first GSI */
	if (config->has_pit)
		put_override(b, 0, 2, CONFORMS);
	put_override(b, config->sci_irq, config->sci_irq, LEVEL_ACTIVE_HIGH);
	put_intx_overrides(b, config);
	put_nmi(b, x2apic);
	acpi_end_table(f, start);
	return start;
}
