/* SPDX-License-Identifier: MIT */
/*
 * Rings as nobody should use them. After each attack the channel is opened again and has packets echoed. Arguments:
 * test=NAME, cpus=N. Wants --vmbus and the vmbus-test device.
 */
#include "rt/io.h"
#include "rt/rt.h"
#include "rt/vmbus.h"
#include "rt/vmbus_test.h"

#define SCRATCH 0xe00 /* PFN of a page that anybody may write to: at 14 MiB */
#define NOWHERE 0xfffffffffff00ULL
#define QUIET	1500 /* microseconds without a message: the host is done */

static uint32_t relid;

static void drop_gpadl(uint32_t handle)
{
	vb_post((uint32_t[]){ VB_GPADL_TEARDOWN, 0, relid, handle }, 16);
	vb_drain(QUIET);
}

/* Indices, lengths and offsets that cannot be, in every field of the rings. */
static void reopen_good(struct vb_channel *ch)
{
	vb_drain(QUIET);
	vb_send_close(relid);
	vb_drain(QUIET);
	drop_gpadl(ch->gpadl);
	CHECK_EQ(vb_reopen(ch, 0), 0);
	vt_echo(ch, 40);
}

static void test_indices(void)
{
	static const uint32_t values[] = { 1,		4,	    8,		VB_PAGE - 8, VB_PAGE - 1, VB_PAGE,
					   VB_PAGE + 8, 0x7ffffff8, 0x80000000, 0xfffffff8,  0xffffffff };
	struct vb_channel ch;

	CHECK_EQ(vt_open(&ch, 1, 1, 0), 0);
	for (unsigned int field = VB_WRITE; field <= VB_PENDING; field++) {
		for (unsigned int i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
			for (unsigned int in = 0; in < 2; in++) {
				struct vb_ring *ring = in ? &ch.in : &ch.out;

				ring->control[field] = values[i];
				vb_signal(&ch);
				vt_provoke(&ch); /* make it write, too */
				vb_signal(&ch);
			}
			reopen_good(&ch);
		}
	}
	/* From the start. */
	for (unsigned int i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		uint32_t status;

		vb_send_close(relid);
		ch.out.control[VB_WRITE] = i & 1 ? values[i] : 0;
		ch.out.control[VB_READ] = i & 1 ? 0 : values[i];
		ch.in.control[VB_WRITE] = i & 2 ? values[i] : 0;
		ch.in.control[VB_READ] = i & 2 ? 0 : values[i];
		status = vb_send_open(&ch, 9, 0, 2);
		if (!status)
			vb_signal(&ch);
		reopen_good(&ch);
	}
	vb_close(&ch);
	vt_anew();
}

static void test_packets(void)
{
	static const uint16_t lengths[] = { 0, 1, 2, 3, 4, 100, 510, 511, 512, 513, 0x7fff, 0x8000, 0xffff };
	static const uint16_t types[] = { 0, VB_INBAND, VB_TRANSFER, 8, VB_GPA_DIRECT, VB_COMPLETION, 0xffff };
	uint64_t bytes[16];
	struct vb_channel ch;

	CHECK_EQ(vt_open(&ch, 1, 1, 0), 0);
	for (unsigned int i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		for (unsigned int j = 0; j < sizeof(lengths) / sizeof(lengths[0]); j += 2) {
			struct vb_packet packet = { types[(i + j) % 7], lengths[j], lengths[i], (uint16_t)(i ^ j),
						    ~0ULL };

			memset(bytes, i % 3 ? 0xff : 0, sizeof(bytes));
			memcpy(bytes, &packet, sizeof(packet));
			vb_put_raw(&ch.out, bytes, 8u << j % 5);
			vb_signal(&ch);
		}
		reopen_good(&ch);
	}
	vb_close(&ch);
	vt_anew();
}

/* GPA_DIRECT and TRANSFER_PAGES with lists of ranges that lie. */
static void test_ranges(void)
{
	static const struct {
		uint32_t count, length, offset;
		uint64_t pfn;
	} bad[] = {
		{ 0, 0, 0, 0 },
		{ 1, 0, 0, SCRATCH },
		{ 1, 8, VB_PAGE, SCRATCH },
		{ 1, 8, 0xffffffff, SCRATCH },
		{ 1, 0xffffffff, 0, SCRATCH },
		{ 1, 0xffffffff, 1, SCRATCH },
		{ 1, 2 * VB_PAGE, 0, SCRATCH },
		{ 1, VB_PAGE, 0, NOWHERE },
		{ 1, VB_PAGE, 0, 0xffffffffffffffff },
		{ 1, VB_PAGE, 0, 0xfee00 },
		{ 2, VB_PAGE, 0, SCRATCH },
		{ 0xffff, 8, 0, SCRATCH },
		{ 0x10000000, 8, 0, SCRATCH },
		{ 0xffffffff, 8, 0, SCRATCH },
	};
	struct vb_channel ch;

	CHECK_EQ(vt_open(&ch, 1, 1, 0), 0);
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint64_t extra[3] = { (uint64_t)bad[i].count << 32, (uint64_t)bad[i].offset << 32 | bad[i].length,
				      bad[i].pfn };

		for (uint32_t size = 0; size <= 24; size += 8) {
			vb_send2(&ch, VB_GPA_DIRECT, 1, 5, extra, size, extra, 16);
			vb_send2(&ch, VB_TRANSFER, 1, 5, extra, size, extra, 16);
		}
		reopen_good(&ch);
	}
	vb_close(&ch);
	vt_anew();
}

/* Another VP changes what the host reads. */
static void test_flip(void)
{
	static const uint32_t values[] = { 0xffffffff, VB_PAGE, 4, 0x80000000, 16 };
	uint64_t bytes[8] = { 0 };
	struct vb_packet packet = { VB_INBAND, 2, 7, 1, 3 };
	struct vb_channel ch;

	memcpy(bytes, &packet, sizeof(packet));
	CHECK_EQ(vt_open(&ch, 1, 1, 0), 0);
	for (unsigned int field = 0; field < 6; field++) {
		for (unsigned int i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
			volatile uint32_t *at = &ch.out.control[field % 3];

			if (field >= 3) /* type and offset, length and flags, and what the device looks at */
				at = (volatile uint32_t *)(ch.out.data + ch.out.control[VB_WRITE] + 4 * (field - 3) +
							   (field == 5 ? 8 : 0));
			vb_put_raw(&ch.out, bytes, 64);
			vt_flip(at, *at, values[i]);
			for (unsigned int n = 0; n < 30; n++) {
				if (field >= 3 && ch.out.control[VB_WRITE] < VB_PAGE - 64)
					ch.out.control[VB_WRITE] += 64;
				vb_signal(&ch);
			}
			vt_flipped();
			vt_flip(&ch.in.control[field % 3], 0, values[i]);
			for (unsigned int n = 0; n < 10; n++)
				vt_provoke(&ch);
			vt_flipped();
			reopen_good(&ch);
		}
	}
	vb_close(&ch);
	vt_anew();
}

static const struct {
	const char *name;
	void (*run)(void);
	void (*others)(unsigned int n);
} tests[] = {
	{ "indices", test_indices, NULL },
	{ "packets", test_packets, NULL },
	{ "ranges", test_ranges, NULL },
	{ "flip", test_flip, vt_flipper },
};

void guest_main(void)
{
	for (unsigned int i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		if (rt_arg_is("test", tests[i].name)) {
			vb_start((unsigned int)rt_arg_number("cpus", 1), tests[i].others);
			vb.lenient = true;
			vt_anew();
			relid = vt_offer(0)->relid;
			tests[i].run();
			rt_print("survived\n");
			return;
		}
	}
	CHECK(!"a test of this name");
}
