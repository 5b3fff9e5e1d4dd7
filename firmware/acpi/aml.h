/* SPDX-License-Identifier: MIT */
#ifndef FIRMWARE_ACPI_AML_H
#define FIRMWARE_ACPI_AML_H

/*
 * A writer of ACPI Machine Language (ACPI 6.4, chapter 20).
 *
 * AML is prefix code: an operator is followed by its operands. A caller
 * therefore writes terms in the order in which ASL shows them:
 *
 *	aml_begin_device(a, "RTC");
 *	aml_name(a, "_HID");
 *	aml_eisa_id(a, "PNP0B00");
 *	aml_name(a, "_CRS");
 *	aml_begin_resources(a);
 *	aml_res_io(a, 0x70, 2);
 *	aml_res_irq_no_flags(a, 8);
 *	aml_end(a);
 *	aml_end(a);
 *
 * Every aml_begin_*() is closed by one aml_end(), which puts the length (and
 * the element count or byte size) in front of what was written since.
 *
 * Nothing returns an error. The first one is latched in the buffer (-ENOMEM,
 * -EFBIG, or -EINVAL for misuse such as a bad name, a term where only data may
 * stand, or an end too many) and aml_finish() reports it.
 *
 * A path is "NAME", "\\_SB.PCI0", "^NAME" and so on; segments have one to four
 * characters of A-Z, 0-9 and _, and are padded with _.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "firmware/acpi/buf.h"

#define AML_MAX_DEPTH 16

struct aml {
	struct acpi_buf *out; /* borrowed */
	unsigned int depth;
	struct aml_block {
		size_t start; /* of the block's content in out */
		uint8_t kind;
		uint8_t count; /* elements of a package */
	} open[AML_MAX_DEPTH];
};

/* Operators; the operands follow as terms of their own. */
enum aml_op {
	AML_STORE = 0x70,	       /* source, target */
	AML_AND = 0x7B,		       /* a, b, target */
	AML_OR = 0x7D,		       /* a, b, target */
	AML_NOTIFY = 0x86,	       /* object, value */
	AML_CREATE_DWORD_FIELD = 0x8A, /* buffer, byte index, name */
	AML_LNOT = 0x92,	       /* a; before LEQUAL it makes LNotEqual */
	AML_LEQUAL = 0x93,	       /* a, b */
	AML_LGREATER = 0x94,	       /* a, b */
	AML_LLESS = 0x95,	       /* a, b */
	AML_RETURN = 0xA4,	       /* value */
};

enum aml_space {
	AML_SYSTEM_MEMORY = 0,
	AML_SYSTEM_IO = 1,
};

/* Access widths of a field (FieldFlags, 20.2.5.2). */
enum aml_access {
	AML_ACCESS_BYTE = 1,
	AML_ACCESS_WORD = 2,
	AML_ACCESS_DWORD = 3,
};

/* Interrupt attributes; 0 is level, active high, exclusive. */
enum aml_irq {
	AML_IRQ_EDGE = 1 << 0,
	AML_IRQ_LOW = 1 << 1,
	AML_IRQ_SHARED = 1 << 2,
};

/* Starts writing at the end of out. */
void aml_init(struct aml *a, struct acpi_buf *out);

/* Returns 0, the latched error, or -EINVAL if a block is still open. */
int aml_finish(struct aml *a);

/*
 * Blocks that hold terms. A method is always Serialized: ACPICA parses the whole
 * body of any other one when it loads the table, to see whether it should be.
 */
void aml_begin_scope(struct aml *a, const char *path);
void aml_begin_device(struct aml *a, const char *path);
void aml_begin_method(struct aml *a, const char *path, unsigned int argc);
void aml_begin_if(struct aml *a); /* the predicate comes first */
void aml_begin_else(struct aml *a);

/* Blocks that hold data: package elements (at most 255), resources, field units. */
void aml_begin_package(struct aml *a);
void aml_begin_resources(struct aml *a);
void aml_begin_field(struct aml *a, const char *region, enum aml_access access);

void aml_end(struct aml *a);

/* Named data: Name(path, ...); the value is the term that follows. */
void aml_name(struct aml *a, const char *path);
void aml_name_integer(struct aml *a, const char *path, uint64_t value);

/* OperationRegion (path, space, offset, length). */
void aml_operation_region(struct aml *a, const char *path, enum aml_space space, uint64_t offset, uint64_t length);

/* A unit of the open field: a name of one segment, or NULL for a gap. */
void aml_field_unit(struct aml *a, const char *name, uint32_t bits);

/* Terms and data. */
void aml_op(struct aml *a, enum aml_op op);
void aml_path(struct aml *a, const char *path); /* reference, new name or method call */
void aml_arg(struct aml *a, unsigned int n);	/* 0..6 */
void aml_local(struct aml *a, unsigned int n);	/* 0..7 */
void aml_integer(struct aml *a, uint64_t value);
void aml_string(struct aml *a, const char *ascii);
void aml_eisa_id(struct aml *a, const char *id); /* "PNP0A08": 3 letters, 4 hex digits */
void aml_buffer(struct aml *a, const void *bytes, size_t len);

/*
 * Resource descriptors (section 6.4) for an open resource block. Ports, buses
 * and addresses are fixed: minimum and maximum are the range itself. A range
 * that is empty or passes the end of its space is misuse.
 */
void aml_res_io(struct aml *a, uint16_t port, uint8_t len);
void aml_res_irq(struct aml *a, unsigned int irq, unsigned int flags); /* 0..15, enum aml_irq */
void aml_res_irq_no_flags(struct aml *a, unsigned int irq);	       /* edge, high, exclusive */
void aml_res_interrupt(struct aml *a, uint32_t gsi, unsigned int flags);
void aml_res_memory32_fixed(struct aml *a, uint32_t base, uint32_t size);

/* Windows a bridge produces. */
void aml_res_word_bus(struct aml *a, uint16_t first, uint16_t last);
void aml_res_word_io(struct aml *a, uint16_t first, uint16_t last);
void aml_res_dword_memory(struct aml *a, uint64_t base, uint64_t size);
void aml_res_qword_memory(struct aml *a, uint64_t base, uint64_t size);

#endif
