/* SPDX-License-Identifier: MIT */
#include "vmm/log.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

void log_vline(const char *fmt, va_list ap)
{
	char line[1024] = "vmm: ";
	size_t used = 5;
	int n = vsnprintf(line + used, sizeof(line) - used - 2, fmt, ap);

	if (n < 0)
		return;
	used += (size_t)n < sizeof(line) - used - 2 ? (size_t)n : sizeof(line) - used - 3;
	/* A raw terminal does not return the carriage by itself; elsewhere "\r" would be litter. */
	if (isatty(STDERR_FILENO))
		line[used++] = '\r';
	line[used++] = '\n';
	/* One write a line keeps lines of several threads whole. There is nobody to tell if it fails. */
	if (write(STDERR_FILENO, line, used) < 0)
		return;
}

void log_line(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_vline(fmt, ap);
	va_end(ap);
}
