/* SPDX-License-Identifier: MIT */
/* What the tests of vfio-user share: the guest's RAM, and a server that asks for it. */
#ifndef TESTS_UNIT_VFIO_USER_FAKE_H
#define TESTS_UNIT_VFIO_USER_FAKE_H

/* cmocka wants these before itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <sys/socket.h>

#include "devices/vfio-user/wire.h"
#include "tests/unit/trace_fake.h"
#include "vmm/memory.h"

#define RAM_SIZE 65536u

void *ram_ptr(const struct memory *mem, uint64_t gpa, uint64_t len)
{
	return len && gpa < mem->low_size && len <= mem->low_size - gpa ? mem->host + gpa : NULL;
}

static inline struct memory make_memory(uint8_t *ram)
{
	return (struct memory){ .host = ram, .size = RAM_SIZE, .low_size = RAM_SIZE, .fd = -1 };
}

static inline void ask(int fd, uint16_t command, uint32_t flags, const void *payload, size_t size)
{
	struct vfu_header h = { .id = 9, .command = command, .size = (uint32_t)(sizeof(h) + size), .flags = flags };
	uint8_t data[256];

	memcpy(data, &h, sizeof(h));
	if (size)
		memcpy(data + sizeof(h), payload, size);
	assert_int_equal(send(fd, data, h.size, 0), h.size);
}

#endif
