/* SPDX-License-Identifier: MIT */
/* VirtIO shared memory: which regions there may be, and what a back-end puts into the window. */
/* cmocka wants these before itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/vhost-user/shmem.h"
#include "tests/unit/trace_fake.h"

#define PAGE 4096u

static unsigned int open_fds(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void shmem_sizes(void **state)
{
	static const struct {
		uint32_t count;
		struct {
			unsigned int id;
			uint64_t size;
		} r[4];
		int ret;
	} cases[] = {
		{ 0, { { 0, 0 } }, 0 },
		{ 1, { { 255, PAGE } }, 0 },
		{ 3, { { 0, 3 * PAGE }, { 7, PAGE }, { 200, 0x201000 } }, 0 },
		{ 4, { { 0, PAGE }, { 1, PAGE }, { 2, PAGE }, { 3, PAGE } }, -EPROTO },
		{ 2, { { 0, PAGE } }, -EPROTO },
		{ 0, { { 0, PAGE } }, -EPROTO },
		{ UINT32_MAX, { { 0, PAGE } }, -EPROTO },
		{ 1, { { 0, 1 } }, -EPROTO },
		{ 1, { { 0, PAGE + 512 } }, -EPROTO },
		{ 1, { { 0, VHU_SHMEM_MAX } }, 0 },
		{ 1, { { 0, VHU_SHMEM_MAX + PAGE } }, -EPROTO },
		{ 1, { { 0, 1ULL << 62 } }, -EPROTO },
		{ 2, { { 0, 1ULL << 63 }, { 1, 1ULL << 63 } }, -EPROTO },
		{ 2, { { 0, PAGE }, { 1, 0ULL - PAGE } }, -EPROTO },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct vhu_shmem_config config = { .count = cases[i].count };
		struct vhu_shmem s = { 0 };
		const char *why = NULL;

		for (unsigned int n = 0; n < 4; n++)
			if (cases[i].r[n].size)
				config.sizes[cases[i].r[n].id] = cases[i].r[n].size;
		assert_int_equal(vhu_shmem_check(&config, &s, &why), cases[i].ret);
		assert_int_equal(why != NULL, cases[i].ret != 0);
		if (i == 2) {
			assert_int_equal(s.size, 0x205000);
			assert_int_equal(s.regions[2].offset, 4 * PAGE);
		}
	}
}

/* Regions 1 (2 pages) and 4 (4 pages), and a file of 8 pages whose words say where they are. */
struct window {
	struct vhu_shmem s;
	int fd;
	const char *why;
};

static void window_open(struct window *w)
{
	struct vhu_shmem_config config = { .count = 2, .sizes = { [1] = 2 * PAGE, [4] = 4 * PAGE } };

	memset(w, 0, sizeof(*w));
	assert_int_equal(vhu_shmem_check(&config, &w->s, &w->why), 0);
	assert_int_equal(vhu_shmem_reserve(&w->s), 0);
	w->fd = memfd_create("window", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(w->fd, 8 * PAGE), 0);
	for (uint64_t at = 0; at < 8 * PAGE; at += 8)
		assert_int_equal(pwrite(w->fd, &at, 8, (off_t)at), 8);
}

static void window_close(struct window *w)
{
	vhu_shmem_destroy(&w->s);
	close(w->fd);
}

static int map(struct window *w, uint8_t id, uint64_t from, uint64_t at, uint64_t length, uint64_t flags)
{
	const struct vhu_mmap m = {
		.shmid = id, .fd_offset = from, .shm_offset = at, .length = length, .flags = flags
	};

	w->why = NULL;
	return vhu_shmem_map(&w->s, &m, w->fd, &w->why);
}

static int unmap(struct window *w, uint8_t id, uint64_t at, uint64_t length)
{
	/* The rest does not matter. */
	const struct vhu_mmap m = { .shmid = id, .fd_offset = 5, .shm_offset = at, .length = length, .flags = 99 };

	w->why = NULL;
	return vhu_shmem_unmap(&w->s, &m, &w->why);
}

static void window_mapping(void **state)
{
	unsigned int before = open_fds();
	struct window w;

	(void)state;
	window_open(&w);
	assert_int_equal(vhu_shmem_read(&w.s, 0, 8), UINT64_MAX);
	assert_int_equal(map(&w, 4, 3 * PAGE, PAGE, 2 * PAGE, VHU_MMAP_WRITABLE), 0);
	/* Region 4 begins behind region 1. */
	assert_int_equal(vhu_shmem_read(&w.s, 3 * PAGE + 16, 8), 3 * PAGE + 16);
	assert_int_equal(vhu_shmem_read(&w.s, 5 * PAGE - 8, 8), 5 * PAGE - 8);
	assert_int_equal(vhu_shmem_read(&w.s, 2 * PAGE, 4), UINT64_MAX);
	assert_int_equal(vhu_shmem_read(&w.s, 5 * PAGE, 1), UINT64_MAX);
	vhu_shmem_write(&w.s, 3 * PAGE + 16, 2, 0xabcd);
	assert_int_equal(vhu_shmem_read(&w.s, 3 * PAGE + 16, 2), 0xabcd);
	vhu_shmem_write(&w.s, 2 * PAGE, 8, 1);
	assert_int_equal(vhu_shmem_read(&w.s, 2 * PAGE, 8), UINT64_MAX);
	/* Read-only: a write is dropped. */
	assert_int_equal(map(&w, 1, 0, 0, PAGE, 0), 0);
	vhu_shmem_write(&w.s, 8, 8, 1);
	assert_int_equal(vhu_shmem_read(&w.s, 8, 8), 8);
	/* Beyond the window, and across its end. */
	assert_int_equal(vhu_shmem_read(&w.s, 6 * PAGE, 1), UINT64_MAX);
	assert_int_equal(vhu_shmem_read(&w.s, 6 * PAGE - 4, 8), UINT64_MAX);
	assert_int_equal(vhu_shmem_read(&w.s, UINT64_MAX - 3, 8), UINT64_MAX);
	assert_int_equal(w.s.nr_maps, 2);
	assert_int_equal(unmap(&w, 4, PAGE, 2 * PAGE), 0);
	assert_int_equal(vhu_shmem_read(&w.s, 3 * PAGE + 16, 8), UINT64_MAX);
	assert_int_equal(vhu_shmem_read(&w.s, 8, 8), 8);
	vhu_shmem_unmap_all(&w.s);
	assert_int_equal(w.s.nr_maps, 0);
	assert_int_equal(vhu_shmem_read(&w.s, 8, 8), UINT64_MAX);
	window_close(&w);
	assert_int_equal(open_fds(), before);
}

/* Nothing of this changes anything. */
static void window_refuses(void **state)
{
	static const struct {
		uint8_t id;
		uint64_t from, at, length, flags;
	} bad[] = {
		{ 4, 0, PAGE, PAGE, 1 },
		{ 4, 0, 0, 2 * PAGE, 1 },
		{ 4, 0, 0, 4 * PAGE, 1 },
		{ 4, 0, PAGE, 2 * PAGE, 1 },
		{ 0, 0, 0, PAGE, 1 },
		{ 2, 0, 0, PAGE, 1 },
		{ 255, 0, 0, PAGE, 1 },
		{ 4, 0, 4 * PAGE, PAGE, 1 },
		{ 4, 0, 3 * PAGE, 2 * PAGE, 1 },
		{ 4, 0, 0ULL - PAGE, PAGE, 1 },
		{ 4, 0, 0ULL - PAGE, 2 * PAGE, 1 },
		{ 4, 0, 2 * PAGE, 0ULL - PAGE, 1 },
		{ 4, 0, 2 * PAGE, 0, 1 },
		{ 4, 0, 2 * PAGE, 100, 1 },
		{ 4, 0, 2 * PAGE + 512, PAGE, 1 },
		{ 4, 512, 2 * PAGE, PAGE, 1 },
		{ 4, 8 * PAGE, 2 * PAGE, PAGE, 1 },
		{ 4, 7 * PAGE, 2 * PAGE, 2 * PAGE, 1 },
		{ 4, 0ULL - PAGE, 2 * PAGE, PAGE, 1 },
		{ 4, 0, 2 * PAGE, PAGE, 2 },
		{ 4, 0, 2 * PAGE, PAGE, 1ULL << 63 },
	};
	static const struct {
		uint8_t id;
		uint64_t at, length;
	} not_mapped[] = {
		{ 4, 0, PAGE },	       { 4, PAGE, 2 * PAGE },	 { 4, 0, 2 * PAGE },	   { 4, PAGE, 0 },
		{ 4, 2 * PAGE, PAGE }, { 1, PAGE, PAGE },	 { 3, PAGE, PAGE },	   { 4, PAGE + 8, PAGE },
		{ 4, PAGE, PAGE - 1 }, { 4, PAGE, 0ULL - PAGE }, { 4, 0ULL - PAGE, PAGE },
	};
	struct window w;

	(void)state;
	window_open(&w);
	assert_int_equal(map(&w, 4, 5 * PAGE, PAGE, PAGE, 1), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_true(map(&w, bad[i].id, bad[i].from, bad[i].at, bad[i].length, bad[i].flags) < 0);
		assert_non_null(w.why);
		assert_int_equal(w.s.nr_maps, 1);
	}
	for (size_t i = 0; i < sizeof(not_mapped) / sizeof(not_mapped[0]); i++) {
		assert_true(unmap(&w, not_mapped[i].id, not_mapped[i].at, not_mapped[i].length) < 0);
		assert_non_null(w.why);
		assert_int_equal(w.s.nr_maps, 1);
	}
	for (uint64_t page = 0; page < 6; page++)
		assert_int_equal(vhu_shmem_read(&w.s, page * PAGE, 8), page == 3 ? 5 * PAGE : UINT64_MAX);
	assert_int_equal(unmap(&w, 4, PAGE, PAGE), 0);
	assert_true(unmap(&w, 4, PAGE, PAGE) < 0);
	window_close(&w);
}

static void window_files(void **state)
{
	const struct vhu_mmap m = { .shmid = 1, .length = PAGE, .flags = VHU_MMAP_WRITABLE };
	int fds[6] = { open("/dev/null", O_RDWR),	  open("/dev/zero", O_RDWR),	   eventfd(0, 0),
		       open("/", O_RDONLY | O_DIRECTORY), socket(AF_UNIX, SOCK_STREAM, 0), -1 };
	struct window w;
	int sealed;

	(void)state;
	window_open(&w);
	for (unsigned int i = 0; i < 6; i++) {
		assert_true(vhu_shmem_map(&w.s, &m, fds[i], &w.why) < 0);
		assert_int_equal(w.s.nr_maps, 0);
		close(fds[i]);
	}
	/* A file that may only be read can be mapped as such. */
	assert_int_equal(fcntl(w.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
	assert_true(map(&w, 1, 0, 0, PAGE, 1) < 0);
	assert_int_equal(vhu_shmem_read(&w.s, 0, 8), UINT64_MAX);
	assert_int_equal(map(&w, 1, 0, 0, PAGE, 0), 0);
	assert_int_equal(vhu_shmem_read(&w.s, 8, 8), 8);
	/* It becomes shorter: what was there is nothing, and nobody dies. */
	assert_int_equal(map(&w, 4, 6 * PAGE, 0, 2 * PAGE, 0), 0);
	assert_int_equal(ftruncate(w.fd, 7 * PAGE), 0);
	assert_int_equal(vhu_shmem_read(&w.s, 2 * PAGE, 8), 6 * PAGE);
	assert_int_equal(vhu_shmem_read(&w.s, 3 * PAGE, 8), UINT64_MAX);
	vhu_shmem_write(&w.s, 3 * PAGE, 8, 1);
	assert_int_equal(unmap(&w, 4, 0, 2 * PAGE), 0);
	sealed = memfd_create("empty", 0);
	assert_true(vhu_shmem_map(&w.s, &m, sealed, &w.why) < 0);
	close(sealed);
	window_close(&w);
}

/* 10,000 times each, and no area of the process is left over. */
static void window_again(void **state)
{
	struct window w;
	uint64_t seed = 1;
	bool mapped[6] = { false };

	(void)state;
	window_open(&w);
	for (unsigned int i = 0; i < 10000; i++) {
		assert_int_equal(map(&w, 1, PAGE * (i % 8), 0, PAGE, i % 2), 0);
		assert_int_equal(vhu_shmem_read(&w.s, 8, 8), PAGE * (i % 8) + 8);
		assert_int_equal(unmap(&w, 1, 0, PAGE), 0);
	}
	/* At random, beside a model. */
	for (unsigned int i = 0; i < 10000; i++) {
		unsigned int at, n, any = 0;
		int ret;

		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		at = seed >> 40 & 3;
		n = 1 + (seed >> 50) % (4 - at);
		for (unsigned int p = 0; p < n; p++)
			any += mapped[2 + at + p];
		if (seed >> 60 & 1) {
			ret = map(&w, 4, PAGE * at, PAGE * at, PAGE * n, 1);
			assert_int_equal(ret == 0, any == 0);
			for (unsigned int p = 0; p < n && !ret; p++)
				mapped[2 + at + p] = true;
		} else {
			ret = unmap(&w, 4, PAGE * at, PAGE * n);
			assert_true(ret || any == n);
			for (unsigned int p = 0; p < n && !ret; p++)
				mapped[2 + at + p] = false;
		}
		for (unsigned int p = 0; p < 6; p++)
			assert_int_equal(vhu_shmem_read(&w.s, PAGE * p, 8) != UINT64_MAX, mapped[p]);
		if (i % 1000 == 999) {
			vhu_shmem_unmap_all(&w.s);
			memset(mapped, 0, sizeof(mapped));
		}
	}
	window_close(&w);
}

static void window_many(void **state)
{
	struct vhu_shmem_config config = { .count = 1, .sizes = { (VHU_MAPS_MAX + 1ULL) * PAGE } };
	struct vhu_mmap m = { .length = PAGE };
	struct vhu_shmem s = { 0 };
	int fd = memfd_create("many", MFD_CLOEXEC);
	const char *why = NULL;

	(void)state;
	assert_int_equal(ftruncate(fd, PAGE), 0);
	assert_int_equal(vhu_shmem_check(&config, &s, &why), 0);
	assert_int_equal(vhu_shmem_reserve(&s), 0);
	/* From the end to the start, so that each is put before all others. */
	for (unsigned int i = VHU_MAPS_MAX; i > 0; i--) {
		m.shm_offset = (uint64_t)i * PAGE;
		assert_int_equal(vhu_shmem_map(&s, &m, fd, &why), 0);
	}
	m.shm_offset = 0;
	assert_int_equal(vhu_shmem_map(&s, &m, fd, &why), -ENOSPC);
	m.shm_offset = 77 * PAGE;
	assert_int_equal(vhu_shmem_unmap(&s, &m, &why), 0);
	m.shm_offset = 0;
	assert_int_equal(vhu_shmem_map(&s, &m, fd, &why), 0);
	assert_int_equal(vhu_shmem_map(&s, &m, fd, &why), -EEXIST);
	vhu_shmem_destroy(&s);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shmem_sizes),	cmocka_unit_test(window_mapping), cmocka_unit_test(window_refuses),
		cmocka_unit_test(window_files), cmocka_unit_test(window_again),	  cmocka_unit_test(window_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
