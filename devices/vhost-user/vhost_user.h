/* SPDX-License-Identifier: MIT */
/*
 * A virtio device whose queues another process serves, by the vhost-user protocol.
 *
 *   wire.h, channel  messages, and one socket
 *   link             what we ask: requests in a queue, each with a deadline
 *   backend, shmem   what the back-end asks: notifications, mappings in a window of shared memory
 *   attach           setting up a connection
 *   session          queues started and stopped as the driver wants
 *   device, config, kinds, events, reconnect    the virtio device made of it
 */
#ifndef DEVICES_VHOST_USER_VHOST_USER_H
#define DEVICES_VHOST_USER_VHOST_USER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VHOST_USER_MAX	   16 /* devices of a machine */
#define VHOST_USER_TAG_MAX 36

struct vm;

struct vhost_user_options {
	char socket[108];
	unsigned int id;     /* virtio device ID */
	bool generic;	     /* device=ID: everything comes from the back-end */
	unsigned int queues; /* as the device counts them; 0: not given */
	unsigned int queue_size;
	unsigned int timeout_ms;
	bool reconnect;
	bool inband;	 /* notifications by messages */
	int config_size; /* -1: not given */
	char tag[VHOST_USER_TAG_MAX + 1];
	bool has_mac;
	uint8_t mac[6];
	uint16_t mtu; /* 0: not given */
};

/* The value of --vhost-user. 0, or -EINVAL with a sentence in err. */
int vhost_user_parse(const char *text, struct vhost_user_options *options, char *err, size_t errlen);

/*
 * Connects to the back-end and puts the device on the machine's PCI bus; before pci_assign_resources(). Waits for each
 * answer as long as the timeout says. index: of the device, for its name. 0, or -errno after printing one line.
 */
int vhost_user_create(struct vm *vm, const struct vhost_user_options *options, unsigned int index);

#endif
