/* SPDX-License-Identifier: MIT */
/* What the loop does for the ivshmem device: the server's news, bells that KVM does not ring, INTx. See device.c. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/poll.h>
#include <sys/uio.h>
#include <unistd.h>

#include "devices/ivshmem/internal.h"
#include "devices/pci/msix.h"
#include "vmm/trace.h"

#define from_work(ptr, member) ((struct ivshmem *)((char *)(ptr)-offsetof(struct ivshmem, member)))

/* A server could give us any file to write 8 bytes to. */
static bool is_eventfd(struct ivshmem *d, int fd)
{
	char path[32], target[32];
	ssize_t n;

	if (fd < 0)
		return false;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof(target) - 1);
	target[n < 0 ? 0 : n] = '\0';
	if (!strcmp(target, "anon_inode:[eventfd]"))
		return true;
	if (!d->told_fd)
		ivshmem_say(d, "the server gave a descriptor that is no eventfd: that vector does not work");
	d->told_fd = true;
	return false;
}

static void take_memory(void *opaque, int fd)
{
	struct ivshmem *d = opaque;

	d->memory.fd = fd;
}

/* What the register rings: the vector that comes next of this peer. -1: none that works. */
static void add_bell(struct ivshmem *d, unsigned int peer, int fd)
{
	int ret;

	pthread_mutex_lock(&d->lock);
	ret = ivshmem_peers_add(&d->peers, peer, fd);
	pthread_mutex_unlock(&d->lock);
	if (ret && !d->told_full) {
		d->told_full = true;
		ivshmem_say(d, "too many peers for the limit of open files: some cannot be rung");
	}
}

static void drop_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

static void take_vector(void *opaque, int fd)
{
	struct ivshmem *d = opaque;
	unsigned int n = d->own;
	bool good = n < d->options.vectors && is_eventfd(d, fd);

	/* The specification: who is configured for fewer vectors closes what is beyond. */
	if (n < d->options.vectors) {
		d->own++;
		/* One may ring oneself. */
		add_bell(d, (unsigned int)d->client.protocol.id, good ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1);
	}
	if (!good) {
		drop_fd(fd);
		return;
	}
	TRACE(ivshmem_peer, "%s own vector %u", d->name, n);
	if (d->intx) {
		d->intx[n].fd = fd;
		loop_post(&d->vm->loop, &d->arm_work);
	} else if (msix_replace_fd(&d->fn, n, fd)) {
		close(fd);
	}
}

static void take_doorbell(void *opaque, unsigned int peer, int fd)
{
	struct ivshmem *d = opaque;

	TRACE(ivshmem_peer, "%s peer %u has one more vector", d->name, peer);
	if (!is_eventfd(d, fd)) {
		drop_fd(fd);
		fd = -1;
	}
	add_bell(d, peer, fd);
}

static void take_leave(void *opaque, unsigned int peer)
{
	struct ivshmem *d = opaque;

	TRACE(ivshmem_peer, "%s peer %u has left", d->name, peer);
	pthread_mutex_lock(&d->lock);
	ivshmem_peers_remove(&d->peers, peer);
	pthread_mutex_unlock(&d->lock);
}

const struct ivshmem_protocol_ops ivshmem_protocol_ops = { take_memory, take_vector, take_doorbell, take_leave };

static void free_signaller(struct signaller *s)
{
	*s->link = s->next;
	if (s->next)
		s->next->link = s->link;
	free(s);
}

/* Submitted at once: the descriptor may be closed, and its number used again, before the loop gets round to it. */
static void send_signal(struct ivshmem *d, struct signaller *s, int fd)
{
	io_uring_prep_write(loop_sqe(&d->vm->loop, &s->op), fd, &s->one, sizeof(s->one), 0);
	io_uring_submit(&d->vm->loop.ring);
}

static void signalled(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct signaller *s = (struct signaller *)op;
	struct ivshmem *d = s->device;
	struct ivshmem_bell *bell;

	(void)res; /* an eventfd takes it, sooner or later */
	(void)cqe_flags;
	pthread_mutex_lock(&d->lock);
	bell = s->abandoned ? NULL : ivshmem_peers_find(&d->peers, s->value);
	if (bell && s->again && !d->vm->loop.stopping) {
		s->again = false;
		send_signal(d, s, bell->fd);
	} else {
		if (bell)
			bell->signaller = NULL;
		free_signaller(s);
	}
	pthread_mutex_unlock(&d->lock);
}

static void abandon(void *opaque, void *signaller)
{
	struct ivshmem *d = opaque;
	struct signaller *s = signaller;

	s->abandoned = true;
	loop_cancel(&d->vm->loop, &s->op);
}

static void start_signal(struct ivshmem *d, struct ivshmem_bell *bell, uint32_t value)
{
	struct signaller *s = bell->signaller;

	if (s) {
		s->again = true;
		return;
	}
	s = calloc(1, sizeof(*s));
	if (!s)
		return;
	*s = (struct signaller){ .op.fn = signalled, .device = d, .value = value, .one = 1 };
	s->next = d->signallers;
	s->link = &d->signallers;
	if (s->next)
		s->next->link = &s->next;
	d->signallers = s;
	bell->signaller = s;
	send_signal(d, s, bell->fd);
}

static void ring(struct loop_work *work)
{
	struct ivshmem *d = from_work(work, ring_work);

	pthread_mutex_lock(&d->lock);
	for (unsigned int i = 0; i < d->peers.nr_rung; i++) {
		uint32_t value = d->peers.rung[i];
		struct ivshmem_bell *bell = ivshmem_peers_find(&d->peers, value);

		if (!bell)
			continue;
		bell->rung = false;
		start_signal(d, bell, value);
	}
	d->peers.nr_rung = 0;
	pthread_mutex_unlock(&d->lock);
}

static void arm_vector(struct intx_vector *v)
{
	v->armed = true;
	io_uring_prep_poll_add(loop_sqe(&v->device->vm->loop, &v->op), v->fd, POLLIN);
}

static void polled(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct intx_vector *v = (struct intx_vector *)op;
	struct ivshmem *d = v->device;
	uint64_t count;
	struct iovec iov = { &count, sizeof(count) };

	(void)cqe_flags;
	v->armed = false;
	if (res < 0 || d->vm->loop.stopping || atomic_load(&d->dead))
		return;
	/* The eventfd is also others': it may be empty again, and a plain read could wait. */
	if (preadv2(v->fd, &iov, 1, -1, RWF_NOWAIT) != (ssize_t)sizeof(count)) {
		arm_vector(v);
		return;
	}
	pthread_mutex_lock(&d->lock);
	d->status |= 1;
	ivshmem_update_intx(d);
	pthread_mutex_unlock(&d->lock);
}

static void arm_vectors(struct loop_work *work)
{
	struct ivshmem *d = from_work(work, arm_work);
	bool wanted;

	pthread_mutex_lock(&d->lock);
	wanted = !(d->status & 1) && !atomic_load(&d->dead);
	pthread_mutex_unlock(&d->lock);
	for (unsigned int i = 0; wanted && i < d->own; i++)
		if (d->intx[i].fd >= 0 && !d->intx[i].armed)
			arm_vector(&d->intx[i]);
}

static void start(struct loop_work *work)
{
	ivshmem_client_start(&from_work(work, start_work)->client);
}

/* Nobody hears of us any more, and we hear of nobody: the vectors get eventfds that nobody else has. */
static void disconnect(struct loop_work *work)
{
	struct ivshmem *d = from_work(work, die_work);

	ivshmem_client_stop(&d->client);
	pthread_mutex_lock(&d->lock);
	ivshmem_peers_clear(&d->peers);
	d->peers.max = 0;
	pthread_mutex_unlock(&d->lock);
	for (unsigned int i = 0; !d->intx && i < d->own; i++) {
		int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

		if (fd >= 0)
			msix_replace_fd(&d->fn, i, fd);
	}
}

int ivshmem_add_intx(struct ivshmem *d)
{
	d->intx = calloc(d->options.vectors, sizeof(*d->intx));
	if (!d->intx)
		return -ENOMEM;
	for (unsigned int i = 0; i < d->options.vectors; i++)
		d->intx[i] = (struct intx_vector){ .op.fn = polled, .device = d, .fd = -1 };
	pci_set_pin(&d->fn, 1);
	return 0;
}

void ivshmem_events_init(struct ivshmem *d)
{
	d->start_work.fn = start;
	d->ring_work.fn = ring;
	d->arm_work.fn = arm_vectors;
	d->die_work.fn = disconnect;
	d->peers.abandon = abandon;
	d->peers.opaque = d;
}

static void forget(void *opaque, void *signaller)
{
	(void)opaque;
	(void)signaller;
}

/* The loop's thread has ended, and with it all its requests. */
void ivshmem_events_fini(struct ivshmem *d)
{
	d->peers.abandon = forget;
	ivshmem_peers_fini(&d->peers);
	for (struct signaller *s = d->signallers, *next; s; s = next) {
		next = s->next;
		free(s);
	}
	ivshmem_client_fini(&d->client);
	for (unsigned int i = 0; d->intx && i < d->options.vectors; i++)
		if (d->intx[i].fd >= 0)
			close(d->intx[i].fd);
	free(d->intx);
}
