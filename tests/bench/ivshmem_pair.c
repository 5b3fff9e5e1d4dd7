/* SPDX-License-Identifier: MIT */
/*
 * ivshmem_pair - start what the benchmark "ivshmem" measures, and what that needs beside it.
 *
 *	ivshmem_pair SOCKET SERVER... -- [PEER... --] MONITOR...
 *
 * Starts the server, waits for its socket, starts the peer, and becomes the monitor, so that tests/bench/measure has
 * the process that it looks at. The others end with it. "@khz@" in an argument becomes the TSC's frequency in guests,
 * as KVM has it.
 *
 * All of them run under SCHED_BATCH, and so none takes the CPU from the one that wakes it. Otherwise it depends on who
 * has run for longer, which is chance, whether a guest that rings halts before or after the other has run.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MS 10000

static __attribute__((noreturn)) void die(const char *what)
{
	fprintf(stderr, "ivshmem_pair: %s: %s\n", what, strerror(errno));
	exit(2);
}

static int guest_khz(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm, vcpu, khz;

	if (kvm < 0 || (vm = ioctl(kvm, KVM_CREATE_VM, 0)) < 0 || (vcpu = ioctl(vm, KVM_CREATE_VCPU, 0)) < 0)
		die("/dev/kvm");
	khz = ioctl(vcpu, KVM_GET_TSC_KHZ);
	if (khz <= 0)
		die("KVM_GET_TSC_KHZ");
	close(vcpu);
	close(vm);
	close(kvm);
	return khz;
}

static void put_khz(char **words, int khz)
{
	for (; *words; words++) {
		char *at = strstr(*words, "@khz@"), *word;

		if (!at)
			continue;
		if (asprintf(&word, "%.*s%d%s", (int)(at - *words), *words, khz, at + strlen("@khz@")) < 0)
			die("asprintf");
		*words = word;
	}
}

/* Ends when this process does, whatever that is by then. */
static void start(char **command)
{
	pid_t parent = getpid(), child = fork();

	if (child < 0)
		die("fork");
	if (child)
		return;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
		_exit(2);
	execv(command[0], command);
	die(command[0]);
}

/* The command at words, cut off at its "--"; *rest is what comes after, or NULL. */
static char **cut(char **words, char ***rest)
{
	char **start = words;

	while (*words && strcmp(*words, "--") != 0)
		words++;
	*rest = *words ? words + 1 : NULL;
	*words = NULL;
	return start;
}

int main(int argc, char **argv)
{
	const struct timespec ms = { .tv_nsec = 1000000 };
	const struct sched_param batch = { 0 };
	char **server, **next, **rest;
	struct stat st;

	if (argc < 4)
		die("usage: ivshmem_pair SOCKET SERVER... -- [PEER... --] MONITOR...");
	put_khz(argv + 2, guest_khz());
	if (sched_setscheduler(0, SCHED_BATCH, &batch) < 0)
		die("sched_setscheduler");
	unlink(argv[1]);
	server = cut(argv + 2, &next);
	if (!next)
		die("no monitor");
	start(server);
	for (int i = 0; stat(argv[1], &st) < 0; i++, nanosleep(&ms, NULL))
		if (i == WAIT_MS)
			die(argv[1]);
	next = cut(next, &rest);
	if (rest) {
		start(next);
		next = rest;
	}
	execv(next[0], next);
	die(next[0]);
}
