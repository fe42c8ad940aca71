/* SPDX-License-Identifier: GPL-2.0 */
/*
 * CRIU: everything of a job that is not page content.  The only file that knows its command line.
 *
 * criu runs inside the job's PID and mount namespaces (so that they are not dumped) but outside its
 * IPC namespace (so that System V objects are), as the job's user with all capabilities: root on the
 * node is nobody on a file server that squashes root, the user is not.
 *
 * A supervisor process stands between ckptd and criu and outlives a ckptd that dies: criu must not
 * be killed while it has hold of the job's tasks.  Without ckptd the dump fails and criu lets go;
 * the supervisor then thaws the job.  Should criu die instead, it ends the job.
 */
#ifndef CKPT_CRIU_H
#define CKPT_CRIU_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "problem.h"
#include "tcp.h"

struct criu_version {
	unsigned int major, minor, patch;
	char text[32];
	bool tracks_memory;     /* the kernel has soft-dirty bits, and CRIU sends only what is dirty */
	bool holds;             /* criu_preload.c is in it: it can be started beforehand. A static one cannot have it */
};

/*
 * Asks the program; also says when this CRIU cannot work on this kernel.  Where the kernel has no
 * soft-dirty bits CRIU sends all pages at each checkpoint, and those that we hold are recognised by
 * their hashes.
 */
int criu_probe(const char *program, struct criu_version *version, struct problem *problem);

/* What a dump wrote of the CPU that it ran on. */
#define CRIU_CPU_IMAGE "cpuinfo.img"

/*
 * Whether CRIU restores here what was saved on the CPU of that image: it also compares how much state a task
 * has in its registers, which a program may rely on as much as on an instruction.  -ENOTSUP: no.
 */
int criu_check_cpu(const char *program, const char *images, struct problem *problem);
#define CRIU_SENDS_ALL "the kernel has no soft-dirty bits, so CRIU sends all pages at each checkpoint; those " \
		       "that have not changed are found by their hashes and not written again"
#define CRIU_IS_STATIC "criu is linked statically: a restore opens a job's files with root's rights, and whoever puts a " \
		       "link in the place of one gets at what it leads to. Install one that is not, unless you trust all users"
/* Page server messages are 24 bytes up to 4.1.1 and 32 from 4.2. */
bool criu_wide_messages(const struct criu_version *version);

/* -ENOTSUP: the process has something that CRIU cannot save; the problem names it. */
int criu_check_task(pid_t pid, struct problem *problem);
/* The same, what can only be told of a process that stands still; what CRIU loses, and is no reason to refuse it, is logged. */
int criu_check_stopped(pid_t pid, int pidfd, struct problem *problem);

/* What is done about TCP connections: the same at the restore as at the dump. */
enum criu_tcp {
	CRIU_TCP_NONE,          /* there are none */
	CRIU_TCP_CLOSE,
	CRIU_TCP_ESTABLISHED,
};

struct criu_job {
	const char *program;
	struct criu_version version;
	pid_t init_pid;
	int init_pidfd;
	uid_t uid;
	gid_t gid;
	const gid_t *groups;
	size_t group_count;
	const char *cgroup;
	const char *images;     /* directory, absolute, on a local file system */
	uint64_t ghost_limit;   /* bytes */
	pid_t caller;           /* whose CPUs a restored job gets: CRIU does not save which it had */
	enum tcp_policy tcp_policy;
	enum criu_tcp tcp;
	bool tcp_moving;        /* dump: the network must stand still, too */
	bool lazy;              /* restore: pages come later, from lazy-pages.socket in the images */
};

/*
 * -ENOTSUP: its parent has ended, so it is none of the processes that CRIU finds from the first one; or one was adopted so
 * that CRIU finds no way to its session at a restore.
 */
int criu_check_parent(const struct criu_job *job, pid_t pid, struct problem *problem);

/*
 * Looks at the job's TCP connections, and sets tcp and tcp_moving for a dump; for that the job must
 * stand still. -ENOTSUP as above.
 */
int criu_check_tcp(struct criu_job *job, struct problem *problem);
/* What a checkpoint says of it: NULL, "close" or "established". */
const char *criu_tcp_name(enum criu_tcp tcp);
/* -ENOTSUP: this CRIU cannot restore that. */
int criu_tcp_parse(const char *name, const struct criu_version *version, enum criu_tcp *tcp,
		   struct problem *problem);

struct criu_run {
	pid_t supervisor;
	int pidfd;
	int page_socket;        /* dump: our end; -1 else */
	int hold;               /* a dump that stands still before it begins: our end; -1 else */
	enum criu_tcp tcp;      /* what the dump was told */
	bool tcp_moving;
};

/*
 * Two steps, so that criu's start does not take of the time for which the job is frozen.  The job may run in
 * the first one.  Before the second, the caller freezes it; it is still frozen when the dump has ended.
 */
int criu_dump_prepare(struct criu_run *run, const struct criu_job *job, int timeout_ms, struct problem *problem);
int criu_dump_go(struct criu_run *run, const struct criu_job *job, int timeout_ms, struct problem *problem);
/* Instead of the second: nothing has been done to the job. */
void criu_dump_cancel(struct criu_run *run, const struct criu_job *job, int timeout_ms);
/* Restored tasks become children of the job's init. */
int criu_restore_start(struct criu_run *run, const struct criu_job *job, struct problem *problem);
/*
 * Waits; 0 when criu succeeded. problem: criu's own error lines. -ETIMEDOUT: it was killed before it
 * had, or after it had had, hold of the job's tasks. -EOWNERDEAD: it was killed or died while it might
 * have hold of them, so they may be damaged.
 */
int criu_wait(struct criu_run *run, const struct criu_job *job, const char *log, int timeout_ms,
	      struct problem *problem);
/* Waits for a supervisor that an earlier ckptd left behind in this directory. */
int criu_wait_orphan(const char *directory, int timeout_ms, struct problem *problem);

#endif
