/* SPDX-License-Identifier: MIT */
#include "devices/registry.h"

#include <errno.h>
#include <string.h>

#include "arch/x86/firmware.h"
#include "arch/x86/hyperv/testport.h"
#include "arch/x86/x86.h"
#include "devices/block/drive.h"
#include "devices/ivshmem/ivshmem.h"
#include "devices/legacy/debug.h"
#include "devices/legacy/i8042.h"
#include "devices/legacy/ioapic.h"
#include "devices/legacy/pm.h"
#include "devices/legacy/pvpanic.h"
#include "devices/legacy/rtc.h"
#include "devices/legacy/uart.h"
#include "devices/pci/pci.h"
#include "devices/pci/testdev.h"
#include "devices/vfio-user/vfio_user.h"
#include "devices/vhost-user/vhost_user.h"
#include "devices/virtio/blk.h"
#include "devices/vmbus/bus_control.h"
#include "devices/vmbus/hv_transport.h"
#include "devices/vmbus/ic.h"
#include "devices/vmbus/ic_control.h"
#include "devices/vmbus/input_control.h"
#include "devices/vmbus/netvsp.h"
#include "devices/vmbus/storvsp.h"
#include "devices/vmbus/testdev.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/vm.h"

#define CLOUD_HV_HOST_BRIDGE 0x0d57 /* by which edk2's CloudHv build knows its machine */

#define GIB	    (1ULL << 30)
#define IO_BARS	    0x8000
#define IO_BARS_LEN 0x8000

#define TEST_MEMORY  (1ULL << 20)
#define TEST_VECTORS 8

/* 64-bit BARs go above all RAM, as far as the guest's physical addresses reach. */
static struct pci_window high_window(const struct vm *vm)
{
	uint64_t end = 1ULL << x86_address_bits(vm->cpuid);
	uint64_t base = RAM_HIGH_BASE + (vm->memory.size - vm->memory.low_size);
	struct pci_window w;

	w.base = (base + MMIO64_SIZE - 1) / MMIO64_SIZE * MMIO64_SIZE;
	if (w.base >= end)
		w.base = (base + GIB - 1) / GIB * GIB;
	w.size = w.base >= end ? 0 : end - w.base;
	if (w.size > MMIO64_SIZE)
		w.size = MMIO64_SIZE;
	return w;
}

/* Options were checked when the command line was parsed. */
static int create_ivshmem(struct vm *vm)
{
	struct ivshmem_options options;
	char err[512];
	int ret = 0;

	for (unsigned int i = 0; i < vm->config->nr_ivshmem && !ret; i++) {
		ret = ivshmem_parse(vm->config->ivshmem[i], &options, err, sizeof(err));
		ret = ret ? ret : ivshmem_create(vm, &options, i);
	}
	return ret;
}

static int create_pci(struct vm *vm)
{
	/* A firmware in flash turns ECAM on where it likes, and gives the addresses itself. */
	const struct pci_windows windows = {
		.ecam = vm->firmware ? 0 : ECAM_BASE,
		.host_bridge = vm->config->firmware && !vm->firmware ? CLOUD_HV_HOST_BRIDGE : 0,
		.lpc = vm->firmware,
		.mmio32 = { MMIO32_BASE, ECAM_BASE - MMIO32_BASE },
		.mmio64 = high_window(vm),
		.io = { IO_BARS, IO_BARS_LEN },
	};
	int ret = pci_bus_create(vm, &windows);

	if (ret) {
		log_line("PCI: %s", strerror(-ret));
		return ret;
	}
	if (vm->config->pci_test)
		ret = pci_testdev_create(vm->pci, TEST_MEMORY, TEST_VECTORS);
	if (ret)
		log_line("--device pci-test: %s", strerror(-ret));
	if (!ret)
		ret = create_ivshmem(vm);
	for (unsigned int i = 0; i < vm->config->nr_vfio_user && !ret; i++)
		ret = vfio_user_create(vm, &vm->config->vfio_user[i]);
	for (unsigned int i = 0; i < vm->config->nr_vhost_user && !ret; i++)
		ret = vhost_user_create(vm, &vm->config->vhost_user[i], i);
	if (!ret)
		ret = virtio_blk_create_all(vm);
	return ret || vm->firmware ? ret : pci_assign_resources(vm->pci);
}

/* Devices on VMBus are offered in the order of their creation. */
static int create_vmbus(struct vm *vm)
{
	int ret = 0;

	if (vm->config->vmbus && vm->config->hv_test) {
		log_line("--device hv-test: cannot be used with --vmbus");
		return -EINVAL;
	}
	if (vm->config->vmbus)
		ret = hv_transport_create(vm);
	if (!ret && vm->vmbus)
		ret = ic_create_all(vm);
	if (!ret && vm->vmbus && vm->drives)
		ret = storvsp_create(vm);
	if (!ret && vm->config->nr_nets)
		ret = netvsp_create_all(vm);
	if (!ret)
		ret = input_create(vm);
	if (ret || !vm->config->vmbus_test)
		return ret;
	if (!vm->vmbus) {
		log_line("--device vmbus-test: needs --vmbus");
		return -EINVAL;
	}
	ret = vmbus_testdev_create(vm);
	if (ret)
		log_line("--device vmbus-test: %s", strerror(-ret));
	return ret;
}

int devices_create(struct vm *vm, bool com1)
{
	const unsigned int console = UART_ATTACHED | UART_DESCRIBED;
	int ret = ioapic_create(vm, IOAPIC_BASE);

	if (!ret)
		ret = com1 ? uart_pio_create(vm, UART_COM1_PORT, UART_COM1_GSI, console)
			   : uart_mmio_create(vm, UART_MMIO_BASE, UART_MMIO_IRQ, console);
	if (!ret)
		ret = pm_create(vm, PM_BASE, PM_GSI);
	if (!ret)
		ret = rtc_create(vm, vm->config->rtc);
	if (!ret)
		ret = i8042_create(vm);
	if (!ret)
		ret = debug_create(vm);
	if (!ret)
		ret = pvpanic_create(vm);
	if (!ret && vm->config->hv_test)
		ret = testport_create(vm);
	if (!ret)
		ret = drives_open(vm);
	if (!ret)
		ret = create_pci(vm);
	if (!ret)
		ret = create_vmbus(vm);
	if (!ret)
		ret = vmbus_control_add(vm);
	if (!ret)
		ret = ic_control_add(vm);
	return ret || !vm->firmware ? ret : firmware_create_devices(vm);
}
