/* SPDX-License-Identifier: MIT */
/* Disks on virtio-blk (virtio 1.2, 5.2): for firmware, and for guests without VMBus. */
#ifndef DEVICES_VIRTIO_BLK_H
#define DEVICES_VIRTIO_BLK_H

#include <stdbool.h>

#define VIRTIO_BLK_ID_SIZE 20 /* virtio 1.2, 5.2.6: bytes of the serial number that a driver is told */

struct drive;
struct vm;

/*
 * A function for the drive, on vm->pci. shared: the SCSI controller shows it too, and drive->claim says whose it is.
 * The drive must outlive the device. 0 or -errno.
 */
int virtio_blk_create(struct vm *vm, struct drive *drive, bool shared, unsigned int index);

/* One for each drive; with VMBus, for those to boot from. 0, or -errno after printing one line. */
int virtio_blk_create_all(struct vm *vm);

#endif
