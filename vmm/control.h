/* SPDX-License-Identifier: MIT */
/*
 * The control socket: other programs ask about the machine and act on it (docs/control.md). One JSON object a line,
 * request and answer. Everything here runs on the loop thread, except control_create(), control_add() and what comes
 * after the loop's end.
 *
 * The server knows no command by name. Whoever has something to offer adds a table of commands; a command answers at
 * once or keeps its request and answers later.
 */
#ifndef VMM_CONTROL_H
#define VMM_CONTROL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct control;
struct loop;

#define CONTROL_LINE_MAX       65536	 /* bytes of a request with its newline */
#define CONTROL_ANSWER_MAX     (1 << 20) /* bytes of an answer; a larger one becomes an error */
#define CONTROL_CLIENTS_MAX    64
#define CONTROL_ARGUMENTS_MAX  6 /* that a command can take */
#define CONTROL_UNANSWERED_MAX 8 /* requests of one client that wait for their answer */

enum control_kind { CONTROL_STRING, CONTROL_BOOL, CONTROL_NUMBER };

struct control_argument {
	const char *name; /* NULL ends the list */
	enum control_kind kind;
	bool required;
	const char *values; /* a string's only values, as "one|two"; NULL: any */
	const char *help;
};

struct control_request;

struct control_command {
	const char *name;
	const char *help;
	/*
	 * Called with arguments that fit the list below. Must see to it that control_answer() or control_fail() is
	 * called for the request exactly once: now, or later. Until then the request is valid, also when its client
	 * has gone and, at the end of the run, until control_destroy().
	 */
	void (*run)(struct control_request *request, void *opaque);
	struct control_argument arguments[CONTROL_ARGUMENTS_MAX + 1];
};

/*
 * Creates the server with the one command "help", and listens at path (mode 0600; a socket that nobody listens at any
 * more is replaced); NULL: at nothing. NULL after printing one line with the option's name.
 */
struct control *control_create(struct loop *loop, const char *path);

/*
 * Offers count commands; the table stays the caller's and must live as long as the server. Each is called with opaque.
 * Returns 0, -EEXIST for a name that is there already, -ENOMEM. A NULL server takes none and returns 0, so that a
 * module need not ask whether there is one.
 */
int control_add(struct control *control, const struct control_command *commands, size_t count, void *opaque);

/*
 * What a module has to say in the answer to "status": fill() adds to the object, on the loop thread. Returns 0 or
 * -ENOMEM. control_fill_status() calls all of them.
 */
int control_add_status(struct control *control, void (*fill)(json_t *status, void *opaque), void *opaque);
void control_fill_status(const struct control_request *request, json_t *status);

/* The loop runs: clients are let in from now on. NULL does nothing. */
void control_start(struct control *control);

/* Serves a connected stream socket, which the server owns from here on. */
void control_serve(struct control *control, int fd);

/*
 * The loop has ended: sends what clients still take without waiting, closes all connections and removes the socket
 * file. Requests that are still unanswered may be answered, into the void, until control_destroy(), which is due
 * after all that could answer have gone. NULL is fine for both.
 */
void control_close(struct control *control);
void control_destroy(struct control *control);

/* Answers; the request is gone after that. Takes over the reference to result; NULL stands for an empty object. */
void control_answer(struct control_request *request, json_t *result);
void control_fail(struct control_request *request, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Arguments of a request, valid as long as it is; the default if it was not given. */
const char *control_string(const struct control_request *request, const char *name, const char *fallback);
bool control_bool(const struct control_request *request, const char *name, bool fallback);
int64_t control_number(const struct control_request *request, const char *name, int64_t fallback);

/*
 * The parts that know no socket (control_request.c).
 *
 * A request line, parsed: control_parse() returns 0, or -EINVAL with one sentence in err. *message is valid either way,
 * as far as it could be read, until control_message_free().
 */
struct control_message {
	json_t *root;
	const json_t *id;	 /* string or number to be echoed, or NULL */
	const char *command;	 /* NULL after an error */
	const json_t *arguments; /* object or NULL */
};
int control_parse(const char *line, size_t length, struct control_message *message, char *err, size_t errlen);
void control_message_free(struct control_message *message);

/* Do the arguments fit the command? 0, or -EINVAL with one sentence in err. */
int control_check(const struct control_command *command, const json_t *arguments, char *err, size_t errlen);
bool control_bool_value(const json_t *value, bool *result);
bool control_number_value(const json_t *value, int64_t *result);

/*
 * The line to send, newline included, for the caller to free; NULL when out of memory. Takes over the reference to
 * result. error: NULL for success; may hold any bytes. id may be NULL.
 */
char *control_format(const json_t *id, json_t *result, const char *error, size_t *length);

/* The description of a command that "help" lists. */
json_t *control_describe(const struct control_command *command);

#endif
