/* SPDX-License-Identifier: MIT */
/*
 * VirtIO shared memory (virtio 1.2, 2.10 and 4.1.4.7) that the back-end of tests/servers/vhost-user.c maps into and
 * takes out of regions at our command. The regions are what sizes= says, in pages.
 */
#include "rt/apic.h"
#include "rt/io.h"
#include "rt/pci.h"
#include "rt/rt.h"
#include "rt/vut.h"

#define PAGE	  4096u
#define COM1	  0x3f8
#define RW	  1
#define NO_ANSWER ((uint32_t)VUT_NO_ANSWER)
#define NOTHING	  UINT64_MAX

enum { COM1_STATUS = 5 };

static struct virtio v;
static struct vq q[2];
static const struct virtio_shm *shm; /* the first, which most tests use */

static uint32_t map(unsigned int id, uint32_t file, uint64_t from, uint64_t at, uint64_t length, uint32_t flags)
{
	return vut_do(&q[0], VUT_MAP, file, id | flags << 8, from, at, length).status;
}

static uint32_t unmap(unsigned int id, uint64_t at, uint64_t length)
{
	return vut_do(&q[0], VUT_UNMAP, 0, id, 0, at, length).status;
}

static void poke(uint32_t file, uint64_t offset, uint64_t value)
{
	CHECK_EQ(vut_do(&q[0], VUT_POKE, file, offset, value, 0, 0).status, 0);
}

static uint64_t peek(uint32_t file, uint64_t offset)
{
	struct vut_answer a = vut_do(&q[0], VUT_PEEK, file, offset, 0, 0, 0);

	CHECK_EQ(a.status, 0);
	return a.value;
}

static void check_nothing(uint64_t base, uint64_t length)
{
	for (uint64_t at = 0; at < length; at += PAGE) {
		CHECK_EQ(read64(base + at), NOTHING);
		CHECK_EQ(read8(base + at + PAGE - 1), 0xff);
		write32(base + at + 8, 0x12345678);
		CHECK_EQ(read32(base + at + 8), UINT32_MAX);
	}
}

static void check_pattern(uint64_t base, uint32_t file, uint64_t offset, uint64_t length)
{
	for (uint64_t at = 0; at < length; at += PAGE / 2 - 8)
		CHECK_EQ(read64(base + (at & ~7ULL)), VUT_PATTERN(file, offset + (at & ~7ULL)));
}

static const struct virtio_shm *region(unsigned int id)
{
	for (unsigned int i = 0; i < v.nr_shm; i++)
		if (v.shm[i].id == id)
			return &v.shm[i];
	CHECK(false);
	return NULL;
}

/* ids=1,2,4 pages=3,1,256: what the capabilities must say. */
static void capabilities(void)
{
	const char *ids = rt_arg("ids"), *pages = rt_arg("pages");
	unsigned int count = 0;

	CHECK(ids && pages);
	while (*ids >= '0' && *ids <= '9') {
		uint64_t id = 0, n = 0;

		for (; *ids >= '0' && *ids <= '9'; ids++)
			id = id * 10 + (uint64_t)(*ids - '0');
		for (; *pages >= '0' && *pages <= '9'; pages++)
			n = n * 10 + (uint64_t)(*pages - '0');
		ids += *ids == ',';
		pages += *pages == ',';
		CHECK_EQ(region((unsigned int)id)->length, n * PAGE);
		count++;
	}
	CHECK_EQ(v.nr_shm, count);
	for (unsigned int i = 0; i < v.nr_shm; i++) {
		for (unsigned int j = 0; j < i; j++)
			CHECK(v.shm[i].base + v.shm[i].length <= v.shm[j].base ||
			      v.shm[j].base + v.shm[j].length <= v.shm[i].base);
		CHECK_EQ(v.shm[i].base % PAGE, 0);
		CHECK(v.shm[i].bar == v.shm[0].bar);
	}
}

static void one_region(const struct virtio_shm *s)
{
	uint64_t last = s->length - PAGE;

	check_nothing(s->base, s->length < 16 * PAGE ? s->length : 16 * PAGE);
	check_nothing(s->base + last, PAGE);
	/* The whole of it, or as much as the file has. */
	CHECK_EQ(map(s->id, VUT_FILE_A, 0x3000, 0, s->length, RW), 0);
	check_pattern(s->base, VUT_FILE_A, 0x3000, s->length < 8 * PAGE ? s->length : 8 * PAGE);
	check_pattern(s->base + last, VUT_FILE_A, 0x3000 + last, PAGE);
	CHECK(unmap(s->id, 0, s->length) == 0);
	check_nothing(s->base + last, PAGE);
	/* A page: what is written on either side is there on the other. */
	CHECK_EQ(map(s->id, VUT_FILE_B, 0x5000, last, PAGE, RW), 0);
	check_pattern(s->base + last, VUT_FILE_B, 0x5000, PAGE);
	write64(s->base + last + 0x18, 0x1020304050607080 + s->id);
	CHECK_EQ(peek(VUT_FILE_B, 0x5018), 0x1020304050607080 + s->id);
	poke(VUT_FILE_B, 0x5020, 0x55aa + s->id);
	CHECK_EQ(read64(s->base + last + 0x20), 0x55aa + s->id);
	write8(s->base + last + 0xfff, 0x77);
	CHECK_EQ(read16(s->base + last + 0xffe) >> 8, 0x77);
	if (last)
		CHECK_EQ(read64(s->base + last - 8), NOTHING);
	CHECK_EQ(unmap(s->id, last, PAGE), 0);
	check_nothing(s->base + last, PAGE);
	CHECK_EQ(peek(VUT_FILE_B, 0x5018), 0x1020304050607080 + s->id);
	poke(VUT_FILE_B, 0x5018, VUT_PATTERN(VUT_FILE_B, 0x5018));
	poke(VUT_FILE_B, 0x5020, VUT_PATTERN(VUT_FILE_B, 0x5020));
	poke(VUT_FILE_B, 0x5ff8, VUT_PATTERN(VUT_FILE_B, 0x5ff8));
}

static void regions(void)
{
	capabilities();
	for (unsigned int i = 0; i < v.nr_shm; i++)
		one_region(&v.shm[i]);
	/* All of them at once, and beyond the last one nothing. */
	for (unsigned int i = 0; i < v.nr_shm; i++)
		CHECK_EQ(map(v.shm[i].id, i % 2 ? VUT_FILE_B : VUT_FILE_A, PAGE * i, 0, PAGE, RW), 0);
	for (unsigned int i = 0; i < v.nr_shm; i++)
		check_pattern(v.shm[i].base, i % 2 ? VUT_FILE_B : VUT_FILE_A, PAGE * i, PAGE);
	for (unsigned int i = 0; i < v.nr_shm; i++)
		CHECK_EQ(unmap(v.shm[i].id, 0, PAGE), 0);
	/* The BAR elsewhere, with a mapping in it. */
	CHECK_EQ(map(shm->id, VUT_FILE_A, 0, 0, PAGE, RW), 0);
	pci_write(v.devfn, 4, 2, 0);
	read64(shm->base);
	pci_write(v.devfn, 4, 2, 6);
	check_pattern(shm->base, VUT_FILE_A, 0, PAGE);
	CHECK_EQ(unmap(shm->id, 0, PAGE), 0);
}

static void read_only(void)
{
	CHECK_EQ(map(shm->id, VUT_FILE_A, 0, 0, 2 * PAGE, 0), 0);
	check_pattern(shm->base, VUT_FILE_A, 0, 2 * PAGE);
	for (unsigned int i = 0; i < 20; i++) {
		write64(shm->base + 8 * i, 0);
		write8(shm->base + PAGE + i, 0);
	}
	check_pattern(shm->base, VUT_FILE_A, 0, 2 * PAGE);
	CHECK_EQ(peek(VUT_FILE_A, 8), VUT_PATTERN(VUT_FILE_A, 8));
	poke(VUT_FILE_A, 8, 99);
	CHECK_EQ(read64(shm->base + 8), 99);
	poke(VUT_FILE_A, 8, VUT_PATTERN(VUT_FILE_A, 8));
	CHECK_EQ(unmap(shm->id, 0, 2 * PAGE), 0);
	/* A descriptor that is for reading only, and one that is sealed against writing. */
	CHECK_EQ(map(shm->id, VUT_FILE_READ_ONLY, 0, 0, PAGE, 0), 0);
	check_pattern(shm->base, VUT_FILE_A, 0, PAGE);
	CHECK_EQ(unmap(shm->id, 0, PAGE), 0);
	CHECK_EQ(map(shm->id, VUT_FILE_SEALED, 0, 0, PAGE, 0), 0);
	check_pattern(shm->base, VUT_FILE_SEALED, 0, PAGE);
	CHECK_EQ(unmap(shm->id, 0, PAGE), 0);
}

/* None of these may change anything. The region has at least four pages. */
static void refused(void)
{
	const uint64_t end = shm->length, odd = VUT_ODD_SIZE & ~(PAGE - 1ull);
	const struct {
		uint32_t id, file;
		uint64_t from, at, length, flags;
	} bad[] = {
		{ shm->id, 0, 0, PAGE, PAGE, RW }, /* overlaps what is mapped */
		{ shm->id, 0, 0, 0, 2 * PAGE, RW },
		{ shm->id, 0, 0, PAGE, 2 * PAGE, RW },
		{ shm->id, 0, 0, 0, 4 * PAGE, RW },
		{ shm->id + 1, 0, 0, 0, PAGE, RW }, /* no region of that number */
		{ 255, 0, 0, 0, PAGE, RW },
		{ shm->id, 0, 0, end, PAGE, RW },
		{ shm->id, 0, 0, end - PAGE, 2 * PAGE, RW },
		{ shm->id, 0, 0, -(uint64_t)PAGE, PAGE, RW },
		{ shm->id, 0, 0, -(uint64_t)PAGE, 2 * PAGE, RW }, /* wraps */
		{ shm->id, 0, 0, 3 * PAGE, -(uint64_t)PAGE, RW },
		{ shm->id, 0, 0, 3 * PAGE, -3ull * PAGE, RW },
		{ shm->id, 0, -(uint64_t)PAGE, 3 * PAGE, PAGE, RW },
		{ shm->id, 0, 1ULL << 63, 3 * PAGE, PAGE, RW },
		{ shm->id, 0, 0, 3 * PAGE, 0, RW },
		{ shm->id, 0, 0, 3 * PAGE, 100, RW },
		{ shm->id, 0, 0, 3 * PAGE, PAGE - 1, RW },
		{ shm->id, 0, 0, 3 * PAGE + 512, PAGE, RW },
		{ shm->id, 0, 512, 3 * PAGE, PAGE, RW },
		{ shm->id, 0, VUT_FILE_SIZE, 3 * PAGE, PAGE, RW }, /* beyond the file */
		{ shm->id, VUT_FILE_ODD, odd, 3 * PAGE, PAGE, RW },
		{ shm->id, 0, 0, 3 * PAGE, PAGE, 2 },
		{ shm->id, 0, 0, 3 * PAGE, PAGE, 3 },
		{ shm->id, 0, 0, 3 * PAGE, PAGE, 0x10000 },
		{ shm->id, VUT_FILE_READ_ONLY, 0, 3 * PAGE, PAGE, RW },
		{ shm->id, VUT_FILE_SEALED, 0, 3 * PAGE, PAGE, RW },
		{ shm->id, VUT_FILE_WRITE_ONLY, 0, 3 * PAGE, PAGE, RW },
		{ shm->id, VUT_FILE_WRITE_ONLY, 0, 3 * PAGE, PAGE, 0 },
		{ shm->id, VUT_FILE_NULL, 0, 3 * PAGE, PAGE, RW },
		{ shm->id, VUT_FILE_ZERO, 0, 3 * PAGE, PAGE, RW },
		{ shm->id, VUT_FILE_EVENTFD, 0, 3 * PAGE, PAGE, RW },
		{ shm->id, VUT_FILE_SOCKET, 0, 3 * PAGE, PAGE, RW },
		{ shm->id, VUT_FILE_PIPE, 0, 3 * PAGE, PAGE, RW },
		{ shm->id, VUT_FILE_DIRECTORY, 0, 3 * PAGE, PAGE, 0 },
		{ shm->id, VUT_FILES, 0, 3 * PAGE, PAGE, RW }, /* no descriptor */
	};

	CHECK_EQ(map(shm->id, VUT_FILE_B, 0, PAGE, PAGE, RW), 0);
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint32_t status = vut_do(&q[0], VUT_MAP, bad[i].file, bad[i].id | bad[i].flags << 8, bad[i].from,
					 bad[i].at, bad[i].length)
					  .status;

		if (!status || status == NO_ANSWER)
			rt_print("number %u: %x\n", i, status);
		CHECK(status && status != NO_ANSWER);
		CHECK_EQ(read64(shm->base), NOTHING);
		check_pattern(shm->base + PAGE, VUT_FILE_B, 0, PAGE);
		CHECK_EQ(read64(shm->base + 2 * PAGE), NOTHING);
		CHECK_EQ(read64(shm->base + 3 * PAGE), NOTHING);
	}
	/* Not what was mapped, or not all of it. */
	CHECK_EQ(map(shm->id, VUT_FILE_A, 0, 2 * PAGE, 2 * PAGE, RW), 0);
	static const uint32_t pieces[][2] = { { 0, 1 }, { 2, 1 }, { 3, 1 }, { 1, 3 },
					      { 0, 4 }, { 1, 2 }, { 2, 0 }, { 2, 3 } };

	for (unsigned int i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++)
		CHECK(unmap(shm->id, (uint64_t)pieces[i][0] * PAGE, (uint64_t)pieces[i][1] * PAGE));
	CHECK(unmap(shm->id + 1, PAGE, PAGE));
	CHECK(unmap(shm->id, PAGE + 8, PAGE));
	check_pattern(shm->base + PAGE, VUT_FILE_B, 0, PAGE);
	check_pattern(shm->base + 2 * PAGE, VUT_FILE_A, 0, 2 * PAGE);
	CHECK_EQ(unmap(shm->id, 2 * PAGE, 2 * PAGE), 0);
	CHECK_EQ(unmap(shm->id, PAGE, PAGE), 0);
	CHECK(unmap(shm->id, PAGE, PAGE)); /* twice */
	check_nothing(shm->base, 4 * PAGE);
}

/* -- messages that are not as they should be, put together here */

static uint32_t send_raw(const uint32_t *words, uint32_t size, unsigned int fds, uint32_t file, bool wait,
			 uint32_t piece)
{
	const struct vut_command c = { VUT_RAW, file, { fds, wait, piece, 0 } };
	uint32_t length;
	uint16_t id;

	vut_put(&q[0], 0, &c, (uintptr_t)words, size, 0, 0);
	vq_kick(&q[0]);
	CHECK(vq_wait(&q[0], &id, &length, VUT_LONG));
	return vut_answer(&q[0], 0)->status;
}

/* A SHMEM_MAP or SHMEM_UNMAP of the region's first page; extra words behind it. */
static uint32_t message[64];

static void compose(uint32_t request, uint32_t flags, uint32_t size)
{
	memset(message, 0, sizeof(message));
	message[0] = request;
	message[1] = flags;
	message[2] = size;
	message[3] = shm->id;
	message[9] = PAGE;
	message[11] = RW;
}

/* With an answer that says so. */
static bool refuses(unsigned int fds)
{
	uint32_t status = send_raw(message, 52, fds, 0, true, 0);

	return status && status != NO_ANSWER;
}

static void raw(void)
{
	compose(9, 9, 40);
	CHECK(refuses(0)); /* no descriptor */
	CHECK(refuses(2));
	CHECK(refuses(30));
	CHECK_EQ(read64(shm->base), NOTHING);
	compose(10, 9, 40);
	CHECK(refuses(0));
	/* In pieces, it is the same. */
	compose(9, 9, 40);
	CHECK_EQ(send_raw(message, 52, 1, 0, true, 5), 0);
	check_pattern(shm->base, VUT_FILE_A, 0, PAGE);
	compose(10, 9, 40);
	CHECK(refuses(1)); /* a descriptor that is not wanted */
	CHECK_EQ(send_raw(message, 52, 0, 0, true, 1), 0);
	CHECK_EQ(read64(shm->base), NOTHING);
	/* Requests that nobody knows, or that were not negotiated. */
	static const uint32_t unknown[] = { 0, 1, 3, 6, 7, 8, 11, 99, 0x80000000, UINT32_MAX };

	for (unsigned int i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		compose(unknown[i], 9, 40);
		CHECK(refuses(i % 3));
	}
	/* Without a wish for an answer; the next request finds what became of it. */
	compose(9, 1, 40);
	send_raw(message, 52, 1, 0, false, 0);
	CHECK(map(shm->id, VUT_FILE_A, 0, 0, PAGE, RW) != 0);
	check_pattern(shm->base, VUT_FILE_A, 0, PAGE);
	CHECK_EQ(unmap(shm->id, 0, PAGE), 0);
}

/* broken=N: after this the channel may be closed, and everything else goes on. */
static void broken(void)
{
	static const struct {
		uint32_t request, flags, size, length;
	} bad[] = {
		{ 9, 8 | 0, 40, 52 },	  { 9, 8 | 2, 40, 52 },	    { 9, 8 | 5, 40, 52 },
		{ 9, 9, 0x7fffffff, 52 }, { 9, 9, 0xffffffff, 52 }, { 9, 9, 39, 51 },
		{ 9, 9, 41, 53 },	  { 9, 9, 0, 12 },	    { 2, 9, 200, 212 },
	};
	uint64_t n = rt_arg_number("broken", 0);

	CHECK(n < sizeof(bad) / sizeof(bad[0]));
	CHECK_EQ(map(shm->id, VUT_FILE_B, 0, PAGE, PAGE, RW), 0);
	compose(bad[n].request, bad[n].flags, bad[n].size);
	CHECK(send_raw(message, bad[n].length, 1, 0, true, 0));
	CHECK_EQ(read64(shm->base), NOTHING);
	for (unsigned int i = 0; i < 5; i++)
		vut_echo(&q[1], 64, i);
	map(shm->id, VUT_FILE_A, 0, 0, PAGE, RW); /* or not */
	CHECK(virtio_reset(&v));
	vut_start(&v, q, 2, 0);
	vut_echo(&q[0], 64, 7);
	CHECK_EQ(read64(shm->base), NOTHING);
	CHECK_EQ(read64(shm->base + PAGE), NOTHING);
}

/* -- over and over */

/* Somebody looks at vmm from outside now, and sends a byte when he has. */
static void step(void)
{
	rt_print("step\n");
	while (!(inb(COM1 + COM1_STATUS) & 1))
		__asm__ volatile("pause");
	inb(COM1);
}

/* Up to the last step no access is to what is not mapped. */
static void again(void)
{
	uint64_t rounds = rt_arg_number("rounds", 10000);

	vut_echo(&q[1], 64, 0); /* all of it runs */
	step();
	CHECK_EQ(vut_do(&q[0], VUT_CHURN, VUT_FILE_A, shm->id, rounds, 0, PAGE).value, 0);
	step();
	CHECK_EQ(map(shm->id, VUT_FILE_A, 0, 0, PAGE, RW), 0);
	CHECK_EQ(map(shm->id, VUT_FILE_B, 0, PAGE, PAGE, 0), 0);
	check_pattern(shm->base, VUT_FILE_A, 0, PAGE);
	step();
	CHECK(virtio_reset(&v));
	vut_start(&v, q, 2, 0);
	vut_echo(&q[1], 64, 1);
	step();
	check_nothing(shm->base, 2 * PAGE);
	/* And from here, with what is read compared. */
	for (uint32_t i = 0; i < 60; i++) {
		uint64_t at = (uint64_t)(i * 7 % 3) * PAGE, from = (uint64_t)(i % 50) * PAGE;

		CHECK_EQ(map(shm->id, i % 2, from, at, PAGE, RW), 0);
		CHECK_EQ(read64(shm->base + at + 16), VUT_PATTERN(i % 2, from + 16));
		CHECK_EQ(unmap(shm->id, at, PAGE), 0);
		CHECK_EQ(read64(shm->base + at + 16), NOTHING);
	}
}

static volatile bool stop;
static volatile uint32_t reads[2], nothings[2], bad;

static void read_on(unsigned int n)
{
	while (!stop) {
		uint64_t value = read64(shm->base + 64);

		reads[n]++;
		if (value == NOTHING)
			nothings[n]++;
		else if (value != VUT_PATTERN(VUT_FILE_A, 64) && value != VUT_PATTERN(VUT_FILE_A, 64 + PAGE))
			bad++;
		write64(shm->base + 128, value); /* wherever it goes */
	}
}

/* Two other CPUs read, and write, while the pages come and go: they see one of them, or nothing. */
static void while_reading(void)
{
	uint64_t rounds = rt_arg_number("rounds", 2000);

	ap_start(1, read_on);
	ap_start(2, read_on);
	while (rt_ap_count < 2)
		__asm__ volatile("pause");
	for (unsigned int i = 0; i < 10; i++)
		CHECK_EQ(vut_do(&q[0], VUT_CHURN, VUT_FILE_A, shm->id, rounds / 10, 0, PAGE).value, 0);
	for (unsigned int i = 0; i < 100000 && (reads[0] < 100 || reads[1] < 100); i++)
		rt_delay(100);
	stop = true;
	rt_print("reads %u %u, of nothing %u %u\n", reads[0], reads[1], nothings[0], nothings[1]);
	CHECK(reads[0] >= 100 && reads[1] >= 100);
	CHECK_EQ(bad, 0);
	/* Somebody did see both. */
	CHECK(nothings[0] + nothings[1] > 0 && nothings[0] + nothings[1] < reads[0] + reads[1]);
}

static void flood(void)
{
	uint32_t page, limit = (uint32_t)rt_arg_number("limit", 4096);

	CHECK(shm->length > (uint64_t)limit * PAGE);
	page = (uint32_t)vut_do(&q[0], VUT_FILL, VUT_FILE_A, shm->id, limit + 1, 0, 0).value;
	CHECK_EQ(page, limit);
	check_pattern(shm->base + (page - 1ull) * PAGE, VUT_FILE_A, (page - 1ull) * PAGE, PAGE);
	CHECK_EQ(read64(shm->base + (uint64_t)page * PAGE), NOTHING);
	CHECK_EQ(unmap(shm->id, 17 * PAGE, PAGE), 0);
	CHECK_EQ(map(shm->id, VUT_FILE_B, 0, (uint64_t)page * PAGE, PAGE, RW), 0);
	check_pattern(shm->base + (uint64_t)page * PAGE, VUT_FILE_B, 0, PAGE);
	CHECK(virtio_reset(&v));
	for (page = 0; page < limit; page += 111)
		CHECK_EQ(read64(shm->base + (uint64_t)page * PAGE), NOTHING);
}

/* -- what ends a mapping */

static void reset(void)
{
	for (unsigned int round = 0; round < 5; round++) {
		CHECK_EQ(map(shm->id, VUT_FILE_A, 0, 0, 2 * PAGE, RW), 0);
		CHECK_EQ(map(shm->id, VUT_FILE_B, 0, 3 * PAGE, PAGE, 0), 0);
		check_pattern(shm->base, VUT_FILE_A, 0, 2 * PAGE);
		CHECK(virtio_reset(&v));
		check_nothing(shm->base, 4 * PAGE);
		vut_start(&v, q, 2, 0);
		check_nothing(shm->base, 4 * PAGE);
		CHECK(unmap(shm->id, 0, 2 * PAGE));
		CHECK_EQ(map(shm->id, VUT_FILE_B, 0, 0, 4 * PAGE, RW), 0);
		check_pattern(shm->base, VUT_FILE_B, 0, 4 * PAGE);
		CHECK_EQ(unmap(shm->id, 0, 4 * PAGE), 0);
	}
}

/* The file is shorter all of a sudden. What is read then is nothing, and the machine lives. */
static void truncated(void)
{
	CHECK_EQ(map(shm->id, VUT_FILE_A, 0, 0, 4 * PAGE, RW), 0);
	check_pattern(shm->base, VUT_FILE_A, 0, 4 * PAGE);
	CHECK_EQ(vut_do(&q[0], VUT_TRUNCATE, VUT_FILE_A, PAGE, 0, 0, 0).status, 0);
	for (unsigned int i = 1; i < 4; i++) {
		CHECK_EQ(read64(shm->base + i * PAGE + 8), NOTHING);
		write64(shm->base + i * PAGE + 8, 1);
	}
	for (unsigned int i = 0; i < 5; i++)
		vut_echo(&q[1], 64, i);
	unmap(shm->id, 0, 4 * PAGE);
	CHECK(virtio_reset(&v));
	vut_start(&v, q, 2, 0);
	CHECK_EQ(map(shm->id, VUT_FILE_B, 0, 0, 4 * PAGE, RW), 0);
	check_pattern(shm->base, VUT_FILE_B, 0, 4 * PAGE);
}

/* Mapped before the driver is there (map= of the back-end): a page of A at the region's second. */
static void early(void)
{
	CHECK_EQ(read64(shm->base), NOTHING);
	check_pattern(shm->base + PAGE, VUT_FILE_A, 0, PAGE);
	write64(shm->base + PAGE + 8, 0xea71);
	CHECK_EQ(read64(shm->base + PAGE + 8), 0xea71);
	CHECK(virtio_reset(&v));
}

static void early_done(void)
{
	CHECK_EQ(peek(VUT_FILE_A, 8), 0xea71);
	CHECK_EQ(vut_info(&q[0], VUT_INFO_FAULTS, 0), 0);
}

/* Addresses in the region are not guest memory to a back-end: the queue breaks, at most. */
static void not_memory(void)
{
	const struct vq_part parts[] = { { shm->base, sizeof(struct vut_command), false },
					 { shm->base + 64, 64, true } };
	uint32_t length;
	uint16_t id;

	CHECK_EQ(map(shm->id, VUT_FILE_A, 0, 0, PAGE, RW), 0);
	vq_add(&q[1], 0, parts, 2);
	vq_kick(&q[1]);
	for (unsigned int i = 0; i < 5; i++)
		vut_echo(&q[0], 64, i);
	CHECK(!vq_used(&q[1], &id, &length));
	CHECK(virtio_reset(&v));
	vut_start(&v, q, 2, 0);
	vut_echo(&q[1], 64, 9);
}

/* It hangs up, or dies, with pages mapped: none stays. */
static void gone(void)
{
	CHECK_EQ(map(shm->id, VUT_FILE_A, 0, 0, 2 * PAGE, RW), 0);
	check_pattern(shm->base, VUT_FILE_A, 0, 2 * PAGE);
	vut_do(&q[0], VUT_HANG_UP, 0, 0, 0, 0, 0);
	for (unsigned int i = 0; i < 20000 && !(read8(v.common + VC_STATUS) & VS_NEEDS_RESET); i++)
		rt_delay(1000);
	CHECK(virtio_reset(&v));
	check_nothing(shm->base, 2 * PAGE);
}

static const struct rt_test tests[] = {
	{ "regions", regions },	      { "read-only", read_only },   { "refused", refused }, { "raw", raw },
	{ "broken", broken },	      { "again", again },	    { "flood", flood },	    { "reset", reset },
	{ "truncated", truncated },   { "reading", while_reading }, { "gone", gone },	    { "early", early_done },
	{ "not-memory", not_memory },
};

void guest_main(void)
{
	pic_off();
	lapic_enable(false);
	virtio_find(&v, VUT_ID);
	CHECK(v.nr_shm);
	shm = &v.shm[0];
	if (rt_arg_is("test", "early"))
		early();
	vut_start(&v, q, 2, 0);
	rt_run_test(tests, sizeof(tests) / sizeof(tests[0]));
	rt_print("passed\n");
}
