/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: KASLR as the kernel's own decompressor would do it (Documentation/arch/x86/boot.rst
 * and the comments in arch/x86/boot/compressed say what it promises).
 *
 * A kernel with CONFIG_RANDOMIZE_BASE carries, after its ELF image, the 32-bit truncated link addresses of
 * every place that holds an absolute address. Lists end with a zero word when read backwards from the end of
 * the payload, so in file order, up to Linux 6.14:
 *
 *	0, places of 64-bit addresses, 0, places of negated 32-bit ones, 0, places of 32-bit ones
 *
 * Newer kernels no longer have per-cpu addresses relative to zero, and no negated list. The number of zero
 * words tells the two forms apart, as no place is at address zero.
 *
 * The place in virtual memory and the place in RAM are independent: the early boot code finds out where it
 * runs.
 */
#include <errno.h>
#include <wchar.h>

#include "internal.h"

_Static_assert(sizeof(wchar_t) == sizeof(uint32_t), "wmemchr() looks for a zero word");

/* A slot from 0 to count - 1: the high half of a product is as even as a modulo and needs no division. */
static uint64_t pick(uint32_t random, uint64_t count)
{
	return (random * count) >> 32;
}

void kaslr_choose(const struct bzimage_info *info, uint64_t top, uint64_t random, struct kaslr_choice *out)
{
	uint64_t align = info->alignment, pref = info->pref_address, size = info->init_size;
	uint64_t low = pref > 16 * LOADER_MIB ? pref : 16 * LOADER_MIB;

	*out = (struct kaslr_choice){ .base = pref };
	if (fits(pref, size, LINUX_IMAGE_SIZE))
		out->virt_offset = align * pick((uint32_t)random, (LINUX_IMAGE_SIZE - pref - size) / align + 1);
	low = (low + align - 1) & ~(align - 1);
	if (fits(low, size, top))
		out->base = low + align * pick((uint32_t)(random >> 32), (top - low - size) / align + 1);
}

struct reloc_target {
	uint8_t *host;
	uint32_t link;	 /* low half of the link address */
	uint32_t last32; /* highest offset at which 4 bytes fit */
	uint32_t last64;
};

static int add32(const struct reloc_target *t, const uint32_t *at, const uint32_t *end, uint32_t delta)
{
	for (; at != end; at++) {
		uint32_t off = *at - t->link, v;

		if (__builtin_expect(off > t->last32, 0))
			return -EINVAL;
		memcpy(&v, t->host + off, sizeof(v));
		v += delta;
		memcpy(t->host + off, &v, sizeof(v));
	}
	return 0;
}

static int add64(const struct reloc_target *t, const uint32_t *at, const uint32_t *end, uint64_t delta)
{
	for (; at != end; at++) {
		uint32_t off = *at - t->link;
		uint64_t v;

		if (__builtin_expect(off > t->last64, 0))
			return -EINVAL;
		memcpy(&v, t->host + off, sizeof(v));
		v += delta;
		memcpy(t->host + off, &v, sizeof(v));
	}
	return 0;
}

/* The zero words of the table: their number, and the places of at most max of them. */
static unsigned int find_zeroes(const uint32_t *table, size_t words, const uint32_t **zero, unsigned int max)
{
	const uint32_t *at = table, *end = table + words;
	unsigned int n = 0;

	while (n <= max && at != end) {
		at = (const uint32_t *)wmemchr((const wchar_t *)at, 0, (size_t)(end - at));
		if (!at)
			break;
		if (n < max)
			zero[n] = at;
		n++;
		at++;
	}
	return n;
}

int kaslr_relocate(uint8_t *host, uint64_t size, uint64_t link, const uint8_t *table, uint64_t len, uint64_t delta)
{
	const uint32_t *first = (const uint32_t *)(const void *)table;
	const uint32_t *end = first + len / 4, *zero[3];
	struct reloc_target t = {
		.host = host,
		.link = (uint32_t)(LINUX_KERNEL_MAP + link),
		.last32 = (uint32_t)(size - 4),
		.last64 = (uint32_t)(size - 8),
	};
	unsigned int zeroes;
	int rc;

	if (len < 2 * sizeof(uint32_t))
		return -ENOENT;
	/* The image ends below 2 GiB, where the link addresses wrap. */
	if (size < 8 || size > 2 * LOADER_GIB)
		return -EINVAL;
	zeroes = find_zeroes(first, len / 4, zero, 3);
	if ((zeroes != 2 && zeroes != 3) || zero[0] != first)
		return -EINVAL;
	rc = add64(&t, zero[0] + 1, zero[1], delta);
	if (!rc && zeroes == 3)
		rc = add32(&t, zero[1] + 1, zero[2], (uint32_t)-delta);
	if (!rc)
		rc = add32(&t, zero[zeroes - 1] + 1, end, (uint32_t)delta);
	return rc;
}
