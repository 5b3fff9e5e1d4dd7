/* SPDX-License-Identifier: MIT */
/*
 * A library for the emulator's LD_PRELOAD, against its rare abort (docs/testing.md): when a nested guest writes CR8
 * while an interrupt is pending, target/i386 of QEMU (7.2 to 10.0) asks for that interrupt's delivery without QEMU's
 * big lock, and an assertion ends it. TCG is a module of Debian's QEMU, which calls tcg_handle_interrupt() by way of
 * the dynamic linker: so this one comes first, and takes the lock. An emulator that is built in another way does not
 * notice it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef void handle_interrupt(void *cpu, int mask);

extern bool qemu_mutex_iothread_locked(void) __attribute__((weak));
extern void qemu_mutex_lock_iothread_impl(const char *file, int line) __attribute__((weak));
extern void qemu_mutex_unlock_iothread(void) __attribute__((weak));

void tcg_handle_interrupt(void *cpu, int mask);

static int find_module(struct dl_phdr_info *info, size_t size, void *found)
{
	(void)size;
	if (!strstr(info->dlpi_name, "/accel-tcg-"))
		return 0;
	*(void **)found = dlopen(info->dlpi_name, RTLD_NOW | RTLD_NOLOAD);
	return 1;
}

static handle_interrupt *real(void)
{
	static handle_interrupt *_Atomic known;
	handle_interrupt *function = atomic_load(&known);
	void *module = NULL;

	if (function)
		return function;
	dl_iterate_phdr(find_module, &module);
	function = module ? (handle_interrupt *)dlsym(module, "tcg_handle_interrupt") : NULL;
	if (!function)
		abort();
	atomic_store(&known, function);
	return function;
}

void tcg_handle_interrupt(void *cpu, int mask)
{
	handle_interrupt *function = real();
	bool lock = qemu_mutex_iothread_locked && qemu_mutex_lock_iothread_impl && qemu_mutex_unlock_iothread &&
		    !qemu_mutex_iothread_locked();

	if (lock)
		qemu_mutex_lock_iothread_impl(__FILE__, __LINE__);
	function(cpu, mask);
	if (lock)
		qemu_mutex_unlock_iothread();
}
