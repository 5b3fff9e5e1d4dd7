/* SPDX-License-Identifier: MIT */
/*
 * The script that places the ACPI tables, run as a firmware runs it, against what acpi_place() makes of them; and what
 * goes into the tables of a machine that a firmware has set up: the windows around the BARs, and the order of disks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "devices/pci/pci.h"
#include "firmware/bootorder.h"
#include "tests/unit/acpi_sample.h"
#include "tests/unit/loader_interpreter.h"

#define GIB   (1ULL << 30)
#define LIMIT (1ULL << 40)

uint32_t pci_config_get(const struct pci_function *fn, unsigned int reg, unsigned int size)
{
	return (uint32_t)loader_load(fn->config + reg, size);
}

static void test_script(void **state)
{
	static struct acpi_sample sample;
	static uint8_t rsdp[64], memory[1 << 18];
	struct acpi_place where[ACPI_FILE_COUNT];
	struct acpi_tables tables;
	struct acpi_buf script = { 0 };

	(void)state;
	for (unsigned int cpus = 1; cpus < 300; cpus += 127) {
		acpi_sample_init(&sample, cpus);
		assert_int_equal(acpi_build(&tables, &sample.config), 0);
		struct loader_file files[2] = {
			{ "etc/acpi/rsdp", &tables.files[ACPI_FILE_RSDP].data, NULL, 0xf5a30, 0, 0 },
			{ "etc/acpi/tables", &tables.files[ACPI_FILE_TABLES].data, NULL, 0x7e400000, 0, 0 },
		};

		where[ACPI_FILE_RSDP] = (struct acpi_place){ files[0].address, rsdp, sizeof(rsdp) };
		where[ACPI_FILE_TABLES] = (struct acpi_place){ files[1].address, memory, sizeof(memory) };
		assert_int_equal(acpi_place(&tables, where), 0);
		table_loader_build(&script, &tables);
		assert_true(loader_run(&script, files, 2));
		assert_int_equal(files[0].zone, 2); /* where it is looked for */
		assert_int_equal(files[1].zone, 1);
		assert_memory_equal(files[0].memory, rsdp, files[0].blob->len);
		assert_memory_equal(files[1].memory, memory, files[1].blob->len);
		free(files[0].memory);
		free(files[1].memory);
		acpi_buf_free(&script);
		script = (struct acpi_buf){ 0 };
		acpi_free(&tables);
	}
}

/* A bus, and functions with one BAR each, where a firmware put it. */
struct board {
	struct pci_bus bus;
	struct pci_function functions[4];
	unsigned int count;
};

static struct board *new_board(void)
{
	struct board *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	pthread_mutex_init(&b->bus.lock, NULL);
	b->bus.ecam_mapped = PCI_UNMAPPED;
	b->bus.windows.mmio64 = (struct pci_window){ 8 * GIB, 64 * GIB };
	return b;
}

static struct pci_function *add(struct board *b, unsigned int devfn, uint64_t at, uint64_t size, unsigned int flags)
{
	struct pci_function *fn = &b->functions[b->count++];

	fn->bars[2] = (struct pci_bar){ .fn = fn, .index = 2, .flags = flags, .size = size, .mapped = at };
	b->bus.functions[devfn] = fn;
	return fn;
}

static struct pci_windows find(struct board *b)
{
	const struct pci_window room = { 0x80000000, 0x7c000000 };
	struct pci_windows w;

	pci_find_windows(&b->bus, &room, LIMIT, 0xe0000000, &w);
	assert_true(w.ecam % PCI_ECAM_ALIGN == 0 && w.ecam < 4 * GIB);
	assert_true(w.mmio32.base >= room.base && w.mmio32.base + w.mmio32.size <= room.base + room.size);
	assert_true(w.mmio32.base + w.mmio32.size <= w.ecam || w.mmio32.base >= w.ecam + PCI_ECAM_ALIGN);
	assert_true(w.mmio64.base >= 4 * GIB && w.mmio64.base + w.mmio64.size <= LIMIT);
	return w;
}

static void free_board(struct board *b)
{
	pthread_mutex_destroy(&b->bus.lock);
	free(b);
}

/* Debian 12's OVMF: ECAM at 0xb0000000 and BARs above it. */
static void test_windows_12(void **state)
{
	struct board *b = new_board();
	struct pci_windows w;

	(void)state;
	b->bus.ecam_mapped = 0xb0000000;
	add(b, 8, 0xc0000000, 4096, PCI_BAR_MEM32);
	add(b, 16, 0xe000000000, 1 * GIB, PCI_BAR_MEM64);
	add(b, 24, 0xc000, 32, PCI_BAR_IO);
	w = find(b);
	assert_int_equal(w.ecam, 0xb0000000);
	assert_int_equal(w.mmio32.base, 0xc0000000);
	assert_int_equal(w.mmio32.size, 0x3c000000);
	assert_true(w.mmio64.base <= 8 * GIB || w.mmio64.base == 0xe000000000);
	assert_true(w.mmio64.base + w.mmio64.size >= 0xe000000000 + GIB);
	free_board(b);
}

/* Builds of 2024 and later: ECAM at 0xe0000000 and BARs below it. */
static void test_windows_later(void **state)
{
	struct board *b = new_board();
	struct pci_windows w;

	(void)state;
	b->bus.ecam_mapped = 0xe0000000;
	add(b, 8, 0x80000000, 1 << 20, PCI_BAR_MEM32);
	w = find(b);
	assert_int_equal(w.mmio32.base, 0x80000000);
	assert_int_equal(w.mmio32.size, 0x60000000);
	assert_int_equal(w.mmio64.base, 8 * GIB); /* none there: the usual one */
	assert_int_equal(w.mmio64.size, 64 * GIB);
	free_board(b);
}

/* A guest may put things where no firmware would; the windows still fit in with each other. */
static void test_windows_nonsense(void **state)
{
	static const uint64_t places[] = {
		0,	 1,	  0x7ffff000,	0x80000000, 0xfbfff000,	       0xfffff000,
		4 * GIB, 9 * GIB, LIMIT - 4096, LIMIT,	    UINT64_MAX - 4095, PCI_UNMAPPED
	};
	static const uint64_t ecams[] = { 0, 0x70000000, 0x80000000, 0xf0000000, 4 * GIB, 1ULL << 39, PCI_UNMAPPED };

	(void)state;
	for (unsigned int i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		for (unsigned int j = 0; j < sizeof(ecams) / sizeof(ecams[0]); j++) {
			struct board *b = new_board();

			b->bus.ecam_mapped = ecams[j];
			add(b, 8, places[i], 4096, PCI_BAR_MEM64);
			add(b, 9, places[(i * 5 + 3) % 12], 1ULL << 38, PCI_BAR_MEM64);
			find(b);
			free_board(b);
		}
	}
}

static void identify(struct pci_function *fn, uint16_t vendor, uint16_t device, uint32_t class_code)
{
	memcpy(fn->config + PCI_VENDOR_ID, &vendor, 2);
	memcpy(fn->config + PCI_DEVICE_ID, &device, 2);
	memcpy(fn->config + PCI_CLASS, &class_code, 3);
}

static void test_bootorder(void **state)
{
	struct board *b = new_board();
	char text[BOOTORDER_MAX], little[40];
	size_t length;

	(void)state;
	assert_int_equal(bootorder_build(&b->bus, text, sizeof(text)), 0);
	identify(add(b, PCI_DEVFN(4, 1), 0, 0, 0), 0x1b36, 0x0010, 0x010802);
	identify(add(b, PCI_DEVFN(3, 0), 0, 0, 0), 0x1af4, 0x1042, 0x010000);
	identify(add(b, PCI_DEVFN(31, 0), 0, 0, 0), 0x1af4, 0x1001, 0x010000);
	identify(add(b, PCI_DEVFN(5, 0), 0, 0, 0), 0x1af4, 0x105a, 0x018000);
	length = bootorder_build(&b->bus, text, sizeof(text));
	assert_int_equal(length, strlen(text));
	assert_string_equal(text, "/pci@i0cf8/scsi@3/disk@0,0\n"
				  "/pci@i0cf8/pci8086,5845@4,1/namespace@1,0\n"
				  "/pci@i0cf8/scsi@1f/disk@0,0\n");
	b->bus.functions[PCI_DEVFN(31, 0)]->boots = true;
	b->bus.functions[PCI_DEVFN(5, 0)]->boots = true; /* is no disk */
	bootorder_build(&b->bus, text, sizeof(text));
	assert_string_equal(text, "/pci@i0cf8/scsi@1f/disk@0,0\n"
				  "/pci@i0cf8/scsi@3/disk@0,0\n"
				  "/pci@i0cf8/pci8086,5845@4,1/namespace@1,0\n");
	b->bus.functions[PCI_DEVFN(31, 0)]->boots = false;
	assert_int_equal(bootorder_build(&b->bus, little, sizeof(little)), 27); /* whole lines */
	assert_string_equal(little, "/pci@i0cf8/scsi@3/disk@0,0\n");
	free_board(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_script),	      cmocka_unit_test(test_windows_12),
		cmocka_unit_test(test_windows_later), cmocka_unit_test(test_windows_nonsense),
		cmocka_unit_test(test_bootorder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
