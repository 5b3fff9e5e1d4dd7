/* SPDX-License-Identifier: MIT */
/*
 * "vmm ivshmem-server". Each client is a connection with at most one receive and one send in the ring. It has nothing
 * to say, so whatever comes from it ends it, as does its end. Its socket's buffer is as small as can be: descriptors on
 * their way to a client that does not read count against a limit that all share.
 */
#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/ivshmem/ivshmem.h"
#include "devices/ivshmem/protocol.h"
#include "devices/ivshmem/server.h"
#include "vmm/log.h"
#include "vmm/loop.h"
#include "vmm/options.h"
#include "vmm/unix_socket.h"
#include "vmm/vm.h"

#define RETRY_NS 100000000ULL
#define END_NS	 1000000000ULL
#define BACKLOG	 128

struct settings {
	const char *socket, *shm;
	bool memfd;
	uint64_t size;
	unsigned int vectors, max_peers;
};

struct host {
	struct loop loop;
	struct ivshmem_server server;
	struct unix_socket listener;
	struct loop_op accept_op, signal_op;
	struct __kernel_timespec accept_ts;
	struct signalfd_siginfo signal_info;
	int signal_fd;
	bool ending;
	bool full; /* told that somebody was turned away */
	struct connection *connections;
};

struct connection {
	struct host *host;
	struct connection *next, **link;
	struct ivshmem_subscriber client;
	int fd;
	bool sending, receiving, waiting, closing, failing;
	struct loop_op send_op, recv_op, wait_op;
	struct __kernel_timespec ts;
	struct msghdr msg;
	struct iovec iov;
	uint64_t value;
	unsigned int sent; /* bytes of the message at hand */
	char byte;
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
};

#define connection_of(op, member) ((struct connection *)((char *)(op)-offsetof(struct connection, member)))
#define host_of(op, member)	  ((struct host *)((char *)(op)-offsetof(struct host, member)))

static void pump_all(struct host *host);

static void free_connection(struct connection *c)
{
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	close(c->fd);
	free(c);
}

/* Ends it; freed when the ring has let go. The others have news then. */
static void drop(struct connection *c)
{
	if (!c->closing) {
		c->closing = true;
		c->host->full = false;
		ivshmem_server_leave(&c->client);
		shutdown(c->fd, SHUT_RDWR);
		if (c->waiting)
			loop_cancel(&c->host->loop, &c->wait_op);
	}
	if (!c->sending && !c->receiving && !c->waiting)
		free_connection(c);
}

static void waited(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct connection *c = connection_of(op, wait_op);
	struct host *host = c->host;

	(void)res;
	(void)cqe_flags;
	c->waiting = false;
	if (c->closing)
		drop(c);
	pump_all(host);
}

static void send_next(struct connection *c)
{
	int64_t value;
	int fd;

	if (c->sending || c->waiting || c->closing || !ivshmem_server_next(&c->client, &value, &fd))
		return;
	c->value = htole64((uint64_t)value);
	c->iov = (struct iovec){ (char *)&c->value + c->sent, IVSHMEM_MESSAGE - c->sent };
	c->msg = (struct msghdr){ .msg_iov = &c->iov, .msg_iovlen = 1 };
	if (fd >= 0 && !c->sent) {
		struct cmsghdr *header = &c->control.header;

		c->msg.msg_control = &c->control;
		c->msg.msg_controllen = CMSG_SPACE(sizeof(int));
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	}
	c->sending = true;
	io_uring_prep_sendmsg(loop_sqe(&c->host->loop, &c->send_op), c->fd, &c->msg, MSG_NOSIGNAL);
}

static void pump_all(struct host *host)
{
	for (struct connection *c = host->ending ? NULL : host->connections; c; c = c->next) {
		if (!c->client.failed) {
			send_next(c);
		} else if (!c->failing) {
			/* Its receive ends now, and the rest follows from that. */
			c->failing = true;
			log_line("ivshmem-server: out of memory: client %u is dropped", c->client.self->id);
			shutdown(c->fd, SHUT_RDWR);
		}
	}
}

static void sent(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct connection *c = connection_of(op, send_op);
	struct host *host = c->host;

	(void)cqe_flags;
	c->sending = false;
	if (c->closing) {
		drop(c);
		return;
	}
	if (res > 0) {
		c->sent += (unsigned int)res;
		if (c->sent == IVSHMEM_MESSAGE) {
			c->sent = 0;
			ivshmem_server_sent(&c->client);
		}
		send_next(c);
		return;
	}
	/* Too many descriptors on their way, or no memory: both pass. */
	if (res == -ETOOMANYREFS || res == -ENOMEM || res == -ENOBUFS || res == -EAGAIN || res == -EINTR) {
		c->waiting = true;
		loop_timer(&host->loop, &c->wait_op, &c->ts, RETRY_NS);
		return;
	}
	drop(c);
	pump_all(host);
}

static void received(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct connection *c = connection_of(op, recv_op);
	struct host *host = c->host;

	(void)cqe_flags;
	c->receiving = false;
	if (res > 0 && !c->closing)
		log_line("ivshmem-server: client %u is dropped: it sent something, which is not in the protocol",
			 c->client.self->id);
	drop(c);
	pump_all(host);
}

static void serve(struct host *host, int fd)
{
	const int least = 1; /* the kernel makes the smallest possible of it */
	struct connection *c = calloc(1, sizeof(*c));
	int ret = c ? ivshmem_server_join(&host->server, &c->client) : -ENOMEM;

	if (ret) {
		if (!host->full)
			log_line("ivshmem-server: turned a client away: %s",
				 ret == -ENOSPC ? "--max-peers are here already" : strerror(-ret));
		host->full = true;
		close(fd);
		free(c);
		return;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &least, sizeof(least));
	c->host = host;
	c->fd = fd;
	c->send_op.fn = sent;
	c->recv_op.fn = received;
	c->wait_op.fn = waited;
	c->next = host->connections;
	c->link = &host->connections;
	if (c->next)
		c->next->link = &c->next;
	host->connections = c;
	c->receiving = true;
	io_uring_prep_recv(loop_sqe(&host->loop, &c->recv_op), fd, &c->byte, 1, 0);
	pump_all(host);
}

static void accept_next(struct host *host);

static void accept_again(struct loop_op *op, int res, uint32_t cqe_flags)
{
	(void)res;
	(void)cqe_flags;
	if (!host_of(op, accept_op)->ending)
		accept_next(host_of(op, accept_op));
}

static void accepted(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct host *host = host_of(op, accept_op);

	(void)cqe_flags;
	if (host->ending)
		return;
	if (res >= 0) {
		serve(host, res);
	} else if (res != -EINTR && res != -ECONNABORTED && res != -EAGAIN) {
		/* Out of descriptors, most likely: whoever waits goes on waiting. */
		if (!host->full)
			log_line("ivshmem-server: accept: %s", strerror(-res));
		host->full = true;
		host->accept_op.fn = accept_again;
		loop_timer(&host->loop, &host->accept_op, &host->accept_ts, RETRY_NS);
		return;
	}
	accept_next(host);
}

static void accept_next(struct host *host)
{
	host->accept_op.fn = accepted;
	io_uring_prep_accept(loop_sqe(&host->loop, &host->accept_op), host->listener.fd, NULL, NULL, SOCK_CLOEXEC);
}

static void got_signal(struct loop_op *op, int res, uint32_t cqe_flags)
{
	(void)res;
	(void)cqe_flags;
	loop_stop(&host_of(op, signal_op)->loop);
}

static int open_signals(struct host *host)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	host->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
	return host->signal_fd < 0 ? -errno : 0;
}

static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* Nothing in the ring may point into what is freed. */
static void end(struct host *host)
{
	struct connection *next;

	host->ending = true;
	loop_cancel(&host->loop, &host->signal_op);
	loop_cancel(&host->loop, &host->accept_op);
	for (struct connection *c = host->connections; c; c = next) {
		next = c->next;
		drop(c);
	}
	while (host->connections && loop_turn(&host->loop, END_NS))
		;
	loop_turn(&host->loop, 0);
}

static int run(const struct settings *settings, int memory)
{
	struct host host = { .listener.fd = -1, .signal_fd = -1 };
	int ret = ivshmem_server_init(&host.server, memory, settings->vectors, settings->max_peers);
	const char *what = "out of memory";

	raise_limit();
	loop_init(&host.loop);
	if (!ret) {
		what = "signalfd";
		ret = open_signals(&host);
	}
	if (!ret) {
		what = "io_uring";
		ret = loop_start(&host.loop);
	}
	if (!ret) {
		what = settings->socket;
		ret = unix_socket_listen(&host.listener, settings->socket, 0600, BACKLOG);
	}
	if (!ret) {
		what = "io_uring";
		host.signal_op.fn = got_signal;
		io_uring_prep_read(loop_sqe(&host.loop, &host.signal_op), host.signal_fd, &host.signal_info,
				   sizeof(host.signal_info), 0);
		accept_next(&host);
		ret = loop_run(&host.loop);
		end(&host);
	}
	if (ret)
		log_line("ivshmem-server: %s: %s", what, strerror(-ret));
	unix_socket_close(&host.listener);
	loop_destroy(&host.loop);
	if (host.signal_fd >= 0)
		close(host.signal_fd);
	ivshmem_server_fini(&host.server);
	return ret;
}

/* *created: the name is ours to remove again. */
static int open_shm(const struct settings *s, bool *created)
{
	int fd = shm_open(s->shm, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct stat st;

	*created = fd >= 0;
	if (fd < 0 && errno == EEXIST)
		fd = shm_open(s->shm, O_RDWR | O_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || (!st.st_size && ftruncate(fd, (off_t)s->size) < 0)) {
		int ret = -errno;

		close(fd);
		return ret;
	}
	if (st.st_size && (uint64_t)st.st_size != s->size) {
		log_line("ivshmem-server: --shm %s: is there already and has another size, %llu bytes", s->shm,
			 (unsigned long long)st.st_size);
		close(fd);
		return -EEXIST;
	}
	return fd;
}

/* Nobody can shrink it: the peers need not fear each other. */
static int open_memfd(const struct settings *s)
{
	int fd = memfd_create("ivshmem", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)s->size) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		int ret = -errno;

		close(fd);
		return ret;
	}
	return fd;
}

static void usage(void)
{
	puts("usage: vmm ivshmem-server --socket PATH --shm NAME|--memfd --size SIZE [OPTION]...\n"
	     "Shares memory and interrupts among virtual machines with an ivshmem-doorbell device.\n\n"
	     "  --socket PATH     listen there\n"
	     "  --shm NAME        share the POSIX shared memory object NAME; made if it is not there,\n"
	     "                    and removed at the end then\n"
	     "  --memfd           share memory that has no name and that nobody can shrink\n"
	     "  --size SIZE       its size, a power of two from 4K on\n"
	     "  --vectors N       interrupt vectors of each peer, 1 to 1024 (1)\n"
	     "  --max-peers N     peers at a time, 1 to 65536 (65536)\n"
	     "  --help            print this, and end\n\n"
	     "Runs until SIGTERM or SIGINT. The peers can go on without it.");
}

static bool parse_number(const char *text, unsigned long max, unsigned int *n)
{
	char *end;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &end, 10);
	*n = (unsigned int)value;
	return isdigit((unsigned char)text[0]) && !errno && !*end && value && value <= max;
}

static int bad(const char *option, const char *what)
{
	log_line("ivshmem-server: --%s: %s", option, what);
	return -EINVAL;
}

enum { OPT_SOCKET = 1, OPT_SHM, OPT_MEMFD, OPT_SIZE, OPT_VECTORS, OPT_PEERS, OPT_HELP };

static int set(struct settings *s, int option, const char *value)
{
	switch (option) {
	case OPT_SOCKET:
		s->socket = value;
		return 0;
	case OPT_SHM:
		s->shm = value;
		return value[0] ? 0 : bad("shm", "the name is empty");
	case OPT_MEMFD:
		s->memfd = true;
		return 0;
	case OPT_SIZE:
		if (parse_size(value, &s->size) || s->size < IVSHMEM_SIZE_MIN || s->size > IVSHMEM_SIZE_MAX ||
		    (s->size & (s->size - 1)))
			return bad("size", "must be a power of two from 4K on");
		return 0;
	case OPT_VECTORS:
		return parse_number(value, IVSHMEM_VECTORS_MAX, &s->vectors) ? 0 : bad("vectors", "must be 1 to 1024");
	case OPT_PEERS:
		return parse_number(value, IVSHMEM_PEERS, &s->max_peers) ? 0 : bad("max-peers", "must be 1 to 65536");
	case OPT_HELP:
		return 1;
	default: /* getopt has said why */
		return -EINVAL;
	}
}

static int parse(struct settings *s, int argc, char **argv)
{
	static const struct option options[] = {
		{ "socket", required_argument, NULL, OPT_SOCKET },
		{ "shm", required_argument, NULL, OPT_SHM },
		{ "memfd", no_argument, NULL, OPT_MEMFD },
		{ "size", required_argument, NULL, OPT_SIZE },
		{ "vectors", required_argument, NULL, OPT_VECTORS },
		{ "max-peers", required_argument, NULL, OPT_PEERS },
		{ "help", no_argument, NULL, OPT_HELP },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		int ret = set(s, option, optarg);

		if (ret)
			return ret;
	}
	if (optind < argc)
		return bad(argv[optind], "no such option (see --help)");
	if (!s->socket)
		return bad("socket", "is missing (see --help)");
	if (!s->shm == !s->memfd)
		return bad("shm", "either this or --memfd is needed (see --help)");
	return s->size ? 0 : bad("size", "is missing (see --help)");
}

int ivshmem_server_main(int argc, char **argv)
{
	struct settings s = { .vectors = 1, .max_peers = IVSHMEM_PEERS };
	bool created = false;
	int ret = parse(&s, argc, argv), fd;

	if (ret > 0)
		usage();
	if (ret)
		return ret > 0 ? STATUS_OK : STATUS_HOST_FAILURE;
	fd = s.memfd ? open_memfd(&s) : open_shm(&s, &created);
	if (fd >= 0) {
		ret = run(&s, fd);
		close(fd);
	} else {
		ret = fd;
		if (ret != -EEXIST)
			log_line("ivshmem-server: --%s: %s", s.memfd ? "memfd" : "shm", strerror(-ret));
	}
	if (created)
		shm_unlink(s.shm);
	return ret ? STATUS_HOST_FAILURE : STATUS_OK;
}
