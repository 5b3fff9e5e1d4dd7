/* SPDX-License-Identifier: MIT */
/* The network card: NVSP, the receive and send buffers, frames both ways, channels, and the link. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "netvsp_fake.h"

#define RECEIVE 55
#define SEND	66

static struct fake_rings rings;

/* The last packet that the guest has taken. */
static struct {
	uint16_t type;
	uint64_t transaction;
	uint64_t extra[64];
	unsigned int words;
	uint8_t payload[256];
	int size;
} got;

static bool take_from(const struct fake_rings *from)
{
	got.size = nic_get(&from->to_guest, &got.type, &got.transaction, got.extra, &got.words, got.payload,
			   sizeof(got.payload));
	return got.size >= 0;
}

static bool take(void)
{
	return take_from(&rings);
}

static struct nvsp_message answer_to(const struct nvsp_message *message)
{
	struct nvsp_message answer = { .type = 0 };

	nic_message(&rings, message, 77);
	assert_true(take());
	assert_int_equal(got.type, VMBUS_PACKET_COMPLETION);
	assert_int_equal(got.transaction, 77);
	memcpy(&answer, got.payload, (size_t)got.size < sizeof(answer) ? (size_t)got.size : sizeof(answer));
	return answer;
}

static uint32_t init(uint32_t min, uint32_t max)
{
	struct nvsp_message a = answer_to(&(struct nvsp_message){ .type = NVSP_INIT, .init = { min, max } });

	assert_int_equal(a.type, NVSP_INIT_COMPLETE);
	assert_int_equal(a.init_complete.status, a.init_complete.version ? NVSP_STATUS_SUCCESS : NVSP_STATUS_FAIL);
	return a.init_complete.version;
}

static struct nvsp_message receive_buffer(uint32_t handle)
{
	return answer_to(
		&(struct nvsp_message){ .type = NVSP_RECEIVE_BUFFER, .buffer = { handle, NVSP_RECEIVE_SET, 0 } });
}

static void complete(const struct fake_rings *to, uint32_t relid, uint64_t transaction)
{
	struct nvsp_message done = { .type = NVSP_RNDIS_COMPLETE, .rndis_complete.status = NVSP_STATUS_SUCCESS };

	assert_true(nic_put(&to->to_host, VMBUS_PACKET_COMPLETION, 0, transaction, NULL, 0, &done, NVSP_MESSAGE_SIZE));
	nic_signal(relid);
}

/* The RNDIS message in range n of the packet that was taken last. */
static const uint8_t *range(unsigned int n, uint32_t *size)
{
	uint32_t word[2];

	assert_true(n + 1 < got.words);
	memcpy(word, &got.extra[n + 1], 8);
	assert_true(word[1] + word[0] <= NIC_RECEIVE_PAGES * VMBUS_PAGE);
	*size = word[0];
	return fake.ram + NIC_RECEIVE * VMBUS_PAGE + word[1];
}

/* A control message and its answer, copied to reply. */
static uint32_t control(const void *message, size_t size, uint8_t *reply)
{
	const uint8_t *bytes;
	uint32_t length;

	assert_true(nic_rndis_at(&rings, 1, NVSP_CHANNEL_CONTROL, 0, message, size, 5));
	assert_true(take());
	assert_int_equal(got.type, VMBUS_PACKET_COMPLETION);
	assert_true(take());
	assert_int_equal(got.type, VMBUS_PACKET_TRANSFER_PAGES);
	bytes = range(0, &length);
	memcpy(reply, bytes, length);
	complete(&rings, 1, got.transaction);
	return length;
}

static void set_u32(uint32_t oid, uint32_t value)
{
	uint32_t message[] = { RNDIS_SET, 32, 1, oid, 4, 20, 0, value }, reply[64];

	assert_int_equal(control(message, sizeof(message), (uint8_t *)reply), 16);
	assert_int_equal(reply[0], RNDIS_SET | RNDIS_COMPLETE);
	assert_int_equal(reply[3], RNDIS_STATUS_SUCCESS);
}

static void initialize_rndis(void)
{
	uint32_t message[] = { RNDIS_INITIALIZE, 24, 3, 1, 0, 0x4000 }, reply[64];

	assert_int_equal(control(message, sizeof(message), (uint8_t *)reply), 52);
	assert_int_equal(reply[2], 3);
	assert_int_equal(reply[3], RNDIS_STATUS_SUCCESS);
	assert_int_equal(reply[8], 8);	/* packets a message */
	assert_int_equal(reply[10], 3); /* alignment */
}

/* As Linux does it, up to where frames flow. */
static void bring_up(bool headers, unsigned int queues, unsigned int channels, uint32_t filter)
{
	struct nvsp_message a;

	nic_setup(headers, queues, channels);
	rings = nic_open(1);
	assert_int_equal(init(NVSP_V6_1, NVSP_V6_1), NVSP_V6_1);
	nic_gpadl(1, RECEIVE, NIC_RECEIVE, NIC_RECEIVE_PAGES);
	nic_gpadl(1, SEND, NIC_SEND, NIC_SEND_PAGES);
	a = receive_buffer(RECEIVE);
	assert_int_equal(a.receive_buffer_complete.status, NVSP_STATUS_SUCCESS);
	assert_int_equal(a.receive_buffer_complete.sections, 1);
	assert_int_equal(a.receive_buffer_complete.offset, 0);
	a = answer_to(&(struct nvsp_message){ .type = NVSP_SEND_BUFFER, .buffer = { SEND, 0, 0 } });
	assert_int_equal(a.send_buffer_complete.status, NVSP_STATUS_SUCCESS);
	assert_int_equal(a.send_buffer_complete.section_size, NETVSP_SECTION_SIZE);
	initialize_rndis();
	if (filter)
		set_u32(OID_GEN_CURRENT_PACKET_FILTER, filter);
	nic.again = 0;
}

static void make_frame(uint8_t *frame, size_t size, const uint8_t *to)
{
	for (size_t i = 0; i < size; i++)
		frame[i] = (uint8_t)(i * 7 + size);
	memcpy(frame, to, 6);
	frame[12] = 0x88; /* no protocol that anybody looks into */
	frame[13] = 0xb5;
}

static void arrive(const void *header, const uint8_t *frame, size_t size)
{
	struct fake_frame *in = &nic.in[nic.in_count++];

	in->queue = 0;
	in->size = 0;
	if (header) {
		memcpy(in->bytes, header, sizeof(struct net_header));
		in->size = sizeof(struct net_header);
	}
	memcpy(in->bytes + in->size, frame, size);
	in->size += size;
}

/* Finds per-packet information; false if there is none of this type. */
static bool information(const uint8_t *message, uint32_t type, uint32_t *value)
{
	struct rndis_packet packet;

	memcpy(&packet, message + 8, sizeof(packet));
	for (uint32_t at = 0; at < packet.info_length;) {
		struct rndis_info info;

		memcpy(&info, message + 8 + packet.info_offset + at, sizeof(info));
		if (info.type == type) {
			memcpy(value, message + 8 + packet.info_offset + at + info.offset, 4);
			return true;
		}
		at += info.size;
	}
	return false;
}

static void assert_frame(const uint8_t *message, uint32_t size, const uint8_t *frame, size_t frame_size)
{
	struct rndis_header header;
	struct rndis_packet packet;

	memcpy(&header, message, sizeof(header));
	memcpy(&packet, message + 8, sizeof(packet));
	assert_int_equal(header.type, RNDIS_PACKET);
	assert_int_equal(header.length, size);
	assert_int_equal(packet.data_length, frame_size);
	assert_true(8 + packet.data_offset + packet.data_length <= size);
	assert_true(packet.info_length >= 16); /* Linux wants some */
	assert_memory_equal(message + 8 + packet.data_offset, frame, frame_size);
}

static void test_versions(void **state)
{
	(void)state;
	nic_setup(true, 1, 1);
	rings = nic_open(1);
	assert_int_equal(init(1, 1), 0);
	assert_int_equal(init(0x70000, 0x70000), 0);
	assert_int_equal(init(NVSP_V1, NVSP_V1), NVSP_V1);
	assert_int_equal(got.size, 32); /* 28, padded */
	assert_int_equal(init(NVSP_V2, NVSP_V2), NVSP_V2);
	assert_int_equal(init(NVSP_V4, NVSP_V4), NVSP_V4);
	assert_int_equal(init(NVSP_V5, NVSP_V5), NVSP_V5);
	assert_int_equal(init(NVSP_V6, NVSP_V6), NVSP_V6);
	assert_int_equal(init(NVSP_V1, 0xffffffff), NVSP_V6_1);
	assert_int_equal(got.size, 40);
	nic_teardown();
}

static void test_buffers(void **state)
{
	struct nvsp_message a;

	(void)state;
	nic_setup(true, 1, 1);
	rings = nic_open(1);
	init(NVSP_V6_1, NVSP_V6_1);
	a = receive_buffer(12345);
	assert_int_equal(a.receive_buffer_complete.status, NVSP_STATUS_FAIL);
	nic_gpadl(1, 7, NIC_RECEIVE, 1); /* too small */
	a = receive_buffer(7);
	assert_int_equal(a.receive_buffer_complete.status, NVSP_STATUS_FAIL);
	nic_gpadl(1, RECEIVE, NIC_RECEIVE, NIC_RECEIVE_PAGES);
	a = receive_buffer(RECEIVE);
	assert_int_equal(a.receive_buffer_complete.status, NVSP_STATUS_SUCCESS);
	assert_true(a.receive_buffer_complete.count * a.receive_buffer_complete.size <= NIC_RECEIVE_PAGES * VMBUS_PAGE);
	assert_int_equal(a.receive_buffer_complete.end,
			 a.receive_buffer_complete.count * a.receive_buffer_complete.size);
	a = receive_buffer(RECEIVE); /* there is one */
	assert_int_equal(a.receive_buffer_complete.status, NVSP_STATUS_FAIL);
	answer_to(&(struct nvsp_message){ .type = NVSP_REVOKE_RECEIVE_BUFFER });
	a = receive_buffer(RECEIVE);
	assert_int_equal(a.receive_buffer_complete.status, NVSP_STATUS_SUCCESS);
	nic_close(1);
	rings = nic_open(1);
	assert_int_equal(init(NVSP_V2, NVSP_V2), NVSP_V2);
	nic_teardown();
}

/* What comes before its time fails the channel, which works when opened again. */
static void test_order(void **state)
{
	const struct nvsp_message early = { .type = NVSP_RECEIVE_BUFFER };

	(void)state;
	nic_setup(true, 1, 1);
	rings = nic_open(1);
	nic_message(&rings, &early, 1);
	assert_false(take());
	assert_int_equal(fake.lines, 1);
	nic_close(1);
	rings = nic_open(1);
	assert_int_equal(init(NVSP_V5, NVSP_V5), NVSP_V5);
	nic_teardown();
}

static void test_receive(void **state)
{
	const struct net_header header = { .flags = NET_DATA_VALID };
	uint8_t frame[1600];
	const uint8_t *message;
	uint32_t size, value;

	(void)state;
	bring_up(true, 1, 1, NDIS_FILTER_DIRECTED);
	for (size_t length = 14; length < 1515; length += 375) {
		make_frame(frame, length, nic_mac);
		arrive(&header, frame, length);
	}
	fake.signals = 0;
	nic.net.readable(nic.dev, 0);
	assert_int_equal(fake.signals, 1);
	assert_true(take());
	assert_int_equal(got.type, VMBUS_PACKET_TRANSFER_PAGES);
	assert_int_equal((uint16_t)got.extra[0], NVSP_RECEIVE_SET);
	assert_int_equal(got.extra[0] >> 32, 5);
	for (unsigned int i = 0; i < 5; i++) {
		make_frame(frame, 14 + 375 * i, nic_mac);
		message = range(i, &size);
		assert_frame(message, size, frame, 14 + 375ul * i);
		assert_true(information(message, RNDIS_INFO_CHECKSUM, &value));
		assert_int_equal(value, 0);
	}
	assert_int_equal(nic.dev->free_count, nic.dev->slot_count - 5);
	complete(&rings, 1, got.transaction);
	assert_int_equal(nic.dev->free_count, nic.dev->slot_count);
	/* A second time, and of packets that never were. */
	complete(&rings, 1, got.transaction);
	complete(&rings, 1, 0);
	complete(&rings, 1, 1ull << 40);
	assert_int_equal(nic.dev->free_count, nic.dev->slot_count);
	assert_int_equal(nic.dev->stats.strays, 3);
	assert_int_equal(fake.lines, 0);
	nic_teardown();
}

static void test_filter(void **state)
{
	static const uint8_t other[6] = { 2, 1, 1, 1, 1, 1 }, all[6] = { 255, 255, 255, 255, 255, 255 },
			     group[6] = { 1, 0, 0x5e, 0, 0, 1 };
	static const struct {
		uint32_t filter;
		const uint8_t *to;
		bool passes;
	} cases[] = {
		{ NDIS_FILTER_DIRECTED, nic_mac, true },    { NDIS_FILTER_DIRECTED, other, false },
		{ NDIS_FILTER_DIRECTED, all, false },	    { NDIS_FILTER_BROADCAST, all, true },
		{ NDIS_FILTER_BROADCAST, nic_mac, false },  { NDIS_FILTER_MULTICAST, group, false },
		{ NDIS_FILTER_ALL_MULTICAST, group, true }, { NDIS_FILTER_PROMISCUOUS, other, true },
		{ NDIS_FILTER_PROMISCUOUS, group, true },
	};
	uint32_t list[] = { RNDIS_SET, 28 + 8, 1, OID_802_3_MULTICAST_LIST, 6, 20, 0, 0, 0 }, reply[64];
	uint8_t frame[60];

	(void)state;
	bring_up(false, 1, 1, NDIS_FILTER_DIRECTED);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		set_u32(OID_GEN_CURRENT_PACKET_FILTER, cases[i].filter);
		make_frame(frame, sizeof(frame), cases[i].to);
		arrive(NULL, frame, sizeof(frame));
		nic.net.readable(nic.dev, 0);
		assert_int_equal(take(), cases[i].passes);
		if (cases[i].passes)
			complete(&rings, 1, got.transaction);
	}
	memcpy(list + 7, group, 6);
	control(list, 36, (uint8_t *)reply);
	set_u32(OID_GEN_CURRENT_PACKET_FILTER, NDIS_FILTER_MULTICAST);
	make_frame(frame, sizeof(frame), group);
	arrive(NULL, frame, sizeof(frame));
	nic.net.readable(nic.dev, 0);
	assert_true(take());
	/* Without a filter nothing passes, and nothing of it is there later. */
	set_u32(OID_GEN_CURRENT_PACKET_FILTER, 0);
	arrive(NULL, frame, sizeof(frame));
	set_u32(OID_GEN_CURRENT_PACKET_FILTER, NDIS_FILTER_PROMISCUOUS);
	nic.net.readable(nic.dev, 0);
	assert_false(take());
	nic_teardown();
}

/* UDP in IPv4, of so many bytes in all; the checksum field holds the pseudo header's sum. */
static void make_udp(uint8_t *frame, size_t size)
{
	static const uint8_t head[] = { 0x08, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2 };
	uint32_t sum = 0x0a00 + 1 + 0x0a00 + 2 + 17 + (uint32_t)size - 34;

	make_frame(frame, size, nic_mac);
	memcpy(frame + 12, head, sizeof(head));
	frame[16] = (uint8_t)((size - 14) >> 8);
	frame[17] = (uint8_t)(size - 14);
	sum = (sum & 0xffff) + (sum >> 16);
	frame[40] = (uint8_t)(sum >> 8);
	frame[41] = (uint8_t)sum;
}

/* The sum over UDP and its pseudo header is all ones. */
static bool udp_is_good(const uint8_t *frame, size_t size)
{
	uint32_t sum = 17 + (uint32_t)size - 34;

	for (size_t i = 26; i < size; i++)
		sum += i % 2 ? frame[i] : (uint32_t)frame[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

static void test_receive_checksum(void **state)
{
	struct net_header header = { .flags = NET_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6 };
	uint8_t frame[1001];
	uint32_t size, value;

	(void)state;
	bring_up(true, 1, 1, NDIS_FILTER_DIRECTED);
	for (size_t length = 990; length < 1001; length++) {
		make_udp(frame, length);
		arrive(&header, frame, length);
		nic.net.readable(nic.dev, 0);
		assert_true(take());
		assert_true(information(range(0, &size), RNDIS_INFO_CHECKSUM, &value));
		assert_int_equal(value, RNDIS_RX_UDP_GOOD);
		assert_true(udp_is_good(range(0, &size) + NETVSP_ROOM, length));
		complete(&rings, 1, got.transaction);
	}
	header.csum_start = 999; /* outside */
	header.csum_offset = 65535;
	arrive(&header, frame, 1000);
	nic.net.readable(nic.dev, 0);
	assert_true(take());
	assert_true(information(range(0, &size), RNDIS_INFO_CHECKSUM, &value));
	assert_int_equal(value, 0);
	nic_teardown();
}

static void test_receive_vlan(void **state)
{
	uint8_t frame[104], plain[100];
	const uint8_t *message;
	uint32_t size, value;

	(void)state;
	bring_up(false, 1, 1, NDIS_FILTER_DIRECTED);
	make_frame(plain, sizeof(plain), nic_mac);
	memcpy(frame, plain, 12);
	memcpy(frame + 12, "\x81\x00\xa0\x64", 4); /* priority 5, VLAN 100 */
	memcpy(frame + 16, plain + 12, sizeof(plain) - 12);
	arrive(NULL, frame, sizeof(frame));
	nic.net.readable(nic.dev, 0);
	assert_true(take());
	message = range(0, &size);
	assert_frame(message, size, plain, sizeof(plain));
	assert_true(information(message, RNDIS_INFO_VLAN, &value));
	assert_int_equal(value, 5 | 100 << 4);
	nic_teardown();
}

/* The guest keeps all slots: reading stops, and goes on with the first it gives back. */
static void test_starved(void **state)
{
	uint64_t first = 0;
	uint8_t frame[60];

	(void)state;
	bring_up(false, 1, 1, NDIS_FILTER_DIRECTED);
	make_frame(frame, sizeof(frame), nic_mac);
	for (unsigned int rounds = 0; nic.dev->free_count; rounds++) {
		assert_true(rounds < 100);
		while (nic.in_count < NIC_FRAMES)
			arrive(NULL, frame, sizeof(frame));
		nic.net.readable(nic.dev, 0);
		while (take())
			first = first ? first : got.transaction;
	}
	while (nic.in_count < 8)
		arrive(NULL, frame, sizeof(frame));
	nic.net.readable(nic.dev, 0);
	assert_false(take());
	assert_true(nic.dev->stats.rx_stalls >= 1);
	assert_int_equal(nic.dev->stats.rx_dropped, 0);
	complete(&rings, 1, first);
	assert_true(take());
	nic_teardown();
}

/* Nobody reads the ring: frames wait for room in it, and none is lost that was read. */
static void test_ring_full(void **state)
{
	uint64_t taken = 0;
	uint8_t frame[60];

	(void)state;
	bring_up(false, 1, 1, NDIS_FILTER_DIRECTED);
	make_frame(frame, sizeof(frame), nic_mac);
	*fake_word(&rings.to_guest, RING_READ) = *fake_word(&rings.to_guest, RING_WRITE);
	for (unsigned int i = 0; i < 3000 && !netvsp_channel_at(nic.dev, 0)->rx_held && nic.dev->free_count; i++) {
		arrive(NULL, frame, sizeof(frame));
		nic.net.readable(nic.dev, 0);
	}
	while (take()) {
		taken += (got.extra[0] >> 32);
		complete(&rings, 1, got.transaction);
	}
	nic_signal(1);
	while (take())
		taken += (got.extra[0] >> 32);
	assert_int_equal(taken, nic.dev->stats.rx_frames);
	assert_int_equal(nic.dev->stats.rx_dropped, 0);
	nic_teardown();
}

/* An RNDIS_PACKET around a frame, with one per-packet information if type is not ~0. */
static size_t wrap(uint8_t *message, const uint8_t *frame, size_t size, uint32_t type, uint32_t value)
{
	uint32_t info = type == ~0u ? 0 : 16;
	uint32_t words[11] = {
		RNDIS_PACKET, (uint32_t)(44 + info + size), 36 + info, (uint32_t)size, 0, 0, 0, 36, info
	};

	memcpy(message, words, sizeof(words));
	if (info)
		memcpy(message + 44, (uint32_t[]){ 16, type, 12, value }, 16);
	memcpy(message + 44 + info, frame, size);
	return 44 + info + size;
}

static void assert_completed(uint64_t transaction, uint32_t status)
{
	uint32_t words[2];

	assert_true(take());
	assert_int_equal(got.type, VMBUS_PACKET_COMPLETION);
	assert_int_equal(got.transaction, transaction);
	memcpy(words, got.payload, sizeof(words));
	assert_int_equal(words[0], NVSP_RNDIS_COMPLETE);
	assert_int_equal(words[1], status);
}

static void test_send(void **state)
{
	uint8_t message[5000], frame[1600];

	(void)state;
	bring_up(true, 1, 1, 0);
	for (size_t size = 14; size < 1515; size += 300) {
		make_frame(frame, size, nic_mac);
		nic_rndis_at(&rings, 1, NVSP_CHANNEL_DATA, 0, message, wrap(message, frame, size, ~0u, 0), size);
		assert_completed(size, NVSP_STATUS_SUCCESS);
		assert_int_equal(nic.out[(nic.out_count - 1) % NIC_FRAMES].size, sizeof(struct net_header) + size);
		assert_memory_equal(nic.out[(nic.out_count - 1) % NIC_FRAMES].bytes + sizeof(struct net_header), frame,
				    size);
	}
	nic_teardown();
}

/* Several frames in a section of the send buffer, and the rest of the last one by pages. */
static void test_send_section(void **state)
{
	struct nvsp_message order = { .type = NVSP_RNDIS, .rndis = { NVSP_CHANNEL_DATA, 3, 0 } };
	uint8_t *section = fake.ram + NIC_SEND * VMBUS_PAGE + 3 * NETVSP_SECTION_SIZE, frame[600];
	uint64_t extra[3] = { 1ull << 32, 300 | 100ull << 32, NIC_PAGES + 9 };
	size_t at = 0;

	(void)state;
	bring_up(false, 1, 1, 0);
	section = fake.ram + NIC_SEND * VMBUS_PAGE + 3 * NETVSP_SECTION_SIZE;
	for (unsigned int i = 0; i < 3; i++) {
		make_frame(frame, 100 + 60 * i, nic_mac);
		at += wrap(section + at, frame, 100 + 60ul * i, ~0u, 0);
	}
	make_frame(frame, 600, nic_mac);
	at += wrap(section + at, frame, 600, ~0u, 0) - 300;
	memcpy(fake.ram + (NIC_PAGES + 9) * VMBUS_PAGE + 100, frame + 300, 300);
	order.rndis.section_size = (uint32_t)at;
	nic_put(&rings.to_host, VMBUS_PACKET_GPA_DIRECT, 1, 9, extra, sizeof(extra), &order, sizeof(order));
	nic_signal(1);
	assert_completed(9, NVSP_STATUS_SUCCESS);
	assert_int_equal(nic.out_count, 4);
	assert_int_equal(nic.sends, 1);
	assert_int_equal(nic.out[2].size, 220);
	assert_int_equal(nic.out[3].size, 600);
	assert_memory_equal(nic.out[3].bytes, frame, 600);
	nic_teardown();
}

static void test_send_offload(void **state)
{
	uint8_t message[5000], frame[4000] = { 0 };
	struct net_header header;
	const struct fake_frame *out = &nic.out[0];

	(void)state;
	bring_up(true, 1, 1, 0);
	out = &nic.out[0];
	make_udp(frame, 500);
	nic_rndis_at(&rings, 1, NVSP_CHANNEL_DATA, 0, message,
		     wrap(message, frame, 500, RNDIS_INFO_CHECKSUM, RNDIS_TX_IPV4 | RNDIS_TX_UDP | 34u << 16), 1);
	assert_completed(1, NVSP_STATUS_SUCCESS);
	memcpy(&header, out[0].bytes, sizeof(header));
	assert_int_equal(header.flags, NET_NEEDS_CSUM);
	assert_int_equal(header.csum_start, 34);
	assert_int_equal(header.csum_offset, 6);
	assert_memory_equal(out[0].bytes + sizeof(header), frame, 500);
	/* A TCP frame to be cut: Linux leaves lengths and sums empty. */
	make_udp(frame, 4000);
	frame[16] = frame[17] = 0;
	frame[23] = PACKET_TCP;
	frame[46] = 0x50;
	frame[50] = frame[51] = 0;
	nic_rndis_at(&rings, 1, NVSP_CHANNEL_DATA, 0, message,
		     wrap(message, frame, 4000, RNDIS_INFO_LARGE_SEND, 1448 | 34u << 20 | RNDIS_LSO_V2), 2);
	assert_completed(2, NVSP_STATUS_SUCCESS);
	memcpy(&header, out[1].bytes, sizeof(header));
	assert_int_equal(header.gso, NET_GSO_TCPV4);
	assert_int_equal(header.gso_size, 1448);
	assert_int_equal(header.header_length, 54);
	assert_int_equal(header.csum_start, 34);
	assert_int_equal(out[1].bytes[sizeof(header) + 16] << 8 | out[1].bytes[sizeof(header) + 17], 3986);
	assert_int_equal(out[1].size, sizeof(header) + 4000);
	assert_memory_equal(out[1].bytes + sizeof(header) + 54, frame + 54, 4000 - 54);
	/* A VLAN tag. */
	make_frame(frame, 100, nic_mac);
	nic_rndis_at(&rings, 1, NVSP_CHANNEL_DATA, 0, message, wrap(message, frame, 100, RNDIS_INFO_VLAN, 5 | 100 << 4),
		     3);
	assert_completed(3, NVSP_STATUS_SUCCESS);
	assert_int_equal(out[2].size, sizeof(header) + 104);
	assert_memory_equal(out[2].bytes + sizeof(header) + 12, "\x81\x00\xa0\x64\x88\xb5", 6);
	assert_memory_equal(out[2].bytes + sizeof(header) + 18, frame + 14, 86);
	nic_teardown();
}

/* Each is refused, and the channel goes on. */
static void test_send_malformed(void **state)
{
	static const struct {
		unsigned int word;
		uint32_t value;
	} wrong[] = {
		{ 0, 99 },	    { 1, 0 },	 { 1, 8 },	    { 1, 43 },		{ 1, 0xffffffff },
		{ 2, 0xffffffff },  { 2, 200 },	 { 3, 0xffffffff }, { 3, 13 },		{ 3, 101 },
		{ 7, 0xffffffff },  { 7, 1000 }, { 8, 0xffffffff }, { 8, 200 },		{ 11, 0 },
		{ 11, 0xffffffff }, { 11, 17 },	 { 13, 0 },	    { 13, 0xfffffff0 }, { 13, 13 },
	};
	uint8_t message[500], frame[100];
	size_t size;

	(void)state;
	bring_up(true, 1, 1, 0);
	make_frame(frame, sizeof(frame), nic_mac);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		size = wrap(message, frame, sizeof(frame), RNDIS_INFO_CHECKSUM, RNDIS_TX_TCP | 34u << 16);
		memcpy(message + 4ul * wrong[i].word, &wrong[i].value, 4);
		nic_rndis_at(&rings, 1, NVSP_CHANNEL_DATA, 0, message, size, 100 + i);
		assert_completed(100 + i, NVSP_STATUS_INVALID_RNDIS);
	}
	/* Offloads that do not fit the frame. */
	for (uint32_t l4 = 0; l4 < 1024; l4 += 13) {
		size = wrap(message, frame, sizeof(frame), RNDIS_INFO_LARGE_SEND, 1000 | l4 << 20 | RNDIS_LSO_V2);
		nic_rndis_at(&rings, 1, NVSP_CHANNEL_DATA, 0, message, size, l4);
		assert_completed(l4, NVSP_STATUS_INVALID_RNDIS);
	}
	assert_int_equal(nic.out_count, 0);
	nic_teardown();
}

static void test_send_bad_memory(void **state)
{
	struct nvsp_message order = { .type = NVSP_RNDIS, .rndis = { NVSP_CHANNEL_DATA, NVSP_NO_SECTION, 0 } };
	static const uint64_t extras[][3] = {
		{ 1ull << 32, 100, FAKE_PAGES },	  { 1ull << 32, 100, UINT64_MAX },
		{ 1ull << 32, 100 | 4096ull << 32, 100 }, { 1ull << 32, 4097, 100 },
		{ 0xffffffffull << 32, 100, 100 },	  { 5ull << 32, 0, 0 },
		{ 1ull << 32, 0xffffffff, 100 },
	};
	static const uint32_t sections[][2] = { { 21, 100 }, { 0x7fffffff, 100 }, { 0, 6145 }, { 0, 0xffffffff } };

	(void)state;
	bring_up(true, 1, 1, 0);
	for (size_t i = 0; i < sizeof(extras) / sizeof(extras[0]); i++) {
		nic_put(&rings.to_host, VMBUS_PACKET_GPA_DIRECT, 1, i, extras[i], 24, &order, sizeof(order));
		nic_signal(1);
		assert_completed(i, NVSP_STATUS_INVALID_RNDIS);
	}
	for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
		order.rndis.section = sections[i][0];
		order.rndis.section_size = sections[i][1];
		nic_put(&rings.to_host, VMBUS_PACKET_INBAND, 1, i, NULL, 0, &order, sizeof(order));
		nic_signal(1);
		assert_completed(i, NVSP_STATUS_INVALID_RNDIS);
	}
	assert_int_equal(nic.out_count, 0);
	nic_teardown();
}

/* A network that is full keeps frames waiting, then drops what is too much; each packet is completed once. */
static void test_network_full(void **state)
{
	uint8_t message[200], frame[60];
	unsigned int completed = 0;

	(void)state;
	bring_up(false, 1, 1, 0);
	make_frame(frame, sizeof(frame), nic_mac);
	nic.room = 2;
	for (unsigned int i = 0; i < 200; i++) {
		nic_rndis_at(&rings, 1, NVSP_CHANNEL_DATA, 0, message, wrap(message, frame, 60, ~0u, 0), i);
		while (take())
			completed++;
	}
	assert_true(nic.want_room >= 1);
	assert_int_equal(nic.out_count, 2);
	nic.room = -1;
	nic.net.writable(nic.dev, 0);
	while (take())
		completed++;
	assert_int_equal(completed, 200);
	assert_int_equal(nic.out_count + nic.dev->stats.tx_dropped, 200);
	assert_true(nic.out_count > 40);
	/* And a close with frames that wait. */
	nic.room = 0;
	nic_rndis_at(&rings, 1, NVSP_CHANNEL_DATA, 0, message, wrap(message, frame, 60, ~0u, 0), 1);
	nic_close(1);
	nic.net.writable(nic.dev, 0);
	nic_teardown();
}

static void test_subchannels(void **state)
{
	struct nvsp_message order = { .type = NVSP_SUBCHANNEL, .subchannel = { NVSP_SUBCHANNEL_ALLOC, 9 } }, a;
	struct fake_rings sub[3];
	uint8_t message[200], frame[60];
	uint32_t table[19];

	(void)state;
	bring_up(true, 4, 4, NDIS_FILTER_DIRECTED);
	a = answer_to(&order);
	assert_int_equal(a.subchannel_complete.status, NVSP_STATUS_SUCCESS);
	assert_int_equal(a.subchannel_complete.count, 3);
	for (uint32_t i = 0; i < 3; i++) {
		assert_false(take());
		sub[i] = nic_open(2 + i);
	}
	assert_int_equal(nic.queues, 4);
	assert_int_equal(nic.again, 15);
	assert_true(take());
	memcpy(table, got.payload, sizeof(table));
	assert_int_equal(table[0], NVSP_SEND_TABLE);
	assert_int_equal(table[1], 16);
	assert_int_equal(table[2], 12);
	for (unsigned int i = 0; i < 16; i++)
		assert_int_equal(table[3 + i], i % 4);
	a = answer_to(&order); /* there are some */
	assert_int_equal(a.subchannel_complete.status, NVSP_STATUS_FAIL);
	/* Frames stay on their queue. */
	make_frame(frame, sizeof(frame), nic_mac);
	arrive(&(struct net_header){ .flags = 0 }, frame, sizeof(frame));
	nic.in[0].queue = 2;
	nic.net.readable(nic.dev, 2);
	assert_false(take());
	assert_true(take_from(&sub[1]));
	assert_int_equal(got.type, VMBUS_PACKET_TRANSFER_PAGES);
	complete(&rings, 1, got.transaction); /* on the wrong channel */
	assert_int_equal(nic.dev->stats.strays, 1);
	assert_int_equal(nic.dev->free_count, nic.dev->slot_count - 1);
	nic_rndis_at(&sub[2], 4, NVSP_CHANNEL_DATA, 0, message, wrap(message, frame, 60, ~0u, 0), 1);
	assert_int_equal(nic.out[0].queue, 3);
	/* A subchannel that goes gives its slots back. */
	nic_close(3);
	assert_int_equal(nic.dev->free_count, nic.dev->slot_count);
	nic_close(1);
	nic_teardown();
}

static void test_rss(void **state)
{
	static const uint8_t key[40] = { 0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
					 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
					 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
					 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa };
	static const uint8_t flow[] = {
		66, 9, 149, 187, 161, 142, 100, 80, 2794 >> 8, 2794 & 255, 1766 >> 8, 1766 & 255
	};
	struct nvsp_message order = { .type = NVSP_SUBCHANNEL, .subchannel = { NVSP_SUBCHANNEL_ALLOC, 1 } };
	uint32_t message[200] = { RNDIS_SET, 28 + 40 + 40 + 512, 1, OID_GEN_RSS_PARAMETERS, 592, 20 }, reply[64];
	struct ndis_rss_parameters p = { .header = { NDIS_RSS_PARAMETERS, 2, 40 },
					 .hash = NDIS_RSS_HASH_TOEPLITZ | NDIS_RSS_IPV4 | NDIS_RSS_TCP_IPV4,
					 .table_size = 512,
					 .table_offset = 80,
					 .key_size = 40,
					 .key_offset = 40 };
	struct fake_rings sub;
	uint8_t frame[60];
	uint32_t size, value;

	(void)state;
	bring_up(false, 1, 2, NDIS_FILTER_DIRECTED);
	answer_to(&order);
	sub = nic_open(2);
	assert_true(take());
	memcpy(message + 7, &p, sizeof(p));
	memcpy(message + 17, key, sizeof(key));
	message[27 + 0x51ccc178 % 128] = 1;
	control(message, 28 + 592, (uint8_t *)reply);
	assert_int_equal(reply[3], RNDIS_STATUS_SUCCESS);
	make_udp(frame, sizeof(frame));
	frame[23] = PACKET_TCP;
	memcpy(frame + 26, flow, sizeof(flow));
	arrive(NULL, frame, sizeof(frame));
	nic.net.readable(nic.dev, 0);
	assert_false(take());
	assert_true(take_from(&sub));
	assert_true(information(range(0, &size), RNDIS_INFO_HASH, &value));
	assert_int_equal(value, 0x51ccc178);
	complete(&sub, 2, got.transaction);
	/* Channels that are not there. */
	message[27] = 2;
	control(message, 28 + 592, (uint8_t *)reply);
	assert_int_equal(reply[3], RNDIS_STATUS_INVALID_DATA);
	nic_teardown();
}

static void test_link(void **state)
{
	uint8_t message[200], frame[60];
	uint32_t size, words[5];

	(void)state;
	bring_up(false, 1, 1, NDIS_FILTER_DIRECTED);
	make_frame(frame, sizeof(frame), nic_mac);
	for (unsigned int i = 0; i < 4; i++) {
		netvsp_set_link(nic.dev, i % 2);
		assert_true(take());
		memcpy(words, range(0, &size), sizeof(words));
		assert_int_equal(words[0], RNDIS_INDICATE);
		assert_int_equal(words[1], 20);
		assert_int_equal(words[2], i % 2 ? RNDIS_STATUS_MEDIA_CONNECT : RNDIS_STATUS_MEDIA_DISCONNECT);
		complete(&rings, 1, got.transaction);
		netvsp_set_link(nic.dev, i % 2); /* no news */
		assert_false(take());
		arrive(NULL, frame, sizeof(frame));
		nic.net.readable(nic.dev, 0);
		assert_int_equal(take(), i % 2);
		if (i % 2)
			complete(&rings, 1, got.transaction);
		nic_rndis_at(&rings, 1, NVSP_CHANNEL_DATA, 0, message, wrap(message, frame, 60, ~0u, 0), 1);
		assert_completed(1, NVSP_STATUS_SUCCESS);
		assert_int_equal(nic.out_count, (i + 1) / 2);
	}
	/* The other end goes for good. */
	nic.net.gone(nic.dev);
	nic.net.readable(nic.dev, 0);
	assert_true(take());
	assert_false(netvsp_link(nic.dev));
	nic_teardown();
}

static void test_reset(void **state)
{
	uint8_t frame[60];

	(void)state;
	bring_up(true, 1, 1, NDIS_FILTER_DIRECTED);
	make_frame(frame, sizeof(frame), nic_mac);
	arrive(&(struct net_header){ .flags = 0 }, frame, sizeof(frame));
	nic.net.readable(nic.dev, 0);
	vmbus_reset(fake.bus);
	memset(fake.ram, 0, FAKE_RAM);
	arrive(&(struct net_header){ .flags = 0 }, frame, sizeof(frame));
	nic.net.readable(nic.dev, 0);
	for (size_t i = 0; i < NIC_RECEIVE_PAGES * VMBUS_PAGE; i++)
		assert_int_equal(fake.ram[NIC_RECEIVE * VMBUS_PAGE + i], 0);
	assert_int_equal(nic.in_count, 0);
	nic_teardown();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_versions),
		cmocka_unit_test(test_buffers),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_receive),
		cmocka_unit_test(test_filter),
		cmocka_unit_test(test_receive_checksum),
		cmocka_unit_test(test_receive_vlan),
		cmocka_unit_test(test_starved),
		cmocka_unit_test(test_ring_full),
		cmocka_unit_test(test_send),
		cmocka_unit_test(test_send_section),
		cmocka_unit_test(test_send_offload),
		cmocka_unit_test(test_send_malformed),
		cmocka_unit_test(test_send_bad_memory),
		cmocka_unit_test(test_network_full),
		cmocka_unit_test(test_subchannels),
		cmocka_unit_test(test_rss),
		cmocka_unit_test(test_link),
		cmocka_unit_test(test_reset),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	nic_end();
	return failed;
}
