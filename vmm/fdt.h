/* SPDX-License-Identifier: MIT */
/* The machine as a device tree: for --dump-dtb, and for guests that have no ACPI interpreter. */
#ifndef VMM_FDT_H
#define VMM_FDT_H

struct vm;

/* Writes the tree to buffer (size bytes). Returns its length, or -errno after printing the cause. */
int machine_fdt(struct vm *vm, void *buffer, int size);

/* --dump-dtb. 0 or -errno after printing the cause. */
int machine_dump_fdt(struct vm *vm, const char *path);

#endif
