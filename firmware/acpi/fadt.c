/* SPDX-License-Identifier: MIT */
/*
 * Fixed ACPI Description Table, revision 6: ACPI 6.4, 5.2.9.
 *
 * Not hardware-reduced: the power management registers are there because stock
 * OVMF reads the timer and nested hypervisors want PM1. Windows uses the X_
 * addresses but the legacy lengths, other systems the legacy addresses, so both
 * are filled in. The boot flags tell the truth: an OS that believes in an absent
 * device spends up to a second on looking for it.
 */
#include "firmware/acpi/tables_internal.h"

#define FADT_LEN      276
#define FADT_REVISION 6

/* Offsets in the table (table 5.33). */
enum {
	FIRMWARE_CTRL = 36,
	DSDT = 40,
	PREFERRED_PM_PROFILE = 45,
	SCI_INT = 46,
	PM1A_EVT_BLK = 56,
	PM1A_CNT_BLK = 64,
	PM_TMR_BLK = 76,
	GPE0_BLK = 80,
	PM1_EVT_LEN = 88,
	PM1_CNT_LEN = 89,
	PM_TMR_LEN = 91,
	GPE0_BLK_LEN = 92,
	P_LVL2_LAT = 96,
	P_LVL3_LAT = 98,
	CENTURY = 108,
	IAPC_BOOT_ARCH = 109,
	FLAGS = 112,
	RESET_REG = 116,
	RESET_VALUE = 128,
	X_DSDT = 140,
	X_PM1A_EVT_BLK = 148,
	X_PM1A_CNT_BLK = 172,
	X_PM_TMR_BLK = 208,
	X_GPE0_BLK = 220,
};

/* 5.2.9.3, table 5.35 */
enum {
	BOOT_LEGACY_DEVICES = 1 << 0,
	BOOT_8042 = 1 << 1,
	BOOT_VGA_NOT_PRESENT = 1 << 2,
	BOOT_CMOS_RTC_NOT_PRESENT = 1 << 5,
};

/*
 * Table 5.34. PWR_BUTTON (bit 4) stays clear: the power button is the fixed
 * one in PM1. SLP_BUTTON says there is none in PM1, and FIX_RTC that an RTC
 * alarm sets no bit in PM1.
 */
enum {
	FLAG_WBINVD = 1 << 0,
	FLAG_PROC_C1 = 1 << 2,
	FLAG_SLP_BUTTON = 1 << 5,
	FLAG_FIX_RTC = 1 << 6,
	FLAG_TMR_VAL_EXT = 1 << 8,
	FLAG_RESET_REG_SUP = 1 << 10,
};

#define PROFILE_ENTERPRISE_SERVER 4 /* no battery, lid or thermal zone to look for */
#define CMOS_CENTURY		  0x32

/* Latencies in microseconds above which C2 and C3 count as not there. */
#define NO_C2 101
#define NO_C3 1001

struct register_block {
	uint32_t legacy, x, len_at; /* offsets in the FADT */
	uint8_t port_offset, len, access;
};

static void set_registers(struct acpi_buf *b, uint32_t fadt, const struct acpi_config *config)
{
	const struct register_block blocks[] = {
		{ PM1A_EVT_BLK, X_PM1A_EVT_BLK, PM1_EVT_LEN, ACPI_PM1_EVENT, 4, 2 },
		{ PM1A_CNT_BLK, X_PM1A_CNT_BLK, PM1_CNT_LEN, ACPI_PM1_CONTROL, 2, 2 },
		{ PM_TMR_BLK, X_PM_TMR_BLK, PM_TMR_LEN, ACPI_PM_TIMER, 4, 4 },
		{ GPE0_BLK, X_GPE0_BLK, GPE0_BLK_LEN, ACPI_PM_GPE0, config->gpe0_len, 1 },
	};

	for (size_t i = 0; i < sizeof(blocks) / sizeof(*blocks); i++) {
		const struct register_block *r = &blocks[i];
		uint16_t port = (uint16_t)(config->pm_base + r->port_offset);

		if (!r->len)
			continue;
		acpi_buf_set(b, fadt + r->legacy, port, 4);
		acpi_buf_set(b, fadt + r->len_at, r->len, 1);
		acpi_set_gas(b, fadt + r->x, port, r->len, r->access);
	}
	acpi_set_gas(b, fadt + RESET_REG, config->reset_port, 1, 1);
	acpi_buf_set(b, fadt + RESET_VALUE, config->reset_value, 1);
}

static unsigned int boot_arch(const struct acpi_config *config)
{
	return (config->has_legacy_devices ? BOOT_LEGACY_DEVICES : 0u) | (config->has_8042 ? BOOT_8042 : 0u) |
	       (config->has_vga ? 0u : BOOT_VGA_NOT_PRESENT) | (config->has_rtc ? 0u : BOOT_CMOS_RTC_NOT_PRESENT);
}

uint32_t acpi_add_fadt(struct acpi_file *f, const struct acpi_config *config, uint32_t facs, uint32_t dsdt)
{
	uint32_t fadt = acpi_begin_table(f, "FACP", FADT_REVISION);
	struct acpi_buf *b = &f->data;

	acpi_buf_zero(b, FADT_LEN - ACPI_HEADER_LEN);
	/* X_FIRMWARE_CTRL stays zero: only one of the two may point to the FACS. */
	acpi_point(f, fadt + FIRMWARE_CTRL, 4, ACPI_FILE_TABLES, facs);
	acpi_point(f, fadt + DSDT, 4, ACPI_FILE_TABLES, dsdt);
	acpi_point(f, fadt + X_DSDT, 8, ACPI_FILE_TABLES, dsdt);
	acpi_buf_set(b, fadt + PREFERRED_PM_PROFILE, PROFILE_ENTERPRISE_SERVER, 1);
	/* SMI_CMD stays zero: the machine is always in ACPI mode. */
	acpi_buf_set(b, fadt + SCI_INT, config->sci_irq, 2);
	set_registers(b, fadt, config);
	acpi_buf_set(b, fadt + P_LVL2_LAT, NO_C2, 2);
	acpi_buf_set(b, fadt + P_LVL3_LAT, NO_C3, 2);
	acpi_buf_set(b, fadt + CENTURY, config->has_rtc ? CMOS_CENTURY : 0, 1);
	acpi_buf_set(b, fadt + IAPC_BOOT_ARCH, boot_arch(config), 2);
	acpi_buf_set(
		b, fadt + FLAGS,
		FLAG_WBINVD | FLAG_PROC_C1 | FLAG_SLP_BUTTON | FLAG_FIX_RTC | FLAG_TMR_VAL_EXT | FLAG_RESET_REG_SUP, 4);
	acpi_end_table(f, fadt);
	return fadt;
}
