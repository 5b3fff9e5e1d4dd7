/* SPDX-License-Identifier: MIT */
#include "devices/vmbus/ic_order.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "devices/vmbus/ic.h"

void ic_orders_add(struct ic_orders *orders, struct ic_order_head *order)
{
	order->next = NULL;
	if (orders->last)
		orders->last->next = order;
	else
		orders->first = order;
	orders->last = order;
	orders->count++;
}

struct ic_order_head *ic_orders_take(struct ic_orders *orders)
{
	struct ic_order_head *order = orders->first;

	if (!order)
		return NULL;
	orders->first = order->next;
	if (!orders->first)
		orders->last = NULL;
	orders->count--;
	return order;
}

void ic_order_fail(ic_order_fn *done, void *opaque, int error, const char *fmt, ...)
{
	char text[IC_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	done(opaque, error, text);
}

struct ic *ic_order_target(const struct vm *vm, const char *name, ic_order_fn *done, void *opaque)
{
	struct ic *ic = ic_find(vm, name);

	if (!ic)
		ic_order_fail(done, opaque, -ENODEV, "the machine has no %s device", name);
	else if (ic->state != IC_UP)
		ic_order_fail(done, opaque, -ENOTCONN, "the guest does not run its %s service", name);
	else
		return ic;
	return NULL;
}

int ic_order_result(int error, uint32_t status, char *text)
{
	static const struct {
		uint32_t status;
		int error;
		const char *text;
	} known[] = {
		{ 0x80004005, -EIO, "the guest reported a failure (does its daemon run?)" },
		{ 0x80041002, -ENOENT, "the guest does not know that adapter" },
		{ 0x80070002, -ENOENT, "the guest has no such file" },
		{ 0x80070003, -ENOENT, "the guest has no such path" },
		{ 0x80070005, -EACCES, "the guest denied access" },
		{ 0x80070032, -EOPNOTSUPP, "the guest does not support it" },
		{ 0x80070050, -EEXIST, "the guest has such a file already" },
		{ 0x80070057, -EINVAL, "the guest called an argument invalid" },
		{ 0x80070070, -ENOSPC, "the guest's disk is full" },
		{ 0x80070103, -ENOENT, "the guest has no such item" },
		{ 0x8007048f, -ENOTCONN, "the guest's service is not connected" },
		{ 0x800704f7, -EBUSY, "the guest is locked" },
	};

	text[0] = '\0';
	/* It was taken while the service was up. */
	if (error == -ENOTCONN)
		error = -ECONNRESET;
	if (error) {
		snprintf(text, IC_TEXT_MAX, "%s",
			 error == -ETIMEDOUT	? "the guest did not answer in time"
			 : error == -ECONNRESET ? "the guest closed the service or was reset"
						: strerror(-error));
		return error;
	}
	if (status == IC_S_OK)
		return 0;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (known[i].status == status) {
			snprintf(text, IC_TEXT_MAX, "%s", known[i].text);
			return known[i].error;
		}
	}
	snprintf(text, IC_TEXT_MAX, "the guest reported status 0x%08x", status);
	return -EIO;
}
