/* SPDX-License-Identifier: MIT */
/* What the files of the SCSI target share. */
#ifndef DEVICES_SCSI_INTERNAL_H
#define DEVICES_SCSI_INTERNAL_H

#include "devices/scsi/scsi.h"

/* SPC-4 4.5.6: sense keys, and key << 16 | additional sense code << 8 | its qualifier. */
enum scsi_sense {
	SENSE_MEDIUM_READ = 0x031100,	  /* unrecovered read error */
	SENSE_MEDIUM_WRITE = 0x030c00,	  /* write error */
	SENSE_HARDWARE = 0x044400,	  /* internal target failure */
	SENSE_BAD_OPCODE = 0x052000,	  /* invalid command operation code */
	SENSE_OUT_OF_RANGE = 0x052100,	  /* logical block address out of range */
	SENSE_BAD_FIELD = 0x052400,	  /* invalid field in CDB */
	SENSE_NO_LU = 0x052500,		  /* logical unit not supported */
	SENSE_BAD_PARAMETER = 0x052600,	  /* invalid field in parameter list */
	SENSE_BAD_LIST_LENGTH = 0x051a00, /* parameter list length error */
	SENSE_NOT_SAVED = 0x053900,	  /* saving parameters not supported */
	SENSE_WRITE_PROTECTED = 0x072700, /* write protected */
	SENSE_NO_SPACE = 0x072707,	  /* space allocation failed write protect */
	SENSE_NO_MEMORY = 0x0b5503,	  /* insufficient resources */
};

static inline uint16_t get16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t get24(const uint8_t *at)
{
	return (uint32_t)at[0] << 16 | get16(at + 1);
}

static inline uint32_t get32(const uint8_t *at)
{
	return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static inline uint64_t get64(const uint8_t *at)
{
	return (uint64_t)get32(at) << 32 | get32(at + 4);
}

static inline void put16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static inline void put32(uint8_t *at, uint32_t value)
{
	put16(at, value >> 16);
	put16(at + 2, value & 0xffff);
}

static inline void put64(uint8_t *at, uint64_t value)
{
	put32(at, (uint32_t)(value >> 32));
	put32(at + 4, (uint32_t)value);
}

/* The command ends: well, with these bytes (as many of them as it allows), or with this sense. */
enum scsi_op scsi_good(struct scsi_command *command);
enum scsi_op scsi_answer(struct scsi_command *command, const void *bytes, size_t size, size_t allocation);
enum scsi_op scsi_fail(struct scsi_command *command, enum scsi_sense sense);

/* Copies the first size bytes of the initiator's data; false if there are fewer. */
bool scsi_gather(const struct scsi_command *command, void *to, size_t size);

/* scsi_pages.c */
enum scsi_op scsi_inquiry(struct scsi_command *command);
enum scsi_op scsi_mode_sense(struct scsi_command *command);

/* scsi_disk.c: each takes a command that is not its own with false. */
bool scsi_disk(struct scsi_command *command, enum scsi_op *op);
enum scsi_op scsi_disk_next(struct scsi_command *command, int result);

/* scsi_dvd.c */
bool scsi_dvd(struct scsi_command *command, enum scsi_op *op);

#endif
