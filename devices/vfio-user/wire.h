/* SPDX-License-Identifier: MIT */
/*
 * The messages of vfio-user as they are on the socket, in the host's byte order. Source: "vfio-user Protocol
 * Specification" (QEMU, docs/interop/vfio-user.rst), and libvfio-user's include/vfio-user.h where the two differ:
 * there the layout that real servers use is the one here, and a comment says so.
 */
#ifndef DEVICES_VFIO_USER_WIRE_H
#define DEVICES_VFIO_USER_WIRE_H

#include <stdint.h>

enum vfu_command {
	VFU_VERSION = 1,
	VFU_DMA_MAP = 2,
	VFU_DMA_UNMAP = 3,
	VFU_DEVICE_GET_INFO = 4,
	VFU_GET_REGION_INFO = 5,
	VFU_GET_REGION_IO_FDS = 6,
	VFU_GET_IRQ_INFO = 7,
	VFU_SET_IRQS = 8,
	VFU_REGION_READ = 9,
	VFU_REGION_WRITE = 10,
	VFU_DMA_READ = 11, /* server to client */
	VFU_DMA_WRITE = 12,
	VFU_DEVICE_RESET = 13,
	VFU_REGION_WRITE_MULTI = 15,
};

/* Header, flags. */
enum {
	VFU_TYPE = 0xf,
	VFU_TYPE_COMMAND = 0,
	VFU_TYPE_REPLY = 1,
	VFU_NO_REPLY = 0x10,
	VFU_ERROR = 0x20,
};

struct vfu_header {
	uint16_t id;
	uint16_t command;
	uint32_t size; /* of the message, header included */
	uint32_t flags;
	uint32_t error; /* an errno, if VFU_ERROR */
};

struct vfu_version {
	uint16_t major, minor;
	/* then JSON and a NUL, or nothing */
};

enum { VFU_DMA_READABLE = 1, VFU_DMA_WRITABLE = 2 };

struct vfu_dma_map {
	uint32_t argsz, flags;
	uint64_t fd_offset, address, size;
};

/* The reply repeats it. */
struct vfu_dma_unmap {
	uint32_t argsz, flags;
	uint64_t address, size;
};

enum { VFU_DEVICE_RESETTABLE = 1, VFU_DEVICE_PCI = 2 };

struct vfu_device_info {
	uint32_t argsz, flags, num_regions, num_irqs;
};

enum { VFU_REGION_READABLE = 1, VFU_REGION_WRITABLE = 2, VFU_REGION_MMAP = 4, VFU_REGION_CAPS = 8 };

/* Indexes of regions of a PCI device; 0 to 5 are its BARs. */
enum { VFU_REGION_ROM = 6, VFU_REGION_CONFIG = 7, VFU_REGION_VGA = 8 };

struct vfu_region_info {
	uint32_t argsz, flags, index, cap_offset;
	uint64_t size, offset; /* offset: of the region in the descriptor that comes along */
};

enum { VFU_CAP_SPARSE_MMAP = 1, VFU_CAP_MSIX_MAPPABLE = 3 };

struct vfu_cap {
	uint16_t id, version;
	uint32_t next; /* offset from the start of struct vfu_region_info; 0: the last one */
};

struct vfu_cap_sparse {
	struct vfu_cap header;
	uint32_t nr_areas, reserved;
	/* then struct vfu_wire_area */
};

struct vfu_wire_area {
	uint64_t offset, size;
};

struct vfu_io_fds {
	uint32_t argsz, flags, index, count;
	/* then the entries; (argsz - 16) / count is the size of one */
};

enum { VFU_IOEVENTFD = 0, VFU_IOREGIONFD = 1, VFU_IOEVENTFD_SHADOW = 2 };

/* As the specification has it. */
struct vfu_io_fd_40 {
	uint64_t offset, size;
	uint32_t fd_index, type, flags, reserved;
	uint64_t datamatch;
};

/* As libvfio-user has it since shadow ioeventfds. */
struct vfu_io_fd_48 {
	uint64_t offset, size;
	uint32_t fd_index, type, flags, shadow_fd_index;
	uint64_t shadow_offset, datamatch;
};

enum { VFU_IRQ_INTX, VFU_IRQ_MSI, VFU_IRQ_MSIX, VFU_IRQ_ERR, VFU_IRQ_REQ, VFU_IRQS };
enum { VFU_IRQ_EVENTFD = 1, VFU_IRQ_MASKABLE = 2, VFU_IRQ_AUTOMASKED = 4 };

struct vfu_irq_info {
	uint32_t argsz, flags, index, count;
};

enum {
	VFU_SET_DATA_NONE = 1,
	VFU_SET_DATA_EVENTFD = 4,
	VFU_SET_UNMASK = 0x10,
	VFU_SET_TRIGGER = 0x20,
};

struct vfu_set_irqs {
	uint32_t argsz, flags, index, start, count;
};

/* Of REGION_READ and REGION_WRITE; data follows in a write and in the reply to a read. */
struct vfu_region_access {
	uint64_t offset;
	uint32_t region, count;
};

struct vfu_write_one {
	uint64_t offset;
	uint32_t region, count; /* at most 8 */
	uint8_t data[8];
};

struct vfu_write_multi {
	uint64_t count;
	/* then struct vfu_write_one */
};

/*
 * Of DMA_READ and DMA_WRITE; data follows in a write and in the reply to a read. (The specification's table of the
 * reply to DMA_WRITE has a count of 4 bytes; servers have 8.)
 */
struct vfu_dma_access {
	uint64_t address, count;
};

#endif
