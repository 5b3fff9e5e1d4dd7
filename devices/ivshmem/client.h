/* SPDX-License-Identifier: MIT */
/* The connection to an ivshmem server: a socket that feeds the protocol, first before the loop runs, then on it. */
#ifndef DEVICES_IVSHMEM_CLIENT_H
#define DEVICES_IVSHMEM_CLIENT_H

#include <sys/socket.h>
#include <sys/uio.h>

#include "devices/ivshmem/protocol.h"
#include "vmm/loop.h"

#define IVSHMEM_CLIENT_FDS 4 /* a message has one: the kernel closes what is beyond this */

struct ivshmem_client {
	struct loop *loop;
	const char *path;
	int fd; /* -1: not connected */
	struct ivshmem_protocol protocol;
	struct loop_op recv_op;
	bool receiving, closing;
	struct msghdr msg;
	struct iovec iov;
	uint8_t bytes[IVSHMEM_MESSAGE];
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(IVSHMEM_CLIENT_FDS * sizeof(int))];
	} control;
};

/*
 * Connects to the server at path, which must stay valid, and receives what must be known before the guest runs: our id
 * and the memory, and our own vectors, of which *vectors says how many have come, as far as they come at once. 0, or
 * -errno with a part of a sentence in err. ivshmem_client_fini() is due in any case.
 */
int ivshmem_client_connect(struct ivshmem_client *c, const char *path, struct loop *loop,
			   const struct ivshmem_protocol_ops *ops, void *opaque, const unsigned int *vectors,
			   unsigned int wanted, char *err, size_t errlen);

/* Receives from now on by the loop; tells in a line when the server is gone. Loop thread. */
void ivshmem_client_start(struct ivshmem_client *c);

/* Hangs up. Loop thread. */
void ivshmem_client_stop(struct ivshmem_client *c);

/* After the loop has ended. */
void ivshmem_client_fini(struct ivshmem_client *c);

#endif
