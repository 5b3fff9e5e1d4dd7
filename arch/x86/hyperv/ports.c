/* SPDX-License-Identifier: MIT */
/* Connections: what the guest's HvPostMessage and HvSignalEvent reach. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arch/x86/hyperv/internal.h"

struct hv_port {
	uint32_t connection;
	int eventfd;   /* -1: takes messages */
	bool exitless; /* the backend has connected it inside KVM */
	const struct hv_message_ops *ops;
	void *opaque;
};

/* Index of the first port whose id is not less. */
static size_t position(const struct hv_partition *partition, uint32_t connection)
{
	size_t low = 0, high = partition->nr_ports;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (partition->ports[middle].connection < connection)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct hv_port *find(const struct hv_partition *partition, uint32_t connection)
{
	size_t at = position(partition, connection);

	return at < partition->nr_ports && partition->ports[at].connection == connection ? &partition->ports[at] : NULL;
}

static int grow(struct hv_partition *partition)
{
	size_t max = partition->max_ports ? 2 * partition->max_ports : 16;
	struct hv_port *ports;

	if (partition->nr_ports < partition->max_ports)
		return 0;
	ports = realloc(partition->ports, max * sizeof(*ports));
	if (!ports)
		return -ENOMEM;
	partition->ports = ports;
	partition->max_ports = max;
	return 0;
}

static int add(struct hv_partition *partition, const struct hv_port *port)
{
	size_t at;
	int ret;

	if (port->connection & ~HV_CONNECTION_ID)
		return -EINVAL;
	pthread_rwlock_wrlock(&partition->ports_lock);
	ret = find(partition, port->connection) ? -EEXIST : grow(partition);
	if (!ret) {
		at = position(partition, port->connection);
		memmove(&partition->ports[at + 1], &partition->ports[at], (partition->nr_ports++ - at) * sizeof(*port));
		partition->ports[at] = *port;
		/* Under the lock, so that an id that is taken never reaches KVM. */
		if (port->eventfd >= 0)
			partition->ports[at].exitless =
				partition->backend->connect(partition, port->connection, port->eventfd) == 0;
	}
	pthread_rwlock_unlock(&partition->ports_lock);
	return ret;
}

int hv_message_port_add(struct hv_partition *partition, uint32_t connection, const struct hv_message_ops *ops,
			void *opaque)
{
	return add(partition,
		   &(struct hv_port){ .connection = connection, .eventfd = -1, .ops = ops, .opaque = opaque });
}

int hv_event_port_add(struct hv_partition *partition, uint32_t connection, int eventfd)
{
	return eventfd < 0 ? -EINVAL
			   : add(partition, &(struct hv_port){ .connection = connection, .eventfd = eventfd });
}

void hv_event_port_remove(struct hv_partition *partition, uint32_t connection)
{
	struct hv_port *port;

	pthread_rwlock_wrlock(&partition->ports_lock);
	port = find(partition, connection);
	if (port && port->eventfd >= 0) {
		if (port->exitless)
			partition->backend->disconnect(partition, connection, port->eventfd);
		partition->nr_ports--;
		memmove(port, port + 1, (size_t)(partition->ports + partition->nr_ports - port) * sizeof(*port));
	}
	pthread_rwlock_unlock(&partition->ports_lock);
}

void hv_ports_destroy(struct hv_partition *partition)
{
	free(partition->ports);
	partition->ports = NULL;
	partition->nr_ports = partition->max_ports = 0;
}

enum hv_status hv_ports_post(struct hv_partition *partition, uint32_t connection, uint32_t type, const void *payload,
			     size_t size)
{
	const struct hv_message_ops *ops = NULL;
	const struct hv_port *port;
	void *opaque = NULL;

	pthread_rwlock_rdlock(&partition->ports_lock);
	port = find(partition, connection);
	if (port) {
		ops = port->ops;
		opaque = port->opaque;
	}
	pthread_rwlock_unlock(&partition->ports_lock);
	/* Not under the lock, whose writers may hold locks that post() takes: such ports are never removed. */
	return ops ? ops->post(opaque, connection, type, payload, size) : HV_STATUS_INVALID_CONNECTION_ID;
}

enum hv_status hv_ports_signal(struct hv_partition *partition, uint32_t connection)
{
	enum hv_status status = HV_STATUS_INVALID_CONNECTION_ID;
	const uint64_t one = 1;
	const struct hv_port *port;

	pthread_rwlock_rdlock(&partition->ports_lock);
	port = find(partition, connection);
	/* An eventfd that is full has been signalled all the same. */
	if (port && port->eventfd >= 0 && (write(port->eventfd, &one, sizeof(one)) == sizeof(one) || errno == EAGAIN))
		status = HV_STATUS_SUCCESS;
	pthread_rwlock_unlock(&partition->ports_lock);
	return status;
}
