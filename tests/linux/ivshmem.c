/* SPDX-License-Identifier: MIT */
/*
 * ivshmem - takes part in a ring of machines and processes that share memory, for cases_ivshmem.sh.
 *
 *	ivshmem uio DEVICE ROLE PARTIES ROUNDS	  in a guest: uio_pci_generic, INTx (msi=off)
 *	ivshmem poll DEVICE ROLE PARTIES ROUNDS	  in a guest: without interrupts; it rings, and looks at the memory
 *	ivshmem host SOCKET ROLE PARTIES ROUNDS	  on the host: a client of the server
 *	ivshmem plain FILE fill|answer|check	  memory alone: a file of the host, or resource2 in a guest
 *
 * Theory of operation
 *
 * A token goes round: whoever has it checks the page that the party before has written, writes its own, counts the
 * token up and rings the next one, then sleeps until it is rung. Nobody looks at the memory without having been rung,
 * so that one bell that is lost stops the ring, and the alarm tells. Before that each one rings the next until that has
 * heard, since whoever comes late is not yet known to all: on the last vector, which is the last to be made known. The
 * token comes on the first two in turn, and with eventfds each of them must ring as often as it should. The
 * freestanding guest tests/guests/ivshmem.c with test=token is another party, with MSI-X. This program is written from
 * QEMU's docs/specs/ivshmem-spec.rst and shares no code with vmm.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { MASK = 0, STATUS = 1, POSITION = 2, DOORBELL = 3 }; /* words of BAR0 */
enum { FIRST, SECOND, HELLO, VECTORS };
enum { PAGE = 4096, PARTIES = 16, IDS = 65536, RETRY_MS = 10, SECONDS = 60 };
enum { COMMAND = 4, COMMAND_INTX_DISABLE = 0x400 };

struct shared {
	_Atomic uint32_t token;
	struct {
		_Atomic uint32_t id, heard; /* id: plus 1 */
	} parties[PARTIES];
};

struct party {
	uint8_t *memory;
	struct shared *shared;
	unsigned int role, count, id;
	bool distinct; /* vectors can be told from each other */
	bool polls;
	uint64_t rung[VECTORS];
	int events[VECTORS];	      /* with uio only the first */
	volatile uint32_t *registers; /* in a guest */
	int config;
	int server, (*peers)[VECTORS]; /* on the host: by id; 0: none */
};

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
	va_list arguments;

	fputs("ivshmem: ", stdout);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
	exit(1);
}

static int check(int ret, const char *what)
{
	if (ret < 0)
		die("%s: %s", what, strerror(errno));
	return ret;
}

static void *map(int fd, size_t length, off_t offset, const char *what)
{
	void *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);

	if (at == MAP_FAILED)
		die("%s: mmap: %s", what, strerror(errno));
	return at;
}

static int open_file(const char *directory, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s%s%s", directory, *name ? "/" : "", name);
	return check(open(path, O_RDWR | O_CLOEXEC), path);
}

static size_t size_of(int fd)
{
	struct stat st;

	check(fstat(fd, &st), "fstat");
	return (size_t)st.st_size;
}

/* -- in a guest */

static void open_poll(struct party *p, const char *device)
{
	int memory = open_file(device, "resource2");

	p->registers = map(open_file(device, "resource0"), PAGE, 0, "resource0");
	p->memory = map(memory, size_of(memory), 0, "resource2");
	p->id = p->registers[POSITION];
	p->polls = true;
}

static void open_uio(struct party *p, const char *device)
{
	open_poll(p, device);
	p->polls = false;
	p->config = open_file(device, "config");
	p->events[0] = open_file("/dev/uio0", "");
	p->registers[MASK] = 1;
}

/* The kernel's handler has masked INTx in the command register, and leaves the rest to us. */
static void uio_rung(struct party *p)
{
	uint32_t count;
	uint16_t command;

	if (read(p->events[0], &count, sizeof(count)) != sizeof(count))
		die("uio: %s", strerror(errno));
	if (p->registers[STATUS])
		p->rung[0]++;
	if (pread(p->config, &command, 2, COMMAND) != 2)
		die("config: %s", strerror(errno));
	command &= (uint16_t)~COMMAND_INTX_DISABLE;
	if (pwrite(p->config, &command, 2, COMMAND) != 2)
		die("config: %s", strerror(errno));
}

/* -- on the host */

static int64_t receive(struct party *p, int *fd)
{
	int64_t value;
	struct iovec iov = { &value, sizeof(value) };
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};

	/* Eight bytes never come in pieces on this side of a Unix socket. */
	if (recvmsg(p->server, &msg, MSG_WAITALL | MSG_CMSG_CLOEXEC) != sizeof(value))
		die("the server is gone");
	*fd = -1;
	if (CMSG_FIRSTHDR(&msg))
		memcpy(fd, CMSG_DATA(&control.header), sizeof(*fd));
	return value;
}

static void hear_server(struct party *p)
{
	int fd, *vectors;
	int64_t id = receive(p, &fd);
	unsigned int i = 0;

	if (id < 0 || id >= IDS)
		die("the server speaks of id %lld", (long long)id);
	vectors = id == p->id ? p->events : p->peers[id];
	if (fd < 0) {
		for (; i < VECTORS; i++)
			vectors[i] = 0;
		return;
	}
	while (i < VECTORS && vectors[i])
		i++;
	if (i == VECTORS)
		die("id %lld has more than %d vectors", (long long)id, VECTORS);
	vectors[i] = fd;
}

static void open_host(struct party *p, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int64_t version, id, memory;
	int none, fd;

	strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	p->server = check(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
	check(connect(p->server, (struct sockaddr *)&address, sizeof(address)), path);
	p->peers = calloc(IDS, sizeof(*p->peers));
	version = receive(p, &none);
	id = receive(p, &none);
	memory = receive(p, &fd);
	if (!p->peers || version || id < 0 || id >= IDS || memory != -1 || fd < 0)
		die("the server begins with %lld, %lld, %lld", (long long)version, (long long)id, (long long)memory);
	p->id = (unsigned int)id;
	p->memory = map(fd, size_of(fd), 0, "the memory");
	p->distinct = true;
	while (!p->events[VECTORS - 1])
		hear_server(p);
}

/* -- everywhere */

static void ring(struct party *p, unsigned int role, unsigned int vector)
{
	uint32_t id = p->shared->parties[role].id - 1;
	const uint64_t one = 1;

	if (p->registers) {
		p->registers[DOORBELL] = id << 16 | vector;
		return;
	}
	/* Who is in the memory has met the server: the news is on its way. */
	while (!p->peers[id][vector])
		hear_server(p);
	if (write(p->peers[id][vector], &one, sizeof(one)) != sizeof(one))
		die("eventfd: %s", strerror(errno));
}

/* Sleeps until there is something, or for ms milliseconds; -1: for ever. */
static void sleep_until_rung(struct party *p, int ms)
{
	struct pollfd fds[VECTORS + 1];
	uint64_t count;
	nfds_t n = 0;

	if (p->polls) {
		poll(NULL, 0, 1);
		p->rung[FIRST]++;
		return;
	}
	for (unsigned int i = 0; i < (p->distinct ? VECTORS : 1); i++)
		fds[n++] = (struct pollfd){ .fd = p->events[i], .events = POLLIN };
	if (p->server)
		fds[n++] = (struct pollfd){ .fd = p->server, .events = POLLIN };
	check(poll(fds, n, ms), "poll");
	if (!p->distinct && fds[0].revents)
		uio_rung(p);
	for (unsigned int i = 0; p->distinct && i < VECTORS; i++)
		if (fds[i].revents && read(p->events[i], &count, sizeof(count)) == sizeof(count))
			p->rung[i] += count;
	if (p->server && fds[VECTORS].revents)
		hear_server(p);
}

static uint64_t sum(const struct party *p)
{
	return p->rung[HELLO] + p->rung[FIRST] + p->rung[SECOND];
}

static void meet(struct party *p)
{
	unsigned int next = (p->role + 1) % p->count;

	p->shared->parties[p->role].id = p->id + 1;
	for (unsigned int i = 0; i < p->count; i++)
		while (!p->shared->parties[i].id)
			sleep_until_rung(p, RETRY_MS);
	printf("ivshmem: role %u, id %u: %u parties are there\n", p->role, p->id, p->count);
	fflush(stdout);
	while (!p->shared->parties[p->role].heard || !p->shared->parties[next].heard) {
		ring(p, next, HELLO);
		sleep_until_rung(p, RETRY_MS);
		if (sum(p))
			p->shared->parties[p->role].heard = 1;
	}
}

static uint64_t word_of(uint32_t token, unsigned int i)
{
	return (token * 0x9e3779b97f4a7c15ULL) ^ i;
}

/* A page a party behind the first. */
static void take_token(struct party *p, uint32_t token)
{
	unsigned int before = (p->role + p->count - 1) % p->count;
	volatile uint64_t *theirs = (volatile void *)(p->memory + PAGE * (1 + before));
	volatile uint64_t *ours = (volatile void *)(p->memory + PAGE * (1 + p->role));

	for (unsigned int i = 0; token && i < PAGE / 8; i++)
		if (theirs[i] != word_of(token - 1, i))
			die("token %u: word %u is %llx", token, i, (unsigned long long)theirs[i]);
	for (unsigned int i = 0; i < PAGE / 8; i++)
		ours[i] = word_of(token, i);
}

/* Sleeps until the token is the one wanted, which the bell number n of the ring tells. */
static void wait_token(struct party *p, uint32_t token, uint32_t n)
{
	unsigned int vector = n % 2 ? SECOND : FIRST;

	while (p->distinct ? p->rung[vector] < n / 2 + 1 : p->shared->token != token)
		sleep_until_rung(p, -1);
	if (p->distinct && p->rung[vector] != n / 2 + 1)
		die("token %u: vector %u rang %llu times", token, vector, (unsigned long long)p->rung[vector]);
	if (p->shared->token != token)
		die("the token is %u where %u was rung", p->shared->token, token);
}

static void run(struct party *p, uint32_t rounds)
{
	alarm(SECONDS);
	for (uint32_t n = 0; n < rounds; n++) {
		uint32_t token = n * p->count + p->role;

		/* The first of all has nobody before it. */
		if (token)
			wait_token(p, token, n - !p->role);
		take_token(p, token);
		p->shared->token = token + 1;
		ring(p, (p->role + 1) % p->count, n % 2 ? SECOND : FIRST);
	}
	if (!p->role)
		wait_token(p, rounds * p->count, rounds - 1);
	printf("ivshmem: role %u, id %u: %u rounds of %u parties\n", p->role, p->id, rounds, p->count);
}

static void plain(const char *path, const char *what)
{
	int fd = open_file(path, "");
	size_t size = size_of(fd), step = size > 64 << 20 ? size / 16 : PAGE;
	uint8_t *memory = map(fd, size, 0, path);
	uint64_t wanted = strcmp(what, "check") == 0;

	for (size_t at = 0; at < size; at += step) {
		volatile uint64_t *word = (volatile void *)(memory + at);

		if (strcmp(what, "fill") != 0 && word[0] != word_of(at / PAGE, 0) + wanted)
			die("%s: %llx at %zx", path, (unsigned long long)word[0], at);
		word[0] = word_of(at / PAGE, 0) + (strcmp(what, "fill") != 0);
	}
	printf("ivshmem: %s: %s %zu bytes\n", path, what, size);
}

static void too_long(int number)
{
	static const char text[] = "ivshmem: a bell was lost\n";

	(void)number;
	_exit(write(STDOUT_FILENO, text, sizeof(text) - 1) < 0 ? 2 : 1);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*open)(struct party *p, const char *where);
	} kinds[] = { { "uio", open_uio }, { "poll", open_poll }, { "host", open_host } };
	struct party p = { 0 };

	if (argc == 4 && strcmp(argv[1], "plain") == 0) {
		plain(argv[2], argv[3]);
		return 0;
	}
	if (argc != 6)
		die("usage: ivshmem uio|poll|host DEVICE|SOCKET ROLE PARTIES ROUNDS");
	p.role = (unsigned int)atoi(argv[3]);
	p.count = (unsigned int)atoi(argv[4]);
	if (p.count < 2 || p.count > PARTIES || p.role >= p.count)
		die("role %u of %u", p.role, p.count);
	signal(SIGALRM, too_long);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(argv[1], kinds[i].name) == 0)
			kinds[i].open(&p, argv[2]);
	if (!p.memory)
		die("%s: none of uio, poll, host", argv[1]);
	p.shared = (struct shared *)(void *)p.memory;
	meet(&p);
	run(&p, (uint32_t)atoi(argv[5]));
	return 0;
}
