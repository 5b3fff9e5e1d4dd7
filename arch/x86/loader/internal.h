/* SPDX-License-Identifier: MIT */
/* What the files of the loader share with each other; loader.h is for everyone else. */
#ifndef ARCH_X86_LOADER_INTERNAL_H
#define ARCH_X86_LOADER_INTERNAL_H

#include <elf.h>
#include <string.h>

#include "loader.h"

#define LOADER_MIB (1024ull * 1024)
#define LOADER_GIB (1024 * LOADER_MIB)
#define LOADER_2M  (2 * LOADER_MIB)

/* Linux maps its image at -2 GiB (__START_KERNEL_map) and gives it 1 GiB when it can be randomised. */
#define LINUX_KERNEL_MAP 0xffffffff80000000ull
#define LINUX_IMAGE_SIZE (1 * LOADER_GIB)

static inline uint16_t load16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint32_t load32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint64_t load64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* Is [off, off + len) inside [0, size)? Safe for every value. */
static inline bool fits(uint64_t off, uint64_t len, uint64_t size)
{
	return off <= size && len <= size - off;
}

/* util.c */

/* Put the sentence into err, return rc. */
int loader_fail(char *err, size_t errlen, int rc, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* dst <= src when they overlap. */
void loader_move_down(uint8_t *dst, const uint8_t *src, size_t len);
/* dst >= src when they overlap. */
void loader_move_up(uint8_t *dst, const uint8_t *src, size_t len);
void loader_zero(uint8_t *dst, size_t len);
/* dst holds zeroes and does not overlap src: pages of zeroes are not written. */
void loader_copy_sparse(uint8_t *dst, const uint8_t *src, size_t len);

/* map.c: the file of a kernel, read without copying it */
int file_map_open(struct file_map *map, const char *path, char *err, size_t errlen);
void file_map_close(struct file_map *map);

/* sniff.c: 0 and *kind, or -ENOEXEC and what the file is instead */
int loader_sniff(const uint8_t *data, size_t size, enum kernel_kind *kind, char *err, size_t errlen);

/* bzimage.c */
int bzimage_check(const uint8_t *data, size_t size, struct bzimage_info *info, char *err, size_t errlen);
int bzimage_load(const struct kernel_image *img, const struct ram_view *ram, const struct load_options *opt,
		 struct load_result *res, char *err, size_t errlen);

/* elf.c */
int elf_load(const struct kernel_image *img, const struct ram_view *ram, const struct load_options *opt,
	     struct load_result *res, char *err, size_t errlen);

/* decompress.c */

/*
 * Where unpacked bytes go. Formats made of independent blocks (lz4, lzo) ask for a place for each block, so
 * that a block may land in its final place; the others ask once, for offset 0.
 */
struct unpack_sink {
	/* Host address for the byte at `off`, and how many bytes may be written there; NULL: nothing fits. */
	uint8_t *(*place)(struct unpack_sink *sink, uint64_t off, uint64_t *room);
	/* [off, off + len) has been written; `last`: and it was the end. NULL, or why this cannot go on. */
	const char *(*settle)(struct unpack_sink *sink, uint64_t off, uint64_t len, bool last);
};

enum payload_format {
	PAYLOAD_UNKNOWN,
	PAYLOAD_GZIP,
	PAYLOAD_BZIP2,
	PAYLOAD_LZMA,
	PAYLOAD_XZ,
	PAYLOAD_LZO,
	PAYLOAD_LZ4,
	PAYLOAD_ZSTD,
	PAYLOAD_RAW,
};

enum payload_format payload_sniff(const uint8_t *data, size_t len);
const char *payload_name(enum payload_format format);
/* NULL, or in a few words why not; *total is the unpacked length. */
const char *payload_unpack(enum payload_format format, const uint8_t *data, size_t len, struct unpack_sink *sink,
			   uint64_t *total);

/* layout.c */

enum { LAYOUT_SEGMENTS = 16 };

struct layout_segment {
	uint64_t off; /* in the unpacked ELF */
	uint64_t filesz;
	uint64_t memsz;
	uint64_t dst;  /* guest-physical */
	uint64_t down; /* how far below its as-unpacked place it ends (modulo 2^64: up) */
};

/* The unpacked ELF of a bzImage on its way into place: see layout.c. */
struct layout {
	struct unpack_sink sink; /* first member */
	const struct ram_view *ram;
	uint64_t base;	 /* where the kernel starts */
	uint64_t limit;	 /* base + init_size, inside RAM */
	uint64_t pref;	 /* link address of what is put at base */
	uint64_t origin; /* where offset 0 of the ELF is unpacked to */
	uint64_t shift;	 /* of the block now being unpacked */
	bool parsed;
	bool ordered; /* each segment moves down at least as far as the one before it */
	unsigned int nseg;
	struct layout_segment seg[LAYOUT_SEGMENTS + 1]; /* the last one is what follows the segments */
	uint64_t total;
	uint64_t image_end; /* highest address used by a segment */
	uint64_t entry;
	struct gpa_range dirty;
};

/* base >= 2 MiB, base + span inside RAM. */
void layout_init(struct layout *l, const struct ram_view *ram, uint64_t base, uint64_t span, uint64_t pref);
/* After unpacking: what follows the ELF (the relocation table), aligned to 4; *len in bytes, 0 if nothing. */
const uint8_t *layout_tail(struct layout *l, uint64_t *len);
/* Last step: clear what the segments want to be zero. */
void layout_finish(struct layout *l, bool ram_is_zero);

/* kaslr.c */
struct kaslr_choice {
	uint64_t base; /* guest-physical */
	uint64_t virt_offset;
};

/* pref + init_size <= top. */
void kaslr_choose(const struct bzimage_info *info, uint64_t top, uint64_t random, struct kaslr_choice *out);
/*
 * Apply a relocation table of len bytes (4-aligned) to the image at host[0..size), linked at LINUX_KERNEL_MAP
 * + link. 0; -ENOENT if there is no table; -EINVAL if it is damaged (the image is then spoiled).
 */
int kaslr_relocate(uint8_t *host, uint64_t size, uint64_t link, const uint8_t *table, uint64_t len, uint64_t delta);

#endif
