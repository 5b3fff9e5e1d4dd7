/* SPDX-License-Identifier: MIT */
/* A virtio 1.2 driver's foundations: the PCI transport (4.1) and virtqueues, split (2.7) and packed (2.8). */
#ifndef RT_VIRTIO_H
#define RT_VIRTIO_H

#include <stdbool.h>
#include <stdint.h>

#define VIRTIO_VENDOR	 0x1af4
#define VIRTIO_DEVICE	 0x1040 /* and the device's id */
#define VIRTIO_NO_VECTOR 0xffff
#define VQ_MAX		 8
#define VQ_SIZE_MAX	 256

/* Capabilities of vendor type: cfg_type. */
enum { VIRTIO_COMMON = 1, VIRTIO_NOTIFY, VIRTIO_ISR, VIRTIO_CONFIG, VIRTIO_PCI_CFG, VIRTIO_SHM = 8 };

/* The common configuration. */
enum {
	VC_DEVICE_SELECT = 0x00,
	VC_DEVICE_FEATURE = 0x04,
	VC_DRIVER_SELECT = 0x08,
	VC_DRIVER_FEATURE = 0x0c,
	VC_MSIX = 0x10, /* two bytes from here on */
	VC_QUEUES = 0x12,
	VC_STATUS = 0x14, /* a byte, and the next */
	VC_GENERATION = 0x15,
	VC_QUEUE_SELECT = 0x16,
	VC_QUEUE_SIZE = 0x18,
	VC_QUEUE_MSIX = 0x1a,
	VC_QUEUE_ENABLE = 0x1c,
	VC_QUEUE_NOTIFY = 0x1e,
	VC_QUEUE_DESC = 0x20, /* eight bytes each */
	VC_QUEUE_DRIVER = 0x28,
	VC_QUEUE_DEVICE = 0x30,
	VC_QUEUE_DATA = 0x38,
	VC_QUEUE_RESET = 0x3a,
	VC_SIZE = 0x3c,
};

enum {
	VS_ACKNOWLEDGE = 1,
	VS_DRIVER = 2,
	VS_DRIVER_OK = 4,
	VS_FEATURES_OK = 8,
	VS_NEEDS_RESET = 0x40,
	VS_FAILED = 0x80
};

enum { VF_INDIRECT = 28, VF_EVENT_IDX = 29, VF_VERSION_1 = 32, VF_PACKED = 34, VF_RING_RESET = 40 };
#define VF(bit) (1ULL << VF_##bit)

struct virtio_shm {
	uint8_t id;
	unsigned int bar;
	uint64_t base, length; /* base: where it is in memory */
};

struct virtio {
	unsigned int devfn;
	uint64_t common, notify, isr, config; /* addresses; 0 if absent */
	uint32_t common_length, notify_length, isr_length, config_length, multiplier;
	unsigned int pci_cfg; /* offset of that capability */
	unsigned int nr_shm;
	struct virtio_shm shm[8];
	uint64_t msix; /* the table */
	uint64_t features;
};

struct vq_part {
	uint64_t address;
	uint32_t length;
	bool writable;
};

struct vq {
	struct virtio *dev;
	uint16_t index, size;
	bool packed, wrap, used_wrap;
	uint16_t next, seen; /* positions; a packed ring's are places */
	uint64_t desc, driver, device;
	uint16_t counts[VQ_SIZE_MAX]; /* of a packed ring's descriptors, by id */
	uint64_t bell;
};

/* Finds the device with this id, and everything its capabilities name. */
void virtio_find(struct virtio *v, uint16_t id);
uint64_t virtio_offered(const struct virtio *v);
/* Writes 0 to the status and waits until it reads as that. False: not within seconds. */
bool virtio_reset(struct virtio *v);
/* From reset to FEATURES_OK; false if the device does not take these features. */
bool virtio_negotiate(struct virtio *v, uint64_t features);
void virtio_status(const struct virtio *v, uint8_t more);
/* A queue of its own memory, enabled. size 0: the largest. */
void virtio_queue(struct virtio *v, struct vq *q, uint16_t index, uint16_t size, uint16_t vector);
/* The queue's memory zeroed, and the positions; not the device's side of it. */
void vq_clear(struct vq *q);
void virtio_select(const struct virtio *v, uint16_t queue);
/* Points entry i of the MSI-X table to a vector of this CPU. */
void virtio_msix(const struct virtio *v, unsigned int i, uint8_t vector, bool mask);
void virtio_msix_enable(const struct virtio *v, bool on);

/* Makes a chain available under this id (below the size; free of use), without telling; place: of its descriptors. */
void vq_add(struct vq *q, uint16_t id, const struct vq_part *parts, unsigned int count);
/* The same by an indirect table at this address. */
void vq_add_indirect(struct vq *q, uint16_t id, const struct vq_part *parts, unsigned int count, uint64_t table);
void vq_kick(const struct vq *q);
/* The next used chain; false if there is none. */
bool vq_used(struct vq *q, uint16_t *id, uint32_t *length);
/* Waits for it, by looking. */
bool vq_wait(struct vq *q, uint16_t *id, uint32_t *length, uint32_t us);

#endif
