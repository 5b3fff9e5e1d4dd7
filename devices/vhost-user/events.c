/* SPDX-License-Identifier: MIT */
/*
 * What the back-end asks, and the guest's accesses to the window that are not plain memory accesses.
 *
 * The window is one memslot, in which there may be no memory, or none that can be written. KVM cannot go on then: it
 * returns EFAULT and does not say from where (or, on some hosts, lets the access out as MMIO). We take the memslot out
 * for a moment. All accesses come out now, and are made by system calls on the window, which know whether there is
 * memory: so those of other vCPUs to what is mapped are right as well, only slow. A guest that stays within what is
 * mapped never gets here.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "devices/vhost-user/internal.h"
#include "vmm/log.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

#define TRAP_NS	   (5 * VHU_MS_NS)
#define CLAIMS_MAX 32u /* fewer than the faults in a row that vmm takes for a breakdown */

static void config_changed(void *opaque)
{
	vhu_config_refresh(opaque);
}

static int vring_call(void *opaque, uint32_t queue)
{
	struct vhu_device *d = opaque;

	if (!d->created || queue >= d->v.nr_queues)
		return -EINVAL;
	virtio_interrupt(&d->v, queue);
	return 0;
}

static int vring_error(void *opaque, uint32_t queue)
{
	struct vhu_device *d = opaque;

	if (!d->created || queue >= d->v.nr_queues)
		return -EINVAL;
	if (d->running && vhu_worth_telling(++d->nr_errors))
		log_line("--vhost-user %s: the back-end reports an error of queue %u", d->options.socket, queue);
	return 0;
}

static int map(void *opaque, const struct vhu_mmap *m, int fd, const char **why)
{
	struct vhu_device *d = opaque;
	int ret;

	TRACE(vhost_user_event, "%s: map shmid %u offset 0x%llx length 0x%llx flags 0x%llx", d->name,
	      (unsigned int)m->shmid, (unsigned long long)m->shm_offset, (unsigned long long)m->length,
	      (unsigned long long)m->flags);
	if (!vhu_has(&d->info, VHU_PF_SHMEM))
		return -EINVAL;
	*why = "there is no such region";
	ret = vhu_window_reserve(d);
	if (!ret)
		ret = d->shmem.host ? vhu_shmem_map(&d->shmem, m, fd, why) : -EINVAL;
	if (!ret)
		atomic_store(&d->idle, false);
	if (atomic_load(&d->shmem.lost))
		loop_post(&d->vm->loop, &d->trap_work);
	return ret;
}

static int unmap(void *opaque, const struct vhu_mmap *m, const char **why)
{
	struct vhu_device *d = opaque;

	TRACE(vhost_user_event, "%s: unmap shmid %u offset 0x%llx length 0x%llx", d->name, (unsigned int)m->shmid,
	      (unsigned long long)m->shm_offset, (unsigned long long)m->length);
	*why = "there is no such region";
	return d->shmem.host ? vhu_shmem_unmap(&d->shmem, m, why) : -EINVAL;
}

/* Whatever else is wrong with it: a back-end that believes to have negotiated it is told. */
static const char *not_negotiated(const struct vhu_info *info)
{
	if ((info->offered >> VHU_PF_GPA_ADDRESSES & 1) && !(info->offered >> VHU_PF_SHMEM & 1))
		return "protocol feature 21 means GPA_ADDRESSES; shared memory is 22: the back-end is older than the "
		       "number";
	return "it is not negotiated";
}

static void refused(void *opaque, bool end, const char *why)
{
	struct vhu_device *d = opaque;

	if (!vhu_has(&d->info, VHU_PF_SHMEM))
		why = not_negotiated(&d->info);
	if (vhu_worth_telling(++d->nr_refused[end]))
		log_line("--vhost-user %s: SHMEM_%s refused: %s", d->options.socket, end ? "UNMAP" : "MAP", why);
}

const struct vhu_backend_ops vhu_backend_ops = { config_changed, vring_call, vring_error, map, unmap, refused };

static uint64_t window_read(void *opaque, uint64_t offset, unsigned int size)
{
	const struct vhu_device *d = opaque;

	return vhu_shmem_read(&d->shmem, offset, size);
}

static void window_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	const struct vhu_device *d = opaque;

	vhu_shmem_write(&d->shmem, offset, size, value);
}

static const struct io_ops window_ops = { window_read, window_write };

/* When it is needed first: a back-end may map as soon as it has said which regions there are. */
int vhu_window_reserve(struct vhu_device *d)
{
	if (d->shmem.host)
		return 0;
	d->shmem = d->info.shmem;
	return vhu_shmem_reserve(&d->shmem);
}

int vhu_window_create(struct vhu_device *d)
{
	uint64_t bar = VHU_PAGE;
	int ret;

	if (!d->shmem.size)
		return 0;
	while (bar < d->shmem.size)
		bar *= 2;
	ret = pci_add_bar(&d->v.fn, VIRTIO_SHM_BAR, bar, PCI_BAR_MEM64 | PCI_BAR_PREFETCH);
	return ret ? ret
		   : pci_bar_add_foreign(&d->v.fn, VIRTIO_SHM_BAR, 0, d->shmem.size, d->shmem.host, false, &window_ops,
					 d);
}

/*
 * Each vCPU may have run into it before the memslot went; a fault beyond those is somebody else's.
 */
bool vhu_memory_fault(struct virtio *v, bool sure)
{
	struct vhu_device *d = (struct vhu_device *)v;
	bool ours, first;

	(void)sure;
	if (!d->shmem.size)
		return false;
	pthread_mutex_lock(&d->trap_lock);
	first = !d->trapped;
	if (first) {
		d->trapped = true;
		d->trap_claims = d->vm->nr_vcpus < CLAIMS_MAX ? d->vm->nr_vcpus : CLAIMS_MAX;
	}
	ours = d->trap_claims > 0;
	if (ours)
		d->trap_claims--;
	pthread_mutex_unlock(&d->trap_lock);
	if (first) {
		pci_bar_lose(&v->fn, VIRTIO_SHM_BAR);
		loop_post(&d->vm->loop, &d->trap_work);
	}
	return ours;
}

/* The other end of it, on the loop: the memslot goes in again, unless the window is not ours alone any more. */
static void trap_over(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct vhu_device *d = (struct vhu_device *)((char *)op - offsetof(struct vhu_device, trap_op));

	(void)cqe_flags;
	if (res == -ECANCELED || atomic_load(&d->shmem.lost))
		return;
	pthread_mutex_lock(&d->v.fn.bus->lock);
	pthread_mutex_lock(&d->trap_lock);
	d->trapped = false;
	pthread_mutex_unlock(&d->trap_lock);
	pci_bar_regain(&d->v.fn, VIRTIO_SHM_BAR);
	pthread_mutex_unlock(&d->v.fn.bus->lock);
}

static void trap_begun(struct loop_work *work)
{
	struct vhu_device *d = (struct vhu_device *)((char *)work - offsetof(struct vhu_device, trap_work));

	if (atomic_load(&d->shmem.lost)) {
		pthread_mutex_lock(&d->v.fn.bus->lock);
		pci_bar_lose(&d->v.fn, VIRTIO_SHM_BAR);
		pthread_mutex_unlock(&d->v.fn.bus->lock);
		return;
	}
	loop_timer(&d->vm->loop, &d->trap_op, &d->trap_ts, TRAP_NS);
}

void vhu_trap_init(struct vhu_device *d)
{
	pthread_mutex_init(&d->trap_lock, NULL);
	d->trap_work.fn = trap_begun;
	d->trap_op.fn = trap_over;
}
