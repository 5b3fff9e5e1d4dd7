/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * The loop takes requests off the ring, all there are in one go, and what they want of the image enters the kernel
 * together with the next wait. Answers of one turn are shown to the driver together, with one interrupt (end_work).
 * The driver is held back by its own ring: no more requests are taken than that has room for.
 *
 * vCPU threads note what the driver wants of the device and post the work. A driver that resets the device, or the
 * queue, waits by looking; it is told when the last request has ended, since the kernel may still be reading into its
 * memory until then. A reset of the machine waits in the loop, before the bus is reset, whose lock other devices need
 * while the loop turns.
 *
 * A disk that the SCSI controller shows too (boot=on with VMBus) is this device's until a guest opens that controller:
 * from then on each request here fails, and the controller begins when those under way have ended (claim.h). The
 * function itself is for the firmware. When its driver lets go of it, as firmware does before the operating system
 * starts, it is left off the bus, from the next time that somebody looks whether it is there, until the machine is
 * reset: so the operating system has the disk once. While a driver uses it, it stays; and it goes at no other moment,
 * for a driver would wait for ever for the status of a function that reads all ones. (One that lets go on one CPU while
 * another CPU looks for functions may still do so: it is the guest that scans its bus under a driver's feet.)
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "devices/block/claim.h"
#include "devices/virtio/blk_internal.h"
#include "vmm/log.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

#define TURN_NS 1000000000ULL

enum { WANT_START = 1, WANT_QUEUE_STOP = 2, WANT_RESET = 4, WANT_INTERRUPT = 8 };

#define from_member(ptr, member) ((struct vblk *)((char *)(ptr)-offsetof(struct vblk, member)))

static void fail(struct vblk *b)
{
	if (!b->told)
		log_line("--disk %s: virtio: the driver's ring makes no sense; the device waits to be reset", b->path);
	b->told = b->failed = true; /* once is enough: a guest can do this as often as it likes */
	virtio_needs_reset(&b->v);
}

void vblk_answer(struct vblk *b, uint16_t head, uint8_t *status, enum vblk_status result, uint32_t written)
{
	TRACE(virtio_blk_done, "%s head %u status %u written %u", b->name, (unsigned int)head, (unsigned int)result,
	      written);
	if (!b->running)
		return;
	*status = (uint8_t)result;
	virtio_ring_push(&b->ring, head, written);
	loop_defer(&b->v.vm->loop, &b->end_work);
}

/* 1: one more request has been taken; 0: there is none, or there are enough under way. */
static int take_one(struct vblk *b)
{
	struct virtio_chain chain;
	int ret;

	b->full = b->in_flight >= b->ring.setup.size;
	if (b->full || b->failed)
		return 0;
	ret = virtio_ring_pop(&b->ring, &chain);
	if (ret > 0 && vblk_execute(b, &chain))
		ret = -EPROTO;
	if (ret < 0)
		fail(b);
	return ret > 0;
}

/* A driver that adds requests as fast as they are taken does not keep the loop: what is left comes with a later turn.
 */
static void take_all(struct vblk *b)
{
	unsigned int budget = b->ring.setup.size;

	if (!b->running)
		return;
	virtio_ring_notifications(&b->ring, false);
	for (;;) {
		while (budget && take_one(b))
			budget--;
		if (b->full || b->failed)
			break; /* the next answer comes back here */
		if (!budget) {
			virtio_kick(&b->v, 0);
			break;
		}
		virtio_ring_notifications(&b->ring, true);
		if (!take_one(b))
			break;
		virtio_ring_notifications(&b->ring, false);
		budget--;
	}
	block_gather(&b->v.vm->loop, b->in_flight);
}

/* After the answers of one turn. */
static void end_turn(struct loop_work *work)
{
	struct vblk *b = from_member(work, end_work);

	if (!b->running)
		return;
	if (virtio_ring_show(&b->ring))
		virtio_interrupt(&b->v, 0);
	if (b->full)
		take_all(b);
	else
		block_gather(&b->v.vm->loop, b->in_flight);
}

/* The order matters: the driver may use the device again as soon as it has been told. */
void vblk_ended(struct vblk *b)
{
	unsigned int stopping = b->stopping;

	if (b->in_flight)
		return;
	b->stopping = 0;
	if (stopping & WANT_QUEUE_STOP)
		virtio_queue_reset_done(&b->v, 0);
	if (stopping & WANT_RESET) {
		atomic_store(&b->idle, true);
		virtio_reset_done(&b->v);
	}
}

static void start(struct vblk *b)
{
	struct virtio_queue_setup setup;

	if (b->running || b->stopping || !virtio_queue_enabled(&b->v, 0, &setup))
		return;
	b->features = virtio_accepted(&b->v);
	b->full = b->failed = false;
	if (virtio_ring_init(&b->ring, &b->v.vm->memory, &setup, b->features)) {
		fail(b);
		return;
	}
	b->running = true;
	virtio_watch_kicks(&b->v, 0);
	take_all(b);
}

static void carry_out(struct loop_work *work)
{
	struct vblk *b = from_member(work, work);
	unsigned int wanted = atomic_exchange(&b->wanted, 0);

	if (wanted & WANT_START)
		start(b);
	if ((wanted & WANT_INTERRUPT) && b->running)
		virtio_interrupt(&b->v, 0);
	if (wanted & (WANT_QUEUE_STOP | WANT_RESET)) {
		b->running = false;
		b->stopping |= wanted & (WANT_QUEUE_STOP | WANT_RESET);
		vblk_ended(b);
	}
}

/* The virtio class. */

static void want(struct vblk *b, unsigned int what)
{
	atomic_fetch_or(&b->wanted, what);
	loop_post(&b->v.vm->loop, &b->work);
}

static void on_start(struct virtio *v)
{
	struct vblk *b = (struct vblk *)v;

	atomic_store(&b->idle, false);
	want(b, WANT_START);
}

static void on_reset(struct virtio *v)
{
	struct vblk *b = (struct vblk *)v;

	if (atomic_load(&b->idle)) {
		virtio_reset_done(v);
		return;
	}
	atomic_store(&b->let_go, true);
	want(b, WANT_RESET);
}

static void on_queue_start(struct virtio *v, unsigned int queue)
{
	(void)queue;
	want((struct vblk *)v, WANT_START);
}

static void on_queue_reset(struct virtio *v, unsigned int queue)
{
	(void)queue;
	want((struct vblk *)v, WANT_QUEUE_STOP);
}

/* What was told the old way may not have been heard. */
static void on_vector_changed(struct virtio *v, unsigned int queue)
{
	(void)queue;
	want((struct vblk *)v, WANT_INTERRUPT);
}

static void on_notify(struct virtio *v, unsigned int queue)
{
	(void)queue;
	take_all((struct vblk *)v);
}

static void on_looked_for(struct virtio *v)
{
	const struct vblk *b = (struct vblk *)v;

	if (b->claim && (atomic_load(&b->let_go) || atomic_load(&b->claim->taken)) && !virtio_status(v))
		pci_set_gone(&v->fn, true);
}

/* All there is to do has been done by reset_device(). */
static void on_machine_reset(struct virtio *v)
{
	(void)v;
}

static void on_destroy(struct virtio *v)
{
	struct vblk *b = (struct vblk *)v;

	vblk_abandon(b);
	virtio_fini(v);
	free(b);
}

const struct virtio_class vblk_class = {
	.name = "virtio-blk",
	.start = on_start,
	.reset = on_reset,
	.machine_reset = on_machine_reset,
	.queue_start = on_queue_start,
	.queue_reset = on_queue_reset,
	.vector_changed = on_vector_changed,
	.notify = on_notify,
	.looked_for = on_looked_for,
	.destroy = on_destroy,
};

/* vCPUs are stopped, and memory is about to begin anew: nothing may be read into it any more, or written from it. */
static void reset_device(struct device *device)
{
	struct vblk *b = from_member(device, device);
	struct vm *vm = b->v.vm;
	unsigned int turns = 0;

	atomic_store(&b->wanted, 0);
	b->running = false;
	b->stopping = 0;
	while (b->in_flight && atomic_load(&vm->request) != VM_END)
		if (!loop_turn(&vm->loop, TURN_NS) && ++turns == 5)
			log_line("--disk %s: the reset waits for %u requests that the host has not ended yet", b->path,
				 b->in_flight);
	atomic_store(&b->idle, true);
	atomic_store(&b->let_go, false);
	if (atomic_load(&b->v.fn.gone))
		pci_set_gone(&b->v.fn, false);
	if (b->claim && !b->in_flight)
		block_claim_return(b->claim);
}

const struct device_class vblk_device_class = {
	.name = "virtio-blk",
	.reset = reset_device,
};

void vblk_init(struct vblk *b)
{
	b->work.fn = carry_out;
	b->end_work.fn = end_turn;
	atomic_store(&b->idle, true);
}
