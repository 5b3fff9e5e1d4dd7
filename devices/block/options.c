/* SPDX-License-Identifier: MIT */
/* --disk, parsed; opens nothing. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "devices/block/disk.h"
#include "vmm/keyval.h"

#define AT(member) offsetof(struct disk_options, member)

/* A serial number is shown by the guest's tools: printable ASCII (SPC-4 4.3.1), and no space at its ends. */
static int set_serial(void *options, const char *value)
{
	struct disk_options *o = options;
	size_t length = strlen(value);

	if (!length || length > DISK_SERIAL_MAX || value[0] == ' ' || value[length - 1] == ' ')
		return -EINVAL;
	for (size_t i = 0; i < length; i++)
		if (value[i] < ' ' || value[i] > '~')
			return -EINVAL;
	memcpy(o->serial, value, length + 1);
	return 0;
}

static int set_direct(void *options, const char *value)
{
	struct disk_options *o = options;

	o->direct = !strcmp(value, "on") ? BLOCK_DIRECT_ON : BLOCK_DIRECT_OFF;
	return strcmp(value, "on") != 0 && strcmp(value, "off") != 0 ? -EINVAL : 0;
}

static const struct keyval_key keys[] = {
	{ "readonly", KEYVAL_SWITCH, .offset = AT(readonly) },
	{ "boot", KEYVAL_SWITCH, .offset = AT(boot) },
	{ "direct", KEYVAL_OTHER, .set = set_direct, .form = "on or off" },
	{ "serial", KEYVAL_OTHER, .set = set_serial, .form = "1 to 64 printable characters" },
};

int disk_parse(const char *text, struct disk_options *options, char *err, size_t errlen)
{
	size_t length = strcspn(text, ",");
	uint32_t seen;
	int ret = 0;

	memset(options, 0, sizeof(*options));
	if (!length || length >= sizeof(options->path))
		return keyval_fail(err, errlen, "'%.100s' %s", text, length ? "is too long a path" : "has no path");
	memcpy(options->path, text, length);
	options->dvd = length >= 4 && !strcasecmp(options->path + length - 4, ".iso");
	if (text[length])
		ret = keyval_parse(text + length + 1, keys, sizeof(keys) / sizeof(keys[0]), options, &seen, err,
				   errlen);
	options->readonly |= options->dvd;
	return ret;
}
