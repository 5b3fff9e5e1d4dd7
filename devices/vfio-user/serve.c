/* SPDX-License-Identifier: MIT */
#include "devices/vfio-user/serve.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "vmm/memory.h"

static int answer(struct vfu_stream *s, const struct vfu_message *m, int error, const struct vfu_dma_access *access,
		  const void *data, size_t length)
{
	struct vfu_header header = { .id = m->header.id, .command = m->header.command, .flags = VFU_TYPE_REPLY };
	struct iovec pieces[3] = {
		{ &header, sizeof(header) },
		{ (void *)access, sizeof(*access) },
		{ (void *)data, length },
	};
	unsigned int count = error ? 1 : data ? 3 : 2;

	if (m->header.flags & VFU_NO_REPLY)
		return 0;
	if (error) {
		header.flags |= VFU_ERROR;
		header.error = (uint32_t)-error;
	}
	for (unsigned int i = 0; i < count; i++)
		header.size += (uint32_t)pieces[i].iov_len;
	return vfu_stream_send(s, pieces, count, NULL, 0, false);
}

int vfu_serve(struct vfu_stream *s, const struct memory *memory, const struct vfu_message *m)
{
	bool write = m->header.command == VFU_DMA_WRITE;
	struct vfu_dma_access access;
	const void *data;
	void *ram;
	int ret;

	/* Before memory changes: a command that has to wait for its answer is carried out once. */
	ret = vfu_stream_flush(s);
	if (ret)
		return ret;
	if (!write && m->header.command != VFU_DMA_READ)
		return answer(s, m, -ENOSYS, NULL, NULL, 0);
	ret = vfu_decode_dma(m->payload, m->size, write, &access, &data);
	if (ret)
		return answer(s, m, ret, NULL, NULL, 0);
	ram = ram_ptr(memory, access.address, access.count);
	if (!ram)
		return answer(s, m, -EFAULT, NULL, NULL, 0);
	if (write)
		memcpy(ram, data, access.count);
	return answer(s, m, 0, &access, write ? NULL : ram, access.count);
}

int vfu_serve_stream(struct vfu_stream *s, const struct memory *memory, unsigned int most, const char **why)
{
	for (unsigned int i = 0; i < most;) {
		struct vfu_message m;
		int ret = vfu_stream_next(s, &m, why);

		if (ret == 1) {
			if ((m.header.flags & VFU_TYPE) != VFU_TYPE_COMMAND) {
				*why = "a reply came where only the server asks";
				return -EPROTO;
			}
			ret = vfu_serve(s, memory, &m);
			if (ret == -EAGAIN)
				return POLLOUT;
			if (ret)
				return ret;
			vfu_stream_done(s, &m);
			i++;
			continue;
		}
		if (ret == 0)
			ret = vfu_stream_recv(s, MSG_DONTWAIT);
		if (ret == -EAGAIN)
			break;
		if (ret == 0)
			return -ECONNRESET;
		if (ret < 0 && ret != -EINTR)
			return ret;
	}

	int ret = vfu_stream_flush(s);

	if (ret && ret != -EAGAIN)
		return ret;
	return POLLIN | (ret ? POLLOUT : 0);
}
