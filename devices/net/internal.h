/* SPDX-License-Identifier: MIT */
/* What the back-ends share. */
#ifndef DEVICES_NET_INTERNAL_H
#define DEVICES_NET_INTERNAL_H

#include "devices/net/net.h"
#include "vmm/loop.h"

/* A descriptor that is polled, from the loop's first turn on until net_port_gone(). */
struct net_port {
	struct net_backend *net;
	struct loop *loop;
	unsigned int queue;
	int fd;
	bool polling, again, wants_room, ended;
	struct loop_op poll_op, again_op, room_op;
	struct loop_work start;
};

void net_port_init(struct net_port *port, struct net_backend *net, struct loop *loop, unsigned int queue, int fd);
void net_port_again(struct net_port *port);
void net_port_want_room(struct net_port *port);
/* Nothing is done with this port any more. The first of a back-end tells the log and the device. */
void net_port_gone(struct net_port *port);

/* Back-ends; each tells the cause of a failure in one line and returns NULL. A socket's descriptor is taken over. */
struct net_backend *tap_open(struct loop *loop, const struct net_options *options);
struct net_backend *tap_from_fd(struct loop *loop, const struct net_options *options);
/* Frames are datagrams, or come in a stream, each after its length in 4 bytes, big-endian (QEMU's -netdev stream). */
struct net_backend *socket_open(struct loop *loop, int fd, bool stream, unsigned int mtu);
struct net_backend *passt_open(struct loop *loop, const struct net_options *options);

#endif
