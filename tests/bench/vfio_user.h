/* SPDX-License-Identifier: MIT */
/* The device of tests/bench/vfio_user.c, for it and for its guest, tests/guests/bench_vfio_user.c. */
#ifndef BENCH_VFIO_USER_H
#define BENCH_VFIO_USER_H

#define VFUB_VENDOR 0x7675u
#define VFUB_DEVICE 0x0002u
#define VFUB_MAGIC  0x62667675u
#define VFUB_SIZE   4096u /* of each BAR */

/* BAR0, by messages: words. */
enum {
	VFUB_ID = 0x00,
	VFUB_SCRATCH = 0x04,
	VFUB_ADDRESS = 0x08, /* in guest memory */
	VFUB_FETCH = 0x0c,   /* reading it copies VFUB_CHUNK bytes of guest memory to the server... */
	VFUB_STORE = 0x10,   /* ... and back */
};

#define VFUB_CHUNK 65536u
#define VFUB_BATCH 16u /* writes before a read, in the test "write" */

/* BAR2, mapped: a word that counts what comes by the doorbell, which is the first word of BAR4. */

#endif
