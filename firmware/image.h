/* SPDX-License-Identifier: MIT */
/*
 * What a file given as --firmware is: UEFI firmware for a flash chip (UEFI PI 1.7, volume 3, firmware volumes), or an
 * ELF file that is entered like a kernel. Knows no KVM and no machine.
 */
#ifndef FIRMWARE_IMAGE_H
#define FIRMWARE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FIRMWARE_MAX (8u << 20) /* flash with its variables, below 4 GiB; I/O APIC and local APIC are further down */

struct firmware_image {
	size_t code_offset, code_size;
	/* Bytes of the variable store that belongs right below the code; the file begins with one if code_offset is it.
	 */
	size_t vars_size;
};

/*
 * Every byte of data is checked before it is believed. 0, or -EINVAL and one sentence in err, without the file's name:
 * "ends within a firmware volume".
 */
int firmware_image_parse(const uint8_t *data, size_t size, struct firmware_image *image, char *err, size_t errlen);

/* An ELF file, which the kernel loader takes. */
bool firmware_image_is_elf(const uint8_t *data, size_t size);

#endif
