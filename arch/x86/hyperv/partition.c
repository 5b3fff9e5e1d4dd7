/* SPDX-License-Identifier: MIT */
/* The partition: what both backends have in common, and the choice between them. */
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "arch/x86/hyperv/internal.h"
#include "vmm/irq.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/trace.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define LAPIC_BASE    0xfee00000u
#define LAPIC_ID_BITS 12

/* NULL after printing what is missing. */
static const struct hv_backend *choose(const struct vm *vm, enum hv_synic synic)
{
	const struct hv_backend *backend = synic == HV_SYNIC_USER ? &hv_backend_user : &hv_backend_kvm;
	const char *missing = backend->missing(vm);

	if (missing && synic == HV_SYNIC_AUTO) {
		backend = &hv_backend_user;
		missing = backend->missing(vm);
	}
	if (!missing)
		return backend;
	log_line("--hyperv synic=%s: this KVM has no %s", backend->name, missing);
	return NULL;
}

int hv_create(struct vm *vm, enum hv_synic synic)
{
	const struct hv_backend *backend = choose(vm, synic);
	struct hv_partition *partition;

	if (!backend)
		return -EOPNOTSUPP;
	partition = calloc(1, sizeof(*partition));
	if (partition)
		partition->vps = calloc(vm->config->cpus, sizeof(*partition->vps));
	if (!partition || !partition->vps) {
		free(partition);
		log_line("--hyperv: %s", strerror(ENOMEM));
		return -ENOMEM;
	}
	partition->vm = vm;
	partition->backend = backend;
	partition->nr_vps = vm->config->cpus;
	hv_clock_init(&partition->clock);
	pthread_mutex_init(&partition->lock, NULL);
	pthread_rwlock_init(&partition->ports_lock, NULL);
	for (unsigned int i = 0; i < partition->nr_vps; i++) {
		partition->vps[i].partition = partition;
		pthread_mutex_init(&partition->vps[i].lock, NULL);
	}
	vm->hyperv = partition;
	return backend->init(partition);
}

void hv_destroy(struct hv_partition *partition)
{
	if (!partition)
		return;
	partition->backend->destroy(partition);
	for (unsigned int i = 0; i < partition->nr_vps; i++)
		pthread_mutex_destroy(&partition->vps[i].lock);
	hv_ports_destroy(partition);
	pthread_rwlock_destroy(&partition->ports_lock);
	pthread_mutex_destroy(&partition->lock);
	hv_clock_destroy(&partition->clock);
	free(partition->vps);
	free(partition);
}

int hv_add_vcpu(struct hv_partition *partition, struct vcpu *vcpu)
{
	struct hv_vp *vp = &partition->vps[vcpu->index];
	int khz;

	if (!partition->tsc_hz) {
		khz = ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0UL);
		partition->tsc_hz = khz > 0 ? (uint64_t)khz * 1000 : 0;
	}
	vp->vcpu = vcpu;
	return partition->backend->add_vcpu(vp);
}

int hv_reset(struct hv_partition *partition)
{
	bool room = false;

	for (unsigned int i = 0; i < partition->nr_vps; i++) {
		struct hv_vp *vp = &partition->vps[i];

		pthread_mutex_lock(&vp->lock);
		for (unsigned int sint = 0; sint < HV_SINTS; sint++)
			hv_queue_clear(&vp->queue[sint]);
		room |= vp->starved;
		vp->starved = vp->ready = 0;
		pthread_mutex_unlock(&vp->lock);
	}
	if (room)
		hv_room(partition);
	return partition->backend->reset(partition);
}

const char *hv_synic_name(const struct hv_partition *partition)
{
	return partition->backend->name;
}

uint64_t hv_reference_time(struct hv_partition *partition)
{
	return partition->backend->reference_time ? partition->backend->reference_time(partition)
						  : hv_clock_read(&partition->clock);
}

void *hv_page(const struct hv_partition *partition, uint64_t value)
{
	return ram_ptr(&partition->vm->memory, value & HV_MSR_PFN, HV_PAGE);
}

void hv_set_room_listener(struct hv_partition *partition, void (*room)(void *opaque), void *opaque)
{
	partition->room = room;
	partition->room_opaque = opaque;
}

void hv_room(struct hv_partition *partition)
{
	if (partition->room)
		partition->room(partition->room_opaque);
}

bool hv_vp_deliver(struct hv_vp *vp, unsigned int sint, bool *room)
{
	if (!vp->message_page || !(vp->scontrol & HV_MSR_ENABLE) || vp->sint[sint] & HV_SINT_MASKED ||
	    !hv_queue_deliver(&vp->queue[sint], &vp->message_page[sint]))
		return false;
	TRACE(hv_message, "vp %u sint %u waiting %u", vp->vcpu->index, sint, vp->queue[sint].count);
	if (vp->starved & 1u << sint) {
		vp->starved &= ~(1u << sint);
		*room = true;
	}
	return true;
}

int hv_post_message(struct hv_partition *partition, unsigned int vp_index, unsigned int sint, uint32_t type,
		    const void *payload, size_t size)
{
	bool put, room = false;
	struct hv_vp *vp;

	if (vp_index >= partition->nr_vps || sint >= HV_SINTS || size > HV_MESSAGE_PAYLOAD)
		return -EINVAL;
	vp = &partition->vps[vp_index];
	pthread_mutex_lock(&vp->lock);
	put = hv_queue_put(&vp->queue[sint], type, payload, size);
	if (put)
		room = partition->backend->deliver(vp, sint);
	else
		vp->starved |= 1u << sint;
	pthread_mutex_unlock(&vp->lock);
	if (room)
		hv_room(partition);
	return put ? 0 : -EAGAIN;
}

/* Where the APIC is disabled the interrupt is lost, as TLFS 11.8 says; the message or flag is not. */
void hv_vp_vector(const struct hv_vp *vp, uint8_t vector)
{
	const struct irq_message message = {
		.address = LAPIC_BASE | vp->vcpu->apic_id << LAPIC_ID_BITS,
		.data = vector,
	};

	if (vector >= HV_SINT_VECTOR_LOWEST)
		irq_send(&vp->partition->vm->irqs, &message);
}

void hv_vp_interrupt(const struct hv_vp *vp, unsigned int sint)
{
	if (!(vp->sint[sint] & HV_SINT_POLLING))
		hv_vp_vector(vp, (uint8_t)(vp->sint[sint] & HV_SINT_VECTOR));
}

/* Event flags are ours alone with either backend, and atomic: any thread sets them. */
bool hv_signal_event(struct hv_partition *partition, unsigned int vp_index, unsigned int sint, unsigned int flag)
{
	struct hv_vp *vp;
	bool ready;

	if (vp_index >= partition->nr_vps || sint >= HV_SINTS || flag >= HV_EVENT_FLAGS)
		return false;
	vp = &partition->vps[vp_index];
	pthread_mutex_lock(&vp->lock);
	ready = vp->event_page && vp->scontrol & HV_MSR_ENABLE && !(vp->sint[sint] & HV_SINT_MASKED);
	if (ready && hv_event_set(vp->event_page, sint, flag))
		hv_vp_interrupt(vp, sint);
	pthread_mutex_unlock(&vp->lock);
	TRACE(hv_event, "vp %u sint %u flag %u set %d", vp_index, sint, flag, (int)ready);
	return ready;
}

struct region *hv_exit_io(struct vcpu *vcpu)
{
	struct hv_partition *partition = vcpu->vm->hyperv;

	return partition->backend->io ? partition->backend->io(&partition->vps[vcpu->index]) : NULL;
}

static struct hv_vp *vp_of(const struct vcpu *vcpu)
{
	return &vcpu->vm->hyperv->vps[vcpu->index];
}

void hv_exit_rdmsr(struct vcpu *vcpu)
{
	vcpu->vm->hyperv->backend->rdmsr(vp_of(vcpu));
	TRACE(hv_msr_read, "vp %u msr 0x%x value 0x%llx fault %u", vcpu->index, vcpu->run->msr.index,
	      (unsigned long long)vcpu->run->msr.data, (unsigned int)vcpu->run->msr.error);
}

void hv_exit_wrmsr(struct vcpu *vcpu)
{
	vcpu->vm->hyperv->backend->wrmsr(vp_of(vcpu));
	TRACE(hv_msr_write, "vp %u msr 0x%x value 0x%llx fault %u", vcpu->index, vcpu->run->msr.index,
	      (unsigned long long)vcpu->run->msr.data, (unsigned int)vcpu->run->msr.error);
}

void hv_exit_hyperv(struct vcpu *vcpu)
{
	vcpu->vm->hyperv->backend->hyperv(vp_of(vcpu));
}

void hv_vcpu_work(struct vcpu *vcpu)
{
	/* Cleared first: what is asked for from here on asks again. */
	if (atomic_exchange(&vcpu->hv_work, false) && vcpu->vm->hyperv->backend->work)
		vcpu->vm->hyperv->backend->work(vp_of(vcpu));
}
