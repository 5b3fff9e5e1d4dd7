/* SPDX-License-Identifier: MIT */
/*
 * The three PC ports that reset. There is no keyboard controller behind them (the FADT says so): its status
 * reads 0, "nothing to read and ready for a command", so that a guest's reset routine, which waits for the
 * latter, goes straight on; everything but the reset command is ignored. Firmware looks for a keyboard, and sees by all
 * ones that there is none. No state, hence no lock.
 */
#include "devices/legacy/i8042.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/bus.h"
#include "vmm/device.h"
#include "vmm/log.h"
#include "vmm/vm.h"

#define DATA_PORT     0x60
#define COMMAND_PORT  0x64
#define CONTROL_PORT  0x92
#define COMMAND_RESET 0xfe /* pulse output line 0 */
#define CONTROL_RESET 0x01
#define CONTROL_A20   0x02 /* always on */

struct i8042 {
	struct device dev;
	struct region data, command, control;
};

static uint64_t read_data(void *opaque, uint64_t offset, unsigned int size)
{
	const struct i8042 *i8042 = opaque;

	(void)offset;
	(void)size;
	return i8042->dev.vm->firmware ? UINT64_MAX : 0;
}

static void write_command(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct i8042 *i8042 = opaque;

	(void)offset;
	(void)size;
	if ((value & 0xff) == COMMAND_RESET)
		vm_reset(i8042->dev.vm);
}

static uint64_t read_control(void *opaque, uint64_t offset, unsigned int size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return CONTROL_A20;
}

static void write_control(void *opaque, uint64_t offset, unsigned int size, uint64_t value)
{
	struct i8042 *i8042 = opaque;

	(void)offset;
	(void)size;
	if (value & CONTROL_RESET)
		vm_reset(i8042->dev.vm);
}

static const struct io_ops data_ops = { .read = read_data };
static const struct io_ops command_ops = { .read = read_data, .write = write_command };
static const struct io_ops control_ops = { .read = read_control, .write = write_control };

static void i8042_destroy(struct device *dev)
{
	free(dev);
}

static const struct device_class i8042_class = { .name = "i8042", .destroy = i8042_destroy };

static struct region port(const char *name, uint16_t base, const struct io_ops *ops, struct i8042 *i8042)
{
	return (struct region){ .name = name, .base = base, .length = 1, .ops = ops, .opaque = i8042 };
}

int i8042_create(struct vm *vm)
{
	struct i8042 *i8042 = calloc(1, sizeof(*i8042));
	int ret = i8042 ? 0 : -ENOMEM;

	if (i8042) {
		i8042->data = port("i8042-data", DATA_PORT, &data_ops, i8042);
		i8042->command = port("i8042-command", COMMAND_PORT, &command_ops, i8042);
		i8042->control = port("port92", CONTROL_PORT, &control_ops, i8042);
		ret = bus_add(&vm->pio, &i8042->data);
	}
	if (!ret) {
		ret = bus_add(&vm->pio, &i8042->command);
		if (ret)
			bus_remove(&vm->pio, &i8042->data);
	}
	if (!ret) {
		ret = bus_add(&vm->pio, &i8042->control);
		if (ret) {
			bus_remove(&vm->pio, &i8042->command);
			bus_remove(&vm->pio, &i8042->data);
		}
	}
	if (ret) {
		log_line("keyboard controller at ports 0x%x, 0x%x, 0x%x: %s", DATA_PORT, COMMAND_PORT, CONTROL_PORT,
			 strerror(-ret));
		free(i8042);
		return ret;
	}
	device_register(vm, &i8042->dev, &i8042_class);
	return 0;
}
