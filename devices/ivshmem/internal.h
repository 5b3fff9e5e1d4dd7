/* SPDX-License-Identifier: MIT */
/* What the files of the ivshmem device share: device.c, its PCI function, and events.c, its peers. */
#ifndef DEVICES_IVSHMEM_INTERNAL_H
#define DEVICES_IVSHMEM_INTERNAL_H

#include <pthread.h>

#include "devices/ivshmem/client.h"
#include "devices/ivshmem/ivshmem.h"
#include "devices/ivshmem/memory.h"
#include "devices/ivshmem/peers.h"
#include "devices/pci/pci.h"
#include "vmm/vm.h"

/* An eventfd write on its way. */
struct signaller {
	struct loop_op op;
	struct ivshmem *device;
	struct signaller *next, **link;
	uint32_t value; /* of the register */
	uint64_t one;
	bool again, abandoned;
};

/* One of our vectors, with INTx. */
struct intx_vector {
	struct loop_op op;
	struct ivshmem *device;
	int fd;
	bool armed;
};

struct ivshmem {
	struct pci_function fn;
	struct vm *vm;
	struct ivshmem_options options;
	char name[16];
	struct ivshmem_memory memory;
	struct ivshmem_client client;
	_Atomic bool dead;

	pthread_mutex_t lock;
	uint32_t mask, status;
	struct ivshmem_peers peers;

	unsigned int own; /* vectors that the server has given us */
	struct intx_vector *intx;
	bool told_fd, told_full;
	struct signaller *signallers;
	struct loop_work start_work, ring_work, arm_work, die_work;
};

/* One line that names the device. */
void ivshmem_say(const struct ivshmem *d, const char *text);

/* Drives INTx as status and mask say. Under lock. */
void ivshmem_update_intx(struct ivshmem *d);

/* What the server has to say. */
extern const struct ivshmem_protocol_ops ivshmem_protocol_ops;

/* For a device with a server, after ivshmem_peers_init(): the works, and what the table of peers calls. */
void ivshmem_events_init(struct ivshmem *d);

/* Interrupts by INTx instead of MSI-X. 0 or -ENOMEM. */
int ivshmem_add_intx(struct ivshmem *d);

/* After the loop has ended. */
void ivshmem_events_fini(struct ivshmem *d);

#endif
