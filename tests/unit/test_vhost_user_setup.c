/* SPDX-License-Identifier: MIT */
/* The set-up of a vhost-user connection, and what a back-end asks. */
#include "vhost_user_fake.h"

#include "devices/vhost-user/attach.h"
#include "devices/vhost-user/backend.h"

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
		cmocka_unit_test(attach_all),	 cmocka_unit_test(attach_less),	   cmocka_unit_test(attach_refused),
		cmocka_unit_test(attach_probe),	 cmocka_unit_test(config_replies), cmocka_unit_test(backend_table),
		cmocka_unit_test(backend_flood), cmocka_unit_test(backend_broken),
	};

	return cmocka_run_group_tests_name("vhost_user_setup", tests, NULL, NULL);
}
