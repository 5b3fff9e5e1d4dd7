/* SPDX-License-Identifier: MIT */
/* Guest shutdown: asks the guest's system to power off, restart or hibernate in good order. Loop thread. */
#ifndef DEVICES_VMBUS_IC_SHUTDOWN_H
#define DEVICES_VMBUS_IC_SHUTDOWN_H

#include <stdbool.h>
#include <stdint.h>

struct vm;

/* Power off unless one of the last two is given. The values are those of the wire. */
#define IC_SHUTDOWN_FORCE     1u /* even if applications object; Linux always does */
#define IC_SHUTDOWN_RESTART   2u /* message version 3.1 */
#define IC_SHUTDOWN_HIBERNATE 4u /* message version 3.2 */

/*
 * Sends the request. 0: it is on its way; a guest that refuses it or does not answer within 30 seconds is told in a
 * log line. -ENOTCONN: the guest has no shutdown service up; -EOPNOTSUPP: its version cannot say that; -EBUSY: it has
 * not answered the last request yet; -EINVAL: restart and hibernate together, or an unknown flag.
 */
int ic_shutdown_request(struct vm *vm, uint32_t flags);

/* Whether a request can be sent. */
bool ic_shutdown_ready(const struct vm *vm);

/* Puts the device on vm->vmbus. 0, or -errno after printing one line. */
int ic_shutdown_create(struct vm *vm);

#endif
