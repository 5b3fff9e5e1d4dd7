/* SPDX-License-Identifier: MIT */
/*
 * A library for the emulator's LD_PRELOAD, against two faults of QEMU 7.2's interrupts in nested guests
 * (docs/testing.md, target/i386). It changes the program's code; where that is not found, or in more than one place, it
 *is left as it is.
 *
 * VMRUN delivers the interrupt that the hypervisor injects, but leaves its number in the CPU's exception_index, as if
 * it were still to be delivered. If the emulator is asked to leave its loop before anything else is delivered, it does
 * so once more, whether interrupts are enabled or not: a handler is interrupted by itself, and waits for its own lock.
 * So the number is not put there to begin with:
 *	mov %esi, exception_index(%rbx); movl $0, exception_is_int(%rbx); movq $-1, exception_next_eip(%rbx)
 * becomes
 *	movl $-1, exception_index(%rbx); a nop; the same movq
 * Nothing reads exception_is_int unless an exception is to be delivered, and whoever asks for that sets it.
 *
 * An interrupt of the host's that comes between a guest's STI and the instruction behind it is an exit, which is right;
 * but the next VMRUN does not know any more that interrupts have to wait for that instruction. One that the hypervisor
 * wants to inject is delivered before it. If it is HLT, that sleeps on what has been before. So the host's interrupt
 * waits for that instruction, too, as it does outside of a guest:
 *	and $0xa, %esi; cmp $0xa, %esi; je take; test $8, %cl; jne no; testb $2, eflags+1(%rax); je no;
 *	testb $8, hflags(%rax); jne no; take:
 * goes to that last test instead of to take.
 */
#define _GNU_SOURCE
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE_OFFSETS 0xfffUL

/* A place of the program's is changed in its first `changed` bytes. */
struct fault {
	size_t size, changed;
	bool (*is_here)(const uint8_t *at);
	void (*mend)(uint8_t *at);
};

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

static void mend_injection(uint8_t *at)
{
	static const uint8_t nop[] = { 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00 };
	uint8_t code[16] = { 0xc7, 0x83, [6] = 0xff, 0xff, 0xff, 0xff };

	memcpy(code + 2, at + 2, 4);
	memcpy(code + 10, nop, sizeof(nop));
	memcpy(at, code, sizeof(code));
}

/* The jump is the third instruction; behind it come three tests, of which the last is of bit 3 of a byte. */
enum { JUMP = 6, BEHIND_JUMP = 8, TAKE = 31, LAST_TEST = 22 };

static bool is_shadow(const uint8_t *at)
{
	static const uint8_t begin[] = { 0x83, 0xe6, 0x0a, 0x83, 0xfe, 0x0a, 0x74, TAKE - BEHIND_JUMP,
					 0xf6, 0xc1, 0x08, 0x75 };
	static const uint8_t eflags[] = { 0xf6, 0x80 }, hflags[] = { 0xf6, 0x80 };

	return !memcmp(at, begin, sizeof(begin)) && !memcmp(at + 13, eflags, sizeof(eflags)) && at[19] == 2 &&
	       at[20] == 0x74 && !memcmp(at + LAST_TEST, hflags, sizeof(hflags)) && at[28] == 8 && at[29] == 0x75;
}

static void mend_shadow(uint8_t *at)
{
	at[JUMP + 1] = LAST_TEST - BEHIND_JUMP;
}

static const struct fault faults[] = {
	{ 27, 16, is_injection, mend_injection },
	{ 31, BEHIND_JUMP, is_shadow, mend_shadow },
};

/* The only place in the program's code; NULL if there is none, or more. */
static uint8_t *find(const struct dl_phdr_info *program, const struct fault *fault)
{
	uint8_t *found = NULL;

	for (int i = 0; i < program->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &program->dlpi_phdr[i];
		uint8_t *at = (uint8_t *)(program->dlpi_addr + segment->p_vaddr);

		if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X))
			continue;
		for (uint8_t *end = at + segment->p_memsz - fault->size; at <= end; at++) {
			if (!fault->is_here(at))
				continue;
			if (found)
				return NULL;
			found = at;
		}
	}
	return found;
}

static void mend(const struct dl_phdr_info *program, const struct fault *fault)
{
	uint8_t *at = find(program, fault);
	void *page = (void *)((uintptr_t)at & ~PAGE_OFFSETS);
	size_t length = ((uintptr_t)at & PAGE_OFFSETS) + fault->changed;

	if (!at || mprotect(page, length, PROT_READ | PROT_WRITE | PROT_EXEC))
		return;
	fault->mend(at);
	mprotect(page, length, PROT_READ | PROT_EXEC);
}

static int mend_all(struct dl_phdr_info *program, size_t size, void *unused)
{
	(void)size;
	(void)unused;
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		mend(program, &faults[i]);
	return 1; /* the first is the program itself */
}

__attribute__((constructor)) static void begin(void)
{
	dl_iterate_phdr(mend_all, NULL);
}
