/* SPDX-License-Identifier: MIT */
/*
 * A vhost-user back-end: the input is what it says. The first byte chooses: its answers while a connection is set up
 * and then asked for more, whole and fitting or any bytes in any pieces; or what it asks on its own channel, for the
 * window of shared memory, which is compared with a model after each request. No descriptor is lost, and no call.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/vhost-user/attach.h"
#include "devices/vhost-user/backend.h"
#include "devices/vhost-user/link.h"
#include "devices/vhost-user/shmem.h"
#include "tests/unit/vhost_user_peer.h"

#define PAGE   4096u
#define PAGES  8u /* of the window: regions 0 and 3 of 3 and 5 */
#define ROUNDS 200u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A file of 16 pages, page n of which begins with n + 1. */
static int file = -1;

static void peer_send(int to, const void *data, size_t size, unsigned int nr_fds)
{
	if (size)
		(void)!peer_send_fds(to, data, size, file, nr_fds);
}

/* The last request that has come, if any has. */
static bool peer_hear(int from, struct vhu_header *h, uint8_t *payload)
{
	bool any = false;

	while (recv(from, h, sizeof(*h), MSG_DONTWAIT) == sizeof(*h)) {
		assert(h->size <= VHU_REQUEST_MAX && (h->flags & VHU_VERSION_MASK) == VHU_VERSION);
		assert(!h->size || recv(from, payload, h->size, MSG_DONTWAIT) == h->size);
		any = true;
	}
	return any;
}

/* -- what it answers */

struct calls {
	unsigned int made, done;
};

static void on_done(void *opaque, const struct vhu_call *call, struct vhu_message *reply, int status)
{
	struct calls *c = opaque;

	assert(status == 0 || status == -EIO || (status == -EREMOTEIO && call->may_fail));
	assert(!reply || (reply->header.size <= call->reply_max && reply->nr_fds <= VHU_FDS_MAX));
	c->done++;
	if (reply && reply->nr_fds) {
		close(reply->fds[0]);
		reply->fds[0] = -1;
	}
}

static void ask(struct vhu_link *link, struct calls *calls, uint32_t request, uint32_t min, uint32_t max)
{
	struct vhu_call *c = vhu_link_call(link, request, NULL, 0);

	assert(c);
	c->reply_min = min;
	c->reply_max = max;
	c->may_fail = request == VHU_SET_CONFIG;
	c->done = on_done;
	c->opaque = calls;
	calls->made++;
}

/* Payloads that an honest back-end might send, so that an input need not know them to get further. */
static uint32_t canned(const struct vhu_header *h, const uint8_t *request, uint8_t *to)
{
	struct vhu_shmem_config shmem = { .count = 1, .sizes = { [3] = PAGE } };
	uint64_t value = h->request == VHU_GET_FEATURES		   ? 1ULL << 32 | 1ULL << 30
			 : h->request == VHU_GET_PROTOCOL_FEATURES ? UINT64_MAX
								   : h->request == VHU_GET_QUEUE_NUM;

	if (h->request == VHU_GET_SHMEM_CONFIG) {
		memcpy(to, &shmem, sizeof(shmem));
		return sizeof(shmem);
	}
	if (h->request == VHU_GET_CONFIG) {
		memcpy(to, request, h->size);
		return h->size;
	}
	memcpy(to, &value, sizeof(value));
	return sizeof(value);
}

/* A piece: length, flags, then so many bytes of a payload or, if they need not fit, of the stream. */
static bool say(int peer, const uint8_t **data, size_t *size, bool fit)
{
	uint8_t message[sizeof(struct vhu_header) + VHU_PAYLOAD_MAX], request[VHU_REQUEST_MAX] = { 0 };
	struct vhu_header h = { 0 };
	size_t n;

	if (*size < 3)
		return false;
	n = ((*data)[0] | (size_t)(*data)[1] << 8) % VHU_PAYLOAD_MAX;
	n = n < *size - 3 ? n : *size - 3;
	if (peer_hear(peer, &h, request) && fit) {
		h.flags = VHU_VERSION | VHU_REPLY;
		h.size = (uint32_t)n;
		if (n)
			memcpy(message + sizeof(h), *data + 3, n);
		else if (!((*data)[2] & 0x80))
			h.size = canned(&h, request, message + sizeof(h));
		memcpy(message, &h, sizeof(h));
		peer_send(peer, message, sizeof(h) + h.size, (*data)[2] % 32);
	} else {
		peer_send(peer, *data + 3, n, (*data)[2] % 32);
	}
	*data += 3 + n;
	*size -= 3 + n;
	return true;
}

static void check_info(const struct vhu_info *info)
{
	uint64_t sum = 0;

	assert(!(info->protocol & ~info->offered) && !vhu_has(info, VHU_PF_GPA_ADDRESSES));
	assert(!vhu_has(info, VHU_PF_SHMEM) || vhu_has(info, VHU_PF_BACKEND_REQ));
	assert(info->config_size <= VHU_CONFIG_MAX && info->shmem.nr_regions <= VIRTIO_SHM_MAX);
	for (unsigned int i = 0; i < info->shmem.nr_regions; i++) {
		assert(info->shmem.regions[i].offset == sum && info->shmem.regions[i].length % PAGE == 0);
		sum += info->shmem.regions[i].length;
	}
	assert(sum == info->shmem.size && sum <= VHU_SHMEM_MAX);
}

static void fuzz_link(const uint8_t *data, size_t size, bool fit, bool inband)
{
	struct vhu_backend backend = { 0 };
	struct calls calls = { 0 };
	struct vhu_info info;
	struct vhu_link link;
	struct vhu_attach a = { .link = &link,
				.info = &info,
				.backend = &backend,
				.config_size = 256,
				.config_probe = true,
				.inband = inband };
	uint64_t now = 0;
	int pair[2];

	assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	vhu_channel_init(&backend.channel, -1);
	vhu_link_init(&link, &calls, 1000);
	vhu_link_start(&link, pair[0]);
	vhu_attach_begin(&a);
	while (vhu_link_run(&link, ++now) && say(pair[1], &data, &size, fit))
		;
	if (a.done)
		check_info(&info);
	if (a.done && link.alive) {
		ask(&link, &calls, VHU_GET_INFLIGHT_FD, VHU_INFLIGHT_MIN, sizeof(struct vhu_inflight));
		ask(&link, &calls, VHU_SET_CONFIG, 0, 0);
		ask(&link, &calls, 0, 0, 0);
		ask(&link, &calls, VHU_GET_VRING_BASE, 8, 8);
		while (vhu_link_run(&link, ++now) && say(pair[1], &data, &size, fit))
			;
	}
	/* A deadline ends what is left. */
	vhu_link_run(&link, now + 2000);
	assert(!link.first || !link.alive);
	vhu_link_stop(&link, "the end");
	assert(!link.first && calls.done == calls.made && link.why[0]);
	vhu_channel_close(&backend.channel);
	close(pair[1]);
}

/* -- what it asks */

struct window {
	struct vhu_shmem s;
	uint8_t pages[PAGES]; /* which page of the file is there, + 1 */
	unsigned int asked, refused;
};

static uint64_t place(const struct vhu_mmap *m)
{
	return (m->shm_offset / PAGE) + (m->shmid ? 3 : 0);
}

static int on_map(void *opaque, const struct vhu_mmap *m, int fd, const char **why)
{
	struct window *w = opaque;
	int ret = vhu_shmem_map(&w->s, m, fd, why);

	assert(ret == 0 || *why);
	for (uint64_t i = 0; !ret && i < m->length / PAGE; i++) {
		assert(place(m) + i < PAGES && !w->pages[place(m) + i]);
		w->pages[place(m) + i] = (uint8_t)(m->fd_offset / PAGE + i + 1);
	}
	w->asked++;
	return ret;
}

static int on_unmap(void *opaque, const struct vhu_mmap *m, const char **why)
{
	struct window *w = opaque;
	int ret = vhu_shmem_unmap(&w->s, m, why);

	assert(ret == 0 || *why);
	for (uint64_t i = 0; !ret && i < m->length / PAGE; i++) {
		assert(w->pages[place(m) + i]);
		w->pages[place(m) + i] = 0;
	}
	w->asked++;
	return ret;
}

static void on_refused(void *opaque, bool unmap, const char *why)
{
	(void)unmap;
	((struct window *)opaque)->refused++;
	assert(*why);
}

static void on_change(void *opaque)
{
	((struct window *)opaque)->asked++;
}

static int on_queue(void *opaque, uint32_t queue)
{
	((struct window *)opaque)->asked++;
	return queue < 4 ? 0 : -EINVAL;
}

static const struct vhu_backend_ops ops = { on_change, on_queue, on_queue, on_map, on_unmap, on_refused };

static void check_window(const struct window *w)
{
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vhu_shmem_read(&w->s, i * PAGE, 8) == (w->pages[i] ? w->pages[i] : UINT64_MAX));
}

/* A request of small numbers by six bytes, which often makes sense; or bytes as they are. */
static size_t compose(const uint8_t *data, size_t size, uint8_t *message)
{
	const struct vhu_header h = { data[0] & 1 ? 9 : 10, VHU_VERSION | VHU_NEED_REPLY, sizeof(struct vhu_mmap) };
	struct vhu_mmap m = { 0 };

	if (size < 6 || !(data[0] & 2)) {
		memcpy(message, data, size);
		return size;
	}
	m.shmid = data[1] % 4 * 3 % 4;
	m.fd_offset = (uint64_t)(data[2] % 16) * PAGE;
	m.shm_offset = (uint64_t)(data[3] % 6) * PAGE + (data[3] > 250);
	m.length = (uint64_t)(data[4] % 6) * PAGE;
	m.flags = data[5] % 3;
	memcpy(message, &h, sizeof(h));
	memcpy(message + sizeof(h), &m, sizeof(m));
	return sizeof(h) + sizeof(m);
}

static void fuzz_backend(const uint8_t *data, size_t size)
{
	const struct vhu_shmem_config config = { .count = 2, .sizes = { [0] = 3 * PAGE, [3] = 5 * PAGE } };
	struct window w = { 0 };
	struct vhu_backend b = { .ops = &ops, .opaque = &w, .reply_ack = true };
	const char *why = NULL;
	int pair[2], events = POLLIN;

	assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	vhu_channel_init(&b.channel, pair[0]);
	assert(vhu_shmem_check(&config, &w.s, &why) == 0 && vhu_shmem_reserve(&w.s) == 0);
	for (unsigned int i = 0; i < ROUNDS && size > 2 && events > 0; i++) {
		uint8_t message[256], answers[256];
		size_t n = 1 + data[0] % 64;

		n = n < size - 1 ? n : size - 1;
		peer_send(pair[1], message, compose(data + 1, n, message),
			  data[0] & 0x40   ? 1
			  : data[0] & 0x80 ? 20
					   : 0);
		data += n + 1;
		size -= n + 1;
		events = vhu_backend_serve(&b, 8, &why);
		assert(events == POLLIN || events == POLLOUT || (events < 0 && (events != -EPROTO || why)));
		check_window(&w);
		while (recv(pair[1], answers, sizeof(answers), MSG_DONTWAIT) > 0)
			;
	}
	vhu_shmem_unmap_all(&w.s);
	memset(w.pages, 0, sizeof(w.pages));
	check_window(&w);
	vhu_shmem_destroy(&w.s);
	vhu_channel_close(&b.channel);
	close(pair[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd, after;

	if (file < 0) {
		file = memfd_create("fuzz", MFD_CLOEXEC);
		assert(file >= 0 && ftruncate(file, 16 * PAGE) == 0);
		for (uint64_t i = 0; i < 16; i++)
			assert(pwrite(file, &(uint64_t){ i + 1 }, 8, (off_t)(i * PAGE)) == 8);
	}
	fd = dup(0);
	close(fd);
	if (!size)
		return 0;
	if (data[0] & 1)
		fuzz_backend(data + 1, size - 1);
	else
		fuzz_link(data + 1, size - 1, data[0] & 2, data[0] & 4);
	/* No descriptor is left behind. */
	after = dup(0);
	assert(after == fd);
	close(after);
	return 0;
}
