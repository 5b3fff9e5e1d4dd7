/* SPDX-License-Identifier: MIT */
/*
 * Block commands, SBC-3 section 5; a DVD drive's reads and its READ CAPACITY are the same ones.
 *
 * WRITE SAME of zeroes asks the host for them first, with UNMAP in a way that gives the space back; where the host
 * cannot, and for any other pattern, the block is written again and again: out of one buffer of 64 KiB that holds it
 * many times, named by each of up to 1024 segments. That is 64 MiB, which VPD page B0h gives as the limit. The buffer
 * is a mapping of its own, so that a write under way when vmm ends can never write what else the heap holds.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "devices/scsi/internal.h"

#define SAME_MAX (64ULL << 20)
#define LIST_MAX (8 + 16 * 256)

/* False, and the command has failed, unless [lba, lba + blocks) is on the medium. */
static bool set_range(struct scsi_command *command, uint64_t lba, uint64_t blocks)
{
	const struct scsi_lu *lu = command->lu;

	if (lba > lu->blocks || blocks > lu->blocks - lba) {
		scsi_fail(command, SENSE_OUT_OF_RANGE);
		return false;
	}
	command->offset = lba * lu->block_size;
	command->length = blocks * lu->block_size;
	return true;
}

static enum scsi_op begin(struct scsi_command *command, enum scsi_op op)
{
	command->op = op;
	return op;
}

/* The initiator's buffer, as far as the command uses it. */
static bool use_data(struct scsi_command *command)
{
	uint64_t left = command->length;

	if (left > command->data_size || left > SIZE_MAX)
		return false;
	command->segments = command->data;
	for (command->count = 0; left; command->count++) {
		struct iovec *segment = &command->segments[command->count];

		if (segment->iov_len > left)
			segment->iov_len = (size_t)left;
		left -= segment->iov_len;
	}
	return true;
}

struct range {
	uint64_t lba, blocks;
};

/* Where each length of CDB has its address and length. */
static struct range range_of(const struct scsi_command *command)
{
	const uint8_t *cdb = command->cdb;

	switch (cdb[0] >> 5) {
	case 0:
		return (struct range){ get24(cdb + 1) & 0x1fffff, cdb[4] ? cdb[4] : 256 };
	case 4:
		return (struct range){ get64(cdb + 2), get32(cdb + 10) };
	case 5:
		return (struct range){ get32(cdb + 2), get32(cdb + 6) };
	default:
		return (struct range){ get32(cdb + 2), get16(cdb + 7) };
	}
}

static enum scsi_op transfer(struct scsi_command *command, enum scsi_op op)
{
	struct range range = range_of(command);
	bool flags = command->cdb[0] >> 5; /* the shortest has none */

	if (flags && command->cdb[1] & 0xe0) /* protection information */
		return scsi_fail(command, SENSE_BAD_FIELD);
	if (op == SCSI_WRITE && command->lu->readonly)
		return scsi_fail(command, SENSE_WRITE_PROTECTED);
	if (!set_range(command, range.lba, range.blocks))
		return SCSI_DONE;
	if (!use_data(command))
		return scsi_fail(command, SENSE_BAD_FIELD);
	if (!command->length)
		return scsi_good(command);
	command->fua = op == SCSI_WRITE && flags && command->cdb[1] & 8;
	return begin(command, op);
}

/* The medium has the blocks if it has their addresses; what they hold is not compared. */
static enum scsi_op verify(struct scsi_command *command)
{
	struct range range = range_of(command);

	if (command->cdb[1] & 0xe6) /* protection, BYTCHK */
		return scsi_fail(command, SENSE_BAD_FIELD);
	return set_range(command, range.lba, range.blocks) ? scsi_good(command) : SCSI_DONE;
}

static enum scsi_op synchronize(struct scsi_command *command)
{
	struct range range = range_of(command);

	if (!set_range(command, range.lba, range.blocks))
		return SCSI_DONE;
	/* The range is a hint; IMMED would make a promise that nobody hears of when it is broken. */
	return command->lu->readonly ? scsi_good(command) : begin(command, SCSI_FLUSH);
}

static enum scsi_op read_capacity10(struct scsi_command *command)
{
	uint64_t last = command->lu->blocks - 1;
	uint8_t b[8];

	put32(b, last > UINT32_MAX ? UINT32_MAX : (uint32_t)last);
	put32(b + 4, command->lu->block_size);
	return scsi_answer(command, b, sizeof(b), sizeof(b));
}

/* SBC-3 5.16 */
static enum scsi_op read_capacity16(struct scsi_command *command)
{
	const struct scsi_lu *lu = command->lu;
	uint8_t b[32] = { 0 };

	if ((command->cdb[1] & 0x1f) != 0x10) /* SERVICE ACTION IN(16) */
		return scsi_fail(command, SENSE_BAD_FIELD);
	put64(b, lu->blocks - 1);
	put32(b + 8, lu->block_size);
	b[13] = (uint8_t)__builtin_ctz(lu->best_blocks);
	b[14] = lu->unmap ? 0xc0 : 0; /* LBPME, LBPRZ */
	return scsi_answer(command, b, sizeof(b), get32(command->cdb + 10));
}

/* The next descriptor of the list that has blocks; all ranges have been checked. */
static enum scsi_op next_unmap(struct scsi_command *command)
{
	while (command->list_at < command->list_end) {
		const uint8_t *descriptor = command->list + command->list_at;

		command->list_at += 16;
		if (!set_range(command, get64(descriptor), get32(descriptor + 8)))
			return SCSI_DONE;
		if (command->length)
			return begin(command, SCSI_PUNCH);
	}
	return scsi_good(command);
}

static bool list_is_good(struct scsi_command *command)
{
	for (size_t at = 8; at < command->list_end; at += 16)
		if (!set_range(command, get64(command->list + at), get32(command->list + at + 8)))
			return false;
	return true;
}

/* SBC-3 5.28 */
static enum scsi_op unmap(struct scsi_command *command)
{
	size_t size = get16(command->cdb + 7), descriptors;

	if (!command->lu->unmap || command->cdb[1] & 1) /* ANCHOR */
		return scsi_fail(command, command->lu->unmap ? SENSE_BAD_FIELD : SENSE_BAD_OPCODE);
	if (command->lu->readonly)
		return scsi_fail(command, SENSE_WRITE_PROTECTED);
	if (!size)
		return scsi_good(command);
	if (size < 8)
		return scsi_fail(command, SENSE_BAD_LIST_LENGTH);
	if (size > LIST_MAX)
		return scsi_fail(command, SENSE_BAD_PARAMETER);
	command->list = malloc(size);
	if (!command->list)
		return scsi_fail(command, SENSE_NO_MEMORY);
	if (!scsi_gather(command, command->list, size))
		return scsi_fail(command, SENSE_BAD_LIST_LENGTH);
	descriptors = get16(command->list + 2);
	if (descriptors > size - 8)
		descriptors = size - 8;
	command->list_end = 8 + descriptors / 16 * 16;
	if (!list_is_good(command))
		return SCSI_DONE;
	command->transferred = size;
	command->list_at = 8;
	return next_unmap(command);
}

/* Writes the block that begins the pattern again and again. */
static enum scsi_op write_pattern(struct scsi_command *command)
{
	uint32_t block_size = command->lu->block_size;
	uint64_t left = command->length;
	unsigned int count = (unsigned int)((left + SCSI_PATTERN - 1) / SCSI_PATTERN);

	command->pattern_segments = calloc(count, sizeof(command->pattern_segments[0]));
	if (!command->pattern_segments)
		return scsi_fail(command, SENSE_NO_MEMORY);
	for (uint32_t at = block_size; at < SCSI_PATTERN; at += block_size)
		memcpy(command->pattern + at, command->pattern, block_size);
	for (unsigned int i = 0; i < count; i++) {
		size_t here = left < SCSI_PATTERN ? (size_t)left : SCSI_PATTERN;

		command->pattern_segments[i] = (struct iovec){ command->pattern, here };
		left -= here;
	}
	command->segments = command->pattern_segments;
	command->count = count;
	return begin(command, SCSI_WRITE);
}

static bool is_zero(const uint8_t *bytes, size_t size)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, size - 1);
}

/* SBC-3 5.44, 5.45 */
static enum scsi_op write_same(struct scsi_command *command)
{
	const struct scsi_lu *lu = command->lu;
	struct range range = range_of(command);
	uint8_t flags = command->cdb[1];
	bool no_data = command->cdb[0] == 0x93 && flags & 1;
	uint8_t *pattern;

	/* Protection, ANCHOR; a length of 0 would be all the rest, which WSNZ excludes. */
	if (flags & 0xf0 || !range.blocks)
		return scsi_fail(command, SENSE_BAD_FIELD);
	if (lu->readonly)
		return scsi_fail(command, SENSE_WRITE_PROTECTED);
	if (!set_range(command, range.lba, range.blocks))
		return SCSI_DONE;
	if (command->length > SAME_MAX)
		return scsi_fail(command, SENSE_BAD_FIELD);
	pattern = mmap(NULL, SCSI_PATTERN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pattern == MAP_FAILED)
		return scsi_fail(command, SENSE_NO_MEMORY);
	command->pattern = pattern;
	if (!no_data && !scsi_gather(command, pattern, lu->block_size))
		return scsi_fail(command, SENSE_BAD_FIELD);
	command->transferred = no_data ? 0 : lu->block_size;
	if (!is_zero(pattern, lu->block_size))
		return write_pattern(command);
	return begin(command, flags & 8 && lu->unmap ? SCSI_PUNCH : SCSI_ZERO);
}

bool scsi_disk(struct scsi_command *command, enum scsi_op *op)
{
	bool dvd = command->lu->type == SCSI_DVD;

	switch (command->cdb[0]) {
	case 0x08: /* READ(6), (10), (12), (16) */
	case 0x28:
	case 0xa8:
	case 0x88:
		*op = transfer(command, SCSI_READ);
		return true;
	case 0x0a: /* WRITE(6), (10), (12), (16) */
	case 0x2a:
	case 0xaa:
	case 0x8a:
		*op = transfer(command, SCSI_WRITE);
		return !dvd;
	case 0x2f: /* VERIFY(10), (12), (16) */
	case 0xaf:
	case 0x8f:
		*op = verify(command);
		return true;
	case 0x35: /* SYNCHRONIZE CACHE(10), (16) */
	case 0x91:
		*op = synchronize(command);
		return true;
	case 0x25:
		*op = read_capacity10(command);
		return true;
	case 0x9e:
		*op = read_capacity16(command);
		return true;
	case 0x42:
		if (!dvd)
			*op = unmap(command);
		return !dvd;
	case 0x41:
	case 0x93:
		if (!dvd)
			*op = write_same(command);
		return !dvd;
	default:
		return false;
	}
}

enum scsi_op scsi_disk_next(struct scsi_command *command, int result)
{
	uint8_t opcode = command->cdb[0];

	switch (command->op) {
	case SCSI_PUNCH:
		/* What UNMAP names may stay mapped, SBC-3 4.7.3.4; WRITE SAME has to have its zeroes. */
		if (opcode == 0x42)
			return next_unmap(command);
		return result ? begin(command, SCSI_ZERO) : scsi_good(command);
	case SCSI_ZERO:
		return result ? write_pattern(command) : scsi_good(command);
	case SCSI_READ:
	case SCSI_WRITE:
		if (result)
			return scsi_fail(command, command->op == SCSI_READ ? SENSE_MEDIUM_READ : SENSE_MEDIUM_WRITE);
		if (opcode != 0x41 && opcode != 0x93)
			command->transferred = (size_t)command->length;
		return scsi_good(command);
	case SCSI_FLUSH:
		return result ? scsi_fail(command, SENSE_MEDIUM_WRITE) : scsi_good(command);
	case SCSI_DONE:
	default:
		return SCSI_DONE;
	}
}
