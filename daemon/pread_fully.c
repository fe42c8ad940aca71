// SPDX-License-Identifier: GPL-2.0
#include "pread_fully.h"

#include <errno.h>
#include <unistd.h>

#include "faults.h"

#define LITTLE_BYTES 1000

ssize_t pread_fully(int fd, void *to, size_t length, uint64_t offset)
{
	size_t got = 0;

	while (got < length) {
		size_t want = fault("pread.no_more") && length - got > LITTLE_BYTES ? LITTLE_BYTES : length - got;
		ssize_t done = pread(fd, (uint8_t *)to + got, want, (off_t)(offset + got));

		if (done < 0 && errno != EINTR)
			return -errno;
		if (!done)
			break;
		if (done > 0)
			got += (size_t)done;
	}
	return (ssize_t)got;
}
