/* SPDX-License-Identifier: MIT */
/*
 * Writes that KVM collects in a ring instead of leaving to user space, one per write (KVM_CAP_COALESCED_MMIO,
 * KVM_CAP_COALESCED_PIO). Used where a write needs no answer: the serial port's transmit register (a character then
 * costs no exit to vmm) and the IOAPIC's index register.
 *
 * Whoever is about to act on guest state drains first: every vCPU thread after KVM_RUN returned, the loop by timer
 * while a device asks for it. Order among coalesced writes and with later exits of the same vCPU is kept.
 */
#ifndef VMM_COALESCE_H
#define VMM_COALESCE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct bus;
struct kvm_coalesced_mmio_ring;

struct coalesce {
	int vm_fd;
	struct kvm_coalesced_mmio_ring *ring; /* in the first vCPU's kvm_run mapping; NULL: not available */
	uint32_t capacity;
	pthread_mutex_t lock; /* one drainer at a time */
	struct bus *pio, *mmio;
	uint64_t drained; /* writes taken from the ring; under lock */
};

void coalesce_init(struct coalesce *c, int vm_fd, struct bus *pio, struct bus *mmio);
void coalesce_destroy(struct coalesce *c);

/* ring: page KVM_COALESCED_MMIO_PAGE_OFFSET of a vCPU's kvm_run mapping; page_size in bytes. */
void coalesce_attach(struct coalesce *c, void *ring, uint32_t page_size);

/* Collects writes to [addr, addr + len). false where KVM can't: the writes then exit one by one, which is right too. */
bool coalesce_zone(struct coalesce *c, bool pio, uint64_t addr, uint32_t len);

/* Dispatches what was collected. Any thread, holding no device lock. Returns whether there was anything. */
bool coalesce_drain(struct coalesce *c);

#endif
