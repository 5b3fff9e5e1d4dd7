/* SPDX-License-Identifier: MIT */
/*
 * Disk images: raw files and block devices of the host, read and written through the loop's io_uring straight from and
 * to the caller's memory, which is the guest's. Loop thread only, but for opening and closing.
 */
#ifndef DEVICES_BLOCK_BLOCK_H
#define DEVICES_BLOCK_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmm/loop.h"

struct block;

/* Whether the host's page cache is gone round (O_DIRECT). */
enum block_direct {
	BLOCK_DIRECT_AUTO, /* if the image is written to and the file system can do it for this size of block */
	BLOCK_DIRECT_OFF,
	BLOCK_DIRECT_ON, /* or the image is refused */
};

struct block_options {
	const char *path;
	uint32_t block_size; /* of a file: 512 or 2048. A block device brings its own, unless this is larger */
	bool readonly;
	enum block_direct direct;
};

/* Facts about an image; they do not change while it is open. */
struct block_info {
	uint64_t size;	     /* bytes, a multiple of block_size: what is missing at the end of a file reads as zero */
	uint32_t block_size; /* addressable, bytes */
	uint32_t best_size;  /* what the host reads and writes at a time, bytes, a multiple of block_size */
	bool readonly;
	bool direct;
	bool punch; /* blocks can be given back to the host */
};

/*
 * Opens and locks the image, against other writers and, for writing, against other readers too. 0, or -errno with a
 * sentence in err. An image of a format that is not raw is refused.
 */
int block_open(struct block **block, struct loop *loop, const struct block_options *options, char *err, size_t errlen);
/* Requests that are under way are forgotten; the loop has ended or there are none. NULL is fine. */
void block_close(struct block *block);
const struct block_info *block_info(const struct block *block);

enum block_kind {
	BLOCK_READ,
	BLOCK_WRITE,
	BLOCK_FLUSH, /* what has been written, and acknowledged, is on stable storage */
	BLOCK_PUNCH, /* blocks read as zero and take no space, or -EOPNOTSUPP */
	BLOCK_ZERO,  /* blocks read as zero; -EOPNOTSUPP if that has to be done by writing */
};

/*
 * One request, embedded in the caller's own. The caller fills the first part, calls block_submit() and keeps all of it,
 * with the memory that it points to, until done() has been called: with 0, or -errno. Offset and length are multiples
 * of the block size and within the image; the segments' lengths add up to length, in any pieces and at any addresses.
 * Up to 1024 segments. Their array is used up.
 */
struct block_request {
	struct block *block;
	enum block_kind kind;
	uint64_t offset, length; /* bytes */
	struct iovec *segments;
	unsigned int count;
	bool fua; /* a write is on stable storage when it is done */
	void (*done)(struct block_request *request, int result);

	/* block_io.c's own. */
	struct loop_op op;
	void *bounce;	 /* BLOCK_BOUNCE bytes, or NULL */
	uint64_t expect; /* bytes asked for from the kernel */
	bool bounced, retried;
};

/* Never calls done() itself: that comes from the loop. */
void block_submit(struct block_request *request);
/* The loop has ended with the request under way: lets go of what block_submit() took for it. */
void block_abandon(struct block_request *request);

/*
 * For a device with so many requests under way, whenever it is done with a turn: where they are many, some of them end
 * before any is looked at (loop_gather()), and the disk still has most of them to do. Fewer end one by one, at once.
 */
static inline void block_gather(struct loop *loop, unsigned int under_way)
{
	if (under_way >= 8)
		loop_gather(loop, under_way / 4);
}

#endif
