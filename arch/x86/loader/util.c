/* SPDX-License-Identifier: MIT */
/*
 * Copying and clearing large ranges, counted in instructions.
 *
 * glibc takes `rep movsb` and `rep stosb` for large sizes. That is one instruction on a CPU with fast string
 * operations, but an emulator (and KVM's own, for a guest it interprets) steps through every byte. A loop of
 * 16-byte vectors costs the same time on the former and a sixth of an instruction a byte on the latter.
 */
#include <stdarg.h>
#include <stdio.h>

#include "internal.h"

typedef uint8_t vec16 __attribute__((vector_size(16)));

/* Keeps the compiler from turning a loop back into a call of memset() or memmove(). */
#define opaque_step() __asm__ volatile("" ::: "memory")

int loader_fail(char *err, size_t errlen, int rc, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err, errlen, fmt, ap);
	va_end(ap);
	return rc;
}

static inline void copy64(uint8_t *dst, const uint8_t *src)
{
	vec16 a, b, c, d;

	/* All loads before the first store: right for any overlap within the 64 bytes. */
	memcpy(&a, src, 16);
	memcpy(&b, src + 16, 16);
	memcpy(&c, src + 32, 16);
	memcpy(&d, src + 48, 16);
	memcpy(dst, &a, 16);
	memcpy(dst + 16, &b, 16);
	memcpy(dst + 32, &c, 16);
	memcpy(dst + 48, &d, 16);
	opaque_step();
}

void loader_move_down(uint8_t *dst, const uint8_t *src, size_t len)
{
	const uint8_t *end = src + (len & ~(size_t)63);

	if (dst == src)
		return;
	while (src != end) {
		copy64(dst, src);
		src += 64;
		dst += 64;
	}
	memmove(dst, src, len & 63);
}

void loader_move_up(uint8_t *dst, const uint8_t *src, size_t len)
{
	size_t head = len & 63;
	const uint8_t *end = src + head;

	if (dst == src)
		return;
	src += len;
	dst += len;
	while (src != end) {
		src -= 64;
		dst -= 64;
		copy64(dst, src);
	}
	memmove(dst - head, src - head, head);
}

void loader_zero(uint8_t *dst, size_t len)
{
	uint8_t *end = dst + (len & ~(size_t)63);

	while (dst != end) {
		const vec16 zero[4] = { 0 };

		memcpy(dst, zero, sizeof(zero));
		opaque_step();
		dst += 64;
	}
	memset(dst, 0, len & 63);
}

/* Zero at its start, and each byte like the one 16 before it. A page that is not zero mostly shows it at
 * once. */
static bool is_zero_page(const uint8_t *p)
{
	return !(load64(p) | load64(p + 8)) && memcmp(p, p + 16, 4096 - 16) == 0;
}

void loader_copy_sparse(uint8_t *dst, const uint8_t *src, size_t len)
{
	for (; len >= 4096; len -= 4096) {
		if (!is_zero_page(src))
			loader_move_down(dst, src, 4096);
		src += 4096;
		dst += 4096;
	}
	memcpy(dst, src, len);
}
