/* SPDX-License-Identifier: MIT */
/* What link.c (commands) and link_wait.c (receiving) have of each other. All under the link's lock. */
#ifndef DEVICES_VFIO_USER_LINK_INTERNAL_H
#define DEVICES_VFIO_USER_LINK_INTERNAL_H

#include "devices/vfio-user/link.h"

#define VFU_SECOND_NS 1000000000ULL

/* link.c */
uint64_t vfu_link_now(void); /* CLOCK_MONOTONIC, ns */

/* Whoever waits in recv() is woken by the end of the stream. */
void vfu_link_kill_locked(struct vfu_link *link, const char *why);

/* Whether a command may go out now: a server with one socket gets them one by one. */
bool vfu_link_may_send(const struct vfu_link *link);

/* If INTx is to be unmasked, and the socket has room. */
void vfu_link_send_unmask(struct vfu_link *link);

/* Posted writes that had to wait, as one message, before anything that came after them. 0, -EAGAIN or worse. */
int vfu_link_send_multi(struct vfu_link *link);

/*
 * link_wait.c: one step of waiting, for what has come to be dealt with or, with want_out, for room too: 0 to look
 * again, -ETIMEDOUT, -EINTR at the run's end, -EIO when the link is dead. The lock is let go meanwhile.
 */
int vfu_link_wait_step(struct vfu_link *link, uint64_t deadline, bool want_out);

/* Waits for the answer to a call that has been sent: 0 if it is done, or as above. */
int vfu_link_wait_answer(struct vfu_link *link, const struct vfu_call *call, uint64_t deadline);

#endif
