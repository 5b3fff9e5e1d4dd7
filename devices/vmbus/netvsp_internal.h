/* SPDX-License-Identifier: MIT */
/* What the files of the network card share. Loop thread. */
#ifndef DEVICES_VMBUS_NETVSP_INTERNAL_H
#define DEVICES_VMBUS_NETVSP_INTERNAL_H

#include "devices/net/net.h"
#include "devices/net/packet.h"
#include "devices/vmbus/netvsp.h"
#include "devices/vmbus/nvsp.h"
#include "devices/vmbus/rndis.h"
#include "devices/vmbus/vmbus.h"

enum {
	NETVSP_PAGE = 4096,
	NETVSP_BUFFER_PAGES = 8192,  /* of a receive or send buffer: 32 MiB, more than any version allows */
	NETVSP_SECTION_SIZE = 6144,  /* of the send buffer; Hyper-V's own */
	NETVSP_ROOM = 128,	     /* for RNDIS in front of a frame in the receive buffer */
	NETVSP_SLOT_ALIGN = 256,     /* so that ROOM is in one page */
	NETVSP_RX_BATCH = 32,	     /* frames of one VMBus packet to the guest */
	NETVSP_RX_ROUNDS = 8,	     /* batches before others have a turn */
	NETVSP_PIECES = 96,	     /* of memory that a packet of the guest's may consist of */
	NETVSP_POOL = 512,	     /* pieces of all frames that wait to be sent */
	NETVSP_INFO_MAX = 512,	     /* bytes of per-packet information */
	NETVSP_CONTROL_MAX = 4096,   /* bytes of an RNDIS control message */
	NETVSP_CONTROL_PENDING = 64, /* control messages that wait for room */
	NETVSP_DONE_MAX = 65536,     /* completions that wait for room */
	NETVSP_MULTICAST = 32,
	NETVSP_PACKET_MAX = 8192,
};

enum slot_state {
	SLOT_FREE,
	SLOT_OURS,  /* being filled, or waiting to be sent */
	SLOT_GUEST, /* first of a packet that the guest is to complete */
	SLOT_CHAIN, /* a further one of it */
};

/* A piece of the receive buffer. */
struct netvsp_slot {
	uint32_t next; /* free list, or the next of its packet; NO_SLOT ends */
	uint8_t state;
	uint8_t channel;
};
#define NO_SLOT 0xffffffffu

/* A buffer of the guest's, by its GPADL. */
struct netvsp_buffer {
	struct vmbus_gpadl *gpadl; /* held; NULL: none */
	void **pages;
	size_t size;
	uint16_t id;
};

struct netvsp_tx_frame {
	struct net_header header;
	uint8_t head[PACKET_HEAD + 4]; /* headers that differ from the guest's */
	struct iovec *iov;	       /* in the pool */
	unsigned int count;
	size_t bytes;
	bool completes; /* the guest's packet is done with this frame */
	uint64_t transaction;
	uint32_t status;
};

struct netvsp_done {
	uint64_t transaction;
	uint32_t status;
};

struct netvsp_channel {
	struct netvsp *dev;
	struct vmbus_channel *channel;
	unsigned int index;
	bool open;

	/* Frames from the guest, gathered for one call. */
	struct netvsp_tx_frame frames[NET_BATCH];
	struct iovec pool[NETVSP_POOL];
	unsigned int tx_first, tx_count, pool_used;
	bool tx_blocked;
	struct netvsp_done *done; /* completions that wait for room */
	size_t done_count, done_size;

	/* Frames to the guest, gathered for one packet. */
	struct nvsp_pages_range range[NETVSP_RX_BATCH];
	uint32_t rx_first, rx_last;
	unsigned int rx_count;
	bool rx_held;	 /* it waits for room in the ring */
	bool rx_starved; /* the queue of this number waits for slots */
};

struct netvsp_control {
	struct netvsp_control *next;
	size_t size;
	uint8_t message[];
};

struct netvsp {
	struct vmbus_device device;
	struct net_backend *net;
	struct netvsp *next; /* of the machine, by number */
	unsigned int number, max_channels;
	struct netvsp_channel *channels[NET_QUEUES_MAX]; /* kept when closed */
	unsigned int open_channels, subchannels;

	/* NVSP */
	uint32_t version;   /* 0: not agreed on */
	uint32_t frame_max; /* that the guest takes, Ethernet header included */
	struct netvsp_buffer receive, send;
	struct netvsp_slot *slots;
	uint32_t slot_size, slot_count, first_free, free_count;

	/* RNDIS */
	bool initialized;
	uint8_t permanent_mac[6], mac[6];
	uint32_t filter;
	uint8_t multicast[NETVSP_MULTICAST][6];
	unsigned int multicasts;
	unsigned int offload; /* NET_RX_* asked for by the guest */
	bool rss;
	uint32_t rss_types;
	uint8_t rss_table[NDIS_RSS_TABLE];
	unsigned int rss_entries;
	uint8_t rss_key[NDIS_RSS_KEY];
	struct netvsp_control *control_first, **control_last;
	unsigned int control_count;

	bool link;	/* as the host's user wants it */
	bool gone;	/* the back-end has ended */
	bool link_told; /* what the guest was told last */
	struct netvsp_stats stats;
};

/* netvsp.c */
void netvsp_forget_receive_buffer(struct netvsp *dev);
size_t netvsp_message_size(const struct netvsp *dev);
/* Tells the guest if the link is not what it was told last. */
void netvsp_update_link(struct netvsp *dev);
struct netvsp_channel *netvsp_channel_at(struct netvsp *dev, unsigned int index); /* open, or NULL */

/* netvsp_rndis.c: a control message of the guest's, a copy; -errno: against the protocol */
int netvsp_control(struct netvsp *dev, const uint8_t *message, size_t size);
void netvsp_send_pending_control(struct netvsp *dev);
void netvsp_forget_control(struct netvsp *dev);
void netvsp_rndis_reset(struct netvsp *dev);
void netvsp_indicate(struct netvsp *dev, uint32_t status);

/* netvsp_oid.c: the value of an OID in info (*size bytes of room, then of value); a RNDIS_STATUS_* */
uint32_t netvsp_query(struct netvsp *dev, uint32_t oid, const uint8_t *in, size_t in_size, uint8_t *info, size_t *size);
uint32_t netvsp_set(struct netvsp *dev, uint32_t oid, const uint8_t *info, size_t size);

/* netvsp_tx.c */
int netvsp_tx(struct netvsp_channel *nc, const struct vmbus_packet *packet, const struct nvsp_message *message);
void netvsp_tx_flush(struct netvsp_channel *nc);
void netvsp_tx_forget(struct netvsp_channel *nc);
/* A completion of this size and, behind its type, this first word. */
int netvsp_complete(struct netvsp_channel *nc, uint64_t transaction, uint32_t status);
void netvsp_send_done(struct netvsp_channel *nc);

/* netvsp_rx.c */
int netvsp_make_slots(struct netvsp *dev);
void netvsp_rx(struct netvsp *dev, unsigned int queue);
void netvsp_rx_start(struct netvsp *dev);
void netvsp_rx_completed(struct netvsp_channel *nc, uint64_t transaction);
void netvsp_rx_resume(struct netvsp *dev);
void netvsp_rx_room(struct netvsp_channel *nc);
void netvsp_rx_forget(struct netvsp_channel *nc);
/* Puts a control message into a slot and sends it. 0, -EAGAIN, -ENOTCONN. */
int netvsp_rx_control(struct netvsp *dev, const void *message, size_t size);

#endif
