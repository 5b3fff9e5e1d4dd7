/* SPDX-License-Identifier: MIT */
/*
 * A poll that stays (multishot) tells of each arrival: while frames are read nothing is submitted, and a busy
 * descriptor costs no system call but the reads.
 */
#include <errno.h>
#include <poll.h>

#include "devices/net/internal.h"
#include "vmm/log.h"

#define from_op(op, member) ((struct net_port *)((char *)(op)-offsetof(struct net_port, member)))

static void arm(struct net_port *port)
{
	io_uring_prep_poll_multishot(loop_sqe(port->loop, &port->poll_op), port->fd, POLLIN);
}

static void polled(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct net_port *port = from_op(op, poll_op);

	if (res < 0 || port->ended) {
		port->polling = cqe_flags & IORING_CQE_F_MORE;
		return;
	}
	/* The kernel ends it when the completion queue is full, and may do so at other times. */
	if (!(cqe_flags & IORING_CQE_F_MORE))
		arm(port);
	port->net->readable(port->net->opaque, port->queue);
}

static void once_more(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct net_port *port = from_op(op, again_op);

	(void)res;
	(void)cqe_flags;
	port->again = false;
	if (!port->ended)
		port->net->readable(port->net->opaque, port->queue);
}

static void has_room(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct net_port *port = from_op(op, room_op);

	(void)res;
	(void)cqe_flags;
	port->wants_room = false;
	if (!port->ended)
		port->net->writable(port->net->opaque, port->queue);
}

/* Listening to anything is also what tells of the end: a deleted tap wakes its readers, and nobody else. */
static void start(struct loop_work *work)
{
	struct net_port *port = from_op(work, start);

	if (port->ended)
		return;
	port->polling = true;
	arm(port);
}

void net_port_init(struct net_port *port, struct net_backend *net, struct loop *loop, unsigned int queue, int fd)
{
	*port = (struct net_port){ .net = net, .loop = loop, .queue = queue, .fd = fd };
	port->poll_op.fn = polled;
	port->again_op.fn = once_more;
	port->room_op.fn = has_room;
	port->start.fn = start;
	loop_post(loop, &port->start);
}

/* An operation that completes at once goes behind the completions that are there already. */
void net_port_again(struct net_port *port)
{
	if (port->again || port->ended)
		return;
	port->again = true;
	io_uring_prep_nop(loop_sqe(port->loop, &port->again_op));
}

void net_port_want_room(struct net_port *port)
{
	if (port->wants_room || port->ended)
		return;
	port->wants_room = true;
	io_uring_prep_poll_add(loop_sqe(port->loop, &port->room_op), port->fd, POLLOUT);
}

void net_port_gone(struct net_port *port)
{
	struct net_backend *net = port->net;
	char why[256];

	if (port->ended)
		return;
	port->ended = true;
	/* A poll would go on telling of the end. */
	if (port->polling)
		loop_cancel(port->loop, &port->poll_op);
	if (net->ended)
		return;
	net->ended = true;
	net->ops->explain(net, why, sizeof(why));
	log_line("--net %s: %s; the guest's link is down", net->name, why);
	net->gone(net->opaque);
}
