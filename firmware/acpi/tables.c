/* SPDX-License-Identifier: MIT */
/*
 * The frame around the tables: headers, fix-ups, the tables that only point or
 * hold a constant, the check of the description, and placing at an address.
 * Section numbers are those of ACPI 6.4.
 */
#include "firmware/acpi/tables_internal.h"

#include <errno.h>
#include <string.h>

#define RSDP_LEN    36 /* 5.2.5.3 */
#define RSDP_V1_LEN 20
#define FACS_LEN    64 /* 5.2.10 */

#define GAS_SYSTEM_IO 1

/* Microsoft, "Serial Port Console Redirection Table", revision 2. */
enum {
	SPCR_ADDRESS = 40,
	SPCR_INTERRUPT_TYPE = 52,
	SPCR_GSI = 54,
	SPCR_BAUD = 58,
	SPCR_STOP_BITS = 60,
	SPCR_TERMINAL = 62,
	SPCR_PCI_DEVICE = 64,
	SPCR_LEN = 80,
};
#define SPCR_INTERRUPT_IOAPIC 2
#define SPCR_BAUD_115200      7
#define SPCR_TERMINAL_VT_UTF8 2

static const char oem_id[6] = "VMM   ";
static const char oem_table_id[8] = "VMM     ";
static const char creator_id[4] = "VMM ";

static void add_checksum(struct acpi_file *f, uint32_t offset, uint32_t start, uint32_t len)
{
	if (f->checksum_count == ACPI_MAX_FIXUPS) {
		acpi_buf_fail(&f->data, -EINVAL);
		return;
	}
	f->checksums[f->checksum_count++] = (struct acpi_checksum){ .offset = offset, .start = start, .len = len };
}

void acpi_point(struct acpi_file *f, uint32_t offset, uint8_t size, enum acpi_file_id target, uint32_t value)
{
	if (f->pointer_count == ACPI_MAX_FIXUPS) {
		acpi_buf_fail(&f->data, -EINVAL);
		return;
	}
	acpi_buf_set(&f->data, offset, value, size);
	f->pointers[f->pointer_count++] = (struct acpi_pointer){ .offset = offset, .size = size, .target = target };
}

uint32_t acpi_begin_table(struct acpi_file *f, const char signature[4], uint8_t revision)
{
	struct acpi_buf *b = &f->data;
	uint32_t start;

	acpi_buf_align(b, 8);
	start = (uint32_t)b->len;
	acpi_buf_put(b, signature, 4);
	acpi_buf_put32(b, 0); /* length */
	acpi_buf_put8(b, revision);
	acpi_buf_put8(b, 0); /* checksum */
	acpi_buf_put(b, oem_id, sizeof(oem_id));
	acpi_buf_put(b, oem_table_id, sizeof(oem_table_id));
	acpi_buf_put32(b, 1); /* OEM revision */
	acpi_buf_put(b, creator_id, sizeof(creator_id));
	acpi_buf_put32(b, 1); /* creator revision */
	return start;
}

void acpi_end_table(struct acpi_file *f, uint32_t start)
{
	uint32_t len = (uint32_t)f->data.len - start;

	acpi_buf_set(&f->data, start + 4, len, 4);
	add_checksum(f, start + 9, start, len);
}

/* The one table without a checksum; alone in needing 64-byte alignment, so it comes first. */
static uint32_t add_facs(struct acpi_file *f)
{
	uint32_t start;

	acpi_buf_align(&f->data, ACPI_TABLES_ALIGN);
	start = (uint32_t)f->data.len;
	acpi_buf_put(&f->data, "FACS", 4);
	acpi_buf_put32(&f->data, FACS_LEN);
	acpi_buf_zero(&f->data, FACS_LEN - 8);
	acpi_buf_set(&f->data, start + 32, 2, 1); /* version */
	return start;
}

/* PCI Firmware Specification 3.3, 4.1.2. */
static uint32_t add_mcfg(struct acpi_file *f, const struct acpi_config *config)
{
	uint32_t start = acpi_begin_table(f, "MCFG", 1);

	acpi_buf_put64(&f->data, 0);
	acpi_buf_put64(&f->data, config->ecam_base);
	acpi_buf_put16(&f->data, 0); /* segment */
	acpi_buf_put8(&f->data, 0);  /* first bus */
	acpi_buf_put8(&f->data, config->last_bus);
	acpi_buf_put32(&f->data, 0);
	acpi_end_table(f, start);
	return start;
}

/*
 * Windows ACPI Emulated Devices Table: RTC_GOOD and PM_TIMER_GOOD, our timer
 * needs no second read and our RTC no extra acknowledge.
 */
static uint32_t add_waet(struct acpi_file *f)
{
	uint32_t start = acpi_begin_table(f, "WAET", 1);

	acpi_buf_put32(&f->data, 3);
	acpi_end_table(f, start);
	return start;
}

void acpi_set_gas(struct acpi_buf *b, uint32_t at, uint16_t port, uint8_t width, uint8_t access)
{
	acpi_buf_set(b, at, GAS_SYSTEM_IO, 1);
	acpi_buf_set(b, at + 1, 8u * width, 1);
	acpi_buf_set(b, at + 3, access == 4 ? 3 : access, 1);
	acpi_buf_set(b, at + 4, port, 8);
}

/*
 * Serial Port Console Redirection Table (Microsoft, revision 2): the port on which Windows has its Emergency Management
 * Services. Fields that stay zero: a full 16550, no flow control, no PCI device's flags.
 */
static uint32_t add_spcr(struct acpi_file *f, const struct acpi_config *config)
{
	uint32_t start = acpi_begin_table(f, "SPCR", 2);
	struct acpi_buf *b = &f->data;

	acpi_buf_zero(b, SPCR_LEN - ACPI_HEADER_LEN);
	acpi_set_gas(b, start + SPCR_ADDRESS, config->serial_port, 1, 1);
	acpi_buf_set(b, start + SPCR_INTERRUPT_TYPE, SPCR_INTERRUPT_IOAPIC, 1);
	acpi_buf_set(b, start + SPCR_GSI, config->serial_gsi, 4);
	acpi_buf_set(b, start + SPCR_BAUD, SPCR_BAUD_115200, 1);
	acpi_buf_set(b, start + SPCR_STOP_BITS, 1, 1);
	acpi_buf_set(b, start + SPCR_TERMINAL, SPCR_TERMINAL_VT_UTF8, 1);
	acpi_buf_set(b, start + SPCR_PCI_DEVICE, UINT32_MAX, 4); /* device and vendor: none */
	acpi_end_table(f, start);
	return start;
}

static uint32_t add_xsdt(struct acpi_file *f, const uint32_t *tables, size_t count)
{
	uint32_t start = acpi_begin_table(f, "XSDT", 1);

	for (size_t i = 0; i < count; i++) {
		uint32_t entry = (uint32_t)f->data.len;

		acpi_buf_put64(&f->data, 0);
		acpi_point(f, entry, 8, ACPI_FILE_TABLES, tables[i]);
	}
	acpi_end_table(f, start);
	return start;
}

static void build_tables(struct acpi_file *f, const struct acpi_config *config, uint32_t *xsdt)
{
	uint32_t facs = add_facs(f);
	uint32_t dsdt = acpi_add_dsdt(f, config);
	uint32_t tables[] = {
		acpi_add_fadt(f, config, facs, dsdt),
		acpi_add_madt(f, config),
		add_mcfg(f, config),
		add_waet(f),
		config->serial_port ? add_spcr(f, config) : 0,
	};

	*xsdt = add_xsdt(f, tables, sizeof(tables) / sizeof(*tables) - !config->serial_port);
}

/* Revision 2 without an RSDT: every OS that runs in 64-bit mode reads the XSDT. */
static void build_rsdp(struct acpi_file *f, uint32_t xsdt)
{
	acpi_buf_put(&f->data, "RSD PTR ", 8);
	acpi_buf_put8(&f->data, 0);
	acpi_buf_put(&f->data, oem_id, sizeof(oem_id));
	acpi_buf_put8(&f->data, 2);
	acpi_buf_put32(&f->data, 0);
	acpi_buf_put32(&f->data, RSDP_LEN);
	acpi_buf_zero(&f->data, RSDP_LEN - 24);
	acpi_point(f, 24, 8, ACPI_FILE_TABLES, xsdt);
	/* The extended checksum covers the first one, so it comes second. */
	add_checksum(f, 8, 0, RSDP_V1_LEN);
	add_checksum(f, 32, 0, RSDP_LEN);
}

static bool fits_below(struct acpi_range r, uint64_t limit)
{
	return r.base <= limit && r.size <= limit - r.base;
}

static bool overlap(struct acpi_range a, struct acpi_range b)
{
	return a.size && b.size && a.base < b.base + b.size && b.base < a.base + a.size;
}

static bool valid_ranges(const struct acpi_config *c)
{
	const struct acpi_range ecam = { c->ecam_base, (c->last_bus + 1ull) << 20 };
	const uint64_t four_gib = 1ull << 32;

	return !(ecam.base % (1 << 20)) && fits_below(ecam, four_gib) && c->mmio32.size &&
	       fits_below(c->mmio32, four_gib) && fits_below(c->mmio64, 1ull << 63) && !overlap(ecam, c->mmio32) &&
	       !overlap(ecam, c->mmio64) && !overlap(c->mmio32, c->mmio64);
}

static bool valid_config(const struct acpi_config *c)
{
	return c->cpu_count && c->cpu_count <= ACPI_MAX_CPUS && !(c->gpe0_len & 1) && c->pm_base &&
	       c->pm_base + ACPI_PM_GPE0 + c->gpe0_len <= UINT16_MAX && ACPI_PM_GPE0 + c->gpe0_len <= UINT8_MAX &&
	       c->sci_irq < 16 && valid_ranges(c);
}

int acpi_build(struct acpi_tables *t, const struct acpi_config *config)
{
	struct acpi_file *rsdp = &t->files[ACPI_FILE_RSDP];
	struct acpi_file *tables = &t->files[ACPI_FILE_TABLES];
	uint32_t xsdt;
	int ret;

	memset(t, 0, sizeof(*t));
	if (!valid_config(config))
		return -EINVAL;
	ret = acpi_check_nodes(config);
	if (ret)
		return ret;
	build_tables(tables, config, &xsdt);
	build_rsdp(rsdp, xsdt);
	ret = tables->data.error ? tables->data.error : rsdp->data.error;
	if (ret)
		acpi_free(t);
	return ret;
}

static uint64_t load_le(const uint8_t *from, size_t size)
{
	uint64_t value = 0;

	for (size_t i = 0; i < size; i++)
		value |= (uint64_t)from[i] << (8 * i);
	return value;
}

static int check_places(const struct acpi_tables *t, const struct acpi_place *where)
{
	if (where[ACPI_FILE_RSDP].gpa % ACPI_RSDP_ALIGN || where[ACPI_FILE_TABLES].gpa % ACPI_TABLES_ALIGN)
		return -EINVAL;
	for (unsigned int id = 0; id < ACPI_FILE_COUNT; id++) {
		const struct acpi_file *f = &t->files[id];

		if (f->data.len > where[id].size)
			return -ENOSPC;
		for (unsigned int i = 0; i < f->pointer_count; i++) {
			const struct acpi_pointer *p = &f->pointers[i];
			uint64_t max = p->size == 4 ? UINT32_MAX : UINT64_MAX;
			uint64_t offset = load_le(f->data.bytes + p->offset, p->size);

			if (where[p->target].gpa > max - offset)
				return -ERANGE;
		}
	}
	return 0;
}

static void place_file(const struct acpi_file *f, const struct acpi_place *where, uint8_t *host)
{
	memcpy(host, f->data.bytes, f->data.len);
	for (unsigned int i = 0; i < f->pointer_count; i++) {
		const struct acpi_pointer *p = &f->pointers[i];
		uint64_t value = load_le(f->data.bytes + p->offset, p->size);

		value += where[p->target].gpa;
		for (size_t byte = 0; byte < p->size; byte++)
			host[p->offset + byte] = (uint8_t)(value >> (8 * byte));
	}
	for (unsigned int i = 0; i < f->checksum_count; i++) {
		const struct acpi_checksum *c = &f->checksums[i];
		uint8_t sum = 0;

		for (uint32_t byte = 0; byte < c->len; byte++)
			sum = (uint8_t)(sum + host[c->start + byte]);
		host[c->offset] = (uint8_t)-sum;
	}
}

int acpi_place(const struct acpi_tables *t, const struct acpi_place *where)
{
	int ret = check_places(t, where);

	if (ret)
		return ret;
	for (unsigned int id = 0; id < ACPI_FILE_COUNT; id++)
		place_file(&t->files[id], where, where[id].host);
	return 0;
}

void acpi_free(struct acpi_tables *t)
{
	for (unsigned int id = 0; id < ACPI_FILE_COUNT; id++)
		acpi_buf_free(&t->files[id].data);
	memset(t, 0, sizeof(*t));
}
