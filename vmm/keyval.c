/* SPDX-License-Identifier: MIT */
#include "vmm/keyval.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int keyval_fail(char *err, size_t errlen, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err, errlen, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

int keyval_number(const char *value, unsigned int min, unsigned int max, unsigned int *number)
{
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(value, &end, 10);
	if (!isdigit((unsigned char)value[0]) || errno || *end || n < min || n > max)
		return -EINVAL;
	*number = (unsigned int)n;
	return 0;
}

int keyval_mac(const char *value, uint8_t mac[6])
{
	unsigned int b[6];
	int end = 0;

	if (sscanf(value, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) != 6 ||
	    end != 17 || value[end] || (b[0] & 1) || !(b[0] | b[1] | b[2] | b[3] | b[4] | b[5]))
		return -EINVAL;
	for (unsigned int i = 0; i < 6; i++)
		mac[i] = (uint8_t)b[i];
	return 0;
}

static int set_switch(const char *value, bool *to)
{
	*to = !strcmp(value, "on");
	return *to || !strcmp(value, "off") ? 0 : -EINVAL;
}

static int set_text(const char *value, char *to, size_t size)
{
	size_t length = strlen(value);

	if (!length || length >= size)
		return -EINVAL;
	memcpy(to, value, length + 1);
	return 0;
}

static int set(const struct keyval_key *key, void *options, const char *value)
{
	char *member = (char *)options + key->offset;

	switch (key->kind) {
	case KEYVAL_SWITCH:
		return set_switch(value, (bool *)member);
	case KEYVAL_NUMBER:
		return keyval_number(value, key->min, key->max, (unsigned int *)(void *)member);
	case KEYVAL_TEXT:
		return set_text(value, member, key->max);
	default:
		return key->set(options, value);
	}
}

static int refuse(const struct keyval_key *key, const char *item, char *err, size_t errlen)
{
	switch (key->kind) {
	case KEYVAL_SWITCH:
		return keyval_fail(err, errlen, "'%.80s': %s= takes on or off", item, key->name);
	case KEYVAL_NUMBER:
		return keyval_fail(err, errlen, "'%.80s': %s= takes a number from %u to %u", item, key->name, key->min,
				   key->max);
	case KEYVAL_TEXT:
		return keyval_fail(err, errlen, "'%.80s': %s= takes 1 to %u bytes", item, key->name, key->max - 1);
	default:
		return keyval_fail(err, errlen, "'%.80s': %s= takes %s", item, key->name, key->form);
	}
}

static int refuse_unknown(const struct keyval_key *keys, size_t count, const char *item, char *err, size_t errlen)
{
	char list[512] = "";
	size_t used = 0;

	for (size_t i = 0; i < count && used < sizeof(list); i++)
		used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s=", i ? ", " : "", keys[i].name);
	return keyval_fail(err, errlen, "'%.80s' is none of %s", item, list);
}

static int set_item(const struct keyval_key *keys, size_t count, const char *item, void *options, uint32_t *seen,
		    char *err, size_t errlen)
{
	size_t length = strcspn(item, "="), i = 0;

	while (i < count && (strlen(keys[i].name) != length || strncmp(keys[i].name, item, length) != 0))
		i++;
	if (i == count)
		return refuse_unknown(keys, count, item, err, errlen);
	if ((*seen & 1U << i) && !keys[i].repeats)
		return keyval_fail(err, errlen, "%s= is given twice", keys[i].name);
	*seen |= 1U << i;
	return item[length] && !set(&keys[i], options, item + length + 1) ? 0 : refuse(&keys[i], item, err, errlen);
}

int keyval_parse(const char *text, const struct keyval_key *keys, size_t count, void *options, uint32_t *seen,
		 char *err, size_t errlen)
{
	char buffer[KEYVAL_TEXT_MAX], *rest = buffer;
	int ret = 0;

	*seen = 0;
	if (strlen(text) >= sizeof(buffer))
		return keyval_fail(err, errlen, "longer than %zu bytes", sizeof(buffer) - 1);
	memcpy(buffer, text, strlen(text) + 1);
	while (rest && !ret)
		ret = set_item(keys, count, strsep(&rest, ","), options, seen, err, errlen);
	return ret;
}
