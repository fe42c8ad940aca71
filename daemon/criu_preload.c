// SPDX-License-Identifier: GPL-2.0
/*
 * Preloaded into criu (and nothing else): it starts while the job still runs, and has the job's file access.
 *
 * What comes before criu's main() (exec, loading its libraries) takes longer than much of what comes after.  So criu is
 * started before the job is frozen, and stands still here until it may go on.
 *
 * File access is the job's user's, everything else root's.  A file server that squashes root takes root for nobody, so
 * CRIU, which must be root on the node, could not open the job's own files there.  The file system ids change, and
 * the capabilities stay; which of them are used for the job's files, criu_files.c says.  An exec resets these ids: that
 * is why it happens here.
 *
 * The job's first process may be one that adopts orphans (PR_SET_CHILD_SUBREAPER).  CRIU makes it one again late.  An
 * orphan whose session's leader has ended it makes a child of a process with the leader's number, which ends before
 * that: ckpt-init would have the orphan, and the next checkpoint would leave it out.  So it becomes one here, where it
 * begins its session: it has no children yet.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "criu_files.h"

static void become_job_user(void)
{
	const char *ids = getenv("CKPT_FSUID"), *images = getenv("CKPT_RESTORE");
	unsigned int uid, gid;

	if (!ids || sscanf(ids, "%u:%u", &uid, &gid) != 2)
		return;
	criu_files_become(uid, gid);
	if (images)
		criu_files_guard(uid, gid, images);
}

static pid_t adopting;

pid_t setsid(void)
{
	if (adopting && getpid() == adopting)
		prctl(PR_SET_CHILD_SUBREAPER, 1);
	return (pid_t)syscall(SYS_setsid);
}

static void adopt(void)
{
	const char *pid = getenv("CKPT_ADOPTS");

	adopting = pid ? atoi(pid) : 0;
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
	adopt();
	stand_still();
	/* CRIU's own helpers (iptables and the like) are plain root again. */
	unsetenv("LD_PRELOAD");
	unsetenv("CKPT_FSUID");
	unsetenv("CKPT_RESTORE");
	unsetenv("CKPT_ADOPTS");
	unsetenv("CKPT_HOLD");
	unsetenv("CKPT_PROBE");
}
