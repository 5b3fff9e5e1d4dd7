/* SPDX-License-Identifier: MIT */
/*
 * A PCI function of the guest that another process serves by the vfio-user protocol.
 *
 *   wire.h, proto    the messages, checked
 *   stream           a socket: bytes and descriptors in, whole messages out
 *   serve            what a server asks of us
 *   attach           setting up a connection
 *   link             commands afterwards, by any thread, each with a deadline
 *   device, config, bars, irqs, reconnect    the PCI function made of it
 */
#ifndef DEVICES_VFIO_USER_VFIO_USER_H
#define DEVICES_VFIO_USER_VFIO_USER_H

#include <stdbool.h>
#include <stddef.h>

#define VFIO_USER_MAX 16 /* devices of a machine */

struct vm;

struct vfio_user_options {
	char socket[108];
	unsigned int timeout_ms;
	bool secure_dma; /* guest memory is not shared: the server has to ask for its bytes */
	bool reconnect;
	bool posted; /* writes that nothing forbids it for do not wait */
};

/* The value of --vfio-user. 0, or -EINVAL with a sentence in err. */
int vfio_user_parse(const char *text, struct vfio_user_options *options, char *err, size_t errlen);

/*
 * Connects to the server and puts its device on the machine's PCI bus; before pci_assign_resources(). Waits for each
 * answer as long as the timeout says. 0, or -errno after printing one line.
 */
int vfio_user_create(struct vm *vm, const struct vfio_user_options *options);

#endif
