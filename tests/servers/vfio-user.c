/* SPDX-License-Identifier: MIT */
/*
 * A vfio-user server for the tests, written from the specification: one PCI device, one client at a time.
 *
 *	vfio-user SOCKET [KEY=VALUE]...
 *
 *	twin=off multi=on reset=off mmap=off iofds=off|40|48 msi=off json=TEXT  what the device offers
 *	vectors=N        of MSI-X (default VFUT_VECTORS)
 *	once=on          end with the first client
 *	delay=MS         before each reply
 *	split=N          send in pieces of N bytes
 *	patch=CMD[@N]:OFFSET:SIZE:VALUE   change the reply to this command (the Nth one; default every one)
 *	cut=CMD[@N]:LENGTH  extra=CMD[@N]:LENGTH  shorten or lengthen it, and its header's size with it
 *	fds=CMD[@N]:COUNT   send so many descriptors with it: eventfds, unless the reply has its own
 *	mute=CMD[@N] close=CMD[@N] twice=CMD[@N]  do not reply, hang up instead, reply twice
 *	ask=CMD[@N]:COMMAND:ADDRESS:COUNT  before replying, ask this of the client, and do not wait for the answer
 *	dma=CMD[@N]:ADDRESS  before replying, have the client read its memory there, and wait for it
 *	flood=CMD[@N]    instead of replying, ask for memory as long as the client takes it, and take no answer
 *	shrink=CMD[@N]   truncate the file of BAR2 before replying
 *
 * With CMD+N: from the Nth one on. What leaves the client waiting (mute, flood, a stall) is told on standard output,
 *and so is each client. Commands are counted over all of them.
 *
 * The registers of BAR0 are in vfio_user_test.h; BAR1 has the first of them as I/O ports. BAR2 is memory, most of which
 * can be mapped, with the MSI-X table inside; BAR4 has the doorbells.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/vfio-user/wire.h"
#include "tests/servers/socket.h"
#include "tests/servers/vfio_user_test.h"

#define MAX_MESSAGE (2u << 20)
#define MAX_FDS	    64
#define PATCHES	    32
#define MAPS	    8
#define BUFFER	    (4u << 20)
#define VECTORS	    VFUT_VECTORS_MAX
#define PAGE	    4096
#define PMCSR	    0x44 /* in configuration space */
#define PM_STATE    3

enum trick { PATCH, CUT, EXTRA, FDS, MUTE, CLOSE, TWICE, ASK, DMA, FLOOD, SHRINK, TRICKS };

static const char *const trick_names[TRICKS] = { "patch", "cut", "extra", "fds",   "mute",  "close",
						 "twice", "ask", "dma",	  "flood", "shrink" };

struct patch {
	enum trick trick;
	unsigned long command, nth, a, b;
	bool on; /* also after the nth */
	unsigned long long value;
};

struct map {
	uint64_t address, size;
	uint8_t *host; /* NULL: not shared */
};

struct server {
	/* what it offers */
	bool twin, multi, reset, mmap, once, msi;
	unsigned int io_fds, delay, split, vectors;
	const char *json;
	struct patch patches[PATCHES];
	unsigned int nr_patches;
	unsigned long seen[32]; /* commands, by number */
	unsigned int clients;
	/* the connection */
	int fd, twin_fd;
	uint16_t next_id;
	struct map maps[MAPS];
	int irqs[VFU_IRQS][VECTORS];
	/* the device */
	uint8_t config[4096], rom[VFUT_ROM_SIZE];
	uint8_t bank[VFUT_BAR0_SIZE];
	uint8_t *memory;
	int memory_fd, bell_fds[3], shadow_fd;
	uint32_t resets, rings[3], posted, multis, reads, dma_status;
	bool stall;
	uint32_t regs[VFUT_REGS / 4];
	uint8_t *buffer;
};

struct message {
	struct vfu_header header;
	uint8_t *payload;
	size_t size;
	int fds[MAX_FDS];
	unsigned int nr_fds;
};

struct reply {
	uint8_t data[MAX_MESSAGE];
	size_t size; /* header included */
	int fds[MAX_FDS];
	unsigned int nr_fds;
	int error;
};

static bool receive_message(int fd, struct message *m)
{
	m->nr_fds = 0;
	if (!socket_receive(fd, &m->header, sizeof(m->header), m->fds, MAX_FDS, &m->nr_fds) ||
	    m->header.size < sizeof(m->header) || m->header.size > MAX_MESSAGE)
		return false;
	m->size = m->header.size - sizeof(m->header);
	return socket_receive(fd, m->payload, m->size, m->fds, MAX_FDS, &m->nr_fds);
}

/* DMA by messages: on the twin socket, or on the only one there is, where the next message has to be the answer. */
static int ask_client(struct server *s, uint16_t command, uint64_t address, void *data, uint64_t count, bool wait)
{
	static uint8_t message[MAX_MESSAGE], answer[MAX_MESSAGE];
	int fd = s->twin_fd >= 0 ? s->twin_fd : s->fd;
	struct message m = { .payload = answer };
	struct vfu_dma_access access = { address, count };
	/* One that writes more than it can send is a lie. */
	size_t length = command == VFU_DMA_WRITE && count <= BUFFER ? (size_t)count : 0;
	struct vfu_header header = { .id = ++s->next_id,
				     .command = command,
				     .size = (uint32_t)(sizeof(header) + sizeof(access) + length) };

	memcpy(message, &header, sizeof(header));
	memcpy(message + sizeof(header), &access, sizeof(access));
	if (length)
		memcpy(message + sizeof(header) + sizeof(access), data, length);
	if (!socket_send(fd, message, header.size, NULL, 0, s->split))
		return EPIPE;
	if (!wait)
		return 0;
	if (!receive_message(fd, &m) || m.header.id != header.id || m.header.command != command ||
	    (m.header.flags & VFU_TYPE) != VFU_TYPE_REPLY)
		return EPROTO;
	if (m.header.flags & VFU_ERROR)
		return (int)m.header.error;
	if (m.size != sizeof(access) + (command == VFU_DMA_READ ? count : 0))
		return EMSGSIZE;
	if (command == VFU_DMA_READ)
		memcpy(data, answer + sizeof(access), count);
	return 0;
}

static void tell(const char *what, unsigned int command)
{
	printf("%s %u\n", what, command);
	fflush(stdout);
}

/* More than the client can answer, since nobody takes its answers. */
static void flood(struct server *s)
{
	const struct vfu_dma_access access = { 0, 65536 };
	const struct vfu_header header = { .command = VFU_DMA_READ, .size = sizeof(header) + sizeof(access) };
	int fd = s->twin_fd >= 0 ? s->twin_fd : s->fd;
	struct iovec iov[2] = { { (void *)&header, sizeof(header) }, { (void *)&access, sizeof(access) } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	/* Full for so long is full for ever; a client that was only slow finds its answers waiting all the same. */
	while (sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) > 0 || (errno == EAGAIN && poll(&p, 1, 200) > 0))
		;
}

/* From the next message on, until somebody rings, or nobody is there any more. */
static void stall(struct server *s)
{
	uint32_t *stalled = (uint32_t *)(s->memory + VFUT_STALLED);
	struct pollfd p[2] = { { .fd = s->fd, .events = POLLIN }, { .fd = -1, .events = POLLIN } };

	s->stall = false;
	poll(p, 1, -1);
	tell("stalled", 0);
	__atomic_store_n(stalled, 1, __ATOMIC_SEQ_CST);
	p[0].events = POLLRDHUP;
	p[1].fd = s->bell_fds[0];
	poll(p, 2, -1);
	__atomic_store_n(stalled, 0, __ATOMIC_SEQ_CST);
}

static int dma(struct server *s, bool write, uint64_t address, uint64_t count)
{
	uint64_t done = 0;

	if (count > BUFFER)
		return EINVAL;
	for (unsigned int i = 0; i < MAPS; i++) {
		const struct map *m = &s->maps[i];

		if (!m->host || address < m->address || address - m->address >= m->size ||
		    count > m->size - (address - m->address))
			continue;
		if (write)
			memcpy(m->host + (address - m->address), s->buffer, count);
		else
			memcpy(s->buffer, m->host + (address - m->address), count);
		return 0;
	}
	while (done < count) {
		uint64_t n = count - done < (1u << 20) ? count - done : 1u << 20;
		int error =
			ask_client(s, write ? VFU_DMA_WRITE : VFU_DMA_READ, address + done, s->buffer + done, n, true);

		if (error)
			return error;
		done += n;
	}
	return 0;
}

static void trigger(struct server *s, uint32_t value)
{
	unsigned int index = value >> 16, vector = value & 0xffff;

	if (index < VFU_IRQS && vector < VECTORS && s->irqs[index][vector] >= 0)
		eventfd_write(s->irqs[index][vector], 1);
}

/* Doorbells rung so far: counted when somebody looks. */
static void count_rings(struct server *s)
{
	for (unsigned int i = 0; i < 3; i++) {
		eventfd_t n;

		if (eventfd_read(s->bell_fds[i], &n) == 0)
			s->rings[i] += (uint32_t)n;
	}
}

static uint32_t read_register(struct server *s, uint64_t at)
{
	uint32_t sum = 0, value = 0;

	count_rings(s);
	switch (at) {
	case VFUT_ID:
		return VFUT_MAGIC;
	case VFUT_RESETS:
		return s->resets;
	case VFUT_DMA_STATUS:
		return s->dma_status;
	case VFUT_SUM:
		for (uint32_t i = 0; i < s->regs[VFUT_DMA_COUNT / 4] && i < BUFFER; i++)
			sum = sum * 31 + s->buffer[i];
		return sum;
	case VFUT_RINGS:
	case VFUT_RINGS + 4:
	case VFUT_RINGS + 8:
		return s->rings[(at - VFUT_RINGS) / 4];
	case VFUT_POSTED:
		return s->posted;
	case VFUT_MULTIS:
		return s->multis;
	case VFUT_READS:
		return s->reads;
	case VFUT_COMMAND:
		memcpy(&value, s->config + 4, 2);
		return value;
	case VFUT_BAR0:
		memcpy(&value, s->config + 0x10, 4);
		return value;
	case VFUT_PEEK:
		memcpy(&value, s->memory + s->regs[VFUT_OFFSET / 4] % (VFUT_BAR2_SIZE - 4), 4);
		return value;
	case VFUT_SHADOW:
		if (pread(s->shadow_fd, &value, 4, VFUT_SHADOW_OFFSET) != 4)
			return 0;
		return value;
	default:
		return at < VFUT_REGS ? s->regs[at / 4] : 0;
	}
}

static void write_register(struct server *s, uint64_t at, uint32_t value)
{
	uint64_t address;

	if (at >= VFUT_REGS)
		return;
	s->regs[at / 4] = value;
	memcpy(&address, &s->regs[VFUT_DMA_ADDRESS / 4], 8);
	switch (at) {
	case VFUT_IRQ:
		trigger(s, value);
		break;
	case VFUT_DMA_GO:
		s->dma_status = (uint32_t)dma(s, value & 2, address, s->regs[VFUT_DMA_COUNT / 4]);
		if (value >> 16)
			trigger(s, VFU_IRQ_MSIX << 16 | ((value >> 16) - 1));
		break;
	case VFUT_FILL:
		for (uint32_t i = 0; i < BUFFER; i++)
			s->buffer[i] = (uint8_t)(value + i);
		break;
	case VFUT_POKE:
		memcpy(s->memory + s->regs[VFUT_OFFSET / 4] % (VFUT_BAR2_SIZE - 4), &value, 4);
		break;
	case VFUT_STALL:
		s->stall = true;
		break;
	case VFUT_DIE:
		_exit((int)value);
	}
}

/* Registers are words; the rest of BAR0 keeps bytes. */
static int access_bar0(struct server *s, bool write, uint64_t offset, uint8_t *data, uint32_t count)
{
	if (offset + count > VFUT_BAR0_SIZE)
		return EINVAL;
	if (offset >= VFUT_REGS) {
		memcpy(write ? s->bank + offset : data, write ? data : s->bank + offset, count);
		return 0;
	}
	if (count != 4 || offset % 4)
		return EINVAL;
	if (write) {
		uint32_t value;

		memcpy(&value, data, 4);
		write_register(s, offset, value);
	} else {
		uint32_t value = read_register(s, offset);

		memcpy(data, &value, 4);
	}
	return 0;
}

/* PCI Bus Power Management 1.2, 3.2.4 and 5.4.1: without No_Soft_Reset the way from D3hot to D0 is a reset. */
static void set_power_state(struct server *s, uint8_t state)
{
	uint8_t *now = &s->config[PMCSR];

	if ((*now & PM_STATE) == PM_STATE && (state & PM_STATE) == 0)
		s->resets++;
	*now = (uint8_t)((*now & ~PM_STATE) | (state & PM_STATE));
}

static int access_config(struct server *s, bool write, uint64_t offset, uint8_t *data, uint32_t count)
{
	if (offset + count > sizeof(s->config))
		return EINVAL;
	if (!write)
		memcpy(data, s->config + offset, count);
	else if (offset >= 4 && (offset < 0x2c || offset >= VFUT_CAP_VENDOR))
		memcpy(s->config + offset, data, count);
	else if (offset == PMCSR)
		set_power_state(s, data[0]);
	return 0;
}

static int access_region(struct server *s, bool write, uint32_t region, uint64_t offset, uint8_t *data, uint32_t count)
{
	if (offset > UINT32_MAX || count > (1u << 20))
		return EINVAL;
	s->reads += !write;
	switch (region) {
	case 0:
	case 1:
		if (region == 1 && offset + count > VFUT_BAR1_SIZE)
			return EINVAL;
		return access_bar0(s, write, offset, data, count);
	case 2:
		if (offset + count > VFUT_BAR2_SIZE)
			return EINVAL;
		memcpy(write ? s->memory + offset : data, write ? data : s->memory + offset, count);
		return 0;
	case 4:
		if (write && offset < 12)
			s->rings[offset / 4] += 0x10000; /* it came as a message */
		memset(data, 0, write ? 0 : count);
		return 0;
	case VFU_REGION_ROM:
		if (write || offset + count > VFUT_ROM_SIZE)
			return EINVAL;
		memcpy(data, s->rom + offset, count);
		return 0;
	case VFU_REGION_CONFIG:
		return access_config(s, write, offset, data, count);
	default:
		return EINVAL;
	}
}

static void add_reply(struct reply *r, const void *data, size_t size)
{
	memcpy(r->data + r->size, data, size);
	r->size += size;
}

static void do_version(struct server *s, struct reply *r)
{
	struct vfu_version version = { 0, 0 };
	char text[512];
	int pair[2];
	bool twin = false;

	if (s->twin && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0) {
		s->twin_fd = pair[0];
		r->fds[r->nr_fds++] = pair[1];
		twin = true;
	}
	snprintf(text, sizeof(text),
		 "{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576,\"surprise\":[1,2]%s%s}}",
		 s->multi ? ",\"write_multiple\":true" : "",
		 twin ? ",\"twin_socket\":{\"supported\":true,\"fd_index\":0}" : "");
	add_reply(r, &version, sizeof(version));
	if (!s->json)
		add_reply(r, text, strlen(text) + 1);
	else if (*s->json)
		add_reply(r, s->json, strlen(s->json) + 1);
}

static void do_map(struct server *s, const struct message *m, struct reply *r)
{
	struct vfu_dma_map map;

	memcpy(&map, m->payload, sizeof(map));
	for (unsigned int i = 0; i < MAPS; i++) {
		if (s->maps[i].size)
			continue;
		s->maps[i] = (struct map){ map.address, map.size, NULL };
		if (m->nr_fds) {
			s->maps[i].host = mmap(NULL, map.size, PROT_READ | PROT_WRITE, MAP_SHARED, m->fds[0],
					       (off_t)map.fd_offset);
			if (s->maps[i].host == MAP_FAILED)
				die("mmap of guest memory");
		}
		return;
	}
	r->error = ENOSPC;
}

static void drop_map(struct map *map)
{
	if (map->host)
		munmap(map->host, map->size);
	*map = (struct map){ 0 };
}

static void do_unmap(struct server *s, const struct message *m, struct reply *r)
{
	struct vfu_dma_unmap unmap;

	memcpy(&unmap, m->payload, sizeof(unmap));
	for (unsigned int i = 0; i < MAPS; i++) {
		if (s->maps[i].size && s->maps[i].address == unmap.address && s->maps[i].size == unmap.size) {
			drop_map(&s->maps[i]);
			add_reply(r, &unmap, sizeof(unmap));
			return;
		}
	}
	r->error = ENOENT;
}

static void do_region_info(struct server *s, const struct message *m, struct reply *r)
{
	static const uint64_t sizes[] = {
		VFUT_BAR0_SIZE, VFUT_BAR1_SIZE, VFUT_BAR2_SIZE, 0, VFUT_BAR4_SIZE, 0, VFUT_ROM_SIZE, 4096, 0
	};
	struct vfu_region_info info;
	struct {
		struct vfu_cap_sparse cap;
		struct vfu_wire_area areas[2];
	} sparse = { { { VFU_CAP_SPARSE_MMAP, 1, 0 }, 2, 0 },
		     { { VFUT_AREA1, VFUT_AREA1_SIZE }, { VFUT_AREA2, VFUT_AREA2_SIZE } } };

	memcpy(&info, m->payload, sizeof(info));
	if (info.index >= sizeof(sizes) / sizeof(sizes[0])) {
		r->error = EINVAL;
		return;
	}
	info.size = sizes[info.index];
	info.flags = info.size ? VFU_REGION_READABLE | (info.index == VFU_REGION_ROM ? 0 : VFU_REGION_WRITABLE) : 0;
	info.offset = info.cap_offset = 0;
	if (info.index != 2 || !s->mmap) {
		info.argsz = sizeof(info);
		add_reply(r, &info, sizeof(info));
		return;
	}
	info.flags |= VFU_REGION_MMAP | VFU_REGION_CAPS;
	bool room = info.argsz >= sizeof(info) + sizeof(sparse);
	info.argsz = sizeof(info) + sizeof(sparse);
	info.cap_offset = room ? sizeof(info) : 0;
	add_reply(r, &info, sizeof(info));
	if (room) {
		add_reply(r, &sparse, sizeof(sparse));
		r->fds[r->nr_fds++] = s->memory_fd;
	}
}

static void do_io_fds(struct server *s, const struct message *m, struct reply *r)
{
	static const struct vfu_io_fd_48 bells[3] = {
		{ .offset = 0, .size = 4, .fd_index = 0, .type = VFU_IOEVENTFD },
		{ .offset = 4, .size = 4, .fd_index = 1, .type = VFU_IOEVENTFD, .flags = 1, .datamatch = VFUT_MATCH },
		{ .offset = 8,
		  .size = 4,
		  .fd_index = 2,
		  .type = VFU_IOEVENTFD_SHADOW,
		  .shadow_fd_index = 3,
		  .shadow_offset = VFUT_SHADOW_OFFSET },
	};
	struct vfu_io_fds head;

	memcpy(&head, m->payload, sizeof(head));
	if (!s->io_fds || head.index != 4) {
		head.argsz = sizeof(head);
		head.count = 0;
		add_reply(r, &head, sizeof(head));
		return;
	}
	head.count = s->io_fds == 48 ? 3 : 2;
	head.argsz = (uint32_t)sizeof(head) + head.count * s->io_fds;
	add_reply(r, &head, sizeof(head));
	for (uint32_t i = 0; i < head.count; i++) {
		const struct vfu_io_fd_48 *b = &bells[i];
		struct vfu_io_fd_40 small = { b->offset, b->size, b->fd_index, b->type, b->flags, 0, b->datamatch };

		add_reply(r, s->io_fds == 48 ? (const void *)b : &small, s->io_fds);
	}
	for (unsigned int i = 0; i < 3; i++)
		r->fds[r->nr_fds++] = s->bell_fds[i];
	r->fds[r->nr_fds++] = s->shadow_fd;
}

static void do_irq_info(const struct server *s, const struct message *m, struct reply *r)
{
	const uint32_t counts[VFU_IRQS] = { 1, 4, s->vectors, 1, 1 };
	struct vfu_irq_info info;

	memcpy(&info, m->payload, sizeof(info));
	if (info.index >= VFU_IRQS) {
		r->error = EINVAL;
		return;
	}
	info.flags = VFU_IRQ_EVENTFD;
	info.count = counts[info.index];
	add_reply(r, &info, sizeof(info));
}

static void do_set_irqs(struct server *s, struct message *m, struct reply *r)
{
	struct vfu_set_irqs set;

	memcpy(&set, m->payload, sizeof(set));
	if (set.index >= VFU_IRQS || set.start > VECTORS || set.count > VECTORS - set.start) {
		r->error = EINVAL;
		return;
	}
	if ((set.flags & VFU_SET_TRIGGER) && (set.flags & VFU_SET_DATA_NONE) && !set.count) {
		for (unsigned int i = 0; i < VECTORS; i++) {
			if (s->irqs[set.index][i] >= 0)
				close(s->irqs[set.index][i]);
			s->irqs[set.index][i] = -1;
		}
	} else if ((set.flags & VFU_SET_DATA_EVENTFD) && m->nr_fds == set.count) {
		for (unsigned int i = 0; i < set.count; i++) {
			int *fd = &s->irqs[set.index][set.start + i];

			if (*fd >= 0)
				close(*fd);
			*fd = m->fds[i];
			m->fds[i] = -1;
		}
	} else {
		r->error = EINVAL;
	}
}

static void do_access(struct server *s, const struct message *m, struct reply *r)
{
	bool write = m->header.command == VFU_REGION_WRITE;
	struct vfu_region_access access;

	memcpy(&access, m->payload, sizeof(access));
	add_reply(r, &access, sizeof(access));
	if (access.count > (1u << 20) || (write && m->size != sizeof(access) + access.count)) {
		r->error = EINVAL;
		return;
	}
	s->posted += write && (m->header.flags & VFU_NO_REPLY);
	r->error = access_region(s, write, access.region, access.offset,
				 write ? m->payload + sizeof(access) : r->data + r->size, access.count);
	r->size += write ? 0 : access.count;
}

static void do_multi(struct server *s, const struct message *m, struct reply *r)
{
	struct vfu_write_multi multi;

	memcpy(&multi, m->payload, sizeof(multi));
	s->multis++;
	for (uint64_t i = 0; i < multi.count && sizeof(multi) + (i + 1) * sizeof(struct vfu_write_one) <= m->size;
	     i++) {
		struct vfu_write_one one;

		memcpy(&one, m->payload + sizeof(multi) + i * sizeof(one), sizeof(one));
		s->posted++;
		access_region(s, true, one.region, one.offset, one.data, one.count);
	}
	add_reply(r, &multi, sizeof(multi));
}

static void make_reply(struct server *s, struct message *m, struct reply *r)
{
	struct vfu_device_info info = { sizeof(info), (s->reset ? VFU_DEVICE_RESETTABLE : 0) | VFU_DEVICE_PCI, 9,
					VFU_IRQS };

	switch (m->header.command) {
	case VFU_VERSION:
		do_version(s, r);
		break;
	case VFU_DMA_MAP:
		do_map(s, m, r);
		break;
	case VFU_DMA_UNMAP:
		do_unmap(s, m, r);
		break;
	case VFU_DEVICE_GET_INFO:
		add_reply(r, &info, sizeof(info));
		break;
	case VFU_GET_REGION_INFO:
		do_region_info(s, m, r);
		break;
	case VFU_GET_REGION_IO_FDS:
		do_io_fds(s, m, r);
		break;
	case VFU_GET_IRQ_INFO:
		do_irq_info(s, m, r);
		break;
	case VFU_SET_IRQS:
		do_set_irqs(s, m, r);
		break;
	case VFU_REGION_READ:
	case VFU_REGION_WRITE:
		do_access(s, m, r);
		break;
	case VFU_DEVICE_RESET:
		s->resets++;
		break;
	case VFU_REGION_WRITE_MULTI:
		do_multi(s, m, r);
		break;
	default:
		r->error = EINVAL;
	}
}

/* The tricks that are due before or in place of a reply: false ends the connection. */
static bool play(struct server *s, const struct message *m, struct reply *r, unsigned int *times)
{
	struct vfu_header *h = (struct vfu_header *)r->data;
	unsigned long seen = s->seen[m->header.command % 32];
	uint8_t byte;

	for (unsigned int i = 0; i < s->nr_patches; i++) {
		const struct patch *p = &s->patches[i];

		if (p->command != m->header.command || (p->nth && p->nth != seen && !(p->on && seen > p->nth)))
			continue;
		switch (p->trick) {
		case PATCH:
			memcpy(r->data + p->a, &p->value, p->b);
			break;
		case CUT:
			h->size = (uint32_t)(r->size = p->a);
			break;
		case EXTRA:
			h->size = (uint32_t)(r->size += p->a);
			break;
		case FDS:
			while (r->nr_fds < p->a)
				r->fds[r->nr_fds++] = s->bell_fds[0];
			r->nr_fds = (unsigned int)p->a;
			break;
		case MUTE:
			*times = 0;
			tell("mute", m->header.command);
			break;
		case FLOOD:
			*times = 0;
			flood(s);
			tell("flood", m->header.command);
			break;
		case CLOSE:
			return false;
		case TWICE:
			*times = 2;
			break;
		case ASK:
			ask_client(s, (uint16_t)p->a, p->b, s->buffer, p->value, false);
			break;
		case DMA:
			ask_client(s, VFU_DMA_READ, p->a, &byte, 1, true);
			break;
		case SHRINK:
			/* We keep memory, at the same place, that is not the client's any more. */
			if (ftruncate(s->memory_fd, 0) < 0 ||
			    mmap(s->memory, VFUT_BAR2_SIZE, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
				die("shrink");
			break;
		default:
			break;
		}
	}
	return true;
}

static bool serve(struct server *s, struct message *m)
{
	static struct reply r;
	struct vfu_header *h = (struct vfu_header *)r.data;
	unsigned int times = m->header.flags & VFU_NO_REPLY ? 0 : 1;
	bool ok = true;

	r.size = sizeof(*h);
	r.nr_fds = 0;
	r.error = 0;
	s->seen[m->header.command % 32]++;
	make_reply(s, m, &r);
	for (unsigned int i = 0; i < m->nr_fds; i++)
		if (m->fds[i] >= 0)
			close(m->fds[i]);
	if (r.error)
		r.size = sizeof(*h);
	*h = (struct vfu_header){ .id = m->header.id,
				  .command = m->header.command,
				  .size = (uint32_t)r.size,
				  .flags = VFU_TYPE_REPLY | (r.error ? VFU_ERROR : 0),
				  .error = (uint32_t)r.error };
	if (s->delay)
		usleep(s->delay * 1000);
	ok = play(s, m, &r, &times);
	while (ok && times--)
		ok = socket_send(s->fd, r.data, r.size, r.fds, r.nr_fds, s->split);
	if (m->header.command == VFU_VERSION && s->twin_fd >= 0)
		close(r.fds[0]);
	if (s->stall)
		stall(s);
	return ok;
}

static void put(struct server *s, unsigned int reg, unsigned int size, uint64_t value)
{
	memcpy(s->config + reg, &value, size);
}

static void build_config(struct server *s)
{
	put(s, 0x00, 2, VFUT_VENDOR);
	put(s, 0x02, 2, VFUT_DEVICE);
	put(s, 0x06, 2, 0x0010);
	put(s, 0x08, 4, 0xff000001);
	put(s, 0x10, 4, 0);
	put(s, 0x14, 4, 1); /* I/O */
	put(s, 0x18, 4, 0xc);
	put(s, 0x20, 4, 0);
	put(s, 0x2c, 4, VFUT_DEVICE << 16 | VFUT_VENDOR);
	put(s, 0x34, 1, 0x40);
	put(s, 0x3d, 1, 1);
	put(s, 0x40, 4, 0x00034801 | (s->msi ? 0 : (VFUT_CAP_VENDOR - 0x48) << 8)); /* power management */
	put(s, 0x48, 2, 0x05 | VFUT_CAP_VENDOR << 8); /* MSI, 64 bits, 4 vectors, no masks: 14 bytes */
	put(s, 0x4a, 2, 0x0084);
	put(s, VFUT_CAP_VENDOR, 4, 0x00100009 | 0x70 << 8);
	put(s, 0x70, 4, 0x00000011 | (s->vectors - 1) << 16);
	put(s, 0x74, 4, VFUT_TABLE | 2);
	put(s, 0x78, 4, VFUT_PBA | 2);
	put(s, 0x100, 4, 0x14010003); /* a serial number, then vendor-specific */
	put(s, 0x104, 8, 0x1122334455667788);
	put(s, 0x140, 4, 0x0001000b);
	put(s, 0x148, 4, 0xcafe);
}

/* PCI Firmware Specification 3.0, 5.1: an image of VFUT_ROM_SIZE bytes that is no code. */
static void build_rom(struct server *s)
{
	static const uint8_t header[VFUT_ROM_HEADER] = {
		[0] = 0x55,
		[1] = 0xaa,
		[0x18] = 0x1c,
		[0x1c] = 'P',
		'C',
		'I',
		'R',
		VFUT_VENDOR & 0xff,
		VFUT_VENDOR >> 8,
		VFUT_DEVICE & 0xff,
		VFUT_DEVICE >> 8,
		[0x1c + 0x0a] = 0x18, /* bytes of this structure */
		[0x1c + 0x0f] = 0xff, /* class */
		[0x1c + 0x10] = VFUT_ROM_SIZE / 512,
		[0x1c + 0x14] = 0xff, /* code of no known type */
		[0x1c + 0x15] = 0x80, /* the last image */
	};

	for (unsigned int i = 0; i < VFUT_ROM_SIZE; i++)
		s->rom[i] = i < sizeof(header) ? header[i] : (uint8_t)(i * 7);
}

static void add_trick(struct server *s, enum trick trick, const char *value)
{
	struct patch *p = &s->patches[s->nr_patches++];
	char *at;

	if (s->nr_patches > PATCHES)
		exit(2);
	p->trick = trick;
	p->command = strtoul(value, &at, 0);
	p->on = *at == '+';
	if (*at == '@' || p->on)
		p->nth = strtoul(at + 1, &at, 0);
	if (*at == ':')
		p->a = strtoul(at + 1, &at, 0);
	if (*at == ':')
		p->b = strtoul(at + 1, &at, 0);
	if (*at == ':')
		p->value = strtoull(at + 1, &at, 0);
	if (*at) {
		fprintf(stderr, "'%s' is not understood\n", value);
		exit(2);
	}
}

static void set_option(struct server *s, char *text)
{
	char *value = strchr(text, '=');
	bool on;

	if (!value) {
		fprintf(stderr, "'%s' is no option\n", text);
		exit(2);
	}
	*value++ = '\0';
	on = !strcmp(value, "on");
	for (unsigned int i = 0; i < TRICKS; i++) {
		if (!strcmp(text, trick_names[i])) {
			add_trick(s, (enum trick)i, value);
			return;
		}
	}
	if (!strcmp(text, "twin"))
		s->twin = on;
	else if (!strcmp(text, "multi"))
		s->multi = on;
	else if (!strcmp(text, "reset"))
		s->reset = on;
	else if (!strcmp(text, "mmap"))
		s->mmap = on;
	else if (!strcmp(text, "msi"))
		s->msi = on;
	else if (!strcmp(text, "once"))
		s->once = on;
	else if (!strcmp(text, "iofds"))
		s->io_fds = (unsigned int)strtoul(value, NULL, 0);
	else if (!strcmp(text, "vectors"))
		s->vectors = (unsigned int)strtoul(value, NULL, 0) % (VECTORS + 1);
	else if (!strcmp(text, "delay"))
		s->delay = (unsigned int)strtoul(value, NULL, 0);
	else if (!strcmp(text, "split"))
		s->split = (unsigned int)strtoul(value, NULL, 0);
	else if (!strcmp(text, "json"))
		s->json = value;
	else {
		fprintf(stderr, "'%s' is no option\n", text);
		exit(2);
	}
}

static void build_device(struct server *s)
{
	s->memory_fd = memfd_create("bar2", MFD_CLOEXEC);
	s->shadow_fd = memfd_create("shadow", MFD_CLOEXEC);
	s->buffer = calloc(1, BUFFER);
	if (s->memory_fd < 0 || s->shadow_fd < 0 || !s->buffer || ftruncate(s->memory_fd, VFUT_BAR2_SIZE) < 0 ||
	    ftruncate(s->shadow_fd, PAGE) < 0)
		die("memory");
	s->memory = mmap(NULL, VFUT_BAR2_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, s->memory_fd, 0);
	if (s->memory == MAP_FAILED)
		die("mmap");
	for (unsigned int i = 0; i < 3; i++)
		s->bell_fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (unsigned int i = 0; i < VFU_IRQS * VECTORS; i++)
		s->irqs[i / VECTORS][i % VECTORS] = -1;
	s->twin_fd = -1;
	build_config(s);
	build_rom(s);
}

static void drop_client(struct server *s)
{
	for (unsigned int i = 0; i < MAPS; i++)
		drop_map(&s->maps[i]);
	for (unsigned int i = 0; i < VFU_IRQS * VECTORS; i++) {
		int *fd = &s->irqs[i / VECTORS][i % VECTORS];

		if (*fd >= 0)
			close(*fd);
		*fd = -1;
	}
	close(s->fd);
	if (s->twin_fd >= 0)
		close(s->twin_fd);
	s->twin_fd = -1;
}

int main(int argc, char **argv)
{
	static struct server s = {
		.twin = true, .reset = true, .mmap = true, .msi = true, .io_fds = 48, .vectors = VFUT_VECTORS
	};
	struct message m = { .payload = malloc(MAX_MESSAGE) };
	int listener;

	if (argc < 2 || !m.payload)
		return 2;
	for (int i = 2; i < argc; i++)
		set_option(&s, argv[i]);
	build_device(&s);
	listener = socket_listen(argv[1]);
	do {
		s.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (s.fd < 0)
			die("accept");
		tell("client", ++s.clients);
		/* Answers to what was asked without waiting are of no interest. */
		while (receive_message(s.fd, &m) && ((m.header.flags & VFU_TYPE) == VFU_TYPE_REPLY || serve(&s, &m)))
			;
		drop_client(&s);
	} while (!s.once);
	return 0;
}
