/* SPDX-License-Identifier: MIT */
/*
 * What differs among kinds of devices. A named one has a configuration that is partly the front-end's: how many queues
 * the driver may use, and what a back-end does not know. device=ID is what the back-end says, whatever it is.
 */
#include <stdio.h>
#include <string.h>

#include "devices/vhost-user/internal.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/vm.h"

/* Configurations (virtio 1.2): block 5.2.4, file system 5.11.4, network 5.1.4. */
enum {
	BLK_SIZE = 60,
	BLK_NUM_QUEUES = 34,
	BLK_F_MQ = 12,
	FS_SIZE = 40,
	FS_NUM_QUEUES = 36,
	FS_HIPRIO = 1, /* queues that are not for requests */
	NET_SIZE = 12,
	NET_MAC = 0,
	NET_STATUS = 6,
	NET_PAIRS = 8,
	NET_MTU = 10,
	NET_QUEUES = 2,
	NET_F_MTU = 3,
	NET_F_MAC = 5,
	NET_F_STATUS = 16,
	NET_LINK_UP = 1,
};

/* Features of a network device that need its control queue, which is the front-end's and which we do not have. */
#define NET_F_CONTROL                                                                                                  \
	(VIRTIO_BIT(2) | VIRTIO_BIT(17) | VIRTIO_BIT(18) | VIRTIO_BIT(19) | VIRTIO_BIT(20) | VIRTIO_BIT(21) |          \
	 VIRTIO_BIT(22) | VIRTIO_BIT(23) | VIRTIO_BIT(53) | VIRTIO_BIT(56) | VIRTIO_BIT(57) | VIRTIO_BIT(60) |         \
	 VIRTIO_BIT(62))

/*
 * What may pass between driver and back-end: features of the device type (0 to 23, 50 to 63), and those of rings that
 * are the back-end's alone. Not the rest: ACCESS_PLATFORM would need an IOMMU, NOTIFICATION_DATA other doorbells.
 */
#define PASSED                                                                                                         \
	(0xffffffULL | 0x3fffULL << 50 | VIRTIO_BIT(24) | VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) |                         \
	 VIRTIO_BIT(VIRTIO_F_EVENT_IDX) | VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_RING_PACKED) |          \
	 VIRTIO_BIT(35) | VIRTIO_BIT(36))

static bool is(const struct vhost_user_options *o, unsigned int id)
{
	return !o->generic && o->id == id;
}

uint32_t vhu_class_code(const struct vhost_user_options *o)
{
	if (is(o, VIRTIO_ID_BLOCK))
		return 0x010000;
	if (is(o, VIRTIO_ID_NET))
		return 0x020000;
	return is(o, VIRTIO_ID_FS) ? 0x018000 : 0xff0000;
}

unsigned int vhu_config_size(const struct vhost_user_options *o, bool *probe)
{
	*probe = o->generic && o->config_size < 0;
	if (o->config_size >= 0)
		return (unsigned int)o->config_size;
	if (is(o, VIRTIO_ID_BLOCK))
		return BLK_SIZE;
	if (is(o, VIRTIO_ID_NET))
		return 0; /* all of it is ours */
	return is(o, VIRTIO_ID_FS) ? FS_SIZE : VHU_CONFIG_MAX;
}

unsigned int vhu_queues(const struct vhu_device *d)
{
	const struct vhost_user_options *o = &d->options;
	uint64_t has = d->info.queues, wanted = o->queues;

	if (is(o, VIRTIO_ID_NET)) {
		wanted = NET_QUEUES;
		has = 0; /* some count pairs */
	} else if (is(o, VIRTIO_ID_FS)) {
		wanted = (wanted ? wanted : 1) + FS_HIPRIO;
	} else if (!wanted && is(o, VIRTIO_ID_BLOCK)) {
		wanted = has && has < d->vm->config->cpus ? has : d->vm->config->cpus;
		wanted = has ? wanted : 1;
	} else if (!wanted) {
		wanted = has ? has : 1;
	}
	if (has && wanted > has) {
		log_line("--vhost-user %s: GET_QUEUE_NUM: %llu queues are less than %llu", o->socket,
			 (unsigned long long)has, (unsigned long long)wanted);
		return 0;
	}
	return wanted > VIRTIO_QUEUES_MAX ? VIRTIO_QUEUES_MAX : (unsigned int)wanted;
}

uint64_t vhu_features(const struct vhu_device *d)
{
	const struct vhost_user_options *o = &d->options;
	uint64_t features = d->info.features & PASSED;

	if (is(o, VIRTIO_ID_BLOCK) && d->v.nr_queues < 2)
		features &= ~VIRTIO_BIT(BLK_F_MQ);
	if (is(o, VIRTIO_ID_NET)) {
		features &= ~(NET_F_CONTROL | VIRTIO_BIT(NET_F_MTU));
		features |= VIRTIO_BIT(NET_F_STATUS) | (o->has_mac ? VIRTIO_BIT(NET_F_MAC) : 0) |
			    (o->mtu ? VIRTIO_BIT(NET_F_MTU) : 0);
		if (!o->has_mac)
			features &= ~VIRTIO_BIT(NET_F_MAC); /* the driver takes one of its own */
	}
	return features;
}

static void put16(uint8_t *config, unsigned int at, unsigned int value)
{
	config[at] = (uint8_t)value;
	config[at + 1] = (uint8_t)(value >> 8);
}

void vhu_patch_config(const struct vhu_device *d, uint8_t *config)
{
	const struct vhost_user_options *o = &d->options;
	unsigned int size = d->v.config_size;

	if (is(o, VIRTIO_ID_BLOCK) && size >= BLK_NUM_QUEUES + 2) {
		put16(config, BLK_NUM_QUEUES, d->v.nr_queues);
	} else if (is(o, VIRTIO_ID_FS) && size >= FS_SIZE) {
		if (o->tag[0])
			memcpy(config, o->tag, VHOST_USER_TAG_MAX);
		put16(config, FS_NUM_QUEUES, d->v.nr_queues - FS_HIPRIO);
		put16(config, FS_NUM_QUEUES + 2, 0);
	} else if (is(o, VIRTIO_ID_NET) && size >= NET_SIZE) {
		memcpy(config + NET_MAC, o->mac, sizeof(o->mac));
		put16(config, NET_STATUS, NET_LINK_UP);
		put16(config, NET_PAIRS, 1);
		put16(config, NET_MTU, o->mtu);
	}
}
