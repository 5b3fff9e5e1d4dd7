/* SPDX-License-Identifier: MIT */
/* The SCSI target as an initiator sees it: commands, the operations that they ask for, data, status and sense. */
/* cmocka wants these before itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/scsi/scsi.h"

#define BLOCKS 0x300000ULL /* more than READ(6) can name */

static const struct scsi_lu disk = {
	.type = SCSI_DISK,
	.blocks = BLOCKS,
	.block_size = 512,
	.best_blocks = 8,
	.transfer_bytes = 2 << 20,
	.unmap = true,
	.serial = "serial-1",
	.id = 0xfedcba9876543210,
};
static const struct scsi_lu dvd = {
	.type = SCSI_DVD, .blocks = 1000, .block_size = 2048, .best_blocks = 1, .readonly = true, .serial = "dvd"
};

static struct {
	struct scsi_command c;
	struct iovec iov[3];
	uint8_t data[8192];
} t;

/* The initiator's buffer is in three pieces, the first two odd. */
static enum scsi_op start(const struct scsi_lu *lu, const uint8_t *cdb, unsigned int length, size_t size)
{
	size_t first = size < 5 ? size : 5, second = size - first < 100 ? size - first : 100;

	scsi_end(&t.c);
	memset(&t.c, 0, sizeof(t.c));
	t.iov[0] = (struct iovec){ t.data, first };
	t.iov[1] = (struct iovec){ t.data + first, second };
	t.iov[2] = (struct iovec){ t.data + first + second, size - first - second };
	t.c.lu = lu;
	t.c.luns = 3;
	memcpy(t.c.cdb, cdb, length);
	t.c.cdb_length = length;
	t.c.data = t.iov;
	t.c.data_count = 3;
	t.c.data_size = size;
	return scsi_start(&t.c);
}
#define START(lu, size, ...) start(lu, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }), size)

static void expect_sense(enum scsi_op op, unsigned int key, unsigned int asc, unsigned int ascq)
{
	assert_int_equal(op, SCSI_DONE);
	assert_int_equal(t.c.status, SCSI_CHECK_CONDITION);
	assert_int_equal(t.c.sense[0], 0x70);
	assert_int_equal(t.c.sense[7], 10);
	assert_int_equal(t.c.sense[2], key);
	assert_int_equal(t.c.sense[12], asc);
	assert_int_equal(t.c.sense[13], ascq);
	assert_int_equal(t.c.transferred, 0);
}

static void expect_good(enum scsi_op op, size_t transferred)
{
	assert_int_equal(op, SCSI_DONE);
	assert_int_equal(t.c.status, SCSI_GOOD);
	assert_int_equal(t.c.transferred, transferred);
}

static void expect_op(enum scsi_op op, enum scsi_op want, uint64_t block, uint64_t blocks)
{
	assert_int_equal(op, want);
	assert_int_equal(t.c.offset, block * 512);
	assert_int_equal(t.c.length, blocks * 512);
}

static size_t segments_size(void)
{
	size_t sum = 0;

	for (unsigned int i = 0; i < t.c.count; i++)
		sum += t.c.segments[i].iov_len;
	return sum;
}

static uint64_t be(const uint8_t *at, unsigned int bytes)
{
	uint64_t v = 0;

	while (bytes--)
		v = v << 8 | *at++;
	return v;
}

static void test_inquiry(void **state)
{
	(void)state;
	memset(t.data, 0xcc, sizeof(t.data));
	expect_good(START(&disk, 255, 0x12, 0, 0, 0, 36, 0), 36);
	assert_int_equal(t.data[0], 0);
	assert_int_equal(t.data[1], 0);
	assert_memory_equal(t.data + 8, "VMM     Virtual Disk    ", 24);
	assert_int_equal(t.data[36], 0xcc);
	expect_good(START(&disk, 255, 0x12, 0, 0, 0, 255, 0), 74);
	expect_good(START(&disk, 10, 0x12, 0, 0, 0, 255, 0), 10);
	expect_good(START(&disk, 0, 0x12, 0, 0, 0, 0, 0), 0);
	expect_good(START(&dvd, 255, 0x12, 0, 0, 0, 255, 0), 74);
	assert_int_equal(t.data[0], 5);
	assert_int_equal(t.data[1], 0x80);
	/* Nobody is there. */
	expect_good(START(NULL, 255, 0x12, 0, 0, 0, 36, 0), 36);
	assert_int_equal(t.data[0], 0x7f);
	expect_good(START(NULL, 255, 0x12, 1, 0x80, 0, 36, 0), 36);
	assert_int_equal(t.data[0], 0x7f);
	expect_sense(START(&disk, 255, 0x12, 0, 0x80, 0, 255, 0), 5, 0x24, 0);
	expect_sense(START(&disk, 255, 0x12, 2, 0, 0, 255, 0), 5, 0x24, 0);
}

static void test_vpd(void **state)
{
	static const uint8_t pages[] = { 0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2 };
	struct scsi_lu thick = disk;

	(void)state;
	expect_good(START(&disk, 255, 0x12, 1, 0, 0, 255, 0), 10);
	assert_memory_equal(t.data + 4, pages, sizeof(pages));
	for (size_t i = 0; i < sizeof(pages); i++) {
		assert_int_equal(START(&disk, 255, 0x12, 1, pages[i], 0, 255, 0), SCSI_DONE);
		assert_int_equal(t.c.status, SCSI_GOOD);
		assert_int_equal(t.data[1], pages[i]);
		assert_int_equal(be(t.data + 2, 2), t.c.transferred - 4);
	}
	expect_good(START(&disk, 255, 0x12, 1, 0x80, 0, 255, 0), 12);
	assert_memory_equal(t.data + 4, "serial-1", 8);
	expect_good(START(&disk, 255, 0x12, 1, 0x83, 0, 255, 0), 4 + 4 + 16 + 12);
	assert_memory_equal(t.data + 8, "VMM     serial-1", 16);
	assert_int_equal(be(t.data + 28, 8), 0x3edcba9876543210);
	START(&disk, 255, 0x12, 1, 0xb0, 0, 255, 0);
	assert_int_equal(be(t.data + 6, 2), 8);
	assert_int_equal(be(t.data + 8, 4), 4096);
	assert_int_equal(be(t.data + 20, 4), 0xffffffff);
	assert_int_equal(be(t.data + 24, 4), 256);
	assert_int_equal(be(t.data + 28, 4), 8);
	assert_int_equal(be(t.data + 36, 8), 131072);
	START(&disk, 255, 0x12, 1, 0xb1, 0, 255, 0);
	assert_int_equal(be(t.data + 4, 2), 1);
	START(&disk, 255, 0x12, 1, 0xb2, 0, 255, 0);
	assert_int_equal(t.data[5], 0xe4);
	assert_int_equal(t.data[6], 2);
	thick.unmap = false;
	START(&thick, 255, 0x12, 1, 0xb2, 0, 255, 0);
	assert_int_equal(t.data[5] | t.data[6], 0);
	expect_good(START(&dvd, 255, 0x12, 1, 0, 0, 255, 0), 7);
	expect_sense(START(&dvd, 255, 0x12, 1, 0xb0, 0, 255, 0), 5, 0x24, 0);
	expect_sense(START(&disk, 255, 0x12, 1, 0xb7, 0, 255, 0), 5, 0x24, 0);
	/* The longest serial number fits everywhere. */
	memset(thick.serial, 'x', SCSI_SERIAL_MAX);
	expect_good(START(&thick, 255, 0x12, 1, 0x83, 0, 255, 0), 4 + 4 + 72 + 12);
}

static void test_simple(void **state)
{
	(void)state;
	expect_good(START(&disk, 0, 0, 0, 0, 0, 0, 0), 0);
	expect_good(START(&disk, 0, 0x1b, 0, 0, 0, 1, 0), 0);
	expect_good(START(&dvd, 0, 0x1e, 0, 0, 0, 1, 0), 0);
	expect_sense(START(NULL, 0, 0, 0, 0, 0, 0, 0), 5, 0x25, 0);
	expect_sense(START(&disk, 0, 0x04, 0, 0, 0, 0, 0), 5, 0x20, 0);
	expect_sense(START(&disk, 0, 0xff, 0, 0, 0, 0, 0), 5, 0x20, 0);
	expect_sense(START(&disk, 0, 0x7f, 0, 0, 0, 0, 0), 5, 0x20, 0);
	/* CDBs that are cut short. */
	expect_sense(START(&disk, 0, 0), 5, 0x24, 0);
	expect_sense(START(&disk, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1), 5, 0x24, 0);
	expect_sense(START(&disk, 512, 0x88, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1), 5, 0x24, 0);
	expect_good(START(&disk, 252, 0x03, 0, 0, 0, 252, 0), 18);
	assert_int_equal(t.data[2], 0);
	expect_good(START(NULL, 252, 0x03, 0, 0, 0, 252, 0), 18);
	assert_int_equal(t.data[2], 5);
	assert_int_equal(t.data[12], 0x25);
	expect_sense(START(&disk, 252, 0x03, 1, 0, 0, 252, 0), 5, 0x24, 0);
}

static void test_report_luns(void **state)
{
	(void)state;
	expect_good(START(&disk, 4096, 0xa0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0), 32);
	assert_int_equal(be(t.data, 4), 24);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(be(t.data + 8 + 8 * i, 8), (uint64_t)i << 48);
	expect_good(START(NULL, 4096, 0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0), 16);
	assert_int_equal(be(t.data, 4), 24);
	expect_good(START(&disk, 4096, 0xa0, 0, 1, 0, 0, 0, 0, 0, 0, 16, 0, 0), 8);
	expect_sense(START(&disk, 4096, 0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 15, 0, 0), 5, 0x24, 0);
	expect_sense(START(&disk, 4096, 0xa0, 0, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0), 5, 0x24, 0);
}

static void test_capacity(void **state)
{
	struct scsi_lu huge = disk;

	(void)state;
	expect_good(START(&disk, 8, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), 8);
	assert_int_equal(be(t.data, 4), BLOCKS - 1);
	assert_int_equal(be(t.data + 4, 4), 512);
	expect_good(START(&disk, 32, 0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0), 32);
	assert_int_equal(be(t.data, 8), BLOCKS - 1);
	assert_int_equal(t.data[13], 3);
	assert_int_equal(t.data[14], 0xc0);
	expect_good(START(&disk, 32, 0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0), 12);
	expect_sense(START(&disk, 32, 0x9e, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0), 5, 0x24, 0);
	huge.blocks = 1ULL << 40;
	expect_good(START(&huge, 8, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), 8);
	assert_int_equal(be(t.data, 4), 0xffffffff);
	expect_good(START(&dvd, 8, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), 8);
	assert_int_equal(be(t.data, 4), 999);
	assert_int_equal(be(t.data + 4, 4), 2048);
}

static void test_read_write(void **state)
{
	(void)state;
	expect_op(START(&disk, 4096, 0x08, 0x1f, 0xff, 0xfe, 2, 0), SCSI_READ, 0x1ffffe, 2);
	assert_int_equal(segments_size(), 1024);
	expect_good(scsi_next(&t.c, 0), 1024);
	expect_op(START(&disk, 8192, 0x28, 0, 0, 0x2f, 0xff, 0xff, 0, 0, 1, 0), SCSI_READ, BLOCKS - 1, 1);
	expect_good(scsi_next(&t.c, 0), 512);
	expect_op(START(&disk, 8192, 0xa8, 0, 0, 0, 0, 9, 0, 0, 0, 16, 0, 0), SCSI_READ, 9, 16);
	expect_op(START(&disk, 8192, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0), SCSI_READ, 7, 1);
	expect_op(START(&disk, 8192, 0x0a, 0, 0, 1, 1, 0), SCSI_WRITE, 1, 1);
	assert_false(t.c.fua);
	expect_op(START(&disk, 8192, 0x2a, 8, 0, 0, 0, 5, 0, 0, 1, 0), SCSI_WRITE, 5, 1);
	assert_true(t.c.fua);
	expect_good(scsi_next(&t.c, 0), 512);
	expect_op(START(&disk, 8192, 0xaa, 0, 0, 0, 0, 9, 0, 0, 0, 16, 0, 0), SCSI_WRITE, 9, 16);
	expect_op(START(&disk, 8192, 0x8a, 0x10, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0), SCSI_WRITE, 7, 1);
	/* Nothing to transfer; READ(6) has another idea of 0, which is more than there is room for. */
	expect_good(START(&disk, 0, 0x28, 0, 0, 0, 0, 5, 0, 0, 0, 0), 0);
	expect_sense(START(&disk, 8192, 0x08, 0, 0, 0, 0, 0), 5, 0x24, 0);
	/* More than the buffer holds. */
	expect_sense(START(&disk, 511, 0x28, 0, 0, 0, 0, 5, 0, 0, 1, 0), 5, 0x24, 0);
	expect_sense(START(&disk, 8192, 0x28, 0x20, 0, 0, 0, 5, 0, 0, 1, 0), 5, 0x24, 0);
	/* Out of range, and where the sum of address and length overflows. */
	expect_sense(START(&disk, 8192, 0x28, 0, 0, 0x30, 0, 0, 0, 0, 1, 0), 5, 0x21, 0);
	expect_sense(START(&disk, 8192, 0x28, 0, 0, 0x2f, 0xff, 0xff, 0, 0, 2, 0), 5, 0x21, 0);
	expect_good(START(&disk, 0, 0x28, 0, 0, 0x30, 0, 0, 0, 0, 0, 0), 0);
	expect_sense(START(&disk, 0, 0x28, 0, 0, 0x30, 0, 1, 0, 0, 0, 0), 5, 0x21, 0);
	expect_sense(START(&disk, 8192, 0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 2, 0, 0), 5,
		     0x21, 0);
	expect_sense(START(&disk, 8192, 0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0), 5, 0x21, 0);
}

static void test_errors(void **state)
{
	static const struct {
		int error;
		uint8_t key, asc, ascq;
	} of_write[] = {
		{ -EIO, 3, 0x0c, 0 },	{ -ENOSPC, 7, 0x27, 7 },   { -EDQUOT, 7, 0x27, 7 },
		{ -EROFS, 7, 0x27, 0 }, { -ENOMEM, 0xb, 0x55, 3 }, { -EOPNOTSUPP, 3, 0x0c, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(of_write) / sizeof(of_write[0]); i++) {
		START(&disk, 8192, 0x2a, 8, 0, 0, 0, 5, 0, 0, 1, 0);
		expect_sense(scsi_next(&t.c, of_write[i].error), of_write[i].key, of_write[i].asc, of_write[i].ascq);
	}
	START(&disk, 8192, 0x28, 0, 0, 0, 0, 5, 0, 0, 1, 0);
	expect_sense(scsi_next(&t.c, -EIO), 3, 0x11, 0);
	START(&disk, 0, 0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	expect_sense(scsi_next(&t.c, -EIO), 3, 0x0c, 0);
}

static void test_readonly(void **state)
{
	struct scsi_lu readonly = disk;

	(void)state;
	readonly.readonly = true;
	expect_sense(START(&readonly, 8192, 0x2a, 0, 0, 0, 0, 5, 0, 0, 1, 0), 7, 0x27, 0);
	expect_sense(START(&readonly, 8192, 0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), 7, 0x27, 0);
	expect_sense(START(&readonly, 8192, 0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0), 7, 0x27, 0);
	expect_good(START(&readonly, 0, 0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0);
	expect_good(START(&readonly, 192, 0x1a, 0, 0x3f, 0, 192, 0), 4 + 8 + 12 + 20 + 12);
	assert_int_equal(t.data[2], 0x90);
}

static void test_flush_verify(void **state)
{
	(void)state;
	assert_int_equal(START(&disk, 0, 0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), SCSI_FLUSH);
	expect_good(scsi_next(&t.c, 0), 0);
	assert_int_equal(START(&disk, 0, 0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), SCSI_FLUSH);
	expect_sense(START(&disk, 0, 0x35, 0, 0xff, 0, 0, 0, 0, 0, 0, 0), 5, 0x21, 0);
	expect_good(START(&disk, 0, 0x2f, 0, 0, 0, 0, 5, 0, 0, 1, 0), 0);
	expect_good(START(&disk, 0, 0x8f, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0), 0);
	expect_sense(START(&disk, 0, 0x2f, 0, 0xff, 0, 0, 5, 0, 0, 1, 0), 5, 0x21, 0);
	expect_sense(START(&disk, 512, 0x2f, 2, 0, 0, 0, 5, 0, 0, 1, 0), 5, 0x24, 0);
}

/* A parameter list of UNMAP with these ranges. */
static void put_list(const uint64_t (*ranges)[2], unsigned int count)
{
	memset(t.data, 0, sizeof(t.data));
	t.data[1] = (uint8_t)(count * 16 + 6);
	t.data[3] = (uint8_t)(count * 16);
	for (unsigned int i = 0; i < count; i++) {
		for (unsigned int b = 0; b < 8; b++)
			t.data[8 + 16 * i + b] = (uint8_t)(ranges[i][0] >> (56 - 8 * b));
		for (unsigned int b = 0; b < 4; b++)
			t.data[16 + 16 * i + b] = (uint8_t)(ranges[i][1] >> (24 - 8 * b));
	}
}

static void test_unmap(void **state)
{
	static const uint64_t good[][2] = { { 8, 16 }, { 100, 0 }, { BLOCKS - 1, 1 } };
	static const uint64_t bad[][2] = { { 8, 16 }, { BLOCKS - 1, 2 } };
	static const uint64_t overflow[][2] = { { UINT64_MAX, 2 } };
	struct scsi_lu thick = disk;

	(void)state;
	put_list(good, 3);
	expect_op(START(&disk, 56, 0x42, 0, 0, 0, 0, 0, 0, 0, 56, 0), SCSI_PUNCH, 8, 16);
	memset(t.data, 0xff, sizeof(t.data)); /* it has its own copy */
	expect_op(scsi_next(&t.c, 0), SCSI_PUNCH, BLOCKS - 1, 1);
	expect_good(scsi_next(&t.c, -EOPNOTSUPP), 56); /* it is but a hint */
	put_list(good, 3);
	START(&disk, 56, 0x42, 0, 0, 0, 0, 0, 0, 0, 56, 0);
	expect_sense(scsi_next(&t.c, -EIO), 3, 0x0c, 0);
	put_list(bad, 2); /* nothing is done if anything is wrong */
	expect_sense(START(&disk, 40, 0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0), 5, 0x21, 0);
	put_list(overflow, 1);
	expect_sense(START(&disk, 24, 0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), 5, 0x21, 0);
	put_list(good, 3);
	expect_good(START(&disk, 0, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0);
	expect_good(START(&disk, 8, 0x42, 0, 0, 0, 0, 0, 0, 0, 8, 0), 8); /* of more descriptors than are there */
	expect_sense(START(&disk, 7, 0x42, 0, 0, 0, 0, 0, 0, 0, 7, 0), 5, 0x1a, 0);
	expect_sense(START(&disk, 20, 0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), 5, 0x1a, 0);
	expect_sense(START(&disk, 8192, 0x42, 0, 0, 0, 0, 0, 0, 0x20, 0, 0), 5, 0x26, 0);
	expect_sense(START(&disk, 56, 0x42, 1, 0, 0, 0, 0, 0, 0, 56, 0), 5, 0x24, 0);
	thick.unmap = false;
	expect_sense(START(&thick, 56, 0x42, 0, 0, 0, 0, 0, 0, 0, 56, 0), 5, 0x20, 0);
}

static void check_pattern(uint8_t byte, uint64_t size)
{
	assert_int_equal(segments_size(), size);
	for (unsigned int i = 0; i < t.c.count; i++) {
		const uint8_t *bytes = t.c.segments[i].iov_base;

		assert_int_equal((uintptr_t)bytes % 4096, 0);
		for (size_t n = 0; n < t.c.segments[i].iov_len; n += 511)
			assert_int_equal(bytes[n], byte);
	}
}

static void test_write_same(void **state)
{
	struct scsi_lu thick = disk;

	(void)state;
	memset(t.data, 0, sizeof(t.data));
	expect_op(START(&disk, 512, 0x41, 0, 0, 0, 0, 8, 0, 1, 0, 0), SCSI_ZERO, 8, 256);
	expect_good(scsi_next(&t.c, 0), 512);
	expect_op(START(&disk, 512, 0x93, 8, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 1, 0, 0, 0), SCSI_PUNCH, 8, 256);
	expect_op(scsi_next(&t.c, -EOPNOTSUPP), SCSI_ZERO, 8, 256);
	expect_op(scsi_next(&t.c, -EOPNOTSUPP), SCSI_WRITE, 8, 256);
	check_pattern(0, 256 * 512);
	expect_good(scsi_next(&t.c, 0), 512);
	/* Without data: zeroes. */
	expect_op(START(&disk, 0, 0x93, 9, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 1, 0, 0, 0), SCSI_PUNCH, 8, 256);
	expect_good(scsi_next(&t.c, 0), 0);
	memset(t.data, 0x5a, sizeof(t.data));
	expect_op(START(&disk, 512, 0x41, 8, 0, 0, 0, 8, 0, 0, 200, 0), SCSI_WRITE, 8, 200);
	check_pattern(0x5a, 200 * 512);
	/* The longest: 64 MiB. */
	expect_op(START(&disk, 512, 0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0), SCSI_WRITE, 0, 131072);
	assert_int_equal(t.c.count, 1024);
	check_pattern(0x5a, 64 << 20);
	expect_sense(START(&disk, 512, 0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0), 5, 0x24, 0);
	expect_sense(START(&disk, 512, 0x41, 0, 0, 0, 0, 8, 0, 0, 0, 0), 5, 0x24, 0);
	expect_sense(START(&disk, 511, 0x41, 0, 0, 0, 0, 8, 0, 0, 1, 0), 5, 0x24, 0);
	expect_sense(START(&disk, 512, 0x41, 0x10, 0, 0, 0, 8, 0, 0, 1, 0), 5, 0x24, 0);
	expect_sense(START(&disk, 512, 0x41, 0, 0, 0x30, 0, 0, 0, 0, 1, 0), 5, 0x21, 0);
	thick.unmap = false;
	memset(t.data, 0, sizeof(t.data));
	expect_op(START(&thick, 512, 0x41, 8, 0, 0, 0, 8, 0, 0, 1, 0), SCSI_ZERO, 8, 1);
}

static void test_mode_sense(void **state)
{
	(void)state;
	expect_good(START(&disk, 192, 0x1a, 0, 0x08, 0, 192, 0), 4 + 8 + 20);
	assert_int_equal(t.data[0], 31);
	assert_int_equal(t.data[2], 0x10);
	assert_int_equal(t.data[3], 8);
	assert_int_equal(be(t.data + 8, 4), 512);
	assert_int_equal(t.data[12], 8);
	assert_int_equal(t.data[14], 4);
	expect_good(START(&disk, 192, 0x1a, 8, 0x48, 0, 192, 0), 4 + 20); /* nothing can be changed */
	assert_int_equal(t.data[6], 0);
	expect_good(START(&disk, 192, 0x5a, 0x10, 0x08, 0, 0, 0, 0, 0, 192, 0), 8 + 16 + 20);
	assert_int_equal(be(t.data, 2), 42);
	assert_int_equal(t.data[4], 1);
	assert_int_equal(be(t.data + 8, 8), BLOCKS);
	expect_good(START(&disk, 192, 0x5a, 8, 0x3f, 0xff, 0, 0, 0, 0, 192, 0), 8 + 12 + 20 + 12);
	expect_good(START(&dvd, 192, 0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 192, 0), 8 + 24);
	expect_sense(START(&disk, 192, 0x1a, 0, 0xc8, 0, 192, 0), 5, 0x39, 0);
	expect_sense(START(&disk, 192, 0x1a, 0, 0x08, 1, 192, 0), 5, 0x24, 0);
	expect_sense(START(&disk, 192, 0x1a, 0, 0x2a, 0, 192, 0), 5, 0x24, 0);
}

static void test_dvd(void **state)
{
	struct scsi_lu large = dvd;

	(void)state;
	expect_good(START(&dvd, 100, 0x43, 0, 0, 0, 0, 0, 0, 0, 100, 0), 20);
	assert_int_equal(be(t.data, 2), 18);
	assert_int_equal(t.data[6], 1);
	assert_int_equal(t.data[14], 0xaa);
	assert_int_equal(be(t.data + 16, 4), 1000);
	expect_good(START(&dvd, 100, 0x43, 2, 0, 0, 0, 0, 0xaa, 0, 100, 0), 12);
	assert_int_equal(be(t.data + 8, 4), 15 << 8 | 25); /* frame 1150 */
	expect_good(START(&dvd, 100, 0x43, 0, 1, 0, 0, 0, 0, 0, 100, 0), 12);
	expect_good(START(&dvd, 100, 0x43, 0, 0, 0, 0, 0, 0, 0, 100, 0x40), 12); /* the format's old place */
	expect_sense(START(&dvd, 100, 0x43, 0, 0, 0, 0, 0, 7, 0, 100, 0), 5, 0x24, 0);
	expect_sense(START(&dvd, 100, 0x43, 0, 5, 0, 0, 0, 0, 0, 100, 0), 5, 0x24, 0);
	expect_good(START(&dvd, 255, 0x46, 0, 0, 0, 0, 0, 0, 0, 255, 0), 68);
	assert_int_equal(be(t.data, 4), 64);
	assert_int_equal(be(t.data + 6, 2), 0x10);
	expect_good(START(&dvd, 255, 0x46, 2, 0, 0x10, 0, 0, 0, 0, 255, 0), 20);
	expect_good(START(&dvd, 255, 0x46, 2, 0x77, 0x10, 0, 0, 0, 0, 255, 0), 8);
	expect_sense(START(&dvd, 255, 0x46, 3, 0, 0x10, 0, 0, 0, 0, 255, 0), 5, 0x24, 0);
	expect_good(START(&dvd, 8, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0), 8);
	assert_int_equal(t.data[2], 4);
	assert_int_equal(t.data[5], 2);
	expect_good(START(&dvd, 8, 0x4a, 1, 0, 0, 0x02, 0, 0, 0, 8, 0), 4);
	assert_int_equal(t.data[2], 0x80);
	expect_sense(START(&dvd, 8, 0x4a, 0, 0, 0, 0x10, 0, 0, 0, 8, 0), 5, 0x24, 0);
	expect_good(START(&dvd, 34, 0x51, 0, 0, 0, 0, 0, 0, 0, 34, 0), 34);
	assert_int_equal(t.data[2] & 3, 2);
	expect_good(START(&dvd, 36, 0x52, 1, 0, 0, 0, 1, 0, 0, 36, 0), 36);
	assert_int_equal(be(t.data + 24, 4), 1000);
	expect_good(START(&dvd, 8192, 0xad, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0), 2052);
	expect_sense(START(&dvd, 8192, 0xad, 0, 0, 0, 0, 0, 0, 1, 0x10, 0, 0, 0), 5, 0x24, 0);
	expect_good(START(&dvd, 8, 0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0), 8);
	expect_good(START(&dvd, 0, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0);
	/* Reads in blocks of 2048; nothing that writes. */
	assert_int_equal(START(&dvd, 4096, 0x28, 0, 0, 0, 3, 0xe6, 0, 0, 2, 0), SCSI_READ);
	assert_int_equal(t.c.offset, 998 * 2048);
	assert_int_equal(t.c.length, 4096);
	expect_sense(START(&dvd, 4096, 0x28, 0, 0, 0, 3, 0xe7, 0, 0, 2, 0), 5, 0x21, 0);
	expect_sense(START(&dvd, 2048, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), 5, 0x20, 0);
	expect_sense(START(&dvd, 24, 0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), 5, 0x20, 0);
	expect_sense(START(&dvd, 2048, 0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0), 5, 0x20, 0);
	expect_sense(START(&disk, 100, 0x43, 0, 0, 0, 0, 0, 0, 0, 100, 0), 5, 0x20, 0);
	large.blocks = 1ULL << 33;
	expect_good(START(&large, 100, 0x43, 2, 0, 0, 0, 0, 0, 0, 100, 0), 20);
	assert_int_equal(t.data[17], 99);
	expect_good(START(&large, 100, 0x43, 0, 0, 0, 0, 0, 0, 0, 100, 0), 20);
	assert_int_equal(be(t.data + 16, 4), 0xffffffff);
}

static int end(void **state)
{
	(void)state;
	scsi_end(&t.c);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_inquiry, end),	   cmocka_unit_test_teardown(test_vpd, end),
		cmocka_unit_test_teardown(test_simple, end),	   cmocka_unit_test_teardown(test_report_luns, end),
		cmocka_unit_test_teardown(test_capacity, end),	   cmocka_unit_test_teardown(test_read_write, end),
		cmocka_unit_test_teardown(test_errors, end),	   cmocka_unit_test_teardown(test_readonly, end),
		cmocka_unit_test_teardown(test_flush_verify, end), cmocka_unit_test_teardown(test_unmap, end),
		cmocka_unit_test_teardown(test_write_same, end),   cmocka_unit_test_teardown(test_mode_sense, end),
		cmocka_unit_test_teardown(test_dvd, end),
	};

	return cmocka_run_group_tests_name("scsi", tests, NULL, NULL);
}
