/* SPDX-License-Identifier: MIT */
/*
 * vfio_user - the server of the benchmark "vfio-user", and the floor: the same without a guest.
 *
 *	vfio_user serve SOCKET COMMAND [ARGUMENT]...
 *	vfio_user floor test=read|write|doorbell|fetch|store count=N
 *
 * Theory of operation
 *
 * serve: a child serves one vfio-user device (vfio_user.h) on SOCKET while this process becomes COMMAND, the monitor.
 * A message costs the server one system call to get, and one to answer; doorbells are the work of a thread that sleeps
 * in read(). It ends with its client.
 *
 * floor: two processes and a socket. The one sends what a REGION_READ is, 32 bytes, and waits; the other one answers
 * with 36, which is the shortest way there is from one process to another and back by this protocol: send(), recv() on
 * both sides. A doorbell is a write to an eventfd, and a word of shared memory that says that it was heard.
 *
 * Both, and the monitor: nobody takes the CPU from who wakes him (SCHED_BATCH). The host that counts has one CPU;
 * whether the two sides push each other aside there depends on how long each has run, and is worth thousands of
 * instructions. Only who hears a doorbell does, because the one that rings it spins.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "devices/vfio-user/wire.h"
#include "vfio_user.h"

#define IN_SIZE	  65536
#define FDS_MAX	  16
#define MAPS	  4
#define WARM	  100
#define COUNT_MAX 20000
#define CONFIG	  256

struct server {
	int fd, twin;
	bool set_up; /* no more descriptors come */
	int fds[FDS_MAX];
	unsigned int nr_fds;
	uint8_t config[CONFIG];
	volatile uint32_t *heard; /* in BAR2 */
	int memory_fd, bell;
	struct {
		uint64_t address, size;
		uint8_t *host; /* NULL: not shared */
	} maps[MAPS];
	uint32_t address, scratch;
	uint8_t chunk[VFUB_CHUNK];
	uint8_t reply[VFUB_CHUNK];
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void *listen_to_bell(void *opaque)
{
	struct server *s = opaque;
	eventfd_t n;

	if (sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){ 0 }) < 0)
		die("SCHED_OTHER");
	while (eventfd_read(s->bell, &n) == 0)
		*s->heard += (uint32_t)n;
	return NULL;
}

/* What both halves have: a word of memory that can be shared, and a thread that counts there. */
static void make_bell(struct server *s)
{
	s->bell = eventfd(0, EFD_CLOEXEC);
	s->memory_fd = memfd_create("bar2", MFD_CLOEXEC);
	if (s->bell < 0 || s->memory_fd < 0 || ftruncate(s->memory_fd, VFUB_SIZE) < 0)
		die("memfd");
	s->heard = mmap(NULL, VFUB_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, s->memory_fd, 0);
	if (s->heard == MAP_FAILED)
		die("mmap");
}

static void start_listening(struct server *s)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, listen_to_bell, s))
		die("thread");
	pthread_detach(thread);
}

/* The server. */

static ssize_t receive(struct server *s, void *to, size_t size)
{
	char control[CMSG_SPACE(FDS_MAX * sizeof(int))];
	struct iovec iov = { to, size };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};
	ssize_t n;

	if (s->set_up)
		return recv(s->fd, to, size, 0);
	n = recvmsg(s->fd, &msg, MSG_CMSG_CLOEXEC);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); n > 0 && c; c = CMSG_NXTHDR(&msg, c)) {
		s->nr_fds = (unsigned int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(s->fds, CMSG_DATA(c), s->nr_fds * sizeof(int));
	}
	return n;
}

static void send_with_fd(int to, const void *data, size_t size, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { (void *)data, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c = (struct cmsghdr *)control;

	if (fd >= 0) {
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	if (sendmsg(to, &msg, MSG_NOSIGNAL) != (ssize_t)size)
		exit(0);
}

/* VFUB_CHUNK bytes, by memory that is shared or by messages on the other socket. */
static uint32_t copy(struct server *s, bool store)
{
	struct vfu_dma_access access = { s->address, VFUB_CHUNK };
	struct vfu_header header = { .command = store ? VFU_DMA_WRITE : VFU_DMA_READ };
	struct iovec iov[3] = { { &header, sizeof(header) }, { &access, sizeof(access) }, { s->chunk, VFUB_CHUNK } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 3 };
	size_t size = sizeof(header) + sizeof(access) + (store ? 0 : VFUB_CHUNK);

	for (unsigned int i = 0; i < MAPS; i++) {
		if (!s->maps[i].host || s->address < s->maps[i].address ||
		    s->address - s->maps[i].address + VFUB_CHUNK > s->maps[i].size)
			continue;
		uint8_t *guest = s->maps[i].host + (s->address - s->maps[i].address);

		memcpy(store ? guest : s->chunk, store ? s->chunk : guest, VFUB_CHUNK);
		return 0;
	}
	header.size = (uint32_t)(sizeof(header) + sizeof(access) + (store ? VFUB_CHUNK : 0));
	msg.msg_iovlen = store ? 3 : 2;
	if (s->twin < 0 || sendmsg(s->twin, &msg, MSG_NOSIGNAL) != header.size)
		return EPIPE;
	msg.msg_iovlen = store ? 2 : 3;
	if (recvmsg(s->twin, &msg, MSG_WAITALL) != (ssize_t)size)
		return header.error ? header.error : EPROTO;
	return header.error;
}

static void do_version(struct server *s, uint16_t id)
{
	static const char text[] = "{\"capabilities\":{\"max_msg_fds\":8,\"twin_socket\":{\"supported\":true,"
				   "\"fd_index\":0}}}";
	struct vfu_header header = { id, VFU_VERSION, sizeof(header) + 4 + sizeof(text), VFU_TYPE_REPLY, 0 };
	uint8_t message[sizeof(header) + 4 + sizeof(text)] = { 0 };
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		die("socketpair");
	s->twin = pair[0];
	memcpy(message, &header, sizeof(header));
	memcpy(message + sizeof(header) + 4, text, sizeof(text));
	send_with_fd(s->fd, message, sizeof(message), pair[1]);
	close(pair[1]);
}

static size_t region_info(struct server *s, uint8_t *reply, int *fd)
{
	struct vfu_region_info info;

	memcpy(&info, reply, sizeof(info));
	info.argsz = sizeof(info);
	info.cap_offset = 0;
	info.size = info.index == 0 || info.index == 2 || info.index == 4 ? VFUB_SIZE
		    : info.index == VFU_REGION_CONFIG			  ? CONFIG
									  : 0;
	info.flags = info.size ? VFU_REGION_READABLE | VFU_REGION_WRITABLE : 0;
	info.offset = 0;
	if (info.index == 2) {
		info.flags |= VFU_REGION_MMAP;
		*fd = s->memory_fd;
	}
	memcpy(reply, &info, sizeof(info));
	return sizeof(info);
}

static size_t io_fds(struct server *s, uint8_t *reply, int *fd)
{
	const struct vfu_io_fd_40 bell = { .size = 4, .type = VFU_IOEVENTFD };
	struct vfu_io_fds head;

	memcpy(&head, reply, sizeof(head));
	head.count = head.index == 4;
	head.argsz = (uint32_t)(sizeof(head) + head.count * sizeof(bell));
	memcpy(reply, &head, sizeof(head));
	memcpy(reply + sizeof(head), &bell, sizeof(bell));
	if (head.count)
		*fd = s->bell;
	return head.argsz;
}

static void do_map(struct server *s, const uint8_t *payload)
{
	struct vfu_dma_map map;

	memcpy(&map, payload, sizeof(map));
	for (unsigned int i = 0; i < MAPS; i++) {
		if (s->maps[i].size)
			continue;
		s->maps[i].address = map.address;
		s->maps[i].size = map.size;
		if (!s->nr_fds)
			return;
		s->maps[i].host =
			mmap(NULL, map.size, PROT_READ | PROT_WRITE, MAP_SHARED, s->fds[0], (off_t)map.fd_offset);
		if (s->maps[i].host == MAP_FAILED)
			die("mmap of guest memory");
		return;
	}
}

static uint32_t read_register(struct server *s, uint64_t offset)
{
	switch (offset) {
	case VFUB_ID:
		return VFUB_MAGIC;
	case VFUB_FETCH:
	case VFUB_STORE:
		return copy(s, offset == VFUB_STORE);
	default:
		return s->scratch;
	}
}

static size_t do_access(struct server *s, bool write, uint8_t *payload)
{
	struct vfu_region_access access;
	uint8_t *data = payload + sizeof(access);
	uint32_t value = 0;

	memcpy(&access, payload, sizeof(access));
	if (access.region == VFU_REGION_CONFIG) {
		if (access.offset + access.count > CONFIG)
			return 0;
		memcpy(write ? s->config + access.offset : data, write ? data : s->config + access.offset,
		       access.count);
	} else if (write) {
		s->set_up = true;
		memcpy(&value, data, access.count < 4 ? access.count : 4);
		*(access.offset == VFUB_ADDRESS ? &s->address : &s->scratch) = value;
	} else {
		s->set_up = true;
		value = read_register(s, access.offset);
		memcpy(data, &value, sizeof(value));
	}
	return sizeof(access) + (write ? 0 : access.count);
}

/* The payload becomes the reply's. */
static void serve_message(struct server *s, uint8_t *message)
{
	struct vfu_device_info info = { sizeof(info), VFU_DEVICE_PCI, 9, VFU_IRQS };
	struct vfu_header header;
	uint8_t *payload = message + sizeof(header);
	uint32_t words[4];
	size_t size = 0;
	int fd = -1;

	memcpy(&header, message, sizeof(header));
	switch (header.command) {
	case VFU_VERSION:
		do_version(s, header.id);
		return;
	case VFU_DMA_MAP:
		do_map(s, payload);
		break;
	case VFU_DEVICE_GET_INFO:
		memcpy(payload, &info, size = sizeof(info));
		break;
	case VFU_GET_REGION_INFO:
		size = region_info(s, payload, &fd);
		break;
	case VFU_GET_REGION_IO_FDS:
		size = io_fds(s, payload, &fd);
		break;
	case VFU_GET_IRQ_INFO:
		memcpy(words, payload, sizeof(words));
		words[1] = words[3] = 0;
		memcpy(payload, words, size = sizeof(words));
		break;
	case VFU_REGION_READ:
	case VFU_REGION_WRITE:
		size = do_access(s, header.command == VFU_REGION_WRITE, payload);
		break;
	}
	for (unsigned int i = 0; i < s->nr_fds; i++)
		close(s->fds[i]);
	s->nr_fds = 0;
	if (header.flags & VFU_NO_REPLY)
		return;
	header.size = (uint32_t)(sizeof(header) + size);
	header.flags = VFU_TYPE_REPLY;
	memcpy(message, &header, sizeof(header));
	if (fd >= 0)
		send_with_fd(s->fd, message, header.size, fd);
	else if (send(s->fd, message, header.size, MSG_NOSIGNAL) != (ssize_t)header.size)
		exit(0);
}

/* Several posted writes may come at once. */
static void serve(struct server *s)
{
	static uint8_t in[IN_SIZE];
	uint8_t message[4096];
	size_t used = 0;

	for (;;) {
		ssize_t n = receive(s, in + used, sizeof(in) - used);
		size_t at = 0;

		if (n <= 0)
			exit(0);
		used += (size_t)n;
		while (used - at >= sizeof(struct vfu_header)) {
			struct vfu_header header;

			memcpy(&header, in + at, sizeof(header));
			if (header.size < sizeof(header) || header.size > sizeof(message))
				exit(1);
			if (used - at < header.size)
				break;
			memcpy(message, in + at, header.size);
			at += header.size;
			serve_message(s, message);
		}
		used -= at;
		memmove(in, in + at, used);
	}
}

static void build_config(struct server *s)
{
	const uint32_t ids = VFUB_DEVICE << 16 | VFUB_VENDOR, class_code = 0xff000001;

	memcpy(s->config, &ids, 4);
	memcpy(s->config + 8, &class_code, 4);
	memcpy(s->config + 0x2c, &ids, 4);
}

static int be_server(const char *path, char **command)
{
	static struct server s = { .twin = -1 };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pid_t parent = getpid(), child;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	unlink(path);
	if (listener < 0 || bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(listener, 1) < 0)
		die(path);
	child = fork();
	if (child < 0)
		die("fork");
	if (child) {
		execv(command[0], command);
		die(command[0]);
	}
	/* Without a client it has nothing to end with. */
	if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0 || getppid() != parent)
		return 1;
	/* Its end is not that of the monitor's output. */
	close(STDOUT_FILENO);
	make_bell(&s);
	build_config(&s);
	s.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (s.fd < 0)
		die("accept");
	start_listening(&s);
	serve(&s);
	return 0;
}

/* The floor. */

struct floor {
	struct server s; /* bell and memory */
	uint8_t *shared; /* VFUB_CHUNK bytes that stand for guest memory */
	int fd;
};

static void answer(struct floor *f)
{
	uint8_t in[4096], reply[36] = { 0 };
	size_t used = 0;

	for (;;) {
		ssize_t n = recv(f->fd, in + used, sizeof(in) - used, 0);
		struct vfu_header header;

		if (n <= 0)
			exit(0);
		used += (size_t)n;
		/* A read has 32 bytes, a write 36. */
		for (size_t at = 0; used; at += header.size, used -= header.size) {
			memcpy(&header, in + at, sizeof(header));
			if (header.command == VFU_REGION_WRITE)
				continue;
			if (header.error)
				memcpy(header.error == VFUB_FETCH ? f->s.chunk : f->shared,
				       header.error == VFUB_FETCH ? f->shared : f->s.chunk, VFUB_CHUNK);
			if (send(f->fd, reply, sizeof(reply), MSG_NOSIGNAL) != sizeof(reply))
				exit(0);
		}
	}
}

static void transfer(const struct floor *f, uint16_t command, uint32_t copy)
{
	uint8_t message[36] = { 0 }, reply[36];
	struct vfu_header header = { .command = command, .size = command == VFU_REGION_WRITE ? 36 : 32, .error = copy };

	memcpy(message, &header, sizeof(header));
	if (send(f->fd, message, header.size, MSG_NOSIGNAL) != (ssize_t)header.size)
		die("send");
	if (command == VFU_REGION_READ && recv(f->fd, reply, sizeof(reply), 0) != sizeof(reply))
		die("recv");
}

static void run(const struct floor *f, const char *test)
{
	uint32_t before = *f->s.heard;

	if (strcmp(test, "write") == 0)
		for (unsigned int i = 0; i < VFUB_BATCH; i++)
			transfer(f, VFU_REGION_WRITE, 0);
	if (strcmp(test, "doorbell") != 0) {
		transfer(f, VFU_REGION_READ,
			 strcmp(test, "fetch") == 0   ? VFUB_FETCH
			 : strcmp(test, "store") == 0 ? VFUB_STORE
						      : 0);
		return;
	}
	eventfd_write(f->s.bell, 1);
	while (*f->s.heard == before)
		;
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

static int be_floor(const char *test, unsigned int count)
{
	static uint64_t samples[COUNT_MAX];
	static struct floor f;
	uint64_t begin, ns, tsc;
	int pair[2];

	make_bell(&f.s);
	f.shared = mmap(NULL, VFUB_CHUNK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (f.shared == MAP_FAILED || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		die("floor");
	switch (fork()) {
	case -1:
		die("fork");
		break;
	case 0:
		f.fd = pair[1];
		close(pair[0]);
		close(STDOUT_FILENO);
		start_listening(&f.s);
		answer(&f);
	}
	close(pair[1]);
	f.fd = pair[0];
	for (unsigned int i = 0; i < WARM; i++)
		run(&f, test);
	ns = now_ns();
	tsc = __rdtsc();
	for (unsigned int i = 0; i < count; i++) {
		begin = __rdtsc();
		run(&f, test);
		samples[i] = (__rdtsc() - begin) / (strcmp(test, "write") == 0 ? VFUB_BATCH + 1 : 1);
	}
	tsc = __rdtsc() - tsc;
	ns = now_ns() - ns;
	qsort(samples, count, sizeof(samples[0]), compare);
	printf("round trips: count %u min %llu median %llu p99 %llu max %llu tsc_khz %llu\n", count,
	       (unsigned long long)samples[0], (unsigned long long)samples[count / 2],
	       (unsigned long long)samples[count - 1 - count / 100], (unsigned long long)samples[count - 1],
	       (unsigned long long)(tsc * 1000000 / ns));
	fflush(stdout);
	/* tests/bench/measure looks at the process when the figures have arrived. */
	usleep(20000);
	return 0;
}

int main(int argc, char **argv)
{
	char test[16];
	unsigned int count;

	if (sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){ 0 }) < 0)
		die("SCHED_BATCH");
	if (argc > 3 && strcmp(argv[1], "serve") == 0)
		return be_server(argv[2], argv + 3);
	if (argc == 4 && strcmp(argv[1], "floor") == 0 && sscanf(argv[2], "test=%15s", test) == 1 &&
	    sscanf(argv[3], "count=%u", &count) == 1 && count && count <= COUNT_MAX)
		return be_floor(test, count);
	fputs("usage: vfio_user serve SOCKET COMMAND... | floor test=NAME count=N\n", stderr);
	return 2;
}
