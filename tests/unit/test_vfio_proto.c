/* SPDX-License-Identifier: MIT */
/* The messages of vfio-user, encoded and decoded; and the option. */
/* cmocka wants these before itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/vfio-user/proto.h"
#include "devices/vfio-user/vfio_user.h"

static const char *why;

static void put_caps(const char *json, uint8_t *to, size_t *size)
{
	struct vfu_version version = { 0, 0 };

	memcpy(to, &version, sizeof(version));
	*size = sizeof(version);
	if (json) {
		memcpy(to + *size, json, strlen(json) + 1);
		*size += strlen(json) + 1;
	}
}

static int decode_caps(const char *json, unsigned int nr_fds, struct vfu_caps *caps)
{
	uint8_t data[1024];
	size_t size;

	put_caps(json, data, &size);
	return vfu_decode_version(data, size, nr_fds, caps, &why);
}

static void version(void **state)
{
	struct vfu_caps caps;
	uint8_t data[512];
	size_t size = vfu_encode_version(data, sizeof(data));
	json_t *root = json_loads((char *)data + 4, JSON_REJECT_DUPLICATES, NULL), *object;

	(void)state;
	assert_non_null(root);
	assert_int_equal(data[size - 1], 0);
	assert_int_equal(strlen((char *)data + 4) + 5, size);
	object = json_object_get(root, "capabilities");
	assert_true(json_is_true(json_object_get(json_object_get(object, "twin_socket"), "supported")));
	assert_int_equal(json_integer_value(json_object_get(object, "max_msg_fds")), VFU_FDS_MAX);
	json_decref(root);
	/* What we send is what we would accept, but for the descriptor of the twin socket. */
	assert_int_equal(vfu_decode_version(data, size, 1, &caps, &why), -EPROTO);

	assert_int_equal(decode_caps(NULL, 0, &caps), 0);
	assert_int_equal(caps.max_fds, 1);
	assert_int_equal(caps.max_data, VFU_DATA_MAX);
	assert_int_equal(caps.pgsizes, VFU_PAGE);
	assert_int_equal(caps.max_dma_maps, 65535);
	assert_int_equal(caps.twin_index, -1);
	assert_false(caps.write_multiple);
	assert_int_equal(decode_caps("{}", 0, &caps), 0);
	assert_int_equal(decode_caps("{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":4096,\"x\":{},"
				     "\"write_multiple\":true,\"twin_socket\":{\"supported\":true,\"fd_index\":2}}}",
				     3, &caps),
			 0);
	assert_int_equal(caps.max_fds, 8);
	assert_int_equal(caps.max_data, 4096);
	assert_int_equal(caps.twin_index, 2);
	assert_true(caps.write_multiple);
	assert_int_equal(decode_caps("{\"capabilities\":{\"max_msg_fds\":1000000}}", 0, &caps), 0);
	assert_int_equal(caps.max_fds, VFU_FDS_MAX);
	assert_int_equal(decode_caps("{\"capabilities\":{\"twin_socket\":{\"supported\":false}}}", 0, &caps), 0);
	/* The table of what is refused is in tests/guests/cases_vfio_user.py. */
	for (size_t n = 0; n < 4; n++)
		assert_int_equal(vfu_decode_version(data, n, 0, &caps, &why), -EPROTO);
}

static void headers(void **state)
{
	struct vfu_header h = { .size = sizeof(h) };

	(void)state;
	assert_int_equal(vfu_check_header(&h, &why), 0);
	h.size = sizeof(h) + VFU_MESSAGE_MAX;
	assert_int_equal(vfu_check_header(&h, &why), 0);
	h.size++;
	assert_int_equal(vfu_check_header(&h, &why), -EPROTO);
	h.size = sizeof(h) - 1;
	assert_int_equal(vfu_check_header(&h, &why), -EPROTO);
	assert_int_equal(sizeof(struct vfu_header), 16);
	assert_int_equal(sizeof(struct vfu_dma_map), 32);
	assert_int_equal(sizeof(struct vfu_dma_unmap), 24);
	assert_int_equal(sizeof(struct vfu_region_info), 32);
	assert_int_equal(sizeof(struct vfu_io_fd_40), 40);
	assert_int_equal(sizeof(struct vfu_io_fd_48), 48);
	assert_int_equal(sizeof(struct vfu_set_irqs), 20);
	assert_int_equal(sizeof(struct vfu_write_one), 24);
}

struct region_reply {
	struct vfu_region_info info;
	struct vfu_cap_sparse cap;
	struct vfu_wire_area areas[16];
};

static int decode_region(struct region_reply *r, unsigned int areas, struct vfu_region *region)
{
	uint32_t argsz = VFU_REPLY_ARGSZ;
	size_t size = offsetof(struct region_reply, areas) + areas * sizeof(r->areas[0]);

	r->info.argsz = (uint32_t)size;
	r->info.index = 2;
	r->cap.nr_areas = areas;
	return vfu_decode_region(r, size, 2, &argsz, region, &why);
}

static void regions(void **state)
{
	struct region_reply r = { .info = { .flags = 15, .cap_offset = sizeof(r.info), .size = 0x100000, .offset = 0 },
				  .cap = { .header = { VFU_CAP_SPARSE_MMAP, 1, 0 } } };
	struct vfu_region region;
	uint32_t argsz = 32;

	(void)state;
	/* Sorted; what overlaps, is no whole page or is empty is left out. */
	r.areas[0] = (struct vfu_wire_area){ 0x8000, 0x1000 };
	r.areas[1] = (struct vfu_wire_area){ 0x1000, 0x2000 };
	r.areas[2] = (struct vfu_wire_area){ 0x2000, 0x2000 };
	r.areas[3] = (struct vfu_wire_area){ 0x7000, 0x1001 };
	r.areas[4] = (struct vfu_wire_area){ 0, 0 };
	r.areas[5] = (struct vfu_wire_area){ 0xff000, 0x1000 };
	r.areas[6] = (struct vfu_wire_area){ 0x7000, 0x2000 };
	assert_int_equal(decode_region(&r, 7, &region), 0);
	assert_int_equal(region.nr_areas, 3);
	assert_int_equal(region.dropped_areas, 4);
	assert_int_equal(region.areas[0].offset, 0x1000);
	assert_int_equal(region.areas[1].offset, 0x8000);
	assert_int_equal(region.areas[2].offset, 0xff000);
	for (unsigned int i = 0; i < 16; i++)
		r.areas[i] = (struct vfu_wire_area){ i * 0x2000ULL, 0x1000 };
	assert_int_equal(decode_region(&r, 16, &region), 0);
	assert_int_equal(region.nr_areas, VFU_AREAS_MAX);
	assert_int_equal(region.dropped_areas, 4);
	/* Without a list all of it can be mapped, in pages; without the flag nothing. */
	r.info.flags = 7;
	r.info.size = 0x12345;
	assert_int_equal(decode_region(&r, 0, &region), 0);
	assert_int_equal(region.nr_areas, 1);
	assert_int_equal(region.areas[0].size, 0x12000);
	r.info.flags = 3;
	assert_int_equal(decode_region(&r, 0, &region), 0);
	assert_int_equal(region.nr_areas, 0);
	r.info.flags = 11;
	r.cap.header.id = VFU_CAP_MSIX_MAPPABLE;
	assert_int_equal(decode_region(&r, 0, &region), 0);
	assert_true(region.msix_mappable);
	/* A reply that needs more room. */
	r.info.argsz = 80;
	assert_int_equal(vfu_decode_region(&r, 32, 2, &argsz, &region, &why), 0);
	assert_int_equal(argsz, 80);
	assert_int_equal(region.size, 0);
}

static void io_fds(void **state)
{
	struct {
		struct vfu_io_fds head;
		struct vfu_io_fd_48 e[2];
	} big = { .head = { .argsz = 112, .index = 1, .count = 2 } };
	struct {
		struct vfu_io_fds head;
		struct vfu_io_fd_40 e[2];
	} small = { .head = { .argsz = 96, .index = 1, .count = 2 } };
	const struct vfu_region region = { .size = 0x1000 };
	struct vfu_io_fd fds[VFU_IO_FDS_MAX];
	uint32_t argsz = VFU_REPLY_ARGSZ;

	(void)state;
	big.e[0] = (struct vfu_io_fd_48){ .offset = 8, .size = 4, .fd_index = 1, .flags = 1, .datamatch = 5 };
	big.e[1] = (struct vfu_io_fd_48){
		.offset = 16, .size = 8, .type = VFU_IOEVENTFD_SHADOW, .shadow_fd_index = 1, .shadow_offset = 24
	};
	assert_int_equal(vfu_decode_io_fds(&big, sizeof(big), &region, 1, 2, &argsz, fds, &why), 2);
	assert_true(fds[0].match && fds[0].datamatch == 5 && fds[0].fd_index == 1);
	assert_true(fds[1].type == VFU_IOEVENTFD_SHADOW && fds[1].shadow_offset == 24 && fds[1].shadow_index == 1);
	small.e[0] = (struct vfu_io_fd_40){ .offset = 8, .size = 2, .flags = 1, .datamatch = 7 };
	small.e[1] = (struct vfu_io_fd_40){ .offset = 8, .size = 2, .type = VFU_IOEVENTFD_SHADOW };
	assert_int_equal(vfu_decode_io_fds(&small, sizeof(small), &region, 1, 2, &argsz, fds, &why), 1);
	assert_true(fds[0].datamatch == 7 && fds[0].size == 2);
	/* A layout that nobody knows, a list that is not there, one that needs more room. */
	small.head.argsz = 97;
	assert_int_equal(vfu_decode_io_fds(&small, sizeof(small), &region, 1, 2, &argsz, fds, &why), 1);
	small.head.argsz = 116;
	assert_int_equal(vfu_decode_io_fds(&small, sizeof(small), &region, 1, 2, &argsz, fds, &why), 0);
	assert_int_equal(vfu_decode_io_fds(&big, sizeof(big) - 1, &region, 1, 2, &argsz, fds, &why), 0);
	argsz = 16;
	assert_int_equal(vfu_decode_io_fds(&big, 16, &region, 1, 2, &argsz, fds, &why), -EAGAIN);
	assert_int_equal(argsz, 112);
}

static void accesses(void **state)
{
	const struct vfu_region_access asked = { .offset = 4, .region = 0, .count = 4 };
	struct {
		struct vfu_region_access access;
		uint32_t data[2];
	} reply = { asked, { 0x11223344, 0 } };
	struct {
		struct vfu_dma_access access;
		uint8_t data[8];
	} request = { { 0x1000, 8 }, { 0 } };
	struct vfu_dma_access access;
	const void *data;

	(void)state;
	assert_int_equal(vfu_decode_access(&reply, 20, true, &asked, &data), 0);
	assert_memory_equal(data, reply.data, 4);
	assert_int_equal(vfu_decode_access(&reply, 16, false, &asked, &data), 0);
	assert_int_equal(vfu_decode_access(&reply, 16, true, &asked, &data), -EPROTO);
	assert_int_equal(vfu_decode_access(&reply, 24, true, &asked, &data), -EPROTO);
	assert_int_equal(vfu_decode_access(&reply, 8, false, &asked, &data), -EPROTO);
	reply.access.count = 3;
	assert_int_equal(vfu_decode_access(&reply, 20, true, &asked, &data), -EPROTO);

	assert_int_equal(vfu_decode_dma(&request, 24, true, &access, &data), 0);
	assert_int_equal(vfu_decode_dma(&request, 16, false, &access, &data), 0);
	assert_int_equal(vfu_decode_dma(&request, 23, true, &access, &data), -EINVAL);
	assert_int_equal(vfu_decode_dma(&request, 24, false, &access, &data), -EINVAL);
	assert_int_equal(vfu_decode_dma(&request, 15, false, &access, &data), -EINVAL);
	request.access.count = 0;
	assert_int_equal(vfu_decode_dma(&request, 16, false, &access, &data), -EINVAL);
	request.access.count = VFU_DATA_MAX + 1;
	assert_int_equal(vfu_decode_dma(&request, 16, false, &access, &data), -E2BIG);
	request.access.count = UINT64_MAX;
	assert_int_equal(vfu_decode_dma(&request, 16, true, &access, &data), -E2BIG);
}

static void infos(void **state)
{
	struct vfu_device_info info = { .argsz = 16, .flags = 3, .num_regions = 9, .num_irqs = 5 }, got;
	struct vfu_irq_info irq = { .index = 2, .count = UINT32_MAX }, got_irq;

	(void)state;
	assert_int_equal(vfu_decode_device_info(&info, sizeof(info), &got, &why), 0);
	assert_int_equal(got.num_irqs, 5);
	assert_int_equal(vfu_decode_device_info(&info, 15, &got, &why), -EPROTO);
	assert_int_equal(vfu_decode_irq_info(&irq, sizeof(irq), 2, &got_irq, &why), 0);
	assert_int_equal(got_irq.count, UINT32_MAX);
	assert_int_equal(vfu_decode_irq_info(&irq, sizeof(irq), 1, &got_irq, &why), -EPROTO);
	assert_int_equal(vfu_decode_irq_info(&irq, 15, 2, &got_irq, &why), -EPROTO);
}

static void options(void **state)
{
	struct vfio_user_options o;
	char err[512];

	(void)state;
	assert_int_equal(vfio_user_parse("socket=/x", &o, err, sizeof(err)), 0);
	assert_true(o.timeout_ms == 1000 && o.posted && !o.secure_dma && !o.reconnect);
	assert_int_equal(
		vfio_user_parse("timeout=7,socket=/x,secure-dma=on,reconnect=on,posted=off", &o, err, sizeof(err)), 0);
	assert_true(o.timeout_ms == 7 && !o.posted && o.secure_dma && o.reconnect);
	assert_string_equal(o.socket, "/x");
	assert_int_equal(vfio_user_parse("socket=/x,,", &o, err, sizeof(err)), -EINVAL);
	assert_int_equal(vfio_user_parse("", &o, err, sizeof(err)), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(version), cmocka_unit_test(headers),  cmocka_unit_test(regions),
		cmocka_unit_test(io_fds),  cmocka_unit_test(accesses), cmocka_unit_test(infos),
		cmocka_unit_test(options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
