/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer target: a bzImage, all of its bytes hostile.
 *
 * The input is a payload behind four bytes of choices; the setup header is made here and then overwritten by
 * the first bytes of the input where those say so, because a fuzzer seldom finds a header with right sizes by
 * itself.
 */
#include <stdlib.h>

#include "arch/x86/loader/internal.h"

enum {
	SETUP_SIZE = 1024,
	CODE_SIZE = 0x210,
	INPUT_MAX = 1 << 20,
	RAM_SIZE = 5 << 20,
	INIT_SIZE = 512 << 10,
	PREF_ADDRESS = 4 << 20,
	HEADER_SIZE = 0x80,
	USE_HEADER = 1,
	USE_KASLR = 2,
	USE_GUEST = 4,
	USE_DIRTY_RAM = 8,
};

static void put(uint8_t *image, size_t at, uint64_t value, size_t len)
{
	memcpy(image + at, &value, len);
}

static void make_header(uint8_t *h, size_t payload)
{
	put(h, 0x1f1, 1, 1);
	put(h, 0x1f4, (CODE_SIZE + payload + 15) / 16, 4);
	put(h, 0x1fe, 0xaa55, 2);
	put(h, 0x201, 0x6a, 1);
	memcpy(h + 0x202, "HdrS", 4);
	put(h, 0x206, 0x20f, 2);
	put(h, 0x211, 1, 1);
	put(h, 0x230, 0x200000, 4);
	put(h, 0x234, 1, 1);
	put(h, 0x236, 1, 2);
	put(h, 0x248, CODE_SIZE, 4);
	put(h, 0x24c, payload, 4);
	put(h, 0x258, PREF_ADDRESS, 8);
	put(h, 0x260, INIT_SIZE, 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kernel_image img = { .kind = KERNEL_BZIMAGE };
	struct load_options opt = { .random = size * 0x9e3779b97f4a7c15 };
	struct ram_view ram = { .size = RAM_SIZE };
	struct load_result res;
	char err[256];
	uint8_t *image, flags;
	size_t len;

	if (size < 5 || size > INPUT_MAX)
		return 0;
	flags = data[0];
	data += 4;
	size -= 4;
	if ((flags & USE_HEADER) && size < HEADER_SIZE)
		return 0;
	len = SETUP_SIZE + (CODE_SIZE + size + 15) / 16 * 16;
	image = calloc(1, len);
	ram.host = malloc(RAM_SIZE);
	if (!image || !ram.host)
		abort();
	make_header(image, size);
	if (flags & USE_HEADER)
		memcpy(image + SETUP_HEADER_OFFSET, data, HEADER_SIZE);
	memcpy(image + SETUP_SIZE + CODE_SIZE, data, size);
	opt.kaslr = flags & USE_KASLR;
	opt.guest_unpack = flags & USE_GUEST;
	opt.ram_is_zero = !(flags & USE_DIRTY_RAM);
	img.map.data = image;
	img.map.size = len;
	if (loader_sniff(image, len, &img.kind, err, sizeof(err)) == 0 && img.kind == KERNEL_BZIMAGE &&
	    bzimage_check(image, len, &img.bz, err, sizeof(err)) == 0 &&
	    loader_load(&img, &ram, &opt, &res, err, sizeof(err)) == 0 &&
	    (res.dirty.end > RAM_SIZE || res.entry_linux64 >= RAM_SIZE))
		abort();
	free(ram.host);
	free(image);
	return 0;
}
