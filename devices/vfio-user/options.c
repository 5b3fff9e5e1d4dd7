/* SPDX-License-Identifier: MIT */
/* --vfio-user, parsed; opens nothing. */
#include "devices/vfio-user/vfio_user.h"
#include "vmm/keyval.h"

#define TIMEOUT_MS     1000
#define TIMEOUT_MS_MAX 600000
#define AT(member)     offsetof(struct vfio_user_options, member)

static const struct keyval_key keys[] = {
	{ "socket", KEYVAL_TEXT, .offset = AT(socket), .max = sizeof(((struct vfio_user_options *)0)->socket) },
	{ "timeout", KEYVAL_NUMBER, .offset = AT(timeout_ms), .min = 1, .max = TIMEOUT_MS_MAX },
	{ "secure-dma", KEYVAL_SWITCH, .offset = AT(secure_dma) },
	{ "reconnect", KEYVAL_SWITCH, .offset = AT(reconnect) },
	{ "posted", KEYVAL_SWITCH, .offset = AT(posted) },
};

int vfio_user_parse(const char *text, struct vfio_user_options *options, char *err, size_t errlen)
{
	uint32_t seen;
	int ret;

	*options = (struct vfio_user_options){ .timeout_ms = TIMEOUT_MS, .posted = true };
	ret = keyval_parse(text, keys, sizeof(keys) / sizeof(keys[0]), options, &seen, err, errlen);
	if (!ret && !options->socket[0])
		return keyval_fail(err, errlen, "socket=PATH is missing");
	return ret;
}
