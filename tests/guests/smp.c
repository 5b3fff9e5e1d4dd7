/* SPDX-License-Identifier: MIT */
/*
 * Starts every processor that the machine describes; each checks who it is. Arguments: cpus=N; x2apic for x2APIC
 * mode instead of xAPIC.
 */
#include "rt/acpi.h"
#include "rt/apic.h"
#include "rt/fdt.h"
#include "rt/io.h"
#include "rt/rt.h"

#define IPI  0x60
#define ALL  0x61
#define WAIT (8000 * RT_TICKS_PER_MS)

struct processor {
	uint32_t apic_id, leaf1_id, leafb_id;
	uint32_t leaf1_count, threads, cores, core_shift;
	uint32_t level0, level1, level2;
};

static struct processor found[AP_MAX + 1];
static bool x2;
static volatile uint32_t ready, hits, all_hits;

static void look(struct processor *p)
{
	struct cpuid leaf1 = cpuid(1, 0), thread = cpuid(0xb, 0), core = cpuid(0xb, 1);

	p->apic_id = lapic_id();
	p->leaf1_id = leaf1.ebx >> 24;
	p->leaf1_count = leaf1.edx >> 28 & 1 ? leaf1.ebx >> 16 & 0xff : 1;
	p->leafb_id = thread.edx;
	p->threads = thread.ebx & 0xffff;
	p->cores = core.ebx & 0xffff;
	p->core_shift = core.eax & 31;
	p->level0 = thread.ecx >> 8 & 0xff;
	p->level1 = core.ecx >> 8 & 0xff;
	p->level2 = cpuid(0xb, 2).ecx >> 8 & 0xff;
}

static void add(volatile uint32_t *counter)
{
	__asm__ volatile("lock incl %0" : "+m"(*counter) : : "memory");
}

static void got_ipi(struct rt_frame *frame)
{
	add(frame->vector == IPI ? &hits : &all_hits);
	lapic_eoi();
}

static void ap_main(unsigned int n)
{
	lapic_enable(x2);
	look(&found[n + 1]);
	add(&ready);
	for (;;)
		halt_until_irq();
}

static void await(volatile uint32_t *counter, uint32_t count)
{
	uint64_t end = rt_ticks() + WAIT;

	while (*counter < count && rt_ticks() < end)
		__asm__ volatile("pause");
	CHECK_EQ(*counter, count);
}

static void check(const struct processor *p, unsigned int cpus)
{
	unsigned int shift = 0;

	while (1u << shift < cpus)
		shift++;
	CHECK_EQ(p->leaf1_id, p->apic_id & 0xff);
	CHECK_EQ(p->leafb_id, p->apic_id);
	CHECK_EQ(p->leaf1_count, 1u << shift);
	CHECK_EQ(p->threads, 1);
	CHECK_EQ(p->cores, cpus);
	CHECK_EQ(p->core_shift, shift);
	CHECK_EQ(p->level0, 1);
	CHECK_EQ(p->level1, 2);
	CHECK_EQ(p->level2, 0);
}

/* Ids in the device tree, which the MADT must list in the same order. */
static unsigned int read_ids(uint32_t *ids, unsigned int max)
{
	const void *fdt = fdt_machine();
	const struct acpi_header *madt = acpi_find("APIC");
	unsigned int n = 0, in_madt = 0;
	uint32_t length;

	CHECK(fdt && madt);
	for (fdt_node node = fdt_find(fdt, 0, "device_type", "cpu"); node;
	     node = fdt_find(fdt, node, "device_type", "cpu")) {
		const void *reg = fdt_property(fdt, node, "reg", &length);

		CHECK(reg && n < max);
		ids[n++] = fdt_cell(reg, 0);
	}
	for (uint32_t at = 44; at < madt->length; at += (uint32_t)acpi_field(madt, at + 1, 1)) {
		if (acpi_field(madt, at, 1) != 0)
			continue;
		CHECK(in_madt < n);
		CHECK_EQ(acpi_field(madt, at + 3, 1), ids[in_madt]);
		CHECK_EQ(acpi_field(madt, at + 4, 4) & 1, 1);
		in_madt++;
	}
	CHECK_EQ(in_madt, n);
	return n;
}

void guest_main(void)
{
	unsigned int cpus = (unsigned int)rt_arg_number("cpus", 1);
	uint32_t ids[AP_MAX];

	x2 = rt_arg("x2apic");
	CHECK(!x2 || cpuid(1, 0).ecx & 1 << 21);
	lapic_enable(x2);
	rt_handlers[IPI] = got_ipi;
	rt_handlers[ALL] = got_ipi;
	CHECK_EQ(read_ids(ids, AP_MAX), cpus);
	look(&found[0]);
	CHECK(rdmsr(0x1b) & 1 << 8); /* this is the boot processor */
	CHECK_EQ(found[0].apic_id, ids[0]);
	for (unsigned int i = 1; i < cpus; i++)
		ap_start(ids[i], ap_main);
	await(&ready, cpus - 1);
	CHECK_EQ(rt_ap_count, cpus - 1);
	for (unsigned int i = 0; i < cpus; i++) {
		unsigned int seen = 0;

		check(&found[i], cpus);
		for (unsigned int j = 0; j < cpus; j++)
			seen += found[j].apic_id == ids[i];
		CHECK_EQ(seen, 1);
	}
	for (unsigned int i = 1; i < cpus; i++) {
		lapic_send(ids[i], ICR_FIXED | ICR_ASSERT | IPI);
		await(&hits, i);
	}
	lapic_send(0, ICR_FIXED | ICR_ASSERT | ICR_ALL_BUT_SELF | ALL);
	await(&all_hits, cpus - 1);
	rt_print("%u processors\n", cpus);
}
