/* SPDX-License-Identifier: MIT */
#include "devices/vhost-user/backend.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

static int queue_of(const struct vhu_message *m, uint32_t *queue)
{
	struct vhu_vring_state s;

	if (m->header.size != sizeof(s) || m->nr_fds)
		return -EINVAL;
	memcpy(&s, m->payload, sizeof(s));
	*queue = s.index;
	return 0;
}

static int serve_mmap(const struct vhu_backend *b, const struct vhu_message *m, bool unmap)
{
	const char *why = "its size is not that of the structure";
	struct vhu_mmap mmap;
	int ret = -EINVAL;

	memcpy(&mmap, m->payload, sizeof(mmap));
	if (m->header.size == sizeof(mmap)) {
		why = unmap ? "a descriptor came with it" : "exactly one descriptor belongs to it";
		if (unmap ? !m->nr_fds : m->nr_fds == 1 && !m->surplus_fds)
			ret = unmap ? b->ops->unmap(b->opaque, &mmap, &why)
				    : b->ops->map(b->opaque, &mmap, m->fds[0], &why);
	}
	if (ret)
		b->ops->refused(b->opaque, unmap, why);
	return ret;
}

static int serve(const struct vhu_backend *b, const struct vhu_message *m)
{
	uint32_t queue;
	int ret;

	switch (m->header.request) {
	case VHU_BACKEND_CONFIG_CHANGE:
		if (m->header.size || m->nr_fds)
			return -EINVAL;
		b->ops->config_changed(b->opaque);
		return 0;
	case VHU_BACKEND_VRING_CALL:
		ret = queue_of(m, &queue);
		return ret ? ret : b->ops->vring_call(b->opaque, queue);
	case VHU_BACKEND_VRING_ERR:
		ret = queue_of(m, &queue);
		return ret ? ret : b->ops->vring_error(b->opaque, queue);
	case VHU_BACKEND_SHMEM_MAP:
		return serve_mmap(b, m, false);
	case VHU_BACKEND_SHMEM_UNMAP:
		return serve_mmap(b, m, true);
	default:
		return -ENOSYS;
	}
}

/* One message: 1 if there was one. */
static int serve_one(struct vhu_backend *b, const char **why)
{
	struct vhu_channel *c = &b->channel;
	int ret = vhu_channel_receive(c, why);
	struct vhu_header h;
	uint64_t value;

	if (ret <= 0)
		return ret;
	h = c->in.header;
	if (h.flags & VHU_REPLY) {
		*why = "a reply to nothing";
		return -EPROTO;
	}
	value = serve(b, &c->in) ? 1 : 0;
	vhu_channel_done(c);
	if (!b->reply_ack || !(h.flags & VHU_NEED_REPLY))
		return 1;
	h.flags = VHU_VERSION | VHU_REPLY;
	h.size = sizeof(value);
	ret = vhu_channel_send(c, &h, &value, NULL, 0);
	return ret && ret != -EAGAIN ? ret : 1;
}

int vhu_backend_serve(struct vhu_backend *b, unsigned int most, const char **why)
{
	for (unsigned int i = 0; i < most; i++) {
		int ret = vhu_channel_flush(&b->channel);

		/* One that does not take its answers gets no more. */
		if (ret == -EAGAIN)
			return POLLOUT;
		ret = ret ? ret : serve_one(b, why);
		if (ret < 0)
			return ret;
		if (!ret)
			break;
	}
	return vhu_channel_sending(&b->channel) ? POLLOUT : POLLIN;
}
