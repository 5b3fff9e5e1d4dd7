/* SPDX-License-Identifier: MIT */
/* What --disk says. */
#ifndef DEVICES_BLOCK_DISK_H
#define DEVICES_BLOCK_DISK_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "devices/block/block.h"

#define DISKS_MAX	255 /* Linux looks for no more on one controller */
#define DISK_SERIAL_MAX 64

struct disk_options {
	char path[PATH_MAX];
	char serial[DISK_SERIAL_MAX + 1]; /* empty: none given */
	bool readonly;
	bool dvd;  /* the path ends in .iso */
	bool boot; /* the firmware is to boot from it */
	enum block_direct direct;
};

/* "PATH,readonly=on,serial=S": 0, or -EINVAL with one sentence in err, without the option's name. */
int disk_parse(const char *text, struct disk_options *options, char *err, size_t errlen);

#endif
