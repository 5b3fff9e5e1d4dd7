/* SPDX-License-Identifier: MIT */
#include "devices/block/claim.h"

bool block_claim_begin(struct block_claim *claim)
{
	if (atomic_load(&claim->taken))
		return false;
	claim->under_way++;
	return true;
}

void block_claim_end(struct block_claim *claim)
{
	if (!--claim->under_way && atomic_load(&claim->taken))
		claim->released(claim->opaque);
}

bool block_claim_take(struct block_claim *claim, void (*released)(void *opaque), void *opaque)
{
	claim->released = released;
	claim->opaque = opaque;
	atomic_store(&claim->taken, true);
	return !claim->under_way;
}

void block_claim_return(struct block_claim *claim)
{
	atomic_store(&claim->taken, false);
}
