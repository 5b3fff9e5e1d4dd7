/* SPDX-License-Identifier: MIT */
/* The input of a fuzz target, taken from its start on. What is missing at its end is zero. */
#ifndef TESTS_FUZZ_INPUT_H
#define TESTS_FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct input {
	const uint8_t *at;
	size_t left;
};

/* Takes size bytes, or all if there are fewer. Returns how many. */
static inline size_t skip(struct input *in, size_t size)
{
	if (size > in->left)
		size = in->left;
	in->at += size;
	in->left -= size;
	return size;
}

/* The same, into *to; where there are fewer, the rest of *to stays as it is. */
static inline size_t bytes(struct input *in, void *to, size_t size)
{
	const uint8_t *from = in->at;

	size = skip(in, size);
	if (size)
		memcpy(to, from, size);
	return size;
}

/* A number of at most 8 bytes, little endian. */
static inline uint64_t next(struct input *in, size_t size)
{
	uint64_t value = 0;

	bytes(in, &value, size);
	return value;
}

static inline uint8_t byte(struct input *in)
{
	return (uint8_t)next(in, 1);
}

#endif
