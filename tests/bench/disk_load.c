/* SPDX-License-Identifier: MIT */
/*
 * disk_load - the /init of the benchmark "disk": reads and writes its one disk as it is told on the console.
 *
 * Theory of operation
 *
 * It inserts what is in /modules and says "vmm-bench: ready" when the disk is there. Then each line of the console is a
 * load:
 *
 *	read|write BYTES DEPTH random|sequential COUNT
 *
 * COUNT blocks of BYTES, DEPTH of them under way, O_DIRECT, by an io_uring: all that has completed is taken together,
 * and what replaces it is submitted in the call that waits. The answer is "vmm-bench: done". Before them there are a
 * pause, in which the other side of the console can go to sleep, and WARM blocks more: whoever measures does so with a
 * COUNT of 0 too, and takes the difference. Offsets are the same in every run.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <liburing.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "guest.h"

#define MARK	  "vmm-bench: "
#define DEPTH_MAX 64
#define BYTES_MAX (1u << 20)
#define WARM	  64
#define PAUSE_NS  2000000
#define WAIT_NS	  10000000 /* for the disk, at a time */
#define WAITS	  3000

struct load {
	bool write, random;
	unsigned int bytes, depth;
	uint64_t count;
};

struct bench {
	int disk;
	uint64_t size; /* of the disk, bytes */
	uint8_t *buffers;
	struct io_uring ring;
	uint64_t seed, at;
};

/* The end of /init is a panic, which ends the machine (panic=-1). */
static __attribute__((noreturn)) void die(const char *what)
{
	printf(MARK "failed: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* Whatever driver it has. */
static int open_disk(void)
{
	static const char *const paths[] = { "/dev/sda", "/dev/vda" };

	for (unsigned int waits = 0; waits < WAITS; waits++) {
		for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
			int fd = open(paths[i], O_RDWR | O_DIRECT | O_CLOEXEC);

			if (fd >= 0)
				return fd;
		}
		rest(WAIT_NS);
	}
	die("no disk");
}

static void quiet_console(void)
{
	struct termios mode;

	if (tcgetattr(STDIN_FILENO, &mode) < 0)
		die("console");
	mode.c_lflag &= ~(tcflag_t)ECHO;
	tcsetattr(STDIN_FILENO, TCSANOW, &mode);
	setvbuf(stdout, NULL, _IOLBF, 0);
}

static void start(struct bench *bench)
{
	const size_t size = (size_t)DEPTH_MAX * BYTES_MAX;

	mkdir("/dev", 0755);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	quiet_console();
	insert_modules();
	bench->disk = open_disk();
	if (ioctl(bench->disk, BLKGETSIZE64, &bench->size) < 0)
		die("size of the disk");
	bench->buffers = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (bench->buffers == MAP_FAILED)
		die("buffers");
	/* In single pages, as a page cache has them. */
	madvise(bench->buffers, size, MADV_NOHUGEPAGE);
	errno = -io_uring_queue_init(DEPTH_MAX, &bench->ring, 0);
	if (errno)
		die("io_uring");
}

static uint64_t next_offset(struct bench *bench, const struct load *load)
{
	uint64_t blocks = bench->size / load->bytes;

	if (!load->random)
		return bench->at++ % blocks * load->bytes;
	/* Marsaglia, Xorshift RNGs, 2003. */
	bench->seed ^= bench->seed << 13;
	bench->seed ^= bench->seed >> 7;
	bench->seed ^= bench->seed << 17;
	return bench->seed % blocks * load->bytes;
}

static void prepare(struct bench *bench, const struct load *load, uint64_t slot)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&bench->ring);
	uint64_t offset = next_offset(bench, load);
	uint8_t *buffer = bench->buffers + slot * load->bytes;

	if (!sqe)
		die("io_uring is full");
	if (load->write)
		io_uring_prep_write(sqe, bench->disk, buffer, load->bytes, offset);
	else
		io_uring_prep_read(sqe, bench->disk, buffer, load->bytes, offset);
	io_uring_sqe_set_data64(sqe, slot);
}

static void carry_out(struct bench *bench, const struct load *load, uint64_t count)
{
	uint64_t begun = 0, ended = 0;

	for (; begun < count && begun < load->depth; begun++)
		prepare(bench, load, begun);
	while (ended < count) {
		struct io_uring_cqe *cqe;
		unsigned int head, taken = 0;

		if (io_uring_submit_and_wait(&bench->ring, 1) < 0)
			die("io_uring_enter");
		io_uring_for_each_cqe(&bench->ring, head, cqe)
		{
			if (cqe->res != (int)load->bytes) {
				errno = cqe->res < 0 ? -cqe->res : EIO;
				die(load->write ? "write" : "read");
			}
			if (begun < count) {
				prepare(bench, load, cqe->user_data);
				begun++;
			}
			taken++;
		}
		io_uring_cq_advance(&bench->ring, taken);
		ended += taken;
	}
}

static bool parse(const char *line, struct load *load)
{
	char direction[8], order[16];

	if (sscanf(line, "%7s %u %u %15s %" SCNu64, direction, &load->bytes, &load->depth, order, &load->count) != 5)
		return false;
	load->write = !strcmp(direction, "write");
	load->random = !strcmp(order, "random");
	return load->bytes && load->bytes <= BYTES_MAX && load->depth && load->depth <= DEPTH_MAX;
}

int main(void)
{
	struct bench bench = { 0 };
	struct load load;
	char line[128];

	start(&bench);
	printf(MARK "ready\n");
	while (fgets(line, sizeof(line), stdin)) {
		if (!parse(line, &load)) {
			errno = EINVAL;
			die(line);
		}
		bench.seed = 0x9e3779b97f4a7c15;
		bench.at = 0;
		rest(PAUSE_NS);
		carry_out(&bench, &load, WARM);
		carry_out(&bench, &load, load.count);
		printf(MARK "done\n");
	}
	return 0;
}
