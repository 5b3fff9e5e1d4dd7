/* SPDX-License-Identifier: MIT */
/* The device of tests/servers/vfio-user.c, for it and for the guests that drive it. */
#ifndef VFIO_USER_TEST_H
#define VFIO_USER_TEST_H

#define VFUT_VENDOR 0x7675u
#define VFUT_DEVICE 0x0001u
#define VFUT_MAGIC  0x55667675u

/* BAR0, and the first bytes of it in BAR1. Words. Above VFUT_REGS: bytes that keep what is written. */
enum {
	VFUT_ID = 0x00,
	VFUT_SCRATCH = 0x04,
	VFUT_RESETS = 0x08,
	VFUT_IRQ = 0x0c, /* raises: index << 16 | vector */
	VFUT_DMA_ADDRESS = 0x10,
	VFUT_DMA_COUNT = 0x18,
	VFUT_DMA_GO = 0x1c, /* 1: guest memory to the buffer, 2: back; high half: 1 + vector of MSI-X to raise then */
	VFUT_DMA_STATUS = 0x20, /* an errno */
	VFUT_FILL = 0x24,	/* the buffer with value, value + 1, ... */
	VFUT_SUM = 0x28,	/* of the buffer's first VFUT_DMA_COUNT bytes: sum * 31 + byte */
	VFUT_RINGS = 0x2c,	/* of three doorbells; in the high half: those that came as messages */
	VFUT_POSTED = 0x38,
	VFUT_MULTIS = 0x3c,
	VFUT_READS = 0x40, /* REGION_READs so far */
	VFUT_COMMAND = 0x44,
	VFUT_BAR0 = 0x48,
	VFUT_OFFSET = 0x4c, /* in BAR2, of the next two */
	VFUT_PEEK = 0x50,
	VFUT_POKE = 0x54,
	VFUT_SHADOW = 0x58,
	VFUT_STALL = 0x5c, /* any value: no message is taken from the next one on, until the first doorbell rings */
	VFUT_DIE = 0x60,
	VFUT_REGS = 0x80,
};

#define VFUT_BAR0_SIZE	   0x3000
#define VFUT_BAR1_SIZE	   0x30
#define VFUT_BAR2_SIZE	   0x10000
#define VFUT_AREA1	   0x1000
#define VFUT_AREA1_SIZE	   0x2000
#define VFUT_STALLED	   0x1ff8 /* in BAR2, mapped: 1 once the next message has come, 0 again afterwards */
#define VFUT_AREA2	   0x8000
#define VFUT_AREA2_SIZE	   0x8000
#define VFUT_TABLE	   0x9000
#define VFUT_PBA	   0xa800
#define VFUT_VECTORS	   8 /* of MSI-X, if not told otherwise */
#define VFUT_VECTORS_MAX   256
#define VFUT_BAR4_SIZE	   0x1000
#define VFUT_MATCH	   0x77
#define VFUT_SHADOW_OFFSET 0x40
#define VFUT_ROM_SIZE	   0xc00
#define VFUT_ROM_HEADER	   0x34 /* bytes; then bytes that are their offset times 7 */
#define VFUT_CAP_VENDOR	   0x58

#endif
