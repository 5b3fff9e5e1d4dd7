/* SPDX-License-Identifier: MIT */
/*
 * A vhost-user back-end for the tests, written from the specification: one device, one front-end at a time.
 *
 *	vhost-user SOCKET [KEY=VALUE]...
 *
 *	block=on file=PATH   a disk, in memory if no file is given; else the generic device of vhost_user_test.h
 *	queues=N slots=N     how many
 *	shmem=SIZE,SIZE,...  shared memory regions, from number 0 on; 0 is none
 *	shmem-count=N        how many the back-end says there are
 *	with=BIT without=BIT with-protocol=BIT without-protocol=BIT  more or fewer features
 *	once=on              end with the first front-end
 *	die=N                the disk ends, killed, before request N + 1
 *	delay=MS split=N     before each reply; send in pieces of N bytes
 *	patch=REQUEST[@N]:OFFSET:SIZE:VALUE  change the reply to this request (the Nth; default every one)
 *	cut=REQUEST[@N]:LENGTH extra=REQUEST[@N]:LENGTH  shorten or lengthen it, and its header's size with it
 *	fds=REQUEST[@N]:COUNT:FILE  send so many descriptors of that file (enum vut_file) with it
 *	mute=REQUEST[@N] close=REQUEST[@N] twice=REQUEST[@N]  do not reply, hang up instead, reply twice
 *	nack=REQUEST[@N]     acknowledge it with 1
 *	send=REQUEST[@N]:HEX before replying, send this on the back-end channel; wait if it wants a reply
 *	map=REQUEST[@N]:SHMID:OFFSET:LENGTH  before replying, map part of file A there, and wait until that is done
 *
 * Offsets count from the start of the reply's header. What the front-end does against the protocol is printed, as
 * "fault: ...", and counted.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/servers/socket.h"
#include "tests/servers/vhost_user.h"

#define PATIENCE 10000 /* ms for an answer on the back-end channel */

struct reply {
	uint8_t data[sizeof(struct header) + MAX_PAYLOAD];
	size_t size;
	int fds[MAX_FDS];
	unsigned int nr_fds;
	bool wanted;
	uint64_t error;
};

static const char *const trick_names[TRICKS] = { "patch", "cut",   "extra", "fds",  "mute",
						 "close", "twice", "nack",  "send", "map" };

void fault(struct server *s, const char *what, uint64_t value)
{
	s->faults++;
	printf("fault: %s (%llu)\n", what, (unsigned long long)value);
	fflush(stdout);
}

/* -- messages */

static bool receive_message(int fd, struct message *m)
{
	m->nr_fds = 0;
	return socket_receive(fd, &m->header, sizeof(m->header), m->fds, MAX_FDS, &m->nr_fds) &&
	       m->header.size <= MAX_PAYLOAD &&
	       socket_receive(fd, m->payload, m->header.size, m->fds, MAX_FDS, &m->nr_fds);
}

static bool has_protocol(const struct server *s, unsigned int bit)
{
	return s->acked_protocol >> bit & 1;
}

static uint32_t await(struct server *s, uint32_t request)
{
	struct pollfd p = { .fd = s->channel, .events = POLLIN };
	struct message m = { 0 };
	uint64_t value;

	if (poll(&p, 1, PATIENCE) <= 0 || !receive_message(s->channel, &m))
		return VUT_NO_ANSWER;
	if (m.header.request != request || m.header.flags != (FLAG_VERSION | FLAG_REPLY) || m.header.size != 8 ||
	    m.nr_fds) {
		fault(s, "answer on the back-end channel", m.header.request);
		return VUT_NO_ANSWER;
	}
	memcpy(&value, m.payload, 8);
	return value < VUT_NO_ANSWER ? (uint32_t)value : VUT_NO_ANSWER - 1;
}

uint32_t ask_raw(struct server *s, const void *data, size_t size, const int *fds, unsigned int nr_fds, bool wait,
		 size_t piece)
{
	struct header h = { 0 };

	if (s->channel < 0 || !socket_send(s->channel, data, size, fds, nr_fds, piece))
		return VUT_NO_ANSWER;
	memcpy(&h, data, size < sizeof(h) ? size : sizeof(h));
	return wait ? await(s, h.request) : VUT_NO_ANSWER;
}

uint32_t ask(struct server *s, uint32_t request, const void *payload, uint32_t size, const int *fds,
	     unsigned int nr_fds, bool wait)
{
	uint8_t data[sizeof(struct header) + sizeof(struct mmap_request)];
	struct header h = { request, FLAG_VERSION, size };

	wait &= has_protocol(s, PF_REPLY_ACK);
	h.flags |= wait ? FLAG_NEED_REPLY : 0;
	memcpy(data, &h, sizeof(h));
	if (size)
		memcpy(data + sizeof(h), payload, size);
	return ask_raw(s, data, sizeof(h) + size, fds, nr_fds, wait, s->split);
}

/* -- queues */

static bool run_queue(struct server *s, struct queue *q)
{
	struct element e;

	while (q->started && q->enabled && !s->deaf && pop(s, q, &e))
		if (!device_serve(s, q, &e))
			return false;
	return true;
}

/* At the first kick: what is in memory counts from here on. */
static bool start_queue(struct server *s, struct queue *q)
{
	struct element e;
	uint64_t order = 0;

	locate_ring(s, q);
	if (!q->desc || !q->avail_ring || !q->used_ring) {
		fault(s, "a queue is kicked that is not set up", q->where.index);
		return true;
	}
	q->started = true;
	if (!acked(s, F_PACKED))
		q->used = __atomic_load_n((uint16_t *)(void *)(q->used_ring + 2), __ATOMIC_ACQUIRE);
	recover_positions(s, q);
	while (next_survivor(s, q, &order, &e)) {
		s->recovered++;
		if (!device_serve(s, q, &e))
			return false;
	}
	return true;
}

static bool kicked(struct server *s, struct queue *q)
{
	q->kicks++;
	if (!q->started && !start_queue(s, q))
		return false;
	return run_queue(s, q);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void stop_queue(struct server *s, struct queue *q)
{
	device_stop_queue(s, (unsigned int)(q - s->queues));
	q->started = false;
	close_fd(&q->kick);
	close_fd(&q->call);
}

/* -- memory */

static void drop_region(struct mapping *m)
{
	munmap(m->base, m->length);
	close(m->fd);
	*m = (struct mapping){ .fd = -1 };
}

static void locate_all(struct server *s)
{
	for (unsigned int i = 0; i < s->nr_queues; i++)
		locate_ring(s, &s->queues[i]);
}

static void add_region(struct server *s, const struct region *r, int *fd)
{
	struct mapping m = { .r = *r, .fd = *fd, .length = r->size + r->offset };

	for (unsigned int i = 0; i < s->nr_regions; i++)
		if (r->guest < s->regions[i].r.guest + s->regions[i].r.size &&
		    s->regions[i].r.guest < r->guest + r->size)
			fault(s, "memory regions overlap", r->guest);
	if (s->nr_regions == MAX_REGIONS) {
		fault(s, "too many memory regions", s->nr_regions);
		return;
	}
	m.base = mmap(NULL, m.length, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (m.base == MAP_FAILED) {
		fault(s, "a memory region cannot be mapped", r->guest);
		return;
	}
	*fd = -1;
	s->regions[s->nr_regions++] = m;
}

static void set_mem_table(struct server *s, struct message *m)
{
	struct region regions[8];
	uint32_t count;

	memcpy(&count, m->payload, 4);
	if (count > 8 || m->header.size != 8 + count * sizeof(regions[0]) || m->nr_fds != count) {
		fault(s, "SET_MEM_TABLE", count);
		return;
	}
	memcpy(regions, m->payload + 8, count * sizeof(regions[0]));
	while (s->nr_regions)
		drop_region(&s->regions[--s->nr_regions]);
	for (uint32_t i = 0; i < count; i++)
		add_region(s, &regions[i], &m->fds[i]);
	locate_all(s);
}

static void change_region(struct server *s, struct message *m, struct reply *r)
{
	struct region region;

	memcpy(&region, m->payload + 8, sizeof(region));
	if (!has_protocol(s, PF_MEM_SLOTS))
		fault(s, "memory slots were not negotiated", m->header.request);
	if (m->header.request == ADD_MEM_REG && m->nr_fds == 1) {
		add_region(s, &region, &m->fds[0]);
		if (s->nr_regions > s->slots)
			fault(s, "more memory slots than there are", s->nr_regions);
		locate_all(s);
		return;
	}
	for (unsigned int i = 0; m->header.request == REM_MEM_REG && i < s->nr_regions; i++) {
		struct mapping *old = &s->regions[i];

		if (old->r.guest == region.guest && old->r.size == region.size && old->r.user == region.user) {
			drop_region(old);
			*old = s->regions[--s->nr_regions];
			locate_all(s);
			return;
		}
	}
	fault(s, "a memory region that is not there", region.guest);
	r->error = 1;
}

/* -- requests */

static void add_reply(struct reply *r, const void *data, size_t size)
{
	memcpy(r->data + r->size, data, size);
	r->size += size;
	r->wanted = true;
}

static void reply_u64(struct reply *r, uint64_t value)
{
	add_reply(r, &value, 8);
}

static void get_config(struct server *s, const struct message *m, struct reply *r)
{
	uint32_t head[3]; /* offset, size, flags */

	memcpy(head, m->payload, sizeof(head));
	if (m->header.size < sizeof(head) || head[1] != m->header.size - sizeof(head) || head[0] > 256 ||
	    head[1] > 256 - head[0] || !has_protocol(s, PF_CONFIG)) {
		fault(s, "GET_CONFIG", head[1]);
		r->wanted = true;
		return;
	}
	add_reply(r, head, sizeof(head));
	add_reply(r, s->config + head[0], head[1]);
}

static void set_config(struct server *s, const struct message *m, struct reply *r)
{
	uint32_t head[3];

	memcpy(head, m->payload, sizeof(head));
	if (m->header.size < sizeof(head) || head[1] != m->header.size - sizeof(head) || head[0] > 256 ||
	    head[1] > 256 - head[0] || !has_protocol(s, PF_CONFIG)) {
		fault(s, "SET_CONFIG", head[1]);
		r->error = 1;
		return;
	}
	s->config_writes++;
	for (uint32_t i = 0; i < head[1]; i++)
		if (head[0] + i >= VUT_CFG_SCRATCH && head[0] + i < VUT_CFG_BYTES && !s->block)
			s->config[head[0] + i] = m->payload[sizeof(head) + i];
}

static void use_inflight(struct server *s, int fd, const struct inflight_request *i)
{
	uint64_t need = (uint64_t)i->queues * sizeof(struct survivor);
	uint8_t *at;

	if (i->queues > s->nr_queues || i->size < need) {
		fault(s, "inflight region", i->size);
		return;
	}
	at = mmap(NULL, i->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)i->offset);
	if (at == MAP_FAILED) {
		fault(s, "the inflight region cannot be mapped", i->offset);
		return;
	}
	if (s->inflight)
		munmap(s->inflight, s->inflight_size);
	s->inflight = at;
	s->inflight_size = i->size;
	for (unsigned int n = 0; n < i->queues; n++)
		s->queues[n].survivor = (struct survivor *)(void *)(at + n * sizeof(struct survivor));
}

static void get_inflight(struct server *s, const struct message *m, struct reply *r)
{
	struct inflight_request i;
	int fd = memfd_create("inflight", MFD_CLOEXEC);

	memcpy(&i, m->payload, sizeof(i));
	i.offset = 0;
	i.size = ((uint64_t)i.queues * sizeof(struct survivor) + 4095) & ~4095ULL;
	if (!has_protocol(s, PF_INFLIGHT) || !i.queues || i.queue_size > MAX_SIZE)
		fault(s, "GET_INFLIGHT_FD", i.queues);
	if (fd < 0 || ftruncate(fd, (off_t)i.size) < 0)
		die("inflight");
	r->fds[r->nr_fds++] = fd;
	add_reply(r, &i, sizeof(i));
}

static void get_shmem(struct server *s, struct reply *r)
{
	uint32_t head[2] = { 0 };

	if (!has_protocol(s, PF_SHMEM))
		fault(s, "shared memory was not negotiated", 0);
	for (unsigned int i = 0; i < 256; i++)
		head[0] += !!s->shmem[i];
	if (s->shmem_count != UINT32_MAX)
		head[0] = s->shmem_count;
	add_reply(r, head, sizeof(head));
	add_reply(r, s->shmem, sizeof(s->shmem));
}

/* A request's queue, from its first word; NULL, and a fault, if there is no such queue. */
static struct queue *queue_of(struct server *s, uint32_t index)
{
	if (!s->owner)
		fault(s, "a queue is set up before SET_OWNER", index);
	if (index >= s->nr_queues) {
		fault(s, "no such queue", index);
		return NULL;
	}
	s->queues[index].where.index = index;
	return &s->queues[index];
}

static void set_descriptor(struct server *s, struct message *m)
{
	struct queue *q = queue_of(s, m->payload[0]);
	bool none = m->payload[1] & 1;
	int *to;

	if (m->nr_fds != !none)
		fault(s, "descriptors of a queue", m->nr_fds);
	if (!q || (!none && !m->nr_fds))
		return;
	to = m->header.request == SET_VRING_KICK ? &q->kick : m->header.request == SET_VRING_CALL ? &q->call : &q->err;
	close_fd(to);
	if (none && m->header.request == SET_VRING_KICK && !has_protocol(s, PF_INBAND))
		fault(s, "a queue without kicks", q->where.index);
	if (!none) {
		*to = m->fds[0];
		m->fds[0] = -1;
	}
	/* Without F_PROTOCOL_FEATURES there is no SET_VRING_ENABLE. */
	if (m->header.request == SET_VRING_KICK && !acked(s, F_PROTOCOL))
		q->enabled = true;
}

static bool queue_request(struct server *s, const struct message *m, struct reply *r)
{
	uint32_t state[2];
	struct queue *q;

	memcpy(state, m->payload, sizeof(state));
	q = queue_of(s, state[0]);
	if (!q)
		return true;
	if (q->started && m->header.request >= SET_VRING_NUM && m->header.request <= SET_VRING_BASE)
		fault(s, "a running queue is set up", m->header.request);
	switch (m->header.request) {
	case SET_VRING_NUM:
		if (!state[1] || state[1] > MAX_SIZE || (!acked(s, F_PACKED) && state[1] & (state[1] - 1)))
			fault(s, "size of a queue", state[1]);
		q->size = state[1] <= MAX_SIZE ? (uint16_t)state[1] : 0;
		break;
	case SET_VRING_ADDR:
		memcpy(&q->where, m->payload, sizeof(q->where));
		q->addressed = true;
		locate_ring(s, q);
		if (q->size && (!q->desc || !q->avail_ring || !q->used_ring))
			fault(s, "a queue outside guest memory", state[0]);
		if (q->where.desc % 16 || q->where.avail % (acked(s, F_PACKED) ? 4 : 2) || q->where.used % 4)
			fault(s, "a queue that is not aligned", state[0]);
		break;
	case SET_VRING_BASE:
		q->avail = (uint16_t)state[1];
		q->used = (uint16_t)(acked(s, F_PACKED) ? state[1] >> 16 : state[1]);
		break;
	case GET_VRING_BASE:
		stop_queue(s, q);
		q->stops++;
		state[1] = q->avail | (acked(s, F_PACKED) ? (uint32_t)q->used << 16 : 0);
		add_reply(r, state, sizeof(state));
		/* Nothing is in flight any more, and the driver may begin anew with this queue alone. */
		if (q->survivor)
			q->survivor->magic = 0;
		break;
	case SET_VRING_ENABLE:
		q->enabled = state[1];
		return run_queue(s, q);
	case VRING_KICK:
		if (!has_protocol(s, PF_INBAND))
			fault(s, "a kick by message", state[0]);
		return kicked(s, q);
	}
	return true;
}

static void reset_device(struct server *s)
{
	s->resets++;
	for (unsigned int i = 0; i < s->nr_queues; i++) {
		stop_queue(s, &s->queues[i]);
		s->queues[i].enabled = false;
	}
}

static void set_features(struct server *s, uint64_t value)
{
	if (value & ~s->features)
		fault(s, "features that were not offered", value & ~s->features);
	for (unsigned int i = 0; i < s->nr_queues; i++)
		if (s->queues[i].started && value != s->acked)
			fault(s, "features of a running device", value);
	s->acked = value;
}

static void set_protocol(struct server *s, uint64_t value)
{
	if (value & ~s->protocol)
		fault(s, "protocol features that were not offered", value & ~s->protocol);
	if (value >> PF_SHMEM & 1 && (~value >> PF_BACKEND_REQ & 1 || ~value >> PF_SEND_FD & 1))
		fault(s, "shared memory without a channel for it", value);
	s->acked_protocol = value;
}

static void set_channel(struct server *s, struct message *m)
{
	if (m->nr_fds != 1 || !has_protocol(s, PF_BACKEND_REQ)) {
		fault(s, "SET_BACKEND_REQ_FD", m->nr_fds);
		return;
	}
	close_fd(&s->channel);
	s->channel = m->fds[0];
	m->fds[0] = -1;
}

static bool do_request(struct server *s, struct message *m, struct reply *r)
{
	struct inflight_request inflight;
	uint64_t value;

	memcpy(&value, m->payload, 8);
	switch (m->header.request) {
	case GET_FEATURES:
		reply_u64(r, s->features);
		break;
	case SET_FEATURES:
		set_features(s, value);
		break;
	case SET_OWNER:
		s->owner = true;
		break;
	case RESET_OWNER:
		break;
	case SET_MEM_TABLE:
		set_mem_table(s, m);
		break;
	case SET_VRING_NUM:
	case SET_VRING_ADDR:
	case SET_VRING_BASE:
	case GET_VRING_BASE:
	case SET_VRING_ENABLE:
	case VRING_KICK:
		return queue_request(s, m, r);
	case SET_VRING_KICK:
	case SET_VRING_CALL:
	case SET_VRING_ERR:
		set_descriptor(s, m);
		break;
	case GET_PROTOCOL_FEATURES:
		reply_u64(r, s->protocol);
		break;
	case SET_PROTOCOL_FEATURES:
		set_protocol(s, value);
		break;
	case GET_QUEUE_NUM:
		reply_u64(r, s->nr_queues);
		break;
	case SET_BACKEND_REQ_FD:
		set_channel(s, m);
		break;
	case GET_CONFIG:
		get_config(s, m, r);
		break;
	case SET_CONFIG:
		set_config(s, m, r);
		break;
	case GET_INFLIGHT_FD:
		get_inflight(s, m, r);
		break;
	case SET_INFLIGHT_FD:
		memcpy(&inflight, m->payload, sizeof(inflight));
		if (m->nr_fds == 1)
			use_inflight(s, m->fds[0], &inflight);
		else
			fault(s, "SET_INFLIGHT_FD", m->nr_fds);
		break;
	case RESET_DEVICE:
		reset_device(s);
		break;
	case GET_MAX_MEM_SLOTS:
		reply_u64(r, s->slots);
		break;
	case ADD_MEM_REG:
	case REM_MEM_REG:
		change_region(s, m, r);
		break;
	case SET_STATUS:
		if (!has_protocol(s, PF_STATUS))
			fault(s, "SET_STATUS", value);
		s->status = value;
		break;
	case GET_STATUS:
		reply_u64(r, s->status);
		break;
	case GET_SHMEM_CONFIG:
		get_shmem(s, r);
		break;
	default:
		fault(s, "unknown request", m->header.request);
		r->error = 1;
	}
	return true;
}

static void check_request(struct server *s, const struct message *m)
{
	static const struct {
		enum request request;
		uint32_t size;
	} sizes[] = {
		{ GET_FEATURES, 0 },
		{ SET_FEATURES, 8 },
		{ SET_OWNER, 0 },
		{ SET_VRING_NUM, 8 },
		{ SET_VRING_ADDR, 40 },
		{ SET_VRING_BASE, 8 },
		{ GET_VRING_BASE, 8 },
		{ SET_VRING_KICK, 8 },
		{ SET_VRING_CALL, 8 },
		{ SET_VRING_ERR, 8 },
		{ GET_PROTOCOL_FEATURES, 0 },
		{ SET_PROTOCOL_FEATURES, 8 },
		{ GET_QUEUE_NUM, 0 },
		{ SET_VRING_ENABLE, 8 },
		{ SET_BACKEND_REQ_FD, 0 },
		{ RESET_DEVICE, 0 },
		{ VRING_KICK, 8 },
		{ GET_MAX_MEM_SLOTS, 0 },
		{ ADD_MEM_REG, 40 },
		{ REM_MEM_REG, 40 },
		{ SET_STATUS, 8 },
		{ GET_STATUS, 0 },
		{ GET_SHMEM_CONFIG, 0 },
	};

	if ((m->header.flags & FLAG_VERSION_MASK) != FLAG_VERSION ||
	    m->header.flags & ~(FLAG_VERSION | FLAG_NEED_REPLY))
		fault(s, "flags of a request", m->header.flags);
	if (m->header.flags & FLAG_NEED_REPLY && !has_protocol(s, PF_REPLY_ACK))
		fault(s, "a reply is wanted that was not negotiated", m->header.request);
	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		if (sizes[i].request == m->header.request && sizes[i].size != m->header.size)
			fault(s, "size of a request", m->header.request);
}

/* -- tricks */

static void send_hex(struct server *s, const char *text)
{
	uint8_t data[MAX_PAYLOAD];
	struct header h = { 0 };
	size_t n = 0;

	for (unsigned int byte; n < sizeof(data) && sscanf(text + 2 * n, "%2x", &byte) == 1; n++)
		data[n] = (uint8_t)byte;
	memcpy(&h, data, n < sizeof(h) ? n : sizeof(h));
	ask_raw(s, data, n, NULL, 0, h.flags & FLAG_NEED_REPLY, 0);
}

static void map_first(struct server *s, const struct trick_use *t)
{
	struct mmap_request m = { .shmid = (uint8_t)t->a, .shm_offset = t->b, .length = t->value, .flags = 1 };
	uint32_t status = ask(s, SHMEM_MAP, &m, sizeof(m), &s->files[VUT_FILE_A], 1, true);

	if (status)
		fault(s, "a mapping is refused", status);
}

/* What is due before or in place of a reply: false ends the connection. */
static bool play(struct server *s, const struct message *m, struct reply *r, unsigned int *times)
{
	struct header *h = (struct header *)(void *)r->data;

	for (unsigned int i = 0; i < s->nr_tricks; i++) {
		const struct trick_use *t = &s->tricks[i];

		if (t->request != m->header.request || (t->nth && t->nth != s->seen[t->request % REQUESTS]))
			continue;
		switch (t->trick) {
		case PATCH:
			memcpy(r->data + t->a, &t->value, t->b);
			break;
		case CUT:
			r->size = t->a;
			h->size = (uint32_t)(r->size - sizeof(*h));
			break;
		case EXTRA:
			r->size += t->a;
			h->size = (uint32_t)(r->size - sizeof(*h));
			break;
		case FDS:
			for (r->nr_fds = 0; r->nr_fds < t->a && r->nr_fds < MAX_FDS; r->nr_fds++)
				r->fds[r->nr_fds] = s->files[t->b];
			break;
		case MUTE:
			*times = 0;
			puts("mute");
			fflush(stdout);
			break;
		case CLOSE:
			return false;
		case TWICE:
			*times *= 2;
			break;
		case NACK:
			memset(r->data + sizeof(*h), 1, 1);
			break;
		case SEND:
			send_hex(s, t->text);
			break;
		case MAP_FIRST:
			map_first(s, t);
			break;
		default:
			break;
		}
	}
	return true;
}

/* False: the connection is over. *alive false: so is the program. */
static bool serve(struct server *s, struct message *m, bool *alive)
{
	static struct reply r;
	struct header *h = (struct header *)(void *)r.data;
	unsigned int times;
	bool own_fds;

	memset(&r, 0, sizeof(r));
	r.size = sizeof(*h);
	memset(m->payload + m->header.size, 0, m->header.size <= MAX_PAYLOAD - 64 ? 64 : 0);
	s->seen[m->header.request % REQUESTS]++;
	check_request(s, m);
	*alive = do_request(s, m, &r);
	for (unsigned int i = 0; i < m->nr_fds; i++)
		if (m->fds[i] >= 0)
			close(m->fds[i]);
	if (!*alive)
		return false;
	if (!r.wanted && m->header.flags & FLAG_NEED_REPLY)
		reply_u64(&r, r.error);
	*h = (struct header){ m->header.request, FLAG_VERSION | FLAG_REPLY, (uint32_t)(r.size - sizeof(*h)) };
	if (s->delay)
		usleep(s->delay * 1000);
	times = r.wanted && !s->mute;
	own_fds = r.nr_fds;
	int own = r.fds[0];
	bool ok = play(s, m, &r, &times);
	while (ok && times--)
		ok = socket_send(s->fd, r.data, r.size, r.fds, r.nr_fds, s->split);
	if (own_fds)
		close(own);
	return ok;
}

/* -- the program */

static void drop_client(struct server *s)
{
	s->nr_held = 0;
	while (s->nr_regions)
		drop_region(&s->regions[--s->nr_regions]);
	for (unsigned int i = 0; i < MAX_QUEUES; i++) {
		struct queue *q = &s->queues[i];

		close_fd(&q->kick);
		close_fd(&q->call);
		close_fd(&q->err);
		*q = (struct queue){ .kick = -1, .call = -1, .err = -1, .kicks = q->kicks, .stops = q->stops };
	}
	if (s->inflight)
		munmap(s->inflight, s->inflight_size);
	s->inflight = NULL;
	close_fd(&s->fd);
	close_fd(&s->channel);
	s->acked = s->acked_protocol = 0;
	s->owner = s->mute = s->deaf = s->hang_up = false;
}

/* Kicks that have come. False: the program should end. */
static bool serve_kicks(struct server *s, const struct pollfd *polls)
{
	for (unsigned int i = 0; i < s->nr_queues; i++) {
		struct queue *q = &s->queues[i];
		eventfd_t n;

		if (polls[1 + i].revents & POLLIN && q->kick == polls[1 + i].fd && eventfd_read(q->kick, &n) == 0 &&
		    !kicked(s, q))
			return false;
	}
	return true;
}

/* One front-end, until it or we hang up. False: the program should end. */
static bool serve_client(struct server *s)
{
	struct pollfd polls[1 + MAX_QUEUES];
	struct message m;
	bool alive = true;

	while (!s->hang_up) {
		polls[0] = (struct pollfd){ .fd = s->fd, .events = POLLIN };
		for (unsigned int i = 0; i < s->nr_queues; i++)
			polls[1 + i] = (struct pollfd){ .fd = s->queues[i].kick, .events = POLLIN };
		if (poll(polls, 1 + s->nr_queues, -1) < 0)
			die("poll");
		if (polls[0].revents && (!receive_message(s->fd, &m) || !serve(s, &m, &alive)))
			return alive;
		if (!serve_kicks(s, polls))
			return false;
	}
	return true;
}

static void add_trick(struct server *s, enum trick trick, const char *value)
{
	struct trick_use *t = &s->tricks[s->nr_tricks++];
	char *at;

	if (s->nr_tricks > sizeof(s->tricks) / sizeof(s->tricks[0]))
		exit(2);
	t->trick = trick;
	t->request = strtoul(value, &at, 0);
	if (*at == '@')
		t->nth = strtoul(at + 1, &at, 0);
	if (*at == ':' && trick == SEND) {
		t->text = at + 1;
		return;
	}
	if (*at == ':')
		t->a = strtoul(at + 1, &at, 0);
	if (*at == ':')
		t->b = strtoul(at + 1, &at, 0);
	if (*at == ':')
		t->value = strtoull(at + 1, &at, 0);
	if (*at) {
		fprintf(stderr, "'%s' is not understood\n", value);
		exit(2);
	}
}

static void set_shmem(struct server *s, const char *value)
{
	for (unsigned int i = 0; i < 256 && *value; i++) {
		char *end;

		s->shmem[i] = strtoull(value, &end, 0);
		value = end + (*end == ',');
	}
}

static void set_option(struct server *s, char *text, const char **file)
{
	char *value = strchr(text, '=');
	uint64_t number;

	if (!value) {
		fprintf(stderr, "'%s' is no option\n", text);
		exit(2);
	}
	*value++ = '\0';
	number = strtoull(value, NULL, 0);
	for (unsigned int i = 0; i < TRICKS; i++) {
		if (!strcmp(text, trick_names[i])) {
			add_trick(s, (enum trick)i, value);
			return;
		}
	}
	if (!strcmp(text, "block"))
		s->block = !strcmp(value, "on");
	else if (!strcmp(text, "file"))
		*file = value;
	else if (!strcmp(text, "once"))
		s->once = !strcmp(value, "on");
	else if (!strcmp(text, "queues") && number <= MAX_QUEUES)
		s->nr_queues = (unsigned int)number;
	else if (!strcmp(text, "slots"))
		s->slots = number;
	else if (!strcmp(text, "shmem"))
		set_shmem(s, value);
	else if (!strcmp(text, "shmem-count"))
		s->shmem_count = (uint32_t)number;
	else if (!strcmp(text, "with"))
		s->features |= 1ULL << number;
	else if (!strcmp(text, "without"))
		s->features &= ~(1ULL << number);
	else if (!strcmp(text, "with-protocol"))
		s->protocol |= 1ULL << number;
	else if (!strcmp(text, "without-protocol"))
		s->protocol &= ~(1ULL << number);
	else if (!strcmp(text, "die"))
		s->die_after = (unsigned int)number;
	else if (!strcmp(text, "delay"))
		s->delay = (unsigned int)number;
	else if (!strcmp(text, "split"))
		s->split = (unsigned int)number;
	else {
		fprintf(stderr, "'%s' is no option\n", text);
		exit(2);
	}
}

#define BIT(n) (1ULL << (n))

int main(int argc, char **argv)
{
	static struct server s = {
		.nr_queues = 4,
		.slots = 32,
		.shmem_count = UINT32_MAX,
		.features = BIT(F_INDIRECT) | BIT(F_EVENT_IDX) | BIT(F_PROTOCOL) | BIT(F_VERSION_1) | BIT(F_PACKED),
		.protocol = BIT(PF_MQ) | BIT(PF_REPLY_ACK) | BIT(PF_BACKEND_REQ) | BIT(PF_CONFIG) | BIT(PF_SEND_FD) |
			    BIT(PF_INFLIGHT) | BIT(PF_RESET_DEVICE) | BIT(PF_MEM_SLOTS) | BIT(PF_STATUS) |
			    BIT(PF_SHMEM),
		.fd = -1,
		.channel = -1,
	};
	int listener;
	const char *file = NULL;

	if (argc < 2)
		return 2;
	for (int i = 2; i < argc; i++)
		set_option(&s, argv[i], &file);
	if (s.block)
		s.features |= BIT(F_BLK_SIZE_MAX) | BIT(F_BLK_FLUSH);
	for (unsigned int i = 0; i < MAX_QUEUES; i++)
		s.queues[i].kick = s.queues[i].call = s.queues[i].err = -1;
	device_create(&s, file);
	listener = socket_listen(argv[1]);
	do {
		s.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (s.fd < 0)
			die("accept");
		s.connections++;
		if (!serve_client(&s))
			return 9;
		drop_client(&s);
	} while (!s.once);
	return 0;
}
