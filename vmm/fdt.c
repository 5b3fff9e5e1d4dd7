/* SPDX-License-Identifier: MIT */
#include "vmm/fdt.h"

#include <errno.h>
#include <fcntl.h>
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arch/x86/x86.h"
#include "vmm/device.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define FDT_SIZE       0x20000
#define IOAPIC_PHANDLE 1

/* libfdt's sequential writer latches no error: the first one is kept here. */
struct writer {
	void *fdt;
	int error;
};

static void check(struct writer *w, int ret)
{
	if (ret < 0 && !w->error)
		w->error = ret;
}

static void cells64(struct writer *w, const char *name, const uint64_t *values, unsigned int count)
{
	fdt64_t out[8];

	for (unsigned int i = 0; i < count; i++)
		out[i] = cpu_to_fdt64(values[i]);
	check(w, fdt_property(w->fdt, name, out, (int)(count * sizeof(out[0]))));
}

static void begin(struct writer *w, const char *name)
{
	check(w, fdt_begin_node(w->fdt, name));
}

static void end(struct writer *w)
{
	check(w, fdt_end_node(w->fdt));
}

static void add_memory(struct writer *w, const struct memory *mem)
{
	const uint64_t reg[4] = { 0, mem->low_size, RAM_HIGH_BASE, mem->size - mem->low_size };

	begin(w, "memory@0");
	check(w, fdt_property_string(w->fdt, "device_type", "memory"));
	cells64(w, "reg", reg, mem->size > mem->low_size ? 4 : 2);
	end(w);
}

static void add_cpus(struct writer *w, const struct vm *vm)
{
	char name[32];

	begin(w, "cpus");
	check(w, fdt_property_u32(w->fdt, "#address-cells", 1));
	check(w, fdt_property_u32(w->fdt, "#size-cells", 0));
	for (unsigned int i = 0; i < vm->nr_vcpus; i++) {
		snprintf(name, sizeof(name), "cpu@%x", vm->vcpus[i].apic_id);
		begin(w, name);
		check(w, fdt_property_string(w->fdt, "device_type", "cpu"));
		check(w, fdt_property_u32(w->fdt, "reg", vm->vcpus[i].apic_id));
		end(w);
	}
	end(w);
}

/* Interrupt specifiers have two cells, pin and type, as the binding intel,ce4100-ioapic says. */
static void add_ioapic(struct writer *w)
{
	const uint64_t reg[2] = { IOAPIC_BASE, 0x1000 };

	begin(w, "interrupt-controller@fec00000");
	check(w, fdt_property_string(w->fdt, "compatible", "intel,ce4100-ioapic"));
	check(w, fdt_property(w->fdt, "interrupt-controller", NULL, 0));
	check(w, fdt_property_u32(w->fdt, "#interrupt-cells", 2));
	check(w, fdt_property_u32(w->fdt, "#address-cells", 0));
	check(w, fdt_property_u32(w->fdt, "phandle", IOAPIC_PHANDLE));
	cells64(w, "reg", reg, 2);
	end(w);
}

static void build(struct writer *w, struct vm *vm)
{
	const char *cmdline = vm->config->cmdline ? vm->config->cmdline : "";

	check(w, fdt_property_u32(w->fdt, "#address-cells", 2));
	check(w, fdt_property_u32(w->fdt, "#size-cells", 2));
	check(w, fdt_property_string(w->fdt, "compatible", "vmm,pc"));
	check(w, fdt_property_string(w->fdt, "model", "vmm"));
	check(w, fdt_property_u32(w->fdt, "interrupt-parent", IOAPIC_PHANDLE));
	begin(w, "chosen");
	check(w, fdt_property_string(w->fdt, "bootargs", cmdline));
	end(w);
	add_memory(w, &vm->memory);
	add_cpus(w, vm);
	add_ioapic(w);
	for (const struct device *d = vm->devices; d; d = d->next)
		if (d->class->build_fdt)
			check(w, d->class->build_fdt(d, w->fdt));
}

int machine_fdt(struct vm *vm, void *buffer, int size)
{
	struct writer w = { .fdt = buffer };

	check(&w, fdt_create(buffer, size));
	check(&w, fdt_finish_reservemap(buffer));
	begin(&w, "");
	build(&w, vm);
	end(&w);
	check(&w, fdt_finish(buffer));
	if (w.error) {
		log_line("device tree: %s", fdt_strerror(w.error));
		return -ENOSPC;
	}
	return (int)fdt_totalsize(buffer);
}

int machine_dump_fdt(struct vm *vm, const char *path)
{
	void *buffer = calloc(1, FDT_SIZE);
	int size = buffer ? machine_fdt(vm, buffer, FDT_SIZE) : -ENOMEM;
	int fd = -1, ret = size < 0 ? size : 0;

	if (!ret) {
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
		if (fd < 0 || write(fd, buffer, (size_t)size) != size) {
			ret = errno ? -errno : -EIO;
			log_line("--dump-dtb %s: %s", path, strerror(-ret));
		}
	}
	if (fd >= 0)
		close(fd);
	free(buffer);
	return ret;
}
