/* SPDX-License-Identifier: MIT */
/* A whole file into guest RAM, as high as it may be: the initrd. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

/* The highest place for size bytes in [floor, limit) outside avoid; 0 if there is none. */
static uint64_t highest(uint64_t size, uint64_t floor, uint64_t limit, uint64_t align, const struct gpa_range *avoid)
{
	uint64_t at;
	int pass;

	for (pass = 0; pass < 2; pass++) {
		if (limit < floor || size > limit - floor)
			return 0;
		at = (limit - size) & ~(align - 1);
		if (at < floor)
			return 0;
		if (at >= avoid->end || at + size <= avoid->start)
			return at;
		limit = avoid->start;
	}
	return 0;
}

/* Up to len bytes at the file's position; fewer only at its end. */
static ssize_t read_fully(int fd, uint8_t *dst, uint64_t len)
{
	uint64_t done = 0;

	while (done < len) {
		ssize_t n = read(fd, dst + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (uint64_t)n;
	}
	return (ssize_t)done;
}

static int too_large(uint64_t size, uint64_t limit, char *err, size_t errlen)
{
	return loader_fail(err, errlen, -ENOMEM, "is too large: no room for %llu MiB beside the kernel below %#llx",
			   (unsigned long long)((size + LOADER_MIB - 1) / LOADER_MIB), (unsigned long long)limit);
}

struct request {
	const struct ram_view *ram;
	uint64_t limit; /* exclusive */
	uint64_t align;
	struct gpa_range avoid;
};

static int place_regular(const struct request *r, int fd, uint64_t size, struct gpa_range *where, char *err,
			 size_t errlen)
{
	uint64_t at = highest(size, LOADER_MIB, r->limit, r->align, &r->avoid);
	ssize_t n;

	if (!at)
		return too_large(size, r->limit, err, errlen);
	n = read_fully(fd, r->ram->host + at, size);
	if (n < 0)
		return loader_fail(err, errlen, (int)n, "read: %s", strerror((int)-n));
	if ((uint64_t)n < size)
		return loader_fail(err, errlen, -EIO, "shrank while it was being read");
	*where = (struct gpa_range){ at, at + size };
	return 0;
}

/* A pipe tells its size by ending: read it to the start of the larger free part, then move it up. */
static int place_stream(const struct request *r, int fd, struct gpa_range *where, char *err, size_t errlen)
{
	struct gpa_range below = { LOADER_MIB, r->limit < r->avoid.start ? r->limit : r->avoid.start };
	struct gpa_range room = { r->avoid.end > LOADER_MIB ? r->avoid.end : LOADER_MIB, r->limit };
	uint64_t at;
	ssize_t n;

	if (room.end < room.start)
		room.end = room.start;
	if (below.end > below.start && below.end - below.start > room.end - room.start)
		room = below;
	if (room.end == room.start)
		return too_large(1, r->limit, err, errlen);
	n = read_fully(fd, r->ram->host + room.start, room.end - room.start);
	if (n < 0)
		return loader_fail(err, errlen, (int)n, "read: %s", strerror((int)-n));
	if (n == 0)
		return loader_fail(err, errlen, -EINVAL, "is empty");
	at = highest((uint64_t)n, room.start, room.end, r->align, &(struct gpa_range){ 0, 0 });
	/* All of the room taken: there may be more in the pipe. */
	if (!at || (uint64_t)n == room.end - room.start)
		return too_large((uint64_t)n, r->limit, err, errlen);
	loader_move_up(r->ram->host + at, r->ram->host + room.start, (size_t)n);
	*where = (struct gpa_range){ at, at + (uint64_t)n };
	return 0;
}

int loader_place_file(const struct ram_view *ram, int fd, uint64_t max, uint64_t align, const struct gpa_range *avoid,
		      struct gpa_range *where, char *err, size_t errlen)
{
	struct request r = { .ram = ram, .limit = max < ram->size ? max + 1 : ram->size, .align = align };
	struct stat st;
	int rc;

	if (avoid->start < avoid->end)
		r.avoid = *avoid;
	if (fstat(fd, &st) < 0)
		rc = loader_fail(err, errlen, -errno, "fstat: %s", strerror(errno));
	else if (S_ISDIR(st.st_mode))
		rc = loader_fail(err, errlen, -EISDIR, "is a directory");
	else if (!S_ISREG(st.st_mode))
		rc = place_stream(&r, fd, where, err, errlen);
	else if (st.st_size == 0)
		rc = loader_fail(err, errlen, -EINVAL, "is empty");
	else
		rc = place_regular(&r, fd, (uint64_t)st.st_size, where, err, errlen);
	return rc;
}
