/* SPDX-License-Identifier: MIT */
/*
 * Encoding and checking of vfio-user messages: pure functions. Whatever a server sends is hostile until it has been
 * through here. A function that fails returns a negative errno and points *why at a text for the user.
 */
#ifndef DEVICES_VFIO_USER_PROTO_H
#define DEVICES_VFIO_USER_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "devices/vfio-user/wire.h"

#define VFU_DATA_MAX	    (1u << 20)		/* of one access: what we tell the server */
#define VFU_MESSAGE_MAX	    (VFU_DATA_MAX + 32) /* a DMA_WRITE of that much */
#define VFU_FDS_MAX	    16			/* descriptors in a message */
#define VFU_REPLY_ARGSZ	    4096		/* what we offer at first for a reply of any size */
#define VFU_ARGSZ_MAX	    65536		/* what we offer at most */
#define VFU_REGIONS	    8			/* those we ask about: BARs, ROM, configuration */
#define VFU_AREAS_MAX	    12			/* mappable areas of a BAR; more are trapped */
#define VFU_IO_FDS_MAX	    64			/* doorbells of a BAR; more are ignored */
#define VFU_WRITE_MULTI_MAX 64
#define VFU_PAGE	    4096u

/* What both sides can do. */
struct vfu_caps {
	uint64_t max_data; /* bytes of one REGION_READ or REGION_WRITE */
	uint64_t max_dma_maps;
	uint64_t pgsizes;     /* bit n: 2^n */
	unsigned int max_fds; /* descriptors in one message to the server */
	bool write_multiple;
	int twin_index; /* which of the descriptors is the twin socket; -1: none */
};

struct vfu_area {
	uint64_t offset, size;
};

struct vfu_region {
	uint64_t size, fd_offset;
	uint32_t flags;
	bool msix_mappable;
	unsigned int nr_areas;
	unsigned int dropped_areas;	      /* unusable, or more than fit */
	struct vfu_area areas[VFU_AREAS_MAX]; /* page aligned, inside the region, ascending, disjoint */
};

struct vfu_io_fd {
	uint64_t offset, size, datamatch, shadow_offset;
	uint32_t type; /* VFU_IOEVENTFD or VFU_IOEVENTFD_SHADOW */
	bool match;
	unsigned int fd_index, shadow_index; /* among the descriptors of the message */
};

/* A header, as it came: 0 if a message can be that long. */
int vfu_check_header(const struct vfu_header *header, const char **why);

/* Our VERSION request, after the header, into at least 512 bytes; its length. */
size_t vfu_encode_version(void *to, size_t max);
int vfu_decode_version(const void *payload, size_t size, unsigned int nr_fds, struct vfu_caps *caps, const char **why);

int vfu_decode_device_info(const void *payload, size_t size, struct vfu_device_info *info, const char **why);

/*
 * The reply about region index to a request with this argsz. *argsz becomes what it takes to get all of it: if that is
 * more than it was, ask again; the region is not filled in then.
 */
int vfu_decode_region(const void *payload, size_t size, unsigned int index, uint32_t *argsz, struct vfu_region *region,
		      const char **why);

/* Entries that make no sense are left out: their writes go by message. Returns how many are filled in, or -EAGAIN with
 * a larger *argsz, or another negative errno. */
int vfu_decode_io_fds(const void *payload, size_t size, const struct vfu_region *region, unsigned int index,
		      unsigned int nr_fds, uint32_t *argsz, struct vfu_io_fd fds[VFU_IO_FDS_MAX], const char **why);

int vfu_decode_irq_info(const void *payload, size_t size, unsigned int index, struct vfu_irq_info *info,
			const char **why);

/*
 * The reply to a read or write of `count` bytes. 0, or -EPROTO if it is not about this access; *data: the bytes that
 * were read, all count of them.
 */
int vfu_decode_access(const void *payload, size_t size, bool read, const struct vfu_region_access *asked,
		      const void **data);

/* A server's request for memory. 0; or the error to answer: -EINVAL, -E2BIG. */
int vfu_decode_dma(const void *payload, size_t size, bool write, struct vfu_dma_access *access, const void **data);

#endif
