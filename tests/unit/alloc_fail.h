/* SPDX-License-Identifier: MIT */
#ifndef TESTS_UNIT_ALLOC_FAIL_H
#define TESTS_UNIT_ALLOC_FAIL_H

/*
 * Failing allocations, for programs linked with -Wl,--wrap=realloc: n calls of
 * realloc() still succeed, later ones return NULL; a negative n ends that.
 */
void alloc_fail_after(int n);

#endif
