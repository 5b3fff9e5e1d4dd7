/* SPDX-License-Identifier: MIT */
/* The file behind the variable flash: made whole or not at all, kept byte by byte, refused when it does not fit. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "firmware/flash_core.h"
#include "firmware/nvram.h"
#include "vmm/log.h"

#define SIZE (4 * FLASH_BLOCK)

static char directory[] = "/tmp/vmm-nvram.XXXXXX", path[64], line[512];
static unsigned int lines;
static uint8_t template[SIZE], data[SIZE];

void log_line(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	lines++;
}

static int setup(void **state)
{
	(void)state;
	strcpy(directory + strlen(directory) - 6, "XXXXXX");
	if (!mkdtemp(directory))
		return -1;
	snprintf(path, sizeof(path), "%s/vars", directory);
	for (size_t i = 0; i < SIZE; i++)
		template[i] = (uint8_t)(i * 3 + 1);
	memset(data, 0, SIZE);
	lines = 0;
	line[0] = '\0';
	return 0;
}

static unsigned int count_files(bool remove)
{
	DIR *dir = opendir(directory);
	unsigned int n = 0;

	assert_non_null(dir);
	for (struct dirent *e; (e = readdir(dir));) {
		if (e->d_name[0] == '.')
			continue;
		n++;
		if (remove)
			unlinkat(dirfd(dir), e->d_name, 0);
	}
	closedir(dir);
	return n;
}

static int teardown(void **state)
{
	(void)state;
	count_files(true);
	return rmdir(directory);
}

static void read_file(uint8_t *to)
{
	int fd = open(path, O_RDONLY);
	struct stat st;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, SIZE);
	assert_int_equal(read(fd, to, SIZE), SIZE);
	close(fd);
}

static void check_file(const uint8_t *wanted)
{
	uint8_t bytes[SIZE];

	read_file(bytes);
	assert_memory_equal(bytes, wanted, SIZE);
}

static void make_file(size_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0644);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	close(fd);
}

static void test_made_and_kept(void **state)
{
	struct nvram n;

	(void)state;
	assert_int_equal(nvram_open(&n, path, data, SIZE, template, NULL), 0);
	assert_memory_equal(data, template, SIZE);
	assert_int_equal(count_files(false), 1);
	check_file(template);
	assert_int_equal(nvram_write(&n, 100, (const uint8_t *)"hello", 5), 0);
	memcpy(data + 100, "hello", 5);
	check_file(data); /* at once */
	nvram_close(&n);
	nvram_close(&n);
	memset(template, 0, SIZE); /* a file that is there counts, whatever the template */
	uint8_t again[SIZE];
	assert_int_equal(nvram_open(&n, path, again, SIZE, template, NULL), 0);
	assert_memory_equal(again, data, SIZE);
	nvram_close(&n);
	assert_int_equal(lines, 0);
}

static void test_no_template(void **state)
{
	struct nvram n;

	(void)state;
	assert_int_equal(nvram_open(&n, path, data, SIZE, NULL, "X_VARS.fd: not here"), -ENOENT);
	assert_non_null(strstr(line, "does not exist, and cannot be made: X_VARS.fd: not here"));
	assert_int_equal(count_files(false), 0);
	make_file(SIZE);
	assert_int_equal(nvram_open(&n, path, data, SIZE, NULL, "unused"), 0);
	nvram_close(&n);
}

static void test_wrong_size(void **state)
{
	static const size_t sizes[] = { 0, 1, SIZE - 1, SIZE + 1, 2 * SIZE };
	struct nvram n;

	(void)state;
	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct stat st;

		make_file(sizes[i]);
		assert_int_equal(nvram_open(&n, path, data, SIZE, template, NULL), -EINVAL);
		assert_int_equal(lines, i + 1);
		assert_non_null(strstr(line, "but the variables of this firmware have 16384"));
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_size, sizes[i]); /* not touched */
		unlink(path);
	}
}

static void test_no_file(void **state)
{
	struct nvram n;

	(void)state;
	assert_int_equal(nvram_open(&n, directory, data, SIZE, template, NULL), -EISDIR);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(nvram_open(&n, path, data, SIZE, template, NULL), -EINVAL);
	assert_non_null(strstr(line, "is not a regular file"));
	assert_int_equal(nvram_open(&n, "/nonexistent/vars", data, SIZE, template, NULL), -ENOENT);
	assert_non_null(strstr(line, "/nonexistent/vars: making it: No such file"));
}

static void test_in_use(void **state)
{
	struct nvram first, second;

	(void)state;
	assert_int_equal(nvram_open(&first, path, data, SIZE, template, NULL), 0);
	assert_int_equal(nvram_open(&second, path, data, SIZE, template, NULL), -EBUSY);
	assert_non_null(strstr(line, "is in use by another process"));
	nvram_close(&first);
	assert_int_equal(nvram_open(&second, path, data, SIZE, template, NULL), 0);
	nvram_close(&second);
}

/* As root everything may be opened, so as somebody else. */
static void test_read_only(void **state)
{
	int status;
	pid_t child;

	(void)state;
	make_file(SIZE);
	assert_int_equal(chmod(path, 0444), 0);
	assert_int_equal(chmod(directory, 0755), 0);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		struct nvram n;

		if (getuid() == 0 && setresuid(65534, 65534, 65534))
			_exit(2);
		_exit(nvram_open(&n, path, data, SIZE, template, NULL) == -EACCES &&
				      strstr(line, "open: Permission denied")
			      ? 0
			      : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* The limit on a file's size stands in for a full disk. */
static void limit(rlim_t bytes)
{
	struct rlimit r;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &r), 0);
	r.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

static void test_full_when_made(void **state)
{
	struct nvram n;
	int ret;

	(void)state;
	limit(SIZE / 2);
	ret = nvram_open(&n, path, data, SIZE, template, NULL);
	limit(RLIM_INFINITY);
	assert_int_equal(ret, -EFBIG);
	assert_int_equal(count_files(false), 0);
	assert_int_equal(lines, 1);
}

static void test_full_when_written(void **state)
{
	struct nvram n;

	(void)state;
	assert_int_equal(nvram_open(&n, path, data, SIZE, template, NULL), 0);
	limit(FLASH_BLOCK);
	assert_int_equal(nvram_write(&n, SIZE - 1, data, 1), -EFBIG);
	assert_int_equal(nvram_write(&n, SIZE - 2, data, 1), -EFBIG);
	assert_int_equal(lines, 1); /* told once in a row */
	assert_int_equal(nvram_write(&n, 0, data, 1), 0);
	assert_int_equal(nvram_write(&n, SIZE - 1, data, 1), -EFBIG);
	assert_int_equal(lines, 2);
	limit(RLIM_INFINITY);
	check_file(template);
	nvram_close(&n);
}

static int store(void *opaque, size_t offset, const uint8_t *bytes, size_t length)
{
	return nvram_write(opaque, offset, bytes, length);
}

/* Erases the chip and programs each byte in turn, telling of each by a byte to the pipe. */
static void write_chip(int pipe_fd)
{
	struct nvram n;
	struct flash_core core = { .data = data, .size = SIZE, .store = store, .opaque = &n };

	if (nvram_open(&n, path, data, SIZE, template, NULL))
		_exit(1);
	flash_core_reset(&core);
	for (size_t i = 0; i < SIZE; i++) {
		if (i % FLASH_BLOCK == 0) {
			flash_core_write(&core, i, 1, 0x20);
			flash_core_write(&core, i, 1, 0xd0);
		}
		flash_core_write(&core, i, 1, 0x10);
		flash_core_write(&core, i, 1, (uint8_t)(i * 5));
		if (write(pipe_fd, "", 1) != 1)
			_exit(1);
	}
	_exit(0);
}

/* Killed at any moment: what had been told is there, in order, nothing half-way, and the rest is as it was. */
static void test_killed(void **state)
{
	(void)state;
	for (size_t when = 1; when < SIZE; when += 3001) {
		uint8_t bytes[SIZE], told;
		int ends[2], status;
		size_t n = 0;
		pid_t child;

		assert_int_equal(pipe(ends), 0);
		child = fork();
		assert_true(child >= 0);
		if (!child)
			write_chip(ends[1]);
		close(ends[1]);
		for (size_t i = 0; i < when; i++)
			assert_int_equal(read(ends[0], &told, 1), 1);
		kill(child, SIGKILL);
		assert_int_equal(waitpid(child, &status, 0), child);
		close(ends[0]);
		read_file(bytes);
		while (n < SIZE && bytes[n] == (uint8_t)(n * 5))
			n++;
		assert_true(n >= when);
		/* The block that was being written goes on erased (or is not yet), those behind it are old. */
		for (size_t i = n; i < SIZE; i++)
			assert_true(bytes[i] == template[i] ||
				    (bytes[i] == 0xff && i / FLASH_BLOCK == n / FLASH_BLOCK));
		unlink(path);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_made_and_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_template, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_size, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_in_use, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_only, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full_when_made, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full_when_written, setup, teardown),
		cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
