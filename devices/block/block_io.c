/* SPDX-License-Identifier: MIT */
/*
 * A request's way through the kernel. A read or write goes as one submission with the caller's segments; when the
 * kernel does less than it was asked for, the rest follows as another. Where O_DIRECT would refuse an address, the
 * request takes a bounce buffer instead, a piece at a time, so that a guest cannot make the host hold more than
 * BLOCK_BOUNCE bytes for each of its requests. That buffer is a mapping of its own: should vmm end while the kernel
 * still writes to it, what it is unmapped for is not memory of anybody else's.
 *
 * O_NONBLOCK has no effect on files and devices, other than that opening does not wait for what else a path may name.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "devices/block/internal.h"
#include "vmm/trace.h"

#define from_op(ptr) ((struct block_request *)((char *)(ptr)-offsetof(struct block_request, op)))

static void submit(struct block_request *request);

void block_abandon(struct block_request *request)
{
	if (request->bounce)
		munmap(request->bounce, BLOCK_BOUNCE);
	request->bounce = NULL;
}

static void finish(struct block_request *request, int result)
{
	block_abandon(request);
	TRACE(block_done, "kind %u left %llu result %d", (unsigned int)request->kind,
	      (unsigned long long)request->length, result);
	request->done(request, result);
}

/* What is left of the request begins bytes later. */
static void advance(struct block_request *request, uint64_t bytes)
{
	request->offset += bytes;
	request->length -= bytes;
	while (bytes) {
		struct iovec *segment = request->segments;
		size_t here = segment->iov_len < bytes ? segment->iov_len : bytes;

		segment->iov_base = (char *)segment->iov_base + here;
		segment->iov_len -= here;
		bytes -= here;
		if (!segment->iov_len) {
			request->segments++;
			request->count--;
		}
	}
}

/* Between the first bytes of what is left and the bounce buffer; from NULL: makes them zero. */
static void copy(const struct block_request *request, uint8_t *bounce, uint64_t bytes, bool in)
{
	for (unsigned int i = 0; bytes; i++) {
		const struct iovec *segment = &request->segments[i];
		size_t here = segment->iov_len < bytes ? segment->iov_len : bytes;

		if (!bounce)
			memset(segment->iov_base, 0, here);
		else if (in)
			memcpy(bounce, segment->iov_base, here);
		else
			memcpy(segment->iov_base, bounce, here);
		bytes -= here;
		if (bounce)
			bounce += here;
	}
}

static bool is_aligned(const struct block_request *request)
{
	const struct block *block = request->block;
	uintptr_t all = 0;
	size_t lengths = 0;

	for (unsigned int i = 0; i < request->count; i++) {
		all |= (uintptr_t)request->segments[i].iov_base;
		lengths |= request->segments[i].iov_len;
	}
	return !(all & (block->memory_align - 1)) && !(lengths & (block->offset_align - 1));
}

/* A read or write came back with this many bytes. True: it is all done. */
static bool transferred(struct block_request *request, uint64_t bytes)
{
	const struct block *block = request->block;

	if (bytes > request->expect)
		bytes = request->expect;
	if (request->kind == BLOCK_READ && request->bounced)
		copy(request, request->bounce, bytes, false);
	advance(request, bytes);
	/* A read that ends between blocks, or at once, has met the end of the file; behind that there are zeroes. */
	if (request->kind == BLOCK_READ && (!bytes || bytes % block->offset_align)) {
		copy(request, NULL, request->length, false);
		advance(request, request->length);
	}
	return !request->length;
}

static void completed(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct block_request *request = from_op(op);
	bool moves = request->kind == BLOCK_READ || request->kind == BLOCK_WRITE;

	(void)cqe_flags;
	if ((res == -EAGAIN || res == -EINTR) && !request->retried) {
		request->retried = true;
		submit(request);
	} else if (res < 0) {
		finish(request, res);
	} else if (request->kind == BLOCK_WRITE && (!res || res % (int)request->block->offset_align)) {
		finish(request, -EIO);
	} else if (moves && !transferred(request, (uint64_t)res)) {
		submit(request);
	} else {
		finish(request, 0);
	}
}

static void prepare_bounced(struct block_request *request, struct io_uring_sqe *sqe)
{
	request->expect = request->length < BLOCK_BOUNCE ? request->length : BLOCK_BOUNCE;
	if (request->kind == BLOCK_WRITE) {
		copy(request, request->bounce, request->expect, true);
		io_uring_prep_write(sqe, request->block->fd, request->bounce, (unsigned int)request->expect,
				    request->offset);
	} else {
		io_uring_prep_read(sqe, request->block->fd, request->bounce, (unsigned int)request->expect,
				   request->offset);
	}
}

static void prepare_segments(struct block_request *request, struct io_uring_sqe *sqe)
{
	const struct iovec *first = request->segments;
	int fd = request->block->fd;

	request->expect = request->length;
	if (request->count == 1 && request->kind == BLOCK_WRITE)
		io_uring_prep_write(sqe, fd, first->iov_base, (unsigned int)first->iov_len, request->offset);
	else if (request->count == 1)
		io_uring_prep_read(sqe, fd, first->iov_base, (unsigned int)first->iov_len, request->offset);
	else if (request->kind == BLOCK_WRITE)
		io_uring_prep_writev(sqe, fd, first, request->count, request->offset);
	else
		io_uring_prep_readv(sqe, fd, first, request->count, request->offset);
}

static int fallocate_mode(const struct block_request *request)
{
	return request->kind == BLOCK_PUNCH ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
					    : FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
}

static void submit(struct block_request *request)
{
	struct block *block = request->block;
	struct io_uring_sqe *sqe = loop_sqe(block->loop, &request->op);

	switch (request->kind) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		if (request->bounced)
			prepare_bounced(request, sqe);
		else
			prepare_segments(request, sqe);
		if (request->fua)
			sqe->rw_flags = RWF_DSYNC;
		break;
	case BLOCK_FLUSH:
		io_uring_prep_fsync(sqe, block->fd, IORING_FSYNC_DATASYNC);
		break;
	case BLOCK_PUNCH:
	case BLOCK_ZERO:
		io_uring_prep_fallocate(sqe, block->fd, fallocate_mode(request), (off_t)request->offset,
					(off_t)request->length);
		break;
	}
	if (request->retried)
		io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
}

/* A request that cannot begin ends by the loop like any other. */
static void fail(struct loop_op *op, int res, uint32_t cqe_flags)
{
	(void)res;
	(void)cqe_flags;
	finish(from_op(op), -ENOMEM);
}

void block_submit(struct block_request *request)
{
	bool moves = request->kind == BLOCK_READ || request->kind == BLOCK_WRITE;

	TRACE(block_submit, "kind %u offset %llu length %llu segments %u", (unsigned int)request->kind,
	      (unsigned long long)request->offset, (unsigned long long)request->length, request->count);
	request->op.fn = completed;
	request->bounce = NULL;
	request->retried = false;
	request->bounced = moves && !is_aligned(request);
	if (request->bounced) {
		request->bounce = mmap(NULL, BLOCK_BOUNCE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (request->bounce == MAP_FAILED) {
			request->bounce = NULL;
			request->op.fn = fail;
			io_uring_prep_nop(loop_sqe(request->block->loop, &request->op));
			return;
		}
	}
	submit(request);
}
