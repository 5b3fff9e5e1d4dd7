/* SPDX-License-Identifier: MIT */
#include "vmm/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/log.h"
#include "vmm/trace.h"

#define HUGE_PAGE (2ULL << 20)
#define PAGE	  4096ULL

/* Slot numbers of RAM; everything else is handed out above them. */
enum { SLOT_LOW, SLOT_HIGH, SLOT_FIRST_FREE };

static int set_slot(struct memory *mem, int slot, uint64_t gpa, void *host, uint64_t size, bool readonly)
{
	struct kvm_userspace_memory_region region = {
		.slot = (uint32_t)slot,
		.flags = readonly ? KVM_MEM_READONLY : 0,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)host,
	};

	return ioctl(mem->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0 ? -errno : 0;
}

static int open_memfd(struct memory *mem)
{
	unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;

	if (mem->backing == RAM_HUGETLB)
		flags |= MFD_HUGETLB | MFD_HUGE_2MB;
	mem->fd = memfd_create("vmm-ram", flags);
	if (mem->fd < 0)
		return -errno;
	if (ftruncate(mem->fd, (off_t)mem->size) < 0)
		return -errno;
	/* A peer that is given this descriptor must not be able to take pages away under the guest. */
	if (fcntl(mem->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	return 0;
}

/*
 * Guest-physical 0 and 4 GiB both start on a huge page of the host, so that KVM can map 2 MiB at a time: reserve a
 * huge page more than needed and start at the first boundary.
 */
static int map_ram(struct memory *mem)
{
	int flags = MAP_NORESERVE | (mem->fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
	uint8_t *start;

	mem->reserved = mem->size + HUGE_PAGE;
	if (mem->fd < 0) {
		mem->reservation = mmap(NULL, mem->reserved, PROT_READ | PROT_WRITE, flags, -1, 0);
	} else {
		mem->reservation =
			mmap(NULL, mem->reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	}
	if (mem->reservation == MAP_FAILED) {
		mem->reservation = NULL;
		return -errno;
	}
	start = (uint8_t *)(((uintptr_t)mem->reservation + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
	if (mem->fd >= 0) {
		/* Pages of hugetlbfs are reserved here (no MAP_NORESERVE): a shortage is an error now, not SIGBUS
		 * later. */
		if (mem->backing == RAM_HUGETLB)
			flags &= ~MAP_NORESERVE;
		if (mmap(start, mem->size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, mem->fd, 0) == MAP_FAILED)
			return -errno;
	}
	mem->host = start;
	/* Only advice: a host without transparent huge pages runs the guest all the same. */
	if (mem->backing != RAM_HUGETLB)
		madvise(start, mem->size, MADV_HUGEPAGE);
	return 0;
}

int memory_init(struct memory *mem, int vm_fd, uint64_t size, enum ram_backing backing)
{
	int ret = 0;

	memset(mem, 0, sizeof(*mem));
	mem->vm_fd = vm_fd;
	mem->fd = -1;
	mem->size = size;
	mem->low_size = size < RAM_LOW_MAX ? size : RAM_LOW_MAX;
	mem->backing = backing;
	mem->slots_used[0] = (1ULL << SLOT_FIRST_FREE) - 1;
	pthread_mutex_init(&mem->lock, NULL);
	if (backing != RAM_ANON)
		ret = open_memfd(mem);
	if (!ret)
		ret = map_ram(mem);
	if (ret) {
		log_line("--memory: cannot get %llu MiB of %s: %s", (unsigned long long)(size >> 20),
			 backing == RAM_HUGETLB ? "2 MiB huge pages (see /proc/sys/vm/nr_hugepages)" : "memory",
			 strerror(-ret));
		return ret;
	}
	ret = set_slot(mem, SLOT_LOW, 0, mem->host, mem->low_size, false);
	if (!ret && size > mem->low_size)
		ret = set_slot(mem, SLOT_HIGH, RAM_HIGH_BASE, mem->host + mem->low_size, size - mem->low_size, false);
	if (ret)
		log_line("--memory: KVM does not take %llu MiB: %s", (unsigned long long)(size >> 20), strerror(-ret));
	return ret;
}

void memory_destroy(struct memory *mem)
{
	if (mem->reservation)
		munmap(mem->reservation, mem->reserved);
	if (mem->fd >= 0)
		close(mem->fd);
	mem->reservation = NULL;
	mem->host = NULL;
	mem->fd = -1;
}

void *ram_ptr(const struct memory *mem, uint64_t gpa, uint64_t len)
{
	if (!len)
		return NULL;
	if (gpa < mem->low_size)
		return len <= mem->low_size - gpa ? mem->host + gpa : NULL;
	if (gpa >= RAM_HIGH_BASE) {
		uint64_t offset = gpa - RAM_HIGH_BASE, high = mem->size - mem->low_size;

		return offset < high && len <= high - offset ? mem->host + mem->low_size + offset : NULL;
	}
	return NULL;
}

/* How many of pfns[0..count) follow one another in RAM, and where in its file; 0: the first is not RAM. */
static size_t find_run(const struct memory *mem, const uint64_t *pfns, size_t count, off_t *offset)
{
	const uint8_t *first = pfns[0] < UINT64_MAX / PAGE ? ram_ptr(mem, pfns[0] * PAGE, PAGE) : NULL;
	size_t n = 1;

	if (!first)
		return 0;
	while (n < count && pfns[n] == pfns[0] + n && ram_ptr(mem, pfns[n] * PAGE, PAGE) == first + n * PAGE)
		n++;
	*offset = first - mem->host;
	return n;
}

static bool map_once(const struct memory *mem, uint8_t *at, const uint64_t *pfns, size_t count)
{
	while (count) {
		off_t offset;
		size_t n = find_run(mem, pfns, count, &offset);

		if (!n ||
		    mmap(at, n * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, mem->fd, offset) == MAP_FAILED)
			return false;
		at += n * PAGE;
		pfns += n;
		count -= n;
	}
	return true;
}

void *ram_map_pages(struct memory *mem, const uint64_t *pfns, size_t count, unsigned int times)
{
	uint8_t *start;
	bool ok = true;

	if (mem->backing != RAM_MEMFD || !count || !times || count > (RAM_MAPPED_PAGES_MAX - mem->mapped_pages) / times)
		return NULL;
	start = mmap(NULL, count * times * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (start == MAP_FAILED)
		return NULL;
	for (unsigned int i = 0; i < times && ok; i++)
		ok = map_once(mem, start + i * count * PAGE, pfns, count);
	if (!ok) {
		munmap(start, count * times * PAGE);
		return NULL;
	}
	mem->mapped_pages += count * times;
	return start;
}

void ram_unmap_pages(struct memory *mem, void *address, size_t count, unsigned int times)
{
	munmap(address, count * times * PAGE);
	mem->mapped_pages -= count * times;
}

int ram_clear(struct memory *mem)
{
	if (mem->fd >= 0)
		return fallocate(mem->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)mem->size) < 0 ? -errno
													       : 0;
	return madvise(mem->host, mem->size, MADV_DONTNEED) < 0 ? -errno : 0;
}

int memslot_add(struct memory *mem, uint64_t gpa, void *host, uint64_t size, bool readonly)
{
	int slot = -ENOSPC, ret;

	pthread_mutex_lock(&mem->lock);
	for (int i = SLOT_FIRST_FREE; i < MEMSLOTS_MAX; i++) {
		if (!(mem->slots_used[i / 64] & 1ULL << i % 64)) {
			slot = i;
			break;
		}
	}
	if (slot >= 0) {
		ret = set_slot(mem, slot, gpa, host, size, readonly);
		if (ret)
			slot = ret;
		else
			mem->slots_used[slot / 64] |= 1ULL << slot % 64;
	}
	pthread_mutex_unlock(&mem->lock);
	TRACE(memslot_add, "slot %d gpa 0x%llx size 0x%llx readonly %d", slot, (unsigned long long)gpa,
	      (unsigned long long)size, (int)readonly);
	return slot;
}

int memslot_del(struct memory *mem, int slot)
{
	int ret;

	TRACE(memslot_del, "slot %d", slot);
	if (slot < SLOT_FIRST_FREE || slot >= MEMSLOTS_MAX)
		return -EINVAL;
	pthread_mutex_lock(&mem->lock);
	ret = set_slot(mem, slot, 0, NULL, 0, false);
	mem->slots_used[slot / 64] &= ~(1ULL << slot % 64);
	pthread_mutex_unlock(&mem->lock);
	return ret;
}
