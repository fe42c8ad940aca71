// SPDX-License-Identifier: GPL-2.0
/*
 * Preloaded into criu (and nothing else): it starts while the job still runs, and has the job's file access.
 *
 * What comes before criu's main() (exec, loading its libraries) takes longer than much of what comes after.  So criu is
 * started before the job is frozen, and stands still here until it may go on.
 *
 * File access is the job's user's, everything else root's.  A file server that squashes root takes root for nobody, so
 * CRIU, which must be root on the node, could not open the job's own files there.  Only the file system ids change, and
 * every capability stays, so that local access is root's.  An exec resets these ids: that is why it happens here.
 */
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void keep_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data))
		_exit(123);
	for (int i = 0; i < 2; i++)
		data[i].effective = data[i].permitted;
	if (syscall(SYS_capset, &header, data))
		_exit(123);
}

static void become_job_user(void)
{
	const char *ids = getenv("CKPT_FSUID");
	unsigned int uid, gid;

	if (!ids || sscanf(ids, "%u:%u", &uid, &gid) != 2)
		return;
	syscall(SYS_setfsgid, gid);
	syscall(SYS_setfsuid, uid);
	keep_capabilities();
}

/* Says that it is here, and awaits the word to go on; without it, criu ends before it has begun. */
static void stand_still(void)
{
	const char *hold = getenv("CKPT_HOLD");
	char byte = 1;
	int fd;

	if (!hold)
		return;
	fd = atoi(hold);
	if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1 || recv(fd, &byte, 1, 0) != 1)
		_exit(123);
	close(fd);
}

__attribute__((constructor)) static void begin(void)
{
	if (getenv("CKPT_PROBE"))
		puts("ckpt: preloaded");
	become_job_user();
	stand_still();
	/* CRIU's own helpers (iptables and the like) are plain root again. */
	unsetenv("LD_PRELOAD");
	unsetenv("CKPT_FSUID");
	unsetenv("CKPT_HOLD");
	unsetenv("CKPT_PROBE");
}
