/* SPDX-License-Identifier: MIT */
/*
 * What the files of the PCI function share.
 *
 * Threads. vCPUs come by the register functions, by config_read and config_written, and by irq_ack. The loop thread has
 * the operations, the removal and the return of the server; everything else is made before the guest runs and does not
 * change. Locks: bus->lock > irq_lock > link.lock; intx_lock is a leaf but for bus->intx_lock. What may wait for the
 * server is never called under bus->lock.
 */
#ifndef DEVICES_VFIO_USER_INTERNAL_H
#define DEVICES_VFIO_USER_INTERNAL_H

#include <linux/time_types.h>

#include "devices/pci/pci.h"
#include "devices/vfio-user/attach.h"
#include "devices/vfio-user/link.h"
#include "devices/vfio-user/vfio_user.h"
#include "vmm/irq.h"
#include "vmm/loop.h"

#define VFU_VECTORS_MAX 256u /* of MSI-X: a server may offer thousands, each of which costs a descriptor */

struct vfu_device;

/* A piece of a BAR, as opaque of its register functions. */
struct vfu_part {
	struct vfu_device *dev;
	unsigned int region;
	uint64_t offset; /* of the piece in the region */
};

/* A mapping of a server's file, for as long as the device exists. */
struct vfu_window {
	void *host;
	uint64_t offset, size;
	unsigned int region;
};

struct vfu_doorbell {
	struct vfu_io_fd entry;
	unsigned int region;
	int fd, shadow;	     /* the eventfd; the file of the shadow, or -1 */
	uint64_t registered; /* address at which KVM watches it, or PCI_UNMAPPED; under bus->lock */
};

/* An operation of the loop that waits for a descriptor to become ready. */
struct vfu_watch {
	struct loop_op op;
	struct vfu_device *dev;
	bool armed;
};

enum vfu_irq_mode { VFU_MODE_NONE, VFU_MODE_INTX, VFU_MODE_MSI, VFU_MODE_MSIX };

struct vfu_device {
	struct pci_function fn;
	struct vm *vm;
	struct vfio_user_options options;
	char name[28];
	struct vfu_link link;
	struct vfu_info *info;

	/* Configuration space. A bit for each byte that we answer ourselves. */
	uint8_t local[VFU_CONFIG_SIZE / 8];
	unsigned int msi, msix;	  /* offsets of the capabilities, as the guest sees them; 0: none */
	pthread_mutex_t bar_lock; /* told */
	uint32_t told[VFU_BARS];  /* BAR registers, as the server knows them */

	struct vfu_part parts[VFU_BARS][PCI_BAR_SEGMENTS];
	unsigned int nr_parts[VFU_BARS];
	struct vfu_window windows[VFU_BARS * VFU_AREAS_MAX];
	struct vfu_doorbell *doorbells;
	unsigned int nr_windows, nr_doorbells;
	_Atomic uint64_t lost_ns; /* when windows were given up */

	/* The ROM: a memslot of our own copy while the guest has it enabled. Under bus->lock. */
	uint8_t *rom;
	uint64_t rom_size; /* a power of two */
	struct region rom_region;
	uint64_t rom_mapped;
	int rom_slot;

	/* Interrupts. */
	enum vfu_irq_mode mode; /* under irq_lock */
	pthread_mutex_t irq_lock;
	unsigned int vectors[3]; /* by VFU_IRQ_INTX, _MSI, _MSIX */
	int event_fds[VFU_IRQS]; /* of INTx, ERR and REQ: the loop's; -1: none */
	struct vfu_watch event_watches[VFU_IRQS];
	struct irq_ack ack;
	pthread_mutex_t intx_lock; /* intx_... */

	/* Loop thread only. */
	struct vfu_watch main_watch, twin_watch;
	struct vfu_stream twin;
	struct loop_work start_work, look_work, dead_work, watch_work;
	struct loop_op timer_op, watch_op;
	struct __kernel_timespec timer_ts, watch_ts;
	struct vfu_attach attach;
	struct vfu_info *new_info;
	struct vfu_watch attach_main, attach_twin;
	uint64_t attach_deadline;
	unsigned int attach_progress, restored;
	char attach_told[160];
	bool removed, attaching, restoring;
	bool told_event[VFU_IRQS];

	/* Under intx_lock. */
	bool intx_level, intx_taken, intx_again, intx_off;

	bool msi_moved; /* the MSI capability is not where the server has it */
	bool may_post[VFU_BARS];
};

#define vfu_device_of(fn) ((struct vfu_device *)(fn)) /* fn is the first member */

/* config.c. vfu_config_ids(): what the function begins with. vfu_config_build(): capabilities and shadow, after the
 * BARs. */
int vfu_config_check(const struct vfu_info *info, const char **why);
void vfu_config_ids(const struct vfu_info *info, struct pci_ids *ids);
int vfu_config_build(struct vfu_device *d, const char **why);
void vfu_config_read(struct pci_function *fn, unsigned int reg, unsigned int size, uint32_t *value);
void vfu_config_written(struct pci_function *fn, unsigned int reg, unsigned int size, uint32_t value);
/* The nth request that tells a server which is back what the guest has programmed; false: there are no more. */
bool vfu_config_request(struct vfu_device *d, unsigned int n, struct vfu_request *r);
/* The same after a reset of the machine: nothing is programmed. */
void vfu_config_reset(struct vfu_device *d);

/* bars.c */
int vfu_bars_create(struct vfu_device *d, const char **why);
/* What is left of the BARs when MSI-X has its table: registers and windows. */
int vfu_bars_fill(struct vfu_device *d);
void vfu_bar_moved(struct pci_function *fn, unsigned int index, uint64_t address);
bool vfu_memory_fault(struct pci_function *fn, bool sure);
/* A server that is back: its files and eventfds instead of the old ones. Only while the function is gone. */
int vfu_bars_remap(struct vfu_device *d, struct vfu_info *info);
int vfu_bars_reopen(struct vfu_device *d, struct vfu_info *info);
void vfu_doorbells_release(struct vfu_device *d);
void vfu_doorbells_restore(struct vfu_device *d);
void vfu_bars_destroy(struct vfu_device *d);

/* rom.c */
int vfu_rom_create(struct vfu_device *d);
void vfu_rom_destroy(struct vfu_device *d);

/* irqs.c */
int vfu_irqs_create(struct vfu_device *d);
void vfu_irqs_start(struct vfu_device *d); /* loop thread */
/* After the guest has changed what it uses; deadline 0: without waiting. */
void vfu_irqs_update(struct vfu_device *d, uint64_t deadline);
int vfu_irqs_send(struct vfu_device *d); /* to a server that has none */
/* The same as requests: the nth of them; false: there are no more. The first decides which kind the guest uses. */
bool vfu_irqs_request(struct vfu_device *d, unsigned int n, struct vfu_request *r);
void vfu_irqs_command(struct vfu_device *d, uint32_t command);
void vfu_irqs_drop(struct vfu_device *d);  /* what INTx has pending */
void vfu_irqs_reset(struct vfu_device *d); /* the machine's; vCPUs are stopped; under bus->lock */
void vfu_irqs_destroy(struct vfu_device *d);

/* device.c */
void vfu_watch_init(struct vfu_watch *w, struct vfu_device *d, void (*fn)(struct loop_op *, int, uint32_t));
void vfu_watch_arm(struct vfu_watch *w, int fd, short events); /* does nothing if it is armed */
void vfu_start_serving(struct vfu_device *d);
void vfu_tell(struct vfu_device *d, const char *text);

/* reconnect.c: loop thread. */
int vfu_connect(const char *path); /* a descriptor or -errno; does not wait */
void vfu_reconnect_init(struct vfu_device *d);
void vfu_reconnect_start(struct vfu_device *d);
void vfu_reconnect_again(struct vfu_device *d); /* an attempt that is under way begins anew */
void vfu_reconnect_destroy(struct vfu_device *d);

#endif
