/* SPDX-License-Identifier: MIT */
/* The control socket's server on a real ring, with commands of this test's, and the parsing of its lines. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/control.h"
#include "vmm/log.h"
#include "vmm/loop.h"
#include "vmm/unix_socket.h"

#define TURN_NS 20000000ULL
#define BIG	(CONTROL_ANSWER_MAX - 1000)

static char logged[256];

void log_line(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(logged, sizeof(logged), fmt, ap);
	va_end(ap);
}

struct fixture {
	struct loop loop;
	struct control *control;
	char directory[32], path[64];
	struct control_request *kept[CONTROL_UNANSWERED_MAX + 4];
	unsigned int nr_kept, runs;
};

static void run_echo(struct control_request *request, void *opaque)
{
	struct fixture *f = opaque;

	f->runs++;
	control_answer(request, json_pack("{s:s,s:b,s:I}", "text", control_string(request, "text", "none"), "flag",
					  control_bool(request, "flag", false), "number",
					  (json_int_t)control_number(request, "number", 7)));
}

static void run_keep(struct control_request *request, void *opaque)
{
	struct fixture *f = opaque;

	assert_true(f->nr_kept < sizeof(f->kept) / sizeof(f->kept[0]));
	f->kept[f->nr_kept++] = request;
}

static void run_big(struct control_request *request, void *opaque)
{
	size_t size = (size_t)control_number(request, "size", BIG);
	char *text = malloc(size + 1);

	(void)opaque;
	memset(text, 'x', size);
	text[size] = '\0';
	control_answer(request, json_string(text));
	free(text);
}

static void run_fail(struct control_request *request, void *opaque)
{
	(void)opaque;
	control_fail(request, "cut off: \xc3");
}

static const struct control_command commands[] = {
	{ .name = "echo",
	  .help = "answers",
	  .run = run_echo,
	  .arguments = { { .name = "text", .values = "none|a|bc", .help = "t" },
			 { .name = "flag", .kind = CONTROL_BOOL, .help = "f" },
			 { .name = "number", .kind = CONTROL_NUMBER, .help = "n" } } },
	{ .name = "keep", .help = "waits", .run = run_keep },
	{ .name = "big",
	  .help = "much",
	  .run = run_big,
	  .arguments = { { .name = "size", .kind = CONTROL_NUMBER, .required = true, .help = "bytes" } } },
	{ .name = "fail", .help = "fails", .run = run_fail },
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->directory, "/tmp/vmm-control-XXXXXX");
	assert_non_null(mkdtemp(f->directory));
	snprintf(f->path, sizeof(f->path), "%s/socket", f->directory);
	loop_init(&f->loop);
	assert_int_equal(loop_start(&f->loop), 0);
	f->control = control_create(&f->loop, f->path);
	assert_non_null(f->control);
	assert_int_equal(control_add(f->control, commands, sizeof(commands) / sizeof(commands[0]), f), 0);
	control_start(f->control);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	control_close(f->control);
	assert_int_equal(access(f->path, F_OK), -1);
	control_destroy(f->control);
	loop_destroy(&f->loop);
	assert_int_equal(rmdir(f->directory), 0);
	free(f);
	return 0;
}

static void turn(struct fixture *f)
{
	while (loop_turn(&f->loop, TURN_NS))
		;
}

static int client(struct fixture *f)
{
	int fd = unix_socket_connect(f->path);

	assert_true(fd >= 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	turn(f);
	return fd;
}

static void say(struct fixture *f, int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
	turn(f);
}

/* All that the server has sent; "" for nothing, NULL when it has closed the connection. The caller's. */
static char *hear(struct fixture *f, int fd)
{
	size_t used = 0, size = 1 << 16;
	char *text = malloc(size);
	ssize_t n;

	for (;;) {
		n = recv(fd, text + used, size - used - 1, 0);
		if (n > 0)
			used += (size_t)n;
		else if (n == 0 || errno == ECONNRESET || !loop_turn(&f->loop, TURN_NS))
			break;
		if (size - used < 4096)
			text = realloc(text, size *= 2);
	}
	text[used] = '\0';
	if (!used && n == 0) {
		free(text);
		return NULL;
	}
	return text;
}

static void expect(struct fixture *f, int fd, const char *wanted)
{
	char *text = hear(f, fd);

	assert_non_null(text);
	assert_string_equal(text, wanted);
	free(text);
}

static void expect_error(struct fixture *f, int fd, const char *part)
{
	char *text = hear(f, fd);

	assert_non_null(text);
	assert_non_null(strstr(text, "\"ok\":false"));
	if (!strstr(text, part))
		fail_msg("'%s' is not in '%s'", part, text);
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
	free(text);
}

static void expect_closed(struct fixture *f, int fd)
{
	char *text = hear(f, fd);

	assert_null(text);
	close(fd);
}

#define ECHO "{\"id\":1,\"ok\":true,\"result\":{\"text\":\"none\",\"flag\":false,\"number\":7}}\n"

static void test_answers(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);

	say(f, fd, "{\"id\":1,\"command\":\"echo\"}\n");
	expect(f, fd, ECHO);
	say(f, fd, "{\"id\":\"x\",\"command\":\"echo\",\"arguments\":{\"text\":\"bc\",\"flag\":true,\"number\":-5}}\n");
	expect(f, fd, "{\"id\":\"x\",\"ok\":true,\"result\":{\"text\":\"bc\",\"flag\":true,\"number\":-5}}\n");
	say(f, fd, "{\"command\":\"echo\",\"arguments\":{\"flag\":\"on\",\"number\":\"12\"}}\r\n");
	expect(f, fd, "{\"id\":null,\"ok\":true,\"result\":{\"text\":\"none\",\"flag\":true,\"number\":12}}\n");
	close(fd);
}

static void test_refuses(void **state)
{
	static const struct {
		const char *line, *part;
	} cases[] = {
		{ "x", "not JSON" },
		{ "\"text\"", "not JSON" },
		{ "[1]", "not a JSON object" },
		{ "{\"command\":\"echo\"", "not JSON" },
		{ "{\"command\":\"echo\"} {}", "not JSON" },
		{ "{\"command\":\"echo\",\"command\":\"keep\"}", "not JSON: duplicate" },
		{ "{\"command\":\"\xff\"}", "not JSON" },
		{ "{\"command\":\"a\\u0000b\"}", "not JSON" },
		{ "{\"id\":99999999999999999999,\"command\":\"echo\"}", "not JSON" },
		{ "{\"id\":[1],\"command\":\"echo\"}", "id must be" },
		{ "{\"id\":5}", "{\"id\":5,\"ok\":false,\"error\":\"command must be a string" },
		{ "{\"id\":5,\"command\":1}", "command must be a string" },
		{ "{\"id\":5,\"command\":\"echo\",\"arguments\":[]}", "arguments must be an object" },
		{ "{\"id\":5,\"command\":\"echo\",\"args\":{}}", "unknown key 'args'" },
		{ "{\"id\":5,\"command\":\"nothing\"}", "no command 'nothing'" },
		{ "{\"command\":\"keep\",\"arguments\":{\"a\":1}}", "keep has no argument 'a'" },
		{ "{\"command\":\"echo\",\"arguments\":{\"text\":1}}", "text must be a string" },
		{ "{\"command\":\"echo\",\"arguments\":{\"text\":\"b\"}}", "text must be one of none|a|bc" },
		{ "{\"command\":\"echo\",\"arguments\":{\"text\":\"\"}}", "text must be one of" },
		{ "{\"command\":\"echo\",\"arguments\":{\"flag\":\"yes\"}}", "flag must be true or false" },
		{ "{\"command\":\"echo\",\"arguments\":{\"number\":1.5}}", "number must be a whole number" },
		{ "{\"command\":\"echo\",\"arguments\":{\"number\":\"99999999999999999999\"}}", "whole number" },
		{ "{\"command\":\"echo\",\"arguments\":{\"number\":\"\"}}", "whole number" },
		{ "{\"command\":\"big\"}", "big needs the argument size" },
		{ "{\"command\":\"fail\"}", "cut off: ?" },
	};
	struct fixture *f = *state;
	int fd = client(f);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		say(f, fd, cases[i].line);
		say(f, fd, "\n");
		expect_error(f, fd, cases[i].part);
	}
	assert_int_equal(f->runs, 0);
	say(f, fd, "{\"id\":1,\"command\":\"echo\"}\n");
	expect(f, fd, ECHO);
	close(fd);
}

static void test_long_names(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);
	char line[2048] = "{\"command\":\"";

	/* An error that is cut off within a character stays UTF-8. */
	for (unsigned int i = 0; i < 500; i++)
		strcat(line, "\xe2\x82\xac");
	strcat(line, "\"}\n");
	say(f, fd, line);
	expect_error(f, fd, "no command '");
	close(fd);
}

static void test_nesting(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);
	char *line = malloc(60002);

	memset(line, '[', 60000);
	strcpy(line + 60000, "\n");
	say(f, fd, line);
	expect_error(f, fd, "not JSON");
	for (unsigned int i = 0; i < 10000; i++)
		memcpy(line + 5 * i, "{\"a\":", 5);
	strcpy(line + 50000, "\n");
	say(f, fd, line);
	expect_error(f, fd, "not JSON");
	free(line);
	close(fd);
}

static void test_pieces(void **state)
{
	static const char text[] = "\n  \n{\"id\":1,\"command\":\"echo\"}\n{\"id\":1,\"command\":\"echo\"}\n";
	struct fixture *f = *state;
	int fd = client(f);

	for (const char *p = text; *p; p++) {
		assert_int_equal(send(fd, p, 1, MSG_NOSIGNAL), 1);
		while (loop_turn(&f->loop, 1000000))
			;
	}
	expect(f, fd, ECHO ECHO);
	close(fd);
}

static void test_long_lines(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);
	char *line = malloc(CONTROL_LINE_MAX + 1);

	/* The longest line there may be: white space is allowed after the object. */
	memset(line, ' ', CONTROL_LINE_MAX);
	memcpy(line, "{\"id\":1,\"command\":\"echo\"}", 25);
	strcpy(line + CONTROL_LINE_MAX - 1, "\n");
	say(f, fd, line);
	expect(f, fd, ECHO);
	/* One byte more, and many more: one error, and the rest of the line is nothing. */
	strcpy(line + CONTROL_LINE_MAX - 1, " ");
	say(f, fd, line);
	expect_error(f, fd, "{\"id\":null,\"ok\":false,\"error\":\"the request is too long");
	for (unsigned int i = 0; i < 5; i++)
		say(f, fd, line);
	say(f, fd, "\n{\"id\":1,\"command\":\"echo\"}\n");
	expect(f, fd, ECHO);
	free(line);
	close(fd);
}

static void test_half_closed(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);

	say(f, fd, "{\"id\":2,\"command\":\"keep\"}\n{\"id\":1,\"command\":\"echo\"}\n{\"id\":");
	shutdown(fd, SHUT_WR);
	turn(f);
	expect(f, fd, ECHO "{\"id\":null,\"ok\":false,\"error\":\"the last line has no end\"}\n");
	control_answer(f->kept[0], NULL);
	expect(f, fd, "{\"id\":2,\"ok\":true,\"result\":{}}\n");
	expect_closed(f, fd);
}

static void test_client_gone(void **state)
{
	struct fixture *f = *state;
	int fd = client(f), other = client(f);

	say(f, fd, "{\"id\":2,\"command\":\"keep\"}\n");
	say(f, other, "{\"id\":3,\"command\":\"keep\"}\n");
	close(fd);
	turn(f);
	control_answer(f->kept[0], json_string("lost"));
	turn(f);
	control_fail(f->kept[1], "why %d", 5);
	expect(f, other, "{\"id\":3,\"ok\":false,\"error\":\"why 5\"}\n");
	close(other);
}

static void test_server_gone(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);

	say(f, fd, "{\"command\":\"keep\"}\n{\"command\":\"keep\"}\n{\"id\":1,\"command\":\"echo\"}\n");
	control_close(f->control);
	expect(f, fd, ECHO);
	expect_closed(f, fd);
	/* One is answered after the connection has gone, the other one never. */
	control_answer(f->kept[0], json_string("late"));
}

static void test_last_words(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);

	say(f, fd, "{\"id\":2,\"command\":\"keep\"}\n");
	control_answer(f->kept[0], NULL); /* the loop does not turn again */
	control_close(f->control);
	expect(f, fd, "{\"id\":2,\"ok\":true,\"result\":{}}\n");
	expect_closed(f, fd);
}

static void test_unanswered(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);
	unsigned int i;

	/* Only so many requests of a client wait at once; the others come after them. */
	for (i = 0; i < CONTROL_UNANSWERED_MAX + 2; i++)
		say(f, fd, "{\"command\":\"keep\"}\n");
	assert_int_equal(f->nr_kept, CONTROL_UNANSWERED_MAX);
	control_answer(f->kept[3], NULL);
	turn(f);
	assert_int_equal(f->nr_kept, CONTROL_UNANSWERED_MAX + 1);
	control_answer(f->kept[0], NULL);
	turn(f);
	assert_int_equal(f->nr_kept, CONTROL_UNANSWERED_MAX + 2);
	for (i = 0; i < f->nr_kept; i++)
		if (i != 3 && i != 0)
			control_answer(f->kept[i], NULL);
	free(hear(f, fd));
	close(fd);
}

static size_t count(const char *text, const char *part)
{
	size_t n = 0;

	for (const char *p = text; (p = strstr(p, part)); p++)
		n++;
	return n;
}

static void test_slow_reader(void **state)
{
	struct fixture *f = *state;
	int slow = client(f), quick = client(f);
	unsigned int asked = 0;
	char *text;

	/* One that does not read: at some time it is not read from, and its answers wait. */
	for (;;) {
		if (send(slow, "{\"id\":1,\"command\":\"echo\"}\n", 26, MSG_NOSIGNAL) == 26)
			asked++;
		else if (!loop_turn(&f->loop, TURN_NS))
			break;
		assert_true(asked < 1000000);
	}
	turn(f);
	assert_true(f->runs > 1000 && f->runs < asked);
	say(f, quick, "{\"id\":1,\"command\":\"echo\"}\n");
	expect(f, quick, ECHO);
	text = hear(f, slow);
	assert_int_equal(count(text, "\n"), asked);
	assert_int_equal(count(text, ECHO), asked);
	free(text);
	close(slow);
	close(quick);
}

static void test_slow_reader_dies(void **state)
{
	struct fixture *f = *state;
	int slow = client(f);

	for (unsigned int i = 0; i < 4; i++)
		say(f, slow, "{\"command\":\"big\",\"arguments\":{\"size\":1000000}}\n");
	close(slow);
	turn(f);
	slow = client(f);
	say(f, slow, "{\"id\":1,\"command\":\"echo\"}\n");
	expect(f, slow, ECHO);
	close(slow);
}

static void test_big_answers(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);
	char *text, line[100];

	snprintf(line, sizeof(line), "{\"id\":9,\"command\":\"big\",\"arguments\":{\"size\":%d}}\n", BIG);
	say(f, fd, line);
	text = hear(f, fd);
	assert_int_equal(strlen(text), BIG + strlen("{\"id\":9,\"ok\":true,\"result\":\"\"}\n"));
	free(text);
	snprintf(line, sizeof(line), "{\"id\":9,\"command\":\"big\",\"arguments\":{\"size\":%d}}\n",
		 CONTROL_ANSWER_MAX);
	say(f, fd, line);
	expect(f, fd, "{\"id\":9,\"ok\":false,\"error\":\"the answer is too long\"}\n");
	close(fd);
}

static void test_many_clients(void **state)
{
	struct fixture *f = *state;
	int fds[CONTROL_CLIENTS_MAX], fd;

	for (unsigned int i = 0; i < CONTROL_CLIENTS_MAX; i++)
		fds[i] = client(f);
	fd = client(f);
	expect_error(f, fd, "too many clients");
	expect_closed(f, fd);
	close(fds[5]);
	turn(f);
	fds[5] = client(f);
	for (unsigned int i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		say(f, fds[i], "{\"id\":1,\"command\":\"echo\"}\n");
		expect(f, fds[i], ECHO);
		close(fds[i]);
	}
}

static void test_help(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);
	char *text;
	json_t *answer;

	say(f, fd, "{\"command\":\"help\"}\n");
	text = hear(f, fd);
	answer = json_loads(text, 0, NULL);
	assert_int_equal(json_array_size(json_object_get(answer, "result")), 5);
	json_decref(answer);
	free(text);
	close(fd);
	assert_int_equal(control_add(f->control, commands, 1, f), -EEXIST);
	assert_int_equal(control_add(NULL, commands, 1, f), 0);
}

static void fill(json_t *status, void *opaque)
{
	json_object_set_new(status, opaque, json_true());
}

static void run_status(struct control_request *request, void *opaque)
{
	json_t *status = json_object();

	(void)opaque;
	control_fill_status(request, status);
	control_answer(request, status);
}

static void test_status_parts(void **state)
{
	static const struct control_command command = { .name = "status", .help = "s", .run = run_status };
	static char one[] = "one", two[] = "two";
	struct fixture *f = *state;
	int fd = client(f);

	assert_int_equal(control_add(f->control, &command, 1, f), 0);
	assert_int_equal(control_add_status(f->control, fill, one), 0);
	assert_int_equal(control_add_status(f->control, fill, two), 0);
	say(f, fd, "{\"command\":\"status\"}\n");
	expect(f, fd, "{\"id\":null,\"ok\":true,\"result\":{\"one\":true,\"two\":true}}\n");
	close(fd);
}

static void test_socket_file(void **state)
{
	struct fixture *f = *state;
	struct unix_socket other;
	char stale[80], long_path[200];
	struct stat st;
	int fd;

	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	/* In use. */
	logged[0] = '\0';
	assert_null(control_create(&f->loop, f->path));
	assert_non_null(strstr(logged, "somebody listens there already"));
	/* Left behind: a listener closed without unlink. */
	snprintf(stale, sizeof(stale), "%s/stale", f->directory);
	assert_int_equal(unix_socket_listen(&other, stale, 0600, 1), 0);
	close(other.fd);
	assert_int_equal(unix_socket_listen(&other, stale, 0600, 1), 0);
	fd = unix_socket_connect(stale);
	assert_true(fd >= 0);
	close(fd);
	/* Another's by now: it stays. */
	assert_int_equal(unlink(stale), 0);
	fd = open(stale, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	unix_socket_close(&other);
	assert_int_equal(access(stale, F_OK), 0);
	/* No socket. */
	assert_int_equal(unix_socket_listen(&other, stale, 0600, 1), -EEXIST);
	assert_int_equal(other.fd, -1);
	assert_int_equal(access(stale, F_OK), 0);
	assert_int_equal(unlink(stale), 0);
	memset(long_path, 'a', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = '\0';
	assert_int_equal(unix_socket_listen(&other, long_path, 0600, 1), -ENAMETOOLONG);
	assert_int_equal(unix_socket_connect(long_path), -ENAMETOOLONG);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_answers),	 TEST(test_refuses),	  TEST(test_long_names),       TEST(test_nesting),
		TEST(test_pieces),	 TEST(test_long_lines),	  TEST(test_half_closed),      TEST(test_client_gone),
		TEST(test_server_gone),	 TEST(test_last_words),	  TEST(test_unanswered),       TEST(test_slow_reader),
		TEST(test_big_answers),	 TEST(test_many_clients), TEST(test_slow_reader_dies), TEST(test_help),
		TEST(test_status_parts), TEST(test_socket_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
