/* SPDX-License-Identifier: MIT */
/*
 * VMBus control messages, as they lie in the payload of a SynIC message. Little-endian; every message starts with
 * struct vmbus_header. Sources: [L] Linux include/linux/hyperv.h, struct vmbus_channel_*; [O] Microsoft's openvmm,
 * vm/devices/vmbus/vmbus_core/src/protocol.rs, which alone describes version 6.0.
 */
#ifndef DEVICES_VMBUS_PROTOCOL_H
#define DEVICES_VMBUS_PROTOCOL_H

#include <stdint.h>

#include "devices/vmbus/vmbus.h"

#define VMBUS_MESSAGE_MAX 240 /* payload of a SynIC message, TLFS 11.8 */
#define VMBUS_PAGE	  4096
#define VMBUS_CHANNELS	  2048 /* event flags of a SINT; relid 0 is none */

/* Connection ids: of messages, of the old versions' events, and where the channels' start. [L] VMBUS_*_CONNECTION_ID */
enum {
	VMBUS_CONNECTION_MESSAGE = 1,
	VMBUS_CONNECTION_EVENT = 2,
	VMBUS_CONNECTION_MONITOR = 3,
	VMBUS_CONNECTION_MULTI_CLIENT = 4,
	VMBUS_CONNECTION_CHANNEL = 0x2000, /* | relid: ours to choose */
	VMBUS_CONNECTION_MAX = 0xffffff,
};

#define VMBUS_SINT 2 /* [L] VMBUS_MESSAGE_SINT; used unless the guest names another */

/* [O] enum Version */
enum vmbus_version {
	VMBUS_V0_13 = 0x0000000d, /* Windows Server 2008 */
	VMBUS_V1_1 = 0x00010001,  /* 7 */
	VMBUS_V2_4 = 0x00020004,  /* 8 */
	VMBUS_V3_0 = 0x00030000,  /* 8.1 */
	VMBUS_V4_0 = 0x00040000,  /* 10 */
	VMBUS_V4_1 = 0x00040001,
	VMBUS_V5_0 = 0x00050000,
	VMBUS_V5_1 = 0x00050001,
	VMBUS_V5_2 = 0x00050002, /* Server 2019 */
	VMBUS_V5_3 = 0x00050003, /* Server 2022 */
	VMBUS_V6_0 = 0x00060000, /* Server 2025 */
};

/* [O] FeatureFlags, version 6.0 */
#define VMBUS_FEATURE_GUEST_SIGNAL 0x01u /* the guest chooses connection id and event flag when it opens a channel */
#define VMBUS_FEATURE_CLIENT_ID	   0x08u /* INITIATE_CONTACT ends with a GUID */
#define VMBUS_FEATURE_PAUSE	   0x20u /* PAUSE, PAUSE_RESPONSE, RESUME */

/* [L] enum vmbus_channel_message_type, [O] from 25 on */
enum vmbus_message_type {
	VMBUS_OFFER = 1,
	VMBUS_RESCIND = 2,
	VMBUS_REQUEST_OFFERS = 3,
	VMBUS_ALL_OFFERS = 4,
	VMBUS_OPEN = 5,
	VMBUS_OPEN_RESULT = 6,
	VMBUS_CLOSE = 7,
	VMBUS_GPADL_HEADER = 8,
	VMBUS_GPADL_BODY = 9,
	VMBUS_GPADL_CREATED = 10,
	VMBUS_GPADL_TEARDOWN = 11,
	VMBUS_GPADL_TORNDOWN = 12,
	VMBUS_RELID_RELEASED = 13,
	VMBUS_INITIATE_CONTACT = 14,
	VMBUS_VERSION_RESPONSE = 15,
	VMBUS_UNLOAD = 16,
	VMBUS_UNLOAD_RESPONSE = 17,
	VMBUS_TL_CONNECT = 21,
	VMBUS_MODIFY = 22,
	VMBUS_TL_CONNECT_RESULT = 23,
	VMBUS_MODIFY_RESPONSE = 24,
	VMBUS_PAUSE = 27,
	VMBUS_PAUSE_RESPONSE = 28,
	VMBUS_RESUME = 29,
};

/* NTSTATUS values in answers. [O] STATUS_UNSUCCESSFUL, STATUS_CONNECTION_REFUSED */
#define VMBUS_STATUS_SUCCESS 0u
#define VMBUS_STATUS_FAILED  0x8000ffffu
#define VMBUS_STATUS_REFUSED 0xc0000236u

/* Target VP of a channel that is not to interrupt. [O] VP_INDEX_DISABLE_INTERRUPT */
#define VMBUS_VP_NONE 0xffffffffu

struct vmbus_header {
	uint32_t type;
	uint32_t padding;
};
_Static_assert(sizeof(struct vmbus_header) == 8, "wire");

struct vmbus_contact {
	struct vmbus_header header;
	uint32_t version;
	uint32_t target_vp; /* from 3.0 on */
	union {
		uint64_t interrupt_page; /* before 2.4: gpa */
		struct {		 /* 5.0 */
			uint8_t sint;
			uint8_t vtl; /* 5.1 */
			uint16_t reserved;
			uint32_t features; /* 6.0 */
		} target;
	};
	uint64_t monitor_page1; /* gpa, host to guest */
	uint64_t monitor_page2; /* gpa, guest to host */
};
_Static_assert(sizeof(struct vmbus_contact) == 40, "wire");

/* [L] struct hv_monitor_page: its head, which is all that is used here. pending: bits that the guest has set */
#define VMBUS_MONITOR_IDS 128
struct vmbus_monitor_page {
	uint32_t state;
	uint32_t reserved;
	struct {
		uint32_t pending;
		uint32_t armed;
	} group[VMBUS_MONITOR_IDS / 32];
};
_Static_assert(sizeof(struct vmbus_monitor_page) == 0x28, "wire");

struct vmbus_contact2 { /* 6.0 with VMBUS_FEATURE_CLIENT_ID */
	struct vmbus_contact contact;
	struct vmbus_guid client;
};
_Static_assert(sizeof(struct vmbus_contact2) == 56, "wire");

struct vmbus_version_response {
	struct vmbus_header header;
	uint8_t supported;
	uint8_t state; /* 0: connected */
	uint16_t reserved;
	uint32_t connection; /* the version, before 5.0; from then on the connection id for the guest's messages */
};
_Static_assert(sizeof(struct vmbus_version_response) == 16, "wire");

struct vmbus_version_response2 { /* 6.0 */
	struct vmbus_version_response response;
	uint32_t features; /* those of the guest's that are granted */
};
_Static_assert(sizeof(struct vmbus_version_response2) == 20, "wire");

struct vmbus_offer {
	struct vmbus_header header;
	struct vmbus_guid type;
	struct vmbus_guid instance;
	uint32_t reserved[4];
	uint16_t flags; /* VMBUS_OFFER_* */
	uint16_t mmio_megabytes;
	uint8_t user_defined[120];
	uint16_t subchannel;
	uint16_t mmio_megabytes_optional;
	uint32_t relid;
	uint8_t monitor_id;
	uint8_t monitor_allocated;
	uint16_t dedicated; /* bit 0: the channel has a connection id of its own */
	uint32_t connection;
};
_Static_assert(sizeof(struct vmbus_offer) == 196, "wire");

/* RESCIND, CLOSE, RELID_RELEASED */
struct vmbus_relid_message {
	struct vmbus_header header;
	uint32_t relid;
};
_Static_assert(sizeof(struct vmbus_relid_message) == 12, "wire");

struct vmbus_open {
	struct vmbus_header header;
	uint32_t relid;
	uint32_t open_id;
	uint32_t gpadl;	     /* of both rings */
	uint32_t target_vp;  /* from 2.4 on */
	uint32_t downstream; /* page of the gpadl where the ring to the guest starts */
	uint8_t user_data[120];
};
_Static_assert(sizeof(struct vmbus_open) == 148, "wire");

struct vmbus_open2 { /* 6.0 with VMBUS_FEATURE_GUEST_SIGNAL */
	struct vmbus_open open;
	uint32_t connection;
	uint16_t event_flag;
	uint16_t flags;
};
_Static_assert(sizeof(struct vmbus_open2) == 156, "wire");

struct vmbus_open_result {
	struct vmbus_header header;
	uint32_t relid;
	uint32_t open_id;
	uint32_t status;
};
_Static_assert(sizeof(struct vmbus_open_result) == 20, "wire");

/* Words of 64 bits follow: for each range its length (low half) and offset in the first page, then its pages. */
struct vmbus_gpadl_header {
	struct vmbus_header header;
	uint32_t relid;
	uint32_t gpadl;
	uint16_t length; /* bytes of those words, in this message and the bodies */
	uint16_t ranges;
};
_Static_assert(sizeof(struct vmbus_gpadl_header) == 20, "wire");

struct vmbus_gpadl_body {
	struct vmbus_header header;
	uint32_t number; /* Linux and Windows leave it 0: the order is the order of arrival */
	uint32_t gpadl;
};
_Static_assert(sizeof(struct vmbus_gpadl_body) == 16, "wire");

struct vmbus_gpadl_created {
	struct vmbus_header header;
	uint32_t relid;
	uint32_t gpadl;
	uint32_t status;
};
_Static_assert(sizeof(struct vmbus_gpadl_created) == 20, "wire");

struct vmbus_gpadl_teardown {
	struct vmbus_header header;
	uint32_t relid;
	uint32_t gpadl;
};
_Static_assert(sizeof(struct vmbus_gpadl_teardown) == 16, "wire");

struct vmbus_gpadl_torndown {
	struct vmbus_header header;
	uint32_t gpadl;
};
_Static_assert(sizeof(struct vmbus_gpadl_torndown) == 12, "wire");

struct vmbus_modify {
	struct vmbus_header header;
	uint32_t relid;
	uint32_t target_vp;
};
_Static_assert(sizeof(struct vmbus_modify) == 16, "wire");

struct vmbus_modify_response {
	struct vmbus_header header;
	uint32_t relid;
	uint32_t status;
};
_Static_assert(sizeof(struct vmbus_modify_response) == 16, "wire");

struct vmbus_tl_connect { /* from 5.2 on a GUID more, which nothing here depends on */
	struct vmbus_header header;
	struct vmbus_guid endpoint;
	struct vmbus_guid service;
};
_Static_assert(sizeof(struct vmbus_tl_connect) == 40, "wire");

struct vmbus_tl_connect_result {
	struct vmbus_header header;
	struct vmbus_guid endpoint;
	struct vmbus_guid service;
	uint32_t status;
};
_Static_assert(sizeof(struct vmbus_tl_connect_result) == 44, "wire");

#endif
