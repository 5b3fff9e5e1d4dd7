/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * A flash image is a row of firmware volumes without gaps; each says its length and has a checksum. A file that was cut
 * off, has something behind it or is something else does not add up. An image of code and variables in one file begins
 * with a volume of the type "system NV data". A code file for OVMF leaves out just that volume: code and variables
 * together fill a power of two.
 *
 * A build that protects its variables by System Management Mode cannot work here, as this machine has no SMRAM, and
 * would stop without a word. It is known by a module of its first phase, which lies compressed by LZMA in the first
 * volume. Of that stream only the beginning is unpacked: the volume of that phase comes first in it, is less than a
 * MiB long, and has the module among the first of its files.
 */
#include "firmware/image.h"

#include <errno.h>
#include <lzma.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* EFI_FIRMWARE_VOLUME_HEADER (PI 1.7, volume 3, 3.2.1.1), offsets. */
enum {
	VOLUME_TYPE = 16,
	VOLUME_LENGTH = 32,
	VOLUME_SIGNATURE = 40,
	VOLUME_HEADER_LENGTH = 48,
	VOLUME_EXTENDED = 52, /* offset of another header, or 0 */
	VOLUME_HEADER_MIN = 72,
};

/* EFI_FIRMWARE_VOLUME_EXT_HEADER (3.2.1.2): a GUID and a size of 4 bytes; EFI_FFS_FILE_HEADER (3.2.3.1). */
enum {
	EXTENDED_MIN = 20,
	FILE_SIZE = 20,
	FILE_HEADER = 24,
	FILE_ALIGN = 8, /* from the start of the volume */
};

#define GUID_LEN	 16
#define GRANULE		 4096u
#define RESET_VECTOR	 16u /* from the end */
#define CODE_MIN	 (64u << 10)
#define VOLUME_MAX	 64
#define FIRST_PHASE_MAX	 (1u << 20)
#define FIRST_VOLUME_MAX 1024u /* where the volume of the first phase begins */
#define LZMA_MEMORY_MAX	 (256ULL << 20)

/* FFF12B8D-7696-4C8B-A985-2747075B4F50: EFI_SYSTEM_NV_DATA_FV_GUID. */
static const uint8_t nv_data_guid[GUID_LEN] = {
	0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50,
};

/* EE4E5898-3914-4259-9D6E-DC7BD79403CF: a section compressed by LZMA (PI 1.7, volume 3, 3.2.5.7 and EDK II). */
static const uint8_t lzma_guid[GUID_LEN] = {
	0x98, 0x58, 0x4e, 0xee, 0x14, 0x39, 0x59, 0x42, 0x9d, 0x6e, 0xdc, 0x7b, 0xd7, 0x94, 0x03, 0xcf,
};

/* 6C0E75B4-B0B9-44D1-8210-3377D7B4E066: EDK II's module that opens SMRAM. */
static const uint8_t smm_guid[GUID_LEN] = {
	0xb4, 0x75, 0x0e, 0x6c, 0xb9, 0xb0, 0xd1, 0x44, 0x82, 0x10, 0x33, 0x77, 0xd7, 0xb4, 0xe0, 0x66,
};

/* EDADEB9D-DDBA-48BD-9D22-C1C169C8C5C6: EDK II's module for the other processors. */
static const uint8_t cpus_guid[GUID_LEN] = {
	0x9d, 0xeb, 0xad, 0xed, 0xba, 0xdd, 0xbd, 0x48, 0x9d, 0x22, 0xc1, 0xc1, 0x69, 0xc8, 0xc5, 0xc6,
};

static int fail(char *err, size_t errlen, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static int fail(char *err, size_t errlen, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err, errlen, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static uint64_t load_le(const uint8_t *from, unsigned int size)
{
	uint64_t value = 0;

	for (unsigned int i = 0; i < size; i++)
		value |= (uint64_t)from[i] << (8 * i);
	return value;
}

bool firmware_image_is_elf(const uint8_t *data, size_t size)
{
	return size > 4 && !memcmp(data, "\177ELF", 4);
}

static bool valid_header(const uint8_t *volume, size_t room)
{
	uint64_t header;
	uint16_t sum = 0;

	if (room < VOLUME_HEADER_MIN || memcmp(volume + VOLUME_SIGNATURE, "_FVH", 4) != 0)
		return false;
	header = load_le(volume + VOLUME_HEADER_LENGTH, 2);
	if (header < VOLUME_HEADER_MIN || header % 2 || header > room)
		return false;
	for (uint64_t i = 0; i < header; i += 2)
		sum = (uint16_t)(sum + load_le(volume + i, 2));
	return !sum;
}

static int walk_volumes(const uint8_t *data, size_t size, struct firmware_image *image, char *err, size_t errlen)
{
	unsigned int count = 0;

	for (size_t at = 0; at < size; count++) {
		uint64_t length;

		bool valid = valid_header(data + at, size - at);

		if (!valid && !at)
			return fail(err, errlen, "is not UEFI firmware (it does not begin with a firmware volume)");
		if (!valid || count == VOLUME_MAX)
			return fail(err, errlen, "has something that is no firmware volume at offset 0x%zx", at);
		length = load_le(data + at + VOLUME_LENGTH, 8);
		if (length > size - at)
			return fail(err, errlen, "is cut off: the firmware volume at 0x%zx has 0x%llx bytes, not 0x%zx",
				    at, (unsigned long long)length, size - at);
		if (!length || length % GRANULE)
			return fail(err, errlen, "has a firmware volume of 0x%llx bytes at 0x%zx",
				    (unsigned long long)length, at);
		if (!at && !memcmp(data + VOLUME_TYPE, nv_data_guid, GUID_LEN))
			image->code_offset = length;
		at += length;
	}
	return 0;
}

static const uint8_t *find(const uint8_t *data, size_t size, const uint8_t guid[GUID_LEN])
{
	return data ? memmem(data, size, guid, GUID_LEN) : NULL;
}

/* A stream of which as much is unpacked as is asked for. */
struct unpacked {
	lzma_stream stream;
	uint8_t bytes[FIRST_PHASE_MAX];
};

/* Whether it has that many bytes. */
static bool unpack(struct unpacked *u, size_t size)
{
	lzma_stream *s = &u->stream;

	if (size > FIRST_PHASE_MAX)
		return false;
	while (s->total_out < size) {
		s->next_out = u->bytes + s->total_out;
		s->avail_out = size - s->total_out;
		if (lzma_code(s, LZMA_RUN) != LZMA_OK)
			break;
	}
	return s->total_out >= size;
}

/* Where the first file is of a volume that begins soon after the start of the stream, or 0. */
static size_t find_first_file(struct unpacked *u)
{
	const uint8_t *signature;
	size_t volume, extended, size;

	if (!unpack(u, FIRST_VOLUME_MAX))
		return 0;
	signature = memmem(u->bytes, FIRST_VOLUME_MAX, "_FVH", 4);
	volume = signature ? (size_t)(signature - u->bytes) - VOLUME_SIGNATURE : 0;
	if (!signature || signature - u->bytes < VOLUME_SIGNATURE || !unpack(u, volume + VOLUME_HEADER_MIN))
		return 0;
	extended = load_le(u->bytes + volume + VOLUME_EXTENDED, 2);
	size = load_le(u->bytes + volume + VOLUME_HEADER_LENGTH, 2);
	if (extended && unpack(u, volume + extended + EXTENDED_MIN))
		size = extended + load_le(u->bytes + volume + extended + GUID_LEN, 4);
	return volume + (size + FILE_ALIGN - 1) / FILE_ALIGN * FILE_ALIGN;
}

/*
 * Whether the volume at the beginning of what is compressed at data has the module. Nonsense has not, and neither has
 * what is free behind the last file: a length that leads nowhere. Unpacking the whole volume was a twentieth of what a
 * boot costs until an application runs; so it ends where the answer is known. In every platform of OVMF the modules for
 * SMM are right before the one that starts the other processors.
 */
static bool first_phase_needs_smm(const uint8_t *data, size_t size)
{
	struct unpacked *u = malloc(sizeof(*u));
	size_t at, length;
	bool found = false;

	if (!u)
		return false;
	u->stream = (lzma_stream)LZMA_STREAM_INIT;
	if (lzma_alone_decoder(&u->stream, LZMA_MEMORY_MAX) == LZMA_OK) {
		u->stream.next_in = data;
		u->stream.avail_in = size;
		for (at = find_first_file(u); at && unpack(u, at + FILE_HEADER); at += length) {
			found = !memcmp(u->bytes + at, smm_guid, GUID_LEN);
			length = load_le(u->bytes + at + FILE_SIZE, 3);
			if (found || length < FILE_HEADER || !memcmp(u->bytes + at, cpus_guid, GUID_LEN))
				break;
			length = (length + FILE_ALIGN - 1) / FILE_ALIGN * FILE_ALIGN;
		}
	}
	lzma_end(&u->stream);
	free(u);
	return found;
}

/* EFI_GUID_DEFINED_SECTION: behind the GUID the offset of its data from the section's start, 4 bytes before the GUID.
 */
static bool needs_smm(const uint8_t *code, size_t size)
{
	const uint8_t *section = find(code, size, lzma_guid);
	size_t start, offset;

	if (!section)
		return find(code, size, smm_guid);
	if (section - code < 4 || (size_t)(section - code) > size - GUID_LEN - 2)
		return false;
	start = (size_t)(section - code) - 4;
	offset = load_le(section + GUID_LEN, 2);
	return offset < size - start && first_phase_needs_smm(code + start + offset, size - start - offset);
}

static size_t power_of_two_above(size_t size)
{
	size_t power = GRANULE;

	while (power < size)
		power <<= 1;
	return power;
}

static bool is_blank(const uint8_t *bytes, size_t length)
{
	for (size_t i = 1; i < length; i++)
		if (bytes[i] != bytes[0])
			return false;
	return bytes[0] == 0 || bytes[0] == 0xff;
}

int firmware_image_parse(const uint8_t *data, size_t size, struct firmware_image *image, char *err, size_t errlen)
{
	int ret;

	*image = (struct firmware_image){ 0 };
	if (!size)
		return fail(err, errlen, "is empty");
	if (size > FIRMWARE_MAX)
		return fail(err, errlen, "is larger than %u MiB, the room for firmware below 4 GiB",
			    FIRMWARE_MAX >> 20);
	ret = walk_volumes(data, size, image, err, errlen);
	if (ret)
		return ret;
	image->code_size = size - image->code_offset;
	if (!image->code_size)
		return fail(err, errlen, "holds only variables (--nvram takes such a file)");
	image->vars_size =
		image->code_offset ? image->code_offset : power_of_two_above(image->code_size) - image->code_size;
	if (image->code_size < CODE_MIN || is_blank(data + size - RESET_VECTOR, RESET_VECTOR))
		return fail(err, errlen, "has nothing at its end, where a processor starts");
	if (needs_smm(data + image->code_offset, image->code_size))
		return fail(err, errlen,
			    "was built for System Management Mode, which this machine does not have; take the build "
			    "without it, such as OVMF_CODE_4M.fd");
	return 0;
}
