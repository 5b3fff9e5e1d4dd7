/* SPDX-License-Identifier: MIT */
/* RFC 2781 (UTF-16) and RFC 3629 (UTF-8). */
#include "vmm/utf16.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define REPLACEMENT 0xfffdU
#define INVALID	    UINT32_MAX

static bool is_surrogate(uint32_t c)
{
	return c >= 0xd800 && c <= 0xdfff;
}

/* The code point at *text, which it advances; INVALID if there is none. A terminator is never passed. */
static uint32_t read_utf8(const unsigned char **text)
{
	/* By the number of bytes that follow the first: the least code point that needs so many. */
	static const uint32_t least[] = { 0, 0x80, 0x800, 0x10000 };
	uint32_t c = *(*text)++;
	unsigned int more;

	if (c < 0x80)
		return c;
	if (c >= 0xc0 && c < 0xe0)
		more = 1;
	else if (c >= 0xe0 && c < 0xf0)
		more = 2;
	else if (c >= 0xf0 && c < 0xf8)
		more = 3;
	else
		return INVALID;
	c &= 0x3fU >> more;
	for (unsigned int i = 0; i < more; i++) {
		if ((**text & 0xc0) != 0x80)
			return INVALID;
		c = c << 6 | (*(*text)++ & 0x3f);
	}
	return c < least[more] || c > 0x10ffff || is_surrogate(c) ? INVALID : c;
}

static void put_unit(uint8_t *out, uint32_t unit)
{
	out[0] = (uint8_t)unit;
	out[1] = (uint8_t)(unit >> 8);
}

int utf16_from_utf8(const char *text, void *out, size_t size)
{
	const unsigned char *at = (const unsigned char *)text;
	uint8_t *to = out;
	size_t used = 0;
	uint32_t c;

	do {
		size_t need;

		c = read_utf8(&at);
		if (c == INVALID)
			return -EILSEQ;
		need = c < 0x10000 ? 2 : 4;
		if (need > size - used)
			return -ENAMETOOLONG;
		if (c >= 0x10000) {
			put_unit(to + used, 0xd800 | (c - 0x10000) >> 10);
			put_unit(to + used + 2, 0xdc00 | (c & 0x3ff));
		} else {
			put_unit(to + used, c);
		}
		used += need;
	} while (c);
	return (int)used;
}

static size_t put_utf8(char *out, uint32_t c)
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3f));
		out[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	out[2] = (char)(0x80 | (c >> 6 & 0x3f));
	out[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

size_t utf16_to_utf8(const void *text, size_t size, char *out, size_t room)
{
	const uint8_t *from = text;
	size_t units = size / 2, used = 0;

	for (size_t i = 0; i < units; i++) {
		char bytes[4];
		size_t length;
		uint32_t c = from[2 * i] | (uint32_t)from[2 * i + 1] << 8;

		if (!c)
			break;
		if (is_surrogate(c)) {
			uint32_t low = i + 1 < units ? from[2 * i + 2] | (uint32_t)from[2 * i + 3] << 8 : 0;

			if (c < 0xdc00 && low >= 0xdc00 && low <= 0xdfff) {
				c = 0x10000 + ((c & 0x3ff) << 10 | (low & 0x3ff));
				i++;
			} else {
				c = REPLACEMENT;
			}
		}
		length = put_utf8(bytes, c);
		if (length >= room - used)
			break;
		memcpy(out + used, bytes, length);
		used += length;
	}
	out[used] = '\0';
	return used;
}
