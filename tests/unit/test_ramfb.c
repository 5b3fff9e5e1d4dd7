/* SPDX-License-Identifier: MIT */
/* The picture in RAM: what the guest may write by fw_cfg's DMA, and what a screenshot makes of it. */
/* cmocka wants these before itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <endian.h>
#include <errno.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/display/ramfb.h"
#include "firmware/fw_cfg_core.h"
#include "vmm/control.h"
#include "vmm/device.h"
#include "vmm/log.h"
#include "vmm/vm.h"

#define RAM	(1u << 20)
#define COMMAND 0x100
#define MODE	0x200
#define PICTURE 0x1000

struct control_request {
	char file[64];
	char error[256];
	bool answered;
};

static struct {
	struct vm vm;
	struct fw_cfg_core core;
	const struct control_command *command;
	void *opaque;
	struct device *device;
	uint8_t ram[RAM];
	char directory[32];
} fake;

/* ---- The machine ---- */

void log_line(const char *fmt, ...)
{
	(void)fmt;
}

void *ram_ptr(const struct memory *mem, uint64_t gpa, uint64_t len)
{
	assert_ptr_equal(mem, &fake.vm.memory);
	return gpa < RAM && len <= RAM - gpa ? fake.ram + gpa : NULL;
}

static void *guest(void *opaque, uint64_t gpa, uint64_t len)
{
	return ram_ptr(opaque, gpa, len);
}

void device_register(struct vm *vm, struct device *dev, const struct device_class *class)
{
	dev->vm = vm;
	dev->class = class;
	fake.device = dev;
}

int control_add(struct control *control, const struct control_command *commands, size_t count, void *opaque)
{
	assert_non_null(control);
	assert_int_equal(count, 1);
	fake.command = commands;
	fake.opaque = opaque;
	return 0;
}

const char *control_string(const struct control_request *request, const char *name, const char *fallback)
{
	(void)fallback;
	assert_string_equal(name, "file");
	return request->file;
}

void control_answer(struct control_request *request, json_t *result)
{
	request->answered = true;
	json_decref(result);
}

void control_fail(struct control_request *request, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(request->error, sizeof(request->error), fmt, ap);
	va_end(ap);
}

static int setup(void **state)
{
	(void)state;
	memset(&fake, 0, sizeof(fake));
	fake.vm.control = (struct control *)&fake; /* somebody */
	strcpy(fake.directory, "/tmp/vmm-ramfb.XXXXXX");
	assert_non_null(mkdtemp(fake.directory));
	fw_cfg_core_init(&fake.core, guest, &fake.vm.memory);
	assert_int_equal(ramfb_create(&fake.vm, &fake.core), 0);
	return 0;
}

static int teardown(void **state)
{
	char path[64];

	(void)state;
	snprintf(path, sizeof(path), "%s/picture", fake.directory);
	unlink(path);
	rmdir(fake.directory);
	fake.device->class->destroy(fake.device);
	fw_cfg_core_free(&fake.core);
	return 0;
}

/* ---- What the guest does ---- */

/* A DMA command: its control word afterwards. */
static uint32_t dma(uint32_t control, uint32_t length, uint64_t address)
{
	const struct {
		uint32_t control, length;
		uint64_t address;
	} command = { htobe32(control), htobe32(length), htobe64(address) };
	uint32_t result;

	memcpy(fake.ram + COMMAND, &command, sizeof(command));
	fw_cfg_dma(&fake.core, COMMAND);
	memcpy(&result, fake.ram + COMMAND, sizeof(result));
	return be32toh(result);
}
enum { ERROR = 1, READ = 2, SELECT = 8, WRITE = 16 };
#define KEY ((uint32_t)FW_CFG_FIRST_FILE << 16)

static void show(uint64_t address, uint32_t format, uint32_t width, uint32_t height, uint32_t stride)
{
	const uint32_t words[] = { htobe32((uint32_t)(address >> 32)),
				   htobe32((uint32_t)address),
				   htobe32(format),
				   0,
				   htobe32(width),
				   htobe32(height),
				   htobe32(stride) };

	memcpy(fake.ram + MODE, words, sizeof(words));
	assert_int_equal(dma(KEY | SELECT | WRITE, sizeof(words), MODE), 0);
}

/* NULL: it was taken; else what is said. */
static const char *screenshot(const char *name)
{
	static struct control_request request;

	memset(&request, 0, sizeof(request));
	snprintf(request.file, sizeof(request.file), "%s/%s", fake.directory, name);
	fake.command->run(&request, fake.opaque);
	assert_int_equal(request.answered, !request.error[0]);
	return request.answered ? NULL : request.error;
}

#define XR24 0x34325258

static void test_picture(void **state)
{
	static const uint8_t dots[2][4] = { { 1, 2, 3, 255 }, { 250, 100, 50, 0 } }; /* blue first */
	uint8_t rgb[3 * 2 * 3];
	png_image image = { .version = PNG_IMAGE_VERSION };
	char path[64];

	(void)state;
	assert_string_equal(screenshot("picture"), "the guest shows no picture");
	memset(fake.ram + PICTURE, 0xee, 64);
	for (unsigned int y = 0; y < 2; y++) /* 3 by 2, lines 16 bytes apart */
		for (unsigned int x = 0; x < 3; x++)
			memcpy(fake.ram + PICTURE + 16 * y + 4 * x, dots[(x + y) % 2], 4);
	show(PICTURE, XR24, 3, 2, 16);
	assert_null(screenshot("picture"));

	snprintf(path, sizeof(path), "%s/picture", fake.directory);
	assert_true(png_image_begin_read_from_file(&image, path));
	assert_int_equal(image.width, 3);
	assert_int_equal(image.height, 2);
	image.format = PNG_FORMAT_RGB;
	assert_true(png_image_finish_read(&image, NULL, rgb, 0, NULL));
	for (unsigned int y = 0; y < 2; y++)
		for (unsigned int x = 0; x < 3; x++)
			for (unsigned int c = 0; c < 3; c++)
				assert_int_equal(rgb[(y * 3 + x) * 3 + c], dots[(x + y) % 2][2 - c]);
	/* A machine that was reset shows nothing. */
	fake.device->class->reset(fake.device);
	assert_string_equal(screenshot("picture"), "the guest shows no picture");
}

static void test_refused(void **state)
{
	static const char *const format = "the guest's picture has a format that is not known here";
	static const char *const outside = "the guest's picture is not in its RAM";
	const struct {
		uint64_t address;
		uint32_t format, width, height, stride;
		const char *why;
	} bad[] = {
		{ PICTURE, 0x34324742, 4, 4, 16, format },   { PICTURE, XR24, 4, 4, 15, format },
		{ PICTURE, XR24, 16385, 1, 0, format },	     { PICTURE, XR24, 1, 16385, 0, format },
		{ PICTURE, XR24, 16384, 16384, 0, format },  { PICTURE, XR24, 0xffffffff, 0xffffffff, 0, format },
		{ PICTURE, XR24, 0x40000001, 1, 4, format }, { PICTURE, XR24, 1, 1, 0xffffffff, format },
		{ RAM - 63, XR24, 4, 4, 16, outside },	     { UINT64_MAX, XR24, 4, 4, 16, outside },
		{ 0, XR24, 512, 513, 0, outside },	     { PICTURE, XR24, 0, 4, 16, "the guest shows no picture" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		show(bad[i].address, bad[i].format, bad[i].width, bad[i].height, bad[i].stride);
		assert_string_equal(screenshot("picture"), bad[i].why);
	}
	show(RAM - 64, XR24, 4, 4, 16);
	assert_null(screenshot("picture"));
	assert_non_null(strstr(screenshot("no/such/place"), "No such file or directory"));
	assert_non_null(strstr(screenshot("."), "Is a directory"));
}

/* Only this file can be written, only as far as it goes, and only from RAM. */
static void test_dma(void **state)
{
	(void)state;
	assert_int_equal(fw_cfg_add(&fake.core, FW_CFG_SIGNATURE, "QEMU", 4), 0);
	assert_int_equal(dma(FW_CFG_SIGNATURE << 16 | SELECT | WRITE, 4, MODE), ERROR);
	assert_int_equal(dma(0x7000u << 16 | SELECT | WRITE, 4, MODE), ERROR);
	assert_int_equal(dma(KEY | SELECT | WRITE, 29, MODE), ERROR);
	assert_int_equal(dma(KEY | SELECT | WRITE, 28, RAM - 27), ERROR);
	assert_int_equal(dma(KEY | SELECT | WRITE, 28, UINT64_MAX - 3), ERROR);
	assert_int_equal(dma(KEY | SELECT | WRITE, 0, MODE), ERROR);
	assert_int_equal(dma(KEY | SELECT | WRITE, 20, MODE), 0);
	assert_int_equal(dma(WRITE, 9, MODE), ERROR);
	assert_int_equal(dma(WRITE, 8, MODE), 0); /* goes on where the last one ended */
	assert_int_equal(dma(WRITE, 1, MODE), ERROR);
}

static void test_without_control(void **state)
{
	(void)state;
	fake.vm.control = NULL;
	assert_int_equal(ramfb_create(&fake.vm, &fake.core), 0);
	assert_int_equal(fake.core.files, 1); /* the first one's */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_picture, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dma, setup, teardown),
		cmocka_unit_test_setup_teardown(test_without_control, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
