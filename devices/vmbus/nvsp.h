/* SPDX-License-Identifier: MIT */
/*
 * Messages between a guest's network driver and the host, on the rings of the NIC's channels (NVSP). All of a message
 * is little-endian. Source: Linux drivers/net/hyperv/hyperv_net.h, struct nvsp_message and its parts; sizes by version
 * from openvmm vm/devices/net/netvsp.
 */
#ifndef DEVICES_VMBUS_NVSP_H
#define DEVICES_VMBUS_NVSP_H

#include <stdint.h>

#define NVSP_V1	  0x00000002u
#define NVSP_V2	  0x00030002u
#define NVSP_V4	  0x00040000u
#define NVSP_V5	  0x00050000u
#define NVSP_V6	  0x00060000u
#define NVSP_V6_1 0x00060001u

enum nvsp_type {
	NVSP_INIT = 1,
	NVSP_INIT_COMPLETE = 2,
	NVSP_NDIS_VERSION = 100,
	NVSP_RECEIVE_BUFFER = 101,
	NVSP_RECEIVE_BUFFER_COMPLETE = 102,
	NVSP_REVOKE_RECEIVE_BUFFER = 103,
	NVSP_SEND_BUFFER = 104,
	NVSP_SEND_BUFFER_COMPLETE = 105,
	NVSP_REVOKE_SEND_BUFFER = 106,
	NVSP_RNDIS = 107,
	NVSP_RNDIS_COMPLETE = 108,
	NVSP_NDIS_CONFIG = 125,
	NVSP_SWITCH_DATA_PATH = 129,
	NVSP_OID_QUERY_EX = 131,
	NVSP_OID_QUERY_EX_COMPLETE = 132,
	NVSP_SUBCHANNEL = 133,
	NVSP_SEND_TABLE = 134,
};

enum nvsp_status {
	NVSP_STATUS_SUCCESS = 1,
	NVSP_STATUS_FAIL = 2,
	NVSP_STATUS_INVALID_RNDIS = 5,
	NVSP_STATUS_UNSUPPORTED = 7,
};

enum nvsp_channel_type { NVSP_CHANNEL_DATA = 0, NVSP_CHANNEL_CONTROL = 1 };

#define NVSP_NO_SECTION	       0xffffffffu
#define NVSP_SEND_TABLE_SIZE   16
#define NVSP_SUBCHANNEL_ALLOC  1
#define NVSP_MESSAGE_SIZE      28 /* to 6.0 */
#define NVSP_MESSAGE_SIZE_V6_1 40

/* A message: what follows the type depends on it. */
struct nvsp_message {
	uint32_t type;
	union {
		uint32_t words[9];
		struct {
			uint32_t min, max;
		} init;
		struct {
			uint32_t version, max_mdl_chain, status;
		} init_complete;
		struct {
			uint32_t major, minor;
		} ndis_version;
		struct {
			uint32_t mtu; /* frame size without the FCS */
			uint32_t reserved;
			uint32_t capabilities[2];
		} ndis_config;
		struct {
			uint32_t gpadl;
			uint16_t id, reserved;
		} buffer; /* RECEIVE_BUFFER, SEND_BUFFER */
		struct {
			uint32_t status, sections;
			uint32_t offset, size, count, end;
		} receive_buffer_complete;
		struct {
			uint32_t status, section_size;
		} send_buffer_complete;
		struct {
			uint32_t channel_type, section, section_size;
		} rndis;
		struct {
			uint32_t status;
		} rndis_complete;
		struct {
			uint32_t operation, count;
		} subchannel;
		struct {
			uint32_t status, count;
		} subchannel_complete;
	};
};
_Static_assert(sizeof(struct nvsp_message) == NVSP_MESSAGE_SIZE_V6_1, "as on the wire");

struct nvsp_send_table {
	uint32_t type;
	uint32_t count, offset; /* offset from the message's beginning */
	uint32_t channel[NVSP_SEND_TABLE_SIZE];
};

/* NDIS_CONFIG's capabilities, the first word. */
#define NVSP_CAP_SRIOV	   4u
#define NVSP_CAP_IEEE8021Q 8u
#define NVSP_CAP_RSC	   0x80u

/* Linux include/linux/hyperv.h, struct vmtransfer_page_packet_header: what precedes the payload of such a packet. */
struct nvsp_pages_head {
	uint16_t set;
	uint8_t sender_owns;
	uint8_t reserved;
	uint32_t ranges;
};
struct nvsp_pages_range {
	uint32_t size, offset;
};
#define NVSP_RECEIVE_SET 0xcafe

#endif
