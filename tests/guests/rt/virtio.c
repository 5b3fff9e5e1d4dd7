/* SPDX-License-Identifier: MIT */
#include "rt/virtio.h"

#include "rt/apic.h"
#include "rt/io.h"
#include "rt/pci.h"
#include "rt/rt.h"

#define GIB	  (1ULL << 30)
#define RINGS	  0x2000000u /* RAM that nobody uses: 64 KiB for each queue */
#define RING_SIZE 0x10000u
#define RESET_MS  20000u /* a driver's patience */
#define MSI_BASE  0xfee00000u
#define CAP_MSIX  0x11
#define CAP_VNDR  0x09
#define POLL	  50 /* us */

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4, DESC_AVAIL = 1 << 7, DESC_USED = 1 << 15 };

static uint64_t bar_address(const struct virtio *v, unsigned int bar)
{
	uint64_t base = pci_bar(v->devfn, bar);

	if (base >= 4 * GIB)
		rt_map_gib((unsigned int)(base / GIB));
	return base;
}

static void read_capability(struct virtio *v, unsigned int at)
{
	uint8_t length = (uint8_t)pci_read(v->devfn, at + 2, 1), type = (uint8_t)pci_read(v->devfn, at + 3, 1);
	unsigned int bar = pci_read(v->devfn, at + 4, 1);
	uint64_t offset = pci_read(v->devfn, at + 8, 4), size = pci_read(v->devfn, at + 12, 4);

	if (type == VIRTIO_PCI_CFG) {
		CHECK_EQ(length, 20);
		v->pci_cfg = at;
		return;
	}
	CHECK(bar < 6);
	if (type == VIRTIO_SHM) {
		struct virtio_shm *shm = &v->shm[v->nr_shm++];

		CHECK(v->nr_shm <= 8);
		CHECK_EQ(length, 24);
		offset |= (uint64_t)pci_read(v->devfn, at + 16, 4) << 32;
		size |= (uint64_t)pci_read(v->devfn, at + 20, 4) << 32;
		*shm = (struct virtio_shm){ (uint8_t)pci_read(v->devfn, at + 5, 1), bar, bar_address(v, bar) + offset,
					    size };
		return;
	}
	if (type < VIRTIO_COMMON || type > VIRTIO_CONFIG)
		return;
	uint64_t *const to[] = { &v->common, &v->notify, &v->isr, &v->config };
	uint32_t *const lengths[] = { &v->common_length, &v->notify_length, &v->isr_length, &v->config_length };

	CHECK_EQ(length, type == VIRTIO_NOTIFY ? 20 : 16);
	CHECK_EQ(*to[type - 1], 0);
	*to[type - 1] = bar_address(v, bar) + offset;
	*lengths[type - 1] = (uint32_t)size;
	if (type == VIRTIO_NOTIFY)
		v->multiplier = pci_read(v->devfn, at + 16, 4);
}

void virtio_find(struct virtio *v, uint16_t id)
{
	unsigned int at = 0x34, cap;

	*v = (struct virtio){ .devfn = pci_find(VIRTIO_VENDOR, VIRTIO_DEVICE + id) };
	CHECK(v->devfn != PCI_NONE);
	for (unsigned int i = 0; i < 48; i++) {
		at = pci_read(v->devfn, at, 1) & 0xfc;
		if (!at)
			break;
		if (pci_read(v->devfn, at, 1) == CAP_VNDR)
			read_capability(v, at);
		at++;
	}
	cap = pci_capability(v->devfn, CAP_MSIX);
	CHECK(cap);
	cap = pci_read(v->devfn, cap + 4, 4);
	v->msix = bar_address(v, cap & 7) + (cap & ~7u);
	CHECK(v->common && v->notify && v->isr && v->pci_cfg);
	pci_write(v->devfn, 4, 2, pci_read(v->devfn, 4, 2) | 6); /* memory, bus master */
}

uint64_t virtio_offered(const struct virtio *v)
{
	uint64_t low;

	write32(v->common + VC_DEVICE_SELECT, 0);
	low = read32(v->common + VC_DEVICE_FEATURE);
	write32(v->common + VC_DEVICE_SELECT, 1);
	return low | (uint64_t)read32(v->common + VC_DEVICE_FEATURE) << 32;
}

bool virtio_reset(struct virtio *v)
{
	uint64_t end = rt_ticks() + RESET_MS * RT_TICKS_PER_MS;

	write8(v->common + VC_STATUS, 0);
	while (read8(v->common + VC_STATUS)) {
		if (rt_ticks() >= end)
			return false;
		rt_delay(1000);
	}
	return true;
}

void virtio_status(const struct virtio *v, uint8_t more)
{
	write8(v->common + VC_STATUS, read8(v->common + VC_STATUS) | more);
}

bool virtio_negotiate(struct virtio *v, uint64_t features)
{
	CHECK(virtio_reset(v));
	virtio_status(v, VS_ACKNOWLEDGE);
	virtio_status(v, VS_DRIVER);
	for (uint32_t i = 0; i < 2; i++) {
		write32(v->common + VC_DRIVER_SELECT, i);
		write32(v->common + VC_DRIVER_FEATURE, (uint32_t)(features >> 32 * i));
	}
	v->features = features;
	virtio_status(v, VS_FEATURES_OK);
	return read8(v->common + VC_STATUS) & VS_FEATURES_OK;
}

void virtio_select(const struct virtio *v, uint16_t queue)
{
	write16(v->common + VC_QUEUE_SELECT, queue);
}

/* Words: some hosts interpret each store. */
static void clear(uint64_t at, uint32_t length)
{
	for (uint32_t i = 0; i < length; i += 8)
		write64(at + i, 0);
}

void vq_clear(struct vq *q)
{
	clear(q->desc, 16u * q->size);
	clear(q->driver, 6 + 2u * q->size);
	clear(q->device, 6 + 8u * q->size);
	q->next = q->seen = 0;
	q->wrap = q->used_wrap = true;
}

void virtio_queue(struct virtio *v, struct vq *q, uint16_t index, uint16_t size, uint16_t vector)
{
	CHECK(index < VQ_MAX);
	virtio_select(v, index);
	if (size)
		write16(v->common + VC_QUEUE_SIZE, size);
	*q = (struct vq){ .dev = v, .index = index, .size = read16(v->common + VC_QUEUE_SIZE) };
	CHECK(q->size && q->size <= VQ_SIZE_MAX && (!size || size == q->size));
	q->packed = v->features & VF(PACKED);
	q->desc = RINGS + index * RING_SIZE;
	q->driver = q->desc + 0x4000;
	q->device = q->desc + 0x8000;
	q->bell = v->notify + (uint64_t)read16(v->common + VC_QUEUE_NOTIFY) * v->multiplier;
	vq_clear(q);
	write16(v->common + VC_QUEUE_MSIX, vector);
	CHECK_EQ(read16(v->common + VC_QUEUE_MSIX), vector);
	for (unsigned int i = 0; i < 3; i++) {
		uint64_t address = i == 0 ? q->desc : i == 1 ? q->driver : q->device;

		write32(v->common + VC_QUEUE_DESC + 8 * i, (uint32_t)address);
		write32(v->common + VC_QUEUE_DESC + 8 * i + 4, (uint32_t)(address >> 32));
	}
	write16(v->common + VC_QUEUE_ENABLE, 1);
}

void virtio_msix(const struct virtio *v, unsigned int i, uint8_t vector, bool mask)
{
	uint64_t entry = v->msix + 16 * i;

	write32(entry, MSI_BASE | lapic_id() << 12);
	write32(entry + 4, 0);
	write32(entry + 8, vector);
	write32(entry + 12, mask);
}

void virtio_msix_enable(const struct virtio *v, bool on)
{
	pci_write(v->devfn, pci_capability(v->devfn, CAP_MSIX) + 2, 2, on ? 0x8000 : 0);
}

/* -- queues */

/* A split ring's chain with this id lies from descriptor `id` on; a packed one's, where the ring is. */
static void put_desc(struct vq *q, uint16_t at, const struct vq_part *p, uint16_t flags, uint16_t last)
{
	uint64_t d = q->desc + 16ULL * at;

	write64(d, p->address);
	write32(d + 8, p->length);
	if (q->packed) {
		write16(d + 12, last);
	} else {
		write16(d + 12, flags);
		write16(d + 14, last);
	}
}

static void add_packed(struct vq *q, uint16_t id, const struct vq_part *parts, unsigned int count, uint16_t extra)
{
	uint64_t first = q->desc + 16ULL * q->next + 14;
	uint16_t first_flags = 0;

	for (unsigned int i = 0; i < count; i++) {
		uint16_t flags = extra | (parts[i].writable ? DESC_WRITE : 0) | (i + 1 < count ? DESC_NEXT : 0) |
				 (q->wrap ? DESC_AVAIL : DESC_USED);

		put_desc(q, q->next, &parts[i], 0, id);
		if (i)
			write16(q->desc + 16ULL * q->next + 14, flags);
		else
			first_flags = flags;
		if (++q->next == q->size) {
			q->next = 0;
			q->wrap = !q->wrap;
		}
	}
	q->counts[id] = (uint16_t)count;
	write16(first, first_flags);
}

static void add_chain(struct vq *q, uint16_t id, const struct vq_part *parts, unsigned int count, uint16_t extra)
{
	if (q->packed) {
		add_packed(q, id, parts, count, extra);
		return;
	}
	for (unsigned int i = 0; i < count; i++)
		put_desc(q, (uint16_t)((id + i) % q->size), &parts[i],
			 extra | (parts[i].writable ? DESC_WRITE : 0) | (i + 1 < count ? DESC_NEXT : 0),
			 (uint16_t)((id + i + 1) % q->size));
	write16(q->driver + 4 + 2ULL * (q->next % q->size), id);
	write16(q->driver + 2, ++q->next);
}

void vq_add(struct vq *q, uint16_t id, const struct vq_part *parts, unsigned int count)
{
	add_chain(q, id, parts, count, 0);
}

void vq_add_indirect(struct vq *q, uint16_t id, const struct vq_part *parts, unsigned int count, uint64_t table)
{
	const struct vq_part whole = { table, 16 * count, false };

	for (unsigned int i = 0; i < count; i++) {
		uint16_t flags = (parts[i].writable ? DESC_WRITE : 0) | (!q->packed && i + 1 < count ? DESC_NEXT : 0);

		write64(table + 16 * i, parts[i].address);
		write32(table + 16 * i + 8, parts[i].length);
		write16(table + 16 * i + 12, q->packed ? 0 : flags);
		write16(table + 16 * i + 14, q->packed ? flags : (uint16_t)(i + 1));
	}
	add_chain(q, id, &whole, 1, DESC_INDIRECT);
}

void vq_kick(const struct vq *q)
{
	write16(q->bell, q->index);
}

bool vq_used(struct vq *q, uint16_t *id, uint32_t *length)
{
	uint64_t entry;
	uint16_t flags;

	if (q->packed) {
		entry = q->desc + 16ULL * q->seen;
		flags = read16(entry + 14);
		if (!!(flags & DESC_AVAIL) != q->used_wrap || !!(flags & DESC_USED) != q->used_wrap)
			return false;
		*length = read32(entry + 8);
		*id = read16(entry + 12);
		CHECK(*id < VQ_SIZE_MAX);
		q->seen = (uint16_t)(q->seen + q->counts[*id]);
		if (q->seen >= q->size) {
			q->seen = (uint16_t)(q->seen - q->size);
			q->used_wrap = !q->used_wrap;
		}
		return true;
	}
	if (read16(q->device + 2) == q->seen)
		return false;
	entry = q->device + 4 + 8ULL * (q->seen++ % q->size);
	*id = (uint16_t)read32(entry);
	*length = read32(entry + 4);
	return true;
}

bool vq_wait(struct vq *q, uint16_t *id, uint32_t *length, uint32_t us)
{
	uint64_t end = rt_ticks() + (uint64_t)us / 1000 * RT_TICKS_PER_MS;

	while (rt_ticks() < end) {
		if (vq_used(q, id, length))
			return true;
		rt_delay(POLL);
	}
	return vq_used(q, id, length);
}
