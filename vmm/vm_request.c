/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * Whatever ends or resets the guest, on whichever thread it is noticed, is a request: it sets vm->stop, so that no vCPU
 * enters the guest again, and wakes the loop, which waits until every vCPU is parked and then carries it out. A pause
 * parks the vCPUs the same way, by the loop's own decision.
 */
#include "vmm/vm_request.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "arch/x86/hyperv/hyperv.h"
#include "arch/x86/x86.h"
#include "vmm/device.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/trace.h"
#include "vmm/vcpu.h"

#define POLL_NS 20000000L

/* Returns whether it is this request that counts. */
static bool request(struct vm *vm, int what, int status)
{
	int idle = VM_RUN;

	/* An end overrides a reset that has not been carried out yet; nothing overrides an end. */
	if (!atomic_compare_exchange_strong(&vm->request, &idle, what)) {
		idle = VM_RESET;
		if (what != VM_END || !atomic_compare_exchange_strong(&vm->request, &idle, what))
			return false;
	}
	if (what == VM_END)
		atomic_store(&vm->status, status);
	atomic_store(&vm->stop, true);
	loop_post(&vm->loop, &vm->request_work);
	return true;
}

bool vm_end(struct vm *vm, int status)
{
	return request(vm, VM_END, status);
}

void vm_exit(struct vm *vm, int status)
{
	TRACE(vm_event, "exit status %d", status);
	request(vm, VM_END, status);
}

void vm_poweroff(struct vm *vm)
{
	TRACE(vm_event, "power off");
	request(vm, VM_END, STATUS_OK);
}

void vm_reset(struct vm *vm)
{
	TRACE(vm_event, "reset");
	if (vm->config->no_reboot)
		request(vm, VM_END, STATUS_OK);
	else
		request(vm, VM_RESET, 0);
}

/* Waits until all vCPUs are parked; false if that takes longer than ns. */
bool vm_wait_parked(struct vm *vm, uint64_t ns)
{
	uint64_t deadline = clock_ns() + ns;
	bool all = false;

	while (!all && clock_ns() < deadline) {
		struct timespec until;
		unsigned int running = 0;

		for (unsigned int i = 0; i < vm->nr_vcpus; i++) {
			running += vm->vcpus[i].started;
			vcpu_kick(&vm->vcpus[i]);
		}
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += POLL_NS;
		if (until.tv_nsec >= 1000000000L) {
			until.tv_sec++;
			until.tv_nsec -= 1000000000L;
		}
		pthread_mutex_lock(&vm->lock);
		if (vm->parked < running)
			pthread_cond_timedwait(&vm->changed, &vm->lock, &until);
		all = vm->parked == running;
		pthread_mutex_unlock(&vm->lock);
	}
	return all;
}

static void resume(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	atomic_store(&vm->stop, false);
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
}

int vm_pause(struct vm *vm)
{
	if (vm->paused)
		return 0;
	TRACE(vm_event, "pause");
	vm->paused = true;
	atomic_store(&vm->stop, true);
	if (vm_wait_parked(vm, PARK_NS))
		return 0;
	vm_resume(vm);
	return -ETIMEDOUT;
}

void vm_resume(struct vm *vm)
{
	if (!vm->paused)
		return;
	TRACE(vm_event, "resume");
	vm->paused = false;
	/* A request that a vCPU made on its way out needs them parked; vm_carry_out() lets them go. */
	if (atomic_load(&vm->request) == VM_RUN)
		resume(vm);
	for (struct device *d = vm->devices; d; d = d->next)
		if (d->class->resumed)
			d->class->resumed(d);
}

int vm_enter(struct vm *vm, struct x86_boot *boot)
{
	struct x86_entry entry;
	int ret = x86_boot_finish(boot, &entry);

	if (!ret)
		x86_set_entry(&vm->vcpus[0], &entry);
	return ret;
}

/* All vCPUs are parked. What was written before the reset still takes effect, then everything starts anew. */
static int reset_machine(struct vm *vm)
{
	int ret;

	coalesce_drain(&vm->coalesce);
	for (struct device *d = vm->devices; d; d = d->next)
		if (d->class->reset)
			d->class->reset(d);
	ret = ram_clear(&vm->memory);
	if (ret)
		log_line("reset: clearing memory: %s", strerror(-ret));
	if (!ret)
		ret = x86_reset(vm, vm->cpuid);
	if (!ret && vm->hyperv)
		ret = hv_reset(vm->hyperv);
	if (!ret && !vm->firmware) {
		struct x86_boot *boot = x86_boot_load(vm, true);

		ret = boot ? vm_enter(vm, boot) : -EIO;
		x86_boot_free(boot);
	}
	vm->resets++;
	return ret;
}

void vm_carry_out(struct loop_work *work)
{
	struct vm *vm = vm_from_member(work, request_work);
	int status = STATUS_HOST_FAILURE;

	if (atomic_load(&vm->request) == VM_RESET) {
		bool parked;

		/* Unless a resume has come in between it is so already. */
		atomic_store(&vm->stop, true);
		parked = vm_wait_parked(vm, PARK_NS);
		if (!parked)
			log_line("reset: a vCPU does not stop");
		if (parked && reset_machine(vm) == 0) {
			int reset = VM_RESET;

			/* An end that was asked for meanwhile stays asked for. */
			if (atomic_compare_exchange_strong(&vm->request, &reset, VM_RUN)) {
				if (!vm->paused)
					resume(vm);
				return;
			}
			status = atomic_load(&vm->status);
		}
		atomic_store(&vm->status, status);
		atomic_store(&vm->request, VM_END);
	}
	loop_stop(&vm->loop);
}
