/* SPDX-License-Identifier: MIT */
/*
 * The virtio PCI transport on the real PCI bus and address-space dispatch, with fakes below: memslots, interrupts, and
 * a loop whose requests are carried out when a test says so. There is no KVM: notifications come as writes. One program
 * includes it once.
 */
#ifndef TESTS_UNIT_VIRTIO_FAKE_H
#define TESTS_UNIT_VIRTIO_FAKE_H

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

static inline uint64_t count_of(int fd)
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
static inline unsigned int turn(void)
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

static inline void on_start(struct virtio *v)
{
	(void)v;
	fake->starts++;
}

static inline void on_reset(struct virtio *v)
{
	fake->resets++;
	if (!fake->keep)
		virtio_reset_done(v);
}

static inline void on_machine_reset(struct virtio *v)
{
	(void)v;
	fake->machine_resets++;
}

static inline void on_queue_start(struct virtio *v, unsigned int queue)
{
	(void)v;
	fake->queue_starts[queue]++;
}

static inline void on_queue_reset(struct virtio *v, unsigned int queue)
{
	fake->queue_resets[queue]++;
	if (!fake->keep)
		virtio_queue_reset_done(v, queue);
}

static inline void on_vector(struct virtio *v, unsigned int queue)
{
	(void)v;
	(void)queue;
	fake->vectors++;
}

static inline void on_notify(struct virtio *v, unsigned int queue)
{
	(void)v;
	fake->notified[queue]++;
}

static inline void on_reading(struct virtio *v)
{
	(void)v;
	fake->reads++;
}

static inline void on_written(struct virtio *v, unsigned int offset, unsigned int size, uint64_t value)
{
	(void)v;
	(void)value;
	assert_true(offset + size <= 12);
	fake->writes++;
}

static inline void on_destroy(struct virtio *v)
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

static inline void make_machine(void)
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

static inline int setup(void **state)
{
	(void)state;
	make_machine();
	assert_int_equal(virtio_init(&fake->v, &fake->vm, &class, &config), 0);
	assert_int_equal(pci_assign_resources(fake->vm.pci), 0);
	return 0;
}

static inline int setup_bare(void **state)
{
	(void)state;
	make_machine();
	return 0;
}

static inline int teardown(void **state)
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

static inline uint32_t pci_rd(unsigned int reg, unsigned int size)
{
	return pci_config_read(fake->vm.pci, DEVFN, reg, size);
}

static inline void pci_wr(unsigned int reg, unsigned int size, uint32_t value)
{
	pci_config_write(fake->vm.pci, DEVFN, reg, size, value);
}

static inline uint64_t bar(unsigned int index)
{
	return pci_rd(PCI_BAR0 + 4 * index, 4) & ~15u;
}

static inline uint64_t load(uint64_t address, unsigned int size)
{
	uint64_t value = 0;

	bus_read(&fake->vm.mmio, &fake->mmio, address, &value, size);
	return value;
}

static inline void store(uint64_t address, unsigned int size, uint64_t value)
{
	bus_write(&fake->vm.mmio, &fake->mmio, address, &value, size);
}

static inline uint64_t rd(unsigned int reg, unsigned int size)
{
	return load(bar(0) + reg, size);
}

static inline void wr(unsigned int reg, unsigned int size, uint64_t value)
{
	store(bar(0) + reg, size, value);
}

static inline void negotiate(uint64_t features)
{
	wr(STATUS, 1, 0);
	wr(STATUS, 1, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
	for (unsigned int i = 0; i < 2; i++) {
		wr(DRIVER_SELECT, 4, i);
		wr(DRIVER_FEATURE, 4, (uint32_t)(features >> 32 * i));
	}
	wr(STATUS, 1, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
}

static inline void set_queue(unsigned int queue, unsigned int size)
{
	wr(SELECT, 2, queue);
	wr(SIZE, 2, size);
	wr(DESC, 4, 0x1000 * (queue + 1));
	wr(DESC + 4, 4, 0);
	wr(DRIVER, 8, 0x1000 * (queue + 1) + 0x400);
	wr(DEVICE, 8, 0x1000 * (queue + 1) + 0x800);
	wr(ENABLE, 2, 1);
}

static inline void go(uint64_t features)
{
	negotiate(features);
	assert_true(rd(STATUS, 1) & VIRTIO_FEATURES_OK);
	for (unsigned int i = 0; i < QUEUES; i++)
		set_queue(i, 16);
	wr(STATUS, 1, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK);
}

#endif
