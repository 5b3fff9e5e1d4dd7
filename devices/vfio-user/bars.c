/* SPDX-License-Identifier: MIT */
/*
 * BARs. A region becomes a BAR of the next power of two; what is beyond the region reads all ones. Areas of the
 * server's file are memslots, so that the guest reaches them without vmm; vmm itself never touches them, because the
 * server can truncate the file at any time. The table and the pending bits of MSI-X are ours, also where the server
 * would let us map them, and whole pages are kept free for them. The rest goes by messages.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devices/vfio-user/file.h"
#include "devices/vfio-user/internal.h"
#include "vmm/log.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

#define SECOND_NS 1000000000ULL

static uint64_t part_read(void *opaque, uint64_t offset, unsigned int size)
{
	const struct vfu_part *p = opaque;
	uint64_t value;

	vfu_link_read(&p->dev->link, p->region, p->offset + offset, size, &value);
	return value;
}

/*
 * As KVM would: an eventfd that is full stays so. Whether it blocks is the server's business, since the flag is the
 * file's; so it is asked first. (One that fills it in that moment keeps the vCPU until the run's end, and loses a
 * guest.)
 */
static void signal_eventfd(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	if (poll(&p, 1, 0) == 1 && (p.revents & POLLOUT))
		eventfd_write(fd, 1);
}

/* A doorbell that KVM does not watch for us. */
static bool ring(const struct vfu_doorbell *b, uint64_t offset, unsigned int size, uint64_t value)
{
	uint64_t mask = size < 8 ? (1ULL << 8 * size) - 1 : UINT64_MAX;

	if (b->entry.offset != offset || (b->entry.size && b->entry.size != size) ||
	    (b->entry.match && b->entry.datamatch != (value & mask)))
		return false;
	/* By a system call: a mapping could be taken away. The server sees the value before it wakes. */
	if (b->shadow >= 0 && pwrite(b->shadow, &value, size, (off_t)b->entry.shadow_offset) != (ssize_t)size)
		TRACE(vfio_user_event, "shadow of a doorbell: %s", strerror(errno));
	signal_eventfd(b->fd);
	return true;
}

static void part_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	const struct vfu_part *p = opaque;
	struct vfu_device *d = p->dev;

	if (!vfu_link_alive(&d->link))
		return;
	for (unsigned int i = 0; i < d->nr_doorbells; i++)
		if (d->doorbells[i].region == p->region && ring(&d->doorbells[i], p->offset + offset, size, value))
			return;
	vfu_link_write(&d->link, p->region, p->offset + offset, size, value, d->may_post[p->region]);
}

static const struct io_ops part_ops = { part_read, part_write };

static uint64_t round_up(uint64_t size)
{
	uint64_t n = 1;

	while (n < size)
		n <<= 1;
	return n;
}

static uint32_t bar_register(const struct vfu_info *info, unsigned int i)
{
	uint32_t value;

	memcpy(&value, &info->config[PCI_BAR0 + 4 * i], sizeof(value));
	return value;
}

static int create_bar(struct vfu_device *d, unsigned int i, const char **why)
{
	const struct vfu_region *r = &d->info->regions[i];
	uint32_t low = bar_register(d->info, i);
	bool io = low & PCI_BAR_IO, wide = !io && (low & 6) == PCI_BAR_MEM64;
	uint64_t min = io ? 4 : 16, max = io ? 1 << 16 : wide ? 1ULL << 46 : 1ULL << 31;
	int ret;

	if (!io && (low & 2)) {
		*why = "a BAR is neither I/O nor 32-bit nor 64-bit memory";
		return -EPROTO;
	}
	if (wide && (i + 1 == VFU_BARS || d->info->regions[i + 1].size)) {
		*why = "a 64-bit BAR has no room for its upper half";
		return -EPROTO;
	}
	if (r->size > max) {
		log_line("--vfio-user %s: BAR %u of 0x%llx bytes is left out: it is too large", d->options.socket, i,
			 (unsigned long long)r->size);
		d->info->regions[i].size = 0;
		return 0;
	}
	ret = pci_add_bar(&d->fn, i, round_up(r->size < min ? min : r->size),
			  io ? PCI_BAR_IO : low & (PCI_BAR_MEM64 | PCI_BAR_PREFETCH));
	if (ret)
		*why = "a BAR's kind and size do not go together";
	d->told[i] = low;
	d->may_post[i] = d->options.posted && !(r->flags & VFU_REGION_MMAP);
	if (io)
		d->info->regions[i].nr_areas = 0;
	if (r->dropped_areas)
		log_line("--vfio-user %s: BAR %u: %u mappable areas are not mapped: not whole pages, not in the file, "
			 "or too many",
			 d->options.socket, i, r->dropped_areas);
	return ret;
}

int vfu_bars_create(struct vfu_device *d, const char **why)
{
	int ret = 0;

	for (unsigned int i = 0; i < VFU_BARS && !ret; i++)
		if (d->info->regions[i].size)
			ret = create_bar(d, i, why);
	return ret;
}

/* The first piece of a BAR's list that begins at or after `at`; NULL: none. */
static const struct pci_bar_segment *next_taken(const struct pci_bar *bar, uint64_t at)
{
	const struct pci_bar_segment *best = NULL;

	for (unsigned int i = 0; i < bar->nr_segments; i++) {
		const struct pci_bar_segment *s = &bar->segments[i];

		if (s->offset + s->length > at && (!best || s->offset < best->offset))
			best = s;
	}
	return best;
}

static struct vfu_part *new_part(struct vfu_device *d, unsigned int i, uint64_t offset)
{
	struct vfu_part *p;

	if (d->nr_parts[i] == PCI_BAR_SEGMENTS)
		return NULL;
	p = &d->parts[i][d->nr_parts[i]++];
	*p = (struct vfu_part){ d, i, offset };
	return p;
}

/* One window for [from, to) of a region; without one, the range is trapped. */
static int add_window(struct vfu_device *d, unsigned int i, uint64_t from, uint64_t to)
{
	const struct vfu_region *r = &d->info->regions[i];
	bool readonly = !(r->flags & VFU_REGION_WRITABLE);
	struct vfu_window *w = &d->windows[d->nr_windows];
	struct vfu_part *part;
	void *host;

	if (d->nr_windows == sizeof(d->windows) / sizeof(d->windows[0]))
		return 0;
	host = mmap(NULL, to - from, PROT_READ | (readonly ? 0 : PROT_WRITE), MAP_SHARED, d->info->region_fds[i],
		    (off_t)(r->fd_offset + from));
	if (host == MAP_FAILED)
		return 0;
	*w = (struct vfu_window){ host, from, to - from, i };
	d->nr_windows++;
	part = new_part(d, i, from);
	return part ? pci_bar_add_foreign(&d->fn, i, from, to - from, host, readonly, &part_ops, part) : -ENOSPC;
}

/* Windows for an area, around the pages of the BAR's own registers, which so far are those of MSI-X. */
static int add_area(struct vfu_device *d, unsigned int i, const struct vfu_area *area, const struct pci_bar *bar,
		    unsigned int nr_own)
{
	uint64_t at = area->offset, end = area->offset + area->size;
	int ret = 0;

	while (at < end && !ret) {
		uint64_t to = end, next = end;

		for (unsigned int n = 0; n < nr_own; n++) {
			const struct pci_bar_segment *s = &bar->segments[n];
			uint64_t first = s->offset & ~(uint64_t)(VFU_PAGE - 1);
			uint64_t last = (s->offset + s->length + VFU_PAGE - 1) & ~(uint64_t)(VFU_PAGE - 1);

			if (last > at && first < to) {
				to = first > at ? first : at;
				next = last;
			}
		}
		if (to > at)
			ret = add_window(d, i, at, to);
		at = next;
	}
	return ret;
}

static int fill_bar(struct vfu_device *d, unsigned int i)
{
	const struct vfu_region *r = &d->info->regions[i];
	const struct pci_bar *bar = &d->fn.bars[i];
	unsigned int nr_own = bar->nr_segments;
	uint64_t at = 0;
	int ret = 0;

	for (unsigned int n = 0; n < r->nr_areas && !ret; n++)
		ret = add_area(d, i, &r->areas[n], bar, nr_own);
	while (at < r->size && !ret) {
		const struct pci_bar_segment *s = next_taken(bar, at);
		uint64_t end = s && s->offset < r->size ? s->offset : r->size;

		if (end > at) {
			struct vfu_part *part = new_part(d, i, at);

			ret = part ? pci_bar_add_registers(&d->fn, i, at, end - at, &part_ops, part) : -ENOSPC;
		}
		at = s && s->offset < r->size ? s->offset + s->length : r->size;
	}
	return ret;
}

/* A file that pwrite() changes in place, without waiting for somebody. */
static bool is_shadow(int fd, const struct vfu_io_fd *entry)
{
	int flags = fcntl(fd, F_GETFL);

	return vfu_file_size(fd) >= entry->shadow_offset + entry->size && flags >= 0 && !(flags & O_APPEND) &&
	       (flags & O_ACCMODE) == O_RDWR;
}

/* Whether writes there would go to the server by messages: what is mapped exits nowhere, and MSI-X is ours. */
static bool goes_by_message(const struct vfu_device *d, unsigned int region, const struct vfu_io_fd *entry)
{
	const struct pci_bar *bar = &d->fn.bars[region];

	for (unsigned int i = 0; i < bar->nr_segments; i++) {
		const struct pci_bar_segment *s = &bar->segments[i];

		if (s->ops == &part_ops && !s->host && entry->offset >= s->offset &&
		    entry->offset - s->offset < s->length && entry->size <= s->length - (entry->offset - s->offset))
			return true;
	}
	return false;
}

static void add_doorbell(struct vfu_device *d, unsigned int region, const struct vfu_io_fd *entry)
{
	const struct vfu_doorbells *from = &d->info->doorbells[region];
	struct vfu_doorbell *b = &d->doorbells[d->nr_doorbells];
	bool shadow = entry->type == VFU_IOEVENTFD_SHADOW;

	if (!goes_by_message(d, region, entry) || !vfu_is_eventfd(from->fds[entry->fd_index]) ||
	    (shadow && !is_shadow(from->fds[entry->shadow_index], entry)))
		return;
	*b = (struct vfu_doorbell){ .entry = *entry,
				    .region = region,
				    .fd = from->fds[entry->fd_index],
				    .shadow = shadow ? from->fds[entry->shadow_index] : -1,
				    .registered = PCI_UNMAPPED };
	d->nr_doorbells++;
}

int vfu_bars_fill(struct vfu_device *d)
{
	unsigned int count = 0;
	int ret = 0;

	for (unsigned int i = 0; i < VFU_BARS && !ret; i++) {
		count += d->info->doorbells[i].count;
		if (d->info->regions[i].size)
			ret = fill_bar(d, i);
	}
	if (ret || !count)
		return ret;
	d->doorbells = calloc(count, sizeof(*d->doorbells));
	if (!d->doorbells)
		return -ENOMEM;
	for (unsigned int i = 0; i < VFU_BARS; i++)
		for (unsigned int n = 0; d->info->regions[i].size && n < d->info->doorbells[i].count; n++)
			add_doorbell(d, i, &d->info->doorbells[i].entries[n]);
	return 0;
}

static int set_ioeventfd(struct vfu_device *d, const struct vfu_doorbell *b, uint64_t address, bool on)
{
	bool io = d->fn.bars[b->region].flags & PCI_BAR_IO;
	struct kvm_ioeventfd k = {
		.datamatch = b->entry.datamatch,
		.addr = address + b->entry.offset,
		.len = (uint32_t)b->entry.size,
		.fd = b->fd,
		.flags = (b->entry.match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0) | (io ? KVM_IOEVENTFD_FLAG_PIO : 0) |
			 (on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN),
	};

	return ioctl(d->vm->fd, KVM_IOEVENTFD, &k) < 0 ? -errno : 0;
}

static void move_doorbell(struct vfu_device *d, struct vfu_doorbell *b, uint64_t address)
{
	if (b->registered != PCI_UNMAPPED)
		set_ioeventfd(d, b, b->registered, false);
	b->registered = PCI_UNMAPPED;
	/* Where KVM does not take it, the write exits and part_write() does its work. */
	if (address != PCI_UNMAPPED && b->shadow < 0 && vfu_link_alive(&d->link) &&
	    set_ioeventfd(d, b, address, true) == 0)
		b->registered = address;
}

void vfu_bar_moved(struct pci_function *fn, unsigned int index, uint64_t address)
{
	struct vfu_device *d = vfu_device_of(fn);

	for (unsigned int i = 0; i < d->nr_doorbells; i++)
		if (d->doorbells[i].region == index)
			move_doorbell(d, &d->doorbells[i], address);
}

/* Loop thread, without bus->lock; no vCPU gets to the doorbells any more but for one that is on its way out. */
void vfu_doorbells_release(struct vfu_device *d)
{
	pthread_mutex_lock(&d->fn.bus->lock);
	for (unsigned int i = 0; i < d->nr_doorbells; i++)
		move_doorbell(d, &d->doorbells[i], PCI_UNMAPPED);
	pthread_mutex_unlock(&d->fn.bus->lock);
}

static bool shrunk(const struct vfu_device *d, unsigned int region)
{
	const struct vfu_region *r = &d->info->regions[region];

	for (unsigned int i = 0; i < d->nr_windows; i++) {
		const struct vfu_window *w = &d->windows[i];

		if (w->region == region &&
		    vfu_file_size(d->info->region_fds[region]) < r->fd_offset + w->offset + w->size)
			return true;
	}
	return false;
}

bool vfu_memory_fault(struct pci_function *fn, bool sure)
{
	struct vfu_device *d = vfu_device_of(fn);
	uint64_t now = clock_ns();
	bool any = false;

	/* Another vCPU may have had the same fault. */
	if (now - atomic_load(&d->lost_ns) < SECOND_NS)
		return true;
	for (unsigned int i = 0; i < d->nr_windows; i++) {
		unsigned int region = d->windows[i].region;

		if (sure && !shrunk(d, region))
			continue;
		pci_bar_lose(fn, region);
		any = true;
	}
	if (any) {
		atomic_store(&d->lost_ns, now);
		log_line("--vfio-user %s: a file that was mapped has lost pages: its BAR is trapped from now on",
			 d->options.socket);
	}
	return any;
}

/* Puts a new server's files where the old one's were: the guest's mappings stay. */
int vfu_bars_remap(struct vfu_device *d, struct vfu_info *info)
{
	for (unsigned int i = 0; i < d->nr_windows; i++) {
		const struct vfu_window *w = &d->windows[i];
		const struct vfu_region *r = &info->regions[w->region];
		int prot = PROT_READ | (r->flags & VFU_REGION_WRITABLE ? PROT_WRITE : 0);

		if (mmap(w->host, w->size, prot, MAP_SHARED | MAP_FIXED, info->region_fds[w->region],
			 (off_t)(r->fd_offset + w->offset)) == MAP_FAILED)
			return -errno;
	}
	return 0;
}

/* The numbers of descriptors stay: a vCPU that is using one has either the old file or the new. */
static int replace_fd(int from, int to)
{
	return to < 0 || dup3(from, to, O_CLOEXEC) >= 0 ? 0 : -errno;
}

int vfu_bars_reopen(struct vfu_device *d, struct vfu_info *info)
{
	int ret = 0;

	for (unsigned int i = 0; i < d->nr_doorbells; i++) {
		const struct vfu_doorbell *b = &d->doorbells[i];
		const struct vfu_doorbells *to = &info->doorbells[b->region];

		if (!vfu_is_eventfd(to->fds[b->entry.fd_index]) ||
		    (b->shadow >= 0 && !is_shadow(to->fds[b->entry.shadow_index], &b->entry)))
			return -EINVAL;
	}
	for (unsigned int i = 0; i < VFU_BARS && !ret; i++) {
		ret = replace_fd(info->region_fds[i], d->info->region_fds[i]);
		for (unsigned int n = 0; n < d->info->doorbells[i].nr_fds && !ret; n++)
			ret = replace_fd(info->doorbells[i].fds[n], d->info->doorbells[i].fds[n]);
	}
	return ret;
}

void vfu_doorbells_restore(struct vfu_device *d)
{
	pthread_mutex_lock(&d->fn.bus->lock);
	for (unsigned int i = 0; i < VFU_BARS; i++)
		vfu_bar_moved(&d->fn, i, d->fn.bars[i].mapped);
	pthread_mutex_unlock(&d->fn.bus->lock);
}

void vfu_bars_destroy(struct vfu_device *d)
{
	for (unsigned int i = 0; i < d->nr_windows; i++)
		munmap(d->windows[i].host, d->windows[i].size);
	free(d->doorbells);
}
