/* SPDX-License-Identifier: MIT */
/*
 * A VMBus device for the test guests: it does what its packets say. Class 77fcd982-4f4f-4260-9754-29a75e83d072,
 * instance a1b9cb36-8b7f-405c-aa78-14d9a12c6571 (both random, of nobody else), no pipe, packets of at most 32 KiB.
 * Beside it there is another one, instance 5d0f2c1e-93a4-4b67-8e11-c26f30d749ba, that does the same and has monitor ids
 * for guests that name monitor pages.
 *
 * The payload of an in-band packet starts with struct vmbus_test_packet; shorter ones, and operations that are not in
 * the list below, break the protocol. Every packet is answered by exactly one packet with its transaction id: a
 * completion if it asked for one, else an in-band packet. The answer's payload is a struct vmbus_test_packet too, with
 * the same op, unless said otherwise; its status is 0 or a positive errno.
 *
 *	ECHO	 the whole payload, as it is
 *	PING	 nothing: an answer without a payload, for benchmarks
 *	SEND	 a: number of packets, b: payload of each in bytes (at least 16, at most VMBUS_TEST_PAYLOAD;
 *		 64 MiB in all: else EINVAL). After the answer come a in-band packets with transaction id 0: the first
 *		 16 bytes of the struct with op SEND and a counting from 0, then bytes a, a + 1, ... (mod 256). Until
 *		 they have all gone, another SEND gets EBUSY.
 *	OFFER	 a: offer so many more subchannels
 *	RESCIND	 answered, then the device is removed and a new one, the same to look at, is added; EBUSY if there are
 *		 too many removed ones that the guest has not released
 *	HOLD	 a: a GPADL's handle. The device keeps it until RELEASE, or until the channel closes: ENOENT if there is
 *		 none or it is not this channel's, EBUSY if one is held. The answer's value is its size in bytes
 *	SUM	 of bytes [a, a + b) of the held GPADL, in value: EINVAL if they are not inside or more than 16 MiB,
 *		 ENOENT if none is held
 *	FILL	 bytes [a, a + b) of the held GPADL with the low byte of value
 *	RELEASE	 the held GPADL
 *	COUNT	 value: packets this device has received since it was created or reset, this one included
 *	FAIL	 not answered: the device says that the guest broke its protocol
 *
 * A GPA_DIRECT packet is answered by a packet of op RANGES whose value is the checksum of the memory its ranges name,
 * one after the other, and whose a is the number of bytes. EFAULT if that is not all guest RAM.
 *
 * The checksum is that of vmbus_test_sum(). A device holds back answers for which there is no room, up to 256 KiB; a
 * guest that still sends then breaks the protocol. Subchannels take all operations but OFFER and RESCIND (EPERM).
 */
#ifndef DEVICES_VMBUS_TESTDEV_H
#define DEVICES_VMBUS_TESTDEV_H

#include <stddef.h>
#include <stdint.h>

enum vmbus_test_op {
	VMBUS_TEST_ECHO = 1,
	VMBUS_TEST_PING,
	VMBUS_TEST_SEND,
	VMBUS_TEST_OFFER,
	VMBUS_TEST_RESCIND,
	VMBUS_TEST_HOLD,
	VMBUS_TEST_SUM,
	VMBUS_TEST_FILL,
	VMBUS_TEST_RELEASE,
	VMBUS_TEST_COUNT,
	VMBUS_TEST_FAIL,
	VMBUS_TEST_RANGES,
};

#define VMBUS_TEST_PAYLOAD 16384

struct vmbus_test_packet {
	uint32_t op;
	uint32_t status; /* of an answer */
	uint32_t a, b;
	uint64_t value;
};

/* Checksum of what came before (0 at first) and these bytes. */
static inline uint64_t vmbus_test_sum(uint64_t sum, const void *bytes, size_t size)
{
	const uint8_t *p = bytes;

	while (size--)
		sum = sum * 31 + *p++;
	return sum;
}

struct vm;

/* --device vmbus-test. 0, or -errno; prints nothing. */
int vmbus_testdev_create(struct vm *vm);

#endif
