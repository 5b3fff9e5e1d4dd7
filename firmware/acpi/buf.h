/* SPDX-License-Identifier: MIT */
#ifndef FIRMWARE_ACPI_BUF_H
#define FIRMWARE_ACPI_BUF_H

#include <stddef.h>
#include <stdint.h>

/*
 * A growable little-endian byte buffer with an error latch: the first failure
 * is kept in error, every later call does nothing, and whoever finishes the
 * buffer looks once. Zero-initialise it; free it with acpi_buf_free().
 */
struct acpi_buf {
	uint8_t *bytes;
	size_t len;
	size_t cap;
	int error; /* 0 or a negative errno */
};

/* Far above any sane table; keeps every offset and AML length in 28 bits. */
#define ACPI_BUF_MAX (16u << 20)

/* Latches error (a negative errno) unless an earlier one is there. */
void acpi_buf_fail(struct acpi_buf *b, int error);

/* Appends. Latches -ENOMEM, or -EFBIG beyond ACPI_BUF_MAX. */
void acpi_buf_put(struct acpi_buf *b, const void *bytes, size_t len);
void acpi_buf_put8(struct acpi_buf *b, uint8_t value);
void acpi_buf_put16(struct acpi_buf *b, uint16_t value);
void acpi_buf_put32(struct acpi_buf *b, uint32_t value);
void acpi_buf_put64(struct acpi_buf *b, uint64_t value);
void acpi_buf_zero(struct acpi_buf *b, size_t len);

/* Appends zeroes up to the next multiple of align (a power of two). */
void acpi_buf_align(struct acpi_buf *b, size_t align);

/* Opens a gap at offset at (0..len) and fills it; latches -EINVAL outside. */
void acpi_buf_insert(struct acpi_buf *b, size_t at, const void *bytes, size_t len);

/* Overwrites size (1, 2, 4 or 8) bytes at offset at; latches -EINVAL outside. */
void acpi_buf_set(struct acpi_buf *b, size_t at, uint64_t value, size_t size);

void acpi_buf_free(struct acpi_buf *b);

#endif
