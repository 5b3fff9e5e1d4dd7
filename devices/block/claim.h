/* SPDX-License-Identifier: MIT */
/*
 * One image behind two devices, for one at a time. The first has it from the start, and asks before each of its
 * requests; the second takes it, once and for all until the machine is reset, and begins when what the first has under
 * way has ended. Loop thread only, but for looking at taken.
 */
#ifndef DEVICES_BLOCK_CLAIM_H
#define DEVICES_BLOCK_CLAIM_H

#include <stdatomic.h>
#include <stdbool.h>

/* Zeroed at first. */
struct block_claim {
	_Atomic bool taken;
	unsigned int under_way;
	void (*released)(void *opaque);
	void *opaque;
};

/* The first device's request: false if it may not begin; else block_claim_end() is due at its end. */
bool block_claim_begin(struct block_claim *claim);
void block_claim_end(struct block_claim *claim);

/* The second device takes the image. True: at once; else released(opaque) is called when it may begin. Once. */
bool block_claim_take(struct block_claim *claim, void (*released)(void *opaque), void *opaque);

/* A reset of the machine, when neither has anything under way: the first has it again. */
void block_claim_return(struct block_claim *claim);

#endif
