/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "devices/vfio-user/internal.h"
#include "devices/vfio-user/serve.h"
#include "vmm/log.h"
#include "vmm/trace.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define MS_NS	   1000000ULL
#define CONNECT_MS 20
#define SERVE_MOST 64
#define SPARE_FDS  64

#define from_member(ptr, member) ((struct vfu_device *)((char *)(ptr)-offsetof(struct vfu_device, member)))

void vfu_tell(struct vfu_device *d, const char *text)
{
	log_line("--vfio-user %s: %s", d->options.socket, text);
}

void vfu_watch_init(struct vfu_watch *w, struct vfu_device *d, void (*fn)(struct loop_op *, int, uint32_t))
{
	w->op.fn = fn;
	w->dev = d;
	w->armed = false;
}

void vfu_watch_arm(struct vfu_watch *w, int fd, short events)
{
	if (w->armed || fd < 0)
		return;
	w->armed = true;
	io_uring_prep_poll_add(loop_sqe(&w->dev->vm->loop, &w->op), fd, (unsigned int)events);
}

/* Callbacks of the link. */

static bool link_ending(void *opaque)
{
	const struct vfu_device *d = opaque;

	return atomic_load(&d->vm->request) != VM_RUN;
}

static bool link_stopped(void *opaque)
{
	const struct vfu_device *d = opaque;

	return atomic_load(&d->vm->stop);
}

static void link_died(void *opaque, const char *why)
{
	struct vfu_device *d = opaque;

	if (atomic_load(&d->vm->request) != VM_END)
		log_line("--vfio-user %s: %s: the guest has lost the device%s", d->options.socket, why,
			 d->options.reconnect ? " until the server is back" : "");
	loop_post(&d->vm->loop, &d->dead_work);
}

static void link_look(void *opaque)
{
	struct vfu_device *d = opaque;

	loop_post(&d->vm->loop, &d->look_work);
}

static void link_tell(void *opaque, const char *text)
{
	vfu_tell(opaque, text);
}

static void link_watch(void *opaque)
{
	struct vfu_device *d = opaque;

	loop_post(&d->vm->loop, &d->watch_work);
}

static void link_wake(void *opaque, pthread_t thread)
{
	(void)opaque;
	vcpu_kick_thread(thread);
}

static const struct vfu_link_ops link_ops = { link_ending, link_stopped, link_died, link_look,
					      link_tell,   link_watch,	 link_wake };

/* The link's watchdog. There is one timer at a time: as long as it goes on, watch_work is not posted. */
static void watch(struct vfu_device *d)
{
	uint64_t ns = vfu_link_watch(&d->link);

	if (ns)
		loop_timer(&d->vm->loop, &d->watch_op, &d->watch_ts, ns);
}

static void watch_posted(struct loop_work *work)
{
	watch(from_member(work, watch_work));
}

static void watch_again(struct loop_op *op, int res, uint32_t cqe_flags)
{
	(void)res;
	(void)cqe_flags;
	watch(from_member(op, watch_op));
}

/*
 * What the loop looks for on the main socket: room, if that is wanted; and, if the server has no socket of its own to
 * ask, what it has to say, and the socket's end. Replies are the business of those who wait for them. Where there is a
 * twin, its end is the server's: to be among those who wait at a socket costs each message there and back.
 */
static void watch_main(struct vfu_device *d, short events)
{
	if (d->twin.fd < 0)
		events |= POLLRDHUP;
	else
		events &= ~POLLIN;
	if (events && vfu_link_alive(&d->link))
		vfu_watch_arm(&d->main_watch, d->link.stream.fd, events);
}

static void look(struct vfu_device *d)
{
	short events = vfu_link_poll(&d->link);

	if (!events)
		return;
	/* Armed already, but not for that: it is armed anew when it has been cancelled. */
	if (d->main_watch.armed && (events & POLLOUT))
		loop_cancel(&d->vm->loop, &d->main_watch.op);
	watch_main(d, events);
}

static void main_ready(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct vfu_device *d = ((struct vfu_watch *)op)->dev;

	(void)res;
	(void)cqe_flags;
	d->main_watch.armed = false;
	if (!d->removed)
		look(d);
}

static void serve_twin(struct vfu_device *d)
{
	const char *why = "it went away";
	int events;

	if (d->twin.fd < 0 || !vfu_link_alive(&d->link))
		return;
	pthread_mutex_lock(&d->link.aside_lock);
	events = vfu_serve_stream(&d->twin, d->link.memory, SERVE_MOST, &why);
	pthread_mutex_unlock(&d->link.aside_lock);
	if (events < 0)
		vfu_link_kill(&d->link, why);
	/* Armed already, but not for that: as in look(). */
	else if (d->twin_watch.armed && (events & POLLOUT))
		loop_cancel(&d->vm->loop, &d->twin_watch.op);
	else
		vfu_watch_arm(&d->twin_watch, d->twin.fd, (short)events);
}

static void twin_ready(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct vfu_device *d = ((struct vfu_watch *)op)->dev;

	(void)res;
	(void)cqe_flags;
	d->twin_watch.armed = false;
	if (!d->removed)
		serve_twin(d);
}

/* A vCPU may have served the twin socket meanwhile, and left something to be sent. */
static void look_posted(struct loop_work *work)
{
	struct vfu_device *d = from_member(work, look_work);

	if (d->removed)
		return;
	look(d);
	serve_twin(d);
}

void vfu_start_serving(struct vfu_device *d)
{
	d->removed = false;
	watch_main(d, POLLIN);
	vfu_watch_arm(&d->twin_watch, d->twin.fd, POLLIN);
}

/* The server is gone, or of no use any more. */
static void remove_device(struct loop_work *work)
{
	struct vfu_device *d = from_member(work, dead_work);

	if (d->removed || vfu_link_alive(&d->link))
		return;
	TRACE(vfio_user_event, "%s: removed", d->name);
	d->removed = true;
	pci_set_gone(&d->fn, true);
	vfu_irqs_drop(d);
	vfu_doorbells_release(d);
	if (d->main_watch.armed)
		loop_cancel(&d->vm->loop, &d->main_watch.op);
	if (d->twin_watch.armed)
		loop_cancel(&d->vm->loop, &d->twin_watch.op);
	if (d->options.reconnect)
		vfu_reconnect_start(d);
}

static void start(struct loop_work *work)
{
	struct vfu_device *d = from_member(work, start_work);

	vfu_start_serving(d);
	vfu_irqs_start(d);
}

/* The machine's reset: on the loop thread, so nothing here waits. */
static void vfu_device_reset(struct pci_function *fn)
{
	struct vfu_device *d = vfu_device_of(fn);
	struct vfu_dma_map map;

	if (!vfu_link_alive(&d->link)) {
		vfu_irqs_reset(d);
		/* A server that is back may have been told what is no longer true. */
		vfu_reconnect_again(d);
		return;
	}
	if (d->info->device.flags & VFU_DEVICE_RESETTABLE)
		vfu_link_command(&d->link, VFU_DEVICE_RESET, NULL, 0, NULL, 0, VFU_ASYNC, 0);
	vfu_config_reset(d);
	vfu_irqs_reset(d);
	if (d->info->device.flags & VFU_DEVICE_RESETTABLE)
		return;
	/* A device that cannot be reset at least has to let go of the memory it was writing to. */
	for (unsigned int i = 0; !vfu_dma_piece(d->link.memory, !d->options.secure_dma, i, &map); i++) {
		const struct vfu_dma_unmap unmap = { .argsz = sizeof(unmap), .address = map.address, .size = map.size };

		vfu_link_command(&d->link, VFU_DMA_UNMAP, &unmap, sizeof(unmap), NULL, 0, VFU_ASYNC, 0);
		vfu_link_command(&d->link, VFU_DMA_MAP, &map, sizeof(map), &d->vm->memory.fd, !d->options.secure_dma,
				 VFU_ASYNC, 0);
	}
}

static void vfu_device_free(struct vfu_device *d)
{
	vfu_reconnect_destroy(d);
	vfu_rom_destroy(d);
	vfu_bars_destroy(d);
	vfu_irqs_destroy(d);
	vfu_stream_close(&d->twin);
	vfu_link_destroy(&d->link);
	vfu_info_free(d->info);
	pthread_mutex_destroy(&d->intx_lock);
	pthread_mutex_destroy(&d->irq_lock);
	pthread_mutex_destroy(&d->bar_lock);
	free(d);
}

static void vfu_device_destroy(struct pci_function *fn)
{
	vfu_device_free(vfu_device_of(fn));
}

static const struct pci_function_ops function_ops = {
	.reset = vfu_device_reset,
	.destroy = vfu_device_destroy,
	.config_read = vfu_config_read,
	.config_written = vfu_config_written,
	.bar_moved = vfu_bar_moved,
	.memory_fault = vfu_memory_fault,
};

/* Descriptors are for each vector, and by default a process may have 1024. */
static void allow_fds(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max &&
	    limit.rlim_cur < VFIO_USER_MAX * (VFU_VECTORS_MAX + SPARE_FDS)) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* Waits until fd is ready or the time is over, or a signal wants the end: 1, -ETIMEDOUT or -EINTR. */
static int wait_ready(const struct vfu_attach *a, int signals, uint64_t deadline)
{
	struct pollfd p[3] = {
		{ .fd = a->main.fd, .events = a->main_events },
		{ .fd = a->twin.fd, .events = a->twin_events },
		{ .fd = signals, .events = POLLIN },
	};
	uint64_t now = clock_ns();

	if (now >= deadline)
		return -ETIMEDOUT;
	if (poll(p, 3, (int)((deadline - now) / MS_NS + 1)) < 0 && errno != EINTR)
		return -errno;
	return p[2].revents ? -EINTR : 1;
}

/* Each step has the timeout to itself. */
static int run_attach(struct vfu_device *d, struct vfu_attach *a, int signals)
{
	uint64_t timeout = d->options.timeout_ms * MS_NS, deadline = clock_ns() + timeout;
	unsigned int progress = 0;

	for (;;) {
		int ret = vfu_attach_run(a);

		if (ret < 0) {
			vfu_tell(d, a->text);
			return ret;
		}
		if (!ret)
			return 0;
		if (a->progress != progress) {
			progress = a->progress;
			deadline = clock_ns() + timeout;
		}
		ret = wait_ready(a, signals, deadline);
		if (ret < 0) {
			vfu_tell(d, ret == -EINTR	? "given up"
				    : ret == -ETIMEDOUT ? "the server does not reply"
							: strerror(-ret));
			return ret;
		}
	}
}

/* A server that is busy with its queue of connections is given the time too. */
static int connect_server(struct vfu_device *d, int signals)
{
	uint64_t deadline = clock_ns() + d->options.timeout_ms * MS_NS;
	struct pollfd p = { .fd = signals, .events = POLLIN };
	int fd;

	for (;;) {
		fd = vfu_connect(d->options.socket);
		if (fd != -EAGAIN || clock_ns() >= deadline)
			break;
		TRACE(vfio_user_event, "%s: the server's queue of connections is full", d->name);
		if (poll(&p, 1, CONNECT_MS) > 0) {
			fd = -EINTR;
			break;
		}
	}
	if (fd < 0)
		log_line("--vfio-user %s: connect: %s", d->options.socket, strerror(-fd));
	return fd;
}

static int attach_server(struct vfu_device *d, int signals)
{
	const struct memory *memory = &d->vm->memory;
	int fd = connect_server(d, signals), ret;

	if (fd < 0)
		return fd;
	vfu_attach_begin(&d->attach, fd, memory, !d->options.secure_dma, d->info);
	ret = run_attach(d, &d->attach, signals);
	if (!ret) {
		d->twin = d->attach.twin;
		vfu_stream_init(&d->attach.twin, -1);
		vfu_link_start(&d->link, &d->attach.main, &d->info->caps, d->options.posted, d->twin.fd < 0);
	}
	vfu_attach_end(&d->attach);
	return ret;
}

static int build_function(struct vfu_device *d)
{
	const char *why = "the PCI function could not be made";
	int ret = vfu_bars_create(d, &why);

	/* Before the BARs have anything else: MSI-X has its table there. */
	if (!ret)
		ret = vfu_config_build(d, &why);
	if (!ret)
		ret = vfu_bars_fill(d);
	if (!ret)
		ret = vfu_rom_create(d);
	if (!ret)
		ret = vfu_irqs_create(d);
	if (!ret && (ret = vfu_irqs_send(d)))
		return ret; /* which it has told */
	if (ret)
		log_line("--vfio-user %s: %s: %s", d->options.socket, why, strerror(-ret));
	return ret;
}

static struct vfu_device *new_device(struct vm *vm, const struct vfio_user_options *options)
{
	struct vfu_device *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->vm = vm;
	d->options = *options;
	snprintf(d->name, sizeof(d->name), "vfio-user");
	pthread_mutex_init(&d->bar_lock, NULL);
	pthread_mutex_init(&d->irq_lock, NULL);
	pthread_mutex_init(&d->intx_lock, NULL);
	vfu_stream_init(&d->twin, -1);
	for (unsigned int i = 0; i < VFU_IRQS; i++)
		d->event_fds[i] = -1;
	vfu_watch_init(&d->main_watch, d, main_ready);
	vfu_watch_init(&d->twin_watch, d, twin_ready);
	vfu_reconnect_init(d);
	d->start_work.fn = start;
	d->look_work.fn = look_posted;
	d->dead_work.fn = remove_device;
	d->watch_work.fn = watch_posted;
	d->watch_op.fn = watch_again;
	vfu_link_init(&d->link, &link_ops, d, &vm->memory, options->timeout_ms * MS_NS);
	d->link.aside = &d->twin;
	d->info = vfu_info_new();
	if (!d->info) {
		vfu_device_free(d);
		return NULL;
	}
	return d;
}

static int make_function(struct vfu_device *d)
{
	const char *why = "";
	struct pci_ids ids;
	int ret = vfu_config_check(d->info, &why);

	if (ret) {
		vfu_tell(d, why);
		return ret;
	}
	vfu_config_ids(d->info, &ids);
	ret = pci_function_init(&d->fn, d->vm->pci, PCI_DEVFN_AUTO, d->name, &ids, &function_ops);
	if (ret) {
		vfu_tell(d, "there is no free slot on the PCI bus");
		return ret;
	}
	ret = build_function(d);
	if (ret)
		pci_function_fini(&d->fn);
	return ret;
}

int vfio_user_create(struct vm *vm, const struct vfio_user_options *options)
{
	struct vfu_device *d = new_device(vm, options);
	int signals, ret;

	if (!d) {
		log_line("--vfio-user %s: out of memory", options->socket);
		return -ENOMEM;
	}
	allow_fds();
	/* The loop, which reads these, does not run yet. */
	signals = signalfd(-1, &vm->signals, SFD_CLOEXEC);
	ret = attach_server(d, signals);
	if (!ret) {
		d->link.alone = true;
		d->link.aside_fd = signals;
		ret = make_function(d);
		d->link.alone = false;
	}
	if (signals >= 0)
		close(signals);
	if (ret) {
		vfu_device_free(d);
		return ret;
	}
	loop_post(&vm->loop, &d->start_work);
	return 0;
}
