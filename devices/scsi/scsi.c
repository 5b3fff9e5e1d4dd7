/* SPDX-License-Identifier: MIT */
/* What all commands have in common: dispatch, data, status and sense; and the commands of every kind of unit. */
#include "devices/scsi/scsi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "devices/scsi/internal.h"

enum scsi_op scsi_good(struct scsi_command *command)
{
	command->status = SCSI_GOOD;
	command->op = SCSI_DONE;
	return SCSI_DONE;
}

enum scsi_op scsi_answer(struct scsi_command *command, const void *bytes, size_t size, size_t allocation)
{
	const uint8_t *from = bytes;
	size_t left;

	if (size > allocation)
		size = allocation;
	if (size > command->data_size)
		size = command->data_size;
	left = size;
	for (unsigned int i = 0; left; i++) {
		size_t here = command->data[i].iov_len < left ? command->data[i].iov_len : left;

		memcpy(command->data[i].iov_base, from, here);
		from += here;
		left -= here;
	}
	command->transferred = size;
	return scsi_good(command);
}

/* SPC-4 4.5.3: fixed format sense data. */
enum scsi_op scsi_fail(struct scsi_command *command, enum scsi_sense sense)
{
	memset(command->sense, 0, sizeof(command->sense));
	command->sense[0] = 0x70;
	command->sense[2] = (uint8_t)(sense >> 16);
	command->sense[7] = SCSI_SENSE_SIZE - 8;
	command->sense[12] = (uint8_t)(sense >> 8);
	command->sense[13] = (uint8_t)sense;
	command->status = SCSI_CHECK_CONDITION;
	command->transferred = 0;
	command->op = SCSI_DONE;
	return SCSI_DONE;
}

bool scsi_gather(const struct scsi_command *command, void *to, size_t size)
{
	uint8_t *out = to;

	if (size > command->data_size)
		return false;
	for (unsigned int i = 0; size; i++) {
		size_t here = command->data[i].iov_len < size ? command->data[i].iov_len : size;

		memcpy(out, command->data[i].iov_base, here);
		out += here;
		size -= here;
	}
	return true;
}

/* SPC-4 6.33. Units have their number in the second byte: peripheral device addressing, SAM-5 4.7.7.2. */
static enum scsi_op report_luns(struct scsi_command *command)
{
	uint8_t list[8 + 8 * 256] = { 0 };
	uint32_t allocation = get32(command->cdb + 6);
	unsigned int luns = command->luns < 256 ? command->luns : 256;

	if (command->cdb[2] > 2 || allocation < 16)
		return scsi_fail(command, SENSE_BAD_FIELD);
	if (command->cdb[2] == 1) /* well known units only */
		luns = 0;
	put32(list, luns * 8);
	for (unsigned int i = 0; i < luns; i++)
		list[8 + 8 * i + 1] = (uint8_t)i;
	return scsi_answer(command, list, 8 + 8 * (size_t)luns, allocation);
}

/* SPC-4 6.39. All sense data has gone out with its command, so there is never any left. */
static enum scsi_op request_sense(struct scsi_command *command)
{
	uint8_t sense[SCSI_SENSE_SIZE] = { 0x70, [7] = SCSI_SENSE_SIZE - 8 };

	if (command->cdb[1] & 1) /* descriptor format */
		return scsi_fail(command, SENSE_BAD_FIELD);
	if (!command->lu) {
		sense[2] = SENSE_NO_LU >> 16;
		sense[12] = SENSE_NO_LU >> 8 & 0xff;
	}
	return scsi_answer(command, sense, sizeof(sense), command->cdb[4]);
}

/* SPC-4 4.2.5.1: the group, in the upper three bits, tells the length; 0 for those that have none of their own. */
static unsigned int length_of(uint8_t opcode)
{
	static const uint8_t lengths[] = { 6, 10, 10, 0, 16, 12, 0, 0 };

	return lengths[opcode >> 5];
}

enum scsi_op scsi_start(struct scsi_command *command)
{
	unsigned int length = length_of(command->cdb[0]);
	enum scsi_op op;

	if (!length)
		return scsi_fail(command, SENSE_BAD_OPCODE);
	if (command->cdb_length < length || command->cdb_length > SCSI_CDB_MAX)
		return scsi_fail(command, SENSE_BAD_FIELD);
	/* What a target answers for a unit that is not there, SPC-4 6.4.2. */
	switch (command->cdb[0]) {
	case 0x03:
		return request_sense(command);
	case 0x12:
		return scsi_inquiry(command);
	case 0xa0:
		return report_luns(command);
	default:
		break;
	}
	if (!command->lu)
		return scsi_fail(command, SENSE_NO_LU);
	switch (command->cdb[0]) {
	case 0x00: /* TEST UNIT READY */
	case 0x1b: /* START STOP UNIT: a medium that neither turns nor leaves */
	case 0x1e: /* PREVENT ALLOW MEDIUM REMOVAL: it never leaves */
		return scsi_good(command);
	case 0x1a:
	case 0x5a:
		return scsi_mode_sense(command);
	default:
		break;
	}
	if (scsi_disk(command, &op) || (command->lu->type == SCSI_DVD && scsi_dvd(command, &op)))
		return op;
	return scsi_fail(command, SENSE_BAD_OPCODE);
}

static enum scsi_sense sense_of(const struct scsi_command *command, int error)
{
	switch (error) {
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG:
		return SENSE_NO_SPACE;
	case -EROFS:
	case -EPERM:
	case -EACCES:
		return SENSE_WRITE_PROTECTED;
	case -ENOMEM:
		return SENSE_NO_MEMORY;
	default:
		return command->op == SCSI_READ ? SENSE_MEDIUM_READ : SENSE_MEDIUM_WRITE;
	}
}

enum scsi_op scsi_next(struct scsi_command *command, int result)
{
	if (result && result != -EOPNOTSUPP)
		return scsi_fail(command, sense_of(command, result));
	return scsi_disk_next(command, result);
}

void scsi_end(struct scsi_command *command)
{
	free(command->list);
	free(command->pattern_segments);
	if (command->pattern)
		munmap(command->pattern, SCSI_PATTERN);
	command->list = NULL;
	command->pattern_segments = NULL;
	command->pattern = NULL;
}
