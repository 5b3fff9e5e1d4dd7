/* SPDX-License-Identifier: MIT */
/*
 * The integration services' guest side. Formats: Linux include/linux/hyperv.h (struct icmsg_hdr and so on) and
 * include/uapi/linux/hyperv.h. Arguments: test=NAME; now=SECONDS for test=timesync. Wants --vmbus.
 *
 * test=serve answers all services as hv_utils and its daemons would, prints what it is told, and ends by S5 when it is
 * asked to shut down.
 */
#include "rt/io.h"
#include "rt/rt.h"
#include "rt/vmbus.h"

#define RING	    4	  /* pages of data, as hv_utils has them */
#define QUIET	    20000 /* microseconds */
#define E_FAIL	    0x80004005u
#define S_CONT	    0x80070103u
#define NOT_FOUND   0x80041002u
#define UNIX_EPOCH  11644473600ULL /* seconds after 1601 */
#define NR_SERVICES 6

enum { HEARTBEAT, SHUTDOWN, TIMESYNC, KVP, VSS, FCOPY };

/* Pipe header and icmsg_hdr. */
struct message {
	uint32_t pipe, pipe_size;
	uint16_t framework[2], type, version[2], size;
	uint32_t status;
	uint8_t transaction, flags, reserved[2];
	uint8_t body[13300];
} __attribute__((packed, aligned(8)));
#define HEADERS	 28
#define REQUEST	 3 /* transaction, request */
#define RESPONSE 5 /* transaction, response */

static const struct {
	const char *name;
	uint8_t guid[16];
	uint16_t type;
	uint16_t major, minor; /* the highest version */
} services[NR_SERVICES] = {
	[HEARTBEAT] = { "heartbeat",
			VB_GUID(0x57164f39, 0x9115, 0x4e78, 0xab, 0x55, 0x38, 0x2f, 0x3b, 0xd5, 0x42, 0x2d), 1, 3, 0 },
	[SHUTDOWN] = { "shutdown", VB_GUID(0x0e0b6031, 0x5213, 0x4934, 0x81, 0x8b, 0x38, 0xd9, 0x0c, 0xed, 0x39, 0xdb),
		       3, 3, 2 },
	[TIMESYNC] = { "timesync", VB_GUID(0x9527e630, 0xd0ae, 0x497b, 0xad, 0xce, 0xe8, 0x0a, 0xb0, 0x17, 0x5c, 0xaf),
		       4, 4, 0 },
	[KVP] = { "kvp", VB_GUID(0xa9a0f4e7, 0x5a45, 0x4d96, 0xb8, 0x27, 0x8a, 0x84, 0x1e, 0x8c, 0x03, 0xe6), 2, 5, 0 },
	[VSS] = { "vss", VB_GUID(0x35fa2e29, 0xea23, 0x4236, 0x96, 0xae, 0x3a, 0x6e, 0xba, 0xcb, 0xa4, 0x40), 5, 5, 0 },
	[FCOPY] = { "fcopy", VB_GUID(0x34d14be3, 0xdee4, 0x41c8, 0x9a, 0xe7, 0x6b, 0x17, 0x49, 0x77, 0xc1, 0x92), 7, 1,
		    1 },
};

static struct vb_channel channels[NR_SERVICES];
static struct message m;

static void open(unsigned int s)
{
	const struct vb_offer *offer = vb_find(services[s].guid, NULL, 0);

	CHECK(offer);
	CHECK_EQ(offer->flags & 0x2010, 0x10); /* a pipe, of no socket */
	CHECK_EQ(offer->user[0], 4);	       /* of messages */
	CHECK_EQ(vb_open(&channels[s], offer, RING, RING, 0), 0);
}

/* A message that is there; everything of its headers is checked. */
static bool take(unsigned int s, uint32_t us)
{
	uint64_t end = rt_ticks() + (uint64_t)us * RT_TICKS_PER_MS / 1000;
	struct vb_packet packet;
	int size;

	while ((size = vb_recv(&channels[s], &packet, &m, sizeof(m))) < 0) {
		vb_poll();
		if (rt_ticks() >= end)
			return false;
	}
	CHECK_EQ(packet.type, VB_INBAND);
	CHECK_EQ(m.pipe, 1);
	CHECK(m.pipe_size >= 20 && m.pipe_size + 8 <= (uint32_t)size && (uint32_t)size - m.pipe_size - 8 < 8);
	CHECK_EQ(m.size, m.pipe_size - 20);
	CHECK_EQ(m.flags, REQUEST);
	CHECK_EQ(m.status, 0);
	return true;
}

static void expect(unsigned int s)
{
	CHECK(take(s, VB_WAIT));
}

/* Answers with the message as it is now. */
static void answer(unsigned int s)
{
	m.flags = RESPONSE;
	CHECK(vb_send(&channels[s], VB_INBAND, 0, 0, &m, m.pipe_size + 8));
}

static uint16_t word(unsigned int i)
{
	return (uint16_t)(m.body[2 * i] | m.body[2 * i + 1] << 8);
}

static void set_word(unsigned int i, uint16_t value)
{
	m.body[2 * i] = (uint8_t)value;
	m.body[2 * i + 1] = (uint8_t)(value >> 8);
}

/* What the host offers must contain these; they are chosen. */
static bool choose(const uint16_t *framework, const uint16_t *version)
{
	unsigned int frameworks = word(0), versions = word(1);
	bool has_framework = false, has_version = false;

	CHECK_EQ(m.type, 0);
	CHECK(frameworks >= 1 && versions >= 1 && m.size == 8 + 4 * (frameworks + versions));
	for (unsigned int i = 0; i < frameworks; i++)
		has_framework |= word(4 + 2 * i) == framework[0] && word(5 + 2 * i) == framework[1];
	for (unsigned int i = frameworks; i < frameworks + versions; i++)
		has_version |= word(4 + 2 * i) == version[0] && word(5 + 2 * i) == version[1];
	if (!has_framework || !has_version) {
		set_word(0, 0);
		set_word(1, 0);
		return false;
	}
	set_word(0, 1);
	set_word(1, 1);
	for (unsigned int i = 0; i < 2; i++) {
		set_word(4 + i, framework[i]);
		set_word(6 + i, version[i]);
	}
	return true;
}

static void negotiate(unsigned int s)
{
	const uint16_t framework[] = { 3, 0 }, version[] = { services[s].major, services[s].minor };

	expect(s);
	CHECK(choose(framework, version));
	answer(s);
}

/* The last request has the versions that were agreed, and is of this type. */
static void check_request(unsigned int s)
{
	CHECK_EQ(m.type, services[s].type);
	CHECK_EQ(m.framework[0], 3);
	CHECK_EQ(m.version[0], services[s].major);
	CHECK_EQ(m.version[1], services[s].minor);
}

/* Every service, as often as it is opened, whatever version is chosen, and if none is. */
static void test_negotiate(void)
{
	static const uint16_t one[] = { 1, 0 }, three[] = { 3, 0 }, none[] = { 77, 0 };

	for (unsigned int round = 0; round < 3; round++) {
		for (unsigned int s = 0; s < NR_SERVICES; s++) {
			uint16_t version[] = { services[s].major, services[s].minor };
			uint8_t *mark = vb_mark();

			open(s);
			negotiate(s);
			vb_close(&channels[s]);
			CHECK_EQ(vb_reopen(&channels[s], 0), 0);
			expect(s);
			CHECK(choose(one, version));
			answer(s);
			vb_close(&channels[s]);
			CHECK_EQ(vb_reopen(&channels[s], 0), 0);
			expect(s);
			CHECK(!choose(three, none));
			answer(s);
			CHECK(!take(s, QUIET)); /* it lets us alone */
			vb_close(&channels[s]);
			vb_release(mark);
		}
	}
}

static void test_heartbeat(void)
{
	uint64_t last = 0, at[3];

	open(HEARTBEAT);
	negotiate(HEARTBEAT);
	for (unsigned int i = 0; i < 2; i++) {
		uint64_t number;

		expect(HEARTBEAT);
		check_request(HEARTBEAT);
		CHECK(m.size >= 8);
		memcpy(&number, m.body, 8);
		CHECK(number > last);
		last = number++;
		at[i] = rt_ticks();
		memcpy(m.body, &number, 8);
		answer(HEARTBEAT);
	}
	CHECK(at[1] - at[0] > 1500 * RT_TICKS_PER_MS);
}

static void test_timesync(void)
{
	uint64_t now = rt_arg_number("now", 0) + UNIX_EPOCH, host, reference;

	open(TIMESYNC);
	negotiate(TIMESYNC);
	expect(TIMESYNC);
	check_request(TIMESYNC);
	memcpy(&host, m.body, 8);
	memcpy(&reference, m.body + 8, 8);
	CHECK(host / 10000000 >= now && host / 10000000 < now + 60);
	CHECK(reference <= rdmsr(0x40000020));
	CHECK(rdmsr(0x40000020) - reference < 5 * 10000000ULL);
	CHECK_EQ(m.body[16] & 3, 1); /* sync */
	answer(TIMESYNC);
	vb_close(&channels[TIMESYNC]);
	/* Version 3 has other fields, and the flags after them. */
	CHECK_EQ(vb_reopen(&channels[TIMESYNC], 0), 0);
	expect(TIMESYNC);
	CHECK(choose((const uint16_t[]){ 3, 0 }, (const uint16_t[]){ 3, 0 }));
	answer(TIMESYNC);
	expect(TIMESYNC);
	CHECK_EQ(m.version[0], 3);
	CHECK(m.size >= 25);
	memcpy(&host, m.body, 8);
	CHECK(host / 10000000 >= now && host / 10000000 < now + 60);
	CHECK_EQ(m.body[24] & 3, 1);
	answer(TIMESYNC);
}

/* ---- The guest's daemons ---- */

struct item {
	uint8_t pool;
	uint32_t key_size, value_size;
	uint8_t key[512], value[2048];
};

static struct item items[16];
static unsigned int nr_items;

static void put_text(uint8_t *to, uint32_t *size, const char *text)
{
	size_t n = strlen(text) + 1;

	for (size_t i = 0; i < n; i++) {
		to[2 * i] = (uint8_t)text[i];
		to[2 * i + 1] = 0;
	}
	*size = (uint32_t)(2 * n);
}

static void print_text(const uint8_t *utf16, uint32_t size)
{
	for (uint32_t i = 0; i + 1 < size && utf16[i]; i += 2)
		rt_putc((char)utf16[i]);
}

static struct item *find_item(uint8_t pool, const uint8_t *key, uint32_t size)
{
	for (unsigned int i = 0; i < nr_items; i++)
		if (items[i].pool == pool && items[i].key_size == size && !memcmp(items[i].key, key, size))
			return &items[i];
	return NULL;
}

/* Of struct hv_kvp_exchg_msg_value: type, key size, value size, key, value. */
static void give_item(uint8_t *value, const struct item *item)
{
	uint32_t head[] = { 1, item->key_size, item->value_size };

	memcpy(value, head, sizeof(head));
	memcpy(value + 12, item->key, item->key_size);
	memcpy(value + 12 + 512, item->value, item->value_size);
}

static uint32_t enumerate(uint8_t pool)
{
	uint32_t index, n = 0;

	memcpy(&index, m.body + 4, 4);
	for (unsigned int i = 0; i < nr_items; i++) {
		if (items[i].pool == pool && n++ == index) {
			give_item(m.body + 8, &items[i]);
			return 0;
		}
	}
	return S_CONT;
}

static uint32_t set_item(uint8_t pool, const uint8_t *value)
{
	uint32_t sizes[3];
	struct item *item;

	memcpy(sizes, value, sizeof(sizes));
	CHECK(sizes[0] == 1 && sizes[1] <= 512 && sizes[2] <= 2048);
	item = find_item(pool, value + 12, sizes[1]);
	if (!item) {
		CHECK(nr_items < sizeof(items) / sizeof(items[0]));
		item = &items[nr_items++];
	}
	item->pool = pool;
	item->key_size = sizes[1];
	item->value_size = sizes[2];
	memcpy(item->key, value + 12, sizes[1]);
	memcpy(item->value, value + 12 + 512, sizes[2]);
	rt_print("set %u ", pool);
	print_text(item->key, item->key_size);
	rt_putc('=');
	print_text(item->value, item->value_size);
	rt_putc('\n');
	return 0;
}

static uint32_t serve_kvp(void)
{
	uint8_t pool = m.body[1];
	struct item *item;
	uint32_t size;

	CHECK(pool < 5);
	switch (m.body[0]) {
	case 0: /* get */
		memcpy(&size, m.body + 8, 4);
		CHECK(size <= 512);
		item = find_item(pool, m.body + 16, size);
		if (item)
			give_item(m.body + 4, item);
		return item ? 0 : E_FAIL;
	case 1:
		return set_item(pool, m.body + 4);
	case 2: /* delete */
		memcpy(&size, m.body + 4, 4);
		CHECK(size <= 512);
		item = find_item(pool, m.body + 8, size);
		if (item)
			*item = items[--nr_items];
		return item ? 0 : NOT_FOUND;
	case 3:
		return enumerate(pool);
	default:
		return E_FAIL;
	}
}

static uint32_t serve_vss(void)
{
	static const char *const names[] = { [2] = "probed", [5] = "frozen", [6] = "thawed" };
	uint8_t operation = m.body[0];
	uint32_t no_recovery = 5;

	if (operation != 2 && operation != 5 && operation != 6)
		return E_FAIL;
	if (operation == 2)
		memcpy(m.body + 8, &no_recovery, 4);
	rt_print("%s\n", names[operation]);
	return 0;
}

static uint32_t serve_fcopy(void)
{
	static uint64_t size, got;
	static uint32_t sum;
	uint64_t offset;
	uint32_t operation, n;

	memcpy(&operation, m.body, 4);
	switch (operation) {
	case 0: /* start: name, path, flags, size */
		CHECK_EQ(m.size, 1088);
		memcpy(&size, m.body + 36 + 1040 + 4, 8);
		rt_print("file ");
		print_text(m.body + 36 + 520, 520);
		print_text(m.body + 36, 520);
		rt_print(" of %lu flags %u\n", size, m.body[36 + 1040]);
		got = 0;
		sum = 0;
		return 0;
	case 1: /* write: pad, offset, size, data */
		memcpy(&offset, m.body + 40, 8);
		memcpy(&n, m.body + 48, 4);
		CHECK_EQ(offset, got);
		CHECK(n <= 6144 && n + 52u <= m.size);
		for (uint32_t i = 0; i < n; i++)
			sum += m.body[52 + i];
		got += n;
		return 0;
	case 2:
		rt_print("complete %lu sum %u\n", got, sum);
		CHECK_EQ(got, size);
		return 0;
	default:
		rt_print("cancelled\n");
		return 0;
	}
}

static void serve_heartbeat(void)
{
	uint64_t number;

	memcpy(&number, m.body, 8);
	number++;
	memcpy(m.body, &number, 8);
}

static _Noreturn void power_off(void)
{
	uint32_t flags;

	memcpy(&flags, m.body + 8, 4);
	rt_print("shutdown flags %u\n", flags);
	CHECK(m.size >= 12);
	answer(SHUTDOWN);
	rt_delay(1000);
	outw(0x604, 0x2000);
	rt_delay(1000000);
	rt_fail(__FILE_NAME__, __LINE__, "S5 does nothing");
}

static void serve(unsigned int s)
{
	check_request(s);
	m.status = 0;
	if (s == HEARTBEAT)
		serve_heartbeat();
	else if (s == SHUTDOWN)
		power_off();
	else if (s == KVP)
		m.status = serve_kvp();
	else if (s == VSS)
		m.status = serve_vss();
	else if (s == FCOPY)
		m.status = serve_fcopy();
	answer(s);
}

static void test_serve(void)
{
	put_text(items[0].key, &items[0].key_size, "OSName");
	put_text(items[0].value, &items[0].value_size, "freestanding");
	items[0].pool = 2;
	nr_items = 1;
	for (unsigned int s = 0; s < NR_SERVICES; s++) {
		open(s);
		negotiate(s);
	}
	rt_print("ready\n");
	for (;;) {
		for (unsigned int s = 0; s < NR_SERVICES; s++)
			if (take(s, 0))
				serve(s);
		rt_delay(200); /* leaves the processor to the host's threads */
	}
}

/* ---- A guest that answers nonsense ---- */

static void send_raw(unsigned int s, uint16_t type, const void *bytes, uint32_t size)
{
	vb_send(&channels[s], type, 0, 0, bytes, size);
}

/* Back to good, from whatever state. */
static void recover(unsigned int s)
{
	vb_drain(500);
	vb_close(&channels[s]);
	CHECK_EQ(vb_reopen(&channels[s], 0), 0);
	negotiate(s);
	vb_close(&channels[s]);
	CHECK_EQ(vb_reopen(&channels[s], 0), 0);
}

/* Answers a request wrongly in way number n; false when there are no more ways. */
static bool bad_answer(unsigned int s, unsigned int n)
{
	m.flags = RESPONSE;
	switch (n) {
	case 0:
		m.pipe_size = 0xffffffff;
		break;
	case 1:
		m.pipe_size = 0;
		break;
	case 2:
		m.size = 0xffff;
		break;
	case 3:
		m.size = 0;
		break;
	case 4:
		m.type = 99;
		break;
	case 5:
		m.transaction++;
		break;
	case 6:
		m.flags = REQUEST;
		break;
	case 7:
		m.pipe = 0;
		break;
	case 8:
		memset(m.body, 0xff, 2600);
		break;
	case 9:
		m.status = E_FAIL;
		break;
	case 10:
		send_raw(s, VB_INBAND, &m, 0);
		return true;
	case 11:
		send_raw(s, VB_INBAND, &m, 24);
		return true;
	case 12:
		send_raw(s, VB_COMPLETION, &m, m.pipe_size + 8);
		return true;
	case 13: /* the largest there is, and a second and a third answer */
		m.pipe_size = 13280;
		m.size = 13260;
		send_raw(s, VB_INBAND, &m, 13288);
		m.pipe_size = 40;
		m.size = 20;
		send_raw(s, VB_INBAND, &m, 48);
		break;
	case 14:
		m.size = 3;
		m.pipe_size = 23;
		break;
	case 15:
		set_word(0, 0xffff);
		set_word(1, 0xffff);
		break;
	case 16: /* too large for any service */
		send_raw(s, VB_INBAND, &m, 13304);
		send_raw(s, VB_INBAND, &m, 2600);
		return true;
	default:
		return false;
	}
	send_raw(s, VB_INBAND, &m, m.pipe_size + 8 <= 2600 ? m.pipe_size + 8 : 2600);
	return true;
}

static void test_bad(void)
{
	for (unsigned int s = 0; s < NR_SERVICES; s++) {
		bool more = true;

		open(s);
		for (unsigned int n = 0; more; n++) {
			expect(s); /* the negotiation */
			more = bad_answer(s, n);
			recover(s);
		}
		/* Services that speak first: the same with their first request. */
		for (unsigned int n = 0; s == HEARTBEAT || s == TIMESYNC || (s == KVP && rt_arg("kvp")); n++) {
			negotiate(s);
			expect(s);
			if (!bad_answer(s, n))
				break;
			recover(s);
		}
		/* Answers to nothing. */
		vb_close(&channels[s]);
		CHECK_EQ(vb_reopen(&channels[s], 0), 0);
		negotiate(s);
		for (unsigned int i = 0; i < 20; i++) {
			m.flags = RESPONSE;
			m.type = services[s].type;
			m.transaction = (uint8_t)i;
			send_raw(s, VB_INBAND, &m, 64);
		}
		recover(s);
		vb_close(&channels[s]);
	}
	test_negotiate();
}

static const struct rt_test tests[] = {
	{ "negotiate", test_negotiate },
	{ "heartbeat", test_heartbeat },
	{ "timesync", test_timesync },
	{ "serve", test_serve },
	{ "bad", test_bad },
};

void guest_main(void)
{
	vb_start(1, NULL);
	vb_connect((uint32_t)rt_arg_number("version", VB_5_3));
	rt_run_test(tests, sizeof(tests) / sizeof(tests[0]));
	rt_print("passed\n");
}
