/* SPDX-License-Identifier: MIT */
/* libFuzzer target: a file given as a kernel that is no bzImage: told for what it is, or loaded as an ELF. */
#include <stdlib.h>

#include "arch/x86/loader/internal.h"

enum {
	RAM_SIZE = 4 << 20,
	INPUT_MAX = 1 << 16,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kernel_image img = { .map = { .size = size } };
	struct load_options opt = { .ram_is_zero = size & 1 };
	struct ram_view ram = { .size = RAM_SIZE };
	struct load_result res;
	char err[256];

	if (!size || size > INPUT_MAX)
		return 0;
	/* A copy of exactly that size: the sanitizer guards its end. */
	img.map.data = malloc(size);
	ram.host = calloc(1, RAM_SIZE);
	if (!img.map.data || !ram.host)
		abort();
	memcpy(img.map.data, data, size);
	if (loader_sniff(img.map.data, size, &img.kind, err, sizeof(err)) == 0 && img.kind == KERNEL_ELF64 &&
	    loader_load(&img, &ram, &opt, &res, err, sizeof(err)) == 0 &&
	    (res.dirty.end > RAM_SIZE || res.entry_linux64 >= RAM_SIZE || res.entry_pvh >= RAM_SIZE))
		abort();
	free(img.map.data);
	free(ram.host);
	return 0;
}
