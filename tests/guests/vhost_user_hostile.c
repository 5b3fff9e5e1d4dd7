/* SPDX-License-Identifier: MIT */
/*
 * A guest that does to the virtio transport what no driver would. The back-end hears only of what makes sense (it
 * prints what does not), and after each of the tests a driver that resets the device finds it as good as new.
 */
#include "rt/apic.h"
#include "rt/io.h"
#include "rt/pci.h"
#include "rt/rt.h"
#include "rt/vut.h"

#define QUEUES	  4
#define BAR0_SIZE 0x4000u

static struct virtio v;
static struct vq q[VQ_MAX];
static uint64_t bar0, bar1;
static uint32_t seed;

static uint32_t draw(void)
{
	seed = seed * 1664525 + 1013904223;
	return seed >> 8;
}

static void as_good_as_new(void)
{
	CHECK(virtio_reset(&v));
	vut_start(&v, q, QUEUES, 0);
	for (unsigned int i = 0; i < QUEUES; i++) {
		vut_echo(&q[i], 64, i);
		CHECK(rt_wait((uint8_t)(VUT_VECTOR + 1 + i), 1, VUT_LONG));
	}
	CHECK_EQ(vut_info(&q[0], VUT_INFO_FAULTS, 0), 0);
	CHECK_EQ(vut_info(&q[0], VUT_INFO_CONNECTIONS, 0), 1);
}

/* -- rings that are not where they should be */

static void addresses(void)
{
	static const uint64_t bad[] = { UINT64_MAX, UINT64_MAX - 4095, 1ULL << 63, 0x8000000000001000, 0x80000000,
					0x3fffff0,  0x3fff000,	       1,	   0xfee00000,	       0x100000000 };

	for (unsigned int i = 0; i < 3 * sizeof(bad) / sizeof(bad[0]); i++) {
		uint64_t to = bad[i / 3];
		unsigned int which = i % 3;

		CHECK(virtio_negotiate(&v, vut_features()));
		virtio_queue(&v, &q[0], 0, 0, VIRTIO_NO_VECTOR);
		virtio_queue(&v, &q[1], 1, 0, VIRTIO_NO_VECTOR);
		/* The second one again, with one address changed: too late for it, or bad. */
		virtio_select(&v, 1);
		write32(v.common + VC_QUEUE_DESC + 8 * which, (uint32_t)to);
		write32(v.common + VC_QUEUE_DESC + 8 * which + 4, (uint32_t)(to >> 32));
		virtio_select(&v, 2);
		for (unsigned int n = 0; n < 3; n++) {
			uint64_t at = n == which ? to : q[1].desc + 0x10000 + 0x4000 * n;

			write32(v.common + VC_QUEUE_DESC + 8 * n, (uint32_t)at);
			write32(v.common + VC_QUEUE_DESC + 8 * n + 4, (uint32_t)(at >> 32));
		}
		write16(v.common + VC_QUEUE_ENABLE, 1);
		virtio_status(&v, VS_DRIVER_OK);
		vq_kick(&q[0]);
		write16(v.notify + 2 * v.multiplier, 2);
	}
	/* Into the BARs of the device itself. */
	CHECK(virtio_negotiate(&v, vut_features()));
	virtio_select(&v, 0);
	write32(v.common + VC_QUEUE_DESC, (uint32_t)v.common);
	write32(v.common + VC_QUEUE_DRIVER, (uint32_t)v.notify);
	write32(v.common + VC_QUEUE_DEVICE, (uint32_t)v.isr);
	write16(v.common + VC_QUEUE_ENABLE, 1);
	virtio_status(&v, VS_DRIVER_OK);
	vq_kick(&q[0]);
	as_good_as_new();
}

static void sizes(void)
{
	static const uint16_t bad[] = { 0, 3, 255, 257, 1025, 0x8000, 0xffff, 4096 };

	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint16_t size;

		CHECK(virtio_negotiate(&v, vut_features()));
		virtio_queue(&v, &q[0], 0, 64, VIRTIO_NO_VECTOR);
		virtio_select(&v, 1);
		write16(v.common + VC_QUEUE_SIZE, bad[i]);
		size = read16(v.common + VC_QUEUE_SIZE);
		CHECK(size <= 1024);
		for (unsigned int n = 0; n < 3; n++)
			write32(v.common + VC_QUEUE_DESC + 8 * n, (uint32_t)(q[0].desc + 0x10000 + 0x4000 * n));
		write16(v.common + VC_QUEUE_ENABLE, 1);
		write16(v.common + VC_QUEUE_SIZE, 8);	/* enabled: too late */
		write16(v.common + VC_QUEUE_ENABLE, 0); /* not for the driver to write */
		virtio_status(&v, VS_DRIVER_OK);
		write16(v.common + VC_QUEUE_SIZE, 16);
		write16(v.notify + v.multiplier, 1);
	}
	as_good_as_new();
}

/* -- what is in a ring */

static void split_rings(void)
{
	for (unsigned int i = 0; i < 6; i++) {
		struct vq_part part = { i == 0	 ? UINT64_MAX - 8
					: i == 1 ? bar0
						 : 0x1000000,
					i == 2 ? UINT32_MAX : 64, false };

		CHECK(virtio_reset(&v));
		vut_start(&v, q, 2, 0);
		vut_echo(&q[1], 64, i);
		vq_add(&q[1], 0, &part, 1);
		switch (i) {
		case 3: /* available far ahead */
			write16(q[1].driver + 2, (uint16_t)(q[1].next + 5000));
			break;
		case 4: /* a chain in a circle */
			write32(q[1].desc + 12, 1);
			break;
		case 5: /* beyond the table */
			write16(q[1].driver + 4 + 2ULL * ((q[1].next - 1) % q[1].size), 0x7fff);
			break;
		}
		vq_kick(&q[1]);
		for (unsigned int n = 0; n < 3; n++)
			vut_echo(&q[0], 64, n);
	}
}

static void packed_rings(void)
{
	for (unsigned int i = 0; i < 3; i++) {
		struct vq_part parts[] = { { i == 0 ? UINT64_MAX - 8 : 0x1000000, i == 1 ? UINT32_MAX : 64, false } };

		CHECK(virtio_reset(&v));
		vut_start(&v, q, 2, 0);
		vut_echo(&q[1], 64, i);
		if (i == 2) /* every descriptor goes on to the next */
			for (unsigned int n = 0; n < q[1].size; n++)
				write16(q[1].desc + 16 * n + 14, 1 | (n < q[1].next ? 1 << 15 : 1 << 7));
		else
			vq_add(&q[1], 0, parts, 1);
		vq_kick(&q[1]);
		for (unsigned int n = 0; n < 3; n++)
			vut_echo(&q[0], 64, n);
	}
}

static void rings(void)
{
	if (vut_features() & VF(PACKED))
		packed_rings();
	else
		split_rings();
	as_good_as_new();
}

/* -- registers */

static void notify(void)
{
	vut_start(&v, q, QUEUES, 0);
	/* The whole page, queues that are not there among it, at all widths. */
	for (uint32_t at = 0; at + 8 <= v.notify_length && at < 0x1000; at += at < 64 ? 1 : 61) {
		write8(v.notify + at, 0xff);
		write16(v.notify + at, 0xffff);
		write32(v.notify + at, UINT32_MAX);
		write64(v.notify + at, UINT64_MAX);
		read8(v.notify + at);
		read64(v.notify + at);
	}
	for (unsigned int i = 0; i < 200; i++)
		vq_kick(&q[i % QUEUES]);
	vut_echo(&q[0], 64, 1);
	CHECK(virtio_reset(&v));
	for (unsigned int i = 0; i < 200; i++)
		vq_kick(&q[i % QUEUES]);
	as_good_as_new();
}

static void widths(uint64_t base, uint32_t length, bool write)
{
	for (uint32_t at = 0; at < length; at++) {
		read8(base + at);
		read16(base + at);
		read32(base + at);
		read64(base + at);
		if (!write)
			continue;
		write8(base + at, 0xff);
		write16(base + at, 0xffff);
		write32(base + at, 0);
		write64(base + at, UINT64_MAX);
	}
}

static void registers(void)
{
	vut_start(&v, q, QUEUES, 0);
	widths(v.common, v.common_length + 16, false);
	widths(v.config, 16, false);
	widths(v.config + v.config_length - 12, 24, true);
	widths(v.config - 8, 8, true);
	widths(v.isr - 4, 16, true);
	widths(bar0 + BAR0_SIZE - 16, 16, true);
	widths(v.msix + 16 * (QUEUES + 1) - 8, 24, true);
	vut_echo(&q[0], 64, 1);
	widths(v.common, v.common_length + 16, true);
	widths(v.msix, 16 * (QUEUES + 1), true);
	/* Reads of the configuration across its end see what is there. */
	CHECK(read32(v.config) == VUT_MAGIC);
	as_good_as_new();
}

/* Every status byte, each after a reset, and on top of each other. */
static void statuses(void)
{
	for (unsigned int i = 0; i < 256; i += 1 + draw() % 3) {
		CHECK(virtio_reset(&v));
		write8(v.common + VC_STATUS, (uint8_t)i);
		virtio_select(&v, 0);
		write16(v.common + VC_QUEUE_ENABLE, 1);
		write16(v.common + VC_QUEUE_RESET, 1);
		write8(v.common + VC_STATUS, (uint8_t)draw());
		write16(v.notify, 0);
		write8(v.common + VC_STATUS, (uint8_t)(i | VS_DRIVER_OK));
		/* Bits taken away without a reset. */
		write8(v.common + VC_STATUS, (uint8_t)(i & ~VS_FEATURES_OK) | 1);
	}
	as_good_as_new();
	/* Features of a device that runs. */
	write32(v.common + VC_DRIVER_SELECT, 0);
	write32(v.common + VC_DRIVER_FEATURE, UINT32_MAX);
	write8(v.common + VC_STATUS, VS_ACKNOWLEDGE | VS_DRIVER | VS_FEATURES_OK);
	write8(v.common + VC_STATUS, VS_ACKNOWLEDGE | VS_DRIVER | VS_FEATURES_OK | VS_DRIVER_OK);
	as_good_as_new();
}

/* Whatever comes. seed= repeats a run. */
static void random_writes(void)
{
	uint32_t count = (uint32_t)rt_arg_number("count", 5000);
	static const uint32_t spots[] = { VC_STATUS,	 VC_QUEUE_ENABLE, VC_QUEUE_SELECT, VC_QUEUE_RESET,
					  VC_QUEUE_SIZE, VC_QUEUE_MSIX,	  VC_DRIVER_SELECT };

	CHECK(virtio_negotiate(&v, vut_features()));
	for (unsigned int i = 0; i < QUEUES; i++)
		virtio_queue(&v, &q[i], (uint16_t)i, 0, VIRTIO_NO_VECTOR);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t at = draw() % 4 ? draw() % 64 : draw() % BAR0_SIZE, value = draw() << draw() % 25;

		switch (draw() % 8) {
		case 0:
			write8(bar0 + at, (uint8_t)value);
			break;
		case 1:
			write16(bar0 + (at & ~1u), (uint16_t)value);
			break;
		case 2:
			write32(bar0 + (at & ~3u), value);
			break;
		case 3:
			write64(bar0 + (at & ~7u), (uint64_t)value << 16);
			break;
		case 4:
			write16(v.common + spots[draw() % 7], (uint16_t)(draw() % 8));
			break;
		case 5:
			write8(v.common + VC_STATUS, draw() % 2 ? 15 : (uint8_t)draw());
			break;
		case 6:
			write16(v.common + VC_QUEUE_SELECT, (uint16_t)(draw() % 5));
			write16(v.common + VC_QUEUE_ENABLE, 1);
			break;
		default:
			write32(bar1 + (draw() % 0x4000 & ~3u), value);
			read32(bar0 + (at & ~3u));
		}
	}
	for (unsigned int i = 0; i <= QUEUES; i++)
		virtio_msix(&v, i, (uint8_t)(VUT_VECTOR + i), false);
	as_good_as_new();
}

/* -- configuration space of PCI, with the device at work */

static void pci(void)
{
	vut_start(&v, q, QUEUES, 0);
	vut_echo(&q[0], 64, 1);
	/* The BAR elsewhere: the doorbells go with it. */
	pci_write(v.devfn, 0x10, 4, 0x90000000);
	write16(0x90000000 + (q[1].bell - bar0), 1);
	CHECK_EQ(read32(0x90000000 + (v.config - bar0)), VUT_MAGIC);
	CHECK_EQ(read32(v.config), UINT32_MAX);
	pci_write(v.devfn, 0x10, 4, (uint32_t)bar0);
	vut_echo(&q[0], 64, 2);
	/* Memory switched off, and on. */
	pci_write(v.devfn, 4, 2, 0);
	CHECK_EQ(read32(v.config), UINT32_MAX);
	vq_kick(&q[0]);
	pci_write(v.devfn, 4, 2, 6);
	vut_echo(&q[0], 64, 3);
	for (unsigned int reg = 4; reg < 256; reg += 4) {
		uint32_t before = pci_read(v.devfn, reg, 4);

		if (reg >= v.pci_cfg && reg < v.pci_cfg + 20)
			continue;
		pci_write(v.devfn, reg, 4, UINT32_MAX);
		pci_write(v.devfn, reg, 4, 0);
		pci_write(v.devfn, reg, 4, before);
	}
	as_good_as_new();
}

/* -- two CPUs at it */

static volatile bool stop;

static void ring_on(unsigned int n)
{
	uint32_t i = n;

	while (!stop) {
		i++;
		write16(v.notify + v.multiplier * (i % QUEUES), (uint16_t)(i % QUEUES));
		read8(v.common + VC_STATUS);
		read32(v.config);
		write32(v.msix + 12, i & 1);
		write16(v.common + VC_QUEUE_SELECT, (uint16_t)(i % 6));
	}
}

static void two(void)
{
	ap_start(1, ring_on);
	while (rt_ap_count < 1)
		__asm__ volatile("pause");
	for (unsigned int i = 0; i < 50; i++) {
		CHECK(virtio_reset(&v));
		virtio_status(&v, VS_ACKNOWLEDGE | VS_DRIVER);
		write32(v.common + VC_DRIVER_SELECT, 1);
		write32(v.common + VC_DRIVER_FEATURE, 1);
		virtio_status(&v, VS_FEATURES_OK);
		virtio_status(&v, VS_DRIVER_OK);
		write16(v.common + VC_QUEUE_ENABLE, 1);
		write16(v.common + VC_QUEUE_RESET, 1);
	}
	stop = true;
	rt_delay(20000);
	as_good_as_new();
}

static const struct rt_test tests[] = {
	{ "addresses", addresses },  { "sizes", sizes },       { "rings", rings }, { "notify", notify },
	{ "registers", registers },  { "statuses", statuses }, { "pci", pci },	   { "two", two },
	{ "random", random_writes },
};

void guest_main(void)
{
	pic_off();
	lapic_enable(false);
	seed = (uint32_t)rt_arg_number("seed", 1);
	virtio_find(&v, VUT_ID);
	bar0 = pci_bar(v.devfn, 0);
	bar1 = pci_bar(v.devfn, 1);
	rt_run_test(tests, sizeof(tests) / sizeof(tests[0]));
	rt_print("passed\n");
}
