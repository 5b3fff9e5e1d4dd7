/* SPDX-License-Identifier: MIT */
/*
 * Setting up a connection: everything that is asked of a server before the guest may have the device. It never waits,
 * so that the start of the machine can drive it with poll() and the loop, for a server that has come back, with its
 * io_uring.
 */
#ifndef DEVICES_VFIO_USER_ATTACH_H
#define DEVICES_VFIO_USER_ATTACH_H

#include <stdbool.h>
#include <stdint.h>

#include "devices/vfio-user/proto.h"
#include "devices/vfio-user/stream.h"

#define VFU_BARS	6
#define VFU_CONFIG_SIZE 4096u
#define VFU_ROM_MAX	(16u << 20)

struct memory;

struct vfu_doorbells {
	struct vfu_io_fd entries[VFU_IO_FDS_MAX];
	unsigned int count;
	int fds[VFU_FDS_MAX];
	unsigned int nr_fds;
};

/* What a server says of its device. */
struct vfu_info {
	struct vfu_caps caps;
	struct vfu_device_info device;
	struct vfu_region regions[VFU_REGIONS];
	int region_fds[VFU_REGIONS]; /* -1: none */
	struct vfu_doorbells doorbells[VFU_BARS];
	struct vfu_irq_info irqs[VFU_IRQS];
	uint8_t config[VFU_CONFIG_SIZE];
	unsigned int config_size; /* 256 or 4096 */
	uint8_t *rom;		  /* of regions[VFU_REGION_ROM].size bytes; NULL: none */
};

/* One more request, of whoever sets the connection up; the reply only has to be no error. */
struct vfu_request {
	uint16_t command;
	uint8_t payload[64];
	size_t size;
	int fds[VFU_FDS_MAX];
	unsigned int nr_fds;
};

/* The nth request; false: there are no more. */
typedef bool vfu_more_fn(void *opaque, unsigned int n, struct vfu_request *request);

struct vfu_attach {
	const struct memory *memory;
	bool share; /* guest memory, by its descriptor */
	struct vfu_info *info;
	struct vfu_stream main, twin;
	vfu_more_fn *more;
	void *more_opaque;
	struct vfu_request request; /* the one at hand */
	unsigned int step, index;
	uint64_t offset; /* of the next part to be read */
	uint32_t argsz;
	uint16_t id;
	bool sent;	       /* the request is on its way */
	bool blocked;	       /* a command of the server's waits until it takes earlier answers */
	unsigned int progress; /* counts steps */
	short main_events, twin_events;
	const char *why;
	char text[160];
};

/* NULL when out of memory. */
struct vfu_info *vfu_info_new(void);
void vfu_info_free(struct vfu_info *info);

/* fd: a connected socket, which becomes a's. info must be new. */
void vfu_attach_begin(struct vfu_attach *a, int fd, const struct memory *memory, bool share, struct vfu_info *info);

/*
 * Goes on as far as it can. 0: done; 1: call it again on main_events of main.fd or twin_events of twin.fd (-1: none
 * yet); or -errno, with a sentence in text.
 */
int vfu_attach_run(struct vfu_attach *a);

/* After vfu_attach_run() has returned 0: there is more to ask. Call it again. */
void vfu_attach_more(struct vfu_attach *a, vfu_more_fn *more, void *opaque);

/* Closes what vfu_attach_begin() was given, unless somebody took it over. */
void vfu_attach_end(struct vfu_attach *a);

/* The pieces of guest RAM as requests to map or unmap them: 0, or -ENOENT if there is no piece n. */
int vfu_dma_piece(const struct memory *memory, bool share, unsigned int n, struct vfu_dma_map *map);

#endif
