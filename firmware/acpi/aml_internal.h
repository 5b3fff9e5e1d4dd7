/* SPDX-License-Identifier: MIT */
#ifndef FIRMWARE_ACPI_AML_INTERNAL_H
#define FIRMWARE_ACPI_AML_INTERNAL_H

#include "firmware/acpi/aml.h"

/* What may stand in a block. */
enum aml_kind {
	AML_KIND_TERMS,
	AML_KIND_PACKAGE,
	AML_KIND_RESOURCES,
	AML_KIND_FIELD,
};

/* The kind of the innermost open block; the table itself holds terms. */
enum aml_kind aml_innermost(const struct aml *a);

void aml_misuse(struct aml *a);

#endif
