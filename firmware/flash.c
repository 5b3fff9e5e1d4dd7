/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * Both chips are memslots that the guest can only read, so code runs and variables are read without exits. A write
 * to the variables exits, and is a command of flash_core.c. What follows cannot be known: in most modes a read must not
 * show the contents. So the memslot goes with the first command, and reads exit as well. It comes back when the chip
 * shows its contents again and the guest has read some of them: firmware writes a variable piece by piece, with a
 * command to return to the contents after each, and a memslot costs more than a few exits.
 *
 * Everything after the lock is under it; memslot_add(), memslot_del() and the write to the file happen with it held,
 * and a vCPU may wait for the host's file system then, as it would for a chip. The loop thread has the file synced some
 * time after a change.
 */
#include "firmware/flash.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "firmware/flash_core.h"
#include "firmware/nvram.h"
#include "vmm/bus.h"
#include "vmm/device.h"
#include "vmm/log.h"
#include "vmm/loop.h"
#include "vmm/memory.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

#define FLASH_END		 (4ULL << 30)
#define READS_TO_MAP		 16
#define SYNC_DELAY_NS		 500000000ULL
#define from_member(ptr, member) ((struct flash *)((char *)(ptr)-offsetof(struct flash, member)))

struct flash {
	struct device dev;
	struct region code, vars;
	uint8_t *memory;
	size_t code_size, vars_size;
	int code_slot;
	struct nvram nvram;

	pthread_mutex_t lock;
	struct flash_core core;
	int vars_slot; /* -1: reads exit */
	bool slot_works;
	unsigned int reads; /* since the chip shows its contents */

	_Atomic bool changed; /* since the file was last synced */
	struct loop_work sync_work;

	/* Loop thread only. */
	struct loop_op timer_op, sync_op;
	struct __kernel_timespec timer_ts;
	bool timing, syncing;
};

static void arm_timer(struct flash *f)
{
	if (f->timing || f->syncing)
		return;
	f->timing = true;
	loop_timer(&f->dev.vm->loop, &f->timer_op, &f->timer_ts, SYNC_DELAY_NS);
}

static void sync_posted(struct loop_work *work)
{
	arm_timer(from_member(work, sync_work));
}

static void timer_fired(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct flash *f = from_member(op, timer_op);

	(void)cqe_flags;
	f->timing = false;
	if (res != -ETIME || !atomic_exchange(&f->changed, false))
		return;
	f->syncing = true;
	io_uring_prep_fsync(loop_sqe(&f->dev.vm->loop, &f->sync_op), f->nvram.fd, IORING_FSYNC_DATASYNC);
}

static void synced(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct flash *f = from_member(op, sync_op);

	(void)cqe_flags;
	f->syncing = false;
	if (res < 0 && res != -ECANCELED && res != -EINVAL)
		log_line("--nvram %s: fdatasync: %s", f->nvram.path, strerror(-res));
	if (res != -ECANCELED && atomic_load(&f->changed))
		arm_timer(f);
}

static int store(void *opaque, size_t offset, const uint8_t *bytes, size_t length)
{
	struct flash *f = opaque;
	int ret = nvram_write(&f->nvram, offset, bytes, length);

	if (!ret && !atomic_exchange(&f->changed, true))
		loop_post(&f->dev.vm->loop, &f->sync_work);
	return ret;
}

static void map_vars(struct flash *f)
{
	if (f->vars_slot >= 0 || !f->slot_works)
		return;
	f->vars_slot = memslot_add(&f->dev.vm->memory, f->vars.base, f->memory, f->vars_size, true);
	f->slot_works = f->vars_slot >= 0; /* right without, only slower */
}

static void unmap_vars(struct flash *f)
{
	if (f->vars_slot >= 0 && memslot_del(&f->dev.vm->memory, f->vars_slot) == 0)
		f->vars_slot = -1;
}

static uint64_t vars_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct flash *f = opaque;
	uint64_t value;

	pthread_mutex_lock(&f->lock);
	value = flash_core_read(&f->core, offset, size);
	if (f->core.mode == FLASH_ARRAY && ++f->reads >= READS_TO_MAP)
		map_vars(f);
	pthread_mutex_unlock(&f->lock);
	return value;
}

static void vars_write(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct flash *f = opaque;

	pthread_mutex_lock(&f->lock);
	unmap_vars(f);
	f->reads = 0;
	flash_core_write(&f->core, offset, size, value);
	TRACE(flash_write, "offset 0x%llx size %u value 0x%llx status 0x%02x", (unsigned long long)offset, size,
	      (unsigned long long)value, (unsigned int)f->core.status);
	pthread_mutex_unlock(&f->lock);
}

static const struct io_ops vars_ops = { .read = vars_read, .write = vars_write };
static const struct io_ops code_ops = { 0 }; /* the memslot answers reads; writes have no effect */

/* The contents stay, as those of a chip do. */
static void flash_reset(struct device *dev)
{
	struct flash *f = (struct flash *)dev;

	pthread_mutex_lock(&f->lock);
	flash_core_reset(&f->core);
	f->reads = 0;
	pthread_mutex_unlock(&f->lock);
}

static void flash_free(struct flash *f)
{
	if (f->code_slot >= 0)
		memslot_del(&f->dev.vm->memory, f->code_slot);
	unmap_vars(f);
	nvram_close(&f->nvram);
	if (f->memory)
		munmap(f->memory, f->vars_size + f->code_size);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static void flash_destroy(struct device *dev)
{
	flash_free((struct flash *)dev);
}

static const struct device_class flash_class = { .name = "flash", .reset = flash_reset, .destroy = flash_destroy };

static int map_code(struct flash *f)
{
	struct vm *vm = f->dev.vm;
	int ret;

	f->code = (struct region){ .name = "flash-code",
				   .base = FLASH_END - f->code_size,
				   .length = f->code_size,
				   .ops = &code_ops,
				   .opaque = f };
	ret = bus_add(&vm->mmio, &f->code);
	if (!ret) {
		f->code_slot = memslot_add(&vm->memory, f->code.base, f->memory + f->vars_size, f->code_size, true);
		ret = f->code_slot < 0 ? f->code_slot : 0;
	}
	if (ret)
		log_line("--firmware: cannot be mapped at 0x%llx: %s", (unsigned long long)f->code.base,
			 strerror(-ret));
	return ret;
}

static int create_vars(struct flash *f, const struct flash_contents *c)
{
	int ret = 0;

	if (!c->nvram && !c->template)
		return 0;
	if (c->nvram)
		ret = nvram_open(&f->nvram, c->nvram, f->memory, c->vars_size, c->template, c->no_template);
	else if (c->template != f->memory)
		memcpy(f->memory, c->template, c->vars_size);
	if (ret)
		return ret;
	f->core = (struct flash_core){ .data = f->memory, .size = c->vars_size, .opaque = f };
	f->core.store = c->nvram ? store : NULL;
	flash_core_reset(&f->core);
	f->vars = (struct region){ .name = "flash-vars",
				   .base = FLASH_END - c->code_size - c->vars_size,
				   .length = c->vars_size,
				   .ops = &vars_ops,
				   .opaque = f };
	ret = bus_add(&f->dev.vm->mmio, &f->vars);
	if (ret)
		log_line("--nvram: cannot be mapped at 0x%llx: %s", (unsigned long long)f->vars.base, strerror(-ret));
	else
		map_vars(f);
	return ret;
}

int flash_create(struct vm *vm, const struct flash_contents *c)
{
	struct flash *f = calloc(1, sizeof(*f));
	int ret;

	if (!f) {
		log_line("--firmware: %s", strerror(ENOMEM));
		munmap(c->memory, c->vars_size + c->code_size);
		return -ENOMEM;
	}
	f->dev.vm = vm;
	f->memory = c->memory;
	f->vars_size = c->vars_size;
	f->code_size = c->code_size;
	f->code_slot = f->vars_slot = f->nvram.fd = -1;
	f->slot_works = true;
	f->timer_op.fn = timer_fired;
	f->sync_op.fn = synced;
	f->sync_work.fn = sync_posted;
	pthread_mutex_init(&f->lock, NULL);
	ret = map_code(f);
	if (!ret)
		ret = create_vars(f, c);
	if (ret)
		flash_free(f);
	else
		device_register(vm, &f->dev, &flash_class);
	return ret;
}
