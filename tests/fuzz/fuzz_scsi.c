/* SPDX-License-Identifier: MIT */
/* CDBs and data against the SCSI target: each operation it asks for must be possible, and the command must end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/scsi/scsi.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct scsi_lu units[] = {
	{ .type = SCSI_DISK,
	  .blocks = 1 << 20,
	  .block_size = 512,
	  .best_blocks = 8,
	  .transfer_bytes = 2 << 20,
	  .unmap = true,
	  .serial = "0123456789abcdef" },
	{ .type = SCSI_DISK,
	  .blocks = 1ULL << 40,
	  .block_size = 4096,
	  .best_blocks = 1,
	  .transfer_bytes = 2 << 20,
	  .serial = "x" },
	{ .type = SCSI_DVD, .blocks = 1000, .block_size = 2048, .best_blocks = 1, .readonly = true, .serial = "dvd" },
	{ .type = SCSI_DISK, .blocks = 1, .block_size = 512, .best_blocks = 8, .readonly = true, .serial = "y" },
};
#define UNITS (sizeof(units) / sizeof(units[0]))

static const int results[] = { 0, 0, 0, -EOPNOTSUPP, -EIO, -ENOSPC, -EROFS, -EINVAL };

static void check(const struct scsi_command *c, enum scsi_op op)
{
	size_t sum = 0;

	if (op == SCSI_FLUSH)
		return;
	if (!c->lu || !c->length || c->length % c->lu->block_size || c->offset % c->lu->block_size ||
	    c->offset / c->lu->block_size + c->length / c->lu->block_size > c->lu->blocks)
		abort();
	if (op != SCSI_READ && c->lu->readonly)
		abort();
	if (op != SCSI_READ && op != SCSI_WRITE)
		return;
	if (c->count > 1024)
		abort();
	for (unsigned int i = 0; i < c->count; i++) {
		volatile const uint8_t *bytes = c->segments[i].iov_base;

		sum += c->segments[i].iov_len;
		if (c->segments[i].iov_len)
			(void)(bytes[0] + bytes[c->segments[i].iov_len - 1]);
	}
	if (sum != c->length)
		abort();
}

/* unit, length of CDB, result of operations, data's size / 64, CDB, data */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct scsi_command c = { .luns = UNITS };
	size_t room, first;
	struct iovec segments[3];
	unsigned int operations = 0;
	uint8_t seed, *buffer;
	enum scsi_op op;

	if (size < 20)
		return 0;
	c.lu = data[0] % (UNITS + 1) < UNITS ? &units[data[0] % (UNITS + 1)] : NULL;
	c.cdb_length = data[1] % 20;
	seed = data[2];
	room = (size_t)data[3] * 64 + data[0] / 8;
	memcpy(c.cdb, data + 4, SCSI_CDB_MAX);
	data += 20;
	size -= 20;
	buffer = malloc(room + 1);
	memset(buffer, 0, room + 1);
	memcpy(buffer, data, size < room ? size : room);
	first = room < 13 ? room : 13;
	segments[0] = (struct iovec){ buffer, first };
	segments[1] = (struct iovec){ buffer + first, (room - first) / 2 };
	segments[2] = (struct iovec){ buffer + first + (room - first) / 2, room - first - (room - first) / 2 };
	c.data = segments;
	c.data_count = 3;
	c.data_size = room;
	for (op = scsi_start(&c); op != SCSI_DONE; op = scsi_next(&c, results[seed++ % 8])) {
		check(&c, op);
		if (++operations > 300)
			abort();
	}
	if (c.status != SCSI_GOOD && (c.status != SCSI_CHECK_CONDITION || c.sense[0] != 0x70 || !c.sense[2]))
		abort();
	if (c.transferred > room)
		abort();
	scsi_end(&c);
	free(buffer);
	return 0;
}
