/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * The guest's accesses to BAR2 are plain memory accesses, and a write of the Doorbell register is answered by KVM: each
 * vector of each peer is an ioeventfd that matches the value written. What comes back to us is rare. A write that KVM
 * does not know (more peers than it should search, ioeventfd=off) is noted by the vCPU and signalled by the loop, since
 * writing an eventfd can wait if a peer wants it to. Interrupts are the eventfds that the server has given us, which
 * become the MSI-X vectors' own; with msi=off the loop polls them and drives INTx (revision 0 of the device).
 *
 * A peer may truncate the shared file. The guest's next access then fails in KVM: as an MMIO exit to BAR2 or as EFAULT
 * of KVM_RUN. We take the memory away and let the guest go on; the device is dead from there on: it reads all ones.
 *
 * Threads: ivshmem->lock guards the registers and the table of peers, which vCPUs and the loop use; everything else
 * that changes belongs to the loop.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#include "devices/ivshmem/internal.h"
#include "devices/pci/msix.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/trace.h"

#define SUBSYSTEM	   0x1100 /* what QEMU gives all its devices */
#define BAR1_MIN	   4096
#define PBA_MIN		   2048
#define DESCRIPTORS_OTHERS 512 /* left to the rest of vmm */

static bool doorbell_kind(const struct ivshmem *d)
{
	return d->options.socket[0];
}

void ivshmem_say(const struct ivshmem *d, const char *text)
{
	const struct ivshmem_options *o = &d->options;

	log_line("--ivshmem %s%s: %s", o->socket[0] ? "socket=" : "path=", o->socket[0] ? o->socket : o->path, text);
}

/* Under lock. */
void ivshmem_update_intx(struct ivshmem *d)
{
	if (!d->options.msi)
		pci_set_intx(&d->fn, (d->status & d->mask) && !atomic_load(&d->dead));
}

/* Under lock. While an interrupt waits to be read, nobody can make us listen for more. */
static void status_changed(struct ivshmem *d)
{
	ivshmem_update_intx(d);
	if (d->intx && !(d->status & 1))
		loop_post(&d->vm->loop, &d->arm_work);
}

static uint32_t get_register(struct ivshmem *d, uint64_t offset)
{
	uint32_t value = 0;

	switch (offset) {
	case IVSHMEM_INTR_MASK:
		return d->mask;
	case IVSHMEM_INTR_STATUS:
		value = d->status;
		d->status = 0;
		if (value)
			status_changed(d);
		return value;
	case IVSHMEM_IV_POSITION:
		return doorbell_kind(d) ? (uint32_t)d->client.protocol.id : 0;
	default: /* the Doorbell is write-only, the rest reserved */
		return 0;
	}
}

static uint64_t registers_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct ivshmem *d = opaque;
	uint32_t value;

	if (size != 4 || offset % 4 || atomic_load(&d->dead))
		return UINT64_MAX;
	pthread_mutex_lock(&d->lock);
	value = get_register(d, offset);
	pthread_mutex_unlock(&d->lock);
	return value;
}

static void registers_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct ivshmem *d = opaque;

	if (size != 4 || offset % 4 || atomic_load(&d->dead))
		return;
	pthread_mutex_lock(&d->lock);
	switch (offset) {
	case IVSHMEM_INTR_MASK:
		d->mask = (uint32_t)value;
		ivshmem_update_intx(d);
		break;
	case IVSHMEM_INTR_STATUS:
		d->status = (uint32_t)value;
		status_changed(d);
		break;
	case IVSHMEM_DOORBELL:
		TRACE(ivshmem_doorbell, "%s peer %u vector %u", d->name, (unsigned int)(value >> 16 & 0xffff),
		      (unsigned int)(value & 0xffff));
		if (doorbell_kind(d) && ivshmem_peers_ring(&d->peers, (uint32_t)value))
			loop_post(&d->vm->loop, &d->ring_work);
		break;
	}
	pthread_mutex_unlock(&d->lock);
}

static const struct io_ops register_ops = { registers_read, registers_write };

/* Under bus->lock. */
static void die(struct ivshmem *d)
{
	if (atomic_exchange(&d->dead, true))
		return;
	ivshmem_say(d, "the shared memory was truncated or cannot be reached: the device is dead");
	pci_bar_lose(&d->fn, 2);
	pthread_mutex_lock(&d->lock);
	ivshmem_update_intx(d);
	pthread_mutex_unlock(&d->lock);
	if (doorbell_kind(d))
		loop_post(&d->vm->loop, &d->die_work);
}

/* An access to BAR2 that came out of KVM; see pci_bar_add_foreign(). */
static void look_after_memory(struct ivshmem *d)
{
	if (atomic_load(&d->dead) || ivshmem_memory_intact(&d->memory))
		return;
	pthread_mutex_lock(&d->fn.bus->lock);
	die(d);
	pthread_mutex_unlock(&d->fn.bus->lock);
}

static uint64_t memory_read(void *opaque, uint64_t offset, unsigned int size)
{
	(void)offset;
	(void)size;
	look_after_memory(opaque);
	return UINT64_MAX;
}

static void memory_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	(void)offset;
	(void)size;
	(void)value;
	look_after_memory(opaque);
}

static const struct io_ops memory_ops = { memory_read, memory_write };

/* A dead device counts, since another vCPU may have met the same fault. */
static bool ivshmem_memory_fault(struct pci_function *fn, bool sure)
{
	struct ivshmem *d = (struct ivshmem *)fn;

	if (sure && !atomic_load(&d->dead) && ivshmem_memory_intact(&d->memory))
		return false;
	die(d);
	return true;
}

static int wire(void *opaque, uint64_t address, uint32_t match, int fd, bool connect)
{
	struct ivshmem *d = opaque;
	struct kvm_ioeventfd e = {
		.datamatch = match,
		.addr = address,
		.len = 4,
		.fd = fd,
		.flags = KVM_IOEVENTFD_FLAG_DATAMATCH | (connect ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN),
	};

	return ioctl(d->vm->fd, KVM_IOEVENTFD, &e) < 0 ? -errno : 0;
}

static void ivshmem_bar_moved(struct pci_function *fn, unsigned int index, uint64_t address)
{
	struct ivshmem *d = (struct ivshmem *)fn;

	if (index || !doorbell_kind(d))
		return;
	pthread_mutex_lock(&d->lock);
	ivshmem_peers_move(&d->peers, address == PCI_UNMAPPED ? IVSHMEM_UNMAPPED : address + IVSHMEM_DOORBELL);
	pthread_mutex_unlock(&d->lock);
}

static void ivshmem_reset(struct pci_function *fn)
{
	struct ivshmem *d = (struct ivshmem *)fn;

	pthread_mutex_lock(&d->lock);
	d->mask = 0;
	d->status = 0;
	status_changed(d);
	pthread_mutex_unlock(&d->lock);
}

static void ivshmem_destroy(struct pci_function *fn)
{
	struct ivshmem *d = (struct ivshmem *)fn;

	ivshmem_events_fini(d);
	ivshmem_memory_close(&d->memory);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

static const struct pci_function_ops ivshmem_ops = {
	.reset = ivshmem_reset,
	.destroy = ivshmem_destroy,
	.bar_moved = ivshmem_bar_moved,
	.memory_fault = ivshmem_memory_fault,
};

/* The table at 0 and the PBA at 2048, as far as they fit there: what guests have seen in QEMU's. */
static int add_msix(struct ivshmem *d)
{
	uint32_t vectors = d->options.vectors, pba = PBA_MIN;
	uint64_t size = BAR1_MIN;
	int ret;

	if (vectors * MSIX_ENTRY_SIZE > PBA_MIN)
		pba = vectors * MSIX_ENTRY_SIZE;
	while (size < pba + (vectors + 63) / 64 * 8)
		size *= 2;
	ret = pci_add_bar(&d->fn, 1, size, PCI_BAR_MEM32);
	return ret ? ret : msix_init(&d->fn, vectors, 1, 0, 1, pba);
}

/* As many descriptors as this process may have: shared among the devices, some left to the rest of vmm. */
static unsigned int descriptors(const struct vm *vm)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 0;
	if (limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	if (limit.rlim_cur > 1 << 24)
		limit.rlim_cur = 1 << 24;
	if (limit.rlim_cur < 2 * DESCRIPTORS_OTHERS)
		return (unsigned int)limit.rlim_cur / 2 / vm->config->nr_ivshmem;
	return (unsigned int)(limit.rlim_cur - DESCRIPTORS_OTHERS) / vm->config->nr_ivshmem;
}

static int connect_server(struct ivshmem *d, char *err, size_t errlen)
{
	int ret = ivshmem_peers_init(&d->peers, descriptors(d->vm));

	if (ret)
		return ret;
	d->peers.wire = d->options.ioeventfd ? wire : NULL;
	ivshmem_events_init(d);
	ret = d->options.msi ? add_msix(d) : ivshmem_add_intx(d);
	if (ret == -ENOSPC)
		snprintf(err, errlen, "vectors=%u: the devices of a machine have %d together", d->options.vectors,
			 IRQ_MAX_ROUTES);
	if (!ret)
		ret = ivshmem_client_connect(&d->client, d->options.socket, &d->vm->loop, &ivshmem_protocol_ops, d,
					     &d->own, d->options.vectors, err, errlen);
	return ret ? ret : ivshmem_memory_adopt(&d->memory, d->memory.fd, err, errlen);
}

static int add_parts(struct ivshmem *d, char *err, size_t errlen)
{
	const struct ivshmem_options *o = &d->options;
	int ret = pci_add_bar(&d->fn, 0, IVSHMEM_REGISTERS, PCI_BAR_MEM32);

	ret = ret ? ret : pci_bar_add_registers(&d->fn, 0, 0, IVSHMEM_REGISTERS, &register_ops, d);
	if (!ret && doorbell_kind(d))
		ret = connect_server(d, err, errlen);
	else if (!ret)
		ret = ivshmem_memory_open(&d->memory, o->path, o->size, o->readonly, err, errlen);
	ret = ret ? ret : pci_add_bar(&d->fn, 2, d->memory.bar, PCI_BAR_MEM64 | PCI_BAR_PREFETCH);
	return ret ? ret
		   : pci_bar_add_foreign(&d->fn, 2, 0, d->memory.length, d->memory.host, d->memory.readonly,
					 &memory_ops, d);
}

int ivshmem_create(struct vm *vm, const struct ivshmem_options *options, unsigned int index)
{
	struct pci_ids ids = { .vendor = IVSHMEM_VENDOR,
			       .device = IVSHMEM_DEVICE,
			       .subsystem_vendor = IVSHMEM_VENDOR,
			       .subsystem = SUBSYSTEM,
			       .class_code = 0x050000, /* RAM */
			       .revision = options->msi ? 1 : 0 };
	struct ivshmem *d = calloc(1, sizeof(*d));
	char err[256] = "";
	int ret;

	if (!d)
		return -ENOMEM;
	d->vm = vm;
	d->options = *options;
	snprintf(d->name, sizeof(d->name), "ivshmem%u", index);
	d->memory.fd = -1;
	d->client.fd = -1;
	pthread_mutex_init(&d->lock, NULL);
	ret = pci_function_init(&d->fn, vm->pci, PCI_DEVFN_AUTO, d->name, &ids, &ivshmem_ops);
	if (!ret) {
		ret = add_parts(d, err, sizeof(err));
		if (ret)
			pci_function_fini(&d->fn);
	}
	if (ret) {
		ivshmem_say(d, err[0] ? err : strerror(-ret));
		ivshmem_destroy(&d->fn);
		return ret;
	}
	if (doorbell_kind(d))
		loop_post(&vm->loop, &d->start_work);
	return 0;
}
