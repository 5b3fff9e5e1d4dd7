/* SPDX-License-Identifier: MIT */
/* Ethernet frames: what has to be looked into for offloads. No bus, no host. */
#ifndef DEVICES_NET_PACKET_H
#define DEVICES_NET_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define PACKET_ETH  14u
#define PACKET_HEAD 192u /* bytes of a frame in which all headers that matter are looked for */

enum { PACKET_TCP = 6, PACKET_UDP = 17 };

struct packet {
	uint8_t ip;	  /* 4, 6, or 0: neither */
	uint8_t protocol; /* of the transport, 0: a fragment or something unknown */
	uint16_t l3, l4;  /* offsets; l4 0: none */
};

/* Reads the headers in the first size bytes of a frame; a VLAN tag in it is skipped. */
void packet_parse(const uint8_t *frame, size_t size, struct packet *packet);

/*
 * Bytes [offset, offset + size) of pieces as one sum of 16-bit big-endian words, folded and not complemented; the
 * pieces must have them. packet_iov_copy() copies out of pieces (or into them): bytes copied.
 */
uint16_t packet_sum(const struct iovec *iov, unsigned int count, size_t offset, size_t size);
size_t packet_iov_copy(const struct iovec *iov, unsigned int count, size_t offset, void *bytes, size_t size, bool in);

/*
 * A frame for which a header says NEEDS_CSUM: stores the checksum at start + offset, whose field holds the sum of the
 * pseudo header. False if that is not inside the frame of so many bytes.
 */
bool packet_complete_checksum(const struct iovec *iov, unsigned int count, size_t size, size_t start, size_t offset);

/*
 * The headers of a frame of frame_size bytes that is to be cut into TCP segments (LSO v2 leaves lengths empty): sets
 * the IP header's length and checksum, and the TCP checksum field to the pseudo header's sum. head holds the headers,
 * size bytes. Returns the bytes of all headers, or 0 if they are not such headers.
 */
size_t packet_prepare_segments(uint8_t *head, size_t size, size_t frame_size, size_t l4, bool ipv6);
/* The IPv4 header at PACKET_ETH, checksum set; false if head is none. */
bool packet_ipv4_checksum(uint8_t *head, size_t size);

/* Toeplitz hash of the addresses, and of the ports where hash_ports allows it (NDIS_RSS_TCP_*). key: 40 bytes. */
uint32_t packet_toeplitz(const uint8_t *key, const uint8_t *data, size_t size);
/* false: nothing to hash. types: NDIS_RSS_* */
bool packet_rss_hash(const uint8_t *frame, size_t size, const struct packet *packet, const uint8_t *key, uint32_t types,
		     uint32_t *hash);

#endif
