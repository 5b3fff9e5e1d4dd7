/* SPDX-License-Identifier: MIT */
#include "rt/vmbus.h"

#include "rt/apic.h"
#include "rt/hyperv.h"
#include "rt/io.h"

#define HEAP_BEGIN 0x1000000ULL
#define HEAP_END   0xe000000ULL

#define EVENT_CONNECTION 2 /* of versions that share one */
#define MESSAGE_TYPE	 1 /* HvMessageType of channel messages, both ways */

extern uint8_t rt_ap_stacks[];

struct vb vb;

/* Messages taken and not yet looked at, of each VP. */
struct mailbox {
	volatile uint32_t head, tail;
	struct vb_message at[VB_MAIL];
};
static struct mailbox *mailboxes; /* one a VP */
static uint8_t *heap = (uint8_t *)HEAP_BEGIN;
static volatile uint32_t ready;
static void (*vp_entry)(unsigned int n);

/* rt_ticks() is for one processor at a time and costs an exit: here it is the time stamp counter. */
static uint64_t cycles_per_us;

uint64_t vb_deadline(uint32_t us)
{
	return rdtsc() + us * cycles_per_us;
}

bool vb_in_time(uint64_t end)
{
	return (int64_t)(rdtsc() - end) < 0;
}

/* The least of several, since the host may take the processor away in the middle of one. */
static void measure_cycles(void)
{
	for (unsigned int i = 0; i < 4; i++) {
		uint64_t begin = rdtsc(), n;

		rt_delay(300);
		n = (rdtsc() - begin) / 300;
		if (!i || n < cycles_per_us)
			cycles_per_us = n;
	}
	CHECK(cycles_per_us);
}

void vb_copy8(void *to, const void *from, uint32_t size)
{
	uint64_t n = size / 8;

	__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

void *vb_pages(unsigned int count)
{
	uint8_t *at = heap;
	uint64_t n = (uint64_t)count * (VB_PAGE / 8);
	void *to = at;

	CHECK((uint64_t)heap + (uint64_t)count * VB_PAGE <= HEAP_END);
	heap += (uint64_t)count * VB_PAGE;
	__asm__ volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(0) : "memory");
	return at;
}

uint8_t *vb_mark(void)
{
	return heap;
}

void vb_release(uint8_t *mark)
{
	heap = mark;
}

/* By its stack: the only thing that each processor has for itself. */
unsigned int vb_cpu(void)
{
	uint64_t at = (uint64_t)__builtin_frame_address(0), first = (uint64_t)rt_ap_stacks;

	if (at < first || at >= first + ((uint64_t)AP_MAX << AP_STACK_SHIFT))
		return 0;
	return (unsigned int)((at - first) >> AP_STACK_SHIFT) + 1;
}

/* Messages. */

static void file_offer(const struct vb_message *m)
{
	const struct vb_offer *offer = (const void *)m->w;

	if (!vb.lenient) {
		CHECK_EQ(m->size, sizeof(*offer));
		CHECK(offer->relid > 0 && offer->relid < 2048);
		CHECK_EQ(offer->zero, 0);
		CHECK_EQ(offer->monitor_allocated & ~1, 0);
	}
	if (vb.offers < VB_OFFERS)
		memcpy(&vb.offer[vb.offers++], offer, sizeof(*offer));
}

static void file_rescind(const struct vb_message *m)
{
	bool known = false;

	CHECK(vb.lenient || m->size == 12);
	for (unsigned int i = 0; i < vb.offers; i++) {
		if (vb.offer[i].relid == m->w[2] && vb.offer[i].kind) {
			vb.offer[i].kind = 0;
			known = true;
		}
	}
	CHECK(vb.lenient || known);
	vb.rescinded = m->w[2];
	vb.rescinds++;
}

static void file_message(struct mailbox *box, const struct vb_message *m)
{
	if (m->w[0] == VB_OFFER) {
		file_offer(m);
	} else if (m->w[0] == VB_RESCIND) {
		file_rescind(m);
	} else {
		box->at[box->head % VB_MAIL] = *m;
		box->head++;
	}
}

static bool take_message(unsigned int vp)
{
	volatile struct hv_message *slot = hv_slot(vp, VB_SINT);
	struct vb_message m;
	uint8_t flags;

	if (!slot->type)
		return false;
	if (mailboxes[vp].head - mailboxes[vp].tail == VB_MAIL) {
		/* With no more place it stays where it is, and others behind it. */
		if (!vb.lenient)
			return false;
		mailboxes[vp].tail++;
	}
	CHECK_EQ(slot->type, MESSAGE_TYPE);
	m.size = slot->size;
	CHECK(m.size >= 8 && m.size <= 240);
	vb_copy8(m.w, (const void *)slot->payload, (m.size + 7) & ~7u);
	/* As a real guest does: empty the slot, and only then see whether another one waits for that. */
	__atomic_store_n(&slot->type, 0, __ATOMIC_SEQ_CST);
	flags = __atomic_load_n(&slot->flags, __ATOMIC_SEQ_CST);
	if (flags & 1)
		wrmsr(HV_EOM, 0);
	vb.messages[vp]++;
	file_message(&mailboxes[vp], &m);
	return true;
}

/* Events. */

static void relid_event(unsigned int vp, uint32_t relid)
{
	vb.flag_events[relid]++;
	vb.flag_vp[relid] = vp;
	vb.events[vp]++;
}

static void take_words(unsigned int vp, volatile uint64_t *words, uint32_t count, bool shared)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t set = words[i] ? __atomic_exchange_n(&words[i], 0, __ATOMIC_SEQ_CST) : 0;

		while (set) {
			uint32_t flag = i * 64 + (uint32_t)__builtin_ctzll(set);

			set &= set - 1;
			if (!shared)
				relid_event(vp, flag);
			else if (vb.interrupt_page) /* flag 0: look into the interrupt page */
				take_words(vp, (volatile uint64_t *)vb.interrupt_page, 2, false);
		}
	}
}

static void take_events(unsigned int vp)
{
	bool shared = vb.version && vb.version < VB_WIN8;

	/* Relids are small here, so few words will do unless the guest wants other flags. */
	take_words(vp, hv_event_flags(vp, VB_SINT), vb.flag_offset ? HV_EVENT_FLAGS / 64 : 2, shared);
}

static void take_all(unsigned int vp)
{
	take_events(vp);
	while (take_message(vp))
		;
}

/*
 * Waiting is halting: a guest that spins takes the processor from the threads it waits for. A message or an event ends
 * it, and a timer, for what comes without an interrupt.
 */
#define TICK_VECTOR 0xf0
#define TICK_COUNT  125000 /* at 1 GHz divided by 16: 2 ms */

static void start_tick(void)
{
	lapic_write(LAPIC_TIMER_DIVIDE, 3);
	lapic_write(LAPIC_LVT_TIMER, TICK_VECTOR | LVT_PERIODIC);
	lapic_write(LAPIC_TIMER_INITIAL, TICK_COUNT);
}

void vb_rest(unsigned int looks)
{
	if (vb.polling || looks < 3)
		__asm__ volatile("pause");
	else
		halt_until_irq();
}

void vb_idle(void)
{
	for (;;) {
		vb_poll();
		vb_rest(3);
	}
}

static void interrupted(struct rt_frame *frame)
{
	(void)frame;
	if (vb.by_interrupt)
		take_all(vb_cpu());
	lapic_eoi();
}

void vb_poll(void)
{
	if (vb.by_interrupt)
		irq_window();
	else
		take_all(vb_cpu());
}

/* Start. */

/* SynIC and vector of this processor. */
static void start_vp(unsigned int n)
{
	rt_handlers[VB_VECTOR] = interrupted;
	lapic_enable(false);
	hv_synic_enable(n);
	hv_sint_enable(VB_SINT, VB_VECTOR, vb.sint_flags);
	if (!vb.polling)
		start_tick();
	CHECK_EQ(rdmsr(HV_VP_INDEX), n);
	CHECK_EQ(vb_cpu(), n);
}

static void other_vp(unsigned int n)
{
	start_vp(n + 1);
	__atomic_store_n(&ready, n + 1, __ATOMIC_SEQ_CST);
	if (vp_entry)
		vp_entry(n + 1);
	vb_idle();
}

void vb_start(unsigned int cpus, void (*entry)(unsigned int n))
{
	CHECK(cpus >= 1 && cpus <= VB_VPS);
	measure_cycles();
	mailboxes = vb_pages((VB_VPS * sizeof(*mailboxes) + VB_PAGE - 1) / VB_PAGE);
	hv_init();
	start_vp(0);
	vp_entry = entry;
	for (unsigned int i = 1; i < cpus; i++) {
		ap_start(i, other_vp);
		CHECK(vb_reaches(&ready, i, VB_WAIT));
	}
}

/* Posting and waiting. */

uint16_t vb_post_once(uint32_t connection, const void *message, uint32_t size)
{
	uint32_t *input = (uint32_t *)hv_input_page(vb_cpu());

	input[0] = connection;
	input[1] = 0;
	input[2] = MESSAGE_TYPE;
	input[3] = size;
	vb_copy8(input + 4, message, size < HV_PAYLOAD ? (size + 7) & ~7u : HV_PAYLOAD);
	return (uint16_t)hv_call(HV_CALL_POST_MESSAGE, (uint64_t)input, 0);
}

void vb_post(const void *message, uint32_t size)
{
	uint16_t status = vb_post_once(vb.connection, message, size);
	uint64_t end = vb_deadline(VB_WAIT);

	while (status == HV_INSUFFICIENT_BUFFERS && vb_in_time(end)) {
		vb_poll(); /* the host may wait for us, too */
		status = vb_post_once(vb.connection, message, size);
	}
	CHECK_EQ(status, 0);
}

static bool mail(struct vb_message *m)
{
	struct mailbox *box = &mailboxes[vb_cpu()];

	if (box->tail == box->head)
		return false;
	*m = box->at[box->tail % VB_MAIL];
	box->tail++;
	return true;
}

bool vb_next(struct vb_message *m, uint32_t us)
{
	uint64_t end;

	if (mail(m))
		return true;
	end = vb_deadline(us);
	for (unsigned int looks = 0;; looks++) {
		bool late = !vb_in_time(end);

		vb_poll();
		if (mail(m))
			return true;
		if (late)
			return false;
		vb_rest(looks);
	}
}

/* Whoever asks nonsense gets answers at any time: lenient, those of another kind or with another number are dropped. */
static void expect_number(struct vb_message *m, uint32_t kind, uint32_t size, unsigned int at, uint32_t number)
{
	do {
		if (!vb_next(m, VB_WAIT)) {
			rt_print("no answer of kind %u\n", kind);
			CHECK(!"an answer from the host");
		}
	} while (vb.lenient && (m->w[0] != kind || (at && m->w[at] != number)));
	CHECK_EQ(m->w[0], kind);
	if (at)
		CHECK_EQ(m->w[at], number);
	CHECK_EQ(m->size, size);
	CHECK_EQ(m->w[1], 0);
}

void vb_expect(struct vb_message *m, uint32_t kind, uint32_t size)
{
	expect_number(m, kind, size, 0, 0);
}

bool vb_reaches(const volatile uint32_t *counter, uint32_t count, uint32_t us)
{
	uint64_t end = vb_deadline(us);

	for (unsigned int looks = 0; (int32_t)(*counter - count) < 0; looks++) {
		bool late = !vb_in_time(end);

		vb_poll();
		if (late)
			return (int32_t)(*counter - count) >= 0;
		if ((int32_t)(*counter - count) < 0)
			vb_rest(looks);
	}
	return true;
}

unsigned int vb_drain(uint32_t us)
{
	struct vb_message m;
	unsigned int n = 0;

	while (vb_next(&m, us))
		n++;
	return n;
}

/* Connection. */

bool vb_contact(uint32_t version, unsigned int vp, uint32_t features)
{
	uint32_t w[14] = { VB_CONTACT, 0, version, vp };
	bool multi = version >= VB_5_0;
	struct vb_message m;

	if (multi) {
		w[4] = VB_SINT;
		w[5] = features;
	} else {
		if (!vb.interrupt_page)
			vb.interrupt_page = vb_pages(1);
		memset(vb.interrupt_page, 0, VB_PAGE);
		w[4] = (uint32_t)(uint64_t)vb.interrupt_page;
	}
	if (vb.monitor_pages) {
		uint64_t pages[2] = { (uint64_t)vb.monitor_pages, (uint64_t)vb.monitor_pages + VB_PAGE };

		memcpy(w + 6, pages, sizeof(pages));
	}
	vb.connection = multi ? 4 : 1;
	vb.offers = vb.rescinds = 0;
	vb_post(w, features & VB_CLIENT_ID ? 56 : 40);
	do
		CHECK(vb_next(&m, VB_WAIT));
	/* Nor is a success for another version ours. */
	while (vb.lenient && (m.w[0] != VB_VERSION || (m.w[2] & 0xff && m.w[3] != (multi ? 4 : version))));
	CHECK_EQ(m.w[0], VB_VERSION);
	CHECK(m.size == 16 || (m.size == 20 && version >= VB_6_0));
	if (!(m.w[2] & 0xff)) {
		vb.version = 0;
		return false;
	}
	CHECK_EQ(m.w[2], 1); /* supported, state successful */
	vb.version = version;
	vb.vp = vp;
	if (multi)
		vb.connection = m.w[3];
	else
		CHECK_EQ(m.w[3], version);
	vb.features = m.size == 20 ? m.w[4] : 0;
	CHECK_EQ(m.size, version >= VB_6_0 ? 20 : 16);
	CHECK_EQ(vb.features & ~features, 0);
	return true;
}

void vb_request_offers(void)
{
	uint32_t w[2] = { VB_REQUEST_OFFERS };
	struct vb_message m;

	vb_post(w, sizeof(w));
	vb_expect(&m, VB_ALL_OFFERS, 8);
}

void vb_connect(uint32_t version)
{
	if (!vb_contact(version, 0, 0)) {
		rt_print("version 0x%x\n", version);
		CHECK(!"the host takes this version");
	}
	vb_request_offers();
}

void vb_unload(void)
{
	uint32_t w[2] = { VB_UNLOAD };
	struct vb_message m;

	vb_post(w, sizeof(w));
	vb_expect(&m, VB_UNLOADED, 8);
	vb.version = 0;
}

void vb_relid_released(uint32_t relid)
{
	uint32_t w[3] = { VB_RELID_RELEASED, 0, relid };

	vb_post(w, sizeof(w));
}

const struct vb_offer *vb_find(const uint8_t *type, const uint8_t *instance, unsigned int sub)
{
	for (unsigned int i = vb.offers; i-- > 0;) {
		const struct vb_offer *offer = &vb.offer[i];

		if (!memcmp(offer->type, type, 16) && (!instance || !memcmp(offer->instance, instance, 16)) &&
		    offer->sub == sub && offer->kind)
			return offer;
	}
	return NULL;
}

/* GPADLs and channels. */

uint32_t vb_new_handle(void)
{
	static uint32_t handle = 0xe1e10; /* where Linux begins */

	return handle++;
}

uint32_t vb_gpadl(uint32_t relid, uint32_t handle, const void *memory, uint32_t bytes)
{
	uint64_t at = (uint64_t)memory, pfn = at / VB_PAGE;
	uint32_t pages = (uint32_t)((at % VB_PAGE + bytes + VB_PAGE - 1) / VB_PAGE), part = pages < 26 ? pages : 26;
	uint32_t w[60] = { VB_GPADL_HEADER,	    0, relid, handle, 1u << 16 | (8 + 8 * pages), bytes,
			   (uint32_t)(at % VB_PAGE) };
	uint64_t list[28];
	struct vb_message m;

	CHECK(pages && pages <= 8190);
	for (uint32_t i = 0; i < part; i++)
		list[i] = pfn++;
	memcpy(w + 7, list, part * 8);
	vb_post(w, 28 + 8 * part);
	pages -= part;
	for (uint32_t number = 1; pages; number++, pages -= part) {
		uint64_t body[30] = { VB_GPADL_BODY, (uint64_t)handle << 32 | number };

		part = pages < 28 ? pages : 28;
		for (uint32_t i = 0; i < part; i++)
			body[2 + i] = pfn++;
		vb_post(body, 16 + 8 * part);
	}
	expect_number(&m, VB_GPADL_CREATED, 20, 3, handle);
	CHECK_EQ(m.w[2], relid);
	return m.w[4];
}

void vb_gpadl_teardown(uint32_t relid, uint32_t handle)
{
	uint32_t w[4] = { VB_GPADL_TEARDOWN, 0, relid, handle };
	struct vb_message m;

	vb_post(w, sizeof(w));
	expect_number(&m, VB_GPADL_TORNDOWN, 12, 2, handle);
}

uint32_t vb_send_open(struct vb_channel *ch, uint32_t open_id, uint32_t vp, uint32_t downstream)
{
	uint32_t w[40] = { VB_OPEN, 0, ch->relid, open_id, ch->gpadl, vp, downstream };
	bool longer = vb.features & (VB_GUEST_SIGNAL | VB_REDIRECT);
	struct vb_message m;

	if (longer) {
		w[37] = ch->connection;
		w[38] = ch->flag;
	}
	vb_post(w, longer ? 156 : 148);
	expect_number(&m, VB_OPEN_RESULT, 20, 3, open_id);
	CHECK_EQ(m.w[2], ch->relid);
	return m.w[4];
}

void vb_send_close(uint32_t relid)
{
	uint32_t w[3] = { VB_CLOSE, 0, relid };

	vb_post(w, sizeof(w));
}

static void clear_ring(struct vb_ring *ring)
{
	for (unsigned int i = 0; i < 32; i++)
		ring->control[i] = 0;
	ring->control[VB_FEATURES] = 1;
}

static void make_ring(struct vb_ring *ring, uint8_t *memory, unsigned int pages)
{
	ring->control = (volatile uint32_t *)memory;
	ring->data = memory + VB_PAGE;
	ring->size = pages * VB_PAGE;
}

uint32_t vb_reopen(struct vb_channel *ch, unsigned int vp)
{
	uint32_t out = ch->out.size + VB_PAGE, in = ch->in.size + VB_PAGE, status;

	clear_ring(&ch->out);
	clear_ring(&ch->in);
	ch->gpadl = vb_new_handle();
	status = vb_gpadl(ch->relid, ch->gpadl, ch->memory, out + in);
	if (status)
		return status;
	return vb_send_open(ch, ch->relid, vp, out / VB_PAGE);
}

uint32_t vb_open(struct vb_channel *ch, const struct vb_offer *offer, unsigned int out, unsigned int in,
		 unsigned int vp)
{
	ch->relid = offer->relid;
	ch->connection = vb.version >= VB_WIN7 ? offer->connection : EVENT_CONNECTION;
	ch->dedicated = vb.version >= VB_WIN7 && offer->dedicated & 1;
	ch->flag = offer->relid;
	ch->monitored = offer->monitor_allocated & 1;
	ch->monitor = offer->monitor;
	if (vb.features & VB_GUEST_SIGNAL) {
		ch->connection += vb.connection_offset;
		ch->flag += vb.flag_offset;
	}
	ch->signals = 0;
	ch->memory = vb_pages(out + in + 2);
	make_ring(&ch->out, ch->memory, out);
	make_ring(&ch->in, ch->memory + (out + 1) * VB_PAGE, in);
	return vb_reopen(ch, vp);
}

void vb_close(struct vb_channel *ch)
{
	vb_send_close(ch->relid);
	vb_gpadl_teardown(ch->relid, ch->gpadl);
}
