/* SPDX-License-Identifier: MIT */
/* The generic device of tests/servers/vhost-user.c: what its guests share. */
#ifndef RT_VUT_H
#define RT_VUT_H

#include "../../servers/vhost_user_test.h"
#include "rt/virtio.h"

#define VUT_SECOND 1000000u
#define VUT_LONG   (20 * VUT_SECOND)
/* Interrupt vectors: the configuration's, and from there on the queues'. */
#define VUT_VECTOR 0x70

/* The features that most tests take: packed=1 on the command line chooses the ring. */
uint64_t vut_features(void);
/* Finds the device, and gets it running: `queues` of them, of this size (0: the largest), with MSI-X. */
void vut_start(struct virtio *v, struct vq *queues, unsigned int count, uint16_t size);
/* Puts a request into the queue, not yet kicked. data and room are guest memory of theirs; 0 for none. */
void vut_put(struct vq *q, uint16_t id, const struct vut_command *c, uint64_t data, uint32_t data_length, uint64_t room,
	     uint32_t room_length);
/* The answer to the request with this id: its buffer, which the device writes. */
struct vut_answer *vut_answer(struct vq *q, uint16_t id);
/* One request from putting to its answer, which must come. */
struct vut_answer vut_do(struct vq *q, uint32_t op, uint32_t file, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
uint64_t vut_info(struct vq *q, enum vut_info what, uint64_t queue);
/*
 * Waits until that is `wanted`, or fails: a queue runs as soon as the back-end has its own messages, and those that
 * follow, of other queues and of the status, may still be on their way.
 */
void vut_await(struct vq *q, enum vut_info what, uint64_t queue, uint64_t wanted);
/* An echo of `length` bytes, compared. */
void vut_echo(struct vq *q, uint32_t length, uint32_t seed);

#endif
