/* SPDX-License-Identifier: MIT */
/*
 * The virtio PCI transport: interrupts and notifications, its registers by way of configuration space, rings outside of
 * memory, and anything written anywhere.
 */
#include "virtio_fake.h"

static void msix(bool on)
{
	unsigned int at = pci_rd(PCI_CAPABILITIES, 1);

	while (at && pci_rd(at, 1) != PCI_CAP_MSIX)
		at = pci_rd(at + 1, 1);
	assert_true(at);
	pci_wr(at + 2, 2, on ? 0x8000 : 0);
}

static void interrupts(void **state)
{
	struct virtio *v = &fake->v;
	int own;

	(void)state;
	go(OFFERED);
	/* INTx: the status register, and a descriptor of ours for a peer, which the loop polls. */
	virtio_interrupt(v, 1);
	assert_true(fake->level);
	assert_int_equal(load(bar(0) + 0x1000, 1), 1);
	assert_false(fake->level);
	own = virtio_call_fd(v, 1);
	assert_int_equal(virtio_call_fd(v, 1), own);
	assert_int_equal(fake->nr_ops, 1);
	for (unsigned int i = 0; i < 3; i++) {
		assert_int_equal(turn(), 0);
		eventfd_write(own, 5);
		assert_int_equal(turn(), 1);
		assert_int_equal(load(bar(0) + 0x1000, 1), 1);
	}
	/* MSI-X: a vector's own. All queues that run are told, and the line does not stay up. */
	virtio_interrupt(v, 1);
	assert_true(fake->level);
	msix(true);
	assert_int_equal(fake->vectors, QUEUES);
	assert_false(fake->level);
	assert_int_equal(load(bar(0) + 0x1000, 1), 0);
	assert_int_equal(virtio_call_fd(v, 2), v->queues[2].call_fd); /* it has no vector */
	wr(SELECT, 2, 2);
	wr(VECTOR, 2, 2);
	assert_int_equal(fake->vectors, QUEUES + 1);
	assert_int_equal(virtio_call_fd(v, 2), msix_fd(&v->fn, 2));
	virtio_interrupt(v, 2);
	virtio_interrupt(v, 2);
	virtio_interrupt(v, 2);
	turn();
	assert_in_range(count_of(msix_fd(&v->fn, 2)), 1, 2);
	turn();
	/* None, one that does not exist. */
	virtio_interrupt(v, 0);
	virtio_interrupt_config(v);
	wr(VECTOR, 2, QUEUES + 1);
	assert_int_equal(rd(VECTOR, 2), VIRTIO_NO_VECTOR);
	wr(CONFIG_VECTOR, 2, 0xfffe);
	assert_int_equal(rd(CONFIG_VECTOR, 2), VIRTIO_NO_VECTOR);
	wr(CONFIG_VECTOR, 2, QUEUES);
	virtio_interrupt_config(v);
	turn();
	assert_int_equal(count_of(msix_fd(&v->fn, QUEUES)), 1);
	assert_false(fake->level);
	assert_int_equal(load(bar(0) + 0x1000, 1), 0);
	/* Off again: also what the configuration's vector was told of, once more. */
	turn();
	msix(false);
	msix(false);
	assert_int_equal(fake->vectors, 2 * QUEUES + 2);
	assert_int_equal(virtio_call_fd(v, 2), v->queues[2].call_fd);
	turn();
	assert_true(fake->level);
	assert_int_equal(load(bar(0) + 0x1000, 1), 2);
	assert_false(fake->level);
	/* Of a device that does not run nobody is told. */
	wr(STATUS, 1, 0);
	msix(true);
	assert_int_equal(fake->vectors, 2 * QUEUES + 2);
}

static void notifications(void **state)
{
	uint64_t bell = bar(0) + 0x3000;
	struct virtio *v = &fake->v;

	(void)state;
	go(OFFERED);
	/* By the address alone; any width; beyond the last, or between two, there is nothing. */
	store(bell + 4, 2, 99);
	store(bell + 8, 4, 0);
	store(bell + 2, 2, 0);
	store(bell + 4 * QUEUES, 2, 0);
	turn();
	turn();
	assert_int_equal(count_of(v->queues[0].kick_fd), 0);
	assert_int_equal(count_of(v->queues[1].kick_fd), 1);
	assert_int_equal(count_of(v->queues[2].kick_fd), 1);
	assert_int_equal(load(bell, 2), 0xffff);
	/* For who asks: also what came before. */
	eventfd_write(v->queues[0].kick_fd, 3);
	virtio_watch_kicks(v, 0);
	virtio_watch_kicks(v, 0);
	assert_int_equal(fake->nr_ops, 1);
	turn();
	assert_int_equal(fake->notified[0], 1);
	turn();
	assert_int_equal(fake->notified[0], 1);
	virtio_kick(v, 0);
	turn();
	turn();
	assert_int_equal(fake->notified[0], 2);
}

/* 4.1.4.9: BAR0 through configuration space. */
static void window(void **state)
{
	unsigned int at = pci_rd(PCI_CAPABILITIES, 1);

	(void)state;
	while (at && (pci_rd(at, 1) != 9 || pci_rd(at + 3, 1) != 5))
		at = pci_rd(at + 1, 1);
	assert_true(at);
	pci_wr(at + 8, 4, STATUS);
	pci_wr(at + 12, 4, 1);
	pci_wr(at + 16, 4, 1);
	assert_int_equal(pci_rd(at + 16, 4), 1);
	assert_int_equal(rd(STATUS, 1), 1);
	pci_wr(at + 8, 4, NUM_QUEUES);
	pci_wr(at + 12, 4, 2);
	assert_int_equal(pci_rd(at + 16, 2), QUEUES);
	/* Another BAR, a length that is none, an offset that is not aligned or outside: nothing happens. */
	pci_wr(at + 8, 4, STATUS);
	pci_wr(at + 12, 4, 1);
	pci_wr(at + 4, 1, 1);
	pci_wr(at + 16, 1, 2);
	pci_wr(at + 4, 1, 0);
	pci_wr(at + 12, 4, 3);
	pci_wr(at + 16, 4, 2);
	pci_wr(at + 12, 4, 0);
	pci_wr(at + 16, 4, 2);
	pci_wr(at + 12, 4, 0xffffffff);
	pci_wr(at + 16, 4, 2);
	pci_wr(at + 12, 4, 4);
	pci_wr(at + 8, 4, 0xfffffffc);
	pci_wr(at + 16, 4, 2);
	pci_rd(at + 16, 4);
	pci_wr(at + 8, 4, 0x3ffe);
	pci_wr(at + 16, 4, 2);
	assert_int_equal(rd(STATUS, 1), 1);
}

/* Each of the three parts has to be guest memory, all of it, and aligned. */
static void rings(void **state)
{
	static const struct {
		struct virtio_queue_setup s;
		bool packed;
		int ret;
	} cases[] = {
		{ { 16, 0x1000, 0x2000, 0x3000 }, false, 0 },
		{ { 16, RAM_SIZE - 256, 0x2000, 0x3000 }, false, 0 },
		{ { 17, RAM_SIZE - 256, 0x2000, 0x3000 }, true, -EFAULT },
		{ { 16, RAM_SIZE - 240, 0x2000, 0x3000 }, false, -EFAULT },
		{ { 16, 0x1000, RAM_SIZE - 38, 0x3000 }, false, 0 },
		{ { 16, 0x1000, RAM_SIZE - 36, 0x3000 }, false, -EFAULT },
		{ { 16, 0x1000, 0x2000, RAM_SIZE - 136 }, false, 0 },
		{ { 16, 0x1000, 0x2000, RAM_SIZE - 132 }, false, -EFAULT },
		{ { 16, 0x1008, 0x2000, 0x3000 }, false, -EFAULT },
		{ { 16, 0x1000, 0x2001, 0x3000 }, false, -EFAULT },
		{ { 16, 0x1000, 0x2000, 0x3002 }, false, -EFAULT },
		{ { 16, UINT64_MAX & ~15ULL, 0x2000, 0x3000 }, false, -EFAULT },
		{ { 16, 0x1000, UINT64_MAX - 1, 0x3000 }, false, -EFAULT },
		{ { 16, 0x1000, 0x2000, UINT64_MAX & ~3ULL }, false, -EFAULT },
		{ { 0, 0x1000, 0x2000, 0x3000 }, false, -EFAULT },
		{ { 16, 0x1000, RAM_SIZE - 4, RAM_SIZE - 4 }, true, 0 },
		{ { 16, 0x1000, 0x2002, 0x3000 }, true, -EFAULT },
		{ { 16, 0x1000, RAM_SIZE, 0x3000 }, true, -EFAULT },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(virtio_check_ring(&fake->vm.memory, &cases[i].s, cases[i].packed), cases[i].ret);
}

/* Anything written anywhere: no access is out of bounds, and a reset makes it all good again. */
static void random_writes(void **state)
{
	uint64_t seed = 88172645463325252ULL;

	(void)state;
	for (unsigned int i = 0; i < 200000; i++) {
		unsigned int size, reg;

		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		size = 1u << (seed >> 60 & 3);
		reg = (unsigned int)(seed >> 40 & (seed >> 59 & 1 ? 0x3fff : 0x3f));
		fake->keep = seed >> 58 & 1;
		if (seed >> 57 & 1)
			wr(reg, size, seed >> 8 & (seed >> 56 & 1 ? 15 : UINT64_MAX));
		else
			rd(reg, size);
		turn();
		if (i % 7 == 0)
			virtio_queue_reset_done(&fake->v, (unsigned int)(seed >> 33) % QUEUES);
		if (i % 13 == 0 && !virtio_status(&fake->v))
			virtio_reset_done(&fake->v);
	}
	fake->keep = false;
	virtio_reset_done(&fake->v);
	go(OFFERED);
	assert_int_equal(rd(STATUS, 1), 15);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(interrupts, setup, teardown),
		cmocka_unit_test_setup_teardown(notifications, setup, teardown),
		cmocka_unit_test_setup_teardown(window, setup, teardown),
		cmocka_unit_test_setup_teardown(rings, setup, teardown),
		cmocka_unit_test_setup_teardown(random_writes, setup, teardown),
	};

	return cmocka_run_group_tests_name("virtio_access", tests, NULL, NULL);
}
