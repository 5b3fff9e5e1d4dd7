/* SPDX-License-Identifier: MIT */
#include "vmm/trace.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

bool trace_on[TRACE_COUNT];
static FILE *outputs[TRACE_COUNT]; /* of each point that is on; several may share one */

static const char *const names[TRACE_COUNT] = {
#define X(name) [TRACE_##name] = #name,
	TRACE_POINTS(X)
#undef X
};

void trace_emit(enum trace_id id, const char *fmt, ...)
{
	struct timespec now;
	char line[512];
	va_list ap;
	int used, n;

	clock_gettime(CLOCK_MONOTONIC, &now);
	used = snprintf(line, sizeof(line), "%lld.%06ld %s ", (long long)now.tv_sec, now.tv_nsec / 1000, names[id]);
	va_start(ap, fmt);
	n = vsnprintf(line + used, sizeof(line) - (size_t)used, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	fprintf(outputs[id], "%s%s\n", line, outputs[id] == stderr && isatty(STDERR_FILENO) ? "\r" : "");
}

static FILE *open_output(const char *path, char *err, size_t errlen)
{
	FILE *f = fopen(path, "we");

	if (!f)
		snprintf(err, errlen, "%s: %s", path, strerror(errno));
	else
		setvbuf(f, NULL, _IOLBF, 0);
	return f;
}

int trace_enable(const char *spec, char *err, size_t errlen)
{
	const char *comma = strstr(spec, ",file=");
	FILE *output = stderr;
	char glob[128];
	unsigned int matched = 0;
	bool used = false;
	size_t length = comma ? (size_t)(comma - spec) : strlen(spec);

	if (length >= sizeof(glob)) {
		snprintf(err, errlen, "pattern too long");
		return -EINVAL;
	}
	memcpy(glob, spec, length);
	glob[length] = '\0';
	for (int i = 0; i < TRACE_COUNT; i++)
		matched += fnmatch(glob, names[i], 0) == 0;
	if (!matched) {
		snprintf(err, errlen, "no trace point matches '%s' (--trace help lists them)", glob);
		return -EINVAL;
	}
	if (comma) {
		output = open_output(comma + strlen(",file="), err, errlen);
		if (!output)
			return -EIO;
	}
	/* A point that an earlier option sent elsewhere stays there. */
	for (int i = 0; i < TRACE_COUNT; i++) {
		if (!trace_on[i] && fnmatch(glob, names[i], 0) == 0) {
			trace_on[i] = true;
			outputs[i] = output;
			used = true;
		}
	}
	if (!used && output != stderr)
		fclose(output);
	return 0;
}

void trace_list(void)
{
	for (int i = 0; i < TRACE_COUNT; i++)
		puts(names[i]);
}

void trace_close(void)
{
	for (int i = 0; i < TRACE_COUNT; i++) {
		FILE *f = outputs[i];

		for (int j = i; f && j < TRACE_COUNT; j++)
			if (outputs[j] == f)
				outputs[j] = NULL;
		if (f && f != stderr)
			fclose(f);
	}
	memset(trace_on, 0, sizeof(trace_on));
}
