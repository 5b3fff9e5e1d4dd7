/* SPDX-License-Identifier: MIT */
/*
 * bench-init - the smallest /init that marks the end of a boot.
 *
 * Prints one line on the console the kernel opened for it, then ends the machine as vmm.test= on the
 * kernel command line says: poweroff, halt, wait (sleep until killed), or reboot, also without a word.
 * Everything after the marker comes after the measurement. No libc: its start-up would be part of it.
 *
 *	cc -Os -static -nostdlib -ffreestanding -fno-pie -no-pie -fno-stack-protector
 *	   -fno-asynchronous-unwind-tables -Wl,--build-id=none,-z,noseparate-code -o bench-init bench-init.c
 */
#include <asm/unistd.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <stddef.h>

#define MARKER "vmm-bench: init\n"
#define KEY    "vmm.test="

/* Arguments five and six are always nought: mount(2) reads its options through the fifth. */
static long syscall4(long number, long a, long b, long c, long d)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = 0;
	register long r9 __asm__("r9") = 0;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

static int begins_with(const char *text, const char *prefix)
{
	while (*prefix)
		if (*text++ != *prefix++)
			return 0;
	return 1;
}

/* The value of the last vmm.test= on the command line; "" without. */
static const char *wanted(char *line, size_t size)
{
	const char *value = "";
	long fd, length;

	syscall4(__NR_mkdir, (long)"/proc", 0755, 0, 0);
	syscall4(__NR_mount, (long)"proc", (long)"/proc", (long)"proc", 0);
	fd = syscall4(__NR_open, (long)"/proc/cmdline", O_RDONLY, 0, 0);
	length = fd < 0 ? 0 : syscall4(__NR_read, fd, (long)line, (long)size - 1, 0);
	line[length < 0 ? 0 : length] = '\0';
	for (char *p = line; *p; p++)
		if ((p == line || p[-1] == ' ') && begins_with(p, KEY))
			value = p + sizeof(KEY) - 1;
	return value;
}

static void end_machine(unsigned int command)
{
	syscall4(__NR_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, command, 0);
}

/* The kernel pushes no return address, so the stack is not aligned as the ABI promises a function. */
__attribute__((force_align_arg_pointer)) void _start(void)
{
	char line[4096];
	const char *what;

	syscall4(__NR_write, 1, (long)MARKER, sizeof(MARKER) - 1, 0);
	what = wanted(line, sizeof(line));
	if (begins_with(what, "poweroff"))
		end_machine(LINUX_REBOOT_CMD_POWER_OFF);
	else if (begins_with(what, "halt"))
		end_machine(LINUX_REBOOT_CMD_HALT);
	else if (!begins_with(what, "wait"))
		end_machine(LINUX_REBOOT_CMD_RESTART);
	for (;;)
		syscall4(__NR_pause, 0, 0, 0, 0);
}
