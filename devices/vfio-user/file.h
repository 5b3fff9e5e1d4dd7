/* SPDX-License-Identifier: MIT */
/* What a descriptor is that a server has sent: found out without asking whoever may be behind it. */
#ifndef DEVICES_VFIO_USER_FILE_H
#define DEVICES_VFIO_USER_FILE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The size of a file, in bytes; 0 for what is no regular file, or one that a process may serve (FUSE): that could hold
 * up whoever touches it, for ever and against all signals. Does not wait.
 */
uint64_t vfu_file_size(int fd);

bool vfu_is_eventfd(int fd);

#endif
