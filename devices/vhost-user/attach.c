/* SPDX-License-Identifier: MIT */
#include "devices/vhost-user/attach.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BIT(n) (1ULL << (n))

/* What we can do. GPA_ADDRESSES is not among it: its number was SHMEM's for a while. */
#define WANTED                                                                                                         \
	(BIT(VHU_PF_MQ) | BIT(VHU_PF_REPLY_ACK) | BIT(VHU_PF_BACKEND_REQ) | BIT(VHU_PF_CONFIG) |                       \
	 BIT(VHU_PF_BACKEND_SEND_FD) | BIT(VHU_PF_INFLIGHT_SHMFD) | BIT(VHU_PF_RESET_DEVICE) |                         \
	 BIT(VHU_PF_CONFIGURE_MEM_SLOTS) | BIT(VHU_PF_STATUS) | BIT(VHU_PF_SHMEM))

#define PROBE_MIN 4u

static struct vhu_call *ask(struct vhu_attach *a, uint32_t request, uint32_t reply, vhu_done done)
{
	struct vhu_call *call = vhu_link_call(a->link, request, NULL, 0);

	if (!call)
		return NULL;
	call->reply_min = call->reply_max = reply;
	call->done = done;
	call->opaque = a;
	return call;
}

static uint64_t value_of(const struct vhu_message *m)
{
	uint64_t value;

	memcpy(&value, m->payload, sizeof(value));
	return value;
}

static void got_queues(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_attach *a = opaque;

	(void)call;
	if (!status)
		a->info->queues = value_of(reply);
	if (!status && !a->info->queues)
		vhu_link_stop(a->link, "GET_QUEUE_NUM: 0 queues");
}

static void got_slots(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_attach *a = opaque;

	(void)call;
	if (!status)
		a->info->slots = value_of(reply);
}

static void got_shmem(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_attach *a = opaque;
	struct vhu_shmem_config config;
	const char *why = "";
	char text[100];

	(void)call;
	if (status)
		return;
	memcpy(&config, reply->payload, sizeof(config));
	if (vhu_shmem_check(&config, &a->info->shmem, &why) == 0)
		return;
	snprintf(text, sizeof(text), "GET_SHMEM_CONFIG: %s", why);
	vhu_link_stop(a->link, text);
}

struct vhu_call *vhu_attach_get_config(struct vhu_link *link, unsigned int size)
{
	struct vhu_config c = { .size = size };
	uint32_t length = (uint32_t)offsetof(struct vhu_config, data) + size;
	struct vhu_call *call = vhu_link_call(link, VHU_GET_CONFIG, &c, length);

	/* A reply without anything says no; one that is too short is of no more use, but no reason to part. */
	if (call)
		call->reply_max = length;
	return call;
}

bool vhu_attach_config(const struct vhu_message *m, unsigned int size, uint8_t *config)
{
	struct vhu_config c;

	if (m->header.size != offsetof(struct vhu_config, data) + size)
		return false;
	memcpy(&c, m->payload, m->header.size);
	if (c.offset || c.size != size)
		return false;
	memcpy(config, c.data, size);
	return true;
}

static void ask_config(struct vhu_attach *a);

static void got_config(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_attach *a = opaque;

	(void)call;
	if (status)
		return;
	if (!reply->header.size && a->config_probe && a->config_size > PROBE_MIN) {
		a->config_size /= 2;
		ask_config(a);
		return;
	}
	a->info->config_size = a->config_size;
	a->info->config_bad = !vhu_attach_config(reply, a->config_size, a->info->config);
}

static void ask_config(struct vhu_attach *a)
{
	struct vhu_call *call = vhu_attach_get_config(a->link, a->config_size);

	if (!call)
		return;
	call->done = got_config;
	call->opaque = a;
}

/* A socket pair: one end for us, one for the back-end. */
static void give_channel(struct vhu_attach *a)
{
	struct vhu_call *call;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		vhu_link_stop(a->link, "no socket for the back-end's requests");
		return;
	}
	vhu_channel_init(&a->backend->channel, pair[0]);
	a->backend->reply_ack = a->link->reply_ack;
	call = vhu_link_call(a->link, VHU_SET_BACKEND_REQ_FD, NULL, 0);
	if (!call) {
		close(pair[1]);
		return;
	}
	call->fds[0] = pair[1];
	call->nr_fds = 1;
	call->owns_fd = true;
}

static void finished(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_attach *a = opaque;

	(void)call;
	(void)reply;
	a->done = !status;
	if (a->done && a->finished)
		a->finished(a->opaque);
}

static void ask_rest(struct vhu_attach *a)
{
	const struct vhu_info *info = a->info;

	a->link->reply_ack = vhu_has(info, VHU_PF_REPLY_ACK);
	ask(a, VHU_SET_OWNER, 0, NULL);
	if (vhu_has(info, VHU_PF_MQ))
		ask(a, VHU_GET_QUEUE_NUM, 8, got_queues);
	if (vhu_has(info, VHU_PF_CONFIGURE_MEM_SLOTS))
		ask(a, VHU_GET_MAX_MEM_SLOTS, 8, got_slots);
	if (vhu_has(info, VHU_PF_BACKEND_REQ))
		give_channel(a);
	if (vhu_has(info, VHU_PF_SHMEM))
		ask(a, VHU_GET_SHMEM_CONFIG, sizeof(struct vhu_shmem_config), got_shmem);
	if (vhu_has(info, VHU_PF_CONFIG) && a->config_size)
		ask_config(a);
	ask(a, 0, 0, finished);
}

static void got_protocol(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_attach *a = opaque;
	uint64_t wanted = WANTED | (a->inband ? BIT(VHU_PF_INBAND_NOTIFICATIONS) : 0), taken;
	struct vhu_call *set;

	(void)call;
	if (status)
		return;
	a->info->offered = value_of(reply);
	taken = a->info->offered & wanted;
	/* Those that need others, by the specification. Without descriptors from the back-end there is nothing to map.
	 */
	if (!(taken & BIT(VHU_PF_BACKEND_REQ)))
		taken &= ~(BIT(VHU_PF_BACKEND_SEND_FD) | BIT(VHU_PF_INBAND_NOTIFICATIONS));
	if (!(taken & BIT(VHU_PF_BACKEND_SEND_FD)))
		taken &= ~BIT(VHU_PF_SHMEM);
	if (!(taken & BIT(VHU_PF_REPLY_ACK)))
		taken &= ~BIT(VHU_PF_INBAND_NOTIFICATIONS);
	a->info->protocol = taken;
	set = vhu_link_call(a->link, VHU_SET_PROTOCOL_FEATURES, &taken, sizeof(taken));
	if (!set)
		return;
	/* Not in force yet when the back-end reads it. */
	set->plain = true;
	ask_rest(a);
}

static void got_features(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct vhu_attach *a = opaque;

	(void)call;
	if (status)
		return;
	a->info->features = value_of(reply);
	if (!(a->info->features & BIT(VIRTIO_F_VERSION_1)))
		vhu_link_stop(a->link, "the back-end knows only legacy virtio");
	else if (a->info->features & BIT(VHU_F_PROTOCOL_FEATURES))
		ask(a, VHU_GET_PROTOCOL_FEATURES, 8, got_protocol);
	else
		ask_rest(a);
}

void vhu_attach_begin(struct vhu_attach *a)
{
	a->done = false;
	memset(a->info, 0, sizeof(*a->info));
	ask(a, VHU_GET_FEATURES, 8, got_features);
}
