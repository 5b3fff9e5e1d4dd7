/* SPDX-License-Identifier: MIT */
/*
 * Guests write to both ports with any width, so each is four ports wide; only the byte at the first one
 * counts.
 */
#include "devices/legacy/debug.h"

#include <errno.h>
#include <libfdt.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "devices/legacy/isa_fdt.h"
#include "vmm/bus.h"
#include "vmm/device.h"
#include "vmm/log.h"
#include "vmm/vm.h"

#define PORTS 4

struct debug {
	struct device dev;
	struct region post, exit;
	_Atomic uint8_t last_code; /* any vCPU */
};

static uint64_t post_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct debug *debug = opaque;

	(void)size;
	return offset ? 0 : atomic_load_explicit(&debug->last_code, memory_order_relaxed);
}

static void post_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct debug *debug = opaque;

	(void)size;
	if (offset)
		return;
	atomic_store_explicit(&debug->last_code, (uint8_t)value, memory_order_relaxed);
	vm_post_code(debug->dev.vm, (uint8_t)value);
}

static uint64_t exit_read(void *opaque, uint64_t offset, unsigned int size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return 0;
}

static void exit_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct debug *debug = opaque;

	(void)size;
	if (!offset)
		vm_exit(debug->dev.vm, (uint8_t)value);
}

static const struct io_ops post_ops = { .read = post_read, .write = post_write };
static const struct io_ops exit_ops = { .read = exit_read, .write = exit_write };

static void debug_reset(struct device *dev)
{
	atomic_store(&((struct debug *)dev)->last_code, 0);
}

static void debug_destroy(struct device *dev)
{
	free(dev);
}

static int build_fdt(const struct device *dev, void *fdt)
{
	int err = isa_fdt_begin(fdt, "debug-exit", "vmm,debug-exit", DEBUG_EXIT_PORT, 1);

	(void)dev;
	if (!err)
		err = isa_fdt_end(fdt);
	if (!err)
		err = isa_fdt_begin(fdt, "post-code", "vmm,post-code", DEBUG_POST_PORT, 1);
	return err ? err : isa_fdt_end(fdt);
}

static const struct device_class debug_class = {
	.name = "debug",
	.reset = debug_reset,
	.destroy = debug_destroy,
	.build_fdt = build_fdt,
};

int debug_create(struct vm *vm)
{
	struct debug *debug = calloc(1, sizeof(*debug));
	int ret = debug ? 0 : -ENOMEM;

	if (debug) {
		debug->post = (struct region){
			.name = "post-code", .base = DEBUG_POST_PORT, .length = PORTS, .ops = &post_ops, .opaque = debug
		};
		debug->exit = (struct region){ .name = "debug-exit",
					       .base = DEBUG_EXIT_PORT,
					       .length = PORTS,
					       .ops = &exit_ops,
					       .opaque = debug };
		ret = bus_add(&vm->pio, &debug->post);
	}
	if (!ret) {
		ret = bus_add(&vm->pio, &debug->exit);
		if (ret)
			bus_remove(&vm->pio, &debug->post);
	}
	if (ret) {
		log_line("debug ports 0x%x and 0x%x: %s", DEBUG_POST_PORT, DEBUG_EXIT_PORT, strerror(-ret));
		free(debug);
		return ret;
	}
	device_register(vm, &debug->dev, &debug_class);
	return 0;
}
