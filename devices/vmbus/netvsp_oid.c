/* SPDX-License-Identifier: MIT */
/*
 * OIDs: what the guest asks of the card and sets. Those of NDIS 5 that every driver asks, those of NDIS 6 for offloads
 * and RSS (Windows Driver Kit, "OID requests"). Unknown ones are not supported; no driver minds.
 */
#include <stdio.h>
#include <string.h>

#include "devices/vmbus/netvsp_internal.h"

#define LINK_SPEED	100000000u /* 10 Gbit/s, in units of 100 bit/s */
#define LSO_MIN_SEGMENT 2
#define LSO_MAX		0xf800u /* bytes of a frame that is to be cut: with headers less than 64 KiB */
#define MAC_OPTIONS	0x0au	/* receive at DPC level is serialised; no loopback */
#define PRIORITY_VLAN	0x44u	/* 802.1p priority and VLAN tags */
#define VENDOR_ID	0xffffffu

static const uint32_t supported[] = {
	OID_GEN_SUPPORTED_LIST,
	OID_GEN_HARDWARE_STATUS,
	OID_GEN_MEDIA_SUPPORTED,
	OID_GEN_MEDIA_IN_USE,
	OID_GEN_MAXIMUM_LOOKAHEAD,
	OID_GEN_MAXIMUM_FRAME_SIZE,
	OID_GEN_LINK_SPEED,
	OID_GEN_TRANSMIT_BUFFER_SPACE,
	OID_GEN_RECEIVE_BUFFER_SPACE,
	OID_GEN_TRANSMIT_BLOCK_SIZE,
	OID_GEN_RECEIVE_BLOCK_SIZE,
	OID_GEN_VENDOR_ID,
	OID_GEN_VENDOR_DESCRIPTION,
	OID_GEN_CURRENT_PACKET_FILTER,
	OID_GEN_CURRENT_LOOKAHEAD,
	OID_GEN_MAXIMUM_TOTAL_SIZE,
	OID_GEN_MAC_OPTIONS,
	OID_GEN_MEDIA_CONNECT_STATUS,
	OID_GEN_MAXIMUM_SEND_PACKETS,
	OID_GEN_VENDOR_DRIVER_VERSION,
	OID_GEN_RSS_CAPABILITIES,
	OID_GEN_RSS_PARAMETERS,
	OID_GEN_RNDIS_CONFIG_PARAMETER,
	OID_GEN_XMIT_OK,
	OID_GEN_RCV_OK,
	OID_GEN_XMIT_ERROR,
	OID_GEN_RCV_ERROR,
	OID_GEN_RCV_NO_BUFFER,
	OID_GEN_FRIENDLY_NAME,
	OID_802_3_PERMANENT_ADDRESS,
	OID_802_3_CURRENT_ADDRESS,
	OID_802_3_MULTICAST_LIST,
	OID_802_3_MAXIMUM_LIST_SIZE,
	OID_802_3_RCV_ERROR_ALIGNMENT,
	OID_802_3_XMIT_ONE_COLLISION,
	OID_802_3_XMIT_MORE_COLLISIONS,
	OID_TCP_OFFLOAD_CURRENT_CONFIG,
	OID_TCP_OFFLOAD_PARAMETERS,
	OID_TCP_OFFLOAD_HARDWARE_CAPABILITIES,
};

static uint32_t put(uint8_t *info, size_t *size, const void *value, size_t length)
{
	memcpy(info, value, length);
	*size = length;
	return RNDIS_STATUS_SUCCESS;
}

static uint32_t put32(uint8_t *info, size_t *size, uint32_t value)
{
	return put(info, size, &value, sizeof(value));
}

/* ---- Queries ---- */

/* As much as the guest's version of NDIS knows: it says so by the room it gives. */
static uint32_t offload(const struct netvsp *dev, size_t asked, uint8_t *info, size_t *size)
{
	const uint32_t tcp = NDIS_CSUM_TCP | NDIS_CSUM_TCP_OPTIONS | NDIS_CSUM_IP_OPTIONS;
	const uint32_t all4 = tcp | NDIS_CSUM_UDP | NDIS_CSUM_IP, all6 = tcp | NDIS_CSUM_UDP;
	struct ndis_offload o = { .header = { NDIS_OFFLOAD, 1, NDIS_OFFLOAD_SIZE_1 } };

	if (asked >= sizeof(o))
		o.header = (struct ndis_header){ NDIS_OFFLOAD, 3, sizeof(o) };
	else if (asked >= NDIS_OFFLOAD_SIZE_2)
		o.header = (struct ndis_header){ NDIS_OFFLOAD, 2, NDIS_OFFLOAD_SIZE_2 };
	if (dev->net->headers) {
		o.checksum = (struct ndis_checksum_offload){
			.ip4_tx_encap = NDIS_ENCAP_8023,
			.ip4_tx = all4,
			.ip4_rx_encap = NDIS_ENCAP_8023,
			.ip4_rx = all4 & ~(uint32_t)NDIS_CSUM_IP,
			.ip6_tx_encap = NDIS_ENCAP_8023,
			.ip6_tx = all6,
			.ip6_rx_encap = NDIS_ENCAP_8023,
			.ip6_rx = all6,
		};
		o.lso2 = (struct ndis_lso2_offload){
			.ip4_encap = NDIS_ENCAP_8023,
			.ip4_max = LSO_MAX,
			.ip4_min_segments = LSO_MIN_SEGMENT,
			.ip6_encap = NDIS_ENCAP_8023,
			.ip6_max = LSO_MAX,
			.ip6_min_segments = LSO_MIN_SEGMENT,
			.ip6_options = NDIS_CSUM_IP_OPTIONS | NDIS_CSUM_TCP_OPTIONS,
		};
		/* Only with slots that are large enough, and a guest that has agreed to it (NDIS_CONFIG). */
		o.rsc_ip4 = o.rsc_ip6 = dev->version >= NVSP_V6_1 && dev->slot_size > NET_SEGMENTS_MAX;
	}
	return put(info, size, &o, o.header.size);
}

static uint32_t rss_capabilities(const struct netvsp *dev, size_t asked, uint8_t *info, size_t *size)
{
	const struct ndis_rss_capabilities c = {
		.header = { NDIS_RSS_CAPABILITIES, 2, sizeof(c) },
		.flags = NDIS_RSS_HASH_TOEPLITZ | NDIS_RSS_TCP_IPV4 | NDIS_RSS_TCP_IPV6,
		.messages = 1,
		.queues = dev->max_channels,
		.entries = NDIS_RSS_TABLE,
	};

	if (dev->version < NVSP_V5 || dev->max_channels < 2)
		return RNDIS_STATUS_NOT_SUPPORTED;
	return put(info, size, &c, asked && asked < sizeof(c) ? asked : sizeof(c));
}

static uint32_t friendly_name(const struct netvsp *dev, uint8_t *info, size_t *size)
{
	char name[16];
	size_t length = (size_t)snprintf(name, sizeof(name), "vmm net%u", dev->number);

	for (size_t i = 0; i < length; i++) {
		info[2 * i] = (uint8_t)name[i];
		info[2 * i + 1] = 0;
	}
	*size = 2 * length;
	return RNDIS_STATUS_SUCCESS;
}

static uint32_t query_counter(const struct netvsp *dev, uint32_t oid, uint8_t *info, size_t *size)
{
	const struct netvsp_stats *s = &dev->stats;

	switch (oid) {
	case OID_GEN_XMIT_OK:
		return put32(info, size, (uint32_t)s->tx_frames);
	case OID_GEN_RCV_OK:
		return put32(info, size, (uint32_t)s->rx_frames);
	case OID_GEN_XMIT_ERROR:
		return put32(info, size, (uint32_t)(s->tx_errors + s->tx_dropped));
	case OID_GEN_RCV_ERROR:
		return put32(info, size, (uint32_t)s->rx_errors);
	case OID_GEN_RCV_NO_BUFFER:
		return put32(info, size, (uint32_t)s->rx_dropped);
	case OID_802_3_RCV_ERROR_ALIGNMENT:
	case OID_802_3_XMIT_ONE_COLLISION:
	case OID_802_3_XMIT_MORE_COLLISIONS:
		return put32(info, size, 0);
	default:
		return RNDIS_STATUS_NOT_SUPPORTED;
	}
}

static uint32_t query_size(const struct netvsp *dev, uint32_t oid, uint8_t *info, size_t *size)
{
	uint32_t mtu = dev->net->mtu;

	switch (oid) {
	case OID_GEN_MAXIMUM_LOOKAHEAD:
	case OID_GEN_CURRENT_LOOKAHEAD:
	case OID_GEN_MAXIMUM_FRAME_SIZE:
		return put32(info, size, mtu);
	case OID_GEN_TRANSMIT_BLOCK_SIZE:
	case OID_GEN_RECEIVE_BLOCK_SIZE:
	case OID_GEN_MAXIMUM_TOTAL_SIZE:
		return put32(info, size, mtu + PACKET_ETH);
	case OID_GEN_TRANSMIT_BUFFER_SPACE:
		return put32(info, size, (uint32_t)dev->send.size);
	case OID_GEN_RECEIVE_BUFFER_SPACE:
		return put32(info, size, (uint32_t)dev->receive.size);
	default:
		return query_counter(dev, oid, info, size);
	}
}

static uint32_t query_plain(const struct netvsp *dev, uint32_t oid, uint8_t *info, size_t *size)
{
	static const char vendor[] = "vmm";

	switch (oid) {
	case OID_GEN_SUPPORTED_LIST:
		return put(info, size, supported, sizeof(supported));
	case OID_GEN_HARDWARE_STATUS: /* ready */
	case OID_GEN_MEDIA_SUPPORTED: /* 802.3 */
	case OID_GEN_MEDIA_IN_USE:
		return put32(info, size, 0);
	case OID_GEN_LINK_SPEED:
		return put32(info, size, LINK_SPEED);
	case OID_GEN_VENDOR_ID:
		return put32(info, size, VENDOR_ID);
	case OID_GEN_VENDOR_DESCRIPTION:
		return put(info, size, vendor, sizeof(vendor));
	case OID_GEN_VENDOR_DRIVER_VERSION:
		return put32(info, size, 0x10000);
	case OID_GEN_CURRENT_PACKET_FILTER:
		return put32(info, size, dev->filter);
	case OID_GEN_MAC_OPTIONS:
		return put32(info, size, MAC_OPTIONS | PRIORITY_VLAN);
	case OID_GEN_MEDIA_CONNECT_STATUS: /* 0: connected */
		return put32(info, size, !netvsp_link(dev));
	case OID_GEN_MAXIMUM_SEND_PACKETS:
		return put32(info, size, 1);
	case OID_802_3_PERMANENT_ADDRESS:
		return put(info, size, dev->permanent_mac, sizeof(dev->permanent_mac));
	case OID_802_3_CURRENT_ADDRESS:
		return put(info, size, dev->mac, sizeof(dev->mac));
	case OID_802_3_MULTICAST_LIST:
		return put(info, size, dev->multicast, dev->multicasts * sizeof(dev->multicast[0]));
	case OID_802_3_MAXIMUM_LIST_SIZE:
		return put32(info, size, NETVSP_MULTICAST);
	case OID_GEN_FRIENDLY_NAME:
		return friendly_name(dev, info, size);
	default:
		return query_size(dev, oid, info, size);
	}
}

uint32_t netvsp_query(struct netvsp *dev, uint32_t oid, const uint8_t *in, size_t in_size, uint8_t *info, size_t *size)
{
	(void)in;
	switch (oid) {
	case OID_TCP_OFFLOAD_CURRENT_CONFIG:
	case OID_TCP_OFFLOAD_HARDWARE_CAPABILITIES:
		return offload(dev, in_size, info, size);
	case OID_GEN_RSS_CAPABILITIES:
		return rss_capabilities(dev, in_size, info, size);
	default:
		return query_plain(dev, oid, info, size);
	}
}

/* ---- Sets ---- */

static uint32_t set_filter(struct netvsp *dev, const uint8_t *info, size_t size)
{
	uint32_t filter;

	if (size < sizeof(filter))
		return RNDIS_STATUS_INVALID_DATA;
	memcpy(&filter, info, sizeof(filter));
	if (filter && !dev->filter) {
		/* What has gathered before is thrown away while there is none. */
		for (unsigned int i = 0; i < dev->net->queues && netvsp_channel_at(dev, i); i++)
			netvsp_rx(dev, i);
	}
	dev->filter = filter;
	if (filter)
		netvsp_rx_start(dev);
	return RNDIS_STATUS_SUCCESS;
}

static uint32_t set_multicast(struct netvsp *dev, const uint8_t *info, size_t size)
{
	if (size % 6 || size > sizeof(dev->multicast))
		return RNDIS_STATUS_INVALID_DATA;
	memcpy(dev->multicast, info, size);
	dev->multicasts = (unsigned int)(size / 6);
	return RNDIS_STATUS_SUCCESS;
}

/* 3: receive only, 4: both ways; 0 leaves it. */
static bool wants_receive(uint8_t value)
{
	return value == 3 || value == 4;
}

static void switch_flag(unsigned int *flags, unsigned int flag, uint8_t value, uint8_t on, uint8_t off)
{
	if (value == on)
		*flags |= flag;
	else if (value == off)
		*flags &= ~flag;
}

static uint32_t set_offload(struct netvsp *dev, const uint8_t *info, size_t size)
{
	struct ndis_offload_parameters p = { .ip4 = 0 };
	unsigned int offload = dev->offload;

	if (size < sizeof(p.header))
		return RNDIS_STATUS_INVALID_DATA;
	memcpy(&p, info, size < sizeof(p) ? size : sizeof(p));
	if (p.tcp4 || p.udp4 || p.tcp6 || p.udp6) {
		offload &= ~NET_RX_CSUM;
		if (wants_receive(p.tcp4) || wants_receive(p.udp4) || wants_receive(p.tcp6) || wants_receive(p.udp6))
			offload |= NET_RX_CSUM;
	}
	if (dev->slot_size > NET_SEGMENTS_MAX) {
		switch_flag(&offload, NET_RX_TSO4, p.rsc_ip4, NDIS_RSC_ON, NDIS_RSC_OFF);
		switch_flag(&offload, NET_RX_TSO6, p.rsc_ip6, NDIS_RSC_ON, NDIS_RSC_OFF);
	}
	if (dev->net->headers && dev->net->ops->set_offload && dev->net->ops->set_offload(dev->net, offload) == 0)
		dev->offload = offload;
	return RNDIS_STATUS_SUCCESS;
}

/* Bytes [offset, offset + length) of info, if they are there. */
static const uint8_t *part(const uint8_t *info, size_t size, uint32_t offset, uint32_t length)
{
	return offset <= size && length <= size - offset ? info + offset : NULL;
}

static bool set_rss_table(struct netvsp *dev, const uint8_t *table, uint32_t bytes)
{
	unsigned int entries = bytes / 4;

	if (!table || !entries || entries > NDIS_RSS_TABLE)
		return false;
	for (unsigned int i = 0; i < entries; i++) {
		uint32_t channel;

		memcpy(&channel, table + 4ul * i, sizeof(channel));
		if (channel >= dev->max_channels)
			return false;
	}
	for (unsigned int i = 0; i < entries; i++)
		dev->rss_table[i] = table[4ul * i];
	dev->rss_entries = entries;
	return true;
}

static uint32_t set_rss(struct netvsp *dev, const uint8_t *info, size_t size)
{
	struct ndis_rss_parameters p;
	const uint8_t *key;

	if (size < sizeof(p))
		return RNDIS_STATUS_INVALID_DATA;
	memcpy(&p, info, sizeof(p));
	if ((p.flags & NDIS_RSS_DISABLE) || !p.hash) {
		dev->rss = false;
		return RNDIS_STATUS_SUCCESS;
	}
	key = part(info, size, p.key_offset, p.key_size);
	if (!(p.flags & NDIS_RSS_KEY_UNCHANGED)) {
		if (!key || p.key_size != sizeof(dev->rss_key))
			return RNDIS_STATUS_INVALID_DATA;
	}
	if (!(p.flags & NDIS_RSS_TABLE_UNCHANGED) &&
	    !set_rss_table(dev, part(info, size, p.table_offset, p.table_size), p.table_size))
		return RNDIS_STATUS_INVALID_DATA;
	if (!(p.flags & NDIS_RSS_KEY_UNCHANGED))
		memcpy(dev->rss_key, key, sizeof(dev->rss_key));
	dev->rss_types = p.hash;
	dev->rss = dev->rss_entries != 0;
	return RNDIS_STATUS_SUCCESS;
}

static int hex_digit(const uint8_t *utf16)
{
	uint8_t c = utf16[0];

	if (utf16[1])
		return -1;
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The one parameter there is: the card's address, as 12 digits. */
static uint32_t set_parameter(struct netvsp *dev, const uint8_t *info, size_t size)
{
	static const char name[] = "NetworkAddress";
	struct rndis_config_parameter p;
	const uint8_t *text, *value;
	uint8_t mac[6];

	if (size < sizeof(p))
		return RNDIS_STATUS_INVALID_DATA;
	memcpy(&p, info, sizeof(p));
	text = part(info, size, p.name_offset, p.name_length);
	value = part(info, size, p.value_offset, p.value_length);
	if (!text || !value || p.type != RNDIS_CONFIG_STRING || p.name_length < 2 * (sizeof(name) - 1) ||
	    p.value_length < 24)
		return RNDIS_STATUS_INVALID_DATA;
	for (size_t i = 0; i < sizeof(name) - 1; i++)
		if (text[2 * i] != (uint8_t)name[i] || text[2 * i + 1])
			return RNDIS_STATUS_NOT_SUPPORTED;
	for (size_t i = 0; i < 6; i++) {
		int high = hex_digit(value + 4 * i), low = hex_digit(value + 4 * i + 2);

		if (high < 0 || low < 0)
			return RNDIS_STATUS_INVALID_DATA;
		mac[i] = (uint8_t)(high << 4 | low);
	}
	if (mac[0] & 1)
		return RNDIS_STATUS_INVALID_DATA;
	memcpy(dev->mac, mac, sizeof(mac));
	return RNDIS_STATUS_SUCCESS;
}

uint32_t netvsp_set(struct netvsp *dev, uint32_t oid, const uint8_t *info, size_t size)
{
	switch (oid) {
	case OID_GEN_CURRENT_PACKET_FILTER:
		return set_filter(dev, info, size);
	case OID_802_3_MULTICAST_LIST:
		return set_multicast(dev, info, size);
	case OID_TCP_OFFLOAD_PARAMETERS:
		return set_offload(dev, info, size);
	case OID_GEN_RSS_PARAMETERS:
		return set_rss(dev, info, size);
	case OID_GEN_RNDIS_CONFIG_PARAMETER:
		return set_parameter(dev, info, size);
	/* Taken note of by saying yes: they change nothing here. */
	case OID_GEN_CURRENT_LOOKAHEAD:
	case OID_GEN_PROTOCOL_OPTIONS:
	case OID_GEN_NETWORK_LAYER_ADDRESSES:
	case OID_GEN_TRANSPORT_HEADER_OFFSET:
	case OID_OFFLOAD_ENCAPSULATION:
		return RNDIS_STATUS_SUCCESS;
	default:
		return RNDIS_STATUS_NOT_SUPPORTED;
	}
}
