/* SPDX-License-Identifier: MIT */
#include "vmm/vcpu.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arch/x86/hyperv/hyperv.h"
#include "arch/x86/msr.h"
#include "arch/x86/x86.h"
#include "vmm/device.h"
#include "vmm/log.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

#define KICK_SIGNAL SIGUSR1
#define FAULTS_MAX  64 /* EFAULT so often in a row, though memory was given up: something else is wrong */

/* The vCPU of this thread, for the signal handler: kvm_run.immediate_exit closes the race with entering KVM_RUN. */
static _Thread_local struct kvm_run *own_run;

static const char *const exit_names[EXIT_REASONS] = {
	[KVM_EXIT_UNKNOWN] = "unknown",
	[KVM_EXIT_IO] = "io",
	[KVM_EXIT_MMIO] = "mmio",
	[KVM_EXIT_HLT] = "hlt",
	[KVM_EXIT_IRQ_WINDOW_OPEN] = "irq-window",
	[KVM_EXIT_SHUTDOWN] = "shutdown",
	[KVM_EXIT_FAIL_ENTRY] = "fail-entry",
	[KVM_EXIT_INTR] = "intr",
	[KVM_EXIT_INTERNAL_ERROR] = "internal-error",
	[KVM_EXIT_SYSTEM_EVENT] = "system-event",
	[KVM_EXIT_IOAPIC_EOI] = "ioapic-eoi",
	[KVM_EXIT_X86_RDMSR] = "rdmsr",
	[KVM_EXIT_X86_WRMSR] = "wrmsr",
	[KVM_EXIT_HYPERV] = "hyperv",
};

const char *vcpu_exit_name(unsigned int reason)
{
	return reason < EXIT_REASONS ? exit_names[reason] : NULL;
}

/* Single writer: a plain add would do, the atomic type only makes reading it from elsewhere defined. */
static void count(_Atomic uint64_t *counter)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

static void count_region(struct vcpu *vcpu, _Atomic uint64_t *hits, const struct region *region)
{
	count(region ? &hits[region->id] : &vcpu->unclaimed);
}

static void one_port_access(struct vcpu *vcpu, uint16_t port, uint8_t *data, unsigned int size, bool in)
{
	struct bus *bus = &vcpu->vm->pio;
	struct region *region;
	uint32_t value = 0;

	region = in ? bus_read(bus, &vcpu->pio_cache, port, data, size)
		    : bus_write(bus, &vcpu->pio_cache, port, data, size);
	count_region(vcpu, vcpu->pio_hits, region);
	if (!trace_on[TRACE_pio_read] && !trace_on[TRACE_pio_write])
		return;
	memcpy(&value, data, size);
	if (in)
		TRACE(pio_read, "%s port 0x%x size %u value 0x%x", region ? region->name : "-", (unsigned int)port,
		      size, value);
	else
		TRACE(pio_write, "%s port 0x%x size %u value 0x%x", region ? region->name : "-", (unsigned int)port,
		      size, value);
}

static void exit_io(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	const struct region *region = vcpu->vm->hyperv ? hv_exit_io(vcpu) : NULL;

	if (region) {
		count(&vcpu->pio_hits[region->id]);
		return;
	}
	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size)
		one_port_access(vcpu, run->io.port, data, run->io.size, run->io.direction == KVM_EXIT_IO_IN);
}

static void exit_mmio(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	struct bus *bus = &vcpu->vm->mmio;
	struct region *region;
	uint64_t value;

	region = run->mmio.is_write
			 ? bus_write(bus, &vcpu->mmio_cache, run->mmio.phys_addr, run->mmio.data, run->mmio.len)
			 : bus_read(bus, &vcpu->mmio_cache, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
	count_region(vcpu, vcpu->mmio_hits, region);
	memcpy(&value, run->mmio.data, sizeof(value));
	if (run->mmio.is_write)
		TRACE(mmio_write, "%s address 0x%llx size %u value 0x%llx", region ? region->name : "-",
		      (unsigned long long)run->mmio.phys_addr, run->mmio.len, (unsigned long long)value);
	else
		TRACE(mmio_read, "%s address 0x%llx size %u value 0x%llx", region ? region->name : "-",
		      (unsigned long long)run->mmio.phys_addr, run->mmio.len, (unsigned long long)value);
}

static void exit_ioapic_eoi(struct vcpu *vcpu)
{
	irq_eoi(&vcpu->vm->irqs, vcpu->run->eoi.vector);
}

static void exit_nothing(struct vcpu *vcpu)
{
	(void)vcpu;
}

static void crashed(struct vcpu *vcpu, const char *what)
{
	log_line("vCPU %u: %s", vcpu->index, what);
	x86_print_state(vcpu);
	vm_exit(vcpu->vm, STATUS_CRASHED);
}

static void exit_shutdown(struct vcpu *vcpu)
{
	crashed(vcpu, "triple fault: the guest could not handle an exception");
}

static void exit_fail_entry(struct vcpu *vcpu)
{
	char text[128];

	snprintf(text, sizeof(text), "KVM could not enter the guest (hardware reason 0x%llx)",
		 (unsigned long long)vcpu->run->fail_entry.hardware_entry_failure_reason);
	crashed(vcpu, text);
}

static void exit_internal_error(struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;
	char text[256];
	int used;

	used = snprintf(text, sizeof(text), "KVM internal error %u%s", run->internal.suberror,
			run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION ? " (an instruction KVM cannot emulate)"
									       : "");
	for (uint32_t i = 0; i < run->internal.ndata && i < 4; i++)
		used += snprintf(text + used, sizeof(text) - (size_t)used, " 0x%llx",
				 (unsigned long long)run->internal.data[i]);
	crashed(vcpu, text);
}

static void exit_system_event(struct vcpu *vcpu)
{
	switch (vcpu->run->system_event.type) {
	case KVM_SYSTEM_EVENT_RESET:
		vm_reset(vcpu->vm);
		break;
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		vm_poweroff(vcpu->vm);
		break;
	default:
		crashed(vcpu, "KVM reports a crash of the guest");
	}
}

static void (*const exit_handlers[EXIT_REASONS])(struct vcpu *) = {
	[KVM_EXIT_IO] = exit_io,
	[KVM_EXIT_MMIO] = exit_mmio,
	[KVM_EXIT_INTR] = exit_nothing,
	[KVM_EXIT_IRQ_WINDOW_OPEN] = exit_nothing,
	[KVM_EXIT_SHUTDOWN] = exit_shutdown,
	[KVM_EXIT_FAIL_ENTRY] = exit_fail_entry,
	[KVM_EXIT_INTERNAL_ERROR] = exit_internal_error,
	[KVM_EXIT_SYSTEM_EVENT] = exit_system_event,
	[KVM_EXIT_IOAPIC_EOI] = exit_ioapic_eoi,
	/* Only where the partition or --msr asked for them. */
	[KVM_EXIT_X86_RDMSR] = msr_exit_read,
	[KVM_EXIT_X86_WRMSR] = msr_exit_write,
	[KVM_EXIT_HYPERV] = hv_exit_hyperv,
};

static void handle_exit(struct vcpu *vcpu)
{
	unsigned int reason = vcpu->run->exit_reason;
	char text[64];

	count(&vcpu->exits[reason < EXIT_REASONS ? reason : 0]);
	TRACE(vcpu_exit, "vcpu %u reason %u", vcpu->index, reason);
	if (reason < EXIT_REASONS && exit_handlers[reason]) {
		exit_handlers[reason](vcpu);
		return;
	}
	snprintf(text, sizeof(text), "nobody handles KVM exit %u", reason);
	crashed(vcpu, text);
}

/*
 * KVM finishes a port or MMIO read when it is entered again. Before the machine changes registers (a reset), every
 * vCPU must have done that, or the old read would land in the new state.
 */
static void finish_access(struct vcpu *vcpu)
{
	vcpu->run->immediate_exit = 1;
	while (ioctl(vcpu->fd, KVM_RUN, 0) == 0 &&
	       (vcpu->run->exit_reason == KVM_EXIT_MMIO || vcpu->run->exit_reason == KVM_EXIT_IO))
		exit_handlers[vcpu->run->exit_reason](vcpu);
}

/* Waits while the machine is stopped. false: the thread is to end. */
static bool park(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	bool go_on;

	finish_access(vcpu);
	pthread_mutex_lock(&vm->lock);
	vm->parked++;
	pthread_cond_broadcast(&vm->changed);
	while (atomic_load(&vm->stop) && !vm->end)
		pthread_cond_wait(&vm->changed, &vm->lock);
	vm->parked--;
	go_on = !vm->end;
	pthread_mutex_unlock(&vm->lock);
	return go_on;
}

/* A peer has truncated memory that it shares with the guest: that ends a device, not the machine. */
static bool memory_given_up(const struct vm *vm)
{
	bool any = false;

	for (struct device *d = vm->devices; d; d = d->next)
		if (d->class->memory_fault)
			any |= d->class->memory_fault(d);
	return any;
}

static void run_guest(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	unsigned int faults = 0;

	for (;;) {
		/* Cleared before the flag is read: a kick after that sets it again. */
		vcpu->run->immediate_exit = 0;
		atomic_signal_fence(memory_order_seq_cst);
		if (atomic_load_explicit(&vm->stop, memory_order_acquire) && !park(vcpu))
			return;
		if (atomic_load_explicit(&vcpu->hv_work, memory_order_acquire))
			hv_vcpu_work(vcpu);
		if (ioctl(vcpu->fd, KVM_RUN, 0) < 0) {
			int error = errno; /* what is drained makes system calls of its own */

			coalesce_drain(&vm->coalesce);
			if (error == EINTR || error == EAGAIN) {
				count(&vcpu->interrupted);
				continue;
			}
			if (error == EFAULT && faults++ < FAULTS_MAX && memory_given_up(vm))
				continue;
			log_line("vCPU %u: KVM_RUN: %s", vcpu->index, strerror(error));
			x86_print_state(vcpu);
			vm_exit(vm, STATUS_CRASHED);
			continue;
		}
		faults = 0;
		coalesce_drain(&vm->coalesce);
		handle_exit(vcpu);
	}
}

void vcpu_run(struct vcpu *vcpu)
{
	own_run = vcpu->run;
	if (vcpu->index == 0)
		atomic_store(&vcpu->vm->first_run_ns, clock_ns());
	run_guest(vcpu);
}

static void *thread_main(void *arg)
{
	vcpu_run(arg);
	return NULL;
}

static void kicked(int sig)
{
	(void)sig;
	if (own_run)
		own_run->immediate_exit = 1;
}

int vcpu_install_kick(void)
{
	struct sigaction action = { .sa_handler = kicked };

	return sigaction(KICK_SIGNAL, &action, NULL) < 0 ? -errno : 0;
}

void vcpu_kick_thread(pthread_t thread)
{
	pthread_kill(thread, KICK_SIGNAL);
}

void vcpu_kick(struct vcpu *vcpu)
{
	if (vcpu->started)
		vcpu_kick_thread(vcpu->thread);
}

int vcpu_create(struct vcpu *vcpu, struct vm *vm, unsigned int index)
{
	void *run;

	vcpu->vm = vm;
	vcpu->index = index;
	vcpu->apic_id = index;
	vcpu->pio_hits = calloc(BUS_MAX_REGIONS, sizeof(*vcpu->pio_hits));
	vcpu->mmio_hits = calloc(BUS_MAX_REGIONS, sizeof(*vcpu->mmio_hits));
	if (!vcpu->pio_hits || !vcpu->mmio_hits)
		return -ENOMEM;
	vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)vcpu->apic_id);
	if (vcpu->fd < 0) {
		int ret = -errno;

		log_line("--cpus: KVM_CREATE_VCPU %u: %s", index, strerror(-ret));
		return ret;
	}
	run = mmap(NULL, VCPU_PAGES * VCPU_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (run == MAP_FAILED) {
		int ret = -errno;

		log_line("vCPU %u: mmap of kvm_run: %s", index, strerror(-ret));
		return ret;
	}
	vcpu->run = run;
	return 0;
}

void vcpu_destroy(struct vcpu *vcpu)
{
	if (vcpu->run)
		munmap(vcpu->run, VCPU_PAGES * VCPU_PAGE);
	if (vcpu->fd >= 0)
		close(vcpu->fd);
	free(vcpu->pio_hits);
	free(vcpu->mmio_hits);
}

int vcpu_start(struct vcpu *vcpu)
{
	int ret = pthread_create(&vcpu->thread, NULL, thread_main, vcpu);

	if (ret) {
		log_line("vCPU %u: cannot start a thread: %s", vcpu->index, strerror(ret));
		return -ret;
	}
	vcpu->started = true;
	return 0;
}
