/* SPDX-License-Identifier: MIT */
/*
 * The ACPI tables are whole, and the fixed hardware they point to works. Arguments: button: waits for the power
 * button by SCI; poweroff: ends by S5 rather than by the debug port.
 */
#include "rt/acpi.h"

#include "rt/apic.h"
#include "rt/io.h"
#include "rt/rt.h"

#define SCI		 0x70
#define PM1_POWER_BUTTON 0x100
#define SLP_EN		 0x2000

/* Offsets in the FADT: ACPI 6.4, table 5.9. */
enum {
	FACS = 36,
	DSDT = 40,
	SCI_INT = 46,
	PM1A_EVT = 56,
	PM1A_CNT = 64,
	PM_TMR = 76,
	FLAGS = 112,
	RESET_REG = 116,
	RESET_VALUE = 128,
	X_DSDT = 140,
	X_PM1A_EVT = 148,
	X_PM1A_CNT = 172,
	X_PM_TMR = 208
};

static const struct acpi_header *fadt;
static uint16_t events, control;

static void walk(void)
{
	const struct acpi_header *xsdt = acpi_xsdt();
	unsigned int tables = 0;

	for (uint32_t at = sizeof(*xsdt); at + 8 <= xsdt->length; at += 8, tables++) {
		const struct acpi_header *table = (const struct acpi_header *)acpi_field(xsdt, at, 8);

		rt_print("%c%c%c%c %u\n", table->signature[0], table->signature[1], table->signature[2],
			 table->signature[3], table->length);
		acpi_check(table);
	}
	CHECK(tables >= 4);
	CHECK(acpi_find("APIC"));
	CHECK(acpi_find("MCFG"));
	CHECK(acpi_find("WAET"));
	fadt = acpi_find("FACP");
	CHECK(fadt);
}

static void check_fadt(void)
{
	const struct acpi_header *dsdt = (const struct acpi_header *)acpi_field(fadt, X_DSDT, 8);
	uint64_t facs = acpi_field(fadt, FACS, 4);

	CHECK_EQ(acpi_field(fadt, DSDT, 4), (uint64_t)dsdt);
	CHECK(!memcmp(dsdt->signature, "DSDT", 4));
	acpi_check(dsdt);
	CHECK(facs && facs % 64 == 0);
	CHECK(!memcmp((void *)facs, "FACS", 4));
	CHECK_EQ(acpi_field((void *)facs, 4, 4), 64);
	events = (uint16_t)acpi_field(fadt, PM1A_EVT, 4);
	control = (uint16_t)acpi_field(fadt, PM1A_CNT, 4);
	CHECK_EQ(acpi_field(fadt, X_PM1A_EVT, 1), 1); /* I/O ports */
	CHECK_EQ(acpi_field(fadt, X_PM1A_EVT + 4, 8), events);
	CHECK_EQ(acpi_field(fadt, X_PM1A_CNT + 4, 8), control);
	CHECK_EQ(acpi_field(fadt, X_PM_TMR + 4, 8), acpi_field(fadt, PM_TMR, 4));
	CHECK(acpi_field(fadt, FLAGS, 4) & 1 << 10); /* reset register */
	CHECK_EQ(acpi_field(fadt, RESET_REG + 4, 8), 0xcf9);
	CHECK_EQ(acpi_field(fadt, RESET_VALUE, 1), 6);
	CHECK_EQ(inw(control) & 1, 1); /* SCI_EN: in ACPI mode */
	CHECK_EQ(inw(events), 0);
	CHECK_EQ(inw((uint16_t)(events + 2)), 0);
	outw((uint16_t)(events + 2), 0xffff);
	CHECK_EQ(inw((uint16_t)(events + 2)) & PM1_POWER_BUTTON, PM1_POWER_BUTTON);
	outw((uint16_t)(events + 2), 0);
}

static volatile uint16_t status;
static bool exact = true; /* see apic.h */

static void sci(struct rt_frame *frame)
{
	uint16_t now = inw(events);

	(void)frame;
	exact = exact && lapic_in_service(SCI);
	status |= now;
	outw(events, now);
	lapic_eoi();
}

static void wait_for_button(void)
{
	rt_handlers[SCI] = sci;
	ioapic_route((unsigned int)acpi_field(fadt, SCI_INT, 2), SCI, IOAPIC_LEVEL, lapic_id());
	outw((uint16_t)(events + 2), PM1_POWER_BUTTON);
	rt_print("ready\n");
	while (!rt_interrupts[SCI])
		halt_until_irq();
	CHECK_EQ(status & PM1_POWER_BUTTON, PM1_POWER_BUTTON);
	CHECK_EQ(inw(events), 0);
	/* The line dropped with the status: no second interrupt. */
	rt_delay(2000);
	irq_window();
	CHECK(!exact || rt_interrupts[SCI] == 1);
	rt_print("button\n");
}

void guest_main(void)
{
	pic_off();
	lapic_enable(false);
	walk();
	check_fadt();
	if (rt_arg("button"))
		wait_for_button();
	if (!rt_arg("poweroff"))
		return;
	outw(control, SLP_EN);
	rt_delay(1000000);
	CHECK(!"S5 does nothing");
}
