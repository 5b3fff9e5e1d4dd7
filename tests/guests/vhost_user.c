/* SPDX-License-Identifier: MIT */
/* The virtio PCI transport in front of a vhost-user back-end (tests/servers/vhost-user.c): virtio 1.2, 4.1. */
#include "rt/apic.h"
#include "rt/io.h"
#include "rt/pci.h"
#include "rt/rt.h"
#include "rt/vut.h"

#define INTX	 0x60
#define QUIET	 3000
#define QUEUES	 4
#define SECOND	 VUT_SECOND
#define CAP_MSIX 0x11

enum { COMMAND = 4, COMMAND_INTX_OFF = 0x400, STATUS_INTX = 8 };

static struct virtio v;
static struct vq q[VQ_MAX];

static uint8_t status(void)
{
	return read8(v.common + VC_STATUS);
}

static void start(void)
{
	vut_start(&v, q, QUEUES, (uint16_t)rt_arg_number("size", 0));
}

static void quiet(void)
{
	rt_delay(QUIET);
	irq_window();
}

/* -- what it looks like */

static void capabilities(void)
{
	unsigned int cap;

	CHECK_EQ(pci_read(v.devfn, 0, 4), (VIRTIO_DEVICE + VUT_ID) << 16 | VIRTIO_VENDOR);
	CHECK(pci_read(v.devfn, 8, 1) >= 1); /* 4.1.2.1: revision of a device that is not transitional */
	CHECK(pci_read(v.devfn, 0x2e, 2) >= 0x40);
	CHECK(v.common_length >= VC_SIZE);
	CHECK_EQ(v.common % 4, 0);
	CHECK(v.isr_length >= 1);
	CHECK_EQ(v.notify % 2, 0);
	CHECK(v.multiplier == 0 || (v.multiplier >= 2 && !(v.multiplier & (v.multiplier - 1))));
	CHECK(v.notify_length >= (QUEUES - 1) * v.multiplier + 2);
	CHECK(v.config && v.config_length >= VUT_CFG_SIZE);
	CHECK_EQ(v.config % 4, 0);
	cap = pci_capability(v.devfn, CAP_MSIX);
	CHECK_EQ(pci_read(v.devfn, cap + 2, 2) & 0x7ff, QUEUES); /* one more for the configuration */
	CHECK_EQ(read16(v.common + VC_QUEUES), QUEUES);
}

static void features(void)
{
	uint64_t offered = virtio_offered(&v);

	CHECK(offered & VF(VERSION_1));
	CHECK(offered & VF(PACKED));
	CHECK(offered & VF(INDIRECT));
	CHECK(offered & VF(EVENT_IDX));
	CHECK(offered & VF(RING_RESET));
	CHECK_EQ(offered & (1ULL << 26 | 1ULL << 30 | 1ULL << 33), 0);
	for (uint32_t i = 2; i < 5; i++) {
		write32(v.common + VC_DEVICE_SELECT, i);
		CHECK_EQ(read32(v.common + VC_DEVICE_SELECT), i);
		CHECK_EQ(read32(v.common + VC_DEVICE_FEATURE), 0);
	}
	/* What was not offered, and what a driver cannot do without. */
	CHECK(!virtio_negotiate(&v, VF(VERSION_1) | 1ULL << 41));
	CHECK(!virtio_negotiate(&v, VF(VERSION_1) | 1ULL << 30));
	CHECK(!virtio_negotiate(&v, VF(INDIRECT)));
	CHECK(virtio_negotiate(&v, VF(VERSION_1)));
	write32(v.common + VC_DRIVER_SELECT, 1);
	CHECK_EQ(read32(v.common + VC_DRIVER_FEATURE), 1);
	/* Too late for another. */
	write32(v.common + VC_DRIVER_FEATURE, 0);
	CHECK(virtio_negotiate(&v, vut_features()));
	CHECK_EQ(status(), VS_ACKNOWLEDGE | VS_DRIVER | VS_FEATURES_OK);
	CHECK(virtio_reset(&v));
	CHECK_EQ(status(), 0);
}

static void common(void)
{
	CHECK(virtio_negotiate(&v, vut_features()));
	for (uint16_t i = 0; i < QUEUES; i++) {
		virtio_select(&v, i);
		CHECK_EQ(read16(v.common + VC_QUEUE_SELECT), i);
		CHECK(read16(v.common + VC_QUEUE_SIZE) >= 64);
		CHECK_EQ(read16(v.common + VC_QUEUE_ENABLE), 0);
		CHECK_EQ(read16(v.common + VC_QUEUE_RESET), 0);
		CHECK_EQ(read16(v.common + VC_QUEUE_MSIX), VIRTIO_NO_VECTOR);
		CHECK((uint32_t)read16(v.common + VC_QUEUE_NOTIFY) * v.multiplier + 2 <= v.notify_length);
		write64(v.common + VC_QUEUE_DESC, 0x123456789abcd000 + i);
		CHECK_EQ(read32(v.common + VC_QUEUE_DESC), 0x9abcd000 + i);
		CHECK_EQ(read32(v.common + VC_QUEUE_DESC + 4), 0x12345678);
		write16(v.common + VC_QUEUE_MSIX, QUEUES);
		CHECK_EQ(read16(v.common + VC_QUEUE_MSIX), QUEUES);
		write16(v.common + VC_QUEUE_MSIX, QUEUES + 1); /* there is none of that number */
		CHECK_EQ(read16(v.common + VC_QUEUE_MSIX), VIRTIO_NO_VECTOR);
		write16(v.common + VC_QUEUE_SIZE, 16);
		CHECK_EQ(read16(v.common + VC_QUEUE_SIZE), 16);
	}
	for (uint32_t absent = QUEUES; absent < 0x10000; absent = absent * 2 + 1) {
		virtio_select(&v, (uint16_t)absent);
		CHECK_EQ(read16(v.common + VC_QUEUE_SIZE), 0); /* 4.1.4.3.1 */
		CHECK_EQ(read16(v.common + VC_QUEUE_ENABLE), 0);
	}
	write16(v.common + VC_MSIX, 77);
	CHECK_EQ(read16(v.common + VC_MSIX), VIRTIO_NO_VECTOR);
	/* A reset puts everything back. */
	CHECK(virtio_reset(&v));
	virtio_select(&v, 1);
	CHECK(read16(v.common + VC_QUEUE_SIZE) >= 64);
	CHECK_EQ(read32(v.common + VC_QUEUE_DESC), 0);
}

/* 4.1.4.9: a window of configuration space on everything that the BARs have. */
static void window(unsigned int bar, uint32_t offset, uint32_t length)
{
	pci_write(v.devfn, v.pci_cfg + 4, 1, bar);
	pci_write(v.devfn, v.pci_cfg + 8, 4, offset);
	pci_write(v.devfn, v.pci_cfg + 12, 4, length);
}

static void pci_cfg(void)
{
	const unsigned int data = v.pci_cfg + 16;
	uint32_t at = (uint32_t)(v.common - pci_bar(v.devfn, 0)), config = (uint32_t)(v.config - pci_bar(v.devfn, 0));

	CHECK(virtio_reset(&v));
	window(0, at + VC_QUEUES, 2);
	CHECK_EQ(pci_read(v.devfn, data, 2), QUEUES);
	window(0, at + VC_STATUS, 1);
	pci_write(v.devfn, data, 1, VS_ACKNOWLEDGE);
	CHECK_EQ(status(), VS_ACKNOWLEDGE);
	CHECK_EQ(pci_read(v.devfn, data, 1), VS_ACKNOWLEDGE);
	window(0, at + VC_DEVICE_SELECT, 4);
	pci_write(v.devfn, data, 4, 1);
	CHECK_EQ(read32(v.common + VC_DEVICE_SELECT), 1);
	window(0, config + VUT_CFG_MAGIC, 4);
	CHECK_EQ(ecam_read(v.devfn, data, 4), VUT_MAGIC);
	/* Nonsense: nothing happens, and nothing breaks. */
	static const uint32_t lengths[] = { 0, 3, 5, 8, 0x80000000, UINT32_MAX };

	for (unsigned int i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		window(0, at + VC_STATUS, lengths[i]);
		pci_write(v.devfn, data, 4, UINT32_MAX);
		pci_read(v.devfn, data, 4);
	}
	for (unsigned int bar = 0; bar < 256; bar += bar < 8 ? 1 : 31) {
		window(bar, 0xfffffffc, 4);
		pci_write(v.devfn, data, 4, UINT32_MAX);
		pci_read(v.devfn, data, 4);
	}
	window(0, at + VC_STATUS + 1, 4); /* not aligned */
	pci_read(v.devfn, data, 4);
	CHECK_EQ(status(), VS_ACKNOWLEDGE);
	window(0, 0, 0);
}

static void configuration(void)
{
	static const uint8_t seed = 7;
	uint32_t generation;
	uint64_t writes;

	CHECK_EQ(read32(v.config + VUT_CFG_MAGIC), VUT_MAGIC);
	CHECK_EQ(read16(v.config + VUT_CFG_MAGIC + 2), VUT_MAGIC >> 16);
	for (unsigned int i = VUT_CFG_BYTES; i < VUT_CFG_SIZE; i++)
		CHECK_EQ(read8(v.config + i), (uint8_t)(i * seed));
	write32(v.config + VUT_CFG_MAGIC, 0); /* the back-end does not take it */
	write32(v.config + VUT_CFG_SCRATCH, 0x12345678);
	write16(v.config + VUT_CFG_SCRATCH + 4, 0xabcd);
	write8(v.config + VUT_CFG_SCRATCH + 7, 0x5a);
	read32(v.config); /* which waits until the back-end has it all */
	start();
	vut_echo(&q[0], 16, 1);
	/* Two that are side by side may go as one. */
	writes = vut_info(&q[0], VUT_INFO_CONFIG_WRITES, 0);
	CHECK(writes == 3 || writes == 4);
	generation = read8(v.common + VC_GENERATION);
	CHECK_EQ(read8(v.common + VC_GENERATION), generation);
	for (uint32_t i = 1; i <= 3; i++) {
		CHECK_EQ(vut_do(&q[0], VUT_CHANGE, 0, 0x1000 + i, 0, 0, 0).status, 0);
		CHECK(rt_wait(VUT_VECTOR, i, 20 * SECOND));
		for (unsigned int n = 0; n < 1000 && read32(v.config + VUT_CFG_CHANGES) != 0x1000 + i; n++)
			rt_delay(1000);
		CHECK_EQ(read32(v.config + VUT_CFG_CHANGES), 0x1000 + i);
		CHECK(read8(v.common + VC_GENERATION) != generation);
		generation = read8(v.common + VC_GENERATION);
	}
	/* With everything read anew, what the driver wrote is there. */
	CHECK_EQ(read32(v.config + VUT_CFG_SCRATCH), 0x12345678);
	CHECK_EQ(read32(v.config + VUT_CFG_SCRATCH + 4), 0x5a00abcd);
	CHECK_EQ(read32(v.config + VUT_CFG_MAGIC), VUT_MAGIC);
}

/* -- what it does */

static void negotiated(void)
{
	uint64_t features;

	start();
	features = vut_info(&q[0], VUT_INFO_FEATURES, 0);
	CHECK_EQ(features & ~(1ULL << 30), vut_features() & ~VF(RING_RESET));
	vut_await(&q[0], VUT_INFO_ENABLED, 0, (1 << QUEUES) - 1);
	CHECK_EQ(vut_info(&q[0], VUT_INFO_SIZE, 1), q[1].size);
	if (vut_info(&q[0], VUT_INFO_PROTOCOL, 0) >> 16 & 1)
		vut_await(&q[0], VUT_INFO_STATUS, 0, 15);
	CHECK_EQ(vut_info(&q[0], VUT_INFO_FAULTS, 0), 0);
	CHECK_EQ(status(), VS_ACKNOWLEDGE | VS_DRIVER | VS_FEATURES_OK | VS_DRIVER_OK);
}

static void echoes(void)
{
	for (uint32_t round = 0; round < 2 * q[0].size + 3u; round++)
		vut_echo(&q[round % QUEUES], round % 128 ? 4 + 4 * (round % 60) : 0x8000, round * 0x01010101);
}

/* Several at once, answered in the opposite order. */
static void many(unsigned int count)
{
	const struct vut_command hold = { .op = VUT_HOLD };
	uint32_t length;
	uint16_t id, step = q[1].packed ? 1 : 2;

	for (unsigned int i = 0; i < count; i++)
		vut_put(&q[1], (uint16_t)(i * step), &hold, 0, 0, 0, 0);
	vq_kick(&q[1]);
	vut_await(&q[0], VUT_INFO_HELD, 0, count);
	CHECK(!vq_used(&q[1], &id, &length));
	CHECK_EQ(vut_do(&q[0], VUT_RELEASE, 0, 0, 0, 0, 0).value, count);
	for (unsigned int i = count; i--;) {
		CHECK(vq_wait(&q[1], &id, &length, 10 * SECOND));
		CHECK_EQ(id, i * step);
		CHECK_EQ(length, sizeof(struct vut_answer));
	}
}

static void indirect(void)
{
	const uint64_t table = 0x3400000, command = 0x3401000, answer = 0x3402000;
	const struct vq_part parts[] = {
		{ command, 20, false },	      { command + 20, sizeof(struct vut_command) - 20, false },
		{ command + 256, 64, false }, { answer, 7, true },
		{ answer + 7, 9 + 10, true }, { answer + 26, 54, true },
	};
	uint32_t length;
	uint16_t id;

	CHECK(virtio_negotiate(&v, vut_features() | VF(INDIRECT)));
	virtio_queue(&v, &q[0], 0, 0, VIRTIO_NO_VECTOR);
	virtio_status(&v, VS_DRIVER_OK);
	for (unsigned int round = 0; round < 5; round++) {
		*(struct vut_command *)(uintptr_t)command = (struct vut_command){ .op = VUT_ECHO };
		for (unsigned int i = 0; i < 64; i++)
			write8(command + 256 + i, (uint8_t)(i + round));
		if (round % 2)
			vq_add(&q[0], 0, parts, 6);
		else
			vq_add_indirect(&q[0], 0, parts, 6, table);
		vq_kick(&q[0]);
		CHECK(vq_wait(&q[0], &id, &length, 10 * SECOND));
		CHECK_EQ(length, 16 + 64);
		for (unsigned int i = 0; i < 64; i++)
			CHECK_EQ(read8(answer + 16 + i), (uint8_t)(i + round));
	}
}

static void rings(void)
{
	vut_start(&v, q, QUEUES, (uint16_t)rt_arg_number("size", 128));
	echoes();
	many(8);
	many(60);
	indirect();
}

/* -- interrupts */

static void msix(void)
{
	uint32_t before[QUEUES + 1];
	unsigned int cap;
	bool same = false;

	start();
	cap = pci_capability(v.devfn, CAP_MSIX);
	for (unsigned int i = 0; i < QUEUES; i++) {
		vut_echo(&q[i], 16, i);
		CHECK(rt_wait((uint8_t)(VUT_VECTOR + 1 + i), 1, 10 * SECOND));
		CHECK_EQ(rt_interrupts[VUT_VECTOR + 1 + i], 1);
	}
	CHECK_EQ(rt_interrupts[VUT_VECTOR], 0);
	CHECK_EQ(read8(v.isr), 0); /* 4.1.4.5.1: for INTx only */
	/* Masked: pending, then delivered. */
	write32(v.msix + 16 * 2 + 12, 1);
	vut_echo(&q[1], 16, 1);
	quiet();
	CHECK_EQ(rt_interrupts[VUT_VECTOR + 2], 1);
	write32(v.msix + 16 * 2 + 12, 0);
	CHECK(rt_wait(VUT_VECTOR + 2, 2, 10 * SECOND));
	pci_write(v.devfn, cap + 2, 2, 0xc000);
	vut_echo(&q[2], 16, 1);
	quiet();
	CHECK_EQ(rt_interrupts[VUT_VECTOR + 3], 1);
	pci_write(v.devfn, cap + 2, 2, 0x8000);
	CHECK(rt_wait(VUT_VECTOR + 3, 2, 10 * SECOND));
	/* Another vector, while it runs, of which the back-end hears soon; and none. */
	virtio_select(&v, 3);
	write16(v.common + VC_QUEUE_MSIX, 1);
	for (unsigned int n = 0; n < 1000 && rt_interrupts[VUT_VECTOR + 1] < 2; n++) {
		vut_echo(&q[3], 16, 1);
		rt_wait(VUT_VECTOR + 1, 2, SECOND / 100);
	}
	CHECK(rt_interrupts[VUT_VECTOR + 1] >= 2);
	write16(v.common + VC_QUEUE_MSIX, VIRTIO_NO_VECTOR);
	for (unsigned int n = 0; n < 1000 && !same; n++) {
		irq_window();
		for (unsigned int i = 0; i <= QUEUES; i++)
			before[i] = rt_interrupts[VUT_VECTOR + i];
		vut_echo(&q[3], 16, 1);
		quiet();
		same = true;
		for (unsigned int i = 0; i <= QUEUES; i++)
			same &= rt_interrupts[VUT_VECTOR + i] == before[i];
	}
	CHECK(same);
	/* Interrupts without reason. */
	for (unsigned int i = 0; i < 20; i++)
		vut_do(&q[0], VUT_CALL, 0, 1, 0, 0, 0);
	CHECK(rt_wait(VUT_VECTOR + 2, 3, 10 * SECOND));
	vut_echo(&q[1], 16, 1);
}

static volatile uint32_t isr_bits;

static void intx_irq(struct rt_frame *frame)
{
	(void)frame;
	isr_bits |= read8(v.isr);
	lapic_eoi();
}

/* The reasons are read, by the handler or here, and then the function asks for nothing any more. */
static void line_goes_down(void)
{
	for (unsigned int i = 0; i < 1000 && (pci_read(v.devfn, 6, 2) & STATUS_INTX); i++)
		quiet();
	CHECK(!(pci_read(v.devfn, 6, 2) & STATUS_INTX));
}

static void intx(void)
{
	unsigned int pin = 12 + v.devfn / 8 % 4;
	uint32_t before;

	start();
	rt_handlers[INTX] = intx_irq;
	ioapic_route(pin, INTX, IOAPIC_LEVEL, lapic_id());
	virtio_msix_enable(&v, false);
	/* The first of these may be of the queues' having lost their vectors. */
	for (unsigned int i = 0; i < 4 * QUEUES; i++) {
		isr_bits = 0;
		vut_echo(&q[i % QUEUES], 16, i);
		for (unsigned int n = 0; n < 3000 && !isr_bits; n++)
			quiet();
		CHECK_EQ(isr_bits, 1);
		line_goes_down();
	}
	isr_bits = 0;
	CHECK_EQ(vut_do(&q[0], VUT_CHANGE, 0, 5, 0, 0, 0).status, 0);
	for (unsigned int i = 0; i < 1000 && isr_bits != 3; i++)
		quiet();
	CHECK_EQ(isr_bits, 3);
	line_goes_down();
	/* Switched off: the reason stays. */
	pci_write(v.devfn, COMMAND, 2, pci_read(v.devfn, COMMAND, 2) | COMMAND_INTX_OFF);
	quiet();
	before = rt_interrupts[INTX];
	vut_echo(&q[0], 16, 9);
	for (unsigned int i = 0; i < 1000 && !(pci_read(v.devfn, 6, 2) & STATUS_INTX); i++)
		rt_delay(1000);
	quiet();
	CHECK_EQ(rt_interrupts[INTX], before);
	CHECK(pci_read(v.devfn, 6, 2) & STATUS_INTX);
	CHECK_EQ(read8(v.isr), 1);
	line_goes_down();
	ioapic_route(pin, INTX, IOAPIC_MASKED, lapic_id());
}

/*
 * MSI-X switched off and on, and masked by function or vector, while a request is with the back-end, which has answered
 * it by the time of step `answered`. Whenever that is, the interrupt comes when everything is on again, at the latest.
 */
static void toggle(unsigned int cap, unsigned int answered, uint16_t mask, bool vector_masked, bool config)
{
	const uint8_t vector = VUT_VECTOR + (config ? 0 : 2);
	const struct vut_command hold = { .op = VUT_HOLD };
	const uint64_t entry = v.msix + 16 * (config ? 0 : 2) + 12;
	static uint32_t changes;
	uint32_t before, length;
	uint16_t id;

	vut_put(&q[1], 0, &hold, 0, 0, 0, 0);
	vq_kick(&q[1]);
	vut_await(&q[0], VUT_INFO_HELD, 0, 1);
	irq_window();
	before = rt_interrupts[vector];
	for (unsigned int step = 0; step < 5; step++) {
		switch (step) {
		case 1:
			write32(entry, vector_masked);
			pci_write(v.devfn, cap + 2, 2, 0x8000 | mask);
			break;
		case 2:
			pci_write(v.devfn, cap + 2, 2, mask);
			break;
		case 3:
			pci_write(v.devfn, cap + 2, 2, 0x8000 | mask);
			break;
		case 4:
			pci_write(v.devfn, cap + 2, 2, 0x8000);
			write32(entry, 0);
			break;
		}
		if (step != answered)
			continue;
		if (config)
			vut_do(&q[0], VUT_CHANGE, 0, ++changes, 0, 0, 0);
		CHECK_EQ(vut_do(&q[0], VUT_RELEASE, 0, 0, 0, 0, 0).value, 1);
		CHECK(vq_wait(&q[1], &id, &length, 10 * SECOND));
	}
	CHECK(rt_wait(vector, before + 1, 10 * SECOND));
	CHECK_EQ(read8(v.isr), 0); /* there is no INTx beside MSI-X */
	CHECK(!(pci_read(v.devfn, 6, 2) & STATUS_INTX));
}

static void msix_toggled(void)
{
	const uint16_t function = 0x4000;
	unsigned int cap = pci_capability(v.devfn, CAP_MSIX);
	uint32_t before;

	start();
	for (unsigned int round = 0; round < 2; round++) {
		for (unsigned int answered = 0; answered < 5; answered++)
			for (unsigned int how = 0; how < 4; how++)
				toggle(cap, answered, how & 1 ? function : 0, how & 2, round);
		/* And it goes on as before. */
		for (unsigned int i = 0; i < QUEUES; i++) {
			irq_window();
			before = rt_interrupts[VUT_VECTOR + 1 + i];
			vut_echo(&q[i], 16, i);
			CHECK(rt_wait((uint8_t)(VUT_VECTOR + 1 + i), before + 1, 10 * SECOND));
		}
	}
}

/* -- resets */

static void queue_reset(void)
{
	const struct vut_command hold = { .op = VUT_HOLD };

	start();
	for (unsigned int round = 0; round < 3; round++) {
		vut_echo(&q[2], 64, round);
		vut_put(&q[2], 0, &hold, 0, 0, 0, 0);
		vq_kick(&q[2]);
		virtio_select(&v, 2);
		write16(v.common + VC_QUEUE_RESET, 1);
		for (unsigned int i = 0; i < 20000 && read16(v.common + VC_QUEUE_RESET); i++)
			rt_delay(1000);
		CHECK_EQ(read16(v.common + VC_QUEUE_RESET), 0); /* 4.1.4.3.1: once it is done */
		CHECK_EQ(read16(v.common + VC_QUEUE_ENABLE), 0);
		CHECK_EQ(vut_info(&q[0], VUT_INFO_STOPS, 2), round + 1);
		/* Kicks of a queue that is not there, while the others go on; and nothing is written any more. */
		vq_clear(&q[2]);
		vq_kick(&q[2]);
		vut_echo(&q[0], 64, round);
		vut_echo(&q[3], 64, round);
		CHECK_EQ(read64(q[2].device), 0);
		virtio_queue(&v, &q[2], 2, (uint16_t)(16 << round), 3);
		vut_echo(&q[2], 64, round + 100);
		CHECK_EQ(vut_info(&q[0], VUT_INFO_SIZE, 2), 16 << round);
	}
	CHECK_EQ(vut_info(&q[0], VUT_INFO_FAULTS, 0), 0);
}

static void device_reset(void)
{
	const struct vut_command hold = { .op = VUT_HOLD };
	uint64_t protocol;

	start();
	protocol = vut_info(&q[0], VUT_INFO_PROTOCOL, 0);
	for (unsigned int round = 1; round <= 6; round++) {
		vut_echo(&q[3], 64, round);
		vut_put(&q[1], 0, &hold, 0, 0, 0, 0);
		vq_kick(&q[1]);
		CHECK(virtio_reset(&v));
		CHECK_EQ(status(), 0);
		for (uint16_t i = 0; i < QUEUES; i++) {
			virtio_select(&v, i);
			CHECK_EQ(read16(v.common + VC_QUEUE_ENABLE), 0);
			CHECK_EQ(read16(v.common + VC_QUEUE_MSIX), VIRTIO_NO_VECTOR);
			vq_clear(&q[i]);
			vq_kick(&q[i]);
		}
		for (unsigned int i = 0; i < QUEUES; i++)
			CHECK_EQ(read64(q[i].device) | read64(q[i].desc), 0);
		start();
		CHECK(vut_info(&q[0], VUT_INFO_STOPS, 1) >= round);
		if (protocol >> 13 & 1)
			CHECK(vut_info(&q[0], VUT_INFO_RESETS, 0) >= round);
		CHECK_EQ(vut_info(&q[0], VUT_INFO_CONNECTIONS, 0), 1);
	}
	CHECK_EQ(vut_info(&q[0], VUT_INFO_FAULTS, 0), 0);
}

/* The whole machine's. */
static void machine_reset(void)
{
	const uint64_t flag = v.config + VUT_CFG_SCRATCH;

	if (read32(flag) != 0x1234) {
		write32(flag, 0x1234);
		start();
		vut_echo(&q[0], 64, 1);
		outb(0xcf9, 6);
		for (;;)
			;
	}
	CHECK_EQ(status(), 0);
	start();
	vut_echo(&q[0], 64, 2);
	CHECK(vut_info(&q[0], VUT_INFO_STOPS, 0) >= 1);
}

/* -- memory */

static void memory(void)
{
	const uint64_t low = 0x3500000;
	uint64_t high = rt_arg_number("high", 0); /* there is RAM above 4 GiB */

	start();
	write64(low, 0x1122334455667788);
	CHECK_EQ(vut_do(&q[0], VUT_RAM, 0, low, 0, 0, 0).value, 0x1122334455667788);
	CHECK_EQ(vut_do(&q[0], VUT_RAM, 0, v.common, 0, 0, 0).status, 14);
	if (high) {
		rt_map_gib(4);
		write64(0x100001000, 0x99aabbcc);
		CHECK_EQ(vut_do(&q[0], VUT_RAM, 0, 0x100001000, 0, 0, 0).value, 0x99aabbcc);
	}
	CHECK_EQ(vut_do(&q[0], VUT_SHRINK_RAM, 0, 0, 0, 0, 0).status, 1); /* EPERM */
	vut_echo(&q[0], 64, 2);
}

/* -- back-ends that fail while the guest runs */

/* It dies with requests in its hands, and its successor answers them. */
static void death(void)
{
	const struct vut_command hold = { .op = VUT_HOLD, .a = { 1 } }, die = { .op = VUT_DIE };
	uint16_t id, step;
	uint32_t length;

	start();
	step = q[1].packed ? 1 : 2;
	for (uint32_t i = 0; i < 40; i++)
		vut_echo(&q[i % QUEUES], 64, i);
	for (unsigned int i = 0; i < 5; i++)
		vut_put(&q[1], (uint16_t)(i * step), &hold, 0, 0, 0, 0);
	vq_kick(&q[1]);
	vut_await(&q[0], VUT_INFO_HELD, 0, 5);
	vut_put(&q[3], 0, &die, 0, 0, 0, 0);
	vq_kick(&q[3]);
	rt_print("dead\n");
	if (rt_arg("back")) {
		CHECK(vq_wait(&q[3], &id, &length, 60 * SECOND));
		vut_await(&q[0], VUT_INFO_HELD, 0, 5);
		CHECK_EQ(vut_do(&q[0], VUT_RELEASE, 0, 0, 0, 0, 0).value, 5);
		for (unsigned int i = 0; i < 5; i++) {
			CHECK(vq_wait(&q[1], &id, &length, 10 * SECOND));
			CHECK(vut_answer(&q[1], id)->value == 1);
		}
		CHECK(!vq_used(&q[1], &id, &length));
		echoes();
		CHECK_EQ(vut_info(&q[0], VUT_INFO_FAULTS, 0), 0);
		CHECK_EQ(status() & VS_NEEDS_RESET, 0);
		return;
	}
	for (unsigned int i = 0; i < 20000 && !(status() & VS_NEEDS_RESET); i++)
		rt_delay(1000);
	CHECK(status() & VS_NEEDS_RESET);
	CHECK(rt_wait(VUT_VECTOR, 1, 10 * SECOND)); /* 2.1.2: and the driver is told */
	vq_kick(&q[0]);
	read32(v.config);
	write32(v.config + VUT_CFG_SCRATCH, 0);
	CHECK(virtio_reset(&v));
}

/* What the test's back-end does wrong by itself, at some message from the guest's start on. */
static void lost(void)
{
	CHECK(virtio_negotiate(&v, vut_features()));
	for (unsigned int i = 0; i < QUEUES; i++)
		virtio_queue(&v, &q[i], (uint16_t)i, 0, VIRTIO_NO_VECTOR);
	virtio_status(&v, VS_DRIVER_OK);
	if (rt_arg("reset")) {
		/* Whether or not anything is wrong: it is done when all that comes before it is. */
		for (unsigned int i = 0; i < 3 * QUEUES; i++)
			vq_kick(&q[i % QUEUES]);
		CHECK(virtio_reset(&v));
		for (unsigned int i = 0; i < QUEUES; i++)
			vq_kick(&q[i]);
	} else {
		for (unsigned int i = 0; i < 20000 && !(status() & VS_NEEDS_RESET); i++) {
			vq_kick(&q[i % QUEUES]);
			rt_delay(1000);
		}
		CHECK(status() & VS_NEEDS_RESET);
	}
	for (unsigned int i = 0; i < 256; i++)
		read32(v.config + i % v.config_length / 4 * 4);
}

/* It stops answering, and the guest resets the device, or writes to it. */
static void mute(void)
{
	start();
	vut_do(&q[0], VUT_MUTE, 0, rt_arg_number("deaf", 0), 0, 0, 0);
	if (rt_arg("config"))
		write32(v.config + VUT_CFG_SCRATCH, 1);
	else if (rt_arg("queue")) {
		virtio_select(&v, 2);
		write16(v.common + VC_QUEUE_RESET, 1);
	} else {
		write8(v.common + VC_STATUS, 0);
	}
	rt_print("waiting\n");
	if (rt_arg("hang")) {
		for (;;)
			rt_delay(1000);
	}
	/* It is over in good time: as reset, or as broken. */
	for (unsigned int i = 0; i < 20000 && status() && !(status() & VS_NEEDS_RESET); i++)
		rt_delay(1000);
	CHECK(!status() || status() & VS_NEEDS_RESET);
}

/* It hangs up, or closes or breaks the back-end channel only, which costs nothing but that. */
static void hang_up(void)
{
	start();
	vut_do(&q[0], VUT_HANG_UP, 0, rt_arg_number("channel", 0), 0, 0, 0);
	if (rt_arg_number("channel", 0)) {
		rt_delay(50000);
		echoes();
		CHECK(virtio_reset(&v));
		start();
		echoes();
		return;
	}
	for (unsigned int i = 0; i < 20000 && !(status() & VS_NEEDS_RESET); i++)
		rt_delay(1000);
	CHECK(status() & VS_NEEDS_RESET);
}

static void errors(void)
{
	start();
	vut_do(&q[0], VUT_ERROR, 0, 1, 0, 0, 0);
	vut_do(&q[0], VUT_FAKE_USED, 0, 1, 0, 0x7fffffff, 0);
	vut_echo(&q[2], 64, 1);
	rt_delay(10000);
	CHECK(virtio_reset(&v));
	start();
	echoes();
}

/* Twice around a small ring. */
static void traffic(void)
{
	vut_start(&v, q, QUEUES, (uint16_t)rt_arg_number("size", 16));
	echoes();
	CHECK_EQ(vut_info(&q[0], VUT_INFO_FAULTS, 0), 0);
}

static void idle(void)
{
	rt_print("idle\n");
	for (;;)
		rt_delay(1000);
}

static void all(void)
{
	capabilities();
	features();
	common();
	pci_cfg();
	configuration();
	negotiated();
}

static const struct rt_test tests[] = {
	{ "all", all },
	{ "rings", rings },
	{ "msix", msix },
	{ "msix-toggled", msix_toggled },
	{ "intx", intx },
	{ "queue-reset", queue_reset },
	{ "device-reset", device_reset },
	{ "machine-reset", machine_reset },
	{ "memory", memory },
	{ "death", death },
	{ "lost", lost },
	{ "mute", mute },
	{ "hang-up", hang_up },
	{ "errors", errors },
	{ "idle", idle },
	{ "traffic", traffic },
};

void guest_main(void)
{
	pic_off();
	lapic_enable(false);
	virtio_find(&v, VUT_ID);
	rt_run_test(tests, sizeof(tests) / sizeof(tests[0]));
	rt_print("passed\n");
}
