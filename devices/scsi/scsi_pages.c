/* SPDX-License-Identifier: MIT */
/* What a unit says of itself: INQUIRY with its vital product data pages, and MODE SENSE. */
#include <stdio.h>
#include <string.h>

#include "devices/scsi/internal.h"

#define VENDOR	    "VMM     "
#define NO_UNIT	    0x7f /* SPC-4 6.4.2: qualifier 3, type unknown */
#define PAGE_SIZE   255
#define UNMAP_LISTS 256 /* descriptors of an UNMAP that fit its parameter list as scsi_disk.c takes it */

struct page {
	uint8_t b[PAGE_SIZE];
	size_t size;
};

static void add(struct page *page, const void *bytes, size_t size)
{
	memcpy(page->b + page->size, bytes, size);
	page->size += size;
}

/* SPC-4 7.8.15 */
static void supported_pages(const struct scsi_lu *lu, struct page *page)
{
	static const uint8_t disk[] = { 0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2 }, dvd[] = { 0x00, 0x80, 0x83 };

	if (lu->type == SCSI_DISK)
		add(page, disk, sizeof(disk));
	else
		add(page, dvd, sizeof(dvd));
}

static void unit_serial(const struct scsi_lu *lu, struct page *page)
{
	add(page, lu->serial, strlen(lu->serial));
}

/* SPC-4 7.8.6: a name made of vendor and serial number, and a number (NAA 3, locally assigned). */
static void device_identification(const struct scsi_lu *lu, struct page *page)
{
	size_t serial = strlen(lu->serial);
	uint8_t t10[] = { 0x02, 0x01, 0, (uint8_t)(8 + serial) }, naa[12] = { 0x01, 0x03, 0, 8 };

	add(page, t10, sizeof(t10));
	add(page, VENDOR, 8);
	add(page, lu->serial, serial);
	put64(naa + 4, (lu->id & ~0ULL >> 4) | 3ULL << 60);
	add(page, naa, sizeof(naa));
}

/* SBC-3 6.5.3. Lengths are in blocks. */
static void block_limits(const struct scsi_lu *lu, struct page *page)
{
	uint8_t limits[60] = { 0 };

	limits[0] = 1; /* WSNZ: no WRITE SAME without a length */
	put16(limits + 2, lu->best_blocks);
	put32(limits + 4, lu->transfer_bytes / lu->block_size);
	if (lu->unmap) {
		put32(limits + 16, UINT32_MAX); /* blocks of an UNMAP */
		put32(limits + 20, UNMAP_LISTS);
		put32(limits + 24, lu->best_blocks);
	}
	put64(limits + 32, (64 << 20) / lu->block_size); /* of a WRITE SAME: see scsi_disk.c */
	add(page, limits, sizeof(limits));
}

/* SBC-3 6.5.2 */
static void characteristics(const struct scsi_lu *lu, struct page *page)
{
	uint8_t b[60] = { 0, 1 }; /* does not turn */

	(void)lu;
	add(page, b, sizeof(b));
}

/* SBC-3 6.5.4 */
static void provisioning(const struct scsi_lu *lu, struct page *page)
{
	/* UNMAP, WRITE SAME(16) and (10) with UNMAP; unmapped blocks read as zero; thin. */
	uint8_t b[4] = { 0, lu->unmap ? 0x80 | 0x40 | 0x20 | 0x04 : 0, lu->unmap ? 2 : 0 };

	add(page, b, sizeof(b));
}

static enum scsi_op vital_product_data(struct scsi_command *command)
{
	static const struct {
		uint8_t code;
		bool disk_only;
		void (*fill)(const struct scsi_lu *lu, struct page *page);
	} pages[] = {
		{ 0x00, false, supported_pages },	{ 0x80, false, unit_serial },
		{ 0x83, false, device_identification }, { 0xb0, true, block_limits },
		{ 0xb1, true, characteristics },	{ 0xb2, true, provisioning },
	};
	const struct scsi_lu *lu = command->lu;
	struct page page = { .size = 4 };

	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		if (pages[i].code != command->cdb[2] || (pages[i].disk_only && lu->type != SCSI_DISK))
			continue;
		pages[i].fill(lu, &page);
		page.b[0] = (uint8_t)lu->type;
		page.b[1] = pages[i].code;
		put16(page.b + 2, (uint32_t)(page.size - 4));
		return scsi_answer(command, page.b, page.size, get16(command->cdb + 3));
	}
	return scsi_fail(command, SENSE_BAD_FIELD);
}

/* SPC-4 6.4 */
enum scsi_op scsi_inquiry(struct scsi_command *command)
{
	const struct scsi_lu *lu = command->lu;
	const char *product = !lu ? "" : lu->type == SCSI_DVD ? "Virtual DVD" : "Virtual Disk";
	uint8_t b[74] = { 0 };
	char text[8 + 16 + 4 + 1]; /* vendor, product, revision */

	if (command->cdb[1] & ~1 || (!(command->cdb[1] & 1) && command->cdb[2]))
		return scsi_fail(command, SENSE_BAD_FIELD);
	if (lu && command->cdb[1] & 1)
		return vital_product_data(command);
	b[0] = lu ? (uint8_t)lu->type : NO_UNIT;
	b[1] = lu && lu->type == SCSI_DVD ? 0x80 : 0; /* removable */
	b[2] = 6;				      /* SPC-4 */
	b[3] = 0x12;				      /* HISUP, response data format 2 */
	b[4] = sizeof(b) - 5;
	b[7] = 2; /* CMDQUE */
	snprintf(text, sizeof(text), "%s%-16s1.0 ", VENDOR, product);
	memcpy(b + 8, text, sizeof(text) - 1);
	put16(b + 58, 0x00a0);					       /* version descriptors: SAM-5, */
	put16(b + 60, 0x0460);					       /* SPC-4, */
	put16(b + 62, !lu || lu->type == SCSI_DISK ? 0x04c0 : 0x0520); /* SBC-3 or MMC-6 */
	return scsi_answer(command, b, sizeof(b), get16(command->cdb + 3));
}

/* Mode pages; changeable: the mask of what MODE SELECT could change, and that is nothing. */
static const uint8_t error_recovery[] = { 0x01, 10, 0x80 }; /* SBC-3 6.4.8: AWRE */
static const uint8_t dvd_recovery[] = { 0x01, 10, 0, 5 };   /* MMC-6 7.3: retries */
static const uint8_t caching[] = { 0x08, 18, 0x04 };	    /* SBC-3 6.4.5: WCE */
static const uint8_t control[] = { 0x0a, 10, 0x02, 0x10 };  /* SPC-4 7.5.8: GLTSD, unrestricted reordering */
/* MMC-3 6.3.11, which drivers still ask for: reads DVD-ROM and all CDs, nothing written; tray, lock, 11080 kB/s. */
static const uint8_t capabilities[] = { 0x2a, 22, 0x0b, 0, 0x40, 0, 0x29, 0, 0x2b, 0x48, 0, 2, 2, 0, 0x2b, 0x48 };

static const struct mode_page {
	enum scsi_type type;
	const uint8_t *bytes;
	size_t size; /* of those that are not zero */
} mode_pages[] = {
	{ SCSI_DISK, error_recovery, sizeof(error_recovery) },
	{ SCSI_DVD, dvd_recovery, sizeof(dvd_recovery) },
	{ SCSI_DISK, caching, sizeof(caching) },
	{ SCSI_DISK, control, sizeof(control) },
	{ SCSI_DVD, capabilities, sizeof(capabilities) },
};

/* False if there is no such page. */
static bool add_mode_pages(const struct scsi_lu *lu, struct page *page, unsigned int code, bool changeable)
{
	bool any = false;

	for (size_t i = 0; i < sizeof(mode_pages) / sizeof(mode_pages[0]); i++) {
		const struct mode_page *m = &mode_pages[i];
		size_t size = m->bytes[1] + 2u;

		if (m->type != lu->type || (code != 0x3f && code != m->bytes[0]))
			continue;
		memcpy(page->b + page->size, m->bytes, changeable ? 2 : m->size);
		page->size += size;
		any = true;
	}
	return any;
}

/* SBC-3 6.4.2.2 (short) and 6.4.2.3 (long, which only MODE SENSE(10) can have). */
static void add_block_descriptor(const struct scsi_lu *lu, struct page *page, bool wide)
{
	uint8_t b[16] = { 0 };

	if (wide) {
		put64(b, lu->blocks);
		put32(b + 12, lu->block_size);
	} else {
		put32(b, lu->blocks > UINT32_MAX ? UINT32_MAX : (uint32_t)lu->blocks);
		put32(b + 4, lu->block_size); /* three bytes are enough; the fourth is reserved */
	}
	add(page, b, wide ? 16 : 8);
}

/* SPC-4 6.13, 6.14 */
enum scsi_op scsi_mode_sense(struct scsi_command *command)
{
	const struct scsi_lu *lu = command->lu;
	bool ten = command->cdb[0] == 0x5a, wide = ten && command->cdb[1] & 0x10;
	bool descriptor = !(command->cdb[1] & 8) && lu->type == SCSI_DISK;
	unsigned int values = command->cdb[2] >> 6, subpage = command->cdb[3];
	struct page page = { .size = ten ? 8 : 4 };
	/* DPOFUA: FUA is honoured. */
	uint8_t specific = lu->type == SCSI_DISK ? (uint8_t)(0x10 | (lu->readonly ? 0x80 : 0)) : 0;

	if (values == 3)
		return scsi_fail(command, SENSE_NOT_SAVED);
	if (subpage && subpage != 0xff)
		return scsi_fail(command, SENSE_BAD_FIELD);
	if (descriptor)
		add_block_descriptor(lu, &page, wide);
	if (!add_mode_pages(lu, &page, command->cdb[2] & 0x3f, values == 1))
		return scsi_fail(command, SENSE_BAD_FIELD);
	if (ten) {
		put16(page.b, (uint32_t)(page.size - 2));
		page.b[3] = specific;
		page.b[4] = descriptor && wide;
		put16(page.b + 6, !descriptor ? 0 : wide ? 16 : 8);
		return scsi_answer(command, page.b, page.size, get16(command->cdb + 7));
	}
	page.b[0] = (uint8_t)(page.size - 1);
	page.b[2] = specific;
	page.b[3] = descriptor ? 8 : 0;
	return scsi_answer(command, page.b, page.size, command->cdb[4]);
}
