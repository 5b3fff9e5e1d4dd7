/* SPDX-License-Identifier: MIT */
/*
 * floor - the least that a signal from a guest and an interrupt back can cost with KVM's own means.
 *
 *	floor [--uring] GUEST ARGUMENTS
 *
 * Theory of operation
 *
 * Runs one of the freestanding guests of tests/guests (an ELF file; ARGUMENTS is its command line) on a bare VM: one
 * vCPU, memory, KVM's local APIC. A write of FLOOR_ID to FLOOR_PORT adds to an eventfd inside KVM (ioeventfd). A thread
 * does nothing but wait for that eventfd and then write another one, which KVM turns into an interrupt (irqfd): by
 * read() that blocks, two system calls a round trip; with --uring by an io_uring with a multishot poll, which is what
 * vmm's loop waits with. Nothing of vmm is in here. The guest's console is its serial port, and its exit status what
 * it writes to the debug exit port.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM_SIZE (16u << 20)

/* tests/guests/bench_signal.c */
#define FLOOR_PORT   0x510
#define FLOOR_ID     0x10002
#define FLOOR_VECTOR 0xf3

#define COM1	    0x3f8
#define UART_LSR    5
#define LSR_IDLE    0x60
#define DEBUG_EXIT  0xf4
#define MSI_ADDRESS 0xfee00000u
#define GSI	    24

/* Where things are in guest memory. */
#define TABLES	    0x1000  /* PML4, PDPT, four page directories: the first 4 GiB at their own addresses */
#define BOOT_PARAMS 0x10000 /* Linux Documentation/arch/x86/zero-page.rst */
#define CMDLINE	    0x11000
#define CMDLINE_MAX 2048
#define STACK	    0x20000

#define BP_CMD_LINE_PTR 0x228
#define PAGE_PRESENT_RW 0x3
#define PAGE_LARGE	0x80

struct floor {
	int kvm, vm, vcpu;
	struct kvm_run *run;
	uint8_t *ram;
	int signal, interrupt; /* eventfds */
	bool uring;
	uint64_t entry;
	char line[256];
	size_t used;
};

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
	va_list arguments;

	fputs("floor: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(1);
}

static int check(int ret, const char *what)
{
	if (ret < 0)
		die("%s: %s", what, strerror(errno));
	return ret;
}

/* The file's segments to where they want to be. */
static void load(struct floor *floor, const char *path)
{
	int fd = check(open(path, O_RDONLY | O_CLOEXEC), path);
	Elf64_Ehdr header;
	Elf64_Phdr segment;

	if (pread(fd, &header, sizeof(header), 0) != sizeof(header) || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
	    header.e_ident[EI_CLASS] != ELFCLASS64)
		die("%s: not a 64-bit ELF file", path);
	for (unsigned int i = 0; i < header.e_phnum; i++) {
		off_t at = (off_t)(header.e_phoff + (uint64_t)i * sizeof(segment));

		if (pread(fd, &segment, sizeof(segment), at) != sizeof(segment))
			die("%s: cut short", path);
		if (segment.p_type != PT_LOAD)
			continue;
		if (segment.p_paddr > RAM_SIZE || segment.p_memsz > RAM_SIZE - segment.p_paddr ||
		    segment.p_filesz > segment.p_memsz)
			die("%s: wants more than %u bytes of memory", path, RAM_SIZE);
		if (pread(fd, floor->ram + segment.p_paddr, segment.p_filesz, (off_t)segment.p_offset) !=
		    (ssize_t)segment.p_filesz)
			die("%s: cut short", path);
	}
	floor->entry = header.e_entry;
	close(fd);
}

static void write_memory(struct floor *floor, const char *arguments)
{
	uint64_t *tables = (uint64_t *)(void *)(floor->ram + TABLES);
	uint32_t cmdline = CMDLINE;
	int khz = ioctl(floor->vcpu, KVM_GET_TSC_KHZ);

	tables[0] = (TABLES + 0x1000) | PAGE_PRESENT_RW;
	for (uint64_t i = 0; i < 4; i++)
		tables[512 + i] = (TABLES + 0x2000 + i * 0x1000) | PAGE_PRESENT_RW;
	for (uint64_t i = 0; i < 4 * 512ull; i++)
		tables[1024 + i] = i << 21 | PAGE_PRESENT_RW | PAGE_LARGE;
	memcpy(floor->ram + BOOT_PARAMS + BP_CMD_LINE_PTR, &cmdline, sizeof(cmdline));
	snprintf((char *)floor->ram + CMDLINE, CMDLINE_MAX, "%s tsc_khz=%d", arguments, khz > 0 ? khz : 0);
}

/* 64-bit mode with paging, as the Linux boot protocol wants it; the guest brings its own descriptor tables. */
static void set_registers(struct floor *floor)
{
	struct kvm_segment code = {
		.limit = 0xffffffff, .selector = 0x10, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1
	};
	struct kvm_segment data = {
		.limit = 0xffffffff, .selector = 0x18, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1
	};
	struct kvm_regs regs = { .rip = floor->entry, .rsp = STACK, .rsi = BOOT_PARAMS, .rflags = 2 };
	struct kvm_sregs sregs;

	check(ioctl(floor->vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cr0 = 0x80050033; /* PG AM WP NE ET MP PE */
	sregs.cr3 = TABLES;
	sregs.cr4 = 0x20;   /* PAE */
	sregs.efer = 0x500; /* LMA LME */
	check(ioctl(floor->vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	check(ioctl(floor->vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

static void set_cpuid(const struct floor *floor)
{
	enum { ENTRIES = 256 };
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + ENTRIES * sizeof(cpuid->entries[0]));

	if (!cpuid)
		die("%s", strerror(ENOMEM));
	cpuid->nent = ENTRIES;
	check(ioctl(floor->kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID");
	check(ioctl(floor->vcpu, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
	free(cpuid);
}

static void create(struct floor *floor)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { GSI } };
	struct kvm_userspace_memory_region slot = { .memory_size = RAM_SIZE };
	int size;

	floor->kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	floor->vm = check(ioctl(floor->kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	check(ioctl(floor->vm, KVM_ENABLE_CAP, &split), "KVM_CAP_SPLIT_IRQCHIP");
	floor->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (floor->ram == MAP_FAILED)
		die("guest memory: %s", strerror(errno));
	slot.userspace_addr = (uint64_t)(uintptr_t)floor->ram;
	check(ioctl(floor->vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");
	floor->vcpu = check(ioctl(floor->vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	size = check(ioctl(floor->kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
	floor->run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, floor->vcpu, 0);
	if (floor->run == MAP_FAILED)
		die("kvm_run: %s", strerror(errno));
	set_cpuid(floor);
}

static void connect_eventfds(struct floor *floor)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entry;
	} routes = { .head.nr = 1,
		     .entry = { .gsi = GSI,
				.type = KVM_IRQ_ROUTING_MSI,
				.u.msi = { .address_lo = MSI_ADDRESS, .data = FLOOR_VECTOR } } };
	struct kvm_ioeventfd ioeventfd = { .datamatch = FLOOR_ID, .addr = FLOOR_PORT, .len = 4 };
	struct kvm_irqfd irqfd = { .gsi = GSI };

	floor->signal = check(eventfd(0, EFD_CLOEXEC), "eventfd");
	floor->interrupt = check(eventfd(0, EFD_CLOEXEC), "eventfd");
	ioeventfd.fd = floor->signal;
	ioeventfd.flags = KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DATAMATCH;
	irqfd.fd = (uint32_t)floor->interrupt;
	check(ioctl(floor->vm, KVM_SET_GSI_ROUTING, &routes), "KVM_SET_GSI_ROUTING");
	check(ioctl(floor->vm, KVM_IOEVENTFD, &ioeventfd), "KVM_IOEVENTFD");
	check(ioctl(floor->vm, KVM_IRQFD, &irqfd), "KVM_IRQFD");
}

static void interrupt(const struct floor *floor)
{
	const uint64_t one = 1;

	if (write(floor->interrupt, &one, sizeof(one)) != sizeof(one))
		die("irqfd: %s", strerror(errno));
}

static void *answer_by_read(void *opaque)
{
	const struct floor *floor = opaque;
	uint64_t count;

	while (read(floor->signal, &count, sizeof(count)) == sizeof(count))
		interrupt(floor);
	die("ioeventfd: %s", strerror(errno));
}

static void *answer_by_uring(void *opaque)
{
	const struct floor *floor = opaque;
	struct io_uring_params params = { 0 };
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	bool armed = false;
	int ret = io_uring_queue_init_params(8, &ring, &params);

	while (ret >= 0) {
		if (!armed)
			io_uring_prep_poll_multishot(io_uring_get_sqe(&ring), floor->signal, POLLIN);
		armed = true;
		ret = io_uring_submit_and_wait(&ring, 1);
		/* measure stops and continues this process. */
		ret = ret == -EINTR ? 0 : ret;
		while (ret >= 0 && io_uring_peek_cqe(&ring, &cqe) == 0) {
			armed = cqe->flags & IORING_CQE_F_MORE;
			ret = cqe->res;
			io_uring_cqe_seen(&ring, cqe);
			if (ret >= 0)
				interrupt(floor);
		}
	}
	die("io_uring: %s", strerror(-ret));
}

static void start_answering(struct floor *floor)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, floor->uring ? answer_by_uring : answer_by_read, floor))
		die("cannot start a thread");
	pthread_detach(thread);
}

static void print(struct floor *floor, uint8_t c)
{
	floor->line[floor->used++] = (char)c;
	if (c != '\n' && floor->used < sizeof(floor->line))
		return;
	if (write(STDOUT_FILENO, floor->line, floor->used) != (ssize_t)floor->used)
		die("standard output: %s", strerror(errno));
	floor->used = 0;
}

static void port_access(struct floor *floor)
{
	const struct kvm_run *run = floor->run;
	uint8_t *data = (uint8_t *)floor->run + run->io.data_offset;

	if (run->io.direction == KVM_EXIT_IO_IN)
		memset(data, run->io.port == COM1 + UART_LSR ? LSR_IDLE : 0xff, (size_t)run->io.size * run->io.count);
	else if (run->io.port == COM1)
		print(floor, *data);
	else if (run->io.port == DEBUG_EXIT)
		exit(*data);
}

int main(int argc, char **argv)
{
	struct floor floor = { .uring = argc > 1 && strcmp(argv[1], "--uring") == 0 };

	if (argc != 3 + floor.uring)
		die("usage: floor [--uring] GUEST ARGUMENTS");
	create(&floor);
	connect_eventfds(&floor);
	load(&floor, argv[argc - 2]);
	write_memory(&floor, argv[argc - 1]);
	set_registers(&floor);
	start_answering(&floor);
	for (;;) {
		if (ioctl(floor.vcpu, KVM_RUN, 0) < 0 && errno != EINTR)
			die("KVM_RUN: %s", strerror(errno));
		if (floor.run->exit_reason == KVM_EXIT_IO)
			port_access(&floor);
		else if (floor.run->exit_reason != KVM_EXIT_INTR)
			die("the guest ended with KVM exit %u", floor.run->exit_reason);
	}
}
