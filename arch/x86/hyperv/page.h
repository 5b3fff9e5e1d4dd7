/* SPDX-License-Identifier: MIT */
/* The hypercall page of the user backend, and the ports its code writes to. */
#ifndef ARCH_X86_HYPERV_PAGE_H
#define ARCH_X86_HYPERV_PAGE_H

#include <stdbool.h>
#include <stdint.h>

/* Ports of one byte's number that no device of a PC has. A write to the second is HvSignalEvent, 4 bytes, the id. */
#define HV_PORT_HYPERCALL 0xe0
#define HV_PORT_SIGNAL	  0xe4

/* rcx of HvSignalEvent in its fast form. */
#define HV_FAST_SIGNAL 0x1005dull

/* Fills the page, for a guest in 64-bit mode or one in 32-bit mode. */
void hv_fill_hypercall_page(uint8_t *page, bool long_mode);

#endif
