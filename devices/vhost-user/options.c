/* SPDX-License-Identifier: MIT */
/* --vhost-user, parsed; opens nothing. */
#include <errno.h>
#include <string.h>

#include "devices/vhost-user/vhost_user.h"
#include "devices/virtio/virtio.h"
#include "vmm/keyval.h"

#define QUEUE_SIZE     256
#define TIMEOUT_MS     1000
#define TIMEOUT_MS_MAX 600000
#define MTU_MIN	       68
#define AT(member)     offsetof(struct vhost_user_options, member)
#define SIZE(member)   sizeof(((struct vhost_user_options *)0)->member)

static int set_device(void *options, const char *value)
{
	static const struct {
		const char *name;
		unsigned int id;
	} names[] = { { "blk", VIRTIO_ID_BLOCK }, { "fs", VIRTIO_ID_FS }, { "net", VIRTIO_ID_NET } };
	struct vhost_user_options *o = options;

	o->generic = false;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(names[i].name, value) != 0)
			continue;
		o->id = names[i].id;
		return 0;
	}
	o->generic = true;
	return keyval_number(value, 1, VIRTIO_ID_MAX, &o->id);
}

static int set_queue_size(void *options, const char *value)
{
	struct vhost_user_options *o = options;
	int ret = keyval_number(value, 2, VIRTIO_QUEUE_MAX, &o->queue_size);

	return ret || (o->queue_size & (o->queue_size - 1)) ? -EINVAL : 0;
}

static int set_config_size(void *options, const char *value)
{
	struct vhost_user_options *o = options;
	unsigned int n;

	if (keyval_number(value, 0, VIRTIO_CONFIG_MAX, &n))
		return -EINVAL;
	o->config_size = (int)n;
	return 0;
}

static int set_mac(void *options, const char *value)
{
	struct vhost_user_options *o = options;

	o->has_mac = true;
	return keyval_mac(value, o->mac);
}

static int set_mtu(void *options, const char *value)
{
	struct vhost_user_options *o = options;
	unsigned int n;

	if (keyval_number(value, MTU_MIN, UINT16_MAX, &n))
		return -EINVAL;
	o->mtu = (uint16_t)n;
	return 0;
}

static const struct keyval_key keys[] = {
	{ "socket", KEYVAL_TEXT, .offset = AT(socket), .max = SIZE(socket) },
	{ "device", KEYVAL_OTHER, .set = set_device, .form = "fs, blk, net or a virtio device ID from 1 to 63" },
	{ "queues", KEYVAL_NUMBER, .offset = AT(queues), .min = 1, .max = VIRTIO_QUEUES_MAX },
	{ "queue-size", KEYVAL_OTHER, .set = set_queue_size, .form = "a power of two from 2 to 1024" },
	{ "timeout", KEYVAL_NUMBER, .offset = AT(timeout_ms), .min = 1, .max = TIMEOUT_MS_MAX },
	{ "reconnect", KEYVAL_SWITCH, .offset = AT(reconnect) },
	{ "inband", KEYVAL_SWITCH, .offset = AT(inband) },
	{ "config-size", KEYVAL_OTHER, .set = set_config_size, .form = "a number of bytes from 0 to 256" },
	{ "tag", KEYVAL_TEXT, .offset = AT(tag), .max = SIZE(tag) },
	{ "mac", KEYVAL_OTHER, .set = set_mac, .form = "the address of one card, such as 52:54:00:12:34:56" },
	{ "mtu", KEYVAL_OTHER, .set = set_mtu, .form = "a number from 68 to 65535" },
};
#define KEYS (sizeof(keys) / sizeof(keys[0]))

/* The device that a key is for, by its name; 0: any. */
static unsigned int only_for(const char *key)
{
	if (!strcmp(key, "tag"))
		return VIRTIO_ID_FS;
	return !strcmp(key, "mac") || !strcmp(key, "mtu") ? VIRTIO_ID_NET : 0;
}

static int check(const struct vhost_user_options *o, uint32_t seen, char *err, size_t errlen)
{
	unsigned int id = o->generic ? 0 : o->id;

	if (!o->socket[0] || !o->id)
		return keyval_fail(err, errlen, "needs socket=PATH,device=fs|blk|net|ID");
	for (size_t i = 0; i < KEYS; i++)
		if ((seen & 1U << i) && only_for(keys[i].name) && only_for(keys[i].name) != id)
			return keyval_fail(err, errlen, "%s= does not go with this device=", keys[i].name);
	if (id == VIRTIO_ID_NET && o->queues > 1)
		return keyval_fail(err, errlen, "device=net has one pair of queues");
	if (id == VIRTIO_ID_FS && o->queues >= VIRTIO_QUEUES_MAX)
		return keyval_fail(err, errlen, "queues= must be less than %d for device=fs", VIRTIO_QUEUES_MAX);
	return 0;
}

int vhost_user_parse(const char *text, struct vhost_user_options *options, char *err, size_t errlen)
{
	uint32_t seen;
	int ret;

	*options = (struct vhost_user_options){ .queue_size = QUEUE_SIZE, .timeout_ms = TIMEOUT_MS, .config_size = -1 };
	ret = keyval_parse(text, keys, KEYS, options, &seen, err, errlen);
	return ret ? ret : check(options, seen, err, errlen);
}
