/* SPDX-License-Identifier: MIT */
/*
 * What the integration services that take orders (KVP, VSS, file copy) have in common: how they tell that an order is
 * done, a queue of orders, and sentences for the guest's status codes.
 */
#ifndef DEVICES_VMBUS_IC_ORDER_H
#define DEVICES_VMBUS_IC_ORDER_H

#include <stddef.h>
#include <stdint.h>

struct ic;
struct vm;

/*
 * Called exactly once for each order, on the loop thread, perhaps before the function that took the order returns.
 * error: 0 or -errno. text: what was asked for ("" if nothing was), or one sentence that says what went wrong; valid
 * during the call. May give new orders. What opaque points to must live until then: orders end by an answer, by a
 * timeout, when the guest closes the channel or is reset, and when the device is destroyed.
 */
typedef void ic_order_fn(void *opaque, int error, const char *text);

/* Guests give up on their own daemons after 30 s (Linux HV_UTIL_TIMEOUT) and answer with a failure; wait for that. */
#define IC_ORDER_TIMEOUT (35ULL * 1000000000)

#define IC_TEXT_MAX 256

struct ic_order_head {
	struct ic_order_head *next;
	ic_order_fn *done;
	void *opaque;
};

/* First in, first out. All zero is an empty one. */
struct ic_orders {
	struct ic_order_head *first, *last;
	unsigned int count;
};
void ic_orders_add(struct ic_orders *orders, struct ic_order_head *order);
struct ic_order_head *ic_orders_take(struct ic_orders *orders); /* NULL: empty */

/* Calls done with a sentence. */
void ic_order_fail(ic_order_fn *done, void *opaque, int error, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* The service of this name if it is up; otherwise NULL, and the order has been failed. */
struct ic *ic_order_target(const struct vm *vm, const char *name, ic_order_fn *done, void *opaque);

/*
 * What an answer (ic_done) or a failure of ic_request() means for an order: 0 or -errno, and then a sentence in
 * text[IC_TEXT_MAX], else "". The status codes are those of Linux uapi/linux/hyperv.h and of Windows' file functions.
 */
int ic_order_result(int error, uint32_t status, char *text);

#endif
