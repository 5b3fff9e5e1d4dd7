/* SPDX-License-Identifier: MIT */
/*
 * vhost-user without a machine: messages and descriptors on a socket, requests with their deadlines, the set-up of a
 * connection, what a back-end asks, and the window of shared memory. The other end of the sockets is here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/vhost-user/attach.h"
#include "devices/vhost-user/backend.h"
#include "devices/vhost-user/link.h"
#include "devices/vhost-user/shmem.h"
#include "vhost_user_peer.h"

#define TIMEOUT 1000u
#define PAGE	4096u

static unsigned int open_fds(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* -- the other end */

static void peer_send(int to, const void *data, size_t size, unsigned int nr_fds)
{
	assert_int_equal(peer_send_fds(to, data, size, STDERR_FILENO, nr_fds), size);
}

static void peer_message(int to, uint32_t request, uint32_t flags, const void *payload, uint32_t size,
			 unsigned int nr_fds)
{
	uint8_t data[sizeof(struct vhu_header) + VHU_PAYLOAD_MAX];
	const struct vhu_header h = { request, flags, size };

	memcpy(data, &h, sizeof(h));
	if (size)
		memcpy(data + sizeof(h), payload, size);
	peer_send(to, data, sizeof(h) + size, nr_fds);
}

struct heard {
	struct vhu_header header;
	uint8_t payload[VHU_PAYLOAD_MAX];
	unsigned int nr_fds;
};

/* A whole message that must be there; its descriptors are counted and closed. */
static void peer_hear(int from, struct heard *m)
{
	char control[CMSG_SPACE(64 * sizeof(int))];
	struct iovec iov = { &m->header, sizeof(m->header) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};

	m->nr_fds = 0;
	assert_int_equal(recvmsg(from, &msg, MSG_DONTWAIT), sizeof(m->header));
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		m->nr_fds = (unsigned int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (unsigned int i = 0; i < m->nr_fds; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			close(fd);
		}
	}
	assert_true(m->header.size <= sizeof(m->payload));
	if (m->header.size)
		assert_int_equal(recv(from, m->payload, m->header.size, MSG_DONTWAIT), m->header.size);
}

static bool peer_idle(int from)
{
	char byte;

	return recv(from, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
}

static void reply_u64(int to, uint32_t request, uint64_t value)
{
	peer_message(to, request, VHU_VERSION | VHU_REPLY, &value, sizeof(value), 0);
}

/* -- messages */

/* Offsets by the specification, so that a structure that the compiler pads otherwise is found. */
static void structures(void **state)
{
	(void)state;
	assert_int_equal(sizeof(struct vhu_region), 32);
	assert_int_equal(offsetof(struct vhu_region, mmap_offset), 24);
	assert_int_equal(offsetof(struct vhu_mem_reg, region), 8);
	assert_int_equal(offsetof(struct vhu_mem_table, regions), 8);
	assert_int_equal(sizeof(struct vhu_mem_table), 8 + 8 * 32);
	assert_int_equal(sizeof(struct vhu_vring_state), 8);
	assert_int_equal(offsetof(struct vhu_vring_addr, desc), 8);
	assert_int_equal(offsetof(struct vhu_vring_addr, used), 16);
	assert_int_equal(offsetof(struct vhu_vring_addr, avail), 24);
	assert_int_equal(offsetof(struct vhu_vring_addr, log), 32);
	assert_int_equal(offsetof(struct vhu_config, data), 12);
	assert_int_equal(offsetof(struct vhu_inflight, queues), 16);
	assert_int_equal(offsetof(struct vhu_inflight, queue_size), 18);
	assert_int_equal(offsetof(struct vhu_shmem_config, sizes), 8);
	assert_int_equal(offsetof(struct vhu_mmap, fd_offset), 8);
	assert_int_equal(offsetof(struct vhu_mmap, shm_offset), 16);
	assert_int_equal(offsetof(struct vhu_mmap, length), 24);
	assert_int_equal(offsetof(struct vhu_mmap, flags), 32);
	assert_true(sizeof(struct vhu_mem_table) <= VHU_REQUEST_MAX && sizeof(struct vhu_config) <= VHU_REQUEST_MAX);
	assert_true(sizeof(struct vhu_shmem_config) <= VHU_PAYLOAD_MAX);
}

static int channel_pair(struct vhu_channel *c)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	vhu_channel_init(c, pair[0]);
	return pair[1];
}

static void receiving(void **state)
{
	const struct vhu_header h = { 7, VHU_VERSION | VHU_REPLY, 100 };
	uint8_t bytes[sizeof(h) + 100];
	unsigned int before = open_fds();
	struct vhu_channel c;
	const char *why = NULL;
	int peer = channel_pair(&c);

	(void)state;
	memcpy(bytes, &h, sizeof(h));
	for (unsigned int i = 0; i < 100; i++)
		bytes[sizeof(h) + i] = (uint8_t)i;
	assert_int_equal(vhu_channel_receive(&c, &why), 0);
	/* Byte by byte; descriptors come with any of them. */
	for (unsigned int i = 0; i < sizeof(bytes); i++) {
		assert_int_equal(vhu_channel_receive(&c, &why), 0);
		peer_send(peer, bytes + i, 1, i == 0 ? 2 : i == 50);
	}
	assert_int_equal(vhu_channel_receive(&c, &why), 1);
	assert_memory_equal(&c.in.header, &h, sizeof(h));
	assert_memory_equal(c.in.payload, bytes + sizeof(h), 100);
	assert_int_equal(c.in.nr_fds, 3);
	assert_false(c.in.surplus_fds);
	/* It stays until it is done with; then its descriptors go, but for those that were taken. */
	assert_int_equal(vhu_channel_receive(&c, &why), 1);
	close(c.in.fds[1]);
	c.in.fds[1] = -1;
	vhu_channel_done(&c);
	assert_int_equal(open_fds(), before + 2);
	/* Two in one piece are two. */
	peer_send(peer, bytes, sizeof(bytes), 0);
	peer_send(peer, bytes, sizeof(bytes), 0);
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(vhu_channel_receive(&c, &why), 1);
		vhu_channel_done(&c);
	}
	assert_int_equal(vhu_channel_receive(&c, &why), 0);
	/* More descriptors than anything has. */
	peer_send(peer, bytes, sizeof(bytes), 40);
	assert_int_equal(vhu_channel_receive(&c, &why), 1);
	assert_int_equal(c.in.nr_fds, VHU_FDS_MAX);
	assert_true(c.in.surplus_fds);
	vhu_channel_done(&c);
	assert_int_equal(open_fds(), before + 2);
	/* The end in the middle of one. */
	peer_send(peer, bytes, 20, 1);
	close(peer);
	assert_int_equal(vhu_channel_receive(&c, &why), -ECONNRESET);
	vhu_channel_close(&c);
	assert_int_equal(open_fds(), before);
}

static void bad_headers(void **state)
{
	static const struct vhu_header bad[] = {
		{ 1, 0, 0 },
		{ 1, 2, 0 },
		{ 1, 3, 0 },
		{ 1, VHU_REPLY, 8 },
		{ 1, VHU_VERSION, VHU_PAYLOAD_MAX + 1 },
		{ 1, VHU_VERSION, 0x80000000 },
		{ 1, VHU_VERSION, UINT32_MAX },
	};
	static const struct vhu_header good = { 1, VHU_VERSION, VHU_PAYLOAD_MAX };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct vhu_channel c;
		const char *why = NULL;
		int peer = channel_pair(&c);

		peer_send(peer, &bad[i], sizeof(bad[i]), 1);
		assert_int_equal(vhu_channel_receive(&c, &why), -EPROTO);
		assert_non_null(why);
		vhu_channel_close(&c);
		vhu_channel_init(&c, peer);
		vhu_channel_close(&c);
	}
	{
		struct vhu_channel c;
		const char *why = NULL;
		int peer = channel_pair(&c);

		peer_send(peer, &good, sizeof(good), 0);
		assert_int_equal(vhu_channel_receive(&c, &why), 0);
		close(peer);
		vhu_channel_close(&c);
	}
}

/* A peer that reads slowly: what is left waits, and the descriptor goes once. */
static void sending(void **state)
{
	static uint8_t payload[VHU_PAYLOAD_MAX];
	const struct vhu_header h = { 24, VHU_VERSION, sizeof(payload) };
	unsigned int sent = 0, heard = 0, before = open_fds();
	struct vhu_channel c;
	int peer = channel_pair(&c), ret = 0, small = 4096;

	(void)state;
	assert_int_equal(setsockopt(c.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	for (unsigned int i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)(i * 7);
	while (!ret && sent < 1000) {
		ret = vhu_channel_send(&c, &h, payload, &peer, 1);
		sent++;
	}
	assert_int_equal(ret, -EAGAIN);
	assert_true(vhu_channel_sending(&c));
	assert_int_equal(vhu_channel_flush(&c), -EAGAIN);
	while (heard < sent) {
		struct heard m;
		size_t got = 0;

		assert_true(recv(peer, &m, 0, MSG_DONTWAIT) == 0);
		/* In pieces, since the last one may not be whole yet. */
		while (got < sizeof(h) + sizeof(payload)) {
			ssize_t n = recv(peer, (uint8_t *)&m + got, sizeof(h) + sizeof(payload) - got, MSG_DONTWAIT);

			if (n < 0)
				vhu_channel_flush(&c);
			else
				got += (size_t)n;
		}
		assert_memory_equal(&m.header, &h, sizeof(h));
		assert_memory_equal(m.payload, payload, sizeof(payload));
		heard++;
	}
	assert_false(vhu_channel_sending(&c));
	assert_int_equal(vhu_channel_flush(&c), 0);
	assert_true(peer_idle(peer));
	close(peer);
	assert_true(vhu_channel_send(&c, &h, payload, NULL, 0) < 0);
	vhu_channel_close(&c);
	assert_int_equal(open_fds(), before);
}

/* -- the link */

struct done {
	unsigned int count, order[32];
	int status[32];
	uint64_t value[32];
	struct vhu_link *link;
};

static void on_done(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct done *d = opaque;

	assert_true(d->count < 32);
	d->order[d->count] = call->index;
	d->status[d->count] = status;
	d->value[d->count] = 0;
	if (reply && reply->header.size >= 8)
		memcpy(&d->value[d->count], reply->payload, 8);
	d->count++;
}

static int link_begin(struct vhu_link *link, struct done *d, bool reply_ack)
{
	int pair[2];

	memset(d, 0, sizeof(*d));
	d->link = link;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	vhu_link_init(link, d, TIMEOUT);
	vhu_link_start(link, pair[0]);
	link->reply_ack = reply_ack;
	return pair[1];
}

static struct vhu_call *call(struct vhu_link *link, uint32_t request, unsigned int index, uint32_t reply)
{
	uint64_t value = index;
	struct vhu_call *c = vhu_link_call(link, request, &value, request ? sizeof(value) : 0);

	c->index = index;
	c->reply_min = c->reply_max = reply;
	c->done = on_done;
	return c;
}

static void link_order(void **state)
{
	struct vhu_link link;
	struct heard m;
	struct done d;
	int peer = link_begin(&link, &d, true);

	(void)state;
	call(&link, VHU_GET_FEATURES, 1, 8);
	call(&link, VHU_SET_OWNER, 2, 0);
	call(&link, 0, 3, 0);
	call(&link, VHU_SET_FEATURES, 4, 0)->plain = true;
	call(&link, VHU_SET_VRING_NUM, 5, 0)->may_fail = true;
	assert_int_equal(vhu_link_run(&link, 100), POLLIN);
	assert_int_equal(link.deadline, 100 + TIMEOUT);
	/* One under way. A request with a reply of its own asks for no other. */
	peer_hear(peer, &m);
	assert_int_equal(m.header.request, VHU_GET_FEATURES);
	assert_int_equal(m.header.flags, VHU_VERSION);
	assert_true(peer_idle(peer));
	reply_u64(peer, VHU_GET_FEATURES, 77);
	vhu_link_run(&link, 200);
	assert_int_equal(d.count, 1);
	assert_int_equal(d.value[0], 77);
	assert_int_equal(link.deadline, 200 + TIMEOUT);
	peer_hear(peer, &m);
	assert_int_equal(m.header.request, VHU_SET_OWNER);
	assert_int_equal(m.header.flags, VHU_VERSION | VHU_NEED_REPLY);
	reply_u64(peer, VHU_SET_OWNER, 0);
	vhu_link_run(&link, 300);
	/* The step, and one that nobody answers, go by. */
	assert_int_equal(d.count, 4);
	peer_hear(peer, &m);
	assert_int_equal(m.header.request, VHU_SET_FEATURES);
	assert_int_equal(m.header.flags, VHU_VERSION);
	peer_hear(peer, &m);
	assert_int_equal(m.header.request, VHU_SET_VRING_NUM);
	reply_u64(peer, VHU_SET_VRING_NUM, 1);
	vhu_link_run(&link, 400);
	assert_int_equal(d.count, 5);
	for (unsigned int i = 0; i < 5; i++) {
		assert_int_equal(d.order[i], i + 1);
		assert_int_equal(d.status[i], i == 4 ? -EREMOTEIO : 0);
	}
	assert_true(link.alive);
	assert_int_equal(link.deadline, 0);
	vhu_link_stop(&link, "the end");
	close(peer);
}

/* What a function asks for comes before the rest. */
static void inner(void *opaque, const struct vhu_call *c, struct vhu_message *reply, int status)
{
	struct done *d = opaque;

	on_done(opaque, c, reply, status);
	if (status)
		return;
	call(d->link, 0, 2, 0);
	call(d->link, VHU_SET_OWNER, 3, 0);
	call(d->link, 0, 4, 0);
	/* It goes on when this has returned. */
	assert_int_equal(vhu_link_run(d->link, 0), POLLIN);
	assert_int_equal(d->count, 1);
}

static void link_steps(void **state)
{
	struct vhu_link link;
	struct done d;
	int peer = link_begin(&link, &d, false);

	(void)state;
	call(&link, 0, 1, 0)->done = inner;
	call(&link, 0, 5, 0);
	vhu_link_run(&link, 0);
	assert_int_equal(d.count, 5);
	for (unsigned int i = 0; i < 5; i++)
		assert_int_equal(d.order[i], i + 1);
	vhu_link_stop(&link, "the end");
	close(peer);
}

static void no_reply(int peer)
{
	(void)peer;
}

static void hang_up(int peer)
{
	shutdown(peer, SHUT_RDWR);
}

static void other_request(int peer)
{
	reply_u64(peer, VHU_SET_OWNER, 0);
}

static void no_reply_bit(int peer)
{
	const uint64_t zero = 0;

	peer_message(peer, VHU_GET_FEATURES, VHU_VERSION, &zero, 8, 0);
}

static void other_version(int peer)
{
	const uint64_t zero = 0;

	peer_message(peer, VHU_GET_FEATURES, VHU_REPLY | 2, &zero, 8, 0);
}

static void too_short(int peer)
{
	peer_message(peer, VHU_GET_FEATURES, VHU_VERSION | VHU_REPLY, "1234567", 7, 3);
}

static void too_long(int peer)
{
	peer_message(peer, VHU_GET_FEATURES, VHU_VERSION | VHU_REPLY, "123456789", 9, 0);
}

static void huge(int peer)
{
	const struct vhu_header h = { VHU_GET_FEATURES, VHU_VERSION | VHU_REPLY, 0x80000000 };

	peer_send(peer, &h, sizeof(h), 0);
}

static void empty(int peer)
{
	peer_message(peer, VHU_GET_FEATURES, VHU_VERSION | VHU_REPLY, NULL, 0, 0);
}

/* Everything in the queue is told, and every descriptor closed. */
static void link_deaths(void **state)
{
	static const struct {
		void (*act)(int peer);
		const char *why;
	} deaths[] = {
		{ no_reply, "GET_FEATURES: the back-end does not reply" },
		{ hang_up, "GET_FEATURES: the back-end closed the connection" },
		{ other_request, "GET_FEATURES: the reply is not one to it" },
		{ no_reply_bit, "GET_FEATURES: the reply is not one to it" },
		{ other_version, "GET_FEATURES: the reply is not one to it" },
		{ too_short, "GET_FEATURES: the reply has 7 bytes" },
		{ too_long, "GET_FEATURES: the reply has 9 bytes" },
		{ huge, "GET_FEATURES: the reply has 2147483648 bytes" },
		{ empty, "GET_FEATURES: the reply has 0 bytes" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(deaths) / sizeof(deaths[0]); i++) {
		unsigned int before = open_fds();
		struct vhu_link link;
		struct vhu_call *c;
		struct heard m;
		struct done d;
		int peer = link_begin(&link, &d, true);

		call(&link, VHU_GET_FEATURES, 1, 8);
		c = call(&link, VHU_SET_BACKEND_REQ_FD, 2, 0);
		c->fds[0] = dup(peer);
		c->nr_fds = 1;
		c->owns_fd = true;
		call(&link, 0, 3, 0)->done = inner; /* which must not ask for more */
		vhu_link_run(&link, 0);
		peer_hear(peer, &m);
		deaths[i].act(peer);
		assert_int_equal(vhu_link_run(&link, TIMEOUT - 1) != 0, deaths[i].act == no_reply);
		assert_int_equal(vhu_link_run(&link, TIMEOUT), 0);
		assert_string_equal(link.why, deaths[i].why);
		assert_int_equal(d.count, 3);
		for (unsigned int n = 0; n < 3; n++)
			assert_int_equal(d.status[n], -EIO);
		/* So is what comes later. */
		call(&link, VHU_SET_OWNER, 4, 0);
		assert_int_equal(vhu_link_run(&link, TIMEOUT), 0);
		assert_int_equal(d.count, 4);
		assert_int_equal(d.status[3], -EIO);
		close(peer);
		assert_int_equal(open_fds(), before);
	}
}

static void link_more_deaths(void **state)
{
	struct vhu_link link;
	struct heard m;
	struct done d;
	int peer = link_begin(&link, &d, true);

	(void)state;
	/* A refusal that may not be. */
	call(&link, VHU_SET_MEM_TABLE, 1, 0);
	vhu_link_run(&link, 0);
	peer_hear(peer, &m);
	reply_u64(peer, VHU_SET_MEM_TABLE, 5);
	assert_int_equal(vhu_link_run(&link, 1), 0);
	assert_string_equal(link.why, "SET_MEM_TABLE: the back-end refuses (error 5)");
	close(peer);
	/* A word that nobody has asked for; what comes after an answer is as bad. */
	peer = link_begin(&link, &d, true);
	reply_u64(peer, VHU_GET_FEATURES, 1);
	assert_int_equal(vhu_link_run(&link, 0), 0);
	assert_string_equal(link.why, "the back-end says what nobody asked for");
	close(peer);
	/* The end while nothing is under way. */
	peer = link_begin(&link, &d, true);
	assert_int_equal(vhu_link_run(&link, 0), POLLIN);
	close(peer);
	assert_int_equal(vhu_link_run(&link, 0), 0);
	assert_string_equal(link.why, "the back-end closed the connection");
	/* A connection again: nothing of the old one is left. */
	peer = link_begin(&link, &d, false);
	call(&link, VHU_GET_FEATURES, 1, 8);
	vhu_link_run(&link, 0);
	peer_hear(peer, &m);
	reply_u64(peer, VHU_GET_FEATURES, 9);
	vhu_link_run(&link, 0);
	assert_int_equal(d.count, 1);
	assert_int_equal(d.status[0], 0);
	vhu_link_stop(&link, "the end");
	close(peer);
}

/* -- setting up */

struct script {
	uint64_t features, protocol, queues, slots;
	uint32_t config_max; /* more is refused by an empty reply */
	struct vhu_shmem_config shmem;
	unsigned int heard[VHU_REQUESTS], nr_order;
	uint32_t order[64];
	uint64_t protocol_acked;
};

static bool wants_answer(const struct heard *m)
{
	return m->header.flags & VHU_NEED_REPLY;
}

static void answer_config(int peer, const struct script *s, const struct heard *m)
{
	struct vhu_config c;

	memcpy(&c, m->payload, offsetof(struct vhu_config, data));
	memset(c.data, 0x5a, sizeof(c.data));
	peer_message(peer, VHU_GET_CONFIG, VHU_VERSION | VHU_REPLY, &c, c.size <= s->config_max ? m->header.size : 0,
		     0);
}

static void answer(int peer, struct script *s, const struct heard *m)
{
	assert_true(m->header.request < VHU_REQUESTS && s->nr_order < 64);
	s->heard[m->header.request]++;
	s->order[s->nr_order++] = m->header.request;
	switch (m->header.request) {
	case VHU_GET_FEATURES:
		reply_u64(peer, VHU_GET_FEATURES, s->features);
		break;
	case VHU_GET_PROTOCOL_FEATURES:
		reply_u64(peer, VHU_GET_PROTOCOL_FEATURES, s->protocol);
		break;
	case VHU_SET_PROTOCOL_FEATURES:
		assert_false(wants_answer(m));
		memcpy(&s->protocol_acked, m->payload, 8);
		break;
	case VHU_GET_QUEUE_NUM:
		reply_u64(peer, VHU_GET_QUEUE_NUM, s->queues);
		break;
	case VHU_GET_MAX_MEM_SLOTS:
		reply_u64(peer, VHU_GET_MAX_MEM_SLOTS, s->slots);
		break;
	case VHU_GET_SHMEM_CONFIG:
		peer_message(peer, VHU_GET_SHMEM_CONFIG, VHU_VERSION | VHU_REPLY, &s->shmem, sizeof(s->shmem), 0);
		break;
	case VHU_GET_CONFIG:
		answer_config(peer, s, m);
		break;
	default:
		assert_int_equal(wants_answer(m), s->protocol_acked >> VHU_PF_REPLY_ACK & 1);
		if (m->header.request == VHU_SET_BACKEND_REQ_FD)
			assert_int_equal(m->nr_fds, 1);
		if (wants_answer(m))
			reply_u64(peer, m->header.request, 0);
	}
}

static void attach(struct script *s, struct vhu_info *info, struct vhu_link *link, struct vhu_attach *a)
{
	struct vhu_backend backend = { 0 };
	struct heard m;
	struct done d;
	int peer = link_begin(link, &d, false);

	vhu_channel_init(&backend.channel, -1);
	a->link = link;
	a->info = info;
	a->backend = &backend;
	vhu_attach_begin(a);
	while (vhu_link_run(link, 0) && !a->done) {
		peer_hear(peer, &m);
		answer(peer, s, &m);
	}
	/* What nobody waits for is there already. */
	while (a->done && !peer_idle(peer)) {
		peer_hear(peer, &m);
		answer(peer, s, &m);
	}
	if (a->done) {
		assert_int_equal(backend.channel.fd >= 0, s->heard[VHU_SET_BACKEND_REQ_FD] == 1);
		assert_int_equal(backend.reply_ack,
				 backend.channel.fd >= 0 && (s->protocol_acked >> VHU_PF_REPLY_ACK & 1));
	}
	vhu_channel_close(&backend.channel);
	vhu_link_stop(link, "the end");
	close(peer);
}

#define EVERYTHING                                                                                                     \
	{                                                                                                              \
		.features = 1ULL << 32 | 1ULL << 30, .protocol = UINT64_MAX, .queues = 3, .slots = 7,                  \
		.config_max = 256, .shmem = { .count = 2, .sizes = { [1] = PAGE, [255] = 3 * PAGE } },                 \
	}

static void attach_all(void **state)
{
	static const uint32_t order[] = { 1, 15, 16, 3, 17, 36, 21, 44, 24 };
	struct script s = EVERYTHING;
	struct vhu_attach a = { .config_size = 60 };
	unsigned int before = open_fds();
	struct vhu_link link;
	struct vhu_info info;

	(void)state;
	attach(&s, &info, &link, &a);
	assert_true(a.done);
	assert_int_equal(s.nr_order, sizeof(order) / sizeof(order[0]));
	assert_memory_equal(s.order, order, sizeof(order));
	/* 0 3 5 9 10 12 13 15 16 22: in-band notifications only where they are wanted, and never 21. */
	assert_int_equal(s.protocol_acked, 0x41b629);
	assert_int_equal(info.protocol, 0x41b629);
	assert_int_equal(info.offered, UINT64_MAX);
	assert_int_equal(info.queues, 3);
	assert_int_equal(info.slots, 7);
	assert_int_equal(info.config_size, 60);
	assert_false(info.config_bad);
	assert_int_equal(info.config[59], 0x5a);
	assert_int_equal(info.config[60], 0);
	assert_int_equal(info.shmem.nr_regions, 2);
	assert_int_equal(info.shmem.regions[1].id, 255);
	assert_int_equal(info.shmem.regions[1].offset, PAGE);
	assert_int_equal(info.shmem.regions[1].length, 3 * PAGE);
	assert_int_equal(open_fds(), before);
}

static void attach_less(void **state)
{
	static const struct {
		uint64_t without, acked;
	} cases[] = {
		{ 1 << 5, 0x41b629 & ~(1u << 5 | 1u << 10 | 1u << 22) }, /* no channel: nothing that goes by it */
		{ 1 << 3, 0x41b629 & ~(1u << 3) },
		{ 1 << 10, 0x41b629 & ~(1u << 10 | 1u << 22) }, /* nothing to map */
		{ 1 << 22, 0x41b629 & ~(1u << 22) },		/* 21 is there, and not taken for it */
		{ UINT64_MAX, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct script s = EVERYTHING;
		struct vhu_attach a = { .config_size = 8 };
		struct vhu_link link;
		struct vhu_info info;

		s.protocol &= ~cases[i].without;
		attach(&s, &info, &link, &a);
		assert_true(a.done);
		assert_int_equal(s.protocol_acked, cases[i].acked);
		assert_int_equal(s.heard[VHU_GET_SHMEM_CONFIG], cases[i].acked >> 22 & 1);
		assert_int_equal(s.heard[VHU_GET_QUEUE_NUM], cases[i].acked & 1);
	}
	/* In-band notifications go by the channel, and have to be answered. */
	for (unsigned int i = 0; i < 3; i++) {
		struct script s = EVERYTHING;
		struct vhu_attach a = { .inband = true };
		struct vhu_link link;
		struct vhu_info info;

		s.protocol &= i == 1 ? ~(1ULL << 3) : i == 2 ? ~(1ULL << 5) : UINT64_MAX;
		attach(&s, &info, &link, &a);
		assert_int_equal(s.protocol_acked >> VHU_PF_INBAND_NOTIFICATIONS & 1, i == 0);
		assert_int_equal(s.heard[VHU_GET_CONFIG], 0);
	}
	/* Without protocol features there is the owner, and that is all. */
	{
		struct script s = EVERYTHING;
		struct vhu_attach a = { .config_size = 8 };
		struct vhu_link link;
		struct vhu_info info;

		s.features = 1ULL << 32;
		attach(&s, &info, &link, &a);
		assert_true(a.done);
		assert_int_equal(s.nr_order, 2);
		assert_int_equal(s.order[1], VHU_SET_OWNER);
	}
}

static void attach_refused(void **state)
{
	struct vhu_link link;
	struct vhu_info info;

	(void)state;
	{
		struct script s = EVERYTHING;
		struct vhu_attach a = { 0 };

		s.features = 1ULL << 30;
		attach(&s, &info, &link, &a);
		assert_false(a.done);
		assert_string_equal(link.why, "the back-end knows only legacy virtio");
	}
	{
		struct script s = EVERYTHING;
		struct vhu_attach a = { 0 };

		s.queues = 0;
		attach(&s, &info, &link, &a);
		assert_false(a.done);
		assert_string_equal(link.why, "GET_QUEUE_NUM: 0 queues");
	}
	{
		struct script s = EVERYTHING;
		struct vhu_attach a = { 0 };

		s.shmem.count = 3;
		attach(&s, &info, &link, &a);
		assert_false(a.done);
		assert_string_equal(link.why, "GET_SHMEM_CONFIG: the number of regions is not that of the sizes");
	}
}

/* How much configuration there is only the back-end knows: half is asked for until it answers. */
static void attach_probe(void **state)
{
	static const struct {
		uint32_t has, found;
		bool bad;
	} cases[] = { { 256, 256, false }, { 255, 128, false }, { 60, 32, false }, { 4, 4, false }, { 3, 4, true } };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct script s = EVERYTHING;
		struct vhu_attach a = { .config_size = 256, .config_probe = true };
		struct vhu_link link;
		struct vhu_info info;

		s.config_max = cases[i].has;
		attach(&s, &info, &link, &a);
		assert_true(a.done);
		assert_int_equal(info.config_size, cases[i].found);
		assert_int_equal(info.config_bad, cases[i].bad);
	}
}

static void config_replies(void **state)
{
	struct vhu_message m = { .header = { VHU_GET_CONFIG, VHU_VERSION | VHU_REPLY, 12 + 8 } };
	struct vhu_config c = { .offset = 0, .size = 8, .data = "abcdefgh" };
	uint8_t config[VHU_CONFIG_MAX] = { 0 };

	(void)state;
	memcpy(m.payload, &c, 20);
	assert_true(vhu_attach_config(&m, 8, config));
	assert_memory_equal(config, "abcdefgh", 8);
	assert_false(vhu_attach_config(&m, 7, config));
	assert_false(vhu_attach_config(&m, 9, config));
	c.size = 7;
	memcpy(m.payload, &c, 20);
	assert_false(vhu_attach_config(&m, 8, config));
	c.size = 8;
	c.offset = 1;
	memcpy(m.payload, &c, 20);
	assert_false(vhu_attach_config(&m, 8, config));
	m.header.size = 0;
	assert_false(vhu_attach_config(&m, 8, config));
}

/* -- what a back-end asks */

struct asked {
	unsigned int changes, calls, errors, maps, unmaps, refused;
	char why[100];
};

static void on_change(void *opaque)
{
	((struct asked *)opaque)->changes++;
}

static int on_call(void *opaque, uint32_t queue)
{
	((struct asked *)opaque)->calls++;
	return queue < 4 ? 0 : -EINVAL;
}

static int on_error(void *opaque, uint32_t queue)
{
	((struct asked *)opaque)->errors++;
	return queue < 4 ? 0 : -EINVAL;
}

static int on_map(void *opaque, const struct vhu_mmap *m, int fd, const char **why)
{
	((struct asked *)opaque)->maps++;
	assert_true(fcntl(fd, F_GETFD) >= 0);
	*why = "no";
	return m->shmid == 7 ? 0 : -EINVAL;
}

static int on_unmap(void *opaque, const struct vhu_mmap *m, const char **why)
{
	((struct asked *)opaque)->unmaps++;
	*why = "no";
	return m->shmid == 7 ? 0 : -EINVAL;
}

static void on_refused(void *opaque, bool unmap, const char *why)
{
	struct asked *a = opaque;

	(void)unmap;
	a->refused++;
	snprintf(a->why, sizeof(a->why), "%s", why);
}

static const struct vhu_backend_ops backend_ops = { on_change, on_call, on_error, on_map, on_unmap, on_refused };

static int backend_begin(struct vhu_backend *b, struct asked *asked)
{
	memset(asked, 0, sizeof(*asked));
	b->ops = &backend_ops;
	b->opaque = asked;
	b->reply_ack = true;
	return channel_pair(&b->channel);
}

static void backend_table(void **state)
{
	const struct vhu_mmap good = { .shmid = 7, .length = PAGE }, other = { .shmid = 8, .length = PAGE };
	const struct vhu_vring_state queue = { 3, 0 }, no_queue = { 4, 0 };
	const struct {
		uint32_t request;
		const void *payload;
		uint32_t size;
		unsigned int nr_fds;
		uint64_t answer;
		bool reaches;
	} table[] = {
		{ VHU_BACKEND_SHMEM_MAP, &good, 40, 1, 0, true },
		{ VHU_BACKEND_SHMEM_MAP, &other, 40, 1, 1, true },
		{ VHU_BACKEND_SHMEM_MAP, &good, 40, 0, 1, false },
		{ VHU_BACKEND_SHMEM_MAP, &good, 40, 2, 1, false },
		{ VHU_BACKEND_SHMEM_MAP, &good, 40, 30, 1, false },
		{ VHU_BACKEND_SHMEM_MAP, &good, 39, 1, 1, false },
		{ VHU_BACKEND_SHMEM_MAP, NULL, 0, 1, 1, false },
		{ VHU_BACKEND_SHMEM_UNMAP, &good, 40, 0, 0, true },
		{ VHU_BACKEND_SHMEM_UNMAP, &other, 40, 0, 1, true },
		{ VHU_BACKEND_SHMEM_UNMAP, &good, 40, 1, 1, false },
		{ VHU_BACKEND_SHMEM_UNMAP, &good, 32, 0, 1, false },
		{ VHU_BACKEND_CONFIG_CHANGE, NULL, 0, 0, 0, true },
		{ VHU_BACKEND_CONFIG_CHANGE, &queue, 8, 0, 1, false },
		{ VHU_BACKEND_CONFIG_CHANGE, NULL, 0, 1, 1, false },
		{ VHU_BACKEND_VRING_CALL, &queue, 8, 0, 0, true },
		{ VHU_BACKEND_VRING_CALL, &no_queue, 8, 0, 1, true },
		{ VHU_BACKEND_VRING_CALL, &queue, 4, 0, 1, false },
		{ VHU_BACKEND_VRING_CALL, &queue, 8, 1, 1, false },
		{ VHU_BACKEND_VRING_ERR, &queue, 8, 0, 0, true },
		{ VHU_BACKEND_VRING_ERR, &no_queue, 8, 0, 1, true },
		{ 0, NULL, 0, 0, 1, false },
		{ 3, &queue, 8, 1, 1, false },
		{ 8, &queue, 8, 0, 1, false },
		{ UINT32_MAX, &good, 40, 5, 1, false },
	};
	unsigned int before = open_fds();
	struct vhu_backend b;
	struct asked asked;
	const char *why = NULL;
	int peer = backend_begin(&b, &asked);

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		unsigned int count;
		struct heard m;
		uint64_t value;

		memset(&asked, 0, sizeof(asked));
		for (unsigned int wanted = 0; wanted < 2; wanted++) {
			peer_message(peer, table[i].request, VHU_VERSION | (wanted ? VHU_NEED_REPLY : 0),
				     table[i].payload, table[i].size, table[i].nr_fds);
			assert_int_equal(vhu_backend_serve(&b, 10, &why), POLLIN);
			assert_int_equal(peer_idle(peer), !wanted);
		}
		peer_hear(peer, &m);
		assert_int_equal(m.header.request, table[i].request);
		assert_int_equal(m.header.flags, VHU_VERSION | VHU_REPLY);
		assert_int_equal(m.header.size, 8);
		memcpy(&value, m.payload, 8);
		assert_int_equal(value, table[i].answer);
		count = asked.changes + asked.calls + asked.errors + asked.maps + asked.unmaps;
		assert_int_equal(count, table[i].reaches ? 2 : 0);
		assert_int_equal(asked.refused,
				 (table[i].request == 9 || table[i].request == 10) && table[i].answer ? 2 : 0);
		assert_int_equal(open_fds(), before + 2);
	}
	/* Acknowledgements that were not negotiated do not come. */
	b.reply_ack = false;
	peer_message(peer, 99, VHU_VERSION | VHU_NEED_REPLY, NULL, 0, 0);
	assert_int_equal(vhu_backend_serve(&b, 10, &why), POLLIN);
	assert_true(peer_idle(peer));
	close(peer);
	assert_int_equal(vhu_backend_serve(&b, 10, &why), -ECONNRESET);
	vhu_channel_close(&b.channel);
}

/* One that asks and asks and does not read what it is told: no more than a share at a time, and then nothing. */
static void backend_flood(void **state)
{
	struct vhu_backend b;
	struct asked asked;
	const char *why = NULL;
	int peer = backend_begin(&b, &asked), small = 4096, events = 0;
	const struct vhu_header h = { VHU_BACKEND_CONFIG_CHANGE, VHU_VERSION | VHU_NEED_REPLY, 0 };
	unsigned int heard = 0, sent = 0;
	struct heard m;

	(void)state;
	for (unsigned int i = 0; i < 100; i++)
		peer_send(peer, &h, sizeof(h), 0);
	assert_int_equal(vhu_backend_serve(&b, 64, &why), POLLIN);
	assert_int_equal(asked.changes, 64);
	assert_int_equal(setsockopt(b.channel.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	while (events != POLLOUT) {
		sent += send(peer, &h, sizeof(h), MSG_DONTWAIT) == sizeof(h);
		events = vhu_backend_serve(&b, 1, &why);
		assert_true(events > 0 && sent < 100000);
	}
	assert_int_equal(vhu_backend_serve(&b, 64, &why), POLLOUT);
	sent = asked.changes;
	while (heard < sent) {
		peer_hear(peer, &m);
		heard++;
		events = vhu_backend_serve(&b, 0, &why);
		if (heard == sent - 1)
			assert_true(events > 0 && vhu_channel_flush(&b.channel) == 0);
	}
	close(peer);
	vhu_channel_close(&b.channel);
}

static void backend_broken(void **state)
{
	static const struct vhu_header bad[] = {
		{ 9, VHU_NEED_REPLY, 40 },
		{ 9, VHU_NEED_REPLY | 2, 40 },
		{ 9, VHU_VERSION, 0x80000000 },
		{ 9, VHU_VERSION | VHU_REPLY, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct vhu_backend b;
		struct asked asked;
		const char *why = NULL;
		int peer = backend_begin(&b, &asked);

		peer_send(peer, &bad[i], sizeof(bad[i]), 1);
		assert_int_equal(vhu_backend_serve(&b, 10, &why), -EPROTO);
		assert_non_null(why);
		assert_int_equal(asked.refused, 0);
		vhu_channel_close(&b.channel);
		close(peer);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(structures),	  cmocka_unit_test(receiving),	      cmocka_unit_test(bad_headers),
		cmocka_unit_test(sending),	  cmocka_unit_test(link_order),	      cmocka_unit_test(link_steps),
		cmocka_unit_test(link_deaths),	  cmocka_unit_test(link_more_deaths), cmocka_unit_test(attach_all),
		cmocka_unit_test(attach_less),	  cmocka_unit_test(attach_refused),   cmocka_unit_test(attach_probe),
		cmocka_unit_test(config_replies), cmocka_unit_test(backend_table),    cmocka_unit_test(backend_flood),
		cmocka_unit_test(backend_broken),
	};

	return cmocka_run_group_tests_name("vhost_user", tests, NULL, NULL);
}
