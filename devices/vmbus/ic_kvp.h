/* SPDX-License-Identifier: MIT */
/*
 * The data exchange integration service: named values that host and guest can read and write. Theory of operation in
 * ic_kvp.c. Loop thread only.
 */
#ifndef DEVICES_VMBUS_IC_KVP_H
#define DEVICES_VMBUS_IC_KVP_H

#include <stddef.h>

#include "devices/vmbus/ic_order.h"

struct vm;

/* Who writes a pool; all are kept by the guest. */
enum kvp_pool {
	KVP_POOL_EXTERNAL,	/* the host, for the guest to read: --kvp */
	KVP_POOL_GUEST,		/* the guest's users, for the host to read */
	KVP_POOL_AUTO,		/* the guest's service: addresses, name and version of the OS */
	KVP_POOL_AUTO_EXTERNAL, /* the host, about itself */
	KVP_POOLS,
};

/* Orders that may wait for the one under way; items of a pool that are read. */
#define KVP_QUEUE_MAX 64
#define KVP_ITEMS_MAX 1024

struct kvp_item {
	char *key, *value; /* UTF-8 */
};

/* Puts the device on vm->vmbus; it gives vm->config's items to the guest. 0, or -errno of vmbus_add_device(). */
int ic_kvp_create(struct vm *vm);

/*
 * Reads, writes or deletes an item. Strings are UTF-8 and copied; their room is KVP_KEY_MAX and KVP_VALUE_MAX
 * (vmm/options.h). done's error is 0, and text then the value for kvp_get(); -ENODEV: no such device; -ENOTCONN: the
 * guest does not run the service; -EINVAL: no such pool, an empty key; -EILSEQ: not UTF-8; -ENAMETOOLONG: key or value
 * too long; -EBUSY: KVP_QUEUE_MAX orders wait; -ENOENT: no such item; -EIO: the guest failed or answered nonsense;
 * -ETIMEDOUT; -ECONNRESET: channel closed or machine reset meanwhile; -ENOMEM. Numbers that a guest holds as such are
 * read as decimal text; what is written is text.
 */
void kvp_get(const struct vm *vm, unsigned int pool, const char *key, ic_order_fn *done, void *opaque);
void kvp_set(const struct vm *vm, unsigned int pool, const char *key, const char *value, ic_order_fn *done,
	     void *opaque);
void kvp_delete(const struct vm *vm, unsigned int pool, const char *key, ic_order_fn *done, void *opaque);

/* Like ic_order_fn; items are valid during the call and, on error, none. */
typedef void kvp_list_fn(void *opaque, int error, const char *text, const struct kvp_item *items, size_t count);

/* All items of a pool. Errors as above, and -E2BIG: there are more than KVP_ITEMS_MAX. */
void kvp_list(const struct vm *vm, unsigned int pool, kvp_list_fn *done, void *opaque);

#endif
