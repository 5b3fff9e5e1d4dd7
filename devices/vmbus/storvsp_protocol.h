/* SPDX-License-Identifier: MIT */
/*
 * The storage protocol on the wire: Linux drivers/scsi/storvsc_drv.c (struct vstor_packet, struct vmscsi_request and
 * struct vmstorage_channel_properties). Versions before 6.0 end a packet before the last 16 bytes.
 */
#ifndef DEVICES_VMBUS_STORVSP_PROTOCOL_H
#define DEVICES_VMBUS_STORVSP_PROTOCOL_H

#include <stdint.h>

enum vstor_operation {
	VSTOR_COMPLETE_IO = 1,
	VSTOR_REMOVE_DEVICE,
	VSTOR_EXECUTE_SRB,
	VSTOR_RESET_LUN,
	VSTOR_RESET_ADAPTER,
	VSTOR_RESET_BUS,
	VSTOR_BEGIN_INIT,
	VSTOR_END_INIT,
	VSTOR_QUERY_VERSION,
	VSTOR_QUERY_PROPERTIES,
	VSTOR_ENUMERATE_BUS,
	VSTOR_FC_HBA_DATA,
	VSTOR_CREATE_SUB_CHANNELS,
};

enum vstor_version {
	VSTOR_V2_0 = 0x0200,
	VSTOR_V4_2 = 0x0402,
	VSTOR_V5_1 = 0x0501,
	VSTOR_V6_0 = 0x0600,
	VSTOR_V6_2 = 0x0602,
};

/* NTSTATUS, [MS-ERREF] 2.3.1 */
enum {
	VSTOR_STATUS_SUCCESS = 0,
	VSTOR_STATUS_INVALID_PARAMETER = 0xc000000d,
	VSTOR_STATUS_INVALID_REQUEST = 0xc0000010,
	VSTOR_STATUS_REVISION_MISMATCH = 0xc0000059,
	VSTOR_STATUS_INVALID_STATE = 0xc0000184,
};

/* SRB_STATUS_* */
enum {
	VSTOR_SRB_SUCCESS = 0x01,
	VSTOR_SRB_ERROR = 0x04,
	VSTOR_SRB_INVALID_REQUEST = 0x06,
	VSTOR_SRB_INVALID_LUN = 0x20,
	VSTOR_SRB_AUTOSENSE = 0x80, /* sense data is there */
};

struct vstor_srb {
	uint16_t length;
	uint8_t srb_status, scsi_status;
	uint8_t port, path, target, lun;
	uint8_t cdb_length, sense_length, data_in, reserved;
	uint32_t transfer_length;
	uint8_t cdb_or_sense[20];
	/* From 6.0 on. */
	uint16_t reserved2;
	uint8_t queue_tag, queue_action;
	uint32_t flags, timeout, sort_key;
};
_Static_assert(sizeof(struct vstor_srb) == 52, "as on the wire");

struct vstor_properties {
	uint32_t reserved;
	uint16_t max_sub_channels, reserved1;
	uint32_t flags; /* 1: multichannel */
	uint32_t max_transfer_bytes;
	uint64_t reserved2;
} __attribute__((packed));
_Static_assert(sizeof(struct vstor_properties) == 24, "as on the wire");
#define VSTOR_MULTICHANNEL 1

struct vstor_packet {
	uint32_t operation, flags, status;
	union {
		struct vstor_srb srb;
		struct vstor_properties properties;
		struct {
			uint16_t version, revision;
		};
		uint16_t sub_channels;
	};
};
_Static_assert(sizeof(struct vstor_packet) == 64, "as on the wire");
#define VSTOR_PACKET_OLD 48

#endif
