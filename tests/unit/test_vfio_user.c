/* SPDX-License-Identifier: MIT */
/* vfio-user without a machine: commands, their replies and their deadlines, and who keeps those. */
#include "vfio_user_fake.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "devices/vfio-user/attach.h"
#include "devices/vfio-user/link.h"
#include "devices/vfio-user/serve.h"

#define SHORT_NS 100000000ULL	 /* where the peer never answers */
#define LONG_NS	 600000000000ULL /* where nothing is to time out, nothing can */

struct fixture {
	struct memory memory;
	uint8_t ram[RAM_SIZE];
	struct vfu_link link;
	int peer, aside_peer;
	_Atomic bool ending, stopped;
	const char *died;
	unsigned int looks, told;
	pthread_t thread;
	void (*script)(struct fixture *f);
	uint64_t timeout; /* ns; 0: LONG_NS */
	/* The watchdog, if there is one; and how often its signals come too early. */
	pthread_t dog;
	pthread_mutex_t dog_lock; /* watches, dog_ends */
	pthread_cond_t dog_changed;
	bool has_dog, dog_ends;
	unsigned int watches, wakes, lost_wakes;
};

static bool on_ending(void *opaque)
{
	return ((struct fixture *)opaque)->ending;
}

static bool on_stopped(void *opaque)
{
	return ((struct fixture *)opaque)->stopped;
}

static void on_died(void *opaque, const char *text)
{
	((struct fixture *)opaque)->died = text;
}

static void on_look(void *opaque)
{
	((struct fixture *)opaque)->looks++;
}

static void on_tell(void *opaque, const char *text)
{
	(void)text;
	((struct fixture *)opaque)->told++;
}

/* The loop, as far as the watchdog needs one. */
static void on_watch(void *opaque)
{
	struct fixture *f = opaque;

	pthread_mutex_lock(&f->dog_lock);
	f->watches++;
	pthread_cond_signal(&f->dog_changed);
	pthread_mutex_unlock(&f->dog_lock);
}

static void on_wake(void *opaque, pthread_t thread)
{
	struct fixture *f = opaque;

	f->wakes++;
	if (f->wakes > f->lost_wakes)
		pthread_kill(thread, SIGUSR1);
}

static const struct vfu_link_ops ops = { on_ending, on_stopped, on_died, on_look, on_tell, on_watch, on_wake };

static void *watchdog(void *arg)
{
	struct fixture *f = arg;
	unsigned int seen = 0;

	pthread_mutex_lock(&f->dog_lock);
	while (!f->dog_ends) {
		uint64_t ns;
		struct timespec until;

		if (f->watches == seen) {
			pthread_cond_wait(&f->dog_changed, &f->dog_lock);
			continue;
		}
		pthread_mutex_unlock(&f->dog_lock);
		ns = vfu_link_watch(&f->link);
		pthread_mutex_lock(&f->dog_lock);
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += (time_t)((ns + (uint64_t)until.tv_nsec) / 1000000000);
		until.tv_nsec = (long)((ns + (uint64_t)until.tv_nsec) % 1000000000);
		while (ns && !f->dog_ends && pthread_cond_timedwait(&f->dog_changed, &f->dog_lock, &until) == 0)
			;
		/* Then the link says when it is to go on. */
		seen += !ns;
	}
	pthread_mutex_unlock(&f->dog_lock);
	return NULL;
}

static void start_watchdog(struct fixture *f)
{
	assert_int_equal(pthread_create(&f->dog, NULL, watchdog, f), 0);
	f->has_dog = true;
}

static void end_watchdog(struct fixture *f)
{
	pthread_mutex_lock(&f->dog_lock);
	f->dog_ends = true;
	pthread_cond_signal(&f->dog_changed);
	pthread_mutex_unlock(&f->dog_lock);
	pthread_join(f->dog, NULL);
}

static void interrupted(int sig)
{
	(void)sig;
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->memory = make_memory(f->ram);
	f->peer = -1;
	pthread_mutex_init(&f->dog_lock, NULL);
	pthread_cond_init(&f->dog_changed, NULL);
	sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = interrupted }, NULL);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	free(*state);
	return 0;
}

static void *run_script(void *arg)
{
	struct fixture *f = arg;

	f->script(f);
	return NULL;
}

static void start_link(struct fixture *f, void (*script)(struct fixture *f), const struct vfu_caps *more)
{
	const struct vfu_caps caps = more ? *more : (struct vfu_caps){ .max_data = 4096, .max_fds = 8 };
	struct vfu_stream s;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	f->peer = pair[1];
	vfu_stream_init(&s, pair[0]);
	vfu_link_init(&f->link, &ops, f, &f->memory, f->timeout ? f->timeout : LONG_NS);
	vfu_link_start(&f->link, &s, &caps, true, false);
	f->script = script;
	if (script)
		assert_int_equal(pthread_create(&f->thread, NULL, run_script, f), 0);
}

static void end_link(struct fixture *f)
{
	vfu_link_kill(&f->link, "end");
	if (f->has_dog)
		end_watchdog(f);
	if (f->script)
		pthread_join(f->thread, NULL);
	assert_true(vfu_link_close(&f->link));
	vfu_link_destroy(&f->link);
	close(f->peer);
}

struct command {
	struct vfu_header h;
	struct vfu_region_access access;
	uint8_t data[2048];
};

static bool next_command(int fd, struct command *c)
{
	return recv(fd, &c->h, sizeof(c->h), MSG_WAITALL) == sizeof(c->h) &&
	       recv(fd, &c->access, c->h.size - sizeof(c->h), MSG_WAITALL) == (ssize_t)(c->h.size - sizeof(c->h));
}

static void reply_to(int fd, const struct command *c, uint64_t value)
{
	struct vfu_header h = c->h;
	uint8_t data[64];
	bool read = h.command == VFU_REGION_READ;

	h.flags = VFU_TYPE_REPLY;
	h.size = (uint32_t)(sizeof(h) + sizeof(c->access) + (read ? c->access.count : 0));
	memcpy(data, &h, sizeof(h));
	memcpy(data + sizeof(h), &c->access, sizeof(c->access));
	memcpy(data + sizeof(h) + sizeof(c->access), &value, sizeof(value));
	send(fd, data, h.size, MSG_NOSIGNAL);
}

/* Answers a read with its offset; sees that what is posted is marked so. */
static void honest(struct fixture *f)
{
	struct command c;

	while (next_command(f->peer, &c))
		if (!(c.h.flags & VFU_NO_REPLY))
			reply_to(f->peer, &c, c.access.offset);
}

static void *reader(void *arg)
{
	struct fixture *f = arg;

	for (uint64_t i = 0; i < 2000; i++) {
		uint64_t value;

		assert_int_equal(vfu_link_read(&f->link, 0, i, 8, &value), 0);
		assert_int_equal(value, i);
		if (i % 3 == 0)
			assert_int_equal(vfu_link_write(&f->link, 0, i, 4, i, i & 1), 0);
	}
	return NULL;
}

static void many_threads(void **state)
{
	struct fixture *f = *state;
	pthread_t threads[4];

	start_link(f, honest, NULL);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, reader, f), 0);
	for (unsigned int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_true(vfu_link_alive(&f->link));
	assert_int_equal(f->told, 0);
	end_link(f);
	assert_string_equal(f->died, "end");
}

/* Asks for memory before it answers, and for what nobody knows. */
static void asks_first(struct fixture *f)
{
	struct command c;

	while (next_command(f->peer, &c)) {
		struct vfu_dma_access access = { 0x100, 4 };
		struct vfu_header h;
		uint8_t payload[256];

		ask(f->peer, VFU_DMA_READ, 0, &access, sizeof(access));
		ask(f->peer, 77, 0, NULL, 0);
		recv(f->peer, &h, sizeof(h), MSG_WAITALL);
		recv(f->peer, payload, 20, MSG_WAITALL);
		reply_to(f->peer, &c, payload[16]);
		recv(f->peer, &h, sizeof(h), MSG_WAITALL);
	}
}

static void served_meanwhile(void **state)
{
	struct fixture *f = *state;
	uint64_t value;

	f->ram[0x100] = 0x5a;
	start_link(f, asks_first, NULL);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(vfu_link_read(&f->link, 1, 0, 4, &value), 0);
		assert_int_equal(value, 0x5a);
	}
	end_link(f);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

static void mute(void **state)
{
	struct fixture *f = *state;
	uint64_t value, begin;

	f->timeout = SHORT_NS;
	start_link(f, NULL, NULL);
	start_watchdog(f);
	f->lost_wakes = 1;
	for (unsigned int i = 1; i <= VFU_TIMEOUTS_MAX; i++) {
		assert_true(vfu_link_alive(&f->link));
		begin = now_ns();
		assert_int_equal(vfu_link_read(&f->link, 0, 0, 4, &value), -ETIMEDOUT);
		assert_true(value == UINT64_MAX);
		assert_true(now_ns() - begin >= SHORT_NS * 9 / 10);
	}
	assert_false(vfu_link_alive(&f->link));
	assert_int_equal(vfu_link_read(&f->link, 0, 0, 4, &value), -EIO);
	/* The first signal came too early, and there was another one. */
	assert_true(f->wakes > VFU_TIMEOUTS_MAX);
	end_link(f);
}

struct late_reader {
	struct fixture *f;
	uint64_t begin, end;
	int result;
};

static void *read_once(void *arg)
{
	struct late_reader *r = arg;
	uint64_t value;

	r->begin = now_ns();
	r->result = vfu_link_read(&r->f->link, 0, 0, 4, &value);
	r->end = now_ns();
	assert_true(value == UINT64_MAX);
	return NULL;
}

/* Several wait for each of two mute servers, and one server is slower than the other. */
static void several_mute(void **state)
{
	struct fixture *f[2] = { *state, NULL };
	struct late_reader readers[6];
	pthread_t threads[6];

	assert_int_equal(set_up((void **)&f[1]), 0);
	for (unsigned int i = 0; i < 2; i++) {
		f[i]->timeout = SHORT_NS * (1 + i);
		start_link(f[i], NULL, NULL);
		start_watchdog(f[i]);
	}
	for (unsigned int i = 0; i < 6; i++) {
		readers[i].f = f[i % 2];
		assert_int_equal(pthread_create(&threads[i], NULL, read_once, &readers[i]), 0);
	}
	for (unsigned int i = 0; i < 6; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(readers[i].result, -ETIMEDOUT);
		assert_true(readers[i].end - readers[i].begin >= readers[i].f->timeout);
	}
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(f[i]->link.timeouts, 3);
		assert_true(vfu_link_alive(&f[i]->link));
		end_link(f[i]);
	}
	tear_down((void **)&f[1]);
}

/* The watchdog runs only while there are accesses, however many. One that it would be too late for does not need it. */
static void watched(void **state)
{
	struct fixture *f = *state;
	uint64_t value;

	start_link(f, honest, NULL);
	assert_true(vfu_link_watch(&f->link) == 0);
	for (unsigned int round = 1; round < 4; round++) {
		for (uint64_t i = 0; i < 1000; i++) {
			assert_int_equal(vfu_link_read(&f->link, 0, i, 8, &value), 0);
			assert_int_equal(value, i);
		}
		assert_int_equal(f->watches, round);
		assert_true(vfu_link_watch(&f->link) > 0);
		assert_int_equal(vfu_link_read(&f->link, 0, 0, 8, &value), 0);
		assert_true(vfu_link_watch(&f->link) > 0);
		assert_true(vfu_link_watch(&f->link) == 0);
		assert_int_equal(f->watches, round);
	}
	/* It ends with the server, though that was just used. */
	assert_int_equal(vfu_link_read(&f->link, 0, 0, 8, &value), 0);
	vfu_link_kill(&f->link, "gone");
	assert_true(vfu_link_watch(&f->link) == 0);
	end_link(f);
}

/* A wait that is over before the watchdog looks ends by itself. */
static void not_watched(void **state)
{
	struct fixture *f = *state;
	uint64_t value;

	f->timeout = SHORT_NS;
	start_link(f, NULL, NULL);
	f->link.watched = true;
	f->link.watch_at = UINT64_MAX;
	assert_int_equal(vfu_link_read(&f->link, 0, 0, 4, &value), -ETIMEDOUT);
	assert_int_equal(vfu_link_command(&f->link, VFU_DEVICE_RESET, NULL, 0, NULL, 0, VFU_WAIT, now_ns() + SHORT_NS),
			 -ETIMEDOUT);
	assert_int_equal(f->watches, 0);
	assert_int_equal(f->wakes, 0);
	end_link(f);
}

/* Byte by byte. */
static void slowly(struct fixture *f)
{
	struct command c;

	while (next_command(f->peer, &c)) {
		struct {
			struct vfu_header h;
			struct vfu_region_access access;
			uint64_t value;
		} reply = { c.h, c.access, c.access.offset };

		reply.h.flags = VFU_TYPE_REPLY;
		reply.h.size = sizeof(reply);
		for (size_t i = 0; i < sizeof(reply); i++)
			if (send(f->peer, (uint8_t *)&reply + i, 1, MSG_NOSIGNAL) != 1)
				return;
	}
}

static void bytes(void **state)
{
	struct fixture *f = *state;
	uint64_t value;

	start_link(f, slowly, NULL);
	start_watchdog(f);
	for (uint64_t i = 0; i < 200; i++) {
		assert_int_equal(vfu_link_read(&f->link, 0, i, 8, &value), 0);
		assert_int_equal(value, i);
	}
	end_link(f);
}

#define JUST_NS 2000000ULL

/* Answers about when the client gives up, sooner or later. */
static void just_in_time(struct fixture *f)
{
	struct command c;
	unsigned int n = 0;

	while (next_command(f->peer, &c)) {
		uint64_t until = now_ns() + JUST_NS - 150000 + n++ % 16 * 20000;

		while (now_ns() < until)
			;
		reply_to(f->peer, &c, c.access.offset);
	}
}

/* A deadline is up in the moment in which the reply comes: that is the answer, or there is none. */
static void deadlines(void **state)
{
	struct fixture *f = *state;
	uint64_t value;

	f->timeout = JUST_NS;
	start_link(f, just_in_time, NULL);
	start_watchdog(f);
	for (uint64_t i = 0; i < 200 && vfu_link_alive(&f->link); i++) {
		int ret = vfu_link_read(&f->link, 0, i, 8, &value);

		assert_true(ret == 0 || ret == -ETIMEDOUT);
		assert_true(value == (ret ? UINT64_MAX : i));
	}
	/* If it was that much too late, four times. */
	if (!vfu_link_alive(&f->link))
		assert_string_equal(f->died, "it does not reply any more");
	end_link(f);
}

static void *end_soon(void *arg)
{
	struct fixture *f = arg;
	bool waits = false;

	while (!waits) {
		pthread_mutex_lock(&f->link.lock);
		waits = f->link.waiters;
		pthread_mutex_unlock(&f->link.lock);
	}
	f->ending = true;
	return NULL;
}

/* The run ends: nobody waits on. A follower has no signal to wake it. */
static void ending(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;
	uint64_t value;

	start_link(f, NULL, NULL);
	f->link.receiving = true;
	assert_int_equal(pthread_create(&thread, NULL, end_soon, f), 0);
	assert_int_equal(vfu_link_read(&f->link, 0, 0, 4, &value), -EINTR);
	assert_int_equal(vfu_link_read(&f->link, 0, 0, 4, &value), -EINTR);
	pthread_join(thread, NULL);
	f->link.receiving = false;
	end_link(f);
}

/* Late, twice, and for what asked for no reply: told apart, and from a lie. */
static void strays(void **state)
{
	struct fixture *f = *state;
	struct command c, first;
	uint64_t value;

	f->timeout = SHORT_NS;
	start_link(f, NULL, NULL);
	start_watchdog(f);
	assert_int_equal(vfu_link_read(&f->link, 0, 5, 4, &value), -ETIMEDOUT);
	assert_true(next_command(f->peer, &first));
	reply_to(f->peer, &first, 1);
	assert_int_equal(vfu_link_poll(&f->link), POLLIN);
	assert_int_equal(f->link.timeouts, 0);
	assert_int_equal(vfu_link_write(&f->link, 0, 0, 4, 7, true), 0);
	assert_true(next_command(f->peer, &c));
	assert_true(c.h.flags & VFU_NO_REPLY);
	reply_to(f->peer, &c, 0);
	assert_int_equal(vfu_link_poll(&f->link), POLLIN);
	assert_false(f->link.can_post);
	assert_int_equal(f->told, 2);
	reply_to(f->peer, &c, 0);
	assert_int_equal(vfu_link_poll(&f->link), POLLIN);
	assert_true(vfu_link_alive(&f->link));
	/* A late one comes once. */
	reply_to(f->peer, &first, 1);
	assert_int_equal(vfu_link_poll(&f->link), 0);
	assert_false(vfu_link_alive(&f->link));
	end_link(f);
}

/* Writes that the socket has no room for go together as one message, before what comes after them. */
static void multi(void **state)
{
	const struct vfu_caps caps = { .max_data = 4096, .max_fds = 8, .write_multiple = true };
	struct fixture *f = *state;
	unsigned int posted = 0, gathered = 0;
	struct command c;

	start_link(f, NULL, &caps);
	while (f->link.nr_multi < 10 && posted < 100000)
		assert_int_equal(vfu_link_write(&f->link, 0, posted++, 8, 1, true), 0);
	assert_int_equal(f->link.nr_multi, 10);
	assert_true(f->looks > 0);
	for (unsigned int n = 0; n < posted;) {
		uint64_t count;
		short events = vfu_link_poll(&f->link);

		assert_true(events & POLLIN);
		assert_true(next_command(f->peer, &c));
		assert_true(c.h.flags & VFU_NO_REPLY);
		if (c.h.command == VFU_REGION_WRITE) {
			assert_int_equal(c.access.offset, n++);
			continue;
		}
		assert_int_equal(c.h.command, VFU_REGION_WRITE_MULTI);
		memcpy(&count, &c.access, sizeof(count));
		for (uint64_t i = 0; i < count; i++, n++, gathered++) {
			struct vfu_write_one one;

			memcpy(&one, (uint8_t *)&c.access + 8 + i * sizeof(one), sizeof(one));
			assert_int_equal(one.offset, n);
			assert_int_equal(one.count, 8);
		}
	}
	assert_int_equal(gathered, 10);
	assert_int_equal(vfu_link_poll(&f->link), POLLIN);
	end_link(f);
}

static void commands(void **state)
{
	const struct vfu_set_irqs set = { .argsz = sizeof(set), .flags = 0x24, .index = 2, .start = 3, .count = 1 };
	struct fixture *f = *state;
	char control[CMSG_SPACE(sizeof(int))];
	struct command c;
	struct iovec iov = { &c, sizeof(c) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};
	int fd = eventfd(0, 0), got;

	start_link(f, NULL, NULL);
	assert_int_equal(vfu_link_command(&f->link, VFU_SET_IRQS, &set, sizeof(set), &fd, 1, VFU_ASYNC, 0), 0);
	assert_int_equal(recvmsg(f->peer, &msg, 0), 36);
	assert_memory_equal(&c.access, &set, sizeof(set));
	assert_non_null(CMSG_FIRSTHDR(&msg));
	memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(got));
	eventfd_write(got, 5);
	assert_int_equal(eventfd_read(fd, &(eventfd_t){ 0 }), 0);
	close(got);
	close(fd);
	/* As many as may be outstanding, and no more. */
	for (unsigned int i = 1; i < VFU_ASYNC_MAX; i++)
		assert_int_equal(vfu_link_command(&f->link, VFU_DEVICE_RESET, NULL, 0, NULL, 0, VFU_ASYNC, 0), 0);
	assert_int_equal(vfu_link_command(&f->link, VFU_DEVICE_RESET, NULL, 0, NULL, 0, VFU_ASYNC, 0), -EAGAIN);
	c.h.size = sizeof(c.h);
	c.h.flags = VFU_TYPE_REPLY;
	assert_int_equal(send(f->peer, &c, sizeof(c.h), 0), sizeof(c.h));
	vfu_link_poll(&f->link);
	assert_int_equal(vfu_link_command(&f->link, VFU_DEVICE_RESET, NULL, 0, NULL, 0, VFU_ASYNC, 0), 0);
	close(f->peer);
	f->peer = -1;
	assert_int_equal(vfu_link_poll(&f->link), 0);
	assert_string_equal(f->died, "it went away");
	end_link(f);
}

/* Before it answers it asks, on the other socket, for what the loop would answer if it did not stand still. */
static void asks_aside(struct fixture *f)
{
	struct command c;

	while (next_command(f->peer, &c)) {
		struct vfu_dma_access access = { 0x100, 4 };
		struct vfu_header h;
		uint8_t payload[20];

		ask(f->aside_peer, VFU_DMA_READ, 0, &access, sizeof(access));
		recv(f->aside_peer, &h, sizeof(h), MSG_WAITALL);
		recv(f->aside_peer, payload, sizeof(payload), MSG_WAITALL);
		reply_to(f->peer, &c, payload[16]);
	}
}

static void stopped_loop(void **state)
{
	struct fixture *f = *state;
	struct vfu_stream aside;
	uint64_t value;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	vfu_stream_init(&aside, pair[0]);
	f->aside_peer = pair[1];
	f->ram[0x100] = 0x5a;
	f->stopped = true;
	start_link(f, asks_aside, NULL);
	f->link.aside = &aside;
	for (int i = 0; i < 100; i++) {
		assert_int_equal(vfu_link_read(&f->link, 1, 0, 4, &value), 0);
		assert_int_equal(value, 0x5a);
	}
	/* The loop is told: something may be left to be sent. */
	assert_true(f->looks > 0);
	end_link(f);
	vfu_stream_close(&aside);
	close(pair[1]);
}

/* INTx is unmasked when there is room, and not beside a command that a server with one socket has. */
static void unmask(void **state)
{
	struct fixture *f = *state;
	struct command c, reset;

	f->timeout = SHORT_NS;
	start_link(f, NULL, NULL);
	f->link.one_by_one = true;
	assert_int_equal(vfu_link_command(&f->link, VFU_DEVICE_RESET, NULL, 0, NULL, 0, VFU_ASYNC, 0), 0);
	vfu_link_unmask(&f->link);
	assert_int_equal(f->looks, 1);
	assert_int_equal(vfu_link_poll(&f->link), POLLIN);
	assert_int_equal(recv(f->peer, &reset.h, sizeof(reset.h), MSG_WAITALL), sizeof(reset.h));
	assert_int_equal(reset.h.command, VFU_DEVICE_RESET);
	assert_int_equal(recv(f->peer, &c, sizeof(c), MSG_DONTWAIT), -1);
	reset.h.flags = VFU_TYPE_REPLY;
	assert_int_equal(send(f->peer, &reset.h, sizeof(reset.h), 0), sizeof(reset.h));
	assert_int_equal(vfu_link_poll(&f->link), POLLIN);
	assert_true(next_command(f->peer, &c));
	assert_int_equal(c.h.command, VFU_SET_IRQS);
	assert_true(c.h.flags & VFU_NO_REPLY);
	/* The socket is full: it waits for room. */
	f->link.one_by_one = false;
	while (vfu_link_write(&f->link, 0, 0, 8, 1, true) == 0)
		;
	vfu_link_unmask(&f->link);
	assert_true(vfu_link_poll(&f->link) & POLLOUT);
	while (recv(f->peer, &c, sizeof(c), MSG_DONTWAIT) > 0)
		vfu_link_poll(&f->link);
	assert_int_equal(vfu_link_poll(&f->link), POLLIN);
	end_link(f);
}

/* What nobody waits for can fail: memory that is not mapped ends it, the rest is told once. */
static void refusals(void **state)
{
	struct fixture *f = *state;

	start_link(f, NULL, NULL);
	for (unsigned int i = 0; i < 4; i++) {
		struct vfu_header h;
		enum vfu_command command = i < 2 ? VFU_SET_IRQS : i == 2 ? VFU_DMA_UNMAP : VFU_DMA_MAP;

		assert_int_equal(vfu_link_command(&f->link, command, NULL, 0, NULL, 0, VFU_ASYNC, 0), 0);
		assert_int_equal(recv(f->peer, &h, sizeof(h), MSG_WAITALL), sizeof(h));
		h.flags = VFU_TYPE_REPLY | VFU_ERROR;
		h.error = EINVAL;
		assert_int_equal(send(f->peer, &h, sizeof(h), 0), sizeof(h));
		assert_int_equal(vfu_link_poll(&f->link), i < 3 ? POLLIN : 0);
		assert_int_equal(f->told, 1);
	}
	assert_string_equal(f->died, "it does not take the guest's memory");
	end_link(f);
}

/* Ids that are taken are not given again; a call is found once. */
static void pending(void **state)
{
	static struct vfu_pending p;
	struct vfu_call calls[3] = { 0 }, *found = NULL;
	struct vfu_header h = { .command = VFU_REGION_READ };

	(void)state;
	for (unsigned int i = 0; i < 3; i++)
		vfu_pending_add(&p, &calls[i], VFU_REGION_READ);
	assert_true(vfu_pending_give_up(&p, &calls[0]));
	assert_true(vfu_pending_give_up(&p, &calls[0]));
	/* All the way round. */
	for (unsigned int i = 0; i < 65536; i++) {
		uint16_t id = vfu_pending_id(&p);

		assert_true(id && id != calls[0].id && id != calls[1].id && id != calls[2].id);
	}
	h.id = calls[1].id;
	assert_int_equal(vfu_pending_reply(&p, &h, &found), VFU_ANSWERS_CALL);
	assert_ptr_equal(found, &calls[1]);
	assert_int_equal(vfu_pending_reply(&p, &h, &found), VFU_ANSWERS_AGAIN);
	h.id = calls[0].id;
	assert_int_equal(vfu_pending_reply(&p, &h, &found), VFU_ANSWERS_LATE);
	assert_int_equal(vfu_pending_reply(&p, &h, &found), VFU_ANSWERS_NOTHING);
	h.id = calls[2].id;
	h.command = VFU_REGION_WRITE;
	assert_int_equal(vfu_pending_reply(&p, &h, &found), VFU_ANSWERS_OTHER);
	vfu_pending_fail(&p, -EIO);
	assert_true(calls[2].done && calls[2].result == -EIO && !p.calls);
	vfu_pending_posted(&p, 77, VFU_REGION_WRITE);
	h.id = 77;
	assert_int_equal(vfu_pending_reply(&p, &h, &found), VFU_ANSWERS_POSTED);
	/* Only so many may be without an answer. */
	for (unsigned int i = 0; i <= VFU_LATE_MAX; i++) {
		vfu_pending_add(&p, &calls[0], VFU_REGION_READ);
		assert_int_equal(vfu_pending_give_up(&p, &calls[0]), i < VFU_LATE_MAX);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(many_threads, set_up, tear_down),
		cmocka_unit_test_setup_teardown(served_meanwhile, set_up, tear_down),
		cmocka_unit_test_setup_teardown(mute, set_up, tear_down),
		cmocka_unit_test_setup_teardown(several_mute, set_up, tear_down),
		cmocka_unit_test_setup_teardown(watched, set_up, tear_down),
		cmocka_unit_test_setup_teardown(not_watched, set_up, tear_down),
		cmocka_unit_test_setup_teardown(bytes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(deadlines, set_up, tear_down),
		cmocka_unit_test_setup_teardown(ending, set_up, tear_down),
		cmocka_unit_test_setup_teardown(strays, set_up, tear_down),
		cmocka_unit_test_setup_teardown(multi, set_up, tear_down),
		cmocka_unit_test_setup_teardown(commands, set_up, tear_down),
		cmocka_unit_test_setup_teardown(stopped_loop, set_up, tear_down),
		cmocka_unit_test_setup_teardown(unmask, set_up, tear_down),
		cmocka_unit_test_setup_teardown(refusals, set_up, tear_down),
		cmocka_unit_test(pending),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
