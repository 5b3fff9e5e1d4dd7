/* SPDX-License-Identifier: MIT */
/*
 * GPADLs: lists of guest pages under a number that the guest chooses. A list comes in a header and, if it is long, in
 * bodies, which name the number but no channel; several may be under way, each with its own number. The number of words
 * is known from the header, so the memory for them is taken and charged then, whether the bodies come or not.
 *
 * Header and bodies are answered once, by CREATED, when the list is whole or wrong. A list that something here still
 * uses (an open channel's rings, a device) is not torn down before that lets go of it.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "devices/vmbus/internal.h"
#include "vmm/trace.h"

#define PFN_MAX (UINT64_MAX / VMBUS_PAGE)

static struct vmbus_gpadl **bucket(struct vmbus *bus, uint32_t handle)
{
	return &bus->gpadls[(handle ^ handle >> 16) % BUS_GPADL_BUCKETS];
}

static struct vmbus_gpadl *find(struct vmbus *bus, uint32_t relid, uint32_t handle)
{
	struct vmbus_gpadl *gpadl = *bucket(bus, handle);

	while (gpadl && (gpadl->handle != handle || gpadl->relid != relid))
		gpadl = gpadl->next;
	return gpadl;
}

static struct vmbus_gpadl *find_building(struct vmbus *bus, uint32_t handle)
{
	struct vmbus_gpadl *gpadl = *bucket(bus, handle);

	while (gpadl && (gpadl->handle != handle || gpadl->state != GPADL_BUILDING))
		gpadl = gpadl->next;
	return gpadl;
}

static void take_out(struct vmbus_gpadl *gpadl)
{
	struct vmbus_gpadl **link = bucket(gpadl->bus, gpadl->handle);

	while (*link != gpadl)
		link = &(*link)->next;
	*link = gpadl->next;
	gpadl->next = NULL;
}

static void destroy(struct vmbus_gpadl *gpadl)
{
	gpadl->bus->gpadl_count--;
	gpadl->bus->gpadl_words -= gpadl->words;
	free(gpadl);
}

static void tear_down(struct vmbus_gpadl *gpadl)
{
	struct vmbus *bus = gpadl->bus;

	take_out(gpadl);
	gpadl->state = GPADL_TORN;
	if (bus->torn_last)
		bus->torn_last->next = gpadl;
	else
		bus->torn_first = gpadl;
	bus->torn_last = gpadl;
}

static void answer_created(struct vmbus *bus, uint32_t relid, uint32_t handle, uint32_t status)
{
	struct vmbus_gpadl_created answer = {
		.header.type = VMBUS_GPADL_CREATED,
		.relid = relid,
		.gpadl = handle,
		.status = status,
	};

	TRACE(vmbus_gpadl_created, "gpadl #%u relid %u status 0x%x", handle, relid, status);
	outbox_answer(bus, &answer, sizeof(answer));
}

/* A range at word[at]: its bytes, its offset in the first page, the number of its pages. */
struct range {
	uint64_t bytes, offset, pages;
};

static struct range range_at(const struct vmbus_gpadl *gpadl, uint32_t at)
{
	struct range range = { .bytes = gpadl->word[at] & UINT32_MAX, .offset = gpadl->word[at] >> 32 };

	range.pages = (range.offset + range.bytes + VMBUS_PAGE - 1) / VMBUS_PAGE;
	return range;
}

/* NULL, or what is wrong with it. Words behind the last range are no harm. */
static const char *check(struct vmbus_gpadl *gpadl)
{
	struct vmbus *bus = gpadl->bus;
	uint32_t at = 0;

	for (unsigned int i = 0; i < gpadl->ranges; i++) {
		struct range range;

		if (at >= gpadl->words)
			return "has too few words for its ranges";
		range = range_at(gpadl, at++);
		if (!range.bytes || range.offset >= VMBUS_PAGE)
			return "has an impossible range";
		if (range.pages > gpadl->words - at)
			return "has too few pages for its bytes";
		for (uint64_t page = 0; page < range.pages; page++, at++)
			if (gpadl->word[at] > PFN_MAX ||
			    !bus->transport->map(bus->opaque, gpadl->word[at] * VMBUS_PAGE, VMBUS_PAGE))
				return "names a page that is not RAM";
		gpadl->size += range.bytes;
	}
	return NULL;
}

/* Adds words of a header or body; more than are missing are no harm, since some guests send full messages always. */
static void append(struct vmbus_gpadl *gpadl, const void *words, size_t size)
{
	size_t count = size / sizeof(gpadl->word[0]), missing = gpadl->words - gpadl->have;
	const char *wrong;

	if (count > missing)
		count = missing;
	memcpy(gpadl->word + gpadl->have, words, count * sizeof(gpadl->word[0]));
	gpadl->have += (uint32_t)count;
	if (gpadl->have < gpadl->words)
		return;
	wrong = check(gpadl);
	answer_created(gpadl->bus, gpadl->relid, gpadl->handle, wrong ? VMBUS_STATUS_FAILED : VMBUS_STATUS_SUCCESS);
	if (wrong) {
		bus_log(gpadl->bus, "GPADL 0x%x of channel %u %s", gpadl->handle, gpadl->relid, wrong);
		take_out(gpadl);
		destroy(gpadl);
	} else {
		gpadl->state = GPADL_READY;
	}
}

static const char *check_header(struct vmbus *bus, const struct vmbus_gpadl_header *header, size_t size)
{
	uint32_t words = header->length / sizeof(uint64_t);

	if (size < sizeof(*header) || !header->ranges || words < 2 * header->ranges)
		return "has an impossible header";
	if (!offer_find(bus, header->relid))
		return "is for a channel that was not offered";
	if (find(bus, header->relid, header->gpadl) || find_building(bus, header->gpadl))
		return "is there already";
	if (bus->gpadl_count >= BUS_GPADLS || words > BUS_GPADL_WORDS - bus->gpadl_words)
		return "is one too many";
	return NULL;
}

void gpadl_header(struct vmbus *bus, const void *message, size_t size)
{
	struct vmbus_gpadl_header header = { .length = 0 };
	struct vmbus_gpadl *gpadl = NULL, **link;
	const char *wrong;
	uint32_t words;

	memcpy(&header, message, size < sizeof(header) ? size : sizeof(header));
	words = header.length / sizeof(uint64_t);
	TRACE(vmbus_gpadl_header, "gpadl #%u gfns %u", header.gpadl, words);
	wrong = check_header(bus, &header, size);
	if (!wrong) {
		gpadl = calloc(1, sizeof(*gpadl) + words * sizeof(gpadl->word[0]));
		if (!gpadl)
			wrong = "finds no memory";
	}
	if (wrong) {
		bus_log(bus, "GPADL 0x%x of channel %u %s", header.gpadl, header.relid, wrong);
		answer_created(bus, header.relid, header.gpadl, VMBUS_STATUS_FAILED);
		return;
	}
	gpadl->bus = bus;
	gpadl->handle = header.gpadl;
	gpadl->relid = header.relid;
	gpadl->ranges = header.ranges;
	gpadl->words = words;
	link = bucket(bus, gpadl->handle);
	gpadl->next = *link;
	*link = gpadl;
	bus->gpadl_count++;
	bus->gpadl_words += words;
	append(gpadl, (const uint8_t *)message + sizeof(header), size - sizeof(header));
}

void gpadl_body(struct vmbus *bus, const void *message, size_t size)
{
	struct vmbus_gpadl_body body;
	struct vmbus_gpadl *gpadl;

	memcpy(&body, message, sizeof(body));
	TRACE(vmbus_gpadl_body, "gpadl #%u", body.gpadl);
	gpadl = find_building(bus, body.gpadl);
	/* It cannot be answered without a relid. */
	if (!gpadl)
		bus_log(bus, "body for GPADL 0x%x, which misses none", body.gpadl);
	else
		append(gpadl, (const uint8_t *)message + sizeof(body), size - sizeof(body));
}

void gpadl_teardown(struct vmbus *bus, uint32_t relid, uint32_t handle)
{
	struct vmbus_gpadl *gpadl = find(bus, relid, handle);

	TRACE(vmbus_gpadl_teardown, "gpadl #%u", handle);
	if (!gpadl || gpadl->state == GPADL_TEARING)
		bus_log(bus, "teardown of GPADL 0x%x of channel %u, which %s", handle, relid,
			gpadl ? "is under way" : "is not there");
	else if (gpadl->refs)
		gpadl->state = GPADL_TEARING;
	else
		tear_down(gpadl);
}

bool gpadl_torn_next(const struct vmbus *bus, struct vmbus_gpadl_torndown *message)
{
	if (!bus->torn_first)
		return false;
	*message = (struct vmbus_gpadl_torndown){
		.header.type = VMBUS_GPADL_TORNDOWN,
		.gpadl = bus->torn_first->handle,
	};
	return true;
}

void gpadl_torn_sent(struct vmbus *bus)
{
	struct vmbus_gpadl *gpadl = bus->torn_first;

	bus->torn_first = gpadl->next;
	if (!bus->torn_first)
		bus->torn_last = NULL;
	TRACE(vmbus_gpadl_torndown, "gpadl #%u", gpadl->handle);
	destroy(gpadl);
}

void gpadl_forget(struct vmbus *bus, uint32_t relid)
{
	for (unsigned int i = 0; i < BUS_GPADL_BUCKETS && bus->gpadl_count; i++) {
		struct vmbus_gpadl *next;

		for (struct vmbus_gpadl *gpadl = bus->gpadls[i]; gpadl; gpadl = next) {
			next = gpadl->next;
			if (relid && gpadl->relid != relid)
				continue;
			take_out(gpadl);
			gpadl->state = GPADL_ORPHAN;
			if (!gpadl->refs)
				destroy(gpadl);
		}
	}
	/* Of a single channel, what was torn down before is still answered. */
	while (!relid && bus->torn_first)
		gpadl_torn_sent(bus);
}

const uint64_t *gpadl_whole_pages(const struct vmbus_gpadl *gpadl, size_t *count)
{
	struct range range = range_at(gpadl, 0);

	if (gpadl->ranges != 1 || range.offset || range.bytes % VMBUS_PAGE)
		return NULL;
	*count = range.pages;
	return gpadl->word + 1;
}

struct vmbus_gpadl *vmbus_gpadl_get(struct vmbus_channel *channel, uint32_t handle)
{
	struct vmbus_gpadl *gpadl = find(channel->bus, channel->relid, handle);

	if (!gpadl || gpadl->state != GPADL_READY)
		return NULL;
	gpadl->refs++;
	return gpadl;
}

void vmbus_gpadl_put(struct vmbus_gpadl *gpadl)
{
	struct vmbus *bus = gpadl->bus;

	if (--gpadl->refs)
		return;
	bus_enter(bus);
	if (gpadl->state == GPADL_TEARING)
		tear_down(gpadl);
	else if (gpadl->state == GPADL_ORPHAN)
		destroy(gpadl);
	bus_leave(bus);
}

size_t vmbus_gpadl_size(const struct vmbus_gpadl *gpadl)
{
	return gpadl->size;
}

/* Copies within one range, from byte start of it on. False: a page is no longer RAM. */
static bool copy_range(const struct vmbus_gpadl *gpadl, uint32_t at, uint64_t start, uint8_t *bytes, size_t size,
		       bool out)
{
	uint64_t position = range_at(gpadl, at).offset + start;

	while (size) {
		uint64_t gpa = gpadl->word[at + 1 + position / VMBUS_PAGE] * VMBUS_PAGE;
		size_t inside = position % VMBUS_PAGE, here = VMBUS_PAGE - inside;
		uint8_t *page = gpadl->bus->transport->map(gpadl->bus->opaque, gpa, VMBUS_PAGE);

		if (!page)
			return false;
		if (here > size)
			here = size;
		if (out)
			memcpy(bytes, page + inside, here);
		else
			memcpy(page + inside, bytes, here);
		position += here;
		bytes += here;
		size -= here;
	}
	return true;
}

static int copy(const struct vmbus_gpadl *gpadl, uint64_t offset, uint8_t *bytes, size_t size, bool out)
{
	uint32_t at = 0;

	if (offset > gpadl->size || size > gpadl->size - offset)
		return -EINVAL;
	while (size) {
		struct range range = range_at(gpadl, at);

		if (offset < range.bytes) {
			size_t here = size < range.bytes - offset ? size : range.bytes - offset;

			if (!copy_range(gpadl, at, offset, bytes, here, out))
				return -EINVAL;
			bytes += here;
			size -= here;
			offset = 0;
		} else {
			offset -= range.bytes;
		}
		at += 1 + (uint32_t)range.pages;
	}
	return 0;
}

int vmbus_gpadl_read(const struct vmbus_gpadl *gpadl, size_t offset, void *to, size_t size)
{
	return copy(gpadl, offset, to, size, true);
}

int vmbus_gpadl_write(struct vmbus_gpadl *gpadl, size_t offset, const void *from, size_t size)
{
	return copy(gpadl, offset, (uint8_t *)from, size, false);
}

int vmbus_gpadl_map(const struct vmbus_gpadl *gpadl, void **pages, size_t max)
{
	size_t count = 0;
	const uint64_t *pfns = gpadl_whole_pages(gpadl, &count);

	if (!pfns || count > max || count > INT_MAX)
		return -EINVAL;
	for (size_t i = 0; i < count; i++) {
		pages[i] = gpadl->bus->transport->map(gpadl->bus->opaque, pfns[i] * VMBUS_PAGE, VMBUS_PAGE);
		if (!pages[i])
			return -EINVAL;
	}
	return (int)count;
}
