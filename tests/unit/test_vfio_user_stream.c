/* SPDX-License-Identifier: MIT */
/* vfio-user without a machine: the socket's end, its descriptors, and what a server may ask. */
#include "vfio_user_fake.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include "devices/vfio-user/file.h"
#include "devices/vfio-user/serve.h"

static const char *why;

struct fixture {
	struct memory memory;
	uint8_t ram[RAM_SIZE];
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->memory = make_memory(f->ram);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	free(*state);
	return 0;
}

static int count_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* What a server may send for a file. */
static void files(void **state)
{
	char name[] = "/tmp/vmm-test.XXXXXX";
	int fd = memfd_create("file", MFD_CLOEXEC), file = mkstemp(name), event = eventfd(0, 0), pair[2];

	(void)state;
	unlink(name);
	assert_int_equal(ftruncate(fd, 12345), 0);
	assert_int_equal(ftruncate(file, 54321), 0);
	assert_int_equal(pipe(pair), 0);
	assert_int_equal(vfu_file_size(fd), 12345);
	assert_int_equal(vfu_file_size(file), 54321);
	assert_int_equal(vfu_file_size(event), 0);
	assert_int_equal(vfu_file_size(pair[0]), 0);
	assert_int_equal(vfu_file_size(-1), 0);
	assert_true(vfu_is_eventfd(event));
	assert_false(vfu_is_eventfd(fd));
	assert_false(vfu_is_eventfd(-1));
	close(fd);
	close(file);
	close(event);
	close(pair[0]);
	close(pair[1]);
}

/*
 * A file system that nobody serves: fuse(4), with a file for its root, which a path descriptor finds without a
 * question. Whoever asked for its size would wait for ever.
 */
static void fuse(void **state)
{
	char name[] = "/tmp/vmm-test.XXXXXX", options[96];
	int device = open("/dev/fuse", O_RDWR | O_CLOEXEC), fd = mkstemp(name);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	snprintf(options, sizeof(options), "fd=%d,rootmode=100600,user_id=0,group_id=0", device);
	if (device < 0 || mount("test", name, "fuse", 0, options) < 0) {
		print_message("skipped: FUSE cannot be mounted here\n");
	} else {
		fd = open(name, O_PATH | O_CLOEXEC);
		assert_true(fd >= 0);
		alarm(60);
		assert_int_equal(vfu_file_size(fd), 0);
		alarm(0);
		close(fd);
		umount2(name, MNT_DETACH);
	}
	if (device >= 0)
		close(device);
	unlink(name);
}

static void send_fds(int to, const void *data, size_t size, unsigned int count)
{
	char control[CMSG_SPACE(64 * sizeof(int))] = { 0 };
	struct iovec iov = { (void *)data, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c = (struct cmsghdr *)control;

	if (count) {
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(count * sizeof(int));
		for (unsigned int i = 0; i < count; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &to, sizeof(int));
	}
	assert_int_equal(sendmsg(to, &msg, MSG_NOSIGNAL), size);
}

/* In pieces of every size, with descriptors or not, none of which is left behind. */
static void pieces(void **state)
{
	uint8_t data[3 * 64];
	int before = count_fds();

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		struct vfu_header h = { .id = (uint16_t)(i + 1), .size = 64 };

		memset(data + 64 * i, (int)i, 64);
		memcpy(data + 64 * i, &h, sizeof(h));
	}
	for (size_t piece = 1; piece <= sizeof(data); piece++) {
		for (unsigned int fds = 0; fds <= 40; fds += 20) {
			struct vfu_stream s;
			unsigned int got = 0;
			int pair[2];

			assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
			vfu_stream_init(&s, pair[0]);
			s.with_fds = piece & 1;
			for (size_t at = 0; at < sizeof(data); at += piece) {
				struct vfu_message m;
				int n;

				send_fds(pair[1], data + at, sizeof(data) - at < piece ? sizeof(data) - at : piece,
					 fds);
				do {
					while (vfu_stream_next(&s, &m, &why) == 1) {
						assert_int_equal(m.header.id, ++got);
						assert_int_equal(m.size, 48);
						assert_int_equal(m.payload[47], got - 1);
						vfu_stream_done(&s, &m);
					}
					n = vfu_stream_recv(&s, MSG_DONTWAIT);
				} while (n > 0);
				assert_int_equal(n, -EAGAIN);
			}
			assert_int_equal(got, 3);
			close(pair[1]);
			assert_int_equal(vfu_stream_recv(&s, MSG_DONTWAIT), 0);
			vfu_stream_close(&s);
		}
	}
	assert_int_equal(count_fds(), before);
}
/* A peer that does not read: what has to wait waits, and nothing is lost. */
static void full(void **state)
{
	static uint8_t big[VFU_DATA_MAX], got[VFU_DATA_MAX + 16];
	struct vfu_header h = { .size = sizeof(h) + sizeof(big) };
	struct iovec iov[2] = { { &h, sizeof(h) }, { big, sizeof(big) } };
	struct vfu_stream s;
	size_t used = 0;
	int pair[2];

	(void)state;
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (uint8_t)(i * 7);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	vfu_stream_init(&s, pair[0]);
	assert_int_equal(vfu_stream_send(&s, iov, 2, NULL, 0, false), 0);
	assert_true(vfu_stream_waiting(&s));
	assert_int_equal(vfu_stream_send(&s, iov, 1, NULL, 0, true), -EAGAIN);
	while (used < sizeof(got)) {
		ssize_t n = recv(pair[1], got + used, sizeof(got) - used, 0);

		assert_true(n > 0);
		used += (size_t)n;
		assert_true(vfu_stream_flush(&s) <= 0);
	}
	assert_memory_equal(got + 16, big, sizeof(big));
	assert_false(vfu_stream_waiting(&s));
	close(pair[1]);
	assert_int_equal(vfu_stream_send(&s, iov, 1, NULL, 0, true), -EPIPE);
	vfu_stream_close(&s);
}

/* What a server asks for, answered to the byte. */
static ssize_t answer(int fd, struct vfu_header *h, uint8_t *payload)
{
	ssize_t n = recv(fd, h, sizeof(*h), MSG_DONTWAIT);

	if (n != sizeof(*h))
		return -1;
	assert_int_equal(h->id, 9);
	assert_int_equal(h->flags & VFU_TYPE, VFU_TYPE_REPLY);
	n = h->size - (ssize_t)sizeof(*h);
	assert_true(n <= 256);
	assert_int_equal(n ? recv(fd, payload, (size_t)n, MSG_DONTWAIT | MSG_WAITALL) : 0, n);
	return n;
}

static void serving(void **state)
{
	struct {
		struct vfu_dma_access access;
		uint8_t data[8];
	} dma = { { 0x1000, 8 }, "abcdefg" };
	struct fixture *f = *state;
	struct vfu_header h;
	struct vfu_stream s;
	uint8_t payload[256];
	int pair[2];
	const struct {
		uint64_t address, count;
		int error;
	} bad[] = {
		{ RAM_SIZE, 1, EFAULT },  { RAM_SIZE - 1, 2, EFAULT },	  { UINT64_MAX, 8, EFAULT },
		{ 0, 0, EINVAL },	  { 0, VFU_DATA_MAX + 1, E2BIG }, { 0, 1ULL << 48, E2BIG },
		{ 0, UINT64_MAX, E2BIG },
	};

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	vfu_stream_init(&s, pair[0]);
	ask(pair[1], VFU_DMA_WRITE, 0, &dma, 24);
	assert_int_equal(vfu_serve_stream(&s, &f->memory, 9, &why), POLLIN);
	assert_int_equal(answer(pair[1], &h, payload), 16);
	assert_memory_equal(payload, &dma, 16);
	assert_memory_equal(f->ram + 0x1000, "abcdefg", 8);
	f->ram[0x1000] = 'x';
	ask(pair[1], VFU_DMA_READ, 0, &dma, 16);
	assert_int_equal(vfu_serve_stream(&s, &f->memory, 9, &why), POLLIN);
	assert_int_equal(answer(pair[1], &h, payload), 24);
	assert_memory_equal(payload + 16, "xbcdefg", 8);
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		dma.access = (struct vfu_dma_access){ bad[i].address, bad[i].count };
		ask(pair[1], VFU_DMA_READ, 0, &dma, 16);
		assert_int_equal(vfu_serve_stream(&s, &f->memory, 9, &why), POLLIN);
		assert_int_equal(answer(pair[1], &h, payload), 0);
		assert_true(h.flags & VFU_ERROR);
		assert_int_equal(h.error, bad[i].error);
	}
	ask(pair[1], 99, 0, NULL, 0);
	ask(pair[1], 99, VFU_NO_REPLY, NULL, 0);
	assert_int_equal(vfu_serve_stream(&s, &f->memory, 9, &why), POLLIN);
	assert_int_equal(answer(pair[1], &h, payload), 0);
	assert_int_equal(h.error, ENOSYS);
	assert_int_equal(answer(pair[1], &h, payload), -1);
	ask(pair[1], VFU_DMA_READ, VFU_TYPE_REPLY, &dma, 16);
	assert_int_equal(vfu_serve_stream(&s, &f->memory, 9, &why), -EPROTO);
	close(pair[1]);
	vfu_stream_close(&s);
}

/* A flood of questions by one who does not read the answers: they stay in his socket. */
static void flood(void **state)
{
	struct vfu_dma_access access = { 0, RAM_SIZE };
	struct fixture *f = *state;
	struct vfu_header h = { .id = 9, .command = VFU_DMA_READ, .size = sizeof(h) + sizeof(access) };
	uint8_t data[sizeof(h) + sizeof(access)], drain[65536];
	struct vfu_stream s;
	unsigned int sent = 0;
	size_t got = 0;
	int pair[2], events = POLLIN;

	memcpy(data, &h, sizeof(h));
	memcpy(data + sizeof(h), &access, sizeof(access));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	vfu_stream_init(&s, pair[0]);
	while (sent < 5000 && send(pair[1], data, sizeof(data), MSG_DONTWAIT) == sizeof(data)) {
		sent++;
		events = vfu_serve_stream(&s, &f->memory, 100, &why);
		assert_true(events > 0);
	}
	assert_true(sent > 10 && sent < 5000);
	assert_int_equal(events & POLLIN, 0);
	assert_true(s.out_size < 2 * VFU_MESSAGE_MAX && s.in_size < 2 * VFU_MESSAGE_MAX);
	for (;;) {
		ssize_t n = recv(pair[1], drain, sizeof(drain), MSG_DONTWAIT);

		got += n > 0 ? (size_t)n : 0;
		assert_true(vfu_serve_stream(&s, &f->memory, 100, &why) > 0);
		if (n <= 0 && !vfu_stream_waiting(&s))
			break;
	}
	assert_int_equal(got, (size_t)sent * (sizeof(data) + RAM_SIZE));
	close(pair[1]);
	vfu_stream_close(&s);
}
int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files),
		cmocka_unit_test(fuse),
		cmocka_unit_test(pieces),
		cmocka_unit_test(full),
		cmocka_unit_test_setup_teardown(serving, set_up, tear_down),
		cmocka_unit_test_setup_teardown(flood, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
