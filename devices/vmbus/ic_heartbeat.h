/* SPDX-License-Identifier: MIT */
/* Heartbeat: a number every two seconds, which the guest's driver returns plus one. Loop thread. */
#ifndef DEVICES_VMBUS_IC_HEARTBEAT_H
#define DEVICES_VMBUS_IC_HEARTBEAT_H

#include <stdint.h>

struct vm;

enum ic_heartbeat_state {
	IC_HEARTBEAT_DOWN, /* the guest has no such driver */
	IC_HEARTBEAT_UP,
	IC_HEARTBEAT_LOST, /* it had, and the last beat was not answered in time or not properly */
};

/* What a guest says of its applications, from message version 3.0 on; Linux always says unknown. */
enum ic_application_state {
	IC_APPLICATION_UNKNOWN,
	IC_APPLICATION_HEALTHY,
	IC_APPLICATION_CRITICAL,
	IC_APPLICATION_STOPPED,
};

struct ic_heartbeat_status {
	enum ic_heartbeat_state state;
	enum ic_application_state application;
	uint64_t beats;	 /* answered since the machine was created */
	uint64_t missed; /* not answered in time, since then */
	uint64_t age_ns; /* of the last answer; 0 if there was none since the driver came up */
};

/* All zero for a machine without the service. */
void ic_heartbeat_get(const struct vm *vm, struct ic_heartbeat_status *status);
const char *ic_heartbeat_state_name(enum ic_heartbeat_state state); /* "down", "up", "lost" */

/* Puts the device on vm->vmbus. 0, or -errno after printing one line. */
int ic_heartbeat_create(struct vm *vm);

#endif
