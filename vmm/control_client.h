/* SPDX-License-Identifier: MIT */
/* The inside of the control socket: between control.c, which has commands and requests, and its clients. */
#ifndef VMM_CONTROL_CLIENT_H
#define VMM_CONTROL_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

#include "vmm/control.h"
#include "vmm/loop.h"
#include "vmm/unix_socket.h"

#define CONTROL_TABLES_MAX 16 /* and parts of the status */

struct control_text {
	char *data;
	size_t used, size;
};

struct control_client {
	struct control *control;
	struct control_client *next;
	int fd;
	bool receiving, sending, finished, closing;
	bool skipping; /* the rest of a line that is too long */
	bool failed;   /* it has gone, or there was no memory for an answer */
	bool pumping;  /* control_client_pump() is at work: a command that answers at once need not call it */
	unsigned int unanswered;
	size_t in_used, scanned; /* no newline before scanned */
	size_t sent;		 /* of flight */
	struct control_text queue, flight;
	struct loop_op receive_op, send_op;
	char in[CONTROL_LINE_MAX];
};

struct control_request {
	struct control *control;
	struct control_client *client; /* NULL: gone */
	struct control_request *next, **link;
	struct control_message message;
};

struct control_part {
	void (*fill)(json_t *status, void *opaque);
	void *opaque;
};

struct control_table {
	const struct control_command *commands;
	size_t count;
	void *opaque;
};

struct control {
	struct loop *loop;
	const char *path;
	struct unix_socket socket;
	struct control_table tables[CONTROL_TABLES_MAX];
	size_t nr_tables;
	struct control_part parts[CONTROL_TABLES_MAX];
	size_t nr_parts;
	struct control_client *clients;
	unsigned int nr_clients;
	struct control_request *requests; /* unanswered */
	bool warned, closed;
	struct loop_op accept_op, retry_op;
	struct __kernel_timespec retry_ts;
};

#define control_from_member(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* Runs the command of one line without its newline, or queues an answer that says why not. */
void control_handle_line(struct control_client *c, const char *line, size_t length);

/* Queues an answer line; takes over the reference to result. */
void control_client_put(struct control_client *c, const json_t *id, json_t *result, const char *error);

/* The one function that moves a client on; it may free it. */
void control_client_pump(struct control_client *c);

/* Sends what goes out at once and frees all clients, at the end of the machine. */
void control_clients_close(struct control *control);

#endif
