/* SPDX-License-Identifier: MIT */
/*
 * The compressed payload of a bzImage, each format by its own library.
 *
 * One call decodes from the mapped file to guest RAM, with the room there as the bound. What a library
 * allocates (nothing for lz4 and lzo, 40 KiB for gzip, 160 KiB for zstd, 4 MB for bzip2, the dictionary for
 * xz and lzma) is freed before the function returns.
 *
 * The kernel's build appends the unpacked size to every format but gzip, which ends with it anyway. Nothing
 * here needs it, so it is dropped unread.
 */
#include <bzlib.h>
#include <limits.h>
#include <lz4.h>
#include <lzma.h>
#include <lzo/lzo1x.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "internal.h"

/* A dictionary is at most 64 MiB in what the kernel's build makes; more is refused. */
#define LZMA_MEMORY_MAX (128 * LOADER_MIB)
/* The legacy frame (lz4 -l): this word, then blocks of 8 MiB, each after its compressed size. */
#define LZ4_LEGACY_MAGIC 0x184c2102u
#define LZ4_LEGACY_BLOCK (8 * LOADER_MIB)

static const char too_large[] = "it unpacks to more than init_size";
static const char too_short[] = "it ends too early";

static const struct {
	const char *name;
	unsigned int len;
	uint8_t magic[9];
} formats[] = {
	[PAYLOAD_GZIP] = { "gzip", 3, { 0x1f, 0x8b, 0x08 } },
	[PAYLOAD_BZIP2] = { "bzip2", 3, { 'B', 'Z', 'h' } },
	[PAYLOAD_LZMA] = { "lzma", 3, { 0x5d, 0x00, 0x00 } },
	[PAYLOAD_XZ] = { "xz", 6, { 0xfd, '7', 'z', 'X', 'Z', 0x00 } },
	[PAYLOAD_LZO] = { "lzo", 9, { 0x89, 'L', 'Z', 'O', 0x00, 0x0d, 0x0a, 0x1a, 0x0a } },
	[PAYLOAD_LZ4] = { "lz4", 4, { 0x02, 0x21, 0x4c, 0x18 } },
	[PAYLOAD_ZSTD] = { "zstd", 4, { 0x28, 0xb5, 0x2f, 0xfd } },
	[PAYLOAD_RAW] = { "uncompressed", 4, { 0x7f, 'E', 'L', 'F' } },
};

enum payload_format payload_sniff(const uint8_t *data, size_t len)
{
	unsigned int i;

	for (i = PAYLOAD_GZIP; i <= PAYLOAD_RAW; i++) {
		if (len >= formats[i].len && memcmp(data, formats[i].magic, formats[i].len) == 0)
			return (enum payload_format)i;
	}
	return PAYLOAD_UNKNOWN;
}

const char *payload_name(enum payload_format format)
{
	return format == PAYLOAD_UNKNOWN ? "unknown" : formats[format].name;
}

static uint32_t load_be32(const uint8_t *p)
{
	return __builtin_bswap32(load32(p));
}

static const char *unpack_gzip(const uint8_t *data, size_t len, uint8_t *dst, uint64_t room, uint64_t *total)
{
	z_stream z = { .next_in = (Bytef *)(uintptr_t)data, .avail_in = (uInt)len };
	int rc;

	/* 16: expect a gzip header, and check the CRC at the end */
	if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
		return "no memory for zlib";
	z.next_out = dst;
	z.avail_out = (uInt)room;
	rc = inflate(&z, Z_FINISH);
	*total = z.total_out;
	inflateEnd(&z);
	if (rc == Z_STREAM_END)
		return NULL;
	if (rc == Z_DATA_ERROR || rc == Z_NEED_DICT)
		return "its gzip data is damaged";
	if (rc == Z_MEM_ERROR)
		return "no memory for zlib";
	return z.avail_out ? too_short : too_large;
}

static const char *unpack_bzip2(const uint8_t *data, size_t len, uint8_t *dst, uint64_t room, uint64_t *total)
{
	unsigned int n = (unsigned int)room;
	int rc = BZ2_bzBuffToBuffDecompress((char *)dst, &n, (char *)(uintptr_t)data, (unsigned int)len, 0, 0);

	*total = n;
	switch (rc) {
	case BZ_OK:
		return NULL;
	case BZ_OUTBUFF_FULL:
		return too_large;
	case BZ_UNEXPECTED_EOF:
		return too_short;
	case BZ_MEM_ERROR:
		return "no memory for bzip2";
	default:
		return "its bzip2 data is damaged";
	}
}

/* Both .xz and .lzma: one coder, one call. */
static const char *unpack_lzma(enum payload_format format, const uint8_t *data, size_t len, uint8_t *dst, uint64_t room,
			       uint64_t *total)
{
	lzma_stream s = LZMA_STREAM_INIT;
	lzma_ret rc;

	if (format == PAYLOAD_XZ)
		rc = lzma_stream_decoder(&s, LZMA_MEMORY_MAX, 0);
	else
		rc = lzma_alone_decoder(&s, LZMA_MEMORY_MAX);
	if (rc != LZMA_OK)
		return "no memory for liblzma";
	s.next_in = data;
	s.avail_in = len;
	s.next_out = dst;
	s.avail_out = room;
	rc = lzma_code(&s, LZMA_FINISH);
	/* A full output buffer is told as "no progress" by the call after it. */
	if (rc == LZMA_OK)
		rc = LZMA_BUF_ERROR;
	*total = s.total_out;
	lzma_end(&s);
	switch (rc) {
	case LZMA_STREAM_END:
		return NULL;
	case LZMA_BUF_ERROR:
		return s.avail_out ? too_short : too_large;
	case LZMA_MEM_ERROR:
		return "no memory for liblzma";
	case LZMA_MEMLIMIT_ERROR:
		return "its lzma dictionary is larger than 128 MiB";
	default:
		return "its lzma data is damaged";
	}
}

static const char *unpack_zstd(const uint8_t *data, size_t len, uint8_t *dst, uint64_t room, uint64_t *total)
{
	size_t n = ZSTD_decompress(dst, room, data, len);

	if (!ZSTD_isError(n)) {
		*total = n;
		return NULL;
	}
	switch (ZSTD_getErrorCode(n)) {
	case ZSTD_error_dstSize_tooSmall:
		return too_large;
	case ZSTD_error_srcSize_wrong:
		return too_short;
	case ZSTD_error_memory_allocation:
		return "no memory for zstd";
	default:
		return "its zstd data is damaged";
	}
}

static const char *unpack_raw(const uint8_t *data, size_t len, uint8_t *dst, uint64_t room, uint64_t *total)
{
	if (len > room)
		return too_large;
	loader_move_down(dst, data, len);
	*total = len;
	return NULL;
}

static const char *unpack_lz4(const uint8_t *data, size_t len, struct unpack_sink *sink, uint64_t *total)
{
	size_t at = 4;

	*total = 0;
	while (at < len) {
		uint64_t room;
		uint32_t size;
		uint8_t *dst;
		const char *why;
		int64_t n;

		if (len - at < 4)
			return too_short;
		size = load32(data + at);
		at += 4;
		/* Files put one after the other: each begins with the magic word. */
		if (size == LZ4_LEGACY_MAGIC)
			continue;
		if (size > len - at || size > INT_MAX)
			return too_short;
		dst = sink->place(sink, *total, &room);
		if (!dst)
			return too_large;
		if (room > LZ4_LEGACY_BLOCK)
			room = LZ4_LEGACY_BLOCK;
		n = LZ4_decompress_safe((const char *)data + at, (char *)dst, (int)size, (int)room);
		if (n < 0)
			return room < LZ4_LEGACY_BLOCK ? "its lz4 data is damaged or larger than init_size"
						       : "its lz4 data is damaged";
		at += size;
		why = sink->settle(sink, *total, (uint64_t)n, at == len);
		if (why)
			return why;
		*total += (uint64_t)n;
	}
	return *total ? NULL : too_short;
}

/* lzop's flags that change the layout (lzop's conf.h) */
enum {
	LZOP_ADLER32_D = 0x0001,
	LZOP_ADLER32_C = 0x0002,
	LZOP_CRC32_D = 0x0100,
	LZOP_CRC32_C = 0x0200,
	LZOP_FILTER = 0x0800,
};

struct lzop_header {
	size_t size;
	unsigned int sums_d; /* checksums of the unpacked bytes after each block's sizes */
	unsigned int sums_c; /* of the packed bytes; absent where a block is stored */
};

/* Magic 9, version 2, library 2, needed 2, method 1, level 1, flags 4, [filter 4], mode 4, mtime 8, name, sum
 * 4 */
static bool lzop_parse(const uint8_t *data, size_t len, struct lzop_header *h)
{
	size_t at = 9 + 7;
	uint32_t flags;
	bool late;

	if (len < 64)
		return false;
	/* level and the high half of mtime came with version 0.940 */
	late = ((unsigned int)data[9] << 8 | data[10]) >= 0x0940;
	if (late)
		at++;
	flags = load_be32(data + at);
	at += flags & LZOP_FILTER ? 8 : 4;
	at += late ? 4 + 8 : 4 + 4;
	at += 1u + data[at] + 4;
	if (at > len)
		return false;
	h->size = at;
	h->sums_d = (flags & LZOP_ADLER32_D ? 1u : 0) + (flags & LZOP_CRC32_D ? 1u : 0);
	h->sums_c = (flags & LZOP_ADLER32_C ? 1u : 0) + (flags & LZOP_CRC32_C ? 1u : 0);
	return true;
}

/* One block: its sizes, its checksums (not looked at, as in the kernel), its bytes. */
static const char *unpack_lzo_block(const struct lzop_header *h, const uint8_t *data, size_t len, size_t *at,
				    uint8_t *dst, uint64_t room, uint32_t *out)
{
	uint32_t in;
	uint64_t sums;
	lzo_uint n;

	if (len - *at < 8)
		return too_short;
	*out = load_be32(data + *at);
	in = load_be32(data + *at + 4);
	if (!*out || in > *out)
		return "its lzo data is damaged";
	sums = (h->sums_d + (in < *out ? h->sums_c : 0)) * 4ull;
	if (!fits(*at + 8, sums + in, len))
		return too_short;
	if (*out > room)
		return too_large;
	data += *at + 8 + sums;
	n = *out;
	if (in == *out)
		loader_move_down(dst, data, in);
	else if (lzo1x_decompress_safe(data, in, dst, &n, NULL) != LZO_E_OK || n != *out)
		return "its lzo data is damaged";
	*at += 8 + sums + in;
	return NULL;
}

static const char *unpack_lzo(const uint8_t *data, size_t len, struct unpack_sink *sink, uint64_t *total)
{
	struct lzop_header h;
	const char *why;
	bool last = false;
	size_t at;

	*total = 0;
	if (!lzop_parse(data, len, &h))
		return "its lzop header is damaged";
	at = h.size;
	while (!last) {
		uint64_t room;
		uint32_t out;
		uint8_t *dst = sink->place(sink, *total, &room);

		if (!dst)
			return too_large;
		why = unpack_lzo_block(&h, data, len, &at, dst, room, &out);
		if (why)
			return why;
		/* An unpacked size of zero ends the file. */
		if (len - at < 4)
			return too_short;
		last = load32(data + at) == 0;
		why = sink->settle(sink, *total, out, last);
		if (why)
			return why;
		*total += out;
	}
	return NULL;
}

/* The four bytes of the appended size belong to no format; a raw ELF has them only if they say its size. */
static size_t without_size(enum payload_format format, const uint8_t *data, size_t len)
{
	if (format == PAYLOAD_GZIP || len < 4)
		return len;
	if (format == PAYLOAD_RAW && load32(data + len - 4) != len - 4)
		return len;
	return len - 4;
}

const char *payload_unpack(enum payload_format format, const uint8_t *data, size_t len, struct unpack_sink *sink,
			   uint64_t *total)
{
	const char *why;
	uint64_t room;
	uint8_t *dst;

	len = without_size(format, data, len);
	if (format == PAYLOAD_LZ4)
		return unpack_lz4(data, len, sink, total);
	if (format == PAYLOAD_LZO)
		return unpack_lzo(data, len, sink, total);
	dst = sink->place(sink, 0, &room);
	if (!dst)
		return too_large;
	switch (format) {
	case PAYLOAD_GZIP:
		why = unpack_gzip(data, len, dst, room, total);
		break;
	case PAYLOAD_BZIP2:
		why = unpack_bzip2(data, len, dst, room, total);
		break;
	case PAYLOAD_XZ:
	case PAYLOAD_LZMA:
		why = unpack_lzma(format, data, len, dst, room, total);
		break;
	case PAYLOAD_ZSTD:
		why = unpack_zstd(data, len, dst, room, total);
		break;
	case PAYLOAD_RAW:
		why = unpack_raw(data, len, dst, room, total);
		break;
	default:
		return "its compression is none that a kernel uses";
	}
	return why ? why : sink->settle(sink, 0, *total, true);
}
