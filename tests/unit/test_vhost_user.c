/* SPDX-License-Identifier: MIT */
/* Messages and descriptors of vhost-user on a socket, and requests with their deadlines. */
#include "vhost_user_fake.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(structures),  cmocka_unit_test(receiving),	   cmocka_unit_test(bad_headers),
		cmocka_unit_test(sending),     cmocka_unit_test(link_order),	   cmocka_unit_test(link_steps),
		cmocka_unit_test(link_deaths), cmocka_unit_test(link_more_deaths),
	};

	return cmocka_run_group_tests_name("vhost_user", tests, NULL, NULL);
}
