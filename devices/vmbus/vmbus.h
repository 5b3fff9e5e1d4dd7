/* SPDX-License-Identifier: MIT */
/*
 * VMBus, as the devices on it see it. A device offers channels; the guest opens a channel by giving it two rings in
 * its own memory, and from then on packets go both ways. All of this runs on the loop thread.
 *
 * The bus (bus.c and its neighbours) is a state machine that knows no KVM, eventfd or socket: it is driven through
 * struct vmbus_transport (transport.h) by hv_transport.c in the machine, by tests and by fuzzers.
 */
#ifndef DEVICES_VMBUS_VMBUS_H
#define DEVICES_VMBUS_VMBUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vmbus;
struct vmbus_channel;
struct vmbus_device;

/* A GUID as it lies in memory on the wire: the first three fields little-endian. */
struct vmbus_guid {
	uint8_t b[16];
};
#define VMBUS_GUID(a, b, c, d0, d1, d2, d3, d4, d5, d6, d7)                                                            \
	{                                                                                                              \
		{                                                                                                      \
			(a) & 0xff, (a) >> 8 & 0xff, (a) >> 16 & 0xff, (a) >> 24 & 0xff, (b)&0xff, (b) >> 8 & 0xff,    \
				(c)&0xff, (c) >> 8 & 0xff, d0, d1, d2, d3, d4, d5, d6, d7                              \
		}                                                                                                      \
	}

/* Packet types and flags on a ring (VMPACKET_DESCRIPTOR). */
enum {
	VMBUS_PACKET_INBAND = 6,
	VMBUS_PACKET_TRANSFER_PAGES = 7,
	VMBUS_PACKET_GPA_DIRECT = 9,
	VMBUS_PACKET_COMPLETION = 0xb,
};
#define VMBUS_PACKET_COMPLETION_REQUESTED 1

/* Flags of an offer. */
#define VMBUS_OFFER_PIPE 0x0010 /* messages on the rings start with a pipe header */

/* One packet from the guest, copied out of the ring and checked. Valid during the call it is passed to. */
struct vmbus_packet {
	uint16_t type;	      /* VMBUS_PACKET_* */
	uint16_t flags;	      /* VMBUS_PACKET_COMPLETION_REQUESTED */
	uint64_t transaction; /* the guest's; echoed by a completion */
	const void *payload;  /* 8-byte aligned */
	size_t size;	      /* bytes, a multiple of 8 */
	/* Between descriptor and payload: the range list of GPA_DIRECT and TRANSFER_PAGES, from reserved/range count
	 * on. */
	const void *extra;
	size_t extra_size;
};

struct vmbus_device_class {
	const char *name; /* "heartbeat": in logs, traces, statistics, the control socket */
	struct vmbus_guid type;
	struct vmbus_guid instance; /* of the only device of this class; all zero: given when the device is created */
	uint16_t offer_flags;	    /* VMBUS_OFFER_* */
	uint16_t mmio_megabytes;
	uint8_t user_defined[120]; /* for a pipe the first word is the pipe's mode: 4 is message mode */
	size_t packet_max; /* largest packet of the guest's, descriptor included; a larger one fails the channel */

	/*
	 * 0, or its channels get monitor ids, as long as there are any and if the guest has named monitor pages: the
	 * guest signals without a hypercall, and is looked at every so many nanoseconds while a channel is open. That
	 * costs more than the hypercall saves unless the guest signals very often (docs/vmbus.md).
	 */
	uint32_t monitor_ns;

	/* The guest has opened a channel (subchannels too). Negative: refuse it. */
	int (*open)(struct vmbus_channel *channel);
	/* The channel is closed, by the guest, a reset or a failure. Nothing may be sent any more. NULL: not
	 * interested. */
	void (*close)(struct vmbus_channel *channel);
	/*
	 * A packet has arrived. Negative: the guest broke the device's protocol; the bus logs it once and stops reading
	 * the channel until the guest closes it.
	 */
	int (*packet)(struct vmbus_channel *channel, const struct vmbus_packet *packet);
	/* All packets that were there have been handled: complete what was gathered. NULL: nothing to do. */
	void (*batch_end)(struct vmbus_channel *channel);
	/* The guest has made room after a vmbus_send() that returned -EAGAIN. NULL: never sends unasked. */
	void (*room)(struct vmbus_channel *channel);
	/* State after power-on; all channels are closed already. NULL: nothing. */
	void (*reset)(struct vmbus_device *device);
	/* Frees the device. */
	void (*destroy)(struct vmbus_device *device);
	/*
	 * State for a snapshot, as a versioned byte string: save() appends to a buffer that grows and returns its
	 * length (calling it with size 0 asks for the length); restore() returns -EINVAL for bytes it does not know.
	 */
	size_t (*save)(const struct vmbus_device *device, void *buffer, size_t size);
	int (*restore)(struct vmbus_device *device, const void *buffer, size_t size);
};

/* First member of a device's own struct. */
struct vmbus_device {
	const struct vmbus_device_class *class;
	struct vmbus *bus;
	struct vmbus_guid instance;
	struct vmbus_channel *channel; /* the primary one; exists while the device is on the bus */
	struct vmbus_device *next;
};

/*
 * Puts a device on the bus and, if the guest has already asked for offers, offers it (hot add). The bus owns the
 * device from here on. 0, -EEXIST if type and instance are there already, -ENOSPC for more than 2047 channels, -ENOMEM.
 */
int vmbus_add_device(struct vmbus *bus, struct vmbus_device *device, const struct vmbus_device_class *class,
		     const struct vmbus_guid *instance);
/* Rescinds its channels, subchannels first, and destroys the device when the guest has let go of them. */
void vmbus_remove_device(struct vmbus_device *device);
struct vmbus_device *vmbus_find_device(struct vmbus *bus, const char *name);

/*
 * Offers count more channels of the device, numbered on from those it has. They are rescinded when the primary channel
 * closes. 0; -ENOTCONN if that is not open; -ENOSPC; -ENOMEM.
 */
int vmbus_offer_subchannels(struct vmbus_device *device, unsigned int count);

struct vmbus_device *vmbus_channel_device(const struct vmbus_channel *channel);
unsigned int vmbus_channel_index(const struct vmbus_channel *channel); /* 0: primary */
bool vmbus_channel_is_open(const struct vmbus_channel *channel);
/* The 120 bytes the guest passed when it opened the channel. */
const void *vmbus_channel_user_data(const struct vmbus_channel *channel);
/* Owner's pointer for this channel, NULL after each open. */
void vmbus_channel_set_opaque(struct vmbus_channel *channel, void *opaque);
void *vmbus_channel_opaque(const struct vmbus_channel *channel);

/*
 * Puts a packet on the guest's ring: payload (padded to 8 bytes). 0; -EAGAIN when there is no room: room() is called
 * once there is; -ENOTCONN when the channel is not open, or no longer, since the guest has broken the ring (close() has
 * been called then, or will be when the device's function returns that the bus has called); -EMSGSIZE when it can never
 * fit. The guest is interrupted by the next vmbus_flush(), which the bus calls itself after open(), packet(),
 * batch_end() and room(); a device that sends at another time calls it when done.
 */
int vmbus_send(struct vmbus_channel *channel, uint16_t type, uint16_t flags, uint64_t transaction, const void *payload,
	       size_t size);
/* The same with two pieces of payload, one after the other; the first a multiple of 8 bytes. */
int vmbus_send2(struct vmbus_channel *channel, uint16_t type, uint16_t flags, uint64_t transaction, const void *head,
		size_t head_size, const void *payload, size_t size);
void vmbus_flush(struct vmbus_channel *channel);

/*
 * Backpressure: while it is set no packets are read, so that the guest's ring fills up and the guest waits. Off after
 * each open. May be called at any time, also for a channel that is not open.
 */
void vmbus_pause(struct vmbus_channel *channel, bool on);

/* Number of VPs. */
unsigned int vmbus_vps(const struct vmbus *bus);

/* Stops reading the channel until the guest closes it, with one log line: "vmbus: NAME: WHY". */
void vmbus_fail(struct vmbus_channel *channel, const char *why);

/*
 * GPADLs by handle, for devices whose protocol names one (a receive buffer). A device that uses one holds it, and a
 * teardown by the guest is answered only after vmbus_gpadl_put(). NULL if there is none or it is not this channel's.
 */
struct vmbus_gpadl *vmbus_gpadl_get(struct vmbus_channel *channel, uint32_t handle);
void vmbus_gpadl_put(struct vmbus_gpadl *gpadl);
size_t vmbus_gpadl_size(const struct vmbus_gpadl *gpadl);
/* Copies out of or into it; -EINVAL unless [offset, offset + size) is inside. */
int vmbus_gpadl_read(const struct vmbus_gpadl *gpadl, size_t offset, void *to, size_t size);
int vmbus_gpadl_write(struct vmbus_gpadl *gpadl, size_t offset, const void *from, size_t size);
/*
 * Host addresses of its pages, for I/O in place: at most max. How many there are, or -EINVAL unless it is one range of
 * whole pages and they fit. Good until vmbus_gpadl_put(); the guest may write to them at any time.
 */
int vmbus_gpadl_map(const struct vmbus_gpadl *gpadl, void **pages, size_t max);
/* Host address of guest RAM [gpa, gpa + size), NULL unless all of it is RAM in one piece (a page that GPA_DIRECT
 * names). */
void *vmbus_guest_memory(const struct vmbus_channel *channel, uint64_t gpa, size_t size);

#endif
