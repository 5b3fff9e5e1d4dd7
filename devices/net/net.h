/* SPDX-License-Identifier: MIT */
/*
 * The host's end of a network card: a tap, a socket, or a helper that is a whole network (passt). Frames are Ethernet
 * without the FCS. Everything runs on the loop thread but net_open(), which comes before it.
 *
 * Sending and receiving are calls that never wait: the frames they were given have been taken or not when they return,
 * and nobody touches the memory any more. So a device may let them use guest memory directly, and a reset finds nothing
 * under way. What waits is a poll of the descriptor, on the loop.
 */
#ifndef DEVICES_NET_NET_H
#define DEVICES_NET_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct loop;
struct net_backend;

#define NET_CARDS_MAX	 8
#define NET_QUEUES_MAX	 64
#define NET_FORWARDS_MAX 16
#define NET_MTU_MIN	 576
#define NET_MTU_MAX	 9000
#define NET_BATCH	 64	/* frames that one call takes */
#define NET_SEGMENTS_MAX 65536u /* bytes of a frame that is still to be cut into segments, or was put together */

enum net_kind { NET_TAP, NET_FD, NET_USER };

struct net_forward {
	uint16_t host, guest;
	bool udp;
};

/* One --net, parsed. */
struct net_options {
	enum net_kind kind;
	char tap[16]; /* interface name */
	int fd;
	bool has_mac;
	uint8_t mac[6];
	unsigned int queues; /* 1 to NET_QUEUES_MAX */
	unsigned int mtu;    /* 0: the tap's own, 1500 otherwise */
	struct net_forward forwards[NET_FORWARDS_MAX];
	unsigned int nr_forwards;
};

/* "tap=NAME,queues=2": 0, or -EINVAL with one sentence in err, without the option's name. */
int net_parse(const char *text, struct net_options *options, char *err, size_t errlen);

/* Linux include/uapi/linux/virtio_net.h, struct virtio_net_hdr: what a tap with IFF_VNET_HDR says of a frame. */
struct net_header {
	uint8_t flags, gso;
	uint16_t header_length, gso_size, csum_start, csum_offset;
};
#define NET_NEEDS_CSUM 1 /* flags: the checksum at csum_start + csum_offset is yet to be completed */
#define NET_DATA_VALID 2 /* flags: the checksum was found good */
#define NET_GSO_NONE   0
#define NET_GSO_TCPV4  1
#define NET_GSO_TCPV6  4

/* A frame in pieces. If the back-end has headers, the first piece is the struct net_header. */
struct net_frame {
	struct iovec *iov;
	unsigned int count;
	ssize_t result; /* bytes received, header included; or -errno, also of sending */
};

/* What a back-end shall do with the frames it gives: see net_set_offload(). */
#define NET_RX_CSUM 1u /* may leave checksums to us */
#define NET_RX_TSO4 2u /* may give TCP segments put together, up to NET_SEGMENTS_MAX */
#define NET_RX_TSO6 4u

struct net_ops {
	/* The first n of count frames are done with (result says how); less than count: full, see net_want_room(). */
	unsigned int (*send)(struct net_backend *net, unsigned int queue, struct net_frame *frames, unsigned int count);
	/* The first n of count frames have arrived; less than count: there are no more now. */
	unsigned int (*receive)(struct net_backend *net, unsigned int queue, struct net_frame *frames,
				unsigned int count);
	/* readable() is to be called once more, after others had a turn. */
	void (*again)(struct net_backend *net, unsigned int queue);
	/* writable() is to be called when there is room. NULL: is never full. */
	void (*want_room)(struct net_backend *net, unsigned int queue);
	/* NET_RX_*; NULL: cannot. */
	int (*set_offload)(struct net_backend *net, unsigned int offload);
	/* The guest uses so many queues; NULL: there is one. */
	int (*set_queues)(struct net_backend *net, unsigned int count);
	/* What has become of the other end, for the log. */
	void (*explain)(struct net_backend *net, char *text, size_t size);
	void (*destroy)(struct net_backend *net);
};

struct net_backend {
	const struct net_ops *ops;
	bool headers;	     /* a struct net_header before each frame, and so checksum and segmentation offload */
	unsigned int queues; /* that it has itself; it keeps a flow on one of them */
	unsigned int mtu;
	char name[40]; /* net_describe() */
	bool ended;    /* gone() was called */

	/*
	 * The device's, called by the loop. readable(): there may be frames. gone(): the other end is no more, which
	 * the log says; nothing comes and goes from now on.
	 */
	void *opaque;
	void (*readable)(void *opaque, unsigned int queue);
	void (*writable)(void *opaque, unsigned int queue);
	void (*gone)(void *opaque);
};

/* Opens what --net asks for. NULL after one line with the option's name. */
struct net_backend *net_open(struct loop *loop, const struct net_options *options);

/* Text for logs and status: "tap tap0". */
void net_describe(const struct net_options *options, char *text, size_t size);

#endif
