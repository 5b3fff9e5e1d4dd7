/* SPDX-License-Identifier: MIT */
/* Ports for tests: POST codes and the end of the run. */
#ifndef DEVICES_LEGACY_DEBUG_H
#define DEVICES_LEGACY_DEBUG_H

struct vm;

#define DEBUG_POST_PORT 0x80 /* a byte is recorded with its time; reads give the last one */
#define DEBUG_EXIT_PORT 0xf4 /* a byte ends the run with that exit status */

/* Returns 0 or -errno, told in one line. The machine owns the device. */
int debug_create(struct vm *vm);

#endif
