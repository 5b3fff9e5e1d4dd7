/* SPDX-License-Identifier: MIT */
/*
 * The code a guest calls for a hypercall. On a KVM without Hyper-V of its own, VMCALL would not reach vmm; a port write
 * does, and the handler finds the parameters in the registers that TLFS 3.7 names.
 *
 * HvSignalEvent with its parameter in a register is the hot one. Its connection id goes to a port of its own, where
 * KVM compares it with those of the ioeventfds, and none of it comes to vmm. eax is the only register changed: after
 * the write it is computed from ecx, which still holds the input value, so the result is HV_STATUS_SUCCESS; had nobody
 * claimed the id, vmm has added the status to rcx, which is restored last.
 *
 * ENDBR comes first because Linux turns indirect branch tracking off if the page does without.
 */
#include "arch/x86/hyperv/page.h"

#include <string.h>

#include "arch/x86/hyperv/tlfs.h"

#define INT3 0xcc

static const uint8_t code64[] = {
	0xf3, 0x0f,
	0x1e, 0xfa, /*	   endbr64 */
	0x48, 0x81,
	0xf9, 0x5d,
	0x00, 0x01,
	0x00,	    /*	   cmp $HV_FAST_SIGNAL, %rcx */
	0x75, 0x19, /*	   jne slow */
	0x48, 0x89,
	0xd0, /*	   mov %rdx, %rax */
	0x48, 0xc1,
	0xe8, 0x20,	      /*	   shr $32, %rax */
	0x75, 0x10,	      /*	   jnz slow: a flag number */
	0x89, 0xd0,	      /*	   mov %edx, %eax */
	0xe7, HV_PORT_SIGNAL, /*	   out %eax, $HV_PORT_SIGNAL */
	0x8d, 0x81,
	0xa3, 0xff,
	0xfe, 0xff, /*	   lea -HV_FAST_SIGNAL(%rcx), %eax */
	0xb9, 0x5d,
	0x00, 0x01,
	0x00,			 /*	   mov $HV_FAST_SIGNAL, %ecx */
	0xc3,			 /*	   ret */
	0xe6, HV_PORT_HYPERCALL, /* slow: out %al, $HV_PORT_HYPERCALL */
	0xc3,			 /*	   ret */
};

static const uint8_t code32[] = {
	0xf3, 0x0f,
	0x1e, 0xfb,		 /* endbr32 */
	0xe6, HV_PORT_HYPERCALL, /* out %al, $HV_PORT_HYPERCALL */
	0xc3,			 /* ret */
};

void hv_fill_hypercall_page(uint8_t *page, bool long_mode)
{
	memset(page, INT3, HV_PAGE);
	if (long_mode)
		memcpy(page, code64, sizeof(code64));
	else
		memcpy(page, code32, sizeof(code32));
}
