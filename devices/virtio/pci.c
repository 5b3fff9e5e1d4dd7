/* SPDX-License-Identifier: MIT */
/* The PCI function of a virtio device (virtio 1.2, 4.1). */
#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "devices/pci/msix.h"
#include "devices/virtio/internal.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

#define SUBSYSTEM     0x1100 /* what QEMU gives all its devices */
#define BAR_SIZE      0x4000
#define COMMON_LENGTH 64
#define PBA_OFFSET    0x2000

/* 4.1.4: struct virtio_pci_cap, with what follows it in some. */
enum {
	CAP_TYPE = 3,
	CAP_BAR = 4,
	CAP_ID = 5,
	CAP_OFFSET = 8,
	CAP_LENGTH = 12,
	CAP_EXTRA = 16,
	CAP_EXTRA_HIGH = 20,
};

enum { TYPE_COMMON = 1, TYPE_NOTIFY, TYPE_ISR, TYPE_DEVICE, TYPE_PCI, TYPE_SHM = 8 };

static void notify_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct virtio *v = opaque;
	uint64_t queue = offset / VIRTIO_NOTIFY_STEP;

	(void)size;
	(void)value;
	if (offset % VIRTIO_NOTIFY_STEP || queue >= v->nr_queues)
		return;
	atomic_store(&v->queues[queue].kick_wanted, true);
	loop_post(&v->vm->loop, &v->kick_work);
}

static const struct io_ops notify_ops = { NULL, notify_write };

/* What vCPUs want of the loop: notifications, and the configuration's interrupt. */
static void carry_out(struct loop_work *work)
{
	struct virtio *v = (struct virtio *)((char *)work - offsetof(struct virtio, kick_work));

	for (unsigned int i = 0; i < v->nr_queues; i++)
		if (atomic_exchange(&v->queues[i].kick_wanted, false))
			virtio_kick(v, i);
	if (atomic_exchange(&v->config_wanted, false))
		virtio_interrupt_config(v);
}

static int wire_kick(const struct virtio *v, const struct virtio_queue *q, uint64_t address, bool connect)
{
	/* Any length: a driver may write 16 bits or 32. */
	struct kvm_ioeventfd e = {
		.addr = address,
		.fd = q->kick_fd,
		.flags = connect ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN,
	};

	return ioctl(v->vm->fd, KVM_IOEVENTFD, &e) < 0 ? -errno : 0;
}

/* Where KVM does not take an eventfd, the write comes to notify_write(). */
static void bar_moved(struct pci_function *fn, unsigned int index, uint64_t address)
{
	struct virtio *v = (struct virtio *)fn;

	for (unsigned int i = 0; i < v->nr_queues && !index; i++) {
		struct virtio_queue *q = &v->queues[i];
		uint64_t at = address + VIRTIO_NOTIFY_OFFSET + VIRTIO_NOTIFY_STEP * (uint64_t)i;

		if (q->notify_at != PCI_UNMAPPED)
			wire_kick(v, q, q->notify_at, false);
		q->notify_at = PCI_UNMAPPED;
		if (address != PCI_UNMAPPED && wire_kick(v, q, at, true) == 0)
			q->notify_at = at;
	}
}

/* 4.1.4.9: a window to BAR0 for those who cannot map it, 4 bytes wide. */
static bool pci_window(struct virtio *v, unsigned int reg, unsigned int size, uint64_t *offset, unsigned int *length)
{
	struct pci_function *fn = &v->fn;
	uint32_t bar;

	if (reg != v->cfg_cap + CAP_EXTRA)
		return false;
	pthread_mutex_lock(&fn->bus->lock);
	bar = pci_config_get(fn, v->cfg_cap + CAP_BAR, 1);
	*offset = pci_config_get(fn, v->cfg_cap + CAP_OFFSET, 4);
	*length = pci_config_get(fn, v->cfg_cap + CAP_LENGTH, 4);
	pthread_mutex_unlock(&fn->bus->lock);
	return bar == 0 && *length <= size && (*length == 1 || *length == 2 || *length == 4) &&
	       *offset % *length == 0 && *offset <= BAR_SIZE - *length;
}

static void read_window(const struct region *r, uint64_t offset, unsigned int length, uint32_t *value)
{
	*value = (uint32_t)r->ops->read(r->opaque, offset, length);
	if (length < 4)
		*value &= (1u << 8 * length) - 1;
}

static void config_read(struct pci_function *fn, unsigned int reg, unsigned int size, uint32_t *value)
{
	struct virtio *v = (struct virtio *)fn;
	const struct region *r = &fn->bars[0].region;
	unsigned int length;
	uint64_t offset;

	if (reg < PCI_COMMAND && v->class->looked_for)
		v->class->looked_for(v);
	if (atomic_load(&fn->gone))
		*value = UINT32_MAX;
	else if (pci_window(v, reg, size, &offset, &length))
		read_window(r, offset, length, value);
}

static void config_written(struct pci_function *fn, unsigned int reg, unsigned int size, uint32_t value)
{
	struct virtio *v = (struct virtio *)fn;
	const struct region *r = &fn->bars[0].region;
	unsigned int length;
	uint64_t offset;

	virtio_msix_written(v);
	if (pci_window(v, reg, size, &offset, &length))
		r->ops->write(r->opaque, offset, length, value);
}

static void machine_reset(struct pci_function *fn)
{
	struct virtio *v = (struct virtio *)fn;

	v->class->machine_reset(v);
	virtio_registers_clear(v);
}

static bool memory_fault(struct pci_function *fn, bool sure)
{
	struct virtio *v = (struct virtio *)fn;

	return v->class->memory_fault && v->class->memory_fault(v, sure);
}

static void destroy(struct pci_function *fn)
{
	struct virtio *v = (struct virtio *)fn;

	v->class->destroy(v);
}

static const struct pci_function_ops function_ops = {
	.reset = machine_reset,
	.destroy = destroy,
	.config_read = config_read,
	.config_written = config_written,
	.bar_moved = bar_moved,
	.memory_fault = memory_fault,
};

static int add_capability(struct virtio *v, unsigned int type, unsigned int size, uint32_t offset, uint32_t length)
{
	int cap = pci_add_capability(&v->fn, PCI_CAP_VENDOR, size);

	if (cap < 0)
		return cap;
	pci_config_define(&v->fn, (unsigned int)cap + 2, 1, size, 0, 0);
	pci_config_define(&v->fn, (unsigned int)cap + CAP_TYPE, 1, type, 0, 0);
	pci_config_define(&v->fn, (unsigned int)cap + CAP_OFFSET, 4, offset, 0, 0);
	pci_config_define(&v->fn, (unsigned int)cap + CAP_LENGTH, 4, length, 0, 0);
	return cap;
}

static int add_registers(struct virtio *v, unsigned int type, unsigned int size, uint32_t offset, uint32_t length,
			 const struct io_ops *ops)
{
	int cap = add_capability(v, type, size, offset, length);
	int ret = cap < 0 ? cap : pci_bar_add_registers(&v->fn, 0, offset, length, ops, v);

	return ret ? ret : cap;
}

static int add_window(struct virtio *v)
{
	int cap = add_capability(v, TYPE_PCI, 20, 0, 0);

	if (cap < 0)
		return cap;
	v->cfg_cap = (unsigned int)cap;
	pci_config_define(&v->fn, v->cfg_cap + CAP_BAR, 1, 0, 0xff, 0);
	pci_config_define(&v->fn, v->cfg_cap + CAP_OFFSET, 4, 0, UINT32_MAX, 0);
	pci_config_define(&v->fn, v->cfg_cap + CAP_LENGTH, 4, 0, UINT32_MAX, 0);
	pci_config_define(&v->fn, v->cfg_cap + CAP_EXTRA, 4, 0, UINT32_MAX, 0);
	return 0;
}

/* 4.1.4.7 */
static int add_shm(struct virtio *v, const struct virtio_shm *shm)
{
	int cap = add_capability(v, TYPE_SHM, 24, (uint32_t)shm->offset, (uint32_t)shm->length);

	if (cap < 0)
		return cap;
	pci_config_define(&v->fn, (unsigned int)cap + CAP_BAR, 1, VIRTIO_SHM_BAR, 0, 0);
	pci_config_define(&v->fn, (unsigned int)cap + CAP_ID, 1, shm->id, 0, 0);
	pci_config_define(&v->fn, (unsigned int)cap + CAP_EXTRA, 4, (uint32_t)(shm->offset >> 32), 0, 0);
	pci_config_define(&v->fn, (unsigned int)cap + CAP_EXTRA_HIGH, 4, (uint32_t)(shm->length >> 32), 0, 0);
	return 0;
}

static int add_parts(struct virtio *v, const struct virtio_config *config)
{
	struct pci_function *fn = &v->fn;
	int ret = pci_add_bar(fn, 0, BAR_SIZE, PCI_BAR_MEM32), notify = 0;

	ret = ret ? ret : pci_add_bar(fn, 1, BAR_SIZE, PCI_BAR_MEM32);
	ret = ret ? ret : msix_init(fn, v->nr_queues + 1, 1, 0, 1, PBA_OFFSET);
	if (ret)
		return ret;
	pci_set_pin(fn, 1);
	ret = add_registers(v, TYPE_COMMON, 16, VIRTIO_COMMON_OFFSET, COMMON_LENGTH, &virtio_common_ops);
	if (ret >= 0)
		notify = ret = add_registers(v, TYPE_NOTIFY, 20, VIRTIO_NOTIFY_OFFSET,
					     VIRTIO_NOTIFY_STEP * v->nr_queues, &notify_ops);
	if (ret >= 0)
		pci_config_define(fn, (unsigned int)notify + CAP_EXTRA, 4, VIRTIO_NOTIFY_STEP, 0, 0);
	if (ret >= 0)
		ret = add_registers(v, TYPE_ISR, 16, VIRTIO_ISR_OFFSET, 1, &virtio_isr_ops);
	if (ret >= 0 && v->config_size)
		ret = add_registers(v, TYPE_DEVICE, 16, VIRTIO_DEVICE_OFFSET, v->config_size, &virtio_device_ops);
	ret = ret < 0 ? ret : add_window(v);
	for (unsigned int i = 0; i < config->nr_shm && !ret; i++)
		ret = add_shm(v, &config->shm[i]);
	return ret;
}

static void close_queues(struct virtio *v)
{
	for (unsigned int i = 0; i < v->nr_queues; i++) {
		if (v->queues[i].kick_fd >= 0)
			close(v->queues[i].kick_fd);
		if (v->queues[i].call_fd >= 0)
			close(v->queues[i].call_fd);
	}
	free(v->queues);
	v->queues = NULL;
}

static int open_queues(struct virtio *v)
{
	v->queues = calloc(v->nr_queues, sizeof(*v->queues));
	if (!v->queues)
		return -ENOMEM;
	for (unsigned int i = 0; i < v->nr_queues; i++) {
		v->queues[i].v = v;
		v->queues[i].index = i;
		v->queues[i].kick_fd = v->queues[i].call_fd = -1;
		v->queues[i].notify_at = PCI_UNMAPPED;
		virtio_call_init(&v->queues[i]);
	}
	for (unsigned int i = 0; i < v->nr_queues; i++) {
		struct virtio_queue *q = &v->queues[i];

		q->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		q->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (q->kick_fd < 0 || q->call_fd < 0)
			return -errno;
	}
	return 0;
}

int virtio_init(struct virtio *v, struct vm *vm, const struct virtio_class *class, const struct virtio_config *config)
{
	const struct pci_ids ids = {
		.vendor = VIRTIO_VENDOR,
		.device = (uint16_t)(VIRTIO_DEVICE_BASE + config->id),
		.subsystem_vendor = VIRTIO_VENDOR,
		.subsystem = SUBSYSTEM,
		.class_code = config->class_code,
		.revision = 1, /* 4.1.2.1: not a transitional device */
	};
	int ret;

	if (!config->id || config->id > VIRTIO_ID_MAX || !config->nr_queues || config->nr_queues > VIRTIO_QUEUES_MAX ||
	    config->config_size > VIRTIO_CONFIG_MAX || config->nr_shm > VIRTIO_SHM_MAX)
		return -EINVAL;
	v->vm = vm;
	v->class = class;
	v->nr_queues = config->nr_queues;
	v->queue_max = config->queue_size;
	v->config_size = config->config_size;
	v->features = config->features | VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_RING_RESET);
	v->kick_work.fn = carry_out;
	virtio_signal_init(&v->config_interrupt, v);
	pthread_mutex_init(&v->lock, NULL);
	ret = open_queues(v);
	if (!ret)
		ret = pci_function_init(&v->fn, vm->pci, PCI_DEVFN_AUTO, config->name, &ids, &function_ops);
	if (!ret) {
		ret = add_parts(v, config);
		if (ret)
			pci_function_fini(&v->fn);
	}
	if (ret)
		virtio_fini(v);
	else
		virtio_registers_clear(v);
	return ret;
}

void virtio_fini(struct virtio *v)
{
	if (v->queues)
		close_queues(v);
	pthread_mutex_destroy(&v->lock);
}
