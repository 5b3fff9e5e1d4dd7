/* SPDX-License-Identifier: MIT */
/* Resource descriptors: ACPI 6.4, section 6.4. */
#include "firmware/acpi/aml_internal.h"

enum {
	SMALL_IRQ = 0x22, /* plus one with a flags byte: 6.4.2.1 */
	SMALL_IO = 0x47,  /* 6.4.2.5 */
	LARGE_MEMORY32_FIXED = 0x86,
	LARGE_DWORD = 0x87,
	LARGE_WORD = 0x88,
	LARGE_INTERRUPT = 0x89,
	LARGE_QWORD = 0x8A,
};

/* Resource types and type flags of address space descriptors (6.4.3.5). */
enum {
	SPACE_MEMORY = 0,
	SPACE_IO = 1,
	SPACE_BUS = 2,
	MEMORY_READ_WRITE = 1 << 0, /* not cacheable, AddressRangeMemory */
	IO_ENTIRE_RANGE = 3,
	WINDOW_FLAGS = 1 << 2 | 1 << 3, /* produced, minimum and maximum fixed */
};

/* Whether a descriptor may be written here; valid says that its values may. */
static bool begin_resource(struct aml *a, bool valid)
{
	if (!valid || aml_innermost(a) != AML_KIND_RESOURCES)
		aml_misuse(a);
	return !a->out->error;
}

void aml_res_io(struct aml *a, uint16_t port, uint8_t len)
{
	if (!begin_resource(a, len && port + len - 1 <= UINT16_MAX))
		return;
	acpi_buf_put8(a->out, SMALL_IO);
	acpi_buf_put8(a->out, 1); /* decodes 16 address bits */
	acpi_buf_put16(a->out, port);
	acpi_buf_put16(a->out, port);
	acpi_buf_put8(a->out, 1); /* alignment */
	acpi_buf_put8(a->out, len);
}

void aml_res_irq_no_flags(struct aml *a, unsigned int irq)
{
	if (!begin_resource(a, irq < 16))
		return;
	acpi_buf_put8(a->out, SMALL_IRQ);
	acpi_buf_put16(a->out, (uint16_t)(1u << irq));
}

void aml_res_irq(struct aml *a, unsigned int irq, unsigned int flags)
{
	if (!begin_resource(a, irq < 16))
		return;
	acpi_buf_put8(a->out, SMALL_IRQ + 1);
	acpi_buf_put16(a->out, (uint16_t)(1u << irq));
	acpi_buf_put8(a->out, (uint8_t)((flags & AML_IRQ_EDGE ? 1 << 0 : 0) | (flags & AML_IRQ_LOW ? 1 << 3 : 0) |
					(flags & AML_IRQ_SHARED ? 1 << 4 : 0)));
}

void aml_res_interrupt(struct aml *a, uint32_t gsi, unsigned int flags)
{
	if (!begin_resource(a, true))
		return;
	acpi_buf_put8(a->out, LARGE_INTERRUPT);
	acpi_buf_put16(a->out, 6);
	acpi_buf_put8(a->out, (uint8_t)(1 << 0 /* consumer */ | (flags & AML_IRQ_EDGE ? 1 << 1 : 0) |
					(flags & AML_IRQ_LOW ? 1 << 2 : 0) | (flags & AML_IRQ_SHARED ? 1 << 3 : 0)));
	acpi_buf_put8(a->out, 1); /* one interrupt */
	acpi_buf_put32(a->out, gsi);
}

void aml_res_memory32_fixed(struct aml *a, uint32_t base, uint32_t size)
{
	if (!begin_resource(a, size && size - 1 <= UINT32_MAX - base))
		return;
	acpi_buf_put8(a->out, LARGE_MEMORY32_FIXED);
	acpi_buf_put16(a->out, 9);
	acpi_buf_put8(a->out, 1); /* read-write */
	acpi_buf_put32(a->out, base);
	acpi_buf_put32(a->out, size);
}

/* Granularity, minimum, maximum, translation and length, each of width bytes. */
static void put_window(struct aml *a, unsigned int type, unsigned int type_flags, uint64_t first, uint64_t last,
		       size_t width)
{
	const uint64_t fields[] = { 0, first, last, 0, last - first + 1 };

	acpi_buf_put8(a->out, (uint8_t)(width == 2 ? LARGE_WORD : width == 4 ? LARGE_DWORD : LARGE_QWORD));
	acpi_buf_put16(a->out, (uint16_t)(3 + 5 * width));
	acpi_buf_put8(a->out, (uint8_t)type);
	acpi_buf_put8(a->out, WINDOW_FLAGS);
	acpi_buf_put8(a->out, (uint8_t)type_flags);
	for (size_t i = 0; i < 5; i++) {
		acpi_buf_zero(a->out, width);
		acpi_buf_set(a->out, a->out->len - width, fields[i], width);
	}
}

/* A 16-bit length can't hold 0x10000, so the full space is misuse. */
static void put_word_window(struct aml *a, unsigned int type, unsigned int type_flags, uint16_t first, uint16_t last)
{
	if (begin_resource(a, first <= last && last - first < UINT16_MAX))
		put_window(a, type, type_flags, first, last, 2);
}

void aml_res_word_bus(struct aml *a, uint16_t first, uint16_t last)
{
	put_word_window(a, SPACE_BUS, 0, first, last);
}

void aml_res_word_io(struct aml *a, uint16_t first, uint16_t last)
{
	put_word_window(a, SPACE_IO, IO_ENTIRE_RANGE, first, last);
}

static void put_memory_window(struct aml *a, uint64_t base, uint64_t size, uint64_t limit, size_t width)
{
	if (begin_resource(a, size && size <= limit && base <= limit && size - 1 <= limit - base))
		put_window(a, SPACE_MEMORY, MEMORY_READ_WRITE, base, base + size - 1, width);
}

void aml_res_dword_memory(struct aml *a, uint64_t base, uint64_t size)
{
	put_memory_window(a, base, size, UINT32_MAX, 4);
}

void aml_res_qword_memory(struct aml *a, uint64_t base, uint64_t size)
{
	put_memory_window(a, base, size, UINT64_MAX, 8);
}
