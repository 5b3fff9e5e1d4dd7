/* SPDX-License-Identifier: MIT */
/*
 * The integration services. The input is a list of things that guest, host and time do to the six devices: packets of
 * any kind, answers that fit the last request but say anything, orders of the host's. Whatever it is, nothing is read
 * past a packet, no order is forgotten or ended twice, and after a reset the next guest finds each service working.
 */
#include <sys/mman.h>

#include "devices/vmbus/ic_fcopy.h"
#include "devices/vmbus/ic_heartbeat.h"
#include "devices/vmbus/ic_kvp.h"
#include "devices/vmbus/ic_shutdown.h"
#include "devices/vmbus/ic_timesync.h"
#include "devices/vmbus/ic_vss.h"
#include "tests/fuzz/input.h"
#include "tests/unit/ic_fake.h"
#include "vmm/options.h"

#define SERVICES 6

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct orders {
	unsigned int given, done;
} orders;

/* At most max bytes of the input, where they are. */
static size_t span(struct input *in, const uint8_t **data, size_t max)
{
	size_t n = byte(in) | (size_t)byte(in) << 8;

	if (n > max)
		n = max;
	*data = in->at;
	return skip(in, n);
}

/* A string of the input, to be freed. */
static char *text(struct input *in)
{
	const uint8_t *data;
	size_t n = span(in, &data, 64);
	char *s = calloc(1, n + 1);

	assert(s);
	memcpy(s, data, n);
	return s;
}

static void order_done(void *opaque, int error, const char *words)
{
	(void)opaque;
	assert(error <= 0 && words && !strchr(words, '\n'));
	orders.done++;
}

static void list_done(void *opaque, int error, const char *words, const struct kvp_item *items, size_t count)
{
	assert(error ? !count : count <= KVP_ITEMS_MAX);
	for (size_t i = 0; i < count; i++)
		assert(strlen(items[i].key) < 2048 && strlen(items[i].value) < 4096);
	order_done(opaque, error, words);
}

static void copy_file(struct input *in)
{
	char *guest_path = text(in), host_path[32];
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	assert(fd >= 0 && !ftruncate(fd, byte(in) * 100));
	snprintf(host_path, sizeof(host_path), "/proc/self/fd/%d", fd);
	orders.given++;
	fcopy_start(&fake.vm, host_path, guest_path, byte(in) & 3, order_done, NULL);
	fake_run_files(); /* opens it, if it has come to that */
	close(fd);
	free(guest_path);
}

static void order_kvp(struct input *in, uint8_t what)
{
	char *key = text(in), *value = text(in);
	unsigned int pool = byte(in) % (KVP_POOLS + 1);

	orders.given++;
	switch (what % 4) {
	case 0:
		kvp_get(&fake.vm, pool, key, order_done, NULL);
		break;
	case 1:
		kvp_set(&fake.vm, pool, key, value, order_done, NULL);
		break;
	case 2:
		kvp_delete(&fake.vm, pool, key, order_done, NULL);
		break;
	default:
		kvp_list(&fake.vm, pool, list_done, NULL);
	}
	free(key);
	free(value);
}

static void order(struct input *in)
{
	struct ic_heartbeat_status heart;
	uint8_t what = byte(in);

	switch (what % 8) {
	case 0:
		ic_shutdown_request(&fake.vm, byte(in));
		break;
	case 1:
		ic_timesync_sync(&fake.vm);
		break;
	case 2:
		ic_heartbeat_get(&fake.vm, &heart);
		assert(heart.state <= IC_HEARTBEAT_LOST && heart.application <= IC_APPLICATION_STOPPED);
		break;
	case 3:
		orders.given++;
		vss_freeze(&fake.vm, order_done, NULL);
		break;
	case 4:
		orders.given++;
		vss_thaw(&fake.vm, order_done, NULL);
		assert(vss_state_name(vss_state(&fake.vm)));
		break;
	case 5:
		copy_file(in);
		break;
	default:
		order_kvp(in, what >> 3);
	}
}

static int send_raw(struct ic *ic, struct input *in)
{
	uint16_t type = byte(in) & 1 ? VMBUS_PACKET_INBAND : byte(in);
	const uint8_t *data;
	size_t n = span(in, &data, IC_PACKET_MAX - 24);

	return fake_packet(ic, type, data, n);
}

/* An answer to the service's last message, with its transaction; the rest is the input's. */
static int send_answer(struct ic *ic, struct input *in)
{
	const struct fake_packet *last = &ic->device.channel->last;
	struct fake_packet packet = *last;
	struct ic_header header;
	const uint8_t *data;
	size_t n = span(in, &data, IC_BODY_MAX), at = byte(in);

	memcpy(&header, packet.payload + sizeof(struct ic_pipe_header), sizeof(header));
	header.flags = IC_FLAG_TRANSACTION | IC_FLAG_RESPONSE;
	header.status = byte(in) & 3 ? 0 : IC_E_FAIL + byte(in);
	memcpy(packet.payload + sizeof(struct ic_pipe_header), &header, sizeof(header));
	if (n > last->size - HEADERS)
		n = last->size - HEADERS;
	if (at > last->size - HEADERS - n)
		at = 0;
	if (n)
		memcpy(packet.payload + HEADERS + at, data, n);
	return fake_packet(ic, VMBUS_PACKET_INBAND, packet.payload, packet.size);
}

static int send_choice(struct ic *ic, size_t version)
{
	const struct ic_version *v = &ic->class->versions[version % ic->class->nr_versions];
	const uint16_t body[] = { 1, 1, 0, 0, 3, 0, v->major, v->minor };

	fake.last = ic->device.channel->last;
	return answer(ic, IC_S_OK, body, sizeof(body));
}

static void open_service(struct ic *ic, uint8_t version)
{
	if (!ic->device.channel->open && !fake_open(ic) && version && send_choice(ic, version))
		fake_close(ic);
}

/* One thing that happens. */
static void step(struct ic *ic, struct input *in)
{
	uint8_t what = byte(in);
	bool open = ic->device.channel->open;
	int ret = 0;

	switch (what & 7) {
	case 0:
		open_service(ic, what >> 3);
		break;
	case 1:
		if (open && what & 0x80)
			fake_close(ic);
		else if (what & 0x40)
			fake_reset(ic);
		break;
	case 2:
		ret = open ? send_raw(ic, in) : 0;
		break;
	case 3:
	case 4:
		ret = open && ic->device.channel->last.size ? send_answer(ic, in) : 0;
		break;
	case 5:
		fake_run((uint64_t)(what >> 3) * (what & 0x80 ? 10 : 1) * SECOND / 2);
		break;
	case 6:
		fake.full = what & 0x20;
		fake.send_error = what & 0x10 ? -EPROTO : 0;
		if (!fake.full && ic->device.channel->open)
			fake_room(ic);
		break;
	default:
		order(in);
	}
	if (ret)
		fake_close(ic);
	assert(!ic->waiting || ic->state == IC_UP);
	assert(ic->device.channel->open || ic->broken || ic->state == IC_CLOSED);
}

/* A new guest finds everything as after power-on. */
static void next_guest(struct ic *const *all)
{
	fake.full = false;
	fake.send_error = 0;
	for (size_t i = 0; i < SERVICES; i++) {
		fake_reset(all[i]);
		assert(all[i]->state == IC_CLOSED && !all[i]->waiting);
		assert(!fake_open(all[i]) && !send_choice(all[i], all[i]->class->nr_versions - 1));
		assert(all[i]->state == IC_UP);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[SERVICES] = { "heartbeat", "shutdown", "timesync", "kvp", "vss", "fcopy" };
	struct input in = { data, size };
	struct config config = { .nr_kvp = 1, .kvp = { "key=value" } };
	struct ic *all[SERVICES];

	orders = (struct orders){ 0 };
	fake_setup();
	fake.vm.config = &config;
	assert(!ic_create_all(&fake.vm));
	for (size_t i = 0; i < SERVICES; i++) {
		all[i] = ic_find(&fake.vm, names[i]);
		assert(all[i]);
		open_service(all[i], (uint8_t)all[i]->class->nr_versions - 1);
	}
	while (in.left)
		step(all[byte(&in) % SERVICES], &in);
	next_guest(all);
	fake_teardown();
	assert(orders.done == orders.given);
	return 0;
}
