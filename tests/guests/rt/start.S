/* SPDX-License-Identifier: MIT */
/*
 * Entries of a test guest: the Linux 64-bit boot protocol (_start, rsi = boot_params), PVH (pvh_start, ebx =
 * hvm_start_info), the start-up vector of the other processors, and the exception and interrupt stubs.
 */
#include "rt/layout.h"

	.code64
	.section .text.entry, "ax"
	.globl _start
_start:
	cli
	cld
	lea	rt_stack_top(%rip), %rsp
	mov	%rsi, rt_boot_params(%rip)
	call	load_tables
	xor	%ebp, %ebp
	call	rt_main
0:	cli
	hlt
	jmp	0b

/* The guest's own GDT and IDT, on any processor. Keeps rdi. */
load_tables:
	lgdt	rt_gdt_pointer(%rip)
	lidt	rt_idt_pointer(%rip)
	mov	$GDT_DATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	pop	%rax
	push	$GDT_CODE64
	push	%rax
	lretq

/* 32-bit protected mode without paging: maps the first 4 GiB onto themselves and goes on in 64-bit mode. */
	.code32
	.globl pvh_start
pvh_start:
	cli
	cld
	mov	%ebx, rt_pvh_info
	mov	$pvh_tables + 0x2000 + 3, %eax
	mov	$pvh_tables + 0x1000, %edi
	movl	$pvh_tables + 0x1000 + 3, pvh_tables
1:	mov	%eax, (%edi)
	add	$0x1000, %eax
	add	$8, %edi
	cmp	$pvh_tables + 0x1000 + 4 * 8, %edi
	jne	1b
	mov	$0x83, %eax
	mov	$pvh_tables + 0x2000, %edi
2:	mov	%eax, (%edi)
	add	$8, %edi
	add	$0x200000, %eax
	jnc	2b
	mov	$pvh_tables, %eax
	mov	%eax, %cr3
	lgdt	rt_gdt_pointer
	mov	$pvh64, %esi

/* Paging on with the tables in cr3, and on in 64-bit mode at esi. Uses no stack: several processors may be here. */
long_mode:
	mov	$0x20, %eax		/* CR4.PAE */
	mov	%eax, %cr4
	mov	$0xc0000080, %ecx	/* EFER */
	rdmsr
	or	$0x100, %eax		/* LME */
	wrmsr
	mov	%cr0, %eax
	or	$0x80000000, %eax	/* PG */
	mov	%eax, %cr0
	ljmp	$GDT_CODE64, $long64
	.code64
long64:
	mov	%esi, %esi
	jmp	*%rsi

	.code64
pvh64:
	lea	rt_stack_top(%rip), %rsp
	call	load_tables
	xor	%ebp, %ebp
	call	rt_main
0:	cli
	hlt
	jmp	0b

/* Copied to AP_START, where a start-up IPI with vector AP_START >> 12 begins in real mode. */
	.code16
	.globl ap_begin, ap_end
ap_begin:
	cli
	cld
	mov	%cs, %ax
	mov	%ax, %ds
	lgdtl	ap_gdt_pointer - ap_begin
	mov	%cr0, %eax
	or	$1, %eax
	mov	%eax, %cr0
	ljmpl	$GDT_CODE32, $AP_START + ap32 - ap_begin
	.code32
ap32:
	mov	$GDT_DATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	rt_ap_cr3, %eax
	mov	%eax, %cr3
	mov	$ap64, %esi
	ljmp	$GDT_CODE32, $long_mode
	.balign 4
ap_gdt_pointer:
	.word	GDT_SIZE - 1
	.long	rt_gdt
ap_end:

	.code64
ap64:
	mov	$1, %eax
	lock xadd %eax, rt_ap_count(%rip)
	mov	%eax, %edi
	inc	%eax
	shl	$AP_STACK_SHIFT, %eax
	lea	rt_ap_stacks(%rip), %rsp
	add	%rax, %rsp
	call	load_tables
	xor	%ebp, %ebp
	call	*rt_ap_entry(%rip)
0:	cli
	hlt
	jmp	0b

/* 256 stubs of 16 bytes: vector and error code (0 where the CPU pushes none) on the stack, then the rest. */
	.text
	.balign 16
	.globl rt_stubs
rt_stubs:
	.set	vector, 0
	.rept	256
	.balign 16
	.if	!(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
	push	$0
	.endif
	push	$vector
	jmp	interrupted
	.set	vector, vector + 1
	.endr

interrupted:
	push	%rax
	push	%rcx
	push	%rdx
	push	%rbx
	push	%rbp
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, %rdi
	cld
	call	rt_interrupted
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rbp
	pop	%rbx
	pop	%rdx
	pop	%rcx
	pop	%rax
	add	$16, %rsp
	iretq

	.section .rodata
	.balign 8
	.globl rt_gdt
rt_gdt:
	.quad	0
	.quad	0x00cf9b000000ffff	/* GDT_CODE32 */
	.quad	0x00af9b000000ffff	/* GDT_CODE64 */
	.quad	0x00cf93000000ffff	/* GDT_DATA */
rt_gdt_pointer:
	.word	GDT_SIZE - 1
	.quad	rt_gdt
	.balign 8
	.globl rt_idt_pointer
rt_idt_pointer:
	.word	256 * 16 - 1
	.quad	rt_idt

	.bss
	.balign 4096
pvh_tables:
	.skip	6 * 4096
	.skip	16384
	.globl rt_stack_top
rt_stack_top:

	.section .note.GNU-stack, "", @progbits
