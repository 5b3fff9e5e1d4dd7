/* SPDX-License-Identifier: MIT */
/*
 * Opening an image: what it is, whether it may be used, and how large its blocks are.
 *
 * O_DIRECT wants addresses, offsets and lengths aligned. The host says how (statx, STATX_DIOALIGN, Linux 6.1); where it
 * does not, a block device's logical block is asked for, and a file is tried. An image whose blocks are smaller than
 * what O_DIRECT takes cannot have it: writing a part of such a unit would need a read before, under a lock.
 *
 * The lock is one of the open file description over the whole file. QEMU holds such locks on single bytes of an image,
 * so the two also keep out of each other's way.
 */
#include "devices/block/block.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "devices/block/internal.h"

#define TRIAL	    4096
#define BEST_MAX    (64u << 10)
#define DEFAULT_RUN 4096u

struct opening {
	const struct block_options *options;
	struct block *block;
	struct stat st;
	char *err;
	size_t errlen;
};

static int fail(struct opening *o, int error, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static int fail(struct opening *o, int error, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(o->err, o->errlen, fmt, ap);
	va_end(ap);
	return error;
}

/* Signatures: QEMU docs/interop (qcow2, parallels), [MS-VHDX] 2.2.1, VHD specification 1.0, VMDK 5.0, QED and VDI by
 * their headers. */
const char *block_foreign_format(const uint8_t *head, size_t size)
{
	static const struct {
		const char *name, *magic;
		size_t offset, length;
	} formats[] = {
		{ "qcow2", "QFI\xfb", 0, 4 },
		{ "vhdx", "vhdxfile", 0, 8 },
		{ "vpc", "conectix", 0, 8 },
		{ "vmdk", "KDMV", 0, 4 },
		{ "vmdk", "COWD", 0, 4 },
		{ "vmdk", "# Disk DescriptorFile", 0, 21 },
		{ "qed", "QED", 0, 4 },
		{ "vdi", "\x7f\x10\xda\xbe", 64, 4 },
		{ "parallels", "WithoutFreeSpace", 0, 16 },
		{ "parallels", "WithouFreSpacExt", 0, 16 },
	};

	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
		if (size >= formats[i].offset + formats[i].length &&
		    !memcmp(head + formats[i].offset, formats[i].magic, formats[i].length))
			return formats[i].name;
	return NULL;
}

static int check_format(struct opening *o)
{
	uint8_t head[BLOCK_HEAD];
	ssize_t n = pread(o->block->fd, head, sizeof(head), 0);
	const char *format = n > 0 ? block_foreign_format(head, (size_t)n) : NULL;

	if (n < 0)
		return fail(o, -errno, "read: %s", strerror(errno));
	if (format)
		return fail(o, -EINVAL,
			    "this is a %s image, and only raw ones are supported; convert it: "
			    "qemu-img convert -f %s -O raw %s NEW.img",
			    format, format, o->options->path);
	return 0;
}

static int lock(struct opening *o)
{
	struct flock fl = { .l_type = o->options->readonly ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET };

	if (!fcntl(o->block->fd, F_OFD_SETLK, &fl))
		return 0;
	/* Some file systems of the network have no locks. */
	if (errno != EAGAIN && errno != EACCES)
		return 0;
	return fail(o, -EBUSY, "is in use by another process, or another --disk%s",
		    o->options->readonly ? " that writes to it" : ": only a readonly=on disk can be shared");
}

/* The part of a queue's description in sysfs that tells whether a device can make zeroes without writing them. */
static bool device_can_punch(dev_t device)
{
	static const char *const places[] = { "", "../" }; /* a partition's queue is that of the disk above it */
	unsigned long long bytes = 0;
	bool found = false;

	for (size_t i = 0; i < 2 && !found; i++) {
		char path[128];
		FILE *f;

		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%squeue/write_zeroes_max_bytes", major(device),
			 minor(device), places[i]);
		f = fopen(path, "re");
		if (!f)
			continue;
		found = fscanf(f, "%llu", &bytes) == 1;
		fclose(f);
	}
	return bytes > 0;
}

static int measure_device(struct opening *o)
{
	struct block_info *info = &o->block->info;
	int logical = 0, readonly = 0;
	unsigned int physical = 0;

	if (ioctl(o->block->fd, BLKGETSIZE64, &info->size) < 0 || ioctl(o->block->fd, BLKSSZGET, &logical) < 0)
		return fail(o, -errno, "cannot learn its size: %s", strerror(errno));
	if (ioctl(o->block->fd, BLKROGET, &readonly) == 0 && readonly && !o->options->readonly)
		return fail(o, -EROFS, "the device is read-only: use readonly=on");
	if (ioctl(o->block->fd, BLKPBSZGET, &physical) < 0)
		physical = 0;
	if (logical > 4096)
		return fail(o, -EINVAL, "has blocks of %d bytes; at most 4096 are supported", logical);
	if ((uint32_t)logical > info->block_size)
		info->block_size = (uint32_t)logical;
	info->best_size = physical;
	info->punch = device_can_punch(o->st.st_rdev);
	o->block->is_device = true;
	info->size -= info->size % info->block_size;
	return 0;
}

static int measure_file(struct opening *o)
{
	struct block_info *info = &o->block->info;
	const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	uint64_t size = (uint64_t)o->st.st_size;

	info->size = (size + info->block_size - 1) / info->block_size * info->block_size;
	/* Network file systems have sizes here that are about something else. */
	info->best_size = o->st.st_blksize > 0 && o->st.st_blksize <= 4096 ? (uint32_t)o->st.st_blksize : 0;
	/* A hole behind the end of the file: nothing happens but the answer. */
	info->punch = !info->readonly && !fallocate(o->block->fd, mode, (off_t)info->size, DEFAULT_RUN);
	return 0;
}

static int measure(struct opening *o)
{
	struct block_info *info = &o->block->info;
	int ret;

	info->block_size = o->options->block_size;
	info->readonly = o->options->readonly;
	if (S_ISREG(o->st.st_mode))
		ret = measure_file(o);
	else if (S_ISBLK(o->st.st_mode))
		ret = measure_device(o);
	else
		return fail(o, -EINVAL, "is neither a file nor a block device");
	if (ret)
		return ret;
	if (!info->size)
		return fail(o, -EINVAL, "is empty; a disk is made with, for example: truncate -s 10G %s",
			    o->options->path);
	if (info->best_size > BEST_MAX)
		info->best_size = BEST_MAX;
	/* A power of two of blocks, as it is told to the guest. */
	if (info->best_size & (info->best_size - 1) || info->best_size < info->block_size)
		info->best_size = info->block_size < DEFAULT_RUN ? DEFAULT_RUN : info->block_size;
	info->punch = info->punch && !info->readonly;
	return 0;
}

/* The smallest read that a file takes: 512 bytes, or 4096, or (0) none. */
static uint32_t try_reads(int fd)
{
	static const uint32_t sizes[] = { 512, TRIAL };
	uint32_t works = 0;
	void *buffer;

	if (posix_memalign(&buffer, TRIAL, TRIAL))
		return 0;
	for (size_t i = 0; i < 2 && !works; i++)
		if (pread(fd, buffer, sizes[i], 0) >= 0)
			works = sizes[i];
	free(buffer);
	return works;
}

static int learn_alignment(struct block *block)
{
	struct statx stx = { 0 };

	block->memory_align = block->offset_align = 0;
#ifdef STATX_DIOALIGN
	if (!statx(block->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) && stx.stx_mask & STATX_DIOALIGN) {
		block->memory_align = stx.stx_dio_mem_align;
		block->offset_align = stx.stx_dio_offset_align;
		return block->memory_align ? 0 : -EOPNOTSUPP;
	}
#endif
	(void)stx;
	block->offset_align = try_reads(block->fd);
	block->memory_align = block->offset_align;
	return block->offset_align ? 0 : -EOPNOTSUPP;
}

static int no_direct(struct opening *o, const char *why)
{
	struct block *block = o->block;

	block->memory_align = block->offset_align = 1;
	if (o->options->direct != BLOCK_DIRECT_ON)
		return 0;
	return fail(o, -EOPNOTSUPP, "direct=on: %s; use direct=off", why);
}

static int set_direct(struct opening *o)
{
	struct block *block = o->block;
	enum block_direct wanted = o->options->direct;
	int flags = fcntl(block->fd, F_GETFL);

	/* Read-only images tend to be shared by several machines, which is what a page cache is for. */
	if (wanted == BLOCK_DIRECT_OFF || (wanted == BLOCK_DIRECT_AUTO && o->options->readonly))
		return no_direct(o, "");
	if (flags < 0 || fcntl(block->fd, F_SETFL, flags | O_DIRECT) < 0)
		return no_direct(o, "its file system does not support it");
	if (learn_alignment(block) || block->offset_align > block->info.block_size || block->memory_align > TRIAL) {
		if (fcntl(block->fd, F_SETFL, flags) < 0)
			return fail(o, -errno, "direct=off: %s", strerror(errno));
		return no_direct(o, "its file system wants larger blocks than the disk has");
	}
	block->info.direct = true;
	return 0;
}

int block_open(struct block **result, struct loop *loop, const struct block_options *options, char *err, size_t errlen)
{
	struct block *block = calloc(1, sizeof(*block));
	struct opening o = { .options = options, .block = block, .err = err, .errlen = errlen };
	int ret = 0;

	if (!block)
		return fail(&o, -ENOMEM, "out of memory");
	block->loop = loop;
	block->fd = open(options->path, (options->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK);
	if (block->fd < 0)
		ret = fail(&o, -errno, "open: %s%s", strerror(errno),
			   errno == EROFS || (errno == EACCES && !options->readonly && !access(options->path, R_OK))
				   ? ": to read only, use readonly=on"
				   : "");
	if (!ret && fstat(block->fd, &o.st) < 0)
		ret = fail(&o, -errno, "stat: %s", strerror(errno));
	if (!ret)
		ret = measure(&o);
	if (!ret)
		ret = lock(&o);
	if (!ret)
		ret = check_format(&o);
	if (!ret)
		ret = set_direct(&o);
	if (ret) {
		block_close(block);
		return ret;
	}
	*result = block;
	return 0;
}

void block_close(struct block *block)
{
	if (!block)
		return;
	if (block->fd >= 0)
		close(block->fd);
	free(block);
}

const struct block_info *block_info(const struct block *block)
{
	return &block->info;
}
