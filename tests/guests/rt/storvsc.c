/* SPDX-License-Identifier: MIT */
#include "rt/storvsc.h"

static const uint8_t class[16] = VB_GUID(0xba6163d9, 0x04a1, 0x4d29, 0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1, 0xdc, 0x7f);

const struct vb_offer *sv_offer(unsigned int sub)
{
	const struct vb_offer *offer = vb_find(class, NULL, sub);

	CHECK(offer);
	return offer;
}

struct sv_packet sv_await(struct vb_channel *ch, uint64_t *transaction)
{
	struct sv_packet answer;
	struct vb_packet packet;
	uint64_t buffer[8];

	CHECK_EQ(vb_await(ch, &packet, buffer, sizeof(buffer)), sizeof(answer));
	CHECK_EQ(packet.type, VB_COMPLETION);
	*transaction = packet.transaction;
	memcpy(&answer, buffer, sizeof(answer));
	CHECK_EQ(answer.op, SV_COMPLETE);
	return answer;
}

bool sv_send(struct vb_channel *ch, uint64_t transaction, struct sv_packet packet, const void *memory, uint32_t size)
{
	static uint64_t list[2 + SV_PAGES];
	uint64_t at = (uint64_t)memory;
	uint32_t pages = (uint32_t)((at % VB_PAGE + size + VB_PAGE - 1) / VB_PAGE);

	if (packet.op == SV_SRB && packet.transfer == 0xffffffff)
		packet.transfer = size;
	if (!size)
		return vb_send(ch, VB_INBAND, 1, transaction, &packet, sizeof(packet));
	CHECK(pages <= SV_PAGES);
	list[0] = 1ULL << 32;
	list[1] = (at % VB_PAGE) << 32 | size;
	for (uint32_t i = 0; i < pages; i++)
		list[2 + i] = at / VB_PAGE + i;
	return vb_send2(ch, VB_GPA_DIRECT, 1, transaction, list, 16 + 8 * pages, &packet, sizeof(packet));
}

struct sv_packet sv_run(struct vb_channel *ch, struct sv_packet packet, const void *memory, uint32_t size)
{
	static uint64_t number = 1000000;
	struct sv_packet answer;
	uint64_t transaction;

	CHECK(sv_send(ch, ++number, packet, memory, size));
	answer = sv_await(ch, &transaction);
	CHECK_EQ(transaction, number);
	return answer;
}

struct sv_packet sv_good(struct vb_channel *ch, struct sv_packet packet, const void *memory, uint32_t size)
{
	struct sv_packet answer = sv_run(ch, packet, memory, size);

	CHECK_EQ(answer.status, 0);
	CHECK_EQ(answer.srb_status, SV_OK);
	CHECK_EQ(answer.scsi_status, 0);
	return answer;
}

struct sv_packet sv_control(struct vb_channel *ch, uint32_t op, uint16_t value)
{
	return sv_run(ch, (struct sv_packet){ .op = op, .flags = 1, .version = value }, NULL, 0);
}

struct sv_packet sv_open(struct vb_channel *ch, unsigned int ring, uint16_t version)
{
	struct sv_packet properties;

	CHECK_EQ(vb_open(ch, sv_offer(0), ring, ring, 0), 0);
	CHECK_EQ(sv_control(ch, SV_BEGIN, 0).status, 0);
	CHECK_EQ(sv_control(ch, SV_VERSION, version).status, 0);
	properties = sv_control(ch, SV_PROPERTIES, 0);
	CHECK_EQ(properties.status, 0);
	CHECK_EQ(sv_control(ch, SV_END, 0).status, 0);
	return properties;
}

struct sv_packet sv_srb(unsigned int lun, const uint8_t *cdb, unsigned int length)
{
	struct sv_packet packet = { .op = SV_SRB,
				    .flags = 1,
				    .length = 52,
				    .lun = (uint8_t)lun,
				    .cdb_length = (uint8_t)length,
				    .sense_length = 20 };

	memcpy(packet.cdb, cdb, length);
	packet.transfer = 0xffffffff; /* the caller's buffer, unless it says otherwise */
	return packet;
}

struct sv_packet sv_transfer(unsigned int lun, bool write, uint64_t block, uint32_t blocks)
{
	uint8_t cdb[16] = { write ? 0x8a : 0x88 };

	for (unsigned int i = 0; i < 8; i++)
		cdb[2 + i] = (uint8_t)(block >> (56 - 8 * i));
	for (unsigned int i = 0; i < 4; i++)
		cdb[10 + i] = (uint8_t)(blocks >> (24 - 8 * i));
	return sv_srb(lun, cdb, 16);
}

uint64_t sv_be(const uint8_t *at, unsigned int bytes)
{
	uint64_t value = 0;

	while (bytes--)
		value = value << 8 | *at++;
	return value;
}
