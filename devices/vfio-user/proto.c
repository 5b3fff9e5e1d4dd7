/* SPDX-License-Identifier: MIT */
#include "devices/vfio-user/proto.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* Wire structures are copied out of the receive buffer, where they need not be aligned. */
static bool take(void *to, size_t length, const void *payload, size_t size)
{
	if (size < length)
		return false;
	memcpy(to, payload, length);
	return true;
}

static int refuse(const char **why, const char *text)
{
	*why = text;
	return -EPROTO;
}

int vfu_check_header(const struct vfu_header *header, const char **why)
{
	if (header->size < sizeof(*header))
		return refuse(why, "a message is shorter than its header");
	if (header->size > sizeof(*header) + VFU_MESSAGE_MAX)
		return refuse(why, "a message is longer than any may be");
	return 0;
}

size_t vfu_encode_version(void *to, size_t max)
{
	const struct vfu_version version = { .major = 0, .minor = 0 };
	int n;

	memcpy(to, &version, sizeof(version));
	n = snprintf((char *)to + sizeof(version), max - sizeof(version),
		     "{\"capabilities\":{\"max_msg_fds\":%d,\"max_data_xfer_size\":%u,\"max_dma_maps\":65535,"
		     "\"pgsizes\":%u,\"write_multiple\":true,\"twin_socket\":{\"supported\":true}}}",
		     VFU_FDS_MAX, VFU_DATA_MAX, VFU_PAGE);
	return sizeof(version) + (size_t)n + 1;
}

/* A number from min on, or what it was if there is none. */
static bool get_number(const json_t *object, const char *key, uint64_t min, uint64_t *value)
{
	const json_t *item = json_object_get(object, key);

	if (!item)
		return true;
	if (!json_is_integer(item) || json_integer_value(item) < 0 || (uint64_t)json_integer_value(item) < min)
		return false;
	*value = (uint64_t)json_integer_value(item);
	return true;
}

/* Specification, "twin_socket": a server that has it but sends no socket is to be left. */
static int get_twin(const json_t *object, unsigned int nr_fds, struct vfu_caps *caps, const char **why)
{
	const json_t *twin = json_object_get(object, "twin_socket");
	const json_t *supported = json_object_get(twin, "supported");
	uint64_t index = UINT64_MAX;

	if (!twin || (json_is_object(twin) && (!supported || json_is_false(supported))))
		return 0;
	if (!json_is_object(twin) || !json_is_true(supported))
		return refuse(why, "the capability twin_socket is not what it should be");
	if (!get_number(twin, "fd_index", 0, &index) || index >= nr_fds)
		return refuse(why, "twin_socket.fd_index does not name a descriptor of the message");
	caps->twin_index = (int)index;
	return 0;
}

static int get_caps(const json_t *root, unsigned int nr_fds, struct vfu_caps *caps, const char **why)
{
	const json_t *object = json_object_get(root, "capabilities"), *multiple;
	uint64_t max_fds = caps->max_fds;

	if (!json_is_object(root) || (object && !json_is_object(object)))
		return refuse(why, "the capabilities are no JSON object");
	if (!get_number(object, "max_msg_fds", 1, &max_fds))
		return refuse(why, "max_msg_fds is not a number from 1 on");
	if (!get_number(object, "max_data_xfer_size", 8, &caps->max_data))
		return refuse(why, "max_data_xfer_size is not a number from 8 on");
	if (!get_number(object, "max_dma_maps", 1, &caps->max_dma_maps))
		return refuse(why, "max_dma_maps is not a number from 1 on");
	if (!get_number(object, "pgsizes", 1, &caps->pgsizes))
		return refuse(why, "pgsizes is not a number from 1 on");
	multiple = json_object_get(object, "write_multiple");
	if (multiple && !json_is_boolean(multiple))
		return refuse(why, "write_multiple is neither true nor false");
	caps->write_multiple = json_is_true(multiple);
	caps->max_fds = max_fds < VFU_FDS_MAX ? (unsigned int)max_fds : VFU_FDS_MAX;
	if (caps->max_data > VFU_DATA_MAX)
		caps->max_data = VFU_DATA_MAX;
	return get_twin(object, nr_fds, caps, why);
}

int vfu_decode_version(const void *payload, size_t size, unsigned int nr_fds, struct vfu_caps *caps, const char **why)
{
	const char *text = (const char *)payload + sizeof(struct vfu_version);
	struct vfu_version version;
	json_t *root;
	int ret;

	/* What the specification assumes of a server that does not say. */
	*caps = (struct vfu_caps){
		.max_data = VFU_DATA_MAX, .max_dma_maps = 65535, .pgsizes = VFU_PAGE, .max_fds = 1, .twin_index = -1
	};
	if (!take(&version, sizeof(version), payload, size))
		return refuse(why, "the reply to VERSION is too short");
	if (version.major != 0 || version.minor != 0)
		return refuse(why, "the server speaks another version of the protocol than 0.0");
	size -= sizeof(version);
	if (!size)
		return 0;
	if (size > VFU_ARGSZ_MAX || text[size - 1])
		return refuse(why, "the capabilities are too long or have no end");
	root = json_loads(text, 0, NULL);
	if (!root)
		return refuse(why, "the capabilities are no JSON");
	ret = get_caps(root, nr_fds, caps, why);
	json_decref(root);
	return ret;
}

int vfu_decode_device_info(const void *payload, size_t size, struct vfu_device_info *info, const char **why)
{
	if (!take(info, sizeof(*info), payload, size))
		return refuse(why, "the reply to DEVICE_GET_INFO is too short");
	if (!(info->flags & VFU_DEVICE_PCI))
		return refuse(why, "the device is not a PCI device");
	if (info->num_regions <= VFU_REGION_CONFIG || info->num_regions > 1024)
		return refuse(why, "the number of regions cannot be that of a PCI device");
	if (info->num_irqs > 1024)
		return refuse(why, "the number of interrupt indexes cannot be that of a PCI device");
	return 0;
}

/* Keeps the list ascending; an area that touches another one of the list, or is unaligned or empty, is not taken. */
static void add_area(struct vfu_region *region, const struct vfu_wire_area *area)
{
	unsigned int at = 0;

	if (!area->size || area->offset % VFU_PAGE || area->size % VFU_PAGE || region->nr_areas == VFU_AREAS_MAX) {
		region->dropped_areas++;
		return;
	}
	while (at < region->nr_areas && region->areas[at].offset < area->offset)
		at++;
	if ((at && area->offset - region->areas[at - 1].offset < region->areas[at - 1].size) ||
	    (at < region->nr_areas && region->areas[at].offset - area->offset < area->size)) {
		region->dropped_areas++;
		return;
	}
	memmove(&region->areas[at + 1], &region->areas[at], (region->nr_areas - at) * sizeof(region->areas[0]));
	region->areas[at] = (struct vfu_area){ area->offset, area->size };
	region->nr_areas++;
}

static int get_sparse(const uint8_t *at, size_t room, struct vfu_region *region, const char **why)
{
	struct vfu_cap_sparse cap;

	if (!take(&cap, sizeof(cap), at, room))
		return refuse(why, "a capability of a region does not fit into the message");
	if (cap.nr_areas > (room - sizeof(cap)) / sizeof(struct vfu_wire_area))
		return refuse(why, "a region has more mappable areas than the message");
	for (uint32_t i = 0; i < cap.nr_areas; i++) {
		struct vfu_wire_area area;

		memcpy(&area, at + sizeof(cap) + i * sizeof(area), sizeof(area));
		if (area.offset > region->size || area.size > region->size - area.offset)
			return refuse(why, "a mappable area lies beyond its region");
		add_area(region, &area);
	}
	return 0;
}

/* The chain only leads forward, so it ends. */
static int get_region_caps(const uint8_t *payload, size_t size, uint32_t offset, struct vfu_region *region,
			   bool *sparse, const char **why)
{
	uint32_t before = sizeof(struct vfu_region_info) - 1;

	while (offset) {
		struct vfu_cap cap;
		int ret = 0;

		if (offset <= before || offset > size || !take(&cap, sizeof(cap), payload + offset, size - offset))
			return refuse(why, "the capabilities of a region leave the message or go in circles");
		if (cap.id == VFU_CAP_SPARSE_MMAP) {
			*sparse = true;
			ret = get_sparse(payload + offset, size - offset, region, why);
		} else if (cap.id == VFU_CAP_MSIX_MAPPABLE) {
			region->msix_mappable = true;
		}
		if (ret)
			return ret;
		before = offset;
		offset = cap.next;
	}
	return 0;
}

int vfu_decode_region(const void *payload, size_t size, unsigned int index, uint32_t *argsz, struct vfu_region *region,
		      const char **why)
{
	struct vfu_region_info info;
	bool sparse = false;
	int ret = 0;

	memset(region, 0, sizeof(*region));
	if (!take(&info, sizeof(info), payload, size))
		return refuse(why, "the reply to GET_REGION_INFO is too short");
	if (info.index != index)
		return refuse(why, "the reply to GET_REGION_INFO is about another region");
	if (info.argsz > VFU_ARGSZ_MAX)
		return refuse(why, "GET_REGION_INFO wants a reply that is too long");
	if (info.argsz > *argsz) {
		*argsz = info.argsz;
		return 0;
	}
	if (info.size > INT64_MAX || info.offset > INT64_MAX - info.size)
		return refuse(why, "a region's size or its place in the file cannot be");
	region->size = info.size;
	region->fd_offset = info.offset;
	region->flags = info.flags;
	if (info.flags & VFU_REGION_CAPS)
		ret = get_region_caps(payload, size, info.cap_offset, region, &sparse, why);
	if (ret)
		return ret;
	if (!(info.flags & VFU_REGION_MMAP))
		region->nr_areas = 0;
	else if (!sparse)
		add_area(region, &(struct vfu_wire_area){ 0, info.size & ~(uint64_t)(VFU_PAGE - 1) });
	return 0;
}

static bool usable(const struct vfu_io_fd_48 *e, const struct vfu_region *region, unsigned int nr_fds)
{
	/* Bits of KVM_IOEVENTFD: data match, port I/O. The latter says nothing that the BAR doesn't. */
	const uint32_t known = 1 | 2;
	bool size_ok = e->size == 0 || e->size == 1 || e->size == 2 || e->size == 4 || e->size == 8;

	if (!size_ok || (e->flags & ~known) || e->offset >= region->size || e->size > region->size - e->offset)
		return false;
	if (e->fd_index >= nr_fds)
		return false;
	if (e->type == VFU_IOEVENTFD)
		return e->size || !(e->flags & 1);
	return e->type == VFU_IOEVENTFD_SHADOW && e->size && e->shadow_fd_index < nr_fds &&
	       e->shadow_offset <= INT64_MAX - 8;
}

static void get_entry(struct vfu_io_fd_48 *to, const uint8_t *from, size_t stride)
{
	if (stride == sizeof(*to)) {
		memcpy(to, from, sizeof(*to));
	} else {
		struct vfu_io_fd_40 e;

		memcpy(&e, from, sizeof(e));
		*to = (struct vfu_io_fd_48){ .offset = e.offset,
					     .size = e.size,
					     .fd_index = e.fd_index,
					     .type = e.type == VFU_IOEVENTFD ? e.type : VFU_IOREGIONFD,
					     .flags = e.flags,
					     .datamatch = e.datamatch };
	}
}

int vfu_decode_io_fds(const void *payload, size_t size, const struct vfu_region *region, unsigned int index,
		      unsigned int nr_fds, uint32_t *argsz, struct vfu_io_fd fds[VFU_IO_FDS_MAX], const char **why)
{
	struct vfu_io_fds head;
	unsigned int n = 0;
	size_t stride;

	if (!take(&head, sizeof(head), payload, size))
		return refuse(why, "the reply to GET_REGION_IO_FDS is too short");
	if (head.index != index)
		return refuse(why, "the reply to GET_REGION_IO_FDS is about another region");
	if (!head.count || head.argsz < sizeof(head) || head.argsz > VFU_ARGSZ_MAX)
		return 0;
	if (head.argsz > *argsz) {
		*argsz = head.argsz;
		return -EAGAIN;
	}
	/* There is no version to tell the two layouts apart, only their sizes. */
	stride = (head.argsz - sizeof(head)) / head.count;
	if ((stride != sizeof(struct vfu_io_fd_40) && stride != sizeof(struct vfu_io_fd_48)) ||
	    head.count > (size - sizeof(head)) / stride)
		return 0;
	for (uint32_t i = 0; i < head.count && n < VFU_IO_FDS_MAX; i++) {
		struct vfu_io_fd_48 e;

		get_entry(&e, (const uint8_t *)payload + sizeof(head) + i * stride, stride);
		if (!usable(&e, region, nr_fds))
			continue;
		fds[n++] = (struct vfu_io_fd){ .offset = e.offset,
					       .size = e.size,
					       .datamatch = e.datamatch,
					       .shadow_offset = e.shadow_offset,
					       .type = e.type,
					       .match = e.flags & 1,
					       .fd_index = e.fd_index,
					       .shadow_index = e.shadow_fd_index };
	}
	return (int)n;
}

int vfu_decode_irq_info(const void *payload, size_t size, unsigned int index, struct vfu_irq_info *info,
			const char **why)
{
	if (!take(info, sizeof(*info), payload, size))
		return refuse(why, "the reply to GET_IRQ_INFO is too short");
	if (info->index != index)
		return refuse(why, "the reply to GET_IRQ_INFO is about another index");
	return 0;
}

int vfu_decode_access(const void *payload, size_t size, bool read, const struct vfu_region_access *asked,
		      const void **data)
{
	struct vfu_region_access got;

	if (!take(&got, sizeof(got), payload, size) || got.count != asked->count ||
	    size != sizeof(got) + (read ? asked->count : 0))
		return -EPROTO;
	*data = (const uint8_t *)payload + sizeof(got);
	return 0;
}

int vfu_decode_dma(const void *payload, size_t size, bool write, struct vfu_dma_access *access, const void **data)
{
	if (!take(access, sizeof(*access), payload, size))
		return -EINVAL;
	if (access->count > VFU_DATA_MAX)
		return -E2BIG;
	if (!access->count || size - sizeof(*access) != (write ? access->count : 0))
		return -EINVAL;
	*data = (const uint8_t *)payload + sizeof(*access);
	return 0;
}
