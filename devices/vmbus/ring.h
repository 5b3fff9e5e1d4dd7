/* SPDX-License-Identifier: MIT */
/*
 * The two rings of a channel, seen from the host. A ring is a control page and data pages in guest memory; the guest
 * may change any byte of it at any time. So a packet is copied out before it is looked at, each index is read once and
 * checked, and what must not change under us (our own index) is kept here and only written there.
 *
 * Layout of the control page and of packets: Linux include/linux/hyperv.h, struct hv_ring_buffer and struct
 * vmpacket_descriptor.
 */
#ifndef DEVICES_VMBUS_RING_H
#define DEVICES_VMBUS_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "devices/vmbus/vmbus.h"

#define RING_PAGE 4096

/* One ring. Fields are the functions' own. */
struct vmbus_ring {
	void *control;	    /* host address of the control page */
	uint8_t *data;	    /* data in one piece, or NULL */
	void *const *pages; /* host addresses of the data pages, if not in one piece; the caller's */
	bool twice;	    /* data is mapped a second time right behind itself */
	uint32_t size;	    /* bytes of data */
	uint32_t index;	    /* where we read or write next */
	uint32_t published; /* the value of it that the guest has been shown */
	uint32_t wanted;    /* to the guest: room asked for in pending_send_sz, 0: none */
	bool signal;	    /* to the guest: an interrupt that ring_publish() has yet to report */
};

/*
 * pages: host addresses of the control page and the count - 1 data pages, in order; it must outlive the ring. mapped:
 * NULL, or the data pages mapped twice in a row. inbound: from the guest. The ring starts where the control page says
 * it was left. -EINVAL for fewer than 2 pages, too many for a 32-bit size, or indices in the control page that are out
 * of range or not a multiple of 8.
 */
int ring_attach(struct vmbus_ring *ring, void *const *pages, size_t count, void *mapped, bool inbound);

/*
 * From the guest. ring_read() copies the next packet into buffer (max bytes, 8-byte aligned) and describes it in
 * *packet, whose pointers are into buffer: 1; 0 if there is none; -EPROTO for indices or lengths that cannot be;
 * -EMSGSIZE if it does not fit. ring_read_done() shows the guest how far we have read: true if the guest, which waits
 * for room, must be interrupted. ring_mask(ring, true) asks the guest not to signal while we read; taking the mask back
 * returns whether packets have arrived meanwhile.
 */
int ring_read(struct vmbus_ring *ring, void *buffer, size_t max, struct vmbus_packet *packet);
bool ring_read_done(struct vmbus_ring *ring);
bool ring_mask(struct vmbus_ring *ring, bool on);

/*
 * To the guest. ring_write() stores a packet of two pieces of payload, not yet visible; the first is a multiple of 8
 * bytes and, in a packet of type TRANSFER_PAGES or GPA_DIRECT, the range list. 0; -EAGAIN if there is no room, with
 * the guest asked to signal when there is (what was stored before becomes visible); -EPROTO for an impossible index;
 * -EMSGSIZE if it can never fit. ring_publish() makes all that was written visible: true if the guest must be
 * interrupted.
 *
 * ring_room() tells once, after an -EAGAIN, that the packet would fit now, and takes the request to signal back.
 */
int ring_write(struct vmbus_ring *ring, uint16_t type, uint16_t flags, uint64_t transaction, const void *head,
	       size_t head_size, const void *payload, size_t size);
bool ring_publish(struct vmbus_ring *ring);
bool ring_room(struct vmbus_ring *ring);

#endif
