/* SPDX-License-Identifier: MIT */
/*
 * The part of vfio_user that has the device by vfio-pci, without an IOMMU: an address for DMA is a physical one.
 * Linux, Documentation/driver-api/vfio.rst and linux/vfio.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vfio_user.h"

enum { MSI_VECTORS = 4, INTX_ROUNDS = 20 };

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* *has_cap: it says that the MSI-X table in it may be mapped too. */
static struct vfio_region_info region_info(const struct vfio *v, unsigned int index, bool *has_cap)
{
	struct {
		struct vfio_region_info info;
		uint8_t caps[256];
	} region = { .info = { .argsz = sizeof(region), .index = index } };
	struct vfio_info_cap_header header;

	check(ioctl(v->device, VFIO_DEVICE_GET_REGION_INFO, &region), "VFIO_DEVICE_GET_REGION_INFO");
	*has_cap = false;
	if (!(region.info.flags & VFIO_REGION_INFO_FLAG_CAPS))
		return region.info;
	for (uint32_t at = region.info.cap_offset; at && at <= sizeof(region) - sizeof(header); at = header.next) {
		memcpy(&header, (uint8_t *)&region + at, sizeof(header));
		if (header.id == VFIO_REGION_INFO_CAP_MSIX_MAPPABLE)
			*has_cap = true;
		if (header.next <= at)
			break;
	}
	return region.info;
}

/* What Linux, and so vfio, makes of BARs of which the server's sizes were rounded up to powers of two. */
static const struct {
	uint64_t size;
	bool map, msix;
} regions[VFIO_PCI_NUM_REGIONS] = {
	[VFIO_PCI_BAR0_REGION_INDEX] = { 0x4000, true, false },
	[VFIO_PCI_BAR1_REGION_INDEX] = { 0x40, false, false },
	[VFIO_PCI_BAR2_REGION_INDEX] = { 0x10000, true, true },
	[VFIO_PCI_BAR4_REGION_INDEX] = { 0x1000, true, false },
	[VFIO_PCI_ROM_REGION_INDEX] = { 0x1000, false, false },
	[VFIO_PCI_CONFIG_REGION_INDEX] = { 0x100, false, false },
};

static volatile uint32_t *map_region(const struct vfio *v, unsigned int index)
{
	bool msix;
	struct vfio_region_info info = region_info(v, index, &msix);
	void *at = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, v->device, (off_t)info.offset);

	if (at == MAP_FAILED)
		die("region %u: mmap: %s", index, strerror(errno));
	return at;
}

static void check_regions(const struct vfio *v)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };

	check(ioctl(v->device, VFIO_DEVICE_GET_INFO, &info), "VFIO_DEVICE_GET_INFO");
	equal("what vfio says of the device", info.flags, VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET);
	equal("regions", info.num_regions, VFIO_PCI_NUM_REGIONS);
	equal("kinds of interrupts", info.num_irqs, VFIO_PCI_NUM_IRQS);
	for (unsigned int i = 0; i < VFIO_PCI_VGA_REGION_INDEX; i++) {
		bool msix;
		struct vfio_region_info region = region_info(v, i, &msix);

		printf("vfio_user: region %u: 0x%llx bytes, flags 0x%x%s\n", i, (unsigned long long)region.size,
		       region.flags, msix ? ", MSI-X mappable" : "");
		equal("its size", region.size, regions[i].size);
		equal("can be read", !!(region.flags & VFIO_REGION_INFO_FLAG_READ), region.size != 0);
		equal("can be mapped", !!(region.flags & VFIO_REGION_INFO_FLAG_MMAP), regions[i].map);
		equal("the table of MSI-X too", msix, regions[i].msix);
	}
}

/* Regions are parts of the device's file. */
static void transfer(const struct vfio *v, unsigned int index, bool write, uint64_t at, void *data, size_t size)
{
	bool msix;
	off_t offset = (off_t)(region_info(v, index, &msix).offset + at);
	ssize_t n = write ? pwrite(v->device, data, size, offset) : pread(v->device, data, size, offset);

	if (n < 0)
		die("region %u: 0x%llx: %s", index, (unsigned long long)at, strerror(errno));
	equal("bytes of a region", (uint64_t)n, size);
}

static uint32_t get_region(const struct vfio *v, unsigned int index, uint64_t at, size_t size)
{
	uint32_t value = 0;

	transfer(v, index, false, at, &value, size);
	return value;
}

static void put_region(const struct vfio *v, unsigned int index, uint64_t at, uint32_t value, size_t size)
{
	transfer(v, index, true, at, &value, size);
}

void vfio_open(struct vfio *v, struct device *d)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char path[256], link[256] = "";

	v->d = d;
	v->container = check(open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC), "/dev/vfio/vfio");
	equal("VFIO_GET_API_VERSION", (uint64_t)check(ioctl(v->container, VFIO_GET_API_VERSION), "vfio"),
	      VFIO_API_VERSION);
	snprintf(path, sizeof(path), "%s/iommu_group", d->path);
	check(readlink(path, link, sizeof(link) - 1), path);
	snprintf(path, sizeof(path), "/dev/vfio/noiommu-%s", base_name(link));
	v->group = check(open(path, O_RDWR | O_CLOEXEC), path);
	check(ioctl(v->group, VFIO_GROUP_GET_STATUS, &status), "VFIO_GROUP_GET_STATUS");
	equal("the group's status", status.flags, VFIO_GROUP_FLAGS_VIABLE);
	check(ioctl(v->group, VFIO_GROUP_SET_CONTAINER, &v->container), "VFIO_GROUP_SET_CONTAINER");
	equal("VFIO_NOIOMMU_IOMMU",
	      (uint64_t)check(ioctl(v->container, VFIO_CHECK_EXTENSION, VFIO_NOIOMMU_IOMMU), "vfio"), 1);
	check(ioctl(v->container, VFIO_SET_IOMMU, VFIO_NOIOMMU_IOMMU), "VFIO_SET_IOMMU");
	v->device = check(ioctl(v->group, VFIO_GROUP_GET_DEVICE_FD, base_name(d->path)), "VFIO_GROUP_GET_DEVICE_FD");
	check_regions(v);
	put_region(v, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND,
		   PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
	d->registers = map_region(v, VFIO_PCI_BAR0_REGION_INDEX);
	d->memory = map_region(v, VFIO_PCI_BAR2_REGION_INDEX);
	d->bells = map_region(v, VFIO_PCI_BAR4_REGION_INDEX);
}

static void rom(const struct vfio *v)
{
	uint8_t bytes[VFUT_ROM_SIZE];

	transfer(v, VFIO_PCI_ROM_REGION_INDEX, false, 0, bytes, sizeof(bytes));
	equal("the ROM's signature", (uint64_t)(bytes[0] | bytes[1] << 8), 0xaa55);
	for (unsigned int i = VFUT_ROM_HEADER; i < sizeof(bytes); i++)
		equal("a byte of the ROM", bytes[i], (uint8_t)(i * 7));
}

void vfio_accesses(const struct vfio *v)
{
	static const unsigned int sizes[] = { 1, 2, 4 };
	const unsigned int bar0 = VFIO_PCI_BAR0_REGION_INDEX, bar2 = VFIO_PCI_BAR2_REGION_INDEX;
	uint8_t wrote[64], got[64];

	equal("vendor and device", get_region(v, VFIO_PCI_CONFIG_REGION_INDEX, PCI_VENDOR_ID, 4),
	      VFUT_DEVICE << 16 | VFUT_VENDOR);
	equal("the command register, as the server has it", get(v->d, VFUT_COMMAND) & 7,
	      PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	equal("BAR0", get_region(v, bar0, VFUT_ID, 4), VFUT_MAGIC);
	equal("BAR1", get_region(v, VFIO_PCI_BAR1_REGION_INDEX, VFUT_ID, 4), VFUT_MAGIC);
	put_region(v, VFIO_PCI_BAR1_REGION_INDEX, VFUT_SCRATCH, 0x4321dcba, 4);
	equal("written by BAR1, read by BAR0", get(v->d, VFUT_SCRATCH), 0x4321dcba);
	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		put_region(v, bar0, VFUT_REGS + 8 * i, 0xa5b6c7d8 + i, sizes[i]);
		equal("written by write(), read by read()", get_region(v, bar0, VFUT_REGS + 8 * i, sizes[i]),
		      (0xa5b6c7d8 + i) & (uint32_t)((1ULL << 8 * sizes[i]) - 1));
	}
	for (unsigned int i = 0; i < sizeof(wrote); i++)
		wrote[i] = (uint8_t)(i * 5 + 1);
	/* From an odd address to another one: vfio splits it. */
	transfer(v, bar0, true, VFUT_REGS + 0x21, wrote, sizeof(wrote) - 2);
	transfer(v, bar0, false, VFUT_REGS + 0x21, got, sizeof(got) - 2);
	equal("a longer piece of BAR0", (uint64_t)memcmp(wrote, got, sizeof(got) - 2), 0);
	transfer(v, bar2, true, VFUT_AREA1, wrote, sizeof(wrote));
	equal("written by write(), read where BAR2 is mapped",
	      (uint64_t)memcmp((const void *)(v->d->memory + VFUT_AREA1 / 4), wrote, sizeof(wrote)), 0);
	rom(v);
}

/*
 * `count` 0 takes them all away, else the vectors from the first one on get these eventfds. Returns 0, or how many the
 * kernel could give if that is less; then nothing was done.
 */
static unsigned int try_irqs(const struct vfio *v, unsigned int index, unsigned int count, const int *fds)
{
	struct {
		struct vfio_irq_set set;
		int32_t fds[VFUT_VECTORS];
	} irqs = { .set = { .argsz = (uint32_t)(sizeof(irqs.set) + count * sizeof(int32_t)),
			    .flags = VFIO_IRQ_SET_ACTION_TRIGGER |
				     (count ? VFIO_IRQ_SET_DATA_EVENTFD : VFIO_IRQ_SET_DATA_NONE),
			    .index = index,
			    .count = count } };

	for (unsigned int i = 0; i < count; i++)
		irqs.fds[i] = fds[i];
	return (unsigned int)check(ioctl(v->device, VFIO_DEVICE_SET_IRQS, &irqs), "VFIO_DEVICE_SET_IRQS");
}

static void set_irqs(const struct vfio *v, unsigned int index, unsigned int count, const int *fds)
{
	equal("vectors that there are instead", try_irqs(v, index, count, fds), 0);
}

static void wait_for_irq(const char *kind, unsigned int vector, int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	eventfd_t count = 0;

	if (check(poll(&p, 1, SECONDS * 1000), "poll") == 0)
		die("%s: vector %u does not come", kind, vector);
	check(eventfd_read(fd, &count), "an eventfd");
}

/* The device raises one after the other: that eventfd counts, and no other. */
static void raise_each(const struct vfio *v, const char *kind, unsigned int index, unsigned int count, const int *fds)
{
	eventfd_t stray;

	for (unsigned int i = 0; i < count; i++) {
		put(v->d, VFUT_IRQ, index << 16 | i);
		wait_for_irq(kind, i, fds[i]);
		for (unsigned int j = 0; j < count; j++)
			if (eventfd_read(fds[j], &stray) == 0)
				die("%s: vector %u raised vector %u", kind, i, j);
	}
}

static void check_irqs(const struct vfio *v, unsigned int index, unsigned int count)
{
	struct vfio_irq_info info = { .argsz = sizeof(info), .index = index };

	check(ioctl(v->device, VFIO_DEVICE_GET_IRQ_INFO, &info), "VFIO_DEVICE_GET_IRQ_INFO");
	equal("vectors", info.count, count);
	equal("by eventfd", info.flags & VFIO_IRQ_INFO_EVENTFD, VFIO_IRQ_INFO_EVENTFD);
}

static void make_eventfds(int *fds, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		fds[i] = check(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");
}

static void close_eventfds(const int *fds, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		close(fds[i]);
}

/* vfio masks the line with each interrupt. Unmasked while the line is still up it would signal at once. */
static void intx(const struct vfio *v)
{
	struct vfio_irq_set unmask = { .argsz = sizeof(unmask),
				       .flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK,
				       .index = VFIO_PCI_INTX_IRQ_INDEX,
				       .count = 1 };
	eventfd_t stray;
	int fd;

	check_irqs(v, VFIO_PCI_INTX_IRQ_INDEX, 1);
	make_eventfds(&fd, 1);
	set_irqs(v, VFIO_PCI_INTX_IRQ_INDEX, 1, &fd);
	printf("vfio_user: INTx, times: %d\n", INTX_ROUNDS);
	for (unsigned int i = 0; i < INTX_ROUNDS; i++) {
		put(v->d, VFUT_IRQ, VFIO_PCI_INTX_IRQ_INDEX << 16);
		wait_for_irq("INTx", 0, fd);
		check(ioctl(v->device, VFIO_DEVICE_SET_IRQS, &unmask), "VFIO_DEVICE_SET_IRQS");
		if (eventfd_read(fd, &stray) == 0)
			die("INTx %u comes twice", i);
	}
	set_irqs(v, VFIO_PCI_INTX_IRQ_INDEX, 0, NULL);
	close_eventfds(&fd, 1);
}

/* Linux on x86 has more than one vector of MSI only with an IOMMU that maps interrupts. MSI-X must be off by now. */
static void msi(const struct vfio *v, const int *msix_fds)
{
	unsigned int count = MSI_VECTORS, less;
	int fds[MSI_VECTORS];
	eventfd_t stray;

	check_irqs(v, VFIO_PCI_MSI_IRQ_INDEX, MSI_VECTORS);
	make_eventfds(fds, MSI_VECTORS);
	less = try_irqs(v, VFIO_PCI_MSI_IRQ_INDEX, count, fds);
	if (less) {
		count = less;
		set_irqs(v, VFIO_PCI_MSI_IRQ_INDEX, count, fds);
	}
	printf("vfio_user: MSI, vectors: %u\n", count);
	put(v->d, VFUT_IRQ, VFIO_PCI_MSIX_IRQ_INDEX << 16);
	raise_each(v, "MSI", VFIO_PCI_MSI_IRQ_INDEX, count, fds);
	if (eventfd_read(msix_fds[0], &stray) == 0)
		die("MSI-X comes although it is off");
	set_irqs(v, VFIO_PCI_MSI_IRQ_INDEX, 0, NULL);
	close_eventfds(fds, MSI_VECTORS);
}

void vfio_interrupts(const struct vfio *v, void (*then)(const struct device *d, unsigned int vector))
{
	int fds[VFUT_VECTORS];

	check_irqs(v, VFIO_PCI_MSIX_IRQ_INDEX, VFUT_VECTORS);
	make_eventfds(fds, VFUT_VECTORS);
	set_irqs(v, VFIO_PCI_MSIX_IRQ_INDEX, VFUT_VECTORS, fds);
	printf("vfio_user: MSI-X, vectors: %d\n", VFUT_VECTORS);
	raise_each(v, "MSI-X", VFIO_PCI_MSIX_IRQ_INDEX, VFUT_VECTORS, fds);
	then(v->d, VFUT_VECTORS - 1);
	wait_for_irq("MSI-X", VFUT_VECTORS - 1, fds[VFUT_VECTORS - 1]);
	set_irqs(v, VFIO_PCI_MSIX_IRQ_INDEX, 0, NULL);

	msi(v, fds);
	close_eventfds(fds, VFUT_VECTORS);
	intx(v);
}

void vfio_reset(const struct vfio *v)
{
	uint32_t command, resets = get(v->d, VFUT_RESETS);
	int fds[VFUT_VECTORS];

	make_eventfds(fds, VFUT_VECTORS);
	set_irqs(v, VFIO_PCI_MSIX_IRQ_INDEX, VFUT_VECTORS, fds);
	command = get_region(v, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, 2);
	check(ioctl(v->device, VFIO_DEVICE_RESET), "VFIO_DEVICE_RESET");
	puts("vfio_user: a reset");
	equal("the command register", get_region(v, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, 2), command);
	equal("resets", get(v->d, VFUT_RESETS) - resets, 1);
	raise_each(v, "MSI-X after a reset", VFIO_PCI_MSIX_IRQ_INDEX, VFUT_VECTORS, fds);
	set_irqs(v, VFIO_PCI_MSIX_IRQ_INDEX, 0, NULL);
	close_eventfds(fds, VFUT_VECTORS);
}

void vfio_close(struct vfio *v)
{
	check(munmap((void *)v->d->registers, regions[VFIO_PCI_BAR0_REGION_INDEX].size), "munmap");
	check(munmap((void *)v->d->memory, regions[VFIO_PCI_BAR2_REGION_INDEX].size), "munmap");
	check(munmap((void *)v->d->bells, regions[VFIO_PCI_BAR4_REGION_INDEX].size), "munmap");
	close(v->device);
	close(v->group);
	close(v->container);
}
