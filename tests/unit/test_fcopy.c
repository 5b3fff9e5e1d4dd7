/* SPDX-License-Identifier: MIT */
/* File copy: a whole file arrives, and every way in which it may not ends with an error and, if due, with CANCEL. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/ic_guest.h"

#include "devices/vmbus/ic_fcopy.h"

enum { START, WRITE, COMPLETE, CANCEL };

#define FRAGMENT   6144
#define HEADER	   36
#define START_SIZE 1088
#define WRITE_SIZE 6196
#define NAME_AT	   36
#define PATH_AT	   556
#define FLAGS_AT   1076
#define SIZE_AT	   1080
#define OFFSET_AT  40
#define LENGTH_AT  48
#define DATA_AT	   52
#define ALREADY	   0x80070050u
#define DISK_FULL  0x80070070u

static struct ic *ic;
static char dir[] = "/tmp/fcopy-test-XXXXXX", file[64];
static uint8_t contents[40000], received[40000];
static size_t arrived;

/* ---- The loop's ring: a request is done when a test says so, even one that was cancelled ---- */

static unsigned int pending(void)
{
	unsigned int n = 0;

	for (size_t i = 0; i < FAKE_FILES; i++)
		n += fake.files[i].op != NULL;
	return n;
}

/* What the kernel does for a request, at most limit bytes of it. */
static int perform(const struct io_uring_sqe *sqe, size_t limit)
{
	void *address = (void *)(uintptr_t)sqe->addr;
	ssize_t ret;

	if (sqe->opcode == IORING_OP_OPENAT) {
		ret = openat(sqe->fd, address, (int)sqe->open_flags);
	} else {
		assert_int_equal(sqe->opcode, IORING_OP_READ);
		ret = pread(sqe->fd, address, sqe->len < limit ? sqe->len : limit, (off_t)sqe->off);
	}
	return ret < 0 ? -errno : (int)ret;
}

#define PERFORM 1 /* no result of its own */

/* Ends one request: with this negative result, or by doing it. */
static void complete_some(int res, size_t limit)
{
	for (size_t i = 0; i < FAKE_FILES; i++) {
		struct loop_op *op = fake.files[i].op;

		if (op) {
			int done = res == PERFORM ? perform(&fake.files[i].sqe, limit) : res;

			fake.files[i].op = NULL;
			op->fn(op, done, 0);
			return;
		}
	}
	fail();
}

static void run_io(void)
{
	while (pending())
		complete_some(PERFORM, SIZE_MAX);
}

/* ---- The guest ---- */

static uint32_t get32(const uint8_t *at)
{
	uint32_t n;

	memcpy(&n, at, sizeof(n));
	return n;
}

static uint64_t get64(const uint8_t *at)
{
	uint64_t n;

	memcpy(&n, at, sizeof(n));
	return n;
}

/* The last request is this one and waits for an answer. */
static const uint8_t *expect(uint32_t operation)
{
	static const size_t sizes[] = { START_SIZE, WRITE_SIZE, HEADER, HEADER };
	const uint8_t *m = guest_body();

	assert_true(ic->waiting);
	assert_int_equal(guest_header().type, IC_TYPE_FCOPY);
	assert_int_equal(get32(m), operation);
	assert_int_equal(guest_header().size, sizes[operation]);
	return m;
}

static void take_fragment(void)
{
	const uint8_t *m = expect(WRITE);
	uint64_t offset = get64(m + OFFSET_AT);
	uint32_t length = get32(m + LENGTH_AT);

	assert_int_equal(offset, arrived);
	assert_true(length && length <= FRAGMENT && offset + length <= sizeof(received));
	memcpy(received + offset, m + DATA_AT, length);
	arrived += length;
	guest_echo(ic, 0);
}

static void expect_utf16(const uint8_t *at, const char *text)
{
	do
		assert_true(at[0] == (uint8_t)*text && !at[1]);
	while (at += 2, *text++);
}

/* ---- Each test ---- */

static void write_file(size_t size)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, contents, size), (ssize_t)size);
	close(fd);
}

static int make_dir(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(file, sizeof(file), "%s/file", dir);
	for (size_t i = 0; i < sizeof(contents); i++)
		contents[i] = (uint8_t)(i * 31 + i / 251);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	unlink(file);
	return rmdir(dir);
}

static int setup(void **state)
{
	(void)state;
	fake_setup();
	arrived = 0;
	memset(received, 0, sizeof(received));
	write_file(20000);
	assert_int_equal(ic_fcopy_create(&fake.vm), 0);
	ic = ic_find(&fake.vm, "fcopy");
	assert_non_null(ic);
	guest_up(ic, 1, 1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_teardown();
	return 0;
}

static unsigned int open_files(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Up to START, which waits for an answer. */
static void begin(struct outcome *o)
{
	memset(o, 0, sizeof(*o));
	fcopy_start(&fake.vm, file, "/tmp/a", 0, record, o);
	run_io();
	expect(START);
}

static void a_file_arrives(size_t size)
{
	unsigned int files = open_files();
	uint64_t copied, total;
	struct outcome o;

	arrived = 0;
	write_file(size);
	begin(&o);
	assert_int_equal(get64((const uint8_t *)guest_body() + SIZE_AT), size);
	guest_echo(ic, 0);
	while (arrived < size) {
		run_io();
		assert_true(fcopy_progress(&fake.vm, &copied, &total));
		assert_int_equal(copied, arrived);
		assert_int_equal(total, size);
		take_fragment();
	}
	expect(COMPLETE);
	assert_int_equal(o.calls, 0);
	guest_echo(ic, 0);
	check_outcome(&o, 0);
	assert_memory_equal(received, contents, size);
	assert_int_equal(open_files(), files);
	assert_false(fcopy_progress(&fake.vm, &copied, &total));
}

static void files_arrive(void **state)
{
	static const size_t sizes[] = { 0, 1, FRAGMENT - 1, FRAGMENT, FRAGMENT + 1, 2 * FRAGMENT, 40000 };

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		a_file_arrives(sizes[i]);
	assert_int_equal(fake_timers(), 0);
}

static void reads_that_are_short(void **state)
{
	struct outcome o;

	(void)state;
	begin(&o);
	guest_echo(ic, 0);
	complete_some(PERFORM, 100);
	complete_some(-EINTR, 0);
	complete_some(-EAGAIN, 0);
	complete_some(PERFORM, 1);
	run_io();
	assert_int_equal(get32(expect(WRITE) + LENGTH_AT), FRAGMENT);
	take_fragment();
	run_io();
	take_fragment();
	while (arrived < 20000) {
		run_io();
		take_fragment();
	}
	guest_echo(ic, 0);
	check_outcome(&o, 0);
	assert_memory_equal(received, contents, 20000);
}

static void what_start_says(void **state)
{
	static const struct {
		const char *guest, *path, *name;
		unsigned int flags;
	} cases[] = {
		{ "/file", "/", "file", 0 },
		{ "/a/b\\c", "/a/", "b\\c", FCOPY_OVERWRITE },
		{ "/a//b", "/a//", "b", FCOPY_CREATE_PATH },
		{ "C:\\Users\\me/x", "C:\\Users\\me/", "x", FCOPY_OVERWRITE | FCOPY_CREATE_PATH },
		{ "d:/..a", "d:/", "..a", 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct outcome o = { 0 };
		const uint8_t *m;

		fcopy_start(&fake.vm, file, cases[i].guest, cases[i].flags, record, &o);
		run_io();
		m = expect(START);
		expect_utf16(m + NAME_AT, cases[i].name);
		expect_utf16(m + PATH_AT, cases[i].path);
		assert_int_equal(get32(m + FLAGS_AT), cases[i].flags);
		assert_int_equal(get64(m + SIZE_AT), 20000);
		guest_echo(ic, ALREADY);
		check_outcome(&o, -EEXIST);
		/* Nothing was made, so nothing is removed. */
		assert_false(ic->waiting);
	}
}

static void bad_orders(void **state)
{
	static char longest[1 + FCOPY_PATH_MAX + 2], deep[FCOPY_PATH_MAX + 3], host[5000];
	const struct {
		const char *host, *guest;
		unsigned int flags;
		int error;
	} cases[] = {
		{ file, "a", 0, -EINVAL },	  { file, "", 0, -EINVAL },
		{ file, "a/b", 0, -EINVAL },	  { file, "/", 0, -EINVAL },
		{ file, "/a/", 0, -EINVAL },	  { file, "/a/..", 0, -EINVAL },
		{ file, "/.", 0, -EINVAL },	  { file, "C:a", 0, -EINVAL },
		{ file, "C:\\a\\", 0, -EINVAL },  { file, "\\a", 0, -EINVAL },
		{ file, "/a", 4, -EINVAL },	  { file, "/\xff", 0, -EILSEQ },
		{ file, "/\xff/a", 0, -EILSEQ },  { file, longest, 0, -ENAMETOOLONG },
		{ file, deep, 0, -ENAMETOOLONG }, { host, "/a", 0, -ENAMETOOLONG },
	};
	struct outcome o;

	(void)state;
	memset(longest, 'a', sizeof(longest) - 1);
	longest[0] = '/';
	memset(deep, '/', sizeof(deep) - 1);
	deep[FCOPY_PATH_MAX + 1] = 'a';
	memset(host, 'h', sizeof(host) - 1);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		memset(&o, 0, sizeof(o));
		fcopy_start(&fake.vm, cases[i].host, cases[i].guest, cases[i].flags, record, &o);
		check_outcome(&o, cases[i].error);
		assert_int_equal(pending(), 0);
	}
	/* The longest that fit. */
	memset(&o, 0, sizeof(o));
	fcopy_start(&fake.vm, file, longest + 1, 0, record, &o);
	check_outcome(&o, -EINVAL);
	longest[FCOPY_PATH_MAX + 1] = '\0';
	memset(&o, 0, sizeof(o));
	fcopy_start(&fake.vm, file, longest, 0, record, &o);
	run_io();
	expect_utf16(expect(START) + NAME_AT, longest + 1);
	guest_echo(ic, IC_E_FAIL);
	check_outcome(&o, -EIO);
}

static void host_files_that_cannot_be_copied(void **state)
{
	struct outcome missing = { 0 }, folder = { 0 }, fifo = { 0 }, gone = { 0 };
	char path[80];
	unsigned int files = open_files();

	(void)state;
	snprintf(path, sizeof(path), "%s/fifo", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	fcopy_start(&fake.vm, "/nonexistent/file", "/a", 0, record, &missing);
	run_io();
	check_outcome(&missing, -ENOENT);
	assert_non_null(strstr(missing.text, "/nonexistent/file: "));
	fcopy_start(&fake.vm, dir, "/a", 0, record, &folder);
	run_io();
	check_outcome(&folder, -EINVAL);
	fcopy_start(&fake.vm, path, "/a", 0, record, &fifo);
	run_io();
	check_outcome(&fifo, -EINVAL);
	unlink(path);
	assert_false(ic->waiting);
	assert_int_equal(open_files(), files);
	/* The next one is not held up. */
	fcopy_start(&fake.vm, "/nonexistent/file", "/a", 0, record, &gone);
	begin(&folder);
	assert_int_equal(gone.calls, 1);
}

static void a_file_that_shrinks(void **state)
{
	struct outcome o;

	(void)state;
	begin(&o);
	guest_echo(ic, 0);
	run_io();
	take_fragment();
	assert_int_equal(truncate(file, FRAGMENT + 10), 0);
	run_io();
	check_outcome(&o, -ESTALE);
	expect(CANCEL);
	guest_echo(ic, 0);
	assert_false(ic->waiting);
}

static void a_file_that_grows(void **state)
{
	struct outcome o;

	(void)state;
	begin(&o);
	guest_echo(ic, 0);
	write_file(40000);
	while (arrived < 20000) {
		run_io();
		take_fragment();
	}
	assert_int_equal(arrived, 20000);
	expect(COMPLETE);
	guest_echo(ic, 0);
	check_outcome(&o, 0);
}

static void a_read_that_fails(void **state)
{
	struct outcome o;
	unsigned int files = open_files();

	(void)state;
	begin(&o);
	guest_echo(ic, 0);
	complete_some(-EIO, 0);
	check_outcome(&o, -EIO);
	assert_non_null(strstr(o.text, file));
	expect(CANCEL);
	guest_echo(ic, IC_E_FAIL);
	assert_false(ic->waiting);
	assert_int_equal(open_files(), files);
}

static void a_guest_that_fails(void **state)
{
	struct outcome write = { 0 }, finish = { 0 };

	(void)state;
	begin(&write);
	guest_echo(ic, 0);
	run_io();
	expect(WRITE);
	guest_echo(ic, DISK_FULL);
	check_outcome(&write, -ENOSPC);
	expect(CANCEL);
	guest_answer(ic, 0x12345678, NULL, 0);
	assert_false(ic->waiting);

	write_file(0);
	begin(&finish);
	guest_echo(ic, 0);
	expect(COMPLETE);
	guest_echo(ic, 0x12345678);
	check_outcome(&finish, -EIO);
	assert_non_null(strstr(finish.text, "0x12345678"));
	assert_false(ic->waiting);
}

static void a_guest_that_does_not_answer(void **state)
{
	struct outcome first, second = { 0 };

	(void)state;
	begin(&first);
	fcopy_start(&fake.vm, file, "/tmp/b", 0, record, &second);
	fake_run(36 * SECOND);
	check_outcome(&first, -ETIMEDOUT);
	assert_int_equal(second.calls, 0);
	expect_utf16((const uint8_t *)guest_body() + NAME_AT, "a");
	/* The late answer is not taken for another's: first CANCEL, then the next. */
	guest_echo(ic, 0);
	expect(CANCEL);
	guest_echo(ic, 0);
	run_io();
	expect_utf16(expect(START) + NAME_AT, "b");
	guest_echo(ic, 0);
	run_io();
	/* Silent for good. */
	fake_run(600 * SECOND);
	check_outcome(&second, -ETIMEDOUT);
	check_outcome(&first, -ETIMEDOUT);
	assert_int_equal(fake_timers(), 0);
}

static void answers_twice_and_of_any_size(void **state)
{
	static uint8_t big[IC_BODY_MAX];
	struct outcome o;

	(void)state;
	begin(&o);
	guest_answer(ic, 0, big, sizeof(big));
	guest_answer(ic, IC_E_FAIL, NULL, 0);
	run_io();
	take_fragment();
	run_io();
	arrived += get32(expect(WRITE) + LENGTH_AT);
	guest_answer(ic, 0, NULL, 0);
	guest_answer(ic, 0, NULL, 0);
	run_io();
	take_fragment();
	run_io();
	take_fragment();
	guest_answer(ic, 0, NULL, 0);
	check_outcome(&o, 0);
	guest_answer(ic, IC_E_FAIL, NULL, 0);
	check_outcome(&o, 0);
}

static void closed_at_each_point(void **state)
{
	unsigned int files = open_files();
	struct outcome o[2];

	(void)state;
	/* 0: while opening, 1: START, 2: reading, 3: WRITE, 4: reading again, 5: CANCEL */
	for (int point = 0; point <= 5; point++) {
		memset(o, 0, sizeof(o));
		arrived = 0;
		fcopy_start(&fake.vm, file, "/tmp/a", 0, record, &o[0]);
		fcopy_start(&fake.vm, file, "/tmp/b", 0, record, &o[1]);
		if (point > 0)
			run_io();
		if (point > 1)
			guest_echo(ic, 0);
		if (point > 2)
			run_io();
		if (point == 4)
			take_fragment();
		if (point == 5)
			guest_echo(ic, IC_E_FAIL);
		if (point % 2)
			fake_reset(ic);
		else
			fake_close(ic);
		check_outcome(&o[0], point == 5 ? -EIO : -ECONNRESET);
		check_outcome(&o[1], -ECONNRESET);
		assert_int_equal(pending(), point == 0 || point == 2 || point == 4);
		/* A new life begins before the ring is done with the old one. */
		guest_up(ic, 1, 1);
		run_io();
		assert_false(ic->waiting);
		assert_int_equal(open_files(), files);
	}
	assert_int_equal(fake_timers(), 0);
	a_file_arrives(10000);
}

static void removed_while_it_reads(void **state)
{
	unsigned int files = open_files();
	struct outcome o;

	(void)state;
	begin(&o);
	guest_echo(ic, 0);
	assert_int_equal(pending(), 1);
	fake_teardown();
	check_outcome(&o, -ECONNRESET);
	/* The memory of the read is still there. */
	run_io();
	assert_int_equal(open_files(), files);
	memset(&o, 0, sizeof(o));
	fcopy_start(&fake.vm, file, "/tmp/a", 0, record, &o);
	check_outcome(&o, -ENODEV);
}

static void the_queue_is_bounded_and_in_order(void **state)
{
	static struct outcome o[FCOPY_QUEUE_MAX + 2];
	char path[32];

	(void)state;
	memset(o, 0, sizeof(o));
	write_file(0);
	for (int i = 0; i < FCOPY_QUEUE_MAX + 2; i++) {
		snprintf(path, sizeof(path), "/tmp/%d", i);
		fcopy_start(&fake.vm, file, path, 0, record, &o[i]);
	}
	check_outcome(&o[FCOPY_QUEUE_MAX + 1], -EBUSY);
	for (int i = 0; i <= FCOPY_QUEUE_MAX; i++) {
		snprintf(path, sizeof(path), "%d", i);
		run_io();
		expect_utf16(expect(START) + NAME_AT, path);
		guest_echo(ic, 0);
		expect(COMPLETE);
		guest_echo(ic, 0);
		check_outcome(&o[i], 0);
	}
	assert_int_equal(pending(), 0);
}

static void copy_again(void *opaque, int error, const char *text)
{
	struct outcome *o = opaque;

	record(o, error, text);
	if (o->calls < 4)
		fcopy_start(&fake.vm, file, "/tmp/a", 0, copy_again, o);
}

static void a_callback_may_give_orders(void **state)
{
	struct outcome o = { 0 };

	(void)state;
	write_file(0);
	fcopy_start(&fake.vm, file, "/tmp/a", 0, copy_again, &o);
	run_io();
	guest_echo(ic, 0);
	guest_echo(ic, 0); /* COMPLETE */
	run_io();
	guest_echo(ic, IC_E_FAIL); /* START */
	write_file(1);
	run_io();
	guest_echo(ic, 0);
	run_io();
	guest_echo(ic, IC_E_FAIL); /* WRITE */
	assert_int_equal(o.calls, 3);
	expect(CANCEL);
	guest_echo(ic, 0);
	assert_int_equal(pending(), 1);
	fake_close(ic);
	assert_int_equal(o.calls, 4);
	run_io();
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(files_arrive),
		CASE(reads_that_are_short),
		CASE(what_start_says),
		CASE(bad_orders),
		CASE(host_files_that_cannot_be_copied),
		CASE(a_file_that_shrinks),
		CASE(a_file_that_grows),
		CASE(a_read_that_fails),
		CASE(a_guest_that_fails),
		CASE(a_guest_that_does_not_answer),
		CASE(answers_twice_and_of_any_size),
		CASE(closed_at_each_point),
		CASE(removed_while_it_reads),
		CASE(the_queue_is_bounded_and_in_order),
		CASE(a_callback_may_give_orders),
	};

	return cmocka_run_group_tests_name("fcopy", tests, make_dir, remove_dir);
}
