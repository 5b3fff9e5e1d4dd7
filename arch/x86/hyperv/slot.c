/* SPDX-License-Identifier: MIT */
#include "arch/x86/hyperv/slot.h"

#include <string.h>

#define PLACES (HV_QUEUE_MAX + HV_STIMERS)

static struct hv_message *at(struct hv_queue *queue, unsigned int index)
{
	return &queue->messages[(queue->head + index) % PLACES];
}

static void append(struct hv_queue *queue, uint32_t type, const void *payload, size_t size)
{
	struct hv_message *m = at(queue, queue->count++);

	memset(m, 0, sizeof(*m));
	m->type = type;
	m->payload_size = (uint8_t)size;
	memcpy(m->payload, payload, size);
}

bool hv_queue_put(struct hv_queue *queue, uint32_t type, const void *payload, size_t size)
{
	if (queue->count >= HV_QUEUE_MAX)
		return false;
	append(queue, type, payload, size);
	return true;
}

/* Where in the queue the timer's message is; the queue's count if nowhere. */
static unsigned int find_timer(struct hv_queue *queue, uint32_t timer)
{
	unsigned int i;

	for (i = 0; i < queue->count; i++)
		if (at(queue, i)->type == HV_MESSAGE_TIMER && !memcmp(at(queue, i)->payload, &timer, sizeof(timer)))
			break;
	return i;
}

bool hv_queue_put_timer(struct hv_queue *queue, uint32_t timer, const void *payload, size_t size)
{
	if (queue->count == PLACES || find_timer(queue, timer) < queue->count)
		return false;
	append(queue, HV_MESSAGE_TIMER, payload, size);
	return true;
}

void hv_queue_drop_timer(struct hv_queue *queue, uint32_t timer)
{
	unsigned int i = find_timer(queue, timer);

	if (i == queue->count)
		return;
	for (queue->count--; i < queue->count; i++)
		*at(queue, i) = *at(queue, i + 1);
}

void hv_queue_clear(struct hv_queue *queue)
{
	queue->head = queue->count = 0;
}

static bool is_free(const struct hv_message *slot)
{
	return __atomic_load_n(&slot->type, __ATOMIC_SEQ_CST) == HV_MESSAGE_NONE;
}

/* The type last: it makes the message the guest's. It may still be looking at the flags of the one before. */
static void fill(struct hv_message *slot, const struct hv_message *m, uint8_t flags)
{
	slot->payload_size = m->payload_size;
	__atomic_store_n(&slot->flags, flags, __ATOMIC_RELAXED);
	memcpy(slot->reserved, m->reserved, sizeof(slot->reserved));
	slot->sender = m->sender;
	memcpy(slot->payload, m->payload, sizeof(slot->payload));
	__atomic_store_n(&slot->type, m->type, __ATOMIC_RELEASE);
}

bool hv_queue_deliver(struct hv_queue *queue, struct hv_message *slot)
{
	const struct hv_message *m = &queue->messages[queue->head];

	if (!queue->count)
		return false;
	if (!is_free(slot)) {
		__atomic_fetch_or(&slot->flags, HV_MESSAGE_FLAG_PENDING, __ATOMIC_SEQ_CST);
		if (!is_free(slot))
			return false;
	}
	queue->count--;
	/* An empty queue begins at its start again: most never use more than one of their pages. */
	queue->head = queue->count ? (queue->head + 1) % PLACES : 0;
	fill(slot, m, queue->count ? HV_MESSAGE_FLAG_PENDING : 0);
	return true;
}

bool hv_event_set(uint8_t *event_page, unsigned int sint, unsigned int flag)
{
	uint64_t *word = (uint64_t *)(void *)(event_page + (size_t)sint * HV_EVENT_FLAGS_SIZE) + flag / 64;
	uint64_t bit = 1ull << flag % 64;

	return !(__atomic_fetch_or(word, bit, __ATOMIC_SEQ_CST) & bit);
}
