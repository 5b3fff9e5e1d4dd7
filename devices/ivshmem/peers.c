/* SPDX-License-Identifier: MIT */
#include "devices/ivshmem/peers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/ivshmem/ivshmem.h"

#define VECTORS 65536 /* the register's lower half */

int ivshmem_peers_init(struct ivshmem_peers *peers, unsigned int max)
{
	memset(peers, 0, sizeof(*peers));
	peers->max = max;
	peers->address = IVSHMEM_UNMAPPED;
	peers->table = calloc(IVSHMEM_PEERS, sizeof(struct ivshmem_peer *));
	return peers->table ? 0 : -ENOMEM;
}

static uint32_t value_of(unsigned int id, unsigned int vector)
{
	return (uint32_t)id << 16 | vector;
}

static void wire(struct ivshmem_peers *peers, struct ivshmem_bell *bell, uint32_t value)
{
	if (bell->fd < 0 || !peers->wire || peers->address == IVSHMEM_UNMAPPED || peers->wired == IVSHMEM_WIRED_MAX)
		return;
	/* Otherwise the write exits, and the owner signals. */
	bell->wired = peers->wire(peers->opaque, peers->address, value, bell->fd, true) == 0;
	peers->wired += bell->wired;
}

static void unwire(struct ivshmem_peers *peers, struct ivshmem_bell *bell, uint32_t value)
{
	if (!bell->wired)
		return;
	peers->wire(peers->opaque, peers->address, value, bell->fd, false);
	bell->wired = false;
	peers->wired--;
}

static void forget_rung(struct ivshmem_peers *peers, unsigned int id)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < peers->nr_rung; i++)
		if (peers->rung[i] >> 16 != id)
			peers->rung[kept++] = peers->rung[i];
	peers->nr_rung = kept;
}

void ivshmem_peers_remove(struct ivshmem_peers *peers, unsigned int id)
{
	struct ivshmem_peer *peer = peers->table[id];

	if (!peer)
		return;
	peers->table[id] = NULL;
	peers->ids--;
	for (unsigned int i = 0; i < peer->count; i++) {
		struct ivshmem_bell *bell = &peer->bells[i];

		unwire(peers, bell, value_of(id, i));
		if (bell->signaller)
			peers->abandon(peers->opaque, bell->signaller);
		if (bell->fd >= 0)
			close(bell->fd);
	}
	peers->bells -= peer->count;
	free(peer);
	forget_rung(peers, id);
}

void ivshmem_peers_clear(struct ivshmem_peers *peers)
{
	for (unsigned int id = 0; id < IVSHMEM_PEERS && peers->ids; id++)
		ivshmem_peers_remove(peers, id);
}

void ivshmem_peers_fini(struct ivshmem_peers *peers)
{
	if (!peers->table)
		return;
	ivshmem_peers_clear(peers);
	free(peers->table);
	free(peers->rung);
	peers->table = NULL;
	peers->rung = NULL;
}

/* Room for one more bell of the peer, and for its value in rung. */
static struct ivshmem_peer *make_room(struct ivshmem_peers *peers, unsigned int id)
{
	struct ivshmem_peer *peer = peers->table[id];
	unsigned int room = peer ? peer->room : 0;
	bool first = !peer;

	if (peers->bells == peers->rung_room) {
		unsigned int more = peers->rung_room ? 2 * peers->rung_room : 16;
		uint32_t *rung = realloc(peers->rung, more * sizeof(*rung));

		if (!rung)
			return NULL;
		peers->rung = rung;
		peers->rung_room = more;
	}
	if (peer && peer->count < room)
		return peer;
	room = room ? 2 * room : 1;
	struct ivshmem_peer *grown = realloc(peer, sizeof(*peer) + room * sizeof(peer->bells[0]));

	if (!grown)
		return NULL;
	peer = grown;
	if (first) {
		*peer = (struct ivshmem_peer){ .count = 0 };
		peers->ids++;
	}
	peer->room = room;
	peers->table[id] = peer;
	return peer;
}

static int refuse(struct ivshmem_peers *peers, unsigned int id, int fd, int error)
{
	if (!peers->table[id]) {
		peers->table[id] = calloc(1, sizeof(struct ivshmem_peer));
		peers->ids += peers->table[id] != NULL;
	}
	if (peers->table[id])
		peers->table[id]->full = true;
	peers->refused++;
	if (fd >= 0)
		close(fd);
	return error;
}

int ivshmem_peers_add(struct ivshmem_peers *peers, unsigned int id, int fd)
{
	struct ivshmem_peer *peer = peers->table[id];
	struct ivshmem_bell *bell;

	if (peers->bells >= peers->max || (peer && (peer->full || peer->count == VECTORS)))
		return refuse(peers, id, fd, -ENOSPC);
	peer = make_room(peers, id);
	if (!peer)
		return refuse(peers, id, fd, -ENOMEM);
	bell = &peer->bells[peer->count];
	*bell = (struct ivshmem_bell){ .fd = fd };
	wire(peers, bell, value_of(id, peer->count));
	peer->count++;
	peers->bells++;
	return 0;
}

void ivshmem_peers_move(struct ivshmem_peers *peers, uint64_t address)
{
	for (unsigned int id = 0; id < IVSHMEM_PEERS && peers->wired; id++)
		for (unsigned int i = 0; peers->table[id] && i < peers->table[id]->count; i++)
			unwire(peers, &peers->table[id]->bells[i], value_of(id, i));
	peers->address = address;
	if (!peers->wire || address == IVSHMEM_UNMAPPED)
		return;
	for (unsigned int id = 0, left = peers->ids; id < IVSHMEM_PEERS && left; id++) {
		left -= peers->table[id] != NULL;
		for (unsigned int i = 0; peers->table[id] && i < peers->table[id]->count; i++)
			wire(peers, &peers->table[id]->bells[i], value_of(id, i));
	}
}

struct ivshmem_bell *ivshmem_peers_find(const struct ivshmem_peers *peers, uint32_t value)
{
	struct ivshmem_peer *peer = peers->table[value >> 16];
	unsigned int vector = value & 0xffff;

	return peer && vector < peer->count && peer->bells[vector].fd >= 0 ? &peer->bells[vector] : NULL;
}

bool ivshmem_peers_ring(struct ivshmem_peers *peers, uint32_t value)
{
	struct ivshmem_bell *bell = ivshmem_peers_find(peers, value);

	if (!bell || bell->rung)
		return false;
	bell->rung = true;
	peers->rung[peers->nr_rung++] = value;
	return true;
}
