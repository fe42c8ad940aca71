/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What ckptd tells ckpt-init, PID 1 of a job's PID namespace.  Both come from one build and run on
 * one host, so this is a plain structure, read from descriptor INIT_FD_SPEC, followed by the
 * strings: argument_count arguments, environment_count variables, cwd, stdin, stdout and stderr
 * path, the job's local directory, and the list of directories that the job has for itself, each
 * ended by a NUL.
 *
 * ckpt-init forks the job's root task (or, at a restore, waits for the one that CRIU makes), reaps
 * what is orphaned, writes the root task's end into the file "exit" of the job's directory and
 * exits, which ends the PID namespace.  It is not part of a checkpoint.
 *
 * A ckptd that has the job in hand holds the write end of the FIFO "alive" in the job's directory.  A
 * byte in it says that the record is written, so that a later ckptd will find the job: the program is
 * started only then.  At the end of the last writer
 *   - without such a byte: nobody will ever know of this job.  Init removes the record, should it just
 *     have been written, and exits, and with it ends whatever CRIU has restored;
 *   - else the job is thawed, for ckptd may have died while it was frozen.  Not so with the mark: the
 *     final checkpoint may be committed, and the job must not run on behind it.  The next ckptd asks
 *     the store.
 *
 * A lazily restored job must not run on when those who give it its memory have ended without a word on their
 * socket, INIT_FD_PAGES: init kills it and exits.  Until then it keeps what they send: a socket with the job's
 * userfaultfds in it, and later another one in place of that.
 */
#ifndef CKPT_INIT_SPEC_H
#define CKPT_INIT_SPEC_H

#include <stdint.h>
#include <sys/resource.h>

#define INIT_MAGIC 0x74696e69u

/* The kernel never gives PIDs below 300 again after a wrap, so those stay free for us and CRIU. */
#define INIT_ROOT_PID 300

/* In the job's directory. */
#define INIT_ALIVE "alive"
#define INIT_RECORD "job.json"
#define INIT_MARK "committing"
#define INIT_EXIT "exit"      /* written by init: "exited STATUS" or "killed SIGNAL" */
#define INIT_LAZY "lazy"      /* there while memory is missing; see lazy_spec.h */

enum init_fd {
	INIT_FD_SPEC = 3,
	INIT_FD_STATUS = 4,      /* write end: struct init_report records */
	INIT_FD_ALIVE = 5,       /* read end of INIT_ALIVE, non-blocking */
	INIT_FD_DIRECTORY = 6,   /* the job's local directory */
	INIT_FD_CGROUP = 7,      /* the job's cgroup directory */
	INIT_FD_STDIN = 8,       /* the caller's stdin, to compare; -1 when stdin_path is empty */
	INIT_FD_PAGES = 9,       /* lazy restore: a socket to what gives memory, see lazy_spec.h; else -1 */
	INIT_FD_COUNT = 10,
};

enum init_mode {
	INIT_START = 1,
	INIT_RESTORE = 2,
};

#define INIT_MAX_GROUPS 256

struct init_spec {
	uint32_t magic;
	uint32_t mode;
	uint32_t uid;
	uint32_t gid;
	uint32_t group_count;
	uint32_t groups[INIT_MAX_GROUPS];
	uint32_t umask;
	int32_t nice;
	int32_t oom_score_adj;
	uint32_t argument_count;
	uint32_t environment_count;
	uint32_t strings_bytes;
	uint32_t stdin_flags;
	uint64_t stdin_offset;
	uint64_t affinity[16];           /* bits of CPUs; all zero: leave */
	struct rlimit limits[RLIM_NLIMITS];
};

enum init_stage {
	INIT_STAGE_PID = 1,      /* value: init's pid outside */
	INIT_STAGE_READY = 2,    /* namespaces stand; a restore may begin */
	INIT_STAGE_ROOT = 3,     /* the root task has been forked, as INIT_ROOT_PID inside */
	INIT_STAGE_EXEC = 4,     /* the program runs */
	INIT_STAGE_FAILED = 5,   /* value: errno; text says what */
};

struct init_report {
	uint32_t stage;
	int32_t value;
	char text[248];
};

#endif
