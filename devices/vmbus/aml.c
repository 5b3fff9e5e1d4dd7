/* SPDX-License-Identifier: MIT */
/*
 * A module device (ACPI 6.4, 9.11) that owns the memory for devices on the bus, and in it the bus, after the firmware
 * of Hyper-V's own virtual machines (Microsoft mu_msvm, MsvmPkg/AcpiTables/Dsdt.asl).
 *
 * Linux (drivers/hv/vmbus_drv.c) looks for the ids VMBUS and VMBus, compatible ones included, and for memory in the
 * resources of an ancestor; a device without a _CRS of its own, be it empty, is refused. "VMBus" is no id that ACPI
 * allows for a _HID, but a _CID may be any string (ACPICA turns it into capitals). Windows takes the module for the
 * arbiter of the bus's memory; without it, it looks for such memory on any other bus.
 */
#include "firmware/acpi/aml.h"

#include "arch/x86/x86.h"
#include "devices/vmbus/describe.h"

#define STA_PRESENT 0x0f /* present, enabled, shown, working */
#define STA_ENABLED 0x02

/* A method that sets or clears bits of STAT. */
static void add_state_method(struct aml *a, const char *name, enum aml_op op, uint64_t operand)
{
	aml_begin_method(a, name, 0);
	aml_op(a, op);
	aml_path(a, "STAT");
	aml_integer(a, operand);
	aml_path(a, "STAT");
	aml_end(a);
}

static void add_bus(struct aml *a)
{
	aml_begin_device(a, "VMBS");
	aml_name_integer(a, "STAT", STA_PRESENT);
	aml_name(a, "_HID");
	aml_string(a, "MSFT1000");
	aml_name(a, "_CID");
	aml_string(a, "VMBus");
	aml_name(a, "_DDN");
	aml_string(a, "VMBUS");
	aml_name_integer(a, "_UID", 0);
	aml_name(a, "_CRS");
	aml_begin_resources(a);
	aml_end(a);
	add_state_method(a, "_DIS", AML_AND, STA_PRESENT & ~STA_ENABLED);
	add_state_method(a, "_PS0", AML_OR, STA_PRESENT);
	aml_begin_method(a, "_PS3", 0);
	aml_end(a);
	aml_begin_method(a, "_STA", 0);
	aml_op(a, AML_RETURN);
	aml_path(a, "STAT");
	aml_end(a);
	aml_end(a);
}

void vmbus_build_aml(struct aml *a, void *device)
{
	(void)device;
	aml_name(a, "_HID");
	aml_string(a, "ACPI0004");
	aml_name_integer(a, "_UID", 0);
	aml_name(a, "_CRS");
	aml_begin_resources(a);
	aml_res_dword_memory(a, VMBUS_MMIO_BASE, VMBUS_MMIO_SIZE);
	aml_end(a);
	add_bus(a);
}
