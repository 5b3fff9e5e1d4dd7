/* SPDX-License-Identifier: MIT */
/* The virtio PCI transport: what it shows of itself, features, queues, resets and configuration. */
#include "virtio_fake.h"

static void capabilities(void **state)
{
	static const struct {
		uint8_t type, length, bar;
		uint64_t offset, size;
	} wanted[] = {
		{ 1, 16, 0, 0, 64 },
		{ 2, 20, 0, 0x3000, 4 * QUEUES },
		{ 3, 16, 0, 0x1000, 1 },
		{ 4, 16, 0, 0x2000, 12 },
		{ 5, 20, 0, 0, 0 },
		{ 8, 24, 4, 0, 0x3000 },
		{ 8, 24, 4, 0x3000, 0x5123456000ULL },
	};
	unsigned int at = pci_rd(PCI_CAPABILITIES, 1), n = 0, shm_seen = 0;

	(void)state;
	assert_int_equal(pci_rd(0, 4), 0x107c1af4);
	assert_int_equal(pci_rd(8, 4), 0xff000001);
	for (; at; at = pci_rd(at + 1, 1)) {
		uint64_t offset = pci_rd(at + 8, 4), size = pci_rd(at + 12, 4);

		if (pci_rd(at, 1) != 9)
			continue;
		assert_true(n < sizeof(wanted) / sizeof(wanted[0]));
		if (pci_rd(at + 3, 1) == 8) {
			offset |= (uint64_t)pci_rd(at + 16, 4) << 32;
			size |= (uint64_t)pci_rd(at + 20, 4) << 32;
			assert_int_equal(pci_rd(at + 5, 1), shm[shm_seen++].id);
		}
		if (pci_rd(at + 3, 1) == 2)
			assert_int_equal(pci_rd(at + 16, 4), 4);
		assert_int_equal(pci_rd(at + 3, 1), wanted[n].type);
		assert_int_equal(pci_rd(at + 2, 1), wanted[n].length);
		assert_int_equal(pci_rd(at + 4, 1), wanted[n].bar);
		assert_int_equal(offset, wanted[n].offset);
		assert_int_equal(size, wanted[n].size);
		n++;
	}
	assert_int_equal(n, sizeof(wanted) / sizeof(wanted[0]));
}

static void impossible(void **state)
{
	static const struct virtio_shm many[4] = { { 0, 0, 0x1000 } };
	struct virtio_config c = config;

	(void)state;
	c.id = 0;
	assert_int_equal(virtio_init(&fake->v, &fake->vm, &class, &c), -EINVAL);
	c.id = 64;
	assert_int_equal(virtio_init(&fake->v, &fake->vm, &class, &c), -EINVAL);
	c = config;
	c.nr_queues = 0;
	assert_int_equal(virtio_init(&fake->v, &fake->vm, &class, &c), -EINVAL);
	c.nr_queues = 257;
	assert_int_equal(virtio_init(&fake->v, &fake->vm, &class, &c), -EINVAL);
	c = config;
	c.config_size = 257;
	assert_int_equal(virtio_init(&fake->v, &fake->vm, &class, &c), -EINVAL);
	c = config;
	c.shm = many;
	c.nr_shm = 4;
	assert_int_equal(virtio_init(&fake->v, &fake->vm, &class, &c), -EINVAL);
	/* All that there is room for. */
	c.nr_shm = 3;
	c.nr_queues = VIRTIO_QUEUES_MAX;
	c.config_size = VIRTIO_CONFIG_MAX;
	memset(&fake->v, 0, sizeof(fake->v));
	assert_int_equal(virtio_init(&fake->v, &fake->vm, &class, &c), 0);
}

static void features(void **state)
{
	(void)state;
	wr(DEVICE_SELECT, 4, 0);
	assert_int_equal(rd(DEVICE_FEATURE, 4), (uint32_t)OFFERED);
	wr(DEVICE_SELECT, 4, 1);
	assert_int_equal(rd(DEVICE_FEATURE, 4), OFFERED >> 32);
	wr(DEVICE_SELECT, 4, 2);
	assert_int_equal(rd(DEVICE_FEATURE, 4), 0);
	/* Without VERSION_1, and with what is not offered, there is no FEATURES_OK, and so no DRIVER_OK. */
	negotiate(1 << 5);
	assert_int_equal(rd(STATUS, 1), 3);
	wr(STATUS, 1, 15);
	assert_int_equal(rd(STATUS, 1), 3);
	assert_int_equal(fake->starts, 0);
	negotiate(OFFERED | 1);
	assert_int_equal(rd(STATUS, 1), 3);
	negotiate(OFFERED);
	assert_int_equal(rd(STATUS, 1), 11);
	/* They stay as they are from now on. */
	wr(DRIVER_SELECT, 4, 0);
	wr(DRIVER_FEATURE, 4, 0);
	assert_int_equal(virtio_accepted(&fake->v), OFFERED);
	assert_int_equal(rd(DRIVER_FEATURE, 4), (uint32_t)OFFERED);
	wr(STATUS, 1, 15);
	assert_int_equal(fake->starts, 1);
	/* Bits are never taken back but by a reset. */
	wr(STATUS, 1, 1);
	assert_int_equal(rd(STATUS, 1), 15);
	wr(STATUS, 1, 15);
	assert_int_equal(fake->starts, 1);
	fake->resets = 0;
	wr(STATUS, 1, 0);
	assert_int_equal(rd(STATUS, 1), 0);
	assert_int_equal(fake->resets, 1);
	assert_int_equal(virtio_accepted(&fake->v), 0);
	/* There is nothing to reset any more. */
	wr(STATUS, 1, 0);
	assert_int_equal(fake->resets, 1);
}

static void widths(void **state)
{
	static const struct {
		uint8_t reg, size;
		bool good;
	} cases[] = {
		{ STATUS, 1, true },	     { STATUS, 2, false },	 { STATUS, 4, false },
		{ GENERATION, 1, true },     { GENERATION, 2, false },	 { NUM_QUEUES, 2, true },
		{ NUM_QUEUES, 1, false },    { NUM_QUEUES, 4, false },	 { CONFIG_VECTOR, 2, true },
		{ CONFIG_VECTOR, 4, false }, { DEVICE_SELECT, 4, true }, { DEVICE_SELECT, 8, false },
		{ DEVICE_SELECT, 1, false }, { DESC, 4, true },		 { DESC + 4, 4, true },
		{ DESC, 8, true },	     { DESC + 4, 8, false },	 { DESC, 2, false },
		{ DEVICE + 4, 4, true },     { DEVICE + 4, 8, false },	 { DESC + 2, 4, false },
		{ RESET, 2, true },	     { RESET + 2, 2, false },	 { RESET + 2, 4, false },
		{ NOTIFY_DATA, 2, true },    { NOTIFY_DATA, 4, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t ones = cases[i].size == 8 ? UINT64_MAX : (1ULL << 8 * cases[i].size) - 1;
		uint64_t value = rd(cases[i].reg, cases[i].size);

		assert_int_equal(value == ones, !cases[i].good || cases[i].reg == CONFIG_VECTOR);
	}
	/* A write of another width does nothing. */
	wr(STATUS, 4, 1);
	assert_int_equal(rd(STATUS, 1), 0);
	wr(SELECT, 4, 1);
	assert_int_equal(rd(SELECT, 2), 0);
}

static void queues(void **state)
{
	struct virtio_queue_setup s;

	(void)state;
	assert_int_equal(rd(NUM_QUEUES, 2), QUEUES);
	negotiate(OFFERED & ~VIRTIO_BIT(VIRTIO_F_RING_PACKED));
	for (unsigned int i = 0; i < QUEUES; i++) {
		wr(SELECT, 2, i);
		assert_int_equal(rd(SIZE, 2), QUEUE_MAX);
		assert_int_equal(rd(NOTIFY, 2), i);
		assert_int_equal(rd(VECTOR, 2), VIRTIO_NO_VECTOR);
		assert_int_equal(rd(ENABLE, 2), 0);
	}
	/* One that does not exist. */
	wr(SELECT, 2, QUEUES);
	assert_int_equal(rd(SIZE, 2), 0);
	wr(SIZE, 2, 8);
	wr(DESC, 8, 0x1000);
	wr(ENABLE, 2, 1);
	assert_int_equal(rd(ENABLE, 2), 0);
	assert_int_equal(rd(DESC, 8), 0);
	assert_int_equal(rd(VECTOR, 2), VIRTIO_NO_VECTOR);
	/* Sizes: a split ring's are powers of two. */
	wr(SELECT, 2, 1);
	for (unsigned int size = 0; size < 200; size++) {
		wr(SIZE, 2, QUEUE_MAX);
		wr(SIZE, 2, size);
		assert_int_equal(rd(SIZE, 2), size && size <= QUEUE_MAX && !(size & (size - 1)) ? size : QUEUE_MAX);
	}
	wr(DESC, 8, 0x123456789abcdef0);
	wr(DRIVER, 4, 0x11111111);
	wr(DRIVER + 4, 4, 0x22222222);
	assert_int_equal(rd(DESC + 4, 4), 0x12345678);
	assert_int_equal(rd(DRIVER, 8), 0x2222222211111111);
	wr(ENABLE, 2, 2);
	assert_int_equal(rd(ENABLE, 2), 0);
	assert_false(virtio_queue_enabled(&fake->v, 1, &s));
	wr(ENABLE, 2, 1);
	/* Not changed after that; and not disabled by writing 0. */
	wr(DESC, 8, 0);
	wr(SIZE, 2, 4);
	wr(ENABLE, 2, 0);
	assert_int_equal(rd(ENABLE, 2), 1);
	assert_true(virtio_queue_enabled(&fake->v, 1, &s));
	assert_int_equal(s.desc, 0x123456789abcdef0);
	assert_int_equal(s.size, QUEUE_MAX);
	/* Before DRIVER_OK the device hears of none, after it of each. */
	assert_int_equal(fake->queue_starts[1], 0);
	wr(STATUS, 1, 15);
	assert_int_equal(fake->starts, 1);
	set_queue(2, 8);
	assert_int_equal(fake->queue_starts[2], 1);
}

static void packed_sizes(void **state)
{
	(void)state;
	negotiate(OFFERED);
	wr(SELECT, 2, 0);
	for (unsigned int size = 1; size < 100; size++) {
		wr(SIZE, 2, QUEUE_MAX);
		wr(SIZE, 2, size);
		assert_int_equal(rd(SIZE, 2), size <= QUEUE_MAX ? size : QUEUE_MAX);
	}
}

static void queue_reset(void **state)
{
	struct virtio_queue_setup s;

	(void)state;
	go(OFFERED & ~VIRTIO_BIT(VIRTIO_F_RING_RESET));
	wr(SELECT, 2, 1);
	wr(RESET, 2, 1);
	assert_int_equal(fake->queue_resets[1], 0); /* not negotiated */
	go(OFFERED);
	wr(SELECT, 2, 1);
	wr(RESET, 2, 0);
	wr(RESET, 2, 2);
	assert_int_equal(fake->queue_resets[1], 0);
	fake->keep = true;
	wr(RESET, 2, 1);
	wr(RESET, 2, 1);
	assert_int_equal(fake->queue_resets[1], 1);
	assert_int_equal(rd(RESET, 2), 1);
	assert_false(virtio_queue_enabled(&fake->v, 1, &s));
	/* Until it is done the queue takes nothing. */
	wr(SIZE, 2, 8);
	wr(ENABLE, 2, 1);
	assert_int_equal(rd(SIZE, 2), 16);
	assert_int_equal(fake->queue_starts[1], 0);
	virtio_queue_reset_done(&fake->v, 1);
	assert_int_equal(rd(RESET, 2), 0);
	assert_int_equal(rd(ENABLE, 2), 0);
	assert_int_equal(rd(SIZE, 2), QUEUE_MAX);
	assert_int_equal(rd(VECTOR, 2), VIRTIO_NO_VECTOR);
	virtio_queue_reset_done(&fake->v, 1); /* one too many */
	set_queue(1, 8);
	assert_int_equal(fake->queue_starts[1], 1);
	virtio_queue_reset_done(&fake->v, 1);
	assert_true(virtio_queue_enabled(&fake->v, 1, &s));
	assert_int_equal(s.size, 8);
	/* One that is not enabled is reset at once. */
	fake->keep = false;
	wr(RESET, 2, 1);
	wr(SIZE, 2, 4);
	wr(RESET, 2, 1);
	assert_int_equal(fake->queue_resets[1], 2);
	assert_int_equal(rd(SIZE, 2), QUEUE_MAX);
}

static void device_reset(void **state)
{
	struct virtio_queue_setup s;

	(void)state;
	go(OFFERED);
	wr(CONFIG_VECTOR, 2, 1);
	fake->keep = true;
	wr(STATUS, 1, 0);
	assert_int_equal(fake->resets, 1);
	/* The driver polls, and what it does meanwhile counts for nothing. */
	assert_int_equal(rd(STATUS, 1), 15);
	assert_int_equal(virtio_status(&fake->v), 0);
	wr(STATUS, 1, 0);
	wr(STATUS, 1, 1);
	wr(SELECT, 2, 0);
	wr(VECTOR, 2, 1);
	virtio_needs_reset(&fake->v);
	assert_int_equal(fake->resets, 1);
	virtio_reset_done(&fake->v);
	assert_int_equal(rd(STATUS, 1), 0);
	assert_int_equal(rd(CONFIG_VECTOR, 2), VIRTIO_NO_VECTOR);
	for (unsigned int i = 0; i < QUEUES; i++)
		assert_false(virtio_queue_enabled(&fake->v, i, &s));
	/* The machine's: by the time it returns all is done. */
	go(OFFERED);
	for (struct device *dev = fake->vm.devices; dev; dev = dev->next)
		dev->class->reset(dev);
	assert_int_equal(fake->machine_resets, 1);
	assert_int_equal(rd(STATUS, 1), 0);
}

static void broken(void **state)
{
	(void)state;
	/* Nobody has the device: there is nobody to tell. */
	virtio_needs_reset(&fake->v);
	assert_int_equal(rd(STATUS, 1), 0);
	go(OFFERED);
	wr(STATUS, 1, 15);
	virtio_needs_reset(&fake->v);
	assert_int_equal(rd(STATUS, 1), 15 | VIRTIO_NEEDS_RESET);
	assert_true(fake->level);
	/* A configuration interrupt; reading lowers the line. */
	assert_int_equal(load(bar(0) + 0x1000, 1), 2);
	assert_false(fake->level);
	assert_int_equal(load(bar(0) + 0x1000, 1), 0);
	virtio_needs_reset(&fake->v);
	assert_false(fake->level);
	/* A driver cannot set the bit itself, nor clear it but by a reset. */
	wr(STATUS, 1, 15);
	assert_int_equal(rd(STATUS, 1), 15 | VIRTIO_NEEDS_RESET);
	wr(STATUS, 1, 0);
	wr(STATUS, 1, VIRTIO_NEEDS_RESET | 1);
	assert_int_equal(rd(STATUS, 1), 1);
}

static void configuration(void **state)
{
	uint64_t at = bar(0) + 0x2000;

	(void)state;
	assert_int_equal(rd(GENERATION, 1), 0);
	assert_true(virtio_config_set(&fake->v, "abcdefghijklmnop", 16));
	assert_int_equal(rd(GENERATION, 1), 1);
	assert_false(virtio_config_set(&fake->v, "abcdefghijkl", 12));
	assert_int_equal(rd(GENERATION, 1), 1);
	assert_int_equal(load(at, 8), 0x6867666564636261);
	assert_int_equal(load(at + 11, 1), 'l');
	assert_int_equal(load(at + 10, 2), 0x6c6b);
	assert_int_equal(fake->reads, 3);
	assert_int_equal(load(at + 11, 2), 0xffff);
	assert_int_equal(load(at + 12, 1), 0xff);
	store(at + 4, 4, 1);
	store(at + 11, 1, 1);
	assert_int_equal(fake->writes, 2);
	store(at + 11, 2, 1);
	store(at + 12, 1, 1);
	assert_int_equal(fake->writes, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(capabilities, setup, teardown),
		cmocka_unit_test_setup_teardown(impossible, setup_bare, teardown),
		cmocka_unit_test_setup_teardown(features, setup, teardown),
		cmocka_unit_test_setup_teardown(widths, setup, teardown),
		cmocka_unit_test_setup_teardown(queues, setup, teardown),
		cmocka_unit_test_setup_teardown(packed_sizes, setup, teardown),
		cmocka_unit_test_setup_teardown(queue_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(device_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(broken, setup, teardown),
		cmocka_unit_test_setup_teardown(configuration, setup, teardown),
	};

	return cmocka_run_group_tests_name("virtio", tests, NULL, NULL);
}
