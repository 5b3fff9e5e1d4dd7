/* SPDX-License-Identifier: MIT */
/* Messages with descriptors over a Unix socket, for the peers that tests talk to. */
#ifndef TESTS_SERVERS_SOCKET_H
#define TESTS_SERVERS_SOCKET_H

#include <stdbool.h>
#include <stddef.h>

#define SOCKET_FDS_MAX 64

/* Says why, by errno, and ends. */
_Noreturn void die(const char *what);

/* Listens at path, in place of what was there; says that it is ready. Ends if it cannot. */
int socket_listen(const char *path);

/* Sends all of it, in pieces of so many bytes (0: one); the descriptors go with the first. False: the peer is gone. */
bool socket_send(int fd, const void *data, size_t size, const int *fds, unsigned int nr_fds, size_t piece);

/* Waits for size bytes. Descriptors that come with them are put into fds (at most max); *nr_fds stays if none come. */
bool socket_receive(int fd, void *to, size_t size, int *fds, unsigned int max, unsigned int *nr_fds);

#endif
