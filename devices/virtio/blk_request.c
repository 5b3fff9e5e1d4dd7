/* SPDX-License-Identifier: MIT */
/*
 * A request (virtio 1.2, 5.2.6): a header of 16 bytes, data, and a byte of status, divided into parts as the driver
 * likes. The data go between the driver's pages and the image without a copy.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "devices/block/claim.h"
#include "devices/virtio/blk_internal.h"
#include "vmm/trace.h"

#define HEADER	     16u
#define TRANSFER_MAX (1ull << 30)
#define FLAG_UNMAP   1u

enum { TYPE_IN = 0, TYPE_OUT = 1, TYPE_FLUSH = 4, TYPE_GET_ID = 8, TYPE_DISCARD = 11, TYPE_WRITE_ZEROES = 13 };

struct header {
	uint32_t type, reserved;
	uint64_t sector;
};
_Static_assert(sizeof(struct header) == HEADER, "as on the wire");

/* Of a discard, or of zeroes. */
struct range {
	uint64_t sector;
	uint32_t sectors, flags;
};
_Static_assert(sizeof(struct range) == 16, "as on the wire");

/* What is known about a request before it begins. */
struct order {
	struct vblk *b;
	const struct virtio_chain *chain;
	uint8_t *status;
	enum block_kind kind;
	uint64_t offset, length; /* bytes */
};

/* Copies bytes between the parts from skip on and host; they are there. */
static void copy(const struct virtio_part *parts, uint64_t skip, uint8_t *host, uint64_t bytes, bool to_guest)
{
	for (; bytes; parts++) {
		uint64_t here;

		if (skip >= parts->length) {
			skip -= parts->length;
			continue;
		}
		here = parts->length - skip < bytes ? parts->length - skip : bytes;
		if (to_guest)
			memcpy(parts->host + skip, host, here);
		else
			memcpy(host, parts->host + skip, here);
		host += here;
		bytes -= here;
		skip = 0;
	}
}

/* The same bytes as segments; neighbours are one. */
static unsigned int gather(const struct virtio_part *parts, uint64_t skip, uint64_t bytes, struct iovec *to)
{
	unsigned int count = 0;

	for (; bytes; parts++) {
		struct iovec *last = count ? &to[count - 1] : NULL;
		uint64_t here;

		if (skip >= parts->length) {
			skip -= parts->length;
			continue;
		}
		here = parts->length - skip < bytes ? parts->length - skip : bytes;
		if (last && (uint8_t *)last->iov_base + last->iov_len == parts->host + skip)
			last->iov_len += here;
		else
			to[count++] = (struct iovec){ parts->host + skip, here };
		bytes -= here;
		skip = 0;
	}
	return count;
}

static void answer(const struct order *o, enum vblk_status result, uint32_t written)
{
	vblk_answer(o->b, o->chain->head, o->status, result, written);
}

static void free_request(struct vblk_request *r)
{
	*r->link = r->next;
	if (r->next)
		r->next->link = r->link;
	free(r);
}

static void io_done(struct block_request *io, int result)
{
	struct vblk_request *r = (struct vblk_request *)((char *)io - offsetof(struct vblk_request, io));
	struct vblk *b = r->dev;

	b->in_flight--;
	if (b->claim)
		block_claim_end(b->claim);
	if (!result)
		vblk_answer(b, r->head, r->status, VBLK_OK, r->written);
	else
		vblk_answer(b, r->head, r->status, result == -EOPNOTSUPP ? VBLK_UNSUPP : VBLK_IOERR, 1);
	free_request(r);
	vblk_ended(b);
}

static void submit(const struct order *o)
{
	struct vblk *b = o->b;
	const struct virtio_chain *chain = o->chain;
	bool reads = o->kind == BLOCK_READ, writes = o->kind == BLOCK_WRITE;
	unsigned int parts = reads ? chain->nr_write : writes ? chain->nr_read : 0;
	struct vblk_request *r = malloc(sizeof(*r) + parts * sizeof(r->segments[0]));

	if (!r || (b->claim && !block_claim_begin(b->claim))) {
		free(r);
		answer(o, VBLK_IOERR, 1);
		return;
	}
	*r = (struct vblk_request){
		.dev = b,
		.next = b->requests,
		.link = &b->requests,
		.status = o->status,
		.written = reads ? (uint32_t)o->length + 1 : 1,
		.head = chain->head,
		.io = { .block = b->block, .kind = o->kind, .offset = o->offset, .length = o->length, .done = io_done },
	};
	if (r->next)
		r->next->link = &r->next;
	b->requests = r;
	r->io.segments = r->segments;
	if (reads)
		r->io.count = gather(chain->parts + chain->nr_read, 0, o->length, r->segments);
	else if (writes)
		r->io.count = gather(chain->parts, HEADER, o->length, r->segments);
	/* 5.2.6.2: to a driver that cannot flush, what is written is on stable storage (discards are not). */
	r->io.fua = writes && !(b->features & VIRTIO_BIT(VIRTIO_BLK_F_FLUSH));
	b->in_flight++;
	block_submit(&r->io);
}

/* Whole blocks, and on the disk. */
static bool set_range(struct order *o, uint64_t sector, uint64_t length)
{
	const struct block_info *info = block_info(o->b->block);

	if (sector > info->size / VBLK_SECTOR || length > info->size - sector * VBLK_SECTOR ||
	    sector * VBLK_SECTOR % info->block_size || length % info->block_size)
		return false;
	o->offset = sector * VBLK_SECTOR;
	o->length = length;
	return true;
}

static void transfer(struct order *o, uint64_t sector, uint64_t bytes)
{
	bool readonly = block_info(o->b->block)->readonly;

	if (bytes > TRANSFER_MAX || !set_range(o, sector, bytes) || (o->kind == BLOCK_WRITE && readonly))
		answer(o, VBLK_IOERR, 1);
	else if (!bytes)
		answer(o, VBLK_OK, 1);
	else
		submit(o);
}

static void flush(struct order *o)
{
	o->kind = BLOCK_FLUSH;
	if (block_info(o->b->block)->readonly)
		answer(o, VBLK_OK, 1);
	else
		submit(o);
}

static void get_id(const struct order *o)
{
	uint64_t room = o->chain->write_bytes - 1, bytes = room < VIRTIO_BLK_ID_SIZE ? room : VIRTIO_BLK_ID_SIZE;

	copy(o->chain->parts + o->chain->nr_read, 0, (uint8_t *)o->b->id, bytes, true);
	answer(o, VBLK_OK, (uint32_t)bytes + 1);
}

static void make_zero(struct order *o, uint32_t type)
{
	const struct block_info *info = block_info(o->b->block);
	struct range range;

	if (!info->punch && !info->readonly) {
		answer(o, VBLK_UNSUPP, 1);
		return;
	}
	/* One range is what the configuration allows. */
	if (o->chain->read_bytes != HEADER + sizeof(range) || info->readonly) {
		answer(o, VBLK_IOERR, 1);
		return;
	}
	copy(o->chain->parts, HEADER, (uint8_t *)&range, sizeof(range), false);
	o->kind = type == TYPE_DISCARD || range.flags ? BLOCK_PUNCH : BLOCK_ZERO;
	/* 5.2.6.2: of flags only this one is known, and it is not a discard's. */
	if (range.flags & ~FLAG_UNMAP || (type == TYPE_DISCARD && range.flags))
		answer(o, VBLK_UNSUPP, 1);
	else if (range.sectors > VBLK_DISCARD_MAX || !set_range(o, range.sector, (uint64_t)range.sectors * VBLK_SECTOR))
		answer(o, VBLK_IOERR, 1);
	else if (!o->length)
		answer(o, VBLK_OK, 1);
	else
		submit(o);
}

int vblk_execute(struct vblk *b, const struct virtio_chain *chain)
{
	const struct virtio_part *last = &chain->parts[chain->nr_read + chain->nr_write - 1];
	struct order o = { .b = b, .chain = chain };
	struct header h;

	if (!chain->write_bytes)
		return -EPROTO;
	o.status = last->host + last->length - 1;
	if (chain->read_bytes < HEADER) {
		answer(&o, VBLK_IOERR, 1);
		return 0;
	}
	copy(chain->parts, 0, (uint8_t *)&h, HEADER, false);
	TRACE(virtio_blk_request, "%s head %u type %u sector %llu bytes %llu", b->name, (unsigned int)chain->head,
	      h.type, (unsigned long long)h.sector, (unsigned long long)(chain->read_bytes + chain->write_bytes));
	switch (h.type) {
	case TYPE_IN:
		o.kind = BLOCK_READ;
		transfer(&o, h.sector, chain->write_bytes - 1);
		break;
	case TYPE_OUT:
		o.kind = BLOCK_WRITE;
		transfer(&o, h.sector, chain->read_bytes - HEADER);
		break;
	case TYPE_FLUSH:
		flush(&o);
		break;
	case TYPE_GET_ID:
		get_id(&o);
		break;
	case TYPE_DISCARD:
	case TYPE_WRITE_ZEROES:
		make_zero(&o, h.type);
		break;
	default:
		answer(&o, VBLK_UNSUPP, 1);
	}
	return 0;
}

void vblk_abandon(struct vblk *b)
{
	for (struct vblk_request *r = b->requests, *next; r; r = next) {
		next = r->next;
		block_abandon(&r->io);
		free_request(r);
	}
}
