/* SPDX-License-Identifier: MIT */
/*
 * ring0speed - how fast does this machine's /dev/kvm run a guest's ring 0?
 *
 * A nested or software KVM can be complete and yet interpret kernel code, a hundred times too slow for a
 * stock kernel. No capability tells, so measure: a two-instruction loop in 32-bit protected mode, for at most
 * LIMIT_MS.
 *
 *	ring0speed [DEVICE]
 *
 * Prints one line. Exit status: 0 fast enough for a stock kernel, 1 too slow or no usable KVM.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

#define GUEST_SIZE	      0x10000
#define CODE_GPA	      0x1000
#define TSS_GPA		      0xfffbd000
#define LOOPS		      200000000u
#define INSTRUCTIONS_PER_LOOP 2
#define LIMIT_MS	      150
/* Interpreters reach a few million a second; hardware, and an emulated CPU with its own translator, hundreds
 * of millions. */
#define FAST_ENOUGH 20e6

static void on_alarm(int sig)
{
	(void)sig; /* KVM_RUN returns EINTR, which is all that is wanted */
}

static int fail(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	return 1;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* A guest of one page of code: dec %ecx; jnz back; hlt. Returns the vCPU or -1. */
static int make_guest(int kvm, const char **what)
{
	static const uint8_t code[] = { 0x49, 0x75, 0xfd, 0xf4 };
	struct kvm_userspace_memory_region region = { .memory_size = GUEST_SIZE };
	uint8_t *ram;
	int vm, vcpu;

	*what = "KVM_CREATE_VM";
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		return -1;
	/* Intel CPUs of old need it; nobody else minds. */
	ioctl(vm, KVM_SET_TSS_ADDR, TSS_GPA);
	*what = "guest memory";
	ram = mmap(NULL, GUEST_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ram == MAP_FAILED)
		return -1;
	memcpy(ram + CODE_GPA, code, sizeof(code));
	region.userspace_addr = (uintptr_t)ram;
	*what = "KVM_SET_USER_MEMORY_REGION";
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return -1;
	*what = "KVM_CREATE_VCPU";
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	return vcpu;
}

/* Flat 32-bit segments: real mode is a special case on some CPUs. */
static int set_registers(int vcpu)
{
	struct kvm_regs regs = { .rip = CODE_GPA, .rflags = 2, .rcx = LOOPS };
	struct kvm_segment flat = { .limit = 0xffffffff, .present = 1, .s = 1, .db = 1, .g = 1 };
	struct kvm_sregs sregs;

	if (ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
		return -1;
	flat.type = 0xb;
	flat.selector = 8;
	sregs.cs = flat;
	flat.type = 0x3;
	flat.selector = 16;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat;
	sregs.cr0 |= 1;
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0)
		return -1;
	return ioctl(vcpu, KVM_SET_REGS, &regs);
}

int main(int argc, char **argv)
{
	const char *device = argc > 1 ? argv[1] : "/dev/kvm";
	struct itimerval limit = { .it_value.tv_usec = LIMIT_MS * 1000 };
	struct sigaction action = { .sa_handler = on_alarm };
	struct kvm_regs regs;
	const char *what;
	double start, rate;
	int kvm, vcpu;

	kvm = open(device, O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		return fail(device);
	vcpu = make_guest(kvm, &what);
	if (vcpu < 0)
		return fail(what);
	if (set_registers(vcpu) < 0)
		return fail("KVM_SET_SREGS");

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &limit, NULL);
	start = seconds();
	if (ioctl(vcpu, KVM_RUN, 0) < 0 && errno != EINTR)
		return fail("KVM_RUN");
	start = seconds() - start;

	if (ioctl(vcpu, KVM_GET_REGS, &regs) < 0)
		return fail("KVM_GET_REGS");
	rate = (double)(LOOPS - (uint32_t)regs.rcx) * INSTRUCTIONS_PER_LOOP / start;
	printf("guest ring 0 runs %.1f million instructions a second, %s\n", rate / 1e6,
	       rate >= FAST_ENOUGH ? "fast enough for a stock kernel" : "too slow for a stock kernel");
	return rate < FAST_ENOUGH;
}
