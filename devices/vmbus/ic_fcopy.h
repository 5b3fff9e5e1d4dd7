/* SPDX-License-Identifier: MIT */
/*
 * The guest service interface: copies a file from the host into the guest. Theory of operation in ic_fcopy.c. Loop
 * thread only.
 */
#ifndef DEVICES_VMBUS_IC_FCOPY_H
#define DEVICES_VMBUS_IC_FCOPY_H

#include <stdbool.h>
#include <stdint.h>

#include "devices/vmbus/ic_order.h"

struct vm;

#define FCOPY_OVERWRITE	  1 /* replace the guest's file if there is one */
#define FCOPY_CREATE_PATH 2 /* make the folders that lead to it */

/* Copies that may wait for the one under way. */
#define FCOPY_QUEUE_MAX 16

#define FCOPY_PATH_MAX 259

/* Puts the device on vm->vmbus. 0, or -errno of vmbus_add_device(). */
int ic_fcopy_create(struct vm *vm);

/*
 * Copies the regular file host_path to guest_path: an absolute path of the guest, with the file's name at its end;
 * separators are '/', and in a Windows path ("C:...") '\' too. Path and name may have FCOPY_PATH_MAX bytes of UTF-8
 * each. The strings are copied. done's error is 0 when the guest has the whole file; -ENODEV: no such device;
 * -ENOTCONN: the guest does not run the service; -EINVAL: a bad path or flag, not a regular file; -EILSEQ: not UTF-8;
 * -ENAMETOOLONG; -EBUSY: FCOPY_QUEUE_MAX copies wait; what opening or reading the host's file gave; -ESTALE: it became
 * shorter while it was read; -EEXIST, -ENOSPC, -EIO and more from the guest; -ETIMEDOUT; -ECONNRESET: channel closed
 * or machine reset meanwhile; -ENOMEM. After an error the guest is told to remove what it has of the file.
 */
void fcopy_start(const struct vm *vm, const char *host_path, const char *guest_path, unsigned int flags,
		 ic_order_fn *done, void *opaque);

/* Bytes the guest has taken of the copy under way, and the file's size; false when there is none. */
bool fcopy_progress(const struct vm *vm, uint64_t *copied, uint64_t *size);

#endif
