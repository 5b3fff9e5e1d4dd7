/* SPDX-License-Identifier: MIT */
/*
 * The kernel loaders, fed with kernels made here: a small ELF with three segments and a relocation table,
 * packed by every compressor a kernel may use, whole, cut short, and damaged.
 *
 * With VMM_KERNELS set to a directory, every vmlinuz* in it is loaded too.
 */
#include <dirent.h>
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
#include <sys/stat.h>
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

static uint32_t next_random(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 8;
}

static void put16(uint8_t *p, uint16_t v)
{
	memcpy(p, &v, sizeof(v));
}

static void put32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
}

static void put64(uint8_t *p, uint64_t v)
{
	memcpy(p, &v, sizeof(v));
}

static void put_be32(uint8_t *p, uint32_t v)
{
	put32(p, __builtin_bswap32(v));
}

/* Half compressible: runs of a byte, random bytes, copies of what came before. */
static void fill(uint8_t *p, size_t len, uint32_t seed)
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

static void put_phdr(uint8_t *elf, unsigned int i, uint64_t off, uint64_t paddr, uint64_t filesz, uint64_t memsz)
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

/* Room for a table behind it; len is that of the ELF alone. */
static struct bytes make_elf(void)
{
	struct bytes b = { calloc(1, PAYLOAD_MAX), ELF_LEN };
	Elf64_Ehdr eh = {
		.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_entry = PREF + 0x40,
		.e_phoff = sizeof(eh),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 3,
		.e_shoff = INIT_OFF + INIT_LEN,
		.e_shentsize = sizeof(Elf64_Shdr),
		.e_shnum = 2,
	};

	assert_non_null(b.data);
	memcpy(b.data, &eh, sizeof(eh));
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

static void put_list(struct bytes *b, const uint32_t *places, size_t n)
{
	size_t i;

	put32(b->data + b->len, 0);
	b->len += 4;
	for (i = 0; i < n; i++, b->len += 4)
		put32(b->data + b->len, (uint32_t)(LINUX_KERNEL_MAP + PREF + places[i]));
}

static void put_relocations(struct bytes *b, bool negated)
{
	put_list(b, places64, sizeof(places64) / 4);
	if (negated)
		put_list(b, places_neg, sizeof(places_neg) / 4);
	put_list(b, places32, sizeof(places32) / 4);
}

/* The compressors. Each returns the packed bytes in memory of PACK_MAX bytes. */
#define PACK_MAX (PAYLOAD_MAX + PAYLOAD_MAX / 8 + 65536)

static size_t pack_gzip(const struct bytes *in, uint8_t *out)
{
	z_stream z = { .next_in = in->data, .avail_in = (uInt)in->len, .next_out = out, .avail_out = PACK_MAX };

	assert_int_equal(deflateInit2(&z, 1, Z_DEFLATED, 16 + 15, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out;
}

static size_t pack_bzip2(const struct bytes *in, uint8_t *out)
{
	unsigned int len = PACK_MAX;

	assert_int_equal(BZ2_bzBuffToBuffCompress((char *)out, &len, (char *)in->data, (unsigned int)in->len, 1, 0, 0),
			 BZ_OK);
	return len;
}

static size_t pack_xz(const struct bytes *in, uint8_t *out)
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

static size_t pack_lzma(const struct bytes *in, uint8_t *out)
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

static size_t pack_zstd(const struct bytes *in, uint8_t *out)
{
	size_t len = ZSTD_compress(out, PACK_MAX, in->data, in->len, 1);

	assert_false(ZSTD_isError(len));
	return len;
}

static size_t pack_lz4(const struct bytes *in, uint8_t *out)
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

static size_t pack_lzo(const struct bytes *in, uint8_t *out)
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

static size_t pack_raw(const struct bytes *in, uint8_t *out)
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
static struct bytes make_bzimage(const struct bytes *elf, const struct packer *packer)
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

static void write_file(struct fixture *f, const uint8_t *data, size_t len)
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
static void reset_ram(struct fixture *f)
{
	assert_int_equal(madvise(f->ram.host, f->ram.size, MADV_DONTNEED), 0);
}

static int load_path(struct fixture *f, const struct load_options *opt, struct load_result *res)
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

static int load_bytes(struct fixture *f, const struct bytes *b, const struct load_options *opt, struct load_result *res)
{
	write_file(f, b->data, b->len);
	return load_path(f, opt, res);
}

/* The same without a file: for many cases. */
static int load_memory(struct fixture *f, const uint8_t *data, size_t len, const struct load_options *opt,
		       struct load_result *res)
{
	struct kernel_image img = { .map = { .data = (uint8_t *)(uintptr_t)data, .size = len } };
	int rc = loader_sniff(data, len, &img.kind, f->err, sizeof(f->err));

	if (!rc && img.kind == KERNEL_BZIMAGE)
		rc = bzimage_check(data, len, &img.bz, f->err, sizeof(f->err));
	return rc ? rc : loader_load(&img, &f->ram, opt, res, f->err, sizeof(f->err));
}

static const struct load_options plain = { .ram_is_zero = true };

static bool all_zero(const uint8_t *p, size_t len)
{
	return !len || (!p[0] && memcmp(p, p + 1, len - 1) == 0);
}

/* The segments of the unrelocated image are at base. */
static void check_image(const struct fixture *f, uint64_t base)
{
	const uint8_t *ram = f->ram.host + base;

	assert_memory_equal(ram, f->elf.data + TEXT_OFF, TEXT_LEN);
	assert_memory_equal(ram + 0x400000, f->elf.data + DATA_OFF, DATA_LEN);
	assert_memory_equal(ram + INIT_REL, f->elf.data + INIT_OFF, INIT_LEN);
	assert_true(all_zero(ram + INIT_REL + INIT_LEN, BSS_LEN));
}

/* Nothing outside what the result calls dirty has been written. */
static void check_dirty(const struct fixture *f, const struct load_result *res)
{
	assert_true(res->dirty.end <= f->ram.size);
	assert_true(all_zero(f->ram.host, res->dirty.start));
	assert_true(all_zero(f->ram.host + res->dirty.end, f->ram.size - res->dirty.end));
}

static void every_compression_unpacks(void **state)
{
	struct fixture *f = *state;
	size_t i;

	for (i = 0; i < sizeof(packers) / sizeof(packers[0]); i++) {
		struct bytes bz = make_bzimage(&f->elf, &packers[i]);
		struct load_result res;

		reset_ram(f);
		assert_int_equal(load_bytes(f, &bz, &plain, &res), 0);
		assert_string_equal(res.note, "");
		assert_string_equal(res.format, packers[i].name);
		assert_true(res.unpacked && res.is_linux && !res.kaslr);
		assert_int_equal(res.entry_linux64, PREF + 0x40);
		assert_int_equal(res.image.start, PREF);
		assert_int_equal(res.image.end, PREF + INIT_SIZE);
		assert_int_equal(res.cmdline_max, 2047);
		assert_int_equal(res.initrd_max, 0x7fffffff);
		assert_int_equal(res.setup_header_len, 0x26c - 0x1f1);
		assert_memory_equal(res.setup_header, bz.data + 0x1f1, res.setup_header_len);
		check_image(f, PREF);
		check_dirty(f, &res);
		/* And into RAM that held something else. */
		memset(f->ram.host, 0xa5, f->ram.size);
		assert_int_equal(load_bytes(f, &bz, &(struct load_options){ .ram_is_zero = false }, &res), 0);
		check_image(f, PREF);
		free(bz.data);
	}
}

static uint64_t expect_moved(const struct fixture *f, const uint8_t *image, uint32_t place, unsigned int size)
{
	const uint8_t *elf = f->elf.data;
	uint64_t was = 0, is = 0;
	uint32_t off;

	if (place >= INIT_REL)
		off = INIT_OFF + (place - INIT_REL);
	else
		off = place >= 0x400000 ? DATA_OFF + (place - 0x400000) : TEXT_OFF + place;
	memcpy(&was, elf + off, size);
	memcpy(&is, image + place, size);
	return is - was;
}

static void check_relocated(const struct fixture *f, const struct load_result *res, bool negated)
{
	const uint8_t *image = f->ram.host + res->image.start;
	uint64_t delta = res->virt_offset;
	size_t i;

	for (i = 0; i < sizeof(places32) / 4; i++)
		assert_int_equal((uint32_t)expect_moved(f, image, places32[i], 4), (uint32_t)delta);
	for (i = 0; i < sizeof(places_neg) / 4; i++)
		assert_int_equal((uint32_t)expect_moved(f, image, places_neg[i], 4), negated ? (uint32_t)-delta : 0);
	for (i = 0; i < sizeof(places64) / 4; i++)
		assert_int_equal(expect_moved(f, image, places64[i], 8), delta);
	/* A byte that no relocation touches. */
	assert_int_equal(image[0x400300], f->elf.data[DATA_OFF + 0x300]);
	assert_int_equal(image[TEXT_LEN - 1], f->elf.data[TEXT_OFF + TEXT_LEN - 1]);
}

static void both_relocation_tables_apply(void **state)
{
	struct fixture *f = *state;
	int negated;
	size_t i;

	for (negated = 0; negated < 2; negated++) {
		struct bytes elf = make_elf();

		put_relocations(&elf, negated);
		for (i = 0; i < sizeof(packers) / sizeof(packers[0]); i++) {
			struct bytes bz = make_bzimage(&elf, &packers[i]);
			struct load_options opt = { .kaslr = true, .ram_is_zero = true, .random = 0x9e3779b97f4a7c15 };
			struct load_result res;

			reset_ram(f);
			assert_int_equal(load_bytes(f, &bz, &opt, &res), 0);
			assert_string_equal(res.note, "");
			assert_true(res.kaslr && res.unpacked);
			assert_true(res.virt_offset && res.virt_offset % 0x200000 == 0);
			assert_true(res.image.start >= PREF && res.image.start % 0x200000 == 0);
			assert_true(res.image.end <= RAM_SIZE);
			assert_int_equal(res.entry_linux64, res.image.start + 0x40);
			check_relocated(f, &res, negated);
			check_dirty(f, &res);
			free(bz.data);
		}
		free(elf.data);
	}
}

static void kaslr_stays_in_bounds(void **state)
{
	const struct bzimage_info bz = { .alignment = 0x200000, .pref_address = PREF, .init_size = INIT_SIZE };
	const uint64_t randoms[] = { 0, UINT64_MAX, 0xffffffff, 0xffffffff00000000, 0x8000000080000000 };
	struct kaslr_choice first = { 0 }, last = { 0 };
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(randoms) / 8; i++) {
		struct kaslr_choice c;

		kaslr_choose(&bz, RAM_SIZE, randoms[i], &c);
		assert_true(c.base >= PREF && c.base + INIT_SIZE <= RAM_SIZE && c.base % 0x200000 == 0);
		assert_true(PREF + c.virt_offset + INIT_SIZE <= LINUX_IMAGE_SIZE && c.virt_offset % 0x200000 == 0);
		if (i == 0)
			first = c;
		if (i == 1)
			last = c;
	}
	assert_int_equal(first.base, PREF);
	assert_int_equal(first.virt_offset, 0);
	assert_int_equal(last.base, RAM_SIZE - INIT_SIZE);
	assert_int_equal(last.virt_offset, LINUX_IMAGE_SIZE - PREF - INIT_SIZE);
}

static void top_keeps_kernel_below(void **state)
{
	struct fixture *f = *state;
	struct bytes bz = make_bzimage(&f->elf, lz4);
	struct load_options opt = { .kaslr = true, .ram_is_zero = true, .random = UINT64_MAX, .top = 40 * MIB };
	struct load_result res;

	assert_int_equal(load_bytes(f, &bz, &opt, &res), 0);
	assert_int_equal(res.image.end, 40 * MIB);
	opt.top = 27 * MIB;
	assert_int_equal(load_path(f, &opt, &res), -ENOMEM);
	assert_non_null(strstr(f->err, "needs memory up to 28 MiB"));
	free(bz.data);
}

static void hostile_relocations_are_refused(void **state)
{
	struct fixture *f = *state;
	const uint32_t link = (uint32_t)(LINUX_KERNEL_MAP + PREF), end = INIT_REL + INIT_LEN + BSS_LEN;
	const uint32_t bad[] = { link - 1, link + end - 3, link + end, 0x7fffffff, 1, 0xffffffff };
	struct load_options opt = { .kaslr = true, .ram_is_zero = true, .random = UINT64_MAX / 3 };
	size_t i, list;

	for (i = 0; i < sizeof(bad) / 4; i++) {
		for (list = 0; list < 3; list++) {
			struct bytes elf = make_elf(), bz;
			struct load_result res;

			put_relocations(&elf, true);
			/* Table: 0, 4 places, 0, 2 places, 0, 4 places */
			put32(elf.data + ELF_LEN + 4 * (list == 0 ? 2 : list == 1 ? 6 : 9), bad[i]);
			bz = make_bzimage(&elf, lz4);
			assert_int_equal(load_bytes(f, &bz, &opt, &res), 0);
			assert_false(res.unpacked || res.kaslr);
			assert_non_null(strstr(res.note, "relocation table is damaged"));
			assert_int_equal(res.entry_linux64, res.image.start + 0x200);
			free(bz.data);
			free(elf.data);
		}
	}
}

static void kernel_without_relocations_is_told(void **state)
{
	struct fixture *f = *state;
	struct bytes bz = make_bzimage(&f->elf, lz4);
	struct load_options opt = { .kaslr = true, .ram_is_zero = true, .random = 7 };
	struct load_result res;

	assert_int_equal(load_bytes(f, &bz, &opt, &res), 0);
	assert_true(res.unpacked);
	assert_false(res.kaslr);
	assert_non_null(strstr(res.note, "no relocations"));
	check_image(f, res.image.start);
	free(bz.data);
}

static void guest_unpacks_itself(void **state)
{
	struct fixture *f = *state;
	struct bytes bz = make_bzimage(&f->elf, lz4);
	struct load_options opt = { .guest_unpack = true, .ram_is_zero = true };
	struct load_result res;

	reset_ram(f);
	assert_int_equal(load_bytes(f, &bz, &opt, &res), 0);
	assert_int_equal(res.entry_linux64, PREF + 0x200);
	assert_int_equal(res.image.end, PREF + INIT_SIZE);
	assert_false(res.unpacked);
	assert_memory_equal(f->ram.host + PREF, bz.data + SETUP, bz.len - SETUP);
	check_dirty(f, &res);
	/* Payload of an unknown kind: the same, with a note. */
	memset(bz.data + SETUP + 0x240, 0x77, 16);
	assert_int_equal(load_bytes(f, &bz, &plain, &res), 0);
	assert_non_null(strstr(res.note, "compression"));
	assert_int_equal(res.entry_linux64, PREF + 0x200);
	/* Without a 64-bit entry there is nothing to fall back to. */
	put16(bz.data + 0x236, 0);
	assert_int_equal(load_bytes(f, &bz, &plain, &res), -ENOEXEC);
	assert_non_null(strstr(f->err, "no 64-bit entry"));
	free(bz.data);
}

static void segments_in_odd_places_load(void **state)
{
	struct fixture *f = *state;
	const struct {
		uint64_t off, rel, len;
	} seg[3] = {
		/* The first neither at 2 MiB nor in its place; the second goes up by 1 MiB; the third down.
		 */
		{ 0x1000, 0, 0x180000 },
		{ 0x200000, 0x2ff000, 0x80000 },
		{ 0x600000, 0x400000, 0x90000 },
	};
	size_t i, p;

	for (p = 0; p < sizeof(packers) / sizeof(packers[0]); p++) {
		struct bytes elf = make_elf(), bz;
		struct load_result res;

		for (i = 0; i < 3; i++) {
			put_phdr(elf.data, (unsigned int)i, seg[i].off, PREF + seg[i].rel, seg[i].len, seg[i].len);
			fill(elf.data + seg[i].off, seg[i].len, (uint32_t)(p + 7 * i));
		}
		bz = make_bzimage(&elf, &packers[p]);
		reset_ram(f);
		assert_int_equal(load_bytes(f, &bz, &plain, &res), 0);
		assert_string_equal(res.note, "");
		for (i = 0; i < 3; i++)
			assert_memory_equal(f->ram.host + PREF + seg[i].rel, elf.data + seg[i].off, seg[i].len);
		check_dirty(f, &res);
		free(bz.data);
		free(elf.data);
	}
}

static void payload_larger_than_init_size_is_stopped(void **state)
{
	struct fixture *f = *state;
	size_t i;

	for (i = 0; i < sizeof(packers) / sizeof(packers[0]); i++) {
		struct bytes bz = make_bzimage(&f->elf, &packers[i]);
		struct load_result res;

		/* Smaller than the ELF, larger than the packed code where that is possible */
		put32(bz.data + 0x260, 6 * MIB);
		reset_ram(f);
		if (bz.len - SETUP > 6 * MIB) {
			assert_int_equal(load_bytes(f, &bz, &plain, &res), -ENOEXEC);
		} else {
			assert_int_equal(load_bytes(f, &bz, &plain, &res), 0);
			assert_false(res.unpacked);
			assert_non_null(strstr(res.note, "init_size"));
			assert_true(res.dirty.end <= PREF + 6 * MIB);
			check_dirty(f, &res);
		}
		free(bz.data);
	}
}

static void truncated_at_every_sector_fails(void **state)
{
	struct fixture *f = *state;
	struct bytes bz = make_bzimage(&f->elf, lz4);
	size_t len;

	for (len = 512; len < bz.len; len += 512) {
		/* A copy of exactly that size, so that the sanitizer sees a read past the end. */
		uint8_t *copy = len < 65536 || len % 65536 == 0 ? malloc(len) : NULL;
		struct load_result res;

		if (copy)
			memcpy(copy, bz.data, len);
		assert_int_equal(load_memory(f, copy ? copy : bz.data, len, &plain, &res), -ENOEXEC);
		if (len >= SETUP)
			assert_non_null(strstr(f->err, "truncated"));
		free(copy);
	}
	write_file(f, bz.data, bz.len - 1);
	assert_int_equal(load_path(f, &plain, &(struct load_result){ 0 }), -ENOEXEC);
	free(bz.data);
}

/* A payload cut short with a header that does not know. */
static void truncated_payloads_fall_back(void **state)
{
	struct fixture *f = *state;
	size_t i, cut;

	for (i = 0; i < sizeof(packers) / sizeof(packers[0]); i++) {
		struct bytes bz = make_bzimage(&f->elf, &packers[i]);
		uint32_t len = load32(bz.data + 0x24c);

		for (cut = 1; cut < 12; cut++) {
			struct load_result res;

			put32(bz.data + 0x24c, (uint32_t)(len - len / 12 * cut));
			assert_int_equal(load_memory(f, bz.data, bz.len, &plain, &res), 0);
			assert_false(res.unpacked);
			assert_true(res.note[0]);
		}
		free(bz.data);
	}
}

static void hostile_header_fields_are_told(void **state)
{
	static const struct {
		unsigned int off, len;
		uint64_t value;
		const char *told;
	} cases[] = {
		{ 0x1f4, 4, 0, "syssize" },
		{ 0x1f4, 4, 0xffffffff, "truncated" },
		{ 0x1f1, 1, 255, "truncated" },
		{ 0x206, 2, 0x0209, "too old: boot protocol 2.09" },
		{ 0x211, 1, 0, "zImage" },
		{ 0x230, 4, 0, "kernel_alignment" },
		{ 0x230, 4, 3, "kernel_alignment" },
		{ 0x230, 4, 0x80000000, "kernel_alignment" },
		{ 0x258, 8, 0, "pref_address" },
		{ 0x258, 8, 0x1001000, "pref_address" },
		{ 0x258, 8, 0xffffffffffe00000, "pref_address" },
		{ 0x258, 8, 0x20000000, "needs memory up to" },
		{ 0x260, 4, 0, "init_size" },
		{ 0x260, 4, 0xffffffff, "init_size" },
		{ 0x260, 4, 0x30000000, "needs memory up to" },
		/* These are told in the note: the guest unpacks itself. */
		{ 0x248, 4, 0xffffffff, NULL },
		{ 0x24c, 4, 0xffffffff, NULL },
		{ 0x24c, 4, 0, NULL },
		{ 0x24c, 4, 15, NULL },
	};
	struct fixture *f = *state;
	struct bytes bz = make_bzimage(&f->elf, lz4);
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t old[8];
		struct load_result res;
		int rc;

		memcpy(old, bz.data + cases[i].off, 8);
		memcpy(bz.data + cases[i].off, &cases[i].value, cases[i].len);
		rc = load_memory(f, bz.data, bz.len, &plain, &res);
		memcpy(bz.data + cases[i].off, old, 8);
		if (cases[i].told) {
			assert_true(rc < 0);
			assert_non_null(strstr(f->err, cases[i].told));
		} else {
			assert_int_equal(rc, 0);
			assert_false(res.unpacked);
			assert_true(res.note[0]);
		}
	}
	/* Zero setup sectors mean four. */
	bz.data[0x1f1] = 0;
	{
		struct bzimage_info info;

		put32(bz.data + 0x1f4, 0x100);
		assert_int_equal(bzimage_check(bz.data, bz.len, &info, f->err, sizeof(f->err)), 0);
		assert_int_equal(info.setup_size, 5 * 512);
	}
	free(bz.data);
}

/* A small kernel, so that thousands of damaged ones load in seconds. */
static struct bytes make_small_elf(uint32_t seed)
{
	struct bytes b = { calloc(1, PAYLOAD_MAX), 0x8000 };
	Elf64_Ehdr eh = {
		.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_entry = PREF + 0x40,
		.e_phoff = sizeof(eh),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 3,
		.e_shoff = 0x8000 - 2 * 64,
		.e_shentsize = sizeof(Elf64_Shdr),
		.e_shnum = 2,
	};

	assert_non_null(b.data);
	memcpy(b.data, &eh, sizeof(eh));
	put_phdr(b.data, 0, 0x1000, PREF, 0x2000, 0x2000);
	put_phdr(b.data, 1, 0x4000, PREF + 0x2800, 0x1000, 0x1000);
	put_phdr(b.data, 2, 0x6000, PREF + 0x4000, 0x1000, 0x3000);
	fill(b.data + 0x1000, 0x6000, seed);
	put_list(&b, (uint32_t[]){ 0x18, 0x2900, 0x4000 }, 3);
	put_list(&b, (uint32_t[]){ 0x28 }, 1);
	put_list(&b, (uint32_t[]){ 0x38, 0x48 }, 2);
	return b;
}

static void flip_and_load(struct fixture *f, const uint8_t *data, size_t len, unsigned int cases, uint32_t seed)
{
	uint8_t *copy = malloc(len);
	unsigned int i, k;

	assert_non_null(copy);
	for (i = 0; i < cases; i++) {
		struct load_options opt = { .kaslr = i & 1, .ram_is_zero = true, .random = seed * 0x9e3779b97f4a7c15 };
		struct load_result res;
		/* Half of the damage goes to the headers. */
		size_t span = i & 2 && len > 2048 ? 2048 : len;
		int rc;

		memcpy(copy, data, len);
		for (k = next_random(&seed) % 4 + 1; k; k--)
			copy[next_random(&seed) % span] ^= (uint8_t)(1u << (next_random(&seed) & 7));
		f->err[0] = 0;
		rc = load_memory(f, copy, len, &opt, &res);
		if (rc) {
			assert_true(f->err[0]);
		} else {
			assert_true(res.image.start < res.image.end && res.image.end <= f->ram.size);
			assert_true(res.entry_linux64 || res.entry_pvh);
			assert_true(res.entry_linux64 < f->ram.size && res.entry_pvh < f->ram.size);
			assert_true(res.dirty.start < res.dirty.end && res.dirty.end <= f->ram.size);
		}
	}
	free(copy);
}

static void flipped_bits_do_no_harm(void **state)
{
	struct fixture *f = *state;
	struct bytes elf = make_small_elf(9);
	size_t i;

	for (i = 0; i < sizeof(packers) / sizeof(packers[0]); i++) {
		struct bytes bz = make_bzimage(&elf, &packers[i]);

		put32(bz.data + 0x260, 0x40000);
		flip_and_load(f, bz.data, bz.len, 600, (uint32_t)i + 1);
		free(bz.data);
	}
	flip_and_load(f, elf.data, elf.len, 2000, 99);
	free(elf.data);
}

static struct bytes make_vmlinux(const struct fixture *f, uint32_t pvh)
{
	struct bytes b = { malloc(PAYLOAD_MAX), ELF_LEN };
	Elf64_Phdr note = { .p_type = PT_NOTE, .p_offset = TEXT_OFF + 0x1000, .p_filesz = 20 + 20 };
	uint8_t *n;

	assert_non_null(b.data);
	memcpy(b.data, f->elf.data, ELF_LEN);
	n = b.data + TEXT_OFF + 0x1000;
	put16(b.data + offsetof(Elf64_Ehdr, e_phnum), 4);
	memcpy(b.data + 64 + 3 * sizeof(note), &note, sizeof(note));
	/* A note of another owner first */
	memcpy(n, "\4\0\0\0\4\0\0\0\x12\0\0\0GNU\0\1\2\3\4", 20);
	memcpy(n + 20, "\4\0\0\0\4\0\0\0\x12\0\0\0Xen\0", 16);
	put32(n + 36, pvh);
	return b;
}

static void vmlinux_loads(void **state)
{
	struct fixture *f = *state;
	struct bytes elf = make_vmlinux(f, PREF + 0x50);
	struct bytes saved = f->elf;
	struct load_result res;

	reset_ram(f);
	assert_int_equal(load_bytes(f, &elf, &plain, &res), 0);
	assert_string_equal(res.format, "ELF");
	assert_true(res.is_linux);
	assert_int_equal(res.entry_linux64, PREF + 0x40);
	assert_int_equal(res.entry_pvh, PREF + 0x50);
	assert_int_equal(res.image.start, PREF);
	assert_int_equal(res.image.end, PREF + INIT_REL + INIT_LEN + BSS_LEN);
	f->elf = elf;
	check_image(f, PREF);
	check_dirty(f, &res);
	memset(f->ram.host, 0xa5, f->ram.size);
	assert_int_equal(load_path(f, &(struct load_options){ .ram_is_zero = false }, &res), 0);
	check_image(f, PREF);
	f->elf = saved;
	/* A virtual entry means the same; a PVH entry outside the image is none. */
	put64(elf.data + offsetof(Elf64_Ehdr, e_entry), LINUX_KERNEL_MAP + PREF + 0x40);
	put32(elf.data + TEXT_OFF + 0x1000 + 36, 0x100);
	assert_int_equal(load_bytes(f, &elf, &plain, &res), 0);
	assert_int_equal(res.entry_linux64, PREF + 0x40);
	assert_int_equal(res.entry_pvh, 0);
	free(elf.data);
}

static void damaged_vmlinux_is_told(void **state)
{
	static const struct {
		unsigned int phdr, field;
		uint64_t value;
		const char *told;
	} cases[] = {
		{ 0, offsetof(Elf64_Phdr, p_offset), 0xffffffffffffff00, "truncated" },
		{ 2, offsetof(Elf64_Phdr, p_offset), ELF_LEN - 8, "truncated" },
		{ 0, offsetof(Elf64_Phdr, p_filesz), TEXT_LEN + 1, "larger in the file" },
		{ 0, offsetof(Elf64_Phdr, p_memsz), 0xffffffffffffff00, "low memory ends" },
		{ 1, offsetof(Elf64_Phdr, p_paddr), RAM_SIZE - 4096, "low memory ends" },
		{ 1, offsetof(Elf64_Phdr, p_paddr), 0xfffffffffffff000, "low memory ends" },
		{ 1, offsetof(Elf64_Phdr, p_paddr), 0x8000, "below 1 MiB" },
		{ 1, offsetof(Elf64_Phdr, p_paddr), PREF + 0x1000, "overlap" },
	};
	struct fixture *f = *state;
	struct load_result res;
	size_t i, len;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bytes elf = make_vmlinux(f, PREF + 0x50);

		put64(elf.data + 64 + cases[i].phdr * sizeof(Elf64_Phdr) + cases[i].field, cases[i].value);
		assert_true(load_memory(f, elf.data, elf.len, &plain, &res) < 0);
		assert_non_null(strstr(f->err, cases[i].told));
		free(elf.data);
	}
	for (len = 4; len < ELF_LEN - 128; len += len < 4096 ? 1 : 65536) {
		uint8_t *copy = malloc(len);

		assert_non_null(copy);
		memcpy(copy, f->elf.data, len);
		assert_true(load_memory(f, copy, len, &plain, &res) < 0);
		assert_non_null(strstr(f->err, "truncated"));
		free(copy);
	}
}

static void other_files_are_named(void **state)
{
	static const struct {
		unsigned int off, len;
		const char *bytes, *told;
	} cases[] = {
		{ 0, 3, "\x1f\x8b\x08", "gunzip" },
		{ 0, 6,
		  "\xfd"
		  "7zXZ\0",
		  "unxz" },
		{ 0, 4, "\x28\xb5\x2f\xfd", "unzstd" },
		{ 0, 20,
		  "\x7f"
		  "ELF\2\1\1\0\0\0\0\0\0\0\0\0\2\0\xb7\0",
		  "ARM64" },
		{ 0, 20,
		  "\x7f"
		  "ELF\1\1\1\0\0\0\0\0\0\0\0\0\2\0\3\0",
		  "32-bit" },
		{ 0, 20,
		  "\x7f"
		  "ELF\2\2\1\0\0\0\0\0\0\0\0\0\0\2\0\x16",
		  "big-endian" },
		{ 0, 20,
		  "\x7f"
		  "ELF\2\1\1\0\0\0\0\0\0\0\0\0\1\0\x3e\0",
		  "kernel module" },
		{ 0x38, 4, "ARM\x64", "ARM64 kernel Image" },
		{ 0, 2, "MZ", "EFI" },
		{ 0, 4, "QFI\xfb", "qcow2" },
		{ 0x8001, 5, "CD001", "ISO 9660" },
		{ 0x1fe, 2, "\x55\xaa", "boot sector" },
		{ 0, 6, "070701", "--initrd" },
		{ 0, 4, "\x27\x05\x19\x56", "uImage" },
	};
	struct fixture *f = *state;
	struct kernel_image img;
	uint8_t *buf = malloc(0x9000);
	size_t i;

	assert_non_null(buf);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		memset(buf, 0, 0x9000);
		memcpy(buf + cases[i].off, cases[i].bytes, cases[i].len);
		write_file(f, buf, 0x9000);
		assert_int_equal(loader_open(&img, f->path, f->err, sizeof(f->err)), -ENOEXEC);
		assert_non_null(strstr(f->err, cases[i].told));
	}
	write_file(f, (const uint8_t *)"hello\n", 6);
	assert_int_equal(loader_open(&img, f->path, f->err, sizeof(f->err)), -ENOEXEC);
	assert_non_null(strstr(f->err, "text file"));
	write_file(f, buf, 0);
	assert_int_equal(loader_open(&img, f->path, f->err, sizeof(f->err)), -ENOEXEC);
	assert_string_equal(f->err, "is an empty file");
	assert_int_equal(loader_open(&img, "/", f->err, sizeof(f->err)), -EISDIR);
	assert_int_equal(loader_open(&img, "/dev/null", f->err, sizeof(f->err)), -EINVAL);
	assert_int_equal(loader_open(&img, "/nonexistent/kernel", f->err, sizeof(f->err)), -ENOENT);
	assert_string_equal(f->err, "open: No such file or directory");
	free(buf);
}

/* The file shrinks between open and load: an error, not SIGBUS. */
static void shrinking_file_is_an_error(void **state)
{
	struct fixture *f = *state;
	struct bytes bz = make_bzimage(&f->elf, lz4);
	struct sigaction before, after;
	struct kernel_image img;
	struct load_result res;

	sigaction(SIGBUS, NULL, &before);
	write_file(f, bz.data, bz.len);
	assert_int_equal(loader_open(&img, f->path, f->err, sizeof(f->err)), 0);
	assert_int_equal(truncate(f->path, 8192), 0);
	assert_int_equal(loader_load(&img, &f->ram, &plain, &res, f->err, sizeof(f->err)), -EIO);
	assert_non_null(strstr(f->err, "shrank"));
	loader_close(&img);
	sigaction(SIGBUS, NULL, &after);
	assert_true(before.sa_handler == after.sa_handler);
	free(bz.data);
}

/* loader_place_file() for a path. */
static int place_path(const struct ram_view *ram, const char *path, uint64_t max, uint64_t align,
		      const struct gpa_range *avoid, struct gpa_range *where, char *err, size_t errlen)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), ret;

	assert_true(fd >= 0);
	ret = loader_place_file(ram, fd, max, align, avoid, where, err, errlen);
	close(fd);
	return ret;
}

static void files_are_placed_high(void **state)
{
	struct fixture *f = *state;
	const struct gpa_range kernel = { 16 * MIB, 28 * MIB };
	struct gpa_range at;
	uint8_t *data = malloc(5 * MIB);
	char fd_path[32];
	int fds[2];

	assert_non_null(data);
	fill(data, 5 * MIB, 77);
	write_file(f, data, 5 * MIB - 3);
	assert_int_equal(place_path(&f->ram, f->path, 0x7fffffff, 4096, &kernel, &at, f->err, 256), 0);
	assert_int_equal(at.start, RAM_SIZE - 5 * MIB);
	assert_int_equal(at.end - at.start, 5 * MIB - 3);
	assert_memory_equal(f->ram.host + at.start, data, 5 * MIB - 3);
	/* A limit inside the kernel puts it below the kernel. */
	assert_int_equal(place_path(&f->ram, f->path, 20 * MIB, 4096, &kernel, &at, f->err, 256), 0);
	assert_int_equal(at.start, 11 * MIB);
	/* The last byte may be at the limit. */
	assert_int_equal(place_path(&f->ram, f->path, 40 * MIB - 4, 1, &kernel, &at, f->err, 256), 0);
	assert_int_equal(at.end, 40 * MIB - 3);
	assert_int_equal(place_path(&f->ram, f->path, 5 * MIB, 4096, &kernel, &at, f->err, 256), -ENOMEM);
	assert_non_null(strstr(f->err, "too large"));
	assert_int_equal(place_path(&f->ram, "/dev/zero", 0x7fffffff, 4096, &kernel, &at, f->err, 256), -ENOMEM);
	write_file(f, data, 0);
	assert_int_equal(place_path(&f->ram, f->path, 0x7fffffff, 4096, &kernel, &at, f->err, 256), -EINVAL);
	assert_string_equal(f->err, "is empty");
	assert_int_equal(place_path(&f->ram, "/", 0x7fffffff, 4096, &kernel, &at, f->err, 256), -EISDIR);
	/* A pipe */
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], data, 30000), 30000);
	close(fds[1]);
	snprintf(fd_path, sizeof(fd_path), "/dev/fd/%d", fds[0]);
	assert_int_equal(place_path(&f->ram, fd_path, 0x7fffffff, 4096, &kernel, &at, f->err, 256), 0);
	assert_int_equal(at.start, RAM_SIZE - 32768);
	assert_int_equal(at.end - at.start, 30000);
	assert_memory_equal(f->ram.host + at.start, data, 30000);
	close(fds[0]);
	free(data);
}

static void load_real_kernel(const char *path)
{
	struct ram_view ram = { .size = 256 * MIB };
	struct load_options opt = { .kaslr = true, .ram_is_zero = true, .random = 0x0123456789abcdef };
	struct kernel_image img;
	struct load_result res;
	char err[256] = "";

	ram.host = mmap(NULL, ram.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(ram.host, MAP_FAILED);
	assert_int_equal(loader_open(&img, path, err, sizeof(err)), 0);
	assert_int_equal(loader_load(&img, &ram, &opt, &res, err, sizeof(err)), 0);
	loader_close(&img);
	print_message("%s: %s, note '%s'\n", path, res.format, res.note);
	assert_true(res.unpacked && res.kaslr && res.virt_offset);
	munmap(ram.host, ram.size);
}

static void real_kernels_load(void **state)
{
	const char *dir = getenv("VMM_KERNELS");
	struct dirent *e;
	unsigned int n = 0;
	DIR *d;

	(void)state;
	if (!dir) {
		print_message("VMM_KERNELS is not set to a directory with kernels\n");
		skip();
	}
	d = opendir(dir);
	assert_non_null(d);
	while ((e = readdir(d))) {
		char path[512];

		if (strncmp(e->d_name, "vmlinuz", 7) != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		load_real_kernel(path);
		n++;
	}
	closedir(d);
	assert_true(n > 0);
}

static int set_up(void **state)
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

static int tear_down(void **state)
{
	struct fixture *f = *state;

	unlink(f->path);
	munmap(f->ram.host, f->ram.size);
	free(f->elf.data);
	free(f);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_compression_unpacks),
		cmocka_unit_test(both_relocation_tables_apply),
		cmocka_unit_test(kaslr_stays_in_bounds),
		cmocka_unit_test(top_keeps_kernel_below),
		cmocka_unit_test(hostile_relocations_are_refused),
		cmocka_unit_test(kernel_without_relocations_is_told),
		cmocka_unit_test(guest_unpacks_itself),
		cmocka_unit_test(segments_in_odd_places_load),
		cmocka_unit_test(payload_larger_than_init_size_is_stopped),
		cmocka_unit_test(truncated_at_every_sector_fails),
		cmocka_unit_test(truncated_payloads_fall_back),
		cmocka_unit_test(hostile_header_fields_are_told),
		cmocka_unit_test(flipped_bits_do_no_harm),
		cmocka_unit_test(vmlinux_loads),
		cmocka_unit_test(damaged_vmlinux_is_told),
		cmocka_unit_test(other_files_are_named),
		cmocka_unit_test(shrinking_file_is_an_error),
		cmocka_unit_test(files_are_placed_high),
		cmocka_unit_test(real_kernels_load),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
