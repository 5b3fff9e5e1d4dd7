/* SPDX-License-Identifier: MIT */
#include "devices/vfio-user/pending.h"

#include <stddef.h>

static bool id_taken(const struct vfu_pending *p, uint16_t id)
{
	for (const struct vfu_call *c = p->calls; c; c = c->next)
		if (c->id == id)
			return true;
	for (unsigned int i = 0; p->nr_late && i < VFU_LATE_MAX; i++)
		if (p->late[i].id == id)
			return true;
	return false;
}

uint16_t vfu_pending_id(struct vfu_pending *p)
{
	do {
		if (!++p->next_id)
			p->next_id = 1;
	} while (id_taken(p, p->next_id));
	return p->next_id;
}

void vfu_pending_add(struct vfu_pending *p, struct vfu_call *call, uint16_t command)
{
	call->id = vfu_pending_id(p);
	call->command = command;
	call->done = false;
	call->listed = true;
	call->next = p->calls;
	p->calls = call;
}

void vfu_pending_take_back(struct vfu_pending *p, struct vfu_call *call)
{
	struct vfu_call **at = &p->calls;

	while (*at && *at != call)
		at = &(*at)->next;
	if (*at)
		*at = call->next;
	call->listed = false;
}

bool vfu_pending_give_up(struct vfu_pending *p, struct vfu_call *call)
{
	if (!call->listed)
		return true;
	vfu_pending_take_back(p, call);
	for (unsigned int i = 0; i < VFU_LATE_MAX; i++) {
		if (!p->late[i].id) {
			p->late[i] = (struct vfu_trail){ call->id, call->command, false };
			p->nr_late++;
			return true;
		}
	}
	return false;
}

static void remember(struct vfu_pending *p, uint16_t id, uint16_t command, bool posted)
{
	p->recent[p->next_recent++ % VFU_RECENT_MAX] = (struct vfu_trail){ id, command, posted };
}

void vfu_pending_posted(struct vfu_pending *p, uint16_t id, uint16_t command)
{
	remember(p, id, command, true);
}

struct vfu_call *vfu_pending_async(struct vfu_pending *p)
{
	for (unsigned int i = 0; i < VFU_ASYNC_MAX; i++) {
		if (!p->async[i].listed) {
			p->async[i] = (struct vfu_call){ 0 };
			return &p->async[i];
		}
	}
	return NULL;
}

bool vfu_pending_is_async(const struct vfu_pending *p, const struct vfu_call *call)
{
	return call >= p->async && call < p->async + VFU_ASYNC_MAX;
}

static bool same(const struct vfu_trail *trail, const struct vfu_header *h)
{
	return trail->id && trail->id == h->id && trail->command == h->command;
}

enum vfu_answers vfu_pending_reply(struct vfu_pending *p, const struct vfu_header *reply, struct vfu_call **call)
{
	for (struct vfu_call **at = &p->calls; *at; at = &(*at)->next) {
		if ((*at)->id != reply->id)
			continue;
		if ((*at)->command != reply->command)
			return VFU_ANSWERS_OTHER;
		*call = *at;
		*at = (*at)->next;
		(*call)->listed = false;
		remember(p, reply->id, reply->command, false);
		return VFU_ANSWERS_CALL;
	}
	for (unsigned int i = 0; i < VFU_LATE_MAX; i++) {
		if (same(&p->late[i], reply)) {
			p->late[i].id = 0;
			p->nr_late--;
			return VFU_ANSWERS_LATE;
		}
	}
	for (unsigned int i = 0; i < VFU_RECENT_MAX; i++)
		if (same(&p->recent[i], reply))
			return p->recent[i].posted ? VFU_ANSWERS_POSTED : VFU_ANSWERS_AGAIN;
	return VFU_ANSWERS_NOTHING;
}

void vfu_pending_fail(struct vfu_pending *p, int result)
{
	while (p->calls) {
		struct vfu_call *c = p->calls;

		p->calls = c->next;
		c->listed = false;
		c->result = result;
		c->done = true;
	}
}
