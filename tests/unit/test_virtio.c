/* SPDX-License-Identifier: MIT */
/*
 * The virtio PCI transport on the real PCI bus and address-space dispatch, with fakes below: memslots, interrupts, and
 * a loop whose requests are carried out when a test says so. There is no KVM: notifications come as writes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/pci/msix.h"
#include "devices/virtio/virtio.h"
#include "tests/unit/trace_fake.h"
#include "vmm/log.h"
#include "vmm/vm.h"

#define QUEUES	  3
#define QUEUE_MAX 64
#define RAM_SIZE  0x100000u
#define DEVFN	  PCI_DEVFN(1, 0)
#define FEATURES  (1ULL << 5 | 1ULL << 50 | VIRTIO_BIT(VIRTIO_F_RING_PACKED))
#define OFFERED	  (FEATURES | VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_RING_RESET))
#define OPS	  16

/* Registers (virtio 1.2, 4.1.4.3). */
enum {
	DEVICE_SELECT = 0x00,
	DEVICE_FEATURE = 0x04,
	DRIVER_SELECT = 0x08,
	DRIVER_FEATURE = 0x0c,
	CONFIG_VECTOR = 0x10,
	NUM_QUEUES = 0x12,
	STATUS = 0x14,
	GENERATION = 0x15,
	SELECT = 0x16,
	SIZE = 0x18,
	VECTOR = 0x1a,
	ENABLE = 0x1c,
	NOTIFY = 0x1e,
	DESC = 0x20,
	DRIVER = 0x28,
	DEVICE = 0x30,
	NOTIFY_DATA = 0x38,
	RESET = 0x3a,
};

struct op {
	struct loop_op *op;
	struct io_uring_sqe sqe;
};

struct fakes {
	struct vm vm;
	struct bus_cache pio, mmio;
	struct virtio v;
	/* What the device has been told. */
	unsigned int starts, resets, machine_resets, queue_starts[QUEUES], queue_resets[QUEUES], vectors,
		notified[QUEUES];
	unsigned int reads, writes;
	bool keep; /* resets are not done at once */
	/* The loop. */
	struct op ops[OPS];
	unsigned int nr_ops;
	struct loop_work *work;
	bool level;
	int next_gsi, slots;
};

static struct fakes *fake;

void log_line(const char *fmt, ...)
{
	(void)fmt;
}

void vm_reset(struct vm *vm)
{
	(void)vm;
}

void device_register(struct vm *vm, struct device *dev, const struct device_class *class)
{
	dev->class = class;
	dev->vm = vm;
	dev->next = vm->devices;
	vm->devices = dev;
}

bool coalesce_zone(struct coalesce *c, bool pio, uint64_t addr, uint32_t len)
{
	(void)c;
	(void)pio;
	(void)addr;
	(void)len;
	return true;
}

void irq_set_level(struct irqs *irqs, unsigned int gsi, bool level)
{
	(void)irqs;
	(void)gsi;
	fake->level = level;
}

bool irq_send(struct irqs *irqs, const struct irq_message *message)
{
	(void)irqs;
	(void)message;
	return true;
}

int memslot_add(struct memory *mem, uint64_t gpa, void *host, uint64_t size, bool readonly)
{
	(void)mem;
	(void)gpa;
	(void)host;
	(void)size;
	(void)readonly;
	return fake->slots++;
}

int memslot_del(struct memory *mem, int slot)
{
	(void)mem;
	(void)slot;
	fake->slots--;
	return 0;
}

int msi_alloc(struct irqs *irqs, struct msi *msi)
{
	(void)irqs;
	msi->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	msi->gsi = fake->next_gsi++;
	return 0;
}

int msi_set(struct irqs *irqs, struct msi *msi, uint64_t address, uint32_t data)
{
	(void)irqs;
	(void)msi;
	(void)address;
	(void)data;
	return 0;
}

int msi_mask(struct irqs *irqs, struct msi *msi)
{
	(void)irqs;
	(void)msi;
	return 0;
}

void msi_free(struct irqs *irqs, struct msi *msi)
{
	(void)irqs;
	close(msi->fd);
}

static uint64_t count_of(int fd)
{
	uint64_t count = 0;

	return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

bool msi_take_pending(struct msi *msi)
{
	return count_of(msi->fd) > 0;
}

void *ram_ptr(const struct memory *mem, uint64_t gpa, uint64_t len)
{
	return len && gpa < mem->low_size && len <= mem->low_size - gpa ? mem->host + gpa : NULL;
}

void loop_post(struct loop *loop, struct loop_work *work)
{
	(void)loop;
	fake->work = work;
}

struct io_uring_sqe *loop_sqe(struct loop *loop, struct loop_op *op)
{
	struct op *o = &fake->ops[fake->nr_ops++];

	(void)loop;
	assert_true(fake->nr_ops <= OPS);
	memset(o, 0, sizeof(*o));
	o->op = op;
	return &o->sqe;
}

/* Carries out what the loop would: writes, and polls of what can be read. Returns how many. */
static unsigned int turn(void)
{
	struct op ops[OPS];
	unsigned int n = fake->nr_ops, done = 0;

	if (fake->work) {
		struct loop_work *work = fake->work;

		fake->work = NULL;
		work->fn(work);
		return 1 + turn();
	}
	memcpy(ops, fake->ops, sizeof(ops));
	fake->nr_ops = 0;
	for (unsigned int i = 0; i < n; i++) {
		int fd = ops[i].sqe.fd;
		uint64_t count = count_of(fd);

		if (ops[i].sqe.opcode == IORING_OP_WRITE) {
			assert_int_equal(ops[i].sqe.len, 8);
			eventfd_write(fd, count + 1);
			ops[i].op->fn(ops[i].op, 8, 0);
			done++;
		} else if (count) {
			assert_int_equal(ops[i].sqe.opcode, IORING_OP_POLL_ADD);
			eventfd_write(fd, count);
			ops[i].op->fn(ops[i].op, 1, 0);
			done++;
		} else {
			fake->ops[fake->nr_ops++] = ops[i];
		}
	}
	return done;
}

/* -- the device */

static void on_start(struct virtio *v)
{
	(void)v;
	fake->starts++;
}

static void on_reset(struct virtio *v)
{
	fake->resets++;
	if (!fake->keep)
		virtio_reset_done(v);
}

static void on_machine_reset(struct virtio *v)
{
	(void)v;
	fake->machine_resets++;
}

static void on_queue_start(struct virtio *v, unsigned int queue)
{
	(void)v;
	fake->queue_starts[queue]++;
}

static void on_queue_reset(struct virtio *v, unsigned int queue)
{
	fake->queue_resets[queue]++;
	if (!fake->keep)
		virtio_queue_reset_done(v, queue);
}

static void on_vector(struct virtio *v, unsigned int queue)
{
	(void)v;
	(void)queue;
	fake->vectors++;
}

static void on_notify(struct virtio *v, unsigned int queue)
{
	(void)v;
	fake->notified[queue]++;
}

static void on_reading(struct virtio *v)
{
	(void)v;
	fake->reads++;
}

static void on_written(struct virtio *v, unsigned int offset, unsigned int size, uint64_t value)
{
	(void)v;
	(void)value;
	assert_true(offset + size <= 12);
	fake->writes++;
}

static void on_destroy(struct virtio *v)
{
	virtio_fini(v);
}

static const struct virtio_class class = {
	.name = "test",
	.start = on_start,
	.reset = on_reset,
	.machine_reset = on_machine_reset,
	.queue_start = on_queue_start,
	.queue_reset = on_queue_reset,
	.vector_changed = on_vector,
	.notify = on_notify,
	.config_reading = on_reading,
	.config_written = on_written,
	.destroy = on_destroy,
};

static const struct virtio_shm shm[] = { { 3, 0, 0x3000 }, { 200, 0x3000, 0x5123456000ULL } };

static const struct virtio_config config = {
	.name = "test",
	.id = 60,
	.class_code = 0xff0000,
	.features = FEATURES,
	.nr_queues = QUEUES,
	.queue_size = QUEUE_MAX,
	.config_size = 12,
	.shm = shm,
	.nr_shm = 2,
};

static void make_machine(void)
{
	const struct pci_windows windows = {
		.ecam = 0xe0000000,
		.mmio32 = { 0xc0000000, 0x10000000 },
		.mmio64 = { 0x800000000, 0x800000000 },
		.io = { 0xc000, 0x1000 },
	};

	fake = calloc(1, sizeof(*fake));
	assert_non_null(fake);
	assert_int_equal(bus_init(&fake->vm.pio, "pio", 0x10000), 0);
	assert_int_equal(bus_init(&fake->vm.mmio, "mmio", 1ULL << 46), 0);
	fake->vm.fd = -1;
	fake->vm.memory.size = fake->vm.memory.low_size = RAM_SIZE;
	fake->vm.memory.host = calloc(1, RAM_SIZE);
	assert_non_null(fake->vm.memory.host);
	assert_int_equal(pci_bus_create(&fake->vm, &windows), 0);
}

static int setup(void **state)
{
	(void)state;
	make_machine();
	assert_int_equal(virtio_init(&fake->v, &fake->vm, &class, &config), 0);
	assert_int_equal(pci_assign_resources(fake->vm.pci), 0);
	return 0;
}

static int setup_bare(void **state)
{
	(void)state;
	make_machine();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	while (fake->vm.devices) {
		struct device *dev = fake->vm.devices;

		fake->vm.devices = dev->next;
		dev->class->destroy(dev);
	}
	assert_int_equal(fake->vm.mmio.count, 0);
	bus_destroy(&fake->vm.pio);
	bus_destroy(&fake->vm.mmio);
	free(fake->vm.memory.host);
	free(fake);
	fake = NULL;
	return 0;
}

/* -- the driver */

static uint32_t pci_rd(unsigned int reg, unsigned int size)
{
	return pci_config_read(fake->vm.pci, DEVFN, reg, size);
}

static void pci_wr(unsigned int reg, unsigned int size, uint32_t value)
{
	pci_config_write(fake->vm.pci, DEVFN, reg, size, value);
}

static uint64_t bar(unsigned int index)
{
	return pci_rd(PCI_BAR0 + 4 * index, 4) & ~15u;
}

static uint64_t load(uint64_t address, unsigned int size)
{
	uint64_t value = 0;

	bus_read(&fake->vm.mmio, &fake->mmio, address, &value, size);
	return value;
}

static void store(uint64_t address, unsigned int size, uint64_t value)
{
	bus_write(&fake->vm.mmio, &fake->mmio, address, &value, size);
}

static uint64_t rd(unsigned int reg, unsigned int size)
{
	return load(bar(0) + reg, size);
}

static void wr(unsigned int reg, unsigned int size, uint64_t value)
{
	store(bar(0) + reg, size, value);
}

static void negotiate(uint64_t features)
{
	wr(STATUS, 1, 0);
	wr(STATUS, 1, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
	for (unsigned int i = 0; i < 2; i++) {
		wr(DRIVER_SELECT, 4, i);
		wr(DRIVER_FEATURE, 4, (uint32_t)(features >> 32 * i));
	}
	wr(STATUS, 1, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
}

static void set_queue(unsigned int queue, unsigned int size)
{
	wr(SELECT, 2, queue);
	wr(SIZE, 2, size);
	wr(DESC, 4, 0x1000 * (queue + 1));
	wr(DESC + 4, 4, 0);
	wr(DRIVER, 8, 0x1000 * (queue + 1) + 0x400);
	wr(DEVICE, 8, 0x1000 * (queue + 1) + 0x800);
	wr(ENABLE, 2, 1);
}

static void go(uint64_t features)
{
	negotiate(features);
	assert_true(rd(STATUS, 1) & VIRTIO_FEATURES_OK);
	for (unsigned int i = 0; i < QUEUES; i++)
		set_queue(i, 16);
	wr(STATUS, 1, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK);
}

/* -- tests */

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
		cmocka_unit_test_setup_teardown(capabilities, setup, teardown),
		cmocka_unit_test_setup_teardown(impossible, setup_bare, teardown),
		cmocka_unit_test_setup_teardown(features, setup, teardown),
		cmocka_unit_test_setup_teardown(widths, setup, teardown),
		cmocka_unit_test_setup_teardown(queues, setup, teardown),
		cmocka_unit_test_setup_teardown(packed_sizes, setup, teardown),
		cmocka_unit_test_setup_teardown(queue_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(device_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(broken, setup, teardown),
		cmocka_unit_test_setup_teardown(interrupts, setup, teardown),
		cmocka_unit_test_setup_teardown(notifications, setup, teardown),
		cmocka_unit_test_setup_teardown(configuration, setup, teardown),
		cmocka_unit_test_setup_teardown(window, setup, teardown),
		cmocka_unit_test_setup_teardown(rings, setup, teardown),
		cmocka_unit_test_setup_teardown(random_writes, setup, teardown),
	};

	return cmocka_run_group_tests_name("virtio", tests, NULL, NULL);
}
