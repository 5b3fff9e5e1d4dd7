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
 * A client is freed when nothing of it is in flight any more.
 */
#include "vmm/control_client.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINES_AT_ONCE 32
#define QUEUE_LIMIT   (256 << 10) /* unsent bytes above which no further request is taken */
#define GIVE_UP_NS    500000000ULL

static bool append(struct control_text *text, const char *data, size_t length)
{
	if (!text->data || text->size - text->used < length) {
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

void control_client_put(struct control_client *c, const json_t *id, json_t *result, const char *error)
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

static bool is_blank(const char *line, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
			return false;
	return true;
}

static bool stalled(const struct control_client *c)
{
	return c->closing || c->failed || c->queue.used + c->flight.used - c->sent > QUEUE_LIMIT ||
	       c->unanswered >= CONTROL_UNANSWERED_MAX;
}

/* Handles lines that are whole. False if one is left for later. */
static bool take_lines(struct control_client *c)
{
	unsigned int budget = LINES_AT_ONCE;
	size_t start = 0;
	char *newline;

	while ((newline = memchr(c->in + c->scanned, '\n', c->in_used - c->scanned))) {
		size_t length = (size_t)(newline - (c->in + start));

		if (stalled(c) || !budget)
			break;
		if (!c->skipping && !is_blank(c->in + start, length)) {
			control_handle_line(c, c->in + start, length);
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
			control_client_put(c, NULL, NULL, "the request is too long");
		c->skipping = true;
		c->in_used = c->scanned = 0;
	}
	return !newline;
}

/* Frees the client as soon as the kernel uses nothing of it. */
static void drop(struct control_client *c)
{
	struct control *control = c->control;
	struct control_client **link = &control->clients;

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

static void sent(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct control_client *c = control_from_member(op, struct control_client, send_op);

	(void)cqe_flags;
	c->sending = false;
	if (res > 0)
		c->sent += (size_t)res;
	else if (res != -EINTR && res != -EAGAIN && res != -ECANCELED)
		c->failed = true;
	if (!c->control->closed)
		control_client_pump(c);
}

/* A long answer's memory is not kept. */
static void trim(struct control_text *text)
{
	if (text->size <= QUEUE_LIMIT)
		return;
	free(text->data);
	*text = (struct control_text){ 0 };
}

/* What is in flight stays where it is; answers gather in the queue meanwhile. False: there is nothing to send. */
static bool next_flight(struct control_client *c)
{
	struct control_text empty = c->flight;

	if (c->sent < c->flight.used)
		return true;
	empty.used = c->sent = 0;
	c->flight = c->queue;
	c->queue = empty;
	return c->flight.used != 0;
}

static void send_more(struct control_client *c)
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
	struct control_client *c = control_from_member(op, struct control_client, receive_op);

	(void)cqe_flags;
	c->receiving = false;
	if (res > 0)
		c->in_used += (size_t)res;
	else if (res != -EINTR && res != -EAGAIN)
		c->finished = true;
	if (!c->control->closed)
		control_client_pump(c);
}

static void receive_more(struct control_client *c)
{
	c->receiving = true;
	io_uring_prep_recv(loop_sqe(c->control->loop, &c->receive_op), c->fd, c->in + c->in_used,
			   sizeof(c->in) - c->in_used, 0);
}

void control_client_pump(struct control_client *c)
{
	if (c->pumping)
		return;
	c->pumping = true;
	if (!c->closing && !c->failed && !c->receiving && take_lines(c) && !stalled(c)) {
		if (!c->finished) {
			receive_more(c);
		} else if (c->in_used) {
			if (!c->skipping && !is_blank(c->in, c->in_used))
				control_client_put(c, NULL, NULL, "the last line has no end");
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
	struct control_client *c = control->nr_clients < CONTROL_CLIENTS_MAX ? calloc(1, sizeof(*c)) : NULL;

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
	control_client_pump(c);
}

/* What the loop has not sent goes out as far as it is taken at once. */
static void send_rest(struct control_client *c)
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
	for (const struct control_client *c = control->clients; c; c = c->next)
		if (c->receiving || c->sending)
			return true;
	return false;
}

void control_clients_close(struct control *control)
{
	/* What was put into the ring but not submitted yet is so now; what is done is seen to be. */
	while (any_in_flight(control) && loop_turn(control->loop, 0))
		;
	for (struct control_client *c = control->clients; c; c = c->next) {
		send_rest(c);
		shutdown(c->fd, SHUT_RDWR);
	}
	while (any_in_flight(control) && loop_turn(control->loop, GIVE_UP_NS))
		;
	for (struct control_client *c = control->clients, *next; c; c = next) {
		next = c->next;
		drop(c);
	}
}
