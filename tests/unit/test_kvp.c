/* SPDX-License-Identifier: MIT */
/* Data exchange: what is sent for each order, what becomes of each kind of answer, and of none. UTF-16 as well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/ic_guest.h"

#include "devices/vmbus/ic_kvp.h"
#include "vmm/utf16.h"

enum { GET, SET, DELETE, ENUMERATE };

/* Offsets in a message, as struct hv_kvp_msg has them. */
#define MESSAGE	    2580
#define GET_AT	    4 /* struct hv_kvp_exchg_msg_value of GET and SET */
#define ITEM_AT	    8 /* the same of ENUMERATE */
#define KEY_SIZE    4
#define VALUE_SIZE  8
#define KEY	    12
#define VALUE	    524
#define END_OF_POOL 0x80070103u

static struct config config;
static struct ic *ic;

static int setup(void **state)
{
	(void)state;
	fake_setup();
	memset(&config, 0, sizeof(config));
	fake.vm.config = &config;
	assert_int_equal(ic_kvp_create(&fake.vm), 0);
	ic = ic_find(&fake.vm, "kvp");
	assert_non_null(ic);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_teardown();
	return 0;
}

static uint32_t get32(const uint8_t *at)
{
	uint32_t n;

	memcpy(&n, at, sizeof(n));
	return n;
}

static void put32(uint8_t *at, uint32_t n)
{
	memcpy(at, &n, sizeof(n));
}

/* ASCII as UTF-16. */
static uint32_t put_ascii(uint8_t *to, const char *text)
{
	uint32_t size = 0;

	do {
		to[size] = (uint8_t)*text;
		to[size + 1] = 0;
		size += 2;
	} while (*text++);
	return size;
}

static void expect_ascii(const uint8_t *at, uint32_t size, const char *text)
{
	uint8_t wanted[4096];

	assert_int_equal(size, put_ascii(wanted, text));
	assert_memory_equal(at, wanted, size);
}

/* The last request is this one. */
static const uint8_t *expect(uint8_t operation, uint8_t pool)
{
	const uint8_t *m = guest_body();

	assert_int_equal(guest_header().size, MESSAGE);
	assert_int_equal(guest_header().type, IC_TYPE_KVP);
	assert_int_equal(m[0], operation);
	assert_int_equal(m[1], pool);
	return m;
}

static void expect_set(uint8_t pool, const char *key, const char *value)
{
	const uint8_t *m = expect(SET, pool) + GET_AT;

	assert_int_equal(get32(m), 1);
	expect_ascii(m + KEY, get32(m + KEY_SIZE), key);
	expect_ascii(m + VALUE, get32(m + VALUE_SIZE), value);
}

static void expect_item(uint32_t index)
{
	assert_int_equal(get32(expect(ENUMERATE, KVP_POOL_AUTO) + 4), index);
}

static void answer_value(size_t at, const char *key, const char *value)
{
	uint8_t m[MESSAGE];

	memcpy(m, guest_body(), sizeof(m));
	put32(m + at, 1);
	put32(m + at + KEY_SIZE, put_ascii(m + at + KEY, key));
	put32(m + at + VALUE_SIZE, put_ascii(m + at + VALUE, value));
	guest_answer(ic, 0, m, sizeof(m));
}

/* An answer to ENUMERATE with these raw fields. */
static void answer_raw(uint32_t type, uint32_t key_size, uint32_t value_size, const void *value, size_t size)
{
	uint8_t m[MESSAGE];

	memcpy(m, guest_body(), sizeof(m));
	put32(m + ITEM_AT, type);
	put32(m + ITEM_AT + KEY_SIZE, key_size);
	put32(m + ITEM_AT + VALUE_SIZE, value_size);
	put_ascii(m + ITEM_AT + KEY, "k");
	memcpy(m + ITEM_AT + VALUE, value, size);
	guest_answer(ic, 0, m, sizeof(m));
}

struct list {
	unsigned int calls;
	int error;
	size_t count;
	char first_key[1024], last_key[1024], last_value[4096];
};

static void record_list(void *opaque, int error, const char *text, const struct kvp_item *items, size_t count)
{
	struct list *list = opaque;

	list->calls++;
	list->error = error;
	list->count = count;
	assert_true(!error || (strlen(text) > 5 && !count && !items));
	if (count) {
		snprintf(list->first_key, sizeof(list->first_key), "%s", items[0].key);
		snprintf(list->last_key, sizeof(list->last_key), "%s", items[count - 1].key);
		snprintf(list->last_value, sizeof(list->last_value), "%s", items[count - 1].value);
	}
}

/* ---- Host items ---- */

static void host_items_are_given_each_time(void **state)
{
	(void)state;
	config.kvp[0] = "color=blue";
	config.kvp[1] = "path=a=b";
	config.kvp[2] = "none=";
	config.nr_kvp = 3;
	for (int round = 0; round < 3; round++) {
		guest_up(ic, 4, 0);
		expect_set(KVP_POOL_EXTERNAL, "color", "blue");
		guest_echo(ic, 0);
		expect_set(KVP_POOL_EXTERNAL, "path", "a=b");
		guest_echo(ic, 0);
		expect_set(KVP_POOL_EXTERNAL, "none", "");
		guest_echo(ic, 0);
		assert_false(ic->waiting);
		if (round)
			fake_reset(ic);
		else
			fake_close(ic);
	}
	assert_int_equal(fake.logs, 0);
}

static void a_host_item_that_fails_is_told_and_the_next_is_given(void **state)
{
	(void)state;
	config.kvp[0] = "color=blue";
	config.kvp[1] = "size=1";
	config.nr_kvp = 2;
	guest_up(ic, 5, 0);
	guest_echo(ic, IC_E_FAIL);
	assert_int_equal(fake.logs, 1);
	assert_non_null(strstr(fake.log, "--kvp color: "));
	expect_set(KVP_POOL_EXTERNAL, "size", "1");
	/* One that is interrupted is no news. */
	fake_close(ic);
	assert_int_equal(fake.logs, 1);
}

/* A guest may bring the service up for ever only to refuse what it is given. */
static void failures_of_host_items_are_not_told_for_ever(void **state)
{
	(void)state;
	config.kvp[0] = "color=blue";
	config.nr_kvp = 1;
	for (unsigned int i = 0; i < 200; i++) {
		guest_up(ic, 5, 0);
		guest_echo(ic, IC_E_FAIL);
		if (i % 2)
			fake_reset(ic);
		else
			fake_close(ic);
	}
	assert_int_equal(fake.logs, 64);
	assert_non_null(strstr(fake.log, "no more is said"));
}

/* ---- Orders ---- */

static void set_and_delete(void **state)
{
	struct outcome set = { 0 }, del = { 0 }, gone = { 0 };
	const uint8_t *m;

	(void)state;
	guest_up(ic, 3, 0);
	kvp_set(&fake.vm, KVP_POOL_GUEST, "key", "value", record, &set);
	kvp_delete(&fake.vm, KVP_POOL_EXTERNAL, "key", record, &del);
	kvp_delete(&fake.vm, KVP_POOL_EXTERNAL, "key", record, &gone);
	expect_set(KVP_POOL_GUEST, "key", "value");
	guest_echo(ic, 0);
	check_outcome(&set, 0);
	m = expect(DELETE, KVP_POOL_EXTERNAL);
	expect_ascii(m + 8, get32(m + 4), "key");
	guest_echo(ic, 0);
	check_outcome(&del, 0);
	guest_echo(ic, END_OF_POOL);
	check_outcome(&gone, -ENOENT);
}

static void get_in_one_request(void **state)
{
	struct outcome o = { 0 };
	const uint8_t *m;

	(void)state;
	guest_up(ic, 4, 0);
	kvp_get(&fake.vm, KVP_POOL_GUEST, "key", record, &o);
	m = expect(GET, KVP_POOL_GUEST) + GET_AT;
	expect_ascii(m + KEY, get32(m + KEY_SIZE), "key");
	answer_value(GET_AT, "key", "found");
	check_outcome(&o, 0);
	assert_string_equal(o.text, "found");
}

static void get_from_linux_goes_through_the_pool(void **state)
{
	struct outcome found = { 0 }, missing = { 0 }, empty = { 0 };

	(void)state;
	guest_up(ic, 4, 0);
	kvp_get(&fake.vm, KVP_POOL_AUTO, "OSName", record, &found);
	guest_echo(ic, END_OF_POOL);
	expect_item(0);
	answer_value(ITEM_AT, "FullyQualifiedDomainName", "a.b");
	expect_item(1);
	answer_value(ITEM_AT, "OSName", "Debian");
	check_outcome(&found, 0);
	assert_string_equal(found.text, "Debian");

	kvp_get(&fake.vm, KVP_POOL_AUTO, "OSNam", record, &missing);
	guest_echo(ic, END_OF_POOL);
	answer_value(ITEM_AT, "OSName", "Debian");
	expect_item(1);
	guest_echo(ic, END_OF_POOL);
	check_outcome(&missing, -ENOENT);

	/* The key exists, and its value is the empty string. */
	kvp_get(&fake.vm, KVP_POOL_AUTO, "none", record, &empty);
	answer_value(GET_AT, "none", "");
	expect_item(0);
	guest_echo(ic, END_OF_POOL);
	check_outcome(&empty, 0);
	assert_string_equal(empty.text, "");
}

static void list_a_pool(void **state)
{
	struct list list = { 0 }, failed = { 0 }, none = { 0 };
	char key[16];

	(void)state;
	guest_up(ic, 4, 0);
	kvp_list(&fake.vm, KVP_POOL_AUTO, record_list, &list);
	for (uint32_t i = 0; i < 40; i++) {
		expect_item(i);
		snprintf(key, sizeof(key), "key%u", i);
		answer_value(ITEM_AT, key, "v");
	}
	assert_int_equal(list.calls, 0);
	guest_echo(ic, END_OF_POOL);
	assert_int_equal(list.calls, 1);
	assert_int_equal(list.error, 0);
	assert_int_equal(list.count, 40);
	assert_string_equal(list.first_key, "key0");
	assert_string_equal(list.last_key, "key39");
	assert_string_equal(list.last_value, "v");

	kvp_list(&fake.vm, KVP_POOL_AUTO, record_list, &failed);
	answer_value(ITEM_AT, "a", "b");
	guest_echo(ic, IC_E_FAIL);
	assert_int_equal(failed.calls, 1);
	assert_int_equal(failed.error, -EIO);

	kvp_list(&fake.vm, KVP_POOL_AUTO, record_list, &none);
	guest_echo(ic, END_OF_POOL);
	assert_int_equal(none.calls, 1);
	assert_int_equal(none.error, 0);
	assert_int_equal(none.count, 0);
}

static void a_pool_without_end(void **state)
{
	struct list list = { 0 };
	unsigned int n = 0;

	(void)state;
	guest_up(ic, 4, 0);
	kvp_list(&fake.vm, KVP_POOL_AUTO, record_list, &list);
	while (!list.calls && n++ < 2 * KVP_ITEMS_MAX)
		answer_value(ITEM_AT, "k", "v");
	assert_int_equal(list.error, -E2BIG);
	assert_int_equal(n, KVP_ITEMS_MAX + 1);
	assert_false(ic->waiting);
}

static void numbers_become_text(void **state)
{
	static const uint8_t bytes[8] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	static const struct {
		uint32_t type, size;
		const char *text; /* NULL: refused */
	} cases[] = {
		{ 4, 4, "4294967295" },
		{ 8, 8, "18446744073709551615" },
		{ 11, 8, "18446744073709551615" },
		{ 4, 3, NULL },
		{ 8, 7, NULL },
		{ 11, 0, NULL },
		{ 3, 8, NULL },
		{ 0, 0, NULL },
	};

	(void)state;
	guest_up(ic, 5, 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct list list = { 0 };

		kvp_list(&fake.vm, KVP_POOL_AUTO, record_list, &list);
		answer_raw(cases[i].type, 4, cases[i].size, bytes, sizeof(bytes));
		if (cases[i].text)
			guest_echo(ic, END_OF_POOL);
		assert_int_equal(list.calls, 1);
		assert_int_equal(list.error, cases[i].text ? 0 : -EIO);
		if (cases[i].text)
			assert_string_equal(list.last_value, cases[i].text);
	}
}

/* ---- A hostile guest ---- */

static void wrong_sizes(void **state)
{
	static const uint32_t sizes[][2] = {
		{ 513, 2 }, { 4, 2049 }, { 0xffffffff, 2 }, { 4, 0xffffffff }, { 0x80000000, 0x80000000 },
	};
	static uint8_t big[IC_BODY_MAX];
	struct list list = { 0 };
	struct outcome o = { 0 };

	(void)state;
	guest_up(ic, 4, 0);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		memset(&list, 0, sizeof(list));
		kvp_list(&fake.vm, KVP_POOL_AUTO, record_list, &list);
		answer_raw(1, sizes[i][0], sizes[i][1], "", 1);
		assert_int_equal(list.calls, 1);
		assert_int_equal(list.error, -EIO);
	}
	for (size_t size = 0; size < MESSAGE; size += 43) {
		memset(&list, 0, sizeof(list));
		kvp_list(&fake.vm, KVP_POOL_AUTO, record_list, &list);
		guest_answer(ic, 0, big, size);
		assert_int_equal(list.calls, 1);
		assert_int_equal(list.error, -EIO);
	}
	kvp_get(&fake.vm, KVP_POOL_AUTO, "k", record, &o);
	guest_answer(ic, 0, big, MESSAGE - 5);
	check_outcome(&o, -EIO);
	/* Longer than asked for does no harm, and failure needs no body. */
	memset(&list, 0, sizeof(list));
	big[ITEM_AT] = 1;
	kvp_list(&fake.vm, KVP_POOL_AUTO, record_list, &list);
	guest_answer(ic, 0, big, sizeof(big));
	guest_answer(ic, END_OF_POOL, NULL, 0);
	assert_int_equal(list.error, 0);
	assert_int_equal(list.count, 1);
	assert_string_equal(list.last_key, "");
}

static void strings_without_end(void **state)
{
	struct list list = { 0 };
	uint8_t m[MESSAGE];

	(void)state;
	guest_up(ic, 4, 0);
	kvp_list(&fake.vm, KVP_POOL_AUTO, record_list, &list);
	/* U+20AC throughout: three bytes of UTF-8 each. */
	for (size_t i = 0; i + 1 < sizeof(m); i += 2) {
		m[i] = 0xac;
		m[i + 1] = 0x20;
	}
	put32(m + ITEM_AT, 1);
	put32(m + ITEM_AT + KEY_SIZE, 512);
	put32(m + ITEM_AT + VALUE_SIZE, 2048);
	guest_answer(ic, 0, m, sizeof(m));
	guest_echo(ic, END_OF_POOL);
	assert_int_equal(list.error, 0);
	assert_int_equal(strlen(list.last_key), 256 * 3);
	assert_int_equal(strlen(list.last_value), 1024 * 3);
}

static void answers_twice_and_unasked(void **state)
{
	struct outcome o = { 0 };
	struct ic_header header;
	uint8_t body[MESSAGE] = { 0 };

	(void)state;
	guest_up(ic, 4, 0);
	kvp_set(&fake.vm, KVP_POOL_EXTERNAL, "a", "b", record, &o);
	guest_echo(ic, 0);
	guest_echo(ic, 0);
	guest_echo(ic, IC_E_FAIL);
	header = guest_header();
	header.transaction += 7;
	header.flags = IC_FLAG_RESPONSE;
	assert_int_equal(guest_send(ic, &header, body), 0);
	check_outcome(&o, 0);
	assert_int_equal(ic->state, IC_UP);
}

/* ---- Time ---- */

static void no_answer(void **state)
{
	struct outcome first = { 0 }, second = { 0 };
	unsigned int sent;

	(void)state;
	guest_up(ic, 4, 0);
	kvp_set(&fake.vm, KVP_POOL_EXTERNAL, "first", "1", record, &first);
	kvp_set(&fake.vm, KVP_POOL_EXTERNAL, "second", "2", record, &second);
	sent = fake.sent;
	fake_run(40 * SECOND);
	check_outcome(&first, -ETIMEDOUT);
	assert_int_equal(second.calls, 0);
	assert_int_equal(fake.sent, sent);
	/* The late answer lets the second go; it is not taken for the second's. */
	guest_echo(ic, 0);
	assert_int_equal(fake.sent, sent + 1);
	expect_set(KVP_POOL_EXTERNAL, "second", "2");
	assert_int_equal(second.calls, 0);
	guest_echo(ic, 0);
	check_outcome(&second, 0);
	check_outcome(&first, -ETIMEDOUT);
}

static void never_an_answer(void **state)
{
	struct outcome o[3] = { 0 };

	(void)state;
	guest_up(ic, 4, 0);
	for (int i = 0; i < 3; i++)
		kvp_get(&fake.vm, KVP_POOL_GUEST, "k", record, &o[i]);
	fake_run(300 * SECOND);
	for (int i = 0; i < 3; i++)
		check_outcome(&o[i], -ETIMEDOUT);
	assert_int_equal(fake_timers(), 0);
}

static void a_full_ring_waits(void **state)
{
	struct outcome o = { 0 };

	(void)state;
	guest_up(ic, 4, 0);
	fake.full = true;
	kvp_set(&fake.vm, KVP_POOL_EXTERNAL, "a", "b", record, &o);
	fake_room(ic);
	expect_set(KVP_POOL_EXTERNAL, "a", "b");
	guest_echo(ic, 0);
	check_outcome(&o, 0);
}

/* ---- Ends ---- */

static void closed_and_reset_meanwhile(void **state)
{
	struct outcome o[4] = { 0 };
	struct list list = { 0 };

	(void)state;
	guest_up(ic, 4, 0);
	kvp_list(&fake.vm, KVP_POOL_AUTO, record_list, &list);
	answer_value(ITEM_AT, "a", "b");
	kvp_get(&fake.vm, KVP_POOL_GUEST, "k", record, &o[0]);
	kvp_set(&fake.vm, KVP_POOL_GUEST, "k", "v", record, &o[1]);
	fake_close(ic);
	assert_int_equal(list.calls, 1);
	assert_int_equal(list.error, -ECONNRESET);
	check_outcome(&o[0], -ECONNRESET);
	check_outcome(&o[1], -ECONNRESET);
	kvp_get(&fake.vm, KVP_POOL_GUEST, "k", record, &o[2]);
	check_outcome(&o[2], -ENOTCONN);
	guest_up(ic, 4, 0);
	kvp_get(&fake.vm, KVP_POOL_GUEST, "k", record, &o[3]);
	fake_reset(ic);
	check_outcome(&o[3], -ECONNRESET);
	assert_int_equal(fake_timers(), 0);
}

static void closed_while_an_order_waits_for_a_late_answer(void **state)
{
	struct outcome first = { 0 }, second = { 0 };

	(void)state;
	guest_up(ic, 4, 0);
	kvp_get(&fake.vm, KVP_POOL_GUEST, "k", record, &first);
	kvp_get(&fake.vm, KVP_POOL_GUEST, "k", record, &second);
	fake_run(36 * SECOND);
	check_outcome(&first, -ETIMEDOUT);
	fake_close(ic);
	check_outcome(&second, -ECONNRESET);
	fake_run(5 * SECOND);
	check_outcome(&second, -ECONNRESET);
}

static void a_broken_protocol_ends_orders(void **state)
{
	struct outcome o = { 0 };

	(void)state;
	guest_up(ic, 4, 0);
	kvp_get(&fake.vm, KVP_POOL_GUEST, "k", record, &o);
	assert_true(fake_packet(ic, VMBUS_PACKET_INBAND, "junk", 4) < 0);
	check_outcome(&o, -ECONNRESET);
}

static void destroyed_with_orders(void **state)
{
	struct outcome o[3] = { 0 };

	(void)state;
	guest_up(ic, 4, 0);
	for (int i = 0; i < 3; i++)
		kvp_get(&fake.vm, KVP_POOL_GUEST, "k", record, &o[i]);
	fake_teardown();
	for (int i = 0; i < 3; i++)
		check_outcome(&o[i], -ECONNRESET);
	/* Now there is no such device. */
	memset(o, 0, sizeof(o));
	kvp_get(&fake.vm, KVP_POOL_GUEST, "k", record, &o[0]);
	check_outcome(&o[0], -ENODEV);
}

/* ---- Bad orders ---- */

static void bad_orders(void **state)
{
	static char long_key[KVP_KEY_MAX + 1], long_value[KVP_VALUE_MAX + 1], wide[3 * 200 + 1];
	struct {
		unsigned int pool;
		const char *key, *value;
		int error;
	} cases[] = {
		{ 4, "k", "v", -EINVAL },
		{ 0xffffffff, "k", "v", -EINVAL },
		{ 0, "", "v", -EINVAL },
		{ 0, long_key, "v", -ENAMETOOLONG },
		{ 0, long_key + KVP_KEY_MAX - 256, "v", -ENAMETOOLONG },
		{ 0, "k", long_value, -ENAMETOOLONG },
		{ 0, "k", long_value + KVP_VALUE_MAX - 1024, -ENAMETOOLONG },
		{ 0, wide, "v", -ENAMETOOLONG },
		{ 0, "\xff", "v", -EILSEQ },
		{ 0, "k", "\xc0\x80", -EILSEQ },
	};
	struct outcome o = { 0 };
	unsigned int sent;

	(void)state;
	memset(long_key, 'k', KVP_KEY_MAX);
	memset(long_value, 'v', KVP_VALUE_MAX);
	for (int i = 0; i < 200; i++)
		memcpy(wide + 3 * (size_t)i, "\xe2\x82\xac", 3);
	guest_up(ic, 4, 0);
	sent = fake.sent;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		memset(&o, 0, sizeof(o));
		kvp_set(&fake.vm, cases[i].pool, cases[i].key, cases[i].value, record, &o);
		check_outcome(&o, cases[i].error);
	}
	assert_int_equal(fake.sent, sent);
	/* The longest that fit. */
	memset(&o, 0, sizeof(o));
	kvp_set(&fake.vm, 0, long_key + KVP_KEY_MAX - 255, long_value + KVP_VALUE_MAX - 1023, record, &o);
	guest_echo(ic, 0);
	check_outcome(&o, 0);
}

static void the_queue_is_bounded_and_in_order(void **state)
{
	static struct outcome o[KVP_QUEUE_MAX + 2];
	struct list list = { 0 };
	char key[16];

	(void)state;
	memset(o, 0, sizeof(o));
	guest_up(ic, 4, 0);
	for (unsigned int i = 0; i < KVP_QUEUE_MAX + 2; i++) {
		snprintf(key, sizeof(key), "%u", i);
		kvp_set(&fake.vm, 0, key, "v", record, &o[i]);
	}
	kvp_list(&fake.vm, 0, record_list, &list);
	check_outcome(&o[KVP_QUEUE_MAX + 1], -EBUSY);
	assert_int_equal(list.error, -EBUSY);
	for (unsigned int i = 0; i <= KVP_QUEUE_MAX; i++) {
		snprintf(key, sizeof(key), "%u", i);
		assert_int_equal(o[i].calls, 0);
		expect_set(0, key, "v");
		guest_echo(ic, 0);
		check_outcome(&o[i], 0);
	}
}

static void order_again(void *opaque, int error, const char *text)
{
	record(opaque, error, text);
	if (((struct outcome *)opaque)->calls < 5)
		kvp_set(&fake.vm, 0, "again", "1", order_again, opaque);
}

static void a_callback_may_give_orders(void **state)
{
	struct outcome o = { 0 }, down = { 0 };

	(void)state;
	guest_up(ic, 4, 0);
	kvp_set(&fake.vm, 0, "again", "1", order_again, &o);
	for (unsigned int i = 1; i <= 5; i++) {
		guest_echo(ic, 0);
		assert_int_equal(o.calls, i);
	}
	assert_false(ic->waiting);
	kvp_set(&fake.vm, 0, "again", "1", order_again, &down);
	fake_close(ic);
	assert_int_equal(down.calls, 5);
	assert_int_equal(down.error, -ENOTCONN);
}

/* ---- UTF-16 ---- */

static void utf16(void **state)
{
	static const struct {
		const char *utf8;
		uint16_t utf16[8];
	} same[] = {
		{ "", { 0 } },
		{ "a\x7f", { 'a', 0x7f, 0 } },
		{ "\xc2\x80\xdf\xbf", { 0x80, 0x7ff, 0 } },
		{ "\xe0\xa0\x80\xef\xbf\xbf", { 0x800, 0xffff, 0 } },
		{ "\xed\x9f\xbf\xee\x80\x80", { 0xd7ff, 0xe000, 0 } },
		{ "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", { 0xd800, 0xdc00, 0xdbff, 0xdfff, 0 } },
	};
	static const char *const bad[] = {
		"\x80",
		"\xbf",
		"\xc1\xbf",
		"\xc2",
		"\xc2z",
		"\xe0\x9f\xbf",
		"\xe2\x82",
		"\xed\xa0\x80",
		"\xed\xbf\xbf",
		"\xf0\x8f\xbf\xbf",
		"\xf0\x90\x80",
		"\xf4\x90\x80\x80",
		"\xf5\x80\x80\x80",
		"\xf8\x88\x80\x80\x80",
		"\xff",
	};
	uint16_t out[8];
	char text[64];

	(void)state;
	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
		int size = utf16_from_utf8(same[i].utf8, out, sizeof(out));

		assert_true(size > 0);
		assert_memory_equal(out, same[i].utf16, (size_t)size);
		assert_int_equal(out[size / 2 - 1], 0);
		assert_int_equal(utf16_to_utf8(out, (size_t)size, text, UTF16_TO_UTF8_ROOM(size)),
				 strlen(same[i].utf8));
		assert_string_equal(text, same[i].utf8);
		/* One byte less than needed. */
		assert_int_equal(utf16_from_utf8(same[i].utf8, out, (size_t)size - 1), -ENAMETOOLONG);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(utf16_from_utf8(bad[i], out, sizeof(out)), -EILSEQ);
}

static void utf16_from_a_guest(void **state)
{
	static const struct {
		uint16_t units[4];
		size_t size; /* bytes */
		const char *utf8;
	} cases[] = {
		{ { 0xd800 }, 2, "\xef\xbf\xbd" },
		{ { 0xdc00, 'a' },
		  4,
		  "\xef\xbf\xbd"
		  "a" },
		{ { 0xd800, 'a' },
		  4,
		  "\xef\xbf\xbd"
		  "a" },
		{ { 0xd800, 0xd800, 0xdc00 }, 6, "\xef\xbf\xbd\xf0\x90\x80\x80" },
		{ { 0xd800, 0 }, 4, "\xef\xbf\xbd" },
		{ { 'a', 0, 'b' }, 6, "a" },
		{ { 'a', 'b', 'c' }, 5, "ab" },
		{ { 'a' }, 1, "" },
		{ { 'a' }, 0, "" },
		{ { 0xffff, 0xffff, 0xffff, 0xffff }, 8, "\xef\xbf\xbf\xef\xbf\xbf\xef\xbf\xbf\xef\xbf\xbf" },
	};
	char text[16];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t room = UTF16_TO_UTF8_ROOM(cases[i].size);
		char *exact = malloc(room); /* ASan sees a byte too many */

		assert_int_equal(utf16_to_utf8(cases[i].units, cases[i].size, exact, room), strlen(cases[i].utf8));
		assert_string_equal(exact, cases[i].utf8);
		free(exact);
	}
	/* What does not fit is left out, whole characters of it. */
	assert_int_equal(utf16_to_utf8(cases[9].units, 8, text, 9), 6);
	assert_int_equal(utf16_to_utf8(cases[9].units, 8, text, 1), 0);
	assert_string_equal(text, "");
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(host_items_are_given_each_time),
		CASE(a_host_item_that_fails_is_told_and_the_next_is_given),
		CASE(failures_of_host_items_are_not_told_for_ever),
		CASE(set_and_delete),
		CASE(get_in_one_request),
		CASE(get_from_linux_goes_through_the_pool),
		CASE(list_a_pool),
		CASE(a_pool_without_end),
		CASE(numbers_become_text),
		CASE(wrong_sizes),
		CASE(strings_without_end),
		CASE(answers_twice_and_unasked),
		CASE(no_answer),
		CASE(never_an_answer),
		CASE(a_full_ring_waits),
		CASE(closed_and_reset_meanwhile),
		CASE(closed_while_an_order_waits_for_a_late_answer),
		CASE(a_broken_protocol_ends_orders),
		CASE(destroyed_with_orders),
		CASE(bad_orders),
		CASE(the_queue_is_bounded_and_in_order),
		CASE(a_callback_may_give_orders),
		cmocka_unit_test(utf16),
		cmocka_unit_test(utf16_from_a_guest),
	};

	return cmocka_run_group_tests_name("kvp", tests, NULL, NULL);
}
