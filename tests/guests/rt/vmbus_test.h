/* SPDX-License-Identifier: MIT */
/* The guest's side of the vmbus-test device, whose protocol is told in devices/vmbus/testdev.h. */
#ifndef RT_VMBUS_TEST_H
#define RT_VMBUS_TEST_H

#include "rt/vmbus.h"

enum {
	VT_ECHO = 1,
	VT_PING,
	VT_SEND,
	VT_OFFER,
	VT_RESCIND,
	VT_HOLD,
	VT_SUM,
	VT_FILL,
	VT_RELEASE,
	VT_COUNT,
	VT_FAIL,
	VT_RANGES,
};

struct vt_packet {
	uint32_t op, status, a, b;
	uint64_t value;
};

#define VT_EPERM  1
#define VT_ENOENT 2
#define VT_EFAULT 14
#define VT_EBUSY  16
#define VT_EINVAL 22
#define VT_ENOSPC 28

#define VT_BUFFER 20000 /* bytes of the largest packet */

/* The offer of the device, or of one of its subchannels. It must be there. */
const struct vb_offer *vt_offer(unsigned int sub);
/* The offer of the other device, which wants monitor ids. */
const struct vb_offer *vt_monitored(void);
uint32_t vt_open(struct vb_channel *ch, unsigned int out, unsigned int in, unsigned int vp);

/* A packet of so many bytes (at least 24, a multiple of 8) there and back, compared. */
void vt_echo(struct vb_channel *ch, uint32_t size);
/* Waits for its interrupt before it looks: the host need not send one to a guest that has taken the packet already. */
void vt_echo_heard(struct vb_channel *ch, uint32_t size);
/* Sends an order, asking for a completion, and waits for its answer. */
struct vt_packet vt_order(struct vb_channel *ch, uint32_t op, uint32_t a, uint32_t b, uint64_t value);
/* Sends it and does not wait. */
bool vt_send(struct vb_channel *ch, uint32_t op, uint32_t a, uint32_t b);
/* The next of the packets of VT_SEND, which must be number n and of size bytes. */
void vt_sent(struct vb_channel *ch, uint32_t n, uint32_t size);

/* All that a guest needs: opens, has packets echoed, is interrupted on the VP, closes. */
void vt_good(unsigned int vp);
/* Fills the ring of the host. */
void vt_fill(struct vb_channel *ch);
/* Makes the host write a packet, if our ring's index lets it be asked at all. */
void vt_provoke(struct vb_channel *ch);

/* After an attack: waits until no message comes any more, makes a new contact of version 5.3, and checks that it is
 * good. */
void vt_anew(void);

/* For another VP (vb_start()): writes a and b to *at by turns, from vt_flip() until vt_flipped() has returned. */
void vt_flipper(unsigned int n);
void vt_flip(volatile uint32_t *at, uint32_t a, uint32_t b);
void vt_flipped(void);

uint64_t vt_sum(uint64_t sum, const void *bytes, size_t size);

#endif
