/* SPDX-License-Identifier: MIT */
/*
 * A SCSI target: what a command descriptor block asks for, turned into operations on blocks, data for the initiator,
 * status and sense. It knows no image, no bus and no KVM: whoever has those calls scsi_start(), carries out the
 * operation it returns, reports by scsi_next() how that ended, and so on until SCSI_DONE. One command at a time is one
 * struct scsi_command; any number of them may be under way.
 *
 * Sources: SPC-4 (common commands), SBC-3 (disks), MMC-6 (DVD drives).
 */
#ifndef DEVICES_SCSI_SCSI_H
#define DEVICES_SCSI_SCSI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define SCSI_CDB_MAX	16
#define SCSI_SENSE_SIZE 18
#define SCSI_SERIAL_MAX 64
#define SCSI_PATTERN	(64u << 10)

/* SAM-5 5.3.1 */
enum scsi_status {
	SCSI_GOOD = 0,
	SCSI_CHECK_CONDITION = 2,
};

enum scsi_type { SCSI_DISK = 0, SCSI_DVD = 5 }; /* peripheral device type */

/* A logical unit. Constant while commands of it are under way. */
struct scsi_lu {
	enum scsi_type type;
	uint64_t blocks;
	uint32_t block_size;	 /* bytes: 512 to 4096, a power of two */
	uint32_t best_blocks;	 /* that the medium likes to have together, a power of two */
	uint32_t transfer_bytes; /* the largest transfer */
	bool readonly;
	bool unmap; /* blocks can be given back */
	char serial[SCSI_SERIAL_MAX + 1];
	uint64_t id; /* of the world's units, this one: the low 60 bits count */
};

enum scsi_op {
	SCSI_DONE,
	SCSI_READ,  /* segments are where to */
	SCSI_WRITE, /* and where from; on stable storage when done if fua */
	SCSI_FLUSH,
	SCSI_PUNCH, /* blocks to be zero, and given back */
	SCSI_ZERO,  /* blocks to be zero */
};

struct scsi_command {
	/* The caller's. An absent unit has lu NULL. The segments' array is used up. */
	const struct scsi_lu *lu;
	unsigned int luns; /* that the target has, numbered from 0 */
	uint8_t cdb[SCSI_CDB_MAX];
	unsigned int cdb_length;
	struct iovec *data; /* the initiator's buffer: read from or written to as the command wants */
	unsigned int data_count;
	size_t data_size;

	/* The operation that is asked for; bytes, within the unit, multiples of its blocks. */
	struct iovec *segments;
	unsigned int count;
	uint64_t offset, length;
	bool fua;

	/* The result. */
	enum scsi_status status;
	uint8_t sense[SCSI_SENSE_SIZE]; /* fixed format; valid with SCSI_CHECK_CONDITION */
	size_t transferred;		/* bytes of data */

	/* Between calls. */
	enum scsi_op op;
	uint8_t *list; /* descriptors of UNMAP */
	size_t list_at, list_end;
	uint8_t *pattern; /* of WRITE SAME: a mapping of SCSI_PATTERN bytes, and the segments that name it */
	struct iovec *pattern_segments;
};

/* The caller has filled its part, everything else is zero. scsi_end() is due when it is done, or given up. */
enum scsi_op scsi_start(struct scsi_command *command);
/* The operation has ended with 0 or -errno. */
enum scsi_op scsi_next(struct scsi_command *command, int result);
void scsi_end(struct scsi_command *command);

#endif
