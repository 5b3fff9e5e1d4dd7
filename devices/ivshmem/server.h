/* SPDX-License-Identifier: MIT */
/*
 * The server's state without sockets: who is connected, and what each client is still to be told. A client that does
 * not read costs no more than two messages for each other id, since the news that a peer has come and the news that it
 * has left cancel each other while neither has begun to be sent.
 */
#ifndef DEVICES_IVSHMEM_SERVER_H
#define DEVICES_IVSHMEM_SERVER_H

#include <stdbool.h>
#include <stdint.h>

/* A client's eventfds, which live as long as somebody is being told of them. */
struct ivshmem_member {
	unsigned int id, references, count;
	int fds[];
};

/* Something to tell: the vectors of a member that has come, or the id of one that has left. */
struct ivshmem_news {
	struct ivshmem_member *joined; /* NULL: left */
	unsigned int id;
};

struct ivshmem_server {
	int memory; /* descriptor, the caller's */
	unsigned int vectors, max, count;
	unsigned int next_id; /* ids are handed out in turn, so that one that was given back rests for a while */
	struct ivshmem_subscriber **clients; /* by id */
};

/* A connected client. */
struct ivshmem_subscriber {
	struct ivshmem_server *server;
	struct ivshmem_member *self;
	unsigned int greeted; /* messages of the three that come first */
	struct ivshmem_news *news;
	unsigned int head, length, room; /* ring */
	unsigned int vector;		 /* of the first of the news, to be sent next */
	bool begun;			 /* the message at hand is on its way */
	bool failed;			 /* no memory for something it had to be told: drop it */
};

/* max: clients at a time, up to IVSHMEM_PEERS. 0 or -ENOMEM. */
int ivshmem_server_init(struct ivshmem_server *server, int memory, unsigned int vectors, unsigned int max);
void ivshmem_server_fini(struct ivshmem_server *server); /* after all have left */

/* A new client: 0, -ENOSPC (max are there), -ENOMEM, or the error of eventfd(). All others have news then. */
int ivshmem_server_join(struct ivshmem_server *server, struct ivshmem_subscriber *client);
void ivshmem_server_leave(struct ivshmem_subscriber *client);

/*
 * The next message to send and the descriptor that goes with it, or -1; false if there is none. It stays the next, and
 * the descriptor open, until it was sent.
 */
bool ivshmem_server_next(struct ivshmem_subscriber *client, int64_t *value, int *fd);
void ivshmem_server_sent(struct ivshmem_subscriber *client);

#endif
