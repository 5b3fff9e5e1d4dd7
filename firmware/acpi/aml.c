/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * A block's length comes before its content and is itself one to four bytes
 * long, so it can't be written until the block ends. aml_begin_*() writes the
 * opcode and notes where the content starts; aml_end() inserts the length
 * there. Blocks close from the inside out, so an insertion only ever moves the
 * tail of the block being closed, and no offset noted further out changes.
 *
 * The stack of open blocks also says what may come next, which turns most
 * mistakes of a caller into a latched -EINVAL instead of a broken table.
 */
#include "firmware/acpi/aml_internal.h"

#include <errno.h>
#include <string.h>

/* Opcodes (ACPI 6.4, 20.3); the rest are in enum aml_op. */
enum {
	OP_ZERO = 0x00,
	OP_ONE = 0x01,
	OP_NAME = 0x08,
	OP_BYTE = 0x0A,
	OP_WORD = 0x0B,
	OP_DWORD = 0x0C,
	OP_STRING = 0x0D,
	OP_QWORD = 0x0E,
	OP_SCOPE = 0x10,
	OP_BUFFER = 0x11,
	OP_PACKAGE = 0x12,
	OP_METHOD = 0x14,
	OP_DUAL_NAME = 0x2E,
	OP_MULTI_NAME = 0x2F,
	OP_EXT = 0x5B,
	OP_LOCAL0 = 0x60,
	OP_ARG0 = 0x68,
	OP_IF = 0xA0,
	OP_ELSE = 0xA1,
	OP_ONES = 0xFF,
	EXT_REGION = 0x80,
	EXT_FIELD = 0x81,
	EXT_DEVICE = 0x82,
	RESOURCE_END_TAG = 0x79,
};

#define METHOD_SERIALIZED 0x08
#define NAME_SEG_LEN	  4

void aml_misuse(struct aml *a)
{
	acpi_buf_fail(a->out, -EINVAL);
}

enum aml_kind aml_innermost(const struct aml *a)
{
	return a->depth ? a->open[a->depth - 1].kind : AML_KIND_TERMS;
}

void aml_init(struct aml *a, struct acpi_buf *out)
{
	*a = (struct aml){ .out = out };
}

int aml_finish(struct aml *a)
{
	if (a->depth)
		aml_misuse(a);
	return a->out->error;
}

/* A term that is code may not stand among data. */
static void begin_code(struct aml *a)
{
	if (aml_innermost(a) != AML_KIND_TERMS)
		aml_misuse(a);
}

/* A data object is an operand of a term, or one more element of a package. */
static void begin_data(struct aml *a)
{
	switch (aml_innermost(a)) {
	case AML_KIND_TERMS:
		break;
	case AML_KIND_PACKAGE:
		if (a->open[a->depth - 1].count == UINT8_MAX)
			aml_misuse(a);
		else
			a->open[a->depth - 1].count++;
		break;
	default:
		aml_misuse(a);
	}
}

static void open_block(struct aml *a, enum aml_kind kind)
{
	if (a->depth == AML_MAX_DEPTH) {
		aml_misuse(a);
		return;
	}
	if (!a->out->error)
		a->open[a->depth++] = (struct aml_block){ .start = a->out->len, .kind = (uint8_t)kind };
}

/*
 * Encodes value as a PkgLength (20.2.4) of size bytes: the top two bits of the
 * first byte count the bytes that follow; a single byte holds six bits, more
 * hold four bits in the first and eight in each other one.
 */
static void encode_length(uint8_t to[4], uint32_t value, size_t size)
{
	if (size == 1) {
		to[0] = (uint8_t)value;
		return;
	}
	to[0] = (uint8_t)((size - 1) << 6 | (value & 0xF));
	for (size_t i = 1; i < size; i++)
		to[i] = (uint8_t)(value >> (8 * i - 4));
}

/* How many bytes a PkgLength needs for value, when it counts own_size bytes of itself. */
static size_t length_size(uint32_t value, bool count_itself)
{
	static const uint32_t limit[] = { 0x3F, 0xFFF, 0xFFFFF, 0xFFFFFFF };
	uint32_t size = 1;

	while (size < 4 && value + (count_itself ? size : 0) > limit[size - 1])
		size++;
	return size;
}

/* Writes the smallest encoding of value; returns its size, at most 9. */
static size_t encode_integer(uint8_t to[9], uint64_t value)
{
	size_t size;

	if (value <= 1 || value == UINT64_MAX) {
		to[0] = value == UINT64_MAX ? OP_ONES : (uint8_t)(value ? OP_ONE : OP_ZERO);
		return 1;
	}
	if (value <= UINT8_MAX) {
		to[0] = OP_BYTE;
		size = 1;
	} else if (value <= UINT16_MAX) {
		to[0] = OP_WORD;
		size = 2;
	} else if (value <= UINT32_MAX) {
		to[0] = OP_DWORD;
		size = 4;
	} else {
		to[0] = OP_QWORD;
		size = 8;
	}
	for (size_t i = 0; i < size; i++)
		to[1 + i] = (uint8_t)(value >> (8 * i));
	return 1 + size;
}

void aml_end(struct aml *a)
{
	struct aml_block *block;
	uint8_t inner[9] = { 0 }, head[4 + sizeof(inner)];
	size_t inner_size = 0, size;
	uint32_t content;

	if (a->out->error)
		return;
	if (!a->depth) {
		aml_misuse(a);
		return;
	}
	block = &a->open[a->depth - 1];
	if (block->kind == AML_KIND_RESOURCES) {
		/* A checksum byte of zero means "not checked" (6.4.2.9). */
		acpi_buf_put8(a->out, RESOURCE_END_TAG);
		acpi_buf_put8(a->out, 0);
		inner_size = encode_integer(inner, a->out->len - block->start);
	} else if (block->kind == AML_KIND_PACKAGE) {
		inner[0] = block->count;
		inner_size = 1;
	}
	/* ACPI_BUF_MAX keeps this far below the 28 bits a PkgLength has. */
	content = (uint32_t)(a->out->len - block->start + inner_size);
	size = length_size(content, true);
	encode_length(head, content + (uint32_t)size, size);
	memcpy(head + size, inner, inner_size);
	acpi_buf_insert(a->out, block->start, head, size + inner_size);
	a->depth--;
}

static bool valid_segment(const char *segment, size_t len)
{
	if (!len || len > NAME_SEG_LEN || (segment[0] >= '0' && segment[0] <= '9'))
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = segment[i];

		if (!((c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'))
			return false;
	}
	return true;
}

static void put_segment(struct aml *a, const char *segment, size_t len)
{
	char padded[NAME_SEG_LEN] = { '_', '_', '_', '_' };

	if (!valid_segment(segment, len)) {
		aml_misuse(a);
		return;
	}
	memcpy(padded, segment, len);
	acpi_buf_put(a->out, padded, sizeof(padded));
}

/* NameString (20.2.2). */
static void put_path(struct aml *a, const char *path)
{
	size_t segments = 1;

	if (*path == '\\')
		acpi_buf_put8(a->out, (uint8_t)*path++);
	else
		while (*path == '^')
			acpi_buf_put8(a->out, (uint8_t)*path++);
	for (const char *dot = strchr(path, '.'); dot; dot = strchr(dot + 1, '.'))
		segments++;
	if (segments > UINT8_MAX) {
		aml_misuse(a);
		return;
	}
	if (segments == 2) {
		acpi_buf_put8(a->out, OP_DUAL_NAME);
	} else if (segments > 2) {
		acpi_buf_put8(a->out, OP_MULTI_NAME);
		acpi_buf_put8(a->out, (uint8_t)segments);
	}
	for (; segments; segments--) {
		size_t len = strcspn(path, ".");

		put_segment(a, path, len);
		path += len + (segments > 1);
	}
}

void aml_begin_scope(struct aml *a, const char *path)
{
	begin_code(a);
	acpi_buf_put8(a->out, OP_SCOPE);
	open_block(a, AML_KIND_TERMS);
	put_path(a, path);
}

void aml_begin_device(struct aml *a, const char *path)
{
	begin_code(a);
	acpi_buf_put8(a->out, OP_EXT);
	acpi_buf_put8(a->out, EXT_DEVICE);
	open_block(a, AML_KIND_TERMS);
	put_path(a, path);
}

void aml_begin_method(struct aml *a, const char *path, unsigned int argc)
{
	begin_code(a);
	if (argc > 7)
		aml_misuse(a);
	acpi_buf_put8(a->out, OP_METHOD);
	open_block(a, AML_KIND_TERMS);
	put_path(a, path);
	acpi_buf_put8(a->out, (uint8_t)(argc | METHOD_SERIALIZED));
}

void aml_begin_if(struct aml *a)
{
	begin_code(a);
	acpi_buf_put8(a->out, OP_IF);
	open_block(a, AML_KIND_TERMS);
}

void aml_begin_else(struct aml *a)
{
	begin_code(a);
	acpi_buf_put8(a->out, OP_ELSE);
	open_block(a, AML_KIND_TERMS);
}

void aml_begin_package(struct aml *a)
{
	begin_data(a);
	acpi_buf_put8(a->out, OP_PACKAGE);
	open_block(a, AML_KIND_PACKAGE);
}

void aml_begin_resources(struct aml *a)
{
	begin_data(a);
	acpi_buf_put8(a->out, OP_BUFFER);
	open_block(a, AML_KIND_RESOURCES);
}

void aml_begin_field(struct aml *a, const char *region, enum aml_access access)
{
	begin_code(a);
	acpi_buf_put8(a->out, OP_EXT);
	acpi_buf_put8(a->out, EXT_FIELD);
	open_block(a, AML_KIND_FIELD);
	put_path(a, region);
	acpi_buf_put8(a->out, (uint8_t)access); /* no lock, preserve */
}

void aml_field_unit(struct aml *a, const char *name, uint32_t bits)
{
	uint8_t length[4];
	size_t size;

	if (aml_innermost(a) != AML_KIND_FIELD || !bits || bits > 0xFFFFFFF) {
		aml_misuse(a);
		return;
	}
	if (name)
		put_segment(a, name, strlen(name));
	else
		acpi_buf_put8(a->out, 0);
	size = length_size(bits, false);
	encode_length(length, bits, size);
	acpi_buf_put(a->out, length, size);
}

void aml_name(struct aml *a, const char *path)
{
	begin_code(a);
	acpi_buf_put8(a->out, OP_NAME);
	put_path(a, path);
}

void aml_name_integer(struct aml *a, const char *path, uint64_t value)
{
	aml_name(a, path);
	aml_integer(a, value);
}

void aml_operation_region(struct aml *a, const char *path, enum aml_space space, uint64_t offset, uint64_t length)
{
	begin_code(a);
	acpi_buf_put8(a->out, OP_EXT);
	acpi_buf_put8(a->out, EXT_REGION);
	put_path(a, path);
	acpi_buf_put8(a->out, (uint8_t)space);
	aml_integer(a, offset);
	aml_integer(a, length);
}

void aml_op(struct aml *a, enum aml_op op)
{
	begin_code(a);
	acpi_buf_put8(a->out, (uint8_t)op);
}

void aml_path(struct aml *a, const char *path)
{
	begin_data(a);
	put_path(a, path);
}

void aml_arg(struct aml *a, unsigned int n)
{
	begin_code(a);
	if (n > 6)
		aml_misuse(a);
	acpi_buf_put8(a->out, (uint8_t)(OP_ARG0 + n));
}

void aml_local(struct aml *a, unsigned int n)
{
	begin_code(a);
	if (n > 7)
		aml_misuse(a);
	acpi_buf_put8(a->out, (uint8_t)(OP_LOCAL0 + n));
}

void aml_integer(struct aml *a, uint64_t value)
{
	uint8_t code[9];

	begin_data(a);
	acpi_buf_put(a->out, code, encode_integer(code, value));
}

void aml_string(struct aml *a, const char *ascii)
{
	begin_data(a);
	for (const char *c = ascii; *c; c++)
		if ((unsigned char)*c > 0x7F)
			aml_misuse(a);
	acpi_buf_put8(a->out, OP_STRING);
	acpi_buf_put(a->out, ascii, strlen(ascii) + 1);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/*
 * Three letters of five bits and a 16-bit number, packed big-endian
 * (6.1.5, and EISAID in 19.6.36), then stored as a DWord.
 */
void aml_eisa_id(struct aml *a, const char *id)
{
	uint32_t packed = 0;

	if (strlen(id) != 7) {
		aml_misuse(a);
		return;
	}
	for (unsigned int i = 0; i < 7; i++) {
		int digit = hex_digit(id[i]);

		if (i < 3 ? id[i] < 'A' || id[i] > 'Z' : digit < 0) {
			aml_misuse(a);
			return;
		}
		packed = i < 3 ? packed << 5 | (uint32_t)(id[i] - 'A' + 1) : packed << 4 | (uint32_t)digit;
	}
	aml_integer(a, __builtin_bswap32(packed));
}

void aml_buffer(struct aml *a, const void *bytes, size_t len)
{
	uint8_t size_code[9], head[4];
	size_t code_len, head_len;
	uint32_t content;

	begin_data(a);
	if (len > ACPI_BUF_MAX) {
		aml_misuse(a);
		return;
	}
	code_len = encode_integer(size_code, len);
	content = (uint32_t)(code_len + len);
	head_len = length_size(content, true);
	encode_length(head, content + (uint32_t)head_len, head_len);
	acpi_buf_put8(a->out, OP_BUFFER);
	acpi_buf_put(a->out, head, head_len);
	acpi_buf_put(a->out, size_code, code_len);
	acpi_buf_put(a->out, bytes, len);
}
