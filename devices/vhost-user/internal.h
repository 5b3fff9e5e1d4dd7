/* SPDX-License-Identifier: MIT */
/*
 * What the files of the vhost-user device share.
 *
 * Threads. The loop has the link, the back-end's socket, the window and all that is started or stopped. vCPUs come by
 * the functions of the virtio class: they note what is wanted, atomically, and post `work`. Only reading the
 * configuration waits, while the back-end has yet to take what the driver wrote. Locks: bus->lock > config_lock;
 * trap_lock and v.lock are leaves.
 */
#ifndef DEVICES_VHOST_USER_INTERNAL_H
#define DEVICES_VHOST_USER_INTERNAL_H

#include <linux/time_types.h>
#include <pthread.h>
#include <stdatomic.h>

#include "devices/vhost-user/attach.h"
#include "devices/vhost-user/backend.h"
#include "devices/vhost-user/link.h"
#include "devices/vhost-user/shmem.h"
#include "devices/vhost-user/vhost_user.h"
#include "devices/virtio/virtio.h"
#include "vmm/loop.h"

#define VHU_MS_NS 1000000ULL

/* What a driver wants of a queue. */
enum { VHU_QUEUE_START = 1, VHU_QUEUE_STOP = 2, VHU_QUEUE_VECTOR = 4 };

struct vhu_device;

/* An operation of the loop that waits for a descriptor. */
struct vhu_watch {
	struct loop_op op;
	struct vhu_device *dev;
	bool armed;
};

struct vhu_device {
	struct virtio v;
	struct vm *vm;
	struct vhost_user_options options;
	char name[20];
	bool created; /* the function is on the bus */

	struct vhu_link link;
	struct vhu_backend backend;
	struct vhu_attach attach;
	struct vhu_info info, new_info;
	struct vhu_shmem shmem;

	/* Wanted by vCPUs; the work carries it out. */
	struct loop_work work;
	_Atomic bool start_wanted, reset_wanted;
	_Atomic uint8_t queue_wanted[VIRTIO_QUEUES_MAX];
	_Atomic bool idle; /* nothing of a driver is with the back-end: a reset is done at once */

	/* Loop thread. */
	bool up;	/* the connection is set up */
	bool attaching; /* again */
	bool running;	/* between the driver's DRIVER_OK and its reset, as the back-end knows it */
	bool resume;	/* a back-end that is back takes over what another one has left */
	bool regions_added, given_up;
	bool started[VIRTIO_QUEUES_MAX];
	uint8_t kicks[VIRTIO_QUEUES_MAX];     /* in-band ones that are on their way */
	bool vector_steps[VIRTIO_QUEUES_MAX]; /* a queue_vector() is to come */
	int inflight_fd;
	struct vhu_inflight inflight;
	struct vhu_watch in_watch, out_watch, backend_watch;
	struct loop_op timer_op, retry_op;
	struct __kernel_timespec timer_ts, retry_ts;
	bool timer_armed, retry_armed;
	unsigned int nr_refused[2], nr_errors, nr_bad_queues; /* which are told of less and less often */
	char told[120];

	/* The configuration. */
	pthread_mutex_t config_lock;
	pthread_cond_t config_changed;
	uint8_t config_new[VIRTIO_CONFIG_MAX]; /* under config_lock, as all below */
	uint8_t config_dirty[VIRTIO_CONFIG_MAX / 8];
	unsigned int config_written, config_taken; /* counts of writes; the back-end's may be behind */
	bool config_asked, config_again;	   /* loop thread: GET_CONFIG is in the queue; and one more is due */

	/* The memslot of the window is out, and accesses come to us. */
	pthread_mutex_t trap_lock;
	bool trapped;
	unsigned int trap_claims;
	struct loop_work trap_work;
	struct loop_op trap_op;
	struct __kernel_timespec trap_ts;
};

/* Whether number n, from 1 on, of what others can cause again and again is told of: the 1st, 2nd, 4th... */
static inline bool vhu_worth_telling(unsigned int n)
{
	return !(n & (n - 1));
}

/* device.c */
void vhu_tell(const struct vhu_device *d, const char *text);
void vhu_pump(struct vhu_device *d);		   /* after something was put into the link's queue */
bool vhu_drain(struct vhu_device *d, int signals); /* without the loop, until the link's queue is empty */
void vhu_lost(struct vhu_device *d);
int vhu_connect(const char *path); /* a descriptor or -errno; does not wait */

/* session.c: all put steps into the link's queue. */
void vhu_start(struct vhu_device *d);
void vhu_stop(struct vhu_device *d, bool reset_done); /* tells the driver when it is through */
void vhu_queue_start(struct vhu_device *d, unsigned int queue);
void vhu_queue_stop(struct vhu_device *d, unsigned int queue);
void vhu_queue_vector(struct vhu_device *d, unsigned int queue);
void vhu_queue_kick(struct vhu_device *d, unsigned int queue); /* by a message, if that was negotiated */
void vhu_session_lost(struct vhu_device *d);		       /* the back-end is gone, with all that was started */

/* kinds.c: what differs among device=. */
uint32_t vhu_class_code(const struct vhost_user_options *options);
unsigned int vhu_config_size(const struct vhost_user_options *options, bool *probe);
/* How many queues the device has; 0, after a line, if that cannot be. */
unsigned int vhu_queues(const struct vhu_device *d);
uint64_t vhu_features(const struct vhu_device *d);
/* What the driver is shown of the back-end's configuration. */
void vhu_patch_config(const struct vhu_device *d, uint8_t *config);

/* config.c */
void vhu_config_reading(struct virtio *v);
void vhu_config_written(struct virtio *v, unsigned int offset, unsigned int size, uint64_t value);
void vhu_config_flush(struct vhu_device *d);   /* loop thread: what the driver wrote */
void vhu_config_refresh(struct vhu_device *d); /* the back-end says that it has changed */
void vhu_config_lost(struct vhu_device *d);    /* nobody need wait any more */

/* events.c: the back-end's requests, and the window. */
extern const struct vhu_backend_ops vhu_backend_ops;
int vhu_window_reserve(struct vhu_device *d); /* 0 or -ENOMEM */
int vhu_window_create(struct vhu_device *d);
bool vhu_memory_fault(struct virtio *v, bool sure);
void vhu_trap_init(struct vhu_device *d);

/* reconnect.c */
void vhu_reconnect_init(struct vhu_device *d);
void vhu_reconnect_start(struct vhu_device *d);
void vhu_reconnect_step(struct vhu_device *d); /* while attaching: the link has gone on */

#endif
