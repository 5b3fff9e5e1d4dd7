/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * A driver's requests never come here: KVM writes the eventfds by which the back-end is notified, and takes the ones
 * by which it interrupts. What comes here are the changes of the device: queues set up, started, stopped, memory
 * mapped. vCPUs note what the driver wants and post the work; the loop makes steps of it in the link's queue
 * (session.c). Where a driver has to wait it does so by polling, as virtio lays down, and no vCPU waits in a register
 * function but for the configuration after writing it.
 *
 * The socket for what we ask and the socket for what the back-end asks are served side by side: a back-end that waits
 * for an answer before it gives one is answered.
 *
 * The first of two things that can go wrong is the link's death. The driver is told to reset the device
 * (DEVICE_NEEDS_RESET) or, with reconnect=on, is not told at all and waits. The other is nonsense on the back-end's own
 * socket, which is closed then, while the device goes on.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/vhost-user/internal.h"
#include "vmm/log.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

#define SERVE_MOST 64
#define CONNECT_MS 20
#define DRAIN_MS   50

#define from_member(ptr, member) ((struct vhu_device *)((char *)(ptr)-offsetof(struct vhu_device, member)))

void vhu_tell(const struct vhu_device *d, const char *text)
{
	log_line("--vhost-user %s: %s", d->options.socket, text);
}

static void watch(struct vhu_watch *w, int fd, short events)
{
	if (w->armed || fd < 0)
		return;
	w->armed = true;
	io_uring_prep_poll_add(loop_sqe(&w->dev->vm->loop, &w->op), fd, (unsigned int)events);
}

/* One timer, which looks again when it ends: most deadlines are met. */
static void watch_deadline(struct vhu_device *d)
{
	uint64_t now = clock_ns();

	if (d->timer_armed || !d->link.alive || !d->link.deadline)
		return;
	d->timer_armed = true;
	loop_timer(&d->vm->loop, &d->timer_op, &d->timer_ts,
		   d->link.deadline > now ? d->link.deadline - now + VHU_MS_NS : VHU_MS_NS);
}

void vhu_lost(struct vhu_device *d)
{
	if (!d->up)
		return;
	d->up = false;
	if (atomic_load(&d->vm->request) != VM_END)
		log_line("--vhost-user %s: %s: %s", d->options.socket, d->link.why,
			 d->options.reconnect ? "waiting for it to come back"
					      : "the driver is told to reset the device");
	d->resume = d->running;
	vhu_channel_close(&d->backend.channel);
	vhu_session_lost(d);
	vhu_config_lost(d);
	if (d->options.reconnect)
		vhu_reconnect_start(d);
	else
		virtio_needs_reset(&d->v);
}

void vhu_pump(struct vhu_device *d)
{
	short events = vhu_link_run(&d->link, clock_ns());

	if (d->attaching) {
		vhu_reconnect_step(d);
		events = d->link.alive ? POLLIN : 0;
	}
	if (!d->link.alive) {
		vhu_lost(d);
		return;
	}
	watch(&d->in_watch, d->link.channel.fd, POLLIN);
	if (events & POLLOUT)
		watch(&d->out_watch, d->link.channel.fd, POLLOUT);
	watch_deadline(d);
}

static void link_ready(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct vhu_watch *w = (struct vhu_watch *)op;

	(void)res;
	(void)cqe_flags;
	w->armed = false;
	vhu_pump(w->dev);
}

static void timer_ended(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct vhu_device *d = from_member(op, timer_op);

	(void)cqe_flags;
	d->timer_armed = false;
	if (res != -ECANCELED)
		vhu_pump(d);
}

/* The poll events to go on with, 0 when it is closed. */
static int serve_backend(struct vhu_device *d)
{
	const char *why = NULL;
	int events;

	if (d->backend.channel.fd < 0)
		return 0;
	events = vhu_backend_serve(&d->backend, SERVE_MOST, &why);
	if (events > 0)
		return events;
	if (why)
		log_line("--vhost-user %s: the back-end's requests make no sense (%s): its channel is closed",
			 d->options.socket, why);
	vhu_channel_close(&d->backend.channel);
	return 0;
}

static void backend_ready(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct vhu_device *d = ((struct vhu_watch *)op)->dev;
	int events;

	(void)res;
	(void)cqe_flags;
	d->backend_watch.armed = false;
	events = serve_backend(d);
	if (events)
		watch(&d->backend_watch, d->backend.channel.fd, (short)events);
	/* A change of the configuration has something to be asked for. */
	vhu_pump(d);
}

/* Carries out what vCPUs want; the order matters where a driver can have both at once. */
static void carry_out(struct loop_work *work)
{
	struct vhu_device *d = from_member(work, work);

	if (atomic_exchange(&d->start_wanted, false)) {
		if (d->up || d->options.reconnect)
			vhu_start(d);
		else
			virtio_needs_reset(&d->v);
	}
	for (unsigned int i = 0; i < d->v.nr_queues; i++) {
		unsigned int wanted = atomic_exchange(&d->queue_wanted[i], 0);

		if (wanted & VHU_QUEUE_START)
			vhu_queue_start(d, i);
		if (wanted & VHU_QUEUE_VECTOR)
			vhu_queue_vector(d, i);
		if (wanted & VHU_QUEUE_STOP)
			vhu_queue_stop(d, i);
	}
	if (atomic_exchange(&d->reset_wanted, false))
		vhu_stop(d, true);
	vhu_config_flush(d);
	if (!d->backend_watch.armed)
		watch(&d->backend_watch, d->backend.channel.fd, POLLIN);
	vhu_pump(d);
}

/* The virtio class. */

static void want(struct vhu_device *d, _Atomic bool *what)
{
	atomic_store(what, true);
	loop_post(&d->vm->loop, &d->work);
}

static void device_start(struct virtio *v)
{
	struct vhu_device *d = (struct vhu_device *)v;

	atomic_store(&d->idle, false);
	want(d, &d->start_wanted);
}

static void device_reset(struct virtio *v)
{
	struct vhu_device *d = (struct vhu_device *)v;

	if (atomic_load(&d->idle))
		virtio_reset_done(v);
	else
		want(d, &d->reset_wanted);
}

static void want_queue(struct virtio *v, unsigned int queue, uint8_t what)
{
	struct vhu_device *d = (struct vhu_device *)v;

	atomic_fetch_or(&d->queue_wanted[queue], what);
	loop_post(&d->vm->loop, &d->work);
}

static void device_queue_start(struct virtio *v, unsigned int queue)
{
	want_queue(v, queue, VHU_QUEUE_START);
}

static void device_queue_reset(struct virtio *v, unsigned int queue)
{
	want_queue(v, queue, VHU_QUEUE_STOP);
}

static void device_vector_changed(struct virtio *v, unsigned int queue)
{
	want_queue(v, queue, VHU_QUEUE_VECTOR);
}

/* In-band notifications: KVM tells us, and we tell the back-end. */
static void device_notify(struct virtio *v, unsigned int queue)
{
	struct vhu_device *d = (struct vhu_device *)v;

	vhu_queue_kick(d, queue);
	vhu_pump(d);
}

/* vCPUs are stopped, and the loop is here: it waits, and serves both sockets meanwhile. */
static void device_machine_reset(struct virtio *v)
{
	struct vhu_device *d = (struct vhu_device *)v;

	atomic_store(&d->start_wanted, false);
	atomic_store(&d->reset_wanted, false);
	for (unsigned int i = 0; i < v->nr_queues; i++)
		atomic_store(&d->queue_wanted[i], 0);
	if (atomic_load(&d->idle))
		return;
	vhu_stop(d, false);
	if (!vhu_drain(d, d->vm->signal_fd))
		vhu_link_stop(&d->link, "given up at a signal");
	loop_post(&d->vm->loop, &d->work); /* which sees to the rest, if it is dead */
}

static void device_free(struct vhu_device *d)
{
	vhu_link_stop(&d->link, "the end");
	vhu_channel_close(&d->backend.channel);
	vhu_shmem_destroy(&d->shmem);
	if (d->inflight_fd >= 0)
		close(d->inflight_fd);
	pthread_mutex_destroy(&d->trap_lock);
	pthread_mutex_destroy(&d->config_lock);
	pthread_cond_destroy(&d->config_changed);
	free(d);
}

static void device_destroy(struct virtio *v)
{
	struct vhu_device *d = (struct vhu_device *)v;

	d->up = false;
	vhu_link_drop(&d->link);
	virtio_fini(v);
	device_free(d);
}

static const struct virtio_class device_class = {
	.name = "vhost-user",
	.start = device_start,
	.reset = device_reset,
	.machine_reset = device_machine_reset,
	.queue_start = device_queue_start,
	.queue_reset = device_queue_reset,
	.vector_changed = device_vector_changed,
	.notify = device_notify,
	.config_reading = vhu_config_reading,
	.config_written = vhu_config_written,
	.memory_fault = vhu_memory_fault,
	.destroy = device_destroy,
};

/* Creation. */

int vhu_connect(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), ret;

	if (fd < 0)
		return -errno;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0)
		return fd;
	ret = -errno;
	close(fd);
	return ret;
}

/* A back-end that is busy with its queue of connections is given the time too. */
static int connect_backend(const struct vhu_device *d, int signals)
{
	uint64_t deadline = clock_ns() + d->options.timeout_ms * VHU_MS_NS;
	struct pollfd p = { .fd = signals, .events = POLLIN };
	int fd;

	for (;;) {
		fd = vhu_connect(d->options.socket);
		if (fd != -EAGAIN || clock_ns() >= deadline)
			break;
		if (poll(&p, 1, CONNECT_MS) > 0) {
			fd = -EINTR;
			break;
		}
	}
	if (fd < 0)
		log_line("--vhost-user %s: connect: %s", d->options.socket, fd == -EINTR ? "given up" : strerror(-fd));
	return fd;
}

/* False if a signal came first. At every turn the link may die, which empties its queue too. */
bool vhu_drain(struct vhu_device *d, int signals)
{
	for (;;) {
		short events = vhu_link_run(&d->link, clock_ns());
		int more = serve_backend(d);
		struct pollfd p[3] = {
			{ .fd = signals, .events = POLLIN },
			{ .fd = d->link.channel.fd, .events = events },
			{ .fd = more ? d->backend.channel.fd : -1, .events = (short)more },
		};

		/* Serving may have put something into it. */
		if (!d->link.first)
			return true;
		if (!events)
			continue;
		poll(p, 3, DRAIN_MS);
		if (p[0].revents)
			return false;
	}
}

static int attach_backend(struct vhu_device *d, int signals)
{
	int fd = connect_backend(d, signals);

	if (fd < 0)
		return fd;
	d->attach = (struct vhu_attach){
		.link = &d->link, .info = &d->info, .backend = &d->backend, .inband = d->options.inband
	};
	d->attach.config_size = vhu_config_size(&d->options, &d->attach.config_probe);
	vhu_link_start(&d->link, fd);
	vhu_attach_begin(&d->attach);
	if (!vhu_drain(d, signals)) {
		vhu_tell(d, "given up");
		return -EINTR;
	}
	if (!d->link.alive) {
		vhu_tell(d, d->link.why);
		return -EPROTO;
	}
	d->up = true;
	return 0;
}

static void tell_doubts(const struct vhu_device *d)
{
	const struct vhu_info *i = &d->info;

	if (i->config_bad)
		vhu_tell(d, "GET_CONFIG: the reply makes no sense: the driver sees zeros");
	if (d->options.inband && !vhu_has(i, VHU_PF_INBAND_NOTIFICATIONS))
		vhu_tell(d, "inband=on: the back-end cannot: eventfds are used");
	if (d->options.id == VIRTIO_ID_FS && !d->options.generic && !d->options.tag[0] && !i->config[0])
		vhu_tell(d, "device=fs: the back-end does not say a tag; tag= gives it one");
}

static int make_device(struct vhu_device *d)
{
	struct virtio_config c = {
		.name = d->name,
		.id = d->options.id,
		.class_code = vhu_class_code(&d->options),
		.queue_size = d->options.queue_size,
		.config_size = d->info.config_size,
		.shm = d->info.shmem.regions,
		.nr_shm = d->info.shmem.nr_regions,
	};
	uint8_t config[VHU_CONFIG_MAX];
	int ret;

	d->v.nr_queues = c.nr_queues = vhu_queues(d);
	if (!c.nr_queues)
		return -EINVAL;
	c.features = vhu_features(d);
	if (!vhu_has(&d->info, VHU_PF_CONFIG) && !d->options.generic)
		c.config_size =
			d->options.id == VIRTIO_ID_NET ? 12 : vhu_config_size(&d->options, &d->attach.config_probe);
	if (d->options.id == VIRTIO_ID_NET && !d->options.generic)
		c.config_size = 12;
	ret = vhu_window_reserve(d);
	if (!ret)
		ret = virtio_init(&d->v, d->vm, &device_class, &c);
	if (ret)
		return ret;
	d->created = true;
	memcpy(config, d->info.config, sizeof(config));
	vhu_patch_config(d, config);
	virtio_config_set(&d->v, config, sizeof(config));
	return vhu_window_create(d);
}

static void watch_init(struct vhu_watch *w, struct vhu_device *d, void (*fn)(struct loop_op *, int, uint32_t))
{
	w->op.fn = fn;
	w->dev = d;
}

static struct vhu_device *new_device(struct vm *vm, const struct vhost_user_options *options, unsigned int index)
{
	struct vhu_device *d = calloc(1, sizeof(*d));
	pthread_condattr_t attr;

	if (!d)
		return NULL;
	d->vm = vm;
	d->options = *options;
	snprintf(d->name, sizeof(d->name), "vhost-user%u", index);
	vhu_link_init(&d->link, d, options->timeout_ms * VHU_MS_NS);
	vhu_channel_init(&d->backend.channel, -1);
	d->backend.ops = &vhu_backend_ops;
	d->backend.opaque = d;
	d->inflight_fd = -1;
	atomic_store(&d->idle, true);
	d->work.fn = carry_out;
	d->timer_op.fn = timer_ended;
	watch_init(&d->in_watch, d, link_ready);
	watch_init(&d->out_watch, d, link_ready);
	watch_init(&d->backend_watch, d, backend_ready);
	vhu_trap_init(d);
	vhu_reconnect_init(d);
	pthread_mutex_init(&d->config_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&d->config_changed, &attr);
	pthread_condattr_destroy(&attr);
	return d;
}

/* Three eventfds for each queue, and by default a process may have 1024 descriptors. */
static void allow_fds(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int vhost_user_create(struct vm *vm, const struct vhost_user_options *options, unsigned int index)
{
	struct vhu_device *d = new_device(vm, options, index);
	int signals, ret;

	if (!d) {
		log_line("--vhost-user %s: out of memory", options->socket);
		return -ENOMEM;
	}
	allow_fds();
	/* The loop, which reads these, does not run yet. */
	signals = signalfd(-1, &vm->signals, SFD_CLOEXEC);
	ret = attach_backend(d, signals);
	if (signals >= 0)
		close(signals);
	if (!ret) {
		ret = make_device(d);
		if (ret && ret != -EINVAL)
			log_line("--vhost-user %s: the PCI function could not be made: %s", options->socket,
				 strerror(-ret));
	}
	if (!ret) {
		tell_doubts(d);
		loop_post(&vm->loop, &d->work);
		return 0;
	}
	if (d->created) {
		pci_function_fini(&d->v.fn);
		virtio_fini(&d->v);
	}
	device_free(d);
	return ret;
}
