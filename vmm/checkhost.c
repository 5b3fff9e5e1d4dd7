/* SPDX-License-Identifier: MIT */
#include "vmm/checkhost.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "vmm/vm.h"

#define LOOPS	    100000u
#define NATIVE_MIPS 50.0 /* interpreters reach a few, processors hundreds */
#define BUDGET_MS   200

static void line(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void line(const char *name, const char *fmt, ...)
{
	va_list ap;

	printf("%-22s ", name);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

/* Runs instructions of guest ring 0 until the budget is spent; the guest leaves by a port every LOOPS rounds. */
static double guest_mips(int vcpu, struct kvm_run *run)
{
	uint64_t start = clock_ns(), now = start, instructions = 0;

	while (now - start < BUDGET_MS * 1000000ULL) {
		if (ioctl(vcpu, KVM_RUN, 0) < 0 || run->exit_reason != KVM_EXIT_IO)
			return -1;
		now = clock_ns();
		instructions += 2ULL * LOOPS;
	}
	return (double)instructions * 1e3 / (double)(now - start);
}

/* Real mode: mov ecx, LOOPS; again: dec ecx; jnz again; out 0x80, al; jmp start. */
static double measure_ring0(int kvm)
{
	static const uint8_t code[] = { 0x66,	     0xb9, LOOPS & 0xff, LOOPS >> 8 & 0xff,
					LOOPS >> 16, 0,	   0x66,	 0x49,
					0x75,	     0xfc, 0xe6,	 0x80,
					0xeb,	     0xf2 };
	const size_t page = 4096;
	struct kvm_userspace_memory_region slot = { .memory_size = page };
	struct kvm_regs regs = { .rflags = 2 };
	struct kvm_sregs sregs;
	double result = -1;
	int run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	int vm = ioctl(kvm, KVM_CREATE_VM, 0UL);
	uint8_t *ram = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int vcpu = -1;

	if (vm >= 0 && ram != MAP_FAILED && run_size > 0) {
		memcpy(ram, code, sizeof(code));
		slot.userspace_addr = (uintptr_t)ram;
		ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000UL);
		ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot);
		vcpu = ioctl(vm, KVM_CREATE_VCPU, 0UL);
	}
	if (vcpu >= 0 && ioctl(vcpu, KVM_GET_SREGS, &sregs) == 0) {
		struct kvm_run *run = mmap(NULL, (size_t)run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);

		sregs.cs.base = 0;
		sregs.cs.selector = 0;
		ioctl(vcpu, KVM_SET_SREGS, &sregs);
		ioctl(vcpu, KVM_SET_REGS, &regs);
		if (run != MAP_FAILED) {
			result = guest_mips(vcpu, run);
			munmap(run, (size_t)run_size);
		}
	}
	if (vcpu >= 0)
		close(vcpu);
	if (vm >= 0)
		close(vm);
	if (ram != MAP_FAILED)
		munmap(ram, page);
	return result;
}

static void report_speed(int kvm)
{
	double mips = measure_ring0(kvm);

	if (mips < 0)
		line("guest ring 0", "does not run a loop in real mode: this KVM is very incomplete");
	else if (mips < NATIVE_MIPS)
		line("guest ring 0",
		     "%.1f million instructions/s: interpreted; small test guests run, a stock kernel takes hours",
		     mips);
	else
		line("guest ring 0", "%.0f million instructions/s: native speed", mips);
}

static void report_cap(int kvm, const char *name, int cap, const char *yes, const char *no)
{
	int value = ioctl(kvm, KVM_CHECK_EXTENSION, cap);

	line(name, "%s", value > 0 ? yes : no);
}

static void report_kvm(int kvm)
{
	line("virtual CPUs", "up to %d", ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS));
	report_cap(kvm, "coalesced ports", KVM_CAP_COALESCED_PIO, "yes: cheap serial output on COM1",
		   "no: each character on COM1 is an exit more");
	report_cap(kvm, "read-only memory", KVM_CAP_READONLY_MEM, "yes: cheap serial output by MMIO",
		   "no: serial registers are read by exits");
	report_cap(kvm, "split irqchip", KVM_CAP_SPLIT_IRQCHIP, "yes",
		   "no: vmm cannot run, it needs LAPICs without a PIC");
	report_cap(kvm, "interrupt eventfds", KVM_CAP_IRQFD, "yes", "no: vmm cannot deliver MSI");
	report_cap(kvm, "doorbell eventfds", KVM_CAP_IOEVENTFD, "yes", "no: each doorbell is an exit to vmm");
	report_cap(kvm, "Hyper-V SynIC", KVM_CAP_HYPERV_SYNIC2, "in the kernel",
		   "not in this kernel (CONFIG_KVM_HYPERV): vmm has to do it");
	report_cap(kvm, "user-space MSRs", KVM_CAP_X86_USER_SPACE_MSR, "yes: a SynIC by vmm is possible",
		   "no: a SynIC by vmm is not possible");
}

static bool report_io_uring(void)
{
	struct io_uring_params params = { 0 };
	struct io_uring ring;
	int ret = io_uring_queue_init_params(4, &ring, &params);

	if (ret < 0) {
		line("io_uring", "not usable: %s; see /proc/sys/kernel/io_uring_disabled and seccomp policies",
		     strerror(-ret));
		return false;
	}
	line("io_uring", "yes (features 0x%x%s)", params.features,
	     params.features & IORING_FEAT_EXT_ARG ? "" : ", too old: Linux 6.1 is needed");
	io_uring_queue_exit(&ring);
	return params.features & IORING_FEAT_EXT_ARG;
}

static void report_file(const char *name, const char *path, const char *hint)
{
	char text[128] = "";
	FILE *f = fopen(path, "re");

	if (!f || !fgets(text, sizeof(text), f)) {
		line(name, "%s is not there%s", path, hint);
	} else {
		text[strcspn(text, "\n")] = '\0';
		line(name, "%s (%s)", text, path);
	}
	if (f)
		fclose(f);
}

int check_host(void)
{
	struct utsname uts;
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	bool usable = false;

	if (uname(&uts) == 0)
		line("kernel", "%s %s (6.1 or later is needed)", uts.release, uts.machine);
	if (kvm < 0) {
		line("/dev/kvm", "%s%s", strerror(errno),
		     errno == EACCES   ? ": add yourself to the group kvm and log in again"
		     : errno == ENOENT ? ": modprobe kvm_intel or kvm_amd; virtualization may be off in the firmware"
				       : "");
	} else {
		usable = ioctl(kvm, KVM_GET_API_VERSION, 0) == KVM_API_VERSION;
		line("/dev/kvm", usable ? "usable" : "speaks an unknown API version");
		usable &= ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_SPLIT_IRQCHIP) > 0 &&
			  ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_SIGNAL_MSI) > 0 &&
			  ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS) > 0;
		report_kvm(kvm);
		report_speed(kvm);
		close(kvm);
	}
	usable &= report_io_uring();
	report_file("transparent huge pages", "/sys/kernel/mm/transparent_hugepage/enabled", ": guests run, slower");
	report_file("reserved huge pages", "/proc/sys/vm/nr_hugepages", "");
	printf("%s\n", usable ? "vmm can run guests here." : "vmm cannot run guests here.");
	return usable ? STATUS_OK : STATUS_HOST_FAILURE;
}
