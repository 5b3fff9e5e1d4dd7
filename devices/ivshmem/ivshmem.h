/* SPDX-License-Identifier: MIT */
/*
 * Inter-VM shared memory: PCI device 1af4:1110 (QEMU docs/specs/ivshmem-spec.rst).
 *
 * BAR0 has 256 bytes of registers, BAR1 the MSI-X table (only where there is MSI-X: the Windows driver counts memory
 * resources), BAR2 is the memory, a memslot. "Plain" has the memory from a file and no interrupts. "Doorbell" has it
 * from a server, which also hands out an eventfd for each vector of each peer: writing the Doorbell register signals
 * one, by ioeventfd and without an exit to vmm, and ours are irqfds.
 */
#ifndef DEVICES_IVSHMEM_IVSHMEM_H
#define DEVICES_IVSHMEM_IVSHMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IVSHMEM_MAX	    16 /* devices of a machine */
#define IVSHMEM_VECTORS_MAX 1024
#define IVSHMEM_PEERS	    65536 /* ids are 16 bits wide */
#define IVSHMEM_SIZE_MIN    4096
#define IVSHMEM_SIZE_MAX    (1ULL << 46)

#define IVSHMEM_VENDOR 0x1af4
#define IVSHMEM_DEVICE 0x1110

/* Offsets in BAR0. */
enum {
	IVSHMEM_INTR_MASK = 0,
	IVSHMEM_INTR_STATUS = 4,
	IVSHMEM_IV_POSITION = 8,
	IVSHMEM_DOORBELL = 12,
	IVSHMEM_REGISTERS = 256,
};

struct vm;

struct ivshmem_options {
	char path[256];	  /* plain: the file; or empty */
	char socket[108]; /* doorbell: the server's socket; or empty */
	uint64_t size;	  /* plain: bytes, a power of two */
	unsigned int vectors;
	bool readonly, ioeventfd, msi;
};

/* The value of --ivshmem. 0, or -EINVAL with a sentence in err. Opens nothing. */
int ivshmem_parse(const char *text, struct ivshmem_options *options, char *err, size_t errlen);

/*
 * Creates the device number index of a machine. A doorbell device connects to its server and waits, a few seconds at
 * most, for what it needs to know before the guest runs. 0, or -errno after printing one line.
 */
int ivshmem_create(struct vm *vm, const struct ivshmem_options *options, unsigned int index);

/* "vmm ivshmem-server": argv[0] is "ivshmem-server". Returns the exit status of the program. */
int ivshmem_server_main(int argc, char **argv);

#endif
