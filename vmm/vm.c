/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * main() builds the machine, starts the loop's thread and one for each further vCPU, and becomes the first vCPU:
 * between the last preparation and the first guest instruction there is one system call. vm_request.c has what ends,
 * resets or pauses the guest.
 */
#include "vmm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "arch/x86/firmware.h"
#include "arch/x86/hyperv/hyperv.h"
#include "arch/x86/msr.h"
#include "arch/x86/x86.h"
#include "devices/legacy/uart.h"
#include "devices/registry.h"
#include "vmm/console.h"
#include "vmm/control.h"
#include "vmm/control_commands.h"
#include "vmm/device.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/stats.h"
#include "vmm/terminal.h"
#include "vmm/trace.h"
#include "vmm/vcpu.h"
#include "vmm/vm_request.h"

#define TICK_NS	     50000000ULL
#define PARK_KILL_NS 800000000ULL /* PARK_NS when a person or a supervisor wants the end at once */

uint64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

void vm_power_button(struct vm *vm)
{
	TRACE(vm_event, "power button");
	/* The list begins with the device created last: a service in the guest goes before the button of the board. */
	for (struct device *d = vm->devices; d; d = d->next)
		if (d->class->power_button && d->class->power_button(d))
			return;
}

void vm_post_code(struct vm *vm, uint8_t code)
{
	unsigned int at = atomic_fetch_add(&vm->post_count, 1);

	TRACE(post_code, "code 0x%02x", (unsigned int)code);
	if (at < POST_MARKS) {
		vm->post[at].code = code;
		atomic_store_explicit(&vm->post[at].ns, clock_ns() - vm->start_ns, memory_order_release);
	}
}

void device_register(struct vm *vm, struct device *dev, const struct device_class *class)
{
	dev->class = class;
	dev->vm = vm;
	dev->next = vm->devices;
	vm->devices = dev;
}

/* Coalesced writes wait in KVM's ring until somebody looks; a polling driver gives no other occasion. */
static void tick(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct vm *vm = vm_from_member(op, tick_op);

	(void)res;
	(void)cqe_flags;
	atomic_store(&vm->ticking, false);
	coalesce_drain(&vm->coalesce);
	if (vm->uart && uart_wants_tick(vm->uart))
		vm_want_tick(vm);
}

static void arm_tick(struct loop_work *work)
{
	struct vm *vm = vm_from_member(work, tick_work);

	loop_timer(&vm->loop, &vm->tick_op, &vm->tick_ts, TICK_NS);
}

void vm_want_tick(struct vm *vm)
{
	if (!atomic_exchange(&vm->ticking, true))
		loop_post(&vm->loop, &vm->tick_work);
}

static void timed_out(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct vm *vm = vm_from_member(op, timeout_op);

	(void)cqe_flags;
	if (res != -ETIME)
		return;
	log_line("--timeout: the guest was still running after %.10g s", (double)vm->config->timeout_ns / 1e9);
	vm_exit(vm, STATUS_TIMEOUT);
}

static void end_by_signal(struct vm *vm, int sig)
{
	if (vm_end(vm, STATUS_OK))
		vm->end_signal = sig;
}

static void arm_signals(struct vm *vm)
{
	struct io_uring_sqe *sqe = loop_sqe(&vm->loop, &vm->signal_op);

	io_uring_prep_read(sqe, vm->signal_fd, vm->signal_info, sizeof(*vm->signal_info), 0);
}

static void got_signal(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct vm *vm = vm_from_member(op, signal_op);
	int sig = res == (int)sizeof(*vm->signal_info) ? (int)vm->signal_info->ssi_signo : 0;

	(void)cqe_flags;
	if (res == -ECANCELED)
		return;
	if (sig == SIGTERM && vm->terminations++ == 0) {
		log_line("SIGTERM: asking the guest to shut down; a second one ends vmm at once");
		/* A paused guest could not do so. */
		vm_resume(vm);
		vm_power_button(vm);
	} else if (sig) {
		end_by_signal(vm, sig);
	}
	arm_signals(vm);
}

/* No thread is to be interrupted by these: the loop reads them. SIGPIPE is never told of; writes return EPIPE. */
static void block_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	sigaddset(set, SIGPIPE);
	sigprocmask(SIG_BLOCK, set, NULL);
	sigdelset(set, SIGPIPE);
}

static int open_signals(struct vm *vm)
{
	vm->signal_info = calloc(1, sizeof(*vm->signal_info));
	vm->signal_fd = signalfd(-1, &vm->signals, SFD_CLOEXEC);
	if (vm->signal_fd < 0 || !vm->signal_info) {
		int ret = -errno;

		log_line("signalfd: %s", strerror(-ret));
		return ret;
	}
	vm->signal_op.fn = got_signal;
	arm_signals(vm);
	return 0;
}

static int open_kvm(struct vm *vm)
{
	vm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	/* Usually the first file opened: a low number tells that standard descriptors were closed. */
	if (vm->kvm_fd >= 0 && vm->kvm_fd <= STDERR_FILENO) {
		close(vm->kvm_fd);
		terminal_fill_descriptors();
		vm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	}
	if (vm->kvm_fd < 0) {
		int ret = -errno;

		log_line("/dev/kvm: %s%s", strerror(-ret),
			 ret == -ENOENT ? ": load the kernel module kvm_intel or kvm_amd, or enable virtualization in "
					  "the firmware"
			 : ret == -EACCES ? ": add yourself to the group kvm"
					  : "");
		return ret;
	}
	vm->fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0UL);
	if (vm->fd < 0) {
		int ret = -errno;

		log_line("/dev/kvm: KVM_CREATE_VM: %s", strerror(-ret));
		return ret;
	}
	return 0;
}

/* The platform inside KVM: local APICs, and the pages Intel's real mode needs. */
static int create_platform(struct vm *vm)
{
	__u64 identity = IDENTITY_BASE;
	int ret;

	if (!x86_host_is_amd() && (ioctl(vm->fd, KVM_SET_TSS_ADDR, (unsigned long)TSS_BASE) < 0 ||
				   ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0)) {
		log_line("/dev/kvm: setting KVM's own pages: %s", strerror(errno));
		return -errno;
	}
	ret = irqs_enable_apics(vm->fd);
	if (ret)
		log_line("/dev/kvm: KVM_CAP_SPLIT_IRQCHIP: %s", strerror(-ret));
	return ret;
}

static int create_vcpus(struct vm *vm)
{
	int ret = 0;

	vm->cpuid = x86_read_cpuid(vm);
	vm->vcpus = calloc(vm->config->cpus, sizeof(*vm->vcpus));
	if (!vm->cpuid || !vm->vcpus)
		return -ENOMEM;
	for (unsigned int i = 0; i < vm->config->cpus && !ret; i++) {
		vm->vcpus[i].fd = -1;
		vm->nr_vcpus = i + 1;
		ret = vcpu_create(&vm->vcpus[i], vm, i);
		if (!ret && vm->hyperv)
			ret = hv_add_vcpu(vm->hyperv, &vm->vcpus[i]);
		if (!ret)
			ret = x86_set_cpuid(&vm->vcpus[i], vm->cpuid);
	}
	if (!ret)
		coalesce_attach(&vm->coalesce, (char *)vm->vcpus[0].run + KVM_COALESCED_MMIO_PAGE_OFFSET * VCPU_PAGE,
				VCPU_PAGE);
	return ret;
}

int vm_create(struct vm *vm, const struct config *config, uint64_t start_ns)
{
	int ret;

	memset(vm, 0, sizeof(*vm));
	vm->config = config;
	vm->start_ns = start_ns;
	vm->kvm_fd = vm->fd = vm->signal_fd = -1;
	vm->memory.fd = -1;
	loop_init(&vm->loop);
	vm->tick_op.fn = tick;
	vm->tick_work.fn = arm_tick;
	vm->timeout_op.fn = timed_out;
	vm->request_work.fn = vm_carry_out;
	pthread_mutex_init(&vm->lock, NULL);
	pthread_cond_init(&vm->changed, NULL);

	ret = open_kvm(vm);
	if (!ret)
		ret = create_platform(vm);
	if (!ret)
		ret = memory_init(&vm->memory, vm->fd, config->memory, config->backing);
	if (!ret && (bus_init(&vm->pio, "pio", 0x10000) || bus_init(&vm->mmio, "mmio", 1ULL << 52) ||
		     irqs_init(&vm->irqs, vm->fd)))
		ret = -ENOMEM;
	if (!ret) {
		coalesce_init(&vm->coalesce, vm->fd, &vm->pio, &vm->mmio);
		block_signals(&vm->signals);
	}
	if (!ret && config->hyperv)
		ret = hv_create(vm, config->synic);
	if (!ret && config->msr != MSR_HOST)
		ret = unknown_msrs_create(vm);
	if (!ret)
		ret = create_vcpus(vm);
	if (!ret) {
		vm->console = console_open(vm, config->serial);
		ret = vm->console ? 0 : -EINVAL;
	}
	if (!ret && config->control)
		ret = control_open(vm);
	if (!ret && config->firmware)
		ret = firmware_load(vm);
	if (!ret && (config->kernel || config->firmware) && !vm->firmware) {
		vm->boot = x86_boot_load(vm, true);
		ret = vm->boot ? 0 : -EIO;
	}
	if (!ret)
		ret = devices_create(vm,
				     !vm->boot || !x86_boot_is_linux(vm->boot) || x86_names_console(config->cmdline));
	if (!ret && vm->boot)
		ret = vm_enter(vm, vm->boot);
	return ret;
}

/* All vCPUs leave; one that hangs in a device access is left to the end of the process. */
static void end_vcpus(struct vm *vm)
{
	bool all;

	atomic_store(&vm->stop, true);
	all = vm_wait_parked(vm, vm->end_signal ? PARK_KILL_NS : PARK_NS);
	pthread_mutex_lock(&vm->lock);
	vm->end = true;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
	if (!all) {
		log_line("a vCPU does not stop; leaving it behind");
		control_close(vm->control);
		console_close(vm->console);
		_exit(atomic_load(&vm->status));
	}
}

static int start_loop(struct vm *vm)
{
	int ret = loop_start(&vm->loop);

	if (ret) {
		log_line("io_uring: %s%s", strerror(-ret),
			 ret == -EPERM ? " (see /proc/sys/kernel/io_uring_disabled)" : "");
		return ret;
	}
	ret = open_signals(vm);
	if (ret)
		return ret;
	uart_start(vm->uart);
	control_start(vm->control);
	if (vm->config->timeout_ns)
		loop_timer(&vm->loop, &vm->timeout_op, &vm->timeout_ts, vm->config->timeout_ns);
	vm_want_tick(vm);
	return 0;
}

static void *loop_main(void *arg)
{
	struct vm *vm = arg;
	int ret = vcpu_install_kick();

	x86_boot_free(vm->boot);
	vm->boot = NULL;
	if (!ret)
		ret = start_loop(vm);
	if (!ret) {
		ret = loop_run(&vm->loop);
		if (ret)
			log_line("io_uring: %s", strerror(-ret));
	}
	if (ret)
		atomic_store(&vm->status, STATUS_HOST_FAILURE);
	end_vcpus(vm);
	return NULL;
}

/* The first vCPU has this thread, the loop a new one: so nothing but the guest's start is left to do here. */
static int run_threads(struct vm *vm)
{
	pthread_t loop_thread;
	int ret = 0;

	vm->vcpus[0].thread = pthread_self();
	vm->vcpus[0].started = true;
	for (unsigned int i = 1; i < vm->nr_vcpus && !ret; i++)
		ret = vcpu_start(&vm->vcpus[i]);
	if (!ret)
		ret = -pthread_create(&loop_thread, NULL, loop_main, vm);
	if (ret) {
		log_line("cannot start all threads: %s", strerror(-ret));
		return ret;
	}
	vcpu_run(&vm->vcpus[0]);
	pthread_join(loop_thread, NULL);
	for (unsigned int i = 1; i < vm->nr_vcpus; i++) {
		pthread_join(vm->vcpus[i].thread, NULL);
		vm->vcpus[i].started = false; /* the last turns of the loop must not kick it */
	}
	return 0;
}

int vm_run(struct vm *vm)
{
	/* Without all its threads there is no machine, and no way to stop those that run but to end. */
	if (run_threads(vm)) {
		control_close(vm->control);
		_exit(STATUS_HOST_FAILURE);
	}
	coalesce_drain(&vm->coalesce);
	vm->end_ns = clock_ns();
	control_close(vm->control);
	console_close(vm->console);
	vm->console = NULL;
	if (vm->config->stats && stats_write(vm, vm->config->stats) && atomic_load(&vm->status) == STATUS_OK)
		atomic_store(&vm->status, STATUS_HOST_FAILURE);
	return atomic_load(&vm->status);
}

void vm_destroy(struct vm *vm)
{
	struct device *next;

	control_close(vm->control);
	if (vm->console)
		console_close(vm->console);
	for (struct device *d = vm->devices; d; d = next) {
		next = d->next;
		if (d->class->destroy)
			d->class->destroy(d);
	}
	for (unsigned int i = 0; i < vm->nr_vcpus; i++)
		vcpu_destroy(&vm->vcpus[i]);
	hv_destroy(vm->hyperv);
	unknown_msrs_free(vm->unknown_msrs);
	firmware_free(vm->firmware);
	free(vm->vcpus);
	free(vm->cpuid);
	control_destroy(vm->control);
	loop_destroy(&vm->loop);
	x86_boot_free(vm->boot);
	irqs_destroy(&vm->irqs);
	bus_destroy(&vm->pio);
	bus_destroy(&vm->mmio);
	memory_destroy(&vm->memory);
	if (vm->signal_fd >= 0)
		close(vm->signal_fd);
	free(vm->signal_info);
	if (vm->fd >= 0)
		close(vm->fd);
	if (vm->kvm_fd >= 0)
		close(vm->kvm_fd);
}
