/* SPDX-License-Identifier: MIT */
/* What the files of virtio-blk share. */
#ifndef DEVICES_VIRTIO_BLK_INTERNAL_H
#define DEVICES_VIRTIO_BLK_INTERNAL_H

#include "devices/block/block.h"
#include "devices/virtio/blk.h"
#include "devices/virtio/ring.h"
#include "devices/virtio/virtio.h"
#include "vmm/device.h"

#define VBLK_SECTOR	 512u /* the unit of all numbers on the wire, whatever the disk's blocks are */
#define VBLK_QUEUE_SIZE	 256
#define VBLK_DISCARD_MAX (4u << 20) /* sectors of one discard, or of zeroes */

/* 5.2.3 */
enum {
	VIRTIO_BLK_F_SEG_MAX = 2,
	VIRTIO_BLK_F_RO = 5,
	VIRTIO_BLK_F_BLK_SIZE = 6,
	VIRTIO_BLK_F_FLUSH = 9,
	VIRTIO_BLK_F_TOPOLOGY = 10,
	VIRTIO_BLK_F_DISCARD = 13,
	VIRTIO_BLK_F_WRITE_ZEROES = 14,
};

/* 5.2.6: the last byte of a request. */
enum vblk_status { VBLK_OK, VBLK_IOERR, VBLK_UNSUPP };

struct block_claim;
struct vblk_request;

struct vblk {
	struct virtio v;
	struct device device; /* is reset before the bus is */
	struct block *block;
	struct block_claim *claim; /* NULL: nobody else has the disk */
	const char *path;	   /* for messages */
	char name[16];
	char id[VIRTIO_BLK_ID_SIZE];
	struct loop_work work; /* for what vCPUs want */
	_Atomic unsigned int wanted;
	_Atomic bool idle;   /* has not been started since it was reset */
	_Atomic bool let_go; /* its driver had it and reset it: a firmware that has handed over */

	/* Loop thread. */
	struct loop_work end_work; /* after a number of answers */
	struct virtio_ring ring;
	uint64_t features;     /* that the driver has accepted */
	bool running;	       /* the ring is in use */
	bool full;	       /* requests may be on the ring that are not taken, because there are enough */
	bool failed;	       /* the driver must reset the device */
	bool told;	       /* of that */
	unsigned int stopping; /* what waits for the last request to end */
	struct vblk_request *requests;
	unsigned int in_flight;
};

/* One request with an operation under way. */
struct vblk_request {
	struct vblk *dev;
	struct vblk_request *next, **link;
	struct block_request io;
	uint8_t *status; /* in guest memory */
	uint32_t written;
	uint16_t head;
	struct iovec segments[];
};

/* blk.c: gives a request back. */
void vblk_answer(struct vblk *b, uint16_t head, uint8_t *status, enum vblk_status result, uint32_t written);
/* The last of the requests under way may have ended. */
void vblk_ended(struct vblk *b);
extern const struct virtio_class vblk_class;
extern const struct device_class vblk_device_class;
void vblk_init(struct vblk *b);

/* blk_request.c: begins it, or answers at once. -EPROTO: there is no way to answer. */
int vblk_execute(struct vblk *b, const struct virtio_chain *chain);
/* The loop has ended: frees what is under way. */
void vblk_abandon(struct vblk *b);

#endif
