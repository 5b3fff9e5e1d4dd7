/* SPDX-License-Identifier: MIT */
/*
 * RNDIS as it travels in NVSP. Offsets within a message count from behind its type and length. Sources: [MS-RNDIS]
 * (messages), Windows Driver Kit, ntddndis.h (OIDs, NDIS_OFFLOAD, NDIS_OFFLOAD_PARAMETERS, NDIS_RECEIVE_SCALE_*), and
 * Linux drivers/net/hyperv/hyperv_net.h for the per-packet information.
 */
#ifndef DEVICES_VMBUS_RNDIS_H
#define DEVICES_VMBUS_RNDIS_H

#include <stdint.h>

enum rndis_type {
	RNDIS_PACKET = 1,
	RNDIS_INITIALIZE = 2,
	RNDIS_HALT = 3,
	RNDIS_QUERY = 4,
	RNDIS_SET = 5,
	RNDIS_RESET = 6,
	RNDIS_INDICATE = 7,
	RNDIS_KEEPALIVE = 8,
};
#define RNDIS_COMPLETE 0x80000000u /* or'ed to the type of the request */

#define RNDIS_STATUS_SUCCESS	      0u
#define RNDIS_STATUS_FAILURE	      0xc0000001u
#define RNDIS_STATUS_INVALID_DATA     0xc0010015u
#define RNDIS_STATUS_NOT_SUPPORTED    0xc00000bbu
#define RNDIS_STATUS_MEDIA_CONNECT    0x4001000bu
#define RNDIS_STATUS_MEDIA_DISCONNECT 0x4001000cu

struct rndis_header {
	uint32_t type, length;
};

struct rndis_packet {
	uint32_t data_offset, data_length;
	uint32_t oob_offset, oob_length, oob_count;
	uint32_t info_offset, info_length;
	uint32_t vc, reserved;
};
_Static_assert(sizeof(struct rndis_packet) == 36, "as on the wire");
#define RNDIS_PACKET_HEAD (sizeof(struct rndis_header) + sizeof(struct rndis_packet))

/* Per-packet information: this and a value at offset. */
struct rndis_info {
	uint32_t size, type, offset;
};
enum rndis_info_type { RNDIS_INFO_CHECKSUM = 0, RNDIS_INFO_LARGE_SEND = 2, RNDIS_INFO_VLAN = 6, RNDIS_INFO_HASH = 8 };

/* NDIS_TCP_IP_CHECKSUM_PACKET_INFO, from the guest. */
#define RNDIS_TX_IPV4	       1u
#define RNDIS_TX_IPV6	       2u
#define RNDIS_TX_TCP	       4u
#define RNDIS_TX_UDP	       8u
#define RNDIS_TX_IP_HEADER     0x10u
#define RNDIS_TX_TCP_OFFSET(v) ((v) >> 16 & 0x3ff)
/* To the guest. */
#define RNDIS_RX_TCP_GOOD 8u
#define RNDIS_RX_UDP_GOOD 0x10u
/* NDIS_TCP_LARGE_SEND_OFFLOAD_PACKET_INFO. */
#define RNDIS_LSO_MSS(v)	((v)&0xfffff)
#define RNDIS_LSO_TCP_OFFSET(v) ((v) >> 20 & 0x3ff)
#define RNDIS_LSO_V2		0x40000000u
#define RNDIS_LSO_IPV6		0x80000000u
/* NDIS_NET_BUFFER_LIST_8021Q_INFO: priority 3, CFI 1, VLAN id 12 bits, from the lowest on. */

struct rndis_initialize {
	uint32_t request, major, minor, max_transfer;
};
struct rndis_initialize_complete {
	uint32_t request, status, major, minor, device_flags, medium, max_packets, max_transfer, alignment;
	uint32_t af_offset, af_size;
};
struct rndis_query { /* SET too */
	uint32_t request, oid, length, offset, vc;
};
struct rndis_query_complete {
	uint32_t request, status, length, offset;
};
struct rndis_status_complete { /* SET_COMPLETE, KEEPALIVE_COMPLETE */
	uint32_t request, status;
};
struct rndis_reset_complete {
	uint32_t status, addressing;
};
struct rndis_indicate {
	uint32_t status, length, offset;
};

enum rndis_oid {
	OID_GEN_SUPPORTED_LIST = 0x00010101,
	OID_GEN_HARDWARE_STATUS = 0x00010102,
	OID_GEN_MEDIA_SUPPORTED = 0x00010103,
	OID_GEN_MEDIA_IN_USE = 0x00010104,
	OID_GEN_MAXIMUM_LOOKAHEAD = 0x00010105,
	OID_GEN_MAXIMUM_FRAME_SIZE = 0x00010106,
	OID_GEN_LINK_SPEED = 0x00010107,
	OID_GEN_TRANSMIT_BUFFER_SPACE = 0x00010108,
	OID_GEN_RECEIVE_BUFFER_SPACE = 0x00010109,
	OID_GEN_TRANSMIT_BLOCK_SIZE = 0x0001010a,
	OID_GEN_RECEIVE_BLOCK_SIZE = 0x0001010b,
	OID_GEN_VENDOR_ID = 0x0001010c,
	OID_GEN_VENDOR_DESCRIPTION = 0x0001010d,
	OID_GEN_CURRENT_PACKET_FILTER = 0x0001010e,
	OID_GEN_CURRENT_LOOKAHEAD = 0x0001010f,
	OID_GEN_DRIVER_VERSION = 0x00010110,
	OID_GEN_MAXIMUM_TOTAL_SIZE = 0x00010111,
	OID_GEN_PROTOCOL_OPTIONS = 0x00010112,
	OID_GEN_MAC_OPTIONS = 0x00010113,
	OID_GEN_MEDIA_CONNECT_STATUS = 0x00010114,
	OID_GEN_MAXIMUM_SEND_PACKETS = 0x00010115,
	OID_GEN_VENDOR_DRIVER_VERSION = 0x00010116,
	OID_GEN_NETWORK_LAYER_ADDRESSES = 0x00010118,
	OID_GEN_TRANSPORT_HEADER_OFFSET = 0x00010119,
	OID_GEN_RSS_CAPABILITIES = 0x00010203,
	OID_GEN_RSS_PARAMETERS = 0x00010204,
	OID_GEN_RNDIS_CONFIG_PARAMETER = 0x0001021b,
	OID_GEN_XMIT_OK = 0x00020101,
	OID_GEN_RCV_OK = 0x00020102,
	OID_GEN_XMIT_ERROR = 0x00020103,
	OID_GEN_RCV_ERROR = 0x00020104,
	OID_GEN_RCV_NO_BUFFER = 0x00020105,
	OID_GEN_FRIENDLY_NAME = 0x00020216,
	OID_802_3_PERMANENT_ADDRESS = 0x01010101,
	OID_802_3_CURRENT_ADDRESS = 0x01010102,
	OID_802_3_MULTICAST_LIST = 0x01010103,
	OID_802_3_MAXIMUM_LIST_SIZE = 0x01010104,
	OID_OFFLOAD_ENCAPSULATION = 0x0101010a,
	OID_802_3_RCV_ERROR_ALIGNMENT = 0x01020101,
	OID_802_3_XMIT_ONE_COLLISION = 0x01020102,
	OID_802_3_XMIT_MORE_COLLISIONS = 0x01020103,
};
/* Enumeration constants are int. */
#define OID_TCP_OFFLOAD_CURRENT_CONFIG	      0xfc01020bu
#define OID_TCP_OFFLOAD_PARAMETERS	      0xfc01020cu
#define OID_TCP_OFFLOAD_HARDWARE_CAPABILITIES 0xfc01020du

/* OID_GEN_CURRENT_PACKET_FILTER */
enum {
	NDIS_FILTER_DIRECTED = 1,
	NDIS_FILTER_MULTICAST = 2,
	NDIS_FILTER_ALL_MULTICAST = 4,
	NDIS_FILTER_BROADCAST = 8,
	NDIS_FILTER_PROMISCUOUS = 0x20,
};

struct ndis_header {
	uint8_t type, revision;
	uint16_t size;
};
enum { NDIS_RSS_CAPABILITIES = 0x88, NDIS_RSS_PARAMETERS = 0x89, NDIS_OFFLOAD = 0xa7 };

struct ndis_rss_capabilities {
	struct ndis_header header;
	uint32_t flags, messages, queues;
	uint16_t entries;
} __attribute__((packed));
#define NDIS_RSS_HASH_TOEPLITZ 1u
#define NDIS_RSS_IPV4	       0x100u
#define NDIS_RSS_TCP_IPV4      0x200u
#define NDIS_RSS_IPV6	       0x400u
#define NDIS_RSS_TCP_IPV6      0x1000u

struct ndis_rss_parameters {
	struct ndis_header header;
	uint16_t flags, base_cpu;
	uint32_t hash;
	uint16_t table_size, pad0;
	uint32_t table_offset;
	uint16_t key_size, pad1;
	uint32_t key_offset;
	uint32_t masks_offset, masks, mask_size;
};
#define NDIS_RSS_TABLE_UNCHANGED 4u
#define NDIS_RSS_KEY_UNCHANGED	 8u
#define NDIS_RSS_DISABLE	 0x10u
#define NDIS_RSS_TABLE		 128
#define NDIS_RSS_KEY		 40

struct ndis_checksum_offload {
	uint32_t ip4_tx_encap, ip4_tx, ip4_rx_encap, ip4_rx;
	uint32_t ip6_tx_encap, ip6_tx, ip6_rx_encap, ip6_rx;
};
enum {
	NDIS_CSUM_IP_OPTIONS = 1, /* IPv6: extension headers */
	NDIS_CSUM_TCP_OPTIONS = 4,
	NDIS_CSUM_TCP = 0x10,
	NDIS_CSUM_UDP = 0x40,
	NDIS_CSUM_IP = 0x100,
};
struct ndis_lso2_offload {
	uint32_t ip4_encap, ip4_max, ip4_min_segments, ip6_encap, ip6_max, ip6_min_segments, ip6_options;
};
struct ndis_offload {
	struct ndis_header header;
	struct ndis_checksum_offload checksum;
	uint32_t lso1[4], ipsec1[7];
	struct ndis_lso2_offload lso2;
	uint32_t flags;
	uint32_t ipsec2[8];	  /* from revision 2 on */
	uint8_t rsc_ip4, rsc_ip6; /* from revision 3 on */
	uint8_t rsc_more[2];
	uint32_t encapsulation[2];
};
_Static_assert(sizeof(struct ndis_offload) == 156, "NDIS_SIZEOF_NDIS_OFFLOAD_REVISION_3");
#define NDIS_OFFLOAD_SIZE_1 112
#define NDIS_OFFLOAD_SIZE_2 144
#define NDIS_ENCAP_8023	    2u

struct ndis_offload_parameters {
	struct ndis_header header;
	uint8_t ip4, tcp4, udp4, tcp6, udp6;
	uint8_t lso1, ipsec1, lso2_ip4, lso2_ip6, connection4, connection6;
	uint8_t pad;
	uint32_t flags;
	uint8_t ipsec2, ipsec2_ip4, rsc_ip4, rsc_ip6;
	uint8_t encapsulated, encapsulation_types, pad2[2];
};
_Static_assert(sizeof(struct ndis_offload_parameters) == 28, "NDIS_SIZEOF_OFFLOAD_PARAMETERS_REVISION_3");
/* Values: 0 leaves a setting as it is. */
enum { NDIS_RSC_OFF = 1, NDIS_RSC_ON = 2 };

/* OID_GEN_RNDIS_CONFIG_PARAMETER: [MS-RNDIS] 2.2.13's information buffer; offsets from its own beginning. */
struct rndis_config_parameter {
	uint32_t name_offset, name_length, type, value_offset, value_length;
};
#define RNDIS_CONFIG_STRING 2u

#endif
