/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * Output goes into a ring addressed by ever growing positions: [start, end) is kept, [sent, end) is still to be
 * written. vCPU threads append under the lock and wake the loop at a newline, when a chunk has gathered, or, by a
 * short timer, when neither comes. The loop has one write in flight at most.
 *
 * A sink that is slow (a full pipe, a stopped terminal) makes console_room() false, and the UART tells its driver
 * that the transmitter is busy: nothing is lost and no vCPU waits in vmm. A Unix socket without a client is no
 * sink: the ring keeps the newest output and the next client gets it first.
 */
#include "vmm/console.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/log.h"
#include "vmm/loop.h"
#include "vmm/terminal.h"
#include "vmm/unix_socket.h"
#include "vmm/vm.h"

#define RING_SIZE  65536ULL
#define ROOM_LIMIT (RING_SIZE - RING_SIZE / 4)
#define CHUNK	   2048
#define FLUSH_NS   3000000
#define INPUT_SIZE 256
#define KEYS_SIZE  64
#define ESCAPE	   0x01 /* Ctrl-A */
#define GIVE_UP_MS 500

enum sink { SINK_NULL, SINK_STDIO, SINK_FILE, SINK_UNIX };

struct console {
	struct vm *vm;
	struct console_callbacks cb;
	const char *spec;
	enum sink sink;
	int in_fd, out_fd; /* -1: none (now) */
	struct unix_socket socket;

	pthread_mutex_t lock; /* the ring and what follows, up to the blank line */
	uint8_t *ring;	      /* from the first output on */
	uint64_t start, sent, end;
	uint64_t dropped;
	bool attached; /* there is a sink that takes output */
	bool timer_wanted, flush_posted;
	bool was_full;

	/* Loop thread only. */
	bool writing, reading, accepting, timer_armed, warned;
	bool raw; /* a terminal in raw mode: see got_keys() */
	bool escape;
	uint8_t keys[KEYS_SIZE];
	uint8_t input[INPUT_SIZE];
	size_t input_used, input_taken;
	struct loop_op write_op, read_op, accept_op, timer_op;
	struct __kernel_timespec timer_ts;
	struct loop_work flush_work, arm_work, rx_work;
};

#define from_member(ptr, member) ((struct console *)((char *)(ptr)-offsetof(struct console, member)))

static void read_more(struct console *c);
static void accept_client(struct console *c);

/* Called with the lock held. */
static void forget_sent(struct console *c)
{
	if (c->sink == SINK_UNIX)
		return;
	c->start = c->sent;
	/* An empty ring starts over, so that a quiet console touches one page of it. */
	if (c->sent == c->end && !c->writing)
		c->start = c->sent = c->end = 0;
}

static void detach(struct console *c)
{
	if (c->sink == SINK_UNIX) {
		close(c->out_fd);
		c->in_fd = c->out_fd = -1;
		c->escape = false;
		accept_client(c);
	}
	pthread_mutex_lock(&c->lock);
	c->attached = false;
	pthread_mutex_unlock(&c->lock);
}

static void flush(struct console *c)
{
	uint64_t from, n;

	if (c->writing || c->out_fd < 0)
		return;
	pthread_mutex_lock(&c->lock);
	from = c->sent % RING_SIZE;
	n = c->end - c->sent;
	if (n > RING_SIZE - from)
		n = RING_SIZE - from;
	c->writing = n != 0;
	pthread_mutex_unlock(&c->lock);
	if (!n)
		return;
	io_uring_prep_write(loop_sqe(&c->vm->loop, &c->write_op), c->out_fd, c->ring + from, (unsigned int)n, -1ULL);
}

/* Told once. */
static void write_failed(struct console *c, int error)
{
	if (!c->warned)
		log_line("--serial %s: write: %s; output is lost from here on", c->spec, strerror(error));
	c->warned = true;
}

static void written(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct console *c = from_member(op, write_op);
	bool tell, gone = res < 0 && res != -EINTR && res != -EAGAIN && res != -ECANCELED;

	(void)cqe_flags;
	c->writing = false;
	if (gone && c->sink != SINK_UNIX)
		write_failed(c, -res);
	pthread_mutex_lock(&c->lock);
	if (res > 0)
		c->sent += (uint64_t)res;
	if (gone && c->sink != SINK_UNIX) {
		c->dropped += c->end - c->sent;
		c->sent = c->end;
	}
	forget_sent(c);
	tell = c->was_full && c->end - c->sent < ROOM_LIMIT / 2;
	if (tell)
		c->was_full = false;
	pthread_mutex_unlock(&c->lock);
	if (gone && c->sink == SINK_UNIX)
		detach(c);
	if (tell && c->cb.writable)
		c->cb.writable(c->cb.opaque);
	if (res != -ECANCELED)
		flush(c);
}

static void flush_now(struct loop_work *work)
{
	struct console *c = from_member(work, flush_work);

	pthread_mutex_lock(&c->lock);
	c->flush_posted = false;
	pthread_mutex_unlock(&c->lock);
	flush(c);
}

static void arm_timer(struct loop_work *work)
{
	struct console *c = from_member(work, arm_work);

	if (c->timer_armed)
		return;
	c->timer_armed = true;
	loop_timer(&c->vm->loop, &c->timer_op, &c->timer_ts, FLUSH_NS);
}

static void timer_fired(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct console *c = from_member(op, timer_op);

	(void)res;
	(void)cqe_flags;
	c->timer_armed = false;
	pthread_mutex_lock(&c->lock);
	c->timer_wanted = false;
	pthread_mutex_unlock(&c->lock);
	flush(c);
}

void console_write(struct console *c, const uint8_t *data, size_t length)
{
	bool post = false, arm = false;

	if (c->sink == SINK_NULL || !length)
		return;
	pthread_mutex_lock(&c->lock);
	if (!c->ring)
		c->ring = malloc(RING_SIZE);
	if (!c->ring) {
		c->dropped += length;
		length = 0;
	}
	for (size_t i = 0; i < length; i++) {
		if (c->end - c->sent == RING_SIZE) {
			if (c->attached) {
				c->dropped += length - i;
				break;
			}
			c->sent++;
			c->dropped++;
		}
		c->ring[c->end++ % RING_SIZE] = data[i];
	}
	if (c->end - c->start > RING_SIZE)
		c->start = c->end - RING_SIZE;
	if (length && c->attached && !c->flush_posted) {
		post = memchr(data, '\n', length) || c->end - c->sent >= CHUNK;
		arm = !post && !c->timer_wanted;
		c->flush_posted = post;
		c->timer_wanted |= arm;
	}
	pthread_mutex_unlock(&c->lock);
	if (post)
		loop_post(&c->vm->loop, &c->flush_work);
	else if (arm)
		loop_post(&c->vm->loop, &c->arm_work);
}

bool console_room(struct console *c)
{
	bool room;

	if (c->sink == SINK_NULL)
		return true;
	pthread_mutex_lock(&c->lock);
	room = !c->attached || c->end - c->sent < ROOM_LIMIT;
	if (!room)
		c->was_full = true;
	pthread_mutex_unlock(&c->lock);
	return room;
}

/* Standard input of a terminal: Ctrl-A starts a command to vmm. Removes what is vmm's; returns what is left. */
static size_t take_escapes(struct console *c, uint8_t *data, size_t length)
{
	size_t kept = 0;

	for (size_t i = 0; i < length; i++) {
		uint8_t byte = data[i];

		if (!c->escape) {
			c->escape = byte == ESCAPE;
			if (!c->escape)
				data[kept++] = byte;
			continue;
		}
		c->escape = false;
		switch (byte) {
		case 'x':
			log_line("stopped by Ctrl-A x");
			vm_exit(c->vm, STATUS_OK);
			break;
		case 'p':
			log_line("power button pressed (Ctrl-A p)");
			vm_power_button(c->vm);
			break;
		case ESCAPE:
			data[kept++] = ESCAPE;
			break;
		default:
			log_line("Ctrl-A x: stop vmm; Ctrl-A p: press the power button; "
				 "Ctrl-A Ctrl-A: send Ctrl-A; Ctrl-A ?: this list");
		}
	}
	return kept;
}

/*
 * A terminal is read on while the guest takes nothing: whoever wants to leave a guest that hangs must be heard. Keys
 * that have no room meanwhile are lost.
 */
static void got_keys(struct console *c, size_t length)
{
	size_t kept = take_escapes(c, c->keys, length), room;

	c->input_used -= c->input_taken;
	memmove(c->input, c->input + c->input_taken, c->input_used);
	c->input_taken = 0;
	room = sizeof(c->input) - c->input_used;
	if (kept > room)
		kept = room;
	memcpy(c->input + c->input_used, c->keys, kept);
	c->input_used += kept;
}

static void deliver(struct console *c)
{
	if (c->input_taken < c->input_used && c->cb.input)
		c->input_taken += c->cb.input(c->cb.opaque, c->input + c->input_taken, c->input_used - c->input_taken);
	else if (!c->cb.input)
		c->input_taken = c->input_used;
	if (c->raw || c->input_taken == c->input_used)
		read_more(c);
}

static void got_input(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct console *c = from_member(op, read_op);

	(void)cqe_flags;
	c->reading = false;
	if (res == -EINTR || res == -EAGAIN) {
		read_more(c);
		return;
	}
	if (res <= 0) { /* end of file, or nothing to read from: the console goes on without input */
		c->in_fd = -1;
		if (c->sink == SINK_UNIX && res != -ECANCELED && !c->writing)
			detach(c);
		return;
	}
	if (c->raw) {
		got_keys(c, (size_t)res);
	} else {
		c->input_taken = 0;
		c->input_used = (size_t)res;
	}
	deliver(c);
}

static void read_more(struct console *c)
{
	if (c->reading || c->in_fd < 0)
		return;
	c->reading = true;
	io_uring_prep_read(loop_sqe(&c->vm->loop, &c->read_op), c->in_fd, c->raw ? c->keys : c->input,
			   c->raw ? sizeof(c->keys) : sizeof(c->input), -1ULL);
}

static void rx_ready(struct loop_work *work)
{
	deliver(from_member(work, rx_work));
}

void console_rx_ready(struct console *c)
{
	if (c->in_fd >= 0 || c->sink == SINK_UNIX)
		loop_post(&c->vm->loop, &c->rx_work);
}

static void accepted(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct console *c = from_member(op, accept_op);

	(void)cqe_flags;
	c->accepting = false;
	if (res == -ECANCELED)
		return;
	if (res < 0) {
		if (res == -EINTR || res == -ECONNABORTED)
			accept_client(c);
		else
			log_line("--serial %s: accept: %s", c->spec, strerror(-res));
		return;
	}
	c->in_fd = c->out_fd = res;
	c->input_taken = c->input_used = 0;
	pthread_mutex_lock(&c->lock);
	c->sent = c->start;
	c->attached = true;
	pthread_mutex_unlock(&c->lock);
	flush(c);
	read_more(c);
}

static void accept_client(struct console *c)
{
	if (c->accepting)
		return;
	c->accepting = true;
	io_uring_prep_accept(loop_sqe(&c->vm->loop, &c->accept_op), c->socket.fd, NULL, NULL, SOCK_CLOEXEC);
}

static int open_sink(struct console *c)
{
	if (!strcmp(c->spec, "null"))
		return 0;
	if (!strcmp(c->spec, "stdio")) {
		c->sink = SINK_STDIO;
		c->in_fd = STDIN_FILENO;
		c->out_fd = STDOUT_FILENO;
		c->attached = true;
		return 0;
	}
	if (!strncmp(c->spec, "file:", 5) && c->spec[5]) {
		c->sink = SINK_FILE;
		c->out_fd = open(c->spec + 5, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
		c->attached = true;
		return c->out_fd < 0 ? -errno : 0;
	}
	if (!strncmp(c->spec, "unix:", 5) && c->spec[5]) {
		c->sink = SINK_UNIX;
		return unix_socket_listen(&c->socket, c->spec + 5, 0777, 1);
	}
	return -EINVAL;
}

struct console *console_open(struct vm *vm, const char *spec)
{
	struct console *c = calloc(1, sizeof(*c));
	int ret = c ? 0 : -ENOMEM;

	if (c) {
		c->vm = vm;
		c->spec = spec;
		c->in_fd = c->out_fd = c->socket.fd = -1;
		c->write_op.fn = written;
		c->read_op.fn = got_input;
		c->accept_op.fn = accepted;
		c->timer_op.fn = timer_fired;
		c->flush_work.fn = flush_now;
		c->arm_work.fn = arm_timer;
		c->rx_work.fn = rx_ready;
		pthread_mutex_init(&c->lock, NULL);
		ret = open_sink(c);
	}
	if (!ret)
		return c;
	log_line("--serial %s: %s", spec,
		 ret == -EINVAL ? "must be stdio, null, file:PATH or unix:PATH" : strerror(-ret));
	if (c)
		console_close(c);
	return NULL;
}

void console_start(struct console *c, const struct console_callbacks *cb)
{
	c->cb = *cb;
	c->raw = c->sink == SINK_STDIO && terminal_raw();
	if (c->raw)
		log_line("console is raw; Ctrl-A x quits, Ctrl-A ? lists more");
	if (c->sink == SINK_UNIX)
		accept_client(c);
	read_more(c);
}

/* The loop no longer runs: what is still buffered goes out by plain writes, as long as somebody takes it. */
static void write_out(struct console *c)
{
	while (c->out_fd >= 0 && c->sent < c->end) {
		struct pollfd p = { .fd = c->out_fd, .events = POLLOUT };
		uint64_t from = c->sent % RING_SIZE, n = c->end - c->sent;
		ssize_t done;

		if (n > RING_SIZE - from)
			n = RING_SIZE - from;
		/* No more than a pipe takes at once, so that a blocking descriptor does not block. */
		if (n > PIPE_BUF)
			n = PIPE_BUF;
		if (poll(&p, 1, GIVE_UP_MS) <= 0 || !(p.revents & POLLOUT))
			break;
		done = write(c->out_fd, c->ring + from, n);
		if (done < 0 && c->sink != SINK_UNIX)
			write_failed(c, errno);
		if (done <= 0)
			break;
		c->sent += (uint64_t)done;
	}
	if (c->out_fd >= 0 && c->sent < c->end)
		c->dropped += c->end - c->sent;
	if (c->dropped && c->sink != SINK_UNIX && !c->warned)
		log_line("--serial %s: %llu bytes of output were lost because nobody took them", c->spec,
			 (unsigned long long)c->dropped);
}

void console_close(struct console *c)
{
	if (c->writing)
		loop_cancel(&c->vm->loop, &c->write_op);
	while (c->writing && loop_turn(&c->vm->loop, GIVE_UP_MS * 1000000ULL))
		;
	if (c->ring && !c->writing)
		write_out(c);
	if (c->sink == SINK_STDIO)
		terminal_restore();
	if (c->out_fd >= 0 && c->sink != SINK_STDIO)
		close(c->out_fd);
	unix_socket_close(&c->socket);
	pthread_mutex_destroy(&c->lock);
	free(c->ring);
	free(c);
}
