/* SPDX-License-Identifier: MIT */
/*
 * Whom the Doorbell register reaches: an eventfd for each vector of each peer, and which of them KVM signals by itself
 * (ioeventfd). The owner locks; nothing here knows KVM or a socket.
 */
#ifndef DEVICES_IVSHMEM_PEERS_H
#define DEVICES_IVSHMEM_PEERS_H

#include <stdbool.h>
#include <stdint.h>

#define IVSHMEM_UNMAPPED UINT64_MAX

/* KVM looks for an ioeventfd by a list sorted by address and value; each one that comes or goes copies the list. */
#define IVSHMEM_WIRED_MAX 1024

struct ivshmem_bell {
	int fd;		 /* -1: cannot be rung */
	bool wired;	 /* a write of the register signals it without an exit */
	bool rung;	 /* stands in peers->rung */
	void *signaller; /* the owner's, who is at writing it; NULL when nobody is */
};

struct ivshmem_peer {
	unsigned int count, room;
	bool full; /* a vector was refused: those after it would get its number */
	struct ivshmem_bell bells[];
};

struct ivshmem_peers {
	struct ivshmem_peer **table; /* by id */
	unsigned int ids;	     /* in the table */
	unsigned int bells, max;     /* of all peers together */
	unsigned int wired;
	unsigned int refused; /* that would have been more than max */
	uint64_t address;     /* of the register, or IVSHMEM_UNMAPPED */
	uint32_t *rung;	      /* values written that the owner is to deliver; room for one a bell */
	unsigned int nr_rung, rung_room;
	/* Connects or disconnects an eventfd with 4-byte writes of match to address. NULL: never. 0 or -errno. */
	int (*wire)(void *opaque, uint64_t address, uint32_t match, int fd, bool connect);
	/* A bell with a signaller goes away. */
	void (*abandon)(void *opaque, void *signaller);
	void *opaque;
};

/* wire, abandon and opaque are the caller's to set. max: eventfds that may be kept. 0 or -ENOMEM. */
int ivshmem_peers_init(struct ivshmem_peers *peers, unsigned int max);
void ivshmem_peers_fini(struct ivshmem_peers *peers);

/*
 * One more vector of a peer, by an eventfd or -1, which only takes its number. Takes fd over, also when it fails:
 * -ENOSPC or -ENOMEM. id < IVSHMEM_PEERS.
 */
int ivshmem_peers_add(struct ivshmem_peers *peers, unsigned int id, int fd);

/* The peer has left, whether or not it was there. */
void ivshmem_peers_remove(struct ivshmem_peers *peers, unsigned int id);
void ivshmem_peers_clear(struct ivshmem_peers *peers);

/* The register has moved. */
void ivshmem_peers_move(struct ivshmem_peers *peers, uint64_t address);

/* What a value of the register rings, or NULL. Valid until the table changes. */
struct ivshmem_bell *ivshmem_peers_find(const struct ivshmem_peers *peers, uint32_t value);

/* The value was written and KVM has not seen to it: true if it now stands in peers->rung and did not before. */
bool ivshmem_peers_ring(struct ivshmem_peers *peers, uint32_t value);

#endif
