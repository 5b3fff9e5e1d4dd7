/* SPDX-License-Identifier: MIT */
/* A network card on a fake bus, with a fake network: what unit tests and the fuzzer of NVSP and RNDIS share. */
#ifndef TESTS_UNIT_NETVSP_FAKE_H
#define TESTS_UNIT_NETVSP_FAKE_H

#include "devices/vmbus/netvsp_internal.h"
#include "vmbus_fake.h"

enum {
	NIC_RINGS = 16,	     /* page at which the rings of channel n begin: NIC_RINGS + 32 n */
	NIC_RING_PAGES = 32, /* split in the middle */
	NIC_RECEIVE = 1024,  /* page of the receive buffer */
	NIC_RECEIVE_PAGES = 256,
	NIC_SEND = 2048,
	NIC_SEND_PAGES = 32,
	NIC_PAGES = 3000, /* for GPA_DIRECT */
	NIC_FRAMES = 256,
	NIC_FRAME_MAX = 70000,
};

/* The network: frames that wait for the card, and those it has sent, header included. */
struct fake_frame {
	unsigned int queue;
	size_t size;
	uint8_t bytes[NIC_FRAME_MAX];
};

static struct {
	struct net_backend net;
	struct fake_frame *in, *out;
	unsigned int in_count, out_count;
	int room; /* frames that can be sent, -1: any number */
	unsigned int offload, queues, again, want_room, sends, receives, destroyed;
	struct netvsp *dev;
} nic;

static unsigned int nic_send(struct net_backend *net, unsigned int queue, struct net_frame *frames, unsigned int count)
{
	(void)net;
	nic.sends++;
	for (unsigned int i = 0; i < count; i++) {
		struct fake_frame *out = &nic.out[nic.out_count % NIC_FRAMES];

		if (!nic.room)
			return i;
		if (nic.room > 0)
			nic.room--;
		out->queue = queue;
		out->size = packet_iov_copy(frames[i].iov, frames[i].count, 0, out->bytes, sizeof(out->bytes), false);
		frames[i].result = (ssize_t)out->size;
		nic.out_count++;
	}
	return count;
}

static unsigned int nic_receive(struct net_backend *net, unsigned int queue, struct net_frame *frames,
				unsigned int count)
{
	unsigned int n = 0, kept = 0;

	(void)net;
	nic.receives++;
	for (unsigned int i = 0; i < nic.in_count; i++) {
		struct fake_frame *in = &nic.in[i];

		if (n < count && in->queue == queue) {
			size_t done = packet_iov_copy(frames[n].iov, frames[n].count, 0, in->bytes, in->size, true);

			frames[n++].result = (ssize_t)done;
		} else if (kept++ != i) {
			nic.in[kept - 1] = *in;
		}
	}
	nic.in_count = kept;
	return n;
}

static void nic_again(struct net_backend *net, unsigned int queue)
{
	(void)net;
	nic.again |= 1u << queue;
}

static void nic_want_room(struct net_backend *net, unsigned int queue)
{
	(void)net;
	(void)queue;
	nic.want_room++;
}

static int nic_set_offload(struct net_backend *net, unsigned int offload)
{
	(void)net;
	nic.offload = offload;
	return 0;
}

static int nic_set_queues(struct net_backend *net, unsigned int queues)
{
	(void)net;
	nic.queues = queues;
	return 0;
}

static void nic_destroy(struct net_backend *net)
{
	(void)net;
	nic.destroyed++;
}

static const struct net_ops nic_ops = {
	.send = nic_send,
	.receive = nic_receive,
	.again = nic_again,
	.want_room = nic_want_room,
	.set_offload = nic_set_offload,
	.set_queues = nic_set_queues,
	.destroy = nic_destroy,
};

static const uint8_t nic_mac[6] = { 2, 0x11, 0x22, 0x33, 0x44, 0x55 };

/* A bus with one card, contacted and asked for its offers. */
static void nic_setup(bool headers, unsigned int queues, unsigned int channels)
{
	struct vmbus_contact contact = { .header.type = VMBUS_INITIATE_CONTACT, .version = VMBUS_V5_3 };
	struct vmbus_header request = { .type = VMBUS_REQUEST_OFFERS };
	struct fake_frame *in = nic.in ? nic.in : calloc(NIC_FRAMES, sizeof(*in));
	struct fake_frame *out = nic.out ? nic.out : calloc(NIC_FRAMES, sizeof(*out));

	if (!in || !out)
		abort();
	fake_setup();
	memset(&nic, 0, sizeof(nic));
	nic.in = in;
	nic.out = out;
	nic.room = -1;
	nic.net = (struct net_backend){ .ops = &nic_ops, .headers = headers, .queues = queues, .mtu = 1500 };
	nic.dev = netvsp_add(fake.bus, &nic.net, 0, nic_mac, channels);
	if (!nic.dev)
		abort();
	vmbus_receive(fake.bus, 4, &contact, sizeof(contact));
	vmbus_receive(fake.bus, 4, &request, sizeof(request));
}

static void nic_teardown(void)
{
	fake_teardown();
	if (nic.destroyed != 1)
		abort();
}

static void nic_end(void)
{
	free(nic.in);
	free(nic.out);
	nic.in = nic.out = NULL;
	fake_end();
}

/* One range of pages, under this number. */
static inline void nic_gpadl(uint32_t relid, uint32_t handle, uint32_t first, uint32_t count)
{
	struct {
		struct vmbus_gpadl_header header;
		uint64_t words[26];
	} __attribute__((packed)) head = { .header = { .header.type = VMBUS_GPADL_HEADER } };
	struct {
		struct vmbus_gpadl_body body;
		uint64_t words[28];
	} __attribute__((packed)) more = { .body = { .header.type = VMBUS_GPADL_BODY, .gpadl = handle } };
	uint32_t at = 0, n = 0;

	head.header.relid = relid;
	head.header.gpadl = handle;
	head.header.ranges = 1;
	head.header.length = (uint16_t)(8 + 8 * count);
	head.words[n++] = (uint64_t)count * VMBUS_PAGE;
	while (at < count && n < 26)
		head.words[n++] = first + at++;
	vmbus_receive(fake.bus, 4, &head, sizeof(head.header) + 8ul * n);
	while (at < count) {
		for (n = 0; at < count && n < 28;)
			more.words[n++] = first + at++;
		vmbus_receive(fake.bus, 4, &more, sizeof(more.body) + 8ul * n);
	}
}

/* Opens the channel of this number: its relid is 1 for the primary one. */
static inline struct fake_rings nic_open(uint32_t relid)
{
	uint32_t page = NIC_RINGS + NIC_RING_PAGES * relid;
	struct vmbus_open open = { .header.type = VMBUS_OPEN };
	struct fake_rings rings;

	nic_gpadl(relid, 100 + relid, page, NIC_RING_PAGES);
	rings = fake_rings(page, NIC_RING_PAGES, NIC_RING_PAGES / 2);
	open.relid = open.open_id = relid;
	open.gpadl = 100 + relid;
	open.downstream = NIC_RING_PAGES / 2;
	vmbus_receive(fake.bus, 4, &open, sizeof(open));
	return rings;
}

static inline void nic_close(uint32_t relid)
{
	struct vmbus_relid_message close = { .header.type = VMBUS_CLOSE, .relid = relid };

	vmbus_receive(fake.bus, 4, &close, sizeof(close));
}

/* A packet with what precedes its payload. */
static inline bool nic_put(const struct fake_ring *ring, uint16_t type, uint16_t flags, uint64_t transaction,
			   const void *extra, size_t extra_size, const void *payload, size_t size)
{
	uint32_t write = *fake_word(ring, RING_WRITE), read = *fake_word(ring, RING_READ);
	uint32_t room = ring->size - (write - read + ring->size) % ring->size;
	size_t padded = (size + 7) & ~7ul, whole = 16 + extra_size + padded;
	uint16_t words[4] = { type, (uint16_t)(2 + extra_size / 8), (uint16_t)(whole / 8), flags };
	uint64_t trailer = (uint64_t)write << 32, zero = 0;

	if (room <= whole + 8)
		return false;
	fake_copy(ring, write, words, 8, true);
	fake_copy(ring, write + 8, &transaction, 8, true);
	fake_copy(ring, write + 16, (void *)extra, extra_size, true);
	fake_copy(ring, write + 16 + (uint32_t)extra_size, (void *)payload, size, true);
	fake_copy(ring, write + 16 + (uint32_t)(extra_size + size), &zero, padded - size, true);
	fake_copy(ring, write + (uint32_t)whole, &trailer, 8, true);
	*fake_word(ring, RING_WRITE) = (write + (uint32_t)whole + 8) % ring->size;
	return true;
}

static inline void nic_signal(uint32_t relid)
{
	vmbus_signalled(fake.bus, 0x2000 | relid);
}

/* ---- The guest's driver ---- */

/* Sends an NVSP message in-band, with a completion asked for. */
static inline void nic_message(const struct fake_rings *rings, const struct nvsp_message *message, uint64_t transaction)
{
	nic_put(&rings->to_host, VMBUS_PACKET_INBAND, VMBUS_PACKET_COMPLETION_REQUESTED, transaction, NULL, 0, message,
		sizeof(*message));
	nic_signal(1);
}

/* The next packet to the guest: its payload's size, or -1. extra: the words between descriptor and payload. */
static inline int nic_get(const struct fake_ring *ring, uint16_t *type, uint64_t *transaction, uint64_t *extra,
			  unsigned int *extra_words, void *payload, size_t max)
{
	uint32_t write = *fake_word(ring, RING_WRITE), read = *fake_word(ring, RING_READ);
	uint16_t words[4];

	if (read == write)
		return -1;
	fake_copy(ring, read, words, sizeof(words), false);
	*extra_words = words[1] - 2u;
	if (*extra_words > 64)
		abort();
	fake_copy(ring, read + 16, extra, 8ul * *extra_words, false);
	return fake_get(ring, type, transaction, payload, max);
}

/* Sends bytes at guest page NIC_PAGES + page as an RNDIS message, by GPA_DIRECT. */
static inline bool nic_rndis_at(const struct fake_rings *rings, uint32_t relid, uint32_t channel_type, uint32_t page,
				const void *bytes, size_t size, uint64_t transaction)
{
	size_t pages = (size + VMBUS_PAGE - 1) / VMBUS_PAGE;
	uint64_t extra[20] = { 1ull << 32, size };
	struct nvsp_message message = {
		.type = NVSP_RNDIS,
		.rndis = { channel_type, NVSP_NO_SECTION, 0 },
	};
	bool sent;

	memcpy(fake.ram + (NIC_PAGES + (size_t)page) * VMBUS_PAGE, bytes, size);
	for (size_t i = 0; i < pages; i++)
		extra[2 + i] = NIC_PAGES + page + i;
	sent = nic_put(&rings->to_host, VMBUS_PACKET_GPA_DIRECT, VMBUS_PACKET_COMPLETION_REQUESTED, transaction, extra,
		       16 + 8 * pages, &message, sizeof(message));
	nic_signal(relid);
	return sent;
}

#endif
