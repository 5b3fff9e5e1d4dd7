/* SPDX-License-Identifier: MIT */
/*
 * Messages of the vhost-user protocol. Source: "Vhost-user Protocol" (QEMU, docs/interop/vhost-user.rst). Host byte
 * order; a header of 12 bytes, then the payload, descriptors as ancillary data of the first byte.
 */
#ifndef DEVICES_VHOST_USER_WIRE_H
#define DEVICES_VHOST_USER_WIRE_H

#include <stdint.h>

#define VHU_PAGE	4096u
#define VHU_CONFIG_MAX	256u
#define VHU_REGIONS_MAX 256u /* of shared memory */
#define VHU_PAYLOAD_MAX 4096u
#define VHU_FDS_MAX	16u
#define VHU_TABLE_MAX	8u /* regions of SET_MEM_TABLE */

enum vhu_request {
	VHU_GET_FEATURES = 1,
	VHU_SET_FEATURES = 2,
	VHU_SET_OWNER = 3,
	VHU_SET_MEM_TABLE = 5,
	VHU_SET_VRING_NUM = 8,
	VHU_SET_VRING_ADDR = 9,
	VHU_SET_VRING_BASE = 10,
	VHU_GET_VRING_BASE = 11,
	VHU_SET_VRING_KICK = 12,
	VHU_SET_VRING_CALL = 13,
	VHU_GET_PROTOCOL_FEATURES = 15,
	VHU_SET_PROTOCOL_FEATURES = 16,
	VHU_GET_QUEUE_NUM = 17,
	VHU_SET_VRING_ENABLE = 18,
	VHU_SET_BACKEND_REQ_FD = 21,
	VHU_GET_CONFIG = 24,
	VHU_SET_CONFIG = 25,
	VHU_GET_INFLIGHT_FD = 31,
	VHU_SET_INFLIGHT_FD = 32,
	VHU_RESET_DEVICE = 34,
	VHU_VRING_KICK = 35,
	VHU_GET_MAX_MEM_SLOTS = 36,
	VHU_ADD_MEM_REG = 37,
	VHU_REM_MEM_REG = 38,
	VHU_SET_STATUS = 39,
	VHU_GET_STATUS = 40,
	VHU_GET_SHMEM_CONFIG = 44,
	VHU_REQUESTS,
};

enum vhu_backend_request {
	VHU_BACKEND_CONFIG_CHANGE = 2,
	VHU_BACKEND_VRING_CALL = 4,
	VHU_BACKEND_VRING_ERR = 5,
	VHU_BACKEND_SHMEM_MAP = 9,
	VHU_BACKEND_SHMEM_UNMAP = 10,
};

/* vhu_header.flags */
enum { VHU_VERSION = 1, VHU_VERSION_MASK = 3, VHU_REPLY = 4, VHU_NEED_REPLY = 8 };

/* Bits of GET_PROTOCOL_FEATURES. */
enum {
	VHU_PF_MQ = 0,
	VHU_PF_REPLY_ACK = 3,
	VHU_PF_BACKEND_REQ = 5,
	VHU_PF_CONFIG = 9,
	VHU_PF_BACKEND_SEND_FD = 10,
	VHU_PF_INFLIGHT_SHMFD = 12,
	VHU_PF_RESET_DEVICE = 13,
	VHU_PF_INBAND_NOTIFICATIONS = 14,
	VHU_PF_CONFIGURE_MEM_SLOTS = 15,
	VHU_PF_STATUS = 16,
	VHU_PF_GPA_ADDRESSES = 21,
	VHU_PF_SHMEM = 22,
};

#define VHU_F_PROTOCOL_FEATURES 30 /* bit of GET_FEATURES */

struct vhu_header {
	uint32_t request;
	uint32_t flags;
	uint32_t size; /* of the payload */
};

struct vhu_region {
	uint64_t guest, size, user, mmap_offset;
};

/* ADD_MEM_REG, REM_MEM_REG */
struct vhu_mem_reg {
	uint64_t padding;
	struct vhu_region region;
};

/* SET_MEM_TABLE */
struct vhu_mem_table {
	uint32_t count, padding;
	struct vhu_region regions[VHU_TABLE_MAX];
};

struct vhu_vring_state {
	uint32_t index, num;
};

struct vhu_vring_addr {
	uint32_t index, flags;
	uint64_t desc, used, avail, log;
};

/* SET_VRING_KICK, SET_VRING_CALL: a u64. */
#define VHU_VRING_NO_FD 0x100u

/* GET_CONFIG, SET_CONFIG; `size` bytes follow. */
struct vhu_config {
	uint32_t offset, size, flags;
	uint8_t data[VHU_CONFIG_MAX];
};

/*
 * The specification's 20 bytes, and 4 of padding that the structure has in all programs; some check for one of the two
 * sizes.
 */
struct vhu_inflight {
	uint64_t mmap_size, mmap_offset;
	uint16_t queues, queue_size;
	uint32_t padding;
};
#define VHU_INFLIGHT_MIN 20u

/* GET_SHMEM_CONFIG; the index is the shmid. */
struct vhu_shmem_config {
	uint32_t count, padding;
	uint64_t sizes[VHU_REGIONS_MAX];
};

/* SHMEM_MAP, SHMEM_UNMAP */
struct vhu_mmap {
	uint8_t shmid;
	uint8_t padding[7];
	uint64_t fd_offset, shm_offset, length, flags;
};
#define VHU_MMAP_WRITABLE 1u

_Static_assert(sizeof(struct vhu_header) == 12, "vhost-user: header");
_Static_assert(sizeof(struct vhu_mem_reg) == 40, "vhost-user: single memory region");
_Static_assert(sizeof(struct vhu_vring_addr) == 40, "vhost-user: vring address");
_Static_assert(sizeof(struct vhu_shmem_config) == 2056, "vhost-user: shared memory configuration");
_Static_assert(sizeof(struct vhu_mmap) == 40, "vhost-user: mmap request");

#endif
