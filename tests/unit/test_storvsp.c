/* SPDX-License-Identifier: MIT */
/* The storage controller as a guest sees it. */
/* cmocka wants these before itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "storvsp_fake.h"

static int setup(void **state)
{
	(void)state;
	fake_setup();
	assert_int_equal(fake_open(0), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_teardown();
	return 0;
}

/* The answer that came last; takes all. */
static struct fake_answer *take(uint64_t transaction)
{
	struct fake_answer *answer = &fake.sent[fake.nr_sent - 1];

	assert_true(fake.nr_sent > 0);
	assert_int_equal(answer->transaction, transaction);
	assert_int_equal(answer->packet.operation, VSTOR_COMPLETE_IO);
	assert_int_equal(answer->packet.flags, 0);
	fake.nr_sent = 0;
	return answer;
}

static uint32_t control_on(unsigned int channel, uint32_t operation, uint16_t value)
{
	struct vstor_packet p = { .operation = operation, .flags = 1, .version = value };

	assert_int_equal(fake_packet(channel, VMBUS_PACKET_INBAND, 7, NULL, 0, &p, sizeof(p)), 0);
	return take(7)->packet.status;
}

static uint32_t control(uint32_t operation, uint16_t value)
{
	return control_on(0, operation, value);
}

static void ready(void)
{
	assert_int_equal(control(VSTOR_BEGIN_INIT, 0), 0);
	assert_int_equal(control(VSTOR_QUERY_VERSION, VSTOR_V6_2), 0);
	assert_int_equal(control(VSTOR_QUERY_PROPERTIES, 0), 0);
	assert_int_equal(control(VSTOR_END_INIT, 0), 0);
}

/* A range list over pages [first, first + n), in one range. */
struct list {
	uint64_t words[1024];
	size_t size;
};

static struct list range(uint32_t offset, uint32_t length, uint64_t first)
{
	struct list l = { .words = { 1ULL << 32, (uint64_t)offset << 32 | length } };
	size_t pages = ((size_t)offset + length + FAKE_PAGE - 1) / FAKE_PAGE;

	for (size_t i = 0; i < pages; i++)
		l.words[2 + i] = first + i;
	l.size = (2 + pages) * 8;
	return l;
}

static struct vstor_packet srb(uint8_t lun, uint32_t transfer, const uint8_t *cdb, uint8_t length)
{
	struct vstor_packet p = { .operation = VSTOR_EXECUTE_SRB, .flags = 1 };

	p.srb.length = 52;
	p.srb.lun = lun;
	p.srb.cdb_length = length;
	p.srb.sense_length = 20;
	p.srb.transfer_length = transfer;
	memcpy(p.srb.cdb_or_sense, cdb, length < 20 ? length : 20);
	return p;
}
#define SRB(lun, transfer, ...)                                                                                        \
	srb(lun, transfer, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

static int send_srb(unsigned int channel, uint64_t transaction, struct vstor_packet p, const struct list *list)
{
	return list ? fake_packet(channel, VMBUS_PACKET_GPA_DIRECT, transaction, list->words, list->size, &p, sizeof(p))
		    : fake_packet(channel, VMBUS_PACKET_INBAND, transaction, NULL, 0, &p, sizeof(p));
}

/* Sends it, lets all end, and expects these. */
static struct vstor_srb execute(struct vstor_packet p, const struct list *list, uint8_t srb_status, uint8_t scsi_status)
{
	struct fake_answer *answer;

	assert_int_equal(send_srb(0, 99, p, list), 0);
	fake_end_all();
	answer = take(99);
	assert_int_equal(answer->packet.status, 0);
	assert_int_equal(answer->packet.srb.srb_status, srb_status);
	assert_int_equal(answer->packet.srb.scsi_status, scsi_status);
	return answer->packet.srb;
}

static void negotiation(void **state)
{
	static const uint16_t good[] = { 0x0200, 0x0402, 0x0501, 0x0600, 0x0602 };
	static const uint16_t bad[] = { 0, 0x0100, 0x0403, 0x0601, 0x0603, 0x0700, 0xffff };
	struct vstor_packet p = { .operation = VSTOR_QUERY_PROPERTIES };
	struct vstor_properties properties;

	(void)state;
	assert_int_equal(control(VSTOR_QUERY_VERSION, VSTOR_V6_2), VSTOR_STATUS_INVALID_STATE);
	assert_int_equal(control(VSTOR_QUERY_PROPERTIES, 0), VSTOR_STATUS_INVALID_STATE);
	assert_int_equal(control(VSTOR_END_INIT, 0), VSTOR_STATUS_INVALID_STATE);
	assert_int_equal(control(VSTOR_CREATE_SUB_CHANNELS, 1), VSTOR_STATUS_INVALID_STATE);
	assert_int_equal(control(VSTOR_BEGIN_INIT, 0), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(control(VSTOR_QUERY_VERSION, bad[i]), VSTOR_STATUS_REVISION_MISMATCH);
	assert_int_equal(control(VSTOR_END_INIT, 0), VSTOR_STATUS_INVALID_STATE);
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_int_equal(control(VSTOR_QUERY_VERSION, good[i]), 0);
	/* The shorter packets of old versions are answered in kind. */
	assert_int_equal(fake_packet(0, VMBUS_PACKET_INBAND, 1, NULL, 0, &p, VSTOR_PACKET_OLD), 0);
	assert_int_equal(fake.sent[0].size, VSTOR_PACKET_OLD);
	properties = take(1)->packet.properties;
	assert_int_equal(properties.max_sub_channels, FAKE_CHANNELS - 1);
	assert_int_equal(properties.flags, VSTOR_MULTICHANNEL);
	assert_int_equal(properties.max_transfer_bytes, 2 << 20);
	execute(SRB(0, 0, 0, 0, 0, 0, 0, 0), NULL, VSTOR_SRB_INVALID_REQUEST, 0);
	assert_int_equal(control(VSTOR_END_INIT, 0), 0);
	execute(SRB(0, 0, 0, 0, 0, 0, 0, 0), NULL, VSTOR_SRB_SUCCESS, 0);
	for (uint32_t operation = 0; operation < 100; operation++)
		if (operation < VSTOR_EXECUTE_SRB || operation > VSTOR_CREATE_SUB_CHANNELS ||
		    operation == VSTOR_FC_HBA_DATA || operation == VSTOR_ENUMERATE_BUS)
			assert_int_equal(control(operation, 0), VSTOR_STATUS_INVALID_REQUEST);
}

static void subchannels(void **state)
{
	struct list list = range(0, 512, 5);

	(void)state;
	ready();
	assert_int_equal(control(VSTOR_CREATE_SUB_CHANNELS, FAKE_CHANNELS), VSTOR_STATUS_INVALID_PARAMETER);
	assert_int_equal(control(VSTOR_CREATE_SUB_CHANNELS, 2), 0);
	assert_int_equal(fake.offered, 2);
	assert_int_equal(control(VSTOR_CREATE_SUB_CHANNELS, 1), VSTOR_STATUS_INVALID_STATE);
	assert_int_equal(fake_open(1), 0);
	assert_int_equal(fake_open(2), 0);
	assert_int_equal(control_on(1, VSTOR_BEGIN_INIT, 0), VSTOR_STATUS_INVALID_STATE);
	assert_int_equal(send_srb(2, 3, SRB(0, 512, 0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0), &list), 0);
	assert_int_equal(send_srb(1, 4, SRB(0, 512, 0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0), &list), 0);
	fake_end_all();
	assert_int_equal(fake.nr_sent, 2);
	assert_int_equal(fake.sent[0].channel + fake.sent[1].channel, 3);
	fake.nr_sent = 0;
	/* All go with the primary one, and come again. */
	fake_close(0);
	assert_int_equal(fake_open(0), 0);
	ready();
	assert_int_equal(control(VSTOR_CREATE_SUB_CHANNELS, 3), 0);
}

static void read_and_write(void **state)
{
	struct list list = range(512, 3 * 4096, 10), odd = range(4095, 4098, 20);
	struct vstor_srb s;

	(void)state;
	ready();
	memset(fake.ram + 10 * FAKE_PAGE, 0xaa, 4 * FAKE_PAGE);
	s = execute(SRB(0, 3 * 4096, 0x2a, 0, 0, 0, 0, 8, 0, 0, 24, 0), &list, VSTOR_SRB_SUCCESS, 0);
	assert_int_equal(s.transfer_length, 3 * 4096);
	assert_int_equal(fake.blocks[0].bytes[8 * 512 - 1], 0x10);
	assert_int_equal(fake.blocks[0].bytes[8 * 512], 0xaa);
	assert_int_equal(fake.blocks[0].bytes[32 * 512 - 1], 0xaa);
	assert_int_equal(fake.blocks[0].bytes[32 * 512], 0x10);
	s = execute(SRB(0, 4098, 0x28, 0, 0, 0, 0, 31, 0, 0, 8, 0), &odd, VSTOR_SRB_SUCCESS, 0);
	assert_int_equal(s.transfer_length, 4096);
	assert_int_equal(fake.ram[21 * FAKE_PAGE - 1], 0xaa);
	assert_int_equal(fake.ram[21 * FAKE_PAGE + 510], 0xaa);
	assert_int_equal(fake.ram[21 * FAKE_PAGE + 511], 0x10);
	assert_int_equal(fake.ram[22 * FAKE_PAGE - 2], 0x10);
	assert_int_equal(fake.ram[22 * FAKE_PAGE - 1], 0);
	execute(SRB(0, 0, 0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), NULL, VSTOR_SRB_SUCCESS, 0);
}

/* Neighbouring pages are one segment, and 2 MiB go in one request. */
static void segments(void **state)
{
	struct list list = range(0, 2 << 20, 10);

	(void)state;
	ready();
	assert_int_equal(send_srb(0, 1, SRB(0, 2 << 20, 0x28, 0, 0, 0, 0, 0, 0, 0x10, 0, 0), &list), 0);
	assert_int_equal(fake_io.queued, 1);
	assert_int_equal(fake_io.queue[0]->count, 1);
	fake_end_all();
	take(1);
	for (size_t i = 2; i < 2 + 512; i++)
		list.words[i] = 10 + (511 - (i - 2));
	assert_int_equal(send_srb(0, 1, SRB(0, 2 << 20, 0x28, 0, 0, 0, 0, 0, 0, 0x10, 0, 0), &list), 0);
	assert_int_equal(fake_io.queue[0]->count, 512);
	fake_end_all();
	take(1);
	/* Two ranges. */
	list = (struct list){ .words = { 2ULL << 32, 512, 30, 512ULL << 32 | 512, 30 }, .size = 40 };
	assert_int_equal(send_srb(0, 1, SRB(0, 1024, 0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0), &list), 0);
	assert_int_equal(fake_io.queue[0]->count, 1);
}

static void absent_units(void **state)
{
	struct list list = range(0, 4096, 10);
	struct vstor_packet p = SRB(FAKE_DISKS, 36, 0x12, 0, 0, 0, 36, 0);

	(void)state;
	ready();
	execute(p, &list, VSTOR_SRB_SUCCESS, 0);
	assert_int_equal(fake.ram[10 * FAKE_PAGE], 0x7f);
	for (unsigned int i = 0; i < 2; i++) {
		p = SRB(0, 36, 0x12, 0, 0, 0, 36, 0);
		*(i ? &p.srb.path : &p.srb.target) = 1;
		fake.ram[10 * FAKE_PAGE] = 0;
		execute(p, &list, VSTOR_SRB_SUCCESS, 0);
		assert_int_equal(fake.ram[10 * FAKE_PAGE], 0x7f);
		p = SRB(0, 4096, 0xa0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0);
		*(i ? &p.srb.path : &p.srb.target) = 1;
		assert_int_equal(execute(p, &list, VSTOR_SRB_SUCCESS, 0).transfer_length, 8);
	}
	assert_int_equal(execute(SRB(0, 4096, 0xa0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0), &list, VSTOR_SRB_SUCCESS, 0)
				 .transfer_length,
			 8 + 8 * FAKE_DISKS);
	execute(SRB(FAKE_DISKS, 0, 0, 0, 0, 0, 0, 0), NULL, VSTOR_SRB_INVALID_LUN, 0);
	execute(SRB(255, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), &list, VSTOR_SRB_INVALID_LUN, 0);
}

static void sense_data(void **state)
{
	struct list list = range(0, 512, 10);
	struct vstor_packet p = SRB(0, 512, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0);
	struct vstor_srb s;

	(void)state;
	ready();
	fake_io.error = -ENOSPC;
	s = execute(p, &list, VSTOR_SRB_ERROR | VSTOR_SRB_AUTOSENSE, 2);
	assert_int_equal(s.sense_length, 18);
	assert_int_equal(s.transfer_length, 0);
	assert_int_equal(s.cdb_or_sense[2], 7);
	assert_int_equal(s.cdb_or_sense[12], 0x27);
	assert_int_equal(s.cdb_or_sense[13], 7);
	p.srb.sense_length = 8;
	assert_int_equal(execute(p, &list, VSTOR_SRB_ERROR | VSTOR_SRB_AUTOSENSE, 2).sense_length, 8);
	p.srb.sense_length = 0;
	execute(p, &list, VSTOR_SRB_ERROR, 2);
	fake_io.error = 0;
	s = execute(SRB(1, 512, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), &list, VSTOR_SRB_ERROR | VSTOR_SRB_AUTOSENSE, 2);
	assert_int_equal(s.cdb_or_sense[2], 7);
	s = execute(SRB(2, 512, 0x28, 0, 0, 0xff, 0, 0, 0, 0, 1, 0), &list, VSTOR_SRB_ERROR | VSTOR_SRB_AUTOSENSE, 2);
	assert_int_equal(s.cdb_or_sense[12], 0x21);
}

static void impossible_requests(void **state)
{
	struct list list = range(0, 4096, 10), far = range(0, 4096, FAKE_PAGES), high = range(0, 4096, UINT64_MAX);
	struct list edge = range(4000, 4096, FAKE_PAGES - 1);
	struct vstor_packet p = SRB(0, 4096, 0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0);

	(void)state;
	ready();
	execute(p, &far, VSTOR_SRB_INVALID_REQUEST, 0);
	execute(p, &high, VSTOR_SRB_INVALID_REQUEST, 0);
	execute(p, &edge, VSTOR_SRB_INVALID_REQUEST, 0);
	p.srb.transfer_length = 4097; /* more than the list has */
	execute(p, &list, VSTOR_SRB_INVALID_REQUEST, 0);
	p.srb.transfer_length = 4096;
	execute(p, NULL, VSTOR_SRB_INVALID_REQUEST, 0);
	p.srb.cdb_length = 17;
	execute(p, &list, VSTOR_SRB_INVALID_REQUEST, 0);
	p.srb.cdb_length = 0;
	execute(p, &list, VSTOR_SRB_ERROR | VSTOR_SRB_AUTOSENSE, 2);
	p.srb.cdb_length = 10;
	p.srb.transfer_length = 512; /* less than the CDB wants */
	execute(p, &list, VSTOR_SRB_ERROR | VSTOR_SRB_AUTOSENSE, 2);
	assert_int_equal(fake_io.queued, 0);
}

static void broken_packets(void **state)
{
	struct list lists[] = {
		{ .size = 0 },
		{ .words = { 1ULL << 32 }, .size = 8 },
		{ .words = { 1ULL << 32, 4096 }, .size = 16 },
		{ .words = { 1ULL << 32, 4097, 5 }, .size = 24 },
		{ .words = { 1ULL << 32, 4096ULL << 32 | 1, 5 }, .size = 24 },
		{ .words = { 1ULL << 32, 0xffffffff, 5 }, .size = 24 },
		{ .words = { 1ULL << 32, 4095ULL << 32 | 0xffffffff, 5 }, .size = 24 },
		{ .words = { 2ULL << 32, 4096, 5 }, .size = 24 },
		{ .words = { 0xffffffffULL << 32, 0, 0, 0 }, .size = 32 },
	};
	struct vstor_packet p = SRB(0, 4096, 0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0);

	(void)state;
	ready();
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		assert_true(send_srb(0, 1, p, &lists[i]) < 0);
	assert_true(fake_packet(0, VMBUS_PACKET_INBAND, 1, NULL, 0, &p, 40) < 0);
	assert_true(fake_packet(0, VMBUS_PACKET_COMPLETION, 1, NULL, 0, &p, sizeof(p)) < 0);
	assert_true(fake_packet(0, VMBUS_PACKET_TRANSFER_PAGES, 1, NULL, 0, &p, sizeof(p)) < 0);
	assert_int_equal(fake.nr_sent, 0);
	/* A range of nothing is fine. */
	lists[0] = (struct list){ .words = { 1ULL << 32, 0 }, .size = 16 };
	execute(SRB(0, 0, 0, 0, 0, 0, 0, 0), &lists[0], VSTOR_SRB_SUCCESS, 0);
}

/* The ring is not read any more when so many requests are under way, and again when some have ended. */
static void limit(void **state)
{
	struct list list = range(0, 512, 10);

	(void)state;
	ready();
	for (unsigned int i = 0; i < STORVSP_IN_FLIGHT; i++) {
		assert_false(fake.channels[0].paused);
		assert_int_equal(send_srb(0, i, SRB(0, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), &list), 0);
	}
	assert_true(fake.channels[0].paused);
	fake_end_one(0);
	assert_true(fake.channels[0].paused);
	fake_end_turn();
	assert_false(fake.channels[0].paused);
	assert_int_equal(fake.channels[0].flushes, 1);
	while (fake_io.queued)
		fake_end_one(0);
	fake_end_turn();
	assert_int_equal(fake.channels[0].flushes, 2); /* one for all */
	assert_int_equal(fake.nr_sent, STORVSP_IN_FLIGHT);
	fake.nr_sent = 0;
}

static void ring_full(void **state)
{
	struct list list = range(0, 512, 10);

	(void)state;
	ready();
	fake.full = true;
	for (unsigned int i = 0; i < STORVSP_IN_FLIGHT; i++)
		assert_int_equal(send_srb(0, i, SRB(0, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), &list), 0);
	fake_end_all();
	assert_int_equal(fake.nr_sent, 0);
	assert_true(fake.channels[0].paused);
	fake_make_room(0);
	assert_int_equal(fake.nr_sent, STORVSP_IN_FLIGHT);
	assert_false(fake.channels[0].paused);
	for (unsigned int i = 0, seen = 0; i < fake.nr_sent; i++) {
		assert_true(fake.sent[i].transaction < STORVSP_IN_FLIGHT);
		seen += (unsigned int)fake.sent[i].transaction;
		if (i == STORVSP_IN_FLIGHT - 1)
			assert_int_equal(seen, STORVSP_IN_FLIGHT * (STORVSP_IN_FLIGHT - 1) / 2);
	}
	fake.nr_sent = 0;
}

/* What a closed channel had under way ends before anything of the next one begins, and nobody is told. */
static void close_with_requests(void **state)
{
	struct list list = range(0, 512, 10);

	(void)state;
	ready();
	for (unsigned int i = 0; i < 3; i++)
		send_srb(0, i, SRB(0, 512, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), &list);
	fake_close(0);
	assert_int_equal(fake_open(0), 0);
	assert_true(fake.channels[0].paused);
	fake_end_one(0);
	fake_end_turn();
	assert_true(fake.channels[0].paused);
	fake_end_all();
	assert_false(fake.channels[0].paused);
	assert_int_equal(fake.nr_sent, 0);
	ready();
	/* With answers that wait for room. */
	fake.full = true;
	send_srb(0, 1, SRB(0, 0, 0, 0, 0, 0, 0, 0), NULL);
	send_srb(0, 2, SRB(0, 512, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), &list);
	fake_close(0);
	fake.full = false;
	fake_end_all();
	assert_int_equal(fake.nr_sent, 0);
	assert_int_equal(fake_open(0), 0);
	assert_false(fake.channels[0].paused);
}

static void machine_reset_waits(void **state)
{
	struct list list = range(0, 512, 10);

	(void)state;
	ready();
	for (unsigned int i = 0; i < 3; i++)
		send_srb(0, i, SRB(0, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), &list);
	fake_close(0);
	fake.device->class->reset(fake.device);
	assert_int_equal(fake_io.queued, 0);
	assert_int_equal(fake.nr_sent, 0);
	assert_int_equal(fake_open(0), 0);
	assert_false(fake.channels[0].paused);
}

static void bus_reset(void **state)
{
	struct list list = range(0, 512, 10);
	struct vstor_packet p = { .operation = VSTOR_RESET_BUS, .flags = 1 };

	(void)state;
	ready();
	assert_int_equal(control(VSTOR_RESET_LUN, 0), 0);
	assert_int_equal(control(VSTOR_RESET_ADAPTER, 0), 0);
	for (unsigned int i = 0; i < 3; i++)
		send_srb(0, i, SRB(0, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), &list);
	assert_int_equal(fake_packet(0, VMBUS_PACKET_INBAND, 50, NULL, 0, &p, sizeof(p)), 0);
	assert_true(fake.channels[0].paused);
	fake_end_one(0);
	fake_end_turn();
	assert_int_equal(fake.nr_sent, 1);
	fake_end_all();
	assert_int_equal(fake.nr_sent, 4);
	take(50);
	assert_false(fake.channels[0].paused);
	/* Closed meanwhile. */
	send_srb(0, 1, SRB(0, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), &list);
	assert_int_equal(fake_packet(0, VMBUS_PACKET_INBAND, 51, NULL, 0, &p, sizeof(p)), 0);
	fake_close(0);
	fake_end_all();
	assert_int_equal(fake.nr_sent, 0);
}

/* A ring that the guest breaks closes the channel in the middle of an answer: in a packet, and in a completion. */
static void broken_ring(void **state)
{
	struct list list = range(0, 512, 10);
	struct vstor_packet p = { .operation = VSTOR_RESET_BUS, .flags = 1 };

	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		ready();
		for (unsigned int n = 0; n < 3; n++)
			send_srb(0, n, SRB(0, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), &list);
		if (i == 1)
			assert_int_equal(fake_packet(0, VMBUS_PACKET_INBAND, 51, NULL, 0, &p, sizeof(p)), 0);
		if (i == 2) {
			fake.full = true;
			fake_end_one(0);
			fake.full = false;
		}
		if (i != 3)
			fake.broken = true;
		if (!i)
			assert_int_equal(send_srb(0, 9, SRB(0, 0, 0, 0, 0, 0, 0, 0), NULL), 0);
		else if (i == 2)
			fake_make_room(0);
		fake_end_one(0);
		fake.broken = true;
		fake_end_all();
		assert_false(fake.channels[0].open);
		fake.broken = false;
		fake.nr_sent = 0;
		assert_int_equal(fake_open(0), 0);
		assert_false(fake.channels[0].paused);
	}
}

/* A disk that another device has: nothing is read off the ring before that has let go. */
static void claim(void **state)
{
	(void)state;
	fake_close(0);
	assert_false(block_claim_begin(&fake.claim)); /* it has been open */
	block_claim_return(&fake.claim);
	assert_true(block_claim_begin(&fake.claim));
	assert_true(block_claim_begin(&fake.claim));
	assert_int_equal(fake_open(0), 0);
	assert_true(fake.channels[0].paused);
	assert_false(block_claim_begin(&fake.claim));
	block_claim_end(&fake.claim);
	fake_end_turn();
	assert_true(fake.channels[0].paused);
	fake_close(0); /* and once more, which takes it for what it is */
	assert_int_equal(fake_open(0), 0);
	assert_true(fake.channels[0].paused);
	block_claim_end(&fake.claim);
	fake_end_turn();
	assert_false(fake.channels[0].paused);
	ready();
	assert_false(block_claim_begin(&fake.claim));
	/* A reset of the machine. */
	fake_close(0);
	block_claim_return(&fake.claim);
	assert_true(block_claim_begin(&fake.claim));
	block_claim_end(&fake.claim);
	assert_int_equal(fake_open(0), 0);
	assert_false(fake.channels[0].paused);
}

/* The machine ends with requests under way, one of them a pattern that is written. */
static void end_with_requests(void **state)
{
	struct list list = range(0, 512, 10);

	(void)state;
	ready();
	memset(fake.ram + 10 * FAKE_PAGE, 1, 512);
	send_srb(0, 1, SRB(0, 512, 0x41, 0, 0, 0, 0, 0, 0, 1, 0, 0), &list);
	send_srb(0, 2, SRB(0, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), &list);
	assert_int_equal(fake_io.queued, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(negotiation, setup, teardown),
		cmocka_unit_test_setup_teardown(subchannels, setup, teardown),
		cmocka_unit_test_setup_teardown(read_and_write, setup, teardown),
		cmocka_unit_test_setup_teardown(segments, setup, teardown),
		cmocka_unit_test_setup_teardown(absent_units, setup, teardown),
		cmocka_unit_test_setup_teardown(sense_data, setup, teardown),
		cmocka_unit_test_setup_teardown(impossible_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(broken_packets, setup, teardown),
		cmocka_unit_test_setup_teardown(limit, setup, teardown),
		cmocka_unit_test_setup_teardown(ring_full, setup, teardown),
		cmocka_unit_test_setup_teardown(close_with_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(machine_reset_waits, setup, teardown),
		cmocka_unit_test_setup_teardown(bus_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(broken_ring, setup, teardown),
		cmocka_unit_test_setup_teardown(claim, setup, teardown),
		cmocka_unit_test_setup_teardown(end_with_requests, setup, teardown),
	};

	return cmocka_run_group_tests_name("storvsp", tests, NULL, NULL);
}
