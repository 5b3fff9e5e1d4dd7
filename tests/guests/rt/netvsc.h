/* SPDX-License-Identifier: MIT */
/*
 * A network card's driver, written here a second time from the protocol (Linux drivers/net/hyperv/hyperv_net.h). Waits
 * for each answer; frames go out from a section of the send buffer or from pages.
 */
#ifndef RT_NETVSC_H
#define RT_NETVSC_H

#include "rt/vmbus.h"

#define NV_RECEIVE_PAGES 256
#define NV_SEND_PAGES	 16

enum { NV_V1 = 2, NV_V2 = 0x30002, NV_V4 = 0x40000, NV_V5 = 0x50000, NV_V6 = 0x60000, NV_V6_1 = 0x60001 };

/* A frame, or a control message, that has arrived and is yet to be completed. */
struct nv_arrival {
	uint64_t transaction;
	uint32_t ranges;
	struct {
		uint32_t size, offset;
	} range[64];
};

struct nv {
	struct vb_channel ch;
	uint32_t version;
	uint8_t *receive, *send, *control; /* buffers, and a page for control messages */
	uint32_t receive_handle, send_handle;
	uint32_t slot_size, slots, section_size;
	uint32_t request; /* of RNDIS, counts up */
	uint8_t mac[6];
};

/* Opens the card's channel, agrees on a version, lends the buffers and initialises RNDIS. */
void nv_start(struct nv *nv, uint32_t version);
/* All of it back. */
void nv_stop(struct nv *nv);
const struct vb_offer *nv_offer(unsigned int sub);

/* An NVSP message of words 32-bit words and its completion's payload; the completion's size. */
uint32_t nv_message(struct nv *nv, const uint32_t *words, uint32_t count, uint32_t *answer);
/* Agrees on a version: the one that the host says, 0 for none. */
uint32_t nv_init(struct nv *nv, uint32_t min, uint32_t max);

/* A query or set; the RNDIS status, and of a query the value (*size bytes of room, then of value). */
uint32_t nv_query(struct nv *nv, uint32_t oid, void *value, uint32_t *size);
uint32_t nv_set(struct nv *nv, uint32_t oid, const void *value, uint32_t size);

/* Sends size bytes at memory as RNDIS, by pages or, from the send buffer, by section. False: the ring is full. */
bool nv_send_pages(struct nv *nv, uint32_t channel_type, const void *memory, uint32_t size, uint64_t transaction);
bool nv_send_section(struct nv *nv, uint32_t section, uint32_t size, uint64_t transaction);
/* An RNDIS message around a frame of size bytes, at to; its length. */
uint32_t nv_wrap(uint8_t *to, const void *frame, uint32_t size);
/* The status in the completion of a packet, waited for; frames that arrive meanwhile fail the guest. */
uint32_t nv_completed(struct nv *nv, uint64_t transaction);

/* The next packet from the host, if it is one with pages: false if there is none in us microseconds. */
bool nv_arrived(struct nv *nv, struct nv_arrival *a, uint32_t us);
/* The frame in range n, and its size; NULL: it is none. */
const uint8_t *nv_frame(const struct nv *nv, const struct nv_arrival *a, uint32_t n, uint32_t *size);
void nv_done(struct nv *nv, const struct nv_arrival *a);

#endif
