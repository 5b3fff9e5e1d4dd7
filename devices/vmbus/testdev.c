/* SPDX-License-Identifier: MIT */
#include "devices/vmbus/testdev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/vmbus/vmbus.h"
#include "vmm/log.h"
#include "vmm/memory.h"
#include "vmm/vm.h"

#define PACKET_MAX 32768
#define HELD_MAX   (256u << 10) /* bytes of answers that wait for room */
#define SEND_MAX   (64u << 20)	/* bytes that one SEND may ask for: the loop is busy meanwhile */
#define SUM_MAX	   (16u << 20)	/* the same of SUM and FILL */
#define PAGE	   4096u
#define MONITOR_NS 100000
#define SEND_HEAD  offsetof(struct vmbus_test_packet, value)

/* Devices that came from one another by RESCIND. */
struct family {
	struct vm *vm;
	unsigned int alive; /* the guest has yet to let go of all but one */
};
#define FAMILY_MAX 16

struct testdev {
	struct vmbus_device device;
	struct family *family;
	uint64_t packets;
};

/* An answer that waits for room. */
struct held {
	struct held *next;
	uint16_t type;
	uint64_t transaction;
	size_t size;
	uint8_t payload[];
};

/* An open channel. */
struct open_channel {
	struct vmbus_channel *channel;
	struct testdev *dev;
	struct held *first, **last;
	size_t held;
	struct vmbus_gpadl *gpadl;
	uint32_t next, count, size; /* of SEND */
};

static int hold(struct open_channel *oc, uint16_t type, uint64_t transaction, const void *payload, size_t size)
{
	struct held *h;

	if (size + sizeof(*h) > HELD_MAX - oc->held)
		return -ENOBUFS;
	h = malloc(sizeof(*h) + size);
	if (!h)
		return -ENOMEM;
	*h = (struct held){ .type = type, .transaction = transaction, .size = size };
	memcpy(h->payload, payload, size);
	*oc->last = h;
	oc->last = &h->next;
	oc->held += sizeof(*h) + size;
	return 0;
}

static int answer(struct open_channel *oc, const struct vmbus_packet *packet, const void *payload, size_t size)
{
	bool asked = packet->flags & VMBUS_PACKET_COMPLETION_REQUESTED;
	uint16_t type = asked ? VMBUS_PACKET_COMPLETION : VMBUS_PACKET_INBAND;
	int ret = oc->first ? -EAGAIN : vmbus_send(oc->channel, type, 0, packet->transaction, payload, size);

	if (ret == -EAGAIN)
		ret = hold(oc, type, packet->transaction, payload, size);
	return ret == -ENOTCONN ? 0 : ret;
}

static bool send_held(struct open_channel *oc)
{
	struct held *h;

	while ((h = oc->first)) {
		if (vmbus_send(oc->channel, h->type, 0, h->transaction, h->payload, h->size))
			return false;
		oc->first = h->next;
		if (!oc->first)
			oc->last = &oc->first;
		oc->held -= sizeof(*h) + h->size;
		free(h);
	}
	return true;
}

static void send_asked_for(struct open_channel *oc)
{
	uint64_t aligned[VMBUS_TEST_PAYLOAD / 8];
	uint8_t *payload = (uint8_t *)aligned;

	while (oc->next < oc->count) {
		struct vmbus_test_packet head = { .op = VMBUS_TEST_SEND, .a = oc->next };

		for (uint32_t i = 0; i < oc->size; i++)
			payload[i] = (uint8_t)(oc->next + i - SEND_HEAD);
		memcpy(payload, &head, SEND_HEAD);
		if (vmbus_send(oc->channel, VMBUS_PACKET_INBAND, 0, 0, payload, oc->size))
			return;
		oc->next++;
	}
}

static void room(struct vmbus_channel *channel)
{
	struct open_channel *oc = vmbus_channel_opaque(channel);

	if (send_held(oc))
		send_asked_for(oc);
}

/* Operations: status is a positive errno, and p is both the order and the answer. */
static uint32_t do_send(struct open_channel *oc, struct vmbus_test_packet *p)
{
	if (oc->next < oc->count)
		return EBUSY;
	if (p->b < SEND_HEAD || p->b > VMBUS_TEST_PAYLOAD || (uint64_t)p->a * p->b > SEND_MAX)
		return EINVAL;
	oc->next = 0;
	oc->count = p->a;
	oc->size = p->b;
	return 0;
}

static uint32_t do_offer(struct open_channel *oc, struct vmbus_test_packet *p)
{
	if (vmbus_channel_index(oc->channel))
		return EPERM;
	return (uint32_t)-vmbus_offer_subchannels(&oc->dev->device, p->a);
}

static uint32_t do_rescind(struct open_channel *oc, struct vmbus_test_packet *p)
{
	(void)p;
	if (vmbus_channel_index(oc->channel))
		return EPERM;
	return oc->dev->family->alive < FAMILY_MAX ? 0 : EBUSY;
}

static uint32_t do_hold(struct open_channel *oc, struct vmbus_test_packet *p)
{
	if (oc->gpadl)
		return EBUSY;
	oc->gpadl = vmbus_gpadl_get(oc->channel, p->a);
	if (!oc->gpadl)
		return ENOENT;
	p->value = vmbus_gpadl_size(oc->gpadl);
	return 0;
}

static uint32_t do_release(struct open_channel *oc, struct vmbus_test_packet *p)
{
	(void)p;
	if (!oc->gpadl)
		return ENOENT;
	vmbus_gpadl_put(oc->gpadl);
	oc->gpadl = NULL;
	return 0;
}

/* SUM and FILL: of bytes [a, a + b), in pieces. */
static uint32_t each_piece(struct open_channel *oc, struct vmbus_test_packet *p, bool fill)
{
	uint8_t piece[PAGE];
	uint64_t sum = 0;
	int ret = 0;

	if (!oc->gpadl)
		return ENOENT;
	if (p->b > SUM_MAX)
		return EINVAL;
	memset(piece, (int)(p->value & 0xff), sizeof(piece));
	for (size_t done = 0; done < p->b && !ret;) {
		size_t at = (size_t)p->a + done, size = p->b - done < PAGE ? p->b - done : PAGE;

		ret = fill ? vmbus_gpadl_write(oc->gpadl, at, piece, size)
			   : vmbus_gpadl_read(oc->gpadl, at, piece, size);
		if (!ret && !fill)
			sum = vmbus_test_sum(sum, piece, size);
		done += size;
	}
	p->value = sum;
	return (uint32_t)-ret;
}

static uint32_t do_sum(struct open_channel *oc, struct vmbus_test_packet *p)
{
	return each_piece(oc, p, false);
}

static uint32_t do_fill(struct open_channel *oc, struct vmbus_test_packet *p)
{
	return each_piece(oc, p, true);
}

static uint32_t do_count(struct open_channel *oc, struct vmbus_test_packet *p)
{
	p->value = oc->dev->packets;
	return 0;
}

static uint32_t (*const operations[])(struct open_channel *oc, struct vmbus_test_packet *p) = {
	[VMBUS_TEST_SEND] = do_send,   [VMBUS_TEST_OFFER] = do_offer,	  [VMBUS_TEST_RESCIND] = do_rescind,
	[VMBUS_TEST_HOLD] = do_hold,   [VMBUS_TEST_SUM] = do_sum,	  [VMBUS_TEST_FILL] = do_fill,
	[VMBUS_TEST_COUNT] = do_count, [VMBUS_TEST_RELEASE] = do_release,
};

static int add(struct family *family, const struct vmbus_device_class *class);

static void come_back(struct testdev *dev)
{
	int ret;

	vmbus_flush(dev->device.channel); /* the answer; nothing of a channel that is no more is shown to the guest */
	vmbus_remove_device(&dev->device);
	ret = add(dev->family, dev->device.class);
	if (ret)
		log_line("vmbus-test: cannot come back: %s", strerror(-ret));
}

static int in_band(struct open_channel *oc, const struct vmbus_packet *packet)
{
	struct vmbus_test_packet p;
	int ret;

	if (packet->size < sizeof(p))
		return -EPROTO;
	memcpy(&p, packet->payload, sizeof(p));
	if (p.op == VMBUS_TEST_PING)
		return answer(oc, packet, packet->payload, 0);
	if (p.op == VMBUS_TEST_ECHO)
		return answer(oc, packet, packet->payload, packet->size);
	if (p.op >= sizeof(operations) / sizeof(operations[0]) || !operations[p.op])
		return -EPROTO; /* FAIL too */
	p.status = operations[p.op](oc, &p);
	ret = answer(oc, packet, &p, sizeof(p));
	if (ret || p.status)
		return ret;
	if (p.op == VMBUS_TEST_SEND && !oc->first)
		send_asked_for(oc);
	if (p.op == VMBUS_TEST_RESCIND)
		come_back(oc->dev);
	return 0;
}

/* The part of one range that is in the page pfn; false if that is not RAM. */
static bool add_page(const struct vm *vm, uint64_t pfn, uint32_t offset, uint32_t size, uint64_t *sum)
{
	const void *bytes = pfn < UINT64_MAX / PAGE ? ram_ptr(&vm->memory, pfn * PAGE + offset, size) : NULL;

	if (bytes)
		*sum = vmbus_test_sum(*sum, bytes, size);
	return bytes;
}

/*
 * Linux include/linux/hyperv.h, struct vmdata_gpa_direct: 4 reserved bytes, the number of ranges, and for each its
 * length, its offset in the first page, and the pages it touches.
 */
static int sum_ranges(struct open_channel *oc, const struct vmbus_packet *packet, struct vmbus_test_packet *p)
{
	const uint64_t *word = packet->extra;
	size_t left = packet->extra_size / 8;
	uint32_t ranges;

	if (!left)
		return -EPROTO;
	ranges = (uint32_t)(*word++ >> 32);
	left--;
	while (ranges--) {
		uint32_t size, offset;

		if (!left)
			return -EPROTO;
		size = (uint32_t)*word;
		offset = (uint32_t)(*word++ >> 32);
		left--;
		if (offset >= PAGE)
			return -EPROTO;
		for (uint32_t here; size; size -= here, offset = 0, left--) {
			here = size < PAGE - offset ? size : PAGE - offset;
			if (!left)
				return -EPROTO;
			if (!add_page(oc->dev->family->vm, *word++, offset, here, &p->value))
				p->status = EFAULT;
			p->a += here;
		}
	}
	return 0;
}

static int gpa_direct(struct open_channel *oc, const struct vmbus_packet *packet)
{
	struct vmbus_test_packet p = { .op = VMBUS_TEST_RANGES };
	int ret = sum_ranges(oc, packet, &p);

	return ret ? ret : answer(oc, packet, &p, sizeof(p));
}

static int packet(struct vmbus_channel *channel, const struct vmbus_packet *p)
{
	struct open_channel *oc = vmbus_channel_opaque(channel);

	oc->dev->packets++;
	switch (p->type) {
	case VMBUS_PACKET_INBAND:
		return in_band(oc, p);
	case VMBUS_PACKET_GPA_DIRECT:
		return gpa_direct(oc, p);
	case VMBUS_PACKET_COMPLETION: /* nothing here asks for one */
	default:
		return -EPROTO;
	}
}

static int open_channel(struct vmbus_channel *channel)
{
	struct open_channel *oc = calloc(1, sizeof(*oc));

	if (!oc)
		return -ENOMEM;
	oc->channel = channel;
	oc->dev = (struct testdev *)vmbus_channel_device(channel);
	oc->last = &oc->first;
	vmbus_channel_set_opaque(channel, oc);
	return 0;
}

static void close_channel(struct vmbus_channel *channel)
{
	struct open_channel *oc = vmbus_channel_opaque(channel);
	struct held *next;

	for (struct held *h = oc->first; h; h = next) {
		next = h->next;
		free(h);
	}
	if (oc->gpadl)
		vmbus_gpadl_put(oc->gpadl);
	free(oc);
}

static void reset(struct vmbus_device *device)
{
	((struct testdev *)device)->packets = 0;
}

static void free_device(struct testdev *dev)
{
	if (!--dev->family->alive)
		free(dev->family);
	free(dev);
}

static void destroy(struct vmbus_device *device)
{
	free_device((struct testdev *)device);
}

#define TEST_TYPE VMBUS_GUID(0x77fcd982, 0x4f4f, 0x4260, 0x97, 0x54, 0x29, 0xa7, 0x5e, 0x83, 0xd0, 0x72)

static const struct vmbus_device_class plain = {
	.name = "vmbus-test",
	.type = TEST_TYPE,
	.instance = VMBUS_GUID(0xa1b9cb36, 0x8b7f, 0x405c, 0xaa, 0x78, 0x14, 0xd9, 0xa1, 0x2c, 0x65, 0x71),
	.packet_max = PACKET_MAX,
	.open = open_channel,
	.close = close_channel,
	.packet = packet,
	.room = room,
	.reset = reset,
	.destroy = destroy,
};

static const struct vmbus_device_class monitored = {
	.name = "vmbus-test-monitored",
	.type = TEST_TYPE,
	.instance = VMBUS_GUID(0x5d0f2c1e, 0x93a4, 0x4b67, 0x8e, 0x11, 0xc2, 0x6f, 0x30, 0xd7, 0x49, 0xba),
	.packet_max = PACKET_MAX,
	.monitor_ns = MONITOR_NS,
	.open = open_channel,
	.close = close_channel,
	.packet = packet,
	.room = room,
	.reset = reset,
	.destroy = destroy,
};

static int add(struct family *family, const struct vmbus_device_class *class)
{
	struct testdev *dev = calloc(1, sizeof(*dev));
	int ret;

	if (!dev)
		return -ENOMEM;
	dev->family = family;
	family->alive++;
	ret = vmbus_add_device(family->vm->vmbus, &dev->device, class, NULL);
	if (ret)
		free_device(dev);
	return ret;
}

static int create(struct vm *vm, const struct vmbus_device_class *class)
{
	struct family *family = calloc(1, sizeof(*family));
	int ret;

	if (!family)
		return -ENOMEM;
	family->vm = vm;
	family->alive = 1; /* so that a failure leaves it to us */
	ret = add(family, class);
	if (!--family->alive)
		free(family);
	return ret;
}

int vmbus_testdev_create(struct vm *vm)
{
	int ret = create(vm, &plain);

	return ret ? ret : create(vm, &monitored);
}
