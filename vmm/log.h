/* SPDX-License-Identifier: MIT */
/* What vmm itself has to say: one line a message, on standard error, prefixed "vmm: ". */
#ifndef VMM_LOG_H
#define VMM_LOG_H

#include <stdarg.h>

/* Prints one line (without "\n" in fmt). Safe from any thread; correct on a terminal in raw mode. */
void log_line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_vline(const char *fmt, va_list ap) __attribute__((format(printf, 1, 0)));

#endif
