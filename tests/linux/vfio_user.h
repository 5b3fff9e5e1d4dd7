/* SPDX-License-Identifier: MIT */
/* What vfio_user.c and vfio_pci.c, one program, have in common. */
#ifndef LINUX_VFIO_USER_H
#define LINUX_VFIO_USER_H

#include <stdint.h>

#include "../servers/vfio_user_test.h"

enum { SECONDS = 600 }; /* after which nothing comes any more */

struct device {
	const char *path;
	volatile uint32_t *registers, *memory, *bells; /* BAR0, BAR2, BAR4, mapped */
	int ports, config, uio;
};

__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);

/* Returns `ret`, as an int; ends the program if it is negative, with what errno says. */
int check(long ret, const char *what);

/* Ends the program if the two are not the same. */
void equal(const char *what, uint64_t got, uint64_t wanted);

/* A register of BAR0. */
uint32_t get(const struct device *d, unsigned int at);
void put(const struct device *d, unsigned int at, uint32_t value);

/* The device's end of vfio, as vfio-pci has it. */
struct vfio {
	int container, group, device;
	struct device *d;
};

/* Opens the device of d->path, which vfio-pci drives in its no-IOMMU mode, checks what vfio says of it and of its
 * regions, maps the BARs of memory, which sets the pointers of `d`, and lets it do DMA. */
void vfio_open(struct vfio *v, struct device *d);

/* What goes by read() and write(): configuration space, ports, registers of each width, memory, the ROM. */
void vfio_accesses(const struct vfio *v);

/* Each vector of MSI-X, then of MSI, then INTx. With MSI-X set up it calls then(d, vector), which has the device raise
 * that vector. */
void vfio_interrupts(const struct vfio *v, void (*then)(const struct device *d, unsigned int vector));

/* A reset, from which MSI-X and what is mapped must come back as they were. */
void vfio_reset(const struct vfio *v);

void vfio_close(struct vfio *v);

#endif
