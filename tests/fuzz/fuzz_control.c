/* SPDX-License-Identifier: MIT */
/*
 * A client of the control socket: the input's first byte says into pieces of what size the rest is cut. There is no
 * ring: a receive is given the next piece, a send takes a little, so that requests wait for their answers to go out.
 * Each line that comes back is an answer, one for each request, and all memory is given back.
 */
#include <assert.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/control.h"
#include "vmm/log.h"
#include "vmm/loop.h"

#define KEPT_MAX CONTROL_UNANSWERED_MAX

struct run {
	const uint8_t *data;
	size_t size, piece;
	char *line; /* what has been sent since the last newline */
	size_t used, max;
	unsigned int answered, numbers;
	struct control_request *kept[KEPT_MAX];
	unsigned int nr_kept;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The one receive and the one send that can be outstanding. */
static struct io_uring_sqe sqes[2];
static struct loop_op *ops[2];

struct io_uring_sqe *loop_sqe(struct loop *loop, struct loop_op *op)
{
	unsigned int at = ops[0] != NULL;

	(void)loop;
	assert(!ops[at]);
	ops[at] = op;
	memset(&sqes[at], 0, sizeof(sqes[at]));
	return &sqes[at];
}

void loop_timer(struct loop *loop, struct loop_op *op, struct __kernel_timespec *ts, uint64_t ns)
{
	(void)loop;
	(void)op;
	(void)ts;
	(void)ns;
	abort();
}

bool loop_turn(struct loop *loop, uint64_t ns)
{
	(void)loop;
	(void)ns;
	abort();
}

void log_line(const char *fmt, ...)
{
	(void)fmt;
}

static void run_echo(struct control_request *request, void *opaque)
{
	struct run *run = opaque;
	json_t *result = json_string(control_string(request, "text", ""));

	run->numbers += control_bool(request, "flag", false) && control_number(request, "number", 1);
	control_answer(request, result);
}

static void run_keep(struct control_request *request, void *opaque)
{
	struct run *run = opaque;

	assert(run->nr_kept < CONTROL_UNANSWERED_MAX);
	run->kept[run->nr_kept++] = request;
}

static const struct control_command commands[] = {
	{ .name = "e",
	  .help = "answers",
	  .run = run_echo,
	  .arguments = { { .name = "text", .help = "t" },
			 { .name = "choice", .values = "a|b|cd", .help = "c" },
			 { .name = "flag", .kind = CONTROL_BOOL, .help = "f" },
			 { .name = "number", .kind = CONTROL_NUMBER, .help = "n" } } },
	{ .name = "k", .help = "answers later", .run = run_keep },
};

static void check_line(struct run *run)
{
	json_t *answer = json_loadb(run->line, run->used, JSON_REJECT_DUPLICATES, NULL);

	assert(json_is_object(answer) && json_object_get(answer, "id"));
	assert(json_is_true(json_object_get(answer, "ok")) ? json_object_get(answer, "result") != NULL
							   : json_is_string(json_object_get(answer, "error")));
	json_decref(answer);
	run->answered++;
	run->used = 0;
}

static void take(struct run *run, const char *data, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (run->used == run->max) {
			run->max = 2 * run->max + 4096;
			run->line = realloc(run->line, run->max);
			assert(run->line);
		}
		run->line[run->used++] = data[i];
		if (data[i] == '\n')
			check_line(run);
	}
}

/* Ends one request of the ring; false if there is none. */
static bool step(struct run *run)
{
	struct loop_op *op = ops[0];
	struct io_uring_sqe sqe = sqes[0];
	size_t n = sqe.len < run->piece ? sqe.len : run->piece;

	if (!op)
		return false;
	ops[0] = ops[1];
	sqes[0] = sqes[1];
	ops[1] = NULL;
	if (sqe.opcode == IORING_OP_RECV) {
		if (n > run->size)
			n = run->size;
		memcpy((void *)(uintptr_t)sqe.addr, run->data, n);
		run->data += n;
		run->size -= n;
	} else {
		assert(sqe.opcode == IORING_OP_SEND && n);
		take(run, (const char *)(uintptr_t)sqe.addr, n);
	}
	op->fn(op, (int)n, 0);
	return true;
}

/* Every line that is not blank is a request, the last one without an end too. */
static unsigned int requests(const uint8_t *data, size_t size)
{
	unsigned int n = 0;
	size_t length = 0;
	bool blank = true;

	for (size_t i = 0; i <= size; i++) {
		if (i == size || data[i] == '\n') {
			n += !blank || length >= CONTROL_LINE_MAX;
			length = 0;
			blank = true;
		} else {
			length++;
			blank &= data[i] == ' ' || data[i] == '\t' || data[i] == '\r';
		}
	}
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct run run = { .data = data, .size = size };
	struct control *control = control_create(NULL, NULL);
	unsigned int expected;
	int fds[2];

	assert(control && !control_add(control, commands, sizeof(commands) / sizeof(commands[0]), &run));
	assert(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
	run.piece = size ? 1 + (size_t)data[0] * data[0] : 1;
	if (size) {
		run.data++;
		run.size--;
	}
	expected = requests(run.data, run.size);
	control_serve(control, fds[0]);
	do {
		while (step(&run))
			;
		/* Nothing moves: what waits for us is answered, the newest first. */
		if (run.nr_kept)
			control_answer(run.kept[--run.nr_kept], NULL);
	} while (ops[0] || run.nr_kept);
	assert(run.size == 0 && run.used == 0 && run.answered == expected);
	assert(close(fds[1]) == 0);
	/* The client was dropped when it had its last answer: its descriptor is free again. */
	assert(close(fds[0]) < 0);
	control_close(control);
	control_destroy(control);
	free(run.line);
	return 0;
}
