/* SPDX-License-Identifier: MIT */
/*
 * Kernel image loaders: a bzImage or an ELF64 vmlinux goes from a file into guest RAM.
 *
 * Call order, all on one thread, before the guest and its other threads exist:
 *
 *	loader_open()	map the file, say what it is
 *	loader_load()	put it into RAM, report entries and ranges
 *	loader_close()	unmap
 *	loader_place_file()	the initrd, below or above the kernel
 *
 * The kernel must be loaded before the caller writes anything of its own (boot_params, page tables, ACPI) to
 *RAM: load_result.dirty tells which part of RAM the loader wrote besides the image.
 */
#ifndef ARCH_X86_LOADER_LOADER_H
#define ARCH_X86_LOADER_LOADER_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Guest-physical 0..size, one contiguous host mapping; size is at most 2 GiB. Owned by the caller. */
struct ram_view {
	uint8_t *host;
	uint64_t size;
};

/* Half open: start <= gpa < end. Empty when both are equal. */
struct gpa_range {
	uint64_t start;
	uint64_t end;
};

enum kernel_kind {
	KERNEL_BZIMAGE,
	KERNEL_ELF64,
};

/* The setup header starts at this offset of a bzImage and of boot_params (Documentation/arch/x86/boot.rst).
 */
#define SETUP_HEADER_OFFSET 0x1f1u
/* boot_params keeps 0x1f1..0x28f for it. */
#define SETUP_HEADER_MAX (0x290u - SETUP_HEADER_OFFSET)

/* The fields of a checked bzImage setup header that the loader works with. */
struct bzimage_info {
	uint16_t protocol; /* 0x020a and later */
	uint16_t xloadflags;
	uint32_t setup_size;	 /* bytes before the protected-mode part */
	uint32_t code_size;	 /* bytes of the protected-mode part (syssize * 16), all inside the file */
	uint32_t payload_offset; /* in the protected-mode part; unchecked until it is unpacked */
	uint32_t payload_length;
	uint32_t init_size;    /* bytes of RAM the kernel needs from where it starts */
	uint32_t alignment;    /* a power of two, at least 2 MiB */
	uint64_t pref_address; /* a multiple of 2 MiB */
	bool relocatable;
};

/* A file being read. `lost` is set once a page of it could not be read: see map.c. */
struct file_map {
	uint8_t *data;
	size_t size;
	int fd;
	volatile sig_atomic_t lost;
	struct sigaction old_action;
};

/* Filled by loader_open(); must stay at its address until loader_close(). */
struct kernel_image {
	enum kernel_kind kind;
	struct file_map map;
	struct bzimage_info bz; /* KERNEL_BZIMAGE only */
};

struct load_options {
	bool kaslr;	   /* bzImage: randomise the address; false loads at pref_address */
	bool guest_unpack; /* bzImage: enter the guest's own decompressor */
	/*
	 * RAM has never been written: bytes that must read as zero are left untouched. When false they are
	 * cleared.
	 */
	bool ram_is_zero;
	uint64_t random; /* entropy for kaslr: the low half picks the virtual, the high half the physical slot
			  */
	/* First guest-physical address that the kernel must not use (room for an initrd above it); 0: all of
	 * RAM. */
	uint64_t top;
};

struct load_result {
	uint64_t entry_linux64; /* guest-physical 64-bit entry, rsi = boot_params; 0: none */
	uint64_t entry_pvh;	/* guest-physical 32-bit PVH entry; 0: none */
	struct gpa_range image; /* what the kernel owns: init_size or bss included */
	struct gpa_range dirty; /* everything written, the image or not: do not assume zeroes in here */
	bool is_linux;		/* a bzImage, or an ELF with segments in Linux's kernel mapping */
	bool unpacked;		/* bzImage: unpacked here; false: by the guest */
	/* The caller sets KASLR_FLAG (bit 1) in loadflags: the kernel then randomises its memory regions too.
	 */
	bool kaslr;
	uint64_t virt_offset; /* what was added to the kernel's link address */
	const char *format;   /* of the payload: "lz4", "gzip" ... or "ELF"; static storage */
	uint32_t cmdline_max; /* bytes, without the terminating zero */
	uint64_t initrd_max;  /* highest guest-physical address an initrd byte may have */
	/* Bytes 0x1f1.. for boot_params; for an ELF a made-up one with what a boot loader may assume. */
	uint8_t setup_header[SETUP_HEADER_MAX];
	size_t setup_header_len;
	char note[192]; /* empty, or one sentence for the log: why the guest unpacks itself, why no KASLR */
};

/*
 * All return 0 or a negative errno and then one sentence in err, without the name of the file:
 * "is an ARM64 kernel Image: this machine is an x86-64 PC".
 */
int loader_open(struct kernel_image *img, const char *path, char *err, size_t errlen);
int loader_load(struct kernel_image *img, const struct ram_view *ram, const struct load_options *opt,
		struct load_result *res, char *err, size_t errlen);
/* Only after a loader_open() that returned 0. */
void loader_close(struct kernel_image *img);

/*
 * Read a whole open file (or pipe), from its position on, into RAM as high as possible: its last byte at or below
 * `max`, its first byte a multiple of `align` (a power of two), nothing of it below 1 MiB or in `avoid`. An empty file
 * is an error. *where is its place. A pipe is staged in the same free RAM, which is then no longer zero.
 */
int loader_place_file(const struct ram_view *ram, int fd, uint64_t max, uint64_t align, const struct gpa_range *avoid,
		      struct gpa_range *where, char *err, size_t errlen);

#endif
