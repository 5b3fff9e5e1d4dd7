/* SPDX-License-Identifier: MIT */
/* Network cards on VMBus (NetVSP): --net. docs/network.md has the whole. */
#ifndef DEVICES_VMBUS_NETVSP_H
#define DEVICES_VMBUS_NETVSP_H

#include <stdbool.h>
#include <stdint.h>

struct net_backend;
struct net_options;
struct netvsp;
struct vm;
struct vmbus;

/*
 * Puts all cards of the options on the machine's VMBus, with the commands net-down and net-up, and what "status" and
 * --stats say of each card. 0, or -errno after one line. Needs vm->vmbus.
 */
int netvsp_create_all(struct vm *vm);

/* ---- Of one card; loop thread ---- */

struct netvsp_stats {
	uint64_t rx_frames, rx_bytes;
	uint64_t rx_dropped;  /* no room in the guest's ring */
	uint64_t rx_filtered; /* not for the guest's packet filter */
	uint64_t rx_errors;   /* too long, too short */
	uint64_t rx_stalls;   /* the guest had no receive buffer free */
	uint64_t rx_packets;  /* VMBus packets that carried the frames */
	uint64_t rx_calls;    /* to the back-end */
	uint64_t tx_frames, tx_bytes;
	uint64_t tx_dropped;  /* the back-end would not have them */
	uint64_t tx_errors;   /* malformed by the guest */
	uint64_t tx_calls;    /* to the back-end */
	uint64_t tx_segments; /* frames that were to be cut into segments */
	uint64_t strays;      /* completions of nothing */
};

/*
 * A card on the bus, which owns it and, through it, the back-end: NULL if there is no memory or the bus will not, and
 * the back-end is still the caller's. number tells cards apart, from 0 on. channels: the most the guest may have.
 */
struct netvsp *netvsp_add(struct vmbus *bus, struct net_backend *net, unsigned int number, const uint8_t mac[6],
			  unsigned int channels);
void netvsp_set_link(struct netvsp *dev, bool up);
bool netvsp_link(const struct netvsp *dev);
const struct netvsp_stats *netvsp_get_stats(const struct netvsp *dev);

#endif
