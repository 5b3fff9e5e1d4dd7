/* SPDX-License-Identifier: MIT */
/* What start.S and C share. */
#ifndef RT_LAYOUT_H
#define RT_LAYOUT_H

#define GDT_CODE32 0x08
#define GDT_CODE64 0x10
#define GDT_DATA   0x18
#define GDT_SIZE   0x20

#define AP_START       0x10000 /* free below 1 MiB: see arch/x86/layout.h */
#define AP_STACK_SHIFT 12
#define AP_MAX	       64

#endif
