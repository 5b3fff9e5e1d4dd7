/* SPDX-License-Identifier: MIT */
#include "firmware/acpi/buf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 4096

void acpi_buf_fail(struct acpi_buf *b, int error)
{
	if (!b->error)
		b->error = error;
}

/* Makes room for len more bytes; the new bytes are not initialised. */
static uint8_t *extend(struct acpi_buf *b, size_t len)
{
	if (b->error)
		return NULL;
	if (len > ACPI_BUF_MAX - b->len) {
		acpi_buf_fail(b, -EFBIG);
		return NULL;
	}
	if (len > b->cap - b->len) {
		size_t cap = b->cap ? b->cap : FIRST_CAPACITY;
		uint8_t *bytes;

		while (cap < b->len + len)
			cap *= 2;
		bytes = realloc(b->bytes, cap);
		if (!bytes) {
			acpi_buf_fail(b, -ENOMEM);
			return NULL;
		}
		b->bytes = bytes;
		b->cap = cap;
	}
	b->len += len;
	return b->bytes + b->len - len;
}

void acpi_buf_put(struct acpi_buf *b, const void *bytes, size_t len)
{
	uint8_t *to;

	if (!len)
		return;
	to = extend(b, len);
	if (to)
		memcpy(to, bytes, len);
}

static void store_le(uint8_t *to, uint64_t value, size_t size)
{
	for (size_t i = 0; i < size; i++)
		to[i] = (uint8_t)(value >> (8 * i));
}

static void put_le(struct acpi_buf *b, uint64_t value, size_t size)
{
	uint8_t *to = extend(b, size);

	if (to)
		store_le(to, value, size);
}

void acpi_buf_put8(struct acpi_buf *b, uint8_t value)
{
	put_le(b, value, 1);
}

void acpi_buf_put16(struct acpi_buf *b, uint16_t value)
{
	put_le(b, value, 2);
}

void acpi_buf_put32(struct acpi_buf *b, uint32_t value)
{
	put_le(b, value, 4);
}

void acpi_buf_put64(struct acpi_buf *b, uint64_t value)
{
	put_le(b, value, 8);
}

void acpi_buf_zero(struct acpi_buf *b, size_t len)
{
	uint8_t *to;

	if (!len)
		return;
	to = extend(b, len);
	if (to)
		memset(to, 0, len);
}

void acpi_buf_align(struct acpi_buf *b, size_t align)
{
	acpi_buf_zero(b, (align - b->len % align) % align);
}

void acpi_buf_insert(struct acpi_buf *b, size_t at, const void *bytes, size_t len)
{
	size_t tail;

	if (at > b->len) {
		acpi_buf_fail(b, -EINVAL);
		return;
	}
	tail = b->len - at;
	if (!len || !extend(b, len))
		return;
	memmove(b->bytes + at + len, b->bytes + at, tail);
	memcpy(b->bytes + at, bytes, len);
}

void acpi_buf_set(struct acpi_buf *b, size_t at, uint64_t value, size_t size)
{
	if (b->error)
		return;
	if (size > 8 || at > b->len || size > b->len - at) {
		acpi_buf_fail(b, -EINVAL);
		return;
	}
	store_le(b->bytes + at, value, size);
}

void acpi_buf_free(struct acpi_buf *b)
{
	free(b->bytes);
	*b = (struct acpi_buf){ 0 };
}
