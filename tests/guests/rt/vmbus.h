/* SPDX-License-Identifier: MIT */
/*
 * VMBus from the guest's side: the messages, the rings and the interrupts, each written here a second time from the
 * specification, so that a mistake of the host's is not made by both. The formats are those of Linux
 * include/linux/hyperv.h (struct vmbus_channel_*, struct hv_ring_buffer, struct vmpacket_descriptor).
 *
 * Messages and events are taken by polling, unless vb.by_interrupt is set: then only the interrupt handler takes them,
 * and one that is not raised is missed.
 */
#ifndef RT_VMBUS_H
#define RT_VMBUS_H

#include <stdbool.h>
#include <stdint.h>

#include "rt/rt.h"

#define VB_SINT	  2
#define VB_VECTOR 0xf3
#define VB_VPS	  8
#define VB_PAGE	  4096
#define VB_OFFERS 128
#define VB_MAIL	  128	   /* messages that can wait to be looked at */
#define VB_WAIT	  20000000 /* microseconds after which an answer is late */

/* Version words. */
enum {
	VB_WS2008 = 0x0000000d,
	VB_WIN7 = 0x00010001,
	VB_WIN8 = 0x00020004,
	VB_WIN8_1 = 0x00030000,
	VB_WIN10 = 0x00040000,
	VB_RS3 = 0x00040001,
	VB_5_0 = 0x00050000,
	VB_5_1 = 0x00050001,
	VB_5_2 = 0x00050002,
	VB_5_3 = 0x00050003,
	VB_6_0 = 0x00060000,
};

/* Kinds of channel messages. */
enum {
	VB_OFFER = 1,
	VB_RESCIND,
	VB_REQUEST_OFFERS,
	VB_ALL_OFFERS,
	VB_OPEN,
	VB_OPEN_RESULT,
	VB_CLOSE,
	VB_GPADL_HEADER,
	VB_GPADL_BODY,
	VB_GPADL_CREATED,
	VB_GPADL_TEARDOWN,
	VB_GPADL_TORNDOWN,
	VB_RELID_RELEASED,
	VB_CONTACT,
	VB_VERSION,
	VB_UNLOAD,
	VB_UNLOADED,
	VB_TL_CONNECT = 21,
	VB_MODIFY = 22,
	VB_TL_RESULT = 23,
	VB_MODIFIED = 24,
	VB_MODIFY_CONNECTION = 25,
	VB_CONNECTION_MODIFIED = 26,
	VB_PAUSE = 27,
	VB_PAUSED = 28,
	VB_RESUME = 29,
};

/* Feature flags of 6.0. */
enum { VB_GUEST_SIGNAL = 1, VB_REDIRECT = 2, VB_MODIFY_CONN = 4, VB_CLIENT_ID = 8, VB_PAUSE_RESUME = 0x20 };

/* A channel message: 32-bit words, [0] is the kind, [1] reserved. */
struct vb_message {
	uint32_t size; /* bytes */
	uint32_t w[60];
};

struct vb_offer {
	uint32_t kind, zero;
	uint8_t type[16], instance[16];
	uint64_t reserved[2];
	uint16_t flags, mmio;
	uint8_t user[120];
	uint16_t sub, mmio_optional;
	uint32_t relid;
	uint8_t monitor, monitor_allocated;
	uint16_t dedicated;
	uint32_t connection;
} __attribute__((packed));

/* The connection. */
struct vb {
	uint32_t version, features, connection; /* what the last contact gave */
	unsigned int vp;			/* where messages go */
	bool by_interrupt;
	bool polling;	     /* interrupts are never let in */
	uint32_t sint_flags; /* HV_SINT_* */
	bool lenient;	     /* the guest is hostile: messages that it has not asked for are dropped */
	/* What to add to the relid and the offer's connection id, if the guest may choose them (6.0). */
	uint32_t flag_offset, connection_offset;
	volatile uint32_t offers;
	struct vb_offer offer[VB_OFFERS];      /* since the last contact; kind is 0 for those that were rescinded */
	volatile uint32_t rescinds, rescinded; /* how many, and the last one's relid */
	uint8_t *interrupt_page;	       /* of versions before 2.4 */
	uint8_t *monitor_pages;		       /* two, named by contacts; NULL: none */
	volatile uint32_t messages[VB_VPS];    /* taken from each VP's slot */
	volatile uint32_t events[VB_VPS];      /* event flags taken from each VP's page */
	volatile uint32_t flag_events[2048];
	volatile uint32_t flag_vp[2048]; /* VP that the last one arrived at */
};
extern struct vb vb;

/* Starts this processor and cpus - 1 others; those run entry(n), n from 1 on, if it is not NULL, and then vb_idle(). */
void vb_start(unsigned int cpus, void (*entry)(unsigned int n));
unsigned int vb_cpu(void); /* which VP this is */

/* Guest pages, zeroed, that follow one another. Never freed. */
void *vb_pages(unsigned int count);
/* A point of memory after which everything vb_pages() gave is given back. */
uint8_t *vb_mark(void);
void vb_release(uint8_t *mark);

/* HvPostMessage of size bytes, again as long as the host has no room for it. */
void vb_post(const void *message, uint32_t size);
/* The same once, on this connection id; its status. */
uint16_t vb_post_once(uint32_t connection, const void *message, uint32_t size);

/* Takes what comes for this VP, for ever. */
_Noreturn void vb_idle(void);
/* Looks once for messages and events of this VP. */
void vb_poll(void);
/* The next message that is not an offer or a rescind; false after us microseconds. */
bool vb_next(struct vb_message *m, uint32_t us);
/* The next message, which must be of this kind and size. */
void vb_expect(struct vb_message *m, uint32_t kind, uint32_t size);
/* Whether a counter gets to count, polling meanwhile; false after us microseconds. */
bool vb_reaches(const volatile uint32_t *counter, uint32_t count, uint32_t us);
/* Drops messages until none comes any more for us microseconds; how many. */
unsigned int vb_drain(uint32_t us);

/* INITIATE_CONTACT: false if the host refuses this version. features: those asked for, of 6.0. */
bool vb_contact(uint32_t version, unsigned int vp, uint32_t features);
/* REQUEST_OFFERS, and all offers. */
void vb_request_offers(void);
/* Both, the contact must succeed. Messages go to VP 0. */
void vb_connect(uint32_t version);
void vb_unload(void);
/* The offer of this type (and, if not NULL, instance) and subchannel, not rescinded; NULL if there is none. */
void vb_relid_released(uint32_t relid);
const struct vb_offer *vb_find(const uint8_t *type, const uint8_t *instance, unsigned int sub);

struct vb_ring {
	volatile uint32_t *control; /* write, read, mask, pending send size; [16] features */
	uint8_t *data;
	uint32_t size;
};
enum { VB_WRITE, VB_READ, VB_MASK, VB_PENDING, VB_FEATURES = 16 };

struct vb_channel {
	uint32_t relid, connection, gpadl;
	uint32_t flag; /* event flag: the relid, unless chosen otherwise */
	bool dedicated;
	bool monitored; /* signals are a bit in the second monitor page: */
	uint8_t monitor;
	uint8_t *memory;
	struct vb_ring out, in;
	uint32_t signals; /* sent to the host */
};

/* A GPADL over these pages, and over one piece of memory; the host's status. Handles are the caller's. */
uint32_t vb_gpadl(uint32_t relid, uint32_t handle, const void *memory, uint32_t bytes);
void vb_gpadl_teardown(uint32_t relid, uint32_t handle);
uint32_t vb_new_handle(void);

/*
 * Rings of out + in pages of data each, plus their control pages, and OPEN. The host's status, 0 is open. vb_close()
 * closes and takes the GPADL down. vb_reopen() opens again over the same memory.
 */
uint32_t vb_open(struct vb_channel *ch, const struct vb_offer *offer, unsigned int out, unsigned int in,
		 unsigned int vp);
uint32_t vb_reopen(struct vb_channel *ch, unsigned int vp);
void vb_close(struct vb_channel *ch);
uint32_t vb_send_open(struct vb_channel *ch, uint32_t open_id, uint32_t vp, uint32_t downstream);
void vb_send_close(uint32_t relid);

/* What the files of this library share: a time, by the time stamp counter; a copy of 64-bit words; a rest while
 * waiting. */
uint64_t vb_deadline(uint32_t us);
bool vb_in_time(uint64_t end);
void vb_copy8(void *to, const void *from, uint32_t size);
void vb_rest(unsigned int looks);

/* Descriptor of a packet. */
struct vb_packet {
	uint16_t type, offset8, length8, flags;
	uint64_t transaction;
};
enum { VB_INBAND = 6, VB_TRANSFER = 7, VB_GPA_DIRECT = 9, VB_COMPLETION = 0xb };

/* Bytes free in a ring of ours. */
uint32_t vb_room(const struct vb_ring *ring);
/* Bytes as they are, a multiple of 8, at the write index; the index moves on. No check of room. */
void vb_put_raw(struct vb_ring *ring, const void *bytes, uint32_t size);
/*
 * A packet of two pieces, the first (NULL is fine) a multiple of 8 bytes and counted to the descriptor, and a signal
 * if the host needs one. False if the ring is full.
 */
bool vb_send2(struct vb_channel *ch, uint16_t type, uint16_t flags, uint64_t transaction, const void *extra,
	      uint32_t extra_size, const void *payload, uint32_t size);
bool vb_send(struct vb_channel *ch, uint16_t type, uint16_t flags, uint64_t transaction, const void *payload,
	     uint32_t size);
void vb_signal(struct vb_channel *ch);
/*
 * The next packet: descriptor, and payload copied to buffer (max bytes, 8-byte aligned). Its payload size, -1 if there
 * is none. Signals the host if that waits for room. Every field of it is checked.
 */
int vb_recv(struct vb_channel *ch, struct vb_packet *packet, void *buffer, uint32_t max);
/* The same, waiting for it; fails the guest if none comes. */
uint32_t vb_await(struct vb_channel *ch, struct vb_packet *packet, void *buffer, uint32_t max);

#define VB_GUID(a, b, c, d0, d1, d2, d3, d4, d5, d6, d7)                                                               \
	{                                                                                                              \
		(a) & 0xff, (a) >> 8 & 0xff, (a) >> 16 & 0xff, (a) >> 24, (b)&0xff, (b) >> 8, (c)&0xff, (c) >> 8, d0,  \
			d1, d2, d3, d4, d5, d6, d7                                                                     \
	}

#endif
