/* SPDX-License-Identifier: MIT */
/* ivshmem: the client's protocol, the table of peers, and the server's state, all without sockets and KVM. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "devices/ivshmem/ivshmem.h"
#include "devices/ivshmem/peers.h"
#include "devices/ivshmem/protocol.h"
#include "devices/ivshmem/server.h"

#define PEERS 64

/* What a client has been told. */
struct view {
	struct ivshmem_protocol protocol;
	unsigned int memory, own, vectors[PEERS], gone, lost;
};

static void take_fd(struct view *v, int fd)
{
	if (fd < 0)
		v->lost++;
	else
		assert_int_equal(close(fd), 0);
}

static void on_memory(void *opaque, int fd)
{
	struct view *v = opaque;

	v->memory++;
	take_fd(v, fd);
}

static void on_vector(void *opaque, int fd)
{
	struct view *v = opaque;

	v->own++;
	take_fd(v, fd);
}

static void on_doorbell(void *opaque, unsigned int peer, int fd)
{
	struct view *v = opaque;

	assert_true(peer < PEERS);
	v->vectors[peer]++;
	take_fd(v, fd);
}

static void on_gone(void *opaque, unsigned int peer)
{
	struct view *v = opaque;

	assert_true(peer < PEERS);
	v->vectors[peer] = 0;
	v->gone++;
}

static const struct ivshmem_protocol_ops ops = { on_memory, on_vector, on_doorbell, on_gone };

static unsigned int open_fds(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 4096; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void begin(struct view *v)
{
	memset(v, 0, sizeof(*v));
	ivshmem_protocol_init(&v->protocol, &ops, v);
}

static int feed(struct view *v, int64_t value, bool with_fd)
{
	uint64_t wire = htole64((uint64_t)value);
	int fd = with_fd ? eventfd(0, 0) : -1;

	return ivshmem_protocol_feed(&v->protocol, &wire, 8, &fd, with_fd, false);
}

static void greet(struct view *v, int id)
{
	begin(v);
	assert_int_equal(feed(v, 0, false), 0);
	assert_int_equal(feed(v, id, false), 0);
	assert_int_equal(feed(v, -1, true), 0);
	assert_int_equal(v->protocol.id, id);
	assert_int_equal(v->memory, 1);
}

static void protocol_good(void **state)
{
	unsigned int fds = open_fds();
	struct view v;

	(void)state;
	greet(&v, 3);
	for (int i = 0; i < 2; i++)
		assert_int_equal(feed(&v, 7, true), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(feed(&v, 3, true), 0);
	assert_int_equal(v.vectors[7], 2);
	assert_int_equal(v.own, 2);
	assert_int_equal(feed(&v, 7, false), 0);
	assert_int_equal(v.vectors[7], 0);
	assert_int_equal(feed(&v, 7, true), 0); /* the id comes back */
	assert_int_equal(v.vectors[7], 1);
	ivshmem_protocol_fini(&v.protocol);
	assert_int_equal(open_fds(), fds);
}

/* Vectors and peers before the memory, which QEMU does not survive. */
static void protocol_order(void **state)
{
	struct view v;

	(void)state;
	begin(&v);
	assert_int_equal(feed(&v, 0, false), 0);
	assert_int_equal(feed(&v, 0, false), 0); /* id 0 */
	assert_int_equal(feed(&v, 0, true), 0);
	assert_int_equal(feed(&v, 5, true), 0);
	assert_int_equal(feed(&v, 5, false), 0);
	assert_int_equal(feed(&v, 9, false), 0); /* never was there */
	assert_int_equal(feed(&v, 0, false), 0); /* we, who have not left */
	assert_int_equal(v.own, 1);
	assert_int_equal(v.gone, 2);
	assert_int_equal(v.protocol.ignored, 1);
	assert_int_equal(v.memory, 0);
	assert_int_equal(feed(&v, -1, true), 0);
	assert_int_equal(feed(&v, -1, true), 0); /* twice: the first counts */
	assert_int_equal(v.memory, 1);
	assert_int_equal(v.protocol.ignored, 2);
	ivshmem_protocol_fini(&v.protocol);
}

static void refused(const int64_t *values, const bool *with_fd, unsigned int count)
{
	unsigned int fds = open_fds();
	struct view v;
	int ret = 0;

	begin(&v);
	for (unsigned int i = 0; i < count; i++) {
		assert_int_equal(ret, 0);
		ret = feed(&v, values[i], with_fd[i]);
	}
	assert_int_equal(ret, -EPROTO);
	assert_true(v.protocol.error[0]);
	ivshmem_protocol_fini(&v.protocol);
	assert_int_equal(open_fds(), fds);
}

#define REFUSED(n, ...)                                                                                                \
	do {                                                                                                           \
		const struct {                                                                                         \
			int64_t values[n];                                                                             \
			bool fds[n];                                                                                   \
		} r = { __VA_ARGS__ };                                                                                 \
		refused(r.values, r.fds, n);                                                                           \
	} while (0)

static void protocol_nonsense(void **state)
{
	(void)state;
	REFUSED(1, { 1 }, { false });
	REFUSED(1, { -1 }, { false });
	REFUSED(1, { INT64_MIN }, { false });
	REFUSED(1, { 0 }, { true }); /* the version with a descriptor */
	REFUSED(2, { 0, -1 }, { false, false });
	REFUSED(2, { 0, 65536 }, { false, false });
	REFUSED(2, { 0, 1LL << 32 }, { false, false });
	REFUSED(2, { 0, 4 }, { false, true });
	REFUSED(3, { 0, 4, -1 }, { false, false, false });
	REFUSED(3, { 0, 4, -2 }, { false, false, true });
	REFUSED(3, { 0, 4, 65536 }, { false, false, true });
	REFUSED(4, { 0, 4, -1, INT64_MAX }, { false, false, true, false });
}

/* A message in eight pieces; several descriptors, in any of them. */
static void protocol_pieces(void **state)
{
	unsigned int fds = open_fds();
	uint64_t wire = htole64(6);
	struct view v;

	(void)state;
	greet(&v, 2);
	for (unsigned int i = 0; i < 8; i++) {
		int more[3] = { eventfd(0, 0), eventfd(0, 0), eventfd(0, 0) };

		assert_int_equal(ivshmem_protocol_room(&v.protocol), 8 - i);
		assert_int_equal(ivshmem_protocol_feed(&v.protocol, (uint8_t *)&wire + i, 1, more, 3, false), 0);
	}
	assert_int_equal(v.vectors[6], 1);
	assert_int_equal(ivshmem_protocol_room(&v.protocol), 8);
	/* The connection ends in the middle of one. */
	int fd = eventfd(0, 0);
	assert_int_equal(ivshmem_protocol_feed(&v.protocol, &wire, 3, &fd, 1, false), 0);
	ivshmem_protocol_fini(&v.protocol);
	assert_int_equal(open_fds(), fds);
	assert_int_equal(ivshmem_protocol_feed(&v.protocol, &wire, 6, NULL, 0, false), -EPROTO);
	assert_int_equal(ivshmem_protocol_feed(&v.protocol, &wire, 0, NULL, 0, false), -EPROTO);
}

/* No room for a descriptor: that is not the news that the peer has left, and the next vector keeps its number. */
static void protocol_lost(void **state)
{
	uint64_t wire = htole64(6), own = htole64(2), memory = UINT64_MAX;
	struct view v;

	(void)state;
	greet(&v, 2);
	assert_int_equal(ivshmem_protocol_feed(&v.protocol, &wire, 8, NULL, 0, true), 0);
	assert_int_equal(feed(&v, 6, true), 0);
	assert_int_equal(ivshmem_protocol_feed(&v.protocol, &own, 8, NULL, 0, true), 0);
	assert_int_equal(v.vectors[6], 2);
	assert_int_equal(v.own, 1);
	assert_int_equal(v.lost, 2);
	assert_int_equal(v.gone, 0);
	assert_int_equal(ivshmem_protocol_feed(&v.protocol, &memory, 8, NULL, 0, true), -EPROTO);
	ivshmem_protocol_fini(&v.protocol);
}

/* The other end of a table of peers. */
struct wires {
	struct {
		uint64_t address;
		uint32_t match;
		int fd;
	} wire[2 * IVSHMEM_WIRED_MAX];
	unsigned int count, abandoned;
	int error;
};

static int on_wire(void *opaque, uint64_t address, uint32_t match, int fd, bool connect)
{
	struct wires *w = opaque;

	assert_true(fd >= 0);
	for (unsigned int i = 0; i < w->count; i++) {
		if (w->wire[i].address != address || w->wire[i].match != match)
			continue;
		assert_false(connect);
		assert_int_equal(w->wire[i].fd, fd);
		w->wire[i] = w->wire[--w->count];
		return 0;
	}
	assert_true(connect);
	if (w->error)
		return w->error;
	w->wire[w->count].address = address;
	w->wire[w->count].match = match;
	w->wire[w->count++].fd = fd;
	return 0;
}

static void on_abandon(void *opaque, void *signaller)
{
	struct wires *w = opaque;

	assert_ptr_equal(signaller, w);
	w->abandoned++;
}

static void new_peers(struct ivshmem_peers *p, struct wires *w, unsigned int max)
{
	memset(w, 0, sizeof(*w));
	assert_int_equal(ivshmem_peers_init(p, max), 0);
	p->wire = on_wire;
	p->abandon = on_abandon;
	p->opaque = w;
}

static void peers_ring(void **state)
{
	unsigned int fds = open_fds();
	static struct wires w;
	struct ivshmem_peers p;

	(void)state;
	new_peers(&p, &w, 100);
	for (int i = 0; i < 5; i++)
		assert_int_equal(ivshmem_peers_add(&p, 65535, eventfd(0, 0)), 0);
	assert_int_equal(ivshmem_peers_add(&p, 0, eventfd(0, 0)), 0);
	assert_int_equal(w.count, 0); /* not mapped */
	assert_non_null(ivshmem_peers_find(&p, 0xffff0004));
	assert_null(ivshmem_peers_find(&p, 0xffff0005));
	assert_null(ivshmem_peers_find(&p, 0xfffe0000));
	assert_true(ivshmem_peers_ring(&p, 0xffff0004));
	assert_false(ivshmem_peers_ring(&p, 0xffff0004)); /* stands there already */
	assert_false(ivshmem_peers_ring(&p, 0x00010000));
	assert_true(ivshmem_peers_ring(&p, 0));
	assert_int_equal(p.nr_rung, 2);
	ivshmem_peers_find(&p, 0xffff0001)->signaller = &w;
	ivshmem_peers_remove(&p, 65535);
	assert_int_equal(w.abandoned, 1);
	assert_int_equal(p.nr_rung, 1);
	assert_int_equal(p.rung[0], 0);
	ivshmem_peers_remove(&p, 65535);
	ivshmem_peers_remove(&p, 1);
	assert_int_equal(p.bells, 1);
	/* Each value once, however often it is rung while nobody takes the list. */
	for (int i = 0; i < 40; i++) {
		ivshmem_peers_remove(&p, 9);
		assert_int_equal(ivshmem_peers_add(&p, 9, eventfd(0, 0)), 0);
		ivshmem_peers_ring(&p, 9 << 16);
	}
	assert_int_equal(p.nr_rung, 2);
	ivshmem_peers_fini(&p);
	assert_int_equal(open_fds(), fds);
}

static void peers_wired(void **state)
{
	static struct wires w;
	struct ivshmem_peers p;

	(void)state;
	new_peers(&p, &w, 100);
	ivshmem_peers_add(&p, 1, eventfd(0, 0));
	ivshmem_peers_add(&p, 2, eventfd(0, 0));
	ivshmem_peers_move(&p, 0x1000);
	assert_int_equal(w.count, 2);
	ivshmem_peers_add(&p, 2, eventfd(0, 0));
	assert_int_equal(w.count, 3);
	assert_int_equal(w.wire[2].match, 0x20001);
	assert_int_equal(w.wire[2].address, 0x1000);
	ivshmem_peers_move(&p, 0x2000);
	assert_int_equal(w.count, 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(w.wire[i].address, 0x2000);
	ivshmem_peers_remove(&p, 2);
	assert_int_equal(w.count, 1);
	ivshmem_peers_move(&p, IVSHMEM_UNMAPPED);
	assert_int_equal(w.count, 0);
	assert_int_equal(p.wired, 0);
	/* KVM does not take it: then it exits. */
	w.error = -ENOSPC;
	ivshmem_peers_move(&p, 0x1000);
	assert_int_equal(p.wired, 0);
	w.error = 0;
	ivshmem_peers_add(&p, 1, eventfd(0, 0));
	assert_int_equal(w.count, 1);
	assert_false(ivshmem_peers_find(&p, 0x10000)->wired);
	assert_true(ivshmem_peers_find(&p, 0x10001)->wired);
	ivshmem_peers_fini(&p);
	assert_int_equal(w.count, 0);
}

static void peers_limits(void **state)
{
	unsigned int fds = open_fds();
	static struct wires w;
	struct ivshmem_peers p;

	(void)state;
	new_peers(&p, &w, 3);
	assert_int_equal(ivshmem_peers_add(&p, 1, -1), 0); /* takes its number */
	assert_int_equal(ivshmem_peers_add(&p, 1, eventfd(0, 0)), 0);
	assert_null(ivshmem_peers_find(&p, 0x10000));
	assert_non_null(ivshmem_peers_find(&p, 0x10001));
	assert_int_equal(ivshmem_peers_add(&p, 2, eventfd(0, 0)), 0);
	assert_int_equal(ivshmem_peers_add(&p, 1, eventfd(0, 0)), -ENOSPC);
	assert_int_equal(ivshmem_peers_add(&p, 3, eventfd(0, 0)), -ENOSPC);
	assert_int_equal(ivshmem_peers_add(&p, 3, -1), -ENOSPC);
	ivshmem_peers_remove(&p, 2);
	/* What follows a refused vector must not get its number, though there is room now. */
	assert_int_equal(ivshmem_peers_add(&p, 1, eventfd(0, 0)), -ENOSPC);
	assert_int_equal(ivshmem_peers_add(&p, 3, eventfd(0, 0)), -ENOSPC);
	ivshmem_peers_remove(&p, 3);
	assert_int_equal(ivshmem_peers_add(&p, 3, eventfd(0, 0)), 0);
	ivshmem_peers_clear(&p);
	assert_int_equal(p.bells, 0);
	/* More than KVM is to search. */
	p.max = 4000;
	ivshmem_peers_move(&p, 0x1000);
	int one = eventfd(0, 0);
	const struct rlimit limit = { 4096, 4096 };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	for (unsigned int i = 0; i < IVSHMEM_WIRED_MAX + 10; i++)
		assert_int_equal(ivshmem_peers_add(&p, i / 2, dup(one)), 0);
	assert_int_equal(w.count, IVSHMEM_WIRED_MAX);
	ivshmem_peers_remove(&p, 0);
	assert_int_equal(ivshmem_peers_add(&p, 0, dup(one)), 0);
	assert_int_equal(w.count, IVSHMEM_WIRED_MAX - 1);
	ivshmem_peers_fini(&p);
	close(one);
	assert_int_equal(w.count, 0);
	assert_int_equal(open_fds(), fds);
}

/* A client that is told what the server has for it, one message at a time. */
struct listener {
	struct ivshmem_subscriber client;
	struct view view;
	bool there;
};

static bool step(struct listener *l)
{
	int64_t value;
	uint64_t wire;
	int fd, copy;

	if (!ivshmem_server_next(&l->client, &value, &fd))
		return false;
	copy = fd >= 0 ? dup(fd) : -1;
	assert_true(fd < 0 || copy >= 0);
	wire = htole64((uint64_t)value);
	assert_int_equal(ivshmem_protocol_feed(&l->view.protocol, &wire, 8, &copy, fd >= 0, false), 0);
	ivshmem_server_sent(&l->client);
	return true;
}

static void join(struct ivshmem_server *s, struct listener *l)
{
	begin(&l->view);
	assert_int_equal(ivshmem_server_join(s, &l->client), 0);
	l->there = true;
}

static void leave(struct listener *l)
{
	ivshmem_server_leave(&l->client);
	ivshmem_protocol_fini(&l->view.protocol);
	l->there = false;
}

static void server_order(void **state)
{
	static const int64_t second[] = { 0, 1, -1, 0, 0, 1, 1 };
	int memory = eventfd(0, 0), fd;
	unsigned int fds = open_fds();
	struct ivshmem_server s;
	struct listener a, b;
	int64_t value;

	(void)state;
	assert_int_equal(ivshmem_server_init(&s, memory, 2, 2), 0);
	join(&s, &a);
	while (step(&a))
		;
	assert_int_equal(a.view.own, 2);
	join(&s, &b);
	struct ivshmem_subscriber c;
	assert_int_equal(ivshmem_server_join(&s, &c), -ENOSPC);
	for (unsigned int i = 0; i < 7; i++) {
		assert_true(ivshmem_server_next(&b.client, &value, &fd));
		assert_int_equal(value, second[i]);
		assert_int_equal(fd >= 0, i >= 2);
		ivshmem_server_sent(&b.client);
	}
	assert_false(ivshmem_server_next(&b.client, &value, &fd));
	assert_true(step(&a));
	assert_int_equal(a.view.vectors[1], 1);
	/* One that has been told of in part has to be told of as gone. */
	leave(&b);
	while (step(&a))
		;
	assert_int_equal(a.view.vectors[1], 0);
	assert_int_equal(a.view.gone, 1);
	/* One that nobody was told of is not. */
	join(&s, &b);
	leave(&b);
	assert_false(step(&a));
	/* A message on its way stays what it is. */
	join(&s, &b);
	assert_int_equal(b.client.self->id, 3);
	assert_true(ivshmem_server_next(&a.client, &value, &fd));
	leave(&b);
	assert_true(fcntl(fd, F_GETFD) >= 0);
	ivshmem_server_sent(&a.client);
	assert_true(ivshmem_server_next(&a.client, &value, &fd));
	assert_int_equal(value, 3);
	ivshmem_server_sent(&a.client);
	assert_true(step(&a)); /* gone */
	assert_false(step(&a));
	leave(&a);
	ivshmem_server_fini(&s);
	assert_int_equal(open_fds(), fds);
	close(memory);
}

/* Comings and goings at random; whoever has read everything knows exactly who is there, and no queue grows. */
static void server_random(void **state)
{
	enum { LISTENERS = 12, VECTORS = 3 };
	int memory = eventfd(0, 0);
	unsigned int fds = open_fds();
	static struct listener l[LISTENERS];
	struct ivshmem_server s;

	(void)state;
	srand(5);
	memset(l, 0, sizeof(l));
	assert_int_equal(ivshmem_server_init(&s, memory, VECTORS, LISTENERS), 0);
	for (int round = 0; round < 20000; round++) {
		struct listener *at = &l[rand() % LISTENERS];

		/* Ids of the range that a view can hold. */
		s.next_id %= PEERS;
		if (!at->there)
			join(&s, at);
		else if (rand() % 8 == 0)
			leave(at);
		else if (at != &l[0]) /* one that never reads */
			step(at);
		for (int i = 0; i < LISTENERS; i++)
			assert_true(!l[i].there || l[i].client.length <= PEERS + LISTENERS);
	}
	for (int i = 0; i < LISTENERS; i++) {
		unsigned int peers = 0;

		if (!l[i].there)
			continue;
		while (step(&l[i]))
			;
		assert_int_equal(l[i].view.own, VECTORS);
		for (unsigned int id = 0; id < PEERS; id++) {
			bool there = s.clients[id] && s.clients[id] != &l[i].client;

			assert_int_equal(l[i].view.vectors[id], there ? VECTORS : 0);
			peers += there;
		}
		assert_int_equal(peers, s.count - 1);
	}
	for (int i = 0; i < LISTENERS; i++)
		if (l[i].there)
			leave(&l[i]);
	assert_int_equal(s.count, 0);
	ivshmem_server_fini(&s);
	assert_int_equal(open_fds(), fds);
	close(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(protocol_good),     cmocka_unit_test(protocol_order),
		cmocka_unit_test(protocol_nonsense), cmocka_unit_test(protocol_pieces),
		cmocka_unit_test(protocol_lost),     cmocka_unit_test(peers_ring),
		cmocka_unit_test(peers_wired),	     cmocka_unit_test(peers_limits),
		cmocka_unit_test(server_order),	     cmocka_unit_test(server_random),
	};

	return cmocka_run_group_tests_name("ivshmem", tests, NULL, NULL);
}
