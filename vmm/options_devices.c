/* SPDX-License-Identifier: MIT */
#include "vmm/options_devices.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm/utf16.h"

/* The guest keeps UTF-8 (Linux) or UTF-16 in the same room, so a text must fit as both. */
static int check_kvp(struct options_parser *p, const char *what, const char *text, size_t max)
{
	uint8_t utf16[KVP_VALUE_MAX];
	int ret = strlen(text) < max ? utf16_from_utf8(text, utf16, max) : -ENAMETOOLONG;

	if (ret == -EILSEQ)
		return options_fail(p, "--kvp: the %s is not UTF-8", what);
	return ret < 0 ? options_fail(p, "--kvp: the %s is longer than %zu characters", what, max / 2 - 1) : 0;
}

int options_set_kvp(struct options_parser *p, const char *value)
{
	const char *equals = strchr(value, '=');
	char key[KVP_KEY_MAX];
	int ret;

	if (!equals || equals == value)
		return options_fail(p, "--kvp %s: must be KEY=VALUE", value);
	if (p->config->nr_kvp == MAX_KVP)
		return options_fail(p, "--kvp: given more than %d times", MAX_KVP);
	snprintf(key, sizeof(key), "%.*s", (int)(equals - value), value);
	ret = equals - value < KVP_KEY_MAX
		      ? check_kvp(p, "key", key, KVP_KEY_MAX)
		      : options_fail(p, "--kvp: the key is longer than %d characters", KVP_KEY_MAX / 2 - 1);
	if (!ret)
		ret = check_kvp(p, "value", equals + 1, KVP_VALUE_MAX);
	if (!ret)
		p->config->kvp[p->config->nr_kvp++] = value;
	return ret;
}

int options_set_disk(struct options_parser *p, const char *value)
{
	struct disk_options options;
	char err[256];

	if (disk_parse(value, &options, err, sizeof(err)))
		return options_fail(p, "--disk: %s", err);
	if (p->config->nr_disks == DISKS_MAX)
		return options_fail(p, "--disk: given more than %d times", DISKS_MAX);
	p->config->disks[p->config->nr_disks++] = value;
	return 0;
}

int options_set_ivshmem(struct options_parser *p, const char *value)
{
	struct ivshmem_options options;
	char err[512];

	if (ivshmem_parse(value, &options, err, sizeof(err)))
		return options_fail(p, "--ivshmem: %s", err);
	if (p->config->nr_ivshmem == IVSHMEM_MAX)
		return options_fail(p, "--ivshmem: given more than %d times", IVSHMEM_MAX);
	p->config->ivshmem[p->config->nr_ivshmem++] = value;
	return 0;
}

int options_set_vfio_user(struct options_parser *p, const char *value)
{
	char err[512];

	if (p->config->nr_vfio_user == VFIO_USER_MAX)
		return options_fail(p, "--vfio-user: given more than %d times", VFIO_USER_MAX);
	if (vfio_user_parse(value, &p->config->vfio_user[p->config->nr_vfio_user], err, sizeof(err)))
		return options_fail(p, "--vfio-user: %s", err);
	p->config->nr_vfio_user++;
	return 0;
}

int options_set_vhost_user(struct options_parser *p, const char *value)
{
	char err[512];

	if (p->config->nr_vhost_user == VHOST_USER_MAX)
		return options_fail(p, "--vhost-user: given more than %d times", VHOST_USER_MAX);
	if (vhost_user_parse(value, &p->config->vhost_user[p->config->nr_vhost_user], err, sizeof(err)))
		return options_fail(p, "--vhost-user: %s", err);
	p->config->nr_vhost_user++;
	return 0;
}

int options_set_device(struct options_parser *p, const char *value)
{
	const struct {
		const char *name;
		bool *wanted;
	} devices[] = {
		{ "pci-test", &p->config->pci_test },
		{ "hv-test", &p->config->hv_test },
		{ "vmbus-test", &p->config->vmbus_test },
	};

	for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++) {
		if (!strcmp(value, devices[i].name)) {
			*devices[i].wanted = true;
			return 0;
		}
	}
	return options_fail(p, "--device %s: must be pci-test, hv-test or vmbus-test", value);
}

int options_set_net(struct options_parser *p, const char *value)
{
	char err[160];

	if (p->config->nr_nets == NET_CARDS_MAX)
		return options_fail(p, "--net: given more than %d times", NET_CARDS_MAX);
	if (net_parse(value, &p->config->nets[p->config->nr_nets], err, sizeof(err)))
		return options_fail(p, "--net %.40s: %s", value, err);
	p->config->nr_nets++;
	return 0;
}
