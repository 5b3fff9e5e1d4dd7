/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/net/internal.h"
#include "vmm/log.h"

static struct net_backend *fail(const struct net_options *options, const char *why)
{
	log_line("--net fd=%d: %s", options->fd, why);
	return NULL;
}

/* A descriptor that was passed to us says itself what it is. */
static struct net_backend *open_fd(struct loop *loop, const struct net_options *options)
{
	int flags = fcntl(options->fd, F_GETFL), type;
	socklen_t size = sizeof(type);
	struct net_backend *net;
	struct ifreq ifr;

	if (options->fd <= STDERR_FILENO)
		return fail(options, "is a standard stream");
	if (flags < 0 || fcntl(options->fd, F_SETFD, FD_CLOEXEC) < 0)
		return fail(options, strerror(errno));
	if (ioctl(options->fd, TUNGETIFF, &ifr) == 0) {
		/* The flag belongs to the open file, which others may share; a tap cannot be told so for each call. */
		if (fcntl(options->fd, F_SETFL, flags | O_NONBLOCK) < 0)
			return fail(options, strerror(errno));
		return tap_from_fd(loop, options);
	}
	if (getsockopt(options->fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
		return fail(options, "neither a tap nor a socket");
	if (type != SOCK_STREAM && type != SOCK_DGRAM && type != SOCK_SEQPACKET)
		return fail(options, "not a socket of datagrams or a stream");
	net = socket_open(loop, options->fd, type == SOCK_STREAM, options->mtu);
	return net ? net : fail(options, strerror(ENOMEM));
}

static struct net_backend *open_kind(struct loop *loop, const struct net_options *options)
{
	switch (options->kind) {
	case NET_TAP:
		return tap_open(loop, options);
	case NET_FD:
		return open_fd(loop, options);
	default:
		return passt_open(loop, options);
	}
}

struct net_backend *net_open(struct loop *loop, const struct net_options *options)
{
	struct net_backend *net = open_kind(loop, options);

	if (net)
		net_describe(options, net->name, sizeof(net->name));
	return net;
}
