/* SPDX-License-Identifier: MIT */
/*
 * What the tests' vhost-user back-end is: a generic device that does what the guest's commands say
 * (vhost_user_test.h), or a disk (virtio 1.2, 5.2), in a file or in memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/servers/vhost_user.h"

#define SECTOR	  512
#define DISK_SIZE (8u << 20)
#define FILL_PAGE 4096u

enum { BLK_IN, BLK_OUT, BLK_FLUSH = 4, BLK_GET_ID = 8 };
enum { BLK_OK, BLK_IOERR, BLK_UNSUPPORTED };

struct blk_header {
	uint32_t type, reserved;
	uint64_t sector;
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* -- buffers of a chain */

/* Takes size bytes off the readable or the writable front of a chain; what is not there counts as zero. */
static size_t gather(struct element *e, bool writable, void *data, size_t size)
{
	size_t done = 0;

	for (unsigned int i = 0; i < e->nr_parts && done < size; i++) {
		struct part *p = &e->parts[i];
		size_t n = p->length < size - done ? p->length : size - done;

		if (p->writable != writable)
			continue;
		if (writable)
			memcpy(p->data, (uint8_t *)data + done, n);
		else
			memcpy((uint8_t *)data + done, p->data, n);
		p->data += n;
		p->length -= (uint32_t)n;
		done += n;
	}
	if (!writable)
		memset((uint8_t *)data + done, 0, size - done);
	return done;
}

/* -- the generic device */

static uint64_t info(struct server *s, uint64_t what, uint64_t queue)
{
	const struct queue *q = &s->queues[queue < MAX_QUEUES ? queue : 0];
	uint64_t bits = 0;

	switch (what) {
	case VUT_INFO_KICKS:
		return q->kicks;
	case VUT_INFO_RESETS:
		return s->resets;
	case VUT_INFO_STATUS:
		return s->status;
	case VUT_INFO_FEATURES:
		return s->acked;
	case VUT_INFO_PROTOCOL:
		return s->acked_protocol;
	case VUT_INFO_REGIONS:
		return s->nr_regions;
	case VUT_INFO_ENABLED:
	case VUT_INFO_STARTED:
		for (unsigned int i = 0; i < MAX_QUEUES; i++) {
			bool on = what == VUT_INFO_ENABLED ? s->queues[i].enabled : s->queues[i].started;

			bits |= (uint64_t)on << i;
		}
		return bits;
	case VUT_INFO_STOPS:
		return q->stops;
	case VUT_INFO_FAULTS:
		return s->faults;
	case VUT_INFO_CONNECTIONS:
		return s->connections;
	case VUT_INFO_RECOVERED:
		return s->recovered;
	case VUT_INFO_SIZE:
		return q->size;
	case VUT_INFO_CONFIG_WRITES:
		return s->config_writes;
	case VUT_INFO_HELD:
		return s->nr_held;
	default:
		return UINT64_MAX;
	}
}

static int file_of(const struct server *s, const struct vut_command *c)
{
	return c->file < VUT_FILES ? s->files[c->file] : -1;
}

static uint32_t map(struct server *s, uint32_t request, const struct vut_command *c)
{
	struct mmap_request m = { .shmid = (uint8_t)c->a[0],
				  .fd_offset = c->a[1],
				  .shm_offset = c->a[2],
				  .length = c->a[3],
				  .flags = c->a[0] >> 8 };
	int fd = file_of(s, c);

	return ask(s, request, &m, sizeof(m), &fd, request == SHMEM_MAP && fd >= 0 ? 1 : 0, true);
}

static void churn(struct server *s, const struct vut_command *c, struct vut_answer *answer)
{
	struct vut_command one = { .file = c->file, .a = { (c->a[0] & 0xff) | 1 << 8, 0, c->a[2], c->a[3] } };

	for (uint64_t i = 0; i < c->a[1]; i++) {
		one.a[1] = i % 2 ? c->a[3] : 0;
		answer->value += map(s, SHMEM_MAP, &one) != 0;
		answer->value += map(s, SHMEM_UNMAP, &one) != 0;
	}
}

/* Page n of the region gets page n of the file, again and again from its first on. */
static void fill(struct server *s, const struct vut_command *c, struct vut_answer *answer)
{
	for (; answer->value < c->a[1]; answer->value++) {
		uint64_t at = answer->value * FILL_PAGE;
		struct vut_command one = {
			.file = c->file, .a = { (c->a[0] & 0xff) | 1 << 8, at % VUT_FILE_SIZE, c->a[2] + at, FILL_PAGE }
		};

		if (map(s, SHMEM_MAP, &one))
			break;
	}
}

static void raw(struct server *s, const struct vut_command *c, struct element *e, struct vut_answer *answer)
{
	uint8_t data[MAX_PAYLOAD];
	int fds[MAX_FDS];
	size_t size = 0;

	for (unsigned int i = 0; i < e->nr_parts; i++)
		size += e->parts[i].writable ? 0 : e->parts[i].length;
	if (size > sizeof(data) || c->a[0] > MAX_FDS) {
		answer->status = E2BIG;
		return;
	}
	gather(e, false, data, size);
	for (unsigned int i = 0; i < c->a[0]; i++)
		fds[i] = file_of(s, c);
	answer->status = ask_raw(s, data, size, fds, (unsigned int)c->a[0], c->a[1], c->a[2]);
}

static uint64_t *word(struct server *s, const struct vut_command *c)
{
	struct stat st;

	if (c->file >= VUT_FILES || !s->contents[c->file] || c->a[0] % 8 || fstat(s->files[c->file], &st) < 0 ||
	    c->a[0] + 8 > (uint64_t)st.st_size)
		return NULL;
	return (uint64_t *)(void *)(s->contents[c->file] + c->a[0]);
}

static void touch(struct server *s, const struct vut_command *c, struct vut_answer *answer)
{
	uint64_t *at = word(s, c);

	if (!at)
		answer->status = EINVAL;
	else if (c->op == VUT_POKE)
		__atomic_store_n(at, c->a[1], __ATOMIC_RELEASE);
	else
		answer->value = __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

static void read_ram(struct server *s, const struct vut_command *c, struct vut_answer *answer)
{
	const uint8_t *at = guest_memory(s, c->a[0], 8);

	if (at)
		memcpy(&answer->value, at, 8);
	else
		answer->status = EFAULT;
}

/* What a back-end must not be able to do to the guest. */
static uint32_t shrink_ram(struct server *s)
{
	if (!s->nr_regions)
		return ENOENT;
	return ftruncate(s->regions[0].fd, 4096) < 0 ? (uint32_t)errno : 0;
}

static uint32_t change(struct server *s, uint32_t value)
{
	memcpy(s->config + VUT_CFG_CHANGES, &value, 4);
	return ask(s, CONFIG_CHANGE, NULL, 0, NULL, 0, s->acked_protocol >> PF_REPLY_ACK & 1);
}

static void echo(struct element *e, struct vut_answer *answer, uint32_t *extra)
{
	uint8_t block[4096];
	size_t n, total = 0;

	/* The answer's own bytes come first, and are written last: keep their place. */
	struct element rest = *e;

	gather(&rest, true, answer, sizeof(*answer));
	do {
		size_t room = 0, want = 0;

		for (unsigned int i = 0; i < rest.nr_parts; i++) {
			if (rest.parts[i].writable)
				room += rest.parts[i].length;
			else
				want += rest.parts[i].length;
		}
		n = room < want ? room : want;
		n = n < sizeof(block) ? n : sizeof(block);
		gather(&rest, false, block, n);
		gather(&rest, true, block, n);
		total += n;
	} while (n);
	answer->value = total;
	*extra = (uint32_t)total;
}

static void command(struct server *s, const struct vut_command *c, struct element *e, struct vut_answer *answer,
		    uint32_t *extra)
{
	struct queue *other = &s->queues[c->a[0] < MAX_QUEUES ? c->a[0] : 0];
	uint32_t state[2] = { (uint32_t)c->a[0], 0 };

	switch (c->op) {
	case VUT_ECHO:
		echo(e, answer, extra);
		break;
	case VUT_INFO:
		answer->value = info(s, c->a[0], c->a[1]);
		break;
	case VUT_MAP:
	case VUT_UNMAP:
		answer->status = map(s, c->op == VUT_MAP ? SHMEM_MAP : SHMEM_UNMAP, c);
		break;
	case VUT_CHURN:
		churn(s, c, answer);
		break;
	case VUT_FILL:
		fill(s, c, answer);
		break;
	case VUT_RAW:
		raw(s, c, e, answer);
		break;
	case VUT_POKE:
	case VUT_PEEK:
		touch(s, c, answer);
		break;
	case VUT_TRUNCATE:
		answer->status = ftruncate(file_of(s, c), (off_t)c->a[0]) < 0 ? (uint32_t)errno : 0;
		break;
	case VUT_CHANGE:
		answer->status = change(s, (uint32_t)c->a[0]);
		break;
	case VUT_CALL:
		notify(s, other);
		break;
	case VUT_ERROR:
		if (other->err >= 0)
			eventfd_write(other->err, 1);
		else
			ask(s, VRING_ERR, state, sizeof(state), NULL, 0, false);
		break;
	case VUT_RAM:
		read_ram(s, c, answer);
		break;
	case VUT_SHRINK_RAM:
		answer->status = shrink_ram(s);
		break;
	case VUT_MUTE:
		s->mute = true;
		s->deaf = c->a[0];
		break;
	case VUT_HANG_UP:
		if (c->a[0] && s->channel >= 0)
			shutdown(s->channel, SHUT_RDWR);
		else
			s->hang_up = true;
		break;
	case VUT_FAKE_USED:
		push_fake(s, other, (uint16_t)c->a[1], (uint32_t)c->a[2]);
		break;
	case VUT_DIE: /* our predecessor has */
		break;
	default:
		answer->status = ENOSYS;
	}
}

static void answer_one(struct server *s, unsigned int i)
{
	struct vut_answer answer = { .value = s->held[i].recovered };
	struct element *e = &s->held[i].e;

	push(s, &s->queues[s->held[i].queue], e, (uint32_t)gather(e, true, &answer, sizeof(answer)));
}

/* What a queue has in hand ends before it does. */
void device_stop_queue(struct server *s, unsigned int queue)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < s->nr_held; i++) {
		if (s->held[i].queue == queue)
			answer_one(s, i);
		else
			s->held[kept++] = s->held[i];
	}
	s->nr_held = kept;
}

static bool serve_command(struct server *s, struct queue *q, struct element *e)
{
	struct element whole = *e;
	struct vut_answer answer = { 0 };
	struct vut_command c;
	uint32_t extra = 0;

	if (gather(e, false, &c, sizeof(c)) != sizeof(c)) {
		answer.status = EBADMSG;
	} else if (c.op == VUT_DIE && !s->recovered) {
		return false;
	} else if (c.op == VUT_HOLD && s->nr_held < MAX_HELD) {
		s->held[s->nr_held].queue = (unsigned int)(q - s->queues);
		s->held[s->nr_held].recovered = c.a[0] && s->recovered;
		s->held[s->nr_held++].e = *e;
		return true;
	} else if (c.op == VUT_RELEASE) {
		answer.value = s->nr_held;
		while (s->nr_held)
			answer_one(s, --s->nr_held);
	} else {
		command(s, &c, e, &answer, &extra);
	}
	push(s, q, e, (uint32_t)gather(&whole, true, &answer, sizeof(answer)) + extra);
	return true;
}

/* -- the disk */

static uint8_t transfer(struct server *s, const struct blk_header *h, struct element *e, uint32_t *written)
{
	uint64_t at = h->sector * SECTOR;

	for (unsigned int i = 0; i < e->nr_parts; i++) {
		struct part *p = &e->parts[i];
		uint64_t end = s->sectors * SECTOR;

		if (p->writable != (h->type == BLK_IN) || !p->length)
			continue;
		if (h->sector > s->sectors || at > end || p->length > end - at || p->length % SECTOR)
			return BLK_IOERR;
		ssize_t n = h->type == BLK_IN ? pread(s->disk, p->data, p->length, (off_t)at)
					      : pwrite(s->disk, p->data, p->length, (off_t)at);
		if (n != (ssize_t)p->length)
			return BLK_IOERR;
		at += p->length;
		*written += h->type == BLK_IN ? p->length : 0;
	}
	return BLK_OK;
}

static bool serve_block(struct server *s, struct queue *q, struct element *e)
{
	char id[20] = "vhost-user test disk";
	struct part *last = &e->parts[e->nr_parts - 1];
	uint32_t written = 0;
	struct blk_header h;
	uint8_t status;

	if (s->die_after && ++s->served > s->die_after)
		return false;
	if (gather(e, false, &h, sizeof(h)) != sizeof(h) || !last->writable || !last->length) {
		push(s, q, e, 0);
		return true;
	}
	uint8_t *status_at = last->data + --last->length;
	switch (h.type) {
	case BLK_IN:
	case BLK_OUT:
		status = transfer(s, &h, e, &written);
		break;
	case BLK_FLUSH:
		status = fdatasync(s->disk) < 0 && errno != EINVAL ? BLK_IOERR : BLK_OK;
		break;
	case BLK_GET_ID:
		written = (uint32_t)gather(e, true, id, sizeof(id));
		status = BLK_OK;
		break;
	default:
		status = BLK_UNSUPPORTED;
	}
	*status_at = status;
	push(s, q, e, written + 1);
	return true;
}

bool device_serve(struct server *s, struct queue *q, struct element *e)
{
	return s->block ? serve_block(s, q, e) : serve_command(s, q, e);
}

/* -- making them */

static void make_disk(struct server *s, const char *path)
{
	uint32_t size_max = 1 << 20;
	struct stat st;

	s->disk = path ? open(path, O_RDWR | O_CLOEXEC) : memfd_create("disk", MFD_CLOEXEC);
	if (s->disk < 0 || (!path && ftruncate(s->disk, DISK_SIZE) < 0) || fstat(s->disk, &st) < 0)
		die(path ? path : "disk");
	s->sectors = (uint64_t)st.st_size / SECTOR;
	memcpy(s->config, &s->sectors, 8);
	memcpy(s->config + 8, &size_max, 4);
	s->config[34] = (uint8_t)s->nr_queues;
}

static int make_file(struct server *s, enum vut_file file, const char *name, off_t size)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	uint64_t *words;

	if (fd < 0 || ftruncate(fd, size) < 0)
		die(name);
	s->contents[file] = mmap(NULL, VUT_FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (s->contents[file] == MAP_FAILED)
		die(name);
	words = (uint64_t *)(void *)s->contents[file];
	for (uint64_t i = 0; i < (uint64_t)size / 8; i++)
		words[i] = VUT_PATTERN(file, 8 * i);
	s->files[file] = fd;
	return fd;
}

static int reopen(int fd, int how)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, how | O_CLOEXEC);
}

static void make_files(struct server *s)
{
	int pair[2], ends[2], *f = s->files;

	make_file(s, VUT_FILE_A, "a", VUT_FILE_SIZE);
	make_file(s, VUT_FILE_B, "b", VUT_FILE_SIZE);
	make_file(s, VUT_FILE_ODD, "odd", VUT_ODD_SIZE);
	make_file(s, VUT_FILE_SEALED, "sealed", VUT_FILE_SIZE);
	fcntl(f[VUT_FILE_SEALED], F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE);
	f[VUT_FILE_READ_ONLY] = reopen(f[VUT_FILE_A], O_RDONLY);
	f[VUT_FILE_WRITE_ONLY] = reopen(f[VUT_FILE_A], O_WRONLY);
	f[VUT_FILE_NULL] = open("/dev/null", O_RDWR | O_CLOEXEC);
	f[VUT_FILE_ZERO] = open("/dev/zero", O_RDWR | O_CLOEXEC);
	f[VUT_FILE_EVENTFD] = eventfd(0, EFD_CLOEXEC);
	f[VUT_FILE_DIRECTORY] = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 || pipe2(ends, O_CLOEXEC) < 0)
		die("files");
	f[VUT_FILE_SOCKET] = pair[0];
	f[VUT_FILE_PIPE] = ends[0];
	for (unsigned int i = 0; i < VUT_FILES; i++)
		if (f[i] < 0)
			die("files");
}

void device_create(struct server *s, const char *path)
{
	uint32_t magic = VUT_MAGIC;

	if (s->block) {
		make_disk(s, path);
		return;
	}
	make_files(s);
	for (unsigned int i = VUT_CFG_BYTES; i < sizeof(s->config); i++)
		s->config[i] = i < VUT_CFG_SIZE ? (uint8_t)(i * 7) : 0;
	memcpy(s->config + VUT_CFG_MAGIC, &magic, 4);
}
