/* SPDX-License-Identifier: MIT */
/* --ivshmem, parsed; opens nothing. */
#include <errno.h>
#include <string.h>

#include "devices/ivshmem/ivshmem.h"
#include "vmm/keyval.h"
#include "vmm/options.h"

#define AT(member)   offsetof(struct ivshmem_options, member)
#define SIZE(member) sizeof(((struct ivshmem_options *)0)->member)

static int set_size(void *options, const char *value)
{
	struct ivshmem_options *o = options;
	uint64_t size;

	if (parse_size(value, &size) || size < IVSHMEM_SIZE_MIN || size > IVSHMEM_SIZE_MAX || (size & (size - 1)))
		return -EINVAL;
	o->size = size;
	return 0;
}

static const struct keyval_key keys[] = {
	{ "path", KEYVAL_TEXT, .offset = AT(path), .max = SIZE(path) },
	{ "size", KEYVAL_OTHER, .set = set_size, .form = "a power of two from 4K on" },
	{ "readonly", KEYVAL_SWITCH, .offset = AT(readonly) },
#define FIRST_OF_DOORBELL 3
	{ "socket", KEYVAL_TEXT, .offset = AT(socket), .max = SIZE(socket) },
	{ "vectors", KEYVAL_NUMBER, .offset = AT(vectors), .min = 1, .max = IVSHMEM_VECTORS_MAX },
	{ "ioeventfd", KEYVAL_SWITCH, .offset = AT(ioeventfd) },
	{ "msi", KEYVAL_SWITCH, .offset = AT(msi) },
};
#define KEYS (sizeof(keys) / sizeof(keys[0]))

static int check(const struct ivshmem_options *o, uint32_t seen, char *err, size_t errlen)
{
	bool doorbell = o->socket[0];

	if (!o->path[0] == !o->socket[0])
		return keyval_fail(err, errlen, "needs either path=FILE,size=SIZE or socket=PATH");
	for (size_t i = 0; i < KEYS; i++)
		if ((seen & 1U << i) && (i >= FIRST_OF_DOORBELL) != doorbell)
			return keyval_fail(err, errlen, "%s= does not go with %s=", keys[i].name,
					   doorbell ? "socket" : "path");
	if (!doorbell && !o->size)
		return keyval_fail(err, errlen, "path=%s needs size=", o->path);
	return 0;
}

int ivshmem_parse(const char *text, struct ivshmem_options *options, char *err, size_t errlen)
{
	uint32_t seen;
	int ret;

	*options = (struct ivshmem_options){ .vectors = 1, .ioeventfd = true, .msi = true };
	ret = keyval_parse(text, keys, KEYS, options, &seen, err, errlen);
	return ret ? ret : check(options, seen, err, errlen);
}
