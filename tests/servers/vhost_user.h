/* SPDX-License-Identifier: MIT */
/*
 * The vhost-user back-end of the tests: what its files share. Numbers and structures are those of the vhost-user
 * protocol ("Vhost-user Protocol", docs/interop of QEMU) and of virtio 1.2; they are written down a second time here,
 * so that a number that vmm has wrong does not go unnoticed.
 */
#ifndef VHOST_USER_H
#define VHOST_USER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/servers/vhost_user_test.h"

#define MAX_PAYLOAD 4096
#define MAX_FDS	    32
#define MAX_QUEUES  64
#define MAX_REGIONS 64
#define MAX_CHAIN   64
#define MAX_SIZE    1024 /* of a queue */
#define MAX_HELD    64

enum request {
	GET_FEATURES = 1,
	SET_FEATURES,
	SET_OWNER,
	RESET_OWNER,
	SET_MEM_TABLE,
	SET_LOG_BASE,
	SET_LOG_FD,
	SET_VRING_NUM,
	SET_VRING_ADDR,
	SET_VRING_BASE,
	GET_VRING_BASE,
	SET_VRING_KICK,
	SET_VRING_CALL,
	SET_VRING_ERR,
	GET_PROTOCOL_FEATURES,
	SET_PROTOCOL_FEATURES,
	GET_QUEUE_NUM,
	SET_VRING_ENABLE,
	SEND_RARP,
	NET_SET_MTU,
	SET_BACKEND_REQ_FD,
	GET_CONFIG = 24,
	SET_CONFIG,
	GET_INFLIGHT_FD = 31,
	SET_INFLIGHT_FD,
	RESET_DEVICE = 34,
	VRING_KICK,
	GET_MAX_MEM_SLOTS,
	ADD_MEM_REG,
	REM_MEM_REG,
	SET_STATUS,
	GET_STATUS,
	GET_SHMEM_CONFIG = 44,
	REQUESTS = 64,
};

enum backend_request { CONFIG_CHANGE = 2, VRING_CALL = 4, VRING_ERR = 5, SHMEM_MAP = 9, SHMEM_UNMAP = 10 };

enum { FLAG_VERSION = 1, FLAG_VERSION_MASK = 3, FLAG_REPLY = 4, FLAG_NEED_REPLY = 8 };

/* Bits of GET_PROTOCOL_FEATURES. */
enum {
	PF_MQ = 0,
	PF_REPLY_ACK = 3,
	PF_BACKEND_REQ = 5,
	PF_CONFIG = 9,
	PF_SEND_FD = 10,
	PF_INFLIGHT = 12,
	PF_RESET_DEVICE = 13,
	PF_INBAND = 14,
	PF_MEM_SLOTS = 15,
	PF_STATUS = 16,
	PF_GPA = 21,
	PF_SHMEM = 22,
};

/* Bits of GET_FEATURES. */
enum {
	F_BLK_SIZE_MAX = 1,
	F_BLK_FLUSH = 9,
	F_INDIRECT = 28,
	F_EVENT_IDX = 29,
	F_PROTOCOL = 30,
	F_VERSION_1 = 32,
	F_PACKED = 34,
};

struct header {
	uint32_t request, flags, size;
};

struct region {
	uint64_t guest, size, user, offset; /* the order on the wire */
};

struct vring_address {
	uint32_t index, flags;
	uint64_t desc, used, avail, log;
};

struct mmap_request {
	uint8_t shmid, pad[7];
	uint64_t fd_offset, shm_offset, length, flags;
};

struct inflight_request {
	uint64_t size, offset;
	uint16_t queues, queue_size;
};

struct message {
	struct header header;
	uint8_t payload[MAX_PAYLOAD];
	int fds[MAX_FDS];
	unsigned int nr_fds;
};

struct part {
	uint8_t *data;
	uint32_t length;
	bool writable;
};

/* A chain of descriptors that the driver made available. */
struct element {
	uint16_t id;	/* head of a split ring's chain, buffer id of a packed one's */
	uint16_t count; /* of a packed ring's descriptors that it takes */
	unsigned int nr_parts;
	struct part parts[MAX_CHAIN];
};

/* What survives a back-end that dies, for each descriptor. The region's layout is the back-end's own affair. */
struct record {
	uint64_t order; /* 0: not in flight */
	uint16_t count, nr_parts;
	struct {
		uint64_t address;
		uint32_t length, writable;
	} parts[4];
};

struct survivor {
	uint64_t magic, next_order;
	uint16_t avail, used; /* positions; a packed ring's with its wrap counter in bit 15 */
	uint16_t pad[2];
	struct record records[MAX_SIZE];
};

struct queue {
	uint16_t size, avail, used; /* as struct survivor has them */
	struct vring_address where;
	uint8_t *desc, *avail_ring, *used_ring; /* NULL: not there */
	int kick, call, err;
	bool enabled, started, addressed;
	uint64_t kicks, stops;
	struct survivor *survivor; /* NULL: none */
};

struct mapping {
	struct region r;
	uint8_t *base; /* of the whole mapping; r.offset is inside */
	uint64_t length;
	int fd;
};

enum trick { PATCH, CUT, EXTRA, FDS, MUTE, CLOSE, TWICE, NACK, SEND, MAP_FIRST, TRICKS };

struct trick_use {
	enum trick trick;
	unsigned long request, nth, a, b;
	unsigned long long value;
	const char *text;
};

struct server {
	/* what it offers */
	bool block, once;
	unsigned int nr_queues, delay, split;
	uint64_t features, protocol, shmem[256], slots;
	uint32_t shmem_count;
	struct trick_use tricks[16];
	unsigned int nr_tricks, die_after;
	unsigned long seen[REQUESTS];
	/* the connection */
	int fd, channel;
	bool owner, deaf, mute, hang_up;
	uint64_t acked, acked_protocol, connections, faults, recovered;
	struct mapping regions[MAX_REGIONS];
	unsigned int nr_regions;
	struct queue queues[MAX_QUEUES];
	uint8_t *inflight;
	size_t inflight_size;
	/* the device */
	uint64_t resets, status, config_writes;
	uint8_t config[256];
	int files[VUT_FILES];
	uint8_t *contents[VUT_FILES]; /* of those that have any */
	struct {
		unsigned int queue;
		struct element e;
		bool recovered;
	} held[MAX_HELD];
	unsigned int nr_held;
	/* the disk */
	int disk;
	uint64_t sectors, served;
};

/* vhost_user_ring.c */

bool acked(const struct server *s, unsigned int feature);
/* Guest memory [address, address + length), by guest address or by the front-end's; NULL if not all of it is there. */
uint8_t *guest_memory(struct server *s, uint64_t address, uint64_t length);
uint8_t *user_memory(struct server *s, uint64_t address, uint64_t length);
/* Looks the ring up after its address, size or the memory has changed. */
void locate_ring(struct server *s, struct queue *q);
/* The next chain. False if there is none. A broken one counts as a fault of the driver's, and stops the queue. */
bool pop(struct server *s, struct queue *q, struct element *e);
void push(struct server *s, struct queue *q, const struct element *e, uint32_t written);
/* A used entry out of thin air. */
void push_fake(struct server *s, struct queue *q, uint16_t id, uint32_t written);
/* The oldest chain that a back-end before us has taken and not given back, newer than *order, which it advances. */
bool next_survivor(struct server *s, struct queue *q, uint64_t *order, struct element *e);
void recover_positions(struct server *s, struct queue *q);
void notify(struct server *s, struct queue *q);

/* vhost_user_device.c: what the device is. */

void device_create(struct server *s, const char *path);
/* One chain: answers it with push(), or keeps it. False: the server should end, leaving it in flight. */
bool device_serve(struct server *s, struct queue *q, struct element *e);
void device_stop_queue(struct server *s, unsigned int queue);

/* vhost-user.c: the protocol. */

void fault(struct server *s, const char *what, uint64_t value);
/*
 * A message on the back-end channel. Returns what it was answered with, VUT_NO_ANSWER if nothing came or (when
 * !wait) nothing was waited for.
 */
uint32_t ask(struct server *s, uint32_t request, const void *payload, uint32_t size, const int *fds,
	     unsigned int nr_fds, bool wait);
uint32_t ask_raw(struct server *s, const void *data, size_t size, const int *fds, unsigned int nr_fds, bool wait,
		 size_t piece);

#endif
