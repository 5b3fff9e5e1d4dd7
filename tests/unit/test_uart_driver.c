/* SPDX-License-Identifier: MIT */
/*
 * The serial port under a driver that runs against it. One thread is a guest with a driver like Linux's 8250 (an edge
 * runs its handler, which loops until IIR is clear, and gives up early now and then), THR writes gathering in a ring as
 * KVM gathers them, reads from the page where there is one. The other is the loop: it types, ticks, and at times has no
 * room. Every byte must arrive, in order, both ways.
 */
#include "uart_faces.h"

#include <sched.h>
#include <time.h>

#define SEND	  20000u
#define TYPE	  3000u
#define RING_SIZE 64u

struct driver {
	pthread_mutex_t ring_lock;
	uint8_t ring[RING_SIZE];
	unsigned int ring_count;
	unsigned int edges_seen, sent, received;
	bool tx_on; /* the driver has IER.THRI set */
	bool give_up;
	_Atomic bool ready, done, failed; /* ready: FIFOs are on, which has emptied them */
};

static void drain(struct driver *d)
{
	pthread_mutex_lock(&d->ring_lock);
	for (unsigned int i = 0; i < d->ring_count; i++)
		reg_out(UART_DATA, d->ring[i]);
	d->ring_count = 0;
	pthread_mutex_unlock(&d->ring_lock);
}

static uint8_t guest_in(struct driver *d, unsigned int reg)
{
	uint8_t value = 0;
	bool mapped;

	pthread_mutex_lock(&fake.slot_lock);
	mapped = fake.slot;
	if (mapped)
		value = (uint8_t)(atomic_load((const _Atomic uint64_t *)fake.slot) >> (8 * reg));
	pthread_mutex_unlock(&fake.slot_lock);
	if (mapped)
		return value;
	drain(d);
	return reg_in(reg);
}

static void guest_out(struct driver *d, unsigned int reg, uint8_t value)
{
	if (reg == UART_DATA) {
		bool collected;

		pthread_mutex_lock(&d->ring_lock);
		collected = d->ring_count < RING_SIZE;
		if (collected)
			d->ring[d->ring_count++] = value;
		pthread_mutex_unlock(&d->ring_lock);
		if (collected)
			return;
	}
	drain(d);
	reg_out(reg, value);
}

static void driver_round(struct driver *d)
{
	uint8_t lsr = guest_in(d, UART_LSR);

	while (lsr & LSR_DR) {
		if (guest_in(d, UART_DATA) != (uint8_t)(d->received % 251))
			d->failed = true;
		d->received++;
		lsr = guest_in(d, UART_LSR);
	}
	if (!(lsr & LSR_THRE) || !d->tx_on)
		return;
	for (int i = 0; i < 16 && d->sent < SEND; i++)
		guest_out(d, UART_DATA, (uint8_t)(d->sent++ % 253));
	if (d->sent % 1000 < 16 || d->sent == SEND) { /* runs dry */
		d->tx_on = false;
		guest_out(d, UART_IER, IER_RDI);
	}
}

static void *guest(void *arg)
{
	struct driver *d = arg;

	guest_out(d, UART_IIR, FCR_ENABLE);
	guest_out(d, UART_MCR, MCR_OUT2);
	guest_out(d, UART_IER, IER_RDI);
	d->ready = true;
	while (!d->done) {
		unsigned int edges = fake.edges[face_gsi];

		if (!d->tx_on && d->sent < SEND) { /* more to say: as start_tx() */
			d->tx_on = true;
			guest_out(d, UART_IER, IER_RDI | IER_THRI);
			continue;
		}
		if (edges == d->edges_seen) {
			sched_yield();
			continue;
		}
		d->edges_seen = edges;
		for (int pass = 0; !(guest_in(d, UART_IIR) & IIR_NONE); pass++) {
			driver_round(d);
			if (d->give_up && pass == 5)
				break;
		}
	}
	return NULL;
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static void run_driver(bool give_up)
{
	struct driver d = { .give_up = give_up };
	unsigned int typed = 0;
	double end = seconds() + 60;
	pthread_t thread;

	pthread_mutex_init(&d.ring_lock, NULL);
	assert_int_equal(pthread_create(&thread, NULL, guest, &d), 0);
	while (!d.ready)
		sched_yield();
	for (unsigned int turn = 0; seconds() < end; turn++) {
		uint8_t data[40];
		size_t n = turn % sizeof(data);

		for (size_t i = 0; i < n; i++)
			data[i] = (uint8_t)((typed + i) % 251);
		if (n > TYPE - typed)
			n = TYPE - typed;
		if (n && turn % 3 == 0)
			typed += (unsigned int)fake.console.input(fake.console.opaque, data, n);
		if (turn % 50 == 7)
			fake.room = false;
		if (turn % 50 == 11) {
			fake.room = true;
			fake.console.writable(fake.console.opaque);
		}
		drain(&d);
		uart_wants_tick(fake.vm.uart);
		if (fake.out_length == SEND && typed == TYPE && !fake.level[face_gsi])
			break;
		sched_yield();
	}
	d.done = true;
	pthread_join(thread, NULL);
	assert_false(d.failed);
	assert_int_equal(fake.out_length, SEND);
	assert_int_equal(d.received, TYPE);
	for (unsigned int i = 0; i < SEND; i++)
		assert_int_equal(fake.out[i], i % 253);
}

static void driver_loses_nothing(void **state)
{
	(void)state;
	run_driver(false);
}

static void driver_that_gives_up_loses_nothing(void **state)
{
	(void)state;
	run_driver(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(driver_loses_nothing, setup_pio, teardown),
		cmocka_unit_test_setup_teardown(driver_loses_nothing, setup_mmio, teardown),
		cmocka_unit_test_setup_teardown(driver_that_gives_up_loses_nothing, setup_pio, teardown),
		cmocka_unit_test_setup_teardown(driver_that_gives_up_loses_nothing, setup_mmio, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
