/* SPDX-License-Identifier: MIT */
/* The bus against a fake carrier: GPADLs, whole, in parts, impossible and too many. */
#include "vmbus_bus.h"

static void gpadls_of_many_sizes(void **state)
{
	static const unsigned int sizes[] = { 1, 2, 25, 26, 27, 54, 55, 4095, 4096, 4097, 8190 };

	(void)state;
	add(1);
	connect_version(VMBUS_V5_3);
	take_offers();
	for (uint32_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		assert_int_equal(create_gpadl(1, i, 10, sizes[i]), 0);
		assert_int_not_equal(create_gpadl(1, i, 10, 1), 0); /* the number is taken */
		post_words(VMBUS_GPADL_TEARDOWN, 1, i, 16);
		assert_int_equal(((const struct vmbus_gpadl_torndown *)take(VMBUS_GPADL_TORNDOWN, 12))->gpadl, i);
		post_words(VMBUS_GPADL_TEARDOWN, 1, i, 16);
		take_nothing();
		assert_int_equal(create_gpadl(1, i, 10, 1), 0);
	}
}

static void bodies_in_any_order(void **state)
{
	uint64_t data[2][60];
	const struct vmbus_gpadl_created *r;

	(void)state;
	add(1);
	add(2);
	connect_version(VMBUS_V5_3);
	take_offers();
	for (int g = 0; g < 2; g++) {
		data[g][0] = 54 * VMBUS_PAGE;
		for (unsigned int i = 1; i < 60; i++)
			data[g][i] = i;
	}
	send_body(1, data[0] + 27, 28); /* before its header */
	take_nothing();
	/* Two at once; one number may be built only once at a time, for whatever channel. */
	send_header(1, 1, 1, 55, data[0], 27);
	send_header(1, 2, 1, 55, data[1], 27);
	take_nothing();
	for (uint32_t relid = 1; relid <= 2; relid++) {
		send_header(relid, 1, 1, 55, data[0], 27);
		r = take(VMBUS_GPADL_CREATED, 20);
		assert_int_equal(r->relid, relid);
		assert_int_not_equal(r->status, 0);
	}
	send_body(2, data[1] + 27, 10);
	send_body(1, data[0] + 27, 28);
	r = take(VMBUS_GPADL_CREATED, 20);
	assert_int_equal(r->gpadl, 1);
	assert_int_equal(r->status, 0);
	send_body(1, data[0] + 27, 28); /* one too many */
	take_nothing();
	send_body(2, data[1] + 37, 0);	/* empty */
	send_body(2, data[1] + 37, 23); /* more than is missing */
	r = take(VMBUS_GPADL_CREATED, 20);
	assert_int_equal(r->gpadl, 2);
	assert_int_equal(r->status, 0);
	/* Missing bodies: no answer, but it can be torn down. */
	send_header(1, 3, 1, 55, data[0], 27);
	send_body(3, data[0] + 27, 27);
	take_nothing();
	post_words(VMBUS_GPADL_TEARDOWN, 1, 3, 16);
	take(VMBUS_GPADL_TORNDOWN, 12);
	/* Two torn down while there is no room, one of them just before the end of the connection. */
	fake.room = 0;
	post_words(VMBUS_GPADL_TEARDOWN, 1, 2, 16);
	post_words(VMBUS_GPADL_TEARDOWN, 1, 1, 16);
	fake.room = 1;
	vmbus_room(fake.bus);
	assert_int_equal(((const struct vmbus_gpadl_torndown *)take(VMBUS_GPADL_TORNDOWN, 12))->gpadl, 2);
	fake.room = -1;
	connect_version(VMBUS_V5_3);
	take_offers();
	/* Left unfinished for the end of the test. */
	send_header(1, 4, 1, 55, data[0], 27);
	take_nothing();
}

static void gpadl_refused(unsigned int ranges, unsigned int words, uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t data[3] = { a, b, c };
	const struct vmbus_gpadl_created *r;

	send_header(1, 9, ranges, words, data, 3);
	r = take(VMBUS_GPADL_CREATED, 20);
	assert_int_not_equal(r->status, 0);
	assert_int_equal(r->relid, 1);
	assert_int_equal(r->gpadl, 9);
}

static void impossible_gpadls_are_refused(void **state)
{
	(void)state;
	add(1);
	connect_version(VMBUS_V5_3);
	take_offers();
	gpadl_refused(0, 2, VMBUS_PAGE, 1, 0);
	gpadl_refused(1, 1, VMBUS_PAGE, 1, 0);
	gpadl_refused(1, 0, VMBUS_PAGE, 1, 0);
	gpadl_refused(2, 3, VMBUS_PAGE, 1, VMBUS_PAGE);
	gpadl_refused(0xffff, 3, VMBUS_PAGE, 1, 1);
	gpadl_refused(1, 2, 0, 1, 0);
	gpadl_refused(1, 2, VMBUS_PAGE + 1, 1, 0);
	gpadl_refused(1, 3, 2 * VMBUS_PAGE | 1ull << 32, 1, 2);
	gpadl_refused(1, 3, 0xffffffff, 1, 2);
	gpadl_refused(1, 3, VMBUS_PAGE | 0x1000ull << 32, 1, 2);
	gpadl_refused(1, 3, VMBUS_PAGE | 0xffffffffull << 32, 1, 2);
	gpadl_refused(1, 2, VMBUS_PAGE, FAKE_PAGES, 0);
	gpadl_refused(1, 2, VMBUS_PAGE, 1ull << 52, 0);
	gpadl_refused(1, 2, VMBUS_PAGE, UINT64_MAX, 0);
	assert_int_not_equal(create_gpadl(2, 9, 1, 1), 0);
	assert_int_not_equal(create_gpadl(0, 9, 1, 1), 0);
	assert_int_not_equal(create_gpadl(0xffffffff, 9, 1, 1), 0);
	assert_int_equal(create_gpadl(1, 9, 1, 1), 0);
}

static void gpadls_are_limited_in_number_and_pages(void **state)
{
	uint32_t handle = 0, few;

	(void)state;
	add(1);
	connect_version(VMBUS_V5_3);
	take_offers();
	while (!create_gpadl(1, handle, 1, 8190))
		handle++;
	assert_int_equal(handle, (1280 << 20) / VMBUS_PAGE / 8191);
	post_words(VMBUS_GPADL_TEARDOWN, 1, 0, 16);
	take(VMBUS_GPADL_TORNDOWN, 12);
	assert_int_equal(create_gpadl(1, 0, 1, 8190), 0);
	connect_version(VMBUS_V5_3);
	take_offers();
	for (few = 0; !create_gpadl(1, few, 1, 1);)
		few++;
	assert_int_equal(few, 8192);
}

static void gpadl_contents(void **state)
{
	/* 0x20 bytes from 0xff0 of page 5 on, over to page 9; then one page. */
	uint64_t data[] = { 0x20 | 0xff0ull << 32, 5, 9, VMBUS_PAGE, 7 };
	struct fake_rings rings;
	struct test_device *d = open_one(VMBUS_V5_3, &rings);
	struct vmbus_gpadl *g;
	uint8_t bytes[64];

	(void)state;
	send_header(1, 30, 2, 5, data, 5);
	assert_int_equal(((const struct vmbus_gpadl_created *)take(VMBUS_GPADL_CREATED, 20))->status, 0);
	assert_null(vmbus_gpadl_get(d->dev.channel, 31));
	g = vmbus_gpadl_get(d->dev.channel, 30);
	assert_non_null(g);
	assert_int_equal(vmbus_gpadl_size(g), 0x1020);
	memset(fake.ram + 0x5ff0, 'a', 16);
	memset(fake.ram + 0x9000, 'b', 16);
	memset(fake.ram + 0x7000, 'c', 4096);
	assert_int_equal(vmbus_gpadl_read(g, 8, bytes, 40), 0);
	assert_memory_equal(bytes, "aaaaaaaabbbbbbbbbbbbbbbbcccccccccccccccc", 40);
	assert_int_equal(vmbus_gpadl_write(g, 14, "0123456789abcdefghijkl", 22), 0);
	assert_memory_equal(fake.ram + 0x5ffe, "01", 2);
	assert_memory_equal(fake.ram + 0x9000, "23456789abcdefgh", 16);
	assert_memory_equal(fake.ram + 0x7000, "ijklc", 5);
	assert_int_equal(vmbus_gpadl_read(g, 0x21, bytes, 8), 0);
	assert_memory_equal(bytes, "jklccccc", 8);
	assert_int_equal(vmbus_gpadl_read(g, 0x1020, bytes, 0), 0);
	assert_int_equal(vmbus_gpadl_read(g, 0x1020, bytes, 1), -EINVAL);
	assert_int_equal(vmbus_gpadl_read(g, 0x1000, bytes, 0x21), -EINVAL);
	assert_int_equal(vmbus_gpadl_read(g, SIZE_MAX, bytes, 2), -EINVAL);
	/* While it is held, a teardown waits, and nobody else gets it. */
	post_words(VMBUS_GPADL_TEARDOWN, 1, 30, 16);
	post_words(VMBUS_GPADL_TEARDOWN, 1, 30, 16);
	take_nothing();
	assert_null(vmbus_gpadl_get(d->dev.channel, 30));
	vmbus_gpadl_put(g);
	take(VMBUS_GPADL_TORNDOWN, 12);
	take_nothing();
	/* Held beyond the connection's end. */
	assert_int_equal(create_gpadl(1, 31, 1, 1), 0);
	g = vmbus_gpadl_get(d->dev.channel, 31);
	connect_version(VMBUS_V5_3);
	assert_int_equal(vmbus_gpadl_read(g, 0, bytes, 1), 0);
	vmbus_gpadl_put(g);
	take_nothing();
}

static void teardown_of_open_rings_waits_for_close(void **state)
{
	struct fake_rings rings;

	(void)state;
	open_one(VMBUS_V5_3, &rings);
	post_words(VMBUS_GPADL_TEARDOWN, 1, 7, 16);
	take_nothing();
	post_words(VMBUS_CLOSE, 1, 0, 12);
	take(VMBUS_GPADL_TORNDOWN, 12);
	take_nothing();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(gpadls_of_many_sizes),
		T(bodies_in_any_order),
		T(impossible_gpadls_are_refused),
		T(gpadls_are_limited_in_number_and_pages),
		T(gpadl_contents),
		T(teardown_of_open_rings_waits_for_close),
	};

	return cmocka_run_group_tests(tests, NULL, group_teardown);
}
