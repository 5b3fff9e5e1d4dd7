/* SPDX-License-Identifier: MIT */
/*
 * vfio_user - drives the device of tests/servers/vfio-user.c from a stock kernel, for cases_vfio_user.sh: registers and
 * memory by the files of sysfs, INTx by uio_pci_generic; or all of it, and MSI-X and MSI, by vfio-pci (vfio_pci.c).
 *
 *	vfio_user DEVICE all	      everything there is, with uio_pci_generic
 *	vfio_user DEVICE vfio	      everything there is, with vfio-pci
 *	vfio_user DEVICE away	      returns when the device is gone
 *	vfio_user DEVICE back	      waits until it is there again, with the guest's interrupt
 *	vfio_user DEVICE read N AT    a word of BAR N, in memory or I/O space
 *	vfio_user DEVICE write N AT VALUE
 *
 * A check that fails prints a line and ends with status 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfio_user.h"

enum { COMMAND = 4, COMMAND_INTX_DISABLE = 0x400, INTERRUPTS = 20, ACCESSES = 200, PAGE = 4096 };
enum { DMA_TO_DEVICE = 1, DMA_TO_GUEST = 2 };

void die(const char *format, ...)
{
	va_list arguments;

	fputs("vfio_user: ", stdout);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
	exit(1);
}

int check(long ret, const char *what)
{
	if (ret < 0)
		die("%s: %s", what, strerror(errno));
	return (int)ret;
}

void equal(const char *what, uint64_t got, uint64_t wanted)
{
	if (got != wanted)
		die("%s: 0x%llx, not 0x%llx", what, (unsigned long long)got, (unsigned long long)wanted);
}

static int open_file(const struct device *d, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", d->path, name);
	return check(open(path, O_RDWR | O_CLOEXEC), path);
}

static volatile uint32_t *map_bar(const struct device *d, unsigned int index)
{
	char name[16];
	struct stat st;
	void *at;
	int fd;

	snprintf(name, sizeof(name), "resource%u", index);
	fd = open_file(d, name);
	check(fstat(fd, &st), name);
	at = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		die("%s: mmap: %s", name, strerror(errno));
	return at;
}

static void enable(const struct device *d)
{
	int fd = open_file(d, "enable");

	/* It is a driver's business if there is one. */
	if (write(fd, "1", 1) < 0 && errno != EBUSY)
		die("enable: %s", strerror(errno));
	close(fd);
}

uint32_t get(const struct device *d, unsigned int at)
{
	return d->registers[at / 4];
}

void put(const struct device *d, unsigned int at, uint32_t value)
{
	d->registers[at / 4] = value;
}

static void ports(const struct device *d)
{
	uint32_t value = 0;

	equal("a port of BAR1", check(pread(d->ports, &value, 4, VFUT_ID), "resource1"), 4);
	equal("BAR1", value, VFUT_MAGIC);
	value = 0x1234abcd;
	check(pwrite(d->ports, &value, 4, VFUT_SCRATCH), "resource1");
	equal("written by BAR1, read by BAR0", get(d, VFUT_SCRATCH), value);
}

static void accesses(const struct device *d)
{
	volatile uint8_t *bytes = (volatile uint8_t *)d->registers;

	for (uint32_t i = 0; i < ACCESSES; i++) {
		put(d, VFUT_SCRATCH, i);
		equal("scratch", get(d, VFUT_SCRATCH), i);
	}
	for (unsigned int at = VFUT_REGS; at < VFUT_REGS + 16; at++)
		bytes[at] = (uint8_t)(at * 3);
	for (unsigned int at = VFUT_REGS; at < VFUT_REGS + 16; at++)
		equal("a byte", bytes[at], (uint8_t)(at * 3));
}

static void mapped(const struct device *d)
{
	static const uint32_t offsets[] = { 0, 0xffc, VFUT_AREA1, 0x2ffc, 0x3000, VFUT_AREA2, 0xfffc - 4 };
	uint32_t reads;

	for (unsigned int i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		put(d, VFUT_OFFSET, offsets[i]);
		d->memory[offsets[i] / 4] = 0xabcd0000 + i;
		equal("BAR2, as the server sees it", get(d, VFUT_PEEK), 0xabcd0000 + i);
		put(d, VFUT_POKE, 0x12340000 + i);
		get(d, VFUT_ID);
		equal("BAR2, as the server wrote it", d->memory[offsets[i] / 4], 0x12340000 + i);
	}
	reads = get(d, VFUT_READS);
	for (unsigned int i = 0; i < 1000; i++)
		(void)d->memory[VFUT_AREA1 / 4 + i % 512];
	equal("messages for what is mapped", get(d, VFUT_READS) - reads, 1);
}

static void doorbells(const struct device *d)
{
	uint32_t rings = get(d, VFUT_RINGS), shadow = get(d, VFUT_RINGS + 8);

	for (uint32_t i = 0; i < 100; i++) {
		d->bells[0] = i;
		d->bells[2] = 0xbe110000 + i;
	}
	equal("rings of the doorbell, none by message", get(d, VFUT_RINGS), rings + 100);
	equal("rings of the shadow doorbell, none by message", get(d, VFUT_RINGS + 8), shadow + 100);
	equal("the shadow", get(d, VFUT_SHADOW), 0xbe110000 + 99);
}

/* Linux, Documentation/admin-guide/mm/pagemap.rst */
static uint64_t physical(const void *at)
{
	int fd = check(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), "pagemap");
	uint64_t entry = 0;

	if (pread(fd, &entry, 8, (off_t)((uintptr_t)at / PAGE * 8)) != 8 || !(entry >> 63))
		die("a page is not there");
	close(fd);
	return (entry & ((1ULL << 55) - 1)) * PAGE;
}

/* `raise` is 0 or a vector of MSI-X, plus one, that the device raises when it is done. */
static void dma(const struct device *d, uint32_t raise)
{
	uint8_t *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);
	uint32_t sum = 0;
	uint64_t address;

	if (page == MAP_FAILED)
		die("a page: %s", strerror(errno));
	memset(page, 0x55, PAGE);
	address = physical(page);
	put(d, VFUT_DMA_ADDRESS, (uint32_t)address);
	put(d, VFUT_DMA_ADDRESS + 4, (uint32_t)(address >> 32));
	put(d, VFUT_DMA_COUNT, PAGE);
	put(d, VFUT_FILL, 7);
	put(d, VFUT_DMA_GO, raise << 16 | DMA_TO_GUEST);
	equal("DMA to the guest", get(d, VFUT_DMA_STATUS), 0);
	for (unsigned int i = 0; i < PAGE; i++)
		equal("a byte by DMA", ((volatile uint8_t *)page)[i], (uint8_t)(7 + i));
	for (unsigned int i = 0; i < PAGE; i++) {
		page[i] = (uint8_t)(i * 11 + i / 256);
		sum = sum * 31 + page[i];
	}
	put(d, VFUT_DMA_GO, raise << 16 | DMA_TO_DEVICE);
	equal("DMA to the device", get(d, VFUT_DMA_STATUS), 0);
	equal("the sum of what the device has", get(d, VFUT_SUM), sum);
	munmap(page, PAGE);
}

/* The kernel's handler has masked INTx in the command register, and leaves the rest to us. */
static void interrupts(struct device *d, unsigned int count)
{
	uint32_t before = 0, now;
	uint16_t command;

	d->uio = check(open("/dev/uio0", O_RDWR | O_CLOEXEC), "/dev/uio0");
	for (unsigned int i = 0; i < count; i++) {
		check(pread(d->config, &command, 2, COMMAND), "config");
		command &= (uint16_t)~COMMAND_INTX_DISABLE;
		check(pwrite(d->config, &command, 2, COMMAND), "config");
		put(d, VFUT_IRQ, 0);
		equal("uio", (uint64_t)check(read(d->uio, &now, 4), "uio"), 4);
		if (i && now == before)
			die("interrupt %u was counted before", now);
		before = now;
	}
	close(d->uio);
}

static void rom(const struct device *d)
{
	uint8_t bytes[VFUT_ROM_SIZE];
	int fd = open_file(d, "rom");
	size_t done = 0;

	check(write(fd, "1", 1), "rom");
	while (done < sizeof(bytes)) {
		ssize_t n = pread(fd, bytes + done, sizeof(bytes) - done, (off_t)done);

		if (check(n, "rom") == 0)
			die("the ROM ends after %zu bytes", done);
		done += (size_t)n;
	}
	equal("the ROM's signature", bytes[0] | bytes[1] << 8, 0xaa55);
	for (unsigned int i = VFUT_ROM_HEADER; i < sizeof(bytes); i++)
		equal("a byte of the ROM", bytes[i], (uint8_t)(i * 7));
	check(write(fd, "0", 1), "rom");
	close(fd);
}

static void open_device(struct device *d, const char *path)
{
	d->path = path;
	d->registers = map_bar(d, 0);
	d->memory = map_bar(d, 2);
	d->bells = map_bar(d, 4);
	d->ports = open_file(d, "resource1");
	d->config = open_file(d, "config");
}

static void all(struct device *d)
{
	printf("vfio_user: region reads before the first register: %u\n", get(d, VFUT_READS));
	equal("BAR0", get(d, VFUT_ID), VFUT_MAGIC);
	ports(d);
	accesses(d);
	mapped(d);
	doorbells(d);
	dma(d, 0);
	interrupts(d, INTERRUPTS);
	rom(d);
	printf("vfio_user: all passed, resets %u\n", get(d, VFUT_RESETS));
}

static void dma_and_raise(const struct device *d, unsigned int vector)
{
	dma(d, vector + 1);
}

static void by_vfio(const char *path)
{
	struct device d = { .path = path };
	struct vfio v;

	vfio_open(&v, &d);
	vfio_accesses(&v);
	accesses(&d);
	mapped(&d);
	doorbells(&d);
	vfio_interrupts(&v, dma_and_raise);
	vfio_reset(&v);
	accesses(&d);
	mapped(&d);
	dma(&d, 0);
	vfio_close(&v);
	puts("vfio_user: all passed by vfio-pci");
}

static void wait_for(const struct device *d, uint32_t wanted)
{
	alarm(SECONDS);
	while (get(d, VFUT_ID) != wanted)
		usleep(10000);
	alarm(0);
}

static void away(const struct device *d)
{
	uint32_t id = 0;

	wait_for(d, UINT32_MAX);
	alarm(SECONDS);
	equal("a port of a device that is gone", check(pread(d->ports, &id, 4, 0), "resource1"), 4);
	equal("a port of a device that is gone", id, UINT32_MAX);
	/* What is mapped goes last. */
	while (d->memory[VFUT_AREA1 / 4] != UINT32_MAX)
		usleep(10000);
	alarm(0);
	d->bells[0] = 1;
	puts("vfio_user: away");
}

static void back(struct device *d)
{
	wait_for(d, VFUT_MAGIC);
	interrupts(d, INTERRUPTS);
	mapped(d);
	doorbells(d);
	dma(d, 0);
	puts("vfio_user: back");
}

/* Of any device: by mmap() of memory, by read() and write() of I/O ports. */
static void one(const struct device *d, bool is_write, char **arguments)
{
	unsigned int index = (unsigned int)strtoul(arguments[0], NULL, 0),
		     at = (unsigned int)strtoul(arguments[1], NULL, 0);
	uint32_t value = is_write ? (uint32_t)strtoul(arguments[2], NULL, 0) : 0;
	volatile uint32_t *memory;
	char name[16];
	void *try;
	int fd;

	snprintf(name, sizeof(name), "resource%u", index);
	fd = open_file(d, name);
	try = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (try == MAP_FAILED) {
		check(is_write ? pwrite(fd, &value, 4, at) : pread(fd, &value, 4, at), name);
	} else {
		memory = try;
		if (is_write)
			memory[at / 4] = value;
		else
			value = memory[at / 4];
	}
	if (!is_write)
		printf("0x%08x\n", value);
}

int main(int argc, char **argv)
{
	struct device d = { 0 };
	const char *what = argc > 2 ? argv[2] : "";

	setlinebuf(stdout);
	if (argc == 5 + (strcmp(what, "write") == 0) && (strcmp(what, "read") == 0 || argc == 6)) {
		d.path = argv[1];
		enable(&d);
		one(&d, argc == 6, argv + 3);
		return 0;
	}
	if (argc != 3)
		die("usage: vfio_user DEVICE all|vfio|away|back|read N AT|write N AT VALUE");
	if (strcmp(what, "vfio") == 0) {
		by_vfio(argv[1]);
		return 0;
	}
	open_device(&d, argv[1]);
	if (strcmp(what, "all") == 0)
		all(&d);
	else if (strcmp(what, "away") == 0)
		away(&d);
	else if (strcmp(what, "back") == 0)
		back(&d);
	else
		die("%s: unknown", what);
	return 0;
}
