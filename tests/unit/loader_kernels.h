/* SPDX-License-Identifier: MIT */
/*
 * Kernels made here, for the tests of the loaders: a small ELF with three segments and a relocation table, packed by
 * every compressor a kernel may use, and the memory that they are loaded into. One program includes it once.
 */
#ifndef TESTS_UNIT_LOADER_KERNELS_H
#define TESTS_UNIT_LOADER_KERNELS_H

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include <bzlib.h>
#include <lz4.h>
#include <lzma.h>
#include <lzo/lzo1x.h>
#include <zlib.h>
#include <zstd.h>

#include "arch/x86/loader/internal.h"
#include "arch/x86/loader/loader.h"

#define MIB	  (1024u * 1024)
#define RAM_SIZE  (64u * MIB)
#define PREF	  0x1000000u
#define INIT_SIZE (12u * MIB)
#define SETUP	  1024u

/* The synthetic kernel, file offsets and addresses relative to PREF. */
#define TEXT_OFF    0x200000u
#define TEXT_LEN    0x301234u
#define DATA_OFF    0x600000u /* in its place with TEXT: 0x400000 further in both */
#define DATA_LEN    0x10000u
#define INIT_OFF    0x800000u /* at 0x411000: moves down by 0x1ef000 */
#define INIT_LEN    0x81000u
#define INIT_REL    0x411000u
#define BSS_LEN	    0x200000u /* follows INIT in memory only */
#define ELF_LEN	    (INIT_OFF + INIT_LEN + 2 * 64)
#define PAYLOAD_MAX (ELF_LEN + 4096)

struct bytes {
	uint8_t *data;
	size_t len;
};

struct fixture {
	struct ram_view ram;
	char path[64];
	char err[256];
	struct bytes elf; /* with the relocation table of old kernels */
};

static inline uint32_t next_random(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 8;
}

static inline void put16(uint8_t *p, uint16_t v)
{
	memcpy(p, &v, sizeof(v));
}

static inline void put32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
}

static inline void put64(uint8_t *p, uint64_t v)
{
	memcpy(p, &v, sizeof(v));
}

static inline void put_be32(uint8_t *p, uint32_t v)
{
	put32(p, __builtin_bswap32(v));
}

/* Half compressible: runs of a byte, random bytes, copies of what came before. */
static inline void fill(uint8_t *p, size_t len, uint32_t seed)
{
	size_t at = 0, i;

	while (at < len) {
		uint32_t r = next_random(&seed);
		size_t n = r % 61 + 1;

		if (n > len - at)
			n = len - at;
		for (i = 0; i < n; i++) {
			if (r & 0x100)
				p[at + i] = (uint8_t)next_random(&seed);
			else
				p[at + i] =
					(r & 0x200) && at > 64 ? p[at + i - (r >> 10) % 64 - 1] : (uint8_t)(r >> 12);
		}
		at += n;
	}
}

static inline void put_phdr(uint8_t *elf, unsigned int i, uint64_t off, uint64_t paddr, uint64_t filesz, uint64_t memsz)
{
	Elf64_Phdr ph = {
		.p_type = PT_LOAD,
		.p_offset = off,
		.p_vaddr = LINUX_KERNEL_MAP + paddr,
		.p_paddr = paddr,
		.p_filesz = filesz,
		.p_memsz = memsz,
	};

	memcpy(elf + sizeof(Elf64_Ehdr) + i * sizeof(ph), &ph, sizeof(ph));
}

/* With three program headers behind it, and two section headers at shoff. */
static inline void put_ehdr(uint8_t *elf, uint64_t shoff)
{
	Elf64_Ehdr eh = {
		.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_entry = PREF + 0x40,
		.e_phoff = sizeof(eh),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 3,
		.e_shoff = shoff,
		.e_shentsize = sizeof(Elf64_Shdr),
		.e_shnum = 2,
	};

	memcpy(elf, &eh, sizeof(eh));
}

/* Room for a table behind it; len is that of the ELF alone. */
static inline struct bytes make_elf(void)
{
	struct bytes b = { calloc(1, PAYLOAD_MAX), ELF_LEN };

	assert_non_null(b.data);
	put_ehdr(b.data, INIT_OFF + INIT_LEN);
	put_phdr(b.data, 0, TEXT_OFF, PREF, TEXT_LEN, TEXT_LEN);
	put_phdr(b.data, 1, DATA_OFF, PREF + 0x400000, DATA_LEN, DATA_LEN);
	put_phdr(b.data, 2, INIT_OFF, PREF + INIT_REL, INIT_LEN, INIT_LEN + BSS_LEN);
	fill(b.data + TEXT_OFF, TEXT_LEN, 1);
	fill(b.data + DATA_OFF, DATA_LEN, 2);
	fill(b.data + INIT_OFF, INIT_LEN - 0x40000, 3);
	return b;
}

static const uint32_t places32[] = { 0x10, 0x2ff000, 0x400100, INIT_REL + 0x80 };
static const uint32_t places_neg[] = { 0x20, INIT_REL + 0x100 };
static const uint32_t places64[] = { 0x30, 0x400200, INIT_REL + 0x200, INIT_REL + INIT_LEN - 8 };

static inline void put_list(struct bytes *b, const uint32_t *places, size_t n)
{
	size_t i;

	put32(b->data + b->len, 0);
	b->len += 4;
	for (i = 0; i < n; i++, b->len += 4)
		put32(b->data + b->len, (uint32_t)(LINUX_KERNEL_MAP + PREF + places[i]));
}

static inline void put_relocations(struct bytes *b, bool negated)
{
	put_list(b, places64, sizeof(places64) / 4);
	if (negated)
		put_list(b, places_neg, sizeof(places_neg) / 4);
	put_list(b, places32, sizeof(places32) / 4);
}

/* The compressors. Each returns the packed bytes in memory of PACK_MAX bytes. */
#define PACK_MAX (PAYLOAD_MAX + PAYLOAD_MAX / 8 + 65536)

static inline size_t pack_gzip(const struct bytes *in, uint8_t *out)
{
	z_stream z = { .next_in = in->data, .avail_in = (uInt)in->len, .next_out = out, .avail_out = PACK_MAX };

	assert_int_equal(deflateInit2(&z, 1, Z_DEFLATED, 16 + 15, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out;
}

static inline size_t pack_bzip2(const struct bytes *in, uint8_t *out)
{
	unsigned int len = PACK_MAX;

	assert_int_equal(BZ2_bzBuffToBuffCompress((char *)out, &len, (char *)in->data, (unsigned int)in->len, 1, 0, 0),
			 BZ_OK);
	return len;
}

static inline size_t pack_xz(const struct bytes *in, uint8_t *out)
{
	lzma_options_lzma opt;
	lzma_filter filters[] = { { LZMA_FILTER_X86, NULL }, { LZMA_FILTER_LZMA2, &opt }, { LZMA_VLI_UNKNOWN, NULL } };
	size_t len = 0;

	lzma_lzma_preset(&opt, 0);
	assert_int_equal(
		lzma_stream_buffer_encode(filters, LZMA_CHECK_CRC32, NULL, in->data, in->len, out, &len, PACK_MAX),
		LZMA_OK);
	return len;
}

static inline size_t pack_lzma(const struct bytes *in, uint8_t *out)
{
	lzma_stream s = LZMA_STREAM_INIT;
	lzma_options_lzma opt;
	size_t len;

	lzma_lzma_preset(&opt, 0);
	assert_int_equal(lzma_alone_encoder(&s, &opt), LZMA_OK);
	s.next_in = in->data;
	s.avail_in = in->len;
	s.next_out = out;
	s.avail_out = PACK_MAX;
	assert_int_equal(lzma_code(&s, LZMA_FINISH), LZMA_STREAM_END);
	len = s.total_out;
	lzma_end(&s);
	return len;
}

static inline size_t pack_zstd(const struct bytes *in, uint8_t *out)
{
	size_t len = ZSTD_compress(out, PACK_MAX, in->data, in->len, 1);

	assert_false(ZSTD_isError(len));
	return len;
}

static inline size_t pack_lz4(const struct bytes *in, uint8_t *out)
{
	size_t at, len = 4;

	put32(out, 0x184c2102);
	for (at = 0; at < in->len; at += 8 * MIB) {
		size_t n = in->len - at < 8 * MIB ? in->len - at : 8 * MIB;
		int packed = LZ4_compress_default((char *)in->data + at, (char *)out + len + 4, (int)n,
						  (int)(PACK_MAX - len - 4));

		assert_true(packed > 0);
		put32(out + len, (uint32_t)packed);
		len += 4 + (size_t)packed;
	}
	return len;
}

static inline size_t pack_lzo(const struct bytes *in, uint8_t *out)
{
	static const uint8_t head[] = {
		0x89, 'L',  'Z', 'O',  0, 13, 10, 26, 10, 0x10, 0x40,
		0x20, 0xa0, 9,	 0x40, 1, 5,  0,  0,  0,  1 /* flags: one checksum of the unpacked bytes */
	};
	uint8_t *work = calloc(1, LZO1X_1_MEM_COMPRESS);
	size_t at, len = sizeof(head);

	assert_non_null(work);
	memcpy(out, head, sizeof(head));
	memset(out + len, 0, 4 + 8 + 1 + 4); /* mode, mtime, no name, checksum */
	len += 4 + 8 + 1 + 4;
	for (at = 0; at < in->len; at += 256 * 1024) {
		size_t n = in->len - at < 256 * 1024 ? in->len - at : 256 * 1024;
		lzo_uint packed;

		lzo1x_1_compress(in->data + at, n, out + len + 12, &packed, work);
		if (packed >= n) {
			memcpy(out + len + 12, in->data + at, n);
			packed = n;
		}
		put_be32(out + len, (uint32_t)n);
		put_be32(out + len + 4, (uint32_t)packed);
		put_be32(out + len + 8, 0);
		len += 12 + packed;
	}
	put_be32(out + len, 0);
	free(work);
	return len + 4;
}

static inline size_t pack_raw(const struct bytes *in, uint8_t *out)
{
	memcpy(out, in->data, in->len);
	return in->len;
}

static const struct packer {
	const char *name;
	size_t (*pack)(const struct bytes *in, uint8_t *out);
} packers[] = {
	{ "gzip", pack_gzip }, { "bzip2", pack_bzip2 }, { "lzma", pack_lzma }, { "xz", pack_xz },
	{ "lzo", pack_lzo },   { "lz4", pack_lz4 },	{ "zstd", pack_zstd }, { "uncompressed", pack_raw },
};

static const struct packer *const lz4 = &packers[5];

/* setup (1024 bytes) + 0x240 bytes of "code" + payload + size, padded to 16 */
static inline struct bytes make_bzimage(const struct bytes *elf, const struct packer *packer)
{
	struct bytes b = { calloc(1, SETUP + 0x240 + PACK_MAX + 32), 0 };
	uint8_t *h = b.data;
	size_t len;

	assert_non_null(h);
	len = packer->pack(elf, h + SETUP + 0x240);
	if (strcmp(packer->name, "gzip") != 0) {
		put32(h + SETUP + 0x240 + len, (uint32_t)elf->len);
		len += 4;
	}
	h[0x1f1] = 1;
	put32(h + 0x1f4, (uint32_t)((0x240 + len + 15) / 16));
	put16(h + 0x1fe, 0xaa55);
	h[0x200] = 0xeb;
	h[0x201] = 0x6a;
	memcpy(h + 0x202, "HdrS", 4);
	put16(h + 0x206, 0x020f);
	h[0x211] = 1;
	put32(h + 0x22c, 0x7fffffff);
	put32(h + 0x230, 0x200000);
	h[0x234] = 1;
	put16(h + 0x236, 1);
	put32(h + 0x238, 2047);
	put32(h + 0x248, 0x240);
	put32(h + 0x24c, (uint32_t)len);
	put64(h + 0x258, PREF);
	put32(h + 0x260, INIT_SIZE);
	b.len = SETUP + (0x240 + len + 15) / 16 * 16;
	memset(h + SETUP, 0x90, 0x240);
	return b;
}

static inline void write_file(struct fixture *f, const uint8_t *data, size_t len)
{
	int fd = open(f->path, O_WRONLY | O_TRUNC | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	while (len) {
		ssize_t n = write(fd, data, len);

		assert_true(n > 0);
		data += n;
		len -= (size_t)n;
	}
	close(fd);
}

/* Fresh zero pages again. */
static inline void reset_ram(struct fixture *f)
{
	assert_int_equal(madvise(f->ram.host, f->ram.size, MADV_DONTNEED), 0);
}

static inline int load_path(struct fixture *f, const struct load_options *opt, struct load_result *res)
{
	struct kernel_image img;
	int rc;

	memset(f->err, 0, sizeof(f->err));
	rc = loader_open(&img, f->path, f->err, sizeof(f->err));
	if (rc)
		return rc;
	rc = loader_load(&img, &f->ram, opt, res, f->err, sizeof(f->err));
	loader_close(&img);
	return rc;
}

static inline int load_bytes(struct fixture *f, const struct bytes *b, const struct load_options *opt,
			     struct load_result *res)
{
	write_file(f, b->data, b->len);
	return load_path(f, opt, res);
}

/* The same without a file: for many cases. */
static inline int load_memory(struct fixture *f, const uint8_t *data, size_t len, const struct load_options *opt,
			      struct load_result *res)
{
	struct kernel_image img = { .map = { .data = (uint8_t *)(uintptr_t)data, .size = len } };
	int rc = loader_sniff(data, len, &img.kind, f->err, sizeof(f->err));

	if (!rc && img.kind == KERNEL_BZIMAGE)
		rc = bzimage_check(data, len, &img.bz, f->err, sizeof(f->err));
	return rc ? rc : loader_load(&img, &f->ram, opt, res, f->err, sizeof(f->err));
}

static const struct load_options plain = { .ram_is_zero = true };

static inline bool all_zero(const uint8_t *p, size_t len)
{
	return !len || (!p[0] && memcmp(p, p + 1, len - 1) == 0);
}

/* The segments of the unrelocated image are at base. */
static inline void check_image(const struct fixture *f, uint64_t base)
{
	const uint8_t *ram = f->ram.host + base;

	assert_memory_equal(ram, f->elf.data + TEXT_OFF, TEXT_LEN);
	assert_memory_equal(ram + 0x400000, f->elf.data + DATA_OFF, DATA_LEN);
	assert_memory_equal(ram + INIT_REL, f->elf.data + INIT_OFF, INIT_LEN);
	assert_true(all_zero(ram + INIT_REL + INIT_LEN, BSS_LEN));
}

/* Nothing outside what the result calls dirty has been written. */
static inline void check_dirty(const struct fixture *f, const struct load_result *res)
{
	assert_true(res->dirty.end <= f->ram.size);
	assert_true(all_zero(f->ram.host, res->dirty.start));
	assert_true(all_zero(f->ram.host + res->dirty.end, f->ram.size - res->dirty.end));
}

static inline int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int fd;

	if (!f)
		return -1;
	f->ram.size = RAM_SIZE;
	f->ram.host = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (f->ram.host == MAP_FAILED)
		return -1;
	strcpy(f->path, "/tmp/test_loader.XXXXXX");
	fd = mkstemp(f->path);
	if (fd < 0)
		return -1;
	close(fd);
	f->elf = make_elf();
	*state = f;
	return 0;
}

static inline int tear_down(void **state)
{
	struct fixture *f = *state;

	unlink(f->path);
	munmap(f->ram.host, f->ram.size);
	free(f->elf.data);
	free(f);
	return 0;
}

#endif
