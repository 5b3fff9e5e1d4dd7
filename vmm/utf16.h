/* SPDX-License-Identifier: MIT */
/* Strings of a Windows protocol: UTF-16, little-endian, ended by a zero unit; here they are UTF-8. */
#ifndef VMM_UTF16_H
#define VMM_UTF16_H

#include <stddef.h>

/*
 * Writes text and a terminator to out, which has room for size bytes. Returns the bytes written, the terminator
 * included; -EILSEQ if text is not UTF-8 (surrogates, overlong forms and code points above 0x10ffff are not);
 * -ENAMETOOLONG if it does not fit.
 */
int utf16_from_utf8(const char *text, void *out, size_t size);

/* Room that utf16_to_utf8() needs for size bytes of UTF-16: three bytes a unit, and the terminator. */
#define UTF16_TO_UTF8_ROOM(size) ((size) / 2 * 3 + 1)

/*
 * Reads UTF-16 up to its terminator, or all size bytes (an odd last one is ignored) if there is none, and writes it
 * to out with a terminator; what does not fit into room (at least 1) is left out. A surrogate without its other half
 * becomes U+FFFD. Returns the length of the result.
 */
size_t utf16_to_utf8(const void *text, size_t size, char *out, size_t room);

#endif
