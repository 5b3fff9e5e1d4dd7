/* SPDX-License-Identifier: MIT */
/* What a server may ask of its client: guest memory, if it was not given the descriptor or does not want to map it. */
#ifndef DEVICES_VFIO_USER_SERVE_H
#define DEVICES_VFIO_USER_SERVE_H

#include "devices/vfio-user/stream.h"

struct memory;

/*
 * Carries out a command that the server sent on s, and answers there, errors and unknown commands too, unless it wants
 * no answer. 0, -EAGAIN if s still has to send earlier answers (call it again when it has), or another negative errno:
 * the stream is of no use any more.
 */
int vfu_serve(struct vfu_stream *s, const struct memory *memory, const struct vfu_message *m);

/*
 * Receives and serves commands for as long as that works without waiting, but no more than `most`. The poll events to
 * wait for, or a negative errno: -ECONNRESET at the end of the stream, -EPROTO (*why).
 */
int vfu_serve_stream(struct vfu_stream *s, const struct memory *memory, unsigned int most, const char **why);

#endif
