/* SPDX-License-Identifier: MIT */
/* The I/O APIC's registers, and what it sends for edges and levels. Expected values are the 82093AA data
 * sheet's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "devices/legacy/ioapic_core.h"

#define MASK  0x10000u
#define LEVEL 0x8000u
#define IRR   0x4000u
#define V     0x41u

struct test {
	struct ioapic_core core;
	struct irq_message last;
	unsigned int sent, commits;
	bool refuse;
	struct irq_message routes[IRQ_PINS];
};

static bool took(void *opaque, const struct irq_message *message)
{
	struct test *t = opaque;

	t->last = *message;
	t->sent++;
	/* The EOI of a level-triggered message must be on its way already. */
	if (message->data & LEVEL) {
		bool known = false;

		for (unsigned int i = 0; i < IRQ_PINS; i++)
			known |= !memcmp(&t->routes[i], message, sizeof(*message));
		assert_true(known);
	}
	return !t->refuse;
}

static void changed(void *opaque, const struct irq_message routes[IRQ_PINS])
{
	struct test *t = opaque;

	memcpy(t->routes, routes, sizeof(t->routes));
	t->commits++;
}

static const struct ioapic_ops ops = { .deliver = took, .routes_changed = changed };

static int setup(void **state)
{
	static struct test test;

	memset(&test, 0, sizeof(test));
	ioapic_core_init(&test.core, &ops, &test);
	*state = &test;
	return 0;
}

static int teardown(void **state)
{
	struct test *t = *state;

	ioapic_core_destroy(&t->core);
	return 0;
}

static uint32_t get(struct test *t, unsigned int index)
{
	ioapic_core_write(&t->core, IOAPIC_REGSEL, 4, index);
	return (uint32_t)ioapic_core_read(&t->core, IOAPIC_WIN, 4);
}

static void set(struct test *t, unsigned int index, uint32_t value)
{
	ioapic_core_write(&t->core, IOAPIC_REGSEL, 4, index);
	ioapic_core_write(&t->core, IOAPIC_WIN, 4, value);
}

static uint32_t entry(struct test *t, unsigned int pin)
{
	return get(t, 0x10 + 2 * pin);
}

static void route(struct test *t, unsigned int pin, uint32_t low)
{
	set(t, 0x10 + 2 * pin, low);
}

static void line(struct test *t, unsigned int pin, bool level)
{
	ioapic_core_set_level(&t->core, pin, level);
}

static void registers_after_power_on(void **state)
{
	struct test *t = *state;

	assert_int_equal(get(t, 0), 0);
	assert_int_equal(get(t, 1), 0x0f0020);
	assert_int_equal(get(t, 2), 0);
	for (unsigned int pin = 0; pin < IRQ_PINS; pin++) {
		assert_int_equal(get(t, 0x10 + 2 * pin), MASK);
		assert_int_equal(get(t, 0x11 + 2 * pin), 0);
	}
}

static void registers_keep_what_is_theirs(void **state)
{
	struct test *t = *state;

	set(t, 0, UINT32_MAX);
	assert_int_equal(get(t, 0), 0x0f000000);
	assert_int_equal(get(t, 2), 0x0f000000);
	set(t, 2, 0);
	assert_int_equal(get(t, 2), 0x0f000000);
	set(t, 1, 0);
	assert_int_equal(get(t, 1), 0x0f0020);
	for (unsigned int pin = 0; pin < IRQ_PINS; pin++) {
		set(t, 0x10 + 2 * pin, UINT32_MAX);
		set(t, 0x11 + 2 * pin, UINT32_MAX);
		assert_int_equal(get(t, 0x10 + 2 * pin), 0x0001afff);
		assert_int_equal(get(t, 0x11 + 2 * pin), 0xff000000);
		set(t, 0x10 + 2 * pin, MASK | pin);
		set(t, 0x11 + 2 * pin, pin << 24);
	}
	for (unsigned int pin = 0; pin < IRQ_PINS; pin++) {
		assert_int_equal(get(t, 0x10 + 2 * pin), MASK | pin);
		assert_int_equal(get(t, 0x11 + 2 * pin), pin << 24);
	}
	assert_int_equal(t->sent, 0);
}

static void any_index_is_harmless(void **state)
{
	struct test *t = *state;

	for (unsigned int index = 0; index < 256; index++) {
		if (index > 2 && (index < 0x10 || index > 0x2f)) {
			set(t, index, UINT32_MAX);
			assert_int_equal(get(t, index), 0);
		}
	}
	registers_after_power_on(state);
	/* The index has eight bits. */
	assert_int_equal(get(t, 0xabcdef01), 0x0f0020);
	assert_int_equal(ioapic_core_read(&t->core, IOAPIC_REGSEL, 4), 1);
	assert_int_equal(t->sent + t->commits, 0);
}

static void widths(void **state)
{
	struct test *t = *state;
	struct ioapic_core *core = &t->core;

	ioapic_core_write(core, IOAPIC_REGSEL, 1, 0xffffff01);
	assert_int_equal(ioapic_core_read(core, IOAPIC_WIN, 1), 0x20);
	assert_int_equal(ioapic_core_read(core, IOAPIC_WIN, 2), 0x0020);
	assert_int_equal(ioapic_core_read(core, IOAPIC_WIN, 4), 0x0f0020);
	assert_int_equal(ioapic_core_read(core, IOAPIC_WIN, 8), 0x0f0020);
	ioapic_core_write(core, IOAPIC_REGSEL, 2, 0x10);
	ioapic_core_write(core, IOAPIC_WIN, 8, 0xffffffff00010055);
	assert_int_equal(ioapic_core_read(core, IOAPIC_WIN, 8), 0x10055);
	ioapic_core_write(core, IOAPIC_REGSEL, 8, 0xffffffff00000012);
	ioapic_core_write(core, IOAPIC_WIN, 4, MASK);
	ioapic_core_write(core, IOAPIC_WIN, 2, 0xffff8077);
	assert_int_equal(ioapic_core_read(core, IOAPIC_WIN, 4), 0x8077);
	ioapic_core_write(core, IOAPIC_WIN, 1, 0xffffff66);
	assert_int_equal(ioapic_core_read(core, IOAPIC_WIN, 4), 0x66);
}

static void the_rest_of_the_page_is_empty(void **state)
{
	struct test *t = *state;
	static const unsigned int sizes[] = { 1, 2, 4, 8 };

	ioapic_core_write(&t->core, IOAPIC_REGSEL, 4, 1);
	for (uint64_t offset = 0; offset < IOAPIC_LENGTH; offset++) {
		if (offset == IOAPIC_REGSEL || offset == IOAPIC_WIN)
			continue;
		for (unsigned int i = 0; i < 4; i++) {
			ioapic_core_write(&t->core, offset, sizes[i], UINT64_MAX);
			assert_int_equal(ioapic_core_read(&t->core, offset, sizes[i]), 0);
		}
	}
	assert_int_equal(ioapic_core_read(&t->core, IOAPIC_REGSEL, 4), 1);
	registers_after_power_on(state);
}

static void messages(void **state)
{
	struct test *t = *state;
	static const struct {
		uint32_t low, high, address, data;
	} cases[] = {
		{ V, 0, 0xfee00000, V },
		{ V, 0x03000000, 0xfee03000, V },
		{ V, 0xff000000, 0xfeeff000, V },
		{ V | 0x800, 0x81000000, 0xfee81004, V },
		{ V | 0x100, 0x01000000, 0xfee01000, V | 0x100 },
		{ V | 0x2000, 0, 0xfee00000, V }, /* polarity */
		{ V | LEVEL, 0, 0xfee00000, 0xc000 | V },
		{ V | LEVEL | 0x900, 0x05000000, 0xfee05004, 0xc100 | V },
		{ 0xff, 0, 0xfee00000, 0xff },
		{ 0x10, 0, 0xfee00000, 0x10 },
		{ 0x400, 0, 0xfee00000, 0x400 },	 /* NMI */
		{ 0x400 | LEVEL, 0, 0xfee00000, 0x400 }, /* always by edge */
		{ 0x500 | LEVEL, 0x01000000, 0xfee01000, 0x500 },
	};

	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		unsigned int pin = i % IRQ_PINS;

		set(t, 0x11 + 2 * pin, cases[i].high);
		route(t, pin, cases[i].low);
		line(t, pin, true);
		assert_int_equal(t->sent, i + 1);
		assert_int_equal(t->last.address, cases[i].address);
		assert_int_equal(t->last.data, cases[i].data);
		assert_int_equal(entry(t, pin) & IRR, cases[i].data & LEVEL ? IRR : 0);
		line(t, pin, false);
	}
}

static void nonsense_is_not_sent(void **state)
{
	struct test *t = *state;
	static const uint32_t lows[] = { 0,	    15,	       LEVEL,	  LEVEL | 15, 0x10f,
					 0x200 | V, 0x300 | V, 0x600 | V, 0x700 | V,  0x700 | LEVEL | V };

	for (unsigned int i = 0; i < sizeof(lows) / sizeof(lows[0]); i++) {
		route(t, i, lows[i]);
		line(t, i, true);
		assert_int_equal(entry(t, i), lows[i]);
	}
	line(t, IRQ_PINS, true);
	line(t, UINT32_MAX, true);
	assert_int_equal(t->sent + t->commits, 0);
}

static void edge(void **state)
{
	struct test *t = *state;

	route(t, 4, V);
	line(t, 4, true);
	assert_int_equal(t->sent, 1);
	line(t, 4, true);
	assert_int_equal(t->sent, 1);
	ioapic_core_eoi(&t->core, V); /* nothing to an edge */
	assert_int_equal(t->sent, 1);
	line(t, 4, false);
	assert_int_equal(t->sent, 1);
	line(t, 4, true);
	assert_int_equal(t->sent, 2);
	assert_int_equal(entry(t, 4), V);
	assert_int_equal(t->commits, 0);
}

static void edge_under_the_mask_is_lost(void **state)
{
	struct test *t = *state;

	route(t, 4, MASK | V);
	line(t, 4, true);
	route(t, 4, V);
	assert_int_equal(t->sent, 0);
	line(t, 4, false);
	line(t, 4, true);
	assert_int_equal(t->sent, 1);
	/* Masked and unmasked while high: not an edge either. */
	route(t, 4, MASK | V);
	route(t, 4, V);
	assert_int_equal(t->sent, 1);
}

static void level_until_eoi(void **state)
{
	struct test *t = *state;

	route(t, 9, LEVEL | V);
	line(t, 9, true);
	assert_int_equal(t->sent, 1);
	assert_int_equal(entry(t, 9), LEVEL | IRR | V);
	line(t, 9, false);
	line(t, 9, true);
	assert_int_equal(t->sent, 1);
	ioapic_core_eoi(&t->core, V + 1);
	assert_int_equal(t->sent, 1);
	ioapic_core_eoi(&t->core, V); /* still high */
	assert_int_equal(t->sent, 2);
	assert_int_equal(entry(t, 9), LEVEL | IRR | V);
	line(t, 9, false);
	ioapic_core_eoi(&t->core, V);
	assert_int_equal(t->sent, 2);
	assert_int_equal(entry(t, 9), LEVEL | V);
	line(t, 9, true);
	assert_int_equal(t->sent, 3);
}

static void level_and_the_mask(void **state)
{
	struct test *t = *state;

	route(t, 9, MASK | LEVEL | V);
	line(t, 9, true);
	assert_int_equal(t->sent, 0);
	route(t, 9, LEVEL | V);
	assert_int_equal(t->sent, 1);
	/* In service: the mask changes nothing about that, and an EOI under it is an EOI. */
	route(t, 9, MASK | LEVEL | V);
	assert_int_equal(entry(t, 9), MASK | LEVEL | IRR | V);
	route(t, 9, LEVEL | V);
	assert_int_equal(t->sent, 1);
	route(t, 9, MASK | LEVEL | V);
	ioapic_core_eoi(&t->core, V);
	assert_int_equal(entry(t, 9), MASK | LEVEL | V);
	assert_int_equal(t->sent, 1);
	route(t, 9, LEVEL | V);
	assert_int_equal(t->sent, 2);
	/* Gone again under the mask: nothing to serve. */
	ioapic_core_eoi(&t->core, V);
	route(t, 9, MASK | LEVEL | V);
	ioapic_core_eoi(&t->core, V);
	line(t, 9, false);
	route(t, 9, LEVEL | V);
	assert_int_equal(t->sent, 3);
	assert_int_equal(entry(t, 9), LEVEL | V);
}

static void remote_irr_is_not_writable(void **state)
{
	struct test *t = *state;

	route(t, 9, LEVEL | IRR | 0x1000 | V);
	assert_int_equal(entry(t, 9), LEVEL | V);
	line(t, 9, true);
	route(t, 9, LEVEL | V);
	assert_int_equal(entry(t, 9), LEVEL | IRR | V);
	assert_int_equal(t->sent, 1);
}

static void eoi_register(void **state)
{
	struct test *t = *state;

	route(t, 9, LEVEL | V);
	line(t, 9, true);
	ioapic_core_write(&t->core, IOAPIC_EOI, 4, V + 1);
	assert_int_equal(t->sent, 1);
	ioapic_core_write(&t->core, IOAPIC_EOI, 4, V);
	assert_int_equal(t->sent, 2);
	line(t, 9, false);
	ioapic_core_write(&t->core, IOAPIC_EOI, 1, V);
	assert_int_equal(entry(t, 9), LEVEL | V);
	assert_int_equal(ioapic_core_read(&t->core, IOAPIC_EOI, 4), 0);
}

static void edge_triggered_for_a_moment_is_an_eoi(void **state)
{
	struct test *t = *state;

	route(t, 9, LEVEL | V);
	line(t, 9, true);
	route(t, 9, MASK | V);
	assert_int_equal(entry(t, 9), MASK | V);
	route(t, 9, LEVEL | V);
	assert_int_equal(t->sent, 2);
}

static void pins_may_share_a_vector(void **state)
{
	struct test *t = *state;

	route(t, 10, LEVEL | V);
	route(t, 11, LEVEL | V);
	line(t, 10, true);
	line(t, 11, true);
	assert_int_equal(t->sent, 2);
	line(t, 11, false);
	ioapic_core_eoi(&t->core, V);
	assert_int_equal(t->sent, 3);
	assert_int_equal(entry(t, 10), LEVEL | IRR | V);
	assert_int_equal(entry(t, 11), LEVEL | V);
}

static void what_nobody_took_is_not_in_service(void **state)
{
	struct test *t = *state;

	t->refuse = true;
	route(t, 9, LEVEL | V);
	line(t, 9, true);
	assert_int_equal(t->sent, 1);
	assert_int_equal(entry(t, 9), LEVEL | V);
	t->refuse = false;
	line(t, 9, true);
	assert_int_equal(t->sent, 2);
	assert_int_equal(entry(t, 9), LEVEL | IRR | V);
}

static void routes_are_told_only_when_they_must(void **state)
{
	struct test *t = *state;

	route(t, 9, MASK | LEVEL | V);
	set(t, 0x11 + 2 * 9, 0x02000000);
	route(t, 4, 0x30);
	assert_int_equal(t->commits, 0);
	route(t, 9, LEVEL | V);
	assert_int_equal(t->commits, 1);
	assert_int_equal(t->routes[9].address, 0xfee02000);
	assert_int_equal(t->routes[9].data, 0xc000 | V);
	assert_int_equal(t->routes[4].address, 0);
	for (unsigned int i = 0; i < 3; i++) {
		route(t, 9, MASK | LEVEL | V);
		route(t, 9, LEVEL | V);
	}
	assert_int_equal(t->commits, 1);
	/* Another vector, another destination. */
	route(t, 9, LEVEL | (V + 1));
	set(t, 0x11 + 2 * 9, 0x01000000);
	assert_int_equal(t->commits, 3);
	assert_int_equal(t->routes[9].address, 0xfee01000);
	assert_int_equal(t->routes[9].data, 0xc000 | (V + 1));
	/* A stale one goes with the next change, but not while it is in service. */
	route(t, 10, LEVEL | 0x50);
	route(t, 11, LEVEL | 0x51);
	line(t, 10, true);
	route(t, 10, MASK | LEVEL | 0x50);
	route(t, 11, MASK | LEVEL | 0x51);
	assert_int_equal(t->commits, 5);
	route(t, 9, LEVEL | V);
	assert_int_equal(t->commits, 6);
	assert_int_equal(t->routes[10].data, 0xc050);
	assert_int_equal(t->routes[11].address, 0);
	ioapic_core_eoi(&t->core, 0x50);
	route(t, 11, LEVEL | 0x51);
	assert_int_equal(t->commits, 7);
	assert_int_equal(t->routes[10].address, 0);
	assert_int_equal(t->routes[11].data, 0xc051);
}

static void reset(void **state)
{
	struct test *t = *state;

	ioapic_core_reset(&t->core);
	assert_int_equal(t->commits, 0);
	set(t, 0, UINT32_MAX);
	set(t, 0x11 + 2 * 9, UINT32_MAX);
	route(t, 9, LEVEL | V);
	line(t, 9, true);
	line(t, 10, true);
	ioapic_core_reset(&t->core);
	assert_int_equal(ioapic_core_read(&t->core, IOAPIC_REGSEL, 4), 0);
	registers_after_power_on(state);
	assert_int_equal(t->commits, 2);
	assert_int_equal(t->routes[9].address, 0);
	/* Lines are the devices' affair: 10 was not lowered. */
	assert_int_equal(t->sent, 1);
	route(t, 10, LEVEL | V);
	assert_int_equal(t->sent, 2);
}

/*
 * Devices on one thread, local APICs on another, a driver on a third. However they meet, in the end the line
 * is high and its entry unmasked, so exactly one message is in service.
 */
struct stress {
	struct ioapic_core core;
	atomic_uint in_service, edges;
	atomic_bool driven, done;
};

static bool stress_took(void *opaque, const struct irq_message *message)
{
	struct stress *s = opaque;

	if (message->data & LEVEL)
		atomic_fetch_add(&s->in_service, 1);
	else
		atomic_fetch_add(&s->edges, 1);
	return true;
}

static void stress_changed(void *opaque, const struct irq_message routes[IRQ_PINS])
{
	(void)opaque;
	(void)routes;
}

static const struct ioapic_ops stress_ops = { .deliver = stress_took, .routes_changed = stress_changed };

#define ROUNDS 20000

static void *drive(void *arg)
{
	struct stress *s = arg;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		ioapic_core_set_level(&s->core, 4, true);
		ioapic_core_set_level(&s->core, 4, false);
		ioapic_core_set_level(&s->core, 9, i % 2);
	}
	ioapic_core_set_level(&s->core, 9, true);
	atomic_store(&s->driven, true);
	return NULL;
}

static void *serve(void *arg)
{
	struct stress *s = arg;

	while (!atomic_load(&s->done)) {
		if (!atomic_load(&s->in_service))
			continue;
		atomic_fetch_sub(&s->in_service, 1);
		ioapic_core_eoi(&s->core, V);
	}
	return NULL;
}

static void stress(void **state)
{
	struct stress s = { .driven = false };
	pthread_t driver, server;

	(void)state;
	ioapic_core_init(&s.core, &stress_ops, &s);
	ioapic_core_write(&s.core, IOAPIC_REGSEL, 4, 0x18);
	ioapic_core_write(&s.core, IOAPIC_WIN, 4, 0x31);
	ioapic_core_write(&s.core, IOAPIC_REGSEL, 4, 0x22);
	ioapic_core_write(&s.core, IOAPIC_WIN, 4, LEVEL | V);
	assert_int_equal(pthread_create(&driver, NULL, drive, &s), 0);
	assert_int_equal(pthread_create(&server, NULL, serve, &s), 0);
	while (!atomic_load(&s.driven)) {
		ioapic_core_write(&s.core, IOAPIC_WIN, 4, MASK | LEVEL | V);
		ioapic_core_write(&s.core, IOAPIC_WIN, 4, LEVEL | V);
	}
	atomic_store(&s.done, true);
	pthread_join(driver, NULL);
	pthread_join(server, NULL);
	assert_int_equal(atomic_load(&s.edges), ROUNDS);
	assert_int_equal(atomic_load(&s.in_service), 1);
	assert_int_equal(ioapic_core_read(&s.core, IOAPIC_WIN, 4), LEVEL | IRR | V);
	ioapic_core_destroy(&s.core);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(registers_after_power_on),
		TEST(registers_keep_what_is_theirs),
		TEST(any_index_is_harmless),
		TEST(widths),
		TEST(the_rest_of_the_page_is_empty),
		TEST(messages),
		TEST(nonsense_is_not_sent),
		TEST(edge),
		TEST(edge_under_the_mask_is_lost),
		TEST(level_until_eoi),
		TEST(level_and_the_mask),
		TEST(remote_irr_is_not_writable),
		TEST(eoi_register),
		TEST(edge_triggered_for_a_moment_is_an_eoi),
		TEST(pins_may_share_a_vector),
		TEST(what_nobody_took_is_not_in_service),
		TEST(routes_are_told_only_when_they_must),
		TEST(reset),
		cmocka_unit_test(stress),
	};

	return cmocka_run_group_tests_name("ioapic", tests, NULL, NULL);
}
