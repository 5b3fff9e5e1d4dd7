/* SPDX-License-Identifier: MIT */
#include "vmm/coalesce.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm/bus.h"

void coalesce_init(struct coalesce *c, int vm_fd, struct bus *pio, struct bus *mmio)
{
	memset(c, 0, sizeof(*c));
	c->vm_fd = vm_fd;
	c->pio = pio;
	c->mmio = mmio;
	pthread_mutex_init(&c->lock, NULL);
}

void coalesce_destroy(struct coalesce *c)
{
	pthread_mutex_destroy(&c->lock);
}

void coalesce_attach(struct coalesce *c, void *ring, uint32_t page_size)
{
	c->ring = ring;
	/* Documentation/virt/kvm/api.rst: the ring fills one page after its two indices. */
	c->capacity =
		(uint32_t)((page_size - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio));
}

bool coalesce_zone(struct coalesce *c, bool pio, uint64_t addr, uint32_t len)
{
	struct kvm_coalesced_mmio_zone zone = { .addr = addr, .size = len, .pio = pio };

	return ioctl(c->vm_fd, KVM_REGISTER_COALESCED_MMIO, &zone) == 0;
}

bool coalesce_drain(struct coalesce *c)
{
	struct kvm_coalesced_mmio_ring *ring = c->ring;
	struct bus_cache cache[2] = { 0 };
	bool any = false;

	/* KVM publishes last after the entry; the unlocked look is what every exit pays. */
	if (!ring || __atomic_load_n(&ring->first, __ATOMIC_RELAXED) == __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE))
		return false;
	pthread_mutex_lock(&c->lock);
	for (;;) {
		uint32_t first = __atomic_load_n(&ring->first, __ATOMIC_RELAXED);
		uint32_t last = __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE);

		if (first == last || first >= c->capacity)
			break;
		struct kvm_coalesced_mmio entry = ring->coalesced_mmio[first];

		if (entry.len <= sizeof(entry.data))
			bus_write(entry.pio ? c->pio : c->mmio, &cache[entry.pio != 0], entry.phys_addr, entry.data,
				  entry.len);
		/* Only now: a vCPU that finds the ring empty without the lock must not overtake this write. */
		__atomic_store_n(&ring->first, (first + 1) % c->capacity, __ATOMIC_RELEASE);
		c->drained++;
		any = true;
	}
	pthread_mutex_unlock(&c->lock);
	return any;
}
