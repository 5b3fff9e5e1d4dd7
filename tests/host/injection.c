/* SPDX-License-Identifier: MIT */
/*
 * A library for the emulator's LD_PRELOAD, against a fault of its VMRUN (docs/testing.md): target/i386 of QEMU 7.2
 * delivers the interrupt that the hypervisor injects, but leaves its number in the CPU's exception_index, as if it were
 * still to be delivered. If the emulator is asked to leave its loop before anything else is delivered, it does so once
 * more, whether interrupts are enabled or not: a handler is interrupted by itself, and waits for its own lock.
 *
 * So the number is not put there to begin with: in the program's code,
 *	mov %esi, exception_index(%rbx); movl $0, exception_is_int(%rbx); movq $-1, exception_next_eip(%rbx)
 * becomes
 *	movl $-1, exception_index(%rbx); a nop; the same movq
 * Nothing reads exception_is_int unless an exception is to be delivered, and whoever asks for that sets it. A program
 * without this code, or with it in more than one place, is left as it is.
 */
#define _GNU_SOURCE
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define FOUND_SIZE   27
#define REPLACED     16
#define PAGE_OFFSETS 0xfffUL

static bool is_injection(const uint8_t *at)
{
	static const uint8_t no_int[] = { 0, 0, 0, 0 }, no_eip[] = { 0xff, 0xff, 0xff, 0xff };
	int32_t is_int, next_eip;

	if (at[0] != 0x89 || at[1] != 0xb3 || at[6] != 0xc7 || at[7] != 0x83 || memcmp(at + 12, no_int, 4) ||
	    at[16] != 0x48 || at[17] != 0xc7 || at[18] != 0x83 || memcmp(at + 23, no_eip, 4))
		return false;
	memcpy(&is_int, at + 8, 4);
	memcpy(&next_eip, at + 19, 4);
	return next_eip == is_int + 4;
}

/* The only place in the program's code; NULL if there is none, or more. */
static uint8_t *find(const struct dl_phdr_info *program)
{
	uint8_t *found = NULL;

	for (int i = 0; i < program->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &program->dlpi_phdr[i];
		uint8_t *at = (uint8_t *)(program->dlpi_addr + segment->p_vaddr);

		if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X))
			continue;
		for (uint8_t *end = at + segment->p_memsz - FOUND_SIZE; at <= end; at++) {
			if (!is_injection(at))
				continue;
			if (found)
				return NULL;
			found = at;
		}
	}
	return found;
}

static int mend(struct dl_phdr_info *program, size_t size, void *unused)
{
	static const uint8_t nop[] = { 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00 };
	uint8_t code[REPLACED] = { 0xc7, 0x83, [6] = 0xff, 0xff, 0xff, 0xff };
	uint8_t *at = find(program);
	void *page = (void *)((uintptr_t)at & ~PAGE_OFFSETS);
	size_t length = ((uintptr_t)at & PAGE_OFFSETS) + REPLACED;

	(void)size;
	(void)unused;
	if (!at || mprotect(page, length, PROT_READ | PROT_WRITE | PROT_EXEC))
		return 1;
	memcpy(code + 2, at + 2, 4);
	memcpy(code + 10, nop, sizeof(nop));
	memcpy(at, code, REPLACED);
	mprotect(page, length, PROT_READ | PROT_EXEC);
	return 1; /* the first is the program itself */
}

__attribute__((constructor)) static void begin(void)
{
	dl_iterate_phdr(mend, NULL);
}
