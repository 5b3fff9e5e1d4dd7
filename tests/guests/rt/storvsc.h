/* SPDX-License-Identifier: MIT */
/*
 * A storage controller's guest: the protocol of Linux drivers/scsi/storvsc_drv.c, written here a second time. Wants
 * --vmbus and --disk.
 */
#ifndef RT_STORVSC_H
#define RT_STORVSC_H

#include "rt/vmbus.h"

enum {
	SV_COMPLETE = 1,
	SV_SRB = 3,
	SV_RESET_LUN = 4,
	SV_RESET_ADAPTER = 5,
	SV_RESET_BUS = 6,
	SV_BEGIN = 7,
	SV_END = 8,
	SV_VERSION = 9,
	SV_PROPERTIES = 10,
	SV_SUBCHANNELS = 13,
};

struct sv_packet {
	uint32_t op, flags, status;
	union {
		struct {
			uint16_t length;
			uint8_t srb_status, scsi_status, port, path, target, lun;
			uint8_t cdb_length, sense_length, data_in, reserved;
			uint32_t transfer;
			uint8_t cdb[20]; /* or sense data */
			uint8_t more[16];
		};
		uint16_t version;
		uint16_t count;
		struct {
			uint32_t reserved1;
			uint16_t max_subchannels, reserved2;
			uint32_t properties, max_transfer;
		};
	};
};

#define SV_OK		   0x01
#define SV_INVALID_REQUEST 0x06
#define SV_INVALID_LUN	   0x20
#define SV_SENSE	   0x84

#define SV_PAGES 520 /* of one transfer, at most */

/* The offer of the controller, or of a subchannel; it must be there. */
const struct vb_offer *sv_offer(unsigned int sub);
/* Opens it with rings of so many pages and negotiates this version; its properties. */
struct sv_packet sv_open(struct vb_channel *ch, unsigned int ring, uint16_t version);
/* An operation that is no SRB, and its answer. */
struct sv_packet sv_control(struct vb_channel *ch, uint32_t op, uint16_t value);

/* An SRB for this unit; more than 16 bytes of CDB are no use. */
struct sv_packet sv_srb(unsigned int lun, const uint8_t *cdb, unsigned int length);
/* READ(16), or WRITE(16). */
struct sv_packet sv_transfer(unsigned int lun, bool write, uint64_t block, uint32_t blocks);

/* Sends it with one range over memory of this size; false if the ring is full. */
bool sv_send(struct vb_channel *ch, uint64_t transaction, struct sv_packet packet, const void *memory, uint32_t size);
/* The next answer. */
struct sv_packet sv_await(struct vb_channel *ch, uint64_t *transaction);
/* Both. */
struct sv_packet sv_run(struct vb_channel *ch, struct sv_packet packet, const void *memory, uint32_t size);
/* The same, with a CDB, for unit 0; it must end well. */
struct sv_packet sv_good(struct vb_channel *ch, struct sv_packet packet, const void *memory, uint32_t size);

#define SV_CDB(lun, ...) sv_srb(lun, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

uint64_t sv_be(const uint8_t *at, unsigned int bytes);

#endif
