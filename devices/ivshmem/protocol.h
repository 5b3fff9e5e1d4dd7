/* SPDX-License-Identifier: MIT */
/*
 * The client's side of the ivshmem server protocol, version 0 (QEMU docs/specs/ivshmem-spec.rst, "The ivshmem
 * Client-Server Protocol"): a state machine that knows neither socket nor KVM.
 *
 * The server sends 8-byte little-endian numbers, some with a descriptor: its version (0), our id, -1 with the shared
 * memory, then ids: with a descriptor, one more vector of that peer (or of ours); without, that peer has left. The
 * order after the id is the server's choice. The server is not trusted.
 */
#ifndef DEVICES_IVSHMEM_PROTOCOL_H
#define DEVICES_IVSHMEM_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IVSHMEM_MESSAGE 8 /* bytes */

/*
 * Each takes over the descriptor it is given; -1 stands for one that was lost, so that later vectors keep their
 * numbers. Our own id never comes as a peer.
 */
struct ivshmem_protocol_ops {
	void (*memory)(void *opaque, int fd); /* once */
	void (*vector)(void *opaque, int fd); /* one more of ours, 0 first */
	void (*doorbell)(void *opaque, unsigned int peer, int fd);
	void (*gone)(void *opaque, unsigned int peer);
};

struct ivshmem_protocol {
	const struct ivshmem_protocol_ops *ops;
	void *opaque;
	bool has_version, has_memory;
	int id; /* -1: not yet known */
	uint8_t bytes[IVSHMEM_MESSAGE];
	unsigned int have;    /* bytes of the message that has begun */
	int fd;		      /* that came with it, or -1 */
	bool lost_fd;	      /* one came and could not be received */
	unsigned int ignored; /* messages of a good server that meant nothing here */
	char error[96];	      /* why the server is in error, a part of a sentence */
};

void ivshmem_protocol_init(struct ivshmem_protocol *p, const struct ivshmem_protocol_ops *ops, void *opaque);

/* Closes what was received and not given away. */
void ivshmem_protocol_fini(struct ivshmem_protocol *p);

/*
 * How many bytes the message at hand still lacks, 1..8. Receive no more at once: a descriptor belongs to the message
 * whose bytes it came with.
 */
unsigned int ivshmem_protocol_room(const struct ivshmem_protocol *p);

/*
 * size bytes, at most that many, and the descriptors that came with them, which are taken over. lost: the kernel could
 * not deliver a descriptor. 0, or -EPROTO with a reason in p->error: the connection is of no more use.
 */
int ivshmem_protocol_feed(struct ivshmem_protocol *p, const void *bytes, size_t size, const int *fds,
			  unsigned int nr_fds, bool lost);

#endif
