/* SPDX-License-Identifier: MIT */
#include "vmm/file.h"

#include <errno.h>
#include <unistd.h>

int file_read(int fd, void *to, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = pread(fd, (char *)to + done, size - done, (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		done += (size_t)n;
	}
	return 0;
}
