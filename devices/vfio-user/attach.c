/* SPDX-License-Identifier: MIT */
#include "devices/vfio-user/attach.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/vfio-user/file.h"
#include "devices/vfio-user/serve.h"
#include "vmm/memory.h"

#define SERVE_MOST 64 /* commands of the server's at a time */
#define HUGE_PAGE  (2ULL << 20)

enum step {
	STEP_VERSION,
	STEP_DMA_MAP,
	STEP_INFO,
	STEP_REGION,
	STEP_IO_FDS,
	STEP_IRQ,
	STEP_RESET,
	STEP_CONFIG,
	STEP_ROM,
	STEP_DONE,
	STEP_MORE,
	STEP_END,
};

static const struct {
	const char *name;
	uint16_t command;
} steps[] = {
	[STEP_VERSION] = { "VERSION", VFU_VERSION },
	[STEP_DMA_MAP] = { "DMA_MAP", VFU_DMA_MAP },
	[STEP_INFO] = { "DEVICE_GET_INFO", VFU_DEVICE_GET_INFO },
	[STEP_REGION] = { "GET_REGION_INFO", VFU_GET_REGION_INFO },
	[STEP_IO_FDS] = { "GET_REGION_IO_FDS", VFU_GET_REGION_IO_FDS },
	[STEP_IRQ] = { "GET_IRQ_INFO", VFU_GET_IRQ_INFO },
	[STEP_RESET] = { "DEVICE_RESET", VFU_DEVICE_RESET },
	[STEP_CONFIG] = { "REGION_READ of configuration space", VFU_REGION_READ },
	[STEP_ROM] = { "REGION_READ of the ROM", VFU_REGION_READ },
	[STEP_MORE] = { "what the guest has programmed", 0 },
};

struct vfu_info *vfu_info_new(void)
{
	struct vfu_info *info = calloc(1, sizeof(*info));

	for (unsigned int i = 0; info && i < VFU_REGIONS; i++)
		info->region_fds[i] = -1;
	return info;
}

void vfu_info_free(struct vfu_info *info)
{
	if (!info)
		return;
	for (unsigned int i = 0; i < VFU_REGIONS; i++)
		if (info->region_fds[i] >= 0)
			close(info->region_fds[i]);
	for (unsigned int i = 0; i < VFU_BARS; i++)
		for (unsigned int j = 0; j < info->doorbells[i].nr_fds; j++)
			if (info->doorbells[i].fds[j] >= 0)
				close(info->doorbells[i].fds[j]);
	free(info->rom);
	free(info);
}

int vfu_dma_piece(const struct memory *memory, bool share, unsigned int n, struct vfu_dma_map *map)
{
	uint64_t high = memory->size - memory->low_size;

	*map = (struct vfu_dma_map){ .argsz = sizeof(*map), .flags = VFU_DMA_READABLE | VFU_DMA_WRITABLE };
	if (n == 0) {
		map->size = memory->low_size;
	} else if (n == 1 && high) {
		map->address = RAM_HIGH_BASE;
		map->size = high;
		map->fd_offset = share ? memory->low_size : 0;
	} else {
		return -ENOENT;
	}
	return 0;
}

void vfu_attach_begin(struct vfu_attach *a, int fd, const struct memory *memory, bool share, struct vfu_info *info)
{
	memset(a, 0, sizeof(*a));
	a->memory = memory;
	a->share = share;
	a->info = info;
	a->argsz = VFU_REPLY_ARGSZ;
	vfu_stream_init(&a->main, fd);
	a->main.with_fds = true;
	vfu_stream_init(&a->twin, -1);
}

void vfu_attach_end(struct vfu_attach *a)
{
	vfu_stream_close(&a->main);
	vfu_stream_close(&a->twin);
}

static int fail(struct vfu_attach *a, int error, const char *text)
{
	snprintf(a->text, sizeof(a->text), "%s", text);
	return error;
}

static void go_to(struct vfu_attach *a, enum step step)
{
	a->step = step;
	a->index = 0;
	a->offset = 0;
	a->argsz = VFU_REPLY_ARGSZ;
}

void vfu_attach_more(struct vfu_attach *a, vfu_more_fn *more, void *opaque)
{
	a->more = more;
	a->more_opaque = opaque;
	go_to(a, STEP_MORE);
}

/* Whether the region can have doorbells. */
static bool has_doorbells(const struct vfu_region *r)
{
	return r->size && (r->flags & (VFU_REGION_READABLE | VFU_REGION_WRITABLE));
}

/* Steps past what this device does not have. */
static void skip(struct vfu_attach *a)
{
	const struct vfu_info *info = a->info;
	struct vfu_dma_map map;

	if (a->step == STEP_DMA_MAP && vfu_dma_piece(a->memory, a->share, a->index, &map))
		go_to(a, STEP_INFO);
	if (a->step == STEP_REGION && a->index == VFU_REGIONS)
		go_to(a, STEP_IO_FDS);
	while (a->step == STEP_IO_FDS && a->index < VFU_BARS && !has_doorbells(&info->regions[a->index]))
		a->index++;
	if (a->step == STEP_IO_FDS && a->index == VFU_BARS)
		go_to(a, STEP_IRQ);
	if (a->step == STEP_IRQ && (a->index == VFU_IRQS || a->index >= info->device.num_irqs))
		go_to(a, STEP_RESET);
	if (a->step == STEP_RESET && !(info->device.flags & VFU_DEVICE_RESETTABLE))
		go_to(a, STEP_CONFIG);
	if (a->step == STEP_CONFIG && a->offset == info->config_size)
		go_to(a, STEP_ROM);
	if (a->step == STEP_ROM && (!info->rom || a->offset == info->regions[VFU_REGION_ROM].size))
		go_to(a, STEP_DONE);
	if (a->step == STEP_MORE && !a->sent && !a->more(a->more_opaque, a->index, &a->request))
		go_to(a, STEP_END);
}

static uint16_t command_of(const struct vfu_attach *a)
{
	return a->step == STEP_MORE ? a->request.command : steps[a->step].command;
}

static struct vfu_region_access next_part(const struct vfu_attach *a)
{
	const struct vfu_info *info = a->info;
	unsigned int region = a->step == STEP_ROM ? VFU_REGION_ROM : VFU_REGION_CONFIG;
	uint64_t left = (a->step == STEP_ROM ? info->regions[region].size : info->config_size) - a->offset;
	/* What some servers read at once, they take for granted; and the message has to fit into the socket. */
	uint64_t most = info->caps.max_data < 65536 ? info->caps.max_data : 65536;

	return (struct vfu_region_access){ .offset = a->offset,
					   .region = region,
					   .count = (uint32_t)(left < most ? left : most) };
}

static size_t build(struct vfu_attach *a, uint8_t to[512], int *fd)
{
	struct vfu_region_access access;
	struct vfu_dma_map map;

	switch (a->step) {
	case STEP_VERSION:
		return vfu_encode_version(to, 512);
	case STEP_DMA_MAP:
		vfu_dma_piece(a->memory, a->share, a->index, &map);
		*fd = a->share ? a->memory->fd : -1;
		memcpy(to, &map, sizeof(map));
		return sizeof(map);
	case STEP_INFO:
		memcpy(to, &(struct vfu_device_info){ .argsz = sizeof(struct vfu_device_info) },
		       sizeof(struct vfu_device_info));
		return sizeof(struct vfu_device_info);
	case STEP_REGION:
		memcpy(to, &(struct vfu_region_info){ .argsz = a->argsz, .index = a->index },
		       sizeof(struct vfu_region_info));
		return sizeof(struct vfu_region_info);
	case STEP_IO_FDS:
		memcpy(to, &(struct vfu_io_fds){ .argsz = a->argsz, .index = a->index }, sizeof(struct vfu_io_fds));
		return sizeof(struct vfu_io_fds);
	case STEP_IRQ:
		memcpy(to, &(struct vfu_irq_info){ .argsz = sizeof(struct vfu_irq_info), .index = a->index },
		       sizeof(struct vfu_irq_info));
		return sizeof(struct vfu_irq_info);
	case STEP_CONFIG:
	case STEP_ROM:
		access = next_part(a);
		memcpy(to, &access, sizeof(access));
		return sizeof(access);
	case STEP_MORE:
		memcpy(to, a->request.payload, a->request.size);
		return a->request.size;
	default:
		return 0;
	}
}

static int send_request(struct vfu_attach *a)
{
	struct vfu_header header = { .id = ++a->id, .command = command_of(a) };
	uint8_t payload[512];
	int fd = -1, ret;
	struct iovec pieces[2] = { { &header, sizeof(header) }, { payload, build(a, payload, &fd) } };

	header.size = (uint32_t)(sizeof(header) + pieces[1].iov_len);
	if (a->step == STEP_MORE)
		ret = vfu_stream_send(&a->main, pieces, 2, a->request.fds, a->request.nr_fds, true);
	else
		ret = vfu_stream_send(&a->main, pieces, 2, &fd, fd >= 0, true);
	if (ret == -EAGAIN)
		a->id--;
	a->sent = !ret;
	return ret;
}

static int take_fd(struct vfu_stream *s, unsigned int index)
{
	int fd = s->fds[index];

	s->fds[index] = -1;
	return fd;
}

static int got_version(struct vfu_attach *a, const struct vfu_message *m)
{
	struct vfu_caps *caps = &a->info->caps;
	struct vfu_dma_map map;
	unsigned int pieces = 0;
	int ret = vfu_decode_version(m->payload, m->size, a->main.nr_fds, caps, &a->why), domain = 0;
	socklen_t length = sizeof(domain);

	if (ret)
		return fail(a, ret, a->why);
	while (!vfu_dma_piece(a->memory, a->share, pieces, &map))
		pieces++;
	if (caps->max_dma_maps < pieces)
		return fail(a, -EPROTO, "max_dma_maps is too small for the guest's memory");
	if (!(caps->pgsizes & (2 * HUGE_PAGE - 1)))
		return fail(a, -EPROTO, "pgsizes has no page size that divides the guest's memory");
	if (caps->twin_index < 0)
		return 0;
	vfu_stream_init(&a->twin, take_fd(&a->main, (unsigned int)caps->twin_index));
	if (getsockopt(a->twin.fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) < 0 || domain != AF_UNIX)
		return fail(a, -EPROTO, "the descriptor of the twin socket is none");
	return 0;
}

/* Areas that the file does not have are not mapped. */
static void check_file(struct vfu_region *r, int fd)
{
	uint64_t size = vfu_file_size(fd);
	unsigned int kept = 0;

	for (unsigned int i = 0; i < r->nr_areas; i++) {
		uint64_t end = r->areas[i].offset + r->areas[i].size;

		if (r->fd_offset % VFU_PAGE == 0 && end <= size && r->fd_offset <= size - end)
			r->areas[kept++] = r->areas[i];
	}
	r->dropped_areas += r->nr_areas - kept;
	r->nr_areas = kept;
}

static int got_region(struct vfu_attach *a, const struct vfu_message *m)
{
	struct vfu_info *info = a->info;
	struct vfu_region *r = &info->regions[a->index];
	uint32_t argsz = a->argsz;
	int ret = vfu_decode_region(m->payload, m->size, a->index, &argsz, r, &a->why);

	if (ret)
		return fail(a, ret, a->why);
	if (argsz > a->argsz) {
		a->argsz = argsz;
		return 0;
	}
	if (r->nr_areas && a->main.nr_fds)
		info->region_fds[a->index] = take_fd(&a->main, 0);
	check_file(r, info->region_fds[a->index]);
	if (a->index == VFU_REGION_CONFIG) {
		if (r->size < 256)
			return fail(a, -EPROTO, "the region of configuration space is too small");
		info->config_size = r->size < VFU_CONFIG_SIZE ? 256 : VFU_CONFIG_SIZE;
	}
	if (a->index == VFU_REGION_ROM && r->size && (r->flags & VFU_REGION_READABLE) && r->size <= VFU_ROM_MAX) {
		info->rom = calloc(1, r->size);
		if (!info->rom)
			return fail(a, -ENOMEM, "out of memory");
	}
	a->index++;
	a->argsz = VFU_REPLY_ARGSZ;
	return 0;
}

static int got_io_fds(struct vfu_attach *a, const struct vfu_message *m)
{
	struct vfu_doorbells *d = &a->info->doorbells[a->index];
	int n = 0;

	/* Servers need not know this command. */
	if (!(m->header.flags & VFU_ERROR)) {
		n = vfu_decode_io_fds(m->payload, m->size, &a->info->regions[a->index], a->index, a->main.nr_fds,
				      &a->argsz, d->entries, &a->why);
		if (n == -EAGAIN)
			return 0;
		if (n < 0)
			return fail(a, n, a->why);
	}
	d->count = (unsigned int)n;
	d->nr_fds = n ? a->main.nr_fds : 0;
	for (unsigned int i = 0; i < d->nr_fds; i++)
		d->fds[i] = take_fd(&a->main, i);
	a->index++;
	a->argsz = VFU_REPLY_ARGSZ;
	return 0;
}

static int got_part(struct vfu_attach *a, const struct vfu_message *m)
{
	struct vfu_region_access access = next_part(a);
	const void *data;

	if ((m->header.flags & VFU_ERROR) && a->step == STEP_ROM) {
		free(a->info->rom);
		a->info->rom = NULL;
		return 0;
	}
	if (vfu_decode_access(m->payload, m->size, true, &access, &data))
		return fail(a, -EPROTO, "the reply to REGION_READ does not fit what was asked for");
	memcpy((a->step == STEP_ROM ? a->info->rom : a->info->config) + a->offset, data, access.count);
	a->offset += access.count;
	return 0;
}

static int got_reply(struct vfu_attach *a, const struct vfu_message *m)
{
	int ret = 0;

	if (m->header.id != a->id || m->header.command != command_of(a) || !a->sent) {
		snprintf(a->text, sizeof(a->text), "the reply to %s has another message's id or command",
			 steps[a->step].name);
		return -EPROTO;
	}
	if ((m->header.flags & VFU_ERROR) && a->step != STEP_IO_FDS && a->step != STEP_ROM) {
		snprintf(a->text, sizeof(a->text), "%s: %s", steps[a->step].name,
			 m->header.error && m->header.error < 4096 ? strerror((int)m->header.error)
								   : "refused by the server");
		return -EPROTO;
	}
	switch (a->step) {
	case STEP_VERSION:
		ret = got_version(a, m);
		go_to(a, STEP_DMA_MAP);
		break;
	case STEP_DMA_MAP:
		a->index++;
		break;
	case STEP_INFO:
		ret = vfu_decode_device_info(m->payload, m->size, &a->info->device, &a->why);
		if (ret)
			return fail(a, ret, a->why);
		go_to(a, STEP_REGION);
		break;
	case STEP_REGION:
		ret = got_region(a, m);
		break;
	case STEP_IO_FDS:
		ret = got_io_fds(a, m);
		break;
	case STEP_IRQ:
		ret = vfu_decode_irq_info(m->payload, m->size, a->index, &a->info->irqs[a->index], &a->why);
		if (ret)
			return fail(a, ret, a->why);
		a->index++;
		break;
	case STEP_RESET:
		go_to(a, STEP_CONFIG);
		break;
	case STEP_MORE:
		a->index++;
		break;
	default:
		ret = got_part(a, m);
	}
	a->sent = false;
	a->progress++;
	return ret;
}

/* Everything that has come on the main socket. 1: nothing more. */
static int take_in(struct vfu_attach *a)
{
	for (unsigned int served = 0; served < SERVE_MOST;) {
		struct vfu_message m;
		int ret = vfu_stream_next(&a->main, &m, &a->why);

		if (ret < 0)
			return fail(a, ret, a->why);
		if (ret == 0) {
			ret = vfu_stream_recv(&a->main, MSG_DONTWAIT);
			if (ret == -EAGAIN)
				return 1;
			if (ret == 0 || ret == -ECONNRESET)
				return fail(a, -ECONNRESET, "the server went away");
			if (ret < 0 && ret != -EINTR)
				return fail(a, ret, strerror(-ret));
			continue;
		}
		if ((m.header.flags & VFU_TYPE) == VFU_TYPE_COMMAND) {
			ret = vfu_serve(&a->main, a->memory, &m);
			a->blocked = ret == -EAGAIN;
			if (a->blocked)
				return 1;
			if (ret)
				return fail(a, ret, "the server went away");
			vfu_stream_done(&a->main, &m);
			served++;
			continue;
		}
		ret = got_reply(a, &m);
		vfu_stream_done(&a->main, &m);
		return ret;
	}
	return 1;
}

int vfu_attach_run(struct vfu_attach *a)
{
	int ret = 0;

	a->twin_events = 0;
	while (!ret) {
		skip(a);
		if (a->step == STEP_DONE || a->step == STEP_END)
			return 0;
		/* A server may want an answer from us before it gives its own. */
		if (a->twin.fd >= 0) {
			ret = vfu_serve_stream(&a->twin, a->memory, SERVE_MOST, &a->why);
			if (ret < 0)
				return fail(a, ret, ret == -EPROTO ? a->why : "the server closed its twin socket");
			a->twin_events = (short)ret;
			ret = 0;
		}
		if (!a->sent)
			ret = send_request(a);
		if (ret == -EAGAIN)
			break;
		if (ret)
			return fail(a, ret, "the server went away");
		ret = take_in(a);
	}
	if (ret < 0 && ret != -EAGAIN)
		return ret;
	ret = vfu_stream_flush(&a->main);
	if (ret && ret != -EAGAIN)
		return fail(a, ret, "the server went away");
	a->main_events = (short)((a->blocked ? 0 : POLLIN) | (ret || !a->sent || a->blocked ? POLLOUT : 0));
	return 1;
}
