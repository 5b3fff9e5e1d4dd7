/* SPDX-License-Identifier: MIT */
#include "rt/acpi.h"

#include "rt/rt.h"

#define BP_RSDP	 0x70
#define PVH_RSDP 32

uint64_t acpi_rsdp(void)
{
	return rt_boot_params ? *(uint64_t *)(rt_boot_params + BP_RSDP)
			      : *(uint64_t *)((uint64_t)rt_pvh_info + PVH_RSDP);
}

uint8_t acpi_sum(const void *data, uint32_t length)
{
	const uint8_t *bytes = data;
	uint8_t sum = 0;

	for (uint32_t i = 0; i < length; i++)
		sum = (uint8_t)(sum + bytes[i]);
	return sum;
}

uint64_t acpi_field(const void *table, uint32_t offset, uint32_t size)
{
	uint64_t value = 0;

	memcpy(&value, (const uint8_t *)table + offset, size);
	return value;
}

void acpi_check(const struct acpi_header *table)
{
	CHECK(table->length >= sizeof(*table));
	CHECK_EQ(acpi_sum(table, table->length), 0);
}

const struct acpi_header *acpi_xsdt(void)
{
	const void *rsdp = (const void *)acpi_rsdp();
	const struct acpi_header *xsdt;

	CHECK(rsdp);
	CHECK(!memcmp(rsdp, "RSD PTR ", 8));
	CHECK_EQ(acpi_sum(rsdp, 20), 0);
	CHECK_EQ(acpi_sum(rsdp, 36), 0);
	CHECK_EQ(acpi_field(rsdp, 15, 1), 2);
	CHECK_EQ(acpi_field(rsdp, 20, 4), 36);
	xsdt = (const struct acpi_header *)acpi_field(rsdp, 24, 8);
	CHECK(!memcmp(xsdt->signature, "XSDT", 4));
	acpi_check(xsdt);
	return xsdt;
}

const struct acpi_header *acpi_find(const char *signature)
{
	const struct acpi_header *xsdt = acpi_xsdt();

	for (uint32_t at = sizeof(*xsdt); at + 8 <= xsdt->length; at += 8) {
		const struct acpi_header *table = (const struct acpi_header *)acpi_field(xsdt, at, 8);

		if (memcmp(table->signature, signature, 4) != 0)
			continue;
		acpi_check(table);
		return table;
	}
	return NULL;
}
