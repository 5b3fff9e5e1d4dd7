/* SPDX-License-Identifier: MIT */
/*
 * The virtio 1.x PCI transport: what every virtio device has, whoever it is that serves the queues. Source: "Virtual
 * I/O Device (VIRTIO) Version 1.2", 2.1 to 2.9 and 4.1.
 *
 *   pci           the function: capabilities, BARs, notifications
 *   registers     the common configuration and the state that it shows
 *   interrupt     MSI-X, or INTx with its status register
 *
 * A device embeds struct virtio as its first member and has a class. Threads: the driver's accesses come on vCPU
 * threads and end in struct virtio under its lock; the functions of the class say where they are called. Nothing that
 * a driver waits for by polling (a reset of the device or of a queue) has to be done inside the call: the device
 * says when it is, by virtio_reset_done() and virtio_queue_reset_done().
 *
 * Layout, which tests know: BAR0 (32-bit, 16 KiB) common configuration at 0, interrupt status at 0x1000, configuration
 * of the device at 0x2000, notification of queue N at 0x3000 + 4 * N; BAR1 (32-bit, 16 KiB) MSI-X; BAR4 (64-bit,
 * prefetchable) the device's shared memory, if it has any.
 */
#ifndef DEVICES_VIRTIO_VIRTIO_H
#define DEVICES_VIRTIO_VIRTIO_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "devices/pci/pci.h"
#include "vmm/loop.h"

#define VIRTIO_VENDOR	     0x1af4
#define VIRTIO_DEVICE_BASE   0x1040
#define VIRTIO_QUEUES_MAX    256
#define VIRTIO_QUEUE_MAX     1024 /* size of one, as far as we offer it */
#define VIRTIO_CONFIG_MAX    256
#define VIRTIO_SHM_MAX	     3 /* capabilities of 24 bytes; the others, none of which may be missing, leave 92 */
#define VIRTIO_NO_VECTOR     0xffff
#define VIRTIO_SHM_BAR	     4
#define VIRTIO_ID_MAX	     63
#define VIRTIO_COMMON_OFFSET 0x0000
#define VIRTIO_ISR_OFFSET    0x1000
#define VIRTIO_DEVICE_OFFSET 0x2000
#define VIRTIO_NOTIFY_OFFSET 0x3000
#define VIRTIO_NOTIFY_STEP   4

/* Device types (virtio 1.2, 5). */
enum { VIRTIO_ID_NET = 1, VIRTIO_ID_BLOCK = 2, VIRTIO_ID_FS = 26 };

/* device_status (2.1) */
enum {
	VIRTIO_ACKNOWLEDGE = 1,
	VIRTIO_DRIVER = 2,
	VIRTIO_DRIVER_OK = 4,
	VIRTIO_FEATURES_OK = 8,
	VIRTIO_NEEDS_RESET = 64,
	VIRTIO_FAILED = 128,
};

/* Bits of features that are not a device type's own (6). */
enum {
	VIRTIO_F_INDIRECT_DESC = 28,
	VIRTIO_F_EVENT_IDX = 29,
	VIRTIO_F_VERSION_1 = 32,
	VIRTIO_F_RING_PACKED = 34,
	VIRTIO_F_RING_RESET = 40,
};

#define VIRTIO_BIT(n) (1ULL << (n))

struct virtio;

struct virtio_queue_setup {
	uint16_t size;
	uint64_t desc, driver, device; /* guest addresses; not checked yet */
};

/* An eventfd written by the loop, by a request: a peer that has it too could make a write wait. Loop thread only. */
struct virtio_signal {
	struct loop_op op;
	struct virtio *v;
	uint64_t one;
	int fd;
	bool busy, again;
};

struct virtio_queue {
	struct virtio *v;
	unsigned int index;
	/* Under v->lock. */
	struct virtio_queue_setup setup;
	uint16_t vector;
	bool enabled, resetting;
	/* The driver's notifications. KVM writes it, for us or for whoever has been given it. */
	int kick_fd;
	/* Interrupts by way of the loop, where no vector's eventfd can be given away. */
	int call_fd;
	struct loop_op kick_op, call_op;
	bool kick_watched, call_watched; /* loop thread */
	_Atomic bool kick_wanted;	 /* a notification that KVM did not take */
	struct virtio_signal kick, interrupt;
	uint64_t notify_at; /* where KVM watches kick_fd, or PCI_UNMAPPED; under bus->lock */
};

struct virtio_class {
	const char *name;
	/* DRIVER_OK has been set. vCPU thread. */
	void (*start)(struct virtio *v);
	/*
	 * The driver resets the device: stop touching guest memory, then call virtio_reset_done(). vCPU thread. It may
	 * be called before start().
	 */
	void (*reset)(struct virtio *v);
	/* The machine is being reset: the same, before this returns, and without virtio_reset_done(). Loop thread. */
	void (*machine_reset)(struct virtio *v);
	/* A queue is enabled, or reset, while the device runs. The latter ends in virtio_queue_reset_done(). vCPU. */
	void (*queue_start)(struct virtio *v, unsigned int queue);
	void (*queue_reset)(struct virtio *v, unsigned int queue);
	/*
	 * An enabled queue has got another vector, or MSI-X was switched on or off: ask virtio_call_fd() anew, and when
	 * the peer has it, interrupt once. vCPU thread. NULL: does not matter.
	 */
	void (*vector_changed)(struct virtio *v, unsigned int queue);
	/* A notification, if virtio_watch_kicks() asked for them. Loop thread. */
	void (*notify)(struct virtio *v, unsigned int queue);
	/*
	 * Configuration: before v->config is read, and after the driver wrote (already in v->config if the device keeps
	 * that). vCPU thread, no lock held. NULL: nothing to do; writes are dropped.
	 */
	void (*config_reading)(struct virtio *v);
	void (*config_written)(struct virtio *v, unsigned int offset, unsigned int size, uint64_t value);
	/* The function's ids are about to be read: it may leave the bus before. vCPU thread, no lock held. NULL: stays.
	 */
	void (*looked_for)(struct virtio *v);
	/* See struct pci_function_ops. NULL: has no foreign memory. */
	bool (*memory_fault)(struct virtio *v, bool sure);
	/* Frees the device; ends in virtio_fini(). */
	void (*destroy)(struct virtio *v);
};

/* A shared memory region: its id, and where it is in the BAR. */
struct virtio_shm {
	uint8_t id;
	uint64_t offset, length;
};

/* What a device is, for virtio_init(). */
struct virtio_config {
	const char *name; /* kept by reference */
	unsigned int id;  /* 1 to VIRTIO_ID_MAX */
	uint32_t class_code;
	uint64_t features; /* VERSION_1 and RING_RESET are added */
	unsigned int nr_queues, queue_size;
	unsigned int config_size; /* 0: the device has no configuration */
	const struct virtio_shm *shm;
	unsigned int nr_shm;
};

struct virtio {
	struct pci_function fn;
	struct vm *vm;
	const struct virtio_class *class;
	unsigned int nr_queues, queue_max;
	unsigned int cfg_cap; /* offset of the capability for access by configuration space */
	uint64_t features;    /* offered */
	pthread_mutex_t lock; /* all that follows, unless it says otherwise */
	uint64_t accepted;
	uint32_t device_select, driver_select;
	uint16_t queue_select, config_vector;
	uint8_t status, generation, isr;
	bool resetting;
	bool msix_on;	  /* as virtio_msix_written() has seen it */
	bool config_told; /* the driver has been interrupted about the configuration, since its last reset */
	uint8_t config[VIRTIO_CONFIG_MAX];
	unsigned int config_size;
	struct virtio_queue *queues;
	struct virtio_signal config_interrupt; /* loop thread */
	_Atomic bool config_wanted;	       /* the same once more */
	struct loop_work kick_work;
};

/*
 * Makes the PCI function of a zeroed device, on vm->pci. 0 or -errno, and then nothing is left to free. The BAR of
 * shared memory is the caller's to add. virtio_fini() frees what virtio_init() made, when the function is off the bus.
 */
int virtio_init(struct virtio *v, struct vm *vm, const struct virtio_class *class, const struct virtio_config *config);
void virtio_fini(struct virtio *v);

/* What class->reset(), class->queue_reset() have been asked for is done. Any thread, no lock held. */
void virtio_reset_done(struct virtio *v);
void virtio_queue_reset_done(struct virtio *v, unsigned int queue);

/* The device cannot go on until it is reset (2.1.2). Loop thread. */
void virtio_needs_reset(struct virtio *v);

/* Snapshots for the device. Any thread. */
uint8_t virtio_status(struct virtio *v);
uint64_t virtio_accepted(struct virtio *v);
bool virtio_queue_enabled(struct virtio *v, unsigned int queue, struct virtio_queue_setup *setup);

/* The three parts of a ring (2.7, 2.8) as pieces of guest RAM: 0, or -EFAULT if one is not, or is not aligned. */
struct memory;
int virtio_check_ring(const struct memory *memory, const struct virtio_queue_setup *setup, bool packed);

/* Loop thread: wants class->notify() to be called from now on, also for what came before. */
void virtio_watch_kicks(struct virtio *v, unsigned int queue);

/* A notification in the driver's name: whoever has the eventfd looks at the queue. Loop thread. */
void virtio_kick(struct virtio *v, unsigned int queue);

/* The eventfd for a peer to interrupt the driver by, about a queue; it stays ours. Loop thread. */
int virtio_call_fd(struct virtio *v, unsigned int queue);

/* Interrupts: used buffers of a queue, a change of the configuration. Loop thread. */
void virtio_interrupt(struct virtio *v, unsigned int queue);
void virtio_interrupt_config(struct virtio *v);

/* Changes the configuration that the driver sees, and, if it did, its generation. True if it did. Any thread. */
bool virtio_config_set(struct virtio *v, const void *data, unsigned int size);

#endif
