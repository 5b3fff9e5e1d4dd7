/* SPDX-License-Identifier: MIT */
/* --net, parsed; opens nothing. */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/net/net.h"

struct parser {
	struct net_options *options;
	char *err;
	size_t errlen;
};

static int fail(const struct parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int fail(const struct parser *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p->err, p->errlen, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* A decimal number up to max that ends at *end or at the string's end. */
static int number(const char *text, unsigned long max, unsigned long *value, const char **end)
{
	char *behind;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	*value = strtoul(text, &behind, 10);
	if (end)
		*end = behind;
	return errno || *value > max || (!end && *behind) ? -EINVAL : 0;
}

static int set_tap(const struct parser *p, const char *value)
{
	size_t length = strlen(value);

	if (!length || length >= sizeof(p->options->tap) || strpbrk(value, "/ %"))
		return fail(p, "tap=%s is not a name for an interface", value);
	memcpy(p->options->tap, value, length + 1);
	return 0;
}

static int set_fd(const struct parser *p, const char *value)
{
	unsigned long n;

	if (number(value, 1 << 20, &n, NULL))
		return fail(p, "fd=%s is not the number of a descriptor", value);
	p->options->fd = (int)n;
	return 0;
}

static int set_mac(const struct parser *p, const char *value)
{
	unsigned int b[6];
	char rest;

	if (strlen(value) != 17 ||
	    sscanf(value, "%2x:%2x:%2x:%2x:%2x:%2x%c", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &rest) != 6)
		return fail(p, "mac=%s is not an address such as 02:11:22:33:44:55", value);
	for (int i = 0; i < 6; i++)
		p->options->mac[i] = (uint8_t)b[i];
	if (b[0] & 1 || !(b[0] | b[1] | b[2] | b[3] | b[4] | b[5]))
		return fail(p, "mac=%s is not the address of one card", value);
	p->options->has_mac = true;
	return 0;
}

static int set_queues(const struct parser *p, const char *value)
{
	unsigned long n;

	if (number(value, NET_QUEUES_MAX, &n, NULL) || !n)
		return fail(p, "queues=%s must be from 1 to %d", value, NET_QUEUES_MAX);
	p->options->queues = (unsigned int)n;
	return 0;
}

static int set_mtu(const struct parser *p, const char *value)
{
	unsigned long n;

	if (number(value, NET_MTU_MAX, &n, NULL) || n < NET_MTU_MIN)
		return fail(p, "mtu=%s must be from %d to %d", value, NET_MTU_MIN, NET_MTU_MAX);
	p->options->mtu = (unsigned int)n;
	return 0;
}

static int set_forward(const struct parser *p, const char *value)
{
	struct net_forward *forward = &p->options->forwards[p->options->nr_forwards];
	unsigned long host, guest;
	const char *rest;

	if (p->options->nr_forwards == NET_FORWARDS_MAX)
		return fail(p, "hostfwd= is given more than %d times", NET_FORWARDS_MAX);
	if ((strncmp(value, "tcp:", 4) != 0 && strncmp(value, "udp:", 4) != 0) ||
	    number(value + 4, 65535, &host, &rest) || *rest != '-' || number(rest + 1, 65535, &guest, NULL) || !host ||
	    !guest)
		return fail(p, "hostfwd=%s is not tcp:HOSTPORT-GUESTPORT or udp:HOSTPORT-GUESTPORT", value);
	*forward = (struct net_forward){ (uint16_t)host, (uint16_t)guest, value[0] == 'u' };
	p->options->nr_forwards++;
	return 0;
}

static const struct {
	const char *name;
	int (*set)(const struct parser *p, const char *value);
} keys[] = {
	{ "mac", set_mac },
	{ "queues", set_queues },
	{ "mtu", set_mtu },
	{ "hostfwd", set_forward },
};

static int set_key(const struct parser *p, char *text)
{
	char *equals = strchr(text, '=');

	if (equals)
		*equals = '\0';
	for (size_t i = 0; equals && i < sizeof(keys) / sizeof(keys[0]); i++)
		if (!strcmp(text, keys[i].name))
			return keys[i].set(p, equals + 1);
	return fail(p, "'%s' is not mac=, queues=, mtu= or hostfwd=", text);
}

static int set_kind(const struct parser *p, const char *text)
{
	if (!strncmp(text, "tap=", 4)) {
		p->options->kind = NET_TAP;
		return set_tap(p, text + 4);
	}
	if (!strncmp(text, "fd=", 3)) {
		p->options->kind = NET_FD;
		return set_fd(p, text + 3);
	}
	if (!strcmp(text, "user")) {
		p->options->kind = NET_USER;
		return 0;
	}
	return fail(p, "must begin with tap=NAME, fd=N or user");
}

int net_parse(const char *text, struct net_options *options, char *err, size_t errlen)
{
	const struct parser p = { .options = options, .err = err, .errlen = errlen };
	char buffer[1024], *rest = buffer;
	int ret;

	*options = (struct net_options){ .fd = -1, .queues = 1 };
	if (snprintf(buffer, sizeof(buffer), "%s", text) >= (int)sizeof(buffer))
		return fail(&p, "is too long");
	ret = set_kind(&p, strsep(&rest, ","));
	while (rest && !ret)
		ret = set_key(&p, strsep(&rest, ","));
	if (!ret && options->nr_forwards && options->kind != NET_USER)
		return fail(&p, "hostfwd= is only for user");
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
