/* SPDX-License-Identifier: MIT */
/* The parts of the Hyper-V partition that need no KVM: slots, event flags, time, hypercalls, ports, crash text. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "arch/x86/hyperv/internal.h"
#include "arch/x86/hyperv/page.h"
#include "tests/unit/trace_fake.h"
#include "vmm/log.h"
#include "vmm/vm.h"

#define RAM_PAGES     4
#define RAM_SIZE      (RAM_PAGES * HV_PAGE)
#define CONNECTION    0x1234u
#define EVENT	      0x77u
#define FAST_SIGNAL   (HV_CALL_SIGNAL_EVENT | HV_CALL_FAST)
#define RACE_MESSAGES 20000

/* A partition with a little RAM, and what it called. */
struct fixture {
	struct vm vm;
	struct hv_partition partition;
	uint8_t ram[RAM_SIZE];
	int connect_result;
	unsigned int connects, disconnects;
	unsigned int posts;
	struct hv_post_input posted;
	enum hv_status post_status;
	int event;
	uint64_t os_id;
	struct hv_vp vp;
};

static struct {
	unsigned int lines;
	char text[64][256];
	int status;
} said;

void log_line(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (said.lines < 64)
		vsnprintf(said.text[said.lines++], sizeof(said.text[0]), fmt, ap);
	va_end(ap);
}

void vm_exit(struct vm *vm, int status)
{
	(void)vm;
	said.status = status;
}

void *ram_ptr(const struct memory *memory, uint64_t gpa, uint64_t len)
{
	return len && gpa < memory->size && len <= memory->size - gpa ? memory->host + gpa : NULL;
}

static struct fixture *of(struct hv_partition *partition)
{
	return (struct fixture *)(void *)((char *)partition - offsetof(struct fixture, partition));
}

static int connect_port(struct hv_partition *partition, uint32_t connection, int eventfd)
{
	(void)connection;
	(void)eventfd;
	of(partition)->connects++;
	return of(partition)->connect_result;
}

static void disconnect_port(struct hv_partition *partition, uint32_t connection, int eventfd)
{
	(void)connection;
	(void)eventfd;
	of(partition)->disconnects++;
}

static uint64_t guest_os_id(struct hv_vp *vp)
{
	return of(vp->partition)->os_id;
}

static const struct hv_backend backend = {
	.name = "test", .connect = connect_port, .disconnect = disconnect_port, .guest_os_id = guest_os_id
};

static enum hv_status post(void *opaque, uint32_t connection, uint32_t type, const void *payload, size_t size)
{
	struct fixture *f = opaque;

	f->posts++;
	f->posted = (struct hv_post_input){ .connection = connection, .type = type, .size = (uint32_t)size };
	memcpy(f->posted.payload, payload, size);
	return f->post_status;
}

static const struct hv_message_ops message_ops = { .post = post };

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	f->vm.memory.host = f->ram;
	f->vm.memory.size = f->vm.memory.low_size = RAM_SIZE;
	f->partition.vm = &f->vm;
	f->vp.partition = &f->partition;
	f->partition.backend = &backend;
	pthread_rwlock_init(&f->partition.ports_lock, NULL);
	f->event = eventfd(0, EFD_NONBLOCK);
	memset(&said, 0, sizeof(said));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	hv_ports_destroy(&f->partition);
	pthread_rwlock_destroy(&f->partition.ports_lock);
	close(f->event);
	free(f);
	return 0;
}

static uint64_t signals(const struct fixture *f)
{
	uint64_t count = 0;

	return read(f->event, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

/* Slots and queues. */

struct slots {
	struct hv_queue queue;
	struct hv_message slot;
};

static int setup_slots(void **state)
{
	*state = calloc(1, sizeof(struct slots));
	return *state ? 0 : -1;
}

static int teardown_slots(void **state)
{
	free(*state);
	return 0;
}

static void put(struct slots *s, uint32_t number)
{
	assert_true(hv_queue_put(&s->queue, 1, &number, sizeof(number)));
}

static uint32_t number_of(const struct hv_message *m)
{
	uint32_t number;

	memcpy(&number, m->payload, sizeof(number));
	return number;
}

static void message_goes_to_a_free_slot(void **state)
{
	static const uint8_t zero[HV_MESSAGE_PAYLOAD];
	struct slots *s = *state;

	assert_int_equal(sizeof(struct hv_message), HV_MESSAGE_SIZE);
	memset(&s->slot, 0xff, sizeof(s->slot));
	s->slot.type = HV_MESSAGE_NONE;
	assert_true(hv_queue_put(&s->queue, 5, "abc", 3));
	assert_true(hv_queue_deliver(&s->queue, &s->slot));
	assert_int_equal(s->slot.type, 5);
	assert_int_equal(s->slot.payload_size, 3);
	assert_int_equal(s->slot.flags, 0);
	assert_int_equal(s->slot.sender, 0);
	assert_memory_equal(s->slot.payload, "abc", 3);
	assert_memory_equal(s->slot.payload + 3, zero, sizeof(zero) - 3);
	assert_false(hv_queue_deliver(&s->queue, &s->slot));
	assert_int_equal(s->slot.flags, 0);
}

static void busy_slot_is_told_that_more_waits(void **state)
{
	struct slots *s = *state;

	put(s, 1);
	put(s, 2);
	assert_true(hv_queue_deliver(&s->queue, &s->slot));
	assert_int_equal(s->slot.flags, HV_MESSAGE_FLAG_PENDING);
	s->slot.flags = 0;
	assert_false(hv_queue_deliver(&s->queue, &s->slot));
	assert_int_equal(s->slot.flags, HV_MESSAGE_FLAG_PENDING);
	assert_int_equal(number_of(&s->slot), 1);
	s->slot.type = HV_MESSAGE_NONE;
	assert_true(hv_queue_deliver(&s->queue, &s->slot));
	assert_int_equal(number_of(&s->slot), 2);
	assert_int_equal(s->slot.flags, 0);
}

static void queue_keeps_order_and_its_bound(void **state)
{
	uint32_t in = 0, out = 0, number = 0;
	struct slots *s = *state;

	for (int round = 0; round < 5; round++) {
		while (in - out < HV_QUEUE_MAX)
			put(s, in++);
		assert_false(hv_queue_put(&s->queue, 1, &number, sizeof(number)));
		for (int i = 0; i < 40; i++) {
			s->slot.type = HV_MESSAGE_NONE;
			assert_true(hv_queue_deliver(&s->queue, &s->slot));
			assert_int_equal(number_of(&s->slot), out++);
		}
	}
	hv_queue_clear(&s->queue);
	s->slot.type = HV_MESSAGE_NONE;
	assert_false(hv_queue_deliver(&s->queue, &s->slot));
}

/* The guest's side of a slot, looking for messages only until it is told that there are no more. */
struct race {
	struct slots slots;
	pthread_mutex_t lock;
	unsigned int interrupts; /* under lock */
	uint32_t received;
	bool in_order;
};

static void deliver_in_race(struct race *r)
{
	pthread_mutex_lock(&r->lock);
	if (hv_queue_deliver(&r->slots.queue, &r->slots.slot))
		r->interrupts++;
	pthread_mutex_unlock(&r->lock);
}

static bool take_interrupt(struct race *r)
{
	bool taken;

	pthread_mutex_lock(&r->lock);
	taken = r->interrupts;
	r->interrupts = 0;
	pthread_mutex_unlock(&r->lock);
	return taken;
}

static void *guest(void *arg)
{
	struct race *r = arg;
	struct hv_message *slot = &r->slots.slot;

	while (r->received < RACE_MESSAGES) {
		if (!take_interrupt(r)) {
			sched_yield();
			continue;
		}
		/* One interrupt, one look: what comes later must have its own. */
		if (__atomic_load_n(&slot->type, __ATOMIC_ACQUIRE) == HV_MESSAGE_NONE)
			continue;
		if (number_of(slot) != r->received++)
			r->in_order = false;
		__atomic_store_n(&slot->type, HV_MESSAGE_NONE, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&slot->flags, __ATOMIC_SEQ_CST) & HV_MESSAGE_FLAG_PENDING)
			deliver_in_race(r);
	}
	return NULL;
}

static void no_message_is_stranded(void **state)
{
	struct race *r = calloc(1, sizeof(*r));
	pthread_t thread;
	uint32_t sent = 0;

	(void)state;
	assert_non_null(r);
	pthread_mutex_init(&r->lock, NULL);
	r->in_order = true;
	assert_int_equal(pthread_create(&thread, NULL, guest, r), 0);
	while (sent < RACE_MESSAGES) {
		pthread_mutex_lock(&r->lock);
		sent += hv_queue_put(&r->slots.queue, 1, &sent, sizeof(sent));
		pthread_mutex_unlock(&r->lock);
		deliver_in_race(r);
	}
	/* From here on nobody but the guest itself brings the rest: a lost EOM would leave it waiting for ever. */
	pthread_join(thread, NULL);
	assert_int_equal(r->received, RACE_MESSAGES);
	assert_true(r->in_order);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static void event_flags_have_their_places(void **state)
{
	static uint64_t page[HV_PAGE / 8];
	uint8_t *bytes = (uint8_t *)page;

	(void)state;
	for (unsigned int sint = 0; sint < HV_SINTS; sint++) {
		for (unsigned int flag = 0; flag < HV_EVENT_FLAGS; flag += 127) {
			const uint8_t *byte = bytes + sint * HV_EVENT_FLAGS_SIZE + flag / 8;

			assert_int_equal(*byte & 1 << flag % 8, 0);
			assert_true(hv_event_set(bytes, sint, flag));
			assert_int_not_equal(*byte & 1 << flag % 8, 0);
			assert_false(hv_event_set(bytes, sint, flag));
		}
	}
	assert_true(hv_event_set(bytes, 3, HV_EVENT_FLAGS - 1));
	assert_int_equal(bytes[4 * HV_EVENT_FLAGS_SIZE - 1] >> 7, 1);
}

/* Time. */

static void scale_counts_100_ns(void **state)
{
	static const uint64_t hz[] = { 10000001, 1000000000, 2596112000, 3400000000, 6000000000 };

	(void)state;
	assert_int_equal(hv_tsc_scale(20000000), 1ull << 63);
	for (size_t i = 0; i < sizeof(hz) / sizeof(hz[0]); i++) {
		uint64_t scale = hv_tsc_scale(hz[i]);

		assert_in_range(hv_tsc_to_time(hz[i], scale, 0), HV_TIME_HZ - 1, HV_TIME_HZ);
		/* A year, to 100 ns a day. */
		assert_in_range(hv_tsc_to_time(hz[i] * 31536000, scale, 0), 31536000 * HV_TIME_HZ - 365,
				31536000 * HV_TIME_HZ);
		assert_int_equal(hv_tsc_to_time(0, scale, -5), (uint64_t)-5);
	}
	assert_int_equal(hv_tsc_scale(HV_TIME_HZ), 0);
	assert_int_equal(hv_tsc_scale(0), 0);
}

static void page_and_counter_agree(void **state)
{
	struct hv_reference_tsc page = { .sequence = 99 };
	const uint64_t hz = 2000000000, start = 123456789012345;
	struct hv_clock clock;
	uint64_t before, at_start;

	(void)state;
	hv_clock_init(&clock);
	hv_clock_fill_page(&clock, &page);
	assert_int_equal(page.sequence, 0);
	assert_false(hv_clock_follows_tsc(&clock));
	before = hv_clock_read(&clock);
	hv_clock_follow_tsc(&clock, hz, start, start);
	assert_true(hv_clock_follows_tsc(&clock));
	at_start = hv_clock_read_at(&clock, start);
	/* Goes on where it was (within the 10 s that even a loaded machine does not need). */
	assert_in_range(at_start, before, before + 10 * HV_TIME_HZ);
	assert_int_equal(hv_clock_read_at(&clock, start + hz), at_start + HV_TIME_HZ);
	hv_clock_fill_page(&clock, &page);
	assert_int_not_equal(page.sequence, 0);
	assert_int_equal(hv_tsc_to_time(start + 777777, page.scale, page.offset),
			 hv_clock_read_at(&clock, start + 777777));
	/* Once only: a second page shows the same time. */
	hv_clock_follow_tsc(&clock, hz, 1, 1);
	assert_int_equal(hv_clock_read_at(&clock, start), at_start);
	clock.sequence = UINT32_MAX - 1;
	hv_clock_fill_page(&clock, &page);
	assert_int_equal(page.sequence, 1);
	hv_clock_destroy(&clock);
}

static void slow_tsc_gives_no_page(void **state)
{
	struct hv_reference_tsc page = { .sequence = 99 };
	struct hv_clock clock;

	(void)state;
	hv_clock_init(&clock);
	hv_clock_follow_tsc(&clock, HV_TIME_HZ, 1, 1);
	hv_clock_fill_page(&clock, &page);
	assert_int_equal(page.sequence, 0);
	hv_clock_destroy(&clock);
}

/* Hypercalls. */

static void decodes_input_value(void **state)
{
	static const struct {
		uint64_t control, input;
		enum hv_status status;
	} cases[] = {
		{ FAST_SIGNAL, EVENT, HV_STATUS_SUCCESS },
		{ FAST_SIGNAL, EVENT + 1, HV_STATUS_INVALID_CONNECTION_ID },
		{ FAST_SIGNAL, CONNECTION, HV_STATUS_INVALID_CONNECTION_ID },
		{ FAST_SIGNAL, EVENT | 1ull << 32, HV_STATUS_INVALID_PORT_ID },
		{ FAST_SIGNAL, EVENT | 1ull << 48, HV_STATUS_INVALID_HYPERCALL_INPUT },
		{ FAST_SIGNAL, EVENT | 1ull << 24, HV_STATUS_INVALID_HYPERCALL_INPUT },
		{ FAST_SIGNAL | 1ull << 17, EVENT, HV_STATUS_INVALID_HYPERCALL_INPUT }, /* variable header */
		{ FAST_SIGNAL | 1ull << 27, EVENT, HV_STATUS_INVALID_HYPERCALL_INPUT }, /* reserved */
		{ FAST_SIGNAL | 1ull << 32, EVENT, HV_STATUS_INVALID_HYPERCALL_INPUT }, /* repetitions */
		{ FAST_SIGNAL | 1ull << 44, EVENT, HV_STATUS_INVALID_HYPERCALL_INPUT },
		{ FAST_SIGNAL | 1ull << 48, EVENT, HV_STATUS_INVALID_HYPERCALL_INPUT }, /* first repetition */
		{ FAST_SIGNAL | 1ull << 63, EVENT, HV_STATUS_INVALID_HYPERCALL_INPUT },
		{ HV_CALL_POST_MESSAGE | HV_CALL_FAST, 0, HV_STATUS_INVALID_HYPERCALL_INPUT },
		{ HV_CALL_EXT_QUERY_CAP, 0, HV_STATUS_INVALID_HYPERCALL_CODE },
		{ 0, 0, HV_STATUS_INVALID_HYPERCALL_CODE },
		{ ~0ull, ~0ull, HV_STATUS_INVALID_HYPERCALL_CODE },
		{ HV_CALL_SIGNAL_EVENT, HV_PAGE + 4, HV_STATUS_INVALID_ALIGNMENT },
		{ HV_CALL_SIGNAL_EVENT, RAM_SIZE, HV_STATUS_INVALID_PARAMETER },
		{ HV_CALL_SIGNAL_EVENT, ~7ull, HV_STATUS_INVALID_PARAMETER },
		{ HV_CALL_SIGNAL_EVENT, HV_PAGE, HV_STATUS_SUCCESS },
		{ HV_CALL_POST_MESSAGE, HV_PAGE - 248, HV_STATUS_INVALID_ALIGNMENT },
		{ HV_CALL_POST_MESSAGE, RAM_SIZE, HV_STATUS_INVALID_PARAMETER },
	};
	struct fixture *f = *state;

	assert_int_equal(hv_message_port_add(&f->partition, CONNECTION, &message_ops, f), 0);
	assert_int_equal(hv_event_port_add(&f->partition, EVENT, f->event), 0);
	f->ram[HV_PAGE] = EVENT;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(hv_hypercall(&f->partition, cases[i].control, cases[i].input), cases[i].status);
		assert_int_equal(signals(f), cases[i].status == HV_STATUS_SUCCESS);
	}
	assert_int_equal(f->posts, 0);
}

static uint64_t post_of(struct fixture *f, struct hv_post_input input)
{
	memcpy(f->ram + HV_PAGE, &input, sizeof(input));
	return hv_hypercall(&f->partition, HV_CALL_POST_MESSAGE, HV_PAGE);
}

static void posts_a_copy(void **state)
{
	struct fixture *f = *state;
	struct hv_post_input good = { .connection = CONNECTION, .type = 1, .size = HV_MESSAGE_PAYLOAD }, bad;

	for (size_t i = 0; i < sizeof(good.payload); i++)
		good.payload[i] = (uint8_t)i;
	assert_int_equal(post_of(f, good), HV_STATUS_INVALID_CONNECTION_ID);
	assert_int_equal(hv_message_port_add(&f->partition, CONNECTION, &message_ops, f), 0);
	assert_int_equal(post_of(f, good), HV_STATUS_SUCCESS);
	assert_memory_equal(&f->posted, &good, sizeof(good));
	f->post_status = HV_STATUS_INSUFFICIENT_BUFFERS;
	good.size = 0;
	assert_int_equal(post_of(f, good), HV_STATUS_INSUFFICIENT_BUFFERS);
	assert_int_equal(f->posts, 2);

	bad = good;
	bad.size = HV_MESSAGE_PAYLOAD + 1;
	assert_int_equal(post_of(f, bad), HV_STATUS_INVALID_PARAMETER);
	bad.size = UINT32_MAX;
	assert_int_equal(post_of(f, bad), HV_STATUS_INVALID_PARAMETER);
	bad = good;
	bad.type = 0;
	assert_int_equal(post_of(f, bad), HV_STATUS_INVALID_PARAMETER);
	bad.type = HV_MESSAGE_TIMER;
	assert_int_equal(post_of(f, bad), HV_STATUS_INVALID_PARAMETER);
	bad = good;
	bad.reserved = 1;
	assert_int_equal(post_of(f, bad), HV_STATUS_INVALID_PARAMETER);
	bad = good;
	bad.connection |= 1u << 24;
	assert_int_equal(post_of(f, bad), HV_STATUS_INVALID_CONNECTION_ID);
	assert_int_equal(f->posts, 2);
}

static void ports_come_and_go(void **state)
{
	struct fixture *f = *state;
	struct hv_partition *p = &f->partition;

	/* In an order that is not theirs. */
	for (uint32_t i = 0; i < 1000; i++)
		assert_int_equal(hv_event_port_add(p, i * 7919 % 1000, f->event), 0);
	assert_int_equal(hv_event_port_add(p, 500, f->event), -EEXIST);
	assert_int_equal(hv_message_port_add(p, 500, &message_ops, f), -EEXIST);
	assert_int_equal(hv_event_port_add(p, 1u << 24, f->event), -EINVAL);
	assert_int_equal(hv_event_port_add(p, 2000, -1), -EINVAL);
	assert_int_equal(f->connects, 1000);
	for (uint32_t i = 0; i < 1000; i += 2)
		hv_event_port_remove(p, i);
	assert_int_equal(f->disconnects, 500);
	hv_event_port_remove(p, 0);
	assert_int_equal(f->disconnects, 500);
	for (uint32_t i = 0; i < 1000; i++)
		assert_int_equal(hv_ports_signal(p, i), i % 2 ? HV_STATUS_SUCCESS : HV_STATUS_INVALID_CONNECTION_ID);
	assert_int_equal(signals(f), 500);
}

static void port_works_where_kvm_has_no_room(void **state)
{
	struct fixture *f = *state;

	f->connect_result = -ENOSPC;
	assert_int_equal(hv_event_port_add(&f->partition, EVENT, f->event), 0);
	assert_int_equal(hv_ports_signal(&f->partition, EVENT), HV_STATUS_SUCCESS);
	hv_event_port_remove(&f->partition, EVENT);
	assert_int_equal(f->disconnects, 0);
	assert_int_equal(hv_ports_signal(&f->partition, EVENT), HV_STATUS_INVALID_CONNECTION_ID);
}

/* The hypercall page. */

static void jumps_of_the_page_land(void **state)
{
	static uint8_t page[HV_PAGE];
	const uint8_t endbr64[] = { 0xf3, 0x0f, 0x1e, 0xfa }, endbr32[] = { 0xf3, 0x0f, 0x1e, 0xfb };
	const uint8_t slow[] = { 0xe6, HV_PORT_HYPERCALL, 0xc3 };
	unsigned int jumps = 0;

	(void)state;
	hv_fill_hypercall_page(page, true);
	assert_memory_equal(page, endbr64, sizeof(endbr64));
	for (size_t i = sizeof(endbr64); page[i] != 0xe7; i++) {
		if (page[i] != 0x75)
			continue;
		jumps++;
		assert_memory_equal(page + i + 2 + page[i + 1], slow, sizeof(slow));
	}
	assert_int_equal(jumps, 2);
	assert_int_equal(page[HV_PAGE - 1], 0xcc);
	hv_fill_hypercall_page(page, false);
	assert_memory_equal(page, endbr32, sizeof(endbr32));
	assert_memory_equal(page + sizeof(endbr32), slow, sizeof(slow));
}

/* Synthetic timers. */

#define MESSAGES (3ull << HV_STIMER_SINT_SHIFT) /* to SINT 3 */

static void timer_runs_once(void **state)
{
	struct hv_stimer t = { 0 };
	uint64_t expired;

	(void)state;
	assert_true(hv_stimer_due(&t) == HV_STIMER_NEVER);
	hv_stimer_write_count(&t, 100, 10);
	assert_true(hv_stimer_due(&t) == HV_STIMER_NEVER);
	hv_stimer_write_config(&t, MESSAGES | HV_STIMER_ENABLE, 20);
	assert_int_equal(hv_stimer_due(&t), 100);
	assert_int_equal(hv_stimer_sint(&t), 3);
	assert_false(hv_stimer_expire(&t, 99, &expired));
	assert_true(hv_stimer_expire(&t, 150, &expired));
	assert_int_equal(expired, 100);
	assert_int_equal(t.config, MESSAGES);
	assert_false(hv_stimer_expire(&t, 1000, &expired));
	/* The count starts it by itself, and stops it. */
	hv_stimer_write_config(&t, HV_STIMER_DIRECT | HV_STIMER_AUTO_ENABLE | 0x51ull << HV_STIMER_VECTOR_SHIFT, 1000);
	assert_true(hv_stimer_due(&t) == HV_STIMER_NEVER);
	hv_stimer_write_count(&t, 2000, 1000);
	assert_int_equal(hv_stimer_due(&t), 2000);
	assert_int_equal(hv_stimer_vector(&t), 0x51);
	hv_stimer_write_count(&t, 0, 1500);
	assert_true(hv_stimer_due(&t) == HV_STIMER_NEVER);
	assert_false(hv_stimer_expire(&t, 3000, &expired));
}

static void timer_has_a_period(void **state)
{
	struct hv_stimer t = { 0 };
	uint64_t expired;

	(void)state;
	hv_stimer_write_count(&t, 100, 0);
	hv_stimer_write_config(&t, MESSAGES | HV_STIMER_PERIODIC | HV_STIMER_ENABLE, 1000);
	assert_int_equal(hv_stimer_due(&t), 1100);
	assert_true(hv_stimer_expire(&t, 1100, &expired));
	assert_int_equal(expired, 1100);
	assert_int_equal(hv_stimer_due(&t), 1200);
	/* Three and a half periods late: the next one is in its place. */
	assert_true(hv_stimer_expire(&t, 1550, &expired));
	assert_int_equal(expired, 1200);
	assert_int_equal(hv_stimer_due(&t), 1600);
	assert_false(hv_stimer_expire(&t, 1599, &expired));
	/* Counts that no time has. */
	hv_stimer_write_count(&t, UINT64_MAX, 1600);
	assert_true(hv_stimer_due(&t) == UINT64_MAX);
	hv_stimer_write_count(&t, 1, 1600);
	assert_true(hv_stimer_expire(&t, UINT64_MAX, &expired));
	assert_true(hv_stimer_due(&t) == UINT64_MAX);
}

static void timer_without_a_place_does_not_run(void **state)
{
	struct hv_stimer t = { 0 };

	(void)state;
	hv_stimer_write_config(&t, MESSAGES | HV_STIMER_ENABLE, 0);
	assert_int_equal(t.config, MESSAGES);
	hv_stimer_write_count(&t, 100, 0);
	hv_stimer_write_config(&t, HV_STIMER_ENABLE, 0); /* a message to SINT 0 */
	assert_int_equal(t.config, 0);
}

/* One message of a timer waits at most, there is always room for it, and it can be taken back. */
static void timer_messages_wait(void **state)
{
	struct hv_queue *queue = calloc(1, sizeof(*queue));
	struct hv_message slot = { 0 };
	uint32_t word[2] = { 0, 77 }, got;

	(void)state;
	assert_non_null(queue);
	for (uint32_t i = 0; i < HV_QUEUE_MAX; i++)
		assert_true(hv_queue_put(queue, 1, &i, sizeof(i)));
	for (word[0] = 0; word[0] < HV_STIMERS; word[0]++) {
		assert_true(hv_queue_put_timer(queue, word[0], word, sizeof(word)));
		assert_false(hv_queue_put_timer(queue, word[0], word, sizeof(word)));
	}
	assert_false(hv_queue_put_timer(queue, HV_STIMERS, word, sizeof(word)));
	assert_false(hv_queue_put(queue, 1, word, sizeof(word)));
	hv_queue_drop_timer(queue, 2);
	hv_queue_drop_timer(queue, 2);
	assert_int_equal(queue->count, HV_QUEUE_MAX + HV_STIMERS - 1);
	for (uint32_t i = 0; i < HV_QUEUE_MAX + HV_STIMERS - 1; i++) {
		assert_true(hv_queue_deliver(queue, &slot));
		memcpy(&got, slot.payload, sizeof(got));
		assert_int_equal(slot.type, i < HV_QUEUE_MAX ? 1 : HV_MESSAGE_TIMER);
		assert_int_equal(got, i < HV_QUEUE_MAX ? i : i - HV_QUEUE_MAX < 2 ? i - HV_QUEUE_MAX : 3);
		slot.type = HV_MESSAGE_NONE;
	}
	assert_false(hv_queue_deliver(queue, &slot));
	free(queue);
}

/* Crash. */

static void crash_text_is_made_harmless(void **state)
{
	static const char text[] = "one\n\x1b[2Jtwo\ttabs\r\n\xff\n";
	uint64_t p[HV_CRASH_PARAMETERS] = { 1, 2, 3, HV_PAGE, sizeof(text) };
	struct fixture *f = *state;

	memcpy(f->ram + HV_PAGE, text, sizeof(text));
	hv_crashed(&f->vp, p, true);
	assert_int_equal(said.status, STATUS_PANICKED);
	assert_int_equal(said.lines, 4);
	assert_string_equal(said.text[0], "the guest has crashed: parameters 0x1 0x2 0x3 0x1000 0x15");
	assert_string_equal(said.text[1], "  guest: one");
	assert_string_equal(said.text[2], "  guest: ?[2Jtwo tabs");
	assert_string_equal(said.text[3], "  guest: ?");
}

/* TLFS 2.6: of the systems, only Windows gives a code first. */
static void bug_check_of_windows(void **state)
{
	static const uint64_t p[HV_CRASH_PARAMETERS] = { 0xd1, 1, 2, 3, 4 };
	struct fixture *f = *state;

	f->os_id = 0x0001040a00004563; /* Microsoft, Windows NT, 10.0 */
	hv_crashed(&f->vp, p, false);
	assert_string_equal(said.text[0], "the guest has crashed: bug check 0xd1, parameters 0x1 0x2 0x3 0x4");
	f->os_id = 0x8100000000000001; /* Linux */
	hv_crashed(&f->vp, p, false);
	assert_string_equal(said.text[1], "the guest has crashed: parameters 0xd1 0x1 0x2 0x3 0x4");
	assert_int_equal(said.lines, 2);
}

static void crash_text_is_bounded(void **state)
{
	uint64_t p[HV_CRASH_PARAMETERS] = { [3] = 0, [4] = UINT64_MAX };
	struct fixture *f = *state;
	size_t printed = 0;

	memset(f->ram, 'x', RAM_SIZE);
	hv_crashed(&f->vp, p, true);
	for (unsigned int i = 1; i < said.lines; i++)
		printed += strspn(said.text[i] + strlen("  guest: "), "x");
	assert_int_equal(printed, HV_PAGE);

	memset(&said, 0, sizeof(said));
	p[3] = RAM_SIZE - 8;
	hv_crashed(&f->vp, p, true);
	assert_int_equal(said.lines, 1);
	p[3] = UINT64_MAX - 8;
	p[4] = 0;
	hv_crashed(&f->vp, p, true);
	assert_int_equal(said.lines, 2);
	hv_crashed(&f->vp, p, false);
	assert_int_equal(said.lines, 3);
}

#define SLOTS_TEST(name) cmocka_unit_test_setup_teardown(name, setup_slots, teardown_slots)
#define TEST(name)	 cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SLOTS_TEST(message_goes_to_a_free_slot),
		SLOTS_TEST(busy_slot_is_told_that_more_waits),
		SLOTS_TEST(queue_keeps_order_and_its_bound),
		cmocka_unit_test(no_message_is_stranded),
		cmocka_unit_test(event_flags_have_their_places),
		cmocka_unit_test(scale_counts_100_ns),
		cmocka_unit_test(page_and_counter_agree),
		cmocka_unit_test(slow_tsc_gives_no_page),
		cmocka_unit_test(timer_runs_once),
		cmocka_unit_test(timer_has_a_period),
		cmocka_unit_test(timer_without_a_place_does_not_run),
		cmocka_unit_test(timer_messages_wait),
		TEST(decodes_input_value),
		TEST(posts_a_copy),
		TEST(ports_come_and_go),
		TEST(port_works_where_kvm_has_no_room),
		cmocka_unit_test(jumps_of_the_page_land),
		TEST(crash_text_is_made_harmless),
		TEST(bug_check_of_windows),
		TEST(crash_text_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
