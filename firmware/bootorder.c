/* SPDX-License-Identifier: MIT */
/*
 * Names are Open Firmware device paths, as OVMF's QemuBootOrderLib takes them apart: it knows virtio-blk by "scsi" with
 * a disk below, and NVMe by one spelling of its ids, whatever they are.
 */
#include "firmware/bootorder.h"

#include <stdio.h>
#include <string.h>

#include "devices/pci/pci.h"

#define CLASS_MASS_STORAGE 0x0100 /* of virtio-blk */
#define CLASS_NVME	   0x010802
#define VENDOR_VIRTIO	   0x1af4
#define VIRTIO_BLK_OLD	   0x1001
#define VIRTIO_BLK	   0x1042

struct spelling {
	const char *device, *below;
};

static const struct spelling nvme = { "pci8086,5845", "namespace@1,0" }, virtio_blk = { "scsi", "disk@0,0" };

static const struct spelling *spelling_of(const struct pci_function *fn)
{
	uint32_t class_code = pci_config_get(fn, PCI_CLASS, 3);
	uint32_t device = pci_config_get(fn, PCI_DEVICE_ID, 2);

	if (class_code == CLASS_NVME)
		return &nvme;
	if (class_code >> 8 == CLASS_MASS_STORAGE && pci_config_get(fn, PCI_VENDOR_ID, 2) == VENDOR_VIRTIO &&
	    (device == VIRTIO_BLK || device == VIRTIO_BLK_OLD))
		return &virtio_blk;
	return NULL;
}

/* How much is in text then: the same as before if it is no disk, or if the line does not fit. */
static size_t add_line(const struct pci_function *fn, unsigned int devfn, char *text, size_t size, size_t length)
{
	const struct spelling *s = spelling_of(fn);
	char unit[16] = "", line[64];
	size_t more;

	if (!s)
		return length;
	if (devfn % 8)
		snprintf(unit, sizeof(unit), ",%x", devfn % 8);
	more = (size_t)snprintf(line, sizeof(line), "/pci@i0cf8/%s@%x%s/%s\n", s->device, devfn / 8, unit, s->below);
	if (more >= size - length)
		return length;
	memcpy(text + length, line, more + 1);
	return length + more;
}

size_t bootorder_build(struct pci_bus *bus, char *text, size_t size)
{
	size_t length = 0;

	text[0] = '\0';
	pthread_mutex_lock(&bus->lock);
	for (unsigned int i = 0; i < 2 * PCI_FUNCTIONS; i++) {
		const struct pci_function *fn = bus->functions[i % PCI_FUNCTIONS];

		if (fn && fn->boots == (i < PCI_FUNCTIONS))
			length = add_line(fn, i % PCI_FUNCTIONS, text, size, length);
	}
	pthread_mutex_unlock(&bus->lock);
	return length;
}
