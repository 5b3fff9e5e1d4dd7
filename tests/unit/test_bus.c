/* SPDX-License-Identifier: MIT */
/* Address-space dispatch: order, overlap, caches, and readers while regions move. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/bus.h"

#define ROUNDS 20000

struct answer {
	uint64_t value;
	uint64_t last_offset, last_value;
	unsigned int last_size, writes;
};

static uint64_t answer_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct answer *a = opaque;

	(void)size;
	return a->value + offset;
}

static void answer_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct answer *a = opaque;

	a->last_offset = offset;
	a->last_size = size;
	a->last_value = value;
	a->writes++;
}

static const struct io_ops ops = { answer_read, answer_write };
static const struct io_ops silent = { NULL, NULL };

static int setup(void **state)
{
	static struct bus bus;

	*state = &bus;
	return bus_init(&bus, "test", 0x10000);
}

static int teardown(void **state)
{
	bus_destroy(*state);
	return 0;
}

static uint64_t read_at(struct bus *bus, struct bus_cache *cache, uint64_t addr, unsigned int size)
{
	uint64_t value = 0;

	bus_read(bus, cache, addr, &value, size);
	return value;
}

static void refuses_overlap(void **state)
{
	struct bus *bus = *state;
	struct region a = { .name = "a", .base = 0x100, .length = 0x10, .ops = &ops };
	struct region inside = { .name = "b", .base = 0x108, .length = 1, .ops = &ops };
	struct region around = { .name = "c", .base = 0xf0, .length = 0x100, .ops = &ops };
	struct region touching = { .name = "d", .base = 0x110, .length = 0x10, .ops = &ops };
	struct region before = { .name = "e", .base = 0xf0, .length = 0x10, .ops = &ops };

	assert_int_equal(bus_add(bus, &a), 0);
	assert_int_equal(bus_add(bus, &inside), -EEXIST);
	assert_int_equal(bus_add(bus, &around), -EEXIST);
	assert_int_equal(bus_add(bus, &a), -EEXIST);
	assert_int_equal(bus_add(bus, &touching), 0);
	assert_int_equal(bus_add(bus, &before), 0);
}

static void refuses_what_does_not_fit(void **state)
{
	struct bus *bus = *state;
	struct region empty = { .name = "empty", .base = 1, .length = 0, .ops = &ops };
	struct region beyond = { .name = "beyond", .base = 0xffff, .length = 2, .ops = &ops };
	struct region wraps = { .name = "wraps", .base = 0x1000, .length = UINT64_MAX, .ops = &ops };
	struct region last = { .name = "last", .base = 0xffff, .length = 1, .ops = &ops };

	assert_int_equal(bus_add(bus, &empty), -EINVAL);
	assert_int_equal(bus_add(bus, &beyond), -EINVAL);
	assert_int_equal(bus_add(bus, &wraps), -EINVAL);
	assert_int_equal(bus_add(bus, &last), 0);
	assert_int_equal(bus_remove(bus, &beyond), -ENOENT);
}

static void unowned_reads_all_ones(void **state)
{
	struct bus *bus = *state;
	struct bus_cache cache = { 0 };
	struct answer a = { .value = 0x11 };
	struct region r = { .name = "r", .base = 0x10, .length = 4, .ops = &ops, .opaque = &a };
	struct region mute = { .name = "mute", .base = 0x20, .length = 4, .ops = &silent };
	uint32_t value = 5;

	assert_int_equal(bus_add(bus, &r), 0);
	assert_int_equal(bus_add(bus, &mute), 0);
	assert_int_equal(read_at(bus, &cache, 0x0f, 1), 0xff);
	assert_int_equal(read_at(bus, &cache, 0x10, 1), 0x11);
	assert_int_equal(read_at(bus, &cache, 0x13, 1), 0x14);
	assert_int_equal(read_at(bus, &cache, 0x14, 4), 0xffffffff);
	assert_int_equal(read_at(bus, &cache, 0x12, 4), 0xffffffff); /* leaves its region */
	assert_int_equal(read_at(bus, &cache, 0x20, 2), 0xffff);
	assert_null(bus_write(bus, &cache, 0x12, &value, 4));
	assert_int_equal(a.writes, 0);
	assert_ptr_equal(bus_write(bus, &cache, 0x20, &value, 4), &mute);
}

static void passes_offset_size_and_value(void **state)
{
	struct bus *bus = *state;
	struct bus_cache cache = { 0 };
	struct answer a = { 0 };
	struct region r = { .name = "r", .base = 0x40, .length = 0x10, .ops = &ops, .opaque = &a };
	const uint8_t bytes[8] = { 0x78, 0x56, 0x34, 0x12, 0xff, 0xff, 0xff, 0xff };

	assert_int_equal(bus_add(bus, &r), 0);
	assert_ptr_equal(bus_write(bus, &cache, 0x44, bytes, 4), &r);
	assert_int_equal(a.last_offset, 4);
	assert_int_equal(a.last_size, 4);
	assert_int_equal(a.last_value, 0x12345678);
	assert_ptr_equal(bus_write(bus, &cache, 0x44, bytes, 2), &r);
	assert_int_equal(a.last_value, 0x5678);
}

static void cache_notices_changes(void **state)
{
	struct bus *bus = *state;
	struct bus_cache cache = { 0 };
	struct answer a = { .value = 1 }, b = { .value = 2 };
	struct region ra = { .name = "a", .base = 0x10, .length = 1, .ops = &ops, .opaque = &a };
	struct region rb = { .name = "b", .base = 0x10, .length = 1, .ops = &ops, .opaque = &b };

	assert_int_equal(bus_add(bus, &ra), 0);
	assert_int_equal(read_at(bus, &cache, 0x10, 1), 1);
	assert_int_equal(bus_remove(bus, &ra), 0);
	assert_int_equal(read_at(bus, &cache, 0x10, 1), 0xff);
	assert_int_equal(bus_add(bus, &rb), 0);
	assert_int_equal(read_at(bus, &cache, 0x10, 1), 2);
}

static void a_region_that_comes_back_keeps_its_id(void **state)
{
	struct bus *bus = *state;
	struct region a = { .name = "a", .base = 0x10, .length = 1, .ops = &ops };
	struct region b = { .name = "b", .base = 0x20, .length = 1, .ops = &ops };

	for (unsigned int i = 0; i < 2 * BUS_MAX_REGIONS; i++) {
		assert_int_equal(bus_add(bus, &a), 0);
		assert_int_equal(bus_add(bus, &b), 0);
		assert_int_equal(a.id, 0);
		assert_int_equal(b.id, 1);
		assert_int_equal(bus_remove(bus, &a), 0);
		assert_int_equal(bus_remove(bus, &b), 0);
	}
}

static void full_bus_is_an_error(void **state)
{
	struct bus *bus = *state;
	static struct region many[BUS_MAX_REGIONS + 1];

	for (unsigned int i = 0; i < BUS_MAX_REGIONS; i++) {
		many[i] = (struct region){ .name = "x", .base = i * 2, .length = 1, .ops = &ops };
		assert_int_equal(bus_add(bus, &many[i]), 0);
	}
	many[BUS_MAX_REGIONS] = (struct region){ .name = "x", .base = 0x8000, .length = 1, .ops = &ops };
	assert_int_equal(bus_add(bus, &many[BUS_MAX_REGIONS]), -ENOSPC);
}

struct mover {
	struct bus *bus;
	struct region *moving;
	_Atomic bool done;
};

static void *move(void *arg)
{
	struct mover *m = arg;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		if (bus_remove(m->bus, m->moving) == 0) {
			m->moving->base = i % 2 ? 0x200 : 0x800;
			bus_add(m->bus, m->moving);
		}
	}
	atomic_store(&m->done, true);
	return NULL;
}

/* A region that never moves must be found whatever happens around it; the moving one answers as itself or not at all.
 */
static void readers_are_right_while_regions_move(void **state)
{
	struct bus *bus = *state;
	struct bus_cache cache = { 0 };
	struct answer fixed = { .value = 0x1000 }, moved = { .value = 0x2000 };
	struct region stays = { .name = "stays", .base = 0x400, .length = 0x10, .ops = &ops, .opaque = &fixed };
	struct region moves = { .name = "moves", .base = 0x200, .length = 0x10, .ops = &ops, .opaque = &moved };
	struct mover m = { .bus = bus, .moving = &moves };
	pthread_t thread;

	assert_int_equal(bus_add(bus, &stays), 0);
	assert_int_equal(bus_add(bus, &moves), 0);
	assert_int_equal(pthread_create(&thread, NULL, move, &m), 0);
	while (!atomic_load(&m.done)) {
		assert_int_equal(read_at(bus, &cache, 0x404, 2), 0x1004);
		for (uint64_t at = 0x200; at <= 0x800; at += 0x600) {
			uint64_t value = read_at(bus, &cache, at + 3, 2);

			assert_true(value == 0xffff || value == 0x2003);
		}
	}
	pthread_join(thread, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(refuses_overlap, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_what_does_not_fit, setup, teardown),
		cmocka_unit_test_setup_teardown(unowned_reads_all_ones, setup, teardown),
		cmocka_unit_test_setup_teardown(passes_offset_size_and_value, setup, teardown),
		cmocka_unit_test_setup_teardown(cache_notices_changes, setup, teardown),
		cmocka_unit_test_setup_teardown(a_region_that_comes_back_keeps_its_id, setup, teardown),
		cmocka_unit_test_setup_teardown(full_bus_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(readers_are_right_while_regions_move, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
