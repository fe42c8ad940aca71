// SPDX-License-Identifier: GPL-2.0
/*
 * ckpt-gate: criu's action script of a lazy restore; see lazy_spec.h.  When the job's processes stand, it
 * asks ckpt-pages whether they may run; if not, or if it is gone, criu undoes what it has made.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lazy_spec.h"

int main(void)
{
	const char *action = getenv("CRTOOLS_SCRIPT_ACTION"), *directory = getenv("CRTOOLS_IMAGE_DIR");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd;
	char answer = 0;

	if (!action || strcmp(action, "post-restore"))
		return 0;
	if (!directory || snprintf(address.sun_path, sizeof(address.sun_path), "%s/" LAZY_SOCKET, directory) >=
	    (int)sizeof(address.sun_path))
		return 1;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)))
		return 1;
	return read(fd, &answer, 1) == 1 && answer == LAZY_GO ? 0 : 1;
}
