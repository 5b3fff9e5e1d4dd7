/* SPDX-License-Identifier: MIT */
/* How a guest finds VMBus: the node VMOD in the DSDT, and a node in the device tree. Same form as struct device_class.
 */
#ifndef DEVICES_VMBUS_DESCRIBE_H
#define DEVICES_VMBUS_DESCRIBE_H

struct aml;
struct device;

void vmbus_build_aml(struct aml *aml, void *device);
int vmbus_build_fdt(const struct device *dev, void *fdt);

#endif
