/* SPDX-License-Identifier: MIT */
/*
 * Both ends of the ivshmem server protocol. The first byte chooses: a hostile server's stream, cut into pieces with and
 * without descriptors, for the client's state machine and its table of peers; or clients that come, read and leave at
 * random for the server's state, whose messages must tell each client exactly who is there. No descriptor is lost.
 */
#include <assert.h>
#include <endian.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/ivshmem/ivshmem.h"
#include "devices/ivshmem/peers.h"
#include "devices/ivshmem/protocol.h"
#include "devices/ivshmem/server.h"

#define CLIENTS	    6
#define BELLS	    40
#define DESCRIPTORS 128

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct end {
	struct ivshmem_protocol protocol;
	struct ivshmem_peers peers;
	unsigned int memory, own, wired;
};

/* All descriptors are copies of this one, or -1 where there would be too many. */
static int original = -1;

static void on_memory(void *opaque, int fd)
{
	struct end *e = opaque;

	e->memory++;
	assert(fd >= 0 && e->memory == 1);
	close(fd);
}

static void on_vector(void *opaque, int fd)
{
	struct end *e = opaque;

	e->own++;
	if (fd >= 0)
		close(fd);
}

static void on_doorbell(void *opaque, unsigned int peer, int fd)
{
	struct end *e = opaque;

	assert(peer < IVSHMEM_PEERS && peer != (unsigned int)e->protocol.id);
	ivshmem_peers_add(&e->peers, peer, fd);
}

static void on_gone(void *opaque, unsigned int peer)
{
	struct end *e = opaque;

	assert(peer < IVSHMEM_PEERS);
	ivshmem_peers_remove(&e->peers, peer);
}

static const struct ivshmem_protocol_ops ops = { on_memory, on_vector, on_doorbell, on_gone };

static int wire(void *opaque, uint64_t address, uint32_t match, int fd, bool connect)
{
	struct end *e = opaque;

	assert(address != IVSHMEM_UNMAPPED && fd >= 0);
	if (connect && match % 7 == 3)
		return -1;
	e->wired += connect ? 1 : -1U;
	return 0;
}

static void abandon(void *opaque, void *signaller)
{
	assert(opaque && signaller == opaque);
}

static void open_end(struct end *e)
{
	memset(e, 0, sizeof(*e));
	ivshmem_protocol_init(&e->protocol, &ops, e);
	assert(!ivshmem_peers_init(&e->peers, BELLS));
	e->peers.wire = wire;
	e->peers.abandon = abandon;
	e->peers.opaque = e;
}

static void close_end(struct end *e)
{
	ivshmem_protocol_fini(&e->protocol);
	ivshmem_peers_fini(&e->peers);
	assert(e->wired == 0);
}

/* What the guest and the loop do meanwhile. */
static void use_bells(struct end *e, uint8_t what)
{
	uint32_t value = (uint32_t)(what >> 4) << 16 | (what & 3);
	struct ivshmem_bell *bell = ivshmem_peers_find(&e->peers, value);

	assert(e->wired == e->peers.wired && e->peers.bells <= BELLS);
	switch (what >> 2 & 3) {
	case 0:
		ivshmem_peers_move(&e->peers, what & 1 ? 0x1000 : IVSHMEM_UNMAPPED);
		break;
	case 1:
		ivshmem_peers_ring(&e->peers, value);
		assert(e->peers.nr_rung <= BELLS);
		break;
	case 2:
		for (unsigned int i = 0; i < e->peers.nr_rung; i++) {
			bell = ivshmem_peers_find(&e->peers, e->peers.rung[i]);
			assert(bell && bell->rung);
			bell->rung = false;
		}
		e->peers.nr_rung = 0;
		break;
	default:
		if (bell)
			bell->signaller = bell->signaller ? NULL : e;
	}
}

/* A piece: a byte of flags, then as many bytes as they say. */
static void hostile_server(const uint8_t *data, size_t size)
{
	struct end e;
	int ret = 0;

	open_end(&e);
	while (size > 1 && !ret) {
		unsigned int room = ivshmem_protocol_room(&e.protocol), n = data[0] & 7, nr_fds = data[0] >> 3 & 3;
		uint8_t bytes[8] = { 0 };
		int fds[3];

		use_bells(&e, data[1]);
		/* Whole messages with small numbers are what gets far. */
		if (!n && data[0] >> 5 & 1) {
			memset(bytes, data[1] == 0xff ? 0xff : 0, 8);
			bytes[0] = data[1];
			n = room;
			data += 2;
			size -= 2;
		} else {
			n = n ? n : 8;
			n = n > room ? room : n;
			n = n > size - 1 ? (unsigned int)size - 1 : n;
			memcpy(bytes, data + 1, n);
			data += n + 1;
			size -= n + 1;
		}
		for (unsigned int i = 0; i < nr_fds; i++)
			fds[i] = dup(original);
		ret = ivshmem_protocol_feed(&e.protocol, bytes, n, fds, nr_fds, data[-1] >> 6 == 3);
		assert(!ret || e.protocol.error[0]);
		assert(e.protocol.id < IVSHMEM_PEERS);
	}
	close_end(&e);
}

static bool step(struct ivshmem_subscriber *client, struct end *e)
{
	int64_t value;
	uint64_t wire_value;
	int fd, copy;

	if (!ivshmem_server_next(client, &value, &fd))
		return false;
	assert(fd < 0 || fcntl(fd, F_GETFD) >= 0);
	copy = fd >= 0 ? dup(fd) : -1;
	wire_value = htole64((uint64_t)value);
	assert(!ivshmem_protocol_feed(&e->protocol, &wire_value, 8, &copy, fd >= 0, false));
	ivshmem_server_sent(client);
	return true;
}

static void check_view(const struct ivshmem_server *server, const struct ivshmem_subscriber *client,
		       const struct end *e)
{
	assert(e->own == server->vectors && e->memory == 1);
	for (unsigned int n = 0; n < 400; n++) {
		unsigned int id = (n + IVSHMEM_PEERS - 10) % IVSHMEM_PEERS;
		const struct ivshmem_peer *peer = e->peers.table[id];

		if (server->clients[id] && server->clients[id] != client)
			assert(peer && peer->count == server->vectors);
		else
			assert(!peer || !peer->count);
	}
}

static void random_clients(const uint8_t *data, size_t size)
{
	static struct ivshmem_subscriber clients[CLIENTS];
	static struct end ends[CLIENTS];
	struct ivshmem_server server;

	memset(clients, 0, sizeof(clients));
	assert(!ivshmem_server_init(&server, original, 2, CLIENTS - 1));
	if (size % 32 == 1)
		server.next_id = IVSHMEM_PEERS - 3; /* wraps */
	for (size_t i = 0; i < size && i < 300; i++) {
		struct ivshmem_subscriber *c = &clients[data[i] % CLIENTS];
		struct end *e = &ends[data[i] % CLIENTS];

		if (!c->server) {
			if (!ivshmem_server_join(&server, c))
				open_end(e);
			else
				assert(server.count == server.max);
		} else if (data[i] / CLIENTS % 4 == 0) {
			ivshmem_server_leave(c);
			close_end(e);
		} else {
			for (unsigned int n = data[i] / CLIENTS % 4; n && step(c, e); n--)
				;
		}
	}
	for (unsigned int i = 0; i < CLIENTS; i++) {
		while (clients[i].server && step(&clients[i], &ends[i]))
			;
		if (clients[i].server)
			check_view(&server, &clients[i], &ends[i]);
	}
	for (unsigned int i = 0; i < CLIENTS; i++) {
		if (!clients[i].server)
			continue;
		ivshmem_server_leave(&clients[i]);
		close_end(&ends[i]);
	}
	assert(server.count == 0);
	ivshmem_server_fini(&server);
}

static unsigned int open_descriptors(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < DESCRIPTORS; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned int before;

	if (original < 0)
		original = eventfd(0, 0);
	before = open_descriptors();
	if (size && data[0] & 1)
		random_clients(data + 1, size - 1);
	else if (size)
		hostile_server(data + 1, size - 1);
	assert(open_descriptors() == before);
	return 0;
}
