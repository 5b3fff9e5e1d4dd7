/* SPDX-License-Identifier: MIT */
/* What the files of the transport share. */
#ifndef DEVICES_VIRTIO_INTERNAL_H
#define DEVICES_VIRTIO_INTERNAL_H

#include "devices/virtio/virtio.h"

/* registers.c: register functions of BAR0; the opaque is the struct virtio. */
extern const struct io_ops virtio_common_ops, virtio_device_ops;
/* Back to the state after power-on, but for what the device itself has to do. */
void virtio_registers_clear(struct virtio *v);

/* interrupt.c */
extern const struct io_ops virtio_isr_ops;
void virtio_signal_init(struct virtio_signal *s, struct virtio *v);
void virtio_signal(struct virtio_signal *s, int fd);
void virtio_interrupts_clear(struct virtio *v); /* under lock */
void virtio_msix_written(struct virtio *v);	/* after a write to configuration space; no lock held */
void virtio_call_init(struct virtio_queue *q);

#endif
