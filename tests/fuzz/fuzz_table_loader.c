/* SPDX-License-Identifier: MIT */
/*
 * What a guest decides before it loads the ACPI tables: where BARs and ECAM are. Whatever that is, the windows fit in
 * with each other, the tables can be built, and a firmware can run the script that places them.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "devices/pci/pci.h"
#include "firmware/bootorder.h"
#include "tests/unit/loader_interpreter.h"

#define GIB   (1ULL << 30)
#define LIMIT (1ULL << 40)
#define CPUS  3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

uint32_t pci_config_get(const struct pci_function *fn, unsigned int reg, unsigned int size)
{
	return (uint32_t)loader_load(fn->config + reg, size);
}

static int intx_gsi(unsigned int device, unsigned int pin)
{
	return (int)pci_intx_gsi(device, pin);
}

/* Nine bytes each: slot, and where a BAR of what size is; the first of all is ECAM. */
static void program(struct pci_bus *bus, struct pci_function *functions, const uint8_t *data, size_t size)
{
	bus->ecam_mapped =
		data[0] & 1 ? PCI_UNMAPPED : loader_load(data + 1, 8) % (1ULL << 42) & ~(uint64_t)(PCI_ECAM_ALIGN - 1);
	for (size_t at = 9, n = 0; at + 9 <= size && n < 8; at += 9, n++) {
		struct pci_function *fn = &functions[n];
		unsigned int shift = data[at] % 40;
		uint64_t length = 16ULL << shift;

		fn->bars[0] = (struct pci_bar){
			.fn = fn,
			.size = length,
			.flags = data[at] & 0x80 ? PCI_BAR_IO : PCI_BAR_MEM64,
			.mapped = data[at] & 0x40 ? PCI_UNMAPPED : loader_load(data + at + 1, 8) / length * length,
		};
		memcpy(fn->config, data + at, 9);
		memcpy(fn->config + PCI_CLASS, data[at] & 1 ? "\x02\x08\x01" : "\0\0\x01", 3);
		bus->functions[data[at + 1]] = fn;
	}
}

static void load_tables(const struct pci_windows *w)
{
	static const uint32_t apic_ids[CPUS] = { 0, 1, 2 };
	const struct acpi_config config = {
		.apic_ids = apic_ids,
		.cpu_count = CPUS,
		.ioapic_addr = 0xfec00000,
		.pm_base = 0x600,
		.sci_irq = 9,
		.reset_port = 0xcf9,
		.reset_value = 6,
		.intx_gsi = intx_gsi,
		.ecam_base = w->ecam,
		.mmio32 = { w->mmio32.base, w->mmio32.size },
		.mmio64 = { w->mmio64.base, w->mmio64.size },
		.has_rtc = true,
	};
	struct acpi_tables tables;
	struct acpi_buf script = { 0 };

	assert(!acpi_build(&tables, &config));
	table_loader_build(&script, &tables);
	struct loader_file files[2] = {
		{ TABLE_LOADER_RSDP, &tables.files[ACPI_FILE_RSDP].data, NULL, 0xf0010, 0, 0 },
		{ TABLE_LOADER_TABLES, &tables.files[ACPI_FILE_TABLES].data, NULL, 0x7fee1000, 0, 0 },
	};
	assert(loader_run(&script, files, 2));
	free(files[0].memory);
	free(files[1].memory);
	acpi_buf_free(&script);
	acpi_free(&tables);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct pci_function functions[8];
	static struct pci_bus bus;
	const struct pci_window room = { 0x80000000, 0x7c000000 };
	struct pci_windows w;
	char text[100];

	if (size < 9)
		return 0;
	memset(functions, 0, sizeof(functions));
	memset(&bus, 0, sizeof(bus));
	pthread_mutex_init(&bus.lock, NULL);
	bus.windows.mmio64 = (struct pci_window){ 8 * GIB, 64 * GIB };
	program(&bus, functions, data, size);
	pci_find_windows(&bus, &room, LIMIT, 0xe0000000, &w);
	assert(w.ecam < 4 * GIB);
	assert(w.mmio32.base >= room.base && w.mmio32.base + w.mmio32.size <= room.base + room.size);
	assert(w.mmio32.base + w.mmio32.size <= w.ecam || w.mmio32.base >= w.ecam + PCI_ECAM_ALIGN);
	assert(w.mmio64.base >= 4 * GIB && w.mmio64.size <= LIMIT - w.mmio64.base);
	load_tables(&w);
	assert(bootorder_build(&bus, text, sizeof(text)) == strlen(text));
	pthread_mutex_destroy(&bus.lock);
	return 0;
}
