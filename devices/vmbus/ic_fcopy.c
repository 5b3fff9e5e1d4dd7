/* SPDX-License-Identifier: MIT */
/*
 * The guest service interface: START names the file, its size and where it goes, WRITE carries up to 6 KiB of it, and
 * COMPLETE closes it; CANCEL makes the guest remove what it has. The guest answers each.
 *
 * One copy is under way at a time, and it does one thing at a time: open the host's file, START, then read and WRITE
 * by turns, COMPLETE. Opening and reading are requests of the loop's ring, so a slow disk stops nobody. What they use
 * (struct host_file) is a piece of memory of its own: when the guest goes away, or the device is destroyed, while one
 * of them is under way, the copy ends at once and the piece is given back when the ring has done with it.
 *
 * The host's file may change meanwhile. What START has promised is what the guest gets: a file that has grown is cut,
 * one that has become shorter ends the copy.
 *
 * When a copy fails after START was sent the order ends at once; the next one waits until the guest has answered
 * CANCEL, too. There is no CANCEL after a START or COMPLETE that the guest itself refused: nothing is open then, and
 * Linux's daemon would close a descriptor that is not the file's any more.
 *
 * Linux's hv_fcopy_daemon takes the path and the name as two strings and makes those folders of the path that are
 * followed by a separator, so the path keeps its last one. Both strings are kept there as UTF-8 in 260 bytes, and cut
 * if longer, which must not happen: hence FCOPY_PATH_MAX.
 *
 * Wire structures: Linux include/uapi/linux/hyperv.h, struct hv_start_fcopy and hv_do_fcopy.
 */
#include "devices/vmbus/ic_fcopy.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/vmbus/ic.h"
#include "vmm/utf16.h"
#include "vmm/vm.h"

#define NAME	 "fcopy"
#define RETRY_NS 1000000000ULL
#define FRAGMENT 6144 /* DATA_FRAGMENT */
#define MAX_PATH 260  /* W_MAX_PATH */

/* enum hv_fcopy_op */
enum { OP_START, OP_WRITE, OP_COMPLETE, OP_CANCEL };

struct header { /* struct hv_fcopy_hdr */
	uint32_t operation;
	uint8_t services[32]; /* two GUIDs, not used */
};

struct start { /* struct hv_start_fcopy */
	struct header header;
	uint8_t name[2 * MAX_PATH]; /* UTF-16 */
	uint8_t path[2 * MAX_PATH];
	uint32_t flags;
	uint64_t size;
} __attribute__((packed));

struct fragment { /* struct hv_do_fcopy */
	struct header header;
	uint32_t pad;
	uint64_t offset;
	uint32_t size;
	uint8_t data[FRAGMENT];
} __attribute__((packed));
_Static_assert(sizeof(struct start) == 1088 && sizeof(struct fragment) == 6196, "as in Linux's header");

struct copy {
	struct ic_order_head head;
	char *host_path;
	struct start start;
};

struct fcopy;

/* What the ring may be using. */
struct host_file {
	struct loop_op op;
	struct fcopy *owner; /* NULL: nobody waits for it any more */
	bool busy;
	int fd;		 /* -1: not open */
	uint32_t filled; /* bytes of fragment.data */
	char path[PATH_MAX];
	struct fragment fragment;
};

struct fcopy {
	struct ic ic;
	struct ic_orders orders;
	struct copy *current;
	struct host_file *file;
	uint32_t operation; /* OP_* that is to be sent or under way */
	const void *body;   /* its message: in current, file or end */
	size_t body_size;
	struct header end;
	bool wanted, sent;     /* it is to be sent; it is under way */
	uint64_t offset;       /* what the guest has */
	struct ic_timer retry; /* an abandoned request keeps the guest busy */
};

static void pump(struct fcopy *fcopy);
static void answered(struct ic *ic, int error, uint32_t status, const void *body, size_t size);

/* ---- The end of a copy ---- */

static void free_file(struct host_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	munmap(file, sizeof(*file));
}

/* Nobody waits for it any more; it goes when the ring has done with it. */
static void drop_file(struct fcopy *fcopy)
{
	struct host_file *file = fcopy->file;

	fcopy->file = NULL;
	if (!file)
		return;
	file->owner = NULL;
	if (file->busy)
		loop_cancel(&fcopy->ic.vm->loop, &file->op);
	else
		free_file(file);
}

static void free_copy(struct copy *copy)
{
	free(copy->host_path);
	free(copy);
}

/* Ends the current copy. The callback may give new orders, so whoever calls this looks at the state anew. */
static void finish(struct fcopy *fcopy, int error, const char *text)
{
	struct copy *copy = fcopy->current;

	fcopy->current = NULL;
	drop_file(fcopy);
	copy->head.done(copy->head.opaque, error, text);
	free_copy(copy);
}

static void want(struct fcopy *fcopy, uint32_t operation, const void *body, size_t size)
{
	fcopy->operation = operation;
	fcopy->body = body;
	fcopy->body_size = size;
	fcopy->wanted = true;
}

/* COMPLETE or CANCEL */
static void want_end(struct fcopy *fcopy, uint32_t operation)
{
	fcopy->end = (struct header){ .operation = operation };
	want(fcopy, operation, &fcopy->end, sizeof(fcopy->end));
}

/* The copy fails; the guest removes its file. */
static void cancel(struct fcopy *fcopy, int error, const char *text)
{
	want_end(fcopy, OP_CANCEL);
	finish(fcopy, error, text);
}

static void host_failure(struct fcopy *fcopy, int error, const char *what, bool started)
{
	char text[IC_TEXT_MAX];

	snprintf(text, sizeof(text), "%.200s: %s", fcopy->current->host_path, what);
	if (started)
		cancel(fcopy, error, text);
	else
		finish(fcopy, error, text);
}

/* ---- The host's file ---- */

static void next_read(struct fcopy *fcopy)
{
	struct host_file *file = fcopy->file;
	uint64_t left = fcopy->current->start.size - fcopy->offset - file->filled;
	uint32_t room = FRAGMENT - file->filled;
	struct io_uring_sqe *sqe = loop_sqe(&fcopy->ic.vm->loop, &file->op);

	io_uring_prep_read(sqe, file->fd, file->fragment.data + file->filled, left < room ? (uint32_t)left : room,
			   fcopy->offset + file->filled);
	file->busy = true;
}

/* The guest has everything up to offset. */
static void next_fragment(struct fcopy *fcopy)
{
	fcopy->file->filled = 0;
	if (fcopy->offset == fcopy->current->start.size)
		want_end(fcopy, OP_COMPLETE);
	else
		next_read(fcopy);
}

static void opened(struct fcopy *fcopy, int res)
{
	struct stat st;

	if (res < 0) {
		host_failure(fcopy, res, strerror(-res), false);
		return;
	}
	fcopy->file->fd = res;
	if (fstat(res, &st)) {
		res = -errno;
		host_failure(fcopy, res, strerror(-res), false);
	} else if (!S_ISREG(st.st_mode)) {
		host_failure(fcopy, -EINVAL, "not a regular file", false);
	} else {
		fcopy->current->start.size = (uint64_t)st.st_size;
		want(fcopy, OP_START, &fcopy->current->start, sizeof(fcopy->current->start));
	}
}

static void want_write(struct fcopy *fcopy)
{
	struct fragment *fragment = &fcopy->file->fragment;

	fragment->header.operation = OP_WRITE;
	fragment->offset = fcopy->offset;
	fragment->size = fcopy->file->filled;
	want(fcopy, OP_WRITE, fragment, sizeof(*fragment));
}

static void was_read(struct fcopy *fcopy, int res)
{
	struct host_file *file = fcopy->file;

	if (res == -EINTR || res == -EAGAIN) {
		next_read(fcopy);
		return;
	}
	if (res <= 0) {
		host_failure(fcopy, res ? res : -ESTALE, res ? strerror(-res) : "the file has become shorter", true);
		return;
	}
	file->filled += (uint32_t)res;
	if (file->filled < FRAGMENT && fcopy->offset + file->filled < fcopy->current->start.size)
		next_read(fcopy);
	else
		want_write(fcopy);
}

static void file_done(struct loop_op *op, int res, uint32_t cqe_flags)
{
	struct host_file *file = (struct host_file *)((char *)op - offsetof(struct host_file, op));
	struct fcopy *fcopy = file->owner;

	(void)cqe_flags;
	file->busy = false;
	if (!fcopy) {
		if (file->fd < 0 && res >= 0)
			file->fd = res;
		free_file(file);
		return;
	}
	if (file->fd < 0)
		opened(fcopy, res);
	else
		was_read(fcopy, res);
	pump(fcopy);
}

/* O_NONBLOCK: a FIFO without a writer must not hold up one of the kernel's workers. */
static int open_file(struct fcopy *fcopy)
{
	/*
	 * Not from malloc(): if the loop ends while the ring reads, the piece stays until the process ends, and the
	 * kernel may still write to it.
	 */
	struct host_file *file = mmap(NULL, sizeof(*file), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct io_uring_sqe *sqe;

	if (file == MAP_FAILED)
		return -ENOMEM;
	file->fd = -1;
	memcpy(file->path, fcopy->current->host_path, strlen(fcopy->current->host_path));
	file->op.fn = file_done;
	file->owner = fcopy;
	file->busy = true;
	fcopy->file = file;
	sqe = loop_sqe(&fcopy->ic.vm->loop, &file->op);
	io_uring_prep_openat(sqe, AT_FDCWD, file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0);
	return 0;
}

/* ---- The guest ---- */

/* Goes on with the current copy, or begins the next one. */
static void pump(struct fcopy *fcopy)
{
	int ret;

	while (!fcopy->sent) {
		if (fcopy->wanted) {
			ret = ic_request(&fcopy->ic, fcopy->body, fcopy->body_size, IC_ORDER_TIMEOUT, answered);
			if (ret == -EBUSY) {
				ic_timer_set(&fcopy->retry, RETRY_NS);
				return;
			}
			fcopy->wanted = false;
			fcopy->sent = true;
			if (ret)
				answered(&fcopy->ic, ret, 0, NULL, 0);
			continue;
		}
		if (fcopy->current)
			return; /* waits for the file */
		fcopy->current = (struct copy *)ic_orders_take(&fcopy->orders);
		if (!fcopy->current)
			return;
		fcopy->offset = 0;
		ret = fcopy->ic.state == IC_UP ? open_file(fcopy) : -ECONNRESET;
		if (ret)
			finish(fcopy, ret,
			       ret == -ENOMEM ? "out of memory" : "the guest closed the service or was reset");
	}
}

/* The guest refused, did not answer, or went away. */
static void failed(struct fcopy *fcopy, int error, const char *text)
{
	bool open = fcopy->operation == OP_WRITE || (fcopy->operation == OP_START && error == -ETIMEDOUT);

	if (fcopy->operation == OP_CANCEL)
		return; /* its order has ended */
	if (open && fcopy->ic.state == IC_UP)
		cancel(fcopy, error, text);
	else
		finish(fcopy, error, text);
}

static void answered(struct ic *ic, int error, uint32_t status, const void *body, size_t size)
{
	struct fcopy *fcopy = (struct fcopy *)ic;
	char text[IC_TEXT_MAX];

	(void)body;
	(void)size;
	fcopy->sent = false;
	error = ic_order_result(error, status, text);
	if (error) {
		failed(fcopy, error, text);
	} else if (fcopy->operation == OP_START) {
		next_fragment(fcopy);
	} else if (fcopy->operation == OP_WRITE) {
		fcopy->offset += fcopy->file->filled;
		next_fragment(fcopy);
	} else if (fcopy->operation == OP_COMPLETE) {
		finish(fcopy, 0, "");
	}
	pump(fcopy);
}

static void idle(struct ic *ic)
{
	pump((struct fcopy *)ic);
}

static void down(struct ic *ic)
{
	struct fcopy *fcopy = (struct fcopy *)ic;

	ic_timer_stop(&fcopy->retry);
	fcopy->wanted = false;
	if (fcopy->current)
		finish(fcopy, -ECONNRESET, "the guest closed the service or was reset");
	pump(fcopy);
}

static void destroy(struct ic *ic)
{
	struct fcopy *fcopy = (struct fcopy *)ic;

	fcopy->sent = true; /* nothing is sent any more */
	while (fcopy->current || (fcopy->current = (struct copy *)ic_orders_take(&fcopy->orders)))
		finish(fcopy, -ECONNRESET, "the machine has ended");
}

/* ---- For others ---- */

/* Where the file's name begins; NULL if that is no absolute path with a name at its end. */
static const char *split(const char *path)
{
	bool windows = ((path[0] | 0x20) >= 'a' && (path[0] | 0x20) <= 'z') && path[1] == ':' &&
		       (path[2] == '\\' || path[2] == '/');
	const char *name = NULL;

	if (path[0] != '/' && !windows)
		return NULL;
	for (const char *p = path; *p; p++)
		if (*p == '/' || (windows && *p == '\\'))
			name = p + 1;
	if (!name || !*name || !strcmp(name, ".") || !strcmp(name, ".."))
		return NULL;
	return name;
}

static int put_string(uint8_t *to, const char *text, size_t length)
{
	char part[FCOPY_PATH_MAX + 1];
	int ret;

	if (length > FCOPY_PATH_MAX)
		return -ENAMETOOLONG;
	memcpy(part, text, length);
	part[length] = '\0';
	ret = utf16_from_utf8(part, to, 2 * MAX_PATH);
	return ret < 0 ? ret : 0;
}

/* Fills in START but for the size. 0, or -errno and why. */
static int describe(struct copy *copy, const char *host_path, const char *guest_path, unsigned int flags,
		    const char **why)
{
	const char *name = split(guest_path);
	int ret;

	*why = "the host's path is too long";
	if (strlen(host_path) >= PATH_MAX)
		return -ENAMETOOLONG;
	*why = "out of memory";
	copy->host_path = strdup(host_path);
	if (!copy->host_path)
		return -ENOMEM;
	*why = "the guest's path must be absolute and end in a file's name";
	if (!name)
		return -EINVAL;
	*why = "unknown flags";
	if (flags & ~(unsigned int)(FCOPY_OVERWRITE | FCOPY_CREATE_PATH))
		return -EINVAL;
	ret = put_string(copy->start.path, guest_path, (size_t)(name - guest_path));
	if (!ret)
		ret = put_string(copy->start.name, name, strlen(name));
	*why = ret == -EILSEQ ? "the guest's path is not UTF-8" : "the guest's path is too long";
	copy->start.header.operation = OP_START;
	copy->start.flags = flags;
	return ret;
}

void fcopy_start(const struct vm *vm, const char *host_path, const char *guest_path, unsigned int flags,
		 ic_order_fn *done, void *opaque)
{
	struct fcopy *fcopy = (struct fcopy *)ic_order_target(vm, NAME, done, opaque);
	struct copy *copy;
	const char *why;
	int ret;

	if (!fcopy)
		return;
	if (fcopy->orders.count >= FCOPY_QUEUE_MAX) {
		ic_order_fail(done, opaque, -EBUSY, "%d copies are waiting already", FCOPY_QUEUE_MAX);
		return;
	}
	copy = calloc(1, sizeof(*copy));
	if (!copy) {
		ic_order_fail(done, opaque, -ENOMEM, "out of memory");
		return;
	}
	copy->head.done = done;
	copy->head.opaque = opaque;
	ret = describe(copy, host_path, guest_path, flags, &why);
	if (ret) {
		ic_order_fail(done, opaque, ret, "%s", why);
		free_copy(copy);
		return;
	}
	ic_orders_add(&fcopy->orders, &copy->head);
	pump(fcopy);
}

bool fcopy_progress(const struct vm *vm, uint64_t *copied, uint64_t *size)
{
	const struct fcopy *fcopy = (const struct fcopy *)ic_find(vm, NAME);

	if (!fcopy || !fcopy->current)
		return false;
	*copied = fcopy->offset;
	*size = fcopy->current->start.size;
	return true;
}

int ic_fcopy_create(struct vm *vm)
{
	static const struct ic_version versions[] = { { 1, 1 } };
	static const struct ic_class class = {
		/* Linux: HV_FCOPY_GUID; the instance is the one that every Hyper-V machine has. */
		.device = IC_DEVICE(
			NAME, VMBUS_GUID(0x34d14be3, 0xdee4, 0x41c8, 0x9a, 0xe7, 0x6b, 0x17, 0x49, 0x77, 0xc1, 0x92),
			VMBUS_GUID(0xeb765408, 0x105f, 0x49b6, 0xb4, 0xaa, 0xc1, 0x23, 0xb6, 0x4d, 0x17, 0xd4)),
		.type = IC_TYPE_FCOPY,
		.versions = versions,
		.nr_versions = sizeof(versions) / sizeof(versions[0]),
		.up = idle,
		.down = down,
		.idle = idle,
		.destroy = destroy,
	};
	struct fcopy *fcopy = calloc(1, sizeof(*fcopy));

	if (!fcopy)
		return -ENOMEM;
	ic_timer_init(&fcopy->retry, &fcopy->ic, idle);
	return ic_add(vm, &fcopy->ic, &class);
}
