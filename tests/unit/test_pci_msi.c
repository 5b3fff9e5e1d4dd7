/* SPDX-License-Identifier: MIT */
/* PCI interrupts: INTx, MSI and MSI-X, and the test device that raises them. */
#include "tests/unit/pci_fake.h"

static unsigned int find_capability(unsigned int devfn, uint8_t id)
{
	unsigned int offset = rd(devfn, PCI_CAPABILITIES, 1);

	for (int i = 0; offset && i < 48; i++) {
		if (rd(devfn, offset, 1) == id)
			return offset;
		offset = rd(devfn, offset + 1, 1);
	}
	return 0;
}

static void intx(void **state)
{
	struct pci_function *a = plain(PCI_DEVFN(1, 0), "a"), *b = plain(PCI_DEVFN(9, 0), "b");
	struct pci_function *c = plain(PCI_DEVFN(2, 0), "c"), *none = plain(PCI_DEVFN(1, 1), "none");

	(void)state;
	pci_set_pin(a, 1);
	pci_set_pin(b, 1);
	pci_set_pin(c, 3);
	assert_int_equal(pci_intx_gsi(1, 0), 13);
	assert_int_equal(rd(a->devfn, PCI_INTERRUPT_LINE, 2), 0x010d);
	assert_int_equal(rd(b->devfn, PCI_INTERRUPT_LINE, 2), 0x010d);
	assert_int_equal(rd(c->devfn, PCI_INTERRUPT_LINE, 2), 0x030c);
	pci_set_intx(a, true);
	pci_set_intx(a, true);
	assert_true(fake->level[13]);
	pci_set_intx(b, true);
	pci_set_intx(a, false);
	assert_true(fake->level[13]);
	assert_int_equal(rd(a->devfn, PCI_STATUS, 2), 0);
	assert_int_equal(rd(b->devfn, PCI_STATUS, 2), PCI_STATUS_INTX);
	assert_int_equal(rd(b->devfn, PCI_COMMAND, 4), PCI_STATUS_INTX << 16);
	wr(b->devfn, PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
	assert_false(fake->level[13]);
	assert_int_equal(rd(b->devfn, PCI_STATUS, 2), PCI_STATUS_INTX);
	wr(b->devfn, PCI_COMMAND + 1, 1, 0);
	assert_true(fake->level[13]);
	pci_set_intx(b, false);
	assert_false(fake->level[13]);
	pci_set_intx(c, true);
	assert_true(fake->level[12]);
	pci_set_intx(none, true);
	assert_int_equal(rd(none->devfn, PCI_STATUS, 2), 0);
	assert_int_equal(fake->level_changes, 5);
	reset_machine();
	assert_false(fake->level[12]);
	pci_set_intx(c, true); /* teardown expects the line down */
}

struct msix_guest {
	struct pci_function *fn;
	unsigned int control; /* register */
	uint64_t table, pba;
};

static struct msix_guest msix_guest(unsigned int vectors)
{
	struct msix_guest g = { .fn = testdev(0x1000, vectors) };

	assert_int_equal(pci_assign_resources(fake->vm.pci), 0);
	g.control = find_capability(g.fn->devfn, PCI_CAP_MSIX) + 2;
	assert_true(g.control > 2);
	g.table = bar_base(g.fn->devfn, 4);
	g.pba = g.table + TESTDEV_PBA;
	return g;
}

static void msix_control(const struct msix_guest *g, uint32_t value)
{
	wr(g->fn->devfn, g->control, 2, value);
}

static void msix_entry(const struct msix_guest *g, unsigned int vector, uint32_t address, uint32_t data, uint32_t mask)
{
	store(g->table + 16 * vector, 4, address);
	store(g->table + 16 * vector + 4, 4, 0);
	store(g->table + 16 * vector + 8, 4, data);
	store(g->table + 16 * vector + 12, 4, mask);
}

#define GSI(vector) (4 + (vector)) /* the test device has 4 MSI vectors first */

/* Every way to be masked, then every way out of it. */
static void msix_matrix(void **state)
{
	struct msix_guest g = msix_guest(70);

	(void)state;
	assert_int_equal(rd(g.fn->devfn, g.control, 2), 69);
	for (unsigned int i = 0; i < 70; i++)
		assert_int_equal(load(g.table + 16 * i + 12, 4), 1);
	for (unsigned int v = 0; v < 70; v += 23) {
		for (unsigned int how = 0; how < 8; how++) {
			bool vector_mask = how & 1, function_mask = how & 2, by_peer = how & 4;
			uint64_t before = delivered(GSI(v)), bit = 1ULL << v % 64;

			msix_entry(&g, v, 0xfee00000 + (v << 12), 0x40 + v, vector_mask);
			msix_control(&g, 0x8000 | (function_mask ? 0x4000 : 0));
			if (by_peer)
				assert_int_equal(eventfd_write(msix_fd(g.fn, v), 1), 0);
			else
				msix_notify(g.fn, v);
			bool masked = vector_mask || function_mask;
			assert_int_equal(delivered(GSI(v)) - before, !masked);
			assert_int_equal(load(g.pba + v / 64 * 8, 8), masked ? bit : 0);
			assert_int_equal(load(g.pba + v / 32 * 4, 4), masked ? 1u << v % 32 : 0);
			/* Again: pending is a bit. */
			if (masked)
				msix_notify(g.fn, v);
			store(g.table + 16 * v + 12, 4, 0);
			assert_int_equal(delivered(GSI(v)) - before, !function_mask);
			msix_control(&g, 0x8000);
			assert_int_equal(delivered(GSI(v)) - before, 1);
			assert_int_equal(load(g.pba + v / 64 * 8, 8), 0);
			assert_true(fake->routes[GSI(v)].address == 0xfee00000 + (v << 12));
			assert_int_equal(fake->routes[GSI(v)].data, 0x40 + v);
			store(g.table + 16 * v + 12, 4, 1);
			msix_control(&g, 0);
		}
	}
}

static void msix_disabled_events_are_lost(void **state)
{
	struct msix_guest g = msix_guest(2);

	(void)state;
	msix_entry(&g, 0, 0xfee00000, 0x41, 0);
	msix_notify(g.fn, 0);
	eventfd_write(msix_fd(g.fn, 0), 1);
	assert_int_equal(load(g.pba, 8), 0);
	msix_control(&g, 0x8000);
	assert_int_equal(delivered(GSI(0)), 0);
	assert_true(msix_enabled(g.fn));
	/* Pending when it is switched off: gone as well. */
	msix_control(&g, 0xc000);
	msix_notify(g.fn, 0);
	assert_int_equal(load(g.pba, 8), 1);
	msix_control(&g, 0);
	assert_int_equal(load(g.pba, 8), 0);
	msix_control(&g, 0x8000);
	assert_int_equal(delivered(GSI(0)), 0);
	msix_notify(g.fn, 0);
	assert_int_equal(delivered(GSI(0)), 1);
}

static void msix_entry_changes_while_enabled(void **state)
{
	struct msix_guest g = msix_guest(2);

	(void)state;
	msix_control(&g, 0x8000);
	msix_entry(&g, 1, 0xfee00000, 0x41, 0);
	assert_int_equal(fake->routes[GSI(1)].data, 0x41);
	store(g.table + 16 + 8, 4, 0x42);
	assert_int_equal(fake->routes[GSI(1)].data, 0x42);
	store(g.table + 16, 8, 0x1fee01003);
	assert_true(fake->routes[GSI(1)].address == 0x1fee01000);
	store(g.table + 16 + 8, 8, 0x100000043); /* data and mask in one */
	assert_false(fake->routes[GSI(1)].connected);
	msix_notify(g.fn, 1);
	store(g.table + 16 + 8, 8, 0x000000044);
	assert_int_equal(fake->routes[GSI(1)].data, 0x44);
	assert_int_equal(delivered(GSI(1)), 1);
	assert_true(load(g.table + 16, 8) == 0x1fee01000);
	assert_true(load(g.table + 16 + 8, 8) == 0x44);
	assert_false(fake->routes[GSI(0)].connected);
}

static void msix_refused_message(void **state)
{
	struct msix_guest g = msix_guest(2);

	(void)state;
	fake->set_error = -EINVAL;
	msix_control(&g, 0x8000);
	msix_entry(&g, 0, 0xfee00000, 0x41, 0);
	msix_entry(&g, 1, 0xfee00000, 0x42, 0);
	assert_int_equal(fake->lines, 1);
	assert_non_null(strstr(fake->line, "pci-test"));
	msix_notify(g.fn, 0);
	assert_int_equal(load(g.pba, 4), 1);
	fake->set_error = 0;
	store(g.table + 4, 4, 0);
	assert_int_equal(delivered(GSI(0)), 1);
	/* A live vector whose new message is refused must not go on with the old one. */
	fake->set_error = -EINVAL;
	store(g.table + 8, 4, 0x43);
	assert_false(fake->routes[GSI(0)].connected);
	assert_int_equal(fake->lines, 1);
}

static void msix_odd_accesses(void **state)
{
	struct msix_guest g = msix_guest(2);

	(void)state;
	assert_int_equal(load(g.table, 1), 0xff);
	assert_int_equal(load(g.table + 2, 4), UINT32_MAX);
	assert_true(load(g.table + 4, 8) == UINT64_MAX);
	store(g.table + 2, 4, 0);
	store(g.table + 4, 8, 5);
	store(g.table, 2, 5);
	assert_true(load(g.table, 8) == 0);
	assert_int_equal(load(g.table + 32, 4), UINT32_MAX); /* behind the table */
	assert_int_equal(load(g.pba + 8, 4), UINT32_MAX);
	store(g.pba, 8, UINT64_MAX);
	assert_true(load(g.pba, 8) == 0);
	msix_notify(g.fn, 2);
	msix_notify(g.fn, UINT32_MAX);
	assert_int_equal(msix_fd(g.fn, 2), -1);
	assert_int_equal(msix_init(g.fn, 1, 4, 0, 4, 8), -EINVAL);
	struct pci_function *fn = plain(PCI_DEVFN(8, 0), "plain");
	msix_notify(fn, 0);
	assert_int_equal(msix_fd(fn, 0), -1);
	assert_false(msix_enabled(fn));
	assert_int_equal(msix_init(fn, 2049, 0, 0, 0, 0), -EINVAL);
	assert_int_equal(msix_init(fn, 1, 0, 0, 0, 0x800), -EINVAL); /* no such BAR */
}

static void msix_reset_masks(void **state)
{
	struct msix_guest g = msix_guest(2);

	(void)state;
	msix_control(&g, 0x8000);
	msix_entry(&g, 0, 0xfee00000, 0x41, 0);
	msix_notify(g.fn, 1);
	reset_machine();
	assert_false(fake->routes[GSI(0)].connected);
	assert_int_equal(rd(g.fn->devfn, g.control, 2), 1);
	assert_int_equal(load(g.table + 12, 4), 1);
	assert_int_equal(load(g.table, 4), 0);
	msix_control(&g, 0x8000);
	assert_int_equal(load(g.pba, 4), 0);
}

static void plain_msi(void **state)
{
	struct pci_function *fn = testdev(0x1000, 1);
	const unsigned int devfn = fn->devfn, cap = find_capability(devfn, PCI_CAP_MSI);

	(void)state;
	assert_true(cap != 0);
	assert_int_equal(rd(devfn, cap + 2, 2), 0x0184);
	wr(devfn, cap + 4, 4, 0xfee01003);
	wr(devfn, cap + 8, 4, 1);
	wr(devfn, cap + 12, 4, 0xffff0053);
	assert_int_equal(rd(devfn, cap + 4, 4), 0xfee01000);
	assert_int_equal(rd(devfn, cap + 12, 4), 0x53);
	pci_msi_notify(fn, 0);
	eventfd_write(pci_msi_fd(fn, 0), 1);
	wr(devfn, cap + 2, 2, 0x0011); /* on, 2 vectors */
	assert_true(pci_msi_enabled(fn));
	assert_true(fake->routes[0].address == 0x1fee01000);
	assert_int_equal(fake->routes[0].data, 0x52);
	assert_int_equal(fake->routes[1].data, 0x53);
	assert_false(fake->routes[2].connected);
	assert_int_equal(delivered(0), 0);
	pci_msi_notify(fn, 1);
	assert_int_equal(delivered(1), 1);
	pci_msi_notify(fn, 2);
	pci_msi_notify(fn, UINT32_MAX);
	wr(devfn, cap + 16, 4, 0xffffffff);
	assert_int_equal(rd(devfn, cap + 16, 4), 0xf);
	pci_msi_notify(fn, 1);
	eventfd_write(pci_msi_fd(fn, 0), 1);
	assert_int_equal(delivered(1), 1);
	assert_int_equal(rd(devfn, cap + 20, 4), 3);
	wr(devfn, cap + 20, 4, 0);
	assert_int_equal(rd(devfn, cap + 20, 1), 3);
	wr(devfn, cap + 16, 1, 0x1);
	assert_int_equal(delivered(1), 2);
	assert_int_equal(rd(devfn, cap + 20, 4), 1);
	wr(devfn, cap + 2, 2, 0x0071); /* more than there are: all 4 */
	wr(devfn, cap + 16, 4, 0);
	assert_int_equal(delivered(0), 1);
	assert_int_equal(delivered(2), 0);
	assert_int_equal(fake->routes[3].data, 0x53);
	reset_machine();
	assert_false(pci_msi_enabled(fn));
	for (int i = 0; i < 4; i++)
		assert_false(fake->routes[i].connected);
	assert_int_equal(pci_msi_fd(fn, 4), -1);
	assert_int_equal(pci_msi_init(plain(PCI_DEVFN(9, 0), "p"), 3), -EINVAL);
}

static void one_msi_vector(void **state)
{
	struct pci_function *fn = plain(PCI_DEVFN(9, 0), "one"), *all = plain(PCI_DEVFN(10, 0), "all");

	(void)state;
	assert_int_equal(pci_msi_init(fn, 1), 0);
	assert_int_equal(pci_msi_init(all, 32), 0);
	wr(fn->devfn, 0x50, 4, UINT32_MAX);
	wr(all->devfn, 0x50, 4, UINT32_MAX);
	assert_int_equal(rd(fn->devfn, 0x50, 4), 1);
	assert_int_equal(rd(all->devfn, 0x50, 4), UINT32_MAX);
	wr(all->devfn, 0x42, 2, 0x0051);
	assert_int_equal(rd(all->devfn, 0x54, 4), 0);
	for (unsigned int i = 0; i < 32; i++)
		pci_msi_notify(all, i);
	assert_int_equal(rd(all->devfn, 0x54, 4), UINT32_MAX);
}

static void test_device(void **state)
{
	struct pci_function *fn = testdev(0x200000, 4);

	(void)state;
	assert_int_equal(pci_assign_resources(fake->vm.pci), 0);
	uint64_t regs = bar_base(fn->devfn, 0);
	uint16_t io = (uint16_t)bar_base(fn->devfn, 1);
	assert_int_equal(load(regs, 4), TESTDEV_ID);
	assert_int_equal(in(io, 4), TESTDEV_ID);
	store(regs + TESTDEV_REG_SCRATCH, 4, 0xcafe);
	assert_int_equal(in(io + TESTDEV_REG_SCRATCH, 4), 0xcafe);
	out(io + TESTDEV_REG_COUNTER, 4, 41);
	assert_int_equal(load(regs + TESTDEV_REG_COUNTER, 4), 41);
	assert_int_equal(load(regs + TESTDEV_REG_COUNTER, 4), 42);
	assert_int_equal(load(regs + TESTDEV_REG_COUNTER, 2), 0xffff);
	assert_int_equal(load(regs + TESTDEV_REG_VECTORS, 4), 4);
	assert_int_equal(load(regs + TESTDEV_REG_SIZE, 4), 0x200000);
	assert_int_equal(load(regs + TESTDEV_REG_SIZE_HIGH, 4), 0);
	assert_int_equal(load(regs + TESTDEV_REG_NOTIFY, 4), UINT32_MAX);
	assert_int_equal(load(regs + TESTDEV_REGS, 4), UINT32_MAX);
	store(regs + TESTDEV_REG_INTX, 4, 1);
	assert_true(fake->level[13]);
	assert_int_equal(load(regs + TESTDEV_REG_INTX, 4), 1);
	store(regs + TESTDEV_REG_INTX, 4, 0);
	assert_false(fake->level[13]);
	unsigned int msix = find_capability(fn->devfn, PCI_CAP_MSIX);
	uint64_t table = bar_base(fn->devfn, 4);
	wr(fn->devfn, msix + 2, 2, 0x8000);
	store(table + 16 * 3 + 12, 4, 0);
	store(regs + TESTDEV_REG_NOTIFY, 4, 3);
	store(regs + TESTDEV_REG_NOTIFY, 4, 4);
	assert_int_equal(delivered(GSI(3)), 1);
	wr(fn->devfn, msix + 2, 2, 0);
	wr(fn->devfn, find_capability(fn->devfn, PCI_CAP_MSI) + 2, 2, 1);
	store(regs + TESTDEV_REG_NOTIFY, 4, 0);
	assert_int_equal(delivered(0), 1);
	store(regs + TESTDEV_REG_INTX, 4, 1);
	reset_machine();
	assert_false(fake->level[13]);
	assert_int_equal(load(regs + TESTDEV_REG_SCRATCH, 4), 0);
	assert_int_equal(load(regs + TESTDEV_REG_COUNTER, 4), 0);
}

/* For the thread sanitizer: what peers and devices do while a vCPU writes configuration space and the table.
 */

struct noise {
	struct pci_function *fn;
	_Atomic bool stop;
};

static void *noise(void *opaque)
{
	struct noise *n = opaque;

	for (unsigned int i = 0; !atomic_load(&n->stop); i++) {
		msix_notify(n->fn, i % 5);
		pci_msi_notify(n->fn, i % 5);
		pci_set_intx(n->fn, i & 1);
	}
	pci_set_intx(n->fn, false);
	return NULL;
}

static void threads(void **state)
{
	struct msix_guest g = msix_guest(4);
	struct noise n = { .fn = g.fn };
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, noise, &n), 0);
	for (unsigned int i = 0; i < 5000; i++) {
		msix_control(&g, (i & 3) << 14);
		msix_entry(&g, i % 4, 0xfee00000, i, i & 1);
		load(g.pba, 8);
		wr(g.fn->devfn, PCI_COMMAND, 2, i & 16 ? 3 : 0x403);
		rd(g.fn->devfn, PCI_STATUS, 2);
		wr(g.fn->devfn, find_capability(g.fn->devfn, PCI_CAP_MSI) + 2, 2, i & 0x31);
	}
	atomic_store(&n.stop, true);
	pthread_join(thread, NULL);
}

/* A peer's eventfd in place of a vector's own. */
static void msix_foreign_vector(void **state)
{
	struct msix_guest g = msix_guest(2);
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), more;

	(void)state;
	assert_int_equal(msix_replace_fd(g.fn, 2, fd), -EINVAL);
	eventfd_write(fd, 1); /* before anybody uses MSI-X: no event */
	assert_int_equal(msix_replace_fd(g.fn, 1, fd), 0);
	msix_control(&g, 0x8000);
	msix_entry(&g, 1, 0xfee00000, 0x41, 1);
	assert_int_equal(load(g.pba, 8), 0);
	eventfd_write(fd, 1);
	assert_int_equal(load(g.pba, 8), 2);
	/* Unmasked: sent by us, since writing the eventfd could wait. */
	store(g.table + 28, 4, 0);
	assert_int_equal(fake->sent.address, 0xfee00000);
	assert_int_equal(fake->sent.data, 0x41);
	assert_int_equal(delivered(GSI(1)), 0);
	assert_int_equal(load(g.pba, 8), 0);
	eventfd_write(fd, 1);
	assert_int_equal(delivered(GSI(1)), 1);
	/* Replaced while it is live: the new one is connected. */
	more = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	assert_int_equal(msix_replace_fd(g.fn, 1, more), 0);
	assert_true(fake->routes[GSI(1)].connected);
	eventfd_write(more, 1);
	assert_int_equal(delivered(GSI(1)), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(intx),
		T(msix_matrix),
		T(msix_disabled_events_are_lost),
		T(msix_entry_changes_while_enabled),
		T(msix_refused_message),
		T(msix_odd_accesses),
		T(msix_reset_masks),
		T(plain_msi),
		T(msix_foreign_vector),
		T(one_msi_vector),
		T(test_device),
		T(threads),
	};

	return cmocka_run_group_tests_name("pci_msi", tests, NULL, NULL);
}
