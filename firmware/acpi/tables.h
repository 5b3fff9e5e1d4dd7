/* SPDX-License-Identifier: MIT */
#ifndef FIRMWARE_ACPI_TABLES_H
#define FIRMWARE_ACPI_TABLES_H

/*
 * The ACPI tables of the machine, as data with fix-ups.
 *
 * acpi_build() turns a description of the machine into two files, the RSDP and
 * everything else, which know no address: a pointer field holds the offset of
 * its target in the target's file, a checksum byte holds zero, and lists say
 * where both are. That is what a firmware's table loader takes ("etc/acpi/rsdp"
 * and "etc/acpi/tables" and a script of ALLOCATE, ADD_POINTER and ADD_CHECKSUM);
 * acpi_place() does the same work for a direct boot.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "firmware/acpi/aml.h"

/* Register layout of the power management block from its first port on (ICH9's). */
#define ACPI_PM1_EVENT	  0x00 /* PM1_STS, PM1_EN: 2 + 2 bytes */
#define ACPI_PM1_CONTROL  0x04 /* PM1_CNT: 2 bytes */
#define ACPI_PM_TIMER	  0x08 /* 32 bits at 3.579545 MHz */
#define ACPI_PM_GPE0	  0x20 /* GPE0_STS, GPE0_EN: half of gpe0_len each */
#define ACPI_PM_BLOCK_LEN 0x0C /* without GPE0 */

/* The value of SLP_TYPx that means S5, power off. */
#define ACPI_SLEEP_TYPE_S5 0

enum acpi_scope {
	ACPI_SCOPE_SB,	/* \_SB: VMBus, processors, what is on no bus */
	ACPI_SCOPE_PCI, /* \_SB.PCI0: whatever decodes ports or addresses of its windows */
};

/*
 * What a device has to say: the body of Device (name), written by build().
 * build() closes every block it opens; its errors are latched in the writer.
 */
struct acpi_node {
	const char *name; /* one segment, unique in its scope, e.g. "COM1" */
	enum acpi_scope scope;
	void (*build)(struct aml *a, void *opaque);
	void *opaque;
};

struct acpi_range {
	uint64_t base;
	uint64_t size; /* 0: there is none */
};

/* All pointers are borrowed for the time of acpi_build(). */
struct acpi_config {
	const uint32_t *apic_ids; /* of each CPU; its index is the processor UID */
	unsigned int cpu_count;	  /* 1..ACPI_MAX_CPUS */

	uint8_t ioapic_id;
	uint32_t ioapic_addr; /* its first GSI is 0 */

	uint16_t pm_base; /* first port of the block above */
	uint8_t gpe0_len; /* bytes, even; 0: no GPE block */
	uint8_t sci_irq;  /* level, active high */
	uint16_t reset_port;
	uint8_t reset_value;

	uint64_t ecam_base;	  /* of bus 0, 1 MiB a bus; ends below 4 GiB */
	uint8_t last_bus;	  /* buses 0..last_bus are behind the root */
	struct acpi_range mmio32; /* below 4 GiB, for BARs */
	struct acpi_range mmio64;
	/*
	 * GSI of pin (0..3 for INTA..INTD) of a device (0..31) of bus 0, negative
	 * for a pin that never interrupts; NULL: no INTx at all. An OS parses all
	 * entries for each device it enables, so the fewer the better.
	 */
	int (*intx_gsi)(unsigned int device, unsigned int pin);

	uint16_t serial_port; /* a 16550 for an OS's emergency console (SPCR), 115200 8N1; 0: none is named */
	uint8_t serial_gsi;

	bool has_8042;
	bool has_rtc;		 /* CMOS RTC at port 0x70, century in byte 0x32 */
	bool has_vga;		 /* an OS may write to 0xA0000 or the VGA ports */
	bool has_legacy_devices; /* user-visible devices on the LPC bus, such as a UART */
	bool has_pic;		 /* two 8259A, to be masked by the OS */
	bool has_pit;		 /* 8254 on IRQ 0, wired to GSI 2 */

	const struct acpi_node *nodes;
	size_t node_count;
};

#define ACPI_MAX_CPUS 4096 /* C000..CFFF in the namespace */

enum acpi_file_id {
	ACPI_FILE_RSDP,	  /* "etc/acpi/rsdp"; may have to be found by a scan */
	ACPI_FILE_TABLES, /* "etc/acpi/tables" */
	ACPI_FILE_COUNT,
};

/* Alignment each file needs in guest memory. */
#define ACPI_RSDP_ALIGN	  16
#define ACPI_TABLES_ALIGN 64 /* FACS */

/* The size bytes at offset hold a little-endian offset into target: add target's address. */
struct acpi_pointer {
	uint32_t offset;
	uint8_t size; /* 4 or 8 */
	enum acpi_file_id target;
};

/* The byte at offset makes the len bytes from start on sum to zero. */
struct acpi_checksum {
	uint32_t offset;
	uint32_t start;
	uint32_t len;
};

#define ACPI_MAX_FIXUPS 24

/* Checksums are computed after the pointers of all files, in list order. */
struct acpi_file {
	struct acpi_buf data;
	struct acpi_pointer pointers[ACPI_MAX_FIXUPS];
	unsigned int pointer_count;
	struct acpi_checksum checksums[ACPI_MAX_FIXUPS];
	unsigned int checksum_count;
};

struct acpi_tables {
	struct acpi_file files[ACPI_FILE_COUNT];
};

/*
 * Builds all tables into t (need not be initialised). Returns 0, -ENOMEM,
 * -EEXIST for two nodes of one name in one scope, or -EINVAL for a description
 * that contradicts itself or a node that misuses the AML writer. On failure
 * t is empty.
 */
int acpi_build(struct acpi_tables *t, const struct acpi_config *config);

/* Where a file goes: its guest-physical address and the memory behind it. */
struct acpi_place {
	uint64_t gpa; /* aligned to ACPI_*_ALIGN */
	uint8_t *host;
	size_t size; /* of the memory at host */
};

/*
 * Copies each file to where[its id] (ACPI_FILE_COUNT places) and fixes it up there; t does not change,
 * so it can be placed again. Returns 0, -EINVAL for a misaligned address,
 * -ENOSPC if a file does not fit its place, or -ERANGE if an address does not
 * fit a pointer field (the tables must end below 4 GiB). Nothing is written
 * on failure.
 */
int acpi_place(const struct acpi_tables *t, const struct acpi_place *where);

void acpi_free(struct acpi_tables *t);

#endif
