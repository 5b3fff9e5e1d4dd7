/* SPDX-License-Identifier: MIT */
/*
 * netload - both ends of the benchmark "net": in the guest its /init, on the host the one who asks and measures.
 *
 *	netload ADDRESS TEST WARM COUNT		TEST: up (guest to host), down, rr (a byte there, a byte back)
 *
 * Theory of operation
 *
 * As process 1 it inserts what is in /modules, gives eth0 the second address of the network, says so on the console and
 * serves one connection after the other. A connection carries commands, each a struct order, and after it the bytes it
 * is about. The guest answers SINK with one byte when all has arrived, and INTERRUPTS with a number.
 *
 * On the host one run is a connection: WARM bytes (or transactions), so that windows are open and buffers are touched,
 * then twice COUNT. Before and after each it says so with a line on standard output ("ready", "done NANOSECONDS
 * INTERRUPTS") and waits for one on standard input: there the caller reads the counters of others. Nobody sleeps and
 * nothing is written but what is counted. Every failure ends the program with a sentence.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"

#define PORT	 7
#define GUEST	 "10.77.9.2"
#define NETMASK	 "255.255.255.0"
#define CHUNK	 (128u << 10)
#define TICK_NS	 50000000
#define PATIENCE 100 /* ticks, until there is a card */

enum { SOURCE, SINK, ECHO, INTERRUPTS };

struct order {
	uint64_t kind, count;
};

static char chunk[CHUNK];

static __attribute__((noreturn)) void die(const char *what)
{
	fprintf(stderr, "netload: %s: %s\n", what, strerror(errno));
	if (getpid() == 1)
		reboot(RB_AUTOBOOT);
	exit(1);
}

/* ---- Both ends. False: the other end is gone. ---- */

static bool put(int fd, uint64_t bytes)
{
	while (bytes) {
		ssize_t n = write(fd, chunk, bytes < CHUNK ? bytes : CHUNK);

		if (n <= 0)
			return false;
		bytes -= (uint64_t)n;
	}
	return true;
}

static bool take(int fd, uint64_t bytes)
{
	while (bytes) {
		ssize_t n = read(fd, chunk, bytes < CHUNK ? bytes : CHUNK);

		if (n <= 0)
			return false;
		bytes -= (uint64_t)n;
	}
	return true;
}

static bool take_object(int fd, void *object, size_t size)
{
	return recv(fd, object, size, MSG_WAITALL) == (ssize_t)size;
}

/* ---- The guest ---- */

static void set_address(int fd, unsigned long request, const char *address)
{
	struct ifreq ifr = { .ifr_name = "eth0" };
	struct sockaddr_in sin = { .sin_family = AF_INET };

	inet_pton(AF_INET, address, &sin.sin_addr);
	memcpy(&ifr.ifr_addr, &sin, sizeof(sin));
	if (ioctl(fd, request, &ifr) < 0)
		die("eth0");
}

static void raise_card(void)
{
	struct ifreq ifr = { .ifr_name = "eth0" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	for (int i = 0; ioctl(fd, SIOCGIFINDEX, &ifr) < 0; i++) {
		if (i == PATIENCE)
			die("eth0");
		rest(TICK_NS);
	}
	set_address(fd, SIOCSIFADDR, GUEST);
	set_address(fd, SIOCSIFNETMASK, NETMASK);
	ifr = (struct ifreq){ .ifr_name = "eth0", .ifr_flags = IFF_UP | IFF_RUNNING };
	if (ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
		die("eth0");
	close(fd);
}

/* Of the card and its bus: lines of /proc/interrupts that are about VMBus or virtio, all CPUs together. */
static uint64_t count_interrupts(void)
{
	char line[1024];
	uint64_t sum = 0;
	FILE *f = fopen("/proc/interrupts", "re");

	while (f && fgets(line, sizeof(line), f)) {
		char *at = strchr(line, ':'), *end;

		if (!at || (!strstr(line, "virtio") && !strstr(line, "HYP:")))
			continue;
		for (at++;; at = end) {
			uint64_t n = strtoull(at, &end, 10);

			if (end == at)
				break;
			sum += n;
		}
	}
	if (f)
		fclose(f);
	return sum;
}

static bool echo(int fd, uint64_t count)
{
	while (count--)
		if (read(fd, chunk, 1) != 1 || write(fd, chunk, 1) != 1)
			return false;
	return true;
}

static bool obey(int fd, const struct order *order)
{
	uint64_t interrupts;

	switch (order->kind) {
	case SOURCE:
		return put(fd, order->count);
	case SINK:
		return take(fd, order->count) && put(fd, 1);
	case ECHO:
		return echo(fd, order->count);
	case INTERRUPTS:
		interrupts = count_interrupts();
		return write(fd, &interrupts, sizeof(interrupts)) == sizeof(interrupts);
	default:
		return false;
	}
}

static __attribute__((noreturn)) void serve(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	if (bind(listener, (struct sockaddr *)&sin, sizeof(sin)) < 0 || listen(listener, 1) < 0)
		die("listen");
	printf("netload: listening\n");
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		struct order order;

		if (fd < 0)
			die("accept");
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		while (take_object(fd, &order, sizeof(order)) && obey(fd, &order))
			;
		close(fd);
	}
}

static __attribute__((noreturn)) void be_guest(void)
{
	mkdir("/proc", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	insert_modules();
	raise_card();
	serve();
}

/* ---- The host ---- */

static int reach(const char *address)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	if (inet_pton(AF_INET, address, &sin.sin_addr) != 1) {
		errno = EINVAL;
		die(address);
	}
	if (connect(fd, (struct sockaddr *)&sin, sizeof(sin)) < 0)
		die("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

static void command(int fd, uint64_t kind, uint64_t count)
{
	const struct order order = { kind, count };

	if (write(fd, &order, sizeof(order)) != sizeof(order))
		die("write");
}

static uint64_t ask_interrupts(int fd)
{
	uint64_t interrupts = 0;

	command(fd, INTERRUPTS, 0);
	if (!take_object(fd, &interrupts, sizeof(interrupts)))
		die("interrupts");
	return interrupts;
}

static void up(int fd, uint64_t count)
{
	command(fd, SOURCE, count);
	if (!take(fd, count))
		die("up");
}

static void down(int fd, uint64_t count)
{
	command(fd, SINK, count);
	if (!put(fd, count) || !take(fd, 1))
		die("down");
}

static void rr(int fd, uint64_t count)
{
	command(fd, ECHO, count);
	while (count--)
		if (!put(fd, 1) || !take(fd, 1))
			die("rr");
}

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

static void wait_for_caller(void)
{
	char line[16];

	if (!fgets(line, sizeof(line), stdin))
		exit(1);
}

static int be_host(char **argv)
{
	static const struct {
		const char *name;
		void (*run)(int fd, uint64_t count);
	} tests[] = { { "up", up }, { "down", down }, { "rr", rr } };
	uint64_t warm = strtoull(argv[3], NULL, 10), count = strtoull(argv[4], NULL, 10);
	void (*run)(int fd, uint64_t count) = NULL;
	int fd;

	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		if (!strcmp(argv[2], tests[i].name))
			run = tests[i].run;
	if (!run) {
		fprintf(stderr, "netload: %s: no such test\n", argv[2]);
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	fd = reach(argv[1]);
	run(fd, warm);
	for (int i = 0; i < 2; i++) {
		uint64_t interrupts = ask_interrupts(fd), start, ns;

		printf("ready\n");
		wait_for_caller();
		start = now();
		run(fd, count);
		ns = now() - start;
		printf("done %" PRIu64 " %" PRIu64 "\n", ns, ask_interrupts(fd) - interrupts);
		wait_for_caller();
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (getpid() == 1)
		be_guest();
	if (argc == 5)
		return be_host(argv);
	fprintf(stderr, "usage: netload ADDRESS up|down|rr WARM COUNT\n");
	return 1;
}
