/* SPDX-License-Identifier: MIT */
/* What the files of the storage controller share. Loop thread. */
#ifndef DEVICES_VMBUS_STORVSP_INTERNAL_H
#define DEVICES_VMBUS_STORVSP_INTERNAL_H

#include "devices/vmbus/storvsp.h"
#include "devices/vmbus/storvsp_protocol.h"
#include "devices/vmbus/vmbus.h"

struct storvsp_request;

enum storvsp_state { STORVSP_CLOSED, STORVSP_BEGUN, STORVSP_VERSIONED, STORVSP_READY };

struct storvsp {
	struct vmbus_device device;
	struct loop *loop;
	struct storvsp_disk *disks;
	unsigned int count;
	bool (*give_up)(void *opaque);
	void *opaque;

	enum storvsp_state state;
	bool subchannels; /* have been offered */
	struct storvsp_channel *channels;
	struct storvsp_request *requests; /* all there are */
	unsigned int in_flight;		  /* of those: that have an operation under way */
	unsigned int orphans;		  /* of those: whose channel is closed */
	unsigned int held;		  /* disks that another device has not let go of yet */
	struct storvsp_request *resets;	  /* that wait for all others to end */
	struct loop_work end_work;	  /* after a number of completions */
};

/* An open channel. */
struct storvsp_channel {
	struct storvsp *dev;
	struct vmbus_channel *channel;
	struct storvsp_channel *next;
	unsigned int pending;				/* requests without an answer on the ring */
	struct storvsp_request *waiting, **waiting_end; /* whose answers wait for room */
};

/* One packet of the guest's, until it is answered. */
struct storvsp_request {
	struct storvsp *dev;
	struct storvsp_channel *channel; /* NULL: closed */
	struct storvsp_request *next, **link;
	struct storvsp_request *next_waiting; /* for room, or as a reset */
	uint64_t transaction;
	bool wanted;	/* the guest asked for a completion */
	bool answering; /* storvsp_answer() has it */
	size_t size;	/* of the answer */
	struct vstor_packet packet;
	struct block_request io;
	struct scsi_command scsi;
	struct iovec segments[];
};

/* storvsp.c: answers with what request->packet holds; the request is gone then, and maybe its channel too. */
void storvsp_answer(struct storvsp_request *request, uint32_t status);

/*
 * storvsp_srb.c: how many segments a range list may need, or -EPROTO if it is impossible; and EXECUTE_SRB, with that
 * list.
 */
int storvsp_count_pages(const struct vmbus_packet *packet);
void storvsp_execute(struct storvsp_request *request, const struct vmbus_packet *packet);

#endif
