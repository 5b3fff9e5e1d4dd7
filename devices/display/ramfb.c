/* SPDX-License-Identifier: MIT */
/*
 * The file has 28 bytes, big-endian: address, format, flags, width, height, bytes a line (QEMU, hw/display/ramfb.c;
 * edk2, OvmfPkg/QemuRamfbDxe). Nothing is done with the picture until somebody asks for it. The guest draws meanwhile,
 * so a line may be half old and half new; it is read once, and nothing else of it is believed.
 */
#include "devices/display/ramfb.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <png.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "firmware/fw_cfg_core.h"
#include "vmm/control.h"
#include "vmm/device.h"
#include "vmm/log.h"
#include "vmm/memory.h"
#include "vmm/vm.h"

#define FILE_NAME  "etc/ramfb"
#define XRGB8888   0x34325258u /* DRM's code, "XR24": blue, green, red and an idle byte */
#define PIXEL	   4u
#define SIDE_MAX   16384u
#define PIXELS_MAX (16u << 20)

struct mode {
	uint64_t address;
	uint32_t format, flags, width, height, stride;
} __attribute__((packed));

struct ramfb {
	struct device dev;
	struct fw_cfg_core *core;
	unsigned int key;
	pthread_mutex_t lock;
	struct mode mode; /* as the guest has written it */
};

/* By a vCPU, with fw_cfg's lock. */
static void mode_written(void *opaque)
{
	struct ramfb *r = opaque;

	pthread_mutex_lock(&r->lock);
	memcpy(&r->mode, r->core->items[r->key].data, sizeof(r->mode));
	pthread_mutex_unlock(&r->lock);
}

static struct mode get_mode(struct ramfb *r)
{
	struct mode mode;

	pthread_mutex_lock(&r->lock);
	mode = r->mode;
	pthread_mutex_unlock(&r->lock);
	mode.address = be64toh(mode.address);
	mode.format = be32toh(mode.format);
	mode.width = be32toh(mode.width);
	mode.height = be32toh(mode.height);
	mode.stride = be32toh(mode.stride);
	if (!mode.stride)
		mode.stride = mode.width * PIXEL;
	return mode;
}

/* The picture in RAM, or NULL and why not. */
static const uint8_t *find_picture(struct ramfb *r, const struct mode *mode, const char **why)
{
	const uint8_t *picture;

	*why = "the guest shows no picture";
	if (!mode->width || !mode->height)
		return NULL;
	*why = "the guest's picture has a format that is not known here";
	if (mode->format != XRGB8888 || mode->width > SIDE_MAX || mode->height > SIDE_MAX ||
	    mode->width * mode->height > PIXELS_MAX || mode->stride < mode->width * PIXEL ||
	    mode->stride > SIDE_MAX * PIXEL)
		return NULL;
	*why = "the guest's picture is not in its RAM";
	picture = ram_ptr(&r->dev.vm->memory, mode->address, (uint64_t)mode->stride * mode->height);
	return picture;
}

/* Red, green, blue; NULL when out of memory. */
static uint8_t *copy_pixels(const struct mode *mode, const uint8_t *picture)
{
	uint8_t *rgb = malloc((size_t)mode->width * mode->height * 3), *to = rgb;

	for (uint32_t y = 0; rgb && y < mode->height; y++) {
		const uint8_t *from = picture + (size_t)y * mode->stride;

		for (uint32_t x = 0; x < mode->width; x++, from += PIXEL) {
			*to++ = from[2];
			*to++ = from[1];
			*to++ = from[0];
		}
	}
	return rgb;
}

static int write_png(const struct mode *mode, const uint8_t *rgb, const char *path)
{
	png_image image = {
		.version = PNG_IMAGE_VERSION,
		.width = mode->width,
		.height = mode->height,
		.format = PNG_FORMAT_RGB,
		.flags = PNG_IMAGE_FLAG_FAST,
	};
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0666), ret = 0;
	FILE *file = fd < 0 ? NULL : fdopen(fd, "w");

	if (!file) {
		ret = -errno;
		if (fd >= 0)
			close(fd);
		return ret;
	}
	errno = 0;
	if (!png_image_write_to_stdio(&image, file, 0, rgb, 0, NULL))
		ret = errno ? -errno : -EIO;
	if (fclose(file) && !ret)
		ret = -errno;
	return ret;
}

static void run_screenshot(struct control_request *request, void *opaque)
{
	struct ramfb *r = opaque;
	const char *path = control_string(request, "file", ""), *why;
	struct mode mode = get_mode(r);
	const uint8_t *picture = find_picture(r, &mode, &why);
	uint8_t *rgb;
	int ret;

	if (!picture) {
		control_fail(request, "%s", why);
		return;
	}
	rgb = copy_pixels(&mode, picture);
	ret = rgb ? write_png(&mode, rgb, path) : -ENOMEM;
	free(rgb);
	if (ret)
		control_fail(request, "%s: %s", path, strerror(-ret));
	else
		control_answer(request, json_pack("{s:i,s:i}", "width", (int)mode.width, "height", (int)mode.height));
}

static const struct control_command commands[] = {
	{ .name = "screenshot",
	  .help = "writes the guest's picture to a PNG file",
	  .run = run_screenshot,
	  .arguments = { { .name = "file", .required = true, .help = "the host's file, as vmm finds it" } } },
};

static void ramfb_reset(struct device *dev)
{
	struct ramfb *r = (struct ramfb *)dev;

	memset(r->core->items[r->key].data, 0, sizeof(r->mode));
	mode_written(r);
}

static void ramfb_destroy(struct device *dev)
{
	struct ramfb *r = (struct ramfb *)dev;

	pthread_mutex_destroy(&r->lock);
	free(r);
}

static const struct device_class ramfb_class = { .name = "ramfb", .reset = ramfb_reset, .destroy = ramfb_destroy };

int ramfb_create(struct vm *vm, struct fw_cfg_core *core)
{
	struct ramfb *r;
	int ret;

	if (!vm->control)
		return 0;
	r = calloc(1, sizeof(*r));
	ret = r ? fw_cfg_add_file(core, FILE_NAME, NULL, sizeof(r->mode)) : -ENOMEM;

	if (ret >= 0) {
		r->core = core;
		r->key = (unsigned int)ret;
		core->items[ret].written = mode_written;
		core->items[ret].opaque = r;
		ret = control_add(vm->control, commands, sizeof(commands) / sizeof(commands[0]), r);
	}
	if (ret) {
		log_line("ramfb: %s", strerror(-ret));
		free(r);
		return ret;
	}
	pthread_mutex_init(&r->lock, NULL);
	device_register(vm, &r->dev, &ramfb_class);
	return 0;
}
