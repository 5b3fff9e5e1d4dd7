/* SPDX-License-Identifier: MIT */
#include "devices/ivshmem/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/ivshmem/ivshmem.h"

enum { GREET_VERSION, GREET_ID, GREET_MEMORY, GREETED };

int ivshmem_server_init(struct ivshmem_server *server, int memory, unsigned int vectors, unsigned int max)
{
	memset(server, 0, sizeof(*server));
	server->memory = memory;
	server->vectors = vectors;
	server->max = max;
	server->clients = calloc(IVSHMEM_PEERS, sizeof(struct ivshmem_subscriber *));
	return server->clients ? 0 : -ENOMEM;
}

void ivshmem_server_fini(struct ivshmem_server *server)
{
	free(server->clients);
	server->clients = NULL;
}

static void put_member(struct ivshmem_member *member)
{
	if (--member->references)
		return;
	for (unsigned int i = 0; i < member->count; i++)
		close(member->fds[i]);
	free(member);
}

static int new_member(struct ivshmem_member **result, unsigned int id, unsigned int vectors)
{
	struct ivshmem_member *member = calloc(1, sizeof(*member) + vectors * sizeof(member->fds[0]));

	if (!member)
		return -ENOMEM;
	member->id = id;
	member->references = 1;
	while (member->count < vectors) {
		int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

		if (fd < 0) {
			int ret = -errno;

			put_member(member);
			return ret;
		}
		member->fds[member->count++] = fd;
	}
	*result = member;
	return 0;
}

static struct ivshmem_news *news_at(const struct ivshmem_subscriber *client, unsigned int i)
{
	return &client->news[(client->head + i) & (client->room - 1)];
}

static int grow(struct ivshmem_subscriber *client)
{
	unsigned int room = client->room ? 2 * client->room : 8;
	struct ivshmem_news *news = calloc(room, sizeof(*news));

	if (!news)
		return -ENOMEM;
	for (unsigned int i = 0; i < client->length; i++)
		news[i] = *news_at(client, i);
	free(client->news);
	client->news = news;
	client->room = room;
	client->head = 0;
	return 0;
}

static void tell(struct ivshmem_subscriber *client, struct ivshmem_member *joined, unsigned int id)
{
	if (client->length == client->room && grow(client)) {
		client->failed = true;
		return;
	}
	*news_at(client, client->length++) = (struct ivshmem_news){ joined, id };
	if (joined)
		joined->references++;
}

/* Takes back the news that this member has come, if none of it was sent. */
static bool take_back(struct ivshmem_subscriber *client, const struct ivshmem_member *member)
{
	for (unsigned int i = client->vector || client->begun ? 1 : 0; i < client->length; i++) {
		struct ivshmem_member *joined = news_at(client, i)->joined;

		if (joined != member)
			continue;
		for (; i + 1 < client->length; i++)
			*news_at(client, i) = *news_at(client, i + 1);
		client->length--;
		put_member(joined);
		return true;
	}
	return false;
}

static unsigned int free_id(const struct ivshmem_server *server)
{
	unsigned int id = server->next_id;

	while (server->clients[id])
		id = (id + 1) % IVSHMEM_PEERS;
	return id;
}

int ivshmem_server_join(struct ivshmem_server *server, struct ivshmem_subscriber *client)
{
	unsigned int id;
	int ret;

	memset(client, 0, sizeof(*client));
	if (server->count >= server->max)
		return -ENOSPC;
	id = free_id(server);
	ret = new_member(&client->self, id, server->vectors);
	if (ret)
		return ret;
	client->server = server;
	for (unsigned int i = 0, left = server->count; left; i++) {
		if (!server->clients[i])
			continue;
		left--;
		tell(server->clients[i], client->self, id);
		tell(client, server->clients[i]->self, i);
	}
	tell(client, client->self, id);
	server->clients[id] = client;
	server->count++;
	server->next_id = (id + 1) % IVSHMEM_PEERS;
	return 0;
}

void ivshmem_server_leave(struct ivshmem_subscriber *client)
{
	struct ivshmem_server *server = client->server;
	struct ivshmem_member *self = client->self;

	server->clients[self->id] = NULL;
	server->count--;
	for (unsigned int i = 0, left = server->count; left; i++) {
		if (!server->clients[i])
			continue;
		left--;
		if (!take_back(server->clients[i], self))
			tell(server->clients[i], NULL, self->id);
	}
	for (unsigned int i = 0; i < client->length; i++)
		if (news_at(client, i)->joined)
			put_member(news_at(client, i)->joined);
	free(client->news);
	put_member(self);
	memset(client, 0, sizeof(*client));
}

bool ivshmem_server_next(struct ivshmem_subscriber *client, int64_t *value, int *fd)
{
	const struct ivshmem_news *news;

	*fd = -1;
	client->begun = client->greeted >= GREETED && client->length;
	switch (client->greeted) {
	case GREET_VERSION:
		*value = 0;
		return true;
	case GREET_ID:
		*value = client->self->id;
		return true;
	case GREET_MEMORY:
		*value = -1;
		*fd = client->server->memory;
		return true;
	}
	if (!client->length)
		return false;
	news = news_at(client, 0);
	*value = news->id;
	if (news->joined)
		*fd = news->joined->fds[client->vector];
	return true;
}

void ivshmem_server_sent(struct ivshmem_subscriber *client)
{
	const struct ivshmem_news *news;

	if (client->greeted < GREETED) {
		client->greeted++;
		return;
	}
	client->begun = false;
	news = news_at(client, 0);
	if (news->joined && ++client->vector < news->joined->count)
		return;
	if (news->joined)
		put_member(news->joined);
	client->vector = 0;
	client->head = (client->head + 1) & (client->room - 1);
	client->length--;
}
