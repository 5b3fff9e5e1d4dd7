/* SPDX-License-Identifier: MIT */
/*
 * A tap interface, with headers (IFF_VNET_HDR) so that checksums and segmentation are left to whoever does them best.
 *
 * A batch of frames is one system call: a small ring of its own, whose requests all end while they are submitted, for a
 * tap never makes a writer wait and a reader is told so (RWF_NOWAIT). Kernels before 6.4 know no such reads of a tap;
 * there frames are read one by one.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/net/internal.h"
#include "vmm/log.h"

struct tap {
	struct net_backend net;
	struct io_uring ring; /* of batches */
	bool has_ring, no_ring, no_nowait;
	unsigned int attached;
	unsigned int count;
	struct net_port port[];
};

static struct tap *of(struct net_backend *net)
{
	return (struct tap *)net;
}

/* As large as a batch, and empty before each: io_uring_get_sqe() does not fail. */
static bool want_ring(struct tap *tap)
{
	if (!tap->has_ring && !tap->no_ring) {
		tap->has_ring = io_uring_queue_init(NET_BATCH, &tap->ring, 0) == 0;
		tap->no_ring = !tap->has_ring;
	}
	return tap->has_ring;
}

/* Submits what was prepared for frames[0..count) and takes the results. */
static void run_batch(struct tap *tap, struct net_frame *frames, unsigned int count)
{
	unsigned int done = 0;

	while (done < count) {
		struct io_uring_cqe *cqe;

		io_uring_submit_and_wait(&tap->ring, count - done);
		while (io_uring_peek_cqe(&tap->ring, &cqe) == 0) {
			frames[cqe->user_data].result = cqe->res;
			io_uring_cqe_seen(&tap->ring, cqe);
			done++;
		}
	}
}

static unsigned int tap_send(struct net_backend *net, unsigned int queue, struct net_frame *frames, unsigned int count)
{
	struct tap *tap = of(net);
	int fd = tap->port[queue].fd;

	if (count > 1 && count <= NET_BATCH && want_ring(tap)) {
		for (unsigned int i = 0; i < count; i++) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&tap->ring);

			io_uring_prep_writev(sqe, fd, frames[i].iov, frames[i].count, 0);
			sqe->user_data = i;
		}
		run_batch(tap, frames, count);
		return count;
	}
	for (unsigned int i = 0; i < count; i++) {
		frames[i].result = writev(fd, frames[i].iov, (int)frames[i].count);
		if (frames[i].result < 0)
			frames[i].result = -errno;
	}
	return count;
}

/* The interface was deleted. */
static void tap_gone(struct tap *tap)
{
	for (unsigned int i = 0; i < tap->count; i++)
		net_port_gone(&tap->port[i]);
}

static void tap_explain(struct net_backend *net, char *text, size_t size)
{
	(void)net;
	snprintf(text, size, "the interface was deleted");
}

static bool receive_one(struct tap *tap, unsigned int queue, struct net_frame *frame)
{
	frame->result = readv(tap->port[queue].fd, frame->iov, (int)frame->count);
	if (frame->result < 0)
		frame->result = -errno;
	if (frame->result == -EBADFD)
		tap_gone(tap);
	return frame->result != -EAGAIN && frame->result != -EBADFD;
}

/* The rest of a batch, in one go. -EOPNOTSUPP if this kernel cannot. */
static int receive_more(struct tap *tap, unsigned int queue, struct net_frame *frames, unsigned int count,
			unsigned int *got)
{
	for (unsigned int i = 0; i < count; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&tap->ring);

		io_uring_prep_readv2(sqe, tap->port[queue].fd, frames[i].iov, frames[i].count, 0, RWF_NOWAIT);
		sqe->user_data = i;
	}
	run_batch(tap, frames, count);
	if (frames[0].result == -EOPNOTSUPP || frames[0].result == -EINVAL)
		return -EOPNOTSUPP;
	while (*got < count && frames[*got].result != -EAGAIN)
		++*got;
	return 0;
}

static unsigned int tap_receive(struct net_backend *net, unsigned int queue, struct net_frame *frames,
				unsigned int count)
{
	struct tap *tap = of(net);
	unsigned int n = 0, more = 0;

	if (!count || tap->port[queue].ended || !receive_one(tap, queue, &frames[n]))
		return 0;
	n++;
	if (count > 1 && count <= NET_BATCH && !tap->no_nowait && want_ring(tap)) {
		/* A lone frame is the usual thing when there is little to do. */
		if (!receive_one(tap, queue, &frames[n]))
			return n;
		n++;
		if (n == count)
			return n;
		tap->no_nowait = receive_more(tap, queue, frames + n, count - n, &more) != 0;
		if (!tap->no_nowait)
			return n + more;
	}
	while (n < count && receive_one(tap, queue, &frames[n]))
		n++;
	return n;
}

static void tap_again(struct net_backend *net, unsigned int queue)
{
	net_port_again(&of(net)->port[queue]);
}

static int tap_set_offload(struct net_backend *net, unsigned int offload)
{
	unsigned long flags = 0;

	if (offload & NET_RX_CSUM)
		flags |= TUN_F_CSUM;
	if (offload & NET_RX_TSO4)
		flags |= TUN_F_CSUM | TUN_F_TSO4;
	if (offload & NET_RX_TSO6)
		flags |= TUN_F_CSUM | TUN_F_TSO6;
	return ioctl(of(net)->port[0].fd, TUNSETOFFLOAD, flags) < 0 ? -errno : 0;
}

/* The kernel spreads flows over the queues that are attached. */
static int tap_set_queues(struct net_backend *net, unsigned int count)
{
	struct tap *tap = of(net);
	int ret = 0;

	if (count > tap->count)
		count = tap->count;
	while (tap->attached != count && !ret) {
		bool attach = tap->attached < count;
		struct ifreq ifr = { .ifr_flags = attach ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE };

		if (ioctl(tap->port[attach ? tap->attached : tap->attached - 1].fd, TUNSETQUEUE, &ifr) < 0)
			ret = -errno;
		tap->attached += attach ? 1 : -1u;
	}
	return ret;
}

static void tap_destroy(struct net_backend *net)
{
	struct tap *tap = of(net);

	for (unsigned int i = 0; i < tap->count; i++)
		if (tap->port[i].fd >= 0)
			close(tap->port[i].fd);
	if (tap->has_ring)
		io_uring_queue_exit(&tap->ring);
	free(tap);
}

static const struct net_ops tap_ops = {
	.send = tap_send,
	.receive = tap_receive,
	.again = tap_again,
	.set_offload = tap_set_offload,
	.set_queues = tap_set_queues,
	.explain = tap_explain,
	.destroy = tap_destroy,
};

static unsigned int interface_mtu(const char *name)
{
	struct ifreq ifr = { .ifr_mtu = 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	unsigned int mtu = 1500;

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	if (fd >= 0 && ioctl(fd, SIOCGIFMTU, &ifr) == 0 && ifr.ifr_mtu >= NET_MTU_MIN)
		mtu = (unsigned int)ifr.ifr_mtu;
	if (fd >= 0)
		close(fd);
	return mtu > NET_MTU_MAX ? NET_MTU_MAX : mtu;
}

static struct tap *tap_new(unsigned int count)
{
	struct tap *tap = calloc(1, sizeof(*tap) + count * sizeof(tap->port[0]));

	if (tap) {
		tap->net = (struct net_backend){ .ops = &tap_ops, .queues = count };
		tap->count = tap->attached = count;
		for (unsigned int i = 0; i < count; i++)
			tap->port[i].fd = -1;
	}
	return tap;
}

static int open_queue(const struct net_options *options)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK), ret;

	if (fd < 0) {
		ret = -errno;
		log_line("--net tap=%s: /dev/net/tun: %s%s", options->tap, strerror(-ret),
			 ret == -ENOENT || ret == -ENODEV ? ": load the kernel module tun" : "");
		return ret;
	}
	if (options->queues > 1)
		ifr.ifr_flags |= IFF_MULTI_QUEUE;
	memcpy(ifr.ifr_name, options->tap, sizeof(ifr.ifr_name));
	if (ioctl(fd, TUNSETIFF, &ifr) == 0)
		return fd;
	ret = -errno;
	close(fd);
	log_line("--net tap=%s: %s%s", options->tap, strerror(-ret),
		 ret == -EPERM	  ? ": create it for your user with 'ip tuntap add'"
		 : ret == -EINVAL ? ": it is not a tap, or was made without (or only with) multi_queue"
		 : ret == -EBUSY  ? ": another program has it"
				  : "");
	return ret;
}

_Static_assert(sizeof(((struct net_options *)NULL)->tap) == IFNAMSIZ, "an interface's name");

struct net_backend *tap_open(struct loop *loop, const struct net_options *options)
{
	struct tap *tap = tap_new(options->queues);
	int size = sizeof(struct net_header), ret = tap ? 0 : -ENOMEM;

	for (unsigned int i = 0; i < options->queues && !ret; i++) {
		int fd = open_queue(options);

		if (fd < 0)
			break;
		net_port_init(&tap->port[i], &tap->net, loop, i, fd);
		if (ioctl(fd, TUNSETVNETHDRSZ, &size) < 0)
			ret = -errno;
	}
	if (!ret && tap->port[options->queues - 1].fd >= 0 && tap_set_offload(&tap->net, 0) < 0)
		ret = -errno;
	if (ret)
		log_line("--net tap=%s: %s", options->tap, strerror(-ret));
	if (ret || tap->port[options->queues - 1].fd < 0) {
		if (tap)
			tap_destroy(&tap->net);
		return NULL;
	}
	tap->net.headers = true;
	tap->net.mtu = options->mtu ? options->mtu : interface_mtu(options->tap);
	tap_set_queues(&tap->net, 1);
	return &tap->net;
}

struct net_backend *tap_from_fd(struct loop *loop, const struct net_options *options)
{
	struct tap *tap = tap_new(1);
	struct ifreq ifr;
	int size = sizeof(struct net_header);

	if (!tap) {
		log_line("--net fd=%d: %s", options->fd, strerror(ENOMEM));
		return NULL;
	}
	net_port_init(&tap->port[0], &tap->net, loop, 0, options->fd);
	if (ioctl(options->fd, TUNGETIFF, &ifr) < 0 || !(ifr.ifr_flags & IFF_TAP) || !(ifr.ifr_flags & IFF_NO_PI)) {
		log_line("--net fd=%d: not a tap without packet information (IFF_TAP, IFF_NO_PI)", options->fd);
		tap_destroy(&tap->net);
		return NULL;
	}
	tap->net.headers = ifr.ifr_flags & IFF_VNET_HDR;
	if (tap->net.headers && (ioctl(options->fd, TUNSETVNETHDRSZ, &size) < 0 || tap_set_offload(&tap->net, 0) < 0)) {
		log_line("--net fd=%d: %s", options->fd, strerror(errno));
		tap_destroy(&tap->net);
		return NULL;
	}
	tap->net.mtu = options->mtu ? options->mtu : interface_mtu(ifr.ifr_name);
	return &tap->net;
}
