/* SPDX-License-Identifier: MIT */
/*
 * sums INTERFACE - look at the checksums of each frame that comes in by an interface.
 *
 * Theory of operation
 *
 * A packet socket with PACKET_VNET_HDR gives each frame with what the kernel was told about it. A frame is "plain" (its
 * sums have to be right), "partial" (the TCP or UDP sum is left to somebody: the field holds the sum of the pseudo
 * header, and csum_start and csum_offset name it), or a "segment" (partial, and to be cut). An IPv4 header's sum has to
 * be right in any case.
 *
 * An ICMP echo, request or reply, of 1000 + N bytes of payload is the end of phase N: a line says what was seen since
 * the phase before it. So the other side's script divides the frames among its settings without a second connection.
 *
 * RFC 1071 (sums), RFC 793, 768, 8200 section 8.1 (pseudo headers); linux/virtio_net.h, packet(7).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PHASE_MARK 1000
#define PHASES	   100
#define MAX_TOLD   10

struct counts {
	unsigned int plain, partial, segments, tagged, wrong, longest;
};

struct state {
	struct counts now;
	unsigned int told;
};

/* A frame taken apart: offsets into it, and the sum of its pseudo header, not complemented. */
struct frame {
	const uint8_t *data;
	size_t length;
	size_t l4, l4_length;
	uint32_t pseudo;
	uint8_t protocol;
	const char *wrong;
};

static uint32_t get16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

/* The one's complement sum of big-endian words, not complemented. */
static uint32_t sum(uint32_t value, const uint8_t *p, size_t length)
{
	uint64_t total = value;

	for (; length > 1; p += 2, length -= 2)
		total += get16(p);
	if (length)
		total += (uint32_t)p[0] << 8;
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return (uint32_t)total;
}

/* False for what is not TCP, UDP or ICMP in IPv4, without fragments. */
static bool parse_ipv4(struct frame *f, size_t at)
{
	const uint8_t *ip = f->data + at;
	size_t header, total;

	if (f->length < at + 20)
		return false;
	header = (size_t)(ip[0] & 0xf) * 4;
	total = get16(ip + 2);
	if (header < 20 || total < header || f->length < at + total || get16(ip + 6) & 0x3fff)
		return false;
	if (sum(0, ip, header) != 0xffff)
		f->wrong = "IPv4 header";
	f->protocol = ip[9];
	f->l4 = at + header;
	f->l4_length = total - header;
	f->pseudo = f->protocol == IPPROTO_ICMP ? 0 : sum(f->protocol + (uint32_t)f->l4_length, ip + 12, 8);
	return true;
}

static bool parse_ipv6(struct frame *f, size_t at)
{
	const uint8_t *ip = f->data + at;

	if (f->length < at + 40)
		return false;
	f->protocol = ip[6];
	f->l4 = at + 40;
	f->l4_length = get16(ip + 4);
	if (f->length < f->l4 + f->l4_length)
		return false;
	f->pseudo = sum(f->protocol + (uint32_t)f->l4_length, ip + 8, 32);
	return true;
}

/* Where the sum is in the header of this protocol; the length of the smallest such header. */
static bool sum_place(uint8_t protocol, size_t *offset, size_t *least)
{
	switch (protocol) {
	case IPPROTO_TCP:
		*offset = 16;
		*least = 20;
		return true;
	case IPPROTO_UDP:
		*offset = 6;
		*least = 8;
		return true;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		*offset = 2;
		*least = 8;
		return true;
	default:
		return false;
	}
}

static bool parse(struct frame *f)
{
	size_t offset, least;
	uint32_t type;
	bool known;

	if (f->length < ETH_HLEN)
		return false;
	type = get16(f->data + 12);
	known = (type == ETH_P_IP && parse_ipv4(f, ETH_HLEN)) || (type == ETH_P_IPV6 && parse_ipv6(f, ETH_HLEN));
	return known && sum_place(f->protocol, &offset, &least) && f->l4_length >= least;
}

static void check_partial(struct frame *f, const struct virtio_net_hdr *header)
{
	uint8_t type = header->gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
	uint8_t wanted = get16(f->data + 12) == ETH_P_IP ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
	size_t offset = 0, least;

	sum_place(f->protocol, &offset, &least);
	if (header->csum_start != f->l4 || header->csum_offset != offset)
		f->wrong = "place of the partial sum";
	else if (get16(f->data + f->l4 + offset) != f->pseudo)
		f->wrong = "sum of the pseudo header";
	else if (type != VIRTIO_NET_HDR_GSO_NONE && (type != wanted || f->protocol != IPPROTO_TCP || !header->gso_size))
		f->wrong = "kind of segment";
}

static void check_plain(struct frame *f)
{
	/* No sum at all is allowed for UDP in IPv4. */
	if (f->protocol == IPPROTO_UDP && get16(f->data + 12) == ETH_P_IP && !get16(f->data + f->l4 + 6))
		return;
	if (sum(f->pseudo, f->data + f->l4, f->l4_length) != 0xffff)
		f->wrong = "sum";
}

static void end_of_phase(struct state *s, unsigned int phase)
{
	const struct counts *c = &s->now;

	printf("phase %u plain %u partial %u segments %u longest %u tagged %u wrong %u\n", phase, c->plain, c->partial,
	       c->segments, c->longest, c->tagged, c->wrong);
	memset(&s->now, 0, sizeof(s->now));
}

static void tell(struct state *s, const struct frame *f)
{
	s->now.wrong++;
	if (s->told++ >= MAX_TOLD)
		return;
	printf("wrong: %s: %zu bytes:", f->wrong, f->length);
	for (size_t i = 0; i < f->length && i < 78; i++)
		printf(" %02x", f->data[i]);
	printf("\n");
}

static void look(struct state *s, struct frame *f, const struct virtio_net_hdr *header, bool tagged)
{
	if (!parse(f))
		return;
	if (header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		check_partial(f, header);
		*(header->gso_type ? &s->now.segments : &s->now.partial) += 1;
	} else {
		check_plain(f);
		s->now.plain++;
		if (f->length > s->now.longest)
			s->now.longest = (unsigned int)f->length;
	}
	s->now.tagged += tagged;
	if (f->wrong)
		tell(s, f);
	if (f->protocol == IPPROTO_ICMP && (f->data[f->l4] == 8 || f->data[f->l4] == 0) &&
	    f->l4_length > 8 + PHASE_MARK && f->l4_length < 8 + PHASE_MARK + PHASES)
		end_of_phase(s, (unsigned int)(f->l4_length - 8 - PHASE_MARK));
	fflush(stdout);
}

static bool is_tagged(struct msghdr *message)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		struct tpacket_auxdata aux;

		if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA)
			continue;
		memcpy(&aux, CMSG_DATA(c), sizeof(aux));
		return aux.tp_status & TP_STATUS_VLAN_VALID;
	}
	return false;
}

static void one_frame(struct state *s, int fd, uint8_t *buffer, size_t size)
{
	struct virtio_net_hdr header;
	struct sockaddr_ll from = { 0 };
	union {
		struct cmsghdr align;
		char room[256];
	} control;
	struct iovec iov[] = { { &header, sizeof(header) }, { buffer, size } };
	struct msghdr message = { .msg_name = &from,
				  .msg_namelen = sizeof(from),
				  .msg_iov = iov,
				  .msg_iovlen = 2,
				  .msg_control = &control,
				  .msg_controllen = sizeof(control) };
	struct frame f = { .data = buffer };
	ssize_t n = recvmsg(fd, &message, 0);

	if (n < (ssize_t)sizeof(header) || from.sll_pkttype == PACKET_OUTGOING)
		return;
	f.length = (size_t)n - sizeof(header);
	look(s, &f, &header, is_tagged(&message));
}

static int listen_to(const char *interface)
{
	struct sockaddr_ll where = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), on = 1, room = 16 << 20;

	where.sll_ifindex = (int)if_nametoindex(interface);
	if (fd < 0 || !where.sll_ifindex || setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) < 0 ||
	    bind(fd, (struct sockaddr *)&where, sizeof(where)) < 0) {
		fprintf(stderr, "sums: %s: %s\n", interface, strerror(errno));
		exit(1);
	}
	return fd;
}

int main(int argc, char **argv)
{
	static uint8_t buffer[1 << 17];
	struct state state = { 0 };
	int fd;

	if (argc != 2) {
		fputs("usage: sums INTERFACE\n", stderr);
		return 2;
	}
	fd = listen_to(argv[1]);
	printf("sums: listening\n");
	fflush(stdout);
	for (;;)
		one_frame(&state, fd, buffer, sizeof(buffer));
}
