/* SPDX-License-Identifier: MIT */
/*
 * What a device is to the machine. A device embeds struct device as its first member, keeps all its state in one
 * struct, registers its regions on the buses when created and is reset with the machine.
 */
#ifndef VMM_DEVICE_H
#define VMM_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

struct vm;
struct device;
struct aml;

struct device_class {
	const char *name;
	/* Back to the state after power-on; vCPUs are stopped. NULL: nothing to reset. */
	void (*reset)(struct device *dev);
	/*
	 * The guest is to be asked to shut down. Loop thread. False: this device cannot ask just now; then the one
	 * created before it is tried. NULL: has no way.
	 */
	bool (*power_button)(struct device *dev);
	/* vCPUs run again after a pause, which the guest's clocks do not show. Loop thread. NULL: all the same. */
	void (*resumed)(struct device *dev);
	/* Frees the device; vCPUs and loop have ended. */
	void (*destroy)(struct device *dev);
	/*
	 * KVM_RUN failed with EFAULT: host memory behind a memslot cannot be reached. True if the device has taken such
	 * memory away from the guest, whose access can then be tried again. vCPU threads. NULL: has none.
	 */
	bool (*memory_fault)(struct device *dev);
	/* Name of the device's node in the DSDT and who writes its body (struct acpi_node). NULL: none. */
	const char *aml_name;
	void (*build_aml)(struct aml *aml, void *device);
	/* Adds the device's node to the machine's device tree (libfdt, sequential write). 0 or a libfdt error. NULL:
	 * none. */
	int (*build_fdt)(const struct device *dev, void *fdt);
};

struct device {
	const struct device_class *class;
	struct vm *vm;
	struct device *next;
};

/* Puts a created device on the machine's list: it will be reset and destroyed with the machine. */
void device_register(struct vm *vm, struct device *dev, const struct device_class *class);

#endif
