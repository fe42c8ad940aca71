/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Starting a job's PID 1 (ckpt-init) with its namespaces and cgroup: for a program to be started as
 * the caller, or for CRIU to restore into.
 */
#ifndef CKPT_LAUNCH_H
#define CKPT_LAUNCH_H

#include <stdbool.h>
#include <sys/types.h>

#include "init_spec.h"
#include "problem.h"

/* Who called `ckptctl run`, and what for: everything that the job inherits. */
struct caller {
	pid_t pid;
	int pidfd;              /* of that process: its number may become another's */
	uid_t uid;
	gid_t gid;
	gid_t groups[INIT_MAX_GROUPS];
	size_t group_count;
	char **arguments;       /* NULL-terminated */
	char **environment;     /* NULL-terminated */
	char *cwd;              /* absolute path in the caller's namespace */
	int stdin_fd;           /* a regular file or a directory-free device; -1: /dev/null */
};

/* Fills what the kernel knows of the process behind a connected unix socket; not pidfd. */
int caller_from_socket(struct caller *caller, int socket, struct problem *problem);
void caller_free(struct caller *caller);
/* -ESRCH: the process is gone, so what /proc said of its number may have been another's. */
int caller_check(const struct caller *caller, struct problem *problem);
/* Whether it was in the group when it connected. False if there is no such group. */
bool caller_in_group(int socket, const char *group);

struct launch {
	pid_t init_pid;         /* outside */
	int init_pidfd;
	int alive_fd;           /* write end of INIT_ALIVE, held as long as ckptd lives */
	int status_fd;          /* struct init_report records; until LAUNCH ends */
};

struct launch_paths {
	const char *cgroup;         /* the job's */
	const char *parent_cgroup;  /* the caller's: init itself stays in it */
	const char *directory;      /* the job's local directory, with stdout and stderr in it */
	const char *stdout_path;
	const char *stderr_path;    /* may be stdout_path */
	const char *private;        /* "none", or a list of directories for the job alone */
	int pages_fd;               /* lazy restore: see INIT_FD_PAGES; else -1 */
};

/* Makes PID 1 and waits until its namespaces stand. */
int launch_init(struct launch *launch, enum init_mode mode, const struct caller *caller,
		const struct launch_paths *paths, struct problem *problem);
/* The job's record is written: the program may start, and outlive this ckptd. */
int launch_confirm(struct launch *launch, struct problem *problem);
/* INIT_START only: waits until the program runs. problem: the exec's error; *status 126 or 127. */
int launch_wait_exec(struct launch *launch, int *status, struct problem *problem);
/* Takes the job of an earlier ckptd in hand; init_pid and init_pidfd are known. */
int launch_adopt(struct launch *launch, const char *directory, struct problem *problem);
void launch_close(struct launch *launch);

#endif
