/* SPDX-License-Identifier: MIT */
/*
 * Guest RAM and the machine's memslots: the one owner of both.
 *
 * RAM is one host mapping, 2 MiB aligned. Its first low_size bytes are guest-physical 0.., at most 2 GiB (the
 * windows of stock firmware and of PCI lie above); the rest starts at 4 GiB.
 */
#ifndef VMM_MEMORY_H
#define VMM_MEMORY_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RAM_LOW_MAX   (2ULL << 30)
#define RAM_HIGH_BASE (4ULL << 30)
#define MEMSLOTS_MAX  512

enum ram_backing {
	RAM_ANON,    /* private anonymous memory, transparent huge pages */
	RAM_MEMFD,   /* sealed memfd, shareable with a peer process */
	RAM_HUGETLB, /* memfd on hugetlbfs, 2 MiB pages, reserved at start */
};

struct memory {
	int vm_fd;
	uint8_t *host;
	uint64_t size, low_size;
	int fd; /* memfd or -1 */
	enum ram_backing backing;
	pthread_mutex_t lock; /* memslot numbers */
	uint64_t slots_used[MEMSLOTS_MAX / 64];
	void *reservation; /* the whole address range mmapped, for munmap */
	size_t reserved;
	size_t mapped_pages; /* by ram_map_pages(); loop thread */
};

/* Allocates RAM and gives it to KVM. Prints the cause and returns -errno on failure. */
int memory_init(struct memory *mem, int vm_fd, uint64_t size, enum ram_backing backing);
void memory_destroy(struct memory *mem);

/* Host address of guest-physical [gpa, gpa + len), or NULL unless every byte of it is RAM in one piece. len 0: NULL. */
void *ram_ptr(const struct memory *mem, uint64_t gpa, uint64_t len);

/*
 * A second mapping of guest pages of 4 KiB, given by number, in that order and so often in a row. It shows the same
 * memory, also after ram_clear(). NULL if one is not RAM, if RAM is not a memfd of small pages, if there are too many
 * such mappings already, or if the host will not: to be expected, as each run of pages costs the process one of its
 * 65,530 areas. Loop thread. ram_unmap_pages() with the same count and times.
 */
#define RAM_MAPPED_PAGES_MAX 32768
void *ram_map_pages(struct memory *mem, const uint64_t *pfns, size_t count, unsigned int times);
void ram_unmap_pages(struct memory *mem, void *address, size_t count, unsigned int times);

/* Makes all of RAM zero again without touching pages (for a reset). */
int ram_clear(struct memory *mem);

/*
 * A memslot for something that is not RAM: a BAR, a flash window, a register page. host must be page aligned and
 * stay mapped until memslot_del(). Returns the slot number (>= 0) or -errno.
 */
int memslot_add(struct memory *mem, uint64_t gpa, void *host, uint64_t size, bool readonly);
int memslot_del(struct memory *mem, int slot);

#endif
