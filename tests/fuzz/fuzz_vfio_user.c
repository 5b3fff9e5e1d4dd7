/* SPDX-License-Identifier: MIT */
/*
 * A vfio-user server: the input is what it sends. The first byte says how: to a client that sets a connection up, with
 * descriptors now and then and replies made to fit (id and command), or to one that has and asks for a register.
 */
#include <assert.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/vfio-user/attach.h"
#include "devices/vfio-user/link.h"
#include "devices/vfio-user/vfio_user.h"
#include "tests/unit/trace_fake.h"
#include "vmm/memory.h"

#define RAM_SIZE 65536u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

void *ram_ptr(const struct memory *mem, uint64_t gpa, uint64_t len)
{
	return len && gpa < mem->low_size && len <= mem->low_size - gpa ? mem->host + gpa : NULL;
}

static bool on_ending(void *opaque)
{
	(void)opaque;
	return false;
}

static void on_text(void *opaque, const char *text)
{
	(void)opaque;
	assert(*text);
}

static void on_look(void *opaque)
{
	(void)opaque;
}

/* Nobody is ever late: the input ends with the end of the stream. */
static void on_wake(void *opaque, pthread_t thread)
{
	(void)opaque;
	(void)thread;
	assert(false);
}

static const struct vfu_link_ops ops = { on_ending, on_ending, on_text, on_look, on_text, on_look, on_wake };

static void send_with_fd(int to, const uint8_t *data, size_t size, bool with_fd)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { (void *)data, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c = (struct cmsghdr *)control;

	if (with_fd) {
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &to, sizeof(int));
	}
	(void)!sendmsg(to, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* What an honest server would say, so that an input need not know it to get further. */
static size_t canned(const struct vfu_header *h, const uint8_t *request, uint8_t *to)
{
	struct vfu_device_info device = { .argsz = sizeof(device), .flags = 3, .num_regions = 9, .num_irqs = 5 };
	struct vfu_region_info region;
	struct vfu_region_access access;
	uint32_t words[4];

	switch (h->command) {
	case VFU_VERSION:
		memset(to, 0, 4);
		return 4;
	case VFU_DEVICE_GET_INFO:
		memcpy(to, &device, sizeof(device));
		return sizeof(device);
	case VFU_GET_REGION_INFO:
		memcpy(&region, request, sizeof(region));
		region = (struct vfu_region_info){ .argsz = sizeof(region),
						   .flags = 3,
						   .index = region.index,
						   .size = region.index == VFU_REGION_VGA ? 0 : 4096 };
		memcpy(to, &region, sizeof(region));
		return sizeof(region);
	case VFU_GET_REGION_IO_FDS:
	case VFU_GET_IRQ_INFO:
		memcpy(words, request, sizeof(words));
		words[0] = 16;
		words[1] = 1;
		memcpy(to, words, sizeof(words));
		return sizeof(words);
	case VFU_REGION_READ:
		memcpy(&access, request, sizeof(access));
		memcpy(to, &access, sizeof(access));
		memset(to + sizeof(access), 0, access.count);
		return sizeof(access) + access.count;
	default:
		return 0;
	}
}

/* The pieces of the input are payloads of replies that are otherwise right, so that all steps are reached. */
static void fuzz_attach(struct memory *memory, const uint8_t *data, size_t size, bool fit)
{
	struct vfu_info *info = vfu_info_new();
	struct vfu_attach a;
	int pair[2];

	assert(info && socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
	vfu_attach_begin(&a, pair[0], memory, false, info);
	while (vfu_attach_run(&a) == 1 && size > 4) {
		size_t n = data[0] | (size_t)data[1] << 8;
		uint8_t message[16 + 16 + 65536], drain[4096];
		struct vfu_header h = { 0 };
		size_t length;

		while (recv(pair[1], drain, sizeof(drain), MSG_DONTWAIT) > 0)
			memcpy(&h, drain, sizeof(h));
		n = n < size - 4 ? n : size - 4;
		length = n;
		h.flags = VFU_TYPE_REPLY | (data[2] & 0x20);
		memcpy(message + sizeof(h), data + 4, n);
		if (!n)
			length = canned(&h, drain + sizeof(h), message + sizeof(h));
		h.size = (uint32_t)(sizeof(h) + length);
		memcpy(message, &h, sizeof(h));
		if (fit)
			send_with_fd(pair[1], message, h.size, data[3] & 1);
		else
			send_with_fd(pair[1], data + 4, n, data[3] & 1);
		data += 4 + n;
		size -= 4 + n;
	}
	vfu_attach_end(&a);
	vfu_info_free(info);
	close(pair[1]);
}

static void fuzz_link(struct memory *memory, const uint8_t *data, size_t size)
{
	const struct vfu_caps caps = { .max_data = 4096, .max_fds = 8 };
	struct vfu_stream s;
	struct vfu_link link;
	uint64_t value;
	int pair[2];

	assert(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	vfu_stream_init(&s, pair[0]);
	vfu_link_init(&link, &ops, NULL, memory, 1000000);
	vfu_link_start(&link, &s, &caps, true, false);
	send_with_fd(pair[1], data, size, size & 1);
	shutdown(pair[1], SHUT_WR);
	vfu_link_write(&link, 0, 0, 4, 0, true);
	vfu_link_read(&link, 0, 0, 8, &value);
	vfu_link_poll(&link);
	vfu_link_kill(&link, "end");
	assert(vfu_link_close(&link));
	vfu_link_destroy(&link);
	close(pair[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t ram[RAM_SIZE];
	struct memory memory = { .host = ram, .size = RAM_SIZE, .low_size = RAM_SIZE, .fd = -1 };
	int fd = dup(0), after;

	close(fd);
	if (!size)
		return 0;
	if (data[0] & 2)
		fuzz_link(&memory, data + 1, size - 1);
	else
		fuzz_attach(&memory, data + 1, size - 1, data[0] & 1);
	/* No descriptor is left behind. */
	after = dup(0);
	assert(after == fd);
	close(after);
	return 0;
}
