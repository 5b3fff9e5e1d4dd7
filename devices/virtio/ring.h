/* SPDX-License-Identifier: MIT */
/*
 * The device's end of a split ring (virtio 1.2, 2.7), for devices in this process: takes requests out and gives them
 * back. The ring and its descriptors are in guest memory, which changes at any time: each is read once, checked, and
 * used as it was then. One thread at a time; no locks.
 */
#ifndef DEVICES_VIRTIO_RING_H
#define DEVICES_VIRTIO_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "devices/virtio/virtio.h"

#define VIRTIO_CHAIN_MAX 256 /* parts of a request */

struct memory;

struct virtio_ring {
	const struct memory *memory;
	struct virtio_queue_setup setup;
	bool indirect, event_idx;
	uint16_t next_avail, next_used;
	uint16_t shown; /* next_used as the driver sees it */
	bool broken;	/* the driver made nonsense available: nothing more is taken */
};

struct virtio_part {
	uint8_t *host; /* guest memory */
	uint32_t length;
};

/* A request: what the device reads, then what it writes. No part is empty. */
struct virtio_chain {
	uint16_t head;
	unsigned int nr_read, nr_write;
	struct virtio_part parts[VIRTIO_CHAIN_MAX]; /* nr_read, then nr_write of them */
	uint64_t read_bytes, write_bytes;
};

/*
 * A queue that the driver has enabled. features: what it has accepted. 0 or -EFAULT (virtio_check_ring()); memory must
 * outlive the ring.
 */
int virtio_ring_init(struct virtio_ring *r, const struct memory *memory, const struct virtio_queue_setup *setup,
		     uint64_t features);

/* 1 with the next request, 0: there is none; -EPROTO: the ring is broken, as it stays. */
int virtio_ring_pop(struct virtio_ring *r, struct virtio_chain *chain);

/*
 * Gives back the request that began at this head; written: the bytes at the start of its writable parts that have been.
 * The driver sees it after virtio_ring_show(), which says whether it wants an interrupt for what is new to it.
 */
void virtio_ring_push(struct virtio_ring *r, uint16_t head, uint32_t written);
bool virtio_ring_show(struct virtio_ring *r);

/*
 * Whether notifications are wanted, which is a hint. After asking for them, look for a request once more: one may have
 * come just before.
 */
void virtio_ring_notifications(struct virtio_ring *r, bool wanted);

#endif
