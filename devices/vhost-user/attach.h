/* SPDX-License-Identifier: MIT */
/*
 * Setting up a connection: what is asked of a back-end before a driver may have the device. Its steps are calls of the
 * link, so that it never waits.
 */
#ifndef DEVICES_VHOST_USER_ATTACH_H
#define DEVICES_VHOST_USER_ATTACH_H

#include "devices/vhost-user/backend.h"
#include "devices/vhost-user/link.h"
#include "devices/vhost-user/shmem.h"

/* What a back-end says of itself. */
struct vhu_info {
	uint64_t features;
	uint64_t offered;	/* protocol features */
	uint64_t protocol;	/* of those, what has been taken */
	uint64_t queues;	/* 0: it does not say */
	uint64_t slots;		/* 0: no memory slots */
	struct vhu_shmem shmem; /* regions only */
	uint8_t config[VHU_CONFIG_MAX];
	unsigned int config_size;
	bool config_bad; /* the reply was of no use */
};

struct vhu_attach {
	struct vhu_link *link;
	struct vhu_info *info;
	struct vhu_backend *backend; /* its channel gets our end of the socket for the back-end's requests */
	unsigned int config_size;    /* to ask for; 0: none */
	bool config_probe;	     /* a back-end that refuses is asked for less */
	bool inband;
	bool done;
	void (*finished)(void *opaque); /* called when done; NULL: nobody */
	void *opaque;
};

/* GET_CONFIG in the form that a reply can be used by vhu_attach_config(). NULL: out of memory. */
struct vhu_call *vhu_attach_get_config(struct vhu_link *link, unsigned int size);
/* Bytes out of a reply: false if it is not one to that. */
bool vhu_attach_config(const struct vhu_message *m, unsigned int size, uint8_t *config);

/* Puts all of it in the link's queue. a->done is set at the end; or the link dies. */
void vhu_attach_begin(struct vhu_attach *a);

static inline bool vhu_has(const struct vhu_info *info, unsigned int feature)
{
	return info->protocol >> feature & 1;
}

#endif
