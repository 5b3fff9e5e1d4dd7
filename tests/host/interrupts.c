/* SPDX-License-Identifier: MIT */
/*
 * A library for the emulator's LD_PRELOAD, against two faults in how target/i386 of QEMU (7.2 to 10.0) passes
 * interrupts on to a nested guest's CPU (docs/testing.md):
 *
 * - When the guest writes CR8 while an interrupt is pending, that interrupt's delivery is asked for without QEMU's big
 *   lock, and an assertion ends the emulator. Here the lock is taken.
 * - At a nested exit the CPU's thread clears one bit of its pending interrupts without the lock, and so at times loses
 *   another that a timer's thread has just set. The local APIC has the interrupt then, and the CPU never looks. Here
 *   every CPU is told a few times a second to look at its APIC.
 *
 * TCG is a module of Debian's QEMU, which calls tcg_handle_interrupt() by way of the dynamic linker: so this one comes
 * first. An emulator that is built in another way does not notice it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CPUS_MAX	   16
#define CPU_INTERRUPT_POLL 0x10 /* "look at the APIC": CPU_INTERRUPT_TGT_EXT_1 of include/exec/cpu-all.h */
#define PERIOD_US	   200000

typedef void handle_interrupt(void *cpu, int mask);

extern bool qemu_mutex_iothread_locked(void) __attribute__((weak));
extern void qemu_mutex_lock_iothread_impl(const char *file, int line) __attribute__((weak));
extern void qemu_mutex_unlock_iothread(void) __attribute__((weak));

void tcg_handle_interrupt(void *cpu, int mask);

static handle_interrupt *real;
static void *_Atomic cpus[CPUS_MAX];

static int find_module(struct dl_phdr_info *info, size_t size, void *found)
{
	(void)size;
	if (!strstr(info->dlpi_name, "/accel-tcg-"))
		return 0;
	*(void **)found = dlopen(info->dlpi_name, RTLD_NOW | RTLD_NOLOAD);
	return 1;
}

static void *keep_awake(void *unused)
{
	(void)unused;
	for (;;) {
		usleep(PERIOD_US);
		for (int i = 0; i < CPUS_MAX; i++) {
			void *cpu = atomic_load(&cpus[i]);

			if (cpu)
				tcg_handle_interrupt(cpu, CPU_INTERRUPT_POLL);
		}
	}
	return NULL;
}

static void begin(void)
{
	void *module = NULL;
	pthread_t thread;

	dl_iterate_phdr(find_module, &module);
	real = module ? (handle_interrupt *)dlsym(module, "tcg_handle_interrupt") : NULL;
	if (!real || pthread_create(&thread, NULL, keep_awake, NULL))
		abort();
}

/* A CPU is known from its first interrupt on, and stays. */
static void remember(void *cpu)
{
	for (int i = 0; i < CPUS_MAX; i++) {
		void *found = NULL;

		if (atomic_compare_exchange_strong(&cpus[i], &found, cpu) || found == cpu)
			return;
	}
}

void tcg_handle_interrupt(void *cpu, int mask)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	bool lock = qemu_mutex_iothread_locked && qemu_mutex_lock_iothread_impl && qemu_mutex_unlock_iothread &&
		    !qemu_mutex_iothread_locked();

	pthread_once(&once, begin);
	remember(cpu);
	if (lock)
		qemu_mutex_lock_iothread_impl(__FILE__, __LINE__);
	real(cpu, mask);
	if (lock)
		qemu_mutex_unlock_iothread();
}
