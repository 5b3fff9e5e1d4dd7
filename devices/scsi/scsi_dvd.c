/* SPDX-License-Identifier: MIT */
/* A DVD drive with a medium of one track that never leaves it: MMC-6 section 6, as far as systems ask for it. */
#include <string.h>

#include "devices/scsi/internal.h"

#define PROFILE_DVD_ROM 0x0010
#define PROFILE_CD_ROM	0x0008
#define LEAD_OUT	0xaa
#define CONTROL_DATA	0x14 /* a data track, position in the sub-channel */

/* Minutes, seconds and frames of an address; what is beyond them is cut off. */
static void put_msf(uint8_t *at, uint64_t lba)
{
	uint64_t frames = lba + 150;

	at[0] = 0;
	at[1] = (uint8_t)(frames / 75 / 60 > 99 ? 99 : frames / 75 / 60);
	at[2] = (uint8_t)(frames / 75 % 60);
	at[3] = (uint8_t)(frames % 75);
}

static void put_address(uint8_t *at, uint64_t lba, bool msf)
{
	if (msf)
		put_msf(at, lba);
	else
		put32(at, lba > UINT32_MAX ? UINT32_MAX : (uint32_t)lba);
}

static void track(uint8_t *at, uint8_t number, uint64_t lba, bool msf)
{
	at[1] = CONTROL_DATA;
	at[2] = number;
	put_address(at + 4, lba, msf);
}

/* 6.26 */
static enum scsi_op read_toc(struct scsi_command *command)
{
	bool msf = command->cdb[1] & 2;
	/* Some ask for the format where it was in older standards. */
	unsigned int format = command->cdb[2] & 0x0f ? command->cdb[2] & 0x0f : command->cdb[9] >> 6;
	unsigned int first = command->cdb[6];
	uint8_t b[20] = { 0, 0, 1, 1 };
	size_t size = 4;

	switch (format) {
	case 0:
		if (first > 1 && first != LEAD_OUT)
			return scsi_fail(command, SENSE_BAD_FIELD);
		if (first <= 1) {
			track(b + size, 1, 0, msf);
			size += 8;
		}
		track(b + size, LEAD_OUT, command->lu->blocks, msf);
		size += 8;
		break;
	case 1: /* the last session's first track */
		track(b + size, 1, 0, msf);
		size += 8;
		break;
	default:
		return scsi_fail(command, SENSE_BAD_FIELD);
	}
	put16(b, (uint32_t)(size - 2));
	return scsi_answer(command, b, size, get16(command->cdb + 7));
}

/* Features, 5.3: all of them are current. */
static const uint8_t profiles[] = {
	0x00, 0x00, 0x03, 8, PROFILE_DVD_ROM >> 8, PROFILE_DVD_ROM, 1, 0, PROFILE_CD_ROM >> 8, PROFILE_CD_ROM, 0, 0
};
static const uint8_t core[] = { 0x00, 0x01, 0x0b, 8, 0, 0, 0, 1, 1, 0, 0, 0 }; /* SCSI; DBE */
static const uint8_t morphing[] = { 0x00, 0x02, 0x07, 4, 0x02, 0, 0, 0 };      /* OCEvent */
static const uint8_t removable[] = { 0x00, 0x03, 0x0b, 4, 0x28, 0, 0, 0 };     /* a tray, ejects */
static const uint8_t random_readable[] = { 0x00, 0x10, 0x03, 8, 0, 0, 8, 0, 0, 16, 1, 0 };
static const uint8_t dvd_read[] = { 0x00, 0x1f, 0x07, 4, 0, 0, 0, 0 };

static const struct {
	const uint8_t *bytes;
	size_t size;
} features[] = {
	{ profiles, sizeof(profiles) },
	{ core, sizeof(core) },
	{ morphing, sizeof(morphing) },
	{ removable, sizeof(removable) },
	{ random_readable, sizeof(random_readable) },
	{ dvd_read, sizeof(dvd_read) },
};

/* 6.6 */
static enum scsi_op get_configuration(struct scsi_command *command)
{
	unsigned int which = command->cdb[1] & 3, from = get16(command->cdb + 2);
	uint8_t b[8 + 64] = { 0 };
	size_t size = 8;

	if (which == 3)
		return scsi_fail(command, SENSE_BAD_FIELD);
	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		unsigned int number = get16(features[i].bytes);

		if (which == 2 ? number != from : number < from)
			continue;
		memcpy(b + size, features[i].bytes, features[i].size);
		size += features[i].size;
	}
	put32(b, (uint32_t)(size - 4));
	put16(b + 6, PROFILE_DVD_ROM);
	return scsi_answer(command, b, size, get16(command->cdb + 7));
}

/* 6.7: by polling; of the classes only the one about the medium, where nothing ever happens. */
static enum scsi_op get_event_status(struct scsi_command *command)
{
	const uint8_t media = 1 << 4;
	uint8_t b[8] = { 0, 4, 4, media, 0, 0x02 }; /* no change; a medium is in the closed tray */

	if (!(command->cdb[1] & 1))
		return scsi_fail(command, SENSE_BAD_FIELD);
	if (command->cdb[4] & media)
		return scsi_answer(command, b, sizeof(b), get16(command->cdb + 7));
	b[1] = 2;
	b[2] = 0x80; /* none of the classes asked for */
	return scsi_answer(command, b, 4, get16(command->cdb + 7));
}

/* 6.21: a complete disc with one complete session of one track. */
static enum scsi_op read_disc_information(struct scsi_command *command)
{
	uint8_t b[34] = { 0, 32, 0x0e, 1, 1, 1, 1 };

	if (command->cdb[1] & 7)
		return scsi_fail(command, SENSE_BAD_FIELD);
	b[7] = 0x20; /* unrestricted use */
	memset(b + 16, 0xff, 8);
	return scsi_answer(command, b, sizeof(b), get16(command->cdb + 7));
}

/* 6.27 */
static enum scsi_op read_track_information(struct scsi_command *command)
{
	uint64_t blocks = command->lu->blocks;
	uint8_t b[36] = { 0, 34, 1, 1, 0, 0x04, 0x01 };

	put32(b + 24, blocks > UINT32_MAX ? UINT32_MAX : (uint32_t)blocks);
	return scsi_answer(command, b, sizeof(b), get16(command->cdb + 7));
}

/* 6.22: the physical format only: DVD-ROM, 120 mm, one layer, data from 30000h on. */
static enum scsi_op read_dvd_structure(struct scsi_command *command)
{
	uint8_t b[4 + 2048] = { 0 };

	if (command->cdb[7] || command->cdb[6])
		return scsi_fail(command, SENSE_BAD_FIELD);
	put16(b, sizeof(b) - 2);
	b[4] = 0x01;
	b[5] = 0x02;
	b[6] = 0x01;
	put32(b + 8, 0x30000);
	put32(b + 12, (uint32_t)(0x30000 + command->lu->blocks - 1) & 0xffffff);
	return scsi_answer(command, b, sizeof(b), get16(command->cdb + 8));
}

static enum scsi_op mechanism_status(struct scsi_command *command)
{
	uint8_t b[8] = { 0 };

	return scsi_answer(command, b, sizeof(b), get16(command->cdb + 8));
}

bool scsi_dvd(struct scsi_command *command, enum scsi_op *op)
{
	static const struct {
		uint8_t opcode;
		enum scsi_op (*run)(struct scsi_command *command);
	} commands[] = {
		{ 0x43, read_toc },
		{ 0x46, get_configuration },
		{ 0x4a, get_event_status },
		{ 0x51, read_disc_information },
		{ 0x52, read_track_information },
		{ 0xad, read_dvd_structure },
		{ 0xbb, scsi_good }, /* SET CD SPEED */
		{ 0xbd, mechanism_status },
	};

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (commands[i].opcode == command->cdb[0]) {
			*op = commands[i].run(command);
			return true;
		}
	}
	return false;
}
