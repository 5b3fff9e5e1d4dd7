/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * Each client has a buffer of one line's length, one receive and one send in flight at most, and a queue of answers.
 * Nothing is received while a whole line waits in the buffer, and no line is taken while the client's queue is long or
 * many of its requests are unanswered: a client that does not read is not read from, so its share of memory is bounded
 * and nobody else notices. A few lines are taken at a time; the next few wait until the answers have been sent, so that
 * a client with a thousand requests does not keep the loop from its other work.
 *
 * A request is a handle that its command may keep. It outlives its client (the answer then goes nowhere) and the loop.
 * A client is freed when nothing of it is in flight any more.
 */
#include "vmm/control.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/log.h"
#include "vmm/loop.h"
#include "vmm/unix_socket.h"

#define BACKLOG	      64
#define TABLES_MAX    16
#define LINES_AT_ONCE 32
#define QUEUE_LIMIT   (256 << 10) /* unsent bytes above which no further request is taken */
#define RETRY_NS      1000000000ULL
#define GIVE_UP_NS    500000000ULL

struct text {
	char *data;
	size_t used, size;
};

struct client {
	struct control *control;
	struct client *next;
	int fd;
	bool receiving, sending, finished, closing;
	bool skipping; /* the rest of a line that is too long */
	bool failed;   /* it has gone, or there was no memory for an answer */
	bool pumping;  /* pump() is at work: a command that answers at once need not call it */
	unsigned int unanswered;
	size_t in_used, scanned; /* no newline before scanned */
	size_t sent;		 /* of flight */
	struct text queue, flight;
	struct loop_op receive_op, send_op;
	char in[CONTROL_LINE_MAX];
};

struct control_request {
	struct control *control;
	struct client *client; /* NULL: gone */
	struct control_request *next, **link;
	struct control_message message;
};

struct status_part {
	void (*fill)(json_t *status, void *opaque);
	void *opaque;
};

struct table {
	const struct control_command *commands;
	size_t count;
	void *opaque;
};

struct control {
	struct loop *loop;
	const char *path;
	struct unix_socket socket;
	struct table tables[TABLES_MAX];
	size_t nr_tables;
	struct status_part parts[TABLES_MAX];
	size_t nr_parts;
	struct client *clients;
	unsigned int nr_clients;
	struct control_request *requests; /* unanswered */
	bool warned, closed;
	struct loop_op accept_op, retry_op;
	struct __kernel_timespec retry_ts;
};

#define from_member(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static void pump(struct client *c);
static void accept_more(struct control *control);

/* Frees the client as soon as the kernel uses nothing of it. */
static void drop(struct client *c)
{
	struct control *control = c->control;
	struct client **link = &control->clients;

	if (!c->closing) {
		c->closing = true;
		for (struct control_request *r = control->requests; r; r = r->next)
			if (r->client == c)
				r->client = NULL;
		shutdown(c->fd, SHUT_RDWR); /* ends what is in flight */
	}
	if (c->receiving || c->sending)
		return;
	while (*link != c)
		link = &(*link)->next;
	*link = c->next;
	control->nr_clients--;
	close(c->fd);
	free(c->queue.data);
	free(c->flight.data);
	free(c);
}

static bool append(struct text *text, const char *data, size_t length)
{
	if (text->size - text->used < length) {
		size_t size = text->used + length + 4096;
		char *bigger = realloc(text->data, size);

		if (!bigger)
			return false;
		text->data = bigger;
		text->size = size;
	}
	memcpy(text->data + text->used, data, length);
	text->used += length;
	return true;
}

/* Queues an answer line; takes over the reference to result. */
static void put_answer(struct client *c, const json_t *id, json_t *result, const char *error)
{
	size_t length = 0;
	char *line = control_format(id, result, error, &length);

	if (line && length > CONTROL_ANSWER_MAX) {
		free(line);
		line = control_format(id, NULL, "the answer is too long", &length);
	}
	if (!line || !append(&c->queue, line, length))
		c->failed = true;
	free(line);
}

static void finish_request(struct control_request *request, json_t *result, const char *error)
{
	struct client *c = request->client;

	*request->link = request->next;
	if (request->next)
		request->next->link = request->link;
	if (c) {
		c->unanswered--;
		put_answer(c, request->message.id, result, error);
	} else {
		json_decref(result);
	}
	control_message_free(&request->message);
	free(request);
	if (c)
		pump(c);
}

void control_answer(struct control_request *request, json_t *result)
{
	finish_request(request, result, NULL);
}

void control_fail(struct control_request *request, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	finish_request(request, NULL, text);
}

const char *control_string(const struct control_request *request, const char *name, const char *fallback)
{
	const char *value = json_string_value(json_object_get(request->message.arguments, name));

	return value ? value : fallback;
}

bool control_bool(const struct control_request *request, const char *name, bool fallback)
{
	bool value;

	return control_bool_value(json_object_get(request->message.arguments, name), &value) ? value : fallback;
}

int64_t control_number(const struct control_request *request, const char *name, int64_t fallback)
{
	int64_t value;

	return control_number_value(json_object_get(request->message.arguments, name), &value) ? value : fallback;
}

static const struct control_command *find(const struct control *control, const char *name, void **opaque)
{
	for (size_t t = 0; t < control->nr_tables; t++)
		for (size_t i = 0; i < control->tables[t].count; i++)
			if (!strcmp(control->tables[t].commands[i].name, name)) {
				*opaque = control->tables[t].opaque;
				return &control->tables[t].commands[i];
			}
	return NULL;
}

int control_add(struct control *control, const struct control_command *commands, size_t count, void *opaque)
{
	void *other;

	if (!control)
		return 0;
	if (control->nr_tables == TABLES_MAX)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		if (find(control, commands[i].name, &other))
			return -EEXIST;
	control->tables[control->nr_tables++] = (struct table){ commands, count, opaque };
	return 0;
}

int control_add_status(struct control *control, void (*fill)(json_t *status, void *opaque), void *opaque)
{
	if (!control)
		return 0;
	if (control->nr_parts == TABLES_MAX)
		return -ENOMEM;
	control->parts[control->nr_parts++] = (struct status_part){ fill, opaque };
	return 0;
}

void control_fill_status(const struct control_request *request, json_t *status)
{
	const struct control *control = request->control;

	for (size_t i = 0; i < control->nr_parts; i++)
		control->parts[i].fill(status, control->parts[i].opaque);
}

static void run_help(struct control_request *request, void *opaque)
{
	const struct control *control = opaque;
	json_t *list = json_array();

	for (size_t t = 0; t < control->nr_tables; t++)
		for (size_t i = 0; i < control->tables[t].count; i++)
			json_array_append_new(list, control_describe(&control->tables[t].commands[i]));
	control_answer(request, list);
}

/* One line without its newline. */
static void handle_line(struct client *c, const char *line, size_t length)
{
	struct control *control = c->control;
	const struct control_command *command = NULL;
	struct control_message message;
	struct control_request *request;
	char err[256];
	void *opaque = NULL;
	int ret = control_parse(line, length, &message, err, sizeof(err));

	if (!ret) {
		command = find(control, message.command, &opaque);
		if (command)
			ret = control_check(command, message.arguments, err, sizeof(err));
		else
			snprintf(err, sizeof(err), "no command '%s'; help lists them", message.command);
	}
	request = !ret && command ? malloc(sizeof(*request)) : NULL;
	if (!request) {
		put_answer(c, message.id, NULL, ret || !command ? err : "out of memory");
		control_message_free(&message);
		return;
	}
	*request = (struct control_request){ .control = control, .client = c, .message = message };
	request->next = control->requests;
	request->link = &control->requests;
	if (request->next)
		request->next->link = &request->next;
	control->requests = request;
	c->unanswered++;
	command->run(request, opaque);
}

static bool is_blank(const char *line, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
			return false;
	return true;
}

static bool stalled(const struct client *c)
{
	return c->closing || c->failed || c->queue.used + c->flight.used - c->sent > QUEUE_LIMIT ||
	       c->unanswered >= CONTROL_UNANSWERED_MAX;
}

/* Handles lines that are whole. False if one is left for later. */
static bool take_lines(struct client *c)
{
	unsigned int budget = LINES_AT_ONCE;
	size_t start = 0;
	char *newline;

	while ((newline = memchr(c->in + c->scanned, '\n', c->in_used - c->scanned))) {
		size_t length = (size_t)(newline - (c->in + start));

		if (stalled(c) || !budget)
			break;
		if (!c->skipping && !is_blank(c->in + start, length)) {
			handle_line(c, c->in + start, length);
			budget--;
		}
		c->skipping = false;
		start = c->scanned = (size_t)(newline + 1 - c->in);
	}
	c->in_used -= start;
	memmove(c->in, c->in + start, c->in_used);
	c->scanned = newline ? 0 : c->in_used;
	if (c->in_used == sizeof(c->in) && !newline) {
		if (!c->skipping)
			put_answer(c, NULL, NULL, "the request is too long");
		c->skipping = true;
		c->in_used = c->scanned = 0;
	}
	return !newline;
}

static void sent(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct client *c = from_member(op, struct client, send_op);

	(void)cqe_flags;
	c->sending = false;
	if (res > 0)
		c->sent += (size_t)res;
	else if (res != -EINTR && res != -EAGAIN && res != -ECANCELED)
		c->failed = true;
	if (!c->control->closed)
		pump(c);
}

/* A long answer's memory is not kept. */
static void trim(struct text *text)
{
	if (text->size <= QUEUE_LIMIT)
		return;
	free(text->data);
	*text = (struct text){ 0 };
}

/* What is in flight stays where it is; answers gather in the queue meanwhile. False: there is nothing to send. */
static bool next_flight(struct client *c)
{
	struct text empty = c->flight;

	if (c->sent < c->flight.used)
		return true;
	empty.used = c->sent = 0;
	c->flight = c->queue;
	c->queue = empty;
	return c->flight.used != 0;
}

static void send_more(struct client *c)
{
	if (!next_flight(c)) {
		trim(&c->flight);
		trim(&c->queue);
		return;
	}
	c->sending = true;
	io_uring_prep_send(loop_sqe(c->control->loop, &c->send_op), c->fd, c->flight.data + c->sent,
			   c->flight.used - c->sent, MSG_NOSIGNAL);
}

static void received(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct client *c = from_member(op, struct client, receive_op);

	(void)cqe_flags;
	c->receiving = false;
	if (res > 0)
		c->in_used += (size_t)res;
	else if (res != -EINTR && res != -EAGAIN)
		c->finished = true;
	if (!c->control->closed)
		pump(c);
}

static void receive_more(struct client *c)
{
	c->receiving = true;
	io_uring_prep_recv(loop_sqe(c->control->loop, &c->receive_op), c->fd, c->in + c->in_used,
			   sizeof(c->in) - c->in_used, 0);
}

/* The one function that moves a client on; it may free it. */
static void pump(struct client *c)
{
	if (c->pumping)
		return;
	c->pumping = true;
	if (!c->closing && !c->failed && !c->receiving && take_lines(c) && !stalled(c)) {
		if (!c->finished) {
			receive_more(c);
		} else if (c->in_used) {
			if (!c->skipping && !is_blank(c->in, c->in_used))
				put_answer(c, NULL, NULL, "the last line has no end");
			c->in_used = c->scanned = 0;
		}
	}
	if (!c->closing && !c->failed && !c->sending)
		send_more(c);
	c->pumping = false;
	if (c->closing || c->failed || (c->finished && !c->sending && !c->in_used && !c->unanswered))
		drop(c);
}

static void refuse(int fd)
{
	size_t length;
	char *line = control_format(NULL, NULL, "too many clients", &length);
	/* A new connection has room for that much; whether it arrives is the client's affair. */
	ssize_t n = line ? send(fd, line, length, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;

	(void)n;
	free(line);
	close(fd);
}

void control_serve(struct control *control, int fd)
{
	struct client *c = control->nr_clients < CONTROL_CLIENTS_MAX ? calloc(1, sizeof(*c)) : NULL;

	if (!c) {
		refuse(fd);
		return;
	}
	c->control = control;
	c->fd = fd;
	c->receive_op.fn = received;
	c->send_op.fn = sent;
	c->next = control->clients;
	control->clients = c;
	control->nr_clients++;
	pump(c);
}

static void retry(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct control *control = from_member(op, struct control, retry_op);

	(void)res;
	(void)cqe_flags;
	if (!control->closed)
		accept_more(control);
}

static void accepted(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct control *control = from_member(op, struct control, accept_op);

	(void)cqe_flags;
	if (control->closed) {
		if (res >= 0)
			close(res);
		return;
	}
	if (res >= 0) {
		control_serve(control, res);
	} else if (res == -ECANCELED) {
		return;
	} else if (res != -EINTR && res != -EAGAIN && res != -ECONNABORTED) {
		/* No descriptor or no memory: clients wait until there is. */
		if (!control->warned)
			log_line("--control %s: accept: %s", control->path, strerror(-res));
		control->warned = true;
		loop_timer(control->loop, &control->retry_op, &control->retry_ts, RETRY_NS);
		return;
	}
	accept_more(control);
}

static void accept_more(struct control *control)
{
	io_uring_prep_accept(loop_sqe(control->loop, &control->accept_op), control->socket.fd, NULL, NULL,
			     SOCK_CLOEXEC);
}

void control_start(struct control *control)
{
	if (control && control->socket.fd >= 0)
		accept_more(control);
}

static const struct control_command own_commands[] = {
	{ .name = "help", .help = "lists the commands", .run = run_help },
};

struct control *control_create(struct loop *loop, const char *path)
{
	struct control *control = calloc(1, sizeof(*control));
	int ret = control ? 0 : -ENOMEM;

	if (control) {
		control->loop = loop;
		control->path = path;
		control->socket.fd = -1;
		control->accept_op.fn = accepted;
		control->retry_op.fn = retry;
		ret = control_add(control, own_commands, 1, control);
		if (!ret && path)
			ret = unix_socket_listen(&control->socket, path, 0600, BACKLOG);
	}
	if (!ret)
		return control;
	log_line("--control %s: %s", path,
		 ret == -EADDRINUSE ? "somebody listens there already"
		 : ret == -EEXIST   ? "a file that is no socket is in the way"
				    : strerror(-ret));
	control_destroy(control);
	return NULL;
}

/* What the loop has not sent goes out as far as it is taken at once. */
static void send_rest(struct client *c)
{
	while (!c->sending && !c->failed) {
		ssize_t n;

		if (!next_flight(c))
			break;
		n = send(c->fd, c->flight.data + c->sent, c->flight.used - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n <= 0)
			break;
		c->sent += (size_t)n;
	}
}

static bool any_in_flight(const struct control *control)
{
	for (const struct client *c = control->clients; c; c = c->next)
		if (c->receiving || c->sending)
			return true;
	return false;
}

void control_close(struct control *control)
{
	if (!control || control->closed)
		return;
	control->closed = true;
	unix_socket_close(&control->socket);
	/* What was put into the ring but not submitted yet is so now; what is done is seen to be. */
	while (any_in_flight(control) && loop_turn(control->loop, 0))
		;
	for (struct client *c = control->clients; c; c = c->next) {
		send_rest(c);
		shutdown(c->fd, SHUT_RDWR);
	}
	while (any_in_flight(control) && loop_turn(control->loop, GIVE_UP_NS))
		;
	for (struct client *c = control->clients, *next; c; c = next) {
		next = c->next;
		drop(c);
	}
}

void control_destroy(struct control *control)
{
	if (!control)
		return;
	control_close(control);
	for (struct control_request *r = control->requests, *next; r; r = next) {
		next = r->next;
		control_message_free(&r->message);
		free(r);
	}
	free(control);
}
