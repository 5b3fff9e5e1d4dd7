/* SPDX-License-Identifier: MIT */
/* "key=value,key=value": the options that have several parts, by a table of what each key takes. */
#ifndef VMM_KEYVAL_H
#define VMM_KEYVAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum keyval_kind {
	KEYVAL_SWITCH, /* bool: on or off */
	KEYVAL_NUMBER, /* unsigned int from min to max */
	KEYVAL_TEXT,   /* char[max]: 1 to max - 1 bytes */
	KEYVAL_OTHER,
};

struct keyval_key {
	const char *name;
	enum keyval_kind kind;
	unsigned int min, max;
	bool repeats;
	size_t offset; /* of the member that takes it in the caller's struct; not for KEYVAL_OTHER */
	int (*set)(void *options, const char *value); /* KEYVAL_OTHER: 0, or -EINVAL for what is not form */
	const char *form;			      /* "a power of two from 4K on" */
};

#define KEYVAL_TEXT_MAX 1024

/*
 * Sets the members of options, a struct with its defaults, from text. Bit i of *seen is set if keys[i] was there. 0, or
 * -EINVAL with one sentence in err. An empty text has a key without a name, which is wrong.
 */
int keyval_parse(const char *text, const struct keyval_key *keys, size_t count, void *options, uint32_t *seen,
		 char *err, size_t errlen);

/* For set(): a decimal number that is the whole of value, and the address of one network card. 0 or -EINVAL. */
int keyval_number(const char *value, unsigned int min, unsigned int max, unsigned int *number);
int keyval_mac(const char *value, uint8_t mac[6]);

/* Says why; -EINVAL. */
int keyval_fail(char *err, size_t errlen, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
