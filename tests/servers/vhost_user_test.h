/* SPDX-License-Identifier: MIT */
/* The generic device of tests/servers/vhost-user.c, for it and for the guests that drive it. */
#ifndef VHOST_USER_TEST_H
#define VHOST_USER_TEST_H

#include <stdint.h>

#define VUT_ID	  60 /* a virtio device ID that nobody has taken */
#define VUT_MAGIC 0x74755676u

/* Configuration space. Bytes from VUT_CFG_BYTES on read as offset * 7 and keep nothing. */
enum {
	VUT_CFG_MAGIC = 0,
	VUT_CFG_CHANGES = 4,
	VUT_CFG_SCRATCH = 8, /* eight bytes of the driver's */
	VUT_CFG_BYTES = 16,
	VUT_CFG_SIZE = 60,
};

/* A request: this, then what the operation reads, as readable bytes; an answer, then what it writes, as writable. */
struct vut_command {
	uint32_t op, file; /* of enum vut_file, where one is wanted */
	uint64_t a[4];
};

struct vut_answer {
	uint32_t status; /* 0; an errno; what a message was answered with; or VUT_NO_ANSWER */
	uint32_t pad;
	uint64_t value;
};

#define VUT_NO_ANSWER UINT32_MAX

enum vut_op {
	VUT_ECHO,  /* the readable bytes to the writable ones; value: how many */
	VUT_INFO,  /* value: number a[0] of enum vut_info, for queue a[1] */
	VUT_MAP,   /* a: shmid | flags << 8, fd_offset, shm_offset, length */
	VUT_UNMAP, /* the same; file does not matter */
	VUT_CHURN, /* a: shmid, rounds, shm_offset, length: maps offset 0 and `length` of the file by turns; value: bad
		    */
	VUT_RAW,   /* the readable bytes on the back-end channel; a: descriptors, wait for an answer, size of pieces */
	VUT_POKE,  /* a: offset, value: to the file */
	VUT_PEEK,  /* a: offset; value: from the file */
	VUT_TRUNCATE, /* a: size, of the file */
	VUT_CHANGE,   /* tells of a change of VUT_CFG_CHANGES to a[0] */
	VUT_HOLD,     /* not answered before VUT_RELEASE, and those in the opposite order */
	VUT_RELEASE,
	VUT_CALL,	/* interrupts for queue a[0] without a reason */
	VUT_ERROR,	/* reports an error of queue a[0] */
	VUT_RAM,	/* value: the eight bytes of guest memory at a[0] */
	VUT_SHRINK_RAM, /* status: what became of it */
	VUT_MUTE,	/* from now on the front-end gets no answer; a[0]: nor does any queue */
	VUT_HANG_UP,	/* and a[0] of the back-end channel only */
	VUT_DIE,	/* with this request not answered; who takes it over from the dead answers it */
	VUT_FAKE_USED,	/* a: queue, id, length: a used entry that nobody waits for */
	VUT_FILL,	/* a: shmid, most, shm_offset: maps pages one by one, until one is refused; value: how many */
};

enum vut_info {
	VUT_INFO_KICKS, /* of a queue */
	VUT_INFO_RESETS,
	VUT_INFO_STATUS,
	VUT_INFO_FEATURES,
	VUT_INFO_PROTOCOL,
	VUT_INFO_REGIONS,
	VUT_INFO_ENABLED, /* a bit a queue */
	VUT_INFO_STARTED,
	VUT_INFO_STOPS,	 /* GET_VRING_BASEs of a queue */
	VUT_INFO_FAULTS, /* breaches of the protocol by the front-end */
	VUT_INFO_CONNECTIONS,
	VUT_INFO_RECOVERED, /* requests taken over from a back-end that died */
	VUT_INFO_SIZE,	    /* of a queue */
	VUT_INFO_CONFIG_WRITES,
	VUT_INFO_HELD, /* requests that wait for VUT_RELEASE */
};

/* What a descriptor may be. The first two have 16 MiB, the third VUT_ODD_SIZE. */
enum vut_file {
	VUT_FILE_A,
	VUT_FILE_B,
	VUT_FILE_ODD,
	VUT_FILE_READ_ONLY, /* of A */
	VUT_FILE_WRITE_ONLY,
	VUT_FILE_SEALED, /* of its own; neither shrinks nor takes new writable mappings */
	VUT_FILE_NULL,
	VUT_FILE_ZERO,
	VUT_FILE_EVENTFD,
	VUT_FILE_SOCKET,
	VUT_FILE_PIPE,
	VUT_FILE_DIRECTORY,
	VUT_FILES,
};

#define VUT_FILE_SIZE 0x1000000
#define VUT_ODD_SIZE  0x2064
/* What a file has at an offset that is a multiple of eight, to begin with. */
#define VUT_PATTERN(file, offset) (((uint64_t)(file) + 1) << 56 | (offset))

#endif
