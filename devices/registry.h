/* SPDX-License-Identifier: MIT */
/* The one place that knows the devices by name: creates those of a machine, in an order that can be read here. */
#ifndef DEVICES_REGISTRY_H
#define DEVICES_REGISTRY_H

#include <stdbool.h>

struct vm;

/*
 * com1: the serial port is COM1, where the user or the guest expects it; otherwise it is the MMIO one, which vmm
 * tells a Linux kernel of. 0, or -errno after printing one line. Created devices are on vm->devices either way.
 */
int devices_create(struct vm *vm, bool com1);

#endif
