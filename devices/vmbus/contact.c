/* SPDX-License-Identifier: MIT */
/*
 * A guest makes contact with the version it would like. It gets that version or a refusal, whereupon it asks for an
 * older one; it waits for the answer without a time limit, so there always is one. A contact is also how a new kernel
 * appears after a crash or a kexec, so whatever was there before it is forgotten.
 *
 * Versions and what they changed: docs/vmbus.md.
 */
#include <string.h>

#include "devices/vmbus/internal.h"
#include "vmm/trace.h"

/*
 * Of the features of 6.0: GUEST_SIGNAL, CLIENT_ID and PAUSE need nothing but this bus. The others are about things
 * that are not here: isolated VMs and other VTLs (interrupt redirection, confidential channels, GPA pinning), monitor
 * pages that change or are the server's (MODIFY_CONNECTION, pages of the server's).
 */
#define FEATURES (VMBUS_FEATURE_GUEST_SIGNAL | VMBUS_FEATURE_CLIENT_ID | VMBUS_FEATURE_PAUSE)

static bool version_is_known(uint32_t version)
{
	static const uint32_t versions[] = {
		VMBUS_V0_13, VMBUS_V1_1, VMBUS_V2_4, VMBUS_V3_0, VMBUS_V4_0, VMBUS_V4_1,
		VMBUS_V5_0,  VMBUS_V5_1, VMBUS_V5_2, VMBUS_V5_3, VMBUS_V6_0,
	};

	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++)
		if (version == versions[i])
			return true;
	return false;
}

void bus_disconnect(struct vmbus *bus)
{
	for (unsigned int relid = 1; relid < bus->relid_end; relid++)
		if (bus->channels[relid])
			channel_stop(bus->channels[relid], CHANNEL_CLOSED);
	gpadl_forget(bus, 0);
	offer_reset(bus);
	outbox_clear(bus);
	if (bus->event_connected)
		bus->transport->disconnect(bus->opaque, VMBUS_CONNECTION_EVENT);
	bus->event_connected = false;
	bus->interrupt_page = NULL;
	bus->monitor_page = NULL;
	bus->version = 0;
	bus->features = 0;
	bus->log_connection = 0;
	bus->unknown_logged = false;
}

/* Where the guest wants its messages; false if there is no such place, and then it is the boot processor. */
static bool set_target(struct vmbus *bus, uint32_t connection, const struct vmbus_contact *contact)
{
	bool named = connection == VMBUS_CONNECTION_MULTI_CLIENT && contact->version >= VMBUS_V5_0;
	uint32_t vp = contact->version >= VMBUS_V3_0 ? contact->target_vp : 0;
	unsigned int sint = named ? contact->target.sint : VMBUS_SINT;

	bus->vp = 0;
	bus->sint = VMBUS_SINT;
	if (vp >= bus->transport->vps(bus->opaque) || sint >= 16)
		return false;
	bus->vp = vp;
	bus->sint = sint;
	return !named || contact->version < VMBUS_V5_1 || !contact->target.vtl;
}

/* Versions before 2.4 say in a page of bits which channels they mean, and 0.13 signals one connection for all. */
static bool set_interrupt_page(struct vmbus *bus, uint64_t gpa)
{
	if (!gpa)
		return true;
	if (gpa % VMBUS_PAGE)
		return false;
	bus->interrupt_page = bus->transport->map(bus->opaque, gpa, VMBUS_PAGE);
	if (!bus->interrupt_page || bus->transport->connect(bus->opaque, VMBUS_CONNECTION_EVENT)) {
		bus->interrupt_page = NULL;
		return false;
	}
	bus->event_connected = true;
	return true;
}

static bool accept(struct vmbus *bus, uint32_t connection, const struct vmbus_contact *contact, size_t size)
{
	if (!set_target(bus, connection, contact)) {
		bus_log(bus, "contact for VP %u, SINT %u, VTL %u refused", contact->target_vp, contact->target.sint,
			contact->target.vtl);
		return false;
	}
	if (!version_is_known(contact->version))
		return false;
	if (contact->version < VMBUS_V2_4 && !set_interrupt_page(bus, contact->interrupt_page)) {
		bus_log(bus, "contact with an interrupt page that is not RAM refused");
		return false;
	}
	if (contact->version >= VMBUS_V6_0) {
		bus->features = contact->target.features & FEATURES;
		if (bus->features & VMBUS_FEATURE_CLIENT_ID && size < sizeof(struct vmbus_contact2)) {
			bus_log(bus, "contact without the client's GUID refused");
			return false;
		}
	}
	monitor_contact(bus, contact);
	bus->version = contact->version;
	return true;
}

void bus_contact(struct vmbus *bus, uint32_t connection, const void *message, size_t size)
{
	struct vmbus_version_response2 answer = { .response.header.type = VMBUS_VERSION_RESPONSE };
	struct vmbus_contact contact = { .version = 0 };

	memcpy(&contact, message, size < sizeof(contact) ? size : sizeof(contact));
	TRACE(vmbus_initiate_contact, "version %u.%u target vp %u mon pages 0x%llx,0x%llx int page 0x%llx",
	      contact.version >> 16, contact.version & 0xffff, contact.target_vp,
	      (unsigned long long)contact.monitor_page1, (unsigned long long)contact.monitor_page2,
	      (unsigned long long)contact.interrupt_page);
	bus_disconnect(bus);
	bus->contacted = true;
	if (size < sizeof(contact)) {
		bus->vp = 0;
		bus->sint = VMBUS_SINT;
		bus_log(bus, "contact of %zu bytes refused", size);
	} else if (accept(bus, connection, &contact, size)) {
		answer.response.supported = 1;
		answer.response.connection = bus->version >= VMBUS_V5_0 ? connection : bus->version;
		answer.features = bus->features;
	}
	outbox_answer(bus, &answer, bus->version >= VMBUS_V6_0 ? sizeof(answer) : sizeof(answer.response));
}

void bus_unload(struct vmbus *bus)
{
	struct vmbus_header answer = { .type = VMBUS_UNLOAD_RESPONSE };

	bus_disconnect(bus);
	/* A guest that never made contact has not said where it listens. */
	if (bus->contacted)
		outbox_answer(bus, &answer, sizeof(answer));
}
