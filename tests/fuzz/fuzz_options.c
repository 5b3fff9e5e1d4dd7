/* SPDX-License-Identifier: MIT */
/* The command line: the input's lines are its arguments. Whatever they are: accepted, or refused in one line. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/options.h"

#define MAX_ARGS 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *rest = text;
	char *argv[MAX_ARGS + 2] = { "vmm" };
	struct config config;
	char err[256] = "";
	int argc = 1;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	while (rest && argc <= MAX_ARGS)
		argv[argc++] = strsep(&rest, "\n");
	if (options_parse(argc, argv, &config, err, sizeof(err)))
		assert(err[0] && !strchr(err, '\n'));
	else
		assert(config.cpus >= 1 && config.cpus <= MAX_CPUS && config.memory >= MEMORY_MIN);
	free(text);
	return 0;
}
