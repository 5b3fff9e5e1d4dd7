/* SPDX-License-Identifier: MIT */
/* Formats: RFC 791, 8200, 9293, 768; IEEE 802.1Q. Sums: RFC 1071. Toeplitz: Windows Driver Kit, "RSS hashing
 * functions". */
#include "devices/net/packet.h"

#include <string.h>

#define ETHERTYPE_IPV4 0x0800u
#define ETHERTYPE_IPV6 0x86ddu
#define ETHERTYPE_VLAN 0x8100u
#define TCP_CHECKSUM   16u
#define TCP_HEADER_MIN 20u

static uint16_t be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, uint16_t value)
{
	p[0] = (uint8_t)(value >> 8);
	p[1] = (uint8_t)value;
}

static void parse_ipv4(const uint8_t *frame, size_t size, struct packet *packet)
{
	size_t l3 = packet->l3, length;

	if (size < l3 + 20u || frame[l3] >> 4 != 4 || (frame[l3] & 15) < 5)
		return;
	packet->ip = 4;
	length = (frame[l3] & 15) * 4u;
	if (be16(frame + l3 + 6) & 0x3fff) /* a fragment */
		return;
	packet->protocol = frame[l3 + 9];
	packet->l4 = (uint16_t)(l3 + length);
}

/* Hop-by-hop, routing and destination options are skipped; a fragment has no transport header to look for. */
static void parse_ipv6(const uint8_t *frame, size_t size, struct packet *packet)
{
	size_t at = packet->l3 + 40u;
	uint8_t next;

	if (size < at || frame[packet->l3] >> 4 != 6)
		return;
	packet->ip = 6;
	next = frame[packet->l3 + 6];
	while ((next == 0 || next == 43 || next == 60) && at + 2 <= size) {
		next = frame[at];
		at += 8u + 8u * frame[at + 1];
	}
	if (next != PACKET_TCP && next != PACKET_UDP)
		return;
	packet->protocol = next;
	packet->l4 = (uint16_t)at;
}

void packet_parse(const uint8_t *frame, size_t size, struct packet *packet)
{
	size_t at = 12;

	*packet = (struct packet){ .ip = 0 };
	if (size > PACKET_HEAD)
		size = PACKET_HEAD;
	if (size >= at + 6 && be16(frame + at) == ETHERTYPE_VLAN)
		at += 4;
	if (size < at + 2)
		return;
	packet->l3 = (uint16_t)(at + 2);
	if (be16(frame + at) == ETHERTYPE_IPV4)
		parse_ipv4(frame, size, packet);
	else if (be16(frame + at) == ETHERTYPE_IPV6)
		parse_ipv6(frame, size, packet);
}

static uint16_t fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

#define SUM_BLOCK 128u

/*
 * Whole blocks of bytes, added to sum with the carry taken around. A frame of 64 KiB is summed for each such frame from
 * the network: one instruction a word, which no compiler makes of C, is a quarter of the loop below.
 */
static uint64_t sum_blocks(const uint8_t *bytes, size_t blocks, uint64_t sum)
{
	for (; blocks; blocks--, bytes += SUM_BLOCK)
		__asm__("addq (%[at]), %[sum]\n\t"
			".irp offset, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120\n\t"
			"adcq \\offset(%[at]), %[sum]\n\t"
			".endr\n\t"
			"adcq $0, %[sum]"
			: [sum] "+r"(sum)
			: [at] "r"(bytes), "m"(*(const uint8_t(*)[SUM_BLOCK])bytes)
			: "cc");
	return sum;
}

/* In the machine's order of bytes: the sum does not mind, if the result is swapped. */
static uint16_t sum_piece(const uint8_t *bytes, size_t size)
{
	uint64_t sum = sum_blocks(bytes, size / SUM_BLOCK, 0), carry = 0;

	bytes += size / SUM_BLOCK * SUM_BLOCK;
	size %= SUM_BLOCK;
	while (size >= 8) {
		uint64_t word;

		memcpy(&word, bytes, 8);
		sum += word;
		carry += sum < word;
		bytes += 8;
		size -= 8;
	}
	sum = (sum & 0xffffffff) + (sum >> 32) + carry;
	for (; size >= 2; size -= 2, bytes += 2)
		sum += (uint64_t)bytes[0] | (uint64_t)bytes[1] << 8;
	if (size)
		sum += bytes[0];
	return fold(sum);
}

static uint16_t swap(uint16_t value)
{
	return (uint16_t)(value >> 8 | value << 8);
}

uint16_t packet_sum(const struct iovec *iov, unsigned int count, size_t offset, size_t size)
{
	uint64_t sum = 0;
	bool odd = false;

	for (unsigned int i = 0; i < count && size; i++) {
		size_t here = iov[i].iov_len;

		if (offset >= here) {
			offset -= here;
			continue;
		}
		here -= offset;
		if (here > size)
			here = size;
		uint16_t part = sum_piece((const uint8_t *)iov[i].iov_base + offset, here);

		sum += odd ? swap(part) : part;
		odd ^= here & 1;
		size -= here;
		offset = 0;
	}
	return swap(fold(sum));
}

size_t packet_iov_copy(const struct iovec *iov, unsigned int count, size_t offset, void *bytes, size_t size, bool in)
{
	size_t done = 0;

	for (unsigned int i = 0; i < count && done < size; i++) {
		size_t here = iov[i].iov_len;

		if (offset >= here) {
			offset -= here;
			continue;
		}
		here -= offset;
		if (here > size - done)
			here = size - done;
		if (in)
			memcpy((uint8_t *)iov[i].iov_base + offset, (uint8_t *)bytes + done, here);
		else
			memcpy((uint8_t *)bytes + done, (const uint8_t *)iov[i].iov_base + offset, here);
		done += here;
		offset = 0;
	}
	return done;
}

bool packet_complete_checksum(const struct iovec *iov, unsigned int count, size_t size, size_t start, size_t offset)
{
	uint16_t sum;
	uint8_t field[2];

	if (start >= size || offset > size - start || size - start - offset < sizeof(field))
		return false;
	sum = (uint16_t)~packet_sum(iov, count, start, size - start);
	/* RFC 768: a sum of zero is sent as all ones. TCP takes either. */
	put16(field, sum ? sum : 0xffff);
	packet_iov_copy(iov, count, start + offset, field, sizeof(field), true);
	return true;
}

static uint16_t sum_bytes(const uint8_t *bytes, size_t size)
{
	const struct iovec iov = { (void *)bytes, size };

	return packet_sum(&iov, 1, 0, size);
}

bool packet_ipv4_checksum(uint8_t *head, size_t size)
{
	size_t length;

	if (size < PACKET_ETH + 20u || head[PACKET_ETH] >> 4 != 4)
		return false;
	length = (head[PACKET_ETH] & 15) * 4u;
	if (length < 20 || size < PACKET_ETH + length)
		return false;
	put16(head + PACKET_ETH + 10, 0);
	put16(head + PACKET_ETH + 10, (uint16_t)~sum_bytes(head + PACKET_ETH, length));
	return true;
}

size_t packet_prepare_segments(uint8_t *head, size_t size, size_t frame_size, size_t l4, bool ipv6)
{
	size_t l3 = PACKET_ETH, addresses = ipv6 ? 8 : 12, address_size = ipv6 ? 32 : 8, tcp, length;
	uint64_t sum;

	if (l4 < l3 + (ipv6 ? 40u : 20u) || l4 + TCP_HEADER_MIN > size || l4 > frame_size ||
	    frame_size - l3 > UINT16_MAX || head[l3] >> 4 != (ipv6 ? 6 : 4))
		return 0;
	tcp = (head[l4 + 12] >> 4) * 4u;
	if (tcp < TCP_HEADER_MIN || l4 + tcp > size || l4 + tcp >= frame_size)
		return 0;
	if (ipv6) {
		put16(head + l3 + 4, (uint16_t)(frame_size - l3 - 40));
	} else {
		put16(head + l3 + 2, (uint16_t)(frame_size - l3));
		if (!packet_ipv4_checksum(head, l4))
			return 0;
	}
	length = frame_size - l4;
	sum = sum_bytes(head + l3 + addresses, address_size);
	sum += PACKET_TCP + length;
	put16(head + l4 + TCP_CHECKSUM, fold(sum));
	return l4 + tcp;
}

uint32_t packet_toeplitz(const uint8_t *key, const uint8_t *data, size_t size)
{
	uint32_t hash = 0, window = (uint32_t)key[0] << 24 | (uint32_t)key[1] << 16 | (uint32_t)key[2] << 8 | key[3];

	for (size_t i = 0; i < size; i++) {
		for (int bit = 7; bit >= 0; bit--) {
			if (data[i] >> bit & 1)
				hash ^= window;
			window = window << 1 | (uint32_t)(key[i + 4] >> bit & 1);
		}
	}
	return hash;
}

bool packet_rss_hash(const uint8_t *frame, size_t size, const struct packet *packet, const uint8_t *key, uint32_t types,
		     uint32_t *hash)
{
	size_t addresses = packet->ip == 6 ? 8 : 12, bytes = packet->ip == 6 ? 32 : 8;
	uint32_t only_ip = packet->ip == 6 ? 0x400 : 0x100, with_ports = packet->ip == 6 ? 0x1000 : 0x200;
	uint8_t data[36];

	if (!packet->ip || packet->l3 + addresses + bytes > size)
		return false;
	memcpy(data, frame + packet->l3 + addresses, bytes);
	if ((types & with_ports) && packet->protocol == PACKET_TCP && packet->l4 && packet->l4 + 4u <= size) {
		memcpy(data + bytes, frame + packet->l4, 4);
		bytes += 4;
	} else if (!(types & only_ip)) {
		return false;
	}
	*hash = packet_toeplitz(key, data, bytes);
	return true;
}
