/* SPDX-License-Identifier: MIT */
/* --net, parsed; opens nothing. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/net/net.h"
#include "vmm/keyval.h"

#define FD_MAX	   (1u << 20)
#define AT(member) offsetof(struct net_options, member)

static int set_mac(void *options, const char *value)
{
	struct net_options *o = options;

	o->has_mac = true;
	return keyval_mac(value, o->mac);
}

/* A port that ends at *end. */
static bool port(const char *text, uint16_t *value, const char **end)
{
	char *behind;
	unsigned long n;

	if (!isdigit((unsigned char)text[0]))
		return false;
	n = strtoul(text, &behind, 10);
	*end = behind;
	*value = (uint16_t)n;
	return n > 0 && n <= UINT16_MAX;
}

static int set_forward(void *options, const char *value)
{
	struct net_options *o = options;
	struct net_forward forward = { .udp = value[0] == 'u' };
	const char *rest;

	if (o->nr_forwards == NET_FORWARDS_MAX || (strncmp(value, "tcp:", 4) != 0 && strncmp(value, "udp:", 4) != 0) ||
	    !port(value + 4, &forward.host, &rest) || *rest != '-' || !port(rest + 1, &forward.guest, &rest) || *rest)
		return -EINVAL;
	o->forwards[o->nr_forwards++] = forward;
	return 0;
}

static const struct keyval_key keys[] = {
	{ "mac", KEYVAL_OTHER, .set = set_mac, .form = "the address of one card, such as 02:11:22:33:44:55" },
	{ "queues", KEYVAL_NUMBER, .offset = AT(queues), .min = 1, .max = NET_QUEUES_MAX },
	{ "mtu", KEYVAL_NUMBER, .offset = AT(mtu), .min = NET_MTU_MIN, .max = NET_MTU_MAX },
	{ "hostfwd", KEYVAL_OTHER, .set = set_forward, .repeats = true,
	  .form = "tcp:HOSTPORT-GUESTPORT or udp:HOSTPORT-GUESTPORT, at most 16 times" },
};

static int set_kind(struct net_options *o, const char *text, size_t length, char *err, size_t errlen)
{
	char value[KEYVAL_TEXT_MAX];
	unsigned int n;

	snprintf(value, sizeof(value), "%.*s", (int)length, text);
	if (!strcmp(value, "user")) {
		o->kind = NET_USER;
	} else if (!strncmp(value, "tap=", 4)) {
		o->kind = NET_TAP;
		if (length == 4 || length - 4 >= sizeof(o->tap) || strpbrk(value + 4, "/ %"))
			return keyval_fail(err, errlen, "%s is not a name for an interface", value);
		memcpy(o->tap, value + 4, length - 3);
	} else if (!strncmp(value, "fd=", 3)) {
		o->kind = NET_FD;
		if (keyval_number(value + 3, 0, FD_MAX, &n))
			return keyval_fail(err, errlen, "%s is not the number of a descriptor", value);
		o->fd = (int)n;
	} else {
		return keyval_fail(err, errlen, "must begin with tap=NAME, fd=N or user");
	}
	return 0;
}

int net_parse(const char *text, struct net_options *options, char *err, size_t errlen)
{
	size_t length = strcspn(text, ",");
	uint32_t seen;
	int ret;

	*options = (struct net_options){ .fd = -1, .queues = 1 };
	ret = set_kind(options, text, length, err, errlen);
	if (!ret && text[length])
		ret = keyval_parse(text + length + 1, keys, sizeof(keys) / sizeof(keys[0]), options, &seen, err,
				   errlen);
	if (!ret && options->nr_forwards && options->kind != NET_USER)
		return keyval_fail(err, errlen, "hostfwd= is only for user");
	return ret;
}

void net_describe(const struct net_options *options, char *text, size_t size)
{
	if (options->kind == NET_TAP)
		snprintf(text, size, "tap=%s", options->tap);
	else if (options->kind == NET_FD)
		snprintf(text, size, "fd=%d", options->fd);
	else
		snprintf(text, size, "user");
}
