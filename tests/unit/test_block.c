/* SPDX-License-Identifier: MIT */
/* Images on the host's own file system, through a loop of the test's. */
/* cmocka wants these before itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/block/block.h"
#include "devices/block/disk.h"
#include "devices/block/internal.h"
#include "tests/unit/trace_fake.h"

#define MIB (1u << 20)

struct fixture {
	struct loop loop;
	char path[64], err[512];
	uint8_t *memory; /* MIB bytes, page aligned, and a page more */
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int fd;

	if (!f)
		return -1;
	snprintf(f->path, sizeof(f->path), "./test-block-XXXXXX");
	fd = mkstemp(f->path);
	if (fd < 0 || ftruncate(fd, 4 * MIB))
		return -1;
	close(fd);
	f->memory = mmap(NULL, MIB + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	loop_init(&f->loop);
	*state = f;
	return f->memory == MAP_FAILED ? -1 : loop_start(&f->loop);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	loop_destroy(&f->loop);
	munmap(f->memory, MIB + 4096);
	unlink(f->path);
	free(f);
	return 0;
}

static int try_open(struct fixture *f, struct block **block, uint32_t block_size, bool readonly,
		    enum block_direct direct)
{
	struct block_options o = { .path = f->path, .block_size = block_size, .readonly = readonly, .direct = direct };

	f->err[0] = 0;
	return block_open(block, &f->loop, &o, f->err, sizeof(f->err));
}

static struct block *must_open(struct fixture *f, bool readonly, enum block_direct direct)
{
	struct block *block = NULL;

	if (try_open(f, &block, 512, readonly, direct))
		fail_msg("%s", f->err);
	return block;
}

/* A request of ours, its segments with it. */
struct job {
	struct block_request request;
	struct iovec segments[1024];
	bool ended;
	int result;
};

static void job_done(struct block_request *request, int result)
{
	struct job *job = (struct job *)request;

	assert_false(job->ended);
	job->ended = true;
	job->result = result;
}

static void job_start(struct job *job, struct block *block, enum block_kind kind, uint64_t offset, uint64_t length,
		      unsigned int count)
{
	job->request = (struct block_request){ .block = block,
					       .kind = kind,
					       .offset = offset,
					       .length = length,
					       .segments = job->segments,
					       .count = count,
					       .done = job_done };
	job->ended = false;
	block_submit(&job->request);
	assert_false(job->ended);
}

static int job_wait(struct fixture *f, struct job *job)
{
	/* A turn may end early, with the end of another of many. */
	for (int i = 0; i < 1000 && !job->ended; i++)
		loop_turn(&f->loop, 100000000);
	assert_true(job->ended);
	return job->result;
}

static int run(struct fixture *f, struct block *block, enum block_kind kind, uint64_t offset, void *memory,
	       uint64_t length)
{
	struct job job = { .segments = { { memory, (size_t)length } } };

	job_start(&job, block, kind, offset, length, 1);
	return job_wait(f, &job);
}

static void fill(uint8_t *at, size_t size, unsigned int seed)
{
	for (size_t i = 0; i < size; i++)
		at[i] = (uint8_t)((i * 7 + i / 251 + seed) & 0xff);
}

static uint64_t blocks_of(const struct fixture *f)
{
	struct stat st;

	assert_int_equal(stat(f->path, &st), 0);
	return (uint64_t)st.st_blocks;
}

static void test_read_write(void **state)
{
	static const enum block_direct modes[] = { BLOCK_DIRECT_OFF, BLOCK_DIRECT_AUTO };
	struct fixture *f = *state;

	for (size_t m = 0; m < 2; m++) {
		struct block *block = must_open(f, false, modes[m]);
		uint8_t *other = malloc(MIB);

		assert_int_equal(block_info(block)->size, 4 * MIB);
		assert_int_equal(block_info(block)->block_size, 512);
		fill(f->memory, MIB, (unsigned int)m);
		memcpy(other, f->memory, MIB);
		assert_int_equal(run(f, block, BLOCK_WRITE, 512, f->memory, MIB), 0);
		memset(f->memory, 0xee, MIB);
		assert_int_equal(run(f, block, BLOCK_READ, 512, f->memory, MIB), 0);
		assert_memory_equal(f->memory, other, MIB);
		assert_int_equal(run(f, block, BLOCK_FLUSH, 0, NULL, 0), 0);
		free(other);
		block_close(block);
	}
}

/* Addresses and lengths of all kinds, in many pieces; larger than the bounce buffer too. */
static void test_segments(void **state)
{
	static const enum block_direct modes[] = { BLOCK_DIRECT_OFF, BLOCK_DIRECT_AUTO };
	static const size_t pieces[] = { 512, 4096, 1, 511, 1024, 100000, 3, 8192 };
	struct fixture *f = *state;
	struct job job;

	for (size_t m = 0; m < 2; m++) {
		struct block *block = must_open(f, false, modes[m]);

		for (size_t shift = 0; shift < 513; shift += 171) {
			for (int write = 1; write >= 0; write--) {
				size_t at = shift, left = 512 * 1024;
				unsigned int n = 0;

				for (; left; n++) {
					size_t here = pieces[n % 8] < left ? pieces[n % 8] : left;

					job.segments[n] = (struct iovec){ f->memory + at, here };
					at += here;
					left -= here;
				}
				if (write)
					fill(f->memory + shift, 512 * 1024, (unsigned int)shift);
				else
					memset(f->memory, 0, MIB);
				job_start(&job, block, write ? BLOCK_WRITE : BLOCK_READ, 4096, 512 * 1024, n);
				assert_int_equal(job_wait(f, &job), 0);
			}
			for (size_t i = 0; i < 512 * 1024; i++)
				if (f->memory[shift + i] != (uint8_t)((i * 7 + i / 251 + shift) & 0xff))
					fail_msg("byte %zu of shift %zu", i, shift);
		}
		block_close(block);
	}
}

static void test_fua(void **state)
{
	struct fixture *f = *state;
	struct block *block = must_open(f, false, BLOCK_DIRECT_AUTO);
	struct job job = { .segments = { { f->memory, 4096 } } };

	job_start(&job, block, BLOCK_WRITE, 0, 4096, 1);
	assert_int_equal(job_wait(f, &job), 0);
	job.segments[0] = (struct iovec){ f->memory, 4096 };
	job.request = (struct block_request){ .block = block,
					      .kind = BLOCK_WRITE,
					      .length = 4096,
					      .segments = job.segments,
					      .count = 1,
					      .fua = true,
					      .done = job_done };
	job.ended = false;
	block_submit(&job.request);
	assert_int_equal(job_wait(f, &job), 0);
	block_close(block);
}

/* The end of a file that is no multiple of the block: zeroes there; and a write makes it whole. */
static void test_odd_size(void **state)
{
	static const enum block_direct modes[] = { BLOCK_DIRECT_OFF, BLOCK_DIRECT_AUTO };
	struct fixture *f = *state;

	for (size_t m = 0; m < 2; m++) {
		struct block *block;

		assert_int_equal(truncate(f->path, 0), 0);
		assert_int_equal(truncate(f->path, 70000), 0);
		block = must_open(f, false, modes[m]);
		assert_int_equal(block_info(block)->size, 137 * 512);
		memset(f->memory, 0xff, MIB);
		assert_int_equal(run(f, block, BLOCK_READ, 136 * 512, f->memory, 512), 0);
		for (size_t i = 0; i < 512; i++)
			assert_int_equal(f->memory[i], 0);
		assert_int_equal(f->memory[512], 0xff);
		memset(f->memory, 0xab, 512);
		assert_int_equal(run(f, block, BLOCK_WRITE, 136 * 512, f->memory, 512), 0);
		memset(f->memory, 0, 512);
		assert_int_equal(run(f, block, BLOCK_READ, 136 * 512, f->memory, 512), 0);
		assert_int_equal(f->memory[511], 0xab);
		/* Somebody cuts it off meanwhile. */
		assert_int_equal(truncate(f->path, 1000), 0);
		memset(f->memory, 0xff, MIB);
		assert_int_equal(run(f, block, BLOCK_READ, 0, f->memory, 8192), 0);
		for (size_t i = 1000; i < 8192; i++)
			assert_int_equal(f->memory[i], 0);
		block_close(block);
	}
}

static void test_holes(void **state)
{
	struct fixture *f = *state;
	struct block *block = must_open(f, false, BLOCK_DIRECT_AUTO);
	uint64_t before;

	if (!block_info(block)->punch) {
		block_close(block);
		skip();
	}
	fill(f->memory, MIB, 1);
	assert_int_equal(run(f, block, BLOCK_WRITE, 0, f->memory, MIB), 0);
	assert_int_equal(run(f, block, BLOCK_FLUSH, 0, NULL, 0), 0);
	before = blocks_of(f);
	assert_true(before >= MIB / 512);
	assert_int_equal(run(f, block, BLOCK_PUNCH, 4096, NULL, MIB / 2), 0);
	assert_true(blocks_of(f) <= before - MIB / 2 / 512 + 16);
	assert_int_equal(run(f, block, BLOCK_READ, 0, f->memory, MIB), 0);
	assert_int_equal(f->memory[1], 8);
	for (size_t i = 4096; i < 4096 + MIB / 2; i++)
		assert_int_equal(f->memory[i], 0);
	assert_int_not_equal(f->memory[MIB - 1] | f->memory[MIB - 2], 0);
	if (run(f, block, BLOCK_ZERO, 0, NULL, 1024) == 0) {
		assert_int_equal(run(f, block, BLOCK_READ, 0, f->memory, 2048), 0);
		assert_int_equal(f->memory[1], 0);
		assert_int_not_equal(f->memory[1025], 0);
	}
	block_close(block);
}

static void test_many_at_once(void **state)
{
	struct fixture *f = *state;
	struct block *block = must_open(f, false, BLOCK_DIRECT_AUTO);
	struct job *jobs = calloc(256, sizeof(*jobs));

	fill(f->memory, MIB, 3);
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < 256; i++) {
			jobs[i].segments[0] = (struct iovec){ f->memory + i * 4096, 4096 };
			job_start(&jobs[i], block, round ? BLOCK_READ : BLOCK_WRITE, (255 - i) * 4096, 4096, 1);
		}
		for (size_t i = 0; i < 256; i++)
			assert_int_equal(job_wait(f, &jobs[i]), 0);
		if (!round)
			memset(f->memory, 0, MIB);
	}
	for (size_t i = 0; i < MIB; i++)
		if (f->memory[i] != (uint8_t)((i * 7 + i / 251 + 3) & 0xff))
			fail_msg("byte %zu", i);
	free(jobs);
	block_close(block);
}

static void test_no_space(void **state)
{
	struct fixture *f = *state;
	struct block_options o = { .path = "/dev/full", .block_size = 512 };
	struct block *block = must_open(f, false, BLOCK_DIRECT_OFF);
	int fd = block->fd;

	/* A device that is always full, in the place of the image. */
	block->fd = open(o.path, O_RDWR | O_CLOEXEC);
	assert_true(block->fd >= 0);
	assert_int_equal(run(f, block, BLOCK_WRITE, 0, f->memory, 4096), -ENOSPC);
	close(block->fd);
	block->fd = fd;
	block_close(block);
	assert_int_equal(block_open(&block, &f->loop, &o, f->err, sizeof(f->err)), -EINVAL);
	assert_non_null(strstr(f->err, "neither a file nor a block device"));
}

static void test_bad_descriptor(void **state)
{
	struct fixture *f = *state;
	struct block *block = must_open(f, true, BLOCK_DIRECT_OFF);

	assert_true(block_info(block)->readonly);
	assert_false(block_info(block)->punch);
	assert_int_equal(run(f, block, BLOCK_READ, 0, f->memory, 4096), 0);
	assert_true(run(f, block, BLOCK_WRITE, 0, f->memory, 4096) < 0);
	block_close(block);
}

static void test_locks(void **state)
{
	struct fixture *f = *state;
	struct block *writer = must_open(f, false, BLOCK_DIRECT_AUTO), *other = NULL, *third = NULL;

	assert_int_equal(try_open(f, &other, 512, false, BLOCK_DIRECT_AUTO), -EBUSY);
	assert_non_null(strstr(f->err, "in use by another process"));
	assert_int_equal(try_open(f, &other, 512, true, BLOCK_DIRECT_AUTO), -EBUSY);
	block_close(writer);
	other = must_open(f, true, BLOCK_DIRECT_AUTO);
	third = must_open(f, true, BLOCK_DIRECT_AUTO);
	assert_int_equal(try_open(f, &writer, 512, false, BLOCK_DIRECT_AUTO), -EBUSY);
	block_close(other);
	block_close(third);
	block_close(must_open(f, false, BLOCK_DIRECT_AUTO));
}

static void test_refused(void **state)
{
	static const struct {
		const char *name, *magic;
		size_t offset, length;
	} formats[] = {
		{ "qcow2", "QFI\xfb", 0, 4 },	      { "vhdx", "vhdxfile", 0, 8 },
		{ "vpc", "conectix", 0, 8 },	      { "vmdk", "KDMV", 0, 4 },
		{ "vmdk", "# Disk Desc", 0, 11 },     { "qed", "QED\0", 0, 4 },
		{ "vdi", "\x7f\x10\xda\xbe", 64, 4 },
	};
	struct fixture *f = *state;
	struct block *block = NULL;

	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		uint8_t head[512] = { 0 };
		bool whole = strncmp(formats[i].magic, "# Disk", 6) != 0;
		int fd = open(f->path, O_WRONLY);

		memcpy(head + formats[i].offset, formats[i].magic, formats[i].length);
		assert_int_equal(pwrite(fd, head, sizeof(head), 0), 512);
		close(fd);
		assert_int_equal(try_open(f, &block, 512, false, BLOCK_DIRECT_AUTO), whole ? -EINVAL : 0);
		if (!whole) {
			block_close(block);
			continue;
		}
		assert_non_null(strstr(f->err, formats[i].name));
		assert_non_null(strstr(f->err, "qemu-img convert"));
	}
	assert_int_equal(truncate(f->path, 0), 0);
	assert_int_equal(try_open(f, &block, 512, false, BLOCK_DIRECT_AUTO), -EINVAL);
	assert_non_null(strstr(f->err, "empty"));
	unlink(f->path);
	assert_int_equal(try_open(f, &block, 512, false, BLOCK_DIRECT_AUTO), -ENOENT);
	assert_int_equal(mkdir(f->path, 0700), 0);
	assert_true(try_open(f, &block, 512, true, BLOCK_DIRECT_AUTO) < 0);
	rmdir(f->path);
}

/* O_DIRECT that wants larger blocks than the disk has is not used, or refused if it was asked for. */
static void test_direct(void **state)
{
	struct fixture *f = *state;
	struct block *block = must_open(f, false, BLOCK_DIRECT_AUTO);
	bool can = block_info(block)->direct;

	block_close(block);
	block = must_open(f, true, BLOCK_DIRECT_AUTO);
	assert_false(block_info(block)->direct);
	block_close(block);
	assert_int_equal(try_open(f, &block, 512, false, BLOCK_DIRECT_ON), can ? 0 : -EOPNOTSUPP);
	if (can)
		block_close(block);
	else
		assert_non_null(strstr(f->err, "use direct=off"));
}

static void test_parse(void **state)
{
	static const struct {
		const char *text, *path, *serial;
		bool readonly, dvd;
		enum block_direct direct;
	} good[] = {
		{ "a.img", "a.img", "", false, false, BLOCK_DIRECT_AUTO },
		{ "/x/y.ISO", "/x/y.ISO", "", true, true, BLOCK_DIRECT_AUTO },
		{ "a,readonly=on,direct=on,serial=A B-1", "a", "A B-1", true, false, BLOCK_DIRECT_ON },
		{ "a,direct=off,readonly=off", "a", "", false, false, BLOCK_DIRECT_OFF },
		{ ".iso,readonly=off", ".iso", "", true, true, BLOCK_DIRECT_AUTO },
	};
	static const char *const bad[] = { "",
					   ",readonly=on",
					   "a,",
					   "a,readonly=1",
					   "a,b.img",
					   "a,serial=",
					   "a,serial= x",
					   "a,serial=\x01",
					   "a,serial=1,serial=2",
					   "a,direct=auto" };
	struct disk_options o;
	char err[256], *text = malloc(PATH_MAX + 10);

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(disk_parse(good[i].text, &o, err, sizeof(err)), 0);
		assert_string_equal(o.path, good[i].path);
		assert_string_equal(o.serial, good[i].serial);
		assert_int_equal(o.readonly, good[i].readonly);
		assert_int_equal(o.dvd, good[i].dvd);
		assert_int_equal(o.direct, good[i].direct);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		err[0] = 0;
		assert_int_equal(disk_parse(bad[i], &o, err, sizeof(err)), -EINVAL);
		assert_true(strlen(err) > 0);
	}
	assert_int_equal(disk_parse("a.iso,boot=on", &o, err, sizeof(err)), 0);
	assert_true(o.boot && o.dvd);
	assert_int_equal(disk_parse("a,boot=off", &o, err, sizeof(err)), 0);
	assert_false(o.boot);
	assert_int_equal(disk_parse("a,boot=first", &o, err, sizeof(err)), -EINVAL);
	memset(text, 'x', PATH_MAX);
	text[PATH_MAX] = 0;
	assert_int_equal(disk_parse(text, &o, err, sizeof(err)), -EINVAL);
	memcpy(text, "a,serial=", 9);
	text[9 + 65] = 0;
	assert_int_equal(disk_parse(text, &o, err, sizeof(err)), -EINVAL);
	text[9 + 64] = 0;
	assert_int_equal(disk_parse(text, &o, err, sizeof(err)), 0);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_read_write, setup, teardown),
		cmocka_unit_test_setup_teardown(test_segments, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fua, setup, teardown),
		cmocka_unit_test_setup_teardown(test_odd_size, setup, teardown),
		cmocka_unit_test_setup_teardown(test_holes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_space, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_descriptor, setup, teardown),
		cmocka_unit_test_setup_teardown(test_locks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_direct, setup, teardown),
		cmocka_unit_test(test_parse),
	};

	return cmocka_run_group_tests_name("block", tests, NULL, NULL);
}
