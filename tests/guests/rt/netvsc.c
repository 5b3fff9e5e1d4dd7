/* SPDX-License-Identifier: MIT */
#include "rt/netvsc.h"

static const uint8_t class[16] = VB_GUID(0xf8615163, 0xdf3e, 0x46c5, 0x91, 0x3f, 0xf2, 0xd2, 0xf9, 0x65, 0xed, 0x0e);

static uint64_t payload[512];

const struct vb_offer *nv_offer(unsigned int sub)
{
	const struct vb_offer *offer = vb_find(class, NULL, sub);

	CHECK(offer);
	return offer;
}

uint32_t nv_message(struct nv *nv, const uint32_t *words, uint32_t count, uint32_t *answer)
{
	uint32_t message[10] = { 0 }, size;
	struct vb_packet packet;

	memcpy(message, words, count * 4ul);
	CHECK(vb_send(&nv->ch, VB_INBAND, 1, 0xabc, message, sizeof(message)));
	size = vb_await(&nv->ch, &packet, payload, sizeof(payload));
	CHECK_EQ(packet.type, VB_COMPLETION);
	CHECK_EQ(packet.transaction, 0xabc);
	CHECK(size >= 8 && size <= 40);
	memcpy(answer, payload, size);
	return size;
}

uint32_t nv_init(struct nv *nv, uint32_t min, uint32_t max)
{
	const uint32_t message[] = { 1, min, max };
	uint32_t answer[10];

	nv_message(nv, message, 3, answer);
	CHECK_EQ(answer[0], 2);
	CHECK_EQ(answer[3], answer[1] ? 1 : 2);
	nv->version = answer[1];
	return answer[1];
}

bool nv_send_pages(struct nv *nv, uint32_t channel_type, const void *memory, uint32_t size, uint64_t transaction)
{
	const uint32_t message[10] = { 107, channel_type, 0xffffffff, 0 };
	uint64_t extra[40] = { 1ull << 32 }, at = (uintptr_t)memory;
	uint32_t pages = (uint32_t)((at % VB_PAGE + size + VB_PAGE - 1) / VB_PAGE);

	CHECK(pages <= 38);
	extra[1] = size | (at % VB_PAGE) << 32;
	for (uint32_t i = 0; i < pages; i++)
		extra[2 + i] = at / VB_PAGE + i;
	return vb_send2(&nv->ch, VB_GPA_DIRECT, 1, transaction, extra, 16 + 8 * pages, message, sizeof(message));
}

bool nv_send_section(struct nv *nv, uint32_t section, uint32_t size, uint64_t transaction)
{
	const uint32_t message[10] = { 107, 0, section, size };

	return vb_send(&nv->ch, VB_INBAND, 1, transaction, message, sizeof(message));
}

uint32_t nv_completed(struct nv *nv, uint64_t transaction)
{
	struct vb_packet packet;
	uint32_t words[2];

	CHECK(vb_await(&nv->ch, &packet, payload, sizeof(payload)) >= 8);
	CHECK_EQ(packet.type, VB_COMPLETION);
	CHECK_EQ(packet.transaction, transaction);
	memcpy(words, payload, 8);
	CHECK_EQ(words[0], 108);
	return words[1];
}

uint32_t nv_wrap(uint8_t *to, const void *frame, uint32_t size)
{
	const uint32_t head[11] = { 1, 44 + size, 36, size };

	memcpy(to, head, sizeof(head));
	memcpy(to + sizeof(head), frame, size);
	return 44 + size;
}

bool nv_arrived(struct nv *nv, struct nv_arrival *a, uint32_t us)
{
	uint64_t end = vb_deadline(us), head;
	struct vb_packet packet;
	int size;

	for (unsigned int looks = 0; (size = vb_recv(&nv->ch, &packet, payload, sizeof(payload))) < 0; looks++) {
		if (!vb_in_time(end))
			return false;
		vb_poll();
		vb_rest(looks);
	}
	CHECK_EQ(packet.type, VB_TRANSFER);
	CHECK_EQ(packet.flags, 1);
	memcpy(&head, payload, 8);
	a->transaction = packet.transaction;
	a->ranges = (uint32_t)(head >> 32);
	CHECK_EQ(head & 0xffff, 0xcafe);
	CHECK(a->ranges && a->ranges <= 64 && packet.offset8 == 3 + a->ranges);
	memcpy(a->range, payload + 1, 8ul * a->ranges);
	for (uint32_t i = 0; i < a->ranges; i++)
		CHECK(a->range[i].offset <= NV_RECEIVE_PAGES * VB_PAGE &&
		      a->range[i].size <= NV_RECEIVE_PAGES * VB_PAGE - a->range[i].offset);
	return true;
}

const uint8_t *nv_frame(const struct nv *nv, const struct nv_arrival *a, uint32_t n, uint32_t *size)
{
	const uint8_t *at = nv->receive + a->range[n].offset;
	uint32_t head[4];

	memcpy(head, at, sizeof(head));
	CHECK_EQ(head[1], a->range[n].size);
	if (head[0] != 1)
		return NULL;
	CHECK(8 + head[2] + head[3] <= head[1]);
	*size = head[3];
	return at + 8 + head[2];
}

void nv_done(struct nv *nv, const struct nv_arrival *a)
{
	const uint32_t message[10] = { 108, 1 };

	CHECK(vb_send(&nv->ch, VB_COMPLETION, 0, a->transaction, message, sizeof(message)));
}

/* Sends the control message in nv->control; the answer is there instead when it returns. Its length. */
static uint32_t control(struct nv *nv, uint32_t size)
{
	uint32_t kind, request, answer[4];
	struct nv_arrival a;

	memcpy(&kind, nv->control, 4);
	memcpy(&request, nv->control + 8, 4);
	CHECK(nv_send_pages(nv, 1, nv->control, size, 0x77));
	CHECK_EQ(nv_completed(nv, 0x77), 1);
	CHECK(nv_arrived(nv, &a, VB_WAIT));
	CHECK_EQ(a.ranges, 1);
	CHECK(a.range[0].size <= VB_PAGE && a.range[0].size >= 16);
	memcpy(nv->control, nv->receive + a.range[0].offset, a.range[0].size);
	nv_done(nv, &a);
	memcpy(answer, nv->control, sizeof(answer));
	CHECK_EQ(answer[0], kind | 0x80000000);
	CHECK_EQ(answer[1], a.range[0].size);
	CHECK_EQ(answer[2], request);
	return answer[1];
}

uint32_t nv_query(struct nv *nv, uint32_t oid, void *value, uint32_t *size)
{
	const uint32_t message[7] = { 4, 28 + *size, ++nv->request, oid, *size, 20 };
	uint32_t answer[6], length;

	memcpy(nv->control, message, sizeof(message));
	memset(nv->control + 28, 0, *size);
	length = control(nv, 28 + *size);
	CHECK(length >= 24);
	memcpy(answer, nv->control, sizeof(answer));
	if (answer[3])
		return answer[3];
	CHECK(answer[4] <= *size && answer[5] == 16 && length == 24 + answer[4]);
	memcpy(value, nv->control + 24, answer[4]);
	*size = answer[4];
	return 0;
}

uint32_t nv_set(struct nv *nv, uint32_t oid, const void *value, uint32_t size)
{
	const uint32_t message[7] = { 5, 28 + size, ++nv->request, oid, size, 20 };
	uint32_t answer[4];

	memcpy(nv->control, message, sizeof(message));
	memcpy(nv->control + 28, value, size);
	CHECK_EQ(control(nv, 28 + size), 16);
	memcpy(answer, nv->control, sizeof(answer));
	return answer[3];
}

static void lend(struct nv *nv)
{
	const uint32_t receive[] = { 101, nv->receive_handle, 0xcafe }, send[] = { 104, nv->send_handle, 0 };
	uint32_t answer[10];

	nv_message(nv, receive, 3, answer);
	CHECK_EQ(answer[0], 102);
	CHECK_EQ(answer[1], 1);
	CHECK_EQ(answer[2], 1);
	CHECK_EQ(answer[3], 0);
	nv->slot_size = answer[4];
	nv->slots = answer[5];
	CHECK((uint64_t)nv->slot_size * nv->slots <= NV_RECEIVE_PAGES * VB_PAGE && nv->slots >= 4);
	nv_message(nv, send, 3, answer);
	CHECK_EQ(answer[0], 105);
	CHECK_EQ(answer[1], 1);
	nv->section_size = answer[2];
}

void nv_start(struct nv *nv, uint32_t version)
{
	const uint32_t start[6] = { 2, 24, ++nv->request, 1, 0, 0x4000 }, config[] = { 125, 1514, 0, 0xac, 0 };
	uint32_t size = 6, answer[10];

	if (!nv->receive) {
		nv->receive = vb_pages(NV_RECEIVE_PAGES);
		nv->send = vb_pages(NV_SEND_PAGES);
		nv->control = vb_pages(1);
	}
	CHECK_EQ(vb_open(&nv->ch, nv_offer(0), 16, 16, 0), 0);
	CHECK_EQ(nv_init(nv, version, version), version);
	if (version >= NV_V2)
		nv_message(nv, config, 5, answer);
	nv->receive_handle = vb_new_handle();
	nv->send_handle = vb_new_handle();
	CHECK_EQ(vb_gpadl(nv->ch.relid, nv->receive_handle, nv->receive, NV_RECEIVE_PAGES * VB_PAGE), 0);
	CHECK_EQ(vb_gpadl(nv->ch.relid, nv->send_handle, nv->send, NV_SEND_PAGES * VB_PAGE), 0);
	lend(nv);
	memcpy(nv->control, start, sizeof(start));
	CHECK_EQ(control(nv, sizeof(start)), 52);
	CHECK_EQ(nv_query(nv, 0x01010101, nv->mac, &size), 0);
	CHECK_EQ(size, 6);
}

void nv_stop(struct nv *nv)
{
	const uint32_t revoke_receive[] = { 103, 0xcafe }, revoke_send[] = { 106, 0 };
	uint32_t answer[10];

	nv_message(nv, revoke_receive, 2, answer);
	nv_message(nv, revoke_send, 2, answer);
	vb_gpadl_teardown(nv->ch.relid, nv->receive_handle);
	vb_gpadl_teardown(nv->ch.relid, nv->send_handle);
	vb_close(&nv->ch);
}
