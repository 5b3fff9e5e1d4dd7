/* SPDX-License-Identifier: MIT */
/*
 * A network without privilege: passt(1) turns the guest's connections into sockets of its own, and answers ARP, DHCP,
 * NDP and DNS. It runs as a process of its own, confined, at the other end of a socket pair; it ends when that closes,
 * so it never outlives us, whatever ends us.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/net/internal.h"
#include "vmm/log.h"

#define PEER_FD	 3
#define ARGS_MAX (16 + 2 * NET_FORWARDS_MAX)

struct passt {
	struct net_backend *socket;
	pid_t pid;  /* -1: has ended */
	int errors; /* what it has to complain of; kept from the console, and read when it has ended */
	void (*destroy_socket)(struct net_backend *net);
	struct net_ops ops;
};

/* "-t 2222:22" */
static char *forward_text(const struct net_forward *forward)
{
	char *text = NULL;

	return asprintf(&text, "%u:%u", forward->host, forward->guest) < 0 ? NULL : text;
}

static int spawn(const struct net_options *options, int fd, int errors, pid_t *pid)
{
	char *argv[ARGS_MAX + 1], mtu[16];
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	unsigned int n = 0, first;
	sigset_t none;
	int ret;

	snprintf(mtu, sizeof(mtu), "%u", options->mtu ? options->mtu : 1500);
	argv[n++] = (char *)"passt";
	argv[n++] = (char *)"--quiet";
	argv[n++] = (char *)"--foreground";
	argv[n++] = (char *)"--fd";
	argv[n++] = (char *)"3"; /* PEER_FD */
	argv[n++] = (char *)"--mtu";
	argv[n++] = mtu;
	first = n;
	for (unsigned int i = 0; i < options->nr_forwards; i++) {
		argv[n++] = (char *)(options->forwards[i].udp ? "-u" : "-t");
		argv[n] = forward_text(&options->forwards[i]);
		if (!argv[n++])
			return -ENOMEM;
	}
	argv[n] = NULL;

	sigemptyset(&none);
	posix_spawn_file_actions_init(&actions);
	/* Its complaints first: their descriptor may be PEER_FD. */
	posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO);
	posix_spawn_file_actions_adddup2(&actions, fd, PEER_FD);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &none);
	/* Not in our process group: Ctrl-C is for us, and the guest may want the network until its end. */
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
	ret = -posix_spawnp(pid, "passt", &actions, &attributes, argv, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	for (unsigned int i = first + 1; i < n; i += 2)
		free(argv[i]);
	return ret;
}

static struct passt *of(struct net_backend *net)
{
	return (struct passt *)((char *)net->ops - offsetof(struct passt, ops));
}

/* Its wait status. */
static int end_process(struct passt *p, int signal)
{
	int status = 0;

	kill(p->pid, signal);
	while (waitpid(p->pid, &status, 0) < 0 && errno == EINTR)
		;
	p->pid = -1;
	return status;
}

static void passt_destroy(struct net_backend *net)
{
	struct passt *p = of(net);

	p->destroy_socket(net); /* which is what ends it */
	if (p->pid > 0)
		end_process(p, SIGTERM);
	close(p->errors);
	free(p);
}

/* The last line of its complaints; size is small. That it has no system log to write to here is none. */
static void last_complaint(int fd, char *text, size_t size)
{
	char said[4096], *rest = said;
	const char *line;
	ssize_t more = 1;
	size_t n = 0;

	/* The end matters, and what it is the end of: a pipe that was filled holds 64 KiB. */
	for (unsigned int i = 0; i < 64 && more > 0; i++) {
		size_t kept = n < size ? n : size;

		memmove(said, said + n - kept, kept);
		more = read(fd, said + kept, sizeof(said) - 1 - kept);
		n = kept + (more > 0 ? (size_t)more : 0);
	}
	said[n] = '\0';
	snprintf(text, size, "it gives no reason");
	while ((line = strsep(&rest, "\n")))
		if (*line && strncmp(line, "Failed to send ", 15) != 0)
			snprintf(text, size, "%s", line);
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 127)
			*c = '?';
}

static void passt_explain(struct net_backend *net, char *text, size_t size)
{
	struct passt *p = of(net);
	char complaint[200];
	int status;

	/* Its end of the socket is closed: it is ending, or good for nothing any more. */
	status = end_process(p, SIGKILL);
	if (WIFSIGNALED(status)) {
		snprintf(text, size, "passt was ended by signal %d", WTERMSIG(status));
	} else if (WEXITSTATUS(status) == 0) {
		snprintf(text, size, "passt has ended");
	} else {
		last_complaint(p->errors, complaint, sizeof(complaint));
		snprintf(text, size, "passt has ended with status %d: %s", WEXITSTATUS(status), complaint);
	}
}

struct net_backend *passt_open(struct loop *loop, const struct net_options *options)
{
	struct passt *p = calloc(1, sizeof(*p));
	int fds[2] = { -1, -1 }, errors[2] = { -1, -1 }, ret = p ? 0 : -ENOMEM;

	if (!ret && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		ret = -errno;
	/* Descriptor PEER_FD itself would keep its close-on-exec flag in a dup2() onto itself. */
	if (!ret && fds[1] == PEER_FD)
		ret = fcntl(fds[1], F_SETFD, 0) < 0 ? -errno : 0;
	/* Nobody reads it meanwhile, so a full pipe must not hold it up. */
	if (!ret && pipe2(errors, O_CLOEXEC | O_NONBLOCK) < 0)
		ret = -errno;
	if (!ret)
		ret = spawn(options, fds[1], errors[1], &p->pid);
	if (fds[1] >= 0)
		close(fds[1]);
	if (errors[1] >= 0)
		close(errors[1]);
	if (!ret) {
		p->errors = errors[0];
		p->socket = socket_open(loop, fds[0], true, options->mtu);
		fds[0] = -1; /* taken over */
		if (p->socket) {
			p->ops = *p->socket->ops;
			p->destroy_socket = p->ops.destroy;
			p->ops.destroy = passt_destroy;
			p->ops.explain = passt_explain;
			p->socket->ops = &p->ops;
			return p->socket;
		}
		ret = -ENOMEM;
		end_process(p, SIGTERM);
	}
	if (errors[0] >= 0)
		close(errors[0]);
	if (fds[0] >= 0)
		close(fds[0]);
	log_line("--net user: passt: %s%s", strerror(-ret), ret == -ENOENT ? ": install the package passt" : "");
	free(p);
	return NULL;
}
