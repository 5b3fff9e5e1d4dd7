/* SPDX-License-Identifier: MIT */
/* The ACPI tables against the field offsets of ACPI 6.4 chapter 5.2, and their fix-ups. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/acpi_sample.h"
#include "tests/unit/alloc_fail.h"

#define MEMORY (64u << 10)

/* The sample machine, built, and memory to place it in with guards around. */
struct machine {
	struct acpi_sample sample;
	struct acpi_tables tables;
	struct acpi_place where[ACPI_FILE_COUNT];
	uint8_t rsdp[64];
	uint8_t memory[MEMORY];
};

#define GUARD 0xA5

static int setup(void **state)
{
	struct machine *m = malloc(sizeof(*m));

	if (!m)
		return -1;
	acpi_sample_init(&m->sample, 2);
	if (acpi_build(&m->tables, &m->sample.config)) {
		free(m);
		return -1;
	}
	*state = m;
	return 0;
}

static int teardown(void **state)
{
	struct machine *m = *state;

	acpi_free(&m->tables);
	free(m);
	return 0;
}

static void rebuild(struct machine *m, int expected)
{
	acpi_free(&m->tables);
	assert_int_equal(acpi_build(&m->tables, &m->sample.config), expected);
}

static int place(struct machine *m, uint64_t rsdp, uint64_t tables)
{
	memset(m->rsdp, GUARD, sizeof(m->rsdp));
	memset(m->memory, GUARD, sizeof(m->memory));
	m->where[ACPI_FILE_RSDP] = (struct acpi_place){ rsdp, m->rsdp, sizeof(m->rsdp) };
	m->where[ACPI_FILE_TABLES] = (struct acpi_place){ tables, m->memory, sizeof(m->memory) };
	return acpi_place(&m->tables, m->where);
}

static uint64_t load(const uint8_t *p, size_t size)
{
	uint64_t value = 0;

	while (size--)
		value = value << 8 | p[size];
	return value;
}

static void assert_sum_zero(const uint8_t *p, size_t len)
{
	uint8_t sum = 0;

	while (len--)
		sum = (uint8_t)(sum + *p++);
	assert_int_equal(sum, 0);
}

/* The table at gpa, which must lie inside the placed file. */
static const uint8_t *table_at(const struct machine *m, uint64_t gpa)
{
	uint64_t base = m->where[ACPI_FILE_TABLES].gpa;
	size_t file = m->tables.files[ACPI_FILE_TABLES].data.len;
	const uint8_t *table = m->memory + (gpa - base);

	assert_in_range(gpa, base, base + file - 8);
	assert_in_range(load(table + 4, 4), 8, file - (gpa - base));
	return table;
}

/* The table of that signature in the XSDT, its checksum verified. */
static const uint8_t *find(const struct machine *m, const char *signature)
{
	const uint8_t *xsdt = table_at(m, load(m->rsdp + 24, 8));

	assert_memory_equal(xsdt, "XSDT", 4);
	assert_sum_zero(xsdt, load(xsdt + 4, 4));
	for (uint64_t at = 36; at < load(xsdt + 4, 4); at += 8) {
		const uint8_t *table = table_at(m, load(xsdt + at, 8));

		assert_sum_zero(table, load(table + 4, 4));
		if (!memcmp(table, signature, 4))
			return table;
	}
	fail_msg("no %s", signature);
	return NULL;
}

static void check_placed(struct machine *m, uint64_t rsdp, uint64_t tables)
{
	const uint8_t *fadt, *dsdt;

	assert_int_equal(place(m, rsdp, tables), 0);
	assert_memory_equal(m->rsdp, "RSD PTR ", 8);
	assert_sum_zero(m->rsdp, 20);
	assert_sum_zero(m->rsdp, 36);
	fadt = find(m, "FACP");
	assert_int_equal(load(fadt + 40, 4), load(fadt + 140, 8));
	dsdt = table_at(m, load(fadt + 140, 8));
	assert_memory_equal(dsdt, "DSDT", 4);
	assert_sum_zero(dsdt, load(dsdt + 4, 4));
	assert_int_equal(load(fadt + 36, 4) % 64, 0);
	assert_memory_equal(table_at(m, load(fadt + 36, 4)), "FACS", 4);
	/* Nothing outside the files */
	for (size_t i = 36; i < sizeof(m->rsdp); i++)
		assert_int_equal(m->rsdp[i], GUARD);
	for (size_t i = m->tables.files[ACPI_FILE_TABLES].data.len; i < MEMORY; i++)
		assert_int_equal(m->memory[i], GUARD);
}

static void test_place_twice(void **state)
{
	struct machine *m = *state;
	uint8_t before[36];

	memcpy(before, m->tables.files[ACPI_FILE_RSDP].data.bytes, 36);
	check_placed(m, 0x7FFF0000, 0x7FF00040);
	check_placed(m, 0xF0000, 0x9FC00);
	/* The source keeps offsets and empty checksums, which is what a loader script needs. */
	assert_memory_equal(m->tables.files[ACPI_FILE_RSDP].data.bytes, before, 36);
}

static void test_place_refused(void **state)
{
	struct machine *m = *state;
	size_t len = m->tables.files[ACPI_FILE_TABLES].data.len;

	assert_int_equal(place(m, 0xF0008, 0x100000), -EINVAL);
	assert_int_equal(place(m, 0xF0000, 0x100020), -EINVAL);
	assert_int_equal(place(m, 0xF0000, 0x100000000), -ERANGE);
	assert_int_equal(place(m, 0xF0000, UINT64_MAX - 63), -ERANGE);
	assert_int_equal(m->memory[0], GUARD);
	m->where[ACPI_FILE_TABLES] = (struct acpi_place){ 0x100000, m->memory, len - 1 };
	assert_int_equal(acpi_place(&m->tables, m->where), -ENOSPC);
	assert_int_equal(m->memory[0], GUARD);
	m->where[ACPI_FILE_TABLES].size = len;
	assert_int_equal(acpi_place(&m->tables, m->where), 0);
}

/* What a loader script is made of: fix-ups inside their files, targets too. */
static void test_fixups_inside(void **state)
{
	struct machine *m = *state;
	unsigned int pointers = 0;

	for (unsigned int id = 0; id < ACPI_FILE_COUNT; id++) {
		const struct acpi_file *f = &m->tables.files[id];

		for (unsigned int i = 0; i < f->pointer_count; i++, pointers++) {
			const struct acpi_pointer *p = &f->pointers[i];
			size_t target_len = m->tables.files[p->target].data.len;

			assert_true(p->size == 4 || p->size == 8);
			assert_in_range(p->offset, 0, f->data.len - p->size);
			assert_in_range(load(f->data.bytes + p->offset, p->size), 0, target_len - 1);
		}
		for (unsigned int i = 0; i < f->checksum_count; i++) {
			const struct acpi_checksum *c = &f->checksums[i];

			assert_in_range(c->start, 0, f->data.len);
			assert_in_range(c->len, 1, f->data.len - c->start);
			assert_in_range(c->offset, c->start, c->start + c->len - 1);
			assert_int_equal(f->data.bytes[c->offset], 0);
		}
	}
	/* RSDP to XSDT; XSDT to five tables; FADT to FACS and twice DSDT */
	assert_int_equal(pointers, 9);
	assert_int_equal(m->tables.files[ACPI_FILE_RSDP].checksum_count, 2);
	assert_int_equal(m->tables.files[ACPI_FILE_TABLES].checksum_count, 7);
}

static void assert_gas(const uint8_t *gas, uint64_t port, unsigned int bits, unsigned int access)
{
	assert_int_equal(gas[0], port ? 1 : 0);
	assert_int_equal(gas[1], bits);
	assert_int_equal(gas[2], 0);
	assert_int_equal(gas[3], access);
	assert_int_equal(load(gas + 4, 8), port);
}

static void test_fadt(void **state)
{
	struct machine *m = *state;
	const uint8_t *fadt;

	assert_int_equal(place(m, 0xF0000, 0x100000), 0);
	fadt = find(m, "FACP");
	assert_int_equal(load(fadt + 4, 4), 276);
	assert_int_equal(fadt[8], 6);
	assert_int_equal(load(fadt + 46, 2), 9);
	assert_int_equal(load(fadt + 48, 4), 0); /* SMI_CMD */
	assert_int_equal(load(fadt + 56, 4), 0x600);
	assert_int_equal(load(fadt + 64, 4), 0x604);
	assert_int_equal(load(fadt + 76, 4), 0x608);
	assert_int_equal(load(fadt + 80, 4), 0); /* no GPE block */
	assert_memory_equal(fadt + 88, "\x04\x02\x00\x04\x00\x00", 6);
	assert_int_equal(load(fadt + 96, 2), 101);
	assert_int_equal(load(fadt + 98, 2), 1001);
	assert_int_equal(fadt[108], 0x32);
	/* LEGACY_DEVICES, VGA_NOT_PRESENT; no 8042 */
	assert_int_equal(load(fadt + 109, 2), 0x05);
	/* RESET_REG_SUP, TMR_VAL_EXT, FIX_RTC, SLP_BUTTON, PROC_C1, WBINVD */
	assert_int_equal(load(fadt + 112, 4), 0x565);
	assert_gas(fadt + 116, 0xCF9, 8, 1);
	assert_int_equal(fadt[128], 6);
	assert_int_equal(load(fadt + 132, 8), 0); /* X_FIRMWARE_CTRL */
	assert_gas(fadt + 148, 0x600, 32, 2);
	assert_gas(fadt + 172, 0x604, 16, 2);
	assert_gas(fadt + 208, 0x608, 32, 3);
	assert_gas(fadt + 220, 0, 0, 0);
}

static void test_fadt_choices(void **state)
{
	struct machine *m = *state;
	struct acpi_config *c = &m->sample.config;
	const uint8_t *fadt;

	c->has_rtc = false;
	c->has_legacy_devices = false;
	c->has_8042 = true;
	c->has_vga = true;
	c->gpe0_len = 4;
	rebuild(m, 0);
	assert_int_equal(place(m, 0xF0000, 0x100000), 0);
	fadt = find(m, "FACP");
	assert_int_equal(fadt[108], 0);
	assert_int_equal(load(fadt + 109, 2), 0x22);
	assert_int_equal(load(fadt + 80, 4), 0x620);
	assert_int_equal(fadt[92], 4);
	assert_gas(fadt + 220, 0x620, 32, 1);
}

static void assert_bytes(const uint8_t **at, const void *bytes, size_t len)
{
	assert_memory_equal(*at, bytes, len);
	*at += len;
}

static void test_madt(void **state)
{
	struct machine *m = *state;
	const uint8_t *madt, *at;

	assert_int_equal(place(m, 0xF0000, 0x100000), 0);
	madt = find(m, "APIC");
	at = madt + 36;
	assert_bytes(&at, "\x00\x00\xE0\xFE\0\0\0\0", 8);
	assert_bytes(&at, "\x00\x08\x00\x00\x01\0\0\0", 8);
	assert_bytes(&at, "\x00\x08\x01\x01\x01\0\0\0", 8);
	assert_bytes(&at, "\x01\x0C\x00\x00\x00\x00\xC0\xFE\0\0\0\0", 12);
	assert_bytes(&at, "\x02\x0A\x00\x09\x09\0\0\0\x0D\x00", 10);
	assert_bytes(&at, "\x04\x06\xFF\x00\x00\x01", 6);
	assert_int_equal(at - madt, load(madt + 4, 4));

	m->sample.config.has_pic = true;
	m->sample.config.has_pit = true;
	rebuild(m, 0);
	assert_int_equal(place(m, 0xF0000, 0x100000), 0);
	madt = find(m, "APIC");
	assert_int_equal(load(madt + 40, 4), 1);
	at = madt + 36 + 8 + 2 * 8 + 12;
	assert_bytes(&at, "\x02\x0A\x00\x00\x02\0\0\0\x00\x00", 10);
	assert_bytes(&at, "\x02\x0A\x00\x09\x09\0\0\0\x0D\x00", 10);
	assert_bytes(&at, "\x04\x06\xFF\x00\x00\x01", 6);
}

static int gsi_below_16(unsigned int device, unsigned int pin)
{
	return device ? (int)(8 + (device + pin) % 2 * 7) : -1;
}

/* PCI interrupts where ISA's were are level-triggered and active low; the SCI's keeps what it has. */
static void test_madt_intx(void **state)
{
	struct machine *m = *state;
	const uint8_t *madt, *at;

	m->sample.config.intx_gsi = gsi_below_16;
	rebuild(m, 0);
	assert_int_equal(place(m, 0xF0000, 0x100000), 0);
	madt = find(m, "APIC");
	at = madt + 36 + 8 + 2 * 8 + 12;
	assert_bytes(&at, "\x02\x0A\x00\x09\x09\0\0\0\x0D\x00", 10);
	assert_bytes(&at, "\x02\x0A\x00\x0F\x0F\0\0\0\x0F\x00", 10);
	assert_bytes(&at, "\x02\x0A\x00\x08\x08\0\0\0\x0F\x00", 10);
	assert_bytes(&at, "\x04\x06\xFF\x00\x00\x01", 6);
	assert_int_equal(at - madt, load(madt + 4, 4));
}

static void test_madt_x2apic(void **state)
{
	struct machine *m = *state;
	const uint8_t *madt, *at;

	m->sample.apic_ids[0] = 254;
	m->sample.apic_ids[1] = 255;
	rebuild(m, 0);
	assert_int_equal(place(m, 0xF0000, 0x100000), 0);
	madt = find(m, "APIC");
	at = madt + 44;
	assert_bytes(&at, "\x00\x08\x00\xFE\x01\0\0\0", 8);
	assert_bytes(&at, "\x09\x10\0\0\xFF\0\0\0\x01\0\0\0\x01\0\0\0", 16);
	at += 12 + 10 + 6;
	assert_bytes(&at, "\x0A\x0C\0\0\xFF\xFF\xFF\xFF\x01\0\0\0", 12);
	assert_int_equal(at - madt, load(madt + 4, 4));
}

static void test_small_tables(void **state)
{
	struct machine *m = *state;
	const uint8_t *mcfg, *waet, *spcr;

	assert_int_equal(place(m, 0xF0000, 0x100000), 0);
	mcfg = find(m, "MCFG");
	assert_int_equal(load(mcfg + 4, 4), 60);
	assert_int_equal(load(mcfg + 44, 8), 0xE0000000);
	assert_memory_equal(mcfg + 52, "\0\0\0\xFF\0\0\0\0", 8);
	waet = find(m, "WAET");
	assert_int_equal(load(waet + 4, 4), 40);
	assert_int_equal(load(waet + 36, 4), 3);
	/* A 16550 at port 3F8h, GSI 4 by the I/O APIC, 115200 8N1, VT-UTF8, no PCI device. */
	spcr = find(m, "SPCR");
	assert_int_equal(load(spcr + 4, 4), 80);
	assert_int_equal(spcr[8], 2);
	assert_memory_equal(spcr + 36, "\0\0\0\0", 4);
	assert_gas(spcr + 40, 0x3F8, 8, 1);
	assert_memory_equal(spcr + 52, "\x02\0\x04\0\0\0\x07\0\x01\0\x02\0\xFF\xFF\xFF\xFF", 16);
	for (unsigned int i = 68; i < 80; i++)
		assert_int_equal(spcr[i], 0);
}

/* Without a port to name there is no such table, and nothing else is missing. */
static void test_no_spcr(void **state)
{
	struct machine *m = *state;
	const uint8_t *xsdt;

	m->sample.config.serial_port = 0;
	rebuild(m, 0);
	assert_int_equal(place(m, 0xF0000, 0x100000), 0);
	find(m, "WAET");
	xsdt = table_at(m, load(m->rsdp + 24, 8));
	assert_int_equal(load(xsdt + 4, 4), 36 + 4 * 8);
	for (unsigned int i = 0; i < 4; i++)
		assert_memory_not_equal(table_at(m, load(xsdt + 36 + 8 * i, 8)), "SPCR", 4);
}

static bool dsdt_contains(struct machine *m, const void *bytes, size_t len)
{
	const uint8_t *dsdt;

	assert_int_equal(place(m, 0xF0000, 0x100000), 0);
	dsdt = table_at(m, load(find(m, "FACP") + 140, 8));
	return memmem(dsdt, load(dsdt + 4, 4), bytes, len) != NULL;
}

static int gsi_of_slot_31(unsigned int device, unsigned int pin)
{
	return device == 31 && pin == 3 ? 18 : -1;
}

static void test_dsdt_choices(void **state)
{
	/* Name (_S5, Package (4) {0, 0, 0, 0}) */
	static const uint8_t s5[] = { 0x08, '_', 'S', '5', '_', 0x12, 0x06, 4, 0, 0, 0, 0 };
	/* Package (1) {Package (4) {0x1FFFFF, 3, 0, 18}} */
	static const uint8_t prt[] = { 0x12, 0x0F, 1, 0x12, 0x0C, 4, 0x0C, 0xFF, 0xFF, 0x1F, 0, 0x0A, 3, 0, 0x0A, 18 };
	static const uint8_t qword[] = { 0x8A, 0x2B, 0 };
	struct machine *m = *state;

	assert_true(dsdt_contains(m, s5, sizeof(s5)));
	assert_true(dsdt_contains(m, qword, sizeof(qword)));
	assert_false(dsdt_contains(m, prt, sizeof(prt)));
	m->sample.config.intx_gsi = gsi_of_slot_31;
	m->sample.config.mmio64.size = 0;
	rebuild(m, 0);
	assert_true(dsdt_contains(m, prt, sizeof(prt)));
	assert_false(dsdt_contains(m, qword, sizeof(qword)));
	m->sample.config.intx_gsi = NULL;
	rebuild(m, 0);
	assert_false(dsdt_contains(m, "_PRT", 4));
}

static void open_too_much(struct aml *a, void *opaque)
{
	(void)opaque;
	aml_begin_device(a, "SUB0");
}

static void close_too_much(struct aml *a, void *opaque)
{
	(void)opaque;
	aml_end(a);
}

static void test_bad_nodes(void **state)
{
	struct machine *m = *state;
	struct acpi_node good = m->sample.nodes[0];

	m->sample.nodes[0].build = open_too_much;
	rebuild(m, -EINVAL);
	m->sample.nodes[0].build = close_too_much;
	rebuild(m, -EINVAL);
	m->sample.nodes[0] = good;
	m->sample.nodes[0].name = "TOOLONG";
	rebuild(m, -EINVAL);
	m->sample.nodes[0].name = m->sample.nodes[1].name;
	rebuild(m, -EEXIST);
	m->sample.nodes[0].name = "MBRD";
	rebuild(m, -EEXIST);
	m->sample.nodes[0].name = "C001";
	rebuild(m, 0); /* inside PCI0 it meets no processor */
	m->sample.nodes[0].scope = ACPI_SCOPE_SB;
	rebuild(m, -EEXIST);
	m->sample.nodes[0].name = "C002";
	rebuild(m, 0);
	m->sample.nodes[0].name = "PCI0";
	rebuild(m, -EEXIST);
}

static void test_bad_config(void **state)
{
	struct machine *m = *state;
	struct acpi_config *c = &m->sample.config;
	const struct acpi_config good = *c;

#define REFUSE(change)                                                                                                 \
	do {                                                                                                           \
		*c = good;                                                                                             \
		change;                                                                                                \
		rebuild(m, -EINVAL);                                                                                   \
	} while (0)
	REFUSE(c->cpu_count = 0);
	REFUSE(c->cpu_count = ACPI_MAX_CPUS + 1);
	REFUSE(c->ecam_base = 0xF8000000);
	REFUSE(c->ecam_base = 0xE0080000);
	REFUSE(c->mmio32.size = 0);
	REFUSE(c->mmio32.size = 0x60000001);
	REFUSE(c->mmio32.size = 0x80000001);
	REFUSE(c->mmio64.base = UINT64_MAX);
	REFUSE(c->mmio64.base = 0x90000000);
	REFUSE(c->gpe0_len = 3);
	REFUSE(c->pm_base = 0);
	REFUSE(c->pm_base = 0xFFF0);
	REFUSE(c->sci_irq = 16);
#undef REFUSE
	*c = good;
	rebuild(m, 0);
}

/* Each allocation of a build fails once; the build says so and holds nothing. */
static void test_build_without_memory(void **state)
{
	struct machine *m = *state;
	int successes = 0;

	acpi_sample_init(&m->sample, SAMPLE_MAX_CPUS);
	for (int n = 0; !successes; n++) {
		int ret;

		acpi_free(&m->tables);
		alloc_fail_after(n);
		ret = acpi_build(&m->tables, &m->sample.config);
		alloc_fail_after(-1);
		if (ret) {
			assert_int_equal(ret, -ENOMEM);
			assert_null(m->tables.files[ACPI_FILE_TABLES].data.bytes);
			assert_null(m->tables.files[ACPI_FILE_RSDP].data.bytes);
		} else {
			assert_true(n > 2);
			successes++;
		}
	}
}

#define MACHINE_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		MACHINE_TEST(test_place_twice),	  MACHINE_TEST(test_place_refused),
		MACHINE_TEST(test_fixups_inside), MACHINE_TEST(test_fadt),
		MACHINE_TEST(test_fadt_choices),  MACHINE_TEST(test_madt),
		MACHINE_TEST(test_madt_intx),	  MACHINE_TEST(test_madt_x2apic),
		MACHINE_TEST(test_small_tables),  MACHINE_TEST(test_no_spcr),
		MACHINE_TEST(test_dsdt_choices),  MACHINE_TEST(test_bad_nodes),
		MACHINE_TEST(test_bad_config),	  MACHINE_TEST(test_build_without_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
