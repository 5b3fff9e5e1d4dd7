/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "devices/block/disk.h"

/* A serial number is shown by the guest's tools: printable ASCII (SPC-4 4.3.1), and no space at its ends. */
static bool is_serial(const char *text)
{
	size_t length = strlen(text);

	if (!length || length > DISK_SERIAL_MAX || text[0] == ' ' || text[length - 1] == ' ')
		return false;
	for (size_t i = 0; i < length; i++)
		if (text[i] < ' ' || text[i] > '~')
			return false;
	return true;
}

/* A sentence, or NULL. */
static const char *set_key(struct disk_options *options, const char *key)
{
	if (!strcmp(key, "readonly=on") || !strcmp(key, "readonly=off")) {
		options->readonly = !strcmp(key, "readonly=on");
	} else if (!strcmp(key, "direct=on") || !strcmp(key, "direct=off")) {
		options->direct = !strcmp(key, "direct=on") ? BLOCK_DIRECT_ON : BLOCK_DIRECT_OFF;
	} else if (!strncmp(key, "serial=", 7)) {
		if (!is_serial(key + 7))
			return "must be 1 to 64 printable characters";
		snprintf(options->serial, sizeof(options->serial), "%s", key + 7);
	} else {
		return "is not readonly=on|off, direct=on|off or serial=TEXT";
	}
	return NULL;
}

static int fail(char *err, size_t errlen, const char *what, const char *why)
{
	snprintf(err, errlen, "'%.100s' %s", what, why);
	return -EINVAL;
}

int disk_parse(const char *text, struct disk_options *options, char *err, size_t errlen)
{
	size_t length = strcspn(text, ","), serial = 0;

	memset(options, 0, sizeof(*options));
	if (!length || length >= sizeof(options->path))
		return fail(err, errlen, text, length ? "is too long a path" : "has no path");
	memcpy(options->path, text, length);
	options->dvd = length >= 4 && !strcasecmp(options->path + length - 4, ".iso");
	for (text += length; *text; text += length) {
		char key[8 + DISK_SERIAL_MAX + 2];
		const char *wrong;

		text++;
		length = strcspn(text, ",");
		if (snprintf(key, sizeof(key), "%.*s", (int)(length < sizeof(key) ? length : sizeof(key)), text) >=
		    (int)sizeof(key))
			return fail(err, errlen, key, "is too long");
		serial += !strncmp(key, "serial=", 7);
		wrong = serial > 1 ? "is a second serial number" : set_key(options, key);
		if (wrong)
			return fail(err, errlen, key, wrong);
	}
	options->readonly |= options->dvd;
	return 0;
}
