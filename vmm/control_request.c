/* SPDX-License-Identifier: MIT */
/* Request and answer lines of the control socket: text and JSON values, no sockets. */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/control.h"

static int fail(char *err, size_t errlen, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static int fail(char *err, size_t errlen, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err, errlen, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static bool is_id(const json_t *value)
{
	return json_is_string(value) || json_is_number(value);
}

/* Every key must be known: a misspelt one is not to be taken for one left out. */
static int check_keys(json_t *root, char *err, size_t errlen)
{
	const char *key;
	json_t *value;

	json_object_foreach(
		root, key,
		value) if (strcmp(key, "id") != 0 && strcmp(key, "command") != 0 &&
			   strcmp(key, "arguments") !=
				   0) return fail(err, errlen,
						  "unknown key '%s'; a request has id, command and arguments", key);
	value = json_object_get(root, "id");
	if (value && !json_is_null(value) && !is_id(value))
		return fail(err, errlen, "id must be a string or a number");
	if (!json_is_string(json_object_get(root, "command")))
		return fail(err, errlen, "command must be a string");
	value = json_object_get(root, "arguments");
	if (value && !json_is_object(value))
		return fail(err, errlen, "arguments must be an object");
	return 0;
}

int control_parse(const char *line, size_t length, struct control_message *message, char *err, size_t errlen)
{
	json_error_t error;
	const json_t *id;
	int ret;

	memset(message, 0, sizeof(*message));
	/* jansson bounds the depth, and refuses numbers out of range and text that is no UTF-8. */
	message->root = json_loadb(line, length, JSON_REJECT_DUPLICATES, &error);
	if (!message->root)
		return fail(err, errlen, "not JSON: %s", error.text);
	if (!json_is_object(message->root))
		return fail(err, errlen, "not a JSON object");
	id = json_object_get(message->root, "id");
	message->id = is_id(id) ? id : NULL;
	ret = check_keys(message->root, err, errlen);
	if (!ret) {
		message->command = json_string_value(json_object_get(message->root, "command"));
		message->arguments = json_object_get(message->root, "arguments");
	}
	return ret;
}

void control_message_free(struct control_message *message)
{
	json_decref(message->root);
	memset(message, 0, sizeof(*message));
}

/* Values may come as text, as a command line has them. */
bool control_bool_value(const json_t *value, bool *result)
{
	const char *text = json_string_value(value);

	*result = json_is_true(value) || (text && (!strcmp(text, "true") || !strcmp(text, "on")));
	return *result || json_is_false(value) || (text && (!strcmp(text, "false") || !strcmp(text, "off")));
}

bool control_number_value(const json_t *value, int64_t *result)
{
	const char *text = json_string_value(value);
	char *end;

	if (json_is_integer(value)) {
		*result = json_integer_value(value);
		return true;
	}
	if (!text || !(isdigit((unsigned char)text[0]) || (text[0] == '-' && isdigit((unsigned char)text[1]))))
		return false;
	errno = 0;
	*result = strtoll(text, &end, 10);
	return !errno && !*end;
}

/* Is the value one of "one|two|three"? */
static bool one_of(const char *value, const char *list)
{
	size_t length = strlen(value);

	while (length) {
		size_t n = strcspn(list, "|");

		if (n == length && !memcmp(list, value, n))
			return true;
		if (!list[n])
			break;
		list += n + 1;
	}
	return false;
}

static int check_value(const struct control_argument *a, const json_t *value, char *err, size_t errlen)
{
	int64_t number;
	bool flag;

	switch (a->kind) {
	case CONTROL_STRING:
		if (!json_is_string(value))
			return fail(err, errlen, "%s must be a string", a->name);
		if (a->values && !one_of(json_string_value(value), a->values))
			return fail(err, errlen, "%s must be one of %s", a->name, a->values);
		break;
	case CONTROL_BOOL:
		if (!control_bool_value(value, &flag))
			return fail(err, errlen, "%s must be true or false", a->name);
		break;
	case CONTROL_NUMBER:
		if (!control_number_value(value, &number))
			return fail(err, errlen, "%s must be a whole number", a->name);
		break;
	}
	return 0;
}

static const struct control_argument *find_argument(const struct control_command *command, const char *name)
{
	for (const struct control_argument *a = command->arguments; a->name; a++)
		if (!strcmp(a->name, name))
			return a;
	return NULL;
}

int control_check(const struct control_command *command, const json_t *arguments, char *err, size_t errlen)
{
	const char *key;
	json_t *value;
	int ret = 0;

	json_object_foreach((json_t *)arguments, key, value)
	{
		const struct control_argument *a = find_argument(command, key);

		ret = a ? check_value(a, value, err, errlen)
			: fail(err, errlen, "%s has no argument '%s'", command->name, key);
		if (ret)
			return ret;
	}
	for (const struct control_argument *a = command->arguments; a->name; a++)
		if (a->required && !json_object_get(arguments, a->name))
			return fail(err, errlen, "%s needs the argument %s: %s", command->name, a->name, a->help);
	return 0;
}

/* An error may quote what was received, or be cut off within a character: JSON has to be UTF-8. */
static json_t *error_string(const char *error)
{
	json_t *string = json_string(error);
	char *copy;

	if (string)
		return string;
	copy = strdup(error);
	if (!copy)
		return NULL;
	for (char *p = copy; *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	string = json_string(copy);
	free(copy);
	return string;
}

char *control_format(const json_t *id, json_t *result, const char *error, size_t *length)
{
	json_t *answer = json_object();
	char *text, *line = NULL;

	json_object_set_new(answer, "id", id ? json_incref((json_t *)id) : json_null());
	json_object_set_new(answer, "ok", json_boolean(!error));
	if (error)
		json_object_set_new(answer, "error", error_string(error));
	else
		json_object_set_new(answer, "result", result ? json_incref(result) : json_object());
	json_decref(result);
	text = json_dumps(answer, JSON_COMPACT | JSON_REAL_PRECISION(9));
	json_decref(answer);
	if (text) {
		*length = strlen(text) + 1;
		line = realloc(text, *length + 1);
		if (line)
			memcpy(line + *length - 1, "\n", 2);
		else
			free(text);
	}
	return line;
}

json_t *control_describe(const struct control_command *command)
{
	static const char *const kinds[] = {
		[CONTROL_STRING] = "string", [CONTROL_BOOL] = "boolean", [CONTROL_NUMBER] = "number"
	};
	json_t *object = json_object(), *arguments = json_array();

	json_object_set_new(object, "name", json_string(command->name));
	json_object_set_new(object, "help", json_string(command->help));
	for (const struct control_argument *a = command->arguments; a->name; a++) {
		json_t *argument = json_object();

		json_object_set_new(argument, "name", json_string(a->name));
		json_object_set_new(argument, "type", json_string(kinds[a->kind]));
		json_object_set_new(argument, "required", json_boolean(a->required));
		if (a->values)
			json_object_set_new(argument, "values", json_string(a->values));
		json_object_set_new(argument, "help", json_string(a->help));
		json_array_append_new(arguments, argument);
	}
	json_object_set_new(object, "arguments", arguments);
	return object;
}
