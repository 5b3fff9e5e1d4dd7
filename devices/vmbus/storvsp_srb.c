/* SPDX-License-Identifier: MIT */
/* EXECUTE_SRB: a SCSI command, from the guest's pages to the image and back. */
#include <errno.h>
#include <string.h>

#include "devices/vmbus/storvsp_internal.h"
#include "vmm/loop.h"
#include "vmm/trace.h"

#define PAGE 4096u

/*
 * Linux include/linux/hyperv.h, struct vmdata_gpa_direct: 4 reserved bytes, the number of ranges, and for each its
 * length, its offset in the first page, and the pages it touches.
 */
struct ranges {
	const uint64_t *word;
	size_t left; /* words */
	uint32_t count;
};

static int begin_ranges(struct ranges *r, const struct vmbus_packet *packet)
{
	*r = (struct ranges){ .word = packet->extra, .left = packet->extra_size / 8 };
	if (!r->left)
		return -EPROTO;
	r->count = (uint32_t)(*r->word++ >> 32);
	r->left--;
	return 0;
}

/* How many pages follow in r, or -EPROTO. */
static int next_range(struct ranges *r, uint32_t *length, uint32_t *offset)
{
	uint64_t pages;

	if (!r->left)
		return -EPROTO;
	*length = (uint32_t)*r->word;
	*offset = (uint32_t)(*r->word++ >> 32);
	r->left--;
	r->count--;
	if (*offset >= PAGE)
		return -EPROTO;
	pages = *length ? ((uint64_t)*offset + *length + PAGE - 1) / PAGE : 0;
	return pages <= r->left ? (int)pages : -EPROTO;
}

int storvsp_count_pages(const struct vmbus_packet *packet)
{
	struct ranges r;
	int total = begin_ranges(&r, packet);

	while (total >= 0 && r.count) {
		uint32_t length, offset;
		int pages = next_range(&r, &length, &offset);

		if (pages < 0)
			return pages;
		r.word += pages;
		r.left -= (size_t)pages;
		total += pages;
	}
	return total;
}

/* Another piece of the guest's buffer; pages that are neighbours in the host too make one segment. */
static bool add_piece(struct storvsp_request *request, uint64_t pfn, uint32_t offset, uint32_t size)
{
	struct scsi_command *scsi = &request->scsi;
	struct iovec *last = scsi->data_count ? &scsi->data[scsi->data_count - 1] : NULL;
	uint8_t *bytes = NULL;

	if (pfn < UINT64_MAX / PAGE)
		bytes = vmbus_guest_memory(request->channel->channel, pfn * PAGE + offset, size);
	if (!bytes)
		return false;
	if (last && (uint8_t *)last->iov_base + last->iov_len == bytes)
		last->iov_len += size;
	else
		scsi->data[scsi->data_count++] = (struct iovec){ bytes, size };
	scsi->data_size += size;
	return true;
}

/* The list has been counted, and is our copy. False if a page is not RAM. */
static bool map_ranges(struct storvsp_request *request, const struct vmbus_packet *packet)
{
	struct ranges r;

	if (begin_ranges(&r, packet))
		return false;
	while (r.count) {
		uint32_t length, offset;
		int pages = next_range(&r, &length, &offset);

		for (int i = 0; i < pages; i++) {
			uint32_t here = length < PAGE - offset ? length : PAGE - offset;

			if (!add_piece(request, r.word[i], offset, here))
				return false;
			length -= here;
			offset = 0;
		}
		r.word += pages;
		r.left -= (size_t)pages;
	}
	return true;
}

static void answer(struct storvsp_request *request, uint8_t srb_status)
{
	struct vstor_srb *srb = &request->packet.srb;

	TRACE(scsi_done, "lun %u srb status 0x%02x scsi status %u sense 0x%02x%02x%02x transferred %u",
	      (unsigned int)srb->lun, (unsigned int)srb_status, (unsigned int)srb->scsi_status,
	      (unsigned int)request->scsi.sense[2], (unsigned int)request->scsi.sense[12],
	      (unsigned int)request->scsi.sense[13], srb->transfer_length);
	srb->srb_status = srb_status;
	storvsp_answer(request, VSTOR_STATUS_SUCCESS);
}

static void refuse(struct storvsp_request *request, uint8_t srb_status)
{
	request->packet.srb.scsi_status = 0;
	request->packet.srb.sense_length = 0;
	request->packet.srb.transfer_length = 0;
	answer(request, srb_status);
}

/* The target is done with the command. */
static void end_command(struct storvsp_request *request)
{
	const struct scsi_command *scsi = &request->scsi;
	struct vstor_srb *srb = &request->packet.srb;
	uint8_t sense = 0, srb_status = VSTOR_SRB_SUCCESS;

	if (scsi->status != SCSI_GOOD) {
		sense = srb->sense_length < SCSI_SENSE_SIZE ? srb->sense_length : SCSI_SENSE_SIZE;
		srb_status = VSTOR_SRB_ERROR | (sense ? VSTOR_SRB_AUTOSENSE : 0);
	}
	memset(srb->cdb_or_sense, 0, sizeof(srb->cdb_or_sense));
	memcpy(srb->cdb_or_sense, scsi->sense, sense);
	srb->sense_length = sense;
	srb->scsi_status = (uint8_t)scsi->status;
	srb->transfer_length = (uint32_t)scsi->transferred;
	answer(request, srb_status);
}

static void carry_out(struct storvsp_request *request, enum scsi_op op);

static void io_done(struct block_request *io, int result)
{
	struct storvsp_request *request = (struct storvsp_request *)((char *)io - offsetof(struct storvsp_request, io));
	struct storvsp *dev = request->dev;

	io->done = NULL;
	dev->in_flight--;
	loop_defer(dev->loop, &dev->end_work);
	/* For an orphan no operation follows: its memory may be somebody else's by now. */
	if (request->channel)
		carry_out(request, scsi_next(&request->scsi, result));
	else
		storvsp_answer(request, 0);
}

static void carry_out(struct storvsp_request *request, enum scsi_op op)
{
	static const enum block_kind kinds[] = {
		[SCSI_READ] = BLOCK_READ,   [SCSI_WRITE] = BLOCK_WRITE, [SCSI_FLUSH] = BLOCK_FLUSH,
		[SCSI_PUNCH] = BLOCK_PUNCH, [SCSI_ZERO] = BLOCK_ZERO,
	};
	const struct scsi_command *scsi = &request->scsi;

	if (op == SCSI_DONE) {
		end_command(request);
		return;
	}
	request->io = (struct block_request){
		.block = request->dev->disks[request->packet.srb.lun].block,
		.kind = kinds[op],
		.offset = scsi->offset,
		.length = scsi->length,
		.segments = scsi->segments,
		.count = scsi->count,
		.fua = scsi->fua,
		.done = io_done,
	};
	request->dev->in_flight++;
	block_submit(&request->io);
}

/* Guests look for units where there are none, and take anything but this for one: the answers of a target without it.
 */
static bool asks_who_is_there(uint8_t opcode)
{
	return opcode == 0x03 || opcode == 0x12 || opcode == 0xa0;
}

void storvsp_execute(struct storvsp_request *request, const struct vmbus_packet *packet)
{
	struct storvsp *dev = request->dev;
	const struct vstor_srb *srb = &request->packet.srb;
	struct scsi_command *scsi = &request->scsi;
	bool here = !srb->path && !srb->target;

	TRACE(scsi_command, "path %u target %u lun %u cdb 0x%02x transfer length %u", (unsigned int)srb->path,
	      (unsigned int)srb->target, (unsigned int)srb->lun, (unsigned int)srb->cdb_or_sense[0],
	      srb->transfer_length);
	scsi->data = request->segments;
	if (dev->state != STORVSP_READY || srb->cdb_length > SCSI_CDB_MAX ||
	    (packet->type == VMBUS_PACKET_GPA_DIRECT && !map_ranges(request, packet)) ||
	    srb->transfer_length > scsi->data_size) {
		refuse(request, VSTOR_SRB_INVALID_REQUEST);
		return;
	}
	scsi->data_size = srb->transfer_length;
	scsi->lu = here && srb->lun < dev->count ? &dev->disks[srb->lun].lu : NULL;
	scsi->luns = here ? dev->count : 0;
	scsi->cdb_length = srb->cdb_length;
	memcpy(scsi->cdb, srb->cdb_or_sense, SCSI_CDB_MAX);
	if (!scsi->lu && !asks_who_is_there(scsi->cdb[0]))
		refuse(request, VSTOR_SRB_INVALID_LUN);
	else
		carry_out(request, scsi_start(scsi));
}
