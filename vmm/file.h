/* SPDX-License-Identifier: MIT */
#ifndef VMM_FILE_H
#define VMM_FILE_H

#include <stddef.h>

/* Reads the first size bytes of a file. 0, -errno, or -EIO if it has fewer. */
int file_read(int fd, void *to, size_t size);

#endif
