/* SPDX-License-Identifier: MIT */
#include "tests/unit/alloc_fail.h"

#include <stdlib.h>

/* At file scope because the linker's wrapper has no argument to carry it. */
static int allocations_left = -1;

void *__real_realloc(void *p, size_t size);
void *__wrap_realloc(void *p, size_t size);

void alloc_fail_after(int n)
{
	allocations_left = n;
}

void *__wrap_realloc(void *p, size_t size)
{
	if (!allocations_left)
		return NULL;
	if (allocations_left > 0)
		allocations_left--;
	return __real_realloc(p, size);
}
