/* SPDX-License-Identifier: MIT */
/*
 * The ports: 0x510 selects (16 bits), 0x511 reads a byte, 0x514 and 0x518 take the address of a DMA command,
 * big-endian, upper half first; the lower half starts it. A command is carried out before the write to the port
 * returns.
 *
 * The lock is outermost: building the ACPI tables, which selecting their script does, takes pci_bus->lock. Nobody
 * takes this one under another.
 */
#include "firmware/fw_cfg.h"

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/bus.h"
#include "vmm/device.h"
#include "vmm/log.h"
#include "vmm/memory.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

#define PORTS	 12
#define AT_DATA	 1
#define AT_HIGH	 4
#define AT_LOW	 8
#define ID_PORTS 1
#define ID_DMA	 2

struct fw_cfg {
	struct device dev;
	struct region region;

	pthread_mutex_t lock;
	struct fw_cfg_core core;
};

static uint64_t port_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct fw_cfg *f = opaque;
	uint64_t value = UINT64_MAX;

	if (offset == AT_DATA && size == 1) {
		pthread_mutex_lock(&f->lock);
		value = fw_cfg_read_byte(&f->core);
		pthread_mutex_unlock(&f->lock);
	} else if (size == 4 && offset >= AT_HIGH) {
		/* "QEMU CFG", by which DMA is known to be there */
		value = htobe32(offset == AT_HIGH ? 0x51454d55 : 0x20434647);
	}
	return value;
}

static void port_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct fw_cfg *f = opaque;

	pthread_mutex_lock(&f->lock);
	if (offset == 0 && size == 2) {
		TRACE(fw_cfg_select, "key 0x%x", (unsigned int)value & 0xffff);
		fw_cfg_select(&f->core, (uint16_t)value);
	} else if (offset == AT_HIGH && size == 4) {
		f->core.dma_high = be32toh((uint32_t)value);
	} else if (offset == AT_LOW && size == 4) {
		uint64_t gpa = (uint64_t)f->core.dma_high << 32 | be32toh((uint32_t)value);

		TRACE(fw_cfg_dma, "command at 0x%llx", (unsigned long long)gpa);
		f->core.dma_high = 0;
		fw_cfg_dma(&f->core, gpa);
	}
	pthread_mutex_unlock(&f->lock);
}

static const struct io_ops port_ops = { .read = port_read, .write = port_write };

static void *guest(void *opaque, uint64_t gpa, uint64_t len)
{
	return ram_ptr(opaque, gpa, len);
}

static void fw_cfg_reset(struct device *dev)
{
	struct fw_cfg *f = (struct fw_cfg *)dev;

	pthread_mutex_lock(&f->lock);
	fw_cfg_core_reset(&f->core);
	pthread_mutex_unlock(&f->lock);
}

static void fw_cfg_destroy(struct device *dev)
{
	struct fw_cfg *f = (struct fw_cfg *)dev;

	fw_cfg_core_free(&f->core);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static const struct device_class fw_cfg_class = { .name = "fw-cfg", .reset = fw_cfg_reset, .destroy = fw_cfg_destroy };

struct fw_cfg_core *fw_cfg_items(struct fw_cfg *f)
{
	return &f->core;
}

struct fw_cfg *fw_cfg_create(struct vm *vm)
{
	struct fw_cfg *f = calloc(1, sizeof(*f));
	int ret = f ? 0 : -ENOMEM;

	if (f) {
		fw_cfg_core_init(&f->core, guest, &vm->memory);
		f->region = (struct region){
			.name = "fw-cfg", .base = FW_CFG_PORT, .length = PORTS, .ops = &port_ops, .opaque = f
		};
		ret = fw_cfg_add(&f->core, FW_CFG_SIGNATURE, "QEMU", 4);
	}
	if (!ret)
		ret = fw_cfg_add_number(&f->core, FW_CFG_ID, ID_PORTS | ID_DMA, 4);
	if (!ret)
		ret = bus_add(&vm->pio, &f->region);
	if (ret) {
		log_line("firmware configuration at port 0x%x: %s", FW_CFG_PORT, strerror(-ret));
		if (f)
			fw_cfg_core_free(&f->core);
		free(f);
		return NULL;
	}
	pthread_mutex_init(&f->lock, NULL);
	device_register(vm, &f->dev, &fw_cfg_class);
	return f;
}
