/* SPDX-License-Identifier: MIT */
/*
 * What a disk controller sees below it: images in memory whose requests end when told to, and a loop that turns when
 * told to. The controller's own fake includes it, and has the images.
 */
#ifndef TESTS_UNIT_BLOCK_FAKE_H
#define TESTS_UNIT_BLOCK_FAKE_H

#include <stdlib.h>
#include <string.h>

#include "devices/block/block.h"
#include "tests/unit/trace_fake.h"
#include "vmm/log.h"
#include "vmm/loop.h"

#define FAKE_QUEUE 4096

struct block {
	struct block_info info;
	uint8_t *bytes;
};

static struct fake_io {
	struct block_request *queue[FAKE_QUEUE]; /* under way */
	unsigned int queued;
	int error; /* of all requests that end */
	struct loop_work *posted, *deferred;
	unsigned int lines; /* that were logged */
} fake_io;

void log_line(const char *fmt, ...)
{
	(void)fmt;
	fake_io.lines++;
}

/* ---- Loop ---- */

void loop_post(struct loop *loop, struct loop_work *work)
{
	(void)loop;
	if (fake_io.posted && fake_io.posted != work)
		abort();
	fake_io.posted = work;
}

void loop_defer(struct loop *loop, struct loop_work *work)
{
	(void)loop;
	if (fake_io.deferred && fake_io.deferred != work)
		abort();
	fake_io.deferred = work;
}

void loop_gather(struct loop *loop, unsigned int count)
{
	(void)loop;
	(void)count;
}

/* ---- Images ---- */

const struct block_info *block_info(const struct block *block)
{
	return &block->info;
}

void block_submit(struct block_request *request)
{
	const struct block *block = request->block;
	size_t sum = 0;

	if (fake_io.queued == FAKE_QUEUE)
		abort();
	if (request->kind != BLOCK_FLUSH &&
	    (!request->length || request->length % block->info.block_size || request->offset % block->info.block_size ||
	     request->offset > block->info.size || request->length > block->info.size - request->offset))
		abort();
	if ((block->info.readonly && request->kind != BLOCK_READ) ||
	    (!block->info.punch && (request->kind == BLOCK_PUNCH || request->kind == BLOCK_ZERO)))
		abort();
	if (request->kind == BLOCK_READ || request->kind == BLOCK_WRITE) {
		for (unsigned int i = 0; i < request->count; i++)
			sum += request->segments[i].iov_len;
		if (sum != request->length || request->count > 1024)
			abort();
	}
	fake_io.queue[fake_io.queued++] = request;
}

void block_abandon(struct block_request *request)
{
	(void)request;
}

static void fake_move(const struct block_request *request)
{
	uint8_t *at = request->block->bytes + request->offset;

	switch (request->kind) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		for (unsigned int i = 0; i < request->count; i++) {
			const struct iovec *segment = &request->segments[i];

			if (request->kind == BLOCK_READ)
				memmove(segment->iov_base, at, segment->iov_len);
			else
				memmove(at, segment->iov_base, segment->iov_len);
			at += segment->iov_len;
		}
		break;
	case BLOCK_PUNCH:
	case BLOCK_ZERO:
		memset(at, 0, request->length);
		break;
	case BLOCK_FLUSH:
		break;
	}
}

/* Ends one request, the n-th of those under way, and nothing else of the turn. */
static void fake_end_one(unsigned int n)
{
	struct block_request *request = fake_io.queue[n];

	fake_io.queue[n] = fake_io.queue[--fake_io.queued];
	if (!fake_io.error)
		fake_move(request);
	request->done(request, fake_io.error);
}

/* What was posted, and what comes at the end of a turn. */
static void fake_end_turn(void)
{
	struct loop_work *work = fake_io.posted;

	fake_io.posted = NULL;
	if (work)
		work->fn(work);
	work = fake_io.deferred;
	fake_io.deferred = NULL;
	if (work)
		work->fn(work);
}

/* Ends all, and what follows of them. */
static void fake_end_all(void)
{
	do {
		while (fake_io.queued)
			fake_end_one(0);
		fake_end_turn();
	} while (fake_io.queued);
}

bool loop_turn(struct loop *loop, uint64_t ns)
{
	(void)loop;
	(void)ns;
	if (!fake_io.queued)
		return false;
	fake_end_one(0);
	fake_end_turn();
	return true;
}

#endif
