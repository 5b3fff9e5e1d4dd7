/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * The socket that clients come by (control_client.c has each of them), the tables of commands, and the requests. A
 * request is a handle that its command may keep. It outlives its client (the answer then goes nowhere) and the loop.
 */
#include "vmm/control_client.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/log.h"

#define BACKLOG	 64
#define RETRY_NS 1000000000ULL

static void accept_more(struct control *control);

static void finish_request(struct control_request *request, json_t *result, const char *error)
{
	struct control_client *c = request->client;

	*request->link = request->next;
	if (request->next)
		request->next->link = request->link;
	if (c) {
		c->unanswered--;
		control_client_put(c, request->message.id, result, error);
	} else {
		json_decref(result);
	}
	control_message_free(&request->message);
	free(request);
	if (c)
		control_client_pump(c);
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
	if (control->nr_tables == CONTROL_TABLES_MAX)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		if (find(control, commands[i].name, &other))
			return -EEXIST;
	control->tables[control->nr_tables++] = (struct control_table){ commands, count, opaque };
	return 0;
}

int control_add_status(struct control *control, void (*fill)(json_t *status, void *opaque), void *opaque)
{
	if (!control)
		return 0;
	if (control->nr_parts == CONTROL_TABLES_MAX)
		return -ENOMEM;
	control->parts[control->nr_parts++] = (struct control_part){ fill, opaque };
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

void control_handle_line(struct control_client *c, const char *line, size_t length)
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
		control_client_put(c, message.id, NULL, ret || !command ? err : "out of memory");
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

static void retry(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct control *control = control_from_member(op, struct control, retry_op);

	(void)res;
	(void)cqe_flags;
	if (!control->closed)
		accept_more(control);
}

static void accepted(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct control *control = control_from_member(op, struct control, accept_op);

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

void control_close(struct control *control)
{
	if (!control || control->closed)
		return;
	control->closed = true;
	unix_socket_close(&control->socket);
	control_clients_close(control);
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
