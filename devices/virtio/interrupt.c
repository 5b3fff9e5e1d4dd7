/* SPDX-License-Identifier: MIT */
/*
 * Interrupts, and eventfds.
 *
 * With MSI-X a queue's interrupt is the eventfd of its vector, which KVM watches: a peer that has it needs nobody
 * here. Where there is no such eventfd (INTx, a queue without a vector) the peer gets another one, which the loop
 * polls.
 *
 * The driver may switch MSI-X on or off while queues run. The eventfd of a vector then counts what nobody sees: the
 * peer gets another one, and as some interrupts may have gone to the one before, one more of each queue follows.
 *
 * An eventfd that a peer has may be made to wait, by a peer that fills it and clears O_NONBLOCK: the loop writes one by
 * io_uring, and reads one without waiting.
 */
#include <poll.h>
#include <stddef.h>
#include <sys/uio.h>

#include "devices/pci/msix.h"
#include "devices/virtio/internal.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

#define ISR_QUEUE  1
#define ISR_CONFIG 2

/* 4.1.4.5: reading it clears it, and lowers the line. */
static uint64_t isr_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct virtio *v = opaque;
	uint64_t value;

	(void)offset;
	(void)size;
	pthread_mutex_lock(&v->lock);
	value = v->isr;
	virtio_interrupts_clear(v);
	pthread_mutex_unlock(&v->lock);
	return value;
}

const struct io_ops virtio_isr_ops = { isr_read, NULL };

void virtio_interrupts_clear(struct virtio *v)
{
	v->isr = 0;
	pci_set_intx(&v->fn, false);
}

/* With MSI-X there is no INTx (PCI 3.0, 6.8.2.3): what the line has told of is told again, by messages. */
void virtio_msix_written(struct virtio *v)
{
	bool on, changed, running, config;

	pthread_mutex_lock(&v->lock);
	on = msix_enabled(&v->fn);
	changed = on != v->msix_on;
	v->msix_on = on;
	/* A device that does not run yet will ask when it starts. */
	running = changed && (v->status & VIRTIO_DRIVER_OK) && !v->resetting;
	config = running && v->config_told;
	if (changed && on)
		virtio_interrupts_clear(v);
	pthread_mutex_unlock(&v->lock);
	if (config) {
		atomic_store(&v->config_wanted, true);
		loop_post(&v->vm->loop, &v->kick_work);
	}
	for (unsigned int i = 0; i < v->nr_queues && running && v->class->vector_changed; i++) {
		struct virtio_queue_setup setup;

		if (virtio_queue_enabled(v, i, &setup))
			v->class->vector_changed(v, i);
	}
}

static void submit(struct virtio_signal *s)
{
	static const uint64_t one = 1;

	s->busy = true;
	s->again = false;
	io_uring_prep_write(loop_sqe(&s->v->vm->loop, &s->op), s->fd, &one, sizeof(one), 0);
}

static void signalled(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct virtio_signal *s = (struct virtio_signal *)op;

	(void)res;
	(void)cqe_flags;
	s->busy = false;
	if (s->again)
		submit(s);
}

void virtio_signal_init(struct virtio_signal *s, struct virtio *v)
{
	s->op.fn = signalled;
	s->v = v;
}

void virtio_signal(struct virtio_signal *s, int fd)
{
	s->fd = fd;
	if (s->busy)
		s->again = true;
	else
		submit(s);
}

static void raise_interrupt(struct virtio *v, uint8_t why, uint16_t vector, struct virtio_signal *s)
{
	bool message;

	pthread_mutex_lock(&v->lock);
	message = msix_enabled(&v->fn);
	if (!message) {
		v->isr |= why;
		pci_set_intx(&v->fn, true);
	}
	pthread_mutex_unlock(&v->lock);
	if (message && vector != VIRTIO_NO_VECTOR)
		virtio_signal(s, msix_fd(&v->fn, vector));
}

void virtio_interrupt(struct virtio *v, unsigned int queue)
{
	struct virtio_queue *q = &v->queues[queue];
	uint16_t vector;

	pthread_mutex_lock(&v->lock);
	vector = q->vector;
	pthread_mutex_unlock(&v->lock);
	TRACE(virtio_interrupt, "%s queue %u vector %u", v->fn.name, queue, (unsigned int)vector);
	raise_interrupt(v, ISR_QUEUE, vector, &q->interrupt);
}

void virtio_interrupt_config(struct virtio *v)
{
	uint16_t vector;

	pthread_mutex_lock(&v->lock);
	vector = v->config_vector;
	v->config_told = true;
	pthread_mutex_unlock(&v->lock);
	TRACE(virtio_interrupt, "%s configuration vector %u", v->fn.name, (unsigned int)vector);
	raise_interrupt(v, ISR_CONFIG, vector, &v->config_interrupt);
}

/* Empties an eventfd. */
static void take(int fd)
{
	uint64_t count;
	struct iovec iov = { &count, sizeof(count) };

	(void)preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
}

static void arm(struct virtio_queue *q, struct loop_op *op, int fd)
{
	io_uring_prep_poll_add(loop_sqe(&q->v->vm->loop, op), fd, POLLIN);
}

static void call_ready(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct virtio_queue *q = (struct virtio_queue *)((char *)op - offsetof(struct virtio_queue, call_op));

	(void)cqe_flags;
	if (res < 0)
		return;
	take(q->call_fd);
	virtio_interrupt(q->v, q->index);
	arm(q, &q->call_op, q->call_fd);
}

static void kick_ready(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct virtio_queue *q = (struct virtio_queue *)((char *)op - offsetof(struct virtio_queue, kick_op));

	(void)cqe_flags;
	if (res < 0)
		return;
	take(q->kick_fd);
	q->v->class->notify(q->v, q->index);
	arm(q, &q->kick_op, q->kick_fd);
}

void virtio_call_init(struct virtio_queue *q)
{
	q->call_op.fn = call_ready;
	q->kick_op.fn = kick_ready;
	virtio_signal_init(&q->kick, q->v);
	virtio_signal_init(&q->interrupt, q->v);
}

int virtio_call_fd(struct virtio *v, unsigned int queue)
{
	struct virtio_queue *q = &v->queues[queue];
	uint16_t vector;

	pthread_mutex_lock(&v->lock);
	vector = q->vector;
	pthread_mutex_unlock(&v->lock);
	if (msix_enabled(&v->fn) && vector != VIRTIO_NO_VECTOR)
		return msix_fd(&v->fn, vector);
	if (!q->call_watched) {
		q->call_watched = true;
		arm(q, &q->call_op, q->call_fd);
	}
	return q->call_fd;
}

void virtio_watch_kicks(struct virtio *v, unsigned int queue)
{
	struct virtio_queue *q = &v->queues[queue];

	if (q->kick_watched)
		return;
	q->kick_watched = true;
	arm(q, &q->kick_op, q->kick_fd);
}

void virtio_kick(struct virtio *v, unsigned int queue)
{
	virtio_signal(&v->queues[queue].kick, v->queues[queue].kick_fd);
}
