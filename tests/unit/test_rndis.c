/* SPDX-License-Identifier: MIT */
/* RNDIS control messages and OIDs, the helpers for frames, and --net's argument. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "netvsp_fake.h"

static uint8_t info[1024];

static uint32_t query(uint32_t oid, size_t asked, size_t *size)
{
	uint8_t in[512] = { 0 };

	*size = sizeof(info);
	return netvsp_query(nic.dev, oid, in, asked, info, size);
}

static uint32_t query_u32(uint32_t oid)
{
	uint32_t value;
	size_t size;

	assert_int_equal(query(oid, 0, &size), RNDIS_STATUS_SUCCESS);
	assert_int_equal(size, 4);
	memcpy(&value, info, 4);
	return value;
}

/* Whatever is said to be supported can be asked, except what can only be set. */
static void test_supported(void **state)
{
	uint32_t list[64];
	size_t size, other;

	(void)state;
	nic_setup(true, 4, 4);
	nic.dev->version = NVSP_V6_1;
	assert_int_equal(query(OID_GEN_SUPPORTED_LIST, 0, &size), RNDIS_STATUS_SUCCESS);
	assert_true(size % 4 == 0 && size <= sizeof(list));
	memcpy(list, info, size);
	for (size_t i = 0; i < size / 4; i++) {
		bool only_set = list[i] == OID_TCP_OFFLOAD_PARAMETERS || list[i] == OID_GEN_RSS_PARAMETERS ||
				list[i] == OID_GEN_RNDIS_CONFIG_PARAMETER;

		assert_int_equal(query(list[i], 0, &other),
				 only_set ? RNDIS_STATUS_NOT_SUPPORTED : RNDIS_STATUS_SUCCESS);
	}
	assert_int_equal(query(0x12345678, 0, &size), RNDIS_STATUS_NOT_SUPPORTED);
	nic_teardown();
}

static void test_values(void **state)
{
	size_t size;

	(void)state;
	nic_setup(true, 1, 1);
	assert_int_equal(query_u32(OID_GEN_MAXIMUM_FRAME_SIZE), 1500);
	assert_int_equal(query_u32(OID_GEN_MAXIMUM_TOTAL_SIZE), 1514);
	assert_int_equal(query_u32(OID_GEN_MEDIA_CONNECT_STATUS), 0);
	netvsp_set_link(nic.dev, false);
	assert_int_equal(query_u32(OID_GEN_MEDIA_CONNECT_STATUS), 1);
	assert_int_equal(query(OID_802_3_PERMANENT_ADDRESS, 0, &size), RNDIS_STATUS_SUCCESS);
	assert_int_equal(size, 6);
	assert_memory_equal(info, nic_mac, 6);
	assert_int_equal(query(OID_GEN_FRIENDLY_NAME, 0, &size), RNDIS_STATUS_SUCCESS);
	assert_int_equal(size % 2, 0);
	/* One channel: no RSS. */
	nic.dev->version = NVSP_V6_1;
	assert_int_equal(query(OID_GEN_RSS_CAPABILITIES, 18, &size), RNDIS_STATUS_NOT_SUPPORTED);
	nic_teardown();
}

/* The revision follows the room, and without headers nothing is offered. */
static void test_offload_capabilities(void **state)
{
	static const size_t rooms[][3] = {
		{ 0, 1, 112 }, { 112, 1, 112 }, { 144, 2, 144 }, { 156, 3, 156 }, { 400, 3, 156 }
	};
	struct ndis_offload o;
	size_t size;

	(void)state;
	for (unsigned int headers = 0; headers < 2; headers++) {
		nic_setup(headers, 1, 1);
		nic.dev->version = NVSP_V6_1;
		nic.dev->slot_size = NET_SEGMENTS_MAX + 256;
		for (size_t i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++) {
			memset(&o, 0, sizeof(o));
			assert_int_equal(query(OID_TCP_OFFLOAD_HARDWARE_CAPABILITIES, rooms[i][0], &size),
					 RNDIS_STATUS_SUCCESS);
			assert_int_equal(size, rooms[i][2]);
			memcpy(&o, info, size);
			assert_int_equal(o.header.type, NDIS_OFFLOAD);
			assert_int_equal(o.header.revision, rooms[i][1]);
			assert_int_equal(o.header.size, size);
			assert_int_equal(!!o.checksum.ip4_tx, headers);
			assert_int_equal(!!o.lso2.ip6_max, headers);
			assert_int_equal(o.rsc_ip4, headers && size == sizeof(o));
		}
		nic.dev->slot_size = 2048; /* too small for frames that were put together */
		query(OID_TCP_OFFLOAD_HARDWARE_CAPABILITIES, 156, &size);
		memcpy(&o, info, size);
		assert_int_equal(o.rsc_ip4, 0);
		nic_teardown();
	}
}

static void test_set_offload(void **state)
{
	struct ndis_offload_parameters p = { .tcp4 = 4, .udp4 = 1, .rsc_ip4 = NDIS_RSC_ON };

	(void)state;
	nic_setup(true, 1, 1);
	nic.dev->slot_size = NET_SEGMENTS_MAX + 256;
	assert_int_equal(netvsp_set(nic.dev, OID_TCP_OFFLOAD_PARAMETERS, (uint8_t *)&p, sizeof(p)), 0);
	assert_int_equal(nic.offload, NET_RX_CSUM | NET_RX_TSO4);
	p = (struct ndis_offload_parameters){ .rsc_ip6 = NDIS_RSC_ON }; /* the rest stays */
	assert_int_equal(netvsp_set(nic.dev, OID_TCP_OFFLOAD_PARAMETERS, (uint8_t *)&p, sizeof(p)), 0);
	assert_int_equal(nic.offload, NET_RX_CSUM | NET_RX_TSO4 | NET_RX_TSO6);
	p = (struct ndis_offload_parameters){ .tcp4 = 1, .rsc_ip4 = NDIS_RSC_OFF, .rsc_ip6 = NDIS_RSC_OFF };
	assert_int_equal(netvsp_set(nic.dev, OID_TCP_OFFLOAD_PARAMETERS, (uint8_t *)&p, sizeof(p)), 0);
	assert_int_equal(nic.offload, 0);
	assert_int_equal(netvsp_set(nic.dev, OID_TCP_OFFLOAD_PARAMETERS, (uint8_t *)&p, 3), RNDIS_STATUS_INVALID_DATA);
	nic_teardown();
}

/* The card's own address, as Linux sets it. */
static void test_set_address(void **state)
{
	static const char name[] = "NetworkAddress", value[] = "02aBcD010203";
	uint32_t head[5] = { 20, 28, RNDIS_CONFIG_STRING, 48, 24 };
	uint8_t message[72] = { 0 };
	size_t size;

	(void)state;
	nic_setup(true, 1, 1);
	memcpy(message, head, sizeof(head));
	for (size_t i = 0; i < 14; i++)
		message[20 + 2 * i] = (uint8_t)name[i];
	for (size_t i = 0; i < 12; i++)
		message[48 + 2 * i] = (uint8_t)value[i];
	assert_int_equal(netvsp_set(nic.dev, OID_GEN_RNDIS_CONFIG_PARAMETER, message, sizeof(message)), 0);
	query(OID_802_3_CURRENT_ADDRESS, 0, &size);
	assert_memory_equal(info, "\x02\xab\xcd\x01\x02\x03", 6);
	query(OID_802_3_PERMANENT_ADDRESS, 0, &size);
	assert_memory_equal(info, nic_mac, 6);
	for (size_t short_by = 1; short_by <= sizeof(message); short_by++)
		assert_int_not_equal(
			netvsp_set(nic.dev, OID_GEN_RNDIS_CONFIG_PARAMETER, message, sizeof(message) - short_by), 0);
	message[48] = 'x';
	assert_int_equal(netvsp_set(nic.dev, OID_GEN_RNDIS_CONFIG_PARAMETER, message, sizeof(message)),
			 RNDIS_STATUS_INVALID_DATA);
	nic_teardown();
}

static void test_set_rss(void **state)
{
	struct {
		struct ndis_rss_parameters p;
		uint8_t key[40];
		uint32_t table[128];
	} set = { .p = { .hash = 0x301, .key_size = 40, .key_offset = 40, .table_size = 512, .table_offset = 80 } };

	(void)state;
	nic_setup(false, 1, 4);
	set.table[5] = 3;
	assert_int_equal(netvsp_set(nic.dev, OID_GEN_RSS_PARAMETERS, (uint8_t *)&set, sizeof(set)), 0);
	assert_true(nic.dev->rss);
	assert_int_equal(nic.dev->rss_table[5], 3);
	assert_int_equal(netvsp_set(nic.dev, OID_GEN_RSS_PARAMETERS, (uint8_t *)&set, sizeof(set) - 1),
			 RNDIS_STATUS_INVALID_DATA);
	set.table[5] = 4;
	assert_int_equal(netvsp_set(nic.dev, OID_GEN_RSS_PARAMETERS, (uint8_t *)&set, sizeof(set)),
			 RNDIS_STATUS_INVALID_DATA);
	set.table[5] = 0;
	set.p.key_offset = 0xfffffff0;
	assert_int_equal(netvsp_set(nic.dev, OID_GEN_RSS_PARAMETERS, (uint8_t *)&set, sizeof(set)),
			 RNDIS_STATUS_INVALID_DATA);
	set.p.flags = NDIS_RSS_KEY_UNCHANGED;
	assert_int_equal(netvsp_set(nic.dev, OID_GEN_RSS_PARAMETERS, (uint8_t *)&set, sizeof(set)), 0);
	set.p.flags = NDIS_RSS_DISABLE;
	assert_int_equal(netvsp_set(nic.dev, OID_GEN_RSS_PARAMETERS, (uint8_t *)&set, sizeof(set)), 0);
	assert_false(nic.dev->rss);
	nic_teardown();
}

/* Microsoft's own examples: "Verifying the RSS hash calculation". */
static void test_toeplitz(void **state)
{
	static const uint8_t key[40] = { 0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
					 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
					 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
					 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa };
	static const uint8_t flow[12] = { 66, 9, 149, 187, 161, 142, 100, 80, 0x0a, 0xea, 0x06, 0xe6 };

	(void)state;
	assert_int_equal(packet_toeplitz(key, flow, 8), 0x323e8fc2);
	assert_int_equal(packet_toeplitz(key, flow, 12), 0x51ccc178);
}

/* Sums do not depend on how the bytes are cut. */
static void test_sums(void **state)
{
	uint8_t bytes[301];
	uint32_t plain = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++) {
		bytes[i] = (uint8_t)(i * 31 + 7);
		plain += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
	}
	while (plain >> 16)
		plain = (plain & 0xffff) + (plain >> 16);
	for (size_t a = 0; a <= 60; a++) {
		for (size_t b = a; b <= a + 40; b += 7) {
			const struct iovec iov[] = { { bytes, a }, { bytes + a, b - a }, { bytes + b, 301 - b } };

			assert_int_equal(packet_sum(iov, 3, 0, 301), plain);
		}
	}
}

static uint32_t plain_sum(const uint8_t *bytes, size_t size)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < size; i++)
		sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Long pieces are summed by the block; carries at every place, and none too many. */
static void test_long_sums(void **state)
{
	static uint8_t bytes[4096 + 8];
	static const uint8_t fill[] = { 0xff, 0x00, 0xfe, 0x80 };

	(void)state;
	for (size_t f = 0; f <= sizeof(fill); f++) {
		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = f < sizeof(fill) ? fill[f] : (uint8_t)(i * 131 + (i >> 7) * 17 + 251);
		for (size_t size = 100; size <= 4096; size += size < 600 ? 1 : 97) {
			const struct iovec iov = { bytes + size % 8, size };

			assert_int_equal(packet_sum(&iov, 1, 0, size), plain_sum(bytes + size % 8, size));
		}
	}
}

static void test_parse(void **state)
{
	uint8_t frame[PACKET_HEAD] = { 0 };
	struct packet p;

	(void)state;
	frame[12] = 0x86;
	frame[13] = 0xdd;
	frame[14] = 0x60;
	frame[20] = 0; /* hop by hop, then destination options, then TCP */
	frame[54] = 60;
	frame[55] = 1;
	frame[70] = PACKET_TCP;
	packet_parse(frame, sizeof(frame), &p);
	assert_int_equal(p.ip, 6);
	assert_int_equal(p.protocol, PACKET_TCP);
	assert_int_equal(p.l4, 78);
	/* Any length, any content: never past the end. */
	for (size_t size = 0; size <= sizeof(frame); size++) {
		uint8_t *exact = malloc(size + 1);

		assert_non_null(exact);
		memcpy(exact, frame, size);
		packet_parse(exact, size, &p);
		free(exact);
	}
	frame[55] = 255;
	packet_parse(frame, sizeof(frame), &p);
	assert_int_equal(p.protocol, 0);
}

static void test_options(void **state)
{
	static const char *const bad[] = {
		"",
		"tap=",
		"tap=aaaaaaaaaaaaaaaa",
		"tap=a/b",
		"fd=",
		"fd=x",
		"fd=-1",
		"users",
		"user,",
		"user,queues=0",
		"user,queues=65",
		"user,mtu=9001",
		"user,mtu=100",
		"user,mac=1",
		"user,mac=01:02:03:04:05:06",
		"user,mac=00:00:00:00:00:00",
		"user,mac=02:02:03:04:05:0g",
		"user,hostfwd=tcp:1",
		"user,hostfwd=tcp:0-1",
		"user,hostfwd=tcp:1-65536",
		"user,hostfwd=sctp:1-1",
		"tap=a,hostfwd=tcp:1-1",
		"user,mac",
		"user,x=1",
	};
	struct net_options o;
	char err[160], text[40];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		err[0] = '\0';
		assert_int_equal(net_parse(bad[i], &o, err, sizeof(err)), -EINVAL);
		assert_true(err[0]);
	}
	assert_int_equal(net_parse("tap=tap0,mac=02:00:00:00:00:fe,queues=4,mtu=9000", &o, err, sizeof(err)), 0);
	assert_int_equal(o.kind, NET_TAP);
	assert_string_equal(o.tap, "tap0");
	assert_true(o.has_mac && o.mac[5] == 0xfe && o.queues == 4 && o.mtu == 9000);
	net_describe(&o, text, sizeof(text));
	assert_string_equal(text, "tap=tap0");
	assert_int_equal(net_parse("user,hostfwd=tcp:2222-22,hostfwd=udp:53-5353", &o, err, sizeof(err)), 0);
	assert_true(o.nr_forwards == 2 && o.forwards[0].host == 2222 && o.forwards[1].guest == 5353 &&
		    o.forwards[1].udp);
	assert_int_equal(net_parse("fd=7", &o, err, sizeof(err)), 0);
	assert_true(o.kind == NET_FD && o.fd == 7 && o.queues == 1 && !o.mtu && !o.has_mac);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_supported),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_offload_capabilities),
		cmocka_unit_test(test_set_offload),
		cmocka_unit_test(test_set_address),
		cmocka_unit_test(test_set_rss),
		cmocka_unit_test(test_toeplitz),
		cmocka_unit_test(test_sums),
		cmocka_unit_test(test_long_sums),
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_options),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	nic_end();
	return failed;
}
