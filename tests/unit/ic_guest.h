/* SPDX-License-Identifier: MIT */
/* The guest's side of an integration service that takes orders, over ic_fake.h; and what became of an order. */
#ifndef TESTS_UNIT_IC_GUEST_H
#define TESTS_UNIT_IC_GUEST_H

#include "tests/unit/ic_fake.h"

#include "vmm/options.h"

#define BODY_AT (sizeof(struct ic_pipe_header) + sizeof(struct ic_header))

/* ---- The guest ---- */

static inline struct ic_header guest_header(void)
{
	struct ic_header header;

	memcpy(&header, fake.last.payload + sizeof(struct ic_pipe_header), sizeof(header));
	return header;
}

static inline const void *guest_body(void)
{
	return fake.last.payload + BODY_AT;
}

/* The last message, with these changed; header->size bytes of body follow. */
static inline int guest_send(struct ic *ic, const struct ic_header *header, const void *body)
{
	static uint8_t buffer[sizeof(fake.last.payload)];
	const struct ic_pipe_header pipe = { IC_PIPE_DATA, (uint32_t)(sizeof(*header) + header->size) };

	memcpy(buffer, &pipe, sizeof(pipe));
	memcpy(buffer + sizeof(pipe), header, sizeof(*header));
	if (header->size)
		memcpy(buffer + BODY_AT, body, header->size);
	return fake_packet(ic, VMBUS_PACKET_INBAND, buffer, BODY_AT + header->size);
}

/* Answers the last request. */
static inline void guest_answer(struct ic *ic, uint32_t status, const void *body, size_t size)
{
	struct ic_header header = guest_header();

	header.flags = IC_FLAG_TRANSACTION | IC_FLAG_RESPONSE;
	header.status = status;
	header.size = (uint16_t)size;
	assert_int_equal(guest_send(ic, &header, body ? body : ""), 0);
}

/* Answers as Linux does: the request's own bytes, and a status. */
static inline void guest_echo(struct ic *ic, uint32_t status)
{
	uint8_t body[IC_BODY_MAX];
	size_t size = guest_header().size;

	memcpy(body, guest_body(), size);
	guest_answer(ic, status, body, size);
}

/* Opens the channel and picks a version. */
static inline void guest_up(struct ic *ic, uint16_t major, uint16_t minor)
{
	const struct {
		struct ic_negotiate counts;
		struct ic_version versions[2];
	} body = { { 1, 1, 0 }, { { 3, 0 }, { major, minor } } };

	assert_int_equal(fake_open(ic), 0);
	guest_answer(ic, 0, &body, sizeof(body));
	assert_int_equal(ic->state, IC_UP);
}

/* ---- Orders ---- */

struct outcome {
	unsigned int calls;
	int error;
	char text[4096];
};

static inline void record(void *opaque, int error, const char *text)
{
	struct outcome *o = opaque;

	o->calls++;
	o->error = error;
	snprintf(o->text, sizeof(o->text), "%s", text);
	/* Whoever failed has a sentence. */
	assert_true(!error || strlen(text) > 5);
}

static inline void check_outcome(const struct outcome *o, int error)
{
	assert_int_equal(o->calls, 1);
	assert_int_equal(o->error, error);
}

#endif
