/* SPDX-License-Identifier: MIT */
#include "vmm/ctl.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "vmm/control.h"
#include "vmm/log.h"
#include "vmm/unix_socket.h"
#include "vmm/vm.h"

struct call {
	const char *path;
	const char *command;
	json_t *arguments;
	bool json;
	uint64_t deadline_ns; /* 0: none */
};

static void usage(void)
{
	puts("usage: vmm ctl [--json] [--timeout SECONDS] PATH COMMAND [KEY=VALUE]...\n"
	     "Gives a command to the vmm that was started with --control PATH.\n"
	     "\n"
	     "  --json              print the result as one line of JSON\n"
	     "  --timeout SECONDS   give up, with status 124, after this time\n"
	     "\n"
	     "'vmm ctl PATH help' lists the commands. The result is printed as text if it is a\n"
	     "text, else as JSON. Exit status: 0 done, 1 not done (standard error says why).");
}

/* "key=value" to a member of the arguments; values are text, which vmm converts. */
static int add_argument(struct call *call, const char *text)
{
	const char *equals = strchr(text, '=');
	char *key = equals && equals != text ? strndup(text, (size_t)(equals - text)) : NULL;
	int ret = -1;

	if (!key)
		log_line("ctl: '%s' should be KEY=VALUE", text);
	else if (json_object_get(call->arguments, key))
		log_line("ctl: %s is given twice", key);
	else if (json_object_set_new(call->arguments, key, json_string(equals + 1)))
		log_line("ctl: '%s' is not UTF-8", text);
	else
		ret = 0;
	free(key);
	return ret;
}

static int set_timeout(struct call *call, const char *value)
{
	double seconds = 0;
	char *end = NULL;

	if (value && isdigit((unsigned char)value[0]))
		seconds = strtod(value, &end);
	if (!end || *end || !(seconds > 0) || seconds > 1e9) {
		log_line("ctl: --timeout %s: must be a number of seconds above 0", value ? value : "");
		return -1;
	}
	call->deadline_ns = clock_ns() + (uint64_t)(seconds * 1e9);
	return 0;
}

/* 0, 1 if only help was wanted, or -1 after printing what is wrong. */
static int parse(struct call *call, int argc, char **argv)
{
	int at = 1;

	while (at < argc && argv[at][0] == '-') {
		if (!strcmp(argv[at], "--help") || !strcmp(argv[at], "-h"))
			return 1;
		if (!strcmp(argv[at], "--json")) {
			call->json = true;
			at++;
		} else if (!strcmp(argv[at], "--timeout")) {
			if (set_timeout(call, argv[at + 1]))
				return -1;
			at += 2;
		} else {
			log_line("ctl: %s: no such option (see vmm ctl --help)", argv[at]);
			return -1;
		}
	}
	if (argc - at < 2) {
		log_line("ctl: PATH and COMMAND are missing (see vmm ctl --help)");
		return -1;
	}
	call->path = argv[at];
	call->command = argv[at + 1];
	for (at += 2; at < argc; at++)
		if (add_argument(call, argv[at]))
			return -1;
	return 0;
}

static int write_all(int fd, const char *data, size_t length)
{
	while (length) {
		ssize_t n = send(fd, data, length, MSG_NOSIGNAL);

		if (n < 0)
			return -errno;
		data += n;
		length -= (size_t)n;
	}
	return 0;
}

static int send_request(int fd, const struct call *call)
{
	json_t *request = json_pack("{s:i,s:s,s:O}", "id", 1, "command", call->command, "arguments", call->arguments);
	char *line = request ? json_dumps(request, JSON_COMPACT) : NULL;
	size_t length = line ? strlen(line) : 0;
	int ret = -EILSEQ; /* of what can go wrong here, the likely one */

	if (line) {
		line[length] = '\n'; /* in place of the terminator */
		ret = length < CONTROL_LINE_MAX ? write_all(fd, line, length + 1) : -EMSGSIZE;
	}
	free(line);
	json_decref(request);
	return ret;
}

/* Waits until there is something to read. 0, -ETIME, or -errno. */
static int wait_readable(int fd, uint64_t deadline_ns)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int ret;

	do {
		uint64_t now = clock_ns(), left = deadline_ns > now ? deadline_ns - now : 0;
		struct timespec ts = { (time_t)(left / 1000000000), (long)(left % 1000000000) };

		ret = ppoll(&p, 1, deadline_ns ? &ts : NULL, NULL);
	} while (ret < 0 && errno == EINTR);
	return ret > 0 ? 0 : ret == 0 ? -ETIME : -errno;
}

/* The answer line, for the caller to free; NULL with *error set. A server that is not ours is not trusted either. */
static char *receive_line(int fd, uint64_t deadline_ns, int *error)
{
	char *line = malloc(CONTROL_ANSWER_MAX + 1);
	size_t used = 0;

	*error = line ? 0 : -ENOMEM;
	while (!*error) {
		ssize_t n;

		*error = wait_readable(fd, deadline_ns);
		if (*error)
			break;
		n = recv(fd, line + used, CONTROL_ANSWER_MAX - used, 0);
		if (n <= 0) {
			*error = n < 0 ? -errno : -ECONNRESET;
			break;
		}
		used += (size_t)n;
		line[used] = '\0';
		if (line[used - 1] == '\n')
			return line;
		if (used == CONTROL_ANSWER_MAX)
			*error = -EMSGSIZE;
	}
	free(line);
	return NULL;
}

static void print_commands(const json_t *list)
{
	size_t i, j;
	json_t *command, *argument;

	json_array_foreach((json_t *)list, i, command)
	{
		printf("%-14s %s\n", json_string_value(json_object_get(command, "name")),
		       json_string_value(json_object_get(command, "help")));
		json_array_foreach(json_object_get(command, "arguments"), j, argument)
		{
			const char *values = json_string_value(json_object_get(argument, "values"));
			bool required = json_is_true(json_object_get(argument, "required"));

			printf("%15s%s%s=%s%s  %s\n", "", required ? "" : "[",
			       json_string_value(json_object_get(argument, "name")),
			       values ? values : json_string_value(json_object_get(argument, "type")),
			       required ? "" : "]", json_string_value(json_object_get(argument, "help")));
		}
	}
}

static int print_result(const struct call *call, const json_t *result)
{
	int ret = 0;

	if (call->json)
		ret = json_dumpf(result, stdout, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
	else if (json_is_object(result) && !json_object_size(result))
		return 0;
	else if (!strcmp(call->command, "help") && json_is_array(result))
		print_commands(result);
	else if (json_is_string(result))
		ret = fputs(json_string_value(result), stdout) < 0;
	else
		ret = json_dumpf(result, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
	if (strcmp(call->command, "help") != 0 || call->json)
		ret |= putchar('\n') == EOF;
	if (ret || fflush(stdout)) {
		log_line("ctl: writing the result: %s", strerror(errno));
		return STATUS_HOST_FAILURE;
	}
	return STATUS_OK;
}

static int take_answer(const struct call *call, const char *line)
{
	json_t *answer = json_loads(line, 0, NULL);
	const char *error = json_string_value(json_object_get(answer, "error"));
	const json_t *result = json_object_get(answer, "result");
	int status = STATUS_HOST_FAILURE;

	if (result && json_is_true(json_object_get(answer, "ok")))
		status = print_result(call, result);
	else if (error)
		log_line("ctl: %s: %s", call->command, error);
	else
		log_line("ctl: %s: the answer is none of vmm's", call->path);
	json_decref(answer);
	return status;
}

static int do_call(const struct call *call)
{
	int fd = unix_socket_connect(call->path), ret = fd, status;
	char *line = NULL;

	if (fd >= 0) {
		ret = send_request(fd, call);
		/* A server that is full says so before it has read anything. */
		if (!ret || ret == -EPIPE)
			line = receive_line(fd, call->deadline_ns, &ret);
		close(fd);
	}
	if (line) {
		status = take_answer(call, line);
	} else {
		log_line("ctl: %s: %s", call->path,
			 ret == -ETIME		? "no answer in time"
			 : ret == -ECONNRESET	? "vmm ended without an answer"
			 : ret == -ECONNREFUSED ? "nobody listens there"
			 : ret == -EILSEQ	? "the request is not UTF-8"
						: strerror(-ret));
		status = ret == -ETIME ? STATUS_TIMEOUT : STATUS_HOST_FAILURE;
	}
	free(line);
	return status;
}

int ctl_main(int argc, char **argv)
{
	struct call call = { .arguments = json_object() };
	int ret = parse(&call, argc, argv), status = STATUS_HOST_FAILURE;

	if (ret > 0) {
		usage();
		status = STATUS_OK;
	} else if (!ret) {
		status = do_call(&call);
	}
	json_decref(call.arguments);
	return status;
}
