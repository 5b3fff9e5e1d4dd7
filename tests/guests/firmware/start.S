/* SPDX-License-Identifier: MIT */
/* The firmware volume's header, and the way from the reset vector to C: 32-bit protected mode, flat, no paging. */

/* EFI_FIRMWARE_VOLUME_HEADER: length 96 KiB, "_FVH", 72 bytes of header, the checksum that goes with them. */
	.section .header, "a"
	.zero	32
	.quad	0x18000
	.ascii	"_FVH"
	.long	0
	.short	72, 0xf102, 0, 0
	.quad	0
	.quad	0

	.section .start, "ax"
	.code16
start16:
	cli
	lgdtl	%cs:gdt_pointer16
	mov	%cr0, %eax
	or	$1, %eax
	mov	%eax, %cr0
	ljmpl	$8, $start32

	.code32
start32:
	mov	$16, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$0x90000, %esp
	call	fw_main
1:	hlt
	jmp	1b

	.balign	8
gdt:
	.quad	0
	.quad	0x00cf9b000000ffff
	.quad	0x00cf93000000ffff
	.globl	gdt_pointer
gdt_pointer:
	.short	. - gdt - 1
	.long	gdt

	.section .vector, "ax"
	.code16
	jmp	start16
	.balign	16, 0x90
