/* SPDX-License-Identifier: MIT */
/*
 * beside - a program that another one is a client of, started before it.
 *
 *	beside SOCKET PROGRAM [ARGUMENT]... -- COMMAND [ARGUMENT]...
 *
 * PROGRAM is started; when SOCKET is there this process becomes COMMAND, so that whoever measures it measures that. The
 * program is killed with it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOOK_NS	 1000000
#define LOOK_MAX 30000

static void die(const char *what)
{
	fprintf(stderr, "beside: %s: %s\n", what, strerror(errno));
	exit(1);
}

int main(int argc, char **argv)
{
	static const struct timespec pause = { 0, LOOK_NS };
	pid_t parent = getpid(), child;
	int at = 2;

	while (at < argc && strcmp(argv[at], "--") != 0)
		at++;
	if (at < 3 || at >= argc - 1) {
		fprintf(stderr, "usage: beside SOCKET PROGRAM [ARGUMENT]... -- COMMAND [ARGUMENT]...\n");
		return 2;
	}
	argv[at] = NULL;
	/* Left by one before. */
	if (unlink(argv[1]) && errno != ENOENT)
		die(argv[1]);
	child = fork();
	if (child < 0)
		die("fork");
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			return 1;
		/* What it says is not what is waited for. */
		dup2(STDERR_FILENO, STDOUT_FILENO);
		execvp(argv[2], argv + 2);
		die(argv[2]);
	}
	for (unsigned int i = 0; access(argv[1], F_OK); i++) {
		if (i == LOOK_MAX || waitpid(child, NULL, WNOHANG)) {
			fprintf(stderr, "beside: %s makes no %s\n", argv[2], argv[1]);
			return 1;
		}
		nanosleep(&pause, NULL);
	}
	execvp(argv[at + 1], argv + at + 1);
	die(argv[at + 1]);
}
