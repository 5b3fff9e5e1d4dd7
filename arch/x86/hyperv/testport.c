/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * A message is echoed by the vCPU thread that brings it, so that answers to one VP's messages keep their order. What
 * asks for more than one message is left to the loop thread, which sends as many as the SINT's queue takes and goes on
 * when the partition says that there is room. A signal comes through an eventfd that the loop polls and never reads:
 * the way that VMBus takes (devices/vmbus/hv_transport.c), which costs less than a read that is armed anew each time.
 */
#include "arch/x86/hyperv/testport.h"

#include <errno.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "arch/x86/hyperv/hyperv.h"
#include "vmm/device.h"
#include "vmm/irq.h"
#include "vmm/log.h"
#include "vmm/loop.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define JOBS_MAX      32
#define LAPIC_BASE    0xfee00000u
#define LAPIC_ID_BITS 12
#define VECTOR_FIRST  16
#define VECTOR_LAST   255

#define from_member(ptr, member) ((struct testport *)((char *)(ptr)-offsetof(struct testport, member)))

struct target {
	uint32_t vp, sint;
};

/* A request that the loop carries out. */
struct job {
	uint32_t type; /* 0: free */
	struct target to;
	uint32_t first, count;
	uint32_t done, taken; /* loop thread */
};

struct testport {
	struct device dev;
	struct hv_partition *partition;
	int fd;
	pthread_mutex_t lock; /* for the next three: vCPU threads and the loop */
	struct job jobs[JOBS_MAX];
	struct target event_to;
	uint32_t event_flag;
	struct loop_work start_work, jobs_work;
	struct loop_op event_op; /* loop thread */
	int bell_fd;
	struct msi bell_msi; /* loop thread */
	struct loop_op bell_op;
};

/* A guest's message. */
struct request {
	struct target to;
	uint32_t first, second;
};

static enum hv_status status_of(int ret)
{
	switch (ret) {
	case 0:
		return HV_STATUS_SUCCESS;
	case -EAGAIN:
		return HV_STATUS_INSUFFICIENT_BUFFERS;
	default:
		return HV_STATUS_INVALID_PARAMETER;
	}
}

static enum hv_status add_job(struct testport *port, const struct job *job)
{
	enum hv_status status = HV_STATUS_INSUFFICIENT_BUFFERS;

	pthread_mutex_lock(&port->lock);
	for (unsigned int i = 0; i < JOBS_MAX; i++) {
		if (!port->jobs[i].type) {
			port->jobs[i] = *job;
			status = HV_STATUS_SUCCESS;
			break;
		}
	}
	pthread_mutex_unlock(&port->lock);
	loop_post(&port->dev.vm->loop, &port->jobs_work);
	return status;
}

static enum hv_status ask_burst(struct testport *port, const struct request *r)
{
	const struct job job = { .type = TESTPORT_BURST, .to = r->to, .count = r->first };

	if (!r->first || r->first > TESTPORT_BURST_MAX)
		return HV_STATUS_INVALID_PARAMETER;
	return add_job(port, &job);
}

static enum hv_status ask_flags(struct testport *port, const struct request *r)
{
	const struct job job = { .type = TESTPORT_FLAGS, .to = r->to, .first = r->first, .count = r->second };

	if (r->first >= HV_EVENT_FLAGS || r->second > HV_EVENT_FLAGS - r->first)
		return HV_STATUS_INVALID_PARAMETER;
	return add_job(port, &job);
}

static enum hv_status ask_wire(struct testport *port, const struct request *r)
{
	const struct job job = { .type = TESTPORT_WIRE, .to = r->to, .first = r->first };

	if (r->first < VECTOR_FIRST || r->first > VECTOR_LAST || r->to.vp >= port->dev.vm->nr_vcpus)
		return HV_STATUS_INVALID_PARAMETER;
	return add_job(port, &job);
}

static enum hv_status configure(struct testport *port, const struct request *r)
{
	pthread_mutex_lock(&port->lock);
	port->event_to = r->to;
	port->event_flag = r->first;
	pthread_mutex_unlock(&port->lock);
	return HV_STATUS_SUCCESS;
}

static enum hv_status post(void *opaque, uint32_t connection, uint32_t type, const void *payload, size_t size)
{
	struct testport *port = opaque;
	struct request r = { 0 };

	(void)connection;
	memcpy(&r, payload, size < sizeof(r) ? size : sizeof(r));
	if (size < sizeof(r.to))
		return HV_STATUS_INVALID_PARAMETER;
	switch (type) {
	case TESTPORT_BURST:
		return ask_burst(port, &r);
	case TESTPORT_CONFIG:
		return configure(port, &r);
	case TESTPORT_FLAGS:
		return ask_flags(port, &r);
	case TESTPORT_WIRE:
		return ask_wire(port, &r);
	default:
		return status_of(hv_post_message(port->partition, r.to.vp, r.to.sint, type, payload, size));
	}
}

/* Sends what there is room for; the job is done when nothing is left, or when there is nobody to send it to. */
static bool burst(struct testport *port, struct job *job)
{
	int ret = 0;

	while (job->done < job->count && !ret) {
		const uint32_t message[] = { job->to.vp, job->to.sint, job->count, job->done };

		ret = hv_post_message(port->partition, job->to.vp, job->to.sint, TESTPORT_BURST, message,
				      sizeof(message));
		job->done += !ret;
	}
	return ret != -EAGAIN;
}

/* The flags are set once, even if the answer has to wait. */
static bool set_flags(struct testport *port, struct job *job)
{
	for (; job->done < job->count; job->done++)
		job->taken += hv_signal_event(port->partition, job->to.vp, job->to.sint, job->first + job->done);

	const uint32_t answer[] = { job->to.vp, job->to.sint, job->first, job->taken };

	return hv_post_message(port->partition, job->to.vp, job->to.sint, TESTPORT_FLAGS, answer, sizeof(answer)) !=
	       -EAGAIN;
}

static bool wire_bell(struct testport *port, const struct job *job)
{
	const uint32_t answer[] = { job->to.vp, job->to.sint, job->first };
	struct vm *vm = port->dev.vm;
	int ret = msi_set(&vm->irqs, &port->bell_msi, LAPIC_BASE | vm->vcpus[job->to.vp].apic_id << LAPIC_ID_BITS,
			  job->first);

	if (ret) {
		log_line("--device hv-test: an interrupt's route: %s", strerror(-ret));
		return true;
	}
	return hv_post_message(port->partition, job->to.vp, job->to.sint, TESTPORT_WIRE, answer, sizeof(answer)) !=
	       -EAGAIN;
}

static bool run_job(struct testport *port, struct job *job, uint32_t type)
{
	switch (type) {
	case TESTPORT_BURST:
		return burst(port, job);
	case TESTPORT_FLAGS:
		return set_flags(port, job);
	default:
		return wire_bell(port, job);
	}
}

/* Only the loop empties a place, so what it works on stays put without the lock. */
static void run_jobs(struct loop_work *work)
{
	struct testport *port = from_member(work, jobs_work);

	for (unsigned int i = 0; i < JOBS_MAX; i++) {
		struct job *job = &port->jobs[i];
		uint32_t type;

		pthread_mutex_lock(&port->lock);
		type = job->type;
		pthread_mutex_unlock(&port->lock);
		if (!type || !run_job(port, job, type))
			continue;
		pthread_mutex_lock(&port->lock);
		job->type = 0;
		pthread_mutex_unlock(&port->lock);
	}
}

static void room(void *opaque)
{
	struct testport *port = opaque;

	loop_post(&port->dev.vm->loop, &port->jobs_work);
}

static void arm(struct testport *port, struct loop_op *op, int fd)
{
	io_uring_prep_poll_multishot(loop_sqe(&port->dev.vm->loop, op), fd, POLLIN);
}

static void start(struct loop_work *work)
{
	struct testport *port = from_member(work, start_work);

	arm(port, &port->event_op, port->fd);
	arm(port, &port->bell_op, port->bell_fd);
}

static void signalled(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct testport *port = from_member(op, event_op);
	struct target to;
	uint32_t flag;

	if (res < 0)
		return;
	if (!(cqe_flags & IORING_CQE_F_MORE))
		arm(port, op, port->fd);
	pthread_mutex_lock(&port->lock);
	to = port->event_to;
	flag = port->event_flag;
	pthread_mutex_unlock(&port->lock);
	hv_signal_event(port->partition, to.vp, to.sint, flag);
}

static void rung(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct testport *port = from_member(op, bell_op);
	const uint64_t one = 1;

	/* Before it is wired, the eventfd counts for nobody; it cannot be full. */
	if (res < 0 || write(port->bell_msi.fd, &one, sizeof(one)) != sizeof(one))
		return;
	if (!(cqe_flags & IORING_CQE_F_MORE))
		arm(port, op, port->bell_fd);
}

static void testport_reset(struct device *dev)
{
	struct testport *port = (struct testport *)dev;

	pthread_mutex_lock(&port->lock);
	memset(port->jobs, 0, sizeof(port->jobs));
	port->event_to = (struct target){ 0 };
	port->event_flag = 0;
	pthread_mutex_unlock(&port->lock);
	msi_mask(&dev->vm->irqs, &port->bell_msi);
	msi_take_pending(&port->bell_msi);
}

static int doorbell(const struct testport *port, uint32_t flags)
{
	struct kvm_ioeventfd arg = {
		.addr = TESTPORT_DOORBELL, .len = 4, .fd = port->bell_fd, .flags = KVM_IOEVENTFD_FLAG_PIO | flags
	};

	return ioctl(port->dev.vm->fd, KVM_IOEVENTFD, &arg) < 0 ? -errno : 0;
}

static void testport_destroy(struct device *dev)
{
	struct testport *port = (struct testport *)dev;

	hv_event_port_remove(port->partition, TESTPORT_EVENTS);
	doorbell(port, KVM_IOEVENTFD_FLAG_DEASSIGN);
	msi_free(&dev->vm->irqs, &port->bell_msi);
	close(port->bell_fd);
	close(port->fd);
	pthread_mutex_destroy(&port->lock);
	free(port);
}

static const struct device_class testport_class = {
	.name = "hv-test",
	.reset = testport_reset,
	.destroy = testport_destroy,
};

static int add_ports(struct testport *port)
{
	static const struct hv_message_ops ops = { .post = post };
	int ret = hv_event_port_add(port->partition, TESTPORT_EVENTS, port->fd);

	if (ret)
		return ret;
	ret = doorbell(port, 0);
	if (!ret) {
		ret = hv_message_port_add(port->partition, TESTPORT_MESSAGES, &ops, port);
		if (!ret)
			return 0;
		doorbell(port, KVM_IOEVENTFD_FLAG_DEASSIGN);
	}
	hv_event_port_remove(port->partition, TESTPORT_EVENTS);
	return ret;
}

static int open_files(struct testport *port)
{
	int ret;

	port->fd = eventfd(0, EFD_CLOEXEC);
	port->bell_fd = eventfd(0, EFD_CLOEXEC);
	ret = port->fd < 0 || port->bell_fd < 0 ? -errno : msi_alloc(&port->dev.vm->irqs, &port->bell_msi);
	if (!ret) {
		ret = add_ports(port);
		if (!ret)
			return 0;
		msi_free(&port->dev.vm->irqs, &port->bell_msi);
	}
	if (port->fd >= 0)
		close(port->fd);
	if (port->bell_fd >= 0)
		close(port->bell_fd);
	return ret;
}

int testport_create(struct vm *vm)
{
	struct testport *port;
	int ret;

	if (!vm->hyperv) {
		log_line("--device hv-test: needs Hyper-V (--hyperv)");
		return -EINVAL;
	}
	port = calloc(1, sizeof(*port));
	if (!port) {
		log_line("--device hv-test: %s", strerror(ENOMEM));
		return -ENOMEM;
	}
	port->dev.vm = vm;
	port->partition = vm->hyperv;
	port->start_work.fn = start;
	port->jobs_work.fn = run_jobs;
	port->event_op.fn = signalled;
	port->bell_op.fn = rung;
	pthread_mutex_init(&port->lock, NULL);
	ret = open_files(port);
	if (ret) {
		log_line("--device hv-test: %s", strerror(-ret));
		pthread_mutex_destroy(&port->lock);
		free(port);
		return ret;
	}
	hv_set_room_listener(port->partition, room, port);
	device_register(vm, &port->dev, &testport_class);
	loop_post(&vm->loop, &port->start_work);
	return 0;
}
