/* SPDX-License-Identifier: MIT */
/*
 * What the files of the bus share with each other and nobody else. Loop thread.
 *
 * Every way into the bus (a message, a signal, room, a device's call) is between bus_enter() and bus_leave(). Messages
 * for the guest are only noted meanwhile; the outermost bus_leave() sends what there is room for. Channels and devices
 * that have come to their end are freed there too, so that a pointer to one stays good across any callback.
 */
#ifndef DEVICES_VMBUS_INTERNAL_H
#define DEVICES_VMBUS_INTERNAL_H

#include "devices/vmbus/protocol.h"
#include "devices/vmbus/ring.h"
#include "devices/vmbus/transport.h"
#include "devices/vmbus/vmbus.h"

enum {
	BUS_ANSWERS = 64,			     /* that wait for room */
	BUS_GPADL_BUCKETS = 512,		     /* of the hash table */
	BUS_GPADLS = 8192,			     /* that a guest may have: about four a channel */
	BUS_GPADL_WORDS = (1280 << 20) / VMBUS_PAGE, /* their pages in all: Hyper-V's limit of 1280 MiB */
	BUS_LOG_CONNECTION = 16,		     /* lines about the guest's mistakes, for one contact */
	BUS_LOG_TOTAL = 100,			     /* and in all */
};

enum channel_state {
	CHANNEL_CLOSED,
	CHANNEL_OPEN,
	CHANNEL_FAILED, /* open in the guest's eyes, dead in ours */
};

/* What the guest knows of a channel. */
enum channel_offer {
	OFFER_DUE, /* nothing; it is offered once the guest asks or has asked */
	OFFER_SENT,
	OFFER_RELEASED,	 /* it has let go of it unasked: nothing more until its next contact */
	OFFER_RESCINDED, /* withdrawn; the relid is free when the guest says so */
};

struct vmbus_channel {
	struct vmbus *bus;
	struct vmbus_device *device;
	struct vmbus_channel *next; /* of the device, by index; or in bus->dead_channels */
	struct vmbus_channel *next_rescind;
	unsigned int index; /* 0: primary */
	uint32_t relid;
	enum channel_offer offer;
	bool gone; /* the primary channel of a removed device, and the guest is done with it */

	enum channel_state state;
	unsigned int busy; /* calls of the device's functions under way */
	bool held;	   /* by vmbus_pause() */
	bool finish_due;   /* channel_finish() when they have returned */
	bool opened;	   /* the device's open() has succeeded and close() is due */
	uint32_t vp;	   /* that the channel interrupts, or VMBUS_VP_NONE */
	uint32_t connection;
	unsigned int event_flag;
	bool monitored; /* has a monitor id */
	uint8_t monitor_id;
	struct vmbus_gpadl *gpadl; /* of the rings, held */
	uint32_t downstream;
	void **pages; /* host addresses of the gpadl's pages */
	size_t page_count;
	void *twice_in, *twice_out; /* map_pages() of the data pages, or NULL */
	struct vmbus_ring in, out;
	void *buffer; /* for one packet */
	void *opaque;
	uint8_t user_data[120];
};

enum gpadl_state {
	GPADL_BUILDING, /* bodies are missing */
	GPADL_READY,
	GPADL_TEARING, /* torn down by the guest, still held */
	GPADL_TORN,    /* in bus->torn: the guest is to be told */
	GPADL_ORPHAN,  /* forgotten by the bus, still held */
};

struct vmbus_gpadl {
	struct vmbus *bus;
	struct vmbus_gpadl *next; /* in its bucket or in bus->torn */
	enum gpadl_state state;
	uint32_t handle;
	uint32_t relid;
	unsigned int refs;
	unsigned int ranges;
	uint32_t words; /* of word[]; less than 8192 */
	uint32_t have;	/* of them so far */
	size_t size;	/* bytes it describes */
	uint64_t word[];
};

struct answer {
	size_t size;
	union {
		struct vmbus_header header;
		uint8_t bytes[sizeof(struct vmbus_tl_connect_result)];
	};
};

struct vmbus {
	const struct vmbus_transport *transport;
	void *opaque;
	unsigned int depth; /* of bus_enter() */

	/* The connection. version is 0 without one; vp and sint are where messages go all the same. */
	uint32_t version;
	uint32_t features;
	bool contacted; /* ever, since the reset */
	unsigned int vp, sint;
	uint8_t *interrupt_page;			    /* of versions before 2.4, or NULL */
	bool event_connected;				    /* to VMBUS_CONNECTION_EVENT */
	struct vmbus_monitor_page *monitor_page;	    /* guest to host, or NULL */
	struct vmbus_channel *monitored[VMBUS_MONITOR_IDS]; /* by monitor id */
	uint64_t monitor_ns; /* how often the transport calls vmbus_monitor(); 0: it does not */

	struct vmbus_device *devices;			/* in the order of their arrival, without the removed ones */
	struct vmbus_channel *channels[VMBUS_CHANNELS]; /* by relid */
	unsigned int relid_end;				/* no relid has been in use from here on */
	struct vmbus_device *dead_devices;
	struct vmbus_channel *dead_channels;

	bool offers_requested, all_offers_due;
	unsigned int next_offer;			    /* no channel with a lesser relid is OFFER_DUE */
	struct vmbus_channel *rescind_first, *rescind_last; /* RESCIND is due */

	bool pausing, paused;
	struct answer answers[BUS_ANSWERS];
	unsigned int first_answer, answer_count;

	struct vmbus_gpadl *gpadls[BUS_GPADL_BUCKETS];
	struct vmbus_gpadl *torn_first, *torn_last;
	unsigned int gpadl_count;
	uint32_t gpadl_words;

	unsigned int log_connection, log_total;
	bool unknown_logged;
};

/* bus.c */
void bus_enter(struct vmbus *bus);
void bus_leave(struct vmbus *bus);
/* One line, unless this guest has caused too many. */
void bus_log(struct vmbus *bus, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* contact.c */
void bus_contact(struct vmbus *bus, uint32_t connection, const void *message, size_t size);
void bus_unload(struct vmbus *bus);
/* Closes channels, forgets GPADLs, offers, rescinded channels and waiting messages. */
void bus_disconnect(struct vmbus *bus);

/* monitor.c */
void monitor_contact(struct vmbus *bus, const struct vmbus_contact *contact);
/* Gives the channel a monitor id if its device wants one, the guest has named pages and there is one left. */
void monitor_assign(struct vmbus_channel *channel);
/* Takes it away from a channel that is not open. */
void monitor_release(struct vmbus_channel *channel);
/* A monitored channel has become open, or is so no more. */
void monitor_update(struct vmbus *bus);

/* outbox.c: at most one answer to a message, so that there is room for it if there was room before the message */
void outbox_answer(struct vmbus *bus, const void *message, size_t size);
bool outbox_is_full(const struct vmbus *bus);
void outbox_clear(struct vmbus *bus);
void outbox_pump(struct vmbus *bus);

/* offer.c */
void offer_request(struct vmbus *bus);
void offer_relid_released(struct vmbus *bus, uint32_t relid);
/* Makes the next message for the guest: false if there is none; offer_sent() and rescind_sent() when it has gone. */
bool offer_next(struct vmbus *bus, struct vmbus_offer *offer);
void offer_sent(struct vmbus *bus, uint32_t relid);
bool rescind_next(const struct vmbus *bus, struct vmbus_relid_message *message);
void rescind_sent(struct vmbus *bus);
/* The guest forgets the bus: channels that it should have released are freed, the others will be offered anew. */
void offer_reset(struct vmbus *bus);
/* The channel that the guest means by relid and may use, or NULL. */
struct vmbus_channel *offer_find(struct vmbus *bus, uint32_t relid);
void offer_rescind_subchannels(struct vmbus_device *device);

/* gpadl.c */
void gpadl_header(struct vmbus *bus, const void *message, size_t size);
void gpadl_body(struct vmbus *bus, const void *message, size_t size);
void gpadl_teardown(struct vmbus *bus, uint32_t relid, uint32_t handle);
/* Forgets those of a channel, without telling the guest; of all channels if relid is 0. */
void gpadl_forget(struct vmbus *bus, uint32_t relid);
bool gpadl_torn_next(const struct vmbus *bus, struct vmbus_gpadl_torndown *message);
void gpadl_torn_sent(struct vmbus *bus);
/* Its page numbers if it is one range of whole pages, else NULL. */
const uint64_t *gpadl_whole_pages(const struct vmbus_gpadl *gpadl, size_t *count);

/* channel.c */
void channel_open(struct vmbus *bus, const void *message, size_t size);
void channel_close(struct vmbus *bus, uint32_t relid);
void channel_modify(struct vmbus *bus, uint32_t relid, uint32_t vp);
/* Handles the packets that are there. */
void channel_run(struct vmbus_channel *channel);
/* To CLOSED or FAILED, if it is open. */
void channel_stop(struct vmbus_channel *channel, enum channel_state state);

#endif
